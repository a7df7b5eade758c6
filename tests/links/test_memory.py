"""Links in memory: the same interface, with the network in the test's hand."""

from __future__ import annotations

from random import Random

from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.errors import LinkError
from p2psip.ids import NodeId
from p2psip.interfaces import (
    IApplicationConnection,
    ILink,
    ILinkHost,
    ILinkProtocol,
    ILinkProtocolFactory,
)
from p2psip.links.application import MOST_BUFFERED, ApplicationConnection
from p2psip.links.memory import (
    MOST_UNDERWAY,
    MemoryLinkFactory,
    MemoryLinks,
    MemoryNetwork,
)
from p2psip.links.stream import MemoryStream

from .hosts import Host, RecordingOwner, unproved

A, B, C = (NodeId(letter * 16) for letter in (b"A", b"B", b"C"))


class Echo(Protocol):
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class NetworkTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.network = MemoryNetwork(self.clock, Random(1), lambda here, there: 0.05)
        self.nodes = {node_id: self.node(node_id) for node_id in (A, B, C)}

    def node(self, node_id: NodeId) -> MemoryLinks:
        links = MemoryLinks(self.network, Host(unproved(node_id), self.clock))
        self.successResultOf(links.listen())
        return links

    def owner(self, node_id: NodeId) -> RecordingOwner:
        owner = self.nodes[node_id].host.owner
        assert isinstance(owner, RecordingOwner)
        return owner

    def run_for(self, seconds: float) -> None:
        self.clock.pump([0.01] * round(seconds / 0.01))

    def link(self, here: NodeId = A, there: NodeId = B) -> ILink:
        connecting = self.nodes[here].connect(self.nodes[there].candidates(), there)
        self.run_for(0.5)
        return self.successResultOf(connecting)


class LinkTests(NetworkTestCase):
    def test_interfaces(self) -> None:
        link = self.link()
        self.assertTrue(verifyObject(ILink, link))
        self.assertTrue(verifyObject(ILinkProtocol, self.nodes[A]))
        self.assertTrue(verifyObject(ILinkProtocolFactory, MemoryLinkFactory(self.network)))
        self.assertTrue(verifyObject(ILinkHost, self.nodes[A].host))

    def test_connect(self) -> None:
        link = self.link()
        self.assertEqual((link.node_id, link.outgoing, link.address), (B, True, "10.0.0.2:6084"))
        [theirs] = self.owner(B).links
        self.assertEqual((theirs.node_id, theirs.outgoing, theirs.address), (A, False, "10.0.0.1:6084"))

    def test_handshake_takes_two_round_trips(self) -> None:
        connecting = self.nodes[A].connect(self.nodes[B].candidates(), B)
        self.clock.advance(0.19)
        self.assertNoResult(connecting)
        self.clock.advance(0.02)
        self.successResultOf(connecting)

    def test_linked_at_once(self) -> None:
        """Two ends that are open before time goes on."""
        self.network.link(self.nodes[A], self.nodes[B])
        [ours], [theirs] = self.owner(A).links, self.owner(B).links
        self.assertEqual((ours.node_id, ours.outgoing, ours.rtt), (B, True, 0.1))
        self.assertEqual((theirs.node_id, theirs.outgoing, theirs.rtt), (A, False, 0.1))
        ours.send(b"ping")
        theirs.send(b"pong")
        self.run_for(0.1)
        self.assertEqual((self.owner(A).messages, self.owner(B).messages), ([b"pong"], [b"ping"]))

    def test_observed(self) -> None:
        """Every message that is sent, whatever becomes of it; none that is refused."""
        seen: list[tuple[str, str, bytes]] = []
        self.network.observe = lambda link, message: seen.append((link.here, link.address, message))
        link = self.link()
        link.send(b"arrives")
        self.network.loss = 1.0
        link.send(b"is lost")
        self.network.kill(self.nodes[B].address)
        link.send(b"in vain")
        link.close()
        link.send(b"refused")
        sent = [b"arrives", b"is lost", b"in vain"]
        self.assertEqual(seen, [("10.0.0.1", "10.0.0.2:6084", message) for message in sent])

    def test_messages_keep_order(self) -> None:
        """Even where the latency does not."""
        link = self.link()
        latencies = iter([0.5, 0.1, 0.3])
        self.network.latency = lambda here, there: next(latencies)
        for message in (b"1", b"2", b"3"):
            self.assertTrue(link.send(message))
        self.run_for(0.4)
        self.assertEqual(self.owner(B).messages, [])
        self.run_for(0.2)
        self.assertEqual(self.owner(B).messages, [b"1", b"2", b"3"])

    def test_loss(self) -> None:
        link = self.link()
        self.network.loss = 0.5
        for number in range(200):
            link.send(bytes([number]))
        self.run_for(0.1)
        self.assertTrue(60 < len(self.owner(B).messages) < 140)
        self.assertEqual(self.network.counters["lost"] + len(self.owner(B).messages), 200)

    def test_bounded(self) -> None:
        link = self.link()
        self.assertTrue(all(link.send(b"") for _ in range(MOST_UNDERWAY)))
        self.assertFalse(link.send(b""))
        self.run_for(0.1)
        self.assertTrue(link.send(b""))

    def test_close(self) -> None:
        """What was sent before arrives; each owner hears of it once."""
        link = self.link()
        link.send(b"last")
        link.close(LinkError("enough"))
        link.close()
        self.assertFalse(link.send(b"later"))
        self.run_for(1)
        self.assertEqual(self.owner(B).messages, [b"last"])
        for node_id, other in ((A, B), (B, A)):
            self.assertEqual(self.owner(node_id).events, [("opened", other), ("closed", other)])
        self.assertEqual(str(self.owner(A).reasons[0]), "enough")

    def test_stop(self) -> None:
        self.link()
        stopped = self.nodes[B].stop()
        self.run_for(1)
        self.successResultOf(stopped)
        self.assertEqual(self.owner(A).events, [("opened", B), ("closed", B)])
        connecting = self.nodes[A].connect(self.nodes[B].candidates(), B)
        self.run_for(1)
        self.failureResultOf(connecting, LinkError)

    def test_wrong_node(self) -> None:
        connecting = self.nodes[A].connect(self.nodes[B].candidates(), C)
        self.run_for(1)
        self.failureResultOf(connecting, LinkError)
        self.assertEqual(self.owner(A).rejected, ["other Node-ID"])
        self.assertEqual(self.owner(B).links, [])

    def test_bootstrap(self) -> None:
        connecting = self.nodes[A].connect_to_bootstrap(self.nodes[B].address, 6084)
        self.run_for(1)
        self.assertEqual(self.successResultOf(connecting).node_id, B)
        connecting = self.nodes[A].connect_to_bootstrap(self.nodes[A].address, 6084)
        self.run_for(1)
        self.failureResultOf(connecting, LinkError)

    def test_address_in_use(self) -> None:
        links = MemoryLinks(self.network, Host(unproved(C), self.clock), self.nodes[A].address)
        self.assertIn("--reload-port", str(self.failureResultOf(links.listen(), LinkError).value))


