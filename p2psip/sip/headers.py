"""Header fields with a structure: Via, CSeq, name-addr, Contact, Date (RFC 3261 §20)."""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache
from typing import NamedTuple

from .errors import SIPParseError
from .grammar import (
    TOKEN_CHARACTERS,
    Parameters,
    end_of_quoted,
    is_token,
    parse_number,
    parse_parameters,
    quote,
    unquote,
    write_parameters,
)
from .uri import HOST, URI, bare_host, check_ipv6, check_port, parse_uri

_TOKEN = f"[{TOKEN_CHARACTERS}]+"
_VIA = re.compile(
    rf"({_TOKEN})[ \t]*/[ \t]*({_TOKEN})[ \t]*/[ \t]*({_TOKEN})[ \t]+({HOST})"
    r"(?:[ \t]*:[ \t]*([0-9]{1,5}))?[ \t]*(;.*)?\Z",
    re.DOTALL,
).match
_PLAIN_NAME_ADDR = re.compile(
    rf'(?:"([^"\\]*+)"[ \t]*|([{TOKEN_CHARACTERS} \t]*+))<([^<>"\x00-\x20\x7f-\U0010ffff]++)>'
    rf"(?:;tag=({_TOKEN})|(;.*))?\Z",
    re.DOTALL,
).match
METHODS = frozenset(
    ("INVITE", "ACK", "BYE", "CANCEL", "REGISTER", "OPTIONS", "UPDATE", "PRACK", "INFO", "REFER", "SUBSCRIBE", "NOTIFY",
     "MESSAGE", "PUBLISH")
)  # fmt: skip
"""Those that there are; others may come."""
_DISPLAY = re.compile(rf"[{TOKEN_CHARACTERS} \t]*\Z").match
_QVALUE = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\Z").match

MAGIC_COOKIE = "z9hG4bK"
"""Begins the branch of an RFC 3261 implementation (RFC 3261 §8.1.1.7)."""


class CSeq(NamedTuple):
    """A sequence number (below 2**31) and its method (RFC 3261 §20.16)."""

    number: int
    method: str

    def __str__(self) -> str:
        return f"{self.number} {self.method}"


class Via:
    """One Via value: the transport, the sent-by host and port, and the parameters (RFC 3261 §20.42)."""

    __slots__ = ("host", "parameters", "port", "transport")

    def __init__(self, transport: str, host: str, port: int | None, parameters: Parameters) -> None:
        self.transport = transport
        self.host = host
        self.port = port
        self.parameters = parameters

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"SIP/2.0/{self.transport} {self.host}{port}{write_parameters(self.parameters)}"

    @property
    def branch(self) -> str:
        """The branch; empty when there is none (RFC 2543)."""
        return self.parameters.get("branch") or ""

    @property
    def sent_by(self) -> tuple[str, int | None]:
        return bare_host(self.host), self.port

    @property
    def received(self) -> str | None:
        """The address that the request came from, with or without brackets on the wire (RFC 5118 §4.5)."""
        value = self.parameters.get("received")
        return None if value is None else bare_host(value)

    @property
    def rport(self) -> int | None:
        """The port that the request came from (RFC 3581), once it is filled in."""
        value = self.parameters.get("rport")
        return None if value is None else parse_number(value, "rport", 65536)


