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

    nodes: Sequence[NodeId]
    """The nodes at the end of the destination lists, each once."""
    known: bool
    """Whether there was any registration, also one that leads nowhere."""


class Registrations:
    """The registrations of this node's users in the overlay, and the search for everybody's.

    :param signer: who signs for a user (the part before the @); None when this node has no credentials of it.
    """

    def __init__(self, overlay: IOverlay, signer: Callable[[str], ISigner | None]) -> None:
        self._overlay = overlay
        self._signer = signer
        self._until: OrderedDict[str, float] = OrderedDict()
        """When the registration of ours of each AOR ends in the overlay, seconds since the epoch."""
        self._under_way: dict[str, list[Deferred[None]]] = {}

    def __len__(self) -> int:
        """How many registrations of this node's users are stored, as far as it knows."""
        return len(self._until)

    def forget(self) -> None:
        """Take nothing for stored any more: the node joined anew, so each next refresh stores again."""
        self._until.clear()

    # -- storing -----------------------------------------------------------------------------------------

    async def register(self, aor: str, expires: int) -> None:
        """See that a registration of `aor` at this node outlives the next `expires` seconds.

        Nothing is stored when what stands will live that long; else it is stored for twice that time, but not
        beyond the user's certificate.

        :raises NotServed: this node has no credentials of the user.
        :raises p2psip.errors.RELOADError: the responsible peer refused, or none answered.
        """
        async with self._turn(aor):
            clock = self._overlay.clock
            if self._until.get(aor, 0.0) >= clock.seconds() + expires:
                return
            signer = self._signer_of(aor)
            lifetime = max(1, min(2 * expires, int(signer.identity.not_after - clock.seconds())))
            route = RouteRegistration(destination_list=(NodeDestination(node_id=self._overlay.node_id),))
            await self._store(aor, DataValue(exists=True, value=route.encode()), lifetime, signer)
            self._until[aor] = clock.seconds() + lifetime
            self._until.move_to_end(aor)
            while len(self._until) > MOST_AORS:
                self._until.popitem(last=False)

    async def unregister(self, aor: str) -> None:
        """Remove the registration of `aor` at this node; raises as `register`."""
        async with self._turn(aor):
            remaining = int(self._until.get(aor, 0.0) - self._overlay.clock.seconds()) + 1
            # RFC 6940 s7.4.1.3: a removal must outlive what it removes, or a copy could bring it back.
            lifetime = max(TOMBSTONE, remaining)
            await self._store(aor, DataValue(exists=False, value=b""), lifetime, self._signer_of(aor))
            self._until.pop(aor, None)

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
        nodes: dict[NodeId, None] = {}
        known = False
        pending, seen = [aor], {aor}
        while pending and len(nodes) < MOST_NODES:
            for registration in await self._fetch(pending.pop(0)):
                known = True
                if isinstance(registration, RouteRegistration) and registration.destination_list:
                    last = registration.destination_list[-1]
                    if isinstance(last, NodeDestination):
                        nodes[last.node_id] = None
                elif isinstance(registration, UriRegistration):
                    target = _aor_of(registration.uri)
                    if target and target not in seen and len(seen) < MOST_FORWARDS:
                        seen.add(target)
                        pending.append(target)
        return Located(tuple(nodes)[:MOST_NODES], known)

    async def _fetch(self, aor: str) -> list[SipRegistration]:
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


def _aor_of(uri: bytes) -> str:
    """The AOR in a registration of type sip_registration_uri; empty when it is none, or a GRUU."""
    text = uri.decode("utf-8", "replace")
    try:
        parsed = parse_uri(text if ":" in text.partition("@")[0] else "sip:" + text)
        return parsed.aor() if isinstance(parsed, SIPURI) and "gr" not in parsed.parameters else ""
    except SIPParseError:
        return ""
