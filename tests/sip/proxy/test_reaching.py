"""Whom calls reach: one device by its GRUU, another user by forwarding, several nodes (RFC 7904 §3 to §6)."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.kinds import SIP_REGISTRATION
from p2psip.sip.message import Response
from p2psip.usages.forwards import REFRESH
from p2psip.usages.registrations import NotServed
from p2psip.wire.sip import RouteRegistration, SipRegistration, UriRegistration

from .telephony import Phone, Telephony


class ReachingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.telephony = Telephony(3)
        self.addCleanup(self.telephony.stop)
        self.world, self.sites = self.telephony.world, self.telephony.sites
        self.alice = self.telephony.phone(0, "alice", "192.0.2.1")

    def bob(self, site: int, number: int, **headers: str) -> Phone:
        """A phone of bob's that says which device it is."""
        phone = Phone(self.telephony, self.sites[site], "bob", f"192.0.2.{number}")
        phone.ok = phone.register(f"<{phone.contact}>;+sip.instance=\"<urn:uuid:{number}>\"", **headers)  # type: ignore[attr-defined]
        return phone

    def registrations(self, aor: str) -> list[SipRegistration]:
        overlay = self.world.nodes[2].overlay
        found = self.world.result(overlay.fetch(aor.encode(), SIP_REGISTRATION))
        return [SipRegistration.decode(value.data.value.value.value) for value in found]  # type: ignore[attr-defined]

    def rings(self, uri: str, *phones: Phone) -> None:
        """A call of alice's to `uri` rings at these phones, and at no other."""
        invite = self.alice.invite(uri)
        for phone in phones:
            phone.answer(phone.next_request("INVITE"), 603 if phone is phones[-1] else 486)
        self.alice.response(invite)
        self.world.run(1)
        for phone in self.telephony.phones.values():
            self.assertTrue(phone.none_of("INVITE"), phone.contact)


class GRUUTests(ReachingTestCase):
    def gruu(self, phone: Phone) -> str:
        response: Response = phone.ok  # type: ignore[attr-defined]
        own = next(c for c in response.contacts if c.uri_text == phone.contact)
        return (own.parameters.get("pub-gruu") or "").strip('"')

    def test_one_device(self) -> None:
        """Of three devices at two nodes just the one rings, and nothing is fetched for it. [7904-4.1-1]"""
        phones = [self.bob(site, number, Supported="gruu") for site, number in ((1, 2), (1, 3), (2, 4))]
        fetched: list[object] = []
        overlay = self.sites[0].node.overlay
        fetch = overlay.fetch
        overlay.fetch = lambda *args: fetched.append(args) or fetch(*args)  # type: ignore[assignment,func-returns-value]
        for phone in phones:
            gruu = self.gruu(phone)
            self.assertTrue(gruu.startswith("sip:bob@example.org;gr="), gruu)
            self.rings(gruu, phone)
        self.assertEqual([args for args in fetched if args[1] == SIP_REGISTRATION], [])  # type: ignore[index]
        del overlay.fetch

    def test_who_does_not_ask(self) -> None:
        """A phone that does not know GRUUs is not told one (RFC 5627 §5)."""
        self.assertEqual(self.gruu(self.bob(1, 2)), "")

    def test_gone(self) -> None:
        phone = self.bob(1, 2, Supported="gruu, outbound")
        other = self.bob(1, 3)
        phone.register(f"<{phone.contact}>", expires=0)
        self.assertEqual(self.alice.ask(self.alice.request("INVITE", self.gruu(phone))).status, 480)
        self.assertTrue(other.none_of("INVITE"))


