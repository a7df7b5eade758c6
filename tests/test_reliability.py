"""Simple Reliability, driven by hand-made datagrams and times, and over channels that lose, repeat and reorder."""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.congestion import (
    BURST,
    DATAGRAM,
    INITIAL_WINDOW,
    LEAST_WINDOW,
    MOST_IN_FLIGHT,
    OVERHEAD,
    CongestionWindow,
    Pacer,
)
from p2psip.framing import (
    MOST_KEPT,
    MOST_REPEATS,
    REPEAT_WINDOW,
    Condition,
    Repeats,
    data_frame,
)
from p2psip.ids import NodeId
from p2psip.reliability import (
    LEAST_RTO,
    MOST_ACKS,
    MOST_REMEMBERED,
    SimpleReliability,
)
from p2psip.wire.frame import AckFrame, DataFrame, FramedMessage
from p2psip.wire.header import ForwardingHeader, NodeDestination, with_header

FULL = bytes(DATAGRAM - OVERHEAD)
"""A message of which the window counts one datagram."""


def ack(sequence: int, received: int = 0) -> bytes:
    return AckFrame(ack_sequence=sequence, received=received).encode()


def sent(datagrams: list[bytes]) -> list[tuple[int, bytes]]:
    """The sequence numbers and messages of data frames."""
    frames = [FramedMessage.decode(datagram) for datagram in datagrams]
    return [(frame.sequence, frame.message) for frame in frames if isinstance(frame, DataFrame)]


class LinkTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.link = SimpleReliability(5000)

    def sequences(self, now: float) -> list[int]:
        """Send what may leave, and tell the sequence numbers."""
        return [sequence for sequence, _ in sent(self.link.datagrams_to_send(now))]

    def acknowledge(self, now: float, *sequences: int) -> None:
        for sequence in sequences:
            self.link.receive(ack(sequence), now)

    def condition_changes(self, until: float, now: float = 0.0) -> list[tuple[float, Condition]]:
        """Let nothing arrive, from timeout to timeout; the times at which the condition changed."""
        changes = []
        condition = self.link.condition
        while (due := self.link.next_timeout(now)) is not None and due <= until:
            self.assertGreaterEqual(due, now)
            now = due
            self.link.datagrams_to_send(now)
            if self.link.condition is not condition:
                condition = self.link.condition
                changes.append((now, condition))
        return changes


class ScheduleTests(LinkTestCase):
    """When a message is sent again (RFC 6940 §6.6.3.1)."""

    def schedule(self, link: SimpleReliability) -> list[tuple[float, int]]:
        link.send(b"one", 0.0)
        found, now = [], 0.0
        while True:
            found += [(now, sequence) for sequence, _ in sent(link.datagrams_to_send(now))]
            due = link.next_timeout(now)
            if due is None:
                return [*found, (now, -1)]
            now = due

    def test_table(self) -> None:
        """Five times, each wait twice the one before, each with the next sequence number; after one more wait it
        has failed, and the link with it.

        [6940-6.6.3.1-5, 6940-6.6.3.1-6, 6940-6.6.3.1-7, 6940-6.6.3.1-8]
        """
        table = [(0.0, 0), (0.5, 1), (1.5, 2), (3.5, 3), (7.5, 4), (15.5, -1)]
        for stop_and_wait in (False, True):
            link = SimpleReliability(5000, stop_and_wait=stop_and_wait)
            self.assertEqual(self.schedule(link), table)
            self.assertEqual(link.condition, Condition.DEAD)
            self.assertEqual(link.datagrams_to_send(100.0), [])
            self.assertFalse(link.send(b"more", 100.0))

    def test_other_values_of_rto(self) -> None:
        """[6940-6.6.3.1-2, 6940-6.6.3.1-3]"""
        for rto in (0.05, 2.0):
            times = [time for time, _ in self.schedule(SimpleReliability(5000, rto=rto))]
            self.assertEqual([round(time / rto, 6) for time in times], [0, 1, 3, 7, 15, 31])

    def test_seeded(self) -> None:
        """By formula 2.2 of RFC 6298, and only before anything else was measured. [6940-6.6.3.1-4]"""
        self.link.seed(0.125)
        self.assertEqual(self.link.round_trip.rto, 0.375)
        self.link.seed(1.0)
        self.assertEqual(self.link.round_trip.rto, 0.375)
        self.assertEqual([time / 0.375 for time, _ in self.schedule(self.link)], [0, 1, 3, 7, 15, 31])

    def test_every_ack_measures(self) -> None:
        """That of each transmission, also when the message was acknowledged before; to the millisecond.

        [6940-6.6.3.1-4]
        """
        self.link.send(b"one", 10.0)
        self.assertEqual(self.sequences(10.0), [0])
        self.assertEqual(self.sequences(10.5), [1])
        self.acknowledge(10.625, 1)
        self.assertEqual(self.link.round_trip.smoothed, 0.125)
        self.assertEqual(self.link.round_trip.rto, 0.375)
        self.acknowledge(10.75, 0)
        self.assertEqual(self.link.round_trip.smoothed, 7 / 8 * 0.125 + 1 / 8 * 0.75)
        self.assertEqual(self.link.round_trip.rto, 1.016)  # 0.203125 + 4 * 0.203125, rounded up
        smoothed = self.link.round_trip.smoothed
        self.acknowledge(11.0, 0, 1, 2, 0xFFFFFFFF)
        self.assertEqual(self.link.round_trip.smoothed, smoothed)

    def test_least_rto(self) -> None:
        for sequence in range(10):
            self.link.send(b"", sequence)
            self.link.datagrams_to_send(sequence)
            self.acknowledge(sequence + 0.001, sequence)
        self.assertEqual(self.link.round_trip.rto, LEAST_RTO)

    def test_ack_of_any_transmission(self) -> None:
        """The first one's may come last."""
        self.link.send(b"one", 0.0)
        self.assertEqual(self.sequences(0.0) + self.sequences(0.5) + self.sequences(1.5), [0, 1, 2])
        self.acknowledge(1.6, 0)
        self.assertIsNone(self.link.next_timeout(1.6))
        self.assertEqual(self.sequences(100.0), [])
        self.assertEqual(self.link.take_undelivered(), [])

    def test_sequences_wrap(self) -> None:
        self.link._next = 0xFFFFFFFF
        self.link.send([b"last", b"first"], 0.0)
        self.assertEqual(sent(self.link.datagrams_to_send(0.0)), [(0xFFFFFFFF, b"last"), (0, b"first")])
        self.acknowledge(0.1, 0xFFFFFFFF)
        self.assertEqual(self.link.take_undelivered(), [b"first"])
        self.acknowledge(0.1, 0)
        self.assertEqual(self.link.window.in_flight, 0)


