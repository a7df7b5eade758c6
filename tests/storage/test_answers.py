"""Store, Fetch, Stat and Find, answered."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from p2psip.errors import (
    DataTooLarge,
    DataTooOld,
    Forbidden,
    GenerationCounterTooLow,
    InvalidMessage,
    NotFound,
    RELOADError,
    UnknownKind,
)
from p2psip.ids import NodeId, ResourceId
from p2psip.interfaces import Reply, Request
from p2psip.storage.answers import Changed, StorageAnswers
from p2psip.storage.interfaces import Held, Key, Quotas, StorageError
from p2psip.storage.store import MemoryStorage
from p2psip.wire.codec import Struct, WireContext
from p2psip.wire.codes import LAST_INDEX
from p2psip.wire.contents import UnknownKinds
from p2psip.wire.security import UNSIGNED
from p2psip.wire.storage import (
    ArrayEntryMeta,
    ArrayRange,
    ArraySpecifier,
    DictionarySpecifier,
    FetchAns,
    FetchKindResponse,
    FetchReq,
    FindAns,
    FindReq,
    MetaData,
    SingleSpecifier,
    StatAns,
    StatReq,
    StoreAns,
    StoredData,
    StoredDataSpecifier,
    StoreKindData,
    StoreReq,
)

from .world import (
    ALICE,
    ALICES,
    ARRAY,
    BOB,
    DICTIONARY,
    NODES,
    NOW,
    POLICIES,
    SINGLE,
    FakeSigner,
    FakeTopology,
    FakeVerifier,
    entry,
    hash_of,
    item,
    make_kinds,
    node,
    signed,
    single,
)

UNHEARD_OF = 0xF00000FF
PEER = FakeSigner("peer@nodes.example.org", node(77))
SUCCESSORS = (node(101), node(102))


class AnswersTestCase(SynchronousTestCase):
    """One node's storage, responsible for everything, with two successors."""

    def setUp(self) -> None:
        self.storage = MemoryStorage()
        self.topology = FakeTopology()
        self.topology.replicas = SUCCESSORS
        self.verifier = FakeVerifier(ALICE, BOB, PEER)
        self.kinds = make_kinds()
        self.told: list[tuple[ResourceId, dict[int, set[object]], NodeId | None]] = []
        self.counted: list[str] = []
        self.answers = StorageAnswers(
            self.storage,
            self.topology,
            lambda: self.kinds,
            self.verifier,
            POLICIES,
            self.stored,
            self.counted.append,
        )
        self.now = NOW

    def stored(self, resource: ResourceId, changed: Changed, sender: NodeId | None) -> None:
        self.told.append((resource, {kind: set(keys) for kind, keys in changed.items()}, sender))

    def ask(self, body: Struct, signer: FakeSigner = ALICE, others: Sequence[FakeSigner] = ()) -> Deferred[Reply]:
        """Answer `body`, which went over the wire, as asked by `signer`."""
        models = {kind: each.data_model for kind, each in self.kinds.items()}
        received = type(body).decode(body.encode(), WireContext(models=models))
        certificates = [one.identity.certificate for one in (signer, *others)]
        request = Request(received, signer.signed_by, signer.node_id, 1, certificates)
        answerer = self.answers.answerers(lambda: self.now)[type(body)]
        return maybeDeferred(lambda: answerer(request))

    def store(
        self,
        *data: StoreKindData,
        signer: FakeSigner = ALICE,
        replica: int = 0,
        others: Sequence[FakeSigner] = (),
        resource: ResourceId = ALICES,
    ) -> Deferred[Reply]:
        body = StoreReq(resource=resource, replica_number=replica, kind_data=data)
        return self.ask(body, signer, others)

    def accepted(self, done: Deferred[Reply]) -> list[tuple[int, int, tuple[NodeId, ...]]]:
        """The contents of the StoreAns."""
        answer = self.successResultOf(done).body
        assert isinstance(answer, StoreAns)
        return [(each.kind, each.generation_counter, each.replicas) for each in answer.kind_responses]

    def refused(self, error: type[RELOADError], done: Deferred[Reply]) -> RELOADError:
        """`done` failed with `error`, and neither storage nor anybody else has noticed."""
        failure = self.failureResultOf(done)
        self.assertIs(failure.type, error, failure)
        value = failure.value
        assert isinstance(value, RELOADError)
        return value

    def unchanged(self, error: type[RELOADError], done: Deferred[Reply], values: int = 0) -> RELOADError:
        told = len(self.told)
        refused = self.refused(error, done)
        self.assertEqual((self.storage.values, len(self.told)), (values, told))
        return refused

    def fetch(
        self, *specifiers: StoredDataSpecifier, resource: ResourceId = ALICES
    ) -> tuple[list[FetchKindResponse], Sequence[bytes]]:
        reply = self.successResultOf(self.ask(FetchReq(resource=resource, specifiers=specifiers)))
        assert isinstance(reply.body, FetchAns)
        reply.body.encode()
        return list(reply.body.kind_responses), reply.certificates


