"""Addresses of links: those we offer as candidates, and those of others that we are willing to try."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import ifaddr

from ..errors import LinkError
from ..hostport import address_text
from ..wire.codes import CandType, OverlayLinkType
from ..wire.methods import IceCandidate, IpAddressPort

MOST_CANDIDATES = 8
"""How many of the candidates that somebody sends are tried at most."""

_DOCUMENTATION = ("192.0.2.1", "2001:db8::1")


def numeric(host: str) -> IPv4Address | IPv6Address:
    """`host` as an address; an IPv4 address mapped into IPv6 as what it is.

    :raises LinkError: it is a name, or nothing at all.
    """
    try:
        address = ip_address(host)
    except ValueError:
        raise LinkError(f"{host!r} is not an IP address") from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def has_ipv6() -> bool:
    """Whether this machine can listen on IPv6 at all."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def outward_addresses() -> list[str]:
    """This machine's addresses towards the rest of the world, one for each family; loopback if there are
    none.

    It asks the kernel which source address it would use, and sends nothing.
    """
    found = []
    for family, host in zip((socket.AF_INET, socket.AF_INET6), _DOCUMENTATION, strict=True):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((host, 9))
                found.append(str(probe.getsockname()[0]))
        except OSError:
            continue  # no route, or no such family
    return found or ["127.0.0.1"]


def own_addresses() -> list[str]:
    """Every address of this machine's interfaces, loopback included, but those of a link alone (fe80::)."""
    found: dict[str, None] = {}
    for adapter in ifaddr.get_adapters():
        for each in adapter.ips:
            address = numeric(each.ip if isinstance(each.ip, str) else each.ip[0])
            if not address.is_link_local and not address.is_multicast:
                found[str(address)] = None
    return list(found)


def host_candidates(addresses: Sequence[tuple[str, int]], link_type: int) -> tuple[IceCandidate, ...]:
    """Host candidates for (address, port) pairs, the first preferred (RFC 6940 §6.5.1.6, RFC 5245
    §4.1.2.1).
    """
    return tuple(
        IceCandidate(
            addr_port=IpAddressPort.of(host, port),
            overlay_link=link_type,
            foundation=str(place + 1).encode(),
            # Type preference 126 for host candidates, then the local preference, then component 1.
            priority=(126 << 24) + ((65535 - place) << 8) + 255,
            type=CandType.HOST,
        )
        for place, (host, port) in enumerate(addresses)
    )


def refusal(host: str, port: int, own: Collection[tuple[str, int]], loopback: bool) -> str:
    """Why an address that a stranger names is not to be connected to; empty if it may be.

    `own` are the addresses where we listen; `loopback` says whether we are bound to loopback ourselves.
    """
    address = numeric(host)
    if not port:
        return "port 0"
    if address.is_multicast:
        return "multicast address"
    if address.is_unspecified or address == IPv4Address("255.255.255.255"):
        return "not a host's address"
    if isinstance(address, IPv6Address) and address.is_link_local:
        return "link-local address"
    if address.is_loopback and not loopback:
        return "loopback address"
    if (str(address), port) in own:
        return "our own address"
    return ""


def usable(
    candidates: Sequence[IceCandidate],
    link_type: OverlayLinkType,
    own: Collection[tuple[str, int]],
    loopback: bool,
) -> Iterator[tuple[str, int]]:
    """The addresses of `candidates` that may be tried, as (host, port), the highest priority first.

    :raises LinkError: there is none; it says why the last was refused.
    """
    why = "no candidates"
    ours = [candidate for candidate in candidates if candidate.overlay_link == link_type]
    if candidates and not ours:
        why = "no candidate for this kind of link"
    found = set()
    for candidate in sorted(ours, key=lambda each: -each.priority)[:MOST_CANDIDATES]:
        host, port = candidate.addr_port.host, getattr(candidate.addr_port, "port", 0)
        try:
            why = refusal(host, port, own, loopback)
            address = str(numeric(host))
        except LinkError as error:
            why = str(error)
        else:
            if why:
                why = f"{why} {address_text(address, port)}"
            elif (address, port) not in found:
                found.add((address, port))
                yield address, port
    if not found:
        raise LinkError(f"no usable candidate: {why}")