class StopAndWaitTests(LinkTestCase):
    """The sender of RFC 6940 §6.6.3.1."""

    def test_one_at_a_time(self) -> None:
        """And 10 ms after the ACK the next. [6940-6.6.3.1-1, 6940-6.6.3.1-11]"""
        link = self.link = SimpleReliability(5000, stop_and_wait=True)
        link.send([b"one", b"two"], 1.0)
        self.assertEqual(sent(link.datagrams_to_send(1.0)), [(0, b"one")])
        self.assertEqual(sent(link.datagrams_to_send(1.5)), [(1, b"one")])
        self.acknowledge(1.6, 0)
        self.assertEqual(self.sequences(1.6), [])
        due = link.next_timeout(1.6)
        assert due is not None
        self.assertAlmostEqual(due, 1.61)
        self.assertEqual(sent(link.datagrams_to_send(due)), [(2, b"two")])


class ConditionTests(LinkTestCase):
    """When the link is failing, dead, and working again (RFC 6940 §6.6.3.1)."""

    def test_failing_and_dead(self) -> None:
        """After 0.5 s of silence the third retransmission is at 3.5 s. [6940-6.6.3.1-9, 6940-6.6.3.1-8]"""
        self.link.send(b"one", 0.0)
        self.link.datagrams_to_send(0.0)
        self.assertEqual(self.condition_changes(100.0), [(3.5, Condition.FAILING), (15.5, Condition.DEAD)])

    def test_many_messages(self) -> None:
        """However many wait: the oldest keeps its times, and only what fits the window goes with it."""
        for number in range(20):
            self.link.send(FULL + bytes(100 + number), 0.0)
        self.link.datagrams_to_send(0.0)
        self.assertEqual(self.condition_changes(100.0), [(3.5, Condition.FAILING), (15.5, Condition.DEAD)])
        self.assertEqual(self.link.retransmissions, 4)  # two would not fit
        self.assertEqual(len(self.link.take_undelivered()), 20)

    def test_silence_is_counted_from_the_last_ack(self) -> None:
        """An ACK at 0.25 s; then an RTO of silence, and three retransmissions beyond."""
        self.link.send([b"one", b"two"], 0.0)
        self.link.datagrams_to_send(0.0)
        self.link.receive(ack(1), 0.25)
        self.link.round_trip.rto = 0.5
        # The variation is half of 0.25 s, so 0.125 s later the first one is taken for lost.
        changes = self.condition_changes(100.0)
        # Sent again then, it waits for an RTO as before; of the five transmissions that was the second.
        self.assertEqual(changes, [(3.875, Condition.FAILING), (7.875, Condition.DEAD)])

    def test_recovers(self) -> None:
        """By any ACK of what was sent, also of something old. [6940-6.6.3.1-10]"""
        self.link.send([b"one", b"two"], 0.0)
        self.assertEqual(self.sequences(0.0), [0, 1])
        self.assertEqual(self.condition_changes(10.0), [(3.5, Condition.FAILING)])
        self.acknowledge(10.0, 77)
        self.assertEqual(self.link.condition, Condition.FAILING)
        self.acknowledge(10.0, 1)
        self.assertEqual(self.link.condition, Condition.WORKING)
        self.assertEqual(self.link.check(15.5), Condition.WORKING)

    def test_dead_is_dead(self) -> None:
        self.link.send(b"one", 0.0)
        self.condition_changes(100.0)
        self.acknowledge(100.0, 0)
        self.assertEqual(self.link.condition, Condition.DEAD)
        self.assertIsNone(self.link.next_timeout(100.0))

    def test_idle_never_fails(self) -> None:
        self.assertIsNone(self.link.next_timeout(0.0))
        self.assertEqual(self.link.check(1e9), Condition.WORKING)

    def test_one_message_fails_alone(self) -> None:
        """While others are acknowledged the link works: a message that never arrives is given up."""
        self.link.send(b"bad", 0.0)
        number, now = 0, 0.0
        transmissions = 0
        while self.link.given_up == 0:
            self.link.send(b"good%d" % number, now)
            number += 1
            for sequence, message in sent(self.link.datagrams_to_send(now)):
                if message == b"bad":
                    transmissions += 1
                else:
                    self.acknowledge(now + 0.01, sequence)
            self.assertEqual(self.link.condition, Condition.WORKING)
            now += 0.3
            self.assertLess(now, 60)
        self.assertEqual(transmissions, 5)
        self.assertEqual(self.link.take_undelivered(), [])

    def test_backs_off_as_a_whole(self) -> None:
        """What is sent for the first time after timeouts waits as long as what timed out (RFC 6298 §5.5)."""
        self.link.send(b"one", 0.0)
        self.condition_changes(1.5)
        self.link.send(b"two", 1.6)
        self.assertEqual(sent(self.link.datagrams_to_send(1.6)), [(3, b"two")])
        self.assertEqual(self.link._unacked[1].due, 1.6 + 4 * 0.5)


