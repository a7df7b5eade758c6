"""SIP messages: bytes to objects and back (RFC 3261 §7).

Parsing reads the start line, cuts the header fields and checks those that every message must have; any other
header field is parsed when somebody asks for it.  Header text is str: UTF-8, with bytes that are not UTF-8 kept as
surrogates, so that they come out as they came in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from . import reasons
from .errors import SIPParseError
from .grammar import is_token, parse_number, split
from .headers import (
    METHODS,
    CSeq,
    NameAddr,
    Via,
    parse_cseq,
    parse_expires,
    parse_name_addr,
    parse_via,
)
from .uri import SIPURI, URI, bare_host, parse_uri

MOST_HEAD_BYTES = 16384
MOST_HEADER_FIELDS = 256
MOST_LINES = 2 * MOST_HEADER_FIELDS
"""With those that are folded."""
MOST_BODY_BYTES = 65536
MOST_VALUES = 100
"""Of one list that is looked into, such as Via."""

T = TypeVar("T")

_TOP_VIA = "topmost Via"

_FOLD = re.compile(r"\r\n[ \t]+")
_START_LINE_SPACE = re.compile(r"[\x00-\x20\x7f]").search

_COMPACT = {
    "a": "Accept-Contact", "b": "Referred-By", "c": "Content-Type", "d": "Request-Disposition",
    "e": "Content-Encoding", "f": "From", "i": "Call-ID", "j": "Reject-Contact", "k": "Supported",
    "l": "Content-Length", "m": "Contact", "o": "Event", "r": "Refer-To", "s": "Subject", "t": "To",
    "u": "Allow-Events", "v": "Via", "x": "Session-Expires", "y": "Identity",
}  # fmt: skip
_LISTS = (
    "Accept", "Accept-Encoding", "Accept-Language", "Alert-Info", "Allow", "Allow-Events", "Call-Info", "Contact",
    "Content-Encoding", "Content-Language", "Error-Info", "In-Reply-To", "Path", "Proxy-Require", "Record-Route",
    "Require", "Route", "Service-Route", "Supported", "Unsupported", "Via", "Warning",
)  # fmt: skip
_OTHERS = (
    "Authentication-Info", "Authorization", "CSeq", "Content-Disposition", "Date", "Expires", "MIME-Version",
    "Max-Forwards", "Min-Expires", "Organization", "Priority", "Proxy-Authenticate", "Proxy-Authorization",
    "Reply-To", "Retry-After", "Server", "Timestamp", "User-Agent", "WWW-Authenticate",
)  # fmt: skip
_NAMES = {
    spelling: name
    for name in (*_COMPACT.values(), *_LISTS, *_OTHERS)
    for spelling in (name, name.lower(), name.upper())
}
_NAMES |= {letter: name for short, name in _COMPACT.items() for letter in (short, short.upper())}
_LIST_NAMES = frozenset(_LISTS)


def header_name(name: str) -> str:
    """The one spelling under which a header field is kept: long form, as RFC 3261 spells it."""
    known = _NAMES.get(name)
    if known is not None:
        return known
    return _NAMES.get(name.lower()) or name.title()


class Message:
    """What requests and responses have in common: header fields by name, in the order they came, and a body.

    `headers` maps `header_name()`s to the values of each occurrence.  Change them through the methods: what has
    been parsed is remembered.
    """

    __slots__ = ("_parsed", "body", "headers")

    def __init__(self, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> None:
        self.headers: dict[str, list[str]] = {}
        self.body = body
        self._parsed: dict[str, Any] = {}
        for name, value in headers:
            self.add(name, value)

    # -- header fields as text ------------------------------------------------------------------------

    def get(self, name: str) -> str | None:
        """The first value, None if there is none."""
        values = self.headers.get(header_name(name))
        return values[0] if values else None

    def values(self, name: str) -> list[str]:
        """All values; those of a comma-separated list one by one."""
        name = header_name(name)
        values = self.headers.get(name, [])
        if name not in _LIST_NAMES:
            return list(values)
        if len(values) == 1 and "," not in values[0]:
            return [values[0].strip()]
        return [part for value in values for part in split(value, ",")]

    def set(self, name: str, value: str) -> None:
        """Make `value` the only one."""
        name = header_name(name)
        self.forget_parsed(name)
        self.headers[name] = [_checked(value)]

    def add(self, name: str, value: str) -> None:
        """Append `value`."""
        name = header_name(name)
        self.forget_parsed(name)
        self.headers.setdefault(name, []).append(_checked(value))

    def prepend(self, name: str, value: str) -> None:
        """Put `value` before the others, as a Via or a Record-Route."""
        name = header_name(name)
        self.forget_parsed(name)
        self.headers.setdefault(name, []).insert(0, _checked(value))

    def remove(self, name: str) -> None:
        name = header_name(name)
        self.forget_parsed(name)
        self.headers.pop(name, None)

    def forget_parsed(self, name: str) -> None:
        """`headers[name]` was changed by hand."""
        if self._parsed:
            self._parsed.pop(name, None)
            if name == "Via":
                self._parsed.pop(_TOP_VIA, None)

    # -- header fields as structures; each raises SIPParseError when malformed or, if mandatory, absent ----

    def _typed(self, name: str, parse: Callable[[str], T]) -> T:
        try:
            parsed: T = self._parsed[name]
            return parsed
        except KeyError:
            pass
        values = self.headers.get(name)
        if not values:
            raise SIPParseError(f"no {name}")
        if len(values) > 1:
            raise SIPParseError(f"more than one {name}")
        parsed = self._parsed[name] = parse(values[0])
        return parsed

    @property
    def from_(self) -> NameAddr:
        return self._typed("From", parse_name_addr)

    @property
    def to(self) -> NameAddr:
        return self._typed("To", parse_name_addr)

    @property
    def call_id(self) -> str:
        return self._typed("Call-ID", _parse_call_id)

    @property
    def cseq(self) -> CSeq:
        return self._typed("CSeq", parse_cseq)

    @property
    def via(self) -> Via:
        """The topmost Via; of those below nothing is looked at."""
        parsed: list[Via] | None = self._parsed.get("Via")
        if parsed is not None:
            return parsed[0]
        top: Via | None = self._parsed.get(_TOP_VIA)
        if top is None:
            values = self.headers.get("Via")
            if not values:
                raise SIPParseError("no Via")
            if len(values) > MOST_VALUES or any("," in value for value in values):
                values = self._bounded("Via")
            top = self._parsed[_TOP_VIA] = parse_via(values[0])
        return top

    @property
    def vias(self) -> list[Via]:
        parsed: list[Via] | None = self._parsed.get("Via")
        if parsed is None:
            if "Via" not in self.headers:
                raise SIPParseError("no Via")
            parsed = self._parsed["Via"] = [parse_via(value) for value in self._bounded("Via")]
        return parsed

    @property
    def contacts(self) -> list[NameAddr]:
        """The Contacts; see `wildcard_contact` for "*"."""
        return self._list("Contact")

    @property
    def wildcard_contact(self) -> bool:
        """Whether Contact is "*" (RFC 3261 §10.2.2)."""
        return self.headers.get("Contact") == ["*"]

    @property
    def routes(self) -> list[NameAddr]:
        return self._list("Route")

    def _list(self, name: str) -> list[NameAddr]:
        parsed: list[NameAddr] | None = self._parsed.get(name)
        if parsed is None:
            parsed = self._parsed[name] = [parse_name_addr(value) for value in self._bounded(name)]
        return parsed

    def _bounded(self, name: str) -> list[str]:
        values = self.values(name)
        if len(values) > MOST_VALUES:
            raise SIPParseError(f"too many values of {name}")
        return values

    @property
    def max_forwards(self) -> int | None:
        if "Max-Forwards" not in self.headers:
            return None
        return self._typed("Max-Forwards", _parse_max_forwards)

    @property
    def expires(self) -> int | None:
        """Seconds; None when absent or unusable (RFC 3261 §20.19)."""
        return parse_expires(self.get("Expires"))

    # -- to bytes ---------------------------------------------------------------------------------------

    def _start_line(self) -> str:
        raise NotImplementedError

    def encode(self) -> bytes:
        """The message as it goes on the wire; Content-Length is that of the body."""
        lines = [self._start_line()]
        for name, values in self.headers.items():
            if name != "Content-Length":
                for value in values:
                    lines.append(f"{name}: {value}")
        lines.append(f"Content-Length: {len(self.body)}\r\n\r\n")
        return "\r\n".join(lines).encode("utf-8", "surrogateescape") + self.body


class Request(Message):
    """A request: `method`, the Request-URI as text and, parsed when asked for, as `uri`."""

    __slots__ = ("_uri", "method", "uri_text")

    def __init__(
        self, method: str, uri: URI | str, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
    ) -> None:
        super().__init__(headers, body)
        self.method = method
        self.uri_text = str(uri)
        self._uri = None if isinstance(uri, str) else uri

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.uri_text}>"

    @property
    def uri(self) -> URI:
        if self._uri is None:
            self._uri = parse_uri(self.uri_text)
        return self._uri

    def set_uri(self, uri: str) -> None:
        """Make `uri` the Request-URI."""
        self.uri_text, self._uri = uri, None

    def _start_line(self) -> str:
        return f"{self.method} {self.uri_text} SIP/2.0"

    def stamp_source(self, host: str, port: int) -> None:
        """Note in the topmost Via where the request came from (RFC 3261 §18.2.1, RFC 3581 §4).

        `host` is an IP address, without brackets.  Whatever the sender claimed in `received` is overwritten.
        """
        via = self.via
        wants_port = "rport" in via.parameters
        if wants_port:
            via.parameters["rport"] = str(port)
        if wants_port or "received" in via.parameters or bare_host(via.host) != host:
            via.parameters["received"] = host
            values = self.headers["Via"]
            rest = split(values[0], ",")[1:] if "," in values[0] else ()
            values[0] = ", ".join((str(via), *rest)) if rest else str(via)

    def response(self, status: int, reason: str | None = None, to_tag: str | None = None) -> Response:
        """A response to this request (RFC 3261 §8.2.6.2); `to_tag` goes to the To unless it has a tag."""
        response = Response(status, reason)
        for name in ("Via", "From", "To", "Call-ID", "CSeq"):
            if name in self.headers:
                response.headers[name] = list(self.headers[name])
        if status == 100:
            if "Timestamp" in self.headers:
                response.headers["Timestamp"] = list(self.headers["Timestamp"])
        elif to_tag is not None and self.to.tag is None:
            response.headers["To"][0] += f";tag={to_tag}"
        return response


class Response(Message):
    """A response: `status`, 100 to 699, and the reason phrase."""

    __slots__ = ("reason", "status")

    def __init__(
        self,
        status: int,
        reason: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> None:
        super().__init__(headers, body)
        self.status = status
        self.reason = _checked(reason if reason is not None else reasons.REASONS.get(status, ""))

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.reason}>"

    def _start_line(self) -> str:
        return f"SIP/2.0 {self.status} {self.reason}"


def parse(data: bytes) -> Request | Response:
    """Read the message that a datagram is (RFC 3261 §18.3): what follows its body is ignored.

    :raises SIPParseError: `status` says what a request deserves, `message` is what could be read.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        raise SIPParseError("the header fields do not end")
    message = parse_head(data[:end])
    body = data[end + 4 :]
    if "Content-Length" in message.headers:
        length = content_length(message)
        if length > len(body):
            raise SIPParseError("Content-Length is beyond the end of the message", message=message)
        body = body[:length]
    if len(body) > MOST_BODY_BYTES:
        raise SIPParseError("the body is too large", 413, message)
    message.body = body
    check(message)
    return message


