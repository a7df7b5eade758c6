from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.ids import NodeId
from p2psip.security.certificates import Authority, generate_key, make_authority, make_self_signed
from p2psip.security.identity import CertificateError, Identity, has_own_node_ids, reload_uri
from p2psip.security.trust import Trust
from tests.security.credentials import (
    DAY,
    NODE_A,
    NODE_B,
    NOW,
    OVERLAY,
    authority,
    certificate,
    odd_certificate,
    self_certified,
)


def issuer(
    above: Authority, *, is_ca: bool | None = True, lifetime: float = 30 * DAY, key_cert_sign: bool = True
) -> Authority:
    """An authority between `above` and a node; `is_ca` None leaves BasicConstraints out."""
    key = generate_key()
    parent = x509.load_der_x509_certificate(above.certificate)
    start = datetime.fromtimestamp(NOW - DAY / 2, UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "between")]))
        .issuer_name(parent.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=lifetime))
        .add_extension(
            x509.KeyUsage(True, False, False, False, False, key_cert_sign, False, False, False), True
        )
    )
    if is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(is_ca, None), True)
    return Authority(builder.sign(above.private_key, SHA256()).public_bytes(Encoding.DER), key)


def root_above() -> Authority:
    """A root that allows authorities below it, which `make_authority` does not."""
    key = generate_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.fromtimestamp(NOW - DAY, UTC))
        .not_valid_after(datetime.fromtimestamp(NOW + 3650 * DAY, UTC))
        .add_extension(x509.BasicConstraints(True, None), True)
    )
    return Authority(builder.sign(key, SHA256()).public_bytes(Encoding.DER), key)


