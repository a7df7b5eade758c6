"""What one peer says and does, in order; and what it refuses."""

from __future__ import annotations

from typing import Any, cast

from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import p2psip.plugins
from p2psip.errors import Forbidden, InvalidMessage, LinkError, NotFound, RELOADError
from p2psip.ids import NodeId, ResourceId, offset
from p2psip.interfaces import (
    IConnectionTable,
    ITopologyFactory,
    ITopologyHost,
    ITopologyPlugin,
    Request,
    SignedBy,
)
from p2psip.topology.chord import DOUBT_AFTER, HOLD_DOWN, Chord, chord_resource_id
from p2psip.topology.client import ChordClient
from p2psip.topology.interfaces import ISettled
from p2psip.topology.membership import Heard, Membership
from p2psip.topology.stabilize import AFTER_LOSS, Repair
from p2psip.wire.chord import ChordLeaveData, FromPredecessor, FromSuccessor, Full, Neighbors, PeerReady
from p2psip.wire.codec import Struct
from p2psip.wire.header import NodeDestination, OpaqueDestination, ResourceDestination
from p2psip.wire.methods import JoinReq, LeaveReq, PingReq, RouteQueryReq, UpdateAns

from .network import Host, World


def node(value: float) -> NodeId:
    """A Node-ID, `value` sixteenths of the ring from its start, and a little more: 0 is no Node-ID."""
    return NodeId((int(value * (1 << 124)) + 1).to_bytes(16))


def request(body: Struct, sender: NodeId, previous_hop: NodeId | None = None) -> Request:
    """A verified request of `sender`, over its own link unless another previous hop is given."""
    signed = SignedBy(cast(Any, None), sender)
    return Request(body, signed, sender if previous_hop is None else previous_hop, 1)


def three_neighbors(host: ITopologyHost) -> Chord:
    """A peer with three neighbors on either side, however large the overlay."""
    return Chord(host, 3)


class ChordTestCase(SynchronousTestCase):
    """A world whose nodes have known places and names."""

    def setUp(self) -> None:
        self.world = World(0, Chord)
        self.world.rejoin = False

    def host(self, value: float, name: str = "") -> Host:
        """A node at a place of the ring."""
        host = self.world.node(node(value))
        if name:
            self.world.names[host.node_id] = name
        return host

    def founder(self, value: float, name: str = "") -> Host:
        """A node that is the whole overlay."""
        host = self.host(value, name)
        self.world.bootstrap_ids.append(host.node_id)
        host.topology.found()
        return host

    def ring(self, *values: float) -> list[Host]:
        """A settled overlay."""
        hosts = [self.founder(values[0])]
        for value in values[1:]:
            hosts.append(self.host(value))
            hosts[-1].start(hosts[0])
            self.world.until(lambda: not self.world.faults(), 30)
        self.assertEqual(self.world.faults(), [])
        self.world.clock.advance(20)
        return hosts

    def crowd(self) -> list[Host]:
        """Sixteen peers, each linked to every other, with three neighbors on either side."""
        self.world = World(0, three_neighbors)
        hosts = self.ring(*range(16))
        for one in hosts:
            for other in hosts:
                self.world.link(one, other)
        self.world.clock.advance(2)
        return hosts

    def table(self, host: Host) -> dict[str, list[str]]:
        """The Neighbor Table, by names."""
        neighbors = host.topology.status()["neighbors"]
        return {side: [self.world.name(bytes.fromhex(one)) for one in neighbors[side]] for side in neighbors}


class PluginTests(ChordTestCase):
    """What others see of it."""

    def test_interfaces(self) -> None:
        """Peer, client, factory and the fakes of these tests provide their interfaces."""
        verifyObject(ITopologyPlugin, self.host(1).topology)
        verifyObject(ISettled, self.host(1).topology)
        verifyObject(ITopologyPlugin, self.world.node(node(2), ChordClient).topology)
        verifyObject(ITopologyHost, self.host(3))
        verifyObject(IConnectionTable, self.host(3))

    def test_found_by_twisted_plugin(self) -> None:
        """`twisted.plugin` finds the factory by the name in the configuration document."""
        found = {factory.name: factory for factory in getPlugins(ITopologyFactory, p2psip.plugins)}
        factory = found["CHORD-RELOAD"]
        verifyObject(ITopologyFactory, factory)
        self.assertIsInstance(factory.build(self.host(1)), Chord)
        self.assertEqual(factory.build(self.host(1), 5)._table.neighbors_wanted, 5)
        self.assertIsInstance(factory.build_client(self.host(2)), ChordClient)

    def test_resource_id(self) -> None:
        """The first 128 bits of SHA-1. [6940-10.2-1]"""
        self.assertEqual(chord_resource_id(b"overlay.example.org").hex(), "74b9a543a333b17cf69729622ee7b321")
        topology = self.host(1).topology
        self.assertEqual(topology.resource_id(b"alice@example.org"), chord_resource_id(b"alice@example.org"))

    def test_alone(self) -> None:
        """The first peer is responsible for everything, another node for nothing. [6940-6.4.2.1-10]"""
        first, other = self.founder(5), self.host(7)
        for target in (node(1), node(5), node(9)):
            self.assertTrue(first.topology.is_responsible(target))
            self.assertIsNone(first.topology.next_hop(target))
            self.assertFalse(other.topology.is_responsible(target))
        self.assertEqual((first.topology.responsible_ppb(), other.topology.responsible_ppb()), (10**9, 0))
        self.assertEqual((first.topology.joined, other.topology.joined), (True, False))
        # Nor does it forward, to whomever it is linked: what is routed to it would come back.
        self.world.link(first, other)
        self.world.clock.advance(1)
        self.assertIsNone(other.topology.next_hop(node(1)))

    def test_replicas(self) -> None:
        """Two successors; one where there is but one. Never the peer itself. (RFC 6940 §10.4)"""
        one, other = self.ring(2, 10)
        self.assertEqual(list(one.topology.replica_set(ResourceId(node(1)))), [other.node_id])
        self.assertEqual(list(one.topology.replica_set(ResourceId(node(5)))), [])
        self.world = World(0, Chord)
        first, second, third, fourth = self.ring(2, 5, 8, 11)
        self.assertEqual(
            list(first.topology.replica_set(ResourceId(node(1)))), [second.node_id, third.node_id]
        )
        resource = ResourceId(node(1))
        self.assertEqual(
            [host.topology.still_keeps(resource) for host in (first, second, third, fourth)],
            [True, True, True, False],
        )

    def test_replica_expected(self) -> None:
        """A copy may come from the predecessor that is responsible, or from another before us. [6940-10.4-3]
        """
        first, second, third, fourth = self.ring(2, 5, 8, 11)
        resource = ResourceId(node(1))
        self.assertTrue(second.topology.replica_expected(resource, first.node_id))
        self.assertTrue(third.topology.replica_expected(resource, first.node_id))
        self.assertTrue(third.topology.replica_expected(resource, second.node_id))
        self.assertFalse(second.topology.replica_expected(resource, third.node_id), "from behind")
        self.assertFalse(fourth.topology.replica_expected(resource, first.node_id), "too far")
        self.assertFalse(second.topology.replica_expected(resource, node(3)), "from a stranger")
        self.assertTrue(first.topology.replica_expected(resource, second.node_id), "ours comes from anybody")

    def test_routes_over(self) -> None:
        """Neighbors and fingers are routed over, clients and Joining Nodes are not. [6940-6.5.1-1]"""
        one, other = self.ring(2, 10)
        stranger = self.host(6)
        self.world.link(one, stranger)
        self.world.clock.advance(1)
        self.assertTrue(one.topology.routes_over(other.node_id))
        self.assertFalse(one.topology.routes_over(stranger.node_id))
        self.assertEqual(one.topology.next_hop(offset(stranger.node_id, 1)), other.node_id)
        hosts = self.crowd()
        needed = {place for place, host in enumerate(hosts) if hosts[0].topology.routes_over(host.node_id)}
        # Three neighbors on either side, and the first beyond half, a quarter and an eighth of the ring.
        self.assertEqual(needed, {1, 2, 3, 4, 8, 13, 14, 15})
        # All others are members as well, but wait until they are needed.
        self.assertEqual(hosts[0].topology.status()["members"], 15)
        self.assertEqual(hosts[0].topology.next_hop(offset(hosts[12].node_id, 1)), hosts[8].node_id)
        hosts[0].link_down(hosts[8].node_id)
        self.assertEqual(hosts[0].topology.next_hop(offset(hosts[12].node_id, 1)), hosts[9].node_id)


