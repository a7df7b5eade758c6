"""Answers to Store, Fetch, Stat and Find (RFC 6940 §7.4).

A request is checked in one order, cheap before dear, so that each fault gets the error that the RFC names for
it, and nothing is changed before everything was checked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeVar

from twisted.internet.defer import Deferred

from ..config.kinds import Kind
from ..errors import (
    DataTooLarge,
    Forbidden,
    GenerationCounterTooLow,
    InvalidMessage,
    NotFound,
    UnknownKind,
)
from ..ids import NodeId, ResourceId
from ..interfaces import IAccessPolicy, ITopologyPlugin, Reply, Request, SignedBy
from ..security.interfaces import IVerifier
from ..security.signing import VerificationError, verify_value
from ..wire.codec import Struct
from ..wire.contents import UnknownKinds
from ..wire.security import UNSIGNED
from ..wire.storage import (
    ArrayEntry,
    ArrayEntryMeta,
    ArraySpecifier,
    DataValue,
    DictionaryEntry,
    DictionaryEntryMeta,
    DictionarySpecifier,
    FetchAns,
    FetchKindResponse,
    FetchReq,
    FindAns,
    FindKindData,
    FindReq,
    MetaData,
    MetaDataValue,
    StatAns,
    StatKindResponse,
    StatReq,
    StoreAns,
    StoredData,
    StoredDataSpecifier,
    StoredDataValue,
    StoredMetaData,
    StoreKindData,
    StoreKindResponse,
    StoreReq,
)
from .interfaces import Change, Held, IStorage, Key, StorageError
from .models import (
    data_value,
    key_of,
    place,
    same,
    select_array,
    select_dictionary,
    supersede,
)

Changed = Mapping[int, Collection[Key]]
"""Which values of a resource a Store has changed, by Kind-ID."""

Stored = Callable[[ResourceId, Changed, "NodeId | None"], None]
"""Told of every Store that was accepted and is durable: resource, what it changed, and the peer that therefore
holds the same; None for an original Store."""

Gap = TypeVar("Gap", int, bytes)

MAX_GENERATION = 2**64 - 1
NO_VALUE = DataValue(exists=False, value=b"")


@dataclass(slots=True)
class _Plan:
    """What a Store will do, once all of it was checked."""

    changes: list[Change] = field(default_factory=list)
    generations: dict[int, int] = field(default_factory=dict)
    changed: dict[int, Collection[Key]] = field(default_factory=dict)


class StorageAnswers:
    """Answers for what one node keeps.

    `kinds` answers the Kinds of the current configuration document; `policies` are the access control policies
    by name; `stored` is told of accepted Stores, `count` of the causes for which values were refused.
    """

    def __init__(
        self,
        storage: IStorage,
        topology: ITopologyPlugin,
        kinds: Callable[[], Mapping[int, Kind]],
        verifier: IVerifier,
        policies: Mapping[str, IAccessPolicy],
        stored: Stored = lambda resource, changed, sender: None,
        count: Callable[[str], None] = lambda cause: None,
    ) -> None:
        self._storage = storage
        self._topology = topology
        self._kinds = kinds
        self._verifier = verifier
        self._policies = policies
        self._stored = stored
        self._count = count

    def answerers(
        self, now: Callable[[], float]
    ) -> dict[type[Struct], Callable[[Request], Reply | Deferred[Reply]]]:
        """What answers each of the four methods, for the dispatch."""
        return {
            StoreReq: lambda request: self.answer_store(request, now()),
            FetchReq: lambda request: self.answer_fetch(request, now()),
            StatReq: lambda request: self.answer_stat(request, now()),
            FindReq: lambda request: self.answer_find(request, now()),
        }

    # -- Store --------------------------------------------------------------------------------

    def answer_store(self, request: Request, now: float) -> Deferred[Reply]:
        """Keep the values of a StoreReq; the StoreAns comes when they are durable.

        :raises p2psip.errors.RELOADError: they are refused, all of them.
        """
        body = request.body
        assert isinstance(body, StoreReq)
        self._storage.expire(now)
        kinds = self._known(data.kind for data in body.kind_data)
        if body.replica_number and any(data.values and not data.generation_counter for data in body.kind_data):
            raise InvalidMessage("a replica Store with generation counter 0")
        if body.replica_number == 0:
            if not self._topology.is_responsible(body.resource):
                raise NotFound("not responsible for this resource")
        elif not self._topology.replica_expected(body.resource, request.signer.node_id):
            raise Forbidden("no replica is expected from this node")
        plan = _Plan()
        placed = [self._place(body, data, kinds[data.kind]) for data in body.kind_data]
        writers = [
            self._writers(request, body, data, values, kinds[data.kind])
            for data, values in zip(body.kind_data, placed, strict=True)
        ]
        if body.replica_number == 0:
            self._check_generations(body)
        for data, values, signers in zip(body.kind_data, placed, writers, strict=True):
            self._plan(plan, body, data, values, signers, now)
        self._storage.apply(body.resource, plan.changes)
        return Deferred.fromCoroutine(self._finish(request, body, plan))

    def _place(self, body: StoreReq, data: StoreKindData, kind: Kind) -> list[StoredData]:
        """Give appended entries their index, and check size and number (RFC 6940 §13.5.2)."""
        standing = self._storage.held(body.resource, data.kind)
        for value in data.values:
            if len(data_value(value.value).value) > kind.max_size:
                raise DataTooLarge(f"a value of Kind {data.kind:#x} exceeds {kind.max_size} bytes")
        placed = place(standing, data.values)
        keys = {key_of(value.value) for value in placed}
        grown = keys - standing.keys()
        if len(data.values) > kind.max_count or (grown and len(standing) + len(grown) > kind.max_count):
            raise DataTooLarge(f"more than {kind.max_count} values of Kind {data.kind:#x}")
        return placed

    def _writers(
        self,
        request: Request,
        body: StoreReq,
        data: StoreKindData,
        placed: Sequence[StoredData],
        kind: Kind,
    ) -> list[SignedBy | None]:
        """Who signed each value, all of them allowed to; None where the value stands already.

        Of an original Store, the signer of the StoreReq has to be allowed as well (RFC 6940 §7.3).
        """
        policy = self._policies[kind.access_control]
        standing = self._storage.held(body.resource, data.kind)
        hash_of = self._topology.resource_id
        if body.replica_number == 0:
            for value in placed:
                if not policy.permits(request.signer, body.resource, kind, value, hash_of):
                    raise Forbidden(f"{policy.name}: the sender may not write here")
        writers: list[SignedBy | None] = []
        for value in placed:
            held = standing.get(key_of(value.value))
            if held is not None and same(held.data, value):
                writers.append(None)
                continue
            try:
                writer = verify_value(self._verifier, value, body.resource, data.kind, request.certificates)
            except VerificationError as error:
                self._count(f"value {error.cause}")
                raise Forbidden(f"the signature of a value is not valid: {error.cause}") from None
            if not policy.permits(writer, body.resource, kind, value, hash_of):
                raise Forbidden(f"{policy.name}: the signer of a value may not write here")
            writers.append(writer)
        return writers

    def _check_generations(self, body: StoreReq) -> None:
        """A counter that is not 0 has to be the current one (RFC 6940 §7.4.1.1)."""
        generations = {data.kind: self._storage.generation(body.resource, data.kind) for data in body.kind_data}
        # One ahead of ours has no error of its own in the RFC; that of one behind tells the sender ours.
        if any(data.generation_counter not in (0, generations[data.kind]) for data in body.kind_data):
            raise GenerationCounterTooLow(_store_ans(generations).encode())

    def _plan(
        self,
        plan: _Plan,
        body: StoreReq,
        data: StoreKindData,
        placed: Sequence[StoredData],
        writers: Sequence[SignedBy | None],
        now: float,
    ) -> None:
        """Work out the new values and the new generation counter of one Kind."""
        standing = self._storage.held(body.resource, data.kind)
        generation = current = self._storage.generation(body.resource, data.kind)
        replica = body.replica_number > 0
        new = supersede(standing, placed, maintenance=replica)
        by_value = {id(value): writer for value, writer in zip(placed, writers, strict=True)}
        values: dict[Key, Held] = {}
        for key, value in new.items():
            writer = by_value[id(value)]
            # A value that stands already was either refused as too old or found to change nothing.
            assert writer is not None
            values[key] = Held.received(value, writer.identity, now)
        if replica and data.values:
            generation = data.generation_counter
        elif values:
            generation = current % MAX_GENERATION + 1
        if values or generation != current:
            plan.changes.append(Change(data.kind, generation, values))
        plan.generations[data.kind] = generation
        plan.changed[data.kind] = values.keys()

    async def _finish(self, request: Request, body: StoreReq, plan: _Plan) -> Reply:
        try:
            await self._storage.durable()
        except StorageError:
            self._count("storage failed")
            raise DataTooLarge("this node could not write the values to disk") from None
        original = body.replica_number == 0
        self._stored(body.resource, plan.changed, None if original else request.signer.node_id)
        replicas = tuple(self._topology.replica_set(body.resource)) if original else ()
        return Reply(_store_ans(plan.generations, replicas))

    # -- Fetch and Stat -----------------------------------------------------------------------

    def answer_fetch(self, request: Request, now: float) -> Reply:
        """The values of a FetchReq with their writers' certificates (RFC 6940 §7.4.2)."""
        body = request.body
        assert isinstance(body, FetchReq)
        certificates: dict[bytes, None] = {}
        responses = []
        for specifier, wanted in self._wanted(body, now):
            values = []
            for one in wanted:
                if isinstance(one, Held):
                    certificates[one.certificate] = None
                    values.append(one.data.replace(lifetime=one.remaining(now)))
                else:
                    values.append(StoredData(storage_time=0, lifetime=0, value=one, signature=UNSIGNED))
            generation = self._storage.generation(body.resource, specifier.kind)
            responses.append(
                FetchKindResponse(kind=specifier.kind, generation=generation, values=tuple(values))
            )
        return Reply(FetchAns(kind_responses=tuple(responses)), tuple(certificates))

    def answer_stat(self, request: Request, now: float) -> Reply:
        """What is known about the values of a StatReq (RFC 6940 §7.4.3)."""
        body = request.body
        assert isinstance(body, StatReq)
        responses = []
        for specifier, wanted in self._wanted(body, now):
            values = tuple(
                StoredMetaData(
                    storage_time=one.data.storage_time,
                    lifetime=one.remaining(now),
                    metadata=metadata(one.data.value),
                )
                if isinstance(one, Held)
                else StoredMetaData(storage_time=0, lifetime=0, metadata=metadata(one))
                for one in wanted
            )
            generation = self._storage.generation(body.resource, specifier.kind)
            responses.append(StatKindResponse(kind=specifier.kind, generation=generation, values=values))
        return Reply(StatAns(kind_responses=tuple(responses)))

    def _wanted(
        self, body: FetchReq | StatReq, now: float
    ) -> list[tuple[StoredDataSpecifier, Iterable[Held | StoredDataValue]]]:
        """For each specifier the values held, and synthetic ones for those that do not exist."""
        storage = self._storage
        storage.expire(now)
        self._known(specifier.kind for specifier in body.specifiers)
        if not self._topology.is_responsible(body.resource) and not any(
            storage.held(body.resource, specifier.kind) for specifier in body.specifiers
        ):
            # Whether there are values is not ours to say.
            raise NotFound("not responsible for this resource")
        wanted: list[tuple[StoredDataSpecifier, Iterable[Held | StoredDataValue]]] = []
        for specifier in body.specifiers:
            unchanged = specifier.generation and specifier.generation == storage.generation(
                body.resource, specifier.kind
            )
            selected = _select(specifier, storage.held(body.resource, specifier.kind))
            wanted.append((specifier, () if unchanged else selected))
        return wanted

    # -- Find ---------------------------------------------------------------------------------

    def answer_find(self, request: Request, now: float) -> Reply:
        """The next resource with each Kind of a FindReq (RFC 6940 §7.4.4).

        "Closest" is the next one clockwise, so that asking for one more than the last answer walks the overlay.
        """
        body = request.body
        assert isinstance(body, FindReq)
        if len(set(body.kinds)) != len(body.kinds):
            raise InvalidMessage("a Kind is named twice")
        if not self._topology.is_responsible(body.resource):
            raise NotFound("not responsible for this resource")
        self._storage.expire(now)
        none = ResourceId(bytes(len(body.resource)))
        return Reply(
            FindAns(
                results=tuple(
                    FindKindData(kind=kind, closest=self._storage.closest(body.resource, kind) or none)
                    for kind in body.kinds
                )
            )
        )

    def _known(self, kind_ids: Iterable[int]) -> Mapping[int, Kind]:
        """The Kinds, each named once and each with an access control policy that is known here."""
        kinds = self._kinds()
        named: set[int] = set()
        for kind_id in kind_ids:
            if kind_id in named:
                raise InvalidMessage(f"Kind {kind_id:#x} is named twice")
            named.add(kind_id)
        unknown = [
            kind_id
            for kind_id in sorted(named)
            if kind_id not in kinds or kinds[kind_id].access_control not in self._policies
        ]
        if unknown:
            # The list has one byte for its length.
            raise UnknownKind(UnknownKinds(unknown_kinds=tuple(unknown[:63])).encode())
        return kinds


