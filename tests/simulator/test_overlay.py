"""How a simulated overlay begins, who comes and goes, and the truth about it."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from p2psip.ids import NodeId, offset, within
from p2psip.node import Node
from p2psip.simulator.overlay import BOOTSTRAP_NODES, CACHED, EPOCH, Overlay
from p2psip.topology.membership import neighbors_for
from p2psip.topology.ring import nearest

from .overlays import converged, grown, setting


def neighbors_of(node: Node) -> tuple[list[str], list[str]]:
    """Predecessors and successors, the nearest first."""
    found = node.topology.status()["neighbors"]
    return found["predecessors"], found["successors"]


def hexes(ids: Sequence[NodeId]) -> list[str]:
    return [node_id.hex() for node_id in ids]


class ConvergeTests(SynchronousTestCase):
    """A ring that stands from the beginning on."""

    def assertTrueNeighbors(self, overlay: Overlay, wanted: int) -> None:
        for node_id, node in overlay.nodes.items():
            predecessors, successors = nearest(overlay.ring, node_id, wanted)
            self.assertEqual(neighbors_of(node), (hexes(predecessors), hexes(successors)))

    def test_everybody_is_a_peer(self) -> None:
        overlay = converged(40)
        self.assertEqual(len(overlay.nodes), 40)
        self.assertEqual(overlay.ring, sorted(overlay.nodes))
        self.assertTrue(all(node.joined for node in overlay.nodes.values()))
        self.assertEqual(overlay.clock.seconds(), EPOCH)

    def test_neighbors(self) -> None:
        """As many as the size of the overlay asks for, and no others than the nearest."""
        for nodes in (2, 3, 7, 16, 60):
            self.assertTrueNeighbors(converged(nodes), round(neighbors_for(nodes)))

    def test_fixed_number_of_neighbors(self) -> None:
        self.assertTrueNeighbors(converged(40, neighbors=3), 3)
        self.assertTrueNeighbors(converged(40, neighbors=10), 10)

    def test_fingers(self) -> None:
        """In each finger's interval that is not empty the first peer, which is the one responsible for its start."""
        overlay = converged(60, neighbors=3)
        for node_id, node in overlay.nodes.items():
            fingers = set(node.topology.status()["fingers"])
            wanted = set()
            for exponent in range(127, 127 - 16, -1):
                first, last = offset(node_id, 1 << exponent), offset(node_id, (2 << exponent) - 1)
                responsible = overlay.responsible(first, node_id)
                if responsible == first or within(responsible, first, last):
                    wanted.add(responsible.hex())
            self.assertEqual(wanted - fingers, set())
            self.assertGreater(len(wanted), 3)

    def test_links(self) -> None:
        """To each neighbor and finger, and from both ends."""
        overlay = converged(60)
        for node_id, node in overlay.nodes.items():
            predecessors, successors = neighbors_of(node)
            for name in {*predecessors, *successors, *node.topology.status()["fingers"]}:
                other = overlay.nodes[NodeId(bytes.fromhex(name))]
                self.assertIsNotNone(node.table.link_to(other.node_id))
                self.assertIsNotNone(other.table.link_to(node_id))

    def test_nobody_has_anything_to_mend(self) -> None:
        """At first nothing is sent at all; later the Updates of every chord-update-interval, and nothing else."""
        overlay = converged(60)
        quiet = 0.75 * overlay.configuration.chord_update_interval / (2 * round(neighbors_for(60)))
        overlay.clock.run(quiet - 1)
        self.assertEqual(overlay.traffic.by_method(), {})
        overlay.clock.run(60)
        counted = overlay.traffic.by_method()
        self.assertEqual(set(counted), {"update"})
        self.assertLess(counted["update"]["messages"], 2 * 60 * 5)

    def test_it_stays_as_it_is(self) -> None:
        overlay = converged(30, neighbors=4)
        before = {node_id: neighbors_of(node) for node_id, node in overlay.nodes.items()}
        overlay.clock.run(1500)
        self.assertEqual({node_id: neighbors_of(node) for node_id, node in overlay.nodes.items()}, before)
        self.assertEqual(overlay.joins, 0)

    def test_progress(self) -> None:
        overlay = Overlay(setting(230))
        self.assertEqual(list(overlay.converge()), [100, 200, 230])


class JoinTests(SynchronousTestCase):
    """The same ring comes about by real joins."""

    def test_same_neighbors(self) -> None:
        overlay = grown(16, neighbors=4)
        overlay.clock.run(60)
        settled = converged(16, neighbors=4)
        self.assertEqual(overlay.ring, settled.ring)
        for node_id, node in overlay.nodes.items():
            self.assertEqual(neighbors_of(node), neighbors_of(settled.nodes[node_id]))

    def test_neighbors_that_follow_the_size(self) -> None:
        """Their number comes from an estimate, so it may be another by a little; they are the nearest all the same."""
        overlay = grown(24)
        overlay.clock.run(60)
        settled = converged(24)
        for node_id, node in overlay.nodes.items():
            for ours, theirs in zip(neighbors_of(node), neighbors_of(settled.nodes[node_id]), strict=True):
                common = min(len(ours), len(theirs))
                self.assertEqual(ours[:common], theirs[:common])
                self.assertApproximates(len(ours), len(theirs), 3)


class ComingAndGoingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.overlay = converged(8)
        self.told: list[tuple[NodeId, bool]] = []
        self.overlay.changed.append(lambda node_id, peer: self.told.append((node_id, peer)))

    def test_found(self) -> None:
        overlay = Overlay(setting(5))
        node = overlay.found()
        self.assertEqual((overlay.ring, list(overlay.nodes), overlay.joins), ([node.node_id], [node.node_id], 1))
        self.assertTrue(node.joined)

    def test_add(self) -> None:
        """It is part of the truth from when it has joined on."""
        before = list(self.overlay.ring)
        node = self.overlay.add()
        self.assertIs(self.overlay.nodes[node.node_id], node)
        self.assertEqual((self.overlay.ring, self.told), (before, []))
        self.overlay.clock.run(30)
        self.assertEqual(self.overlay.ring, sorted([*before, node.node_id]))
        self.assertEqual((self.told, self.overlay.joins, node.joined), ([(node.node_id, True)], 1, True))

    def test_it_joins_over_peers_that_it_knows(self) -> None:
        """Also where no bootstrap node of the document lives."""
        for node in self.overlay.listed():
            self.overlay.kill(node)
        self.overlay.clock.run(60)
        peers = {self.overlay.address(node) for node in self.overlay.nodes.values()}
        node = self.overlay.add()
        known = [address for address, _ in node.bootstrap_cache.places]
        self.assertEqual((len(known), set(known) - peers), (CACHED, set()))
        self.overlay.clock.run(60)
        self.assertTrue(node.joined)

    def test_kill(self) -> None:
        """Nobody is told, but the truth is another at once."""
        node = next(iter(self.overlay.nodes.values()))
        before = [one for one in self.overlay.ring if one != node.node_id]
        self.overlay.kill(node)
        self.assertEqual((self.overlay.ring, self.overlay.left), (before, 1))
        self.assertEqual(self.told, [(node.node_id, False)])
        self.assertNotIn(node.node_id, self.overlay.nodes)
        sent = self.overlay.network.counters["sent"]
        self.overlay.clock.run(0.5)
        self.assertEqual(self.overlay.network.counters["sent"], sent)
        self.overlay.clock.run(120)
        for other in self.overlay.nodes.values():
            for side in neighbors_of(other):
                self.assertNotIn(node.node_id.hex(), side)

    def test_kill_before_it_has_joined(self) -> None:
        before = list(self.overlay.ring)
        node = self.overlay.add()
        self.overlay.kill(node)
        self.overlay.clock.run(60)
        self.assertEqual((self.overlay.ring, self.told, self.overlay.left), (before, [], 1))

    def test_many_of_both(self) -> None:
        for _ in range(4):
            self.overlay.kill(self.overlay.some_node())
            self.overlay.add()
            self.overlay.clock.run(60)
            peers = sorted(node_id for node_id, node in self.overlay.nodes.items() if node.joined)
            self.assertEqual(self.overlay.ring, peers)
        self.assertEqual((self.overlay.left, self.overlay.joins, len(peers)), (4, 4, 8))

    def test_bootstrap_nodes_are_replaced(self) -> None:
        """Whoever comes next has the address that the document lists."""
        listed = self.overlay.listed()
        self.assertEqual(len(listed), BOOTSTRAP_NODES)
        address = self.overlay.address(listed[0])
        self.overlay.kill(listed[0])
        self.assertEqual(len(self.overlay.listed()), BOOTSTRAP_NODES - 1)
        node = self.overlay.add()
        self.assertEqual(self.overlay.address(node), address)
        self.assertIn(node, self.overlay.listed())
        self.assertNotEqual(self.overlay.address(self.overlay.add()), address)

    def test_address(self) -> None:
        """Also where a node was that is dead."""
        node = self.overlay.some_node()
        address = self.overlay.address(node)
        self.overlay.kill(node)
        self.assertEqual(self.overlay.address(node), address)

    def test_names(self) -> None:
        """No two nodes share one, whoever has died meanwhile."""
        nodes = list(self.overlay.nodes.values())
        for _ in range(3):
            self.overlay.kill(self.overlay.some_node())
            nodes.append(self.overlay.add())
        self.assertEqual(len({node.signer.identity.user_name for node in nodes}), len(nodes))

    def test_user(self) -> None:
        node = self.overlay.some_node()
        user = self.overlay.user("alice", node)
        self.assertEqual((user.node_id, user.identity.role), (node.node_id, "user"))
        self.assertEqual(user.identity.user_name, "alice@simulation.invalid")


class TruthTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.overlay = converged(8)
        self.ring = self.overlay.ring

    def test_responsible(self) -> None:
        """The peer itself for its own Node-ID, the next one for all behind it, the first one beyond the last."""
        for place, node_id in enumerate(self.ring):
            after = self.ring[(place + 1) % len(self.ring)]
            self.assertEqual(self.overlay.responsible(node_id, self.ring[0]), node_id)
            self.assertEqual(self.overlay.responsible(offset(node_id, 1), self.ring[0]), after)

    def test_as_the_peers_have_it(self) -> None:
        for _ in range(50):
            target = self.overlay.random.randbytes(16)
            claiming = [one for one, node in self.overlay.nodes.items() if node.topology.is_responsible(target)]
            self.assertEqual(claiming, [self.overlay.responsible(target, self.ring[0])])

    def test_successors(self) -> None:
        self.assertEqual(self.overlay.successors(self.ring[6], 3), [self.ring[7], *self.ring[:2]])
        self.assertEqual(self.overlay.successors(self.ring[0], 20), self.ring[1:])
        stranger = NodeId(offset(self.ring[2], 1))
        self.assertEqual(self.overlay.successors(stranger, 2), self.ring[3:5])

    def test_split(self) -> None:
        """Each side has a truth of its own; who is named on none of them belongs to the first."""
        even, odd = self.ring[0:6:2], self.ring[1::2]
        self.overlay.split(even, odd)
        self.assertEqual(self.overlay.ring_of(self.ring[1]), odd)
        self.assertEqual(self.overlay.ring_of(self.ring[0]), self.ring[0::2])
        self.assertEqual(self.overlay.successors(self.ring[1], 1), [self.ring[3]])
        self.assertEqual(self.overlay.responsible(self.ring[2], self.ring[1]), self.ring[3])
        self.assertEqual(self.overlay.responsible(self.ring[2], self.ring[0]), self.ring[2])
        self.overlay.split()
        self.assertEqual(self.overlay.ring_of(self.ring[1]), self.ring)
        self.assertEqual(self.overlay.successors(self.ring[1], 1), [self.ring[2]])

    def test_split_and_changes(self) -> None:
        even, odd = self.ring[0::2], self.ring[1::2]
        self.overlay.split(even, odd)
        self.assertEqual(self.overlay.ring_of(odd[0]), odd)
        self.overlay.kill(self.overlay.nodes[odd[2]])
        self.assertEqual(self.overlay.ring_of(odd[0]), [*odd[:2], odd[3]])
        self.assertEqual(self.overlay.ring_of(even[0]), even)


class ChanceTests(SynchronousTestCase):
    def test_seed(self) -> None:
        """The same nodes of the same seed, others of another."""
        same, again, other = (Overlay(setting(5, seed=seed)) for seed in (1, 1, 2))
        ids = [
            [overlay.found().node_id, *(overlay.add().node_id for _ in range(4))] for overlay in (same, again, other)
        ]
        self.assertEqual(ids[0], ids[1])
        self.assertFalse(set(ids[0]) & set(ids[2]))

    def test_streams(self) -> None:
        """One for each purpose: to draw more from one does not change the others."""
        overlay, other = Overlay(setting(5)), Overlay(setting(5))
        for _ in range(100):
            overlay.random.random()
            overlay.stream("churn").random()
        self.assertEqual(overlay.found().node_id, other.found().node_id)
        self.assertEqual(overlay.network.random.random(), other.network.random.random())
        self.assertEqual(overlay.stream("churn").random(), other.stream("churn").random())
        self.assertNotEqual(overlay.stream("churn").random(), overlay.stream("workload").random())


class TimeTests(SynchronousTestCase):
    def test_now(self) -> None:
        overlay = converged(2)
        overlay.clock.run(5)
        self.assertEqual(overlay.now, 5)
        overlay.start = overlay.clock.seconds()
        overlay.clock.run(2)
        self.assertEqual(overlay.now, 2)

    def test_result(self) -> None:
        overlay = converged(2)
        fired: Deferred[str] = Deferred()
        overlay.clock.callLater(3, fired.callback, "done")
        self.assertEqual(overlay.result(fired, 10), ["done"])
        self.assertEqual(overlay.now, 3)
        self.assertEqual(overlay.result(succeed("at once"), 10), ["at once"])
        self.assertEqual((overlay.result(Deferred(), 10), overlay.now), ([], 13))


class SettingTests(SynchronousTestCase):
    def test_configuration(self) -> None:
        """What is set replaces what a new overlay has; that it is a simulation with one Kind stays."""
        overlay = converged(2, configuration={"chord_update_interval": 60, "initial_ttl": 30})
        node = overlay.some_node()
        self.assertEqual((node.configuration.chord_update_interval, node.configuration.initial_ttl), (60, 30))
        self.assertEqual(node.configuration.topology_plugin, "CHORD-RELOAD")
        self.assertEqual(len(node.configuration.kinds), 1)

    def test_latency_and_loss(self) -> None:
        overlay = converged(2, latency="20ms", loss=0.25)
        self.assertEqual((overlay.network.latency("a", "b"), overlay.network.loss), (0.02, 0.25))
        self.assertRaises(ValueError, Overlay, setting(2, latency="soon"))

    def test_bootstrap_nodes(self) -> None:
        """As many as there are nodes for."""
        for nodes in (1, 3, 9):
            overlay = Overlay(setting(nodes))
            self.assertEqual(len(overlay.configuration.bootstrap_nodes), min(nodes, BOOTSTRAP_NODES))