class FailureTests(NetworkTestCase):
    """Partitions and deaths, and what the links say of them (RFC 6940 §6.6.5)."""

    def test_partition(self) -> None:
        link = self.link()
        self.network.partition([self.nodes[A].address])
        self.assertTrue(link.send(b"in vain"))
        self.run_for(0.9)
        self.assertEqual(self.owner(A).events, [("opened", B)])
        self.run_for(0.2)
        self.assertEqual(self.owner(A).events, [("opened", B), ("failing", B)])
        self.network.heal()
        self.assertEqual(self.owner(A).events[2:], [("recovered", B)])
        link.send(b"arrives")
        self.run_for(0.1)
        self.assertEqual(self.owner(B).messages, [b"arrives"])
        self.run_for(60)
        self.assertEqual(len(self.owner(A).events), 3)

    def test_dead_after_thirty_seconds(self) -> None:
        link = self.link()
        self.network.partition([self.nodes[A].address])
        link.send(b"in vain")
        self.run_for(31.1)
        self.assertEqual(self.owner(A).events, [("opened", B), ("failing", B), ("closed", B)])
        self.assertIsInstance(self.owner(A).reasons[0], LinkError)
        self.assertFalse(link.send(b"late"))

    def test_half_open(self) -> None:
        """The other end gave the link up meanwhile: the next message finds out."""
        link = self.link()
        self.network.partition([self.nodes[A].address])
        link.send(b"in vain")
        self.run_for(32)
        self.network.heal()
        [theirs] = self.owner(B).links
        theirs.send(b"anybody there?")
        self.run_for(0.1)
        self.assertEqual(self.owner(B).events, [("opened", A), ("closed", A)])
        self.assertEqual(self.owner(B).undelivered, [("closed", [b"anybody there?"])])

    def test_kill(self) -> None:
        link = self.link()
        self.network.kill(self.nodes[B].address)
        link.send(b"in vain")
        self.run_for(35)
        self.assertEqual(self.owner(A).events, [("opened", B), ("failing", B), ("closed", B)])
        self.assertEqual(self.owner(B).events, [("opened", A)])
        connecting = self.nodes[C].connect_to_bootstrap(self.nodes[B].address, 6084)
        self.run_for(9.9)
        self.assertNoResult(connecting)
        self.run_for(0.2)
        self.failureResultOf(connecting, LinkError)

    def test_undelivered(self) -> None:
        """What was sent to a node that is dead, or died before it arrived, is given back when the link is failing."""
        link = self.link()
        link.send(b"arrives")
        self.run_for(0.04)
        link.send(b"under way")
        self.run_for(0.02)
        self.network.kill(self.nodes[B].address)
        link.send(b"in vain")
        self.run_for(0.9)
        self.assertEqual(self.owner(A).undelivered, [])
        self.run_for(0.2)
        [(told, messages)] = self.owner(A).undelivered
        self.assertEqual((told, sorted(messages)), ("failing", [b"in vain", b"under way"]))
        self.assertEqual(self.owner(B).messages, [b"arrives"])
        link.send(b"later")
        self.run_for(40)
        self.assertEqual(self.owner(A).undelivered[1:], [("closed", [b"later"])])
        self.assertEqual(self.owner(B).undelivered, [])

    def test_undelivered_to_a_closed_end(self) -> None:
        """What was under way when the other end closed, or is sent before that is known."""
        link = self.link()
        [theirs] = self.owner(B).links
        link.send(b"under way")
        theirs.close()
        self.run_for(0.02)
        link.send(b"too late")
        self.run_for(1)
        [(told, messages)] = self.owner(A).undelivered
        self.assertEqual((told, sorted(messages)), ("closed", [b"too late", b"under way"]))
        self.assertEqual(self.owner(B).messages, [])

    def test_undelivered_is_bounded(self) -> None:
        link = self.link()
        self.network.kill(self.nodes[B].address)
        for number in range(3000):
            link.send(b"%d" % number)
        self.run_for(2)
        [(_, messages)] = self.owner(A).undelivered
        self.assertLessEqual(len(messages), MOST_UNDERWAY + 1)
        self.assertEqual(messages[-1], b"2999")

    def test_short_partition(self) -> None:
        """What vanished in one that nobody noticed is not given back much later."""
        link = self.link()
        self.network.partition([self.nodes[A].address])
        link.send(b"lost")
        self.run_for(0.5)
        self.network.heal()
        self.run_for(600)
        link.close()
        self.run_for(1)
        self.assertEqual(self.owner(A).events, [("opened", B), ("closed", B)])
        self.assertEqual(self.owner(A).undelivered, [])

    def test_killed_in_the_handshake(self) -> None:
        connecting = self.nodes[A].connect(self.nodes[B].candidates(), B)
        self.clock.advance(0.2)
        link = self.successResultOf(connecting)
        self.network.kill(self.nodes[B].address)
        link.send(b"in vain")
        self.run_for(40)
        self.assertEqual(self.owner(B).events, [])
        self.assertEqual(self.owner(A).events[-1], ("closed", B))

    def test_revived(self) -> None:
        address = self.nodes[B].address
        self.network.kill(address)
        self.network.revive(address)
        again = MemoryLinks(self.network, Host(unproved(B), self.clock), address)
        self.successResultOf(again.listen())
        self.nodes[B] = again
        self.assertEqual(self.link().node_id, B)


