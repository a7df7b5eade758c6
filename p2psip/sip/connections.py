"""The connections of an edge: bounded in number and in patience, reused for requests (RFC 3261 §18)."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..throttle import source_key
from .errors import ServerUntrusted, SIPParseError, TransportFailure
from .interfaces import Source, Target
from .message import Request, Response
from .tls import ClientTLS, ServerOfDomain
from .transport import SecureSIPStream, SIPConnection, SIPStream

_SWEEP = 10.0
_CONNECT_TIMEOUT = 10
_MOST_CONNECTING = 256
"""Connections of ours that are being opened at once."""


class ConnectionsOwner(Protocol):
    """Who is told what comes over the connections."""

    def connection_received(self, connection: SIPConnection, item: Request | Response | SIPParseError) -> None: ...

    def connection_closed(self, connection: SIPConnection) -> None: ...


class Connections:
    """All open connections, those that were idle longest first.

    At most `most` at once: then the one that was idle longest gives way, of those with the address that has the most,
    so that a stranger's connections only push out each other.  One that is idle for `idle` seconds, that takes
    `patience` seconds to end a message or does not take for as long what is sent to it, is closed.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        owner: ConnectionsOwner,
        counters: Counter[str],
        most: int,
        idle: float,
        patience: float,
        tls: ClientTLS | None = None,
    ) -> None:
        self._reactor = reactor
        self._owner = owner
        self._counters = counters
        self._most = most
        self._idle = idle
        self._patience = patience
        self._tls = tls
        self._open: OrderedDict[SIPConnection, str] = OrderedDict()
        self._sources: Counter[str] = Counter()
        self._by_source: dict[Source, SIPConnection] = {}
        self._outgoing: dict[Target, SIPStream] = {}
        self._waiting: dict[Target, list[Deferred[SIPStream]]] = {}
        self._sweep: IDelayedCall | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._open)

    def now(self) -> float:
        seconds: float = self._reactor.seconds()
        return seconds

    def find(self, source: Source) -> SIPConnection | None:
        """The open connection whose other end is `source`."""
        found = self._by_source.get(source)
        return found if found is not None and found.open else None

    def connect(self, target: Target) -> Deferred[SIPStream]:
        """An open connection to `target`, over TCP or TLS, the one there is or a new one.

        Fails as Twisted's connect does, with TransportFailure, or with ServerUntrusted where the other end has no
        certificate of `target.name`.
        """
        result: Deferred[SIPStream] = Deferred()
        known = self._outgoing.get(target)
        if known is not None and known.open:
            result.callback(known)
        elif target in self._waiting:
            self._waiting[target].append(result)
        elif self._closed or len(self._waiting) >= _MOST_CONNECTING:
            result.errback(Failure(TransportFailure()))
        else:
            self._waiting[target] = [result]
            make = TCP6ClientEndpoint if ":" in target.host else TCP4ClientEndpoint
            endpoint = make(self._reactor, target.host, target.port, timeout=_CONNECT_TIMEOUT)
            opening = self._secured(endpoint, target) if target.transport == "TLS" else self._plain(endpoint, target)
            opening.addBoth(self._connected, target)
        return result

    def _plain(self, endpoint: IStreamClientEndpoint, target: Target) -> Deferred[SIPStream]:
        stream = SIPStream(self)
        stream.outgoing = target
        opening: Deferred[SIPStream] = connectProtocol(endpoint, stream)
        return opening

    def _secured(self, endpoint: IStreamClientEndpoint, target: Target) -> Deferred[SIPStream]:
        """RFC 5922 §7.3: a server that does not prove to be of the domain gets nothing."""
        if self._tls is None or not target.name:
            return fail(TransportFailure(reason="No TLS Here"))
        server = self._tls.server_of(target.name)
        secured: Deferred[SIPStream] = Deferred()
        stream = SecureSIPStream(self, secured)
        stream.outgoing = target
        connectProtocol(wrapClientTLS(server, endpoint), stream).addErrback(stream.failed)
        secured.addTimeout(2 * _CONNECT_TIMEOUT, self._reactor)
        return secured.addErrback(self._not_secured, stream, server)

    def _not_secured(self, failure: Failure, stream: SecureSIPStream, server: ServerOfDomain) -> Failure:
        if stream.open:
            stream.abort()
        if not server.complaint:
            return failure
        self._counters["server not trusted"] += 1
        self.log.info("no TLS with {server}: {why}", server=str(stream.outgoing), why=server.complaint)
        return Failure(ServerUntrusted(server.complaint))

    def _connected(self, outcome: SIPStream | Failure, target: Target) -> None:
        if isinstance(outcome, SIPStream):
            self._outgoing[target] = outcome
        for waiting in self._waiting.pop(target):
            waiting.callback(outcome)

    def close(self) -> None:
        """Close all, and take no more."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in list(self._open):
            connection.abort()

    # -- what connections tell ---------------------------------------------------------------------------

    def connection_opened(self, connection: SIPConnection) -> bool:
        if self._closed:
            return False
        if len(self._open) >= self._most:
            self._counters["connection gave way"] += 1
            busiest, _ = self._sources.most_common(1)[0]
            longest_idle = next(each for each, source in self._open.items() if source == busiest)
            self._forget(longest_idle)
            longest_idle.abort()
        source = self._open[connection] = source_key(connection.source.host)
        self._sources[source] += 1
        self._by_source[connection.source] = connection
        if self._sweep is None:
            self._sweep = self._reactor.callLater(_SWEEP, self._sweep_all)
        return True

    def connection_active(self, connection: SIPConnection) -> None:
        if connection in self._open:
            self._open.move_to_end(connection)

    def connection_received(self, connection: SIPConnection, item: Request | Response | SIPParseError) -> None:
        self._owner.connection_received(connection, item)

    def _forget(self, connection: SIPConnection) -> None:
        source = self._open.pop(connection, None)
        if source is not None:
            if self._by_source.get(connection.source) is connection:
                del self._by_source[connection.source]
            self._sources[source] -= 1
            if not self._sources[source]:
                del self._sources[source]

    def connection_closed(self, connection: SIPConnection) -> None:
        self._forget(connection)
        if connection.handshaking:
            self._counters["TLS handshake failed"] += 1
        if connection.outgoing is not None and self._outgoing.get(connection.outgoing) is connection:
            del self._outgoing[connection.outgoing]
        if not self._open and self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._owner.connection_closed(connection)

    def _sweep_all(self) -> None:
        self._sweep = None
        now = self.now()
        for connection in list(self._open):
            since = (connection.message_began, connection.blocked_since)
            if now - connection.last_active > self._idle or any(
                start is not None and now - start > self._patience for start in since
            ):
                self._counters["connection closed as idle"] += 1
                connection.abort()
        if self._open and not self._closed:
            self._sweep = self._reactor.callLater(_SWEEP, self._sweep_all)
