"""SQLAlchemy's engines for the accounts database: SQLite, and PostgreSQL 12 or later by psycopg."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

_PATIENCE: Final = 10_000
"""Milliseconds that a writer waits for another."""
_POSTGRESQL: Final[dict[str, Any]] = {
    # Seconds; and milliseconds until what was sent has to be acknowledged: a database whose machine has died is
    # noticed, and a thread that waits for it goes on.
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}


class AccountError(ValueError):
    """What was asked of the accounts cannot be; the text is for the operator."""


def parse_url(url: str) -> URL:
    """The SQLAlchemy URL of an accounts database; PostgreSQL is spoken by psycopg 3 unless it names a driver.

    :raises AccountError: it is none.
    """
    # The text is not shown, since it may hold a password.
    rule = "write sqlite:////PATH or postgresql://USER@HOST/DATABASE"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise AccountError(f"this is not the SQLAlchemy URL of a database: {rule}") from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise AccountError(f"accounts cannot be kept in {backend[:40]!r}: {rule}")
    return parsed


def place_of(url: URL) -> str:
    """Where the database is, for people and logs: no password, and no options, which could hold one."""
    shown = url.set(drivername=url.get_backend_name(), password=None)
    return shown.set(query={"host": url.query["host"]} if "host" in url.query else {}).render_as_string()


def make_engine(url: URL) -> Engine:
    """The engine, which has connected to nothing yet.

    :raises AccountError: its driver is not installed.
    """
    if url.get_backend_name() == "sqlite":
        if url.database not in (None, "", ":memory:"):
            # SQLite would make it as the umask has it.
            Path(str(url.database)).touch(mode=0o600)
        engine = create_engine(url, hide_parameters=True)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    settings = {key: value for key, value in _POSTGRESQL.items() if key not in url.query}
    try:
        engine = create_engine(url, connect_args=settings, pool_pre_ping=True, hide_parameters=True)
    except ImportError as e:
        raise AccountError(
            f"accounts in PostgreSQL need the Python package {e.name}: pip install 'p2psip[postgresql]'"
        ) from e
    event.listen(engine, "connect", _prepare_postgresql)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Transactions are begun by `_begin_sqlite`, not when the driver thinks it necessary.
    connection.isolation_level = None
    # A reader never waits for the writer, and an account that was made survives SIGKILL.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={_PATIENCE}"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that reads and then writes fails when another wrote in between.
    writing = connection.get_execution_options().get("writing")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _prepare_postgresql(connection: Any, _record: object) -> None:
    # Whoever holds the writers' lock and is heard of no more loses it.
    for setting in (f"lock_timeout = {_PATIENCE}", "idle_in_transaction_session_timeout = 30000"):
        connection.execute(f"SET {setting}")
    connection.commit()
