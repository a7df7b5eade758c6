"""(D)TLS with certificates on both ends, and the proof of who the other end is (RFC 6940 §6.6.5, §6.5.1.11)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, cast
from typing import Protocol as Seam

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import (
    BufferingTLSTransport,
    TLSMemoryBIOFactory,
    TLSMemoryBIOProtocol,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import LinkError
from ..ids import NodeId
from ..interfaces import ILinkHost
from ..security.identity import CertificateError, Identity

HANDSHAKE_TIMEOUT = 10.0
CLOSING_TIME = 5.0
"""Seconds for the other end to take what was sent and agree to the end, before the connection is cut."""

KeyLog = Callable[[bytes], object]
"""Takes lines of TLS secrets in the format of SSLKEYLOGFILE, for tests that decode what was sent."""


def key_log() -> KeyLog | None:
    """What appends to the file that SSLKEYLOGFILE names; None where the environment does not name one."""
    name = os.environ.get("SSLKEYLOGFILE", "")
    if not name:
        return None

    def append(line: bytes) -> None:
        with open(name, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as log:
            log.write(line)

    return append


_DTLS1_2_VERSION = 0xFEFD  # pyOpenSSL has no name for it
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))


class Contexts:
    """OpenSSL contexts of one node for `method`, with its current certificate; `set_up` is called for each.

    OpenSSL proves that the other end holds the key of the certificate it shows; whether that certificate is
    believed is judged afterwards, by `Trust` alone.
    """

    def __init__(
        self,
        host: ILinkHost,
        method: int,
        key_log: KeyLog | None = None,
        set_up: Callable[[SSL.Context], None] = lambda context: None,
    ) -> None:
        self._host = host
        self._method = method
        self._key_log = key_log
        self._set_up_more = set_up
        self._certificate = b""
        self._context = SSL.Context(method)

    def current(self) -> SSL.Context:
        """The context for the host's certificate, made anew when that was renewed."""
        certificate = self._host.signer.identity.certificate
        if certificate != self._certificate:
            context = SSL.Context(self._method)
            self._set_up(context, certificate)
            self._context, self._certificate = context, certificate
        return self._context

    def _set_up(self, context: Any, certificate: bytes) -> None:
        datagrams = self._method == SSL.DTLS_METHOD
        context.set_min_proto_version(_DTLS1_2_VERSION if datagrams else SSL.TLS1_2_VERSION)
        context.set_cipher_list(_CIPHERS)
        # A resumed session would not be judged again.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION)
        if datagrams:
            context.set_options(SSL.OP_NO_QUERY_MTU | SSL.OP_NO_RENEGOTIATION)
        context.use_privatekey(self._host.private_key)
        context.use_certificate(x509.load_der_x509_certificate(certificate))
        mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        context.set_verify(mode, lambda connection, shown, error, depth, ok: True)
        if (key_log := self._key_log) is not None:
            context.set_keylog_callback(lambda connection, line: key_log(line + b"\n"))
        self._set_up_more(context)


@implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
class Credentials:
    """Makes TLS connections with the host's current certificate."""

    def __init__(self, host: ILinkHost, key_log: KeyLog | None = None) -> None:
        self._contexts = Contexts(host, SSL.TLS_METHOD, key_log)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self._contexts.current(), None)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self._contexts.current(), None)


class Secured(Seam):
    """What the owner of a `SecuredConnection` offers it."""

    host: ILinkHost

    def handshake_ended(self, connection: SecuredConnection) -> None:
        """The connection is proved, or is gone without; told once for each connection."""

    def crowded(self, node_id: NodeId) -> bool:
        """Whether there are too many incoming links of `node_id` for another."""

    def connection_ended(self, connection: SecuredConnection) -> None:
        """The connection is gone; told once for each that was made."""


