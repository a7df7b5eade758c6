"""A SIP trunk into the telephone network: its challenges answered, this node registered at it (RFC 3261 §10, §22)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .digest import DigestCredentials, authorization_for, choose_challenge
from .edge import SIPEdge
from .errors import SIPFailure, SIPParseError
from .headers import parse_expires
from .interfaces import ITrunk, ProxyTarget, Target
from .message import Request, Response
from .uri import SIPURI

MOST_NONCES: Final = 64
EXPIRES: Final = 3600
"""Seconds for which a registration is asked for."""
LONGEST: Final = 86400
MOST_ATTEMPTS: Final = 4
"""Requests that one registration takes at most: a challenge, a stale nonce, an interval too brief."""
RETRY: Final = 30.0
"""Seconds before a registration that failed is tried again; each further failure doubles them."""
LONGEST_RETRY: Final = 600.0
PATIENCE: Final = 2.0
"""Seconds that unregistering may take: the node waits for it before it ends."""

_HEADERS: Final = {
    401: ("WWW-Authenticate", "Authorization"),
    407: ("Proxy-Authenticate", "Proxy-Authorization"),
}


@implementer(ITrunk)
class Trunk:
    """One trunk, and who this node is there; without `user` its challenges cannot be answered."""

    def __init__(self, uri: SIPURI, user: str, password: str, random: Random) -> None:
        self.uri = uri
        self.user = user
        self._password = password
        self._random = random
        self._counts: OrderedDict[str, int] = OrderedDict()
        """How often each nonce was used."""

    def __repr__(self) -> str:
        return f"<Trunk {self.uri}>"

    def authorization(self, request: Request, response: Response) -> tuple[str, str] | None:
        """See `ITrunk`; None as well where `request` had our answer already, and its nonce was not merely stale."""
        if not self.user or response.status not in _HEADERS:
            return None
        asks, answers = _HEADERS[response.status]
        challenge = choose_challenge(response.values(asks))
        if challenge is None or (not challenge.stale and self._answered(request, answers, challenge.realm)):
            return None
        count = self._counts.pop(challenge.nonce, 0) + 1
        self._counts[challenge.nonce] = count
        while len(self._counts) > MOST_NONCES:
            self._counts.popitem(last=False)
        cnonce = f"{self._random.getrandbits(64):016x}"
        credentials = authorization_for(
            challenge, request.method, request.uri_text, self.user, self._password, cnonce, count
        )
        return answers, str(credentials)

    def _answered(self, request: Request, header: str, realm: str) -> bool:
        for value in request.headers.get(header, ()):
            try:
                credentials = DigestCredentials.parse(value)
            except SIPParseError:
                continue
            if (credentials.username, credentials.realm) == (self.user, realm):
                return True
        return False

    def target(self, number: str, server: Target | None = None, identity: str = "") -> ProxyTarget:
        """The way to `number` (in its normal form) over this trunk, by one of its servers.

        :param identity: the global number that the caller is known by there; it is asserted (RFC 3325).
        """
        uri = SIPURI(self.uri.scheme, number, None, self.uri.host, self.uri.port, {**self.uri.parameters})
        uri.parameters["user"] = "phone"
        headers = (("P-Asserted-Identity", f"<tel:{identity}>"),) if identity else ()
        return ProxyTarget(str(uri), trunk=self, server=server, headers=headers)


class TrunkRegistration:
    """Keeps this node registered at a trunk, so that it sends calls here.

    :param contact: the user of the Contact: what a trunk that knows no numbers puts into its Request-URIs.
    :param servers: the trunk's servers as they are known now.
    """

    log = Logger()

    def __init__(
        self,
        trunk: Trunk,
        contact: str,
        edge: SIPEdge,
        servers: Callable[[], Sequence[Target]],
        clock: IReactorTime,
        random: Random,
    ) -> None:
        self._trunk = trunk
        self._contact = contact
        self._edge = edge
        self._servers = servers
        self._clock = clock
        self._random = random
        self._call_id = f"{random.getrandbits(128):032x}"
        self._cseq = 0
        self._until = 0.0
        self._failures = 0
        self._last = Target("", "", 0)
        self._next: IDelayedCall | None = None
        self._under_way: Deferred[None] | None = None
        self._stopped = False

    @property
    def registered(self) -> bool:
        """Whether it is registered."""
        return self._until > self._clock.seconds()

    def start(self) -> None:
        """Register, and again before it ends; further calls do nothing."""
        if self._under_way is None:
            self._go_on()

    def _go_on(self) -> None:
        self._under_way = Deferred.fromCoroutine(self._once())
        self._under_way.addErrback(self._ended)

    def stop(self) -> Deferred[None]:
        """Register no more, and take back what there is; never fails."""
        self._stopped = True
        if self._next is not None and self._next.active():
            self._next.cancel()
        if self._under_way is not None:
            self._under_way.cancel()
        if not self.registered:
            return succeed(None)
        self._until = 0.0
        ending: Deferred[None] = Deferred.fromCoroutine(self._unregister())
        return ending.addTimeout(PATIENCE, self._clock).addErrback(self._ended)

    async def _unregister(self) -> None:
        await self._register_at(self._last, 0)

    def _ended(self, failure: Failure) -> None:
        if not failure.check(CancelledError, DeferredTimeout, SIPFailure):
            self.log.failure("the registration at a trunk", failure)

    async def _once(self) -> None:
        try:
            granted = await self._register()
        except (SIPFailure, SIPParseError) as error:
            delay = min(RETRY * 2**self._failures, LONGEST_RETRY)
            if not self._failures:
                self.log.warn("no registration at {trunk}: {error}", trunk=str(self._trunk.uri), error=str(error))
            self._failures = min(self._failures + 1, 16)
        else:
            if self._failures or not self.registered:
                self.log.info("registered at {trunk}", trunk=str(self._trunk.uri))
            self._failures = 0
            self._until = self._clock.seconds() + granted
            # RFC 5626 s4.4.1 has the like: in good time, and not all at once.
            delay = granted * 0.75
        if not self._stopped:
            self._next = self._clock.callLater(delay * self._random.uniform(0.8, 1.0), self._go_on)

    async def _register(self) -> float:
        """Register at the first server that answers; for how many seconds."""
        failure = SIPFailure(503, "no server of the trunk is known")
        for server in self._servers():
            try:
                granted = await self._register_at(server, EXPIRES)
            except SIPFailure as error:
                failure = error
                if error.status not in (408, 503):
                    raise
            else:
                self._last = server
                return granted
        raise failure

    async def _register_at(self, server: Target, expires: int) -> float:
        credentials: tuple[str, str] | None = None
        for _ in range(MOST_ATTEMPTS):
            request = await self._request(server, expires, credentials)
            response = await self._edge.request(request, server)
            if response.status in _HEADERS:
                credentials = self._trunk.authorization(request, response)
                if credentials is None:
                    raise SIPFailure(response.status, "it does not take the user and password")
            elif response.status == 423:
                expires = max(expires, min(parse_expires(response.get("Min-Expires")) or LONGEST, LONGEST))
            elif response.status >= 300:
                raise SIPFailure(response.status, response.reason)
            else:
                return float(self._granted(response, expires))
        raise SIPFailure(response.status, "it asks again and again")

    async def _request(self, server: Target, expires: int, credentials: tuple[str, str] | None) -> Request:
        trunk = self._trunk.uri
        request = Request("REGISTER", str(SIPURI(trunk.scheme, host=trunk.host, port=trunk.port)))
        us = str(SIPURI(trunk.scheme, self._trunk.user, host=trunk.host, port=trunk.port))
        where = self._edge.sent_by(await self._edge.flow_to(server))
        self._cseq += 1
        for name, value in (
            ("To", f"<{us}>"),
            ("From", f"<{us}>"),
            ("Call-ID", self._call_id),
            ("CSeq", f"{self._cseq} REGISTER"),
            ("Contact", f"<sip:{self._contact}@{where};transport={server.transport.lower()}>"),
            ("Expires", str(expires)),
            *((credentials,) if credentials else ()),
        ):
            request.set(name, value)
        return request

    def _granted(self, response: Response, expires: int) -> int:
        """For how many seconds, at least half a minute: as the Contact that is ours says, or Expires."""
        said = response.expires
        for contact in response.contacts:
            if isinstance(contact.uri, SIPURI) and contact.uri.user == self._contact:
                said = contact.expires or said
        return max(30, min(said or expires, LONGEST))
