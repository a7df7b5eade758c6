from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP521R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as rsa_key
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.ids import NodeId
from p2psip.security.certificates import generate_key
from p2psip.security.identity import (
    ROLES,
    CertificateError,
    Identity,
    node_id_of_uri,
    reload_uri,
    valid_user_name,
)
from tests.security.credentials import NODE_A, NODE_B, OVERLAY, authority, certificate, odd_certificate

URI = x509.UniformResourceIdentifier
GOOD_URI = URI(reload_uri(NODE_A, OVERLAY))
GOOD_NAME = x509.RFC822Name("alice@example.org")


class IdentityTests(SynchronousTestCase):
    """What is read from a certificate, and what is refused."""

    def setUp(self) -> None:
        self.ca = authority()

    def refused(self, cause: str, der: bytes, length: int = 16) -> None:
        error = self.assertRaises(CertificateError, Identity.from_certificate, der, OVERLAY, length)
        self.assertEqual(error.cause, cause, str(error))

    def test_what_an_issued_certificate_says(self) -> None:
        """User name, Node-IDs, role, validity [6940-11.3-14, 6940-11.3-18]."""
        key = generate_key()
        der = certificate(self.ca, key, (NODE_A, NODE_B))
        identity = Identity.from_certificate(der, OVERLAY)
        self.assertEqual(identity.user_name, "alice@example.org")
        self.assertEqual(identity.node_ids, (NODE_A, NODE_B))
        self.assertEqual(identity.role, "peer")
        self.assertEqual(identity.public_key, key.public_key())
        self.assertEqual(identity.not_after - identity.not_before, 30 * 86400 + 3600)
        self.assertNotIn(der[:8].hex(), repr(identity))

    def test_overlay_and_destination_in_any_case(self) -> None:
        """RFC 6940 §14.15: hexadecimal digits; a reg-name is a host name."""
        uri = URI(reload_uri(NODE_A, OVERLAY).upper().replace("RELOAD", "reload"))
        identity = Identity.from_certificate(odd_certificate(self.ca, [uri, GOOD_NAME]), OVERLAY)
        self.assertEqual(identity.node_ids, (NODE_A,))
        self.assertEqual(identity.role, "")

    def test_twenty_bytes(self) -> None:
        """The length of Node-IDs is the overlay's."""
        node_id = NodeId(bytes(range(1, 21)))
        der = odd_certificate(self.ca, [URI(reload_uri(node_id, OVERLAY)), GOOD_NAME])
        self.assertEqual(Identity.from_certificate(der, OVERLAY, 20).node_ids, (node_id,))
        self.refused("node-id", der)

    def test_names_that_must_not_be(self) -> None:
        """One rfc822Name, reload: URIs, and no other identity [6940-11.3-22]."""
        for names in (
            [GOOD_URI],
            [GOOD_NAME],
            [GOOD_URI, GOOD_NAME, x509.RFC822Name("bob@example.org")],
            [GOOD_URI, GOOD_NAME, x509.DNSName("example.org")],
            [GOOD_URI, GOOD_NAME, x509.DirectoryName(x509.Name([]))],
            [GOOD_URI, GOOD_NAME, URI("https://example.org/")],
            [URI(f"reload://0110{NODE_A.hex()}@{OVERLAY}"), GOOD_NAME],
            [URI(f"reload://0110{NODE_A.hex()}@{OVERLAY}/01"), GOOD_NAME],
            [URI(f"reload://0110{NODE_A.hex()}@{OVERLAY}/?x"), GOOD_NAME],
        ):
            self.refused("san", odd_certificate(self.ca, names))
        self.refused("san", odd_certificate(self.ca, None))

    def test_destinations_that_must_not_be(self) -> None:
        """A Destination List with a single entry of type node_id [6940-11.3-18]."""
        a = NODE_A.hex()
        for destination in (
            a,
            f"0110{a[:-2]}",
            f"0110{a}00",
            f"0110{a}0110{a}",
            f"021110{a}",
            f"0110{a}1",
            "0110" + "00" * 16,
            "0110" + "ff" * 16,
        ):
            der = odd_certificate(self.ca, [URI(f"reload://{destination}@{OVERLAY}/"), GOOD_NAME])
            self.refused("node-id", der)
        self.refused("node-id", odd_certificate(self.ca, [GOOD_URI, GOOD_URI, GOOD_NAME]))

    def test_another_overlay(self) -> None:
        der = odd_certificate(self.ca, [URI(reload_uri(NODE_A, "example.net")), GOOD_NAME])
        self.refused("overlay", der)

    def test_subject(self) -> None:
        """The subject is empty [6940-11.3-23], and so the names are critical (RFC 5280 §4.1.2.6)."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice")])
        self.refused("subject", odd_certificate(self.ca, [GOOD_URI, GOOD_NAME], subject=subject))
        self.refused("san", odd_certificate(self.ca, [GOOD_URI, GOOD_NAME], critical=False))

    def test_user_names(self) -> None:
        """No NUL, no control characters, no blanks [6940-11.3-20]."""
        for name in (
            "alice\0@example.org",
            "alice@example.org\0.evil.net",
            "al\nice@example.org",
            "a b@c",
            "\x7f@c",
            "alice",
            "@example.org",
            "alice@",
            "é@example.org",
            f"{'a' * 254}@c",
        ):
            error = self.assertRaises(CertificateError, valid_user_name, name)
            self.assertEqual(error.cause, "user-name")
        for name in ("alice@example.org", "a+b@[::1]", "alice@dht.example.net"):
            self.assertEqual(valid_user_name(name), name)

    def test_embedded_nul(self) -> None:
        """A NUL within a certificate's user name is refused, not a place to cut [6940-11.3-20]."""
        good = odd_certificate(self.ca, [GOOD_URI, x509.RFC822Name("alice.mallory@example.org")])
        self.refused("user-name", good.replace(b"alice.mallory", b"alice\0mallory"))

    def test_keys(self) -> None:
        """Weak and unheard-of keys are refused before they cost anything."""
        for key in (generate_private_key(SECP521R1()), rsa_key(65537, 1024)):
            self.refused("key", odd_certificate(self.ca, [GOOD_URI, GOOD_NAME], key=key))  # type: ignore[arg-type]
        key = generate_key("rsa")
        Identity.from_certificate(odd_certificate(self.ca, [GOOD_URI, GOOD_NAME], key=key), OVERLAY)

    def test_extensions(self) -> None:
        """RFC 5280 §4.2: a critical extension that is not understood."""
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
        names = [GOOD_URI, GOOD_NAME]
        self.refused("extension", odd_certificate(self.ca, names, extra=[(unknown, True)]))
        Identity.from_certificate(odd_certificate(self.ca, names, extra=[(unknown, False)]), OVERLAY)

    def test_roles(self) -> None:
        def policies(*roles: str) -> bytes:
            information = [x509.PolicyInformation(x509.ObjectIdentifier(oid), None) for oid in roles]
            extra = [(x509.CertificatePolicies(information), False)]
            return odd_certificate(self.ca, [GOOD_URI, GOOD_NAME], extra=extra)

        foreign = "2.23.140.1.2.1"
        self.assertEqual(Identity.from_certificate(policies(ROLES["user"], foreign), OVERLAY).role, "user")
        self.assertEqual(Identity.from_certificate(policies(foreign), OVERLAY).role, "")
        self.refused("role", policies(ROLES["peer"], ROLES["registrar"]))

    def test_size(self) -> None:
        self.refused("too-large", bytes(8193))
        self.refused("malformed", b"")

    def test_anything_else(self) -> None:
        """Mutated certificates raise a CertificateError, or are read: nothing else."""
        good = bytearray(certificate(self.ca, generate_key()))

        @given(st.lists(st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255)), max_size=4))
        def check(changes: list[tuple[int, int]]) -> None:
            mutated = bytearray(good)
            for at, byte in changes:
                mutated[at] = byte
            try:
                Identity.from_certificate(bytes(mutated), OVERLAY)
            except CertificateError as error:
                self.assertTrue(error.cause)

        check()

    def test_uri_both_ways(self) -> None:
        self.assertEqual(reload_uri(NODE_A, OVERLAY), f"reload://0110{NODE_A.hex()}@overlay.example.org/")
        self.assertEqual(node_id_of_uri(reload_uri(NODE_A, OVERLAY), OVERLAY), NODE_A)