class ApplicationTests(NetworkTestCase):
    def connections(self) -> tuple[IApplicationConnection, IApplicationConnection]:
        candidates, offered = self.nodes[B].offer_application(A, 5060)
        connecting = self.nodes[A].connect_application(candidates, B, 5060)
        self.run_for(0.5)
        return self.successResultOf(connecting), self.successResultOf(offered)

    def test_stream(self) -> None:
        mine, theirs = self.connections()
        self.assertTrue(verifyObject(IApplicationConnection, mine))
        self.assertEqual((mine.node_id, mine.application), (B, 5060))
        self.assertEqual((theirs.node_id, theirs.application), (A, 5060))
        one, other = Echo(), Echo()
        mine.start(one)
        assert one.transport is not None
        one.transport.write(b"OPTIONS ")
        one.transport.writeSequence([b"sip:", b"b"])
        self.run_for(0.1)
        theirs.start(other)
        self.assertEqual(other.heard, b"OPTIONS sip:b")
        assert other.transport is not None
        other.transport.write(b"200")
        other.transport.loseConnection()
        self.run_for(0.1)
        self.assertEqual(one.heard, b"200")
        self.assertIsNotNone(one.lost)
        self.assertIsNotNone(other.lost)

    def test_offer_is_taken_once(self) -> None:
        candidates, _ = self.nodes[B].offer_application(A, 5060)
        first = self.nodes[A].connect_application(candidates, B, 5060)
        self.run_for(0.5)
        self.successResultOf(first)
        second = self.nodes[A].connect_application(candidates, B, 5060)
        self.run_for(0.5)
        self.failureResultOf(second, LinkError)

    def test_offer_to_another(self) -> None:
        candidates, offered = self.nodes[B].offer_application(C, 5060)
        connecting = self.nodes[A].connect_application(candidates, B, 5060)
        self.run_for(0.5)
        self.failureResultOf(connecting, LinkError)
        self.assertNoResult(offered)
        self.run_for(10)
        self.failureResultOf(offered, LinkError)

    def test_offer_cancelled(self) -> None:
        _, offered = self.nodes[B].offer_application(A, 5060)
        offered.addErrback(lambda _: None)
        offered.cancel()
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])


