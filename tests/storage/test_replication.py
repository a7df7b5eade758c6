"""Copies at other peers, in a ring of peers whose view of it each test sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from p2psip.config.kinds import Kind
from p2psip.errors import Forbidden, RELOADError, RequestTimeout
from p2psip.ids import NodeId, ResourceId, distance, within
from p2psip.interfaces import (
    Answer,
    IAccessPolicy,
    IMessaging,
    ISigner,
    Reply,
    Request,
    SignedBy,
)
from p2psip.storage.answers import StorageAnswers
from p2psip.storage.interfaces import Change, Held, Key
from p2psip.storage.replication import Replication
from p2psip.storage.store import MemoryStorage
from p2psip.storage.verify import FetchVerifier
from p2psip.wire.codec import Struct, WireContext
from p2psip.wire.header import Destination, NodeDestination, ResourceDestination
from p2psip.wire.storage import FetchReq, StatReq, StoredData, StoreKindData, StoreReq

from .world import (
    ALICE,
    ALICES,
    NODES,
    NOW,
    SINGLE,
    FakeSigner,
    FakeTopology,
    FakeVerifier,
    hash_of,
    item,
    kept,
    make_kinds,
    node,
    signed,
    single,
)


@implementer(IAccessPolicy)
class Anyone:
    """Lets everybody write everywhere, so that one person can have thousands of resources."""

    name = "ANYONE"

    def permits(self, signer: SignedBy, resource: ResourceId, kind: Kind, value: StoredData, resource_id: Any) -> bool:
        return True


KINDS = {
    kind_id: replace(kind, access_control="ANYONE") for kind_id, kind in make_kinds(max_count=100).items()
}
POLICIES: Mapping[str, IAccessPolicy] = {"ANYONE": Anyone()}
CONTEXT = WireContext(models={kind: each.data_model for kind, each in KINDS.items()})


class RingTopology(FakeTopology):
    """What one peer makes of the peers that it knows of (RFC 6940 §10)."""

    def __init__(self, me: NodeId) -> None:
        super().__init__()
        self.me = me
        self.admitting: NodeId | None = None
        self.know([])

    def know(self, peers: Iterable[NodeId]) -> None:
        others = {peer for peer in peers if peer != self.me}
        self.known = others
        self.successors = sorted(others, key=lambda peer: distance(self.me, peer))
        self.predecessors = self.successors[::-1]
        self.responsible = lambda target: self.joined and (
            not others or within(target, self.predecessors[0], self.me)
        )
        self.keeps = lambda target: len(others) < 3 or within(target, self.predecessors[2], self.me)
        self.replicas = tuple(self.successors[:2])

    def replica_expected(self, resource: ResourceId, sender: NodeId) -> bool:
        if sender == self.admitting:
            return True
        if not self.joined or sender not in self.known:
            return False
        between = distance(resource, sender) < distance(resource, self.me)
        return self.keeps(resource) and (self.responsible(resource) or between)


class Peer:
    """One node's storage, with all that maintains it."""

    def __init__(self, ring: Ring, number: int) -> None:
        self.node_id = node(number << 121)
        self.signer = FakeSigner(f"peer{number}@nodes.example.org", self.node_id)
        self.alive = True
        self.storage = MemoryStorage()
        self.topology = RingTopology(self.node_id)
        self.counted: list[str] = []
        fetched = FetchVerifier(ring.verifier, POLICIES, hash_of, self.counted.append)
        self.replication = Replication(
            self.storage,
            self.topology,
            Messaging(ring, self),
            lambda: KINDS,
            fetched,
            ring.clock,
            Random(number),
            lambda: 2000,
            self.counted.append,
            lambda: ring.now,
        )
        self.answers = StorageAnswers(
            self.storage,
            self.topology,
            lambda: KINDS,
            ring.verifier,
            POLICIES,
            self.replication.stored,
        )

    def values(self, kind: int = SINGLE, resource: ResourceId = ALICES) -> dict[Key, bytes]:
        held = self.storage.held(resource, kind)
        return {key: data_of(value) for key, value in held.items()}


