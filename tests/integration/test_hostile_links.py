"""What a stranger or a hostile member can do to the port for links of a running node, over TLS and over DTLS."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import ClassVar

import click
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from p2psip.errors import ErrorCode
from p2psip.ids import NodeId
from p2psip.security.certificates import generate_key, make_authority
from p2psip.topology.chord import chord_resource_id
from p2psip.wire.header import OpaqueDestination
from p2psip.wire.methods import PingAns, PingReq
from p2psip.wire.storage import FetchReq

from .dtls import DTLSConnection
from .hostile import CONNECT, DAY, Connection, Member, Overlay, credentials, descriptors, resident, status
from .nodes import DTLS, ICE, TLS, NodeProcess, World, only, until
from .test_hostile import Hostile as _Hostile

IMPOSTOR = str(Path(__file__).with_name("impostor.py"))


class LinkCases:
    """Connections to the overlay's port, whatever carries them."""

    def connection(self, member: Member | None) -> Connection:
        """A connection that shows the certificate of `member`, if any; nothing was said on it."""
        return CONNECT[self.protocol](self.node.address, 6084, self.node.state.parent, member)

    def refused(self, member: Member | None) -> None:
        """A link with this certificate is closed without a message."""
        try:
            with contextlib.closing(self.connection(member)) as tls:
                self.assertEqual(b"", tls.recv(1000))
        except (ssl.SSLError, SSL.Error, OSError):
            pass

    def test_wrong_certificates(self) -> None:
        """No certificate, one of another authority, of another overlay, or an expired one is no link's.

        [6940-11.3-1]
        """
        other = make_authority("example.org", generate_key(), time.time(), DAY)
        for member, cause in (
            (None, "link: handshake"),
            (self.overlay.member(authority=other), "link: untrusted"),
            (self.overlay.member(overlay="other.example"), "link: overlay"),
            (self.overlay.member(ago=1800, lifetime=60), "link: expired"),
        ):
            self.refused(member)
            self.assert_counted(cause)

    def test_our_own_node_id(self) -> None:
        """Nobody else is the node itself, though the authority had certified it."""
        own = NodeId(bytes.fromhex(status(self.node)["node_id"]))
        self.refused(self.overlay.member(node_ids=(own,)))
        self.assert_counted("link: our own Node-ID")

    def test_several_node_ids(self) -> None:
        """Who has several Node-IDs must say by a message which of them it is: no link without."""
        self.refused(self.overlay.member(node_ids=(NodeId(b"a" * 16), NodeId(b"b" * 16))))
        self.assert_counted("link: several Node-IDs")

    def test_truncated_frames(self) -> None:
        """A link that ends within a frame, wherever, leaves nothing behind."""
        with self.intruder() as intruder:
            whole = intruder.frame(intruder.message(PingReq(padding=b"abc")))
        for size in range(1, len(whole), 23):
            with self.intruder(self.honest) as cut:
                cut.write(whole[:size])

    def test_false_acknowledgments(self) -> None:
        """ACKs of what was never sent mean nothing."""
        with self.intruder() as intruder:
            for number in (0, 1, 2**31, 2**32 - 1):
                intruder.write(bytes([129]) + number.to_bytes(4) + b"\xff" * 4)
            self.assertIsInstance(intruder.ask(PingReq()), PingAns)


