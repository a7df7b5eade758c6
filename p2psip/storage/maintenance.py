"""What one peer tells another to bring its copy of a resource up to date (RFC 6940 §7.4.1.1, §10.4).

Pure: `replication` decides when, and sends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..ids import ResourceId
from ..wire.storage import (
    ArrayEntryMeta,
    DictionaryEntryMeta,
    MetaDataValue,
    StatAns,
    StoredData,
    StoreKindData,
    StoreReq,
)
from .interfaces import Change, Held, IStorage, Key
from .models import merge
from .verify import Fetched

Wanted = Mapping[int, Collection[Key]]
"""Values of a resource: for each Kind-ID the places."""

KIND_BYTES = 16
CERTIFICATE_BYTES = 3
"""What a StoreKindData and a GenericCertificate take beside what is in them."""


@dataclass(slots=True)
class _Portion:
    """One StoreReq in the making."""

    kinds: dict[int, list[StoredData]] = field(default_factory=dict)
    certificates: dict[bytes, None] = field(default_factory=dict)
    size: int = 0

    def growth(self, kind_id: int, held: Held) -> int:
        """By how many bytes the message would grow with `held`."""
        more = held.size
        if kind_id not in self.kinds:
            more += KIND_BYTES
        if held.certificate not in self.certificates:
            more += len(held.certificate) + CERTIFICATE_BYTES
        return more


def everything(storage: IStorage, resource: ResourceId) -> Wanted:
    """All values of `resource`."""
    return {kind_id: tuple(storage.held(resource, kind_id)) for kind_id in storage.kinds(resource)}


def store_requests(
    storage: IStorage, resource: ResourceId, wanted: Wanted, replica_number: int, now: float, most_bytes: int
) -> list[tuple[StoreReq, Sequence[bytes]]]:
    """The StoreReqs that bring the `wanted` values to another peer, each with its writers' certificates.

    Generation counters are copied and lifetimes are those that are left (RFC 6940 §7.4.1.1).  Values and
    certificates of one request take no more than `most_bytes`, unless a single value does.
    """
    portions: list[_Portion] = []
    for kind_id, held in _held(storage, resource, wanted):
        remaining = held.remaining(now)
        if not remaining:
            continue
        if not portions or portions[-1].size + portions[-1].growth(kind_id, held) > most_bytes:
            portions.append(_Portion())
        portion = portions[-1]
        portion.size += portion.growth(kind_id, held)
        portion.kinds.setdefault(kind_id, []).append(held.data.replace(lifetime=remaining))
        portion.certificates[held.certificate] = None
    return [
        (
            StoreReq(
                resource=resource,
                replica_number=replica_number,
                kind_data=tuple(
                    StoreKindData(
                        kind=kind_id,
                        generation_counter=storage.generation(resource, kind_id),
                        values=tuple(values),
                    )
                    for kind_id, values in portion.kinds.items()
                ),
            ),
            tuple(portion.certificates),
        )
        for portion in portions
    ]


def _held(storage: IStorage, resource: ResourceId, wanted: Wanted) -> Iterator[tuple[int, Held]]:
    for kind_id, keys in wanted.items():
        standing = storage.held(resource, kind_id)
        for key in keys:
            if key in standing:
                yield kind_id, standing[key]


def lacking(storage: IStorage, resource: ResourceId, answer: StatAns) -> Wanted:
    """The values of the Kinds in `answer` that its sender does not have, or has older."""
    found: dict[int, list[Key]] = {}
    for response in answer.kind_responses:
        # One without any lifetime left is none, and may be synthetic.
        theirs = {_key_of(each.metadata): each.storage_time for each in response.values if each.lifetime}
        ours = storage.held(resource, response.kind)
        keys = [key for key, held in ours.items() if theirs.get(key, -1) < held.data.storage_time]
        if keys:
            found[response.kind] = keys
    return found


def _key_of(metadata: MetaDataValue) -> Key:
    if isinstance(metadata, ArrayEntryMeta):
        return metadata.index
    if isinstance(metadata, DictionaryEntryMeta):
        return metadata.key
    return None


def take_newer(
    storage: IStorage, resource: ResourceId, fetched: Mapping[int, Fetched], now: float
) -> dict[int, Collection[Key]]:
    """Replace our values by those fetched from a peer that refused ours as too old; answers which.

    :raises p2psip.errors.DataTooLarge: a quota would be exceeded.
    """
    changes: list[Change] = []
    for kind_id, theirs in fetched.items():
        signers = {id(value.data): value.signer for value in theirs.values}
        newer = merge(storage.held(resource, kind_id), [value.data for value in theirs.values])
        values = {key: Held.received(data, signers[id(data)].identity, now) for key, data in newer.items()}
        if values:
            generation = max(theirs.generation, storage.generation(resource, kind_id), 1)
            changes.append(Change(kind_id, generation, values))
    storage.apply(resource, changes)
    return {change.kind_id: tuple(change.values) for change in changes}
