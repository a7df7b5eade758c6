"""Whom an overlay believes: certificates that chain to its roots, are valid now and are not revoked."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from ..ids import NodeId
from .identity import (
    MALFORMED,
    CertificateError,
    Identity,
    has_own_node_ids,
    load_certificate,
    refuse_unknown_extensions,
)

MAX_CACHED: Final = 8192
"""Verified certificates that are remembered; each takes about 2 kB."""

MAX_INTERMEDIATES: Final = 32
"""Certificates of a bucket that are parsed in search of a certificate's issuers."""

MAX_CHAIN: Final = 4


@dataclass(frozen=True, slots=True)
class _Verified:
    identity: Identity
    start: float
    end: float
    """When the whole chain is valid, not the certificate alone."""


class Trust:
    """Judges certificates by what the configuration document says (RFC 6940 §11.1, §11.3, §13.3).

    `now` tells the time, in seconds since the epoch.  `self_signed` is the digest of self-signed-permitted,
    "sha1" or "sha256", or empty where self-signed certificates are not permitted.  What was verified once
    is remembered, in a bounded table, until its chain expires or a new configuration refuses it.
    """

    def __init__(
        self,
        overlay: str,
        root_certificates: Sequence[bytes],
        bad_nodes: Collection[NodeId],
        node_id_length: int,
        now: Callable[[], float],
        *,
        self_signed: str = "",
        max_cached: int = MAX_CACHED,
    ) -> None:
        self.overlay = overlay
        self.node_id_length = node_id_length
        self._now = now
        self._max_cached = max_cached
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._set(root_certificates, bad_nodes, self_signed)

    def _set(
        self, root_certificates: Sequence[bytes], bad_nodes: Collection[NodeId], self_signed: str
    ) -> None:
        roots = [load_certificate(der) for der in root_certificates]
        self._root_certificates = frozenset(root_certificates)
        self._bad_nodes = frozenset(bad_nodes)
        self._self_signed = self_signed
        self._root_names = frozenset(root.subject for root in roots)
        self._store = Store(roots) if roots else None

    def update(
        self,
        root_certificates: Sequence[bytes],
        bad_nodes: Collection[NodeId] = (),
        *,
        self_signed: str = "",
    ) -> None:
        """Judge by a new configuration from now on; what it no longer admits is forgotten at once.

        :raises CertificateError: a root certificate is malformed; then nothing has changed.
        """
        kept = self._root_certificates <= frozenset(root_certificates) and self._self_signed == self_signed
        self._set(root_certificates, bad_nodes, self_signed)
        if not kept:
            self._verified.clear()
        bad = self._bad_nodes
        for fingerprint, verified in list(self._verified.items()):
            if not bad.isdisjoint(verified.identity.node_ids):
                del self._verified[fingerprint]

    def identify(self, der: bytes, intermediates: Sequence[bytes] = ()) -> Identity:
        """Who holds the certificate `der`, if this overlay believes it now.

        `intermediates` may hold the certificates between it and a root, among others: a stranger's input,
        of which no more is parsed than needed.

        :raises CertificateError: the certificate is not believed; it names the cause.
        """
        fingerprint = sha256(der).digest()
        identity = self.recall(fingerprint)
        if identity is not None:
            return identity
        verified = self._verify(der, intermediates)
        self._verified[fingerprint] = verified
        if len(self._verified) > self._max_cached:
            self._verified.popitem(last=False)
        return verified.identity

    def recall(self, fingerprint: bytes) -> Identity | None:
        """The holder of a certificate verified before, by its SHA-256, if it is valid still."""
        verified = self._verified.get(fingerprint)
        if verified is None:
            return None
        if not verified.start <= self._now() <= verified.end:
            del self._verified[fingerprint]
            return None
        self._verified.move_to_end(fingerprint)
        return verified.identity

    def _verify(self, der: bytes, intermediates: Sequence[bytes]) -> _Verified:
        certificate = load_certificate(der)
        identity = Identity.of_loaded(certificate, der, self.overlay, self.node_id_length)
        for node_id in identity.node_ids:
            if node_id in self._bad_nodes:
                raise CertificateError("bad-node", f"Node-ID {node_id.hex()} was revoked")
        now = self._now()
        if now > identity.not_after:
            raise CertificateError("expired", "the certificate has expired")
        if now < identity.not_before:
            raise CertificateError("not-yet-valid", "the certificate is not valid yet")
        if self._self_signed and certificate.issuer == certificate.subject:
            self._check_self_signed(certificate, identity)
            # A role is an authority's to give: nobody is a registrar by its own word.
            return _Verified(replace(identity, role=""), identity.not_before, identity.not_after)
        chain = self._chain(certificate, intermediates, now)
        return _Verified(
            identity,
            max(link.not_valid_before_utc.timestamp() for link in chain),
            min(link.not_valid_after_utc.timestamp() for link in chain),
        )

    def _check_self_signed(self, certificate: x509.Certificate, identity: Identity) -> None:
        """RFC 6940 §11.3.1: "nodes MUST check that the Node-ID and public keys match"."""
        if not has_own_node_ids(identity, self._self_signed):
            raise CertificateError("node-id", "the Node-IDs do not come from the certificate's key")
        try:
            certificate.verify_directly_issued_by(certificate)
        except (InvalidSignature, ValueError, TypeError):
            raise CertificateError("untrusted", "the certificate is not signed with its own key") from None

    def _chain(
        self, certificate: x509.Certificate, intermediates: Sequence[bytes], now: float
    ) -> Sequence[x509.Certificate]:
        """The certificates from this one to a root, by the rules of RFC 5280 §6."""
        if self._store is None:
            raise CertificateError("untrusted", "the overlay has no root certificate")
        between = [] if certificate.issuer in self._root_names else _issuers(certificate, intermediates)
        builder = PolicyBuilder().store(self._store).time(datetime.fromtimestamp(now, UTC))
        builder = builder.max_chain_depth(MAX_CHAIN).extension_policies(ca_policy=_CA, ee_policy=_NODE)
        try:
            return builder.build_client_verifier().verify(certificate, between).chain
        except (VerificationError, *MALFORMED) as error:
            text = f"the certificate does not chain to a root of the overlay: {error}"
            raise CertificateError("untrusted", text) from None


def _issuers(certificate: x509.Certificate, candidates: Sequence[bytes]) -> list[x509.Certificate]:
    """The authorities among `candidates`, if `certificate` names one that is no root."""
    found = []
    for der in candidates[:MAX_INTERMEDIATES]:
        try:
            candidate = load_certificate(der)
        except CertificateError:
            continue
        if candidate.subject and candidate != certificate:
            found.append(candidate)
    return found


def _is_authority(policy: Policy, certificate: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    """RFC 6940 §11.3: "including PKIX BasicConstraints checks"."""
    if not constraints.ca:
        raise ValueError("an issuer is not a certification authority")
    try:
        refuse_unknown_extensions(certificate)
    except CertificateError as error:
        raise ValueError(str(error)) from None


def _may_sign(policy: Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.digital_signature:
        raise ValueError("the key may not be used for signatures")


def _may_issue(policy: Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("an issuer's key may not be used to sign certificates")


_CA: Final = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_authority)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_issue)
)
_NODE: Final = ExtensionPolicy.permit_all().may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_sign)
"""Extended key usages are left to TLS: other implementations' authorities need not know of them."""
