"""Plots of what a simulation tells."""

from __future__ import annotations

import sys
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2psip.simulator.plots import MOST_PARAMETERS, NoMatplotlib, figures, require_matplotlib, write_plots

from .overlays import small_report

PNG = b"\x89PNG\r\n\x1a\n"

AXES = {
    "hops": ("overlay hops from who asks to the responsible peer", "lookups [%]"),
    "latency": ("from the lookup to its answer [ms]", "so many stay below [%]"),
    "load": ("maintenance that a node sends [bytes per second]", "so many stay below [%]"),
    "success": ("simulated time [min]", "lookups [%]"),
    "ring": ("simulated time [min]", "peers with right successors [%]"),
    "maintenance": ("simulated time [min]", "maintenance [bytes per node and second]"),
    "replicas": ("simulated time [min]", "values (first seed)"),
    "size": ("simulated time [min]", "peers"),
    "tables": ("simulated time [min]", "per node"),
}
"""Each plot, and what its axes say."""


def without_matplotlib(case: SynchronousTestCase) -> None:
    """Until the end of the test matplotlib cannot be imported, as if it were not installed."""
    require_matplotlib()
    case.addCleanup(sys.modules.__setitem__, "matplotlib", sys.modules["matplotlib"])
    sys.modules["matplotlib"] = None  # type: ignore[assignment]


def drawn(*reports: dict[str, Any]) -> dict[str, Any]:
    """Each figure, by its name."""
    return dict(figures(reports))


@cache
def of_two_seeds() -> dict[str, Any]:
    """Figures that nobody may change."""
    return drawn(small_report(0), small_report(1))


def heights(axes: Any) -> dict[float, float]:
    """Of the bars of a figure, by where they stand."""
    return {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in axes.patches}


class FileTests(SynchronousTestCase):
    def test_written(self) -> None:
        """Every plot is a PNG file, named for the scenario."""
        folder = Path(self.mktemp())
        folder.mkdir()
        written = list(write_plots(folder, [small_report()]))
        self.assertEqual([path.name for path in written], [f"churn-{name}.png" for name in AXES])
        self.assertEqual(sorted(folder.iterdir()), sorted(written))
        for path in written:
            content = path.read_bytes()
            self.assertEqual(content[:8], PNG)
            self.assertGreater(len(content), 5000)

    def test_without_matplotlib(self) -> None:
        """The text says what to install."""
        without_matplotlib(self)
        for fails in (require_matplotlib, lambda: drawn(small_report()), lambda: list(write_plots(Path(), []))):
            error = self.assertRaises(NoMatplotlib, fails)
            self.assertEqual(str(error), "plots need matplotlib: pip install 'p2psip[simulator]'")


