"""How large a message may be, and Simple Reliability over channels that take less than they did."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.congestion import OVERHEAD
from p2psip.framing import Condition
from p2psip.pathmtu import PathMTU
from p2psip.reliability import INITIAL_RTO, SimpleReliability

from .test_reliability import Channel, ack, sent

LEAST, MORE = 500, 1300


def halves(message: bytes, most: int) -> Sequence[bytes]:
    """Pieces of at most `most` bytes."""
    return [message[at : at + most] for at in range(0, len(message), most)]


class PathMTUTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = PathMTU(LEAST)
        self.path.probed(MORE)

    def test_probed(self) -> None:
        """What has passed once is known to pass, whatever else does."""
        self.path.probed(MORE - 100)
        self.assertEqual((self.path.least, self.path.most), (LEAST, MORE))

    def test_lost(self) -> None:
        self.assertTrue(self.path.lost(MORE, 7))
        self.assertEqual(self.path.most, LEAST)

    def test_small_or_too_large(self) -> None:
        """That a message is lost which was known to pass says nothing, nor that one is which was not."""
        self.assertFalse(self.path.lost(LEAST, 7))
        self.assertFalse(self.path.lost(MORE + 1, 7))
        self.assertEqual(self.path.most, MORE)

    def test_others_arrive(self) -> None:
        """One as large that was sent later and arrived: this one was lost by chance."""
        self.path.arrived(MORE - 1, 9)
        self.path.arrived(MORE, 6)
        self.assertTrue(self.path.lost(MORE, 7))
        self.path.probed(MORE)
        self.path.arrived(MORE, 9)
        self.path.arrived(MORE, 8)
        self.assertFalse(self.path.lost(MORE - 1, 9))
        self.assertEqual(self.path.most, MORE)
        self.assertTrue(self.path.lost(MORE - 1, 10))


class ProbeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.link = SimpleReliability(5000, least=LEAST, cut=halves)

    def test_acknowledged(self) -> None:
        """The ACK makes the path as large as the probe, and measures the RTT as any other."""
        ((number, message),) = sent([self.link.probe(bytes(MORE), 1.0)])
        self.assertEqual((number, message), (0, bytes(MORE)))
        self.assertTrue(self.link.probing)
        self.link.receive(ack(0), 1.125)
        self.assertFalse(self.link.probing)
        self.assertEqual(self.link.path.most, MORE)
        self.assertEqual(self.link.round_trip.smoothed, 0.125)

    def test_lost(self) -> None:
        """It is not sent again, and says nothing of the link; not even when later messages arrive."""
        self.link.probe(bytes(MORE), 0.0)
        self.assertIsNone(self.link.next_timeout(0.0))
        self.assertEqual((self.link.backlog, self.link.window.in_flight), (0, 0))
        size = self.link.window.size
        self.link.send([b"small"] * 5, 0.0)
        self.assertEqual([number for number, _ in sent(self.link.datagrams_to_send(0.0))], [1, 2, 3, 4, 5])
        for number in range(1, 6):
            self.link.receive(ack(number), 0.1)
        self.assertIsNone(self.link.next_timeout(0.1))
        self.assertEqual((self.link.window.size, self.link.retransmissions), (size, 0))
        self.assertEqual(self.link.path.most, LEAST)
        self.assertEqual(self.link.take_undelivered(), [])

    def test_late(self) -> None:
        """Its ACK counts whenever it comes, but not after a message as large was found to be lost."""
        self.link.probe(bytes(MORE), 0.0)
        self.link.receive(ack(0), 3.0)
        self.assertEqual(self.link.path.most, MORE)
        self.link.probe(bytes(MORE + 100), 10.0)
        self.link.send(bytes(MORE), 10.0)
        now: float | None = 10.0
        while self.link.path.most > LEAST and now is not None:
            self.link.datagrams_to_send(now)
            now = self.link.next_timeout(now)
        self.assertEqual(self.link.path.most, LEAST)
        self.link.receive(ack(1), 100.0)
        self.assertEqual(self.link.path.most, LEAST)


class BlackHoleTests(SynchronousTestCase):
    """The path takes 600 bytes from now on, of messages of 1300 before."""

    def setUp(self) -> None:
        self.open(loss=0.0)

    def open(self, loss: float, seed: int = 1) -> None:
        self.channel = channel = Channel(Random(seed), loss, 0.0, 0.0)
        self.sender = SimpleReliability(5000, least=LEAST, cut=halves)
        self.sender.path.probed(MORE)
        channel.links = self.sender, channel.links[1]
        channel.most = 600

    def received(self) -> list[bytes]:
        return [message for _, message in self.channel.received[1]]

    def test_alone(self) -> None:
        """After two transmissions it is cut, at 3 RTO: before the link would be failing."""
        self.sender.send(bytes(MORE), 0.0)
        self.channel.run(3 * INITIAL_RTO + 0.1)
        self.assertEqual(self.channel.data_frames[bytes(MORE)], 2)
        self.assertEqual(self.sender.path.most, LEAST)
        self.assertEqual(self.received()[0], bytes(LEAST))
        self.channel.run(100.0)
        self.assertEqual(self.sender.condition, Condition.WORKING)
        self.assertEqual((self.sender.backlog, self.sender.window.in_flight, self.sender.given_up), (0, 0, 0))

    def test_among_small_ones(self) -> None:
        """Where others are acknowledged it does not even take that long."""
        small = [number.to_bytes(2) * 200 for number in range(12)]
        large = Random(3).randbytes(MORE)
        self.sender.send([small[0], large, *small[1:]], 0.0)
        self.channel.run(INITIAL_RTO + 0.1)
        self.assertEqual(self.channel.data_frames[large], 2)
        self.assertEqual(sorted(self.received()), sorted([*small, *halves(large, LEAST)]))
        self.assertEqual(self.sender.backlog, 0)

    def test_queue(self) -> None:
        """What was not sent yet is cut as well, in its turn."""
        large = [Random(seed).randbytes(MORE) for seed in range(40)]
        self.sender.send(large, 0.0)
        self.channel.run(100.0)
        self.assertEqual(
            sorted(self.received()), sorted(piece for message in large for piece in halves(message, LEAST))
        )
        self.assertEqual(max(self.channel.data_frames.values()), 2)
        self.assertEqual((self.sender.backlog, self.sender.window.in_flight, self.sender.given_up), (0, 0, 0))

    def test_cannot_be_cut(self) -> None:
        """Then it goes whole, as often as others."""
        self.sender._cut = lambda message, most: (message,)
        self.sender.send(bytes(MORE), 0.0)
        self.channel.run(3.4)
        self.sender.send(b"small", 3.4)
        self.channel.run(100.0)
        self.assertEqual(self.channel.data_frames[bytes(MORE)], 5)
        self.assertEqual(self.sender.given_up, 1)

    def test_given_back_whole(self) -> None:
        """When the link fails as well, what was cut is given back once, and as it was."""
        large, small = Random(3).randbytes(MORE), b"small"
        self.channel.most = 0
        self.sender.send([large, small], 0.0)
        while self.sender.condition is Condition.WORKING:
            due = self.sender.next_timeout(self.channel.now)
            assert due is not None
            self.channel.run(due)
        self.assertGreater(self.channel.data_frames[halves(large, LEAST)[0]], 0)
        self.assertEqual(sorted(self.sender.take_undelivered()), sorted([large, small]))
        self.assertEqual(self.sender.take_undelivered(), [])
        self.channel.most = 600
        self.channel.run(100.0)
        self.assertEqual(self.sender.condition, Condition.WORKING)

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 2**32), st.floats(0, 0.2), st.lists(st.integers(2, MORE - 2), min_size=1, max_size=30))
    def test_with_losses(self, seed: int, loss: float, sizes: list[int]) -> None:
        """Each message arrives, whole or in pieces, or it was given up or is given back; the link keeps account."""
        self.open(loss, seed)
        messages = [number.to_bytes(2) + Random(number).randbytes(size) for number, size in enumerate(sizes)]
        self.sender.send(messages, 0.0)
        self.channel.run(1000.0)
        arrived = {*self.received(), *self.sender.take_undelivered()}
        missing = [
            piece
            for message in messages
            if message not in arrived
            for piece in halves(message, LEAST)
            if piece not in arrived
        ]
        self.assertLessEqual(len(missing), 3 * self.sender.given_up)
        if self.sender.condition is Condition.WORKING:
            self.assertEqual((self.sender.backlog, self.sender.window.in_flight), (0, 0))

    def test_losses_by_chance(self) -> None:
        """Where a tenth of all datagrams is lost, the others of a long row show that large ones pass."""
        self.open(loss=0.1)
        self.channel.most = 10_000
        shrunk = 0
        for row in range(20):
            self.sender.send([bytes((row, number)) * (MORE // 2) for number in range(40)], self.channel.now)
            self.channel.run(self.channel.now + 100.0)
            shrunk += self.sender.path.most < MORE
            self.sender.path.probed(MORE)
        self.assertLessEqual(shrunk, 4)
        self.assertLess(OVERHEAD + MORE, self.sender.window.size)
