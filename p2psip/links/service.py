"""What the links of one node have in common, of whatever protocol: addresses, bounds, and how they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort

from ..errors import LinkError
from ..hostport import address_text
from ..ids import NodeId
from ..interfaces import (
    IApplicationConnection,
    ILink,
    ILinkHost,
    INegotiation,
)
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
from .handshake import SecuredConnection
from .link import OverlayLink
from .offers import Offer, SecuredApplication
from .plain import negotiate

MOST_HANDSHAKES = 256
MOST_HANDSHAKES_OF_ONE = 32
"""Incoming connections that are not proved, in all and from one address (of IPv6: from one /64)."""
MOST_INCOMING = 2048
MOST_OF_ONE_NODE = 8
"""Incoming links of one Node-ID, those that are being drained or closed as well."""
MOST_OFFERS = 64


class LinkService:
    """The links of one node, of one protocol: one listening port for each of `addresses`, none given: for all.

    `advertise` are the addresses for candidates, where they are not the bound ones.  Outgoing connections come from
    the bound address, where there is one of the same family.  What is particular to TCP or UDP is the subclass's:
    `open_port`, `_begin` and what a link is made of.
    """

    name = ""
    link_type = int(OverlayLinkType.TLS_TCP_FH_NO_ICE)
    behind_nat: bool | None = None

    def __init__(
        self,
        host: ILinkHost,
        reactor: Any,
        addresses: Sequence[str],
        port: int,
        advertise: Sequence[str] = (),
    ) -> None:
        self.host = host
        self.addresses: Sequence[str] = ()
        self._offers: dict[Offer, None] = {}
        self._reactor = reactor
        self._bind = tuple(str(numeric(address)) for address in addresses)
        self._port = port
        self._advertise = tuple(str(numeric(address)) for address in advertise)
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

    # -- what TCP and UDP do each in their way

    def make_link(self, address: str, outgoing: bool, expected: NodeId | None) -> OverlayLink:
        """A link that is to be, to or from `address`."""
        raise NotImplementedError

    def listen_at(
        self, interface: str, port: int, make: Callable[[str], SecuredConnection]
    ) -> IListeningPort:
        """Listen; CannotListenError says why not."""
        raise NotImplementedError

    def dial(self, connection: SecuredConnection, host: str, port: int, source: str) -> None:
        """Begin `connection`, from the address `source` unless that is empty."""
        raise NotImplementedError

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
        self._listening_at()

    def _listening_at(self) -> None:
        """Note where this node listens now."""
        self._candidates = self.candidates_at(self._ports)
        bound = [where(port) for port in self._ports]
        self.addresses = tuple(address_text(*each) for each in bound)
        known = {(each.addr_port.host, getattr(each.addr_port, "port", 0)) for each in self._candidates}
        self._own = frozenset({*known, *bound})
        self._loopback = _any_loopback(address for address, _ in self._own)

    def _make_link(self, address: str) -> SecuredConnection:
        return self.make_link(address, False, None)

    def open_port(
        self, port: int, make: Callable[[str], SecuredConnection], interface: str
    ) -> IListeningPort:
        """Listen; LinkError says what is in the way, and of what option."""
        try:
            return self.listen_at(interface, port, make)
        except CannotListenError as error:
            raise LinkError(
                f"cannot listen on {interface} port {port}: {error.socketError}; "
                "choose another port with --reload-port"
            ) from None

    def close_port(self, port: IListeningPort) -> None:
        """Listen no more at one port."""
        self.close_socket(port)

    def close_socket(self, port: IListeningPort) -> None:
        """Close a socket, now; `stop` waits for that."""
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
            host, number = where(port)
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
            if isinstance(connection, OverlayLink) and connection.is_proved:
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
            if isinstance(each, OverlayLink) and not each.outgoing and each.node_id == node_id
        ]
        return len(found) >= MOST_OF_ONE_NODE

    def accepted(self, connection: SecuredConnection, source: str) -> None:
        """An incoming `connection` begins its handshake."""
        self._connections[connection] = source
        self._handshakes[source] += 1

    def connected(self, connection: SecuredConnection) -> None:
        """An outgoing `connection` begins its handshake."""
        self._dialing.pop(connection, None)
        self._connections[connection] = ""

    def unconnected(self, connection: SecuredConnection) -> None:
        """An outgoing connection could not even begin its handshake."""
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
        def dial(host: str, port: int) -> Deferred[SecuredConnection]:
            return self._dial(self.make_link(address_text(host, port), True, expected), host, port)

        race = Race(self.host.clock, self._usable(candidates), dial)
        return race.won.addCallback(lambda link: cast(ILink, link))

    def _usable(self, candidates: Sequence[IceCandidate]) -> Iterator[tuple[str, int]]:
        return usable(candidates, OverlayLinkType(self.link_type), self._own, self._loopback)

    def connect_to_bootstrap(self, address: str, port: int) -> Deferred[ILink]:
        try:
            # Who configures a loopback address means it.
            if why := refusal(address, port, self._own, loopback=True):
                raise LinkError(f"bootstrap node {address_text(address, port)}: {why}")
        except LinkError:
            return fail()
        link = self.make_link(address_text(address, port), True, None)
        return self._dial(link, address, port).addCallback(lambda made: cast(ILink, made))

    def _dial(self, connection: SecuredConnection, host: str, port: int) -> Deferred[SecuredConnection]:
        if self._stopped:
            return fail(LinkError("this node is stopping"))
        self._dialing[connection] = None
        self.dial(connection, host, port, self.source(host))
        return connection.opened

    def source(self, host: str) -> str:
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
        def dial(host: str, port: int) -> Deferred[SecuredConnection]:
            made = SecuredApplication(self, address_text(host, port), True, expected, application)
            return self._dial(made, host, port)

        race = Race(self.host.clock, self._usable(candidates), dial)
        return race.won.addCallback(lambda made: cast(SecuredApplication, made).connection)


def _any_loopback(addresses: Iterable[str]) -> bool:
    return any(numeric(address).is_loopback for address in addresses)


def where(port: IListeningPort) -> tuple[str, int]:
    """The address and number of a listening port."""
    at: Any = port.getHost()
    return at.host, at.port
