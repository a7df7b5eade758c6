"""
How many Stores and Fetches an overlay of 16 nodes does on one core: ``python benchmarks/overlay.py [--nodes N]``.

All the nodes are in one process that is pinned to one core, each on an address of its own, and joined by the join
protocol.  Every value is kept three times, every message and every value signed and verified, over TLS; then the same
without signatures and TLS; then, where the package `kademlia` is installed, the same load on an overlay of that.  Each
of the three is a process of its own, one after the other.  Prints JSON; `benchmarks/README.rst` says what the figures
mean.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any, Protocol, cast

from limits import signature_rates
from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from p2psip.config.accept import accept_first, publish, trust_of
from p2psip.config.defaults import default_configuration
from p2psip.config.document import Configuration
from p2psip.config.kinds import Kind
from p2psip.config.write import write_document
from p2psip.errors import LinkError, NotJoined, RELOADError
from p2psip.ids import NodeId
from p2psip.interfaces import ISigner, IVerifier
from p2psip.links.memory import MemoryLinkFactory, MemoryNetwork
from p2psip.node import Node, installed
from p2psip.node.plugins import Plugins
from p2psip.security.certificates import PrivateKey, generate_key, make_authority
from p2psip.security.identity import Identity, SignedBy
from p2psip.security.signing import Signer, Verifier
from p2psip.service import COLLECT_AFTER
from p2psip.simulator.identities import Identities
from p2psip.storage.interfaces import IStorage, StorageError
from p2psip.storage.sqlite import GATHER_SECONDS, SQLiteStorage
from p2psip.storage.store import MemoryStorage
from p2psip.wire.codes import DataModel
from p2psip.wire.security import Signature
from p2psip.wire.storage import DataValue

OVERLAY = "benchmark.invalid"
KIND = Kind(
    kind_id=0xF0000001, name="", data_model=DataModel.SINGLE, access_control="USER-MATCH", max_count=1, max_size=500
)
PORT = 6084
VALUE_BYTES = 400
COPIES = 3
USERS = 256
TARGET_NODES, TARGETS = 16, {"store": 450, "fetch": 1000}
"""What is wanted of so many nodes on one core, a second: Stores with all their copies, and verified Fetches."""
SIGNATURES = {"store": (7, 9), "fetch": (2, 3)}
"""Signatures and verifications of all nodes together; see README.rst."""

MOST_SECONDS = 60.0
"""For one measurement, where --operations says how many."""
JOIN_WITHIN = 60.0
COPIED_WITHIN = 40.0

WHAT = {
    "signatures_and_tls": "P-256 signatures and verifications of all messages and values, certificates, TLS links over"
    " loopback; access control; a Store is answered by the responsible peer, and both copies are acknowledged with"
    " signed answers",
    "without": "The same nodes and messages without signatures and TLS: links in memory, and a keyed hash instead of"
    " each signature",
    "kademlia": "Much less is promised: UDP without TLS, no signatures, no certificates, no proof who a peer or a"
    " writer is, no access control (whoever knows a key overwrites its value), a set() succeeds as soon as one copy was"
    " acknowledged, lost datagrams are not sent again, and a get() asks nobody where the server has a copy itself",
}


def note(text: str) -> None:
    """Tell the person who waits."""
    print(text, file=sys.stderr, flush=True)


def places(number: int) -> list[tuple[str, int]]:
    """An address and port for each of `number` nodes."""
    if sys.platform == "linux":  # where all of 127.0.0.0/8 is this machine
        chance = Random()
        net = f"127.{chance.randrange(1, 255)}.{chance.randrange(256)}"
        return [(f"{net}.{n + 1}", PORT) for n in range(number)]
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [each.getsockname() for each in sockets]
    for each in sockets:
        each.close()
    return found


# -- What is measured ---------------------------------------------------------------------------------------


class WrongValue(Exception):
    """A Fetch came to something other than what was stored last."""


class NotStored(Exception):
    """No server of `kademlia` took a value."""


FAILURES = (RELOADError, LinkError, NotJoined, StorageError, WrongValue, NotStored)


class Load(Protocol):
    """An overlay at work, of whatever kind."""

    async def store(self) -> None:
        """Store the next value of the next user, at the user's node."""

    async def fetch(self) -> None:
        """Fetch the value of some user at some node."""

    async def copied(self) -> None:
        """Wait until nothing that was stored is on its way to other nodes any more."""

    def counters(self) -> Counter[str]:
        """What all nodes have done so far."""

    def together(self, work: Sequence[Coroutine[Any, Any, None]]) -> Awaitable[Any]:
        """Do all of `work` at the same time."""


