"""Whole rings: they grow, lose peers, fall apart and heal, and always end as the one true ring.

Every world is made from a seed, which a failure names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log2
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.document import Configuration
from p2psip.errors import RELOADError
from p2psip.ids import NodeId, within
from p2psip.interfaces import Answer
from p2psip.topology.chord import Chord
from p2psip.topology.interfaces import ISettled
from p2psip.wire.header import ResourceDestination
from p2psip.wire.methods import PingReq

from .network import Host, World

SEEDS = range(3)
SETTLED = 60.0
"""Seconds within which a ring has settled after nodes have joined."""

HEALED = 5.0
"""Seconds within which a ring has healed after peers have died and their links closed."""


class RingTestCase(SynchronousTestCase):
    """Makes worlds, and says with which seed one went wrong."""

    def grow(self, seed: int, size: int, one_by_one: bool = False) -> World:
        """A settled ring of `size` peers, three of them bootstrap nodes."""
        world = World(seed, Chord)
        first = world.found()
        for _ in range(size - 1):
            host = world.node()
            host.start(first)
            if one_by_one:
                world.until(lambda host=host: host.topology.joined, SETTLED)  # type: ignore[misc]
        self.settle(world, SETTLED)
        world.bootstrap_ids = [first.node_id, *(host.node_id for host in world.peers()[:3])]
        return world

    def settle(self, world: World, most: float, peers: Sequence[Host] | None = None) -> None:
        """Wait until the ring is right, or fail."""
        took = world.until(lambda: not world.faults(peers), most)
        if faults := world.faults(peers):
            shown = "\n".join(faults[:6])
            self.fail(f"{world.seed=} at {world.clock.now}: not settled after {took} s:\n{shown}")
        self.assertEqual(world.too_many_hops, 0, f"{world.seed=}")

    def check_lookups(self, world: World, count: int = 20) -> None:
        """From anywhere, every resource is found at the peer that is responsible for it."""
        chance = Random(world.seed)
        found: list[tuple[bytes, Answer]] = []
        for _ in range(count):
            target = chance.randbytes(16)
            asking = chance.choice(world.peers())
            asked = asking.request([ResourceDestination(resource_id=target)], PingReq())
            asked.addCallback(lambda answer, target=target: found.append((target, answer)))
            asked.addErrback(lambda failure: failure.trap(RELOADError))
        world.clock.advance(20)
        self.assertEqual(len(found), count, f"{world.seed=}")
        for target, answer in found:
            ids = [host.node_id for host in world.peers()]
            first = min(ids, key=lambda one: (int.from_bytes(one) - int.from_bytes(target)) % (1 << 128))
            self.assertEqual(answer.signer.node_id, first, f"{world.seed=}")

    def check_responsibility(self, world: World) -> None:
        """The ranges of all peers are the whole ring, without overlap."""
        total = sum(host.topology.responsible_ppb() for host in world.peers())
        self.assertLessEqual(abs(total - 10**9), len(world.peers()), f"{world.seed=}")


class GrowthTests(RingTestCase):
    """[6940-10.5-1] to [6940-10.5-14]"""

    def test_one_after_another(self) -> None:
        """Each node finds its place while nobody else moves."""
        for size in (1, 2, 3, 8, 40):
            with self.subTest(size=size):
                world = self.grow(size, size, one_by_one=True)
                self.check_responsibility(world)
                self.check_lookups(world)

    def test_all_at_once(self) -> None:
        """Also nodes that join at the same moment between the same two peers form one ring."""
        for seed in SEEDS:
            for size in (2, 3, 8, 40):
                with self.subTest(size=size, seed=seed):
                    world = self.grow(seed, size)
                    self.check_responsibility(world)
                    self.check_lookups(world)

    def test_between_two_peers(self) -> None:
        """Many nodes between the same two peers."""
        world = self.grow(5, 4)
        low, high = (int.from_bytes(host.node_id) for host in world.peers()[1:3])
        for step in range(1, 9):
            place = low + (high - low) * step // 9
            world.node(NodeId(place.to_bytes(16))).start(world.bootstraps()[0])
        self.settle(world, SETTLED)
        self.check_responsibility(world)

    def test_fingers(self) -> None:
        """Every peer has a finger wherever there is somebody to be one. [6940-10.5-19]"""
        world = self.grow(1, 40)
        world.clock.advance(30)
        missing = 0
        for host in world.peers():
            half = int.from_bytes(host.node_id) + (1 << 127)
            first, last = half.to_bytes(17)[-16:], (half + (1 << 127) - 1).to_bytes(17)[-16:]
            someone = any(within(other.node_id, first, last) for other in world.peers())
            fingers = [bytes.fromhex(finger) for finger in host.topology.status()["fingers"]]
            has = any(within(finger, first, last) for finger in fingers)
            missing += someone and not has
        self.assertEqual(missing, 0)

    def test_number_of_neighbors(self) -> None:
        """It follows the size of the overlay, up and down: O(log(N)), and three at least. [6940-10.7-2]
        [6940-10.7-3]
        """
        for size in (1, 4, 5, 8, 16, 40, 80):
            with self.subTest(size=size):
                world = self.grow(size, size)
                wanted = [host.neighbors_wanted() for host in world.peers()]
                self.assertGreaterEqual(min(wanted), 3)
                # As many as log2 says, or the whole ring; but each peer estimates that by its own few neighbors.
                suits = min(log2(size) + 2, size / 2) if size > 6 else 3
                self.assertLess(abs(sum(wanted) / size - suits), 1, wanted)
                self.assertLess(max(wanted), suits + 2)
        for host in world.peers()[::2]:
            host.topology.leave()
            world.clock.advance(2)
            world.kill(host, 0.02)
        self.settle(world, SETTLED)
        fewer = [host.neighbors_wanted() for host in world.peers()]
        self.assertLess(sum(fewer) / len(fewer), sum(wanted) / len(wanted))

    def test_given_number_of_neighbors(self) -> None:
        """Whoever is given a number keeps to it."""
        world = World(2, lambda host: Chord(host, 4))
        first = world.found()
        for _ in range(29):
            world.node().start(first)
        self.settle(world, SETTLED)
        self.assertEqual({host.neighbors_wanted() for host in world.peers()}, {4})
        for host in world.peers():
            self.assertEqual(len(host.topology.status()["neighbors"]["successors"]), 4)

    def test_periodic_recovery(self) -> None:
        """Without reactive recovery a ring comes about as well. (RFC 6940 §10.7)"""
        world = World(3, Chord, chord_reactive=False, chord_update_interval=60)
        first = world.found()
        for _ in range(11):
            host = world.node()
            host.start(first)
            world.until(lambda host=host: host.topology.joined, SETTLED)  # type: ignore[misc]
        self.settle(world, 300)

    def test_same_seed(self) -> None:
        """A run can be repeated message by message."""
        one, other = self.grow(7, 8), self.grow(7, 8)
        self.assertEqual((one.messages, one.clock.ran), (other.messages, other.clock.ran))


class FailureTests(RingTestCase):
    """[6940-10.7.1-1] [6940-10.7.1-2] [6940-10.7.3-1]"""

    def kill(self, choose: Callable[[Sequence[Host]], Sequence[Host]], after: float = 0.1) -> None:
        for seed in SEEDS:
            with self.subTest(seed=seed):
                world = self.grow(seed, 16)
                world.clock.advance(40)
                for host in choose(world.peers()):
                    world.kill(host, after)
                self.settle(world, HEALED + after)
                self.check_responsibility(world)
                self.check_lookups(world)

    def test_one(self) -> None:
        """One peer dies."""
        self.kill(lambda ring: ring[3:4])

    def test_two_neighbors(self) -> None:
        """Two neighbors die at once."""
        self.kill(lambda ring: ring[5:7])

    def test_three(self) -> None:
        """Three neighbors of sixteen die at once: for one peer, all its successors."""
        self.kill(lambda ring: ring[7:10])

    def test_three_apart(self) -> None:
        """Three of sixteen, not neighbors."""
        self.kill(lambda ring: [ring[0], ring[6], ring[11]])

    def test_seen_late(self) -> None:
        """Links that take half a minute to be seen as dead only delay the same."""
        self.kill(lambda ring: ring[5:7], after=30)

    def test_silent(self) -> None:
        """A peer that just falls silent is found out by Updates alone. [6940-10.7.4.1-1]"""
        for seed in SEEDS:
            world = self.grow(seed, 16)
            world.clock.advance(40)
            world.kill(world.peers()[4], after=1e9)
            # The first of six to notice does so within a sixth of the update interval, most of the time.
            self.settle(world, 240)

    def test_all_but_two(self) -> None:
        """When every neighbor of a peer is lost, it joins again. [6940-10.7.1-7]"""
        world = self.grow(2, 8)
        world.clock.advance(40)
        survivors = {world.peers()[2], world.hosts[world.bootstrap_ids[0]]}
        for host in world.peers():
            if host not in survivors:
                world.kill(host)
        self.settle(world, 60)
        self.check_responsibility(world)

    def test_link_flaps(self) -> None:
        """Two peers that only lose the link between them find each other again."""
        for seed in SEEDS:
            for size in (2, 3, 8):
                with self.subTest(size=size, seed=seed):
                    world = self.grow(seed, size)
                    one, other = world.peers()[:2]
                    one.link_down(other.node_id)
                    other.link_down(one.node_id)
                    self.settle(world, 60)

    def test_recovered_link(self) -> None:
        """A link that was failing on one side only, and recovers, makes its peer a neighbor again.
        [6940-10.7.1-6]
        """
        world = self.grow(2, 8)
        one, other = world.peers()[:2]
        number = one.links[other.node_id]
        one.link_down(other.node_id)
        self.assertNotIn(other.node_id.hex(), one.topology.status()["neighbors"]["successors"])
        one.link_up(other.node_id, number)
        self.settle(world, 1)

    def test_churn(self) -> None:
        """Peers die, leave and come back all the time, with old Node-IDs and new ones; then there is one
        ring.
        """
        for seed, seen_after in ((0, 0.1), (1, 20.0)):
            with self.subTest(seed=seed):
                world = self.grow(seed, 30)
                world.detection = seen_after
                chance = Random(seed)
                dead: list[NodeId] = []
                for _ in range(30):
                    world.clock.advance(chance.expovariate(0.2))
                    one = chance.choice([host for host in world.peers() if host not in world.bootstraps()])
                    if chance.random() < 0.3:
                        one.topology.leave().addBoth(lambda result, one=one: one.world.kill(one, 0.02))
                    else:
                        world.kill(one)
                    dead.append(one.node_id)
                    again = dead.pop(0) if chance.random() < 0.5 else None
                    if again is not None and world.hosts[again].alive:
                        again = None
                    world.node(again).start(chance.choice(world.bootstraps()))
                self.settle(world, 120)
                self.check_responsibility(world)
                self.check_lookups(world)


class SettledTests(RingTestCase):
    """A ring that begins in the middle (`ISettled`): as if it had been there for long."""

    def begin(self, size: int) -> World:
        """All the peers of a ring, each linked to its places."""
        world = World(size, Chord)
        hosts = [world.node() for _ in range(size)]
        everyone = sorted(host.node_id for host in hosts)
        plugins = [(host, ISettled(host.topology)) for host in hosts]
        for host, plugin in plugins:
            for node_id in plugin.places(everyone):
                world.link(host, world.hosts[node_id])
        for _, plugin in plugins:
            plugin.settle(everyone)
        world.bootstrap_ids = everyone[:3]
        return world

    def test_settled(self) -> None:
        """It is the one true ring at once, says nothing, and stays as it is."""
        for size in (1, 2, 5, 30, 100):
            with self.subTest(size=size):
                world = self.begin(size)
                self.assertEqual(world.faults(), [])
                world.clock.advance(2)
                self.assertEqual((world.messages, world.faults()), (0, []))
                self.check_responsibility(world)
                self.check_lookups(world)
                world.clock.advance(900)
                self.assertEqual(world.faults(), [])

    def test_it_is_alive(self) -> None:
        """Peers come and go as in any other."""
        world = self.begin(40)
        ring = world.peers()
        for host in (ring[3], ring[4], ring[20]):
            world.kill(host)
        self.settle(world, HEALED)
        for _ in range(3):
            world.node().start(world.bootstraps()[0])
        self.settle(world, SETTLED)
        self.check_responsibility(world)
        self.check_lookups(world)


class RejoinTests(RingTestCase):
    """A peer restarts with its Node-ID."""

    def restart(self, seed: int, seen_after: float, bootstrap: int, most: float) -> None:
        with self.subTest(seed=seed, bootstrap=bootstrap):
            world = self.grow(seed, 16)
            world.clock.advance(20)
            ring = world.peers()
            world.kill(ring[1], seen_after)
            world.node(ring[1].node_id).start(ring[bootstrap])
            self.settle(world, most)
            self.check_responsibility(world)

    def test_at_once(self) -> None:
        """Its neighbors have hardly noticed."""
        for seed in SEEDS:
            self.restart(seed, 0.1, 5, 10)

    def test_while_taken_for_alive(self) -> None:
        """Its neighbors still hold their links to what has died. Predecessor, successor or others admit it.
        """
        for seed in SEEDS:
            for bootstrap in (0, 2, 5):
                self.restart(seed, 20.0, bootstrap, 60)

    def test_everybody_else_restarts(self) -> None:
        """All peers but one restart, one after the other."""
        world = self.grow(4, 6)
        for host in world.peers()[1:]:
            world.kill(host)
            world.node(host.node_id).start(world.peers()[0])
            self.settle(world, 30)


class PartitionTests(RingTestCase):
    """[6940-10.7.4.4-1] [6940-10.7.4.4-2] [6940-10.7.4.4-3]"""

    def part_and_heal(self, seed: int, size: int, every_other: bool) -> None:
        world = self.grow(seed, size)
        world.clock.advance(20)
        ring = world.peers()
        half = ring[::2] if every_other else ring[: size // 2]
        left = {host.node_id for host in half}
        sides = [[host for host in ring if (host.node_id in left) is side] for side in (True, False)]
        world.bootstrap_ids = [host.node_id for side in sides for host in side[:2]]
        world.separate(lambda one, other: (one in left) != (other in left))
        world.clock.advance(30)
        for side in sides:
            self.settle(world, 60, side)
        world.cut = lambda one, other: False
        self.settle(world, 120)
        self.check_responsibility(world)
        self.check_lookups(world)

    def test_halves(self) -> None:
        """Two arcs of the ring, and two rings interleaved, become one again."""
        for size in (2, 4, 8, 40):
            for every_other in (False, True):
                with self.subTest(size=size, every_other=every_other):
                    self.part_and_heal(size, size, every_other)

    def test_two_founders(self) -> None:
        """Overlays that were founded apart merge when they learn of each other."""
        world = self.grow(3, 6)
        other = world.found()
        for _ in range(3):
            world.node().start(other)
        world.until(lambda: all(host.topology.joined for host in world.hosts.values()), SETTLED)
        self.assertTrue(world.faults())
        self.settle(world, 1200)


class DataTests(RingTestCase):
    """What is stored stays with those who are responsible for it, and with their two successors."""

    def filled(self, seed: int, size: int, resources: int) -> tuple[World, Sequence[bytes]]:
        world = self.grow(seed, size)
        chance = Random(seed)
        stored = [chance.randbytes(16) for _ in range(resources)]
        for resource in stored:
            (owner,) = (host for host in world.peers() if host.topology.is_responsible(resource))
            owner.stored.add(resource)
        for host in world.peers():
            host.responsibility_changed()
        world.clock.advance(5)
        return world, stored

    def lacking(self, world: World, stored: Sequence[bytes], copies: int) -> Sequence[str]:
        """Resources that their responsible peer lacks, or that have fewer copies than they should."""
        lacking = []
        for resource in stored:
            owners = [host for host in world.peers() if host.topology.is_responsible(resource)]
            count = sum(resource in host.stored for host in world.peers())
            if len(owners) != 1 or resource not in owners[0].stored or count < copies:
                lacking.append(f"{resource.hex()[:6]}: {len(owners)} responsible, {count} copies")
        return lacking

    def test_joining(self) -> None:
        """From the moment of its responsibility the Joining Node has the data. [6940-10.5-7] [6940-6.4.2.1-5]
        """
        world, stored = self.filled(1, 6, 60)
        for _ in range(6):
            host = world.node()
            host.start(world.bootstraps()[0])
            while not host.topology.joined:
                world.clock.advance(0.01)
            missing = [one for one in stored if host.topology.is_responsible(one) and one not in host.stored]
            self.assertEqual(missing, [])
        self.settle(world, SETTLED)
        world.clock.advance(40)
        self.assertEqual(self.lacking(world, stored, 3), [])

    def test_leaving(self) -> None:
        """At no moment is a resource with nobody. [6940-10.9-1]"""
        world, stored = self.filled(2, 8, 60)
        for host in list(world.peers())[:3]:
            left = host.topology.leave()
            while not left.called:
                world.clock.advance(0.01)
                for one in stored:
                    owners = [peer for peer in world.peers() if peer.topology.is_responsible(one)]
                    held = [peer for peer in owners if one in peer.stored]
                    # For a moment the leaving peer forwards to its successor, who has it.
                    self.assertTrue(held or not owners, f"{one.hex()[:6]} is asked for in vain")
            world.kill(host, 0.02)
            self.settle(world, HEALED)
            self.assertEqual(self.lacking(world, stored, 1), [])
            world.clock.advance(40)
            self.assertEqual(self.lacking(world, stored, 3), [])

    def test_two_neighbors_die(self) -> None:
        """Two replicas are enough for two deaths, and are made anew after the hold-down. [6940-10.7.3-5]"""
        world, stored = self.filled(3, 8, 60)
        for _ in range(2):
            for host in world.peers()[2:4]:
                world.kill(host)
            self.settle(world, HEALED)
            self.assertEqual(self.lacking(world, stored, 1), [])
            world.clock.advance(40)
            self.assertEqual(self.lacking(world, stored, 3), [])

    def test_nobody_hoards(self) -> None:
        """What is three peers away is let go of. [6940-10.7.3-7]"""
        world, stored = self.filled(4, 4, 40)
        for _ in range(12):
            world.node().start(world.bootstraps()[0])
        self.settle(world, SETTLED)
        world.clock.advance(60)
        self.assertEqual(self.lacking(world, stored, 3), [])
        self.assertEqual(sum(len(host.stored) for host in world.peers()), 3 * len(stored))

    def test_partition(self) -> None:
        """What was stored on either side is where it belongs when the overlay is one again. [6940-6.4.2.3-2]
        """
        world, stored = self.filled(5, 12, 60)
        left = {host.node_id for host in world.peers()[:6]}
        world.bootstrap_ids = [host.node_id for host in world.peers()[::3]]
        world.separate(lambda one, other: (one in left) != (other in left))
        world.clock.advance(60)
        new = [Random(5).randbytes(16) for _ in range(1)]
        for resource in new:
            for owner in (host for host in world.peers() if host.topology.is_responsible(resource)):
                owner.stored.add(resource)
        world.cut = lambda one, other: False
        self.settle(world, 120)
        world.clock.advance(60)
        self.assertEqual(self.lacking(world, [*stored, *new], 3), [])


class ConfigurationTests(SynchronousTestCase):
    """What the configuration may ask for."""

    def test_node_id_length(self) -> None:
        """CHORD-RELOAD knows 128 bits only. [6940-10.2-1]"""
        world = World(0, Chord)
        world.configuration = Configuration(instance_name="example.org", node_id_length=20)
        self.assertRaises(ValueError, world.node)
