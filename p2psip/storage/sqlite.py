"""The same working set with an SQLite file behind it: what `durable` acknowledged survives SIGKILL.

Reading never touches the file.  Changes are logged and written by one transaction after another, outside the
reactor's thread; while one is under way the next gathers all that happens, so many Stores share one sync.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..ids import ResourceId
from ..wire.codec import WireContext
from ..wire.codes import DataModel
from ..wire.errors import DecodeError
from ..wire.storage import StoredData
from .interfaces import Held, Key, Quotas, StorageError
from .models import key_of
from .store import MemoryStorage

RunInThread = Callable[..., "Deferred[None]"]
"""Calls its first argument with the others in a thread, as ``deferToThreadPool(reactor, pool, ...)`` does."""

RunSoon = Callable[[Callable[[], None]], object]
"""Calls its argument a moment later, in the reactor's thread."""

GATHER_SECONDS = 0.001
"""A moment that lets the Stores of a busy node share a transaction: far less than a disk takes for it."""

APPLICATION_ID = 0x70327073
SCHEMA_VERSION = 1
SCHEMA = """
    CREATE TABLE kind (
        resource BLOB, kind INTEGER, generation BLOB,
        PRIMARY KEY (resource, kind)
    ) WITHOUT ROWID;
    CREATE TABLE value (
        resource BLOB, kind INTEGER, key, data BLOB, expires REAL, certificate BLOB,
        PRIMARY KEY (resource, kind, key)
    ) WITHOUT ROWID;
    CREATE TABLE certificate (fingerprint BLOB PRIMARY KEY, der BLOB) WITHOUT ROWID;
"""
# The key's type tells the data model; NULL cannot be part of such a table's primary key.
SINGLE_KEY = ""

PENDING_MOST = 2000
"""So many expiries are written even when nobody waits for them."""


class _Logged(NamedTuple):
    resource: ResourceId
    kind_id: int
    undo: tuple[int, Mapping[Key, Held | None]]
    generation: int
    values: Mapping[Key, Held | None]


@dataclass(slots=True)
class _Batch:
    """The changes of one transaction, and who waits for it."""

    changes: list[_Logged] = field(default_factory=list)
    waiting: list[Deferred[None]] = field(default_factory=list)
    unused: frozenset[bytes] = frozenset()
    """Certificates that no value needs any more."""


