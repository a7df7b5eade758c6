"""`churn`: nodes die without a word, and as many join."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import log
from pathlib import Path
from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from ...node import Node
from ..interfaces import IScenario, Option
from ..run import Run
from ..spans import at_least, count, rate, seconds

GOSSIP = 5.0
"""Seconds from when one neighbor has found a peer to be dead until all have, and until a copy is made."""

HOLD_DOWN = 30.0
"""Seconds for which new replicas are held down (RFC 6940 §10.7.1)."""


def trace(path: str) -> list[tuple[float, str, str]]:
    """The events of a trace: lines ``seconds,join|leave,name`` in the order of time; '#' begins a comment.

    :raises ValueError: a line is none, or the file cannot be read.
    """
    events: list[tuple[float, str, str]] = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the trace cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        when, what, name = _event(line, f"{path}, line {number}")
        if events and when < events[-1][0]:
            raise ValueError(f"{path}, line {number}: earlier than the line before")
        events.append((when, what, name))
    return events


def _event(line: str, where: str) -> tuple[float, str, str]:
    try:
        when, what, name = (field.strip() for field in next(csv.reader([line]))[:3])
        event = (rate(when), what, name)
    except (ValueError, csv.Error):
        raise ValueError(f"{where}: not seconds,join|leave,name") from None
    if what not in ("join", "leave"):
        raise ValueError(f"{where}: {what!r} is neither join nor leave")
    if not name:
        raise ValueError(f"{where}: nobody is named")
    return event


@implementer(IPlugin, IScenario)
class Churn:
    """Each node dies after a time drawn from an exponential distribution; new ones begin to join at the same rate.

    Or nodes join and die as a trace says; the first nodes of the overlay bear the names 1, 2, ... in it.
    """

    name = "churn"
    summary = "Nodes die without a word, and as many join, while values are looked up, fetched and stored."
    converged = True
    options = (
        Option("session", "60m", "Median time from a node's start to its death.", at_least(1.0)),
        Option("duration", "60m", "Simulated time.", seconds),
        Option("trace", None, "File of lines seconds,join|leave,name instead of drawn sessions.", trace),
        Option("lookups-per-second", None, "Lookups of all nodes together [0.03 for each node].", rate),
        Option("values", None, "Values that are stored at the beginning [one for each node].", count),
        Option("fetches-per-second", None, "Fetches of all nodes together [0.01 for each node].", rate),
        Option("stores-per-second", None, "New versions of values [0.001 for each node].", rate),
    )

    def duration(self, options: Mapping[str, Any], nodes: int) -> float:
        return float(options["duration"])

    def play(self, run: Run, options: Mapping[str, Any]) -> Iterator[float]:
        run.load(
            int(run.chosen("values", 1)),
            lookups=run.chosen("lookups-per-second", 0.03),
            fetches=run.chosen("fetches-per-second", 0.01),
            stores=run.chosen("stores-per-second", 0.001),
        )
        deaths = run.overlay.left
        run.notes["going"] = True
        if options["trace"] is not None:
            self._follow(run, options["trace"])
        else:
            self._draw(run, log(2) / options["session"])
        yield options["duration"]
        run.notes["deaths"] = run.overlay.left - deaths
        run.notes["going"] = False
        rate_of_death = run.notes["deaths"] / max(1e-9, run.node_seconds)
        run.lost_expected = lost_expected(
            rate_of_death, repair_time(run), len(run.workload.values), options["duration"]
        )

    def _draw(self, run: Run, rate_of_death: float) -> None:
        overlay, chance = run.overlay, run.overlay.stream("churn")

        def die(node: Node) -> None:
            if run.notes["going"]:
                overlay.kill(node)

        def live(node: Node) -> None:
            overlay.clock.callLater(chance.expovariate(rate_of_death), die, node)

        def arrive() -> None:
            if run.notes["going"]:
                live(overlay.add())
                overlay.clock.callLater(chance.expovariate(rate_of_death * run.setting.nodes), arrive)

        for node in list(overlay.nodes.values()):
            live(node)
        overlay.clock.callLater(chance.expovariate(rate_of_death * run.setting.nodes), arrive)

    def _follow(self, run: Run, events: list[tuple[float, str, str]]) -> None:
        overlay = run.overlay
        named = {str(number): node for number, node in enumerate(overlay.nodes.values(), 1)}

        def join(name: str) -> None:
            if name not in named and run.notes["going"]:
                named[name] = overlay.add()

        def leave(name: str) -> None:
            node = named.pop(name, None)
            if node is not None and run.notes["going"]:
                overlay.kill(node)

        happenings: dict[str, Callable[[str], None]] = {"join": join, "leave": leave}
        for when, what, name in events:
            overlay.clock.callLater(when, partial(happenings[what], name))

    def findings(self, run: Run, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "deaths": run.notes["deaths"],
            "joins": run.overlay.joins,
            "repair_time": repair_time(run),
            "alone": sum(not node.joined for node in run.overlay.nodes.values()),
        }


def repair_time(run: Run) -> float:
    """About how many seconds it takes from the death of a peer until all that it held has three copies again.

    Each neighbor is sent an Update once in each chord-update-interval, by every one of its own neighbors: so the first
    of them comes after the interval divided by their number.  Its ACK is overdue after a second; then the others are
    told and see for themselves; then there is the hold-down.
    """
    configuration = run.overlay.configuration
    node = next(iter(run.overlay.nodes.values()), None)
    neighbors = node.topology.status()["neighbors"] if node is not None else {}
    distinct = set[str]().union(*neighbors.values())
    return float(configuration.chord_update_interval / max(1, len(distinct)) + GOSSIP + HOLD_DOWN)


def lost_expected(rate_of_death: float, repair: float, values: int, duration: float) -> float:
    """How many values are to be expected to lose all three copies before the first lost one is made anew.

    One of three peers dies at three times the rate of one; the other two then both die within the repair time with the
    square of the probability for one.
    """
    return values * duration * 3 * rate_of_death * (rate_of_death * repair) ** 2
