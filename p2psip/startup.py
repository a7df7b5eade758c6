"""What a starting node does, decided once by what it finds (docs: the life of a node)."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.names import dns
from twisted.names.error import DomainError

from .enrollment.tokens import JoinToken, TokenError
from .hostport import address_text
from .state import StateDirectory

DISCOVERY_SECONDS = 3.0
"""How long the DNS may take to say that it knows the overlay (RFC 6940 §11.2)."""


class StartError(Exception):
    """The node cannot start; the text is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Rejoin:
    """The state directory holds credentials."""


@dataclass(frozen=True, slots=True)
class JoinByToken:
    """Enroll with a token from `p2psip invite`."""

    token: JoinToken


@dataclass(frozen=True, slots=True)
class JoinByDocument:
    """By a configuration document out of a file or from a URL: enroll with an account and its password.

    Without a password the node certifies itself, if the document permits that; `account` is its name then.
    """

    source: str
    account: str | None
    password: str | None


@dataclass(frozen=True, slots=True)
class Discovered:
    """The DNS names the overlay's configuration server: target and port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Found:
    """Nothing is known of the overlay: found it here, or finish what was begun.

    `self_signed` is the digest by which the overlay's nodes certify themselves; empty: there is an authority.
    """

    self_signed: str = ""


Start = Rejoin | JoinByToken | JoinByDocument | Discovered | Found


def read_secret(path: str) -> str:
    """The first line of a file, or of standard input where `path` is '-'.

    :raises StartError: it cannot be read, or there is none.
    """
    return _read(path).splitlines()[0].strip()


def _read(path: str) -> str:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
    except (OSError, UnicodeError) as e:
        raise StartError(f"cannot read {path}: {getattr(e, 'strerror', None) or e}") from e
    if not text.strip():
        raise StartError(f"{'standard input' if path == '-' else path} is empty")
    return text.strip()


async def configuration_server(overlay: str, resolver: Any, clock: Any) -> tuple[str, int] | None:
    """Host and port of the configuration server that the DNS names for `overlay` (RFC 6940 §11.2).

    `resolver` is an IResolver.  None where there is no SRV record, or no answer within `DISCOVERY_SECONDS`.
    """
    asked: Deferred[Any] = resolver.lookupService(f"_reload-config._tcp.{overlay}", timeout=(1, 2))
    asked.addTimeout(DISCOVERY_SECONDS, clock)
    try:
        answers, _, _ = await asked
    except (DomainError, DNSLookupError, OSError, defer.TimeoutError):
        return None
    # RFC 2782: a target of "." says that there is no such service.
    records = [a.payload for a in answers if a.type == dns.SRV and str(a.payload.target).strip(".")]
    if not records:
        return None
    best = min(records, key=lambda record: (record.priority, -record.weight))
    return str(best.target), int(best.port)


async def decide(
    options: Mapping[str, Any],
    state: StateDirectory,
    discover: Callable[[str], Awaitable[tuple[str, int] | None]],
    search: Callable[[], Awaitable[Sequence[tuple[str, int]]]],
) -> Start:
    """How this node starts.

    :param discover: asks the DNS for ``_reload-config._tcp.NAME``: (target, port), or None.
    :param search: finds configuration servers on the LAN; an OSError where it cannot look.
    :raises StartError: the node may not start this way.
    """
    overlay = options["overlay"]
    if state.has_credentials:
        return Rejoin()
    if options["join"] or options["join-file"]:
        text = options["join"] or _read(options["join-file"])
        try:
            token = JoinToken.decode(text)
        except TokenError as e:
            raise StartError(str(e)) from e
        if token.overlay != overlay:
            raise StartError(f"the token is for the overlay {token.overlay}, not {overlay}")
        return JoinByToken(token)
    if options["config"]:
        file = options["password-file"]
        return JoinByDocument(options["config"], options["account"], read_secret(file) if file else None)
    digest = options["node-id-digest"] if options["self-signed"] else ""
    if state.has_authority or state.has_signer:
        _require_leave_to_found(options, f"the founding of {overlay} was begun here and not finished")
        if state.has_authority == bool(digest):
            how = "without" if digest else "with"
            raise StartError(f"the founding of {overlay} was begun in {state.path} {how} --self-signed: go on so")
        return Found(digest)
    if not options["no-discovery"]:
        found = await discover(overlay)
        if found is not None:
            return Discovered(*found)
    if state.key.exists():
        raise StartError(
            f"an enrollment was begun in {state.path} and not finished: start again with the same --join, "
            "--join-file or --config"
        )
    if options["lan"]:
        await _require_not_on_lan(overlay, search)
    _require_leave_to_found(options, f"nothing is known of {overlay}")
    return Found(digest)


async def _require_not_on_lan(
    overlay: str, search: Callable[[], Awaitable[Sequence[tuple[str, int]]]]
) -> None:
    """Whoever says that the overlay is there is not believed, but there shall not be a second one by mistake."""
    try:
        places = await search()
    except OSError as e:
        raise StartError(f"cannot look for {overlay} on the LAN (--lan): {e}") from e
    if places:
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        raise StartError(
            f"{overlay} is on this LAN, at {' and '.join(address_text(*place) for place in places)}: type "
            f"`p2psip invite NAME` there, and with the TOKEN that it prints: {command} --join TOKEN"
        )


def _require_leave_to_found(options: Mapping[str, Any], situation: str) -> None:
    if options["no-create"]:
        raise StartError(f"{situation}, and --no-create forbids to found it")
    if options["client"]:
        raise StartError(f"{situation}, and a --client cannot found it")
