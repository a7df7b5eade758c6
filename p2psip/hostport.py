"""Addresses with ports as text: ``192.0.2.1:6084`` and ``[2001:db8::1]:6084`` (RFC 3986 §3.2.2)."""

from __future__ import annotations


def bracketed(host: str) -> str:
    """`host` as a URI spells it: an IPv6 address in brackets, anything else as it is."""
    return f"[{host}]" if ":" in host and host[0] != "[" else host


def address_text(host: str, port: int) -> str:
    """A transport address: ``127.0.0.2:6084`` or ``[::1]:6084``."""
    return f"{bracketed(host)}:{port}"


def parse_address(text: str) -> tuple[str, int] | None:
    """Host, without brackets, and port of what `address_text` made; None where `text` is nothing of the kind."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)
