"""``p2psip user``, ``device`` and ``invite``: what they ask of the node, and what they print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from p2psip.control import Call

from .commands import CommandTestCase

SETTINGS = {
    "aor": "alice@example.org",
    "servers": ["192.0.2.1", "[2001:db8::1]"],
    "domain": "example.org",
    "mode": "proxy",
    "user": "alice",
    "device": "phone",
    "password": "correct-horse",
}


class UserTests(CommandTestCase):
    async def test_add(self) -> None:
        self.answers["POST /users"] = SETTINGS
        printed = await self.output("user", "add", "alice")
        for text in ("alice@example.org", "192.0.2.1 or [2001:db8::1]", "Password           : correct-horse"):
            self.assertIn(text, printed)
        body = {"name": "alice", "device": "phone", "password": None, "device_password": None, "nodes": 0}
        self.assertEqual(self.calls, [("POST /users", {**body, "number": None, "display_name": None})])

    async def test_add_with_number(self) -> None:
        self.answers["POST /users"] = SETTINGS
        await self.output("user", "add", "alice", "--number", "+4930", "--display-name", "Alice")
        body = self.calls[0][1]
        self.assertEqual((body["number"], body["display_name"]), ("+4930", "Alice"))

    async def test_set(self) -> None:
        """Only what is named is changed."""
        self.answers["POST /users/{name}/settings"] = None
        for arguments, changes in (
            (("--number", "+4930"), {"number": "+4930"}),
            (("--no-number", "--enable"), {"number": "", "disabled": False}),
            (("--display-name", "Alice", "--disable"), {"display_name": "Alice", "disabled": True}),
        ):
            await self.output("user", "set", "alice", *arguments)
            self.assertEqual(self.calls.pop(), ("POST /users/{name}/settings", {"name": "alice", **changes}))
        for arguments in ((), ("--number", "+4930", "--no-number")):
            self.assertEqual((await self.run_command("user", "set", "alice", *arguments)).exit_code, 2)
        self.assertEqual(self.calls, [])

    async def test_list(self) -> None:
        alice = {"name": "alice", "display_name": "Alice", "number": "+4930", "devices": ["desk"], "created": 0.0}
        self.answers["GET /users"] = {"total": 1, "users": [{**alice, "disabled": True}]}
        line = (await self.output("user", "list")).splitlines()[1].split()
        self.assertEqual((*line[:4], line[-1]), ("alice", "Alice", "+4930", "desk", "disabled"))

    async def test_add_with_passwords_on_standard_input(self) -> None:
        """A line each, the account's first; a password that was given is not printed."""
        self.answers["POST /users"] = SETTINGS
        flags = ("--password-stdin", "--device-password-stdin")
        printed = await self.output("user", "add", "alice", *flags, stdin="for the account\ncorrect-horse\n")
        self.assertNotIn("correct-horse", printed)
        body = self.calls[0][1]
        self.assertEqual((body["password"], body["device_password"]), ("for the account", "correct-horse"))
        error = await self.error("user", "add", "alice", *flags, stdin="for the account\n")
        self.assertEqual(error, "there is no device password on standard input")

    async def test_import(self) -> None:
        """In parts, so that no answer takes long; a line that fails does not keep the others out."""
        lines = [f"user{number},pw{number}\n" for number in range(101)]
        lines[1:2] = ["# a comment\n", "\n", "user1\n"]

        def made(call: Call) -> Any:
            first, *others = call.content
            results: list[Any] = [{"name": first["name"], "error": "it is there already"}]
            return {"results": results + [{"name": e["name"], "password": e["password"] or "new"} for e in others]}

        self.answers["POST /users/import"] = made
        result = await self.run_command("user", "import", "-", stdin="".join(lines))
        self.assertEqual(result.exit_code, 1)
        wanted = ["user1,new", *(f"user{number},pw{number}" for number in range(2, 100))]
        self.assertEqual(result.stdout.splitlines(), wanted)
        self.assertEqual(
            result.stderr.splitlines(),
            ["user0: it is there already", "user100: it is there already", "Error: 2 of 101 accounts were not made"],
        )

    async def test_import_of_what_is_no_text(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes("jörg,pw\n".encode("latin-1"))
        self.assertIn("not UTF-8 text", await self.error("user", "import", str(path)))
        self.assertEqual(self.calls, [])

    async def test_password(self) -> None:
        self.answers["POST /users/{name}/password"] = None
        await self.output("user", "passwd", "alice", "--password-stdin", stdin="new\n")
        self.assertEqual(self.calls, [("POST /users/{name}/password", {"name": "alice", "password": "new"})])


class DeviceTests(CommandTestCase):
    async def test_add(self) -> None:
        self.answers["POST /users/{name}/devices"] = {**SETTINGS, "device": "phone2"}
        self.assertIn("(phone2)", await self.output("device", "add", "alice"))
        self.assertEqual(self.calls, [("POST /users/{name}/devices", {"name": None, "password": None})])

    async def test_list(self) -> None:
        self.answers["GET /users/{name}/devices"] = {"devices": [{"name": "desk", "created": 0.0}]}
        self.assertIn("desk", await self.output("device", "list", "alice"))
        self.assertEqual(self.calls, [("GET /users/{name}/devices", {"name": "alice"})])

    async def test_revoke(self) -> None:
        self.answers["DELETE /users/{name}/devices/{device}"] = None
        await self.output("device", "revoke", "alice", "the desk")
        wanted = ("DELETE /users/{name}/devices/{device}", {"name": "alice", "device": "the desk"})
        self.assertEqual(self.calls, [wanted])


class InvitationTests(CommandTestCase):
    async def test_how_long_it_is_good(self) -> None:
        self.answers["POST /invitations"] = {"token": "p2psip1.x"}
        for text, seconds in (("90", 90), ("30m", 1800), ("1h", 3600), ("7d", 604800)):
            self.assertEqual(await self.output("invite", "second", "--expires", text), "p2psip1.x\n")
            body = {"name": "second", "role": "registrar", "expires": seconds}
            self.assertEqual(self.calls.pop(), ("POST /invitations", body))
        for text in ("0", "1w", "soon", "-1h"):
            result = await self.run_command("invite", "second", "--expires", text)
            self.assertEqual(result.exit_code, 2, text)
        self.assertEqual(self.calls, [])
