"""Nodes behind NATs: they are peers like any other, by whatever way their links come about."""

from __future__ import annotations

import json
import time
from typing import Any

from ..integration.nodes import NodeProcess, until
from .coturn import start_coturn
from .description import Line, NATKind
from .overlays import LaboratoryWorld, OverlayTestCase
from .scenarios import Home, ThreePeers

TURN_SECRET = "a secret of the TURN server"
LINK_SECONDS = 60.0
"""How long links between all peers may take: far more than they do."""


class PeersTestCase(OverlayTestCase):
    """Three peers: P on the public network, A and B each behind a NAT of its own."""

    def peers(
        self, a: Home, b: Home, turn: bool = False
    ) -> tuple[LaboratoryWorld, NodeProcess, NodeProcess, NodeProcess]:
        """All of them, joined; with `turn` P has a TURN server, at another public host."""
        world = self.world(*ThreePeers(a, b, turn).nodes())
        options: list[str] = []
        if turn:
            start_coturn(world.lab, "turn", TURN_SECRET)
            secret = world.directory / "turn-secret"
            secret.write_text(TURN_SECRET)
            options = ["--turn-server", f"{world.lab.address('turn')}:3478", "--turn-secret-file", str(secret)]
        p = world.founder(*options, address=world.lab.address("p"))
        return world, p, *(world.join(p, address=world.lab.address(name)) for name in "ab")

    def link(self, here: NodeProcess, there: NodeProcess) -> dict[str, Any]:
        """The link of one node to another, as soon as it has one."""
        node_id = there.status()["node_id"]

        def found() -> Any:
            return next((link for link in here.status()["links"] if link["node_id"] == node_id), None)

        found_link: dict[str, Any] = until(found, LINK_SECONDS, f"a link to {there.name}", [here, there])
        return found_link

    def assert_peers(self, *nodes: NodeProcess) -> None:
        """Each is responsible for a part of the ring, by its answer to a Probe of the others."""
        for node in nodes:
            for asker in nodes:
                told = asker.json("probe", node.status()["node_id"])
                self.assertGreater(told["responsible_ppb"], 0)
        self.assertEqual(sum(len(node.status()["neighbors"]["successors"]) for node in nodes), 2 * len(nodes))

    def assert_registrations_pass(self, world: LaboratoryWorld, at: str, by: NodeProcess, founder: NodeProcess) -> None:
        """A phone registers at the node of host `at`, and `by` finds it and asks that node for its contacts."""
        founder.add_users({"alice": "secret"})
        failed = world.phones_at(at).register(world.lab.address(at), [("alice", "secret")], 5070)
        self.assertEqual(failed, 0)
        until(lambda: self.contacts(by), LINK_SECONDS, "the contacts of a phone elsewhere", world.nodes)

    def contacts(self, by: NodeProcess) -> Any:
        """The contacts of alice, as `by` is told them by the node where she is registered."""
        answer = by.p2psip("lookup", "alice@example.org", "--json", check=False)
        nodes = json.loads(answer.stdout)["nodes"] if not answer.returncode else []
        return next((node["contacts"] for node in nodes), None)


