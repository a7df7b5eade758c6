"""A small overlay in memory: the topology plug-ins of many nodes, with a message layer just good enough for
them.

Messages are the wire's own structures, handed from node to node hop by hop in the order in which they were
sent, routed by the plug-ins themselves.  Time is a heap, chance is seeded: a run can be repeated exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count, pairwise
from random import Random
from typing import Any, cast

from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from p2psip.config.document import Configuration
from p2psip.errors import InProgress, LinkError, NotFound, RELOADError, RequestTimeout
from p2psip.ids import NodeId, ResourceId, offset, within
from p2psip.interfaces import (
    Answer,
    IConnectionTable,
    ILink,
    ITopologyHost,
    ITopologyPlugin,
    Request,
    SignedBy,
)
from p2psip.topology.chord import Chord
from p2psip.topology.ring import nearest
from p2psip.wire.chord import ChordUpdate
from p2psip.wire.codec import Struct
from p2psip.wire.fields import opaque8
from p2psip.wire.header import Destination, NodeDestination, ResourceDestination
from p2psip.wire.methods import AttachReqAns, JoinReq, LeaveReq, PingAns, PingReq, RouteQueryReq

MOST_HOPS = 100
TRANSMISSIONS = 5
RELIABILITY_TIMER = 3.0


@implementer(IReactorTime)
class HeapClock:
    """Time that passes when told to, event by event."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, DelayedCall]] = []
        self._number = count()
        self.ran = 0

    def seconds(self) -> float:
        return self.now

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object  # noqa: A002
    ) -> DelayedCall:
        call = DelayedCall(
            self.now + delay, callable, args, kwargs, lambda call: None, self._push, self.seconds
        )
        self._push(call)
        return call

    def _push(self, call: DelayedCall) -> None:
        heappush(self._heap, (call.getTime(), next(self._number), call))

    def getDelayedCalls(self) -> Sequence[DelayedCall]:
        return [call for _, _, call in self._heap if call.active()]

    def advance(self, seconds: float) -> None:
        """Run all that happens within `seconds`."""
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            when, _, call = heappop(self._heap)
            if call.cancelled or call.called:
                continue
            self.now = max(self.now, when)
            call.called = 1
            self.ran += 1
            call.func(*call.args, **call.kw)
        self.now = end


def describe(body: Struct) -> str:
    """A request for people."""
    if isinstance(body, AttachReqAns):
        return "Attach with send_update" if body.send_update else "Attach"
    return type(body).__name__


class Store(Struct):
    """A resource on its way to the peer that is responsible for it."""

    resource: opaque8


class Message:
    """A request on its way."""

    __slots__ = ("body", "destinations", "origin", "path", "transaction")

    def __init__(
        self, origin: Host, transaction: int, destinations: Sequence[Destination], body: Struct
    ) -> None:
        self.origin = origin
        self.transaction = transaction
        self.destinations = list(destinations)
        self.body = body
        self.path = [origin.node_id]


