"""Telephone numbers: what a URI or dialled digits stand for (RFC 3966, RFC 3261 §19.1.6, RFC 5031).

A number in its normal form is ``+`` and digits without separators, such as ``+49301234``, or an emergency number as
it is dialled; an extension or ISDN subaddress follows as ``;ext=12`` or ``;isub=12``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from .errors import SIPParseError
from .uri import URI, AbsoluteURI, TelURI, parse_uri

EMERGENCY_NUMBERS: Final = ("112", "911")
"""What every mobile phone takes for one, wherever it is."""
SHORTEST_DIALLED: Final = 6
"""Digits that somebody dials at least who means a number: fewer are an extension in the house."""
PLANNED: Final = ("country_code", "area_code", "international_prefix", "national_prefix")

_SEPARATORS: Final = str.maketrans("", "", "-.()")
_GLOBAL = re.compile(r"\+[1-9][0-9]{1,14}\Z").match
_DIGITS = re.compile(r"[0-9]{1,32}\Z").match
_DIALLED = re.compile(r"\+?[0-9().-]{1,64}\Z").match
_SUBADDRESS = re.compile(r"[A-Za-z0-9\-_.!~*'()%/&+$]{1,64}\Z").match


@dataclass(frozen=True, slots=True)
class DialPlan:
    """What digits mean that somebody dials here.

    Without `country_code` national numbers are none, without `area_code` those dialled without any prefix; where
    `national_prefix` is empty, numbers are dialled nationally as they are.  `contexts` are phone-contexts whose local
    numbers are dialled by this plan, as those of the own country and area are: the overlay's name.
    """

    country_code: str = ""
    area_code: str = ""
    international_prefix: str = "00"
    national_prefix: str = "0"
    emergency_numbers: Sequence[str] = EMERGENCY_NUMBERS
    contexts: Sequence[str] = ()

    def number_of(self, uri: URI) -> str | None:
        """The number that `uri` stands for, in its normal form; None: it is none, or what it means is not known.

        Whether the domain of a SIP URI is ours, and whether its user is somebody's name, is for the caller to see.
        """
        if isinstance(uri, TelURI):
            return self._number(uri)
        if isinstance(uri, AbsoluteURI):
            return self._service(uri)
        if uri.user is None:
            return None
        digits, semicolon, parameters = uri.user.partition(";")
        digits = unquote(digits)
        if digits[:1] != "+" and (uri.parameters.get("user") or "").lower() != "phone":
            return self.dialled(digits) if not semicolon else None
        try:
            subscriber = parse_uri(f"tel:{digits}{semicolon}{parameters}")
        except SIPParseError:
            return None
        return self._number(subscriber) if isinstance(subscriber, TelURI) else None

    def dialled(self, digits: str) -> str | None:
        """The number that somebody means who dials `digits`; None where they are none by this plan."""
        if _DIALLED(digits) is None:
            return None
        digits = digits.translate(_SEPARATORS)
        if digits in self.emergency_numbers:
            return digits
        if digits[:1] != "+":
            digits = self._with_country(digits) if len(digits) >= SHORTEST_DIALLED else ""
        return digits if _GLOBAL(digits) else None

    def is_emergency(self, number: str) -> bool:
        """Whether a number in its normal form is an emergency number."""
        return bare(number) in self.emergency_numbers

    def _with_country(self, digits: str) -> str:
        international, national = self.international_prefix, self.national_prefix
        if international and digits.startswith(international):
            return f"+{digits.removeprefix(international)}"
        if national and digits.startswith(national):
            return self._national(digits.removeprefix(national))
        if not national:
            return self._national(digits)
        return self._national(self.area_code + digits) if self.area_code else ""

    def _national(self, digits: str) -> str:
        return f"+{self.country_code}{digits}" if self.country_code and digits else ""

    def _number(self, uri: TelURI) -> str | None:
        number, context = self.dialled(uri.number), uri.parameters.get("phone-context")
        if number is None or (uri.number[0] != "+" and context and not self._understands(context, number)):
            # RFC 3966 s5.1.5: who places a call "MUST understand the context".
            return None
        return number + _kept(uri)

    def _understands(self, context: str, number: str) -> bool:
        """Whether local numbers of `context` are dialled as they are here; emergency numbers of any country are."""
        if context[0] != "+":
            return context.rstrip(".").lower() in self.contexts
        country = f"+{self.country_code}" if self.country_code else ""
        return self.is_emergency(number) or context.translate(_SEPARATORS) in (country, country + self.area_code)

    def _service(self, uri: AbsoluteURI) -> str | None:
        """The first emergency number for an emergency service of any kind (RFC 5031 §4.2)."""
        service = f"{uri.scheme}:{uri.opaque}".lower()
        is_emergency = service == "urn:service:sos" or service.startswith("urn:service:sos.")
        return next(iter(self.emergency_numbers), None) if is_emergency else None


def bare(number: str) -> str:
    """A number in its normal form without extension and subaddress."""
    return number.partition(";")[0]


def dial_plan_fault(plan: DialPlan) -> str:
    """Why `plan` cannot be one, for the operator; empty where it can."""
    for name in PLANNED:
        value: str = getattr(plan, name)
        if value and _DIGITS(value) is None:
            return f"{name.replace('_', ' ')} {value!r}: it is digits"
    if plan.country_code[:1] == "0" or len(plan.country_code) > 3:
        return f"country code {plan.country_code!r}: it is 1 to 3 digits, such as 49, without 00 or +"
    if plan.area_code and not plan.country_code:
        return "an area code needs a country code"
    for number in plan.emergency_numbers:
        if not 2 <= len(number) <= 15 or _DIGITS(number) is None:
            return f"emergency number {number!r}: it is 2 to 15 digits"
    return ""


def _kept(uri: TelURI) -> str:
    """Extension and subaddress, which belong to the number (RFC 3966 §4); what is malformed is left out."""
    extension, subaddress = uri.parameters.get("ext"), uri.parameters.get("isub")
    if extension and _DIGITS(digits := extension.translate(_SEPARATORS)):
        return f";ext={digits}"
    return f";isub={subaddress}" if subaddress and _SUBADDRESS(subaddress) else ""
