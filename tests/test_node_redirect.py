"""Whole nodes in memory: what is under way when a node on its way dies without a word (docs/decisions/0012, 0013)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.kinds import SIP_REGISTRATION
from p2psip.ids import NodeId, ResourceId, offset
from p2psip.links.memory import MemoryLink
from p2psip.node import Node
from p2psip.testing import World
from p2psip.wire.codes import MessageCode
from p2psip.wire.header import NodeDestination, ResourceDestination
from p2psip.wire.message import decode_message
from p2psip.wire.methods import PingReq

from .test_node import entry, fetch, store

TIMER = 3.0
"""The overlay-reliability-timer of these overlays, in seconds."""


class UnderWayTests(SynchronousTestCase):
    """Sixteen nodes; each request is followed hop by hop."""

    def setUp(self) -> None:
        self.world = World(16, seed=1)
        self.world.run(60)
        self.assertEqual(self.world.configuration.overlay_reliability_timer, TIMER * 1000)
        self.sent: list[tuple[Node, int]] = []
        self.transaction_id: int | None = None
        self.when: Callable[[Node, int], None] = lambda node, code: None
        self.everyone = {self.world.address(node): node for node in self.world.nodes}
        self.world.network.observe = self.observe

    def observe(self, link: MemoryLink, message: bytes) -> None:
        """Write down who sends what of the one request that is followed, first of all its originator."""
        decoded = decode_message(message, self.world.configuration.context)
        node, code = self.everyone[link.here], decoded.contents.message_code
        if self.transaction_id is None:
            self.transaction_id = decoded.header.transaction_id
        if decoded.header.transaction_id == self.transaction_id:
            self.sent.append((node, code))
            self.when(node, code)

    def path(self, length: int) -> tuple[list[Node], ResourceId]:
        """So many nodes that a request passes, and a Resource-ID that it is for: the last one is responsible."""
        nodes = {node.node_id: node for node in self.world.nodes}
        for origin in self.world.nodes:
            for last in self.world.nodes:
                target = ResourceId(offset(last.node_id, -1))
                found: list[Node] = [origin]
                while not found[-1].topology.is_responsible(target):
                    previous = found[-2].node_id if len(found) > 1 else None
                    hop = found[-1].topology.next_hop(target, previous)
                    assert hop is not None
                    found.append(nodes[hop])
                if len(found) == length:
                    return found, target
        raise AssertionError(f"no path of {length} nodes")

    def ping(self, origin: Node, target: ResourceId) -> Deferred[Any]:
        self.began = self.world.clock.seconds()
        return origin.messaging.request([ResourceDestination(resource_id=target)], PingReq())

    def answered(self, asked: Deferred[Any]) -> Any:
        """The answer, that has to come before its originator would send the request again."""
        answer = self.world.result(asked)
        self.assertLess(self.world.clock.seconds() - self.began, TIMER)
        self.world.run(30)
        return answer

    def requests_of(self, node: Node) -> int:
        return self.sent.count((node, MessageCode.PING_REQ))

    def test_path(self) -> None:
        """While all live, a request takes each link once, and so does its answer."""
        nodes, target = self.path(4)
        self.assertEqual(self.answered(self.ping(nodes[0], target)).signer.node_id, nodes[-1].node_id)
        there = [(node, MessageCode.PING_REQ) for node in nodes[:-1]]
        self.assertEqual(self.sent, there + [(node, MessageCode.PING_ANS) for node in nodes[:0:-1]])

    def test_request(self) -> None:
        """The neighbor of the dead node finds another way; its originator need not send it twice."""
        (origin, before, dead, responsible), target = self.path(4)
        self.world.kill(dead)
        answer = self.answered(self.ping(origin, target))
        self.assertEqual(answer.signer.node_id, responsible.node_id)
        self.assertEqual(self.requests_of(origin), 1)
        self.assertEqual(before.messaging.redirected, 1)
        self.assertEqual(before.status()["messages"]["redirected"], 1)

    def test_originator(self) -> None:
        """So does the originator, if the dead node was its own neighbor."""
        (origin, dead, responsible), target = self.path(3)
        self.world.kill(dead)
        self.assertEqual(self.answered(self.ping(origin, target)).signer.node_id, responsible.node_id)
        self.assertEqual(origin.messaging.redirected, 1)

    def test_in_flight(self) -> None:
        """What the node had not yet got when it died is given back as well."""
        (origin, before, dead, responsible), target = self.path(4)

        def passes(node: Node, code: int) -> None:
            if node is before and dead in self.world.nodes:
                self.world.clock.callLater(0.005, self.world.kill, dead)

        self.when = passes
        self.assertEqual(self.answered(self.ping(origin, target)).signer.node_id, responsible.node_id)
        self.assertNotIn(dead, self.world.nodes)
        self.assertEqual((self.requests_of(origin), self.requests_of(dead)), (1, 0))

    def test_answer(self) -> None:
        """An answer skips the node that died after it had passed the request on."""
        (origin, _, dead, responsible), target = self.path(4)

        def answers(node: Node, code: int) -> None:
            if node is responsible and dead in self.world.nodes:
                self.world.kill(dead)

        self.when = answers
        self.assertEqual(self.answered(self.ping(origin, target)).signer.node_id, responsible.node_id)
        self.assertNotIn(dead, self.world.nodes)
        self.assertEqual((self.requests_of(origin), responsible.messaging.redirected), (1, 1))

    def test_responsible_peer(self) -> None:
        """Its successor answers in its place, though only the predecessor knows of its death at first.

        It does not send back what comes from there, but finds out itself.
        """
        (origin, *_, before, dead), target = self.path(4)
        self.world.kill(dead)
        successor = next(node for node in self.world.nodes if node.node_id == dead.topology._table.successors[0])
        self.assertFalse(successor.topology.is_responsible(target))
        answer = self.answered(self.ping(origin, target))
        self.assertEqual(answer.signer.node_id, successor.node_id)
        self.assertEqual(self.requests_of(origin), 1)
        self.assertEqual(self.requests_of(before), 2)
        # To the dead peer and past it; then the successor to the dead peer.
        self.assertEqual(sum(code == MessageCode.PING_REQ for _, code in self.sent), 5)

    def test_client_of_a_dead_peer(self) -> None:
        """The same for a Node-ID that the dead peer would be responsible for: it does not go to and fro either."""
        (origin, *_, before, dead), _ = self.path(4)
        self.world.kill(dead)
        nobody = NodeId(offset(dead.node_id, -1))
        asked = origin.messaging.request([NodeDestination(node_id=nobody)], PingReq())
        self.world.run(TIMER - 0.1)
        self.assertEqual(self.requests_of(before), 2)
        self.assertLess(len(self.sent), 10)
        self.assertNoResult(asked)
        asked.addErrback(lambda failure: None)

    def test_values(self) -> None:
        """A value is fetched at once from the copy, and stored at once where the dead peer's are now."""
        (origin, *_, dead), _ = self.path(4)
        names = (f"user{number}@example.org" for number in range(10000))
        name = next(n for n in names if dead.topology.is_responsible(origin.overlay.resource_id(n.encode())))
        store(self.world, origin, b"before", name)
        self.world.run(5)
        self.world.kill(dead)
        began = self.world.clock.seconds()
        self.assertEqual(fetch(self.world, origin, name), [b"before"])
        self.assertLess(self.world.clock.seconds() - began, TIMER)
        store(self.world, origin, b"after", name)
        self.assertLess(self.world.clock.seconds() - began, TIMER)
        self.assertEqual(fetch(self.world, origin, name), [b"after"])


class TwoNodesTests(SynchronousTestCase):
    def test_alone_now(self) -> None:
        """Of two nodes one dies: what the other was sending to it is its own to serve, and is served once."""
        world = World(2, seed=1)
        world.run(60)
        stays, dies = world.nodes
        names = (f"user{number}@example.org" for number in range(100))
        name = next(n for n in names if dies.topology.is_responsible(stays.overlay.resource_id(n.encode())))
        world.kill(dies)
        began = world.clock.seconds()
        storing = stays.overlay.store(
            name.encode(), SIP_REGISTRATION, [entry(stays, b"v")], 3600, signer=world.user(name, stays)
        )
        self.assertEqual(world.result(storing).generation, 1)
        self.assertLess(world.clock.seconds() - began, TIMER)
        self.assertEqual(fetch(world, stays, name), [b"v"])
