"""Messages of another implementation: what they say, their bytes, their signatures (``tests/vectors``)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.trial.unittest import SynchronousTestCase

from p2psip.ids import NodeId, ResourceId
from p2psip.wire import chord, contents, frame, header, message, methods, security, storage
from p2psip.wire.codec import Struct, WireContext
from p2psip.wire.codes import DataModel, HashAlgorithm

VECTORS = Path(__file__).parent.parent / "vectors"
CONTEXT = WireContext(
    16, {1: DataModel.DICTIONARY, 0xF0000001: DataModel.SINGLE, 0xF0000002: DataModel.ARRAY},
)

STRUCTURES: dict[str, type[Struct]] = {
    "struct_chord_leave_data": chord.ChordLeaveData,
    "struct_destination_opaque_compact": header.Destination,
    "struct_destination_resource": header.Destination,
    "struct_frame_data": frame.FramedMessage,
    "struct_ip_address_port_v4": methods.IpAddressPort,
    "struct_signature_none": security.Signature,
}


def load(prefix: str = "", without: str = "\0") -> list[dict[str, Any]]:
    paths = sorted(VECTORS.glob(f"{prefix}*.json"))
    return [json.loads(path.read_text()) for path in paths if not path.name.startswith(without)]


class Messages(SynchronousTestCase):
    def test_all_are_here(self) -> None:
        self.assertEqual(len(load(without="struct_")), 26)
        self.assertEqual(len(load("struct_")), 6)

    def test_content(self) -> None:
        """Each message says what the generator meant it to say."""
        for vector in load(without="struct_"):
            found = message.decode_message(bytes.fromhex(vector["wire_hex"]), CONTEXT)
            meant = vector["logical"]
            self.assertEqual(found.header, read(meant["header"]), vector["name"])
            self.assertEqual(found.contents.message_code, vector["message_code"])
            self.assertEqual(found.body(CONTEXT), read(meant["body"]), vector["name"])
            self.assertEqual(found.contents.extensions, read(meant["extensions"]), vector["name"])
            self.assertEqual(found.security, read(meant["security_block"]), vector["name"])

    def test_bytes(self) -> None:
        """What the generator meant encodes to the generator's bytes, part by part and as a whole."""
        for vector in load(without="struct_"):
            meant = vector["logical"]
            body = read(meant["body"]).encode()
            self.assertEqual(body.hex(), vector["body_hex"], vector["name"])
            inside = contents.MessageContents(
                message_code=vector["message_code"], message_body=body, extensions=read(meant["extensions"]),
            )
            self.assertEqual(inside.encode().hex(), vector["contents_hex"])
            block = read(meant["security_block"])
            self.assertEqual(block.encode().hex(), vector["security_block_hex"])
            head = read(meant["header"])
            self.assertEqual(head.encode().hex(), vector["header_hex"])
            whole = message.encode_message(head.replace(length=0), inside, block)
            self.assertEqual(whole.hex(), vector["wire_hex"])

    def test_message_signature(self) -> None:
        """The signature covers what we say it covers, and verifies. [6940-6.3.4-5]"""
        for vector in load(without="struct_"):
            found = message.decode_message(bytes.fromhex(vector["wire_hex"]), CONTEXT)
            self.assertEqual(found.signature_input.hex(), vector["message_signature_input_hex"])
            self._verify(vector, found.security.signature, found.signature_input)

    def test_data_signatures(self) -> None:
        """So do the signatures of stored values; that of an array entry with index 0. [6940-6.3.4-4]"""
        verified = 0
        for vector in load(without="struct_"):
            found = message.decode_message(bytes.fromhex(vector["wire_hex"]), CONTEXT)
            body = found.body(CONTEXT)
            if not isinstance(body, storage.StoreReq):
                self.assertEqual(vector["data_signature_inputs_hex"], [])
                continue
            inputs = []
            for kind in body.kind_data:
                for value in kind.values:
                    inputs.append(value.signature_input(body.resource, kind.kind).hex())
                    made = storage.data_signature_input(
                        body.resource, kind.kind, value.storage_time, value.value,
                        value.signature.identity.encode(),
                    )
                    self.assertEqual(made.hex(), inputs[-1])
                    self._verify(vector, value.signature, made)
                    verified += 1
            self.assertEqual(inputs, vector["data_signature_inputs_hex"])
        self.assertEqual(verified, 5)

    def test_certificate(self) -> None:
        """The key in ``keys`` is that of the certificate in every message."""
        key = load_pem_private_key((VECTORS / "keys" / "node_a.key").read_bytes(), None)
        der = (VECTORS / "keys" / "node_a.der").read_bytes()
        self.assertEqual(key.public_key(), x509.load_der_x509_certificate(der).public_key())
        for vector in load(without="struct_"):
            self.assertEqual(vector["certificate_der_hex"], der.hex())

    def _verify(self, vector: dict[str, Any], signature: security.Signature, covered: bytes) -> None:
        der = bytes.fromhex(vector["certificate_der_hex"])
        match signature.identity:
            case security.CertHash(hash_alg=HashAlgorithm.SHA256, certificate_hash=found):
                self.assertEqual(found, hashlib.sha256(der).digest())
            case security.CertHashNodeId(hash_alg=HashAlgorithm.SHA256, certificate_node_id_hash=found):
                signer = bytes.fromhex(vector["signer_node_id"])
                self.assertEqual(found, hashlib.sha256(signer + der).digest())
            case other:
                self.fail(f"{vector['name']}: {other}")
        self.assertEqual(signature.algorithm, security.RSA_SHA256)
        key = x509.load_der_x509_certificate(der).public_key()
        assert isinstance(key, RSAPublicKey)
        key.verify(signature.signature_value, covered, PKCS1v15(), SHA256())


