"""``p2psip directory``: what it asks of the node, and what it prints."""

from __future__ import annotations

from pathlib import Path

from .commands import CommandTestCase

CHANGES = {
    "entries": 9, "accounts": 3, "changed": ["alice"], "barred": [], "removed": ["bob"], "demoted": [],
    "problems": ["the number +4930 of carol is alice's"],
}  # fmt: skip


class DirectoryTests(CommandTestCase):
    async def test_set(self) -> None:
        """What is not named is not sent; the CA goes as it is, the password by standard input."""
        self.answers["PUT /directory"] = {"servers": {"ldap://a": "", "ldap://b": "it is down"}, "user": None}
        ca = Path(self.mktemp()).absolute()
        ca.write_text("PEM")
        printed = await self.output("directory", "set", "ldap://a", "ldap://b", "--base", "dc=org")
        self.assertIn("ldap://a: answers\nldap://b: it is down", printed)
        body = {"urls": ["ldap://a", "ldap://b"], "base": "dc=org", "start_tls": True, "insecure": False}
        self.assertEqual(self.calls.pop(), ("PUT /directory", body))
        await self.output(
            "directory", "set", "ldaps://a", "--base", "dc=org", "--ca-file", str(ca), "--bind-dn", "cn=r",
            "--bind-password-stdin", "--no-start-tls", "--filter", "(uid=*)", "--number-attribute", "",
            "--page-size", "7", stdin="secret\n",
        )  # fmt: skip
        more = {"ca": "PEM", "bind_dn": "cn=r", "bind_password": "secret", "filter": "(uid=*)", "page_size": 7}
        body = {**body, "urls": ["ldaps://a"], "start_tls": False, "number_attribute": "", **more}
        self.assertEqual(self.calls.pop(), ("PUT /directory", body))
        result = await self.run_command("directory", "set", "ldap://a", "--base", "dc=org", "--bind-dn", "cn=r")
        self.assertEqual((result.exit_code, self.calls), (2, []))

    async def test_show(self) -> None:
        settings = {"urls": ["ldaps://a", "ldaps://b"], "bind_password": True, "counters": {"binds": 3}}
        self.answers["GET /directory"] = {**settings, "trouble": "it is down", "last": CHANGES}
        printed = await self.output("directory", "show")
        for text in ("ldaps://a, ldaps://b", ": set", "binds 3", "trouble: it is down", "removed: bob", "problem: "):
            self.assertIn(text, printed)

    async def test_test(self) -> None:
        """The exit status says whether all is well."""
        alice = {"dn": "uid=alice", "name": "alice", "display_name": None, "number": "+4930", "registrar": False}
        servers = {"ldaps://a": ""}
        self.answers["GET /directory/test"] = {"servers": servers, "user": {**alice, "account": False, "why": ""}}
        printed = await self.output("directory", "test", "alice")
        for text in ("uid=alice", "+4930", "not yet", "alice may use telephony"):
            self.assertIn(text, printed)
        self.assertEqual(self.calls[0], ("GET /directory/test", {"user": "alice"}))
        for answer in (
            {"servers": servers, "user": {"why": "no entry"}},
            {"servers": {"ldaps://a": "it is down"}, "user": None},
        ):
            self.answers["GET /directory/test"] = answer
            result = await self.run_command("directory", "test", "alice")
            self.assertEqual(result.exit_code, 1)
            self.assertTrue("no entry" in result.output or "it is down" in result.output)

    async def test_sync_and_off(self) -> None:
        self.answers["POST /directory/sync"], self.answers["DELETE /directory"] = CHANGES, None
        printed = await self.output("directory", "sync", "--force")
        self.assertIn("9 entries, 3 accounts of them\nchanged: alice\nremoved: bob\nproblem: the number", printed)
        await self.output("directory", "off")
        self.assertEqual(self.calls, [("POST /directory/sync", {"force": True}), ("DELETE /directory", {})])
