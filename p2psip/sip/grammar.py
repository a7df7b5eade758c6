"""The pieces that SIP's header fields share: tokens, quoted strings, lists, parameters (RFC 3261 §25.1).

Linear in the length of the text: a quoted string or bracket that does not end is an error at once, never a reason
to start over.
"""

from __future__ import annotations

import re

from .errors import SIPParseError

TOKEN_CHARACTERS = r"A-Za-z0-9\-.!%*_+`'~"
_TOKEN = re.compile(rf"[{TOKEN_CHARACTERS}]+\Z").match
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL).match
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_PLAIN_VALUE = r'[^\x00-\x20\x7f",;<>\\]+'
_VALUE = re.compile(rf'(?:{_PLAIN_VALUE}|"(?:[^"\\]|\\.)*+")\Z', re.DOTALL).match
_PLAIN_PARAMETER = re.compile(rf";([{TOKEN_CHARACTERS}]++)(?:=({_PLAIN_VALUE}+))?").match
_NEXT = {separator: re.compile(f'["<{separator}]').search for separator in ",;"}

MOST_PARAMETERS = 64

Parameters = dict[str, str | None]
"""Names in lower case; values as written, quotes included; None where there is no "="."""


def is_token(text: str) -> bool:
    return _TOKEN(text) is not None


def end_of_quoted(text: str, start: int) -> int:
    """The position after the quoted string that begins at `start`."""
    match = _QUOTED(text, start)
    if match is None:
        raise SIPParseError("a quoted string does not end")
    return match.end()


def split(text: str, separator: str) -> list[str]:
    """The parts of `text` between separators ("," or ";") outside quoted strings and <>, stripped."""
    if separator not in text:
        return [text.strip()]
    if '"' not in text and "<" not in text:
        return [part.strip() for part in text.split(separator)]
    search, parts, start, position = _NEXT[separator], [], 0, 0
    while (match := search(text, position)) is not None:
        found = match.start()
        if text[found] == separator:
            parts.append(text[start:found].strip())
            start = position = found + 1
        elif text[found] == '"':
            position = end_of_quoted(text, found)
        else:
            position = text.find(">", found) + 1
            if not position:
                raise SIPParseError('"<" without ">"')
    parts.append(text[start:].strip())
    return parts


def parse_parameters(text: str) -> Parameters:
    """What `text`, empty or beginning with ";", says: a repeated or empty parameter is an error."""
    parameters: Parameters = {}
    position, end = 0, len(text)
    # As nearly everybody writes them, without spaces and quotes.
    while position < end and (match := _PLAIN_PARAMETER(text, position)) is not None:
        parameters[match[1].lower()] = match[2]
        position = match.end()
    if position == end and len(parameters) == text.count(";") <= MOST_PARAMETERS:
        return parameters
    return _parse_any_parameters(text)


def _parse_any_parameters(text: str) -> Parameters:
    parameters: Parameters = {}
    if text.isspace():
        return parameters
    first, *parts = split(text, ";")
    if first:
        raise SIPParseError("text where a parameter is due")
    if len(parts) > MOST_PARAMETERS:
        raise SIPParseError("too many parameters")
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.rstrip().lower()
        if _TOKEN(name) is None:
            raise SIPParseError("a parameter has no valid name")
        if name in parameters:
            raise SIPParseError(f"parameter {name} stands twice")
        if not equals:
            parameters[name] = None
            continue
        value = value.lstrip()
        if _VALUE(value) is None:
            raise SIPParseError(f"parameter {name} has no valid value")
        parameters[name] = value
    return parameters


def write_parameters(parameters: Parameters) -> str:
    text = ""
    for name, value in parameters.items():
        text += f";{name}" if value is None else f";{name}={value}"
    return text


def unquote(text: str) -> str:
    """The text that a quoted string stands for; any other text as it is."""
    if len(text) < 2 or text[0] != '"':
        return text
    inner = text[1:-1]
    return _ESCAPED.sub(r"\1", inner) if "\\" in inner else inner


def quote(text: str) -> str:
    """`text` as a quoted string."""
    if "\r" in text or "\n" in text:
        raise ValueError("a line break cannot be quoted")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def check_utf8(text: str) -> str:
    """`text`, which has come in as UTF-8 and so can be kept and compared.

    :raises SIPParseError: it has bytes that are not UTF-8.
    """
    try:
        text.encode()
    except UnicodeError:
        raise SIPParseError("text that is not UTF-8") from None
    return text


def parse_number(text: str, what: str, limit: int = 2**32) -> int:
    """The decimal number `text`, which must be below `limit`."""
    if not (text.isdecimal() and text.isascii()) or len(text) > 20:
        raise SIPParseError(f"{what} is not a number in its range")
    number = int(text)
    if number >= limit:
        raise SIPParseError(f"{what} is not a number in its range")
    return number