@implementer(ITopologyHost, IConnectionTable)
class Host:
    """One node: what it lends its plug-in, and a Connection Table."""

    def __init__(self, world: World, node_id: NodeId) -> None:
        self.world = world
        self.node_id = node_id
        self.configuration = world.configuration
        self.clock = world.clock
        self.random = Random(node_id)
        self.connections = self
        self.alive = True
        self.outgoing = True
        self.links: dict[NodeId, int] = {}
        self.stored: set[bytes] = set()
        self.handed_over: list[tuple[NodeId, bytes, bytes]] = []
        self.times_lost = 0
        self.times_changed = 0
        self.refused: list[str] = []
        self._attaching: dict[NodeId, None] = {}
        self._waiting: dict[NodeId, list[Deferred[NodeId]]] = {}
        self._answers: dict[tuple[NodeId, int], Deferred[Struct] | Struct | RELOADError] = {}
        self.topology: ITopologyPlugin = world.build(self)

    # -- IConnectionTable ----------------------------------------------------------------------------

    def link_to(self, node_id: NodeId) -> ILink | None:
        return cast(ILink, self) if node_id in self.links else None

    def connected(self) -> Sequence[NodeId]:
        return list(self.links)

    def attach(self, destination_list: Sequence[Destination], send_update: bool = False) -> Deferred[NodeId]:
        return Deferred.fromCoroutine(self._attach(destination_list, send_update))

    async def _attach(self, destination_list: Sequence[Destination], send_update: bool) -> NodeId:
        last = destination_list[-1]
        named = last.node_id if isinstance(last, NodeDestination) else None
        if named is not None:
            if named in self.links and not send_update:
                return named
            self._attaching[named] = None
        try:
            body = AttachReqAns(role=b"passive", candidates=(), send_update=send_update)
            answer = await self.request(destination_list, body)
        finally:
            if named is not None:
                self._attaching.pop(named, None)
        other = answer.signer.node_id
        if other == self.node_id:
            raise LinkError("attached to ourselves")
        if other not in self.links:
            waiting: Deferred[NodeId] = Deferred()
            self._waiting.setdefault(other, []).append(waiting)
            waiting.addTimeout(10, self.clock, lambda result, _: Failure(LinkError("no link came up")))
            await waiting
        return other

    def link_up(self, other: NodeId, number: int) -> None:
        known = other in self.links
        self.links[other] = number
        if not known:
            self.topology.link_opened(other)
        for waiting in self._waiting.pop(other, ()):
            if not waiting.called:
                waiting.callback(other)

    def link_down(self, other: NodeId, number: int | None = None) -> None:
        if self.alive and other in self.links and number in (None, self.links[other]):
            del self.links[other]
            self.topology.link_closed(other)

    # -- IMessaging ----------------------------------------------------------------------------------

    def request(
        self,
        destination_list: Sequence[Destination],
        body: Struct,
        signer: object = None,
        certificates: Sequence[bytes] = (),
        extensions: Sequence[object] = (),
    ) -> Deferred[Answer]:
        answered: Deferred[Answer] = Deferred()
        self.world.note(self, f"{describe(body)} to {self.world.route(destination_list)}")
        self._transmit(Message(self, next(self.world.numbers), destination_list, body), answered, 1)
        return answered

    def _transmit(self, message: Message, answered: Deferred[Answer], transmission: int) -> None:
        if answered.called or not self.alive:
            return
        if transmission > TRANSMISSIONS:
            answered.errback(RequestTimeout("nobody answered"))
            return
        self.world.answers[self.node_id, message.transaction] = answered
        copy = Message(self, message.transaction, message.destinations, message.body)
        self.world.forward(self, copy)
        self.clock.callLater(RELIABILITY_TIMER, self._transmit, message, answered, transmission + 1)

    def answer(self, message: Message) -> None:
        """Answer a request that is for us; a repeated one in the same way as before."""
        key = (message.origin.node_id, message.transaction)
        if key not in self._answers:
            try:
                self._answers[key] = self._answer(message)
            except RELOADError as error:
                self._answers[key] = error
        body_or_later = self._answers[key]
        if isinstance(body_or_later, Deferred):
            later: Deferred[Any] = Deferred()

            def chain(result: Any) -> Any:
                later.callback(result.value if isinstance(result, Failure) else result)
                return result

            body_or_later.addBoth(chain)
            later.addCallback(lambda result: self.world.reply(self, message, result))
            body_or_later.addErrback(lambda failure: failure.trap(RELOADError))
        else:
            self.world.reply(self, message, body_or_later)

    def _answer(self, message: Message) -> Struct | Deferred[Struct]:
        body, origin = message.body, message.origin.node_id
        previous = message.path[-1]
        request = Request(body, SignedBy(cast(Any, None), origin), previous, message.transaction)
        if isinstance(body, ChordUpdate):
            return self.topology.answer_update(request)
        if isinstance(body, JoinReq):
            return self.topology.answer_join(request)
        if isinstance(body, LeaveReq):
            return self.topology.answer_leave(request)
        if isinstance(body, RouteQueryReq):
            return self.topology.answer_route_query(request)
        if isinstance(body, PingReq):
            return PingAns(response_id=1, time=1)
        if isinstance(body, AttachReqAns):
            if origin in self._attaching and self.node_id > origin:
                raise InProgress
            self._attaching.pop(origin, None)
            self.clock.callLater(2 * self.world.latency, self._offered, message.origin, body.send_update)
            return body
        if isinstance(body, Store):
            self.stored.add(body.resource)
            return body
        raise NotFound

    def _offered(self, other: Host, send_update: bool) -> None:
        if self.world.link(self, other) and send_update:
            self.topology.update_requested(other.node_id)

    # -- The rest of ITopologyHost -------------------------------------------------------------------

    def hand_over(self, joining_peer: NodeId, low: bytes, high: bytes) -> Deferred[None]:
        self.handed_over.append((joining_peer, low, high))
        self.world.note(self, f"hands over to {self.world.name(joining_peer)}")
        done: Deferred[None] = Deferred()
        other = self.world.hosts[joining_peer]
        self.clock.callLater(self.world.hand_over_takes, self._handed, other, low, high, done)
        return done

    def _handed(self, other: Host, low: bytes, high: bytes, done: Deferred[None]) -> None:
        if done.called:
            return
        if not other.alive:
            done.errback(RequestTimeout())
            return
        for resource in sorted(self.stored):
            if within(resource, low, high):
                self.copy_to(other, resource)
        done.callback(None)

    def copy_to(self, other: Host, resource: bytes) -> None:
        if other.alive and self.world.reachable(self, other):
            if other.topology.replica_expected(ResourceId(resource), self.node_id):
                other.stored.add(resource)
            else:
                self.refused.append(f"{other.node_id.hex()[:6]} refused {resource.hex()[:6]}")

    def responsibility_changed(self) -> None:
        self.times_changed += 1
        for resource_id in sorted(ResourceId(resource) for resource in self.stored):
            if self.topology.is_responsible(resource_id):
                for node_id in self.topology.replica_set(resource_id):
                    other = self.world.hosts[node_id]
                    self.clock.callLater(self.world.latency, self.copy_to, other, resource_id)
            elif not self.topology.still_keeps(resource_id):
                self.stored.discard(resource_id)
                destination = ResourceDestination(resource_id=resource_id)
                brought = self.request([destination], Store(resource=resource_id))
                brought.addErrback(lambda failure: failure.trap(RELOADError))

    def bootstrap_peers(self) -> Deferred[Sequence[NodeId]]:
        found = [host for host in self.world.bootstraps() if host is not self and self.world.link(self, host)]
        return succeed([host.node_id for host in found])

    def lost_overlay(self) -> None:
        self.times_lost += 1
        if self.world.rejoin:
            self.clock.callLater(self.random.uniform(1, 5), self.start, None)

    # -- For tests -----------------------------------------------------------------------------------

    def neighbors_wanted(self) -> int:
        """How many predecessors, and how many successors, the peer wants to have, by what it makes of the overlay."""
        return cast(Chord, self.topology)._table.neighbors_wanted

    def start(self, bootstrap: Host | None) -> Deferred[None]:
        """Join over `bootstrap` (any bootstrap node if None), again and again if `world.rejoin`."""
        if not self.alive:
            return succeed(None)
        if bootstrap is None or not bootstrap.alive:
            others = [self.world.link(self, host) for host in self.world.bootstraps() if host is not self]
            joining = self.topology.join() if any(others) else fail(LinkError("no bootstrap node"))
        else:
            self.world.link(self, bootstrap)
            joining = self.topology.join()

        def again(failure: Failure) -> None:
            failure.trap(RELOADError, LinkError)
            if self.world.rejoin:
                self.clock.callLater(self.random.uniform(1, 10), self.start, None)

        return joining.addErrback(again)


