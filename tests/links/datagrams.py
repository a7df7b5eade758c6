"""UDP in memory, in the time of a clock: hops that drop what is too large for them, or by chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from p2psip.links.dtls_links import DTLSLinkFactory

IP_AND_UDP = 28
Place = tuple[str, int]


class DatagramNetwork:
    """What joins the sockets; also the factory of the DTLS links over it, as `p2psip.testing.World` takes it.

    `mtu` is that of the path from one address to another: larger packets vanish, and nobody is told.
    """

    name = DTLSLinkFactory.name
    link_type = DTLSLinkFactory.link_type
    ice = False

    def __init__(self, clock: IReactorTime, latency: float = 0.01) -> None:
        self.clock = clock
        self.latency = latency
        self.mtu: Callable[[str, str], int] = lambda here, there: 1500
        self.loss = 0.0
        self.random = Random(1)
        self.too_large: Counter[int] = Counter()
        """Packets that vanished, by their size."""
        self.ports: dict[Place, Port] = {}
        self._next = 49152

    def build(self, host: Any, reactor: object, *arguments: Any) -> Any:
        return DTLSLinkFactory().build(host, self, *arguments)

    def listenUDP(self, port: int, protocol: DatagramProtocol, interface: str, maxPacketSize: int) -> Port:
        if not port:
            self._next += 1
            port = self._next
        made = self.ports[interface, port] = Port(self, (interface, port), protocol)
        protocol.makeConnection(made)
        return made

    def carry(self, here: Place, there: Place, datagram: bytes) -> None:
        size = len(datagram) + IP_AND_UDP
        if size > self.mtu(here[0], there[0]):
            self.too_large[size] += 1
        elif not self.loss or self.random.random() >= self.loss:
            self.clock.callLater(self.latency, self._arrive, here, there, datagram)

    def _arrive(self, here: Place, there: Place, datagram: bytes) -> None:
        port = self.ports.get(there)
        if port is not None:
            port.protocol.datagramReceived(datagram, here)


@implementer(IListeningPort)
class Port:
    """One socket."""

    def __init__(self, network: DatagramNetwork, here: Place, protocol: DatagramProtocol) -> None:
        self._network = network
        self._here = here
        self._there: Place | None = None
        self.protocol = protocol

    def getHost(self) -> IPv4Address:
        return IPv4Address("UDP", *self._here)

    def getHandle(self) -> None:
        return None

    def connect(self, host: str, port: int) -> None:
        self._there = (host, port)

    def write(self, datagram: bytes, there: Place | None = None) -> None:
        to = there or self._there
        assert to is not None
        self._network.carry(self._here, to, datagram)

    def startListening(self) -> None:
        raise NotImplementedError("it listens already")

    def stopListening(self) -> Deferred[None]:
        if self._network.ports.pop(self._here, None) is not None:
            self.protocol.doStop()
        return succeed(None)