@dataclass(frozen=True)
class Limit:
    """When a measurement ends."""

    seconds: float
    operations: int | None

    def turns(self) -> Iterator[None]:
        """As many as there are until then, for all who take from it together."""
        end = time.perf_counter() + self.seconds
        for number in count():
            if number == self.operations or time.perf_counter() > end:
                return
            yield


@dataclass
class Measured:
    """What came of one measurement."""

    latencies: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    answered: float = 0.0
    """Seconds until the last answer."""
    copied: float = 0.0
    """Seconds until the last copy was made; 0 of Fetches."""
    cpu: float = 0.0
    counters: Counter[str] = field(default_factory=Counter)

    def figures(self) -> dict[str, Any]:
        """For the JSON."""
        done = len(self.latencies)
        if not done:
            raise RuntimeError(f"nothing succeeded: {dict(self.failures)}")
        ordered = sorted(self.latencies)
        return {
            "per_second": round(done / (self.copied or self.answered), 1),
            **({"answered_per_second": round(done / self.answered, 1)} if self.copied else {}),
            "cpu_us": round(self.cpu / done * 1e6, 1),
            "per_second_of_cpu_time": round(done / self.cpu, 1),
            "latency_ms": {
                "mean": round(sum(ordered) / done * 1000, 2),
                "p50": round(ordered[math.ceil(0.5 * done) - 1] * 1000, 2),
                "p99": round(ordered[math.ceil(0.99 * done) - 1] * 1000, 2),
            },
            "count": done,
            "failed": dict(self.failures),
            **{f"{name}_of_each": round(number / done, 2) for name, number in self.counters.items()},
        }


async def measure(load: Load, name: str, window: int, limit: Limit) -> Measured:
    """Keep `window` operations under way until `limit` is reached, and wait for the copies."""
    operation = {"store": load.store, "fetch": load.fetch}[name]
    found, turns = Measured(), limit.turns()

    async def one_after_another() -> None:
        for _ in turns:
            began = time.perf_counter()
            try:
                await operation()
            except FAILURES as error:
                found.failures[type(error).__name__] += 1
            else:
                found.latencies.append(time.perf_counter() - began)

    before, cpu, began = load.counters(), time.process_time(), time.perf_counter()
    await load.together([one_after_another() for _ in range(window)])
    found.answered = time.perf_counter() - began
    if name == "store":
        await load.copied()
        found.copied = time.perf_counter() - began
    found.cpu = time.process_time() - cpu
    found.counters = load.counters()
    found.counters.subtract(before)
    return found


async def measure_all(load: Load, title: str, options: argparse.Namespace) -> dict[str, Any]:
    """Each operation with each number of them under way."""
    seconds = options.seconds if options.operations is None else MOST_SECONDS
    limit = Limit(seconds, options.operations)
    result: dict[str, Any] = {}
    for name in ("store", "fetch"):
        result[name] = {}
        for window in options.windows:
            found = (await measure(load, name, window, limit)).figures()
            result[name][str(window)] = found
            if not options.json:
                note(
                    f"{title}: {name}, {window} at once: {found['per_second']} a second,"
                    f" {found['per_second_of_cpu_time']} a second of CPU time, mean {found['latency_ms']['mean']} ms"
                )
    return result


