"""Application connections without ICE: offered at a port of their own, and taken (RFC 6940 §6.5.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol as Seam
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IProtocol
from twisted.python.failure import Failure

from ..errors import LinkError
from ..ids import NodeId
from ..interfaces import IApplicationConnection
from ..security.identity import Identity
from ..wire.methods import IceCandidate
from .application import ApplicationConnection
from .dtls import MOST_RECORD, DTLSTransport
from .handshake import Secured, SecuredConnection

OFFER_TIME = 10.0
"""Seconds that an offer stands."""


class Opener(Secured, Seam):
    """What an offer needs of the links of its node."""

    def open_ports(self, port: int, make: Callable[[str], SecuredConnection]) -> Sequence[IListeningPort]:
        """Listen at every address; LinkError if that cannot be."""

    def close_port(self, port: IListeningPort) -> None:
        """Listen no more."""

    def candidates_at(self, ports: Sequence[IListeningPort]) -> Sequence[IceCandidate]:
        """The candidates of listening ports."""

    def offer_ended(self, offer: Offer) -> None:
        """`offer` does not stand any more."""


class SecuredApplication(SecuredConnection):
    """A secured connection that becomes an `ApplicationConnection`."""

    connection: ApplicationConnection

    def __init__(
        self, service: Secured, address: str, outgoing: bool, expected: NodeId, application: int
    ) -> None:
        super().__init__(service, address, outgoing, expected)
        self._application = application
        self.pair: Callable[[], str] = str
        """The candidate pair that ICE chose, for people."""

    def proved(self, identity: Identity, node_id: NodeId) -> None:
        protocol_name, record_size = ("TLS-TCP", None)
        if isinstance(cast(object, self.transport), DTLSTransport):
            protocol_name, record_size = ("DTLS-UDP", MOST_RECORD)
        self.connection = ApplicationConnection(
            identity, node_id, self._application, self.address, protocol_name, record_size, self.pair
        )
        protocol: IProtocol = self.connection
        protocol.makeConnection(self.tls)

    def dataReceived(self, data: bytes) -> None:
        if self.is_proved:
            self.connection.dataReceived(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        super().connectionLost(reason)
        if self.is_proved:
            self.connection.connectionLost(reason)

    def ended(self, reason: Exception | None) -> None:
        """The connection itself is told by `connectionLost`, with Twisted's own reason."""


class Offer:
    """Listens for one application connection from `expected`, for a short time."""

    def __init__(self, links: Opener, expected: NodeId, application: int) -> None:
        self._links = links
        self.connection: Deferred[IApplicationConnection] = Deferred(lambda _: self.end())
        self._expected = expected
        self._application = application
        self._ports: list[IListeningPort] = []
        self._timeout = links.host.clock.callLater(OFFER_TIME, self._late)

    def listen(self) -> Sequence[IceCandidate]:
        """Open the ports; answers their candidates."""
        try:
            self._ports += self._links.open_ports(0, self._make)
        except LinkError:
            self.end()
            raise
        return self._links.candidates_at(self._ports)

    def _make(self, address: str) -> SecuredConnection:
        made = SecuredApplication(self._links, address, False, self._expected, self._application)
        made.opened.addCallbacks(self._taken, lambda _: None)
        return made

    def _taken(self, accepted: SecuredConnection) -> None:
        if self.connection.called:
            accepted.disconnect(LinkError("the application connection was taken already"))
            return
        self.end()
        self.connection.callback(cast(SecuredApplication, accepted).connection)

    def _late(self) -> None:
        self.end()
        self.connection.errback(LinkError("nobody took the application connection"))

    def end(self) -> None:
        """Listen no more."""
        self._links.offer_ended(self)
        if self._timeout.active():
            self._timeout.cancel()
        for port in self._ports:
            self._links.close_port(port)
        self._ports.clear()