def put(kind: int, *values: StoredData, generation: int = 0) -> StoreKindData:
    return StoreKindData(kind=kind, generation_counter=generation, values=values)


def one(time: int = 1000, generation: int = 0) -> StoreKindData:
    return put(SINGLE, signed(single(b"%d" % time), time), generation=generation)


def want(kind: int, *keys: bytes, generation: int = 0, spans: Sequence[tuple[int, int]] = ()) -> StoredDataSpecifier:
    specifier: Struct
    if kind == SINGLE:
        specifier = SingleSpecifier()
    elif kind == ARRAY:
        specifier = ArraySpecifier(indices=tuple(ArrayRange(first=a, last=b) for a, b in spans))
    else:
        specifier = DictionarySpecifier(keys=keys)
    return StoredDataSpecifier(kind=kind, generation=generation, model_specifier=specifier)


class StoreTests(AnswersTestCase):
    def test_accepted(self) -> None:
        """The answer has the counter and who will hold replicas.

        [6940-7.4.1.1-17, 6940-7.4.1.1-19, 6940-7.4.1.2-1, 6940-10.4-1]
        """
        self.assertEqual(self.accepted(self.store(one())), [(SINGLE, 1, SUCCESSORS)])
        self.assertEqual(self.told, [(ALICES, {SINGLE: {None}}, None)])
        self.assertEqual(self.storage.held(ALICES, SINGLE)[None].certificate, ALICE.identity.certificate)

    def test_generation_increases(self) -> None:
        """[6940-7.4.1.1-18]"""
        for time in (1, 2, 3):
            self.assertEqual(self.accepted(self.store(one(time))), [(SINGLE, time, SUCCESSORS)])

    def test_generation_that_is_expected(self) -> None:
        """The current counter is accepted; one behind or ahead is told all current ones, without replicas.

        [6940-7.4.1.1-13, 6940-7.4.1.2-2, 6940-7.4.1.2-3]
        """
        self.accepted(self.store(one(1)))
        self.accepted(self.store(one(2, generation=1)))
        array = put(ARRAY, signed(entry(0), kind=ARRAY))
        for wrong in (1, 3):
            error = self.unchanged(GenerationCounterTooLow, self.store(array, one(3, generation=wrong)), 1)
            info = StoreAns.decode(error.error_info)
            found = [(each.kind, each.generation_counter, each.replicas) for each in info.kind_responses]
            self.assertEqual(found, [(ARRAY, 0, ()), (SINGLE, 2, ())])

    def test_generation_of_nothing(self) -> None:
        self.unchanged(GenerationCounterTooLow, self.store(one(generation=5)))

    def test_all_or_nothing(self) -> None:
        """One Kind's fault refuses all of them. [6940-7.4.1.1-2, 6940-7.4.1.1-3]"""
        self.accepted(self.store(one(5)))
        array = put(ARRAY, signed(entry(0), kind=ARRAY))
        self.unchanged(DataTooOld, self.store(array, one(5)), 1)
        self.assertEqual(self.storage.generation(ALICES, ARRAY), 0)

    def test_duplicate_kind(self) -> None:
        """[6940-7.4.1.1-1]"""
        self.unchanged(InvalidMessage, self.store(one(1), one(2)))

    def test_unknown_kind(self) -> None:
        """The error lists every Kind that is not known. [6940-7.4.1.1-6, 6940-7.4.1.2-6]"""
        request = Request(
            StoreReq(resource=ALICES, kind_data=(put(UNHEARD_OF), one(), put(UNHEARD_OF + 1))),
            ALICE.signed_by,
            ALICE.node_id,
            1,
        )
        error = self.unchanged(UnknownKind, maybeDeferred(self.answers.answer_store, request, NOW))
        info = UnknownKinds.decode(error.error_info)
        self.assertEqual(info.unknown_kinds, (UNHEARD_OF, UNHEARD_OF + 1))

    def test_policy_nobody_has(self) -> None:
        """A Kind whose access control nobody here knows is not known either. [6940-7.3-1]"""
        del self.kinds[SINGLE]
        self.kinds[SINGLE] = make_kinds()[SINGLE].__class__(
            kind_id=SINGLE,
            name="",
            data_model=make_kinds()[SINGLE].data_model,
            access_control="ODD",
            max_count=1,
            max_size=10,
        )
        self.unchanged(UnknownKind, self.store(one()))

    def test_not_responsible(self) -> None:
        """[6940-7.4.1.1-4]"""
        self.topology.responsible = lambda target: False
        self.unchanged(NotFound, self.store(one()))

    def test_too_large(self) -> None:
        """[6940-7.4.1.2-5, 6940-13.5.2-1]"""
        self.accepted(self.store(put(SINGLE, signed(single(bytes(100)), 1))))
        self.unchanged(DataTooLarge, self.store(put(SINGLE, signed(single(bytes(101)), 2))), 1)

    def test_too_many(self) -> None:
        """No more values than max-count, however they come; replacing is still possible then."""
        four = [signed(entry(i), kind=ARRAY) for i in range(4)]
        five = [*four, signed(entry(LAST_INDEX), kind=ARRAY)]
        self.unchanged(DataTooLarge, self.store(put(ARRAY, *five)))
        self.accepted(self.store(put(ARRAY, *four)))
        self.unchanged(DataTooLarge, self.store(put(ARRAY, signed(entry(LAST_INDEX), 1001, kind=ARRAY))), 4)
        self.accepted(self.store(put(ARRAY, signed(entry(2), 1001, kind=ARRAY))))

    def test_quota(self) -> None:
        self.storage.quotas = Quotas(max_values=1)
        self.accepted(self.store(one()))
        self.unchanged(DataTooLarge, self.store(put(ARRAY, signed(entry(0), kind=ARRAY))), 1)

    def test_wrong_user(self) -> None:
        """[6940-7.4.1.1-9, 6940-13.5.1-2]"""
        stranger = put(SINGLE, signed(single(), signer=BOB))
        self.unchanged(Forbidden, self.store(stranger, signer=BOB))

    def test_value_of_another(self) -> None:
        """The sender may write here, the signer of the value may not. [6940-7.3-2, 6940-7.4.1.1-9]"""
        self.unchanged(Forbidden, self.store(put(SINGLE, signed(single(), signer=BOB)), others=[BOB]))

    def test_sent_by_another(self) -> None:
        """The value's signer may write here, the sender may not. [6940-7.3-2, 6940-7.4.1.1-10]"""
        self.unchanged(Forbidden, self.store(one(), signer=BOB, others=[ALICE]))
        self.assertEqual(self.verifier.asked, 0)

    def test_key_of_another_node(self) -> None:
        """[6940-7.3.3-2]"""
        own = put(DICTIONARY, signed(item(ALICE.node_id), kind=DICTIONARY))
        other = put(DICTIONARY, signed(item(BOB.node_id), 1001, kind=DICTIONARY))
        self.accepted(self.store(own))
        self.unchanged(Forbidden, self.store(other), 1)

    def test_bad_signature(self) -> None:
        """[6940-7.4.1.1-8]"""
        data = signed(single(), 1)
        for forged in (
            data.replace(storage_time=2),
            data.replace(value=single(b"forged")),
            signed(single(), 1, kind=ARRAY),
            signed(single(), 1, resource=hash_of(b"elsewhere")),
        ):
            self.unchanged(Forbidden, self.store(put(SINGLE, forged)))
        self.assertEqual(self.counted, ["value signature"] * 4)

    def test_certificate_missing(self) -> None:
        self.unchanged(Forbidden, self.store(one(), signer=FakeSigner("alice@example.org", node(5))))

    def test_unsigned(self) -> None:
        """Only a storing peer makes synthetic values. [6940-7.4.1.1-16]"""
        data = StoredData(storage_time=1, lifetime=5, value=single(b"", exists=False), signature=UNSIGNED)
        self.unchanged(Forbidden, self.store(put(SINGLE, data)))

    def test_too_old(self) -> None:
        """[6940-7-1, 6940-13.5.3-2]"""
        self.accepted(self.store(one(5)))
        for time in (4, 5):
            self.unchanged(DataTooOld, self.store(one(time)), 1)

    def test_order_of_the_checks(self) -> None:
        """Of several faults the first in this order is told. [6940-7.4.1.1-7]"""
        self.accepted(self.store(one(5)))
        too_large = signed(single(bytes(200)), 1, signer=BOB)
        wrong = put(SINGLE, too_large, generation=9)
        forbidden = put(SINGLE, signed(single(), 1, signer=BOB), generation=9)
        self.topology.responsible = lambda target: False
        self.refused(InvalidMessage, self.store(wrong, wrong))
        self.refused(NotFound, self.store(wrong))
        self.topology.responsible = lambda target: True
        self.refused(DataTooLarge, self.store(wrong))
        self.refused(Forbidden, self.store(forbidden, others=[BOB]))
        self.refused(GenerationCounterTooLow, self.store(one(1, generation=9)))
        self.refused(DataTooOld, self.store(one(1, generation=1)))

    def test_append(self) -> None:
        """The values of one Store are appended one behind the other, and fetched with their real index."""
        values = [signed(entry(LAST_INDEX, b"%d" % i), i, kind=ARRAY) for i in range(2)]
        self.accepted(self.store(put(ARRAY, *values)))
        self.accepted(self.store(put(ARRAY, signed(entry(LAST_INDEX, b"2"), 2, kind=ARRAY))))
        ((response,), _) = self.fetch(want(ARRAY, spans=[(0, LAST_INDEX)]))
        self.assertEqual([data.value for data in response.values], [entry(i, b"%d" % i) for i in range(3)])

    def test_removal(self) -> None:
        """A nonexistent value takes the place, is fetched signed, and expires. [6940-7.4.1.3-2]"""
        self.accepted(self.store(one(1)))
        gone = signed(single(b"", exists=False), 2, lifetime=10)
        self.accepted(self.store(put(SINGLE, gone)))
        self.unchanged(DataTooOld, self.store(one(1)), 1)
        ((response,), certificates) = self.fetch(want(SINGLE))
        self.assertEqual((response.values, certificates), ((gone,), (ALICE.identity.certificate,)))
        self.now += 10
        self.accepted(self.store(one(1)))

    def test_nothing_to_store(self) -> None:
        self.assertEqual(self.accepted(self.store(put(SINGLE))), [(SINGLE, 0, SUCCESSORS)])
        self.assertEqual(self.storage.values, 0)

    def test_generation_wraps(self) -> None:
        self.topology.bringers = {PEER.node_id}
        data = one(1, generation=2**64 - 1)
        self.accepted(self.store(data, signer=PEER, others=[ALICE], replica=1))
        self.assertEqual(self.accepted(self.store(one(2))), [(SINGLE, 1, SUCCESSORS)])

    def test_not_acknowledged_before_it_is_durable(self) -> None:
        durable: Deferred[None] = Deferred()
        self.storage.durable = lambda: durable  # type: ignore[method-assign]
        done = self.store(one())
        self.assertNoResult(done)
        self.assertEqual(self.told, [])
        durable.callback(None)
        self.accepted(done)
        self.assertEqual(len(self.told), 1)

    def test_disk_full(self) -> None:
        """A Store that cannot be kept is answered by an error, counted, and not replicated."""
        self.storage.durable = lambda: fail(StorageError("disk full"))  # type: ignore[method-assign]
        self.refused(DataTooLarge, self.store(one()))
        self.assertEqual((self.counted, self.told), (["storage failed"], []))


