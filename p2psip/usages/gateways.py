"""Gateways to the telephone network: kept registered in the overlay, and found there (docs/decisions/0027).

The overlay knows them by a Kind of this implementation's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from ..config.kinds import GATEWAY, GATEWAYS, Kind, gateway_user_name
from ..errors import LinkError, RELOADError
from ..ids import NodeId
from ..interfaces import (
    FetchedValue,
    IApplicationConnection,
    IOverlay,
    ISigner,
    IUsage,
    IUsageFactory,
    Stored,
)
from ..wire.errors import DecodeError
from ..wire.gateways import Gateway
from ..wire.storage import DataValue, DictionaryEntry

LIFETIME: Final = 600
"""Seconds for which a registration lives unless it is renewed."""
RENEWAL: Final = 240.0
LOOK: Final = 30.0
"""Seconds before what failed is tried again."""
PATIENCE: Final = 3.0
"""Seconds that the overlay has for an answer: a caller waits, or the node is about to leave."""
FRESH: Final = 30.0
"""Seconds for which gateways that were found are used without another look."""
STALE: Final = 600.0
"""Seconds for which they are used where the overlay does not answer."""
NO_KIND: Final = (
    "the overlay does not have the Kind of gateways: `p2psip authority publish` brings it, on the node that holds the "
    "authority"
)
EXPECTED = (RELOADError, LinkError, CancelledError, DeferredTimeout)

_PREFIX = re.compile(rb"\+[0-9]{0,15}\Z|[0-9]{2,15}\Z").match


@dataclass(frozen=True, slots=True)
class GatewayNode:
    """A node that takes numbers with some prefixes out of the overlay."""

    node_id: NodeId
    priority: int
    prefixes: tuple[str, ...]


class GatewayRegistration:
    """Keeps a gateway registered, as soon as the overlay has the Kind and this node a certificate for it."""

    log = Logger()

    def __init__(
        self, overlay: IOverlay, prefixes: Sequence[str], priority: int, signer: Callable[[], Deferred[ISigner]]
    ) -> None:
        self._overlay = overlay
        self._value = Gateway(priority=priority, prefixes=tuple(prefix.encode("ascii") for prefix in prefixes))
        self._signer = signer
        self._signed_by: ISigner | None = None
        """Whose registration there is in the overlay; None where there is none."""
        self.why_not = "the node has not joined"
        """Why it is not registered; empty where it is, or is about to be."""
        self._said = False
        self._running = False
        self._next: IDelayedCall | None = None
        self._registering: Deferred[None] | None = None

    @property
    def registered(self) -> bool:
        """Whether it is registered, as far as is known."""
        return self._signed_by is not None

    def start(self) -> None:
        """Register in the background, anew where the node has joined anew."""
        self._running = True
        self.why_not = ""
        self._register()

    def stop(self) -> Deferred[None]:
        """Withdraw; never fails."""
        self._running = False
        if self._next is not None and self._next.active():
            self._next.cancel()
        if self._registering is not None:
            self._registering.cancel()
        signer, self._signed_by = self._signed_by, None
        if signer is None:
            return succeed(None)
        # RFC 6940 §7.4.1.3: a removal must outlive what it removes.
        withdrawn = self._store(DataValue(exists=False, value=b""), signer).addTimeout(PATIENCE, self._overlay.clock)
        return withdrawn.addCallbacks(lambda _: None, self._not_withdrawn)

    def _not_withdrawn(self, failure: Failure) -> None:
        if not failure.check(*EXPECTED):
            self.log.failure("the gateway's registration", failure)

    def _register(self) -> None:
        if self._registering is not None:
            return
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._registering = Deferred.fromCoroutine(self._once())
        self._registering.addErrback(self._withdrawing).addCallback(self._wait)

    async def _once(self) -> None:
        try:
            why_not = await self._registered_now()
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  (no certificate, nobody who stores: it is told, and tried again)
            why_not = f"not stored: {error or type(error).__name__}"
        if why_not and why_not != self.why_not:
            self.log.warn("this gateway is not registered: {why}", why=why_not)
        elif not why_not and not self._said:
            self.log.info("this gateway is registered")
        self._said, self.why_not = not why_not, why_not

    async def _registered_now(self) -> str:
        """Store; answers why that cannot be."""
        if GATEWAY not in self._overlay.configuration.kinds:
            return NO_KIND
        signer = await self._signer()
        await self._store(DataValue(value=self._value.encode()), signer)
        self._signed_by = signer
        return ""

    def _store(self, value: DataValue, signer: ISigner) -> Deferred[Stored]:
        entry = DictionaryEntry(key=self._overlay.node_id, value=value)
        name = gateway_user_name(self._overlay.configuration.instance_name).encode()
        return self._overlay.store(name, GATEWAY, [entry], LIFETIME, signer=signer)

    def _withdrawing(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("the gateway's registration", failure)

    def _wait(self, _: None) -> None:
        self._registering = None
        if self._running:
            delay = (LOOK if self.why_not else RENEWAL) * self._overlay.random.uniform(0.75, 1.25)
            self._next = self._overlay.clock.callLater(delay, self._register)


@implementer(IUsage)
class GatewayUsage:
    """Finds gateways for its node; with `serve`, before the node starts, the node is one as well."""

    log = Logger()

    def __init__(self, overlay: IOverlay) -> None:
        self._overlay = overlay
        self._registration: GatewayRegistration | None = None
        self._found: Sequence[GatewayNode] = ()
        self._found_at = float("-inf")
        self._waiting: list[Deferred[Sequence[GatewayNode]]] = []
        self._said = False

    def serve(
        self, prefixes: Sequence[str], priority: int, signer: Callable[[], Deferred[ISigner]]
    ) -> GatewayRegistration:
        """Be a gateway for numbers with these prefixes, ``+49`` or an emergency number.

        :param signer: whose certificate has the name `gateway_user_name` and this node's Node-ID; whatever it fails
            with is logged, and it is asked again.
        """
        self._registration = GatewayRegistration(self._overlay, prefixes, priority, signer)
        return self._registration

    # -- IUsage --------------------------------------------------------------------------------------------

    def start(self) -> Deferred[None]:
        """Register, if this node is a gateway; done in the background."""
        if self._registration is not None:
            self._registration.start()
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Withdraw."""
        return succeed(None) if self._registration is None else self._registration.stop()

    def application_connected(self, connection: IApplicationConnection) -> None:
        """No application is served."""
        connection.close()

    # -- the search --------------------------------------------------------------------------------------------

    def find(self) -> Deferred[Sequence[GatewayNode]]:
        """Every gateway of the overlay, this node included; none where the overlay does not have the Kind.

        Fails with RELOADError, LinkError or a timeout where the overlay does not answer, and has not lately.
        """
        if self._overlay.clock.seconds() < self._found_at + FRESH:
            return succeed(self._found)
        waiting: Deferred[Sequence[GatewayNode]] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            Deferred.fromCoroutine(self._search()).addBoth(self._answer)
        return waiting

    async def _search(self) -> Sequence[GatewayNode]:
        configuration = self._overlay.configuration
        if GATEWAY not in configuration.kinds:
            if not self._said:
                self._said = True
                self.log.info("no gateways are looked for: {why}", why=NO_KIND)
            return ()
        fetching = self._overlay.fetch(gateway_user_name(configuration.instance_name).encode(), GATEWAY)
        fetched = await fetching.addTimeout(PATIENCE, self._overlay.clock)
        self._found = tuple(node for value in fetched if (node := self._read(value)) is not None)
        self._found_at = self._overlay.clock.seconds()
        return self._found

    def _read(self, fetched: FetchedValue) -> GatewayNode | None:
        entry = fetched.data.value
        try:
            value = Gateway.decode(entry.value.value if isinstance(entry, DictionaryEntry) else b"")
        except DecodeError:
            self._overlay.count("undecodable Gateway")
            return None
        prefixes = tuple(prefix.decode("ascii") for prefix in value.prefixes if _PREFIX(prefix))
        return GatewayNode(fetched.signer.node_id, value.priority, prefixes)

    def _answer(self, result: Sequence[GatewayNode] | Failure) -> None:
        if isinstance(result, Failure):
            self._overlay.count("gateways not found")
            if self._overlay.clock.seconds() < self._found_at + STALE:
                result = self._found
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.errback(result) if isinstance(result, Failure) else one.callback(result)

    # -- for the operator ------------------------------------------------------------------------------------

    def status(self) -> Mapping[str, Any]:
        """For ``status --json``: whether this node is a gateway, and how many it has found lately."""
        registration = self._registration
        return {
            "registered": registration is not None and registration.registered,
            "not_registered": "" if registration is None else registration.why_not,
            "known": len(self._found),
        }


@implementer(IPlugin, IUsageFactory)
class GatewayUsageFactory:
    """Makes the usage of each node."""

    name = "gateways"
    kinds: Sequence[Kind] = (GATEWAYS,)
    applications: Sequence[int] = ()

    def build(self, overlay: IOverlay) -> GatewayUsage:
        """The usage of one node."""
        return GatewayUsage(overlay)
