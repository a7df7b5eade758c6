"""The access control policies of RFC 6940 §7.3.

A signer is whoever signed the value, and for an original Store the signer of the StoreReq as well; `permits` is
asked once for each.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.plugin import IPlugin
from zope.interface import implementer

from ..config.domains import admits
from ..config.kinds import Kind
from ..ids import NodeId, ResourceId
from ..interfaces import IAccessPolicy, SignedBy
from ..wire.storage import DictionaryEntry, StoredData

Hash = Callable[[bytes], ResourceId]


def user_matches(signer: SignedBy, resource: ResourceId, kind: Kind, resource_id: Hash) -> bool:
    """Whether the signer's user name hashes to `resource`, and is one that `kind` admits (RFC 7904 §3.4)."""
    name = signer.identity.user_name
    return resource_id(name.encode()) == resource and admits(kind.domains, name)


def multiple_name(node_id: NodeId, i: int) -> bytes:
    """The Resource Name of a node's `i`-th value, ``Node-ID || i`` (RFC 6940 §7.3.4, §9).

    The text leaves the width of i open: it is one byte and counts from 1, as the only width that the RFC gives
    the same number elsewhere (``TurnServer.iteration``).
    """
    return node_id + i.to_bytes(1)


@implementer(IPlugin, IAccessPolicy)
class UserMatch:
    """The signer's user name hashes to the Resource-ID (RFC 6940 §7.3.1)."""

    name = "USER-MATCH"

    def permits(
        self, signer: SignedBy, resource: ResourceId, kind: Kind, value: StoredData, resource_id: Hash
    ) -> bool:
        return user_matches(signer, resource, kind, resource_id)


@implementer(IPlugin, IAccessPolicy)
class NodeMatch:
    """The Node-ID that the signature speaks for hashes to the Resource-ID (RFC 6940 §7.3.2)."""

    name = "NODE-MATCH"

    def permits(
        self, signer: SignedBy, resource: ResourceId, kind: Kind, value: StoredData, resource_id: Hash
    ) -> bool:
        return resource_id(signer.node_id) == resource


@implementer(IPlugin, IAccessPolicy)
class UserNodeMatch:
    """As USER-MATCH, and the dictionary key is the Node-ID that the signature speaks for (RFC 6940 §7.3.3)."""

    name = "USER-NODE-MATCH"

    def permits(
        self, signer: SignedBy, resource: ResourceId, kind: Kind, value: StoredData, resource_id: Hash
    ) -> bool:
        entry = value.value
        return (
            isinstance(entry, DictionaryEntry)
            and entry.key == signer.node_id
            and user_matches(signer, resource, kind, resource_id)
        )


@implementer(IPlugin, IAccessPolicy)
class NodeMultiple:
    """Node-ID || i hashes to the Resource-ID, for an i from 1 to the Kind's maximum (RFC 6940 §7.3.4)."""

    name = "NODE-MULTIPLE"

    def permits(
        self, signer: SignedBy, resource: ResourceId, kind: Kind, value: StoredData, resource_id: Hash
    ) -> bool:
        highest = min(kind.max_node_multiple, 255)
        return any(resource_id(multiple_name(signer.node_id, i)) == resource for i in range(1, highest + 1))
