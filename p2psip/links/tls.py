"""TLS-TCP-FH-NO-ICE: the framing header over TLS over TCP, without ICE (RFC 6940 §6.6.5)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IListeningPort,
    IProtocol,
)
from twisted.internet.protocol import ClientFactory, ServerFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import LinkError
from ..hostport import address_text
from ..ids import NodeId
from ..interfaces import (
    IApplicationConnection,
    ILink,
    ILinkHost,
    ILinkProtocol,
    ILinkProtocolFactory,
    INegotiation,
)
from ..throttle import source_key
from ..wire.codes import OverlayLinkType
from ..wire.methods import IceCandidate
from .addresses import (
    has_ipv6,
    host_candidates,
    numeric,
    outward_addresses,
    refusal,
    usable,
)
from .dialing import Race
from .handshake import (
    HANDSHAKE_TIMEOUT,
    Credentials,
    KeyLog,
    SecuredConnection,
    tls_factory,
    wrapped,
)
from .link import TLS_TCP_FH_NO_ICE, TLSLink
from .offers import Offer, TLSApplication
from .plain import negotiate

LINK_TYPE = OverlayLinkType.TLS_TCP_FH_NO_ICE

MOST_HANDSHAKES = 256
MOST_HANDSHAKES_OF_ONE = 32
"""Incoming connections that are not proved, in all and from one address (of IPv6: from one /64)."""
MOST_INCOMING = 2048
MOST_OF_ONE_NODE = 8
"""Incoming links of one Node-ID, those that are being drained or closed as well."""
MOST_OFFERS = 64


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
        return self._links.accept(self._make(address), source)


class Dial(ClientFactory):
    """One attempt to connect."""

    noisy = False

    def __init__(self, links: TLSLinks, connection: SecuredConnection) -> None:
        self._links = links
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._links.connected(self._connection)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._links.unconnected(self._connection)
        self._connection.unconnected(reason)


@implementer(ILinkProtocol)
class TLSLinks:
    """The TLS links of one node: one listening port for each of `addresses`, none given: for all.

    `reactor` is an IReactorTCP; `advertise` are the addresses for candidates, where they are not the bound
    ones. Outgoing connections come from the bound address, where there is one of the same family.
    """

    name = TLS_TCP_FH_NO_ICE
    link_type = int(LINK_TYPE)
    behind_nat = None

    def __init__(
        self,
        host: ILinkHost,
        reactor: Any,
        addresses: Sequence[str],
        port: int,
        advertise: Sequence[str] = (),
        key_log: KeyLog | None = None,
    ) -> None:
        self.host = host
        self.addresses: Sequence[str] = ()
        self._offers: dict[Offer, None] = {}
        self._reactor = reactor
        self._bind = tuple(str(numeric(address)) for address in addresses)
        self._port = port
        self._advertise = tuple(str(numeric(address)) for address in advertise)
        credentials = Credentials(host, key_log)
        self._server = tls_factory(credentials, host, client=False)
        self._client = tls_factory(credentials, host, client=True)
        self._ports: list[IListeningPort] = []
        self._candidates: Sequence[IceCandidate] = ()
        self._own: frozenset[tuple[str, int]] = frozenset()
        self._loopback = _any_loopback([*self._bind, *self._advertise])
        self._connections: dict[SecuredConnection, str] = {}
        self._dialing: dict[SecuredConnection, None] = {}
        self._handshakes: Counter[str] = Counter()
        self._stopped = False
        self._closing: list[Deferred[Any]] = []
        self._all_ended: Deferred[None] | None = None

    # -- listening

    def interfaces(self) -> Sequence[str]:
        """The addresses to bind to."""
        if not self._bind or "::" in self._bind:
            # "::" takes IPv4 as well.
            return ("::",) if has_ipv6() else ("0.0.0.0",)
        return self._bind

    def listen(self) -> Deferred[None]:
        return maybeDeferred(self._listen)

    def _listen(self) -> None:
        self._stopped, self._all_ended = False, None
        try:
            for interface in self.interfaces():
                self._ports.append(self.open_port(self._port, self._make_link, interface))
        except LinkError:
            self._close_ports()
            raise
        self._candidates = self.candidates_at(self._ports)
        bound = [_where(port) for port in self._ports]
        self.addresses = tuple(address_text(*each) for each in bound)
        known = {(each.addr_port.host, getattr(each.addr_port, "port", 0)) for each in self._candidates}
        self._own = frozenset({*known, *bound})
        self._loopback = _any_loopback(address for address, _ in self._own)

    def _make_link(self, address: str) -> SecuredConnection:
        return TLSLink(self, address, False, None)

    def open_port(
        self, port: int, make: Callable[[str], SecuredConnection], interface: str
    ) -> IListeningPort:
        """Listen; LinkError says what is in the way, and of what option."""
        try:
            listening: IListeningPort = self._reactor.listenTCP(port, Door(self, make), 128, interface)
        except CannotListenError as error:
            raise LinkError(
                f"cannot listen on {interface} port {port}: {error.socketError}; "
                "choose another port with --reload-port"
            ) from None
        return listening

    def close_port(self, port: IListeningPort) -> None:
        """Listen no more at one port."""
        closing = maybeDeferred(port.stopListening)
        self._closing.append(closing)
        closing.addBoth(lambda _: self._closing.remove(closing))

    def _close_ports(self) -> None:
        for port in self._ports:
            self.close_port(port)
        self._ports.clear()
        self.addresses = ()

    def candidates(self) -> Sequence[IceCandidate]:
        return self._candidates

    def candidates_at(self, ports: Sequence[IListeningPort]) -> Sequence[IceCandidate]:
        """Host candidates for listening ports (RFC 6940 §6.5.1.11)."""
        found: dict[tuple[str, int], None] = {}
        for port in ports:
            host, number = _where(port)
            if self._advertise:
                addresses: Sequence[str] = self._advertise
            elif numeric(host).is_unspecified:
                addresses = [each for each in outward_addresses() if host == "::" or ":" not in each]
            else:
                addresses = (host,)
            found.update(dict.fromkeys((address, number) for address in addresses))
        return host_candidates(list(found), self.link_type)

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stopped = True
        self._close_ports()
        for dialing in list(self._dialing):
            dialing.abandon()
        for offer in list(self._offers):
            offer.connection.addErrback(lambda _: None)
            offer.connection.cancel()
        for connection in list(self._connections):
            if isinstance(connection, TLSLink) and connection.is_proved:
                connection.close()
            elif not connection.is_proved:
                connection.abandon()
            else:
                connection.disconnect(None)
        if self._connections:
            self._all_ended = self._all_ended or Deferred()
            await self._all_ended
        for closing in list(self._closing):
            await closing

    # -- the connections

    def admit(self, source: str) -> bool:
        """Whether one more connection from `source`, a `source_key`, may begin.

        When there are too many in all, the oldest of the source with the most gives way: else a few strangers
        that begin and say nothing would keep everybody out.
        """
        if self._handshakes[source] >= MOST_HANDSHAKES_OF_ONE or len(self._connections) >= MOST_INCOMING:
            return False
        if self._handshakes.total() >= MOST_HANDSHAKES:
            busiest, _ = self._handshakes.most_common(1)[0]
            unproved = (each for each, of in self._connections.items() if of == busiest and each.in_handshake)
            next(unproved).give_way()
        return True

    def crowded(self, node_id: NodeId) -> bool:
        """Whether there are too many incoming links of `node_id` for another."""
        found = [
            each
            for each in self._connections
            if isinstance(each, TLSLink) and not each.outgoing and each.node_id == node_id
        ]
        return len(found) >= MOST_OF_ONE_NODE

    def accept(self, connection: SecuredConnection, source: str) -> IProtocol:
        """Begin the handshake as TLS server."""
        self._connections[connection] = source
        self._handshakes[source] += 1
        return wrapped(self._server, connection)

    def connected(self, connection: SecuredConnection) -> IProtocol:
        """Begin the handshake as TLS client."""
        del self._dialing[connection]
        self._connections[connection] = ""
        return wrapped(self._client, connection)

    def unconnected(self, connection: SecuredConnection) -> None:
        """TCP could not connect."""
        self._dialing.pop(connection, None)

    def handshake_ended(self, connection: SecuredConnection) -> None:
        source = self._connections.get(connection, "")
        if source:
            self._handshakes[source] -= 1
            if not self._handshakes[source]:
                del self._handshakes[source]

    def connection_ended(self, connection: SecuredConnection) -> None:
        self._connections.pop(connection, None)
        if not self._connections and self._all_ended is not None and not self._all_ended.called:
            self._all_ended.callback(None)

    def offer_ended(self, offer: Offer) -> None:
        self._offers.pop(offer, None)

    # -- connecting

    def negotiate(
        self, controlling: bool, expected: NodeId | None = None, application: int | None = None
    ) -> Deferred[INegotiation]:
        return negotiate(self, controlling, expected, application)

    def connect(self, candidates: Sequence[IceCandidate], expected: NodeId) -> Deferred[ILink]:
        addresses = usable(candidates, LINK_TYPE, self._own, self._loopback)

        def dial(host: str, port: int) -> Deferred[SecuredConnection]:
            return self._dial(TLSLink(self, address_text(host, port), True, expected), host, port)

        return Race(self.host.clock, addresses, dial).won.addCallback(lambda link: cast(TLSLink, link))

    def connect_to_bootstrap(self, address: str, port: int) -> Deferred[ILink]:
        try:
            # Who configures a loopback address means it.
            if why := refusal(address, port, self._own, loopback=True):
                raise LinkError(f"bootstrap node {address_text(address, port)}: {why}")
        except LinkError:
            return fail()
        link = TLSLink(self, address_text(address, port), True, None)
        return self._dial(link, address, port).addCallback(lambda made: cast(TLSLink, made))

    def _dial(self, connection: SecuredConnection, host: str, port: int) -> Deferred[SecuredConnection]:
        if self._stopped:
            return fail(LinkError("this node is stopping"))
        source = self._source(host)
        bind = (source, 0) if source else None
        self._dialing[connection] = None
        connector = self._reactor.connectTCP(host, port, Dial(self, connection), HANDSHAKE_TIMEOUT, bind)
        connection.stop_connecting = connector.stopConnecting
        return connection.opened

    def _source(self, host: str) -> str:
        """Of the addresses we are bound to, the one to connect to `host` from; empty: any."""
        there = numeric(host)
        for address in self._bind:
            here = numeric(address)
            alike = here.version == there.version and here.is_loopback == there.is_loopback
            if alike and not here.is_unspecified:
                return address
        return ""

    # -- application connections

    def offer_application(
        self, expected: NodeId, application: int
    ) -> tuple[Sequence[IceCandidate], Deferred[IApplicationConnection]]:
        if len(self._offers) >= MOST_OFFERS:
            raise LinkError("too many application connections are being offered")
        offer = Offer(self, expected, application)
        self._offers[offer] = None
        return offer.listen(), offer.connection

    def connect_application(
        self, candidates: Sequence[IceCandidate], expected: NodeId, application: int
    ) -> Deferred[IApplicationConnection]:
        addresses = usable(candidates, LINK_TYPE, self._own, self._loopback)

        def dial(host: str, port: int) -> Deferred[SecuredConnection]:
            made = TLSApplication(self, address_text(host, port), True, expected, application)
            return self._dial(made, host, port)

        race = Race(self.host.clock, addresses, dial)
        return race.won.addCallback(lambda made: cast(TLSApplication, made).connection)


def _key_log() -> KeyLog | None:
    name = os.environ.get("SSLKEYLOGFILE", "")
    if not name:
        return None

    def append(line: bytes) -> None:
        with open(name, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as log:
            log.write(line)

    return append


def _any_loopback(addresses: Iterable[str]) -> bool:
    return any(numeric(address).is_loopback for address in addresses)


def _where(port: IListeningPort) -> tuple[str, int]:
    """The address and number of a listening port."""
    at: Any = port.getHost()
    return at.host, at.port


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
        return TLSLinks(host, reactor, addresses, port, advertise, _key_log())
