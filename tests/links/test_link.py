"""One TLS link on a transport of strings and a clock in the test's hand."""

from __future__ import annotations

from typing import cast

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from p2psip.framing import data_frame
from p2psip.ids import NodeId
from p2psip.interfaces import ILinkHost
from p2psip.links.handshake import HANDSHAKE_TIMEOUT, SecuredConnection
from p2psip.links.link import MOST_QUEUED, TLSLink
from p2psip.wire.frame import AckFrame, DataFrame, FramedMessage

from .hosts import Host, RecordingOwner, unproved

A, B = NodeId(b"A" * 16), NodeId(b"B" * 16)


class Links:
    """Counts what a connection tells its service."""

    def __init__(self, host: ILinkHost) -> None:
        self.host = host
        self.told: list[str] = []

    def handshake_ended(self, connection: SecuredConnection) -> None:
        self.told.append("handshake")

    def connection_ended(self, connection: SecuredConnection) -> None:
        self.told.append("connection")


class Wire(StringTransport):
    """A transport that knows abortConnection's effect."""

    def abortConnection(self) -> None:
        self.aborting = True


class LinkTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.host = Host(unproved(A), self.clock)
        self.owner: RecordingOwner = self.host.owner
        self.service = Links(self.host)
        self.link = TLSLink(self.service, "127.0.0.1:6084", True, B)
        self.wire = Wire()
        self.link.makeConnection(self.wire)

    def frames(self) -> list[FramedMessage]:
        data, frames = self.wire.value(), []
        self.wire.clear()
        while data:
            size = 9 if data[0] == 129 else 8 + int.from_bytes(data[5:8])
            frames.append(FramedMessage.decode(data[:size]))
            data = data[size:]
        return frames

    def ack(self, sequence: int) -> None:
        self.link.dataReceived(AckFrame(ack_sequence=sequence, received=0).encode())


