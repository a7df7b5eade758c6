"""The sockets of DTLS links: one that listens, shared by all that connect to it, and one for each that we connect.

Nothing is kept of whoever sends to the listening one until the cookie has come back that DTLS sends to its address
(RFC 6347 §4.2.1).
"""

from __future__ import annotations

import hmac
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IReactorTime
from twisted.internet.protocol import DatagramProtocol

from ..hostport import address_text
from ..throttle import source_key
from .dtls import DTLSTransport
from .handshake import Contexts, SecuredConnection
from .keepalive import Keepalive
from .stun import Place, binding_response, is_dtls, is_plain_request, is_stun, parse

LARGEST_DATAGRAM = 65536
RECEIVE_BUFFER = 4 << 20
"""Bytes asked for; the system may give less (net.core.rmem_max).  With its default a burst of answers is lost."""
COOKIE_LIFE = 60.0
"""Seconds after which the secret of the cookies is changed; those made with the one before are still taken."""
SILENCE = 45.0
"""Seconds without a datagram after which the other end of an association is gone, where it sends STUN every 5 s."""
_LOOK = 10.0

# Level and option, as Linux has them; Python's socket module does not name them.
_MTU_DISCOVER = {socket.AF_INET: (socket.IPPROTO_IP, 10), socket.AF_INET6: (socket.IPPROTO_IPV6, 23)}
_DONT, _PROBE = 0, 3
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_LEAST_CLIENT_HELLO = 60


def prepare(handle: socket.socket) -> None:
    """Have a socket take bursts, and send without the DF bit of IPv4: the sizes that a path takes we find out.

    With it an ICMP message on a datagram of ours that was too large would be an error of the next one (ip(7)).
    """
    with suppress(OSError):
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if option := _mtu_discovery(handle):
            handle.setsockopt(*option, _DONT)


@contextmanager
def unfragmented(handle: socket.socket | None) -> Iterator[None]:
    """What is sent meanwhile from a socket is fragmented nowhere, whatever the system believes of the path."""
    option = _mtu_discovery(handle) if handle is not None else None
    if handle is None or option is None:
        yield
        return
    handle.setsockopt(*option, _PROBE)
    try:
        yield
    finally:
        handle.setsockopt(*option, _DONT)
        # The answer of a router near by: taking it off keeps it from the next datagram.
        handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _mtu_discovery(handle: socket.socket) -> tuple[int, int] | None:
    usable = sys.platform == "linux" and handle.fileno() >= 0
    return _MTU_DISCOVER.get(handle.family) if usable else None


class Cookies:
    """Makes and checks the cookies of one node: what only who receives at an address can know."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._secrets = [os.urandom(32)] * 2
        self._made = clock.seconds()

    def set_up(self, context: SSL.Context) -> None:
        """Have `context` ask for cookies; the app data of its connections is the other end's `Place`."""
        made_for: Any = context
        made_for.set_options(SSL.OP_COOKIE_EXCHANGE)
        made_for.set_cookie_generate_callback(self._make)
        made_for.set_cookie_verify_callback(self._check)

    def _make(self, connection: SSL.Connection) -> bytes:
        self._renew()
        return self._cookie(self._secrets[0], connection)

    def _check(self, connection: SSL.Connection, cookie: bytes) -> bool:
        self._renew()
        return any(hmac.compare_digest(cookie, self._cookie(secret, connection)) for secret in self._secrets)

    def _renew(self) -> None:
        age = self._clock.seconds() - self._made
        if age > COOKIE_LIFE:
            secret = os.urandom(32)
            self._secrets = [secret, self._secrets[0] if age < 2 * COOKIE_LIFE else secret]
            self._made = self._clock.seconds()

    @staticmethod
    def _cookie(secret: bytes, connection: SSL.Connection) -> bytes:
        return hmac.digest(secret, repr(connection.get_app_data()).encode(), "sha256")


class Links(Protocol):
    """What a door needs of the links of its node."""

    clock: IReactorTime
    listening: Contexts
    """With cookies."""
    connecting: Contexts
    answers_stun: bool

    def admit(self, source: str) -> bool: ...
    def accepted(self, connection: SecuredConnection, source: str) -> None: ...
    def connected(self, connection: SecuredConnection) -> None: ...
    def reject(self, cause: str, address: str) -> None: ...
    def close_socket(self, port: IListeningPort) -> None: ...


class _Socket(DatagramProtocol):
    """What the sockets of both kinds have in common."""

    noisy = False

    def startProtocol(self) -> None:
        handle: socket.socket = self.transport.getHandle()  # type: ignore[union-attr]
        if handle is not None:
            prepare(handle)

    def _write(self, datagram: bytes, there: Place | None) -> None:
        # No buffer, no route, too large for the path: lost, as it might have been anywhere else on its way.
        try:
            self.transport.write(datagram, there)  # type: ignore[union-attr]
        except (OSError, MessageLengthError):
            pass

    def _write_unfragmented(self, datagram: bytes, there: Place | None) -> None:
        with unfragmented(self.transport.getHandle()):  # type: ignore[union-attr]
            self._write(datagram, there)


