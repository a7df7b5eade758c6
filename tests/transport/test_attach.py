"""Attach and AppAttach: exchanges, glare, quotas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from p2psip.config.document import Configuration
from p2psip.errors import Forbidden, InProgress, InvalidMessage, LinkError, NotFound
from p2psip.ids import NodeId, ResourceId
from p2psip.interfaces import (
    IApplicationConnection,
    ILink,
    ILinkProtocol,
    INegotiation,
    Request,
    SignedBy,
)
from p2psip.links.plain import negotiate
from p2psip.transport.app_attach import AppAttachments
from p2psip.transport.attach import Attachments, AttachQuota
from p2psip.wire.codes import OverlayLinkType
from p2psip.wire.header import Destination, NodeDestination, ResourceDestination
from p2psip.wire.methods import AppAttachReq, AttachReqAns, IceCandidate, IPv4AddrPort

from .fakes import Peer, identity_of, run

SMALL, LARGE, MIDDLE = NodeId(b"a" * 16), NodeId(b"z" * 16), NodeId(b"m" * 16)
RESOURCE = ResourceId(b"r" * 16)


def candidate(number: int, link: int = OverlayLinkType.TLS_TCP_FH_NO_ICE) -> IceCandidate:
    return IceCandidate(addr_port=IPv4AddrPort(addr=number, port=6084), overlay_link=link)


@implementer(ILinkProtocol)
class FakeLinkProtocol:
    """Connects to the other `Attacher` whose number the candidate's address is."""

    name = "FAKE"
    link_type = OverlayLinkType.TLS_TCP_FH_NO_ICE
    addresses: Sequence[str] = ()

    def __init__(self, attacher: Attacher, everyone: list[Attacher]) -> None:
        self.attacher = attacher
        self.everyone = everyone
        self.reachable = True
        self.offered: dict[tuple[NodeId, int], Deferred[IApplicationConnection]] = {}

    def candidates(self) -> Sequence[IceCandidate]:
        return [candidate(self.everyone.index(self.attacher))]

    def connect(self, candidates: Sequence[IceCandidate], expected: NodeId) -> Deferred[ILink]:
        opened: Deferred[ILink] = Deferred()
        self.attacher.connects += 1
        address = cast(IPv4AddrPort, candidates[0].addr_port)
        other = self.everyone[address.addr]
        assert other.peer.node_id == expected
        if self.reachable:
            link, _ = self.attacher.peer.link(other.peer)
            opened.callback(link)
        return opened

    def offer_application(
        self, expected: NodeId, application: int
    ) -> tuple[Sequence[IceCandidate], Deferred[IApplicationConnection]]:
        connection: Deferred[IApplicationConnection] = Deferred()
        self.offered[expected, application] = connection
        return self.candidates(), connection

    def connect_application(
        self, candidates: Sequence[IceCandidate], expected: NodeId, application: int
    ) -> Deferred[IApplicationConnection]:
        opened: Deferred[IApplicationConnection] = Deferred()
        address = cast(IPv4AddrPort, candidates[0].addr_port)
        other = self.everyone[address.addr]
        ours = cast(Any, f"connection to {expected!r}")
        other.protocol.offered.pop((self.attacher.peer.node_id, application)).callback(ours)
        opened.callback(ours)
        return opened

    def negotiate(
        self, controlling: bool, expected: NodeId | None = None, application: int | None = None
    ) -> Deferred[INegotiation]:
        return negotiate(self, controlling, expected, application)

    listen = stop = connect_to_bootstrap = cast(Any, None)


class Attacher:
    """A `Peer` that can attach."""

    def __init__(self, clock: Clock, node_id: NodeId, everyone: list[Attacher]) -> None:
        self.peer = Peer(clock, node_id, Configuration(instance_name="example.org"))
        self.connects = 0
        self.updates: list[NodeId] = []
        self.met: list[Sequence[IceCandidate]] = []
        everyone.append(self)
        self.protocol = FakeLinkProtocol(self, everyone)
        quota = AttachQuota(clock, per_minute=5)
        self.attachments = Attachments(
            node_id,
            self.peer.table,
            [self.protocol],
            self.peer.messaging.request,
            self.updates.append,
            clock,
            self.peer.count,
            quota,
            self.met.append,
        )
        self.app_attachments = AppAttachments(
            node_id, [self.protocol], self.peer.messaging.request, clock, self.peer.count, quota
        )
        self.peer.dispatch.answerers[AttachReqAns] = self.attachments.answer_attach
        self.peer.dispatch.answerers[AppAttachReq] = self.app_attachments.answer_app_attach


