"""Storing and fetching values in the overlay for those at this node (RFC 6940 §7.4.1, §7.4.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from twisted.internet.defer import Deferred

from ..config.kinds import Kind
from ..errors import DataTooOld, InvalidMessage, UnknownKind
from ..ids import ResourceId
from ..interfaces import Answer, FetchedValue, ISigner, ITopologyPlugin, Stored
from ..security.signing import sign_value
from ..storage.verify import Fetched, FetchVerifier, specifier
from ..wire.codec import Struct
from ..wire.contents import UnknownKinds
from ..wire.header import ResourceDestination
from ..wire.storage import (
    FetchAns,
    FetchReq,
    StoreAns,
    StoredDataValue,
    StoreKindData,
    StoreReq,
)

MOST_AHEAD = 86_400_000
"""Milliseconds by which a value that was stored before may be ahead of our clock, for us to follow it."""


class StorageTimes:
    """The storage_time of each Store of this node, in milliseconds since 1970: each greater than the last (§7)."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._last = 0

    def next(self) -> int:
        """The next one."""
        self._last = max(int(self._now() * 1000), self._last + 1)
        return self._last

    def follow(self, storage_time: int) -> bool:
        """Go on after `storage_time`; False if that is too far in the future."""
        if storage_time > self._now() * 1000 + MOST_AHEAD:
            return False
        self._last = max(self._last, storage_time)
        return True


class Values:
    """Stores and fetches for the node and its usages; `verifier` judges what is fetched."""

    def __init__(
        self,
        request: Callable[..., Deferred[Answer]],
        topology: ITopologyPlugin,
        signer: ISigner,
        kinds: Callable[[], Mapping[int, Kind]],
        verifier: FetchVerifier,
        now: Callable[[], float],
    ) -> None:
        self._request = request
        self._resource_id = topology.resource_id
        self._signer = signer
        self._kinds = kinds
        self._verifier = verifier
        self._times = StorageTimes(now)

    def store(
        self,
        name: bytes,
        kind_id: int,
        values: Sequence[Struct],
        lifetime: int,
        signer: ISigner | None,
        generation: int,
    ) -> Deferred[Stored]:
        """See `IOverlay.store`."""
        return Deferred.fromCoroutine(
            self._store(self._resource_id(name), kind_id, values, lifetime, signer or self._signer, generation)
        )

    async def _store(
        self,
        resource: ResourceId,
        kind_id: int,
        values: Sequence[Struct],
        lifetime: int,
        signer: ISigner,
        generation: int,
    ) -> Stored:
        body = self._store_req(resource, kind_id, values, lifetime, signer, generation)
        destination = [ResourceDestination(resource_id=resource)]
        try:
            answer = await self._request(destination, body, signer)
        except DataTooOld:
            # What stands there is ahead of our clock: a clock was put back, or another's is fast.
            standing = await self._fetch(resource, kind_id)
            newest = max((value.data.storage_time for value in standing.values), default=0)
            if not self._times.follow(newest):
                raise
            body = self._store_req(resource, kind_id, values, lifetime, signer, generation)
            answer = await self._request(destination, body, signer)
        if isinstance(answer.body, StoreAns):
            for response in answer.body.kind_responses:
                if response.kind == kind_id:
                    return Stored(response.generation_counter, response.replicas)
        raise InvalidMessage("the answer to a Store makes no sense")

    def _store_req(
        self,
        resource: ResourceId,
        kind_id: int,
        values: Sequence[Struct],
        lifetime: int,
        signer: ISigner,
        generation: int,
    ) -> StoreReq:
        storage_time = self._times.next()
        signed = [
            sign_value(signer, resource, kind_id, cast(StoredDataValue, value), storage_time, lifetime)
            for value in values
        ]
        kind_data = StoreKindData(kind=kind_id, generation_counter=generation, values=tuple(signed))
        return StoreReq(resource=resource, kind_data=(kind_data,))

    def fetch(
        self, resource: ResourceId, kind_id: int, keys: Sequence[bytes]
    ) -> Deferred[Sequence[FetchedValue]]:
        """See `IOverlay.fetch_at`."""
        return Deferred.fromCoroutine(self._existing(resource, kind_id, keys))

    async def _existing(
        self, resource: ResourceId, kind_id: int, keys: Sequence[bytes]
    ) -> Sequence[FetchedValue]:
        return (await self._fetch(resource, kind_id, keys)).existing

    async def _fetch(self, resource: ResourceId, kind_id: int, keys: Sequence[bytes] = ()) -> Fetched:
        kind = self._kinds().get(kind_id)
        if kind is None:
            raise UnknownKind(UnknownKinds(unknown_kinds=(kind_id,)).encode())
        body = FetchReq(resource=resource, specifiers=(specifier(kind, keys),))
        answer = await self._request([ResourceDestination(resource_id=resource)], body)
        if not isinstance(answer.body, FetchAns):
            raise InvalidMessage("the answer to a Fetch makes no sense")
        return self._verifier.read(answer.body, answer.certificates, resource, kind, keys)
