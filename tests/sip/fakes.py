"""What the tests of SIP put in place of the overlay and of the enrollment server."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from p2psip.sip.digest import (
    ALGORITHMS,
    DigestCredentials,
    authorization_for,
    choose_challenge,
    ha1,
)
from p2psip.sip.errors import NoSuchDomain, NotRegistered, UnknownUser
from p2psip.sip.interfaces import (
    BindingRow,
    DeviceCredential,
    IBindingJournal,
    ICredentials,
    IRegistrationStore,
    IServerLocator,
    IServerRequest,
    ITransactionUser,
    NodeRoute,
    Resolution,
    Source,
    Target,
)
from p2psip.sip.locator import numeric_target
from p2psip.sip.message import Request, Response
from p2psip.sip.uri import SIPURI

DOMAIN = "example.org"
PHONE = Source("192.0.2.1", 5060, "UDP")


@implementer(ICredentials)
class FakeCredentials:
    """Accounts with the passwords of their devices."""

    def __init__(self, **passwords: Sequence[str]) -> None:
        self.known = {
            user: [
                DeviceCredential(f"device{number}", algorithm, ha1(algorithm, user, DOMAIN, password))
                for number, password in enumerate(devices)
                for algorithm in ALGORITHMS
            ]
            for user, devices in passwords.items()
        }
        self.asked: list[tuple[str, str, str]] = []
        self.failure: Exception | None = None
        self.waiting: Deferred[None] | None = None

    def credentials(
        self, user: str, authorization: DigestCredentials, method: str
    ) -> Deferred[Sequence[DeviceCredential]]:
        self.asked.append((user, authorization.username, method))
        return Deferred.fromCoroutine(self._credentials(user))

    async def _credentials(self, user: str) -> Sequence[DeviceCredential]:
        if self.waiting is not None:
            await self.waiting
        if self.failure is not None:
            raise self.failure
        if user not in self.known:
            raise UnknownUser()
        return self.known[user]


@implementer(IRegistrationStore)
class FakeStore:
    """The overlay: what was stored, and what is known of other registrars."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.elsewhere: dict[str, Resolution] = {}
        self.failure: Exception | None = None
        self.waiting: Deferred[None] | None = None

    def forwarded(self, aor: str) -> bool:
        return False

    def register(self, aor: str, expires: int, prefs: str = "") -> Deferred[None]:
        self.calls.append(("register", aor, str(expires)))
        return self._done()

    def unregister(self, aor: str) -> Deferred[None]:
        self.calls.append(("unregister", aor))
        return self._done()

    def _done(self) -> Deferred[None]:
        if self.failure is not None:
            return fail(self.failure)
        return succeed(None) if self.waiting is None else self.waiting

    def resolve(self, aor: str) -> Deferred[Resolution]:
        self.calls.append(("resolve", aor))
        if self.failure is not None:
            return fail(self.failure)
        if aor in self.elsewhere:
            return succeed(self.elsewhere[aor])
        known = aor.partition("@")[0] in ("alice", "bob", "carol")
        return fail(NotRegistered() if known else UnknownUser())


    def routes(self, aor: str) -> Deferred[Sequence[NodeRoute]]:
        self.calls.append(("routes", aor))
        return fail(self.failure or UnknownUser())


@implementer(IServerLocator)
class FakeLocator:
    """Finds servers by their addresses alone."""

    def locate(self, uri: SIPURI) -> Deferred[Sequence[Target]]:
        target = numeric_target(uri)
        return fail(NoSuchDomain()) if target is None else succeed([target])


@implementer(IBindingJournal)
class FakeJournal:
    def __init__(self) -> None:
        self.rows: dict[str, Sequence[BindingRow]] = {}

    def save(self, aor: str, rows: Sequence[BindingRow]) -> None:
        self.rows[aor] = rows

    def load(self) -> list[BindingRow]:
        return [row for rows in self.rows.values() for row in rows]


@implementer(IServerRequest)
class FakeIncoming:
    """A request that came in; keeps what is answered."""

    def __init__(self, request: Request, source: Source = PHONE, cancels: FakeIncoming | None = None) -> None:
        self.request = request
        self.source = source
        self.cancels = cancels
        self.responses: list[Response] = []
        self.stateless = False
        self.flow = source
        self.context: object = None

    @property
    def answered(self) -> bool:
        return any(response.status >= 200 for response in self.responses)

    def respond(self, response: Response, stateless: bool = False) -> None:
        if not self.answered:
            self.responses.append(response)
            self.stateless = stateless


@implementer(ITransactionUser)
class FakeUser:
    """A transaction user that keeps what comes, and answers with `status` at once unless it is None."""

    def __init__(self, status: int | None = 200) -> None:
        self.status = status
        self.incoming: list[IServerRequest] = []
        self.acks: list[Request] = []

    def request_received(self, incoming: IServerRequest) -> None:
        self.incoming.append(incoming)
        if self.status is not None:
            incoming.respond(incoming.request.response(self.status, to_tag="user"))

    def ack_received(self, request: Request, flow: object) -> None:
        self.acks.append(request)


def make_request(
    method: str = "REGISTER",
    uri: str = f"sip:{DOMAIN}",
    user: str = "alice",
    cseq: int = 1,
    branch: str | None = None,
    call_id: str = "call",
    **headers: str,
) -> Request:
    """A request as a phone of `user` sends it; keywords are further header fields, `_` for `-`."""
    aor = f"sip:{user}@{DOMAIN}"
    request = Request(
        method,
        uri,
        [
            ("Via", f"SIP/2.0/UDP 192.0.2.1;branch={branch or f'z9hG4bK{method}{user}{cseq}{call_id}'}"),
            ("Max-Forwards", "70"),
            ("From", f"<{aor}>;tag={user}"),
            ("To", f"<{aor if method == 'REGISTER' else uri}>"),
            ("Call-ID", call_id),
            ("CSeq", f"{cseq} {method}"),
        ],
    )
    for name, value in headers.items():
        request.set(name.replace("_", "-"), value)
    return request


def authorize(request: Request, response: Response, password: str = "pw", count: int = 1, user: str = "") -> Request:
    """Add to `request` the answer to the challenge in `response`."""
    header = "Proxy-Auth" if response.status == 407 else "WWW-Auth"
    challenge = choose_challenge(response.values(f"{header}enticate"))
    assert challenge is not None
    user = user or str(request.from_.uri).partition(":")[2].partition("@")[0]
    proof = authorization_for(challenge, request.method, request.uri_text, user, password, "cnonce", count)
    request.set("Proxy-Authorization" if response.status == 407 else "Authorization", str(proof))
    return request