class NextHopTests(ChordTestCase):
    """A message is not sent back to where it came from (docs/decisions/0013)."""

    def test_dead_peer_that_its_predecessor_knows_of(self) -> None:
        """Its successor sends what is for it to it, and not back to the predecessor that knows better."""
        first, before, dead, after, last = self.ring(1, 4, 7, 10, 13)
        self.world.kill(dead, after=1e9)
        before.link_down(dead.node_id)
        for target in (offset(dead.node_id, -1), node(6), offset(before.node_id, 1)):
            self.assertEqual(before.topology.next_hop(target), after.node_id)
            # By RFC 6940 §10.3 it would go to and fro until its TTL is used up.
            self.assertEqual(after.topology.next_hop(target), before.node_id)
            self.assertEqual(after.topology.next_hop(target, before.node_id), dead.node_id)
            for other in (first.node_id, last.node_id, after.node_id, None):
                self.assertEqual(after.topology.next_hop(target, other), before.node_id)
        # As soon as the successor knows as well, what is for the dead peer is its own.
        after.link_down(dead.node_id)
        self.assertTrue(after.topology.is_responsible(node(6)))
        self.assertIsNone(after.topology.next_hop(node(6), before.node_id))

    def test_no_ping_pong(self) -> None:
        """What is for a dead peer ends there, from wherever it comes, within a few hops."""
        hosts = self.ring(*range(16))
        self.world.kill(hosts[7], after=1e9)
        hosts[6].link_down(hosts[7].node_id)
        asking = [host for host in hosts if host is not hosts[7]]
        before = self.world.messages
        for host in asking:
            host.request([ResourceDestination(resource_id=ResourceId(node(6.5)))], PingReq())
        self.world.clock.advance(2.9)
        self.assertFalse(hosts[8].topology.is_responsible(node(6.5)), "it is not to know yet")
        self.assertLess(self.world.messages - before, 10 * len(asking))
        self.assertEqual(self.world.too_many_hops, 0)

    def test_nobody_else(self) -> None:
        """Where the only way is the one that it came, it goes back: the other peer may know more by now."""
        one, other = self.ring(2, 10)
        self.assertEqual(one.topology.next_hop(node(5)), other.node_id)
        self.assertEqual(one.topology.next_hop(node(5), other.node_id), other.node_id)