written = st.tuples(
    st.sampled_from([SINGLE, ARRAY, NODES]),
    st.sampled_from([0, 1, 3, LAST_INDEX]),
    st.integers(0, 6),
    st.booleans(),
    st.sampled_from([5, 5, 5, 101]),
    st.sampled_from([ALICE, ALICE, ALICE, BOB]),
)
requests = st.lists(
    st.tuples(
        st.lists(st.tuples(st.lists(written, max_size=3), st.sampled_from([0, 0, 0, 1, 2])), max_size=3),
        st.sampled_from([0, 0, 1]),
        st.integers(0, 400),
    ),
    max_size=12,
)


class AnyStoresTests(AnswersTestCase):
    @settings(max_examples=150, deadline=None)
    @given(requests)
    def test_all_or_nothing(self, asked: list[Any]) -> None:
        """Whatever is stored: an error of the RFC and nothing has changed, or newer values and a new counter.

        [6940-7.4.1.1-2, 6940-7.4.1.1-3, 6940-7.4.1.1-18]
        """
        self.setUp()
        self.topology.bringers = {PEER.node_id}
        for kinds, replica, later in asked:
            self.now += later
            self.storage.expire(self.now)
            before = self.contents()
            data = [put(kind[0][0], *self.values(kind), generation=generation) for kind, generation in kinds if kind]
            done = self.store(*data, signer=PEER if replica else ALICE, others=[ALICE, BOB], replica=replica)
            after = self.contents()
            if isinstance(self.result_of(done), RELOADError):
                self.assertEqual(after, before)
                continue
            for each in data:
                old, new = before.get(each.kind, (0, {})), after.get(each.kind, (0, {}))
                self.assertLessEqual(old[1].keys(), new[1].keys())
                for key, held in old[1].items():
                    newer = new[1][key].data.storage_time > held.data.storage_time
                    self.assertTrue(newer or new[1][key] is held)
                if replica:
                    self.assertIn(new[0], (each.generation_counter, old[0]))
                else:
                    self.assertEqual(new[0] > old[0], new[1] != old[1])

    def values(self, written: list[Any]) -> list[StoredData]:
        kind = written[0][0]
        return [
            signed(
                {SINGLE: single(bytes(size), exists), ARRAY: entry(index, bytes(size), exists)}.get(
                    kind, item(bytes([index % 7]), bytes(size), exists)
                ),
                time,
                kind=kind,
                signer=signer,
            )
            for _, index, time, exists, size, signer in written
        ]

    def contents(self) -> dict[int, tuple[int, dict[Key, Held]]]:
        return {
            kind: (self.storage.generation(ALICES, kind), dict(self.storage.held(ALICES, kind)))
            for kind in self.storage.kinds(ALICES)
        }

    def result_of(self, done: Deferred[Reply]) -> object:
        results: list[object] = []
        done.addBoth(results.append)
        (result,) = results
        return result.value if isinstance(result, Failure) else result


