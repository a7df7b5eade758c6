"""SIP over TLS: what servers show, whom clients believe (RFC 3261 §26.3, RFC 5922)."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from p2psip.security.certificates import Authority, generate_key, make_authority
from p2psip.sip.connections import Connections
from p2psip.sip.edge import SIPEdge
from p2psip.sip.errors import ServerUntrusted, SIPListenError, TransportFailure
from p2psip.sip.interfaces import Target
from p2psip.sip.message import Request, Response, parse
from p2psip.sip.tls import ClientTLS, ServerTLS, TLSError, shows
from p2psip.sip.transport import SecureSIPStream
from tests.sip.fakes import FakeUser, make_request

reactor: Any = installed_reactor
DAY = 86400.0


class World:
    """An authority that clients believe, and what it issues."""

    def __init__(self) -> None:
        self.key = generate_key()
        self.now = reactor.seconds()
        self.authority = make_authority("example.org SIP", generate_key(), self.now - 9 * DAY, 20 * DAY)

    @property
    def root(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.authority.certificate)

    def certificate(self, *hosts: str, domain: str = "", age: float = 0, issuer: Authority | None = None) -> Any:
        der = (issuer or self.authority).issue_server(
            self.key.public_key(), hosts=hosts, now=self.now - age, lifetime=DAY, sip_domain=domain
        )
        return x509.load_der_x509_certificate(der)

    def server(self, *hosts: str, **how: Any) -> ServerTLS:
        return ServerTLS([self.certificate(*hosts, **how), self.root], self.key)


class NameTests(SynchronousTestCase):
    """Whose a certificate is (RFC 5922 §7.1, §7.2)."""

    def setUp(self) -> None:
        self.world = World()

    def named(self, *names: x509.GeneralName) -> x509.Certificate:
        builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(x509.Name([]))
        builder = builder.public_key(self.world.key.public_key()).serial_number(1)
        builder = builder.not_valid_before(self.world.root.not_valid_before_utc)
        builder = builder.not_valid_after(self.world.root.not_valid_after_utc)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        return builder.sign(self.world.key, self.world.root.signature_hash_algorithm)  # type: ignore[arg-type]

    def test_uris(self) -> None:
        uri = x509.UniformResourceIdentifier
        for text, right in (
            ("sip:example.org", True),
            ("SIP:EXAMPLE.ORG", True),
            ("sips:example.org", False),
            ("sip:alice@example.org", False),
            ("https://example.org", False),
            ("reload://0110@example.org/", False),
            ("sip:www.example.org", False),
            ("sip:*.org", False),
            ("sip:[", False),
        ):
            self.assertIs(shows(self.named(uri(text)), "Example.org"), right, text)

    def test_dns(self) -> None:
        """Whole names only; and none where there is a sip: URI."""
        for text, right in (("example.org", True), ("EXAMPLE.org", True), ("*.org", False), ("org", False)):
            self.assertIs(shows(self.named(x509.DNSName(text)), "example.org"), right, text)
        self.assertFalse(shows(self.named(x509.DNSName("*.example.org")), "sip.example.org"))
        both = self.named(x509.DNSName("example.org"), x509.UniformResourceIdentifier("sip:example.net"))
        self.assertEqual([shows(both, name) for name in ("example.org", "example.net")], [False, True])
        user = self.named(x509.DNSName("example.org"), x509.UniformResourceIdentifier("sip:a@example.net"))
        self.assertTrue(shows(user, "example.org"))

    def test_addresses(self) -> None:
        certificate = self.world.certificate("192.0.2.1", "2001:db8::1", "example.org")
        for name in ("192.0.2.1", "2001:DB8:0::1", "[2001:db8::1]"):
            self.assertTrue(shows(certificate, name), name)
        for name in ("192.0.2.2", "2001:db8::2"):
            self.assertFalse(shows(certificate, name), name)

    def test_no_names(self) -> None:
        self.assertFalse(shows(self.named(), "example.org"))

    def test_node_certificate(self) -> None:
        """A node's or user's certificate is none of a SIP server."""
        der = self.world.authority.issue(
            self.world.key.public_key(), overlay="example.org", user_name="alice@example.org",
            node_ids=[], role="user", now=self.world.now, lifetime=DAY,
        )  # fmt: skip
        self.assertFalse(shows(x509.load_der_x509_certificate(der), "example.org"))

    def test_wrong_key(self) -> None:
        server = self.world.server("example.org")
        for chain, key in (([self.world.certificate("example.org")], generate_key()), ([], self.world.key)):
            self.assertRaises(TLSError, server.use, chain, key)
            self.assertRaises(TLSError, ServerTLS, chain, key)

    def test_interfaces(self) -> None:
        verifyObject(IOpenSSLServerConnectionCreator, self.world.server("example.org"))
        verifyObject(IOpenSSLClientConnectionCreator, ClientTLS().server_of("example.org"))


@implementer(IOpenSSLClientConnectionCreator)
class Anybody:
    """Connects to whoever is there; keeps the last certificate that was shown."""

    shown: x509.Certificate | None = None

    def clientConnectionForTLS(self, _protocol: Any) -> SSL.Connection:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_verify(SSL.VERIFY_PEER, self._look)
        return SSL.Connection(context, None)

    def _look(self, _connection: Any, certificate: Any, _error: int, depth: int, _ok: int) -> bool:
        if depth == 0:
            self.shown = certificate.to_cryptography()
        return True


class Phone(Protocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.received = b""
        self.something: Deferred[bytes] = Deferred()
        self.closed: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if not self.something.called:
            self.something.callback(data)

    def connectionLost(self, reason: object = None) -> None:
        self.closed.callback(None)


class TLSTestCase(TestCase):
    timeout = 10

    def setUp(self) -> None:
        self.world = World()
        self.user = FakeUser()
        self.server = self.world.server("example.org", "127.0.0.1", "::1", domain="example.org")
        self.edge, self.target = self.listening(self.server, self.user)

    def make_edge(self, user: FakeUser | None = None, **settings: Any) -> SIPEdge:
        edge = SIPEdge(reactor, user or FakeUser(), Random(1), **settings)
        self.addCleanup(edge.stop)
        return edge

    def listening(self, server: ServerTLS, user: FakeUser | None = None, address: str = "127.0.0.1") -> Any:
        edge = self.make_edge(user)
        edge.listen([address], 0, ("TLS",), server)
        return edge, edge.listening[0]._replace(name="example.org")

    def client(self) -> SIPEdge:
        """An edge that believes this world's authority."""
        edge = self.make_edge(tls=ClientTLS([self.world.root]))
        edge.listen(["127.0.0.1"], 0, ("TLS",), self.server)
        return edge

    def request(self) -> Request:
        return Request("OPTIONS", "sips:bob@example.org", [("From", "<sip:a@h>"), ("To", "<sips:bob@example.org>")])

    async def phone(self, creator: Any) -> Phone:
        endpoint = TCP4ClientEndpoint(reactor, self.target.host, self.target.port)
        phone: Phone = await connectProtocol(wrapClientTLS(creator, endpoint), Phone())
        self.addCleanup(lambda: phone.closed.called or phone.transport.abortConnection())  # type: ignore[union-attr]
        return phone


