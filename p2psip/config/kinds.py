"""Kinds, and those that IANA keeps (RFC 6940 §7.4.5, §14.6; RFC 7904 §10.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from ..ids import NodeId
from ..wire.codes import DataModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One Kind as an overlay uses it.

    `max_size` is in bytes of one value, `max_count` in values of one Resource-ID; `max_node_multiple` is 0
    unless the access control is NODE-MULTIPLE.  `name` is empty for a Kind out of private space.  `domains` are
    patterns of the domains that writers' user names may have (RFC 7904 §3.4), None for any.  `signer`
    is the Node-ID whose signature stands on its kind-block, None where none was verified.
    """

    kind_id: int
    name: str
    data_model: DataModel
    access_control: str
    max_count: int
    max_size: int
    max_node_multiple: int = 0
    domains: tuple[str, ...] | None = None
    signer: NodeId | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class KindBlock:
    """A Kind as a document defines it, with what its signature covers.

    `raw` is the ``<kind>`` element's bytes, `signature` a SecurityBlock over them.
    """

    kind: Kind
    raw: bytes = field(repr=False)
    signature: bytes = field(repr=False)


SIP_REGISTRATION: Final = 0x1
TURN_SERVICE: Final = 0x2
CERTIFICATE_BY_NODE: Final = 0x3
CERTIFICATE_BY_USER: Final = 0x10

GATEWAY: Final = 0xF0475701
"""Of private space (RFC 6940 §14.6), and this implementation's own."""

REGISTERED: Final = MappingProxyType(
    {
        kind.kind_id: kind
        for kind in (
            Kind(
                kind_id=SIP_REGISTRATION,
                name="SIP-REGISTRATION",
                data_model=DataModel.DICTIONARY,
                access_control="USER-NODE-MATCH",
                max_count=64,
                max_size=1024,
            ),
            Kind(
                kind_id=TURN_SERVICE,
                name="TURN-SERVICE",
                data_model=DataModel.SINGLE,
                access_control="NODE-MULTIPLE",
                max_count=1,
                max_size=64,
                max_node_multiple=20,
            ),
            Kind(
                kind_id=CERTIFICATE_BY_NODE,
                name="CERTIFICATE_BY_NODE",
                data_model=DataModel.ARRAY,
                access_control="NODE-MATCH",
                max_count=4,
                max_size=4096,
            ),
            Kind(
                kind_id=CERTIFICATE_BY_USER,
                name="CERTIFICATE_BY_USER",
                data_model=DataModel.ARRAY,
                access_control="USER-MATCH",
                max_count=64,
                max_size=4096,
            ),
        )
    }
)
"""The Kinds registered with IANA that this implementation knows, with the limits that a new overlay gives
them.

Data model and access control are those of the registration: a document cannot change them (RFC 6940 §11.1).
"""

REGISTERED_BY_NAME: Final = MappingProxyType({kind.name: kind for kind in REGISTERED.values()})

GATEWAYS: Final = Kind(
    kind_id=GATEWAY,
    name="",
    data_model=DataModel.DICTIONARY,
    access_control="USER-NODE-MATCH",
    max_count=16,
    max_size=320,
)
"""The gateways to the telephone network, each under its Node-ID; see `gateway_user_name`.

As many as come in one answer of 16384 bytes, with their certificates.
"""


def gateway_user_name(overlay: str) -> str:
    """The Resource Name of the gateways, and the user name in the certificates that they store with.

    No account and no node can have such a name: theirs are of other domains.
    """
    return f"gateways@services.{overlay}"
