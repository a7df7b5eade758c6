"""The node's side of the configuration and enrollment server (RFC 6940 §11.2, §11.3), over HTTPS."""

from __future__ import annotations

import base64
import io
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import quote

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    FileBodyProducer,
    HTTPConnectionPool,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from ..security.identity import Identity
from ..sip.interfaces import DeviceCredential
from .accounts import Revocation, is_name
from .tls import TrustedServer, named_server

ENROLL: Final = "/enroll"
"""Where an enrollment server of ours takes requests; its other resources are beside it."""
TIMEOUT: Final = 20.0
"""Seconds that one exchange may take."""
IDLE: Final = 10
"""Seconds that a connection is kept for the next request: less than the server keeps it."""
MAXIMUM_BODY: Final = 1 << 20
"""Bytes of an answer that are read."""
LONGEST_PAUSE: Final = 60.0

T = TypeVar("T")


class EnrollmentError(Exception):
    """The server could not be asked, or its answer makes no sense; the text is for the operator."""


class Unavailable(EnrollmentError):
    """No server answered now; trying again later may help."""


class Untrusted(EnrollmentError):
    """What answers is not the server that should be there."""


class Refused(EnrollmentError):
    """The server said no; `token` is RFC 6940 §11.3's word for why, or another one."""

    def __init__(self, token: str) -> None:
        super().__init__(_EXPLANATIONS.get(token, f"the enrollment server refused: {token}"))
        self.token = token


_EXPLANATIONS: Final = {
    "failed_authentication": (
        "the enrollment server does not accept this account and password (or the token was used by another "
        "node, or has expired: make a new one with `p2psip invite`)"
    ),
    "username_not_available": "the enrollment server does not give this user name",
    "Node-IDs_not_available": "the enrollment server does not give that many Node-IDs",
    "bad_CSR": "the enrollment server could not use the certificate signing request",
}


@dataclass(frozen=True, slots=True)
class UserCredentials:
    """What a registrar is given for one user."""

    certificate: bytes
    """DER: the user's name with the registrar's Node-ID."""
    credentials: Sequence[DeviceCredential] = field(repr=False)
    as_of: float
    """When the server read them, by its own clock."""
    max_age: float
    """Seconds after which they should be asked for again."""


@dataclass(frozen=True, slots=True)
class _Answer:
    code: int
    body: bytes


