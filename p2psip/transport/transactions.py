"""Client transactions: requests of ours, sent until they are answered (RFC 6940 §6.2.1).

The timer is fixed, not doubling: `overlay-reliability-timer`.  A request goes out up to five times, each time by a
routing decision of its own, and has failed when the fifth timer fires.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..errors import ErrorCode, RELOADError, RequestTimeout
from ..interfaces import Answer, SignedBy

TRANSMISSIONS = 5
"""RFC 6940 §6.2.1: "retransmitted up to 4 times, for a total of 5 messages"."""

ONLY_ON_THE_WAY = frozenset(
    (
        ErrorCode.TTL_EXCEEDED,
        ErrorCode.UNDERLAY_DESTINATION_UNREACHABLE,
        ErrorCode.UNDERLAY_TIME_EXCEEDED,
        ErrorCode.UPSTREAM_MISROUTING,
        ErrorCode.LOOP_DETECTED,
        ErrorCode.TTL_HOPS_EXCEEDED,
    )
)
"""Errors that say that their maker is not the destination: while the ring changes, a request may go in circles."""

ON_THE_WAY_TOO = frozenset(
    (ErrorCode.UNSUPPORTED_FORWARDING_OPTION, ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.MESSAGE_EXPIRED)
)
"""Errors that the destination may make, and a node on the way, whose word §6.3.4 would have us drop."""


class TooManyRequests(RequestTimeout):
    """There are as many requests outstanding as this node allows itself; it was not sent."""


class _Transaction:
    """One request and what is known of its fate."""

    __slots__ = (
        "_cancelled",
        "answered",
        "believed",
        "call",
        "code",
        "id",
        "intermediate_error",
        "interval",
        "started",
        "transmissions",
        "transmit",
    )

    def __init__(
        self,
        transaction_id: int,
        believed: Callable[[SignedBy], bool],
        transmit: Callable[[int], None],
        interval: float,
        started: float,
        cancelled: Callable[[int], object],
        code: int | None,
    ) -> None:
        self.id = transaction_id
        self.believed = believed
        self.transmit = transmit
        self.interval = interval
        self.started = started
        self.code = code
        self.answered: Deferred[Answer] = Deferred(self._cancel)
        self.transmissions = 0
        self.call: IDelayedCall | None = None
        self.intermediate_error: RELOADError | None = None
        self._cancelled = cancelled

    def _cancel(self, _: Deferred[Answer]) -> None:
        self._cancelled(self.id)


class Transactions:
    """Every request that this node has sent and that is not answered yet.

    `count` is told the cause of each answer that is not believed.  `rtt` is the smoothed time in seconds from a
    request to its answer (as RFC 6298 smooths, retransmitted requests left out), None before the first.
    """

    def __init__(
        self, clock: IReactorTime, random: Random, count: Callable[[str], None], limit: int = 8192
    ) -> None:
        self._clock = clock
        self._random = random
        self._count = count
        self._limit = limit
        self._open: dict[int, _Transaction] = {}
        self.rtt: float | None = None
        self._stopped = False

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, transaction_id: int) -> bool:
        return transaction_id in self._open

    def answers_with(self, transaction_id: int, code: int) -> bool:
        """Whether an answer with this message_code can be one to that request."""
        transaction = self._open.get(transaction_id)
        return transaction is not None and transaction.code in (None, code)

    def begin(
        self,
        transmit: Callable[[int], None],
        believed: Callable[[SignedBy], bool],
        interval: float,
        code: int | None = None,
    ) -> Deferred[Answer]:
        """Call `transmit` with a fresh transaction ID, at once and every `interval` seconds, until it is answered.

        `believed` judges who signed an answer (§6.3.4); the others' answers are dropped and the timer goes on.
        `code` is the message_code of the answer, see `answers_with`.
        Fails with the RELOADError answered, RequestTimeout, TooManyRequests, or what the first `transmit` raised.
        Cancelling the Deferred ends the retransmissions.
        """
        if self._stopped:
            raise RequestTimeout("this node is stopping")
        if len(self._open) >= self._limit:
            self._count("too many requests outstanding")
            raise TooManyRequests("too many requests outstanding")
        transaction_id = self._random.getrandbits(64)
        while transaction_id in self._open:
            transaction_id = self._random.getrandbits(64)
        transaction = _Transaction(
            transaction_id, believed, transmit, interval, self._clock.seconds(), self._forget, code
        )
        self._open[transaction_id] = transaction
        try:
            self._transmit(transaction)
        except Exception:
            self._forget(transaction_id)
            raise
        return transaction.answered

    def _transmit(self, transaction: _Transaction) -> None:
        transaction.transmissions += 1
        # The timer first: an answer from this very node may come before `transmit` returns.
        transaction.call = self._clock.callLater(transaction.interval, self._unanswered, transaction)
        transaction.transmit(transaction.id)

    def _unanswered(self, transaction: _Transaction) -> None:
        transaction.call = None
        if transaction.transmissions < TRANSMISSIONS:
            try:
                self._transmit(transaction)
            except Exception as error:  # noqa: BLE001 - whatever it is, the one who asked is told
                self._forget(transaction.id)
                transaction.answered.errback(error)
            return
        self._forget(transaction.id)
        transaction.answered.errback(
            transaction.intermediate_error
            or RequestTimeout(f"no answer to {TRANSMISSIONS} transmissions")
        )

    def _forget(self, transaction_id: int) -> _Transaction | None:
        transaction = self._open.pop(transaction_id, None)
        if transaction is not None and transaction.call is not None:
            transaction.call.cancel()
            transaction.call = None
        return transaction

    def answered(self, transaction_id: int, answer: Answer) -> None:
        """A verified answer has come."""
        transaction = self._believed(transaction_id, answer.signer)
        if transaction is not None:
            self._measure(transaction)
            transaction.answered.callback(answer)

    def refused(self, transaction_id: int, error: RELOADError, signer: SignedBy) -> None:
        """A verified error answer has come.

        Any member of the overlay could make one, so that of a node on the way is told only where nothing better
        came in time.
        """
        transaction = self._open.get(transaction_id)
        if transaction is not None and (
            error.code in ONLY_ON_THE_WAY
            or (error.code in ON_THE_WAY_TOO and not transaction.believed(signer))
        ):
            transaction.intermediate_error = error
            return
        transaction = self._believed(transaction_id, signer)
        if transaction is not None:
            self._measure(transaction)
            transaction.answered.errback(error)

    def _believed(self, transaction_id: int, signer: SignedBy) -> _Transaction | None:
        transaction = self._open.get(transaction_id)
        if transaction is None:
            self._count("answer to no request")
            return None
        if not transaction.believed(signer):
            self._count("answer by the wrong node")
            return None
        return self._forget(transaction_id)

    def _measure(self, transaction: _Transaction) -> None:
        if transaction.transmissions == 1:
            sample = self._clock.seconds() - transaction.started
            self.rtt = sample if self.rtt is None else self.rtt + (sample - self.rtt) / 8

    def stop(self) -> None:
        """Fail every request that is outstanding, and those to come."""
        self._stopped = True
        for transaction_id in list(self._open):
            transaction = self._forget(transaction_id)
            if transaction is not None:
                transaction.answered.errback(RequestTimeout("this node is stopping"))
