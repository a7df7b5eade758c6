"""The configuration document of an Overlay Instance as data (RFC 6940 §11.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha1
from types import MappingProxyType
from typing import Final

from ..ids import NodeId
from ..wire.codec import WireContext
from ..wire.codes import DataModel
from .kinds import Kind, KindBlock

RELOAD_PORT: Final = 6084
"""The port of a bootstrap node whose element names none (RFC 6940 §11.1)."""

SEQUENCE_MODULUS: Final = 65535
"""Sequence numbers are 0 to 65534; 65535 is the wildcard of ConfigUpdate (RFC 6940 §6.3.2.1)."""

CHORD_RELOAD: Final = "CHORD-RELOAD"

CONFIG_NAMESPACE: Final = "urn:ietf:params:xml:ns:p2p:config-base"
CHORD_NAMESPACE: Final = "urn:ietf:params:xml:ns:p2p:config-chord"


class ConfigurationError(Exception):
    """A configuration document that cannot be used; `element` names the part that is to blame."""

    def __init__(self, element: str, text: str) -> None:
        super().__init__(f"{element}: {text}")
        self.element = element


class MalformedDocument(ConfigurationError):
    """The document is not well-formed, or not valid against the grammar, or makes no sense."""


class OverlayNotFound(ConfigurationError):
    """The document holds no configuration of the overlay that was asked for (RFC 6940 §11.2)."""


class ConfigurationExpired(ConfigurationError):
    """The configuration's time has passed."""


class SequenceTooOld(ConfigurationError):
    """The configuration is not newer than the one in use (RFC 6940 §6.5.4.2)."""


class SignatureError(ConfigurationError):
    """A signature that has to be there is missing or wrong, or its maker is not allowed to sign this.

    `cause` is short and for counters.
    """

    def __init__(self, element: str, cause: str, text: str) -> None:
        super().__init__(element, text)
        self.cause = cause


class CannotComply(ConfigurationError):
    """The document is right, but asks for what this node cannot do: it must not join, or must leave."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One ``<configuration>``: an attribute for each element of RFC 6940 §11.1, its default where it is
    absent.

    Certificates are DER, times are seconds since the epoch (`expiration` None: it never ends), intervals are
    seconds but for `overlay_reliability_timer`, which is milliseconds as in the document.
    `self_signed_permitted` is the digest's name ("sha1", "sha256"), or empty.  `turn_density` 0 means that
    there are no TURN servers.

    `shared_secret` is confidential, and so are then `raw` and every document written from this: neither is
    shown by repr.  `extensions` holds the elements of foreign namespaces as (``{namespace}name``, text).

    What signatures cover and are checked by comes with it as received or written: `raw`, the element's bytes;
    `signatures`, a SecurityBlock each; `kind_blocks`; and `inherited`, the namespaces (prefix, name) that the
    element has from ``<overlay>``, which no signature covers.  They are empty for a configuration that was
    put together and not yet written, and do not count when configurations are compared.
    """

    instance_name: str
    sequence: int = 0
    expiration: float | None = None
    topology_plugin: str = CHORD_RELOAD
    node_id_length: int = 16
    root_certificates: tuple[bytes, ...] = field(default=(), repr=False)
    enrollment_servers: tuple[str, ...] = ()
    self_signed_permitted: str = ""
    bootstrap_nodes: tuple[tuple[str, int], ...] = ()
    turn_density: int = 1
    clients_permitted: bool = True
    no_ice: bool = False
    chord_update_interval: int = 600
    chord_ping_interval: int = 3600
    chord_reactive: bool = True
    shared_secret: str = field(default="", repr=False)
    max_message_size: int = 5000
    initial_ttl: int = 100
    overlay_reliability_timer: int = 3000
    overlay_link_protocols: tuple[str, ...] = ("TLS",)
    kind_signers: tuple[NodeId, ...] = ()
    configuration_signers: tuple[NodeId, ...] = ()
    bad_nodes: frozenset[NodeId] = frozenset()
    mandatory_extensions: tuple[str, ...] = ()
    kinds: Mapping[int, Kind] = field(default_factory=lambda: MappingProxyType({}))
    extensions: tuple[tuple[str, str], ...] = ()
    raw: bytes = field(default=b"", repr=False, compare=False)
    signatures: tuple[bytes, ...] = field(default=(), repr=False, compare=False)
    kind_blocks: tuple[KindBlock, ...] = field(default=(), repr=False, compare=False)
    inherited: tuple[tuple[str, str], ...] = field(default=(), repr=False, compare=False)

    @cached_property
    def overlay_hash(self) -> int:
        """The forwarding header's ``overlay``: the lower 32 bits of the name's SHA-1 (RFC 6940 §6.3.2)."""
        return overlay_hash(self.instance_name)

    @cached_property
    def models(self) -> Mapping[int, DataModel]:
        """The data model of each Kind, for the wire."""
        return MappingProxyType({kind_id: kind.data_model for kind_id, kind in self.kinds.items()})

    @cached_property
    def context(self) -> WireContext:
        """What decoding the overlay's messages depends on."""
        return WireContext(node_id_length=self.node_id_length, models=self.models)

    @property
    def confidential(self) -> bool:
        """Whether the document must be kept from strangers: it holds the shared secret (RFC 6940 §14.16)."""
        return bool(self.shared_secret)

    def expired(self, now: float) -> bool:
        """Whether the document's time has passed."""
        return self.expiration is not None and now >= self.expiration


def overlay_hash(name: str) -> int:
    """The lower 32 bits of the SHA-1 of an overlay's name (RFC 6940 §6.3.2)."""
    return int.from_bytes(sha1(name.encode(), usedforsecurity=False).digest()[-4:])


def is_newer(sequence: int, than: int) -> bool:
    """Whether one configuration sequence number is newer than another (RFC 6940 §6.3.2.1).

    After 65534 comes 0; a number is newer if it lies within the next half of the circle.
    """
    return 0 < (sequence - than) % SEQUENCE_MODULUS <= SEQUENCE_MODULUS // 2


def next_sequence(sequence: int) -> int:
    """The sequence number of the configuration after this one."""
    return (sequence + 1) % SEQUENCE_MODULUS
