"""A trunk's challenges, and the registration there."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.sip.digest import ALGORITHMS, DigestChallenge, DigestCredentials, ha1, verify_response
from p2psip.sip.errors import TransactionTimeout, TransportFailure
from p2psip.sip.interfaces import ITrunk, Target
from p2psip.sip.message import Request, Response
from p2psip.sip.trunk import LONGEST_RETRY, MOST_NONCES, PATIENCE, RETRY, Trunk, TrunkRegistration
from p2psip.sip.uri import SIPURI, parse_uri

from .fakes import make_request

URI = "sip:trunk.example:5070;transport=tcp"
FIRST, SECOND = Target("UDP", "192.0.2.50", 5070), Target("UDP", "192.0.2.51", 5070)


def make_trunk(user: str = "us", uri: str = URI) -> Trunk:
    parsed = parse_uri(uri)
    assert isinstance(parsed, SIPURI)
    return Trunk(parsed, user, "secret", Random(1))


def challenged(request: Request, *challenges: DigestChallenge, status: int = 407) -> Response:
    response = request.response(status, to_tag="t")
    for challenge in challenges:
        response.add("Proxy-Authenticate" if status == 407 else "WWW-Authenticate", str(challenge))
    return response


def proof_in(value: str) -> DigestCredentials:
    return DigestCredentials.parse(value)


class AuthorizationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.trunk = make_trunk()
        self.invite = make_request("INVITE", "sip:+49301234@trunk.example;user=phone")

    def answer(self, *challenges: DigestChallenge, status: int = 407) -> tuple[str, str] | None:
        return self.trunk.authorization(self.invite, challenged(self.invite, *challenges, status=status))

    def test_interface(self) -> None:
        verifyObject(ITrunk, self.trunk)

    def test_answered(self) -> None:
        """By each algorithm that is known, to a proxy's challenge and to a server's."""
        for algorithm in ALGORITHMS:
            for status, expected in ((401, "Authorization"), (407, "Proxy-Authorization")):
                answer = self.answer(DigestChallenge("realm", "nonce", algorithm), status=status)
                assert answer is not None
                name, value = answer
                proof = proof_in(value)
                self.assertEqual((name, proof.username, proof.uri), (expected, "us", self.invite.uri_text))
                self.assertTrue(verify_response(proof, "INVITE", ha1(algorithm, "us", "realm", "secret")))

    def test_old_trunk(self) -> None:
        """Without qop, as RFC 2069 had it."""
        answer = self.answer(DigestChallenge("realm", "nonce", qop=()))
        assert answer is not None
        self.assertIsNone(proof_in(answer[1]).qop)

    def test_first_that_is_understood(self) -> None:
        answer = self.answer(DigestChallenge("realm", "a", "SHA-512-256"), DigestChallenge("realm", "b", "SHA-256"))
        assert answer is not None
        self.assertEqual(proof_in(answer[1]).nonce, "b")

    def test_not_answered(self) -> None:
        self.assertIsNone(self.answer(DigestChallenge("realm", "a", "SHA-512-256")))
        self.assertIsNone(self.answer(DigestChallenge("realm", "a", qop=("auth-int",))))
        self.assertIsNone(self.answer())
        self.assertIsNone(self.trunk.authorization(self.invite, self.invite.response(403)))
        self.trunk = make_trunk(user="")
        self.assertIsNone(self.answer(DigestChallenge("realm", "nonce")))

    def test_once(self) -> None:
        """What was refused is not tried again, unless the nonce alone was too old; credentials of others are none."""
        answer = self.answer(DigestChallenge("realm", "one"))
        assert answer is not None
        self.invite.set(*answer)
        self.assertIsNone(self.answer(DigestChallenge("realm", "two")))
        again = self.answer(DigestChallenge("realm", "two", stale=True))
        assert again is not None
        self.assertEqual(proof_in(again[1]).nonce, "two")
        for other in (answer[1].replace('"us"', '"alice"'), answer[1].replace('"realm"', '"other"'), "Basic x"):
            self.invite.set(answer[0], other)
            self.assertIsNotNone(self.answer(DigestChallenge("realm", "three")))

    def test_nonce_count(self) -> None:
        """It grows with each use of a nonce; the nonces that are remembered are bounded."""
        for count in ("00000001", "00000002"):
            answer = self.answer(DigestChallenge("realm", "nonce"))
            assert answer is not None
            self.assertEqual(proof_in(answer[1]).nc, count)
        for number in range(MOST_NONCES):
            self.answer(DigestChallenge("realm", f"n{number}"))
        self.assertEqual(len(self.trunk._counts), MOST_NONCES)

    def test_target(self) -> None:
        target = self.trunk.target("+49301234;ext=5", FIRST, "+4930")
        self.assertEqual(target.uri, "sip:+49301234;ext=5@trunk.example:5070;transport=tcp;user=phone")
        self.assertEqual((target.trunk, target.server), (self.trunk, FIRST))
        self.assertEqual(target.headers, (("P-Asserted-Identity", "<tel:+4930>"),))
        self.assertEqual(make_trunk(uri="sips:a").target("112").uri, "sips:112@a;user=phone")
        self.assertEqual(self.trunk.target("112").headers, ())
        self.assertEqual(str(self.trunk.uri), URI)


class FakeEdge:
    """Keeps requests, and answers them as `answer` says."""

    def __init__(self) -> None:
        self.requests: list[tuple[Request, Target]] = []
        self.answer: Callable[[Request], Any] = lambda request: request.response(200)

    def flow_to(self, target: Target) -> Deferred[Target]:
        return succeed(target)

    def sent_by(self, flow: Target) -> str:
        return "198.51.100.1:5060"

    def request(self, request: Request, target: Target) -> Deferred[Response]:
        if "Via" not in request.headers:
            request.set("Via", "SIP/2.0/UDP 198.51.100.1;branch=z9hG4bK1")
            request.set("From", f"{request.get('From')};tag=us")
        self.requests.append((request, target))
        answer = self.answer(request)
        if isinstance(answer, Deferred):
            return answer
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)


class RegistrationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.edge: Any = FakeEdge()
        self.servers = [FIRST, SECOND]
        self.registration = TrunkRegistration(
            make_trunk(), "+4930", self.edge, lambda: self.servers, self.clock, Random(1)
        )
        self.failing: set[Target] = set()
        self.edge.answer = self.registrar
        self.expires = "600"
        self.min_expires = 0

    def registrar(self, request: Request) -> Any:
        """A trunk that asks for a password, once for each request."""
        _, target = self.edge.requests[-1]
        if target in self.failing:
            return TransactionTimeout()
        header = request.get("Authorization")
        if header is None or proof_in(header).nonce != f"n{self.registration._cseq // 2}":
            nonce = f"n{(self.registration._cseq + 1) // 2}"
            return challenged(request, DigestChallenge("realm", nonce, stale=header is not None), status=401)
        if int(request.get("Expires") or "") < self.min_expires:
            response = request.response(423)
            response.set("Min-Expires", str(self.min_expires))
            return response
        response = request.response(200)
        response.set("Contact", f"{request.get('Contact')};expires={self.expires}")
        return response

    @property
    def sent(self) -> list[str]:
        return [f"{r.cseq.number} {r.get('Expires')} {target.host}" for r, target in self.edge.requests]

    def test_registered(self) -> None:
        self.registration.start()
        self.registration.start()
        self.assertTrue(self.registration.registered)
        self.assertEqual(self.sent, ["1 3600 192.0.2.50", "2 3600 192.0.2.50"])
        first, second = (request for request, _ in self.edge.requests)
        self.assertEqual(first.uri_text, "sip:trunk.example:5070")
        self.assertEqual(first.get("To"), "<sip:us@trunk.example:5070>")
        self.assertEqual(first.get("Contact"), "<sip:+4930@198.51.100.1:5060;transport=udp>")
        self.assertEqual(first.call_id, second.call_id)
        proof = proof_in(second.get("Authorization") or "")
        self.assertTrue(verify_response(proof, "REGISTER", ha1("MD5", "us", "realm", "secret")))

    def test_again_in_time(self) -> None:
        """As long as the trunk granted, not as was asked for."""
        self.registration.start()
        self.clock.advance(600 * 0.75 * 0.8 - 1)
        self.assertEqual(len(self.sent), 2)
        self.clock.advance(600 * 0.75 * 0.2 + 1)
        self.assertEqual(self.sent[2:], ["3 3600 192.0.2.50", "4 3600 192.0.2.50"])
        for _ in range(100):
            self.clock.advance(60)
            self.assertTrue(self.registration.registered)

    def test_expires_header(self) -> None:
        def answer(request: Request) -> Response:
            response = request.response(200)
            response.set("Expires", "100")
            return response

        self.edge.answer = answer
        self.registration.start()
        self.clock.advance(99)
        self.assertTrue(self.registration.registered)
        self.assertEqual(len(self.sent), 2)

    def test_interval_too_brief(self) -> None:
        self.min_expires = 7200
        self.expires = "7200"
        self.registration.start()
        self.assertTrue(self.registration.registered)
        self.assertIn("7200", self.sent[-1])

    def test_second_server(self) -> None:
        self.failing = {FIRST}
        self.registration.start()
        self.assertTrue(self.registration.registered)
        self.assertEqual([line.split()[2] for line in self.sent], ["192.0.2.50", "192.0.2.51", "192.0.2.51"])

    def test_no_server(self) -> None:
        """It is tried again, less and less often, and said once."""
        self.failing = {FIRST, SECOND}
        self.registration.start()
        self.assertFalse(self.registration.registered)
        self.clock.advance(RETRY)
        self.assertEqual(len(self.sent), 4)
        for _ in range(20):
            self.clock.advance(LONGEST_RETRY)
        self.failing = set()
        self.clock.advance(LONGEST_RETRY)
        self.assertTrue(self.registration.registered)

    def test_unknown_servers(self) -> None:
        self.servers = []
        self.registration.start()
        self.assertEqual(self.sent, [])
        self.servers = [FIRST]
        self.clock.advance(RETRY)
        self.assertTrue(self.registration.registered)

    def test_wrong_password(self) -> None:
        """No other server is asked, and it is not tried over and over."""
        self.edge.answer = lambda request: challenged(request, DigestChallenge("realm", "n"), status=401)
        self.registration.start()
        self.assertEqual(len(self.sent), 2)
        self.assertFalse(self.registration.registered)

    def test_endless_challenges(self) -> None:
        self.edge.answer = lambda request: challenged(request, DigestChallenge("realm", "n", stale=True), status=401)
        self.registration.start()
        self.assertEqual(len(self.sent), 4)
        self.assertFalse(self.registration.registered)

    def test_refused(self) -> None:
        self.edge.answer = lambda request: request.response(403)
        self.registration.start()
        self.assertEqual(len(self.sent), 1)

    def test_nonsense(self) -> None:
        """A trunk's answer that cannot be read is a failure like others."""

        def answer(request: Request) -> Response:
            response = request.response(200)
            response.set("Contact", "<<>>")
            return response

        self.edge.answer = answer
        self.registration.start()
        self.assertFalse(self.registration.registered)
        self.edge.answer = self.registrar
        self.clock.advance(RETRY)
        self.assertTrue(self.registration.registered)

    def test_stop(self) -> None:
        self.registration.start()
        self.successResultOf(self.registration.stop())
        self.assertEqual(self.sent[-1].split()[1:], ["0", "192.0.2.50"])
        self.assertFalse(self.registration.registered)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_without_answer(self) -> None:
        self.registration.start()
        self.edge.answer = lambda request: Deferred()
        stopping = self.registration.stop()
        self.assertNoResult(stopping)
        self.clock.advance(PATIENCE)
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_in_the_middle(self) -> None:
        self.edge.answer = lambda request: Deferred()
        self.registration.start()
        self.successResultOf(self.registration.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.sent), 1)

    def test_stop_in_vain(self) -> None:
        self.registration.start()
        self.edge.answer = lambda request: TransportFailure()
        self.successResultOf(self.registration.stop())
