from __future__ import annotations

import json
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.ids import ResourceId
from p2psip.interfaces import ISigner, IVerifier
from p2psip.security.certificates import generate_key
from p2psip.security.identity import Identity, SignedBy
from p2psip.security.signing import (
    MAX_BUCKET,
    Signer,
    VerificationError,
    Verifier,
    certificates_of,
    security_block,
    sign_message,
    sign_value,
    verify_message,
    verify_value,
)
from p2psip.security.trust import Trust
from p2psip.wire.codec import WireContext
from p2psip.wire.codes import DataModel, HashAlgorithm, SignatureAlgorithm
from p2psip.wire.contents import MessageContents
from p2psip.wire.errors import DecodeError
from p2psip.wire.header import ForwardingHeader
from p2psip.wire.message import Message, decode_message, encode_message
from p2psip.wire.security import (
    UNSIGNED,
    CertHash,
    CertHashNodeId,
    SecurityBlock,
    Signature,
    SignatureAndHashAlgorithm,
)
from p2psip.wire.storage import ArrayEntry, DataValue, StoredData
from tests.security.credentials import DAY, NODE_A, NODE_B, NOW, OVERLAY, authority, certificate, signer

DATA = b"what is signed"
VECTORS = Path(__file__).parent.parent / "vectors"


def verified(verifier: Verifier, message: Message) -> SignedBy:
    """Who signed a whole message."""
    header, security = message.header, message.security
    contents, certificates = message.raw("contents"), certificates_of(security)
    return verify_message(
        verifier, header.overlay, header.transaction_id, contents, security.signature, certificates
    )


