"""The Routing Table against a model that looks at every node, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.ids import NodeId, offset
from p2psip.topology.ring import SPARES, RoutingTable

RING = 1 << 128


def number(node_id: bytes) -> int:
    return int.from_bytes(node_id)


def clockwise(start: bytes, end: bytes) -> int:
    return (number(end) - number(start)) % RING


def node(value: int) -> NodeId:
    return NodeId((value % RING).to_bytes(16))


# Crowded at both ends of the number range, so that neighbors, wraps and equal values are common.
near_zero = st.integers(-20, 20).map(node)
anywhere = st.binary(min_size=16, max_size=16).map(NodeId)
identifiers = st.one_of(near_zero, anywhere)
tables = st.lists(identifiers, max_size=12, unique=True)


def neighbors_of(me: NodeId, members: Sequence[NodeId], size: int) -> tuple[list[NodeId], list[NodeId]]:
    """Predecessors and successors, by sorting everybody by how far away they are."""
    others = [member for member in members if member != me]
    return (
        sorted(others, key=lambda one: clockwise(one, me))[:size],
        sorted(others, key=lambda one: clockwise(me, one))[:size],
    )


def fingers_of(me: NodeId, members: Sequence[NodeId], size: int) -> set[NodeId]:
    """The first in each interval [x + 2^(128-i), x + 2^(129-i) - 1], for 16 entries and up to the last successor."""
    found, entries = set(), 0
    _, successors = neighbors_of(me, members, size)
    for i in range(1, 129):
        low, high = 1 << (128 - i), 1 << (129 - i)
        inside = [one for one in members if low <= clockwise(me, one) < high]
        if successors and low <= clockwise(me, successors[-1]) < high:
            entries = max(16, i)
        if inside and (not entries or i <= entries):
            found.add(min(inside, key=lambda one: clockwise(me, one)))
    return found


def routes_of(me: NodeId, members: Sequence[NodeId], size: int) -> set[NodeId]:
    """Everybody in one of the two tables."""
    predecessors, successors = neighbors_of(me, members, size)
    return {*predecessors, *successors, *fingers_of(me, members, size)}


class RingTests(SynchronousTestCase):
    """What the table answers is what the RFC's sentences say of the set of its members."""

    @given(me=identifiers, members=tables, size=st.integers(3, 6))
    def test_neighbors(self, me: NodeId, members: list[NodeId], size: int) -> None:
        """The nearest on either side, never the peer itself. [6940-10.7-2] [6940-10.7.3-4]"""
        table = RoutingTable(me, members, neighbors=size)
        expected = neighbors_of(me, members, size)
        self.assertEqual((list(table.predecessors), list(table.successors)), expected)
        for other in (3, 6, size):
            table.neighbors_wanted = other
            self.assertEqual(table.neighbors_wanted, other)
            expected = neighbors_of(me, members, other)
            self.assertEqual((list(table.predecessors), list(table.successors)), expected)

    @given(me=identifiers, members=tables, changes=st.lists(identifiers, max_size=12))
    def test_changes(self, me: NodeId, members: list[NodeId], changes: list[NodeId]) -> None:
        """A table that was changed one by one is the same as one made anew; so are its routes, at every step."""
        table, model = RoutingTable(me, members), {member for member in members if member != me}
        for changed in changes:
            self.assertEqual(list(table.routes()), list(RoutingTable(me, model).routes()))
            if changed in model:
                self.assertTrue(table.remove(changed))
                self.assertFalse(table.remove(changed))
                model.discard(changed)
            else:
                self.assertEqual(table.add(changed), changed != me)
                self.assertFalse(table.add(changed))
                model |= {changed} - {me}
        fresh = RoutingTable(me, model)
        self.assertEqual(list(table), list(fresh))
        self.assertEqual(len(table), len(model))
        self.assertEqual(
            (table.predecessors, table.successors), (fresh.predecessors, fresh.successors)
        )
        self.assertEqual(list(table.routes()), list(fresh.routes()))

    @given(me=identifiers, members=tables, more=tables, size=st.integers(3, 6))
    def test_fill(self, me: NodeId, members: list[NodeId], more: list[NodeId], size: int) -> None:
        """Many at once, beside those that are there."""
        table, fresh = RoutingTable(me, members), RoutingTable(me, [*members, *more], size)
        table.routes()
        table.fill(more, size)
        self.assertEqual((list(table), table.neighbors_wanted), (list(fresh), size))
        self.assertEqual(
            (table.predecessors, table.successors), (fresh.predecessors, fresh.successors)
        )
        self.assertEqual(list(table.routes()), list(fresh.routes()))

    @given(me=identifiers, members=tables, size=st.integers(3, 6))
    def test_routes(self, me: NodeId, members: list[NodeId], size: int) -> None:
        """The union of Neighbor Table and Finger Table, in order, and nobody else. (RFC 6940 §10.3)"""
        table = RoutingTable(me, members, size)
        self.assertEqual(list(table.routes()), sorted(routes_of(me, members, size)))
        table.neighbors_wanted = 4
        self.assertEqual(list(table.routes()), sorted(routes_of(me, members, 4)))

    @given(me=identifiers, members=tables, target=identifiers, size=st.integers(3, 6))
    def test_next_hop(self, me: NodeId, members: list[NodeId], target: NodeId, size: int) -> None:
        """The largest Node-ID before the target, of those in the two tables. [6940-10.3-1] [6940-10.3-2]
        [6940-10.3-3]
        """
        table = RoutingTable(me, members, size)
        routes = routes_of(me, members, size)
        between = [one for one in routes if 0 < clockwise(me, one) < (clockwise(me, target) or RING)]
        if target in routes:
            expected: NodeId | None = target
        elif between:
            expected = max(between, key=lambda one: clockwise(me, one))
        else:
            expected = min(routes, key=lambda one: clockwise(target, one), default=None)
        self.assertEqual(table.next_hop(target), expected)

    @given(me=identifiers, members=tables, target=identifiers)
    def test_first_after(self, me: NodeId, members: list[NodeId], target: NodeId) -> None:
        """The first in the two tables at or after the target: who is responsible, as far as is known."""
        expected = min(routes_of(me, members, 3), key=lambda one: clockwise(target, one), default=None)
        self.assertEqual(RoutingTable(me, members).first_after(target), expected)

    def test_routed_over_the_tables_alone(self) -> None:
        """A member that is neither neighbor nor finger waits, until the tables need it. (RFC 6940 §10.3)"""
        fingers = [node(1 << bits) for bits in range(110, 128)]
        spare = node((1 << 127) + (1 << 120))
        table = RoutingTable(node(0), [*fingers, spare, node(-1), node(-2), node(-3)])
        target = offset(spare, 1)
        self.assertIn(spare, table)
        self.assertEqual(table.next_hop(target), fingers[-1])
        table.remove(fingers[-1])
        self.assertEqual(table.next_hop(target), spare)

    @given(ids=st.lists(anywhere, min_size=2, max_size=40, unique=True), target=anywhere, data=st.data())
    def test_progress(self, ids: list[NodeId], target: NodeId, data: st.DataObject) -> None:
        """Whatever peers each one knows besides its neighbors, a message arrives, and never on a detour."""
        tables = {}
        for one in ids:
            known = RoutingTable(one, ids)
            more = data.draw(st.lists(st.sampled_from(ids), max_size=3))
            tables[one] = RoutingTable(one, [*known.neighbors(), *more])
        here, hops = ids[0], 0
        while not tables[here].responsible(target):
            hop = tables[here].next_hop(target)
            assert hop is not None
            here, hops = hop, hops + 1
            self.assertLess(hops, len(ids))
        self.assertEqual(here, min(ids, key=lambda one: clockwise(target, one)))

    @given(me=identifiers, members=tables, target=identifiers)
    def test_responsible(self, me: NodeId, members: list[NodeId], target: NodeId) -> None:
        """Responsible is the first node at or after the target. (RFC 6940 §10.1)"""
        nodes = {me, *members}
        first = min(nodes, key=lambda one: clockwise(target, one))
        self.assertEqual(RoutingTable(me, members).responsible(target), first == me)

    @given(me=identifiers, members=tables, target=identifiers)
    def test_keeps(self, me: NodeId, members: list[NodeId], target: NodeId) -> None:
        """Three predecessors between the resource and the peer, and it is let go. [6940-10.7.3-7]"""
        between = [
            one for one in members if one != me and clockwise(target, one) < clockwise(target, me)
        ]
        self.assertEqual(RoutingTable(me, members).keeps(target), len(between) < 3)

    @given(me=identifiers, members=tables, target=identifiers, signer=identifiers)
    def test_answers_for(
        self, me: NodeId, members: list[NodeId], target: NodeId, signer: NodeId
    ) -> None:
        """[6940-6.3.4-15]"""
        table = RoutingTable(me, members)
        nearer = [
            one for one in table.neighbors() if clockwise(target, one) < clockwise(target, signer)
        ]
        self.assertEqual(table.answers_for(target, signer), not nearer)

    @given(me=identifiers, members=tables, candidates=tables, size=st.integers(3, 5))
    def test_would_change(
        self, me: NodeId, members: list[NodeId], candidates: list[NodeId], size: int
    ) -> None:
        """Those candidates that a table of all would have as neighbors, or next to its neighbors."""
        table = RoutingTable(me, members, size)
        predecessors, successors = neighbors_of(me, [*{*members, *candidates}], size + SPARES)
        near = dict.fromkeys([*successors, *predecessors])
        self.assertEqual(table.would_change(candidates), [one for one in near if one not in set(members)])

    def test_spares(self) -> None:
        """One more on either side than there are neighbors, and no more than that."""
        table = RoutingTable(node(0), [node(value) for value in (10, 20, 30, -10, -20, -30)])
        candidates = [node(value) for value in (40, 50, -40, -50)]
        self.assertEqual(table.would_change(candidates), [node(40), node(-40)])
        self.assertEqual(table.would_change(candidates[1:2]), [node(50)])
        table.add(node(40))
        self.assertEqual(table.successors, (node(10), node(20), node(30)))
        self.assertEqual(table.would_change(candidates), [node(-40)])

    @given(me=identifiers, members=tables, i=st.integers(1, 128))
    def test_finger(self, me: NodeId, members: list[NodeId], i: int) -> None:
        """The i'th finger lies in [x + 2^(128-i), x + 2^(128-(i-1)) - 1]. (RFC 6940 §10.7.4.2)"""
        table = RoutingTable(me, members)
        first, last = table.finger_interval(i)
        self.assertEqual(clockwise(me, first), 1 << (128 - i))
        self.assertEqual(clockwise(me, last), (1 << (129 - i)) - 1)
        inside = [
            one for one in members if 1 << (128 - i) <= clockwise(me, one) <= (1 << (129 - i)) - 1
        ]
        expected = min(inside, key=lambda one: clockwise(me, one), default=None)
        self.assertEqual(table.finger(i), expected)
        for one in inside:
            self.assertEqual(table.finger_index(one), i)

    @given(me=identifiers, members=tables)
    def test_finger_table(self, me: NodeId, members: list[NodeId]) -> None:
        """16 entries at least, containing the last successor. [6940-10.7.4.3-1] [6940-10.7.4.3-2]"""
        table = RoutingTable(me, members)
        self.assertGreaterEqual(table.finger_count(), 16)
        self.assertLessEqual(table.finger_count(), 128)
        if table.successors:
            self.assertLessEqual(table.finger_index(table.successors[-1]), table.finger_count())
        entries = {table.finger(i) for i in range(1, table.finger_count() + 1)} - {None}
        self.assertEqual(set(table.fingers()), entries)
        self.assertEqual(list(table.fingers()), sorted(fingers_of(me, members, 3)))
        for i in table.missing_fingers():
            self.assertIsNone(table.finger(i))

    @given(me=identifiers, members=tables)
    def test_responsible_ppb(self, me: NodeId, members: list[NodeId]) -> None:
        """The share of the ring that is ours."""
        table = RoutingTable(me, members)
        others = [member for member in members if member != me]
        span = min((clockwise(one, me) for one in others), default=RING)
        self.assertEqual(table.responsible_ppb(), span * 10**9 // RING)

    def test_replica_set(self) -> None:
        """The next two successors, never the peer itself. (RFC 6940 §10.4)"""
        members: Sequence[NodeId] = [node(value) for value in (10, 20, 30)]
        self.assertEqual(RoutingTable(node(5), members).replica_set(), (node(10), node(20)))
        self.assertEqual(RoutingTable(node(5), members[:1]).replica_set(), (node(10),))
        self.assertEqual(RoutingTable(node(5)).replica_set(), ())

    def test_three_neighbors_at_least(self) -> None:
        """The Neighbor Table has three on either side unless it is told to be larger. [6940-10.7-2]"""
        members = [node(value) for value in range(0, 400, 20)]
        self.assertEqual(RoutingTable(node(5), members).successors, (node(20), node(40), node(60)))
        self.assertEqual(len(RoutingTable(node(5), members, neighbors=6).successors), 6)

    @given(me=identifiers, members=tables, size=st.integers(3, 6))
    def test_size_of_a_known_overlay(self, me: NodeId, members: list[NodeId], size: int) -> None:
        """Where predecessors and successors meet, all are known and can be counted."""
        table = RoutingTable(me, members, size)
        others = len({*members} - {me})
        self.assertEqual(table.whole_ring(), others < 2 * size)
        if table.whole_ring():
            self.assertEqual(table.overlay_size(), others + 1)

    def test_size_of_an_even_overlay(self) -> None:
        """As many as there are at the distances that the neighbors have."""
        for bits in (5, 8, 20):
            peers = [node(step << (128 - bits)) for step in range(-10, 11)]
            for size in (3, 6, 10):
                self.assertAlmostEqual(RoutingTable(node(0), peers, size).overlay_size(), 1 << bits, places=3)

    def test_size_of_a_random_overlay(self) -> None:
        """In the middle near the truth, and hardly ever far off; the nearer the more neighbors there are.

        2n distances between neighbors follow Gamma(2n): their sum is off by one part in the root of 2n, mostly.
        """
        chance = Random(1)
        for size, neighbors, off, far in ((60, 3, 0.25, 4.0), (60, 8, 0.12, 2.0), (300, 10, 0.12, 2.0)):
            estimates = []
            for _ in range(400):
                peers = [NodeId(chance.randbytes(16)) for _ in range(size)]
                estimates.append(RoutingTable(peers[0], peers, neighbors).overlay_size() / size)
            estimates.sort()
            with self.subTest(size=size, neighbors=neighbors):
                self.assertTrue(1 - off < estimates[200] < 1 + off, estimates[200])
                self.assertGreater(estimates[8], 1 / far)
                self.assertLess(estimates[-8], far)

    def test_known_empty(self) -> None:
        """No finger is sought where the Neighbor Table shows that nobody is."""
        me = node(0)
        successors = [node(1 << 120), node(2 << 120), node(3 << 120)]
        table = RoutingTable(me, [*successors, node(-1), node(-2), node(-3)])
        self.assertFalse(table.whole_ring())
        # The last successor lies in the 7th interval; -1 in the first.
        self.assertEqual(table.missing_fingers(), [2, 3, 4, 5, 6])
        self.assertEqual(offset(me, 1 << 127), table.finger_interval(1)[0])
