"""One run of a scenario: it begins, time passes, samples are taken, and in the end there is a report."""

from __future__ import annotations

import gc
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..node import Node
from .interfaces import IScenario
from .invariants import Invariants
from .overlay import Overlay, Setting
from .workload import Workload

Progress = Callable[[str, float], None]
"""Told what is being done, and which part of it is done (0 to 1)."""

STABLE_WITHIN = 60.0
"""Seconds that the ring may take to be right again, beside the time in which every neighbor is heard from."""

MOST_SAMPLES = 120
"""How often the whole overlay is looked at, at most."""

LEAST_INTERVAL = 10.0
"""Seconds of simulated time between two such looks, at least."""

TOLD_EVERY = 0.2
"""Seconds of real time between two reports of progress."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The overlay at one moment, and what was done since the sample before."""

    seconds: float
    nodes: int
    peers: int
    consistent: float
    """The part of the peers whose three nearest successors are right."""
    double_claims: int
    replicas: Mapping[int, int]
    """How many values have so many copies."""
    links_per_node: float
    members_per_node: float
    bytes_per_node_second: float
    messages_per_node_second: float
    lookups: int
    lookups_right: int
    lookups_first: int
    """Of those that were begun since the sample before and have ended: how many, right, and right at once."""


class Run:
    """Plays a scenario on an overlay of its own.

    :ivar overlay: the nodes, and simulated time.
    :ivar workload: what the users do; a scenario begins it by `load`.
    :ivar samples: the overlay from time to time.
    """

    def __init__(
        self, scenario: IScenario, setting: Setting, options: Mapping[str, Any], progress: Progress | None = None
    ) -> None:
        self.scenario = scenario
        self.setting = setting
        self.options = options
        self._progress = progress or (lambda what, done: None)
        self._told = 0.0
        self.overlay = Overlay(setting)
        self.workload = Workload(self.overlay)
        interval = self.overlay.configuration.chord_update_interval
        self.invariants = Invariants(self.overlay, 1.25 * interval + STABLE_WITHIN)
        self.samples: list[Sample] = []
        self.node_seconds = 0.0
        self.lost_expected = 0.0
        self.built_seconds = self.wall_seconds = 0.0
        self.bytes_per_node = 0.0
        self.loop_seconds = 0.0
        self.notes: dict[str, Any] = {}
        """What a scenario wants to remember until its `findings`."""
        self.final_holders: Mapping[bytes, set[Any]] = {}
        self._duration = max(1.0, scenario.duration(options, setting.nodes))
        self._sample_every = max(LEAST_INTERVAL, self._duration / MOST_SAMPLES)
        self._last = (0.0, 0, 0)
        self._seen = Counter[str]()

    def load(self, values: int = 0, **rates: float) -> None:
        """Let users store `values`, one each, and wait until that is done; then do what `rates` say (`Workload`)."""
        first = Workload(self.overlay)
        created = first.create(values)
        until = self.overlay.clock.seconds() + 600
        while created and first.under_way and self.overlay.clock.step(until):
            pass
        self.overlay.clock.run(30 if values else 0)  # for the replicas
        self.workload = Workload(self.overlay, **rates)
        self.workload.values = first.values
        self.workload.stores = first.stores
        self._begin()

    def chosen(self, name: str, for_each_node: float) -> float:
        """An option; where it was not given, so much for each node."""
        given = self.options[name]
        return for_each_node * self.setting.nodes if given is None else float(given)

    # -- Playing -------------------------------------------------------------------------------------

    def play(self) -> None:
        """From the beginning to the end."""
        began = time.perf_counter()
        with _collecting_seldom():
            self._build()
            self.built_seconds = time.perf_counter() - began
            self._begin()
            looped = time.perf_counter()
            for pause in self.scenario.play(self, self.options):
                self._pass(pause)
            self.workload.stop()
            self._pass(6 * self.overlay.configuration.overlay_reliability_timer / 1000)
            self._sample()
            self.loop_seconds = time.perf_counter() - looped
        self.wall_seconds = time.perf_counter() - began

    def _build(self) -> None:
        if not self.scenario.converged:
            self.overlay.found()
            return
        before = _resident_bytes()
        for done in self.overlay.converge():
            self._tell("building the ring", done / self.setting.nodes)
        gc.collect()
        self.bytes_per_node = (_resident_bytes() - before) / self.setting.nodes
        gc.freeze()

    def _begin(self) -> None:
        """What is reported begins here."""
        overlay = self.overlay
        overlay.start = overlay.clock.seconds()
        overlay.traffic.restart()
        self.node_seconds = 0.0
        self._last = (0.0, 0, 0)
        self.samples.clear()
        self._seen.clear()
        self._sample()

    def _pass(self, seconds: float) -> None:
        clock = self.overlay.clock
        end = clock.seconds() + seconds
        while clock.seconds() < end:
            due = self.overlay.start + self.samples[-1].seconds + self._sample_every
            until = min(end, due)
            self._run_until(until)
            if until == due:
                self._sample()

    def _run_until(self, until: float) -> None:
        clock = self.overlay.clock
        before = clock.seconds()
        steps = 0
        while clock.step(until):
            steps += 1
            if not steps & 0x3FF:
                self._tell("simulating", self.overlay.now / self._duration)
        self.node_seconds += (until - before) * len(self.overlay.nodes)
        self._tell("simulating", self.overlay.now / self._duration)

    def _tell(self, what: str, done: float) -> None:
        now = time.perf_counter()
        if now - self._told > TOLD_EVERY or done >= 1:
            self._told = now
            self._progress(what, min(1.0, done))

    # -- Samples -------------------------------------------------------------------------------------

    def _sample(self) -> None:
        overlay, traffic, lookups = self.overlay, self.overlay.traffic, self.workload.lookups
        self.final_holders = holders = self.workload.holders()
        self.invariants.check(holders)
        since, bytes_before, messages_before = self._last
        node_seconds = max(1e-9, self.node_seconds - since)
        self._last = (self.node_seconds, traffic.maintenance_bytes, traffic.maintenance_messages)
        now = Counter(total=lookups.total, right=lookups.right, first=lookups.first)
        done = {name: now[name] - self._seen[name] for name in now}
        self._seen = now
        nodes: list[Node] = list(overlay.nodes.values())
        self.samples.append(
            Sample(
                seconds=overlay.now,
                nodes=len(nodes),
                peers=len(overlay.ring),
                consistent=self.invariants.consistent,
                double_claims=self.invariants.double_claims,
                replicas=dict(sorted(Counter(len(found) for found in holders.values()).items())),
                links_per_node=sum(len(node.table) for node in nodes) / max(1, len(nodes)),
                members_per_node=sum(_members(node) for node in nodes) / max(1, len(nodes)),
                bytes_per_node_second=(traffic.maintenance_bytes - bytes_before) / node_seconds,
                messages_per_node_second=(traffic.maintenance_messages - messages_before) / node_seconds,
                lookups=done.get("total", 0),
                lookups_right=done.get("right", 0),
                lookups_first=done.get("first", 0),
            )
        )

    @property
    def lost(self) -> int:
        """How many acknowledged values no living node holds."""
        return sum(not found for found in self.final_holders.values())


def _members(node: Node) -> int:
    return int(node.topology.status().get("members", 0))


def _resident_bytes() -> int:
    """What this process has in memory now."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return peak_rss_bytes()  # where there is no Linux


def peak_rss_bytes() -> int:
    """The most that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Let Python look for circles of garbage less often: the nodes are none, and there are many of them."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
