"""The control socket: who may speak to it, and what it answers."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, readBody
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from p2psip.control import Call, ControlError, ControlServer


class Expected(Exception):
    """What may go wrong without being a bug."""


async def greet(call: Call) -> Any:
    return {"hello": call.path["name"], "times": call.number("times", 1)}


async def refuse(call: Call) -> Any:
    raise ControlError("not now", 409)


async def fail(call: Call) -> Any:
    raise Expected("the peer is gone")


async def break_down(call: Call) -> Any:
    raise ZeroDivisionError


def server() -> ControlServer:
    return ControlServer(
        {
            ("GET", "/greetings/{name}"): greet,
            ("POST", "/refused"): refuse,
            ("POST", "/failed"): fail,
            ("POST", "/broken"): break_down,
        },
        (Expected,),
    )


class CallTests(SynchronousTestCase):
    """What a route finds in a call."""

    def call(self, body: object = None, **query: str) -> Call:
        return Call({}, query, body)

    def refusal(self, ask: Callable[..., object], *arguments: object) -> str:
        error = self.assertRaises(ControlError, ask, *arguments)
        self.assertEqual(error.status, 400)
        return str(error)

    def test_texts(self) -> None:
        """The body goes before the query; null is as good as missing."""
        call = self.call({"a": "body", "b": None, "c": ""}, a="query", d="query")
        self.assertEqual([call.text("a"), call.text("d"), call.text("b", "default")], ["body", "query", "default"])
        self.assertEqual([call.optional(name) for name in "abcde"], ["body", None, None, "query", None])
        self.assertEqual(self.refusal(call.text, "b"), "b is missing")

    def test_what_is_no_text(self) -> None:
        for value in (1, True, [], {}, "half of a pair: \ud83d"):
            call = self.call({"a": value})
            for ask in (call.text, call.optional):
                self.assertEqual(self.refusal(ask, "a"), "a is not a text", value)

    def test_numbers(self) -> None:
        call = self.call({"a": 5, "b": None}, c="6")
        self.assertEqual([call.number("a"), call.number("b", 7), call.number("c")], [5, 7, 6])
        for value in ("many", None, [], float("inf"), float("nan")):
            self.assertEqual(self.refusal(self.call({"a": value}).number, "a"), "a is not a number", value)
        for number in (1 << 32, -1, 1 << 64):
            self.assertEqual(self.refusal(self.call({"a": number}).number, "a"), "a is out of range")

    def test_pages_are_bounded(self) -> None:
        self.assertEqual(self.call().page(), (0, 100))
        self.assertEqual(self.call(limit="0").page(), (0, 1))
        self.assertEqual(self.call(offset="5", limit="100000").page(), (5, 1000))


class AnswerTests(SynchronousTestCase):
    """HTTP status and JSON of a request."""

    def ask(self, method: str, path: str, body: bytes = b"", **query: str) -> tuple[int, Any]:
        return self.successResultOf(Deferred.fromCoroutine(server().answer(method, path, query, body)))

    def test_the_path_names_what_is_meant(self) -> None:
        self.assertEqual(
            self.ask("GET", "/greetings/al%20ice", times="2"), (200, {"hello": "al ice", "times": 2})
        )

    def test_what_is_no_request(self) -> None:
        self.assertEqual(self.ask("GET", "/nothing")[0], 404)
        self.assertEqual(self.ask("DELETE", "/refused")[0], 405)
        self.assertEqual(self.ask("GET", "/greetings/bob", times="many")[0], 400)
        self.assertEqual(self.ask("POST", "/refused", b"{")[0], 400)

    def test_errors_are_one_line(self) -> None:
        self.assertEqual(self.ask("POST", "/refused"), (409, {"error": "not now"}))
        self.assertEqual(self.ask("POST", "/failed"), (409, {"error": "the peer is gone"}))

    def test_a_bug_is_logged_and_ends_one_request_only(self) -> None:
        self.assertEqual(self.ask("POST", "/broken")[0], 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


@implementer(IAgentEndpointFactory)
class _Socket:
    def __init__(self, path: Path) -> None:
        self._path = path

    def endpointForURI(self, uri: object) -> UNIXClientEndpoint:
        return UNIXClientEndpoint(reactor, str(self._path))


class SocketTests(TestCase):
    """The Unix socket itself."""

    async def served(self, path: Path) -> ControlServer:
        control = server()
        control.listen(path, reactor)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        return control

    async def test_for_its_owner_alone_and_gone_afterwards(self) -> None:
        path = Path(self.mktemp())
        path.mkdir(mode=0o755)
        path /= "control.sock"
        path.touch()  # as a process that was killed leaves it
        control = await self.served(path)
        agent = Agent.usingEndpointFactory(reactor, _Socket(path))
        answer = await agent.request(b"GET", b"http://localhost/greetings/bob")
        self.assertEqual(json.loads(await readBody(answer)), {"hello": "bob", "times": 1})
        await control.stop()
        self.assertFalse(path.exists())

    async def test_a_directory_with_a_long_name(self) -> None:
        path = Path(self.mktemp()).absolute() / ("long" * 30)
        path.mkdir(parents=True)
        path /= "control.sock"
        control = await self.served(path)
        await control.stop()
        self.assertFalse(path.exists())
