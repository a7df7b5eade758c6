"""DTLS-UDP-SR-NO-ICE: Simple Reliability over DTLS over UDP, without ICE (RFC 6940 §6.6.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from zope.interface import implementer

from ..errors import LinkError
from ..ids import NodeId
from ..interfaces import ILinkHost, ILinkProtocol, ILinkProtocolFactory
from ..wire.codes import OverlayLinkType
from .addresses import numeric, own_addresses
from .datagram_link import DTLSLink
from .handshake import Contexts, KeyLog, SecuredConnection, key_log
from .keepalive import Keepalive
from .service import LinkService, where
from .udp import LARGEST_DATAGRAM, Cookies, Dial, Door

DTLS_UDP_SR_NO_ICE = "DTLS-UDP-SR-NO-ICE"
LOOK_AT_INTERFACES = 30.0
"""Seconds between two looks for addresses that came or went, where a node is bound to all of them."""


@implementer(ILinkProtocol)
class DTLSLinks(LinkService):
    """The DTLS links of one node; `reactor` is an IReactorUDP.

    Where it is bound to all addresses it has one socket for each: what is sent from a socket that is bound to none
    leaves from whichever address the system likes, and the other end would not know it.
    """

    name = DTLS_UDP_SR_NO_ICE
    link_type = int(OverlayLinkType.DTLS_UDP_SR_NO_ICE)
    answers_stun = False
    """Without ICE "no STUN connectivity checks or keepalives are used" (RFC 6940 §6.6.6)."""

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
        self.clock = host.clock
        self.cookies = Cookies(host.clock)
        self.listening = Contexts(host, SSL.DTLS_METHOD, key_log, self.cookies.set_up)
        self.connecting = Contexts(host, SSL.DTLS_METHOD, key_log)
        self._looking: Any = None

    # -- listening

    def interfaces(self) -> Sequence[str]:
        if not self._bind or any(numeric(address).is_unspecified for address in self._bind):
            versions = {numeric(address).version for address in self._bind if address != "::"} or {4, 6}
            return [each for each in own_addresses() if numeric(each).version in versions]
        return self._bind

    def _listen(self) -> None:
        super()._listen()
        if self.interfaces() is not self._bind:
            self._looking = self.clock.callLater(LOOK_AT_INTERFACES, self._look_at_interfaces)

    def _look_at_interfaces(self) -> None:
        """Listen at addresses that are new, and no more at those that are gone."""
        there = set(self.interfaces())
        had = {where(port)[0]: port for port in self._ports}
        for address in had.keys() - there:
            self._ports.remove(had[address])
            self.close_port(had[address])
        for address in sorted(there - had.keys()):
            try:
                self._ports.append(self.open_port(self._port, self._make_link, address))
            except LinkError:
                continue  # it is not ready yet, or gone again; the next look will tell
        self._listening_at()
        self._looking = self.clock.callLater(LOOK_AT_INTERFACES, self._look_at_interfaces)

    def listen_at(
        self, interface: str, port: int, make: Callable[[str], SecuredConnection]
    ) -> IListeningPort:
        door = Door(self, make)
        door.port = self._reactor.listenUDP(port, door, interface, LARGEST_DATAGRAM)
        return door.port

    def close_port(self, port: IListeningPort) -> None:
        # Its associations share the socket: it is closed after the last of them.
        door: Door = port.protocol  # type: ignore[attr-defined]
        door.retire()

    def _close_ports(self) -> None:
        if self._looking is not None and self._looking.active():
            self._looking.cancel()
        super()._close_ports()

    def reject(self, cause: str, address: str) -> None:
        """Count somebody whom no connection was made with."""
        self.host.owner.link_rejected(cause, address)

    # -- connecting

    def make_link(self, address: str, outgoing: bool, expected: NodeId | None) -> DTLSLink:
        return DTLSLink(self, self.name, address, outgoing, expected)

    def keepalive(self, connection: SecuredConnection, host: str, port: int) -> Keepalive | None:
        """What watches the path of a connection that we begin."""
        return None

    def dial(self, connection: SecuredConnection, host: str, port: int, source: str) -> None:
        dial = Dial(self, connection, (host, port), self.keepalive(connection, host, port))
        any_address = "::" if numeric(host).version == 6 else "0.0.0.0"
        try:
            dial.port = self._reactor.listenUDP(0, dial, source or any_address, LARGEST_DATAGRAM)
        except (CannotListenError, OSError) as error:
            why = error.socketError if isinstance(error, CannotListenError) else error
            self.clock.callLater(0, self._cannot_dial, connection, f"cannot reach {connection.address}: {why}")
        else:
            connection.stop_connecting = lambda: self._stop_dialing(dial, connection)

    def _cannot_dial(self, connection: SecuredConnection, why: str) -> None:
        self.unconnected(connection)
        connection.give_up(LinkError(why))

    def _stop_dialing(self, dial: Dial, connection: SecuredConnection) -> None:
        dial.close()
        self._cannot_dial(connection, f"{connection.address}: given up")


@implementer(ILinkProtocolFactory)
class DTLSLinkFactory:
    """Makes the DTLS links of nodes; with SSLKEYLOGFILE in the environment their secrets are logged there."""

    name = DTLS_UDP_SR_NO_ICE
    link_type = int(OverlayLinkType.DTLS_UDP_SR_NO_ICE)
    ice = False

    def build(
        self,
        host: ILinkHost,
        reactor: Any,
        addresses: Sequence[str],
        port: int,
        advertise: Sequence[str] = (),
    ) -> ILinkProtocol:
        return DTLSLinks(host, reactor, addresses, port, advertise, key_log())
