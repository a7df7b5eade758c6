"""Ping, Probe, and doubts whether a neighbor is alive."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from p2psip.ids import NodeId
from p2psip.interfaces import Request
from p2psip.transport.liveness import Doubts, Liveness
from p2psip.wire.codec import Struct
from p2psip.wire.header import Destination, NodeDestination
from p2psip.wire.methods import (
    NumResources,
    PingReq,
    ProbeAns,
    ProbeReq,
    ResponsibleSet,
    Uptime,
)

NODES = [NodeId(bytes([number]) * 16) for number in range(5)]


class LivenessTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.liveness = Liveness(Random(1), lambda: 1_800_000_000.25, lambda: 7.9, lambda: 5, lambda: 3)

    def request(self, body: Struct) -> Request:
        return Request(body, cast(Any, None), NODES[0], 1)

    def test_ping(self) -> None:
        """The time in milliseconds, and a new response_id for each answer."""
        first, second = (self.liveness.answer_ping(self.request(PingReq())) for _ in range(2))
        self.assertEqual(first.time, 1_800_000_000_250)
        self.assertNotEqual(first.response_id, second.response_id)

    def test_probe(self) -> None:
        """What was asked for and is known, in the order asked; nothing else. [6940-6.4.2.5.2-3]"""
        answer = self.liveness.answer_probe(self.request(ProbeReq(requested_info=(2, 99, 3, 1))))
        facts = NumResources(num_resources=3), Uptime(uptime=7), ResponsibleSet(responsible_ppb=5)
        self.assertEqual(answer, ProbeAns(probe_info=facts))
        self.assertEqual(self.liveness.answer_probe(self.request(ProbeReq())), ProbeAns())


class DoubtsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.asked: list[tuple[Destination, Deferred[Any]]] = []
        self.doubts = Doubts(lambda: NODES, lambda node_id: node_id != NODES[2], self.request)

    def request(self, destinations: Sequence[Destination], body: Struct) -> Deferred[Any]:
        (destination,) = destinations
        self.asked.append((destination, Deferred()))
        return self.asked[-1][1]

    def test_nearer_peers_are_asked(self) -> None:
        """Those between the resource and who answered, if they are peers; each once at a time."""
        self.doubts.answered(bytes([0]) * 15 + b"\x01", NODES[4])
        expected = [NodeDestination(node_id=node_id) for node_id in (NODES[1], NODES[3])]
        self.assertEqual([destination for destination, _ in self.asked], expected)
        self.doubts.answered(bytes([0]) * 15 + b"\x01", NODES[4])
        self.assertEqual(len(self.asked), 2)
        self.asked[0][1].errback(ValueError())
        self.doubts.answered(bytes([0]) * 15 + b"\x01", NODES[4])
        self.assertEqual(len(self.asked), 3)