class Structures(SynchronousTestCase):
    def test_content_and_bytes(self) -> None:
        for vector in load("struct_"):
            cls, data = STRUCTURES[vector["name"]], bytes.fromhex(vector["wire_hex"])
            self.assertEqual(cls.decode(data), read(vector["logical"]), vector["name"])
            self.assertEqual(read(vector["logical"]).encode(), data, vector["name"])


# -- The generator's description of a structure, as our structure -----------


def read(meant: Any) -> Any:
    match meant:
        case list():
            return tuple([read(one) for one in meant])
        case {"hex": data} | {"NodeID": data} | {"ResourceID": data}:
            return bytes.fromhex(data)
        case {"enum": _, "value": number}:
            return number
        case {"_struct": name, **fields}:
            return READERS[name]({str(field): value for field, value in fields.items()})
    return meant


def renamed(cls: type[Struct], **theirs: str) -> Callable[[dict[str, Any]], Struct]:
    """A reader of `cls`: our field names for theirs where these differ."""

    def build(fields: dict[str, Any]) -> Struct:
        values = {field: read(value) for field, value in fields.items()}
        for ours, their in theirs.items():
            values[ours] = values.pop(their)
        for field, value in values.items():
            if isinstance(value, str):
                values[field] = value.encode()
        return cls(**values)

    return build


def destination(fields: dict[str, Any]) -> header.Destination:
    match fields["data"]:
        case {"NodeID": node}:
            return header.NodeDestination(node_id=NodeId(bytes.fromhex(node)))
        case {"ResourceID": resource}:
            return header.ResourceDestination(resource_id=ResourceId(bytes.fromhex(resource)))
        case {"OpaqueID": opaque}:  # this generator writes two bytes in the short form
            return header.CompressedDestination(identifier=int(opaque, 16))
    raise AssertionError(fields)


def address(fields: dict[str, Any]) -> methods.IpAddressPort:
    return methods.IpAddressPort.of(fields["addr_port"]["addr"], fields["addr_port"]["port"])


def candidate(fields: dict[str, Any]) -> methods.IceCandidate:
    related = fields["related_address"]
    return methods.IceCandidate(
        addr_port=read(fields["addr_port"]), overlay_link=read(fields["link_type"]),
        foundation=fields["foundation"].encode(), priority=fields["priority"], type=read(fields["type"]),
        rel_addr_port=None if related["_struct"] == "Empty" else read(related),
        extensions=read(fields["extensions"]),
    )


def update(fields: dict[str, Any]) -> chord.ChordUpdate:
    data = {field: read(value) for field, value in fields["data"].items() if field != "_struct"}
    classes = {"peer_ready": chord.PeerReady, "neighbors": chord.Neighbors, "full": chord.Full}
    return classes[fields["type"]["enum"]](uptime=fields["uptime"], **data)


def leave(fields: dict[str, Any]) -> chord.ChordLeaveData:
    nodes = read(fields["node_list"])
    if fields["type"]["enum"] == "from_successor":
        return chord.FromSuccessor(successors=nodes)
    return chord.FromPredecessor(predecessors=nodes)


