"""The ng protocol of rtpengine: a datagram is a cookie, a space, and a dictionary in bencode.

The cookie is the same in the answer, and in repetitions: rtpengine answers those with what it answered before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import bencodepy

MOST_DATAGRAM: Final = 65507
"""What UDP over IPv4 carries."""
_MOST_COOKIE: Final = 64

Value = str | bytes | int | Sequence[str]


class NgError(ValueError):
    """A datagram that is none of the protocol."""


def encode(cookie: bytes, command: str, arguments: Mapping[str, Value]) -> bytes:
    """The datagram for a command.  Raises NgError: it would be too long."""
    content = {b"command": command.encode()}
    content.update((name.encode(), _plain(value)) for name, value in arguments.items())
    datagram: bytes = cookie + b" " + bencodepy.encode(content)
    if len(datagram) > MOST_DATAGRAM:
        raise NgError("too long for a datagram")
    return datagram


def decode(datagram: bytes) -> tuple[bytes, dict[str, Any]]:
    """The cookie and the dictionary of an answer, its keys as text and its values as they are.  Raises NgError."""
    cookie, space, text = datagram.partition(b" ")
    if not space or not 0 < len(cookie) <= _MOST_COOKIE:
        raise NgError("no cookie")
    try:
        content = bencodepy.decode(text)
    except bencodepy.BencodeDecodeError as error:
        raise NgError(str(error)) from None
    if not isinstance(content, dict):
        raise NgError("no dictionary")
    return cookie, {key.decode("utf-8", "replace"): value for key, value in content.items()}


def text(value: Any) -> str:
    """A string of an answer, for people; anything else is empty."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _plain(value: Value) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, (bytes, int)):
        return value
    return [item.encode("utf-8", "surrogateescape") for item in value]
