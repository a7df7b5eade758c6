"""
Any message or frame for people: JSON with the RFC's own names.

Bytes are hex, enumerated numbers their names (unknown ones stay numbers), a
choice is its type by name and the fields of that case; byte counts, which only
repeat what is seen, are left out.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from . import codes
from .codec import DEFAULT_CONTEXT, Struct, WireContext
from .codes import ErrorCode
from .contents import ErrorResponse, UnknownKinds
from .errors import DecodeError
from .fields import Vector, Wire
from .frame import DataFrame, FramedMessage
from .header import CompressedDestination, decode_header
from .message import Message, decode_body, decode_message
from .methods import IPv4AddrPort, IPv6AddrPort
from .storage import StoreAns


def describe(data: bytes, ctx: WireContext = DEFAULT_CONTEXT) -> dict[str, Any]:
    """
    What a frame (RFC 6940, 6.6.2), a message (6.3) or a fragment says, ready for JSON.

    A body that cannot be read, for its code or its Kind is unknown here, is
    hex, with the reason in "message_body_error".

    :raises DecodeError: it is neither frame nor message.
    """
    if data[:1] in (b"\x80", b"\x81"):
        frame = FramedMessage.decode(data, ctx)
        shown = to_json(frame)
        if isinstance(frame, DataFrame):
            shown["message"] = _message(frame.message, ctx)
        return {"framed_message": shown}
    return _message(data, ctx)


def _message(data: bytes, ctx: WireContext) -> dict[str, Any]:
    header, size = decode_header(data, ctx)
    if header.fragment != codes.UNFRAGMENTED:
        return {"forwarding_header": to_json(header), "fragment": data[size:].hex()}
    message = decode_message(data, ctx)
    return {
        "forwarding_header": to_json(message.header),
        "message_contents": _contents(message, ctx),
        "security_block": to_json(message.security),
    }


def _contents(message: Message, ctx: WireContext) -> dict[str, Any]:
    contents = message.contents
    shown = to_json(contents)
    try:
        body = decode_body(contents.message_code, contents.message_body, ctx)
    except DecodeError as e:
        shown["message_body_error"] = str(e)
        return shown
    shown["message_body"] = to_json(body)
    if isinstance(body, ErrorResponse):
        shown["message_body"] |= _error_info(body, ctx)
    return shown


def _error_info(body: ErrorResponse, ctx: WireContext) -> dict[str, Any]:
    """The error_info as what it is for its code: Kind-IDs, a StoreAns, or text."""
    structures: dict[int, type[Struct]] = {
        ErrorCode.UNKNOWN_KIND: UnknownKinds, ErrorCode.GENERATION_COUNTER_TOO_LOW: StoreAns,
    }
    try:
        if body.error_code in structures:
            return to_json(structures[body.error_code].decode(body.error_info, ctx))
        return {"error_text": body.error_info.decode()}
    except (DecodeError, UnicodeDecodeError):
        return {}


def to_json(value: Struct) -> dict[str, Any]:
    """One structure as JSON, whatever it is inside."""
    if isinstance(value, CompressedDestination):
        return {"opaque_id": value.opaque_id.hex()}
    shown: dict[str, Any] = {}
    for field, wire, content in _fields(value):
        if content is not None:
            shown[field] = _shown(content, wire)
    if isinstance(value, IPv4AddrPort | IPv6AddrPort):
        shown["addr"] = value.host
    return shown


def _fields(value: Struct) -> list[tuple[str, Wire, Any]]:
    """The fields to show; the selecting one of a case is among them."""
    cls = type(value)
    return [
        (field, wire, getattr(value, field)) for field, (wire, _) in cls._layout.items()
        if field in cls.__match_args__ or field == getattr(cls, "_selector", None)
    ]


def _shown(content: Any, wire: Wire | None) -> Any:
    if isinstance(content, Struct):
        return to_json(content)
    if isinstance(content, bytes):
        return content.hex()
    if isinstance(content, tuple):
        item = wire.item if isinstance(wire, Vector) else None
        return [_shown(one, item) for one in content]
    if wire is not None and wire.names is not None:
        return _name(wire.names, content)
    return content


def _name(names: type[IntEnum], number: int) -> str | int:
    """The name of a number as the RFC spells it; the number when it has none."""
    try:
        name = names(number).name
    except ValueError:
        return number
    if names is ErrorCode:
        return "Error_" + _ERRORS.get(name, name.title())
    if names in (codes.OverlayLinkType, codes.Kind):
        return name if name.startswith("CERTIFICATE") else name.replace("_", "-")
    return "X.509" if names is codes.CertificateType else name.lower()


_ERRORS = {
    "INCOMPATIBLE_WITH_OVERLAY": "Incompatible_with_Overlay",
    "TTL_EXCEEDED": "TTL_Exceeded",
    "TTL_HOPS_EXCEEDED": "TTL_Hops_Exceeded",
}
