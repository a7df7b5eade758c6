"""The options of ``twistd p2psip`` for telephone numbers and for the trunks of a gateway."""

from __future__ import annotations

import re

from twisted.python import usage

from .sip.errors import SIPParseError
from .sip.numbers import EMERGENCY_NUMBERS, DialPlan, dial_plan_fault
from .sip.uri import SIPURI, parse_uri

_PREFIX = re.compile(r"\+[0-9]{0,15}\Z|[0-9]{2,15}\Z").match
_TRUNK_TRANSPORTS = ("udp", "tcp", "tls")
MOST_PREFIXES = 16
"""They have to fit into one value of the Kind."""


def _priority(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= 65535):
        raise ValueError(f"{text!r} is no priority (0 to 65535)")
    return int(text)


class GatewayOptions(usage.Options):
    """What concerns telephone numbers; call `check_gateway` when all options are there."""

    optParameters = [
        ["gateway-priority", None, 10, "Which gateway is tried first where several take a number: the one with the "
                                       "lowest (0 to 65535).", _priority],
        ["gateway-user", None, None, "User name at the trunk, where it asks for one."],
        ["gateway-password-file", None, None, "File with the password at the trunk."],
        ["gateway-number", None, None, "Number shown for callers that have none, such as +49301234."],
        ["country-code", None, "", "What numbers dialled without one belong to, such as 49."],
        ["area-code", None, "", "What numbers dialled without any prefix belong to, such as 30."],
        ["international-prefix", None, "00", "Dialled before a country code."],
        ["national-prefix", None, "0", "Dialled before an area code; '' where there is no such prefix."],
    ]  # fmt: skip

    optFlags = [["gateway-register", None, "Register at the trunk, so that it sends calls here."]]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["gateway"] = []
        self["gateway-prefix"] = []
        self["emergency-number"] = []

    def opt_gateway(self, text: str) -> None:
        """Be a gateway: numbers go out on this SIP trunk, sip:HOST[:PORT][;transport=tcp]; repeated ones are tried in
        their order."""
        self["gateway"].append(_trunk(text))

    def opt_gateway_prefix(self, text: str) -> None:
        """Take the numbers with this prefix out, such as +49, or an emergency number; may be repeated. [default: +,
        which is all]"""
        if _PREFIX(text) is None:
            raise usage.UsageError(f"--gateway-prefix {text!r}: it is + and digits, or an emergency number")
        self["gateway-prefix"].append(text)

    def opt_emergency_number(self, text: str) -> None:
        """A number that anybody may call by a gateway, whoever it is; may be repeated. [default: 112 and 911]"""
        self["emergency-number"].append(text)

    def check_gateway(self, overlay: str) -> None:
        """Check what belongs together; afterwards "dial-plan" is the `DialPlan`.

        :raises usage.UsageError: something is wrong.
        """
        plan = self["dial-plan"] = DialPlan(
            self["country-code"],
            self["area-code"],
            self["international-prefix"],
            self["national-prefix"],
            tuple(dict.fromkeys(self["emergency-number"] or EMERGENCY_NUMBERS)),
            (overlay,),
        )
        if fault := dial_plan_fault(plan):
            raise usage.UsageError(fault)
        if not self["gateway"]:
            self._check_no_gateway()
            return
        for other in ("client", "no-sip", "self-signed"):
            if self.get(other):
                raise usage.UsageError(f"--gateway and --{other} exclude each other")
        if self.get("sip-mode") == "redirect":
            raise usage.UsageError("--gateway needs --sip-mode proxy")
        if bool(self["gateway-user"]) != bool(self["gateway-password-file"]):
            raise usage.UsageError("--gateway-user and --gateway-password-file go together")
        if self["gateway-register"] and not self["gateway-user"]:
            raise usage.UsageError("--gateway-register needs --gateway-user")
        self._check_prefixes(plan)
        if self["gateway-number"]:
            self["gateway-number"] = _own_number(plan, self["gateway-number"])

    def _check_no_gateway(self) -> None:
        for name in ("gateway-prefix", "gateway-user", "gateway-password-file", "gateway-number", "gateway-register"):
            if self[name]:
                raise usage.UsageError(f"--{name} needs --gateway")

    def _check_prefixes(self, plan: DialPlan) -> None:
        prefixes = self["gateway-prefix"] = list(dict.fromkeys(self["gateway-prefix"])) or ["+"]
        if len(prefixes) > MOST_PREFIXES:
            raise usage.UsageError(f"--gateway-prefix: there are more than {MOST_PREFIXES}")
        for prefix in prefixes:
            if prefix[0] != "+" and not plan.is_emergency(prefix):
                raise usage.UsageError(f"--gateway-prefix {prefix!r} is no --emergency-number, and has no +")


def _trunk(text: str) -> SIPURI:
    try:
        uri = parse_uri(text)
    except SIPParseError as error:
        raise usage.UsageError(f"--gateway {text!r}: {error}") from None
    if not isinstance(uri, SIPURI):
        raise usage.UsageError(f"--gateway {text!r} is no SIP URI, such as sip:trunk.example.com")
    if uri.user is not None or uri.headers or uri.parameters.keys() - {"transport"}:
        raise usage.UsageError(f"--gateway {text!r}: it is sip:HOST[:PORT][;transport=..] and nothing else")
    transport = (uri.parameters.get("transport") or "udp").lower()
    if transport not in _TRUNK_TRANSPORTS or ("transport" in uri.parameters and not uri.parameters["transport"]):
        raise usage.UsageError(f"--gateway {text!r}: the transport is one of {', '.join(_TRUNK_TRANSPORTS)}")
    return uri


def _own_number(plan: DialPlan, text: str) -> str:
    number = plan.dialled(text)
    if number is None or number[0] != "+":
        raise usage.UsageError(f"--gateway-number {text!r} is no number, such as +49301234")
    return number
