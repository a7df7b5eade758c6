"""The core that serves what comes in: sees to what all requests have in common and passes them on (RFC 3261 §8.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .authentication import Challenged
from .domain import Domain
from .errors import SIPFailure, SIPParseError
from .interfaces import IServerRequest, ITransactionUser, Source
from .message import Request, Response
from .redirect import Redirect
from .registrar import Registrar
from .uri import SIPURI

ALLOW = "INVITE, ACK, CANCEL, OPTIONS, REGISTER"
_RETRY_AFTER = "30"


@implementer(ITransactionUser)
class RedirectingServer:
    """A registrar and redirect server in one, as `--sip-mode redirect` has it.

    `clock` tells the time in seconds since the epoch.  `counters` count responses by status, and strays.
    """

    log = Logger()

    def __init__(
        self,
        domain: Domain,
        registrar: Registrar,
        redirect: Redirect,
        clock: Callable[[], float],
        random: Random,
    ) -> None:
        self._domain = domain
        self._registrar = registrar
        self._redirect = redirect
        self._clock = clock
        self._tag_key = random.getrandbits(64)
        self.counters: Counter[str] = Counter()

    def request_received(self, incoming: IServerRequest) -> None:
        if incoming.request.method == "CANCEL":
            self._cancel(incoming)
            return
        answer = Deferred.fromCoroutine(self._serve(incoming))
        answer.addCallback(lambda response: self._respond(incoming, response))
        answer.addErrback(self._fail, incoming)
        answer.addErrback(lambda failure: self.log.failure("an answer could not be sent", failure))

    def ack_received(self, request: Request, source: Source) -> None:
        self.counters["stray ACK"] += 1

    async def _serve(self, incoming: IServerRequest) -> Response:
        request, now = incoming.request, self._clock()
        required = request.values("Require") if "Require" in request.headers else []
        if required:
            # No extension is supported yet (RFC 3261 §8.2.2.3).
            raise SIPFailure(420, headers=(("Unsupported", ", ".join(required)),))
        if not isinstance(request.uri, SIPURI):
            raise SIPFailure(416)
        if request.method == "REGISTER":
            return await self._registrar.register(request, incoming.source, now)
        for_itself = request.uri.user is None and self._domain.covers(request.uri)
        if request.method == "OPTIONS" and (for_itself or request.max_forwards == 0):
            return self._capabilities(request)
        if request.max_forwards == 0:
            raise SIPFailure(483)
        return await self._redirect.answer(request, incoming.source, now)

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
            self._respond(incoming, incoming.request.response(481))
            return
        self._respond(incoming, incoming.request.response(200))
        if not invite.answered:
            self._respond(invite, invite.request.response(487))

    def _respond(self, incoming: IServerRequest, response: Response, stateless: bool = False) -> None:
        if response.to.tag is None and response.status != 100:
            response.set("To", f"{response.headers['To'][0]};tag={self._tag(incoming.request)}")
        self.counters[str(response.status)] += 1
        incoming.respond(response, stateless)

    def _tag(self, request: Request) -> str:
        """The same for the same request, so that a stateless answer may be repeated (RFC 3261 §8.2.7)."""
        return f"{hash((self._tag_key, request.via.branch, request.call_id, request.from_.tag)) % 2**64:x}"

    def _fail(self, failure: Failure, incoming: IServerRequest) -> None:
        """The response that says what went wrong."""
        error = failure.value
        request = incoming.request
        if isinstance(error, SIPFailure):
            response = request.response(error.status, error.reason)
            for name, value in error.headers:
                response.add(name, value)
            # A stranger's request costs no memory; nor does the ACK, which nobody waits for.
            self._respond(incoming, response, stateless=isinstance(error, Challenged))
        elif isinstance(error, SIPParseError):
            self._respond(incoming, request.response(error.status))
        else:
            self.log.failure("a request could not be served", failure)
            response = request.response(500)
            response.set("Retry-After", _RETRY_AFTER)
            self._respond(incoming, response)
