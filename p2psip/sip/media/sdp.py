"""What a session description says of the way of its media (RFC 8866, RFC 8839); all else in it is for the phones."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final, NamedTuple

MOST_BYTES: Final = 32768
"""A longer description is left to the phones: it has to fit into a datagram to the relay."""
MOST_LINES: Final = 2000
MOST_MEDIA: Final = 64
_ICE: Final = ("a=candidate:", "a=ice-ufrag:")
_OF_ICE: Final = (b"a=candidate:", b"a=remote-candidates:", b"a=end-of-candidates", b"a=ice-")


class SDPError(ValueError):
    """No session description, or one beyond the limits."""


class Description(NamedTuple):
    """The facts of one session description."""

    hosts: frozenset[str]
    """Where media are to be sent: IP addresses in their shortest spelling, or names."""
    ice: bool
    """Whether its author does ICE."""

    @property
    def unspecified(self) -> bool:
        """Whether there is an address that means that nothing is to be sent (RFC 3264 §8.4)."""
        return not self.hosts.isdisjoint(("0.0.0.0", "::"))


def read_description(body: bytes) -> Description:
    """Read a session description, its lines ended by CRLF or LF.

    :raises SDPError: it is none.
    """
    if len(body) > MOST_BYTES:
        raise SDPError("too long")
    lines = body.decode("utf-8", "surrogateescape").split("\n")
    if len(lines) > MOST_LINES:
        raise SDPError("too many lines")
    if lines[0].rstrip("\r") != "v=0":
        raise SDPError("it does not begin with v=0")
    session = ""
    media: list[tuple[bool, str]] = []
    ice = False
    for line in lines[1:]:
        kind, value = line[:2], line[2:].rstrip("\r")
        if kind == "m=":
            if len(media) == MOST_MEDIA:
                raise SDPError("too many media")
            media.append((_is_used(value), ""))
        elif kind == "c=":
            host = _host(value)
            if not media:
                session = host
            elif not media[-1][1]:
                media[-1] = (media[-1][0], host)
        elif line.startswith(_ICE):
            ice = True
    hosts = {host or session for used, host in media if used} if media else {session}
    if "" in hosts:
        raise SDPError("media without a connection")
    return Description(frozenset(hosts), ice)


def without_ice(body: bytes) -> bytes:
    """A session description without the attributes of ICE (RFC 8839 §5)."""
    return b"".join(line for line in body.splitlines(keepends=True) if not line.startswith(_OF_ICE))


def _is_used(media: str) -> bool:
    """Whether the port of an m line is not 0, which refuses the media (RFC 3264 §6)."""
    words = media.split()
    if len(words) < 4:
        raise SDPError("malformed m line")
    port, _, _ = words[1].partition("/")
    if not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise SDPError("malformed port")
    return int(port) != 0


def _host(connection: str) -> str:
    """The address of a c line: "IN IP4 192.0.2.1", of multicast with "/TTL" behind it."""
    words = connection.split()
    if len(words) != 3 or words[0] != "IN":
        raise SDPError("malformed c line")
    host = words[2].partition("/")[0]
    try:
        return str(ip_address(host))
    except ValueError:
        return host.lower()
