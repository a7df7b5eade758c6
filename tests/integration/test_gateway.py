"""Calls between softphones of the overlay and of the telephone network, by gateways with kamailio as their trunk."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from .kamailio import Kamailio
from .nodes import NodeProcess, World, until
from .phones import Softphone

NUMBER = "+49301234"
"""That of alice."""


class GatewayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.addCleanup(self.world.close)
        self.password = self.world.directory / "trunk-password"
        self.password.write_text("us-pw\n")
        self.first = self.world.founder("--country-code", "49")

    def trunk(self, gateway: str = "") -> Kamailio:
        trunk = Kamailio(self.world.directory / f"trunk-{gateway}", self.world.address(), gateway=gateway)
        self.addCleanup(trunk.close)
        return trunk

    def gateway(self, trunk: Kamailio, *options: str) -> NodeProcess:
        node = self.world.join(
            self.first, "--gateway", f"sip:{trunk.address}", "--gateway-user", "us",
            "--gateway-password-file", str(self.password), "--country-code", "49", *options,
        )  # fmt: skip
        until(lambda: node.status()["gateway"]["registered"], 60, "the gateway is registered", [node])
        return node

    def phone(self, user: str, password: str, server: str, domain: str, answers: bool = True) -> Softphone:
        phone = Softphone(self.world.address(), user, password, server, "udp", answers, domain)
        self.addCleanup(phone.close)
        phone.wait_registered()
        return phone

    def pstn(self, trunk: Kamailio) -> Softphone:
        """The phone of the telephone network that takes all calls."""
        return self.phone("pstn", "pstn-pw", trunk.address, "trunk.example")

    def alice(self) -> Softphone:
        settings = self.first.json("user", "add", "alice", "--number", NUMBER)
        return self.phone("alice", settings["password"], self.first.address, "example.org")

    def call(self, caller: Softphone, callee: Softphone, uri: str, hangs_up: Softphone) -> None:
        caller.command("dial", uri)
        for phone in (caller, callee):
            phone.wait_event("CALL_ESTABLISHED", 30)
        hangs_up.command("hangup")
        for phone in (caller, callee):
            phone.wait_event("CALL_CLOSED")

    def test_out_and_in(self) -> None:
        """A number goes out with the trunk's password and the caller's number; one of ours comes in."""
        gateway_address = f"{self.world.node().address}:5060"
        self.world.nodes.pop()
        trunk = self.trunk(gateway_address)
        gateway = self.gateway(trunk)
        self.assertEqual(f"{gateway.address}:5060", gateway_address)
        pstn, alice = self.pstn(trunk), self.alice()
        self.call(alice, pstn, "sip:0305678@example.org", alice)
        self.assertIn(f"INVITE sip:+49305678@{trunk.address};user=phone", trunk.log())
        self.assertIn(f"asserted <tel:{NUMBER}>, user us", trunk.log())
        self.call(alice, pstn, "sip:+49-30-5678@example.org;user=phone", pstn)
        self.call(pstn, alice, f"sip:{NUMBER}@{trunk.address}", pstn)
        self.call(pstn, alice, f"sip:{NUMBER}@{trunk.address}", alice)

    def test_registered_gateway(self) -> None:
        """The trunk finds the gateway by its registration, and says in To who is called; then it is no gateway."""
        trunk = self.trunk("us")
        gateway = self.gateway(trunk, "--gateway-register")
        until(lambda: gateway.status()["gateway"]["trunks"][0]["registered"], 30, "it is registered", [gateway])
        pstn, alice = self.pstn(trunk), self.alice()
        self.call(pstn, alice, f"sip:{NUMBER}@{trunk.address}", pstn)
        shown = gateway.p2psip("status").stdout
        self.assertIn(f"trunk: sip:{trunk.address} ({trunk.address}), registered there", shown)
        gateway.terminate()
        pstn.command("dial", f"sip:{NUMBER}@{trunk.address}")
        self.assertIn("480", pstn.wait_event("CALL_CLOSED")["param"])

    def test_second_gateway(self) -> None:
        """It takes over when the first is killed; and an emergency call needs no account."""
        trunks = self.trunk(), self.trunk("none")
        gateways = [self.gateway(trunk, "--gateway-priority", str(n)) for n, trunk in enumerate(trunks)]
        phones = [self.pstn(trunk) for trunk in trunks]
        alice = self.alice()
        self.call(alice, phones[0], "sip:0305678@example.org", alice)
        gateways[0].kill()
        self.call(alice, phones[1], "sip:0305678@example.org", alice)
        stranger = Softphone(self.world.address(), "mallory", "x", self.first.address, "udp", False, "example.org")
        self.addCleanup(stranger.close)
        self.call(stranger, phones[1], "sip:112@example.org", stranger)
