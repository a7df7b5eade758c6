"""What must hold: each fault is found, only when it lasts, and nothing else is found with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from p2psip.ids import NodeId
from p2psip.interfaces import ITopologyFactory, ITopologyHost, ITopologyPlugin
from p2psip.node import Node
from p2psip.simulator.invariants import MOST_KEPT, ONE_RING, RESPONSIBLE_ONCE, Invariants
from p2psip.simulator.overlay import Overlay
from p2psip.topology.chord import Chord
from p2psip.topology.client import ChordClient

from .overlays import converged

BOUND = 100.0


class InvariantsTestCase(SynchronousTestCase):
    """Ten peers, each with three neighbors on either side; a test makes a fault, and lets no peer mend it."""

    def setUp(self) -> None:
        self.overlay: Overlay = converged(10, neighbors=3)
        self.invariants = Invariants(self.overlay, BOUND)
        self.ring = list(self.overlay.ring)
        self.invariants.check({})
        self.assertNothingViolated()

    def node(self, place: int) -> Node:
        return self.overlay.nodes[self.ring[place]]

    def lose(self, place: int, other: int) -> None:
        """Let the peer at `place` believe that another is dead."""
        self.node(place).topology.link_closed(self.ring[other])

    def stand_still(self) -> None:
        """Nobody does anything any more; tables stay as they are."""
        for node in self.overlay.nodes.values():
            node.stop()

    def check_after(self, seconds: float) -> None:
        self.overlay.clock.run(seconds)
        self.invariants.check({})

    def assertNothingViolated(self) -> None:
        self.assertEqual((self.invariants.violations, self.invariants.count), ([], 0))

    def assertViolated(self, *expected: tuple[str, NodeId]) -> None:
        """Each of these, by the node that the text names first, and nothing else."""
        found = sorted((one.invariant, one.text) for one in self.invariants.violations)
        self.assertEqual(len(found), len(expected), found)
        for (invariant, text), (wanted, node_id) in zip(found, sorted(expected), strict=True):
            self.assertEqual(invariant, wanted)
            self.assertIn(node_id.hex(), text)
        self.assertEqual(self.invariants.count, len(expected))


class RingTests(InvariantsTestCase):
    def test_wrong_successor(self) -> None:
        self.lose(2, 3)
        self.stand_still()
        self.check_after(0)
        self.assertEqual((self.invariants.consistent, self.invariants.double_claims), (0.9, 0))
        self.check_after(BOUND)
        self.assertNothingViolated()
        self.check_after(1)
        self.assertViolated((ONE_RING, self.ring[2]))
        self.assertEqual(self.invariants.violations[0].when, BOUND + 1)

    def test_wrong_third_successor(self) -> None:
        """The three nearest have to be right, not the first alone."""
        self.lose(2, 5)
        self.stand_still()
        self.check_after(0)
        self.check_after(BOUND + 1)
        self.assertViolated((ONE_RING, self.ring[2]))

    def test_a_successor_that_is_dead(self) -> None:
        """Those before it are wrong; and the one after it leaves what was the dead one's to nobody."""
        self.overlay.kill(self.node(3))
        self.stand_still()
        self.check_after(0)
        self.assertAlmostEqual(self.invariants.consistent, 1 - 3 / 9)
        self.check_after(BOUND + 1)
        self.assertViolated(*((ONE_RING, self.ring[place]) for place in (0, 1, 2)), (RESPONSIBLE_ONCE, self.ring[4]))
        self.assertEqual(self.invariants.double_claims, 0)

    def test_mended_within_the_bound(self) -> None:
        """For how long it was wrong is told, of each peer."""
        self.overlay.kill(self.node(3))
        self.check_after(0)
        for _ in range(10):
            self.check_after(BOUND / 10)
        self.assertEqual(self.invariants.consistent, 1)
        self.check_after(BOUND + 1)
        self.assertNothingViolated()
        self.assertEqual(len(self.invariants.wrong), 3)
        self.assertTrue(all(0 < seconds <= BOUND for seconds in self.invariants.wrong))

    def test_wrong_again(self) -> None:
        """The time counts from when it became wrong the last time."""
        self.overlay.kill(self.node(3))
        self.check_after(0)
        self.check_after(BOUND - 1)
        self.assertEqual(self.invariants.consistent, 1)
        self.overlay.kill(self.node(6))
        self.check_after(0)
        self.assertLess(self.invariants.consistent, 1)
        self.check_after(BOUND - 1)
        self.assertNothingViolated()

    def test_dead_while_wrong(self) -> None:
        """It was never right again: it says nothing of how long that takes."""
        self.lose(2, 3)
        self.check_after(0)
        self.overlay.kill(self.node(2))
        self.stand_still()
        self.check_after(BOUND / 2)
        self.assertEqual(self.invariants.wrong, [])

    def test_told_once(self) -> None:
        self.lose(2, 3)
        self.stand_still()
        self.check_after(0)
        for _ in range(5):
            self.check_after(BOUND + 1)
        self.assertViolated((ONE_RING, self.ring[2]))

    def test_each_side_of_a_partition_has_its_ring(self) -> None:
        """To be right while the network is partitioned is to know those of one's own side."""
        self.overlay.split(self.ring[:5], self.ring[5:])
        self.check_after(0)
        self.assertLess(self.invariants.consistent, 1)
        self.overlay.split()
        self.check_after(0)
        self.assertEqual(self.invariants.consistent, 1)


