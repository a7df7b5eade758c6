"""HTTPS between nodes and the enrollment server: whom each side believes, and what it shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from zope.interface import implementer

from ..security.certificates import PrivateKey
from ..security.identity import CertificateError, public_key_of
from .tokens import key_fingerprint


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _context() -> Any:
    # pyOpenSSL's annotations differ from version to version, and from those published apart.
    ssl: Any = SSL
    context = ssl.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(ssl.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


@implementer(IOpenSSLClientConnectionCreator)
class TrustedServer:
    """Connections to servers that are who they should be.

    Made by `pinned_server` and `named_server`.  `complaint` says what is wrong with a server that is refused.
    """

    def __init__(
        self,
        name: str,
        complaint: str,
        accepts: Callable[[x509.Certificate, bool], bool],
        roots: Sequence[bytes] = (),
        certificate: bytes | None = None,
        private_key: PrivateKey | None = None,
        any_chain: bool = False,
    ) -> None:
        self.complaint = complaint
        self._any_chain = any_chain
        self._server_name = None if _is_address(name) else name.encode("idna")
        self._accepts = accepts
        self._context = _context()
        self._context.set_verify(SSL.VERIFY_PEER, self._verified)
        if not any_chain:
            self._context.set_default_verify_paths()
        store = self._context.get_cert_store()
        for root in roots:
            if store is not None:
                store.add_cert(crypto.load_certificate(crypto.FILETYPE_ASN1, root))
        if certificate is not None and private_key is not None:
            self._context.use_certificate(x509.load_der_x509_certificate(certificate))
            self._context.use_privatekey(private_key)

    def _verified(self, _connection: SSL.Connection, shown: Any, _error: int, depth: int, ok: int) -> bool:
        if depth > 0:
            return bool(ok) or self._any_chain
        return self._accepts(shown.to_cryptography(), bool(ok))

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """A connection for one exchange; the name is shown to the server (SNI)."""
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(tlsProtocol)
        if self._server_name is not None:
            connection.set_tlsext_host_name(self._server_name)
        return connection


def pinned_server(fingerprint: bytes, overlay: str) -> TrustedServer:
    """Whoever holds the key with this fingerprint, as a join token names it."""

    def accepts(certificate: x509.Certificate, _ok: bool) -> bool:
        try:
            return key_fingerprint(public_key_of(certificate)) == fingerprint
        except CertificateError:
            return False

    return TrustedServer(overlay, "it has another key than the token names", accepts, any_chain=True)


def named_server(
    name: str,
    roots: Sequence[bytes] = (),
    certificate: bytes | None = None,
    private_key: PrivateKey | None = None,
) -> TrustedServer:
    """A server whose certificate matches `name`, a host name or IP address (RFC 2818).

    The certificate comes from one of `roots` (DER) or from an authority that this machine believes.
    Certificates of an overlay's nodes and users cannot pass: they carry no such name.

    :param certificate: DER, what to show the server, with its `private_key`.
    """
    matches = verify_certificate_ip_address if _is_address(name) else verify_certificate_hostname

    def accepts(shown: x509.Certificate, ok: bool) -> bool:
        try:
            matches(shown, name)
        except (VerificationError, ValueError):
            return False
        return ok

    complaint = f"it has no certificate for {name} that can be trusted"
    return TrustedServer(name, complaint, accepts, roots, certificate, private_key)


@implementer(IOpenSSLServerConnectionCreator)
class ServerCreator:
    """The server's end: shows its chain and asks for a client certificate, which the resources judge.

    :param chain: DER certificates, the server's own first.
    """

    def __init__(self, chain: Sequence[bytes], private_key: PrivateKey) -> None:
        context = _context()
        own, *others = [x509.load_der_x509_certificate(c) for c in chain]
        context.use_certificate(own)
        for other in others:
            context.add_extra_chain_cert(other)
        context.use_privatekey(private_key)
        # Anybody may connect (curl enrolls without a certificate); who shows one proves that it has its key.
        context.set_verify(SSL.VERIFY_PEER, lambda _connection, _certificate, _error, _depth, _ok: True)
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """A connection for one client."""
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(tlsProtocol)
        return connection
