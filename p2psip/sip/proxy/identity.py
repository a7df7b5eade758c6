"""Who wants a request passed on, and what others may know of it (RFC 3261 §16.3, RFC 3323, RFC 3325)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ..authentication import Authenticator
from ..domain import Domain
from ..errors import SIPFailure
from ..grammar import split
from ..interfaces import Source
from ..message import Request
from ..query import aor_uri
from ..uri import SIPURI

ANONYMOUS: Final = "anonymous.invalid"
"""The host of a From that does not say who calls (RFC 3323 §4.1.1.3)."""
_ASSERTED: Final = "P-Asserted-Identity"
_PREFERRED: Final = "P-Preferred-Identity"
_BEYOND_A_PROXY: Final = frozenset(("header", "session", "user"))
"""Kinds of privacy that take one who stands in for the caller in its dialogs (RFC 3323 §5)."""


class Origin(NamedTuple):
    """Who sent a request that is to be passed on."""

    source: Source
    user: str = ""
    """The account that has proved itself."""
    node: bytes = b""
    """The Node-ID of the node that it came from."""
    trusted: bool = False
    """Whether that node is a registrar, whose word on who calls is taken."""
    trunk: bool = False
    """Whether it came from the trunk of this node."""
    emergency: bool = False
    """Whether nobody may be kept from this call."""

    @property
    def stranger(self) -> bool:
        """Whether nothing is known of who it is."""
        return not (self.user or self.node or self.trunk or self.emergency)

    @property
    def may_call_outside(self) -> bool:
        """Whether it may go to others than the users of this overlay."""
        return bool(self.user) or self.trusted or self.emergency


class Callers:
    """Finds out who sends, and asks for proof where there has to be one."""

    def __init__(self, domain: Domain, authenticator: Authenticator) -> None:
        self._domain = domain
        self._authenticator = authenticator

    async def origin(self, request: Request, source: Source, now: float) -> Origin:
        """Who sent `request` from `source`, which is no node and no trunk.

        Users of this domain prove themselves; others are strangers, who may call users of this domain only.

        :raises SIPFailure: 407, or 403: it names another user than its credentials.
        """
        from_ = request.from_.uri
        claimed = isinstance(from_, SIPURI) and self._domain.covers(from_)
        anonymous = isinstance(from_, SIPURI) and from_.address == ANONYMOUS
        if not claimed and not (anonymous and self._wants_out(request)):
            return Origin(source)
        proven = await self._authenticator.authenticate(request, source.host, now, proxy=True)
        if claimed and self._domain.aor(from_) != f"{proven.user}@{self._domain.name}":
            raise SIPFailure(403, "From Is Another User")
        return Origin(source, proven.user)

    def _wants_out(self, request: Request) -> bool:
        return "Proxy-Authorization" in request.headers or not self._domain.covers(request.uri)

    def of_node(self, request: Request, source: Source, node: bytes, user_name: str | None) -> Origin:
        """Who sent what came from a node; `user_name` (user@domain) is that of its certificate, None of a registrar's.

        :raises SIPFailure: 403: a node that is no registrar speaks for its own user only.
        """
        if user_name is None:
            return Origin(source, node=node, trusted=True)
        if not isinstance(request.from_.uri, SIPURI) or self._domain.aor(request.from_.uri) != user_name:
            raise SIPFailure(403, "From Is Another User")
        return Origin(source, user_name.rpartition("@")[0], node)


def privacy(request: Request) -> frozenset[str]:
    """What the caller wants kept private, in lower case (RFC 3323 §4.2)."""
    values = request.headers.get("Privacy")
    if not values:
        return frozenset()
    return frozenset(part.strip().lower() for value in values for part in split(value, ";"))


def require_possible(wanted: frozenset[str]) -> None:
    """Check that nothing critical is wanted of which a proxy is not capable.

    :raises SIPFailure: 500, as RFC 3323 §5 has it.
    """
    if "critical" in wanted and wanted & _BEYOND_A_PROXY:
        raise SIPFailure(500, "Privacy Is Not Available")


def identity_changes(request: Request, origin: Origin, domain: str) -> dict[str, list[str]]:
    """The header fields that say who calls, as they go on (RFC 3325 §5 to §7)."""
    if origin.trusted or origin.trunk:
        return {_PREFERRED: []} if _PREFERRED in request.headers else {}
    asserted: Sequence[str] = [f"<{aor_uri(f'{origin.user}@{domain}')}>"] if origin.user else []
    changes: dict[str, list[str]] = {}
    if asserted or _ASSERTED in request.headers:
        changes[_ASSERTED] = list(asserted)
    if _PREFERRED in request.headers:
        changes[_PREFERRED] = []
    return changes
