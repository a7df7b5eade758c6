"""What strangers, and users who want more than is theirs, get of a proxy (RFC 3261 §16 and §26, RFC 3325, RFC 5393)."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from p2psip.sip.interfaces import IServerLocator, Target
from p2psip.sip.message import Request, Response
from p2psip.sip.proxy.build import Beyond
from p2psip.sip.proxy.forwarding import PATIENCE, TIMER_C
from p2psip.sip.uri import SIPURI
from p2psip.usages.sip import LOOK_AT_MOST
from tests.sip import test_torture

from .telephony import Dialog, Phone, Telephony

ELSEWHERE = ("203.0.113.5", 5060)


@implementer(IServerLocator)
class Elsewhere:
    """Every other domain is served at one address."""

    def locate(self, uri: SIPURI) -> Deferred[list[Target]]:
        return succeed([Target("UDP", *ELSEWHERE)])


class ProxyTestCase(SynchronousTestCase):
    nodes = 1

    def setUp(self) -> None:
        self.telephony = Telephony(self.nodes, beyond=[Beyond(Elsewhere())] * self.nodes)
        self.addCleanup(self.telephony.stop)
        self.world = self.telephony.world
        self.alice = self.telephony.phone(0, "alice", "192.0.2.1")
        self.bob = self.telephony.phone(self.nodes - 1, "bob", "192.0.2.2")
        self.outside = self.stranger("mallory", *ELSEWHERE)

    def stranger(self, user: str, host: str, port: int = 5060) -> Phone:
        """A phone that has no account; it says that it is of another domain."""
        return Phone(self.telephony, self.telephony.sites[0], user, host, port)

    def from_outside(self, method: str, uri: str, **headers: str) -> Request:
        request = self.outside.request(method, uri, from_="<sip:mallory@other.example>;tag=m", **headers)
        self.outside.send(request)
        return request

    def status(self, phone: Phone, request: Request) -> int:
        return phone.response(request).status

    def assert_nothing_went_out(self) -> None:
        """No request reached who is elsewhere."""
        self.world.run(1)
        self.assertFalse([m for m in self.outside.received if isinstance(m, Request)])


class RelayTests(ProxyTestCase):
    """It is no open relay."""

    def test_our_users_go_out(self) -> None:
        """A user who has proved who it is reaches other domains."""
        self.alice.invite("sip:mallory@other.example")
        came = self.outside.next_request("INVITE")
        self.assertEqual(came.uri_text, "sip:mallory@other.example")

    def test_strangers_come_in_and_no_further(self) -> None:
        request = self.from_outside("INVITE", "sip:bob@example.org")
        self.bob.answer(self.bob.next_request("INVITE"), 486)
        self.assertEqual(self.status(self.outside, request), 486)
        for uri in ("sip:x@third.example", "sip:+4930123456@third.example", "sip:x@203.0.113.9"):
            self.assertEqual(self.status(self.outside, self.from_outside("INVITE", uri)), 403, uri)
        request = self.from_outside("INVITE", "tel:+4930123456")
        self.assertEqual(self.status(self.outside, request), 416)
        self.assert_nothing_went_out()

    def test_preloaded_routes(self) -> None:
        """Nor by a Route to elsewhere, be it before or behind ours."""
        for route in ("<sip:third.example;lr>", "<sip:198.51.100.1;lr>, <sip:third.example;lr>"):
            request = self.from_outside("INVITE", "sip:bob@example.org", Route=route)
            self.assertEqual(self.status(self.outside, request), 403, route)
        self.assertTrue(self.bob.none_of("INVITE"))
        request = self.from_outside("INVITE", "sip:bob@example.org", Route="<sip:198.51.100.1;lr>")
        self.bob.next_request("INVITE")

    def test_who_pretends_to_be_ours(self) -> None:
        """A From of our domain has to be proved, and to be of who proves it."""
        request = self.outside.request("INVITE", "sip:bob@example.org", from_="<sip:alice@example.org>;tag=m")
        self.outside.send(request)
        self.assertEqual(self.status(self.outside, request), 407)
        invite = self.alice.request("INVITE", "sip:bob@example.org", from_="<sip:carol@example.org>;tag=a")
        self.assertEqual(self.alice.ask(invite).status, 403)
        self.assertTrue(self.bob.none_of("INVITE"))

    def dialog(self) -> tuple[Dialog, Dialog]:
        """Of a call from outside that bob has taken."""
        invite = self.from_outside("INVITE", "sip:bob@example.org")
        came = self.bob.next_request("INVITE")
        sent = self.bob.answer(came, 200)
        return Dialog(invite, self.outside.response(invite), True), Dialog(came, sent, False)

    def test_within_a_dialog(self) -> None:
        """The one outside reaches bob's phone and nothing else, whatever it puts into the Request-URI."""
        theirs, bobs = self.dialog()
        theirs.target = "sip:x@third.example"
        info = self.outside.within("INFO", theirs)
        self.outside.send(info)
        self.assertEqual(self.bob.next_request("INFO").uri_text, "sip:x@third.example")
        bye = self.bob.within("BYE", bobs)
        self.bob.send(bye)
        self.outside.next_request("BYE")

    def test_forged_dialogs(self) -> None:
        """A token of another call, a changed one or none at all, with a To tag: it is a new request, and challenged."""
        theirs, _ = self.dialog()
        (route,) = theirs.routes
        token = route.partition(":")[2].partition("@")[0]
        for changed in (route, route.replace(token, token[::-1]), route.replace(token, "x")):
            request = self.outside.request(
                "INFO", "sip:x@third.example", to="<sip:x@third.example>;tag=t", call_id="another",
                from_="<sip:mallory@other.example>;tag=m", Route=changed,
            )  # fmt: skip
            self.outside.send(request)
            self.assertEqual(self.status(self.outside, request), 403, changed)
        self.assert_nothing_went_out()

    def test_acks_of_nobody(self) -> None:
        """A stray ACK goes nowhere, by whatever way."""
        for headers in ({}, {"Route": "<sip:third.example;lr>"}):
            request = self.from_outside("ACK", "sip:x@third.example", **headers)
            self.assertEqual(request.method, "ACK")
        self.assert_nothing_went_out()
        self.assertEqual(self.telephony.sites[0].phones._proxy.counters["stray ACK"], 2)