def data_of(held: Held) -> bytes:
    value: Any = held.data.value
    value = getattr(value, "value", value)
    return bytes(getattr(value, "value", value))


@implementer(IMessaging)
class Messaging:
    """Requests of one peer, signed by it."""

    def __init__(self, ring: Ring, peer: Peer) -> None:
        self.ring = ring
        self.peer = peer

    def request(
        self,
        destination_list: Sequence[Destination],
        body: Struct,
        signer: ISigner | None = None,
        certificates: Sequence[bytes] = (),
    ) -> Deferred[Answer]:
        (to,) = destination_list
        return self.ring.send(self.peer.signer, to, body, certificates)


class Ring:
    """The peers, and the messages between them, which wait until `run`."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.verifier = FakeVerifier(ALICE)
        self.peers: dict[NodeId, Peer] = {}
        self.waiting: list[Callable[[], None]] = []
        self.sent: list[tuple[NodeId, Destination, Struct]] = []
        self.refuses: Callable[[Peer, Struct], RELOADError | None] = lambda peer, body: None

    @property
    def now(self) -> float:
        return NOW + self.clock.seconds()

    def add(self, *numbers: int) -> list[Peer]:
        """New peers that know nobody, and that nobody knows."""
        peers = [Peer(self, number) for number in numbers]
        for peer in peers:
            self.peers[peer.node_id] = peer
            self.verifier.people[peer.signer.identity.fingerprint] = peer.signer
        return peers

    def meet(self) -> None:
        """Everybody alive learns of everybody alive."""
        alive = [peer.node_id for peer in self.peers.values() if peer.alive]
        for node_id in alive:
            self.peers[node_id].topology.know(alive)

    def settle(self) -> None:
        """Everybody learns, and has the time to do what follows."""
        self.meet()
        for peer in self.peers.values():
            if peer.alive:
                peer.replication.responsibility_changed()
        self.run()

    def kill(self, peer: Peer) -> None:
        peer.alive = False
        peer.replication.stop()
        for other in self.peers.values():
            other.replication.peer_lost(peer.node_id)

    def responsible(self, resource: ResourceId) -> Peer:
        alive = [peer for peer in self.peers.values() if peer.alive and peer.topology.joined]
        return min(alive, key=lambda peer: distance(resource, peer.node_id))

    def send(
        self, signer: FakeSigner, to: Destination, body: Struct, certificates: Sequence[bytes] = ()
    ) -> Deferred[Answer]:
        self.sent.append((signer.node_id, to, body))
        answered: Deferred[Answer] = Deferred()
        self.waiting.append(lambda: self.deliver(signer, to, body, certificates, answered))
        return answered

    def deliver(
        self,
        signer: FakeSigner,
        to: Destination,
        body: Struct,
        certificates: Sequence[bytes],
        answered: Deferred[Answer],
    ) -> None:
        peer: Peer | None = None
        if isinstance(to, NodeDestination):
            peer = self.peers.get(to.node_id)
        elif isinstance(to, ResourceDestination):
            peer = self.responsible(to.resource_id)
        if peer is None or not peer.alive:
            answered.errback(RequestTimeout())
            return
        refusal = self.refuses(peer, body)
        if refusal is not None:
            answered.errback(refusal)
            return
        received = type(body).decode(body.encode(), CONTEXT)
        request = Request(received, signer.signed_by, signer.node_id, 1, [*certificates, signer.identity.certificate])
        answerer: Any = peer.answers.answerers(lambda: self.now)[type(body)]
        signed_by = peer.signer.signed_by

        def answer(reply: Reply) -> None:
            body = type(reply.body).decode(reply.body.encode(), CONTEXT)
            self.waiting.append(lambda: answered.callback(Answer(body, signed_by, reply.certificates)))

        def refuse(failure: Failure) -> None:
            self.waiting.append(lambda: answered.errback(failure))

        maybeDeferred(answerer, request).addCallbacks(answer, refuse)

    def step(self) -> None:
        """Deliver what is on its way now."""
        waiting, self.waiting = self.waiting, []
        for deliver in waiting:
            deliver()

    def run(self) -> None:
        """Deliver until there is nothing more; whatever is due at once is done."""
        self.clock.advance(0)
        while self.waiting:
            self.step()
            self.clock.advance(0)

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.clock.advance(1)
            self.run()

    def store(self, *values: StoredData, kind: int = SINGLE, resource: ResourceId = ALICES) -> None:
        """Alice stores; nothing that follows from it happens yet."""
        self.begin(*values, kind=kind, resource=resource)
        self.step()
        self.step()

    def begin(self, *values: StoredData, kind: int = SINGLE, resource: ResourceId = ALICES) -> Deferred[Answer]:
        body = StoreReq(resource=resource, kind_data=(StoreKindData(kind=kind, values=values),))
        return self.send(ALICE, ResourceDestination(resource_id=resource), body)

    def stores(self, since: int = 0) -> list[tuple[NodeId, Destination, StoreReq]]:
        """The replica Stores sent, after the first `since` messages."""
        return [
            (sender, to, body)
            for sender, to, body in self.sent[since:]
            if isinstance(body, StoreReq) and body.replica_number
        ]


def everywhere(storage: MemoryStorage) -> list[ResourceId]:
    return list(storage.between(b"\0", b"\0"))


class ReplicationTestCase(SynchronousTestCase):
    numbers: tuple[int, ...] = (1, 2, 3, 4, 5)

    def setUp(self) -> None:
        self.ring = Ring()
        self.ring.add(*self.numbers)
        self.ring.settle()

    def holders(self, resource: ResourceId = ALICES) -> list[Peer]:
        """The responsible peer and the two that should hold copies."""
        owner = self.ring.responsible(resource)
        return [owner, *(self.ring.peers[peer] for peer in owner.topology.replicas)]

    def fill(self, count: int) -> list[ResourceId]:
        """Store `count` resources wherever they belong, and wait until they are replicated."""
        resources = [hash_of(b"resource %d" % number) for number in range(count)]
        for resource in resources:
            self.put(self.ring.responsible(resource), resource)
        self.ring.run()
        return resources

    def put(self, peer: Peer, resource: ResourceId, time: int = 1, value: bytes = b"v") -> None:
        """`peer` has accepted an original Store."""
        held = kept(signed(single(value), time, resource=resource, lifetime=10_000), now=self.ring.now)
        generation = peer.storage.generation(resource, SINGLE) + 1
        peer.storage.apply(resource, [Change(SINGLE, generation, {None: held})])
        peer.replication.stored(resource, {SINGLE: [None]}, None)

    def assert_placed(self, resources: Iterable[ResourceId]) -> None:
        """Each resource is at its responsible peer and that one's two successors, and nowhere else."""
        for resource in resources:
            expected = {peer.node_id for peer in self.holders(resource)}
            found = {
                peer.node_id for peer in self.ring.peers.values() if peer.alive and peer.storage.kinds(resource)
            }
            self.assertEqual(found, expected)