class JoinTests(ChordTestCase):
    """The order of RFC 6940 §10.5."""

    def test_second_node(self) -> None:
        """A node joins the peer that founded the overlay. [6940-10.5-2] [6940-10.5-5] [6940-10.5-8] [6940-10.5-6]"""
        ap, jn = self.founder(4, "AP"), self.host(8, "JN")
        self.world.link(ap, jn)
        self.world.clock.advance(2)
        self.world.transcript.clear()
        joined = jn.topology.join()
        self.world.clock.advance(2)
        self.successResultOf(joined)
        self.assertEqual(
            self.world.transcript,
            [
                "JN: LeaveReq to AP",  # no peer yet, whatever AP may remember
                "JN: Attach with send_update to AP, after JN",
                "AP: Full to JN",
                "JN: JoinReq to AP",
                "AP: hands over to JN",
                "AP: Neighbors to JN",  # names JN its predecessor: the moment of responsibility
                "JN: Neighbors to AP",
            ],
        )
        self.assertEqual(ap.handed_over, [(jn.node_id, ap.node_id, jn.node_id)])
        self.assertEqual(self.table(ap), {"predecessors": ["JN"], "successors": ["JN"]})
        self.assertEqual(self.table(jn), {"predecessors": ["AP"], "successors": ["AP"]})

    def test_fourth_node(self) -> None:
        """Attaches to the neighbors that AP named, through AP; then Join, hand-over, Updates. [6940-10.5-3]
        [6940-10.6-1] [6940-10.5-4, 6940-10.5-11, 6940-10.5-12, 6940-10.7-1]
        """
        hosts = self.ring(2, 8, 12)
        for host, name in zip(hosts, ("P", "AP", "S"), strict=True):
            self.world.names[host.node_id] = name
        jn = self.host(5, "JN")
        self.world.transcript.clear()
        jn.start(hosts[2])
        self.world.clock.advance(3)
        said = self.world.transcript
        self.assertEqual(self.world.faults(), [])
        attaches = [line for line in said if line.startswith("JN: Attach")]
        self.assertEqual(attaches[0], "JN: Attach with send_update to S, after JN")
        self.assertIn("JN: Attach with send_update to AP, P", attaches)
        order = [
            attaches[0],
            "AP: Full to JN",
            "JN: Attach with send_update to AP, P",
            "P: Full to JN",
            "JN: JoinReq to AP",
            "AP: hands over to JN",
            "AP: Neighbors to JN",
            "AP: Neighbors to P",
        ]
        self.assertEqual([line for line in said if line in order][: len(order)], order)
        join = said.index("JN: JoinReq to AP")
        before = [line for line in said[:join] if line.startswith("JN: ")]
        self.assertEqual([line for line in before if "Attach" not in line and "Leave" not in line], [])
        after = said[said.index("AP: hands over to JN") :]
        for neighbor in ("P", "AP", "S"):
            self.assertIn(f"JN: Neighbors to {neighbor}", after)
        self.assertIn("AP: Neighbors to S", after)
        self.assertEqual(hosts[1].handed_over[-1], (jn.node_id, hosts[0].node_id, jn.node_id))
        self.assertEqual(self.table(jn), {"predecessors": ["P", "S", "AP"], "successors": ["AP", "S", "P"]})
        for host in hosts:
            self.assertIsNotNone(jn.connections.link_to(host.node_id))

    def test_dead_neighbor(self) -> None:
        """A neighbor that cannot be reached counts as absent. [6940-10.5-20]"""
        hosts = self.ring(2, 8, 12)
        self.world.kill(hosts[0], after=1e9)
        jn = self.host(5)
        joined = jn.start(hosts[1])
        self.world.clock.advance(25)
        self.successResultOf(joined)
        self.assertTrue(jn.topology.joined)

    def test_wrong_joins(self) -> None:
        """[6940-6.4.2.1-2] [6940-6.4.2.1-3]"""
        first, second = self.ring(2, 10)
        stranger = self.host(6)
        self.world.link(second, stranger)
        answer = second.topology.answer_join
        joining = JoinReq(joining_peer_id=stranger.node_id)

        def refused(body: Struct, sender: NodeId, hop: NodeId | None = None) -> type[BaseException]:
            result = answer(request(body, sender, hop))
            assert not isinstance(result, Struct)
            return type(self.failureResultOf(result).value)

        self.assertIs(refused(joining, first.node_id), Forbidden)
        self.assertIs(refused(joining, stranger.node_id, first.node_id), Forbidden)
        self.assertIs(refused(JoinReq(joining_peer_id=second.node_id), second.node_id), Forbidden)
        self.assertIs(refused(PingReq(), stranger.node_id), InvalidMessage)
        self.assertIs(refused(JoinReq(joining_peer_id=node(12)), node(12)), NotFound)  # no link
        elsewhere = self.host(12)
        self.world.link(second, elsewhere)
        self.assertIs(refused(JoinReq(joining_peer_id=elsewhere.node_id), elsewhere.node_id), NotFound)
        self.assertEqual(second.handed_over[1:], [])

    def test_dies_during_hand_over(self) -> None:
        """All stays as it was, and the next one is admitted."""
        self.world.hand_over_takes = 5
        first = self.founder(2)
        dying, other = self.host(6), self.host(9)
        dying.start(first)
        self.world.clock.advance(1)
        other.start(first)
        self.world.clock.advance(1)
        self.assertEqual([joining for joining, _, _ in first.handed_over], [dying.node_id])
        self.world.kill(dying)
        self.world.clock.advance(0.5)
        self.assertTrue(first.topology.is_responsible(dying.node_id))
        self.world.clock.advance(10)
        self.assertTrue(other.topology.joined)
        self.assertEqual(self.world.faults(), [])

    def test_hand_over_that_takes_long(self) -> None:
        """A Joining Node waits as long as it is stored to, and no longer."""
        for stored_to in (True, False):
            with self.subTest(stored_to=stored_to):
                self.setUp()
                self.world.hand_over_takes = 100
                first, jn = self.founder(2), self.host(7, "JN")
                jn.start(first)
                for _ in range(9):
                    self.world.clock.advance(10)
                    if stored_to:
                        self.assertTrue(jn.topology.replica_expected(ResourceId(node(5)), first.node_id))
                        self.assertFalse(jn.topology.replica_expected(ResourceId(node(1)), first.node_id))
                self.assertEqual(len([to for to, _, _ in first.handed_over]), 1)
                asked = [line for line in self.world.transcript if "JoinReq" in line]
                self.assertEqual(len(asked), 1 if stored_to else 2)
                self.world.clock.advance(30)
                self.assertTrue(jn.topology.joined)

    def test_admitting_peer_dies(self) -> None:
        """The join goes on with whoever is responsible then."""
        self.world.hand_over_takes = 5
        hosts = self.ring(2, 8, 12)
        jn = self.host(5)
        joined = jn.start(hosts[0])
        self.world.clock.advance(3)
        self.assertEqual([joining for joining, _, _ in hosts[1].handed_over[-1:]], [jn.node_id])
        self.world.kill(hosts[1])
        self.world.clock.advance(20)
        self.successResultOf(joined)
        self.assertEqual(hosts[2].handed_over[-1], (jn.node_id, hosts[0].node_id, jn.node_id))
        self.assertEqual(self.world.faults(), [])

    def test_taken_for_alive(self) -> None:
        """A Joining Node that is listed as a peer says that it is none."""
        hosts = self.ring(2, 8, 12)
        jn = self.host(5, "JN")
        self.world.link(jn, hosts[0])
        self.world.names[hosts[0].node_id] = "P"
        update = Neighbors(uptime=1, predecessors=[], successors=[jn.node_id])
        jn.topology.answer_update(request(update, hosts[0].node_id))
        self.assertEqual(self.world.transcript, ["JN: LeaveReq to P"])

    def test_predecessor_returns(self) -> None:
        """Who was predecessor and joins again gets the data of the range that it will have."""
        hosts = self.ring(2, 8, 12)
        self.world.kill(hosts[1], after=1e9)
        again = self.host(8)
        again.start(hosts[2])
        self.world.clock.advance(3)
        self.assertEqual(hosts[2].handed_over[-1], (again.node_id, hosts[0].node_id, again.node_id))
        self.assertTrue(again.topology.joined)
        # Also if the Join is the first that is heard of its return.
        answered = hosts[2].topology.answer_join(request(JoinReq(joining_peer_id=again.node_id), again.node_id))
        assert not isinstance(answered, Struct)
        self.successResultOf(answered)
        self.assertFalse(hosts[2].topology.routes_over(again.node_id))
        self.world.clock.advance(1)
        self.assertEqual(hosts[2].handed_over[-1], (again.node_id, hosts[0].node_id, again.node_id))

    def test_nobody_there(self) -> None:
        """Without a link a join fails, after some attempts; it can be repeated."""
        alone = self.host(3)
        joining = alone.topology.join()
        again = alone.topology.join()
        self.failureResultOf(again, RELOADError)
        self.world.clock.advance(60)
        self.failureResultOf(joining, LinkError)
        first = self.founder(7)
        self.world.link(alone, first)
        joining = alone.topology.join()
        self.world.clock.advance(2)
        self.successResultOf(joining)

    def test_stopped(self) -> None:
        """A join ends when the plug-in is stopped, and no timer is left."""
        first, jn = self.founder(2), self.host(7)
        self.world.link(first, jn)
        joining = jn.topology.join()
        self.world.clock.advance(0.1)
        jn.topology.stop()
        self.failureResultOf(joining, LinkError)
        jn.alive = False
        first.topology.stop()
        self.world.clock.advance(20)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])