class EnrollmentClient:
    """Asks the configuration and enrollment servers of one overlay, the first that answers.

    :param reactor: IReactorTime, IReactorTCP and IReactorPluggableNameResolver.
    :param urls: base URLs, 'https://192.0.2.1:8443', in the order of preference.
    :param server: whom to believe at the other end, and the client certificate to show.
    :param enrollment_urls: where to enroll, as a configuration document says; else at ``/enroll`` of each of `urls`.
    """

    def __init__(
        self, reactor: Any, urls: Sequence[str], server: TrustedServer, enrollment_urls: Sequence[str] = ()
    ) -> None:
        self.urls = tuple(url.rstrip("/") for url in urls)
        self._enrollment_urls = tuple(enrollment_urls) or tuple(url + ENROLL for url in self.urls)
        self._exchange = _Exchange(reactor, server)

    def close(self) -> Deferred[None]:
        """Close idle connections."""
        return self._exchange.close()

    async def configuration(self) -> bytes:
        """The overlay's configuration document (RFC 6940 §11.2)."""
        return await self._ask("GET", "/.well-known/reload-config")

    async def enroll(self, csr: bytes, username: str, password: str, node_ids: int = 1) -> bytes:
        """A certificate (DER) for the key of `csr` (PKCS#10, DER), as RFC 6940 §11.3 has it.

        :raises Refused: with the server's token.  All methods raise other EnrollmentErrors as well.
        """
        fields = {"username": username, "password": password}
        if node_ids > 1:
            fields["nodeids"] = str(node_ids)
        return await self._first("POST", self._enrollment_urls, fields, csr)

    async def renew(self, csr: bytes) -> bytes:
        """A new certificate (DER) for the same key, with the name and Node-IDs of the certificate shown."""
        return await self._ask("POST", "/renew", {}, csr)

    async def user_credentials(self, csr: bytes, method: str, authorization: str) -> UserCredentials:
        """The credentials of the user whose phone sent `authorization`, a header's value, to us."""
        fields = {"method": method, "authorization": authorization}
        answer = _object(await self._ask("POST", "/registrar/credentials", fields, csr))
        try:
            return UserCredentials(
                base64.b64decode(answer["certificate"], validate=True),
                tuple(
                    DeviceCredential(str(c["device"]), str(c["algorithm"]), str(c["ha1"]))
                    for c in answer["credentials"]
                ),
                float(answer["as_of"]),
                float(answer["max_age"]),
            )
        except (KeyError, TypeError, ValueError) as e:
            raise EnrollmentError("the enrollment server's credentials make no sense") from e

    async def server_certificate(self, csr: bytes, addresses: Sequence[str]) -> list[bytes]:
        """The chain (DER) for the key of `csr`, that this node, a registrar at `addresses`, shows to phones."""
        fields = {"addresses": " ".join(addresses)}
        answer = _object(await self._ask("POST", "/registrar/server-certificate", fields, csr))
        try:
            return [base64.b64decode(certificate, validate=True) for certificate in answer["chain"]]
        except (KeyError, TypeError, ValueError) as e:
            raise EnrollmentError("the enrollment server's certificate makes no sense") from e

    async def gateway_certificate(self, csr: bytes) -> bytes:
        """The certificate (DER) with which this node, a registrar, stores that it is a gateway."""
        return await self._ask("POST", "/registrar/gateway", {}, csr)

    async def with_number(self, number: str) -> tuple[str, str] | None:
        """The name and the number of the account that has a telephone number; None: there is none."""
        return await self._name_and_number(f"number={quote(number, safe='')}")

    async def number_of(self, name: str) -> tuple[str, str] | None:
        """The same of the account of this name; the number may be empty."""
        return await self._name_and_number(f"account={quote(name, safe='')}")

    async def _name_and_number(self, query: str) -> tuple[str, str] | None:
        answer = _object(await self._ask("GET", f"/registrar/number?{query}"))
        name, number = answer.get("account"), answer.get("number")
        if not isinstance(name, str) or not isinstance(number, str) or (name and not is_name(name)):
            raise EnrollmentError("the enrollment server's answer about a number makes no sense")
        return (name, number) if name else None

    async def revocations(self, cursor: str) -> tuple[str, list[Revocation]]:
        """What was revoked since `cursor` was answered ('' from the beginning), and the next cursor.

        There may be more: ask again until nothing comes.
        """
        answer = _object(await self._ask("GET", f"/registrar/revocations?since={cursor}"))
        try:
            entries = [Revocation(str(e["account"]), str(e["device"]), float(e["time"])) for e in answer["revocations"]]
            return str(answer["cursor"]), entries
        except (KeyError, TypeError, ValueError) as e:
            raise EnrollmentError("the enrollment server's revocations make no sense") from e

    async def _ask(self, method: str, path: str, fields: Mapping[str, str] | None = None, csr: bytes = b"") -> bytes:
        return await self._first(method, [url + path for url in self.urls], fields, csr)

    async def _first(
        self, method: str, urls: Sequence[str], fields: Mapping[str, str] | None, csr: bytes
    ) -> bytes:
        """What the first of `urls` that works answers."""
        failures: list[EnrollmentError] = []
        for url in urls:
            try:
                return await self._exchange.ask(method, url, fields, csr)
            except (Unavailable, Untrusted) as e:
                failures.append(e)
        if not failures:
            raise Unavailable("there is no enrollment server to ask")
        # One that is only down may yet be the right one.
        if any(isinstance(failure, Unavailable) for failure in failures):
            raise Unavailable("; ".join(str(failure) for failure in failures))
        raise failures[0]


async def fetch_document(
    reactor: Any, url: str, server: TrustedServer | None = None, connect_to: tuple[str, int] | None = None
) -> bytes:
    """The configuration document at an https URL (RFC 6940 §11.2).

    :param server: whom to believe; by default whose certificate matches the host in the URL.
    :param connect_to: host and port, where the DNS names them instead of the URL.
    :raises EnrollmentError: there is none to be had.
    """
    if not url.startswith("https://"):
        raise EnrollmentError(f"{url} is no https URL")
    exchange = _Exchange(reactor, server or named_server(URI.fromBytes(url.encode()).host.decode()), connect_to)
    try:
        return await exchange.ask("GET", url)
    finally:
        await exchange.close()


def document_url(overlay: str) -> str:
    """Where an overlay's configuration document is, if the DNS names its server (RFC 6940 §11.2)."""
    return f"https://{overlay}/.well-known/reload-config"


def renewal_time(identity: Identity) -> float:
    """When a certificate is to be renewed, in seconds since the epoch: after two thirds of its life."""
    return identity.not_before + (identity.not_after - identity.not_before) * 2 / 3


async def with_patience(
    attempt: Callable[[], Awaitable[T]], clock: IReactorTime, waiting: Callable[[str, float], None]
) -> T:
    """What `attempt` answers; asked again for ever, with growing pauses, while it is Unavailable.

    `waiting` is told why, and how many seconds the pause takes.
    """
    pause = 1.0
    while True:
        try:
            return await attempt()
        except Unavailable as e:
            waiting(str(e), pause)
        await deferLater(clock, pause)
        pause = min(pause * 2, LONGEST_PAUSE)