class Values:
    """The values that are stored: each another one, and known again."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._last = [0] * USERS

    async def store(self, operation: Callable[[int, bytes], Awaitable[Any]]) -> None:
        """Do `operation` with the next user and value."""
        number = next(self._numbers)
        user = number % USERS
        self._last[user] = 0  # where it fails nobody knows which one is there
        await operation(user, self._bytes(number))
        self._last[user] = number

    def check(self, user: int, values: Sequence[bytes | None]) -> None:
        """See that `values` is the last one of `user`, and no other."""
        if self._last[user] and values != [self._bytes(self._last[user])]:
            raise WrongValue

    def current(self, user: int) -> bytes | None:
        """The last one of `user`, where that is known."""
        return self._bytes(self._last[user]) if self._last[user] else None

    def _bytes(self, number: int) -> bytes:
        return number.to_bytes(8) + bytes(VALUE_BYTES - 8)


def drawn(random: Random, nodes: int) -> list[int]:
    """At which node each user is: as many at each, in an order left to chance."""
    at = [user % nodes for user in range(USERS)]
    random.shuffle(at)
    return at


# -- Who signs, and over which links ------------------------------------------------------------------------


@implementer(ISigner)
class CountedSigner:
    """Counts the signatures that another signer makes."""

    def __init__(self, signer: ISigner, counters: Counter[str]) -> None:
        self.identity: Identity = signer.identity
        self.node_id: NodeId = signer.node_id
        self._sign = signer.sign
        self._counters = counters

    def sign(self, data: bytes) -> Signature:
        self._counters["signatures"] += 1
        return self._sign(data)


@implementer(IVerifier)
class CountedVerifier:
    """Counts the signatures that another verifier verifies."""

    def __init__(self, verifier: IVerifier, counters: Counter[str]) -> None:
        self._verify = verifier.verify
        self._counters = counters

    def verify(self, signature: Signature, data: bytes, certificates: Sequence[bytes]) -> SignedBy:
        self._counters["verifications"] += 1
        return self._verify(signature, data, certificates)


class Security(Protocol):
    """What the nodes of one configuration are made with."""

    configuration: Configuration
    plugins: Plugins

    def peer(self, number: int) -> tuple[ISigner, PrivateKey]:
        """The identity and key of a node."""

    def user(self, name: str, peer: int) -> ISigner:
        """Who signs for a user at a node."""

    def verifier(self) -> IVerifier:
        """A node's verifier, after all identities were made."""


def unpublished(first: tuple[str, int], roots: Sequence[bytes], signer: NodeId) -> Configuration:
    """The configuration document of this benchmark, whose signature is still to be made."""
    made = default_configuration(
        OVERLAY,
        root_certificates=roots,
        configuration_signer=signer,
        kind_signer=signer,
        now=time.time(),
        bootstrap_nodes=[first],
        no_ice=True,
    )
    return replace(made, kinds=MappingProxyType({KIND.kind_id: KIND}))


class Signed:
    """Certificates, P-256 signatures, and TLS."""

    def __init__(self, first: tuple[str, int]) -> None:
        self._authority = make_authority(OVERLAY, generate_key(), time.time(), 10 * 86400.0)
        self._keys: dict[int, tuple[NodeId, PrivateKey]] = {}
        self._certificates: list[bytes] = []
        key = generate_key()
        signer = self._signer(f"configuration@{OVERLAY}", NodeId(os.urandom(16)), key, "peer")
        made = unpublished(first, [self._authority.certificate], signer.node_id)
        self.configuration = accept_first(write_document(publish(made, signer, signer)), OVERLAY, time.time())
        self.plugins = replace(installed(), usages=())

    def _signer(self, name: str, node_id: NodeId, key: PrivateKey, role: str) -> Signer:
        certificate = self._authority.issue(
            key.public_key(),
            overlay=OVERLAY,
            user_name=name,
            node_ids=[node_id],
            role=role,
            now=time.time(),
            lifetime=86400.0,
        )
        self._certificates.append(certificate)
        return Signer(Identity.from_certificate(certificate, OVERLAY), key)

    def peer(self, number: int) -> tuple[ISigner, PrivateKey]:
        node_id, key = self._keys[number] = NodeId(os.urandom(16)), generate_key()
        return self._signer(f"node{number}@{OVERLAY}", node_id, key, "peer"), key

    def user(self, name: str, peer: int) -> ISigner:
        return self._signer(name, *self._keys[peer], "user")

    def verifier(self) -> IVerifier:
        trust = trust_of(self.configuration, time.time)
        for certificate in self._certificates:  # as if each had been seen once
            trust.identify(certificate)
        return Verifier(trust)


