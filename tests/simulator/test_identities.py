"""Simulated identities: as strict and as large as real ones."""

from __future__ import annotations

from random import Random
from statistics import fmean

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.ids import NodeId
from p2psip.interfaces import ISigner, IVerifier
from p2psip.security.signing import VerificationError
from p2psip.simulator.identities import SIGNATURE_BYTES, Identities
from p2psip.testing import World
from p2psip.transport.messages import seal
from p2psip.wire.codes import MessageCode
from p2psip.wire.security import UNSIGNED, CertHashNodeId, Signature

NODE = NodeId(bytes(range(16)))


class OtherSecret(Random):
    """The same as another source of chance, but for the secret of a simulation."""

    def randbytes(self, n: int) -> bytes:
        drawn = super().randbytes(n)
        return bytes(n) if n == 32 else drawn


class IdentityTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.identities = Identities(Random(1))
        self.alice, self.bob = self.identities.make("alice@example.org"), self.identities.make("bob@example.org")

    def assertRefused(self, cause: str, signature: Signature, data: bytes) -> None:
        error = self.assertRaises(VerificationError, self.identities.verify, signature, data, ())
        self.assertEqual(error.cause, cause)

    def test_interfaces(self) -> None:
        verifyObject(ISigner, self.alice)
        verifyObject(IVerifier, self.identities)

    def test_identity(self) -> None:
        signer = self.identities.make("carol@example.org", NODE, "user")
        identity = signer.identity
        self.assertEqual((signer.node_id, identity.node_ids), (NODE, (NODE,)))
        self.assertEqual((identity.user_name, identity.role), ("carol@example.org", "user"))
        self.assertEqual(self.alice.identity.role, "peer")

    def test_all_differ(self) -> None:
        """Of one user at one node as well: each has a certificate of its own."""
        first, second = (self.identities.make("carol@example.org", NODE) for _ in range(2))
        self.assertNotEqual(first.identity.certificate, second.identity.certificate)
        self.assertNotEqual(self.alice.node_id, self.bob.node_id)

    def test_drawn_from_the_seed(self) -> None:
        again, other = (Identities(Random(seed)).make("alice@example.org") for seed in (1, 2))
        self.assertEqual(self.alice.identity, again.identity)
        self.assertEqual(self.alice.sign(b"data"), again.sign(b"data"))
        self.assertNotEqual(self.alice.node_id, other.node_id)

    def test_verify(self) -> None:
        signed_by = self.identities.verify(self.alice.sign(b"data"), b"data", ())
        self.assertEqual((signed_by.identity, signed_by.node_id), (self.alice.identity, self.alice.node_id))

    def test_over_the_wire(self) -> None:
        read = Signature.decode(self.bob.sign(b"data").encode())
        self.assertEqual(self.identities.verify(read, b"data", ()).identity, self.bob.identity)
        self.assertRefused("signature", read, b"other data")

    def test_forged(self) -> None:
        signature = self.alice.sign(b"data")
        value = signature.signature_value
        for forged in (bytes(len(value)), value[:-1], value + b"\0", bytes([value[0] ^ 1]) + value[1:]):
            self.assertRefused("signature", signature.replace(signature_value=forged), b"data")
        self.assertRefused("signature", signature, b"data ")

    def test_mixed_up(self) -> None:
        """Nobody can put his name to another's signature, nor another's to his own."""
        alices, bobs = self.alice.sign(b"data"), self.bob.sign(b"data")
        self.assertRefused("signature", alices.replace(identity=bobs.identity), b"data")
        self.assertRefused("signature", bobs.replace(identity=alices.identity), b"data")

    def test_of_another_simulation(self) -> None:
        stranger = Identities(Random(2)).make("alice@example.org")
        self.assertRefused("no-certificate", stranger.sign(b"data"), b"data")

    def test_same_identity_with_another_secret(self) -> None:
        """To know a certificate is not to hold its key."""
        forger = Identities(OtherSecret(1)).make("alice@example.org")
        self.assertEqual(forger.identity, self.alice.identity)
        self.assertRefused("signature", forger.sign(b"data"), b"data")

    def test_unsigned(self) -> None:
        self.assertRefused("unsigned", UNSIGNED, b"data")
        several = CertHashNodeId(certificate_node_id_hash=self.alice.identity.fingerprint)
        self.assertRefused("unsigned", self.alice.sign(b"data").replace(identity=several), b"data")


class SizeTests(SynchronousTestCase):
    """In bytes all is as with ECDSA P-256."""

    def setUp(self) -> None:
        self.real = World().credentials("node1@nodes.example.org").signer
        self.simulated = Identities(Random(1)).make("node1@nodes.example.org")

    def test_certificate(self) -> None:
        """A real one varies by a few bytes with its names, its numbers and its signature."""
        real, simulated = (len(signer.identity.certificate) for signer in (self.real, self.simulated))
        self.assertApproximates(real, simulated, 8)

    def test_signature(self) -> None:
        real = fmean(len(self.real.sign(b"%d" % number).signature_value) for number in range(100))
        self.assertApproximates(real, SIGNATURE_BYTES, 0.5)
        self.assertEqual(len(self.simulated.sign(b"data").signature_value), SIGNATURE_BYTES)

    def test_message(self) -> None:
        real, simulated = (
            len(seal(1, 2, MessageCode.PING_REQ, b"body", signer)) for signer in (self.real, self.simulated)
        )
        self.assertApproximates(real, simulated, 10)
