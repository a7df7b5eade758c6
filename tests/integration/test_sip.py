"""Phones at three redirect servers: sipp registers a thousand, calls by way of the third, and guesses passwords."""

from __future__ import annotations

import click
from twisted.trial.unittest import SynchronousTestCase

from .nodes import World
from .phones import credentials, redirections

PHONES = 500
"""Registered at each of two nodes."""


class Phones(SynchronousTestCase):
    """Three nodes, and as many accounts as wanted."""

    def setUp(self) -> None:
        self.world = World(options=("--sip-mode", "redirect"))
        self.addCleanup(self.world.close)
        founder = self.world.founder()
        self.nodes = [founder, *self.world.join_all(founder, 2)]
        self.phones = self.world.sipp()
        self.users: dict[str, str] = {}

    def add_users(self, count: int) -> None:
        """So many accounts u0, u1 ..., and one to call from."""
        self.users = {f"u{number}": f"secret-{number}" for number in range(count)}
        self.nodes[0].add_users({**self.users, "caller": "caller-pw"})

    def register_all(self, transport: str, port: int) -> None:
        """Half of the users at the first node with contacts at `port`, half at the second with `port` + 1."""
        everybody = list(self.users.items())
        for index in (0, 1):
            part = everybody[index * PHONES : (index + 1) * PHONES]
            failed = self.phones.register(self.nodes[index].address, part, port + index, transport=transport)
            self.assertEqual(0, failed, f"REGISTERs at node {index + 1} over {transport}")
            self.assertEqual(PHONES, self.nodes[index].status()["registrations"]["total"])

    def calls(self, transport: str, port: int) -> None:
        """Calls to the third node, for users of both others: redirected there, and the call stands."""
        callees = [f"u{number}" for number in (0, 7, 250, PHONES - 1)]
        others = [f"u{number}" for number in (PHONES, PHONES + 8, 2 * PHONES - 1)]
        answering = [
            self.phones.callee(port, len(callees), transport),
            self.phones.callee(port + 1, len(others), transport),
        ]
        calling = "tn" if transport.startswith("t") else transport
        try:
            for number, called in ((port, callees), (port + 1, others)):
                rows = [("caller", credentials("caller", "caller-pw"), callee) for callee in called]
                failures, messages = self.phones.run("call", self.nodes[2].address, rows, calling, rate=5)
                contact = f"@{self.phones.address}:{number};transport={'TCP' if calling == 'tn' else 'UDP'}"
                wanted = {(callee, f"sip:{callee}{contact}") for callee in called}
                self.assertEqual(wanted, set(redirections(messages)))
                self.assertEqual(0, failures, f"calls over {transport}")
            for process in answering:
                self.assertEqual(0, process.wait(20))
        finally:
            for process in answering:
                process.kill()
                process.wait()

    def test_udp(self) -> None:
        """Over UDP 2 x 500 phones register, and calls to the third node are redirected to them."""
        self.add_users(2 * PHONES)
        self.register_all("u1", 17101)
        self.calls("u1", 17101)

    def test_tcp(self) -> None:
        """Over TCP 2 x 500 phones register, and calls to the third node are redirected to them."""
        self.add_users(2 * PHONES)
        self.register_all("t1", 17201)
        self.calls("t1", 17201)

    def test_who_is_told(self) -> None:
        """404 for a user whom nobody knows, after proof of who asks; a stranger is challenged and learns nothing."""
        self.add_users(2)
        for node, user in zip(self.nodes, self.users.items(), strict=False):
            self.assertEqual(0, self.phones.register(node.address, [user], 17301))
        asked = self.nodes[2].address
        rows = [("caller", credentials("caller", "caller-pw"), "nobody")]
        self.assertEqual(0, self.phones.run("unknown", asked, rows)[0])
        rows = [("stranger", "", callee) for callee in ("u0", "u1", "nobody")]
        failures, messages = self.phones.run("stranger", asked, rows)
        self.assertEqual(0, failures)
        self.assertEqual(3, messages.count("SIP/2.0 401"))
        self.assertNotIn("17301", messages)

    def test_unregister(self) -> None:
        """After a REGISTER with Expires 0 the AOR is not found any more, from any node."""
        self.add_users(4)
        first, second, third = self.nodes
        user = [("u3", self.users["u3"])]
        self.assertEqual(0, self.phones.register(first.address, user, 17303))
        own = first.status()["node_id"]
        self.assertEqual([own], third.registered_at("u3"))
        self.assertEqual(1, self.phones.run("register", first.address, [("u3", credentials("u3", "x"), "1", "0")])[0])
        self.assertEqual([own], third.registered_at("u3"))
        messages = self.phones.run(
            "register", first.address, [("u3", credentials("u3", self.users["u3"]), "17303", "0")]
        )[1]
        self.assertIn("SIP/2.0 200", messages)
        for node in (first, second, third):
            self.assertEqual([], node.registered_at("u3"))
        shown = third.p2psip("lookup", "u3", check=False)
        self.assertEqual((1, "Error: u3@example.org is not registered\n"), (shown.returncode, shown.stderr))

    def test_lookup(self) -> None:
        """`p2psip lookup` at the third node names the registrar and, asked there, the contacts."""
        self.add_users(1)
        self.assertEqual(0, self.phones.register(self.nodes[1].address, self.users.items(), 17309))
        found = self.nodes[2].json("lookup", "sip:u0@example.org")
        by_node = {entry["node_id"]: entry["contacts"] for entry in found["nodes"]}
        contacts = by_node[self.nodes[1].status()["node_id"]]
        self.assertIn(f"sip:u0@{self.phones.address}:17309;transport=UDP", [c["uri"] for c in contacts])
        with self.assertRaises(click.ClickException):
            self.nodes[2].ask("GET", "/lookup")

    def test_wrong_passwords(self) -> None:
        """Wrong passwords are refused, then slowed down, and counted; others go on registering."""
        self.add_users(2)
        node = self.nodes[1]
        before = node.status()["rejected"]
        rows = [("u0", credentials("u0", f"guess-{n}"), "17400", "600") for n in range(40)]
        failures, messages = self.world.sipp().run("register", node.address, rows)
        self.assertEqual(40, failures)
        self.assertNotIn("SIP/2.0 200", messages)
        self.assertIn("Too Many Attempts", messages)
        after = node.status()["rejected"]

        def grown(cause: str) -> int:
            return int(after.get(cause, 0)) - int(before.get(cause, 0))

        self.assertGreaterEqual(grown("sip: wrong credentials"), 5)
        slowed = grown("sip: account slowed down") + grown("sip: source slowed down")
        self.assertGreaterEqual(slowed, 10)
        self.assertEqual(0, self.phones.register(node.address, [("u1", self.users["u1"])], 17305))
