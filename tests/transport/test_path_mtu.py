"""Padded Pings over links whose path takes so much and no more."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from p2psip.config.document import Configuration
from p2psip.errors import LinkError
from p2psip.ids import NodeId
from p2psip.interfaces import IPathProbe
from p2psip.transport.liveness import Liveness
from p2psip.transport.path_mtu import (
    AGAIN,
    AT_FIRST,
    MOST_AT_ONCE,
    SIZES,
    SOON,
    TRIES,
    PathMTUs,
)
from p2psip.wire.codes import MessageCode
from p2psip.wire.contents import MessageContents
from p2psip.wire.header import decode_header
from p2psip.wire.methods import PingReq

from .fakes import PairedLink, Peer, run

CONFIGURATION = Configuration(instance_name="example.org", overlay_reliability_timer=3000)
HERE, THERE = NodeId(b"h" * 16), NodeId(b"t" * 16)
LEAST, WIDE = 503, 10_000
PATIENCE = 1.0


@implementer(IPathProbe)
class ProbedLink(PairedLink):
    """A link whose path takes `path` bytes; `probed` are the probes: when, and what."""

    def __init__(self, clock: Clock, peer: Peer, path: int) -> None:
        super().__init__(clock, peer, True)
        self.path = path
        self.mtu = LEAST
        self.path_shrunk: Any = None
        self.probed: list[tuple[float, bytes]] = []
        self.refuses = False

    def probe(self, message: bytes) -> Deferred[bool]:
        if self.refuses:
            return fail(LinkError("failing"))
        self.probed.append((self._clock.seconds(), message))
        took: Deferred[bool] = Deferred()
        if len(message) <= self.path:
            self.send(message)
            self.mtu = len(message)
            self._clock.callLater(0, took.callback, True)
        else:
            self._clock.callLater(PATIENCE, took.callback, False)
        return took

    def sizes(self) -> list[int]:
        return [len(message) for _, message in self.probed]


class PathMTUTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.here, self.there = (Peer(self.clock, node_id, CONFIGURATION) for node_id in (HERE, THERE))
        liveness = Liveness(Random(1), self.clock.seconds, lambda: 0.0, lambda: 0, lambda: 0)
        self.there.dispatch.answerers[PingReq] = liveness.answer_ping
        self.mtus = PathMTUs(
            lambda: CONFIGURATION, self.here.signer, self.here.transactions, self.clock, Random(2)
        )

    def link(self, path: int) -> ProbedLink:
        """One more link to the same node, opened."""
        link = ProbedLink(self.clock, self.there, path)
        back = PairedLink(self.clock, self.here, False)
        link.back, back.back = back, link
        self.here.table.opened(link)
        self.there.table.opened(back)
        self.mtus.opened(link)
        return link


class SearchTests(PathMTUTestCase):
    def test_interface(self) -> None:
        verifyObject(IPathProbe, ProbedLink(self.clock, self.there, WIDE))

    def test_ping(self) -> None:
        """A signed Ping for the neighbor, which answers it as any other."""
        link = self.link(WIDE)
        run(self.clock, AT_FIRST)
        self.assertEqual(link.sizes(), list(SIZES))
        header, start = decode_header(link.probed[0][1], CONFIGURATION.context)
        contents, _ = MessageContents.decode_prefix(link.probed[0][1], CONFIGURATION.context, start)
        self.assertEqual([each.node_id for each in header.destination_list], [THERE])  # type: ignore[attr-defined]
        self.assertEqual(contents.message_code, MessageCode.PING_REQ)
        self.assertEqual(self.there.messaging.delivered, 2)
        self.assertEqual(self.here.messaging.delivered, 2)
        self.assertEqual(len(self.here.transactions), 0)
        self.assertEqual(self.here.counted | self.there.counted, {})

    def test_both_sizes(self) -> None:
        """Once each, and never again while the path does not shrink."""
        link = self.link(WIDE)
        run(self.clock, 3 * AGAIN)
        self.assertEqual(link.sizes(), list(SIZES))

    def test_smaller_size(self) -> None:
        """Three times until it is given up; then again after ten minutes or so."""
        link = self.link(1300)
        run(self.clock, AT_FIRST + TRIES * PATIENCE)
        self.assertEqual(link.sizes(), [SIZES[0], *[SIZES[1]] * TRIES])
        self.assertEqual(len(self.here.transactions), 0)
        run(self.clock, 0.85 * AGAIN)
        self.assertEqual(len(link.probed), 1 + TRIES)
        link.path = WIDE
        run(self.clock, 0.3 * AGAIN)
        self.assertEqual(link.sizes()[1 + TRIES :], [SIZES[1]])

    def test_neither(self) -> None:
        """What does not take the smaller size is not asked to take the larger."""
        link = self.link(LEAST)
        run(self.clock, 0.8 * AGAIN)
        self.assertEqual(link.sizes(), [SIZES[0]] * TRIES)
        self.assertEqual(len({message for _, message in link.probed}), TRIES)

    def test_shrunk(self) -> None:
        """It may have been by chance: everything is tried anew, soon."""
        link = self.link(WIDE)
        run(self.clock, AT_FIRST)
        link.mtu = LEAST
        link.path_shrunk()
        run(self.clock, 0.8 * SOON)
        self.assertEqual(link.sizes(), list(SIZES))
        run(self.clock, 0.4 * SOON)
        self.assertEqual(link.sizes(), [*SIZES, *SIZES])

    def test_shrunk_meanwhile(self) -> None:
        """While it is searched for there is one search."""
        link = self.link(LEAST)
        run(self.clock, AT_FIRST + 0.5)
        link.path_shrunk()
        run(self.clock, 2 * SOON)
        self.assertEqual(link.sizes(), [SIZES[0]] * TRIES)

    def test_no_time_for_it(self) -> None:
        """A link that cannot be probed now is probed soon."""
        link = self.link(WIDE)
        link.refuses = True
        run(self.clock, 2 * AT_FIRST)
        self.assertEqual((link.probed, len(self.here.transactions)), ([], 0))
        link.refuses = False
        run(self.clock, 1.2 * SOON)
        self.assertEqual(link.sizes(), list(SIZES))

    def test_too_many_requests(self) -> None:
        """Where no request may be sent there is no probe either, for now."""
        self.here.transactions._limit = 0
        link = self.link(WIDE)
        run(self.clock, AT_FIRST)
        self.assertEqual(link.probed, [])
        self.here.transactions._limit = 1
        run(self.clock, 1.2 * SOON)
        self.assertEqual(link.sizes()[:1], [SIZES[0]])

    def test_large_ping(self) -> None:
        """Where the certificate alone takes more than the first size, the Ping is as large as it is."""
        signer = self.here.signer
        signer.identity = replace(signer.identity, certificate=bytes(SIZES[0] - 100))
        link = self.link(WIDE)
        run(self.clock, AT_FIRST)
        first, second = link.sizes()
        self.assertTrue(SIZES[0] < first < SIZES[1], first)
        self.assertEqual(second, SIZES[1])


class BoundsTests(PathMTUTestCase):
    def test_spread(self) -> None:
        """Links opened together are not probed together, and only so many at a time."""
        links = [self.link(LEAST) for _ in range(12)]
        most = 0
        for _ in range(200):
            run(self.clock)
            most = max(most, len(self.here.transactions))
            self.clock.advance(0.1)
        self.assertEqual(most, MOST_AT_ONCE)
        self.assertEqual([link.sizes() for link in links], [[SIZES[0]] * TRIES] * 12)
        self.assertGreater(len({link.probed[0][0] for link in links}), MOST_AT_ONCE)

    def test_closed(self) -> None:
        """A link that is gone is not probed, before its first probe, nor between two."""
        early, late = self.link(LEAST), self.link(LEAST)
        self.mtus.closed(early)
        run(self.clock, AT_FIRST + 0.1)
        self.assertEqual(len(late.probed), 1)
        self.mtus.closed(late)
        self.mtus.closed(late)
        late.path_shrunk()
        run(self.clock, 2 * AGAIN)
        self.assertEqual((len(early.probed), len(late.probed)), (0, 1))
        self.assertEqual(len(self.here.transactions), 0)

    def test_stop(self) -> None:
        links = [self.link(WIDE) for _ in range(3)]
        self.mtus.stop()
        run(self.clock, AGAIN)
        self.assertEqual([link.probed for link in links], [[]] * 3)
