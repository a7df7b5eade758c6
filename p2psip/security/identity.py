"""Who the holder of a certificate is (RFC 6940 §11.3, §14.15).

A node's certificate has an empty subject and a critical SubjectAltName with one ``reload:`` URI for each
Node-ID and exactly one rfc822Name, the user name.  Its role in the overlay is a certificate policy of ours
(`ROLES`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from typing import Final, NamedTuple, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID

from ..ids import NodeId, invalid_node_id, wildcard_node_id

PublicKey = EllipticCurvePublicKey | RSAPublicKey

POLICY_ARC: Final = "2.25.113704067615774601696388031030452068186"
"""Our own arc, made of a random UUID (ITU-T X.667): nobody has to register it."""

ROLES: Final = {"peer": f"{POLICY_ARC}.1", "registrar": f"{POLICY_ARC}.2", "user": f"{POLICY_ARC}.3"}
"""What a certificate entitles its holder to, as the OID of a certificate policy."""

_ROLE_OF: Final = {oid: role for role, oid in ROLES.items()}
_URI: Final = re.compile(r"reload://([0-9A-Fa-f]+)@([^/?#@]+)/", re.IGNORECASE)
_MAILBOX: Final = re.compile(r"[!-~]+@[!-~]+")

MAX_CERTIFICATE: Final = 8192
"""Bytes of a DER certificate; that of one Node-ID takes about 600."""
MAX_NODE_IDS: Final = 64
MAX_USER_NAME: Final = 254

_UNDERSTOOD: Final = frozenset(
    {
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    }
)

MALFORMED: Final = (
    TypeError,
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises for certificates and requests that are malformed."""

_PARSED_LATE: Final = ("issuer", "subject", "extensions", "not_valid_before_utc", "not_valid_after_utc")
"""What the library parses, and may find malformed, when it is first asked for."""


class CertificateError(Exception):
    """A certificate that this overlay does not accept.

    `cause` is short and for counters (``san``, ``expired``, ``bad-node``); the text tells people what is
    wrong.
    """

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Identity:
    """What a certificate says of its holder.  It says so whoever issued it: `Trust` judges that.

    Times are seconds since the epoch; `fingerprint` is the SHA-256 of `certificate` (DER).  `role` is one of
    `ROLES`, or empty.
    """

    user_name: str
    node_ids: tuple[NodeId, ...]
    certificate: bytes = field(repr=False)
    fingerprint: bytes
    not_before: float
    not_after: float
    role: str
    public_key: PublicKey = field(compare=False, repr=False)

    @classmethod
    def from_certificate(cls, der: bytes, overlay: str, node_id_length: int = 16) -> Self:
        """Read the certificate of a node or user of `overlay`.

        :raises CertificateError: the certificate is not of the form that RFC 6940 §11.3 demands.
        """
        return cls.of_loaded(load_certificate(der), der, overlay, node_id_length)

    @classmethod
    def of_loaded(cls, certificate: x509.Certificate, der: bytes, overlay: str, node_id_length: int = 16) -> Self:
        """The same of `der`, from which `load_certificate` has made `certificate`."""
        try:
            return cls._read(certificate, der, overlay, node_id_length)
        except MALFORMED as error:
            raise CertificateError("malformed", f"certificate is malformed: {error}") from None

    @classmethod
    def _read(cls, certificate: x509.Certificate, der: bytes, overlay: str, node_id_length: int) -> Self:
        if len(certificate.subject) != 0:
            raise CertificateError("subject", "the subject is not empty")
        refuse_unknown_extensions(certificate)
        names = _names(certificate)
        emails = names.get_values_for_type(x509.RFC822Name)
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        if len(emails) + len(uris) != len(names):
            raise CertificateError("san", "SubjectAltName has names that are neither URI nor rfc822Name")
        if len(emails) != 1:
            raise CertificateError("san", f"SubjectAltName has {len(emails)} rfc822Names instead of one")
        if not 1 <= len(uris) <= MAX_NODE_IDS:
            raise CertificateError("san", f"SubjectAltName has {len(uris)} reload: URIs")
        node_ids = tuple(node_id_of_uri(uri, overlay, node_id_length) for uri in uris)
        if len(set(node_ids)) != len(node_ids):
            raise CertificateError("node-id", "a Node-ID stands in SubjectAltName twice")
        return cls(
            user_name=valid_user_name(emails[0]),
            node_ids=node_ids,
            certificate=der,
            fingerprint=sha256(der).digest(),
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
            role=_role(certificate),
            public_key=public_key_of(certificate),
        )


class SignedBy(NamedTuple):
    """Who made a verified signature: the certificate's holder, and which of its Node-IDs it spoke for."""

    identity: Identity
    node_id: NodeId


