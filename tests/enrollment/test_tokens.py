"""Join tokens, and passwords."""

from __future__ import annotations

import base64
import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.enrollment.passwords import PasswordHashes, random_password
from p2psip.enrollment.tokens import JoinToken, TokenError

URLS = ("https://192.0.2.1:8443", "https://[2001:db8::1]:8443")
TOKEN = JoinToken("example.org", URLS, bytes(range(32)), "second", "s3cret")


def encoded(value: object) -> str:
    return "p2psip1." + base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


class JoinTokenTests(SynchronousTestCase):
    def test_round_trip(self) -> None:
        self.assertEqual(JoinToken.decode(TOKEN.encode()), TOKEN)

    def test_one_word(self) -> None:
        """It survives shells and command lines without quotes."""
        self.assertRegex(TOKEN.encode(), r"\Ap2psip1\.[A-Za-z0-9_-]+\Z")

    def test_broken_over_lines(self) -> None:
        text = TOKEN.encode()
        self.assertEqual(JoinToken.decode(f"  {text[:40]}\r\n {text[40:]}\n"), TOKEN)

    def test_not_shown(self) -> None:
        self.assertNotIn("s3cret", repr(TOKEN))

    def test_damaged(self) -> None:
        fields = ["o", ["https://h"], "00" * 32, "a", "p"]
        self.assertEqual(JoinToken.decode(encoded(fields)).overlay, "o")
        for text in (
            "",
            "hello",
            "p2psip1.",
            TOKEN.encode()[:-9],
            encoded([]),
            encoded(fields[:4]),
            encoded([1, *fields[1:]]),
            encoded([fields[0], "https://h", *fields[2:]]),
            encoded([fields[0], [], *fields[2:]]),
            encoded([fields[0], ["http://h"], *fields[2:]]),
            encoded([fields[0], [7], *fields[2:]]),
            encoded([*fields[:2], "00" * 31, *fields[3:]]),
            encoded([*fields[:2], None, *fields[3:]]),
            encoded({c: c for c in "abcde"}),
            "p2psip1." + base64.urlsafe_b64encode(b"[" * 3000).decode(),
            encoded(["x" * 4096, *fields[1:]]),
        ):
            self.assertRaises(TokenError, JoinToken.decode, text)

    @given(st.text(max_size=200))
    def test_never_anything_else(self, text: str) -> None:
        for candidate in (text, f"p2psip1.{text}"):
            try:
                JoinToken.decode(candidate)
            except TokenError as e:
                if len(text) > 20:
                    self.assertNotIn(text, str(e))


class PasswordTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.hashes = PasswordHashes(cost=2)

    def test_matches(self) -> None:
        """Compared as binary objects. [6940-11.3-7]"""
        stored = self.hashes.make("pässwörd")
        self.assertTrue(self.hashes.matches("pässwörd", stored))
        self.assertFalse(self.hashes.matches("pa\u0308sswo\u0308rd", stored))
        self.assertFalse(self.hashes.matches("", stored))
        self.assertNotIn("pässwörd", stored)

    def test_salted(self) -> None:
        self.assertNotEqual(self.hashes.make("same"), self.hashes.make("same"))

    def test_nobody(self) -> None:
        self.assertFalse(self.hashes.matches("anything", None))

    def test_made_with_another_cost(self) -> None:
        self.assertTrue(self.hashes.matches("old", PasswordHashes(cost=4).make("old")))

    def test_random(self) -> None:
        self.assertRegex(random_password(), r"\A[a-zA-Z2-9]{16}\Z")
        self.assertNotEqual(random_password(), random_password())
