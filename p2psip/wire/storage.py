"""Stored values and the methods that carry them (RFC 6940, section 7)."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from .. import ids
from .codec import Struct, WireContext, length_of_rest
from .codes import DataModel, HashAlgorithm
from .codes import Kind as RegisteredKind
from .fields import (
    ByModel,
    Int,
    NodeId,
    ResourceId,
    Vector,
    boolean,
    opaque8,
    opaque16,
    opaque32,
    uint8,
    uint16,
    uint32,
    uint64,
    vec8,
    vec16,
    vec32,
)
from .security import Signature

KindId: TypeAlias = Annotated[int, Int(4, RegisteredKind)]
DictionaryKey: TypeAlias = opaque16

# -- Values in the three data models (7.2) ----------------------------------


class DataValue(Struct, model=DataModel.SINGLE):
    """A value, or with `exists` False the statement that there is none."""

    exists: boolean = True
    value: opaque32


class ArrayEntry(Struct, model=DataModel.ARRAY):
    index: uint32
    value: DataValue


class DictionaryEntry(Struct, model=DataModel.DICTIONARY):
    key: DictionaryKey
    value: DataValue


StoredDataValue: TypeAlias = DataValue | ArrayEntry | DictionaryEntry


class StoredData(Struct, keep=("value",)):
    """
    A value as it lies in the overlay, signed by whoever stored it (RFC 6940, section 7).

    Decode one alone with ``ctx.of_kind(kind)``.

    :ivar storage_time: milliseconds since 1970.
    :ivar lifetime: seconds from reception.
    """

    length: uint32 = length_of_rest()
    storage_time: uint64
    lifetime: uint32
    value: Annotated[StoredDataValue, ByModel()]
    signature: Signature

    def signature_input(self, resource: bytes, kind: int) -> bytes:
        """What the signature of this value covers, from the received bytes; see `data_signature_input`."""
        value = self.raw("value")
        if isinstance(self.value, ArrayEntry):
            value = bytes(4) + value[4:]
        return _signature_input(resource, kind, self.storage_time, value, self.signature.raw("identity"))


def data_signature_input(
    resource: bytes, kind: int, storage_time: int, value: StoredDataValue, identity: bytes,
) -> bytes:
    """
    What the signature of a stored value covers (RFC 6940, 7.1, 7.4.2.2).

    The Resource-ID counts with its length byte; the index of an array entry
    counts as 0.

    :param identity: the encoded `SignerIdentity`.
    """
    if isinstance(value, ArrayEntry):
        value = value.replace(index=0)
    return _signature_input(resource, kind, storage_time, value.encode(), identity)


def _signature_input(resource: bytes, kind: int, storage_time: int, value: bytes, identity: bytes) -> bytes:
    head = _SignedHead(resource=ids.ResourceId(resource), kind=kind, storage_time=storage_time)
    return head.encode() + value + identity


class _SignedHead(Struct):
    resource: ResourceId
    kind: KindId
    storage_time: uint64


# -- Store (7.4.1) ----------------------------------------------------------


class StoreKindData(Struct):
    kind: KindId
    generation_counter: uint64 = 0
    values: Annotated[tuple[StoredData, ...], Vector(4, given="kind")]


class StoreReq(Struct):
    resource: ResourceId
    replica_number: uint8 = 0
    kind_data: vec32[StoreKindData]


class StoreKindResponse(Struct):
    kind: KindId
    generation_counter: uint64
    replicas: vec16[NodeId] = ()


class StoreAns(Struct):
    """The answer to Store; also the error_info of Error_Generation_Counter_Too_Low."""

    kind_responses: vec16[StoreKindResponse]


# -- Fetch (7.4.2) ----------------------------------------------------------


class ArrayRange(Struct):
    """The elements from `first` to `last`, both included; 0xffffffff is the last one."""

    first: uint32
    last: uint32


class SingleSpecifier(Struct, model=DataModel.SINGLE):
    """There is but one value."""


class ArraySpecifier(Struct, model=DataModel.ARRAY):
    indices: vec16[ArrayRange]


class DictionarySpecifier(Struct, model=DataModel.DICTIONARY):
    """The values with these keys; without keys, all."""

    keys: vec16[DictionaryKey] = ()


class StoredDataSpecifier(Struct):
    """Which values of a Kind are wanted; `generation` is the one already known, or 0."""

    kind: KindId
    generation: uint64 = 0
    length: uint16 = length_of_rest()
    model_specifier: Annotated[SingleSpecifier | ArraySpecifier | DictionarySpecifier, ByModel(given="kind")]


class FetchReq(Struct):
    resource: ResourceId
    specifiers: vec16[StoredDataSpecifier]


class FetchKindResponse(Struct):
    kind: KindId
    generation: uint64
    values: Annotated[tuple[StoredData, ...], Vector(4, given="kind")] = ()


class FetchAns(Struct):
    kind_responses: vec32[FetchKindResponse]


# -- Stat (7.4.3) -----------------------------------------------------------


class MetaData(Struct, model=DataModel.SINGLE):
    """About a value; the hash covers the value with its 4 length bytes (RFC 6940, 7.4.3.2)."""

    exists: boolean
    value_length: uint32
    hash_algorithm: Annotated[int, Int(1, HashAlgorithm)] = HashAlgorithm.SHA256
    hash_value: opaque8


class ArrayEntryMeta(Struct, model=DataModel.ARRAY):
    index: uint32
    value: MetaData


class DictionaryEntryMeta(Struct, model=DataModel.DICTIONARY):
    key: DictionaryKey
    value: MetaData


MetaDataValue: TypeAlias = MetaData | ArrayEntryMeta | DictionaryEntryMeta


class StoredMetaData(Struct):
    value_length: uint32 = length_of_rest()
    storage_time: uint64
    lifetime: uint32
    metadata: Annotated[MetaDataValue, ByModel()]


class StatReq(Struct):
    resource: ResourceId
    specifiers: vec16[StoredDataSpecifier]


class StatKindResponse(Struct):
    kind: KindId
    generation: uint64
    values: Annotated[tuple[StoredMetaData, ...], Vector(4, given="kind")] = ()


class StatAns(Struct):
    kind_responses: vec32[StatKindResponse]


# -- Find (7.4.4) -----------------------------------------------------------


class FindReq(Struct):
    resource: ResourceId
    kinds: vec8[KindId]


class FindKindData(Struct):
    kind: KindId
    closest: ResourceId


class FindAns(Struct):
    results: vec16[FindKindData]


# -- Requests that name Kinds not known here --------------------------------


class _StoreKindOutline(Struct):
    kind: KindId
    generation_counter: uint64
    values: opaque32


class _StoreOutline(Struct):
    resource: ResourceId
    replica_number: uint8
    kind_data: vec32[_StoreKindOutline]


class _SpecifierOutline(Struct):
    kind: KindId
    generation: uint64
    model_specifier: opaque16


class _FetchOutline(Struct):
    resource: ResourceId
    specifiers: vec16[_SpecifierOutline]


class _AnswerOutline(Struct):
    kind_responses: vec32[_StoreKindOutline]


_OUTLINES: dict[type[Struct], type[Struct]] = {
    StoreReq: _StoreOutline, FetchReq: _FetchOutline, StatReq: _FetchOutline,
    FetchAns: _AnswerOutline, StatAns: _AnswerOutline,
}


def kinds_named(cls: type[Struct], body: bytes, ctx: WireContext) -> tuple[int, ...]:
    """
    The Kind-IDs in a body of type `cls`, known or not, in their order.

    :raises DecodeError: it is no such body.
    """
    if cls not in _OUTLINES:
        return ()
    outline = _OUTLINES[cls].decode(body, ctx)
    (items,) = [value for value in outline._values() if isinstance(value, tuple)]
    return tuple([item.kind for item in items])
