"""Messages cut out of a stream (RFC 3261 §18.3, RFC 5626 §3.5.1)."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.sip.errors import SIPParseError
from p2psip.sip.message import MOST_HEAD_BYTES, Request
from p2psip.sip.stream import KeepAlive, StreamParser
from tests.sip.test_message import REGISTER

MESSAGE = REGISTER.encode()


class StreamTests(SynchronousTestCase):
    def receive(self, *pieces: bytes) -> list[object]:
        """The items that come out: method and body of messages, `what` of errors."""
        parser = StreamParser()
        items = [item for piece in pieces for item in parser.receive(piece)]
        self.broken = parser.broken
        self.mid_message = parser.mid_message
        return [
            (item.method, item.body)
            if isinstance(item, Request)
            else (item.what, item.fatal)
            if isinstance(item, SIPParseError)
            else item
            for item in items
        ]

    def test_whole_and_in_bytes(self) -> None:
        expected = [("REGISTER", b"hi"), ("REGISTER", b"hi")]
        self.assertEqual(self.receive(MESSAGE + b"\r\n" + MESSAGE), [expected[0], KeepAlive.PONG, expected[1]])
        self.assertEqual(self.receive(*(bytes([byte]) for byte in MESSAGE * 2)), expected)
        self.assertFalse(self.mid_message)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(0, 3 * len(MESSAGE)), max_size=10))
    def test_any_cut(self, cuts: list[int]) -> None:
        data = MESSAGE + b"\r\n\r\n" + MESSAGE + MESSAGE
        places = [0, *sorted(cuts), len(data)]
        pieces = [data[start:end] for start, end in itertools.pairwise(places)]
        message = ("REGISTER", b"hi")
        self.assertEqual(self.receive(*pieces), [message, KeepAlive.PING, message, message])

    def test_keep_alive(self) -> None:
        self.assertEqual(self.receive(b"\r\n", b"\r\n"), [KeepAlive.PING])
        self.assertEqual(self.receive(b"\r\n\r\n\r\n\r\n"), [KeepAlive.PING] * 2)
        self.assertFalse(self.mid_message)
        self.receive(b"\r\nREG")
        self.assertTrue(self.mid_message)

    def test_wrong_message_between_good_ones(self) -> None:
        wrong = MESSAGE.replace(b"CSeq: 1 REGISTER", b"CSeq: 1 INVITE")
        worse = MESSAGE.replace(b"X-Mine: one", b"no header field")
        self.assertEqual(
            self.receive(wrong + worse + MESSAGE),
            [("CSeq has another method", False), ("a line that is no header field", False), ("REGISTER", b"hi")],
        )

    def test_framing_lost(self) -> None:
        for data, what in (
            (
                MESSAGE.replace(b"Content-Length: 2", b"Content-Length: -2"),
                "Content-Length is not a number in its range",
            ),
            (MESSAGE.replace(b"Content-Length: 2", b"l: 2\r\nl: 3"), "several Content-Length"),
            (MESSAGE.replace(b"Content-Length: 2\r\n", b""), "no Content-Length on a stream"),
            (MESSAGE.replace(b"Content-Length: 2", b"Content-Length: 70000"), "the body is too large"),
            (b"\x16\x03\x01\x02\x00", "bytes that begin no SIP message"),
            (b"GET / HTTP/1.0\r\n\r\n", "the start line is not that of a SIP message"),
            (b"A" * (MOST_HEAD_BYTES + 1), "the header fields are too large"),
        ):
            self.assertEqual(self.receive(MESSAGE + data, MESSAGE), [("REGISTER", b"hi"), (what, True)], data)
            self.assertTrue(self.broken)
