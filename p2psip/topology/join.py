"""Becoming a peer, as the Joining Node sees it (RFC 6940 §10.5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..errors import InProgress, LinkError, RequestTimeout
from ..ids import NodeId, offset
from ..wire.chord import ChordUpdate, Full, Neighbors
from ..wire.methods import JoinReq
from .fingers import FingerSearch
from .membership import EXPECTED, Membership, resource, via
from .stabilize import Repair

ATTEMPTS = 6
"""How often a join is tried before its Deferred fails."""

PAUSE = 0.5
"""Seconds before the second attempt, chosen at random up to this; doubled each time."""

UPDATE_WITHIN = 15.0
"""Seconds for the admitting peer's Update to come after the Attach."""

NEIGHBORS_WITHIN = 30.0
"""Seconds for the neighbors to be attached to; those that take longer count as absent."""

ADMITTED_WITHIN = 60.0
"""Seconds from JoinAns, or from the last Store of the admitting peer, to the Update that names us
predecessor.
"""


class Joining:
    """Takes the steps of §10.5, again from the start when one fails: the ring changes meanwhile.

    :param joined: called at the moment of responsibility, with the admitting peer.
    """

    log = Logger()

    def __init__(
        self, membership: Membership, repair: Repair, fingers: FingerSearch, joined: Callable[[NodeId], None]
    ) -> None:
        self._membership = membership
        self._repair = repair
        self._fingers = fingers
        self._joined = joined
        self._asked: dict[NodeId, None] = {}
        self._admitted: Deferred[None] = Deferred()
        self._asking: tuple[NodeId, Deferred[Any]] | None = None
        self._watching: IDelayedCall | None = None
        self._stored_to = False
        self.under_way = False

    def done(self) -> bool:
        """Whether there is nothing to join any more."""
        return self._membership.joined and not self._membership.lost

    async def join(self) -> None:
        """Try until we are a peer.

        :raises RELOADError: not now.
        :raises LinkError: no link is up, or those that were are lost.
        """
        if self.under_way:
            raise InProgress("a join is under way")
        if self._membership.stopped:
            raise LinkError("stopped")
        self.under_way = True
        pause = PAUSE
        try:
            for attempt in range(ATTEMPTS):
                if attempt:
                    await self._membership.sleep(pause * self._membership.host.random.uniform(0.5, 1.0))
                    pause *= 2
                if self.done():
                    return
                try:
                    await self._attempt(attempt)
                except EXPECTED as error:
                    self.log.debug("attempt {count} to join failed: {error}", count=attempt + 1, error=error)
                    last = error
                else:
                    return
            if not self.done():
                raise last
        finally:
            self.under_way = False
            self._repair.enabled = True

    async def _attempt(self, attempt: int) -> None:
        membership, repair = self._membership, self._repair
        host, me = membership.host, membership.me
        ways_in = membership.ways_in()
        links = sorted(host.connections.connected(), key=lambda node_id: node_id not in ways_in)
        if not links:
            raise LinkError("there is no link to any node of the overlay")
        bootstrap = links[attempt % len(links)]
        # Whoever remembers us from before we died must not route to us what is meant for the admitting peer.
        membership.correct(bootstrap)
        # What the bootstrap node names is not near us: wait for the admitting peer's lists.
        repair.enabled = membership.lost
        heard_before = dict(membership.heard)
        admitting = await host.connections.attach(resource(offset(me, 1), bootstrap), send_update=True)
        if admitting == me:
            raise LinkError("we were told that we are our own admitting peer")
        if membership.heard.get(admitting) is heard_before.get(admitting):
            await repair.update_from(admitting, UPDATE_WITHIN, fresh=True)
        repair.enabled = True
        repair.look()
        await repair.settled(NEIGHBORS_WITHIN)
        if membership.table.successors:
            # Somebody nearer may have joined meanwhile; then he is the one to admit us.
            admitting = membership.table.successors[0]
        membership.start(self._fingers.fill(admitting))
        await self._ask(admitting)

    async def _ask(self, admitting: NodeId) -> None:
        membership = self._membership
        self._asked[admitting] = None
        self._admitted = Deferred()
        answered = membership.host.request(via(admitting), JoinReq(joining_peer_id=membership.me))
        try:
            self._asking = admitting, answered
            await answered
            self._asking = admitting, self._admitted
            self._watch()
            await self._admitted
        except CancelledError as error:
            if membership.stopped:
                raise
            raise LinkError("the link to the admitting peer was lost") from error
        finally:
            self._asking = None
            if self._watching is not None and self._watching.active():
                self._watching.cancel()

    def _watch(self) -> None:
        """Look after ADMITTED_WITHIN seconds whether anything has come."""
        self._stored_to = False
        self._watching = self._membership.host.clock.callLater(ADMITTED_WITHIN, self._waited)

    def _waited(self) -> None:
        if self._stored_to:
            self._watch()
        else:
            self._admitted.errback(RequestTimeout("the admitting peer did not name us its predecessor"))

    # -- What happens meanwhile ----------------------------------------------------------------------

    def expects_from(self, sender: NodeId) -> bool:
        """Whether `sender` was asked to admit us, and so may hand us data before we are responsible for it.
        """
        self._stored_to = self._stored_to or sender in self._asked
        return sender in self._asked

    def updated(self, sender: NodeId, body: ChordUpdate) -> None:
        """A connected peer sent an Update while we are no peer, or were but lost everyone."""
        if not isinstance(body, Neighbors | Full):
            return
        me = self._membership.me
        if sender in self._asked and me in body.predecessors:
            self._asked.clear()
            self._joined(sender)
            if not self._admitted.called:
                self._admitted.callback(None)
        elif sender not in self._asked and (me in body.predecessors or me in body.successors):
            self._membership.correct(sender)

    def link_closed(self, node_id: NodeId) -> None:
        """If that was the admitting peer, try the next one at once."""
        self._asked.pop(node_id, None)
        if self._asking is not None and self._asking[0] == node_id:
            self._asking[1].cancel()
