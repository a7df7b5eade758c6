"""DTLS over whatever carries datagrams, as a Twisted transport: one write is one record is one datagram (RFC 6347)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol
from typing import cast as typed

from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IProducer,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import LinkError

RECORD_OVERHEAD = 37
"""Bytes that DTLS 1.2 adds to a record: its header, the explicit nonce and the tag of AES-GCM (13 + 8 + 16)."""
MOST_RECORD = 16384
"""Bytes that a record holds at most."""
HANDSHAKE_MTU = 548
"""Bytes of a datagram in the handshake, when nothing is known of the path: what every IPv4 path takes (RFC 8085 §3.2,
576 less the headers of IP and UDP)."""

_RECORD_HEADER = 13
_APPLICATION_DATA = 23


class Carrier(Protocol):
    """What carries the datagrams of one association: a shared port, a socket of its own, or a pair that ICE chose."""

    @property
    def here(self) -> tuple[str, int]:
        """The address and port of this end."""

    @property
    def there(self) -> tuple[str, int]:
        """Those of the other end."""

    def send(self, datagram: bytes) -> None:
        """Send to the other end, or lose it."""

    def send_unfragmented(self, datagram: bytes) -> None:
        """Send to the other end, or lose it: where it is too large for a network on the way, above all."""

    def close(self) -> None:
        """It is not needed any more."""


class Secured(Protocol):
    """The protocol above: `SecuredConnection`, mostly."""

    def makeConnection(self, transport: Any) -> None: ...
    def handshakeCompleted(self) -> None: ...
    def dataReceived(self, data: bytes) -> None: ...
    def connectionLost(self, reason: Failure) -> None: ...


def datagrams(records: bytes, most: int) -> Iterator[bytes]:
    """Cut what OpenSSL wrote into its records, and pack these into datagrams of at most `most` bytes.

    A record that is larger goes alone.
    """
    start = pos = 0
    while pos < len(records):
        end = pos + _RECORD_HEADER + int.from_bytes(records[pos + 11 : pos + 13], "big")
        if end - start > most and pos > start:
            yield records[start:pos]
            start = pos
        pos = end
    if pos > start:
        yield records[start:pos]


@implementer(ITransport, IConsumer, IPushProducer)
class DTLSTransport:
    """One DTLS association.  What is not received whole, in any order, is the protocol's own care.

    `protocol` is told what a protocol above TLS is told: `handshakeCompleted`, `dataReceived` of each record,
    `connectionLost`.
    """

    disconnecting = False

    def __init__(self, connection: SSL.Connection, carrier: Carrier, protocol: Secured, clock: IReactorTime) -> None:
        connection.set_ciphertext_mtu(HANDSHAKE_MTU)
        self._connection = connection
        self._carrier = carrier
        self._protocol = protocol
        self._clock = clock
        self.established = False
        self._timer: IDelayedCall | None = None
        self._producer: IProducer | None = None
        self._paused = False
        self.connected = True

    def start(self) -> None:
        """Begin the handshake, in the role that the connection was given."""
        self._protocol.makeConnection(self)
        self._advance()

    # -- what comes in

    def received(self, datagram: bytes) -> None:
        """A datagram of this association has come; what is not sound is dropped, as RFC 6347 §4.1.2.7 wants."""
        if self.connected and not self.disconnecting:
            self._connection.bio_write(datagram)
            self._advance(self.established and _is_one_record_of_data(datagram))

    def unreachable(self) -> None:
        """The other end's machine says that nobody listens there: a hard ICMP error (RFC 6940 §6.6.3.1)."""
        self._lose(Failure(ConnectionLost("nobody listens there any more")))

    def _advance(self, data_alone: bool = False) -> None:
        """Let OpenSSL work on what came in; with `data_alone` that is one record, which it has no answer to."""
        connection = self._connection
        try:
            if not self.established:
                connection.do_handshake()
                self.established = True
                self._stop_timer()
                # The last flight goes first: the other end needs it to read what we say next.
                self._flush()
                self._protocol.handshakeCompleted()
            while self.connected and not self.disconnecting:
                data = connection.recv(MOST_RECORD)
                if not self._paused:
                    self._protocol.dataReceived(data)
                if data_alone:
                    return
        except SSL.WantReadError:
            self._flush()
            self._set_timer()
        except SSL.ZeroReturnError:
            self._flush()
            self._lose(Failure(ConnectionDone()))
        except SSL.Error:
            failure = Failure()
            self._flush()
            self._lose(failure)

    def _flush(self) -> None:
        try:
            records = self._connection.bio_read(1 << 20)
        except SSL.WantReadError:
            return
        for datagram in datagrams(records, HANDSHAKE_MTU):
            self._carrier.send(datagram)

    def _set_timer(self) -> None:
        self._stop_timer()
        if not self.established and self.connected:
            due = self._connection.DTLSv1_get_timeout()
            if due is not None:
                self._timer = self._clock.callLater(max(0.001, due), self._retransmit)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _retransmit(self) -> None:
        self._timer = None
        if self.connected:
            try:
                self._connection.DTLSv1_handle_timeout()
            except SSL.Error:
                self._lose(Failure())
                return
            self._advance()

    # -- ITransport

    def write(self, data: bytes) -> None:
        """Send one record.

        :raises LinkError: it has more than `MOST_RECORD` bytes.
        """
        self._write(data, self._carrier.send)

    def write_unfragmented(self, data: bytes) -> None:
        """Send one record that is lost where it is too large for the path; raises as `write` does."""
        self._write(data, self._carrier.send_unfragmented)

    def _write(self, data: bytes, send: Callable[[bytes], None]) -> None:
        if len(data) > MOST_RECORD:
            raise LinkError(f"a record of {len(data)} bytes, where DTLS has at most {MOST_RECORD}")
        if self.connected and self.established and data and not self.disconnecting:
            try:
                self._connection.send(data)
                send(self._connection.bio_read(1 << 20))
            except SSL.Error:
                self._end(Failure())

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send one record of all the parts."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Tell the other end, and end; nothing is read any more."""
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            try:
                self._connection.shutdown()
            except SSL.Error:
                pass  # in the midst of the handshake; the other end notices by its timer
            self._flush()
            self._end(Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        """End at once, saying nothing."""
        self._end(Failure(ConnectionLost()))

    def _end(self, reason: Failure) -> None:
        self.disconnecting = True
        self._clock.callLater(0, self._lose, reason)

    def _lose(self, reason: Failure) -> None:
        if self.connected:
            self.connected = False
            self.disconnecting = True
            self._stop_timer()
            self._carrier.close()
            self._protocol.connectionLost(reason)

    def pauseProducing(self) -> None:
        """What comes from now on is lost, as it may be on its way: there is nothing to hold the other end back with."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Deliver again."""
        self._paused = False

    def stopProducing(self) -> None:
        """End, for who takes it for a producer."""
        self.loseConnection()

    def getHandle(self) -> SSL.Connection:
        """The OpenSSL connection, for its certificates."""
        return self._connection

    def getPeer(self) -> IPv4Address | IPv6Address:
        return _address(self._carrier.there)

    def getHost(self) -> IPv4Address | IPv6Address:
        return _address(self._carrier.here)

    # -- IConsumer: UDP takes everything at once, so that nobody is ever told to wait

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError("a producer is registered already")
        self._producer = producer
        if not streaming:
            self._pull(typed(Callable[[], None], producer.resumeProducing))  # type: ignore[attr-defined]

    def _pull(self, resume: Callable[[], None]) -> None:
        if self._producer is not None and self.connected:
            resume()
            self._clock.callLater(0, self._pull, resume)

    def unregisterProducer(self) -> None:
        self._producer = None


def _is_one_record_of_data(datagram: bytes) -> bool:
    return (
        len(datagram) > _RECORD_HEADER
        and datagram[0] == _APPLICATION_DATA
        and _RECORD_HEADER + int.from_bytes(datagram[11:13], "big") == len(datagram)
    )


def _address(place: tuple[str, int]) -> IPv4Address | IPv6Address:
    return IPv6Address("UDP", *place) if ":" in place[0] else IPv4Address("UDP", *place)
