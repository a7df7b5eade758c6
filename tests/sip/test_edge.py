"""SIP on real sockets of the loopback: UDP and TCP, IPv4 and IPv6 (RFC 3261 §18, RFC 3581)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import DatagramProtocol, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from p2psip.links import stun
from p2psip.sip.edge import LARGEST_UDP_REQUEST, SIPEdge
from p2psip.sip.errors import MessageTooLarge, SIPListenError, TransactionTimeout, TransportFailure
from p2psip.sip.exchanges import ServerRequest
from p2psip.sip.interfaces import IServerRequest, Source
from p2psip.sip.machines import Timers
from p2psip.sip.message import Request, Response, parse
from p2psip.sip.transaction import TransactionLayer
from p2psip.sip.transport import SIPStream, Target
from tests.sip.fakes import FakeUser, make_request

reactor: Any = installed_reactor


class Datagrams(DatagramProtocol):
    """A UDP phone: keeps what comes."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.waiting: Deferred[bytes] | None = None

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        self.received.append(datagram)
        if self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            waiting.callback(datagram)

    def next(self) -> Deferred[bytes]:
        self.waiting = Deferred()
        return self.waiting


class Bytes(Protocol):
    """A TCP phone: keeps what comes, and tells when it is enough."""

    def __init__(self) -> None:
        self.received = b""
        self.waiting: list[tuple[Callable[[bytes], bool], Deferred[bytes]]] = []
        self.closed: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        for entry in list(self.waiting):
            if entry[0](self.received):
                self.waiting.remove(entry)
                entry[1].callback(self.received)

    def until(self, enough: Callable[[bytes], bool]) -> Deferred[bytes]:
        result: Deferred[bytes] = Deferred()
        self.waiting.append((enough, result))
        self.dataReceived(b"")
        return result

    def connectionLost(self, reason: object = None) -> None:
        self.closed.callback(None)


class EdgeTestCase(TestCase):
    timeout = 10

    def setUp(self) -> None:
        self.user = FakeUser()
        self.edge = self.make_edge(self.user)

    def make_edge(self, user: FakeUser, **settings: Any) -> SIPEdge:
        edge = SIPEdge(reactor, user, Random(1), **settings)
        self.addCleanup(edge.stop)
        return edge

    def listen(self, address: str = "127.0.0.1", edge: SIPEdge | None = None) -> dict[str, Target]:
        edge = edge or self.edge
        edge.listen([address], 0)
        return {target.transport: target for target in edge.listening}

    def phone(self, address: str = "127.0.0.1") -> tuple[Datagrams, int]:
        phone = Datagrams()
        port = reactor.listenUDP(0, phone, interface=address)
        self.addCleanup(port.stopListening)
        return phone, port.getHost().port

    async def connect(self, target: Target, address: str = "127.0.0.1") -> Bytes:
        endpoint = TCP4ClientEndpoint(reactor, target.host, target.port, bindAddress=(address, 0))
        phone = await connectProtocol(endpoint, Bytes())
        self.addCleanup(phone.transport.abortConnection)
        return phone


