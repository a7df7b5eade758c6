"""The running node's answers to ``p2psip``: HTTP with JSON on a Unix socket in the state directory.

The socket's file mode is the access control.  Long lists are paged by ``offset`` and ``limit``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

MAXIMUM_BODY = 64 << 20
"""Bytes of a request; an exported authority is the largest."""
LARGEST_PAGE = 1000
_HALF = re.compile("[\ud800-\udfff]")


class ControlError(Exception):
    """What was asked cannot be done; the text is one line for the operator, `status` the HTTP status."""

    def __init__(self, text: str, status: int = 409) -> None:
        super().__init__(text)
        self.status = status


class Call:
    """One request: the parts of the path that the route names, the query and the JSON body."""

    def __init__(self, path: Mapping[str, str], query: Mapping[str, str], body: Any) -> None:
        self.path = path
        self.query = query
        self.body: Mapping[str, Any] = body if isinstance(body, dict) else {}
        self.content = body

    def text(self, name: str, default: str | None = None) -> str:
        """A text out of the body or the query; a JSON null is as good as missing.

        :raises ControlError: it is missing and has no default, or is no text.
        """
        value = self._value(name)
        if value is None:
            value = default
        if value is None:
            raise ControlError(f"{name} is missing", 400)
        # JSON can name half of a surrogate pair, which is no character.
        if not isinstance(value, str) or _HALF.search(value):
            raise ControlError(f"{name} is not a text", 400)
        return value

    def optional(self, name: str) -> str | None:
        """A text that may be missing or empty.

        :raises ControlError: it is no text.
        """
        return self.text(name, "") or None

    def number(self, name: str, default: int | None = None) -> int:
        """A whole number out of the body or the query.

        :raises ControlError: it is missing and has no default, or is no number from 0 to 2**32 - 1.
        """
        value = self._value(name)
        try:
            number = int(default if value is None else value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            raise ControlError(f"{name} is not a number", 400) from None
        if not 0 <= number < 1 << 32:
            raise ControlError(f"{name} is out of range", 400)
        return number

    def _value(self, name: str) -> Any:
        return self.body.get(name, self.query.get(name))

    def page(self) -> tuple[int, int]:
        """Offset and limit of a page."""
        return self.number("offset", 0), min(max(1, self.number("limit", 100)), LARGEST_PAGE)


Route = Callable[[Call], Awaitable[Any]]


class ControlServer:
    """Serves `routes`: HTTP method and path pattern, such as ("GET", "/users/{name}"), to a coroutine.

    What a route raises of `expected` becomes a one-line error; anything else is logged as a bug.
    """

    log = Logger()

    def __init__(
        self, routes: Mapping[tuple[str, str], Route], expected: tuple[type[Exception], ...]
    ) -> None:
        self._routes = [
            (method, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern) + r"\Z"), route)
            for (method, pattern), route in routes.items()
        ]
        self._expected: tuple[type[BaseException], ...] = (*expected, DeferredTimeout, CancelledError)
        self._port: IListeningPort | None = None
        self._directory = -1

    def listen(self, path: Path, reactor: Any) -> None:
        """Serve on the Unix socket `path`, mode 0600; a socket that a dead process left is replaced."""
        path.unlink(missing_ok=True)
        site = Site(_Root(self), timeout=120)
        site.displayTracebacks = False
        # By way of the directory's descriptor: a socket's path may have no more than 107 bytes.  Kept open, since
        # the port removes the socket by that path when it is closed.
        self._directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        self._port = reactor.listenUNIX(f"/proc/self/fd/{self._directory}/{path.name}", site, mode=0o600)

    async def stop(self) -> None:
        """Serve no more."""
        if self._port is not None:
            port, self._port = self._port, None
            await maybeDeferred(port.stopListening)
            os.close(self._directory)

    async def answer(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> tuple[int, Any]:
        """HTTP status and JSON of one request."""
        routes = [(m, match, r) for m, pattern, r in self._routes if (match := pattern.match(path))]
        found = next(((match, r) for m, match, r in routes if m == method), None)
        if found is None:
            return (405 if routes else 404), {"error": f"no such request: {method} {path}"}
        match, route = found
        try:
            content = json.loads(body) if body else None
        except (ValueError, RecursionError):
            return 400, {"error": "the body is not JSON"}
        try:
            parts = {name: unquote(value) for name, value in match.groupdict().items()}
            return 200, await route(Call(parts, query, content))
        except ControlError as e:
            return e.status, {"error": str(e)}
        except self._expected as e:
            return 409, {"error": str(e) or type(e).__name__}
        except Exception:  # noqa: BLE001  (a bug in one request must not end the others)
            self.log.failure("{method} {path} failed", method=method, path=path)
            return 500, {"error": "internal error; the node's log says more"}


class _Root(Resource):
    isLeaf = True

    def __init__(self, server: ControlServer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._server = server

    def render(self, request: Request) -> int:
        gone: list[bool] = []
        request.notifyFinish().addErrback(lambda _: gone.append(True))

        async def respond() -> None:
            query = {
                k.decode("utf-8", "replace"): v[-1].decode("utf-8", "replace")
                for k, v in request.args.items()
            }
            body = request.content.read(MAXIMUM_BODY) if request.content is not None else b""
            path = request.path.decode("ascii", "replace")
            status, answer = await self._server.answer(request.method.decode("ascii", "replace"), path, query, body)
            if not gone:
                request.setResponseCode(status)
                request.setHeader(b"content-type", b"application/json")
                request.write(json.dumps(answer).encode())
                request.finish()

        Deferred.fromCoroutine(respond()).addErrback(
            lambda failure: self._server.log.failure("a control answer could not be written", failure)
        )
        return NOT_DONE_YET
