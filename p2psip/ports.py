"""Whether the ports that a node wants are free, asked before it starts: a taken one is a one-line error."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from .startup import StartError


def require_free_ports(options: Mapping[str, Any], enrollment: bool) -> None:
    """See that each address and port of `options` can be had.

    :param enrollment: whether the enrollment server will run as well.
    :raises StartError: one cannot; names the port and the option.
    """
    wanted = [("reload-port", socket.SOCK_DGRAM), ("reload-port", socket.SOCK_STREAM)]
    if not (options["no-sip"] or options["self-signed"]):
        wanted += [("sip-port", socket.SOCK_DGRAM), ("sip-port", socket.SOCK_STREAM), ("sips-port", socket.SOCK_STREAM)]
    if enrollment:
        wanted.append(("enrollment-port", socket.SOCK_STREAM))
        if options["web-certificate"]:
            wanted.append(("web-port", socket.SOCK_STREAM))
    for option, kind in wanted:
        for family, address in _places(options["bind"]):
            _try(family, kind, address, options[option], option)


def _places(bound: list[str]) -> Iterator[tuple[socket.AddressFamily, str]]:
    for address in bound or ["::" if socket.has_ipv6 else "0.0.0.0"]:
        yield (socket.AF_INET6 if ":" in address else socket.AF_INET), address


def _try(family: socket.AddressFamily, kind: socket.SocketKind, address: str, port: int, option: str) -> None:
    try:
        with socket.socket(family, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as e:
        if address == "::" and e.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            _try(socket.AF_INET, kind, "0.0.0.0", port, option)
            return
        if e.errno == errno.EADDRINUSE:
            protocol = "TCP" if kind == socket.SOCK_STREAM else "UDP"
            raise StartError(
                f"{protocol} port {port} on {_named(address)} is in use: choose another by --{option}, or another "
                "address by --bind"
            ) from None
        if e.errno == errno.EADDRNOTAVAIL:
            raise StartError(f"this machine has no address {address} (--bind)") from None
        if e.errno == errno.EACCES:
            raise StartError(f"port {port} may not be used by this user: choose another by --{option}") from None
        raise StartError(f"cannot use {address} port {port} (--{option}): {e.strerror}") from None


def _named(address: str) -> str:
    return "one of this machine's addresses" if address in ("::", "0.0.0.0") else address
