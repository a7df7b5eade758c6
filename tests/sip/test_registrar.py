"""REGISTER, from challenge to 200, with every way that it can fail (RFC 3261 §10.3, RFC 3665 §2)."""

from __future__ import annotations

from random import Random

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.sip.authentication import Authenticator
from p2psip.sip.digest import DigestChallenge, NonceMint
from p2psip.sip.domain import Domain
from p2psip.sip.errors import Refused, SIPFailure, Unavailable
from p2psip.sip.interfaces import (
    Contact,
    IBindingJournal,
    ICredentials,
    IRegistrationStore,
    IServerRequest,
    ITransactionUser,
    Source,
)
from p2psip.sip.location import Location
from p2psip.sip.message import Request, Response
from p2psip.sip.redirect import Redirect
from p2psip.sip.registrar import Registrar
from p2psip.sip.server import SIPServer
from p2psip.throttle import Throttle
from tests.sip.fakes import (
    DOMAIN,
    PHONE,
    FakeCredentials,
    FakeIncoming,
    FakeJournal,
    FakeStore,
    FakeUser,
    authorize,
    make_request,
)

NODE_ID = b"\x01" * 16


class ServerTestCase(SynchronousTestCase):
    """A registrar and redirect server over fakes, and phones that talk to it."""

    open_ = False

    def setUp(self) -> None:
        self.now = 1_800_000_000.0
        self.credentials = FakeCredentials(alice=["pw", "second"], bob=["pw"], jürgen=["pw"])
        self.store = FakeStore()
        self.journal = FakeJournal()
        self.domain = Domain("Example.org", ["127.0.0.1", "[::1]"])
        self.authenticator = Authenticator(
            self.domain,
            self.credentials,
            NonceMint(NODE_ID, b"k" * 16),
            Throttle(free=3),
            Throttle(free=2, ceiling=60.0),
        )
        self.build()

    def build(self) -> None:
        """A server as after a restart."""
        self.registrar = Registrar(self.domain, self.authenticator, Location(), self.store, self.journal)
        self.redirect = Redirect(self.domain, self.authenticator, self.registrar, self.store, self.open_)
        self.server = SIPServer(self.domain, self.registrar, lambda: self.now, Random(1))
        self.server.serve_calls(None, self.redirect)

    def receive(self, request: Request, source: Source = PHONE) -> FakeIncoming:
        incoming = FakeIncoming(request, source)
        self.server.request_received(incoming)
        return incoming

    def ask(self, request: Request, source: Source = PHONE) -> Response:
        """The response to a request as it is."""
        (response,) = self.receive(request, source).responses
        return response

    def ask_as(self, request: Request, password: str = "pw", source: Source = PHONE) -> Response:
        """The response to a request that answers the challenge first."""
        return self.ask(authorize(request, self.ask(request, source), password), source)

    def register(self, contact: str | None = "<sip:alice@192.0.2.1>", cseq: int = 1, **headers: str) -> Response:
        if contact is not None:
            headers["Contact"] = contact
        return self.ask_as(make_request(cseq=cseq, **headers))


