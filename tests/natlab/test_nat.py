"""Each kind of NAT behaves as it is named (RFC 4787)."""

from __future__ import annotations

import socket

from .case import LaboratoryTestCase, heard, mapping
from .description import NAT, Host, NATKind
from .laboratory import Laboratory
from .rules import port_range


class NATTestCase(LaboratoryTestCase):
    """One host behind a NAT, and two on the public network."""

    def behind(self, kind: NATKind) -> Laboratory:
        return self.laboratory(Host("p"), Host("q"), NAT("nat", kind), Host("a", "nat"))

    def outer_sockets(self, lab: Laboratory) -> list[socket.socket]:
        """Of two addresses, one of them with two ports."""
        return [self.udp(lab, "p"), self.udp(lab, "p"), self.udp(lab, "q")]


class MappingTests(NATTestCase):
    def test_a_cone_has_one_mapping_for_all_destinations(self) -> None:
        for kind in (NATKind.CONE, NATKind.FULL_CONE):
            lab = self.behind(kind)
            inner = self.udp(lab, "a")
            (address, port), *more = {mapping(inner, outer) for outer in self.outer_sockets(lab)}
            self.assertEqual((address, more), (lab.address("nat"), []))
            self.assertIn(port, port_range(0))

    def test_a_symmetric_nat_has_a_mapping_for_each_destination(self) -> None:
        """For another port of the same address as well."""
        lab = self.behind(NATKind.SYMMETRIC)
        inner = self.udp(lab, "a")
        seen = {mapping(inner, outer) for outer in self.outer_sockets(lab)}
        self.assertEqual(len(seen), 3)
        self.assertEqual({address for address, _ in seen}, {lab.address("nat")})

    def test_hosts_do_not_share_a_mapping(self) -> None:
        """Even when they use the same port."""
        lab = self.laboratory(Host("p"), NAT("nat", NATKind.CONE), Host("a", "nat"), Host("b", "nat"))
        outer = self.udp(lab, "p")
        self.assertNotEqual(mapping(self.udp(lab, "a", 5000), outer), mapping(self.udp(lab, "b", 5000), outer))

    def test_nested(self) -> None:
        """What is seen is the carrier's mapping, and the outermost kind decides."""
        for kind, ports in ((NATKind.CONE, 1), (NATKind.SYMMETRIC, 3)):
            lab = self.laboratory(
                Host("p"), Host("q"), NAT("isp", kind), NAT("nat", NATKind.CONE, behind="isp"), Host("a", "nat")
            )
            inner = self.udp(lab, "a")
            seen = {mapping(inner, outer) for outer in self.outer_sockets(lab)}
            self.assertEqual(len(seen), ports)
            self.assertEqual({address for address, _ in seen}, {lab.address("isp")})
            self.assertTrue(lab.address("nat").startswith("100.64."))

    def test_rebind_changes_the_mapping(self) -> None:
        """Answers to the mapping before are lost, those to the new one arrive."""
        for kind in (NATKind.CONE, NATKind.FULL_CONE, NATKind.SYMMETRIC):
            lab = self.behind(kind)
            inner, outer = self.udp(lab, "a"), self.udp(lab, "p")
            before = mapping(inner, outer)
            lab.rebind("nat")
            outer.sendto(b"lost", before)
            after = mapping(inner, outer)
            self.assertIn(after[1], port_range(1))
            outer.sendto(b"lost", before)
            outer.sendto(b"kept", after)
            self.assertEqual(list(heard(inner, b"kept")), [])