class IdentityTests(ProxyTestCase):
    """P-Asserted-Identity is ours to give (RFC 3325)."""

    nodes = 2
    ASSERTED = "<sip:carol@example.org>"

    def test_of_strangers(self) -> None:
        self.from_outside("INVITE", "sip:bob@example.org", P_Asserted_Identity=self.ASSERTED)
        self.assertIsNone(self.bob.next_request("INVITE").get("P-Asserted-Identity"))

    def test_of_users(self) -> None:
        """It is set to who has proved itself, whatever was claimed, and comes through the other node."""
        self.alice.invite("sip:bob@example.org", P_Asserted_Identity=self.ASSERTED, P_Preferred_Identity=self.ASSERTED)
        came = self.bob.next_request("INVITE")
        self.assertEqual(came.headers["P-Asserted-Identity"], ["<sip:alice@example.org>"])
        self.assertIsNone(came.get("P-Preferred-Identity"))

    def test_private(self) -> None:
        """Who wants it is anonymous to phones and to other domains (RFC 3323, RFC 3325 §7)."""
        for uri, phone in (("sip:bob@example.org", self.bob), ("sip:mallory@other.example", self.outside)):
            invite = self.alice.request("INVITE", uri, Privacy="id", from_="<sip:anonymous@anonymous.invalid>;tag=a")
            self.alice.send(invite)
            challenge = self.alice.response(invite)
            if challenge.status == 407:
                self.alice.send(self.alice.again(invite, challenge))
            came = phone.next_request("INVITE")
            self.assertIsNone(came.get("P-Asserted-Identity"))
            self.assertNotIn("alice@example.org", came.headers["From"][0])

    def test_more_privacy_than_there_is(self) -> None:
        invite = self.alice.request("INVITE", "sip:bob@example.org", Privacy="header; critical")
        self.assertEqual(self.alice.ask(invite).status, 500)

    def test_in_responses(self) -> None:
        """A phone cannot say who it is on our behalf."""
        invite = self.alice.invite("sip:bob@example.org")
        self.bob.answer(self.bob.next_request("INVITE"), 200, P_Asserted_Identity=self.ASSERTED)
        self.assertIsNone(self.alice.response(invite).get("P-Asserted-Identity"))