class FlowTests(ServerTestCase):
    """RFC 3665 §2: the flows of registration."""

    def test_new_registration(self) -> None:
        """RFC 3665 §2.1: REGISTER, 401, REGISTER with credentials, 200."""
        request = make_request(Contact="<sip:alice@192.0.2.1>")
        incoming = self.receive(request)
        (challenge,) = incoming.responses
        self.assertEqual((challenge.status, incoming.stateless), (401, True))
        challenges = [DigestChallenge.parse(value) for value in challenge.values("WWW-Authenticate")]
        self.assertEqual([found.algorithm for found in challenges], ["MD5", "SHA-256"])
        self.assertEqual({(found.realm, found.qop, found.stale) for found in challenges}, {(DOMAIN, ("auth",), False)})
        self.assertEqual(self.credentials.asked, [])
        response = self.ask(authorize(request, challenge))
        self.assertEqual(response.status, 200)
        self.assertEqual(response.headers["Contact"], ["<sip:alice@192.0.2.1>;expires=3600"])
        self.assertEqual(response.get("Date"), "Fri, 15 Jan 2027 08:00:00 GMT")
        self.assertTrue(response.to.tag)
        self.assertEqual(self.store.calls, [("register", f"alice@{DOMAIN}", "3600")])
        self.assertEqual(self.credentials.asked, [("alice", "alice", "REGISTER")])

    def test_update_of_contact_list(self) -> None:
        """RFC 3665 §2.2: a second contact; the response lists both."""
        self.register()
        self.now += 100
        response = self.register("<mailto:alice@example.org>", 2)
        self.assertEqual(
            response.headers["Contact"],
            ["<sip:alice@192.0.2.1>;expires=3500", "<mailto:alice@example.org>;expires=3600"],
        )

    def test_query(self) -> None:
        """RFC 3665 §2.3: without Contact nothing changes."""
        self.register()
        self.store.calls.clear()
        response = self.register(None, 2)
        self.assertEqual(response.headers["Contact"], ["<sip:alice@192.0.2.1>;expires=3600"])
        self.assertEqual(self.store.calls, [])

    def test_cancellation(self) -> None:
        """RFC 3665 §2.4: "*" with Expires 0 removes all, and the overlay hears of it."""
        self.register()
        self.register("<sip:alice@192.0.2.2>", 2)
        response = self.register("*", 3, Expires="0")
        self.assertEqual((response.status, response.get("Contact")), (200, None))
        self.assertEqual(self.store.calls[-1], ("unregister", f"alice@{DOMAIN}"))
        self.assertEqual(self.registrar.query(f"alice@{DOMAIN}", self.now), [])

    def test_unsuccessful(self) -> None:
        """RFC 3665 §2.5: a wrong password is challenged again, and nothing is changed."""
        response = self.ask_as(make_request(Contact="<sip:alice@192.0.2.1>"), "wrong")
        self.assertEqual(response.status, 401)
        self.assertFalse(DigestChallenge.parse(response.values("WWW-Authenticate")[0]).stale)
        self.assertEqual((self.store.calls, self.authenticator.counters["wrong credentials"]), ([], 1))


