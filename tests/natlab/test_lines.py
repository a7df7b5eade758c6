"""Lines lose, delay, reorder and cut short as they are described."""

from __future__ import annotations

import errno
import socket
import time

from .case import LaboratoryTestCase, heard
from .description import NAT, DescriptionError, Host, Line, NATKind
from .laboratory import Laboratory

# Of the Linux headers; Python does not name them.
SO_RCVBUFFORCE = 33
IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PMTUDISC_DO, IP_MTU = 10, 0, 2, 14


class LineTests(LaboratoryTestCase):
    def line(self, line: Line) -> tuple[Laboratory, socket.socket, socket.socket]:
        """A host on that line, with a socket of it and one of a host that sits beside the router."""
        lab = self.laboratory(Host("p"), Host("a", line=line))
        near, far = self.udp(lab, "p"), self.udp(lab, "a")
        for end in (near, far):
            end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)  # what is lost is lost on the line
        return lab, near, far

    def received(self, lab: Laboratory, sender: socket.socket, receiver: socket.socket, packets: int) -> list[int]:
        """The numbers of those that arrive, in that order."""
        for number in range(packets):
            sender.sendto(str(number).encode(), receiver.getsockname())
        lab.set_loss("a", 0.0)
        sender.sendto(b"end", receiver.getsockname())
        return [int(packet) for packet in heard(receiver, b"end")]

    def test_loss_in_each_direction(self) -> None:
        """20 % of 2000, six standard deviations either way."""
        for outward in (True, False):
            lab, near, far = self.line(Line(loss=0.2))
            ends = (near, far) if outward else (far, near)
            arrived = len(self.received(lab, *ends, 2000))
            self.assertTrue(1490 < arrived < 1710, arrived)

    def test_loss_before_a_nat(self) -> None:
        """A line that loses all is cut, and can be mended."""
        lab = self.laboratory(Host("p"), NAT("nat", NATKind.CONE, line=Line()), Host("a", "nat"))
        inner, outer = self.udp(lab, "a"), self.udp(lab, "p")
        lab.set_loss("nat", 1.0)
        inner.sendto(b"lost", outer.getsockname())
        lab.set_loss("nat", 0.0)
        inner.sendto(b"kept", outer.getsockname())
        self.assertEqual(list(heard(outer, b"kept")), [])

    def test_loss_needs_a_line(self) -> None:
        lab = self.laboratory(Host("p"))
        with self.assertRaises(DescriptionError):
            lab.set_loss("p", 0.5)

    def test_delay_and_reordering(self) -> None:
        """No packet is earlier than the delay allows, and jitter lets one overtake another."""
        _, near, far = self.line(Line(delay=0.03, jitter=0.03))
        for sender, receiver in ((near, far), (far, near)):
            sent: dict[int, float] = {}
            order: list[int] = []
            for number in range(100):
                sent[number] = time.monotonic()
                sender.sendto(str(number).encode(), receiver.getsockname())
            while len(order) < 100:
                number = int(receiver.recv(1500))
                self.assertGreaterEqual(time.monotonic() - sent[number], 0.03)
                order.append(number)
            self.assertNotEqual(order, sorted(order))
            self.assertEqual(sorted(order), list(range(100)))

    def test_delay_alone_keeps_the_order(self) -> None:
        lab, near, far = self.line(Line(delay=0.02))
        self.assertEqual(self.received(lab, near, far, 100), list(range(100)))

    def test_a_small_mtu_says_too_big(self) -> None:
        """To who forbids fragments; a sender on the line itself knows at once."""
        for line in (Line(mtu=600), Line(mtu=600, delay=0.005)):
            _, near, far = self.line(line)
            near.connect(far.getsockname())
            far.connect(near.getsockname())
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            near.send(bytes(1000))
            for method, argument in ((near.recv, 1500), (far.send, bytes(1000))):
                caught = self.assertRaises(OSError, method, argument)
                self.assertEqual(caught.errno, errno.EMSGSIZE)
            self.assertEqual(near.getsockopt(socket.IPPROTO_IP, IP_MTU), 600)
            near.send(bytes(572))
            self.assertEqual(len(far.recv(1500)), 572)

    def test_fragments(self) -> None:
        """A packet above the MTU crosses in fragments, where the line lets these pass."""
        for passing in (True, False):
            _, near, far = self.line(Line(mtu=600, fragments=passing))
            for sender, receiver in ((near, far), (far, near)):
                sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
                sender.sendto(bytes(1000), receiver.getsockname())
                sender.sendto(b"end", receiver.getsockname())
                self.assertEqual(list(heard(receiver, b"end")), [bytes(1000)] if passing else [])

    def test_fragments_of_ipv6(self) -> None:
        """Which the sender makes, since routers may not."""
        for passing in (True, False):
            lab = self.laboratory(Host("p"), Host("a", line=Line(mtu=1300, fragments=passing)))
            near, far = self.udp(lab, "p", ipv6=True), self.udp(lab, "a", ipv6=True)
            far.sendto(bytes(2000), near.getsockname())
            far.sendto(b"end", near.getsockname())
            self.assertEqual(list(heard(near, b"end")), [bytes(2000)] if passing else [])

    def test_no_ipv6_on_a_line_that_is_too_small_for_it(self) -> None:
        lab = self.laboratory(Host("a", line=Line(mtu=1279)), Host("b", line=Line(mtu=1280)))
        self.assertTrue(lab.address6("b"))
        with self.assertRaises(LookupError):
            lab.address6("a")
