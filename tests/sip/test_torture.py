"""The torture messages of RFC 4475 and RFC 5118: each is read, or refused as its RFC says."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from p2psip.sip.errors import SIPParseError
from p2psip.sip.message import Request, Response, check_all, parse
from p2psip.sip.uri import SIPURI

TORTURE = Path(__file__).with_name("torture")

VALID_4475 = [
    "wsinv",
    "intmeth",
    "esc01",
    "escnull",
    "esc02",
    "lwsdisp",
    "longreq",
    "dblreq",
    "semiuri",
    "transports",
    "mpart01",
    "unreason",
    "noreason",
    "badbranch",
    "unkscm",
    "novelsc",
    "unksm2",
    "bext01",
    "invut",
    "regaut01",
    "bcast",
    "zeromf",
    "cparam01",
    "cparam02",
    "regescrt",
    "sdp01",
    "inv2543",
    "baddate",
]
"""Well formed, or (badbranch, baddate) wrong only in what is up to a later layer."""

INVALID_4475 = {
    "badinv01": (400, "a parameter has no valid name"),
    "clerr": (400, "Content-Length is beyond the end of the message"),
    "ncl": (400, "Content-Length is not a number in its range"),
    "scalar02": (400, "CSeq is not a number in its range"),
    "scalarlg": (400, "CSeq is not a number in its range"),
    "quotbal": (400, "a quoted string does not end"),
    "ltgtruri": (400, "text where the Request-URI is due"),
    "lwsruri": (400, "white space too much in the start line"),
    "lwsstart": (400, "white space too much in the start line"),
    "trws": (400, "white space too much in the start line"),
    "escruri": (400, "header fields in the Request-URI"),
    "regbadct": (400, 'a URI with "?" or "," is not within <>'),
    "badaspec": (400, "text where a URI is due"),
    "baddn": (400, "the header fields do not end"),
    "badvers": (505, "another SIP version"),
    "mismatch01": (400, "CSeq has another method"),
    "mismatch02": (400, "CSeq has another method"),
    "bigcode": (400, "the status code is out of range"),
    "insuf": (400, "no From"),
    "multi01": (400, "more than one From"),
    "mcl01": (400, "several Content-Length"),
    "test": (400, "the start line is not that of a SIP message"),
}

VALID_5118 = [
    "ipv6-good",
    "port-ambiguous",
    "port-unambiguous",
    "via-received-param-with-delim",
    "via-received-param-no-delim",
    "ipv6-in-sdp",
    "mult-ip-in-header",
    "mult-ip-in-sdp",
    "ipv4-mapped-ipv6",
    "ipv6-bug-abnf-3-colons",
    "ipv6-correct-abnf-2-colons",
]


def read(name: str) -> bytes:
    return (TORTURE / f"{name}.dat").read_bytes()


def accept(data: bytes) -> Request | Response:
    message = parse(data)
    check_all(message)
    return message


def request(name: str) -> Request:
    message = accept(read(name))
    assert isinstance(message, Request)
    return message


class TortureTests(SynchronousTestCase):
    """Verdicts, and what must have been understood of the valid ones."""

    def test_all_are_judged(self) -> None:
        judged = {*VALID_4475, *INVALID_4475, *VALID_5118, "ipv6-bad"}
        self.assertEqual({path.stem for path in TORTURE.glob("*.dat")}, judged)

    def test_valid(self) -> None:
        for name in (*VALID_4475, *VALID_5118):
            message = accept(read(name))
            again = accept(message.encode())
            self.assertEqual(again.headers | {"Content-Length": []}, message.headers | {"Content-Length": []}, name)
            self.assertEqual(again.body, message.body, name)

    def test_invalid(self) -> None:
        for name, verdict in INVALID_4475.items():
            error = self.assertRaises(SIPParseError, accept, read(name))
            self.assertEqual((error.status, error.what), verdict, name)

    def test_ipv6_without_brackets(self) -> None:
        error = self.assertRaises(SIPParseError, accept, read("ipv6-bad"))
        self.assertEqual((error.status, error.what), (400, "a malformed sip URI"))

    def test_refused_requests_can_be_answered(self) -> None:
        """What is wrong leaves enough for a response, wherever header fields could be told from each other."""
        unreadable = {"baddn", "test", "scalarlg", "bigcode", "regbadct"}
        for name in INVALID_4475.keys() - unreadable:
            error = self.assertRaises(SIPParseError, parse, read(name))
            assert isinstance(error.message, Request), name
            self.assertIn("Via", error.message.response(error.status).headers, name)

    def test_wsinv(self) -> None:
        message = request("wsinv")
        self.assertEqual(message.to.tag, "1918181833n")
        self.assertEqual(message.from_.display_name, 'J Rosenberg \\"')
        self.assertEqual(message.max_forwards, 68)
        self.assertEqual(message.cseq, (9, "INVITE"))
        self.assertEqual(
            [(via.transport, via.host, via.branch) for via in message.vias],
            [
                ("UDP", "192.0.2.2", "390skdjuw"),
                ("TCP", "spindle.example.com", "z9hG4bK9ikj8"),
                ("UDP", "192.168.255.111", "z9hG4bK30239"),
            ],
        )
        self.assertEqual(message.get("Subject"), "")
        self.assertEqual(message.get("NewFangledHeader"), "newfangled value continued newfangled value")
        self.assertEqual(message.get("UnknownHeaderWithUnusualValue"), ";;,,;;,;")
        (contact,) = message.contacts
        self.assertEqual((contact.display_name, contact.q), ('Quoted string ""', 0.33))
        self.assertEqual(contact.parameters["newparam"], "newvalue")
        (route,) = message.routes
        assert isinstance(route.uri, SIPURI)
        self.assertEqual(route.uri.parameters, {"lr": None, "unknownwith": "value", "unknown-no-value": None})

    def test_intmeth(self) -> None:
        message = request("intmeth")
        self.assertEqual(message.method, "!interesting-Method0123456789_*+`.%indeed'~")
        assert isinstance(message.uri, SIPURI)
        self.assertEqual(message.uri.host, "example.com")
        self.assertEqual(message.uri.password, "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)")
        self.assertEqual(message.to.display_name, "BEL:\x07 NUL:\x00 DEL:\x7f")
        self.assertEqual(message.from_.display_name, "token1~` token2'+_ token3*%!.-")

    def test_escapes(self) -> None:
        message = request("esc01")
        assert isinstance(message.uri, SIPURI) and isinstance(message.to.uri, SIPURI)
        self.assertEqual(message.uri.aor(), "sips:user@example.com@example.net")
        self.assertEqual(message.to.uri.aor(), "user@example.com")
        nulls = request("escnull")
        assert isinstance(nulls.to.uri, SIPURI)
        self.assertRaises(SIPParseError, nulls.to.uri.aor)
        self.assertFalse(nulls.contacts[0].uri.equivalent(nulls.contacts[1].uri))
        names = request("esc02")
        self.assertEqual(names.method, "RE%47IST%45R")
        self.assertEqual([str(contact.uri)[4:10] for contact in names.contacts], ["alias1", "alias3"])
        semicolons = request("semiuri")
        assert isinstance(semicolons.uri, SIPURI)
        self.assertEqual((semicolons.uri.user, semicolons.uri.parameters), ("user;par=u%40example.net", {}))

    def test_contact_and_uri_parameters(self) -> None:
        """unknownparam of cparam01 belongs to the Contact, that of cparam02 to the URI."""
        (first,), (second,) = request("cparam01").contacts, request("cparam02").contacts
        self.assertEqual(first.parameters, {"unknownparam": None})
        self.assertEqual(first.uri_text, "sip:+19725552222@gw1.example.net")
        self.assertEqual(second.parameters, {})
        self.assertEqual(second.uri_text, "sip:+19725552222@gw1.example.net;unknownparam")
        (third,) = request("regescrt").contacts
        self.assertEqual(third.uri_text, "sip:user@example.com?Route=%3Csip:sip.example.com%3E")

    def test_second_request_of_a_datagram_is_ignored(self) -> None:
        message = request("dblreq")
        self.assertEqual((message.method, message.body), ("REGISTER", b""))

    def test_ipv6(self) -> None:
        ambiguous, clear = request("port-ambiguous").uri, request("port-unambiguous").uri
        assert isinstance(ambiguous, SIPURI) and isinstance(clear, SIPURI)
        self.assertEqual((ambiguous.address, ambiguous.port), ("2001:db8::10:5070", None))
        self.assertEqual((clear.address, clear.port), ("2001:db8::10", 5070))
        for name in ("via-received-param-with-delim", "via-received-param-no-delim"):
            self.assertEqual(request(name).via.received, "2001:db8::9:255")
        three, two = request("ipv6-bug-abnf-3-colons").uri, request("ipv6-correct-abnf-2-colons").uri
        self.assertTrue(three.equivalent(two))
        self.assertEqual(
            [via.sent_by for via in request("ipv4-mapped-ipv6").vias],
            [("::ffff:192.0.2.10", 19823), ("::ffff:192.0.2.2", None)],
        )
