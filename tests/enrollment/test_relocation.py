"""Accounts that move from the authority's own file to another database."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select, update
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from p2psip.enrollment import schema
from p2psip.enrollment.accounts import NewUser
from p2psip.enrollment.archive import export_authority, import_authority
from p2psip.enrollment.authority import AuthorityError, OverlayAuthority
from p2psip.enrollment.database import Database
from p2psip.enrollment.relocation import FILE, URL_FILE
from p2psip.security.certificates import generate_key

from .world import HASHES, OVERLAY, join


class RelocationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.path = Path(self.mktemp()).absolute()
        self.elsewhere = Path(self.mktemp()).absolute()
        self.url = f"sqlite:///{self.elsewhere}"

    def create(self, path: Path, accounts: str | None = None) -> OverlayAuthority:
        made = OverlayAuthority.create(path, OVERLAY, self.clock.seconds, hashes=HASHES, accounts=accounts)
        self.addCleanup(made.close)
        return made

    def open(self, path: Path, accounts: str | None = None) -> OverlayAuthority:
        opened = OverlayAuthority(path, OVERLAY, self.clock.seconds, HASHES, accounts)
        self.addCleanup(opened.close)
        return opened

    def refusal(self, path: Path, accounts: str) -> str:
        return str(self.assertRaises(AuthorityError, self.open, path, accounts))

    def filled(self) -> OverlayAuthority:
        """An authority with something in every table, closed."""
        authority = self.create(self.path)
        authority.accounts.add(NewUser("alice", "desk", "pw", password="own", number="+4930"))
        authority.accounts.add(NewUser("bob"))
        join(authority, "second")
        authority.accounts.remove("bob")
        authority.close()
        return authority

    def test_from_the_beginning(self) -> None:
        self.create(self.path, self.url).accounts.add(NewUser("alice"))
        self.assertFalse((self.path / FILE).exists())
        file = self.path / URL_FILE
        self.assertEqual((file.read_text(), file.stat().st_mode & 0o777), (f"{self.url}\n", 0o600))
        self.assertEqual(self.elsewhere.stat().st_mode & 0o777, 0o600)
        for accounts in (None, self.url):
            self.assertTrue(self.open(self.path, accounts).accounts.exists("alice"))

    def test_all_goes_along(self) -> None:
        """Registrars go on with their cursors; the file is kept."""
        before = self.filled()
        cursor, _ = before.accounts.revocations()
        content = self.everything(before.database)
        before.close()
        after = self.open(self.path, self.url)
        self.assertEqual(self.everything(after.database), content)
        self.assertEqual(after.accounts.revocations(cursor), (cursor, []))
        after.accounts.disable("alice")
        self.assertEqual([entry.account for entry in after.accounts.revocations(cursor)[1]], ["alice"])
        self.assertEqual(sorted(p.name for p in self.path.glob("accounts.*")), ["accounts.sqlite.moved", URL_FILE])

    def everything(self, database: Database) -> dict[str, list[object]]:
        with database.reading() as connection:
            return {
                table.name: [tuple(row) for row in connection.execute(select(table))]
                for table in schema.metadata.sorted_tables
            }

    def test_interrupted(self) -> None:
        """After the copy was made, before its place was noted: it is not made twice."""
        self.filled()
        self.open(self.path, self.url).close()
        (self.path / "accounts.sqlite.moved").rename(self.path / FILE)
        (self.path / URL_FILE).unlink()
        self.assertTrue(self.open(self.path, self.url).accounts.exists("alice"))
        self.assertFalse((self.path / FILE).exists())

    def test_other_accounts_of_this_overlay(self) -> None:
        """A node with a copy of its own is not let into the shared ones until its operator gives that up."""
        self.filled()
        original = self.open(self.path)
        copy_path = Path(self.mktemp()).absolute()
        archive = export_authority(original, "open sesame")
        import_authority(archive, "open sesame", copy_path, OVERLAY, self.clock.seconds, HASHES).close()
        original.close()
        self.open(self.path, self.url)
        self.assertIn("holds accounts already", self.refusal(copy_path, self.url))
        self.assertTrue(self.open(copy_path).accounts.exists("alice"))
        (copy_path / FILE).unlink()
        self.assertTrue(self.open(copy_path, self.url).accounts.exists("alice"))

    def test_another_overlays(self) -> None:
        self.create(Path(self.mktemp()), self.url)
        self.filled()
        self.assertIn("another overlay's", self.refusal(self.path, self.url))
        self.assertRaises(AuthorityError, self.create, Path(self.mktemp()), self.url)
        (self.path / URL_FILE).write_text(self.url)
        self.assertRaises(AuthorityError, self.open, self.path)

    def test_not_claimed_but_in_use(self) -> None:
        """Accounts that nobody has claimed are not written over."""
        database = Database(self.url, self.clock.seconds)
        self.addCleanup(database.close)
        with database.writing() as connection:
            connection.execute(schema.accounts.insert(), {"name": "carol", "created": 1.0})
        self.filled()
        self.assertIn("holds accounts already", self.refusal(self.path, self.url))
        self.assertRaises(AuthorityError, self.create, Path(self.mktemp()), self.url)

    def test_from_one_place_to_another(self) -> None:
        """That is for the operator to copy: an empty database is not taken for them."""
        authority = self.create(self.path, self.url)
        authority.accounts.add(NewUser("alice"))
        authority.close()
        third = Path(self.mktemp()).absolute()
        self.assertIn("not in", self.refusal(self.path, f"sqlite:///{third}"))
        third.write_bytes(self.elsewhere.read_bytes())
        self.assertTrue(self.open(self.path, f"sqlite:///{third}").accounts.exists("alice"))

    def test_of_a_time_before_claims(self) -> None:
        """It is this authority's from the first time that it is opened."""
        authority = self.create(self.path)
        with authority.database.writing() as connection:
            connection.execute(update(schema.database).values(authority=None))
        authority.close()
        again = self.open(self.path)
        self.assertIsNotNone(again.database.owner())
        self.assertTrue(again.enroll_founder("first", generate_key()))