class ReplicaTests(AnswersTestCase):
    """Stores of replicas, hand-over and other maintenance: replica_number is not 0."""

    def setUp(self) -> None:
        super().setUp()
        self.topology.responsible = lambda target: False
        self.topology.bringers = {PEER.node_id}

    def bring(self, *data: StoreKindData, signer: FakeSigner = PEER) -> Deferred[Reply]:
        return self.store(*data, signer=signer, others=[ALICE], replica=1)

    def test_accepted(self) -> None:
        """The counter is set as received, even downwards. [6940-7.3-3, 6940-7.4.1.1-14, 6940-10.4-4]"""
        self.assertEqual(self.accepted(self.bring(one(1, generation=7))), [(SINGLE, 7, ())])
        self.assertEqual(self.accepted(self.bring(one(2, generation=3))), [(SINGLE, 3, ())])
        self.assertEqual(self.storage.generation(ALICES, SINGLE), 3)
        self.assertEqual(self.told[0], (ALICES, {SINGLE: {None}}, PEER.node_id))

    def test_unexpected(self) -> None:
        """[6940-7.4.1.1-5, 6940-7.4.1.1-11, 6940-7.4.1.1-12, 6940-10.4-3]"""
        self.topology.bringers = set()
        self.unchanged(Forbidden, self.bring(one(1, generation=1)))

    def test_owner_is_no_peer(self) -> None:
        self.unchanged(Forbidden, self.bring(one(1, generation=1), signer=ALICE))

    def test_no_generation(self) -> None:
        """[6940-7.4.1.1-15]"""
        self.unchanged(InvalidMessage, self.bring(one(1, generation=0)))

    def test_value_of_another(self) -> None:
        """[6940-7.3-3]"""
        data = put(SINGLE, signed(single(), signer=BOB), generation=1)
        self.unchanged(Forbidden, self.store(data, signer=PEER, others=[BOB], replica=1))

    def test_the_same_again(self) -> None:
        """It is no error, changes no lifetime, and costs no signature; the counter follows."""
        data = signed(single(), 1, lifetime=100)
        self.accepted(self.bring(put(SINGLE, data, generation=1)))
        expires = self.storage.held(ALICES, SINGLE)[None].expires
        asked, self.now = self.verifier.asked, NOW + 10
        again = put(SINGLE, data.replace(lifetime=500), generation=2)
        self.assertEqual(self.accepted(self.bring(again)), [(SINGLE, 2, ())])
        self.assertEqual(self.verifier.asked, asked)
        self.assertEqual(self.storage.held(ALICES, SINGLE)[None].expires, expires)
        self.assertEqual(self.told[-1], (ALICES, {SINGLE: set()}, PEER.node_id))

    def test_too_old(self) -> None:
        self.accepted(self.bring(one(5, generation=9)))
        for time in (4, 5):
            other = put(SINGLE, signed(single(b"other"), time), generation=10)
            self.unchanged(DataTooOld, self.bring(other), 1)
        self.assertEqual(self.storage.generation(ALICES, SINGLE), 9)

    def test_real_index(self) -> None:
        """An appended entry goes on with its real index, and its signature holds."""
        data = signed(entry(LAST_INDEX), kind=ARRAY)
        placed = data.replace(value=entry(6))
        self.accepted(self.bring(put(ARRAY, placed, generation=1)))
        self.assertEqual(set(self.storage.held(ALICES, ARRAY)), {6})