class ThreePeersTests(PeersTestCase):
    """What passes between homes."""

    def test_two_cone_nats(self) -> None:
        """A and B meet by their server-reflexive addresses, which P told them; no other STUN server is there.

        [6940-6.5.1.4-1] [6940-6.5.1.4-2] [6940-6.5.1.3-1]
        """
        world, p, a, b = self.peers(Home("a"), Home("b"))
        link = self.link(a, b)
        self.assertEqual(link["protocol"], "DTLS-UDP-SR")
        self.assertRegex(link["candidate_pair"], r"^host 192\.168\.\S+ -> (srflx|prflx) 198\.51\.100\.\S+$")
        self.assert_peers(p, a, b)
        self.assert_registrations_pass(world, "a", b, p)

    def test_a_nat_behind_a_nat(self) -> None:
        """A is behind a carrier's NAT as well."""
        _, p, a, b = self.peers(Home("a", carrier=NATKind.CONE), Home("b"))
        self.link(a, b)
        self.assert_peers(p, a, b)

    def test_ipv6(self) -> None:
        """Where both homes have IPv6, behind a firewall that lets answers in, no address is translated."""
        world = self.world(*ThreePeers(Home("a", ipv6=True), Home("b", ipv6=True)).nodes())
        lab = world.lab
        p = world.founder("--bind", lab.address6("p"), address=lab.address("p"))
        a, b = (world.join(p, "--bind", lab.address6(name), address=lab.address(name)) for name in "ab")
        pair = self.link(a, b)["candidate_pair"]
        self.assertRegex(pair, r"^host \[2001:\S+ -> (host|prflx) \[2001:\S+$")
        self.assert_peers(p, a, b)

    def test_two_symmetric_nats(self) -> None:
        """Only a relay joins them, which they found in the overlay. [6940-9-1] [6940-9-5]"""
        symmetric = NATKind.SYMMETRIC
        world, p, a, b = self.peers(Home("a", symmetric), Home("b", symmetric), turn=True)
        pairs = self.link(a, b)["candidate_pair"] + self.link(b, a)["candidate_pair"]
        self.assertIn("relay " + world.lab.address("turn"), pairs)
        for node in (a, b):
            self.assertNotIn("relay", self.link(node, p)["candidate_pair"])
        self.assert_peers(p, a, b)
        self.assert_registrations_pass(world, "a", b, p)

    def test_two_symmetric_nats_without_a_relay(self) -> None:
        """Nothing joins them, and within 15 s the log says what was tried."""
        symmetric = NATKind.SYMMETRIC
        world = self.world(*ThreePeers(Home("a", symmetric), Home("b", symmetric)).nodes())
        p = world.founder(address=world.lab.address("p"))
        a = world.join(p, address=world.lab.address("a"))
        b = world.node(address=world.lab.address("b"))
        # Where A is its admitting peer B cannot even join.
        b.start("--join", p.p2psip("invite", "b").stdout.strip())
        b.wait_for("this node joins")
        began = time.monotonic()
        said = b.wait_for("no connection to")
        self.assertLess(time.monotonic() - began, 15)
        self.assertIn(f"no connection to {a.status()['node_id']}: no candidate pair worked within", said)
        self.assertIn("srflx 198.51.100.", said)
        self.assertIn("no TURN server is known", said)
        for node in (a, b):
            self.assertLessEqual({link["node_id"] for link in node.status()["links"]}, {p.status()["node_id"]})

    def test_an_address_changes(self) -> None:
        """The NAT of A gets another port for each of its bindings: all links are there again, without a restart."""
        world, p, a, b = self.peers(Home("a"), Home("b"))
        self.link(a, b)
        self.assert_registrations_pass(world, "a", b, p)
        world.lab.rebind("nat-a")

        def whole() -> bool:
            found = {node: {link["node_id"] for link in node.status()["links"]} for node in (p, a, b)}
            ids = {node: node.status()["node_id"] for node in (p, a, b)}
            return all(ids[there] in found[here] for here in found for there in ids if here is not there)

        until(lambda: whole() and self.contacts(b), 90, "everything as before", [p, a, b])
        self.assert_peers(p, a, b)

    def test_a_peer_dies(self) -> None:
        """SIGKILL: the others have it out of their Routing Tables, and the ring closes. [6940-6.6.3.1-9]"""
        _, p, a, b = self.peers(Home("a"), Home("b"))
        self.link(p, a)
        self.link(b, a)
        dead = a.status()["node_id"]
        a.kill()
        for node in (p, b):
            until(
                lambda node=node: dead not in {link["node_id"] for link in node.status()["links"]},
                30, "the link to the dead node gone", [node],
            )  # fmt: skip
            self.assertNotIn(dead, node.status()["neighbors"]["successors"])


class PathTests(PeersTestCase):
    """Lines that are worse than Ethernet."""

    def test_small_mtu(self) -> None:
        """A value of 4 kB crosses a hop that takes 600 bytes and loses every IP fragment. [6940-6.7-1] [6940-6.7-3]"""
        narrow = Line(mtu=600, fragments=False)
        _, p, a, b = self.peers(Home("a", line=narrow), Home("b"))
        value = "v" * 4000
        a.p2psip("store", "--kind", "CERTIFICATE_BY_NODE", "--index", "3", value)
        for node in (p, b):
            answer = node.json("fetch", "hex:" + a.status()["node_id"], "--kind", "CERTIFICATE_BY_NODE")
            self.assertIn(value, [found["value"] for found in answer["values"]])
        for node in (p, b):
            self.assertLess(self.link(node, a)["rtt_ms"], 5000)