class ForwardingTests(ReachingTestCase):
    def forward(self, site: int, target: str | None) -> None:
        self.world.result(self.sites[site].usage.forward("bob@example.org", target))

    def test_forward(self) -> None:
        """Calls for bob ring at carol's from wherever they come, and after --off at his own again. [7904-4.2-1]"""
        bob, carol = self.bob(1, 2), self.telephony.phone(2, "carol", "192.0.2.9")
        self.rings("sip:bob@example.org", bob)
        self.forward(1, "carol@example.org")
        self.assertEqual(self.registrations("bob@example.org"), [UriRegistration(uri=b"carol@example.org")])
        self.world.run(5)
        self.rings("sip:bob@example.org", carol)
        self.alice.site = self.sites[1]
        self.alice.register()
        self.rings("sip:bob@example.org", carol)
        bob.register()
        self.rings("sip:bob@example.org", carol)
        self.forward(1, None)
        self.assertIsInstance(self.registrations("bob@example.org")[0], RouteRegistration)
        self.world.run(5)
        self.rings("sip:bob@example.org", bob)

    def test_phones_elsewhere_ring_too(self) -> None:
        bobs = [self.bob(1, 2), self.bob(2, 3)]
        carol = self.telephony.phone(2, "carol", "192.0.2.9")
        self.forward(1, "carol@example.org")
        self.rings("sip:bob@example.org", bobs[1], carol)

    def test_it_outlives_the_phones(self) -> None:
        """It stays in the overlay though no phone of bob's is there any more, until it is taken back."""
        bob = self.bob(1, 2)
        carol = self.telephony.phone(2, "carol", "192.0.2.9")
        self.forward(1, "carol@example.org")
        bob.register(expires=0)
        self.world.run(6 * REFRESH)
        carol.register()
        self.alice.register()
        self.rings("sip:bob@example.org", carol)
        self.forward(1, None)
        self.assertEqual(self.registrations("bob@example.org"), [])

    def test_loop(self) -> None:
        """Who forward to each other are told so."""
        self.bob(1, 2)
        self.telephony.phone(2, "carol", "192.0.2.9")
        self.forward(1, "carol@example.org")
        self.world.result(self.sites[2].usage.forward("carol@example.org", "bob@example.org"))
        self.world.run(5)
        self.assertEqual(self.alice.ask(self.alice.request("INVITE", "sip:bob@example.org")).status, 482)

    def test_to_nobody(self) -> None:
        self.bob(1, 2)
        self.forward(1, "nobody@example.org")
        self.assertEqual(self.alice.ask(self.alice.request("INVITE", "sip:bob@example.org")).status, 480)

    def test_elsewhere(self) -> None:
        """A node that never saw a phone of the user cannot sign for him."""
        asked: Deferred[None] = self.sites[0].usage.forward("zoe@example.org", "carol@example.org")
        self.failureResultOf(asked, NotServed)
        self.assertEqual(self.sites[0].usage.forwards, {})


class PreferenceTests(ReachingTestCase):
    def prefs(self) -> bytes:
        (registration,) = self.registrations("bob@example.org")
        assert isinstance(registration, RouteRegistration)
        return registration.contact_prefs

    def test_stored(self) -> None:
        """What the phones can do stands in the registration, and is stored anew when that changes. [7904-5.1-8]"""
        phone = Phone(self.telephony, self.sites[1], "bob", "192.0.2.2")
        phone.register(f"<{phone.contact}>;audio")
        self.assertEqual(self.prefs(), b"(sip.audio=TRUE)")
        phone.register(f"<{phone.contact}>;audio;video")
        self.assertEqual(self.prefs(), b"(& (sip.audio=TRUE) (sip.video=TRUE))")
        phone.register()
        self.assertEqual(self.prefs(), b"")

    def test_sips_only(self) -> None:
        """A call with a sips URI goes to phones with sips contacts alone. [7904-5.1-6]"""
        plain = self.bob(1, 2)
        secure = Phone(self.telephony, self.sites[2], "bob", "192.0.2.3")
        secure.contact = "sips:bob@192.0.2.3"
        secure.register()
        self.rings("sips:bob@example.org", secure)
        self.assertTrue(plain.none_of("INVITE"))