class NameAddr:
    """A URI with an optional display name, and the parameters of the header field (RFC 3261 §20.10, §20.20)."""

    __slots__ = ("_uri", "display_name", "parameters", "uri_text")

    def __init__(
        self, uri: URI | str, display_name: str | None = None, parameters: Parameters | None = None
    ) -> None:
        self.display_name = display_name
        self.parameters = {} if parameters is None else parameters
        self.uri_text = str(uri)
        self._uri = None if isinstance(uri, str) else uri

    def __str__(self) -> str:
        display = "" if self.display_name is None else f"{quote(self.display_name)} "
        return f"{display}<{self.uri_text}>{write_parameters(self.parameters)}"

    @property
    def uri(self) -> URI:
        """The URI, parsed when first asked for.

        :raises SIPParseError: it is malformed.
        """
        if self._uri is None:
            self._uri = parse_uri(self.uri_text)
        return self._uri

    @property
    def tag(self) -> str | None:
        return self.parameters.get("tag")

    @property
    def q(self) -> float | None:
        """The preference of a contact, 0 to 1; None when not given."""
        value = self.parameters.get("q")
        if value is None:
            return None
        if _QVALUE(value) is None:
            raise SIPParseError("a q value is not between 0 and 1 with three digits")
        return float(value)

    @property
    def expires(self) -> int | None:
        """Seconds that a contact asks for, None when not given or unusable.

        Out of its range it stands for the default (RFC 4475 §3.1.2.4), malformed likewise (RFC 3261 §10.2.1.1).
        """
        return parse_expires(self.parameters.get("expires"))


def parse_expires(value: str | None) -> int | None:
    """Delta-seconds; None for the absent, the malformed and what is beyond 2**32 - 1."""
    if value is None:
        return None
    try:
        return parse_number(value, "expires")
    except SIPParseError:
        return None


def parse_cseq(text: str) -> CSeq:
    parts = text.split()
    if len(parts) != 2 or (parts[1] not in METHODS and not is_token(parts[1])):
        raise SIPParseError("CSeq is not a number and a method")
    return CSeq(parse_number(parts[0], "CSeq", 2**31), parts[1])


def parse_via(text: str) -> Via:
    """Read one Via value."""
    match = _VIA(text.strip())
    if match is None:
        raise SIPParseError("a malformed Via")
    protocol, version, transport, host, port, parameters = match.groups()
    if protocol.upper() != "SIP" or version != "2.0":
        raise SIPParseError("a Via of another protocol or version")
    if host[0] == "[":
        host = check_ipv6(host)
    return Via(transport.upper(), host, check_port(port), parse_parameters(parameters) if parameters else {})


def parse_name_addr(text: str) -> NameAddr:
    """Read a name-addr or addr-spec with parameters: From, To, one Contact, one Route."""
    # As nearly everybody writes From and To.
    plain = _PLAIN_NAME_ADDR(text)
    if plain is not None:
        quoted, words, uri, tag, others = plain.groups()
        if ":" in uri:
            parameters = {"tag": tag} if tag else parse_parameters(others) if others else {}
            return NameAddr(uri, quoted or (words and words.strip()) or None, parameters)
    text = text.strip()
    if text[:1] == '"':
        end = end_of_quoted(text, 0)
        display, opening = unquote(text[:end]), text.find("<", end)
        if opening < 0 or text[end:opening].strip():
            raise SIPParseError("a display name without <URI>")
    elif (opening := text.find("<")) < 0 or ":" in text[:opening]:
        return _parse_addr_spec(text)
    else:
        if _DISPLAY(text[:opening]) is None:
            raise SIPParseError("a display name of other than tokens is not quoted")
        display = text[:opening].strip()
    closing = text.find(">", opening)
    if closing < 0:
        raise SIPParseError('"<" without ">"')
    uri = text[opening + 1 : closing]
    _check_uri_text(uri)
    return NameAddr(uri, display or None, parse_parameters(text[closing + 1 :]))


def _parse_addr_spec(text: str) -> NameAddr:
    """Without <>, parameters belong to the header field, and there can be no "?" or "," (RFC 3261 §20)."""
    uri, semicolon, parameters = text.partition(";")
    uri = uri.rstrip()
    if "?" in uri or "," in uri:
        raise SIPParseError('a URI with "?" or "," is not within <>')
    _check_uri_text(uri)
    return NameAddr(uri, None, parse_parameters(semicolon + parameters))


def _check_uri_text(uri: str) -> None:
    """What any URI has: a scheme, and no white space.  The rest waits until somebody needs it."""
    if ":" not in uri or not uri.isprintable() or " " in uri or '"' in uri:
        raise SIPParseError("text where a URI is due")


def write_date(now: float) -> str:
    """`now` as the Date header field has it (RFC 3261 §20.17)."""
    return _date(int(now))


@lru_cache(1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
