"""Requests that have reached this node: who answers them, and the one place where errors become answers.

RFC 6940 §6.3.3: a RELOADError of an answerer is sent as the error it stands for.  Anything else that an answerer
raises is a bug of ours: it is logged with its failure, and nothing is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.document import Configuration
from ..errors import (
    IncompatibleWithOverlay,
    InvalidMessage,
    RELOADError,
    ResponseTooLarge,
    UnassignedError,
    UnknownExtension,
    UnknownKind,
)
from ..ids import NodeId
from ..interfaces import Answerer, Extender, ISigner, Reply, Request
from ..wire.codec import Struct
from ..wire.codes import MessageCode
from ..wire.contents import ErrorResponse, MessageExtension, UnknownKinds
from ..wire.errors import DecodeError, UnknownKindError
from ..wire.header import ForwardingHeader
from ..wire.message import BODIES, decode_body
from .answers import AnswerCache, RequestKey
from .messages import Arrived, seal
from .transactions import TRANSMISSIONS

RESPONSE_TOO_LARGE = IncompatibleWithOverlay
"""What answers a request whose max_response_length the answer exceeds: RFC 6940 §6.3.2 has it a MUST, although
§6.3.3.1 defines Error_Response_Too_Large for that very case."""

ANSWERED_ANEW = frozenset((MessageCode.FETCH_REQ, MessageCode.STAT_REQ, MessageCode.FIND_REQ))
"""Answering these twice does no harm, and their answers are the largest: not worth keeping (RFC 6940 §6.2.1)."""

MAX_UNDER_WAY = 4096
"""Requests that wait for an answerer at the same time; more are dropped."""


class Dispatch:
    """Answers the requests that this node gets, by the class of their body.

    `answerers` may be added to at any time: ``dispatch.answerers[StoreReq] = answer_store``.  So may `extenders`, by
    the type of the extension that they understand; each adds its own to answers.  `check` is called
    before the body is read and may raise a RELOADError (the configuration_sequence, RFC 6940 §6.3.2.1).  `send`
    gets each answer with the request's header and the previous hop.
    """

    log = Logger()

    def __init__(
        self,
        configuration: Callable[[], Configuration],
        signer: ISigner,
        clock: IReactorTime,
        count: Callable[[str], None],
        check: Callable[[Arrived], None],
        send: Callable[[ForwardingHeader, NodeId, bytes], None],
    ) -> None:
        self.answerers: dict[type[Struct], Answerer] = {}
        self.extenders: dict[int, Extender] = {}
        self._configuration = configuration
        self._signer = signer
        self._clock = clock
        self._count = count
        self._check = check
        self._send = send
        self._cache = AnswerCache()
        self._under_way = 0

    # -- Requests from the overlay --------------------------------------------------------------------

    def receive(self, arrived: Arrived) -> None:
        """Answer a verified request."""
        header, code = arrived.header, arrived.contents.message_code
        key = RequestKey(arrived.signer.node_id, header.transaction_id, code)
        if code not in ANSWERED_ANEW:
            lifetime = TRANSMISSIONS * self._configuration().overlay_reliability_timer / 1000
            if not self._cache.begin(key, self._clock.seconds(), lifetime):
                answer = self._cache.answer(key)
                if answer is not None:
                    self._send(header, arrived.previous_hop, answer)
                return
        try:
            self._check(arrived)
            request = self._read(arrived)
        except RELOADError as error:
            self.refuse(header, arrived.previous_hop, error)
            self._cache.forget(key)
            return
        except DecodeError as error:
            self._count(f"undecodable {error.structure}")
            return
        if self._under_way >= MAX_UNDER_WAY:
            self._count("too many requests under way")
            self._cache.forget(key)
            return
        served = Deferred.fromCoroutine(self._serve(arrived, request, key))
        served.addErrback(self._unanswered, key)

    async def _serve(self, arrived: Arrived, request: Request, key: RequestKey) -> None:
        header = arrived.header
        self._under_way += 1
        try:
            reply = await self._answer(request)
            sealed = self._seal_reply(reply, header, key.message_code)
        except RELOADError as error:
            sealed = self._seal_error(error, header)
        finally:
            self._under_way -= 1
        self._cache.finish(key, sealed)
        self._send(header, arrived.previous_hop, sealed)

    def _read(self, arrived: Arrived) -> Request:
        contents = arrived.contents
        self._check_extensions(contents.extensions)
        if contents.message_code not in BODIES:
            raise InvalidMessage(f"no method has message_code {contents.message_code:#x}")
        try:
            body = decode_body(contents.message_code, contents.message_body, self._configuration().context)
        except UnknownKindError as error:
            raise UnknownKind(UnknownKinds(unknown_kinds=tuple(error.kinds)[:63]).encode()) from error
        return Request(
            body,
            arrived.signer,
            arrived.previous_hop,
            arrived.header.transaction_id,
            arrived.certificates,
            contents.extensions,
        )

    def _check_extensions(self, extensions: Iterable[MessageExtension]) -> None:
        for extension in extensions:
            if extension.critical and extension.type not in self.extenders:
                raise UnknownExtension(f"extension {extension.type:#x} is not understood")

    # -- Answerers ----------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Deferred[Reply]:
        """What the answerer of this request says; also for requests of this node to itself.

        Fails with the RELOADError to answer, or with a bug.
        """
        return Deferred.fromCoroutine(self._answer(request))

    async def _answer(self, request: Request) -> Reply:
        answerer = self._answerer(request.body)
        if answerer is None:
            raise InvalidMessage(f"{type(request.body).__name__} is not served here")
        answered = answerer(request)
        if isinstance(answered, Deferred):
            answered = await answered
        reply = answered if isinstance(answered, Reply) else Reply(answered)
        return replace(reply, extensions=(*reply.extensions, *self._extensions(request)))

    def _extensions(self, request: Request) -> Iterator[MessageExtension]:
        for extension_type in {extension.type: None for extension in request.extensions}:
            extender = self.extenders.get(extension_type)
            extension = None if extender is None else extender(request)
            if extension is not None:
                yield extension

    def _answerer(self, body: Struct) -> Answerer | None:
        for cls in type(body).__mro__:
            answerer = self.answerers.get(cls)
            if answerer is not None:
                return answerer
        return None

    # -- Answers ------------------------------------------------------------------------------------------

    def refuse(self, header: ForwardingHeader, previous_hop: NodeId, error: RELOADError) -> None:
        """Answer a request with an error that this node made before any answerer saw it."""
        self._send(header, previous_hop, self._seal_error(error, header))

    def _seal_reply(self, reply: Reply, header: ForwardingHeader, code: int) -> bytes:
        sealed = self._seal(header, code + 1, reply.body.encode(), reply.certificates, reply.extensions)
        # With its lists and options a request's header is about as long as that of its answer.
        size = len(sealed) + len(header.encode())
        if header.max_response_length and size > header.max_response_length:
            raise RESPONSE_TOO_LARGE("response too large")
        if size > self._configuration().max_message_size:
            raise ResponseTooLarge("the answer would exceed max-message-size")
        return sealed

    def _seal_error(self, error: RELOADError, header: ForwardingHeader) -> bytes:
        self._count(f"answered {type(error).__name__}")
        return self._seal(header, MessageCode.ERROR, error_body(error))

    def _seal(
        self,
        header: ForwardingHeader,
        code: int,
        body: bytes,
        certificates: Sequence[bytes] = (),
        extensions: Sequence[MessageExtension] = (),
    ) -> bytes:
        overlay = self._configuration().overlay_hash
        return seal(overlay, header.transaction_id, code, body, self._signer, certificates, extensions)

    def _unanswered(self, failure: Failure, key: RequestKey) -> None:
        self._cache.forget(key)
        self._count("unanswered because of a fault here")
        self.log.failure("no answer to request {code}", failure, code=key.message_code)


def error_body(error: RELOADError) -> bytes:
    """The ErrorResponse that stands for `error`."""
    code = error.number if isinstance(error, UnassignedError) else error.code
    return ErrorResponse(error_code=code, error_info=error.error_info[:65535]).encode()
