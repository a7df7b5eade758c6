"""The codec itself: what a declaration means, what is refused and how that is said."""

from __future__ import annotations

import pickle
from typing import Annotated

from twisted.trial.unittest import SynchronousTestCase

from p2psip.ids import NodeId
from p2psip.wire.codec import (
    Choice,
    DecodeError,
    EncodeError,
    Struct,
    UnknownKindError,
    WireContext,
    length_of_rest,
    select,
)
from p2psip.wire.codes import CandType, DataModel, HashAlgorithm
from p2psip.wire.contents import MessageContents, MessageExtension, UnknownExtension
from p2psip.wire.errors import WireError
from p2psip.wire.fields import Int, boolean, opaque8, opaque24, rest, uint8, uint16, uint32, vec8, vec16
from p2psip.wire.fields import NodeId as NodeIdField
from p2psip.wire.header import (
    CompressedDestination,
    Destination,
    ForwardingOption,
    NodeDestination,
    OpaqueDestination,
    ResourceDestination,
    UnknownDestination,
    UnknownForwardingOption,
)
from p2psip.wire.methods import (
    AttachReqAns,
    ConfigUpdateReq,
    IceCandidate,
    IpAddressPort,
    IPv4AddrPort,
    IPv6AddrPort,
    JoinReq,
    PingAns,
    PingReq,
    ProbeAns,
    ProbeInformation,
    ProbeReq,
    UnknownAddressPort,
)
from p2psip.wire.security import CertHash, NoIdentity, Signature, SignerIdentity
from p2psip.wire.storage import (
    DataValue,
    FetchReq,
    StoredData,
    StoreKindData,
    StoreReq,
    kinds_named,
)

NODE = NodeId(b"\x0a" * 16)


class Everything(Struct):
    """One field of each word."""

    flag: boolean
    small: uint8 = 7
    text: opaque8
    long: opaque24 = b""
    numbers: vec8[uint16] = ()
    names: vec16[opaque8] = ()
    nodes: vec16[NodeIdField] = ()


class Shape(Choice):
    """A choice with a field before its select, one after, and a length."""

    colour: uint16
    kind: Annotated[int, Int(1, CandType)] = select()
    bright: boolean = False
    length: uint16 = length_of_rest()


class Dot(Shape, case=1):
    pass


class Line(Shape, case=2):
    end: uint32


class Blob(Shape, other=True):
    kind: uint8
    data: rest


class Declarations(SynchronousTestCase):
    def test_layout(self) -> None:
        """Fields follow each other as declared; lengths count bytes; integers are big-endian."""
        value = Everything(
            flag=True, text=b"hi", long=b"abc", numbers=(1, 0x1234), names=(b"x", b""), nodes=(NODE,),
        )
        data = value.encode()
        expected = "01 07 02 6869 000003 616263 04 0001 1234 0003 01 78 00 0010" + "0a" * 16
        self.assertEqual(data, bytes.fromhex(expected))
        self.assertEqual(Everything.decode(data), value)

    def test_defaults(self) -> None:
        value = Everything(flag=False, text=b"")
        self.assertEqual((value.small, value.long, value.numbers), (7, b"", ()))

    def test_equality(self) -> None:
        """Equal are structures of one class with equal fields."""
        self.assertEqual(PingAns(response_id=1, time=2), PingAns(response_id=1, time=2))
        self.assertNotEqual(PingAns(response_id=1, time=2), PingAns(response_id=2, time=2))
        self.assertNotEqual(OpaqueDestination(opaque_id=b"x"), PingReq(padding=b"x"))
        self.assertEqual(len({PingReq(), PingReq(), PingReq(padding=b"x")}), 2)

    def test_repr(self) -> None:
        self.assertEqual(repr(PingAns(response_id=1, time=2)), "PingAns(response_id=1, time=2)")

    def test_pattern_matching(self) -> None:
        match Destination.decode(b"\x01\x10" + NODE):
            case NodeDestination(node_id=node_id):
                self.assertEqual(node_id, NODE)
            case other:
                self.fail(repr(other))

    def test_replace(self) -> None:
        value = PingAns(response_id=1, time=2)
        self.assertEqual(value.replace(time=3), PingAns(response_id=1, time=3))
        self.assertEqual(value.time, 2)

    def test_pickle(self) -> None:
        """Structures travel between processes."""
        value = NodeDestination(node_id=NODE)
        self.assertEqual(pickle.loads(pickle.dumps(value)), value)

    def test_unknown_argument(self) -> None:
        self.assertRaises(TypeError, PingReq, paddling=b"")


