"""Whole messages, their bodies by message code, and what of them is shown to people."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2psip.wire.codec import DecodeError, Struct, UnknownKindError, WireContext
from p2psip.wire.codes import DataModel, ErrorCode, MessageCode, is_request
from p2psip.wire.contents import ErrorResponse, MessageContents, UnknownExtension, UnknownKinds
from p2psip.wire.describe import describe, to_json
from p2psip.wire.fields import opaque8
from p2psip.wire.frame import AckFrame, DataFrame
from p2psip.wire.header import CompressedDestination, decode_header
from p2psip.wire.message import (
    BODIES,
    decode_body,
    decode_message,
    encode_message,
    message_signature_input,
)
from p2psip.wire.methods import IpAddressPort, PingReq
from p2psip.wire.security import SecurityBlock
from p2psip.wire.storage import StoreAns, StoreKindResponse
from tests.wire.samples import CONTEXT, NODES, SIGNATURE, bodies, header, message


class Messages(SynchronousTestCase):
    def test_every_method(self) -> None:
        """Each body comes back by its message code; there is a sample of each code that has a body."""
        for code, body in bodies():
            found = decode_message(message(code, body), CONTEXT)
            self.assertEqual(found.contents.message_code, code)
            self.assertEqual(found.body(CONTEXT), body)
            self.assertEqual(found.security, SecurityBlock(signature=SIGNATURE))
        self.assertEqual({code for code, _ in bodies()}, set(BODIES))

    def test_length(self) -> None:
        data = message(MessageCode.PING_REQ, PingReq())
        self.assertEqual(decode_message(data).header.length, len(data))

    def test_parts_as_bytes(self) -> None:
        """Contents and security block may be bytes already, as they are once they were signed."""
        contents = MessageContents(message_code=0x17, message_body=b"\0\0")
        block = SecurityBlock(signature=SIGNATURE)
        head = header(CompressedDestination(identifier=0x8001))
        self.assertEqual(
            encode_message(head, contents.encode(), block.encode()), encode_message(head, contents, block),
        )

    def test_signature_input(self) -> None:
        """Overlay, transaction_id, the contents as received, and the signer's identity."""
        found = decode_message(message(MessageCode.PING_REQ, PingReq(padding=b"abc")))
        contents = bytes.fromhex("0017 00000005 0003 616263 00000000")
        identity = bytes.fromhex("01 0022 04 20") + bytes(range(32))
        expected = bytes.fromhex("9aa32b8d 1122334455667788") + contents + identity
        self.assertEqual(found.signature_input, expected)
        self.assertEqual(found.raw("contents"), contents)
        made = message_signature_input(0x9AA32B8D, 0x1122334455667788, contents, identity)
        self.assertEqual(made, expected)

    def test_refused(self) -> None:
        """A fragment, bytes left over, and what is no message."""
        data = message(MessageCode.PING_REQ, PingReq())
        fragment = bytearray(data)
        fragment[12:16] = b"\x80\0\0\0"
        longer = encode_message(
            header(CompressedDestination(identifier=0x8001)), b"\0\x17" + bytes(8),
            SecurityBlock(signature=SIGNATURE).encode() + b"x",
        )
        for wrong in (bytes(fragment), longer, b"", b"RELO", data[:-1], data + b"x"):
            self.assertRaises(DecodeError, decode_message, wrong)

    def test_cut_anywhere(self) -> None:
        data = message(*bodies()[4])
        for size in range(0, len(data), 7):
            self.assertRaises(DecodeError, decode_message, data[:size], CONTEXT)

    def test_unknown_code(self) -> None:
        self.assertRaises(DecodeError, decode_body, 0x5, b"")

    def test_another_topology(self) -> None:
        """A topology plug-in brings its own bodies for the methods that are its own."""

        class Ring(Struct):
            name: opaque8

        bodies: dict[int, type[Struct]] = {**BODIES, MessageCode.UPDATE_REQ: Ring}
        self.assertEqual(decode_body(0x13, b"\2ab", bodies=bodies), Ring(name=b"ab"))

    def test_unknown_kinds(self) -> None:
        """All Kinds that are not known are named, for Error_Unknown_Kind lists them. [6940-7.4.1.2-6]"""
        less = WireContext(16, {3: DataModel.ARRAY})
        for code in (
            MessageCode.STORE_REQ, MessageCode.FETCH_REQ, MessageCode.STAT_REQ, MessageCode.FETCH_ANS,
        ):
            body = dict(bodies())[code]
            error = self.assertRaises(UnknownKindError, decode_body, code, body.encode(), less)
            self.assertEqual(error.kinds, (1, 2))

    def test_requests(self) -> None:
        """Requests are odd, and errors are none although 0xffff is odd."""
        self.assertTrue(is_request(MessageCode.PING_REQ))
        for code in (MessageCode.PING_ANS, MessageCode.ERROR, 0, 0x8001):
            self.assertFalse(is_request(code))


