"""Whole messages of ours and others': composed and signed, read and verified (RFC 6940 §6.3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..forwarding.router import Deliver
from ..ids import NodeId
from ..interfaces import ISigner, IVerifier, SignedBy
from ..security.signing import certificates_of, security_block, sign_message, verify_message
from ..wire.codec import Struct, WireContext
from ..wire.codes import ForwardingFlags, MessageCode, is_request
from ..wire.contents import MessageContents, MessageExtension
from ..wire.errors import DecodeError
from ..wire.header import Destination, ForwardingHeader, ForwardingOption, with_header
from ..wire.message import BODIES
from ..wire.security import SecurityBlock

if TYPE_CHECKING:
    from ..config.document import Configuration

ANY_SEQUENCE = 65535
"""The configuration_sequence that lets a ConfigUpdate be accepted whatever the receiver has (RFC 6940 §6.3.2.1)."""

# RFC 6940 s6.3.2.3: "the RESPONSE_COPY, FORWARD_CRITICAL, and DESTINATION_CRITICAL flags MUST be cleared."
_CLEARED = ForwardingFlags.FORWARD_CRITICAL | ForwardingFlags.DESTINATION_CRITICAL | ForwardingFlags.RESPONSE_COPY

_REQUEST_CODES = {cls: code for code, cls in BODIES.items() if is_request(code)}


def request_code(body: Struct) -> MessageCode:
    """The message_code of a request with this body.

    :raises TypeError: it is no request's body.
    """
    for cls in type(body).__mro__:
        code = _REQUEST_CODES.get(cls)
        if code is not None:
            return MessageCode(code)
    raise TypeError(f"{type(body).__name__} is not the body of a request")


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message that has reached this node, its signature verified; the body is not read yet."""

    header: ForwardingHeader
    contents: MessageContents
    signer: SignedBy
    certificates: Sequence[bytes]
    previous_hop: NodeId


def open_message(delivered: Deliver, ctx: WireContext, verifier: IVerifier) -> Arrived:
    """Read and verify a message from what the router delivered.

    :raises DecodeError: it cannot be read.
    :raises p2psip.security.signing.VerificationError: nobody whom this node believes has signed it.
    """
    header, data, start, previous_hop = delivered
    contents, stop = MessageContents.decode_prefix(data, ctx, start)
    security, end = SecurityBlock.decode_prefix(data, ctx, stop)
    if end != len(data):
        raise DecodeError("SecurityBlock", end, f"{len(data) - end} bytes left over")
    certificates = certificates_of(security)
    signer = verify_message(
        verifier, header.overlay, header.transaction_id, data[start:stop], security.signature, certificates
    )
    return Arrived(header, contents, signer, certificates, previous_hop)


def seal(
    overlay: int,
    transaction_id: int,
    message_code: int,
    body: bytes,
    signer: ISigner,
    certificates: Iterable[bytes] = (),
    extensions: Sequence[MessageExtension] = (),
) -> bytes:
    """All of a message that follows its header: contents, certificates and signature.

    `signer`'s own certificate is put before `certificates`; each goes in once.
    """
    contents = MessageContents(
        message_code=message_code, message_body=body, extensions=tuple(extensions)
    ).encode()
    signature = sign_message(signer, overlay, transaction_id, contents)
    return contents + security_block(signature, [signer.identity.certificate, *certificates]).encode()


def compose(
    configuration: Configuration,
    transaction_id: int,
    destination_list: Sequence[Destination],
    sealed: bytes,
    *,
    sequence: int | None = None,
    options: Sequence[ForwardingOption] = (),
) -> bytes:
    """A whole message of ours: a fresh header before what `seal` made."""
    header = ForwardingHeader(
        overlay=configuration.overlay_hash,
        configuration_sequence=configuration.sequence if sequence is None else sequence,
        ttl=configuration.initial_ttl,
        transaction_id=transaction_id,
        destination_list=tuple(destination_list),
        options=tuple(options),
    )
    return with_header(header, sealed)


def copied_options(request: ForwardingHeader) -> list[ForwardingOption]:
    """The forwarding options that the answer to `request` repeats (RFC 6940 §6.3.2.3)."""
    return [
        option.replace(flags=option.flags & ~_CLEARED)
        for option in request.options
        if option.flags & ForwardingFlags.RESPONSE_COPY
    ]
