"""Three nodes as three processes: founding, joining, restarting, and what `p2psip` shows of them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from itertools import zip_longest

from twisted.trial.unittest import SynchronousTestCase

from .nodes import NodeProcess, World, run, until


def node_ids(nodes: list[NodeProcess]) -> list[str]:
    """The Node-ID of each node, as its status says."""
    return [node.status()["node_id"] for node in nodes]


def joined_in_time(
    test: SynchronousTestCase,
    world: World,
    founder: NodeProcess,
    options: Iterable[Iterable[str]],
    addresses: Iterable[str] = (),
) -> list[NodeProcess]:
    """One node more for each of `options`, each invited, started and joined within 10 s."""
    nodes = []
    for given, address in zip_longest(options, addresses):
        begun = time.monotonic()
        nodes.append(world.join(founder, *given, address=address))
        test.assertLess(time.monotonic() - begun, 10)
    return nodes


def complete(test: SynchronousTestCase, nodes: list[NodeProcess]) -> None:
    """Wait until each of three nodes has the two others as neighbors and links; look at its status."""
    ids = node_ids(nodes)
    test.assertEqual(3, len(set(ids)))
    for node, own in zip(nodes, ids, strict=True):
        others = set(ids) - {own}

        def whole(node: NodeProcess = node, others: set[str] = others) -> bool:
            status = node.status()
            seen = {link["node_id"] for link in status["links"]}
            neighbors = status["neighbors"]
            return seen == others == set(neighbors["successors"]) == set(neighbors["predecessors"])

        until(whole, 20, f"{node.name} sees the two others", [node])
        status = node.status()
        test.assertEqual("example.org", status["overlay"])
        test.assertEqual("registrar", status["role"])
        test.assertTrue(status["joined"])
        test.assertEqual({"DTLS-UDP-SR"}, {link["protocol"] for link in status["links"]})
        test.assertTrue(any("sip UDP" in listener for listener in status["listeners"]))


class IPv6(SynchronousTestCase):
    """The same over IPv6, where loopback has one address only."""

    def test_addresses(self) -> None:
        """Three addresses with default ports, in a network namespace of their own; without root, three ports of ::1."""
        if os.geteuid() == 0:
            name = f"p2psip-test-{os.getpid()}"
            addresses = [f"fd00:6940::{number}" for number in range(1, 5)]
            self.addCleanup(run, ["ip", "netns", "delete", name])
            commands = [["ip", "netns", "add", name], ["ip", "-n", name, "link", "set", "lo", "up"]]
            commands += [["ip", "-n", name, "address", "add", f"{a}/128", "dev", "lo"] for a in addresses]
            for command in commands:
                result = run(command)
                self.assertEqual(0, result.returncode, result.stderr)
            self.three(addresses, [[], [], []], 5060, ["ip", "netns", "exec", name])
        else:
            self.three(["::1"] * 4, [_ports(17000 + 100 * number) for number in range(3)], 17001, [])

    def three(self, addresses: list[str], options: list[list[str]], sip_port: int, prefix: list[str]) -> None:
        world = World(prefix=prefix)
        self.addCleanup(world.close)
        founder = world.founder(*options[0], address=addresses[0])
        second, third = joined_in_time(self, world, founder, options[1:], addresses[1:3])
        complete(self, [founder, second, third])
        founder.add_users({"alice": "secret"})
        phone = world.sipp(addresses[3])
        self.assertEqual(0, phone.register(addresses[0], [("alice", "secret")], 17501, server_port=sip_port))
        found = third.json("lookup", "alice")["nodes"]
        self.assertEqual([founder.status()["node_id"]], [entry["node_id"] for entry in found])
        self.assertEqual(
            [f"sip:alice@[{addresses[3]}]:17501;transport=UDP"], [c["uri"] for c in found[0]["contacts"]]
        )


def _ports(first: int) -> list[str]:
    names = ("reload", "sip", "enrollment")
    return [o for number, name in enumerate(names) for o in (f"--{name}-port", str(first + number))]


class ThreeNodes(SynchronousTestCase):
    """An overlay of three nodes on default ports, each with an address of its own."""

    def setUp(self) -> None:
        self.world = World()
        self.addCleanup(self.world.close)

    def three(self) -> list[NodeProcess]:
        founder = self.world.founder()
        return [founder, self.world.join(founder), self.world.join(founder)]

    def test_each_sees_the_others(self) -> None:
        """Each joins within 10 s; `status` of each of three shows the two others; phones are found [6940-10.5-1].

        [6940-11.3-2]
        """
        founder = self.world.founder()
        second, third = joined_in_time(self, self.world, founder, ([], []))
        complete(self, [founder, second, third])
        founder.add_users({"alice": "secret"})
        self.assertEqual(0, self.world.sipp().register(founder.address, [("alice", "secret")], 17001))
        self.assertEqual([founder.status()["node_id"]], third.registered_at("alice"))

    def test_restart(self) -> None:
        """A node killed by SIGKILL rejoins with its Node-ID; the founder too, and founds no second overlay."""
        nodes = self.three()
        ids = node_ids(nodes)
        for index in (1, 0):
            node = nodes[index]
            node.kill()
            node.log.clear()
            node.start()
            node.wait_for("rejoins")
            node.wait_joined()
            self.assertEqual(ids[index], node.status()["node_id"])
            self.assertFalse(any("found" in line for line in node.log), node.log)

    def test_alone_it_waits(self) -> None:
        """A node without the authority never founds an overlay, whatever is down."""
        founder = self.world.founder()
        other = self.world.join(founder)
        founder.kill()
        other.kill()
        other.start()
        other.wait_for("not joined")
        self.assertFalse(other.status()["joined"])
        result = other.p2psip("lookup", "alice", check=False)
        self.assertEqual(1, result.returncode)
        self.assertEqual(1, len(result.stderr.strip().splitlines()))
        own = node_ids([other])
        other.kill()
        # Its old token does not make it enroll again, and nothing makes it found.
        other.start("--join", "p2psip1.spent")
        other.wait_for("rejoins")
        founder.start()
        # It waits half a minute for others before it is the first again.
        founder.wait_joined(60)
        other.wait_joined()
        self.assertEqual(own, node_ids([other]))
        both = sorted(node_ids([founder, other]))
        self.assertEqual(both, sorted({founder.status()["node_id"], *founder.status()["neighbors"]["successors"]}))

    def test_values(self) -> None:
        """What one node stores, the others fetch; `ping` is answered; a wrong Kind is a one-line error."""
        nodes = self.three()
        user = "n2@nodes.example.org"
        nodes[1].p2psip("store", "--kind", "CERTIFICATE_BY_USER", "--index", "5", "not a certificate")
        for node in nodes:
            values = node.json("fetch", user, "--kind", "CERTIFICATE_BY_USER")["values"]
            self.assertIn("not a certificate", [value["value"] for value in values])
            self.assertTrue(node.json("ping"))
        failed = nodes[0].p2psip("fetch", user, "--kind", "NO-SUCH", check=False)
        self.assertEqual(1, failed.returncode)
        self.assertIn("no Kind NO-SUCH", failed.stderr)

    def test_leave(self) -> None:
        """A node that leaves tells the others, which go on without it; its process ends with status 0."""
        nodes = self.three()
        ids = node_ids(nodes)
        nodes[1].p2psip("leave")
        process = nodes[1].process
        assert process is not None
        self.assertEqual(0, process.wait(20))
        for node in (nodes[0], nodes[2]):
            neighbors = node.status()["neighbors"]
            self.assertNotIn(ids[1], neighbors["successors"] + neighbors["predecessors"])

    def test_one_line_errors(self) -> None:
        """A port in use, a locked state directory, a spoilt token: one line that names what to change."""
        founder = self.world.founder()
        second = self.world.node(address=founder.address)
        second.start("--no-create")
        second.wait_for("--reload-port")
        assert second.process is not None
        self.assertEqual(1, second.process.wait(20))
        third = self.world.node()
        third.start("--join", "p2psip1.nonsense")
        third.wait_for("join token")
        assert third.process is not None
        self.assertEqual(1, third.process.wait(20))
        self.assertFalse(any("Traceback" in line for line in second.log + third.log))


class Decode(SynchronousTestCase):
    """`p2psip decode` needs no node."""

    def test_frame(self) -> None:
        """A frame in hex is printed as JSON with the RFC's field names."""
        from .nodes import BIN

        result = run([str(BIN / "p2psip"), "decode"], input="8100000007 00000003")
        self.assertEqual(0, result.returncode, result.stderr)
        self.assertIn("ack_sequence", json.dumps(json.loads(result.stdout)))
        garbage = run([str(BIN / "p2psip"), "decode"], input="80ffff")
        self.assertEqual(1, garbage.returncode)
        self.assertEqual(1, len(garbage.stderr.strip().splitlines()))
