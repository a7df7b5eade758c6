"""Which topologies can be simulated, and with how many neighbors."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.interfaces import ITopologyFactory, ITopologyPlugin
from p2psip.node import installed
from p2psip.simulator.overlay import Overlay, Unsettled
from p2psip.simulator.run import Run
from p2psip.simulator.topologies import topology_named
from p2psip.topology.client import ChordClient

from .overlays import PlainChord, PlainFactory, converged, options_of, scenario_named, setting


class TopologyTests(SynchronousTestCase):
    def test_as_installed(self) -> None:
        self.assertIn(topology_named("CHORD-RELOAD"), installed().topologies)

    def test_fixed_number_of_neighbors(self) -> None:
        factory = topology_named("CHORD-RELOAD", 5)
        verifyObject(ITopologyFactory, factory)
        self.assertEqual(factory.name, "CHORD-RELOAD")
        for node in converged(20, neighbors=5).nodes.values():
            neighbors = node.topology.status()["neighbors"]
            self.assertEqual([len(neighbors[side]) for side in ("predecessors", "successors")], [5, 5])

    def test_client(self) -> None:
        host = next(iter(converged(2).nodes.values())).topology._host
        self.assertIsInstance(topology_named("CHORD-RELOAD", 5).build_client(host), ChordClient)

    def test_unknown(self) -> None:
        error = self.assertRaises(LookupError, topology_named, "KADEMLIA")
        self.assertIn("no Topology Plug-in KADEMLIA is installed, only ", str(error))
        self.assertIn("CHORD-RELOAD", str(error))


class ThirdPartyTests(SynchronousTestCase):
    """A topology that only does what every topology does."""

    def run_of(self, name: str, nodes: int, **typed: str) -> Run:
        scenario = scenario_named(name)
        return Run(scenario, setting(nodes, topology=PlainFactory()), options_of(scenario, **typed))

    def test_it_is_one(self) -> None:
        overlay = Overlay(setting(1, topology=PlainFactory()))
        topology = overlay.found().topology
        verifyObject(ITopologyFactory, PlainFactory())
        verifyObject(ITopologyPlugin, topology)
        self.assertIsInstance(topology, PlainChord)

    def test_unsettled(self) -> None:
        """It cannot begin in the middle; who asks for that is told what to do."""
        for name in ("lookup", "churn", "mass-failure", "partition"):
            error = self.assertRaises(Unsettled, self.run_of(name, 5).play)
            self.assertEqual(str(error), "PLAIN does not implement ISettled: begin with growth")

    def test_growth(self) -> None:
        run = self.run_of("growth", 6, joins_per_second="0.5", settle="30s")
        run.play()
        self.assertEqual((len(run.overlay.ring), run.samples[-1].consistent, run.invariants.count), (6, 1, 0))
        self.assertTrue(all(isinstance(node.topology, PlainChord) for node in run.overlay.nodes.values()))
