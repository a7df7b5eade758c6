"""The accounts database: transactions, and the audit log.

SQLite unless the operator names another database by SQLAlchemy URL.  All methods block, and may be called
from any thread.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, create_engine, delete, event, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from . import schema

AUDIT_LINES: Final = 100_000
"""Lines of the audit log that are kept; the oldest give way."""

_PREPARING: Final = int.from_bytes(b"p2psip")
"""The key of PostgreSQL's lock under which tables are made and changed."""


class AccountError(ValueError):
    """What was asked of the accounts cannot be; the text is for the operator."""


class Database:
    """The database of one authority.

    :param now: answers the time in seconds since the epoch.
    """

    def __init__(self, url: str, now: Callable[[], float], audit_lines: int = AUDIT_LINES) -> None:
        self.now = now
        self._audit_lines = audit_lines
        self._engine = create_engine(url)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
            self._writer = self._engine.execution_options(writing=True)
        else:
            self._writer = self._engine.execution_options(isolation_level="SERIALIZABLE")
        self._id = self._prepare()

    def _prepare(self) -> str:
        """See that all tables are there, as this program knows them; answers the database's id."""
        with self._preparing() as connection:
            schema.metadata.create_all(connection)
            found = connection.execute(select(schema.database.c.id)).scalar()
            if found is not None:
                _migrate(connection)
                return str(found)
            made = secrets.token_hex(8)
            connection.execute(insert(schema.database), {"id": made})
            connection.execute(insert(schema.versions), {"version": len(schema.MIGRATIONS)})
            return made

    @contextmanager
    def _preparing(self) -> Iterator[Connection]:
        """A transaction in which the tables may be changed: whoever starts at the same time waits for its end."""
        if self._engine.dialect.name != "postgresql":
            with self.writing() as connection:
                yield connection
            return
        # What a SERIALIZABLE transaction sees is what there was before it waited.
        with self._engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(_PREPARING)))
            yield connection

    @property
    def id(self) -> str:
        """What tells this database from others; 16 hexadecimal digits."""
        return self._id

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one state of the database."""
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self, taken: str = "it conflicts with what is there") -> Iterator[Connection]:
        """A transaction that is alone in writing, from its first statement on.

        :raises AccountError: with the text `taken`, where something must be unique and is not.
        """
        try:
            with self._writer.begin() as connection:
                yield connection
        except IntegrityError as e:
            raise AccountError(taken) from e

    # -- audit -------------------------------------------------------------------------------------

    def record(self, event: str, subject: str, source: str = "", detail: str = "") -> None:
        """Write a line of the audit log; of each text the part that fits is kept, and what can be printed."""
        row = {
            "time": self.now(),
            "event": _printable(event, 40),
            "subject": _printable(subject, 255),
            "source": _printable(source, 64),
            "detail": _printable(detail, 255),
        }
        table = schema.audit
        with self.writing() as connection:
            inserted = connection.execute(insert(table), row).inserted_primary_key
            if inserted is not None:
                connection.execute(delete(table).where(table.c.id <= inserted[0] - self._audit_lines))

    def audit_log(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest lines of the audit log, newest first: time, event, subject, source, detail."""
        table = schema.audit
        columns = (table.c.time, table.c.event, table.c.subject, table.c.source, table.c.detail)
        with self.reading() as connection:
            rows = connection.execute(select(*columns).order_by(table.c.id.desc()).limit(limit))
            return [dict(row._mapping) for row in rows]


def _migrate(connection: Connection) -> None:
    """Bring the tables of a database that exists to the version of this program."""
    table, latest = schema.versions, len(schema.MIGRATIONS)
    # Before there were versions there was no row.
    version = connection.execute(select(table.c.version)).scalar()
    if version is None:
        version = 0
        connection.execute(insert(table), {"version": version})
    if version > latest:
        raise AccountError(f"the accounts database has version {version}, this p2psip knows {latest}: use a newer one")
    for step in schema.MIGRATIONS[version:]:
        for statement in step:
            connection.exec_driver_sql(statement)
    connection.execute(update(table).values(version=latest))


def _printable(text: str, length: int) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:length])


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Transactions are begun by `_begin_sqlite`, not when the driver thinks it necessary.
    connection.isolation_level = None
    # A reader never waits for the writer, and an account that was made survives SIGKILL.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that reads and then writes fails when another wrote in between.
    writing = connection.get_execution_options().get("writing")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