def parse_head(head: bytes) -> Request | Response:
    """Cut start line and header fields, `head` being what stands before the empty line.

    :raises SIPParseError: as `parse`.
    """
    if len(head) > MOST_HEAD_BYTES:
        raise SIPParseError("the header fields are too large", 513)
    text = head.decode("utf-8", "surrogateescape")
    lines = text.split("\r\n")
    if len(lines) - 1 > MOST_LINES:
        raise SIPParseError("too many lines", 513)
    if "\r\n " in text or "\r\n\t" in text:
        text = _FOLD.sub(" ", text)
        lines = text.split("\r\n")
    if len(lines) > MOST_HEADER_FIELDS:
        raise SIPParseError("too many header fields", 513)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise SIPParseError("a line break that is not CRLF")
    message, problem = _parse_start_line(lines[0])
    headers = message.headers
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        known = _NAMES.get(name)
        if known is None:
            name = name.rstrip(" \t")
            if not colon or not is_token(name):
                problem = problem or SIPParseError("a line that is no header field")
                continue
            known = header_name(name)
        if known in headers:
            headers[known].append(value.strip(" \t"))
        else:
            headers[known] = [value.strip(" \t")]
    if problem is not None:
        problem.message = message
        raise problem
    return message


def _parse_start_line(line: str) -> tuple[Request | Response, SIPParseError | None]:
    """The message that begins so, and what is wrong if only its header fields can be trusted."""
    parts = line.split(" ", 2)
    if len(parts) < 3:
        raise SIPParseError("the start line is not that of a SIP message")
    if parts[0] not in METHODS and parts[0][:4].upper() == "SIP/":
        if parts[0].upper() != "SIP/2.0":
            raise SIPParseError("a response of another SIP version")
        if len(parts[1]) != 3 or not 100 <= parse_number(parts[1], "the status code") < 700:
            raise SIPParseError("the status code is out of range")
        return Response(int(parts[1]), parts[2]), None
    method, uri, version = parts
    if method not in METHODS and not is_token(method):
        raise SIPParseError("the start line is not that of a SIP message")
    request = Request(method, uri)
    if version == "SIP/2.0" or version.upper() == "SIP/2.0":
        problem = None
    elif version.upper().rstrip(" ").endswith("SIP/2.0"):
        problem = SIPParseError("white space too much in the start line")
    elif version[:4].upper() == "SIP/":
        problem = SIPParseError("another SIP version", 505)
    else:
        raise SIPParseError("the start line is not that of a SIP message")
    if not uri or uri[0] == "<" or ":" not in uri or _START_LINE_SPACE(uri):
        problem = problem or SIPParseError("text where the Request-URI is due")
    return request, problem