def load_certificate(der: bytes) -> x509.Certificate:
    """Parse a DER certificate of bounded size: its names, validity and extensions are well formed.

    :raises CertificateError: it is too large, or not a certificate.
    """
    if len(der) > MAX_CERTIFICATE:
        raise CertificateError("too-large", f"certificate has {len(der)} bytes, more than {MAX_CERTIFICATE}")
    try:
        certificate = x509.load_der_x509_certificate(der)
        for part in _PARSED_LATE:
            getattr(certificate, part)
    except MALFORMED as error:
        raise CertificateError("malformed", f"not a DER certificate: {error}") from None
    return certificate


def public_key_of(certificate: x509.Certificate | x509.CertificateSigningRequest) -> PublicKey:
    """The public key, if it is one of those understood: EC P-256 or P-384, RSA of 2048 to 4096 bits."""
    try:
        key = certificate.public_key()
    except MALFORMED as error:
        raise CertificateError("key", f"the public key is not usable: {error}") from None
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1 | SECP384R1):
        return key
    if isinstance(key, RSAPublicKey) and 2048 <= key.key_size <= 4096:
        return key
    raise CertificateError("key", "the public key is neither EC P-256 or P-384 nor RSA of 2048 to 4096 bits")


def refuse_unknown_extensions(certificate: x509.Certificate) -> None:
    """Refuse what RFC 5280 §4.2 says must be refused: a critical extension that is not understood."""
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            name = extension.oid.dotted_string
            raise CertificateError("extension", f"critical extension {name} is unknown")


def reload_uri(node_id: NodeId, overlay: str) -> str:
    """The ``reload:`` URI of a node, as it stands in SubjectAltName (RFC 6940 §14.15)."""
    return f"reload://01{len(node_id):02x}{node_id.hex()}@{overlay}/"


def node_id_of_uri(uri: str, overlay: str, node_id_length: int = 16) -> NodeId:
    """The Node-ID in a ``reload:`` URI: a Destination List of one ``node_id``, and no specifier."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise CertificateError("san", "a URI in SubjectAltName is not reload://DESTINATION@OVERLAY/")
    destination, name = match.groups()
    if name.lower() != overlay.lower():
        raise CertificateError("overlay", f"the certificate is for another overlay than {overlay}")
    head = f"01{node_id_length:02x}"
    if not destination.lower().startswith(head) or len(destination) != len(head) + 2 * node_id_length:
        raise CertificateError("node-id", f"a URI's destination is not one Node-ID of {node_id_length} bytes")
    node_id = NodeId(bytes.fromhex(destination[len(head) :]))
    if node_id in (invalid_node_id(node_id_length), wildcard_node_id(node_id_length)):
        raise CertificateError("node-id", "the Node-ID is the invalid or the wildcard one")
    return node_id


def self_signed_node_ids(
    public_key: PublicKey, digest: str, count: int = 1, node_id_length: int = 16
) -> tuple[NodeId, ...]:
    """The Node-IDs of whoever holds `public_key` and signs its certificate itself (RFC 6940 §11.3.1).

    `digest` is "sha1" or "sha256"; several Node-IDs differ by an index from 1, put before the key as 4 bytes.
    """
    info = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    inputs = [info] if count == 1 else [index.to_bytes(4) + info for index in range(1, count + 1)]
    if digest == "sha256":
        digests = [sha256(data).digest() for data in inputs]
    elif digest == "sha1":
        digests = [sha1(data, usedforsecurity=False).digest() for data in inputs]
    else:
        raise ValueError(f"unknown digest {digest!r}")
    return tuple(NodeId(value[:node_id_length]) for value in digests)


def has_own_node_ids(identity: Identity, digest: str) -> bool:
    """Whether the Node-IDs are those that the holder's key gives by `digest`, as in a self-signed certificate.

    Node-IDs that an authority chose never are.
    """
    length, count = len(identity.node_ids[0]), len(identity.node_ids)
    return set(self_signed_node_ids(identity.public_key, digest, count, length)) == set(identity.node_ids)


def valid_user_name(name: str) -> str:
    """`name`, if it can be a user name: an address of printable ASCII (RFC 5280 §4.2.1.6) without blanks.

    RFC 6940 §11.3: "only legal characters in the name (e.g., no embedded NULs)".
    """
    if len(name) > MAX_USER_NAME or not _MAILBOX.fullmatch(name):
        raise CertificateError("user-name", "the user name is not an address of printable ASCII characters")
    return name


def _names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        raise CertificateError("san", "there is no SubjectAltName") from None
    if not extension.critical:
        # RFC 5280 §4.1.2.6: with an empty subject the subjectAltName extension must be critical.
        raise CertificateError("san", "SubjectAltName is not critical although the subject is empty")
    return extension.value


def _role(certificate: x509.Certificate) -> str:
    try:
        policies = certificate.extensions.get_extension_for_class(x509.CertificatePolicies).value
    except x509.ExtensionNotFound:
        return ""
    roles = {_ROLE_OF.get(policy.policy_identifier.dotted_string, "") for policy in policies} - {""}
    if len(roles) > 1:
        raise CertificateError("role", "the certificate names several roles")
    return roles.pop() if roles else ""
