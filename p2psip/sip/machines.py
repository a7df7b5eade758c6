"""The four transaction machines of SIP (RFC 3261 §17, as RFC 6026 corrects it).

No I/O: `now` (seconds) comes with every call, and what is to be done is queued as actions in the layer that holds
the machine; see `p2psip.sip.transaction`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from .message import Request, Response


class Flow(Protocol):
    """Where a message goes to or came from."""

    @property
    def reliable(self) -> bool:
        """Whether the transport itself repeats what is lost."""


class State(Enum):
    """The states of all four machines (RFC 3261 §17, RFC 6026 §7)."""

    CALLING = "Calling"
    TRYING = "Trying"
    PROCEEDING = "Proceeding"
    COMPLETED = "Completed"
    CONFIRMED = "Confirmed"
    ACCEPTED = "Accepted"
    TERMINATED = "Terminated"


@dataclass(frozen=True, slots=True)
class Timers:
    """The base of all timers, in seconds (RFC 3261 §17.1.1.1)."""

    t1: float = 0.5
    t2: float = 4.0
    t4: float = 5.0
    d: float = 32.0
    trying: float = 0.2
    """After this the server transaction sends 100 by itself (RFC 3261 §17.2.1)."""

    @property
    def timeout(self) -> float:
        return 64 * self.t1


class Send(NamedTuple):
    """Send `data` over the transaction's flow."""

    transaction: Transaction
    data: bytes


class RequestReceived(NamedTuple):
    """A request that is new: the transaction user is to respond."""

    transaction: ServerTransaction


class AckReceived(NamedTuple):
    """An ACK that ends no transaction here: for a 2xx, or a stray."""

    request: Request
    flow: Flow


class Overloaded(NamedTuple):
    """A request for which there is no room."""

    request: Request
    flow: Flow


class ResponseReceived(NamedTuple):
    transaction: ClientTransaction
    response: Response


class TimedOut(NamedTuple):
    """No final response came (client), or no ACK (server)."""

    transaction: Transaction


class Failed(NamedTuple):
    """The transport could not deliver the request."""

    transaction: ClientTransaction


Action = Send | RequestReceived | AckReceived | Overloaded | ResponseReceived | TimedOut | Failed
Key = tuple[Any, ...]


class Layer(Protocol):
    """What a machine knows of the table that holds it."""

    timers: Timers
    actions: deque[Action]
    servers: dict[Key, ServerTransaction]
    clients: dict[Key, ClientTransaction]

    def schedule(self, transaction: Transaction, timer: str, when: float) -> None:
        """Call `fire` at `when`, unless the transaction has entered another state by then."""


class Transaction:
    """What the four machines share.

    `user` is the owner's, for what belongs to the transaction; `round` counts the states, so that timers of an
    old one are known.
    """

    __slots__ = ("_interval", "flow", "key", "layer", "request", "round", "state", "user")

    def __init__(self, layer: Layer, key: Key, request: Request, flow: Flow, state: State) -> None:
        self.layer = layer
        self.key = key
        self.request = request
        self.flow = flow
        self.state = state
        self.user: Any = None
        self._interval = layer.timers.t1
        self.round = 0

    def _enter(self, state: State) -> None:
        """Go to `state`, leaving all timers of the old one behind."""
        self.state = state
        self.round += 1

    def _start(self, timer: str, now: float, delay: float) -> None:
        self.layer.schedule(self, timer, now + delay)

    def _send(self, data: bytes) -> None:
        self.layer.actions.append(Send(self, data))

    def fire(self, timer: str, now: float) -> None:
        """`timer` has run out."""
        raise NotImplementedError


LET_GO: Final = Request("", "")
"""In place of a request that nobody needs any more."""
_LONGEST_KEPT = 2048
"""Bytes of a refusal that are kept to be repeated; a longer one is that of a request which nobody honest sends."""


