"""The accounts database: its tables as they grow from version to version."""

from __future__ import annotations

import sys
from typing import Any

from sqlalchemy import create_engine, inspect
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from p2psip.enrollment import schema
from p2psip.enrollment.database import AccountError, Database
from p2psip.enrollment.engines import make_engine, parse_url, place_of

from .old import make_version_0


def columns_and_indexes(url: str) -> dict[str, Any]:
    """What a database is made of, as far as it matters to who uses it."""
    engine = create_engine(url)
    inspector = inspect(engine)
    found = {
        table: (
            {(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)},
            {(i["name"], tuple(i["column_names"]), bool(i["unique"])) for i in inspector.get_indexes(table)},
        )
        for table in inspector.get_table_names()
    }
    engine.dispose()
    return found


class MigrationTests(TestCase):
    def setUp(self) -> None:
        self.url = self.new_url()

    def new_url(self) -> str:
        """The URL of another database, which is empty."""
        return f"sqlite:///{self.mktemp()}"

    def open(self, url: str) -> Database:
        database = Database(url, lambda: 1.0)
        self.addCleanup(database.close)
        return database

    def test_from_the_first_version(self) -> None:
        """It becomes what a new one is, and keeps what is in it."""
        identity = make_version_0(self.url)
        database = self.open(self.url)
        self.assertEqual(database.id, identity)
        with database.reading() as connection:
            (alice,) = connection.execute(schema.accounts.select()).all()
        self.assertEqual((alice.name, alice.number, alice.disabled), ("alice", None, False))
        new = self.new_url()
        self.open(new)
        self.assertEqual(columns_and_indexes(self.url), columns_and_indexes(new))
        self.assertEqual(self.open(self.url).id, identity)

    async def test_at_once(self) -> None:
        """Servers that start together on one database change it once; so do those that make it."""
        make_version_0(self.url)
        for url in (self.url, self.new_url()):
            opened = await gatherResults([deferToThread(self.open, url) for _ in range(8)])
            self.assertEqual(len({database.id for database in opened}), 1)
            with opened[0].reading() as connection:
                versions = connection.execute(schema.versions.select()).scalars().all()
            self.assertEqual(versions, [len(schema.MIGRATIONS)])

    def test_of_a_later_program(self) -> None:
        """It is left as it is."""
        database = self.open(self.url)
        with database.writing() as connection:
            connection.execute(schema.versions.update().values(version=99))
        error = self.assertRaises(AccountError, self.open, self.url)
        self.assertIn("version 99", str(error))


class URLTests(SynchronousTestCase):
    def test_places(self) -> None:
        """For people: without password and options."""
        for url, place in (
            ("postgresql://p2psip:secret@h:5433/accounts?password=secret", "//p2psip:***@h:5433/accounts"),
            ("postgres:///accounts?host=/run/postgresql&sslpassword=secret", "///accounts?host=%2Frun%2Fpostgresql"),
            ("postgresql+psycopg://u@h/a", "//u@h/a"),
        ):
            parsed = parse_url(url)
            self.assertEqual((parsed.get_driver_name(), place_of(parsed)), ("psycopg", f"postgresql:{place}"))
        self.assertEqual(place_of(parse_url("sqlite:////var/a.sqlite")), "sqlite:////var/a.sqlite")

    def test_no_such_database(self) -> None:
        """What was written is not repeated: it may be a password that is in the wrong place."""
        for url in ("", "secret", "secret://", "postgresql:/secret", "postgresql://u:secret@h:secret/a", "mysql://secret@h/a"):
            self.assertNotIn("secret@", str(self.assertRaises(AccountError, parse_url, url)), url)

    def test_no_driver(self) -> None:
        """It comes with an extra, which is named."""
        self.patch(sys, "modules", {**sys.modules, "psycopg": None})
        error = self.assertRaises(AccountError, make_engine, parse_url("postgresql://u:secret@h/a"))
        self.assertIn("pip install 'p2psip[postgresql]'", str(error))
