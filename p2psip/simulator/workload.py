"""What users do in a simulated overlay: they look up, store and fetch; and what became of it."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..errors import LinkError, NotFound, RELOADError
from ..ids import NodeId, ResourceId
from ..interfaces import Answer, FetchedValue, Stored
from ..node import Node
from ..wire.header import ResourceDestination
from ..wire.methods import PingReq
from ..wire.storage import DataValue, StoredDataValue
from .overlay import KIND, Overlay

LIFETIME = 86_400
"""Seconds for which values are stored: longer than any run, so that none ends by itself."""


@dataclass(slots=True)
class Value:
    """What a user has stored: the newest that was acknowledged, and one on its way that may have arrived."""

    name: bytes
    resource: ResourceId
    acknowledged: int = 0
    attempted: int = 0

    def content(self, version: int) -> bytes:
        """The value in that version."""
        return b"%s %d" % (self.name, version)

    def version_of(self, data: StoredDataValue) -> int:
        """Which version `data` is; 0 if it is none."""
        if not isinstance(data, DataValue):
            return 0
        name, _, number = data.value.rpartition(b" ")
        return int(number) if name == self.name and number.isdigit() else 0


@dataclass(slots=True)
class Outcomes:
    """What became of the operations of one sort.

    :ivar first: how many were right without a retransmission from end to end: within overlay-reliability-timer.
    :ivar causes: why the others were not right.
    """

    total: int = 0
    right: int = 0
    first: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    hops: array[int] = field(default_factory=lambda: array("H"))
    seconds: array[float] = field(default_factory=lambda: array("d"))
    when: array[float] = field(default_factory=lambda: array("d"))
    """Of those that were right: the overlay hops there, what it took, and when it was begun."""

    @property
    def success_rate(self) -> float:
        """The part that was right."""
        return self.right / self.total if self.total else 1.0

    @property
    def first_rate(self) -> float:
        """The part that was right without retransmission."""
        return self.first / self.total if self.total else 1.0


class Workload:
    """Does one thing after the other at peers drawn at random, and notes what becomes of it.

    What was begun at a node that died meanwhile does not count.

    :param lookups: how many lookups begin in a second (of any Resource-ID: who is responsible for it?), `fetches` and
        `stores` likewise, of the values that were stored first.
    """

    def __init__(self, overlay: Overlay, lookups: float = 0.0, fetches: float = 0.0, stores: float = 0.0) -> None:
        self.overlay = overlay
        self.lookups = Outcomes()
        self.fetches = Outcomes()
        self.stores = Outcomes()
        self.values: list[Value] = []
        self.going = True
        self.under_way = 0
        self._random = overlay.stream("workload")
        self._timer = overlay.configuration.overlay_reliability_timer / 1000
        self._storing: set[bytes] = set()
        for rate, begin in ((lookups, self.look_up), (fetches, self._fetch_some), (stores, self._store_some)):
            if rate > 0:
                self._later(rate, begin)

    def stop(self) -> None:
        """Begin nothing any more."""
        self.going = False

    def _later(self, rate: float, begin: Any) -> None:
        self.overlay.clock.callLater(self._random.expovariate(rate), self._next, rate, begin)

    def _next(self, rate: float, begin: Any) -> None:
        if self.going:
            if self.overlay.ring:
                begin()
            self._later(rate, begin)

    def _node(self) -> Node:
        return self.overlay.nodes[self._random.choice(self.overlay.ring)]

    # -- Lookups -------------------------------------------------------------------------------------

    def look_up(self, node: Node | None = None) -> Deferred[None]:
        """Ask who is responsible for some Resource-ID, by a Ping."""
        node = node or self._node()
        target = self._random.randbytes(16)
        before = self.overlay.responsible(target, node.node_id)
        with self.overlay.traffic.workload():
            asked = node.overlay.request([ResourceDestination(resource_id=ResourceId(target))], PingReq())
        return self._watch(self.lookups, node, asked, lambda answer: self._right_peer(node, target, before, answer))

    def _right_peer(self, node: Node, target: bytes, before: NodeId, answer: Answer) -> int:
        found = answer.signer.node_id
        if found not in (before, self.overlay.responsible(target, node.node_id)):
            raise _WrongError("answered by another peer")
        return 0 if found == node.node_id else answer.hops + 1

    # -- Values --------------------------------------------------------------------------------------

    def create(self, count: int) -> list[Deferred[None]]:
        """Store so many values for the first time."""
        made = []
        for number in range(len(self.values), len(self.values) + count):
            name = f"user{number}@{self.overlay.configuration.instance_name}".encode()
            value = Value(name, self._node().overlay.resource_id(name))
            self.values.append(value)
            made.append(self.store(value))
        return made

    def store(self, value: Value, node: Node | None = None) -> Deferred[None]:
        """Store the next version of a value."""
        node = node or self._node()
        value.attempted += 1
        version = value.attempted
        self._storing.add(value.name)
        signer = self.overlay.user(value.name.decode().partition("@")[0], node)
        with self.overlay.traffic.workload():
            data = [DataValue(exists=True, value=value.content(version))]
            asked = node.overlay.store(value.name, KIND.kind_id, data, LIFETIME, signer=signer)

        def acknowledged(stored: Stored) -> int:
            value.acknowledged = max(value.acknowledged, version)
            return 0

        return self._watch(self.stores, node, asked, acknowledged).addBoth(self._stored, value)

    def _stored(self, result: object, value: Value) -> None:
        self._storing.discard(value.name)

    def _store_some(self) -> None:
        value = self._random.choice(self.values) if self.values else None
        if value is not None and value.name not in self._storing:
            self.store(value)

    def fetch(self, value: Value, node: Node | None = None) -> Deferred[None]:
        """Fetch a value: right is what was acknowledged last, or anything newer."""
        node = node or self._node()
        least = value.acknowledged
        with self.overlay.traffic.workload():
            asked = node.overlay.fetch(value.name, KIND.kind_id)

        def judge(found: Sequence[FetchedValue]) -> int:
            versions = [value.version_of(one.data.value) for one in found]
            if max(versions, default=0) < least:
                raise _WrongError("an old value" if versions else "no value")
            return 0

        return self._watch(self.fetches, node, asked, judge)

    def _fetch_some(self) -> None:
        if self.values:
            self.fetch(self._random.choice(self.values))

    # -- Outcomes ------------------------------------------------------------------------------------

    def _watch(self, outcomes: Outcomes, node: Node, asked: Deferred[Any], judge: Any) -> Deferred[None]:
        began = self.overlay.clock.seconds()
        self.under_way += 1
        watched: Deferred[None] = asked.addCallback(judge).addBoth(self._ended, outcomes, node, began)
        return watched

    def _ended(self, result: int | Failure, outcomes: Outcomes, node: Node, began: float) -> None:
        self.under_way -= 1
        if node.node_id not in self.overlay.nodes:
            return
        took = self.overlay.clock.seconds() - began
        outcomes.total += 1
        if isinstance(result, Failure):
            result.trap(RELOADError, LinkError, _WrongError)
            known = result.check(_WrongError, NotFound)
            outcomes.causes[str(result.value) if known else type(result.value).__name__] += 1
            return
        outcomes.right += 1
        outcomes.first += took < self._timer
        outcomes.hops.append(result)
        outcomes.seconds.append(took)
        outcomes.when.append(began - self.overlay.start)

    def holders(self) -> dict[bytes, set[NodeId]]:
        """Of each value that was acknowledged: which living nodes hold it, or anything newer."""
        by_resource = {value.resource: value for value in self.values if value.acknowledged}
        found: dict[bytes, set[NodeId]] = {value.name: set() for value in by_resource.values()}
        for node_id, node in self.overlay.nodes.items():
            for resource in node.storage.between(bytes(1), bytes(1)):
                value = by_resource.get(resource)
                if value is None:
                    continue
                held = node.storage.held(resource, KIND.kind_id).get(None)
                if held is not None and value.version_of(held.data.value) >= value.acknowledged:
                    found[value.name].add(node_id)
        return found


class _WrongError(Exception):
    """An answer came, but not the right one."""
