"""Ping and Probe: whether a node is there, and how it is (RFC 6940 §6.5.3, §6.4.2.5); and doubts about that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from twisted.internet.defer import Deferred

from ..ids import NodeId, distance
from ..interfaces import Answer, Request
from ..wire.codec import Struct
from ..wire.codes import ProbeInformationType
from ..wire.header import Destination, NodeDestination
from ..wire.methods import (
    NumResources,
    PingAns,
    PingReq,
    ProbeAns,
    ProbeInformation,
    ProbeReq,
    ResponsibleSet,
    Uptime,
)


class Liveness:
    """Answers Ping and Probe; `now` is in seconds since 1970, `uptime` in seconds."""

    def __init__(
        self,
        random: Random,
        now: Callable[[], float],
        uptime: Callable[[], float],
        responsible_ppb: Callable[[], int],
        resources: Callable[[], int],
    ) -> None:
        self._random = random
        self._now = now
        self._facts: dict[int, Callable[[], ProbeInformation]] = {
            ProbeInformationType.RESPONSIBLE_SET: lambda: ResponsibleSet(responsible_ppb=responsible_ppb()),
            ProbeInformationType.NUM_RESOURCES: lambda: NumResources(num_resources=resources()),
            ProbeInformationType.UPTIME: lambda: Uptime(uptime=int(uptime())),
        }

    def answer_ping(self, request: Request) -> PingAns:
        """Answer a Ping."""
        return PingAns(response_id=self._random.getrandbits(64), time=int(self._now() * 1000))

    def answer_probe(self, request: Request) -> ProbeAns:
        """Answer a Probe: what was asked for and is known, in the order asked (§6.4.2.5.2)."""
        body = request.body
        assert isinstance(body, ProbeReq)
        facts = [self._facts[kind]() for kind in body.requested_info if kind in self._facts]
        return ProbeAns(probe_info=tuple(facts))


class Doubts:
    """Looks after peers that should have answered in the place of others.

    Where an answer for a resource is not believed (§6.3.4), a nearer peer that we know may be dead without our
    having noticed: a Ping over the link to it makes the link fail then.
    """

    def __init__(
        self,
        connected: Callable[[], Sequence[NodeId]],
        routes_over: Callable[[NodeId], bool],
        request: Callable[[Sequence[Destination], Struct], Deferred[Answer]],
    ) -> None:
        self._connected = connected
        self._routes_over = routes_over
        self._request = request
        self._asked: set[NodeId] = set()

    def answered(self, resource: bytes, signer: NodeId) -> None:
        """An answer for `resource` by `signer` was not believed."""
        for node_id in self._connected():
            nearer = distance(resource, node_id) < distance(resource, signer)
            if nearer and node_id not in self._asked and self._routes_over(node_id):
                self._asked.add(node_id)
                self._request([NodeDestination(node_id=node_id)], PingReq()).addBoth(self._ended, node_id)

    def _ended(self, result: object, node_id: NodeId) -> None:
        self._asked.discard(node_id)
