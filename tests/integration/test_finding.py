"""Ways into the overlay for real nodes: the cache, several bootstrap nodes, a host that is no peer, the LAN."""

from __future__ import annotations

import ipaddress
import json
import random
import threading

from twisted.trial.unittest import SynchronousTestCase
from zeroconf import (
    DNSAddress,
    DNSOutgoing,
    DNSPointer,
    DNSService,
    DNSText,
    ServiceBrowser,
    ServiceInfo,
    ServiceStateChange,
    Zeroconf,
)

from p2psip.lan import CONFIGURATION_SERVICE, PEER_SERVICES

from .nodes import NodeProcess, World, until

RESPONSE = 0x8400
A, PTR, TXT, SRV, IN = 1, 12, 16, 33, 1
"""Of the DNS: flags of an answer, types and class of its records."""


class FindingTestCase(SynchronousTestCase):
    overlay = "example.org"

    def setUp(self) -> None:
        self.world = World(self.overlay)
        self.addCleanup(self.world.close)

    def restarted(self, node: NodeProcess, *options: str) -> None:
        """Kill a node, and see that it joins again."""
        node.kill()
        node.start(*options)
        node.wait_for("rejoins")
        node.wait_joined(60)

    def named(self, nodes: list[NodeProcess], *places: str) -> None:
        """Wait until each of `nodes` has a document that names these bootstrap nodes."""

        def everywhere() -> bool:
            documents = [(node.state / "overlay.xml").read_text() for node in nodes]
            return all(f'address="{place}"' in document for document in documents for place in places)

        until(everywhere, 20, f"{places} are in the documents of all", nodes)


class BootstrapTests(FindingTestCase):
    def test_cache(self) -> None:
        """With every bootstrap node of the document down, a node joins again by a peer it knew. [6940-11.4-5]"""
        founder = self.world.founder()
        second, third = self.world.join(founder), self.world.join(founder)
        cache = second.state / "bootstrap-cache.json"
        until(lambda: [third.address, 6084] in json.loads(cache.read_text()), 20, "it is cached", [second, third])
        founder.kill()
        self.restarted(second)
        self.assertIn(third.status()["node_id"], {link["node_id"] for link in second.status()["links"]})

    def test_second_bootstrap_node(self) -> None:
        """One more in the document reaches every node, and nodes join by it when the first is dead. [6940-11.1-13]"""
        founder = self.world.founder()
        second, third = self.world.join(founder), self.world.join(founder)
        said = founder.p2psip("authority", "bootstrap", "add", second.address).stdout
        self.assertIn(f"{second.address}:6084", said)
        self.named([second, third], founder.address, second.address)
        founder.kill()
        (third.state / "bootstrap-cache.json").unlink(missing_ok=True)
        self.restarted(third)
        self.assertIn(second.status()["node_id"], {link["node_id"] for link in third.status()["links"]})

    def test_host_that_is_no_peer(self) -> None:
        """Newcomers join by way of a client; when it has lost the overlay they join by another. [6940-10.5-1]"""
        founder = self.world.founder()
        host = self.world.join(founder, "--client", "--no-sip")
        founder.p2psip("authority", "bootstrap", "add", f"{host.address}:6084")
        founder.p2psip("authority", "bootstrap", "remove", founder.address)
        self.named([founder, host], host.address)
        second = self.world.join(founder)
        self.assertEqual("client", host.status()["role"])
        self.assertGreater(host.status()["messages"]["forwarded"], 0)
        neighbors = second.status()["neighbors"]["successors"]
        self.assertEqual([founder.status()["node_id"]], neighbors)
        # The host's own way back, its peer being dead, is a node that has joined by way of it.
        founder.kill()
        until(lambda: host.status()["joined"], 60, "it has a peer again", [host, second])
        second.kill()
        until(lambda: not host.status()["joined"], 60, "it notices that it is alone", [host])
        founder.start()
        founder.wait_joined(60)
        second.start()
        second.wait_joined(60)
        until(lambda: host.status()["joined"], 90, "it is in the overlay again", [host])


