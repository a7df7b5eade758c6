"""
The forwarding header: all that a relay reads, and all it may change (RFC 6940, 6.3.2).
"""

from __future__ import annotations

import struct
from typing import Annotated

from .codec import (
    DEFAULT_CONTEXT,
    Choice,
    Struct,
    WireContext,
    length_of,
    length_of_rest,
    select,
)
from .codes import (
    RELO_TOKEN,
    UNFRAGMENTED,
    VERSION,
    DestinationType,
    ForwardingOptionType,
)
from .errors import DecodeError, EncodeError
from .fields import (
    Int,
    NodeId,
    ResourceId,
    opaque8,
    rest,
    sized,
    uint8,
    uint16,
    uint32,
    uint64,
)

FIXED_SIZE = 38
"""Bytes of a forwarding header before its lists."""


class Destination(Choice):
    """One step of a route (RFC 6940, 6.3.2.2)."""

    type: Annotated[int, Int(1, DestinationType)] = select()
    length: uint8 = length_of_rest()


class NodeDestination(Destination, case=DestinationType.NODE):
    node_id: NodeId


class ResourceDestination(Destination, case=DestinationType.RESOURCE):
    """Only ever the last of a Destination List, never in a Via List."""

    resource_id: ResourceId


class OpaqueDestination(Destination, case=DestinationType.OPAQUE_ID_TYPE):
    """What only the peer that made it can expand."""

    opaque_id: opaque8


class CompressedDestination(Destination, case=range(0x80, 0x100), bare=True):
    """
    An opaque_id of two bytes without type and length; its top bit is 1.

    It stands for `OpaqueDestination` with the same `opaque_id`, and is kept
    apart so that it is sent on as it came.
    """

    identifier: uint16

    @property
    def opaque_id(self) -> bytes:
        return self.identifier.to_bytes(2)

    def _write(self) -> bytes:
        if not 0x8000 <= self.identifier <= 0xFFFF:
            raise EncodeError("CompressedDestination", "the top bit of the identifier is not 1")
        return self.identifier.to_bytes(2)


class UnknownDestination(Destination, other=True):
    """A type defined after this was written (4 to 127)."""

    type: uint8
    destination_data: rest


class ForwardingOption(Choice):
    """An extension of the forwarding header (RFC 6940, 6.3.2.3); for `flags` see `ForwardingFlags`."""

    type: Annotated[int, Int(1, ForwardingOptionType)] = select()
    flags: uint8 = 0
    length: uint16 = length_of_rest()


class UnknownForwardingOption(ForwardingOption, other=True):
    """An option nobody here declared: kept, so that its flags can be obeyed."""

    type: uint8
    option: rest


class ForwardingHeader(Struct):
    """
    The first part of every message (RFC 6940, 6.3.2).

    `length` counts the whole message (of a fragment: this fragment) with its
    header; `ttl` is in hops; `fragment` is a flag pair and a byte offset.
    """

    relo_token: uint32 = RELO_TOKEN
    overlay: uint32
    configuration_sequence: uint16
    version: uint8 = VERSION
    ttl: uint8 = 100
    fragment: uint32 = UNFRAGMENTED
    length: uint32 = 0
    transaction_id: uint64
    max_response_length: uint32 = 0
    via_list_length: uint16 = length_of("via_list")
    destination_list_length: uint16 = length_of("destination_list")
    options_length: uint16 = length_of("options")
    via_list: sized[Destination] = ()
    destination_list: sized[Destination]
    options: sized[ForwardingOption] = ()


def decode_header(data: bytes, ctx: WireContext = DEFAULT_CONTEXT) -> tuple[ForwardingHeader, int]:
    """
    The forwarding header of a message or fragment, and the header's size in bytes.

    :raises DecodeError: the header cannot be read, or `check_header` refuses it.
    """
    header, size = ForwardingHeader.decode_prefix(data, ctx)
    check_header(header, data)
    return header, size


def check_header(header: ForwardingHeader, data: bytes) -> None:
    """
    Check what must hold for the header of any message, `data`.

    :raises DecodeError: the token or the version is another, the bit of the fragment
        field that is always set is not, the length is not that of the data, or a
        Resource-ID stands anywhere but at the end of the Destination List.
    """
    if header.relo_token != RELO_TOKEN:
        raise DecodeError("ForwardingHeader", 0, "not a RELOAD message")
    if header.version != VERSION:
        raise DecodeError("ForwardingHeader", 10, f"version {header.version:#x} is not spoken here")
    if header.fragment < 0x80000000:
        raise DecodeError("ForwardingHeader", 12, "the high bit of fragment is 0")
    if header.length != len(data):
        raise DecodeError("ForwardingHeader", 16, f"length says {header.length} bytes, found {len(data)}")
    if ResourceDestination in map(type, header.via_list + header.destination_list[:-1]):
        raise DecodeError("ForwardingHeader", FIXED_SIZE, "a Resource-ID that is not the last destination")


def with_header(header: ForwardingHeader, body: bytes) -> bytes:
    """A message of this header, its length corrected, and what follows it."""
    return join(header.encode(), body)


def join(head: bytes, body: bytes) -> bytes:
    """A message of an encoded header, its length corrected, and what follows it."""
    try:
        return head[:16] + (len(head) + len(body)).to_bytes(4) + head[20:] + body
    except OverflowError as e:
        raise EncodeError("ForwardingHeader", "a message beyond 4 GiB") from e


_TTL = 11
_LENGTH = struct.Struct("!I")
_LENGTHS = struct.Struct("!HHH")


def forward(data: bytes, size: int, *, ttl: int, via: Destination | None = None, consumed: int = 0) -> bytes:
    """
    The message to send on, made without touching what stays as it is.

    :param data: the message as received; `size`: that of its header, from `decode_header`.
    :param ttl: the TTL to send.
    :param via: the entry to append to the Via List; None in an answer.
    :param consumed: how many bytes to take off the front of the Destination List,
        the sum of ``len(destination.encode())`` of the entries that were ours.
    :raises EncodeError: the Via List would exceed 65535 bytes.
    """
    vias, destinations, options = _LENGTHS.unpack_from(data, 32)
    entry = via.encode() if via is not None else b""
    split = FIXED_SIZE + vias
    try:
        return b"".join((
            data[:_TTL],
            ttl.to_bytes(1),
            data[12:16],
            _LENGTH.pack(len(data) + len(entry) - consumed),
            data[20:32],
            _LENGTHS.pack(vias + len(entry), destinations - consumed, options),
            data[FIXED_SIZE:split],
            entry,
            data[split + consumed:],
        ))
    except (struct.error, OverflowError) as e:
        raise EncodeError("ForwardingHeader", f"cannot be forwarded: {e}") from e