class TrustTests(SynchronousTestCase):
    """Which certificates an overlay believes, and for how long."""

    def setUp(self) -> None:
        self.time = NOW
        self.ca = authority()
        self.leaf = certificate(self.ca, generate_key())

    def trust(
        self, *roots: bytes, bad: tuple[NodeId, ...] = (), self_signed: str = "", cached: int = 99
    ) -> Trust:
        return Trust(
            OVERLAY,
            roots or (self.ca.certificate,),
            bad,
            16,
            lambda: self.time,
            self_signed=self_signed,
            max_cached=cached,
        )

    def refused(self, cause: str, trust: Trust, der: bytes, intermediates: tuple[bytes, ...] = ()) -> None:
        error = self.assertRaises(CertificateError, trust.identify, der, intermediates)
        self.assertEqual(error.cause, cause, str(error))

    def test_chain_to_a_root(self) -> None:
        """[6940-11.3-27, 6940-13.3-3]"""
        identity = self.trust().identify(self.leaf)
        self.assertEqual(identity.node_ids, (NODE_A,))
        self.refused("untrusted", self.trust(authority().certificate), self.leaf)

    def test_one_of_several_roots(self) -> None:
        """An old root and a new one of the same name."""
        trust = self.trust(authority().certificate, self.ca.certificate)
        self.assertEqual(trust.identify(self.leaf).node_ids, (NODE_A,))

    def test_no_root(self) -> None:
        trust = Trust(OVERLAY, (), (), 16, lambda: NOW)
        self.refused("untrusted", trust, self.leaf)

    def test_forged_signature(self) -> None:
        forged = bytearray(self.leaf)
        forged[-1] ^= 1
        self.refused("untrusted", self.trust(), bytes(forged))

    def test_validity(self) -> None:
        """The time is compared to the validity period, for remembered certificates too [6940-7.1-1]."""
        trust = self.trust()
        self.time = NOW - 3601
        self.refused("not-yet-valid", trust, self.leaf)
        self.time = NOW
        trust.identify(self.leaf)
        self.time = NOW + 30 * DAY
        trust.identify(self.leaf)
        self.time = NOW + 30 * DAY + 1
        self.refused("expired", trust, self.leaf)

    def test_intermediate(self) -> None:
        """Issuers between the certificate and a root come beside it, among others that do not matter."""
        root = root_above()
        between = issuer(root)
        leaf = certificate(between, generate_key())
        bucket = (b"garbage", self.leaf, leaf, between.certificate)
        self.assertEqual(self.trust(root.certificate).identify(leaf, bucket).node_ids, (NODE_A,))
        self.refused("untrusted", self.trust(root.certificate), leaf)

    def test_chain_expires_with_its_issuer(self) -> None:
        """What is remembered is believed no longer than the whole chain is valid."""
        root = root_above()
        between = issuer(root, lifetime=10 * DAY)
        key = generate_key()
        leaf = odd_certificate(between, [x509.RFC822Name("a@b"), _uri(NODE_A)], key=key)
        trust = self.trust(root.certificate)
        trust.identify(leaf, (between.certificate,))
        self.time = NOW + 10 * DAY + 1
        self.refused("untrusted", trust, leaf, (between.certificate,))

    def test_issuers_that_are_none(self) -> None:
        """BasicConstraints and key usage of whoever issues [6940-11.3-27]."""
        root = root_above()
        for between in (
            issuer(root, is_ca=False),
            issuer(root, is_ca=None),
            issuer(root, key_cert_sign=False),
        ):
            leaf = certificate(between, generate_key())
            self.refused("untrusted", self.trust(root.certificate), leaf, (between.certificate,))

    def test_node_does_not_issue(self) -> None:
        """A member cannot make further members of itself."""
        key = generate_key()
        member = Authority(certificate(self.ca, key), key)
        leaf = odd_certificate(member, [x509.RFC822Name("a@b"), _uri(NODE_B)], ca_subject=x509.Name([]))
        self.refused("untrusted", self.trust(), leaf, (member.certificate,))

    def test_path_length(self) -> None:
        """Our own authorities have no authorities below them."""
        between = issuer(self.ca)
        leaf = certificate(between, generate_key())
        self.refused("untrusted", self.trust(), leaf, (between.certificate,))

    def test_bad_node(self) -> None:
        """[6940-11.1-19]"""
        self.refused("bad-node", self.trust(bad=(NODE_A,)), self.leaf)
        both = certificate(self.ca, generate_key(), (NODE_B, NODE_A))
        self.refused("bad-node", self.trust(bad=(NODE_A,)), both)
        self.trust(bad=(NODE_B,)).identify(self.leaf)

    def test_remembered(self) -> None:
        """By its hash, until it is refused by a new configuration [6940-11.1-19]."""
        trust = self.trust()
        identity = trust.identify(self.leaf)
        self.assertIs(trust.identify(self.leaf), identity)
        self.assertIs(trust.recall(identity.fingerprint), identity)
        trust.update([self.ca.certificate, authority().certificate])
        self.assertIs(trust.recall(identity.fingerprint), identity)
        trust.update([self.ca.certificate], [NODE_A])
        self.assertIs(trust.recall(identity.fingerprint), None)
        self.refused("bad-node", trust, self.leaf)

    def test_root_withdrawn(self) -> None:
        trust = self.trust()
        identity = trust.identify(self.leaf)
        trust.update([authority().certificate])
        self.assertIs(trust.recall(identity.fingerprint), None)
        self.refused("untrusted", trust, self.leaf)

    def test_malformed_root_changes_nothing(self) -> None:
        trust = self.trust()
        self.assertRaises(CertificateError, trust.update, [b"bad cert"], [NODE_A])
        trust.identify(self.leaf)

    def test_any_bytes(self) -> None:
        """Mutated roots, issuers and certificates raise a CertificateError or change nothing."""
        root = root_above()
        between = issuer(root)
        chain = [certificate(between, generate_key()), between.certificate, root.certificate]

        @given(st.integers(0, 2), st.integers(0, 1000), st.binary(max_size=3), st.integers(0, 3))
        def check(which: int, at: int, put: bytes, skip: int) -> None:
            mutated = list(chain)
            mutated[which] = chain[which][:at] + put + chain[which][at + skip :]
            try:
                self.trust(mutated[2]).identify(mutated[0], mutated[:2])
            except CertificateError as error:
                self.assertTrue(error.cause)

        check()

    def test_bounded(self) -> None:
        """The certificate used least recently is forgotten first."""
        trust = self.trust(cached=2)
        leaves = [certificate(self.ca, generate_key()) for _ in range(3)]
        first, second = (trust.identify(leaf).fingerprint for leaf in leaves[:2])
        trust.identify(leaves[0])
        trust.identify(leaves[2])
        self.assertIsNotNone(trust.recall(first))
        self.assertIsNone(trust.recall(second))

    def test_end_entity_key_usage(self) -> None:
        usage = x509.KeyUsage(False, False, True, False, False, False, False, False, False)
        names = [x509.RFC822Name("a@b"), _uri(NODE_A)]
        self.refused("untrusted", self.trust(), odd_certificate(self.ca, names, extra=[(usage, True)]))

    def test_other_implementations_authorities(self) -> None:
        """A certificate with nothing but its names is enough."""
        der = odd_certificate(self.ca, [x509.RFC822Name("a@b"), _uri(NODE_A)])
        self.assertEqual(self.trust().identify(der).user_name, "a@b")


