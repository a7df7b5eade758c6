"""A node as its service has it, for the tests of what the operator asks of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred

from p2psip.authority import AuthorityService
from p2psip.control import ControlServer
from p2psip.gateway import Numbers
from p2psip.node import Node
from p2psip.phones import Phones
from p2psip.publishing import Publisher
from p2psip.routes import EXPECTED
from p2psip.state import StateDirectory
from p2psip.testing import World

T = TypeVar("T")


class Service:
    """`Administered` around one node of a `World`."""

    def __init__(self, world: World, node: Node | None, path: str | Path) -> None:
        self.world = world
        self.overlay = world.name
        self.state = StateDirectory(path)
        self.reactor: Any = world.clock
        self.phase = "joining"
        self.node = node
        self.phones: Phones | None = None
        self.media = None
        self.numbers: Numbers | None = None
        self.authority: AuthorityService | None = None
        self.publisher: Publisher | None = None
        ports = {"sip-port": 5060, "sip-mode": "proxy", "reload-port": 6084, "enrollment-port": 8443}
        files = {"accounts": None, "web-certificate": None}
        self.options: dict[str, Any] = {**ports, **files, "key-type": "ec", "revocation-interval": 60}
        self.interfaces: Sequence[str] = ("127.0.0.1",)
        self.advertised: Sequence[str] = ("192.0.2.1", "2001:db8::1")
        self.left = False

    def in_thread(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        return maybeDeferred(function, *arguments)

    def listeners(self) -> list[str]:
        return ["reload 192.0.2.1:6084"]

    async def leave(self) -> None:
        self.left = True

    def ask(self, routes: Any, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
        """HTTP status and JSON with which `routes` answer."""
        server = ControlServer(routes, EXPECTED)
        content = b"" if body is None else json.dumps(body).encode()
        return self.world.result(Deferred.fromCoroutine(server.answer(method, path, query, content)))
