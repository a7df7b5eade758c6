"""What a node tells of itself, as ``p2psip status --json`` prints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..config.document import Configuration
from ..ids import NodeId
from ..interfaces import IApplicationConnection, ILink, ILinkProtocol, IPathProbe, ITopologyPlugin
from ..storage.interfaces import IStorage
from ..transport.app_attach import AppAttachments
from ..transport.connections import ConnectionTable
from ..transport.messaging import Messaging
from ..transport.transactions import Transactions
from .hosts import Rejected


class Observed(Protocol):
    """The parts of a node that its status is about."""

    configuration: Configuration
    node_id: NodeId
    table: ConnectionTable
    messaging: Messaging
    transactions: Transactions
    topology: ITopologyPlugin
    storage: IStorage
    rejected: Rejected
    link_protocols: Sequence[ILinkProtocol]
    app_attachments: AppAttachments


def status_of(node: Observed) -> Mapping[str, Any]:
    """All but user name, role and uptime; Node-IDs in hex, times in milliseconds."""
    topology = node.topology.status()
    return {
        "node_id": node.node_id.hex(),
        "overlay": node.configuration.instance_name,
        "joined": node.topology.joined,
        "sequence": node.configuration.sequence,
        "neighbors": topology["neighbors"],
        "fingers": topology["fingers"],
        "topology": topology,
        "links": [_link(link) for link in node.table.links()],
        "applications": [_application(each) for each in node.app_attachments.connections()],
        "stored": {
            "resources": node.storage.resources,
            "values": node.storage.values,
            "bytes": node.storage.size,
        },
        "listeners": [address for protocol in node.link_protocols for address in protocol.addresses],
        "messages": {
            "delivered": node.messaging.delivered,
            "forwarded": node.messaging.forwarded,
            "redirected": node.messaging.redirected,
            "rtt_ms": _milliseconds(node.transactions.rtt),
        },
        "rejected": node.rejected(),
    }


def _link(link: ILink) -> Mapping[str, Any]:
    return {
        "node_id": link.node_id.hex(),
        "protocol": link.protocol,
        "address": link.address,
        "candidate_pair": link.candidate_pair,
        "rtt_ms": _milliseconds(link.rtt),
        "mtu": link.mtu if IPathProbe.providedBy(link) else None,
    }


def _application(connection: IApplicationConnection) -> Mapping[str, Any]:
    return {
        "node_id": connection.node_id.hex(),
        "application": connection.application,
        "protocol": connection.protocol,
        "address": connection.address,
        "candidate_pair": connection.candidate_pair,
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 1)
