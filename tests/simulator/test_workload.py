"""What users do, and what is said to have become of it."""

from __future__ import annotations

from itertools import pairwise

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from p2psip.ids import NodeId
from p2psip.node import Node
from p2psip.simulator.overlay import KIND, Overlay
from p2psip.simulator.workload import Outcomes, Value, Workload
from p2psip.wire.storage import ArrayEntry, DataValue

from .overlays import converged


class WorkloadTestCase(SynchronousTestCase):
    """Ten peers in a ring that stands; nothing happens but what a test has the users do."""

    def setUp(self) -> None:
        self.overlay: Overlay = converged(10)
        self.workload = Workload(self.overlay)

    def ended(self, doing: Deferred[None], within: float = 30) -> None:
        """Let time pass until something is over."""
        self.assertEqual(self.overlay.result(doing, within), [None])

    def node(self, number: int = 0) -> Node:
        """One of the peers, in the order of the ring."""
        return self.overlay.nodes[self.overlay.ring[number]]

    def created(self, count: int = 1) -> list[Value]:
        """Values that are stored, with all their replicas."""
        self.workload.create(count)
        self.overlay.clock.run(5)
        self.assertEqual((self.workload.stores.right, self.workload.under_way), (count, 0))
        return self.workload.values

    def assertOutcomes(self, outcomes: Outcomes, right: int, **causes: int) -> None:
        found = (outcomes.total, outcomes.right, dict(outcomes.causes))
        told = {cause.replace("_", " "): count for cause, count in causes.items()}
        self.assertEqual(found, (right + sum(causes.values()), right, told))


class LookupTests(WorkloadTestCase):
    def test_right(self) -> None:
        for _ in range(50):
            self.ended(self.workload.look_up())
        lookups = self.workload.lookups
        self.assertOutcomes(lookups, 50)
        self.assertEqual((lookups.first, lookups.success_rate, lookups.first_rate), (50, 1, 1))
        self.assertEqual((len(lookups.hops), len(lookups.seconds), len(lookups.when)), (50, 50, 50))

    def test_hops(self) -> None:
        """As many links as lie between who asks and the responsible peer; each takes its latency, to and fro."""
        self.overlay = converged(60, neighbors=3)
        counted = []
        for _ in range(40):
            node = self.node(self.overlay.random.randrange(60))
            workload, again = Workload(self.overlay), Workload(self.overlay)
            target = again._random.randbytes(16)  # what it is going to look up
            self.ended(workload.look_up(node))
            (hops,), (seconds,) = workload.lookups.hops, workload.lookups.seconds
            self.assertEqual(hops, self.distance(node, target))
            self.assertAlmostEqual(seconds, 2 * hops * 0.05, 5)
            counted.append(hops)
        self.assertGreater(max(counted), 2)

    def distance(self, node: Node, target: bytes) -> int:
        links = 0
        while not node.topology.is_responsible(target):
            hop = node.topology.next_hop(target)
            assert hop is not None
            node = self.overlay.nodes[hop]
            links += 1
        return links

    def test_own_resource(self) -> None:
        """No hop, where who asks is responsible."""
        overlay = converged(2)
        workload = Workload(overlay)
        for _ in range(30):
            self.overlay.result(workload.look_up(), 0)
            overlay.clock.run(5)
        self.assertEqual(set(workload.lookups.hops), {0, 1})

    def test_another_peer(self) -> None:
        """The truth is another than the peers have it: to the one that is alone all belongs to itself."""
        alone = self.node()
        self.overlay.split([], [alone.node_id])
        for _ in range(20):
            self.ended(self.workload.look_up(alone))
        lookups = self.workload.lookups
        wrong = lookups.causes["answered by another peer"]
        self.assertTrue(0 < wrong < 20)
        self.assertEqual(set(lookups.hops), {0})
        self.assertOutcomes(lookups, 20 - wrong, answered_by_another_peer=wrong)
        self.assertEqual((len(lookups.hops), sum(lookups.causes.values())), (20 - wrong, wrong))
        self.assertEqual(lookups.success_rate, (20 - wrong) / 20)

    def test_while_responsibility_changes(self) -> None:
        """Who is responsible when the answer comes is as right as who was when it was asked."""
        alone = self.node()
        for before, after in (((), ([], [alone.node_id])), (([], [alone.node_id]), ())):
            workload = Workload(self.overlay)
            self.overlay.split(*before)
            asked = [workload.look_up(alone) for _ in range(10)]
            self.overlay.split(*after)
            for one in asked:
                self.ended(one)
            self.assertOutcomes(workload.lookups, 10)

    def test_without_retransmission(self) -> None:
        """Right, but only after overlay-reliability-timer."""
        self.overlay.network.loss = 1.0
        self.overlay.clock.callLater(4, setattr, self.overlay.network, "loss", 0.0)
        asked = [self.workload.look_up(self.node(number)) for number in range(10)]
        for one in asked:
            self.ended(one)
        lookups = self.workload.lookups
        self.assertOutcomes(lookups, 10)
        self.assertEqual(lookups.first, sum(hops == 0 for hops in lookups.hops))
        self.assertLess(lookups.first_rate, 1)
        self.assertGreater(max(lookups.seconds), 6)

    def test_no_answer(self) -> None:
        self.overlay.network.loss = 1.0
        asked = [self.workload.look_up(self.node(number)) for number in range(10)]
        for one in asked:
            self.ended(one)
        own = self.workload.lookups.right
        self.assertEqual(set(self.workload.lookups.hops), {0} if own else set())
        self.assertOutcomes(self.workload.lookups, own, RequestTimeout=10 - own)

    def test_at_a_node_that_dies(self) -> None:
        """It does not count, neither as right nor as wrong."""
        node = self.node()
        for _ in range(20):
            self.workload.look_up(node)
        self.assertEqual(self.workload.under_way, 20)
        self.overlay.clock.run(0.001)
        before = self.workload.lookups.total  # its own ones have been answered
        self.overlay.kill(node)
        self.overlay.clock.run(60)
        self.assertEqual((self.workload.lookups.total, self.workload.under_way), (before, 0))
        self.assertLess(before, 20)

    def test_which_are_told_when(self) -> None:
        """Seconds since the beginning of what is reported."""
        self.overlay.clock.run(10)
        self.overlay.start = self.overlay.clock.seconds()
        self.overlay.clock.run(2)
        self.ended(self.workload.look_up())
        self.assertAlmostEqual(self.workload.lookups.when[0], 2)