class UDPTests(EdgeTestCase):
    async def exchange(self, address: str, via: str, listen_on: str = "") -> tuple[Response, int]:
        """Send an OPTIONS with `via`, answer the response and the port it was sent from."""
        target = self.listen(address)["UDP"]
        phone, port = self.phone(address)
        request = make_request("OPTIONS", Via=f"SIP/2.0/UDP {via.format(port=port)};branch=z9hG4bK1")
        waiting = phone.next()
        phone.transport.write(request.encode(), (target.host, target.port))
        response = parse(await waiting)
        assert isinstance(response, Response)
        return response, port

    async def test_rport(self) -> None:
        """The response goes back to the very port, which it tells (RFC 3581 §4)."""
        response, port = await self.exchange("127.0.0.1", "192.0.2.99:4;rport")
        self.assertEqual((response.via.received, response.via.rport), ("127.0.0.1", port))
        verifyObject(IServerRequest, self.user.incoming[0])
        self.assertEqual(self.user.incoming[0].source, Source("127.0.0.1", port, "UDP"))

    async def test_received(self) -> None:
        """Without rport the response goes to the port of sent-by, at the address of the source."""
        response, _ = await self.exchange("127.0.0.1", "phone.example.org:{port}")
        self.assertEqual((response.via.received, response.via.rport), ("127.0.0.1", None))

    async def test_maddr_is_not_obeyed(self) -> None:
        response, _ = await self.exchange("127.0.0.1", "127.0.0.1:{port};maddr=192.0.2.1")
        self.assertEqual(response.status, 200)

    async def test_ipv6(self) -> None:
        response, port = await self.exchange("::1", "[2001:db8::1]:4;rport")
        self.assertEqual((response.via.received, response.via.rport), ("::1", port))

    async def test_repeated_request(self) -> None:
        """The transaction layer answers it; the user is not bothered again."""
        target = self.listen()["UDP"]
        phone, _ = self.phone()
        request = make_request("OPTIONS", Via="SIP/2.0/UDP a;branch=z9hG4bK1;rport").encode()
        answers = []
        for _ in range(2):
            waiting = phone.next()
            phone.transport.write(request, (target.host, target.port))
            answers.append(await waiting)
        self.assertEqual((answers[0], len(self.user.incoming)), (answers[1], 1))

    async def test_malformed(self) -> None:
        """What can be answered is, as what is wrong deserves; the rest is counted; the edge serves on."""
        target = self.listen()["UDP"]
        phone, _ = self.phone()
        good = make_request("OPTIONS", Via="SIP/2.0/UDP a;branch=z9hG4bK1;rport").encode()
        for data in (b"garbage", b"\x80" * 50, b"\r\n\r\n", b"\0\0\0\0", good.replace(b"OPTIONS", b"ACK", 1)):
            phone.transport.write(data, (target.host, target.port))
        for data, start in (
            (good.replace(b"CSeq: 1 OPTIONS", b"CSeq: 1 INVITE"), b"SIP/2.0 400 CSeq has another method\r\n"),
            (good.replace(b" SIP/2.0\r\n", b" SIP/7.0\r\n", 1), b"SIP/2.0 505 Version Not Supported\r\n"),
            (good.replace(b"z9hG4bK1", b"z9hG4bK1;;"), b"SIP/2.0 400 a parameter has no valid name\r\n"),
            (good.replace(b"From", b"Frog"), b"SIP/2.0 400 no From\r\n"),
            (good, b"SIP/2.0 200 OK\r\n"),
        ):
            waiting = phone.next()
            phone.transport.write(data, (target.host, target.port))
            self.assertTrue((await waiting).startswith(start), data)
        self.assertEqual((self.edge.counters["malformed"], self.edge.counters["keep-alive"]), (7, 2))

    async def test_stun(self) -> None:
        """A phone that keeps its flow alive by STUN is told the address that it is seen at (RFC 5626 §8)."""
        target = self.listen()["UDP"]
        phone, port = self.phone()
        request = stun.binding_request()
        waiting = phone.next()
        phone.transport.write(bytes(request), (target.host, target.port))
        answer = stun.parse(await waiting)
        assert answer is not None
        self.assertEqual(answer.transaction_id, request.transaction_id)
        self.assertEqual(stun.mapped_address(answer), ("127.0.0.1", port))

    async def test_overloaded(self) -> None:
        edge = self.make_edge(self.user, layer=TransactionLayer(most_servers=0))
        target = self.listen(edge=edge)["UDP"]
        phone, _ = self.phone()
        waiting = phone.next()
        request = make_request("OPTIONS", Via="SIP/2.0/UDP a;branch=z9hG4bK1;rport")
        phone.transport.write(request.encode(), (target.host, target.port))
        response = parse(await waiting)
        assert isinstance(response, Response)
        self.assertEqual((response.status, response.get("Retry-After")), (503, "10"))

    async def test_parse_error_of_the_user(self) -> None:
        """A header field that the user finds malformed becomes 400 as well; a bug becomes 500 and is logged."""
        target = self.listen()["UDP"]
        phone, _ = self.phone()

        def fail_to_parse(incoming: IServerRequest) -> None:
            _ = incoming.request.contacts

        def break_down(incoming: IServerRequest) -> None:
            raise RuntimeError("a bug")

        for number, (serve, status) in enumerate(((fail_to_parse, 400), (break_down, 500))):
            self.user.request_received = serve  # type: ignore[method-assign]
            waiting = phone.next()
            via = f"SIP/2.0/UDP a;branch=z9hG4bK{number};rport"
            phone.transport.write(
                make_request("OPTIONS", Via=via, Contact='"').encode(), (target.host, target.port)
            )
            response = parse(await waiting)
            assert isinstance(response, Response)
            self.assertEqual(response.status, status)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_response_too_large_for_a_datagram(self) -> None:
        """It cannot go; the edge serves on."""
        target = self.listen()["UDP"]
        phone, _ = self.phone()

        def answer_at_length(incoming: IServerRequest) -> None:
            response = incoming.request.response(200)
            response.body = b"x" * 66000 if len(self.user.incoming) == 0 else b""
            self.user.incoming.append(incoming)
            incoming.respond(response)

        self.user.request_received = answer_at_length  # type: ignore[method-assign]
        waiting = phone.next()
        for number in range(2):
            request = make_request("OPTIONS", Via=f"SIP/2.0/UDP a;branch=z9hG4bK{number};rport")
            phone.transport.write(request.encode(), (target.host, target.port))
        self.assertIn(b"z9hG4bK1", await waiting)
        self.assertEqual(self.edge.counters["response not sent"], 1)

    async def test_receive_buffer(self) -> None:
        self.listen()
        handle = self.edge._ports[0].getHandle()  # type: ignore[attr-defined]
        self.assertTrue(handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 2**20)


