"""Every installed scenario with 200 nodes, and what is to come of it.

They are shortened by their options: all of them together take two minutes of one core.
"""

from __future__ import annotations

from math import ceil, log2
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2psip.simulator.report import report_of
from p2psip.simulator.scenarios import installed
from tests.simulator.overlays import played

NODES = 200
HALF_LOG2 = 0.5 * log2(NODES)


class ScenarioTests(SynchronousTestCase):
    """One test for each scenario, which is named for it."""

    def play(self, name: str, neighbors: int | None = None, **typed: str) -> dict[str, Any]:
        """The report of a scenario in which nothing happened that must not, and whose ring is right in the end."""
        report = report_of(played(name, NODES, {"neighbors": neighbors}, **typed))
        self.assertEqual(report["invariants"], {"violations": 0, "told": []})
        self.assertEqual(report["ring"]["consistent"], 1)
        self.assertEqual(report["samples"][-1]["double_claims"], 0)
        return report

    def assertRate(self, outcomes: dict[str, Any], least: float, least_at_once: float = 0.0) -> None:
        """So many were right, and so many without retransmission."""
        self.assertGreaterEqual(outcomes["success_rate"], least, outcomes["failures"])
        self.assertGreaterEqual(outcomes["without_retransmission_rate"], least_at_once)

    def test_all(self) -> None:
        """A scenario that is new is tested here as well."""
        tested = {name.removeprefix("test_").replace("_", "-") for name in dir(self) if name.startswith("test_")}
        self.assertEqual({scenario.name for scenario in installed()} - tested, set())

    def test_lookup(self) -> None:
        """Half the logarithm of N, as Chord has it."""
        report = self.play("lookup", lookups="5000", values="50")
        self.assertEqual((report["lookups"]["total"], report["lookups"]["success_rate"]), (5000, 1))
        self.assertEqual((report["fetches"]["success_rate"], report["stores"]["correct"]), (1, 50))
        self.assertLessEqual(report["hops"]["mean"], HALF_LOG2 + 0.1)
        self.assertEqual(report["values"]["lost"], 0)

    def test_lookup_with_few_neighbors(self) -> None:
        """The least that RFC 6940 asks for costs a part of a hop."""
        report = self.play("lookup", neighbors=3, lookups="5000", values="50")
        self.assertEqual((report["lookups"]["total"], report["lookups"]["success_rate"]), (5000, 1))
        self.assertLessEqual(report["hops"]["mean"], HALF_LOG2 + 0.75)
        self.assertEqual(report["tables"]["neighbors"]["max"], 3)

    def test_growth(self) -> None:
        """All join, while others look up."""
        report = self.play("growth", joins_per_second="3", settle="1m", lookups_per_second="3")
        self.assertEqual(report["findings"]["joined"], NODES)
        self.assertLess(report["findings"]["join_seconds"]["max"], 30)
        self.assertGreater(report["lookups"]["total"], 100)
        self.assertRate(report["lookups"], 0.999, 0.99)

    def test_churn(self) -> None:
        """A third of the nodes die, and hardly anybody notices."""
        report = self.play("churn", session="20m", duration="8m")
        self.assertGreater(report["findings"]["deaths"], 30)
        self.assertGreater(report["lookups"]["total"], 2000)
        self.assertRate(report["lookups"], 0.999, 0.995)
        self.assertRate(report["fetches"], 0.995, 0.99)
        self.assertRate(report["stores"], 0.99)
        self.assertEqual(report["values"]["acknowledged"], NODES)
        self.assertLessEqual(report["values"]["lost"], ceil(report["values"]["lost_expected"]))

    def test_mass_failure(self) -> None:
        """Three of ten nodes die in one moment; what is lost was at none but these."""
        report = self.play("mass-failure", fraction="0.3", duration="4m")
        self.assertEqual(report["samples"][-1]["peers"], 0.7 * NODES)
        findings = report["findings"]
        self.assertLessEqual(findings["consistent_after_seconds"], findings["consistent_within_bound"])
        self.assertLessEqual(report["values"]["lost"], report["values"]["lost_expected"])
        self.assertRate(report["lookups"], 0.999, 0.98)

    def test_partition(self) -> None:
        """One ring again, and of two values that were written on two sides the newer one wins."""
        report = self.play("partition", apart="2m", duration="14.5m", values="50", lookups_per_second="1")
        self.assertLess(report["ring"]["least_consistent"], 0.5)
        findings = report["findings"]
        self.assertLessEqual(findings["healed_after_seconds"], findings["healed_within_bound"])
        self.assertTrue(findings["newest_value_wins"])
        self.assertEqual((report["fetches"]["total"], report["values"]["lost"]), (100, 0))