class BoundsTests(ProxyTestCase):
    """Nothing grows without end."""

    def test_hops(self) -> None:
        request = self.from_outside("INVITE", "sip:bob@example.org", Max_Forwards="0")
        self.assertEqual(self.status(self.outside, request), 483)
        self.from_outside("INVITE", "sip:bob@example.org", Max_Forwards="1")
        self.assertEqual(self.bob.next_request("INVITE").get("Max-Forwards"), "0")

    def test_loop(self) -> None:
        """A request that comes back as it went is refused (RFC 5393 §4.2)."""
        self.alice.invite("sip:mallory@other.example")
        came = self.outside.next_request("INVITE")
        came.headers.pop("Record-Route")
        came.prepend("Via", "SIP/2.0/UDP 203.0.113.5;branch=z9hG4bKback")
        self.outside.send(came)
        self.assertEqual(self.status(self.outside, came), 482)

    def test_breadth(self) -> None:
        """RFC 5393 §5.3.3: no breadth, no fork; with little the phones ring one after the other."""
        request = self.from_outside("INVITE", "sip:bob@example.org", Max_Breadth="0")
        self.assertEqual(self.status(self.outside, request), 440)
        other = self.telephony.phone(0, "bob", "192.0.2.3")
        self.from_outside("INVITE", "sip:bob@example.org", Max_Breadth="1")
        phones = [self.bob, other]
        first = next(phone for phone in phones if not phone.none_of("INVITE"))
        second = phones[1 - phones.index(first)]
        self.assertTrue(second.none_of("INVITE"))
        came = first.next_request("INVITE")
        self.assertEqual(came.get("Max-Breadth"), "1")
        first.answer(came, 486)
        second.next_request("INVITE")

    def test_required(self) -> None:
        request = self.from_outside("INVITE", "sip:bob@example.org", Proxy_Require="foo, privacy")
        response = self.outside.response(request)
        self.assertEqual((response.status, response.get("Unsupported")), (420, "foo"))
        self.from_outside("INVITE", "sip:bob@example.org", Require="bar")
        self.assertEqual(self.bob.next_request("INVITE").get("Require"), "bar")

    def test_strangers(self) -> None:
        """They cost searches of the overlay: one source gets so many, all together so many; our users are served on."""
        store = self.telephony.sites[0].usage
        searched: list[str] = []
        routes = store.routes
        store.routes = lambda aor: searched.append(aor) or routes(aor)  # type: ignore[method-assign,func-returns-value]
        answers = []
        for number in range(300):
            self.outside.received.clear()
            request = self.from_outside("MESSAGE", f"sip:nobody{number}@example.org")
            answers += [m.status for m in self.outside.received if isinstance(m, Response) and m.cseq == request.cseq]
        self.assertEqual((len(searched), answers.count(503)), (200, 100))
        others = [self.stranger("eve", f"203.0.113.{host}") for host in range(10, 18)]
        for phone in others:
            for number in range(120):
                phone.send(phone.request("MESSAGE", f"sip:x{number}@example.org", from_="<sip:e@other.example>;tag=e"))
        self.assertEqual(len(searched), 1000)
        self.alice.invite("sip:bob@example.org")
        self.bob.next_request("INVITE")
        del store.routes

    def test_rubbish(self) -> None:
        """The messages of RFC 4475 and 5118, thousands of CANCELs and long header fields: all is served on."""
        site = self.telephony.sites[0]
        for data in torture_messages():
            site.receive(data, ELSEWHERE)
        for number in range(2000):
            self.from_outside("CANCEL", f"sip:bob{number}@example.org", Subject="x" * 1000)
        self.from_outside("INVITE", "sip:bob@example.org", Subject="x" * 10_000)
        self.bob.next_request("INVITE")
        self.world.run(40)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(len(site.phones._proxy._forwarding), 0)
        self.assertLess(len(site.phones.edge.layer.servers), 10)


