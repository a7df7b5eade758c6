"""Whole messages: header, contents and security block, and what is signed of them (RFC 6940, 6.3)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType

from . import chord, methods, storage
from .codec import DEFAULT_CONTEXT, UNFIT, Struct, WireContext, unfit
from .codes import RELO_TOKEN, UNFRAGMENTED, MessageCode
from .contents import ErrorResponse, MessageContents
from .errors import DecodeError, UnknownKindError
from .header import ForwardingHeader, check_header, join
from .security import SecurityBlock

BODIES: Mapping[int, type[Struct]] = MappingProxyType({
    MessageCode.PROBE_REQ: methods.ProbeReq,
    MessageCode.PROBE_ANS: methods.ProbeAns,
    MessageCode.ATTACH_REQ: methods.AttachReqAns,
    MessageCode.ATTACH_ANS: methods.AttachReqAns,
    MessageCode.STORE_REQ: storage.StoreReq,
    MessageCode.STORE_ANS: storage.StoreAns,
    MessageCode.FETCH_REQ: storage.FetchReq,
    MessageCode.FETCH_ANS: storage.FetchAns,
    MessageCode.FIND_REQ: storage.FindReq,
    MessageCode.FIND_ANS: storage.FindAns,
    MessageCode.JOIN_REQ: methods.JoinReq,
    MessageCode.JOIN_ANS: methods.JoinAns,
    MessageCode.LEAVE_REQ: methods.LeaveReq,
    MessageCode.LEAVE_ANS: methods.LeaveAns,
    MessageCode.UPDATE_REQ: chord.ChordUpdate,
    MessageCode.UPDATE_ANS: methods.UpdateAns,
    MessageCode.ROUTE_QUERY_REQ: methods.RouteQueryReq,
    MessageCode.ROUTE_QUERY_ANS: chord.ChordRouteQueryAns,
    MessageCode.PING_REQ: methods.PingReq,
    MessageCode.PING_ANS: methods.PingAns,
    MessageCode.STAT_REQ: storage.StatReq,
    MessageCode.STAT_ANS: storage.StatAns,
    MessageCode.APP_ATTACH_REQ: methods.AppAttachReq,
    MessageCode.APP_ATTACH_ANS: methods.AppAttachAns,
    MessageCode.CONFIG_UPDATE_REQ: methods.ConfigUpdateReq,
    MessageCode.CONFIG_UPDATE_ANS: methods.ConfigUpdateAns,
    MessageCode.ERROR: ErrorResponse,
})
"""The body of each message code, in an overlay whose topology plug-in is CHORD-RELOAD."""


class Message(Struct, keep=("contents",)):
    """A whole message; its body stays bytes until asked for, so that the signature is checked first."""

    header: ForwardingHeader
    contents: MessageContents
    security: SecurityBlock

    @property
    def signature_input(self) -> bytes:
        """What the signature covers, from the received bytes (RFC 6940, 6.3.4)."""
        return message_signature_input(
            self.header.overlay, self.header.transaction_id, self.raw("contents"),
            self.security.signature.raw("identity"),
        )

    def body(self, ctx: WireContext = DEFAULT_CONTEXT, bodies: Mapping[int, type[Struct]] = BODIES) -> Struct:
        """The body by its message code; see `decode_body`."""
        return decode_body(self.contents.message_code, self.contents.message_body, ctx, bodies)


def decode_message(data: bytes, ctx: WireContext = DEFAULT_CONTEXT) -> Message:
    """
    Read a whole message.

    :raises DecodeError: it is none, or a fragment.
    """
    try:
        message = Message.decode(data, ctx)
    except DecodeError:
        if data[:4] != _TOKEN:
            raise DecodeError("ForwardingHeader", 0, "not a RELOAD message") from None
        raise
    check_header(message.header, data)
    if message.header.fragment != UNFRAGMENTED:
        raise DecodeError("ForwardingHeader", 12, "a fragment, not a whole message")
    return message


def decode_body(
    message_code: int, body: bytes, ctx: WireContext = DEFAULT_CONTEXT,
    bodies: Mapping[int, type[Struct]] = BODIES,
) -> Struct:
    """
    Read a body by its message code.

    :param bodies: the structure of each code; another topology plug-in brings another mapping.
    :raises UnknownKindError: it names Kinds not in `ctx`; the error has them all.
    :raises DecodeError: nobody knows the code, or the body is not what the code says.
    """
    cls = bodies.get(message_code)
    if cls is None:
        raise DecodeError("MessageContents", 0, f"no method has message_code {message_code:#x}")
    try:
        return cls.decode(body, ctx)
    except UnknownKindError as e:
        named = storage.kinds_named(cls, body, ctx)
        unknown = tuple(dict.fromkeys(kind for kind in named if kind not in ctx.kinds))
        raise UnknownKindError(e.structure, e.offset, unknown) from e


def encode_message(
    header: ForwardingHeader, contents: MessageContents | bytes, security: SecurityBlock | bytes,
) -> bytes:
    """
    The bytes of a whole message; the header's length is filled in.

    :param contents: its bytes when they were needed already, to sign them; likewise `security`.
    :raises EncodeError: a value does not fit its field.
    """
    try:
        if not isinstance(contents, bytes):
            contents = contents._write()
        if not isinstance(security, bytes):
            security = security._write()
        head = header._write()
    except UNFIT as e:
        raise unfit(e, "Message") from e
    return join(head, contents + security)


_TOKEN = RELO_TOKEN.to_bytes(4)
_SIGNED_HEAD = struct.Struct("!IQ")


def message_signature_input(overlay: int, transaction_id: int, contents: bytes, identity: bytes) -> bytes:
    """
    What the signature of a message covers (RFC 6940, 6.3.4).

    :param contents: the encoded `MessageContents`; `identity`: the encoded `SignerIdentity`.
    """
    return _SIGNED_HEAD.pack(overlay, transaction_id) + contents + identity
