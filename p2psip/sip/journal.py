"""The bindings of a registrar in SQLite, so that its phones are known after a restart."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from zope.interface import implementer

from .interfaces import BindingRow, IBindingJournal

_SCHEMA = """
CREATE TABLE IF NOT EXISTS bindings (
    aor TEXT NOT NULL, uri TEXT NOT NULL, parameters TEXT NOT NULL, q REAL, expires_at REAL NOT NULL,
    call_id TEXT NOT NULL, cseq INTEGER NOT NULL, source TEXT NOT NULL,
    device TEXT NOT NULL,
    PRIMARY KEY (aor, uri)
) WITHOUT ROWID
"""
_DELETE = "DELETE FROM bindings WHERE aor = ?"
_INSERT = "INSERT OR REPLACE INTO bindings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


@implementer(IBindingJournal)
class SQLiteJournal:
    """Writes each change at once: it survives the end of the process, however sudden.

    `connection` is the journal's own, opened with ``isolation_level=None``.  Its file is best nobody else's: a save
    would wait for another writer, and the reactor with it.  Write-ahead log without waiting for the disk: a power
    failure may cost the last moments, which the phones' next refreshes mend.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(_SCHEMA)

    def save(self, aor: str, rows: Sequence[BindingRow]) -> None:
        connection = self._connection
        connection.execute("BEGIN")
        try:
            connection.execute(_DELETE, (aor,))
            connection.executemany(_INSERT, rows)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def load(self) -> Iterable[BindingRow]:
        for row in self._connection.execute("SELECT * FROM bindings"):
            yield BindingRow(*row)
