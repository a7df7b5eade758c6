"""Every error code of RELOAD as an exception (RFC 6940 §6.3.3.1 and §14.9, RFC 7851 §9.4).

Raise one anywhere: the single place that turns requests into answers makes the error answer of it.  An error
answer that arrives is raised as the same class.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

from .ids import NodeId


class ErrorCode(IntEnum):
    """The error codes that IANA keeps for RELOAD."""

    FORBIDDEN = 0x2
    NOT_FOUND = 0x3
    REQUEST_TIMEOUT = 0x4
    GENERATION_COUNTER_TOO_LOW = 0x5
    INCOMPATIBLE_WITH_OVERLAY = 0x6
    UNSUPPORTED_FORWARDING_OPTION = 0x7
    DATA_TOO_LARGE = 0x8
    DATA_TOO_OLD = 0x9
    TTL_EXCEEDED = 0xA
    MESSAGE_TOO_LARGE = 0xB
    UNKNOWN_KIND = 0xC
    UNKNOWN_EXTENSION = 0xD
    RESPONSE_TOO_LARGE = 0xE
    CONFIG_TOO_OLD = 0xF
    CONFIG_TOO_NEW = 0x10
    IN_PROGRESS = 0x11
    EXP_A = 0x12
    EXP_B = 0x13
    INVALID_MESSAGE = 0x14
    UNDERLAY_DESTINATION_UNREACHABLE = 0x15
    UNDERLAY_TIME_EXCEEDED = 0x16
    MESSAGE_EXPIRED = 0x17
    UPSTREAM_MISROUTING = 0x18
    LOOP_DETECTED = 0x19
    TTL_HOPS_EXCEEDED = 0x1A


class RELOADError(Exception):
    """An error that the protocol has a code for.

    `error_info` is what the answer carries: text for people, or a structure where the RFC says so.
    `signer` is the Node-ID that signed it where it arrived as an answer; None where it was raised here.
    """

    code: ClassVar[int] = 0
    signer: NodeId | None = None

    def __init__(self, error_info: str | bytes = b"") -> None:
        super().__init__(error_info)
        self.error_info = error_info.encode() if isinstance(error_info, str) else error_info

    def __str__(self) -> str:
        text = self.error_info.decode("utf-8", "backslashreplace")
        return f"{type(self).__name__}: {text}" if text else type(self).__name__


class UnassignedError(RELOADError):
    """An error answer whose code nobody here knows; `number` is that code."""

    def __init__(self, number: int, error_info: bytes = b"") -> None:
        super().__init__(error_info)
        self.number = number


class Forbidden(RELOADError):
    """The sender may not do this."""

    code = ErrorCode.FORBIDDEN


class NotFound(RELOADError):
    """There is no such resource, or this node is not responsible for it."""

    code = ErrorCode.NOT_FOUND


class RequestTimeout(RELOADError):
    """No answer came within the lifetime of the request."""

    code = ErrorCode.REQUEST_TIMEOUT


class GenerationCounterTooLow(RELOADError):
    """The value was changed since it was read; `error_info` is a StoreAns with the current counters."""

    code = ErrorCode.GENERATION_COUNTER_TOO_LOW


class IncompatibleWithOverlay(RELOADError):
    """This Overlay Instance cannot serve the message; also: the answer would exceed max_response_length."""

    code = ErrorCode.INCOMPATIBLE_WITH_OVERLAY


class UnsupportedForwardingOption(RELOADError):
    """A forwarding option marked critical is not understood."""

    code = ErrorCode.UNSUPPORTED_FORWARDING_OPTION


class DataTooLarge(RELOADError):
    """The value exceeds max-size, or there are more than max-count of them."""

    code = ErrorCode.DATA_TOO_LARGE


class DataTooOld(RELOADError):
    """The storage_time is not greater than that of the value already stored."""

    code = ErrorCode.DATA_TOO_OLD


class TTLExceeded(RELOADError):
    """The message took too many hops."""

    code = ErrorCode.TTL_EXCEEDED


class MessageTooLarge(RELOADError):
    """The message exceeds max-message-size."""

    code = ErrorCode.MESSAGE_TOO_LARGE


class UnknownKind(RELOADError):
    """A Kind is not known here; `error_info` is the list of the unknown Kind-IDs."""

    code = ErrorCode.UNKNOWN_KIND


class UnknownExtension(RELOADError):
    """A message extension marked critical is not understood."""

    code = ErrorCode.UNKNOWN_EXTENSION


class ResponseTooLarge(RELOADError):
    """The answer would exceed max_response_length."""

    code = ErrorCode.RESPONSE_TOO_LARGE


class ConfigTooOld(RELOADError):
    """The sender's configuration document is older than ours."""

    code = ErrorCode.CONFIG_TOO_OLD


class ConfigTooNew(RELOADError):
    """The sender's configuration document is newer than ours."""

    code = ErrorCode.CONFIG_TOO_NEW


class InProgress(RELOADError):
    """The same is already under way."""

    code = ErrorCode.IN_PROGRESS


class ExpA(RELOADError):
    """Error_Exp_A, for experiments."""

    code = ErrorCode.EXP_A


class ExpB(RELOADError):
    """Error_Exp_B, for experiments."""

    code = ErrorCode.EXP_B


class InvalidMessage(RELOADError):
    """The message is well formed but makes no sense."""

    code = ErrorCode.INVALID_MESSAGE


class UnderlayDestinationUnreachable(RELOADError):
    """The underlay cannot reach the next hop (RFC 7851)."""

    code = ErrorCode.UNDERLAY_DESTINATION_UNREACHABLE


class UnderlayTimeExceeded(RELOADError):
    """The underlay's hop limit ran out on the way to the next hop (RFC 7851)."""

    code = ErrorCode.UNDERLAY_TIME_EXCEEDED


class MessageExpired(RELOADError):
    """A diagnostic message arrived after its expiration time (RFC 7851)."""

    code = ErrorCode.MESSAGE_EXPIRED


class UpstreamMisrouting(RELOADError):
    """The previous hop should not have sent a diagnostic message this way (RFC 7851)."""

    code = ErrorCode.UPSTREAM_MISROUTING


class LoopDetected(RELOADError):
    """A diagnostic message came by a second time (RFC 7851)."""

    code = ErrorCode.LOOP_DETECTED


class TTLHopsExceeded(RELOADError):
    """A diagnostic message took too many hops (RFC 7851)."""

    code = ErrorCode.TTL_HOPS_EXCEEDED


def _by_code() -> dict[int, type[RELOADError]]:
    return {cls.code: cls for cls in RELOADError.__subclasses__() if cls.code}


_CLASSES = _by_code()


def error_of(code: int, error_info: bytes = b"") -> RELOADError:
    """The exception that an error answer with `code` stands for; UnassignedError for an unknown code."""
    cls = _CLASSES.get(code)
    return cls(error_info) if cls is not None else UnassignedError(code, error_info)


class LinkError(Exception):
    """A link could not be opened, or was closed because of what its other end did; the text says which."""


class NotJoined(Exception):
    """What was asked needs a node that has joined its overlay."""