class SigningTests(SynchronousTestCase):
    """Signer and Verifier together."""

    def setUp(self) -> None:
        self.time = NOW
        self.ca = authority()
        self.trust = Trust(OVERLAY, [self.ca.certificate], (), 16, lambda: self.time)
        self.verifier = Verifier(self.trust)
        self.alice = signer(self.ca)

    def refused(self, cause: str, signature: Signature, *certificates: bytes, data: bytes = DATA) -> None:
        error = self.assertRaises(VerificationError, self.verifier.verify, signature, data, certificates)
        self.assertEqual(error.cause, cause, str(error))

    def test_interfaces(self) -> None:
        verifyObject(ISigner, self.alice)
        verifyObject(IVerifier, self.verifier)

    def test_both_key_types(self) -> None:
        """RSASSA-PKCS1-v1_5 and ECDSA with SHA-256 [6940-6.3.4-7, 6940-13.3-5, 6940-13.2-2]."""
        for key_type, algorithm in (("rsa", SignatureAlgorithm.RSA), ("ec", SignatureAlgorithm.ECDSA)):
            one = signer(self.ca, key_type=key_type)
            signature = one.sign(DATA)
            self.assertEqual(signature.algorithm.encode(), bytes([HashAlgorithm.SHA256, algorithm]))
            signed_by = self.verifier.verify(signature, DATA, [one.identity.certificate])
            self.assertEqual(signed_by, (one.identity, NODE_A))

    def test_what_is_signed_with_the_data(self) -> None:
        """The SignerIdentity ends the input: openssl would verify the same (RFC 6940 §6.3.4)."""
        signature = self.alice.sign(DATA)
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        der = self.alice.identity.certificate
        identity = b"\x01\x00\x22\x04\x20" + sha256(der).digest()
        self.alice.identity.public_key.verify(signature.signature_value, DATA + identity, ECDSA(SHA256()))

    def test_wrong_data(self) -> None:
        """[6940-6.3.4-11]"""
        self.refused("signature", self.alice.sign(DATA), self.alice.identity.certificate, data=DATA + b"!")

    def test_wrong_key(self) -> None:
        """One member cannot sign as another."""
        mallory = signer(self.ca, (NODE_B,))
        forged = mallory.sign(DATA).replace(identity=self.alice.sign(DATA).identity)
        self.refused("signature", forged, self.alice.identity.certificate, mallory.identity.certificate)

    def test_certificate_remembered(self) -> None:
        """A certificate seen once need not come again; one never seen must [6940-6.3.4-3]."""
        signature = self.alice.sign(DATA)
        self.refused("no-certificate", signature)
        self.verifier.verify(signature, DATA, [self.alice.identity.certificate])
        self.assertEqual(self.verifier.verify(signature, DATA, []).node_id, NODE_A)

    def test_stranger(self) -> None:
        stranger = signer(authority())
        self.refused("untrusted", stranger.sign(DATA), stranger.identity.certificate)

    def test_expired(self) -> None:
        """The time is looked at for each signature [6940-7.1-1]."""
        signature = self.alice.sign(DATA)
        self.verifier.verify(signature, DATA, [self.alice.identity.certificate])
        self.time = NOW + 31 * DAY
        self.refused("no-certificate", signature)
        self.refused("expired", signature, self.alice.identity.certificate)

    def test_revoked(self) -> None:
        """[6940-11.1-19]"""
        signature = self.alice.sign(DATA)
        self.verifier.verify(signature, DATA, [self.alice.identity.certificate])
        self.trust.update([self.ca.certificate], [NODE_A])
        self.refused("bad-node", signature, self.alice.identity.certificate)

    def test_several_node_ids(self) -> None:
        """cert_hash_node_id for a certificate with several, and the one that signs counts [6940-6.3.4-9]."""
        one = signer(self.ca, (NODE_A, NODE_B), NODE_B)
        signature = one.sign(DATA)
        assert isinstance(signature.identity, CertHashNodeId)
        expected = sha256(NODE_B + one.identity.certificate).digest()
        self.assertEqual(signature.identity.certificate_node_id_hash, expected)
        bucket = [self.alice.identity.certificate, b"garbage", one.identity.certificate]
        for certificates in (bucket, []):
            self.assertEqual(self.verifier.verify(signature, DATA, certificates).node_id, NODE_B)
        self.time = NOW + 31 * DAY
        self.refused("expired", signature, *bucket)

    def test_the_other_form(self) -> None:
        """Each form is refused for the other sort of certificate [6940-6.3.4-8, 6940-6.3.4-9]."""
        many = signer(self.ca, (NODE_A, NODE_B), NODE_A)
        der = many.identity.certificate
        by_hash = CertHash(certificate_hash=sha256(der).digest())
        self.refused("identity", many.sign(DATA).replace(identity=by_hash), der)
        der = self.alice.identity.certificate
        by_node_id = CertHashNodeId(certificate_node_id_hash=sha256(NODE_A + der).digest())
        self.refused("identity", self.alice.sign(DATA).replace(identity=by_node_id), der)

    def test_nobody(self) -> None:
        """Neither identity none nor the anonymous algorithm is a signature [6940-6.3-1]."""
        self.refused("unsigned", UNSIGNED)
        self.refused("unsigned", self.alice.sign(DATA).replace(identity=UNSIGNED.identity))
        self.refused("unsigned", self.alice.sign(DATA).replace(algorithm=UNSIGNED.algorithm))

    def test_algorithms(self) -> None:
        """SHA-1, and an algorithm that is not the key's, are refused."""
        signature, der = self.alice.sign(DATA), self.alice.identity.certificate
        for hash_algorithm, algorithm in (
            (HashAlgorithm.SHA1, SignatureAlgorithm.ECDSA),
            (HashAlgorithm.SHA256, SignatureAlgorithm.RSA),
            (HashAlgorithm.SHA256, SignatureAlgorithm.DSA),
            (HashAlgorithm.NONE, SignatureAlgorithm.ECDSA),
        ):
            changed = SignatureAndHashAlgorithm(hash=hash_algorithm, signature=algorithm)
            self.refused("algorithm", signature.replace(algorithm=changed), der)
        weak = CertHash(hash_alg=HashAlgorithm.SHA1, certificate_hash=sha1(der).digest())
        self.refused("algorithm", signature.replace(identity=weak), der)

    def test_bucket_is_bounded(self) -> None:
        """A bucket that is too full is refused; in any other only the named certificate is read."""
        signature, der = self.alice.sign(DATA), self.alice.identity.certificate
        self.refused("too-many-certificates", signature, *[der] * (MAX_BUCKET + 1))
        garbage = [bytes([i]) * 9000 for i in range(MAX_BUCKET - 1)]
        self.verifier.verify(signature, DATA, [*garbage, der])
        huge = CertHash(certificate_hash=sha256(garbage[0]).digest())
        self.refused("too-large", signature.replace(identity=huge), *garbage)

    def test_signer_with_wrong_arguments(self) -> None:
        key = generate_key()
        identity = Identity.from_certificate(certificate(self.ca, key, (NODE_A, NODE_B)), OVERLAY)
        self.assertRaises(ValueError, Signer, identity, generate_key(), NODE_A)
        self.assertRaises(ValueError, Signer, identity, key)
        self.assertRaises(ValueError, Signer, self.alice.identity, key, NODE_B)

    def test_blob(self) -> None:
        """A SecurityBlock over exactly the bytes, as documents have it (RFC 6940 §11.1) [6940-11.1-35]."""
        block = self.alice.sign_blob(DATA)
        self.assertEqual(self.verifier.verify_blob(block, DATA), (self.alice.identity, NODE_A))
        for wrong, blob in ((block, DATA + b" "), (block[:-1], DATA), (b"", DATA)):
            self.assertRaises(VerificationError, self.verifier.verify_blob, wrong, blob)
        security = SecurityBlock.decode(block)
        identity = security.signature.raw("identity")
        signature = self.alice.sign(DATA)
        other = security_block(signature, [self.alice.identity.certificate]).encode()
        self.assertRaises(VerificationError, self.verifier.verify_blob, other, DATA)
        self.verifier.verify_blob(other, DATA + identity)

    def test_block_has_each_certificate_once(self) -> None:
        """[6940-6.3.4-1]"""
        a, b = self.alice.identity.certificate, self.ca.certificate
        self.assertEqual(certificates_of(security_block(UNSIGNED, [a, b, a])), [a, b])


