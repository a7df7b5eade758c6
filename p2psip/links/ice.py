"""DTLS-UDP-SR: Simple Reliability over DTLS over the pair of addresses that ICE chooses (RFC 6940 §6.6.4, §6.5.1.3).

Whoever has no link yet connects to the listening socket of a bootstrap node, as without ICE; that socket answers STUN
Binding, too, so that a node behind a NAT needs no STUN server but its peers.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from aioice import Candidate
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import LinkError
from ..hostport import address_text
from ..ids import NodeId
from ..interfaces import (
    ILinkHost,
    ILinkProtocol,
    ILinkProtocolFactory,
    INegotiation,
)
from ..wire.codes import CandType, OverlayLinkType
from ..wire.methods import IceCandidate, IceExtension, IpAddressPort
from .addresses import numeric, outward_addresses, own_addresses, refusal
from .agent import Agent
from .datagram_link import DTLSLink
from .dtls import DTLSTransport
from .dtls_links import DTLSLinks
from .handshake import CLOSING_TIME, SecuredConnection, key_log
from .keepalive import Keepalive
from .offers import SecuredApplication
from .service import where
from .stun import Place
from .udp import unfragmented

DTLS_UDP_SR = "DTLS-UDP-SR"
MOST_NEGOTIATIONS = 64
"""Exchanges that are under way at a time."""
MOST_STUN_SERVERS = 3
MOST_HOST_CANDIDATES = 6
MOST_CHECKED = 16
"""Candidates of the other end that are checked at most: a stranger names them."""
HALF_LIFE = 40.0
"""Seconds after which a half that was never concluded is freed: those of a request and all its retransmissions."""
TELL_AGAIN = 600.0
MOST_TOLD = 256
"""Seconds until the log tells again why there is no connection to a node, and of how many nodes that is remembered."""
FREE_UNUSED = 5.0
"""Seconds from the handshake until the candidates are freed that neither end uses."""
LISTENING = b"p2psip-listening"
"""The ICE extension that names the port at which a host candidate's node listens for those who bootstrap."""

_TYPES = {"host": CandType.HOST, "srflx": CandType.SRFLX, "relay": CandType.RELAY}
_NAMES = {int(number): name for name, number in _TYPES.items()}

_UFRAG, _PASSWORD = (re.compile(rb"[A-Za-z0-9+/]{%d,256}" % least) for least in (4, 22))

T = TypeVar("T")


@dataclass(slots=True)
class _Seen:
    """Where the other end of a connection sees this node, and where it can be asked by others of our sockets."""

    server: Place
    at: str