class Describe(SynchronousTestCase):
    def test_every_method(self) -> None:
        """Each message can be shown, framed or bare, and is JSON."""
        for code, body in bodies():
            data = message(code, body)
            bare = describe(data, CONTEXT)
            framed = describe(DataFrame(sequence=3, message=data).encode(), CONTEXT)
            self.assertEqual(json.loads(json.dumps(framed))["framed_message"]["message"], bare)
            self.assertEqual(bare["message_contents"]["message_code"], MessageCode(code).name.lower())
            self.assertIsInstance(bare["message_contents"]["message_body"], dict)

    def test_names(self) -> None:
        """The RFC's field names; enumerated numbers by name; bytes in hex; choices by their type."""
        shown = self._body(MessageCode.ATTACH_REQ)
        self.assertEqual(shown["role"], b"passive".hex())
        self.assertNotIn("rel_addr_port", shown["candidates"][0])
        self.assertEqual(shown["candidates"][1], {
            "addr_port": {"type": "ipv6_address", "addr": "2001:db8::1", "port": 40000},
            "overlay_link": "DTLS-UDP-SR", "foundation": "32", "priority": 2130706431, "type": "srflx",
            "rel_addr_port": {"type": "ipv4_address", "addr": "192.0.2.1", "port": 6084}, "extensions": [],
        })
        kinds = self._body(MessageCode.FIND_REQ)["kinds"]
        self.assertEqual(kinds, ["SIP-REGISTRATION", "CERTIFICATE_BY_NODE"])
        self.assertEqual(self._body(MessageCode.PROBE_REQ)["requested_info"][0], "responsible_set")
        self.assertEqual(self._body(MessageCode.JOIN_REQ)["joining_peer_id"], NODES[1].hex())
        head = describe(message(0x17, PingReq()))["forwarding_header"]
        self.assertEqual(head["destination_list"], [
            {"opaque_id": "802a"}, {"type": "node", "node_id": NODES[0].hex()},
        ])

    def test_errors(self) -> None:
        """The names of error codes as the RFC spells them, and their error_info as what it is."""
        counters = StoreAns(kind_responses=(StoreKindResponse(kind=1, generation_counter=7),))
        for code, info, name, key, expected in (
            (ErrorCode.FORBIDDEN, b"not yours", "Error_Forbidden", "error_text", "not yours"),
            (ErrorCode.TTL_EXCEEDED, b"", "Error_TTL_Exceeded", "error_text", ""),
            (ErrorCode.INCOMPATIBLE_WITH_OVERLAY, b"", "Error_Incompatible_with_Overlay", "error_text", ""),
            (ErrorCode.UNKNOWN_KIND, UnknownKinds(unknown_kinds=(9,)).encode(), "Error_Unknown_Kind",
             "unknown_kinds", [9]),
            (ErrorCode.GENERATION_COUNTER_TOO_LOW, counters.encode(), "Error_Generation_Counter_Too_Low",
             "kind_responses", [{"kind": "SIP-REGISTRATION", "generation_counter": 7, "replicas": []}]),
        ):
            body = ErrorResponse(error_code=code, error_info=info)
            shown = self._shown(message(MessageCode.ERROR, body))["message_contents"]["message_body"]
            self.assertEqual((shown["error_code"], shown[key]), (name, expected))
        shown = self._shown(message(0xFFFF, ErrorResponse(error_code=99, error_info=b"\xff")))
        self.assertEqual(
            shown["message_contents"]["message_body"], {"error_code": 99, "error_info": "ff"},
        )

    def test_unreadable_body(self) -> None:
        """A body that nobody here can read is hex, with the reason."""
        for data, ctx in (
            (message(0x5, PingReq(padding=b"x")), CONTEXT), (message(*bodies()[4]), WireContext()),
        ):
            contents = describe(data, ctx)["message_contents"]
            self.assertIsInstance(contents["message_body"], str)
            self.assertIn("message_body_error", contents)

    def test_extension(self) -> None:
        extension = UnknownExtension(type=0x7000, critical=True, extension_contents=b"x")
        contents = self._shown(message(0x17, PingReq(), extensions=(extension,)))["message_contents"]
        self.assertEqual(
            contents["extensions"], [{"type": 0x7000, "critical": True, "extension_contents": "78"}],
        )

    def test_ack(self) -> None:
        shown = self._shown(AckFrame(ack_sequence=1, received=2).encode())
        self.assertEqual(shown, {"framed_message": {"type": "ack", "ack_sequence": 1, "received": 2}})

    def test_fragment(self) -> None:
        data = bytearray(message(0x17, PingReq()))
        data[12:16] = b"\x80\0\0\x05"
        _, size = decode_header(bytes(data))
        shown = describe(bytes(data))
        self.assertEqual(shown["fragment"], data[size:].hex())
        self.assertEqual(shown["forwarding_header"]["fragment"], 0x80000005)

    def test_neither(self) -> None:
        for wrong in (b"", b"GET / HTTP/1.1", b"\x80", b"\x81" + bytes(9)):
            self.assertRaises(DecodeError, describe, wrong)

    def test_unknown_address(self) -> None:
        self.assertEqual(to_json(IpAddressPort.decode(b"\x07\x01x")), {"type": 7, "address": "78"})

    def _body(self, code: int) -> dict[str, Any]:
        shown = describe(message(code, dict(bodies())[code]), CONTEXT)
        return shown["message_contents"]["message_body"]  # type: ignore[no-any-return]

    def _shown(self, data: bytes) -> dict[str, Any]:
        return describe(data, CONTEXT)
