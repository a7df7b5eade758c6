"""STUN Binding, asked and answered on the sockets of links (RFC 5389; RFC 6940 §6.5.1.4, §6.5.1.10.3).

Each peer is a STUN server for the others: whoever asks one of its sockets is told the address that it was seen at.
"""

from __future__ import annotations

import struct

from aioice import stun

Place = tuple[str, int]


def is_stun(datagram: bytes) -> bool:
    """Whether a datagram is STUN, of what may come to the socket of a link (RFC 5764 §5.1.2)."""
    return bool(datagram) and datagram[0] < 4


def is_dtls(datagram: bytes) -> bool:
    """Whether a datagram is DTLS, of what may come to the socket of a link (RFC 5764 §5.1.2)."""
    return bool(datagram) and 20 <= datagram[0] < 64


def parse(datagram: bytes) -> stun.Message | None:
    """A STUN message; None where it is none."""
    try:
        return stun.parse_message(datagram)
    except (ValueError, struct.error):
        return None


def binding_request() -> stun.Message:
    """A Binding request without credentials."""
    return stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)


def is_plain_request(message: stun.Message) -> bool:
    """Whether it is a Binding request of somebody who wants to know its address, and is no check of ICE."""
    return (
        message.message_class == stun.Class.REQUEST
        and message.message_method == stun.Method.BINDING
        and "USERNAME" not in message.attributes
    )


def binding_response(request: stun.Message, seen: Place) -> bytes:
    """The answer to a Binding request that came from `seen`."""
    response = stun.Message(
        message_method=stun.Method.BINDING,
        message_class=stun.Class.RESPONSE,
        transaction_id=request.transaction_id,
    )
    response.attributes["XOR-MAPPED-ADDRESS"] = seen
    response.add_fingerprint()
    return bytes(response)


def mapped_address(response: stun.Message) -> Place | None:
    """Where the one who answered has seen us."""
    found = response.attributes.get("XOR-MAPPED-ADDRESS")
    return (str(found[0]), int(found[1])) if found else None
