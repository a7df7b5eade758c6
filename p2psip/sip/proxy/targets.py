"""Where a request goes: the target set (RFC 3261 §16.5, RFC 7904 §5)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Final

from ..domain import Domain
from ..errors import NotRegistered, SIPFailure, UnknownUser
from ..features import takes_sips
from ..grammar import parse_parameters
from ..gruu import GRUU, read_gruu
from ..headers import parse_name_addr
from ..interfaces import INumbers, IRegistrationStore, ProxyTarget
from ..location import Binding
from ..message import Request
from ..query import aor_uri
from ..registrar import Registrar
from ..uri import SIPURI, parse_uri
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
            gruu = read_gruu(uri, len(self._own_node)) if "gr" in uri.parameters else None
            if gruu is not None:
                return self._of_gruu(gruu, uri, origin, now)
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
        here = [] if self._store.forwarded(aor) else self._bindings(aor, secure, now)
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
        for route in routes:
            if not route.node_id:
                here.extend(await self._beyond(route.aor, aor, secure))
            elif route.node_id != self._own_node:
                if not secure or takes_sips(route.prefs):
                    here.append(ProxyTarget(_uri_of(route.aor, secure), node=route.node_id))
            elif route.aor != aor:
                here.extend(self._forwarded_here(route.aor, secure, now))
        if not here:
            raise NotRegistered()
        return in_groups(here[:MOST_TARGETS])

    def _bindings(self, aor: str, secure: bool, now: float, tag: bytes = b"") -> list[ProxyTarget]:
        targets = targets_of(self._registrar.device(aor, tag, now))
        if secure:
            # RFC 5630 s5.3: to other than sips contacts a sips request must not go.
            targets = [target for target in targets if target.uri[:5].lower() == "sips:"]
        return targets

    def _forwarded_here(self, aor: str, secure: bool, now: float) -> list[ProxyTarget]:
        """The phones here of an AOR, or of a GRUU, to which another one's calls are forwarded."""
        uri = parse_uri(_uri_of(aor, False))
        assert isinstance(uri, SIPURI)
        gruu = read_gruu(uri, len(self._own_node))
        return self._bindings(uri.aor(), secure, now, b"" if gruu is None else gruu.tag)

    async def _beyond(self, target: str, forwarded: str, secure: bool) -> list[ProxyTarget]:
        """Where calls go that the user of `forwarded` has sent on to another domain, or to a number: as its own."""
        uri = parse_uri(_uri_of(target, secure))
        if not self._domain.covers(uri):
            return [ProxyTarget(str(uri))]
        number = self._numbers.number_of(uri) if self._numbers is not None else None
        if number is None or self._numbers is None:
            return []
        try:
            first, *others = await self._numbers.gateways(number, forwarded)
        except (SIPFailure, ValueError):
            return []
        return [first._replace(fallback=(*first.fallback, *others))]

    def _of_gruu(self, gruu: GRUU, uri: SIPURI, origin: Origin, now: float) -> list[list[ProxyTarget]]:
        """The one device that a GRUU leads to (RFC 7904 §4.1, §6); nothing is looked up."""
        if gruu.node_id == self._own_node:
            here = self._bindings(self._domain.aor(uri), uri.scheme == "sips", now, gruu.tag)
            if not here:
                raise NotRegistered()
            return [here]
        if origin.node:
            raise NotRegistered()
        return [[ProxyTarget(str(uri), node=gruu.node_id)]]

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


def targets_of(bindings: Iterable[Binding]) -> list[ProxyTarget]:
    """The phones that registered `bindings`, each by the flow that leads to it.

    One that registered over several flows is one target, reached over the newest, else over the others
    (RFC 5626 §5.3).
    """
    devices: dict[str, list[ProxyTarget]] = {}
    for number, binding in enumerate(sorted(bindings, key=lambda binding: binding.expires_at, reverse=True)):
        outbound = "reg-id" in parse_parameters(binding.parameters) and bool(binding.instance)
        device = binding.instance if outbound else str(number)
        devices.setdefault(device, []).append(_target_of(binding, outbound))
    return [first._replace(fallback=(*first.fallback, *others)) for first, *others in devices.values()]


def _target_of(binding: Binding, outbound: bool) -> ProxyTarget:
    source = parse_source(binding.source)
    if source is None:
        return ProxyTarget(binding.uri_text, binding.q)
    reached = where_to_reach(binding.uri_text, source, outbound)
    if reached == source or reached.transport == "UDP":
        return ProxyTarget(binding.uri_text, binding.q, source=source_text(reached))
    # Where it does not take connections, the one that it made may do.
    along = ProxyTarget(binding.uri_text, source=binding.source)
    return ProxyTarget(binding.uri_text, binding.q, source=source_text(reached), fallback=(along,))


def _uri_of(aor: str, secure: bool) -> str:
    uri = aor_uri(aor)
    return f"sips{uri[3:]}" if secure else uri