class RegistrarTests(ServerTestCase):
    def test_interfaces(self) -> None:
        verifyObject(ITransactionUser, self.server)
        verifyObject(ITransactionUser, FakeUser())
        verifyObject(ICredentials, self.credentials)
        verifyObject(IRegistrationStore, self.store)
        verifyObject(IBindingJournal, self.journal)
        verifyObject(IServerRequest, FakeIncoming(make_request()))

    def test_refresh_is_told_with_the_longest_expiry(self) -> None:
        self.register("<sip:a@192.0.2.1>;expires=600", 1)
        self.register("<sip:b@192.0.2.1>;expires=300", 2)
        self.now += 100
        self.register("<sip:b@192.0.2.1>;expires=300", 3)
        self.assertEqual([call[2] for call in self.store.calls], ["600", "600", "500"])
        self.register("<sip:a@192.0.2.1>;expires=0", 4)
        self.assertEqual(self.store.calls[-1], ("register", f"alice@{DOMAIN}", "300"))
        self.register("<sip:b@192.0.2.1>;expires=0", 5)
        self.assertEqual(self.store.calls[-1], ("unregister", f"alice@{DOMAIN}"))

    def test_expiry_of_a_contact(self) -> None:
        """expires parameter before Expires header before the default; at least 60, at most 7200 seconds."""
        for contact, headers, expires in (
            ("<sip:a@h>;expires=100", {"Expires": "200"}, "100"),
            ("<sip:a@h>", {"Expires": "200"}, "200"),
            ("<sip:a@h>", {}, "3600"),
            ("<sip:a@h>;expires=soon", {}, "3600"),
            ("<sip:a@h>;expires=99999", {}, "7200"),
        ):
            call_id = f"{len(self.store.calls)}"
            response = self.ask_as(make_request(Contact=contact, call_id=call_id, **headers))
            self.assertEqual(response.headers["Contact"], [f"<sip:a@h>;expires={expires}"])
        response = self.register("<sip:a@h>;expires=59", 9)
        self.assertEqual((response.status, response.get("Min-Expires")), (423, "60"))

    def test_wildcard_needs_expires_0(self) -> None:
        for headers in ({}, {"Expires": "60"}):
            self.assertEqual(self.register("*", **headers).status, 400)
        self.assertEqual(self.register("*, <sip:a@h>", Expires="0").status, 400)
        self.assertEqual((self.register("*", Expires="0").status, self.store.calls), (200, []))

    def test_out_of_order(self) -> None:
        self.register(cseq=5)
        self.assertEqual(self.register("<sip:alice@192.0.2.1>;expires=0", 4).status, 500)
        self.assertEqual(len(self.registrar.query(f"alice@{DOMAIN}", self.now)), 1)

    def test_own_aor_only(self) -> None:
        request = make_request(Contact="<sip:a@h>", To=f"<sip:bob@{DOMAIN}>")
        self.assertEqual(self.ask_as(request).status, 403)
        self.assertEqual(self.store.calls, [])

    def test_foreign_domain(self) -> None:
        self.assertEqual(self.ask(make_request(uri="sip:example.net")).status, 404)
        self.assertEqual(self.ask_as(make_request(To="<sip:alice@example.net>", Contact="<sip:a@h>")).status, 404)
        self.assertEqual(self.ask_as(make_request(To="<isbn:2983792873>", Contact="<sip:a@h>")).status, 400)

    def test_address_in_place_of_the_domain(self) -> None:
        """A phone that knows the registrar by an address of its own registers all the same."""
        for number, host in enumerate(("127.0.0.1", "[::1]:5060", "EXAMPLE.org")):
            request = make_request(
                uri=f"sip:{host}", To=f"<sip:%61lice@{host}>", Contact=f"<sip:a@h{number}>", call_id=str(number)
            )
            self.assertEqual(self.ask_as(request).status, 200)
        self.assertEqual(len(self.registrar.query(f"alice@{DOMAIN}", self.now)), 3)

    def test_unicode_user(self) -> None:
        request = make_request(user="j%C3%BCrgen", Contact="<sip:a@h>")
        response = self.ask(authorize(request, self.ask(request), user="jürgen"))
        self.assertEqual(response.status, 200)
        self.assertEqual(self.store.calls[0][1], f"jürgen@{DOMAIN}")

    def test_not_utf8(self) -> None:
        """What could not be kept is refused before anything is changed."""
        for headers in ({"Call_ID": "\udc80"}, {"Contact": '<sip:a@h>;x="\udc80"'}, {"Contact": "<x:\udc80>"}):
            request = make_request(**{"Contact": "<sip:a@h>", **headers})
            self.assertEqual(self.ask_as(request).status, 400)
        self.assertEqual(self.store.calls, [])

    def test_bad_contact(self) -> None:
        for contact in ("<sip:a@h>;q=7", "sip:a@h?b=c", "<sip:>", '"a'):
            self.assertEqual(self.register(contact).status, 400)
        self.assertEqual(self.store.calls, [])

    def test_unknown_parameters_are_kept(self) -> None:
        """RFC 4475 §3.3.12 to §3.3.14."""
        self.assertEqual(
            self.register("sip:a@h;unknownparam").headers["Contact"], ["<sip:a@h>;unknownparam;expires=3600"]
        )
        self.assertIn(
            "<sip:b@h;unknownparam?Route=%3Csip:x%3E>;expires=3600",
            self.register("<sip:b@h;unknownparam?Route=%3Csip:x%3E>", 2).headers["Contact"],
        )

    def test_require(self) -> None:
        response = self.ask(make_request(Require="outbound, path", Contact="<sip:a@h>"))
        self.assertEqual((response.status, response.get("Unsupported")), (420, "outbound, path"))

    def test_second_device(self) -> None:
        self.assertEqual(self.ask_as(make_request(Contact="<sip:a@h>"), "second").status, 200)

    def contacts(self) -> list[str]:
        return [contact.uri for contact in self.registrar.query(f"alice@{DOMAIN}", self.now)]

    def test_revoked(self) -> None:
        """The bindings of a revoked device go, and with the account all; the overlay and the journal hear of it."""
        self.register("<sip:first@h>")
        self.ask_as(make_request(Contact="<sip:second@h>", call_id="2"), "second")
        self.store.calls.clear()
        aor = f"alice@{DOMAIN}"
        self.successResultOf(self.registrar.remove(aor, self.now, "device1"))
        self.assertEqual((self.contacts(), self.store.calls), (["sip:first@h"], [("register", aor, "3600")]))
        self.assertEqual([row.uri for row in self.journal.load()], ["sip:first@h"])
        self.successResultOf(self.registrar.remove(aor, self.now, "device1"))
        self.successResultOf(self.registrar.remove(aor, self.now))
        self.successResultOf(self.registrar.remove(aor, self.now))
        self.assertEqual((self.contacts(), self.store.calls[1:]), ([], [("unregister", aor)]))

    def test_revoked_though_the_overlay_fails(self) -> None:
        self.register("<sip:first@h>")
        self.store.failure = Unavailable()
        self.failureResultOf(self.registrar.remove(f"alice@{DOMAIN}", self.now), Unavailable)
        self.assertEqual((self.contacts(), self.journal.load()), ([], []))

    def test_too_long_to_keep(self) -> None:
        for headers in ({"Contact": f"<sip:{'a' * 1024}@h>"}, {"Contact": "<sip:a@h>", "Call_ID": "c" * 1025}):
            self.assertEqual(self.ask_as(make_request(**headers)).status, 400)
        self.assertEqual(self.store.calls, [])

    def test_expired(self) -> None:
        """When the last contact ends, the overlay and the journal hear of it."""
        self.register()
        self.now += 3599
        self.successResultOf(self.registrar.expire(self.now))
        self.assertNotEqual(self.store.calls[-1][0], "unregister")
        self.now += 1
        self.successResultOf(self.registrar.expire(self.now))
        self.assertEqual(self.store.calls[-1], ("unregister", f"alice@{DOMAIN}"))
        self.assertEqual(self.journal.load(), [])

    def test_expired_but_the_overlay_fails(self) -> None:
        self.register()
        self.store.failure = RuntimeError("unreachable")
        self.successResultOf(self.registrar.expire(self.now + 3600))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_restart(self) -> None:
        """Phones and the order of their requests are known after a restart."""
        self.register(cseq=5)
        self.build()
        self.registrar.load(self.now + 10)
        self.assertEqual(
            self.registrar.query(f"alice@{DOMAIN}", self.now + 10), [Contact("sip:alice@192.0.2.1", None, 3590)]
        )
        self.assertEqual(self.register(cseq=5).status, 500)

    def test_query_of_another_registrar(self) -> None:
        self.register()
        request = make_request(user="node1")
        request.set("To", f"<sip:alice@{DOMAIN}>")
        response = self.registrar.answer_query(request, self.now)
        self.assertEqual(response.headers["Contact"], ["<sip:alice@192.0.2.1>;expires=3600"])
        request.set("Contact", "<sip:a@h>")
        self.assertEqual(
            self.assertRaises(SIPFailure, self.registrar.answer_query, request, self.now).status, 403
        )


