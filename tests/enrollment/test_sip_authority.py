"""Certificates for SIP servers: what they name, who gets them, and what they are of no use for."""

from __future__ import annotations

import stat
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.trial.unittest import SynchronousTestCase

from p2psip.enrollment.archive import export_authority, import_authority
from p2psip.enrollment.authority import NODE_LIFETIME, AuthorityError, OverlayAuthority
from p2psip.enrollment.client import Refused, Unavailable, Untrusted
from p2psip.enrollment.sip_authority import MOST_ADDRESSES, granted
from p2psip.security.certificates import PrivateKey, generate_key, make_request
from p2psip.security.identity import CertificateError
from p2psip.sip.tls import ServerTLS, shows

from . import world
from .served import ServedTestCase
from .test_authority import NOW, AuthorityTestCase
from .test_server import failure_of
from .world import HASHES, OVERLAY, Member


def loaded(chain: list[bytes]) -> list[x509.Certificate]:
    return [x509.load_der_x509_certificate(each) for each in chain]


class GrantedTests(SynchronousTestCase):
    """Which addresses a certificate may name."""

    def test_private(self) -> None:
        """Whoever asks may have those that mean nothing outside of its own network."""
        private = ["10.0.0.1", "192.168.1.1", "127.0.0.5", "169.254.1.1", "fd00::1", "::1", "fe80::1"]
        self.assertEqual(granted(private, ["8.8.8.8"]), private)

    def test_public(self) -> None:
        """Only what it is known to have; and never a group's, or everybody's."""
        asked = ["8.8.8.8", "1.1.1.1", "2600::1", "224.0.0.1", "ff02::1", "0.0.0.0", "::"]
        self.assertEqual(granted(asked, ["1.1.1.1"]), ["1.1.1.1"])
        self.assertEqual(granted(asked, ["::ffff:8.8.8.8"]), ["8.8.8.8"], "a socket for both families")
        self.assertEqual(granted(asked, []), [])

    def test_spelling(self) -> None:
        self.assertEqual(granted(["FD00:0::1", "fd00::1", "::ffff:10.0.0.1"], []), ["fd00::1", "10.0.0.1"])

    def test_nonsense(self) -> None:
        for asked in (["example.net"], ["10.0.0.1", "*"], [""], ["10.0.0.1/8"], ["10.0.0.1"] * (MOST_ADDRESSES + 1)):
            self.assertRaises(ValueError, granted, asked, ["example.net"])


class IssueTests(AuthorityTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.member = world.join(self.authority, "second")
        self.key = generate_key()

    def request(self, key: PrivateKey | None = None, name: str = "second@nodes.example.org") -> bytes:
        return make_request(key or self.key, name)

    def issue(self, *addresses: str, member: Member | None = None) -> list[x509.Certificate]:
        chain = self.authority.sip_certificate((member or self.member).identity, self.request(), addresses, [])
        return loaded(chain)

    def test_certificate(self) -> None:
        """It names the overlay's domain, as RFC 5922 §4 and as other software has it, and addresses."""
        own, root = self.issue("10.0.0.1", "8.8.8.8", "fd00::1")
        own.verify_directly_issued_by(root)
        self.assertEqual(own.public_key(), self.key.public_key())
        names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), [OVERLAY])
        self.assertEqual(names.get_values_for_type(x509.UniformResourceIdentifier), [f"sip:{OVERLAY}"])
        self.assertEqual(list(map(str, names.get_values_for_type(x509.IPAddress))), ["10.0.0.1", "fd00::1"])
        usages = own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        self.assertEqual(list(usages), [ExtendedKeyUsageOID.SERVER_AUTH])
        self.assertEqual(own.not_valid_after_utc.timestamp(), NOW + NODE_LIFETIME)
        self.assertTrue(shows(own, OVERLAY))
        ServerTLS([own, root], self.key)
        self.assertEqual(self.last_line()[:2], ("SIP certificate", "second@nodes.example.org"))

    def test_foreign_names(self) -> None:
        """Whatever else stands in the request counts for nothing."""
        names = x509.SubjectAlternativeName(
            [x509.DNSName("example.net"), x509.UniformResourceIdentifier("sip:example.net")]
        )
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        request = builder.add_extension(names, critical=True).sign(self.key, SHA256()).public_bytes(Encoding.DER)
        own = loaded(self.authority.sip_certificate(self.member.identity, request, [], []))[0]
        self.assertFalse(shows(own, "example.net"))
        self.assertTrue(shows(own, OVERLAY))

    def test_apart(self) -> None:
        """It is nobody in the overlay: no node, no user; and its authority is not the overlay's."""
        own, root = (each.public_bytes(Encoding.DER) for each in self.issue("10.0.0.1"))
        self.assertEqual(self.assertRaises(CertificateError, self.trust.identify, own, [root]).cause, "san")
        self.assertNotEqual(root, self.authority.root_certificate)
        certificate = x509.load_der_x509_certificate(own)
        overlays = x509.load_der_x509_certificate(self.authority.root_certificate)
        self.assertRaises(ValueError, certificate.verify_directly_issued_by, overlays)

    def test_no_registrar(self) -> None:
        peer = world.join(self.authority, "third", "peer")
        self.assertRefused(
            "failed_authentication", self.authority.sip_certificate, peer.identity,
            make_request(self.key, "third@nodes.example.org"), [], [],
        )  # fmt: skip
        self.assertEqual(self.last_line()[0], "refused")
        self.authority.nodes.revoke("second@nodes.example.org")
        self.assertRefused(
            "failed_authentication", self.authority.sip_certificate, self.member.identity, self.request(), [], []
        )

    def test_refused(self) -> None:
        """The node's own key, another node's name, no addresses, no request."""
        for token, request, addresses in (
            ("bad_CSR", self.request(self.member.key), []),
            ("username_not_available", self.request(name="other@nodes.example.org"), []),
            ("bad_CSR", self.request(), ["example.net"]),
            ("bad_CSR", b"", []),
        ):
            self.assertRefused(token, self.authority.sip_certificate, self.member.identity, request, addresses, [])