class ServerTests(TLSTestCase):
    """Phones that connect."""

    async def test_request(self) -> None:
        phone = await self.phone(ClientTLS([self.world.root]).server_of("example.org"))
        request = make_request("OPTIONS", Via="SIP/2.0/TLS a;branch=z9hG4bK1;rport")
        phone.transport.write(request.encode())  # type: ignore[union-attr]
        response = parse(await phone.something)
        assert isinstance(response, Response)
        self.assertEqual((response.status, response.via.received), (200, "127.0.0.1"))
        source = self.user.incoming[0].source
        self.assertEqual((source.transport, source.port), ("TLS", response.via.rport))
        connection = self.edge.connections.find(source)
        assert connection is not None
        self.assertEqual(self.edge.via(connection)[:12], "SIP/2.0/TLS ")
        self.assertEqual(self.edge.sent_by(connection), f"127.0.0.1:{self.target.port}")
        self.assertEqual(self.edge.counters["received over TLS"], 1)

    async def test_another_certificate(self) -> None:
        """It can be replaced while the server runs; what is wrong replaces nothing."""
        anybody = Anybody()
        await self.phone_served(anybody)
        first = anybody.shown
        self.assertRaises(TLSError, self.server.use, [self.world.certificate("example.net")], generate_key())
        await self.phone_served(anybody)
        self.assertEqual(anybody.shown, first)
        second = self.world.certificate("example.net")
        self.server.use([second], self.world.key)
        await self.phone_served(anybody)
        self.assertEqual(anybody.shown, second)

    async def phone_served(self, creator: Any) -> None:
        phone = await self.phone(creator)
        phone.transport.write(b"\r\n\r\n")  # type: ignore[union-attr]
        self.assertEqual(await phone.something, b"\r\n")

    async def test_no_tls(self) -> None:
        """Who speaks plain SIP to the port gets nothing, and is counted."""
        phone: Phone = await connectProtocol(
            TCP4ClientEndpoint(reactor, self.target.host, self.target.port), Phone()
        )
        phone.transport.write(make_request("OPTIONS").encode())  # type: ignore[union-attr]
        await phone.closed
        self.assertNotIn(b"SIP/2.0", phone.received)
        while len(self.edge.connections):
            turn: Deferred[None] = Deferred()
            reactor.callLater(0, turn.callback, None)
            await turn
        self.assertEqual(self.edge.counters["TLS handshake failed"], 1)

    def test_listening(self) -> None:
        edge = self.make_edge()
        self.assertRaises(ValueError, edge.listen, ["127.0.0.1"], 0, ("TLS",))
        error = self.assertRaises(
            SIPListenError, edge.listen, ["127.0.0.1"], self.target.port, ("TLS",), self.server
        )
        self.assertIn(f"TLS 127.0.0.1 port {self.target.port}", str(error))
        self.assertEqual(edge.listening, [])


