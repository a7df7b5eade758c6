"""The Routing Table of CHORD-RELOAD: what a peer knows of the ring, and what follows from it (RFC 6940
§10.1-§10.4).

Node-IDs of one length order as bytes just as they do as numbers, so that a sorted list of them and bisection
answer every question; the ring's start is nowhere special.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from ..ids import NodeId, distance, offset, within

NEIGHBORS: int = 3
"""How many predecessors and how many successors a peer attempts to have at least (RFC 6940 §10.7)."""

SPARES: int = 1
"""How many more peers there should be a link to on either side.

When a neighbor is lost, the next one is in its place at once, and others are told of both in one Update instead of two.
"""

LEAST_FINGERS: int = 16
"""How many entries the Finger Table has at least (RFC 6940 §10.7.4.3)."""

PARTS_PER_BILLION = 1_000_000_000


def nearest(
    sorted_ids: Sequence[NodeId], me: NodeId, count: int
) -> tuple[tuple[NodeId, ...], tuple[NodeId, ...]]:
    """The `count` predecessors and successors of `me` among `sorted_ids`, each from the nearest; never `me`.
    """
    size = len(sorted_ids)
    here = bisect_left(sorted_ids, me)
    after = here + 1 if here < size and sorted_ids[here] == me else here
    others = size - (after - here)
    count = min(count, others)
    return (
        tuple(sorted_ids[(here - step) % size] for step in range(1, count + 1)),
        tuple(sorted_ids[(after + step) % size] for step in range(count)),
    )


class RoutingTable:
    """Neighbor Table and Finger Table in one, of all the peers that messages may be routed over (RFC 6940 §10.3).

    Both tables are views of its members: the Neighbor Table is the nearest `neighbors_wanted` peers on either side,
    the i'th finger is a peer within its valid interval, if there is one.  So they cannot disagree, and when a peer is
    lost the best of the others is in its place at once (§10.7.1, §10.7.2).  The peer itself is in neither (§10.7.3).
    Messages are routed over the two tables alone; other members wait until they are needed there.

    :ivar me: the peer's own Node-ID.
    :ivar predecessors: the nearest first.
    :ivar successors: the nearest first.
    """

    __slots__ = ("_members", "_neighbors", "_routes", "_sorted", "me", "predecessors", "successors")

    def __init__(self, me: NodeId, members: Iterable[NodeId] = (), neighbors: int = NEIGHBORS) -> None:
        self.me = me
        self._members: set[NodeId] = set()
        self._sorted: list[NodeId] = []
        self._routes: Sequence[NodeId] | None = None
        self.predecessors: tuple[NodeId, ...] = ()
        self.successors: tuple[NodeId, ...] = ()
        self.fill(members, neighbors)

    def _refresh(self) -> None:
        self.predecessors, self.successors = nearest(self._sorted, self.me, self._neighbors)
        self._routes = None

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._members

    def __iter__(self) -> Iterator[NodeId]:
        """Every peer, in ascending order."""
        return iter(self._sorted)

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, node_id: NodeId) -> bool:
        """Enter a peer; answers whether it was new."""
        if node_id == self.me or node_id in self._members:
            return False
        self._members.add(node_id)
        insort(self._sorted, node_id)
        self._refresh()
        return True

    def fill(self, members: Iterable[NodeId], neighbors: int) -> None:
        """Enter many peers at once, and have that many neighbors on either side."""
        self._members.update(members)
        self._members.discard(self.me)
        self._sorted = sorted(self._members)
        self.neighbors_wanted = neighbors

    def remove(self, node_id: NodeId) -> bool:
        """Take a peer out; answers whether it was there."""
        if node_id not in self._members:
            return False
        self._members.remove(node_id)
        del self._sorted[bisect_left(self._sorted, node_id)]
        self._refresh()
        return True

    # -- Neighbors -----------------------------------------------------------------------------------

    @property
    def neighbors_wanted(self) -> int:
        """How many predecessors and how many successors the Neighbor Table holds at most; may be set."""
        return self._neighbors

    @neighbors_wanted.setter
    def neighbors_wanted(self, wanted: int) -> None:
        self._neighbors = wanted
        self._refresh()

    def overlay_size(self) -> float:
        """How many peers the overlay has, estimated from how close the neighbors are; exact where it is all known."""
        if self.whole_ring():
            return len(self._sorted) + 1.0
        span = distance(self.predecessors[-1], self.successors[-1])
        return 2 * self._neighbors * float(1 << (8 * len(self.me))) / span

    def neighbors(self) -> tuple[NodeId, ...]:
        """The Neighbor Table without repetition: successors, then predecessors, each from the nearest."""
        return tuple(dict.fromkeys(self.successors + self.predecessors))

    def whole_ring(self) -> bool:
        """Whether predecessors and successors meet: then the Neighbor Table is the whole overlay."""
        return len(self._sorted) < 2 * self._neighbors

    def would_change(self, candidates: Iterable[NodeId]) -> list[NodeId]:
        """Which of `candidates` would be in the Neighbor Table if all of them could be entered (RFC 6940 §10.7.3), or
        next to it.
        """
        unknown = {node for node in candidates if node not in self._members and node != self.me}
        if not unknown:
            return []
        near = nearest(self._sorted, self.me, self._neighbors + SPARES)
        predecessors, successors = nearest(sorted(unknown.union(*near)), self.me, self._neighbors + SPARES)
        return [node for node in dict.fromkeys(successors + predecessors) if node in unknown]

    # -- Responsibility ------------------------------------------------------------------------------

    def responsible(self, target: bytes) -> bool:
        """Whether `target` lies in (predecessor, me], as the table stands (RFC 6940 §10.1); with no peer, it
        does.
        """
        return not self.predecessors or within(target, self.predecessors[0], self.me)

    def responsible_ppb(self) -> int:
        """The size of (predecessor, me] in parts per billion of the ring (RFC 6940 §6.4.2.5)."""
        if not self.predecessors:
            return PARTS_PER_BILLION
        span = distance(self.predecessors[0], self.me)
        return span * PARTS_PER_BILLION >> (8 * len(self.me))

    def replica_set(self) -> tuple[NodeId, ...]:
        """The next two successors (RFC 6940 §10.4); fewer in an overlay of fewer than three."""
        return self.successors[:2]

    def keeps(self, target: bytes) -> bool:
        """Whether fewer than three predecessors lie between `target` and this peer (RFC 6940 §10.7.3)."""
        return len(self.predecessors) < 3 or within(target, self.predecessors[2], self.me)

    def answers_for(self, target: bytes, signer: NodeId) -> bool:
        """Whether nobody in the Neighbor Table is nearer to `target` than `signer` is (RFC 6940 §6.3.4)."""
        how_far = distance(target, signer)
        return all(how_far <= distance(target, neighbor) for neighbor in self.neighbors())

    # -- Routing -------------------------------------------------------------------------------------

    def routes(self) -> Sequence[NodeId]:
        """Neighbor Table and Finger Table as one, in ascending order: what messages are routed over (RFC 6940 §10.3).
        """
        if self._routes is None:
            self._routes = sorted({*self.predecessors, *self.successors, *self._fingers()})
        return self._routes

    def next_hop(self, target: bytes) -> NodeId | None:
        """The peer to send a message for `target` to, given that it is not ours (RFC 6940 §10.3); None of
        none.

        The peer of that very Node-ID; else the last one before it, if it lies between this peer and `target`;
        else the first one after it.
        """
        routes = self.routes()
        if not routes:
            return None
        place = bisect_left(routes, target)
        if place < len(routes):
            after = routes[place]
            if after == target:
                return after
        else:
            after = routes[0]
        before = routes[place - 1]
        me = self.me
        if me < target:
            between = me < before < target
        else:
            between = before > me or before < target
        return before if between else after

    def first_after(self, target: bytes) -> NodeId | None:
        """The first peer at or after `target` that messages are routed over: responsible for it, by what we know."""
        routes = self.routes()
        return routes[bisect_left(routes, target) % len(routes)] if routes else None

    # -- Fingers -------------------------------------------------------------------------------------

    def finger_interval(self, i: int) -> tuple[bytes, bytes]:
        """The first and the last identifier of the i'th finger's valid interval, i from 1 (§10.7.4.2)."""
        left = 8 * len(self.me) - i
        return offset(self.me, 1 << left), offset(self.me, (2 << left) - 1)

    def finger_count(self) -> int:
        """How many entries the Finger Table has.

        At least 16, and enough to contain the last successor of the Neighbor Table (RFC 6940 §10.7.4.3).
        """
        if not self.successors:
            return LEAST_FINGERS
        return max(LEAST_FINGERS, self.finger_index(self.successors[-1]))

    def finger_index(self, node_id: NodeId) -> int:
        """The i of the interval that `node_id` lies in."""
        return 8 * len(self.me) - distance(self.me, node_id).bit_length() + 1

    def finger(self, i: int) -> NodeId | None:
        """The i'th entry of the Finger Table: the first peer in its interval, or None where there is no valid
        one.
        """
        if not self._sorted:
            return None
        first, last = self.finger_interval(i)
        place = bisect_left(self._sorted, first)
        node = self._sorted[place] if place < len(self._sorted) else self._sorted[0]
        return node if node == first or (first != last and within(node, first, last)) else None

    def fingers(self) -> tuple[NodeId, ...]:
        """The peers of the Finger Table in ascending order, without repetition (RFC 6940 §10.7)."""
        return tuple(sorted(self._fingers()))

    def _fingers(self) -> set[NodeId]:
        """The first member of each interval, from the nearest on: the i of the intervals goes down."""
        members, lowest = self._sorted, self.finger_count() + 1
        here = bisect_left(members, self.me)
        found: set[NodeId] = set()
        for node_id in chain(members[here:], members[:here]):
            i = self.finger_index(node_id)
            if i < lowest:
                found.add(node_id)
                lowest = i
        return found

    def missing(self, i: int) -> bool:
        """Whether the i'th entry is invalid and a search could fill it.

        Where the Neighbor Table covers the interval it is known that nobody is there.
        """
        if self.whole_ring():
            return False
        return i <= self.finger_index(self.successors[-1]) and self.finger(i) is None

    def missing_fingers(self) -> list[int]:
        """The i of every entry that is `missing`, in ascending order."""
        return [i for i in range(1, self.finger_count() + 1) if self.missing(i)]