class GiveBackTests(LinkTestCase):
    """What the other end may not have got, for another way."""

    def test_taken_once(self) -> None:
        """What was sent, in its order, and then what was queued."""
        messages = [FULL[:-1] + bytes([number]) for number in range(15)]
        self.link.send(messages, 0.0)
        self.assertEqual(self.sequences(0.0), list(range(10)))
        self.acknowledge(0.1, 3)
        del messages[3]
        self.assertEqual(self.link.take_undelivered(), messages)
        self.assertEqual(self.link.take_undelivered(), [])
        self.link.send(b"later", 0.2)
        self.assertEqual(self.link.take_undelivered(), [b"later"])

    def test_the_last_is_still_sent(self) -> None:
        """Its ACK is what a link recovers by; the others go another way only."""
        self.link.send([b"one", b"two"], 0.0)
        self.link.datagrams_to_send(0.0)
        self.assertEqual(self.condition_changes(3.5), [(3.5, Condition.FAILING)])
        self.assertEqual(self.link.take_undelivered(), [b"one", b"two"])
        again = sent(self.link.datagrams_to_send(7.5))
        self.assertEqual([message for _, message in again], [b"two"])
        self.acknowledge(7.6, again[0][0])
        self.assertEqual(self.link.condition, Condition.WORKING)
        self.assertIsNone(self.link.next_timeout(7.6))
        self.assertEqual(self.link.window.in_flight, 0)

    def test_the_last_fails_as_the_link_does(self) -> None:
        """Then one from the queue is still sent, to find out by."""
        self.link.send(bytes(4000), 0.0)
        now = 0.0
        for message in (b"one", b"two"):  # acknowledged, so that two transmissions of the first one are soon lost
            self.link.send(message, now)
            self.acknowledge(now + 0.1, self.sequences(now)[-1])
            now = self.link.next_timeout(now + 0.1) or 0.0
        self.link.send([b"three", b"four"], now)
        while self.link.condition is Condition.WORKING:
            self.assertEqual([message for _, message in sent(self.link.datagrams_to_send(now))], [bytes(4000)])
            now = self.link.next_timeout(now) or 0.0
            self.link.check(now)
        self.assertEqual((self.link.condition, self.link.given_up), (Condition.FAILING, 1))
        self.assertEqual(self.link.take_undelivered(), [b"three", b"four"])
        ((sequence, message),) = sent(self.link.datagrams_to_send(now))
        self.assertEqual(message, b"three")
        self.acknowledge(now + 0.1, sequence)
        self.assertEqual(self.link.condition, Condition.WORKING)
        self.assertIsNone(self.link.next_timeout(now + 0.1))

    def test_dies_as_before(self) -> None:
        """At the same time as if nothing had been taken."""
        self.link.send([b"one", b"two"], 0.0)
        self.link.datagrams_to_send(0.0)
        self.condition_changes(3.5)
        self.link.take_undelivered()
        self.link.send(b"three", 3.6)
        self.assertEqual(self.condition_changes(100.0, 3.6), [(15.5, Condition.DEAD)])
        self.assertEqual(self.link.take_undelivered(), [b"three"])

    def test_queue_is_bounded(self) -> None:
        """In bytes, all of several messages or none; ACKs and giving back make room."""
        large = bytes(60000)
        fits = MOST_KEPT // (60000 + OVERHEAD)
        self.assertTrue(self.link.send([large] * (fits - 1), 0.0))
        self.assertFalse(self.link.send([large, large], 0.0))
        self.assertTrue(self.link.send(large, 0.0))
        self.assertFalse(self.link.send(large, 0.0))
        self.assertEqual(self.sequences(0.0), [0])
        self.acknowledge(0.1, 0)
        self.assertTrue(self.link.send(large, 0.1))
        self.assertFalse(self.link.send(large, 0.1))
        self.assertEqual(len(self.link.take_undelivered()), fits)
        self.assertTrue(self.link.send([large] * (fits - 1), 0.2))  # one was kept, to find out by
        empty = SimpleReliability(5000)
        self.assertFalse(empty.send([b""] * (MOST_KEPT // OVERHEAD + 1), 0.0))

    def test_memory_is_bounded(self) -> None:
        """While an old message is not acknowledged, and more and more new ones are."""
        self.link.send(b"bad", 0.0)
        self.link.datagrams_to_send(0.0)
        for number in range(3 * MOST_REMEMBERED):
            self.link.send(b"good", 0.1)
            (sequence,) = self.sequences(0.1)
            self.link.receive(ack(sequence, 1 << min(31, number + 1)), 0.1)
        self.assertLessEqual(len(self.link._sent), MOST_REMEMBERED)
        self.assertLessEqual(len(self.link._timers), MOST_REMEMBERED + 5)
        self.assertEqual({timer[2].content for timer in self.link._timers}, {b"bad", b""})
        self.assertEqual(self.link.take_undelivered(), [b"bad"])


class LossTests(LinkTestCase):
    """What is taken for lost before its time is over."""

    def setUp(self) -> None:
        super().setUp()
        self.link.seed(0.125)
        self.link.send([FULL[:-1] + bytes([number]) for number in range(40)], 0.0)
        self.assertEqual(self.sequences(0.0), list(range(10)))

    def test_three_later_ones(self) -> None:
        """No two of them are enough; the window is halved, once for all losses of one flight.

        [6940-6.6.3-1]
        """
        size = self.link.window.size
        self.acknowledge(0.1, 2, 3)
        self.assertEqual(self.link.retransmissions, 0)
        grown = size + 2 * DATAGRAM
        self.assertEqual(self.link.window.size, grown)
        self.acknowledge(0.1, 4)
        self.assertEqual(self.link.window.size, (grown + DATAGRAM) // 2)
        self.assertEqual(self.link.window.in_flight, 5 * DATAGRAM)
        self.assertEqual(
            [(sequence, message[-1]) for sequence, message in sent(self.link.datagrams_to_send(0.1))], [(10, 0)]
        )
        self.assertGreaterEqual(self.link.window.size, (grown + DATAGRAM) // 2)

    def test_one_later_one(self) -> None:
        """Is enough after a moment: as long as the RTT varies, and a quarter of it at least (RFC 8985 §6.2)."""
        self.acknowledge(0.125, 8, *range(8))
        self.acknowledge(0.125, 8)
        size = self.link.window.size
        sequences = self.sequences(0.125)
        self.acknowledge(0.25, sequences[-1])
        trip = self.link.round_trip
        due = 0.25 + max((trip.smoothed or 0) / 4, trip.variation)
        self.assertLess(due, 0.125 + trip.rto)
        late = self.link._unacked[10]
        self.assertEqual((late.due, late.transmissions), (due, 1))
        self.link.check(due - 0.001)
        self.assertFalse(late.lost)
        self.link.check(due)
        self.assertTrue(late.lost)
        self.assertLess(self.link.window.size, size)
        self.assertGreater(self.link.window.size, size // 2 - DATAGRAM)

    def test_lost_again(self) -> None:
        """A retransmission has its own number, so its loss is seen in the same way; and halves again."""
        self.acknowledge(0.1, 1, 2, 3, 4)
        self.assertEqual(self.sequences(0.1), [10])
        size = self.link.window.size
        self.acknowledge(0.12, *range(5, 10))
        self.assertEqual(self.sequences(0.12)[:3], [11, 12, 13])
        self.assertGreaterEqual(self.link.window.size, size)
        self.acknowledge(0.14, 11, 12, 13)
        self.assertTrue(self.link._unacked[0].lost)
        self.assertLess(self.link.window.size, size)

    def test_the_mask_prevents(self) -> None:
        """What it tells of is not taken for lost, and makes room; but its timer runs on."""
        for sequence in (1, 2, 3, 4):
            self.link.receive(ack(sequence, (2 << sequence) - 2), 0.1)
        self.assertEqual(self.link.retransmissions, 0)
        self.assertEqual(self.link.window.in_flight, 5 * DATAGRAM)
        self.assertEqual(self.link._unacked[0].due, 0.375)
        self.acknowledge(0.1, *range(5, 10))
        size = self.link.window.size
        sequences = self.sequences(0.1)
        self.acknowledge(0.2, *sequences)
        self.assertEqual(sent(self.link.datagrams_to_send(0.375))[0][1][-1], 0)
        self.assertGreaterEqual(self.link.window.size, min(size, INITIAL_WINDOW))  # for it was idle meanwhile

    def test_timeout_collapses(self) -> None:
        """To the least, with slow start to half of what was; once for one flight. [6940-6.6.3-1]"""
        before = self.link.window.size
        self.assertEqual(self.sequences(0.375), [10, 11])
        self.assertEqual(self.link.window.size, LEAST_WINDOW)
        self.assertEqual(self.link.window.threshold, before // 2)
        self.assertEqual(self.link.window.in_flight, LEAST_WINDOW)
        self.acknowledge(0.5, 10)
        self.assertEqual(self.link.window.size, LEAST_WINDOW + DATAGRAM)

    def test_head_of_line(self) -> None:
        """What is lost holds nothing back: those behind it go on."""
        arrived: set[int] = set()
        now, flying = 0.0, list(range(10))
        while len(arrived) < 39 and now < 1.0:
            now += 0.02
            self.acknowledge(now, *[sequence for sequence in flying if sequence])
            arrived |= {sequence for sequence in flying if sequence}
            flying = [sequence for sequence, message in sent(self.link.datagrams_to_send(now)) if message[-1]]
        self.assertEqual(len(arrived), 39)
        self.assertEqual(self.link.condition, Condition.WORKING)


class WindowTests(SynchronousTestCase):
    """RFC 5681, in bytes. [6940-6.6.3-1]"""

    def full(self, window: CongestionWindow) -> None:
        """One round trip in which all of the window is used, and all arrives."""
        count = window.size // DATAGRAM
        for _ in range(count):
            self.assertTrue(window.admits(DATAGRAM))
            window.sent(DATAGRAM)
        for _ in range(count):
            window.arrived(DATAGRAM)
            if window.admits(DATAGRAM):
                window.sent(DATAGRAM)
        window.withdrawn(window.in_flight)

    def test_slow_start_and_avoidance(self) -> None:
        window = CongestionWindow()
        self.full(window)
        self.assertEqual(window.size, 2 * INITIAL_WINDOW)
        window.halve()
        self.assertEqual(window.size, INITIAL_WINDOW)
        self.full(window)
        self.assertLess(abs(window.size - INITIAL_WINDOW - DATAGRAM), DATAGRAM / 10)

    def test_bounds(self) -> None:
        window = CongestionWindow()
        for _ in range(10):
            self.full(window)
        self.assertEqual(window.size, MOST_IN_FLIGHT)
        for _ in range(20):
            window.halve()
        self.assertEqual(window.size, LEAST_WINDOW)

    def test_repeated_timeouts(self) -> None:
        """The threshold remembers the window that was too large, not the one that collapsed."""
        window = CongestionWindow()
        window.collapse(again=False)
        window.collapse(again=True)
        self.assertEqual((window.size, window.threshold), (LEAST_WINDOW, INITIAL_WINDOW // 2))

    def test_unused_window_does_not_grow(self) -> None:
        window = CongestionWindow()
        for _ in range(100):
            window.sent(DATAGRAM)
            window.arrived(DATAGRAM)
        self.assertEqual(window.size, INITIAL_WINDOW)

    def test_idle(self) -> None:
        window = CongestionWindow()
        self.full(window)
        window.idle()
        self.assertEqual(window.size, INITIAL_WINDOW)

    def test_a_large_message_alone(self) -> None:
        window = CongestionWindow()
        window.collapse(again=False)
        self.assertTrue(window.admits(5000))
        window.sent(5000)
        self.assertFalse(window.admits(1))

    def test_pacing(self) -> None:
        """A burst at once, then the window spread over the round trip, and a little faster than that."""
        window, pacer = CongestionWindow(), Pacer()
        window.size = window.threshold = 10 * BURST
        now, at_once, count = 100.0, 0, 0
        while now < 100.1:
            pacer.sent(DATAGRAM, window, 0.1, now)
            count += 1
            at_once += now == 100.0
            now = max(now, pacer.free_at)
        self.assertEqual(at_once, BURST // DATAGRAM + 1)
        self.assertLessEqual(abs(count - 1.25 * 100 - at_once), 2)

    def test_no_burst(self) -> None:
        """As large as the window may be: a link leaves `BURST`, and the rest when the pacer says."""
        link = SimpleReliability(5000)
        link.seed(0.1)
        link.window.size = link.window.threshold = 100 * DATAGRAM
        size = 1000 + OVERHEAD
        link.send([bytes(1000)] * 100, 0.0)
        self.assertEqual(len(link.datagrams_to_send(0.0)), BURST // size + 1)
        due = link.next_timeout(0.0)
        assert due is not None
        rate = 1.25 * link.window.size / 0.1
        self.assertAlmostEqual(due, ((BURST // size + 1) * size - BURST) / rate)
        self.assertEqual(len(link.datagrams_to_send(due)), 1)


class ReceivingTests(LinkTestCase):
    def test_every_frame_is_acknowledged(self) -> None:
        """At once, once, with the mask, repeated messages as well. [6940-6.6.2-1, 6940-6.6.2-2]"""
        for sequence, message, new in ((0, b"a", True), (1, b"b", True), (2, b"a", False), (5, b"c", True)):
            answer = self.link.receive(data_frame(sequence, message), 0.1 * sequence)
            self.assertEqual(answer, message if new else None)
        self.assertEqual(self.link.next_timeout(1.0), 1.0)
        expected = [ack(0), ack(1, 0b10), ack(2, 0b110), ack(5, 0b111000)]
        self.assertEqual(self.link.datagrams_to_send(1.0), expected)
        self.assertEqual(self.link.take_acks(), [])
        self.assertEqual(self.link.duplicates, 1)

    def test_acks_wait_for_nothing(self) -> None:
        """Neither for the window nor for those that wait in it."""
        self.link.send([FULL] * 20, 0.0)
        self.link.datagrams_to_send(0.0)
        self.link.receive(data_frame(0, b"a"), 0.01)
        self.assertEqual(self.link.datagrams_to_send(0.01), [ack(0)])

    def test_acks_not_taken_are_bounded(self) -> None:
        for sequence in range(1000):
            self.link.receive(data_frame(sequence, b"%d" % sequence), 0.0)
        acks = self.link.take_acks()
        self.assertEqual(len(acks), MOST_ACKS)
        self.assertEqual(acks[-1], ack(999, 0xFFFFFFFE))

    def test_end_to_end_retransmission(self) -> None:
        """The same bytes get through again after overlay-reliability-timer, however often the link repeated them."""
        taken = [
            now
            for sequence, now in enumerate((0.0, 0.5, 1.5, 2.3, 3.0, 3.5))
            if self.link.receive(data_frame(sequence, b"request"), now)
        ]
        self.assertEqual(taken, [0.0, 3.0])

    def test_empty_messages(self) -> None:
        self.assertEqual(self.link.receive(data_frame(0, b""), 0.0), b"")

    def test_repeats_are_bounded(self) -> None:
        """In number and in time; what was here first is forgotten first."""
        repeats = Repeats(REPEAT_WINDOW)
        for number in range(MOST_REPEATS + 1):
            self.assertFalse(repeats.is_repeated(b"%d" % number, 1.0))
        self.assertEqual(len(repeats), MOST_REPEATS)
        self.assertTrue(repeats.is_repeated(b"1", 1.0))
        self.assertFalse(repeats.is_repeated(b"0", 1.0))
        self.assertFalse(repeats.is_repeated(b"later", 1.0 + REPEAT_WINDOW))
        self.assertEqual(len(repeats), 1)

    def test_malformed(self) -> None:
        """Counted, not acknowledged, and the next datagram is good."""
        good = data_frame(0, b"message")
        bad = [b"", b"\x80", b"GET / HTTP/1.1", b"\x82" + good[1:], good[:-1], good + b"x", ack(0)[:-1], ack(0) + b"x"]
        for number, datagram in enumerate(bad, 1):
            self.assertIsNone(self.link.receive(datagram, 0.0))
            self.assertEqual(self.link.malformed, number)
        self.assertEqual(self.link.take_acks(), [])
        self.assertIsNone(self.link.fault)
        self.assertEqual(self.link.receive(good, 0.0), b"message")

    @given(st.lists(st.one_of(st.binary(max_size=40), st.binary(max_size=12).map(lambda rest: b"\x81" + rest))))
    def test_any_datagrams(self, datagrams: list[bytes]) -> None:
        link = SimpleReliability(30)
        link.send([b"one", b"two"], 0.0)
        link.datagrams_to_send(0.0)
        for datagram in datagrams:
            link.receive(datagram, 0.0)
        self.assertLessEqual(len(link._unacked), 2)


class OversizeTests(LinkTestCase):
    """Messages larger than max-message-size (RFC 6940 §6.6)."""

    def message(self, entries: int, size: int) -> bytes:
        via = tuple(NodeDestination(node_id=NodeId(bytes([n]) * 16)) for n in range(1, entries + 1))
        header = ForwardingHeader(
            overlay=1, configuration_sequence=1, transaction_id=1, via_list=via, destination_list=via[:1]
        )
        return with_header(header, b"\x00\x17" + bytes(size))

    def setUp(self) -> None:
        self.link = SimpleReliability(1000)

    def test_beginning(self) -> None:
        """The header and the message code, for the error, which still leaves; then nothing more. [6940-6.6-1]"""
        message = self.message(3, 5000)
        self.assertEqual(self.link.receive(data_frame(0, message), 0.0), message[:1000])
        self.assertEqual(str(self.link.fault), "message larger than max-message-size")
        self.assertIsNone(self.link.receive(data_frame(1, b"more"), 0.0))
        self.assertEqual(self.link.take_acks(), [])
        self.assertTrue(self.link.send(b"too large", 0.0))
        self.assertEqual(self.link.datagrams_to_send(0.0), [data_frame(0, b"too large")])

    def test_largest(self) -> None:
        message = self.message(3, 0)
        message += bytes(1000 - len(message))
        self.assertEqual(self.link.receive(data_frame(0, message), 0.0), message)
        self.assertIsNone(self.link.fault)

    def test_header_too_large(self) -> None:
        """Nothing to answer along, also where only the message code is cut off. [6940-6.6-2]"""
        message = self.message(60, 0)
        for link in (self.link, SimpleReliability(len(message) - 1)):
            self.assertIsNone(link.receive(data_frame(0, message), 0.0))
            self.assertEqual(str(link.fault), "forwarding header larger than max-message-size")

    def test_new_limit(self) -> None:
        self.link.max_message_size = 10000
        message = self.message(3, 5000)
        self.assertEqual(self.link.receive(data_frame(0, message), 0.0), message)


class Channel:
    """Two links, and datagrams between them that are lost, repeated and overtaken; its own time."""

    def __init__(self, random: Random, loss: float, repeated: float, jitter: float) -> None:
        self.links = SimpleReliability(5000), SimpleReliability(5000)
        self.received: tuple[list[tuple[float, bytes]], list[tuple[float, bytes]]] = ([], [])
        self.now = 0.0
        self.data_frames: Counter[bytes] = Counter()
        self.acks: Counter[int] = Counter()
        self._random, self._loss, self._repeated, self._jitter = random, loss, repeated, jitter
        self.most = 1 << 24
        """Bytes of the largest datagram that passes."""
        self._events: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    def pump(self, end: int) -> None:
        for datagram in self.links[end].datagrams_to_send(self.now):
            if datagram[0] == 128:
                self.data_frames[datagram[8:]] += 1
            for _ in range(1 + (self._random.random() < self._repeated)):
                if self._random.random() >= self._loss and len(datagram) <= self.most:
                    self._count += 1
                    at = self.now + 0.01 + self._random.random() * self._jitter
                    heappush(self._events, (at, self._count, 1 - end, datagram))

    def run(self, until: float) -> None:
        """Until nothing is left to do, or `until`."""
        for end in (0, 1):
            self.pump(end)
        while True:
            timeouts = [link.next_timeout(self.now) for link in self.links]
            times = [time for time in timeouts if time is not None] + [event[0] for event in self._events[:1]]
            if not times or min(times) > until:
                return
            self.now = max(self.now, min(times))
            while self._events and self._events[0][0] <= self.now:
                _, _, end, datagram = heappop(self._events)
                self.acks[end] += datagram[0] == 128
                message = self.links[end].receive(datagram, self.now)
                if message is not None:
                    self.received[end].append((self.now, message))
            for end in (0, 1):
                self.pump(end)
            self.settled()

    def settled(self) -> None:
        """Called after each event."""


class Impatient(Channel):
    """Takes back what was not delivered as soon as a link is failing."""

    def __init__(self, random: Random, loss: float) -> None:
        super().__init__(random, loss, repeated=0.0, jitter=0.05)
        self.taken: list[bytes] = []
        self.failed = False

    def settled(self) -> None:
        sender = self.links[0]
        if sender.condition is Condition.FAILING:
            if not self.failed:
                self.taken += sender.take_undelivered()
            # Something is sent: else nobody would ever know whether it works again.
            assert sender.next_timeout(self.now) is not None
        self.failed = sender.condition is Condition.FAILING


class ChannelTests(SynchronousTestCase):
    @settings(max_examples=60, deadline=None)
    @given(
        st.integers(0, 2**32),
        st.floats(0, 0.3),
        st.floats(0, 0.3),
        st.floats(0, 0.3),
        st.lists(st.integers(0, 3000), min_size=1, max_size=40),
    )
    def test_everything_arrives(
        self, seed: int, loss: float, repeated: float, jitter: float, sizes: list[int]
    ) -> None:
        """Both ways, at least once, and within the window of time not twice; what does not was given up or is given
        back; none is sent more than five times.

        [6940-6.6.3.1-5, 6940-6.6.2-1]
        """
        channel = Channel(Random(seed), loss, repeated, jitter)
        messages = [number.to_bytes(2) + bytes(size) for number, size in enumerate(sizes)]
        for link in channel.links:
            self.assertTrue(link.send(messages, 0.0))
        channel.run(1000.0)
        for sender, received in zip(channel.links, reversed(channel.received), strict=True):
            arrived = {message for _, message in received}
            left = sender.take_undelivered()
            self.assertLessEqual(arrived, set(messages))
            self.assertLessEqual(len(messages) - len(arrived | set(left)), sender.given_up)
            if sender.condition is Condition.WORKING:
                self.assertEqual(left, [])
            last: dict[bytes, float] = {}
            for now, message in received:
                self.assertGreaterEqual(now - last.get(message, -100.0), REPEAT_WINDOW)
                last[message] = now
            self.assertEqual(sender.window.in_flight, 0)
        self.assertLessEqual(max(channel.data_frames.values()), 2 * 5)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 2**32), st.floats(0.3, 0.9), st.lists(st.integers(0, 4000), min_size=1, max_size=20))
    def test_failing_and_recovering(self, seed: int, loss: float, sizes: list[int]) -> None:
        """A link that is failing finds out; each message arrived, or was given back once, or was given up."""
        channel = Impatient(Random(seed), loss)
        sender = channel.links[0]
        messages = [number.to_bytes(2) + bytes(size) for number, size in enumerate(sizes)]
        sender.send(messages, 0.0)
        channel.run(10000.0)
        channel.taken += sender.take_undelivered()
        self.assertNotEqual(sender.condition, Condition.FAILING)
        self.assertEqual(len(channel.taken), len(set(channel.taken)))
        arrived = {message for _, message in channel.received[1]}
        self.assertLessEqual(len(messages) - len(arrived | set(channel.taken)), sender.given_up)
        if sender.condition is Condition.WORKING:
            self.assertEqual((sender.window.in_flight, sender.backlog), (0, 0))

    def test_twenty_percent(self) -> None:
        """Of the datagrams are lost on either way, so of every three messages one gets no ACK: the link lives."""
        channel = Channel(Random(2), loss=0.2, repeated=0.0, jitter=0.0)
        sender = channel.links[0]
        messages = [number.to_bytes(2) + FULL[2:] for number in range(800)]
        self.assertTrue(sender.send(messages, 0.0))
        channel.run(1000.0)
        self.assertEqual(sender.condition, Condition.WORKING)
        self.assertGreaterEqual(len({message for _, message in channel.received[1]}), 800 - sender.given_up)
        self.assertLessEqual(sender.given_up, 10)
        self.assertLess(channel.now, 60)

    def test_nothing_lost_nothing_repeated(self) -> None:
        channel = Channel(Random(1), loss=0.0, repeated=0.0, jitter=0.0)
        messages = [number.to_bytes(2) + bytes(1000) for number in range(500)]
        for link in channel.links:
            link.send(messages, 0.0)
        channel.run(100.0)
        for link, received in zip(channel.links, channel.received, strict=True):
            self.assertEqual([message for _, message in received], messages)
            self.assertEqual((link.retransmissions, link.duplicates), (0, 0))
        self.assertLess(channel.now, 1.0)
