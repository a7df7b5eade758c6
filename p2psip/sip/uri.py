"""SIP, SIPS and tel URIs, and any other kept as it is (RFC 3261 §19.1, RFC 3966, RFC 5954)."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from .errors import SIPParseError
from .grammar import MOST_PARAMETERS, Parameters, write_parameters

_UNRESERVED = r"A-Za-z0-9\-_.!~*'()%"
HOST = r"\[[0-9A-Fa-f:.]++\]|[A-Za-z0-9_.\-]++"
_SIP = re.compile(
    rf"(sips?):(?:([{_UNRESERVED}&=+$,;?/]++)(?::([{_UNRESERVED}&=+$,]*+))?@)?"
    rf"({HOST})(?::([0-9]{{1,5}}))?"
    rf"(;[{_UNRESERVED}\[\]/:&+$;=]*+)?"
    rf"(?:\?([{_UNRESERVED}\[\]/?:+$=&]++))?\Z",
    re.IGNORECASE,
).match
_TEL = re.compile(r"tel:(\+?[0-9A-Fa-f*#\-.()]+)((?:;[A-Za-z0-9\-_.!~*'()%\[\]/:&+$=]+)*)\Z", re.IGNORECASE).match
_ABSOLUTE = re.compile(r"([A-Za-z][A-Za-z0-9+\-.]*):([^\x00-\x20\x7f<>\"{}|\\^`]+)\Z").match
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})").search

_ALWAYS_COMPARED = ("user", "ttl", "method", "maddr", "transport")


@dataclass(slots=True)
class SIPURI:
    """A SIP or SIPS URI; all parts as written, escapes included, but scheme and parameter names in lower case."""

    scheme: str = "sip"
    user: str | None = None
    password: str | None = None
    host: str = ""
    """A host name, an IPv4 address, or an IPv6 address in brackets."""
    port: int | None = None
    parameters: Parameters = field(default_factory=dict)
    headers: str = ""
    """What stands after "?"."""

    def __str__(self) -> str:
        text = f"{self.scheme}:"
        if self.user is not None:
            text += f"{self.user}@" if self.password is None else f"{self.user}:{self.password}@"
        text += self.host
        if self.port is not None:
            text += f":{self.port}"
        if self.parameters:
            text += write_parameters(self.parameters)
        return f"{text}?{self.headers}" if self.headers else text

    @property
    def address(self) -> str:
        """The host without the brackets of an IPv6 address, in lower case."""
        return bare_host(self.host)

    def aor(self) -> str:
        """user@host as accounts and Resource Names spell it: the user without escapes, the host in lower case.

        Scheme, password, port and parameters do not belong to an AOR (RFC 3261 §10.3, RFC 7904 §3).

        :raises SIPParseError: there is no user, or it is not UTF-8 text.
        """
        if self.user is None:
            raise SIPParseError("a URI without a user is no AOR", 404)
        try:
            user = unquote_to_bytes(self.user).decode() if "%" in self.user else self.user
        except UnicodeError:
            raise SIPParseError("the user of a URI is not UTF-8", 404) from None
        if not user.isprintable():
            raise SIPParseError("the user of a URI has unprintable characters", 404)
        return f"{user}@{self.address}"

    def equivalent(self, other: object) -> bool:
        """Whether both name the same thing by RFC 3261 §19.1.4."""
        if not isinstance(other, SIPURI):
            return False
        if (
            self.scheme != other.scheme
            or self.port != other.port
            or _canonical_escapes(self.user) != _canonical_escapes(other.user)
            or _canonical_escapes(self.password) != _canonical_escapes(other.password)
            or _comparable_host(self.host) != _comparable_host(other.host)
        ):
            return False
        mine, theirs = self.parameters, other.parameters
        for name in mine.keys() | theirs.keys():
            if name in mine and name in theirs:
                if _folded(mine[name]) != _folded(theirs[name]):
                    return False
            elif name in _ALWAYS_COMPARED:
                return False
        return self._comparable_headers() == other._comparable_headers()

    def _comparable_headers(self) -> list[tuple[str, bytes]]:
        pairs = (part.partition("=") for part in self.headers.split("&") if part)
        return sorted((name.lower(), unquote_to_bytes(value)) for name, _, value in pairs)


@dataclass(slots=True)
class TelURI:
    """A telephone number (RFC 3966)."""

    number: str
    parameters: Parameters = field(default_factory=dict)
    scheme: str = "tel"

    def __str__(self) -> str:
        return f"tel:{self.number}{write_parameters(self.parameters)}"

    def equivalent(self, other: object) -> bool:
        """Whether both are the same number, visual separators aside (RFC 3966 §4)."""
        return (
            isinstance(other, TelURI)
            and _digits(self.number) == _digits(other.number)
            and {name: _folded(value) for name, value in self.parameters.items()}
            == {name: _folded(value) for name, value in other.parameters.items()}
        )


@dataclass(slots=True)
class AbsoluteURI:
    """A URI of a scheme that is none of ours: kept, compared as text."""

    scheme: str
    opaque: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.opaque}"

    def equivalent(self, other: object) -> bool:
        return self == other


URI = SIPURI | TelURI | AbsoluteURI


def parse_uri(text: str) -> URI:
    """Read a URI.

    :raises SIPParseError: it is none, or a sip, sips or tel URI that breaks its grammar.
    """
    match = _SIP(text)
    if match is None:
        return _parse_other(text)
    scheme, user, password, host, port, parameters, headers = match.groups()
    if "%" in text and _BAD_ESCAPE(text):
        raise SIPParseError("a URI has a broken escape")
    if host[0] == "[":
        host = check_ipv6(host)
    return SIPURI(
        scheme.lower(),
        user,
        password,
        host,
        check_port(port),
        _uri_parameters(parameters) if parameters else {},
        headers or "",
    )


def _parse_other(text: str) -> TelURI | AbsoluteURI:
    match = _ABSOLUTE(text)
    if match is None:
        raise SIPParseError("text where a URI is due")
    scheme = match[1].lower()
    if scheme in ("sip", "sips"):
        raise SIPParseError(f"a malformed {scheme} URI")
    if scheme != "tel":
        return AbsoluteURI(match[1], match[2])
    tel = _TEL(text)
    if tel is None:
        raise SIPParseError("a malformed tel URI")
    return TelURI(tel[1], _uri_parameters(tel[2]) if tel[2] else {})


def _uri_parameters(text: str) -> Parameters:
    parameters: Parameters = {}
    for part in text[1:].split(";"):
        name, equals, value = part.partition("=")
        name = name.lower()
        if not name or (equals and not value) or "=" in value:
            raise SIPParseError("a malformed URI parameter")
        if name in parameters:
            raise SIPParseError(f"URI parameter {name} stands twice")
        parameters[name] = value if equals else None
    if len(parameters) > MOST_PARAMETERS:
        raise SIPParseError("too many URI parameters")
    return parameters


def check_port(port: str | None) -> int | None:
    if port is None:
        return None
    number = int(port)
    if not 0 < number < 65536:
        raise SIPParseError("a port is out of range")
    return number


def check_ipv6(host: str) -> str:
    """`host`, an IPv6 address in brackets, without the extra colon that RFC 3261's grammar let in (RFC 5118 §4.10)."""
    fixed = host.replace(":::", "::")
    try:
        socket.inet_pton(socket.AF_INET6, fixed[1:-1])
    except OSError:
        raise SIPParseError("a malformed IPv6 address") from None
    return fixed


def bare_host(host: str) -> str:
    """`host` in lower case, an IPv6 address without its brackets."""
    return host[1:-1].lower() if host[:1] == "[" else host.lower()


def _canonical_escapes(text: str | None) -> bytes | None:
    return None if text is None else unquote_to_bytes(text.encode("utf-8", "surrogateescape"))


def _comparable_host(host: str) -> str | bytes:
    """IPv6 addresses compare as numbers, however they are spelled (RFC 5954 §4.2)."""
    if host[:1] != "[":
        return host.lower()
    return socket.inet_pton(socket.AF_INET6, host[1:-1])


def _folded(text: str | None) -> str | None:
    return None if text is None else text.lower()


def _digits(number: str) -> str:
    return number.translate(str.maketrans("", "", "-.()")).lower()
