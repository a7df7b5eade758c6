"""Whole nodes over DTLS, in memory: what the path takes is found out, and large values pass where it is little."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.kinds import REGISTERED, SIP_REGISTRATION
from p2psip.links.datagram_link import LEAST_MESSAGE
from p2psip.testing import World
from p2psip.transport.path_mtu import SIZES, TRIES, VARIES

from .links.datagrams import IP_AND_UDP, DatagramNetwork
from .test_node import fetch, store

VALUE = Random(4).randbytes(4096)
NARROW = 600


class PathTests(SynchronousTestCase):
    """Three nodes; `narrow` holds the addresses of those that are behind a hop of 600 bytes."""

    def setUp(self) -> None:
        kind = replace(REGISTERED[SIP_REGISTRATION], max_size=4096)
        self.world = world = World(seed=3, kinds=[kind], max_message_size=6500)
        self.network = network = DatagramNetwork(world.clock)
        self.narrow: set[str] = set()
        network.mtu = lambda here, there: NARROW if self.narrow & {here, there} else 1500
        world.plugins = replace(world.plugins, links=(network,))

    def build(self, narrow: bool) -> None:
        for number in range(3):
            node = self.world.add(found=number == 0)
            if narrow and number == 2:
                self.narrow.add(self.world.address(node))
        self.world.until(lambda: all(self.world.settled(node) for node in self.world.nodes))
        self.world.run(15)

    def mtus(self) -> list[list[int]]:
        """What `status` tells of the links of each node."""
        return [sorted(link["mtu"] for link in node.status()["links"]) for node in self.world.nodes]

    def assertWide(self, *mtus: int) -> None:
        for mtu in mtus:
            self.assertLessEqual(abs(mtu - SIZES[-1]), VARIES)

    def store_and_fetch(self) -> None:
        """By each node, at names of its own for all three of them to serve."""
        for user, origin in enumerate(self.world.nodes):
            for number in range(6):
                name = f"user{user}{number}@example.org"
                store(self.world, origin, VALUE, name)
                self.assertEqual(fetch(self.world, origin, name), [VALUE])

    def test_wide(self) -> None:
        """Each end of each link comes to know that whole datagrams of the larger size pass."""
        self.build(narrow=False)
        mtus = self.mtus()
        self.assertEqual(list(map(len, mtus)), [2, 2, 2])
        self.assertWide(*chain.from_iterable(mtus))
        self.assertFalse(self.network.too_large)
        self.store_and_fetch()

    def test_narrow(self) -> None:
        """A hop that drops packets above 600 bytes takes a value of 4 kB in pieces; nothing else is tried but probes.

        [6940-6.7-1, 6940-6.7-3]
        """
        self.build(narrow=True)
        first, second, third = self.mtus()
        self.assertEqual(third, [LEAST_MESSAGE] * 2)
        for least, most in (first, second):
            self.assertEqual(least, LEAST_MESSAGE)
            self.assertWide(most)
        lost = self.network.too_large.copy()
        for size in lost:
            self.assertLessEqual(abs(size - 1200 - IP_AND_UDP), VARIES)
        self.assertEqual(lost.total() % TRIES, 0)
        self.store_and_fetch()
        self.assertEqual(self.network.too_large, lost)
        self.assertFalse([cause for node in self.world.nodes for cause in node.rejected() if "fragment" in cause])

    def test_becomes_narrow(self) -> None:
        """A path that takes less than it did: what is under way is cut, the value arrives, no link fails."""
        self.build(narrow=False)
        self.narrow.add(self.world.address(self.world.nodes[2]))
        links = {link for node in self.world.nodes for link in node.table.links()}
        self.store_and_fetch()
        self.assertGreater(self.network.too_large.total(), 0)
        self.assertEqual(self.mtus()[2], [LEAST_MESSAGE] * 2)
        self.assertEqual({link for node in self.world.nodes for link in node.table.links()}, links)
        self.world.run(30)
        lost = self.network.too_large.total()
        self.store_and_fetch()
        self.assertEqual(self.network.too_large.total(), lost)

    def test_stopped(self) -> None:
        """A node that stops probes no more."""
        self.build(narrow=True)
        node = self.world.nodes[2]
        self.world.result(node.stop())
        begin = node.path_mtus._begin
        self.assertFalse([call for call in self.world.clock.getDelayedCalls() if call.func == begin])