class Neighborhood(SynchronousTestCase):
    """Two nodes joined by a third in the middle."""

    def setUp(self) -> None:
        self.clock = Clock()
        everyone: list[Attacher] = []
        self.small, self.large, self.middle = (
            Attacher(self.clock, node_id, everyone) for node_id in (SMALL, LARGE, MIDDLE)
        )
        self.links = {
            SMALL: self.small.peer.link(self.middle.peer),
            LARGE: self.large.peer.link(self.middle.peer),
        }
        self.small.peer.hops[LARGE] = self.large.peer.hops[SMALL] = MIDDLE
        self.middle.peer.hops[RESOURCE] = LARGE
        self.small.peer.hops[RESOURCE] = MIDDLE
        self.large.peer.responsible.add(RESOURCE)

    def node(self, node_id: NodeId) -> list[Destination]:
        return [NodeDestination(node_id=node_id)]

    def assertLinked(self) -> None:
        self.assertIsNotNone(self.small.peer.table.link_to(LARGE))
        self.assertIsNotNone(self.large.peer.table.link_to(SMALL))


class AttachTests(Neighborhood):
    """Attach, both ways."""

    def test_where_it_listens(self) -> None:
        """Whoever connected on our Attach could be bootstrapped from; who did not is no one to remember."""
        self.small.attachments.attach(self.node(LARGE))
        run(self.clock)
        self.assertEqual(self.small.met, [tuple(self.large.protocol.candidates())])
        self.large.protocol.reachable = False
        self.small.peer.table.link_to(LARGE).close(LinkError("broken"))
        attached = self.small.attachments.attach(self.node(LARGE))
        self.clock.pump([1.0] * 60)
        self.failureResultOf(attached)
        self.assertEqual(len(self.small.met), 1)

    def test_attach_to_node(self) -> None:
        """The answerer connects, and the requester learns who is there. [6940-6.5.1.13-1] [6940-6.5.1.2-2]

        [6940-6.5.1.13-2]
        """
        attached = self.small.attachments.attach(self.node(LARGE))
        run(self.clock)
        self.assertEqual(self.successResultOf(attached), LARGE)
        self.assertLinked()
        self.assertEqual((self.small.connects, self.large.connects), (0, 1))
        self.assertEqual(self.large.updates, [])

    def test_attach_to_resource(self) -> None:
        """Whoever is responsible for the resource is attached to."""
        attached = self.small.attachments.attach([ResourceDestination(resource_id=RESOURCE)])
        run(self.clock)
        self.assertEqual(self.successResultOf(attached), LARGE)
        self.assertLinked()

    def test_source_routed(self) -> None:
        """An Attach goes by the peer that named the other one."""
        self.small.peer.hops.clear()
        attached = self.small.attachments.attach(self.node(MIDDLE) + self.node(LARGE))
        run(self.clock)
        self.assertEqual(self.successResultOf(attached), LARGE)

    def test_connected_already(self) -> None:
        """There is nothing to do for a node that is connected."""
        attached = self.small.attachments.attach(self.node(MIDDLE))
        self.assertEqual(self.successResultOf(attached), MIDDLE)
        self.assertEqual(self.links[SMALL][0].sent, [])

    def test_send_update(self) -> None:
        """The answerer is to send an Update once the link is there. [6940-6.4.2.3-1]"""
        self.small.attachments.attach(self.node(LARGE), send_update=True)
        run(self.clock)
        self.assertEqual(self.large.updates, [SMALL])
        self.assertEqual(self.small.updates, [])

    def test_once_for_many(self) -> None:
        """The same Attach asked for twice at a time is one exchange."""
        asked = [self.small.attachments.attach(self.node(LARGE)) for _ in range(2)]
        run(self.clock)
        self.assertEqual([self.successResultOf(attached) for attached in asked], [LARGE, LARGE])
        self.assertEqual(self.large.connects, 1)

    def test_no_link(self) -> None:
        """An answer without the link after it is a failure in bounded time, at both ends."""
        self.large.protocol.reachable = False
        attached = self.small.attachments.attach(self.node(LARGE), send_update=True)
        run(self.clock, 13)
        self.failureResultOf(attached, LinkError)
        self.assertEqual(self.large.peer.counted["no link to a node that attached"], 1)
        self.assertEqual(self.large.updates, [])

    def test_senseless_answer(self) -> None:
        """An answer without a candidate of use is a failure at once, and leaves nothing behind."""
        self.large.peer.dispatch.answerers[AttachReqAns] = lambda request: AttachReqAns(role=b"active", candidates=())
        attached = self.small.attachments.attach(self.node(LARGE))
        run(self.clock)
        self.failureResultOf(attached, InvalidMessage)
        run(self.clock, 60)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_ourselves(self) -> None:
        """There is no link to ourselves, neither by name nor by a resource of our own."""
        self.failureResultOf(self.small.attachments.attach(self.node(SMALL)), LinkError)
        attached = self.large.attachments.attach([ResourceDestination(resource_id=RESOURCE)])
        run(self.clock)
        self.failureResultOf(attached, InvalidMessage)

    def test_glare(self) -> None:
        """Both ask at once: the smaller yields, one link comes of it, both succeed. [6940-6.5.1.2-5]
        [6940-6.5.1.2-7] [6940-6.5.1.2-1, 6940-6.5.1.2-6]"""
        mine = self.small.attachments.attach(self.node(LARGE), send_update=True)
        theirs = self.large.attachments.attach(self.node(SMALL), send_update=True)
        run(self.clock, 1)
        self.assertEqual(self.successResultOf(mine), LARGE)
        self.assertEqual(self.successResultOf(theirs), SMALL)
        self.assertEqual((self.small.connects, self.large.connects), (1, 0))
        self.assertEqual(self.small.updates, [LARGE])
        self.assertEqual(self.large.updates, [SMALL])

    def test_glare_where_one_did_not_know(self) -> None:
        """The smaller one asked a resource, so it cannot see the glare: it is told Error_In_Progress."""
        mine = self.small.attachments.attach([ResourceDestination(resource_id=RESOURCE)], send_update=True)
        theirs = self.large.attachments.attach(self.node(SMALL))
        run(self.clock, 1)
        self.assertEqual(self.successResultOf(mine), LARGE)
        self.assertEqual(self.successResultOf(theirs), SMALL)
        self.assertEqual(self.large.updates, [SMALL])

    def test_in_progress(self) -> None:
        """Once our Attach was answered, one from there is Error_In_Progress. [6940-6.5.1.2-3] [6940-6.5.1.2-1]"""
        self.large.protocol.reachable = False
        self.small.attachments.attach(self.node(LARGE)).addErrback(lambda failure: None)
        run(self.clock)
        answered = self.small.attachments.answer_attach(self.request(LARGE, candidates=[candidate(1)]))
        self.failureResultOf(answered, InProgress)

    # -- Bad requests ---------------------------------------------------------------------------------

    def request(self, node_id: NodeId, candidates: Sequence[IceCandidate] = (), role: bytes = b"passive") -> Request:
        body = AttachReqAns(role=role, candidates=tuple(candidates))
        return Request(body, SignedBy(identity_of(node_id), node_id), MIDDLE, 1)

    def test_nonsense(self) -> None:
        """Wrong role, no candidate of ours, ICE and No-ICE mixed, too many. [6940-6.5.1.1-1] [6940-6.5.1.1-4]"""
        good = candidate(1)
        for request in (
            self.request(LARGE, [good], role=b"active"),
            self.request(LARGE),
            self.request(LARGE, [candidate(1, OverlayLinkType.DTLS_UDP_SR)]),
            self.request(LARGE, [good, candidate(1, OverlayLinkType.DTLS_UDP_SR)]),
            self.request(LARGE, [good] * 33),
            self.request(SMALL, [good]),
        ):
            self.failureResultOf(self.small.attachments.answer_attach(request), InvalidMessage)
        run(self.clock)
        self.assertEqual(self.small.connects, 0)

    def test_quota(self) -> None:
        """A stranger cannot have us open links as often as it likes."""
        quota = AttachQuota(self.clock, per_minute=2, remembered=2)
        quota.charge(LARGE)
        quota.charge(LARGE)
        self.assertRaises(Forbidden, quota.charge, LARGE)
        quota.charge(SMALL)
        self.clock.advance(60)
        quota.charge(LARGE)


