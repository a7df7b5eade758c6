"""The value of the Kind TURN-SERVICE (RFC 6940, section 9), and how credentials of a TURN server travel."""

from __future__ import annotations

from .codec import Struct
from .codes import MessageExtensionType
from .contents import MessageExtension
from .fields import opaque8, uint8, uint32
from .methods import IpAddressPort


class TurnServer(Struct):
    """Where a TURN server is; `iteration` is the d with which its Resource-ID was made."""

    iteration: uint8
    server_address: IpAddressPort


class TurnCredentials(MessageExtension, case=MessageExtensionType.TURN_CREDENTIALS):
    """
    In a Ping request, empty: asks for credentials; in its answer: gives them.

    `username` and `password` are ASCII, for TURN's long-term credential
    mechanism; `lifetime` is in seconds from now. No RFC has this.
    """

    username: opaque8 = b""
    password: opaque8 = b""
    lifetime: uint32 = 0
