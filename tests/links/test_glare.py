"""Attach at the level of the Message Transport, with the links that ICE makes."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import gatherResults

from p2psip.ids import NodeId
from p2psip.interfaces import ILink
from p2psip.links import agent as agent_module
from p2psip.transport.attach import Attachments, AttachQuota
from p2psip.wire.header import NodeDestination
from p2psip.wire.methods import AttachReqAns

from ..transport.fakes import Peer
from .hosts import Host, RecordingOwner
from .lines import clock
from .test_ice import ICETestCase

SMALL, LARGE, MIDDLE = NodeId(b"a" * 16), NodeId(b"z" * 16), NodeId(b"m" * 16)


class Tabled(RecordingOwner):
    """Enters links in the table of a `Peer`."""

    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self._peer = peer

    def link_opened(self, link: ILink) -> None:
        super().link_opened(link)
        self._peer.table.opened(link)

    def link_closed(self, link: ILink, reason: Exception | None) -> None:
        super().link_closed(link, reason)
        self._peer.table.closed(link)


class GlareTests(ICETestCase):
    def setUp(self) -> None:
        super().setUp()
        self.requests: list[Any] = []

    async def attaching(self, node_id: NodeId, middle: Peer) -> tuple[Peer, Any, Attachments]:
        """A node that reaches others by way of `middle`, until it has a link of its own."""
        links = await self.node(node_id)
        requests = self.requests
        peer = Peer(clock, node_id, self.configuration)
        cast(Host, links.host).owner = Tabled(peer)
        attachments = Attachments(
            node_id,
            peer.table,
            [links],
            lambda *what: requests.append(what) or peer.messaging.request(*what),
            lambda _: None,
            clock,
            peer.count,
            AttachQuota(clock, per_minute=20),
            lambda _: None,
        )
        peer.dispatch.answerers[AttachReqAns] = attachments.answer_attach
        peer.link(middle)
        return peer, links, attachments

    async def neighbors(self) -> tuple[Any, Any, Any, Any, Any, Any]:
        """The two of them, joined by a third in the middle."""
        middle = Peer(clock, MIDDLE, self.configuration)
        small, small_links, from_small = await self.attaching(SMALL, middle)
        large, large_links, from_large = await self.attaching(LARGE, middle)
        small.hops[LARGE] = large.hops[SMALL] = MIDDLE
        return small, small_links, from_small, large, large_links, from_large

    async def test_no_subsequent_offer(self) -> None:
        """However often a pair is nominated afterwards, there is one request of the one end, and its answer.

        [6940-6.5.1.10.2-1] [6940-6.5.1.12-1] [6940-6.5.1.12-2]
        """
        self.patch(agent_module, "INTERVAL", 0.01)
        _, small_links, from_small, _, large_links, _ = await self.neighbors()
        nominations: list[bool] = []
        build = agent_module.Agent.build_request

        def building(agent: Any, pair: Any, nominate: bool) -> Any:
            nominations.append(nominate)
            return build(agent, pair, nominate)

        await from_small.attach([NodeDestination(node_id=LARGE)])
        self.patch(agent_module.Agent, "build_request", building)
        await self.until(lambda: nominations.count(True) > 5 and nominations.count(False) > 5)
        self.assertEqual(len(self.requests), 1)
        self.assertEqual([len(self.owner(each).events) for each in (small_links, large_links)], [1, 1])

    async def test_glare(self) -> None:
        """Both attach at once: one link comes of it, both succeed, and no socket of the other exchange is left.

        [6940-6.5.1.2-4] [6940-6.5.1.2-5] [6940-6.5.1.2-6] [6940-6.5.1.2-7] [6940-6.5.1.2-9]
        """
        small, small_links, from_small, _, large_links, from_large = await self.neighbors()
        found = await gatherResults(
            [
                from_small.attach([NodeDestination(node_id=LARGE)]),
                from_large.attach([NodeDestination(node_id=SMALL)]),
            ]
        )
        self.assertEqual(found, [LARGE, SMALL])
        await self.until(lambda: not small_links._negotiations and not large_links._negotiations)
        [ours], [theirs] = self.owner(small_links).links, self.owner(large_links).links
        self.assertEqual(ours.candidate_pair.split(" -> ")[::-1], theirs.candidate_pair.split(" -> "))
        # The larger Node-ID's own Attach went on: it sent the request, so it is the DTLS server.
        self.assertEqual((ours.outgoing, theirs.outgoing), (True, False))
        self.assertIs(small.table.link_to(LARGE), ours)
