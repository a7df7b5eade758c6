"""Twisted protocols that carry SIP: UDP ports and connections, of streams or of records (RFC 3261 §18)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, MessageLengthError
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHandshakeListener,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from .errors import SIPListenError, SIPParseError
from .interfaces import ITransactionUser, Source, Target
from .machines import ClientTransaction
from .message import Request, Response, parse
from .stream import KeepAlive, StreamParser

UDP_BUFFER = 4 * 2**20
"""Bytes asked of the kernel: with less, a burst is lost and its repetition makes the next one bigger."""

LARGEST_DATAGRAM = 65535
PING, PONG = b"\r\n\r\n", b"\r\n"
"""The keep-alives of RFC 5626 §3.5.1."""
_NOT_SIP = b"\r\n\0 "
_IPPROTO_IPV6 = socket.IPPROTO_IPV6


class ConnectionOwner(Protocol):
    """What a connection needs of the edge."""

    def connection_opened(self, connection: SIPConnection) -> bool:
        """Whether there is room for it; if not, it is closed."""

    def connection_closed(self, connection: SIPConnection) -> None: ...

    def connection_received(
        self, connection: SIPConnection, item: Request | Response | SIPParseError
    ) -> None: ...

    def connection_active(self, connection: SIPConnection) -> None: ...

    def now(self) -> float: ...


class DatagramFlow:
    """Towards one address over one of our UDP ports."""

    __slots__ = ("host", "port", "port_number", "source", "user")

    reliable = False

    def __init__(
        self, port: DatagramPort, host: str, port_number: int, source: Source, user: ITransactionUser | None = None
    ) -> None:
        self.port = port
        self.host = host
        self.port_number = port_number
        self.source = source
        self.user = user

    def send(self, data: bytes) -> bool:
        """Send one datagram; False when it could not even be tried."""
        return self.port.send(data, self.host, self.port_number)


class DatagramPort(DatagramProtocol):
    """One bound UDP port; `received` is called with itself, the datagram, host and port number."""

    def __init__(self, received: Callable[[DatagramPort, bytes, str, int], None]) -> None:
        self._received = received
        self._address: tuple[str, int] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port at which it is bound."""
        if self._address is None:
            assert self.transport is not None
            self._address = host_and_port(self.transport.getHost())
        return self._address

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self._received(self, datagram, addr[0], addr[1])

    def send(self, data: bytes, host: str, port: int) -> bool:
        if self.transport is None:
            return False
        try:
            self.transport.write(data, (host, port))
        except (OSError, MessageLengthError) as error:
            # A full buffer is a loss on the way like any other; what can never go is told.
            return isinstance(error, OSError) and error.errno in (errno.EAGAIN, errno.ENOBUFS)
        return True


