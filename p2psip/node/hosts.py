"""What a node lends to the parts it is made of: a host for links, for the topology and for usages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ..config.document import Configuration
from ..errors import LinkError
from ..ids import NodeId, ResourceId
from ..interfaces import (
    Answer,
    Extender,
    FetchedValue,
    IApplicationConnection,
    IConnectionTable,
    ILink,
    ILinkHost,
    ILinkOwner,
    ILinkProtocol,
    IOverlay,
    IPathProbe,
    IRelays,
    ISigner,
    ITopologyHost,
    ITopologyPlugin,
    IUsage,
    Stored,
)
from ..security.certificates import PrivateKey
from ..security.identity import Identity
from ..security.trust import Trust
from ..storage.replication import Replication
from ..transport.app_attach import AppAttachments
from ..transport.attach import Attachments
from ..transport.bootstrap import Bootstrap, BootstrapCache
from ..transport.connections import ConnectionTable
from ..transport.dispatch import Dispatch
from ..transport.messaging import Messaging
from ..transport.path_mtu import PathMTUs
from ..wire.codec import Struct
from ..wire.contents import MessageExtension
from ..wire.header import Destination
from ..wire.security import Signature
from .membership import Membership
from .values import Values


class Parts(Protocol):
    """What the hosts below reach of a node: its parts, as `Node` has wired them."""

    configuration: Configuration
    node_id: NodeId
    signer: RenewableSigner
    clock: Any
    random: Random
    table: ConnectionTable
    dispatch: Dispatch
    messaging: Messaging
    path_mtus: PathMTUs
    attachments: Attachments
    app_attachments: AppAttachments
    topology: ITopologyPlugin
    replication: Replication
    membership: Membership
    values: Values
    bootstrap: Bootstrap
    bootstrap_cache: BootstrapCache
    link_protocols: Sequence[ILinkProtocol]
    usages: dict[str, IUsage]

    def count(self, cause: str) -> None:
        """Count something refused."""


@implementer(ISigner)
class RenewableSigner:
    """The node's own identity, whose certificate is renewed from time to time; the Node-ID stays."""

    def __init__(self, signer: ISigner) -> None:
        self._signer = signer

    @property
    def identity(self) -> Identity:
        return self._signer.identity

    @property
    def node_id(self) -> NodeId:
        return self._signer.node_id

    def sign(self, data: bytes) -> Signature:
        return self._signer.sign(data)

    def renew(self, signer: ISigner) -> None:
        """Sign as `signer` from now on; ValueError if it speaks for another Node-ID."""
        if signer.node_id != self.node_id:
            raise ValueError("a renewed certificate has the same Node-ID")
        self._signer = signer


@implementer(ILinkHost)
class LinkHost:
    """What link protocols get."""

    def __init__(self, node: Parts, private_key: PrivateKey, trust: Trust) -> None:
        self._node = node
        self.owner: ILinkOwner = Links(node)
        self.signer: ISigner = node.signer
        self.private_key = private_key
        self.trust = trust
        self.clock: IReactorTime = node.clock
        self.random: Random = node.random

    @property
    def configuration(self) -> Configuration:
        return self._node.configuration

    @property
    def relays(self) -> IRelays | None:
        return next((usage for usage in self._node.usages.values() if IRelays.providedBy(usage)), None)


@implementer(ILinkOwner)
class Links:
    """The door by which bytes come into the node."""

    def __init__(self, node: Parts) -> None:
        self._node = node

    def link_opened(self, link: ILink) -> None:
        if not self._node.configuration.bad_nodes.isdisjoint(link.identity.node_ids):
            self._node.count("link: bad-node")
            link.close(LinkError("its Node-ID was revoked"))
            return
        self._node.bootstrap_cache.met(link, bootstrap=not self._node.topology.joined)
        self._node.table.opened(link)
        if IPathProbe.providedBy(link):
            self._node.path_mtus.opened(link)

    def message_received(self, link: ILink, message: bytes) -> None:
        self._node.table.heard(link)
        self._node.messaging.receive(link.node_id, message)

    def link_failing(self, link: ILink) -> None:
        self._node.table.failing(link)

    def link_recovered(self, link: ILink) -> None:
        self._node.table.recovered(link)

    def link_closed(self, link: ILink, reason: Exception | None) -> None:
        self._node.table.closed(link)
        if IPathProbe.providedBy(link):
            self._node.path_mtus.closed(link)

    def messages_undelivered(self, link: ILink, messages: Sequence[bytes]) -> None:
        self._node.messaging.redirect(link.node_id, messages)

    def link_rejected(self, cause: str, address: str) -> None:
        self._node.count(f"link: {cause}")


