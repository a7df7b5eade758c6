"""Calls through the redirect server, and what is not for it (RFC 3261 §8.2, §8.3; RFC 3665 §3.6)."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from p2psip.sip.errors import Unavailable
from p2psip.sip.interfaces import Contact, Resolution
from p2psip.sip.message import Request
from p2psip.sip.query import aor_uri, binding_query, contacts_of
from tests.sip.fakes import DOMAIN, PHONE, FakeIncoming, authorize, make_request
from tests.sip.test_registrar import ServerTestCase


def invite(user: str = "bob", method: str = "INVITE", host: str = DOMAIN, **headers: str) -> Request:
    return make_request(method, f"sip:{user}@{host}", **headers)


class RedirectTests(ServerTestCase):
    def test_stranger_learns_nothing(self) -> None:
        """Registered, unknown and foreign: all are challenged alike, and nothing is looked up."""
        self.register()
        self.store.calls.clear()
        for request in (invite("alice"), invite("nobody"), invite("x", host="example.net"), invite("bob", "SUBSCRIBE")):
            incoming = self.receive(request)
            (response,) = incoming.responses
            self.assertEqual((response.status, incoming.stateless), (401, True))
            self.assertEqual(response.reason, "Unauthorized")
        self.assertEqual(self.store.calls, [])

    def test_redirect_to_own_and_others(self) -> None:
        """302 with all contacts, here and elsewhere, the preferred first."""
        self.register("<sip:alice@192.0.2.1>;q=0.5")
        self.store.elsewhere[f"alice@{DOMAIN}"] = Resolution(
            (
                Contact("sip:alice@192.0.2.7", 0.9, 60),
                Contact("sip:alice@192.0.2.8", None, 30),
                Contact("sip:alice@192.0.2.1", 0.1, 5),
                Contact("no uri\r\nX: y", 0.1, 5),
            )
        )
        response = self.ask_as(make_request("INVITE", f"sip:alice@{DOMAIN}", user="bob"))
        self.assertEqual(response.status, 302)
        self.assertEqual(
            response.headers["Contact"],
            [
                "<sip:alice@192.0.2.8>;expires=30",
                "<sip:alice@192.0.2.7>;q=0.9;expires=60",
                "<sip:alice@192.0.2.1>;q=0.5;expires=3600",
            ],
        )
        self.assertEqual(contacts_of(response)[1], Contact("sip:alice@192.0.2.7", 0.9, 60))

    def test_elsewhere_only(self) -> None:
        self.store.elsewhere[f"bob@{DOMAIN}"] = Resolution((Contact("sip:bob@192.0.2.7", None, 60),))
        for method in ("INVITE", "OPTIONS", "MESSAGE", "SUBSCRIBE"):
            self.assertEqual(self.ask_as(invite(method=method)).status, 302)

    def test_own_contacts_when_the_overlay_fails(self) -> None:
        self.register()
        self.store.failure = Unavailable()
        self.assertEqual(self.ask_as(invite("alice")).status, 302)
        self.assertEqual(self.ask_as(invite("bob")).status, 503)

    def test_nobody_there(self) -> None:
        """480 for a user who exists, 404 for one who does not, and for another domain."""
        for request, status in (
            (invite("bob"), 480),
            (invite("nobody"), 404),
            (invite("bob", host="example.net"), 404),
            (make_request("INVITE", f"sip:{DOMAIN}"), 404),
            (invite("%ff"), 404),
        ):
            response = self.ask_as(request)
            self.assertEqual((response.status, response.get("Contact")), (status, None))

    def test_sips(self) -> None:
        """A sips request is sent to sips contacts only."""
        self.store.elsewhere[f"bob@{DOMAIN}"] = Resolution((Contact("sip:bob@h"), Contact("sips:bob@h")))
        response = self.ask_as(make_request("INVITE", f"sips:bob@{DOMAIN}"))
        self.assertEqual(response.headers["Contact"], ["<sips:bob@h>;expires=0"])
        self.store.elsewhere[f"bob@{DOMAIN}"] = Resolution((Contact("sip:bob@h"),))
        self.assertEqual(self.ask_as(make_request("INVITE", f"sips:bob@{DOMAIN}", cseq=2)).status, 480)

    def test_not_for_us(self) -> None:
        self.assertEqual(self.ask(make_request("INVITE", "tel:+1")).status, 416)
        self.assertEqual(self.ask(make_request("OPTIONS", "soap.beep://192.0.2.103:3002")).status, 416)
        response = self.ask(invite(Require="100rel"))
        self.assertEqual((response.status, response.get("Unsupported")), (420, "100rel"))
        self.assertEqual(self.ask(invite(Max_Forwards="0")).status, 483)

    def test_options(self) -> None:
        """To the server itself, or ending here, OPTIONS tells what is supported (RFC 3261 §11.2)."""
        for request in (
            make_request("OPTIONS", f"sip:{DOMAIN}"),
            make_request("OPTIONS", "sip:127.0.0.1:5060"),
            invite(method="OPTIONS", Max_Forwards="0"),
        ):
            response = self.ask(request)
            self.assertEqual(response.status, 200)
            self.assertIn("REGISTER", response.values("Allow"))
        self.assertEqual(self.ask(make_request("OPTIONS", "sip:example.net")).status, 401)

    def test_tags(self) -> None:
        """The same request gets the same To tag, another one another."""
        tags = [self.ask(invite(cseq=cseq)).to.tag for cseq in (1, 1, 2)]
        self.assertEqual((tags[0], tags[0] == tags[2]), (tags[1], False))

    def test_unexpected_failure(self) -> None:
        self.store.failure = RuntimeError("broken")
        response = self.ask_as(invite())
        self.assertEqual((response.status, response.get("Retry-After")), (500, "30"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class CancelTests(ServerTestCase):
    def test_cancel(self) -> None:
        """While the callee is looked for: 200 to the CANCEL, 487 to the INVITE (RFC 3261 §9.2)."""
        request = invite()
        authorize_waits: Deferred[None] = Deferred()
        challenge = self.ask(request)
        self.credentials.waiting = authorize_waits
        pending = self.receive(authorize(request, challenge))
        cancel = FakeIncoming(invite(method="CANCEL"), PHONE, pending)
        self.server.request_received(cancel)
        self.assertEqual([response.status for response in cancel.responses], [200])
        self.assertEqual([response.status for response in pending.responses], [487])
        authorize_waits.callback(None)
        self.assertEqual([response.status for response in pending.responses], [487])

    def test_too_late_or_unknown(self) -> None:
        done = self.receive(invite())
        cancel = FakeIncoming(invite(method="CANCEL"), PHONE, done)
        self.server.request_received(cancel)
        self.assertEqual((cancel.responses[0].status, len(done.responses)), (200, 1))
        self.assertEqual(self.ask(invite(method="CANCEL")).status, 481)


class OpenTests(ServerTestCase):
    open_ = True

    def test_no_challenge(self) -> None:
        """With --open callers are not challenged; registering still is."""
        self.assertEqual(self.ask(invite("bob")).status, 480)
        self.assertEqual(self.ask(invite("nobody")).status, 404)
        self.assertEqual(self.ask(make_request(Contact="<sip:a@h>")).status, 401)


class QueryTests(ServerTestCase):
    def test_between_registrars(self) -> None:
        """What one registrar asks, another answers, and the first understands."""
        self.register("<sip:alice@192.0.2.1>;q=0.5;expires=100")
        query = binding_query(f"alice@{DOMAIN}")
        query.set("Via", "SIP/2.0/TLS h;branch=z9hG4bK1")
        query.set("Call-ID", "q")
        query.set("CSeq", "1 REGISTER")
        response = self.registrar.answer_query(query, self.now)
        self.assertEqual(contacts_of(response), [Contact("sip:alice@192.0.2.1", 0.5, 100)])

    def test_uri_of_an_aor(self) -> None:
        self.assertEqual(aor_uri("jürgen x@example.org"), "sip:j%C3%BCrgen%20x@example.org")
        self.assertEqual(self.domain.aor(binding_query(f"ü@{DOMAIN}").to.uri), f"ü@{DOMAIN}")

    def test_nonsense_is_left_out(self) -> None:
        response = make_request().response(200)
        for value in ("<sip:a@h>;q=9", "<sip:>", "<sip:b@h>;expires=5"):
            response.add("Contact", value)
        self.assertEqual(contacts_of(response), [Contact("sip:b@h", None, 5)])
        response.add("Contact", '"a, b')
        self.assertEqual(contacts_of(response), [])