class UpdateTests(ChordTestCase):
    """Who is told what, and when."""

    def spoken(self, hosts: list[Host], names: str) -> list[str]:
        for host, name in zip(hosts, names, strict=True):
            self.world.names[host.node_id] = name
        self.world.transcript.clear()
        return self.world.transcript

    def test_wrong_updates(self) -> None:
        """An Update is about its sender alone."""
        first, second = self.ring(2, 10)
        self.assertRaises(InvalidMessage, first.topology.answer_update, request(PingReq(), second.node_id))
        own = PeerReady(uptime=1)
        self.assertRaises(Forbidden, first.topology.answer_update, request(own, first.node_id))

    def test_listed_nodes_are_candidates(self) -> None:
        """Nobody becomes a neighbor by being named: only by an Attach that succeeds. [6940-10.7.3-1]"""
        first, second = self.ring(2, 10)
        said = self.spoken([first, second], "AB")
        lie = Neighbors(uptime=1, predecessors=[node(7)], successors=[node(3)])
        self.assertIsInstance(first.topology.answer_update(request(lie, second.node_id)), UpdateAns)
        self.world.clock.advance(60)
        self.assertEqual(self.table(first), {"predecessors": ["B"], "successors": ["B"]})
        tried = [line for line in said if "Attach" in line]
        self.assertTrue(all(line.startswith("A: Attach with send_update to B, ") for line in tried))
        self.assertEqual(len({*tried}), 2)
        self.assertLessEqual(len(tried), 6)

    def test_repeated_by_another(self) -> None:
        """An Update that comes over another's link changes nothing: whoever got it once could repeat it."""
        first, second, third = self.ring(2, 6, 10)
        old = Neighbors(uptime=1, predecessors=[node(7)], successors=[node(3)])
        said = self.spoken([first, second, third], "ABC")
        first.topology.answer_update(request(old, second.node_id, third.node_id))
        self.world.clock.advance(5)
        self.assertEqual([line for line in said if "Attach" in line], [])

    def test_loss_in_neighbor_table(self) -> None:
        """After a loss that leaves the range as it was, the Neighbor Table is told. [6940-10.7.1-2]"""
        hosts = self.ring(1, 3, 5, 7, 9, 11, 13, 15)
        said = self.spoken(hosts, "ABCDEFGH")
        hosts[0].link_down(hosts[1].node_id)
        self.world.clock.advance(0.3)
        told = {line for line in said if line.startswith("A: Neighbors")}
        self.assertEqual(told, {f"A: Neighbors to {name}" for name in "CDEFGH"})

    def test_range_changed(self) -> None:
        """When the range changes the whole Connection Table is told, neighbors or not. [6940-10.7.1-4]
        [6940-10.7.3-8]
        """
        hosts = self.ring(1, 3, 5, 7, 9, 11, 13, 15)
        self.world.link(hosts[0], hosts[4])
        self.world.clock.advance(1)
        said = self.spoken(hosts, "ABCDEFGH")
        hosts[0].link_down(hosts[7].node_id)
        self.world.clock.advance(0.3)
        told = {line.split(" to ")[1] for line in said if line.startswith("A: ") and "Attach" not in line}
        self.assertEqual(told, set("BCDEFG"))

    def test_neighbor_closer_by(self) -> None:
        """A closer neighbor takes its place, and the whole Connection Table is told. [6940-10.7.3-2]
        [6940-10.7.3-3]
        """
        self.world.build = three_neighbors
        hosts = self.ring(1, 3, 5, 7, 9, 11, 13, 15)
        self.world.link(hosts[0], hosts[4])
        self.world.clock.advance(1)
        said = self.spoken(hosts, "ABCDEFGH")
        newcomer = self.host(2, "N")
        newcomer.start(hosts[6])
        self.world.until(lambda: newcomer.topology.joined, 30)
        self.world.clock.advance(1)
        self.assertEqual(self.table(hosts[0]), {"predecessors": ["H", "G", "F"], "successors": ["N", "B", "C"]})
        told = {line.split(" to ")[1] for line in said if line.startswith("A: ") and "Attach" not in line}
        self.assertLessEqual(set("BCDEFGHN"), told)

    def test_peer_ready(self) -> None:
        """A peer that is no neighbor gets no lists. (RFC 6940 §10.7)"""
        self.world.build = three_neighbors
        hosts = self.ring(1, 3, 5, 7, 9, 11, 13, 15)
        said = self.spoken(hosts, "ABCDEFGH")
        self.world.link(hosts[0], hosts[4])
        self.world.clock.advance(1)
        hosts[0].topology.link_opened(hosts[4].node_id)
        self.world.clock.advance(1)
        self.assertIn("A: PeerReady to E", said)

    def test_recovered(self) -> None:
        """A member whose link was failing is one again as soon as ACKs come, not after it was asked.

        [6940-6.6.3.1-10]
        """
        hosts = self.ring(1, 5, 9, 13)
        first, second = hosts[:2]
        before = self.table(first)
        first.topology.link_closed(second.node_id)
        self.assertNotEqual(before, self.table(first))
        first.topology.link_recovered(second.node_id)
        self.assertEqual(before, self.table(first))

    def test_recovered_after_leaving(self) -> None:
        """One that left meanwhile is none."""
        hosts = self.ring(1, 5, 9, 13)
        first, second = hosts[:2]
        first.topology.link_closed(second.node_id)
        said = second.topology.leave()
        self.world.until(lambda: said.called, 30)
        first.topology.link_recovered(second.node_id)
        self.assertNotIn("B", self.table(first)["successors"])

    def test_gathered(self) -> None:
        """What happens at one time is told once, and while one Update is unanswered no second one follows."""
        hosts = self.ring(1, 5, 9, 13)
        said = self.spoken(hosts, "ABCD")
        for _ in range(5):
            hosts[0].topology.update_requested(hosts[1].node_id)
            hosts[0].topology.link_opened(hosts[1].node_id)
        self.world.clock.advance(1)
        self.assertEqual([line for line in said if line.startswith("A:")], ["A: Full to B"])
        self.world.cut = lambda one, other: True
        for _ in range(5):
            hosts[0].topology.update_requested(hosts[1].node_id)
            self.world.clock.advance(1)
        self.assertEqual([line for line in said if line.startswith("A:")], ["A: Full to B"] * 2)

    def test_periodic(self) -> None:
        """Every neighbor once in each chord-update-interval, not all at once. [6940-10.7.4.1-1]
        [6940-10.7.4.1-3]
        """
        self.world.build = three_neighbors
        hosts = self.ring(1, 3, 5, 7, 9, 11, 13, 15)
        said = self.spoken(hosts, "ABCDEFGH")
        when: dict[str, float] = {}
        began = self.world.clock.now
        while self.world.clock.now < began + 780:
            self.world.clock.advance(10)
            for line in said:
                if line.startswith("A: Neighbors"):
                    when.setdefault(line, self.world.clock.now)
        self.assertEqual(set(when), {f"A: Neighbors to {name}" for name in "BCDFGH"})
        self.assertEqual(len(set(when.values())), 6)

    def test_omitted(self) -> None:
        """A neighbor that another's lists lack, and that was not heard of lately, is put to the test by an Update."""
        self.world.build = three_neighbors
        hosts = self.ring(1, 3, 5, 7, 9, 11, 13, 15)
        said = self.spoken(hosts, "ABCDEFGH")
        ids = [host.node_id for host in hosts]

        def hear(*successors: int) -> set[str]:
            lists = Neighbors(uptime=1, predecessors=[], successors=[ids[place] for place in successors])
            hosts[0].topology.answer_update(request(lists, ids[1]))
            said.clear()
            self.world.clock.advance(1)
            return {line for line in said if line.startswith("A: ")}

        hosts[0].topology.answer_update(request(Neighbors(uptime=1, predecessors=[], successors=[]), ids[2]))
        self.assertEqual(hear(3, 4, 5), set())  # heard of just now
        self.world.clock.advance(DOUBT_AFTER)
        self.assertEqual(hear(2, 3, 5), set())  # lists all that A knows up to the last but one
        self.assertEqual(hear(2), set())
        self.assertEqual(hear(3, 4, 5), {"A: Neighbors to C"})
        # The test is passed, and the one that was doubted tells that it lives.
        self.assertIn(ids[2].hex(), hosts[0].topology.status()["neighbors"]["successors"])

    def test_unanswered(self) -> None:
        """A neighbor that does not answer an Update has failed. [6940-10.7.1-1]"""
        hosts = self.ring(1, 5, 9, 13)
        self.world.kill(hosts[1], after=1e9)
        hosts[0].topology.update_requested(hosts[1].node_id)
        self.world.clock.advance(20)
        self.assertNotIn(hosts[1].node_id.hex(), hosts[0].topology.status()["neighbors"]["successors"])

    def test_hold_down(self) -> None:
        """A successor is lost: new replicas wait for 30 s. A predecessor: at once. [6940-10.7.1-3]"""
        hosts = self.ring(1, 5, 9, 13)
        self.world.clock.advance(HOLD_DOWN)
        first = hosts[0]
        self.world.kill(hosts[1])
        before = first.times_changed
        self.world.clock.advance(HOLD_DOWN - 1)
        self.assertEqual(first.times_changed, before)
        self.world.clock.advance(2)
        self.assertEqual(first.times_changed, before + 1)
        self.world.kill(hosts[3])
        self.world.clock.advance(1)
        self.assertEqual(first.times_changed, before + 2)

    def test_lost_overlay(self) -> None:
        """When everybody is gone the host is told once; the peer serves on, and may join again.
        [6940-10.7.1-7]
        """
        first, second = self.ring(2, 10)
        second.link_down(first.node_id)
        self.assertEqual(second.times_lost, 1)
        self.assertTrue(second.topology.status()["lost"])
        self.assertTrue(second.topology.is_responsible(node(1)))
        self.world.link(first, second)
        joining = second.topology.join()
        self.world.clock.advance(3)
        self.successResultOf(joining)
        self.assertFalse(second.topology.status()["lost"])
        self.assertEqual(self.world.faults(), [])


