"""What a simulation tells in the end."""

from __future__ import annotations

import csv
import json
from copy import deepcopy
from decimal import Decimal
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2psip.simulator.figures import interval
from p2psip.simulator.interfaces import Option
from p2psip.simulator.overlay import Setting
from p2psip.simulator.report import combined, report_of, write_csv
from p2psip.simulator.run import Run
from p2psip.simulator.topologies import topology_named

from .overlays import played, setting, small_report
from .test_run import Scripted

KEYS = {
    "hops": {"mean", "p50", "p99"},
    "lookups": {"total", "correct", "success_rate"},
    "values": {"acknowledged", "lost", "lost_expected"},
    "maintenance": {"bytes_per_node_second", "messages_per_node_second"},
}
"""What programs rely on; more may be there."""
SINGLE = {"parameters", "wall_seconds", "peak_rss_bytes", "trace_hash"}


class ReportTests(SynchronousTestCase):
    def test_keys(self) -> None:
        report = small_report()
        self.assertLessEqual(SINGLE | KEYS.keys(), report.keys())
        for name, wanted in KEYS.items():
            self.assertLessEqual(wanted, report[name].keys(), name)

    def test_json(self) -> None:
        """It is the same when it was written and read, but that JSON has text for keys."""
        report = small_report()
        read = json.loads(json.dumps(report))
        self.assertEqual(read["samples"][-1]["replicas"], {str(k): v for k, v in report["values"]["replicas"].items()})
        self.assertEqual(json.loads(json.dumps(read)), read)
        self.assertEqual(read["lookups"], report["lookups"])

    def test_parameters(self) -> None:
        """All that is needed to repeat it."""
        parameters = small_report()["parameters"]
        wanted = {
            "nodes": 12, "seed": 0, "latency": "uniform:10ms:90ms", "loss": 0.0, "topology": "CHORD-RELOAD",
            "session": 300, "duration": 180, "trace": None, "lookups-per-second": 1, "values": 6,
        }  # fmt: skip
        self.assertEqual({name: parameters[name] for name in wanted}, wanted)
        self.assertEqual(parameters["neighbors"], "O(log N)")

    def test_parameters_of_other_kinds(self) -> None:
        """A third party's options may have any value."""
        scenario = Scripted()
        made_with = Setting(
            nodes=2,
            topology=topology_named("CHORD-RELOAD", 5),
            neighbors=5,
            configuration={"chord_update_interval": 60, "bad_nodes": frozenset()},
        )
        scenario.options = (*scenario.options, Option("part", "0.5", "A part.", Decimal))
        values = {"values": [1, 2, 3], "duration": 20.0, "part": Decimal("0.5")}
        run = Run(scenario, made_with, values)
        run.play()
        parameters = json.loads(json.dumps(report_of(run)))["parameters"]
        self.assertEqual(parameters["neighbors"], 5)
        self.assertEqual(parameters["values"], "3 events")
        self.assertEqual(parameters["part"], "0.5")
        self.assertEqual((parameters["chord_update_interval"], parameters["bad_nodes"]), (60, "frozenset()"))

    def test_figures(self) -> None:
        """They are those of the run."""
        run = played("churn", 12, {"seed": 3}, session="5m", duration="2m", lookups_per_second="2", values="6")
        report = report_of(run)
        lookups = run.workload.lookups
        self.assertEqual(report["hops"]["mean"], sum(lookups.hops) / len(lookups.hops))
        self.assertEqual(sum(report["hops"]["distribution"].values()), lookups.right)
        self.assertEqual(report["hops"]["distribution"]["1"], lookups.hops.count(1))
        self.assertEqual((report["lookups"]["total"], report["lookups"]["correct"]), (lookups.total, lookups.right))
        self.assertEqual(report["lookups"]["success_rate"], lookups.right / lookups.total)
        self.assertEqual(report["lookups"]["without_retransmission"], lookups.first)
        self.assertEqual(sum(report["lookups"]["failures"].values()), lookups.total - lookups.right)
        values = report["values"]
        self.assertEqual((values["acknowledged"], values["lost"]), (6, run.lost))
        self.assertEqual(values["lost_expected"], run.lost_expected)
        self.assertEqual(sum(values["replicas"].values()), 6)
        maintenance, traffic = report["maintenance"], run.overlay.traffic
        self.assertAlmostEqual(maintenance["bytes_per_node_second"], traffic.maintenance_bytes / run.node_seconds)
        self.assertAlmostEqual(maintenance["messages_per_node_second"], traffic.maintenance_messages / run.node_seconds)
        summed = sum(method["bytes"] for method in maintenance["by_method"].values())
        self.assertAlmostEqual(summed, maintenance["bytes_per_node_second"])
        self.assertEqual(report["trace_hash"], traffic.trace_hash)
        self.assertEqual(report["simulated_seconds"], run.samples[-1].seconds)
        self.assertEqual(report["ring"]["least_consistent"], min(sample.consistent for sample in run.samples))
        self.assertEqual(report["scenario"], "churn")
        self.assertEqual(report["findings"]["deaths"], run.notes["deaths"])

    def test_resources_of_the_machine(self) -> None:
        report = small_report()
        self.assertGreater(report["peak_rss_bytes"], 10 << 20)
        self.assertGreater(report["wall_seconds"], report["built_seconds"])
        whole = report["wall_seconds_per_simulated_second"] * report["simulated_seconds"]
        self.assertLessEqual(whole, report["wall_seconds"])

    def test_violations(self) -> None:
        scenario = Scripted()
        run = Run(scenario, setting(3), {"values": None, "duration": 10.0})
        run.play()
        run.invariants.violated("one ring", "it is not")
        violations = report_of(run)["invariants"]
        self.assertEqual(violations["violations"], 1)
        self.assertEqual(violations["told"], [{"when": 28.0, "invariant": "one ring", "text": "it is not"}])

    def test_load(self) -> None:
        """How unequal the work of the nodes is."""
        run = played("lookup", 12, lookups="100", values="20", duration="60s")
        load = report_of(run)["load"]
        kept = [node.storage.values for node in run.overlay.nodes.values()]
        self.assertEqual((sum(kept), load["values_kept"]["max"]), (60, max(kept)))
        self.assertAlmostEqual(load["values_kept"]["mean"], 5)
        least, *_, most = load["values_kept"]["percentiles"]
        self.assertEqual((least, most), (min(kept), max(kept)))
        self.assertGreater(load["messages_forwarded"]["max"], 0)


