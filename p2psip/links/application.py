"""Application connections: secured, between two nodes, for another protocol (RFC 6940 §6.5.2)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IProtocol, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..ids import NodeId
from ..interfaces import IApplicationConnection
from ..security.identity import Identity

MOST_BUFFERED = 65536
"""Bytes kept for a protocol that was not started yet; then reading pauses, and what comes by datagrams is lost."""


@implementer(IApplicationConnection)
class ApplicationConnection(Protocol):
    """A connection whose other end is proved.  What comes in before `start` is kept, within bounds.

    After `start` the protocol has the transport for its own: it writes, registers producers and closes there.
    """

    def __init__(
        self,
        identity: Identity,
        node_id: NodeId,
        application: int,
        address: str,
        protocol: str,
        record_size: int | None = None,
        pair: Callable[[], str] = str,
    ) -> None:
        self.identity = identity
        self.node_id = node_id
        self.application = application
        self.address = address
        self.protocol = protocol
        self.record_size = record_size
        self._pair = pair
        self._protocol: IProtocol | None = None
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._paused = False
        self._lost: Failure | None = None

    @property
    def candidate_pair(self) -> str:
        return self._pair()

    @property
    def is_open(self) -> bool:
        return self._lost is None

    def start(self, protocol: IProtocol) -> None:
        """Hand the connection to `protocol`; what came in meanwhile is delivered first."""
        if self._protocol is not None:
            raise RuntimeError("an application connection is started once")
        self._protocol = protocol
        transport = self.transport
        assert transport is not None
        protocol.makeConnection(transport)
        early, self._early = self._early, []
        for data in early:
            protocol.dataReceived(data)
        if self._lost is not None:
            protocol.connectionLost(self._lost)
        elif self._paused:
            transport.resumeProducing()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close in good order, also when no protocol was started."""
        if self.transport is not None and self._lost is None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        if self._protocol is not None:
            self._protocol.dataReceived(data)
            return
        if self.record_size is not None and self._early_bytes >= MOST_BUFFERED:
            return  # nothing can pause datagrams
        self._early.append(data)
        self._early_bytes += len(data)
        if self._early_bytes >= MOST_BUFFERED and self.record_size is None and not self._paused:
            self._paused = True
            transport: ITransport | None = self.transport
            transport.pauseProducing()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = reason
        if self._protocol is not None:
            self._protocol.connectionLost(reason)