class RepairTests(ChordTestCase):
    """Better neighbors and fingers (RFC 6940 §10.7.1, §10.7.2, §10.7.4.2)."""

    def circle(self, *more: float) -> dict[float, Host]:
        """Sixteen peers at equal distances and some `more`, founded by 8; 5 is the last to join, and so knows few.

        Each has three neighbors on either side, and one spare.
        """
        self.world.build = three_neighbors
        values = [8, *(value for value in range(16) if value not in (5, 8)), *more, 5]
        return dict(zip(values, self.ring(*values), strict=True))

    def linked(self, hosts: dict[float, Host]) -> set[float]:
        """To whom 5 has a link."""
        return {value for value, host in hosts.items() if host.node_id in hosts[5].links}

    def test_dead_candidate(self) -> None:
        """While Attaches to dead candidates run out of time, the next ones take their place."""
        hosts = self.circle()
        one = hosts[5]
        self.assertTrue(self.linked(hosts).isdisjoint({0, 15, 14}))
        for silent in (0, 15):
            self.world.kill(hosts[silent], after=1e9)
        for noticed in (4, 3):
            self.world.kill(hosts[noticed])
        self.world.clock.advance(5)
        expected = [hosts[value].node_id.hex() for value in (2, 1, 14)]
        self.assertEqual(one.topology.status()["neighbors"]["predecessors"], expected)

    def test_spare(self) -> None:
        """There is a link to one peer more on either side, which is a neighbor as soon as one is lost.
        [6940-10.7.1-1]
        """
        hosts = self.circle()
        for value, host in hosts.items():
            near = {hosts[(value + step) % 16].node_id for step in range(-4, 5) if step}
            self.assertLessEqual(near, set(host.links), value)
        self.world.kill(hosts[3], after=0)
        self.world.clock.advance(0)
        expected = [hosts[value].node_id.hex() for value in (4, 2, 1)]
        self.assertEqual(hosts[5].topology.status()["neighbors"]["predecessors"], expected)
        self.assertEqual(self.world.faults(), [])

    def test_lost_but_listed(self) -> None:
        """A neighbor that was just lost is not sought for some seconds, whoever lists it."""
        hosts = self.circle()
        self.world.names.update({hosts[value].node_id: f"{value}" for value in hosts})
        self.world.kill(hosts[3], after=1e9)
        hosts[5].link_down(hosts[3].node_id)
        self.world.transcript.clear()

        def sought() -> list[str]:
            return [line for line in self.world.transcript if line.startswith("5: Attach") and line.endswith(" 3")]

        self.world.clock.advance(AFTER_LOSS - 0.1)
        self.assertEqual(sought(), [])
        # It is still listed, as its other neighbors have not noticed: now it is tried, in vain, and left alone longer.
        self.world.clock.advance(1)
        self.assertEqual(len(sought()), 1)
        self.world.clock.advance(10)
        self.assertEqual(len(sought()), 1)

    def test_looks_when_it_matters(self) -> None:
        """Lists that name nobody who would change the table are no reason to look for neighbors."""
        looks: list[float] = []

        class Looking(Repair):
            def look(self) -> None:
                looks.append(self._clock.seconds())

        membership = Membership(self.host(0), lambda predecessors, successors, lost: None, 3)
        for value in (1, 2, 3, 4, 12, 13, 14, 15):
            membership.adopt(node(value))
        repair = Looking(membership)
        repair.heard_from(node(4), None)
        repair.heard_from(node(4), Heard([node(3), node(2), node(1)], [node(5), node(6), node(11)], 0.0))
        self.assertEqual(looks, [])
        for better in (0.5, 3.5, 15.5, 12.5):
            looks.clear()
            repair.heard_from(node(4), Heard([], [node(5), node(better)], 0.0))
            self.assertEqual(len(looks), 1, better)

    def test_asks_for_lists(self) -> None:
        """A neighbor whose lists are not known is asked for them, when they are needed."""
        first, second = self.ring(2, 10)
        self.world.names.update({first.node_id: "A", second.node_id: "B"})
        third = self.host(6, "C")
        self.world.link(first, third)
        first.topology.answer_update(request(PeerReady(uptime=1), third.node_id))
        first.link_down(second.node_id)
        self.assertIn("A: RouteQueryReq to C", self.world.transcript)

    def finger(self, hosts: dict[float, Host]) -> set[int]:
        """Which peers 5 knows in the second interval of its Finger Table."""
        return {value for value in (9, 10, 11, 12) if hosts[5].topology.routes_over(hosts[value].node_id)}

    def lose_finger(self) -> dict[float, Host]:
        """Let 5 lose its second finger, when it has no link to anybody else there, and none of them is a neighbor."""
        hosts = self.circle(5.5, 6.5)
        (self.lost,) = self.finger(hosts)
        for value in {9, 10, 11, 12} - {self.lost}:
            hosts[5].link_down(hosts[value].node_id)
            hosts[value].link_down(hosts[5].node_id)
        self.world.kill(hosts[self.lost])
        self.world.clock.advance(0.2)
        self.assertEqual(self.finger(hosts), set())
        self.world.clock.advance(5)
        return hosts

    def test_lost_finger(self) -> None:
        """It is replaced by somebody else of its interval. [6940-10.7.2-1] [6940-10.7.2-2]"""
        hosts = self.lose_finger()
        self.assertEqual(len(self.finger(hosts)), 1)
        self.assertNotIn(self.lost, self.finger(hosts))

    def test_periodic_search(self) -> None:
        """Without reactive recovery it is sought in time. [6940-10.7.4.2-1] [6940-10.7.4.2-6]"""
        self.world = World(0, Chord, chord_reactive=False, chord_ping_interval=100, chord_update_interval=30)
        hosts = self.lose_finger()
        self.assertEqual(self.finger(hosts), set())
        self.world.clock.advance(600)
        self.assertEqual(len(self.finger(hosts)), 1)


