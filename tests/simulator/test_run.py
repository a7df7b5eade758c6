"""One run of a scenario, from its beginning to its end."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from p2psip.simulator.interfaces import IScenario, Option
from p2psip.simulator.report import report_of
from p2psip.simulator.run import LEAST_INTERVAL, MOST_SAMPLES, Run
from p2psip.simulator.spans import seconds

from .overlays import options_of, setting

Play = Callable[[Run], Iterator[float]]


@implementer(IPlugin, IScenario)
class Scripted:
    """A third party's scenario, which does what a test wants."""

    name = "scripted"
    summary = "What a test wants."
    options = (
        Option("values", None, "How many [two for each node].", int),
        Option("duration", "100s", "Simulated time.", seconds),
    )

    def __init__(self, script: Play | None = None, converged: bool = True) -> None:
        self.script = script
        self.converged = converged

    def duration(self, options: Mapping[str, Any], nodes: int) -> float:
        return float(options["duration"])

    def play(self, run: Run, options: Mapping[str, Any]) -> Iterator[float]:
        if self.script is not None:
            yield from self.script(run)
        else:
            yield options["duration"]

    def findings(self, run: Run, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"peers": len(run.overlay.ring)}


def run_of(
    script: Play | None = None, nodes: int = 6, converged: bool = True, neighbors: int | None = None, **typed: str
) -> Run:
    scenario = Scripted(script, converged)
    return Run(scenario, setting(nodes, neighbors=neighbors), options_of(scenario, **typed))


class OptionTests(SynchronousTestCase):
    def test_value(self) -> None:
        """Of what was typed, or of the default, which may be as it is typed or the value itself."""
        option = Option("duration", "1h", "Simulated time.", seconds)
        self.assertEqual((option.value(), option.value("5m"), option.value(7.5)), (3600, 300, 7.5))
        self.assertEqual(Option("rate", 0.5, "A rate.", float).value(), 0.5)
        self.assertIsNone(Option("trace", None, "A file.").value())
        self.assertEqual(Option("trace", None, "A file.").value("x"), "x")
        self.assertRaises(ValueError, option.value, "soon")


class ThirdPartyTests(SynchronousTestCase):
    def test_interface(self) -> None:
        verifyObject(IScenario, Scripted())
        verifyObject(IPlugin, Scripted())

    def test_played(self) -> None:
        """It begins with a ring that stands, its steps come when it wants, and its findings are in the report."""
        steps: list[tuple[float, int]] = []

        def script(run: Run) -> Iterator[float]:
            for pause in (5, 10, 0.5):
                steps.append((run.overlay.now, len(run.overlay.ring)))
                yield pause
            run.overlay.kill(run.overlay.some_node())
            yield 20

        run = run_of(script)
        run.play()
        self.assertEqual(steps, [(0, 6), (5, 6), (15, 6)])
        self.assertEqual(report_of(run)["findings"], {"peers": 5})

    def test_from_one_node_on(self) -> None:
        sizes: list[int] = []

        def script(run: Run) -> Iterator[float]:
            sizes.append(len(run.overlay.ring))
            run.overlay.add()
            yield 20

        run = run_of(script, converged=False)
        run.play()
        self.assertEqual((sizes, len(run.overlay.ring)), ([1], 2))


class LoadTests(SynchronousTestCase):
    def test_values_are_there_when_the_scenario_begins(self) -> None:
        """Stored and replicated; that is over when what is reported begins."""
        found: list[Any] = []

        def script(run: Run) -> Iterator[float]:
            run.load(8, lookups=1.0)
            found.append((run.overlay.now, run.overlay.traffic.maintenance_messages))
            found.append([len(holders) for holders in run.workload.holders().values()])
            yield 1
            found.append("store" in run.overlay.traffic.by_method())
            yield 49

        run = run_of(script)
        run.play()
        self.assertEqual(found, [(0, 0), [3] * 8, False])
        self.assertEqual((run.workload.stores.total, len(run.final_holders)), (8, 8))
        self.assertGreater(run.workload.lookups.total, 20)
        self.assertEqual(run.samples[0].seconds, 0)
        self.assertGreater(run.overlay.clock.seconds() - run.overlay.start, 50)

    def test_all_replicas_are_waited_for(self) -> None:
        """Also those that are sent again, because the network loses messages."""
        copies: list[int] = []

        def script(run: Run) -> Iterator[float]:
            run.load(20)
            copies.extend(len(holders) for holders in run.workload.holders().values())
            yield 1

        scenario = Scripted(script)
        Run(scenario, setting(6, loss=0.05), options_of(scenario)).play()
        self.assertEqual(copies, [3] * 20)

    def test_it_ends_with_the_scenario(self) -> None:
        """Nothing begins any more, and what is under way has the time to end."""

        def script(run: Run) -> Iterator[float]:
            run.load(0, lookups=5.0)
            yield 20
            run.overlay.network.loss = 1.0
            yield 1

        run = run_of(script)
        run.play()
        self.assertEqual(run.workload.under_way, 0)
        self.assertGreater(run.workload.lookups.causes["RequestTimeout"], 0)
        self.assertLess(max(run.workload.lookups.when), 21)

    def test_chosen(self) -> None:
        """As many for each node, unless a number was given; nought is a number."""
        self.assertEqual(run_of().chosen("values", 2), 12)
        self.assertEqual(run_of(values="5").chosen("values", 2), 5)
        self.assertEqual(run_of(values="0").chosen("values", 2), 0)