class World:
    """All nodes, and what lies between them."""

    def __init__(self, seed: int, build: Callable[[Host], ITopologyPlugin], **configuration: Any) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.clock = HeapClock()
        self.build = build
        self.configuration = Configuration(instance_name="example.org", **configuration)
        self.latency = 0.02
        self.hand_over_takes = 0.1
        self.detection = 0.1
        self.rejoin = True
        self.hosts: dict[NodeId, Host] = {}
        self.numbers = count()
        self.answers: dict[tuple[NodeId, int], Deferred[Answer]] = {}
        self.cut: Callable[[NodeId, NodeId], bool] = lambda one, other: False
        self.bootstrap_ids: list[NodeId] = []
        self.messages = 0
        self.too_many_hops = 0
        self.names: dict[NodeId, str] = {}
        self.transcript: list[str] = []

    def name(self, node_id: bytes) -> str:
        """What a test calls a node."""
        return self.names.get(NodeId(node_id), node_id.hex()[:6])

    def route(self, destination_list: Sequence[Destination]) -> str:
        """A Destination List for people: names, and "after NAME" for the resource after a node."""
        steps = []
        for step in destination_list:
            if isinstance(step, NodeDestination):
                steps.append(self.name(step.node_id))
            elif isinstance(step, ResourceDestination):
                before = NodeId(offset(step.resource_id, -1))
                steps.append(f"after {self.name(before)}" if before in self.names else "somewhere")
        return ", ".join(steps)

    def note(self, host: Host, what: str) -> None:
        """Write down what a node does, if it has a name."""
        if host.node_id in self.names:
            self.transcript.append(f"{self.name(host.node_id)}: {what}")

    def node(
        self, node_id: NodeId | None = None, build: Callable[[Host], ITopologyPlugin] | None = None
    ) -> Host:
        """A new node, or one that was dead and starts again with the same Node-ID and nothing else."""
        chosen = node_id or NodeId(self.random.randbytes(16))
        ordinary, self.build = self.build, build or self.build
        host = self.hosts[chosen] = Host(self, chosen)
        self.build = ordinary
        return host

    def bootstraps(self) -> Sequence[Host]:
        return [self.hosts[node_id] for node_id in self.bootstrap_ids if self.hosts[node_id].alive]

    def found(self) -> Host:
        """The first peer."""
        host = self.node()
        self.bootstrap_ids.append(host.node_id)
        host.topology.found()
        return host

    def reachable(self, one: Host, other: Host) -> bool:
        return one.alive and other.alive and not self.cut(one.node_id, other.node_id)

    def link(self, one: Host, other: Host) -> bool:
        """Open a link between two nodes, if that can be."""
        if one is other or not self.reachable(one, other):
            return False
        if one.links.get(other.node_id, -1) == other.links.get(one.node_id, -2):
            number = one.links[other.node_id]
        else:
            number = next(self.numbers)
        one.link_up(other.node_id, number)
        other.link_up(one.node_id, number)
        return True

    def kill(self, host: Host, after: float | None = None) -> None:
        """Let a node die at once; its neighbors' links close after `after` seconds."""
        host.alive = False
        host.topology.stop()
        delay = self.detection if after is None else after
        for other, number in list(host.links.items()):
            self.clock.callLater(delay, self.hosts[other].link_down, host.node_id, number)

    def separate(self, cut: Callable[[NodeId, NodeId], bool]) -> None:
        """Cut the network; links across the cut close on both sides."""
        self.cut = cut
        for host in list(self.hosts.values()):
            for other in list(host.links):
                if cut(host.node_id, other):
                    self.clock.callLater(self.random.uniform(0, 3), host.link_down, other)

    # -- Messages ------------------------------------------------------------------------------------

    def forward(self, host: Host, message: Message) -> None:
        """The Forwarding Layer of `host` (RFC 6940 §6.1)."""
        destinations = message.destinations
        mine = NodeDestination(node_id=host.node_id)
        while len(destinations) > 1 and destinations[0] == mine:
            destinations.pop(0)
        first = destinations[0]
        target: bytes
        if isinstance(first, NodeDestination):
            if first == mine:
                host.answer(message)
                return
            target = first.node_id
        elif isinstance(first, ResourceDestination):
            target = first.resource_id
        if host.link_to(NodeId(target)) is not None and not (
            isinstance(first, ResourceDestination) and host.topology.is_responsible(target)
        ):
            hop: NodeId | None = NodeId(target)
        elif host.topology.is_responsible(target):
            if isinstance(first, ResourceDestination) and len(destinations) == 1:
                host.answer(message)
            return
        else:
            hop = host.topology.next_hop(target, message.path[-1])
        if hop is None or hop not in host.links:
            return
        if len(message.path) > MOST_HOPS:
            self.too_many_hops += 1
            return
        self.messages += 1
        self.clock.callLater(self.latency, self._arrive, host, self.hosts[hop], message)

    def _arrive(self, sender: Host, host: Host, message: Message) -> None:
        if self.reachable(sender, host):
            if sender is not message.origin or len(message.path) > 1:
                message.path.append(sender.node_id)
            self.forward(host, message)

    def reply(self, host: Host, message: Message, result: Struct | RELOADError) -> None:
        self.clock.callLater(self.latency * len(message.path), self._replied, host, message, result)

    def _replied(self, host: Host, message: Message, result: Struct | RELOADError) -> None:
        origin = message.origin
        answered = self.answers.get((origin.node_id, message.transaction))
        along = [*(self.hosts[node_id] for node_id in message.path), host]
        alive = all(self.reachable(one, other) for one, other in pairwise(along))
        if answered is None or answered.called or not alive or self.hosts[origin.node_id] is not origin:
            return
        last = message.destinations[-1]
        believable = not isinstance(last, ResourceDestination) or origin.topology.answers_for(
            last.resource_id, host.node_id
        )
        if isinstance(result, RELOADError):
            answered.errback(result)
        elif believable:
            answered.callback(Answer(result, SignedBy(cast(Any, None), host.node_id), hops=len(message.path)))
        del self.answers[origin.node_id, message.transaction]

    # -- What is true --------------------------------------------------------------------------------

    def peers(self) -> Sequence[Host]:
        return [host for _, host in sorted(self.hosts.items()) if host.alive and host.topology.joined]

    def faults(self, peers: Sequence[Host] | None = None) -> list[str]:
        """Every way in which the Neighbor Tables differ from the one true ring.

        Each has to hold as many as its peer wants to have there, and exactly the nearest ones.
        """
        ring = self.peers() if peers is None else peers
        ids = [host.node_id for host in ring]
        astray = [host for host in self.hosts.values() if host.alive and not host.topology.joined]
        found = [f"{host.node_id.hex()[:6]} has not joined" for host in astray]
        for host in ring:
            neighbors = host.topology.status()["neighbors"]
            nearest_ones = nearest(ids, host.node_id, host.neighbors_wanted())
            for side, true in zip(("predecessors", "successors"), nearest_ones, strict=True):
                if neighbors[side] != [node.hex() for node in true]:
                    has = [node[:6] for node in neighbors[side]]
                    want = [node.hex()[:6] for node in true]
                    found.append(f"{host.node_id.hex()[:6]}: {side} {has}, should be {want}")
        return found

    def until(self, right: Callable[[], bool], most: float, step: float = 0.1) -> float:
        """Let time pass until `right`, but not longer than `most` seconds; answers how long it took."""
        began = self.clock.now
        while not right() and self.clock.now - began < most:
            self.clock.advance(step)
        return self.clock.now - began
