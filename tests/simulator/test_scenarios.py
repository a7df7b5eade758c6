"""The scenarios of this distribution, in small."""

from __future__ import annotations

from math import log2
from typing import Any

from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.simulator.interfaces import IScenario
from p2psip.simulator.run import Run
from p2psip.simulator.scenarios import installed
from p2psip.simulator.scenarios.growth import PATIENCE
from p2psip.simulator.scenarios.recovery import ring_is_right

from .overlays import options_of, played, scenario_named, setting

SMALL: dict[str, dict[str, str]] = {
    "churn": {"duration": "2m", "values": "5"},
    "growth": {"joins_per_second": "0.5", "settle": "30s"},
    "lookup": {"lookups": "50", "values": "5"},
    "mass-failure": {"duration": "2m", "values": "5"},
    "partition": {"apart": "20s", "duration": "2m", "values": "5"},
}


class ScenarioTestCase(SynchronousTestCase):
    def findings(self, run: Run) -> dict[str, Any]:
        return dict(run.scenario.findings(run, run.options))

    def invariants(self, run: Run) -> list[str]:
        """Which were violated."""
        return [violation.invariant for violation in run.invariants.violations]


class InstalledTests(ScenarioTestCase):
    def test_installed(self) -> None:
        self.assertLessEqual(SMALL.keys(), {scenario.name for scenario in installed()})

    def test_interfaces(self) -> None:
        for name in SMALL:
            verifyObject(IScenario, scenario_named(name))
            verifyObject(IPlugin, scenario_named(name))

    def test_options(self) -> None:
        """Each has a help, a name of its own and a default that can be read."""
        for name in SMALL:
            options = scenario_named(name).options
            self.assertEqual(len({option.name for option in options}), len(options))
            for option in options:
                option.value()
                self.assertTrue(option.help)

    def test_duration(self) -> None:
        """It takes about as long as it says, and no more than a minute of settling."""
        for name, typed in SMALL.items():
            run = played(name, 8, **typed)
            said = run.scenario.duration(run.options, 8)
            self.assertApproximates(run.samples[-1].seconds, said + 30, 31, name)
            self.assertEqual(self.invariants(run), [], name)


class LookupTests(ScenarioTestCase):
    def test_so_many(self) -> None:
        run = played("lookup", 16, lookups="300", values="20", duration="60s")
        workload = run.workload
        self.assertEqual((workload.lookups.total, workload.lookups.right), (300, 300))
        self.assertEqual((workload.stores.right, len(run.final_holders)), (20, 20))
        self.assertApproximates(workload.fetches.total, 200, 60)
        self.assertLess(max(workload.lookups.when), 60)
        self.assertGreater(max(workload.lookups.when) - min(workload.lookups.when), 50)

    def test_findings(self) -> None:
        """How far the hops are from half the logarithm of N."""
        run = played("lookup", 16, lookups="100", values="0")
        hops = run.workload.lookups.hops
        self.assertEqual(self.findings(run)["half_log2_nodes"], 2)
        above = self.findings(run)["mean_hops_above_half_log2_nodes"]
        self.assertAlmostEqual(above, sum(hops) / 100 - log2(16) / 2)

    def test_no_lookups(self) -> None:
        run = played("lookup", 4, lookups="0", values="0", duration="0")
        self.assertEqual(self.findings(run)["mean_hops_above_half_log2_nodes"], -1)


class GrowthTests(ScenarioTestCase):
    def test_all_join(self) -> None:
        run = played("growth", 10, joins_per_second="0.5", settle="60s")
        self.assertEqual((len(run.overlay.ring), run.samples[0].peers, run.samples[-1].consistent), (10, 1, 1))
        findings = self.findings(run)
        self.assertEqual(findings["joined"], 10)
        self.assertTrue(0 < findings["join_seconds"]["mean"] <= findings["join_seconds"]["max"] < 30)
        self.assertEqual(len(run.notes["join_seconds"]), 9)
        self.assertGreater(run.workload.lookups.total, 100)

    def test_those_who_cannot_join(self) -> None:
        """They are waited for, and then told of."""
        run = played("growth", 4, {"loss": 1.0}, joins_per_second="1", settle="0", lookups_per_second="0")
        self.assertEqual(self.invariants(run), ["every node joins"])
        self.assertEqual(run.invariants.violations[0].text, "3 did not within 300 s")
        self.assertGreater(run.invariants.violations[0].when, PATIENCE)