class FetchTests(AnswersTestCase):
    def values(self, specifier: StoredDataSpecifier) -> tuple[StoredData, ...]:
        ((response,), _) = self.fetch(specifier)
        return response.values

    def test_every_kind(self) -> None:
        """One response for each Kind, with its counter; every writer's certificate once. [6940-7.4.2.2-1]"""
        self.accepted(self.store(one()))
        self.accepted(self.store(put(ARRAY, *[signed(entry(i), kind=ARRAY) for i in range(3)])))
        responses, certificates = self.fetch(want(ARRAY, spans=[(0, 2)]), want(SINGLE), want(DICTIONARY))
        found = [(each.kind, each.generation, len(each.values)) for each in responses]
        self.assertEqual(found, [(ARRAY, 1, 3), (SINGLE, 1, 1), (DICTIONARY, 0, 0)])
        self.assertEqual(certificates, (ALICE.identity.certificate,))

    def test_lifetime_shrinks(self) -> None:
        """By the time the value was kept here. [6940-7.4.1.1-20, 6940-7.4.1.1-21]"""
        self.accepted(self.store(put(SINGLE, signed(single(), lifetime=100))))
        self.now += 30.5
        self.assertEqual(self.values(want(SINGLE))[0].lifetime, 69)
        self.now += 69.5
        self.assertEqual(self.values(want(SINGLE))[0].value, single(b"", exists=False))

    def test_never_stored(self) -> None:
        """A single value that does not exist is made up, without signature. [6940-7.4.2.2-2]"""
        (data,) = self.values(want(SINGLE))
        self.assertEqual(data.value, single(b"", exists=False))
        self.assertEqual((data.storage_time, data.lifetime, data.signature), (0, 0, UNSIGNED))

    def test_generation_that_is_known(self) -> None:
        self.accepted(self.store(one()))
        ((response,), certificates) = self.fetch(want(SINGLE, generation=1))
        self.assertEqual((response.generation, response.values, certificates), (1, (), ()))
        self.assertEqual(len(self.values(want(SINGLE, generation=2))), 1)

    def test_dictionary(self) -> None:
        """No keys: all; keys: those, and synthetic values for what is not there."""
        a, b = (signed(item(key), kind=NODES) for key in (b"a", b"b"))
        self.accepted(self.store(put(NODES, a, b)))
        self.assertEqual(self.values(want(NODES)), (a, b))
        found = self.values(want(NODES, b"b", b"x"))
        self.assertEqual(found[0], b)
        self.assertEqual((found[1].value, found[1].signature), (item(b"x", b"", exists=False), UNSIGNED))

    def test_array_gaps(self) -> None:
        self.accepted(self.store(put(ARRAY, signed(entry(2), kind=ARRAY))))
        found = self.values(want(ARRAY, spans=[(0, LAST_INDEX)]))
        self.assertEqual([(data.value.index, data.value.value.exists) for data in found],  # type: ignore[union-attr]
                         [(0, False), (1, False), (2, True)])

    def test_bad_requests(self) -> None:
        """[6940-7.4.2.1-2, 6940-7.4.2.1-3]"""
        for specifiers in ([want(SINGLE)] * 2, [want(ARRAY, spans=[(2, 1)])], [want(ARRAY, spans=[(0, 2), (2, 3)])]):
            body = FetchReq(resource=ALICES, specifiers=tuple(specifiers))
            self.refused(InvalidMessage, self.ask(body))

    def test_unknown_kind(self) -> None:
        """[6940-7.4.2.1-1]"""
        body = FetchReq(resource=ALICES, specifiers=(want(UNHEARD_OF), want(SINGLE)))
        request = Request(body, ALICE.signed_by, ALICE.node_id, 1)
        error = self.refused(UnknownKind, maybeDeferred(self.answers.answer_fetch, request, NOW))
        self.assertEqual(UnknownKinds.decode(error.error_info).unknown_kinds, (UNHEARD_OF,))

    def test_not_responsible(self) -> None:
        """A peer that holds a copy answers; one that holds nothing does not claim that there is nothing."""
        self.accepted(self.store(one()))
        self.topology.responsible = lambda target: False
        self.assertEqual(len(self.values(want(SINGLE))), 1)
        self.refused(NotFound, self.ask(FetchReq(resource=ALICES, specifiers=(want(ARRAY, spans=[(0, 1)]),))))