class StoredTests(ReplicationTestCase):
    """After a Store."""

    def test_two_replicas(self) -> None:
        """Numbered from 1, addressed to the peers themselves, by the responsible peer only.

        [6940-10.4-2, 6940-7.4.1.1-14]
        """
        owner, first, second = self.holders()
        self.ring.store(signed(single(b"a"), 1))
        self.ring.run()
        self.ring.store(signed(single(b"b"), 2))
        self.ring.run()
        for peer in (owner, first, second):
            self.assertEqual(peer.values(), {None: b"b"})
            self.assertEqual(peer.storage.generation(ALICES, SINGLE), 2)
            self.assertEqual(peer.storage.held(ALICES, SINGLE)[None].certificate, ALICE.identity.certificate)
        found = [(sender, to, body.replica_number) for sender, to, body in self.ring.stores()]
        each = [
            (owner.node_id, NodeDestination(node_id=first.node_id), 1),
            (owner.node_id, NodeDestination(node_id=second.node_id), 2),
        ]
        self.assertEqual(found, each * 2)

    def test_only_what_has_changed(self) -> None:
        """A peer that has the rest gets the new value alone."""
        for key in (b"a", b"b"):
            self.ring.store(signed(item(key), kind=NODES), kind=NODES)
            self.ring.run()
        sent = [len(body.kind_data[0].values) for _, _, body in self.ring.stores()]
        self.assertEqual(sent, [1] * 4)
        self.assertEqual(set(self.holders()[2].values(NODES)), {b"a", b"b"})

    def test_all_while_it_is_not_known_to_have_the_rest(self) -> None:
        """Values that come while others are on their way reach every replica."""
        for number in range(5):
            self.ring.begin(signed(item(bytes([number])), kind=NODES), kind=NODES)
        self.ring.run()
        for peer in self.holders():
            self.assertEqual(len(peer.values(NODES)), 5)
        # Not one message for each value and peer: what waits goes together.
        self.assertLess(len(self.ring.stores()), 10)

    def test_all_to_a_peer_that_missed_some(self) -> None:
        """A replica that has refused a value gets it with the next one."""
        first = self.holders()[1]
        self.ring.refuses = lambda peer, body: Forbidden() if peer is first else None
        self.ring.store(signed(item(b"a"), kind=NODES), kind=NODES)
        self.ring.run()
        self.ring.refuses = lambda peer, body: None
        self.ring.store(signed(item(b"b"), kind=NODES), kind=NODES)
        self.ring.run()
        self.assertEqual(set(first.values(NODES)), {b"a", b"b"})

    def test_lifetime_that_is_left(self) -> None:
        """[6940-7.4.1.1-20]"""
        owner, first, _ = self.holders()
        for peer in self.ring.peers.values():
            peer.topology.replicas = ()
        self.ring.store(signed(single(), lifetime=100))
        self.ring.clock.advance(40)
        self.ring.settle()
        expires = owner.storage.held(ALICES, SINGLE)[None].expires
        self.assertEqual(first.storage.held(ALICES, SINGLE)[None].expires, expires)

    def test_tombstones_are_replicated(self) -> None:
        """[6940-7.4.1.3-2]"""
        self.ring.store(signed(single(b"", exists=False)))
        self.ring.run()
        self.assertEqual([peer.values() for peer in self.holders()], [{None: b""}] * 3)

    def test_dead_replica_is_tried_again(self) -> None:
        """The other one is served meanwhile, and the time between the attempts grows."""
        _, first, second = self.holders()
        first.alive = False
        self.ring.store(signed(single()))
        self.ring.run()
        self.assertEqual((first.values(), second.values()), ({}, {None: b"v"}))
        before = len(self.ring.stores())
        self.ring.wait(60)
        attempts = len(self.ring.stores()) - before
        self.assertTrue(2 <= attempts <= 6, attempts)
        first.alive = True
        self.ring.wait(120)
        self.assertEqual(first.values(), {None: b"v"})
        owner = self.holders()[0]
        self.assertIn("replication unreachable", owner.counted)
        self.assertEqual(owner.replication.backlog, 0)


