"""One message of each method, as a node of this implementation sends it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from p2psip.ids import NodeId, ResourceId
from p2psip.wire import chord, methods, sip, storage
from p2psip.wire.codec import Struct, WireContext
from p2psip.wire.codes import (
    LAST_INDEX,
    ApplicationId,
    CandType,
    DataModel,
    ErrorCode,
    Kind,
    MessageCode,
    OverlayLinkType,
)
from p2psip.wire.contents import ErrorResponse, MessageContents, MessageExtension, UnknownKinds
from p2psip.wire.header import (
    CompressedDestination,
    Destination,
    ForwardingHeader,
    NodeDestination,
    ResourceDestination,
)
from p2psip.wire.message import encode_message
from p2psip.wire.security import RSA_SHA256, UNSIGNED, CertHash, GenericCertificate, SecurityBlock, Signature

OVERLAY = "overlay.example.org"
CERTIFICATE = (Path(__file__).parent.parent / "vectors" / "keys" / "node_a.der").read_bytes()
NODES = tuple([NodeId(bytes([i]) * 16) for i in range(1, 9)])
RESOURCE = ResourceId(hashlib.sha1(b"alice@overlay.example.org", usedforsecurity=False).digest()[:16])
CONTEXT = WireContext(16, {
    Kind.SIP_REGISTRATION: DataModel.DICTIONARY,
    Kind.TURN_SERVICE: DataModel.SINGLE,
    Kind.CERTIFICATE_BY_NODE: DataModel.ARRAY,
})
SIGNATURE = Signature(
    algorithm=RSA_SHA256, identity=CertHash(certificate_hash=bytes(range(32))), signature_value=bytes(256),
)


def header(to: Destination, *, via: tuple[Destination, ...] = ()) -> ForwardingHeader:
    digest = hashlib.sha1(OVERLAY.encode(), usedforsecurity=False).digest()
    return ForwardingHeader(
        overlay=int.from_bytes(digest[-4:]), configuration_sequence=22, transaction_id=0x1122334455667788,
        via_list=via, destination_list=(CompressedDestination(identifier=0x802A), to),
    )


def message(
    code: int, body: Struct, to: Destination | None = None, *, extensions: tuple[MessageExtension, ...] = (),
    certificates: tuple[GenericCertificate, ...] = (), via: tuple[Destination, ...] = (),
) -> bytes:
    contents = MessageContents(message_code=code, message_body=body.encode(), extensions=extensions)
    security = SecurityBlock(certificates=certificates, signature=SIGNATURE)
    return encode_message(header(to or NodeDestination(node_id=NODES[0]), via=via), contents, security)


def candidates() -> tuple[methods.IceCandidate, ...]:
    address = methods.IpAddressPort.of("192.0.2.1", 6084)
    other = methods.IpAddressPort.of("2001:db8::1", 40000)
    host = methods.IceCandidate(
        addr_port=address, overlay_link=OverlayLinkType.DTLS_UDP_SR, foundation=b"1", priority=2130706431,
    )
    return (
        host,
        host.replace(addr_port=other, foundation=b"2", type=CandType.SRFLX, rel_addr_port=address),
        host.replace(
            foundation=b"3", type=CandType.RELAY, rel_addr_port=other,
            extensions=(methods.IceExtension(name=b"generation", value=b"0"),),
        ),
    )


def stored(value: storage.StoredDataValue, signature: Signature = SIGNATURE) -> storage.StoredData:
    return storage.StoredData(
        storage_time=1_700_000_000_000, lifetime=3600, value=value, signature=signature,
    )


def values() -> dict[int, tuple[storage.StoredData, ...]]:
    """Values of each data model, by Kind-ID."""
    route = sip.RouteRegistration(
        contact_prefs=b'sip.schemes="sip"', destination_list=(NodeDestination(node_id=NODES[2]),),
    )
    uri = sip.UriRegistration(uri=b"sip:bob@overlay.example.org")

    def entry(node: NodeId, record: sip.SipRegistration) -> storage.DictionaryEntry:
        return storage.DictionaryEntry(key=node, value=storage.DataValue(value=record.encode()))

    certificate = storage.ArrayEntry(index=LAST_INDEX, value=storage.DataValue(value=CERTIFICATE))
    nothing = storage.DataValue(exists=False, value=b"")
    return {
        Kind.SIP_REGISTRATION: (stored(entry(NODES[2], route)), stored(entry(NODES[3], uri))),
        Kind.CERTIFICATE_BY_NODE: (stored(certificate),),
        Kind.TURN_SERVICE: (stored(nothing, UNSIGNED),),
    }


def specifiers() -> tuple[storage.StoredDataSpecifier, ...]:
    every = storage.ArraySpecifier(indices=(storage.ArrayRange(first=0, last=LAST_INDEX),))
    return (
        storage.StoredDataSpecifier(
            kind=Kind.SIP_REGISTRATION, model_specifier=storage.DictionarySpecifier(keys=()),
        ),
        storage.StoredDataSpecifier(kind=Kind.CERTIFICATE_BY_NODE, model_specifier=every),
        storage.StoredDataSpecifier(kind=Kind.TURN_SERVICE, model_specifier=storage.SingleSpecifier()),
    )


def metadata() -> storage.StatAns:
    meta = storage.MetaData(exists=True, value_length=11, hash_value=bytes(32))
    about: dict[int, storage.MetaDataValue] = {
        Kind.SIP_REGISTRATION: storage.DictionaryEntryMeta(key=NODES[2], value=meta),
        Kind.CERTIFICATE_BY_NODE: storage.ArrayEntryMeta(index=1, value=meta),
        Kind.TURN_SERVICE: meta,
    }
    return storage.StatAns(kind_responses=tuple(
        storage.StatKindResponse(kind=kind, generation=5, values=(
            storage.StoredMetaData(storage_time=1_700_000_000_000, lifetime=3600, metadata=value),
        ))
        for kind, value in about.items()
    ))


def bodies() -> list[tuple[int, Struct]]:
    """A body for every message code that has one, some in several shapes."""
    attach = methods.AttachReqAns(
        ufrag=b"ufrag", password=b"password-of-22-bytes..", role=b"passive", candidates=candidates(),
    )
    application = {
        "ufrag": b"ufrag", "password": b"password-of-22-bytes..", "application": ApplicationId.SIP,
        "candidates": candidates(),
    }
    leave = chord.FromSuccessor(successors=NODES[3:5]).encode()
    resource = ResourceDestination(resource_id=RESOURCE)
    probed = (
        methods.ResponsibleSet(responsible_ppb=125), methods.NumResources(num_resources=7),
        methods.Uptime(uptime=99),
    )
    return [
        (MessageCode.PROBE_REQ, methods.ProbeReq(requested_info=(1, 2, 3))),
        (MessageCode.PROBE_ANS, methods.ProbeAns(probe_info=probed)),
        (MessageCode.ATTACH_REQ, attach),
        (MessageCode.ATTACH_ANS, attach.replace(role=b"active", send_update=True)),
        (MessageCode.STORE_REQ, storage.StoreReq(resource=RESOURCE, kind_data=tuple(
            storage.StoreKindData(kind=kind, generation_counter=5, values=stored)
            for kind, stored in values().items()
        ))),
        (MessageCode.STORE_ANS, storage.StoreAns(kind_responses=(
            storage.StoreKindResponse(kind=1, generation_counter=6, replicas=NODES[:2]),
            storage.StoreKindResponse(kind=3, generation_counter=1),
        ))),
        (MessageCode.FETCH_REQ, storage.FetchReq(resource=RESOURCE, specifiers=specifiers())),
        (MessageCode.FETCH_ANS, storage.FetchAns(kind_responses=tuple(
            storage.FetchKindResponse(kind=kind, generation=5, values=stored)
            for kind, stored in values().items()
        ))),
        (MessageCode.FIND_REQ, storage.FindReq(resource=RESOURCE, kinds=(1, 3))),
        (MessageCode.FIND_ANS, storage.FindAns(results=(storage.FindKindData(kind=1, closest=RESOURCE),))),
        (MessageCode.JOIN_REQ, methods.JoinReq(joining_peer_id=NODES[1])),
        (MessageCode.JOIN_ANS, methods.JoinAns()),
        (MessageCode.LEAVE_REQ, methods.LeaveReq(leaving_peer_id=NODES[1], overlay_specific_data=leave)),
        (MessageCode.LEAVE_ANS, methods.LeaveAns()),
        (MessageCode.UPDATE_REQ, chord.PeerReady(uptime=60)),
        (MessageCode.UPDATE_REQ, chord.Neighbors(uptime=60, predecessors=NODES[:2], successors=NODES[2:4])),
        (MessageCode.UPDATE_REQ, chord.Full(
            uptime=60, predecessors=NODES[:2], successors=NODES[2:4], fingers=NODES[4:],
        )),
        (MessageCode.UPDATE_ANS, methods.UpdateAns()),
        (MessageCode.ROUTE_QUERY_REQ, methods.RouteQueryReq(send_update=True, destination=resource)),
        (MessageCode.ROUTE_QUERY_ANS, chord.ChordRouteQueryAns(next_peer=NODES[3])),
        (MessageCode.PING_REQ, methods.PingReq()),
        (MessageCode.PING_REQ, methods.PingReq(padding=bytes(100))),
        (MessageCode.PING_ANS, methods.PingAns(response_id=1, time=1_700_000_000_000)),
        (MessageCode.STAT_REQ, storage.StatReq(resource=RESOURCE, specifiers=specifiers())),
        (MessageCode.STAT_ANS, metadata()),
        (MessageCode.APP_ATTACH_REQ, methods.AppAttachReq(role=b"passive", **application)),  # type: ignore[arg-type]
        (MessageCode.APP_ATTACH_ANS, methods.AppAttachAns(role=b"active", **application)),  # type: ignore[arg-type]
        (MessageCode.CONFIG_UPDATE_REQ, methods.ConfigUpdate(config_data=b"<overlay/>")),
        (MessageCode.CONFIG_UPDATE_REQ, methods.KindUpdate(kinds=(b"<kind-block/>",))),
        (MessageCode.CONFIG_UPDATE_ANS, methods.ConfigUpdateAns()),
        (MessageCode.ERROR, ErrorResponse(error_code=ErrorCode.FORBIDDEN, error_info=b"not yours")),
        (MessageCode.ERROR, ErrorResponse(
            error_code=ErrorCode.UNKNOWN_KIND, error_info=UnknownKinds(unknown_kinds=(9, 10)).encode(),
        )),
    ]
