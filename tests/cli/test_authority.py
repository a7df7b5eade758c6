"""``p2psip authority``: what goes to the node, and what is written to files."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

from .commands import CommandTestCase


class AuthorityTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.file = self.state.parent / "authority.export"
        self.passphrase = self.state.parent / "passphrase"
        self.passphrase.write_text("open sesame\nand no more\n")
        archive = base64.b64encode(b"sealed").decode()
        self.answers["POST /authority/export"] = {"overlay": "example.org", "archive": archive}

    async def test_export(self) -> None:
        """The file is for its owner alone."""
        await self.output("authority", "export", str(self.file), "--passphrase-file", str(self.passphrase))
        self.assertEqual(self.calls, [("POST /authority/export", {"passphrase": "open sesame"})])
        self.assertEqual(self.file.read_bytes(), b"sealed")
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)

    async def test_export_replaces_nothing(self) -> None:
        self.file.write_bytes(b"another")
        error = await self.error("authority", "export", str(self.file), "--passphrase-file", str(self.passphrase))
        self.assertEqual(error, f"{self.file} exists already")
        self.assertEqual(self.file.read_bytes(), b"another")

    async def test_export_to_nowhere(self) -> None:
        missing = self.file / "missing"
        error = await self.error("authority", "export", str(missing), "--passphrase-file", str(self.passphrase))
        self.assertIn(str(missing), error)

    async def test_no_passphrase(self) -> None:
        self.passphrase.write_text("\n")
        error = await self.error("authority", "export", str(self.file), "--passphrase-file", str(self.passphrase))
        self.assertEqual(error, f"{self.passphrase} holds no passphrase")
        self.assertEqual(self.calls, [])

    async def test_passphrase_is_asked_twice(self) -> None:
        """Where it seals; where it opens, once."""
        self.answers["POST /authority/import"] = {"overlay": "example.org", "url": "https://192.0.2.1:8443/enroll"}
        await self.output("authority", "export", str(self.file), stdin="secret\nsecret\n")
        await self.output("authority", "import", str(self.file), stdin="secret\n")
        sealed = base64.b64encode(b"sealed").decode()
        self.assertEqual(
            self.calls,
            [
                ("POST /authority/export", {"passphrase": "secret"}),
                ("POST /authority/import", {"archive": sealed, "passphrase": "secret"}),
            ],
        )

    async def test_bootstrap_nodes(self) -> None:
        answer = {"bootstrap_nodes": ["192.0.2.1:6084", "[2001:db8::1]:7000"], "sequence": 8}
        self.answers["GET /authority/bootstrap"] = self.answers["POST /authority/bootstrap"] = answer
        listed = await self.output("authority", "bootstrap", "list")
        self.assertEqual(listed, "192.0.2.1:6084\n[2001:db8::1]:7000\n")
        self.assertEqual(json.loads(await self.output("authority", "bootstrap", "list", "--json")), answer)
        for command in ("add", "remove"):
            said = await self.output("authority", "bootstrap", command, "192.0.2.1")
            self.assertIn("configuration 8 has the bootstrap nodes 192.0.2.1:6084, [2001:db8::1]:7000", said)
            self.assertEqual(self.calls[-1], ("POST /authority/bootstrap", {command: "192.0.2.1"}))

    async def test_publish(self) -> None:
        self.answers["POST /authority/publish"] = {"sequence": 7}
        document = Path(self.mktemp())
        document.write_text("<overlay/>")
        self.assertEqual(await self.output("authority", "publish", str(document)), "configuration 7 is published\n")
        self.assertEqual(self.calls, [("POST /authority/publish", {"document": "<overlay/>"})])

    async def test_publish_what_is_no_text(self) -> None:
        document = Path(self.mktemp())
        document.write_bytes(b"\xff\xfe<")
        self.assertIn("not UTF-8 text", await self.error("authority", "publish", str(document)))
