"""How a command finds the node it speaks to, and what it says where that does not do."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from p2psip.cli.main import main

from .commands import CommandTestCase


class ConnectionTests(CommandTestCase):
    async def test_names_of_any_characters(self) -> None:
        """A name is one part of the path, whatever is in it: it never becomes another request."""
        self.answers["DELETE /users/{name}"] = None
        for name in ("alice", "alice?x", "alice/devices/phone", "ä b", "%61", "{name}"):
            await self.output("user", "remove", name)
            self.assertEqual(self.calls.pop(), ("DELETE /users/{name}", {"name": name}))

    async def test_the_node_refuses(self) -> None:
        self.assertEqual(await self.error("leave"), "nobody expects POST /leave")

    async def test_a_directory_with_a_long_name(self) -> None:
        """A socket's path is short, a directory's may be long."""
        long = self.state.parent / ("long" * 40)
        self.state.rename(long)
        self.state = long
        self.answers["POST /leave"] = None
        await self.output("leave")

    async def test_no_node_runs(self) -> None:
        for state in (self.state.parent, self.state / "missing"):
            self.state = state
            self.assertEqual(await self.error("leave"), f"no node is running with the state directory {state}")

    async def test_long_lists_are_asked_for_in_pages(self) -> None:
        names = [f"user{number}" for number in range(1001)]

        def page(call: object) -> object:
            offset, limit = call.page()  # type: ignore[attr-defined]
            user = {"display_name": None, "number": None, "devices": [], "created": 0, "disabled": False}
            users = [{"name": name, **user} for name in names[offset : offset + limit]]
            return {"total": len(names), "users": users}

        self.answers["GET /users"] = page
        lines = (await self.output("user", "list")).splitlines()
        self.assertEqual([line.split()[0] for line in lines[1:]], names)
        self.assertEqual(len(self.calls), 3)


class StateDirectoryTests(SynchronousTestCase):
    """Without --state the only overlay of this user is meant."""

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()

    def leave(self) -> Result:
        return CliRunner(env={"XDG_STATE_HOME": str(self.home)}).invoke(main, ["leave"])

    def overlay(self, name: str) -> Path:
        path = self.home / "p2psip" / name
        path.mkdir(parents=True)
        (path / "node.key").touch()
        return path

    def test_none(self) -> None:
        self.assertIn(f"there is no overlay in {self.home}/p2psip", self.leave().stderr)

    def test_the_only_one(self) -> None:
        path = self.overlay("example.org")
        self.assertIn(f"no node is running with the state directory {path}", self.leave().stderr)

    def test_several(self) -> None:
        paths = [self.overlay(name) for name in ("example.com", "example.org")]
        for path in paths:
            self.assertIn(f"\n  --state {path}\n", self.leave().stderr)

    def test_the_only_one_that_runs(self) -> None:
        self.overlay("example.com")
        running = self.overlay("example.org")
        (running / "control.sock").touch()
        self.assertIn(f"no node is running with the state directory {running}", self.leave().stderr)