class TCPTests(EdgeTestCase):
    def message(self, number: int = 1, body: bytes = b"") -> bytes:
        request = make_request("OPTIONS", Via=f"SIP/2.0/TCP a;branch=z9hG4bK{number}")
        request.body = body
        return request.encode()

    async def test_many_on_one_connection(self) -> None:
        phone = await self.connect(self.listen()["TCP"])
        phone.transport.write(self.message(1) + b"\r\n" + self.message(2, b"body")[:-2])
        await phone.until(lambda data: data.count(b"SIP/2.0 200 OK") == 1)
        phone.transport.write(b"dy")
        await phone.until(lambda data: data.count(b"SIP/2.0 200 OK") == 2)
        self.assertEqual([one.request.body for one in self.user.incoming], [b"", b"body"])
        self.assertEqual(self.user.incoming[0].source.transport, "TCP")

    async def test_sent_by(self) -> None:
        """Where we listen, whatever address a connection of ours begins at (RFC 3261 §18.1.1)."""
        other = self.make_edge(FakeUser())
        target = self.listen(edge=other)["TCP"]
        ours = self.listen("127.0.0.2")["TCP"]
        flow = await self.edge.flow_to(target)
        self.assertEqual(self.edge.sent_by(flow), f"127.0.0.2:{ours.port}")
        listening, self.edge.listening = self.edge.listening, []
        self.assertTrue(self.edge.sent_by(flow).startswith("127.0.0.1:"))
        self.edge.listening = [where._replace(host="0.0.0.0") for where in listening]
        self.assertEqual(self.edge.sent_by(flow), f"127.0.0.1:{ours.port}")

    async def test_keep_alive(self) -> None:
        phone = await self.connect(self.listen()["TCP"])
        phone.transport.write(b"\r\n\r\n")
        self.assertEqual(await phone.until(bool), b"\r\n")

    async def test_garbage_closes(self) -> None:
        phone = await self.connect(self.listen()["TCP"])
        phone.transport.write(self.message() + b"\x16\x03\x01")
        await phone.closed
        self.assertIn(b"SIP/2.0 200 OK", phone.received)
        self.assertEqual(self.edge.counters["malformed"], 1)

    async def test_framing_error_is_answered(self) -> None:
        phone = await self.connect(self.listen()["TCP"])
        phone.transport.write(self.message().replace(b"Content-Length: 0", b"Content-Length: -1"))
        await phone.closed
        self.assertTrue(phone.received.startswith(b"SIP/2.0 400 Content-Length"))

    async def test_too_many_connections(self) -> None:
        """The connection that was idle longest gives way."""
        edge = self.make_edge(self.user, most_streams=2)
        target = self.listen(edge=edge)["TCP"]
        phones = []
        for number in range(3):
            phone = await self.connect(target)
            phones.append(phone)
            phone.transport.write(self.message(number))
            await phone.until(bool)
        await phones[0].closed
        self.assertEqual((len(edge.connections), edge.counters["connection gave way"]), (2, 1))

    async def test_one_address_pushes_out_its_own(self) -> None:
        """However many connections a stranger opens: a phone elsewhere keeps its own, though it was idle longest."""
        edge = self.make_edge(self.user, most_streams=3)
        target = self.listen(edge=edge)["TCP"]
        phone = await self.connect(target, "127.0.0.2")
        phone.transport.write(self.message(0))
        await phone.until(bool)
        for number in range(1, 7):
            stranger = await self.connect(target)
            stranger.transport.write(self.message(number))
            await stranger.until(bool)
        self.assertFalse(phone.closed.called)
        self.assertEqual((len(edge.connections), edge.counters["connection gave way"]), (3, 4))

    async def test_response_after_the_connection_closed(self) -> None:
        """It goes to the sent-by port of the source over a new connection (RFC 3261 §18.2.2)."""
        arrived: Deferred[bytes] = Deferred()
        other = self.make_edge(FakeUser())
        port = self.listen(edge=other)["TCP"].port
        other.layer.receive_response = lambda response, now: arrived.callback(response.encode()) or True  # type: ignore[assignment,method-assign,func-returns-value]
        self.user.status = None
        phone = await self.connect(self.listen()["TCP"])
        phone.transport.write(self.message().replace(b"TCP a;", b"TCP 127.0.0.1:%d;" % port))
        while not self.user.incoming:
            await self.tick()
        phone.transport.abortConnection()
        while len(self.edge.connections):
            await self.tick()
        incoming = self.user.incoming[0]
        incoming.respond(incoming.request.response(200))
        self.assertIn(b"SIP/2.0 200 OK", await arrived)

    def tick(self) -> Deferred[None]:
        """One turn of the reactor."""
        done: Deferred[None] = Deferred()
        reactor.callLater(0, done.callback, None)
        return done

    async def test_ack_reaches_the_user(self) -> None:
        phone = await self.connect(self.listen()["TCP"])
        phone.transport.write(self.message().replace(b"OPTIONS", b"ACK") + self.message(2))
        await phone.until(bool)
        self.assertEqual([ack.method for ack in self.user.acks], ["ACK"])


