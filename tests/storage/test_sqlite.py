"""The working set with a file behind it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from p2psip.ids import ResourceId
from p2psip.storage.interfaces import Change, Held, IStorage, Key, Quotas, StorageError
from p2psip.storage.sqlite import SQLiteStorage

from .test_store import at, put
from .world import (
    ALICE,
    ALICES,
    ARRAY,
    BOB,
    DICTIONARY,
    NOW,
    SINGLE,
    entry,
    item,
    kept,
    node,
    signed,
    single,
)

Contents = dict[tuple[ResourceId, int, Key], Held]


def at_once(function: Callable[..., None], *args: Any) -> Deferred[None]:
    """Stands for a thread that is never late."""
    return maybeDeferred(function, *args)


class LateThread:
    """Stands for a thread: does what it was given when it is told to."""

    def __init__(self) -> None:
        self.work: list[tuple[Deferred[None], Callable[..., None], tuple[Any, ...]]] = []

    def __call__(self, function: Callable[..., None], *args: Any) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self.work.append((done, function, args))
        return done

    def run(self) -> None:
        done, function, args = self.work.pop(0)
        maybeDeferred(function, *args).chainDeferred(done)

    def fail(self, error: Exception) -> None:
        self.work.pop(0)[0].errback(error)


@contextmanager
def edited(path: str) -> Iterator[sqlite3.Connection]:
    """The file at `path`, changed behind the storage's back."""
    with closing(sqlite3.connect(path)) as database, database:
        yield database


def contents(storage: SQLiteStorage) -> Contents:
    return {
        (resource, kind, key): held
        for resource in storage.between(node(0), node(0))
        for kind in storage.kinds(resource)
        for key, held in storage.held(resource, kind).items()
    }


class SQLiteStorageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()

    def open(self, run_in_thread: Any = at_once, now: float = NOW) -> SQLiteStorage:
        storage = SQLiteStorage(self.path, run_in_thread, now)
        self.addCleanup(lambda: storage._database.close())
        return storage

    def reopened(self, storage: SQLiteStorage, now: float = NOW) -> SQLiteStorage:
        self.assertIsNone(self.successResultOf(storage.close()))
        return self.open(now=now)

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IStorage, self.open()))

    def test_comes_back(self) -> None:
        """Values of every model, tombstones, generations, lifetimes and certificates are there after a restart."""
        storage = self.open()
        huge = 2**64 - 1
        storage.apply(
            ALICES,
            [
                Change(SINGLE, huge, {None: kept(signed(single(b"", exists=False), huge))}),
                Change(ARRAY, 2, {i: kept(signed(entry(i), kind=ARRAY)) for i in (0, 2**32 - 2)}),
                Change(DICTIONARY, 3, {b"": kept(signed(item(b""), kind=DICTIONARY, signer=BOB), BOB)}),
            ],
        )
        before, totals = contents(storage), (storage.resources, storage.values, storage.size)
        again = self.reopened(storage)
        self.assertEqual(contents(again), before)
        self.assertEqual((again.resources, again.values, again.size), totals)
        self.assertEqual([again.generation(ALICES, kind) for kind in (SINGLE, ARRAY, DICTIONARY)], [huge, 2, 3])
        self.assertEqual(again.held(ALICES, DICTIONARY)[b""].certificate, BOB.identity.certificate)

    def test_what_went_stays_gone(self) -> None:
        storage = self.open()
        put(storage, kept(signed(single(), lifetime=5)), resource=at(1))
        put(storage, kept(signed(single(), lifetime=50)), resource=at(2))
        put(storage, kept(signed(single())), resource=at(3))
        storage.remove(at(3))
        storage.expire(NOW + 5)
        again = self.reopened(storage, NOW + 5)
        self.assertEqual(list(again.between(node(0), node(0))), [at(2)])
        later = self.reopened(again, NOW + 50)
        self.assertEqual((later.values, later.size), (0, 0))

    def test_certificates_go_with_the_last_value(self) -> None:
        storage = self.open()
        put(storage, kept(signed(single(), 1)))
        put(storage, kept(signed(single(), 1, signer=BOB), BOB), resource=at(1))
        self.successResultOf(storage.durable())
        put(storage, kept(signed(single(), 2)), resource=at(1))
        self.successResultOf(storage.close())
        with edited(self.path) as database:
            ders = [der for (der,) in database.execute("SELECT der FROM certificate")]
        self.assertEqual(ders, [ALICE.identity.certificate])

    def test_one_transaction_for_many(self) -> None:
        """While one transaction is under way the next gathers; each durable() waits for its own."""
        thread = LateThread()
        storage = self.open(thread)
        put(storage, kept(signed(single())), resource=at(1))
        first = storage.durable()
        waiting = []
        for number in range(2, 20):
            put(storage, kept(signed(single())), resource=at(number))
            waiting.append(storage.durable())
        self.assertEqual(len(thread.work), 1)
        thread.run()
        self.successResultOf(first)
        self.assertNoResult(waiting[0])
        thread.run()
        for each in waiting:
            self.successResultOf(each)
        self.assertEqual(thread.work, [])
        self.successResultOf(storage.durable())

    def test_gathers_before_it_writes(self) -> None:
        """What is stored until the transaction begins shares it, the first Store of an idle node included."""
        soon: list[Callable[[], None]] = []
        thread = LateThread()
        storage = SQLiteStorage(self.mktemp(), thread, NOW, run_soon=soon.append)
        self.addCleanup(storage.close)
        waiting = []
        for number in 1, 2:
            put(storage, kept(signed(single())), resource=at(number))
            waiting.append(storage.durable())
        self.assertEqual((len(soon), len(thread.work)), (1, 0))
        soon.pop()()
        thread.run()
        for durable in waiting:
            self.successResultOf(durable)
        self.assertEqual((soon, thread.work), ([], []))

    def test_waits_for_what_is_under_way(self) -> None:
        thread = LateThread()
        storage = self.open(thread)
        put(storage, kept(signed(single())))
        first, second = storage.durable(), storage.durable()
        self.assertNoResult(second)
        thread.run()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_failure_is_undone(self) -> None:
        """What could not be written was never stored: not the failed changes, nor those built upon them."""
        thread = LateThread()
        storage = self.open(thread)
        put(storage, kept(signed(single(b"old"), 1)), resource=at(1))
        put(storage, kept(signed(single(), lifetime=5)), resource=at(2))
        durable = storage.durable()
        thread.run()
        self.successResultOf(durable)
        before, size = contents(storage), storage.size

        put(storage, kept(signed(single(b"new"), 2, signer=BOB), BOB), resource=at(1))
        storage.expire(NOW + 5)
        failed = storage.durable()
        put(storage, kept(signed(single(b"newer"), 3)), resource=at(1))
        storage.remove(at(1))
        put(storage, kept(signed(single())), resource=at(3))
        failed_too = storage.durable()
        thread.fail(sqlite3.OperationalError("database or disk is full"))
        for each in (failed, failed_too):
            error = self.failureResultOf(each, StorageError).value
            self.assertIn(self.path, str(error))
            self.assertIn("disk is full", str(error))
        self.assertEqual(contents(storage), before)
        self.assertEqual((storage.generation(at(1), SINGLE), storage.size), (1, size))
        self.assertEqual((storage.failures, thread.work), (1, []))

        put(storage, kept(signed(single(b"then"), 4)), resource=at(1))
        durable = storage.durable()
        thread.run()
        self.successResultOf(durable)
        after = contents(storage)
        self.assertEqual(contents(self.reopened(storage)), after)

    def test_disk_full(self) -> None:
        """A file that cannot grow fails the Store, and the next one works when there is room again."""
        storage = self.open()
        put(storage, kept(signed(single())), resource=at(1))
        self.successResultOf(storage.durable())
        ((pages,),) = storage._database.execute("PRAGMA page_count")
        storage._database.execute(f"PRAGMA max_page_count = {pages}")
        before = contents(storage)
        for number in range(2, 12):
            put(storage, kept(signed(single(bytes(4000)))), resource=at(number))
        self.failureResultOf(storage.durable(), StorageError)
        self.assertEqual(contents(storage), before)
        storage._database.execute("PRAGMA max_page_count = 1000000")
        put(storage, kept(signed(single())), resource=at(2))
        self.successResultOf(storage.durable())
        self.assertEqual(set(contents(self.reopened(storage))), {(at(1), SINGLE, None), (at(2), SINGLE, None)})

    def test_many_expiries_are_written_unasked(self) -> None:
        thread = LateThread()
        storage = self.open(thread)
        for number in range(3000):
            put(storage, kept(signed(single(), lifetime=5)), resource=at(number))
        durable = storage.durable()
        thread.run()
        self.successResultOf(durable)
        storage.expire(NOW + 5)
        self.assertEqual(len(thread.work), 1)
        thread.run()


