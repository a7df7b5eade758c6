"""Session descriptions for the tests."""

from __future__ import annotations


def description(host: str, port: int, *attributes: str, protocol: str = "RTP/AVP") -> bytes:
    """One of PCMU at an address and port, with attributes such as "sendonly"."""
    family = "IP6" if ":" in host else "IP4"
    lines = [
        "v=0", f"o=- 1 1 IN {family} {host}", "s=-", f"c=IN {family} {host}", "t=0 0",
        f"m=audio {port} {protocol} 0", *(f"a={attribute}" for attribute in attributes),
    ]  # fmt: skip
    return "".join(f"{line}\r\n" for line in lines).encode()


ICE = ("ice-ufrag:abcd", "ice-pwd:abcdefghijklmnopqrstuv", "candidate:1 1 UDP 2130706431 192.168.1.2 5000 typ host")
