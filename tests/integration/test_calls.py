"""Calls by way of the proxies of two nodes, between real softphones (baresip)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from .nodes import World, until
from .phones import Softphone


class Calls(SynchronousTestCase):
    """Alice is at one node and bob at another, each with the node as outbound proxy."""

    def phones(self, transport: str) -> None:
        world = World()
        self.addCleanup(world.close)
        first = world.founder()
        second = world.join(first)
        self.alice, self.bob = (
            self.phone(world, node.address, user, transport) for node, user in ((first, "alice"), (second, "bob"))
        )

    def phone(self, world: World, server: str, user: str, transport: str) -> Softphone:
        settings = world.nodes[0].json("user", "add", user)
        phone = Softphone(
            world.address(), user, settings["password"], server, transport, user == "bob", world.overlay
        )
        self.addCleanup(phone.close)
        phone.wait_registered()
        return phone

    def call(self, caller: Softphone, callee: Softphone, uri: str) -> None:
        caller.command("dial", uri)
        for phone in (caller, callee):
            phone.wait_event("CALL_ESTABLISHED")
        self.assertNotIn("SIP/2.0 302", caller.log())
        until(lambda: list(callee.directory.glob("*dec.wav")), 10, "the callee hears the tone")
        caller.command("hangup")
        for phone in (caller, callee):
            phone.wait_event("CALL_CLOSED")

    def test_udp(self) -> None:
        """Over UDP."""
        self.phones("udp")
        self.call(self.alice, self.bob, "sip:bob@example.org")
