"""URIs: reading, writing, equality, AORs (RFC 3261 §19.1, RFC 3966, RFC 5954)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from p2psip.sip.errors import SIPParseError
from p2psip.sip.uri import SIPURI, AbsoluteURI, TelURI, parse_uri


def sip(text: str) -> SIPURI:
    uri = parse_uri(text)
    assert isinstance(uri, SIPURI)
    return uri


class ParseTests(SynchronousTestCase):
    def test_examples_of_rfc3261(self) -> None:
        """The URIs of RFC 3261 §19.1.3 come out as they went in."""
        for text in (
            "sip:alice@atlanta.com",
            "sip:alice:secretword@atlanta.com;transport=tcp",
            "sips:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:+1-212-555-1212:1234@gateway.com;user=phone",
            "sips:1212@gateway.com",
            "sip:alice@192.0.2.4",
            "sip:atlanta.com;method=REGISTER?to=alice%40atlanta.com",
            "sip:alice;day=tuesday@atlanta.com",
            "sip:alice@[2001:db8::1]:5070;lr",
            "tel:+1-201-555-0123",
            "tel:7042;phone-context=example.com",
            "http://www.example.com/a?b",
        ):
            self.assertEqual(str(parse_uri(text)), text)

    def test_parts(self) -> None:
        uri = sip("SIPS:Alice:pw@[2001:DB8::1]:5061;Transport=TCP;lr?a=b")
        self.assertEqual((uri.scheme, uri.user, uri.password), ("sips", "Alice", "pw"))
        self.assertEqual((uri.host, uri.address, uri.port), ("[2001:DB8::1]", "2001:db8::1", 5061))
        self.assertEqual((uri.parameters, uri.headers), ({"transport": "TCP", "lr": None}, "a=b"))
        self.assertEqual(parse_uri("tel:+1-2;ext=3"), TelURI("+1-2", {"ext": "3"}))
        self.assertEqual(parse_uri("im:a@b"), AbsoluteURI("im", "a@b"))

    def test_malformed(self) -> None:
        for text in (
            "", ":", "sip:", "sip:@example.org", "sip:a@", "sip:a b@example.org", "sip:a@b@example.org",
            "sip:a@example.org:", "sip:a@example.org:0", "sip:a@example.org:65536", "sip:a@example.org:port",
            "sip:a@[::1", "sip:a@[1.2.3.4]", "sip:a@[:::::]", "sip:2001:db8::10", "sip:a%4@example.org",
            "sip:a%zz@example.org", "sip:a@example.org;;lr", "sip:a@example.org;=x", "sip:a@example.org;lr;lr",
            "sip:a@example.org;x=", "sip:a@example.org?", "sip:a@exämple.org", "tel:", "tel:12;;x", "1sip:a", "sip",
            "sip:a@example.org\n", "sip:a@example.org;" + ";".join(f"p{number}" for number in range(65)),
        ):  # fmt: skip
            self.assertRaises(SIPParseError, parse_uri, text)


class EqualityTests(SynchronousTestCase):
    def test_equal(self) -> None:
        """The equal pairs of RFC 3261 §19.1.4, and IPv6 spellings of RFC 5954 §4.2."""
        for one, other in (
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtlanTa.CoM;Transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
            ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"),
            (
                "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
                "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
            ),
            (
                "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
                "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
            ),
            ("sip:bob@[2001:db8::9:1]", "sip:bob@[2001:0db8:0:0:0:0:9:01]"),
            ("sip:bob@[::ffff:192.0.2.128]", "sip:bob@[::ffff:c000:280]"),
            ("tel:+1-201-555-0123", "tel:+12015550123"),
            ("http://x", "http://x"),
        ):
            self.assertTrue(parse_uri(one).equivalent(parse_uri(other)), one)
            self.assertTrue(parse_uri(other).equivalent(parse_uri(one)), one)

    def test_different(self) -> None:
        """The unequal pairs of RFC 3261 §19.1.4."""
        for one, other in (
            ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
            ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
            ("sip:bob@biloxi.com", "sips:bob@biloxi.com"),
            ("sip:bob@biloxi.com", "tel:1"),
            ("tel:1", "tel:2"),
        ):
            self.assertFalse(parse_uri(one).equivalent(parse_uri(other)), one)


class AORTests(SynchronousTestCase):
    def test_normal_form(self) -> None:
        """Without scheme, escapes, password, port, parameters; the host in lower case."""
        for text in (
            "sip:alice@Example.ORG", "sips:%61lice@example.org:5061;x=y", "sip:alice:pw@example.org?a=b",
        ):  # fmt: skip
            self.assertEqual(sip(text).aor(), "alice@example.org")
        self.assertEqual(sip("sip:j%C3%BCrgen@example.org").aor(), "jürgen@example.org")
        self.assertEqual(sip("sip:Alice@[::1]").aor(), "Alice@::1")

    def test_none(self) -> None:
        for text in ("sip:example.org", "sip:%00@example.org", "sip:%ff@example.org", "sip:a%0d%0ab@example.org"):
            self.assertEqual(self.assertRaises(SIPParseError, sip(text).aor).status, 404)
