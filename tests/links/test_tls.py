"""TLS links between nodes on loopback, with certificates from an authority."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import ClientCreator, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.plugin import getPlugins
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from p2psip import plugins
from p2psip.config.document import Configuration
from p2psip.errors import LinkError
from p2psip.framing import data_frame
from p2psip.ids import NodeId
from p2psip.interfaces import (
    IApplicationConnection,
    ILink,
    ILinkProtocol,
    ILinkProtocolFactory,
)
from p2psip.links.addresses import host_candidates
from p2psip.links.link import AT_ONCE, MOST_QUEUED
from p2psip.links.service import MOST_HANDSHAKES, MOST_HANDSHAKES_OF_ONE
from p2psip.links.tls import TLSLinkFactory, TLSLinks
from p2psip.security.certificates import Authority, generate_key, make_authority
from p2psip.security.identity import Identity
from p2psip.security.trust import Trust
from p2psip.wire.header import ForwardingHeader, NodeDestination, with_header

from ..security.credentials import self_certified
from .hosts import Host, RecordingOwner, Signer

OVERLAY = "example.org"
A, B, C = (NodeId(letter * 16) for letter in (b"A", b"B", b"C"))
clock: Any = reactor


def authority(now: float) -> Authority:
    return make_authority(OVERLAY, generate_key(), now, 1e6)


class LinksTestCase(TestCase):
    timeout = 20
    kind: Any = TLSLinks
    factory: Any = TLSLinkFactory

    def setUp(self) -> None:
        self.now = time.time()
        self.authority = authority(self.now)
        self.started: list[TLSLinks] = []
        self.configuration = Configuration(instance_name=OVERLAY, no_ice=True, max_message_size=20000)

    def tearDown(self) -> Deferred[list[None]]:
        return gatherResults([links.stop() for links in self.started])

    def host(
        self,
        *node_ids: NodeId,
        issuer: Authority | None = None,
        lifetime: float = 1e5,
        issued: float | None = None,
    ) -> Host:
        key = generate_key()
        issuer = issuer or self.authority
        certificate = issuer.issue(
            key.public_key(),
            overlay=OVERLAY,
            user_name="node@nodes.example.org",
            node_ids=node_ids,
            role="peer",
            now=self.now if issued is None else issued,
            lifetime=lifetime,
        )
        signer = Signer(Identity.from_certificate(certificate, OVERLAY), node_ids[0])
        trust = Trust(OVERLAY, [self.authority.certificate], (), 16, lambda: self.now)
        return Host(signer, clock, key, trust, configuration=self.configuration)

    async def node(
        self, *node_ids: NodeId, address: str = "127.0.0.1", port: int = 0, **fields: Any
    ) -> TLSLinks:
        links = self.kind(self.host(*node_ids, **fields), reactor, [address] if address else [], port)
        self.started.append(links)
        await links.listen()
        return links

    def owner(self, links: TLSLinks) -> RecordingOwner:
        return cast(RecordingOwner, links.host.owner)

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the reactor run until `condition` holds; the test's timeout ends what never comes."""
        while not condition():
            await deferLater(clock, 0.001)

    async def pair(self, address: str = "127.0.0.1") -> tuple[TLSLinks, TLSLinks, ILink, ILink]:
        a, b = await self.node(A, address=address), await self.node(B, address=address)
        link = await a.connect(b.candidates(), B)
        await self.until(lambda: self.owner(b).links)
        return a, b, link, self.owner(b).links[0]

    async def refused(self, connecting: Awaitable[Any]) -> str:
        try:
            await connecting
        except LinkError as error:
            return str(error)
        raise AssertionError("was not refused")


