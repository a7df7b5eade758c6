"""The proxy's pieces that need nothing around them: tokens, loops, breadth, the best response, deadlines."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_ntop

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.sip.errors import SIPFailure, SIPParseError
from p2psip.sip.interfaces import Source
from p2psip.sip.message import Response
from p2psip.sip.proxy.answers import best_response
from p2psip.sip.proxy.deadlines import Deadlines
from p2psip.sip.proxy.flows import parse_source, source_text, where_to_reach
from p2psip.sip.proxy.loops import branch, incoming_breadth, loop_digest, require_no_loop, shares
from p2psip.sip.proxy.tokens import NOWHERE, End, Token, TokenMint, digest_of_tag

from ..fakes import make_request

PORTS = st.integers(1, 65535)
FLOWS = st.builds(
    lambda host, port, transport: End(flow=Source(host, port, transport)),
    # As sockets spell them.
    st.ip_addresses().map(lambda host: inet_ntop(AF_INET if host.version == 4 else AF_INET6, host.packed)),
    PORTS,
    st.sampled_from(("UDP", "TCP", "TLS")),
)
ENDS = st.one_of(st.just(NOWHERE), FLOWS, st.builds(lambda node: End(node=node), st.binary(min_size=16, max_size=20)))


class TokenTests(SynchronousTestCase):
    mint = TokenMint(bytes(32))
    token = Token(End(flow=Source("192.0.2.1", 5060, "UDP")), End(node=bytes(16)), digest_of_tag("a"))

    @given(ENDS, ENDS, st.text(max_size=20), st.integers(0, 255))
    def test_read_again(self, caller: End, callee: End, tag: str, flags: int) -> None:
        token = Token(caller, callee, digest_of_tag(tag), flags)
        text = self.mint.make(token, "call")
        self.assertEqual(self.mint.read(text, "call"), token)
        self.assertLessEqual(len(text), 90)
        self.assertTrue(text.isascii() and "=" not in text and "/" not in text)

    def test_of_one_dialog_and_one_node(self) -> None:
        """It is worth nothing with another Call-ID, nor for another node."""
        text = self.mint.make(self.token, "call")
        self.assertIsNone(self.mint.read(text, "call2"))
        self.assertIsNone(TokenMint(b"x" * 32).read(text, "call"))

    @given(st.data())
    def test_changed(self, data: st.DataObject) -> None:
        """No character of it can be changed, none be missing."""
        text = self.mint.make(self.token, "call")
        place = data.draw(st.integers(0, len(text) - 2))
        other = data.draw(st.sampled_from("ABCdef019-_").filter(lambda c: c != text[place]))
        self.assertIsNone(self.mint.read(text[:place] + other + text[place + 1 :], "call"))
        self.assertIsNone(self.mint.read(text[:place], "call"))

    @given(st.text(max_size=200))
    def test_anything(self, text: str) -> None:
        self.assertIsNone(self.mint.read(text, "call"))

    def test_direction(self) -> None:
        self.assertEqual(self.token.direction("a"), (self.token.caller, self.token.callee))
        self.assertEqual(self.token.direction("b"), (self.token.callee, self.token.caller))


class LoopTests(SynchronousTestCase):
    def test_loop_and_spiral(self) -> None:
        """What comes back as it left is a loop; with another Request-URI it spirals (RFC 5393 §4.2)."""
        request = make_request("INVITE", uri="sip:bob@example.org")
        digest = loop_digest(request, b"k")
        require_no_loop(request, digest)
        request.prepend("Via", f"SIP/2.0/UDP 192.0.2.9;branch={branch(digest, 'x')}")
        self.assertEqual(self.assertRaises(SIPFailure, require_no_loop, request, digest).status, 482)
        request.set_uri("sip:carol@example.org")
        require_no_loop(request, loop_digest(request, b"k"))
        self.assertNotEqual(digest, loop_digest(make_request("INVITE", uri="sip:bob@example.org"), b"other"))

    def test_breadth(self) -> None:
        """RFC 5393 §5.3."""
        self.assertEqual(incoming_breadth(make_request()), 60)
        for text, breadth in (("1", 1), ("0", 0), ("59", 59), ("1000", 60)):
            self.assertEqual(incoming_breadth(make_request(Max_Breadth=text)), breadth)
        self.assertRaises(SIPParseError, incoming_breadth, make_request(Max_Breadth="many"))
        self.assertEqual(shares(60, 7), [9, 9, 9, 9, 8, 8, 8])
        self.assertEqual(shares(2, 5), [1, 1])
        self.assertEqual(self.assertRaises(SIPFailure, shares, 0, 1).status, 440)

    @given(st.integers(1, 60), st.integers(1, 60))
    def test_breadth_is_kept(self, breadth: int, branches: int) -> None:
        dealt = shares(breadth, branches)
        self.assertEqual(sum(dealt), breadth)
        self.assertGreaterEqual(min(dealt), 1)


class BestResponseTests(SynchronousTestCase):
    """RFC 3261 §16.7, steps 6 and 7."""

    def best(self, *statuses: int) -> int:
        return best_response([Response(status) for status in statuses]).status

    def test_choice(self) -> None:
        for statuses, best in (
            ((486, 600, 302), 600), ((486, 302, 500), 302), ((500, 486), 486), ((404, 407, 486), 407),
            ((408, 486, 480), 486), ((503, 500), 500), ((487, 487), 487), ((480, 404), 404),
        ):  # fmt: skip
            self.assertEqual(self.best(*statuses), best, statuses)

    def test_one_busy_branch_is_not_all_of_us(self) -> None:
        response = Response(503, None, [("Retry-After", "100")])
        self.assertEqual((best_response([response]).status, response.get("Retry-After")), (500, None))

    def test_all_challenges(self) -> None:
        responses = [
            Response(407, None, [("Proxy-Authenticate", "one")]),
            Response(401, None, [("WWW-Authenticate", "two")]),
            Response(407, None, [("Proxy-Authenticate", "one"), ("Proxy-Authenticate", "three")]),
        ]
        best = best_response(responses)
        self.assertEqual(best.headers["Proxy-Authenticate"], ["one", "three"])
        self.assertEqual(best.headers["WWW-Authenticate"], ["two"])


class DeadlineTests(SynchronousTestCase):
    def test_order(self) -> None:
        deadlines: Deadlines[str] = Deadlines(4.0)
        for now, item in enumerate("abc"):
            deadlines.set(item, now)
        deadlines.set("a", 3)
        deadlines.clear("b")
        self.assertEqual(list(deadlines.over(5.9)), [])
        self.assertEqual(list(deadlines.over(6)), ["c"])
        self.assertEqual((len(deadlines), list(deadlines.over(7)), len(deadlines)), (1, ["a"], 0))


class FlowTests(SynchronousTestCase):
    """Where a phone is reached: at its contact where that can be, else along the way that it opened."""

    def test_source_text(self) -> None:
        for source in (Source("192.0.2.1", 5060, "UDP"), Source("2001:db8::1", 1, "TLS")):
            self.assertEqual(parse_source(source_text(source)), source)
        for text in ("", "UDP 192.0.2.1", "SCTP 192.0.2.1 5060", "UDP 192.0.2.1 x"):
            self.assertIsNone(parse_source(text))

    def test_where(self) -> None:
        udp, tcp, tls = (Source("192.0.2.1", 40000, transport) for transport in ("UDP", "TCP", "TLS"))
        six = Source("2001:db8::1", 40000, "UDP")
        for contact, source, reached in (
            ("sip:a@192.0.2.1", udp, Source("192.0.2.1", 5060, "UDP")),
            ("sip:a@192.0.2.1:5070", udp, Source("192.0.2.1", 5070, "UDP")),
            ("sip:a@192.0.2.1;transport=tcp", udp, Source("192.0.2.1", 5060, "TCP")),
            ("sip:a@192.0.2.1:5070", tcp, Source("192.0.2.1", 5070, "TCP")),
            ("sip:a@192.0.2.1:40000;transport=tcp", tcp, tcp),
            ("sip:a@[2001:DB8:0::1]", six, Source("2001:db8::1", 5060, "UDP")),
            ("sip:a@10.0.0.1", udp, udp),  # behind a NAT
            ("sip:a@phone.example", tcp, tcp),
            ("sip:a@192.0.2.1:5061;transport=tls", tls, tls),
            ("sips:a@192.0.2.1:5061", tls, tls),
            ("sip:a@192.0.2.1:5070;ob", udp, udp),
            ("no URI", udp, udp),
        ):
            self.assertEqual(where_to_reach(contact, source), reached, contact)
        self.assertEqual(where_to_reach("sip:a@192.0.2.1", udp, outbound=True), udp)