class MergeTests(ReplicationTestCase):
    """A peer that has something newer."""

    def test_newer_is_fetched(self) -> None:
        """Each ends with the newest of every value. [6940-7.4.1.1-22]"""
        owner, first, second = self.holders()

        def put(peer: Peer, generation: int, **times: int) -> None:
            values: dict[Key, Held] = {}
            for key, time in times.items():
                data = signed(item(key.encode(), b"%d" % time), time, kind=NODES)
                values[key.encode()] = kept(data)
            peer.storage.apply(ALICES, [Change(NODES, generation, values)])

        put(owner, 3, a=5, b=5, mine=1)
        put(first, 9, a=4, b=6, theirs=1)
        self.ring.settle()
        newest = {b"a": b"5", b"b": b"6", b"mine": b"1", b"theirs": b"1"}
        for peer in (owner, first, second):
            self.assertEqual(peer.values(NODES), newest)
            self.assertEqual(peer.storage.generation(ALICES, NODES), 9)

    def test_newer_is_passed_on(self) -> None:
        """What the responsible peer took from one replica it brings to the other."""
        owner, first, second = self.holders()
        for peer, time in ((owner, 1), (first, 2)):
            held = kept(signed(single(b"%d" % time), time))
            peer.storage.apply(ALICES, [Change(SINGLE, 1, {None: held})])
        owner.replication.responsibility_changed()
        self.ring.run()
        self.assertEqual([peer.values() for peer in (owner, first, second)], [{None: b"2"}] * 3)

    def test_attempts_are_bounded(self) -> None:
        """A peer that claims to have newer values, and has none, is not believed for ever."""
        _, first, second = self.holders()
        first.storage.apply(
            ALICES,
            [Change(SINGLE, 1, {None: kept(signed(single(b"forged"), 9).replace(storage_time=10))})],
        )
        self.ring.store(signed(single(), 5))
        self.ring.run()
        fetches = [body for _, _, body in self.ring.sent if isinstance(body, FetchReq)]
        self.assertEqual(len(fetches), 2)
        self.assertEqual(second.values(), {None: b"v"})
        self.assertEqual(self.holders()[0].values(), {None: b"v"})
        self.assertIn("replication DataTooOld", self.holders()[0].counted)


