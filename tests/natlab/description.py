"""What a laboratory is made of, and the address that each part gets. No input or output."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

INTERNET = "internet"
"""The router in the middle, which has the public hosts and NATs on its lines."""

NAME = re.compile(r"[a-z][a-z0-9-]{0,14}")  # also the name of a network device, so at most 15 characters
RESERVED = frozenset((INTERNET, "lan", "wan", "lo", "eth0"))
LEAST_MTU, MOST_MTU = 68, 65_535
LEAST_IPV6_MTU = 1280
"""RFC 8200 s5; Linux keeps IPv6 off lines with less."""


class DescriptionError(ValueError):
    """A laboratory that cannot be built; the text says why."""


class NATKind(Enum):
    """How a NAT maps and filters UDP (RFC 4787, sections 4.1 and 5)."""

    CONE = "cone"
    """Endpoint-independent mapping, address-and-port-dependent filtering."""
    FULL_CONE = "full-cone"
    """Endpoint-independent mapping and filtering."""
    SYMMETRIC = "symmetric"
    """Address-and-port-dependent mapping and filtering."""
    UDP_BLOCKING = "udp-blocking"
    """Lets no UDP pass; TCP goes out."""


@dataclass(frozen=True)
class Line:
    """The hop between a host or NAT and its router, alike in both directions.

    `loss` is a share of all packets (0 to 1). Each packet takes from `delay` to `delay` + `jitter` seconds,
    independently of the others, so that jitter reorders. `mtu` is in bytes; under 1280 the line carries no IPv6.
    Without `fragments` every IP fragment is lost. Raises DescriptionError.
    """

    loss: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    mtu: int = 1500
    fragments: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.loss <= 1:
            raise DescriptionError(f"a line cannot lose {self.loss:.1%}")
        if min(self.delay, self.jitter) < 0:
            raise DescriptionError("a line cannot be faster than at once")
        if not LEAST_MTU <= self.mtu <= MOST_MTU:
            raise DescriptionError(f"an MTU is from {LEAST_MTU} to {MOST_MTU} bytes, not {self.mtu}")

    @property
    def slow(self) -> bool:
        """Whether packets have to be held back."""
        return self.delay > 0 or self.jitter > 0


@dataclass(frozen=True)
class Host:
    """Where programs run: on the public network, or `behind` a NAT.

    Without a `line` it is plugged into the router's switch, and shares a link with the others there. With one it
    is a hop away from its router.
    """

    name: str
    behind: str | None = None
    line: Line | None = None
    device = "eth0"


@dataclass(frozen=True)
class NAT:
    """A router that translates IPv4; on the public network, or `behind` the NAT of a carrier.

    With `ipv6` the hosts behind it have public IPv6 addresses, and a stateful firewall before them.
    """

    name: str
    kind: NATKind
    behind: str | None = None
    ipv6: bool = False
    line: Line | None = None
    device = "wan"


Node = Host | NAT


@dataclass(frozen=True)
class Network:
    """The inside of a router. The lower half of its addresses is for the switch, the upper half for lines."""

    ipv4: IPv4Network
    ipv6: IPv6Network | None

    @property
    def gateway(self) -> IPv4Address:
        """The router itself."""
        return self.ipv4[1]

    def address(self, number: int, own_line: bool) -> IPv4Address:
        """That of the node with this number, 0 to 99."""
        return self.ipv4[number + (138 if own_line else 10)]

    def address6(self, number: int, own_line: bool) -> IPv6Address | None:
        """As `address`; None where the network has no IPv6."""
        return self.ipv6[(1 << 64 if own_line else 0) + 0x10 + number] if self.ipv6 else None


@dataclass(frozen=True)
class Place:
    """Where a node stands."""

    node: Node
    router: str
    gateway: IPv4Address
    address: IPv4Address
    address6: IPv6Address | None


class Plan:
    """Every node with its address, every router with the network inside it.

    Raises DescriptionError.
    """

    def __init__(self, nodes: Collection[Node]) -> None:
        self.nodes = {node.name: node for node in nodes}
        self._check(nodes)
        self.networks = {INTERNET: Network(IPv4Network("198.51.100.0/24"), IPv6Network("2001:db8::/48"))}
        for number, nat in enumerate(self.nats, 1):
            self.networks[nat.name] = self._inside(number, nat)
        self.places = {}
        for router in self.networks:
            for number, node in enumerate(self.children(router)):
                self.places[node.name] = self._place(number, node, router)

    @property
    def nats(self) -> list[NAT]:
        """In the order of the description."""
        return [node for node in self.nodes.values() if isinstance(node, NAT)]

    def nat(self, name: str) -> NAT:
        """The NAT of this name. Raises DescriptionError."""
        node = self.nodes.get(name)
        if not isinstance(node, NAT):
            raise DescriptionError(f"{name} is no NAT of this laboratory")
        return node

    def children(self, router: str) -> list[Node]:
        """What stands directly behind `router`."""
        return [node for node in self.nodes.values() if (node.behind or INTERNET) == router]

    def routers_above(self, name: str) -> list[str]:
        """From the node's own router to the internet."""
        above = [self.nodes[name].behind or INTERNET]
        while above[-1] != INTERNET:
            above.append(self.nodes[above[-1]].behind or INTERNET)
        return above

    def _check(self, given: Collection[Node]) -> None:
        if len(given) != len(self.nodes):
            raise DescriptionError("two nodes have the same name")
        for node in given:
            if not NAME.fullmatch(node.name) or node.name in RESERVED:
                raise DescriptionError(f"{node.name!r} cannot be a name")
            if node.behind and not isinstance(self.nodes.get(node.behind), NAT):
                raise DescriptionError(f"{node.name} is behind {node.behind}, which is no NAT of this laboratory")
            self._check_way_out(node)

    def _check_way_out(self, node: Node) -> None:
        passed = {node.name}
        behind = node.behind
        while behind:
            if behind in passed:
                raise DescriptionError(f"{node.name} is behind itself")
            passed.add(behind)
            behind = self.nodes[behind].behind if behind in self.nodes else None

    def _inside(self, number: int, nat: NAT) -> Network:
        """A carrier's customers have addresses of RFC 6598, others of RFC 1918."""
        carrier = any(isinstance(node, NAT) for node in self.children(nat.name))
        ipv4 = IPv4Network(f"100.64.{number}.0/24" if carrier else f"192.168.{number}.0/24")
        way = [nat, *(self.nodes[name] for name in self.routers_above(nat.name)[:-1])]
        routed = all(isinstance(hop, NAT) and hop.ipv6 and carries_ipv6(hop.line) for hop in way)
        return Network(ipv4, IPv6Network(f"2001:db8:{number:x}::/48") if routed else None)

    def _place(self, number: int, node: Node, router: str) -> Place:
        network = self.networks[router]
        own_line = node.line is not None
        address6 = network.address6(number, own_line) if carries_ipv6(node.line) else None
        return Place(node, router, network.gateway, network.address(number, own_line), address6)


