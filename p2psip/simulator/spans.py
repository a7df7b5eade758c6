"""Spans of time and parts of a whole, as they are typed."""

from __future__ import annotations

import re
from collections.abc import Callable

_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|min|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """A span of time such as '50ms', '60m' or '1h', in seconds; a number alone counts seconds.

    :raises ValueError: it is none.
    """
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a span of time such as 50ms, 30s, 60m or 1h")
    return float(match[1]) * _UNITS[match[2] or "s"]


def at_least(least: float) -> Callable[[str], float]:
    """What makes seconds of a span of time that is at least so many of them long; else raises ValueError."""

    def parse(text: str) -> float:
        found = seconds(text)
        if found < least:
            raise ValueError(f"{text!r} is less than {least:g} s")
        return found

    return parse


def fraction(text: str) -> float:
    """A part of a whole, such as '0.3' or '30%'.

    :raises ValueError: it is none.
    """
    number = text.strip().removesuffix("%")
    try:
        part = float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        part = -1.0
    if not 0 <= part <= 1:
        raise ValueError(f"{text!r} is not a part of a whole such as 0.3 or 30%")
    return part


def count(text: str) -> int:
    """A whole number that is not negative.

    :raises ValueError: it is none.
    """
    if not text.strip().isdecimal():
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def rate(text: str) -> float:
    """A number that is not negative.

    :raises ValueError: it is none.
    """
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise ValueError(f"{text!r} is not a number from 0 on")
    return found