class SampleTests(SynchronousTestCase):
    def test_when(self) -> None:
        """At the beginning, in even intervals, and at the end."""
        run = run_of(duration="100s")
        run.play()
        self.assertEqual([sample.seconds for sample in run.samples], [*range(0, 111, int(LEAST_INTERVAL)), 118])

    def test_not_too_many(self) -> None:
        run = run_of(duration="2h")
        run.play()
        self.assertLessEqual(len(run.samples), MOST_SAMPLES + 3)
        self.assertEqual(run.samples[1].seconds, 7200 / MOST_SAMPLES)

    def test_of_a_ring_in_which_nothing_happens(self) -> None:
        run = run_of(duration="20m")
        run.play()
        for sample in run.samples:
            self.assertEqual((sample.nodes, sample.peers, sample.consistent, sample.double_claims), (6, 6, 1, 0))
            self.assertEqual((sample.links_per_node, sample.members_per_node, sample.replicas), (5, 5, {}))
        traffic, last = run.overlay.traffic, run.samples[-1]
        self.assertEqual(run.node_seconds, 6 * last.seconds)
        for name, total in (("bytes", traffic.maintenance_bytes), ("messages", traffic.maintenance_messages)):
            summed, before = 0.0, 0.0
            for sample in run.samples:
                summed += getattr(sample, f"{name}_per_node_second") * 6 * (sample.seconds - before)
                before = sample.seconds
            self.assertGreater(total, 0)
            self.assertAlmostEqual(summed, total, 3)

    def test_of_what_changes(self) -> None:
        """Nodes that come and go, copies that are lost, and what was done since the sample before."""

        def script(run: Run) -> Iterator[float]:
            run.load(3, lookups=2.0)
            yield 15
            for node_id in sorted(run.workload.holders()[run.workload.values[0].name])[:1]:
                run.overlay.kill(run.overlay.nodes[node_id])
            yield 4.9
            run.overlay.add()
            yield 80.1

        run = run_of(script)
        run.play()
        sizes = [(sample.nodes, sample.peers) for sample in run.samples]
        self.assertEqual((sizes[:3], sizes[-1]), ([(6, 6), (6, 6), (6, 5)], (6, 6)))
        self.assertEqual(run.samples[0].replicas, {3: 3})
        self.assertNotEqual(run.samples[2].replicas, {3: 3})
        self.assertEqual(run.samples[-1].replicas, {3: 3})
        lookups = run.workload.lookups
        totals = {"lookups": lookups.total, "lookups_right": lookups.right, "lookups_first": lookups.first}
        for name, total in totals.items():
            self.assertEqual(sum(getattr(sample, name) for sample in run.samples), total)
        self.assertApproximates(run.samples[1].lookups, 20, 15)

    def test_lost(self) -> None:
        def script(run: Run) -> Iterator[float]:
            run.load(4)
            for node_id in run.workload.holders()[run.workload.values[0].name]:
                run.overlay.kill(run.overlay.nodes[node_id])
            yield 100

        run = run_of(script, nodes=12)
        run.play()
        self.assertEqual(run.lost, sum(not holders for holders in run.final_holders.values()))
        self.assertEqual(run.final_holders[run.workload.values[0].name], set())
        self.assertEqual(run.samples[-1].replicas[0], run.lost)
        self.assertEqual(run.invariants.count, 0)


class ProgressTests(SynchronousTestCase):
    def test_told(self) -> None:
        """What is done, and how much of it; at its end all of it."""
        told: list[tuple[str, float]] = []
        scenario = Scripted()
        run = Run(scenario, setting(6), options_of(scenario), lambda what, done: told.append((what, done)))
        run.play()
        self.assertEqual({what for what, _ in told}, {"building the ring", "simulating"})
        self.assertEqual(told[-1], ("simulating", 1.0))
        self.assertTrue(all(0 <= done <= 1 for _, done in told))

    def test_time_and_memory(self) -> None:
        run = run_of()
        run.play()
        self.assertGreater(run.built_seconds, 0)
        self.assertGreater(run.loop_seconds, 0)
        self.assertGreaterEqual(run.wall_seconds, run.built_seconds + run.loop_seconds)

    def test_garbage_collection(self) -> None:
        """It is as before afterwards, also when a scenario fails."""

        def script(run: Run) -> Iterator[float]:
            self.assertNotEqual(gc.get_threshold(), before)
            yield 1
            raise ZeroDivisionError

        before = gc.get_threshold()
        self.assertRaises(ZeroDivisionError, run_of(script).play)
        self.assertEqual((gc.get_threshold(), gc.get_freeze_count()), (before, 0))
