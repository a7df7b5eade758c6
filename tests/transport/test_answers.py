"""The cache of answers to repeated requests."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from p2psip.ids import NodeId
from p2psip.transport.answers import AnswerCache, RequestKey


def key(number: int, signer: int | None = None) -> RequestKey:
    """A request of a signer of its own, unless that is given."""
    return RequestKey(NodeId((number if signer is None else signer).to_bytes(16)), number, 7)


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
        cache = AnswerCache(max_count=4)
        for number in range(1, 6):
            cache.begin(key(number), 0, 15)
        self.assertEqual(len(cache), 4)
        self.assertFalse(cache.begin(key(2), 0, 15))
        self.assertTrue(cache.begin(key(1), 0, 15))

    def test_bounded_by_bytes(self) -> None:
        """Many small or few large ones; what is forgotten frees its bytes."""
        cache = AnswerCache(max_bytes=20)
        for number in range(1, 6):
            cache.begin(key(number), 0, 15)
            cache.finish(key(number), b"12345")
        self.assertIsNone(cache.answer(key(1)))
        self.assertEqual(cache.answer(key(2)), b"12345")
        self.assertEqual(cache.answer(key(5)), b"12345")

    def test_one_signer_has_a_quarter(self) -> None:
        """Whoever floods a node makes it forget nothing but what it answered to the same."""
        cache = AnswerCache(max_count=40, max_bytes=400)
        cache.begin(key(1), 0, 15)
        cache.finish(key(1), b"x" * 10)
        for number in range(100, 200):
            cache.begin(key(number, signer=2), 0, 15)
        self.assertEqual(len(cache), 11)
        for number in range(200, 300):
            cache.begin(key(number, signer=2), 0, 15)
            cache.finish(key(number, signer=2), b"x" * 50)
        self.assertEqual(len(cache), 3)
        self.assertEqual(cache.answer(key(1)), b"x" * 10)
