"""Admitting a Joining Node, as the admitting peer sees it (RFC 6940 §10.5, steps 5 to 8; §6.4.2.1)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.logger import Logger

from ..errors import Forbidden, InProgress, InvalidMessage, NotFound
from ..ids import NodeId
from ..interfaces import Request
from ..wire.codec import Struct
from ..wire.methods import JoinAns, JoinReq
from .membership import EXPECTED, Membership

MOST_WAITING = 16
"""How many Joining Nodes may wait while another one is handed its data."""

HAND_OVER_WITHIN = 600.0
"""Seconds for all the data to be handed over; the host gives up sooner when nothing is answered."""


class Admission:
    """Admits Joining Nodes one after the other, so that each one knows those who came before it.

    :param admitted: called when the data is handed over, to send the Updates; the Joining Node is our
        predecessor from that moment.
    """

    log = Logger()

    def __init__(self, membership: Membership, admitted: Callable[[NodeId], None]) -> None:
        self._membership = membership
        self._admitted = admitted
        self._one_by_one = DeferredLock()
        self._current: NodeId | None = None
        self._handing_over: Deferred[None] | None = None

    async def answer_join(self, request: Request) -> Struct:
        """Answer a Join; what has to follow the answer is begun."""
        body = request.body
        if not isinstance(body, JoinReq):
            raise InvalidMessage("not a Join")
        joining = body.joining_peer_id
        if joining != request.signer.node_id or joining != request.previous_hop:
            raise Forbidden("a Join speaks for its signer, over the signer's own link")
        if joining == self._membership.me:
            raise Forbidden("this Node-ID is ours")
        self._check(joining)
        if joining == self._current:
            return JoinAns()  # asked again: it is on its way
        if len(self._one_by_one.waiting) >= MOST_WAITING:
            raise InProgress("other nodes are being admitted")
        await self._one_by_one.acquire()
        try:
            self._check(joining)
        except BaseException:
            self._one_by_one.release()
            raise
        # Whoever asks to join is no peer: what we remember is from before it died.
        self._membership.drop(joining)
        self._current = joining
        # After the answer has gone out.
        self._membership.host.clock.callLater(0, self._begin, joining)
        return JoinAns()

    def _check(self, joining: NodeId) -> None:
        membership = self._membership
        if not membership.joined or membership.leaving or membership.stopped:
            raise NotFound("no peer of the overlay")
        if not membership.connected(joining):
            raise NotFound("the link is gone")
        table = membership.table
        if joining in table.predecessors[:1]:
            return  # it was our predecessor and comes back
        if not table.responsible(joining):
            raise NotFound("not responsible for this Node-ID")

    def _begin(self, joining: NodeId) -> None:
        self._membership.start(self._admit(joining))

    async def _admit(self, joining: NodeId) -> None:
        membership = self._membership
        try:
            low = membership.table.predecessors[0] if membership.table.predecessors else membership.me
            self._handing_over = membership.host.hand_over(joining, low, joining)
            await self._handing_over.addTimeout(HAND_OVER_WITHIN, membership.host.clock)
            if membership.connected(joining) and membership.joined and not membership.leaving:
                self._admitted(joining)
        except (*EXPECTED, CancelledError) as error:
            self.log.info("a node was not admitted: {error}", error=error)
            if membership.stopped:
                raise
        finally:
            self._handing_over = self._current = None
            self._one_by_one.release()

    def link_closed(self, node_id: NodeId) -> None:
        """If that was the node being admitted, all stays as it was."""
        if node_id == self._current and self._handing_over is not None:
            self._handing_over.cancel()
