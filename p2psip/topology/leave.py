"""Ceasing to be a peer (RFC 6940 §10.9)."""

from __future__ import annotations

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from ..ids import NodeId
from ..wire.chord import ChordLeaveData, FromPredecessor, FromSuccessor
from ..wire.methods import LeaveReq
from .membership import EXPECTED, Membership, via

HAND_OVER_WITHIN = 30.0
"""Seconds that a successor is given to take our data; then the next one is tried."""

ANSWERED_WITHIN = 5.0
"""Seconds for the neighbors to answer Leave."""


LINGER = 1.0
"""Seconds that we remain afterwards, to forward."""


class Leaving:
    """Hands on what is ours, then tells the neighbors.

    Until they know, requests for what was ours are forwarded to the successor: it has the data, and over the
    link to it our Leave came first.
    """

    log = Logger()

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    async def leave(self) -> None:
        """Leave; whatever goes wrong, it ends."""
        membership = self._membership
        if not membership.joined or membership.leaving:
            return
        await self._hand_over()
        table = membership.table
        successors, predecessors = table.successors, table.predecessors
        answers = []
        membership.leaving = True
        # The successor first: it must know before it gets what is forwarded to it.  To our predecessors we
        # are a successor: they hear from_succ, also those that are our successors as well (RFC 6940 §10.9).
        for node_id in table.neighbors():
            data: ChordLeaveData
            if node_id in predecessors:
                data = FromSuccessor(successors=successors)
            else:
                data = FromPredecessor(predecessors=predecessors)
            answers.append(Deferred.fromCoroutine(self._tell(node_id, data)))
        await DeferredList(answers, consumeErrors=True)
        if membership.stopped:
            return
        # They attach to one another through us, who named them (RFC 6940 §10.6).
        await membership.sleep(LINGER)
        membership.joined = False

    async def _hand_over(self) -> None:
        membership = self._membership
        clock = membership.host.clock
        for successor in membership.table.successors:
            if successor not in membership.table:
                continue
            low = membership.table.predecessors[0]
            taken = membership.host.hand_over(successor, low, membership.me)
            try:
                await taken.addTimeout(HAND_OVER_WITHIN, clock)
            except EXPECTED as error:
                self.log.info("a successor did not take our data: {error}", error=error)
            else:
                return

    async def _tell(self, node_id: NodeId, data: ChordLeaveData) -> None:
        membership = self._membership
        body = LeaveReq(leaving_peer_id=membership.me, overlay_specific_data=data.encode())
        answered = membership.host.request(via(node_id), body)
        try:
            await answered.addTimeout(ANSWERED_WITHIN, membership.host.clock)
        except EXPECTED:
            pass
