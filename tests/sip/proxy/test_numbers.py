"""Calls to and from telephone numbers: a gateway with a trunk, a node with phones, and a second gateway."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.kinds import GATEWAYS, REGISTERED, gateway_user_name
from p2psip.gateway import Numbers, Trunks
from p2psip.node import Node
from p2psip.sip.digest import DigestChallenge, DigestCredentials, ha1, verify_response
from p2psip.sip.message import Request
from p2psip.sip.numbers import DialPlan
from p2psip.sip.proxy.build import Beyond
from p2psip.sip.trunk import Trunk
from p2psip.sip.uri import SIPURI, parse_uri
from p2psip.testing import World
from p2psip.usages.gateways import GatewayUsage, GatewayUsageFactory
from p2psip.usages.sip import SIPUsageFactory

from ...test_gateway import FakeDirectory
from ..fakes import FakeLocator
from .telephony import Dialog, Phone, Site, Telephony

NUMBER = "+49301234"
"""That of alice."""


class Exchange(Phone):
    """The telephone network's end of a trunk, which wants a password for each INVITE."""

    def take(self, request: Request) -> Request:
        """Challenge `request`, and answer the one that comes with credentials that are right."""
        challenge = DigestChallenge("exchange", "nonce", "SHA-256")
        self.answer(request, 407, Proxy_Authenticate=str(challenge))
        self.next_request("ACK")
        again = self.next_request("INVITE")
        proof = DigestCredentials.parse(again.get("Proxy-Authorization") or "")
        assert verify_response(proof, "INVITE", ha1("SHA-256", "us", "exchange", "secret"))
        return again