def metadata(value: StoredDataValue) -> MetaDataValue:
    """What Stat tells of a value; the digest covers its length too (RFC 6940 §7.4.3.2)."""
    stored = data_value(value)
    digest = sha256(len(stored.value).to_bytes(4) + stored.value).digest()
    meta = MetaData(exists=stored.exists, value_length=len(stored.value), hash_value=digest)
    if isinstance(value, ArrayEntry):
        return ArrayEntryMeta(index=value.index, value=meta)
    if isinstance(value, DictionaryEntry):
        return DictionaryEntryMeta(key=value.key, value=meta)
    return meta


def _select(specifier: StoredDataSpecifier, standing: Mapping[Key, Held]) -> Iterable[Held | StoredDataValue]:
    model = specifier.model_specifier
    if isinstance(model, ArraySpecifier):
        entries = select_array(standing, model.indices)
        return _filled(entries, lambda index: ArrayEntry(index=index, value=NO_VALUE))
    if isinstance(model, DictionarySpecifier):
        return _filled(
            select_dictionary(standing, model.keys), lambda key: DictionaryEntry(key=key, value=NO_VALUE)
        )
    return (standing.get(None, NO_VALUE),)


def _filled(
    entries: Iterable[Held | Gap], synthetic: Callable[[Gap], StoredDataValue]
) -> Iterator[Held | StoredDataValue]:
    for entry in entries:
        yield entry if isinstance(entry, Held) else synthetic(entry)


def _store_ans(generations: Mapping[int, int], replicas: tuple[NodeId, ...] = ()) -> StoreAns:
    return StoreAns(
        kind_responses=tuple(
            StoreKindResponse(kind=kind, generation_counter=generation, replicas=replicas)
            for kind, generation in generations.items()
        )
    )
