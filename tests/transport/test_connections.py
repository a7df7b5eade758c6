"""The Connection Table."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from p2psip.errors import LinkError
from p2psip.ids import NodeId
from p2psip.transport.connections import ConnectionTable

from .fakes import FakeLink

OURS = NodeId(b"m" * 16)
SMALLER = NodeId(b"a" * 16)
LARGER = NodeId(b"z" * 16)


class ConnectionTableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[str, NodeId]] = []
        self.kept: set[NodeId] = set()
        self.table = ConnectionTable(
            OURS,
            self.clock,
            lambda node_id: self.told.append(("connected", node_id)),
            lambda node_id: self.told.append(("disconnected", node_id)),
            self.kept.__contains__,
            drain=15,
            limit=2,
            recovered=lambda node_id: self.told.append(("recovered", node_id)),
        )

    def link(self, node_id: NodeId, outgoing: bool = False) -> FakeLink:
        link = FakeLink(node_id, outgoing)
        link.on_close = self.table.closed
        self.table.opened(link)
        return link

    def test_one_link(self) -> None:
        """A link is known from its opening to its end."""
        link = self.link(LARGER)
        self.assertIs(self.table.link_to(LARGER), link)
        self.assertEqual(self.table.connected(), [LARGER])
        link.close()
        self.assertIsNone(self.table.link_to(LARGER))
        self.assertEqual(self.told, [("connected", LARGER), ("disconnected", LARGER)])

    def test_newest_wins_and_the_old_one_is_drained(self) -> None:
        """The second link is used, the first closed only when what is under way on it has had its time."""
        first = self.link(LARGER)
        second = self.link(LARGER)
        self.assertIs(self.table.link_to(LARGER), second)
        self.clock.advance(14)
        self.assertFalse(first.closed)
        self.clock.advance(1)
        self.assertTrue(first.closed)
        self.assertIs(self.table.link_to(LARGER), second)
        self.assertEqual(self.told, [("connected", LARGER)])

    def test_drained_only_while_silent(self) -> None:
        """A link that the other end still sends on is not closed under what is under way."""
        first = self.link(LARGER)
        self.link(LARGER)
        for _ in range(4):
            self.clock.advance(10)
            self.table.heard(first)
        self.assertFalse(first.closed)
        self.clock.advance(14.9)
        self.assertFalse(first.closed)
        self.clock.advance(0.2)
        self.assertTrue(first.closed)

    def test_both_ends_keep_the_same_of_two(self) -> None:
        """Of two that were opened at once in both directions, the one that the larger Node-ID opened stays."""
        for other in SMALLER, LARGER:
            for order in (True, False), (False, True):
                with self.subTest(other=other, order=order):
                    links = [self.link(other, outgoing) for outgoing in order]
                    used = self.table.link_to(other)
                    assert used is not None
                    self.assertEqual(used.outgoing, other is SMALLER)
                    for link in links:
                        link.close()

    def test_drained_link_is_taken_up_again(self) -> None:
        """When the preferred link is lost while the other still stands, the node was never disconnected."""
        first, second = self.link(LARGER), self.link(LARGER)
        second.close()
        self.assertIs(self.table.link_to(LARGER), first)
        self.clock.advance(20)
        self.assertFalse(first.closed)
        self.assertEqual(self.told, [("connected", LARGER)])

    def test_failing(self) -> None:
        """A failing link is not routed over, until ACKs come again. [6940-6.6.5-3]"""
        link = self.link(LARGER)
        self.table.failing(link)
        self.assertIsNone(self.table.link_to(LARGER))
        self.assertEqual(self.table.connected(), [])
        self.assertEqual(self.told[-1], ("disconnected", LARGER))
        self.table.recovered(link)
        self.assertIs(self.table.link_to(LARGER), link)
        self.assertEqual(self.told[-1], ("recovered", LARGER))

    def test_both_links_fail(self) -> None:
        """A node that is dead is not reached over an older link either; one that comes back is, over any."""
        first, second = self.link(LARGER), self.link(LARGER)
        self.table.failing(second)
        self.assertIs(self.table.link_to(LARGER), first)
        self.table.failing(first)
        self.assertIsNone(self.table.link_to(LARGER))
        self.assertEqual([what for what, _ in self.told], ["connected", "disconnected"])
        self.table.recovered(second)
        self.assertIs(self.table.link_to(LARGER), second)
        self.assertEqual([what for what, _ in self.told], ["connected", "disconnected", "recovered"])
        self.table.recovered(first)
        self.assertIs(self.table.link_to(LARGER), second)

    def test_new_link_in_place_of_a_failing_one(self) -> None:
        """A node that comes back is connected again, and its dead link told of no more."""
        dead = self.link(LARGER)
        self.table.failing(dead)
        fresh = self.link(LARGER)
        self.assertIs(self.table.link_to(LARGER), fresh)
        dead.close()
        self.assertEqual([what for what, _ in self.told], ["connected", "disconnected", "connected"])

    def test_failing_link_closes(self) -> None:
        """The loss of a failing link is not told twice."""
        dead = self.link(LARGER)
        self.table.failing(dead)
        dead.close()
        self.assertEqual([what for what, _ in self.told], ["connected", "disconnected"])

    def test_longest_silent_of_too_many(self) -> None:
        """Links to nodes that are not routed over are bounded; the longest silent is closed for a new one."""
        nodes = [NodeId(bytes([number]) * 16) for number in range(1, 5)]
        self.kept.add(nodes[0])
        links = []
        for node_id in nodes[:3]:
            links.append(self.link(node_id))
            self.clock.advance(1)
        self.table.heard(links[1])
        self.link(nodes[3])
        self.assertEqual([link.closed for link in links], [False, False, True])

    def test_wait_for(self) -> None:
        """Who waits for a link gets it when it is there."""
        waiting = self.table.wait_for(LARGER)
        self.assertNoResult(waiting)
        link = self.link(LARGER)
        self.assertIs(self.successResultOf(waiting), link)
        self.assertIs(self.successResultOf(self.table.wait_for(LARGER)), link)

    def test_stop(self) -> None:
        """Everything is closed and nobody waits any more."""
        waiting = self.table.wait_for(SMALLER)
        links = [self.link(LARGER), self.link(LARGER)]
        self.table.stop()
        self.assertTrue(all(link.closed for link in links))
        self.failureResultOf(waiting, LinkError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_link_to_ourselves(self) -> None:
        """A bootstrap address may be our own."""
        self.assertTrue(self.link(OURS).closed)
        self.assertEqual(self.table.connected(), [])