class KeepingTests(AuthorityTestCase):
    """The authority's files."""

    def test_opened_again(self) -> None:
        again = OverlayAuthority(self.path, OVERLAY, self.clock.seconds, HASHES)
        self.addCleanup(again.close)
        self.assertEqual(again.sip.root_certificate, self.authority.sip.root_certificate)
        self.assertEqual(stat.S_IMODE((self.path / "sip-ca.key").stat().st_mode), 0o600)

    def test_made_where_it_lacks(self) -> None:
        """Of an authority that is older, or whose making broke off."""
        first = self.authority.sip.root_certificate
        (self.path / "sip-ca.key").unlink()
        again = OverlayAuthority(self.path, OVERLAY, self.clock.seconds, HASHES)
        self.addCleanup(again.close)
        self.assertNotEqual(again.sip.root_certificate, first)

    def test_damaged(self) -> None:
        (self.path / "sip-ca.key").write_text("no key")
        self.assertRaises(AuthorityError, OverlayAuthority, self.path, OVERLAY, self.clock.seconds, HASHES)

    def test_moved(self) -> None:
        """Phones believe the authority at another node, too."""
        directory = Path(self.mktemp())
        archive = export_authority(self.authority, "open sesame")
        moved = import_authority(archive, "open sesame", directory, OVERLAY, self.clock.seconds, HASHES)
        self.addCleanup(moved.close)
        self.assertEqual(moved.sip.root_certificate, self.authority.sip.root_certificate)
        self.assertEqual(stat.S_IMODE((directory / "sip-ca.key").stat().st_mode), 0o600)


class ServerTests(ServedTestCase):
    """Over HTTPS, with the client that nodes have."""

    def setUp(self) -> None:
        super().setUp()
        self.key = generate_key()
        self.request = make_request(self.key, f"second@nodes.{OVERLAY}")

    async def test_registrar(self) -> None:
        """It has the address from which it asked, whatever kind that is, and private ones."""
        member = world.join(self.authority, "second")
        chain = await self.client(member=member).server_certificate(self.request, ["127.0.0.1", "8.8.8.8", "10.1.1.1"])
        own = loaded(chain)[0]
        self.assertEqual(chain[1], self.authority.sip.root_certificate)
        self.assertEqual(
            [shows(own, name) for name in (OVERLAY, "127.0.0.1", "8.8.8.8", "10.1.1.1")], [True, True, False, True]
        )

    async def test_no_registrar(self) -> None:
        peer = world.join(self.authority, "second", "peer")
        for client in (self.client(member=peer), self.client()):
            refused = await failure_of(client.server_certificate(self.request, []), Refused)
            self.assertEqual(refused.token, "failed_authentication")

    async def test_few(self) -> None:
        """Each is a line of the audit log; and nobody is kept from renewing as a node by them."""
        member = world.join(self.authority, "second")
        client = self.client(member=member)
        for _ in range(10):
            await client.server_certificate(self.request, [])
        await failure_of(client.server_certificate(self.request, []), Unavailable)
        await client.renew(make_request(member.key, f"second@nodes.{OVERLAY}"))

    async def test_not_the_enrollment_server(self) -> None:
        """A registrar cannot pass for the enrollment server by it, though it names the overlay (RFC 6940 §11.3)."""
        member = world.join(self.authority, "second")
        chain = await self.client(member=member).server_certificate(self.request, ["127.0.0.1"])
        self.authority.server_credentials = lambda _: (chain, self.key)  # type: ignore[method-assign]
        _, url = self.serve(self.authority)
        await failure_of(self.client(url).configuration(), Untrusted)

    async def test_not_a_client(self) -> None:
        """Nor does the enrollment server take its holder for a node."""
        member = world.join(self.authority, "second")
        chain = await self.client(member=member).server_certificate(self.request, ["127.0.0.1"])
        stranger = Member(self.key, chain[0])
        refused = await failure_of(self.client(member=stranger).revocations(""), Refused)
        self.assertEqual(refused.token, "failed_authentication")