class OpeningTests(LinksTestCase):
    async def test_interfaces(self) -> None:
        a, _, link, _ = await self.pair()
        self.assertTrue(verifyObject(ILink, link))
        self.assertTrue(verifyObject(ILinkProtocol, a))
        self.assertTrue(verifyObject(ILinkProtocolFactory, self.factory()))

    async def test_both_ends(self) -> None:
        """Each end knows the other by its certificate. [6940-6.6.1-2] [6940-6.6.5-4]"""
        for address in ("127.0.0.1", "::1"):
            a, b, link, theirs = await self.pair(address)
            self.assertEqual((link.node_id, link.outgoing, link.protocol), (B, True, self.kind.name))
            self.assertEqual((theirs.node_id, theirs.outgoing), (A, False))
            self.assertEqual(link.identity, b.host.signer.identity)
            self.assertEqual(theirs.identity, a.host.signer.identity)
            self.assertEqual(link.address, b.addresses[0])
            self.assertEqual(self.owner(a).events, [("opened", B)])

    async def test_connections_come_from_the_bound_address(self) -> None:
        a, b = await self.node(A, address="127.0.0.2"), await self.node(B, address="127.0.0.3")
        await a.connect(b.candidates(), B)
        await self.until(lambda: self.owner(b).links)
        self.assertTrue(self.owner(b).links[0].address.startswith("127.0.0.2:"))

    async def test_bootstrap(self) -> None:
        a, b = await self.node(A), await self.node(B)
        [candidate] = b.candidates()
        link = await a.connect_to_bootstrap("127.0.0.1", cast(Any, candidate.addr_port).port)
        self.assertEqual(link.node_id, B)

    async def test_other_candidates_are_tried(self) -> None:
        """One where nobody listens, one of another kind, then the right one."""
        a, b = await self.node(A), await self.node(B)
        [right] = b.candidates()
        port = cast(Any, right.addr_port).port
        here = host_candidates([("127.0.0.9", port), ("127.0.0.1", port)], self.kind.link_type)
        candidates = [*host_candidates([("127.0.0.9", port)], 1), *here]
        self.assertEqual((await a.connect(candidates, B)).node_id, B)

    async def test_port_in_use(self) -> None:
        b = await self.node(B)
        port = int(b.addresses[0].rpartition(":")[2])
        why = await self.refused(self.node(A, port=port))
        self.assertIn(f"127.0.0.1 port {port}", why)
        self.assertIn("--reload-port", why)

    async def test_advertised(self) -> None:
        links = self.factory().build(self.host(A), reactor, ["127.0.0.1"], 0, ["192.0.2.7", "2001:db8::7"])
        self.started.append(cast(TLSLinks, links))
        await links.listen()
        self.assertEqual([each.addr_port.host for each in links.candidates()], ["192.0.2.7", "2001:db8::7"])
        self.assertEqual({each.overlay_link for each in links.candidates()}, {self.kind.link_type})

    async def test_stop(self) -> None:
        a, b, _, _ = await self.pair()
        candidates = b.candidates()
        await b.stop()
        await self.until(lambda: ("closed", B) in self.owner(a).events)
        self.assertEqual(self.owner(b).events, [("opened", A), ("closed", A)])
        await self.refused(a.connect(candidates, B))


