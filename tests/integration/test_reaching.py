"""Whom calls reach in an overlay of real nodes: by forwarding, and by the GRUU of a device (RFC 7904 §3, §6)."""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from p2psip.sip.message import Request, Response, parse
from tests.sip.fakes import authorize

from .nodes import World
from .phones import Softphone

INSTANCE = "<urn:uuid:00000000-0000-1000-8000-00AABBCCDDEE>"


class Reaching(SynchronousTestCase):
    """Two nodes; alice's softphone at the first."""

    def setUp(self) -> None:
        self.world = World()
        self.addCleanup(self.world.close)
        first = self.world.founder()
        self.nodes = [first, self.world.join(first)]
        self.passwords: dict[str, str] = {}

    def softphone(self, node: int, user: str, answers: bool = False) -> Softphone:
        settings = self.nodes[0].json("user", "add", user)
        self.passwords[user] = settings["password"]
        phone = Softphone(
            self.world.address(), user, settings["password"], self.nodes[node].address, "udp", answers,
            self.world.overlay,
        )  # fmt: skip
        self.addCleanup(phone.close)
        phone.wait_registered()
        return phone

    def test_forward(self) -> None:
        """Alice calls bob, whose calls go to carol; `p2psip forward` and `p2psip lookup` say so."""
        alice, bob = self.softphone(0, "alice"), self.softphone(1, "bob")
        carol = self.softphone(0, "carol", answers=True)
        printed = self.nodes[1].p2psip("forward", "bob", "carol").stdout
        self.assertEqual("calls for bob@example.org go to carol@example.org\n", printed)
        self.assertIn(" as carol@example.org\n", self.nodes[0].p2psip("lookup", "bob").stdout)
        self.assertIn("serves no phone", self.nodes[0].p2psip("forward", "bob", "carol", check=False).stderr)
        alice.command("dial", "sip:bob@example.org")
        carol.wait_event("CALL_ESTABLISHED")
        alice.wait_event("CALL_ESTABLISHED")
        self.assertNotIn("INVITE sip:bob", bob.log())
        alice.command("hangup")

    def test_gruu(self) -> None:
        """A phone that knows GRUUs is told its own, and by it alice's call comes to this phone alone."""
        alice, bob = self.softphone(0, "alice"), self.softphone(1, "bob")
        phone = Phone(self.world.address(), self.nodes[1].address)
        self.addCleanup(phone.socket.close)
        contact = next(c for c in phone.register("bob", self.passwords["bob"]).contacts if "pub-gruu" in c.parameters
                       and str(phone.host) in c.uri_text)  # fmt: skip
        gruu = (contact.parameters["pub-gruu"] or "").strip('"')
        self.assertTrue(gruu.startswith("sip:bob@example.org;gr="))
        alice.command("dial", gruu)
        invite = phone.receive()
        assert isinstance(invite, Request)
        self.assertEqual(("INVITE", f"sip:bob@{phone.host}"), (invite.method, invite.uri_text))
        phone.send(invite.response(486, to_tag="x"))
        alice.wait_event("CALL_CLOSED")
        self.assertNotIn("INVITE sip:bob", bob.log())


class Phone:
    """A phone written by hand, which knows GRUUs."""

    def __init__(self, host: str, server: str) -> None:
        self.host = host
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 5060))
        self.socket.connect((server, 5060))
        self.socket.settimeout(15)

    def send(self, message: Request | Response) -> None:
        self.socket.send(message.encode())

    def receive(self) -> Request | Response:
        return parse(self.socket.recv(65535))

    def register(self, user: str, password: str) -> Response:
        request = Request(
            "REGISTER",
            "sip:example.org",
            [
                ("Via", f"SIP/2.0/UDP {self.host};branch=z9hG4bK1;rport"),
                ("Max-Forwards", "70"),
                ("From", f"<sip:{user}@example.org>;tag=1"),
                ("To", f"<sip:{user}@example.org>"),
                ("Call-ID", self.host),
                ("CSeq", "1 REGISTER"),
                ("Supported", "gruu"),
                ("Contact", f'<sip:{user}@{self.host}>;+sip.instance="{INSTANCE}"'),
            ],
        )
        self.send(request)
        challenge = self.receive()
        assert isinstance(challenge, Response)
        request.set("Via", f"SIP/2.0/UDP {self.host};branch=z9hG4bK2;rport")
        request.set("CSeq", "2 REGISTER")
        self.send(authorize(request, challenge, password))
        response = self.receive()
        assert isinstance(response, Response)
        return response