class RingChangeTests(ReplicationTestCase):
    """After the ring has changed."""

    numbers = (10, 20, 30, 40, 50, 60, 70)

    def test_new_replica(self) -> None:
        """A peer that has come into the replica set gets everything. [6940-10.7.3-5]"""
        resources = self.fill(40)
        self.assert_placed(resources)
        self.ring.kill(self.ring.peers[node(30 << 121)])
        self.ring.settle()
        self.assert_placed(resources)

    def test_two_neighbors_at_once(self) -> None:
        resources = self.fill(40)
        for number in (30, 40):
            self.ring.kill(self.ring.peers[node(number << 121)])
        self.ring.settle()
        self.assert_placed(resources)

    def test_nothing_to_do(self) -> None:
        """When everybody has everything, looking again costs no message."""
        self.fill(40)
        before = len(self.ring.sent)
        self.ring.settle()
        self.assertEqual(len(self.ring.sent), before)

    def test_new_responsible_peer(self) -> None:
        """Without any hand-over a new peer gets what is its own, and who is too far away forgets it.

        [6940-6.4.2.3-2, 6940-10.7.3-7]
        """
        resources = self.fill(40)
        self.ring.add(35, 36, 55)
        self.ring.settle()
        self.assert_placed(resources)

    def test_not_forgotten_before_it_is_elsewhere(self) -> None:
        """While the responsible peer does not take it, what is not ours any more stays."""
        resources = self.fill(40)
        before = {peer.node_id: everywhere(peer.storage) for peer in self.ring.peers.values()}
        (new,) = self.ring.add(35)
        self.ring.refuses = lambda peer, body: Forbidden() if peer is new else None
        self.ring.settle()
        kept_by = {peer.node_id: set(everywhere(peer.storage)) for peer in self.ring.peers.values()}
        for resource in resources:
            if self.ring.responsible(resource) is new:
                for node_id, had in before.items():
                    if resource in had:
                        self.assertIn(resource, kept_by[node_id])
        self.ring.refuses = lambda peer, body: None
        self.ring.wait(30)
        self.assert_placed(resources)

    def test_stored_while_it_is_compared(self) -> None:
        """What comes in while an older value is on its way to the responsible peer is not forgotten with it."""
        owner = self.holders()[0]
        (far,) = (peer for peer in self.ring.peers.values() if owner.topology.successors[3] == peer.node_id)
        far.storage.apply(ALICES, [Change(SINGLE, 1, {None: kept(signed(single(b"old"), 1))})])
        far.replication.responsibility_changed()
        self.ring.clock.advance(0)
        self.ring.step()
        self.ring.step()
        self.assertIsInstance(self.ring.sent[-1][2], StoreReq)
        self.put(far, ALICES, 2, b"new")
        self.ring.run()
        self.assertEqual(far.values(), {None: b"new"})
        self.ring.wait(30)
        self.assertEqual((owner.values(), far.values()), ({None: b"new"}, {}))

    def test_replica_for_a_second_time(self) -> None:
        """A peer that has left the replica set, and forgotten, gets everything when it is in it again."""
        resources = self.fill(40)
        (passing,) = self.ring.add(35)
        self.ring.settle()
        self.ring.kill(passing)
        self.ring.settle()
        self.assert_placed(resources)

    def test_compared_before_it_is_sent(self) -> None:
        """Who only ceases to be a replica asks what the responsible peer has, and sends nothing of it."""
        resources = self.fill(40)
        self.ring.add(35)
        self.ring.settle()
        before = len(self.ring.sent)
        self.ring.add(36)
        self.ring.settle()
        last = {to for _, to, body in self.ring.stores(before) if isinstance(to, ResourceDestination)}
        asked = [to for _, to, body in self.ring.sent[before:] if isinstance(body, StatReq)]
        self.assertEqual(last, set())
        self.assertTrue(all(isinstance(to, ResourceDestination) for to in asked))
        self.assertLess(len(asked), 3 * len(resources))

    def test_lost_peer_is_not_believed_to_have_anything(self) -> None:
        """A peer that comes back empty within the hold-down is filled again."""
        resources = self.fill(40)
        peer = self.ring.peers[node(30 << 121)]
        had = everywhere(peer.storage)
        for resource in had:
            peer.storage.remove(resource)
        for other in self.ring.peers.values():
            other.replication.peer_lost(peer.node_id)
        self.ring.wait(10)
        self.assertEqual(everywhere(peer.storage), had)
        self.assert_placed(resources)

    def test_audit(self) -> None:
        """A copy that was lost without a sign is back within two hours."""
        resources = self.fill(100)
        for peer in self.ring.peers.values():
            for resource in everywhere(peer.storage)[::3]:
                if not peer.topology.responsible(resource):
                    peer.storage.remove(resource)
        self.ring.settle()
        with self.assertRaises(self.failureException):
            self.assert_placed(resources)
        for _ in range(7200):
            self.ring.clock.advance(1)
            self.ring.run()
        self.assert_placed(resources)

    def test_restart_with_old_values(self) -> None:
        """What a restarted peer has of before is compared: newer values prevail on either side."""
        resources = self.fill(20)
        peer = self.ring.peers[node(30 << 121)]
        self.ring.kill(peer)
        self.ring.settle()
        for resource in resources[:10]:
            self.put(self.ring.responsible(resource), resource, 5, b"meanwhile")
        self.ring.run()
        (again,) = self.ring.add(30)
        again.storage = peer.storage
        again.replication._storage = again.answers._storage = peer.storage
        self.ring.settle()
        self.ring.wait(30)
        self.assert_placed(resources)
        for resource in resources:
            values = {holder.values(resource=resource)[None] for holder in self.holders(resource)}
            self.assertEqual(values, {b"meanwhile" if resource in resources[:10] else b"v"})

    def test_unknown_kind_is_not_offered(self) -> None:
        """Values of a Kind that the configuration has no longer are nobody's business."""
        owner = self.holders()[0]
        held = kept(signed(single(), kind=0x99))
        owner.storage.apply(ALICES, [Change(0x99, 1, {None: held})])
        self.ring.settle()
        self.assertEqual(self.ring.stores(), [])

    def test_stop(self) -> None:
        resources = self.fill(5)
        for peer in self.ring.peers.values():
            peer.replication.responsibility_changed()
            peer.replication.stop()
            peer.replication.responsibility_changed()
        self.put(self.ring.responsible(resources[0]), resources[0], 2)
        self.assertEqual((self.ring.waiting, self.ring.clock.getDelayedCalls()), ([], []))


