"""Two transports in memory that are connected to each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IProducer,
    IProtocol,
    IPullProducer,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(ITransport, IConsumer, IPushProducer)
class MemoryStream:
    """One end of a stream.  It takes whatever is written at once, so a producer is never told to pause.

    Each write comes as it was made.  `passes` is asked about each; what does not pass is lost, and with it all that
    follows, since a stream has no gaps: unless these are `records`.
    """

    def __init__(
        self,
        clock: IReactorTime,
        latency: Callable[[], float],
        here: tuple[str, int],
        passes: Callable[[], bool],
        records: bool,
    ) -> None:
        self._clock = clock
        self._latency = latency
        self._passes = passes
        self._records = records
        self._gap = False
        self._here = IPv4Address("TCP", *here)
        self._other: MemoryStream | None = None
        self._protocol: IProtocol | None = None
        self._arrival = 0.0
        self._paused = False
        self._waiting: list[bytes | Failure] = []
        self._producer: IProducer | None = None
        self.connected = True
        self.disconnecting = False

    @classmethod
    def pair(
        cls,
        clock: IReactorTime,
        latency: Callable[[], float],
        here: tuple[str, int],
        there: tuple[str, int],
        passes: Callable[[], bool] = lambda: True,
        records: bool = False,
    ) -> tuple[MemoryStream, MemoryStream]:
        """Two ends; `latency` tells the seconds one way."""
        one, other = (cls(clock, latency, end, passes, records) for end in (here, there))
        one._other, other._other = other, one
        return one, other

    def serve(self, protocol: IProtocol) -> None:
        """Connect `protocol` to this end."""
        self._protocol = protocol
        protocol.makeConnection(self)

    def write(self, data: bytes) -> None:
        if self.connected and not self.disconnecting and data:
            self._send(bytes(data))

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if not self.connected or self.disconnecting or self._producer is not None:
            self.disconnecting = True
            return
        self.disconnecting = True
        self._send(Failure(ConnectionDone()))
        self._clock.callLater(0, self._lose, Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        """Close without waiting for a producer."""
        self._producer = None
        self.disconnecting = True
        self._send(Failure(ConnectionLost()))
        self._clock.callLater(0, self._lose, Failure(ConnectionLost()))

    def getPeer(self) -> IPv4Address:
        assert self._other is not None
        return self._other._here

    def getHost(self) -> IPv4Address:
        return self._here

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError("a producer is registered already")
        self._producer = producer
        if not streaming:
            self._pull(IPullProducer(producer))

    def _pull(self, producer: IPullProducer) -> None:
        if self._producer is producer:
            producer.resumeProducing()
            self._clock.callLater(0, self._pull, producer)

    def unregisterProducer(self) -> None:
        self._producer = None
        if self.disconnecting and self.connected:
            self.disconnecting = False
            self.loseConnection()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        waiting, self._waiting = self._waiting, []
        for item in waiting:
            self._arrive(item)

    def stopProducing(self) -> None:
        self.loseConnection()

    def _send(self, item: bytes | Failure) -> None:
        assert self._other is not None
        if self._gap or not self._passes():
            self._gap = not self._records
            return
        now = self._clock.seconds()
        self._arrival = max(self._arrival, now + self._latency())
        self._clock.callLater(self._arrival - now, self._other._arrive, item)

    def _arrive(self, item: bytes | Failure) -> None:
        if self._paused:
            self._waiting.append(item)
        elif isinstance(item, Failure):
            self._lose(item)
        elif self.connected and self._protocol is not None:
            self._protocol.dataReceived(item)

    def _lose(self, reason: Failure) -> None:
        if self.connected:
            self.connected = False
            self._producer = None
            if self._protocol is not None:
                self._protocol.connectionLost(reason)
