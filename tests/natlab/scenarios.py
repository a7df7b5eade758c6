"""Laboratories that are wanted again and again."""

from __future__ import annotations

from dataclasses import dataclass

from .description import NAT, Host, Line, NATKind, Node


@dataclass(frozen=True)
class Home:
    """One host and the way from it to the internet; ``Home("a", nat=None)`` is on the public network.

    The NAT is ``nat-a``, and with `carrier` itself behind a second one, ``isp-a``. `line` is the hop to the
    internet's router. With `ipv6` the host has a public IPv6 address too, behind a stateful firewall.
    """

    host: str
    nat: NATKind | None = NATKind.CONE
    carrier: NATKind | None = None
    ipv6: bool = False
    line: Line | None = None

    def nodes(self) -> list[Node]:
        """The host and its NATs, from the internet inwards."""
        kinds = {f"isp-{self.host}": self.carrier, f"nat-{self.host}": self.nat}
        nodes: list[Node] = []
        behind, line = None, self.line
        for name, kind in kinds.items():
            if kind is not None:
                nodes.append(NAT(name, kind, behind, self.ipv6, line))
                behind, line = name, None
        return [*nodes, Host(self.host, behind, line)]


@dataclass(frozen=True)
class ThreePeers:
    """Three peers, ``p`` on the public network, ``a`` and ``b`` each in a home; with `turn` a host for coturn."""

    a: Home = Home("a")
    b: Home = Home("b")
    turn: bool = False

    def nodes(self) -> list[Node]:
        """For `Laboratory`."""
        public = [Host("p"), Host("turn")] if self.turn else [Host("p")]
        return [*public, *self.a.nodes(), *self.b.nodes()]
