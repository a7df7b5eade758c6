"""DTLS links: the cases of TLS links that apply, and what is so because they run over datagrams."""

from __future__ import annotations

import gc
import struct
from collections.abc import Callable
from random import Random
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from twisted.internet.task import Clock, deferLater
from twisted.plugin import getPlugins
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from p2psip import plugins
from p2psip.config.document import Configuration
from p2psip.errors import LinkError
from p2psip.forwarding.fragments import fragments
from p2psip.framing import data_frame
from p2psip.interfaces import ILinkProtocolFactory
from p2psip.links.addresses import own_addresses
from p2psip.links.datagram_link import LEAST_MESSAGE
from p2psip.links.dtls import HANDSHAKE_MTU, MOST_RECORD, RECORD_OVERHEAD, DTLSTransport, datagrams
from p2psip.links.dtls_links import DTLSLinkFactory, DTLSLinks
from p2psip.links.handshake import Contexts
from p2psip.links.ice import ICELinkFactory, ICELinks
from p2psip.links.keepalive import FAILING_AFTER, INTERVAL, WAITS, Keepalive
from p2psip.links.service import MOST_HANDSHAKES, MOST_HANDSHAKES_OF_ONE
from p2psip.links.stun import binding_request, binding_response, parse
from p2psip.links.udp import COOKIE_LIFE, SILENCE, Cookies
from p2psip.wire.header import ForwardingHeader, NodeDestination, with_header

from . import test_tls
from .hosts import Host
from .lines import LosesOfFlight, Place, Relay, Socket
from .test_tls import A, B, C, authority

clock: Any = reactor
CLIENT_HELLO, HELLO_VERIFY_REQUEST = 1, 3
HVR_SIZE = 60


class DTLSTestCase(test_tls.LinksTestCase):
    kind = DTLSLinks
    factory = DTLSLinkFactory

    def door(self, links: Any) -> Any:
        """The protocol of the socket where `links` listens."""
        return links._ports[0].protocol

    def place(self, links: Any) -> Place:
        return cast(Place, self.door(links).here())

    def relay(self, there: Place) -> Relay:
        relay = Relay(there)
        self.addCleanup(relay.close)
        return relay

    def socket(self, address: str = "127.0.0.1") -> Socket:
        made = Socket(address)
        self.addCleanup(made.close)
        return made

    def hello(self) -> bytes:
        """A ClientHello of somebody, as its first datagram."""
        connection = SSL.Connection(Contexts(self.host(C), SSL.DTLS_METHOD).current(), None)
        connection.set_connect_state()
        return begun(connection)


def begun(connection: SSL.Connection) -> bytes:
    """What `connection` has to send."""
    connection.set_ciphertext_mtu(HANDSHAKE_MTU)
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        pass
    return connection.bio_read(65536)


def handshake_type(datagram: bytes) -> int:
    return datagram[13] if datagram[0] == 22 else -1


# -- the cases of TLS


class OpeningTests(DTLSTestCase, test_tls.OpeningTests):
    """[6940-6.5.1.13-3]"""

    async def test_all_addresses(self) -> None:
        """Without an address to bind to there is a socket for each, so that answers leave from where one asked."""
        a, b = await self.node(A), await self.node(B, address="")
        listening = {port.getHost().host: port.getHost().port for port in cast(Any, b)._ports}
        self.assertEqual(set(listening), set(own_addresses()))
        for address in {"127.0.0.1", "::1"} & set(listening):
            self.assertEqual((await a.connect_to_bootstrap(address, listening[address])).node_id, B)

    async def test_an_address_comes_and_goes(self) -> None:
        """Where a node is bound to all addresses it looks for changes; what runs over a lost one is not cut off."""
        there = ["127.0.0.1"]
        self.patch(DTLSLinks, "interfaces", lambda links: list(there))
        b = await self.node(B, address="")
        cast(Any, b)._looking.reset(0)
        there.append("127.0.0.5")
        await self.until(lambda: len(b.addresses) == 2)
        self.assertEqual({each.addr_port.host for each in b.candidates()}, set(there))
        there.remove("127.0.0.1")
        cast(Any, b)._looking.reset(0)
        await self.until(lambda: len(b.addresses) == 1)
        self.assertTrue(b.addresses[0].startswith("127.0.0.5:"))

    async def test_nobody_listens(self) -> None:
        """The machine of the other end says so: nobody waits for the end of the handshake's time."""
        a = await self.node(A)
        closed = Socket()
        place = closed.place
        await closed.close()
        started = clock.seconds()
        self.assertIn("nobody listens", await self.refused(a.connect_to_bootstrap(*place)))
        self.assertLess(clock.seconds() - started, 5)

    async def test_no_socket(self) -> None:
        """The address to connect from is not there any more."""
        a = self.kind(self.host(A), reactor, ["192.0.2.77"], 0)
        self.assertIn("cannot reach", await self.refused(a.connect_to_bootstrap("198.51.100.1", 6084)))
        self.assertEqual(cast(Any, a)._dialing, {})

    async def test_cancelled_before_it_began(self) -> None:
        """Neither the socket nor the attempt is left."""
        for bound in ("127.0.0.1", "192.0.2.77"):
            a = self.kind(self.host(A), reactor, [bound], 0)
            connecting = a.connect_to_bootstrap("127.0.0.9" if bound == "127.0.0.1" else "198.51.100.1", 6084)
            connecting.addErrback(lambda _: None)
            connecting.cancel()
            await deferLater(clock, 0)
            self.assertEqual((cast(Any, a)._dialing, cast(Any, a)._connections), ({}, {}))

    def test_plugins(self) -> None:
        """One protocol with ICE, one without, each with its OverlayLinkType. [6940-6.5.1.5-1]"""
        found = {each.name: (each.link_type, each.ice) for each in getPlugins(ILinkProtocolFactory, plugins)}
        self.assertEqual((found["DTLS-UDP-SR"], found["DTLS-UDP-SR-NO-ICE"]), ((1, True), (3, False)))