@implementer(ILinkProtocol)
class ICELinks(DTLSLinks):
    """The links of one node with ICE; `reactor` is an IReactorUDP whose event loop is asyncio's."""

    log = Logger()
    name = DTLS_UDP_SR
    link_type = int(OverlayLinkType.DTLS_UDP_SR)
    answers_stun = True

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._negotiations: dict[Negotiation, None] = {}
        self._seen: dict[SecuredConnection, _Seen] = {}
        self._listening_ports: dict[str, int] = {}
        self._background: set[asyncio.Future[Any]] = set()
        self._told: OrderedDict[NodeId, float] = OrderedDict()

    def _listening_at(self) -> None:
        super()._listening_at()
        self._listening_ports = dict(where(port) for port in self._ports)

    # -- what the other ends tell of this node

    def keepalive(self, connection: SecuredConnection, host: str, port: int) -> Keepalive:
        first: list[Place] = []

        def seen(at: Place, rtt: float) -> None:
            if isinstance(connection, DTLSLink):
                connection.seed(rtt)
            first.append(at)
            if at != first[0]:
                # A NAT has another address for us now: the other end does not know this association there.
                connection.path_silent(True)
            del first[1:]
            self.seen(connection, (host, port), at[0])

        return Keepalive(
            self.clock, self.host.random, seen, connection.path_silent, connection.path_answers
        )

    def seen(self, connection: SecuredConnection, server: Place, at: str) -> None:
        """The other end of `connection`, at `server`, sees this node at the address `at`."""
        self._seen[connection] = _Seen(server, at)
        self._judge_nat()

    def _judge_nat(self) -> None:
        own = {str(numeric(each)) for each in (*own_addresses(), *self._advertise)}
        self.behind_nat = any(each.at not in own for each in self._seen.values())

    def connection_ended(self, connection: SecuredConnection) -> None:
        # RFC 6940 §6.5.1.4: "If the connection to that host is lost, it MUST be removed from the list of STUN servers".
        if self._seen.pop(connection, None) is not None and self._seen:
            self._judge_nat()
        super().connection_ended(connection)

    def stun_servers(self) -> Sequence[Place]:
        """One connected peer of each group that sees this node at the same address (RFC 6940 §6.5.1.4)."""
        groups: dict[tuple[str, int], Place] = {}
        for seen in self._seen.values():
            groups.setdefault((seen.at, numeric(seen.server[0]).version), seen.server)
        return list(groups.values())[:MOST_STUN_SERVERS]

    # -- negotiations

    def host_addresses(self) -> Sequence[str]:
        """The addresses of host candidates."""
        addresses = self.interfaces()
        if addresses is self._bind:
            return addresses
        outward = [each for each in outward_addresses() if each in addresses]
        others = [each for each in addresses if not numeric(each).is_loopback]
        return list(dict.fromkeys([*outward, *others]))[:MOST_HOST_CANDIDATES] or addresses

    def external_addresses(self) -> Sequence[str]:
        """Addresses that this node advertises without having them: those of a NAT that maps one to one."""
        own = set(own_addresses())
        return [address for address in self._advertise if address not in own]

    def negotiate(
        self, controlling: bool, expected: NodeId | None = None, application: int | None = None
    ) -> Deferred[INegotiation]:
        return Deferred.fromCoroutine(self._negotiate(controlling, application))

    async def _negotiate(self, controlling: bool, application: int | None) -> INegotiation:
        relays = self.host.relays if self.behind_nat else None
        relay = await relays.relay() if relays is not None else None
        if self._stopped:
            raise LinkError("this node is stopping")
        if len(self._negotiations) >= MOST_NEGOTIATIONS:
            raise LinkError("too many connections are being negotiated")
        agent = Agent(controlling, self.host_addresses(), self.external_addresses(), self.stun_servers(), relay)
        negotiation = Negotiation(self, agent, application)
        self._negotiations[negotiation] = None
        try:
            await negotiation.gather()
        except BaseException:
            negotiation.abandon()
            raise
        if relays is not None and relay is not None and not agent.has_relay:
            relays.relay_failed(relay)
        return negotiation

    def failed(self, node_id: NodeId, error: LinkError) -> None:
        """Tell the administrator why there is no connection to a node, once in a while."""
        now = self.clock.seconds()
        if now - self._told.get(node_id, -TELL_AGAIN) >= TELL_AGAIN:
            self._told.pop(node_id, None)
            self._told[node_id] = now
            while len(self._told) > MOST_TOLD:
                self._told.popitem(last=False)
            self.log.warn("no connection to {node}: {error}", node=node_id.hex(), error=error)

    def negotiation_ended(self, negotiation: Negotiation) -> bool:
        """`negotiation` has come to its end; whether it had not before."""
        return self._negotiations.pop(negotiation, self) is None

    def listening_port(self, address: str) -> int:
        """Where somebody without a link could connect to `address`; 0: nowhere."""
        return self._listening_ports.get(address, 0)

    def in_background(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run what nobody waits for, but `stop`."""
        task = asyncio.ensure_future(coroutine)
        # The event loop keeps no reference to its tasks.
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def remote_candidates(self, candidates: Sequence[IceCandidate]) -> list[Candidate]:
        """Those that may be checked of the candidates that a stranger sent; LinkError if there is none."""
        why = "no candidates"
        found: list[Candidate] = []
        for each in sorted(candidates, key=lambda candidate: -candidate.priority)[:MOST_CHECKED]:
            host, port = each.addr_port.host, getattr(each.addr_port, "port", 0)
            try:
                why = refusal(host, port, self._own, self._loopback)
            except LinkError as error:
                why = str(error)
            if not why:
                found.append(_from_wire(each, str(numeric(host)), port))
        if not found:
            raise LinkError(f"no usable candidate: {why}")
        return found

    async def _stop(self) -> None:
        for negotiation in list(self._negotiations):
            negotiation.abandon()
        await super()._stop()
        if self._background:
            await _from_asyncio(asyncio.wait(list(self._background), timeout=CLOSING_TIME))
        for task in self._background:
            task.cancel()  # a TURN server that does not answer


@implementer(INegotiation)
class Negotiation:
    """This end's half of an exchange: an ICE agent, and what it becomes."""

    def __init__(self, links: ICELinks, agent: Agent, application: int | None) -> None:
        self._links = links
        self._agent = agent
        self._application = application
        self._timeout = links.clock.callLater(HALF_LIFE, self.abandon)
        self.ufrag = agent.local_username.encode()
        self.password = agent.local_password.encode()
        self.candidates: Sequence[IceCandidate] = ()

    async def gather(self) -> None:
        """Find the candidates of this end."""
        links = self._links
        gathered = await _from_asyncio(self._agent.gather())
        self.candidates = tuple(
            _to_wire(each, links.link_type, links.listening_port(each.host)) for each in gathered
        )

    def conclude(
        self, ufrag: bytes, password: bytes, candidates: Sequence[IceCandidate], expected: NodeId
    ) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._conclude(ufrag, password, candidates, expected))

    async def _conclude(
        self, ufrag: bytes, password: bytes, candidates: Sequence[IceCandidate], expected: NodeId
    ) -> Any:
        if self._timeout.active():
            self._timeout.cancel()
        try:
            checkable = self._links.remote_candidates(candidates)
            await _from_asyncio(
                self._agent.choose(_text(ufrag, _UFRAG), _text(password, _PASSWORD), checkable)
            )
            connection = self._secure(expected, candidates)
        except BaseException as error:
            self.abandon()
            if isinstance(error, LinkError):
                self._links.failed(expected, error)
            raise
        self._end()
        await connection.opened
        self._agent.secured = True
        return connection.connection if isinstance(connection, SecuredApplication) else connection

    def _secure(self, expected: NodeId, candidates: Sequence[IceCandidate]) -> SecuredConnection:
        """Begin DTLS over the chosen pair: the end that sent the request is its server (RFC 6940 §6.5.1.13)."""
        links, agent = self._links, self._agent
        pair = agent.pair
        if pair is None:
            raise LinkError("the chosen pair was lost")
        # "Outgoing" is who is the DTLS client, as without ICE.
        outgoing = not agent.ice_controlling
        address = address_text(*pair.remote_addr)
        connection: SecuredConnection
        if self._application is None:
            connection = link = links.make_link(address, outgoing, expected)
            link.over_pair(lambda: agent.pair_text, _listening_of(pair.remote_candidate, candidates))
            if agent.rtt is not None:
                link.seed(agent.rtt)
        else:
            connection = application = SecuredApplication(links, address, outgoing, expected, self._application)
            application.pair = lambda: agent.pair_text
        ssl = SSL.Connection(links.connecting.current(), None)
        if outgoing:
            ssl.set_connect_state()
        else:
            ssl.set_accept_state()
        links.connected(connection)
        transport = DTLSTransport(ssl, _Pair(links, agent), connection, links.clock)
        agent.silent = connection.path_silent
        agent.answers = lambda seen: self._answered(connection, seen)
        transport.start()
        agent.deliver_to(transport.received)
        return connection

    def _answered(self, connection: SecuredConnection, seen: Place | None) -> None:
        """The other end answers over the chosen pair, and tells where it sees us."""
        connection.path_answers()
        pair = self._agent.pair
        if seen is None or pair is None or pair.local_candidate.type == "relay":
            return
        # One behind a NAT would not hear who asks it from another socket.
        if pair.remote_candidate.type == "host":
            self._links.seen(connection, pair.remote_addr, seen[0])

    def _end(self) -> bool:
        if self._timeout.active():
            self._timeout.cancel()
        return self._links.negotiation_ended(self)

    def abandon(self) -> None:
        if self._end():
            self._links.in_background(self._agent.close())