class ClientTests(TLSTestCase):
    """Other servers that are connected to."""

    async def refused(self, edge: SIPEdge, target: Target) -> ServerUntrusted:
        try:
            await edge.request(self.request(), target)
        except ServerUntrusted as error:
            return error
        raise AssertionError("it was believed")

    async def test_request(self) -> None:
        """Over one connection, that is used again for the same target (RFC 3261 §18.1.1)."""
        client = self.client()
        for _ in range(2):
            response = await client.request(self.request(), self.target)
            self.assertEqual(response.status, 200)
        via = self.user.incoming[0].request.via
        self.assertEqual((via.transport, via.port), ("TLS", client.listening[0].port))
        self.assertEqual((len(self.edge.connections), len(client.connections)), (1, 1))

    async def test_together(self) -> None:
        client = self.client()
        waiting = [client.request(self.request(), self.target) for _ in range(5)]
        for each in waiting:
            self.assertEqual((await each).status, 200)
        self.assertEqual(len(self.edge.connections), 1)

    async def test_address(self) -> None:
        """A literal address has to stand in the certificate as such."""
        client = self.client()
        self.assertEqual((await client.request(self.request(), self.target._replace(name="127.0.0.1"))).status, 200)
        await self.refused(client, self.target._replace(name="127.0.0.2"))

    async def test_ipv6(self) -> None:
        _, target = self.listening(self.server, address="::1")
        self.assertEqual((await self.client().request(self.request(), target)).status, 200)

    async def test_wrong_name(self) -> None:
        """A connection that is good for one domain is not for another."""
        client = self.client()
        await client.request(self.request(), self.target)
        error = await self.refused(client, self.target._replace(name="example.net"))
        self.assertEqual((error.status, error.reason), (503, "Server Certificate Not Trusted"))
        self.assertIn("example.net", error.complaint)
        self.assertEqual((client.counters["server not trusted"], client.counters["TLS handshake failed"]), (1, 1))
        self.assertEqual(len(self.user.incoming), 1)

    async def test_untrusted(self) -> None:
        """Strangers' authorities, none at all, and what is out of date."""
        stranger = make_authority("example.org", generate_key(), self.world.now, DAY)
        self_signed = Authority(self.world.authority.certificate, self.world.key)
        for how, complaint in (
            ({"issuer": stranger}, "an authority that is not trusted"),
            ({"issuer": self_signed}, "is not trusted"),
            ({"age": 5 * DAY}, "has expired"),
        ):
            server = ServerTLS([self.world.certificate("example.org", **how)], self.world.key)
            _, target = self.listening(server)
            self.assertIn(complaint, (await self.refused(self.client(), target)).complaint)

    async def test_nobody_there(self) -> None:
        client = self.client()
        await self.edge.stop()
        with self.assertRaises(TransportFailure):
            await client.request(self.request(), self.target)
        self.assertEqual(client.counters["server not trusted"], 0)

    async def test_no_tls(self) -> None:
        """An edge that was given none, a target without a name, and a server that speaks none."""
        self.edge.listen(["127.0.0.1"], 0, ("TCP",))
        plain = self.edge.listening[-1]._replace(transport="TLS", name="example.org")
        for edge, target in (
            (self.make_edge(), self.target),
            (self.client(), self.target._replace(name="")),
            (self.client(), plain),
        ):
            with self.assertRaises(TransportFailure):
                await edge.request(self.request(), target)

    async def test_silent_server(self) -> None:
        """A handshake that does not end is given up."""
        silent = Factory.forProtocol(Protocol)
        silent.noisy = False
        port = reactor.listenTCP(0, silent, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        clock = Clock()
        edge = self.client()
        edge.connections._reactor = Reactor(clock)
        connecting = edge.connections.connect(Target("TLS", "127.0.0.1", port.getHost().port, "example.org"))
        while not len(edge.connections):
            turn: Deferred[None] = Deferred()
            reactor.callLater(0, turn.callback, None)
            await turn
        clock.advance(60)
        with self.assertRaises(Exception):  # noqa: B017  (as Twisted's connect fails)
            await connecting


class Reactor:
    """The real one, but for the time."""

    def __init__(self, clock: Clock) -> None:
        self.seconds = clock.seconds
        self.callLater = clock.callLater
        self.connectTCP = reactor.connectTCP


class Owner:
    """Nobody who would hear of connections."""

    def connection_received(self, connection: Any, item: Any) -> None:
        raise AssertionError("nothing is received")

    def connection_closed(self, connection: Any) -> None:
        """It is closed."""


class PatienceTests(SynchronousTestCase):
    def test_slow_handshake(self) -> None:
        """A handshake may take as long as a message; then the connection is closed."""
        clock, counters = Clock(), Counter[str]()
        connections = Connections(clock, Owner(), counters, 10, 7260.0, 32.0)
        stream = SecureSIPStream(connections)
        transport = StringTransport()
        stream.makeConnection(transport)
        clock.pump([10] * 3)
        self.assertFalse(transport.disconnecting)
        clock.pump([10])
        self.assertTrue(transport.disconnecting)
        done = SecureSIPStream(connections)
        done.makeConnection(StringTransport())
        done.handshakeCompleted()
        clock.pump([10] * 6)
        self.assertTrue(done.open)
        connections.close()