class RepetitionTests(SynchronousTestCase):
    """Several seeds as one report."""

    def setUp(self) -> None:
        self.reports = [small_report(seed) for seed in (0, 1, 2)]
        self.report = combined(self.reports)

    def of_each(self, *path: str) -> list[Any]:
        found: list[Any] = self.reports
        for name in path:
            found = [one[name] for one in found]
        return found

    def test_one_alone(self) -> None:
        self.assertEqual(combined(self.reports[:1]), self.reports[0])

    def test_means(self) -> None:
        for path in (("hops", "mean"), ("lookups", "success_rate"), ("lookups", "total"), ("wall_seconds",)):
            found = self.report
            for name in path:
                found = found[name]
            self.assertAlmostEqual(found, sum(self.of_each(*path)) / 3, 9, path)
        self.assertNotEqual(*self.of_each("lookups", "total")[:2])

    def test_intervals(self) -> None:
        """By the path of each figure."""
        intervals = self.report["intervals"]
        self.assertEqual(intervals["hops.mean"], interval(self.of_each("hops", "mean")))
        self.assertEqual(intervals["findings.deaths"], interval(self.of_each("findings", "deaths")))
        self.assertFalse([path for path in intervals if path.startswith(("parameters", "samples", "rejected"))])

    def test_what_is_not_averaged(self) -> None:
        """The seeds, the hashes and the violations are of all; the parameters are not mixed."""
        parameters = self.report["parameters"]
        self.assertEqual((parameters["repeat"], parameters["seeds"], parameters["nodes"]), (3, [0, 1, 2], 12))
        self.assertEqual(self.report["trace_hash"], self.of_each("trace_hash"))
        self.assertEqual(len(set(self.report["trace_hash"])), 3)
        self.assertEqual(self.report["repetitions"], self.reports)
        json.dumps(self.report)

    def test_violations(self) -> None:
        reports = deepcopy(self.reports)
        told = {"when": 1.0, "invariant": "one ring", "text": "it is not"}
        reports[2]["invariants"] = {"violations": 5, "told": [told]}
        report = combined(reports)
        self.assertEqual(report["invariants"], {"violations": 5, "told": [told]})

    def test_what_was_found_to_be_so(self) -> None:
        """It has to be so each time."""
        reports = deepcopy(self.reports)
        for report, first, second in zip(reports, (True, True, True), (True, False, True), strict=True):
            report["findings"] |= {"newest_value_wins": first, "another": second}
        findings = combined(reports)["findings"]
        self.assertEqual((findings["newest_value_wins"], findings["another"]), (True, False))

    def test_the_first_is_left_as_it_is(self) -> None:
        before = deepcopy(self.reports[0])
        combined(self.reports)
        self.assertEqual(self.reports[0], before)


class CSVTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def rows(self, *reports: dict[str, Any]) -> list[dict[str, str]]:
        write_csv(self.path, reports)
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def test_a_row_for_each_sample(self) -> None:
        reports = [small_report(seed) for seed in (0, 1)]
        rows = self.rows(*reports)
        samples = [(report["parameters"]["seed"], sample) for report in reports for sample in report["samples"]]
        self.assertEqual(len(rows), len(samples))
        for row, (seed, sample) in zip(rows, samples, strict=True):
            self.assertEqual(int(row["seed"]), seed)
            for name in ("seconds", "nodes", "peers", "consistent", "bytes_per_node_second", "lookups_right"):
                self.assertEqual(float(row[name]), sample[name], name)

    def test_copies(self) -> None:
        """A column for each number of copies that some value has in some sample."""
        reports = [deepcopy(small_report(seed)) for seed in (0, 1)]
        reports[1]["samples"][0]["replicas"] = {0: 1, 7: 5}
        rows = self.rows(*reports)
        copies = [name for name in rows[0] if name.startswith("values_with_")]
        self.assertEqual((copies[0], copies[-1]), ("values_with_0_copies", "values_with_7_copies"))
        second = next(row for row in rows if row["seed"] == "1")
        self.assertEqual((second["values_with_0_copies"], second["values_with_7_copies"]), ("1", "5"))
        self.assertEqual((rows[0]["values_with_3_copies"], rows[0]["values_with_7_copies"]), ("6", "0"))

    def test_after_json(self) -> None:
        """A report that was read again has text for numbers of copies."""
        report = small_report()
        self.assertEqual(self.rows(json.loads(json.dumps(report))), self.rows(report))