class LeaveTests(ChordTestCase):
    """RFC 6940 §10.9, §6.4.2.2."""

    def test_order(self) -> None:
        """The data goes to the successor first, then Leave to the Neighbor Table. [6940-10.9-1] [6940-10.9-2]
        """
        hosts = self.ring(2, 6, 10)
        for host, name in zip(hosts, "ABC", strict=True):
            self.world.names[host.node_id] = name
        self.world.transcript.clear()
        left = hosts[1].topology.leave()
        self.world.clock.advance(1)
        self.assertNoResult(left)  # the others attach to one another through it
        self.world.clock.advance(2)
        self.successResultOf(left)
        self.assertEqual(
            [line for line in self.world.transcript if line.startswith("B:")],
            ["B: hands over to C", "B: LeaveReq to C", "B: LeaveReq to A"],
        )
        self.assertEqual(hosts[1].handed_over[-1], (hosts[2].node_id, hosts[0].node_id, hosts[1].node_id))
        self.assertFalse(hosts[1].topology.joined)
        self.world.kill(hosts[1])
        self.assertEqual(self.world.faults(), [])

    def test_lists(self) -> None:
        """A predecessor learns our successors, a successor our predecessors. [6940-10.9-2]"""
        self.world.build = three_neighbors
        hosts = self.ring(1, 3, 5, 7, 9, 11, 13, 15)
        sent: dict[NodeId, ChordLeaveData] = {}
        for host in hosts[1:]:

            def answer(leave: Request, host: Host = host) -> Any:
                body = cast(LeaveReq, leave.body)
                sent[host.node_id] = ChordLeaveData.decode(body.overlay_specific_data)
                return Chord.answer_leave(cast(Chord, host.topology), leave)

            host.topology.answer_leave = answer  # type: ignore[method-assign]
        hosts[0].topology.leave()
        self.world.clock.advance(3)
        ids = [host.node_id for host in hosts]
        self.assertEqual(set(sent), {ids[place] for place in (1, 2, 3, 5, 6, 7)})
        for place in (5, 6, 7):
            data = sent[ids[place]]
            assert isinstance(data, FromSuccessor)
            self.assertEqual(list(data.successors), ids[1:4])
        for place in (1, 2, 3):
            told = sent[ids[place]]
            assert isinstance(told, FromPredecessor)
            self.assertEqual(list(told.predecessors), [ids[7], ids[6], ids[5]])

    def test_wrong_leaves(self) -> None:
        """[6940-6.4.2.2-3] [6940-6.4.2.2-4]"""
        first, second = self.ring(2, 10)
        data = FromSuccessor(successors=()).encode()
        leaving = LeaveReq(leaving_peer_id=second.node_id, overlay_specific_data=data)
        answer = first.topology.answer_leave
        self.assertRaises(Forbidden, answer, request(leaving, node(5)))
        self.assertRaises(Forbidden, answer, request(leaving, second.node_id, node(5)))
        self.assertRaises(InvalidMessage, answer, request(PingReq(), second.node_id))
        garbage = LeaveReq(leaving_peer_id=second.node_id, overlay_specific_data=b"\x07")
        self.assertRaises(InvalidMessage, answer, request(garbage, second.node_id))
        self.assertTrue(first.topology.routes_over(second.node_id))

    def test_as_a_failure(self) -> None:
        """Who leaves is out of the tables at once. [6940-10.9-3] [6940-6.4.2.2-5]"""
        hosts = self.ring(1, 3, 5, 7, 9)
        data = FromSuccessor(successors=()).encode()
        leaving = LeaveReq(leaving_peer_id=hosts[1].node_id, overlay_specific_data=data)
        hosts[0].topology.answer_leave(request(leaving, hosts[1].node_id))
        self.assertFalse(hosts[0].topology.routes_over(hosts[1].node_id))
        # Others that list it still do not bring it back.
        self.world.clock.advance(5)
        self.assertFalse(hosts[0].topology.routes_over(hosts[1].node_id))

    def test_last_peer(self) -> None:
        """The last one has nobody to tell."""
        first = self.founder(4)
        left = first.topology.leave()
        self.world.clock.advance(2)
        self.successResultOf(left)
        self.assertFalse(first.topology.joined)

    def test_unwilling_successor(self) -> None:
        """A successor that does not take the data is passed over."""
        hosts = self.ring(2, 6, 10)
        self.world.kill(hosts[2], after=1e9)
        left = hosts[1].topology.leave()
        self.world.clock.advance(60)
        self.successResultOf(left)
        self.assertEqual([to for to, _, _ in hosts[1].handed_over[-2:]], [hosts[2].node_id, hosts[0].node_id])


