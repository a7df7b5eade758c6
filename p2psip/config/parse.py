"""Reading configuration documents (RFC 6940 §11.1).

Whatever the bytes, nothing but a `ConfigurationError` is raised.  A document is checked against
``reload.rng``, then for what a grammar cannot say; DTDs, entities and access to the network are off.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from importlib.resources import files
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final

from lxml import etree

from ..ids import NodeId
from ..security.identity import CertificateError, load_certificate
from ..wire.codes import DataModel
from . import spans
from .document import (
    CHORD_NAMESPACE,
    CHORD_RELOAD,
    CONFIG_NAMESPACE,
    RELOAD_PORT,
    CannotComply,
    Configuration,
    MalformedDocument,
    OverlayNotFound,
)
from .domains import read_domains
from .kinds import REGISTERED, REGISTERED_BY_NAME, SIP_REGISTRATION, Kind, KindBlock

_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")
_UTC: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]00:00)")
_DIGESTS: Final = ("sha1", "sha256")
_BASE: Final = f"{{{CONFIG_NAMESPACE}}}"
_CHORD: Final = f"{{{CHORD_NAMESPACE}}}"
MAX_KIND_ID: Final = 0xFFFFFFFE


def parse(data: bytes, overlay: str | None = None) -> Configuration:
    """Read a document and choose the configuration of `overlay`; of the only overlay in it, if none is named.

    No signature is checked here, nor the time: `p2psip.config.accept` does that.

    :raises MalformedDocument: the document is not what RFC 6940 says.
    :raises OverlayNotFound: it has no configuration of `overlay`.
    :raises CannotComply: it defines a Kind that this implementation cannot know.
    """
    places = spans.configurations(data)
    root = _validated(data)
    elements = root.findall(f"{_BASE}configuration")
    if len(places) != len(elements):
        raise MalformedDocument("configuration", "its place in the document is not clear")
    names = [_name(element) for element in elements]
    chosen = [i for i, name in enumerate(names) if overlay is None or name.lower() == overlay.lower()]
    if not chosen:
        raise OverlayNotFound("configuration", f"the document has none of the overlay {overlay}")
    if len(chosen) > 1:
        raise MalformedDocument("configuration", f"the document has several: {', '.join(sorted(set(names)))}")
    place = places[chosen[0]]
    element = elements[chosen[0]]
    name = names[chosen[0]]
    blocks = _kind_blocks(element.findall(f"{_BASE}required-kinds/{_BASE}kind-block"), place.kinds, data, name)
    return _read(
        element,
        name,
        raw=data[place.start : place.end],
        signatures=_signatures_after(element),
        kind_blocks=_restricted(blocks, read_domains(element, name)),
        inherited=tuple(place.inherited.items()),
    )


def parse_kinds(fragment: bytes, overlay: str) -> tuple[KindBlock, ...]:
    """Read the ``kind-block`` elements of a ConfigUpdate of type kind for `overlay` (RFC 6940 §6.5.4.1).

    They stand alone: the namespace of configuration documents is their default one.

    :raises ConfigurationError: as `parse`.
    """
    data = b'<required-kinds xmlns="%b">%b</required-kinds>' % (CONFIG_NAMESPACE.encode(), fragment)
    places = spans.kinds(data)
    head = b'<overlay xmlns="%b"><configuration instance-name="x">' % CONFIG_NAMESPACE.encode()
    root = _validated(head + data + b"</configuration></overlay>")
    blocks = root.findall(f"{_BASE}configuration/{_BASE}required-kinds/{_BASE}kind-block")
    if not blocks:
        raise MalformedDocument("kind-block", "there is none")
    return _kind_blocks(blocks, places, data, overlay)


@cache
def _grammar() -> etree.RelaxNG:
    source = files(__package__).joinpath("reload.rng").read_bytes()
    return etree.RelaxNG(etree.fromstring(source))


def _validated(data: bytes) -> etree._Element:
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        attribute_defaults=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise MalformedDocument("document", f"not well-formed XML: {error}") from None
    grammar = _grammar()
    if not grammar.validate(root):
        found = grammar.error_log.last_error
        line, text = (found.line, found.message) if found is not None else (0, "")
        element = (found.path or "").rpartition("/")[2] if found is not None else ""
        raise MalformedDocument(element or "document", f"line {line}: {text}")
    return root


def _text(element: etree._Element) -> str:
    return "".join(str(part) for part in element.itertext()).strip()


def _attribute(element: etree._Element, name: str, default: str = "") -> str:
    return str(element.get(name, default)).strip()


def _name(configuration: etree._Element) -> str:
    name = _attribute(configuration, "instance-name")
    if not _NAME.fullmatch(name):
        raise MalformedDocument("instance-name", "it could not be a DNS name (RFC 6940 §6.3.2)")
    return name


class _Reader:
    """The elements of one configuration, by name."""

    def __init__(self, configuration: etree._Element) -> None:
        self._found: dict[str, list[etree._Element]] = {}
        for child in configuration:
            self._found.setdefault(str(child.tag), []).append(child)

    def elements(self, name: str) -> list[etree._Element]:
        return self._found.get(_BASE + name, [])

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(_text(element) for element in self.elements(name))

    def text(self, name: str, default: str, namespace: str = _BASE) -> str:
        found = self._found.get(namespace + name)
        return _text(found[0]) if found else default

    def number(self, name: str, default: int, namespace: str = _BASE) -> int:
        return int(self.text(name, str(default), namespace))

    def boolean(self, name: str, default: bool, namespace: str = _BASE) -> bool:
        return self.text(name, "true" if default else "false", namespace) in ("true", "1")

    def node_ids(self, name: str, length: int) -> tuple[NodeId, ...]:
        return tuple(_node_id(name, text, length) for text in self.texts(name))

    def foreign(self) -> tuple[tuple[str, str], ...]:
        ours = (_BASE, _CHORD)
        return tuple(
            (tag, _text(element))
            for tag, elements in self._found.items()
            if not tag.startswith(ours)
            for element in elements
        )


def _read(
    element: etree._Element,
    name: str,
    raw: bytes,
    signatures: tuple[bytes, ...],
    kind_blocks: tuple[KindBlock, ...],
    inherited: tuple[tuple[str, str], ...],
) -> Configuration:
    reader = _Reader(element)
    length = reader.number("node-id-length", 16)
    return Configuration(
        instance_name=name,
        sequence=int(_attribute(element, "sequence", "0")),
        expiration=_expiration(element),
        topology_plugin=reader.text("topology-plugin", CHORD_RELOAD),
        node_id_length=length,
        root_certificates=tuple(map(_root_certificate, reader.texts("root-cert"))),
        enrollment_servers=tuple(map(_enrollment_server, reader.texts("enrollment-server"))),
        self_signed_permitted=_self_signed(reader.elements("self-signed-permitted")),
        bootstrap_nodes=tuple(map(_bootstrap_node, reader.elements("bootstrap-node"))),
        turn_density=reader.number("turn-density", 1),
        clients_permitted=reader.boolean("clients-permitted", True),
        no_ice=reader.boolean("no-ice", False),
        chord_update_interval=reader.number("chord-update-interval", 600, _CHORD),
        chord_ping_interval=reader.number("chord-ping-interval", 3600, _CHORD),
        chord_reactive=reader.boolean("chord-reactive", True, _CHORD),
        shared_secret=reader.text("shared-secret", ""),
        max_message_size=reader.number("max-message-size", 5000),
        initial_ttl=reader.number("initial-ttl", 100),
        overlay_reliability_timer=reader.number("overlay-reliability-timer", 3000),
        overlay_link_protocols=reader.texts("overlay-link-protocol") or ("TLS",),
        kind_signers=reader.node_ids("kind-signer", length),
        configuration_signers=reader.node_ids("configuration-signer", length),
        bad_nodes=frozenset(reader.node_ids("bad-node", length)),
        mandatory_extensions=reader.texts("mandatory-extension"),
        kinds=_kinds(kind_blocks),
        extensions=reader.foreign(),
        raw=raw,
        signatures=signatures,
        kind_blocks=kind_blocks,
        inherited=inherited,
    )


# -- What the grammar cannot say --------------------------------------------------------------------------


def _expiration(configuration: etree._Element) -> float | None:
    text = _attribute(configuration, "expiration")
    if not text:
        return None
    if not _UTC.fullmatch(text):
        raise MalformedDocument("expiration", f"{text!r} is no time in UTC (RFC 3339)")
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise MalformedDocument("expiration", f"there is no time {text!r}") from None


def _base64(element: str, text: str) -> bytes:
    try:
        return b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise MalformedDocument(element, "not base64") from None


def _root_certificate(text: str) -> bytes:
    der = _base64("root-cert", text)
    try:
        load_certificate(der)
    except CertificateError as error:
        raise MalformedDocument("root-cert", str(error)) from None
    return der


def _enrollment_server(url: str) -> str:
    if not url.lower().startswith("https://"):
        raise MalformedDocument("enrollment-server", f"{url!r} is not an https: URL")
    return url


def _self_signed(elements: Sequence[etree._Element]) -> str:
    if not elements or _text(elements[0]) in ("false", "0"):
        return ""
    digest = _attribute(elements[0], "digest")
    if digest not in _DIGESTS:
        raise CannotComply("self-signed-permitted", f"digest {digest!r} is not known")
    return digest


def _bootstrap_node(element: etree._Element) -> tuple[str, int]:
    address = _attribute(element, "address")
    try:
        return str(ip_address(address)), int(_attribute(element, "port", str(RELOAD_PORT)))
    except ValueError:
        raise MalformedDocument("bootstrap-node", f"{address!r} is not an IP address") from None


def _node_id(element: str, text: str, length: int) -> NodeId:
    if not re.fullmatch(r"[0-9A-Fa-f]*", text) or len(text) != 2 * length:
        raise MalformedDocument(element, f"{text!r} is not a Node-ID of {length} bytes in hexadecimal")
    return NodeId(bytes.fromhex(text))


# -- Kinds and signatures -----------------------------------------------------------------------------------


def _signatures_after(configuration: etree._Element) -> tuple[bytes, ...]:
    """The signatures that follow a configuration, up to the next one."""
    found = []
    for sibling in configuration.itersiblings():
        if sibling.tag != f"{_BASE}signature":
            break
        found.append(_base64("signature", _text(sibling)))
    return tuple(found)


def _kind_blocks(
    blocks: Sequence[etree._Element], places: Sequence[tuple[int, int]], data: bytes, overlay: str
) -> tuple[KindBlock, ...]:
    if len(blocks) != len(places):
        raise MalformedDocument("kind", "its place in the document is not clear")
    found = []
    for block, (start, end) in zip(blocks, places, strict=True):
        kind, signature = block.find(f"{_BASE}kind"), block.find(f"{_BASE}kind-signature")
        if kind is None or signature is None:  # the grammar has seen to it
            raise MalformedDocument("kind-block", "it is not complete")
        read = _kind(kind, overlay)
        found.append(KindBlock(read, data[start:end], _base64("kind-signature", _text(signature))))
    return tuple(found)


def _restricted(blocks: Sequence[KindBlock], domains: tuple[str, ...] | None) -> tuple[KindBlock, ...]:
    """`blocks`, that of SIP-REGISTRATION with what the configuration says where its Kind itself says nothing."""
    return tuple(
        replace(block, kind=replace(block.kind, domains=domains))
        if block.kind.kind_id == SIP_REGISTRATION and block.kind.domains is None
        else block
        for block in blocks
    )


def _kinds(blocks: Sequence[KindBlock]) -> Mapping[int, Kind]:
    kinds = {block.kind.kind_id: block.kind for block in blocks}
    if len(kinds) != len(blocks):
        raise MalformedDocument("required-kinds", "a Kind is defined twice")
    return MappingProxyType(kinds)


def _kind(element: etree._Element, overlay: str) -> Kind:
    reader = _Reader(element)
    registered = _registered(element)
    if registered is not None:
        # RFC 6940 §11.1: "clients MUST ignore them in favor of the IANA versions".
        kind_id, name = registered.kind_id, registered.name
        data_model, access_control = registered.data_model, registered.access_control
    else:
        kind_id, name = int(_attribute(element, "id")), ""
        data_model = _data_model(reader.text("data-model", ""))
        access_control = reader.text("access-control", "")
    if kind_id > MAX_KIND_ID:
        raise MalformedDocument("kind", f"there is no Kind-ID {kind_id:#x}")
    multiple = reader.number("max-node-multiple", 0)
    if access_control == "NODE-MULTIPLE" and not multiple:
        raise MalformedDocument("max-node-multiple", "NODE-MULTIPLE needs it")
    return Kind(
        kind_id=kind_id,
        name=name,
        data_model=data_model,
        access_control=access_control,
        max_count=reader.number("max-count", 0),
        max_size=reader.number("max-size", 0),
        max_node_multiple=multiple,
        domains=read_domains(element, overlay),
    )


def _registered(element: etree._Element) -> Kind | None:
    if element.get("name") is None:
        return REGISTERED.get(int(_attribute(element, "id")))
    name = _attribute(element, "name")
    if name not in REGISTERED_BY_NAME:
        raise CannotComply("kind", f"the Kind {name!r} is not known")
    return REGISTERED_BY_NAME[name]


def _data_model(text: str) -> DataModel:
    try:
        return DataModel(text)
    except ValueError:
        raise CannotComply("data-model", f"the data model {text!r} is not known") from None
