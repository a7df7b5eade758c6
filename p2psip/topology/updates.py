"""Telling others how the ring looks from here: the Updates that a peer sends (RFC 6940 §10.7)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall

from ..errors import RequestTimeout
from ..ids import NodeId
from ..wire.chord import ChordUpdate, Full, Neighbors, PeerReady
from ..wire.codes import ChordUpdateType
from .membership import EXPECTED, Membership, via

GATHER = 0.05
"""Seconds for which reactive Updates are gathered: what changes within is told once."""

GATHER_IN_STORMS = 0.25
"""The same when the last Updates went out less than CALM seconds ago."""

CALM = 1.0

MOST_OWED = 1024
"""To how many nodes an Update may be due at once."""


class Updates:
    """Sends Updates: gathered, and to each node only one at a time.

    While an Update to a node is unanswered nothing more is sent to it; then it is sent what holds by that
    time. A member that does not answer has failed (RFC 6940 §10.7.1: "the failure of some request").

    :param failed: called with a member that did not answer.
    :param responsibility_changed: called when Updates have gone out after `announce`, so that peers know us
        by our Update before they get Stores from us.
    """

    def __init__(
        self,
        membership: Membership,
        failed: Callable[[NodeId], None],
        responsibility_changed: Callable[[], None],
    ) -> None:
        self._membership = membership
        self._clock = membership.host.clock
        self._failed = failed
        self._responsibility_changed = responsibility_changed
        self._owed: dict[NodeId, ChordUpdateType] = {}
        self._unanswered: dict[NodeId, object] = {}
        self._announce = False
        self._flushing: IDelayedCall | None = None
        self._flushed = -CALM
        self._periodic: IDelayedCall | None = None
        self._place = -1
        self._began = self._clock.seconds()
        self.sent = 0

    # -- What is due ---------------------------------------------------------------------------------

    def owe(self, node_id: NodeId, kind: ChordUpdateType, asked: bool = False) -> None:
        """Let an Update of at least `kind` go to a node soon; `asked`: also when we are but a ring of one."""
        membership = self._membership
        if not (membership.speaks or (asked and membership.joined and not membership.leaving)):
            return
        if node_id not in self._owed and len(self._owed) >= MOST_OWED:
            return
        self._owed[node_id] = max(kind, self._owed.get(node_id, kind))
        self._schedule()

    def owe_neighbors(self) -> None:
        """Let an Update go to the Neighbor Table soon."""
        for node_id in self._membership.table.neighbors():
            self.owe(node_id, ChordUpdateType.NEIGHBORS)

    def owe_everyone(self) -> None:
        """Let an Update go to the whole Connection Table soon."""
        for node_id in self._membership.host.connections.connected():
            self.owe(node_id, self.kind_for(node_id))

    def kind_for(self, node_id: NodeId) -> ChordUpdateType:
        """The type of Update that a node gets unasked (RFC 6940 §10.7).

        Nodes that are no members get lists as well: Joining Nodes, and clients, which have to learn from them
        when we are responsible for them no more (§4.2.1).
        """
        table = self._membership.table
        if node_id in table and node_id not in table.successors and node_id not in table.predecessors:
            return ChordUpdateType.PEER_READY
        return ChordUpdateType.NEIGHBORS

    def announce(self) -> None:
        """Say `responsibility_changed` once the Updates that are due have gone out."""
        self._announce = True
        self._schedule()

    def _schedule(self) -> None:
        if self._flushing is None and not self._membership.stopped:
            storm = self._clock.seconds() - self._flushed < CALM
            self._flushing = self._clock.callLater(GATHER_IN_STORMS if storm else GATHER, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        self._flushed = self._clock.seconds()
        owed, self._owed = self._owed, {}
        for node_id, kind in owed.items():
            if node_id in self._unanswered:
                self._owed[node_id] = kind
            elif self._membership.connected(node_id):
                self._membership.start(self._send(node_id, kind))
        if self._announce:
            self._announce = False
            self._responsibility_changed()

    # -- Sending -------------------------------------------------------------------------------------

    def send_now(self, node_id: NodeId, kind: ChordUpdateType) -> None:
        """Send an Update at once, whatever else is on its way; the one that is due goes with it."""
        self._owed.pop(node_id, None)
        self._membership.start(self._send(node_id, kind))

    async def _send(self, node_id: NodeId, kind: ChordUpdateType) -> None:
        self.sent += 1
        this = self._unanswered[node_id] = object()
        try:
            await self._membership.host.request(via(node_id), self._body(kind))
        except RequestTimeout:
            if self._unanswered.get(node_id) is this:
                self._failed(node_id)
        except EXPECTED:
            pass
        finally:
            if self._unanswered.get(node_id) is this:
                self.forget(node_id)
                if node_id in self._owed:
                    self._schedule()

    def forget(self, node_id: NodeId) -> None:
        """The link to a node is gone, and with it the Update that is on its way."""
        self._unanswered.pop(node_id, None)

    def _body(self, kind: ChordUpdateType) -> ChordUpdate:
        table = self._membership.table
        uptime = min(int(self._clock.seconds() - self._began), 0xFFFFFFFF)
        if kind == ChordUpdateType.PEER_READY:
            return PeerReady(uptime=uptime)
        predecessors, successors = table.predecessors, table.successors
        if kind == ChordUpdateType.NEIGHBORS:
            return Neighbors(uptime=uptime, predecessors=predecessors, successors=successors)
        return Full(uptime=uptime, predecessors=predecessors, successors=successors, fingers=table.fingers())

    # -- Periodic Updates ----------------------------------------------------------------------------

    def start(self) -> None:
        """Send every neighbor an Update once in each chord-update-interval (RFC 6940 §10.7.4.1).

        One place of the Neighbor Table after the other, at random offsets: so they never go out all at once.
        """
        if self._periodic is None:
            self._rest()

    def _rest(self) -> None:
        host = self._membership.host
        interval = host.configuration.chord_update_interval / (2 * self._membership.table.neighbors_wanted)
        self._periodic = self._clock.callLater(interval * host.random.uniform(0.75, 1.25), self._next)

    def _next(self) -> None:
        table = self._membership.table
        neighbors = table.neighbors()
        self._place = (self._place + 1) % (2 * table.neighbors_wanted)
        if self._place < len(neighbors):
            self.owe(neighbors[self._place], ChordUpdateType.NEIGHBORS)
        self._rest()

    def stop(self) -> None:
        """Send nothing any more."""
        for call in (self._flushing, self._periodic):
            if call is not None and call.active():
                call.cancel()
        self._flushing = self._periodic = None
        self._owed.clear()
        self._announce = False
