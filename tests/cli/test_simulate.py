"""``p2psip simulate``: scenarios of small overlays, and what is wrong with options."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

import p2psip
from p2psip.cli.main import main
from p2psip.simulator.scenarios import installed
from tests.simulator.test_plots import AXES, PNG, without_matplotlib

THIRD_PARTY = '''
from twisted.plugin import IPlugin
from zope.interface import implementer, implementer_only

from p2psip.interfaces import ITopologyFactory, ITopologyPlugin
from p2psip.simulator.interfaces import IScenario, Option
from p2psip.topology.chord import Chord


@implementer(IPlugin, IScenario)
class Quake:
    name = "quake"
    summary = "The earth shakes."
    converged = True
    options = (Option("strength", 5.0, "How much.", float),)

    def duration(self, options, nodes):
        return 10.0

    def play(self, run, options):
        yield 10.0
        if options["strength"] > 8:
            run.invariants.violated("the house stands", "it fell down")

    def findings(self, run, options):
        return {"magnitude": options["strength"]}


@implementer_only(ITopologyPlugin)
class Plain(Chord):
    pass


@implementer(IPlugin, ITopologyFactory)
class PlainFactory:
    name = "PLAIN"

    def build(self, host):
        return Plain(host)

    def build_client(self, host):
        raise NotImplementedError


quake, plain = Quake(), PlainFactory()
'''


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["simulate", *arguments], terminal_width=100)


class SimulateTestCase(SynchronousTestCase):
    def printed(self, *arguments: str) -> str:
        """Standard output of a run that succeeds."""
        result = simulate(*arguments)
        self.assertEqual((result.exit_code, result.stderr), (0, ""), result.output)
        return result.stdout

    def assertError(self, text: str, *arguments: str, status: int = 1) -> None:
        """One line says what is wrong; where the usage is wrong, below how it is to be."""
        result = simulate(*arguments)
        self.assertEqual((result.exit_code, result.stdout), (status, ""), result.output)
        self.assertIsInstance(result.exception, SystemExit)
        *usage, last = result.stderr.splitlines()
        self.assertIn(text, last)
        self.assertTrue(last.startswith("Error: "), last)
        self.assertEqual(len(usage), 3 if status == 2 else 0, result.stderr)


class HelpTests(SimulateTestCase):
    def test_scenarios(self) -> None:
        """Each is listed, with one sentence."""
        text = " ".join(self.printed("--help").split())
        for scenario in installed():
            self.assertIn(f"{scenario.name} {scenario.summary.split('.')[0].partition(',')[0]}", text)
        self.assertIn("simulate", CliRunner().invoke(main, ["--help"]).stdout)

    def test_options(self) -> None:
        """Those of all scenarios and its own, with their defaults."""
        for scenario in installed():
            text = " ".join(self.printed(scenario.name, "--help").split())
            self.assertIn(scenario.summary, text)
            for name, default in (
                ("nodes", "100"), ("seed", "0"), ("repeat", "1"), ("latency", "50ms"), ("loss", "0.0"),
                ("topology", "CHORD-RELOAD"),
            ):  # fmt: skip
                self.assertIn(f"[default: {default}", text.partition(f"--{name} ")[2].partition(" --")[0], name)
            for name in ("neighbors", "json", "csv", "plots"):
                self.assertIn(f"--{name} ", text)
            for option in scenario.options:
                told = text.partition(f"--{option.name} ")[2].partition(" --")[0]
                self.assertIn(" ".join(option.help.split()), told)
                if option.default is None:
                    self.assertNotIn("default", told)
                else:
                    self.assertIn(f"[default: {option.default}]", told)


class PlayTests(SimulateTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def report(self) -> Any:
        return json.loads((self.folder / "report.json").read_text())

    def test_summary(self) -> None:
        arguments = ("lookup", "--nodes", "8", "--lookups", "40", "--values", "3", "--seed", "7")
        text = " ".join(self.printed(*arguments).split())
        for part in (
            *("lookup, 8 nodes, seed 7", "lookups 40, 100.0000 % right, 100.0000 % without retransmission"),
            *("values 3 acknowledged, 0 lost, 0.00 lost to be expected", "bytes and", "messages per node and second"),
            *("100.00 % of the peers right in the end", "78 s simulated in", "MiB at most", "half log2 nodes 1.50"),
        ):
            self.assertIn(part, text)

    def test_nothing_done(self) -> None:
        text = " ".join(self.printed("lookup", "--nodes", "2", "--lookups", "0", "--values", "0").split())
        self.assertIn("lookups none fetches none", text)

    def test_files(self) -> None:
        """JSON, CSV and plots of the same run."""
        arguments = ("churn", "--nodes", "8", "--session", "5m", "--duration", "1m", "--lookups-per-second", "2")
        files = ("--json", self.path("report.json"), "--csv", self.path("samples.csv"), "--plots", self.path("a/plots"))
        text = self.printed(*arguments, *files)
        report = self.report()
        self.assertEqual((report["scenario"], report["parameters"]["session"]), ("churn", 300))
        with open(self.path("samples.csv"), newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([float(row["seconds"]) for row in rows], [sample["seconds"] for sample in report["samples"]])
        for name in AXES:
            path = self.folder / "a" / "plots" / f"churn-{name}.png"
            self.assertEqual(path.read_bytes()[:8], PNG)
            self.assertIn(f"wrote {path}", text)

    def test_options(self) -> None:
        """All that can be typed reaches the run."""
        self.printed(
            *("partition", "--nodes", "6", "--seed", "3", "--latency", "uniform:1ms:9ms", "--loss", "0.001"),
            *("--neighbors", "4", "--apart", "20s", "--duration", "14m", "--values", "2"),
            *("--lookups-per-second", "0.5", "--json", self.path("report.json")),
        )
        wanted = {
            "nodes": 6, "seed": 3, "latency": "uniform:1ms:9ms", "loss": 0.001, "topology": "CHORD-RELOAD",
            "neighbors": 4, "apart": 20, "duration": 840, "values": 2, "lookups-per-second": 0.5,
        }  # fmt: skip
        self.assertEqual(self.report()["parameters"], wanted)
        self.assertEqual(self.report()["tables"]["neighbors"]["max"], 4)

    def test_parts_of_a_whole(self) -> None:
        self.printed("mass-failure", "--nodes", "10", "--fraction", "20%", "--duration", "2m", "--values", "1",
                     "--json", self.path("report.json"))  # fmt: skip
        self.assertEqual(self.report()["samples"][-1]["peers"], 8)

    def test_trace(self) -> None:
        (self.folder / "trace").write_text("5,leave,1\n6,leave,2\n")
        self.printed("churn", "--nodes", "6", "--trace", self.path("trace"), "--duration", "20s",
                     "--json", self.path("report.json"))  # fmt: skip
        self.assertEqual(self.report()["findings"]["deaths"], 2)
        self.assertEqual(self.report()["parameters"]["trace"], "2 events")

    def test_repetitions(self) -> None:
        """With one seed after the other; the summary has the interval of their success."""
        arguments = ("lookup", "--nodes", "6", "--lookups", "20", "--values", "0", "--seed", "5", "--repeat", "3")
        text = self.printed(*arguments, "--json", self.path("report.json"), "--csv", self.path("samples.csv"))
        self.assertIn("success rate", text)
        self.assertIn("1.000000 ± 0.000000 (95 %)", text)
        report = self.report()
        self.assertEqual(report["parameters"]["seeds"], [5, 6, 7])
        self.assertEqual(len(set(report["trace_hash"])), 3)
        self.assertEqual(len(report["repetitions"]), 3)
        with open(self.path("samples.csv"), newline="") as file:
            self.assertEqual({row["seed"] for row in csv.DictReader(file)}, {"5", "6", "7"})

    def test_the_same_again(self) -> None:
        hashes = []
        arguments = ("lookup", "--nodes", "5", "--lookups", "9", "--values", "2", "--json", self.path("report.json"))
        for _ in range(2):
            self.printed(*arguments)
            hashes.append(self.report()["trace_hash"])
        self.assertEqual(*hashes)

    def test_violations(self) -> None:
        """They are told, all files are written, and the exit status is 1."""
        result = simulate("mass-failure", "--nodes", "6", "--values", "1", "--duration", "0",
                          "--json", self.path("report.json"))  # fmt: skip
        self.assertEqual(result.exit_code, 1)
        self.assertIsInstance(result.exception, SystemExit)
        first, last = result.stderr.splitlines()
        self.assertEqual(first, "violated at 60 s: consistent again: not within 120 s")
        self.assertEqual(last, "1 violations of what must hold")
        self.assertIn("mass-failure, 6 nodes, seed 0", result.stdout)
        self.assertEqual(self.report()["invariants"]["violations"], 1)


class OptionTests(SimulateTestCase):
    def test_values(self) -> None:
        for scenario, option, typed, text in (
            ("lookup", "nodes", "1", "'--nodes'"),
            ("lookup", "nodes", "many", "'--nodes'"),
            ("lookup", "seed", "x", "'--seed'"),
            ("lookup", "repeat", "0", "'--repeat'"),
            ("lookup", "loss", "1.5", "'--loss'"),
            ("lookup", "neighbors", "2", "'--neighbors'"),
            ("lookup", "latency", "5x", "'5x' is not a span of time"),
            ("lookup", "latency", "a:b", "'a:b' is none of 50ms"),
            ("lookup", "lookups", "-1", "'-1' is not a whole number"),
            ("lookup", "duration", "x", "'x' is not a span of time"),
            ("churn", "session", "0", "'0' is less than 1 s"),
            ("churn", "values", "1.5", "'1.5' is not a whole number"),
            ("churn", "lookups-per-second", "-2", "'-2' is not a number from 0 on"),
            ("growth", "joins-per-second", "x", "'x' is not a number from 0 on"),
            ("growth", "settle", "-1s", "'-1s' is not a span of time"),
            ("mass-failure", "fraction", "110%", "'110%' is not a part of a whole"),
            ("partition", "apart", "1s", "'1s' is less than 10 s"),
        ):
            self.assertError(text, scenario, f"--{option}", typed, status=2)

    def test_unknown(self) -> None:
        self.assertError("No such option", "lookup", "--session", "5m", status=2)
        self.assertError("No such command 'quake'", "quake", status=2)

    def test_trace(self) -> None:
        path = Path(self.mktemp())
        self.assertError("the trace cannot be read", "churn", "--trace", str(path), status=2)
        path.write_text("1,leave,1\n1,stay,2\n")
        text = f"{path}, line 2: 'stay' is neither join nor leave"
        self.assertError(text, "churn", "--trace", str(path), status=2)

    def test_topology(self) -> None:
        text = "no Topology Plug-in KADEMLIA is installed, only CHORD-RELOAD"
        self.assertError(text, "lookup", "--topology", "KADEMLIA")

    def test_where_nothing_can_be_written(self) -> None:
        """It is found out before the simulation."""
        folder = Path(self.mktemp())
        many = ("lookup", "--nodes", "1000000")
        self.assertError(f"there is no directory {folder} for x.json", *many, "--json", str(folder / "x.json"))
        self.assertError(f"there is no directory {folder} for x.csv", *many, "--csv", str(folder / "x.csv"))
        folder.write_text("a file")
        self.assertError("Not a directory", *many, "--plots", str(folder / "plots"))
        self.assertError("is a file", *many, "--plots", str(folder), status=2)

    def test_plots_without_matplotlib(self) -> None:
        """It is found out before the simulation as well."""
        without_matplotlib(self)
        text = "plots need matplotlib: pip install 'p2psip[simulator]'"
        self.assertError(text, "lookup", "--nodes", "1000000", "--plots", self.mktemp())


class ThirdPartyTests(SynchronousTestCase):
    """A scenario and a topology of another distribution, in processes that find them on Python's search path."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        plugins = self.folder / "p2psip" / "plugins"
        plugins.mkdir(parents=True)
        (plugins / "third_party.py").write_text(THIRD_PARTY)

    def simulate(self, *arguments: str) -> tuple[int, str]:
        """Exit status, and all that was printed, with single spaces."""
        path = os.pathsep.join([str(self.folder), str(Path(p2psip.__file__).parent.parent)])
        run = subprocess.run(
            [sys.executable, "-c", "from p2psip.cli.main import main; main()", "simulate", *arguments],
            env={**os.environ, "PYTHONPATH": path, "COLUMNS": "100"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertNotIn("Traceback", run.stderr)
        return run.returncode, " ".join((run.stdout + run.stderr).split())

    def test_scenario(self) -> None:
        status, text = self.simulate("--help")
        self.assertEqual((status, "quake The earth shakes." in text), (0, True), text)
        status, text = self.simulate("quake", "--nodes", "4", "--strength", "7.25")
        self.assertEqual((status, "quake, 4 nodes, seed 0" in text), (0, True), text)
        self.assertIn("magnitude 7.25", text)
        status, text = self.simulate("quake", "--nodes", "4", "--strength", "9")
        self.assertEqual(status, 1)
        self.assertIn("the house stands: it fell down", text)

    def test_topology(self) -> None:
        """Without `ISettled` it can grow, and nothing else; it has as many neighbors as it likes."""
        status, text = self.simulate("growth", "--nodes", "4", "--topology", "PLAIN", "--settle", "10s")
        self.assertEqual((status, "joined 4" in text), (0, True), text)
        found = self.simulate("lookup", "--nodes", "4", "--topology", "PLAIN")
        self.assertEqual(found, (1, "Error: PLAIN does not implement ISettled: begin with growth"))
        found = self.simulate("growth", "--nodes", "4", "--topology", "PLAIN", "--neighbors", "4")
        self.assertEqual(found, (1, "Error: the number of neighbors of PLAIN cannot be set"))