class MessageTests(SynchronousTestCase):
    """Messages and stored values, signed and verified as bytes."""

    def setUp(self) -> None:
        self.ca = authority()
        self.verifier = Verifier(Trust(OVERLAY, [self.ca.certificate], (), 16, lambda: NOW))
        self.alice = signer(self.ca)
        self.bucket = [self.alice.identity.certificate]

    def message(self) -> tuple[bytes, int]:
        """The bytes of a message, and where its signed contents begin."""
        contents = MessageContents(message_code=0x17, message_body=b"\0\0").encode()
        signature = sign_message(self.alice, 1, 2, contents)
        header = ForwardingHeader(
            overlay=1,
            configuration_sequence=3,
            ttl=4,
            transaction_id=2,
            destination_list=(),
            max_response_length=0,
        )
        security = security_block(signature, self.bucket).encode()
        data = encode_message(header, contents, security)
        return data, len(data) - len(security) - len(contents)

    def test_message(self) -> None:
        """[6940-6.3.4-10, 6940-6.3.4-11, 6940-6.1.1-3]"""
        data, _ = self.message()
        self.assertEqual(verified(self.verifier, decode_message(data)).node_id, NODE_A)

    def test_each_byte_counts(self) -> None:
        """Overlay, transaction_id, contents and security block are covered, the rest of the header is not.

        [6940-6.3.4-12]
        """
        data, start = self.message()
        covered = {*range(4, 8), *range(20, 28), *range(start, len(data))}
        for at in covered:
            verifier = Verifier(Trust(OVERLAY, [self.ca.certificate], (), 16, lambda: NOW))
            changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            try:
                verified(verifier, decode_message(changed))
            except (VerificationError, DecodeError):
                continue
            self.fail(f"byte {at} may be changed")
        hop = data[:11] + b"\x01" + data[12:]
        verified(self.verifier, decode_message(hop))

    def test_value(self) -> None:
        """Resource-ID, Kind, time and value are covered, the lifetime is not (§7.1) [6940-13.2-2]."""
        resource = ResourceId(bytes(range(16)))
        data = sign_value(self.alice, resource, 1, DataValue(value=b"v"), 1000, 60)
        context = WireContext(16, {1: DataModel.SINGLE}).of_kind(1)
        stored = StoredData.decode(data.encode(), context)

        def verify(value: StoredData, where: bytes = resource, kind: int = 1) -> None:
            self.assertEqual(verify_value(self.verifier, value, where, kind, self.bucket).node_id, NODE_A)

        verify(stored)
        verify(StoredData.decode(data.replace(lifetime=30).encode(), context))
        self.assertRaises(VerificationError, verify, stored, bytes(16))
        self.assertRaises(VerificationError, verify, stored, resource, 2)
        for change in ({"storage_time": 1001}, {"value": DataValue(exists=False, value=b"v")}):
            changed = StoredData.decode(data.replace(**change).encode(), context)
            self.assertRaises(VerificationError, verify, changed)

    def test_array_index(self) -> None:
        """The index of an array entry counts as 0: who stores cannot know it (RFC 6940 §7.4.2.2)."""
        resource = ResourceId(bytes(16))
        entry = ArrayEntry(index=0xFFFFFFFF, value=DataValue(value=b"v"))
        data = sign_value(self.alice, resource, 1, entry, 1000, 60)
        moved = data.replace(value=entry.replace(index=7)).encode()
        stored = StoredData.decode(moved, WireContext(16, {1: DataModel.ARRAY}).of_kind(1))
        verify_value(self.verifier, stored, resource, 1, self.bucket)

    def test_anything_else(self) -> None:
        """Whatever is changed, verifying raises a VerificationError or nothing."""
        data, _ = self.message()

        @given(
            st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), min_size=1, max_size=3)
        )
        def check(changes: list[tuple[int, int]]) -> None:
            mutated = bytearray(data)
            for at, byte in changes:
                mutated[at] = byte
            try:
                verified(self.verifier, decode_message(bytes(mutated)))
            except (VerificationError, DecodeError):
                pass

        check()


