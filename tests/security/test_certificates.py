from __future__ import annotations

import re
import ssl
import subprocess

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.security.certificates import (
    certificate_pem,
    certificates_of_pem,
    generate_key,
    load_private_key,
    make_authority,
    make_request,
    make_self_signed,
    private_key_pem,
    read_request,
)
from p2psip.security.identity import ROLES, CertificateError, Identity
from tests.security.credentials import DAY, NODE_A, NODE_B, NOW, OVERLAY, authority, certificate


def openssl(*arguments: str, data: bytes) -> str:
    result = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=True)
    return result.stdout.decode()


class AuthorityTests(SynchronousTestCase):
    """The root and what it issues."""

    def setUp(self) -> None:
        self.ca = authority()

    def test_names_as_openssl_prints_them(self) -> None:
        """SAN, subject and key usages by an independent reader [6940-11.3-14, 6940-11.3-18, 6940-11.3-23]."""
        text = openssl(
            "x509",
            "-inform",
            "der",
            "-noout",
            "-text",
            data=certificate(self.ca, generate_key(), (NODE_A, NODE_B)),
        )
        self.assertRegex(text, r"Subject:\s*\n")
        names = re.search(r"X509v3 Subject Alternative Name: critical\s*\n\s*(.*)\n", text)
        assert names is not None
        self.assertEqual(
            names[1].split(", "),
            [
                f"URI:reload://0110{NODE_A.hex()}@overlay.example.org/",
                f"URI:reload://0110{NODE_B.hex()}@overlay.example.org/",
                "email:alice@example.org",
            ],
        )
        self.assertIn("TLS Web Server Authentication, TLS Web Client Authentication", text)
        self.assertIn(f"Policy: {ROLES['peer']}", text)

    def test_openssl_accepts_the_chain(self) -> None:
        """With the strict checks of RFC 5280, as client and as server, in both key types."""
        root = self.mktemp()
        with open(root, "wb") as file:
            file.write(certificate_pem(self.ca.certificate))
        for key_type in ("ec", "rsa"):
            leaf = self.mktemp()
            with open(leaf, "wb") as file:
                file.write(certificate_pem(certificate(self.ca, generate_key(key_type))))
            for purpose in ("sslclient", "sslserver"):
                at = ["-attime", str(int(NOW)), "-x509_strict", "-purpose", purpose, "-CAfile", root]
                self.assertIn("OK", openssl("verify", *at, leaf, data=b""))

    def test_the_root(self) -> None:
        """An authority by BasicConstraints and key usage, for no further authorities [6940-13.3-3]."""
        root = x509.load_der_x509_certificate(self.ca.certificate)
        constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertEqual(
            (constraints.critical, constraints.value.ca, constraints.value.path_length), (True, True, 0)
        )
        usage = root.extensions.get_extension_for_class(x509.KeyUsage).value
        self.assertTrue(usage.key_cert_sign)
        self.assertFalse(usage.digital_signature)
        root.verify_directly_issued_by(root)

    def test_long_overlay_names(self) -> None:
        """The root's common name holds 64 characters at most (RFC 5280, ub-common-name)."""
        authority("a" * 60 + ".example.org")

    def test_validity(self) -> None:
        """It begins before now, since clocks differ, and ends with the authority at the latest."""
        ca = make_authority(OVERLAY, generate_key(), NOW, 10 * DAY)
        identity = Identity.from_certificate(certificate(ca, generate_key(), lifetime=DAY), OVERLAY)
        self.assertEqual((identity.not_before, identity.not_after), (NOW - 3600, NOW + DAY))
        identity = Identity.from_certificate(certificate(ca, generate_key(), lifetime=99 * DAY), OVERLAY)
        self.assertEqual(identity.not_after, NOW + 10 * DAY)

    def test_bad_user_name(self) -> None:
        """[6940-11.3-20]"""
        self.assertRaises(
            CertificateError,
            self.ca.issue,
            generate_key().public_key(),
            overlay=OVERLAY,
            user_name="alice\0@example.org",
            node_ids=[NODE_A],
            role="peer",
            now=NOW,
            lifetime=DAY,
        )

    def test_server_certificate(self) -> None:
        """That of the HTTPS server has host names, and is no node's."""
        der = self.ca.issue_server(
            generate_key().public_key(),
            hosts=["overlay.example.org", "127.0.0.2", "::1"],
            now=NOW,
            lifetime=DAY,
        )
        names = x509.load_der_x509_certificate(der).extensions
        san = names.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(san.get_values_for_type(x509.DNSName), ["overlay.example.org"])
        self.assertEqual(list(map(str, san.get_values_for_type(x509.IPAddress))), ["127.0.0.2", "::1"])
        usages = names.get_extension_for_class(x509.ExtendedKeyUsage).value
        self.assertEqual(list(usages), [ExtendedKeyUsageOID.SERVER_AUTH])
        self.assertRaises(CertificateError, Identity.from_certificate, der, OVERLAY)

    def test_secrets_are_not_shown(self) -> None:
        self.assertNotIn("PrivateKey", repr(self.ca))


