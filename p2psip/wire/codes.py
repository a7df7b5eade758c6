"""
The numbers of RELOAD (RFC 6940, section 14; RFC 7263, 7363, 7374, 7851, 7904, 8076).

Decoded numbers stay plain integers, because unknown ones are no error; members
of these enumerations compare equal to them.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag, StrEnum
from typing import Final

from ..errors import ErrorCode

__all__ = [
    "LAST_INDEX",
    "RELO_TOKEN",
    "UNFRAGMENTED",
    "VERSION",
    "AddressType",
    "ApplicationId",
    "CandType",
    "CertificateType",
    "ChordLeaveType",
    "ChordUpdateType",
    "ConfigUpdateType",
    "DataModel",
    "DestinationType",
    "ErrorCode",
    "ForwardingFlags",
    "ForwardingOptionType",
    "FramedMessageType",
    "HashAlgorithm",
    "Kind",
    "MessageCode",
    "MessageExtensionType",
    "OverlayLinkType",
    "ProbeInformationType",
    "SignatureAlgorithm",
    "SignerIdentityType",
    "SipRegistrationType",
    "is_request",
]

RELO_TOKEN: Final = 0xD2454C4F
"""Begins every message: "RELO" with the top bit set (RFC 6940, 6.3.2)."""

VERSION: Final = 0x0A
"""Version 1.0, in tenths (RFC 6940, 6.3.2)."""

UNFRAGMENTED: Final = 0xC0000000
"""The fragment field of a whole message: first and last at once (RFC 6940, 6.3.2)."""

LAST_INDEX: Final = 0xFFFFFFFF
"""As an array index: append when storing, the last element when fetching (RFC 6940, 7.4.1.1, 7.4.2.1)."""


class MessageCode(IntEnum):
    """RFC 6940, 14.8; RFC 7851, 9.3.  An answer is its request plus 1."""

    PROBE_REQ = 0x1
    PROBE_ANS = 0x2
    ATTACH_REQ = 0x3
    ATTACH_ANS = 0x4
    STORE_REQ = 0x7
    STORE_ANS = 0x8
    FETCH_REQ = 0x9
    FETCH_ANS = 0xA
    FIND_REQ = 0xD
    FIND_ANS = 0xE
    JOIN_REQ = 0xF
    JOIN_ANS = 0x10
    LEAVE_REQ = 0x11
    LEAVE_ANS = 0x12
    UPDATE_REQ = 0x13
    UPDATE_ANS = 0x14
    ROUTE_QUERY_REQ = 0x15
    ROUTE_QUERY_ANS = 0x16
    PING_REQ = 0x17
    PING_ANS = 0x18
    STAT_REQ = 0x19
    STAT_ANS = 0x1A
    APP_ATTACH_REQ = 0x1D
    APP_ATTACH_ANS = 0x1E
    CONFIG_UPDATE_REQ = 0x21
    CONFIG_UPDATE_ANS = 0x22
    EXP_A_REQ = 0x23
    EXP_A_ANS = 0x24
    EXP_B_REQ = 0x25
    EXP_B_ANS = 0x26
    PATH_TRACK_REQ = 0x27
    PATH_TRACK_ANS = 0x28
    ERROR = 0xFFFF


def is_request(message_code: int) -> bool:
    """Whether a message with this code may be answered: odd, and below what is reserved (RFC 6940, 6.3.3)."""
    return message_code & 1 == 1 and message_code < 0x8000


class Kind(IntEnum):
    """The registered Kind-IDs (RFC 6940, 14.6; RFC 7374; RFC 7904; RFC 8076)."""

    SIP_REGISTRATION = 0x1
    TURN_SERVICE = 0x2
    CERTIFICATE_BY_NODE = 0x3
    ACCESS_CONTROL_LIST = 0x4
    CERTIFICATE_BY_USER = 0x10
    REDIR = 0x104


class DataModel(StrEnum):
    """How the values of a Kind are addressed, as a configuration document spells it (RFC 6940, 7.2, 14.7)."""

    SINGLE = "SINGLE"
    ARRAY = "ARRAY"
    DICTIONARY = "DICTIONARY"


class ApplicationId(IntEnum):
    """What an AppAttach connection is for (RFC 6940, 14.5)."""

    SIP = 5060
    SIPS = 5061


class DestinationType(IntEnum):
    """RFC 6940, 6.3.2.2."""

    NODE = 1
    RESOURCE = 2
    OPAQUE_ID_TYPE = 3


class ForwardingFlags(IntFlag):
    """RFC 6940, 6.3.2.3; RFC 7263, 5.1."""

    FORWARD_CRITICAL = 0x01
    DESTINATION_CRITICAL = 0x02
    RESPONSE_COPY = 0x04
    IGNORE_STATE_KEEPING = 0x08


class ForwardingOptionType(IntEnum):
    """RFC 6940, 14.12; RFC 7263."""

    EXP_FORWARD = 1
    EXTENSIVE_ROUTING_MODE = 2


class MessageExtensionType(IntEnum):
    """RFC 6940, 14.14; RFC 7851; RFC 7363.

    TURN_CREDENTIALS is this implementation's (`p2psip.wire.turn`): out of the registry, which has 8-bit integers only.
    """

    EXP_EXT = 0x1
    DIAGNOSTIC_PING = 0x2
    SELF_TUNING_DATA = 0x3
    TURN_CREDENTIALS = 0xFF01


class AddressType(IntEnum):
    """RFC 6940, 6.3.1.1."""

    IPV4_ADDRESS = 1
    IPV6_ADDRESS = 2


class OverlayLinkType(IntEnum):
    """RFC 6940, 14.10."""

    DTLS_UDP_SR = 1
    DTLS_UDP_SR_NO_ICE = 3
    TLS_TCP_FH_NO_ICE = 4
    EXP_LINK = 5


class CandType(IntEnum):
    """RFC 6940, 6.5.1.1; 3 is reserved."""

    HOST = 1
    SRFLX = 2
    RELAY = 4


class ProbeInformationType(IntEnum):
    """RFC 6940, 14.13."""

    RESPONSIBLE_SET = 1
    NUM_RESOURCES = 2
    UPTIME = 3
    EXP_PROBE = 4


class ConfigUpdateType(IntEnum):
    """RFC 6940, 6.5.4.1."""

    CONFIG = 1
    KIND = 2


class FramedMessageType(IntEnum):
    """RFC 6940, 6.6.2."""

    DATA = 128
    ACK = 129


class ChordUpdateType(IntEnum):
    """RFC 6940, 10.7."""

    PEER_READY = 1
    NEIGHBORS = 2
    FULL = 3


class ChordLeaveType(IntEnum):
    """RFC 6940, 10.9."""

    FROM_SUCC = 1
    FROM_PRED = 2


class SipRegistrationType(IntEnum):
    """RFC 7904, 3.2."""

    SIP_REGISTRATION_URI = 1
    SIP_REGISTRATION_ROUTE = 2


class SignerIdentityType(IntEnum):
    """RFC 6940, 6.3.4."""

    CERT_HASH = 1
    CERT_HASH_NODE_ID = 2
    NONE = 3


class CertificateType(IntEnum):
    """The TLS registry; RELOAD uses X.509 only (RFC 6091, RFC 6940, 6.3.4)."""

    X509 = 0


class HashAlgorithm(IntEnum):
    """The TLS registry (RFC 5246, 7.4.1.4.1)."""

    NONE = 0
    MD5 = 1
    SHA1 = 2
    SHA224 = 3
    SHA256 = 4
    SHA384 = 5
    SHA512 = 6


class SignatureAlgorithm(IntEnum):
    """The TLS registry (RFC 5246, 7.4.1.4.1)."""

    ANONYMOUS = 0
    RSA = 1
    DSA = 2
    ECDSA = 3
