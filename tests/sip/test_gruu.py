"""GRUUs, and what devices say of themselves (RFC 5627, RFC 7904 §3.2 and §6)."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.sip.features import MOST_BYTES, predicate, takes_sips, union
from p2psip.sip.grammar import parse_parameters
from p2psip.sip.gruu import GRUU, TAG_BYTES, device_tag, make_gruu, read_gruu
from p2psip.sip.uri import SIPURI, parse_uri

NODE = bytes(range(16))


def parsed(text: str) -> SIPURI:
    uri = parse_uri(text)
    assert isinstance(uri, SIPURI)
    return uri


class GRUUTests(SynchronousTestCase):
    @given(st.binary(min_size=16, max_size=20), st.binary(min_size=TAG_BYTES, max_size=TAG_BYTES))
    def test_read_again(self, node: bytes, tag: bytes) -> None:
        text = make_gruu("sip:alice@example.org", node, tag)
        uri = parsed(text)
        self.assertEqual(read_gruu(uri, len(node)), GRUU(node, tag))
        self.assertEqual(uri.aor(), "alice@example.org")

    def test_form(self) -> None:
        """A Destination List in base64, "~" for "=": the Node-ID and what tells the device apart (RFC 7904 §6)."""
        text = make_gruu("sip:alice@example.org", NODE, b"8 bytes.")
        _, _, encoded = text.partition(";gr=")
        self.assertEqual(
            base64.b64decode(encoded.replace("~", "=")), b"\x01\x10" + NODE + b"\x03\x09\x08" + b"8 bytes."
        )

    def test_other_lists(self) -> None:
        """Without a device any of the user's phones at the node is meant; of several nodes the last counts."""

        def gruu(destinations: bytes) -> GRUU | None:
            encoded = base64.b64encode(destinations).decode().replace("=", "~")
            return read_gruu(parsed(f"sip:alice@example.org;gr={encoded}"), 16)

        self.assertEqual(gruu(b"\x01\x10" + NODE), GRUU(NODE, b""))
        self.assertEqual(gruu(b"\x01\x10" + bytes(16) + b"\x01\x10" + NODE), GRUU(NODE, b""))
        for wrong in (b"\x01\x10", b"\x01\x10" + NODE[:-1], b"\x03\x02\x01x", b"\x01\x04abcd"):
            self.assertIsNone(gruu(wrong), wrong)

    @given(st.text(st.sampled_from("ABCabc019+/~"), max_size=200))
    def test_anything(self, text: str) -> None:
        """No error but None, whatever stands there."""
        uri = SIPURI("sip", "alice", None, "example.org", None, {"gr": text or None})
        found = read_gruu(uri, 16)
        self.assertTrue(found is None or len(found.node_id) == 16)

    def test_of_the_example(self) -> None:
        """The one in RFC 7904 §6 holds no Destination List, but bare characters."""
        self.assertIsNone(read_gruu(parsed("sip:alice@example.com;gr=MDEyMzQ1Njc4OTAxMjM0NTY3ODk~"), 16))

    def test_tags(self) -> None:
        """One for each device, user and node; none tells the instance."""
        tags = {
            device_tag(key, aor, instance)
            for key in (b"a", b"b")
            for aor in ("alice@example.org", "bob@example.org")
            for instance in ("<urn:uuid:1>", "<urn:uuid:2>")
        }
        self.assertEqual((len(tags), {len(tag) for tag in tags}), (8, {TAG_BYTES}))


class FeatureTests(SynchronousTestCase):
    def of(self, text: str, scheme: str = "sip") -> str:
        return predicate(parse_parameters(text), scheme)

    def test_predicate(self) -> None:
        """RFC 3840 §5: the feature parameters of a Contact as a predicate of RFC 2533. [7904-5.1-8]"""
        for text, wanted in (
            ("", ""),
            (";q=0.5;expires=60;+sip.instance=\"<x>\"", ""),
            (";audio", "(sip.audio=TRUE)"),
            (';audio;methods="INVITE,BYE"', "(& (sip.audio=TRUE) (| (sip.methods=INVITE) (sip.methods=BYE)))"),
            (';mobility="!fixed"', "(! (sip.mobility=fixed))"),
            (';schemes="sips"', "(sip.schemes=SIPS)"),
            (";description=\"<a) (sip.x=1>\"", ""),
        ):
            self.assertEqual(self.of(text), wanted, text)
        self.assertEqual(self.of("", "sips"), "(sip.schemes=SIPS)")

    def test_union(self) -> None:
        """Of what is said by all; where one says nothing, nothing is known."""
        self.assertEqual(union([]), "")
        self.assertEqual(union(["(a=1)", "(a=1)"]), "(a=1)")
        self.assertEqual(union(["(b=1)", "(a=1)"]), "(| (a=1) (b=1))")
        self.assertEqual(union(["(a=1)", ""]), "")
        self.assertEqual(union([f"(sip.description={'x' * MOST_BYTES})"]), "")

    def test_schemes(self) -> None:
        for prefs, taken in (
            ("", True),
            ("(sip.audio=TRUE)", True),
            ("(sip.schemes=SIPS)", True),
            ("(| (sip.schemes=SIPS) (sip.schemes=SIP))", True),
            ("(sip.schemes=SIP)", False),
        ):
            self.assertEqual(takes_sips(prefs), taken, prefs)
