"""What a proxy changes in the messages that pass (RFC 3261 §16.6, §16.7)."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import SIPParseError
from ..grammar import split
from ..message import MOST_VALUES, Message, Request, header_name

MAX_FORWARDS = 70


def copy_for(request: Request, uri: str, via: str, changes: Iterable[tuple[str, list[str]]] = ()) -> Request:
    """`request` as it goes on to `uri`, `via` on top of it, one Max-Forwards less.

    `changes` are header fields, by the names of `header_name`, with all their values; none at all removes one.
    """
    copy = Request(request.method, uri, body=request.body)
    headers = copy.headers = dict(request.headers)
    headers["Via"] = [via, *headers["Via"]]
    left = request.max_forwards
    headers["Max-Forwards"] = [str(MAX_FORWARDS if left is None else left - 1)]
    for name, values in changes:
        if values:
            headers[name] = values
        else:
            headers.pop(name, None)
    return copy


def pop_via(message: Message) -> bool:
    """Take the topmost Via, which is ours; answers whether there is another to send the message back to."""
    values = message.headers["Via"]
    first, *rest = split(values[0], ",")
    del first
    values = [", ".join(rest), *values[1:]] if rest else values[1:]
    message.headers["Via"] = values
    message.forget_parsed("Via")
    return bool(values)


def without_realm(request: Request, realm: str) -> list[str]:
    """The Proxy-Authorization values but for those of our realm, which are nobody else's business (§22.3)."""
    mark = f'realm="{realm}"'
    return [value for value in request.headers.get("Proxy-Authorization", ()) if mark not in value]


def listed(request: Request, name: str) -> list[str]:
    """The values of a list such as Route, one by one.

    :raises SIPParseError: there are too many.
    """
    values = request.values(name)
    if len(values) > MOST_VALUES:
        raise SIPParseError(f"too many values of {header_name(name)}")
    return values