class NumberCalls(SynchronousTestCase):
    """Alice's phone is at the first node; the second and the third are gateways."""

    def setUp(self) -> None:
        usages = [SIPUsageFactory(), GatewayUsageFactory()]
        self.world = World(3, usages=usages, kinds=[*REGISTERED.values(), GATEWAYS])
        self.trunks = {number: self.make_trunks(number) for number in (1, 2)}
        self.telephony: Any = Telephony.__new__(Telephony)
        self.telephony.world, self.telephony.phones = self.world, {}
        self.telephony.sites = [
            Site(self.telephony, node, f"198.51.100.{number + 1}", "proxy", self.beyond(number, node))
            for number, node in enumerate(self.world.nodes)
        ]
        self.addCleanup(self.telephony.stop)
        for number, trunks in self.trunks.items():
            trunks.start(self.telephony.sites[number].phones.edge, FakeLocator())
            self.addCleanup(lambda trunks=trunks: self.world.result(Deferred.fromCoroutine(trunks.stop())))
        self.exchanges = [Exchange(self.telephony, self.telephony.sites[n], "pstn", f"192.0.2.5{n}") for n in (1, 2)]
        self.alice = self.telephony.phone(0, "alice", "192.0.2.1")

    def make_trunks(self, number: int) -> Trunks:
        uri = parse_uri(f"sip:192.0.2.5{number}")
        assert isinstance(uri, SIPURI)
        trunk = Trunk(uri, "us", "secret", Random(1))
        return Trunks([trunk], ["+"], 10 * number, "+49300000", False, self.world.clock, Random(1))

    def beyond(self, number: int, node: Node) -> Beyond:
        usage = node.usages["gateways"]
        assert isinstance(usage, GatewayUsage)
        trunks = self.trunks.get(number)
        if trunks is not None:
            signer = self.world.user(gateway_user_name(self.world.name), node)
            usage.serve(trunks.prefixes, trunks.priority, lambda: succeed(signer))
            usage.start()
            self.world.until(lambda: usage.status()["registered"])
        directory: Any = FakeDirectory(alice=NUMBER)
        plan = DialPlan("49", "30")
        numbers = Numbers(plan, self.world.name, directory, usage, node.node_id, self.world.random, trunks)
        return Beyond(FakeLocator(), numbers)

    def established(self, invite: Request, exchange: Exchange) -> tuple[Dialog, Request]:
        """The exchange takes the call; what alice knows of the dialog, and the INVITE as it came."""
        came = exchange.take(exchange.next_request("INVITE"))
        exchange.answer(came, 180)
        self.alice.response(invite, 180)
        exchange.answer(came, 200)
        dialog = Dialog(invite, self.alice.response(invite, 200), True)
        self.alice.send(self.alice.within("ACK", dialog))
        exchange.next_request("ACK")
        return dialog, came

    def test_out(self) -> None:
        """Dialled as people dial; the trunk gets the number, and learns that of the caller."""
        invite = self.alice.invite(self.telephony.uri("0305678"))
        dialog, came = self.established(invite, self.exchanges[0])
        self.assertEqual(came.uri_text, "sip:+49305678@192.0.2.51;user=phone")
        self.assertEqual(came.get("P-Asserted-Identity"), f"<tel:{NUMBER}>")
        bye = self.alice.within("BYE", dialog)
        self.alice.send(bye)
        self.exchanges[0].answer(self.exchanges[0].next_request("BYE"), 200)
        self.assertEqual(self.alice.response(bye).status, 200)

    def test_tel(self) -> None:
        invite = self.alice.invite("tel:+1-201-555-0123")
        _, came = self.established(invite, self.exchanges[0])
        self.assertEqual(came.uri_text, "sip:+12015550123@192.0.2.51;user=phone")

    def test_second_gateway(self) -> None:
        """It takes over when the first is dead, within some seconds."""
        self.world.network.kill(self.world.address(self.world.nodes[1]))
        began = self.world.clock.seconds()
        invite = self.alice.invite(self.telephony.uri("0305678"))
        self.exchanges[1].next_request("INVITE")
        self.assertLess(self.world.clock.seconds() - began, 5)
        self.assertTrue(self.exchanges[0].none_of("INVITE"))
        self.assertEqual(self.alice.response(invite, 100).status, 100)

    def test_refused(self) -> None:
        """What the trunk says comes back, a refused password included."""
        invite = self.alice.invite(self.telephony.uri("0305678"))
        came = self.exchanges[0].take(self.exchanges[0].next_request("INVITE"))
        self.exchanges[0].answer(came, 486)
        self.assertEqual(self.alice.response(invite).status, 486)

    def test_own_number(self) -> None:
        """A number of a user stays in the overlay."""
        invite = self.alice.invite("tel:+49-30-1234")
        came = self.alice.next_request("INVITE")
        self.alice.answer(came, 200)
        self.assertEqual(self.alice.response(invite).status, 200)
        self.assertTrue(self.exchanges[0].none_of("INVITE"))

    def test_in(self) -> None:
        """From the trunk to a number of ours, without credentials; to others not."""
        exchange = self.exchanges[0]
        for uri in (f"sip:{NUMBER}@198.51.100.2", "sip:0301234@example.org", "tel:+49301234"):
            invite = exchange.request("INVITE", uri, from_="<tel:+49305678>;tag=t", To=f"<tel:{NUMBER}>")
            exchange.send(invite)
            self.alice.answer(self.alice.next_request("INVITE"), 200)
            self.assertEqual(exchange.response(invite).status, 200)
        for uri in ("sip:+49309999@198.51.100.2", "sip:+12015550123@example.org", "sip:bob@other.example"):
            invite = exchange.request("INVITE", uri, from_="<tel:+49305678>;tag=t", To=f"<{uri}>")
            exchange.send(invite)
            self.assertIn(exchange.response(invite).status, (403, 404))

    strangers = 0

    def stranger(self, uri: str, **headers: str) -> tuple[Phone, Request]:
        self.strangers += 1
        phone = Phone(self.telephony, self.telephony.sites[0], "carol", f"192.0.2.{100 + self.strangers}")
        request = phone.request("INVITE", uri, **headers)
        phone.send(request)
        return phone, request

    def test_emergency(self) -> None:
        """Anybody may call for help, by number or by service, and the callback number is the gateway's."""
        for uri in ("sip:112@example.org", "urn:service:sos.fire", "tel:112"):
            phone, request = self.stranger(uri)
            came = self.exchanges[0].take(self.exchanges[0].next_request("INVITE"))
            self.assertEqual(came.uri_text, "sip:112@192.0.2.51;user=phone")
            self.assertEqual(came.get("P-Asserted-Identity"), "<tel:+49300000>")
            self.exchanges[0].answer(came, 200)
            self.assertEqual(phone.response(request).status, 200)

    def test_no_user_of_that_name(self) -> None:
        """Who happens to be called 112 does not get the calls for help, and no lookup stands before them."""
        fetches: list[bytes] = []
        store: Any = self.telephony.sites[0].usage
        self.patch(store, "routes", fetches.append)
        self.stranger("sip:112@example.org")
        self.exchanges[0].next_request("INVITE")
        self.assertEqual(fetches, [])

    def test_strangers(self) -> None:
        """Nobody else goes out without credentials."""
        for uri, from_ in (
            ("sip:0305678@example.org", ""),
            ("tel:+49305678", "<sip:mallory@other.example>;tag=m"),
            ("sip:0305678@example.org", "<sip:mallory@other.example>;tag=m"),
            ("tel:+49305678", "<tel:+49300000>;tag=m"),
        ):
            phone, request = self.stranger(uri, from_=from_)
            self.assertIn(phone.response(request).status, (403, 404, 407), uri)
        self.assertTrue(self.exchanges[0].none_of("INVITE"))
