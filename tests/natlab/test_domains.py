"""Calls to and from a foreign domain, kamailio's, found by SRV (RFC 3263, RFC 7904 §4.1).

It takes root, as all of this laboratory: kamailio asks port 53 of what /etc/resolv.conf names, in a mount namespace of
its own.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.integration.kamailio import Kamailio
from tests.integration.nameserver import serve_zones
from tests.integration.nodes import World, until
from tests.integration.phones import Softphone, hears_tone

from .case import WITHOUT

FOREIGN = "kamailio.example"


class DomainTests(SynchronousTestCase):
    def setUp(self) -> None:
        if os.environ.get(WITHOUT) == "1":
            raise SkipTest(f"{WITHOUT}=1: no port 53, no mount namespace")
        self.world = World()
        self.addCleanup(self.world.close)
        name_server, self.kamailio = self.world.address(), self.world.address()
        node = self.world.node()
        self.zone(self.world.overlay, node.address)
        self.zone(FOREIGN, self.kamailio)
        serve_zones(self, self.world.directory / "zones", name_server, 53)
        node.start("--name-server", name_server)
        node.wait_joined()
        self.second = self.world.join(node, "--name-server", name_server)
        kamailio = Kamailio(self.world.directory / "kamailio", self.kamailio, FOREIGN, name_server=name_server)
        self.addCleanup(kamailio.close)

    def zone(self, domain: str, address: str) -> None:
        """A domain whose SIP server is at port 5060 of `address`, by SRV alone."""
        zones = self.world.directory / "zones"
        zones.mkdir(exist_ok=True)
        (zones / domain).write_text(
            f"zone = [\n"
            f"    SOA('{domain}', mname='ns.{domain}', rname='root.{domain}', serial=1, refresh=60, retry=60,"
            f" expire=60, minimum=60),\n"
            f"    SRV('_sip._udp.{domain}', 10, 10, 5060, 'server.{domain}'),\n"
            f"    A('server.{domain}', '{address}'),\n]\n"
        )

    def phone(self, user: str, password: str, server: str, domain: str) -> Softphone:
        phone = Softphone(self.world.address(), user, password, server, "udp", True, domain)
        self.addCleanup(phone.close)
        phone.wait_registered()
        return phone

    def test_both_directions(self) -> None:
        """A user of the overlay calls one of kamailio's, and is called from there; nobody is 404."""
        password = self.world.nodes[0].json("user", "add", "alice")["password"]
        alice = self.phone("alice", password, self.second.address, self.world.overlay)
        bob = self.phone("bob", "bob-pw", self.kamailio, FOREIGN)
        for caller, callee, domain in ((alice, bob, FOREIGN), (bob, alice, self.world.overlay)):
            caller.command("dial", f"sip:{callee.user}@{domain}")
            for phone in (caller, callee):
                phone.wait_event("CALL_ESTABLISHED")
            for phone in (caller, callee):
                until(lambda phone=phone: hears_tone(phone), 20, f"{phone.user} hears the tone")
            callee.command("hangup")
            for phone in (caller, callee):
                phone.wait_event("CALL_CLOSED")
        bob.command("dial", f"sip:nobody@{self.world.overlay}")
        self.assertIn("404", bob.wait_event("CALL_CLOSED").get("param", ""))
