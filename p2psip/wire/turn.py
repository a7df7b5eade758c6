"""The value of the Kind TURN-SERVICE (RFC 6940, section 9)."""

from __future__ import annotations

from .codec import Struct
from .fields import uint8
from .methods import IpAddressPort


class TurnServer(Struct):
    """Where a TURN server is; `iteration` is the d with which its Resource-ID was made."""

    iteration: uint8
    server_address: IpAddressPort
