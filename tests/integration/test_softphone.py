"""Two real softphones (baresip) at two nodes: they register, and one calls the other by way of the redirect server."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from .nodes import World, until
from .phones import Softphone


class Softphones(SynchronousTestCase):
    """A call between phones as a person would use them, set up as `p2psip user add` says."""

    def call(self, transport: str) -> None:
        world = World(options=("--sip-mode", "redirect"))
        self.addCleanup(world.close)
        first = world.founder()
        second = world.join(first)
        phones = []
        for node, user in ((first, "alice"), (second, "bob")):
            settings = world.nodes[0].json("user", "add", user)
            phone = Softphone(
                world.address(), user, settings["password"], node.address, transport, answers=user == "bob"
            )
            self.addCleanup(phone.close)
            phones.append(phone)
        alice, bob = phones
        for node, phone, user in ((first, alice, "alice"), (second, bob, "bob")):
            phone.wait_registered()
            self.assertEqual([node.status()["node_id"]], first.registered_at(user))
        alice.command("dial", f"sip:bob@{first.address}")
        alice.wait_event("CALL_ESTABLISHED")
        bob.wait_event("CALL_ESTABLISHED")
        self.assertIn("SIP/2.0 302", alice.log())
        until(lambda: list(bob.directory.glob("*dec.wav")), 10, "the callee hears the tone")
        alice.command("hangup")
        bob.wait_event("CALL_CLOSED")

    def test_udp(self) -> None:
        """Over UDP."""
        self.call("udp")

    def test_tcp(self) -> None:
        """Over TCP."""
        self.call("tcp")
