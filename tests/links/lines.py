"""UDP between nodes of a test: through a relay that loses, counts and moves as a NAT does, and from a bare socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.internet.protocol import DatagramProtocol

Place = tuple[str, int]
clock: Any = reactor


class Socket(DatagramProtocol):
    """A bound UDP socket that keeps what it receives, or hands it to `take`."""

    noisy = False

    def __init__(self, address: str = "127.0.0.1", take: Callable[[bytes, Place], object] | None = None) -> None:
        self.received: list[tuple[bytes, Place]] = []
        self._take = take
        self._port: Any = clock.listenUDP(0, self, address, 65536)

    @property
    def place(self) -> Place:
        at = self._port.getHost()
        return at.host, at.port

    def send(self, datagram: bytes, there: Place) -> None:
        self._port.write(datagram, there)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        place = (addr[0], addr[1])
        if self._take is None:
            self.received.append((datagram, place))
        else:
            self._take(datagram, place)

    def close(self) -> Any:
        return maybeDeferred(self._port.stopListening)


class Relay:
    """Stands before a socket: what comes to `place` goes on to `there`, for each sender from a port of its own.

    `passes` says of each datagram whether it gets through; its second argument is whether it goes to `there`.
    """

    def __init__(self, there: Place, address: str = "127.0.0.1") -> None:
        self.there = there
        self.passes: Callable[[bytes, bool], bool] = lambda datagram, onwards: True
        self._address = address
        self._front = Socket(address, self._onwards)
        self._back: dict[Place, Socket] = {}
        self._closing: list[Any] = []

    @property
    def place(self) -> Place:
        return self._front.place

    @property
    def seen_at(self) -> list[Place]:
        """Where who is at `there` sees those who send to this."""
        return [each.place for each in self._back.values()]

    def _onwards(self, datagram: bytes, sender: Place) -> None:
        if not self.passes(datagram, True):
            return
        if sender not in self._back:
            self._back[sender] = Socket(self._address, lambda answer, _: self._back_to(sender, answer))
        self._back[sender].send(datagram, self.there)

    def _back_to(self, sender: Place, answer: bytes) -> None:
        if self.passes(answer, False):
            self._front.send(answer, sender)

    def move(self) -> None:
        """Go on from other ports, as a NAT does that was started anew."""
        self._closing += [each.close() for each in self._back.values()]
        self._back.clear()

    def close(self) -> Any:
        self.move()
        return gatherResults([*self._closing, self._front.close()])


class LosesOfFlight:
    """Loses the first datagram of flight `number` of a handshake, once."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._flight = -1
        self._onwards: bool | None = None
        self.lost = 0

    def __call__(self, datagram: bytes, onwards: bool) -> bool:
        if onwards is not self._onwards:
            self._onwards = onwards
            self._flight += 1
            if self._flight == self._number and not self.lost:
                self.lost += 1
                return False
        return True
