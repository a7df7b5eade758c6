"""The certificate with which a registrar stores that it is a gateway."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from p2psip.enrollment.authority import DAY, OverlayAuthority, Refusal
from p2psip.enrollment.client import EnrollmentError, Refused, Unavailable
from p2psip.enrollment.gateway import RETRY, GatewayCertificate
from p2psip.interfaces import ISigner
from p2psip.security.certificates import generate_key

from . import world
from .served import ServedTestCase, reactor
from .test_server import failure_of
from .world import HASHES, OVERLAY, Member

NOW = 1_800_000_000.0
NAME = "gateways@services.example.org"


class LocalClient:
    """Asks an authority of the same process, as the registrar `member`."""

    def __init__(self, authority: OverlayAuthority, member: Member) -> None:
        self.authority = authority
        self.member = member
        self.failure: Exception | None = None
        self.asked = self.closed = 0

    def close(self) -> Deferred[None]:
        self.closed += 1
        return succeed(None)

    async def gateway_certificate(self, csr: bytes) -> bytes:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return self.authority.gateway_certificate(self.member.identity, csr)


class GatewayCertificateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.authority = OverlayAuthority.create(Path(self.mktemp()), OVERLAY, self.clock.seconds, hashes=HASHES)
        self.addCleanup(self.authority.close)
        self.member = world.join(self.authority, "second")
        self.client: Any = LocalClient(self.authority, self.member)
        self.path = Path(self.mktemp())
        self.certificate = self.start()

    def start(self) -> GatewayCertificate:
        return GatewayCertificate(
            lambda: self.client,
            world.trust(self.authority),
            self.member.key,
            self.member.node_id,
            self.path,
            self.clock,
        )

    def signer(self) -> ISigner:
        return self.successResultOf(self.certificate.signer())

    def test_asked_once(self) -> None:
        """And kept over a restart, the server being down."""
        identity = self.signer().identity
        self.assertEqual((identity.user_name, identity.node_ids), (NAME, (self.member.node_id,)))
        self.assertEqual(identity.role, "user")
        self.client.failure = Unavailable("down")
        self.certificate = self.start()
        self.assertEqual(self.signer().identity, identity)
        self.assertEqual((self.client.asked, self.client.closed), (1, 1))
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o644)

    def test_renewed(self) -> None:
        """After two thirds of its life; a server that is down takes nothing as long as it lasts."""
        first = self.signer().identity
        self.client.failure = Unavailable("down")
        self.clock.advance(5 * DAY)
        for _ in range(3):
            self.assertEqual(self.signer().identity, first)
        self.assertEqual(self.client.asked, 2)
        self.clock.advance(RETRY)
        self.client.failure = None
        self.assertNotEqual(self.signer().identity, first)
        self.assertEqual(self.client.asked, 3)
        self.client.failure = Unavailable("down")
        self.clock.advance(7 * DAY + 1)
        self.failureResultOf(self.certificate.signer(), Unavailable)

    def test_no_certificate(self) -> None:
        self.client.failure = Refused("HTTP status 404")
        self.failureResultOf(self.certificate.signer(), Refused)
        self.client.failure = None
        self.signer()

    def test_file_of_no_use(self) -> None:
        for content in (b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"):
            self.path.write_bytes(content)
            asked = self.client.asked
            self.signer()
            self.assertEqual(self.client.asked, asked + 1)

    def test_another_certificate(self) -> None:
        """A server that gives something else is not believed."""
        other = world.join(self.authority, "third")
        self.client.authority = self
        self.gateway_certificate = lambda identity, csr: other.certificate
        self.failureResultOf(self.certificate.signer(), EnrollmentError)

    def test_not_saved(self) -> None:
        """It is used all the same."""
        self.path.mkdir()
        self.signer()
        self.assertEqual(len(self.flushLoggedErrors()), 0)


class AuthorityTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.authority = world.make(self.mktemp())
        self.addCleanup(self.authority.close)

    def refusal(self, member: Member, user: str, key: Any = None) -> str:
        csr = Member(key or member.key, b"").request(user)
        return self.assertRaises(Refusal, self.authority.gateway_certificate, member.identity, csr).token

    def test_refused(self) -> None:
        """To peers, for other names and other keys; it is in the audit log."""
        registrar, peer = world.join(self.authority, "second"), world.join(self.authority, "third", "peer")
        self.assertEqual(self.refusal(peer, "x"), "failed_authentication")
        self.assertEqual(self.refusal(registrar, "alice"), "username_not_available")
        self.assertEqual(self.refusal(registrar, "x", generate_key()), "bad_CSR")
        self.assertIn("username_not_available (gateway)", [e["detail"] for e in self.authority.database.audit_log()])


class ServedGatewayTests(ServedTestCase):
    async def test_over_https(self) -> None:
        member, peer = world.join(self.authority, "second"), world.join(self.authority, "third", "peer")
        refused = await failure_of(self.client(member=peer).gateway_certificate(peer.request("x")), Refused)
        self.assertEqual(refused.token, "failed_authentication")
        certificate = GatewayCertificate(
            lambda: self.client(member=member),
            self.trust,
            member.key,
            member.node_id,
            Path(self.mktemp()),
            reactor,
        )
        signer = await certificate.signer()
        self.assertEqual(signer.identity.user_name, NAME)
