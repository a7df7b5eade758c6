"""Messages and their header fields (RFC 3261 §7, §20), and that nothing but SIPParseError comes of bad ones."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.sip.errors import SIPParseError
from p2psip.sip.headers import NameAddr, parse_name_addr, parse_via, write_date
from p2psip.sip.message import (
    MOST_BODY_BYTES,
    MOST_HEAD_BYTES,
    Request,
    Response,
    check_all,
    header_name,
    parse,
)
from tests.sip.test_torture import TORTURE

REGISTER = (
    "REGISTER sip:example.org SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 192.0.2.1:5062;branch=z9hG4bKa;rport, SIP/2.0/TCP proxy.example.org;branch=z9hG4bKb\r\n"
    "Via: SIP/2.0/UDP [2001:db8::1];branch=z9hG4bKc\r\n"
    "Max-Forwards: 70\r\n"
    'From: "Alice, A." <sip:alice@example.org>;tag=1\r\n'
    "To: <sip:alice@example.org>\r\n"
    "Call-ID: 1@192.0.2.1\r\n"
    "CSeq: 1 REGISTER\r\n"
    'm: "Alice, A." <sip:alice@192.0.2.1>;q=0.5;expires=60, sip:alice@192.0.2.2;+sip.instance="<urn:uuid:1>"\r\n'
    "X-Mine: one\r\n"
    "x-mine: two\r\n"
    "Expires: 300\r\n"
    "Content-Length: 2\r\n"
    "\r\nhi"
)


def register(text: str = REGISTER) -> Request:
    message = parse(text.encode())
    assert isinstance(message, Request)
    return message


def replaced(old: str, new: str) -> bytes:
    assert old in REGISTER
    return REGISTER.replace(old, new, 1).encode()


class MessageTests(SynchronousTestCase):
    def test_access(self) -> None:
        message = register()
        self.assertEqual((message.method, message.uri_text, message.body), ("REGISTER", "sip:example.org", b"hi"))
        self.assertEqual([via.branch for via in message.vias], ["z9hG4bKa", "z9hG4bKb", "z9hG4bKc"])
        self.assertEqual(message.from_.display_name, "Alice, A.")
        self.assertEqual((message.to.tag, message.call_id, message.max_forwards), (None, "1@192.0.2.1", 70))
        one, two = message.contacts
        self.assertEqual((one.q, one.expires, one.uri_text), (0.5, 60, "sip:alice@192.0.2.1"))
        self.assertEqual((two.q, two.expires), (None, None))
        self.assertEqual(two.parameters["+sip.instance"], '"<urn:uuid:1>"')
        self.assertEqual(message.values("X-mine"), ["one", "two"])
        self.assertEqual((message.get("x-mine"), message.get("absent"), message.expires), ("one", None, 300))

    def test_changes_are_seen(self) -> None:
        message = register()
        self.assertEqual(message.via.branch, "z9hG4bKa")
        message.prepend("v", "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK0")
        self.assertEqual(message.via.branch, "z9hG4bK0")
        message.set("Max-Forwards", "5")
        self.assertEqual(message.max_forwards, 5)
        message.add("m", "<sip:third@192.0.2.3>")
        self.assertEqual(len(message.contacts), 3)
        message.remove("Contact")
        self.assertEqual(message.contacts, [])

    def test_encode(self) -> None:
        request = Request("OPTIONS", "sip:b@example.org", [("via", "SIP/2.0/UDP h"), ("Via", "SIP/2.0/UDP i")], b"x")
        self.assertEqual(
            request.encode(),
            b"OPTIONS sip:b@example.org SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nVia: SIP/2.0/UDP i\r\n"
            b"Content-Length: 1\r\n\r\nx",
        )
        self.assertEqual(Response(302).encode(), b"SIP/2.0 302 Moved Temporarily\r\nContent-Length: 0\r\n\r\n")

    def test_line_break_in_the_start_line(self) -> None:
        for data in (b"SIP/2.0 200 O\nK\r\n", b"SIP/2.0 200 O\rK\r\n", b"OPTIONS sip:a\n SIP/2.0\r\n"):
            error = self.assertRaises(SIPParseError, parse, data + b"\r\n")
            self.assertEqual(error.what, "a line break that is not CRLF")

    def test_no_smuggled_header_fields(self) -> None:
        message = register()
        for text in ("a\r\nTo: b", "a\nb", "a\rb"):
            self.assertRaises(ValueError, message.set, "Subject", text)
            self.assertRaises(ValueError, message.add, "Subject", text)
            self.assertRaises(ValueError, Response, 400, text)
        for broken in ("Subject: a\nb\r\n", "Subject: a\rb\r\n"):
            self.assertRaises(SIPParseError, parse, replaced("X-Mine: one\r\n", broken))

    def test_names(self) -> None:
        for spelling, name in (
            ("v", "Via"), ("L", "Content-Length"), ("call-id", "Call-ID"), ("CSEQ", "CSeq"), ("cSeQ", "CSeq"),
            ("www-authenticate", "WWW-Authenticate"), ("p-asserted-identity", "P-Asserted-Identity"),
        ):  # fmt: skip
            self.assertEqual(header_name(spelling), name)

    def test_response(self) -> None:
        """What a response copies (RFC 3261 §8.2.6.2), and the tag that it adds."""
        request = register()
        response = request.response(200, to_tag="t")
        for name in ("Via", "From", "Call-ID", "CSeq"):
            self.assertEqual(response.headers[name], request.headers[name])
        self.assertEqual(response.to.tag, "t")
        self.assertEqual(request.response(100, to_tag="t").to.tag, None)
        tagged = register(REGISTER.replace("To: <sip:alice@example.org>", "To: <sip:alice@example.org>;tag=x"))
        self.assertEqual(tagged.response(200, to_tag="t").to.tag, "x")
        self.assertEqual(Response(499).reason, "")

    def test_stamp(self) -> None:
        """received and rport as RFC 3261 §18.2.1 and RFC 3581 §4 say, whatever the sender claimed."""
        request = register()
        request.stamp_source("192.0.2.1", 1024)
        self.assertEqual((request.via.received, request.via.rport), ("192.0.2.1", 1024))
        again = parse(request.encode())
        self.assertEqual((again.via.received, again.via.rport, len(again.vias)), ("192.0.2.1", 1024, 3))
        plain = register(REGISTER.replace(";rport", ""))
        plain.stamp_source("192.0.2.1", 1024)
        self.assertEqual(plain.headers["Via"], register(REGISTER.replace(";rport", "")).headers["Via"])
        plain.stamp_source("2001:db8::7", 1024)
        self.assertEqual((plain.via.received, plain.via.rport), ("2001:db8::7", None))
        liar = register(REGISTER.replace(";rport", ";received=203.0.113.9"))
        liar.stamp_source("192.0.2.1", 1024)
        self.assertEqual(liar.via.received, "192.0.2.1")

    def test_limits(self) -> None:
        for data, status in (
            (replaced("X-Mine: one", "X-Mine: " + "x" * MOST_HEAD_BYTES), 513),
            (replaced("X-Mine: one", "\r\n".join(["X-Mine: one"] * 257)), 513),
            (replaced("Content-Length: 2\r\n\r\nhi", "\r\n" + "x" * (MOST_BODY_BYTES + 1)), 413),
            (replaced("X-Mine: one", "X-Mine: one" + "\r\n a" * 512), 513),
            (replaced("Via: ", "Via: " + "SIP/2.0/UDP a, " * 100), 400),
            (replaced("CSeq: 1 ", f"CSeq: {2**31} "), 400),
            (replaced("Max-Forwards: 70", "Max-Forwards: 256"), 400),
            (replaced("Content-Length: 2", "Content-Length: 99999999999999999999999"), 400),
        ):
            self.assertEqual(self.assertRaises(SIPParseError, parse, data).status, status)

    def test_many_contacts(self) -> None:
        message = register()
        message.set("Contact", ",".join(["<sip:a@h>"] * 101))
        self.assertRaises(SIPParseError, lambda: message.contacts)

    def test_mandatory(self) -> None:
        for name in ("Via", "From", "To", "Call-ID", "CSeq"):
            lines = [line for line in REGISTER.split("\r\n") if not line.startswith(f"{name}:")]
            error = self.assertRaises(SIPParseError, parse, "\r\n".join(lines).encode())
            self.assertEqual(error.what, f"no {name}")

    def test_not_sip(self) -> None:
        for data in (
            b"",
            b"\r\n\r\n",
            b"\0" * 100 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"SIP/2.0\r\n\r\n",
        ):
            self.assertRaises(SIPParseError, parse, data)

    def test_expires_out_of_range_is_as_absent(self) -> None:
        for text in (str(2**32), "soon", "-1", ""):
            self.assertIsNone(register(REGISTER.replace("Expires: 300", f"Expires: {text}")).expires)


class HeaderTests(SynchronousTestCase):
    def test_name_addr(self) -> None:
        for text, written in (
            ("sip:a@b;tag=1", "<sip:a@b>;tag=1"),
            ("A B <sip:a@b;x>;Tag=1", '"A B" <sip:a@b;x>;tag=1'),
            ('"q \\" ; , <"<sip:a@b> ; p = "v;,"', '"q \\" ; , <" <sip:a@b>;p="v;,"'),
            ("<tel:+1>", "<tel:+1>"),
        ):
            self.assertEqual(str(parse_name_addr(text)), written)
        self.assertEqual(str(NameAddr("sip:a@b", "Ü", {"q": "0.5"})), '"Ü" <sip:a@b>;q=0.5')

    def test_bad_name_addr(self) -> None:
        for text in (
            "", "<>", "<sip:a@b", '"a <sip:a@b>', '"a" sip:a@b', "a, b <sip:a@b>", "<sip:a@b>;", "<sip:a@b>;;a",
            "<sip:a@b>;a;A", "<sip:a@b>x", "< sip:a@b>", "<sip:a@b>;a=", '<sip:a@b>;a="', "sip:a@b?c=d",
            "<sip:a@b>" + "".join(f";p{number}" for number in range(65)),
        ):  # fmt: skip
            self.assertRaises(SIPParseError, parse_name_addr, text)

    def test_q(self) -> None:
        for text, value in (("0", 0.0), ("1", 1.0), ("0.", 0.0), ("0.125", 0.125), ("1.000", 1.0)):
            self.assertEqual(parse_name_addr(f"<sip:a@b>;q={text}").q, value)
        for text in ("2", "1.1", "0.1234", "-1", ".5", "nan"):
            self.assertRaises(SIPParseError, lambda text=text: parse_name_addr(f"<sip:a@b>;q={text}").q)

    def test_via(self) -> None:
        via = parse_via("SIP / 2.0 / udp [2001:DB8::1] : 5061 ;branch=b;rport")
        self.assertEqual((via.transport, via.sent_by, via.branch), ("UDP", ("2001:db8::1", 5061), "b"))
        self.assertEqual(str(via), "SIP/2.0/UDP [2001:DB8::1]:5061;branch=b;rport")
        for text in ("", "SIP/2.0/UDP", "SIP/3.0/UDP a", "HTTP/2.0/UDP a", "SIP/2.0/UDP a b", "SIP/2.0/UDP [x]",
                     "SIP/2.0/UDP a:0", "SIP/2.0/UDP a:99999", "SIP/2.0/UDP a;branch=1;branch=2"):  # fmt: skip
            self.assertRaises(SIPParseError, parse_via, text)

    def test_date(self) -> None:
        self.assertEqual(write_date(1289693040), "Sun, 14 Nov 2010 00:04:00 GMT")


PIECES = st.one_of(
    st.binary(max_size=4),
    st.sampled_from(b'" < > ; , \r\n \r \n % @ : [::1] \x00 * = sip: z9hG4bK 99999999999 -1 \\ SIP/2.0'.split(b" ")),
)
"""What changes a message: any bytes, and those that mean something."""

SEEDS = [path.read_bytes() for path in sorted(TORTURE.glob("*.dat"))]


def survive(data: bytes) -> None:
    """Read all that can be read; what could be read is written and reads the same again."""
    try:
        message = parse(data)
        check_all(message)
    except SIPParseError as error:
        if isinstance(error.message, Request):
            error.message.response(error.status).encode()
        return
    again = parse(message.encode())
    assert {**again.headers, "Content-Length": []} == {**message.headers, "Content-Length": []}
    for contact in [] if message.wildcard_contact else message.contacts:
        _ = contact.expires
        str(contact)
    if isinstance(message, Request):
        message.stamp_source("192.0.2.1", 5060)
        parse(message.response(200, to_tag="x").encode())


class FuzzTests(SynchronousTestCase):
    """For any bytes the only exception is SIPParseError."""

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 2000), PIECES), max_size=6))
    def test_mutated(self, seed: bytes, changes: list[tuple[int, bytes]]) -> None:
        data = bytearray(seed)
        for position, piece in changes:
            position %= len(data)
            data[position : position + len(piece)] = piece
        survive(bytes(data))

    @settings(max_examples=200, deadline=None)
    @given(st.text(alphabet='ab@:;,<>"\\[]%?&=*. \t/1', max_size=60), st.sampled_from(("m", "f", "v", "Route", "CSeq")))
    def test_header_fields(self, text: str, name: str) -> None:
        survive(REGISTER.replace("X-Mine: one", f"{name}: {text}").encode())

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=300))
    def test_bytes(self, data: bytes) -> None:
        survive(data)
        survive(b"OPTIONS sip:a SIP/2.0\r\n" + data + b"\r\n\r\n")