class AuditTests(ReplicationTestCase):
    """What is held is offered again, for a copy may be lost without a sign."""

    numbers = (1, 2, 3)

    def offers(self, resources: int) -> Counter[tuple[NodeId, Destination, ResourceId]]:
        """Who offered what to whom, and how often, in two and a half hours in which nothing happens.

        In a ring of three everybody holds everything.
        """
        self.fill(resources)
        before = len(self.ring.sent)
        for _ in range(5 * 30 * 60):
            self.ring.clock.advance(1)
            self.ring.run()
        return Counter((sender, to, body.resource) for sender, to, body in self.ring.stores(before))

    def test_few(self) -> None:
        """Also of three resources each takes its turn about once an hour, and not in every interval."""
        offered = self.offers(3)
        self.assertEqual(len(offered), 3 * 2)
        self.assertGreaterEqual(min(offered.values()), 1)
        self.assertLessEqual(max(offered.values()), 4)

    def test_many(self) -> None:
        """The same with more of them than there are intervals in an hour."""
        offered = self.offers(150)
        self.assertEqual(len(offered), 150 * 2)
        self.assertGreaterEqual(min(offered.values()), 2)
        self.assertLessEqual(max(offered.values()), 4)

    def test_nothing(self) -> None:
        """A peer that holds nothing goes on, and takes up what it gets later."""
        self.assertEqual(self.offers(0), {})
        self.assertEqual(len(self.offers(1)), 2)