class LanTests(FindingTestCase):
    """Loopback is one LAN for all tests that run at a time: each has an overlay of its own."""

    def setUp(self) -> None:
        self.overlay = f"lan-{random.randrange(1 << 64):x}.example"
        super().setUp()

    def zeroconf(self) -> Zeroconf:
        """What another program on the LAN speaks by."""
        made = Zeroconf([self.world.address()])
        self.addCleanup(made.close)
        return made

    def service(self, kind: str, label: str, overlay: str, *addresses: str) -> ServiceInfo:
        """Something that another program claims to be there, at port 9."""
        packed = [ipaddress.ip_address(address).packed for address in addresses]
        properties = {"overlay": overlay}
        return ServiceInfo(kind, f"{label}.{kind}", 9, properties=properties, addresses=packed, server="other.local.")

    def shout(self, *claims: tuple[str, str, str]) -> None:
        """Announce configuration servers by label, overlay and address, whatever that does to who hears it."""
        message = DNSOutgoing(RESPONSE)
        for label, overlay, address in claims:
            name, host = f"{label}.{CONFIGURATION_SERVICE}", "other.local."
            text = b"overlay=" + overlay.encode()
            message.add_answer_at_time(DNSPointer(CONFIGURATION_SERVICE, PTR, IN, 120, name), 0)
            message.add_answer_at_time(DNSService(name, SRV, IN, 120, 0, 0, 9, host), 0)
            message.add_answer_at_time(DNSText(name, TXT, IN, 120, bytes((len(text),)) + text), 0)
            message.add_answer_at_time(DNSAddress(host, A, IN, 120, ipaddress.ip_address(address).packed), 0)
        speaker, done = self.zeroconf(), threading.Event()

        def repeat() -> None:
            while not done.wait(0.2):
                speaker.send(message)

        speaking = threading.Thread(target=repeat)
        speaking.start()
        self.addCleanup(speaking.join)
        self.addCleanup(done.set)

    def test_announced(self) -> None:
        """A founder is found as configuration server and as peer, with its address and its overlay's name."""
        heard: dict[str, ServiceInfo] = {}
        complete = threading.Event()

        def changed(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
            info = zeroconf.get_service_info(service_type, name, 3000)
            if info is not None and info.properties.get(b"overlay") == self.overlay.encode():
                heard[service_type] = info
                if len(heard) == 2:
                    complete.set()

        browser = ServiceBrowser(self.zeroconf(), [CONFIGURATION_SERVICE, *PEER_SERVICES.values()], [changed])
        self.addCleanup(browser.cancel)
        founder = self.world.founder("--lan")
        self.assertTrue(complete.wait(30), heard)
        for service, info in heard.items():
            self.assertEqual(info.parsed_addresses(), [founder.address])
            self.assertEqual(info.port, 8443 if service == CONFIGURATION_SERVICE else 6084)

    def test_founded_once(self) -> None:
        """A node without a token finds the overlay, says how to join it, and ends; what is hostile is not shown."""
        founder = self.world.founder("--lan")
        self.shout(
            ("\x1b[31mred\x07", self.overlay, "127.0.0.1"),
            ("\x1b[32mgreen\n2026 [fake] line", f"{self.overlay}\x1b[0m\n", "127.0.0.1"),
            ("x" * 60, "x" * 200, "127.0.0.1"),
            ("multicast", self.overlay, "224.0.0.1"),
        )
        second = self.world.node()
        second.start("--lan")
        said = second.wait_for("is on this LAN")
        assert second.process is not None
        self.assertEqual(1, second.process.wait(20))
        self.assertIn(f"{founder.address}:8443", said)
        self.assertIn(f"--state {second.state} --bind {second.address} --no-discovery --lan --join TOKEN", said)
        self.assertFalse((second.state / "authority").exists())
        self.assertTrue(all(line.isprintable() for line in second.log), second.log)
        self.assertFalse([line for line in second.log if "red" in line or "green" in line or "xxx" in line])
        token = founder.p2psip("invite", "second").stdout.strip()
        second.start("--lan", "--join", token)
        second.wait_joined()

    def test_peer_nearby(self) -> None:
        """With all bootstrap nodes down and no cache a node joins by a peer on its LAN. [6940-11.4-1]

        What others announce there in the overlay's name, without its certificates, is no way in.
        """
        founder = self.world.founder("--lan")
        second, third = self.world.join(founder, "--lan"), self.world.join(founder, "--lan")
        stranger = World("stranger.example")
        self.addCleanup(stranger.close)
        other = stranger.founder(address=self.world.address())
        liar = self.zeroconf()
        claim = self.service(PEER_SERVICES[False], "liar", self.overlay, other.address)
        claim.port = 6084
        liar.register_service(claim)
        founder.kill()
        (third.state / "bootstrap-cache.json").unlink(missing_ok=True)
        self.restarted(third, "--lan")
        ids = {link["node_id"] for link in third.status()["links"]}
        self.assertEqual({second.status()["node_id"]}, ids)
        said = [line for node in self.world.nodes for line in node.log if ".lan." in line]
        self.assertEqual(said, [])
