"""What keeps the enrollment server from being overwhelmed: bounds on connections, on work, on rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import DeferredSemaphore
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocolFactory, IReactorTime
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from ..throttle import source_key

T = TypeVar("T")


class Busy(Exception):
    """There is no room for this now, or whoever asks has to wait; `seconds` says how long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Slots:
    """Lets so many pieces of work run at once, and so many more wait."""

    def __init__(self, running: int, waiting: int) -> None:
        self._semaphore = DeferredSemaphore(running)
        self._room = running + waiting

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` answers, in its turn.

        :raises Busy: too many are waiting.
        """
        if not self._room:
            raise Busy(1.0)
        self._room -= 1
        try:
            await self._semaphore.acquire()
            try:
                return await work()
            finally:
                self._semaphore.release()
        finally:
            self._room += 1


class _Counted(ProtocolWrapper):
    """A connection that is counted from its first moment to its last."""

    source = ""
    deadline: IDelayedCall | None = None
    counts = False
    """Not any more once it gave way."""


class BoundedConnections(WrappingFactory):
    """Refuses connections beyond `per_address` of one address; ends each after `lifetime` s.

    Beyond `total` the oldest gives way, of the address with the most: so a few strangers keep nobody out.  It has
    to stand below TLS, so that handshakes count as well.
    """

    protocol = _Counted
    noisy = False

    def __init__(
        self,
        wrapped: IProtocolFactory,
        clock: IReactorTime,
        total: int = 500,
        per_address: int = 50,
        lifetime: float = 600.0,
    ) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self._clock = clock
        self._total = total
        self._per_address = per_address
        self._lifetime = lifetime
        self._open: Counter[str] = Counter()
        self.refused = 0

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A protocol for a new connection, or None to close it."""
        source = source_key(getattr(addr, "host", ""))
        if self._open[source] >= self._per_address:
            self.refused += 1
            return None
        if self._open.total() >= self._total:
            self._make_room()
        protocol: Any = super().buildProtocol(addr)
        if protocol is not None:
            protocol.source = source
        return protocol

    def registerProtocol(self, p: _Counted) -> None:
        """A connection is open."""
        super().registerProtocol(p)  # type: ignore[no-untyped-call]
        self._open[p.source] += 1
        p.counts = True
        p.deadline = self._clock.callLater(self._lifetime, p.abortConnection)

    def unregisterProtocol(self, p: _Counted) -> None:
        """A connection is closed."""
        super().unregisterProtocol(p)  # type: ignore[no-untyped-call]
        self._discount(p)
        if p.deadline is not None and p.deadline.active():
            p.deadline.cancel()

    def _make_room(self) -> None:
        self.refused += 1
        busiest, _ = self._open.most_common(1)[0]
        oldest = next(p for p in self.protocols if p.source == busiest and p.counts)
        self._discount(oldest)
        oldest.abortConnection()

    def _discount(self, p: _Counted) -> None:
        if p.counts:
            p.counts = False
            self._open[p.source] -= 1
            if not self._open[p.source]:
                del self._open[p.source]