def carries_ipv6(line: Line | None) -> bool:
    """Whether IPv6 fits on the line; it does on a switch."""
    return line is None or line.mtu >= LEAST_IPV6_MTU


def draw(plan: Plan) -> str:
    """The laboratory as a tree of text: names, kinds, addresses and lines."""
    internet = plan.networks[INTERNET]
    return "\n".join([f"{INTERNET}  {internet.ipv4}  {internet.ipv6}", *_branches(plan, INTERNET, "")])


def _branches(plan: Plan, router: str, indent: str) -> list[str]:
    lines = []
    children = plan.children(router)
    for node in children:
        last = node is children[-1]
        place = plan.places[node.name]
        facts = [str(place.address), str(place.address6 or "")]
        if isinstance(node, NAT):
            facts.append(f"{node.kind.value} NAT")
        if node.line:
            facts.append(_line_facts(node.line))
        label = f"{indent}{'└─ ' if last else '├─ '}{node.name}"
        lines.append(f"{label:24}  {facts[0]:15}  {facts[1]:18}  {', '.join(facts[2:])}".rstrip())
        lines += _branches(plan, node.name, indent + ("   " if last else "│  "))
    return lines


def _line_facts(line: Line) -> str:
    facts = []
    if line.loss:
        facts.append(f"{line.loss:.1%} loss")
    if line.slow:
        facts.append(f"{line.delay * 1000:.0f} to {(line.delay + line.jitter) * 1000:.0f} ms")
    if line.mtu != Line.mtu:
        facts.append(f"MTU {line.mtu}")
    if not line.fragments:
        facts.append("no fragments")
    return ", ".join(facts) or "own line"
