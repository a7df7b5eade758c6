"""What the parts of one CHORD-RELOAD peer share: its Routing Table, what others said, where it stands."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Coroutine, Sequence
from math import log2
from typing import Any, NamedTuple

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import LinkError, NotJoined, RELOADError
from ..ids import NodeId, ResourceId, within
from ..interfaces import ITopologyHost
from ..wire.chord import FromSuccessor
from ..wire.header import Destination, NodeDestination, ResourceDestination
from ..wire.methods import LeaveReq
from .ring import NEIGHBORS, SPARES, RoutingTable, nearest

EXPECTED = (RELOADError, LinkError, NotJoined, defer.TimeoutError, ConnectError, ConnectionClosed)
"""What a request or an Attach may fail with when the other end is dead, gone or unwilling."""


def via(*nodes: NodeId) -> Sequence[Destination]:
    """The Destination List that leads through `nodes` to the last of them."""
    return [NodeDestination(node_id=node) for node in nodes]


def resource(target: bytes, *nodes: NodeId) -> Sequence[Destination]:
    """The Destination List that leads through `nodes` to the peer responsible for `target`."""
    return [*via(*nodes), ResourceDestination(resource_id=ResourceId(target))]


Changed = Callable[[Sequence[NodeId], Sequence[NodeId], bool], None]
"""Told of a change: predecessors and successors before, and whether a member was lost."""


class Heard(NamedTuple):
    """The lists of a peer's last Update that had any, and when it came."""

    predecessors: Sequence[NodeId]
    successors: Sequence[NodeId]
    when: float

    def misses(self, sender: NodeId, node_id: NodeId) -> bool:
        """Whether `node_id` would have to be in these lists of `sender`, but is not.

        The last of a list may be the best of those that `sender` knows so far: between it and the one before there
        may be others.
        """
        after, before = self.successors, self.predecessors
        if node_id in after or node_id in before or node_id == sender:
            return False
        return (len(after) > 1 and within(node_id, sender, after[-2])) or (
            len(before) > 1 and within(node_id, before[-2], sender)
        )


MORE_NEIGHBORS = 2
"""How many predecessors, and how many successors, there are to be beyond log2(N)."""


MOST_NEIGHBORS = 32
"""How many there are at most: as many as a thousand million peers ask for.

Whoever could place many peers next to one of ours would make it believe in a huge overlay.
"""

INERTIA = 0.5
"""How far the estimate of log2(N) has to be off before the Neighbor Table follows: it is drawn from few neighbors."""


def neighbors_for(size: float) -> float:
    """How many predecessors, and how many successors, suit an overlay of `size` peers (RFC 6940 §10.7: O(log(N)))."""
    return min(max(NEIGHBORS, log2(size) + MORE_NEIGHBORS), MOST_NEIGHBORS)