@implementer(IHandshakeListener)
class SecuredConnection(Protocol):
    """One TLS or DTLS connection: unproved at first, then proved or refused.

    `expected` is the Node-ID that the certificate must name; None takes any node with exactly one.  A
    subclass is told of the proof by `proved`, and of the end by `ended`.  `opened` fires with the connection
    once it is proved.
    """

    log = Logger()

    def __init__(self, service: Secured, address: str, outgoing: bool, expected: NodeId | None) -> None:
        self.service = service
        self.address = address
        self.outgoing = outgoing
        self.expected = expected
        self.opened: Deferred[SecuredConnection] = Deferred(lambda _: self.abandon())
        self.is_proved = False
        self.closing = False
        self.reason: Exception | None = None
        self.stop_connecting: Callable[[], object] | None = None
        self.in_handshake = True
        """Neither proved nor gone."""
        self._timer: IDelayedCall | None = None

    @property
    def tls(self) -> TLSMemoryBIOProtocol:
        """The transport, for what only TLS over TCP can do."""
        return cast(TLSMemoryBIOProtocol, self.transport)

    # -- for subclasses

    def proved(self, identity: Identity, node_id: NodeId) -> None:
        """The other end is `node_id`."""
        raise NotImplementedError

    def ended(self, reason: Exception | None) -> None:
        """A connection that was proved is gone; None after a close in good order by the other end."""
        raise NotImplementedError

    # -- from what carries the datagrams of DTLS

    def path_silent(self, dead: bool) -> None:
        """The other end does not answer STUN; with `dead`: for so long that nobody waits any more."""
        if dead and not self.closing:
            self.reason = self.reason or LinkError(f"{self.address}: no answer any more")
            self.closing = True
            self.tls.abortConnection()

    def path_answers(self) -> None:
        """The other end answers STUN (again)."""

    # -- from Twisted

    def connectionMade(self) -> None:
        clock = self.service.host.clock
        self._timer = clock.callLater(HANDSHAKE_TIMEOUT, self.refuse, "handshake timeout")
        if ITCPTransport.providedBy(self.transport):
            self.tls.setTcpNoDelay(True)
            self.tls.setTcpKeepAlive(True)
            # A peer that vanished without a word is noticed within two minutes.
            handle = cast(Any, self.tls.transport).getHandle()
            for option, value in _KEEPALIVE:
                if isinstance(handle, socket.socket) and hasattr(socket, option):
                    handle.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def handshakeCompleted(self) -> None:
        if self.closing:
            return
        try:
            shown, between = self._shown()
            identity = self.service.host.trust.identify(shown, between)
            node_id = self._judge(identity)
        except CertificateError as error:
            self.refuse(error.cause, f"{self.address}: {error}")
            return
        self._end_handshake()
        self.is_proved = True
        self.proved(identity, node_id)
        self.opened.callback(self)

    def _shown(self) -> tuple[bytes, Sequence[bytes]]:
        """The certificate that the other end showed, and those it sent with it: DER."""
        connection = self.tls.getHandle()
        try:
            shown = connection.get_peer_certificate(as_cryptography=True)
            chain = connection.get_peer_cert_chain(as_cryptography=True) or ()
        except (ValueError, x509.InvalidVersion) as error:
            raise CertificateError("malformed", f"certificate is malformed: {error}") from None
        if shown is None:
            raise CertificateError("no certificate", "no certificate was shown")
        between = [each.public_bytes(Encoding.DER) for each in chain if each != shown]
        return shown.public_bytes(Encoding.DER), between

    def _judge(self, identity: Identity) -> NodeId:
        """Which node the holder of a valid certificate is to us."""
        if self.service.host.signer.node_id in identity.node_ids:
            raise CertificateError("our own Node-ID", "this is the node itself")
        if self.expected is not None:
            # RFC 6940 s6.5.1.11: the certificate "MUST match the node which sent the AttachReqAns".
            if self.expected not in identity.node_ids:
                raise CertificateError("other Node-ID", f"is not the node {self.expected.hex()}")
            return self.expected
        if len(identity.node_ids) != 1:
            # Which of them it speaks for is only known from a message signed with one (RFC 6940 §6.1.2).
            raise CertificateError("several Node-IDs", "the certificate has several Node-IDs")
        return identity.node_ids[0]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_timer()
        cause = reason.value if isinstance(reason.value, Exception) else LinkError(str(reason.value))
        if self.is_proved:
            self.ended(self.reason or (None if isinstance(cause, ConnectionDone) else cause))
        else:
            if self.reason is None:
                self.service.host.owner.link_rejected("handshake", self.address)
                why = f"{self.address}: handshake failed: {_describe(cause)}"
                self.reason = LinkError(why)
            self._end_handshake()
            self._fail(self.reason)
        self.service.connection_ended(self)

    # -- the end

    def refuse(self, cause: str, text: str = "") -> None:
        """Close what has not become a link, and count why."""
        self.reason = LinkError(text or f"{self.address}: {cause}")
        self.service.host.owner.link_rejected(cause, self.address)
        # Until it is closed it counts as unproved: who is refused cannot collect connections that way.
        self.disconnect(self.reason)

    def abandon(self) -> None:
        """Give up a connection that nobody waits for any more."""
        if not self.is_proved:
            self.reason = self.reason or LinkError(f"{self.address}: given up")
            self.closing = True
            if self.transport is not None:
                self.tls.abortConnection()
            elif self.stop_connecting is not None:
                self.stop_connecting()

    def give_way(self) -> None:
        """End an incoming connection that was not proved in time, since others want to begin theirs."""
        self.reason = self.reason or LinkError(f"{self.address}: gave way to others")
        self.service.host.owner.link_rejected("gave way", self.address)
        self._end_handshake()
        self.abandon()

    def disconnect(self, reason: Exception | None) -> None:
        """Close in good order, within `CLOSING_TIME`."""
        if not self.closing:
            self.closing = True
            self.reason = self.reason or reason
            self._stop_timer()
            self._timer = self.service.host.clock.callLater(CLOSING_TIME, self.tls.abortConnection)
            self.tls.loseConnection()

    def unconnected(self, reason: Failure) -> None:
        """TCP could not connect."""
        self.give_up(LinkError(f"cannot connect to {self.address}: {reason.getErrorMessage()}"))

    def give_up(self, reason: Exception) -> None:
        """It could not even be begun."""
        self._fail(self.reason or reason)

    def _fail(self, reason: Exception) -> None:
        if not self.opened.called:
            # Nobody needs to wait: of an incoming connection only the counters tell.
            self.opened.addErrback(lambda failure: failure if self.outgoing else None)
            self.opened.errback(reason)

    def _end_handshake(self) -> None:
        if self.in_handshake:
            self.in_handshake = False
            self._stop_timer()
            self.service.handshake_ended(self)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


