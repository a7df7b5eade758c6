"""Keeping an authority's accounts in another database than its own file.  Blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, Table, func, insert, select

from ..state import write_file
from . import schema
from .database import AccountError, Database

FILE = "accounts.sqlite"
"""Of the authority's directory: the accounts, where there is no `URL_FILE`."""
URL_FILE = "accounts.url"
"""The SQLAlchemy URL of the database that holds them; for us alone, since it may hold a password."""


def accounts_url(directory: Path) -> str:
    """The SQLAlchemy URL of the accounts database of the authority in `directory`."""
    named = directory / URL_FILE
    return named.read_text("utf-8").strip() if named.exists() else f"sqlite:///{directory / FILE}"


def keep_accounts_at(directory: Path, url: str, authority: str | None, now: Callable[[], float]) -> None:
    """Let the accounts of the authority in `directory` be in the database at `url` from now on.

    Where the database is empty, those in the directory's own file go along; the file is kept, under another name.

    :param authority: as it has claimed its databases; None: it is still to be made.
    :raises AccountError: the database cannot be used, or holds other accounts than those that are here.
    """
    target, own = Database(url, now), directory / FILE
    try:
        owner = target.owner()
        if owner not in (None, authority):
            raise AccountError(f"{target.place} holds the accounts of another overlay's authority")
        if (directory / URL_FILE).exists():
            if owner is None and accounts_url(directory) != url:
                raise AccountError(f"the accounts are not in {target.place} yet: copy them there, from where they are")
        elif own.exists():
            _bring(own, target, now)
        elif owner is None and not _is_empty(target):
            raise AccountError(f"{target.place} holds accounts already")
    finally:
        target.close()
    write_file(directory / URL_FILE, url.encode() + b"\n")
    if own.exists():
        own.rename(own.with_name(f"{FILE}.moved"))


def _bring(own: Path, target: Database, now: Callable[[], float]) -> None:
    source = Database(f"sqlite:///{own}", now)
    try:
        if source.id == target.id:
            return  # they were brought, and then this was interrupted
        if not _is_empty(target):
            raise AccountError(
                f"{target.place} holds accounts already, and others than {own}: "
                "to use those, and not these, move that file away"
            )
        _copy(source, target)
    finally:
        source.close()


def _is_empty(database: Database) -> bool:
    with database.reading() as connection:
        tables = (schema.accounts, schema.invitations, schema.node_ids)
        return not any(connection.execute(select(table).limit(1)).first() for table in tables)


def _copy(source: Database, target: Database) -> None:
    """Make `target` what `source` is, its id included: what registrars have read of revocations goes on."""
    with source.reading() as old, target.writing() as new:
        for table in schema.metadata.sorted_tables:
            rows = [dict(row._mapping) for row in old.execute(select(table))]
            new.execute(table.delete())
            if rows:
                new.execute(insert(table), rows)
            _go_on_counting(new, table)


def _go_on_counting(connection: Connection, table: Table) -> None:
    """Number the rows to come after those that were copied with their numbers."""
    counted = table.autoincrement_column
    if counted is None or connection.dialect.name != "postgresql":
        return
    last = connection.execute(select(func.max(counted))).scalar()
    if last is not None:
        sequence = func.pg_get_serial_sequence(table.name, counted.name)
        connection.execute(select(func.setval(sequence, last)))
