"""CHORD-RELOAD: the overlay algorithm of RFC 6940 §10 at work in one peer."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from hashlib import sha1
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..config.document import Configuration
from ..errors import Forbidden, InvalidMessage, LinkError, NotFound
from ..ids import NodeId, ResourceId, distance, within
from ..interfaces import ITopologyHost, ITopologyPlugin, Request
from ..wire.chord import (
    ChordLeaveData,
    ChordRouteQueryAns,
    ChordUpdate,
    FromPredecessor,
    FromSuccessor,
    Full,
    Neighbors,
)
from ..wire.codec import Struct
from ..wire.codes import ChordUpdateType
from ..wire.errors import DecodeError
from ..wire.header import Destination, NodeDestination, ResourceDestination
from ..wire.methods import LeaveAns, LeaveReq, RouteQueryReq, UpdateAns
from .admission import Admission
from .fingers import FingerSearch
from .interfaces import ISettled
from .join import Joining
from .leave import Leaving
from .membership import Heard, Membership
from .partition import PartitionCheck
from .stabilize import AFTER_LEAVE, AFTER_LOSS, Repair
from .updates import Updates

NODE_ID_LENGTH = 16
"""CHORD-RELOAD knows identifiers of 128 bits only (RFC 6940 §10.2)."""

HOLD_DOWN = 30.0
"""Seconds from the loss of a successor to the making of new replicas (RFC 6940 §10.7.1)."""

DOUBT_AFTER = 10.0
"""Seconds of silence after which another peer's lists may put a neighbor's life in doubt."""

MOST_LISTED = 64
"""How many Node-IDs of a list in an Update are looked at."""


def chord_resource_id(name: bytes) -> ResourceId:
    """The Resource-ID of a Resource Name: the first 128 bits of its SHA-1 (RFC 6940 §10.2)."""
    return ResourceId(sha1(name).digest()[:NODE_ID_LENGTH])


def required_length(configuration: Configuration) -> None:
    """Refuse a configuration whose Node-IDs are not as long as CHORD-RELOAD's.

    :raises ValueError: they are not.
    """
    if configuration.node_id_length != NODE_ID_LENGTH:
        asked = configuration.node_id_length
        raise ValueError(f"CHORD-RELOAD has Node-IDs of 16 bytes; the configuration asks for {asked}")


@implementer(ITopologyPlugin, ISettled)
class Chord:
    """One peer of a CHORD-RELOAD overlay.

    When every other member of the ring is lost, `lost_overlay` is told to the host once; the peer then stays
    `joined`, responsible for everything, so that those who depend on it alone are served on, while `join`
    brings it back (or `found`, where the host may).

    :param neighbors: how many predecessors and successors to have; unless given, that follows the overlay's size.
    """

    log = Logger()

    def __init__(self, host: ITopologyHost, neighbors: int | None = None) -> None:
        required_length(host.configuration)
        self._host = host
        self._membership = membership = Membership(host, self._table_changed, neighbors)
        self._table = membership.table
        self._updates = Updates(membership, self._failed, self._responsibility_changed)
        self._repair = Repair(membership)
        self._fingers = FingerSearch(membership)
        self._joining = Joining(membership, self._repair, self._fingers, self._joined)
        self._admission = Admission(membership, self._admitted)
        self._partition = PartitionCheck(membership, self._met)
        self._leaving = Leaving(membership)
        self._hold_down: IDelayedCall | None = None
        self._former: dict[NodeId, None] = {}
        self._join: Deferred[None] = succeed(None)
        self._leave: Deferred[None] = succeed(None)

    # -- Questions -----------------------------------------------------------------------------------

    @property
    def joined(self) -> bool:
        """Whether this node is part of the overlay now."""
        return self._membership.joined

    def resource_id(self, name: bytes) -> ResourceId:
        """Hash a Resource Name into the overlay's space."""
        return chord_resource_id(name)

    def is_responsible(self, target: bytes) -> bool:
        """Whether this node is the responsible peer of `target`."""
        return self._membership.responsible(target)

    def next_hop(self, target: bytes, previous_hop: NodeId | None = None) -> NodeId | None:
        """The peer to forward to for `target`; None as long as we are no peer.

        What would go back to where it came from goes to the first peer after `target` instead: the previous hop does
        not know it, or does not any more.  If it is dead, as the previous hop may have found out, we shall see now.

        Those who still take us for the peer that we were before we died would get back, through the bootstrap
        node, what they send us.  All that a Joining Node sends is source-routed instead.
        """
        if not self._membership.joined or self._membership.responsible(target):
            return None
        found = self._table.next_hop(target)
        if found is not None and found == previous_hop:
            return self._table.first_after(target)  # the same again where we know nobody else
        return found

    def routes_over(self, node_id: NodeId) -> bool:
        """Whether a node is a neighbor or a finger."""
        routes = self._table.routes()
        place = bisect_left(routes, node_id)
        return place < len(routes) and routes[place] == node_id

    def replica_set(self, resource: ResourceId) -> Sequence[NodeId]:
        """The next two successors; empty when this node is not responsible for `resource`."""
        return self._table.replica_set() if self._membership.responsible(resource) else ()

    def replica_expected(self, resource: ResourceId, sender: NodeId) -> bool:
        """Whether this node should hold a copy of `resource`, and `sender` may bring it (RFC 6940 §7.4.1.1,
        §10.4).

        It may come from any peer known here that lies between the resource and us: one of them is
        responsible.  What is ours may come from every such peer: it was responsible before.  While we join,
        what will be ours comes from the admitting peer.
        """
        me = self._membership.me
        if self._joining.expects_from(sender) and within(resource, sender, me):
            return True
        if not self._membership.joined or sender not in self._table or not self._table.keeps(resource):
            return False
        return self._membership.responsible(resource) or distance(resource, sender) < distance(resource, me)

    def still_keeps(self, resource: ResourceId) -> bool:
        """Whether fewer than three predecessors lie between `resource` and this node (RFC 6940 §10.7.3)."""
        return self._table.keeps(resource)

    def answers_for(self, resource: bytes, signer: NodeId) -> bool:
        """Whether no neighbor is nearer to `resource` than `signer` (RFC 6940 §6.3.4)."""
        return self._table.answers_for(resource, signer)

    def responsible_ppb(self) -> int:
        """The part of the ring that this node is responsible for, in parts per billion."""
        return self._table.responsible_ppb() if self._membership.responsible(self._membership.me) else 0

    def status(self) -> Mapping[str, Any]:
        """Neighbors and fingers, Node-IDs in hex; `members` counts the Routing Table."""
        table = self._table
        return {
            "neighbors": {
                "predecessors": [node.hex() for node in table.predecessors],
                "successors": [node.hex() for node in table.successors],
            },
            "fingers": [node.hex() for node in table.fingers()],
            "members": len(table),
            "responsible_ppb": self.responsible_ppb(),
            "lost": self._membership.lost,
            "updates_sent": self._updates.sent,
        }

    # -- Joining and leaving -------------------------------------------------------------------------

    def join(self) -> Deferred[None]:
        """Become a peer in the order of RFC 6940 §10.5; at once, if we are one already.

        Fails with the RELOADError or LinkError of the last of several attempts, or at once with InProgress.
        """
        joining = self._join = Deferred.fromCoroutine(self._joining.join())
        return joining.addErrback(self._not_joined)

    def _not_joined(self, failure: Failure) -> Failure:
        return Failure(LinkError("stopped")) if failure.check(CancelledError) else failure

    def found(self) -> None:
        """Become the first peer, responsible for everything; or be content with that when all others are
        lost.
        """
        membership = self._membership
        membership.joined = True
        membership.lost = False
        self._begin()
        # Where this overlay was there before, the others may only have been out of reach.
        self._partition.hurry()
        self._updates.announce()

    def _joined(self, admitting: NodeId) -> None:
        """The admitting peer named us its predecessor: the moment of responsibility (RFC 6940 §10.5, step 7).
        """
        membership = self._membership
        membership.joined = True
        membership.lost = False
        membership.adopt(admitting)
        self.log.info("joined the overlay before {admitting}", admitting=admitting.hex())
        self._updates.owe_everyone()
        self._updates.announce()
        self._begin()

    def places(self, everyone: Sequence[NodeId]) -> Sequence[NodeId]:
        """See `ISettled`: the neighbors, and the peer responsible for the start of each finger's interval (§10.5)."""
        return self._membership.places(everyone)

    def settle(self, everyone: Sequence[NodeId]) -> None:
        """See `ISettled`."""
        self._membership.settle(everyone)
        self._begin()

    def _begin(self) -> None:
        self._updates.start()
        self._fingers.start()
        self._partition.start()

    def leave(self) -> Deferred[None]:
        """Hand our data to the successor, then tell the Neighbor Table that we leave (RFC 6940 §10.9)."""
        leaving = self._leave = Deferred.fromCoroutine(self._leaving.leave())
        return leaving.addBoth(self._left)

    def _left(self, result: object) -> None:
        if isinstance(result, Failure) and not result.check(CancelledError):
            self.log.failure("leaving went wrong", failure=result)
        self.stop()

    def stop(self) -> None:
        """Stop every timer, telling nobody.  A stopped plug-in does not start again."""
        self._membership.stop()
        self._join.cancel()
        self._leave.cancel()
        for part in (self._updates, self._repair, self._fingers, self._partition):
            part.stop()
        if self._hold_down is not None and self._hold_down.active():
            self._hold_down.cancel()
        self._hold_down = None

    # -- Requests ------------------------------------------------------------------------------------

    def answer_join(self, request: Request) -> Deferred[Struct]:
        """Answer a Join, and hand the Joining Node its data afterwards."""
        return Deferred.fromCoroutine(self._admission.answer_join(request))

    def _admitted(self, joining: NodeId) -> None:
        """The Joining Node has its data: name it our predecessor, to itself before all others (steps 7 and
        8).
        """
        membership = self._membership
        membership.lost = False
        membership.adopt(joining)
        self._updates.owe_neighbors()
        self._updates.send_now(joining, ChordUpdateType.NEIGHBORS)

    def answer_leave(self, request: Request) -> LeaveAns:
        """Answer a Leave: as if the peer had failed, but its lists are used (RFC 6940 §10.9)."""
        body = request.body
        if not isinstance(body, LeaveReq):
            raise InvalidMessage("not a Leave")
        leaving = body.leaving_peer_id
        if leaving != request.signer.node_id or leaving != request.previous_hop:
            raise Forbidden("a Leave speaks for its signer, over the signer's own link")
        try:
            data = ChordLeaveData.decode(body.overlay_specific_data, self._host.configuration.context)
        except DecodeError as error:
            raise InvalidMessage(f"ChordLeaveData: {error}") from error
        known: Sequence[NodeId] = ()
        if isinstance(data, FromSuccessor):
            known = data.successors
        elif isinstance(data, FromPredecessor):
            known = data.predecessors
        self._former.pop(leaving, None)
        if leaving in self._table:
            self._repair.shun(leaving, AFTER_LEAVE)
            self._membership.drop(leaving)
            self._fingers.lost(leaving)
            self._repair.hint(known[:MOST_LISTED], leaving)
        return LeaveAns()

    def answer_update(self, request: Request) -> UpdateAns:
        """Take note of an Update: of its sender as a member, of those it lists as candidates (RFC 6940
        §10.7.3).
        """
        body, sender = request.body, request.signer.node_id
        if not isinstance(body, ChordUpdate):
            raise InvalidMessage("not an Update of CHORD-RELOAD")
        membership = self._membership
        if sender == membership.me:
            raise Forbidden("an Update of our own")
        if membership.leaving or membership.stopped:
            return UpdateAns()
        # Nothing tells an old Update from a new one but the link that it comes over: by another's, anybody could
        # repeat what the sender once told it.
        if request.previous_hop != sender or not membership.connected(sender):
            self._repair.hint([sender], request.previous_hop)
            return UpdateAns()
        lists = None
        if isinstance(body, Neighbors | Full):
            now = self._host.clock.seconds()
            lists = Heard(body.predecessors[:MOST_LISTED], body.successors[:MOST_LISTED], now)
            membership.heard[sender] = lists
        if self._joining.under_way or not membership.speaks:
            self._joining.updated(sender, body)
        membership.adopt(sender)
        self._repair.heard_from(sender, lists)
        if lists is not None:
            self._compare(sender, lists)
        return UpdateAns()

    def _compare(self, sender: NodeId, lists: Heard) -> None:
        """Check a neighbor of ours that `sender` should know, but does not: maybe it is dead.

        An Update shows it; and if the neighbor lives, it is told of `sender`.
        """
        heard = self._membership.heard
        for node_id in self._table.neighbors():
            last = heard.get(node_id)
            if (last is None or lists.when - last.when > DOUBT_AFTER) and lists.misses(sender, node_id):
                self._updates.owe(node_id, ChordUpdateType.NEIGHBORS)

    def answer_route_query(self, request: Request) -> ChordRouteQueryAns:
        """Say whom we would route to; ourselves for what is ours (RFC 6940 §6.4.2.4, §10.8)."""
        body = request.body
        if not isinstance(body, RouteQueryReq):
            raise InvalidMessage("not a RouteQuery")
        if body.send_update:
            self.update_requested(request.signer.node_id)
        return ChordRouteQueryAns(next_peer=self._next_peer(body.destination))

    def _next_peer(self, destination: Destination) -> NodeId:
        target: bytes
        if isinstance(destination, NodeDestination):
            target = destination.node_id
            if self._membership.connected(destination.node_id):
                return destination.node_id
        elif isinstance(destination, ResourceDestination):
            target = destination.resource_id
        else:
            # What an opaque ID stands for is nobody's business (RFC 6940 §6.4.2.4.1).
            raise Forbidden("an opaque ID is expanded for nobody")
        if len(target) != NODE_ID_LENGTH:
            raise InvalidMessage("CHORD-RELOAD has Resource-IDs of 16 bytes")
        if self._membership.responsible(target):
            return self._membership.me
        found = self.next_hop(target)
        if found is None:
            raise NotFound("no way to there is known")
        return found

    def update_requested(self, node_id: NodeId) -> None:
        """`node_id` attached, or sent a RouteQuery, with send_update: owe it an Update of type full."""
        self._updates.owe(node_id, ChordUpdateType.FULL, asked=True)

    # -- Links ---------------------------------------------------------------------------------------

    def link_opened(self, node_id: NodeId) -> None:
        """A node was connected: it should know that we are a peer; and we want to know so of former members.
        """
        self._updates.owe(node_id, self._updates.kind_for(node_id))
        if node_id in self._former:
            del self._former[node_id]
            self._repair.ask(node_id, again=True)

    def link_recovered(self, node_id: NodeId) -> None:
        """ACKs came again: who was a member is one (RFC 6940 §6.6.3.1).

        Until it answered our questions, we and it would see the ring differently, and send messages in circles.
        """
        if node_id in self._former and self._membership.speaks:
            self._membership.adopt(node_id)
        self.link_opened(node_id)

    def link_closed(self, node_id: NodeId) -> None:
        """The link to a node was lost or is failing: it is no member for now."""
        self._updates.forget(node_id)
        self._joining.link_closed(node_id)
        self._admission.link_closed(node_id)
        self._failed(node_id)
        self._repair.link_closed(node_id)

    def _failed(self, node_id: NodeId) -> None:
        """A member is lost (RFC 6940 §10.7.1, §10.7.2)."""
        if node_id not in self._table or self._membership.stopped:
            return
        if len(self._former) >= MOST_LISTED:
            del self._former[next(iter(self._former))]
        self._former[node_id] = None
        self._repair.shun(node_id, AFTER_LOSS)
        neighbor = node_id in self._table.successors or node_id in self._table.predecessors
        self._membership.drop(node_id)
        self._fingers.lost(node_id)
        if neighbor:
            self._partition.neighbor_lost()

    def _met(self, node_id: NodeId) -> None:
        """A peer of another ring is connected (RFC 6940 §10.7.4.4)."""
        self._updates.owe(node_id, ChordUpdateType.FULL)
        self._repair.ask(node_id, again=True)

    # -- Changes -------------------------------------------------------------------------------------

    def _table_changed(
        self, predecessors: Sequence[NodeId], successors: Sequence[NodeId], lost: bool
    ) -> None:
        """A member came or went; `predecessors` and `successors` were the Neighbor Table before."""
        table, membership = self._table, self._membership
        if (predecessors, successors) == (table.predecessors, table.successors):
            return
        if lost:
            self._repair.look()
        if not membership.joined or membership.leaving or membership.stopped:
            return
        new_range = predecessors[:1] != table.predecessors[:1]
        reactive = self._host.configuration.chord_reactive
        if new_range or (reactive and not lost):
            self._updates.owe_everyone()
        elif reactive:
            self._updates.owe_neighbors()
        if new_range or not lost:
            self._updates.announce()
        elif self._hold_down is None:
            self._hold_down = self._host.clock.callLater(HOLD_DOWN, self._held_down)
        if not len(table) and not membership.lost:
            membership.lost = True
            self.log.warn("every other peer of the overlay is lost")
            self._host.lost_overlay()

    def _held_down(self) -> None:
        self._hold_down = None
        self._responsibility_changed()

    def _responsibility_changed(self) -> None:
        if self._membership.joined and not self._membership.leaving:
            self._host.responsibility_changed()
