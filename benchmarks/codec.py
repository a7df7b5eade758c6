"""
How fast messages are read and written: ``python benchmarks/codec.py [--prototype PATH]``.

Prints JSON: for each case microseconds per operation, best of several rounds.
The limit beside it is hand-written `struct` code for the fixed part of a
forwarding header, measured in the same run.  With ``--prototype`` another
codec of the same design is loaded from a file and measured round by round in
turn with ours; ``ratio`` above 1 means that ours is faster.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

from p2psip.ids import NodeId, ResourceId
from p2psip.wire.codec import WireContext
from p2psip.wire.codes import DataModel, MessageCode, OverlayLinkType
from p2psip.wire.contents import MessageContents
from p2psip.wire.header import ForwardingHeader, NodeDestination, ResourceDestination, decode_header, forward
from p2psip.wire.message import decode_body, decode_message, encode_message
from p2psip.wire.methods import AttachReqAns, IceCandidate, IpAddressPort, PingAns
from p2psip.wire.security import ECDSA_SHA256, CertHash, SecurityBlock, Signature
from p2psip.wire.storage import DataValue, StoredData, StoreKindData, StoreReq

KIND = 0xF0000001
CONTEXT = WireContext(16, {KIND: DataModel.SINGLE})
NODES = [NodeId(bytes([i]) * 16) for i in range(1, 8)]
Operation = Callable[[], object]


def signature() -> Signature:
    return Signature(
        algorithm=ECDSA_SHA256, identity=CertHash(certificate_hash=bytes(32)), signature_value=bytes(71),
    )


def header() -> ForwardingHeader:
    return ForwardingHeader(
        overlay=0x9AA32B8D, configuration_sequence=22, transaction_id=0x1122334455667788,
        via_list=tuple(NodeDestination(node_id=node) for node in NODES[:3]),
        destination_list=(
            NodeDestination(node_id=NODES[4]), ResourceDestination(resource_id=ResourceId(NODES[5])),
        ),
    )


def bodies() -> dict[str, tuple[int, Any]]:
    value = StoredData(
        storage_time=1_700_000_000_000, lifetime=86400, value=DataValue(value=bytes(400)),
        signature=signature(),
    )
    candidates = tuple(
        IceCandidate(
            addr_port=IpAddressPort.of(f"192.0.2.{i}", 6084), overlay_link=OverlayLinkType.TLS_TCP_FH_NO_ICE,
            foundation=b"1", priority=2130706431 - i,
        )
        for i in range(4)
    )
    return {
        "ping_ans": (MessageCode.PING_ANS, PingAns(response_id=1, time=2)),
        "store_400": (MessageCode.STORE_REQ, StoreReq(
            resource=ResourceId(NODES[0]), kind_data=(StoreKindData(kind=KIND, values=(value,)),),
        )),
        "attach_4": (MessageCode.ATTACH_REQ, AttachReqAns(role=b"passive", candidates=candidates)),
    }


def message_of(code: int, body: Any) -> bytes:
    contents = MessageContents(message_code=code, message_body=body.encode())
    return encode_message(header(), contents, SecurityBlock(signature=signature()))


def ours() -> dict[str, Operation]:
    cases: dict[str, Operation] = {}
    for name, (code, body) in bodies().items():
        data = message_of(code, body)
        parsed = decode_message(data, CONTEXT)

        def decode(data: bytes = data) -> object:
            message = decode_message(data, CONTEXT)
            return decode_body(message.contents.message_code, message.contents.message_body, CONTEXT)

        def encode(code: int = code, body: Any = body, parsed: Any = parsed) -> object:
            contents = MessageContents(message_code=code, message_body=body.encode())
            return encode_message(parsed.header, contents, parsed.security)

        cases[f"{name}.decode"], cases[f"{name}.encode"] = decode, encode
    data = forwarded_message()
    via = NodeDestination(node_id=NODES[6])

    def relay() -> object:
        head, size = decode_header(data, CONTEXT)
        return forward(data, size, ttl=head.ttl - 1, via=via)

    cases["forward_800"] = relay
    return cases


def forwarded_message() -> bytes:
    head = header()
    data = encode_message(head, b"", b"")
    return encode_message(head, bytes(800 - len(data)), b"")


def by_hand() -> dict[str, Operation]:
    """The least that any codec must do in Python: the fixed part of a header, into a tuple and back."""
    layout = struct.Struct("!IIHBBIIQIHHH")
    data = forwarded_message()
    values = layout.unpack_from(data)
    return {
        "fixed_header.decode": lambda: layout.unpack_from(data),
        "fixed_header.encode": lambda: layout.pack(*values),
    }


# The structures of an Attach in the words of the other codec, which has none.
ATTACH = """
class IpAddressPort(Choice, size=1):
    pass
