"""What devices can do: feature parameters of Contacts, and contact preferences (RFC 3840, RFC 7904 §3.2).

The preferences are a predicate of RFC 2533: ``(| (& (sip.audio=TRUE) (sip.methods=INVITE)) ...)``, one conjunction for
each kind of device.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from .grammar import Parameters, unquote

MOST_BYTES: Final = 512
"""Of the preferences of one AOR at one node: a registration has little room."""
BASE_TAGS: Final = frozenset(
    (
        *("audio", "automata", "class", "duplex", "data", "control", "mobility", "description", "events", "priority"),
        *("methods", "extensions", "schemes", "application", "video", "language", "type", "isfocus", "actor", "text"),
    )
)
"""The feature tags of the SIP tree that stand in a Contact without "+" (RFC 3840 §9)."""
_VALUE: Final = re.compile(r"!?[A-Za-z0-9\-.%*_`'~+#<>=:/, ]{1,64}").fullmatch
_SCHEMES: Final = re.compile(r"\(sip\.schemes=([a-z]+)\)", re.IGNORECASE).findall


def predicate(parameters: Parameters, scheme: str = "sip") -> str:
    """The predicate of one device, by the parameters of its Contact, whose URI has `scheme`.

    What is no feature parameter, or has a value that RFC 3840 does not allow, is left out.
    """
    terms = []
    for name, value in parameters.items():
        if name not in BASE_TAGS:
            continue
        if value is None:
            terms.append(f"(sip.{name}=TRUE)")
            continue
        text = unquote(value)
        if _VALUE(text) is None:
            continue
        alternatives = [_term(name, part.strip()) for part in text.split(",") if part.strip()]
        if len(alternatives) == 1:
            terms.append(alternatives[0])
        elif alternatives:
            terms.append(f"(| {' '.join(alternatives)})")
    if scheme == "sips" and "schemes" not in parameters:
        terms.append("(sip.schemes=SIPS)")
    if not terms:
        return ""
    return terms[0] if len(terms) == 1 else f"(& {' '.join(terms)})"


def _term(tag: str, value: str) -> str:
    negated = value.startswith("!")
    value = value.lstrip("!").strip("<>")
    if tag == "schemes":
        value = value.upper()
    return f"(! (sip.{tag}={value}))" if negated else f"(sip.{tag}={value})"


def union(predicates: Iterable[str]) -> str:
    """What any of several devices can do; empty where one says nothing, or it would be too long."""
    distinct = sorted(set(predicates))
    if not distinct or "" in distinct:
        return ""
    text = distinct[0] if len(distinct) == 1 else f"(| {' '.join(distinct)})"
    return text if len(text) <= MOST_BYTES else ""


def takes_sips(prefs: str) -> bool:
    """Whether calls with sips URIs can be taken: unless all that is said of schemes is something else."""
    said = {scheme.lower() for scheme in _SCHEMES(prefs)}
    return not said or "sips" in said