class Choices(SynchronousTestCase):
    def test_cases(self) -> None:
        """The selecting field and the length are worked out, and are attributes of the case."""
        line = Line(colour=0x0102, end=5)
        self.assertEqual(line.encode(), bytes.fromhex("0102 02 00 0004 00000005"))
        self.assertEqual(line.kind, 2)
        self.assertEqual(Shape.decode(line.encode()), line)
        self.assertEqual(Shape.decode(bytes.fromhex("0102 01 01 0000")), Dot(colour=0x0102, bright=True))

    def test_other(self) -> None:
        """A type that nobody declared is kept as it came."""
        data = bytes.fromhex("0102 09 01 0003 616263")
        blob = Shape.decode(data)
        self.assertEqual(blob, Blob(colour=0x0102, kind=9, bright=True, data=b"abc"))
        self.assertEqual(blob.encode(), data)

    def test_type_0(self) -> None:
        """0 is the invalid type everywhere."""
        with self.assertRaises(DecodeError) as caught:
            Shape.decode(bytes.fromhex("0102 00 01 0000"))
        self.assertEqual((caught.exception.structure, caught.exception.offset), ("Shape", 2))

    def test_closed(self) -> None:
        """An unknown type is a parsing error where the RFC does not allow it. [6940-6.3.1.1-1]"""
        for data in (b"\x04\x00\x00", b"\x00\x00\x00"):
            error = self.assertRaises(DecodeError, SignerIdentity.decode, data)
            self.assertEqual(str(error), "SignerIdentity at offset 0: no such type")

    def test_third_party(self) -> None:
        """Whoever needs a new case declares it; before that it was unknown."""
        data = bytes.fromhex("fe 00 0002 0007")
        self.assertEqual(ForwardingOption.decode(data), UnknownForwardingOption(type=0xFE, option=b"\0\7"))

        class Weight(ForwardingOption, case=0xFE):
            grams: Annotated[int, Int(2)]

        self.addCleanup(lambda: ForwardingOption._cases.withdraw(0xFE))
        self.assertEqual(ForwardingOption.decode(data), Weight(grams=7))
        self.assertEqual(Weight(grams=7).encode(), data)
        with self.assertRaises(TypeError):

            class Height(ForwardingOption, case=0xFE):
                pass

    def test_third_party_extension(self) -> None:
        """The types of message extensions are 16 bits wide."""

        class Note(MessageExtension, case=0xF001):
            text: opaque8

        self.addCleanup(lambda: MessageExtension._cases.withdraw(0xF001))
        contents = MessageContents(
            message_code=0x17, message_body=b"",
            extensions=(
                Note(text=b"hi"), UnknownExtension(type=0xF002, critical=True, extension_contents=b"x"),
            ),
        )
        data = contents.encode()
        self.assertIn(bytes.fromhex("f001 00 00000003 02 6869 f002 01 00000001 78"), data)
        self.assertEqual(MessageContents.decode(data), contents)

    def test_decoding_a_case(self) -> None:
        """A case decodes itself and no other."""
        data = NodeDestination(node_id=NODE).encode()
        self.assertEqual(NodeDestination.decode(data).node_id, NODE)
        self.assertRaises(DecodeError, OpaqueDestination.decode, data)

    def test_a_case_is_no_field(self) -> None:
        """A field is declared as the choice, since any case may come."""
        with self.assertRaises(TypeError):

            class Wrong(Struct):
                destination: NodeDestination


