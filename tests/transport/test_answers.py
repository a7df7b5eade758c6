"""The cache of answers to repeated requests."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from p2psip.ids import NodeId
from p2psip.transport.answers import AnswerCache, RequestKey


def key(number: int) -> RequestKey:
    return RequestKey(NodeId(b"n" * 16), number, 7)


class AnswerCacheTests(SynchronousTestCase):
    def test_repetition(self) -> None:
        """A repetition is known while it is being answered and after. [6940-6.2.1-12]"""
        cache = AnswerCache()
        self.assertTrue(cache.begin(key(1), 0, 15))
        self.assertFalse(cache.begin(key(1), 1, 15))
        self.assertIsNone(cache.answer(key(1)))
        cache.finish(key(1), b"answer")
        self.assertFalse(cache.begin(key(1), 2, 15))
        self.assertEqual(cache.answer(key(1)), b"answer")

    def test_other_requests(self) -> None:
        """Another signer, transaction or method is another request."""
        cache = AnswerCache()
        cache.begin(key(1), 0, 15)
        for other in (
            key(2),
            key(1)._replace(signer=NodeId(b"m" * 16)),
            key(1)._replace(message_code=9),
        ):
            self.assertTrue(cache.begin(other, 0, 15))

    def test_expiry(self) -> None:
        """After the longest life of a request it is a new one."""
        cache = AnswerCache()
        cache.begin(key(1), 0, 15)
        cache.finish(key(1), b"answer")
        self.assertTrue(cache.begin(key(1), 15, 15))

    def test_forget(self) -> None:
        """A request that was not answered may be tried again."""
        cache = AnswerCache()
        cache.begin(key(1), 0, 15)
        cache.forget(key(1))
        self.assertTrue(cache.begin(key(1), 1, 15))

    def test_bounded_by_count(self) -> None:
        """The oldest goes first."""
        cache = AnswerCache(max_count=2)
        for number in (1, 2, 3):
            cache.begin(key(number), 0, 15)
        self.assertEqual(len(cache), 2)
        self.assertFalse(cache.begin(key(3), 0, 15))
        self.assertTrue(cache.begin(key(1), 0, 15))

    def test_bounded_by_bytes(self) -> None:
        """Many small or few large ones; what is forgotten frees its bytes."""
        cache = AnswerCache(max_bytes=10)
        for number in (1, 2, 3):
            cache.begin(key(number), 0, 15)
            cache.finish(key(number), b"12345")
        self.assertIsNone(cache.answer(key(1)))
        self.assertEqual(cache.answer(key(2)), b"12345")
        self.assertEqual(cache.answer(key(3)), b"12345")