class ValueTests(WorkloadTestCase):
    def test_content(self) -> None:
        value = Value(b"alice@example.org", self.node().overlay.resource_id(b"alice@example.org"))
        data = DataValue(exists=True, value=value.content(3))
        self.assertEqual(value.version_of(data), 3)
        for other in (b"bob@example.org 3", b"alice@example.org", b"alice@example.org x", b"", b"3"):
            self.assertEqual(value.version_of(DataValue(exists=True, value=other)), 0, other)
        self.assertEqual(value.version_of(ArrayEntry(index=0, value=data)), 0)

    def test_create(self) -> None:
        """One value each, with three holders, the responsible peer among them."""
        values = self.created(20)
        self.assertEqual(len({value.resource for value in values}), 20)
        self.assertEqual([(value.acknowledged, value.attempted) for value in values], [(1, 1)] * 20)
        holders = self.workload.holders()
        for value in values:
            first = self.overlay.responsible(value.resource, self.overlay.ring[0])
            self.assertEqual(holders[value.name], {first, *self.overlay.successors(first, 2)})

    def test_create_more(self) -> None:
        self.created(2)
        self.workload.create(1)
        self.assertEqual(len({value.name for value in self.workload.values}), 3)

    def test_store_again(self) -> None:
        """Those who still have the version before do not hold it any more."""
        (value,) = self.created()
        before = self.workload.holders()[value.name]
        self.ended(self.workload.store(value))
        self.assertEqual((value.acknowledged, value.attempted), (2, 2))
        self.assertLessEqual(len(self.workload.holders()[value.name]), len(before))
        self.overlay.clock.run(5)
        self.assertEqual(self.workload.holders()[value.name], before)
        value.acknowledged = 3
        self.assertEqual(self.workload.holders()[value.name], set())
        value.acknowledged = 1
        self.assertEqual(self.workload.holders()[value.name], before)

    def test_only_what_was_acknowledged_has_holders(self) -> None:
        self.overlay.network.loss = 1.0
        self.workload.create(10)
        self.assertEqual(self.workload.holders(), {})
        self.overlay.clock.run(30)
        acknowledged = [value.name for value in self.workload.values if value.acknowledged]
        self.assertEqual(list(self.workload.holders()), acknowledged)
        self.assertLess(len(acknowledged), 10)
        self.assertOutcomes(self.workload.stores, len(acknowledged), RequestTimeout=10 - len(acknowledged))

    def test_the_dead_hold_nothing(self) -> None:
        (value,) = self.created()
        holders = self.workload.holders()[value.name]
        for node_id in list(holders):
            self.overlay.kill(self.overlay.nodes[node_id])
        self.assertEqual(self.workload.holders(), {value.name: set()})

    def test_fetch(self) -> None:
        (value,) = self.created()
        for number in range(10):
            self.ended(self.workload.fetch(value, self.node(number)))
        self.assertOutcomes(self.workload.fetches, 10)

    def test_fetch_what_is_newer(self) -> None:
        (value,) = self.created()
        self.ended(self.workload.store(value))
        value.acknowledged = 1
        self.ended(self.workload.fetch(value))
        self.assertOutcomes(self.workload.fetches, 1)

    def test_fetch_what_is_older(self) -> None:
        (value,) = self.created()
        value.acknowledged = 2
        self.ended(self.workload.fetch(value))
        self.assertOutcomes(self.workload.fetches, 0, an_old_value=1)

    def test_acknowledged_while_a_fetch_is_under_way(self) -> None:
        """What counts is what was acknowledged when it began."""
        (value,) = self.created()
        fetched = self.workload.fetch(value, self.node())
        value.acknowledged = 2
        self.ended(fetched)
        self.assertOutcomes(self.workload.fetches, 1)

    def test_fetch_what_is_not_there(self) -> None:
        value = Value(b"nobody@example.org", self.node().overlay.resource_id(b"nobody@example.org"), 1, 1)
        self.ended(self.workload.fetch(value))
        self.assertOutcomes(self.workload.fetches, 0, no_value=1)

    def test_fetch_something_else(self) -> None:
        """Another's value in its place is none."""
        (value,) = self.created()
        other = Value(value.name + b"x", value.resource, 1, 1)
        found = self.overlay.result(self.node().overlay.fetch(value.name, KIND.kind_id), 10)[0]
        self.assertEqual([other.version_of(one.data.value) for one in found], [0])

    def test_store_at_a_node_that_dies(self) -> None:
        """What became of it nobody knows: it counts neither as stored nor as failed."""
        (value,) = self.created()
        first = self.overlay.responsible(value.resource, self.overlay.ring[0])
        node = next(node for node_id, node in self.overlay.nodes.items() if node_id != first)
        self.workload.store(value, node)
        self.overlay.kill(node)
        self.overlay.clock.run(60)
        self.assertOutcomes(self.workload.stores, 1)
        self.assertEqual((value.acknowledged, value.attempted), (1, 2))