class StatTests(AnswersTestCase):
    def test_metadata(self) -> None:
        """Length and digest of the value, the digest over its length too."""
        self.accepted(self.store(put(ARRAY, signed(entry(1, b"abc"), 7, kind=ARRAY, lifetime=50))))
        self.now += 10
        body = StatReq(resource=ALICES, specifiers=(want(ARRAY, spans=[(0, LAST_INDEX)]), want(SINGLE)))
        reply = self.successResultOf(self.ask(body))
        assert isinstance(reply.body, StatAns)
        reply.body.encode()
        array, never = reply.body.kind_responses
        self.assertEqual((array.kind, array.generation, never.generation), (ARRAY, 1, 0))
        gap, found = array.values
        self.assertEqual((found.storage_time, found.lifetime), (7, 40))
        digest = sha256(b"\0\0\0\x03abc").digest()
        expected = MetaData(exists=True, value_length=3, hash_value=digest)
        self.assertEqual(found.metadata, ArrayEntryMeta(index=1, value=expected))
        nothing = MetaData(exists=False, value_length=0, hash_value=sha256(bytes(4)).digest())
        self.assertEqual(gap.metadata, ArrayEntryMeta(index=0, value=nothing))
        self.assertEqual(never.values[0].metadata, nothing)


class FindTests(AnswersTestCase):
    def find(self, resource: bytes, *kinds: int) -> dict[int, bytes]:
        body = FindReq(resource=ResourceId(resource), kinds=kinds)
        answer = self.successResultOf(self.ask(body)).body
        assert isinstance(answer, FindAns)
        return {result.kind: result.closest for result in answer.results}

    def test_closest(self) -> None:
        """The next with that Kind; zeros for a Kind that nobody stored or knows. [6940-7.4.4.2-2, 6940-7.4.4.2-3]"""
        self.accepted(self.store(one()))
        found = self.find(node(1), SINGLE, ARRAY, UNHEARD_OF)
        self.assertEqual(found, {SINGLE: ALICES, ARRAY: bytes(16), UNHEARD_OF: bytes(16)})
        self.now += 600
        self.assertEqual(self.find(node(1), SINGLE), {SINGLE: bytes(16)})

    def test_duplicate_kind(self) -> None:
        """[6940-7.4.4.1-1, 6940-7.4.4.1-2]"""
        self.refused(InvalidMessage, self.ask(FindReq(resource=ALICES, kinds=(SINGLE, SINGLE))))

    def test_not_responsible(self) -> None:
        """[6940-7.4.4.2-1]"""
        self.topology.responsible = lambda target: False
        self.refused(NotFound, self.ask(FindReq(resource=ALICES, kinds=(SINGLE,))))
