"""Spans of time and parts of a whole."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2psip.simulator.spans import at_least, count, fraction, rate, seconds


class SpanTests(SynchronousTestCase):
    def assertRefused(self, parse: Any, text: str, *words: str) -> None:
        """`text` is refused by a ValueError which names it, and says what would be right."""
        error = self.assertRaises(ValueError, parse, text)
        for word in (repr(text), *words):
            self.assertIn(word, str(error))

    def test_seconds(self) -> None:
        for text, found in (
            ("50ms", 0.05), ("30s", 30), ("60m", 3600), ("60min", 3600), ("1h", 3600),
            ("1.5h", 5400), ("7", 7), ("0.25", 0.25), ("0", 0), (" 5s ", 5),
        ):  # fmt: skip
            self.assertAlmostEqual(seconds(text), found, 9, text)

    def test_no_seconds(self) -> None:
        for text in ("", "s", "5x", "-5s", "5 s", "1h30m", ".5s", "5.s", "nan", "1e3", "5S"):
            self.assertRefused(seconds, text, "50ms, 30s, 60m or 1h")

    def test_at_least(self) -> None:
        parse = at_least(10)
        self.assertEqual((parse("10"), parse("1m")), (10, 60))
        self.assertRefused(parse, "9.9s", "less than 10 s")
        self.assertRefused(parse, "x", "50ms, 30s, 60m or 1h")

    def test_fraction(self) -> None:
        for text, found in (("0.3", 0.3), ("30%", 0.3), ("0", 0), ("1", 1), ("100%", 1), (" 5 % ", 0.05)):
            self.assertAlmostEqual(fraction(text), found, 9, text)
        for text in ("", "%", "1.01", "101%", "-0.1", "x", "nan", "0.3%%"):
            self.assertRefused(fraction, text, "0.3 or 30%")

    def test_count(self) -> None:
        self.assertEqual([count(text) for text in ("0", "7", "20000")], [0, 7, 20000])
        for text in ("", "-1", "1.0", "1e3", "x"):
            self.assertRefused(count, text, "whole number")

    def test_rate(self) -> None:
        self.assertEqual([rate(text) for text in ("0", "0.5", "1e3")], [0, 0.5, 1000])
        for text in ("", "-1", "nan", "inf", "x"):
            self.assertRefused(rate, text, "from 0 on")