@implementer(IPushProducer)
class SIPConnection(StreamProtocol):
    """SIP over one connection, incoming or outgoing.  What is received is cut into messages by a subclass.

    Over TCP the edge makes it; over a connection between nodes, `SIPEdge.stream` or `SIPEdge.records` does and the
    caller hands it to the connection.  As a producer it stops reading while the other side does not take what is
    sent.
    """

    transport: Any
    reliable = True
    most_bytes: int | None = None
    """Of a message that can be sent, if that has a limit."""

    def __init__(
        self,
        owner: ConnectionOwner,
        user: ITransactionUser | None = None,
        transport_name: str = "TCP",
        source: Source | None = None,
    ) -> None:
        self._owner = owner
        self._closed = True
        self._registered = False
        self.user = user
        self.transport_name = transport_name
        self.source = source or Source("", 0, transport_name)
        self._source_given = source is not None
        self.outgoing: Target | None = None
        self.pending: set[ClientTransaction] = set()
        """Requests of ours that wait for a response over it."""
        self.last_active = 0.0
        """When anything was received last."""
        self.last_message = 0.0
        """When a message was sent or received last."""
        self.message_began: float | None = None
        """Since when a message has been incomplete."""
        self.blocked_since: float | None = None
        """Since when the other side has not taken what is sent, or that it ends."""
        self.handshaking = False
        """Whether it is not yet secured."""

    @property
    def open(self) -> bool:
        return not self._closed

    def connectionMade(self) -> None:
        self._closed = False
        if not self._source_given:
            host, port = host_and_port(self.transport.getPeer())
            self.source = Source(host, port, self.transport_name)
        self.last_active = self.last_message = self._owner.now()
        if not self._owner.connection_opened(self):
            self.abort()
            return
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        if IConsumer.providedBy(self.transport):
            self.transport.registerProducer(self, True)
            self._registered = True

    def dataReceived(self, data: bytes) -> None:
        if self._closed:
            return
        self.last_active = self._owner.now()
        self.receive(data)
        if self.open:
            self._owner.connection_active(self)

    def receive(self, data: bytes) -> None:
        """Hand on the messages in `data`, and answer pings."""
        raise NotImplementedError

    def received(self, item: Request | Response | SIPParseError) -> None:
        """Hand on one message, or what should be one."""
        self.last_message = self.last_active
        self._owner.connection_received(self, item)

    def send(self, data: bytes) -> bool:
        """Send a message; False when the connection is closed, or the message too large for it."""
        if self._closed or (self.most_bytes is not None and len(data) > self.most_bytes):
            return False
        self.last_message = self._owner.now()
        self.transport.write(data)
        return True

    def ping(self) -> None:
        """Ask for a sign of life, which shows in `last_active` (RFC 5626 §3.5.1)."""
        self._keep_alive(PING)

    def _keep_alive(self, data: bytes) -> None:
        if not self._closed:
            self.transport.write(data)

    def close(self) -> None:
        """Close once what was sent has gone out."""
        self._closed = True
        if self.blocked_since is None:
            self.blocked_since = self._owner.now()
        self._unregister()
        self.transport.loseConnection()

    def abort(self) -> None:
        """Close at once."""
        self._closed = True
        if ITCPTransport.providedBy(self.transport):
            self.transport.abortConnection()
        else:
            self._unregister()
            self.transport.loseConnection()

    def _unregister(self) -> None:
        """TLS does not end while there is a producer."""
        if self._registered:
            self._registered = False
            self.transport.unregisterProducer()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self._closed = True
        self._owner.connection_closed(self)

    # IPushProducer: what the transport tells us about its buffer

    def pauseProducing(self) -> None:
        if self.blocked_since is None:
            self.blocked_since = self._owner.now()
        if IPushProducer.providedBy(self.transport):
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.blocked_since = None
        if IPushProducer.providedBy(self.transport):
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` follows."""


class SIPStream(SIPConnection):
    """SIP over a stream of bytes, such as TCP or TLS."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._parser = StreamParser()

    def receive(self, data: bytes) -> None:
        for item in self._parser.receive(data):
            if item is KeepAlive.PING:
                self._keep_alive(PONG)
            elif not isinstance(item, KeepAlive):
                self.received(item)
                if isinstance(item, SIPParseError) and item.fatal:
                    self.close()
            if not self.open:
                return
        if not self._parser.mid_message:
            self.message_began = None
        elif self.message_began is None:
            self.message_began = self.last_active


@implementer(IHandshakeListener)
class SecureSIPStream(SIPStream):
    """A stream over TLS that the edge makes itself: counted from the first byte of the handshake on.

    The handshake has to end in the time that a message may take.
    """

    def __init__(self, owner: ConnectionOwner, secured: Deferred[SIPStream] | None = None) -> None:
        super().__init__(owner, None, "TLS")
        self._waiting = secured

    def connectionMade(self) -> None:
        self.handshaking = True
        super().connectionMade()
        self.message_began = self.last_active

    def handshakeCompleted(self) -> None:
        """The other end is who it should be, as far as that was asked."""
        self.handshaking = False
        self.message_began = None
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(self)

    def failed(self, reason: Failure) -> None:
        """It will never be secured."""
        if self._waiting is not None and not self._waiting.called:
            self._waiting.errback(reason)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        super().connectionLost(reason)
        self.failed(reason)


class SIPRecords(SIPConnection):
    """SIP over records that come whole, or not at all, or out of order: over DTLS.  Each is one message.

    As with any datagram what follows the body is ignored, and Content-Length may be missing (RFC 3261 §18.3).
    """

    reliable = False

    def __init__(self, most_bytes: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.most_bytes = most_bytes

    def receive(self, data: bytes) -> None:
        if data == PING:
            self._keep_alive(PONG)
        message = datagram_message(data)
        if message is not None:
            self.received(message)


def datagram_message(data: bytes) -> Request | Response | SIPParseError | None:
    """The message that a datagram is; None for a keep-alive."""
    data = data.lstrip(b"\r\n")
    if not data.strip(_NOT_SIP):
        return None
    try:
        return parse(data)
    except SIPParseError as error:
        return error


class StreamFactory(Factory):
    """Makes the streams of incoming connections."""

    noisy = False

    def __init__(self, build: Callable[[], SIPStream]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> SIPStream:
        return self._build()


def host_and_port(address: IAddress) -> tuple[str, int]:
    """Of an IPv4 or IPv6 address; empty and 0 of any other."""
    return getattr(address, "host", ""), getattr(address, "port", 0)


def bound_socket(transport: str, address: str, port: int) -> socket.socket:
    """A socket bound for `transport` (UDP, TCP or TLS), an IPv6 one for IPv6 alone.

    :raises SIPListenError: the address or port cannot be had.
    """
    kind = socket.SOCK_DGRAM if transport == "UDP" else socket.SOCK_STREAM
    try:
        family, _, _, _, where = socket.getaddrinfo(
            address, port, type=kind, flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind)
    except OSError as error:
        raise SIPListenError(transport, address, port, error.strerror or str(error)) from error
    try:
        if family == socket.AF_INET6:
            made.setsockopt(_IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if transport == "UDP":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_BUFFER)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UDP_BUFFER)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setblocking(False)
        made.bind(where)
        if transport != "UDP":
            made.listen(1024)
    except OSError as error:
        made.close()
        raise SIPListenError(transport, address, port, error.strerror or str(error)) from error
    return made
