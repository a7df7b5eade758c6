"""Real nodes and phones at the hosts of a laboratory."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from ..integration.nodes import NodeProcess, World
from ..integration.phones import Sipp, Softphone
from ..integration.rtpengine import Rtpengine
from .case import LaboratoryTestCase
from .description import Node
from .laboratory import Laboratory


class LaboratoryWorld(World):
    """Nodes of one overlay, each at a host of `lab` and bound to its IPv4 address.

    They take the hosts in the order of the description, and have their names. Another is chosen by `address`, as in
    ``world.join(founder, address=lab.address("b"))``; an IPv6 address is bound by an option of the node,
    ``--bind``. Hosts without a node are for phones, `phones_at`, and for coturn.
    """

    def __init__(self, lab: Laboratory, overlay: str = "example.org", options: Sequence[str] = ()) -> None:
        super().__init__(overlay, options=options)
        self.lab = lab
        self._closing: list[Callable[[], None]] = []

    def node(self, name: str | None = None, address: str | None = None) -> NodeProcess:
        """A node that is not started yet, at the host of `address` or at the next one that has none."""
        if address is None:
            taken = {node.address for node in self.nodes}
            address = next(each for each in map(self.lab.address, self.lab.hosts) if each not in taken)
        host = next(each for each in self.lab.hosts if self.lab.address(each) == address)
        node = super().node(name or host, address)
        node.prefix = self.lab.entering(host)
        return node

    def phones_at(self, host: str) -> Sipp:
        """Phones at the address of a host, beside its node if it has one."""
        return Sipp(self.lab.address(host), self.directory, self.lab.entering(host))

    def softphone(
        self, host: str, user: str, node: NodeProcess, transport: str = "udp", answers: bool = False
    ) -> Softphone:
        """A new user's softphone at a host, with `node` as its outbound proxy; it has registered."""

        def connect(address: tuple[str, int], seconds: float) -> socket.socket:
            connection = self.lab.socket(host, kind=socket.SOCK_STREAM)
            connection.settimeout(seconds)
            try:
                connection.connect(address)
            except OSError:
                connection.close()
                raise
            return connection

        settings = self.nodes[0].json("user", "add", user)
        phone = Softphone(
            self.lab.address(host), user, settings["password"], node.address, transport, answers, self.overlay,
            prefix=self.lab.entering(host), connect=connect,
        )  # fmt: skip
        self._closing.append(phone.close)
        phone.wait_registered()
        return phone

    def rtpengine(self, host: str) -> Rtpengine:
        """An rtpengine beside the node of a host: only that commands it, its media are at the host's address."""
        engine = Rtpengine(
            self.directory / f"rtpengine-{host}", "127.0.0.1", media=self.lab.address(host),
            prefix=self.lab.entering(host), open_socket=lambda: self.lab.socket(host),
        )  # fmt: skip
        self._closing.append(engine.close)
        return engine

    def close(self) -> None:
        """End phones, rtpengines and nodes, and remove the files."""
        while self._closing:
            self._closing.pop()()
        super().close()


class OverlayTestCase(LaboratoryTestCase):
    """Builds laboratories with overlays in them."""

    def world(self, *nodes: Node, options: Sequence[str] = ()) -> LaboratoryWorld:
        """The nodes to be of an overlay in a laboratory of this description; both end with the test.

        They are all started with `options`.
        """
        lab = self.laboratory(*nodes)
        world = LaboratoryWorld(lab, options=options)
        self.addCleanup(world.close)
        return world
