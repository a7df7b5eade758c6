"""Writing configuration documents (RFC 6940 §11.1)."""

from __future__ import annotations

from base64 import encodebytes
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from xml.sax.saxutils import escape, quoteattr

from .document import (
    CHORD_NAMESPACE,
    CONFIG_NAMESPACE,
    Configuration,
    MalformedDocument,
)
from .domains import write_domains
from .kinds import Kind, KindBlock


def write_configuration(configuration: Configuration) -> bytes:
    """The ``<configuration>`` element, which is what its signature covers.

    It declares its namespaces itself, since what ``<overlay>`` declares is not signed.  Each Kind needs its
    signed block: `p2psip.config.accept.publish` makes both.  Of `extensions` only elements of plain text can
    be written again.

    :raises MalformedDocument: a Kind has no signed block.
    """
    attributes = [
        f'xmlns="{CONFIG_NAMESPACE}"',
        f'xmlns:chord="{CHORD_NAMESPACE}"',
        f"instance-name={quoteattr(configuration.instance_name)}",
        f'sequence="{configuration.sequence}"',
    ]
    if configuration.expiration is not None:
        attributes.append(f'expiration="{_time(configuration.expiration)}"')
    lines = [f"<configuration {' '.join(attributes)}>"]
    lines += [f"  {line}" for line in _elements(configuration)]
    lines += [f"  {line}" for line in _required_kinds(configuration)]
    return "\n".join([*lines, "</configuration>"]).encode()


def write_document(configuration: Configuration) -> bytes:
    """The whole document: the ``<overlay>`` with `configuration` as it was signed or received, and its
    signatures.

    :raises MalformedDocument: it was never written.
    """
    if not configuration.raw:
        raise MalformedDocument("configuration", "it was not written yet")
    namespaces = {"": CONFIG_NAMESPACE} | dict(configuration.inherited)
    declared = " ".join(
        f"{f'xmlns:{prefix}' if prefix else 'xmlns'}={quoteattr(name)}" for prefix, name in namespaces.items()
    )
    # The root is in the namespace of documents, whatever the default is that the configuration inherits.
    prefix = next(prefix for prefix, name in namespaces.items() if name == CONFIG_NAMESPACE)
    signature, overlay = (f"{prefix}:{name}" if prefix else name for name in ("signature", "overlay"))
    head = f'<?xml version="1.0" encoding="UTF-8"?>\n<{overlay} {declared}>\n'
    tail = [f"\n<{signature}>\n{_base64(block)}</{signature}>" for block in configuration.signatures]
    return head.encode() + configuration.raw + "".join([*tail, f"\n</{overlay}>\n"]).encode()


def write_kind(kind: Kind) -> bytes:
    """The ``<kind>`` element, which is what its signature covers; in the default namespace of documents."""
    named = f"name={quoteattr(kind.name)}" if kind.name else f'id="{kind.kind_id}"'
    multiple = _element("max-node-multiple", kind.max_node_multiple) if kind.max_node_multiple else ""
    return (
        f"<kind {named}>"
        + _element("data-model", kind.data_model)
        + _element("access-control", kind.access_control)
        + multiple
        + _element("max-count", kind.max_count)
        + _element("max-size", kind.max_size)
        + ("" if kind.domains is None else write_domains(kind.domains))
        + "</kind>"
    ).encode()


def write_kinds(blocks: Sequence[KindBlock]) -> bytes:
    """The ``kind-block`` elements, for a ConfigUpdate of type kind (RFC 6940 §6.5.4.1)."""
    return b"".join(
        b"<kind-block>%b<kind-signature>%b</kind-signature></kind-block>"
        % (block.raw, _base64(block.signature).encode())
        for block in blocks
    )


def _elements(c: Configuration) -> Iterator[str]:
    yield _element("topology-plugin", c.topology_plugin)
    yield _element("node-id-length", c.node_id_length)
    yield from (_element("root-cert", _base64(der)) for der in c.root_certificates)
    yield from (_element("enrollment-server", url) for url in c.enrollment_servers)
    if c.self_signed_permitted:
        digest = quoteattr(c.self_signed_permitted)
        yield f"<self-signed-permitted digest={digest}>true</self-signed-permitted>"
    for address, port in c.bootstrap_nodes:
        yield f'<bootstrap-node address={quoteattr(address)} port="{port}"/>'
    yield _element("turn-density", c.turn_density)
    yield _element("clients-permitted", c.clients_permitted)
    yield _element("no-ice", c.no_ice)
    yield _element("chord:chord-update-interval", c.chord_update_interval)
    yield _element("chord:chord-ping-interval", c.chord_ping_interval)
    yield _element("chord:chord-reactive", c.chord_reactive)
    if c.shared_secret:
        yield _element("shared-secret", c.shared_secret)
    yield _element("max-message-size", c.max_message_size)
    yield _element("initial-ttl", c.initial_ttl)
    yield _element("overlay-reliability-timer", c.overlay_reliability_timer)
    yield from (_element("overlay-link-protocol", name) for name in c.overlay_link_protocols)
    yield from (_element("kind-signer", node_id.hex()) for node_id in c.kind_signers)
    yield from (_element("configuration-signer", node_id.hex()) for node_id in c.configuration_signers)
    yield from (_element("bad-node", node_id.hex()) for node_id in sorted(c.bad_nodes))
    yield from (_element("mandatory-extension", name) for name in c.mandatory_extensions)
    for tag, text in c.extensions:
        namespace, _, name = tag.removeprefix("{").partition("}")
        yield f"<ext:{name} xmlns:ext={quoteattr(namespace)}>{escape(text)}</ext:{name}>"


def _required_kinds(configuration: Configuration) -> Iterator[str]:
    blocks = {block.kind.kind_id: block for block in configuration.kind_blocks}
    if blocks.keys() != configuration.kinds.keys():
        raise MalformedDocument("required-kinds", "there is not one signed block for each Kind")
    if blocks:
        yield "<required-kinds>"
        yield from (write_kinds([block]).decode() for block in blocks.values())
        yield "</required-kinds>"


def _element(name: str, value: str | int) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"<{name}>{escape(text)}</{name}>"


def _base64(data: bytes) -> str:
    return encodebytes(data).decode()


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