class AnswerTests(ProxyTestCase):
    """Which of many responses goes back, and when none comes."""

    nodes = 2

    def setUp(self) -> None:
        super().setUp()
        self.other = self.telephony.phone(0, "bob", "192.0.2.3")
        self.invite = self.alice.invite("sip:bob@example.org")
        self.came = [(phone, phone.next_request("INVITE")) for phone in (self.bob, self.other)]

    def answer(self, *statuses: int) -> None:
        for (phone, came), status in zip(self.came, statuses, strict=False):
            phone.answer(came, status)

    def test_the_best(self) -> None:
        self.answer(404, 486)
        self.assertEqual(self.status(self.alice, self.invite), 486)

    def test_everywhere(self) -> None:
        """A 6xx ends all: who still rings is canceled, then it goes back."""
        self.answer(180, 180)
        self.bob.answer(self.came[0][1], 603)
        self.other.answer(self.other.next_request("CANCEL"), 200)
        self.other.answer(self.came[1][1], 487)
        self.assertEqual(self.status(self.alice, self.invite), 603)

    def test_two_take_it(self) -> None:
        """The second 2xx goes back too: the caller has to end that call (RFC 3261 §16.7, step 5)."""
        self.answer(200, 200)
        tags = {self.alice.response(self.invite).to.tag for _ in range(2)}
        self.assertEqual(tags, {"to-bob-192.0.2.2", "to-bob-192.0.2.3"})

    def test_challenged_by_both(self) -> None:
        for (phone, came), nonce in zip(self.came, "ab", strict=True):
            phone.answer(came, 401, WWW_Authenticate=f'Digest realm="phone", nonce="{nonce}"')
        response = self.alice.response(self.invite)
        self.assertEqual(len(response.headers["WWW-Authenticate"]), 2)

    def test_cancel_crosses_the_answer(self) -> None:
        self.answer(180, 180)
        self.alice.response(self.invite, 180)
        cancel = Request("CANCEL", self.invite.uri_text)
        for name in ("Via", "From", "To", "Call-ID", "Max-Forwards"):
            cancel.headers[name] = list(self.invite.headers[name])
        cancel.set("CSeq", f"{self.invite.cseq.number} CANCEL")
        self.answer(200)
        self.alice.send(cancel)
        self.assertEqual(self.status(self.alice, self.invite), 200)
        self.assertEqual(self.alice.response(cancel).status, 200)

    def test_ringing_for_ever(self) -> None:
        """Timer C ends it, each new provisional response puts that off (RFC 3261 §16.8)."""
        self.answer(180, 180)
        self.world.run(TIMER_C - 20)
        self.answer(183, 486)
        self.world.run(TIMER_C - 5)
        self.assertTrue(self.bob.none_of("CANCEL"))
        self.world.run(10)
        self.bob.answer(self.bob.next_request("CANCEL"), 200)
        self.bob.answer(self.came[0][1], 487)
        self.assertEqual(self.status(self.alice, self.invite), 486)


class ForeignTagTests(ProxyTestCase):
    def test_no_tag_is_made_up(self) -> None:
        """A 180 without a To tag goes back as it came: else the caller had an early dialog with nobody."""
        invite = self.from_outside("INVITE", "sip:bob@example.org")
        self.bob.send(self.bob.next_request("INVITE").response(180))
        self.assertIsNone(self.outside.response(invite, 180).to.tag)


class SilenceTests(ProxyTestCase):
    nodes = 3

    def test_a_node_that_died(self) -> None:
        """The phone at the other node rings at once; the dead one is given up within seconds. [7904-5.1-5]"""
        second = self.telephony.phone(1, "bob", "192.0.2.3")
        self.alice.invite("sip:bob@example.org")
        for phone in (self.bob, second):
            phone.answer(phone.next_request("INVITE"), 486)
        self.world.run(5)
        self.alice.received.clear()
        self.world.kill(self.telephony.sites[2].node)
        self.telephony.sites[2].receive = lambda data, source: None  # type: ignore[method-assign]
        before = self.world.clock.seconds()
        invite = self.alice.invite("sip:bob@example.org")
        came = second.next_request("INVITE")
        self.assertLess(self.world.clock.seconds() - before, LOOK_AT_MOST + 1)
        second.answer(came, 486)
        self.assertEqual(self.status(self.alice, invite), 486)
        waited = self.world.clock.seconds() - before
        self.assertGreater(waited, 1, "the dead node was not waited for")
        self.assertLessEqual(waited, 2 * PATIENCE + 2)


def torture_messages() -> list[bytes]:
    """Every message of the torture tests."""
    return [path.read_bytes() for path in sorted(test_torture.TORTURE.glob("*.dat"))]

