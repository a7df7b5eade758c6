"""Where the elements that signatures cover begin and end, in bytes (RFC 6940 §11.1).

They are found by the XML parser's own byte offsets: comments, CDATA and attribute values may hold any text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from xml.parsers.expat import ExpatError, ParserCreate

from .document import CONFIG_NAMESPACE, MalformedDocument

MAX_DOCUMENT: Final = 1 << 20
"""Bytes of a document; one with a hundred root certificates has fewer."""

MAX_ELEMENTS: Final = 20_000
MAX_DEPTH: Final = 32

_START_TAG: Final = re.compile(rb"""<[^>"']*(?:"[^"]*"[^>"']*|'[^']*'[^>"']*)*>""")

_OVERLAY: Final = f"{CONFIG_NAMESPACE} overlay"
_CONFIGURATION: Final = (_OVERLAY, f"{CONFIG_NAMESPACE} configuration")
_REQUIRED_KINDS: Final = f"{CONFIG_NAMESPACE} required-kinds"
_KIND: Final = (_REQUIRED_KINDS, f"{CONFIG_NAMESPACE} kind-block", f"{CONFIG_NAMESPACE} kind")


@dataclass(slots=True)
class Span:
    """The bytes of one ``<configuration>``, from its first ``<`` to its last ``>``, and those of its
    Kinds.
    """

    start: int
    end: int = 0
    kinds: list[tuple[int, int]] = field(default_factory=list)
    inherited: dict[str, str] = field(default_factory=dict)
    """The namespaces by prefix that are declared outside of it."""


@dataclass(slots=True)
class _Open:
    name: str
    start: int
    self_closed_at: int | None


class _Scanner:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._path: list[_Open] = []
        self._elements = 0
        self._declared: dict[str, str] = {}
        self._root_namespaces: dict[str, str] = {}
        self.configurations: list[Span] = []
        self.kinds: list[tuple[int, int]] = []
        self._parser = parser = ParserCreate("UTF-8", " ")
        parser.XmlDeclHandler = self._xml_declaration
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartNamespaceDeclHandler = self._namespace
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end

    def scan(self) -> None:
        try:
            self._parser.Parse(self._data, True)
        except ExpatError as error:
            raise MalformedDocument("document", f"not well-formed XML: {error}") from None

    def _xml_declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding is not None and encoding.upper() != "UTF-8":
            raise MalformedDocument("document", "the encoding must be UTF-8 (RFC 6940 §11.1)")

    def _doctype(self, *_: object) -> None:
        raise MalformedDocument("document", "a document type declaration is not allowed")

    def _namespace(self, prefix: str | None, uri: str | None) -> None:
        self._declared[prefix or ""] = uri or ""

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if self._elements > MAX_ELEMENTS or len(self._path) >= MAX_DEPTH:
            raise MalformedDocument("document", "too many elements, or nested too deeply")
        start = self._parser.CurrentByteIndex
        tag = _START_TAG.match(self._data, start)
        if tag is None:
            raise MalformedDocument("document", f"no start tag at byte {start}")
        self._path.append(_Open(name, start, tag.end() if tag[0].endswith(b"/>") else None))
        declared, self._declared = self._declared, {}
        if len(self._path) == 1:
            self._root_namespaces = declared
        elif self._at(_CONFIGURATION):
            inherited = {p: uri for p, uri in self._root_namespaces.items() if p not in declared}
            self.configurations.append(Span(start, inherited=inherited))

    def _end(self, name: str) -> None:
        here = self._path[-1]
        # Of an empty element's tag expat says where it ends, of an end tag where it begins.
        end = here.self_closed_at or self._data.index(b">", self._parser.CurrentByteIndex) + 1
        if self._at(_CONFIGURATION):
            self.configurations[-1].end = end
        elif self._at((*_CONFIGURATION, *_KIND)):
            self.configurations[-1].kinds.append((here.start, end))
        elif self._at(_KIND):
            self.kinds.append((here.start, end))
        self._path.pop()

    def _at(self, path: tuple[str, ...]) -> bool:
        return len(self._path) == len(path) and all(
            element.name == name for element, name in zip(self._path, path, strict=True)
        )


def configurations(data: bytes) -> list[Span]:
    """Each ``<configuration>`` of an ``<overlay>`` document, in their order.

    :raises MalformedDocument: `data` is no well-formed XML in UTF-8, too large, or has a DTD.
    """
    return _scan(data).configurations


def kinds(data: bytes) -> list[tuple[int, int]]:
    """Each ``<kind>`` of a document whose root is ``<required-kinds>``; errors as above."""
    return _scan(data).kinds


def _scan(data: bytes) -> _Scanner:
    if len(data) > MAX_DOCUMENT:
        raise MalformedDocument("document", f"{len(data)} bytes, more than {MAX_DOCUMENT}")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedDocument("document", f"not UTF-8 at byte {error.start}") from None
    scanner = _Scanner(data)
    scanner.scan()
    return scanner
