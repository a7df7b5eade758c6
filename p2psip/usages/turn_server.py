"""The TURN server beside this node: registered in the overlay, and the credentials for it (RFC 6940 §9).

The secret that node and TURN server share stays here; members of the overlay get what is derived from it
(docs/decisions/0018).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hmac import digest
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.document import Configuration
from ..config.kinds import TURN_SERVICE
from ..errors import LinkError, RELOADError
from ..hostport import address_text
from ..ids import NodeId
from ..interfaces import IOverlay, Request, Stored
from ..storage.policies import multiple_name
from ..wire.methods import IpAddressPort, PingReq
from ..wire.storage import DataValue
from ..wire.turn import TurnCredentials, TurnServer

CREDENTIALS_STEP: Final = 1800.0
"""Seconds between two credentials of one node; each is good for as long again after the next is there."""
LIFETIME: Final = 1800
"""Seconds for which a registration lives unless it is renewed."""
RENEWAL: Final = 900.0
LOOK: Final = 30.0
"""Seconds between two looks whether the node may be registered still, or may be now."""
PATIENCE: Final = 3.0
"""Seconds that withdrawing may take: the node waits for it before it leaves."""
EXPECTED = (RELOADError, LinkError, CancelledError, DeferredTimeout)

_NOT_PUBLIC: Final = [
    (ip_network(network), why)
    for why, networks in (
        ("private (RFC 1918)", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
        ("private (RFC 4193)", ("fc00::/7",)),
        ("shared by a carrier's customers (RFC 6598)", ("100.64.0.0/10",)),
        ("link-local", ("169.254.0.0/16", "fe80::/10")),
        ("not that of a host", ("0.0.0.0/8", "224.0.0.0/3", "::/128", "ff00::/8")),
    )
    for network in networks
]


def unfit(host: str, configuration: Configuration) -> str:
    """Why other nodes cannot reach a TURN server at the IP address `host`; empty where they can (RFC 6940 §9).

    A loopback address will do in an overlay whose bootstrap nodes all have one: it is on one machine.
    """
    address: IPv4Address | IPv6Address = ip_address(host)
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    if address.is_loopback:
        bootstrap = configuration.bootstrap_nodes
        on_one_machine = bootstrap and all(ip_address(other).is_loopback for other, _ in bootstrap)
        return "" if on_one_machine else "its address is a loopback address"
    # Not `is_private`, which is true of the networks for documentation as well.
    return next((f"its address is {why}" for network, why in _NOT_PUBLIC if address in network), "")


def credentials(secret: bytes, node_id: NodeId, now: float) -> TurnCredentials:
    """What `node_id` may use the TURN server with that has `secret`: coturn's ``use-auth-secret``.

    They are the same for half an hour and good for at least as long, up to an hour, so that a node cannot
    have more than two user names at a time, each with the TURN server's quota; and nothing is to be remembered.
    """
    expires = (now // CREDENTIALS_STEP + 2) * CREDENTIALS_STEP
    username = f"{int(expires)}:{node_id.hex()}".encode()
    password = b64encode(digest(secret, username, "sha1"))
    return TurnCredentials(username=username, password=password, lifetime=int(expires - now))


class TurnRegistration:
    """Keeps a TURN server registered while it may be, and gives members of the overlay credentials meanwhile.

    `now` below is the overlay's clock.  Places are the d of RFC 6940 §9, from 1 to turn-density.
    """

    log = Logger()

    def __init__(self, overlay: IOverlay, host: str, port: int, secret: bytes) -> None:
        self._overlay = overlay
        self._host = host
        self.address = address_text(host, port)
        self._server_address = IpAddressPort.of(host, port)
        self._secret = secret
        self._ends: dict[int, float] = {}
        """When the registration at each place ends; 0 where it is not known to be."""
        self._renew_at = 0.0
        self._why_not = "the node has not joined"
        self._running = False
        self._next: IDelayedCall | None = None
        self._adjusting: Deferred[None] | None = None

    # -- Credentials -----------------------------------------------------------------------------------------

    def extend_ping(self, request: Request) -> TurnCredentials | None:
        """The credentials for who has signed a Ping that asks for them; None while there is nothing registered."""
        if not isinstance(request.body, PingReq) or not self.places:
            return None
        return credentials(self._secret, request.signer.node_id, self._overlay.clock.seconds())

    # -- What there is -----------------------------------------------------------------------------------------

    @property
    def places(self) -> int:
        """At how many places the TURN server is registered."""
        now = self._overlay.clock.seconds()
        return sum(ends > now for ends in self._ends.values())

    @property
    def why_not(self) -> str:
        """Why it is registered nowhere; empty where it is, or is about to be."""
        return "" if self.places else self._why_not

    def _obstacle(self) -> str:
        configuration = self._overlay.configuration
        if TURN_SERVICE not in configuration.kinds:
            return "the overlay does not have the Kind TURN-SERVICE"
        if not configuration.turn_density:
            return "the overlay's turn-density is 0"
        if self._overlay.behind_nat:
            return "this node is behind a NAT"
        return unfit(self._host, configuration)

    def _wanted(self) -> range:
        configuration = self._overlay.configuration
        most = configuration.kinds[TURN_SERVICE].max_node_multiple
        return range(1, min(configuration.turn_density, most) + 1)

    # -- Life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Register, in the background, and anew where the node has joined anew."""
        self._running = True
        self._why_not = ""
        self._renew_at = 0.0
        self._look()

    def stop(self) -> Deferred[None]:
        """Withdraw; never fails."""
        self._running = False
        if self._next is not None and self._next.active():
            self._next.cancel()
        if self._adjusting is not None:
            self._adjusting.cancel()
        withdrawn: Deferred[None] = Deferred.fromCoroutine(self._withdraw())
        return withdrawn.addTimeout(PATIENCE, self._overlay.clock).addErrback(self._failed)

    def _look(self) -> None:
        if self._adjusting is not None:
            return
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._adjusting = Deferred.fromCoroutine(self._adjust())
        self._adjusting.addErrback(self._failed).addCallback(self._adjusted)

    def _adjusted(self, _: None) -> None:
        self._adjusting = None
        if self._running:
            delay = LOOK * self._overlay.random.uniform(0.75, 1.25)
            self._next = self._overlay.clock.callLater(delay, self._look)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(*EXPECTED):
            self.log.failure("the TURN server's registration", failure)

    async def _adjust(self) -> None:
        """Bring what is registered to what should be."""
        obstacle = self._obstacle()
        if obstacle:
            self._tell(obstacle)
            await self._withdraw()
        elif self._overlay.clock.seconds() >= self._renew_at or not self._ends.keys() >= set(self._wanted()):
            await self._register()

    def _tell(self, why_not: str) -> None:
        if why_not and why_not != self._why_not:
            self.log.info("TURN server {address} is not registered: {why}", address=self.address, why=why_not)
        self._why_not = why_not

    async def _register(self) -> None:
        before, wanted, now = self.places, self._wanted(), self._overlay.clock.seconds()
        # Set first: the node may join anew meanwhile.
        self._renew_at = now + RENEWAL * self._overlay.random.uniform(0.75, 1.25)
        for d in wanted:
            self._ends.setdefault(d, 0.0)
        outcomes: list[Any] = await DeferredList([self._store(d) for d in wanted], consumeErrors=True)
        if not self._running:
            return
        why_not = ""
        for d, (stored, outcome) in zip(wanted, outcomes, strict=True):
            if stored:
                self._ends[d] = now + LIFETIME
            else:
                self._renew_at = 0.0
                self._failed(outcome)
                why_not = f"not stored: {outcome.getErrorMessage() or outcome.type.__name__}"
        self._tell(why_not)
        if self.places and not before:
            self.log.info("TURN server {address} is registered", address=self.address)

    async def _withdraw(self) -> None:
        places, self._ends = tuple(self._ends), {}
        self._renew_at = 0.0
        # RFC 6940 §7.4.1.3: a removal must outlive what it removes.
        nothing = DataValue(exists=False, value=b"")
        await DeferredList([self._store(d, nothing) for d in places], consumeErrors=True)

    def _store(self, d: int, value: DataValue | None = None) -> Deferred[Stored]:
        if value is None:
            server = TurnServer(iteration=d, server_address=self._server_address)
            value = DataValue(value=server.encode())
        values: Sequence[DataValue] = (value,)
        return self._overlay.store(multiple_name(self._overlay.node_id, d), TURN_SERVICE, values, LIFETIME)