class RequestTests(SynchronousTestCase):
    """PKCS#10 requests."""

    def refused(self, der: bytes) -> None:
        error = self.assertRaises(CertificateError, read_request, der)
        self.assertIn(error.cause, ("request", "key", "user-name"))

    def test_both_ways(self) -> None:
        for key_type in ("ec", "rsa"):
            key = generate_key(key_type)
            request = read_request(make_request(key, "alice@example.org"))
            self.assertEqual(request.user_name, "alice@example.org")
            self.assertEqual(request.public_key, key.public_key())

    def test_by_openssl(self) -> None:
        """A request as the usual tools make it: the user name as emailAddress."""
        pem = private_key_pem(generate_key())
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(pem)
        subject = ["-subj", "/CN=Bob/emailAddress=bob@example.org"]
        result = subprocess.run(
            ["openssl", "req", "-new", "-key", path, *subject, "-outform", "der"],
            capture_output=True,
            check=True,
        )
        self.assertEqual(read_request(result.stdout).user_name, "bob@example.org")

    def test_without_a_name(self) -> None:
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        der = builder.sign(generate_key(), SHA256()).public_bytes(Encoding.DER)
        self.assertEqual(read_request(der).user_name, "")

    def test_proof_of_possession(self) -> None:
        """A request for another's key is refused."""
        der = bytearray(make_request(generate_key(), "alice@example.org"))
        der[-1] ^= 1
        self.refused(bytes(der))

    def test_what_must_not_be(self) -> None:
        def made(names: list[x509.GeneralName] | None, emails: list[str], key: object = None) -> bytes:
            attributes = [x509.NameAttribute(NameOID.EMAIL_ADDRESS, email) for email in emails]
            builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
            if names is not None:
                builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
            if key is None:
                return builder.sign(generate_key(), SHA256()).public_bytes(Encoding.DER)
            return builder.sign(key, None).public_bytes(Encoding.DER)  # type: ignore[arg-type]

        name = x509.RFC822Name("alice@example.org")
        self.refused(made([name, x509.RFC822Name("bob@example.org")], []))
        self.refused(made(None, ["alice@example.org", "bob@example.org"]))
        self.refused(made(None, ["alice"]))
        self.refused(made([name], [], Ed25519PrivateKey.generate()))
        self.refused(b"")
        self.refused(bytes(8193))

    def test_names_of_no_known_kind(self) -> None:
        """An x400Address in the place of the user name."""
        der = make_request(generate_key(), "alice@example.org")
        name = b"\x81\x11alice@example.org"
        self.assertIn(name, der)
        self.refused(der.replace(name, b"\xa3" + name[1:]))

    def test_anything_else(self) -> None:
        """Mutated requests raise a CertificateError, or are read: nothing else."""
        good = make_request(generate_key(), "alice@example.org")

        @given(st.integers(0, len(good) - 1), st.binary(max_size=4), st.integers(0, 4))
        def check(at: int, put: bytes, skip: int) -> None:
            try:
                read_request(good[:at] + put + good[at + skip :])
            except CertificateError as error:
                self.assertTrue(error.cause)

        check()


class KeyTests(SynchronousTestCase):
    """Keys and certificates as PEM."""

    def test_keys_both_ways(self) -> None:
        for key_type in ("ec", "rsa"):
            key = generate_key(key_type)
            self.assertEqual(load_private_key(private_key_pem(key)).public_key(), key.public_key())
        self.assertRaises(ValueError, generate_key, "dsa")

    def test_what_is_no_key(self) -> None:
        ed25519 = Ed25519PrivateKey.generate()
        pem = ed25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
        for text in (b"", b"nothing", pem, encrypted):
            self.assertRaises(CertificateError, load_private_key, text)

    def test_certificates_both_ways(self) -> None:
        ca = authority()
        leaf = certificate(ca, generate_key())
        pem = certificate_pem(leaf, ca.certificate)
        self.assertEqual(certificates_of_pem(pem), (leaf, ca.certificate))
        self.assertEqual(ssl.PEM_cert_to_DER_cert(certificate_pem(leaf).decode()), leaf)
        self.assertRaises(CertificateError, certificates_of_pem, b"")


class SelfSignedTests(SynchronousTestCase):
    """Node-IDs made of the key (RFC 6940 §11.3.1)."""

    def test_node_ids(self) -> None:
        """The high-order bits of the digest of the SubjectPublicKeyInfo [6940-11.3.1-3, 6940-11.1-12]."""
        from hashlib import sha1, sha256

        key = generate_key()
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(private_key_pem(key))
        info = subprocess.run(
            ["openssl", "pkey", "-in", path, "-pubout", "-outform", "der"], capture_output=True, check=True
        ).stdout
        for digest, function in (("sha1", sha1), ("sha256", sha256)):
            for count, inputs in ((1, [info]), (2, [b"\0\0\0\1" + info, b"\0\0\0\2" + info])):
                der = make_self_signed(
                    key,
                    overlay=OVERLAY,
                    user_name="alice@example.org",
                    digest=digest,
                    now=NOW,
                    lifetime=DAY,
                    count=count,
                )
                expected = tuple(function(data).digest()[:16] for data in inputs)
                self.assertEqual(Identity.from_certificate(der, OVERLAY).node_ids, expected)
