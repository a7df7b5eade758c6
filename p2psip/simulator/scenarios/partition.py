"""`partition`: the network falls into two halves, and heals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from ...node import Node
from ..interfaces import IScenario, Option
from ..run import Run
from ..spans import at_least, count, rate, seconds
from .recovery import recovery

SETTLE = 120.0
"""Seconds that two rings take to become one when every peer knows of the other: they close like a zip."""


@implementer(IPlugin, IScenario)
class Partition:
    """Two halves of the nodes do not reach one another for a while; on both sides values are written meanwhile."""

    name = "partition"
    summary = "The network falls into two halves and heals; values are written on both sides."
    converged = True
    options = (
        Option("apart", "10m", "Simulated time for which the halves are apart.", at_least(10.0)),
        Option("duration", "20m", "Simulated time after that.", seconds),
        Option("lookups-per-second", None, "Lookups of all nodes together [0.03 for each node].", rate),
        Option("values", 200, "Values that are stored at the beginning, and written anew on both sides.", count),
    )

    def duration(self, options: Mapping[str, Any], nodes: int) -> float:
        return 60.0 + float(options["apart"] + options["duration"])

    def play(self, run: Run, options: Mapping[str, Any]) -> Iterator[float]:
        overlay = run.overlay
        run.load(options["values"], lookups=run.chosen("lookups-per-second", 0.03))
        yield 60.0
        halves = self._halves(run)
        overlay.network.partition(*([overlay.address(node) for node in half] for half in halves))
        overlay.split(*([node.node_id for node in half] for half in halves))
        yield options["apart"] / 2
        # One side writes, then the other: the newest is to win in the end.
        yield from self._write(run, halves[0], options["apart"] / 4)
        yield from self._write(run, halves[1], options["apart"] / 4)
        overlay.network.heal()
        overlay.split()
        yield from recovery(run, "one ring again", options["duration"], self._bound(run))
        yield from self._read(run)

    def _halves(self, run: Run) -> tuple[list[Node], list[Node]]:
        """Each half has two of the bootstrap nodes, as both sides of an ocean would."""
        nodes = list(run.overlay.nodes.values())
        listed = run.overlay.listed()
        others = [node for node in nodes if node not in listed]
        run.overlay.random.shuffle(others)
        middle = len(others) // 2
        return [*listed[::2], *others[:middle]], [*listed[1::2], *others[middle:]]

    def _write(self, run: Run, half: list[Node], within: float) -> Iterator[float]:
        for value in run.workload.values:
            run.workload.store(value, run.overlay.random.choice(half))
            yield within / max(1, len(run.workload.values))

    def _read(self, run: Run) -> Iterator[float]:
        """Every value, twice: the newest has to have won."""
        for value in run.workload.values * 2:
            run.workload.fetch(value)
            yield 0.1
        yield 5 * run.overlay.configuration.overlay_reliability_timer / 1000
        if not newest_wins(run):
            run.invariants.violated("the newest value wins", str(dict(run.workload.fetches.causes)))

    def _bound(self, run: Run) -> float:
        """Each peer looks for the other ring once in each chord-update-interval, at the latest after 1.25 of it."""
        return 1.25 * run.overlay.configuration.chord_update_interval + SETTLE

    def findings(self, run: Run, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "healed_after_seconds": run.notes["one ring again"],
            "healed_within_bound": self._bound(run),
            "newest_value_wins": newest_wins(run),
        }


def newest_wins(run: Run) -> bool:
    """Whether every Fetch has brought what was stored last."""
    return run.workload.fetches.right == run.workload.fetches.total