class RefusalTests(LinksTestCase):
    """What does not become a link, and is counted."""

    async def test_other_node_than_expected(self) -> None:
        """[6940-6.5.1.11-1] [6940-6.5.1.13-4]"""
        a, b = await self.node(A), await self.node(B)
        self.assertIn("is not the node", await self.refused(a.connect(b.candidates(), C)))
        self.assertEqual(self.owner(a).rejected, ["other Node-ID"])
        self.assertEqual(self.owner(a).events, [])

    async def test_other_authority(self) -> None:
        """Neither as client nor as server, and the node goes on serving."""
        a, b = await self.node(A), await self.node(B)
        stranger = await self.node(C, issuer=authority(self.now))
        await stranger.connect(b.candidates(), B)
        await self.until(lambda: self.owner(b).rejected)
        self.assertEqual(self.owner(b).rejected, ["untrusted"])
        await self.refused(a.connect(stranger.candidates(), C))
        self.assertEqual(self.owner(a).rejected, ["untrusted"])
        await a.connect(b.candidates(), B)
        await self.until(lambda: self.owner(b).links)

    async def test_forged_node_id(self) -> None:
        """A self-signed certificate whose Node-ID is not made of its key: neither as client nor as server.

        [6940-11.3.1-4]
        """
        for digest in ("sha256", "sha1"):
            a, b = await self.self_signed(digest), await self.self_signed(digest)
            forger = await self.self_signed(digest, C)
            await forger.connect(b.candidates(), b.host.signer.node_id)
            await self.until(lambda b=b: self.owner(b).rejected)
            self.assertEqual(self.owner(b).rejected, ["node-id"])
            await self.refused(a.connect(forger.candidates(), C))
            self.assertEqual(self.owner(a).rejected, ["node-id"])
            await a.connect(b.candidates(), b.host.signer.node_id)
            await self.until(lambda b=b: self.owner(b).links)
            self.assertEqual(self.owner(b).links[0].node_id, a.host.signer.node_id)

    async def self_signed(self, digest: str, forged: NodeId | None = None) -> TLSLinks:
        """A node that certifies itself, for `forged` where that is given."""
        key = generate_key()
        certificate = self_certified(key, digest, forged, overlay=OVERLAY, now=self.now)
        identity = Identity.from_certificate(certificate, OVERLAY)
        trust = Trust(OVERLAY, [], (), 16, lambda: self.now, self_signed=digest)
        signer = Signer(identity, identity.node_ids[0])
        host = Host(signer, clock, key, trust, configuration=self.configuration)
        links: TLSLinks = self.kind(host, reactor, ["127.0.0.1"], 0)
        self.started.append(links)
        await links.listen()
        return links

    async def test_expired(self) -> None:
        old = authority(self.now - 1e5)
        self.authority = old
        a, b = await self.node(A, issued=self.now - 5000, lifetime=100), await self.node(B)
        await self.refused(b.connect(a.candidates(), A))
        self.assertEqual(self.owner(b).rejected, ["expired"])
        await a.connect(b.candidates(), B)
        await self.until(lambda: len(self.owner(b).rejected) == 2)
        self.assertEqual(self.owner(b).links, [])
        await self.until(lambda: ("closed", B) in self.owner(a).events)

    async def test_several_node_ids(self) -> None:
        """Expected by one of them it is welcome; unexpected it cannot be told which it is."""
        a, several = await self.node(A), await self.node(B, C)
        self.assertEqual((await a.connect(several.candidates(), C)).node_id, C)
        await several.connect(a.candidates(), A)
        await self.until(lambda: self.owner(a).rejected)
        self.assertEqual(self.owner(a).rejected, ["several Node-IDs"])

    async def test_own_node_id(self) -> None:
        a, twin = await self.node(A), await self.node(A)
        await self.refused(a.connect(twin.candidates(), A))
        self.assertEqual(self.owner(a).rejected, ["our own Node-ID"])

    async def test_dangerous_candidates(self) -> None:
        a, b = await self.node(A), await self.node(B)
        own = int(a.addresses[0].rpartition(":")[2])
        for host, port in (
            ("224.0.0.1", 6084),
            ("ff02::1", 6084),
            ("0.0.0.0", 6084),
            ("::", 6084),
            ("255.255.255.255", 6084),
            ("fe80::1", 6084),
            ("127.0.0.1", 0),
            ("127.0.0.1", own),
            ("::ffff:127.0.0.1", own),
        ):
            why = await self.refused(a.connect(host_candidates([(host, port)], self.kind.link_type), B))
            self.assertIn("no usable candidate", why)
        self.assertIn("no candidates", await self.refused(a.connect([], B)))
        self.assertEqual(self.owner(b).rejected, [])

    async def test_loopback_from_outside(self) -> None:
        """Only who is bound to loopback follows a candidate there."""
        outside = self.kind(self.host(A), reactor, [], 0, ["192.0.2.1"])
        b = await self.node(B)
        why = await self.refused(outside.connect(b.candidates(), B))
        self.assertIn("loopback", why)

    async def test_cancelled(self) -> None:
        a, b = await self.node(A), await self.node(B)
        connecting = a.connect(b.candidates(), B)
        connecting.cancel()
        with self.assertRaises(CancelledError):
            await connecting
        await self.until(lambda: not cast(Any, a)._connections)
        self.assertEqual(self.owner(a).rejected, [])


