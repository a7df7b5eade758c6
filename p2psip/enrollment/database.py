"""The accounts database: transactions, and the audit log.

SQLite unless the operator names another database by SQLAlchemy URL.  All methods block, and may be called
from any thread.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import DataError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from . import schema
from .engines import AccountError as AccountError
from .engines import make_engine, parse_url, place_of

AUDIT_LINES: Final = 100_000
"""Lines of the audit log that are kept; the oldest give way."""

_WRITERS: Final = int.from_bytes(b"p2psip")
"""The key of PostgreSQL's lock that a writer holds."""


class DatabaseUnavailable(AccountError):
    """The database cannot be used now; the text is one line for the operator."""


class Database:
    """The database of one authority.

    :param now: answers the time in seconds since the epoch.
    :raises AccountError: it cannot be used, or is none of ours.
    """

    def __init__(self, url: str, now: Callable[[], float], audit_lines: int = AUDIT_LINES) -> None:
        self.now = now
        self._audit_lines = audit_lines
        parsed = parse_url(url)
        self.place = place_of(parsed)
        """Where it is, without password."""
        engine = self._engine = make_engine(parsed)
        self._shared = engine.dialect.name == "postgresql"
        """Whether other processes, and other machines, may have it open."""
        if self._shared:
            # A writer sees what was written before it got the lock, which SERIALIZABLE would keep from it.
            self._writer = engine.execution_options(isolation_level="READ COMMITTED")
            self._reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        else:
            self._writer = engine.execution_options(writing=True)
            self._reader = engine.execution_options(writing=False)
        try:
            self._id = self._prepare()
        except SQLAlchemyError as e:
            self.close()
            raise AccountError(f"the accounts in {self.place} cannot be used: {_one_line(e)}") from e
        except AccountError:
            self.close()
            raise

    def _prepare(self) -> str:
        """See that all tables are there, as this program knows them; answers the database's id."""
        with self.writing() as connection:
            schema.metadata.create_all(connection)
            found = connection.execute(select(schema.database.c.id)).scalar()
            if found is not None:
                _migrate(connection)
                return str(found)
            made = secrets.token_hex(8)
            connection.execute(insert(schema.database), {"id": made})
            connection.execute(insert(schema.versions), {"version": len(schema.MIGRATIONS)})
            return made

    @property
    def id(self) -> str:
        """What tells this database from others; 16 hexadecimal digits."""
        return self._id

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    # -- whose it is -------------------------------------------------------------------------------

    def owner(self) -> str | None:
        """The authority that has claimed it; None: no one yet."""
        with self.reading() as connection:
            return connection.execute(select(schema.database.c.authority)).scalar()

    def claim(self, authority: str) -> None:
        """Make it the database of `authority`, 64 characters at most, and of no other one.

        :raises AccountError: it is another's.
        """
        table = schema.database
        with self.writing() as connection:
            owner = connection.execute(select(table.c.authority)).scalar()
            if owner not in (None, authority):
                raise AccountError(f"{self.place} holds the accounts of another overlay's authority")
            if owner is None:
                connection.execute(update(table).values(authority=authority))

    # -- transactions ------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one state of the database.

        :raises DatabaseUnavailable: it cannot be reached.
        """
        with self._refusals(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def writing(self, taken: str = "it conflicts with what is there") -> Iterator[Connection]:
        """A transaction that is alone in writing, from its first statement on.

        :raises AccountError: with the text `taken`, where something must be unique and is not.
        :raises DatabaseUnavailable: it cannot be reached, or others write for too long.
        """
        with self._refusals(taken), self._writer.begin() as connection:
            if self._shared:
                connection.execute(select(func.pg_advisory_xact_lock(_WRITERS)))
            yield connection

    @contextmanager
    def _refusals(self, taken: str = "") -> Iterator[None]:
        """What the database refuses, in our words."""
        try:
            yield
        except IntegrityError as e:
            raise AccountError(taken) from e
        except DataError as e:
            raise AccountError(f"the database does not take it: {_one_line(e)}") from e
        except (OperationalError, InterfaceError, PoolTimeout) as e:
            raise DatabaseUnavailable(f"the accounts in {self.place} cannot be used now: {_one_line(e)}") from e

    def time(self, connection: Connection) -> float:
        """The time for what `connection` writes: by one clock, whichever server asks."""
        if not self._shared:
            return self.now()
        return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())

    def moment(self) -> float:
        """The time between two writers: what was written before is seen from now on, with a `time` no later."""
        with self.writing() as connection:
            return self.time(connection)

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


def _one_line(error: SQLAlchemyError) -> str:
    """What the driver says, without the statement."""
    return " ".join(str(getattr(error, "orig", error)).split())


def _printable(text: str, length: int) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:length])
