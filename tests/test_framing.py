"""The framing of a link, driven by hand-made bytes and times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.framing import (
    MOST_KEPT,
    MOST_OUTSTANDING,
    RETENTION,
    Acknowledger,
    Condition,
    RoundTrip,
    StreamFraming,
    data_frame,
)
from p2psip.ids import NodeId
from p2psip.wire.frame import AckFrame, DataFrame, FramedMessage
from p2psip.wire.header import ForwardingHeader, NodeDestination, with_header


def ack(sequence: int, received: int = 0) -> bytes:
    return AckFrame(ack_sequence=sequence, received=received).encode()


class AcknowledgerTests(SynchronousTestCase):
    """What is said of what was received (RFC 6940 §6.6.2)."""

    def masks(self, sequences: list[int]) -> list[int]:
        acknowledger = Acknowledger()
        frames = [FramedMessage.decode(acknowledger.received(sequence)[0]) for sequence in sequences]
        masks = []
        for sequence, frame in zip(sequences, frames, strict=True):
            assert isinstance(frame, AckFrame)
            self.assertEqual(frame.ack_sequence, sequence)
            masks.append(frame.received)
        return masks

    def test_in_order(self) -> None:
        self.assertEqual(self.masks([0, 1, 2]), [0, 0b10, 0b110])
        self.assertEqual(self.masks(list(range(100)))[99], 0xFFFFFFFE)

    def test_gap(self) -> None:
        self.assertEqual(self.masks([0, 1, 4, 5]), [0, 0b10, 0b11000, 0b110010])
        self.assertEqual(self.masks([0, 40]), [0, 0])

    def test_disorder(self) -> None:
        self.assertEqual(self.masks([3, 1, 2]), [0, 0, 0b10])

    def test_repeated(self) -> None:
        acknowledger = Acknowledger()
        repeated = [n for n in (0, 1, 0, 5, 5, 2) if acknowledger.received(n)[1]]
        self.assertEqual(repeated, [0, 5])

    @given(st.lists(st.integers(0, 60), max_size=120))
    def test_as_the_rfc_says(self, sequences: list[int]) -> None:
        """Bit N-M for each M of the 32 received before N, if N-32 < M < N. [6940-6.6.2-2]"""
        expected = []
        for place, n in enumerate(sequences):
            previous = set(sequences[max(0, place - 32) : place])
            expected.append(sum(1 << (n - m) for m in previous if n - 32 < m < n))
        self.assertEqual(self.masks(sequences), expected)


class RoundTripTests(SynchronousTestCase):
    """RFC 6298 §2. [6940-6.6.5-1]"""

    def test_before_any_measurement(self) -> None:
        self.assertEqual(RoundTrip().rto, 1.0)
        self.assertIsNone(RoundTrip().smoothed)

    def test_first_and_later_measurements(self) -> None:
        """The formulas 2.2 and 2.3."""
        trip = RoundTrip(minimum=0)
        trip.measured(0.2)
        self.assertEqual((trip.smoothed, trip.variation), (0.2, 0.1))
        self.assertAlmostEqual(trip.rto, 0.601)
        trip.measured(0.4)
        self.assertAlmostEqual(trip.variation, 0.75 * 0.1 + 0.25 * 0.2)
        assert trip.smoothed is not None
        self.assertAlmostEqual(trip.smoothed, 0.875 * 0.2 + 0.125 * 0.4)
        self.assertAlmostEqual(trip.rto, 0.725, places=2)

    def test_bounds(self) -> None:
        """At least a second, or what the link may use; whole milliseconds above; at most a minute."""
        trip = RoundTrip()
        trip.measured(0.01)
        self.assertEqual(trip.rto, 1.0)
        fine = RoundTrip(initial=0.5, minimum=0)
        fine.measured(0.00412)
        self.assertEqual(fine.rto, 0.013)
        fine.measured(1000)
        self.assertEqual(fine.rto, 60)


class FramingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.framing = StreamFraming(1000)


class SendingTests(FramingTestCase):
    def test_frames(self) -> None:
        """Numbers from 0, one more for each message, as the wire floor reads them."""
        for number, message in enumerate((b"", b"one", bytes(70000))):
            frame = FramedMessage.decode(self.framing.send(message, 0))
            self.assertEqual(frame, DataFrame(sequence=number, message=message))
        self.assertEqual(FramedMessage.decode(data_frame(5, b"five")), DataFrame(sequence=5, message=b"five"))

    def test_round_trip(self) -> None:
        self.framing.send(b"a", 10.0)
        self.framing.send(b"b", 10.5)
        self.framing.receive(ack(0), 10.2)
        self.assertAlmostEqual(self.framing.round_trip.smoothed or 0, 0.2)
        self.framing.receive(ack(1), 10.7)
        self.assertAlmostEqual(self.framing.round_trip.smoothed or 0, 0.2)

    def test_acks_of_nothing_sent(self) -> None:
        """They measure nothing and acknowledge nothing."""
        self.framing.send(b"a", 0)
        for sequence in (1, 77, 0xFFFFFFFF):
            self.framing.receive(ack(sequence), 0.1)
        self.assertIsNone(self.framing.round_trip.smoothed)
        self.assertIsNotNone(self.framing.next_timeout())
        self.framing.receive(ack(0), 0.1)
        self.framing.receive(ack(0), 50)
        self.assertAlmostEqual(self.framing.round_trip.smoothed or 0, 0.1)

    def test_outstanding_is_bounded(self) -> None:
        for number in range(MOST_OUTSTANDING + 10):
            self.framing.send(b"", number)
        self.assertLessEqual(len(self.framing._outstanding), MOST_OUTSTANDING)
        self.framing.receive(ack(MOST_OUTSTANDING + 5), 5000)
        self.assertIsNone(self.framing.round_trip.smoothed)
        self.framing.receive(ack(MOST_OUTSTANDING + 9), 5000)
        self.assertIsNone(self.framing.next_timeout())


class UnacknowledgedTests(FramingTestCase):
    """What the other end may not have got, for another way."""

    def send(self, *messages: bytes) -> None:
        for message in messages:
            self.framing.send(message, 0)

    def test_taken_once(self) -> None:
        """In the order in which they were sent, and not what was acknowledged."""
        self.send(b"a", b"b", b"c")
        self.framing.receive(ack(0), 0.1)
        self.assertEqual(self.framing.take_unacknowledged(), [b"b", b"c"])
        self.assertEqual(self.framing.take_unacknowledged(), [])
        self.send(b"d")
        self.assertEqual(self.framing.take_unacknowledged(), [b"d"])

    def test_everything_acknowledged(self) -> None:
        self.send(b"a", b"b")
        self.framing.receive(ack(1), 0.1)
        self.assertEqual(self.framing.take_unacknowledged(), [])

    def test_the_watch_goes_on(self) -> None:
        """What was taken is still to be acknowledged, measured, and missed."""
        self.send(b"a")
        self.framing.check(1)
        self.framing.take_unacknowledged()
        self.assertEqual(self.framing.check(31), Condition.DEAD)
        self.framing.receive(ack(0), 31.5)
        self.assertEqual(self.framing.condition, Condition.WORKING)
        self.assertEqual(self.framing.round_trip.smoothed, 31.5)

    def test_kept_is_bounded(self) -> None:
        """In bytes: what is sent beyond is lost with the stream; what is acknowledged makes room."""
        large = [bytes([number]) * 60000 for number in range(40)]
        self.send(*large)
        fits = MOST_KEPT // 60000
        self.assertEqual(self.framing.take_unacknowledged(), large[:fits])
        self.send(*large)
        self.framing.receive(ack(49), 0.1)
        self.send(b"small", *large)
        self.assertEqual(self.framing.take_unacknowledged(), [*large[10:fits], b"small", *large[: fits - 7]])
        self.send(*large)
        self.assertEqual(self.framing.take_unacknowledged(), large[:fits])


class ConditionTests(FramingTestCase):
    """What the ACKs say of the link (RFC 6940 §6.6.5)."""

    def test_idle_never_fails(self) -> None:
        self.assertIsNone(self.framing.next_timeout())
        self.assertEqual(self.framing.check(1e9), Condition.WORKING)

    def test_failing(self) -> None:
        """[6940-6.6.5-2, 6940-6.6-3]"""
        self.framing.send(b"a", 100)
        self.assertEqual(self.framing.next_timeout(), 101)
        self.assertEqual(self.framing.check(100.9), Condition.WORKING)
        self.assertEqual(self.framing.check(101), Condition.FAILING)

    def test_recovers(self) -> None:
        self.framing.send(b"a", 100)
        self.framing.check(101)
        self.framing.receive(ack(0), 110)
        self.assertEqual(self.framing.condition, Condition.WORKING)
        self.assertIsNone(self.framing.next_timeout())

    def test_dead(self) -> None:
        """[6940-6.6.5-3]"""
        self.framing.send(b"a", 100)
        self.framing.check(101)
        self.assertEqual(self.framing.next_timeout(), 101 + RETENTION)
        self.assertEqual(self.framing.check(130.9), Condition.FAILING)
        self.assertEqual(self.framing.check(131), Condition.DEAD)
        self.assertIsNone(self.framing.next_timeout())

    def test_progress_is_enough(self) -> None:
        """On a slow link much is outstanding, but as long as ACKs come it works."""
        for _ in range(10):
            self.framing.send(b"", 0)
        for number in range(9):
            now = 0.9 * (number + 1)
            self.assertEqual(self.framing.check(now), Condition.WORKING)
            self.framing.receive(ack(number), now)
        assert self.framing.next_timeout() is not None

    def test_ack_stands_for_all_before(self) -> None:
        """A stream keeps order, so a peer that leaves ACKs out loses nothing."""
        for _ in range(5):
            self.framing.send(b"", 0)
        self.framing.receive(ack(4), 0.1)
        self.assertIsNone(self.framing.next_timeout())

    @given(st.lists(st.tuples(st.floats(0, 2), st.booleans()), max_size=40))
    def test_any_loss_of_acks(self, steps: list[tuple[float, bool]]) -> None:
        """Whichever ACKs are lost, the next one mends all; and silence always ends in failing."""
        framing = StreamFraming(1000)
        now = 0.0
        for number, (pause, arrives) in enumerate(steps):
            framing.send(b"", now)
            now += pause
            framing.check(now)
            if arrives:
                framing.receive(ack(number), now)
                self.assertEqual(framing.condition, Condition.WORKING)
                self.assertIsNone(framing.next_timeout())
        framing.send(b"", now)
        while framing.check(now) is Condition.WORKING:
            due = framing.next_timeout()
            assert due is not None
            self.assertLessEqual(due, now + framing.round_trip.rto)
            now = due
        framing.receive(ack(len(steps)), now)
        self.assertEqual(framing.condition, Condition.WORKING)


class ReceivingTests(FramingTestCase):
    def test_every_message_is_acknowledged(self) -> None:
        """[6940-6.6.2-1]"""
        data = data_frame(0, b"zero") + ack(9) + data_frame(1, b"one")
        self.assertEqual(self.framing.receive(data, 0), [b"zero", b"one"])
        self.assertEqual(self.framing.take_acks(), ack(0) + ack(1, 0b10))
        self.assertEqual(self.framing.take_acks(), b"")

    def test_only_the_newest_ack(self) -> None:
        self.framing.receive(b"".join(data_frame(n, b"") for n in range(5)), 0)
        self.framing.drop_old_acks()
        self.assertEqual(self.framing.take_acks(), ack(4, 0b11110))

    def test_repeated_frames(self) -> None:
        self.assertEqual(self.framing.receive(data_frame(0, b"a") + data_frame(0, b"a"), 0), [b"a"])
        self.assertEqual(self.framing.duplicates, 1)

    def test_split_at_every_byte(self) -> None:
        stream = data_frame(0, b"zero") + ack(0) + data_frame(1, b"") + ack(1) + data_frame(2, b"x" * 300)
        for split in range(len(stream)):
            framing = StreamFraming(1000)
            framing.send(b"", 0)
            framing.send(b"", 0)
            messages = framing.receive(stream[:split], 0.5) + framing.receive(stream[split:], 0.5)
            self.assertEqual(messages, [b"zero", b"", b"x" * 300])
            self.assertEqual(framing.take_acks(), ack(0) + ack(1, 0b10) + ack(2, 0b110))
            self.assertIsNone(framing.next_timeout())

    @given(st.lists(st.one_of(st.binary(max_size=40), st.none()), max_size=20), st.data())
    def test_split_anyhow(self, contents: list[bytes | None], data: st.DataObject) -> None:
        stream = b""
        expected: list[bytes] = []
        for content in contents:
            if content is None:
                stream += ack(3)
            else:
                stream += data_frame(len(expected), content)
                expected.append(content)
        framing = StreamFraming(1000)
        messages = []
        while stream:
            size = data.draw(st.integers(1, len(stream)))
            messages += framing.receive(stream[:size], 0)
            stream = stream[size:]
        self.assertEqual(messages, expected)
        self.assertIsNone(framing.fault)

    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        """Never an exception, and no more kept than one message."""
        framing = StreamFraming(50)
        for place in range(0, len(data), 7):
            framing.receive(data[place : place + 7], 0)
            self.assertLess(framing._have if framing._chunks else 0, 8 + 50 + 38)

    def test_unknown_frame(self) -> None:
        self.assertEqual(self.framing.receive(data_frame(0, b"good") + b"GET / HTTP/1.1", 0), [b"good"])
        self.assertIn("unknown type 71", str(self.framing.fault))
        self.assertEqual(self.framing.receive(data_frame(1, b"more"), 0), [])


class OversizeTests(FramingTestCase):
    """Messages larger than max-message-size (RFC 6940 §6.6)."""

    def message(self, entries: int, size: int) -> bytes:
        via = tuple(NodeDestination(node_id=NodeId(bytes([n]) * 16)) for n in range(1, entries + 1))
        header = ForwardingHeader(
            overlay=1, configuration_sequence=1, transaction_id=1, via_list=via, destination_list=via[:1]
        )
        return with_header(header, b"\x00\x17" + bytes(size))

    def test_largest(self) -> None:
        message = self.message(3, 0)
        message += bytes(1000 - len(message))
        self.assertEqual(self.framing.receive(data_frame(0, message), 0), [message])
        self.assertIsNone(self.framing.fault)

    def test_beginning_is_handed_up_early(self) -> None:
        """The header and the message code are enough, in however small pieces they come. [6940-6.6-1]"""
        message = self.message(3, 5000)
        stream = data_frame(0, b"before") + data_frame(1, message)
        for step in (1, 3, 50, len(stream)):
            framing = StreamFraming(1000)
            messages = []
            for place in range(0, len(stream), step):
                messages += framing.receive(stream[place : place + step], 0)
                if framing.fault:
                    break
            self.assertEqual(str(framing.fault), "message larger than max-message-size")
            before, beginning = messages
            self.assertEqual(before, b"before")
            self.assertTrue(message.startswith(beginning))
            self.assertGreaterEqual(len(beginning), 38 + 4 * 18 + 2)
            self.assertLessEqual(len(beginning), 1000)
            self.assertEqual(framing.take_acks(), ack(0))

    def test_header_too_large(self) -> None:
        """Nothing to answer along: no message. [6940-6.6-2]"""
        self.assertEqual(self.framing.receive(data_frame(0, self.message(60, 0)), 0), [])
        self.assertEqual(str(self.framing.fault), "forwarding header larger than max-message-size")

    def test_new_limit(self) -> None:
        self.framing.max_message_size = 10000
        message = self.message(3, 5000)
        self.assertEqual(self.framing.receive(data_frame(0, message), 0), [message])
