"""The security block: certificates and a signature (RFC 6940, 6.3.4)."""

from __future__ import annotations

from typing import Annotated

from .codec import Choice, Struct, length_of_rest, select
from .codes import (
    CertificateType,
    HashAlgorithm,
    SignatureAlgorithm,
    SignerIdentityType,
)
from .fields import Int, opaque8, opaque16, uint16, vec16


class GenericCertificate(Struct):
    """A certificate; for X.509, type 0, in DER."""

    type: Annotated[int, Int(1, CertificateType)] = CertificateType.X509
    certificate: opaque16


class SignerIdentity(Choice):
    """Which certificate's key made a signature."""

    identity_type: Annotated[int, Int(1, SignerIdentityType)] = select()
    length: uint16 = length_of_rest()


class CertHash(SignerIdentity, case=SignerIdentityType.CERT_HASH):
    """For a certificate with one Node-ID: the hash of its DER form."""

    hash_alg: Annotated[int, Int(1, HashAlgorithm)] = HashAlgorithm.SHA256
    certificate_hash: opaque8


class CertHashNodeId(SignerIdentity, case=SignerIdentityType.CERT_HASH_NODE_ID):
    """For a certificate with several Node-IDs: the hash of the signing Node-ID and the DER form."""

    hash_alg: Annotated[int, Int(1, HashAlgorithm)] = HashAlgorithm.SHA256
    certificate_node_id_hash: opaque8


class NoIdentity(SignerIdentity, case=SignerIdentityType.NONE):
    """Nobody: on the synthetic values of a Fetch answer only (RFC 6940, 7.4.2.2)."""


class SignatureAndHashAlgorithm(Struct):
    """From TLS: the hash comes first (RFC 5246, 7.4.1.4.1)."""

    hash: Annotated[int, Int(1, HashAlgorithm)]
    signature: Annotated[int, Int(1, SignatureAlgorithm)]


ANONYMOUS = SignatureAndHashAlgorithm(hash=HashAlgorithm.NONE, signature=SignatureAlgorithm.ANONYMOUS)
RSA_SHA256 = SignatureAndHashAlgorithm(hash=HashAlgorithm.SHA256, signature=SignatureAlgorithm.RSA)
ECDSA_SHA256 = SignatureAndHashAlgorithm(hash=HashAlgorithm.SHA256, signature=SignatureAlgorithm.ECDSA)


class Signature(Struct, keep=("identity",)):
    """A signature; the bytes of `identity` end the signature's input."""

    algorithm: SignatureAndHashAlgorithm
    identity: SignerIdentity
    signature_value: opaque16


UNSIGNED = Signature(algorithm=ANONYMOUS, identity=NoIdentity(), signature_value=b"")
"""The signature of a synthetic value (RFC 6940, 7.4.2.2)."""


class SecurityBlock(Struct):
    """The third part of every message."""

    certificates: vec16[GenericCertificate] = ()
    signature: Signature
