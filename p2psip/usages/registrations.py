"""SIP-REGISTRATION: what this node stores for the users it serves, and finds of others (RFC 7904 §3, §4)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from twisted.internet.defer import Deferred

from ..config.domains import admits
from ..config.kinds import SIP_REGISTRATION
from ..errors import Forbidden
from ..ids import NodeId
from ..interfaces import IOverlay, ISigner
from ..sip.errors import SIPParseError
from ..sip.gruu import read_gruu
from ..sip.interfaces import NodeRoute
from ..sip.uri import SIPURI, parse_uri
from ..wire.errors import DecodeError
from ..wire.header import NodeDestination
from ..wire.sip import RouteRegistration, SipRegistration, UriRegistration
from ..wire.storage import DataValue, DictionaryEntry

MOST_AORS: Final = 100_000
MOST_FORWARDS: Final = 8
"""AORs that one search follows, its own included: loops and fork bombs end here (RFC 7904 §8.2.1)."""
MOST_NODES: Final = 32
"""Nodes that one search answers."""
TOMBSTONE: Final = 7200
"""Seconds that a removal is kept at least, for want of knowing how long the value would have lived."""


class NotServed(Exception):
    """This node has no credentials of the user, and so cannot store a registration."""


@dataclass(frozen=True, slots=True)
class Located:
    """Where an AOR is registered."""

    routes: Sequence[NodeRoute]
    """Each node at the end of a destination list, with each AOR that leads there; and other domains' AORs."""
    known: bool
    """Whether there was any registration, also one that leads nowhere."""
    looped: bool = False
    """Whether it is forwarded in a circle."""

    @property
    def nodes(self) -> Sequence[NodeId]:
        """The nodes, each once."""
        return tuple(dict.fromkeys(NodeId(route.node_id) for route in self.routes if route.node_id))


