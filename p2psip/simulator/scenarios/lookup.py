"""`lookup`: a converged ring in which nothing changes, and lookups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import log2
from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from ..interfaces import IScenario, Option
from ..run import Run
from ..spans import count, seconds


@implementer(IPlugin, IScenario)
class Lookup:
    """Every peer looks up Resource-IDs that are drawn at random; a few values are stored and fetched as well."""

    name = "lookup"
    summary = "Lookups in a converged ring in which nothing changes."
    converged = True
    options = (
        Option("lookups", 20_000, "How many lookups.", count),
        Option("values", 100, "How many values are stored, and fetched ten times each.", count),
        Option("duration", "60s", "Simulated time that they are spread over.", seconds),
    )

    def duration(self, options: Mapping[str, Any], nodes: int) -> float:
        return float(options["duration"])

    def play(self, run: Run, options: Mapping[str, Any]) -> Iterator[float]:
        duration = max(1.0, options["duration"])
        run.load(options["values"], fetches=10 * options["values"] / duration)
        chance = run.overlay.stream("lookups")
        for _ in range(options["lookups"]):
            run.overlay.clock.callLater(chance.uniform(0, duration), run.workload.look_up)
        yield duration

    def findings(self, run: Run, options: Mapping[str, Any]) -> Mapping[str, Any]:
        ideal = 0.5 * log2(max(1, run.setting.nodes))
        hops = run.workload.lookups.hops
        mean = sum(hops) / len(hops) if hops else 0.0
        return {"half_log2_nodes": ideal, "mean_hops_above_half_log2_nodes": mean - ideal}
