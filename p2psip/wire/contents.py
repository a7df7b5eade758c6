"""The message contents: a code, a body and extensions (RFC 6940, 6.3.3)."""

from __future__ import annotations

from typing import Annotated

from .codec import Choice, Struct, length_of_rest, select
from .codes import ErrorCode, MessageCode, MessageExtensionType
from .fields import (
    Int,
    boolean,
    opaque16,
    opaque32,
    rest,
    uint16,
    uint32,
    vec8,
    vec32,
)


class MessageExtension(Choice):
    """
    An extension of any message (RFC 6940, 6.3.3).

    :ivar critical: whoever does not understand it must refuse the message.
    """

    type: Annotated[int, Int(2, MessageExtensionType)] = select()
    critical: boolean = False
    length: uint32 = length_of_rest()


class UnknownExtension(MessageExtension, other=True):
    """An extension nobody here declared: kept, so that `critical` can be obeyed."""

    type: uint16
    extension_contents: rest


class MessageContents(Struct):
    """The second part of every message, and the one that its signature covers."""

    message_code: Annotated[int, Int(2, MessageCode)]
    message_body: opaque32
    extensions: vec32[MessageExtension] = ()


class ErrorResponse(Struct):
    """The body of an error answer (RFC 6940, 6.3.3.1); `error_info` is text, for some codes a structure."""

    error_code: Annotated[int, Int(2, ErrorCode)]
    error_info: opaque16 = b""


class UnknownKinds(Struct):
    """The error_info of Error_Unknown_Kind (RFC 6940, 7.4.1.2)."""

    unknown_kinds: vec8[uint32]
