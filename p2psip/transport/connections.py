"""The Connection Table: one link to each node there is a direct connection to (RFC 6940 §6.5.1, §6.1.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..errors import LinkError
from ..ids import NodeId
from ..interfaces import ILink

MAX_OTHERS = 256
"""How many links may be open to nodes that the Topology Plug-in does not route over: clients, above all."""


@dataclass(slots=True, eq=False)
class _Connection:
    """The links to one node: the one in use, and those that are being drained."""

    link: ILink
    opened: float
    heard: float
    draining: dict[ILink, IDelayedCall] = field(default_factory=dict)
    overdue: set[ILink] = field(default_factory=set)
    """Those of the links whose ACKs are overdue."""

    @property
    def failing(self) -> bool:
        return self.link in self.overdue


class ConnectionTable:
    """Which nodes there are open links to.

    A second link to a node is normal (the bootstrap link and the one that Attach makes): the newest is used and the
    older one drained: still heard, and closed when it has been silent for `drain` seconds.  Where the two ends
    opened one each within that time, both keep the one that the larger Node-ID opened, so that they do not close
    each other's.

    `connected` and `disconnected` are told when a node can, and can no longer, be reached over a link of its own; a
    link that is failing counts as none. When it works again, `recovered` is told instead of `connected`. `kept` says
    whether the Topology Plug-in routes over a node: the links to all others are bounded by `limit`, the longest silent
    being closed first.
    """

    def __init__(
        self,
        node_id: NodeId,
        clock: IReactorTime,
        connected: Callable[[NodeId], None],
        disconnected: Callable[[NodeId], None],
        kept: Callable[[NodeId], bool],
        drain: float = 15.0,
        limit: int = MAX_OTHERS,
        recovered: Callable[[NodeId], None] | None = None,
    ) -> None:
        self._node_id = node_id
        self._clock = clock
        self._connected = connected
        self._recovered = recovered or connected
        self._disconnected = disconnected
        self._kept = kept
        self._drain = drain
        self._limit = limit
        self._connections: dict[NodeId, _Connection] = {}
        self._waiting: dict[NodeId, list[Deferred[ILink]]] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def link_to(self, node_id: NodeId) -> ILink | None:
        """The link in use to `node_id`; None if there is none or it is failing."""
        connection = self._connections.get(node_id)
        return connection.link if connection is not None and not connection.failing else None

    def connected(self) -> Sequence[NodeId]:
        """Every node with a link that is not failing."""
        return [node_id for node_id, found in self._connections.items() if not found.failing]

    def links(self) -> Sequence[ILink]:
        """The link in use to each node, failing ones as well."""
        return [connection.link for connection in self._connections.values()]

    def wait_for(self, node_id: NodeId) -> Deferred[ILink]:
        """The link to `node_id`, as soon as there is one; cancel it to wait no longer."""
        link = self.link_to(node_id)
        waiting: Deferred[ILink] = Deferred(lambda given_up: self._give_up(node_id, given_up))
        if link is not None:
            waiting.callback(link)
        else:
            self._waiting.setdefault(node_id, []).append(waiting)
        return waiting

    def _give_up(self, node_id: NodeId, waiting: Deferred[ILink]) -> None:
        others = self._waiting.get(node_id, [])
        if waiting in others:
            others.remove(waiting)
        if not others:
            self._waiting.pop(node_id, None)

    # -- What the links tell ------------------------------------------------------------------------

    def opened(self, link: ILink) -> None:
        """A link is up."""
        now = self._clock.seconds()
        if link.node_id == self._node_id:
            link.close(LinkError("a link of this node to itself"))
            return
        connection = self._connections.get(link.node_id)
        if connection is None:
            self._connections[link.node_id] = _Connection(link, now, now)
            self._connected(link.node_id)
            self._close_idle(link.node_id)
        else:
            recovered = connection.failing
            if self._preferred(connection, link, now):
                connection.link, older = link, connection.link
                connection.opened = connection.heard = now
                self._retire(connection, older)
            else:
                self._retire(connection, link)
            if recovered:
                self._connected(link.node_id)
        for waiting in self._waiting.pop(link.node_id, ()):
            waiting.callback(link)

    def _preferred(self, connection: _Connection, link: ILink, now: float) -> bool:
        """Whether `link` is to be used rather than the one in use."""
        if (
            connection.failing
            or link.outgoing == connection.link.outgoing
            or now - connection.opened > self._drain
        ):
            return True
        return link.outgoing == (self._node_id > link.node_id)

    def _retire(self, connection: _Connection, link: ILink) -> None:
        reason = LinkError("another link to the same node took its place")
        connection.draining[link] = self._clock.callLater(self._drain, link.close, reason)

    def heard(self, link: ILink) -> None:
        """A message came in on `link`."""
        connection = self._connections.get(link.node_id)
        if connection is None:
            return
        connection.heard = self._clock.seconds()
        if link is not connection.link:
            # The other end still uses it: it may have seen other links fail than we have.
            call = connection.draining.get(link)
            if call is not None and call.active():
                call.reset(self._drain)

    def failing(self, link: ILink) -> None:
        """ACKs are overdue on `link` (RFC 6940 §6.6.5)."""
        connection = self._connections.get(link.node_id)
        if connection is None or link in connection.overdue:
            return
        if link is not connection.link and link not in connection.draining:
            return
        connection.overdue.add(link)
        if link is not connection.link:
            return
        if self._resume(connection):
            self._retire(connection, link)
        else:
            self._disconnected(link.node_id)

    def recovered(self, link: ILink) -> None:
        """ACKs came again."""
        connection = self._connections.get(link.node_id)
        if connection is None or link not in connection.overdue:
            return
        was_failing, failed = connection.failing, connection.link
        connection.overdue.discard(link)
        if was_failing:
            if link is not failed and self._resume(connection):
                self._retire(connection, failed)
            self._recovered(link.node_id)

    def closed(self, link: ILink) -> None:
        """A link is gone."""
        connection = self._connections.get(link.node_id)
        if connection is None:
            return
        was_failing = connection.failing
        connection.overdue.discard(link)
        call = connection.draining.pop(link, None)
        if call is not None:
            if call.active():
                call.cancel()
            return
        if connection.link is not link:
            return
        if self._resume(connection):
            if was_failing:
                self._connected(link.node_id)
            return
        del self._connections[link.node_id]
        for draining, call in connection.draining.items():
            if call.active():
                call.cancel()
            draining.close()
        if not was_failing:
            self._disconnected(link.node_id)

    def _resume(self, connection: _Connection) -> bool:
        """Take up a link again that was being drained: its other end may prefer it to the one that is lost."""
        for link, call in list(connection.draining.items()):
            if call.active() and link not in connection.overdue:
                call.cancel()
                del connection.draining[link]
                connection.link = link
                return True
        return False

    # -- Bounds --------------------------------------------------------------------------------------

    def _close_idle(self, newest: NodeId) -> None:
        if len(self._connections) <= self._limit:
            return
        others = [
            (connection.heard, node_id)
            for node_id, connection in self._connections.items()
            if node_id != newest and not self._kept(node_id)
        ]
        if len(others) >= self._limit:
            _, node_id = min(others)
            self.close(node_id, LinkError("silent for longest of too many links"))

    def close(self, node_id: NodeId, reason: Exception | None = None) -> None:
        """Close every link to `node_id`."""
        connection = self._connections.get(node_id)
        if connection is not None:
            for link in [*connection.draining, connection.link]:
                link.close(reason)

    def stop(self) -> None:
        """Close every link."""
        for node_id in list(self._connections):
            self.close(node_id)
        for node_id in list(self._waiting):
            for waiting in list(self._waiting.pop(node_id, ())):
                waiting.errback(LinkError("this node is stopping"))
