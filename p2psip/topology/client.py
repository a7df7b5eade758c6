"""A client of a CHORD-RELOAD overlay: no peer, but reachable by its Node-ID (RFC 6940 §4.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from ..errors import Forbidden, InProgress, InvalidMessage, LinkError
from ..ids import NodeId, ResourceId, distance, offset, within
from ..interfaces import ITopologyHost, ITopologyPlugin, Request
from ..wire.chord import ChordUpdate, Full, Neighbors
from ..wire.codec import Struct
from ..wire.methods import LeaveAns, LeaveReq, UpdateAns
from .chord import chord_resource_id, required_length
from .membership import EXPECTED, Heard, Membership, resource, via

ATTEMPTS = 6
PAUSE = 0.5
"""Seconds before the second attempt to attach, doubled each time."""


@implementer(ITopologyPlugin)
class ChordClient:
    """A client attached to the peer that is responsible for its Node-ID, which takes the last step to it.

    It sends neither Join nor Update, and routes all that it has to say over that peer.  By the peer's Updates
    it sees when another one becomes responsible, and attaches to that one (RFC 6940 §4.2.1).

    Who is connected to it is led on over that peer as well, so that nodes can join by way of it: it may be a
    bootstrap node (§11.4).  Of a peer it has lost it looks for the next one by those that have joined by it.
    """

    log = Logger()

    def __init__(self, host: ITopologyHost) -> None:
        required_length(host.configuration)
        self._host = host
        self._membership = Membership(host, lambda predecessors, successors, lost: None)
        self._peer: NodeId | None = None
        self._attaching = False

    # -- Questions -----------------------------------------------------------------------------------

    @property
    def joined(self) -> bool:
        """Whether there is a link to the responsible peer."""
        return self._peer is not None

    def resource_id(self, name: bytes) -> ResourceId:
        """Hash a Resource Name into the overlay's space."""
        return chord_resource_id(name)

    def is_responsible(self, target: bytes) -> bool:
        """Never."""
        return False

    def next_hop(self, target: bytes, previous_hop: NodeId | None = None) -> NodeId | None:
        """Our peer, whatever the target; None without one: others would send in circles what they join by."""
        return self._peer

    def routes_over(self, node_id: NodeId) -> bool:
        """Whether `node_id` is our peer."""
        return node_id == self._peer

    def replica_set(self, resource: ResourceId) -> Sequence[NodeId]:
        """Nobody."""
        return ()

    def replica_expected(self, resource: ResourceId, sender: NodeId) -> bool:
        """Never: a client stores nothing."""
        return False

    def still_keeps(self, resource: ResourceId) -> bool:
        """Never."""
        return False

    def answers_for(self, resource: bytes, signer: NodeId) -> bool:
        """Always: a client has no Neighbor Table to judge by (RFC 6940 §6.3.4)."""
        return True

    def responsible_ppb(self) -> int:
        """Nothing."""
        return 0

    def status(self) -> Mapping[str, Any]:
        """Our peer, as the only successor."""
        peers = [self._peer.hex()] if self._peer is not None else []
        return {"neighbors": {"predecessors": [], "successors": peers}, "fingers": [], "responsible_ppb": 0}

    # -- Attaching -----------------------------------------------------------------------------------

    def join(self) -> Deferred[None]:
        """Attach to the peer responsible for our Node-ID; fails with the last attempt's error."""
        return Deferred.fromCoroutine(self._attach())

    async def _attach(self) -> None:
        if self._attaching:
            raise InProgress("a join is under way")
        self._attaching = True
        host, membership = self._host, self._membership
        pause = PAUSE
        try:
            for attempt in range(ATTEMPTS):
                if attempt:
                    await membership.sleep(pause * host.random.uniform(0.5, 1.0))
                    pause *= 2
                links = membership.ways_in()
                if not links:
                    raise LinkError("there is no link to any node of the overlay")
                bootstrap = links[attempt % len(links)]
                membership.correct(bootstrap)
                try:
                    # Not our own Node-ID: who is connected to us would send that to us (RFC 6940 §10.3).
                    target = resource(offset(membership.me, 1), bootstrap)
                    self._peer = await host.connections.attach(target, send_update=True)
                except EXPECTED as failed:
                    error: Exception = failed
                else:
                    return
            raise error
        finally:
            self._attaching = False

    def found(self) -> None:
        """A client cannot be the first peer."""
        raise ValueError("a client cannot found an overlay")

    def leave(self) -> Deferred[None]:
        """Nobody relies on a client; it just ends."""
        self.stop()
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def stop(self) -> None:
        """Follow nobody any more."""
        self._peer = None
        self._membership.stop()

    # -- Requests ------------------------------------------------------------------------------------

    def answer_join(self, request: Request) -> Struct:
        """Refuse."""
        raise Forbidden("a client admits nobody")

    def answer_route_query(self, request: Request) -> Struct:
        """Refuse."""
        raise Forbidden("nobody routes over a client")

    def answer_leave(self, request: Request) -> Struct:
        """If that is our peer, look for the next."""
        if not isinstance(request.body, LeaveReq):
            raise InvalidMessage("not a Leave")
        if not request.body.leaving_peer_id == request.signer.node_id == request.previous_hop:
            raise Forbidden("a Leave speaks for its signer, over the signer's own link")
        self._membership.heard.pop(request.signer.node_id, None)
        if request.signer.node_id == self._peer:
            self._peer = None
            self._move(None)
        return LeaveAns()

    def answer_update(self, request: Request) -> Struct:
        """See whether our peer is still the one responsible for our Node-ID."""
        body, sender = request.body, request.signer.node_id
        if not isinstance(body, ChordUpdate):
            raise InvalidMessage("not an Update of CHORD-RELOAD")
        # By another's link anybody could repeat what the sender told once.
        if not isinstance(body, Neighbors | Full) or request.previous_hop != sender:
            return UpdateAns()
        me, predecessors = self._membership.me, body.predecessors
        self._membership.heard[sender] = Heard(predecessors, body.successors, self._host.clock.seconds())
        if me in predecessors or me in body.successors:
            self._membership.correct(sender)  # we were a peer when it heard of us last
        elif sender == self._peer and predecessors and not within(me, predecessors[0], sender):
            # The nearest after us of those it names.
            self._move(min(predecessors, key=lambda node: distance(offset(me, 1), node)))
        return UpdateAns()

    def _move(self, node_id: NodeId | None) -> None:
        """Attach to another peer: to `node_id` through the one we have, or to whoever is responsible."""
        if not self._membership.stopped and not self._attaching:
            self._membership.start(self._follow(node_id))

    async def _follow(self, node_id: NodeId | None) -> None:
        try:
            if node_id is not None and self._peer is not None:
                try:
                    route = via(self._peer, node_id)
                    self._peer = await self._host.connections.attach(route, send_update=True)
                except EXPECTED:
                    await self._attach()
            else:
                await self._attach()
        except EXPECTED:
            self._lost()

    def update_requested(self, node_id: NodeId) -> None:
        """A client sends no Updates."""

    def link_opened(self, node_id: NodeId) -> None:
        """Nothing changes by that."""

    def link_recovered(self, node_id: NodeId) -> None:
        """If it was that of our peer, we have another by now."""

    def link_closed(self, node_id: NodeId) -> None:
        """If that was our peer, attach to the next one over whoever is left."""
        self._membership.heard.pop(node_id, None)
        if node_id != self._peer or self._membership.stopped:
            return
        self._peer = None
        if self._membership.ways_in():
            self._move(None)
        else:
            self._lost()

    def _lost(self) -> None:
        if not self._membership.stopped:
            self._peer = None
            self._host.lost_overlay()