class ServerTransaction(Transaction):
    """Answers one request.

    Over an unreliable transport it lives on for half a minute after that, only to repeat its response; `request` and
    `user` are let go then, which makes room for ten times as many.
    """

    __slots__ = ("_last", "cancels")

    def __init__(self, layer: Layer, key: Key, request: Request, flow: Flow, state: State) -> None:
        super().__init__(layer, key, request, flow, state)
        self._last = b""
        self.cancels: ServerTransaction | None = None
        """For a CANCEL: the INVITE transaction that it means, if there is one (RFC 3261 §9.2)."""

    @property
    def answered(self) -> bool:
        """Whether a final response has been given."""
        return self.state not in (State.TRYING, State.PROCEEDING)

    def respond(self, response: Response, now: float, stateless: bool = False) -> None:
        """Send `response`; ignored where the machine allows none any more.

        `stateless` forgets the transaction with the response (RFC 3261 §8.2.7): the same request again will be
        served again, and an ACK is a stray.  For challenges, so that strangers cost no memory.
        """
        raise NotImplementedError

    def repeated(self) -> None:
        """The same request came again."""
        if self._last:
            self._send(self._last)

    def acknowledged(self, ack: Request, now: float) -> None:
        """An ACK came for it."""

    def terminate(self) -> None:
        self._enter(State.TERMINATED)
        self.layer.servers.pop(self.key, None)

    def _too_long(self, response: Response) -> bool:
        """Whether to forget the transaction rather than keep this refusal: floods of such cost no memory."""
        return response.status >= 400 and len(self._last) > _LONGEST_KEPT and not self.flow.reliable

    def _let_go(self) -> None:
        self.user = None
        if not self.flow.reliable:
            self.request = LET_GO


class InviteServerTransaction(ServerTransaction):
    """RFC 3261 §17.2.1 with the Accepted state of RFC 6026 §7.1."""

    __slots__ = ()

    def __init__(self, layer: Layer, key: Key, request: Request, flow: Flow, now: float) -> None:
        super().__init__(layer, key, request, flow, State.PROCEEDING)
        self._start("trying", now, layer.timers.trying)

    def respond(self, response: Response, now: float, stateless: bool = False) -> None:
        success = 200 <= response.status < 300
        if self.state is State.ACCEPTED and success:
            self._send(response.encode())
        if self.state is not State.PROCEEDING:
            return
        self._last = response.encode()
        self._send(self._last)
        if stateless or self._too_long(response):
            self.terminate()
        elif success:
            # 2xx are repeated by the transaction user, not by the transaction (RFC 6026 §7.1).
            self._last = b""
            self._enter(State.ACCEPTED)
            self._start("L", now, self.layer.timers.timeout)
            self._let_go()
        elif response.status >= 300:
            self._enter(State.COMPLETED)
            if not self.flow.reliable:
                self._start("G", now, self._interval)
            self._start("H", now, self.layer.timers.timeout)
            self._let_go()

    def repeated(self) -> None:
        if self.state in (State.PROCEEDING, State.COMPLETED):
            super().repeated()

    def acknowledged(self, ack: Request, now: float) -> None:
        if self.state is State.ACCEPTED:
            self.layer.actions.append(AckReceived(ack, self.flow))
        elif self.state is State.COMPLETED:
            if self.flow.reliable:
                self.terminate()
            else:
                self._enter(State.CONFIRMED)
                self._start("I", now, self.layer.timers.t4)

    def fire(self, timer: str, now: float) -> None:
        if timer == "trying":
            if not self._last:
                self._last = self.request.response(100).encode()
                self._send(self._last)
        elif timer == "G":
            self._send(self._last)
            self._interval = min(2 * self._interval, self.layer.timers.t2)
            self._start("G", now, self._interval)
        else:
            if timer == "H":
                self.layer.actions.append(TimedOut(self))
            self.terminate()


class NonInviteServerTransaction(ServerTransaction):
    """RFC 3261 §17.2.2."""

    __slots__ = ()

    def __init__(self, layer: Layer, key: Key, request: Request, flow: Flow, now: float) -> None:
        super().__init__(layer, key, request, flow, State.TRYING)

    def respond(self, response: Response, now: float, stateless: bool = False) -> None:
        if self.state not in (State.TRYING, State.PROCEEDING):
            return
        self._last = response.encode()
        self._send(self._last)
        if response.status < 200:
            self.state = State.PROCEEDING
        elif stateless or self.flow.reliable or self._too_long(response):
            self.terminate()
        else:
            self._enter(State.COMPLETED)
            self._start("J", now, self.layer.timers.timeout)
            self._let_go()

    def fire(self, timer: str, now: float) -> None:
        self.terminate()


