"""Copies at other peers: made after every Store, and mended when the ring changes (RFC 6940 §10.4, §10.7.3).

For each resource it is known which other peers hold all that this node holds of it.  Everything follows from
that: what a peer lacks is queued for it; a resource that is not ours any more is compared with what the
responsible peer has (by Stat), completed there, and only then forgotten here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..config.kinds import Kind
from ..errors import (
    DataTooOld,
    GenerationCounterTooLow,
    LinkError,
    NotJoined,
    RELOADError,
    RequestTimeout,
)
from ..ids import NodeId, ResourceId, within
from ..interfaces import Answer, IMessaging, ITopologyPlugin
from ..wire.header import Destination, NodeDestination, ResourceDestination
from ..wire.storage import FetchAns, FetchReq, StatAns, StatReq
from .answers import Changed
from .interfaces import IStorage, StorageError
from .lanes import Job, Lane
from .maintenance import Wanted, everything, lacking, store_requests, take_newer
from .verify import Fetched, FetchVerifier, specifier

ATTEMPTS = 3
"""How often newer values are fetched from a peer that refuses ours, and ours offered again."""

SWEEP_STEP = 256
"""Resources looked at before others get their turn."""

FIRST_RETRY, LAST_RETRY = 2.0, 300.0
"""Seconds before what failed is tried again, doubling from the first to the last."""

AUDIT_INTERVAL, AUDIT_CYCLE = 60.0, 3600.0
"""Every so many seconds a part of what is held is offered again to those who should hold it: all of it in a cycle."""

_WHOLE_RING = bytes(1)


@dataclass(slots=True)
class _Copies:
    """Who else holds all that we hold of one resource."""

    version: int = 0
    """Counts our changes, so that the end of an old transfer is not taken for that of the newest."""
    peers: set[NodeId] = field(default_factory=set)
    ours: bool = False
    """Whether we were responsible when we looked last."""


class Replication:
    """Keeps the copies of one node's resources where they belong.

    `stored` is what `StorageAnswers` tells of accepted Stores.  `most_bytes` says how large the values and
    certificates of one request may be.  `count` is told of everything that failed; it is tried again.  `now`
    answers the seconds since 1970; the clock's own unless given.
    """

    def __init__(
        self,
        storage: IStorage,
        topology: ITopologyPlugin,
        messaging: IMessaging,
        kinds: Callable[[], Mapping[int, Kind]],
        verifier: FetchVerifier,
        clock: IReactorTime,
        random: Random,
        most_bytes: Callable[[], int],
        count: Callable[[str], None] = lambda cause: None,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._storage = storage
        self._topology = topology
        self._messaging = messaging
        self._kinds = kinds
        self._verifier = verifier
        self._clock = clock
        self._random = random
        self._most_bytes = most_bytes
        self._count = count
        self._now = clock.seconds if now is None else now
        self._copies: dict[ResourceId, _Copies] = {}
        self._lanes: dict[NodeId | None, Lane] = {}
        """By peer; None is whoever is responsible."""
        self._handing_over: list[tuple[NodeId, bytes, bytes]] = []
        self._sweep: IDelayedCall | None = None
        self._sweep_again = False
        self._retry: IDelayedCall | None = None
        self._retry_after = FIRST_RETRY
        self._audit: IDelayedCall | None = None
        self._audited: bytes = _WHOLE_RING
        self._audit_due = 0.0
        self._stopped = False

    @property
    def backlog(self) -> int:
        """How many resources are queued for a peer or on their way, counted for each peer."""
        return sum(len(lane) for lane in self._lanes.values())

    # -- What happens -------------------------------------------------------------------------

    def stored(self, resource: ResourceId, changed: Changed, sender: NodeId | None) -> None:
        """A Store was accepted: replicate what it `changed` if `resource` is ours; `sender` has it already."""
        wanted = {kind_id: tuple(keys) for kind_id, keys in changed.items() if keys}
        if not wanted or self._stopped:
            return
        if len(self._copies) > 2 * self._storage.resources + 1024:
            self._forget_expired()
        copies = self._copies.setdefault(resource, _Copies())
        before, copies.peers = copies.peers, set()
        copies.version += 1
        copies.ours = self._topology.is_responsible(resource)
        if sender is not None and (sender in before or self._is_all(resource, wanted)):
            self._has_all(resource, sender, copies.version)
        if not copies.ours:
            return
        for number, peer in enumerate(self._receivers(resource), 1):
            if peer != sender:
                self._queue(peer, Job(resource, wanted if peer in before else None, number))

    def responsibility_changed(self) -> None:
        """Neighbors or our span have changed: look at every resource again, soon."""
        self._retry_after = FIRST_RETRY
        self._start_sweep()
        if self._audit is None:
            self._audit_later()

    def peer_lost(self, peer: NodeId) -> None:
        """The link to `peer` is gone: it may come back without what it held, or not at all."""
        self._end_hand_over(peer)
        lane = self._lanes.pop(peer, None)
        concerned = bool(lane)
        for copies in self._copies.values():
            if peer in copies.peers:
                copies.peers.discard(peer)
                concerned = True
        if lane is not None:
            lane.give_up(LinkError("the link was lost"))
        if concerned:
            self._try_again()

    def hand_over(self, joining_peer: NodeId, low: bytes, high: bytes) -> Deferred[None]:
        """Store to `joining_peer` every resource in (low, high], and meanwhile what is stored there.

        Also for Leave, with the next responsible peer instead of a joining one.  Fires when it has all; fails
        with the error when it cannot be reached.  What it refused stays here and is offered again.  What is
        stored later goes there too until that peer is responsible.
        """
        self._end_hand_over(joining_peer)
        self._handing_over.append((joining_peer, low, high))
        missing = [
            resource
            for resource in self._storage.between(low, high)
            if joining_peer not in self._copies.setdefault(resource, _Copies()).peers
        ]
        brought = self._lane(joining_peer).wait_for(missing)
        for resource in missing:
            if not brought.called:
                self._queue(joining_peer, Job(resource, None, 1))
        return brought

    def stop(self) -> None:
        """Start nothing any more."""
        self._stopped = True
        for call in (self._sweep, self._retry, self._audit):
            if call is not None and call.active():
                call.cancel()
        for lane in list(self._lanes.values()):
            lane.give_up(LinkError("this node is stopping"))

    # -- Which copies are missing -------------------------------------------------------------

    def _start_sweep(self) -> None:
        if self._stopped or not self._topology.joined:
            return
        if self._sweep is not None:
            self._sweep_again = True
            return
        self._storage.expire(self._now())
        ring = self._storage.between(_WHOLE_RING, _WHOLE_RING)
        self._sweep = self._clock.callLater(0, self._sweep_some, ring)

    def _sweep_some(self, ring: Iterator[ResourceId]) -> None:
        step = list(islice(ring, SWEEP_STEP))
        for resource in step:
            self._examine(resource)
        if len(step) == SWEEP_STEP:
            self._sweep = self._clock.callLater(0, self._sweep_some, ring)
            return
        self._sweep = None
        self._forget_expired()
        # A joining peer that is responsible by now is told by the owners themselves.
        self._handing_over = [span for span in self._handing_over if self._topology.is_responsible(span[2])]
        self._lanes = {peer: lane for peer, lane in self._lanes.items() if lane}
        if not self._lanes:
            self._retry_after = FIRST_RETRY
        if self._sweep_again:
            self._sweep_again = False
            self._start_sweep()

    def _forget_expired(self) -> None:
        self._copies = {one: copies for one, copies in self._copies.items() if self._storage.kinds(one)}

    def _examine(self, resource: ResourceId) -> None:
        """Queue `resource` for every peer that should hold it and is not known to."""
        topology = self._topology
        copies = self._copies.setdefault(resource, _Copies())
        responsible = topology.is_responsible(resource)
        if responsible:
            receivers = self._receivers(resource)
            # Peers that have left the replica set are not kept up to date any more.
            copies.peers.intersection_update(receivers)
            for number, peer in enumerate(receivers, 1):
                if peer not in copies.peers:
                    self._queue(peer, Job(resource, None, number))
        else:
            if copies.ours:
                # Those that were our replicas may forget it without our knowing.
                copies.peers.intersection_update(self._joining(resource))
            if not copies.peers or not topology.still_keeps(resource):
                self._queue(None, Job(resource, None, 1))
        copies.ours = responsible

    def _receivers(self, resource: ResourceId) -> Collection[NodeId]:
        """Who should hold copies of a resource that is ours, the replica set first."""
        return dict.fromkeys([*self._topology.replica_set(resource), *self._joining(resource)])

    def _joining(self, resource: ResourceId) -> list[NodeId]:
        return [peer for peer, low, high in self._handing_over if within(resource, low, high)]

    def _is_all(self, resource: ResourceId, wanted: Wanted) -> bool:
        kinds = self._storage.kinds(resource)
        return all(len(self._storage.held(resource, kind)) == len(wanted.get(kind, ())) for kind in kinds)

    def _audit_later(self) -> None:
        if not self._stopped:
            delay = AUDIT_INTERVAL * self._random.uniform(0.5, 1.5)
            self._audit = self._clock.callLater(delay, self._audit_some)

    def _audit_some(self) -> None:
        """Believe of the next part no more that others have it.

        A peer may have lost its copy without our knowing, or forgotten it because it saw the ring otherwise.
        To store the same again costs it no signature.
        """
        self._audit_later()
        if not self._topology.joined:
            return
        # Where little is held, it is not one resource in each interval.
        self._audit_due += self._storage.resources * AUDIT_INTERVAL / AUDIT_CYCLE
        size = int(self._audit_due)
        self._audit_due -= size
        for resource in islice(self._storage.between(self._audited, self._audited), size):
            self._copies.setdefault(resource, _Copies()).peers.clear()
            self._examine(resource)
            self._audited = resource

    def _try_again(self) -> None:
        """Look at every resource again after a while."""
        if self._stopped or (self._retry is not None and self._retry.active()):
            return
        delay = self._retry_after * self._random.uniform(0.5, 1.5)
        self._retry_after = min(2 * self._retry_after, LAST_RETRY)
        self._retry = self._clock.callLater(delay, self._start_sweep)

    def _queue(self, peer: NodeId | None, job: Job) -> None:
        self._lane(peer).add(job)

    def _lane(self, peer: NodeId | None) -> Lane:
        lane = self._lanes.get(peer)
        if lane is None:
            lane = self._lanes[peer] = Lane(partial(self._run, peer))
        return lane

    # -- One resource to one peer -------------------------------------------------------------

    async def _run(self, peer: NodeId | None, job: Job) -> None:
        try:
            if peer is None:
                await self._compare(job)
            else:
                await self._bring(peer, job)
        except (RequestTimeout, LinkError) as error:
            self._failed(peer, "unreachable")
            if peer is not None:
                self._lane(peer).give_up(error)
        except (RELOADError, StorageError, NotJoined) as error:
            self._failed(peer, type(error).__name__)

    def _failed(self, peer: NodeId | None, cause: str) -> None:
        self._count(f"replication {cause}")
        self._end_hand_over(peer)
        self._try_again()

    def _end_hand_over(self, peer: NodeId | None) -> None:
        self._handing_over = [span for span in self._handing_over if span[0] != peer]

    async def _bring(self, peer: NodeId, job: Job) -> None:
        """Store what is wanted to `peer`; where it has newer values, take those first."""
        to: list[Destination] = [NodeDestination(node_id=peer)]
        wanted, attempt = job.wanted, 1
        while True:
            version = self._version(job.resource)
            if wanted is None:
                wanted = self._known_kinds(everything(self._storage, job.resource))
            try:
                await self._send(to, job, wanted)
            except (DataTooOld, GenerationCounterTooLow):
                if attempt == ATTEMPTS:
                    raise
                attempt += 1
                await self._take_newer_from(to, peer, job.resource)
                wanted = None
            else:
                self._has_all(job.resource, peer, version)
                return

    async def _send(self, to: list[Destination], job: Job, wanted: Wanted) -> None:
        requests = store_requests(
            self._storage,
            job.resource,
            wanted,
            job.replica_number,
            self._now(),
            self._most_bytes(),
        )
        for body, certificates in requests:
            await self._messaging.request(to, body, certificates=certificates)

    async def _take_newer_from(self, to: list[Destination], peer: NodeId, resource: ResourceId) -> None:
        """Replace our values by newer ones of `peer` (RFC 6940 §7.4.1.1), and pass those on."""
        fetched: dict[int, Fetched] = {}
        kinds = self._kinds()
        for kind_id in self._known_kinds(everything(self._storage, resource)):
            kind = kinds[kind_id]
            body = FetchReq(resource=resource, specifiers=(specifier(kind),))
            answer = await self._messaging.request(to, body)
            if isinstance(answer.body, FetchAns):
                fetched[kind_id] = self._verifier.read(answer.body, answer.certificates, resource, kind)
        changed = take_newer(self._storage, resource, fetched, self._now())
        await self._storage.durable()
        self.stored(resource, changed, peer)

    async def _compare(self, job: Job) -> None:
        """See that the responsible peer has what we hold, before we cease to care or forget it."""
        resource = job.resource
        if self._topology.is_responsible(resource):
            return
        to: list[Destination] = [ResourceDestination(resource_id=resource)]
        version = self._version(resource)
        wanted = self._known_kinds(everything(self._storage, resource))
        if wanted:
            kinds = self._kinds()
            specifiers = tuple(specifier(kinds[kind_id]) for kind_id in wanted)
            answer = await self._messaging.request(to, StatReq(resource=resource, specifiers=specifiers))
            peer = answer.signer.node_id
            missing = self._missing(answer, resource, wanted)
            if missing:
                await self._bring(peer, Job(resource, missing, job.replica_number))
            else:
                self._has_all(resource, peer, version)
            if peer not in self._copies.setdefault(resource, _Copies()).peers:
                self._try_again()  # something was stored here meanwhile
                return
        if self._is_forgettable(resource):
            self._storage.remove(resource)
            self._copies.pop(resource, None)
            await self._storage.durable()

    def _missing(self, answer: Answer, resource: ResourceId, wanted: Wanted) -> Wanted:
        if not isinstance(answer.body, StatAns):
            return wanted
        answered = {response.kind for response in answer.body.kind_responses}
        missing = dict(lacking(self._storage, resource, answer.body))
        missing.update({kind_id: keys for kind_id, keys in wanted.items() if kind_id not in answered})
        return missing

    def _is_forgettable(self, resource: ResourceId) -> bool:
        """RFC 6940 §10.7.3: three predecessors stand between us and the resource."""
        topology = self._topology
        return (
            not self._stopped
            and topology.joined
            and not topology.still_keeps(resource)
        )

    def _known_kinds(self, wanted: Wanted) -> Wanted:
        """Without the Kinds that the configuration has no longer."""
        kinds = self._kinds()
        return {kind_id: keys for kind_id, keys in wanted.items() if kind_id in kinds}

    def _version(self, resource: ResourceId) -> int:
        return self._copies.setdefault(resource, _Copies()).version

    def _has_all(self, resource: ResourceId, peer: NodeId, version: int) -> None:
        copies = self._copies.setdefault(resource, _Copies())
        # Of ours only the receivers are told what changes: whoever else brought or took it may forget it again.
        if copies.version == version and not (copies.ours and peer not in self._receivers(resource)):
            copies.peers.add(peer)
