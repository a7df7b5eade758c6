"""What keeps a node's part of the overlay's data, and what is kept (RFC 6940 §7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from ..ids import ResourceId
from ..security.identity import Identity
from ..wire.storage import StoredData

Key: TypeAlias = "int | bytes | None"
"""Where a value lies within its Kind: None for single value, the index in an array, the key in a dictionary."""


@dataclass(frozen=True, slots=True)
class Held:
    """One value as it is kept: what was stored, by whom and for how long.

    `data` is as it came, but that an appended array entry has its real index; its `lifetime` counts from the
    Store, `remaining` says what is left of it.  `certificate` (DER) is the writer's, `fingerprint` its SHA-256.
    """

    data: StoredData
    certificate: bytes = field(repr=False)
    fingerprint: bytes = field(repr=False)
    expires: float
    """Seconds since the epoch: the end of the lifetime, or of the writer's certificate if that is sooner.

    RFC 6940 §7.1 allows to forget data whose signature nobody accepts any more.
    """
    size: int
    """Bytes of `data` as it is encoded."""

    @classmethod
    def received(cls, data: StoredData, writer: Identity, now: float) -> Held:
        """What is to be kept of a value whose signature by `writer` was verified, when it came at `now`."""
        expires = min(now + data.lifetime, writer.not_after)
        return cls(data, writer.certificate, writer.fingerprint, expires, len(data.encode()))

    def remaining(self, now: float) -> int:
        """The lifetime that is left, in whole seconds (RFC 6940 §7.4.1.1)."""
        return max(0, int(self.expires - now))


@dataclass(frozen=True, slots=True)
class Change:
    """What a Store does to one Kind of a resource: its new generation counter, and the values to replace."""

    kind_id: int
    generation: int
    values: Mapping[Key, Held]


@dataclass(frozen=True, slots=True)
class Quotas:
    """How much one node keeps.  Bytes are those of the StoredData structures and the writers' certificates."""

    max_values: int = 500_000
    max_bytes: int = 512 << 20
    max_values_per_resource: int = 1024
    max_bytes_per_resource: int = 1 << 20
    max_values_per_signer: int = 50_000
    max_bytes_per_signer: int = 64 << 20


class StorageError(Exception):
    """The values could not be brought to disk, or read from it; the text names the file and the reason."""


class IStorage(Interface):
    """A node's values.  All but `durable` and `close` happens at once, in memory.

    What is read may hold values whose lifetime is over: call `expire` first.
    """

    resources: int = Attribute("How many Resource-IDs there are values for.")
    values: int = Attribute("How many values there are, tombstones included.")
    size: int = Attribute("The bytes that they take, with the certificates of their writers.")

    def generation(resource: ResourceId, kind_id: int) -> int:
        """The generation counter; 0 if nothing is kept."""

    def held(resource: ResourceId, kind_id: int) -> Mapping[Key, Held]:
        """The values of one Kind: a live view, to be read before anything else is done."""

    def kinds(resource: ResourceId) -> Sequence[int]:
        """The Kind-IDs that `resource` has values of."""

    def apply(resource: ResourceId, changes: Sequence[Change]) -> None:
        """Replace values, all of them or none.

        :raises p2psip.errors.DataTooLarge: a quota would be exceeded.
        """

    def remove(resource: ResourceId) -> None:
        """Forget everything about `resource`."""

    def discard_kind(kind_id: int) -> None:
        """Forget every value of a Kind that the configuration has no longer (RFC 6940 §11.1)."""

    def closest(resource: ResourceId, kind_id: int) -> ResourceId | None:
        """The next Resource-ID, clockwise from `resource` and beginning with it, that has values of a Kind."""

    def between(low: bytes, high: bytes) -> Iterator[ResourceId]:
        """The Resource-IDs in the span (low, high] of the ring, clockwise; all of them when the ends are equal.

        They are those at the time of the call, whatever is changed while they are walked through.
        """

    def expire(now: float) -> int:
        """Forget what has outlived its lifetime; answers how many values went."""

    def durable() -> Deferred[None]:
        """Wait until all that was changed so far will survive the end of this process.

        Fails with StorageError; then every change not yet durable, this one and later ones, is undone.
        """

    def close() -> Deferred[None]:
        """Be durable and release the file.  Nothing may be changed afterwards."""
