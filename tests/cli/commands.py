"""Commands of `p2psip` run against a control socket that a test answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from p2psip.cli.main import main
from p2psip.control import Call, ControlError, ControlServer, Route

ROUTES = (
    *(("GET", "/status"), ("GET", "/lookup"), ("POST", "/ping"),
    ("POST", "/probe"), ("POST", "/fetch"), ("POST", "/store")),
    *(("GET", "/forwards"), ("POST", "/forwards")),
    *(("POST", "/leave"), ("GET", "/users"), ("POST", "/users"), ("POST", "/users/import"), ("POST", "/invitations")),
    ("POST", "/users/{name}/settings"),
    *(("DELETE", "/users/{name}"), ("POST", "/users/{name}/password"), ("GET", "/users/{name}/devices")),
    *(("POST", "/users/{name}/devices"), ("DELETE", "/users/{name}/devices/{device}")),
    *(("POST", "/authority/export"), ("POST", "/authority/import"), ("POST", "/authority/publish")),
    *(("POST", "/authority/expel"), ("GET", "/authority/log")),
    *(("GET", "/directory"), ("PUT", "/directory"), ("DELETE", "/directory")),
    *(("POST", "/directory/sync"), ("GET", "/directory/test")),
    *(("GET", "/authority/bootstrap"), ("POST", "/authority/bootstrap")),
)


class CommandTestCase(TestCase):
    """`self.answers` maps a route to its answer, or to what makes one of a `Call`; `self.calls` is what was asked."""

    def setUp(self) -> None:
        self.state = Path(self.mktemp()).absolute() / "state"
        self.state.mkdir(parents=True)
        self.answers: dict[str, Any] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        control = ControlServer({route: self.route(*route) for route in ROUTES}, ())
        control.listen(self.state / "control.sock", reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(control.stop()))

    def route(self, method: str, path: str) -> Route:
        name = f"{method} {path}"

        async def answer(call: Call) -> Any:
            self.calls.append((name, {**call.path, **call.query, **call.body}))
            if name not in self.answers:
                raise ControlError(f"nobody expects {name}")
            found = self.answers[name]
            return found(call) if callable(found) else found

        return answer

    async def run_command(self, *arguments: str, stdin: str = "") -> Result:
        """What a command printed, and its exit status."""
        return await deferToThread(CliRunner().invoke, main, [*arguments, "--state", str(self.state)], stdin)

    async def output(self, *arguments: str, stdin: str = "") -> str:
        """Standard output of a command that succeeds."""
        result = await self.run_command(*arguments, stdin=stdin)
        self.assertEqual(result.exit_code, 0, result.output)
        return result.stdout

    async def error(self, *arguments: str, stdin: str = "") -> str:
        """The one line that a command that fails says."""
        result = await self.run_command(*arguments, stdin=stdin)
        self.assertEqual(result.exit_code, 1, result.output)
        self.assertIsInstance(result.exception, SystemExit)
        first, *others = result.stderr.splitlines()
        self.assertEqual(others, [])
        self.assertTrue(first.startswith("Error: "), first)
        return first.removeprefix("Error: ")
