"""Connecting to the first of several addresses that answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from ..errors import LinkError

HEAD_START = 0.25
"""Seconds that each address has before the next is tried beside it (RFC 8305 §5)."""

T = TypeVar("T")


class Race(Generic[T]):
    """Dials addresses one after the other, each a little later, until one succeeds; then the others are given
    up.

    `dial` starts an attempt, whose Deferred can be cancelled.  `won` fires with the first success, or fails
    with the last LinkError; cancelling it gives everything up.
    """

    def __init__(
        self,
        clock: IReactorTime,
        addresses: Iterator[tuple[str, int]],
        dial: Callable[[str, int], Deferred[T]],
    ) -> None:
        self.won: Deferred[T] = Deferred(lambda _: self._give_up())
        self._clock = clock
        self._addresses = addresses
        self._dial = dial
        self._running: list[Deferred[T]] = []
        self._next: IDelayedCall | None = None
        self._exhausted = False
        self._failure: Failure = Failure(LinkError("no address to connect to"))
        self._start()

    def _start(self) -> None:
        self._next = None
        try:
            address = next(self._addresses, None)
        except LinkError:
            self._failure = Failure()
            address = None
        if address is None:
            self._exhausted = True
            self._lose_if_all_failed()
            return
        self._next = self._clock.callLater(HEAD_START, self._start)
        attempt = self._dial(*address)
        self._running.append(attempt)
        attempt.addCallbacks(self._succeeded, self._failed, callbackArgs=(attempt,), errbackArgs=(attempt,))

    def _succeeded(self, result: T, attempt: Deferred[T]) -> None:
        self._running.remove(attempt)
        self._give_up()
        if not self.won.called:
            self.won.callback(result)

    def _failed(self, failure: Failure, attempt: Deferred[T]) -> None:
        if attempt not in self._running:
            return  # given up
        self._running.remove(attempt)
        self._failure = failure
        if self._next is not None:
            self._next.cancel()
            self._start()
        else:
            self._lose_if_all_failed()

    def _lose_if_all_failed(self) -> None:
        if self._exhausted and not self._running and not self.won.called:
            self.won.errback(self._failure)

    def _give_up(self) -> None:
        self._exhausted = True
        if self._next is not None:
            self._next.cancel()
            self._next = None
        running, self._running = self._running, []
        for attempt in running:
            attempt.cancel()