class ICEOpeningTests(OpeningTests):
    """Who has no link yet connects as without ICE."""

    kind = ICELinks
    factory = ICELinkFactory


class RefusalTests(DTLSTestCase, test_tls.RefusalTests):
    """What does not become a link, and is counted."""

    async def test_no_certificate(self) -> None:
        """[6940-6.5.1.13-3]"""
        b = await self.node(B)
        client = Client(self, SSL.Context(SSL.DTLS_METHOD), self.place(b))
        client.associate()
        await self.until(lambda: self.owner(b).rejected)
        self.assertEqual(self.owner(b).rejected, ["handshake"])

    async def test_garbage(self) -> None:
        """[6940-13.2-1]"""
        a, b = await self.node(A), await self.node(B)
        stranger = self.socket()
        hello = self.hello()
        empty = b"\x17" + bytes(60)
        for junk in (b"", b"\0", b"GET / HTTP/1.0\r\n\r\n", b"\x16\xfe\xfd", empty, hello[:40], b"\xff" * 900):
            stranger.send(junk, self.place(b))
        stranger.send(hello[:14] + b"\xff" * (len(hello) - 14), self.place(b))
        await a.connect(b.candidates(), B)
        stranger.send(hello, self.place(b))
        await self.until(lambda: stranger.received)
        self.assertEqual([handshake_type(each) for each, _ in stranger.received], [HELLO_VERIFY_REQUEST])
        self.assertEqual(len(self.door(b)._known), 1)

    async def test_too_many_handshakes(self) -> None:
        """Of those that send the cookie back, and then nothing."""
        b = await self.node(B)
        silent = [Client(self, self.context(), self.place(b), mute=True) for _ in range(MOST_HANDSHAKES_OF_ONE + 3)]
        for each in silent:
            each.associate()
        await self.until(lambda: len(self.owner(b).rejected) >= 3)
        self.assertEqual(set(self.owner(b).rejected), {"too many connections"})
        self.assertEqual(len(self.door(b)._known), MOST_HANDSHAKES_OF_ONE)
        a = self.kind(self.host(A), reactor, ["127.0.0.2"], 0)
        self.started.append(a)
        await a.listen()
        await a.connect(b.candidates(), B)

    async def test_silent_strangers_give_way(self) -> None:
        """Associations from many addresses on which nothing more is said keep nobody out."""
        b = await self.node(B)
        context = self.context()
        for number in range(1, MOST_HANDSHAKES // MOST_HANDSHAKES_OF_ONE + 1):
            for _ in range(MOST_HANDSHAKES_OF_ONE):
                Client(self, context, self.place(b), mute=True, address=f"127.0.1.{number}").associate()
            await self.until(lambda number=number: len(self.door(b)._known) == number * MOST_HANDSHAKES_OF_ONE)
        await (await self.node(A)).connect(b.candidates(), B)
        self.assertEqual(self.owner(b).rejected, ["gave way"])

    def context(self) -> SSL.Context:
        return Contexts(self.host(C), SSL.DTLS_METHOD).current()


class MessageTests(DTLSTestCase, test_tls.MessageTests):
    secret = b"CLIENT_RANDOM"

    async def test_oversize(self) -> None:
        """The owner gets what the error needs; it still goes out before the link closes. [6940-6.6-1]"""
        self.configuration = Configuration(instance_name=test_tls.OVERLAY, no_ice=True, max_message_size=5000)
        a, b, link, _ = await self.pair()
        header = ForwardingHeader(
            overlay=self.configuration.overlay_hash,
            configuration_sequence=0,
            transaction_id=1,
            destination_list=(NodeDestination(node_id=B),),
        )
        message = with_header(header, b"\x00\x17" + bytes(9000))
        owner = self.answer_all(b, b"too large")
        cast(Any, link).transport.write(data_frame(0, message))
        await self.until(lambda: self.owner(a).reasons and owner.reasons)
        [beginning] = owner.messages
        self.assertTrue(message.startswith(beginning))
        self.assertEqual(self.owner(a).messages, [b"too large"])
        self.assertIn("max-message-size", str(owner.reasons[0]))
        self.assertEqual(owner.rejected, ["framing"])

    async def test_garbage_within(self) -> None:
        """A datagram that is no FramedMessage is dropped; the next is taken. [6940-13.2-1]"""
        _, b, link, theirs = await self.pair()
        for junk in (b"\0" * 20, b"\x80", b"\x80\0\0\0\1\xff\xff\xff", b"\xff" * 400):
            cast(Any, link).transport.write(junk)
        link.send(b"sound")
        await self.until(lambda: self.owner(b).messages)
        self.assertEqual(self.owner(b).messages, [b"sound"])
        self.assertEqual(cast(Any, theirs)._framing.malformed, 4)

    async def test_largest(self) -> None:
        """What is larger than the path takes comes in datagrams that it takes."""
        a, b = await self.node(A), await self.node(B)
        relay = self.relay(self.place(b))
        sizes: list[int] = []
        relay.passes = lambda datagram, onwards: bool(sizes.append(len(datagram)) or True)
        link = await a.connect_to_bootstrap(*relay.place)
        header = ForwardingHeader(
            overlay=self.configuration.overlay_hash,
            configuration_sequence=0,
            transaction_id=1,
            destination_list=(NodeDestination(node_id=B),),
        )
        message = with_header(header, Random(1).randbytes(20000))[:20000]
        self.assertFalse(link.send(message + b"."))
        self.assertTrue(link.send(message))
        most = len(fragments(message, LEAST_MESSAGE))
        await self.until(lambda: len(self.owner(b).messages) == most)
        self.assertEqual(sorted(self.owner(b).messages), sorted(fragments(message, LEAST_MESSAGE)))
        self.assertLessEqual(max(sizes), HANDSHAKE_MTU)

    async def test_undelivered(self) -> None:
        """What the other end was sent and does not acknowledge any more is given back as soon as the link fails."""
        a, b, link, theirs = await self.pair()
        link.send(b"arrives")
        await self.until(lambda: self.owner(b).messages and link.rtt is not None)
        cast(Any, theirs).transport.abortConnection()
        await self.until(lambda: self.owner(b).reasons)
        self.assertTrue(link.send(b"in vain"))
        await self.until(lambda: self.owner(a).undelivered)
        self.assertEqual(self.owner(a).undelivered, [("failing", [b"in vain"])])
        cast(Any, link).transport.abortConnection()

    async def test_the_other_end_is_killed(self) -> None:
        """Its socket is gone without a word: the next datagram finds that out. [6940-6.6-3]"""
        a, b = await self.node(A), await self.node(B)
        relay = self.relay(self.place(b))
        link = await a.connect_to_bootstrap(*relay.place)
        await relay.close()
        link.send(b"in vain")
        await self.until(lambda: self.owner(a).reasons)
        self.assertIn("nobody listens", str(self.owner(a).reasons[0]))
        self.assertEqual([messages for _, messages in self.owner(a).undelivered], [[b"in vain"]])

    async def test_a_line_that_loses(self) -> None:
        """A fifth of all datagrams, both ways, the handshake's as well; every message comes once."""
        a, b = await self.node(A), await self.node(B)
        relay = self.relay(self.place(b))
        link = await a.connect_to_bootstrap(*relay.place)
        random = Random(3)
        relay.passes = lambda datagram, onwards: random.random() > 0.2
        for number in range(30):
            link.send(b"%d" % number)
        await self.until(lambda: len(self.owner(b).messages) >= 30)
        self.assertEqual(sorted(map(int, self.owner(b).messages)), list(range(30)))


# -- the door


class Client:
    """One end of associations with a door, from one bare socket; after the cookie it is `mute`."""

    def __init__(
        self,
        case: DTLSTestCase,
        context: SSL.Context,
        there: Place,
        mute: bool = False,
        address: str = "127.0.0.1",
    ) -> None:
        self._context = context
        self._there = there
        self._socket = Socket(address, self._take)
        case.addCleanup(self._socket.close)
        case.addCleanup(self.silence)
        self._mute = mute
        self.sent: list[bytes] = []
        self.answers: list[bytes] = []
        self.sound: list[DTLSTransport] = []

    @property
    def here(self) -> Place:
        return self._socket.place

    @property
    def there(self) -> Place:
        return self._there

    def associate(self) -> Recording:
        """Begin anew, as after a crash: with the same address, and no word of what was before."""
        self.silence()
        connection = SSL.Connection(self._context, None)
        connection.set_connect_state()
        above = Recording()
        transport = DTLSTransport(connection, self, above, clock)
        self.sound.append(transport)
        transport.start()
        return above

    def silence(self) -> None:
        """Forget what there is, and say nothing."""
        for each in self.sound:
            each.connected = False
            each._stop_timer()
        self.sound.clear()

    def send(self, datagram: bytes) -> None:
        hellos = [each for each in self.sent if handshake_type(each) == CLIENT_HELLO]
        if self._mute and len(hellos) == 2:
            return
        self.sent.append(datagram)
        self._socket.send(datagram, self._there)

    def close(self) -> None:
        """The socket serves for the next association as well."""

    def _take(self, datagram: bytes, sender: Place) -> None:
        self.answers.append(datagram)
        for each in self.sound:
            each.received(datagram)


class Recording:
    """The protocol above an association; writes down what it is told."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.completed = 0
        self.records: list[bytes] = []
        self.lost: list[Failure] = []
        self.on_data: Callable[[bytes], object] = lambda data: None

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport

    def handshakeCompleted(self) -> None:
        self.completed += 1

    def dataReceived(self, data: bytes) -> None:
        self.records.append(data)
        self.on_data(data)

    def connectionLost(self, reason: Failure) -> None:
        self.lost.append(reason)


class DoorTests(DTLSTestCase):
    """What strangers can do to the socket that listens."""

    async def test_flood(self) -> None:
        """10,000 datagrams of many senders leave nothing behind, and a node connects in the midst of them."""
        a, b = await self.node(A), await self.node(B)
        hello = self.hello()
        senders = [self.socket(f"127.0.{2 + number // 250}.{1 + number % 250}") for number in range(500)]
        before = self.connections()
        connecting = a.connect(b.candidates(), B)
        for turn in range(20):
            for number, sender in enumerate(senders):
                sender.send(hello if number % 2 else b"\x16" + hello[1:13] + bytes(80), self.place(b))
            if turn % 2:
                await deferLater(clock, 0)
        self.assertEqual((await connecting).node_id, B)
        # Whatever the socket's buffer could not hold, seen by the door all the same.
        for number in range(10_000):
            self.door(b).datagramReceived(hello, (f"127.{number >> 8 & 255}.{number & 255}.9", 1024 + number))
        await self.until(lambda: self.owner(b).links)
        self.assertEqual(list(self.door(b)._known), [cast(Any, self.owner(b).links[0]).transport._carrier.there])
        self.assertEqual((len(cast(Any, b)._connections), cast(Any, b)._handshakes.total()), (1, 0))
        # One association has two ends here.
        self.assertLessEqual(self.connections() - before, 2)
        self.assertTrue(any(sender.received for sender in senders))

    def connections(self) -> int:
        gc.collect()
        return sum(isinstance(each, SSL.Connection) for each in gc.get_objects())

    async def test_junk_does_not_reach_openssl(self) -> None:
        b = await self.node(B)
        hello = self.hello()
        made: list[int] = []
        current = cast(Any, b).listening.current
        self.patch(cast(Any, b).listening, "current", lambda: made.append(1) or current())
        epoch_1 = hello[:3] + b"\0\1" + hello[5:]
        for junk in (
            b"\x14" + bytes(80),
            b"\x15" + hello[1:],
            b"\x17" + hello[1:],
            epoch_1,
            hello[:13] + b"\2" + hello[14:],
            hello[:59],
            b"\x16\x03\x01" + hello[3:],
        ):
            self.door(b).datagramReceived(junk, ("127.0.0.3", 1))
        self.assertEqual(made, [])
        self.door(b).datagramReceived(hello, ("127.0.0.3", 1))
        self.assertEqual(made, [1])

    async def test_no_amplification(self) -> None:
        """Nobody is sent more than was sent in its name."""
        b = await self.node(B)
        hello = self.hello()
        sent: list[int] = []
        door = self.door(b)
        self.patch(door, "_write", lambda datagram, there: sent.append(len(datagram)))
        door.datagramReceived(hello, ("127.0.0.3", 1))
        self.assertEqual(sent, [HVR_SIZE])
        for size in range(len(hello)):
            door.datagramReceived(hello[:size], ("127.0.0.3", 1))
            # A ClientHello that says it is as long as it is.
            shorter = hello[:11] + struct.pack("!H", max(0, size - 13)) + hello[13:size]
            del sent[:]
            door.datagramReceived(shorter, ("127.0.0.3", 1))
            self.assertLessEqual(sum(sent), size)

    async def test_foreign_cookie(self) -> None:
        """A cookie that was made for another, or for nobody, is answered with a new one."""
        b = await self.node(B)
        first, other = self.socket(), self.socket("127.0.0.2")
        connection = SSL.Connection(Contexts(self.host(C), SSL.DTLS_METHOD).current(), None)
        connection.set_connect_state()
        first.send(begun(connection), self.place(b))
        await self.until(lambda: first.received)
        answer = first.received[0][0]
        cookie = answer[-32:]
        connection.bio_write(answer)
        hello = begun(connection)
        self.assertIn(cookie, hello)
        other.send(hello, self.place(b))
        first.send(hello.replace(cookie, cookie[::-1]), self.place(b))
        await self.until(lambda: other.received and len(first.received) == 2)
        for received in (other.received[0], first.received[1]):
            self.assertEqual(handshake_type(received[0]), HELLO_VERIFY_REQUEST)
        self.assertEqual(self.door(b)._known, {})
        first.send(hello, self.place(b))
        await self.until(lambda: self.door(b)._known)
        self.assertEqual(list(self.door(b)._known), [first.place])

    async def test_hello_from_a_known_address(self) -> None:
        """Nobody ends an association with a ClientHello alone; who lost its end begins anew (RFC 6347 §4.2.8)."""
        b = await self.node(B)
        context = Contexts(self.host(A), SSL.DTLS_METHOD).current()
        client = Client(self, context, self.place(b))
        before = client.associate()
        await self.until(lambda: before.completed and self.owner(b).links)
        client.send(self.hello())
        await self.until(lambda: handshake_type(client.answers[-1]) == HELLO_VERIFY_REQUEST)
        before.transport.write(data_frame(0, b"still there"))
        await self.until(lambda: self.owner(b).messages)
        self.assertEqual(self.owner(b).events, [("opened", A)])
        again = client.associate()
        await self.until(lambda: again.completed and len(self.owner(b).links) == 2)
        self.assertEqual(sorted(self.owner(b).events), [("closed", A), ("opened", A), ("opened", A)])
        again.transport.write(data_frame(0, b"again"))
        await self.until(lambda: len(self.owner(b).messages) == 2)
        self.assertEqual(list(self.door(b)._known), [client.here])

    async def test_junk_in_an_association(self) -> None:
        """What is not of it is dropped, whoever sends it from the right address. [6940-6.6.1-3] [6940-6.6.1-4]"""
        b = await self.node(B)
        client = Client(self, Contexts(self.host(A), SSL.DTLS_METHOD).current(), self.place(b))
        above = client.associate()
        await self.until(lambda: above.completed and self.owner(b).links)
        above.transport.write(data_frame(0, b"once"))
        replayed = client.sent[-1]
        alert = b"\x15\xfe\xfd\0\0" + bytes(5) + b"\x09\0\x02\x02\x28"
        forged = replayed[:-1] + bytes((replayed[-1] ^ 1,))
        for junk in (replayed, alert, forged, b"\x17\xfe\xfd" + bytes(60)):
            client.send(junk)
        above.transport.write(data_frame(1, b"twice"))
        await self.until(lambda: len(self.owner(b).messages) == 2)
        self.assertEqual(self.owner(b).messages, [b"once", b"twice"])
        self.assertNotIn(b"once", b"".join(client.sent))
        self.assertEqual((self.owner(b).reasons, self.owner(b).rejected), ([], []))

    async def test_every_flight_may_be_lost(self) -> None:
        """Whichever datagram of a handshake is lost, a timer brings it again."""
        a, b = await self.node(A), await self.node(B)
        losing = [LosesOfFlight(number) for number in range(6)]
        connecting = []
        for each in losing:
            relay = self.relay(self.place(b))
            relay.passes = each
            connecting.append(a.connect_to_bootstrap(*relay.place))
        links = await gatherResults(connecting)
        self.assertEqual([link.node_id for link in links], [B] * 6)
        self.assertEqual([each.lost for each in losing], [1] * 6)
        await self.until(lambda: len(self.owner(b).links) == 6)

    async def test_retired(self) -> None:
        """A door that takes nobody any more serves those it knows, and is closed after the last."""
        _, b, link, theirs = await self.pair()
        door = self.door(b)
        door.retire()
        stranger = self.socket()
        stranger.send(self.hello(), door.here())
        link.send(b"served")
        await self.until(lambda: self.owner(b).messages)
        self.assertEqual(stranger.received, [])
        theirs.close()
        await self.until(lambda: not door.port.connected)

    async def test_no_stun_without_ice(self) -> None:
        """[6940-6.6.6-1]"""
        b = await self.node(B)
        stranger = self.socket()
        stranger.send(bytes(binding_request()), self.place(b))
        stranger.send(self.hello(), self.place(b))
        await self.until(lambda: stranger.received)
        self.assertEqual([handshake_type(each) for each, _ in stranger.received], [HELLO_VERIFY_REQUEST])


class SilenceTests(DTLSTestCase):
    """An association whose other end has vanished; `b` has a clock of its own."""

    kind = ICELinks

    async def association(self) -> tuple[Any, Any, Clock, Any]:
        time = Clock()
        a = await self.node(A)
        b = self.kind(self.host(B), reactor, ["127.0.0.1"], 0)
        cast(Any, b).clock = cast(Host, b.host).clock = time
        self.started.append(b)
        self.addCleanup(lambda: time.pump([0] * 5 + [10] * 10))
        await b.listen()
        link = await a.connect(b.candidates(), B)
        await self.until(lambda: self.owner(b).links)
        return a, b, time, link

    def tearDown(self) -> Any:
        stopping = super().tearDown()
        for links in self.started:
            if isinstance(links.host.clock, Clock):
                links.host.clock.pump([0.1] * 100)
        return stopping

    async def test_silence(self) -> None:
        """Nothing for 45 s, where every node sends STUN each five, means that it is gone."""
        _, b, time, link = await self.association()
        cast(Any, link).transport._carrier._keepalive.stop()
        time.pump([1] * int(SILENCE - 1))
        self.assertEqual(self.owner(b).reasons, [])
        time.pump([1] * 12)
        self.assertEqual([str(each).rpartition(": ")[2] for each in self.owner(b).reasons], ["no answer any more"])
        self.assertEqual((self.door(b)._known, self.door(b)._looking), ({}, None))

    async def test_stun_is_a_sign_of_life(self) -> None:
        """[6940-6.5.1.10.3-1]"""
        _, b, time, link = await self.association()
        dial = cast(Any, link).transport._carrier
        dial._keepalive.stop()
        [known] = self.door(b)._known.values()
        for _ in range(4):
            time.advance(SILENCE - 15)
            dial._write(bytes(binding_request()), None)
            await self.until(lambda: known.heard == time.seconds())
        self.assertEqual(self.owner(b).reasons, [])

    async def test_not_without_ice(self) -> None:
        """Nobody sends anything there for as long as there is nothing to say."""
        self.kind = DTLSLinks
        _, b, time, _ = await self.association()
        time.pump([10] * 100)
        self.assertEqual(self.owner(b).reasons, [])


class CookieTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.cookies = Cookies(self.clock)

    def at(self, place: Place) -> Any:
        connection = SSL.Connection(SSL.Context(SSL.DTLS_METHOD), None)
        connection.set_app_data(place)
        return connection

    def test_of_one_address(self) -> None:
        cookie = self.cookies._make(self.at(("192.0.2.1", 1)))
        self.assertTrue(self.cookies._check(self.at(("192.0.2.1", 1)), cookie))
        for other in (("192.0.2.1", 2), ("192.0.2.2", 1)):
            self.assertFalse(self.cookies._check(self.at(other), cookie))
        self.assertFalse(Cookies(self.clock)._check(self.at(("192.0.2.1", 1)), cookie))
        self.assertFalse(self.cookies._check(self.at(("192.0.2.1", 1)), b""))

    def test_life(self) -> None:
        """For as long as one secret lives and the next, also where nobody asks for a cookie meanwhile."""
        here = self.at(("192.0.2.1", 1))
        cookie = self.cookies._make(here)
        self.clock.advance(COOKIE_LIFE + 1)
        self.cookies._make(here)
        self.assertTrue(self.cookies._check(here, cookie))
        self.clock.advance(COOKIE_LIFE + 1)
        self.assertFalse(self.cookies._check(here, cookie))
        cookie = self.cookies._make(here)
        self.clock.advance(1000)
        self.assertFalse(self.cookies._check(here, cookie))


# -- without sockets


class Wire:
    """Carries datagrams from one transport to the other, when told to."""

    def __init__(self, here: Place, there: Place) -> None:
        self.here, self.there = here, there
        self.sent: list[bytes] = []
        self.waiting: list[bytes] = []
        self.closed = 0

    def send(self, datagram: bytes) -> None:
        self.sent.append(datagram)
        self.waiting.append(datagram)

    def close(self) -> None:
        self.closed += 1


class TransportTests(TestCase):
    """DTLSTransport, both ends of an association in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        case = DTLSTestCase()
        case.now = 1e9
        case.authority = authority(case.now)
        case.configuration = Configuration(instance_name=test_tls.OVERLAY)
        self.client, self.server = Recording(), Recording()
        places = ("192.0.2.1", 1000), ("192.0.2.2", 2000)
        self.wires = Wire(*places), Wire(*reversed(places))
        self.ends: list[DTLSTransport] = []
        for node_id, wire, above in ((A, self.wires[0], self.client), (B, self.wires[1], self.server)):
            connection = SSL.Connection(Contexts(case.host(node_id), SSL.DTLS_METHOD).current(), None)
            (connection.set_connect_state if node_id == A else connection.set_accept_state)()
            self.ends.append(DTLSTransport(connection, wire, above, self.clock))

    def carry(self) -> None:
        """Carry datagrams until there are no more."""
        while any(wire.waiting for wire in self.wires):
            for wire, other in zip(self.wires, reversed(self.ends), strict=True):
                waiting, wire.waiting = wire.waiting, []
                for datagram in waiting:
                    other.received(datagram)

    def associate(self) -> None:
        for end in reversed(self.ends):
            end.start()
        self.carry()
        self.assertEqual((self.client.completed, self.server.completed), (1, 1))

    def test_interfaces(self) -> None:
        for interface in (ITransport, IConsumer, IPushProducer):
            self.assertTrue(verifyObject(interface, self.ends[0]))
        peer = self.client.transport or self.ends[0]
        self.assertEqual((peer.getPeer().host, peer.getPeer().port), ("192.0.2.2", 2000))
        self.assertEqual((peer.getHost().host, peer.getHost().type), ("192.0.2.1", "UDP"))

    def test_handshake(self) -> None:
        """No datagram of it is larger than what every path takes, and no timer is left."""
        self.associate()
        for wire in self.wires:
            self.assertLessEqual(max(map(len, wire.sent)), HANDSHAKE_MTU)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_write_is_one_record(self) -> None:
        """However large it is: the limit is that of a record, not what a path takes. [6940-6.6.1-5]"""
        self.associate()
        for size in (1, HANDSHAKE_MTU, 1500, MOST_RECORD):
            before = len(self.wires[0].sent)
            self.client.transport.write(bytes(size))
            [datagram] = self.wires[0].sent[before:]
            self.assertEqual(len(datagram), size + RECORD_OVERHEAD)
            self.assertNotIn(bytes(16), datagram[-size:])
        self.carry()
        self.assertEqual([len(each) for each in self.server.records], [1, HANDSHAKE_MTU, 1500, MOST_RECORD])
        self.assertRaises(LinkError, self.client.transport.write, bytes(MOST_RECORD + 1))
        self.client.transport.writeSequence([b"one ", b"record"])
        self.carry()
        self.assertEqual(self.server.records[-1], b"one record")

    def test_lost_and_reordered(self) -> None:
        """What comes is delivered, as it comes, once."""
        self.associate()
        for number in range(5):
            self.client.transport.write(b"%d" % number)
        waiting = self.wires[0].waiting
        self.wires[0].waiting = [waiting[3], waiting[0], waiting[3], waiting[4]]
        self.carry()
        self.assertEqual(self.server.records, [b"3", b"0", b"4"])

    def test_nothing_before_the_handshake(self) -> None:
        for end in reversed(self.ends):
            end.start()
        self.ends[0].write(b"too early")
        self.carry()
        self.assertEqual((self.client.completed, self.server.records), (1, []))

    def test_timer(self) -> None:
        """As long as the handshake goes on there is a timer, at the time that OpenSSL tells."""
        self.ends[0].start()
        [call] = self.clock.getDelayedCalls()
        self.assertApproximates(call.getTime(), 1.0, 0.5)
        # OpenSSL has a clock of its own: too early for it, and waited for again.
        self.clock.advance(1)
        [call] = self.clock.getDelayedCalls()
        self.assertTrue(1 < call.getTime() <= 2)
        self.ends[0].abortConnection()
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close(self) -> None:
        self.associate()
        self.client.transport.loseConnection()
        self.client.transport.loseConnection()
        self.client.transport.write(b"too late")
        self.carry()
        self.clock.advance(0)
        for above, wire in ((self.client, self.wires[0]), (self.server, self.wires[1])):
            [reason] = above.lost
            self.assertTrue(reason.check(ConnectionDone))
            self.assertEqual(wire.closed, 1)
        self.assertEqual(self.server.records, [])

    def test_close_in_the_midst_of_reading(self) -> None:
        """The protocol hears of the end after it has returned, and reads no more."""
        self.associate()
        told: list[int] = []

        def close(data: bytes) -> None:
            self.server.transport.loseConnection()
            told.append(len(self.server.lost))

        self.server.on_data = close
        self.client.transport.write(b"1")
        self.client.transport.write(b"2")
        # Two records in one datagram, as another implementation may send them.
        self.wires[0].waiting = [b"".join(self.wires[0].waiting)]
        self.carry()
        self.clock.advance(0)
        self.assertEqual((self.server.records, told, len(self.server.lost)), ([b"1"], [0], 1))

    def test_abort(self) -> None:
        """Nothing is said of it."""
        self.associate()
        sent = len(self.wires[0].sent)
        self.client.transport.abortConnection()
        self.assertEqual(self.client.lost, [])
        self.clock.advance(0)
        self.assertTrue(self.client.lost[0].check(ConnectionLost))
        self.assertEqual((len(self.wires[0].sent), self.server.lost), (sent, []))

    def test_unreachable(self) -> None:
        self.associate()
        self.ends[0].unreachable()
        self.ends[0].unreachable()
        [reason] = self.client.lost
        self.assertIn("nobody listens", reason.getErrorMessage())

    def test_paused(self) -> None:
        """What comes meanwhile is lost; the end is noticed all the same."""
        self.associate()
        self.server.transport.pauseProducing()
        self.client.transport.write(b"lost")
        self.carry()
        self.server.transport.resumeProducing()
        self.client.transport.write(b"read")
        self.carry()
        self.assertEqual(self.server.records, [b"read"])
        self.server.transport.pauseProducing()
        self.client.transport.loseConnection()
        self.carry()
        self.assertEqual(len(self.server.lost), 1)

    def test_producer(self) -> None:
        """Nobody is told to wait; who has to be asked is asked until it has done."""
        self.associate()
        transport = self.client.transport

        class Pulled:
            def __init__(self) -> None:
                self.left = [b"1", b"2", b"3"]

            def resumeProducing(self) -> None:
                transport.write(self.left.pop(0))
                if not self.left:
                    transport.unregisterProducer()

        transport.registerProducer(Pulled(), False)
        self.assertRaises(RuntimeError, transport.registerProducer, Pulled(), False)
        self.clock.pump([0] * 5)
        self.carry()
        self.assertEqual(self.server.records, [b"1", b"2", b"3"])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class DatagramTests(SynchronousTestCase):
    def record(self, size: int) -> bytes:
        return b"\x16" + bytes(10) + struct.pack("!H", size) + bytes(size)

    def test_records_are_packed(self) -> None:
        sizes = (100, 200, 300, 50, 700, 10)
        records = [self.record(size) for size in sizes]
        packed = list(datagrams(b"".join(records), 400))
        self.assertEqual(b"".join(packed), b"".join(records))
        self.assertEqual([len(each) for each in packed], [100 + 200 + 26, 300 + 50 + 26, 713, 23])

    def test_nothing(self) -> None:
        self.assertEqual(list(datagrams(b"", 400)), [])


class DeadLinkTests(DTLSTestCase):
    """A link whose other end says nothing any more, by a clock that is told the time."""

    async def test_failing_then_dead(self) -> None:
        """[6940-6.6.3.1-8] [6940-6.6.3.1-9]"""
        events = self.lost_line(answers_again=False)
        self.assertEqual([name for name, _ in events], ["opened", "failing", "closed"])
        _, failing, dead = [when for _, when in events]
        self.assertApproximates(failing, 3.5, 0.2)
        self.assertApproximates(dead, 15.5, 0.2)

    async def test_recovers(self) -> None:
        """[6940-6.6.3.1-10]"""
        events = self.lost_line(answers_again=True)
        self.assertEqual([name for name, _ in events], ["opened", "failing", "recovered"])

    def lost_line(self, answers_again: bool) -> list[tuple[str, float]]:
        """What the owner hears, and when: the line is cut after the handshake, and whole again at 5 s."""
        time = Clock()
        hosts = [self.host(A), self.host(B)]
        ends: list[Any] = []
        wires = Wire(("192.0.2.1", 1), ("192.0.2.2", 2)), Wire(("192.0.2.2", 2), ("192.0.2.1", 1))
        for host, wire, outgoing in zip(hosts, wires, (True, False), strict=True):
            host.clock = time
            links = DTLSLinks(host, reactor, ["127.0.0.1"], 0)
            link = links.make_link("", outgoing, None)
            connection = SSL.Connection(links.connecting.current(), None)
            (connection.set_connect_state if outgoing else connection.set_accept_state)()
            ends.append((link, DTLSTransport(connection, wire, link, time)))

        def carry() -> None:
            while any(wire.waiting for wire in wires):
                for wire, (_, transport) in zip(wires, reversed(ends), strict=True):
                    waiting, wire.waiting = wire.waiting, []
                    for datagram in waiting:
                        transport.received(datagram)

        for _, transport in reversed(ends):
            transport.start()
        carry()
        owner = hosts[0].owner
        told = [(name, 0.0) for name, _ in owner.events]
        link = ends[0][0]
        self.assertTrue(link.send(b"into the void"))
        for _ in range(200):
            if answers_again and time.seconds() > 5:
                carry()
            for wire in wires:
                wire.waiting.clear()
            time.advance(0.1)
            told += [(name, time.seconds()) for name, _ in owner.events[len(told) :]]
        undelivered = [messages for _, messages in owner.undelivered]
        self.assertEqual(undelivered, [[b"into the void"]])
        for each, _ in ends:
            each.disconnect(None)
        time.advance(0)
        time.advance(20)
        self.assertEqual(time.getDelayedCalls(), [])
        return told


class KeepaliveTests(SynchronousTestCase):
    """[6940-6.5.1.10.3-1]"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sent: list[bytes] = []
        self.told: list[Any] = []
        self.keepalive = Keepalive(
            self.clock,
            Random(1),
            lambda place, rtt: self.told.append((place, rtt)),
            lambda dead: self.told.append(dead),
            lambda: self.told.append("answers"),
        )
        self.keepalive.start(self.sent.append)

    def answer(self, request: bytes, place: Place = ("192.0.2.9", 9)) -> None:
        message = parse(request)
        assert message is not None
        self.keepalive.received(binding_response(message, place))

    def test_answered(self) -> None:
        """Each answer tells where we are seen, and how long it took; the next check is some five seconds later."""
        for _ in range(3):
            sent = len(self.sent)
            self.clock.advance(0.125)
            self.answer(self.sent[-1])
            self.assertEqual(self.told[-2:], [(("192.0.2.9", 9), 0.125), "answers"])
            [call] = self.clock.getDelayedCalls()
            waited = call.getTime() - self.clock.seconds()
            self.assertTrue(0.8 * INTERVAL <= waited <= 1.2 * INTERVAL)
            self.assertEqual(len(self.sent), sent)
            self.clock.advance(waited)
            self.assertEqual(len(self.sent), sent + 1)

    def test_silence(self) -> None:
        """Sent again after 0.5, 1.5, 3.5 and 7.5 s; failing with the last, dead at 15.5 s."""
        times = [0.0]
        dead_at = 0.0
        while not dead_at and self.clock.seconds() < 60:
            self.clock.advance(0.5)
            if len(self.sent) > len(times):
                times.append(self.clock.seconds())
            if self.told == [False, True]:
                dead_at = self.clock.seconds()
            elif self.told == [False]:
                self.assertGreaterEqual(self.clock.seconds(), sum(WAITS[:FAILING_AFTER]))
        self.assertEqual((times, dead_at), ([0.0, 0.5, 1.5, 3.5, 7.5], 15.5))
        self.assertEqual(len(set(self.sent)), 5)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late_answer(self) -> None:
        """To whichever transmission: its time counts from that."""
        self.clock.advance(0.5)
        self.clock.advance(0.5)
        self.answer(self.sent[0])
        self.assertEqual(self.told, [(("192.0.2.9", 9), 1.0), "answers"])
        self.answer(self.sent[1])
        self.assertEqual(len(self.told), 2)

    def test_what_answers_nothing(self) -> None:
        """Junk, a request, and an answer to somebody else."""
        self.keepalive.received(b"\1\1\0\0")
        self.keepalive.received(self.sent[0])
        self.answer(bytes(binding_request()))
        self.assertEqual(self.told, [])

    def test_stop(self) -> None:
        self.keepalive.stop()
        self.answer(self.sent[0])
        self.clock.advance(100)
        self.assertEqual((self.told, len(self.sent)), ([], 1))


class STUNTests(SynchronousTestCase):
    def test_any_bytes(self) -> None:
        """Whatever comes is a message or nothing."""
        random = Random(5)
        request = bytes(binding_request())
        for _ in range(3000):
            body = random.randbytes(random.randrange(24))
            parse(request[:2] + struct.pack("!H", len(body)) + request[4:20] + body)
        for kind in range(0x30):
            for size in range(12):
                attribute = struct.pack("!HH", kind, size) + bytes(size)
                parse(request[:2] + struct.pack("!H", len(attribute)) + request[4:20] + attribute)
        self.assertIsNone(parse(request + b"\0"))
        self.assertIsNotNone(parse(request))