class SelfSignedTests(SynchronousTestCase):
    """Certificates that nodes make themselves, where the overlay permits that (RFC 6940 §11.3.1)."""

    def setUp(self) -> None:
        self.key = generate_key()

    def trust(self, self_signed: str) -> Trust:
        return Trust(OVERLAY, (), (), 16, lambda: NOW, self_signed=self_signed)

    def made(self, digest: str = "sha256", count: int = 1) -> bytes:
        return make_self_signed(
            self.key,
            overlay=OVERLAY,
            user_name="alice@example.org",
            digest=digest,
            now=NOW,
            lifetime=DAY,
            count=count,
        )

    def test_permitted(self) -> None:
        """[6940-11.1-12, 6940-11.3.1-2, 6940-11.3.1-3]"""
        for digest in ("sha1", "sha256"):
            for count in (1, 3):
                identity = self.trust(digest).identify(self.made(digest, count))
                self.assertEqual(len(identity.node_ids), count)
                self.assertTrue(has_own_node_ids(identity, digest))
                self.assertFalse(has_own_node_ids(identity, "sha1" if digest == "sha256" else "sha256"))

    def test_not_permitted(self) -> None:
        self.assertRaises(CertificateError, self.trust("").identify, self.made())

    def test_other_digest(self) -> None:
        error = self.assertRaises(CertificateError, self.trust("sha1").identify, self.made("sha256"))
        self.assertEqual(error.cause, "node-id")

    def test_stolen_node_id(self) -> None:
        """Node-ID and key must match [6940-11.3.1-4]."""
        own = Authority(self.made(), self.key)
        names = [x509.RFC822Name("a@b"), _uri(NODE_A)]
        der = odd_certificate(own, names, key=self.key, ca_subject=x509.Name([]))
        error = self.assertRaises(CertificateError, self.trust("sha256").identify, der)
        self.assertEqual(error.cause, "node-id")

    def test_forged(self) -> None:
        """By either digest, also where nothing else is odd. [6940-11.3.1-4]"""
        for digest in ("sha1", "sha256"):
            trust = self.trust(digest)
            trust.identify(self_certified(self.key, digest))
            error = self.assertRaises(CertificateError, trust.identify, self_certified(self.key, digest, NODE_A))
            self.assertEqual(error.cause, "node-id")

    def test_role_by_its_own_word(self) -> None:
        """Nobody makes itself a registrar."""
        der = self_certified(self.key, "sha256", role="registrar")
        self.assertEqual(Identity.from_certificate(der, OVERLAY).role, "registrar")
        self.assertEqual(self.trust("sha256").identify(der).role, "")

    def test_not_signed_with_its_key(self) -> None:
        forged = bytearray(self.made())
        forged[-1] ^= 1
        error = self.assertRaises(CertificateError, self.trust("sha256").identify, bytes(forged))
        self.assertEqual(error.cause, "untrusted")

    def test_withdrawn(self) -> None:
        trust = self.trust("sha256")
        identity = trust.identify(self.made())
        trust.update([])
        self.assertIsNone(trust.recall(identity.fingerprint))

    def test_roots_beside(self) -> None:
        """A self-signed certificate is no root: `make_authority`'s stay what they are."""
        ca = make_authority(OVERLAY, generate_key(), NOW, DAY)
        trust = Trust(OVERLAY, [ca.certificate], (), 16, lambda: NOW, self_signed="sha256")
        trust.identify(self.made())
        trust.identify(certificate(ca, generate_key()))


def _uri(node_id: NodeId) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(reload_uri(node_id, OVERLAY))
