"""Keys, the overlay's certification authority, certificate requests and what is issued for them (RFC 6940
§11.3).

Times are seconds since the epoch; keys are `cryptography` private keys; certificates and requests are DER.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..ids import NodeId
from .identity import (
    MALFORMED,
    ROLES,
    CertificateError,
    PublicKey,
    load_certificate,
    public_key_of,
    reload_uri,
    self_signed_node_ids,
    valid_user_name,
)

PrivateKey = EllipticCurvePrivateKey | RSAPrivateKey

KEY_TYPES: Final = ("ec", "rsa")
"""EC P-256, and RSA of 2048 bits for implementations that know nothing else (RFC 6940 §6.3.4)."""

BACKDATED: Final = 3600.0
"""How long before the time of issue a certificate's validity begins: clocks differ."""

MAX_REQUEST: Final = 8192
"""Bytes of a certificate request."""

# -- Keys -------------------------------------------------------------------------------------------


def generate_key(key_type: str = "ec") -> PrivateKey:
    """Make a new key of one of `KEY_TYPES`; ValueError for any other."""
    if key_type == "ec":
        return generate_ec_key(SECP256R1())
    if key_type == "rsa":
        return generate_rsa_key(public_exponent=65537, key_size=2048)
    raise ValueError(f"unknown key type {key_type!r}, known are {', '.join(KEY_TYPES)}")


def private_key_pem(key: PrivateKey) -> bytes:
    """The key as PKCS#8 PEM, not encrypted: whoever writes it sets the file mode 0600."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_private_key(pem: bytes) -> PrivateKey:
    """Read a PEM key that is not encrypted.

    :raises CertificateError: it is no such key, or of a type that the overlay does not use.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError("key", f"not a private key in PEM: {error}") from None
    if isinstance(key, EllipticCurvePrivateKey | RSAPrivateKey):
        return key
    raise CertificateError("key", "the private key is neither EC nor RSA")


def certificate_pem(*certificates: bytes) -> bytes:
    """DER certificates as one PEM text."""
    return b"".join(load_certificate(der).public_bytes(Encoding.PEM) for der in certificates)


def certificates_of_pem(pem: bytes) -> tuple[bytes, ...]:
    """The DER certificates in a PEM text, in their order.

    :raises CertificateError: there is none, or one is malformed.
    """
    try:
        return tuple(c.public_bytes(Encoding.DER) for c in x509.load_pem_x509_certificates(pem))
    except MALFORMED as error:
        raise CertificateError("malformed", f"no certificates in PEM: {error}") from None


# -- Requests ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """What a PKCS#10 request asks for; the requester has proved that it holds the key.

    `user_name` is empty if the request names none.
    """

    user_name: str
    public_key: PublicKey = field(repr=False)


def make_request(key: PrivateKey, user_name: str) -> bytes:
    """A PKCS#10 request for `user_name`, which stands in it as SubjectAltName rfc822Name."""
    names = x509.SubjectAlternativeName([x509.RFC822Name(valid_user_name(user_name))])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.add_extension(names, critical=True).sign(key, SHA256()).public_bytes(Encoding.DER)


def read_request(der: bytes) -> CertificateRequest:
    """Read a PKCS#10 request and check that its maker holds the key.

    The user name is the rfc822Name of SubjectAltName, else the subject's emailAddress: RFC 6940 does not say
    where it stands.

    :raises CertificateError: the request is malformed, or its own signature is wrong.
    """
    if len(der) > MAX_REQUEST:
        raise CertificateError("request", f"the request has {len(der)} bytes, more than {MAX_REQUEST}")
    try:
        request = x509.load_der_x509_csr(der)
        public_key = public_key_of(request)
        proved = request.is_signature_valid
        user_name = _requested_name(request)
    except MALFORMED as error:
        raise CertificateError("request", f"the request is malformed: {error}") from None
    if not proved:
        raise CertificateError("request", "the request is not signed with the key in it")
    return CertificateRequest(valid_user_name(user_name) if user_name else "", public_key)


def _requested_name(request: x509.CertificateSigningRequest) -> str:
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        emails = names.get_values_for_type(x509.RFC822Name)
    except x509.ExtensionNotFound:
        emails = []
    emails = emails or [str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)]
    if len(emails) > 1:
        raise CertificateError("request", "the request names several users")
    return emails[0] if emails else ""


