"""Ping and Probe: whether a node is there, and how it is (RFC 6940 §6.5.3, §6.4.2.5)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from ..interfaces import Request
from ..wire.codes import ProbeInformationType
from ..wire.methods import (
    NumResources,
    PingAns,
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