# -- HTTP ----------------------------------------------------------------------------------------------


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Where to connect for a URL, and how to secure that."""

    def __init__(self, reactor: Any, server: TrustedServer, connect_to: tuple[str, int] | None) -> None:
        self._reactor = reactor
        self._server = server
        self._connect_to = connect_to

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host, port = self._connect_to or (uri.host.decode(), uri.port)
        return wrapClientTLS(self._server, HostnameEndpoint(self._reactor, host, port, timeout=5))


class _Exchange:
    """One request and its answer, at servers that are judged by `server`."""

    def __init__(self, reactor: Any, server: TrustedServer, connect_to: tuple[str, int] | None = None) -> None:
        self._reactor = reactor
        self._server = server
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = 4
        self._pool.cachedConnectionTimeout = IDLE
        self._agent = Agent.usingEndpointFactory(reactor, _Endpoints(reactor, server, connect_to), self._pool)

    def close(self) -> Deferred[None]:
        """Close idle connections."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    async def ask(self, method: str, url: str, fields: Mapping[str, str] | None = None, csr: bytes = b"") -> bytes:
        """The body of the answer.

        :raises EnrollmentError: there is none, or it is no success.
        """
        exchange = Deferred.fromCoroutine(self._answer(method, url, fields, csr))
        exchange.addTimeout(TIMEOUT, self._reactor)
        try:
            answer = await exchange
        except DeferredTimeout:
            raise Unavailable(f"{_host(url)} takes too long to answer") from None
        except (ConnectError, ConnectionClosed, OSError) as e:
            raise Unavailable(f"{_host(url)} does not answer: {e}") from e
        except (ResponseFailed, RequestTransmissionFailed, RequestGenerationFailed) as e:
            if _is_distrust(e):
                text = f"{_host(url)} is not the server that should be there: {self._server.complaint}"
                raise Untrusted(text) from e
            raise Unavailable(f"{_host(url)} does not answer: {_inner(e)}") from e
        if answer.code == 200:
            return answer.body
        text = answer.body[:200].decode("utf-8", "replace").strip()
        if answer.code == 429 or answer.code >= 500:
            raise Unavailable(f"{_host(url)} cannot answer now: {text}")
        raise Refused(text if answer.code == 403 else f"HTTP status {answer.code}")

    async def _answer(self, method: str, url: str, fields: Mapping[str, str] | None, csr: bytes) -> _Answer:
        headers = Headers({"User-Agent": ["p2psip"]})
        body = None
        if fields is not None:
            boundary = secrets.token_hex(16)
            headers.setRawHeaders("Content-Type", [f"multipart/form-data; boundary={boundary}"])
            headers.setRawHeaders("Accept", ["application/pkix-cert, application/json"])
            body = FileBodyProducer(_form(boundary, fields, csr))
        response = await self._agent.request(method.encode(), url.encode(), headers, body)
        return _Answer(response.code, await _read(response))


def _form(boundary: str, fields: Mapping[str, str], csr: bytes) -> io.BytesIO:
    """The fields and the request as multipart/form-data (RFC 2388), a file of bytes."""
    parts = []
    for name, value in fields.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        parts.append(f"{head}{value}\r\n".encode())
    parts += [
        f'--{boundary}\r\nContent-Disposition: form-data; name="csr"; filename="csr"\r\n'
        "Content-Type: application/pkcs10\r\nContent-Transfer-Encoding: binary\r\n\r\n".encode(),
        csr,
        f"\r\n--{boundary}--\r\n".encode(),
    ]
    return io.BytesIO(b"".join(parts))


class _Body(Protocol):
    """Reads an answer's body, up to `MAXIMUM_BODY`."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self.done: Deferred[bytes] = Deferred(lambda _: self._abort())

    def _abort(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= MAXIMUM_BODY:
            self._parts.append(data)
        elif not self.done.called:
            self.done.errback(EnrollmentError(f"the server's answer is larger than {MAXIMUM_BODY} bytes"))
            self._abort()

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:  # noqa: B008
        if self.done.called:
            return
        if reason.check(ResponseDone):
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(ResponseFailed([reason]))


def _read(response: IResponse) -> Deferred[bytes]:
    body = _Body()
    response.deliverBody(body)
    return body.done


def _host(url: str) -> str:
    return "/".join(url.split("/")[:3])


def _inner(error: Any) -> Any:
    """What happened, out of the list of failures in which Agent hides it."""
    while reasons := getattr(error, "reasons", None):
        first = reasons[0]
        error = first.value if isinstance(first, Failure) else first
    return error


def _is_distrust(error: BaseException) -> bool:
    inner = _inner(error)
    return isinstance(inner, SSL.Error) and "certificate verify failed" in str(inner)


def _object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as e:
        raise EnrollmentError("the enrollment server's answer is not JSON") from e
    if not isinstance(answer, dict):
        raise EnrollmentError("the enrollment server's answer is not a JSON object")
    return answer