class TLSTests(LinkCases, _Hostile):
    """TLS over TCP."""

    protocol: ClassVar = TLS

    def test_garbage_before_the_handshake(self) -> None:
        """Bytes that are no TLS end the connection, and are counted."""
        for garbage in (b"GET / HTTP/1.0\r\n\r\n", random.Random(1).randbytes(5000), b"\x16\x03\x01\xff\xff"):
            with socket.create_connection((self.node.address, 6084), 5) as plain:
                plain.sendall(garbage)
                plain.shutdown(socket.SHUT_WR)
                try:
                    while plain.recv(1000):
                        pass
                except ConnectionError:
                    pass
        self.assert_counted("link: handshake", 3)

    def test_garbage_after_the_handshake(self) -> None:
        """A frame of a type that there is not ends the link."""
        with self.intruder() as intruder:
            intruder.write(random.Random(2).randbytes(3000))
            list(intruder.frames(5))
            self.assertTrue(intruder.closed)
        self.assert_counted("link: framing")

    def test_oversize(self) -> None:
        """Message_Too_Large, and the link is closed. [6940-6.6-1]"""
        with self.intruder() as intruder:
            most = self.overlay.configuration.max_message_size
            answer = intruder.ask(PingReq(padding=bytes(most)))
            self.assert_error(answer, ErrorCode.MESSAGE_TOO_LARGE)
            list(intruder.frames(6))
            self.assertTrue(intruder.closed)
        self.assert_counted("answered MessageTooLarge")

    def test_oversize_header(self) -> None:
        """A header larger than any message ends the link without an error. [6940-6.6-2]"""
        with self.intruder() as intruder:
            most = self.overlay.configuration.max_message_size
            destinations = tuple(OpaqueDestination(opaque_id=bytes(200)) for _ in range(most // 200 + 20))
            self.assertIsNone(intruder.ask(PingReq(), destination_list=destinations))
            self.assertTrue(intruder.closed)
        self.assert_counted("link: framing")

    def test_half_open(self) -> None:
        """Connections on which nothing is said take up neither room for members nor descriptors for long."""
        before = descriptors(self.node)
        idle = [socket.create_connection((self.node.address, 6084), 5) for _ in range(200)]
        try:
            self.assertLess(descriptors(self.node), before + 100)
            self.assert_counted("link: too many connections", 100)
        finally:
            for each in idle:
                each.close()
        until(lambda: descriptors(self.node) <= before + 2, 15, "descriptors are given back")

    def test_many_links_of_one_node(self) -> None:
        """The links of one Node-ID are few, however many it opens."""
        member = self.overlay.member()
        before = descriptors(self.node)
        links = []
        for _ in range(60):
            try:
                links.append(self.intruder(member))
            except (ssl.SSLError, ConnectionError):
                continue
        self.assertLess(descriptors(self.node), before + 45)
        for link in links:
            link.tls.close()
        self.assert_counted("link: too many links of one node")

    def test_never_reads(self) -> None:
        """Who asks without reading the answers has them dropped, not stored: memory is bounded."""
        with self.intruder() as intruder:
            for _ in range(3):
                intruder.ask(PingReq())
            before = resident(self.node)
            intruder.tls.settimeout(3)
            sent = 0
            request = FetchReq(resource=chord_resource_id(b"x"), specifiers=())
            end = time.monotonic() + 8
            while time.monotonic() < end and intruder.write(intruder.frame(intruder.message(request))):
                sent += 1
            self.assertGreater(sent, 500)
            self.assertLess(resident(self.node) - before, 20_000)


class DTLSTests(LinkCases, _Hostile):
    """DTLS over UDP; the overlay is one with ICE, but its port takes links without negotiation as well."""

    protocol: ClassVar = ICE

    def test_many_links_of_one_node(self) -> None:
        """The links of one Node-ID are few, however many it opens."""
        member = self.overlay.member()
        for _ in range(20):
            try:
                self.intruder(member)
            except (SSL.Error, TimeoutError):
                continue
        mine = [link for link in status(self.node)["links"] if link["node_id"] == member.node_id.hex()]
        self.assertLessEqual(len(mine), 8)
        self.assert_counted("link: too many links of one node", 10)

    def assert_no_connection_counted(self) -> None:
        """Nobody was so much as made a connection with.  (Answers to those of other tests may be undelivered.)"""
        self.assertEqual([], [cause for cause in self.rejected() if cause.startswith("link: ")])

    def test_garbage_before_the_handshake(self) -> None:
        """Datagrams that are neither DTLS nor STUN, or only look so, leave nothing behind."""
        chance = random.Random(1)
        hello = b"\x16\xfe\xfd" + bytes(8) + (200).to_bytes(2) + b"\x01" + chance.randbytes(199)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            plain.connect((self.node.address, 6084))
            for garbage in (b"", b"GET / HTTP/1.0\r\n\r\n", b"\0\1\0\x08\x21\x12\xa4\x42", *[hello] * 3):
                plain.send(garbage)
            for size in range(1, 1400, 7):
                plain.send(chance.randbytes(size))
        with self.intruder() as intruder:
            self.assertIsInstance(intruder.ask(PingReq()), PingAns)
        self.assert_no_connection_counted()

    def test_garbage_after_the_handshake(self) -> None:
        """A datagram with a frame of a type that there is not is dropped: the next one is taken."""
        with self.intruder() as intruder:
            for size in (1, 8, 9, 3000, 16000):
                intruder.write(b"\7" + bytes(size))
            self.assertIsInstance(intruder.ask(PingReq()), PingAns)

    def test_oversize(self) -> None:
        """Fragments of what is larger than any message are dropped."""
        with self.intruder() as intruder:
            beyond = (0x80000000 | self.overlay.configuration.max_message_size) + 1
            intruder.silence(intruder.message(PingReq(padding=bytes(1000)), fragment=beyond))
            self.assertIsInstance(intruder.ask(PingReq()), PingAns)
        self.assert_counted("fragment beyond max-message-size")

    def test_half_open(self) -> None:
        """Handshakes that come to a halt once an address is proved take no room from members, and that not for long."""
        silent = [self.silent() for _ in range(200)]
        self.assert_counted("link: too many connections", 100)
        with self.intruder() as intruder:
            self.assertIsInstance(intruder.ask(PingReq()), PingAns)
        for each in silent:
            each.close()
        self.assert_counted("link: handshake timeout", 10, 30)

    def silent(self) -> DTLSConnection:
        """A handshake that is not gone on with."""
        made = DTLSConnection(self.node.address, 6084, None, 5, "127.66.6.6", silent=True)
        self.addCleanup(made.close)
        return made

    def test_never_acknowledges(self) -> None:
        """Who asks without acknowledging the answers has them dropped, not stored: memory is bounded."""
        with self.intruder() as intruder:
            intruder.ask(PingReq())
            intruder.acknowledges = False
            before = resident(self.node)
            request = FetchReq(resource=chord_resource_id(b"x"), specifiers=())
            for _ in range(3000):
                intruder.write(intruder.frame(intruder.message(request)))
            self.assertTrue(self.node.ask("GET", "/status")["joined"])
            self.assertLess(resident(self.node) - before, 20_000)

    def test_flood(self) -> None:
        """10,000 first ClientHellos from 500 addresses leave nothing behind, and do not keep the node from serving."""
        with contextlib.closing(DTLSConnection(self.node.address, 6084, None, 5, silent=True)) as sample:
            hello = sample.first
        before, memory = descriptors(self.node), resident(self.node)
        sockets = []
        for number in range(500):
            sockets.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            self.addCleanup(sockets[-1].close)
            sockets[-1].bind((f"127.77.{number // 250}.{number % 250 + 1}", 0))
        with self.intruder() as intruder:
            for number in range(10_000):
                sockets[number % 500].sendto(hello, (self.node.address, 6084))
                if number % 1000 == 999:
                    self.assertIsInstance(intruder.ask(PingReq(), seconds=30), PingAns)
        cookies = 0
        for each in sockets:
            each.settimeout(0)
            try:
                while each.recv(2000):
                    cookies += 1
            except BlockingIOError:
                pass
        self.assertGreater(cookies, 1000)
        self.assertLessEqual(descriptors(self.node), before + 2)
        self.assertLess(resident(self.node) - memory, 10_000)
        self.assert_no_connection_counted()


class Impostors(SynchronousTestCase):
    """A member that shows on its links the certificate of another member, whose key it has."""

    def impostor(self, protocol: str) -> tuple[World, NodeProcess, NodeProcess]:
        """A founder, and one that joined as itself and shows a stolen certificate on all links from now on."""
        world = World(options=only(protocol))
        self.addCleanup(world.close)
        founder, impostor = world.founder(), world.node()
        file = world.directory / "stolen.pem"
        impostor.prefix = (sys.executable, IMPOSTOR, str(file))
        impostor.start("--join", founder.p2psip("invite", impostor.name).stdout.strip())
        impostor.wait_joined()
        credentials(world.directory, Overlay(founder).member()).rename(file)
        return world, founder, impostor

    def found_out(self, impostor: NodeProcess, by: NodeProcess) -> None:
        """A node closes the connection, and has no link with the impostor."""

        def refused() -> bool:
            return bool(status(by)["rejected"].get("link: other Node-ID"))

        def unlinked() -> bool:
            return node_id not in [link["node_id"] for link in status(by)["links"]]

        node_id = status(impostor)["node_id"]
        until(refused, 60, "the impostor is found out", [by, impostor])
        # Its link of before it was killed has to die first; without ICE nothing but a message shows that it is dead.
        with contextlib.suppress(click.ClickException):
            by.ask("POST", "/ping", {"target": node_id})
        until(unlinked, 30, "there is no link with it", [by])

    def without_ice(self, protocol: str) -> None:
        """It rejoins, and who answers its Attach connects to it."""
        _, founder, impostor = self.impostor(protocol)
        impostor.kill()
        impostor.start()
        impostor.wait_for("rejoins")
        self.found_out(impostor, founder)

    def test_tls(self) -> None:
        """TLS-TCP-FH-NO-ICE. [6940-6.5.1.11-1]"""
        self.without_ice(TLS)

    def test_dtls(self) -> None:
        """DTLS-UDP-SR-NO-ICE. [6940-6.5.1.11-1]"""
        self.without_ice(DTLS)

    def test_ice(self) -> None:
        """DTLS-UDP-SR: a node joins and attaches to it, and ICE chooses a pair. [6940-6.5.1.13-4]"""
        world, founder, impostor = self.impostor(ICE)
        other = world.node()
        other.start("--join", founder.p2psip("invite", other.name).stdout.strip())
        other.wait_for("this node joins")
        self.found_out(impostor, other)
