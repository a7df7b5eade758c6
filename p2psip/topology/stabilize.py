"""Finding the neighbors that a peer should have (RFC 6940 §10.6, §10.7.1, §10.7.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall

from ..errors import InProgress, RequestTimeout
from ..ids import NodeId
from ..wire.header import NodeDestination
from ..wire.methods import RouteQueryReq
from .membership import EXPECTED, Heard, Membership, via

MOST_AT_ONCE = 8
"""How many candidates are attached to at once."""

MOST_REMEMBERED = 256
"""How many candidates, and how many nodes to be left in peace, are remembered."""

GRACE = 1.0
"""Seconds within which a node that is connected sends its Update by itself, if it is a peer."""

PATIENCE = 4.0
"""Seconds to wait for an Update that was asked for."""

ASK_AGAIN = 15.0
"""Seconds between two requests for the lists of one neighbor."""

AFTER_LOSS = 5.0
"""Seconds for which a peer whose link was lost is not sought: others may list it until they notice, too."""

AFTER_LEAVE = 30.0
AFTER_FAILURE = 15.0
"""Seconds for which a node is left alone when it could not be reached; doubled each time."""

LONGEST = 600.0


@dataclass(slots=True)
class _Attempt:
    """An Attach on its way."""

    namer: NodeId
    began: float
    attaching: Deferred[NodeId] | None = None


class Repair:
    """Attaches to the peers that belong into the Neighbor Table, as far as the neighbors know them.

    The neighbors' last lists are all it needs: a peer that is lost is replaced out of the lists of those that
    remain.  An Attach is source-routed through the peer that named the candidate (§10.6).  A candidate
    becomes a member by its own Update alone.  Nodes that cannot be reached are left alone for a while, longer
    each time.
    """

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._clock = membership.host.clock
        self._hints: dict[NodeId, NodeId] = {}
        self._busy: dict[NodeId, _Attempt] = {}
        self._shunned: dict[NodeId, tuple[float, float]] = {}
        self._asked: dict[NodeId, float] = {}
        self._awaited: dict[NodeId, list[Deferred[None]]] = {}
        self._settled: list[Deferred[None]] = []
        self._later: IDelayedCall | None = None
        self.enabled = True

    # -- What happened -------------------------------------------------------------------------------

    def heard_from(self, node_id: NodeId, lists: Heard | None) -> None:
        """A member sent an Update: it is alive, and may have named peers that we lack."""
        self._shunned.pop(node_id, None)
        self._hints.pop(node_id, None)
        for waiting in self._awaited.pop(node_id, ()):
            waiting.callback(None)
        if lists is not None and self._membership.table.would_change((*lists.predecessors, *lists.successors)):
            self.look()

    def hint(self, nodes: Iterable[NodeId], namer: NodeId) -> None:
        """`namer`, which need not be a member, named peers."""
        for node_id in nodes:
            if len(self._hints) >= MOST_REMEMBERED:
                self._hints.pop(next(iter(self._hints)))
            self._hints[node_id] = namer
        self.look()

    def shun(self, node_id: NodeId, seconds: float) -> None:
        """Leave a node alone for a while, unless it comes by itself."""
        if len(self._shunned) >= MOST_REMEMBERED and node_id not in self._shunned:
            self._shunned.pop(next(iter(self._shunned)))
        self._shunned[node_id] = (self._clock.seconds() + seconds, seconds)

    def ask(self, node_id: NodeId, again: bool = False) -> None:
        """Ask a connected node for its Update: not too often, unless `again`."""
        now = self._clock.seconds()
        if not again and now - self._asked.get(node_id, -ASK_AGAIN) < ASK_AGAIN:
            return
        if len(self._asked) >= MOST_REMEMBERED:
            self._asked.pop(next(iter(self._asked)))
        self._asked[node_id] = now
        self._membership.start(self._ask(node_id))

    async def _ask(self, node_id: NodeId) -> None:
        destination = NodeDestination(node_id=self._membership.me)
        try:
            await self._membership.host.request(
                via(node_id), RouteQueryReq(send_update=True, destination=destination)
            )
        except EXPECTED:
            pass

    # -- Looking for better neighbors ----------------------------------------------------------------

    def look(self) -> None:
        """See whether somebody who is named belongs into the Neighbor Table, and attach to him."""
        membership = self._membership
        if not self.enabled or membership.stopped or membership.leaving:
            return
        namers = self._named()
        if not namers:
            return
        now = self._clock.seconds()
        table = membership.table
        shunned = {node for node in namers if self._shunned.get(node, (0.0, 0.0))[0] > now}
        # Those that are long in coming may be dead: meanwhile somebody else is to take their place.
        slow = {node for node, attempt in self._busy.items() if now - attempt.began >= GRACE}
        for node_id in table.would_change(namers.keys() - shunned - slow):
            if node_id not in self._busy and len(self._busy) < MOST_AT_ONCE:
                self._busy[node_id] = attempt = _Attempt(namers[node_id], now)
                membership.start(self._attach(node_id, attempt))
                self._look_at(now + GRACE)
        if shunned:
            missed = [self._shunned[node][0] for node in table.would_change(namers) if node in shunned]
            if missed:
                self._look_at(min(missed))

    def _named(self) -> dict[NodeId, NodeId]:
        """Everybody who is named but no member, and by whom: by the nearest neighbor, if by several."""
        membership = self._membership
        table, me = membership.table, membership.me
        namers: dict[NodeId, NodeId] = {}
        for namer in table.neighbors():
            lists = membership.heard.get(namer)
            if lists is None:
                self.ask(namer)
                continue
            for node_id in (*lists.predecessors, *lists.successors):
                if node_id not in table and node_id != me:
                    namers.setdefault(node_id, namer)
        for node_id, namer in list(self._hints.items()):
            if node_id in table or node_id == me:
                del self._hints[node_id]
            else:
                namers.setdefault(node_id, namer)
        return namers

    def _look_at(self, when: float) -> None:
        if self._later is not None and self._later.active():
            if self._later.getTime() <= when:
                return
            self._later.cancel()
        self._later = self._clock.callLater(max(0.0, when - self._clock.seconds()) + 0.001, self.look)

    async def _attach(self, node_id: NodeId, attempt: _Attempt) -> None:
        membership, namer = self._membership, attempt.namer
        before = self._shunned.get(node_id, (0.0, 0.0))[1]
        pause = min(LONGEST, max(AFTER_FAILURE, 2 * before))
        try:
            if membership.connected(node_id):
                await self._known_peer(node_id)
            else:
                known = namer != node_id and membership.connected(namer)
                route = via(namer, node_id) if known else via(node_id)
                attempt.attaching = membership.host.connections.attach(route, send_update=True)
                await attempt.attaching
                await self.update_from(node_id, PATIENCE)
        except InProgress:
            self.shun(node_id, GRACE)  # it attaches to us at this moment
        except CancelledError:
            if membership.stopped:
                raise
            # The namer is gone: at once over somebody else.
            if self._hints.get(node_id) == namer:
                self._hints[node_id] = node_id
        except EXPECTED:
            self.shun(node_id, pause if namer in membership.table else GRACE)
            if self._hints.get(node_id) == namer:
                del self._hints[node_id]
        finally:
            del self._busy[node_id]
            self.look()
            if not self._busy:
                settled, self._settled = self._settled, []
                for waiting in settled:
                    waiting.callback(None)

    def link_closed(self, node_id: NodeId) -> None:
        """What was on its way through a node that is gone is tried another way."""
        for attempt in list(self._busy.values()):
            if attempt.namer == node_id and attempt.attaching is not None and not attempt.attaching.called:
                attempt.attaching.cancel()

    async def _known_peer(self, node_id: NodeId) -> None:
        """Wait for the Update of a node that is connected already; ask for it if it does not come."""
        try:
            await self.update_from(node_id, GRACE)
        except EXPECTED:
            self.ask(node_id, again=True)
            await self.update_from(node_id, PATIENCE)

    def update_from(self, node_id: NodeId, seconds: float, fresh: bool = False) -> Deferred[None]:
        """Fires when a node is a member, with `fresh` at its next Update, or fails with RequestTimeout."""
        waiting: Deferred[None] = Deferred()
        if node_id in self._membership.table and not fresh:
            waiting.callback(None)
            return waiting
        self._awaited.setdefault(node_id, []).append(waiting)
        return waiting.addTimeout(seconds, self._clock, lambda result, _: self._not_heard(node_id, waiting))

    def _not_heard(self, node_id: NodeId, waiting: Deferred[None]) -> None:
        others = self._awaited.get(node_id, [])
        if waiting in others:
            others.remove(waiting)
        if not others:
            self._awaited.pop(node_id, None)
        raise RequestTimeout("no Update came")

    def settled(self, seconds: float) -> Deferred[None]:
        """Fires when nobody is being attached to, or after `seconds` at the latest."""
        waiting: Deferred[None] = Deferred()
        if not self._busy:
            waiting.callback(None)
            return waiting
        self._settled.append(waiting)
        return waiting.addTimeout(seconds, self._clock, lambda result, _: self._unsettled(waiting))

    def _unsettled(self, waiting: Deferred[None]) -> None:
        if waiting in self._settled:
            self._settled.remove(waiting)

    def stop(self) -> None:
        """Look no more."""
        self.enabled = False
        if self._later is not None and self._later.active():
            self._later.cancel()
