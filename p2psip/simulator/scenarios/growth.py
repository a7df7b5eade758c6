"""`growth`: an overlay that grows by joins from its first node on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from ...ids import NodeId
from ..figures import summary
from ..interfaces import IScenario, Option
from ..run import Run
from ..spans import rate, seconds

PATIENCE = 300.0
"""Seconds that the last nodes are given to join."""


@implementer(IPlugin, IScenario)
class Growth:
    """Nodes join one after the other, by the real protocol, as fast as `--joins-per-second` says."""

    name = "growth"
    summary = "An overlay that grows by joins from its first node on."
    converged = False
    options = (
        Option("joins-per-second", 1.0, "How many nodes begin to join in a second.", rate),
        Option("lookups-per-second", 5.0, "Lookups of all nodes together.", rate),
        Option("settle", "2m", "Simulated time after the last join.", seconds),
    )


    def duration(self, options: Mapping[str, Any], nodes: int) -> float:
        return float(nodes / max(1e-3, options["joins-per-second"]) + options["settle"])

    def play(self, run: Run, options: Mapping[str, Any]) -> Iterator[float]:
        overlay = run.overlay
        run.load(0, lookups=options["lookups-per-second"])
        began: dict[NodeId, float] = {}
        took = run.notes.setdefault("join_seconds", [])
        overlay.changed.append(
            lambda node_id, peer: took.append(overlay.now - began.pop(node_id)) if peer and node_id in began else None
        )
        for _ in range(run.setting.nodes - 1):
            yield overlay.random.expovariate(max(1e-3, options["joins-per-second"]))
            began[overlay.add().node_id] = overlay.now
        waited = 0.0
        while len(overlay.ring) < run.setting.nodes and waited < PATIENCE:
            yield 1.0
            waited += 1.0
        if len(overlay.ring) < run.setting.nodes:
            missing = run.setting.nodes - len(overlay.ring)
            run.invariants.violated("every node joins", f"{missing} did not within {PATIENCE:.0f} s")
        yield options["settle"]

    def findings(self, run: Run, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"joined": len(run.overlay.ring), "join_seconds": summary(run.notes["join_seconds"])}
