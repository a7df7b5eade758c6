"""Where a request goes: the target set (RFC 3261 §16.5, RFC 7904 §5)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Final

from ..domain import Domain
from ..errors import NotRegistered, SIPFailure, UnknownUser
from ..grammar import parse_parameters
from ..headers import parse_name_addr
from ..interfaces import INumbers, IRegistrationStore, ProxyTarget
from ..location import Binding
from ..message import Request
from ..query import aor_uri
from ..registrar import Registrar
from ..uri import SIPURI
from .flows import parse_source, source_text, where_to_reach
from .identity import Origin

MOST_TARGETS: Final = 50


class Targets:
    """Finds where requests go.

    :param own_node: this node's Node-ID.
    :param numbers: who knows telephone numbers, if anybody does.
    """

    def __init__(
        self,
        domain: Domain,
        registrar: Registrar,
        store: IRegistrationStore,
        own_node: bytes,
        numbers: INumbers | None = None,
    ) -> None:
        self._domain = domain
        self._registrar = registrar
        self._store = store
        self._own_node = own_node
        self._numbers = numbers

    async def find(self, request: Request, origin: Origin, now: float) -> list[list[ProxyTarget]]:
        """The targets of `request`: those of one group are tried at once, the preferred group first.

        :raises SIPFailure: there are none, and why.
        """
        uri = request.uri
        number = self._number(request, origin)
        if isinstance(uri, SIPURI) and self._domain.covers(uri) and not self._surely_dialled(uri, number):
            try:
                return await self._of_aor(self._domain.aor(uri), uri.scheme == "sips", origin, now)
            except UnknownUser:
                if number is None:
                    raise
        if number is not None:
            return await self._of_number(number, origin, self._caller(request, origin), now)
        if not isinstance(uri, SIPURI):
            raise SIPFailure(416)
        if not origin.user or origin.node:
            # Only our own phones are served: this is no open relay.
            raise SIPFailure(403, "Relaying Denied")
        return [[ProxyTarget(request.uri_text)]]

    async def _of_aor(self, aor: str, secure: bool, origin: Origin, now: float) -> list[list[ProxyTarget]]:
        here = self._bindings(aor, now, secure)
        if origin.node:
            # What another node passed on goes no further than to phones here: so there are no loops of nodes.
            if not here:
                raise NotRegistered()
            return in_groups(here)
        try:
            routes = await self._store.routes(aor)
        except SIPFailure:
            if not here:
                raise
            return in_groups(here)
        scheme = "sips" if secure else "sip"
        for route in routes:
            if route.node_id != self._own_node:
                here.append(ProxyTarget(_uri_of(route.aor, scheme), node=route.node_id))
            elif route.aor != aor:
                here.extend(self._bindings(route.aor, now, secure))
        if not here:
            raise NotRegistered()
        return in_groups(here[:MOST_TARGETS])

    def _bindings(self, aor: str, now: float, secure: bool) -> list[ProxyTarget]:
        targets = [target_of(binding) for binding in self._registrar.bindings(aor, now)]
        if secure:
            # RFC 5630 s5.3: to other than sips contacts a sips request must not go.
            targets = [target for target in targets if target.uri[:5].lower() == "sips:"]
        return targets

    def _surely_dialled(self, uri: SIPURI, number: str | None) -> bool:
        """Whether `uri` cannot be a user's: no name begins with +, and nobody is to take the calls for help."""
        if number is None or self._numbers is None:
            return False
        return (uri.user or "").startswith("+") or self._numbers.is_emergency(number)

    def _number(self, request: Request, origin: Origin) -> str | None:
        if self._numbers is None:
            return None
        return self._numbers.called(request) if origin.trunk else self._numbers.number_of(request.uri)

    def _caller(self, request: Request, origin: Origin) -> str:
        """The AOR of the user who calls, as it has proved itself here or at the node that says so; else empty."""
        if origin.user:
            return f"{origin.user}@{self._domain.name}"
        asserted = request.get("P-Asserted-Identity") if origin.trusted else None
        uri = parse_name_addr(asserted).uri if asserted else None
        return self._domain.aor(uri) if isinstance(uri, SIPURI) and uri.user and self._domain.covers(uri) else ""

    async def _of_number(
        self, number: str, origin: Origin, caller: str, now: float
    ) -> list[list[ProxyTarget]]:
        assert self._numbers is not None
        if not self._numbers.is_emergency(number):
            aor = await self._numbers.user_of(number)
            if aor is not None:
                return await self._of_aor(aor, False, origin, now)
        elif not origin.node and not origin.trunk:
            origin = origin._replace(emergency=True)
        if not origin.may_call_outside:
            raise SIPFailure(403 if not origin.trunk else 404)
        ways = await self._numbers.gateways(number, caller)
        if origin.node:
            ways = [way for way in ways if way.node is None]
        if not ways:
            raise SIPFailure(404, "No Gateway For This Number")
        first, *others = ways
        return [[first._replace(fallback=(*first.fallback, *others))]]


def in_groups(targets: Iterable[ProxyTarget]) -> list[list[ProxyTarget]]:
    """`targets` by their q, the highest first; without one it is 1 (RFC 3261 §16.6)."""
    ordered = sorted(targets, key=_preference)
    return [list(group) for _, group in groupby(ordered, key=_preference)]


def _preference(target: ProxyTarget) -> float:
    return -1.0 if target.q is None else -target.q


def target_of(binding: Binding) -> ProxyTarget:
    """The phone that registered `binding`, by the flow that leads to it."""
    source = parse_source(binding.source)
    if source is None:
        return ProxyTarget(binding.uri_text, binding.q)
    reached = where_to_reach(binding.uri_text, source, "reg-id" in parse_parameters(binding.parameters))
    if reached == source or reached.transport == "UDP":
        return ProxyTarget(binding.uri_text, binding.q, source=source_text(reached))
    # Where it does not take connections, the one that it made may do.
    along = ProxyTarget(binding.uri_text, source=binding.source)
    return ProxyTarget(binding.uri_text, binding.q, source=source_text(reached), fallback=(along,))


def _uri_of(aor: str, scheme: str) -> str:
    uri = aor_uri(aor)
    return uri if scheme == "sip" else f"sips{uri[3:]}"