class Unsigned:
    """A keyed hash in place of signatures, and links in memory without latency."""

    def __init__(self, first: tuple[str, int], reactor: Any) -> None:
        network = MemoryNetwork(reactor, Random(), lambda here, there: 0.0)
        self._identities = Identities(Random())
        self._node_ids: dict[int, NodeId] = {}
        self.configuration = unpublished(first, (), NodeId(bytes(15) + b"\1"))
        self.plugins = replace(installed(), links=(MemoryLinkFactory(network),), usages=())

    def peer(self, number: int) -> tuple[ISigner, PrivateKey]:
        signer = self._identities.make(f"node{number}@{OVERLAY}")
        self._node_ids[number] = signer.node_id
        return signer, cast(PrivateKey, None)

    def user(self, name: str, peer: int) -> ISigner:
        return self._identities.make(name, self._node_ids[peer], "user")

    def verifier(self) -> IVerifier:
        return self._identities


# -- The overlay --------------------------------------------------------------------------------------------


class Overlay:
    """The nodes, their users, and the load on them: a `Load`."""

    def __init__(self, reactor: Any, security: Security, where: list[tuple[str, int]], directory: str | None) -> None:
        self._reactor = reactor
        self._counters: Counter[str] = Counter()
        self._random = Random()
        self._joined: dict[int, Deferred[None]] = {}
        peers = [security.peer(number) for number in range(len(where))]
        self._at = drawn(self._random, len(where))
        self._signers = [
            CountedSigner(security.user(f"user{user}@{OVERLAY}", number), self._counters)
            for user, number in enumerate(self._at)
        ]
        self._names = [signer.identity.user_name.encode() for signer in self._signers]
        self._values = Values()
        self._storages = [self._storage(directory, number) for number in range(len(where))]
        self._nodes = [self._node(security, number, *peers[number], where[number]) for number in range(len(where))]
        self._resources = [self._nodes[0].topology.resource_id(name) for name in self._names]

    def _storage(self, directory: str | None, number: int) -> IStorage:
        if directory is None:
            return MemoryStorage()
        reactor = self._reactor
        return SQLiteStorage(
            str(Path(directory, f"{number}.sqlite")),
            lambda function, *arguments: deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments),
            time.time(),
            run_soon=lambda write: reactor.callLater(GATHER_SECONDS, write),
        )

    def _node(self, security: Security, number: int, signer: ISigner, key: PrivateKey, place: tuple[str, int]) -> Node:
        joined: Deferred[None] = Deferred()
        self._joined[number] = joined
        return Node(
            security.configuration,
            CountedSigner(signer, self._counters),
            key,
            self._storages[number],
            security.plugins,
            clock=self._reactor,
            now=time.time,
            random=Random(),
            addresses=[place[0]],
            port=place[1],
            joined=lambda: None if joined.called else joined.callback(None),
            verifier=CountedVerifier(security.verifier(), self._counters),
        )

    async def join(self) -> None:
        """Found the overlay, join it with one node after the other, and wait until their tables are right."""
        for number, node in enumerate(self._nodes):
            await node.start(found=number == 0)
            await self._joined[number].addTimeout(JOIN_WITHIN, self._reactor)
        await self._until(self._settled, JOIN_WITHIN, "the ring did not settle")

    def _settled(self) -> bool:
        ring = sorted(node.node_id.hex() for node in self._nodes)
        wanted = min(3, len(ring) - 1)
        for node in self._nodes:
            place, neighbors = ring.index(node.node_id.hex()), node.status()["neighbors"]
            after = [ring[(place + step) % len(ring)] for step in range(1, wanted + 1)]
            before = [ring[(place - step) % len(ring)] for step in range(1, wanted + 1)]
            if neighbors["successors"][:wanted] != after or neighbors["predecessors"][:wanted] != before:
                return False
        return True

    async def _until(self, condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
        end = time.perf_counter() + seconds
        while not condition():
            if time.perf_counter() > end:
                raise TimeoutError(otherwise)
            await deferLater(self._reactor, 0.002)

    async def first_values(self) -> None:
        """Store one value of each user."""
        for _ in range(USERS):
            await self.store()
        await self.copied()

    async def store(self) -> None:
        await self._values.store(self._store)

    def _store(self, user: int, value: bytes) -> Deferred[Any]:
        overlay, signer = self._nodes[self._at[user]].overlay, self._signers[user]
        return overlay.store(self._names[user], KIND.kind_id, [DataValue(value=value)], 3600, signer=signer)

    async def fetch(self) -> None:
        user, node = self._random.randrange(USERS), self._random.choice(self._nodes)
        found = await node.overlay.fetch(self._names[user], KIND.kind_id)
        self._values.check(user, [cast(DataValue, each.data.value).value for each in found])

    async def copied(self) -> None:
        """Wait until three nodes have each value."""
        await self._until(
            lambda: not any(node.replication.backlog for node in self._nodes) and self.fewest_copies() >= COPIES,
            COPIED_WITHIN,
            "not all values came to three nodes",
        )

    def fewest_copies(self) -> int:
        """At how many nodes each user's last value is at least."""
        known = [user for user in range(USERS) if self._values.current(user) is not None]
        return min((self._copies(user) for user in known), default=0)

    def _copies(self, user: int) -> int:
        held = [storage.held(self._resources[user], KIND.kind_id).get(None) for storage in self._storages]
        current = self._values.current(user)
        return sum(one is not None and cast(DataValue, one.data.value).value == current for one in held)

    def counters(self) -> Counter[str]:
        found = Counter(self._counters)
        for node in self._nodes:
            found["messages_delivered"] += node.messaging.delivered
            found["messages_forwarded"] += node.messaging.forwarded
        return found

    def together(self, work: Sequence[Coroutine[Any, Any, None]]) -> Awaitable[Any]:
        return gatherResults([Deferred.fromCoroutine(one) for one in work])

    def rejected(self) -> Counter[str]:
        """What all nodes have refused, by cause."""
        return sum((Counter(node.rejected()) for node in self._nodes), Counter())

    async def stop(self) -> None:
        """End all nodes."""
        await gatherResults([node.stop() for node in self._nodes])
        for storage in self._storages:
            if isinstance(storage, SQLiteStorage):
                await storage.close()


async def run_overlay(reactor: Any, options: argparse.Namespace) -> dict[str, Any]:
    """One of the two configurations, from the first node to the last."""
    where = places(options.nodes)
    security: Security = Unsigned(where[0], reactor) if options.run == "without" else Signed(where[0])
    overlay = Overlay(reactor, security, where, options.directory if options.storage == "sqlite" else None)
    began = time.perf_counter()
    await overlay.join()
    joined = round(time.perf_counter() - began, 2)
    if not options.json:
        note(f"{options.run}: {options.nodes} nodes joined within {joined} s")
    await overlay.first_values()
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)  # as `twistd p2psip` does
    result = await measure_all(overlay, options.run, options)
    result.update(join_seconds=joined, fewest_copies=overlay.fewest_copies(), rejected=overlay.rejected())
    await overlay.stop()
    return result


