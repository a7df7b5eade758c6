"""Simulated time: an `IReactorTime` that keeps what is due in a heap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from typing import Any

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

LEAST_GARBAGE = 4096
"""Entries that are left in the heap for nothing before it is worth while to take them out."""


@implementer(IDelayedCall)
class HeapCall:
    """One call that is due; see `IDelayedCall`."""

    __slots__ = ("_arguments", "_call", "_clock", "_entry", "_keywords", "_queued", "_state", "_when")

    def __init__(
        self,
        clock: HeapClock,
        when: float,
        call: Callable[..., object],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> None:
        self._clock = clock
        self._when = when
        self._queued = when
        self._entry = 0
        """The time and the number of its entry in the heap; all others that it had are garbage."""
        self._call: Callable[..., object] | None = call
        self._arguments = arguments
        self._keywords = keywords
        self._state = "active"

    def active(self) -> bool:
        return self._state == "active"

    def getTime(self) -> float:
        return self._when

    def cancel(self) -> None:
        self._require_active()
        self._state = "cancelled"
        self._release()
        self._clock._discarded()

    def reset(self, secondsFromNow: float) -> None:
        self._require_active()
        self._move(self._clock.seconds() + secondsFromNow)

    def delay(self, secondsLater: float) -> None:
        self._require_active()
        self._move(self._when + secondsLater)

    def _move(self, when: float) -> None:
        self._when = when
        if when < self._queued:  # a later one is found out when its old time comes
            self._clock._push(self)
            self._clock._discarded()

    def _require_active(self) -> None:
        if self._state == "cancelled":
            raise AlreadyCancelled
        if self._state == "called":
            raise AlreadyCalled

    def _run(self) -> None:
        call, arguments, keywords = self._call, self._arguments, self._keywords
        self._state = "called"
        self._release()
        assert call is not None
        call(*arguments, **keywords)

    def _release(self) -> None:
        self._call = None
        self._arguments = ()
        self._keywords = {}


@implementer(IReactorTime)
class HeapClock:
    """Time that passes from one call that is due to the next.

    Calls that are due at the same time run in the order in which they were made, so that the same calls bring about
    the same run.  Adding, cancelling and running one costs the logarithm of how many there are; `task.Clock` sorts
    all of them each time.

    :ivar ran: how many calls were run.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._heap: list[tuple[float, int, HeapCall]] = []
        self._number = 0
        self._garbage = 0
        self.ran = 0

    def seconds(self) -> float:
        return self._now

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kw: object) -> HeapCall:  # noqa: A002
        if delay < 0:
            raise ValueError(f"{delay} s lie in the past")
        call = HeapCall(self, self._now + delay, callable, args, kw)
        self._push(call)
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        return [call for _, number, call in self._heap if call.active() and number == call._entry]

    @property
    def entries(self) -> int:
        """How many entries the heap has, garbage included."""
        return len(self._heap)

    def _push(self, call: HeapCall) -> None:
        self._number += 1
        call._queued = call._when
        call._entry = self._number
        heappush(self._heap, (call._when, self._number, call))

    def _discarded(self) -> None:
        self._garbage += 1
        if self._garbage > LEAST_GARBAGE and 2 * self._garbage > len(self._heap):
            # In place: `step` may be under way.
            self._heap[:] = [entry for entry in self._heap if entry[2].active() and entry[1] == entry[2]._entry]
            heapify(self._heap)
            self._garbage = 0

    def next_due(self) -> float | None:
        """When the next call is due; None where there is none."""
        heap = self._heap
        while heap:
            when, number, call = heap[0]
            ours = call._state == "active" and call._entry == number
            if ours and call._when == when:
                return when
            heappop(heap)
            if ours:
                self._push(call)
            else:
                self._garbage -= 1
        return None

    def step(self, until: float) -> bool:
        """Run the next call, if it is due by `until`; otherwise let time pass until then and answer False."""
        when = self.next_due()
        if when is None or when > until:
            self._now = max(self._now, until)
            return False
        _, _, call = heappop(self._heap)
        self._now = max(self._now, when)
        self.ran += 1
        call._run()
        return True

    def run(self, seconds: float) -> None:
        """Let `seconds` pass."""
        until = self._now + seconds
        while self.step(until):
            pass
