"""What the parts of one peer share: how many neighbors there are to be, and what a list proves."""

from __future__ import annotations

from itertools import pairwise
from math import log2
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.ids import NodeId
from p2psip.topology.chord import Chord
from p2psip.topology.membership import Heard, Membership, neighbors_for
from p2psip.topology.ring import SPARES, RoutingTable, nearest

from .network import World


def even_ring(size: int) -> list[NodeId]:
    """So many Node-IDs, the same distance apart."""
    return [NodeId(((place << 128) // size + 1).to_bytes(16)) for place in range(size)]


def node(value: int) -> NodeId:
    return NodeId((value % (1 << 128)).to_bytes(16))


class MembershipTestCase(SynchronousTestCase):
    def membership(self, me: NodeId, neighbors: int | None = None) -> Membership:
        """That of a peer which knows nobody."""
        return Membership(World(0, Chord).node(me), lambda predecessors, successors, lost: None, neighbors)


class NeighborsTests(MembershipTestCase):
    """How many predecessors, and how many successors, a peer wants to have (RFC 6940 §10.7)."""

    def after_a_change(self, size: int, wanted: int, neighbors: int | None = None) -> int:
        """How many are wanted when, in an even overlay of `size` peers where `wanted` were, one more is met."""
        ring = even_ring(size)
        far = ring.pop(size // 2)
        membership = self.membership(ring[0], neighbors)
        membership.table.fill(ring, wanted)
        self.assertTrue(membership.adopt(far))
        return membership.table.neighbors_wanted

    def test_suitable(self) -> None:
        """Two more than the logarithm of the overlay's size; but three at least, and 32 at most."""
        sizes = (1, 2, 4, 32, 1 << 20, 1 << 30, 1 << 31, 1 << 127)
        self.assertEqual([neighbors_for(size) for size in sizes], [3, 3, 4, 7, 22, 32, 32, 32])

    def test_follows_the_overlay(self) -> None:
        """They become more and fewer as peers come and go, and are O(log(N)). [6940-10.7-3]"""
        ring = even_ring(64)
        others = ring[1:]
        Random(1).shuffle(others)
        membership = self.membership(ring[0])
        seen = [membership.table.neighbors_wanted]
        for place, change in enumerate([membership.adopt] * len(others) + [membership.drop] * len(others)):
            self.assertTrue(change(others[place % len(others)]))
            seen.append(membership.table.neighbors_wanted)
        self.assertEqual((seen[0], seen[63], seen[-1]), (3, 8, 4))
        self.assertLessEqual(max(abs(one - other) for one, other in pairwise(seen)), 1)
        self.assertGreaterEqual(min(seen), 3)

    def test_one_step(self) -> None:
        """However far they are from what suits the overlay, one more or one fewer at a time."""
        self.assertEqual(self.after_a_change(1000, 3), 4)
        self.assertEqual(self.after_a_change(40, 15), 14)

    def test_inertia(self) -> None:
        """An estimate that is a little off changes nothing; downwards even one that is off by one more."""
        for wanted in (6, 8):
            for size in range(2 * wanted + 1, 600):
                suits = log2(size) + 2
                step = (suits > wanted + 0.5) - (suits < wanted - 1.5)
                self.assertEqual(self.after_a_change(size, wanted) - wanted, step, size)

    def test_nobody_more_to_be_had(self) -> None:
        """Where the Neighbor Table is the whole overlay it wants no more than that, and three at least."""
        self.assertEqual(self.after_a_change(6, 3), 3)
        self.assertEqual(self.after_a_change(9, 3), 4)
        self.assertEqual(self.after_a_change(8, 4), 4)

    def test_three_at_least(self) -> None:
        """[6940-10.7-2]"""
        for size in range(2, 40):
            self.assertGreaterEqual(self.after_a_change(size, 3), 3)

    def test_crowded(self) -> None:
        """Whoever places many peers next to ours makes it want no more than 32."""
        membership = self.membership(node(1 << 127))
        for place in range(1, 60):
            for value in ((1 << 127) + place, (1 << 127) - place):
                membership.adopt(node(value))
        self.assertEqual(membership.table.neighbors_wanted, 32)

    def test_fixed(self) -> None:
        """Who is given a number keeps it."""
        for size in (3, 10, 1000):
            self.assertEqual(self.after_a_change(size, 5, neighbors=5), 5)
        self.assertEqual(self.membership(node(1), 5).table.neighbors_wanted, 5)


class HeardTests(SynchronousTestCase):
    """What it says of a peer not to be in another's lists."""

    def test_misses(self) -> None:
        """Who lies between two of a list would have to be in it."""
        lists = Heard([node(90), node(80), node(60)], [node(110), node(120), node(140)], 0.0)
        missed = [value for value in range(50, 151, 5) if lists.misses(node(100), node(value))]
        self.assertEqual(missed, [85, 95, 105, 115])

    def test_last_of_a_list(self) -> None:
        """The last one may be the best that is known so far: nothing is missed just before it."""
        self.assertFalse(Heard([], [node(110)], 0.0).misses(node(100), node(105)))
        self.assertFalse(Heard([node(90)], [], 0.0).misses(node(100), node(95)))
        lists = Heard([node(90), node(80)], [node(110), node(120)], 0.0)
        for value, missed in ((95, True), (85, False), (105, True), (115, False)):
            self.assertEqual(lists.misses(node(100), node(value)), missed, value)

    def test_across_the_start_of_the_ring(self) -> None:
        """The ring begins nowhere."""
        lists = Heard([node(-20), node(-40)], [node(10), node(30)], 0.0)
        missed = [value for value in range(-45, 46, 10) if lists.misses(node(-10), node(value))]
        self.assertEqual(missed, [-15, -5, 5])

    def test_sender(self) -> None:
        """Nobody lists itself."""
        whole = Heard([node(2), node(1)], [node(1), node(2)], 0.0)
        self.assertFalse(whole.misses(node(3), node(3)))


class SettledTests(MembershipTestCase):
    """To begin in the middle (`ISettled`)."""

    @given(seed=st.integers(0, 1000), size=st.integers(1, 150), neighbors=st.sampled_from([None, 3, 5]))
    def test_places(self, seed: int, size: int, neighbors: int | None) -> None:
        """The neighbors and a spare on either side, and of each finger's interval the first peer."""
        chance = Random(seed)
        everyone = sorted(NodeId(chance.randbytes(16)) for _ in range(size))
        membership = self.membership(everyone[0], neighbors)
        wanted = neighbors or round(neighbors_for(size))
        predecessors, successors = nearest(everyone, everyone[0], wanted + SPARES)
        expected = {*predecessors, *successors, *RoutingTable(everyone[0], everyone, wanted).fingers()}
        places = membership.places(everyone)
        self.assertEqual(set(places), expected)
        self.assertEqual(len(places), len(expected))

    def test_settle(self) -> None:
        """Who is connected is a member, and each neighbor has said what is so."""
        host = World(0, Chord).node(node(1 << 120))
        everyone = sorted([host.node_id, *even_ring(60)])
        membership = Membership(host, lambda predecessors, successors, lost: None)
        for number, node_id in enumerate(membership.places(everyone)):
            host.links[node_id] = number
        membership.settle(everyone)
        self.assertTrue(membership.joined)
        table = membership.table
        self.assertEqual(list(table), sorted(host.links))
        self.assertEqual(table.neighbors_wanted, 8)
        self.assertEqual((table.predecessors, table.successors), nearest(everyone, host.node_id, 8))
        self.assertEqual(set(membership.heard), set(table.neighbors()))
        for node_id, heard in membership.heard.items():
            self.assertEqual((heard.predecessors, heard.successors), nearest(everyone, node_id, 8))
