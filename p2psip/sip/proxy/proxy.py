"""The proxy: what becomes of a request that is not for this server itself (RFC 3261 §16).

It keeps a request only until that is answered.  Dialogs live in the Record-Route tokens: see `tokens`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from ...throttle import Allowance, source_key
from ..domain import Domain
from ..edge import SIPEdge
from ..errors import SIPFailure, SIPParseError, Unavailable
from ..exchanges import EdgeFlow
from ..headers import parse_name_addr
from ..interfaces import IMedia, INumbers, IServerRequest, ProxyTarget, Source
from ..message import Request, Response
from ..uri import SIPURI, URI
from . import loops
from .flows import parse_source, source_text, where_to_reach
from .fork import Branch, Passage, ResponseContext
from .forwarding import Forwarding
from .headers import listed, without_realm
from .identity import Callers, Origin, identity_changes, privacy, require_possible
from .targets import Targets
from .tokens import MEDIA, End, Token, TokenMint

RECORDED: Final = frozenset(("INVITE", "SUBSCRIBE", "REFER"))
"""Requests that begin dialogs (RFC 3261 §12, RFC 6665, RFC 3515)."""
MOST_CALLS: Final = 5000
"""INVITEs under way at once; further ones are asked to come later."""
SLOW: Final = 1.0
"""Seconds that the program may be late before new calls are asked to come later."""
STRANGERS: Final = (50.0, 200.0)
"""New requests a second that one source outside may send, and how many at once."""
ALL_STRANGERS: Final = (200.0, 1000.0)
"""The same for all of them."""
_RETRY_AFTER: Final = 5
_UNDERSTOOD: Final = frozenset(("privacy",))
"""Of Proxy-Require (RFC 3323 §4.3)."""

Respond = Callable[[IServerRequest, Response], None]


class Peer(NamedTuple):
    """The node that a request came from; `user_name` is that of its certificate, None of a registrar's."""

    node_id: bytes
    user_name: str | None