class Words(SynchronousTestCase):
    def test_compressed_destination(self) -> None:
        """A first byte with its top bit set begins a two-byte opaque_id. [6940-6.3.2.2-1] [6940-6.3.2.2-2]"""
        found = Destination.decode(b"\x80\x2a")
        self.assertEqual(found, CompressedDestination(identifier=0x802A))
        assert isinstance(found, CompressedDestination)
        self.assertEqual(found.opaque_id, b"\x80\x2a")
        self.assertEqual(found.encode(), b"\x80\x2a")
        self.assertRaises(EncodeError, CompressedDestination(identifier=0x7FFF).encode)

    def test_destination_types(self) -> None:
        """A type has its top bit clear; unknown ones can be skipped. [6940-6.3.2.2-3]"""
        found = Destination.decode(b"\x7f\x02ab")
        self.assertEqual(found, UnknownDestination(type=0x7F, destination_data=b"ab"))

    def test_resource_destination(self) -> None:
        """The Resource-ID in a Destination keeps its own length byte."""
        found = Destination.decode(b"\x02\x04\x03FOO")
        self.assertEqual(found, ResourceDestination(resource_id=b"FOO"))  # type: ignore[arg-type]
        self.assertRaises(DecodeError, Destination.decode, b"\x02\x05\x03FOOx")

    def test_boolean(self) -> None:
        """A boolean is 1 or 0."""
        error = self.assertRaises(DecodeError, DataValue.decode, b"\x02\x00\x00\x00\x00")
        self.assertEqual((error.structure, error.offset), ("DataValue", 0))

    def test_addresses(self) -> None:
        """The example of RFC 6940, page 46, and an IPv6 address."""
        found = IpAddressPort.decode(bytes.fromhex("01 06 c0000201 17c4"))
        self.assertEqual(found, IpAddressPort.of("192.0.2.1", 6084))
        self.assertEqual((found.host, IPv4AddrPort(addr=0xC0000201, port=6084)), ("192.0.2.1", found))
        six = IpAddressPort.of("2001:db8::1", 5060)
        self.assertEqual(six.encode(), bytes.fromhex("02 12 20010db8000000000000000000000001 13c4"))
        self.assertEqual(IpAddressPort.decode(six.encode()), six)
        assert isinstance(six, IPv6AddrPort)
        self.assertEqual(six.host, "2001:db8::1")
        unknown = IpAddressPort.decode(b"\x07\x01x")
        self.assertEqual((unknown, unknown.host), (UnknownAddressPort(type=7, address=b"x"), ""))
        self.assertRaises(ValueError, IpAddressPort.of, "example.org", 1)
        self.assertRaises(ValueError, IpAddressPort.of, "fe80::1%eth0", 1)

    def test_related_address(self) -> None:
        """A related address goes with srflx and relay candidates and with no others."""
        address = IpAddressPort.of("192.0.2.1", 1)
        host = IceCandidate(addr_port=address, overlay_link=4)
        relay = host.replace(type=CandType.RELAY, rel_addr_port=address)
        self.assertEqual(len(relay.encode()), len(host.encode()) + 8)
        self.assertEqual(IceCandidate.decode(relay.encode()), relay)
        for wrong in (
            host.replace(rel_addr_port=address), relay.replace(rel_addr_port=None), host.replace(type=3),
        ):
            self.assertRaises(EncodeError, wrong.encode)
        data = bytearray(host.encode())
        data[-3] = 3  # reserved
        error = self.assertRaises(DecodeError, IceCandidate.decode, bytes(data))
        self.assertEqual(error.structure, "IceCandidate")

    def test_unknown_numbers(self) -> None:
        """Numbers that no registry here has are no error: they stay numbers."""
        self.assertEqual(ProbeReq.decode(b"\x02\x01\x63").requested_info, (1, 0x63))
        self.assertEqual(CertHash(hash_alg=77, certificate_hash=b"").hash_alg, 77)

    def test_unknown_information(self) -> None:
        """Unknown types of ProbeInformation and ConfigUpdateReq are carried along."""
        answer = ProbeAns.decode(bytes.fromhex("0009 01 04 00000001 63 01 aa"))
        self.assertEqual([one.type for one in answer.probe_info], [1, 0x63])
        self.assertIsInstance(answer.probe_info[1], ProbeInformation)
        self.assertEqual(ConfigUpdateReq.decode(bytes.fromhex("09 00000001 aa")).type, 9)


