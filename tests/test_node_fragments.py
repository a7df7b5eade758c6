"""Whole nodes in memory, some of whose links carry but little: large values all the same (RFC 6940 §6.7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.kinds import REGISTERED, SIP_REGISTRATION
from p2psip.forwarding.fragments import fragments
from p2psip.links.memory import MemoryLink
from p2psip.node import Node
from p2psip.testing import World
from p2psip.wire.codes import UNFRAGMENTED
from p2psip.wire.header import NodeDestination, decode_header
from p2psip.wire.methods import PingReq

from .test_node import fetch, store

VALUE = Random(4).randbytes(4096)
NARROW, WIDE = 600, 10_000


class NarrowLinkTests(SynchronousTestCase):
    """Eight nodes; a link that cuts hands on the pieces in any order, as datagrams may come."""

    def setUp(self) -> None:
        kind = replace(REGISTERED[SIP_REGISTRATION], max_size=4096)
        self.world = World(8, seed=3, kinds=[kind], max_message_size=6500)
        self.cut: Counter[str] = Counter()
        """Pieces made, by the address of the node."""
        self.most: Callable[[MemoryLink], int] = lambda link: WIDE
        """What a link carries at once."""
        self.lost = 0
        """Of the next pieces; they vanish."""
        send = MemoryLink.send
        random = Random(5)

        def cut(link: MemoryLink, message: bytes) -> bool:
            most = self.most(link)
            pieces = list(fragments(message, most))
            self.assertLessEqual(max(map(len, pieces)), most)
            if len(pieces) > 1:
                self.cut[link.here] += len(pieces)
                random.shuffle(pieces)
                lost, self.lost = self.lost, 0
                pieces = pieces[lost:]
            return all(send(link, piece) for piece in pieces)

        self.patch(MemoryLink, "send", cut)

    def assertNothingHeld(self) -> None:
        for node in self.world.nodes:
            self.assertEqual(len(node.messaging._reassembly), 0)

    def path(self) -> tuple[Node, Node, Node, str]:
        """Three nodes that a request passes for the name that follows; the last one serves it."""
        nodes = {node.node_id: node for node in self.world.nodes}
        for number in range(1000):
            name = f"user{number}@example.org"
            for origin in self.world.nodes:
                target = origin.topology.resource_id(name.encode())
                found: list[Node] = [origin]
                while not found[-1].topology.is_responsible(target):
                    hop = found[-1].topology.next_hop(target, found[-2].node_id if found[1:] else None)
                    assert hop is not None
                    found.append(nodes[hop])
                if len(found) == 3:
                    return found[0], found[1], found[2], name
        raise AssertionError("no path of three nodes")

    def test_narrow_hop(self) -> None:
        """A relay cuts what its link does not carry: the request on its way there, the answer on its way back."""
        origin, middle, serving, name = self.path()
        ends = {serving.node_id, origin.node_id}
        here = self.world.address(middle)
        self.most = lambda link: NARROW if link.here == here and link.node_id in ends else WIDE
        store(self.world, origin, VALUE, name)
        stored = self.cut.total()
        self.assertGreaterEqual(stored, 9)
        self.assertEqual(fetch(self.world, origin, name), [VALUE])
        self.assertGreaterEqual(self.cut.total() - stored, 9)
        self.assertEqual(set(self.cut), {self.world.address(middle)})
        self.assertNothingHeld()
        self.assertFalse([cause for node in self.world.nodes for cause in node.rejected() if "fragment" in cause])

    def test_cut_again(self) -> None:
        """Fragments are cut again where a link carries less still; only the last node puts them together."""
        origin, middle, _, name = self.path()
        here = self.world.address(middle)
        self.most = lambda link: NARROW if link.here == here else 2 * NARROW
        sent: Counter[tuple[str, int]] = Counter()

        def observe(link: MemoryLink, piece: bytes) -> None:
            header, _ = decode_header(piece, self.world.configuration.context)
            if header.fragment != UNFRAGMENTED:
                sent[link.here, len(header.via_list)] += 1
            self.assertEqual(len(middle.messaging._reassembly), 0)

        self.world.network.observe = observe
        store(self.world, origin, VALUE, name)
        self.assertGreaterEqual(sent[here, 1], 2 * sent[self.world.address(origin), 0])
        self.assertGreaterEqual(sent[self.world.address(origin), 0], 4)
        self.world.network.observe = None
        self.assertEqual(fetch(self.world, origin, name), [VALUE])
        self.world.run(30)
        self.assertNothingHeld()

    def test_lost_piece(self) -> None:
        """The retransmission brings it; what is then left over of the first goes in time, and is counted."""
        origin, middle, serving, name = self.path()
        here = self.world.address(origin)
        self.most = lambda link: NARROW if link.here == here and link.node_id == middle.node_id else WIDE
        self.lost = 1
        store(self.world, origin, VALUE, name)
        self.assertEqual(fetch(self.world, origin, name), [VALUE])
        self.assertEqual(len(serving.messaging._reassembly), 1)
        self.world.run(15)
        self.assertNothingHeld()
        self.assertEqual(serving.rejected()["fragments timed out"], 1)

    def test_stopped_meanwhile(self) -> None:
        """A node that stops waits for nothing any more."""
        origin, _, serving, _ = self.path()
        self.most = lambda link: NARROW
        self.lost = 1
        padding = bytes(2000)
        asked = origin.messaging.request([NodeDestination(node_id=serving.node_id)], PingReq(padding=padding))
        self.world.run(1)
        self.assertEqual(len(serving.messaging._reassembly), 1)
        self.world.result(serving.stop())
        expiry = serving.messaging._expire
        self.assertFalse([call for call in self.world.clock.getDelayedCalls() if call.func == expiry])
        asked.addErrback(lambda _: None).cancel()
