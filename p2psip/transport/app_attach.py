"""AppAttach: a secured connection to another node for an application's own protocol (RFC 6940 §6.5.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import Forbidden, InvalidMessage, LinkError, NotFound
from ..ids import NodeId
from ..interfaces import Answer, IApplicationConnection, ILinkProtocol, Request
from ..wire.codec import Struct
from ..wire.header import Destination, NodeDestination
from ..wire.methods import AppAttachAns, AppAttachReq
from .attach import AttachQuota
from .exchange import ACTIVE, LINK_PATIENCE, MAX_CONNECTING, PASSIVE, Exchange, choose


class AppAttachments:
    """The AppAttach exchanges of one node, both ways.

    `applications` are those served here: the Application-ID and who gets its connections.
    """

    log = Logger()

    def __init__(
        self,
        node_id: NodeId,
        protocols: Sequence[ILinkProtocol],
        request: Callable[[Sequence[Destination], Struct], Deferred[Answer]],
        clock: IReactorTime,
        count: Callable[[str], None],
        quota: AttachQuota,
    ) -> None:
        self.applications: dict[int, Callable[[IApplicationConnection], None]] = {}
        self._node_id = node_id
        self._protocols = protocols
        self._request = request
        self._clock = clock
        self._count = count
        self._quota = quota
        self._connecting = 0
        self._connections: list[IApplicationConnection] = []

    def connections(self) -> Sequence[IApplicationConnection]:
        """Those that are open."""
        self._connections = [each for each in self._connections if each.is_open]
        return self._connections

    def app_attach(self, node_id: NodeId, application: int) -> Deferred[IApplicationConnection]:
        """See `IOverlay.app_attach`."""
        return Deferred.fromCoroutine(self._app_attach(node_id, application))

    async def _app_attach(self, node_id: NodeId, application: int) -> IApplicationConnection:
        if node_id == self._node_id:
            raise LinkError("an AppAttach to this node itself")
        if not self._protocols:
            raise LinkError("this node has no link protocol")
        exchange = await Exchange.begin(self._protocols, True, node_id, application)
        body = AppAttachReq(application=application, role=PASSIVE, **exchange.parameters)
        try:
            answer = await self._request([NodeDestination(node_id=node_id)], body)
            if not isinstance(answer.body, AppAttachAns) or answer.body.application != application:
                raise LinkError("the answer to an AppAttach makes no sense")
        except BaseException:
            exchange.abandon()
            raise
        connection: Deferred[IApplicationConnection] = exchange.conclude(answer.body, node_id)
        try:
            return self._noted(await connection.addTimeout(LINK_PATIENCE, self._clock))
        except DeferredTimeout:
            self._count("attached node did not connect")
            raise LinkError(f"{node_id.hex()} answered the AppAttach but did not connect") from None

    def answer_app_attach(self, request: Request) -> Deferred[Struct]:
        """Answer an AppAttach, and connect to its sender."""
        return Deferred.fromCoroutine(self._answer_app_attach(request))

    async def _answer_app_attach(self, request: Request) -> Struct:
        body, node_id = request.body, request.signer.node_id
        assert isinstance(body, AppAttachReq)
        served = self.applications.get(body.application)
        if served is None:
            raise NotFound(f"application {body.application} is not served here")
        if node_id == self._node_id:
            raise InvalidMessage("an AppAttach to this node itself")
        if body.role != PASSIVE:
            raise InvalidMessage("the role of an AppAttach request is 'passive'")
        self._quota.charge(node_id)
        protocol = choose(self._protocols, body.candidates)
        if self._connecting >= MAX_CONNECTING:
            self._count("too many links being opened")
            raise Forbidden("overloaded")
        self._connecting += 1
        try:
            exchange = await Exchange.begin([protocol], False, node_id, body.application)
        except BaseException as error:
            self._connecting -= 1
            if isinstance(error, LinkError):
                raise Forbidden(f"no candidates: {error}") from None
            raise

        def connect() -> None:
            opened = exchange.conclude(body, node_id)
            opened.addTimeout(LINK_PATIENCE, self._clock).addBoth(self._connected)
            opened.addCallback(self._noted).addCallback(served).addErrback(self._not_connected, node_id)

        self._clock.callLater(0, connect)
        return AppAttachAns(application=body.application, role=ACTIVE, **exchange.parameters)

    def _connected(
        self, result: IApplicationConnection | Failure
    ) -> IApplicationConnection | Failure:
        self._connecting -= 1
        return result

    def _noted(self, connection: IApplicationConnection) -> IApplicationConnection:
        self._connections = [*self.connections(), connection]
        return connection

    def _not_connected(self, failure: Failure, node_id: NodeId) -> None:
        self._count("no application connection to a node that attached")
        if failure.check(LinkError, DeferredTimeout, CancelledError) is None:
            self.log.failure("no application connection to {node_id}", failure, node_id=node_id.hex())
