"""Topology Plug-ins (RFC 6940 §6.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.plugin import IPlugin
from zope.interface import Attribute, Interface

from .links import IConnectionTable
from .messages import IMessaging, Request

if TYPE_CHECKING:
    from ..config.document import Configuration
    from ..ids import NodeId, ResourceId
    from ..wire.codec import Struct


class ITopologyHost(IMessaging):
    """What a node lends its topology plug-in; the plug-in knows nothing more of it."""

    node_id: NodeId = Attribute("Our own.")
    configuration: Configuration = Attribute("The current configuration document.")
    connections: IConnectionTable = Attribute("The Connection Table.")
    clock: IReactorTime = Attribute("The time.")
    random: Random = Attribute("Chance.")

    def hand_over(joining_peer: NodeId, low: bytes, high: bytes) -> Deferred[None]:
        """Store to `joining_peer` every resource in (low, high] (RFC 6940 §10.5, step 6).

        Also before a Leave, to who will be responsible.  What comes to be stored there meanwhile goes along.  Fails
        with the error with which that peer could not be reached.
        """

    def bootstrap_peers() -> Deferred[Sequence[NodeId]]:
        """Repeat the discovery of the first join (RFC 6940 §11.4, §10.7.4.4): who of the overlay is there?

        Answers bootstrap nodes, cached or configured, to which there is a link now; best those that may be on
        the other side of a partition, and none where there are none.  Never fails.
        """

    def responsibility_changed() -> None:
        """Neighbors or our span have changed: replicate, and forget what is no longer ours to keep (§10.7.3)."""

    def lost_overlay() -> None:
        """No successor is left: the node has to join again (RFC 6940 §10.7.1)."""


class ITopologyPlugin(Interface):
    """An overlay algorithm at work in one node (RFC 6940 §6.4).

    It is built before there are links, and asked from then on.  Its Update and its answer to RouteQuery have the
    structures of CHORD-RELOAD (`p2psip.wire.chord`): no others are read from the wire as yet.
    """

    joined: bool = Attribute("Whether this node is part of the overlay now.")

    def resource_id(name: bytes) -> ResourceId:
        """Hash a Resource Name into the overlay's space."""

    def is_responsible(target: bytes) -> bool:
        """Whether this node is the responsible peer of `target` (a Resource-ID or a Node-ID)."""

    def next_hop(target: bytes, previous_hop: NodeId | None = None) -> NodeId | None:
        """The neighbor to forward to for `target`, rather not back to `previous_hop`; None if ours, or nobody."""

    def routes_over(node_id: NodeId) -> bool:
        """Whether the link to `node_id` is needed to route messages: it is a neighbor or a finger."""

    def replica_set(resource: ResourceId) -> Sequence[NodeId]:
        """The other peers that should hold copies of `resource`, when this node is responsible for it."""

    def replica_expected(resource: ResourceId, sender: NodeId) -> bool:
        """Whether this node should hold a copy of `resource`, and `sender` may bring it (RFC 6940 §7.4.1.1)."""

    def still_keeps(resource: ResourceId) -> bool:
        """Whether this node is responsible for `resource` or within its replica set (RFC 6940 §10.7.3)."""

    def answers_for(resource: bytes, signer: NodeId) -> bool:
        """Whether an answer from `signer` for `resource` is believable: nobody nearer is known (§6.3.4)."""

    def join() -> Deferred[None]:
        """Become a peer: a bootstrap link is up.

        Fails with RELOADError or LinkError when that cannot be done now; it is called again, after a pause.
        """

    def found() -> None:
        """Become the first peer of the overlay, responsible for everything; also anew, when all others are lost."""

    def leave() -> Deferred[None]:
        """Cease to be a peer: hand the data on and tell the neighbors.  Never fails."""

    def answer_join(request: Request) -> Struct | Deferred[Struct]:
        """Answer a Join; this and the following raise (or fail with) the RELOADError to answer instead."""

    def answer_leave(request: Request) -> Struct | Deferred[Struct]:
        """Answer a Leave."""

    def answer_update(request: Request) -> Struct | Deferred[Struct]:
        """Answer an Update."""

    def answer_route_query(request: Request) -> Struct | Deferred[Struct]:
        """Answer a RouteQuery."""

    def update_requested(node_id: NodeId) -> None:
        """`node_id` attached with send_update: send it an Update of type full."""

    def responsible_ppb() -> int:
        """The part of the ring that this node is responsible for, in parts per billion (RFC 6940 §6.4.2.5)."""

    def link_opened(node_id: NodeId) -> None:
        """A node was connected."""

    def link_closed(node_id: NodeId) -> None:
        """The link to a node was lost or is failing; the node may be dead."""

    def link_recovered(node_id: NodeId) -> None:
        """The link to a node, told of by `link_closed` since it was failing, is the same and works again."""

    def status() -> Mapping[str, Any]:
        """For `status --json`: at least neighbors {predecessors, successors} and fingers, Node-IDs in hex."""

    def stop() -> None:
        """Stop every timer, telling nobody (after `leave`, or when the process ends at once), for good."""


class ITopologyFactory(IPlugin):
    """What a topology package offers to `twisted.plugin`."""

    name: str = Attribute("The ``topology-plugin`` element's text, such as 'CHORD-RELOAD'.")

    def build(host: ITopologyHost) -> ITopologyPlugin:
        """Make the plug-in of one node.

        :raises ValueError: it cannot support the configuration, such as the length of its Node-IDs.
        """

    def build_client(host: ITopologyHost) -> ITopologyPlugin:
        """Make the same for a client (RFC 6940 §4.2): it is responsible for nothing, and no hop of others."""