class ClaimTests(InvariantsTestCase):
    def test_double_claim(self) -> None:
        """A peer that has lost its predecessor takes for its own what is the predecessor's."""
        self.lose(4, 3)
        self.stand_still()
        self.check_after(0)
        self.assertEqual((self.invariants.consistent, self.invariants.double_claims), (1, 1))
        self.check_after(BOUND)
        self.assertNothingViolated()
        self.check_after(1)
        self.assertViolated((RESPONSIBLE_ONCE, self.ring[4]))
        self.assertIn(f"claims to be responsible for {self.ring[3].hex()}", self.invariants.violations[0].text)
        self.assertEqual(self.invariants.wrong, [])

    def test_claim_that_ends(self) -> None:
        """It says nothing of how long successors are wrong."""
        self.lose(4, 3)
        self.check_after(0)
        self.assertEqual(self.invariants.double_claims, 1)
        self.check_after(60)
        self.assertEqual(self.invariants.double_claims, 0)
        self.check_after(BOUND)
        self.assertNothingViolated()
        self.assertEqual(self.invariants.wrong, [])

    def test_nobody_claims(self) -> None:
        """Between a peer that is gone and the one that still takes it for its predecessor."""
        self.overlay.kill(self.node(3))
        for place in (0, 1, 2):
            self.lose(place, 3)
        self.stand_still()
        self.check_after(0)
        self.check_after(BOUND + 1)
        self.assertViolated((RESPONSIBLE_ONCE, self.ring[4]))
        text = f"nobody is responsible for what follows {self.ring[2].hex()}"
        self.assertIn(text, self.invariants.violations[0].text)
        self.assertEqual((self.invariants.consistent, self.invariants.double_claims), (1, 0))

    def test_alone(self) -> None:
        """All is its own."""
        overlay = converged(1)
        invariants = Invariants(overlay, BOUND)
        for _ in range(3):
            invariants.check({})
            overlay.clock.run(BOUND)
        self.assertEqual((invariants.count, invariants.consistent, invariants.double_claims), (0, 1, 0))

    def test_nobody(self) -> None:
        overlay = converged(1)
        overlay.kill(overlay.some_node())
        invariants = Invariants(overlay, BOUND)
        invariants.check({})
        self.assertEqual((invariants.count, invariants.consistent), (0, 1))

    def test_two_rings(self) -> None:
        """A node that is alone claims all, and who is responsible for it claims it as well."""
        stranger = self.overlay.found()
        after = self.overlay.successors(stranger.node_id, 1)[0]
        self.invariants.check({})
        self.assertEqual(self.invariants.double_claims, 2)
        self.stand_still()
        self.check_after(BOUND + 1)
        found = Counter(one.invariant for one in self.invariants.violations)
        self.assertEqual(found, {ONE_RING: 4, RESPONSIBLE_ONCE: 2})
        claimed = [one.text for one in self.invariants.violations if one.invariant == RESPONSIBLE_ONCE]
        for node_id in (stranger.node_id, after):
            self.assertEqual(sum(f"{node_id.hex()} claims" in text for text in claimed), 1)


class Crowded(Chord):
    """A topology that says to have more members than there may be."""

    def status(self) -> Any:
        return {**super().status(), "members": 10_000}


@implementer(ITopologyFactory)
class CrowdedFactory:
    name = "CHORD-RELOAD"

    def build(self, host: ITopologyHost) -> ITopologyPlugin:
        return Crowded(host)

    def build_client(self, host: ITopologyHost) -> ITopologyPlugin:
        return ChordClient(host)


