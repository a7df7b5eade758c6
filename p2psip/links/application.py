"""Application connections: a secured stream between two nodes for another protocol (RFC 6940 §6.5.2)."""

from __future__ import annotations

from twisted.internet.interfaces import IProtocol, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ..ids import NodeId
from ..interfaces import IApplicationConnection
from ..security.identity import Identity

MOST_BUFFERED = 65536
"""Bytes kept for a protocol that was not started yet; then reading pauses."""


@implementer(IApplicationConnection)
class ApplicationConnection(Protocol):
    """A connection whose other end is proved.  What comes in before `start` is kept, within bounds.

    After `start` the protocol has the transport for its own: it writes, registers producers and closes there.
    """

    def __init__(self, identity: Identity, node_id: NodeId, application: int, address: str) -> None:
        self.identity = identity
        self.node_id = node_id
        self.application = application
        self.address = address
        self._protocol: IProtocol | None = None
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._paused = False
        self._lost: Failure | None = None

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
        self._early.append(data)
        self._early_bytes += len(data)
        if self._early_bytes >= MOST_BUFFERED and not self._paused:
            self._paused = True
            transport: ITransport | None = self.transport
            transport.pauseProducing()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = reason
        if self._protocol is not None:
            self._protocol.connectionLost(reason)