class RateTests(WorkloadTestCase):
    def test_rates(self) -> None:
        """So many begin in a second, at random times."""
        self.created(20)
        workload = Workload(self.overlay, lookups=4.0, fetches=2.0, stores=0.5)
        workload.values = self.workload.values
        self.overlay.clock.run(200)
        for outcomes, wanted in ((workload.lookups, 800), (workload.fetches, 400), (workload.stores, 100)):
            self.assertApproximates(outcomes.total, wanted, 4 * wanted**0.5)
            self.assertEqual(outcomes.right, outcomes.total)
        gaps = [later - earlier for earlier, later in pairwise(sorted(workload.lookups.when))]
        self.assertGreater(max(gaps), 4 * min(gaps))

    def test_stop(self) -> None:
        workload = Workload(self.overlay, lookups=4.0)
        self.overlay.clock.run(10)
        workload.stop()
        self.overlay.clock.run(10)
        total = workload.lookups.total
        self.assertGreater(total, 0)
        self.overlay.clock.run(100)
        self.assertEqual((workload.lookups.total, workload.under_way), (total, 0))

    def test_one_version_at_a_time(self) -> None:
        """A user does not store anew what he is just storing."""
        self.created(1)
        workload = Workload(self.overlay, stores=50.0)
        workload.values = self.workload.values
        self.overlay.network.loss = 1.0
        began = self.overlay.now
        while self.overlay.now < began + 10 and workload.under_way < 2:
            self.overlay.clock.step(self.overlay.clock.seconds() + 1)
        self.assertLess(workload.under_way, 2)

    def test_nothing_to_fetch(self) -> None:
        workload = Workload(self.overlay, fetches=10.0, stores=10.0)
        self.overlay.clock.run(10)
        self.assertEqual((workload.fetches.total, workload.stores.total), (0, 0))

    def test_nobody_there(self) -> None:
        """Where all peers are dead nobody asks; once there is one again, it does."""
        overlay = converged(2)
        workload = Workload(overlay, lookups=5.0)
        for node in list(overlay.nodes.values()):
            overlay.kill(node)
        overlay.clock.run(10)
        self.assertEqual(workload.lookups.total, 0)
        overlay.found()
        overlay.clock.run(10)
        self.assertGreater(workload.lookups.total, 20)

    def test_peers_only(self) -> None:
        """A node that has not joined yet does nothing for users."""
        asked: set[NodeId] = set()
        joining = self.overlay.add()
        for _ in range(200):
            asked.add(self.workload._node().node_id)
        self.assertEqual(asked, set(self.overlay.ring))
        self.assertNotIn(joining.node_id, asked)


class TrafficTests(WorkloadTestCase):
    def test_what_is_maintenance(self) -> None:
        """Not what users ask; but the copies of what they store."""
        traffic = self.overlay.traffic
        for _ in range(20):
            self.ended(self.workload.look_up())
        self.assertGreater(traffic.workload_messages, 20)
        self.assertEqual(traffic.by_method(), {})
        traffic.restart()
        (value,) = self.created()
        self.assertEqual(list(traffic.by_method()), ["store"])
        self.assertEqual(traffic.by_method()["store"]["messages"], 4)  # two replicas and their answers
        traffic.restart()
        self.ended(self.workload.fetch(value))
        self.assertEqual(traffic.by_method(), {})


class OutcomesTests(SynchronousTestCase):
    def test_rates_of_nothing(self) -> None:
        self.assertEqual((Outcomes().success_rate, Outcomes().first_rate), (1, 1))
