"""How a request leaves: its header fields, the flow, the time it is given (RFC 3261 §16.6, §16.8)."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...errors import LinkError, RELOADError
from ..edge import SIPEdge
from ..errors import SIPFailure, SIPParseError, TransportFailure
from ..exchanges import EdgeFlow
from ..headers import parse_name_addr
from ..interfaces import IMedia, IServerLocator, ProxyTarget, Source, Target
from ..message import Request, Response
from ..nodes import INodes
from ..uri import SIPURI, parse_uri
from .deadlines import Deadlines
from .flows import parse_source
from .fork import Branch, ISender
from .headers import copy_for
from .loops import branch as branch_of
from .tokens import MEDIA, End, Token, TokenMint, digest_of_tag

TIMER_C: Final = 185.0
"""Seconds that an INVITE may go on ringing without a new provisional response (RFC 3261 §16.6, step 11)."""
PATIENCE: Final = 4.0
"""Seconds that another node is given to say anything to an INVITE."""
SET_UP: Final = 4.0
"""Seconds more where there is nothing else to try, and the flow to it has to be set up first."""
CANCELED: Final = 32.0
"""Seconds that a canceled INVITE is given to end (RFC 3261 §9.1)."""
MOST_SERVERS: Final = 8
"""Servers of another domain that are tried one after the other."""


@implementer(ISender)
class Forwarding:
    """Sends requests on behalf of a proxy.

    :param own_host: the host of our Record-Route towards other nodes.
    """

    log = Logger()

    def __init__(
        self,
        edge: SIPEdge,
        nodes: INodes,
        servers: IServerLocator | None,
        media: IMedia | None,
        mint: TokenMint,
        own_host: str,
        random: Random,
    ) -> None:
        self._edge = edge
        self._nodes = nodes
        self._servers = servers
        self._media = media
        self._mint = mint
        self._own_host = own_host
        self._random = random
        self._ringing: Deadlines[Branch] = Deadlines(TIMER_C)
        self._silent: Deadlines[Branch] = Deadlines(PATIENCE)
        self._connecting: Deadlines[Branch] = Deadlines(PATIENCE + SET_UP)
        self._canceled: Deadlines[Branch] = Deadlines(CANCELED)
        self.counters: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many INVITEs are under way."""
        return len(self._ringing)

    # -- ISender ------------------------------------------------------------------------------------------

    def launch(self, branch: Branch) -> None:
        """See `ISender`."""
        branch.attempt += 1
        attempt = branch.attempt
        flow = self._flow_at_hand(branch.target)
        if branch.request.method == "INVITE":
            now = self._edge.now()
            self._ringing.set(branch, now)
            if branch.target.node is not None:
                alone = flow is None and not branch.has_other_ways
                (self._connecting if alone else self._silent).set(branch, now)
        try:
            if (self._media is not None and self._has_media(branch)) or flow is None:
                going = Deferred.fromCoroutine(self._launch(branch, flow, attempt))
                going.addErrback(self._not_sent, branch, attempt)
            else:
                self._send(branch, flow, self._prepared(branch, flow))
        except Exception:  # noqa: BLE001  (whatever it was, a branch that is not sent has to end)
            self._not_sent(Failure(), branch, attempt)

    def cancel(self, branch: Branch) -> None:
        """See `ISender` (RFC 3261 §9.1)."""
        sent, transaction = branch.sent, branch.transaction
        if sent is None or transaction is None:
            return
        cancel = Request("CANCEL", sent.uri_text)
        for name in ("Via", "From", "To", "Call-ID", "Route"):
            if name in sent.headers:
                cancel.headers[name] = sent.headers[name][:1] if name == "Via" else sent.headers[name]
        cancel.headers["CSeq"] = [f"{sent.cseq.number} CANCEL"]
        cancel.headers["Max-Forwards"] = ["70"]
        self._canceled.set(branch, self._edge.now())
        try:
            self._edge.send(cancel, transaction.flow, _NOBODY)  # type: ignore[arg-type]
        except SIPFailure:
            self.counters["CANCEL not sent"] += 1

    def heard(self, branch: Branch, ended: bool) -> None:
        """See `ISender`."""
        self._silent.clear(branch)
        self._connecting.clear(branch)
        if ended:
            self._ringing.clear(branch)
            self._canceled.clear(branch)
            passage = branch.context.passage
            if branch.media and self._media is not None and not (branch.succeeded or passage.media):
                request = branch.request
                self._media.ended(request.call_id, request.from_.tag or "", None, branch.identifier)
        elif branch.request.method == "INVITE":
            self._ringing.set(branch, self._edge.now())

    def tick(self, now: float) -> None:
        """End what has had its time."""
        for queue in (self._silent, self._connecting):
            for branch in queue.over(now):
                self.counters["node silent"] += 1
                if branch.target.node is not None:
                    self._nodes.unanswered(branch.target.node, PATIENCE)
                branch.give_up()
        for branch in self._ringing.over(now):
            if branch.proceeding and not branch.cancelled:
                branch.cancel()
            else:
                branch.give_up()
        for branch in self._canceled.over(now):
            branch.give_up()

    # -- the way out --------------------------------------------------------------------------------------

    def _flow_at_hand(self, target: ProxyTarget) -> EdgeFlow | None:
        """The flow to `target`, if nobody has to be asked for it."""
        if target.node is not None:
            return self._nodes.established(target.node)
        source = parse_source(target.source) if target.source else None
        return None if source is None else self.flow_at_hand(source)

    def flow_at_hand(self, source: Source) -> EdgeFlow | None:
        """The flow to a phone at `source`, if there is one; over UDP there is."""
        if source.transport != "UDP":
            return self._edge.connections.find(source)
        try:
            return self._edge.datagram_flow(Target(*_target(source)))
        except TransportFailure:
            return None

    async def _launch(self, branch: Branch, flow: EdgeFlow | None, attempt: int) -> None:
        if flow is None:
            flow = await self._flow(branch)
        if branch.ended or branch.attempt != attempt:
            return  # it was given up meanwhile
        request = self._prepared(branch, flow)
        if branch.media and self._media is not None:
            await self._media.request_passes(request, branch.identifier, branch.context.passage.caller_source)
        if branch.ended or branch.attempt != attempt:
            return
        if branch.cancelled:
            branch.request_failed(SIPFailure(487))
        else:
            self._send(branch, flow, request)

    def _not_sent(self, failure: Failure, branch: Branch, attempt: int) -> None:
        error = failure.value
        if branch.attempt != attempt:
            return  # another way is being tried already
        if isinstance(error, SIPFailure):
            branch.request_failed(error)
        elif isinstance(error, SIPParseError):
            branch.request_failed(SIPFailure(error.status))
        elif isinstance(error, (RELOADError, LinkError)):
            self.counters["node not reached"] += 1
            branch.request_failed(TransportFailure())
        else:
            self.log.failure("a request could not be passed on", failure)
            branch.request_failed(SIPFailure(500))

    async def _flow(self, branch: Branch) -> EdgeFlow:
        target = branch.target
        if target.node is not None:
            return await self._nodes.flow_to(target.node)
        if target.source:
            source = parse_source(target.source)
            if source is None or source.transport != "TCP":
                raise SIPFailure(430)
            return await self._edge.flow_to(Target("TCP", source.host, source.port))
        if target.server is None:
            branch.expand(await self._servers_of(branch))
            target = branch.target
        assert target.server is not None
        return await self._edge.flow_to(target.server, len(branch.request.body) + 1024)

    async def _servers_of(self, branch: Branch) -> list[ProxyTarget]:
        """The target once for each server that it can go to: those of its topmost Route, or of its URI (§16.6, 7)."""
        route = branch.context.passage.changes.get("Route")
        uri = parse_name_addr(route[0]).uri if route else parse_uri(branch.target.uri)
        if self._servers is None or not isinstance(uri, SIPURI):
            raise SIPFailure(416)
        servers = await self._servers.locate(uri)
        if not servers:
            raise SIPFailure(503)
        return [branch.target._replace(server=server) for server in servers[:MOST_SERVERS]]

    # -- the message --------------------------------------------------------------------------------------

    def _prepared(self, branch: Branch, flow: EdgeFlow) -> Request:
        """The request as it goes out over `flow`."""
        request, passage, target = branch.request, branch.context.passage, branch.target
        branch.identifier = branch_of(passage.digest, f"{self._random.getrandbits(64):x}")
        changes = dict(passage.changes)
        changes["Max-Breadth"] = [str(branch.breadth)]
        if passage.record:
            changes["Record-Route"] = self._recorded(branch, flow) + request.headers.get("Record-Route", [])
        if passage.private and target.node is None and target.trunk is None:
            changes["P-Asserted-Identity"] = []
        for name, value in target.headers:
            changes[name] = [value]
        uri = target.uri
        route = changes.get("Route")
        if route and ";lr" not in route[0].lower():
            # The next hop is a strict router (RFC 3261 §16.6, step 6).
            changes["Route"] = [*route[1:], f"<{uri}>"]
            uri = parse_name_addr(route[0]).uri_text
        return copy_for(request, uri, self._edge.via(flow, branch.identifier), changes.items())

    def _recorded(self, branch: Branch, flow: EdgeFlow) -> list[str]:
        """Our values of Record-Route; two where the sides differ (RFC 5658)."""
        passage, request, target = branch.context.passage, branch.request, branch.target
        callee = End()
        if target.node is not None:
            callee = End(node=target.node)
        elif target.source:
            callee = End(flow=flow.source)
        token = self._mint.make(
            Token(passage.caller, callee, digest_of_tag(request.from_.tag), MEDIA if branch.media else 0),
            request.call_id,
        )
        towards_callee = self.own_uri(request, flow, node=target.node is not None)
        uris = dict.fromkeys((towards_callee, *passage.record))
        return [f"<{uri.replace('{}', token)};lr>" for uri in uris]

    def own_uri(self, request: Request, flow: EdgeFlow, node: bool) -> str:
        """The URI of this proxy for who is at the other end of `flow`, "{}" in place of the user."""
        # RFC 3261 s16.6, step 4: of a sips Request-URI the Record-Route is sips too.
        scheme = "sips" if request.uri_text[:5].lower() == "sips:" else "sip"
        if node:
            return f"{scheme}:{{}}@{self._own_host}"
        if scheme == "sips":
            return f"sips:{{}}@{self._edge.sent_by(flow)}"
        return f"sip:{{}}@{self._edge.sent_by(flow)};transport={flow.source.transport.lower()}"

    def _has_media(self, branch: Branch) -> bool:
        """Whether the relay has to see this branch's messages."""
        passage, target = branch.context.passage, branch.target
        if passage.media:
            branch.media = True
        elif branch.request.method == "INVITE" and passage.record and self._media is not None:
            branch.media = self._media.wanted(branch.request, passage.caller_source, target.source, target.uri)
        return branch.media

    def _send(self, branch: Branch, flow: EdgeFlow, request: Request) -> None:
        branch.sent = request
        self.counters["forwarded"] += 1
        if request.method == "ACK":
            if not flow.send(request.encode()):
                raise TransportFailure()
            return
        branch.transaction = self._edge.send(request, flow, branch)


class _Nobody:
    """Hears what comes back to a CANCEL: it says nothing of the INVITE."""

    def response_received(self, response: Response) -> None:
        pass

    def request_failed(self, error: SIPFailure) -> None:
        pass


_NOBODY = _Nobody()


def _target(source: Source) -> tuple[str, str, int]:
    return source.transport, source.host, source.port