class OverlayFailureTests(ServerTestCase):
    """When the overlay does not take it, the phone hears of it and the old state stays."""

    def test_unavailable(self) -> None:
        self.register()
        self.store.failure = Unavailable(retry_after=7)
        response = self.register("<sip:alice@192.0.2.2>", 2)
        self.assertEqual((response.status, response.get("Retry-After")), (503, "7"))
        self.assertEqual(len(self.registrar.query(f"alice@{DOMAIN}", self.now)), 1)
        self.assertEqual(self.register("*", 3, Expires="0").status, 503)
        self.assertEqual((len(self.registrar.query(f"alice@{DOMAIN}", self.now)), len(self.journal.load())), (1, 1))

    def test_anything_else(self) -> None:
        self.store.failure = RuntimeError("no quorum")
        response = self.register()
        self.assertEqual((response.status, response.get("Retry-After")), (500, "30"))
        self.assertEqual((self.registrar.query(f"alice@{DOMAIN}", self.now), self.journal.load()), ([], []))

    def test_one_after_the_other(self) -> None:
        """Two changes of one AOR do not overtake each other in the overlay."""
        first = make_request(Contact="<sip:alice@192.0.2.1>", call_id="1")
        second = make_request(Contact="*", Expires="0", call_id="2")
        authorize(first, self.ask(first))
        authorize(second, self.ask(second))
        waiting = self.store.waiting = Deferred()
        incoming = [self.receive(first), self.receive(second)]
        self.assertEqual([name for name, *_ in self.store.calls], ["register"])
        self.store.waiting = None
        waiting.callback(None)
        self.assertEqual([name for name, *_ in self.store.calls], ["register", "unregister"])
        self.assertEqual([one.responses[0].status for one in incoming], [200, 200])
        self.assertEqual(self.registrar.query(f"alice@{DOMAIN}", self.now), [])


