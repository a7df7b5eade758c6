"""`churn`: who dies and who joins when, and how many values are to be expected to be lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2psip.ids import NodeId
from p2psip.simulator.run import Run
from p2psip.simulator.scenarios.churn import lost_expected, repair_time, trace

from .overlays import options_of, scenario_named, setting
from .test_run import run_of

IDLE = {"lookups_per_second": "0", "fetches_per_second": "0", "stores_per_second": "0", "values": "0"}


class ChurnTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.changed: list[tuple[float, NodeId, bool]] = []

    def write(self, *lines: str) -> str:
        self.path.write_text("\n".join(lines) + "\n")
        return str(self.path)

    def run_of_churn(self, nodes: int, made_with: dict[str, Any] | None = None, **typed: str) -> Run:
        """A run that has been played; `self.changed` is when a node has become a peer, or is none any more."""
        scenario = scenario_named("churn")
        run = Run(scenario, setting(nodes, **(made_with or {})), options_of(scenario, **typed))
        overlay = run.overlay
        overlay.changed.append(lambda node_id, peer: self.changed.append((overlay.now, node_id, peer)))
        run.play()
        return run


class TraceTests(ChurnTestCase):
    """The file that says who comes and goes."""

    def assertRefused(self, line: str, text: str) -> None:
        """As the third line of a file, after a comment and a good one."""
        error = self.assertRaises(ValueError, trace, self.write("# seconds,join|leave,name", "5,join,a", line))
        self.assertEqual(str(error), f"{self.path}, line 3: {text}")

    def test_events(self) -> None:
        lines = ("# a comment", "0,join,a", "", " 1.5 , leave , a b ", "1.5,join,c", "  # another", "7,leave,c,x")
        events = [(0, "join", "a"), (1.5, "leave", "a b"), (1.5, "join", "c"), (7, "leave", "c")]
        self.assertEqual(trace(self.write(*lines)), events)

    def test_quoted(self) -> None:
        self.assertEqual(trace(self.write('1,"join","a, b"')), [(1, "join", "a, b")])

    def test_empty(self) -> None:
        self.assertEqual(trace(self.write("# nothing")), [])

    def test_bad_lines(self) -> None:
        for line in ("soon,join,a", "6,join", "6", "join,a,6", ",join,a", "6;join;a"):
            self.assertRefused(line, "not seconds,join|leave,name")
        for when in ("-1", "nan", "inf"):
            self.assertRefused(f"{when},join,a", "not seconds,join|leave,name")
        self.assertRefused("6," + "x" * 200_000 + ",a", "not seconds,join|leave,name")
        self.assertRefused("6,stay,a", "'stay' is neither join nor leave")
        self.assertRefused("6,Join,a", "'Join' is neither join nor leave")
        self.assertRefused("6,join, ", "nobody is named")
        self.assertRefused("4.9,join,b", "earlier than the line before")

    def test_no_file(self) -> None:
        error = self.assertRaises(ValueError, trace, str(self.path))
        self.assertTrue(str(error).startswith("the trace cannot be read: "), error)
        self.assertIn(str(self.path), str(error))
        self.path.mkdir()
        self.assertRaises(ValueError, trace, str(self.path))

    def test_no_text(self) -> None:
        self.path.write_bytes(b"1,join,a\n\xff\xfe\n")
        error = self.assertRaises(ValueError, trace, str(self.path))
        self.assertTrue(str(error).startswith("the trace cannot be read: "), error)


class FollowTests(ChurnTestCase):
    def test_followed(self) -> None:
        """The first nodes are named 1, 2, ...; who comes as the trace says can leave by its name."""
        path = self.write("10,leave,2", "20,join,new", "60,leave,new", "61,leave,nobody", "62,join,1", "70,join,2")
        run = self.run_of_churn(8, trace=path, duration="100s", **IDLE)
        (first, second, third, fourth) = self.changed
        nodes = list(run.overlay.nodes)
        self.assertEqual((first[0], first[2]), (10, False))
        self.assertTrue(20 < second[0] < 40 and second[2])
        self.assertEqual((third[0], third[1:]), (60, (second[1], False)))
        self.assertTrue(70 < fourth[0] < 90 and fourth[1] not in (first[1], second[1]))
        self.assertEqual(len(nodes), 8)
        findings = run.scenario.findings(run, run.options)
        self.assertEqual((findings["deaths"], findings["joins"], findings["alone"]), (2, 2, 0))

    def test_second_node(self) -> None:
        """The names follow the order in which the nodes were made."""
        wanted = list(self.run_of_churn(5, duration="0s", session="1000h", **IDLE).overlay.nodes)[1]
        self.run_of_churn(5, trace=self.write("10,leave,2"), duration="20s", **IDLE)
        self.assertEqual(self.changed, [(10, wanted, False)])

    def test_empty(self) -> None:
        """Nobody dies: a trace without events is a trace."""
        run = self.run_of_churn(5, trace=self.write("# nothing"), session="1s", duration="60s", **IDLE)
        self.assertEqual((self.changed, run.overlay.left), ([], 0))

    def test_after_the_end(self) -> None:
        """What would happen after `--duration` does not."""
        path = self.write("10,leave,2", "25,leave,3", "26,join,x", "1000,leave,4")
        run = self.run_of_churn(5, trace=path, duration="20s", **IDLE)
        self.assertEqual((len(self.changed), len(run.overlay.nodes)), (1, 4))

    def test_all_leave(self) -> None:
        run = self.run_of_churn(3, trace=self.write(*(f"{n},leave,{n}" for n in (1, 2, 3))), duration="30s", values="3")
        self.assertEqual((run.overlay.nodes, run.lost), ({}, 3))
        self.assertEqual(run.invariants.count, 0)


class DrawTests(ChurnTestCase):
    def test_rates(self) -> None:
        """Half of the nodes die within the median session; as many begin to join as would die if all were replaced.

        In a network that delivers nothing, so that it takes no time.
        """
        run = self.run_of_churn(120, {"loss": 1.0}, session="2m", duration="2m", **IDLE)
        self.assertApproximates(len(run.overlay.ring), 60, 10)
        arrivals = run.overlay.left + len(run.overlay.nodes) - 120
        self.assertApproximates(arrivals, 120 * 0.6931, 20)

    def test_to_the_end(self) -> None:
        """And not beyond it."""
        run = self.run_of_churn(8, session="3m", duration="10m", **IDLE)
        died = [when for when, _, peer in self.changed if not peer]
        self.assertTrue(400 < max(died) <= 600)
        self.assertEqual(run.overlay.left, run.notes["deaths"])
        self.assertGreater(run.overlay.joins, 5)

    def test_those_who_join_die_as_well(self) -> None:
        self.run_of_churn(6, session="1m", duration="5m", **IDLE)
        joined = {node_id for _, node_id, peer in self.changed if peer}
        self.assertTrue(joined & {node_id for _, node_id, peer in self.changed if not peer})

    def test_nobody_is_left(self) -> None:
        """It goes on to its end."""
        run = self.run_of_churn(2, session="10s", duration="10m", values="2")
        self.assertEqual((run.overlay.ring, run.lost), ([], 2))
        self.assertEqual(run.samples[-1].peers, 0)


class ExpectationTests(ChurnTestCase):
    def test_lost(self) -> None:
        """1000 values, an hour, a death in 1000 s, a minute of repair: 1000 * 3600 * 3 / 1000 * 0.06^2 = 38.88."""
        self.assertAlmostEqual(lost_expected(0.001, 60.0, 1000, 3600.0), 38.88)
        self.assertEqual(lost_expected(0.0, 60.0, 1000, 3600.0), 0)

    def test_powers(self) -> None:
        """By the third power of the rate of death and the square of the repair time."""
        base = lost_expected(0.001, 60.0, 10, 100.0)
        self.assertAlmostEqual(lost_expected(0.002, 60.0, 10, 100.0) / base, 8)
        self.assertAlmostEqual(lost_expected(0.001, 120.0, 10, 100.0) / base, 4)
        self.assertAlmostEqual(lost_expected(0.001, 60.0, 20, 100.0) / base, 2)
        self.assertAlmostEqual(lost_expected(0.001, 60.0, 10, 300.0) / base, 3)

    def test_repair_time(self) -> None:
        """The interval divided by the number of neighbors, 5 s of gossip and 30 s of hold-down."""
        self.assertEqual(self.repair_time(20, 3), 600 / 6 + 35)
        self.assertEqual(self.repair_time(20, 5), 600 / 10 + 35)
        self.assertEqual(self.repair_time(4, 3), 600 / 3 + 35)
        self.assertEqual(self.repair_time(1, 3), 600 + 35)

    def repair_time(self, nodes: int, neighbors: int) -> float:
        run = run_of(nodes=nodes, neighbors=neighbors, duration="1s")
        run.play()
        return repair_time(run)

    def test_of_a_run(self) -> None:
        """From the deaths that there were, by the time that all nodes together lived."""
        run = self.run_of_churn(10, session="3m", duration="3m", values="7", lookups_per_second="0")
        deaths = run.notes["deaths"]
        self.assertGreater(deaths, 0)
        lived = sum(
            min(180, sample.seconds) - min(180, before.seconds)
            for before, sample in zip(run.samples, run.samples[1:], strict=False)
        )
        rate = deaths / (lived * 10)  # there are about ten all the time
        wanted = lost_expected(rate, repair_time(run), 7, 180)
        self.assertApproximates(run.lost_expected, wanted, wanted)
        self.assertGreater(run.lost_expected, 0)
