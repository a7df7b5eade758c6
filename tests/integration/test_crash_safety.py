"""A node killed at any moment of its first seconds starts again, and never as another overlay."""

from __future__ import annotations

import random
import time

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from .nodes import NodeProcess, World

MOMENTS = 6
"""How many times each start is killed."""


def root_of(node: NodeProcess) -> bytes:
    """The root certificate that the node's authority has."""
    certificate = x509.load_pem_x509_certificate((node.state / "authority" / "ca.crt").read_bytes())
    return certificate.tbs_certificate_bytes


class CrashSafety(SynchronousTestCase):
    """SIGKILL while founding and while joining, at moments that differ from run to run."""

    def setUp(self) -> None:
        self.world = World()
        self.addCleanup(self.world.close)
        self.seed = random.randrange(10**6)
        self.random = random.Random(self.seed)

    def kill_early(self, node: NodeProcess, *options: str) -> None:
        """Start `node` again and again, and kill it somewhere on its way."""
        for _ in range(MOMENTS):
            node.start(*options)
            node.wait_for("this node")
            # What is tested is the moment itself, so it is drawn and not awaited.
            time.sleep(self.random.uniform(0.0, 0.6))
            node.kill()

    def test_founding(self) -> None:
        """Whatever stands after the first whole authority is kept: one overlay, one Node-ID."""
        node = self.world.node()
        self.kill_early(node)
        founded = (node.state / "authority" / "ca.key").exists()
        before = root_of(node) if founded else None
        node.start()
        node.wait_joined()
        status = node.status()
        self.assertTrue(status["joined"], f"seed {self.seed}")
        if before is not None:
            self.assertEqual(before, root_of(node), f"seed {self.seed}")
        node.p2psip("user", "add", "alice")
        node.kill()
        node.start()
        node.wait_joined()
        self.assertEqual(status["node_id"], node.status()["node_id"], f"seed {self.seed}")
        self.assertEqual(["alice"], [user["name"] for user in node.json("user", "list")])

    def test_joining(self) -> None:
        """A token is good for the same key however often the node dies on the way; there is one node in the end."""
        founder = self.world.founder()
        node = self.world.node()
        token = founder.p2psip("invite", node.name).stdout.strip()
        self.kill_early(node, "--join", token)
        node.start("--join", token)
        node.wait_joined()
        self.assertEqual([], [line for line in node.log if "Traceback" in line or "founds" in line])
        self.assertEqual("registrar", node.status()["role"])