class _Pair:
    """Carries the datagrams of one connection over the pair that ICE chose."""

    def __init__(self, links: ICELinks, agent: Agent) -> None:
        self._links = links
        self._agent = agent
        self._freeing = links.clock.callLater(FREE_UNUSED, self._free_unused)
        pair = agent.pair
        assert pair is not None
        self.here, self.there = pair.local_addr, pair.remote_addr

    def _free_unused(self) -> None:
        self._links.in_background(self._agent.free_unused())

    def send(self, datagram: bytes) -> None:
        self._agent.transmit(datagram)

    def send_unfragmented(self, datagram: bytes) -> None:
        with unfragmented(self._agent.handle):
            self._agent.transmit(datagram)

    def close(self) -> None:
        if self._freeing.active():
            self._freeing.cancel()
        self._links.in_background(self._agent.close())


def _listening_of(chosen: Candidate, candidates: Sequence[IceCandidate]) -> str:
    """Where the node at the other end listens, if it can be reached at an address of its own."""
    for each in candidates:
        host, port = each.addr_port.host, getattr(each.addr_port, "port", 0)
        if chosen.type == "host" and (host, port) == (chosen.host, chosen.port):
            for extension in each.extensions:
                if extension.name == LISTENING and extension.value.isdigit() and len(extension.value) < 6:
                    return address_text(host, int(extension.value))
    return ""


