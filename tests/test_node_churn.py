"""Whole nodes in memory: deaths, returns, departures; nothing that was acknowledged is lost."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from p2psip.ids import distance
from p2psip.node import Node
from p2psip.testing import World

from .test_node import fetch, store

NAMES = [f"user{number}@example.org" for number in range(12)]
HOLD_DOWN = 60.0


class ChurnTests(SynchronousTestCase):
    """Eight nodes; each of twelve users stored from one of them."""

    def setUp(self) -> None:
        self.world = World(8, seed=1)
        for number, name in enumerate(NAMES):
            store(self.world, self.world.nodes[number % 8], name.encode(), name)
        self.world.run(5)

    def ring(self) -> list[Node]:
        return sorted(self.world.nodes, key=lambda node: node.node_id)

    def assertAllFound(self, nodes: Sequence[Node] = ()) -> None:
        for node in nodes or self.world.nodes:
            for name in NAMES:
                self.assertEqual(fetch(self.world, node, name), [name.encode()], (node.node_id.hex(), name))

    def assertSettled(self, seconds: float = 120) -> None:
        self.world.until(lambda: all(self.world.settled(node) for node in self.world.nodes), seconds)

    def test_kill_any_one(self) -> None:
        """Whoever dies, all the others find everything at once."""
        for number in range(8):
            world = self.world = World(8, seed=number)
            for name in NAMES[:4]:
                store(world, world.nodes[0], name.encode(), name)
            world.run(5)
            world.kill(world.nodes[number])
            for node in world.nodes[:3]:
                for name in NAMES[:4]:
                    self.assertEqual(fetch(world, node, name), [name.encode()])

    def test_kill_two_neighbors_twice(self) -> None:
        """Two ring neighbors die at once, and after the hold-down two more: the copies were made anew."""
        for _ in range(2):
            ring = self.ring()
            self.world.kill(ring[2], ring[3])
            self.world.run(HOLD_DOWN)
            self.assertSettled()
            self.assertAllFound()

    def test_restart(self) -> None:
        """A killed node comes back with its Node-ID and storage, by its cache or the document."""
        node = self.ring()[4]
        self.world.kill(node)
        self.world.run(HOLD_DOWN)
        store(self.world, self.world.nodes[0], b"newer", NAMES[0])
        back = self.world.restart(node)
        self.assertEqual(back.node_id, node.node_id)
        self.assertSettled()
        self.world.run(10)
        for other in self.world.nodes:
            self.assertEqual(fetch(self.world, other, NAMES[0]), [b"newer"])

    def test_restart_at_once(self) -> None:
        """A node that is back before anybody missed it."""
        self.world.restart(self.ring()[5])
        self.assertSettled()
        self.assertAllFound()

    def test_founder_dies_and_returns(self) -> None:
        """The bootstrap node of the document is a node like any other."""
        founder = self.world.nodes[0]
        self.world.kill(founder)
        self.world.run(HOLD_DOWN)
        self.assertSettled()
        back = self.world.restart(founder)
        self.assertSettled()
        self.assertTrue(back.joined)
        self.assertAllFound()

    def test_join_while_the_founder_is_dead(self) -> None:
        """A new node cannot join by the document alone; it tries until it can."""
        founder = self.world.nodes[0]
        self.world.kill(founder)
        late = self.world.add()
        self.world.run(100)
        self.assertFalse(late.joined)
        self.world.restart(founder)
        self.world.until(lambda: late.joined, 300)

    def test_leave_loses_nothing(self) -> None:
        """All is found at every moment while one leaves, from every other node."""
        node = self.ring()[3]
        left = node.leave()
        others = [other for other in self.world.nodes if other is not node]
        for number in range(10):
            self.assertAllFound([others[number % len(others)]])
        self.world.result(left)
        self.world.nodes.remove(node)
        self.assertAllFound()
        self.assertSettled()
        self.assertAllFound()
        self.assertFalse(node.joined)

    def test_all_leave_but_one(self) -> None:
        """The last one has everything."""
        while len(self.world.nodes) > 1:
            self.world.leave(self.world.nodes[0])
            self.world.run(1)
        self.assertAllFound()

    def test_lost_overlay(self) -> None:
        """One node, cut off from all the others, serves on and is back in its place when the network heals."""
        node = self.ring()[0]
        self.world.network.partition([self.world.address(node)])
        self.world.run(120)
        self.assertTrue(node.membership.entering)
        self.world.network.heal()
        self.assertSettled(600)
        self.world.until(lambda: not node.membership.entering)
        self.assertAllFound()

    def test_partition(self) -> None:
        """Two halves become two rings, serve on, and are one again."""
        ring = self.ring()
        self.world.network.partition([self.world.address(node) for node in ring[:4]])
        self.world.run(120)
        self.world.network.heal()
        self.assertSettled(3000)
        self.world.run(60)
        self.assertAllFound()

    def test_nodes_join_all_at_once(self) -> None:
        """Eight more at the same moment."""
        for _ in range(8):
            self.world.add()
        self.assertSettled(600)
        self.assertAllFound()

    def test_copies_where_they_belong(self) -> None:
        """Each resource is at its responsible peer and the two after it, and nowhere else for long."""
        for _ in range(4):
            self.world.add()
        self.assertSettled(600)
        self.world.run(600)
        for name in NAMES:
            resource = self.world.nodes[0].overlay.resource_id(name.encode())
            nearest = sorted(self.world.nodes, key=lambda node: distance(resource, node.node_id))
            holders = [node for node in nearest if node.storage.kinds(resource)]
            self.assertEqual(holders[:3], nearest[:3])
            self.assertLessEqual(len(holders), 4)


class RandomChurnTests(SynchronousTestCase):
    """Whatever happens, one or two deaths at a time: nothing acknowledged is lost, and the ring is whole again."""

    def churn(self, seed: int) -> None:
        world, chance = World(8, seed=seed), Random(seed)
        founder, gone = world.nodes[0], []
        for name in NAMES:
            store(world, chance.choice(world.nodes), name.encode(), name)
        world.run(5)
        for step in range(15):
            ring = sorted(world.nodes, key=lambda node: node.node_id)
            place = chance.randrange(len(ring))
            victims = [node for node in (ring[place], ring[place - 1]) if node is not founder]
            what = chance.choice(["kill", "kill two", "leave", "join", "restart"])
            if len(ring) < 6 or what == "join":
                world.add()
            elif what == "restart" and gone:
                world.restart(gone.pop())
            elif what == "leave":
                world.leave(victims[0])
            else:
                killed = victims if what == "kill two" else victims[:1]
                world.kill(*killed)
                gone.extend(killed)
            world.run(HOLD_DOWN)
            world.until(lambda: all(world.settled(node) for node in world.nodes), 300)
            node = chance.choice(world.nodes)
            for name in NAMES:
                self.assertEqual(fetch(world, node, name), [name.encode()], (seed, step, what, name))

    def test_churn(self) -> None:
        """Three worlds; a failure names its seed and step."""
        for seed in range(3):
            self.churn(seed)


class FoundAnewTests(SynchronousTestCase):
    def test_alone_with_the_authority(self) -> None:
        """A node that may found the overlay anew does so after 30 s alone; another never does."""
        world = World(1)
        (founder,) = world.nodes
        world.kill(founder)
        back = world.restart(founder)
        world.run(300)
        self.assertFalse(back.joined)
        back = world.restart(back, found_after=30.0)
        world.run(29)
        self.assertFalse(back.joined)
        world.until(lambda: back.joined, 60)

    def test_a_power_failure(self) -> None:
        """All nodes start again at once: they meet, yet none is a peer until one with the authority founds anew."""
        world = World(4)
        store(world, world.nodes[0], NAMES[0].encode(), NAMES[0])
        everyone = list(world.nodes)
        world.kill(*everyone)
        for number, node in enumerate(everyone):
            world.restart(node, found_after=30.0 if number < 2 else None)
        world.until(lambda: all(world.settled(node) for node in world.nodes), 240)
        self.assertEqual(len(world.nodes), 4)
        self.assertEqual(fetch(world, world.nodes[3], NAMES[0]), [NAMES[0].encode()])

    def test_others_are_still_there(self) -> None:
        """Whoever meets the overlay joins it, however soon it might found it anew."""
        world = World(4)
        founder = world.nodes[0]
        world.kill(founder)
        back = world.restart(founder, found_after=3.0)
        world.until(lambda: back.joined, 60)
        world.until(lambda: all(world.settled(node) for node in world.nodes), 60)


    def test_others_out_of_reach(self) -> None:
        """Whoever founded it anew because nobody could be reached soon looks again, and the two become one."""
        world = World(4)
        world.run(60)
        founder = world.nodes[0]
        world.network.partition([world.address(founder)])
        world.kill(founder)
        back = world.restart(founder, found_after=30.0)
        world.until(lambda: back.joined, 120)
        world.run(100)
        self.assertEqual(back.status()["neighbors"]["successors"], [])
        world.network.heal()
        world.until(lambda: all(world.settled(node) for node in world.nodes), 200)


class TwoNodesTests(SynchronousTestCase):
    def test_one_restarts(self) -> None:
        """While the other is on its way back as well: they do not throw each other out again and again."""
        world = World(2)
        stays, goes = world.nodes
        world.leave(goes)
        world.run(3)
        world.restart(goes)
        world.run(60)
        self.assertTrue(all(world.settled(node) for node in world.nodes))
        self.assertLess(stays.status()["topology"]["updates_sent"], 20)
