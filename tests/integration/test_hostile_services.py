"""What a stranger can send to the SIP ports, to the enrollment server and to the control socket of a running node."""

from __future__ import annotations

import itertools
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from p2psip.wire.methods import AppAttachAns, AppAttachReq

from .hostile import Listener, Member, descriptors, resident, tls_connection
from .nodes import until
from .test_hostile import Hostile as _Hostile

TORTURE = Path(__file__).parents[1] / "sip" / "torture"


_RUN = itertools.count()


def request(method: str, number: int, headers: str = "", transport: str = "UDP", user: str = "alice") -> bytes:
    """A SIP request with transaction and dialog of its own."""
    return (
        f"{method} sip:example.org SIP/2.0\r\n"
        f"Via: SIP/2.0/{transport} 127.0.0.1:9;rport;branch=z9hG4bK-{number}-{next(_RUN)}\r\n"
        f"From: <sip:{user}@example.org>;tag={number}\r\n"
        f"To: <sip:{user}@example.org>\r\n"
        f"Call-ID: {number}@hostile\r\nCSeq: 1 {method}\r\nMax-Forwards: 70\r\n"
        f"{headers}Content-Length: 0\r\n\r\n"
    ).encode()


class Quiet(_Hostile):
    """Whatever comes, the log does not grow with it."""

    most_logged = 12

    def tearDown(self) -> None:
        grown = len(self.node.log) - self.logged
        super().tearDown()
        self.assertLess(grown, self.most_logged, "\n".join(self.node.log[self.logged :][:60]))


