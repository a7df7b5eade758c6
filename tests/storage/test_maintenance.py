"""What one peer tells another to bring its copy up to date."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from p2psip.interfaces import FetchedValue
from p2psip.storage.answers import metadata
from p2psip.storage.interfaces import Change
from p2psip.storage.maintenance import everything, lacking, store_requests, take_newer
from p2psip.storage.store import MemoryStorage
from p2psip.storage.verify import Fetched
from p2psip.wire.storage import (
    StatAns,
    StatKindResponse,
    StoredData,
    StoredMetaData,
    StoreReq,
)

from .test_store import put
from .world import (
    ALICE,
    ALICES,
    ARRAY,
    BOB,
    NODES,
    NOW,
    SINGLE,
    entry,
    item,
    kept,
    signed,
    single,
)


class StoreRequestsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.storage = MemoryStorage()

    def requests(self, most_bytes: int = 10**6, after: float = 0) -> list[tuple[StoreReq, tuple[bytes, ...]]]:
        wanted = everything(self.storage, ALICES)
        made = store_requests(self.storage, ALICES, wanted, 2, NOW + after, most_bytes)
        return [(request, tuple(certificates)) for request, certificates in made]

    def test_one_request(self) -> None:
        """All Kinds, their counters, the lifetimes that are left, each certificate once. [6940-7.4.1.1-20]"""
        put(self.storage, kept(signed(single(), lifetime=100)))
        put(self.storage, *[kept(signed(entry(i), kind=ARRAY)) for i in range(2)], kind=ARRAY)
        self.storage.apply(ALICES, [Change(SINGLE, 9, {})])
        ((request, certificates),) = self.requests(after=30)
        self.assertEqual((request.resource, request.replica_number), (ALICES, 2))
        found = [(data.kind, data.generation_counter, len(data.values)) for data in request.kind_data]
        self.assertEqual(found, [(SINGLE, 9, 1), (ARRAY, 1, 2)])
        self.assertEqual(request.kind_data[0].values[0].lifetime, 70)
        self.assertEqual(certificates, (ALICE.identity.certificate,))

    def test_what_has_ended_stays(self) -> None:
        put(self.storage, kept(signed(single(), lifetime=100)))
        self.assertEqual(self.requests(after=99.5), [])

    def test_portions(self) -> None:
        """Requests stay below the limit, certificates included, and nothing is left out."""
        for signer in (ALICE, BOB):
            values = [
                kept(signed(item(signer.node_id + bytes([i]), bytes(80)), kind=NODES, signer=signer), signer)
                for i in range(20)
            ]
            put(self.storage, *values, kind=NODES)
        requests = self.requests(1000)
        self.assertGreater(len(requests), 3)
        for request, certificates in requests:
            self.assertLessEqual(len(request.encode()) + sum(map(len, certificates)), 1000 + 30)
        sent = [value.value for request, _ in requests for value in request.kind_data[0].values]
        self.assertEqual(sent, [held.data.value for held in self.storage.held(ALICES, NODES).values()])

    def test_larger_than_the_limit(self) -> None:
        put(self.storage, kept(signed(single(bytes(5000)))))
        self.assertEqual(len(self.requests(1000)), 1)


class LackingTests(SynchronousTestCase):
    def test_older_and_missing(self) -> None:
        """Values that the other does not have, or has older; synthetic ones are none."""
        storage = MemoryStorage()
        times = {b"same": 5, b"newer": 5, b"older": 5, b"gone": 0}
        put(storage, *[kept(signed(item(key), time, kind=NODES)) for key, time in times.items()], kind=NODES)
        put(storage, kept(signed(single(), 0)))

        def meta(value: StoredData) -> StoredMetaData:
            return StoredMetaData(
                storage_time=value.storage_time, lifetime=value.lifetime, metadata=metadata(value.value)
            )

        theirs = [signed(item(key), time, kind=NODES) for key, time in
                  {b"same": 5, b"newer": 6, b"older": 4, b"unknown": 7}.items()]
        answer = StatAns(
            kind_responses=(
                StatKindResponse(kind=NODES, generation=1, values=tuple(map(meta, theirs))),
                StatKindResponse(
                    kind=SINGLE,
                    generation=0,
                    values=(meta(signed(single(b"", exists=False), 0, lifetime=0)),),
                ),
            )
        )
        self.assertEqual(lacking(storage, ALICES, answer), {NODES: [b"older", b"gone"], SINGLE: [None]})


class TakeNewerTests(SynchronousTestCase):
    def test_newer_values_and_counter(self) -> None:
        """[6940-7.4.1.1-22]"""
        storage = MemoryStorage()
        ours = {b"a": 5, b"b": 5, b"c": 5}
        put(storage, *[kept(signed(item(key), time, kind=NODES)) for key, time in ours.items()], kind=NODES)
        theirs = [
            FetchedValue(signed(item(key, b"theirs"), time, kind=NODES, lifetime=50), ALICE.signed_by)
            for key, time in {b"a": 4, b"b": 6, b"d": 1}.items()
        ]
        changed = take_newer(storage, ALICES, {NODES: Fetched(theirs, 7, 0)}, NOW)
        self.assertEqual({kind: set(keys) for kind, keys in changed.items()}, {NODES: {b"b", b"d"}})
        held = storage.held(ALICES, NODES)
        times = {key: value.data.storage_time for key, value in held.items()}
        self.assertEqual(times, {b"a": 5, b"b": 6, b"c": 5, b"d": 1})
        self.assertEqual((storage.generation(ALICES, NODES), held[b"b"].expires), (7, NOW + 50))
        self.assertEqual(take_newer(storage, ALICES, {NODES: Fetched(theirs, 9, 0)}, NOW), {})