def content_length(message: Request | Response) -> int:
    """The Content-Length; 0 when absent.

    :raises SIPParseError: it is none, or there are several that differ.
    """
    values = message.headers.get("Content-Length")
    if values is None:
        return 0
    if len(values) > 1 and any(value != values[0] for value in values):
        raise SIPParseError("several Content-Length", message=message)
    try:
        return parse_number(values[0], "Content-Length", 2**31)
    except SIPParseError as error:
        error.message = message
        raise


def check(message: Request | Response) -> None:
    """Check what RFC 3261 §8.1.1 demands of every message; see `check_all` for the rest.

    :raises SIPParseError: with the message.
    """
    try:
        headers, parsed = message.headers, message._parsed
        for name, _ in _SINGLE:
            if name not in headers:
                raise SIPParseError(f"no {name}")
        message.via  # noqa: B018  (parsed, and kept)
        for name, parse_value in _SINGLE:
            values = headers[name]
            if len(values) > 1:
                raise SIPParseError(f"more than one {name}")
            parsed[name] = parse_value(values[0])
        cseq = message.cseq
        if isinstance(message, Request):
            if cseq.method != message.method:
                raise SIPParseError("CSeq has another method")
            if message.uri_text[:3].lower() == "sip" and isinstance(message.uri, SIPURI) and message.uri.headers:
                raise SIPParseError("header fields in the Request-URI")
            message.max_forwards  # noqa: B018
    except SIPParseError as error:
        error.message = message
        raise


def check_all(message: Message) -> None:
    """Parse every list that `check` left: for those who want to know at once, such as a proxy or a test."""
    for name in ("Contact", "Route", "Record-Route"):
        if name in message.headers and not (name == "Contact" and message.wildcard_contact):
            for value in message._list(name):
                value.uri  # noqa: B018


def _parse_call_id(text: str) -> str:
    if not text or " " in text or "\t" in text:
        raise SIPParseError("a malformed Call-ID")
    return text


def _parse_max_forwards(text: str) -> int:
    return parse_number(text, "Max-Forwards", 256)


_SINGLE: tuple[tuple[str, Callable[[str], Any]], ...] = (
    ("From", parse_name_addr), ("To", parse_name_addr), ("Call-ID", _parse_call_id), ("CSeq", parse_cseq),
)  # fmt: skip
"""What every message has once, beside Via."""


def _checked(value: str) -> str:
    """A line break within a value would begin a header field of somebody else's choice."""
    if "\r" in value or "\n" in value:
        raise ValueError("a line break in a header field")
    return value