class MessageTests(LinksTestCase):
    secret = b"CLIENT_HANDSHAKE_TRAFFIC_SECRET"

    async def test_both_directions(self) -> None:
        a, b, link, theirs = await self.pair()
        for number in range(100):
            self.assertTrue(link.send(b"there %d" % number))
            self.assertTrue(theirs.send(b"back %d" % number))
        await self.until(lambda: len(self.owner(a).messages) == 100 == len(self.owner(b).messages))
        self.assertEqual(self.owner(b).messages, [b"there %d" % number for number in range(100)])
        self.assertEqual(self.owner(a).messages, [b"back %d" % number for number in range(100)])
        await self.until(lambda: link.rtt is not None)
        self.assertLess(link.rtt or 9, 5)

    async def test_largest(self) -> None:
        _, b, link, _ = await self.pair()
        self.assertFalse(link.send(bytes(20001)))
        self.assertTrue(link.send(bytes(20000)))
        await self.until(lambda: self.owner(b).messages)
        self.assertEqual(self.owner(b).messages, [bytes(20000)])

    async def test_close(self) -> None:
        """What was sent arrives, each owner hears of the end once, and nothing can be sent any more."""
        a, b, link, _ = await self.pair()
        link.send(b"last")
        link.close(LinkError("enough"))
        link.close()
        self.assertFalse(link.send(b"late"))
        await self.until(lambda: self.owner(a).reasons and self.owner(b).reasons)
        self.assertEqual(self.owner(b).messages, [b"last"])
        self.assertEqual(self.owner(a).events, [("opened", B), ("closed", B)])
        self.assertEqual(self.owner(b).events, [("opened", A), ("closed", A)])
        self.assertEqual([str(each) for each in self.owner(a).reasons], ["enough"])
        self.assertEqual(self.owner(b).reasons, [None])

    async def test_oversize(self) -> None:
        """The owner gets what the error needs; it still goes out before the link closes. [6940-6.6-1]"""
        a, b, link, _ = await self.pair()
        destinations = (NodeDestination(node_id=B),)
        header = ForwardingHeader(
            overlay=self.configuration.overlay_hash,
            configuration_sequence=0,
            transaction_id=1,
            destination_list=destinations,
        )
        message = with_header(header, b"\x00\x17" + bytes(50000))
        owner = self.answer_all(b, b"too large")
        cast(Any, link).transport.write(data_frame(0, message))
        await self.until(lambda: self.owner(a).reasons and owner.reasons)
        [beginning] = owner.messages
        self.assertTrue(message.startswith(beginning))
        self.assertEqual(self.owner(a).messages, [b"too large"])
        self.assertIn("max-message-size", str(owner.reasons[0]))
        self.assertEqual(owner.rejected, ["framing"])

    def answer_all(self, links: TLSLinks, answer: bytes) -> RecordingOwner:
        class Answering(RecordingOwner):
            def message_received(self, link: ILink, message: bytes) -> None:
                super().message_received(link, message)
                link.send(answer)

        owner = Answering()
        cast(Host, links.host).owner = owner
        return owner

    async def test_undelivered(self) -> None:
        """What the other end was sent and did not acknowledge before the connection broke is given back."""
        a, b, link, theirs = await self.pair()
        link.send(b"arrives")
        await self.until(lambda: self.owner(b).messages and link.rtt is not None)
        cast(Any, theirs).transport.abortConnection()
        self.assertTrue(link.send(b"in vain"))
        await self.until(lambda: self.owner(a).reasons and self.owner(a).undelivered)
        self.assertEqual([messages for _, messages in self.owner(a).undelivered], [[b"in vain"]])

    async def test_renewed_certificate(self) -> None:
        a, b, _, _ = await self.pair()
        renewed = self.host(B)
        host = cast(Host, b.host)
        host.signer, host.private_key = renewed.signer, renewed.private_key
        link = await a.connect(b.candidates(), B)
        self.assertEqual(link.identity, renewed.signer.identity)

    async def test_key_log(self) -> None:
        lines: list[bytes] = []
        a = self.kind(self.host(A), reactor, ["127.0.0.1"], 0, key_log=lines.append)
        self.started.append(a)
        await a.listen()
        await a.connect((await self.node(B)).candidates(), B)
        self.assertTrue(any(self.secret in line for line in lines))


