"""Eight nodes and a thousand registrations: any node may die, two neighbors at once as well, or leave.

All of it with ICE, as overlays are founded; the most important of it over the two other link protocols.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable
from typing import ClassVar

import click
from twisted.trial.unittest import SynchronousTestCase

from .nodes import DTLS, ICE, TLS, NodeProcess, World, only, until
from .phones import Sipp, credentials

NODES = 8
PHONES = 1000
FEWER = 200
HOLD_DOWN = 30.0
"""Seconds after a loss within which a second one may take data with it (RFC 6940 §10.4 keeps two replicas)."""


UNROUTED = 20.0
"""Seconds until a dead neighbor is out of the Routing Table: at most 6 until the next keepalive and 7.5 for the answer
to it, or to a message (RFC 6940 §6.6.3.1); and half as many again for slow machines."""
NOTICED = 25.0
"""Seconds until its link is closed: 7.5 more."""


class Eight(SynchronousTestCase):
    """An overlay of eight nodes, and what is done with it."""

    protocol: ClassVar[str]

    def setUp(self) -> None:
        self.world = World(options=only(self.protocol))
        self.addCleanup(self.world.close)
        self.founder = self.world.founder()
        self.world.join_all(self.founder, NODES - 1)
        self.nodes = self.world.nodes
        self.ids = {node.name: str(node.status()["node_id"]) for node in self.nodes}
        self.phones: Sipp = self.world.sipp()
        self.users = {f"u{number}": f"secret-{number}" for number in range(PHONES)}
        self.founder.add_users(self.users)
        self.at: dict[str, NodeProcess] = {}
        self.stable(self.nodes)

    def stable(self, nodes: Iterable[NodeProcess], seconds: float = 60) -> None:
        """Wait until each of `nodes` has those next to it in the ring as neighbors, and no other."""
        alive = list(nodes)
        ring = sorted(self.ids[node.name] for node in alive)

        def whole() -> bool:
            for node in alive:
                place = ring.index(self.ids[node.name])
                after = [ring[(place + step) % len(ring)] for step in (1, 2, 3)]
                before = [ring[(place - step) % len(ring)] for step in (1, 2, 3)]
                neighbors = node.ask("GET", "/status")["neighbors"]
                if neighbors["successors"][:3] != after or neighbors["predecessors"][:3] != before:
                    return False
            return True

        until(whole, seconds, "the ring is whole", alive)

    def register(self, users: Iterable[str], node: NodeProcess) -> None:
        names = list(users)
        failed = self.phones.register(node.address, [(name, self.users[name]) for name in names], 17500)
        self.assertEqual(0, failed, f"REGISTERs at {node.name}")
        self.at.update(dict.fromkeys(names, node))

    def register_everybody(self, count: int = PHONES) -> None:
        names = list(self.users)[:count]
        for index, node in enumerate(self.nodes):
            self.register(names[index::NODES], node)

    def found(self, node: NodeProcess, users: Iterable[str]) -> set[str]:
        """Those of `users` whose registration `node` finds where it is."""
        found = set()
        for user in users:
            try:
                if self.ids[self.at[user].name] in node.registered_at(user):
                    found.add(user)
            except click.ClickException:
                continue
        return found

    def all_found(self, alive: Iterable[NodeProcess], everywhere: bool = True) -> None:
        """Each registration whose registrar lives is found from each node that lives, or from one in turn."""
        nodes = list(alive)
        users = sorted(user for user, node in self.at.items() if node in nodes)
        for index, node in enumerate(nodes):
            wanted = set(users if everywhere else users[index :: len(nodes)])
            lost = wanted - self.found(node, wanted)
            self.assertEqual(set(), lost, f"not found from {node.name}: {len(lost)} of {len(wanted)}")

    def killed(self, *nodes: NodeProcess) -> list[NodeProcess]:
        """Kill `nodes` at the same moment; those that live on, once they have noticed."""
        for node in nodes:
            assert node.process is not None
            node.process.kill()
        for node in nodes:
            node.kill()
        alive = [node for node in self.nodes if node.alive]
        self.stable(alive)
        return alive

    def back(self, *nodes: NodeProcess) -> None:
        """Start `nodes` again from what they have on disk: they rejoin as who they were."""
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait_for("rejoins")
            node.wait_joined()
            self.assertEqual(self.ids[node.name], node.status()["node_id"])
        self.stable([node for node in self.nodes if node.alive])

    def leaves(self, leaving: NodeProcess, leave: Callable[[], object]) -> None:
        """While `leaving` leaves, the others go on finding every registration that is not its own."""
        others = [node for node in self.nodes if node.alive and node is not leaving]
        users = sorted(user for user, node in self.at.items() if node in others)
        missed: list[str] = []
        asked = [0]
        over = threading.Event()

        def look() -> None:
            while not over.is_set():
                node, user = random.choice(others), random.choice(users)
                asked[0] += 1
                if not self.found(node, [user]):
                    missed.append(f"{user} from {node.name}")

        looking = [threading.Thread(target=look) for _ in range(3)]
        for thread in looking:
            thread.start()
        try:
            time.sleep(1)
            leave()
            time.sleep(3)
        finally:
            over.set()
            for thread in looking:
                thread.join()
        self.assertEqual([], missed, f"of {asked[0]} lookups")
        self.assertGreater(asked[0], 100)
        self.stable(others)
        self.all_found(others, everywhere=False)

    def by_command(self, leaving: NodeProcess) -> None:
        """Have a node leave as its operator would."""
        leaving.p2psip("leave")
        assert leaving.process is not None
        self.assertEqual(0, leaving.process.wait(30))


class Churn(Eight):
    """Everything, with ICE."""

    protocol = ICE

    def test_killed(self) -> None:
        """One node is killed, then two neighbors at once, the founder among them: nothing else is lost."""
        self.register_everybody()
        self.all_found(self.nodes, everywhere=False)
        ring = sorted(self.nodes, key=lambda node: self.ids[node.name])
        place = ring.index(self.founder)
        one = ring[(place + 4) % NODES]
        alive = self.killed(one)
        lost_at = time.monotonic()
        self.all_found(alive)
        time.sleep(max(0.0, lost_at + HOLD_DOWN - time.monotonic()))
        both = [self.founder, ring[(place + 1) % NODES]]
        alive = self.killed(*both)
        self.all_found(alive)
        self.back(one, *both)
        self.all_found(self.nodes, everywhere=False)
        asked = alive[0]
        for node in (one, *both):
            user = next(user for user, at in self.at.items() if at is node)
            contacts = [entry["contacts"] for entry in asked.ask("GET", "/lookup", aor=user)["nodes"]]
            self.assertIn(f"sip:{user}@{self.phones.address}:17500;", json.dumps(contacts), "bindings are kept")

    def test_leaves(self) -> None:
        """A node that leaves, by command or by SIGTERM, loses nothing even for a moment."""
        self.register_everybody(300)
        first, second = self.nodes[3], self.nodes[5]

        self.leaves(first, lambda: self.by_command(first))
        # twistd dies of the signal in the end, after all is done.
        self.leaves(second, lambda: self.assertEqual(-signal.SIGTERM, second.terminate()))
        self.back(first, second)
        self.all_found(self.nodes, everywhere=False)

    def test_authority_moves(self) -> None:
        """With the founder dead, known phones register and call; a node with the authority enrols a ninth."""
        second, third = self.nodes[1:3]
        callee, caller, late = "u1", "u2", "u3"
        self.register([callee, caller], second)
        archive, passphrase = self.world.directory / "authority.export", self.world.directory / "passphrase"
        passphrase.write_text("correct horse\n")
        self.founder.p2psip("authority", "export", str(archive), "--passphrase-file", str(passphrase))
        refused = second.p2psip("invite", "n9", check=False)
        self.assertEqual(1, refused.returncode)
        self.assertIn("does not hold the authority", refused.stderr)
        second.p2psip("authority", "import", str(archive), "--passphrase-file", str(passphrase))
        url = f"https://{second.address}:8443/enroll"
        until(lambda: third.status()["sequence"] > 1, 20, f"the document with {url} is everywhere", [third])
        self.killed(self.founder)
        self.register([callee, caller], second)
        answering = self.phones.callee(17500, 1)
        try:
            rows = [(caller, credentials(caller, self.users[caller]), callee)]
            self.assertEqual(0, self.phones.run("proxied", second.address, rows)[0])
            self.assertEqual(0, answering.wait(20))
        finally:
            answering.kill()
            answering.wait()
        ninth = self.world.join(second)
        self.ids[ninth.name] = ninth.status()["node_id"]
        self.stable([node for node in self.nodes if node.alive])
        second.p2psip("user", "add", "newcomer", "--device-password-stdin", stdin="new-secret\n")
        self.users["newcomer"] = "new-secret"
        self.register(["newcomer", late], ninth)
        self.assertEqual({"newcomer", late}, self.found(third, ["newcomer", late]))
        self.back(self.founder)


class WithoutICE(Eight):
    """The same in short over DTLS without ICE."""

    protocol = DTLS

    def test_killed_and_leaves(self) -> None:
        """One node is killed, one leaves: nothing else is lost."""
        self.register_everybody(FEWER)
        self.all_found(self.nodes, everywhere=False)
        alive = self.killed(self.nodes[2])
        self.all_found(alive)
        self.leaves(self.nodes[5], lambda: self.by_command(self.nodes[5]))


class OverTLS(WithoutICE):
    """And over TLS."""

    protocol = TLS


class Noticed(SynchronousTestCase):
    """A neighbor that is killed is known to be dead in time, over each link protocol."""

    def noticed(self, protocol: str, asked: bool) -> None:
        """Kill one of three; with `asked` the others send it something.  They notice in time."""
        world = World(options=only(protocol))
        self.addCleanup(world.close)
        founder = world.founder()
        nodes = [founder, *world.join_all(founder, 2)]
        dead = nodes.pop(1)
        dead_id = dead.status()["node_id"]

        def linked(node: NodeProcess) -> bool:
            return dead_id in {link["node_id"] for link in node.ask("GET", "/status")["links"]}

        def routed(node: NodeProcess) -> bool:
            told = node.ask("GET", "/status")
            neighbors = told["neighbors"]
            return dead_id in (*neighbors["successors"], *neighbors["predecessors"], *told["fingers"])

        def ping(node: NodeProcess) -> None:
            with contextlib.suppress(click.ClickException):
                node.ask("POST", "/ping", {"target": dead_id})

        until(lambda: all(map(linked, nodes)), 20, "both are linked with the one that is to die", nodes)
        until(lambda: all(map(routed, nodes)), 20, "both route over the one that is to die", nodes)
        dead.kill()
        killed = time.monotonic()
        pinging = [threading.Thread(target=ping, args=(node,)) for node in nodes if asked]
        for thread in pinging:
            thread.start()
        try:
            until(lambda: not any(map(routed, nodes)), UNROUTED, "the dead one is not routed over any more", nodes)
            left = NOTICED - (time.monotonic() - killed)
            until(lambda: not any(map(linked, nodes)), left, "the dead one is not linked any more", nodes)
        finally:
            for thread in pinging:
                thread.join()
        self.assertFalse(any(map(routed, nodes)))

    def test_with_ice(self) -> None:
        """Though nothing is sent but keepalives. [6940-6.6.3.1-8]"""
        self.noticed(ICE, asked=False)

    def test_without_ice(self) -> None:
        """By those who send something. [6940-6.6.3.1-8]"""
        self.noticed(DTLS, asked=True)

    def test_over_tls(self) -> None:
        """At once, since its system says so."""
        self.noticed(TLS, asked=False)
