"""Live traffic between two nodes, recorded on its way and decoded by tshark with the TLS secrets."""

from __future__ import annotations

import json
import re
import selectors
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2psip.wire.codes import MessageCode

from .nodes import TLS, World, only

STALE = {"Unknown identity type"}
"""What tshark 4.0 complains of and RFC 6940 has: the signer identity "none" (§6.3.4)."""
DATA, ACK = 128, 129
"""FramedMessageType (RFC 6940 §6.6.2)."""


class Relay:
    """A TCP relay that records each connection through it."""

    def __init__(self, listen: tuple[str, int], to: tuple[str, int]) -> None:
        self._to = to
        self.connections: list[list[tuple[str, bytes]]] = []
        """For each, in order, 'O' and what the connecting side sent, 'I' and what came back."""
        self._server = socket.create_server(listen)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        self._server.settimeout(0.2)
        while not self._over.is_set():
            try:
                one, _ = self._server.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=self._carry, args=(one,))
            self._threads.append(thread)
            thread.start()

    def _carry(self, one: socket.socket) -> None:
        recorded: list[tuple[str, bytes]] = []
        self.connections.append(recorded)
        with one, socket.create_connection(self._to) as other, selectors.DefaultSelector() as selector:
            selector.register(one, selectors.EVENT_READ, (other, "O"))
            selector.register(other, selectors.EVENT_READ, (one, "I"))
            while not self._over.is_set():
                for key, _ in selector.select(0.2):
                    source: Any = key.fileobj
                    target, direction = key.data
                    try:
                        data = source.recv(8192)
                        target.sendall(data)
                    except OSError:
                        return
                    if not data:
                        return
                    recorded.append((direction, data))

    def close(self) -> None:
        """End every connection."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._server.close()


def frames(stream: bytes) -> list[bytes]:
    """The RELOAD frames in what one side sent (RFC 6940 §6.6.2); one that is cut off is left out."""
    found = []
    while len(stream) >= 9:
        if stream[0] not in (DATA, ACK):
            raise AssertionError(f"no frame starts with {stream[0]}")
        size = 9 if stream[0] == ACK else 8 + int.from_bytes(stream[5:8])
        if len(stream) < size:
            break
        found.append(stream[:size])
        stream = stream[size:]
    return found


class Capture(SynchronousTestCase):
    """tshark's opinion of what two nodes say to each other."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)

    def tshark(self, capture: Path, *options: str) -> str:
        command = ["tshark", "-r", str(capture), *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def packets(self, lines: list[str], *options: str) -> Path:
        """A capture file of hexadecimal `lines`, a packet each."""
        dump, capture = self.folder / "dump", self.folder / "capture.pcap"
        dump.write_text("".join(lines))
        subprocess.run(["text2pcap", "-q", *options, dump, capture], check=True, capture_output=True)
        return capture

    def decrypted(self, recorded: list[tuple[str, bytes]], secrets: Path) -> dict[str, bytes]:
        """What each side said, as tshark sees it with the secrets."""
        lines = [f"{direction}\n000000 {data.hex(' ')}\n" for direction, data in recorded]
        capture = self.packets(lines, "-D", "-T", "40000,6084")
        text = self.tshark(
            capture, "-o", f"tls.keylog_file:{secrets}", "-d", "tcp.port==6084,tls", "-q", "-z", "follow,tls,raw,0"
        )
        said = {"O": b"", "I": b""}
        for line in text.splitlines():
            if re.fullmatch(r"\t?[0-9a-f]+", line):
                said["I" if line.startswith("\t") else "O"] += bytes.fromhex(line.strip())
        return said

    def test_tshark(self) -> None:
        """Joining, registering and looking up over a real link: every frame is RELOAD to tshark, none malformed."""
        world = World(options=only(TLS))
        self.addCleanup(world.close)
        secrets = self.folder / "secrets"
        relays = []
        nodes = [world.node(), world.node()]
        outside = [world.address(), world.address()]
        for node, address in zip(nodes, outside, strict=True):
            node.environment = {"SSLKEYLOGFILE": str(secrets)}
            relays.append(Relay((address, 6084), (node.address, 6084)))
            self.addCleanup(relays[-1].close)
        self.addCleanup(Relay((outside[0], 8443), (nodes[0].address, 8443)).close)
        founder, second = nodes
        founder.start("--advertise", outside[0])
        founder.wait_joined()
        second.start("--advertise", outside[1], "--join", founder.p2psip("invite", "n2").stdout.strip())
        second.wait_joined()
        users = {f"u{number}": "secret" for number in range(2)}
        founder.add_users(users)
        for node in (founder, second):
            self.assertEqual(0, world.sipp().register(node.address, users.items(), 17100))
            for user in users:
                self.assertTrue(node.registered_at(user))
        for node in (founder, second):
            node.p2psip("fetch", "n2@nodes.example.org", "--kind", "CERTIFICATE_BY_USER")
            node.p2psip("ping", "--count", "5")
        connections = [list(recorded) for relay in relays for recorded in relay.connections]
        self.assertTrue(connections)
        found = [
            frame
            for recorded in connections
            for side in self.decrypted(recorded, secrets).values()
            for frame in frames(side)
        ]
        self.assertGreater(len(found), 20)
        data = [frame for frame in found if frame[0] == DATA]
        shown = json.loads(
            self.tshark(
                self.packets([f"000000 {frame.hex(' ')}\n" for frame in data], "-u", "40000,6084"),
                "-T", "json", "--no-duplicate-keys",
            )
        )  # fmt: skip
        self.assertEqual(len(data), len(shown))
        codes = set()
        for packet in shown:
            layers = packet["_source"]["layers"]
            text = json.dumps(layers)
            self.assertIn("reload", layers)
            self.assertFalse("_ws.malformed" in text, text)
            self.assertLessEqual(set(re.findall(r'"_ws.expert.message": "([^"]*)"', text)), STALE)
            codes.update(re.findall(r'"reload.message.code": "(\d+)"', text))
        wanted = (
            MessageCode.PING_REQ, MessageCode.JOIN_REQ, MessageCode.UPDATE_REQ, MessageCode.STORE_REQ,
            MessageCode.FETCH_REQ, MessageCode.APP_ATTACH_REQ,
        )  # fmt: skip
        self.assertLessEqual({str(int(code)) for code in wanted}, codes)