class SQLiteStorage(MemoryStorage):
    """Values in memory and in the file at `path`, which is made if it is not there.

    Opening reads everything at once.  `now` decides what has expired meanwhile.  Nobody else may have the file
    open.  `run_soon` begins each transaction, so that what arrives until then shares it.

    :raises StorageError: the file is not one of ours, damaged, in use or not readable.
    """

    log = Logger()

    def __init__(
        self,
        path: str,
        run_in_thread: RunInThread,
        now: float,
        quotas: Quotas | None = None,
        run_soon: RunSoon = lambda write: write(),
    ) -> None:
        super().__init__(quotas)
        self.path = path
        self.failures = 0
        self._run_in_thread = run_in_thread
        self._run_soon = run_soon
        self._gathering = False
        self._pending = _Batch()
        self._writing: _Batch | None = None
        try:
            self._database = _open(path)
            try:
                self._load(now)
            except BaseException:
                self._database.close()
                raise
        except (sqlite3.Error, DecodeError, TypeError, ValueError) as error:
            raise StorageError(f"{path}: {error}") from error

    # -- Memory and log -----------------------------------------------------------------------

    def _replace(
        self, resource: ResourceId, kind_id: int, generation: int, values: Mapping[Key, Held | None]
    ) -> tuple[int, dict[Key, Held | None]]:
        undo = super()._replace(resource, kind_id, generation, values)
        self._pending.changes.append(_Logged(resource, kind_id, undo, generation, values))
        return undo

    def expire(self, now: float) -> int:
        gone = super().expire(now)
        if len(self._pending.changes) > PENDING_MOST:
            self._write_soon()
        return gone

    def durable(self) -> Deferred[None]:
        batch = self._pending if self._pending.changes else self._writing
        if batch is None:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        batch.waiting.append(waiting)
        self._write_soon()
        return waiting

    def close(self) -> Deferred[None]:
        def close(result: Any) -> Any:
            self._database.close()
            return result

        return self.durable().addBoth(close)

    def _write_soon(self) -> None:
        if self._writing is None and self._pending.changes and not self._gathering:
            self._gathering = True
            self._run_soon(self._write_next)

    def _write_next(self) -> None:
        self._gathering = False
        if not self._pending.changes:
            return
        batch, self._pending = self._pending, _Batch()
        self._writing = batch
        before = {
            held.fingerprint for change in batch.changes for held in change.undo[1].values() if held is not None
        }
        batch.unused = frozenset(before - self._signers.keys())
        writing = self._run_in_thread(self._write, batch)
        writing.addCallbacks(self._written, self._not_written, callbackArgs=(batch,), errbackArgs=(batch,))
        writing.addErrback(lambda failure: self.log.failure("writing {path}", failure, path=self.path))

    def _written(self, _: None, batch: _Batch) -> None:
        self._writing = None
        self._write_soon()
        for waiting in batch.waiting:
            waiting.callback(None)

    def _not_written(self, failure: Failure, batch: _Batch) -> None:
        """Take back whatever is not on disk, so that memory says no more than was promised."""
        self.failures += 1
        self._writing = None
        later, self._pending = self._pending, _Batch()
        for change in reversed(batch.changes + later.changes):
            super()._replace(change.resource, change.kind_id, *change.undo)
        error = StorageError(f"{self.path}: {failure.getErrorMessage()}")
        self.log.error("values were not kept: {error}", error=error)
        for waiting in batch.waiting + later.waiting:
            waiting.errback(error)

    # -- The file -----------------------------------------------------------------------------

    def _write(self, batch: _Batch) -> None:
        """Bring `batch` to disk; the only thing that runs in the other thread."""
        generations: dict[tuple[ResourceId, int], int] = {}
        values: dict[tuple[ResourceId, int, Key], Held | None] = {}
        for change in batch.changes:
            generations[change.resource, change.kind_id] = change.generation
            for key, held in change.values.items():
                values[change.resource, change.kind_id, key] = held
        kept = [(place, held) for place, held in values.items() if held is not None]
        gone = [_row_key(place) for place, held in values.items() if held is None]
        certificates = {held.fingerprint: held.certificate for _, held in kept}
        execute = self._database.executemany
        self._database.execute("BEGIN IMMEDIATE")
        try:
            execute("DELETE FROM value WHERE resource = ? AND kind = ? AND key = ?", gone)
            execute(
                "INSERT OR REPLACE INTO value VALUES (?, ?, ?, ?, ?, ?)",
                [(*_row_key(at), held.data.encode(), held.expires, held.fingerprint) for at, held in kept],
            )
            execute("INSERT OR IGNORE INTO certificate VALUES (?, ?)", list(certificates.items()))
            execute("DELETE FROM certificate WHERE fingerprint = ?", [(one,) for one in batch.unused])
            execute(
                "INSERT OR REPLACE INTO kind VALUES (?, ?, ?)",
                [(*place, generation.to_bytes(8)) for place, generation in generations.items()],
            )
            if gone:
                execute(
                    "DELETE FROM kind WHERE resource = ?1 AND kind = ?2"
                    " AND NOT EXISTS (SELECT 1 FROM value WHERE resource = ?1 AND kind = ?2)",
                    list(generations),
                )
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _load(self, now: float) -> None:
        database = self._database
        database.execute("BEGIN IMMEDIATE")
        database.execute("DELETE FROM value WHERE expires <= ?", (now,))
        database.execute("DELETE FROM kind WHERE (resource, kind) NOT IN (SELECT resource, kind FROM value)")
        database.execute("DELETE FROM certificate WHERE fingerprint NOT IN (SELECT certificate FROM value)")
        database.execute("COMMIT")
        certificates = dict(database.execute("SELECT fingerprint, der FROM certificate"))
        if any(sha256(der).digest() != fingerprint for fingerprint, der in certificates.items()):
            raise ValueError("a certificate is damaged")
        rows = database.execute(
            "SELECT resource, kind, generation, key, data, expires, certificate"
            " FROM value LEFT JOIN kind USING (resource, kind)"
        )
        for resource, kind_id, generation, key, data, expires, fingerprint in rows:
            if generation is None or fingerprint not in certificates:
                raise ValueError("a value lacks its generation counter or its certificate")
            stored = StoredData.decode(data, _context(key))
            held = Held(stored, certificates[fingerprint], fingerprint, expires, len(data))
            super()._replace(resource, kind_id, int.from_bytes(generation), {key_of(stored.value): held})


_MODELS = {str: DataModel.SINGLE, int: DataModel.ARRAY, bytes: DataModel.DICTIONARY}


def _context(key: Any) -> WireContext:
    """How to read a value, told by the type of the key it is filed under."""
    return WireContext(models={0: _MODELS[type(key)]}).of_kind(0)


def _row_key(place: tuple[ResourceId, int, Key]) -> Sequence[Any]:
    resource, kind_id, key = place
    return resource, kind_id, SINGLE_KEY if key is None else key


def _open(path: str) -> sqlite3.Connection:
    # One transaction at a time uses the connection, but not always the same thread.
    database = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        _check(database)
    except BaseException:
        database.close()
        raise
    return database


def _check(database: sqlite3.Connection) -> None:
    ((application,),) = database.execute("PRAGMA application_id")
    ((version,),) = database.execute("PRAGMA user_version")
    ((tables,),) = database.execute("SELECT count(*) FROM sqlite_master")
    if not application and not version and not tables:
        database.executescript(
            f"BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
        return
    if application != APPLICATION_ID:
        raise ValueError("this is the file of another program")
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema version {version} instead of {SCHEMA_VERSION}")
    findings = [text for (text,) in database.execute("PRAGMA quick_check(1)")]
    if findings != ["ok"]:
        raise ValueError(f"damaged: {findings[0]}")
