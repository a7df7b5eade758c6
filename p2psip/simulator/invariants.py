"""What must hold of an overlay while it is simulated, whatever happens to it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..ids import NodeId, offset
from ..node import Node
from ..transport.connections import MAX_OTHERS
from .overlay import Overlay

ONE_RING = "one ring"
RESPONSIBLE_ONCE = "responsible once"

MOST_KEPT = 100
"""Violations that are told; the others are counted."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be: when (seconds since the beginning), which invariant, and what was seen."""

    when: float
    invariant: str
    text: str


class Invariants:
    """Checks, each time that it is asked, and keeps what was violated.

    A ring that changes is wrong in places, for a while: only what stays wrong for longer than `bound` seconds counts.
    For values that are lost it counts whether somebody who held one lives.

    :ivar wrong: for how long each first successor was wrong that is right again, in seconds.
    """

    def __init__(self, overlay: Overlay, bound: float) -> None:
        self._overlay = overlay
        self._bound = bound
        self._since: dict[tuple[str, NodeId], float] = {}
        self._told: set[tuple[str, NodeId]] = set()
        self._holders: dict[bytes, set[NodeId]] = {}
        self._lost: set[bytes] = set()
        self.violations: list[Violation] = []
        self.count = 0
        self.wrong: list[float] = []
        self.consistent = 1.0
        self.double_claims = 0

    def check(self, holders: Mapping[bytes, set[NodeId]]) -> None:
        """Look at every peer, and at who holds each value now."""
        successors, claims, gaps = self._ring()
        self.consistent = 1 - len(successors) / max(1, len(self._overlay.ring))
        self.double_claims = len(claims)
        self._stays(ONE_RING, successors)
        self._stays(RESPONSIBLE_ONCE, {**claims, **gaps})
        for node_id, node in self._overlay.nodes.items():
            for text in _oversized(node):
                self._violated("bounded tables", f"{node_id.hex()}: {text}")
        self._values(holders)

    def _ring(self) -> tuple[dict[NodeId, str], dict[NodeId, str], dict[NodeId, str]]:
        """Whose first successors are wrong, who claims what is another's, and who does not claim all that is its own,
        with a text each.
        """
        overlay = self._overlay
        successors: dict[NodeId, str] = {}
        claims: dict[NodeId, str] = {}
        gaps: dict[NodeId, str] = {}
        for node_id in overlay.ring:
            topology = overlay.nodes[node_id].topology
            wanted = [one.hex() for one in overlay.successors(node_id, 3)]
            found = list(topology.status()["neighbors"]["successors"])
            if found[: len(wanted)] != wanted:
                successors[node_id] = f"{node_id.hex()} has successors {found[:3]} instead of {wanted}"
            ring = overlay.ring_of(node_id)
            before = ring[bisect_left(ring, node_id) - 1]
            if len(ring) > 1 and topology.is_responsible(before):
                claims[node_id] = f"{node_id.hex()} claims to be responsible for {before.hex()}"
            elif not topology.is_responsible(offset(before, 1)):
                gaps[node_id] = f"nobody is responsible for what follows {before.hex()}, not even {node_id.hex()}"
        return successors, claims, gaps

    def _stays(self, invariant: str, found: Mapping[NodeId, str]) -> None:
        now = self._overlay.now
        for key in [key for key in self._since if key[0] == invariant and key[1] not in found]:
            since = self._since.pop(key)
            self._told.discard(key)
            if invariant == ONE_RING and key[1] in self._overlay.nodes:  # else it died in the wrong
                self.wrong.append(now - since)
        for node_id, text in found.items():
            key = (invariant, node_id)
            since = self._since.setdefault(key, now)
            if now - since > self._bound and key not in self._told:
                self._told.add(key)
                self._violated(invariant, f"for {now - since:.0f} s: {text}")

    def _values(self, holders: Mapping[bytes, set[NodeId]]) -> None:
        living = self._overlay.nodes
        for name, now_holding in holders.items():
            held_it = self._holders.get(name, set())
            if not now_holding and name not in self._lost:
                self._lost.add(name)
                keepers = [node_id.hex() for node_id in held_it if node_id in living]
                if keepers:
                    self._violated("no value lost that has a living replica", f"{name.decode()}: {keepers} lost it")
            elif now_holding:
                self._lost.discard(name)
        self._holders = {name: set(found) for name, found in holders.items()}

    def violated(self, invariant: str, text: str) -> None:
        """Note what a scenario has found to be wrong."""
        self._violated(invariant, text)

    def _violated(self, invariant: str, text: str) -> None:
        self.count += 1
        if len(self.violations) < MOST_KEPT:
            self.violations.append(Violation(self._overlay.now, invariant, text))


def _oversized(node: Node) -> list[str]:
    """Which tables of a node are larger than they may become."""
    resources = node.storage.resources
    members = node.topology.status().get("members", 0)
    sizes: tuple[tuple[str, Callable[[], int], int], ...] = (
        ("links", lambda: len(node.table), MAX_OTHERS + 1 + 4 * 128),
        ("members of the Routing Table", lambda: members, MAX_OTHERS + 1 + 4 * 128),
        ("requests outstanding", lambda: len(node.transactions), 8192),
        ("resources to replicate", lambda: node.replication.backlog, (resources + 1) * (len(node.table) + 2)),
        ("bootstrap cache", lambda: len(node.bootstrap_cache.places), 10),
        ("counters", lambda: len(node.rejected()), 257),
    )
    return [f"{size()} {name}, more than {bound}" for name, size, bound in sizes if size() > bound]