class Proxy:
    """Passes on requests of phones, strangers and other nodes.

    :param own_host: the host of our Record-Route towards other nodes.
    :param respond: sends a response back, with a To tag if it lacks one.
    :param clock: the time in seconds since the epoch.
    """

    log = Logger()

    def __init__(
        self,
        domain: Domain,
        callers: Callers,
        targets: Targets,
        forwarding: Forwarding,
        mint: TokenMint,
        edge: SIPEdge,
        own_host: str,
        loop_key: bytes,
        respond: Respond,
        clock: Callable[[], float],
        numbers: INumbers | None = None,
        media: IMedia | None = None,
    ) -> None:
        self._domain = domain
        self._callers = callers
        self._targets = targets
        self._forwarding = forwarding
        self._mint = mint
        self._edge = edge
        self._own_host = own_host
        self._loop_key = loop_key
        self._respond = respond
        self._clock = clock
        self._numbers = numbers
        self._media = media
        self._late = 0.0
        self._strangers = Allowance(*STRANGERS)
        self._all_strangers = Allowance(*ALL_STRANGERS)
        self.counters: Counter[str] = Counter()

    # -- in -----------------------------------------------------------------------------------------------

    def pass_on(self, incoming: IServerRequest, peer: Peer | None = None) -> Deferred[None]:
        """Pass on a request of anybody, or of another node (`peer`); not CANCEL and not ACK.

        Fires once it is on its way.  Fails with SIPFailure or SIPParseError, which say what to answer.
        """
        return Deferred.fromCoroutine(self._pass_on(incoming, peer))

    def in_dialog(self, request: Request) -> bool:
        """Whether `request` belongs to a dialog that passes through here; raises SIPParseError."""
        return request.to.tag is not None and self._own_routes(request, peek=True)[1] is not None

    def cancel(self, incoming: IServerRequest) -> bool:
        """End what the CANCEL `incoming` means; answers whether there is anything (RFC 3261 §16.10)."""
        invite = incoming.cancels
        context = None if invite is None else invite.context
        if not isinstance(context, ResponseContext):
            return False
        context.cancel()
        return True

    def acknowledge(self, request: Request, flow: EdgeFlow) -> None:
        """Pass on an ACK for a 2xx, which no transaction waits for."""
        try:
            routes, token = self._own_routes(request)
            if token is None or request.max_forwards == 0:
                self.counters["stray ACK"] += 1
                return
            digest = loops.loop_digest(request, self._loop_key)
            loops.require_no_loop(request, digest)
            passage = self._passage(request, digest, routes, token, flow.source)
            context = ResponseContext(request, passage, self._forwarding, _ignore)
            context.start([[self._target_in_dialog(request, token)]])
        except (SIPParseError, SIPFailure):
            self.counters["malformed ACK"] += 1

    def tick(self, now: float, late: float) -> None:
        """To be called about every half second; `late` is by how many seconds it was."""
        self._late = late
        self._forwarding.tick(now)

    # -- the way of a request -----------------------------------------------------------------------------

    async def _pass_on(self, incoming: IServerRequest, peer: Peer | None) -> None:
        request = incoming.request
        self._require_understood(request)
        if request.max_forwards == 0:
            raise SIPFailure(483)
        digest = loops.loop_digest(request, self._loop_key)
        loops.require_no_loop(request, digest)
        routes, token = self._own_routes(request)
        if token is not None and request.to.tag is not None:
            passage = self._passage(request, digest, routes, token, incoming.source)
            if peer is None and "P-Asserted-Identity" in request.headers:
                passage.changes["P-Asserted-Identity"] = []
            self._context(incoming, passage).start([[self._target_in_dialog(request, token)]])
            return
        self._require_room(request)
        passage = self._passage(request, digest, routes, None)
        context = self._context(incoming, passage)
        origin = await self._origin(incoming, peer)
        if origin.stranger:
            self._require_few(origin.source)
        self._identify(request, origin, passage)
        groups = await self._groups(request, origin, routes)
        if request.method in RECORDED and request.to.tag is None:
            passage.caller = self._callers_end(request, origin)
            passage.record = (self._forwarding.own_uri(request, incoming.flow, node=bool(origin.node)),)  # type: ignore[arg-type]
        context.start(groups)

    def _require_understood(self, request: Request) -> None:
        """RFC 3261 §16.3, step 5."""
        if "Proxy-Require" in request.headers:
            unknown = [tag for tag in listed(request, "Proxy-Require") if tag.lower() not in _UNDERSTOOD]
            if unknown:
                raise SIPFailure(420, headers=(("Unsupported", ", ".join(unknown)),))

    def _require_room(self, request: Request) -> None:
        if request.method == "INVITE" and (len(self._forwarding) >= MOST_CALLS or self._late > SLOW):
            self.counters["call while busy"] += 1
            raise Unavailable("Overloaded", _RETRY_AFTER)

    def _require_few(self, source: Source) -> None:
        """Each new request of a stranger may cost a search of the overlay, and a connection to another node."""
        now = self._clock()
        for allowance, key in ((self._strangers, source_key(source.host)), (self._all_strangers, "")):
            if allowance.delay(key, now) > 0:
                self.counters["strangers slowed down"] += 1
                raise Unavailable("Too Many Requests", _RETRY_AFTER)
            allowance.spend(key, now)

    async def _origin(self, incoming: IServerRequest, peer: Peer | None) -> Origin:
        request, source = incoming.request, incoming.source
        if peer is not None:
            return self._callers.of_node(request, source, *peer)
        if self._numbers is not None:
            if self._numbers.from_trunk(source):
                return Origin(source, trunk=True)
            number = self._numbers.number_of(request.uri)
            if number is not None and self._numbers.is_emergency(number):
                return Origin(source, emergency=True)
        return await self._callers.origin(request, source, self._clock())

    def _identify(self, request: Request, origin: Origin, passage: Passage) -> None:
        """Say who calls, as far as the caller allows."""
        wanted = privacy(request)
        if origin.user:
            require_possible(wanted)
        passage.private = "id" in wanted
        passage.changes.update(identity_changes(request, origin, self._domain.name))
        if (origin.user or origin.emergency) and not origin.node:
            passage.caller_source = origin.source

    async def _groups(self, request: Request, origin: Origin, routes: list[str]) -> list[list[ProxyTarget]]:
        if not routes:
            return await self._targets.find(request, origin, self._clock())
        if not origin.user:
            raise SIPFailure(403, "Relaying Denied")
        return [[ProxyTarget(request.uri_text)]]

    def _callers_end(self, request: Request, origin: Origin) -> End:
        """Where requests in the other direction go: to our user's phone, to the node, or by the caller's own routes."""
        if origin.node:
            return End(node=origin.node)
        if not origin.user:
            return End()
        contacts = request.contacts
        if not contacts:
            return End(flow=origin.source)
        return End(flow=where_to_reach(contacts[0].uri_text, origin.source))

    # -- routes -------------------------------------------------------------------------------------------

    def _own_routes(self, request: Request, peek: bool = False) -> tuple[list[str], Token | None]:
        """The Route values that remain when ours are taken off, and the token that was in them (RFC 3261 §16.4)."""
        routes = listed(request, "Route") if "Route" in request.headers else []
        token = self._token_in(request.uri, request.call_id)
        if token is not None and routes and not peek:
            # A strict router put the Request-URI last.
            request.set_uri(parse_name_addr(routes.pop()).uri_text)
        while routes:
            uri = parse_name_addr(routes[0]).uri
            if not self._is_own(uri):
                break
            token = token or self._token_in(uri, request.call_id)
            routes.pop(0)
        return routes, token

    def _is_own(self, uri: URI) -> bool:
        if not isinstance(uri, SIPURI):
            return False
        if uri.address == self._own_host:
            return True
        return self._domain.covers(uri) and (
            uri.port is None or any(uri.port == where.port for where in self._edge.listening)
        )

    def _token_in(self, uri: URI, call_id: str) -> Token | None:
        if not isinstance(uri, SIPURI) or not uri.user or not self._is_own(uri):
            return None
        return self._mint.read(uri.user, call_id)

    def _passage(
        self, request: Request, digest: str, routes: list[str], token: Token | None, source: Source | None = None
    ) -> Passage:
        """`source` is where a request within a dialog came from."""
        changes: dict[str, list[str]] = {}
        if "Route" in request.headers:
            changes["Route"] = routes
        if "Proxy-Authorization" in request.headers:
            changes["Proxy-Authorization"] = without_realm(request, self._domain.name)
        if token is None:
            return Passage(digest, changes)
        sender, _ = token.direction(request.from_.tag)
        phone = None if sender.flow is None else source
        return Passage(digest, changes, caller_source=phone, media=bool(token.flags & MEDIA))

    def _target_in_dialog(self, request: Request, token: Token) -> ProxyTarget:
        _, end = token.direction(request.from_.tag)
        if end.node:
            return ProxyTarget(request.uri_text, node=end.node)
        if end.flow is not None:
            return ProxyTarget(request.uri_text, source=source_text(end.flow))
        return ProxyTarget(request.uri_text)

    # -- back ---------------------------------------------------------------------------------------------

    def _context(self, incoming: IServerRequest, passage: Passage) -> ResponseContext:
        lock = DeferredLock() if self._media is not None else None

        def respond(branch: Branch | None, response: Response) -> None:
            if branch is not None and branch.target.node is None:
                response.headers.pop("P-Asserted-Identity", None)
            if lock is None or branch is None or not branch.media:
                self._give_back(incoming, response)
                return
            # One after the other, since the relay takes its time and responses must not overtake each other.
            going = lock.run(self._after_media, branch, response)
            going.addCallback(lambda _: self._give_back(incoming, response))
            going.addErrback(lambda failure: self.log.failure("a response could not be passed on", failure))

        context = incoming.context = ResponseContext(incoming.request, passage, self._forwarding, respond)
        return context

    def _give_back(self, incoming: IServerRequest, response: Response) -> None:
        """A response of somebody's, or one of ours to a request that failed.

        To a provisional one without a To tag none is given: there would be an early dialog that nobody has.
        """
        if response.status < 200:
            incoming.respond(response)
        else:
            self._respond(incoming, response)

    def _after_media(self, branch: Branch, response: Response) -> Deferred[None]:
        return Deferred.fromCoroutine(self._media_sees(branch, response))

    async def _media_sees(self, branch: Branch, response: Response) -> None:
        media, sent = self._media, branch.sent
        if media is None or sent is None:
            return
        if response.body:
            sender = parse_source(branch.target.source) if branch.target.source else None
            await media.response_passes(response, sent, branch.identifier, sender)
        if sent.method == "BYE" and response.status >= 200:
            media.ended(sent.call_id, sent.from_.tag or "", sent.to.tag, "")


def _ignore(branch: Branch | None, response: Response) -> None:
    """Nobody waits for anything after an ACK."""