class TCPTests(LinksTestCase):
    """What is so because the links are TCP connections."""

    def test_plugin(self) -> None:
        factories = getPlugins(ILinkProtocolFactory, plugins)
        found = [(each.link_type, each.ice) for each in factories if each.name == "TLS-TCP-FH-NO-ICE"]
        self.assertEqual(found, [(4, False)])

    async def test_all_addresses(self) -> None:
        """Without an address to bind to both families are served."""
        a, b = await self.node(A), await self.node(B, address="")
        port = int(b.addresses[0].rpartition(":")[2])
        for address in ("127.0.0.1", "::1") if b.addresses[0].startswith("[") else ("127.0.0.1",):
            self.assertEqual((await a.connect_to_bootstrap(address, port)).node_id, B)
        self.assertTrue(b.candidates())

    async def test_no_certificate(self) -> None:
        """[6940-6.5.1.13-3]"""
        b = await self.node(B)
        context = SSL.Context(SSL.TLS_METHOD)
        await self.speak(b, context)
        await self.until(lambda: self.owner(b).rejected)
        self.assertEqual(self.owner(b).rejected, ["handshake"])

    async def speak(self, links: TLSLinks, context: SSL.Context) -> None:
        from twisted.internet.ssl import ClientContextFactory

        class Contexts(ClientContextFactory):
            def getContext(self) -> SSL.Context:
                return context

        port = int(links.addresses[0].rpartition(":")[2])
        lost: Deferred[None] = Deferred()

        class Stranger(Protocol):
            def connectionLost(self, reason: Failure = connectionDone) -> None:
                lost.callback(None)

        await ClientCreator(reactor, Stranger).connectSSL("127.0.0.1", port, Contexts())
        await lost

    async def test_garbage(self) -> None:
        """[6940-13.2-1]"""
        a, b = await self.node(A), await self.node(B)
        lost: Deferred[None] = Deferred()

        class Stranger(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(b"GET / HTTP/1.0\r\n\r\n" * 10)

            def connectionLost(self, reason: Failure = connectionDone) -> None:
                lost.callback(None)

        port = int(b.addresses[0].rpartition(":")[2])
        await ClientCreator(reactor, Stranger).connectTCP("127.0.0.1", port)
        await lost
        await self.until(lambda: self.owner(b).rejected)
        self.assertEqual(self.owner(b).rejected, ["handshake"])
        await a.connect(b.candidates(), B)

    async def test_too_many_handshakes(self) -> None:
        b = await self.node(B)
        port = int(b.addresses[0].rpartition(":")[2])
        silent = [
            await ClientCreator(reactor, Protocol).connectTCP("127.0.0.1", port)
            for _ in range(MOST_HANDSHAKES_OF_ONE + 3)
        ]
        await self.until(lambda: len(self.owner(b).rejected) == 3)
        self.assertEqual(set(self.owner(b).rejected), {"too many connections"})
        for each in silent:
            each.transport.loseConnection()
        await self.until(lambda: len(self.owner(b).rejected) == 3 + MOST_HANDSHAKES_OF_ONE)
        await (await self.node(A)).connect(b.candidates(), B)

    async def test_silent_strangers_give_way(self) -> None:
        """Connections from many addresses on which nothing is said keep nobody out."""
        b = await self.node(B)
        port = int(b.addresses[0].rpartition(":")[2])
        sources = [f"127.0.1.{number}" for number in range(1, MOST_HANDSHAKES // MOST_HANDSHAKES_OF_ONE + 1)]
        for source in sources * MOST_HANDSHAKES_OF_ONE:
            stranger = ClientCreator(reactor, Protocol).connectTCP("127.0.0.1", port, bindAddress=(source, 0))
            self.addCleanup((await stranger).transport.abortConnection)
        await (await self.node(A)).connect(b.candidates(), B)
        self.assertEqual(self.owner(b).rejected, ["gave way"])

    async def test_garbage_within(self) -> None:
        _, b, link, _ = await self.pair()
        cast(Any, link).transport.write(b"\x00" * 20)
        await self.until(lambda: self.owner(b).reasons)
        self.assertIn("unknown type 0", str(self.owner(b).reasons[0]))

    async def test_a_burst_is_taken_up_in_turns(self) -> None:
        """Of a burst some messages are handed on in each turn of the reactor, all of them in their order."""
        _, b, link, theirs = await self.pair()
        sizes: list[int] = []
        take_up = cast(Any, theirs)._take_up

        def counting(most: int) -> None:
            before = len(self.owner(b).messages)
            take_up(most)
            sizes.append(len(self.owner(b).messages) - before)

        self.patch(theirs, "_take_up", counting)
        for number in range(50):
            link.send(b"%d" % number)
        await self.until(lambda: len(self.owner(b).messages) == 50)
        self.assertEqual(self.owner(b).messages, [b"%d" % number for number in range(50)])
        self.assertEqual(max(sizes), AT_ONCE)
        link.send(b"read again")
        await self.until(lambda: len(self.owner(b).messages) == 51)

    async def test_a_burst_before_the_end(self) -> None:
        """What was sent before the other end closed is handed on, before its end is."""
        _, b, link, _ = await self.pair()
        for number in range(50):
            link.send(b"%d" % number)
        link.close()
        await self.until(lambda: self.owner(b).reasons)
        self.assertEqual(len(self.owner(b).messages), 50)

    async def test_nothing_once_closed(self) -> None:
        """A link that its owner closes hands on no more of what has arrived."""
        _, b, link, theirs = await self.pair()
        received = self.owner(b).message_received

        def closing(link: ILink, message: bytes) -> None:
            received(link, message)
            theirs.close()

        self.patch(self.owner(b), "message_received", closing)
        for number in range(50):
            link.send(b"%d" % number)
        await self.until(lambda: self.owner(b).reasons)
        self.assertEqual(self.owner(b).messages, [b"0"])

    async def test_closed_while_a_burst_waits(self) -> None:
        """A link that is closed between two turns ends in good order: it reads again, and is not cut off."""
        _, b, link, theirs = await self.pair()
        aborted: list[bool] = []
        self.patch(cast(Any, theirs).tls, "abortConnection", lambda: aborted.append(True))
        received = self.owner(b).message_received

        def closing_soon(link: ILink, message: bytes) -> None:
            received(link, message)
            if message == b"0":
                clock.callLater(0, theirs.close)

        self.patch(self.owner(b), "message_received", closing_soon)
        for number in range(50):
            link.send(b"%d" % number)
        await self.until(lambda: self.owner(b).reasons or aborted)
        self.assertEqual((self.owner(b).reasons, aborted), ([None], []))
        self.assertLess(len(self.owner(b).messages), 50)

    async def test_back_pressure(self) -> None:
        """A peer that does not read: sending is refused before much is kept, and all taken arrives later."""
        a, b, link, theirs = await self.pair()
        cast(Any, theirs).transport.pauseProducing()
        sent = 0
        while link.send(bytes(8000) + sent.to_bytes(4)):
            sent += 1
            if sent % 5 == 0:
                await deferLater(clock, 0)
            self.assertLess(sent, 5000)
        self.assertFalse(link.send(bytes(8000)))
        self.assertLessEqual(cast(Any, link)._queued, MOST_QUEUED)
        cast(Any, theirs).transport.resumeProducing()
        await self.until(lambda: len(self.owner(b).messages) == sent)
        self.assertEqual([int.from_bytes(each[8000:]) for each in self.owner(b).messages], list(range(sent)))
        self.assertTrue(link.send(b"again"))
        self.assertEqual(self.owner(a).events, [("opened", B)])

    async def test_acks_to_a_peer_that_reads_nothing(self) -> None:
        """It sends on and on; what is kept for it stays one ACK."""
        _, b, link, theirs = await self.pair()
        cast(Any, theirs).pauseProducing()
        for _ in range(200):
            link.send(b"x")
        await self.until(lambda: len(self.owner(b).messages) == 200)
        cast(Any, theirs).resumeProducing()
        await self.until(lambda: link.rtt is not None)
        self.assertIsNone(cast(Any, link)._framing.next_timeout())


class Echo(Protocol):
    def __init__(self) -> None:
        self.heard = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


class ApplicationTests(LinksTestCase):
    async def connections(self) -> tuple[IApplicationConnection, IApplicationConnection]:
        a, b = await self.node(A), await self.node(B)
        candidates, offered = b.offer_application(A, 5060)
        mine = await a.connect_application(candidates, B, 5060)
        return mine, await offered

    async def test_stream(self) -> None:
        mine, theirs = await self.connections()
        self.assertTrue(verifyObject(IApplicationConnection, mine))
        self.assertEqual((mine.node_id, mine.application), (B, 5060))
        self.assertEqual((theirs.node_id, theirs.application), (A, 5060))
        one, other = Echo(), Echo()
        mine.start(one)
        cast(Any, one.transport).write(b"OPTIONS")
        await deferLater(clock, 0.02)
        theirs.start(other)
        await self.until(lambda: other.heard == b"OPTIONS")
        cast(Any, other.transport).write(b"200 OK")
        cast(Any, other.transport).loseConnection()
        await self.until(lambda: one.lost and other.lost)
        self.assertEqual(one.heard, b"200 OK")

    async def test_close_without_protocol(self) -> None:
        mine, theirs = await self.connections()
        mine.close()
        other = Echo()
        theirs.start(other)
        await self.until(lambda: other.lost)

    async def test_taken_once(self) -> None:
        a, b = await self.node(A), await self.node(B)
        candidates, offered = b.offer_application(A, 5060)
        await a.connect_application(candidates, B, 5060)
        await offered
        await self.refused(a.connect_application(candidates, B, 5060))

    async def test_stranger_does_not_spoil_it(self) -> None:
        """Another node is refused; the expected one still gets through. [7904-5.1-2, 7904-5.1-3]"""
        a, b, c = await self.node(A), await self.node(B), await self.node(C)
        candidates, offered = b.offer_application(A, 5060)
        await c.connect_application(candidates, B, 5060)
        await self.until(lambda: self.owner(b).rejected)
        self.assertEqual(self.owner(b).rejected, ["other Node-ID"])
        await a.connect_application(candidates, B, 5060)
        self.assertEqual((await offered).node_id, A)

    async def test_given_up(self) -> None:
        a, b = await self.node(A), await self.node(B)
        candidates, offered = b.offer_application(A, 5060)
        offered.addErrback(lambda _: None)
        offered.cancel()
        await self.refused(a.connect_application(candidates, B, 5060))

    async def test_bounded(self) -> None:
        b = await self.node(B)
        offers: list[Deferred[IApplicationConnection]] = []
        try:
            while len(offers) < 100:
                offers.append(b.offer_application(A, 5060)[1])
            self.fail("offers have no bound")
        except LinkError as error:
            self.assertIn("too many", str(error))
        for offer in offers:
            offer.addErrback(lambda _: None)
            offer.cancel()