class ThreadTests(TestCase):
    def test_real_threads(self) -> Deferred[None]:
        """Many Stores in flight, transactions in whichever thread is free."""
        pool = ThreadPool(2, 4)
        pool.start()
        self.addCleanup(pool.stop)
        storage = SQLiteStorage(self.mktemp(), partial(deferToThreadPool, reactor, pool), NOW)
        waiting = []
        for number in range(300):
            put(storage, kept(signed(single())), resource=at(number))
            waiting.append(storage.durable())

        def reopen(_: object) -> None:
            again = SQLiteStorage(storage.path, at_once, NOW)
            self.assertEqual(again.values, 300)
            again.close()

        return gatherResults(waiting).addCallback(lambda _: storage.close()).addCallback(reopen)


class BadFileTests(SynchronousTestCase):
    """A file that cannot be used is named, with the reason."""

    def refused(self, path: str, text: str) -> None:
        error = self.assertRaises(StorageError, SQLiteStorage, path, at_once, NOW)
        self.assertIn(path, str(error))
        self.assertIn(text, str(error))

    def filled(self) -> str:
        path = str(self.mktemp())
        storage = SQLiteStorage(path, at_once, NOW)
        for number in range(200):
            put(storage, kept(signed(single(bytes(50)))), resource=at(number))
        self.successResultOf(storage.close())
        return path

    def test_not_a_database(self) -> None:
        path = str(self.mktemp())
        Path(path).write_bytes(b"Dear diary," * 1000)
        self.refused(path, "not a database")

    def test_no_such_directory(self) -> None:
        self.refused(self.mktemp() + "/data.sqlite", "unable to open")

    def test_another_program(self) -> None:
        path = str(self.mktemp())
        with edited(path) as database:
            database.execute("CREATE TABLE diary (entry)")
        self.refused(path, "another program")

    def test_another_version(self) -> None:
        path = self.filled()
        with edited(path) as database:
            database.execute("PRAGMA user_version = 99")
        self.refused(path, "schema version 99")

    def test_damaged_page(self) -> None:
        path = self.filled()
        with open(path, "r+b") as file:
            file.seek(5 * 4096)
            file.write(os.urandom(8192))
        self.assertRaises(StorageError, SQLiteStorage, path, at_once, NOW)

    def test_damaged_value(self) -> None:
        path = self.filled()
        with edited(path) as database:
            database.execute("UPDATE value SET data = x'00' WHERE resource = ?", (at(7),))
        self.refused(path, "StoredData")

    def test_damaged_certificate(self) -> None:
        path = self.filled()
        with edited(path) as database:
            database.execute("UPDATE certificate SET der = x'00'")
        self.refused(path, "certificate is damaged")

    def test_missing_certificate(self) -> None:
        path = self.filled()
        with edited(path) as database:
            database.execute("DELETE FROM certificate")
        self.refused(path, "certificate")

    def test_in_use(self) -> None:
        path = self.filled()
        storage = SQLiteStorage(path, at_once, NOW)
        self.addCleanup(storage.close)
        self.refused(path, "locked")


CHILD = """
import sys
from tests.storage.test_sqlite import store_for_ever
store_for_ever(sys.argv[1])
"""


def store_for_ever(path: str) -> None:
    """Store, and print what was acknowledged, until killed."""
    storage = SQLiteStorage(path, at_once, NOW, Quotas(max_values=10**9))
    number = 0

    def acknowledged(_: None, numbers: range) -> None:
        os.write(1, b"".join(b"%d\n" % one for one in numbers))

    while True:
        batch = range(number, number + 1 + number % 7)
        for one in batch:
            # Each resource is written twice, so that there are replaced values too.
            put(storage, kept(signed(single(b"%d" % one), one + 1)), resource=at(one // 2))
        storage.durable().addCallback(acknowledged, batch)
        number = batch.stop


class KillTests(SynchronousTestCase):
    def test_survives_sigkill(self) -> None:
        """A process is killed while it stores: whatever it had acknowledged is there afterwards."""
        random = Random(6940)
        for _ in range(4):
            path = self.mktemp()
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD, path],
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(random.randrange(1, 400))]
            child.send_signal(signal.SIGKILL)
            # A line that was cut off was not printed.
            lines += [line for line in child.stdout.readlines() if line.endswith(b"\n")]
            child.stdout.close()
            child.wait()
            storage = SQLiteStorage(path, at_once, NOW)
            newest = {int(line) // 2: int(line) for line in lines}
            for resource, number in newest.items():
                held = storage.held(at(resource), SINGLE)[None]
                self.assertGreaterEqual(held.data.storage_time, number + 1)
                self.assertGreaterEqual(storage.generation(at(resource), SINGLE), 1 + number % 2)
            self.successResultOf(storage.close())
