"""What of HTTP is not about enrollment: requests of bounded size and time, answers that take their time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

MAXIMUM_REQUEST: Final = 64 << 10
"""Bytes of a request's body; a certificate signing request has about 500."""
REQUEST_SECONDS: Final = 30.0
"""How long a request may take to arrive, however busily it dribbles in, and a connection may be idle."""


@dataclass(frozen=True, slots=True)
class Page:
    """One HTTP answer."""

    code: int
    body: bytes
    content_type: str = "text/plain"
    retry_after: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    """Further header fields."""


class AsynchronousLeaf(Resource):
    """A resource whose answer to each of `methods`, GET or POST, takes its time; `answer` must not fail."""

    log = Logger()

    def __init__(self, answer: Callable[[Request], Coroutine[Any, Any, Page]], *methods: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.allowedMethods = ((b"GET", b"HEAD") if "GET" in methods else ()) + (
            (b"POST",) if "POST" in methods else ()
        )
        for method in methods:
            setattr(self, f"render_{method}", self._render)
        self._answer = answer

    def _render(self, request: Request) -> int:
        gone: list[bool] = []
        request.notifyFinish().addErrback(lambda _: gone.append(True))

        def finish(page: Page) -> None:
            if gone:
                return
            request.setResponseCode(page.code)
            request.setHeader(b"content-type", page.content_type.encode())
            request.setHeader(b"content-length", b"%d" % len(page.body))
            request.setHeader(b"cache-control", b"no-store")
            for name, value in page.headers:
                request.responseHeaders.addRawHeader(name.encode(), value.encode())
            if page.retry_after:
                request.setHeader(b"retry-after", b"%d" % page.retry_after)
            request.write(page.body)
            request.finish()

        asked = Deferred.fromCoroutine(self._answer(request)).addCallback(finish)
        asked.addErrback(lambda failure: self.log.failure("an answer could not be written", failure))
        return NOT_DONE_YET


class _BoundedRequest(Request):
    """A request whose body may not exceed `MAXIMUM_REQUEST`, whatever it says of its length."""

    _received = 0
    _refused = False

    def gotLength(self, length: int | None) -> None:
        """The headers are there, and tell how long the body is, if they do."""
        bounded = min(length, MAXIMUM_REQUEST) if length is not None else None
        super().gotLength(bounded)  # type: ignore[no-untyped-call]
        if length is not None and length > MAXIMUM_REQUEST:
            self._refuse(b"413 Content Too Large")

    def handleContentChunk(self, data: bytes) -> None:
        """A part of the body."""
        self._received += len(data)
        if self._received > MAXIMUM_REQUEST:
            self._refuse(b"413 Content Too Large")
        if not self._refused:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """All of it is there."""
        if self._refused:
            return
        try:
            super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]
        except (AttributeError, TypeError, LookupError, ValueError, RecursionError):
            # Twisted reads forms with the email package, and does not expect all that this makes of nonsense.
            self._refuse(b"400 Bad Request")

    def _refuse(self, status: bytes) -> None:
        if not self._refused:
            self._refused = True
            channel: Any = self.channel
            channel.transport.write(b"HTTP/1.1 %b\r\nConnection: close\r\n\r\n" % status)
            channel.loseConnection()


class _ImpatientChannel(HTTPChannel):
    """Time runs from the end of one request to the end of the next, not anew with each byte."""

    def resetTimeout(self) -> None:
        """Some bytes came."""


class BoundedSite(Site):
    """Serves `root` to strangers."""

    protocol = _ImpatientChannel  # type: ignore[assignment]
    displayTracebacks = False
    noisy = False

    def __init__(self, root: Resource, reactor: Any) -> None:
        timeout = REQUEST_SECONDS
        super().__init__(  # type: ignore[no-untyped-call]
            root, requestFactory=_BoundedRequest, timeout=timeout, reactor=reactor
        )

    def log(self, request: object) -> None:
        """Nothing: strangers do not write our log.  What matters is in the audit log and in the counters."""


def field(request: Request, name: bytes) -> str:
    """The one value of a form field or of the query; empty when it is missing, repeated, or not UTF-8."""
    try:
        return octets(request, name).decode()
    except UnicodeDecodeError:
        return ""


def octets(request: Request, name: bytes) -> bytes:
    """The one value of a form field, as sent; empty when it is missing or repeated."""
    values: list[Any] = (request.args or {}).get(name, [])
    return values[0] if len(values) == 1 and isinstance(values[0], bytes) else b""
