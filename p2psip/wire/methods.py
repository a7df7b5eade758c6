"""The bodies of all methods but those of storage (RFC 6940, 6.4.2 and 6.5)."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from .codec import Choice, Struct, length_of_rest, select
from .codes import (
    AddressType,
    ApplicationId,
    CandType,
    ConfigUpdateType,
    OverlayLinkType,
    ProbeInformationType,
)
from .fields import (
    Int,
    NodeId,
    When,
    boolean,
    opaque8,
    opaque16,
    opaque24,
    rest,
    uint8,
    uint16,
    uint32,
    uint64,
    uint128,
    vec8,
    vec16,
    vec24,
)
from .header import Destination

# -- Joining and leaving (6.4.2) --------------------------------------------


class JoinReq(Struct):
    joining_peer_id: NodeId
    overlay_specific_data: opaque16 = b""


class JoinAns(Struct):
    overlay_specific_data: opaque16 = b""


class LeaveReq(Struct):
    leaving_peer_id: NodeId
    overlay_specific_data: opaque16 = b""


class LeaveAns(Struct):
    pass


class UpdateAns(Struct):
    """The answer to an Update, whose request is the topology plug-in's (for Chord: `p2psip.wire.chord`)."""


class RouteQueryReq(Struct):
    """Which way a message to `destination` would go; with `send_update` an Update is asked for, too."""

    send_update: boolean = False
    destination: Destination
    overlay_specific_data: opaque16 = b""


# -- Probe (6.4.2.5) --------------------------------------------------------

ProbeType = Annotated[int, Int(1, ProbeInformationType)]


class ProbeReq(Struct):
    requested_info: vec8[ProbeType] = ()


class ProbeInformation(Choice):
    """One piece of a peer's status."""

    type: ProbeType = select()
    length: uint8 = length_of_rest()


class ResponsibleSet(ProbeInformation, case=ProbeInformationType.RESPONSIBLE_SET):
    """The part of the overlay that the peer is responsible for, in parts per billion."""

    responsible_ppb: uint32


class NumResources(ProbeInformation, case=ProbeInformationType.NUM_RESOURCES):
    """How many Resource-IDs the peer stores values under."""

    num_resources: uint32


class Uptime(ProbeInformation, case=ProbeInformationType.UPTIME):
    """Seconds since the peer started."""

    uptime: uint32


class UnknownProbeInformation(ProbeInformation, other=True):
    """Information of a type nobody here declared."""

    type: uint8
    value: rest


class ProbeAns(Struct):
    probe_info: vec16[ProbeInformation] = ()


# -- Attach and AppAttach (6.5.1, 6.5.2) ------------------------------------


class IpAddressPort(Choice):
    """A transport address (RFC 6940, 6.3.1.1); `of` makes one from text."""

    type: Annotated[int, Int(1, AddressType)] = select()
    length: uint8 = length_of_rest()

    @property
    def host(self) -> str:
        """The address as text; "" when its type is unknown."""
        return ""

    @staticmethod
    def of(host: str, port: int) -> IPv4AddrPort | IPv6AddrPort:
        """
        The structure for a numeric IPv4 or IPv6 address (no zone).

        :raises ValueError: `host` is no such address.
        """
        address = ipaddress.ip_address(host)
        if isinstance(address, ipaddress.IPv4Address):
            return IPv4AddrPort(addr=int(address), port=port)
        if address.scope_id is not None:
            raise ValueError(f"{host!r} has a zone, which means nothing elsewhere")
        return IPv6AddrPort(addr=int(address), port=port)


class IPv4AddrPort(IpAddressPort, case=AddressType.IPV4_ADDRESS):
    addr: uint32
    port: uint16

    @property
    def host(self) -> str:
        return str(ipaddress.IPv4Address(self.addr))


class IPv6AddrPort(IpAddressPort, case=AddressType.IPV6_ADDRESS):
    addr: uint128
    port: uint16

    @property
    def host(self) -> str:
        return str(ipaddress.IPv6Address(self.addr))


class UnknownAddressPort(IpAddressPort, other=True):
    """An address of a type nobody here declared."""

    type: uint8
    address: rest


class IceExtension(Struct):
    name: opaque16
    value: opaque16


class IceCandidate(Struct):
    """
    One address a node may be reached at (RFC 6940, 6.5.1.1).

    :ivar rel_addr_port: for srflx and relay candidates only, else None.
    """

    addr_port: IpAddressPort
    overlay_link: Annotated[int, Int(1, OverlayLinkType)]
    foundation: opaque8 = b""
    priority: uint32 = 0
    type: Annotated[int, Int(1, CandType)] = CandType.HOST
    rel_addr_port: Annotated[
        IpAddressPort | None, When("type", present=(CandType.SRFLX, CandType.RELAY), absent=(CandType.HOST,)),
    ] = None
    extensions: vec16[IceExtension] = ()


class AttachReqAns(Struct):
    """Both directions of Attach; `role` is b"passive" in the request, b"active" in the answer."""

    ufrag: opaque8 = b""
    password: opaque8 = b""
    role: opaque8
    candidates: vec16[IceCandidate]
    send_update: boolean = False


class AppAttachReq(Struct):
    ufrag: opaque8 = b""
    password: opaque8 = b""
    application: Annotated[int, Int(2, ApplicationId)]
    role: opaque8
    candidates: vec16[IceCandidate]


class AppAttachAns(Struct):
    ufrag: opaque8 = b""
    password: opaque8 = b""
    application: Annotated[int, Int(2, ApplicationId)]
    role: opaque8
    candidates: vec16[IceCandidate]


# -- Ping (6.5.3) -----------------------------------------------------------


class PingReq(Struct):
    padding: opaque16 = b""


class PingAns(Struct):
    """`time` is in milliseconds since 1970, like every storage_time."""

    response_id: uint64
    time: uint64


# -- ConfigUpdate (6.5.4) ---------------------------------------------------


class ConfigUpdateReq(Choice):
    type: Annotated[int, Int(1, ConfigUpdateType)] = select()
    length: uint32 = length_of_rest()


class ConfigUpdate(ConfigUpdateReq, case=ConfigUpdateType.CONFIG):
    """A whole configuration document."""

    config_data: opaque24


class KindUpdate(ConfigUpdateReq, case=ConfigUpdateType.KIND):
    """XML kind-block elements."""

    kinds: vec24[opaque16]


class UnknownConfigUpdate(ConfigUpdateReq, other=True):
    """An update of a type nobody here declared."""

    type: uint8
    update: rest


class ConfigUpdateAns(Struct):
    pass