class MassFailureTests(ScenarioTestCase):
    def test_a_part_dies_at_once(self) -> None:
        scenario = scenario_named("mass-failure")
        run = Run(scenario, setting(20), options_of(scenario, fraction="30%", duration="3m", values="30"))
        died: list[float] = []
        run.overlay.changed.append(lambda node_id, peer: died.append(run.overlay.now))
        run.play()
        self.assertEqual(died, [60.0] * 6)
        self.assertEqual((len(run.overlay.ring), self.invariants(run)), (14, []))
        self.assertLessEqual(self.findings(run)["consistent_after_seconds"], 120)
        self.assertAlmostEqual(self.findings(run)["lost_expected_by_chance"], 30 * 0.3**3)
        self.assertLessEqual(run.lost, run.lost_expected)
        self.assertGreater(run.workload.fetches.total, 0)

    def test_somebody_is_left(self) -> None:
        """What only those held who died was to be expected to be lost."""
        run = played("mass-failure", 12, fraction="1", duration="3m", values="20")
        self.assertEqual(len(run.overlay.ring), 1)
        self.assertEqual(run.lost, run.lost_expected)
        self.assertGreater(run.lost, 10)
        self.assertEqual(self.invariants(run), [])

    def test_not_in_time(self) -> None:
        run = played("mass-failure", 8, duration="0", values="0")
        self.assertEqual(self.invariants(run), ["consistent again"])
        self.assertIsNone(self.findings(run)["consistent_after_seconds"])

    def test_ring_is_right(self) -> None:
        """Three successors, and nobody who claims what is another's."""
        run = played("lookup", 10, {"neighbors": 3}, lookups="0", values="0", duration="1")
        self.assertTrue(ring_is_right(run))
        ring, nodes = run.overlay.ring, run.overlay.nodes
        nodes[ring[4]].topology.link_closed(ring[3])
        self.assertFalse(ring_is_right(run))
        self.assertEqual(run.invariants.consistent, 1)
        nodes[ring[0]].topology.link_closed(ring[1])
        self.assertFalse(ring_is_right(run))
        self.assertLess(run.invariants.consistent, 1)


class PartitionTests(ScenarioTestCase):
    def test_two_halves(self) -> None:
        """Neither hears of the other, both have bootstrap nodes, and afterwards there is one ring again."""
        scenario = scenario_named("partition")
        run = Run(scenario, setting(12), options_of(scenario, apart="3m", duration="10m", values="10"))
        overlay = run.overlay
        seen: list[set[bool]] = []
        halves: list[int] = []

        def look() -> None:
            """Which pairs reach each other, of those with the same truth and of others."""
            addresses = {node_id: overlay.address(node) for node_id, node in overlay.nodes.items()}
            first = overlay.ring[0]
            ours = set(overlay.ring_of(first))
            listed = [node.node_id in ours for node in overlay.listed()]
            halves.extend((len(ours), listed.count(True)))
            for same in (True, False):
                others = [one for one in overlay.ring[1:] if (one in ours) == same]
                seen.append({overlay.network.reachable(addresses[first], addresses[one]) for one in others})

        overlay.clock.callLater(150, look)
        run.play()
        self.assertEqual((halves, seen), ([6, 2], [{True}, {False}]))
        self.assertEqual((self.invariants(run), run.samples[-1].consistent), ([], 1))
        findings = self.findings(run)
        self.assertLessEqual(findings["healed_after_seconds"], findings["healed_within_bound"])
        self.assertEqual(findings["healed_within_bound"], 870)

    def test_written_on_both_sides(self) -> None:
        """Each value once on either side; then each is read twice, and the newest has to have won."""
        run = played("partition", 12, apart="60s", duration="10m", values="10", lookups_per_second="0")
        self.assertEqual([value.attempted for value in run.workload.values], [3] * 10)
        self.assertEqual((run.workload.stores.total, run.workload.fetches.total), (30, 20))
        self.assertTrue(self.findings(run)["newest_value_wins"])
        run.workload.fetches.total += 1
        self.assertFalse(self.findings(run)["newest_value_wins"])

    def test_not_in_time(self) -> None:
        run = played("partition", 12, apart="2m", duration="0", values="0", lookups_per_second="0")
        self.assertEqual(self.invariants(run), ["one ring again"])
        self.assertIsNone(self.findings(run)["healed_after_seconds"])
