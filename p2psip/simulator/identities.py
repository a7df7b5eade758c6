"""Identities for simulations: a keyed hash in place of a signature, behind the same interfaces.

What is signed, by whom, and how many bytes that takes is as in production; only the arithmetic is cheap.  Whoever
does not hold the secret of the simulation cannot sign, so a node that mixes identities up is found out as it would
be in an overlay.
"""

from __future__ import annotations

from hashlib import blake2b, sha256
from random import Random
from typing import Any, cast

from zope.interface import implementer

from ..ids import NodeId
from ..security.identity import Identity, PublicKey, SignedBy
from ..security.interfaces import ISigner, IVerifier
from ..security.signing import VerificationError
from ..wire.security import ECDSA_SHA256, CertHash, Signature

CERTIFICATE_BYTES = 560
"""What the certificate of a node with an ECDSA P-256 key takes, in DER."""

SIGNATURE_BYTES = 71
"""What an ECDSA P-256 signature takes on average."""

_PADDING = bytes(SIGNATURE_BYTES - 32)
_FOR_EVER = 1e12


@implementer(ISigner)
class SimulatedSigner:
    """Signs for one identity of an `Identities`."""

    __slots__ = ("_identities", "_name", "_name_bytes", "identity", "node_id")

    def __init__(self, identities: Identities, identity: Identity) -> None:
        self.identity = identity
        self.node_id: NodeId = identity.node_ids[0]
        self._identities = identities
        self._name = CertHash(certificate_hash=identity.fingerprint)
        self._name_bytes = self._name.encode()

    def sign(self, data: bytes) -> Signature:
        value = self._identities._signature(data + self._name_bytes)
        return Signature(algorithm=ECDSA_SHA256, identity=self._name, signature_value=value)


@implementer(IVerifier)
class Identities:
    """Makes the identities of one simulated overlay, and verifies what they sign: each node's `IVerifier`."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._secret = random.randbytes(32)
        self._by_fingerprint: dict[bytes, Identity] = {}

    def make(self, user_name: str, node_id: NodeId | None = None, role: str = "peer") -> SimulatedSigner:
        """A new identity: of `node_id`, or of one drawn at random."""
        if node_id is None:
            node_id = NodeId(self._random.randbytes(16))
        certificate = self._random.randbytes(CERTIFICATE_BYTES)
        identity = Identity(
            user_name=user_name,
            node_ids=(node_id,),
            certificate=certificate,
            fingerprint=sha256(certificate).digest(),
            not_before=0.0,
            not_after=_FOR_EVER,
            role=role,
            public_key=cast(PublicKey, None),
        )
        self._by_fingerprint[identity.fingerprint] = identity
        return SimulatedSigner(self, identity)

    def verify(self, signature: Signature, data: bytes, certificates: Any) -> SignedBy:
        name = signature.identity
        if not isinstance(name, CertHash):
            raise VerificationError("unsigned", "the signature names no certificate")
        identity = self._by_fingerprint.get(name.certificate_hash)
        if identity is None:
            raise VerificationError("no-certificate", "no identity of this simulation")
        if self._signature(data + signature.raw("identity")) != signature.signature_value:
            raise VerificationError("signature", "the signature is wrong")
        return SignedBy(identity, identity.node_ids[0])

    def _signature(self, signed: bytes) -> bytes:
        return blake2b(signed, digest_size=32, key=self._secret).digest() + _PADDING