class TableTests(InvariantsTestCase):
    """Tables that are replaced by what has the same length, in one peer."""

    def assertTooMany(self, what: str, too_many: Callable[[Node], None]) -> None:
        node = self.node(0)
        too_many(node)
        self.check_after(0)
        self.assertViolated(("bounded tables", node.node_id))
        self.assertIn(f" {what}, more than ", self.invariants.violations[0].text)

    def test_links(self) -> None:
        self.assertTooMany("links", lambda node: setattr(node, "table", range(2000)))

    def test_requests(self) -> None:
        self.assertTooMany("requests outstanding", lambda node: setattr(node, "transactions", range(8193)))

    def test_resources_to_replicate(self) -> None:
        """Not more than each neighbor could be sent each of them."""
        crowd = SimpleNamespace(backlog=1000)
        self.assertTooMany("resources to replicate", lambda node: setattr(node, "replication", crowd))

    def test_bootstrap_cache(self) -> None:
        cache = SimpleNamespace(places=range(11))
        self.assertTooMany("bootstrap cache", lambda node: setattr(node, "bootstrap_cache", cache))

    def test_counters(self) -> None:
        counters = dict.fromkeys(map(str, range(258)), 1)
        self.assertTooMany("counters", lambda node: setattr(node, "rejected", lambda: counters))

    def test_members(self) -> None:
        overlay = converged(2, topology=CrowdedFactory())
        invariants = Invariants(overlay, BOUND)
        invariants.check({})
        self.assertEqual(Counter(one.invariant for one in invariants.violations), {"bounded tables": 2})
        self.assertIn("10000 members of the Routing Table, more than ", invariants.violations[0].text)

    def test_most_that_is_allowed(self) -> None:
        node = self.node(0)
        node.transactions = range(8192)  # type: ignore[assignment]
        node.bootstrap_cache = SimpleNamespace(places=range(10))  # type: ignore[assignment]
        node.rejected = lambda: dict.fromkeys(map(str, range(257)), 1)  # type: ignore[assignment]
        self.check_after(0)
        self.assertNothingViolated()


class ValueTests(InvariantsTestCase):
    LOST = "no value lost that has a living replica"

    def holding(self, *places: int) -> dict[bytes, set[NodeId]]:
        return {b"alice": {self.ring[place] for place in places}}

    def test_lost_by_one_that_lives(self) -> None:
        self.invariants.check(self.holding(0, 1, 2))
        self.invariants.check(self.holding())
        (violation,) = self.invariants.violations
        self.assertEqual(violation.invariant, self.LOST)
        self.assertTrue(violation.text.startswith("alice: "))
        self.assertTrue(all(self.ring[place].hex() in violation.text for place in (0, 1, 2)))

    def test_lost_with_all_its_holders(self) -> None:
        self.invariants.check(self.holding(0, 1, 2))
        for place in (0, 1, 2):
            self.overlay.kill(self.node(place))
        self.invariants.check(self.holding())
        self.assertNothingViolated()

    def test_one_holder_is_left(self) -> None:
        self.invariants.check(self.holding(0, 1, 2))
        self.invariants.check(self.holding(1))
        self.overlay.kill(self.node(0))
        self.overlay.kill(self.node(1))
        self.invariants.check(self.holding())
        self.assertNothingViolated()

    def test_never_held(self) -> None:
        self.invariants.check(self.holding())
        self.assertNothingViolated()

    def test_told_once(self) -> None:
        """And anew, when it was there again meanwhile."""
        for places in ((0,), (), (), (1,), ()):
            self.invariants.check(self.holding(*places))
        self.assertEqual(self.invariants.count, 2)


class ToldTests(InvariantsTestCase):
    def test_of_a_scenario(self) -> None:
        self.overlay.clock.run(7)
        self.invariants.violated("every node joins", "3 did not")
        (violation,) = self.invariants.violations
        self.assertEqual((violation.when, violation.invariant, violation.text), (7, "every node joins", "3 did not"))

    def test_many(self) -> None:
        """Some are told, all are counted."""
        for number in range(MOST_KEPT + 5):
            self.invariants.violated("every node joins", f"{number} did not")
        self.assertEqual((len(self.invariants.violations), self.invariants.count), (MOST_KEPT, MOST_KEPT + 5))