class SIPTests(Quiet):
    """Port 5060."""

    def tearDown(self) -> None:
        """Phones are served still, over UDP and TCP."""
        until(self.options, 10, "an answer over UDP")
        with self.tcp() as tcp:
            tcp.sendall(request("OPTIONS", 1, transport="TCP"))
            self.assertIn(b"SIP/2.0 200", tcp.recv(4000))
        super().tearDown()

    def udp(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.connect((self.node.address, 5060))
        made.settimeout(1)
        self.addCleanup(made.close)
        return made

    def tcp(self) -> socket.socket:
        made = socket.create_connection((self.node.address, 5060), 5)
        self.addCleanup(made.close)
        return made

    def options(self) -> bool:
        udp = self.udp()
        udp.send(request("OPTIONS", int(time.monotonic() * 1e6)))
        try:
            return b"SIP/2.0 200" in udp.recv(4000)
        except TimeoutError:
            return False

    def flood(self, make: Callable[[int], bytes], count: int = 10_000) -> list[bytes]:
        """Send `count` datagrams as fast as the node answers; the answers."""
        udp = self.udp()
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        udp.setblocking(False)
        answers = []
        for number in range(count):
            try:
                udp.send(make(number))
            except BlockingIOError:
                pass
            if number % 100 == 0:
                time.sleep(0.01)
            try:
                while True:
                    answers.append(udp.recv(70000))
            except BlockingIOError:
                pass
        udp.settimeout(1)
        try:
            while True:
                answers.append(udp.recv(70000))
        except TimeoutError:
            return answers

    def test_torture(self) -> None:
        """The torture messages of RFC 4475 and RFC 5118, over UDP and over TCP."""
        udp = self.udp()
        for path in sorted(TORTURE.glob("*.dat")):
            data = path.read_bytes()
            udp.send(data)
            with self.tcp() as tcp:
                tcp.sendall(data)
                tcp.shutdown(socket.SHUT_WR)
                try:
                    while tcp.recv(4000):
                        pass
                except ConnectionError:
                    pass
        self.assert_counted("sip: malformed", 20)

    def test_garbage(self) -> None:
        """Bytes that are no SIP: over TCP they end the connection."""
        chance, udp = Random(1), self.udp()
        for _ in range(300):
            udp.send(chance.randbytes(chance.choice((1, 20, 1400, 60000))))
        for garbage in (
            b"\0" + chance.randbytes(4000),
            b"\x16\x03\x01" + bytes(500),
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            with self.tcp() as tcp:
                tcp.sendall(garbage)
                try:
                    while tcp.recv(4000):
                        pass
                except ConnectionError:
                    pass

    def test_mutated(self) -> None:
        """Requests with any bytes changed."""
        chance, udp = Random(2), self.udp()
        for number in range(3000):
            data = bytearray(request(chance.choice(("REGISTER", "INVITE", "OPTIONS", "CANCEL", "ACK")), number))
            for _ in range(chance.choice((1, 1, 3))):
                data[chance.randrange(len(data))] = chance.randrange(256)
            udp.send(data)
            if number % 100 == 0:
                time.sleep(0.02)

    def test_unauthenticated_flood(self) -> None:
        """10,000 REGISTERs and as many INVITEs are all challenged, and none is remembered."""
        before = resident(self.node)
        for method, status in (("REGISTER", 401), ("INVITE", 407)):
            answers = self.flood(lambda number, method=method: request(method, number))  # type: ignore[misc]
            challenges = sum(b"SIP/2.0 %d" % status in answer for answer in answers)
            self.assertGreater(challenges, 5000, method)
        self.assertLess(resident(self.node) - before, 30_000)

    def test_guessing_flood(self) -> None:
        """Made-up nonces and passwords cost no more than a challenge."""
        credentials = (
            'Authorization: Digest username="u%d", realm="example.org", nonce="%032x", uri="sip:example.org", '
            'response="0123456789abcdef0123456789abcdef", algorithm=MD5, cnonce="x", nc=00000001, qop=auth\r\n'
        )
        before = resident(self.node)
        answers = self.flood(lambda n: request("REGISTER", n, credentials % (n, n)), 5000)
        self.assertGreater(len(answers), 2000)
        self.assertLess(resident(self.node) - before, 30_000)

    def test_large_refusals(self) -> None:
        """What is refused at length is not remembered for half a minute at that length."""
        filler = "Require: nonsense\r\n" + "".join(
            f"Via: SIP/2.0/UDP 127.0.0.1:{number};branch=z9hG4bK{'x' * 150}\r\n" for number in range(1, 70)
        )
        before = resident(self.node)
        answers = self.flood(lambda n: request("OPTIONS", n, filler), 5000)
        self.assertGreater(sum(b"SIP/2.0 420" in answer for answer in answers), 1000)
        self.assertLess(resident(self.node) - before, 30_000)

    def test_keep_alive_flood(self) -> None:
        """A million line breaks over TCP are pings to be answered, at the reader's own pace."""
        before = resident(self.node)
        with self.tcp() as tcp:
            tcp.settimeout(0.2)
            for _ in range(64):
                try:
                    tcp.sendall(b"\r\n" * 8192)
                except TimeoutError:
                    break
        self.assertLess(resident(self.node) - before, 20_000)

    def test_never_reads(self) -> None:
        """Who asks over TCP and does not read the answers is not read any more."""
        before = resident(self.node)
        with self.tcp() as tcp:
            tcp.settimeout(0.5)
            sent = 0
            try:
                while sent < 100_000_000:
                    sent += tcp.send(request("OPTIONS", sent, transport="TCP") * 100)
            except TimeoutError:
                pass
            self.assertLess(sent, 100_000_000)
        self.assertLess(resident(self.node) - before, 20_000)

    def test_pipelining(self) -> None:
        """Hundreds of requests in one go over TCP have as many answers."""
        with self.tcp() as tcp:
            tcp.sendall(b"".join(request("OPTIONS", number, transport="TCP") for number in range(500)))
            received = b""
            while received.count(b"SIP/2.0 200") < 500:
                data = tcp.recv(65536)
                self.assertTrue(data)
                received += data

    def test_without_end(self) -> None:
        """Header fields without end, or a body that is too large, end the connection."""
        for beginning, filler in (
            (b"OPTIONS sip:example.org SIP/2.0\r\n", b"X: " + b"y" * 1000 + b"\r\n"),
            (b"OPTIONS sip:example.org SIP/2.0\r\nX: ", b"y" * 1000),
            (request("OPTIONS", 1).replace(b"Content-Length: 0", b"Content-Length: 99999999"), b"z" * 1000),
        ):
            with self.tcp() as tcp, self.assertRaises(OSError):
                tcp.sendall(beginning)
                for _ in range(1000):
                    tcp.sendall(filler)
                    time.sleep(0.001)

    def test_descriptors(self) -> None:
        """The node asks the system for all the descriptors that it may have."""
        assert self.node.process is not None
        limits = Path(f"/proc/{self.node.process.pid}/limits").read_text()
        soft, hard = limits.partition("Max open files")[2].split()[:2]
        self.assertEqual(min(int(hard), 65536), min(int(soft), 65536))

    def test_slow_streams(self) -> None:
        """Hundreds of connections that dribble do not keep others from being served."""
        slow = [self.tcp() for _ in range(300)]
        for number in range(30):
            for each in slow:
                each.sendall(request("REGISTER", 1, transport="TCP")[number : number + 1])
        self.assertTrue(self.options())


class ApplicationTests(Quiet):
    """SIP between nodes, over connections that AppAttach makes."""

    def connected(self, member: Member, shown: Member | None = None) -> ssl.SSLSocket:
        """The connection that the node opens to `member`, where it finds the certificate of `shown`."""
        listener = Listener(self.node.state.parent, shown or member, "127.0.0.1")
        self.addCleanup(listener.close)
        with self.intruder(member) as intruder:
            body = AppAttachReq(application=5060, role=b"passive", candidates=listener.candidates)
            self.assertIsInstance(intruder.ask(body), AppAttachAns)
            connection = listener.accept()
        self.addCleanup(connection.close)
        return connection

    def answer(self, connection: ssl.SSLSocket, data: bytes) -> bytes:
        connection.sendall(data)
        return connection.recv(65536)

    def query(self, number: int = 1) -> bytes:
        return request("REGISTER", number, transport="TLS")

    def test_not_a_registrar(self) -> None:
        """A node that is no registrar learns nothing of anybody's phones."""
        connection = self.connected(self.overlay.member())
        self.assertIn(b"SIP/2.0 403", self.answer(connection, self.query()))
        self.assertIn(b"SIP/2.0 403", self.answer(connection, request("INVITE", 2, transport="TLS")))

    def test_registrar(self) -> None:
        """A registrar is answered, but may not register anybody; and asks at a bounded rate."""
        connection = self.connected(self.overlay.member(role="registrar"))
        self.assertIn(b"SIP/2.0 200", self.answer(connection, self.query()))
        contact = request("REGISTER", 2, "Contact: <sip:mallory@127.0.0.1>\r\n", "TLS")
        self.assertIn(b"SIP/2.0 403", self.answer(connection, contact))
        received = b""
        connection.sendall(b"".join(self.query(number) for number in range(1000)))
        while received.count(b"SIP/2.0 ") < 1000:
            received += connection.recv(65536)
        self.assertGreater(received.count(b"SIP/2.0 503"), 100)

    def test_another_certificate(self) -> None:
        """Who answers at the address must be the node that signed the AppAttach."""
        connection = self.connected(self.overlay.member(), shown=self.overlay.member())
        try:
            self.assertEqual(b"", connection.recv(1000))
        except (ssl.SSLError, ConnectionError):
            pass
        self.assert_counted("link: other Node-ID")

    def test_garbage(self) -> None:
        """What is no SIP ends the connection."""
        connection = self.connected(self.overlay.member(role="registrar"))
        connection.sendall(b"\0" * 5000)
        try:
            self.assertEqual(b"", connection.recv(1000))
        except (ssl.SSLError, ConnectionError):
            pass

    def test_many(self) -> None:
        """The connections of one node take each other's place."""
        member = self.overlay.member(role="registrar")
        before = descriptors(self.node)
        kept = [self.connected(member) for _ in range(20)]
        until(lambda: descriptors(self.node) < before + 10, 10, "older ones are closed")
        self.assertIn(b"SIP/2.0 200", self.answer(kept[-1], self.query()))


class EnrollmentTests(Quiet):
    """Port 8443."""

    def https(self, data: bytes, seconds: float = 5) -> bytes:
        """All that is answered to `data`."""
        received = b""
        with tls_connection(self.node.address, 8443, self.node.state.parent, None, seconds) as tls:
            try:
                tls.sendall(data)
                while part := tls.recv(65536):
                    received += part
            except OSError:
                pass
        return received

    def post(self, body: bytes, content_type: str = "multipart/form-data; boundary=b", path: str = "/enroll") -> bytes:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return self.https(head.encode() + body)

    def tearDown(self) -> None:
        """The document is served still."""
        answer = self.https(b"GET /.well-known/reload-config HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        self.assertIn(b" 200 OK", answer)
        self.assertIn(b"</overlay>", answer)
        super().tearDown()

    def test_tls_garbage(self) -> None:
        """What is no TLS ends the connection."""
        for garbage in (b"GET / HTTP/1.0\r\n\r\n", Random(1).randbytes(5000), b"\x16\x03\x01\x40\x00" + bytes(20000)):
            with socket.create_connection((self.node.address, 8443), 5) as plain:
                try:
                    plain.sendall(garbage)
                    plain.shutdown(socket.SHUT_WR)
                    while plain.recv(1000):
                        pass
                except ConnectionError:
                    pass

    def test_nonsense(self) -> None:
        """Requests that make no sense are refused with a status of their own."""
        for data in (
            b"NONSENSE\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
            b"POST /enroll HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            b"POST /enroll HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 1000,
            b"POST /enroll HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"ffff\r\n"
            + b"x" * 65535
            + b"\r\nffff\r\n"
            + b"x" * 65535,
            b"POST /enroll?username=a&password=b HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            b"DELETE /enroll HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"GET /registrar/revocations HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        ):
            answer = self.https(data)
            # The answer is lost when the connection is closed with more to be read.
            self.assertRegex(answer[:20], rb"^(HTTP/1.1 (4\d\d|501)|$)", data[:60])

    def test_forms(self) -> None:
        """Hostile forms: no boundary, endless parts, names twice, no CSR, wrong types."""
        part = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        whole = part % (b"username", b"a") + part % (b"password", b"b") + part % (b"csr", b"c") + b"--b--\r\n"
        for body, content_type in (
            (whole, "multipart/form-data; boundary=b"),
            (whole, "multipart/form-data"),
            (whole, "multipart/form-data; boundary=" + "x" * 5000),
            (whole, "multipart/form-data; boundary=\x7f"),
            (whole.replace(b"--b--", b""), "multipart/form-data; boundary=b"),
            (b"--b\r\n" * 10_000, "multipart/form-data; boundary=b"),
            (part % (b"username", b"a") * 800, "multipart/form-data; boundary=b"),
            (b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n" * 500, "multipart/form-data; boundary=b"),
            (b"username=%ff&password=%00&csr=&nodeids=99999999999999999999", "application/x-www-form-urlencoded"),
            (b"&" * 60_000, "application/x-www-form-urlencoded"),
            (b"{}", "application/json"),
            (b"", "multipart/form-data; boundary=b"),
        ):
            answer = self.post(body, content_type)
            self.assertRegex(answer[:20], rb"^HTTP/1.1 4\d\d", f"{body[:30]!r} {content_type[:40]}")

    def test_guessing(self) -> None:
        """Wrong passwords are slowed down."""
        part = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        body = part % (b"username", b"guess") + part % (b"password", b"b") + part % (b"csr", b"c") + b"--b--\r\n"
        answers = [self.post(body)[9:12] for _ in range(25)]
        self.assertEqual({b"403", b"429"}, set(answers))

    def test_connections(self) -> None:
        """One address has but a part of the connections; they are given back."""
        before = descriptors(self.node)
        idle = [socket.create_connection((self.node.address, 8443), 5) for _ in range(200)]
        try:
            time.sleep(0.5)
            self.assertLess(descriptors(self.node), before + 80)
        finally:
            for each in idle:
                each.close()
        until(lambda: descriptors(self.node) <= before + 2, 15, "descriptors are given back")

    def test_renegotiation_and_resets(self) -> None:
        """Connections cut at any moment leave nothing behind."""
        before = descriptors(self.node)
        for number in range(60):
            try:
                tls = tls_connection(self.node.address, 8443, self.node.state.parent, None)
            except (ssl.SSLError, OSError):
                continue
            tls.sendall(b"POST /enroll HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"[: number + 1])
            tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            tls.close()
        until(lambda: descriptors(self.node) <= before + 2, 15, "descriptors are given back")


class ControlTests(_Hostile):
    """The control socket, whose users are the node's own: mistakes must do no harm all the same."""

    def control(self, data: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(10)
            control.connect(str(self.node.state / "control.sock"))
            received = b""
            try:
                control.sendall(data)
                while part := control.recv(65536):
                    received += part
            except OSError:
                pass
        return received

    def test_for_its_owner_alone(self) -> None:
        """The file mode is the access control."""
        self.assertEqual(0o600, (self.node.state / "control.sock").stat().st_mode & 0o777)
        others = [path for path in self.node.state.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
        # Certificates are for everybody, also while one is being written.
        secret = [str(path) for path in others if not path.name.removesuffix(".new").endswith(".crt")]
        self.assertEqual([], secret)

    def test_nonsense(self) -> None:
        """Bad JSON, deep JSON, other types than asked for, methods that are none."""
        for body in (
            b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"1", b'{"name": 1}', b'{"name": ""}', b'{"name": {"a": []}}',
            b'"' + b"x" * 1_000_000 + b'"',
        ):  # fmt: skip
            for path in ("/users", "/invitations", "/users/a", "/nonsense", "/status?offset=x&limit=-1"):
                for method in ("POST", "PUT", "DELETE", "GET"):
                    head = f"{method} {path} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                    answer = self.control(head + body)
                    self.assertRegex(answer[:20], rb"^HTTP/1.[01] [24]\d\d", f"{method} {path} {body[:20]!r}")

    def test_garbage(self) -> None:
        """Bytes that are no HTTP."""
        for data in (
            b"\xff\xfe\r\n\r\n",
            b"\x00" * 1000,
            b"G\xff /status HTTP/1.0\r\n\r\n",
            b"GET /%ff HTTP/1.0\r\n\r\n",
        ):
            self.control(data)
