"""The working set: a node's values in memory, indexed along the ring (RFC 6940 §7)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from types import MappingProxyType

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from ..errors import DataTooLarge
from ..ids import ResourceId
from .interfaces import Change, Held, IStorage, Key, Quotas

_NOTHING: Mapping[Key, Held] = MappingProxyType({})


@dataclass(slots=True)
class _Kind:
    generation: int = 0
    values: dict[Key, Held] = field(default_factory=dict)


@dataclass(slots=True)
class _Resource:
    kinds: dict[int, _Kind] = field(default_factory=dict)
    values: int = 0
    size: int = 0


@dataclass(slots=True)
class _Signer:
    certificate: bytes
    values: int = 0
    size: int = 0


@implementer(IStorage)
class MemoryStorage:
    """Values in memory only: for tests and simulations, and the part of every storage that is read.

    Every change goes through `_replace`, which answers how to undo it.
    """

    def __init__(self, quotas: Quotas | None = None) -> None:
        self.quotas = quotas if quotas is not None else Quotas()
        self.values = 0
        self.size = 0
        self._resources: dict[ResourceId, _Resource] = {}
        self._signers: dict[bytes, _Signer] = {}
        self._ring: list[ResourceId] = []
        self._rings: dict[int, list[ResourceId]] = {}
        self._expiries: list[tuple[float, ResourceId, int, int, Key]] = []
        self._pushed = 0

    @property
    def resources(self) -> int:
        return len(self._resources)

    # -- Reading ------------------------------------------------------------------------------

    def generation(self, resource: ResourceId, kind_id: int) -> int:
        kind = self._kind(resource, kind_id)
        return kind.generation if kind is not None else 0

    def held(self, resource: ResourceId, kind_id: int) -> Mapping[Key, Held]:
        kind = self._kind(resource, kind_id)
        return MappingProxyType(kind.values) if kind is not None else _NOTHING

    def kinds(self, resource: ResourceId) -> Sequence[int]:
        found = self._resources.get(resource)
        return tuple(found.kinds) if found is not None else ()

    def closest(self, resource: ResourceId, kind_id: int) -> ResourceId | None:
        ring = self._rings.get(kind_id)
        if not ring:
            return None
        return ring[bisect_left(ring, resource) % len(ring)]

    def between(self, low: bytes, high: bytes) -> Iterator[ResourceId]:
        ring = self._ring
        start, stop = bisect_right(ring, ResourceId(low)), bisect_right(ring, ResourceId(high))
        return iter(ring[start:stop] if low < high else ring[start:] + ring[:stop])

    def _kind(self, resource: ResourceId, kind_id: int) -> _Kind | None:
        found = self._resources.get(resource)
        return found.kinds.get(kind_id) if found is not None else None

    # -- Writing ------------------------------------------------------------------------------

    def apply(self, resource: ResourceId, changes: Sequence[Change]) -> None:
        self._check_quotas(resource, changes)
        for change in changes:
            self._replace(resource, change.kind_id, change.generation, change.values)

    def remove(self, resource: ResourceId) -> None:
        for kind_id in self.kinds(resource):
            self._replace(resource, kind_id, 0, dict.fromkeys(self.held(resource, kind_id)))

    def discard_kind(self, kind_id: int) -> None:
        for resource in tuple(self._rings.get(kind_id, ())):
            self._replace(resource, kind_id, 0, dict.fromkeys(self.held(resource, kind_id)))

    def expire(self, now: float) -> int:
        due: dict[tuple[ResourceId, int], list[Key]] = {}
        while self._expiries and self._expiries[0][0] <= now:
            expires, resource, kind_id, _, key = heappop(self._expiries)
            held = self.held(resource, kind_id).get(key)
            # A value that was replaced or removed leaves its old expiry behind.
            if held is not None and held.expires == expires:
                due.setdefault((resource, kind_id), []).append(key)
        gone = 0
        for (resource, kind_id), keys in due.items():
            missing: dict[Key, Held | None] = dict.fromkeys(keys)
            self._replace(resource, kind_id, self.generation(resource, kind_id), missing)
            gone += len(missing)
        return gone

    def durable(self) -> Deferred[None]:
        return succeed(None)

    def close(self) -> Deferred[None]:
        return self.durable()

    def _check_quotas(self, resource: ResourceId, changes: Sequence[Change]) -> None:
        """Refuse what grows beyond a quota; what does not grow is never refused."""
        limits = self.quotas
        found = self._resources.get(resource) or _Resource()
        values = size = certificates = 0
        signers: dict[bytes, list[int]] = {}
        for change in changes:
            standing = self.held(resource, change.kind_id)
            for key, held in change.values.items():
                if held.fingerprint not in self._signers and held.fingerprint not in signers:
                    certificates += len(held.certificate)
                grown = signers.setdefault(held.fingerprint, [0, 0])
                grown[0] += 1
                grown[1] += held.size
                values += 1
                size += held.size
                before = standing.get(key)
                if before is not None:
                    values -= 1
                    size -= before.size
                    shrunk = signers.setdefault(before.fingerprint, [0, 0])
                    shrunk[0] -= 1
                    shrunk[1] -= before.size
        _limit("values of this node", self.values, values, limits.max_values)
        _limit("bytes of this node", self.size, size + certificates, limits.max_bytes)
        _limit("values of the resource", found.values, values, limits.max_values_per_resource)
        _limit("bytes of the resource", found.size, size, limits.max_bytes_per_resource)
        for fingerprint, (more, bytes_more) in signers.items():
            signer = self._signers.get(fingerprint) or _Signer(b"")
            _limit("values of the signer", signer.values, more, limits.max_values_per_signer)
            _limit("bytes of the signer", signer.size, bytes_more, limits.max_bytes_per_signer)

    def _replace(
        self, resource: ResourceId, kind_id: int, generation: int, values: Mapping[Key, Held | None]
    ) -> tuple[int, dict[Key, Held | None]]:
        """Put each of `values` in its place, None for nothing; answers what would undo it.

        The generation counter is forgotten together with the last value.
        """
        found = self._resources.get(resource)
        if found is None:
            found = self._resources[resource] = _Resource()
            insort(self._ring, resource)
        kind = found.kinds.get(kind_id)
        if kind is None:
            kind = found.kinds[kind_id] = _Kind()
            insort(self._rings.setdefault(kind_id, []), resource)
        undo: tuple[int, dict[Key, Held | None]] = (kind.generation, {})
        kind.generation = generation
        for key, held in values.items():
            before = undo[1][key] = kind.values.pop(key, None)
            if before is not None:
                self._account(found, before, -1)
            if held is not None:
                kind.values[key] = held
                self._account(found, held, 1)
                self._pushed += 1
                heappush(self._expiries, (held.expires, resource, kind_id, self._pushed, key))
        if not kind.values:
            del found.kinds[kind_id]
            _discard(self._rings[kind_id], resource)
            if not self._rings[kind_id]:
                del self._rings[kind_id]
        if not found.kinds:
            del self._resources[resource]
            _discard(self._ring, resource)
        if len(self._expiries) > 4 * self.values + 1024:
            self._rebuild_expiries()
        return undo

    def _account(self, found: _Resource, held: Held, sign: int) -> None:
        signer = self._signers.get(held.fingerprint)
        if signer is None:
            signer = self._signers[held.fingerprint] = _Signer(held.certificate)
            self.size += len(signer.certificate)
        size = sign * held.size
        self.values, self.size = self.values + sign, self.size + size
        found.values, found.size = found.values + sign, found.size + size
        signer.values, signer.size = signer.values + sign, signer.size + size
        if not signer.values:
            del self._signers[held.fingerprint]
            self.size -= len(signer.certificate)

    def _rebuild_expiries(self) -> None:
        """Drop the expiries of values that are no more, so that refreshes do not make the heap grow."""
        every = (
            (held.expires, resource, kind_id, key)
            for resource, found in self._resources.items()
            for kind_id, kind in found.kinds.items()
            for key, held in kind.values.items()
        )
        # The number keeps keys of different types from being compared.
        self._expiries = [
            (expires, resource, kind_id, number, key)
            for number, (expires, resource, kind_id, key) in enumerate(every)
        ]
        self._pushed = len(self._expiries)
        heapify(self._expiries)


def _limit(what: str, standing: int, more: int, limit: int) -> None:
    if more > 0 and standing + more > limit:
        raise DataTooLarge(f"quota: more than {limit} {what}")


def _discard(ring: list[ResourceId], resource: ResourceId) -> None:
    del ring[bisect_left(ring, resource)]