class AuthenticationTests(ServerTestCase):
    def request(self, cseq: int = 1) -> Request:
        return make_request(Contact="<sip:a@h>", cseq=cseq)

    def test_nonce_is_used_again_but_its_count_is_not(self) -> None:
        challenge = self.ask(self.request())
        for cseq, count, status in ((1, 1, 200), (2, 2, 200), (3, 2, 401), (4, 3, 200)):
            response = self.ask(authorize(self.request(cseq), challenge, count=count))
            self.assertEqual(response.status, status)
            if status == 401:
                self.assertTrue(DigestChallenge.parse(response.values("WWW-Authenticate")[0]).stale)

    def test_replay_for_another_request(self) -> None:
        """Credentials cannot be moved to another method, Request-URI or nonce."""
        challenge = self.ask(self.request())
        good = authorize(self.request(), challenge)
        proof = good.get("Authorization") or ""
        other = make_request(Authorization=proof.replace("sip:example.org", "sip:example.net"))
        self.assertEqual(self.ask(other).status, 400)
        self.assertEqual(self.authenticator.counters["digest for another uri"], 1)
        invite = make_request("INVITE", f"sip:bob@{DOMAIN}", Authorization=proof)
        self.assertEqual(self.ask(invite).status, 401)
        self.assertEqual(self.authenticator.counters["wrong credentials"], 1)
        self.assertEqual(self.ask(good).status, 200)

    def test_uri_names_the_server(self) -> None:
        """sipp and some phones put sip:address:port there."""
        request = self.request()
        challenge = self.ask(request)
        request.uri_text = "sip:127.0.0.1:5060"
        authorize(request, challenge)
        request.uri_text = f"sip:{DOMAIN}"
        self.assertEqual(self.ask(request).status, 200)

    def test_stale(self) -> None:
        challenge = self.ask(self.request())
        self.now += 3601
        response = self.ask(authorize(self.request(), challenge))
        again = DigestChallenge.parse(response.values("WWW-Authenticate")[0])
        self.assertEqual((response.status, again.stale, self.credentials.asked), (401, True, []))
        self.assertEqual(self.ask(authorize(self.request(), response)).status, 200)

    def test_foreign_nonce(self) -> None:
        challenge = self.ask(self.request())
        challenge.set("WWW-Authenticate", str(DigestChallenge(DOMAIN, "made up", "MD5")))
        self.assertEqual(self.ask(authorize(self.request(), challenge)).status, 401)
        self.assertEqual((self.credentials.asked, self.authenticator.counters["nonce foreign"]), ([], 1))

    def test_without_qop(self) -> None:
        challenge = self.ask(self.request())
        nonce = DigestChallenge.parse(challenge.values("WWW-Authenticate")[0]).nonce
        challenge.set("WWW-Authenticate", str(DigestChallenge(DOMAIN, nonce, "MD5", ())))
        self.assertEqual(self.ask(authorize(self.request(), challenge)).status, 401)
        self.assertEqual(self.credentials.asked, [])

    def offered(self, **headers: str) -> list[str]:
        response = self.ask(make_request(Contact="<sip:a@h>", **headers))
        return [DigestChallenge.parse(value).algorithm for value in response.values("WWW-Authenticate")]

    def test_algorithms(self) -> None:
        """SHA-256 first (RFC 8760 §2.4), but for phones that would not get by it."""
        self.assertEqual(self.offered(User_Agent="Phone 1.0"), ["SHA-256", "MD5"])
        self.assertEqual(self.offered(User_Agent="baresip v1.0.0 (x86_64/linux)"), ["MD5"])
        self.assertEqual(self.offered(), ["MD5", "SHA-256"])

    def test_each_algorithm(self) -> None:
        challenge = self.ask(self.request())
        for cseq, value in enumerate(challenge.values("WWW-Authenticate")):
            challenge.set("WWW-Authenticate", value)
            self.assertEqual(self.ask(authorize(self.request(cseq), challenge, count=cseq + 1)).status, 200)

    def test_only_what_is_offered(self) -> None:
        challenge = self.ask(self.request())
        self.authenticator._algorithms = ("SHA-256",)
        self.assertEqual(self.offered(), ["SHA-256"])
        self.assertEqual(self.offered(User_Agent="baresip v1.0.0"), ["SHA-256"])
        self.assertEqual(self.ask(authorize(self.request(), challenge)).status, 401)

    def test_other_schemes_and_realms(self) -> None:
        """They are none of ours (RFC 4475 §3.3.7)."""
        for value in ("NoOneKnowsThisScheme opaque-data=here",
                      'Digest username="a", realm="other", nonce="n", uri="sip:a", response="00"'):  # fmt: skip
            request = self.request()
            request.set("Authorization", value)
            self.assertEqual(self.ask(request).status, 401)
        malformed = self.request()
        malformed.set("Authorization", 'Digest username="a')
        self.assertEqual(self.ask(malformed).status, 400)

    def test_unknown_user_looks_like_a_wrong_password(self) -> None:
        answers = []
        for user in ("alice", "nobody"):
            request = make_request(user=user, Contact="<sip:a@h>")
            response = self.ask(authorize(request, self.ask(request), "wrong"))
            challenges = [DigestChallenge.parse(value) for value in response.values("WWW-Authenticate")]
            answers.append(
                (response.status, list(response.headers), [(found.realm, found.stale) for found in challenges])
            )
        self.assertEqual(answers[0], answers[1])

    def test_refused_by_who_knows(self) -> None:
        self.credentials.failure = Refused()
        self.assertEqual(self.ask_as(self.request()).status, 401)
        self.assertEqual(self.authenticator.counters["wrong credentials"], 1)

    def test_unavailable_is_no_failure_of_the_phone(self) -> None:
        self.credentials.failure = Unavailable(retry_after=5)
        for cseq in range(1, 10):
            response = self.ask_as(self.request(cseq))
            self.assertEqual((response.status, response.get("Retry-After")), (503, "5"))
        self.credentials.failure = None
        self.assertEqual(self.ask_as(self.request(10)).status, 200)

    def guess(self, user: str = "alice", host: str = "203.0.113.1", password: str = "wrong") -> Response:
        return self.ask_as(make_request(user=user, Contact="<sip:a@h>"), password, Source(host, 5060, "UDP"))

    def test_source_is_slowed_down(self) -> None:
        """After free failures a source waits, and no secret is asked for meanwhile; others are served."""
        for user in ("a", "b", "c", "d"):
            self.assertEqual(self.guess(user).status, 401)
        asked = len(self.credentials.asked)
        response = self.guess("e")
        self.assertEqual((response.status, response.get("Retry-After")), (503, "1"))
        self.assertEqual(self.guess(password="pw").status, 503)
        self.assertEqual(len(self.credentials.asked), asked)
        self.assertEqual(self.authenticator.counters["source slowed down"], 2)
        self.assertEqual(self.guess(host="203.0.113.2", password="pw").status, 200)
        self.now += 1
        self.assertEqual(self.guess("e").status, 401)
        self.assertEqual(self.guess("e").get("Retry-After"), "2")

    def test_account_is_slowed_down_but_not_its_own_phone(self) -> None:
        self.assertEqual(self.guess(host=PHONE.host, password="pw").status, 200)
        statuses = [self.guess(host=f"203.0.113.{number}").status for number in range(5)]
        self.assertEqual(statuses, [401, 401, 401, 503, 503])
        self.assertEqual(self.guess(host="198.51.100.1", password="pw").status, 503)
        refresh = self.ask_as(make_request(Contact="<sip:a@h>", cseq=2))
        self.assertEqual(refresh.status, 200)

    def test_many_guesses_at_once(self) -> None:
        """Guesses count before their outcome is known."""
        self.credentials.waiting = Deferred()
        incoming = []
        for number in range(10):
            source = Source(f"203.0.113.{number}", 5060, "UDP")
            request = make_request(Contact="<sip:a@h>", cseq=number)
            incoming.append(self.receive(authorize(request, self.ask(request, source), "wrong"), source))
        self.assertEqual(len(self.credentials.asked), 3)
        self.assertEqual([one.responses[0].status for one in incoming if one.responses], [503] * 7)
        self.credentials.waiting.callback(None)
        self.assertEqual([one.responses[0].status for one in incoming[:3]], [401] * 3)