class HandOverTests(ReplicationTestCase):
    """To a joining peer, or when leaving."""

    numbers = (10, 20, 30, 40, 50)

    def setUp(self) -> None:
        super().setUp()
        self.admitting = self.ring.peers[node(30 << 121)]
        (self.joining,) = self.ring.add(25)
        self.joining.topology.joined = False
        self.joining.topology.admitting = self.admitting.node_id
        self.low, self.high = node(20 << 121), self.joining.node_id

    def fill(self, count: int) -> list[ResourceId]:
        """Resources at the admitting peer, that the joining one will be responsible for."""
        step = distance(self.low, self.high) // (count + 1)
        start = int.from_bytes(self.low)
        resources = [ResourceId((start + step * number).to_bytes(16)) for number in range(1, count + 1)]
        for resource in resources:
            self.put(self.admitting, resource)
        self.ring.run()
        return resources

    def hand_over(self) -> Deferred[None]:
        return self.admitting.replication.hand_over(self.joining.node_id, self.low, self.high)

    def test_everything_in_the_span(self) -> None:
        """Thousands of resources, a few on their way at a time; nothing else."""
        resources = self.fill(1000)
        self.put(self.admitting, ResourceId(node(26 << 121)))
        self.ring.run()
        done = self.hand_over()
        most = rounds = 0
        while self.ring.waiting:
            most = max(most, len(self.ring.waiting))
            rounds += 1
            self.ring.step()
        self.successResultOf(done)
        self.assertEqual(everywhere(self.joining.storage), resources)
        self.assertEqual(self.joining.storage.generation(resources[0], SINGLE), 1)
        self.assertEqual(most, 16)
        self.assertEqual(set(resources) - set(everywhere(self.admitting.storage)), set())

    def test_joined(self) -> None:
        """What was handed over is neither compared nor sent again when the joining peer becomes responsible."""
        resources = self.fill(50)
        done = self.hand_over()
        self.ring.run()
        self.successResultOf(done)
        before = len(self.ring.sent)
        self.joining.topology.joined = True
        self.ring.meet()
        self.admitting.replication.responsibility_changed()
        self.ring.run()
        self.assertEqual(len(self.ring.sent), before)
        self.ring.settle()
        self.assert_placed(resources)

    def test_stored_meanwhile(self) -> None:
        """A value that comes during the hand-over, or after it and before the Update, goes there too."""
        resources = self.fill(100)
        done = self.hand_over()
        self.put(self.admitting, resources[0], 5, b"during")
        self.ring.run()
        self.successResultOf(done)
        self.put(self.admitting, resources[1], 5, b"after")
        self.ring.run()
        found = [self.joining.values(resource=resource)[None] for resource in resources[:3]]
        self.assertEqual(found, [b"during", b"after", b"v"])

    def test_nothing_to_hand_over(self) -> None:
        self.successResultOf(self.hand_over())

    def test_unreachable(self) -> None:
        """It fails at once, and the data are where they were."""
        resources = self.fill(1000)
        self.joining.alive = False
        before = len(self.ring.sent)
        done = self.hand_over()
        self.ring.step()
        self.failureResultOf(done, RequestTimeout)
        self.assertLessEqual(len(self.ring.sent) - before, 16)
        self.assertLessEqual(set(resources), set(everywhere(self.admitting.storage)))
        self.ring.run()
        before = len(self.ring.sent)
        self.put(self.admitting, resources[0], 5)
        self.ring.run()
        receivers = [to for _, to, _ in self.ring.sent[before:]]
        self.assertNotIn(NodeDestination(node_id=self.joining.node_id), receivers)

    def test_refused(self) -> None:
        """A resource that is refused does not keep the others, and is offered again to the responsible peer."""
        resources = self.fill(50)
        bad = resources[7]
        self.ring.refuses = lambda peer, body: (
            Forbidden() if peer is self.joining and isinstance(body, StoreReq) and body.resource == bad else None
        )
        done = self.hand_over()
        self.ring.run()
        self.successResultOf(done)
        self.assertEqual(set(everywhere(self.joining.storage)), set(resources) - {bad})
        self.ring.refuses = lambda peer, body: None
        self.joining.topology.joined = True
        self.ring.settle()
        self.ring.wait(30)
        self.assert_placed(resources)

    def test_returning_with_newer_values(self) -> None:
        """A peer that comes back with newer values keeps them, and the admitting peer takes them."""
        resources = self.fill(10)
        held = kept(signed(single(b"newer"), 9, resource=resources[0]))
        self.joining.storage.apply(resources[0], [Change(SINGLE, 3, {None: held})])
        done = self.hand_over()
        self.ring.run()
        self.successResultOf(done)
        for peer in (self.joining, self.admitting):
            self.assertEqual(peer.values(resource=resources[0]), {None: b"newer"})

    def test_leaving(self) -> None:
        """To the next peer, which then has everything and makes new copies."""
        resources = self.fill(50)
        self.ring.kill(self.joining)
        successor = self.ring.peers[node(40 << 121)]
        done = self.admitting.replication.hand_over(successor.node_id, self.low, self.admitting.node_id)
        self.ring.run()
        self.successResultOf(done)
        self.assertLessEqual(set(resources), set(everywhere(successor.storage)))
        self.ring.kill(self.admitting)
        self.ring.settle()
        self.assert_placed(resources)


