"""TLS-TCP-FH-NO-ICE: the framing header over TLS over TCP, without ICE (RFC 6940 §6.6.5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.interfaces import IAddress, IConnector, IListeningPort
from twisted.internet.protocol import ClientFactory, ServerFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from ..hostport import address_text
from ..ids import NodeId
from ..interfaces import ILinkHost, ILinkProtocol, ILinkProtocolFactory
from ..throttle import source_key
from ..wire.codes import OverlayLinkType
from .addresses import numeric
from .handshake import (
    HANDSHAKE_TIMEOUT,
    Credentials,
    KeyLog,
    SecuredConnection,
    key_log,
    tls_factory,
    wrapped,
)
from .link import TLS_TCP_FH_NO_ICE, OverlayLink, TLSLink
from .service import LinkService

LINK_TYPE = OverlayLinkType.TLS_TCP_FH_NO_ICE


class Door(ServerFactory):
    """Takes incoming connections, as far as the caps allow."""

    noisy = False

    def __init__(self, links: TLSLinks, make: Callable[[str], SecuredConnection]) -> None:
        self._links = links
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> Any:
        host = str(numeric(getattr(addr, "host", "")))
        address = address_text(host, getattr(addr, "port", 0))
        source = source_key(host)
        if not self._links.admit(source):
            self._links.host.owner.link_rejected("too many connections", address)
            return None
        connection = self._make(address)
        self._links.accepted(connection, source)
        return wrapped(self._links.server, connection)


class Dial(ClientFactory):
    """One attempt to connect."""

    noisy = False

    def __init__(self, links: TLSLinks, connection: SecuredConnection) -> None:
        self._links = links
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> Any:
        self._links.connected(self._connection)
        return wrapped(self._links.client, self._connection)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._links.unconnected(self._connection)
        self._connection.unconnected(reason)


@implementer(ILinkProtocol)
class TLSLinks(LinkService):
    """The TLS links of one node; `reactor` is an IReactorTCP."""

    name = TLS_TCP_FH_NO_ICE
    link_type = int(LINK_TYPE)

    def __init__(
        self,
        host: ILinkHost,
        reactor: Any,
        addresses: Sequence[str],
        port: int,
        advertise: Sequence[str] = (),
        key_log: KeyLog | None = None,
    ) -> None:
        super().__init__(host, reactor, addresses, port, advertise)
        credentials = Credentials(host, key_log)
        self.server = tls_factory(credentials, host, client=False)
        self.client = tls_factory(credentials, host, client=True)

    def make_link(self, address: str, outgoing: bool, expected: NodeId | None) -> OverlayLink:
        return TLSLink(self, address, outgoing, expected)

    def listen_at(
        self, interface: str, port: int, make: Callable[[str], SecuredConnection]
    ) -> IListeningPort:
        return cast(IListeningPort, self._reactor.listenTCP(port, Door(self, make), 128, interface))

    def dial(self, connection: SecuredConnection, host: str, port: int, source: str) -> None:
        bind = (source, 0) if source else None
        connector = self._reactor.connectTCP(host, port, Dial(self, connection), HANDSHAKE_TIMEOUT, bind)
        connection.stop_connecting = connector.stopConnecting


@implementer(ILinkProtocolFactory)
class TLSLinkFactory:
    """Makes the TLS links of nodes; with SSLKEYLOGFILE in the environment their secrets are logged there."""

    name = TLS_TCP_FH_NO_ICE
    link_type = int(LINK_TYPE)
    ice = False

    def build(
        self,
        host: ILinkHost,
        reactor: Any,
        addresses: Sequence[str],
        port: int,
        advertise: Sequence[str] = (),
    ) -> ILinkProtocol:
        return TLSLinks(host, reactor, addresses, port, advertise, key_log())
