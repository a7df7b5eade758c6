"""DTLS links over paths that take so much and no more: probes, and what becomes of messages that do not pass."""

from __future__ import annotations

import socket
import sys
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.config.document import Configuration
from p2psip.errors import LinkError
from p2psip.ids import NodeId
from p2psip.interfaces import ILink, IPathProbe
from p2psip.links.datagram_link import FRAME_OVERHEAD, LEAST_MESSAGE, LEAST_PROBE_TIME, DTLSLink
from p2psip.links.dtls import HANDSHAKE_MTU, RECORD_OVERHEAD
from p2psip.links.udp import prepare, unfragmented
from p2psip.security.trust import Trust
from p2psip.testing import World
from p2psip.transport.path_mtu import OVERHEAD
from p2psip.wire.header import ForwardingHeader, NodeDestination, with_header

from .datagrams import IP_AND_UDP, DatagramNetwork
from .hosts import Host, RecordingOwner, Signer

DONT, PROBE = 0, 3
A, B = (NodeId(letter * 16) for letter in (b"A", b"B"))
CONFIGURATION = Configuration(instance_name="example.org", no_ice=True, max_message_size=5000)
WHOLE = IP_AND_UDP + RECORD_OVERHEAD + FRAME_OVERHEAD
"""Bytes of an IP packet that carries a message, beside it."""


def message(size: int) -> bytes:
    header = ForwardingHeader(
        overlay=1, configuration_sequence=1, ttl=9, transaction_id=7, destination_list=(NodeDestination(node_id=B),)
    )
    bare = with_header(header, b"")
    return with_header(header, b"\0\x17" + bytes(size - len(bare) - 2))


class LinkTestCase(SynchronousTestCase):
    """Node A has a link to B; the path takes packets of `path` bytes."""

    def setUp(self) -> None:
        self.world = World()
        self.clock: Clock = self.world.clock
        self.network = DatagramNetwork(self.clock)
        self.path = 1500
        self.network.mtu = lambda here, there: self.path
        self.largest = 0
        carry = self.network.carry

        def watched(here: Any, there: Any, datagram: bytes) -> None:
            self.largest = max(self.largest, len(datagram))
            carry(here, there, datagram)

        self.network.carry = watched  # type: ignore[method-assign]
        self.nodes = [self.node(A, "10.0.0.1"), self.node(B, "10.0.0.2")]
        self.link: Any = self.world.result(self.nodes[0].connect_to_bootstrap("10.0.0.2", 6084))
        self.world.until(lambda: self.owner(1).links)

    def tearDown(self) -> None:
        for node in self.nodes:
            self.world.result(node.stop())

    def node(self, node_id: NodeId, address: str) -> Any:
        made = self.world.credentials("node@example.org", node_id)
        trust = Trust("example.org", [self.world.authority.certificate], (), 16, self.clock.seconds)
        host = Host(
            Signer(made.signer.identity, node_id), self.clock, made.key, trust, configuration=CONFIGURATION
        )
        links = self.network.build(host, None, [address], 6084)
        self.world.result(links.listen())
        return links

    def owner(self, number: int) -> RecordingOwner:
        owner: RecordingOwner = self.nodes[number].host.owner
        return owner


class ProbeTests(LinkTestCase):
    def test_interfaces(self) -> None:
        self.assertIsInstance(self.link, DTLSLink)
        self.assertTrue(verifyObject(ILink, self.link))
        self.assertTrue(verifyObject(IPathProbe, self.link))
        self.assertEqual(OVERHEAD, RECORD_OVERHEAD + FRAME_OVERHEAD)

    def test_handshake(self) -> None:
        """Nothing is known of the path yet: no datagram is larger than every path takes."""
        self.assertLessEqual(self.largest, HANDSHAKE_MTU)
        self.assertEqual(self.link.mtu, LEAST_MESSAGE)

    def test_passes(self) -> None:
        """It goes in one datagram, is a message like any other at the other end, and more go whole from then on."""
        self.assertTrue(self.world.result(self.link.probe(message(1200))))
        self.assertEqual(self.largest, 1200 + RECORD_OVERHEAD + FRAME_OVERHEAD)
        self.assertEqual(self.owner(1).messages, [message(1200)])
        self.assertEqual(self.link.mtu, 1200)
        self.assertEqual(self.owner(1).links[0].mtu, LEAST_MESSAGE)  # type: ignore[attr-defined]
        self.link.send(message(1199))
        self.world.run(1)
        self.assertEqual(self.owner(1).messages[1:], [message(1199)])

    def test_does_not_pass(self) -> None:
        """Known after a second; it is not sent again, and the link is as it was."""
        self.path = 1200 + WHOLE - 1
        began = self.clock.seconds()
        self.assertFalse(self.world.result(self.link.probe(message(1200))))
        self.assertEqual(self.clock.seconds() - began, LEAST_PROBE_TIME)
        self.world.run(60)
        self.assertEqual(self.network.too_large, {1200 + WHOLE: 1})
        self.assertEqual(self.link.mtu, LEAST_MESSAGE)
        self.assertEqual(self.owner(0).events, [("opened", B)])

    def test_exactly(self) -> None:
        self.path = 1200 + WHOLE
        self.assertTrue(self.world.result(self.link.probe(message(1200))))

    def test_one_at_a_time(self) -> None:
        self.path = 600
        first = self.link.probe(message(1200))
        self.failureResultOf(self.link.probe(message(1200)), LinkError)
        self.assertFalse(self.world.result(first))
        self.assertFalse(self.world.result(self.link.probe(message(1200))))
        self.assertEqual(self.network.too_large.total(), 2)

    def test_larger_than_any_message(self) -> None:
        """The other end would have to close the link."""
        self.failureResultOf(self.link.probe(bytes(5001)), LinkError)
        self.assertEqual(self.owner(1).messages, [])

    def test_failing(self) -> None:
        """A link that fails is not probed; when it works again it is."""
        self.path = 0
        self.link.send(message(300))
        self.world.until(lambda: ("failing", B) in self.owner(0).events)
        self.failureResultOf(self.link.probe(message(1200)), LinkError)
        self.path = 1500
        self.world.until(lambda: ("recovered", B) in self.owner(0).events)
        self.assertTrue(self.world.result(self.link.probe(message(1200))))

    def test_ended_meanwhile(self) -> None:
        self.path = 600
        probe = self.link.probe(message(1200))
        self.link.close()
        self.world.run(0.1)
        self.failureResultOf(probe, LinkError)
        self.failureResultOf(self.link.probe(message(1200)), LinkError)


