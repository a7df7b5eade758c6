"""Where SIP meets the network: ports, connections, and the transactions that run over them (RFC 3261 §18).

Responses go where RFC 3261 §18.2.2 and RFC 3581 say, with one exception: maddr is not obeyed, since it would let
anybody have our responses sent to anybody else.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, cast

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IProtocolFactory
from twisted.logger import Logger

from ..hostport import address_text
from ..links import stun
from .connections import Connections
from .errors import MessageTooLarge, SIPParseError, TransactionTimeout, TransportFailure
from .exchanges import EdgeFlow, FinalResponse, ServerRequest, too_large
from .headers import MAGIC_COOKIE
from .interfaces import IResponseUser, ITransactionUser, Source, Target
from .machines import (
    AckReceived,
    Action,
    ClientTransaction,
    Overloaded,
    RequestReceived,
    ResponseReceived,
    Send,
    ServerTransaction,
    TimedOut,
)
from .message import Request, Response
from .tls import ClientTLS, ServerTLS, secured
from .transaction import TransactionLayer
from .transport import (
    LARGEST_DATAGRAM,
    DatagramFlow,
    DatagramPort,
    SecureSIPStream,
    SIPConnection,
    SIPRecords,
    SIPStream,
    StreamFactory,
    bound_socket,
    datagram_message,
    host_and_port,
)

LARGEST_UDP_REQUEST = 1300
"""Requests beyond go over TCP (RFC 3261 §18.1.1)."""
DTLS_UDP = "DTLS-UDP"
"""SIP over DTLS; Via says TLS, since other servers on the way stumble over a name that is not registered."""

_OVERLOADED_RETRY = "10"
_SHORTEST_WAIT = 0.01
"""Seconds: of thousands of timers those that end close to each other are fired together."""


class SIPEdge:
    """The SIP element of one node, seen from the network.

    `reactor` gives time, sockets and connections (IReactorTime, IReactorSocket, IReactorTCP); `user` serves the
    requests that come in.  `advertise` are the addresses to name in Via where the port is bound to all addresses;
    `tls` makes connections to other servers over TLS.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        user: ITransactionUser,
        random: Random,
        layer: TransactionLayer | None = None,
        advertise: Sequence[str] = (),
        most_streams: int = 10000,
        idle: float = 7260.0,
        patience: float = 32.0,
        tls: ClientTLS | None = None,
    ) -> None:
        self._reactor = reactor
        self._user = user
        self._random = random
        self.layer = layer or TransactionLayer()
        self._advertise = advertise
        self.counters: Counter[str] = Counter()
        self.connections = Connections(reactor, self, self.counters, most_streams, idle, patience, tls)
        self.listening: list[Target] = []
        """Where it listens."""
        self._ports: list[IListeningPort] = []
        self._datagram_ports: list[DatagramPort] = []
        self._timer: IDelayedCall | None = None
        self._flushing = False
        self._stopped = False

    def now(self) -> float:
        """Seconds, by the reactor."""
        seconds: float = self._reactor.seconds()
        return seconds

    # -- listening ----------------------------------------------------------------------------------------

    def listen(
        self,
        addresses: Sequence[str],
        port: int,
        transports: Sequence[str] = ("UDP", "TCP"),
        server: ServerTLS | None = None,
    ) -> None:
        """Serve SIP on `port` of each of `addresses` (IPv4 or IPv6); port 0 takes any, see `listening`.

        TLS among the `transports` needs a `server`.

        :raises SIPListenError: one of them cannot be had; then none is.
        """
        if "TLS" in transports and server is None:
            raise ValueError("TLS without a certificate")
        sockets: list[tuple[str, socket.socket]] = []
        try:
            for address in addresses:
                for transport in transports:
                    sockets.append((transport, bound_socket(transport, address, port)))
            for transport, bound in sockets:
                self._adopt(transport, bound, server if transport == "TLS" else None)
        finally:
            for _, bound in sockets:
                bound.close()

    def _adopt(self, transport: str, bound: socket.socket, server: ServerTLS | None) -> None:
        host, port = bound.getsockname()[:2]
        if transport == "UDP":
            datagrams = DatagramPort(self._datagram_received)
            self._datagram_ports.append(datagrams)
            self._ports.append(
                self._reactor.adoptDatagramPort(bound.fileno(), bound.family, datagrams, LARGEST_DATAGRAM)
            )
        else:
            factory: IProtocolFactory = StreamFactory(self.stream)
            if server is not None:
                factory = secured(StreamFactory(lambda: SecureSIPStream(self.connections)), server, self._reactor)
            self._ports.append(self._reactor.adoptStreamPort(bound.fileno(), bound.family, factory))
        self.listening.append(Target(transport, host, port))

    def stop(self) -> Deferred[None]:
        """Listen no more and close every connection; waiting requests fail."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waits = [maybeDeferred(port.stopListening) for port in self._ports]
        self._ports, self._datagram_ports, self.listening = [], [], []
        self.connections.close()
        for transaction in list(self.layer.clients.values()):
            transaction.fail()
        self.flush()
        done: Deferred[None] = gatherResults(waits, consumeErrors=True).addCallback(lambda _: None)
        return done

    # -- in -----------------------------------------------------------------------------------------------

    def _datagram_received(self, port: DatagramPort, data: bytes, host: str, port_number: int) -> None:
        if stun.is_stun(data) and self._answer_stun(port, data, (host, port_number)):
            return
        source = Source(host, port_number, "UDP")
        message = datagram_message(data)
        if message is None:
            self.counters["keep-alive"] += 1
        else:
            self._received(message, DatagramFlow(port, host, port_number, source))

    def _answer_stun(self, port: DatagramPort, data: bytes, seen: tuple[str, int]) -> bool:
        """Answer a phone that keeps its flow alive so, and learns when its NAT has changed it (RFC 5626 §3.5.2, §8)."""
        request = stun.parse(data)
        if request is None:
            return False
        self.counters["keep-alive"] += 1
        if stun.is_plain_request(request):
            port.send(stun.binding_response(request, seen), *seen)
        return True

    def _received(self, message: Request | Response | SIPParseError, flow: EdgeFlow) -> None:
        if isinstance(message, SIPParseError):
            self._refuse(message, flow)
            return
        self.counters[f"received over {flow.source.transport}"] += 1
        if isinstance(message, Response):
            self.layer.receive_response(message, self.now())
        else:
            self._stamp(message, flow)
            self.layer.receive_request(message, flow, self.now())
        self.flush()

    def _stamp(self, request: Request, flow: EdgeFlow) -> None:
        """Note the source, and for UDP where responses go (RFC 3261 §18.2, RFC 3581 §4)."""
        request.stamp_source(flow.source.host, flow.source.port)
        if isinstance(flow, DatagramFlow) and "rport" not in request.via.parameters:
            flow.port_number = request.via.port or 5060

    def _refuse(self, error: SIPParseError, flow: EdgeFlow) -> None:
        """Answer what could not be parsed, as far as it can be answered; without a transaction."""
        self.counters["malformed"] += 1
        request = error.message
        if not isinstance(request, Request) or request.method == "ACK" or "Via" not in request.headers:
            return
        try:
            self._stamp(request, flow)
        except SIPParseError:
            pass  # then back to where it came from
        self._respond_without(request, flow, error.status, error.what if error.status == 400 else None)

    def _respond_without(self, request: Request, flow: EdgeFlow, status: int, reason: str | None = None) -> None:
        """Send a response that no transaction remembers (RFC 3261 §8.2.7)."""
        try:
            response = request.response(status, reason, f"{self._random.getrandbits(64):x}")
        except SIPParseError:
            response = request.response(status, reason)
        if status == 503:
            response.set("Retry-After", _OVERLOADED_RETRY)
        flow.send(response.encode())

    # -- what the transaction layer wants done ----------------------------------------------------------------

    def flush(self) -> None:
        """Do what is queued, and see to the next timer."""
        if self._flushing:
            return
        self._flushing = True
        try:
            while (action := self.layer.take()) is not None:
                self._do(action)
        finally:
            self._flushing = False
        self._set_timer()

    def _do(self, action: Action) -> None:
        if isinstance(action, Send):
            flow = cast(EdgeFlow, action.transaction.flow)
            if not flow.send(action.data):
                self._not_sent(action)
        elif isinstance(action, RequestReceived):
            self._deliver(action.transaction)
        elif isinstance(action, ResponseReceived):
            user = action.transaction.user
            if action.response.status >= 200:
                self._settled(action.transaction)
                action.transaction.heard()
            self._tell(user.response_received, action.response)
        elif isinstance(action, AckReceived):
            flow = cast(EdgeFlow, action.flow)
            self._tell(self._user_of(flow).ack_received, action.request, flow)
        elif isinstance(action, Overloaded):
            self.counters["overloaded"] += 1
            self._respond_without(action.request, cast(EdgeFlow, action.flow), 503)
        elif isinstance(action.transaction, ServerTransaction):
            self.counters["no ACK came"] += 1
        else:
            self._settled(action.transaction)
            error = TransactionTimeout() if isinstance(action, TimedOut) else TransportFailure()
            self._tell(action.transaction.user.request_failed, error)

    def _tell(self, told: Callable[..., None], *arguments: Any) -> None:
        """Tell a transaction's user something; whatever goes wrong there, the next message must be served."""
        try:
            told(*arguments)
        except Exception:  # noqa: BLE001
            self.log.failure("a SIP message could not be dealt with")

    def _deliver(self, transaction: ServerTransaction) -> None:
        incoming = ServerRequest(self, transaction)
        try:
            self._user_of(transaction.flow).request_received(incoming)
        except SIPParseError as error:
            response = transaction.request.response(error.status, error.what, f"{self._random.getrandbits(64):x}")
            transaction.respond(response, self.now())
        except Exception:  # noqa: BLE001  (whatever it was, the next request must be served)
            self.log.failure("a request could not be served")
            response = transaction.request.response(500, None, f"{self._random.getrandbits(64):x}")
            transaction.respond(response, self.now())

    def _user_of(self, flow: Any) -> ITransactionUser:
        user: ITransactionUser | None = getattr(flow, "user", None)
        return self._user if user is None else user

    def _not_sent(self, action: Send) -> None:
        """RFC 3261 §18.4 for requests; for responses §18.2.2: a new connection when the old one is closed."""
        transaction = action.transaction
        if isinstance(transaction, ClientTransaction):
            transaction.fail()
            return
        assert isinstance(transaction, ServerTransaction)
        self.counters["response not sent"] += 1
        stream = transaction.flow
        if isinstance(stream, SIPConnection) and stream.transport_name == "TCP" and not self._stopped:
            target = Target("TCP", stream.source.host, transaction.request.via.port or 5060)
            connecting = self.connections.connect(target)
            connecting.addCallback(lambda opened: opened.send(action.data))
            connecting.addErrback(lambda _: None)  # counted above; the client repeats or gives up

    def _set_timer(self) -> None:
        when = self.layer.next_timeout()
        if when is None or self._stopped:
            return
        timer = self._timer
        if timer is not None:
            if timer.getTime() <= max(when, self.now() + _SHORTEST_WAIT):
                return
            timer.cancel()
        self._timer = self._reactor.callLater(max(_SHORTEST_WAIT, when - self.now()), self._advance)

    def _advance(self) -> None:
        self._timer = None
        self.layer.advance(self.now())
        self.flush()

    # -- requests of ours -------------------------------------------------------------------------------------

    def request(self, request: Request, target: Target | SIPConnection) -> Deferred[Response]:
        """Send `request` and answer its final response, whatever its status.

        Via, and what of From tag, Call-ID, CSeq and Max-Forwards is missing, is added.  Fails with
        TransactionTimeout, TransportFailure or MessageTooLarge.
        """
        return Deferred.fromCoroutine(self._request(request, target))

    async def _request(self, request: Request, target: Target | SIPConnection) -> Response:
        self._complete(request)
        flow = await self.flow_to(target, len(request.encode()))
        request.prepend("Via", self.via(flow))
        answer = FinalResponse()
        self.send(request, flow, answer)
        return await answer.waiting

    def send(self, request: Request, flow: EdgeFlow, user: IResponseUser) -> ClientTransaction:
        """Begin a client transaction: send `request`, whose topmost Via is `via` of `flow`; `user` hears what comes.

        :raises MessageTooLarge: the flow does not take so long a message.
        :raises TransportFailure: there are too many transactions.
        """
        if isinstance(flow, SIPConnection) and too_large(request, flow):
            self.counters["request too large"] += 1
            raise MessageTooLarge()
        try:
            transaction = self.layer.send_request(request, flow, self.now(), user)
        except OverflowError:
            raise TransportFailure(reason="Too Many Transactions") from None
        if isinstance(flow, SIPConnection):
            flow.pending.add(transaction)
        self.flush()
        return transaction

    def via(self, flow: EdgeFlow, branch: str = "") -> str:
        """A Via for a request over `flow`, with a branch of its own unless one is given."""
        transport = "TLS" if flow.source.transport == DTLS_UDP else flow.source.transport
        return f"SIP/2.0/{transport} {self.sent_by(flow)};branch={branch or self.branch()};rport"

    @staticmethod
    def _settled(transaction: Any) -> None:
        """No more responses are awaited that a broken connection could keep away."""
        if isinstance(transaction.flow, SIPConnection):
            transaction.flow.pending.discard(transaction)

    async def flow_to(self, target: Target | SIPConnection, size: int = 0) -> EdgeFlow:
        """Where to send a request of `size` bytes for `target`; raises TransportFailure."""
        if isinstance(target, SIPConnection):
            if not target.open:
                raise TransportFailure()
            return target
        if target.transport == "UDP" and size <= LARGEST_UDP_REQUEST:
            return self.datagram_flow(target)
        try:
            secure = target.transport == "TLS"
            return await self.connections.connect(target if secure else Target("TCP", target.host, target.port))
        except Exception as error:
            if target.transport == "UDP":
                return self.datagram_flow(target)
            if isinstance(error, TransportFailure):
                raise
            raise TransportFailure() from error

    def datagram_flow(self, target: Target) -> DatagramFlow:
        """Towards a UDP target, from our first port of its address family."""
        for port in self._datagram_ports:
            if (":" in port.address[0]) == (":" in target.host):
                return DatagramFlow(port, target.host, target.port, Source(target.host, target.port, "UDP"))
        raise TransportFailure(reason="No UDP Port For The Address Family")

    def _complete(self, request: Request) -> None:
        if request.from_.tag is None:
            request.set("From", f"{request.headers['From'][0]};tag={self._random.getrandbits(64):x}")
        for name, value in (
            ("Max-Forwards", "70"),
            ("Call-ID", f"{self._random.getrandbits(128):032x}"),
            ("CSeq", f"1 {request.method}"),
        ):
            if name not in request.headers:
                request.set(name, value)

    def branch(self) -> str:
        """A new branch (RFC 3261 §8.1.1.7)."""
        return f"{MAGIC_COOKIE}{self._random.getrandbits(96):024x}"

    def sent_by(self, flow: EdgeFlow) -> str:
        """Host and port at which we listen, for what is sent over `flow`."""
        if isinstance(flow, DatagramFlow):
            host, port = flow.port.address
        else:
            assert flow.transport is not None
            host, port = host_and_port(flow.transport.getHost())
            host, port = self._where_we_listen(host, port, flow.source.transport)
        if not host or host in ("0.0.0.0", "::"):
            ours = (address for address in self._advertise if (":" in address) == (":" in flow.source.host))
            host = next(ours, self._advertise[0] if self._advertise else host)
        return address_text(host or "localhost", port or 5060)

    def _where_we_listen(self, host: str, port: int, transport: str) -> tuple[str, int]:
        """Where others connect to, as seen from a connection between `host` and somebody; that itself if nowhere.

        A connection of our own making has a port of its own, and maybe an address that nothing listens at.
        """
        ports = [where for where in self.listening if where.transport == transport]
        ports = ports or [where for where in self.listening if where.transport == "TCP"]
        if not ports or any(where.host in (host, "0.0.0.0", "::") for where in ports):
            return host, ports[0].port if ports else port
        alike = next((where for where in ports if (":" in where.host) == (":" in host)), ports[0])
        return alike.host, alike.port

    # -- connections --------------------------------------------------------------------------------------------

    def stream(
        self, user: ITransactionUser | None = None, transport: str = "TCP", source: Source | None = None
    ) -> SIPStream:
        """A protocol that speaks SIP over a stream which somebody else makes, as client and as server.

        `user` serves its requests in place of the edge's own; `transport` (TCP, TLS) is what Via says.
        """
        return SIPStream(self.connections, user, transport, source)

    def records(self, user: ITransactionUser, source: Source, most_bytes: int) -> SIPRecords:
        """As `stream`, over records of at most `most_bytes`, each of which is one message."""
        return SIPRecords(most_bytes, self.connections, user, DTLS_UDP, source)

    def connection_received(
        self, connection: SIPConnection, item: Request | Response | SIPParseError
    ) -> None:
        self._received(item, connection)

    def connection_closed(self, connection: SIPConnection) -> None:
        for transaction in list(connection.pending):
            transaction.fail()
        self.flush()
