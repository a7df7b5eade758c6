"""What was answered lately, so that a repeated request gets the same answer (RFC 6940 §6.2.1).

Without it the second copy of a Store would fail its own storage_time check.  No I/O, no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from ..ids import NodeId


class RequestKey(NamedTuple):
    """What makes two requests the same one."""

    signer: NodeId
    transaction_id: int
    message_code: int


class _Entry(NamedTuple):
    expires: float
    answer: bytes | None


class _Share:
    """What is kept for one signer."""

    __slots__ = ("keys", "size")

    def __init__(self) -> None:
        self.keys: OrderedDict[RequestKey, None] = OrderedDict()
        self.size = 0


class AnswerCache:
    """The answers of the last `lifetime` seconds (the longest life of a request), the oldest forgotten first.

    It holds at most `max_count` of them and `max_bytes` in all, and a quarter of that for one signer: whoever
    floods a node makes it forget what it answered to nobody else.
    """

    def __init__(self, max_count: int = 65536, max_bytes: int = 32 << 20) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._entries: OrderedDict[RequestKey, _Entry] = OrderedDict()
        self._shares: dict[NodeId, _Share] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self, key: RequestKey, now: float, lifetime: float) -> bool:
        """Note that the request is being answered from now on.  False if that was known: it is a repetition."""
        self._expire(now)
        if key in self._entries:
            return False
        self._entries[key] = _Entry(now + lifetime, None)
        share = self._shares.get(key.signer)
        if share is None:
            share = self._shares[key.signer] = _Share()
        share.keys[key] = None
        self._shrink(share)
        return True

    def answer(self, key: RequestKey) -> bytes | None:
        """What the request was answered with; None while it is still being answered."""
        entry = self._entries.get(key)
        return entry.answer if entry is not None else None

    def finish(self, key: RequestKey, answer: bytes) -> None:
        """Keep `answer` for repetitions, until the time counted from the first copy is over."""
        entry = self._entries.get(key)
        if entry is not None and entry.answer is None:
            self._entries[key] = entry._replace(answer=answer)
            self._bytes += len(answer)
            share = self._shares[key.signer]
            share.size += len(answer)
            self._shrink(share)

    def forget(self, key: RequestKey) -> None:
        """The request will not be answered; a repetition is to be tried anew."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        share = self._shares[key.signer]
        del share.keys[key]
        if entry.answer is not None:
            self._bytes -= len(entry.answer)
            share.size -= len(entry.answer)
        if not share.keys:
            del self._shares[key.signer]

    def _expire(self, now: float) -> None:
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if entry.expires > now:
                return
            self.forget(key)

    def _shrink(self, share: _Share) -> None:
        while 4 * len(share.keys) > self._max_count or 4 * share.size > self._max_bytes:
            self.forget(next(iter(share.keys)))
        while len(self._entries) > self._max_count or self._bytes > self._max_bytes:
            self.forget(next(iter(self._entries)))
