"""SIP over TLS: what a server shows, and whom a client believes (RFC 3261 §26.3.1, RFC 5922)."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, Final
from weakref import WeakKeyDictionary

from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from .errors import SIPParseError
from .uri import SIPURI, bare_host, parse_uri

MOST_NAMES: Final = 1000
"""Names of one certificate that are looked at."""


_ERRORS: Final = {
    9: "is not valid yet",
    10: "has expired",
    18: "is self-signed",
    19: "comes from an authority that is not trusted",
    20: "comes from an authority that is not trusted",
    21: "comes from an authority that is not trusted",
    26: "is not for servers",
}
"""Of X509_V_ERR_..., the likely ones."""


class TLSError(Exception):
    """A certificate and key that cannot be used; the text says why."""


def _context() -> Any:
    # pyOpenSSL's annotations differ from version to version.
    ssl: Any = SSL
    context = ssl.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(ssl.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


def secured(streams: IProtocolFactory, server: ServerTLS, reactor: IReactorTime) -> IProtocolFactory:
    """A factory for ports, whose connections are those of `streams` over TLS."""
    factory = TLSMemoryBIOFactory(server, False, streams, reactor)
    factory.noisy = False
    return factory


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """A server's end.  The certificate can be replaced at any time, for the connections that come.

    Clients are not asked for certificates: phones have none, and prove themselves by their passwords.
    """

    def __init__(self, chain: Sequence[x509.Certificate], private_key: Any) -> None:
        self.use(chain, private_key)

    def use(self, chain: Sequence[x509.Certificate], private_key: Any) -> None:
        """Show this chain, the server's own certificate first.

        :raises TLSError: it cannot be used, or the key is that of another certificate; then nothing has changed.
        """
        if not chain:
            raise TLSError("there is no certificate in it")
        context = _context()
        try:
            context.use_certificate(chain[0])
            for other in chain[1:]:
                context.add_extra_chain_cert(other)
            context.use_privatekey(private_key)
            context.check_privatekey()
        except (SSL.Error, TypeError, ValueError) as error:
            raise TLSError(f"the key is not that of the certificate, or neither can be used: {error}") from None
        self._context = context

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """A connection for one client."""
        return SSL.Connection(self._context, None)


class ClientTLS:
    """A client's end: makes connections to servers that have to be those of a domain.

    :param roots: authorities that are believed beside those of the system.
    """

    def __init__(self, roots: Sequence[x509.Certificate] = ()) -> None:
        # Twisted keeps its own in a connection's app data.
        self._servers: WeakKeyDictionary[SSL.Connection, ServerOfDomain] = WeakKeyDictionary()
        self.trust(roots)

    def trust(self, roots: Sequence[x509.Certificate]) -> None:
        """Believe these, and the system's, from now on."""
        context = _context()
        context.set_default_verify_paths()
        store = context.get_cert_store()
        for root in roots:
            store.add_cert(crypto.X509.from_cryptography(root))
        context.set_verify(SSL.VERIFY_PEER, self._verified)
        self._context = context

    def server_of(self, name: str) -> ServerOfDomain:
        """Makes connections to a server of `name`, a domain or an IP address."""
        return ServerOfDomain(self, name)

    def connection(self, server: ServerOfDomain) -> SSL.Connection:
        """One connection to `server`, which judges what is shown; the domain is told to the server (SNI)."""
        connection = SSL.Connection(self._context, None)
        self._servers[connection] = server
        if _address(server.name) is None:
            connection.set_tlsext_host_name(server.name.encode("ascii", "replace"))
        return connection

    def _verified(self, connection: SSL.Connection, shown: Any, error: int, depth: int, _ok: int) -> bool:
        return self._servers[connection].judge(shown.to_cryptography(), error, depth)


@implementer(IOpenSSLClientConnectionCreator)
class ServerOfDomain:
    """Connections to whoever has a certificate of this domain or address; the handshake with others fails."""

    def __init__(self, client: ClientTLS, name: str) -> None:
        self._client = client
        self.name = name
        self.complaint = ""
        """What is wrong with the certificate that was shown."""

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """One connection."""
        return self._client.connection(self)

    def judge(self, shown: x509.Certificate, error: int, depth: int) -> bool:
        """Whether a certificate will do, at `depth` above the server's own; `error` is OpenSSL's, 0: none."""
        if error:
            self.complaint = f"its certificate {_ERRORS.get(error, f'is not trusted (OpenSSL error {error})')}"
        elif depth == 0 and not shows(shown, self.name):
            self.complaint = f"its certificate is not that of {self.name}"
        return not self.complaint


def shows(certificate: x509.Certificate, name: str) -> bool:
    """Whether `certificate` is that of `name`, a domain or an IP address.

    Of a domain it is by a ``sip:`` URI without user in subjectAltName, or a DNS name where there is no such URI;
    whole names only, no wildcards (RFC 5922 §7.1, §7.2).
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        address = _address(name)
        if address is not None:
            return address in names.get_values_for_type(x509.IPAddress)
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)[:MOST_NAMES]
        domains = [domain for uri in uris if (domain := _domain_of(uri)) is not None]
        domains = domains or names.get_values_for_type(x509.DNSName)[:MOST_NAMES]
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    return name.lower() in (domain.lower() for domain in domains)


def _domain_of(text: str) -> str | None:
    """The domain that a URI in a certificate identifies; None where it is no SIP domain's (RFC 5922 §7.1)."""
    try:
        uri = parse_uri(text)
    except SIPParseError:
        return None
    return uri.address if isinstance(uri, SIPURI) and uri.scheme == "sip" and uri.user is None else None


def _address(name: str) -> Any:
    try:
        return ip_address(bare_host(name))
    except ValueError:
        return None
