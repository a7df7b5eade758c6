"""What the parts of one CHORD-RELOAD peer share: its Routing Table, what others said, where it stands."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
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
from .ring import RoutingTable

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
        """Whether `node_id` would have to be in these lists of `sender`, but is not."""
        if node_id in self.successors or node_id in self.predecessors or node_id == sender:
            return False
        return bool(self.successors and within(node_id, sender, self.successors[-1])) or bool(
            self.predecessors and within(node_id, self.predecessors[-1], sender)
        )


class Membership:
    """One peer's place in the ring.

    A peer is in the Routing Table (a *member*) when there is a link to it and it sent an Update over the
    link: before that nothing may be routed through it (RFC 6940 §6.5.1).  Updates are only believed about
    their sender; the Node-IDs that they list are nothing but candidates for Attach.

    :ivar joined: we are part of a ring, if only of one peer.
    :ivar lost: we were part of a ring and every member of it is gone.  We go on serving what we have, but
        tell nobody that we are a peer, and have to join again (RFC 6940 §10.7.1).
    :ivar leaving: Leave was sent: nothing is ours any more.
    """

    log = Logger()

    def __init__(self, host: ITopologyHost, changed: Changed) -> None:
        self.host = host
        self.me = host.node_id
        self.table = RoutingTable(host.node_id)
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
        self._changed(predecessors, successors, lost)
        return True

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
