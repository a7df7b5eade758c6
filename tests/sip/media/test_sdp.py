"""Session descriptions: what is read in them, and what is none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.sip.media.sdp import MOST_BYTES, MOST_LINES, MOST_MEDIA, SDPError, read_description, without_ice

from .descriptions import ICE, description

HEAD = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\n"


class ReadingTests(SynchronousTestCase):
    def test_address_of_the_session(self) -> None:
        found = read_description(description("192.0.2.1", 5000))
        self.assertEqual((found.hosts, found.ice, found.unspecified), ({"192.0.2.1"}, False, False))

    def test_addresses_of_the_media_come_first(self) -> None:
        """Of media that are refused, with port 0, the address does not count."""
        body = (
            HEAD + b"c=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 5000 RTP/AVP 0\r\nc=IN IP4 192.0.2.2\r\n"
            b"m=video 6000/2 RTP/AVP 99\r\nc=IN IP4 233.252.0.1/127\r\nc=IN IP4 192.0.2.9\r\n"
            b"m=image 0 udptl t38\r\nc=IN IP4 192.0.2.4\r\n"
        )
        self.assertEqual(read_description(body).hosts, {"192.0.2.2", "233.252.0.1"})

    def test_the_session_s_address_holds_where_media_have_none(self) -> None:
        body = (
            HEAD + b"c=IN IP6 2001:DB8:0::1\nt=0 0\nm=audio 5000 RTP/AVP 0\nm=video 6 RTP/AVP 9\nc=IN IP4 h.example\n"
        )
        self.assertEqual(read_description(body).hosts, {"2001:db8::1", "h.example"})

    def test_without_media(self) -> None:
        """An offer may begin without any (RFC 3264 §5)."""
        self.assertEqual(read_description(HEAD + b"c=IN IP4 192.0.2.1\r\nt=0 0\r\n").hosts, {"192.0.2.1"})

    def test_hold_of_old(self) -> None:
        self.assertTrue(read_description(description("0.0.0.0", 5000)).unspecified)
        self.assertTrue(read_description(description("::", 5000)).unspecified)

    def test_ice(self) -> None:
        """By a candidate, or by a user name fragment where candidates come later (RFC 8840)."""
        for attribute in ICE[0], ICE[2]:
            self.assertTrue(read_description(description("192.0.2.1", 5000, attribute)).ice)
        body = description("192.0.2.1", 5000).replace(b"t=0 0", b"t=0 0\r\na=ice-ufrag:abcd")
        self.assertTrue(read_description(body).ice)
        self.assertFalse(read_description(description("192.0.2.1", 5000, "ice-options:trickle")).ice)

    def test_without_ice(self) -> None:
        plain = description("192.0.2.1", 5000, "sendonly")
        more = (*ICE, "ice-options:trickle", "remote-candidates:1 192.0.2.1 5000", "end-of-candidates", "sendonly")
        self.assertEqual(without_ice(description("192.0.2.1", 5000, *more)), plain)
        self.assertEqual(without_ice(plain.replace(b"\r\n", b"\n")), plain.replace(b"\r\n", b"\n"))

    def test_none(self) -> None:
        good = description("192.0.2.1", 5000)
        for body in (
            b"",
            b"v=1\r\n",
            b"<sdp/>",
            HEAD + b"t=0 0\r\nm=audio 5000 RTP/AVP 0\r\n",
            good.replace(b"c=IN IP4 192.0.2.1", b"c=IN IP4"),
            good.replace(b"c=IN IP4", b"c=ATM IP4"),
            good.replace(b"audio 5000", b"audio -1"),
            good.replace(b"audio 5000", b"audio \xc2\xb2"),
            good.replace(b"audio 5000", b"audio 500000"),
            good.replace(b"m=audio 5000 RTP/AVP 0", b"m="),
        ):
            self.assertRaises(SDPError, read_description, body)

    def test_limits(self) -> None:
        good = description("192.0.2.1", 5000)
        read_description(good + b"m=audio 5000 RTP/AVP 0\r\n" * (MOST_MEDIA - 1))
        for more in (b"m=audio 5000 RTP/AVP 0\r\n" * MOST_MEDIA, b"a\n" * MOST_LINES, b"a" * MOST_BYTES):
            self.assertRaises(SDPError, read_description, good + more)

    @given(st.binary(max_size=300))
    def test_any_bytes(self, tail: bytes) -> None:
        """They are read, or refused."""
        for body in (tail, description("192.0.2.1", 5000) + tail):
            try:
                read_description(body)
            except SDPError:
                pass
