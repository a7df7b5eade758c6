"""How long messages take, and what is counted and hashed of them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from statistics import fmean, median

from twisted.trial.unittest import SynchronousTestCase

from p2psip.interfaces import Answer
from p2psip.links.memory import MemoryLink
from p2psip.node import Node
from p2psip.simulator.clock import HeapClock
from p2psip.simulator.network import FRAMING, Traffic, check_latency, latency
from p2psip.transport.messages import seal
from p2psip.wire.codes import MessageCode
from p2psip.wire.frame import AckFrame, DataFrame
from p2psip.wire.header import (
    ForwardingHeader,
    ForwardingOption,
    NodeDestination,
    UnknownForwardingOption,
    with_header,
)
from p2psip.wire.methods import PingReq

from .overlays import converged


class LatencyTests(SynchronousTestCase):
    def draw(self, text: str, count: int = 4000) -> list[float]:
        take = latency(text, Random(1))
        return [take("here", "there") for _ in range(count)]

    def test_constant(self) -> None:
        self.assertEqual(set(self.draw("50ms", 10)), {0.05})
        self.assertEqual(set(self.draw("1s", 10)), {1.0})

    def test_uniform(self) -> None:
        drawn = self.draw("uniform:10ms:90ms")
        self.assertTrue(0.01 <= min(drawn) < 0.011 and 0.089 < max(drawn) <= 0.09)
        self.assertApproximates(fmean(drawn), 0.05, 0.002)

    def test_normal(self) -> None:
        """Never less than nothing."""
        drawn = self.draw("normal:50ms:10ms")
        self.assertApproximates(fmean(drawn), 0.05, 0.001)
        self.assertApproximates(sum(value < 0.04 for value in drawn) / len(drawn), 0.16, 0.02)
        drawn = self.draw("normal:10ms:50ms")
        self.assertEqual(min(drawn), 0)

    def test_lognormal(self) -> None:
        """Its numbers are the median and the standard deviation of the logarithm."""
        drawn = self.draw("lognormal:50ms:0.5")
        self.assertApproximates(median(drawn), 0.05, 0.002)
        self.assertApproximates(sum(value > 0.05 * 2.71828**0.5 for value in drawn) / len(drawn), 0.16, 0.02)

    def test_the_same_of_the_same_seed(self) -> None:
        for text in ("uniform:10ms:90ms", "normal:50ms:10ms", "lognormal:50ms:0.5"):
            self.assertEqual(self.draw(text, 20), self.draw(text, 20))
            self.assertEqual(len(set(self.draw(text, 20))), 20)

    def test_nonsense(self) -> None:
        for text in (
            *("", "5x", "-5ms", "50ms:", "uniform", "uniform:10ms", "uniform:10ms:20ms:30ms", "uniform:90ms:10ms"),
            *("normal:x:10ms", "lognormal:50ms:x", "pareto:1:2"),
        ):
            self.assertRaises(ValueError, latency, text, Random(1))
            error = self.assertRaises(ValueError, check_latency, text)
            self.assertIn("50ms", str(error))
        check_latency("uniform:10ms:90ms")


class HashTests(SynchronousTestCase):
    """What `trace_hash` covers: each message, its receiver and its time."""

    def setUp(self) -> None:
        overlay = converged(3)
        node = next(iter(overlay.nodes.values()))
        self.first, self.second = (self.link(node, number) for number in range(2))
        self.message = message(node, MessageCode.PING_REQ)

    def link(self, node: Node, number: int) -> MemoryLink:
        link = node.table.links()[number]
        assert isinstance(link, MemoryLink)
        return link

    def traced(self, *sent: tuple[float, MemoryLink, bytes]) -> str:
        clock = HeapClock()
        traffic = Traffic(clock)
        for when, link, data in sent:
            clock.run(when - clock.seconds())
            traffic(link, data)
        return traffic.trace_hash

    def test_the_same(self) -> None:
        sent = ((1.0, self.first, self.message), (2.0, self.second, self.message))
        self.assertEqual(self.traced(*sent), self.traced(*sent))

    def test_what_makes_a_difference(self) -> None:
        base = (1.0, self.first, self.message)
        other = self.message[:-1] + bytes([self.message[-1] ^ 1])
        found = {
            self.traced(),
            self.traced(base),
            self.traced(base, base),
            self.traced((1.0, self.first, other)),
            self.traced((1.001, self.first, self.message)),
            self.traced((1.0, self.second, self.message)),
        }
        self.assertEqual(len(found), 6)

    def test_restart(self) -> None:
        """The hash is of all that was sent from the beginning of time."""
        traffic = Traffic(HeapClock())
        traffic(self.first, self.message)
        before = traffic.trace_hash
        traffic.restart()
        self.assertEqual(traffic.trace_hash, before)
        self.assertEqual((traffic.maintenance_messages, traffic.maintenance_bytes), (0, 0))
        self.assertEqual((traffic.by_method(), traffic.per_node), ({}, {}))


class TrafficTests(SynchronousTestCase):
    """Three nodes in which nothing happens but what a test has them do."""

    def setUp(self) -> None:
        self.overlay = converged(3)
        self.here, self.there, _ = self.overlay.nodes.values()
        self.traffic = self.overlay.traffic
        self.sizes: list[int] = []
        self.overlay.network.observe = self.observe

    def observe(self, link: MemoryLink, data: bytes) -> None:
        self.sizes.append(len(data) + FRAMING)
        self.traffic(link, data)

    def ping(self, seconds: float = 5) -> None:
        destination = [NodeDestination(node_id=self.there.node_id)]
        (answer,) = self.overlay.result(self.here.overlay.request(destination, PingReq()), seconds)
        self.assertIsInstance(answer, Answer)

    def workload_ping(self) -> None:
        destination = [NodeDestination(node_id=self.there.node_id)]
        with self.traffic.workload():
            asked = self.here.overlay.request(destination, PingReq())
        self.overlay.result(asked, 20)

    def test_framing(self) -> None:
        data = DataFrame(sequence=1, message=b"message").encode()
        self.assertEqual(FRAMING, len(data) - len(b"message") + len(AckFrame(ack_sequence=1, received=0).encode()))

    def test_maintenance(self) -> None:
        """A request and its answer, with their framing; each counts for the node that sent it."""
        self.ping()
        self.assertEqual((self.traffic.maintenance_messages, self.traffic.maintenance_bytes), (2, sum(self.sizes)))
        self.assertEqual((self.traffic.workload_messages, self.traffic.workload_bytes), (0, 0))
        addresses = [self.overlay.address(node) for node in (self.here, self.there)]
        self.assertEqual(self.traffic.per_node, dict(zip(addresses, self.sizes, strict=True)))

    def test_workload(self) -> None:
        """Its requests and their answers, though these are sent later."""
        self.workload_ping()
        self.assertEqual((self.traffic.workload_messages, self.traffic.workload_bytes), (2, sum(self.sizes)))
        self.assertEqual((self.traffic.maintenance_messages, self.traffic.maintenance_bytes), (0, 0))
        self.assertEqual((self.traffic.by_method(), self.traffic.per_node), ({}, {}))

    def test_retransmissions(self) -> None:
        self.overlay.network.loss = 1.0
        self.overlay.clock.callLater(4, setattr, self.overlay.network, "loss", 0.0)
        self.workload_ping()
        self.assertEqual(self.traffic.workload_messages, 4)  # at 0, 3 and 6 s, and the answer
        self.assertEqual(self.traffic.maintenance_messages, 0)

    def test_one_beside_the_other(self) -> None:
        """What is asked outside is maintenance, whatever is under way."""
        destination = [NodeDestination(node_id=self.there.node_id)]
        with self.traffic.workload():
            asked = self.here.overlay.request(destination, PingReq())
        self.ping()
        self.assertEqual(len(self.overlay.result(asked, 20)), 1)
        self.assertEqual((self.traffic.workload_messages, self.traffic.maintenance_messages), (2, 2))

    def test_after_an_error(self) -> None:
        with self.assertRaises(ZeroDivisionError), self.traffic.workload():
            1 // 0
        self.ping()
        self.assertEqual((self.traffic.workload_messages, self.traffic.maintenance_messages), (0, 2))

    def test_restart(self) -> None:
        """What was begun before it stays workload."""
        destination = [NodeDestination(node_id=self.there.node_id)]
        with self.traffic.workload():
            asked = self.here.overlay.request(destination, PingReq())
        self.traffic.restart()
        self.overlay.result(asked, 20)
        self.assertEqual((self.traffic.workload_messages, self.traffic.maintenance_messages), (1, 0))

    def test_by_method(self) -> None:
        """An answer counts with its request; an error stands for itself, since it does not say to what."""
        self.ping()
        link = self.here.table.links()[0]
        assert isinstance(link, MemoryLink)
        for code in (MessageCode.ATTACH_REQ, MessageCode.ROUTE_QUERY_ANS, MessageCode.ERROR, MessageCode.ERROR):
            self.observe(link, message(self.here, code))
        ping, attach, query, error = sum(self.sizes[:2]), self.sizes[2], self.sizes[3], sum(self.sizes[4:])
        self.assertEqual(
            self.traffic.by_method(),
            {
                "attach": {"messages": 1, "bytes": attach},
                "route_query": {"messages": 1, "bytes": query},
                "ping": {"messages": 2, "bytes": ping},
                "error": {"messages": 2, "bytes": error},
            },
        )

    def test_long_lists(self) -> None:
        """The method is found wherever the header ends."""
        link = self.here.table.links()[0]
        assert isinstance(link, MemoryLink)
        option = UnknownForwardingOption(type=200, option=b"option")
        self.observe(link, message(self.here, MessageCode.LEAVE_REQ, via=3))
        self.observe(link, message(self.here, MessageCode.JOIN_REQ, destinations=40))
        self.observe(link, message(self.here, MessageCode.STORE_REQ, via=2, options=(option, option)))
        self.assertEqual(set(self.traffic.by_method()), {"leave", "join", "store"})


def message(
    node: Node, code: int, via: int = 0, destinations: int = 1, options: Sequence[ForwardingOption] = ()
) -> bytes:
    """A whole message of `node` with that code, and with lists of such lengths."""
    overlay, somewhere = node.configuration.overlay_hash, NodeDestination(node_id=node.node_id)
    header = ForwardingHeader(
        overlay=overlay,
        configuration_sequence=1,
        transaction_id=7,
        via_list=(somewhere,) * via,
        destination_list=(somewhere,) * destinations,
        options=tuple(options),
    )
    return with_header(header, seal(overlay, 7, code, b"body", node.signer))
