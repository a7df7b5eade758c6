"""What the tests in a laboratory have in common."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from .description import Node
from .laboratory import Laboratory
from .namespaces import NotPermitted

WITHOUT = "P2PSIP_NO_NATLAB"
"""Set to 1 in the environment, it leaves out the tests that need a laboratory."""

TREE = str(Path(__file__).absolute().parents[2])
"""Where `tests` is imported from."""

SECONDS = 10.0
"""How long an expected packet may take: far more than it does."""


class LaboratoryTestCase(SynchronousTestCase):
    """Builds laboratories, and takes them down when the test is over."""

    def laboratory(self, *nodes: Node, name: str | None = None) -> Laboratory:
        """One that stands. Fails where that is not permitted, unless `WITHOUT` is set."""
        if os.environ.get(WITHOUT) == "1":
            raise SkipTest(f"{WITHOUT}=1: no NAT laboratory")
        lab = Laboratory(*nodes, name=name)
        try:
            lab.up()
        except NotPermitted as error:
            self.fail(f"the NAT laboratory cannot be built: {error}; {WITHOUT}=1 leaves these tests out")
        self.addCleanup(lab.down)
        return lab

    def udp(self, lab: Laboratory, node: str, port: int = 0, ipv6: bool = False) -> socket.socket:
        """A UDP socket at the address of a node."""
        address = lab.address6(node) if ipv6 else lab.address(node)
        found = lab.socket(node, socket.AF_INET6 if ipv6 else socket.AF_INET)
        self.addCleanup(found.close)
        found.settimeout(SECONDS)
        found.bind((address, port))
        return found


def importing_tests(**environment: str) -> dict[str, str]:
    """The environment of another Python that is to import `tests` as this one does."""
    return {**os.environ, "PYTHONPATH": TREE, **environment}


def mapping(inner: socket.socket, outer: socket.socket) -> tuple[str, int]:
    """The address and port from which `outer` hears `inner`."""
    inner.sendto(b"who am I?", outer.getsockname())
    seen: tuple[str, int] = outer.recvfrom(1500)[1][:2]
    return seen


def heard(receiver: socket.socket, last: bytes) -> Iterator[bytes]:
    """What comes in until `last` does."""
    while (packet := receiver.recv(65535)) != last:
        yield packet