def _from_asyncio(coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
    return Deferred.fromFuture(asyncio.ensure_future(coroutine)).addErrback(_cancelled)


def _cancelled(failure: Failure) -> Failure:
    """Cancelled as asyncio has it, as Twisted has it."""
    return Failure(CancelledError()) if failure.check(asyncio.CancelledError) else failure


def _text(ice_chars: bytes, form: re.Pattern[bytes]) -> str:
    if form.fullmatch(ice_chars) is None:
        raise LinkError("ufrag and password are at least 4 and 22 letters, digits, + and /")
    return ice_chars.decode("ascii")


def _to_wire(candidate: Candidate, link_type: int, listening: int) -> IceCandidate:
    related = None
    if candidate.type != "host":
        related = IpAddressPort.of(candidate.related_address or candidate.host, candidate.related_port or 0)
    extensions = (IceExtension(name=LISTENING, value=b"%d" % listening),) if listening else ()
    return IceCandidate(
        addr_port=IpAddressPort.of(candidate.host, candidate.port),
        overlay_link=link_type,
        foundation=candidate.foundation.encode(),
        priority=candidate.priority,
        type=_TYPES[candidate.type],
        rel_addr_port=related,
        extensions=extensions,
    )


def _from_wire(candidate: IceCandidate, host: str, port: int) -> Candidate:
    return Candidate(
        foundation=candidate.foundation.decode("ascii", "replace"),
        component=1,
        transport="udp",
        priority=candidate.priority,
        host=host,
        port=port,
        type=_NAMES.get(int(candidate.type), "host"),
    )


@implementer(ILinkProtocolFactory)
class ICELinkFactory:
    """Makes the links of nodes with ICE; with SSLKEYLOGFILE in the environment their secrets are logged there."""

    name = DTLS_UDP_SR
    link_type = int(OverlayLinkType.DTLS_UDP_SR)
    ice = True

    def build(
        self,
        host: ILinkHost,
        reactor: Any,
        addresses: Sequence[str],
        port: int,
        advertise: Sequence[str] = (),
    ) -> ILinkProtocol:
        return ICELinks(host, reactor, addresses, port, advertise, key_log())