class EarlyDataTests(SynchronousTestCase):
    """What comes in before the protocol is started."""

    def test_bounded(self) -> None:
        connection = ApplicationConnection(unproved(B).identity, B, 5060, "10.0.0.2:1", "memory")
        transport = StringTransport()
        connection.makeConnection(transport)
        connection.dataReceived(bytes(MOST_BUFFERED - 1))
        self.assertEqual(transport.producerState, "producing")
        connection.dataReceived(b"x")
        self.assertEqual(transport.producerState, "paused")
        protocol = Echo()
        connection.start(protocol)
        self.assertEqual(len(protocol.heard), MOST_BUFFERED)
        self.assertEqual(transport.producerState, "producing")

    def test_records(self) -> None:
        """Nothing pauses datagrams: what is too much is lost, and what is kept comes record by record."""
        connection = ApplicationConnection(unproved(B).identity, B, 5060, "10.0.0.2:1", "memory", 16384)
        transport = StringTransport()
        connection.makeConnection(transport)
        records = [bytes([number]) * (MOST_BUFFERED // 4) for number in range(6)]
        for record in records:
            connection.dataReceived(record)
        self.assertEqual(transport.producerState, "producing")
        protocol = Echo()
        received: list[bytes] = []
        protocol.dataReceived = received.append  # type: ignore[method-assign]
        connection.start(protocol)
        self.assertEqual(received, records[:4])

    def test_lost_before_the_start(self) -> None:
        connection = ApplicationConnection(unproved(B).identity, B, 5060, "10.0.0.2:1", "memory")
        connection.makeConnection(StringTransport())
        connection.dataReceived(b"goodbye")
        reason = Failure(ConnectionError())
        connection.connectionLost(reason)
        connection.close()
        protocol = Echo()
        connection.start(protocol)
        self.assertEqual((protocol.heard, protocol.lost), (b"goodbye", reason))

    def test_close(self) -> None:
        connection = ApplicationConnection(unproved(B).identity, B, 5060, "10.0.0.2:1", "memory")
        transport = StringTransport()
        connection.makeConnection(transport)
        connection.close()
        self.assertTrue(transport.disconnecting)


class RecordTests(SynchronousTestCase):
    """Application connections as over datagrams."""

    def test_gaps(self) -> None:
        """What is lost of a stream takes with it all that follows, a lost record only itself."""
        for records, heard in ((False, [b"one"]), (True, [b"one", b"three"])):
            clock, answers = Clock(), iter((True, False, True))
            ends = MemoryStream.pair(clock, lambda: 0.1, ("10.0.0.1", 1), ("10.0.0.2", 2), answers.__next__, records)
            received: list[bytes] = []
            there = Echo()
            there.dataReceived = received.append  # type: ignore[method-assign]
            ends[1].serve(there)
            for data in (b"one", b"two", b"three"):
                ends[0].write(data)
            clock.advance(1)
            self.assertEqual(received, heard)


class StreamTests(SynchronousTestCase):
    """The two connected transports."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.one, self.other = MemoryStream.pair(self.clock, lambda: 0.1, ("10.0.0.1", 1), ("10.0.0.2", 2))
        self.here, self.there = Echo(), Echo()
        self.one.serve(self.here)
        self.other.serve(self.there)

    def test_interfaces(self) -> None:
        for interface in (ITransport, IConsumer, IPushProducer):
            self.assertTrue(verifyObject(interface, self.one))
        self.assertEqual(self.one.getPeer(), self.other.getHost())

    def test_paused(self) -> None:
        self.other.pauseProducing()
        self.one.write(b"early")
        self.one.loseConnection()
        self.clock.pump([0.1, 0.1])
        self.assertEqual((self.there.heard, self.there.lost), (b"", None))
        self.other.resumeProducing()
        self.assertEqual(self.there.heard, b"early")
        self.assertIsNotNone(self.there.lost)

    def test_closes_after_its_producer(self) -> None:
        """As every transport of Twisted does."""
        self.one.registerProducer(StringTransport(), True)
        self.one.loseConnection()
        self.clock.pump([0.1, 0.1])
        self.assertIsNone(self.there.lost)
        self.one.unregisterProducer()
        self.clock.pump([0.1, 0.1])
        self.assertIsNotNone(self.there.lost)
        self.assertIsNotNone(self.here.lost)

    def test_abort(self) -> None:
        self.one.registerProducer(StringTransport(), True)
        self.one.abortConnection()
        self.clock.pump([0.1, 0.1])
        self.assertIsNotNone(self.there.lost)


