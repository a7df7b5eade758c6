"""Node-IDs and Resource-IDs, and arithmetic on the ring they share (RFC 6940 §3, §10.1)."""

from __future__ import annotations

from typing import NewType

NodeId = NewType("NodeId", bytes)
"""A Node-ID: 16 to 20 bytes, the same number throughout one Overlay Instance (RFC 6940 §6.3.1.1)."""

ResourceId = NewType("ResourceId", bytes)
"""A Resource-ID: at most 254 bytes; as long as a Node-ID in CHORD-RELOAD (RFC 6940 §6.3.1.1)."""


def invalid_node_id(length: int = 16) -> NodeId:
    """The Node-ID of all zeros, which is never on the wire (RFC 6940 §3)."""
    return NodeId(bytes(length))


def wildcard_node_id(length: int = 16) -> NodeId:
    """The Node-ID of all ones: whichever node receives it (RFC 6940 §3)."""
    return NodeId(b"\xff" * length)


def distance(start: bytes, end: bytes) -> int:
    """How far it is clockwise from `start` to `end` on the ring; both are of one length."""
    return (int.from_bytes(end) - int.from_bytes(start)) % (1 << (8 * len(start)))


def within(target: bytes, low: bytes, high: bytes) -> bool:
    """Whether `target` lies in the span (low, high] of the ring; the whole ring when the ends are equal."""
    # Bytes of one length compare as the numbers that they stand for.
    if low < high:
        return low < target <= high
    return low == high or target > low or target <= high


def offset(start: bytes, steps: int) -> bytes:
    """The identifier that lies `steps` clockwise of `start`; negative steps go the other way."""
    size = len(start)
    return ((int.from_bytes(start) + steps) % (1 << (8 * size))).to_bytes(size)