class FilteringTests(NATTestCase):
    def test_who_was_not_asked_is_not_heard(self) -> None:
        """Nor from another port of the host that was asked."""
        for kind in (NATKind.CONE, NATKind.SYMMETRIC):
            lab = self.behind(kind)
            inner = self.udp(lab, "a")
            asked, *strangers = self.outer_sockets(lab)
            seen = mapping(inner, asked)
            for stranger in strangers:
                stranger.sendto(b"unsolicited", seen)
            asked.sendto(b"answer", seen)
            self.assertEqual(list(heard(inner, b"answer")), [])

    def test_a_full_cone_lets_anybody_in(self) -> None:
        """As soon as there is a mapping; and the answer leaves from it."""
        lab = self.behind(NATKind.FULL_CONE)
        inner = self.udp(lab, "a")
        asked, *strangers = self.outer_sockets(lab)
        seen = mapping(inner, asked)
        for stranger in strangers:
            stranger.sendto(b"hello", seen)
            packet, source = inner.recvfrom(1500)
            self.assertEqual((packet, source), (b"hello", stranger.getsockname()))
            self.assertEqual(mapping(inner, stranger), seen)

    def test_a_full_cone_has_no_mapping_that_nobody_made(self) -> None:
        lab = self.behind(NATKind.FULL_CONE)
        inner, outer = self.udp(lab, "a", 20_500), self.udp(lab, "p")
        outer.sendto(b"unsolicited", (lab.address("nat"), 20_500))
        outer.sendto(b"answer", mapping(inner, outer))
        self.assertEqual(list(heard(inner, b"answer")), [])

    def test_udp_blocking(self) -> None:
        """No UDP passes, TCP does."""
        lab = self.behind(NATKind.UDP_BLOCKING)
        inner, outer = self.udp(lab, "a"), self.udp(lab, "p")
        listener = lab.socket("p", kind=socket.SOCK_STREAM)
        self.addCleanup(listener.close)
        listener.bind(outer.getsockname())
        listener.listen()
        inner.sendto(b"lost", outer.getsockname())
        client = lab.socket("a", kind=socket.SOCK_STREAM)
        self.addCleanup(client.close)
        client.settimeout(outer.gettimeout())
        client.connect(outer.getsockname())
        accepted, (address, _) = listener.accept()
        accepted.close()
        self.assertEqual(address, lab.address("nat"))
        self.udp(lab, "q").sendto(b"direct", outer.getsockname())
        self.assertEqual(list(heard(outer, b"direct")), [])


class HolePunchingTests(LaboratoryTestCase):
    """Two NATs whose hosts know each other's mapping towards a third, and send to it at the same time."""

    def meet(self, a: NATKind, b: NATKind) -> list[bytes]:
        """What A has heard of B when it hears from the third."""
        lab = self.laboratory(
            Host("p"), NAT("nat-a", a), Host("a", "nat-a"), NAT("nat-b", b), Host("b", "nat-b")
        )
        at_a, at_b, third = self.udp(lab, "a"), self.udp(lab, "b"), self.udp(lab, "p")
        of_a, of_b = mapping(at_a, third), mapping(at_b, third)
        at_a.sendto(b"from A, too early", of_b)
        at_b.sendto(b"from B", of_a)
        third.sendto(b"end", of_a)
        return list(heard(at_a, b"end"))

    def test_two_cones_meet(self) -> None:
        """The first probe, which is dropped, leaves no trace that would be in the way."""
        self.assertEqual(self.meet(NATKind.CONE, NATKind.CONE), [b"from B"])

    def test_a_cone_and_a_symmetric_nat_do_not(self) -> None:
        self.assertEqual(self.meet(NATKind.CONE, NATKind.SYMMETRIC), [])


class IPv6Tests(LaboratoryTestCase):
    def test_beside_a_nat(self) -> None:
        """Seen with its own address; from outside only answers come in."""
        nat = NAT("nat", NATKind.CONE, behind="isp", ipv6=True)
        lab = self.laboratory(
            Host("p"), Host("q"), NAT("isp", NATKind.CONE, ipv6=True), nat, Host("a", "nat"), Host("b", "isp")
        )
        inner, outer = self.udp(lab, "a", ipv6=True), self.udp(lab, "p", ipv6=True)
        self.udp(lab, "q", ipv6=True).sendto(b"unsolicited", inner.getsockname())
        self.assertEqual(mapping(inner, outer), inner.getsockname()[:2])
        self.udp(lab, "q", ipv6=True).sendto(b"unsolicited", inner.getsockname())
        outer.sendto(b"answer", inner.getsockname())
        self.assertEqual(list(heard(inner, b"answer")), [])

    def test_none_behind_an_old_nat(self) -> None:
        """Public hosts have it all the same."""
        lab = self.laboratory(Host("p"), Host("q"), NAT("nat", NATKind.CONE), Host("a", "nat"))
        with self.assertRaises(LookupError):
            lab.address6("a")
        with lab.socket("a", socket.AF_INET6) as inner, self.assertRaises(OSError):
            inner.connect((lab.address6("p"), 5000))
        self.assertEqual(
            mapping(self.udp(lab, "p", ipv6=True), self.udp(lab, "q", ipv6=True))[0], lab.address6("p")
        )
