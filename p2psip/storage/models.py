"""The three data models: what a Store does to the values that stand (RFC 6940 §7.2, §7.4.1.1).

Everything here is sparse: an array is the entries that were stored, however far apart their indices.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from ..errors import DataTooLarge, DataTooOld, InvalidMessage
from ..wire.codes import LAST_INDEX
from ..wire.storage import (
    ArrayEntry,
    ArrayRange,
    DataValue,
    DictionaryEntry,
    StoredData,
    StoredDataValue,
)
from .interfaces import Held, Key

MAX_SYNTHESISED = 256
"""How many nonexistent values one Fetch of a Kind is answered with; an array may have 2^32 of them."""


def key_of(value: StoredDataValue) -> Key:
    """Where in its Kind `value` belongs."""
    if isinstance(value, ArrayEntry):
        return value.index
    if isinstance(value, DictionaryEntry):
        return value.key
    return None


def data_value(value: StoredDataValue) -> DataValue:
    """What is stored, without its place."""
    return value if isinstance(value, DataValue) else value.value


def same(one: StoredData, other: StoredData) -> bool:
    """Whether two are the same signed value; lifetimes are not signed and shrink from peer to peer."""
    return (
        one.storage_time == other.storage_time
        and data_value(one.value) == data_value(other.value)
        and one.signature == other.signature
    )


def place(standing: Mapping[Key, Held], values: Sequence[StoredData]) -> list[StoredData]:
    """`values` with the index 0xffffffff replaced by the index behind the last, for each in turn.

    :raises DataTooLarge: there is no index left.
    """
    placed: list[StoredData] = []
    end: int | None = None
    for data in values:
        value = data.value
        if isinstance(value, ArrayEntry):
            if end is None:
                end = length(standing)
            if value.index == LAST_INDEX:
                if end >= LAST_INDEX:
                    raise DataTooLarge("the array has no index left")
                data = data.replace(value=value.replace(index=end))
                end += 1
            else:
                end = max(end, value.index + 1)
        placed.append(data)
    return placed


def length(standing: Mapping[Key, Held]) -> int:
    """The length of an array: one more than its last index."""
    return max((key for key in standing if isinstance(key, int)), default=-1) + 1


def supersede(
    standing: Mapping[Key, Held], values: Sequence[StoredData], *, maintenance: bool
) -> dict[Key, StoredData]:
    """Those of `values` (already placed) that change what stands, by their place.

    For `maintenance` (replicas, hand-over) a value that stands already is no error but no change either, or
    else it would be fetched and stored again for ever.

    :raises DataTooOld: a value is not newer than the one it would replace (RFC 6940 §7.4.1.1, §13.5.3).
    """
    changes: dict[Key, StoredData] = {}
    for data in values:
        key = key_of(data.value)
        held = standing.get(key)
        before = changes.get(key) or (held.data if held is not None else None)
        if before is not None:
            if maintenance and same(before, data):
                continue
            if data.storage_time <= before.storage_time:
                raise DataTooOld(f"storage_time {data.storage_time} is not after {before.storage_time}")
        changes[key] = data
    return changes


def merge(standing: Mapping[Key, Held], values: Sequence[StoredData]) -> dict[Key, StoredData]:
    """Those of `values` that replace what stands when two copies are brought together.

    As if all had been stored in the order of their storage_time (RFC 6940 §7.4.1.1).  At equal times that of
    the other peer wins: it was that peer which refused ours.
    """
    changes: dict[Key, StoredData] = {}
    for data in sorted(values, key=lambda data: data.storage_time):
        key = key_of(data.value)
        held = standing.get(key)
        if held is None or (data.storage_time >= held.data.storage_time and not same(held.data, data)):
            changes[key] = data
    return changes


def select_array(standing: Mapping[Key, Held], ranges: Sequence[ArrayRange]) -> Iterator[Held | int]:
    """The entries within `ranges`, in order; for a gap the index alone, up to `MAX_SYNTHESISED` of them.

    :raises InvalidMessage: a range ends before it begins, or two overlap (RFC 6940 §7.4.2.1).
    """
    declared = sorted((each.first, each.last) for each in ranges)
    for first, last in declared:
        if first > last:
            raise InvalidMessage(f"array range from {first} to {last}")
    if any(later[0] <= earlier[1] for earlier, later in pairwise(declared)):
        raise InvalidMessage("array ranges overlap")
    indices = sorted(key for key in standing if isinstance(key, int))
    return _entries(standing, indices, [_span(each, length(standing) - 1) for each in ranges])


def _span(declared: ArrayRange, last: int) -> tuple[int, int]:
    first = max(last, 0) if declared.first == LAST_INDEX else declared.first
    return first, last if declared.last == LAST_INDEX else declared.last


def _entries(
    standing: Mapping[Key, Held], indices: Sequence[int], spans: Sequence[tuple[int, int]]
) -> Iterator[Held | int]:
    synthesised = 0
    for first, last in spans:
        if last - first < MAX_SYNTHESISED - synthesised:
            for index in range(first, last + 1):
                held = standing.get(index)
                synthesised += held is None
                yield index if held is None else held
        else:
            # Too long to be filled: what there is, without the gaps.
            for index in indices[bisect_left(indices, first) : bisect_right(indices, last)]:
                yield standing[index]


def select_dictionary(standing: Mapping[Key, Held], keys: Sequence[bytes]) -> Iterator[Held | bytes]:
    """The entries under `keys`, all if there are none; for one that does not exist its key alone.

    No more than `MAX_SYNTHESISED` of those.
    """
    if not keys:
        yield from standing.values()
        return
    synthesised = 0
    for key in dict.fromkeys(keys):
        held = standing.get(key)
        if held is not None:
            yield held
        elif synthesised < MAX_SYNTHESISED:
            synthesised += 1
            yield key