class Refusals(SynchronousTestCase):
    def test_structure_and_offset(self) -> None:
        """A refusal names the innermost structure and where in the data it is, and says why."""
        candidate = IceCandidate(addr_port=IpAddressPort.of("192.0.2.1", 1), overlay_link=4, foundation=b"1")
        data = AttachReqAns(role=b"passive", candidates=(candidate, candidate)).encode()
        cases: list[tuple[bytes, str, int, str]] = [
            (data[:-1] + b"\x02", "AttachReqAns", len(data) - 1, "a Boolean is 0 or 1"),
            (data[:13] + b"\x05" + data[14:], "IPv4AddrPort", 13, "contents and length disagree"),
            (data[:-8], "AttachReqAns", 12, "a list longer than its surroundings"),
            (data + b"x", "AttachReqAns", len(data), "1 bytes left over"),
        ]
        for wrong, structure, offset, reason in cases:
            error = self.assertRaises(DecodeError, AttachReqAns.decode, wrong)
            self.assertEqual((error.structure, error.offset, error.reason), (structure, offset, reason))
            self.assertEqual(str(error), f"{structure} at offset {offset}: {reason}")

    def test_truncated(self) -> None:
        error = self.assertRaises(DecodeError, PingAns.decode, bytes(15))
        self.assertEqual(str(error), "PingAns at offset 0: the data end too early")
        error = self.assertRaises(DecodeError, PingReq.decode, b"\x00\x05abcd")
        self.assertEqual((error.structure, error.offset), ("PingReq", 6))

    def test_uneven_lists(self) -> None:
        """A list whose bytes do not end with an element is refused."""
        for end in ("03 000102 0000 0000", "00 0003 016101 0000", "00 0000 0011" + "00" * 17):
            error = self.assertRaises(DecodeError, Everything.decode, bytes.fromhex("00 07 00 000000" + end))
            self.assertEqual(error.reason, "a list that does not end with an element")

    def test_forged_lengths(self) -> None:
        """A length beyond the data costs nothing: no element is read on its word."""
        ctx = WireContext(16, {1: DataModel.SINGLE})
        huge = b"\xff\xff\xff\xff"
        for cls, data in (
            (StoreReq, b"\x00\x00" + huge),
            (StoreKindData, b"\0\0\0\1" + bytes(8) + huge),
            (MessageContents, b"\0\1" + bytes(4) + huge),
            (ConfigUpdateReq, b"\x02" + huge + b"\xff\xff\xff"),
        ):
            self.assertRaises(DecodeError, cls.decode, data, ctx)
        error = self.assertRaises(DecodeError, StoredData.decode, huge + bytes(60), ctx.of_kind(1))
        self.assertEqual(str(error), "StoredData at offset 0: a length beyond the surroundings")

    def test_errors_are_of_one_family(self) -> None:
        self.assertTrue(issubclass(DecodeError, WireError) and issubclass(EncodeError, WireError))
        self.assertTrue(issubclass(UnknownKindError, DecodeError))
        self.assertTrue(issubclass(WireError, ValueError))

    def test_values_that_do_not_fit(self) -> None:
        """What a field cannot carry is EncodeError, and names the structure."""
        wrong: list[tuple[Struct, str]] = [
            (PingAns(response_id=-1, time=0), "PingAns"),
            (PingAns(response_id=2**64, time=0), "PingAns"),
            (PingAns(response_id=1.5, time=0), "PingAns"),  # type: ignore[arg-type]
            (PingReq(padding=bytes(65536)), "PingReq"),
            (PingReq(padding="text"), "PingReq"),  # type: ignore[arg-type]
            (PingReq(padding=None), "PingReq"),  # type: ignore[arg-type]
            (OpaqueDestination(opaque_id=bytes(256)), "OpaqueDestination"),
            (OpaqueDestination(opaque_id=bytes(255)), "OpaqueDestination"),  # the length around it is 256
            (NodeDestination(node_id=NodeId(bytes(15))), "NodeDestination"),
            (NodeDestination(node_id=NodeId(bytes(21))), "NodeDestination"),
            (JoinReq(joining_peer_id=NodeId(bytes(15))), "JoinReq"),
            (Everything(flag=True, text=b"", nodes=(NODE, NodeId(b"short"))), "Everything"),
            (Everything(flag=True, text=b"", numbers=(65536,)), "Everything"),
            (Everything(flag=True, text=b"", numbers=(0,) * 128), "Everything"),
            (Everything(flag=True, text=b"", long=bytes(1 << 24)), "Everything"),
            (Everything(flag=True, text=b"", names=(bytes(256),)), "Everything"),
            (AttachReqAns(role=b"", candidates=(None,)), "AttachReqAns"),  # type: ignore[arg-type]
            (IPv6AddrPort(addr=1 << 128, port=1), "IPv6AddrPort"),
            (IPv6AddrPort(addr=-1, port=1), "IPv6AddrPort"),
        ]
        for value, structure in wrong:
            error = self.assertRaises(EncodeError, value.encode)
            self.assertEqual(error.structure, structure, value)
            self.assertTrue(str(error).startswith(structure))

    def test_node_id_of_another_overlay(self) -> None:
        """A Node-ID of another length than the overlay's is refused when read."""
        data = NodeDestination(node_id=NodeId(bytes(20))).encode()
        self.assertRaises(DecodeError, Destination.decode, data, WireContext(16))
        self.assertEqual(Destination.decode(data, WireContext(20)).encode(), data)
        self.assertRaises(ValueError, WireContext, 21)


