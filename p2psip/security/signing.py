"""Signing and verifying messages, values and documents (RFC 6940 §6.3.4, §7.1, §11.1)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from zope.interface import implementer

from ..ids import NodeId
from ..wire.codes import CertificateType, HashAlgorithm, SignatureAlgorithm
from ..wire.errors import DecodeError
from ..wire.message import message_signature_input
from ..wire.security import (
    ECDSA_SHA256,
    RSA_SHA256,
    CertHash,
    CertHashNodeId,
    GenericCertificate,
    SecurityBlock,
    Signature,
    SignerIdentity,
)
from ..wire.storage import StoredData, StoredDataValue, data_signature_input
from .certificates import PrivateKey
from .identity import CertificateError, Identity, PublicKey, SignedBy
from .interfaces import ISigner, IVerifier
from .trust import Trust

MAX_BUCKET: Final = 256
"""Certificates of one SecurityBlock that are looked at: more than any message we accept has room for."""

MAX_ALIASES: Final = 8192
"""Remembered hashes of a Node-ID and a certificate with several."""

_SHA256: Final = SHA256()
_ECDSA: Final = ECDSA(_SHA256)
_PKCS1: Final = PKCS1v15()


class VerificationError(Exception):
    """A signature by nobody whom the overlay believes.

    `cause` is short and for counters: that of a CertificateError (``expired``, ``untrusted``, ``bad-node``
    ...), or ``unsigned``, ``algorithm``, ``identity``, ``no-certificate``, ``too-many-certificates``,
    ``signature``, ``malformed``.
    """

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


@implementer(ISigner)
class Signer:
    """Signs for one identity with its key.

    `node_id` has to be given if the certificate has several Node-IDs: it is the one to speak for.
    ValueError if it is none of the certificate's, or if the key is not the certificate's.
    """

    def __init__(self, identity: Identity, private_key: PrivateKey, node_id: NodeId | None = None) -> None:
        if private_key.public_key() != identity.public_key:
            raise ValueError("the private key is not that of the certificate")
        if node_id is None and len(identity.node_ids) > 1:
            raise ValueError("the certificate has several Node-IDs: name one")
        if node_id is not None and node_id not in identity.node_ids:
            raise ValueError("the certificate does not have this Node-ID")
        self.identity = identity
        self.node_id = identity.node_ids[0] if node_id is None else node_id
        self._private_key = private_key
        self._algorithm = ECDSA_SHA256 if isinstance(private_key, EllipticCurvePrivateKey) else RSA_SHA256
        self._signer = signer_identity(identity, self.node_id)
        self._signer_bytes = self._signer.encode()

    def sign(self, data: bytes) -> Signature:
        """Sign `data` || SignerIdentity."""
        return self._signature(data + self._signer_bytes)

    def sign_blob(self, blob: bytes, certificates: Sequence[bytes] = ()) -> bytes:
        """A SecurityBlock over exactly `blob`, as documents are signed (RFC 6940 §11.1: "a binary blob").

        It holds our certificate and `certificates`, those between ours and a root.
        """
        return security_block(self._signature(blob), [self.identity.certificate, *certificates]).encode()

    def _signature(self, signed: bytes) -> Signature:
        key = self._private_key
        if isinstance(key, EllipticCurvePrivateKey):
            value = key.sign(signed, _ECDSA)
        else:
            value = key.sign(signed, _PKCS1, _SHA256)
        return Signature(algorithm=self._algorithm, identity=self._signer, signature_value=value)


@implementer(IVerifier)
class Verifier:
    """Verifies signatures by certificates that `trust` believes.

    What it has to remember is bounded, and of a bucket no certificate is parsed but the one that the
    signature names by its hash.  (Only hashes that include a Node-ID make it read each certificate, once.)
    """

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._aliases: OrderedDict[bytes, tuple[bytes, NodeId]] = OrderedDict()

    def verify(self, signature: Signature, data: bytes, certificates: Sequence[bytes]) -> SignedBy:
        """Who signed `data` || SignerIdentity."""
        return self._verify(signature, data + signature.raw("identity"), certificates)

    def verify_blob(self, block: bytes, blob: bytes) -> SignedBy:
        """Who made the SecurityBlock `block` over exactly `blob`; see `Signer.sign_blob`."""
        try:
            security = SecurityBlock.decode(block)
        except DecodeError as error:
            raise VerificationError("malformed", f"not a SecurityBlock: {error}") from None
        return self._verify(security.signature, blob, certificates_of(security))

    def _verify(self, signature: Signature, signed: bytes, certificates: Sequence[bytes]) -> SignedBy:
        algorithm = signature.algorithm
        if algorithm.signature == SignatureAlgorithm.ANONYMOUS:
            raise VerificationError("unsigned", "there is no signature")
        if algorithm.hash != HashAlgorithm.SHA256:
            raise VerificationError("algorithm", f"hash algorithm {algorithm.hash} is not SHA-256")
        if len(certificates) > MAX_BUCKET:
            raise VerificationError("too-many-certificates", f"more than {MAX_BUCKET} certificates")
        try:
            signed_by = self._signer(signature.identity, certificates)
        except CertificateError as error:
            raise VerificationError(error.cause, str(error)) from None
        check_signature(signed_by.identity.public_key, algorithm.signature, signature.signature_value, signed)
        return signed_by

    def _signer(self, signer: SignerIdentity, certificates: Sequence[bytes]) -> SignedBy:
        if isinstance(signer, CertHash):
            require_sha256(signer.hash_alg)
            identity = self._by_hash(signer.certificate_hash, certificates)
            if len(identity.node_ids) != 1:
                text = "cert_hash names a certificate with several Node-IDs (RFC 6940 §6.3.4)"
                raise VerificationError("identity", text)
            return SignedBy(identity, identity.node_ids[0])
        if isinstance(signer, CertHashNodeId):
            require_sha256(signer.hash_alg)
            return self._by_hash_with_node_id(signer.certificate_node_id_hash, certificates)
        raise VerificationError("unsigned", "the signature names no certificate")

    def _by_hash(self, fingerprint: bytes, certificates: Sequence[bytes]) -> Identity:
        identity = self._trust.recall(fingerprint)
        if identity is not None:
            return identity
        for der in certificates:
            if sha256(der).digest() == fingerprint:
                return self._trust.identify(der, certificates)
        raise VerificationError("no-certificate", "the certificate that the signature names is not there")

    def _by_hash_with_node_id(self, digest: bytes, certificates: Sequence[bytes]) -> SignedBy:
        alias = self._aliases.get(digest)
        if alias is not None:
            fingerprint, node_id = alias
            self._aliases.move_to_end(digest)
            return SignedBy(self._by_hash(fingerprint, certificates), node_id)
        trust = self._trust
        for der in certificates:
            try:
                named = Identity.from_certificate(der, trust.overlay, trust.node_id_length)
            except CertificateError:
                continue
            for node_id in named.node_ids:
                if sha256(node_id + der).digest() == digest:
                    return self._remember(digest, trust.identify(der, certificates), node_id)
        raise VerificationError("no-certificate", "the certificate that the signature names is not there")

    def _remember(self, digest: bytes, identity: Identity, node_id: NodeId) -> SignedBy:
        if len(identity.node_ids) == 1:
            text = "cert_hash_node_id names a certificate with one Node-ID (RFC 6940 §6.3.4)"
            raise VerificationError("identity", text)
        self._aliases[digest] = identity.fingerprint, node_id
        if len(self._aliases) > MAX_ALIASES:
            self._aliases.popitem(last=False)
        return SignedBy(identity, node_id)


def signer_identity(identity: Identity, node_id: NodeId) -> SignerIdentity:
    """How signatures name a certificate, and if it has several Node-IDs also `node_id` (RFC 6940 §6.3.4)."""
    if len(identity.node_ids) == 1:
        return CertHash(certificate_hash=identity.fingerprint)
    digest = sha256(node_id + identity.certificate).digest()
    return CertHashNodeId(certificate_node_id_hash=digest)


def check_signature(key: PublicKey, algorithm: int, value: bytes, signed: bytes) -> None:
    """Check a signature with SHA-256 by an RSA (PKCS #1 v1.5) or EC key.

    :raises VerificationError: it is wrong, or `algorithm` (a SignatureAlgorithm) is not the key's.
    """
    try:
        if algorithm == SignatureAlgorithm.ECDSA and isinstance(key, EllipticCurvePublicKey):
            return key.verify(value, signed, _ECDSA)
        if algorithm == SignatureAlgorithm.RSA and isinstance(key, RSAPublicKey):
            return key.verify(value, signed, _PKCS1, _SHA256)
    except InvalidSignature:
        raise VerificationError("signature", "the signature is wrong") from None
    raise VerificationError("algorithm", f"signature algorithm {algorithm} is not that of the key")


def require_sha256(hash_alg: int) -> None:
    """Refuse a certificate hash by anything weaker; RFC 6940 §6.3.4 leaves the choice to the signer."""
    if hash_alg != HashAlgorithm.SHA256:
        raise VerificationError("algorithm", f"the certificate is named by hash algorithm {hash_alg}")


# -- Messages and values --------------------------------------------------------------------------------


def security_block(signature: Signature, certificates: Sequence[bytes]) -> SecurityBlock:
    """A SecurityBlock with each of `certificates` (DER) once, in their order."""
    bucket = tuple(GenericCertificate(certificate=der) for der in dict.fromkeys(certificates))
    return SecurityBlock(certificates=bucket, signature=signature)


def certificates_of(security: SecurityBlock) -> list[bytes]:
    """The X.509 certificates of a SecurityBlock, DER, as received."""
    return [c.certificate for c in security.certificates if c.type == CertificateType.X509]


def sign_message(signer: ISigner, overlay: int, transaction_id: int, contents: bytes) -> Signature:
    """Sign the encoded MessageContents of a message (RFC 6940 §6.3.4)."""
    return signer.sign(message_signature_input(overlay, transaction_id, contents, b""))


def verify_message(
    verifier: IVerifier,
    overlay: int,
    transaction_id: int,
    contents: bytes,
    signature: Signature,
    certificates: Sequence[bytes],
) -> SignedBy:
    """Who signed a message (RFC 6940 §6.3.4).

    :param contents: the MessageContents as received; `certificates`: those of the SecurityBlock, DER.
    :raises VerificationError: nobody whom the overlay believes.
    """
    data = message_signature_input(overlay, transaction_id, contents, b"")
    return verifier.verify(signature, data, certificates)


def sign_value(
    signer: ISigner, resource: bytes, kind_id: int, value: StoredDataValue, storage_time: int, lifetime: int
) -> StoredData:
    """Sign a value that is to be stored at `resource` (RFC 6940 §7.1).

    `storage_time` is in milliseconds since 1970, `lifetime` in seconds.
    """
    signature = signer.sign(data_signature_input(resource, kind_id, storage_time, value, b""))
    return StoredData(storage_time=storage_time, lifetime=lifetime, value=value, signature=signature)


def verify_value(
    verifier: IVerifier, data: StoredData, resource: bytes, kind_id: int, certificates: Sequence[bytes]
) -> SignedBy:
    """Who signed a stored value, which lies at `resource`, over its bytes as received.

    :raises VerificationError: nobody whom the overlay believes.
    """
    covered = _without_identity(data.signature_input(resource, kind_id), data.signature)
    return verifier.verify(data.signature, covered, certificates)


def _without_identity(covered: bytes, signature: Signature) -> bytes:
    """What a verifier is given: it adds the SignerIdentity itself."""
    return covered[: len(covered) - len(signature.raw("identity"))]
