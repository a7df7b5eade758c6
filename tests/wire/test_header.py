"""The forwarding header, and a message sent on by a relay."""

from __future__ import annotations

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.ids import NodeId, ResourceId
from p2psip.wire.codec import DecodeError, EncodeError, WireContext
from p2psip.wire.header import (
    CompressedDestination,
    ForwardingHeader,
    NodeDestination,
    ResourceDestination,
    UnknownForwardingOption,
    decode_header,
    forward,
    with_header,
)
from tests.strategies import instances_of

HERE, THERE = NodeDestination(node_id=NodeId(b"\1" * 16)), NodeDestination(node_id=NodeId(b"\2" * 16))
RESOURCE = ResourceDestination(resource_id=ResourceId(b"\3" * 16))
HEADER = ForwardingHeader(
    overlay=0x9AA32B8D, configuration_sequence=22, transaction_id=0x0102030405060708,
    via_list=(HERE,), destination_list=(CompressedDestination(identifier=0x802A), THERE, RESOURCE),
    options=(UnknownForwardingOption(type=9, flags=4, option=b"abc"),),
)
MESSAGE = with_header(HEADER, b"contents and security block")


class Header(SynchronousTestCase):
    def test_layout(self) -> None:
        """38 bytes before the lists, first the token. [6940-6.3.2-1] [6940-6.3.2-9] [6940-6.3.2-10]"""
        plain = ForwardingHeader(
            overlay=0x9AA32B8D, configuration_sequence=22, transaction_id=0x0102030405060708,
            destination_list=(),
        )
        expected = "d2454c4f 9aa32b8d 0016 0a 64 c0000000 00000000 0102030405060708 00000000 0000 0000 0000"
        self.assertEqual(plain.encode(), bytes.fromhex(expected))

    def test_overlay(self) -> None:
        """The overlay field is the lower 32 bits of the SHA-1 of the name. [6940-6.3.2-2]"""
        digest = hashlib.sha1(b"overlay.example.org", usedforsecurity=False).digest()
        self.assertEqual(int.from_bytes(digest[-4:]), HEADER.overlay)

    def test_decode(self) -> None:
        header, size = decode_header(MESSAGE)
        self.assertEqual(header, HEADER.replace(length=len(MESSAGE)))
        self.assertEqual(MESSAGE[size:], b"contents and security block")

    def test_refused(self) -> None:
        """Another token, version or length, and a fragment field without its bit. [6940-6.3.2-4]"""
        for at, value in ((0, 0x52), (10, 0x0B), (12, 0x40), (19, 0xFF)):
            wrong = bytearray(MESSAGE)
            wrong[at] = value
            error = self.assertRaises(DecodeError, decode_header, bytes(wrong))
            self.assertEqual(error.structure, "ForwardingHeader")
        self.assertRaises(DecodeError, decode_header, MESSAGE + b"x")
        self.assertRaises(DecodeError, decode_header, b"")

    def test_resource_only_last(self) -> None:
        """A Resource-ID is the last destination and never a via. [6940-6.3.2.2-4]"""
        for wrong in (
            HEADER.replace(via_list=(RESOURCE,)), HEADER.replace(destination_list=(RESOURCE, THERE)),
        ):
            self.assertRaises(DecodeError, decode_header, with_header(wrong, b""))

    def test_lists_too_long(self) -> None:
        self.assertRaises(EncodeError, HEADER.replace(via_list=(HERE,) * 3641).encode)


class Forward(SynchronousTestCase):
    def test_request(self) -> None:
        """The TTL is set and the previous hop appended; all else stays as it came."""
        _, size = decode_header(MESSAGE)
        sent = forward(MESSAGE, size, ttl=99, via=THERE)
        header, size = decode_header(sent)
        self.assertEqual(
            header, HEADER.replace(ttl=99, via_list=(HERE, THERE), length=len(MESSAGE) + len(THERE.encode())),
        )
        self.assertEqual(sent[size:], b"contents and security block")

    def test_consumed_destination(self) -> None:
        """Entries of the Destination List that were ours are taken off."""
        _, size = decode_header(MESSAGE)
        sent = forward(MESSAGE, size, ttl=5, consumed=2 + 18)
        header, _ = decode_header(sent)
        self.assertEqual(header, HEADER.replace(ttl=5, destination_list=(RESOURCE,), length=len(sent)))
        self.assertEqual(len(sent), len(MESSAGE) - 20)

    def test_like_the_header(self) -> None:
        """Whatever the header: what is sent is what encoding the changed header would send."""

        @settings(max_examples=50, deadline=None, database=None, derandomize=True)
        @given(instances_of(ForwardingHeader, node_id_length=20), st.binary(max_size=20))
        def check(header: ForwardingHeader, body: bytes) -> None:
            via = NodeDestination(node_id=NodeId(bytes(20)))
            data = with_header(header, body)
            size = len(data) - len(body)
            consumed = len(header.destination_list[0].encode()) if header.destination_list else 0
            sent = forward(data, size, ttl=3, via=via, consumed=consumed)
            expected = header.replace(
                ttl=3, via_list=(*header.via_list, via), destination_list=header.destination_list[1:],
            )
            self.assertEqual(sent, with_header(expected, body))
            found, _ = ForwardingHeader.decode_prefix(sent, WireContext(20))
            self.assertEqual(found.length, len(sent))

        check()

    def test_via_list_full(self) -> None:
        full = with_header(HEADER.replace(via_list=(HERE,) * 3640), b"")
        _, size = decode_header(full)
        self.assertRaises(EncodeError, forward, full, size, ttl=1, via=HERE)
        self.assertRaises(EncodeError, forward, MESSAGE, 0, ttl=256)
        self.assertRaises(EncodeError, forward, MESSAGE, 0, ttl=-1)