class ClientTransaction(Transaction):
    """Sends one request and waits for its responses."""

    __slots__ = ("_data",)

    retransmission = "E"
    patience = "F"

    def __init__(self, layer: Layer, key: Key, request: Request, flow: Flow, state: State) -> None:
        super().__init__(layer, key, request, flow, state)
        self._data = request.encode()

    def begin(self, now: float) -> None:
        self._send(self._data)
        if not self.flow.reliable:
            self._start(self.retransmission, now, self._interval)
        self._start(self.patience, now, self.layer.timers.timeout)

    def received(self, response: Response, now: float) -> None:
        """A response came for it."""
        raise NotImplementedError

    def heard(self) -> None:
        """The user was told a final response: what nobody needs any more is let go."""
        self.request = LET_GO
        self._data = b""
        if self.state is not State.ACCEPTED:
            self.user = None

    def _deliver(self, response: Response) -> None:
        self.layer.actions.append(ResponseReceived(self, response))

    def _linger(self, state: State, timer: str, now: float, delay: float) -> None:
        """Stay for `delay` to absorb what is repeated."""
        self._enter(state)
        if delay:
            self._start(timer, now, delay)
        else:
            self.terminate()

    def fail(self) -> None:
        """The transport could not send it (RFC 3261 §17.1.4)."""
        if self.state in (State.CALLING, State.TRYING, State.PROCEEDING):
            self.layer.actions.append(Failed(self))
        self.terminate()

    def terminate(self) -> None:
        self._enter(State.TERMINATED)
        self.layer.clients.pop(self.key, None)


class InviteClientTransaction(ClientTransaction):
    """RFC 3261 §17.1.1 with the Accepted state of RFC 6026 §7.2."""

    __slots__ = ("_ack",)

    retransmission = "A"
    patience = "B"

    def __init__(self, layer: Layer, key: Key, request: Request, flow: Flow) -> None:
        super().__init__(layer, key, request, flow, State.CALLING)
        self._ack = b""

    def received(self, response: Response, now: float) -> None:
        timers = self.layer.timers
        if self.state is State.COMPLETED:
            if response.status >= 300:
                self._send(self._ack)
        elif self.state is State.ACCEPTED:
            if 200 <= response.status < 300:
                self._deliver(response)
        elif response.status < 200:
            if self.state is State.CALLING:
                self._enter(State.PROCEEDING)
            self._deliver(response)
        elif response.status < 300:
            self._deliver(response)
            self._linger(State.ACCEPTED, "M", now, timers.timeout)
        else:
            self._ack = ack_for(self.request, response).encode()
            self._send(self._ack)
            self._deliver(response)
            self._linger(State.COMPLETED, "D", now, 0 if self.flow.reliable else timers.d)

    def fire(self, timer: str, now: float) -> None:
        if timer == "A":
            self._send(self._data)
            self._interval *= 2
            self._start("A", now, self._interval)
            return
        if timer == "B":
            self.layer.actions.append(TimedOut(self))
        self.terminate()


class NonInviteClientTransaction(ClientTransaction):
    """RFC 3261 §17.1.2."""

    __slots__ = ()

    def __init__(self, layer: Layer, key: Key, request: Request, flow: Flow) -> None:
        super().__init__(layer, key, request, flow, State.TRYING)

    def received(self, response: Response, now: float) -> None:
        if self.state is State.COMPLETED:
            return
        self._deliver(response)
        if response.status < 200:
            self.state = State.PROCEEDING
        else:
            self._linger(State.COMPLETED, "K", now, 0 if self.flow.reliable else self.layer.timers.t4)

    def fire(self, timer: str, now: float) -> None:
        if timer == "E":
            self._send(self._data)
            t2 = self.layer.timers.t2
            self._interval = t2 if self.state is State.PROCEEDING else min(2 * self._interval, t2)
            self._start("E", now, self._interval)
            return
        if timer == "F":
            self.layer.actions.append(TimedOut(self))
        self.terminate()


def ack_for(request: Request, response: Response) -> Request:
    """The ACK for a final response other than 2xx (RFC 3261 §17.1.1.3)."""
    ack = Request("ACK", request.uri_text)
    ack.add("Via", str(request.via))
    for name in ("From", "Call-ID", "Route"):
        for value in request.headers.get(name, ()):
            ack.add(name, value)
    ack.add("To", response.headers["To"][0])
    ack.add("CSeq", f"{request.cseq.number} ACK")
    ack.add("Max-Forwards", "70")
    return ack