class ChurnTests(ReplicationTestCase):
    numbers = (10, 20, 30, 40, 50, 60, 70, 80)

    def test_nothing_is_lost(self) -> None:
        """Peers come and die one after another, and values change: every newest value is where it belongs."""
        for seed in range(6):
            self.setUp()
            self.churn(Random(seed))

    def churn(self, random: Random) -> None:
        resources = self.fill(60)
        newest = dict.fromkeys(resources, 1)
        unused = [number for number in range(1, 128) if number not in self.numbers]
        random.shuffle(unused)
        for turn in range(2, 14):
            alive = [peer for peer in self.ring.peers.values() if peer.alive]
            if len(alive) > 4 and random.random() < 0.5:
                self.ring.kill(random.choice(alive))
            else:
                self.ring.add(unused.pop())
            self.ring.meet()
            for peer in self.ring.peers.values():
                if peer.alive:
                    peer.replication.responsibility_changed()
            # Values come while those that were there are still on their way.
            for resource in random.sample(resources, 10):
                for _ in range(random.randrange(3)):
                    self.ring.clock.advance(0)
                    self.ring.step()
                owner = self.ring.responsible(resource)
                newest[resource] = turn
                held = owner.storage.held(resource, SINGLE).get(None)
                # An owner that is new may not have the value yet; the next one comes all the same.
                self.assertTrue(held is None or held.data.storage_time < turn)
                self.put(owner, resource, turn, b"%d" % turn)
            self.ring.run()
            self.ring.wait(30)
            self.assert_placed(resources)
            for resource, time in newest.items():
                for peer in self.holders(resource):
                    held = peer.storage.held(resource, SINGLE)[None]
                    self.assertEqual(held.data.storage_time, time)