# -- The authority ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Authority:
    """The central enrollment authority: what makes an overlay's certificates."""

    certificate: bytes
    private_key: PrivateKey = field(repr=False, compare=False)

    def issue(
        self,
        public_key: PublicKey,
        *,
        overlay: str,
        user_name: str,
        node_ids: Sequence[NodeId],
        role: str,
        now: float,
        lifetime: float,
    ) -> bytes:
        """Issue the certificate of a node, or of a user at a node; `role` is one of `ROLES`.

        It does not outlive the authority's own certificate.  Random Node-IDs are the caller's to choose.

        :raises CertificateError: the user name cannot be one.
        """
        builder = _node_certificate(public_key, overlay, user_name, node_ids)
        policy = x509.PolicyInformation(x509.ObjectIdentifier(ROLES[role]), None)
        builder = builder.add_extension(x509.CertificatePolicies([policy]), critical=False)
        return self._sign(builder, now, lifetime)

    def issue_server(
        self, public_key: PublicKey, *, hosts: Sequence[str], now: float, lifetime: float, sip_domain: str = ""
    ) -> bytes:
        """Issue the certificate of an HTTPS or SIP server, for host names and IP addresses; it is no node's.

        `sip_domain` is the domain that it serves SIP for (RFC 5922 §4.1).
        """
        names = [_host(host) for host in hosts]
        if sip_domain:
            names.append(x509.UniformResourceIdentifier(f"sip:{sip_domain}"))
        builder = _leaf(public_key, x509.SubjectAlternativeName(names), [ExtendedKeyUsageOID.SERVER_AUTH])
        return self._sign(builder, now, lifetime)

    def _sign(self, builder: x509.CertificateBuilder, now: float, lifetime: float) -> bytes:
        own = load_certificate(self.certificate)
        end = min(_date(now + lifetime), own.not_valid_after_utc)
        start = max(_date(now - BACKDATED), own.not_valid_before_utc)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.private_key.public_key())
        builder = builder.issuer_name(own.subject).not_valid_before(start).not_valid_after(end)
        builder = builder.add_extension(issuer, critical=False)
        return builder.sign(self.private_key, SHA256()).public_bytes(Encoding.DER)


def make_authority(overlay: str, key: PrivateKey, now: float, lifetime: float) -> Authority:
    """Make the authority of a new overlay: a self-signed root certificate for `key`."""
    common_name = x509.NameAttribute(NameOID.COMMON_NAME, f"{overlay} authority"[:64])
    name = x509.Name([common_name])
    public_key = key.public_key()
    key_id = x509.SubjectKeyIdentifier.from_public_key(public_key)
    builder = (
        _certificate(public_key, name)
        .issuer_name(name)
        .not_valid_before(_date(now - BACKDATED))
        .not_valid_after(_date(now + lifetime))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(key_id, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key), critical=False)
    )
    return Authority(builder.sign(key, SHA256()).public_bytes(Encoding.DER), key)


def make_self_signed(
    key: PrivateKey,
    *,
    overlay: str,
    user_name: str,
    digest: str,
    now: float,
    lifetime: float,
    count: int = 1,
    node_id_length: int = 16,
) -> bytes:
    """Make a node's own certificate for an overlay that permits that (RFC 6940 §11.3.1).

    Its `count` Node-IDs come from the key, by `digest` ("sha1" or "sha256").
    """
    node_ids = self_signed_node_ids(key.public_key(), digest, count, node_id_length)
    builder = (
        _node_certificate(key.public_key(), overlay, user_name, node_ids)
        .issuer_name(x509.Name([]))
        .not_valid_before(_date(now - BACKDATED))
        .not_valid_after(_date(now + lifetime))
    )
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


# -- The parts of a certificate -------------------------------------------------------------------------


def _node_certificate(
    public_key: PublicKey, overlay: str, user_name: str, node_ids: Sequence[NodeId]
) -> x509.CertificateBuilder:
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(reload_uri(node_id, overlay)) for node_id in node_ids
    ]
    names.append(x509.RFC822Name(valid_user_name(user_name)))
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return _leaf(public_key, x509.SubjectAlternativeName(names), usages)


def _leaf(
    public_key: PublicKey, names: x509.SubjectAlternativeName, usages: Sequence[x509.ObjectIdentifier]
) -> x509.CertificateBuilder:
    """What is not an authority.  The subject is empty, so the names are critical (RFC 5280 §4.1.2.6)."""
    return (
        _certificate(public_key, x509.Name([]))
        .add_extension(names, critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _certificate(public_key: PublicKey, subject: x509.Name) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).public_key(public_key)
    return builder.serial_number(x509.random_serial_number())


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
