"""Small simulated overlays, and runs of scenarios on them."""

from __future__ import annotations

from functools import cache
from typing import Any

from zope.interface import implementer, implementer_only

from p2psip.interfaces import ITopologyFactory, ITopologyHost, ITopologyPlugin
from p2psip.simulator.interfaces import IScenario
from p2psip.simulator.overlay import Overlay, Setting
from p2psip.simulator.report import report_of
from p2psip.simulator.run import Run
from p2psip.simulator.scenarios import installed
from p2psip.simulator.topologies import topology_named
from p2psip.topology.chord import Chord


@implementer_only(ITopologyPlugin)
class PlainChord(Chord):
    """A topology that does not know how to begin in the middle."""


@implementer(ITopologyFactory)
class PlainFactory:
    """What a third party offers."""

    name = "PLAIN"

    def build(self, host: ITopologyHost) -> ITopologyPlugin:
        return PlainChord(host)

    def build_client(self, host: ITopologyHost) -> ITopologyPlugin:
        raise NotImplementedError("nobody asks for clients")


def setting(nodes: int, *, neighbors: int | None = None, **given: Any) -> Setting:
    """What an overlay of so many nodes is made with."""
    topology = given.pop("topology", None) or topology_named("CHORD-RELOAD", neighbors)
    return Setting(nodes=nodes, topology=topology, neighbors=neighbors, **given)


def converged(nodes: int, **given: Any) -> Overlay:
    """An overlay that stands."""
    overlay = Overlay(setting(nodes, **given))
    for _ in overlay.converge():
        pass
    return overlay


def grown(nodes: int, **given: Any) -> Overlay:
    """An overlay that has come about by joins, one after the other."""
    overlay = Overlay(setting(nodes, **given))
    overlay.found()
    for _ in range(nodes - 1):
        overlay.add()
        until = overlay.clock.seconds() + 60
        while len(overlay.ring) < len(overlay.nodes) and overlay.clock.step(until):
            pass
    return overlay


def scenario_named(name: str) -> IScenario:
    """The installed scenario with that name."""
    return next(scenario for scenario in installed() if scenario.name == name)


def options_of(scenario: IScenario, **typed: Any) -> dict[str, Any]:
    """The scenario's options, `typed` (with ``_`` for ``-``) in place of some defaults."""
    options = {option.name: option.value(typed.pop(option.name.replace("-", "_"), None)) for option in scenario.options}
    if typed:
        raise LookupError(f"{scenario.name} has no options {', '.join(typed)}")
    return options


def played(name: str, nodes: int, made_with: dict[str, Any] | None = None, **typed: Any) -> Run:
    """A run of an installed scenario, from its beginning to its end; `made_with` goes to `setting`."""
    scenario = scenario_named(name)
    run = Run(scenario, setting(nodes, **(made_with or {})), options_of(scenario, **typed))
    run.play()
    return run


@cache
def small_report(seed: int = 0) -> dict[str, Any]:
    """What there is to say of a little churn; nobody may change it."""
    made_with = {"seed": seed, "latency": "uniform:10ms:90ms"}
    return report_of(played("churn", 12, made_with, session="5m", duration="3m", lookups_per_second="1", values="6"))
