"""`p2psip` against running nodes: every command, what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from .nodes import BIN, NodeProcess, World, run, until


class Tool(SynchronousTestCase):
    """Commands as an operator types them."""

    def setUp(self) -> None:
        self.world = World()
        self.addCleanup(self.world.close)
        self.founder = self.world.founder()

    def refused(self, *arguments: str, stdin: str = "", node: NodeProcess | None = None) -> str:
        """The one line that a command says when it fails with exit status 1."""
        result = (node or self.founder).p2psip(*arguments, stdin=stdin, check=False)
        self.assertEqual((1, ""), (result.returncode, result.stdout), result)
        lines = result.stderr.splitlines()
        self.assertEqual(1, len(lines), result.stderr)
        return lines[0]

    def test_users(self) -> None:
        """`user` and `device`: what is made is listed, and what is removed is gone."""
        founder = self.founder
        shown = founder.p2psip("user", "add", "alice").stdout
        for part in ("alice", founder.address, "example.org", "Password"):
            self.assertIn(part, shown)
        quiet = founder.p2psip("user", "add", "bob", "--device-password-stdin", stdin="bobs-own\n").stdout
        self.assertNotIn("bobs-own", quiet)
        self.assertIn("alice", self.refused("user", "add", "alice"))
        self.refused("user", "add", "not a name")
        self.refused("user", "add", "carol", "--device-password-stdin")
        imported = founder.p2psip("user", "import", "-", stdin="dave,secret\n# nobody\n\nerin\n").stdout
        made = dict(line.split(",") for line in imported.splitlines())
        self.assertEqual("secret", made["dave"])
        self.assertGreaterEqual(len(made["erin"]), 12)
        again = founder.p2psip("user", "import", "-", stdin="dave\nfrank\n", check=False)
        self.assertEqual(1, again.returncode)
        self.assertIn("frank,", again.stdout)
        self.assertIn("dave", again.stderr)
        names = [user["name"] for user in founder.json("user", "list")]
        self.assertEqual(["alice", "bob", "dave", "erin", "frank"], names)
        self.assertIn("erin", founder.p2psip("user", "list").stdout)
        founder.p2psip("user", "passwd", "alice", "--password-stdin", stdin="correct horse battery\n")
        founder.p2psip("user", "remove", "erin")
        self.assertNotIn("erin", founder.p2psip("user", "list").stdout)
        self.refused("user", "remove", "erin")
        founder.p2psip("device", "add", "alice", "--name", "desk")
        desk = founder.json("device", "add", "alice")
        self.assertTrue(desk["password"])
        self.assertEqual(
            {"phone", "desk", desk["device"]}, {d["name"] for d in founder.json("device", "list", "alice")}
        )
        founder.p2psip("device", "revoke", "alice", "desk")
        self.assertNotIn("desk", founder.p2psip("device", "list", "alice").stdout)
        self.refused("device", "revoke", "alice", "desk")
        self.refused("device", "add", "nobody")
        log = founder.json("authority", "log")
        self.assertNotIn("secret", json.dumps(log))
        self.assertTrue(log)

    def test_status(self) -> None:
        """`status --json` has what programs rely on; without --json it is for people."""
        status = self.founder.status()
        kinds: dict[str, Any] = {
            "node_id": str, "overlay": str, "role": str, "joined": bool, "uptime": int, "fingers": list,
            "links": list, "listeners": list, "rejected": dict,
        }  # fmt: skip
        for name, kind in kinds.items():
            self.assertIsInstance(status[name], kind, name)
        self.assertEqual(32, len(status["node_id"]))
        self.assertEqual({"predecessors", "successors"}, set(status["neighbors"]))
        self.assertLessEqual({"resources", "values", "bytes"}, set(status["stored"]))
        self.assertEqual({"total": 0, "page": []}, status["registrations"])
        second = self.world.join(self.founder)

        def linked() -> Any:
            return self.founder.status()["links"]

        (link,) = until(linked, 10, "a link", [self.founder])
        self.assertLessEqual({"node_id", "protocol", "address", "rtt_ms"}, set(link))
        self.assertIn(second.status()["node_id"], self.founder.p2psip("status").stdout)

    def test_values(self) -> None:
        """`store`, `fetch`, `ping`, `lookup`: within one overlay, under a node's own names."""
        second = self.world.join(self.founder)
        own = second.status()["node_id"]
        stored = second.json("store", "--kind", "SIP-REGISTRATION", "--lifetime", "60", "hex:0200")
        self.assertIn("generation", stored)
        second.p2psip("store", "--kind", "CERTIFICATE_BY_NODE", "--index", "3", "text")
        values = self.founder.json("fetch", f"hex:{own}", "--kind", "CERTIFICATE_BY_NODE")["values"]
        self.assertIn(("text", 3), [(value["value"], value["index"]) for value in values])
        self.assertIn("text", self.founder.p2psip("fetch", f"hex:{own}", "--kind", "CERTIFICATE_BY_NODE").stdout)
        self.assertIn("Forbidden", self.refused("store", "--kind", "CERTIFICATE_BY_NODE", "--name", "bob", "x"))
        self.refused("fetch", "nothing-there", "--kind", "SIP-REGISTRATION")
        self.refused("lookup", "nobody")
        (pong,) = self.founder.json("ping", own)
        self.assertEqual(own, pong["node_id"])
        self.assertEqual(3, len(self.founder.p2psip("ping", "--count", "3").stdout.splitlines()))
        self.refused("ping", "0" * 31 + "1")

    def test_state(self) -> None:
        """Without --state the only overlay there is; where no node runs, and where there are several: one line."""
        home = self.world.directory / "home"
        (home / "p2psip").mkdir(parents=True)
        environment = {**os.environ, "XDG_STATE_HOME": str(home)}

        def p2psip(*arguments: str) -> subprocess.CompletedProcess[str]:
            return run([str(BIN / "p2psip"), *arguments], env=environment)

        nothing = p2psip("status")
        self.assertEqual(1, nothing.returncode)
        self.assertIn("there is no overlay", nothing.stderr)
        (home / "p2psip" / "example.org").symlink_to(self.founder.state)
        self.assertIn("example.org", p2psip("status").stdout)
        (home / "p2psip" / "example.net").mkdir()
        (home / "p2psip" / "example.net" / "control.sock").touch()
        several = p2psip("status")
        self.assertEqual(1, several.returncode)
        self.assertIn("--state", several.stderr)
        self.founder.terminate()
        stopped = p2psip("status", "--state", str(self.founder.state))
        self.assertEqual(1, stopped.returncode)
        self.assertEqual(1, len(stopped.stderr.splitlines()))
        self.assertIn("no node is running", stopped.stderr)

    def test_spent_token(self) -> None:
        """A token is good for the node that used it, even begun anew with its key, and for no other."""
        token = self.founder.p2psip("invite", "n2").stdout.strip()
        second = self.world.node()
        second.start("--join", token)
        second.wait_joined()
        second.kill()
        (second.state / "node.crt").unlink()
        second.start("--join", token)
        second.wait_joined()
        thief = self.world.node()
        thief.start("--join", token)
        thief.wait_for("does not accept")
        assert thief.process is not None
        self.assertEqual(1, thief.process.wait(20))
        own = second.status()["node_id"]
        second.kill()
        shutil.rmtree(second.state)
        second.start("--join", self.founder.p2psip("invite", "n2").stdout.strip())
        second.wait_joined()
        self.assertEqual(own, second.status()["node_id"], "a new token for the name gives the Node-ID again")

    def test_account(self) -> None:
        """A user who may have nodes enrolls one with the document and the account's password."""
        self.founder.p2psip("user", "add", "carol", "--nodes", "1", "--password-stdin", stdin="long enough pw\n")
        document, password = self.founder.state / "overlay.xml", self.world.directory / "password"
        for text, wanted in (("wrong", "does not accept"), ("long enough pw", "is part of")):
            password.write_text(f"{text}\n")
            node = self.world.node()
            node.start("--config", str(document), "--account", "carol", "--password-file", str(password))
            node.wait_for(wanted)
        self.assertEqual("peer", node.status()["role"])

    def test_roles(self) -> None:
        """A peer serves no phones; a client takes part without serving the overlay."""
        peer = self.world.node()
        peer.start("--join", self.founder.p2psip("invite", "p", "--role", "peer").stdout.strip())
        peer.wait_joined()
        self.assertEqual("peer", peer.status()["role"])
        self.assertFalse([listener for listener in peer.status()["listeners"] if "sip" in listener])
        client = self.world.node()
        client.start("--client", "--join", self.founder.p2psip("invite", "c", "--role", "peer").stdout.strip())
        client.wait_joined()
        self.assertEqual("client", client.status()["role"])
        self.assertTrue(client.json("ping", peer.status()["node_id"]))
        neighbors = peer.status()["neighbors"]
        self.assertNotIn(client.status()["node_id"], neighbors["successors"] + neighbors["predecessors"])

    def test_never_created(self) -> None:
        """`--no-create` founds nothing; a usage error names the option."""
        node = self.world.node()
        node.start("--no-create")
        node.wait_for("--no-create forbids")
        assert node.process is not None
        self.assertEqual(1, node.process.wait(20))
        node.start("--join", "a", "--config", "b")
        node.wait_for("exclude each other")
        self.assertEqual(1, node.process.wait(20))
        again = self.world.node()
        again.state = self.founder.state
        again.start()
        again.wait_for("is in use by another node")
        self.assertEqual(1, again.process.wait(20) if again.process else None)
