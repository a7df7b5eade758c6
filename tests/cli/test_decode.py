"""``p2psip decode`` without any node."""

from __future__ import annotations

import json

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from p2psip.cli.main import main
from p2psip.cli.output import duration
from tests.wire.test_vectors import VECTORS


def decode(content: bytes) -> Result:
    return CliRunner().invoke(main, ["decode"], content)


class DecodeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wire: str = json.loads((VECTORS / "ping_ans.json").read_text())["wire_hex"]

    def test_binary_and_hexadecimal(self) -> None:
        """White space in hexadecimal, as dumps have it, does not matter."""
        spaced = "\n".join(self.wire[at : at + 32] for at in range(0, len(self.wire), 32))
        for content in (bytes.fromhex(self.wire), self.wire.encode(), spaced.encode()):
            shown = json.loads(decode(content).stdout)
            self.assertEqual(shown["message_contents"]["message_code"], "ping_ans")

    def test_no_message(self) -> None:
        for content in (b"", b"GET / HTTP/1.1\r\n", bytes.fromhex(self.wire)[:-1]):
            result = decode(content)
            self.assertEqual((result.exit_code, result.stderr[:7], result.stderr.count("\n")), (1, "Error: ", 1))

    def test_more_than_a_message(self) -> None:
        self.assertIn("at most 1048576 bytes", decode(bytes((1 << 20) + 1)).stderr)


class DurationTests(SynchronousTestCase):
    def test_the_two_largest_units(self) -> None:
        for seconds, text in (
            (0.9, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"),
            (3600, "1 h 0 min"), (86399, "23 h 59 min"), (90000, "1 d 1 h"),
        ):  # fmt: skip
            self.assertEqual(duration(seconds), text)
