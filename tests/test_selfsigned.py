"""Credentials that nodes make themselves: founding, joining by a file, names, renewal (RFC 6940 §11.3.1)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from p2psip.administration import Administrator
from p2psip.config.accept import accept_update, trust_of
from p2psip.config.defaults import KINDS
from p2psip.config.document import Configuration, ConfigurationError
from p2psip.config.write import write_document
from p2psip.enrollment.authority import NODE_LIFETIME
from p2psip.joining import Credentials, Enrollment, found_self_signed, rejoining
from p2psip.publishing import DAY, YEAR, Publisher
from p2psip.renewal import Renewal
from p2psip.security.identity import self_signed_node_ids
from p2psip.security.signing import Signer, Verifier
from p2psip.selfsigned import DocumentKey, own_certificate
from p2psip.startup import JoinByDocument, StartError
from p2psip.state import StateDirectory
from p2psip.testing import World

from .enrollment import world as enrollment
from .enrollment.served import first_configuration
from .running import Service

OVERLAY = "example.org"


class MemberOf:
    """Of a `Node` what renewal and publishing need."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.trust = trust_of(configuration, lambda: time.time())
        self.updates = self
        self.usages: dict[str, Any] = {}
        self.signers: list[Signer] = []

    def check_support(self, configuration: Configuration) -> None: ...

    def offer(self, document: bytes) -> None:
        self.configuration = accept_update(document, self.configuration, Verifier(self.trust), time.time())

    def renew(self, signer: Signer) -> None:
        self.trust.identify(signer.identity.certificate)
        self.signers.append(signer)


class SelfSignedTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.state = StateDirectory(self.mktemp())
        self.founder = self.found(self.state)

    def found(
        self, state: StateDirectory, digest: str = "sha256", account: str | None = None, key_type: str = "ec"
    ) -> Credentials:
        signer = DocumentKey.created(state, OVERLAY, digest, key_type)
        return found_self_signed(signer, state, account, [("192.0.2.1", 6084)], KINDS, key_type)

    def join(self, account: str | None = None, document: Path | None = None, key_type: str = "ec") -> Credentials:
        self.second = StateDirectory(self.mktemp())
        enrollment = Enrollment(self.second, Clock(), lambda why, seconds: self.fail(why), key_type)
        start = JoinByDocument(str(document or self.state.document), account, None)
        return self.successResultOf(Deferred.fromCoroutine(enrollment.by_document(start, OVERLAY)))

    def after(self, days: float) -> None:
        """Let time pass."""
        now = time.time() + days * DAY
        self.patch(time, "time", lambda: now)


class JoiningTests(SelfSignedTestCase):
    def test_both_digests_and_keys(self) -> None:
        """The document is all that the second node is given; each believes the other. [6940-11.3.1-1] [6940-11.1-10]

        [6940-11.1-12] [6940-11.3.1-3]
        """
        for digest, key_type in (("sha256", "ec"), ("sha1", "rsa")):
            self.state = StateDirectory(self.mktemp())
            first = self.found(self.state, digest, key_type=key_type)
            second = self.join(key_type=key_type)
            self.assertEqual(second.configuration, first.configuration)
            self.assertEqual((first.configuration.root_certificates, first.configuration.enrollment_servers), ((), ()))
            trust = trust_of(second.configuration, time.time)
            for each in (first, second):
                self.assertEqual(each.digest, digest)
                identity = trust.identify(each.identity.certificate)
                self.assertEqual(identity.node_ids, self_signed_node_ids(each.key.public_key(), digest))
                self.assertEqual(identity.user_name, f"{identity.node_ids[0].hex()}@nodes.{OVERLAY}")

    def test_names(self) -> None:
        """Any name of the user's choice that can be one. [6940-11.3.1-2]"""
        self.assertEqual(self.join("alice").identity.user_name, "alice@example.org")
        self.assertEqual(self.join("alice@example.com").identity.user_name, "alice@example.com")
        error = self.assertRaises(StartError, own_certificate, self.founder.key, OVERLAY, "sha256", "a b@c")
        self.assertIn("--account", str(error))

    def test_not_permitted(self) -> None:
        """Nothing is left of the attempt. [6940-11.3-1]"""
        authority = enrollment.make(self.mktemp(), time.time())
        self.addCleanup(authority.close)
        document = Path(self.mktemp())
        document.write_bytes(write_document(first_configuration(authority)))
        for account in (None, "alice"):
            second = Enrollment(StateDirectory(self.mktemp()), Clock(), lambda why, seconds: self.fail(why))
            joining = second.by_document(JoinByDocument(str(document), account, None), OVERLAY)
            failure = self.failureResultOf(Deferred.fromCoroutine(joining), StartError)
            self.assertIn("--config needs --account and --password-file", str(failure.value))
            self.assertFalse(second._state.key.exists())

    def test_interrupted(self) -> None:
        """Founding and joining go on with the keys that are there."""
        signer = self.founder.configuration.configuration_signers
        self.state.certificate.unlink()
        again = self.found(self.state)
        self.assertEqual(again.identity.node_ids, self.founder.identity.node_ids)
        self.assertEqual(again.configuration.configuration_signers, signer)

    def test_rejoining(self) -> None:
        """The Node-ID stays, whatever becomes of the certificate: other name, two thirds of its life, its end."""
        joined = self.join("alice")
        for account in (None, "alice"):
            self.assertEqual(rejoining(self.second, account).identity, joined.identity)
        renamed = rejoining(self.second, "bob")
        self.assertEqual(renamed.identity.user_name, "bob@example.org")
        self.assertEqual(renamed.identity.node_ids, joined.identity.node_ids)
        for days in (21, 31):
            self.after(days)
            again = rejoining(self.second, None)
            trust_of(again.configuration, time.time).identify(again.identity.certificate)
            self.assertGreater(again.identity.not_after, time.time() + NODE_LIFETIME - DAY)
            self.assertEqual(again.identity.user_name, "bob@example.org")
            self.assertEqual(again.identity.node_ids, joined.identity.node_ids)

    def test_damaged_document_key(self) -> None:
        self.state.signer_key.write_bytes(b"no key")
        error = self.assertRaises(StartError, DocumentKey.opened, self.state, OVERLAY, "sha256")
        self.assertIn("signer.key", str(error))