class BlackHoleTests(LinkTestCase):
    """The path took 1200 bytes when it was asked."""

    def setUp(self) -> None:
        super().setUp()
        self.assertTrue(self.world.result(self.link.probe(message(1200))))
        self.owner(1).messages.clear()
        self.shrunk: list[int] = []
        self.link.path_shrunk = lambda: self.shrunk.append(self.link.mtu)

    def test_smaller_path(self) -> None:
        """What was sent whole comes in fragments; whoever probes is told, and the link has not failed.

        [6940-6.7-1, 6940-6.7-2]
        """
        self.path = 600
        self.link.send(message(1100))
        self.world.until(lambda: self.shrunk)
        self.assertEqual(self.network.too_large, {1100 + WHOLE: 2})
        self.world.run(5)
        pieces = self.owner(1).messages
        self.assertGreaterEqual(len(pieces), 3)
        self.assertLessEqual(max(map(len, pieces)), LEAST_MESSAGE)
        self.assertEqual(self.shrunk, [LEAST_MESSAGE])
        self.assertEqual(self.owner(0).events, [("opened", B)])
        self.assertEqual(self.network.too_large.total(), 2)

    def test_no_path_at_all(self) -> None:
        """What was cut in vain is given back whole, for another way."""
        self.path = 0
        self.link.send(message(1100))
        self.world.until(lambda: self.owner(0).undelivered)
        self.assertEqual(self.owner(0).undelivered, [("failing", [message(1100)])])

    def test_losses(self) -> None:
        """Of many large messages some are lost by chance; others arrive, and the path keeps its size."""
        self.network.loss = 0.05
        for number in range(40):
            self.link.send(message(1000 + number))
        self.world.run(20)
        self.network.loss = 0.0
        self.assertEqual(len(set(self.owner(1).messages)), 40)
        self.assertEqual((self.shrunk, self.link.mtu), ([], 1200))


class UnfragmentedTests(SynchronousTestCase):
    """The DF bit of IPv4 on Linux (ip(7), ipv6(7))."""

    if sys.platform != "linux":
        skip = "other systems have other options"

    def test_for_the_time_being(self) -> None:
        """It is set for a probe alone: else an ICMP message would be an error of whatever is read or sent next."""
        for family, option in ((socket.AF_INET, (socket.IPPROTO_IP, 10)), (socket.AF_INET6, (socket.IPPROTO_IPV6, 23))):
            with socket.socket(family, socket.SOCK_DGRAM) as handle:
                prepare(handle)
                self.assertEqual(handle.getsockopt(*option), DONT)
                with unfragmented(handle):
                    self.assertEqual(handle.getsockopt(*option), PROBE)
                self.assertEqual(handle.getsockopt(*option), DONT)

    def test_error_of_a_probe(self) -> None:
        """What the system noted meanwhile is not told of the next datagram."""
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone,
        ):
            gone.bind(("127.0.0.1", 0))
            prepare(handle)
            handle.connect(gone.getsockname())
            gone.close()
            with unfragmented(handle):
                handle.send(b"probe")  # ICMP answers at once: nobody is there
            handle.setblocking(False)
            self.assertRaises(BlockingIOError, handle.recv, 1)

    def test_no_socket(self) -> None:
        """A relay's, one of another family, or one that is closed: there is nothing to set."""
        done = []
        with unfragmented(None):
            done.append(None)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as handle, unfragmented(handle):
            done.append(handle)
        with unfragmented(handle):
            done.append(handle)
        self.assertEqual(len(done), 3)
