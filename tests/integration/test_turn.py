"""A real TURN server beside a node: it takes the credentials that the node gives, and the node registers it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aioice.stun import TransactionFailed
from aioice.turn import create_turn_endpoint
from twisted.trial.unittest import SynchronousTestCase

from p2psip.ids import NodeId
from p2psip.usages.turn_server import credentials

from .nodes import NodeFailed, World, until
from .turnserver import Turnserver

SECRET = "north"
NODE = NodeId(bytes(range(16)))
PATIENCE = 20.0


class _Echo(asyncio.DatagramProtocol):
    """Sends back what it gets."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self._transport.sendto(data, address)


class _Received(asyncio.DatagramProtocol):
    """Keeps the first datagram."""

    def __init__(self) -> None:
        self.first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, address: Any) -> None:
        if not self.first.done():
            self.first.set_result(data)


async def relayed(server: str, echo_address: str, secret: str, now: float) -> bytes:
    """What comes back over the TURN server, with credentials made of `secret` at the time `now`."""
    made = credentials(secret.encode(), NODE, now)
    echo, _ = await asyncio.get_running_loop().create_datagram_endpoint(_Echo, local_addr=(echo_address, 0))
    try:
        transport, received = await asyncio.wait_for(
            create_turn_endpoint(_Received, (server, 3478), made.username.decode(), made.password.decode()), PATIENCE
        )
        try:
            transport.sendto(b"there and back", echo.get_extra_info("sockname"))
            return await asyncio.wait_for(received.first, PATIENCE)
        finally:
            transport.close()
    finally:
        echo.close()


class TurnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.addCleanup(self.world.close)
        self.address = self.world.address()

    def serve(self) -> None:
        turnserver = Turnserver(self.world.directory / "turn", self.address, SECRET)
        self.addCleanup(turnserver.close)

    def test_credentials(self) -> None:
        """coturn relays for who has credentials made of its secret, while they last, and for nobody else."""
        self.serve()
        elsewhere, now = self.world.address(), time.time()
        self.assertEqual(asyncio.run(relayed(self.address, elsewhere, SECRET, now)), b"there and back")
        for secret, then in (("south", now), (SECRET, now - 3601)):
            with self.assertRaises(TransactionFailed):
                asyncio.run(relayed(self.address, elsewhere, secret, then))

    def test_registered(self) -> None:
        """A node says in its status that the TURN server beside it is registered. [6940-9-3]"""
        secret_file = self.world.directory / "secret"
        secret_file.write_text(f"{SECRET}\n")
        options = ("--turn-server", f"{self.address}:3478", "--turn-secret-file", str(secret_file))
        node = self.world.founder(*options)
        until(lambda: node.status()["turn"]["registered"] == 10, 20, "ten places", [node])
        self.assertIn(f"TURN server here: {self.address}:3478, registered at 10 places", node.p2psip("status").stdout)

    def test_no_secret(self) -> None:
        """One line, and the end, where the file cannot be read."""
        node = self.world.node()
        node.start("--turn-server", f"{self.address}:3478", "--turn-secret-file", "/nowhere")
        node.wait_for("cannot read /nowhere: No such file or directory")
        self.assertRaises(NodeFailed, node.wait_for, "is part of")
