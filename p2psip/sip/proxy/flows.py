"""Over which flow a phone is reached (RFC 3261 §18, RFC 5626)."""

from __future__ import annotations

from ipaddress import ip_address

from ..errors import SIPParseError
from ..interfaces import Source
from ..uri import SIPURI, URI, parse_uri

_PORTS = {"UDP": 5060, "TCP": 5060, "TLS": 5061}


def source_text(source: Source) -> str:
    """A source as bindings keep it: "UDP 192.0.2.1 5060"."""
    return f"{source.transport} {source.host} {source.port}"


def parse_source(text: str) -> Source | None:
    """What `source_text` wrote; None for anything else, such as what was kept by an earlier version."""
    parts = text.split()
    if len(parts) != 3 or parts[0] not in _PORTS or not parts[2].isdigit():
        return None
    return Source(parts[1], int(parts[2]), parts[0])


def where_to_reach(contact: str, source: Source, outbound: bool = False) -> Source:
    """Where to send to a phone that gave `contact`, in a request that came from `source`.

    Where the contact has another address than its request came from there is a NAT, which lets in only what comes
    along the way that the phone opened; so it is over TLS, whose other end has no certificate to show, and for
    `outbound` (RFC 5626), where the phone says so.  Else the contact holds.
    """
    try:
        uri: URI = parse_uri(contact)
    except SIPParseError:
        return source
    if outbound or source.transport == "TLS" or not isinstance(uri, SIPURI) or not same_host(uri, source.host):
        return source
    transport = (uri.parameters.get("transport") or source.transport).upper()
    if transport not in ("UDP", "TCP") or uri.scheme == "sips" or "ob" in uri.parameters:
        return source
    return Source(source.host, uri.port or _PORTS[transport], transport)


def same_host(uri: SIPURI, host: str) -> bool:
    """Whether the host of `uri` is the IP address `host`."""
    if uri.address == host:
        return True
    if uri.host[:1] != "[":
        return False
    return ip_address(uri.address) == ip_address(host.partition("%")[0])
