"""Descriptions are checked, and every part gets its address; nothing is built."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from .description import NAT, DescriptionError, Host, Line, NATKind, Node, Plan, draw
from .scenarios import Home, ThreePeers

CONE = NATKind.CONE


class PlanTests(SynchronousTestCase):
    def test_what_cannot_be_built(self) -> None:
        faults: dict[str, list[Node]] = {
            "same name": [Host("a"), NAT("a", CONE)],
            "'Anna' cannot be a name": [Host("Anna")],
            "'a-name-of-16-chr' cannot be a name": [Host("a-name-of-16-chr")],
            "'lan' cannot be a name": [Host("lan")],
            "behind nobody, which is no NAT": [Host("a", "nobody")],
            "behind b, which is no NAT": [Host("b"), Host("a", "b")],
            "x is behind itself": [NAT("x", CONE, "y"), NAT("y", CONE, "x")],
        }
        for text, nodes in faults.items():
            with self.assertRaises(DescriptionError) as caught:
                Plan(nodes)
            self.assertIn(text, str(caught.exception))

    def test_lines_that_cannot_be(self) -> None:
        for figures in ({"loss": 1.1}, {"loss": -0.1}, {"delay": -1.0}, {"jitter": -1.0}, {"mtu": 67}, {"mtu": 65_536}):
            with self.assertRaises(DescriptionError):
                Line(**figures)

    def test_addresses_differ(self) -> None:
        """Of all nodes, wherever they stand, and of all routers on their inner side."""
        peers = ThreePeers(Home("a", CONE, CONE, ipv6=True), Home("b", CONE, ipv6=True, line=Line()), turn=True)
        plan = Plan(peers.nodes())
        places = plan.places.values()
        addresses = [place.address for place in places] + [network.gateway for network in plan.networks.values()]
        addresses6 = {place.address6 for place in places if place.address6}
        self.assertEqual(len(set(addresses)), len(addresses))
        self.assertEqual(len(addresses6), len(places))

    def test_ipv6_needs_every_router_on_the_way(self) -> None:
        """And on every line."""
        for isp in (NAT("isp", CONE), NAT("isp", CONE, ipv6=True, line=Line(mtu=1000))):
            plan = Plan([isp, NAT("nat", CONE, "isp", ipv6=True), Host("a", "nat")])
            self.assertIsNone(plan.places["a"].address6)

    def test_drawing(self) -> None:
        peers = ThreePeers(Home("a", NATKind.SYMMETRIC, CONE), Home("b", None, line=Line(0.2, 0.04, 0.03, 600, False)))
        self.assertEqual(
            draw(Plan(peers.nodes())).splitlines(),
            [
                "internet  198.51.100.0/24  2001:db8::/48",
                "├─ p                      198.51.100.10    2001:db8::10",
                "├─ isp-a                  198.51.100.11    2001:db8::11        cone NAT",
                "│  └─ nat-a               100.64.1.10                          symmetric NAT",
                "│     └─ a                192.168.2.10",
                "└─ b                      198.51.100.140"
                "                       20.0% loss, 40 to 70 ms, MTU 600, no fragments",
            ],
        )
