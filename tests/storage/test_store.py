"""The working set in memory."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.errors import DataTooLarge
from p2psip.ids import ResourceId, within
from p2psip.storage.interfaces import Change, Held, IStorage, Key, Quotas
from p2psip.storage.models import key_of
from p2psip.storage.store import MemoryStorage
from p2psip.wire.storage import StoredDataValue

from .world import (
    ALICE,
    ALICES,
    ARRAY,
    BOB,
    DICTIONARY,
    NOW,
    SINGLE,
    FakeSigner,
    entry,
    item,
    kept,
    node,
    signed,
    single,
)


def put(storage: MemoryStorage, *values: Held, resource: ResourceId = ALICES, kind: int = SINGLE) -> None:
    """Apply `values` with a generation counter one higher."""
    generation = storage.generation(resource, kind) + 1
    storage.apply(resource, [Change(kind, generation, {key_of(held.data.value): held for held in values})])


def at(number: int) -> ResourceId:
    return ResourceId(node(number))


class MemoryStorageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.storage = MemoryStorage()

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IStorage, self.storage))

    def test_nothing(self) -> None:
        self.assertEqual(self.storage.generation(ALICES, SINGLE), 0)
        self.assertEqual(dict(self.storage.held(ALICES, SINGLE)), {})
        self.assertEqual(self.storage.kinds(ALICES), ())
        self.assertIsNone(self.storage.closest(ALICES, SINGLE))

    def test_totals(self) -> None:
        """Values and bytes are counted, a writer's certificate once; everything goes back to nothing."""
        values = [kept(signed(entry(i), kind=ARRAY)) for i in range(3)]
        put(self.storage, *values, kind=ARRAY)
        put(self.storage, kept(signed(single(), signer=BOB), BOB))
        certificates = len(ALICE.identity.certificate) + len(BOB.identity.certificate)
        sizes = sum(held.size for held in values) + self.storage.held(ALICES, SINGLE)[None].size
        self.assertEqual((self.storage.resources, self.storage.values), (1, 4))
        self.assertEqual(self.storage.size, sizes + certificates)
        self.storage.remove(ALICES)
        self.assertEqual((self.storage.resources, self.storage.values, self.storage.size), (0, 0, 0))
        self.assertEqual(list(self.storage.between(node(0), node(0))), [])

    def test_expiry(self) -> None:
        """A value goes when its lifetime ends, tombstones too, and not when it was replaced in time."""
        put(
            self.storage,
            kept(signed(item(b"a"), kind=DICTIONARY, lifetime=10)),
            kept(signed(item(b"b", exists=False), kind=DICTIONARY, lifetime=20)),
            kept(signed(item(b"c"), kind=DICTIONARY, lifetime=10)),
            kind=DICTIONARY,
        )
        put(self.storage, kept(signed(item(b"c"), 2000, kind=DICTIONARY, lifetime=30)), kind=DICTIONARY)
        self.assertEqual(self.storage.expire(NOW + 9), 0)
        self.assertEqual(self.storage.expire(NOW + 10), 1)
        self.assertEqual(set(self.storage.held(ALICES, DICTIONARY)), {b"b", b"c"})
        self.assertEqual(self.storage.expire(NOW + 20), 1)
        self.assertEqual(self.storage.expire(NOW + 30), 1)
        self.assertEqual((self.storage.values, self.storage.generation(ALICES, DICTIONARY)), (0, 0))

    def test_certificate_ends_first(self) -> None:
        """Data is not kept longer than its signature can be valid. [6940-7.1-2]"""
        shortly = FakeSigner("alice@example.org", node(1), not_after=NOW + 5)
        put(self.storage, kept(signed(single(), signer=shortly, lifetime=600), shortly))
        self.assertEqual(self.storage.held(ALICES, SINGLE)[None].remaining(NOW + 1), 4)
        self.assertEqual(self.storage.expire(NOW + 5), 1)

    def test_refreshing_does_not_grow(self) -> None:
        for time in range(5000):
            put(self.storage, kept(signed(single(), time)))
        self.assertLess(len(self.storage._expiries), 3000)
        self.assertEqual(self.storage.expire(NOW + 600), 1)

    def test_closest(self) -> None:
        """The next one clockwise with that Kind, beginning with the place itself, around the end of the ring."""
        for number in (10, 20):
            put(self.storage, kept(signed(single())), resource=at(number))
        put(self.storage, kept(signed(entry(0), kind=ARRAY)), resource=at(15), kind=ARRAY)
        closest = {start: self.storage.closest(at(start), SINGLE) for start in (5, 10, 11, 21)}
        self.assertEqual(closest, {5: at(10), 10: at(10), 11: at(20), 21: at(10)})
        self.storage.remove(at(10))
        self.assertEqual(self.storage.closest(at(5), SINGLE), at(20))

    @given(st.sets(st.integers(0, 50)), st.integers(0, 50), st.integers(0, 50))
    def test_between(self, numbers: set[int], low: int, high: int) -> None:
        storage = MemoryStorage()
        for number in numbers:
            put(storage, kept(signed(single())), resource=at(number))
        found = list(storage.between(node(low), node(high)))
        self.assertEqual(set(found), {at(n) for n in numbers if within(at(n), node(low), node(high))})
        self.assertEqual(len(found), len(set(found)))

    def test_between_is_a_snapshot(self) -> None:
        for number in range(10):
            put(self.storage, kept(signed(single())), resource=at(number))
        for resource in self.storage.between(node(0), node(0)):
            self.storage.remove(resource)
        self.assertEqual(self.storage.resources, 0)