class ClientTests(EdgeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.callee = FakeUser(404)
        self.other = self.make_edge(self.callee)

    def request(self, size: int = 0) -> Request:
        request = Request("OPTIONS", "sip:bob@example.org", [("From", "<sip:a@h>"), ("To", "<sip:bob@example.org>")])
        request.body = b"x" * size
        return request

    async def test_each_transport_and_family(self) -> None:
        for address in ("127.0.0.1", "::1"):
            self.edge.listen([address], 0)
            self.other.listen([address], 0)
            for transport in ("UDP", "TCP"):
                target = next(one for one in reversed(self.other.listening) if one.transport == transport)
                response = await self.edge.request(self.request(), target)
                self.assertEqual(response.status, 404)
                incoming = self.callee.incoming[-1]
                self.assertEqual((incoming.source.host, incoming.source.transport), (address, transport))
                self.assertEqual(incoming.request.max_forwards, 70)
                self.assertTrue(incoming.request.from_.tag)

    async def test_connection_is_reused(self) -> None:
        target = self.listen(edge=self.other)["TCP"]
        first, second = self.edge.request(self.request(), target), self.edge.request(self.request(), target)
        await first
        await second
        await self.edge.request(self.request(), target)
        self.assertEqual((len(self.edge.connections), len(self.other.connections)), (1, 1))

    async def test_large_request_goes_over_tcp(self) -> None:
        """RFC 3261 §18.1.1; over UDP all the same when there is no TCP."""
        self.listen()
        target = self.listen(edge=self.other)["TCP"]
        await self.edge.request(self.request(LARGEST_UDP_REQUEST), target._replace(transport="UDP"))
        self.assertEqual(self.callee.incoming[-1].source.transport, "TCP")
        third = self.make_edge(self.callee)
        third.listen(["127.0.0.1"], 0, ["UDP"])
        await self.edge.request(self.request(LARGEST_UDP_REQUEST), third.listening[0])
        self.assertEqual(self.callee.incoming[-1].source.transport, "UDP")

    async def test_nobody_listens(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            target = Target("TCP", "127.0.0.1", free.getsockname()[1])
        await self.assertFailure(self.edge.request(self.request(), target), TransportFailure)
        await self.assertFailure(self.edge.request(self.request(), target._replace(transport="UDP")), TransportFailure)

    async def test_nobody_answers(self) -> None:
        self.callee.status = None
        edge = self.make_edge(self.user, layer=TransactionLayer(Timers(t1=0.001)))
        target = self.listen(edge=self.other)["TCP"]
        await self.assertFailure(edge.request(self.request(), target), TransactionTimeout)

    async def test_connection_breaks(self) -> None:
        self.callee.status = None
        waiting = self.edge.request(self.request(), self.listen(edge=self.other)["TCP"])
        self.callee.request_received = lambda incoming: self.other.connections.close()  # type: ignore[method-assign]
        await self.assertFailure(waiting, TransportFailure)

    async def test_stop(self) -> None:
        """Requests that wait fail when the edge is stopped."""
        self.callee.status = None
        waiting = self.edge.request(self.request(), self.listen(edge=self.other)["TCP"])
        self.callee.request_received = lambda incoming: self.edge.stop()  # type: ignore[method-assign]
        await self.assertFailure(waiting, TransportFailure)


class ListenTests(EdgeTestCase):
    def test_port_in_use(self) -> None:
        """The error names transport, address and port; what was opened before is closed again."""
        target = self.listen()["TCP"]
        other = self.make_edge(self.user)
        error = self.assertRaises(SIPListenError, other.listen, ["127.0.0.1"], target.port)
        self.assertIn(f"127.0.0.1 port {target.port}: Address already in use", str(error))
        self.assertEqual((error.port, other.listening), (target.port, []))
        error = self.assertRaises(SIPListenError, other.listen, ["192.0.2.1"], 0)
        self.assertIn("192.0.2.1", str(error))
        self.assertRaises(SIPListenError, other.listen, ["not an address"], 0)

    def test_both_families_on_one_port(self) -> None:
        """All addresses of IPv4 and of IPv6 can be had on the same port."""
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        self.edge.listen(["0.0.0.0", "::"], port)
        self.assertEqual(len(self.edge.listening), 4)


class RecordTests(SynchronousTestCase):
    """SIP over DTLS: each record is a message, and nothing below repeats those that are lost."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.user = FakeUser()
        self.edge = SIPEdge(self.clock, FakeUser(None), Random(1))
        self.source = Source("192.0.2.1", 40000, "DTLS-UDP")
        self.records = self.edge.records(self.user, self.source, 2000)
        self.transport = StringTransport()
        self.sent: list[bytes] = []
        self.transport.write = self.sent.append  # type: ignore[method-assign]
        self.records.makeConnection(self.transport)

    def options(self, number: int = 1) -> bytes:
        via = f"SIP/2.0/DTLS-UDP a;branch=z9hG4bK{number}"
        return make_request("OPTIONS", Via=via).encode().replace(b"Content-Length: 0\r\n", b"")

    def statuses(self) -> list[int]:
        answers = [parse(each) for each in self.sent]
        return [each.status for each in answers if isinstance(each, Response)]

    def test_a_record_is_a_message(self) -> None:
        """Content-Length may be missing; what follows the body is no second message (RFC 3261 §18.3)."""
        self.assertNotIn(b"Content-Length", self.options())
        self.records.dataReceived(self.options(1))
        body = make_request("MESSAGE", Via="SIP/2.0/DTLS-UDP a;branch=z9hG4bK2")
        body.body = b"hello"
        self.records.dataReceived(body.encode() + self.options(3))
        self.assertEqual([(each.request.method, each.request.body) for each in self.user.incoming],
                         [("OPTIONS", b""), ("MESSAGE", b"hello")])  # fmt: skip
        self.assertEqual(self.user.incoming[0].source, self.source)
        self.assertEqual(self.statuses(), [200, 200])

    def test_timers_of_a_busy_server(self) -> None:
        """They fire in time however many messages come meanwhile."""
        for number in (1, 2):
            self.records.dataReceived(self.options(number))
            self.clock.advance(0.004)
        self.clock.advance(31.993)
        for number in range(3, 8):
            self.records.dataReceived(self.options(number))
            self.clock.advance(0.004)
        self.assertEqual(len(self.edge.layer.servers), 5)

    def test_less_than_a_message(self) -> None:
        """It is refused, and waits for no more; the connection stays."""
        cut = make_request("MESSAGE", Via="SIP/2.0/DTLS-UDP a;branch=z9hG4bK1")
        cut.body = b"hello"
        for data in (cut.encode()[:-1], b"hello", b"\xff" * 20, self.options()[:30]):
            self.records.dataReceived(data)
        self.assertEqual((self.statuses(), self.edge.counters["malformed"]), ([400], 4))
        self.assertEqual(self.user.incoming, [])
        self.records.dataReceived(self.options(2))
        self.assertEqual(self.statuses(), [400, 200])

    def test_keep_alive(self) -> None:
        """A ping is answered, a pong is not; neither is a message."""
        self.clock.advance(5)
        for data in (b"\r\n\r\n", b"\r\n"):
            self.records.dataReceived(data)
        self.assertEqual(self.sent, [b"\r\n"])
        self.assertEqual((self.records.last_active, self.records.last_message), (5.0, 0.0))
        self.records.ping()
        self.assertEqual(self.sent[1:], [b"\r\n\r\n"])

    def test_unreliable(self) -> None:
        """Requests are repeated until they are answered, responses when requests come again."""
        request = Request("REGISTER", "sip:example.org", [("From", "<sip:a@h>"), ("To", "<sip:bob@example.org>")])
        waiting = self.edge.request(request, self.records)
        self.clock.pump([0.5, 1.0])
        self.assertEqual((len(self.sent), len(set(self.sent))), (3, 1))
        sent = parse(self.sent[0])
        assert isinstance(sent, Request)
        self.assertEqual(sent.via.transport, "TLS")
        self.records.dataReceived(sent.response(200).encode())
        self.assertEqual(self.successResultOf(waiting).status, 200)
        del self.sent[:]
        for _ in range(2):
            self.records.dataReceived(self.options())
        self.assertEqual((self.statuses(), len(self.user.incoming)), ([200, 200], 1))

    def test_too_large(self) -> None:
        """Nothing is cut off: a request fails at once, in place of a response goes one that says so."""
        request = Request("REGISTER", "sip:example.org", [("From", "<sip:a@h>"), ("To", "<sip:bob@example.org>")])
        request.body = b"x" * 2000
        failure = self.failureResultOf(self.edge.request(request, self.records), MessageTooLarge)
        self.assertEqual((failure.value.status, self.sent), (513, []))

        def answer_at_length(incoming: IServerRequest) -> None:
            response = incoming.request.response(200)
            response.body = b"x" * 2000
            incoming.respond(response)

        self.user.request_received = answer_at_length  # type: ignore[method-assign]
        self.records.dataReceived(self.options())
        self.assertEqual(self.statuses(), [500])
        self.assertEqual(self.edge.counters["response too large"], 1)
        self.assertFalse(self.records.send(b"x" * 2001))

    def test_gives_way(self) -> None:
        """Closed at once it lets its transport go, which has to tell the other end."""
        self.records.abort()
        self.assertTrue(self.transport.disconnecting)
        self.assertIsNone(self.transport.producer)


class StreamTests(SynchronousTestCase):
    """Connections that somebody else makes, such as those between nodes, by a clock of our own."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.user = FakeUser()
        self.edge = SIPEdge(self.clock, FakeUser(None), Random(1), idle=100.0, patience=30.0)
        self.stream, self.transport = self.open()

    def open(self) -> tuple[SIPStream, StringTransport]:
        stream = self.edge.stream(self.user, "TLS", Source("node1", 0, "TLS"))
        transport = StringTransport()
        stream.makeConnection(transport)
        return stream, transport

    def test_as_server(self) -> None:
        """Requests go to the user of that connection."""
        self.stream.dataReceived(make_request("OPTIONS", Via="SIP/2.0/TLS a;branch=z9hG4bK1").encode())
        self.assertEqual(self.user.incoming[0].source, Source("node1", 0, "TLS"))
        self.assertIsInstance(self.user.incoming[0], ServerRequest)
        self.assertTrue(self.transport.value().startswith(b"SIP/2.0 200 OK"))

    def test_as_client(self) -> None:
        request = Request("REGISTER", "sip:example.org", [("From", "<sip:a@h>"), ("To", "<sip:bob@example.org>")])
        waiting = self.edge.request(request, self.stream)
        sent = parse(self.transport.value())
        assert isinstance(sent, Request)
        self.assertEqual((sent.via.transport, sent.cseq), ("TLS", (1, "REGISTER")))
        self.stream.dataReceived(sent.response(100).encode() + sent.response(200).encode())
        self.assertEqual(self.successResultOf(waiting).status, 200)

    def test_closed(self) -> None:
        request = Request("REGISTER", "sip:example.org", [("From", "<sip:a@h>"), ("To", "<sip:bob@example.org>")])
        waiting = self.edge.request(request, self.stream)
        self.stream.connectionLost()
        self.failureResultOf(waiting, TransportFailure)
        self.failureResultOf(self.edge.request(request, self.stream), TransportFailure)

    def test_idle(self) -> None:
        other, transport = self.open()
        self.clock.pump([10.0] * 9)
        self.stream.dataReceived(b"\r\n\r\n")
        self.clock.pump([10.0] * 2)
        self.assertEqual((self.transport.disconnecting, transport.disconnecting), (False, True))
        self.assertFalse(other.open)

    def test_message_that_does_not_end(self) -> None:
        """However often a byte comes."""
        for byte in b"OPTIONS sip:a":
            self.stream.dataReceived(bytes([byte]))
            self.clock.advance(5)
        self.assertTrue(self.transport.disconnecting)

    def test_other_side_does_not_read(self) -> None:
        """It is read from no more, and closed in the end."""
        self.stream.pauseProducing()
        self.assertEqual(self.transport.producerState, "paused")
        self.stream.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")
        self.clock.pump([10.0] * 5)
        self.assertFalse(self.transport.disconnecting)
        self.stream.pauseProducing()
        self.clock.pump([10.0] * 4)
        self.assertTrue(self.transport.disconnecting)

    def test_timers_run(self) -> None:
        """A request of ours that nobody answers fails after 64 T1 by the clock."""
        request = Request("OPTIONS", "sip:a@h", [("From", "<sip:a@h>"), ("To", "<sip:a@h>")])
        waiting = self.edge.request(request, self.stream)
        self.clock.pump([1.0] * 31)
        self.assertNoResult(waiting)
        self.clock.advance(1)
        self.failureResultOf(waiting, TransactionTimeout)
