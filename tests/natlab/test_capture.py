"""DTLS links between two hosts, captured on the wire and decoded by tshark with the secrets of the nodes.

(`tests.integration.test_capture` does this for TLS.)
"""

from __future__ import annotations

import signal
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from p2psip.wire.codes import MessageCode

from ..integration.nodes import DTLS, ICE, only
from ..integration.test_capture import ACK, DATA, STALE
from .description import Host
from .overlays import OverlayTestCase

APPLICATION_DATA = "23"
"""ContentType of the records that carry frames (RFC 5246 §6.2.1)."""
FIELDS = (
    "udp.stream", "udp.srcport", "frame.protocols", "dtls.record.content_type", "reload_framing.type",
    "reload_framing.sequence", "reload_framing.ack_sequence", "reload_framing.received", "reload.message.code",
    "data.data", "_ws.malformed", "_ws.expert.message",
)  # fmt: skip


class Packet(NamedTuple):
    """What tshark says of one datagram, in the order of `FIELDS`; empty where there is no such field."""

    stream: str
    source: str
    protocols: str
    content: str
    kind: str
    sequence: str
    acknowledged: str
    received: str
    code: str
    plaintext: str
    malformed: str
    complaints: str


class CaptureTests(OverlayTestCase):
    def packets(self, protocol: str) -> list[Packet]:
        """Everything between two nodes that join, register, look up, store, fetch and ping."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        secrets, capture = folder / "secrets", folder / "capture"
        world = self.world(Host("a"), Host("b"), options=only(protocol))
        listening = world.lab.popen(
            "a", ["dumpcap", "-q", "-i", "eth0", "-w", str(capture)], stderr=subprocess.PIPE, text=True
        )
        assert listening.stderr is not None
        self.addCleanup(listening.communicate)
        self.addCleanup(listening.kill)
        self.assertTrue(any(line.startswith("File:") for line in listening.stderr), "dumpcap listens")
        nodes = [world.node(), world.node()]
        for node in nodes:
            node.environment = {"SSLKEYLOGFILE": str(secrets)}
        founder, second = nodes
        founder.start()
        founder.wait_joined()
        second.start("--join", founder.p2psip("invite", "b").stdout.strip())
        second.wait_joined()
        users = {f"u{number}": "secret" for number in range(2)}
        founder.add_users(users)
        for node in nodes:
            self.assertEqual(0, world.phones_at(node.name).register(node.address, users.items(), 17100))
            for user in users:
                self.assertTrue(node.registered_at(user))
            node.p2psip("fetch", "b@nodes.example.org", "--kind", "CERTIFICATE_BY_USER")
            node.p2psip("ping", "--count", "5")
        listening.send_signal(signal.SIGINT)
        listening.wait(30)
        fields = [option for name in FIELDS for option in ("-e", name)]
        command = ["tshark", "-r", capture, "-Y", "dtls", "-o", f"tls.keylog_file:{secrets}", "-T", "fields", *fields]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return [Packet(*line.split("\t")) for line in shown.splitlines()]

    def decoded(self, protocol: str) -> None:
        """Every frame is RELOAD to tshark, none is malformed, and each ACK is one of frames that were sent."""
        packets = self.packets(protocol)
        for packet in packets:
            self.assertEqual("", packet.malformed, packet)
            self.assertLessEqual({each for each in packet.complaints.split(",") if each}, STALE, packet)
        links = {packet.stream for packet in packets if packet.kind}
        self.assertTrue(links)
        frames = []
        for packet in packets:
            if packet.content != APPLICATION_DATA:
                continue
            if packet.stream in links:
                self.assertIn("reload-framing", packet.protocols, packet)
                frames.append(packet)
            else:
                # A connection of an application: SIP, from registrar to registrar.
                self.assertIn(b"SIP/2.0", bytes.fromhex(packet.plaintext), packet)
        kinds = [int(packet.kind) for packet in frames]
        self.assertEqual({DATA, ACK}, set(kinds))
        self.assertGreater(kinds.count(DATA), 30)
        self.assertGreater(kinds.count(ACK), 30)
        self.check_acknowledgments(frames)
        codes = {int(code) for packet in frames for code in packet.code.split(",") if code}
        wanted = {
            MessageCode.PING_REQ, MessageCode.PING_ANS, MessageCode.JOIN_REQ, MessageCode.UPDATE_REQ,
            MessageCode.ATTACH_REQ, MessageCode.ATTACH_ANS, MessageCode.STORE_REQ, MessageCode.FETCH_REQ,
        }  # fmt: skip
        self.assertLessEqual(wanted, codes)

    def check_acknowledgments(self, frames: list[Packet]) -> None:
        """Each acknowledges a frame of the other side, and of those up to 31 before it only what was sent.

        In `received`, bit N-M stands for frame M in the ACK of N (RFC 6940 §6.6.2). [6940-6.6.2-2]
        """
        sent = defaultdict(set)
        earlier = 0
        for frame in frames:
            if int(frame.kind) == DATA:
                sent[frame.stream, frame.source].add(int(frame.sequence))
                continue
            (other,) = {source for stream, source in sent if stream == frame.stream and source != frame.source}
            number, mask = int(frame.acknowledged), int(frame.received, 0)
            received = {number} | {number - bit for bit in range(1, 32) if mask >> bit & 1}
            self.assertLessEqual(received, sent[frame.stream, other], frame)
            earlier += len(received) - 1
        self.assertGreater(earlier, 30)

    def test_with_ice(self) -> None:
        self.decoded(ICE)

    def test_without_ice(self) -> None:
        self.decoded(DTLS)
