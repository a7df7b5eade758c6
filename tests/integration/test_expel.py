"""Throwing a node out: ``p2psip authority expel``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from .nodes import World, until


class Expel(SynchronousTestCase):
    """An overlay of three nodes, one of which has to go."""

    def setUp(self) -> None:
        self.world = World()
        self.addCleanup(self.world.close)

    def test_an_expelled_node_is_out(self) -> None:
        """A bad-node loses its links at every node, which learned of it by ConfigUpdate, and cannot come back."""
        founder = self.world.founder()
        good, bad = self.world.join(founder), self.world.join(founder)
        expelled = bad.status()["node_id"]
        until(lambda: len(good.status()["links"]) == 2, 20, "all are linked", self.world.nodes)
        self.assertIn(expelled, founder.p2psip("authority", "expel", bad.name).stdout)
        for node in (founder, good):

            def without(node=node) -> bool:
                status = node.status()
                ids = [link["node_id"] for link in status["links"]]
                return status["sequence"] == 2 and expelled not in ids + status["neighbors"]["successors"]

            until(without, 20, f"{node.name} has dropped the expelled node", [node])
        bad.kill()
        bad.start()
        bad.wait_for("not joined", 90)  # each of several attempts may wait for an answer
        self.assertFalse(bad.status()["joined"])
        self.assertEqual(1, bad.p2psip("lookup", "alice", check=False).returncode)
        missing = founder.p2psip("authority", "expel", "nobody", check=False)
        self.assertEqual(1, missing.returncode)
        self.assertIn("no node", missing.stderr)
