"""One ICE agent: candidates, connectivity checks, and the pair that they choose (RFC 5245; RFC 6940 §6.5.1.3).

aioice does the work.  What is ours: which addresses and servers it gathers from, how long that and the checks may take,
what is freed, and that its sockets answer STUN Binding to everybody, since each peer is a STUN server for the others.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

import aioice.ice
from aioice import Candidate, Connection, stun
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import CandidatePair, StunProtocol

from ..errors import LinkError
from ..hostport import address_text
from ..interfaces import Relay
from .keepalive import INTERVAL
from .stun import Place, binding_request, binding_response, is_plain_request, is_stun, mapped_address, parse
from .udp import prepare

GATHERING = 1.5
"""Seconds that servers are given to tell reflexive and relayed candidates; what comes later is left out."""
CHECKS = 9.0
"""Seconds after which connectivity checks have failed; aioice by itself takes 63."""
DIRECT_FIRST = 1.2
"""Seconds that the pairs without a relay have before one with it may be chosen: two transmissions of a check, of which
the first opens the NAT that the second passes.
"""
MOST_EARLY = 16
"""Datagrams of the other end that are kept until this end has chosen its pair, too."""
MOST_REMOTE = 32
"""Candidates of the other end that are known at a time: those that it sent, and where its checks came from."""
_RETRANSMISSIONS = 3
"""Of a consent check, at 0.5, 1.5 and 3.5 s; it has failed after 7.5 s (as a message, RFC 6940 §6.6.3.1)."""


class _Protocol(StunProtocol):
    """One socket of an agent."""

    receiver: Agent

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        assert isinstance(data, bytes)
        if not is_stun(data):
            self.receiver.datagram_on(self, data, (addr[0], addr[1]))
        elif parse(data) is not None:  # else aioice would keep it, for somebody to fetch
            super().datagram_received(data, addr)


class Agent(Connection):
    """One ICE agent with a single component.

    `silent` and `answers` are told what consent checks (RFC 7675) find, as `Keepalive` tells it: `answers` with where
    the other end sees us, as far as it says.
    """

    def __init__(
        self,
        controlling: bool,
        addresses: Sequence[str],
        external: Sequence[str] = (),
        stun_servers: Sequence[Place] = (),
        relay: Relay | None = None,
    ) -> None:
        """An agent bound to `addresses`; `external` are those that a NAT maps to them with the same ports."""
        super().__init__(controlling)
        self._addresses = addresses
        self._external = external
        self._stun_servers = stun_servers
        self._relay = relay
        self._early: list[bytes] = []
        self._heard_on: StunProtocol | None = None
        self._unanswered = 0
        self._received: Callable[[bytes], None] | None = None
        self.silent: Callable[[bool], None] = lambda dead: None
        self.answers: Callable[[Place | None], None] = lambda seen: None
        self.secured = False
        """Whether the data are protected: then an address tells nothing that DTLS does not know better."""
        self.has_relay = False
        """Whether a TURN server gave this agent an address."""
        self.rtt: float | None = None
        """Of the check that chose the pair, seconds."""

    # -- gathering

    async def gather(self) -> Sequence[Candidate]:
        """The candidates of this end; LinkError where there is not one."""
        self._local_candidates_start = True
        self._local_candidates = await self.get_component_candidates(1, list(self._addresses))
        self._local_candidates_end = True
        if self._closing:
            raise LinkError("given up")
        if not self._local_candidates:
            await self.close()
            raise LinkError(f"no socket could be bound to {', '.join(self._addresses) or 'any address'}")
        return self._local_candidates

    async def get_component_candidates(
        self, component: int, addresses: list[str], timeout: int = 5
    ) -> list[Candidate]:
        found = []
        for place, address in enumerate(addresses):
            protocol = await self._bind(address)
            if protocol is not None:
                host, port = protocol.transport.get_extra_info("sockname")[:2]
                candidate = protocol.local_candidate = _candidate("host", host, port, place=place)
                self._protocols.append(protocol)
                found.append(candidate)
        for protocol in list(self._protocols):
            found += self._mapped_one_to_one(protocol.local_candidate)
        tasks = [
            asyncio.ensure_future(self._ask(protocol, server))
            for protocol in self._protocols
            for server in self._stun_servers
            if _alike(protocol.local_candidate.host, server[0])
        ]
        if self._relay is not None:
            tasks.append(asyncio.ensure_future(self._allocate(self._relay)))
        if tasks:
            try:
                done, _ = await asyncio.wait(tasks, timeout=GATHERING)
            finally:
                for task in tasks:
                    task.cancel()
            for task in done:
                gathered = None if task.exception() else task.result()
                if gathered is not None and not any(_same(gathered, each) for each in found):
                    found.append(gathered)
        return found

    async def _bind(self, address: str) -> StunProtocol | None:
        try:
            transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Protocol(self), local_addr=(address, 0)
            )
        except OSError:
            return None  # the address is gone
        if self._closing:
            transport.close()
            return None
        handle = transport.get_extra_info("socket")
        if handle is not None:
            prepare(handle)
        return protocol

    def _mapped_one_to_one(self, host: Candidate) -> list[Candidate]:
        return [
            _candidate("srflx", address, host.port, base=(host.host, host.port))
            for address in self._external
            if _alike(address, host.host)
        ]

    async def _ask(self, protocol: StunProtocol, server: Place) -> Candidate | None:
        """Where a STUN server sees one of our sockets."""
        base = (protocol.local_candidate.host, protocol.local_candidate.port)
        response, _ = await protocol.request(binding_request(), server, retransmissions=1)
        place = mapped_address(response)
        return None if place in (None, base) else _candidate("srflx", *place, base=base)

    async def _allocate(self, relay: Relay) -> Candidate | None:
        """An address at a TURN server."""
        candidate, protocol = await aioice.ice.relayed_candidate(
            component=1,
            hide_related_address=False,
            protocol_factory=lambda: _Protocol(self),
            turn_server=(relay.address, relay.port),
            turn_username=relay.username,
            turn_password=relay.password,
            turn_ssl=False,
            turn_transport="udp",
        )
        if self._closing:
            await protocol.close()
            return None
        self._protocols.append(protocol)
        self.has_relay = True
        return candidate

    # -- checks

    async def choose(self, ufrag: str, password: str, candidates: Sequence[Candidate]) -> None:
        """Check all pairs until one is chosen.

        :raises LinkError: none would do; it says what was tried.
        """
        self.remote_username, self.remote_password = ufrag, password
        for candidate in candidates:
            await self.add_remote_candidate(candidate)
        await self.add_remote_candidate(None)
        began = time.monotonic()
        try:
            await asyncio.wait_for(self.connect(), CHECKS)
        except (TimeoutError, ConnectionError):
            raise LinkError(self._what_failed(time.monotonic() - began)) from None

    async def check_start(self, pair: CandidatePair) -> None:
        if self.ice_controlling and _is_relayed(pair):
            # Not "waiting", or no other pair's check would start meanwhile.
            self.check_state(pair, CandidatePair.State.IN_PROGRESS)
            await asyncio.sleep(DIRECT_FIRST)
        began = time.monotonic()
        await super().check_start(pair)
        if pair.nominated and self.rtt is None:
            self.rtt = time.monotonic() - began

    def _what_failed(self, seconds: float) -> str:
        ours = ", ".join(_text(each) for each in self._local_candidates) or "none"
        theirs = ", ".join(_text(each) for each in self._remote_candidates) or "none"
        relayed = any(each.type == "relay" for each in (*self._local_candidates, *self._remote_candidates))
        why = "" if relayed else "; no TURN server is known that could relay"
        return f"no candidate pair worked within {seconds:.0f} s: ours {ours}; theirs {theirs}{why}"

    @property
    def pair(self) -> CandidatePair | None:
        """The pair that was chosen, as long as it lasts."""
        return self._nominated.get(1)

    @property
    def pair_text(self) -> str:
        """The pair for people."""
        pair = self.pair
        return "" if pair is None else f"{_text(pair.local_candidate)} -> {_text(pair.remote_candidate)}"

    def request_received(self, message: stun.Message, addr: Place, protocol: StunProtocol) -> None:
        if is_plain_request(message) and not self._closing:
            protocol.transport.sendto(binding_response(message, addr), addr)
        elif "USERNAME" in message.attributes and "PRIORITY" not in message.attributes:
            self.respond_error(message, addr, protocol, (400, "Bad Request"))
        else:
            super().request_received(message, addr, protocol)

    def check_incoming(self, message: stun.Message, addr: Place, protocol: StunProtocol) -> None:
        remote = next((each for each in self._remote_candidates if _place(each) == addr), None)
        if remote is None:
            if not self._room_for_another():
                return
        elif self._has_better(protocol, remote):
            return
        elif (known := self._find_pair(protocol, remote)) is not None and known is not self.pair:
            given_up = known.task is not None and known.task.done()
            if given_up or (self._unanswered and known.state is CandidatePair.State.SUCCEEDED):
                # It was not needed when the pair was chosen, or worked once: it may be the way now.
                known.task = None
                self.check_state(known, CandidatePair.State.WAITING)
        super().check_incoming(message, addr, protocol)

    def _has_better(self, protocol: StunProtocol, remote: Candidate) -> bool:
        """Whether a check of the other end is no reason to leave the chosen pair: late, or to keep a NAT open."""
        pair = self.pair
        if pair is None or not self.ice_controlling or self._unanswered:
            return False
        # A new address of the other end is a reason, unless it is seen through our relay.
        return remote.type != "prflx" or (protocol.local_candidate.type == "relay" and not _is_relayed(pair))

    def _room_for_another(self) -> bool:
        """Make room for one more address of the other end: forget the one that was learnt first, and is not used."""
        if len(self._remote_candidates) < MOST_REMOTE:
            return True
        used = self.pair.remote_candidate if self.pair is not None else None
        for each in self._remote_candidates:
            if each.type == "prflx" and each is not used:
                self._remote_candidates.remove(each)
                for pair in [pair for pair in self._check_list if pair.remote_candidate is each]:
                    self._check_list.remove(pair)
                    if pair.task is not None:
                        pair.task.cancel()
                return True
        return False

    # -- data

    def datagram_on(self, protocol: StunProtocol, data: bytes, addr: Place) -> None:
        """A datagram came that is no STUN; strangers are heard only where they can spoil no handshake."""
        if any(_place(each) == addr for each in self._remote_candidates):
            self._heard_on = protocol
        elif not self.secured:
            return
        if self._received is not None:
            self._received(data)
        elif len(self._early) < MOST_EARLY:
            self._early.append(data)

    def deliver_to(self, received: Callable[[bytes], None]) -> None:
        """Hand datagrams to `received` from now on, those first that came early."""
        self._received = received
        early, self._early = self._early, []
        for data in early:
            received(data)

    def transmit(self, data: bytes) -> None:
        """Send a datagram over the chosen pair, or lose it."""
        pair = self.pair
        if pair is not None and not self._closing:
            pair.protocol.transport.sendto(data, pair.remote_addr)

    @property
    def handle(self) -> socket.socket | None:
        """The socket of the chosen pair; None where a relay's is used."""
        pair = self.pair
        found: socket.socket | None = pair.protocol.transport.get_extra_info("socket") if pair else None
        return found

    async def free_unused(self) -> None:
        """Close the sockets, and free the relay, that neither end uses (RFC 6940 §6.5.1.10.2)."""
        pair = self.pair
        if pair is None:
            return
        unused = [each for each in self._protocols if each not in (pair.protocol, self._heard_on)]
        self._protocols = [each for each in self._protocols if each not in unused]
        for protocol in unused:
            await protocol.close()

    async def query_consent(self) -> None:
        """Ask for consent every five seconds (RFC 7675), with the retransmissions of a message (RFC 6940 §6.6.3.1)."""
        # The end that controls names its pair each time: where its NAT has a new address for it, the other end follows.
        while self._unanswered < 2:
            if not self._unanswered:
                await asyncio.sleep(INTERVAL * random.uniform(0.8, 1.2))
            pair = self.pair
            if pair is None:
                break
            request = self.build_request(pair, nominate=self.ice_controlling)
            key = (self.remote_password or "").encode()
            try:
                response, _ = await pair.protocol.request(
                    request, pair.remote_addr, integrity_key=key, retransmissions=_RETRANSMISSIONS
                )
            except stun.TransactionError:
                if pair is self.pair:  # else the other end has moved meanwhile
                    self._unanswered += 1
                    self.silent(self._unanswered == 2)
            else:
                self._unanswered = 0
                self.answers(mapped_address(response))
        self._query_consent_task = None


def _candidate(kind: str, host: str, port: int, base: Place | None = None, place: int = 0) -> Candidate:
    base_host = base[0] if base else host
    return Candidate(
        foundation=candidate_foundation(kind, "udp", base_host)[:8],
        component=1,
        transport="udp",
        priority=candidate_priority(1, kind, 65535 - place),
        host=host,
        port=port,
        type=kind,
        related_address=base[0] if base else None,
        related_port=base[1] if base else None,
    )


def _alike(one: str, other: str) -> bool:
    here, there = ip_address(one), ip_address(other)
    return here.version == there.version and (here.is_loopback or not there.is_loopback)


def _same(one: Candidate, other: Candidate) -> bool:
    return (one.host, one.port) == (other.host, other.port)


def _place(candidate: Candidate) -> Place:
    return candidate.host, candidate.port


def _is_relayed(pair: CandidatePair) -> bool:
    return "relay" in (pair.local_candidate.type, pair.remote_candidate.type)


def _text(candidate: Candidate) -> str:
    return f"{candidate.type} {address_text(candidate.host, candidate.port)}"
