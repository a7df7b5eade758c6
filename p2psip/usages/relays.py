"""Finding a TURN server of the overlay, and credentials for it (RFC 6940 §9)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.kinds import TURN_SERVICE
from ..errors import LinkError, RELOADError
from ..hostport import address_text
from ..ids import NodeId, ResourceId
from ..interfaces import FetchedValue, IOverlay, Relay
from ..wire.errors import DecodeError
from ..wire.header import NodeDestination, ResourceDestination
from ..wire.methods import IPv4AddrPort, IPv6AddrPort, PingReq
from ..wire.storage import DataValue, FindAns, FindReq
from ..wire.turn import TurnCredentials, TurnServer
from .turn_server import unfit

ROUNDS: Final = 2
PROBES: Final = 4
"""Peers that are asked in one round, each by a random Resource-ID."""
ANSWER_SECONDS: Final = 0.8
SEARCH_SECONDS: Final = 3.0
REMEMBERED: Final = 15.0
"""Seconds for which nothing is looked for after nothing was found."""
MARGIN: Final = 60.0
"""Seconds that a relay is good for at least when it is handed out."""
LONGEST: Final = 86400
"""Seconds for which credentials are used at most, whatever their giver says."""
AVOIDED: Final = 300.0
MOST_AVOIDED: Final = 64
EXPECTED = (RELOADError, LinkError, CancelledError, DeferredTimeout)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Offer:
    """A TURN server, and the peer that answers for it."""

    node_id: NodeId
    host: str
    port: int


class Relays:
    """Knows one TURN server of the overlay, or searches for one; the search is shared by all who ask meanwhile."""

    log = Logger()

    def __init__(self, overlay: IOverlay) -> None:
        self._overlay = overlay
        self._relay: Relay | None = None
        self._not_before = 0.0
        self._deadline = 0.0
        self._avoided: OrderedDict[tuple[str, int], float] = OrderedDict()
        """TURN servers that did not do, and until when they are left out."""
        self._waiting: list[Deferred[Relay | None]] = []
        self._search: Deferred[Relay | None] | None = None

    @property
    def known(self) -> Relay | None:
        """The TURN server to use, if one is known."""
        relay = self._relay
        fresh = relay is not None and relay.expires >= self._overlay.clock.seconds() + MARGIN
        return relay if fresh else None

    def relay(self) -> Deferred[Relay | None]:
        """See `IRelays`."""
        configuration, now = self._overlay.configuration, self._overlay.clock.seconds()
        served = TURN_SERVICE in configuration.kinds and configuration.turn_density
        if self.known is not None or not served or now < self._not_before:
            return succeed(self.known)
        waiting: Deferred[Relay | None] = Deferred(self._waiting_no_more)
        self._waiting.append(waiting)
        if self._search is None:
            self._deadline = now + SEARCH_SECONDS
            self._search = Deferred.fromCoroutine(self._find())
            self._search.addErrback(self._failed).addCallback(self._found)
        return waiting

    def relay_failed(self, relay: Relay) -> None:
        """See `IRelays`."""
        place = relay.address, relay.port
        self._avoided[place] = self._overlay.clock.seconds() + AVOIDED
        self._avoided.move_to_end(place)
        while len(self._avoided) > MOST_AVOIDED:
            self._avoided.popitem(last=False)
        if self._relay is not None and place == (self._relay.address, self._relay.port):
            self._relay = None

    def look_again(self) -> None:
        """Forget that nothing was found."""
        self._not_before = 0.0

    def stop(self) -> None:
        """End a search that is under way."""
        self._deadline = 0.0
        if self._search is not None:
            self._search.cancel()

    # -- One search --------------------------------------------------------------------------------------------

    def _waiting_no_more(self, waiting: Deferred[Relay | None]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(*EXPECTED):
            self.log.failure("the search for a TURN server", failure)

    def _found(self, relay: Relay | None) -> None:
        self._search = None
        if relay is None:
            self._not_before = self._overlay.clock.seconds() + REMEMBERED
        else:
            self._relay = relay
            self.log.info("TURN server found: {where}", where=address_text(relay.address, relay.port))
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(relay)

    async def _find(self) -> Relay | None:
        asked = {self._overlay.node_id}
        spare: list[_Offer] = []
        for _ in range(ROUNDS):
            nearest = await self._answered(self._nearest() for _ in range(PROBES))
            places = dict.fromkeys(resource for resource in nearest if resource.strip(b"\0"))
            fetched = await self._answered(map(self._offers, places))
            offers = [offer for found in fetched for offer in found if self._will_do(offer)]
            self._overlay.random.shuffle(offers)
            # One that did not do is for want of another: a lost packet may have been all.
            spare += filter(self._is_avoided, offers)
            for offer in offers:
                if offer.node_id not in asked and offer not in spare:
                    asked.add(offer.node_id)
                    for relay in await self._answered(map(self._credentials, [offer])):
                        return relay
        for offer in dict.fromkeys(spare):
            for relay in await self._answered(map(self._credentials, [offer])):
                return relay
        return None

    async def _answered(self, asked: Iterable[Deferred[T]]) -> list[T]:
        """What comes of `asked` in time, without what fails; nothing is asked any more when the search has to end."""
        clock = self._overlay.clock
        left = min(ANSWER_SECONDS, self._deadline - clock.seconds())
        if left <= 0:
            raise DeferredTimeout
        outcomes: list[Any] = await DeferredList([one.addTimeout(left, clock) for one in asked], consumeErrors=True)
        for answered, failure in outcomes:
            if not answered:
                self._failed(failure)
        return [answer for answered, answer in outcomes if answered]

    def _nearest(self) -> Deferred[ResourceId]:
        """The first place clockwise of a random Resource-ID that the peer there knows of (RFC 6940 §7.4.4)."""
        return Deferred.fromCoroutine(self._find_nearest(self._overlay.resource_id(self._overlay.random.randbytes(16))))

    async def _find_nearest(self, resource: ResourceId) -> ResourceId:
        find = FindReq(resource=resource, kinds=(TURN_SERVICE,))
        answer = await self._overlay.request([ResourceDestination(resource_id=resource)], find)
        results = answer.body.results if isinstance(answer.body, FindAns) else ()
        nearest = (found.closest for found in results if found.kind == TURN_SERVICE)
        return next((closest for closest in nearest if len(closest) == len(resource)), ResourceId(b""))

    def _offers(self, resource: ResourceId) -> Deferred[Sequence[_Offer]]:
        return self._overlay.fetch_at(resource, TURN_SERVICE).addCallback(self._read)

    def _read(self, values: Sequence[FetchedValue]) -> Sequence[_Offer]:
        offers = []
        for fetched in values:
            value = fetched.data.value
            try:
                server = TurnServer.decode(value.value if isinstance(value, DataValue) else b"")
            except DecodeError:
                self._overlay.count("undecodable TurnServer")
                continue
            address = server.server_address
            if isinstance(address, (IPv4AddrPort, IPv6AddrPort)):
                offers.append(_Offer(fetched.signer.node_id, address.host, address.port))
        return offers

    def _will_do(self, offer: _Offer) -> bool:
        # Whoever registers such an address would have us send to others in our own network.
        if not offer.port or unfit(offer.host, self._overlay.configuration):
            self._overlay.count("TURN server at an address that is not public")
            return False
        return True

    def _is_avoided(self, offer: _Offer) -> bool:
        return self._avoided.get((offer.host, offer.port), 0.0) > self._overlay.clock.seconds()

    def _credentials(self, offer: _Offer) -> Deferred[Relay]:
        return Deferred.fromCoroutine(self._ask(offer))

    async def _ask(self, offer: _Offer) -> Relay:
        """What it takes to use the server of `offer`; raises LinkError where its peer does not give that."""
        to = [NodeDestination(node_id=offer.node_id)]
        answer = await self._overlay.request(to, PingReq(), extensions=(TurnCredentials(),))
        for given in answer.extensions:
            if isinstance(given, TurnCredentials) and given.lifetime > MARGIN:
                expires = self._overlay.clock.seconds() + min(given.lifetime, LONGEST)
                username, password = (text.decode("ascii", "replace") for text in (given.username, given.password))
                return Relay(offer.host, offer.port, username, password, expires)
        self._overlay.count("TURN peer without credentials")
        raise LinkError("no credentials were given")