class Kinds(SynchronousTestCase):
    ctx = WireContext(16, {1: DataModel.DICTIONARY, 2: DataModel.SINGLE})
    signature = Signature.decode(bytes.fromhex("00000300000000"))

    def stored(self) -> StoredData:
        return StoredData(storage_time=1, lifetime=2, value=DataValue(value=b"v"), signature=self.signature)

    def test_unknown(self) -> None:
        """Values of a Kind that is not known cannot be read; the error says which Kind."""
        request = StoreReq(resource=b"r", kind_data=(  # type: ignore[arg-type]
            StoreKindData(kind=9, values=(self.stored(),)), StoreKindData(kind=2, values=(self.stored(),)),
            StoreKindData(kind=8, values=()),
        ))
        error = self.assertRaises(UnknownKindError, StoreReq.decode, request.encode(), self.ctx)
        self.assertEqual(error.kinds, (9,))
        self.assertEqual(kinds_named(StoreReq, request.encode(), self.ctx), (9, 2, 8))
        self.assertEqual(kinds_named(PingReq, b"\0\0", self.ctx), ())
        self.assertRaises(DecodeError, kinds_named, FetchReq, b"\x09", self.ctx)

    def test_one_value(self) -> None:
        """A value alone is read in the context of its Kind, as a store needs it."""
        data = self.stored().encode()
        self.assertEqual(StoredData.decode(data, self.ctx.of_kind(2)), self.stored())
        self.assertRaises(UnknownKindError, self.ctx.of_kind, 3)
        self.assertRaises(DecodeError, StoredData.decode, data, self.ctx)
        self.assertRaises(DecodeError, StoredData.decode, data, self.ctx.of_kind(1))

    def test_received_bytes(self) -> None:
        """The bytes that a signature covers are those received; of our own values, those we would send."""
        value = StoredData.decode(self.stored().encode(), self.ctx.of_kind(2))
        self.assertEqual(value.raw("value"), DataValue(value=b"v").encode())
        self.assertEqual(self.stored().raw("value"), DataValue(value=b"v").encode())
        self.assertEqual(value.signature.raw("identity"), NoIdentity().encode())
        changed = value.replace(value=DataValue(value=b"w"))
        self.assertEqual(changed.raw("value"), DataValue(value=b"w").encode())
        self.assertEqual(HashAlgorithm.NONE, value.signature.algorithm.hash)
