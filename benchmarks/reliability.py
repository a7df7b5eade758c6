"""Messages a second over one lossy datagram link: stop-and-wait against the window, in simulated time.

Nothing is measured but what `p2psip.reliability` decides: the channel is simulated, so each run gives the same figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import Any

from p2psip.congestion import OVERHEAD
from p2psip.framing import Condition
from p2psip.reliability import LEAST_RTO, SimpleReliability

MESSAGE_BYTES = 1000
"""About what a Store of a registration takes, without certificates."""
PACKET = MESSAGE_BYTES + OVERHEAD
FRAME_OVERHEAD = OVERHEAD - 8
"""What the network adds to a frame."""
BACKLOG = 400
"""Messages that wait at each sender, or are not acknowledged: there is always more to send."""


class Simulation:
    """A heap of events, and the time of the last one."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, time: float, event: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._events, (time, self._count, event))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heappop(self._events)
            event()


class Pipe:
    """One direction of a path: a bottleneck with a queue that drops what does not fit, losses, and a delay.

    `rate` and `queue` in bytes (a second), `delay` in seconds, `loss` of each datagram.
    """

    def __init__(
        self, simulation: Simulation, random: Random, rate: float, queue: float, delay: float, loss: float
    ) -> None:
        self._simulation, self._random = simulation, random
        self._rate, self._queue, self._delay, self._loss = rate, queue, delay, loss
        self._free_at = 0.0
        self.dropped = 0

    def carry(self, datagram: bytes, receive: Callable[[bytes], None]) -> None:
        now = self._simulation.now
        size = len(datagram) + FRAME_OVERHEAD
        free_at = max(self._free_at, now)
        if (free_at - now) * self._rate + size > self._queue:
            self.dropped += 1
            return
        self._free_at = free_at + size / self._rate
        if self._random.random() >= self._loss:
            self._simulation.at(self._free_at + self._delay, lambda: receive(datagram))


class Flow:
    """A sender that always has more to send, and its receiver; a new link when theirs is dead."""

    def __init__(
        self, simulation: Simulation, forth: Pipe, back: Pipe, name: int, begin: float, stop_and_wait: bool
    ) -> None:
        self._simulation, self._forth, self._back, self._name = simulation, forth, back, name
        self._stop_and_wait = stop_and_wait
        self._count = 0
        self.delivered = self.transmitted = self.closed = 0
        self.arrivals: list[float] = []
        simulation.at(begin, self._open)

    def _open(self) -> None:
        self._sender = SimpleReliability(5000, stop_and_wait=self._stop_and_wait)
        self._receiver = SimpleReliability(5000)
        self._pump()

    def _message(self) -> bytes:
        self._count += 1
        return b"%d %d " % (self._name, self._count) + bytes(MESSAGE_BYTES - 20)

    def _pump(self) -> None:
        sender, now = self._sender, self._simulation.now
        if sender.check(now) is Condition.DEAD:
            self.closed += 1
            self._open()
            return
        while sender.backlog < BACKLOG * PACKET:
            sender.send(self._message(), now)
        for datagram in sender.datagrams_to_send(now):
            self.transmitted += 1
            self._forth.carry(datagram, partial(self._arrived, self._receiver))
        due = sender.next_timeout(now)
        if due is not None:
            self._simulation.at(due, lambda: self._timeout(sender, due))

    def _timeout(self, sender: SimpleReliability, due: float) -> None:
        # Each datagram asks for a timeout; most are overtaken by an ACK that asked for a later one.
        if sender is self._sender and sender.next_timeout(self._simulation.now) == due:
            self._pump()

    def _arrived(self, receiver: SimpleReliability, datagram: bytes) -> None:
        if receiver.receive(datagram, self._simulation.now) is not None:
            self.delivered += 1
            self.arrivals.append(self._simulation.now)
        for ack in receiver.take_acks():
            self._back.carry(ack, partial(self._acknowledged, self._sender))

    def _acknowledged(self, sender: SimpleReliability, datagram: bytes) -> None:
        if sender is self._sender:
            sender.receive(datagram, self._simulation.now)
            self._pump()


