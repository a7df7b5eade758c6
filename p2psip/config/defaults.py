"""The configuration of a new overlay."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

from ..ids import NodeId
from .document import Configuration
from .kinds import (
    CERTIFICATE_BY_NODE,
    CERTIFICATE_BY_USER,
    REGISTERED,
    SIP_REGISTRATION,
    TURN_SERVICE,
    Kind,
)

YEAR: Final = 365 * 86400.0

KINDS: Final = tuple(
    REGISTERED[k] for k in (SIP_REGISTRATION, TURN_SERVICE, CERTIFICATE_BY_NODE, CERTIFICATE_BY_USER)
)
"""The Kinds of a new overlay."""

TURN_DENSITY: Final = 10
"""At how many places each TURN server is registered, as if one node in ten had one (RFC 6940 §9).

A peer knows of the places in its own part of the ring and, as a replica, in those of two others. So among eight peers
asked at random (`p2psip.usages.relays`) one knows of a TURN server, in 95 of 100 cases, where one node in eighty has
one; and each costs ten small values.
"""


def default_configuration(
    name: str,
    *,
    root_certificates: Sequence[bytes],
    configuration_signer: NodeId,
    kind_signer: NodeId,
    now: float,
    bootstrap_nodes: Sequence[tuple[str, int]] = (),
    enrollment_servers: Sequence[str] = (),
    lifetime: float = YEAR,
    kinds: Sequence[Kind] = KINDS,
    no_ice: bool = False,
) -> Configuration:
    """The first configuration of the overlay `name`, still to be published (`p2psip.config.accept.publish`).

    It differs from the defaults of RFC 6940 §11.1 in these: messages of up to 16384 bytes, since the records of one
    AOR at many registrars come with all their certificates; a TTL that §13.6.5 wants to be "slightly larger than the
    longest expected path", 30 hops, enough for some millions of peers; a turn-density of
    `TURN_DENSITY`.  `no_ice` is for networks without NATs.
    """
    return Configuration(
        instance_name=name,
        sequence=1,
        expiration=float(int(now + lifetime)),
        root_certificates=tuple(root_certificates),
        enrollment_servers=tuple(enrollment_servers),
        bootstrap_nodes=tuple(bootstrap_nodes),
        turn_density=TURN_DENSITY,
        no_ice=no_ice,
        max_message_size=16384,
        initial_ttl=30,
        kind_signers=(kind_signer,),
        configuration_signers=(configuration_signer,),
        kinds=MappingProxyType({kind.kind_id: kind for kind in kinds}),
    )
