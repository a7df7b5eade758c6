"""What the wire floor raises: bytes that are no structure, values that fit no field."""

from __future__ import annotations

from typing import NoReturn


class WireError(ValueError):
    """
    A structure could not be read or written.

    :ivar structure: its name as in the RFC, e.g. ``"SignerIdentity"``.
    :ivar offset: bytes from the start of what was decoded; None when encoding.
    """

    offset: int | None

    def __init__(self, structure: str, offset: int | None, reason: str) -> None:
        where = structure if offset is None else f"{structure} at offset {offset}"
        super().__init__(f"{where}: {reason}")
        self.structure = structure
        self.offset = offset
        self.reason = reason


class DecodeError(WireError):
    """The bytes are not the structure they were said to be; the only exception decoding raises."""

    offset: int

    def __init__(self, structure: str, offset: int, reason: str) -> None:
        super().__init__(structure, offset, reason)


class UnknownKindError(DecodeError):
    """
    The values cannot be read because this node does not know their Kind.

    :ivar kinds: the unknown Kind-IDs, in the order met; all of the body's when
        raised by `p2psip.wire.message.decode_body`, else the first.
    """

    def __init__(self, structure: str, offset: int, kinds: tuple[int, ...]) -> None:
        super().__init__(structure, offset, "unknown Kind " + ", ".join(f"{kind:#x}" for kind in kinds))
        self.kinds = kinds


class EncodeError(WireError):
    """The value cannot be carried by the field it was put in."""

    def __init__(self, structure: str, reason: str) -> None:
        super().__init__(structure, None, reason)


# Generated code raises through these, because a `raise` is no expression.


def fail(structure: str, offset: int, reason: str) -> NoReturn:
    raise DecodeError(structure, offset, reason)


def fail_kind(structure: str, offset: int, kind: int) -> NoReturn:
    raise UnknownKindError(structure, offset, (kind,))


def fail_write(structure: str, reason: str) -> NoReturn:
    raise EncodeError(structure, reason)