def fail(failure: Any) -> None:
    """End the process with the failure shown."""
    print(failure.getTraceback(), file=sys.stderr, flush=True)
    os._exit(1)


def reactor_process(options: argparse.Namespace) -> None:
    """Be the process of one configuration."""
    asyncioreactor.install()  # as `twistd p2psip` does
    from twisted.internet import reactor

    results: list[dict[str, Any]] = []

    def begin() -> None:
        running = Deferred.fromCoroutine(run_overlay(reactor, options))
        running.addCallback(results.append).addErrback(fail)
        running.addCallback(lambda _: reactor.stop())  # type: ignore[attr-defined]

    reactor.callWhenRunning(begin)  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]
    print(json.dumps(results[0]))


# -- The same load on the package kademlia ------------------------------------------------------------------


class KademliaOverlay:
    """As many servers of `kademlia`, and the load on them: a `Load`."""

    def __init__(self, nodes: int) -> None:
        from kademlia.network import Server

        self._servers = [Server(ksize=COPIES) for _ in range(nodes)]
        self._random = Random()
        self._at = drawn(self._random, nodes)
        self._keys = [f"user{user}@{OVERLAY}" for user in range(USERS)]
        self._values = Values()

    async def join(self, where: list[tuple[str, int]]) -> None:
        """Start the servers, each of which knows the first one."""
        for server, (address, port) in zip(self._servers, where, strict=True):
            await server.listen(port, address)
            if server is not self._servers[0]:
                await server.bootstrap(where[:1])
        for server in self._servers:  # so that those who came first know those who came last
            await server.bootstrap(where)

    async def first_values(self) -> None:
        """Store one value of each user."""
        for _ in range(USERS):
            await self.store()

    async def store(self) -> None:
        await self._values.store(self._store)

    async def _store(self, user: int, value: bytes) -> None:
        if not await self._servers[self._at[user]].set(self._keys[user], value):
            raise NotStored

    async def fetch(self) -> None:
        user, server = self._random.randrange(USERS), self._random.choice(self._servers)
        self._values.check(user, [await server.get(self._keys[user])])

    async def copied(self) -> None:
        """A set() that has ended has heard of all its copies, or given them up."""

    def copies(self) -> dict[str, float]:
        """At how many servers the users' last values are."""
        from kademlia.utils import digest

        found = [
            sum(server.storage.get(digest(key)) == self._values.current(user) for server in self._servers)
            for user, key in enumerate(self._keys)
            if self._values.current(user) is not None
        ]
        return {"fewest_copies": min(found), "mean_copies": round(sum(found) / len(found), 2)}

    def counters(self) -> Counter[str]:
        return Counter()

    def together(self, work: Sequence[Coroutine[Any, Any, None]]) -> Awaitable[Any]:
        return asyncio.gather(*work)

    def stop(self) -> None:
        """End all servers."""
        for server in self._servers:
            server.stop()