class ProvedTests(LinkTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.link._end_handshake()
        self.link.is_proved = True
        self.link.proved(unproved(B).identity, B)

    def test_frames_and_acks(self) -> None:
        """[6940-6.6.2-1]"""
        self.link.send(b"one")
        self.link.dataReceived(data_frame(0, b"two") + data_frame(1, b"three"))
        one, ack0, ack1 = self.frames()
        self.assertEqual(one, DataFrame(sequence=0, message=b"one"))
        self.assertEqual(ack0, AckFrame(ack_sequence=0, received=0))
        self.assertEqual(ack1, AckFrame(ack_sequence=1, received=2))
        self.assertEqual(self.owner.messages, [b"two", b"three"])

    def test_failing_and_recovered(self) -> None:
        """[6940-6.6.5-2]"""
        self.link.send(b"one")
        self.clock.advance(0.9)
        self.link.send(b"two")
        self.assertEqual(self.owner.events, [("opened", B)])
        self.clock.advance(0.1)
        self.assertEqual(self.owner.events[1:], [("failing", B)])
        self.clock.advance(20)
        self.ack(1)
        self.assertEqual(self.owner.events[1:], [("failing", B), ("recovered", B)])
        self.clock.advance(100)
        self.assertEqual(len(self.owner.events), 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_dead(self) -> None:
        """[6940-6.6.5-3]"""
        self.link.send(b"one")
        self.clock.pump([1, 29.9])
        self.assertFalse(self.link.closing)
        self.clock.advance(0.1)
        self.assertTrue(self.wire.aborting)
        self.link.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.owner.events[-1], ("closed", B))
        self.assertEqual(str(self.owner.reasons[0]), "no ACK for 30 s")
        self.assertEqual(self.service.told, ["handshake", "connection"])

    def test_undelivered_when_failing(self) -> None:
        """What was not acknowledged is given back when the link is failing, after that is told, and once."""
        self.link.send(b"one")
        self.link.send(b"two")
        self.ack(0)
        self.link.send(b"three")
        self.clock.advance(1)
        self.assertEqual(self.owner.undelivered, [("failing", [b"two", b"three"])])
        self.clock.advance(20)
        self.link.send(b"four")
        self.clock.advance(20)
        self.link.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.owner.undelivered[1:], [("closed", [b"four"])])

    def test_undelivered_when_closed(self) -> None:
        """However a link ends, after that is told."""
        for number in range(3):
            self.link.send(b"%d" % number)
        self.ack(1)
        self.link.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.owner.undelivered, [("closed", [b"2"])])

    def test_all_was_delivered(self) -> None:
        """Nothing is told of nothing."""
        self.link.send(b"one")
        self.ack(0)
        self.clock.advance(5)
        self.link.close()
        self.link.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.owner.undelivered, [])

    def test_undelivered_queue(self) -> None:
        """What waits for a link that is blocked goes another way as well, and does not wait any longer."""
        self.link.send(b"one")
        self.link.pauseProducing()
        self.link.send(b"two")
        self.clock.advance(1)
        self.assertEqual(self.owner.undelivered, [("failing", [b"one", b"two"])])
        self.frames()
        self.link.resumeProducing()
        self.assertEqual(self.frames(), [])
        self.link.pauseProducing()
        self.assertTrue(self.link.send(bytes(5000)))
        self.assertEqual(self.link._queued, 5000)

    def test_failing_twice(self) -> None:
        """A link that recovered gives back only what was sent since."""
        self.link.send(b"one")
        self.clock.advance(1)
        self.ack(0)
        self.link.send(b"two")
        self.clock.pump([1] * 10)
        self.assertEqual(self.owner.undelivered, [("failing", [b"one"]), ("failing", [b"two"])])

    def test_timely_acks(self) -> None:
        for number in range(50):
            self.link.send(b"")
            self.clock.advance(0.1)
            self.ack(number)
        self.assertEqual(self.owner.events, [("opened", B)])
        self.assertAlmostEqual(self.link.rtt or 0, 0.1)

    def test_blocked(self) -> None:
        """What waits is bounded, and of the ACKs only the newest is kept."""
        self.link.pauseProducing()
        while self.link.send(bytes(5000)):
            pass
        self.assertLessEqual(MOST_QUEUED - self.link._queued, 5000)
        for number in range(3):
            self.link.dataReceived(data_frame(number, b""))
        self.assertEqual(self.frames(), [])
        waiting = len(self.link._queue)
        self.link.resumeProducing()
        ack, *rest = self.frames()
        self.assertEqual(ack, AckFrame(ack_sequence=2, received=6))
        self.assertEqual([cast(DataFrame, frame).sequence for frame in rest], list(range(waiting)))
        self.assertTrue(self.link.send(b"more"))

    def test_closing_sends_what_waits(self) -> None:
        self.link.pauseProducing()
        self.link.send(b"one")
        self.link.close()
        self.assertEqual(self.frames(), [DataFrame(sequence=0, message=b"one")])
        self.assertTrue(self.wire.disconnecting)
        self.assertIsNone(self.wire.producer)

    def test_closing_takes_no_longer_than_it_may(self) -> None:
        self.link.close()
        self.clock.advance(5)
        self.assertTrue(self.wire.aborting)

    def test_new_limit(self) -> None:
        """max-message-size of the configuration that is current."""
        self.assertFalse(self.link.send(bytes(6000)))
        self.host.configuration = type(self.host.configuration)(instance_name="x.org", max_message_size=7000)
        self.assertTrue(self.link.send(bytes(6000)))
        self.link.dataReceived(data_frame(0, bytes(6000)))
        self.assertEqual(self.owner.messages, [bytes(6000)])


class HandshakeTests(LinkTestCase):
    def test_timeout(self) -> None:
        self.clock.advance(HANDSHAKE_TIMEOUT)
        self.assertEqual(self.owner.rejected, ["handshake timeout"])
        self.assertTrue(self.wire.disconnecting)
        self.clock.advance(5)
        self.assertTrue(self.wire.aborting)
        self.link.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(self.link.opened)
        self.assertEqual(self.owner.rejected, ["handshake timeout"])
        self.assertEqual(self.owner.events, [])
        self.assertEqual(self.service.told, ["handshake", "connection"])