class RouteQueryTests(ChordTestCase):
    """RFC 6940 §6.4.2.4, §10.8."""

    def ask(self, host: Host, destination: Any, send_update: bool = False) -> Any:
        body = RouteQueryReq(destination=destination, send_update=send_update)
        return host.topology.answer_route_query(request(body, node(12)))

    def test_next_peer(self) -> None:
        """Whom recursive routing would take next; ourselves for what is ours."""
        first, second, third = self.ring(2, 7, 12)
        resource = ResourceDestination(resource_id=ResourceId(node(5)))
        self.assertEqual(self.ask(first, resource).next_peer, second.node_id)
        self.assertEqual(self.ask(second, resource).next_peer, second.node_id)
        self.assertEqual(self.ask(first, NodeDestination(node_id=third.node_id)).next_peer, third.node_id)

    def test_refused(self) -> None:
        """Opaque IDs are not expanded; a node that is no peer knows no way. [6940-6.4.2.4.1-2]"""
        first = self.founder(2)
        self.assertRaises(Forbidden, self.ask, first, OpaqueDestination(opaque_id=b"12"))
        short = ResourceDestination(resource_id=ResourceId(b"12"))
        self.assertRaises(InvalidMessage, self.ask, first, short)
        resource = ResourceDestination(resource_id=ResourceId(node(5)))
        self.assertRaises(NotFound, self.ask, self.host(9), resource)

    def test_send_update(self) -> None:
        """[6940-10.8-1]"""
        first, second = self.ring(2, 12)
        seen: list[Struct] = []
        answer = second.topology.answer_update
        second.topology.answer_update = (  # type: ignore[method-assign]
            lambda update: seen.append(update.body) or answer(update)  # type: ignore[func-returns-value]
        )
        self.ask(first, NodeDestination(node_id=second.node_id), send_update=True)
        self.world.clock.advance(1)
        (update,) = seen
        assert isinstance(update, Full)
        self.assertEqual(list(update.successors), [second.node_id])
        self.assertEqual(list(update.fingers), sorted(update.fingers))