class IPv4AddrPort(IpAddressPort, case=1):
    addr: uint32
    port: uint16
class IceExtension(Struct):
    name: opaque16
    value: opaque16
class IceCandidate(Struct):
    addr_port: IpAddressPort
    overlay_link: uint8
    foundation: opaque8
    priority: uint32
    type: uint8
    extensions: vec16[IceExtension] = ()
class AttachReqAns(Struct):
    ufrag: opaque8
    password: opaque8
    role: opaque8
    candidates: vec16[IceCandidate]
    send_update: boolean
"""


def theirs(path: str) -> dict[str, Operation]:
    spec = importlib.util.spec_from_file_location("prototype", path)
    assert spec is not None and spec.loader is not None
    p: Any = importlib.util.module_from_spec(spec)
    sys.modules["prototype"] = p
    spec.loader.exec_module(p)
    exec(compile("from __future__ import annotations\n" + ATTACH, "<attach>", "exec"), vars(p))  # noqa: S102
    context = p.WireContext(16, {KIND: p.DataValue})
    classes = {"ping_ans": p.PingAns, "store_400": p.StoreReq, "attach_4": p.AttachReqAns}
    cases: dict[str, Operation] = {}
    for name, (code, body) in bodies().items():
        data = message_of(code, body)
        cls = classes[name]

        def decode(data: bytes = data, cls: Any = cls) -> Any:
            head, size = p.ForwardingHeader.decode_prefix(data, context)
            rest = data[size:]
            contents, stop = p.MessageContents.decode_prefix(rest, context)
            security = p.SecurityBlock.decode(rest[stop:], context)
            return head, contents, security, cls.decode(contents.message_body, context)

        head, _, security, value = decode()

        def encode(code: int = code, body: Any = value, head: Any = head, security: Any = security) -> object:
            contents = p.MessageContents(message_code=code, message_body=body.encode())
            rest = contents.encode() + security.encode()
            out = head.encode()
            return out[:16] + (len(out) + len(rest)).to_bytes(4) + out[20:] + rest

        assert encode() == data, name
        cases[f"{name}.decode"], cases[f"{name}.encode"] = decode, encode
    data = forwarded_message()
    via = p.NodeDestination(node_id=NODES[6])

    def relay() -> object:
        head, size = p.ForwardingHeader.decode_prefix(data, context)
        head.ttl -= 1
        head.via_list += (via,)
        head.length += 18
        return head.encode() + data[size:]

    cases["forward_800"] = relay
    return cases


def measure(columns: dict[str, dict[str, Operation]], seconds: float) -> dict[str, dict[str, float]]:
    """Microseconds of each case in each column, best of the rounds; the columns take turns."""
    best: dict[str, dict[str, float]] = {}
    names = dict.fromkeys(name for cases in columns.values() for name in cases)
    rounds = 15
    for name in names:
        timed = {column: cases[name] for column, cases in columns.items() if name in cases}
        best[name] = {}
        for _ in range(rounds):
            for column, operation in timed.items():
                count = 200
                start = time.perf_counter()
                for _ in range(count):
                    operation()
                took = (time.perf_counter() - start) / count * 1e6
                while took * count < seconds / rounds / len(names) / len(timed) * 1e6:
                    count *= 2
                    start = time.perf_counter()
                    for _ in range(count):
                        operation()
                    took = min(took, (time.perf_counter() - start) / count * 1e6)
                best[name][column] = min(took, best[name].get(column, took))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prototype", metavar="PATH", help="another codec to measure beside ours")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long to measure (default 4)")
    options = parser.parse_args()
    columns = {"ours": ours(), "by_hand": by_hand()}
    if options.prototype:
        columns["prototype"] = theirs(options.prototype)
    result: dict[str, Any] = {}
    for name, times in measure(columns, options.seconds).items():
        result[name] = {f"{column}_us": round(took, 2) for column, took in times.items()}
        if "prototype" in times and "ours" in times:
            result[name]["ratio"] = round(times["prototype"] / times["ours"], 2)
    limit = result["fixed_header.decode"]["by_hand_us"]
    for row in result.values():
        if "ours_us" in row:
            row["times_limit"] = round(row["ours_us"] / limit, 1)
    print(json.dumps({"python": sys.version.split()[0], "unit": "microseconds", "cases": result}, indent=2))


if __name__ == "__main__":
    main()