def identity(fields: dict[str, Any]) -> security.SignerIdentity:
    inside = fields["identity"]
    match fields["type"]["enum"]:
        case "cert_hash":
            return security.CertHash(
                hash_alg=read(inside["hash_algorithm"]), certificate_hash=read(inside["certificate_hash"]),
            )
        case "cert_hash_node_id":
            return security.CertHashNodeId(
                hash_alg=read(inside["hash_algorithm"]),
                certificate_node_id_hash=read(inside["certificate_hash"]),
            )
    return security.NoIdentity()


def specifier(fields: dict[str, Any]) -> storage.StoredDataSpecifier:
    wanted = read(fields["specifier"])
    models: dict[DataModel, Callable[[], Any]] = {
        DataModel.SINGLE: storage.SingleSpecifier,
        DataModel.ARRAY: lambda: storage.ArraySpecifier(indices=wanted),
        DataModel.DICTIONARY: lambda: storage.DictionarySpecifier(keys=wanted),
    }
    model = CONTEXT.of_kind(fields["kind_id"]).model
    assert model is not None
    return storage.StoredDataSpecifier(
        kind=fields["kind_id"], generation=fields["generation"], model_specifier=models[model](),
    )


ATTACH = {"ufrag": "username"}
OVERLAY_DATA = {"overlay_specific_data": "overlay_data"}
READERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "ForwardingHeader": renamed(header.ForwardingHeader),
    "Destination": destination,
    "MessageExtension": lambda fields: contents.UnknownExtension(
        type=read(fields["type"]), critical=fields["critical"], extension_contents=read(fields["extension"]),
    ),
    "SecurityBlock": renamed(security.SecurityBlock),
    "GenericCertificate": renamed(security.GenericCertificate),
    "Signature": renamed(security.Signature, signature_value="value"),
    "SignatureAndHashAlgorithm": renamed(security.SignatureAndHashAlgorithm),
    "SignerIdentity": identity,
    "FramedMessage": lambda fields: frame.DataFrame(
        sequence=fields["frame"]["sequence"], message=read(fields["frame"]["message"]),
    ),
    "ErrorResponse": renamed(contents.ErrorResponse, error_code="code", error_info="info"),
    "PingRequest": renamed(methods.PingReq),
    "PingResponse": renamed(methods.PingAns, response_id="id"),
    "ProbeRequest": renamed(methods.ProbeReq),
    "JoinRequest": renamed(methods.JoinReq, joining_peer_id="node_id", **OVERLAY_DATA),
    "LeaveRequest": renamed(methods.LeaveReq, leaving_peer_id="node_id", **OVERLAY_DATA),
    "RouteQueryRequest": renamed(methods.RouteQueryReq, **OVERLAY_DATA),
    "UpdateRequest": update,
    "ChordLeaveData": leave,
    "ConfigUpdateRequest": lambda fields: methods.ConfigUpdate(config_data=read(fields["data"])),
    "AttachRequest": renamed(methods.AttachReqAns, **ATTACH),
    "AttachResponse": renamed(methods.AttachReqAns, **ATTACH),
    "AppAttachResponse": renamed(methods.AppAttachAns, **ATTACH),
    "ICECandidate": candidate,
    "IPAddressPort": address,
    "StoreRequest": renamed(storage.StoreReq),
    "StoreKindData": renamed(storage.StoreKindData, kind="kind_id"),
    "StoredData": renamed(storage.StoredData),
    "DataValue": renamed(storage.DataValue),
    "ArrayEntry": renamed(storage.ArrayEntry),
    "DictionaryEntry": renamed(storage.DictionaryEntry),
    "StoreResponse": renamed(storage.StoreAns),
    "StoreKindResponse": renamed(storage.StoreKindResponse, kind="kind_id"),
    "FetchRequest": renamed(storage.FetchReq),
    "StoredDataSpecifier": specifier,
    "ArrayRange": renamed(storage.ArrayRange),
    "StatResponse": renamed(storage.StatAns),
    "StatKindResponse": renamed(storage.StatKindResponse, kind="kind_id"),
    "StoredMetaData": renamed(storage.StoredMetaData),
    "DataValueMeta": renamed(storage.MetaData),
    "ArrayEntryMeta": renamed(storage.ArrayEntryMeta),
    "DictionaryEntryMeta": renamed(storage.DictionaryEntryMeta),
    "FindResponse": renamed(storage.FindAns),
    "FindKindData": renamed(storage.FindKindData, kind="kind_id"),
}