def _describe(cause: Exception) -> str:
    """An OpenSSL error in words."""
    if isinstance(cause, SSL.Error) and cause.args and isinstance(cause.args[0], list):
        return ", ".join(str(entry[-1]) for entry in cause.args[0]) or "closed"
    return str(cause)


class _ImpatientTLS(BufferingTLSTransport):
    """TLS that an application closes within `CLOSING_TIME`, too: the other end need not agree to the end."""

    _cut: IDelayedCall | None = None

    def loseConnection(self) -> None:
        """Close in good order."""
        if self._cut is None and self.connected:
            self._cut = self.factory._clock.callLater(CLOSING_TIME, self.abortConnection)
        super().loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is closed."""
        if self._cut is not None and self._cut.active():
            self._cut.cancel()
        super().connectionLost(reason)


def wrapped(factory: TLSMemoryBIOFactory, protocol: SecuredConnection) -> TLSMemoryBIOProtocol:
    """`protocol` with TLS below it."""
    made: TLSMemoryBIOProtocol = _ImpatientTLS(factory, protocol)
    return made


def tls_factory(credentials: Credentials, host: ILinkHost, client: bool) -> TLSMemoryBIOFactory:
    """What `wrapped` needs, for either role."""
    return TLSMemoryBIOFactory(credentials, client, Factory(), host.clock)
