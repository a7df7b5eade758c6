"""The domains whose AORs an overlay takes registrations of: an extension of Kinds (RFC 7904 §3.4).

The element stands in a ``<kind>``, as the grammar has it, or in the ``<configuration>``, as the text has it; its name
is singular in the grammar and plural in the text.  All are read; in a ``<kind>``, in the singular, it is written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final
from xml.sax.saxutils import escape

from lxml import etree

from .document import MalformedDocument

SIP_NAMESPACE: Final = "urn:ietf:params:xml:ns:p2p:config-base:sip"

MAX_PATTERNS: Final = 64
MAX_PATTERN: Final = 255
"""Characters of one pattern."""

_SIP: Final = f"{{{SIP_NAMESPACE}}}"
_LOCAL_NAMES: Final = ("domain-restriction", "domain-restrictions")
_NAMES: Final = tuple(_SIP + name for name in _LOCAL_NAMES)
_PATTERN: Final = _SIP + "pattern"
_ENABLED: Final = {"": False, "false": False, "0": False, "true": True, "1": True}
_CLASSES: Final = {
    "[:alpha:]": "A-Za-z",
    "[:digit:]": "0-9",
    "[:alnum:]": "A-Za-z0-9",
    "[:lower:]": "a-z",
    "[:upper:]": "A-Z",
    "[:xdigit:]": "0-9A-Fa-f",
}


def read_domains(parent: etree._Element, overlay: str) -> tuple[str, ...] | None:
    """The patterns (POSIX Extended Regular Expressions) of the domains that are taken; None: any.

    :raises MalformedDocument: a pattern cannot be used, or the element stands there twice.
    """
    found = [child for child in parent if str(child.tag).rpartition("}")[2] in _LOCAL_NAMES]
    if not found:
        return None
    # What a prefix stands for may be declared outside of what is signed: a restriction must not vanish that way.
    if any(child.tag not in _NAMES for child in found) or any(part.tag != _PATTERN for part in found[0]):
        raise MalformedDocument("domain-restriction", f"it is not of the namespace {SIP_NAMESPACE}")
    if len(found) > 1:
        raise MalformedDocument("domain-restriction", "there are several")
    enabled = _ENABLED.get(str(found[0].get("enable", "")).strip())
    if enabled is None:
        raise MalformedDocument("domain-restriction", "enable is neither true nor false")
    if not enabled:
        return (overlay.lower().replace(".", r"\."),)
    texts = [str(child.text or "").strip() for child in found[0]]
    if len(texts) > MAX_PATTERNS or any(len(text) > MAX_PATTERN for text in texts):
        raise MalformedDocument("pattern", "too many, or too long")
    for text in texts:
        try:
            _compiled(text)
        except (re.error, RecursionError, OverflowError) as error:
            raise MalformedDocument("pattern", f"{text!r} is no regular expression: {error}") from None
    return tuple(texts)


def write_domains(patterns: Sequence[str]) -> str:
    """The element that `read_domains` reads `patterns` from."""
    inner = "".join(f"<pattern>{escape(pattern)}</pattern>" for pattern in patterns)
    return f'<domain-restriction xmlns="{SIP_NAMESPACE}" enable="true">{inner}</domain-restriction>'


def admits(patterns: Sequence[str] | None, aor: str) -> bool:
    """Whether the whole domain of `aor` (user@domain) is matched by one of `patterns`; None takes any."""
    if patterns is None:
        return True
    _, at, domain = aor.rpartition("@")
    return bool(at) and any(_compiled(pattern).fullmatch(domain) for pattern in patterns)


@lru_cache(256)
def _compiled(pattern: str) -> re.Pattern[str]:
    for name, characters in _CLASSES.items():
        pattern = pattern.replace(name, characters)
    return re.compile(pattern, re.ASCII | re.IGNORECASE)