class AnyIssuer(Trust):
    """Believes every certificate of the overlay: the vectors' authority is not among them."""

    def identify(self, der: bytes, intermediates: Any = ()) -> Identity:
        return Identity.from_certificate(der, self.overlay, self.node_id_length)


class VectorTests(SynchronousTestCase):
    """Messages signed by another implementation."""

    def verify(self, name: str) -> Any:
        vector = json.loads((VECTORS / f"{name}.json").read_text())
        trust = AnyIssuer(vector["overlay_name"], (), (), 16, lambda: NOW)
        return verified(Verifier(trust), decode_message(bytes.fromhex(vector["wire_hex"])))

    def test_cert_hash(self) -> None:
        """[6940-6.3.4-8]"""
        for name in ("ping_ans", "store_req_multi", "config_update_req_config"):
            identity, node_id = self.verify(name)
            self.assertEqual(node_id.hex(), "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf")
            self.assertEqual(identity.user_name, "alice@example.org")

    def test_cert_hash_node_id(self) -> None:
        """Of a certificate with one Node-ID it is the wrong form [6940-6.3.4-8]."""
        error = self.assertRaises(VerificationError, self.verify, "sec_cert_hash_node_id")
        self.assertEqual(error.cause, "identity")

    def test_issuer_unknown(self) -> None:
        vector = json.loads((VECTORS / "ping_ans.json").read_text())
        trust = Trust(vector["overlay_name"], [authority().certificate], (), 16, lambda: NOW)
        message = decode_message(bytes.fromhex(vector["wire_hex"]))
        error = self.assertRaises(VerificationError, verified, Verifier(trust), message)
        self.assertEqual(error.cause, "untrusted")