async def run_kademlia(options: argparse.Namespace) -> dict[str, Any]:
    """The whole of it."""
    logging.disable(logging.CRITICAL)  # what fails is counted here
    overlay = KademliaOverlay(options.nodes)
    began = time.perf_counter()
    await overlay.join(places(options.nodes))
    joined = round(time.perf_counter() - began, 2)
    if not options.json:
        note(f"{options.run}: {options.nodes} servers joined within {joined} s")
    await overlay.first_values()
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)
    result = await measure_all(overlay, options.run, options)
    result.update(join_seconds=joined, **overlay.copies())
    overlay.stop()
    return result


# -- All of it ----------------------------------------------------------------------------------------------


def pin() -> bool:
    """Let this process, and those that it starts, run on one core only, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return True


def child(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the process of one configuration finds."""
    with tempfile.TemporaryDirectory(prefix="p2psip-benchmark-") as directory:
        command = [sys.executable, __file__, "--run", name, "--directory", directory, *options.given]
        each = MOST_SECONDS if options.operations is not None else options.seconds
        bound = 4 * JOIN_WITHIN + 2 * len(options.windows) * (each + COPIED_WITHIN)
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=bound)
    if ended.returncode:
        sys.exit(f"{name}: ended with status {ended.returncode}")
    return {"what": WHAT[name], **json.loads(ended.stdout)}