class ClientTests(ChordTestCase):
    """RFC 6940 §4.2.1."""

    def client(self, value: int, bootstrap: Host) -> Host:
        host = self.world.node(node(value), ChordClient)
        self.world.link(host, bootstrap)
        joined = host.topology.join()
        self.world.clock.advance(2)
        self.successResultOf(joined)
        return host

    def peer_of(self, host: Host) -> str:
        (peer,) = host.topology.status()["neighbors"]["successors"]
        return str(peer)

    def test_attached(self) -> None:
        """It attaches to the responsible peer, sends neither Join nor Update, and moves nobody's range."""
        hosts = self.ring(2, 7, 12)
        before = [host.topology.responsible_ppb() for host in hosts]
        client = self.client(5, hosts[2])
        self.assertEqual(self.peer_of(client), hosts[1].node_id.hex())
        self.assertEqual(client.topology.next_hop(node(1)), hosts[1].node_id)
        self.assertEqual([host.topology.responsible_ppb() for host in hosts], before)
        self.assertFalse(any(host.topology.routes_over(client.node_id) for host in hosts))
        self.assertFalse(client.topology.is_responsible(client.node_id))
        self.assertTrue(client.topology.joined)

    def test_reachable(self) -> None:
        """Its peer takes the last step to it."""
        hosts = self.ring(2, 7, 12)
        client = self.client(5, hosts[2])
        hosts[2].link_down(client.node_id)
        client.link_down(hosts[2].node_id)
        ping = hosts[0].request([NodeDestination(node_id=client.node_id)], PingReq())
        self.world.clock.advance(1)
        self.assertEqual(self.successResultOf(ping).signer.node_id, client.node_id)

    def test_follows(self) -> None:
        """When a nearer peer joins, an Update says so, and the client moves there."""
        hosts = self.ring(2, 7, 12)
        client = self.client(5, hosts[2])
        nearer = self.host(6)
        nearer.start(hosts[0])
        self.world.clock.advance(5)
        self.assertEqual(self.peer_of(client), nearer.node_id.hex())

    def test_peer_dies(self) -> None:
        """It attaches to the next one over another link; with no link left the host is told."""
        hosts = self.ring(2, 7, 12)
        client = self.client(5, hosts[2])
        self.world.kill(hosts[1])
        self.world.clock.advance(20)
        self.assertEqual(self.peer_of(client), hosts[2].node_id.hex())
        self.world.kill(hosts[2])
        self.world.clock.advance(1)
        self.assertEqual(client.times_lost, 1)
        self.assertFalse(client.topology.joined)

    def test_joined_by_way_of_it(self) -> None:
        """A node joins by a client alone; by that node the client finds its next peer. [6940-10.5-1]"""
        hosts = self.ring(2, 7, 12)
        client = self.client(5, hosts[2])
        hosts[2].link_down(client.node_id)
        client.link_down(hosts[2].node_id)
        joining = self.host(10)
        joined = joining.start(client)
        self.world.clock.advance(5)
        self.successResultOf(joined)
        self.assertEqual(self.table(joining)["successors"][0], self.world.name(hosts[2].node_id))
        client.outgoing = False
        self.world.kill(hosts[1])
        self.world.clock.advance(20)
        self.assertEqual(self.peer_of(client), joining.node_id.hex())
        self.assertEqual(client.times_lost, 0)

    def test_only_strangers_left(self) -> None:
        """Whoever came to a client to join by it cannot lead it back: the host is told at once."""
        hosts = self.ring(2, 7, 12)
        client = self.client(5, hosts[1])
        client.outgoing = False
        self.world.link(self.host(10), client)
        self.world.kill(hosts[1])
        self.world.clock.advance(1)
        self.assertEqual(client.times_lost, 1)
        self.assertIsNone(client.topology.next_hop(node(1), node(10)))
        self.failureResultOf(client.topology.join(), LinkError)

    def test_peer_leaves(self) -> None:
        """A Leave of its peer moves it as well."""
        hosts = self.ring(2, 7, 12)
        client = self.client(5, hosts[2])
        leave = LeaveReq(
            leaving_peer_id=hosts[1].node_id, overlay_specific_data=FromPredecessor(predecessors=()).encode()
        )
        self.assertRaises(Forbidden, client.topology.answer_leave, request(leave, hosts[1].node_id, node(2)))
        client.topology.answer_leave(request(leave, hosts[1].node_id))
        self.world.kill(hosts[1])
        self.world.clock.advance(20)
        self.assertEqual(self.peer_of(client), hosts[2].node_id.hex())

    def test_was_a_peer(self) -> None:
        """A peer that comes back as a client says so to those who still hold it for one."""
        hosts = self.ring(2, 7, 12)
        self.world.kill(hosts[1], after=1e9)
        client = self.client(7, hosts[0])
        self.world.link(hosts[2], client)
        hosts[2].topology.update_requested(client.node_id)
        self.world.clock.advance(20)
        for host in (hosts[0], hosts[2]):
            self.assertFalse(host.topology.routes_over(client.node_id))
        self.assertEqual(self.peer_of(client), hosts[2].node_id.hex())

    def test_refuses(self) -> None:
        """It is no peer."""
        topology = self.world.node(node(5), ChordClient).topology
        joining = request(JoinReq(joining_peer_id=node(3)), node(3))
        self.assertRaises(Forbidden, topology.answer_join, joining)
        query = RouteQueryReq(destination=NodeDestination(node_id=node(1)))
        self.assertRaises(Forbidden, topology.answer_route_query, request(query, node(3)))
        self.assertRaises(ValueError, topology.found)
        self.successResultOf(topology.leave())
