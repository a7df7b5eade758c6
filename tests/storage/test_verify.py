"""What a fetching node believes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from p2psip.storage.verify import Fetched, FetchVerifier, specifier
from p2psip.wire.codes import LAST_INDEX
from p2psip.wire.security import UNSIGNED
from p2psip.wire.storage import (
    ArrayRange,
    ArraySpecifier,
    DictionarySpecifier,
    FetchAns,
    FetchKindResponse,
    SingleSpecifier,
    StoredData,
)

from .world import (
    ALICE,
    ALICES,
    ARRAY,
    BOB,
    DICTIONARY,
    FOREVER,
    NODES,
    POLICIES,
    SINGLE,
    FakeVerifier,
    entry,
    hash_of,
    item,
    make_kinds,
    signed,
    single,
)

KINDS = make_kinds()


class FetchVerifierTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.counted: list[str] = []
        self.verifier = FakeVerifier(ALICE, BOB)
        self.fetches = FetchVerifier(self.verifier, POLICIES, hash_of, self.counted.append, remembered=3)

    def read(self, *values: StoredData, kind: int = SINGLE, keys: tuple[bytes, ...] = ()) -> Fetched:
        response = FetchKindResponse(kind=kind, generation=5, values=values)
        certificates = [ALICE.identity.certificate, BOB.identity.certificate]
        answer = FetchAns(kind_responses=(FetchKindResponse(kind=0x7, generation=9), response))
        return self.fetches.read(answer, certificates, ALICES, KINDS[kind], keys)

    def dropped(self, *values: StoredData, kind: int = SINGLE, keys: tuple[bytes, ...] = ()) -> list[str]:
        """Why none of `values` was believed."""
        fetched = self.read(*values, kind=kind, keys=keys)
        self.assertEqual((list(fetched.values), fetched.dropped), ([], len(values)))
        causes, self.counted[:] = self.counted[:], []
        return causes

    def test_good(self) -> None:
        """[6940-7.4.2.2-3]"""
        data = signed(single())
        fetched = self.read(data)
        self.assertEqual([(value.data, value.signer) for value in fetched.values], [(data, ALICE.signed_by)])
        self.assertEqual((fetched.generation, fetched.dropped, self.counted), (5, 0, []))
        self.assertEqual(fetched.existing, fetched.values)

    def test_bad_signatures(self) -> None:
        """Values changed, from elsewhere or whose certificate has expired are dropped. [6940-7.4.2.2-4]"""
        data = signed(single())
        self.assertEqual(self.dropped(data.replace(storage_time=9)), ["fetched signature"])
        self.assertEqual(self.dropped(signed(single(), resource=hash_of(b"else"))), ["fetched signature"])
        self.assertEqual(self.dropped(signed(single(), kind=NODES)), ["fetched signature"])
        self.verifier.now = FOREVER + 1
        self.assertEqual(self.dropped(data), ["fetched expired"])

    def test_part(self) -> None:
        """The good values are answered, with how many were not. [6940-7.4.2.2-5]"""
        good, bad = signed(entry(0), kind=ARRAY), signed(entry(1), kind=NODES)
        fetched = self.read(bad, good, kind=ARRAY)
        self.assertEqual(([value.data for value in fetched.values], fetched.dropped), ([good], 1))

    def test_not_allowed_to_write(self) -> None:
        """A valid signature of somebody who may not write there is worth nothing."""
        self.assertEqual(self.dropped(signed(single(), signer=BOB)), ["fetched access"])
        other_key = signed(item(BOB.node_id), kind=DICTIONARY)
        self.assertEqual(self.dropped(other_key, kind=DICTIONARY), ["fetched access"])

    def test_nonexistent(self) -> None:
        """Synthetic values are passed over; a signed tombstone is a value, but does not exist."""
        synthetic = StoredData(storage_time=0, lifetime=0, value=single(b"", exists=False), signature=UNSIGNED)
        self.assertEqual((self.read(synthetic).values, self.counted), ([], []))
        tombstone = self.read(signed(single(b"", exists=False)))
        self.assertEqual((len(tombstone.values), tombstone.existing), (1, []))
        claimed = synthetic.replace(storage_time=2000, value=single())
        self.assertEqual(self.dropped(claimed), ["fetched unsigned"])

    def test_rollback(self) -> None:
        """A value older than one already seen was kept back on purpose."""
        old, new = signed(single(), 1), signed(single(), 2)
        self.assertEqual(len(self.read(new).values), 1)
        self.assertEqual(self.dropped(old), ["fetched rollback"])
        self.assertEqual(len(self.read(new).values), 1)

    def test_memory_is_bounded(self) -> None:
        """The places seen least recently are forgotten first."""
        for key in (b"a", b"b", b"c", b"a", b"d"):
            self.read(signed(item(key), 2, kind=NODES), kind=NODES)
        self.assertEqual(self.dropped(signed(item(b"a"), 1, kind=NODES), kind=NODES), ["fetched rollback"])
        self.assertEqual(len(self.read(signed(item(b"b"), 1, kind=NODES), kind=NODES).values), 1)

    def test_unasked(self) -> None:
        """Keys that nobody asked for, and a second value for one place."""
        a, b = signed(item(b"a"), kind=NODES), signed(item(b"b"), kind=NODES)
        self.assertEqual(self.dropped(a, kind=NODES, keys=(b"b",)), ["fetched unasked"])
        fetched = self.read(b, b, kind=NODES, keys=(b"b",))
        self.assertEqual((len(fetched.values), fetched.dropped), (1, 1))

    def test_specifiers(self) -> None:
        """Everything of a Kind, or some keys."""
        models = [specifier(KINDS[kind]).model_specifier for kind in (SINGLE, ARRAY, DICTIONARY)]
        whole = ArraySpecifier(indices=(ArrayRange(first=0, last=LAST_INDEX),))
        self.assertEqual(models, [SingleSpecifier(), whole, DictionarySpecifier(keys=())])
        some = specifier(KINDS[NODES], [b"k"], 4)
        self.assertEqual((some.generation, some.model_specifier), (4, DictionarySpecifier(keys=(b"k",))))