def play(
    *, rtt: float, loss: float, rate: float, begins: Sequence[float], seconds: float, stop_and_wait: bool = False
) -> list[Flow]:
    """Flows that share a path, one for each of `begins`, until `seconds`."""
    simulation, random = Simulation(), Random(1)
    queue = max(rate * rtt, 65536)
    forth, back = (Pipe(simulation, random, rate, queue, rtt / 2, loss) for _ in range(2))
    flows = [
        Flow(simulation, forth, back, name, begin, stop_and_wait) for name, begin in enumerate(begins)
    ]
    simulation.run(seconds)
    return flows


def tcp_rate(rtt: float, loss: float, rate: float) -> float:
    """Packets a second of TCP, by the equation of RFC 5348 §3.1, and at most what the bottleneck lets through."""
    if not loss:
        return rate / PACKET
    timeout = max(4 * rtt, LEAST_RTO)
    once: float = rtt * (2 * loss / 3) ** 0.5
    again: float = timeout * 3 * (3 * loss / 8) ** 0.5 * loss * (1 + 32 * loss**2)
    return min(1 / (once + again), rate / PACKET)


def compare(seconds: float, rate: float) -> list[dict[str, Any]]:
    """One flow, by RTT and loss."""
    rows = []
    for rtt in (0.001, 0.02, 0.1):
        for loss in (0.0, 0.01, 0.2):
            slow, fast = (
                play(rtt=rtt, loss=loss, rate=rate, begins=[0.0], seconds=seconds, stop_and_wait=stop_and_wait)[0]
                for stop_and_wait in (True, False)
            )
            rows.append(
                {
                    "rtt_ms": round(rtt * 1000),
                    "loss": loss,
                    "stop_and_wait_per_second": round(slow.delivered / seconds, 1),
                    "window_per_second": round(fast.delivered / seconds, 1),
                    "times_stop_and_wait": round(fast.delivered / slow.delivered, 1),
                    "times_tcp": round(fast.delivered / seconds / tcp_rate(rtt, loss, rate), 2),
                    "transmissions_of_each": round(fast.transmitted / fast.delivered, 2),
                    "links_closed": [slow.closed, fast.closed],
                }
            )
    return rows


def share(seconds: float, rate: float, count: int, loss: float) -> dict[str, Any]:
    """`count` flows that begin a second after each other, counted once all have run for ten seconds."""
    begins = [float(number) for number in range(count)]
    since = begins[-1] + 10.0
    end = since + seconds
    flows = play(rtt=0.02, loss=loss, rate=rate, begins=begins, seconds=end)
    delivered = [sum(1 for time in flow.arrivals if time >= since) for flow in flows]
    total = sum(delivered)
    return {
        "flows": count,
        "loss": loss,
        "bottleneck_per_second": round(rate / PACKET, 1),
        "of_bottleneck": round(total / seconds / (rate / PACKET), 2),
        # Jain's index: 1 if all get the same, 1 / count if one gets all.
        "fairness": round(total**2 / (count * sum(each**2 for each in delivered)), 2),
        "transmissions_of_each": round(
            sum(flow.transmitted for flow in flows) / sum(flow.delivered for flow in flows), 2
        ),
        "links_closed": sum(flow.closed for flow in flows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="simulated, of each run (default 30)")
    options = parser.parse_args()
    result = {
        "message_bytes": MESSAGE_BYTES,
        "one_link_of_100_mbit": compare(options.seconds, 100e6 / 8),
        "shared_2_mbit": [
            share(options.seconds, 2e6 / 8, count, loss) for count, loss in ((2, 0.0), (8, 0.0), (32, 0.0), (8, 0.2))
        ],
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
