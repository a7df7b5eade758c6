"""The SIP usage: registrations of our phones in the overlay, and the way to everybody's (RFC 7904)."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..config.kinds import CERTIFICATE_BY_USER, REGISTERED, SIP_REGISTRATION, Kind
from ..errors import LinkError, RELOADError
from ..ids import NodeId
from ..interfaces import (
    IApplicationConnection,
    IOverlay,
    ISigner,
    IUsage,
    IUsageFactory,
)
from ..sip.edge import SIPEdge
from ..sip.errors import NotRegistered, SIPFailure, Unavailable, UnknownUser
from ..sip.interfaces import Contact, IRegistrationStore, NodeRoute, Resolution
from ..sip.nodes import INodes
from ..sip.query import aor_uri
from ..sip.registrar import Registrar
from ..sip.server import SIPServer
from ..sip.transport import SIPConnection
from ..wire.codes import ApplicationId
from .bindings import Bindings
from .forwards import Forwards
from .registrations import Located, NotServed, Registrations

REMEMBERED: Final = 10.0
"""Seconds for which a resolution is used again, if its contacts live that long."""
REMEMBERED_ROUTES: Final = 2.0
"""Seconds for which the nodes of an AOR are known without a new look: a call and its retries are one look."""
LAST_RESORT: Final = 600.0
"""Seconds for which they are good enough where a new look takes more than `LOOK_AT_MOST`, or fails."""
LOOK_AT_MOST: Final = 1.0
MOST_REMEMBERED: Final = 10_000
EXPECTED = (RELOADError, LinkError, SIPFailure, DeferredTimeout)
"""What another node can cause while it is asked."""


@implementer(IUsage, IRegistrationStore, INodes)
class SIPUsage:
    """SIP's part of one node.

    Without `serve` it only locates.  `serve` joins it with the SIP server of this node; call it before the
    node starts.
    """

    log = Logger()

    def __init__(self, overlay: IOverlay) -> None:
        self._overlay = overlay
        self._signer: Callable[[str], ISigner | None] = lambda user: None
        self._exists: Callable[[str], bool] = lambda user: False
        self.registrations = Registrations(overlay, lambda user: self._signer(user))
        self._bindings: Bindings | None = None
        self._forwards: Forwards | None = None
        self._remembered_routes: OrderedDict[str, tuple[float, Sequence[NodeRoute]]] = OrderedDict()
        self._remembered: OrderedDict[str, tuple[float, Resolution]] = OrderedDict()

    def serve(
        self,
        signer: Callable[[str], ISigner | None],
        exists: Callable[[str], bool],
        edge: SIPEdge,
        registrar: Registrar,
        server: SIPServer,
        database: sqlite3.Connection,
    ) -> None:
        """Serve the phones of a registrar at this node.

        :param signer: who signs for a user (the part before the @); None for one unknown to this registrar.
        :param exists: whether this node happens to know that a user exists.
        :param database: keeps what users want of their calls; the caller's to close.
        """
        self._signer = signer
        self._exists = exists
        self._bindings = Bindings(self._overlay, edge, registrar, server)
        self._forwards = Forwards(self._overlay, self.registrations, database)

    # -- IUsage --------------------------------------------------------------------------------------------

    def start(self) -> Deferred[None]:
        """The node has joined, perhaps anew: each phone's next refresh is stored again."""
        self.registrations.forget()
        if self._forwards is not None:
            self._forwards.start()
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """End.  Registrations stay until their lifetime ends: phones know this node, and it may come back."""
        if self._forwards is not None:
            self._forwards.stop()
        if self._bindings is not None:
            self._bindings.close()
        return succeed(None)

    def application_connected(self, connection: IApplicationConnection) -> None:
        """Another node wants to speak SIP with this one."""
        if self._bindings is None:
            connection.close()
        else:
            self._bindings.accept(connection)

    # -- IRegistrationStore ----------------------------------------------------------------------------------

    def register(self, aor: str, expires: int, prefs: str = "") -> Deferred[None]:
        """See `IRegistrationStore`."""
        return Deferred.fromCoroutine(self._stored(self.registrations.register(aor, expires, prefs)))

    def unregister(self, aor: str) -> Deferred[None]:
        """See `IRegistrationStore`; a forwarding stays."""
        if self.forwarded(aor):
            return succeed(None)
        return Deferred.fromCoroutine(self._stored(self.registrations.unregister(aor)))

    async def _stored(self, storing: Awaitable[None]) -> None:
        try:
            await storing
        except NotServed:
            raise Unavailable("No Credentials") from None
        except (RELOADError, LinkError) as error:
            self._overlay.count(f"registration not stored: {type(error).__name__}")
            raise Unavailable("Overlay Unavailable", retry_after=10) from error

    def forwarded(self, aor: str) -> bool:
        """See `IRegistrationStore`."""
        return aor in self.registrations.forwards

    def resolve(self, aor: str) -> Deferred[Resolution]:
        """See `IRegistrationStore`."""
        now = self._overlay.clock.seconds()
        remembered = self._remembered.get(aor)
        if remembered is not None and remembered[0] > now:
            return succeed(remembered[1])
        return Deferred.fromCoroutine(self._resolve(aor))

    def routes(self, aor: str) -> Deferred[Sequence[NodeRoute]]:
        """See `IRegistrationStore`."""
        return Deferred.fromCoroutine(self._routes(aor))

    async def _routes(self, aor: str) -> Sequence[NodeRoute]:
        now = self._overlay.clock.seconds()
        since, routes = self._remembered_routes.get(aor, (0.0, ()))
        if routes and now < since + REMEMBERED_ROUTES:
            return routes
        looking = Deferred.fromCoroutine(self._look_for_routes(aor))
        if not routes or now >= since + LAST_RESORT:
            return await looking
        # Where the responsible peer has died just now, the search takes until that is noticed.
        return await self._at_once(looking, routes)

    async def _look_for_routes(self, aor: str) -> Sequence[NodeRoute]:
        try:
            located = await self.registrations.locate(aor)
        except (RELOADError, LinkError) as error:
            raise Unavailable("Overlay Unavailable", retry_after=5) from error
        self._remembered_routes.pop(aor, None)
        if not located.routes:
            raise await self._absence(aor, located)
        self._remembered_routes[aor] = self._overlay.clock.seconds(), located.routes
        while len(self._remembered_routes) > MOST_REMEMBERED:
            self._remembered_routes.popitem(last=False)
        return located.routes

    def _at_once(
        self, looking: Deferred[Sequence[NodeRoute]], known: Sequence[NodeRoute]
    ) -> Deferred[Sequence[NodeRoute]]:
        """What `looking` finds, or what is `known` where it takes too long or the overlay fails."""
        first: Deferred[Sequence[NodeRoute]] = Deferred()
        late = self._overlay.clock.callLater(LOOK_AT_MOST, first.callback, known)

        def looked(outcome: Sequence[NodeRoute] | Failure) -> None:
            if not first.called:
                late.cancel()
                first.callback(known if isinstance(outcome, Failure) and outcome.check(Unavailable) else outcome)

        looking.addBoth(looked)
        return first

    async def _resolve(self, aor: str) -> Resolution:
        routes = await self._routes(aor)
        others = [route for route in routes if route.node_id and route.node_id != self._overlay.node_id]
        contacts = [contact for found in await self._ask_all(others) for contact in found]
        for route in routes:
            if not route.node_id:
                contacts.append(Contact(aor_uri(route.aor), None, int(REMEMBERED)))
            elif route.node_id == self._overlay.node_id and route.aor != aor and self._bindings is not None:
                contacts += self._bindings.registrar.query(route.aor, self._overlay.clock.seconds())
        if not contacts:
            raise NotRegistered()
        resolution = Resolution(tuple(contacts))
        self._remember(aor, resolution)
        return resolution

    async def _ask_all(self, routes: Sequence[NodeRoute]) -> list[Sequence[Contact]]:
        """The contacts at each node; one that does not answer has none."""
        asked = [self.contacts_at(NodeId(route.node_id), route.aor) for route in routes]
        outcomes = await DeferredList([a.addErrback(self._unanswered) for a in asked])
        return [contacts for success, contacts in outcomes if success and contacts]

    def _unanswered(self, failure: Failure) -> Sequence[Contact]:
        failure.trap(*EXPECTED)
        self._overlay.count("binding query unanswered")
        return ()

    async def _absence(self, aor: str, located: Located) -> SIPFailure:
        """482 for calls forwarded in a circle, 480 where something shows that the user exists, else 404."""
        if located.looped:
            return SIPFailure(482)
        if located.known or self._exists(aor.rpartition("@")[0]):
            return NotRegistered()
        try:
            if await self._overlay.fetch(aor.encode(), CERTIFICATE_BY_USER):
                return NotRegistered()
        except (RELOADError, LinkError):
            self._overlay.count("certificate not fetched")
        return UnknownUser()

    # -- INodes ----------------------------------------------------------------------------------------------

    def flow_to(self, node_id: bytes) -> Deferred[SIPConnection]:
        """See `INodes`; fails with RELOADError or LinkError."""
        if self._bindings is None:
            return fail(LinkError("this node runs no SIP server"))
        return self._bindings.flows.to(NodeId(node_id))

    def established(self, node_id: bytes) -> SIPConnection | None:
        """See `INodes`."""
        return None if self._bindings is None else self._bindings.flows.established(NodeId(node_id))

    def unanswered(self, node_id: bytes, seconds: float) -> None:
        """See `INodes`."""
        if self._bindings is not None:
            self._bindings.flows.unanswered(NodeId(node_id), seconds)

    def _remember(self, aor: str, resolution: Resolution) -> None:
        shortest = min(contact.expires for contact in resolution.contacts)
        until = self._overlay.clock.seconds() + min(REMEMBERED, shortest)
        self._remembered.pop(aor, None)
        self._remembered[aor] = until, resolution
        while len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)

    # -- for the operator ------------------------------------------------------------------------------------

    def locate(self, aor: str) -> Deferred[Located]:
        """Where `aor` is registered, by the overlay alone.  Fails with RELOADError or LinkError."""
        return Deferred.fromCoroutine(self.registrations.locate(aor))

    @property
    def forwards(self) -> Mapping[str, str]:
        """Where the calls of AORs go that are forwarded here."""
        return self.registrations.forwards

    def forward(self, aor: str, target: str | None) -> Deferred[None]:
        """Let the calls of `aor` go to another AOR, or (None) to its phones again.

        Fails with NotServed, TooMany, RELOADError or LinkError.
        """
        return Deferred.fromCoroutine(self._forward(aor, target))

    async def _forward(self, aor: str, target: str | None) -> None:
        self._remembered_routes.pop(aor, None)
        self._remembered.pop(aor, None)
        if self._forwards is None or self._bindings is None:
            raise NotServed(aor)
        if target is not None:
            await self._forwards.set(aor, target)
        elif aor in self.forwards:
            expires, prefs = self._bindings.registrar.lasting(aor, self._overlay.clock.seconds())
            await self._forwards.end(aor, expires, prefs)

    def contacts_at(self, node_id: NodeId, aor: str) -> Deferred[Sequence[Contact]]:
        """The contacts of `aor` at another registrar; none where this node runs no SIP server.

        Fails as `Bindings.ask`.
        """
        if self._bindings is None:
            return succeed(())
        return self._bindings.ask(node_id, aor)


@implementer(IUsageFactory)
class SIPUsageFactory:
    """Builds the SIP usage; the object that ``p2psip.plugins`` names."""

    name = "sip"
    kinds: Sequence[Kind] = (REGISTERED[SIP_REGISTRATION],)
    applications: Sequence[int] = (ApplicationId.SIP, ApplicationId.SIPS)

    def build(self, overlay: IOverlay) -> SIPUsage:
        """The SIP usage of one node."""
        return SIPUsage(overlay)
