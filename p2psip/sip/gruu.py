"""GRUUs: URIs that lead to one device of a user, without any lookup (RFC 5627, RFC 7904 §6).

The ``gr`` parameter is a Destination List in base64, "~" in place of "=": the Node-ID of the registrar, and an opaque
destination that only this registrar understands, which tells its user's devices apart.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import blake2s
from typing import Final, NamedTuple

from ..ids import NodeId
from ..wire.codec import Struct
from ..wire.context import WireContext
from ..wire.errors import DecodeError
from ..wire.fields import vec16
from ..wire.header import Destination, NodeDestination, OpaqueDestination
from .uri import SIPURI

TAG_BYTES: Final = 8
_LONGEST: Final = 128


class _DestinationList(Struct):
    destinations: vec16[Destination]


class GRUU(NamedTuple):
    """Where a GRUU leads."""

    node_id: bytes
    tag: bytes
    """The device's, see `device_tag`; empty: any device of the user at that node."""


def device_tag(key: bytes, aor: str, instance: str) -> bytes:
    """What stands for a device (its ``+sip.instance``) of `aor` in GRUUs of the node that has `key`.

    It is keyed so that the instance, which may name a piece of hardware, is not told to everybody.
    """
    return blake2s(f"{aor}\0{instance}".encode(), digest_size=TAG_BYTES, key=key).digest()


def make_gruu(aor_uri: str, node_id: bytes, tag: bytes) -> str:
    """The public GRUU of a device of the AOR with the SIP URI `aor_uri`."""
    destinations = (NodeDestination(node_id=NodeId(node_id)), OpaqueDestination(opaque_id=tag))
    encoded = _DestinationList(destinations=destinations).encode()[2:]
    return f"{aor_uri};gr={base64.b64encode(encoded).decode().replace('=', '~')}"


def read_gruu(uri: SIPURI, node_id_length: int) -> GRUU | None:
    """Where the GRUU `uri` leads; None when it has no ``gr`` that RFC 7904 §6 describes.

    Of a longer Destination List the last Node-ID counts: a connection to it is asked for by the overlay.
    """
    text = uri.parameters.get("gr")
    if not text or len(text) > _LONGEST:
        return None
    try:
        encoded = base64.b64decode(text.replace("~", "="), validate=True)
        context = WireContext(node_id_length)
        found = _DestinationList.decode(len(encoded).to_bytes(2) + encoded, context).destinations
    except (binascii.Error, ValueError, DecodeError):
        return None
    nodes = [number for number, each in enumerate(found) if isinstance(each, NodeDestination)]
    if not nodes:
        return None
    last = found[nodes[-1]]
    assert isinstance(last, NodeDestination)
    tags = [each.opaque_id for each in found[nodes[-1] + 1 :] if isinstance(each, OpaqueDestination)]
    return GRUU(last.node_id, tags[0] if tags else b"")