def compare(found: dict[str, Any], allowed: dict[str, float]) -> None:
    """Add to each row what part it is of what the signatures allow."""
    for name, row in chain.from_iterable([(n, row) for row in found[n].values()] for n in allowed):
        row["of_signatures"] = round(row["per_second"] / allowed[name], 2)
        row["of_signatures_by_cpu_time"] = round(row["per_second_of_cpu_time"] / allowed[name], 2)


def targets(found: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """What is wanted, and what was measured with most operations under way."""
    result: dict[str, Any] = {}
    for name, wanted in TARGETS.items():
        row = found[name][str(max(options.windows))]
        result[name] = {
            "per_second": wanted,
            "measured": row["per_second"],
            "measured_of_cpu_time": row["per_second_of_cpu_time"],
        }
        if not options.json:
            note(
                f"{name}: {row['per_second']} a second, {row['per_second_of_cpu_time']} a second of CPU time;"
                f" wanted of {TARGET_NODES} nodes on one core: {wanted}"
            )
    return result


def everything(options: argparse.Namespace) -> dict[str, Any]:
    """The three configurations beside what the signatures allow."""
    pinned = pin()
    rates = signature_rates(1.0)
    allowed = {
        name: round(1 / (made / rates["sign"] + verified / rates["verify"]), 1)
        for name, (made, verified) in SIGNATURES.items()
    }
    result: dict[str, Any] = {
        "python": sys.version.split()[0],
        "pinned_to_one_core": pinned,
        "nodes": options.nodes,
        "storage": options.storage,
        "value_bytes": VALUE_BYTES,
        "copies": COPIES,
        "limits": {"signatures_per_second": rates, "signatures_allow": allowed},
    }
    found = result["signatures_and_tls"] = child("signatures_and_tls", options)
    compare(found, allowed)
    result["without"] = child("without", options)
    if importlib.util.find_spec("kademlia") is None:
        result["kademlia"] = "not installed: pip install kademlia"
        note("kademlia is not installed and is left out: pip install kademlia")
    else:
        result["kademlia"] = child("kademlia", options)
    if options.nodes == TARGET_NODES:
        result["targets"] = targets(found, options)
    return result


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=16, help="nodes of the overlay, 3 to 64 (default 16)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=3.0, help="for each measurement (default 3)")
    length.add_argument("--operations", type=int, help="of each measurement, which then takes at most 60 s")
    parser.add_argument(
        "--windows", type=int, nargs="+", default=[1, 32], help="how many are under way at a time (default 1 and 32)"
    )
    parser.add_argument("--storage", choices=("memory", "sqlite"), default="memory", help="of p2psip's nodes")
    parser.add_argument("--json", action="store_true", help="the JSON alone, without progress on standard error")
    parser.add_argument("--run", choices=tuple(WHAT), help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    options = parser.parse_args(namespace=argparse.Namespace(given=sys.argv[1:]))
    if not COPIES <= options.nodes <= 64:
        parser.error("--nodes: from 3 to 64")
    if not 0 < options.seconds <= MOST_SECONDS or (options.operations is not None and options.operations < 1):
        parser.error(f"--seconds: up to {MOST_SECONDS:.0f}; --operations: at least 1")
    if not all(1 <= window <= USERS // 2 for window in options.windows):
        parser.error(f"--windows: from 1 to {USERS // 2}, so that no two Stores of one user are under way")
    return options


def main() -> None:
    """One configuration where this is its process, else all of them."""
    options = arguments()
    if options.run == "kademlia":
        print(json.dumps(asyncio.run(run_kademlia(options))))
    elif options.run:
        reactor_process(options)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started ends, too
        print(json.dumps(everything(options), indent=2))


if __name__ == "__main__":
    main()
