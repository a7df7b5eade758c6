"""SIP flows to other nodes: one for each pair of nodes, over AppAttach, used by both (RFC 7904 §5).

Never an overlay link, always secured.  A flow serves the requests of either end for as long as there are any; in
between it is kept alive, and one whose other end is silent is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from ..errors import LinkError
from ..hostport import parse_address
from ..ids import NodeId
from ..interfaces import IApplicationConnection, IOverlay
from ..sip.edge import DTLS_UDP, SIPEdge
from ..sip.interfaces import ITransactionUser, Source
from ..sip.transport import SIPConnection
from ..wire.codes import ApplicationId

MOST_NODES: Final = 1024
"""Nodes with a flow at once; beyond, the one that was used longest ago gives way."""
IDLE: Final = 600.0
"""Seconds without a message after which a flow is closed."""
SURPLUS_IDLE: Final = 10.0
"""The same for the second flow of a pair of nodes."""
GLARE: Final = 30.0
"""Seconds within which two flows of a pair were opened because neither end knew of the other's."""
LOOK: Final = 10.0
"""Seconds between two looks at the flows."""
QUIET: Final = 15.0
"""Seconds of silence after which a look asks for a sign of life: every 25 s at the latest (RFC 6940 §6.5.2.1)."""
SILENT: Final = 60.0
"""Seconds of silence, and so at least four questions, after which nobody is there any more."""


@dataclass(eq=False, slots=True)
class _Flow:
    connection: IApplicationConnection
    sip: SIPConnection
    ours: bool
    """Whether this end asked for it."""
    since: float


class Flows:
    """The SIP flows of one node.  `user` makes what serves the requests that come over a connection.

    Of a pair of nodes new requests take the first flow; a second one only ends what it has begun.
    """

    def __init__(
        self, overlay: IOverlay, edge: SIPEdge, user: Callable[[IApplicationConnection], ITransactionUser]
    ) -> None:
        self._overlay = overlay
        self._edge = edge
        self._user = user
        self._pairs: dict[NodeId, list[_Flow]] = {}
        self._connecting: dict[NodeId, list[Deferred[SIPConnection]]] = {}
        self._look: IDelayedCall | None = None
        self._closed = False

    def __len__(self) -> int:
        return sum(map(len, self._pairs.values()))

    def established(self, node_id: NodeId) -> SIPConnection | None:
        """The flow to `node_id`, if there is one."""
        return next((flow.sip for flow in self._pairs.get(node_id, ()) if flow.sip.open), None)

    def to(self, node_id: NodeId) -> Deferred[SIPConnection]:
        """The flow to `node_id`: the one there is, or a new one for all who wait for it.

        Fails with RELOADError or LinkError.
        """
        waiting: Deferred[SIPConnection] = Deferred(lambda cancelled: self._give_up(node_id, cancelled))
        established = self.established(node_id)
        if established is not None:
            waiting.callback(established)
            return waiting
        first = node_id not in self._connecting
        self._connecting.setdefault(node_id, []).append(waiting)
        if first:
            # Of 5060 and 5061 both are secured; they differ in the scheme of the URIs (docs/decisions/0021).
            connecting = self._overlay.app_attach(node_id, ApplicationId.SIP).addCallback(self._start, True)
            connecting.addBoth(self._connected, node_id)
        return waiting

    def accept(self, connection: IApplicationConnection) -> None:
        """Another node opened `connection` for SIP: speak it, in both directions."""
        if self._closed:
            connection.close()
        else:
            self._start(connection, False)

    def unanswered(self, node_id: NodeId, seconds: float) -> None:
        """A request got no answer for so long: give the flow up, unless something else was heard."""
        flow = self.established(node_id)
        if flow is not None and self._edge.now() - flow.last_active >= seconds:
            self._overlay.count("SIP flow silent")
            flow.abort()

    def close(self) -> None:
        """Close every flow, and take no more."""
        self._closed = True
        for node_id in list(self._pairs):
            self._close_all(self._pairs.pop(node_id))
        if self._look is not None:
            self._look.cancel()
            self._look = None

    # -- a new flow

    def _give_up(self, node_id: NodeId, waiting: Deferred[SIPConnection]) -> None:
        waiters = self._connecting.get(node_id, [])
        if waiting in waiters:
            waiters.remove(waiting)

    def _connected(self, result: SIPConnection | Failure, node_id: NodeId) -> None:
        for waiting in self._connecting.pop(node_id, []):
            if isinstance(result, Failure):
                waiting.errback(result)
            else:
                waiting.callback(result)

    def _start(self, connection: IApplicationConnection, ours: bool) -> SIPConnection:
        if self._closed:
            connection.close()
            raise LinkError("this node is stopping")
        user = self._user(connection)
        host, port = parse_address(connection.address) or (connection.address, 0)
        if connection.record_size is None:
            sip: SIPConnection = self._edge.stream(user, "TLS", Source(host, port, "TLS"))
        else:
            sip = self._edge.records(user, Source(host, port, DTLS_UDP), connection.record_size)
        connection.start(sip)
        self._add(_Flow(connection, sip, ours, self._edge.now()))
        return sip

    def _add(self, new: _Flow) -> None:
        node_id = new.connection.node_id
        flows = [flow for flow in self._pairs.get(node_id, ()) if flow.sip.open]
        flows.insert(0 if not flows or self._prevails(new, flows[0]) else 1, new)
        self._pairs[node_id] = flows[:2]
        self._close_all(flows[2:])
        if len(self._pairs) > MOST_NODES:
            self._close_all(self._pairs.pop(min(self._pairs, key=self._last_used)))
        if self._look is None:
            self._look = self._overlay.clock.callLater(LOOK, self._look_at_all)

    def _prevails(self, new: _Flow, old: _Flow) -> bool:
        """Whether `new` takes the place of `old`.

        The other end opens one where it does not know `old` any more.  But where both ends opened one at the same time
        they have to agree: that of the larger Node-ID stays.
        """
        if new.ours == old.ours or new.since - old.since > GLARE:
            return True
        return new.ours == (self._overlay.node_id > new.connection.node_id)

    # -- the flows there are

    def _last_used(self, node_id: NodeId) -> float:
        return max(flow.sip.last_message for flow in self._pairs[node_id])

    def _look_at_all(self) -> None:
        self._look = None
        now = self._edge.now()
        for node_id in list(self._pairs):
            for flow, idle in zip(self._pairs[node_id], (IDLE, SURPLUS_IDLE), strict=False):
                if flow.sip.open:
                    self._look_at(flow, idle, now)
            self._pairs[node_id] = [flow for flow in self._pairs[node_id] if flow.sip.open]
            if not self._pairs[node_id]:
                del self._pairs[node_id]
        if self._pairs:
            self._look = self._overlay.clock.callLater(LOOK, self._look_at_all)

    def _look_at(self, flow: _Flow, idle: float, now: float) -> None:
        sip = flow.sip
        silence = now - sip.last_active
        if now - sip.last_message > idle and not sip.pending:
            sip.close()
        elif flow.connection.candidate_pair:
            pass  # RFC 7904 §5.2: with ICE "no further operations are required"
        elif silence > SILENT:
            self._overlay.count("SIP flow silent")
            sip.abort()
        elif silence >= QUIET:
            sip.ping()

    @staticmethod
    def _close_all(flows: Sequence[_Flow]) -> None:
        for flow in flows:
            if flow.sip.open:
                flow.sip.close()
