"""What the authority certifies, and what it refuses."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from p2psip.enrollment.accounts import NewUser
from p2psip.enrollment.archive import export_authority, import_authority
from p2psip.enrollment.authority import DAY, AuthorityError, OverlayAuthority, Refusal
from p2psip.enrollment.tokens import key_fingerprint
from p2psip.security.certificates import PrivateKey, generate_key, make_request
from p2psip.security.identity import Identity

from . import world
from .world import HASHES, OVERLAY, Member

NOW = 1_800_000_000.0


def named(key: PrivateKey, *names: str) -> bytes:
    """A request that names its users by emailAddress, as `openssl req` does."""
    subject = x509.Name([x509.NameAttribute(NameOID.EMAIL_ADDRESS, name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


class AuthorityTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.path = Path(self.mktemp())
        self.authority = OverlayAuthority.create(self.path, OVERLAY, self.clock.seconds, hashes=HASHES)
        self.addCleanup(self.authority.close)
        self.trust = world.trust(self.authority)

    def assertRefused(self, token: str, call: object, *arguments: object) -> None:
        self.assertEqual(self.failureResultOf_(call, *arguments).token, token)

    def failureResultOf_(self, call: object, *arguments: object) -> Refusal:
        refusal: Refusal = self.assertRaises(Refusal, call, *arguments)
        return refusal

    def last_line(self) -> tuple[object, object, object]:
        (line,) = self.authority.database.audit_log(1)
        return line["event"], line["subject"], line["detail"]


class DirectoryTests(AuthorityTestCase):
    def test_files(self) -> None:
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in self.path.iterdir()}
        for name in ("ca.key", "signer.key", "kind-signer.key", "server.key", "secrets.key"):
            self.assertEqual(modes[name], 0o600)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o700)

    def test_opened_again(self) -> None:
        world.add_user(self.authority)
        again = OverlayAuthority(self.path, OVERLAY, self.clock.seconds)
        self.addCleanup(again.close)
        self.assertEqual(again.root_certificate, self.authority.root_certificate)
        self.assertEqual(
            again.accounts.device_credentials("alice"), self.authority.accounts.device_credentials("alice")
        )

    def test_never_replaced(self) -> None:
        self.assertRaises(AuthorityError, OverlayAuthority.create, self.path, OVERLAY, self.clock.seconds)

    def test_interrupted(self) -> None:
        """Wherever its making broke off, before ca.key there is no authority, and it can be made."""
        order = ("signer.crt", "signer.key", "kind-signer.crt", "server.key", "secrets.key", "ca.crt")
        for kept in range(len(order) + 1):
            path = Path(self.mktemp())
            path.mkdir()
            for name in order[:kept]:
                (path / name).write_bytes((self.path / name).read_bytes())
            self.assertRaises(AuthorityError, OverlayAuthority, path, OVERLAY, self.clock.seconds)
            made = OverlayAuthority.create(path, OVERLAY, self.clock.seconds, hashes=HASHES)
            self.addCleanup(made.close)
            certificate = made.enroll_founder("first", generate_key())
            self.assertEqual(world.trust(made).identify(certificate).role, "registrar")
            for signer in (made.configuration_signer(), made.kind_signer()):
                world.trust(made).identify(signer.identity.certificate)

    def test_damaged(self) -> None:
        (self.path / "secrets.key").write_bytes(b"not a key")
        error = self.assertRaises(AuthorityError, OverlayAuthority, self.path, OVERLAY, self.clock.seconds)
        self.assertIn(str(self.path), str(error))

    def test_database_elsewhere(self) -> None:
        elsewhere = Path(self.mktemp()).absolute()
        (self.path / "accounts.url").write_text(f"sqlite:///{elsewhere}\n")
        authority = OverlayAuthority(self.path, OVERLAY, self.clock.seconds, HASHES)
        self.addCleanup(authority.close)
        world.add_user(authority)
        self.assertTrue(elsewhere.exists())
        self.assertFalse(self.authority.accounts.exists("alice"))
        (self.path / "accounts.url").write_text("nonsense")
        self.assertRaises(AuthorityError, OverlayAuthority, self.path, OVERLAY, self.clock.seconds)

    def test_signers(self) -> None:
        """Each is a member with a Node-ID of its own, and outlives the documents."""
        one, other = self.authority.configuration_signer(), self.authority.kind_signer()
        self.assertNotEqual(one.node_id, other.node_id)
        self.clock.advance(9 * 365 * DAY)
        self.assertEqual(self.trust.identify(one.identity.certificate).node_ids, (one.node_id,))

    def test_rsa(self) -> None:
        authority = world.make(self.mktemp(), NOW, "rsa")
        self.addCleanup(authority.close)
        self.assertIsInstance(authority.server_credentials([])[1], RSAPrivateKey)
        world.trust(authority).identify(authority.configuration_signer().identity.certificate)

    def test_server_certificate(self) -> None:
        """It matches the overlay's name. [6940-11.3-4]"""
        (own, root), key = self.authority.server_credentials(["192.0.2.1", "::1", OVERLAY, "192.0.2.1"])
        certificate = x509.load_der_x509_certificate(own)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), [OVERLAY])
        self.assertEqual([str(a) for a in names.get_values_for_type(x509.IPAddress)], ["192.0.2.1", "::1"])
        certificate.verify_directly_issued_by(x509.load_der_x509_certificate(root))
        token = self.authority.invite("second", "peer", 60, ["https://192.0.2.1:8443"])
        self.assertEqual(token.server_key, key_fingerprint(key.public_key()))
        self.assertEqual(token.urls, ("https://192.0.2.1:8443",))


