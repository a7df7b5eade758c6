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


class AnswerCache:
    """The answers of the last `lifetime` seconds (the longest life of a request), the oldest forgotten first.

    It holds at most `max_count` of them and `max_bytes` in all.
    """

    def __init__(self, max_count: int = 65536, max_bytes: int = 32 << 20) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._entries: OrderedDict[RequestKey, _Entry] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self, key: RequestKey, now: float, lifetime: float) -> bool:
        """Note that the request is being answered from now on.  False if that was known: it is a repetition."""
        self._expire(now)
        if key in self._entries:
            return False
        self._entries[key] = _Entry(now + lifetime, None)
        self._shrink()
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
            self._shrink()

    def forget(self, key: RequestKey) -> None:
        """The request will not be answered; a repetition is to be tried anew."""
        entry = self._entries.pop(key, None)
        if entry is not None and entry.answer is not None:
            self._bytes -= len(entry.answer)

    def _expire(self, now: float) -> None:
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if entry.expires > now:
                return
            self.forget(key)

    def _shrink(self) -> None:
        while len(self._entries) > self._max_count or self._bytes > self._max_bytes:
            self.forget(next(iter(self._entries)))