class RenewalTests(SelfSignedTestCase):
    def renewal(self, credentials: Credentials) -> tuple[Renewal, Any]:
        node: Any = MemberOf(credentials.configuration)
        renewal = Renewal(node, credentials, self.second, Clock())
        return renewal, node

    def look(self, renewal: Renewal) -> None:
        self.successResultOf(Deferred.fromCoroutine(renewal.look()))

    def test_in_time(self) -> None:
        """After two thirds of its life the certificate is made anew, and kept."""
        joined = self.join("alice")
        renewal, node = self.renewal(joined)
        self.look(renewal)
        self.assertEqual(node.signers, [])
        self.after(21)
        self.look(renewal)
        (signer,) = node.signers
        self.assertEqual(signer.identity.user_name, "alice@example.org")
        self.assertEqual(renewal.credentials.identity, signer.identity)
        self.assertEqual(rejoining(self.second, None).identity, signer.identity)

    def test_giving_way(self) -> None:
        """Whose name is another's gets the name made of its Node-ID, which it never gives up. [6940-11.3.1-6]"""
        renewal, node = self.renewal(self.join("alice"))
        renewal.give_way()
        (signer,) = node.signers
        self.assertEqual(signer.identity.user_name, f"{signer.node_id.hex()}@nodes.{OVERLAY}")
        renewal.give_way()
        self.assertEqual(node.signers, [signer])
        self.assertEqual(rejoining(self.second, None).identity, signer.identity)


class PublishingTests(SelfSignedTestCase):
    """The founder of a self-signed overlay changes and prolongs its document, without an authority."""

    def setUp(self) -> None:
        super().setUp()
        self.service = Service(World(), None, self.state.path)
        self.node: Any = MemberOf(self.founder.configuration)
        self.service.node = self.node
        self.service.publisher = Publisher(self.service, DocumentKey.opened(self.state, OVERLAY, "sha256"))

    def test_publish(self) -> None:
        """The signer's certificate is another one after a restart, its Node-ID is not."""
        document = write_document(self.founder.configuration).decode().replace("<initial-ttl>30<", "<initial-ttl>40<")
        body = {"document": document}
        answer = self.service.ask(Administrator(self.service).routes(), "POST", "/authority/publish", body)
        self.assertEqual(answer, (200, {"sequence": 2}))
        self.assertEqual(self.node.configuration.initial_ttl, 40)

    def test_what_would_end_the_overlay(self) -> None:
        """A document by which its own signer is nobody cannot be published."""
        publisher = self.service.publisher
        assert publisher is not None
        self.assertRaises(ConfigurationError, publisher.publish, self_signed_permitted="sha1")
        self.assertEqual(self.node.configuration.sequence, 1)

    def test_users_need_an_authority(self) -> None:
        status, error = self.service.ask(Administrator(self.service).routes(), "POST", "/users", {"name": "alice"})
        self.assertEqual(status, 409)
        self.assertIn("has no authority", error["error"])

    def test_prolonged(self) -> None:
        publisher = self.service.publisher
        assert publisher is not None
        publisher.publish(expiration=float(int(time.time() + 100 * DAY)))
        self.successResultOf(Deferred.fromCoroutine(publisher.start()))
        self.assertEqual(self.node.configuration.sequence, 3)
        self.assertGreater(self.node.configuration.expiration, time.time() + YEAR - DAY)
        self.successResultOf(Deferred.fromCoroutine(publisher.stop()))