class Registrations:
    """The registrations of this node's users in the overlay, and the search for everybody's.

    :param signer: who signs for a user (the part before the @); None when this node has no credentials of it.
    """

    def __init__(self, overlay: IOverlay, signer: Callable[[str], ISigner | None]) -> None:
        self._overlay = overlay
        self._signer = signer
        self._until: OrderedDict[str, float] = OrderedDict()
        """When the registration of ours of each AOR ends in the overlay, seconds since the epoch."""
        self._stored: dict[str, bytes] = {}
        """What it says."""
        self.forwards: dict[str, str] = {}
        """Where calls for AORs go in place of this node: another AOR, or a URI of another domain."""
        self._under_way: dict[str, list[Deferred[None]]] = {}

    def __len__(self) -> int:
        """How many registrations of this node's users are stored, as far as it knows."""
        return len(self._until)

    def forget(self) -> None:
        """Take nothing for stored any more: the node joined anew, so each next refresh stores again."""
        self._until.clear()
        self._stored.clear()

    # -- storing -----------------------------------------------------------------------------------------

    async def register(self, aor: str, expires: int, prefs: str = "") -> None:
        """See that a registration of `aor` at this node outlives the next `expires` seconds.

        Nothing is stored when what stands will live that long; else it is stored for twice that time, but not
        beyond the user's certificate.

        :param prefs: the contact preferences of the user's phones here (RFC 7904 §3.2).
        :raises NotServed: this node has no credentials of the user.
        :raises p2psip.errors.RELOADError: the responsible peer refused, or none answered.
        """
        async with self._turn(aor):
            clock = self._overlay.clock
            value = self._value(aor, prefs)
            if self._until.get(aor, 0.0) >= clock.seconds() + expires and self._stored.get(aor) == value:
                return
            signer = self._signer_of(aor)
            lifetime = max(1, min(2 * expires, int(signer.identity.not_after - clock.seconds())))
            await self._store(aor, DataValue(exists=True, value=value), lifetime, signer)
            self._stored[aor] = value
            self._until[aor] = clock.seconds() + lifetime
            self._until.move_to_end(aor)
            while len(self._until) > MOST_AORS:
                self._stored.pop(self._until.popitem(last=False)[0], None)

    def _value(self, aor: str, prefs: str) -> bytes:
        """The registration of `aor`: the way to this node, or another AOR to which its calls are forwarded."""
        target = self.forwards.get(aor)
        if target is not None:
            return UriRegistration(uri=target.encode()).encode()
        here = NodeDestination(node_id=self._overlay.node_id)
        return RouteRegistration(contact_prefs=prefs.encode(), destination_list=(here,)).encode()

    async def unregister(self, aor: str) -> None:
        """Remove the registration of `aor` at this node; raises as `register`."""
        async with self._turn(aor):
            remaining = int(self._until.get(aor, 0.0) - self._overlay.clock.seconds()) + 1
            # RFC 6940 s7.4.1.3: a removal must outlive what it removes, or a copy could bring it back.
            lifetime = max(TOMBSTONE, remaining)
            await self._store(aor, DataValue(exists=False, value=b""), lifetime, self._signer_of(aor))
            self._until.pop(aor, None)
            self._stored.pop(aor, None)

    def _signer_of(self, aor: str) -> ISigner:
        signer = self._signer(aor.rpartition("@")[0])
        if signer is None:
            raise NotServed(aor)
        return signer

    async def _store(self, aor: str, value: DataValue, lifetime: int, signer: ISigner) -> None:
        kind = self._overlay.configuration.kinds.get(SIP_REGISTRATION)
        if kind is not None and not admits(kind.domains, aor):
            # RFC 7904 s3.3: "Before issuing a Store request to the overlay, any Peer SHOULD verify".
            raise Forbidden("this overlay takes no registrations of that domain")
        entry = DictionaryEntry(key=self._overlay.node_id, value=value)
        await self._overlay.store(aor.encode(), SIP_REGISTRATION, [entry], lifetime, signer=signer)

    @asynccontextmanager
    async def _turn(self, aor: str) -> AsyncIterator[None]:
        """One change of an AOR after the other, so that each sees what the one before has stored."""
        while (waiting := self._under_way.get(aor)) is not None:
            turn: Deferred[None] = Deferred()
            waiting.append(turn)
            await turn
        self._under_way[aor] = []
        try:
            yield
        finally:
            for turn in self._under_way.pop(aor):
                turn.callback(None)

    # -- searching ---------------------------------------------------------------------------------------

    async def locate(self, aor: str) -> Located:
        """Where `aor` is registered, AORs that it is forwarded to included.

        :raises p2psip.errors.RELOADError: the responsible peer refused, or none answered.
        """
        routes: dict[tuple[bytes, str], NodeRoute] = {}
        known = looped = False
        pending, seen = [aor], {aor}
        while pending and len(routes) < MOST_NODES:
            current = pending.pop(0)
            found = await self._fetch(current)
            if not found and current != aor:
                # Another domain, or a number: whoever calls has other means.
                routes[b"", current] = NodeRoute(b"", current)
            for registration in found:
                known = True
                if isinstance(registration, RouteRegistration) and registration.destination_list:
                    last = registration.destination_list[-1]
                    if isinstance(last, NodeDestination):
                        prefs = registration.contact_prefs.decode("utf-8", "replace")
                        routes[last.node_id, current] = NodeRoute(last.node_id, current, prefs)
                elif isinstance(registration, UriRegistration):
                    device = self._device_of(registration.uri)
                    if device is not None:
                        routes[device.node_id, device.aor] = device
                    target = _aor_of(registration.uri)
                    looped = looped or target in seen
                    if target and target not in seen and len(seen) < MOST_FORWARDS:
                        seen.add(target)
                        pending.append(target)
        return Located(tuple(routes.values())[:MOST_NODES], known, looped)

    async def _fetch(self, aor: str) -> list[SipRegistration]:
        if not self._may_be_here(aor):
            return []
        found: list[SipRegistration] = []
        for value in await self._overlay.fetch(aor.encode(), SIP_REGISTRATION):
            entry = value.data.value
            if not isinstance(entry, DictionaryEntry):
                continue
            try:
                found.append(SipRegistration.decode(entry.value.value, self._overlay.configuration.context))
            except DecodeError:
                self._overlay.count("undecodable SipRegistration")
        return found

    def _device_of(self, uri: bytes) -> NodeRoute | None:
        """The one device that calls are forwarded to, where `uri` is a GRUU (RFC 7904 §4.2, step 3)."""
        try:
            parsed = parse_uri(uri.decode("utf-8", "replace"))
            if not isinstance(parsed, SIPURI):
                return None
            found = read_gruu(parsed, len(self._overlay.node_id))
            return None if found is None else NodeRoute(found.node_id, f"{parsed.aor()};gr={parsed.parameters['gr']}")
        except SIPParseError:
            return None

    def _may_be_here(self, aor: str) -> bool:
        """Whether this overlay can have registrations of `aor`."""
        kind = self._overlay.configuration.kinds.get(SIP_REGISTRATION)
        return kind is None or kind.domains is None or admits(kind.domains, aor)


def _aor_of(uri: bytes) -> str:
    """The AOR in a registration of type sip_registration_uri; empty when it is none, or a GRUU."""
    text = uri.decode("utf-8", "replace")
    try:
        parsed = parse_uri(text if ":" in text.partition("@")[0] else "sip:" + text)
        return parsed.aor() if isinstance(parsed, SIPURI) and "gr" not in parsed.parameters else ""
    except SIPParseError:
        return ""
