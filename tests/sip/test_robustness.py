"""The whole server against whatever may come: it answers or is silent, and never trips."""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from p2psip.sip.digest import DigestChallenge, authorization_for
from p2psip.sip.edge import SIPEdge
from p2psip.sip.message import Response, parse_head
from p2psip.sip.transport import DatagramPort
from tests.sip.fakes import DOMAIN, make_request
from tests.sip.test_message import PIECES
from tests.sip.test_registrar import ServerTestCase
from tests.sip.test_torture import TORTURE


class Port(DatagramPort):
    """A UDP port that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, data: bytes, host: str, port: int) -> bool:
        self.sent.append(data)
        return True


class RobustnessTests(ServerTestCase):
    open_ = True

    def setUp(self) -> None:
        super().setUp()
        self.edge = SIPEdge(Clock(), self.server, Random(1))
        self.port = Port()

    def datagram(self, data: bytes) -> list[bytes]:
        """What is sent back: whole responses, though they may repeat what was malformed."""
        self.port.sent.clear()
        self.edge._datagram_received(self.port, data, "192.0.2.1", 5060)
        for sent in self.port.sent:
            self.assertIsInstance(parse_head(sent.partition(b"\r\n\r\n")[0]), Response)
        self.assertEqual(self.flushLoggedErrors(), [])
        return list(self.port.sent)

    def authorized(self) -> bytes:
        """A REGISTER with every header field that is looked into, and the right credentials."""
        request = make_request(
            Contact=(
                '"A, B" <sip:alice@192.0.2.1;x=y>;q=0.5;expires=60;+sip.instance="<urn:uuid:1>";reg-id=1, '
                "<sip:b@h>"
            ),
            Expires="300",
            Supported="path",
        )
        nonce = self.authenticator._mint.make(self.now)
        challenge = DigestChallenge(DOMAIN, nonce, "SHA-256")
        proof = authorization_for(challenge, "REGISTER", request.uri_text, "alice", "pw", "c")
        request.set("Authorization", str(proof))
        return request.encode()

    def test_torture(self) -> None:
        """Each torture message that is a request, but for one that cannot be read at all, gets a response."""
        silent = []
        for path in sorted(TORTURE.glob("*.dat")):
            data = path.read_bytes()
            if not self.datagram(data) and not data.startswith(b"SIP/"):
                silent.append(path.stem)
        self.assertEqual(silent, ["baddn", "test"])

    def test_the_request_that_is_changed_below(self) -> None:
        (sent,) = self.datagram(self.authorized())
        self.assertTrue(sent.startswith(b"SIP/2.0 200 OK\r\n"), sent)

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.integers(0, 5000), st.sampled_from((b"", b"x")), PIECES), max_size=4))
    def test_changed_requests(self, changes: list[tuple[int, bytes, bytes]]) -> None:
        data = bytearray(self.authorized())
        for position, cut, piece in changes:
            position %= len(data)
            data[position : position + len(cut) * len(piece)] = piece
        self.datagram(bytes(data))

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.sampled_from(
            ("Contact", "Authorization", "Expires", "Require", "To", "From", "Via", "Max-Forwards", "Route")
        ),
        st.text(alphabet='*ab@:;,<>"\\[]%?&=. \t/19\udc80é', max_size=40),
        st.sampled_from(("REGISTER", "INVITE", "OPTIONS", "ACK", "CANCEL", "X")),
    )
    def test_changed_header_fields(self, name: str, text: str, method: str) -> None:
        request = make_request(method, f"sip:bob@{DOMAIN}")
        request.headers[name] = [text]
        self.datagram(request.encode())

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.integers(0, 5000), PIECES), max_size=4), st.integers(1, 400))
    def test_changed_stream(self, changes: list[tuple[int, bytes]], step: int) -> None:
        data = bytearray(self.authorized() * 2)
        for position, piece in changes:
            position %= len(data)
            data[position : position + len(piece)] = piece
        stream = self.edge.stream()
        stream.makeConnection(StringTransport())
        for start in range(0, len(data), step):
            stream.dataReceived(bytes(data[start : start + step]))
        stream.connectionLost()
        self.assertEqual(self.flushLoggedErrors(), [])
