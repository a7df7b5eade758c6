"""Asking other registrars for their bindings, and answering them: plain SIP over AppAttach connections.

SIP between nodes travels only over connections that the nodes' certificates secure, see `p2psip.usages.flows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.python.failure import Failure
from zope.interface import implementer

from ..ids import NodeId
from ..interfaces import IApplicationConnection, IOverlay
from ..security.identity import Identity
from ..sip.edge import SIPEdge
from ..sip.errors import SIPFailure, TransportFailure
from ..sip.interfaces import Contact, IServerRequest, ITransactionUser
from ..sip.machines import Flow
from ..sip.message import Request, Response
from ..sip.proxy.proxy import Peer
from ..sip.query import binding_query, contacts_of
from ..sip.registrar import Registrar
from ..sip.server import SIPServer
from ..throttle import Allowance
from .flows import Flows

PATIENCE: Final = 4.0
"""Seconds that another registrar is given to answer over a connection that there is."""
SET_UP: Final = 4.0
"""Seconds more for the set-up of one: with ICE through a relay it takes that long."""
MOST_ALLOWANCES: Final = 1024
QUERIES_PER_SECOND: Final = 200.0
BURST: Final = 400.0
"""Binding queries that one node may ask at once before the rate above holds."""
CALLS_PER_SECOND: Final = 200.0
CALLS_AT_ONCE: Final = 400.0
"""Calls that one node may pass on at once before the rate above holds."""


@implementer(ITransactionUser)
class _Requests:
    """What another node sends over its connection: it asks for bindings, or passes on requests for phones here."""

    def __init__(self, bindings: Bindings, connection: IApplicationConnection) -> None:
        self._bindings = bindings
        self._identity = connection.identity
        self._node_id = connection.node_id

    def request_received(self, incoming: IServerRequest) -> None:
        """See `ITransactionUser`."""
        try:
            if not self._bindings.belongs(self._identity):
                raise SIPFailure(403)
            if incoming.request.method != "REGISTER":
                self._bindings.require_allowed(self._node_id, incoming.request)
                self._bindings.server.request_from_node(incoming, self._peer())
                return
            if self._identity.role != "registrar":
                raise SIPFailure(403)
            response = self._bindings.answer(self._node_id, incoming.request)
        except SIPFailure as failure:
            response = incoming.request.response(failure.status, failure.reason)
            for name, value in failure.headers:
                response.add(name, value)
        incoming.respond(response)

    def ack_received(self, request: Request, flow: Flow) -> None:
        """See `ITransactionUser`."""
        if self._bindings.belongs(self._identity):
            self._bindings.server.ack_received(request, flow)

    def _peer(self) -> Peer:
        """A registrar's word on who calls is taken; any other node speaks for its own user."""
        return Peer(self._node_id, None if self._identity.role == "registrar" else self._identity.user_name)


class Bindings:
    """The bindings of other registrars, and ours for them."""

    def __init__(self, overlay: IOverlay, edge: SIPEdge, registrar: Registrar, server: SIPServer) -> None:
        self.server = server
        self._overlay = overlay
        self._edge = edge
        self.registrar = registrar
        self.flows = Flows(overlay, edge, lambda connection: _Requests(self, connection))
        self._queries = Allowance(QUERIES_PER_SECOND, BURST, MOST_ALLOWANCES)
        self._calls = Allowance(CALLS_PER_SECOND, CALLS_AT_ONCE, MOST_ALLOWANCES)

    # -- for others ----------------------------------------------------------------------------------------

    def accept(self, connection: IApplicationConnection) -> None:
        """Another node connected for SIP: speak it, in both directions."""
        self.flows.accept(connection)

    def belongs(self, identity: Identity) -> bool:
        """Whether a node was not thrown out of the overlay since it connected."""
        return self._overlay.configuration.bad_nodes.isdisjoint(identity.node_ids)

    def answer(self, node_id: NodeId, request: Request) -> Response:
        """The response to the binding query of another registrar; raises SIPFailure."""
        self._spend(self._queries, node_id, "binding queries")
        return self.registrar.answer_query(request, self._overlay.clock.seconds())

    def require_allowed(self, node_id: NodeId, request: Request) -> None:
        """See that a node does not pass on too many new calls; raises SIPFailure."""
        if request.method == "INVITE" and request.to.tag is None:
            self._spend(self._calls, node_id, "calls of a node")

    def _spend(self, allowance: Allowance, node_id: NodeId, what: str) -> None:
        now, key = self._overlay.clock.seconds(), node_id.hex()
        if allowance.delay(key, now) > 0:
            self._overlay.count(f"{what}: too many")
            raise SIPFailure(503, headers=(("Retry-After", "1"),))
        allowance.spend(key, now)

    # -- of others -----------------------------------------------------------------------------------------

    def ask(self, node_id: NodeId, aor: str) -> Deferred[Sequence[Contact]]:
        """The contacts of `aor` at the registrar `node_id`.

        Fails with a SIPFailure, RELOADError, LinkError or defer.TimeoutError, within `PATIENCE` and `SET_UP`.
        """
        asked: Deferred[Sequence[Contact]] = Deferred.fromCoroutine(self._ask(node_id, aor))
        patience = PATIENCE if self.flows.established(node_id) is not None else PATIENCE + SET_UP
        return asked.addTimeout(patience, self._overlay.clock).addErrback(self._unanswered, node_id)

    def _unanswered(self, failure: Failure, node_id: NodeId) -> Failure:
        if failure.check(DeferredTimeout):
            self.flows.unanswered(node_id, PATIENCE)
        return failure

    async def _ask(self, node_id: NodeId, aor: str) -> Sequence[Contact]:
        flow = await self.flows.to(node_id)
        try:
            response = await self._edge.request(binding_query(aor), flow)
        except TransportFailure:
            # The other end may have closed an idle connection just now: once more over a new one.
            flow = await self.flows.to(node_id)
            response = await self._edge.request(binding_query(aor), flow)
        if response.status != 200:
            raise SIPFailure(response.status)
        return contacts_of(response)

    def close(self) -> None:
        """Close every connection."""
        self.flows.close()