class EnrollTests(AuthorityTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.key = generate_key()
        self.authority.accounts.add(NewUser("alice", password="right", node_quota=2))

    def request(self, name: str = "alice@example.org") -> bytes:
        return make_request(self.key, name)

    def enroll(self, *arguments: object) -> Identity:
        return self.trust.identify(self.authority.enroll(*arguments))  # type: ignore[arg-type]

    def test_account(self) -> None:
        identity = self.enroll("alice", "right", 1, self.request(), "192.0.2.7")
        self.assertEqual((identity.user_name, identity.role), ("alice@example.org", "peer"))
        self.assertEqual(identity.not_after, NOW + 30 * DAY)
        self.assertEqual(self.last_line(), ("enrolled", "alice@example.org", identity.node_ids[0].hex()))

    def test_form(self) -> None:
        """As openssl sees it. [6940-11.3-14] [6940-11.3-18] [6940-11.3-22] [6940-11.3-23]"""
        der = self.authority.enroll("alice", "right", 2, self.request())
        command = ["openssl", "x509", "-inform", "DER", "-noout", "-text"]
        shown = subprocess.run(command, input=der, capture_output=True, check=True)
        lines = [line.strip() for line in shown.stdout.decode().splitlines()]
        self.assertIn("Subject:", lines)
        names = lines[lines.index("X509v3 Subject Alternative Name: critical") + 1].split(", ")
        self.assertEqual(len(names), 3)
        for name in names[:2]:
            self.assertRegex(name, r"\AURI:reload://0110[0-9a-f]{32}@example\.org/\Z")
        self.assertEqual(names[2], "email:alice@example.org")

    def test_form_of_names(self) -> None:
        """In SubjectAltName, in emailAddress, or none at all: the server's to set."""
        for request in (
            self.request(),
            named(self.key, "alice@example.org"),
            named(self.key),
        ):
            self.assertEqual(self.enroll("alice", "right", 1, request).user_name, "alice@example.org")

    def test_invited(self) -> None:
        """[6940-13.3-2]"""
        token = self.authority.invite("second", "registrar", 60, ["https://h"])
        request = self.request("second@nodes.example.org")
        first = self.enroll("second", token.password, 1, request)
        self.assertEqual((first.user_name, first.role), ("second@nodes.example.org", "registrar"))
        self.assertEqual(self.enroll("second", token.password, 1, request).node_ids, first.node_ids)
        other = make_request(generate_key(), "second@nodes.example.org")
        self.assertRefused("failed_authentication", self.authority.enroll, "second", token.password, 1, other)
        self.assertRefused("Node-IDs_not_available", self.authority.enroll, "second", token.password, 2, request)
        self.clock.advance(60)
        self.assertRefused("failed_authentication", self.authority.enroll, "second", token.password, 1, request)

    def test_refused_request_redeems_nothing(self) -> None:
        """A token spoilt by a bad request would be a token lost."""
        token = self.authority.invite("second", "peer", 60, ["https://h"])
        other = make_request(generate_key(), "third@nodes.example.org")
        self.assertRefused("username_not_available", self.authority.enroll, "second", token.password, 1, other)
        self.enroll("second", token.password, 1, self.request("second@nodes.example.org"))

    def test_wrong_password(self) -> None:
        """[6940-11.3-12] [6940-11.3-25]"""
        for name, password in (
            ("alice", "wrong"),
            ("alice", ""),
            ("bob", "right"),
            ("", ""),
            ("a\0", "right"),
        ):
            self.assertRefused("failed_authentication", self.authority.enroll, name, password, 1, self.request())
        self.assertEqual(self.last_line()[0], "refused")

    def test_password_first(self) -> None:
        """Without it nobody learns what else would be wrong. [6940-11.3-17]"""
        self.assertRefused("failed_authentication", self.authority.enroll, "alice", "wrong", 99, b"garbage")

    def test_taken_name(self) -> None:
        """[6940-11.3-20] [6940-11.3-25] [6940-13.3-1]"""
        for name in ("bob@example.org", "alice@nodes.example.org", "alice@example.com", "Alice@example.org"):
            self.assertRefused("username_not_available", self.authority.enroll, "alice", "right", 1, self.request(name))

    def test_too_many(self) -> None:
        """[6940-11.3-25] [6940-13.6.2-1]"""
        self.enroll("alice", "right", 2, self.request())
        other = make_request(generate_key(), "alice@example.org")
        for count, request in ((3, self.request()), (0, self.request()), (-1, self.request()), (1, other)):
            self.assertRefused("Node-IDs_not_available", self.authority.enroll, "alice", "right", count, request)
        self.authority.accounts.set_node_quota("alice", 1000)
        self.assertRefused("Node-IDs_not_available", self.authority.enroll, "alice", "right", 17, self.request())

    def test_no_right_to_nodes(self) -> None:
        self.authority.accounts.set_node_quota("alice", 0)
        self.assertRefused("Node-IDs_not_available", self.authority.enroll, "alice", "right", 1, self.request())

    def test_bad_requests(self) -> None:
        """[6940-11.3-25]"""
        good = self.request()
        for csr in (
            b"",
            b"garbage",
            good[:-1],
            good[:-1] + bytes([good[-1] ^ 1]),
            bytes(10000),
            named(self.key, "alice@example.org", "bob@example.org"),
            named(self.key, "alice and bob"),
        ):
            self.assertRefused("bad_CSR", self.authority.enroll, "alice", "right", 1, csr)

    def test_removed_account(self) -> None:
        identity = self.enroll("alice", "right", 1, self.request())
        self.assertEqual(self.authority.accounts.remove("alice"), list(identity.node_ids))
        self.assertRefused("failed_authentication", self.authority.enroll, "alice", "right", 1, self.request())
        self.assertRefused("failed_authentication", self.authority.renew, identity, self.request())


class RenewTests(AuthorityTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.node = world.join(self.authority, "second", "peer")

    def renew(self, identity: Identity, key: PrivateKey, name: str = "second@nodes.example.org") -> bytes:
        return self.authority.renew(identity, make_request(key, name))

    def test_same_node(self) -> None:
        """[6940-11.3-19]"""
        self.clock.advance(20 * DAY)
        renewed = self.trust.identify(self.renew(self.node.identity, self.node.key))
        old = self.node.identity
        self.assertEqual((renewed.user_name, renewed.node_ids, renewed.role), (old.user_name, old.node_ids, old.role))
        self.assertEqual(renewed.not_after, NOW + 50 * DAY)

    def test_role_as_known_now(self) -> None:
        token = self.authority.invite("second", "registrar", 60, ["https://h"])
        request = make_request(self.node.key, "second@nodes.example.org")
        self.authority.enroll("second", token.password, 1, request)
        renewed = self.trust.identify(self.renew(self.node.identity, self.node.key))
        self.assertEqual(renewed.role, "registrar")

    def test_revoked(self) -> None:
        self.authority.nodes.revoke("second@nodes.example.org")
        self.assertRefused("failed_authentication", self.renew, self.node.identity, self.node.key)
        self.assertEqual(self.last_line()[0], "refused")

    def test_of_a_disabled_account(self) -> None:
        """Its nodes keep their Node-IDs, which they may use again when it is enabled."""
        self.authority.accounts.add(NewUser("alice", password="right", node_quota=1))
        key = generate_key()
        certificate = self.authority.enroll("alice", "right", 1, make_request(key, "alice@example.org"))
        alice = self.trust.identify(certificate)
        self.authority.accounts.disable("alice")
        for _ in range(2):
            self.assertRefused("failed_authentication", self.renew, alice, key, "alice@example.org")
        self.assertRefused("failed_authentication", self.authority.enroll, "alice", "right", 1, b"")
        self.authority.accounts.enable("alice")
        renewed = self.trust.identify(self.renew(alice, key, "alice@example.org"))
        self.assertEqual(renewed.node_ids, alice.node_ids)

    def test_another_key_or_name(self) -> None:
        self.assertRefused("bad_CSR", self.renew, self.node.identity, generate_key())
        self.assertRefused(
            "username_not_available", self.renew, self.node.identity, self.node.key, "x@nodes.example.org"
        )

    def test_not_with_a_users_certificate(self) -> None:
        """A registrar's certificate for a user carries its Node-ID, but another name."""
        registrar = world.join(self.authority, "third")
        world.add_user(self.authority)
        granted = self.authority.user_credentials(
            registrar.identity,
            registrar.request("alice"),
            "REGISTER",
            world.answer(registrar.challenge(NOW), "alice", "secret"),
        )
        user = self.trust.identify(granted.certificate)
        self.assertRefused("failed_authentication", self.renew, user, registrar.key, "alice@example.org")


class RegistrarTests(AuthorityTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.node = world.join(self.authority, "second")
        world.add_user(self.authority)

    def ask(
        self,
        node: Member | None = None,
        maker: Member | None = None,
        user: str = "alice",
        password: str = "secret",
        method: str = "REGISTER",
        made: float = 0.0,
        algorithm: str = "SHA-256",
    ) -> object:
        node = node or self.node
        challenge = (maker or node).challenge(made or self.clock.seconds(), algorithm)
        authorization = world.answer(challenge, user, password)
        return self.authority.user_credentials(node.identity, node.request(user), method, authorization)

    def test_granted(self) -> None:
        granted = self.ask()
        identity = self.trust.identify(granted.certificate)  # type: ignore[attr-defined]
        self.assertEqual((identity.user_name, identity.role), ("alice@example.org", "user"))
        self.assertEqual(identity.node_ids, (self.node.node_id,))
        self.assertEqual(identity.public_key, self.node.key.public_key())
        self.assertEqual(identity.not_after, NOW + 7 * DAY)
        self.assertEqual(
            granted.credentials,  # type: ignore[attr-defined]
            self.authority.accounts.device_credentials("alice"),
        )
        self.assertEqual(self.last_line()[:2], ("credentials", "alice"))
        self.assertNotIn("ha1", repr(granted))

    def test_md5(self) -> None:
        self.ask(algorithm="MD5")

    def test_any_device(self) -> None:
        self.authority.accounts.add_device("alice", "mobile", "other")
        granted = self.ask(password="other")
        self.assertEqual(len(granted.credentials), 4)  # type: ignore[attr-defined]

    def test_made_up(self) -> None:
        """The registrar cannot answer in the phone's place."""
        self.assertRefused("failed_authentication", lambda: self.ask(password="guess"))
        self.assertRefused("failed_authentication", lambda: self.ask(user="bob"))
        self.assertRefused("failed_authentication", lambda: self.ask(method="INVITE"))
        self.assertEqual(self.last_line()[:2], ("refused", "alice"))

    def test_another_registrars_nonce(self) -> None:
        """What a phone answered to one registrar is worth nothing to another."""
        other = world.join(self.authority, "third")
        self.assertRefused("bad_nonce", lambda: self.ask(maker=other))

    def test_old_nonce(self) -> None:
        self.ask(made=NOW - 3600)
        self.assertRefused("bad_nonce", lambda: self.ask(made=NOW - 4000))
        self.assertRefused("bad_nonce", lambda: self.ask(made=NOW + 100))

    def test_peer(self) -> None:
        self.assertRefused("failed_authentication", lambda: self.ask(world.join(self.authority, "third", "peer")))

    def test_no_longer_a_registrar(self) -> None:
        """The accounts decide, not the certificate alone."""
        request = make_request(self.node.key, "second@nodes.example.org")
        token = self.authority.invite("second", "peer", 60, ["https://h"])
        self.authority.enroll("second", token.password, 1, request)
        self.assertRefused("failed_authentication", self.ask)
        self.assertRefused("failed_authentication", self.authority.revocations, self.node.identity, "")

    def test_revoked(self) -> None:
        self.authority.revocations(self.node.identity, "")
        self.authority.nodes.revoke("second@nodes.example.org")
        self.assertRefused("failed_authentication", self.ask)
        self.assertRefused("failed_authentication", self.authority.revocations, self.node.identity, "")

    def test_another_key(self) -> None:
        """The user's certificate is for the key that this registrar showed, and no other."""
        stranger = Member(generate_key(), self.node.certificate)
        self.assertRefused("bad_CSR", lambda: self.ask(stranger))

    def test_another_name(self) -> None:
        authorization = world.answer(self.node.challenge(NOW), "alice", "secret")
        self.assertRefused(
            "username_not_available",
            self.authority.user_credentials,
            self.node.identity,
            self.node.request("bob"),
            "REGISTER",
            authorization,
        )

    def test_revoked_device(self) -> None:
        self.authority.accounts.revoke_device("alice", "desk")
        self.assertRefused("failed_authentication", self.ask)


class ArchiveTests(AuthorityTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.node = world.join(self.authority, "second")
        world.add_user(self.authority)
        self.archive = export_authority(self.authority, "open sesame")

    def read(self, passphrase: str = "open sesame", overlay: str = OVERLAY, archive: bytes = b"") -> OverlayAuthority:
        self.directory = Path(self.mktemp())
        authority = import_authority(
            archive or self.archive, passphrase, self.directory, overlay, self.clock.seconds, HASHES
        )
        self.addCleanup(authority.close)
        return authority

    def test_round_trip(self) -> None:
        """The second authority is the first one in everything: keys, accounts, nodes."""
        second = self.read()
        self.assertEqual(second.root_certificate, self.authority.root_certificate)
        keys = [a.server_credentials([])[1].public_key() for a in (self.authority, second)]
        self.assertEqual(*keys)
        for name in ("configuration_signer", "kind_signer"):
            one, two = getattr(self.authority, name)(), getattr(second, name)()
            self.assertEqual(one.identity, two.identity)
        self.assertEqual(
            second.accounts.device_credentials("alice"), self.authority.accounts.device_credentials("alice")
        )
        renewed = second.renew(self.node.identity, make_request(self.node.key, "second@nodes.example.org"))
        self.assertEqual(self.trust.identify(renewed).node_ids, (self.node.node_id,))
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in self.directory.iterdir()}
        self.assertEqual(modes["ca.key"], 0o600)
        self.assertEqual(modes["accounts.sqlite"], 0o600)

    def test_lives_apart(self) -> None:
        """A cursor into the first one's revocations misses none of the second's."""
        self.authority.accounts.remove("alice")
        cursor, _ = self.authority.accounts.revocations()
        second = self.read()
        second.accounts.remove("alice")
        self.assertEqual([r.account for r in second.accounts.revocations(cursor)[1]], ["alice"])

    def test_encrypted(self) -> None:
        for name in ("ca.key", "secrets.key"):
            self.assertNotIn((self.path / name).read_bytes()[40:80], self.archive)

    def test_refused(self) -> None:
        flipped = self.archive[:-60] + bytes([self.archive[-60] ^ 1]) + self.archive[-59:]
        for passphrase, overlay, archive, text in (
            ("wrong", OVERLAY, self.archive, "passphrase"),
            ("open sesame", "example.com", self.archive, "not the authority of example.com"),
            ("open sesame", OVERLAY, flipped, "damaged"),
            ("open sesame", OVERLAY, self.archive[:200], "damaged"),
            ("open sesame", OVERLAY, self.archive[:25], "damaged"),
            ("open sesame", OVERLAY, b"hello", "not an exported"),
        ):
            error = self.assertRaises(AuthorityError, self.read, passphrase, overlay, archive)
            self.assertIn(text, str(error))
            self.assertFalse((self.directory / "ca.key").exists())

    def test_never_over_another(self) -> None:
        self.assertRaises(
            AuthorityError,
            import_authority,
            self.archive,
            "open sesame",
            self.path,
            OVERLAY,
            self.clock.seconds,
        )

    def test_empty_passphrase(self) -> None:
        self.assertRaises(AuthorityError, export_authority, self.authority, "")

    def test_database_elsewhere(self) -> None:
        elsewhere = Path(self.mktemp()).absolute()
        (self.path / "accounts.url").write_text(f"sqlite:///{elsewhere}\n")
        authority = OverlayAuthority(self.path, OVERLAY, self.clock.seconds, HASHES)
        self.addCleanup(authority.close)
        second = self.read(archive=export_authority(authority, "open sesame"))
        world.add_user(authority, "bob")
        self.assertTrue(second.accounts.exists("bob"))