class FigureTests(SynchronousTestCase):
    """Each figure can be read alone."""

    def setUp(self) -> None:
        self.reports = [small_report(seed) for seed in (0, 1)]
        self.figures = of_two_seeds()

    def lines(self, name: str) -> dict[str, tuple[list[float], list[float]]]:
        """The lines of a figure, by their labels."""
        (axes,) = self.figures[name].axes
        return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}

    def samples(self, name: str) -> list[float]:
        """What all samples of the first seed but the first say."""
        return [sample[name] for sample in self.reports[0]["samples"][1:]]

    def assertSeries(self, found: tuple[list[float], list[float]], wanted: list[float]) -> None:
        times, values = found
        self.assertEqual(times, [seconds / 60 for seconds in self.samples("seconds")])
        self.assertEqual(values, wanted)

    def test_titles(self) -> None:
        titles = {name: figure.axes[0].get_title(loc="left") for name, figure in self.figures.items()}
        self.assertEqual(titles.keys(), AXES.keys())
        self.assertEqual({title.partition(": ")[0] for title in titles.values()}, {"churn"})
        self.assertEqual(len(set(titles.values())), len(AXES))

    def test_units(self) -> None:
        for name, figure in self.figures.items():
            (axes,) = figure.axes
            self.assertEqual((axes.get_xlabel(), axes.get_ylabel()), AXES[name])

    def test_parameters(self) -> None:
        """Those of the run, and all its seeds."""
        for figure in self.figures.values():
            caption = figure.get_supxlabel()
            self.assertTrue(caption.startswith("p2psip simulate churn; nodes 12; "), caption)
            words = caption.replace("\n", "; ").split("; ")
            for part in ("seed 0, 1", "latency uniform:10ms:90ms", "loss 0.0", "session 300.0", "values 6"):
                self.assertIn(part, words)
            self.assertNotIn("trace", caption)
            self.assertTrue(all(len(line) <= MOST_PARAMETERS + 30 for line in caption.split("\n")))

    def test_legends(self) -> None:
        """Where there is more than one line each says what it is."""
        for name, figure in self.figures.items():
            (axes,) = figure.axes
            legend = axes.get_legend()
            self.assertIsNotNone(legend, name)
            self.assertTrue(all(text.get_text() for text in legend.get_texts()))

    def test_hops(self) -> None:
        """Those of all seeds together, in per cent, and their mean."""
        counted: dict[int, int] = {}
        for report in self.reports:
            for hops, count in report["hops"]["distribution"].items():
                counted[int(hops)] = counted.get(int(hops), 0) + count
        total = sum(counted.values())
        bars = heights(self.figures["hops"].axes[0])
        self.assertEqual(bars.keys(), counted.keys())
        for hops, count in counted.items():
            self.assertAlmostEqual(bars[hops], 100 * count / total)
        mean = sum(hops * count for hops, count in counted.items()) / total
        self.assertIn(f"mean {mean:.2f}", self.lines("hops"))

    def test_percentiles(self) -> None:
        """How much stays below what, in steps of five per cent."""
        reports = deepcopy(self.reports)
        reports[0]["lookups"]["seconds"]["percentiles"] = [number / 1000 for number in range(21)]
        reports[1]["load"]["maintenance_bytes_per_second"]["percentiles"] = [float(number) for number in range(21)]
        self.figures = drawn(*reports)
        times, shares = self.lines("latency")["seed 0"]
        for found, wanted in ((times, range(21)), (shares, range(0, 101, 5))):
            self.assertEqual([round(value, 9) for value in found], [*wanted])
        self.assertEqual(self.lines("load")["seed 1"][0], [*range(21)])

    def test_over_time(self) -> None:
        for name, what, factor in (
            ("ring", "consistent", 100), ("maintenance", "bytes_per_node_second", 1), ("size", "peers", 1),
        ):  # fmt: skip
            lines = self.lines(name)
            self.assertEqual(list(lines), ["seed 0", "seed 1"])
            self.assertSeries(lines["seed 0"], [factor * value for value in self.samples(what)])

    def test_tables(self) -> None:
        lines = self.lines("tables")
        self.assertEqual(len(lines), 4)
        self.assertSeries(lines["members, seed 0"], self.samples("members_per_node"))
        self.assertSeries(lines["links, seed 0"], self.samples("links_per_node"))

    def test_success(self) -> None:
        """Where there were lookups."""
        reports = deepcopy(self.reports)
        for sample, (total, right, first) in zip(
            reports[0]["samples"][1:], ((0, 0, 0), (4, 3, 2), *[(1, 1, 1)] * 99), strict=False
        ):
            sample |= {"lookups": total, "lookups_right": right, "lookups_first": first}
        self.figures = drawn(*reports)
        lines = self.lines("success")
        self.assertEqual(len(lines), 4)
        times = [seconds / 60 for seconds in self.samples("seconds")[1:]]
        whole = [100.0] * (len(times) - 1)
        self.assertEqual(lines["right, seed 0"], (times, [75.0, *whole]))
        self.assertEqual(lines["right without retransmission, seed 0"], (times, [50.0, *whole]))

    def test_replicas(self) -> None:
        """Of the first seed: how many values have so many copies, also where a report was read from JSON."""
        reports = deepcopy(self.reports)
        reports[0]["samples"] = reports[0]["samples"][:3]
        for sample, replicas in zip(reports[0]["samples"], ({3: 6}, {"2": 1, "3": 5}, {3: 4, 0: 2}), strict=True):
            sample["replicas"] = replicas
        self.figures = drawn(*reports)
        found = {label: values for label, (_, values) in self.lines("replicas").items()}
        self.assertEqual(found, {"0 copies": [0, 0, 2], "2 copies": [0, 1, 0], "3 copies": [6, 5, 4]})

    def test_one_seed(self) -> None:
        self.figures = drawn(self.reports[1])
        self.assertIn("seed 1", self.figures["ring"].get_supxlabel().split("; "))
        self.assertIsNone(self.figures["ring"].axes[0].get_legend())

    def test_nothing_to_draw(self) -> None:
        """A plot without anything in it is left out."""
        report = deepcopy(self.reports[0])
        report["hops"]["distribution"] = {}
        report["lookups"]["seconds"]["percentiles"] = []
        report["load"]["maintenance_bytes_per_second"]["percentiles"] = []
        for sample in report["samples"]:
            sample |= {"lookups": 0, "replicas": {}}
        self.assertEqual(drawn(report).keys(), AXES.keys() - {"hops", "latency", "load", "success", "replicas"})
        report["samples"] = report["samples"][:1]
        self.assertEqual(drawn(report), {})
