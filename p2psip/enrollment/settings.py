"""What a person types into a phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class PhoneSettings:
    """The settings of one device of a user."""

    aor: str
    servers: Sequence[str]
    """Addresses of nodes, with a port where it is not the usual one."""
    domain: str
    mode: str
    """What the node does with calls: "proxy" or "redirect"."""
    user: str
    device: str
    password: str = field(repr=False)

    @property
    def outbound_proxy(self) -> str:
        """What to set for an outbound proxy."""
        if self.mode == "proxy":
            return "the SIP server, or none"
        return "none (calls are redirected; a phone that insists sends them here again)"

    def json(self) -> Mapping[str, Any]:
        """As `p2psip user add --json` prints them."""
        return asdict(self)

    def lines(self) -> Sequence[tuple[str, str]]:
        """Names and values, for people."""
        return (
            ("SIP server", " or ".join(self.servers)),
            ("Domain", f"{self.domain} (or the server's address)"),
            ("Outbound proxy", self.outbound_proxy),
            ("User name", self.user),
            ("Authentication name", self.user),
            ("Password", self.password),
        )

    def text(self) -> str:
        """All of it as lines of text, such as a QR code can hold."""
        return "\n".join(f"{name}: {value}" for name, value in self.lines())
