"""`mass-failure`: a part of all nodes dies in one moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from ..interfaces import IScenario, Option
from ..run import Run
from ..spans import count, fraction, rate, seconds
from .recovery import recovery

CONSISTENT_WITHIN = 120.0
"""Seconds within which the ring is to be right again, when three of ten nodes have died."""


@implementer(IPlugin, IScenario)
class MassFailure:
    """After a minute a part of the nodes, drawn at random, dies without a word."""

    name = "mass-failure"
    summary = "A part of all nodes dies in one moment."
    converged = True
    options = (
        Option("fraction", 0.3, "Which part of the nodes dies.", fraction),
        Option("duration", "15m", "Simulated time after that.", seconds),
        Option("lookups-per-second", None, "Lookups of all nodes together [0.03 for each node].", rate),
        Option("values", None, "Values that are stored at the beginning [one for each node].", count),
    )

    def duration(self, options: Mapping[str, Any], nodes: int) -> float:
        return 60.0 + float(options["duration"])

    def play(self, run: Run, options: Mapping[str, Any]) -> Iterator[float]:
        overlay, nodes = run.overlay, run.setting.nodes
        lookups = run.chosen("lookups-per-second", 0.03)
        run.load(int(run.chosen("values", 1)), lookups=lookups, fetches=lookups / 3)
        yield 60.0
        before = run.workload.holders()
        dying = overlay.random.sample(list(overlay.nodes), min(nodes - 1, round(nodes * options["fraction"])))
        for node_id in dying:
            overlay.kill(overlay.nodes[node_id])
        run.lost_expected = float(sum(found <= set(dying) for found in before.values()))
        run.notes["lost_by_chance"] = len(before) * options["fraction"] ** 3
        yield from recovery(run, "consistent again", options["duration"], CONSISTENT_WITHIN)

    def findings(self, run: Run, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "consistent_after_seconds": run.notes["consistent again"],
            "consistent_within_bound": CONSISTENT_WITHIN,
            "lost_expected_by_chance": run.notes["lost_by_chance"],
        }