class Membership:
    """One peer's place in the ring.

    The Neighbor Table grows and shrinks with the overlay, by one peer on either side at a time, unless its size is
    given as `neighbors`.

    A peer is in the Routing Table (a *member*) when there is a link to it and it sent an Update over the
    link: before that nothing may be routed through it (RFC 6940 §6.5.1).  Updates are only believed about
    their sender; the Node-IDs that they list are nothing but candidates for Attach.

    :ivar joined: we are part of a ring, if only of one peer.
    :ivar lost: we were part of a ring and every member of it is gone.  We go on serving what we have, but
        tell nobody that we are a peer, and have to join again (RFC 6940 §10.7.1).
    :ivar leaving: Leave was sent: nothing is ours any more.
    """

    log = Logger()

    def __init__(self, host: ITopologyHost, changed: Changed, neighbors: int | None = None) -> None:
        self.host = host
        self.me = host.node_id
        self.table = RoutingTable(host.node_id, neighbors=neighbors or NEIGHBORS)
        self._grows = neighbors is None
        self.heard: dict[NodeId, Heard] = {}
        self.joined = False
        self.lost = False
        self.leaving = False
        self.stopped = False
        self._changed = changed
        self._corrected: dict[NodeId, None] = {}
        self._running: dict[Deferred[None], None] = {}

    @property
    def speaks(self) -> bool:
        """Whether we may tell others that we are a peer (RFC 6940 §10.5: not before we are one)."""
        return self.joined and not self.lost and not self.leaving and not self.stopped

    def connected(self, node_id: NodeId) -> bool:
        """Whether there is a link to a node that is not failing."""
        return self.host.connections.link_to(node_id) is not None

    def ways_in(self) -> Sequence[NodeId]:
        """Those connected that one may join by: whom we connected to, or who has said that it is a peer.

        Who only came to us may be on its way into the overlay by us.
        """
        connections = self.host.connections
        linked = [(node_id, connections.link_to(node_id)) for node_id in connections.connected()]
        return [n for n, link in linked if n in self.heard or (link is not None and link.outgoing)]

    def responsible(self, target: bytes) -> bool:
        """Whether `target` is ours now."""
        return self.joined and not self.leaving and self.table.responsible(target)

    def adopt(self, node_id: NodeId) -> bool:
        """Make a connected peer a member; answers whether it was none."""
        return self._change(self.table.add, node_id, False)

    def drop(self, node_id: NodeId) -> bool:
        """Take a member out, because it is dead, gone or no peer any more; answers whether it was one."""
        self.heard.pop(node_id, None)
        return self._change(self.table.remove, node_id, True)

    def _change(self, how: Callable[[NodeId], bool], node_id: NodeId, lost: bool) -> bool:
        predecessors, successors = self.table.predecessors, self.table.successors
        if not how(node_id):
            return False
        if self._grows:
            self._resize()
        self._changed(predecessors, successors, lost)
        return True

    def _resize(self) -> None:
        """Let the Neighbor Table follow the size of the overlay; a little late downwards, so that it keeps still."""
        table = self.table
        wanted, suitable = table.neighbors_wanted, neighbors_for(table.overlay_size())
        if suitable > wanted + INERTIA and not table.whole_ring():
            table.neighbors_wanted = wanted + 1
        elif suitable < wanted - 1 - INERTIA:
            table.neighbors_wanted = wanted - 1

    def places(self, everyone: Sequence[NodeId]) -> Sequence[NodeId]:
        """Whom of `everyone`, sorted, a peer has in its Routing Table in the end, if nothing changes any more."""
        table = RoutingTable(self.me, neighbors=self._neighbors_among(everyone))
        predecessors, successors = nearest(everyone, self.me, table.neighbors_wanted + SPARES)
        found = dict.fromkeys((*successors, *predecessors))
        if len(found) < len(everyone) - 1:
            for i in range(1, table.finger_index(successors[-1]) + 1):
                first, last = table.finger_interval(i)
                place = bisect_left(everyone, first)
                node_id = everyone[place % len(everyone)]
                if node_id == first or within(node_id, first, last):
                    found[node_id] = None
        return tuple(found)

    def settle(self, everyone: Sequence[NodeId]) -> None:
        """Have whoever is connected for a member, and what each neighbor would have said."""
        wanted = self._neighbors_among(everyone)
        table = self.table
        table.fill(self.host.connections.connected(), wanted)
        now = self.host.clock.seconds()
        for node_id in table.neighbors():
            self.heard[node_id] = Heard(*nearest(everyone, node_id, wanted), now)
        self.joined = True

    def _neighbors_among(self, everyone: Sequence[NodeId]) -> int:
        return round(neighbors_for(len(everyone))) if self._grows else self.table.neighbors_wanted

    def correct(self, node_id: NodeId) -> None:
        """Tell a node that may take us for one that we are no peer: by a Leave without lists."""
        if node_id not in self._corrected and not self.leaving and not self.stopped:
            self._corrected[node_id] = None
            self.start(self._correct(node_id))

    async def _correct(self, node_id: NodeId) -> None:
        nothing = FromSuccessor(successors=()).encode()
        body = LeaveReq(leaving_peer_id=self.me, overlay_specific_data=nothing)
        try:
            await self.host.request(via(node_id), body)
        except EXPECTED:
            pass
        finally:
            del self._corrected[node_id]

    # -- Work in the background ----------------------------------------------------------------------

    def start(self, work: Coroutine[Deferred[Any], Any, None]) -> Deferred[None]:
        """Run `work` until it is done or this peer stops; it deals with the failures that it expects itself.
        """
        running = Deferred.fromCoroutine(work)
        self._running[running] = None
        running.addBoth(self._ended, running)
        return running

    def _ended(self, result: object, running: Deferred[None]) -> None:
        self._running.pop(running, None)
        if isinstance(result, Failure) and not result.check(CancelledError):
            self.log.failure("a task of the topology plug-in failed", failure=result)

    def sleep(self, seconds: float) -> Deferred[None]:
        """Wait."""
        return deferLater(self.host.clock, seconds)

    def stop(self) -> None:
        """End all that runs."""
        self.stopped = True
        for running in list(self._running):
            running.cancel()