class AppAttachTests(Neighborhood):
    """AppAttach between the same nodes."""

    def test_connection(self) -> None:
        """Both ends get the connection. [6940-6.5.2.2-1]"""
        served: list[object] = []
        self.large.app_attachments.applications[5060] = served.append
        attached = self.small.app_attachments.app_attach(LARGE, 5060)
        run(self.clock)
        self.successResultOf(attached)
        self.assertEqual(served, [f"connection to {SMALL!r}"])

    def test_unknown_application(self) -> None:
        """Error_Not_Found, and the offer is withdrawn. [6940-6.5.2.2-3]"""
        attached = self.small.app_attachments.app_attach(LARGE, 5060)
        run(self.clock)
        self.failureResultOf(attached, NotFound)
        self.assertTrue(self.small.protocol.offered[LARGE, 5060].called)

    def test_to_ourselves(self) -> None:
        self.failureResultOf(self.small.app_attachments.app_attach(SMALL, 5060), LinkError)

    def test_nobody_connects(self) -> None:
        """Bounded in time."""
        self.large.app_attachments.applications[5060] = lambda connection: None
        self.large.protocol.connect_application = lambda *arguments: Deferred()  # type: ignore[method-assign]
        attached = self.small.app_attachments.app_attach(LARGE, 5060)
        run(self.clock, 13)
        self.failureResultOf(attached, LinkError)
