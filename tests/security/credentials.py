"""Keys and certificates for tests, made afresh: P-256 keys cost next to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from p2psip.ids import NodeId
from p2psip.security.certificates import (
    Authority,
    PrivateKey,
    generate_key,
    make_authority,
    make_self_signed,
)
from p2psip.security.identity import Identity, self_signed_node_ids
from p2psip.security.signing import Signer

OVERLAY = "overlay.example.org"
NOW = 1_800_000_000.0
DAY = 86400.0
NODE_A = NodeId(bytes(range(0x10, 0x20)))
NODE_B = NodeId(bytes(range(0x20, 0x30)))


def authority(overlay: str = OVERLAY) -> Authority:
    """A new authority, valid for ten years from an hour before NOW."""
    return make_authority(overlay, generate_key(), NOW, 3650 * DAY)


def certificate(
    ca: Authority, key: PrivateKey, node_ids: Sequence[NodeId] = (NODE_A,), lifetime: float = 30 * DAY
) -> bytes:
    """A peer's certificate, issued NOW."""
    return ca.issue(
        key.public_key(),
        overlay=OVERLAY,
        user_name="alice@example.org",
        node_ids=node_ids,
        role="peer",
        now=NOW,
        lifetime=lifetime,
    )


def signer(
    ca: Authority, node_ids: Sequence[NodeId] = (NODE_A,), node_id: NodeId | None = None, key_type: str = "ec"
) -> Signer:
    """One who signs with a new key and certificate."""
    key = generate_key(key_type)
    identity = Identity.from_certificate(certificate(ca, key, node_ids), OVERLAY, len(node_ids[0]))
    return Signer(identity, key, node_id)


def self_certified(
    key: PrivateKey,
    digest: str,
    node_id: NodeId | None = None,
    *,
    overlay: str = OVERLAY,
    user_name: str = "mallory@example.org",
    role: str = "",
    now: float = NOW,
) -> bytes:
    """A certificate of its holder's own making, forged where it names a Node-ID, or a role, of the holder's choice."""
    honest = make_self_signed(
        key, overlay=overlay, user_name=user_name, digest=digest, now=now, lifetime=DAY
    )
    if node_id is None and not role:
        return honest
    return Authority(honest, key).issue(
        key.public_key(),
        overlay=overlay,
        user_name=user_name,
        node_ids=[node_id] if node_id else self_signed_node_ids(key.public_key(), digest),
        role=role or "peer",
        now=now,
        lifetime=DAY,
    )


def odd_certificate(
    ca: Authority,
    names: Sequence[x509.GeneralName] | None,
    *,
    subject: x509.Name | None = None,
    critical: bool = True,
    key: PrivateKey | None = None,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ca_subject: x509.Name | None = None,
) -> bytes:
    """A certificate with whatever names and extensions are wanted; valid NOW."""
    key = key or generate_key()
    issuer = x509.load_der_x509_certificate(ca.certificate).subject if ca_subject is None else ca_subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]) if subject is None else subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(NOW - DAY, UTC))
        .not_valid_after(datetime.fromtimestamp(NOW, UTC) + timedelta(days=30))
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical)
    for extension, is_critical in extra:
        builder = builder.add_extension(extension, is_critical)
    return builder.sign(ca.private_key, SHA256()).public_bytes(Encoding.DER)
