"""Both ends of one request and its responses, as transaction users see them."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred
from zope.interface import implementer

from .errors import SIPFailure
from .interfaces import IResponseUser, IServerRequest, Source
from .machines import ServerTransaction
from .message import Request, Response
from .transport import DatagramFlow, SIPConnection

EdgeFlow = DatagramFlow | SIPConnection


class EdgeOfRequest(Protocol):
    """What a request that came in needs of the edge."""

    counters: Counter[str]

    def now(self) -> float: ...

    def flush(self) -> None: ...


def too_large(message: Request | Response, connection: SIPConnection) -> bool:
    most = connection.most_bytes
    return most is not None and len(message.encode()) > most


@implementer(IServerRequest)
class ServerRequest:
    """A request that came in, as the transaction user sees it."""

    __slots__ = ("_edge", "_transaction", "request", "source")

    def __init__(self, edge: EdgeOfRequest, transaction: ServerTransaction) -> None:
        self._edge = edge
        self._transaction = transaction
        self.request = transaction.request
        self.source: Source = cast(EdgeFlow, transaction.flow).source

    @property
    def answered(self) -> bool:
        return self._transaction.answered

    @property
    def flow(self) -> EdgeFlow:
        return cast(EdgeFlow, self._transaction.flow)

    @property
    def context(self) -> Any:
        return self._transaction.user

    @context.setter
    def context(self, context: Any) -> None:
        self._transaction.user = context

    @property
    def cancels(self) -> IServerRequest | None:
        transaction = self._transaction.cancels
        return None if transaction is None else ServerRequest(self._edge, transaction)

    def respond(self, response: Response, stateless: bool = False) -> None:
        flow = cast(EdgeFlow, self._transaction.flow)
        if isinstance(flow, SIPConnection) and too_large(response, flow):
            # The other end learns at once that no answer can come (docs/decisions/0021).
            self._edge.counters["response too large"] += 1
            response = self.request.response(500, "Response Too Large", response.to.tag)
        self._transaction.respond(response, self._edge.now(), stateless)
        self._edge.flush()


@implementer(IResponseUser)
class FinalResponse:
    """The final response to a request of ours."""

    def __init__(self) -> None:
        self.waiting: Deferred[Response] = Deferred()

    def response_received(self, response: Response) -> None:
        if response.status >= 200 and not self.waiting.called:
            self.waiting.callback(response)

    def request_failed(self, error: SIPFailure) -> None:
        if not self.waiting.called:
            self.waiting.errback(error)
