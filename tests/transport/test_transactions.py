"""Client transactions: retransmission, whom to believe, bounds."""

from __future__ import annotations

from random import Random
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from p2psip.errors import Forbidden, MessageTooLarge, RequestTimeout, TTLExceeded
from p2psip.ids import NodeId
from p2psip.interfaces import Answer, SignedBy
from p2psip.transport.transactions import TooManyRequests, Transactions

FRIEND = SignedBy(cast(Any, None), NodeId(b"f" * 16))
STRANGER = SignedBy(cast(Any, None), NodeId(b"s" * 16))


def answer(signer: SignedBy) -> Answer:
    return Answer(cast(Any, "body"), signer)


class TransactionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.counted: list[str] = []
        self.transactions = Transactions(self.clock, Random(1), self.counted.append, limit=2)
        self.sent: list[tuple[float, int]] = []

    def transmit(self, transaction_id: int) -> None:
        self.sent.append((self.clock.seconds(), transaction_id))

    def begin(self) -> Any:
        return self.transactions.begin(self.transmit, lambda signer: signer is FRIEND, 3.0)

    def test_five_transmissions(self) -> None:
        """A fixed timer, the same transaction ID, and failure when the fifth fires.

        [6940-6.2.1-8, 6940-6.2.1-9, 6940-6.2.1-11]
        """
        answered = self.begin()
        self.clock.pump([0.5] * 29)
        self.assertEqual([time for time, _ in self.sent], [0, 3, 6, 9, 12])
        self.assertEqual(len({transaction_id for _, transaction_id in self.sent}), 1)
        self.assertNoResult(answered)
        self.clock.pump([0.5])
        self.failureResultOf(answered, RequestTimeout)
        self.assertEqual(len(self.transactions), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_transaction_ids(self) -> None:
        """Random in all of their 64 bits. [6940-6.3.2-11]"""
        transactions = Transactions(self.clock, Random(2), self.counted.append)
        for _ in range(200):
            transactions.begin(self.transmit, lambda signer: True, 3.0)
        ids = [transaction_id for _, transaction_id in self.sent]
        self.assertEqual(len(set(ids)), 200)
        for bit in range(64):
            self.assertTrue(60 < sum(one >> bit & 1 for one in ids) < 140, bit)
        other = Transactions(self.clock, Random(3), self.counted.append)
        other.begin(self.transmit, lambda signer: True, 3.0)
        self.assertNotIn(self.sent[-1][1], ids)

    def test_answer(self) -> None:
        """An answer ends the retransmissions and is timed."""
        answered = self.begin()
        self.clock.advance(0.25)
        self.transactions.answered(self.sent[0][1], answer(FRIEND))
        self.assertIs(self.successResultOf(answered).signer, FRIEND)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.transactions.rtt, 0.25)

    def test_answer_to_retransmission_is_not_timed(self) -> None:
        """Which copy was answered is unknown, so nothing is learnt of the time."""
        answered = self.begin()
        self.clock.advance(3)
        self.transactions.answered(self.sent[0][1], answer(FRIEND))
        self.successResultOf(answered)
        self.assertIsNone(self.transactions.rtt)

    def test_wrong_signer(self) -> None:
        """Another node's answer is dropped and counted, and the timer goes on. [6940-6.3.4-13]"""
        answered = self.begin()
        self.transactions.answered(self.sent[0][1], answer(STRANGER))
        self.transactions.refused(self.sent[0][1], Forbidden(), STRANGER)
        self.assertNoResult(answered)
        self.assertEqual(self.counted, ["answer by the wrong node"] * 2)
        self.clock.advance(3)
        self.assertEqual(len(self.sent), 2)
        self.transactions.answered(self.sent[0][1], answer(FRIEND))
        self.successResultOf(answered)

    def test_error_answer(self) -> None:
        """An error of the right node fails the request at once."""
        answered = self.begin()
        self.transactions.refused(self.sent[0][1], Forbidden("no"), FRIEND)
        self.assertEqual(self.failureResultOf(answered, Forbidden).value.error_info, b"no")

    def test_error_on_the_way_is_kept(self) -> None:
        """Any member can say TTL_Exceeded, so that is told only where no proper answer came."""
        for signer in STRANGER, FRIEND:
            answered = self.begin()
            self.transactions.refused(self.sent[-1][1], TTLExceeded(), signer)
            self.assertNoResult(answered)
            self.clock.pump([3] * 5)
            self.failureResultOf(answered, TTLExceeded)

    def test_error_of_anybody(self) -> None:
        """Message_Too_Large is final from the destination, and kept from anybody else."""
        answered = self.begin()
        self.transactions.refused(self.sent[0][1], MessageTooLarge(), STRANGER)
        self.assertNoResult(answered)
        self.transactions.refused(self.sent[0][1], MessageTooLarge(), FRIEND)
        self.failureResultOf(answered, MessageTooLarge)

    def test_error_on_the_way_is_overruled(self) -> None:
        """A proper answer wins over what a node on the way said before."""
        answered = self.begin()
        self.transactions.refused(self.sent[0][1], TTLExceeded(), STRANGER)
        self.transactions.answered(self.sent[0][1], answer(FRIEND))
        self.successResultOf(answered)

    def test_unknown_transaction(self) -> None:
        """An answer to nothing is counted."""
        self.transactions.answered(7, answer(FRIEND))
        self.assertEqual(self.counted, ["answer to no request"])

    def test_bounded(self) -> None:
        """The table does not grow beyond its limit: the request fails and is not sent."""
        first, second = self.begin(), self.begin()
        self.assertRaises(TooManyRequests, self.begin)
        self.assertEqual(len(self.sent), 2)
        self.transactions.stop()
        for answered in first, second:
            self.failureResultOf(answered, RequestTimeout)

    def test_stopped(self) -> None:
        """After the end no request is begun."""
        self.transactions.stop()
        self.assertRaises(RequestTimeout, self.begin)
        self.assertEqual(self.sent, [])

    def test_cancel(self) -> None:
        """Cancelling ends the retransmissions."""
        answered = self.begin()
        answered.cancel()
        self.failureResultOf(answered)
        self.assertEqual(len(self.transactions), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_transmit_raises(self) -> None:
        """What cannot be sent leaves nothing behind."""

        def transmit(transaction_id: int) -> None:
            raise ValueError("too large")

        with self.assertRaises(ValueError):
            self.transactions.begin(transmit, lambda signer: True, 3.0)
        self.assertEqual(len(self.transactions), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