class QuotaTests(SynchronousTestCase):
    """What a stranger can make a node keep is bounded; a refused Store changes nothing. [6940-13.5.2-1]"""

    def refused(self, quotas: Quotas, *puts: tuple[ResourceId, Held]) -> None:
        """The last of `puts` is refused, the others are not."""
        storage = MemoryStorage(quotas)
        for resource, held in puts[:-1]:
            put(storage, held, resource=resource, kind=DICTIONARY)
        before = (storage.values, storage.size, storage.resources)
        resource, held = puts[-1]
        with self.assertRaises(DataTooLarge):
            put(storage, held, resource=resource, kind=DICTIONARY)
        self.assertEqual((storage.values, storage.size, storage.resources), before)

    def value(self, key: bytes, signer: FakeSigner = ALICE, size: int = 1, time: int = 1) -> Held:
        return kept(signed(item(key, bytes(size)), time, kind=DICTIONARY, signer=signer), signer)

    def test_values(self) -> None:
        a, b = self.value(b"a"), self.value(b"b", BOB)
        self.refused(Quotas(max_values=1), (at(1), a), (at(2), b))
        self.refused(Quotas(max_values_per_resource=1), (at(1), a), (at(1), b))
        self.refused(Quotas(max_values_per_signer=1), (at(1), a), (at(2), self.value(b"b")))

    def test_bytes(self) -> None:
        a, b = self.value(b"a"), self.value(b"b", BOB, 100)
        certificates = len(ALICE.identity.certificate) + len(BOB.identity.certificate)
        self.refused(Quotas(max_bytes=a.size + b.size + certificates - 1), (at(1), a), (at(2), b))
        self.refused(Quotas(max_bytes_per_resource=a.size + b.size - 1), (at(1), a), (at(1), b))
        c = self.value(b"c", size=100)
        self.refused(Quotas(max_bytes_per_signer=a.size + c.size - 1), (at(1), a), (at(2), c))

    def test_growth_by_replacement(self) -> None:
        a = self.value(b"a")
        self.refused(Quotas(max_bytes_per_resource=a.size), (at(1), a), (at(1), self.value(b"a", size=2, time=2)))

    def test_replacing_at_the_limit(self) -> None:
        storage = MemoryStorage(Quotas(max_values=1, max_values_per_resource=1, max_values_per_signer=1))
        for time in (1, 2):
            put(storage, self.value(b"a", time=time), kind=DICTIONARY)
        put(storage, self.value(b"a", BOB, time=3), kind=DICTIONARY)
        self.assertEqual(storage.values, 1)


operations = st.lists(
    st.tuples(
        st.sampled_from(["put", "remove", "expire"]),
        st.integers(0, 3),
        st.sampled_from([SINGLE, ARRAY, DICTIONARY]),
        st.integers(0, 2),
        st.integers(0, 40),
    ),
    max_size=40,
)


class ConsistencyTests(SynchronousTestCase):
    @settings(max_examples=60, deadline=None)
    @given(operations)
    def test_like_a_plain_table(self, steps: list[tuple[str, int, int, int, int]]) -> None:
        """Whatever is done, totals, indices and values are those of a table without any."""
        storage = MemoryStorage()
        table: dict[tuple[ResourceId, int, Key], Held] = {}
        now = NOW
        for number, (step, where, kind, which, lifetime) in enumerate(steps):
            resource = at(where)
            if step == "put":
                value: StoredDataValue = single()
                if kind != SINGLE:
                    value = entry(which) if kind == ARRAY else item(bytes([which]))
                signer = (ALICE, BOB)[number % 2]
                data = signed(value, number, kind=kind, lifetime=lifetime, signer=signer)
                held = kept(data, signer, now)
                put(storage, held, resource=resource, kind=kind)
                table[resource, kind, key_of(value)] = held
            elif step == "remove":
                storage.remove(resource)
                table = {place: held for place, held in table.items() if place[0] != resource}
            else:
                now += lifetime
                storage.expire(now)
                table = {place: held for place, held in table.items() if held.expires > now}
        found = {
            (resource, kind, key): held
            for resource in storage.between(node(0), node(0))
            for kind in storage.kinds(resource)
            for key, held in storage.held(resource, kind).items()
        }
        self.assertEqual(found, table)
        signers = {held.certificate for held in table.values()}
        self.assertEqual(storage.values, len(table))
        self.assertEqual(
            storage.size, sum(held.size for held in table.values()) + sum(len(der) for der in signers)
        )
        self.assertEqual(storage.resources, len({place[0] for place in table}))
        for kind in (SINGLE, ARRAY, DICTIONARY):
            holders = {place[0] for place in table if place[1] == kind}
            self.assertEqual(storage.closest(at(0), kind), min(holders, default=None))
