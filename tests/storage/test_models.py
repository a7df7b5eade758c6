"""The data models: single value, array, dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.errors import DataTooLarge, DataTooOld, InvalidMessage
from p2psip.storage.interfaces import Held, Key
from p2psip.storage.models import (
    MAX_SYNTHESISED,
    key_of,
    merge,
    place,
    same,
    select_array,
    select_dictionary,
    supersede,
)
from p2psip.wire.codec import WireContext
from p2psip.wire.codes import LAST_INDEX, DataModel
from p2psip.wire.storage import ArrayRange, StoredData

from .world import ARRAY, DICTIONARY, entry, item, kept, signed, single


def standing(*values: StoredData) -> dict[Key, Held]:
    return {key_of(value.value): kept(value) for value in values}


def ranges(*spans: tuple[int, int]) -> list[ArrayRange]:
    return [ArrayRange(first=first, last=last) for first, last in spans]


class SupersedeTests(SynchronousTestCase):
    def test_creates_and_replaces(self) -> None:
        """A newer value takes the place of the old one, a first one its own."""
        new = signed(single(b"new"), 2)
        self.assertEqual(supersede({}, [new], maintenance=False), {None: new})
        self.assertEqual(supersede(standing(signed(single(), 1)), [new], maintenance=False), {None: new})

    def test_older_and_equal_are_refused(self) -> None:
        """Storage times increase strictly. [6940-13.5.3-1, 6940-13.5.3-2]"""
        before = standing(signed(single(b"a"), 5))
        for time in (4, 5):
            with self.assertRaises(DataTooOld):
                supersede(before, [signed(single(b"b"), time)], maintenance=False)

    def test_each_in_turn(self) -> None:
        """Two values for one place: the second has to be newer than the first."""
        first, second = signed(single(b"1"), 1), signed(single(b"2"), 2)
        self.assertEqual(supersede({}, [first, second], maintenance=False), {None: second})
        with self.assertRaises(DataTooOld):
            supersede({}, [second, first], maintenance=False)

    def test_the_same_value_again(self) -> None:
        """To maintenance the value that stands is no change, whatever its lifetime; to an owner it is too old."""
        value = signed(single(b"a"), 5)
        again = value.replace(lifetime=1)
        self.assertEqual(supersede(standing(value), [again], maintenance=True), {})
        with self.assertRaises(DataTooOld):
            supersede(standing(value), [again], maintenance=False)

    def test_tombstone_is_a_value(self) -> None:
        """A nonexistent value overwrites and is overwritten. [6940-7.4.1.3-2]"""
        gone = signed(single(b"", exists=False), 2)
        self.assertEqual(supersede(standing(signed(single(), 1)), [gone], maintenance=False), {None: gone})
        with self.assertRaises(DataTooOld):
            supersede(standing(gone), [signed(single(), 1)], maintenance=False)


class PlaceTests(SynchronousTestCase):
    def indices(self, before: dict[Key, Held], *wanted: int) -> list[Key]:
        values = [signed(entry(index), 9, kind=ARRAY) for index in wanted]
        return [key_of(data.value) for data in place(before, values)]

    def test_append(self) -> None:
        """0xffffffff is the place behind the last entry, one after another."""
        self.assertEqual(self.indices({}, LAST_INDEX), [0])
        before = standing(signed(entry(7), kind=ARRAY))
        self.assertEqual(self.indices(before, LAST_INDEX, LAST_INDEX, 20, LAST_INDEX, 3), [8, 9, 20, 21, 3])

    def test_signature_outlives_the_index(self) -> None:
        """What is signed is index 0, so that an appended value stays valid."""
        data = signed(entry(LAST_INDEX), kind=ARRAY)
        (placed,) = place(standing(signed(entry(3), kind=ARRAY)), [data])
        self.assertEqual(placed.signature_input(b"r", ARRAY), data.signature_input(b"r", ARRAY))

    def test_no_index_left(self) -> None:
        with self.assertRaises(DataTooLarge):
            self.indices(standing(signed(entry(LAST_INDEX - 1), kind=ARRAY)), LAST_INDEX)


class SelectTests(SynchronousTestCase):
    def indices(self, held: Sequence[int], *spans: tuple[int, int]) -> list[int]:
        """The indices selected; those that do not exist are negative, less one."""
        before = standing(*[signed(entry(index), kind=ARRAY) for index in held])
        selected = []
        for one in select_array(before, ranges(*spans)):
            if isinstance(one, Held):
                index = key_of(one.data.value)
                assert isinstance(index, int)
                selected.append(index)
            else:
                selected.append(-one - 1)
        return selected

    def test_gaps_are_filled(self) -> None:
        """An entry that was never stored is answered as nonexistent. [6940-7.4.2.2-2]"""
        self.assertEqual(self.indices([2], (0, 2)), [-1, -2, 2])
        self.assertEqual(self.indices([0], (0, 1)), [0, -2])

    def test_last(self) -> None:
        self.assertEqual(self.indices([0, 2], (0, LAST_INDEX)), [0, -2, 2])
        self.assertEqual(self.indices([0, 2], (LAST_INDEX, LAST_INDEX)), [2])
        self.assertEqual(self.indices([], (0, LAST_INDEX)), [])
        self.assertEqual(self.indices([], (LAST_INDEX, LAST_INDEX)), [])

    def test_order_of_the_request(self) -> None:
        self.assertEqual(self.indices([0, 1, 2, 3], (2, 3), (0, 0)), [2, 3, 0])

    def test_wide_gaps_are_not_filled(self) -> None:
        far = 2**32 - 2
        self.assertEqual(self.indices([3, far], (0, LAST_INDEX)), [3, far])
        self.assertEqual(self.indices([3, far], (1, far - 1)), [3])

    def test_bad_ranges(self) -> None:
        """[6940-7.4.2.1-2, 6940-7.4.2.1-3]"""
        for spans in ([(2, 1)], [(0, 5), (5, 6)], [(3, 4), (0, LAST_INDEX)]):
            with self.assertRaises(InvalidMessage):
                self.indices([1], *spans)

    @given(
        st.sets(st.integers(0, 2**32 - 2), max_size=20),
        st.lists(st.integers(0, LAST_INDEX), max_size=40, unique=True),
    )
    def test_never_materialises_gaps(self, held: set[int], bounds: list[int]) -> None:
        """However wide the ranges, no more nonexistent values than the limit, and every one that exists."""
        bounds.sort()
        spans = list(zip(bounds[::2], bounds[1::2], strict=False))
        selected = self.indices(sorted(held), *spans)
        self.assertLessEqual(sum(one < 0 for one in selected), MAX_SYNTHESISED)
        last = max(held, default=-1)
        wanted = {
            index for first, end in spans for index in held if first <= index <= (last if end == LAST_INDEX else end)
        }
        self.assertEqual({one for one in selected if one >= 0}, wanted)

    def test_dictionary(self) -> None:
        """Without keys all entries; with keys those, and the key alone of one that does not exist."""
        a, b = signed(item(b"a"), kind=DICTIONARY), signed(item(b"b"), kind=DICTIONARY)
        before = standing(a, b)
        self.assertEqual(list(select_dictionary(before, [])), [kept(a), kept(b)])
        self.assertEqual(list(select_dictionary(before, [b"x", b"b", b"x"])), [b"x", kept(b)])
        many = [number.to_bytes(2) for number in range(2 * MAX_SYNTHESISED)]
        self.assertEqual(len(list(select_dictionary(before, many))), MAX_SYNTHESISED)


times = st.lists(st.integers(0, 1000), min_size=1, max_size=12, unique=True)
keys = st.sampled_from([b"a", b"b", b"c"])


class MergeTests(SynchronousTestCase):
    @given(st.lists(st.tuples(keys, st.booleans(), st.integers(0, 1000)), unique_by=lambda v: v[2]), st.randoms())
    def test_any_order_converges(self, values: list[tuple[bytes, bool, int]], random: Random) -> None:
        """In whatever order and portions copies are merged, the newest of each place stands, gone or not."""
        stored = [signed(item(key, b"", exists), time, kind=DICTIONARY) for key, exists, time in values]
        newest: dict[Key, StoredData] = {}
        for data in sorted(stored, key=lambda data: data.storage_time):
            newest[key_of(data.value)] = data
        for _ in range(3):
            random.shuffle(stored)
            here: dict[Key, Held] = {}
            half = len(stored) // 2
            for portion in (stored[:half], stored[half:], stored[:half]):
                here |= {key: kept(data) for key, data in merge(here, portion).items()}
            self.assertEqual({key: held.data for key, held in here.items()}, newest)

    @given(times)
    def test_storing_in_order_is_merging(self, moments: list[int]) -> None:
        """Merging is as if all had been stored in the order of their times."""
        stored = [signed(single(b"%d" % time), time) for time in moments]
        one: dict[Key, Held] = {}
        for data in sorted(stored, key=lambda data: data.storage_time):
            one |= {key: kept(new) for key, new in supersede(one, [data], maintenance=False).items()}
        self.assertEqual({None: one[None].data}, merge({}, stored))

    def test_equal_times(self) -> None:
        """The other peer's wins, since it was that peer which refused ours; the same value changes nothing."""
        ours, theirs = signed(single(b"a"), 5), signed(single(b"b"), 5)
        self.assertEqual(merge(standing(ours), [theirs]), {None: theirs})
        self.assertEqual(merge(standing(ours), [ours.replace(lifetime=1)]), {})

    def test_same(self) -> None:
        value = signed(single(b"a"), 5)
        self.assertTrue(
            same(value, StoredData.decode(value.encode(), WireContext(models={1: DataModel.SINGLE}).of_kind(1)))
        )
        self.assertFalse(same(value, signed(single(b"b"), 5)))
        self.assertFalse(same(value, signed(single(b"a"), 6)))
