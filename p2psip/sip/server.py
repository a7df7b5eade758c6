"""The core that serves what comes in: sees to what all requests have in common and passes them on (RFC 3261 §8.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .authentication import Challenged
from .domain import Domain
from .errors import SIPFailure, SIPParseError
from .exchanges import EdgeFlow
from .interfaces import IServerRequest, ITransactionUser
from .machines import Flow
from .message import Request, Response
from .proxy.proxy import Peer, Proxy
from .redirect import Redirect
from .registrar import Registrar
from .uri import SIPURI

ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, UPDATE, PRACK, INFO, REFER, SUBSCRIBE, NOTIFY, MESSAGE, PUBLISH"
_RETRY_AFTER = "30"


@implementer(ITransactionUser)
class SIPServer:
    """A registrar, and a proxy or redirect server, in one.

    `clock` tells the time in seconds since the epoch.  `counters` count responses by status, and strays.
    Until `serve_calls` says how, nothing but REGISTER and OPTIONS is served.
    """

    log = Logger()

    def __init__(self, domain: Domain, registrar: Registrar, clock: Callable[[], float], random: Random) -> None:
        self._domain = domain
        self._registrar = registrar
        self._clock = clock
        self._tag_key = random.getrandbits(64)
        self._proxy: Proxy | None = None
        self._redirect: Redirect | None = None
        self.counters: Counter[str] = Counter()

    def serve_calls(self, proxy: Proxy | None, redirect: Redirect | None = None) -> None:
        """From now on pass on requests by `proxy`; those of phones are answered by `redirect`, where that is given."""
        self._proxy = proxy
        self._redirect = redirect

    def request_received(self, incoming: IServerRequest) -> None:
        """See `ITransactionUser`."""
        if incoming.request.method == "CANCEL":
            self._cancel(incoming)
        else:
            self._answer(incoming, self._serve(incoming))

    def request_from_node(self, incoming: IServerRequest, peer: Peer) -> None:
        """A request that came over the flow of another node; no REGISTER."""
        if incoming.request.method == "CANCEL":
            self._cancel(incoming)
        else:
            self._answer(incoming, self._serve_node(incoming, peer))

    def ack_received(self, request: Request, flow: Flow) -> None:
        """See `ITransactionUser`."""
        if self._proxy is None:
            self.counters["stray ACK"] += 1
        else:
            self._proxy.acknowledge(request, cast(EdgeFlow, flow))

    def _answer(self, incoming: IServerRequest, serving: Coroutine[Any, Any, Response | None]) -> None:
        answer = Deferred.fromCoroutine(self._served(incoming, serving))
        answer.addErrback(lambda failure: self.log.failure("an answer could not be sent", failure))

    async def _served(self, incoming: IServerRequest, serving: Coroutine[Any, Any, Response | None]) -> None:
        try:
            response = await serving
            if response is not None:
                self.respond(incoming, response)
        except Exception as error:  # noqa: BLE001  (whatever it was, the client gets an answer)
            self._fail(error, incoming)

    async def _serve(self, incoming: IServerRequest) -> Response | None:
        """The response; None where the proxy sees to it."""
        request, now = incoming.request, self._clock()
        if request.method == "REGISTER":
            self._require_nothing(request)
            return await self._registrar.register(request, incoming.source, now)
        for_itself = isinstance(request.uri, SIPURI) and request.uri.user is None and self._domain.covers(request.uri)
        if request.method == "OPTIONS" and (for_itself or request.max_forwards == 0):
            self._require_nothing(request)
            return self._capabilities(request)
        if request.max_forwards == 0:
            raise SIPFailure(483)
        if self._redirect is not None and not (self._proxy is not None and self._proxy.in_dialog(request)):
            self._require_nothing(request)
            if not isinstance(request.uri, SIPURI):
                raise SIPFailure(416)
            return await self._redirect.answer(request, incoming.source, now)
        if self._proxy is None:
            raise SIPFailure(404)
        await self._proxy.pass_on(incoming)
        return None

    async def _serve_node(self, incoming: IServerRequest, peer: Peer) -> Response | None:
        if self._proxy is None:
            raise SIPFailure(403)
        await self._proxy.pass_on(incoming, peer)
        return None

    @staticmethod
    def _require_nothing(request: Request) -> None:
        """No extension that a phone may insist on is supported by the server itself (RFC 3261 §8.2.2.3)."""
        required = request.values("Require") if "Require" in request.headers else []
        if required:
            raise SIPFailure(420, headers=(("Unsupported", ", ".join(required)),))

    def _capabilities(self, request: Request) -> Response:
        """RFC 3261 §11.2."""
        response = request.response(200)
        response.set("Allow", ALLOW)
        response.set("Accept", "application/sdp")
        response.set("Supported", "")
        return response

    def _cancel(self, incoming: IServerRequest) -> None:
        """RFC 3261 §9.2: the INVITE is answered 487 unless it has its final response already."""
        invite = incoming.cancels
        if invite is None:
            self.respond(incoming, incoming.request.response(481))
            return
        self.respond(incoming, incoming.request.response(200))
        if self._proxy is not None and self._proxy.cancel(incoming):
            return
        if not invite.answered:
            self.respond(invite, invite.request.response(487))

    def respond(self, incoming: IServerRequest, response: Response, stateless: bool = False) -> None:
        """Send a response, with a To tag if it lacks one."""
        if response.to.tag is None and response.status != 100:
            response.set("To", f"{response.headers['To'][0]};tag={self._tag(incoming.request)}")
        self.counters[str(response.status)] += 1
        incoming.respond(response, stateless)

    def _tag(self, request: Request) -> str:
        """The same for the same request, so that a stateless answer may be repeated (RFC 3261 §8.2.7)."""
        return f"{hash((self._tag_key, request.via.branch, request.call_id, request.from_.tag)) % 2**64:x}"

    def _fail(self, error: Exception, incoming: IServerRequest) -> None:
        """The response that says what went wrong."""
        request = incoming.request
        if isinstance(error, SIPFailure):
            response = request.response(error.status, error.reason)
            for name, value in error.headers:
                response.add(name, value)
            # A stranger's request costs no memory; nor does the ACK, which nobody waits for.
            self.respond(incoming, response, stateless=isinstance(error, Challenged))
        elif isinstance(error, SIPParseError):
            self.respond(incoming, request.response(error.status))
        else:
            self.log.failure("a request could not be served", Failure(error))
            response = request.response(500)
            response.set("Retry-After", _RETRY_AFTER)
            self.respond(incoming, response)