@implementer(IConnectionTable)
class Connections:
    """The Connection Table and Attach in one."""

    def __init__(self, node: Parts) -> None:
        self._node = node

    def link_to(self, node_id: NodeId) -> ILink | None:
        return self._node.table.link_to(node_id)

    def connected(self) -> Sequence[NodeId]:
        return self._node.table.connected()

    def attach(
        self, destination_list: Sequence[Destination], send_update: bool = False
    ) -> Deferred[NodeId]:
        return self._node.attachments.attach(destination_list, send_update)


class _Host:
    """What topology and usages alike are lent."""

    def __init__(self, node: Parts) -> None:
        self._node = node
        self.node_id: NodeId = node.node_id
        self.clock: IReactorTime = node.clock
        self.random: Random = node.random

    @property
    def configuration(self) -> Configuration:
        return self._node.configuration

    def request(
        self,
        destination_list: Sequence[Destination],
        body: Struct,
        signer: ISigner | None = None,
        certificates: Sequence[bytes] = (),
        extensions: Sequence[MessageExtension] = (),
    ) -> Deferred[Answer]:
        return self._node.messaging.request(destination_list, body, signer, certificates, extensions)


@implementer(ITopologyHost)
class TopologyHost(_Host):
    """What the Topology Plug-in gets."""

    def __init__(self, node: Parts) -> None:
        super().__init__(node)
        self.connections: IConnectionTable = Connections(node)

    def hand_over(self, joining_peer: NodeId, low: bytes, high: bytes) -> Deferred[None]:
        return self._node.replication.hand_over(joining_peer, low, high)

    def bootstrap_peers(self) -> Deferred[Sequence[NodeId]]:
        return self._node.bootstrap.peers(self.configuration.bootstrap_nodes, self._node.table.links())

    def responsibility_changed(self) -> None:
        node = self._node
        node.replication.responsibility_changed()
        # Whom else we have connected to may be a client, and gone tomorrow.
        node.bootstrap_cache.refresh(filter(node.topology.routes_over, node.table.connected()))

    def lost_overlay(self) -> None:
        self._node.membership.lost_overlay()


@implementer(IOverlay)
class Overlay(_Host):
    """What usages get."""

    def __init__(self, node: Parts) -> None:
        super().__init__(node)
        self.signer: ISigner = node.signer

    @property
    def behind_nat(self) -> bool | None:
        known = [nat for protocol in self._node.link_protocols if (nat := protocol.behind_nat) is not None]
        return any(known) if known else None

    def resource_id(self, name: bytes) -> ResourceId:
        return self._node.topology.resource_id(name)

    def store(
        self,
        name: bytes,
        kind_id: int,
        values: Sequence[Struct],
        lifetime: int,
        signer: ISigner | None = None,
        generation: int = 0,
    ) -> Deferred[Stored]:
        return self._node.values.store(name, kind_id, values, lifetime, signer, generation)

    def fetch(
        self, name: bytes, kind_id: int, keys: Sequence[bytes] = ()
    ) -> Deferred[Sequence[FetchedValue]]:
        return self._node.values.fetch(self.resource_id(name), kind_id, keys)

    def fetch_at(
        self, resource: ResourceId, kind_id: int, keys: Sequence[bytes] = ()
    ) -> Deferred[Sequence[FetchedValue]]:
        return self._node.values.fetch(resource, kind_id, keys)

    def extend_answers(self, extension_type: int, extend: Extender) -> None:
        self._node.dispatch.extenders[extension_type] = extend

    def app_attach(self, node_id: NodeId, application: int) -> Deferred[IApplicationConnection]:
        return self._node.app_attachments.app_attach(node_id, application)

    def count(self, cause: str) -> None:
        self._node.count(cause)


class Routes:
    """What the router asks of topology and Connection Table."""

    def __init__(self, node: Parts) -> None:
        self._node = node

    def is_responsible(self, target: bytes, /) -> bool:
        return self._node.topology.is_responsible(target)

    def next_hop(self, target: bytes, previous_hop: NodeId | None = None, /) -> NodeId | None:
        return self._node.topology.next_hop(target, previous_hop)

    def connected(self, node_id: NodeId, /) -> bool:
        return self._node.table.link_to(node_id) is not None

    def way_in(self) -> NodeId | None:
        if self._node.topology.joined:
            return None
        # Who came to us may be on its way into the overlay by us.
        return next((link.node_id for link in self._node.table.links() if link.outgoing), None)


class Rejected:
    """Counters of what was refused or dropped, by cause; causes beyond a bound go under one name."""

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._counters: dict[str, int] = {}

    def count(self, cause: str) -> None:
        """Count one."""
        if cause not in self._counters and len(self._counters) >= self._most:
            cause = "other"
        self._counters[cause] = self._counters.get(cause, 0) + 1

    def __call__(self) -> Mapping[str, int]:
        return dict(sorted(self._counters.items()))


