"""Loops found, and breadth bounded (RFC 3261 §16.3, RFC 5393).

A branch of ours is ``z9hG4bK`` + a digest + ``.`` + what makes it unique.  The digest is over all that decides where a
request goes; a request that comes back with the same one is in a loop, with another one it spirals, which is allowed
(RFC 5393 §4.2).
"""

from __future__ import annotations

from hashlib import blake2s
from typing import Final

from ..errors import SIPFailure
from ..grammar import parse_number
from ..headers import MAGIC_COOKIE
from ..message import Request

MAX_BREADTH: Final = 60
"""Of a request that says nothing, and the most that is taken (RFC 5393 §5.3.3)."""
_DIGEST_CHARACTERS: Final = 16


def loop_digest(request: Request, key: bytes) -> str:
    """A digest of what decides the way of `request` on, as it came in (RFC 5393 §4.2.1)."""
    headers = request.headers
    parts = [request.uri_text, request.call_id, str(request.cseq.number), request.from_.tag or ""]
    parts.extend(headers.get("Route", ()))
    parts.extend(headers.get("Proxy-Require", ()))
    data = "\0".join(parts).encode("utf-8", "surrogateescape")
    return blake2s(data, digest_size=_DIGEST_CHARACTERS // 2, key=key).hexdigest()


def branch(digest: str, unique: str) -> str:
    """The branch of a request that is passed on; `unique` is a token."""
    return f"{MAGIC_COOKIE}{digest}.{unique}"


def require_no_loop(request: Request, digest: str) -> None:
    """Check that `request` has not been here before in just this shape.

    Nobody else's Via has our digest, since it is made with our key.

    :raises SIPFailure: 482.
    """
    mine = f"{MAGIC_COOKIE}{digest}."
    if any(mine in value for value in request.headers["Via"]):
        raise SIPFailure(482)


def incoming_breadth(request: Request) -> int:
    """How many branches `request` may have at once, here and further on.

    :raises SIPParseError: Max-Breadth is malformed.
    """
    text = request.get("Max-Breadth")
    return MAX_BREADTH if text is None else min(parse_number(text, "Max-Breadth"), MAX_BREADTH)


def shares(breadth: int, branches: int) -> list[int]:
    """`breadth` dealt out to as many of `branches` as can have some at once, at least one each.

    :raises SIPFailure: 440, there is none to deal out.
    """
    count = min(breadth, branches)
    if count < 1:
        raise SIPFailure(440)
    each, more = divmod(breadth, count)
    return [each + (number < more) for number in range(count)]