class Door(_Socket):
    """The socket that listens.  `make` makes the connection of somebody who proved to receive at an address."""

    def __init__(self, links: Links, make: Callable[[str], SecuredConnection]) -> None:
        self._links = links
        self._make = make
        self._known: dict[Place, _Shared] = {}
        self._retired = False
        self._looking: IDelayedCall | None = None
        self.port: IListeningPort

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        place = (addr[0], addr[1])
        known = self._known.get(place)
        if known is not None:
            known.heard = self._links.clock.seconds()
        if is_dtls(datagram):
            if known is None or (known.transport.established and _begins(datagram)):
                self._meet(datagram, place)
            else:
                known.transport.received(datagram)
        elif is_stun(datagram) and self._links.answers_stun:
            message = parse(datagram)
            if message is not None and is_plain_request(message):
                self._write(binding_response(message, place), place)

    def _meet(self, datagram: bytes, place: Place) -> None:
        """A datagram from somebody unknown: send a cookie, or begin the handshake of who sent it back."""
        if self._retired or not _begins(datagram):
            return
        connection = SSL.Connection(self._links.listening.current(), None)
        connection.set_app_data(place)
        connection.set_accept_state()
        connection.bio_write(datagram)
        try:
            connection.DTLSv1_listen()
        except SSL.WantReadError:
            with suppress(SSL.WantReadError):
                self._write(connection.bio_read(LARGEST_DATAGRAM), place)
        except SSL.Error:
            self._links.reject("malformed ClientHello", address_text(*place))
        else:
            self._accept(connection, place)

    def _accept(self, connection: SSL.Connection, place: Place) -> None:
        source = source_key(place[0])
        address = address_text(*place)
        if not self._links.admit(source):
            self._links.reject("too many connections", address)
            return
        made = self._make(address)
        before = self._known.get(place)
        if before is not None:
            # RFC 6347 §4.2.8: it has lost its end of the association, and has just proved to be there.
            before.transport.abortConnection()
        self._links.accepted(made, source)
        shared = self._known[place] = _Shared(self, place, connection, made, self._links.clock)
        if self._links.answers_stun and self._looking is None:
            self._looking = self._links.clock.callLater(_LOOK, self._drop_silent)
        shared.transport.start()

    def _drop_silent(self) -> None:
        """End the associations whose other end has vanished without a word."""
        since = self._links.clock.seconds() - SILENCE
        for each in list(self._known.values()):
            if each.heard < since:
                each.connection.path_silent(True)
        self._looking = self._links.clock.callLater(_LOOK, self._drop_silent)

    def here(self) -> Place:
        """Where this socket listens."""
        at: Any = self.port.getHost()
        return at.host, at.port

    def retire(self) -> None:
        """Take nobody any more; the socket is closed once the last association over it has ended."""
        self._retired = True
        self._close_if_idle()

    def left(self, shared: _Shared) -> None:
        """An association has ended."""
        if self._known.get(shared.there) is shared:
            del self._known[shared.there]
        if not self._known and self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._retired and not self._known:
            self._links.close_socket(self.port)


class _Shared:
    """One association's part of the socket that listens."""

    def __init__(
        self, door: Door, there: Place, ssl: SSL.Connection, connection: SecuredConnection, clock: IReactorTime
    ) -> None:
        self._door = door
        self.there = there
        self.here = door.here()
        self.heard = clock.seconds()
        """When the last datagram came from there."""
        self.connection = connection
        self.transport = DTLSTransport(ssl, self, connection, clock)

    def send(self, datagram: bytes) -> None:
        self._door._write(datagram, self.there)

    def send_unfragmented(self, datagram: bytes) -> None:
        self._door._write_unfragmented(datagram, self.there)

    def close(self) -> None:
        self._door.left(self)


class Dial(_Socket):
    """The socket of one connection that we begin; with `keepalive` STUN keeps its NAT binding and watches the path."""

    def __init__(self, links: Links, connection: SecuredConnection, there: Place, keepalive: Keepalive | None) -> None:
        self._links = links
        self._connection = connection
        self._keepalive = keepalive
        self._transport: DTLSTransport | None = None
        self._starting: IDelayedCall | None = None
        self.there = there
        self.port: IListeningPort

    def startProtocol(self) -> None:
        super().startProtocol()
        self.transport.connect(*self.there)  # type: ignore[union-attr]
        self._starting = self._links.clock.callLater(0, self._start)

    def _start(self) -> None:
        self._starting = None
        connection = SSL.Connection(self._links.connecting.current(), None)
        connection.set_connect_state()
        self._transport = DTLSTransport(connection, self, self._connection, self._links.clock)
        self._links.connected(self._connection)
        self._transport.start()
        if self._keepalive is not None:
            self._keepalive.start(lambda request: self._write(request, None))

    @property
    def here(self) -> Place:
        """The address of this socket."""
        at: Any = self.port.getHost()
        return at.host, at.port

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if is_dtls(datagram) and self._transport is not None:
            self._transport.received(datagram)
        elif is_stun(datagram) and self._keepalive is not None:
            self._keepalive.received(datagram)

    def connectionRefused(self) -> None:
        """The other end's machine says that nobody listens there (a hard ICMP error, RFC 6940 §6.6.3.1)."""
        if self._transport is not None:
            self._links.clock.callLater(0, self._transport.unreachable)

    def send(self, datagram: bytes) -> None:
        self._write(datagram, None)

    def send_unfragmented(self, datagram: bytes) -> None:
        self._write_unfragmented(datagram, None)

    def close(self) -> None:
        """Close the socket; the handshake may not even have begun."""
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
        if self._keepalive is not None:
            self._keepalive.stop()
        self._links.close_socket(self.port)


def _begins(datagram: bytes) -> bool:
    """Whether a datagram may be a ClientHello that begins an association: handshake, epoch 0."""
    return (
        len(datagram) >= _LEAST_CLIENT_HELLO
        and datagram[0] == _HANDSHAKE
        and datagram[1] == 0xFE
        and datagram[3:5] == b"\0\0"
        and datagram[13] == _CLIENT_HELLO
    )
