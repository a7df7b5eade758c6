"""STUN as a keepalive: it keeps the bindings of NATs, and notices that the other end is gone (RFC 6940 §6.5.1.10.3)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .stun import Place, binding_request, mapped_address, parse

INTERVAL = 5.0
"""Seconds between two checks that were answered, give or take a fifth (RFC 7675 §5.1)."""
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds that each transmission of a check waits for its answer: as those of a message (RFC 6940 §6.6.3.1)."""
FAILING_AFTER = 4
"""Transmissions without an answer after which the path is failing; after the last it is dead."""


class Keepalive:
    """Sends Binding requests over one path for as long as it is used.

    `seen` is told where the other end sees us, and the round-trip time in seconds; `silent` that it does not answer
    any more: False at first, True when there is no hope; `answers` that it answers.
    """

    def __init__(
        self,
        clock: IReactorTime,
        random: Random,
        seen: Callable[[Place, float], None],
        silent: Callable[[bool], None],
        answers: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._random = random
        self._seen = seen
        self._silent = silent
        self._answers = answers
        self._send: Callable[[bytes], None] = lambda request: None
        self._transactions: dict[bytes, float] = {}
        self._tried = 0
        self._next: IDelayedCall | None = None

    def start(self, send: Callable[[bytes], None]) -> None:
        """Begin, at once."""
        self._send = send
        self._check()

    def stop(self) -> None:
        """End."""
        self._send = lambda request: None
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None

    def _check(self) -> None:
        self._next = None
        if self._tried == len(WAITS):
            self._silent(True)
            return
        if self._tried == FAILING_AFTER:
            self._silent(False)
        # A new transaction each time: its answer tells which transmission it was for.
        request = binding_request()
        self._transactions[request.transaction_id] = self._clock.seconds()
        self._next = self._clock.callLater(WAITS[self._tried], self._check)
        self._tried += 1
        self._send(bytes(request))

    def received(self, datagram: bytes) -> None:
        """A STUN datagram came over the path; what answers nothing is ignored."""
        response = parse(datagram)
        if response is None or response.transaction_id not in self._transactions:
            return
        place = mapped_address(response)
        if place is None or self._next is None:
            return
        sent = self._transactions[response.transaction_id]
        self._transactions.clear()
        self._tried = 0
        self._next.reset(INTERVAL * self._random.uniform(0.8, 1.2))
        self._seen(place, self._clock.seconds() - sent)
        self._answers()
