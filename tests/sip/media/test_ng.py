"""The ng protocol: datagrams, and what is none."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.sip.media.ng import MOST_DATAGRAM, NgError, decode, encode, text


class DatagramTests(SynchronousTestCase):
    def test_encode(self) -> None:
        """As rtpengine reads it, whatever bytes a Call-ID has."""
        datagram = encode(b"c1", "offer", {"call-id": "a\udcff", "sdp": b"v=0", "flags": ["x", "y"], "delete-delay": 0})
        self.assertEqual(
            datagram,
            b"c1 d7:call-id2:a\xff7:command5:offer12:delete-delayi0e5:flagsl1:x1:ye3:sdp3:v=0e",
        )

    def test_too_long(self) -> None:
        self.assertRaises(NgError, encode, b"c1", "offer", {"sdp": bytes(MOST_DATAGRAM)})

    def test_decode(self) -> None:
        """Also with keys that are not sorted, as rtpengine sends them."""
        cookie, answer = decode(b"c1 d6:result2:ok3:sdp3:v=03:agei7ee")
        self.assertEqual((cookie, answer), (b"c1", {"result": b"ok", "sdp": b"v=0", "age": 7}))
        self.assertEqual((text(answer["result"]), text(answer["age"])), ("ok", ""))

    @given(st.binary(max_size=200))
    @example(b"l" * 60000)
    @example(b"d1:a" * 15000)
    @example(b"i" + b"9" * 60000 + b"e")
    @example(b"99999999999:a")
    @example(b"d1:ai1e")
    @example(b"i1e")
    def test_hostile(self, content: bytes) -> None:
        """Whatever comes is an answer or refused."""
        for datagram in (content, b"c1 " + content, b" " + content, b"x" * 100 + b" " + content):
            try:
                _, answer = decode(datagram)
            except NgError:
                continue
            self.assertIsInstance(answer, dict)
