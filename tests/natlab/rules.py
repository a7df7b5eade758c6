"""The nftables tables of a namespace, as text for ``nft -f -``. No input or output."""

from __future__ import annotations

from collections.abc import Mapping

from .description import Line, NATKind

PORTS = 10_000
"""How many ports a NAT has for its mappings at a time."""

BEFORE_DEFRAGMENTATION = -450


def line_table(lines: Mapping[str, Line]) -> str:
    """Loss on the lines that end in the namespace, by device.

    At the end where a packet comes in: on the way out it would be an error of the sender's socket.
    """
    rules = [rule for device, line in lines.items() for rule in _line_rules(f'iifname "{device}"', line)]
    hook = f"type filter hook prerouting priority {BEFORE_DEFRAGMENTATION}"
    return _table("natlab_lines", _chain("arriving", hook, rules))


def nat_table(kind: NATKind, generation: int) -> str:
    """What makes a NAT of a router; its mappings are in the range of ports of this `generation`."""
    return _table("natlab_nat", _nat_chains(kind, generation) + _filter_chains(kind))


def port_range(generation: int) -> range:
    """Where the mappings of a NAT are: another range after each change of its mappings, four in turn."""
    first = 20_000 + generation % 4 * PORTS
    return range(first, first + PORTS)


def _line_rules(arriving: str, line: Line) -> list[str]:
    rules = []
    if not line.fragments:
        rules += [f"{arriving} ip frag-off & 0x3fff != 0 drop", f"{arriving} exthdr frag exists drop"]
    if line.loss:
        # Who never finds its neighbor has another trouble than a lossy line.
        rules.append(f"{arriving} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept")
        share = round(line.loss * 1000)
        rules.append(f"{arriving} numgen random mod 1000 < {share} drop" if share < 1000 else f"{arriving} drop")
    return rules


def _nat_chains(kind: NATKind, generation: int) -> str:
    ports = port_range(generation)
    # Without a flag Linux gives a flow the port that its source has already: endpoint-independent mapping.
    flags = "random,fully-random" if kind is NATKind.SYMMETRIC else ""
    out = 'oifname "wan" meta nfproto ipv4'
    chains = _chain(
        "masquerading",
        "type nat hook postrouting priority srcnat",
        [f"{out} meta l4proto {{ tcp, udp }} masquerade to :{ports[0]}-{ports[-1]} {flags}", f"{out} masquerade"],
    )
    if kind is not NATKind.FULL_CONE:
        return chains
    # What a mapping is can be seen in a packet that has passed the masquerading.
    return (
        "map mappings {\n  type inet_service : ipv4_addr . inet_service\n  flags dynamic,timeout\n  timeout 5m\n}\n"
        + chains
        + _chain(
            "learning",
            "type filter hook postrouting priority srcnat + 10",
            [
                f"{out} meta l4proto udp ct direction original "
                "update @mappings { udp sport : ct original ip saddr . ct original proto-src }"
            ],
        )
        + _chain(
            "forwarding_in",
            "type nat hook prerouting priority dstnat",
            ['iifname "wan" meta nfproto ipv4 dnat ip to udp dport map @mappings'],
        )
    )


def _filter_chains(kind: NATKind) -> str:
    unsolicited = 'iifname "wan" ct state new drop'
    before = {NATKind.FULL_CONE: ["ct status dnat accept"], NATKind.UDP_BLOCKING: ["meta l4proto udp drop"]}
    forward = [*before.get(kind, []), unsolicited]
    # An early probe from outside that reached the NAT itself would be remembered as a flow, and take the port from
    # the mapping that the inner host opens next: two cones would not meet.
    return _chain("input", "type filter hook input priority filter", [unsolicited]) + _chain(
        "forward", "type filter hook forward priority filter", forward
    )


def _table(name: str, content: str) -> str:
    """In place of the table before, in a single transaction."""
    return f"table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n{content}}}\n"


def _chain(name: str, hook: str, rules: list[str]) -> str:
    return f"chain {name} {{\n  {hook};\n" + "".join(f"  {rule}\n" for rule in rules) + "}\n"
