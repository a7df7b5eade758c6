"""The frame around every message on every link (RFC 6940, 6.6.2)."""

from __future__ import annotations

from typing import Annotated

from .codec import Choice, select
from .codes import FramedMessageType
from .fields import Int, opaque24, uint32


class FramedMessage(Choice):
    """What a link carries, one after the other."""

    type: Annotated[int, Int(1, FramedMessageType)] = select()


class DataFrame(FramedMessage, case=FramedMessageType.DATA):
    """A message and its number on this link."""

    sequence: uint32
    message: opaque24


class AckFrame(FramedMessage, case=FramedMessageType.ACK):
    """
    A data frame has arrived.

    :ivar received: bit ``N - M`` is set when M, less than N = `ack_sequence`, has arrived too.
    """

    ack_sequence: uint32
    received: uint32
