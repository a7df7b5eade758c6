"""Accounts in PostgreSQL: as in SQLite, and shared by two enrollment servers."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import text
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from p2psip.enrollment.accounts import NewUser
from p2psip.enrollment.archive import export_authority, import_authority
from p2psip.enrollment.authority import AuthorityError, OverlayAuthority, Refusal
from p2psip.enrollment.database import AccountError, Database, DatabaseUnavailable
from p2psip.ids import NodeId
from p2psip.security.certificates import generate_key, make_request
from p2psip.security.identity import Identity

from ..enrollment import test_accounts, test_database, test_nodes, world
from .nodes import World
from .postgresql import PASSWORD, URL_PASSWORD, PostgreSQL


@cache
def server() -> PostgreSQL:
    """One server for all tests here; each has databases of its own."""
    made = PostgreSQL()
    atexit.register(made.close)
    return made


class AccountsTests(test_accounts.AccountsTests):
    def new_url(self) -> str:
        return server().new_url()

    def test_revocations(self) -> None:
        """They have the time of the database, whose clock all servers share."""
        self.accounts.add(NewUser("alice", "desk"))
        before = self.database.moment()
        self.accounts.revoke_device("alice", "desk")
        self.accounts.remove("alice")
        entries = self.accounts.revocations()[1]
        self.assertEqual([(e.account, e.device) for e in entries], [("alice", "desk"), ("alice", "")])
        times = [before, *(entry.time for entry in entries), self.database.moment()]
        self.assertEqual(times, sorted(times))

    def test_secrets_are_sealed(self) -> None:
        self.accounts.add(NewUser("alice", "desk", "hunter2"))
        digests = [s.ha1 for s in self.accounts.device_credentials("alice")]
        with self.database.reading() as connection:
            (sealed,) = connection.execute(text("SELECT secrets FROM devices")).scalars().all()
        for secret in ("hunter2", *digests):
            self.assertNotIn(secret.encode(), bytes(sealed))

    def test_what_it_does_not_take(self) -> None:
        """A NUL, or a number that is too large: an error for the operator."""
        self.accounts.add(NewUser("alice"))
        self.assertRaises(AccountError, self.accounts.revoke_device, "alice", "pho\0ne")
        self.assertRaises(AccountError, self.accounts.set_node_quota, "alice", 1 << 31)


class NodesTests(test_nodes.NodesTests):
    def new_url(self) -> str:
        return server().new_url()


class MigrationTests(test_database.MigrationTests):
    def new_url(self) -> str:
        return server().new_url()


class TwoAuthorities(TestCase):
    """The same authority at two places, by its export, and one database."""

    def setUp(self) -> None:
        self.url = server().new_url()
        first = OverlayAuthority.create(
            Path(self.mktemp()), world.OVERLAY, time.time, hashes=world.HASHES, accounts=self.url
        )
        archive = export_authority(first, "open sesame")
        second = import_authority(
            archive, "open sesame", Path(self.mktemp()), world.OVERLAY, time.time, world.HASHES
        )
        self.both = (first, second)
        for authority in self.both:
            self.addCleanup(authority.close)

    def node_ids(self, certificate: bytes) -> tuple[NodeId, ...]:
        return tuple(Identity.from_certificate(certificate, world.OVERLAY).node_ids)


class SharingTests(TwoAuthorities):
    def test_phones(self) -> None:
        """What one seals the other reads."""
        first, second = self.both
        world.add_user(first)
        self.assertEqual(
            second.accounts.device_credentials("alice"), first.accounts.device_credentials("alice")
        )
        self.assertEqual(len(second.accounts.device_credentials("alice")), 2)

    async def test_the_same_node(self) -> None:
        """One key that enrolls at both at once, and again, has one Node-ID."""
        first, second = self.both
        first.accounts.add_many([NewUser(f"u{n}", device="", password="pw", node_quota=4) for n in range(4)])
        requests = {f"u{n}": make_request(generate_key(), f"u{n}@{world.OVERLAY}") for n in range(4)}
        work = [
            deferToThread(authority.enroll, name, "pw", 1, csr)
            for name, csr in requests.items()
            for authority in (first, second, first, second)
        ]
        ids = [self.node_ids(certificate) for certificate in await gatherResults(work)]
        self.assertEqual([len(set(ids[n : n + 4])) for n in range(0, 16, 4)], [1] * 4)
        self.assertEqual(len(set(ids)), 4)

    async def test_quota(self) -> None:
        """Of eight keys at both servers at once three get a Node-ID, since three is what the user may have."""
        self.both[0].accounts.add(NewUser("alice", device="", password="pw", node_quota=3))

        def enroll(authority: OverlayAuthority, csr: bytes) -> tuple[NodeId, ...] | str:
            try:
                return self.node_ids(authority.enroll("alice", "pw", 1, csr))
            except Refusal as refusal:
                return refusal.token

        requests = [make_request(generate_key(), f"alice@{world.OVERLAY}") for _ in range(8)]
        work = [deferToThread(enroll, self.both[n % 2], csr) for n, csr in enumerate(requests)]
        results = await gatherResults(work)
        self.assertEqual(results.count("Node-IDs_not_available"), 5)
        self.assertEqual(len(set(results)), 4)

    async def test_one_token_for_one_key(self) -> None:
        """Of two keys that show one token at two servers at once, one is let in."""
        token = self.both[0].invite("second", "peer", 60, ["https://h"])

        def redeem(authority: OverlayAuthority) -> bool:
            csr = make_request(generate_key(), f"second@nodes.{world.OVERLAY}")
            try:
                authority.enroll("second", token.password, 1, csr)
            except Refusal:
                return False
            return True

        work = [deferToThread(redeem, authority) for authority in self.both * 2]
        self.assertEqual((await gatherResults(work)).count(True), 1)


class RevocationTests(TwoAuthorities):
    async def test_in_the_order_of_their_numbers(self) -> None:
        """Who is told of one is told of all with lower numbers: the second to be numbered is not the first seen."""
        first, second = self.both
        first.accounts.add_many([NewUser("alice"), NewUser("bob")])
        with first.database.writing() as connection:
            first.accounts._revoke(connection, "alice", "phone")
            waiting = deferToThread(second.accounts.revoke_device, "bob", "phone")
            while not await deferToThread(self.writers_that_wait):
                self.assertNoResult(waiting)
            cursor, entries = second.accounts.revocations()
            self.assertEqual(entries, [])
        await waiting
        self.assertEqual([e.account for e in second.accounts.revocations(cursor)[1]], ["alice", "bob"])

    def writers_that_wait(self) -> int:
        query = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        with self.both[0].database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    async def test_none_is_missed(self) -> None:
        """A poller that goes from one server to the other, while both write."""
        names = [f"u{n}" for n in range(40)]
        self.both[0].accounts.add_many([NewUser(name) for name in names])
        writing: list[Deferred[Any]] = [
            deferToThread(self.both[n % 2].accounts.revoke_device, name, "phone") for n, name in enumerate(names)
        ]
        done = gatherResults(writing)
        seen: list[str] = []
        cursor = ""
        while len(seen) < len(names):
            finished = done.called
            for authority in self.both:
                cursor, entries = await deferToThread(authority.accounts.revocations, cursor)
                seen += [entry.account for entry in entries]
            if finished:
                break
        self.assertEqual(sorted(seen), sorted(names))
        await done

    def test_credentials_that_were_read_before(self) -> None:
        """Whatever was revoked after the moment in which credentials are said to be read is told as later."""
        first, second = self.both
        first.accounts.add(NewUser("alice"))
        as_of = first.database.moment()
        second.accounts.revoke_device("alice", "phone")
        (entry,) = first.accounts.revocations()[1]
        self.assertGreaterEqual(entry.time, as_of)


class FailureTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.url = server().new_url()

    def refusal(self, function: Callable[[], object], kind: type[Exception] = AccountError) -> str:
        message = str(self.assertRaises(kind, function))
        self.assertNotIn("\n", message)
        for secret in (PASSWORD, URL_PASSWORD):
            self.assertNotIn(secret, message)
        return message

    def open(self, url: str) -> Database:
        database = Database(url, time.time)
        self.addCleanup(database.close)
        return database

    def test_not_there(self) -> None:
        """In one line, without the password."""
        for wrong, reason in (
            (self.url.replace(URL_PASSWORD, "another"), "password authentication failed"),
            (self.url + "x", "does not exist"),
            (self.url.replace(f":{server().port}/", ":1/"), "onnection refused"),
        ):
            self.assertIn(reason, self.refusal(lambda wrong=wrong: self.open(wrong)))  # type: ignore[misc]

    def test_another_overlay(self) -> None:
        """Two authorities never share a database, by mistake of an operator."""
        made = OverlayAuthority.create(Path(self.mktemp()), "a.example", time.time, accounts=self.url)
        self.addCleanup(made.close)
        path = Path(self.mktemp())
        message = self.refusal(
            lambda: OverlayAuthority.create(path, "b.example", time.time, accounts=self.url), AuthorityError
        )
        self.assertIn("another overlay's", message)
        self.assertFalse(path.exists())

    def test_restarted(self) -> None:
        """While it is away what is asked fails at once, in one line; afterwards all goes on."""
        database = self.open(self.url)
        database.record("before", "x")
        server().stop()
        try:
            message = self.refusal(lambda: database.record("meanwhile", "x"), DatabaseUnavailable)
            self.assertIn("cannot be used now", message)
            self.refusal(database.audit_log, DatabaseUnavailable)
        finally:
            server().start()
        database.record("after", "x")
        self.assertEqual([line["event"] for line in database.audit_log()], ["after", "before"])


class NodesOfOneDatabaseTests(SynchronousTestCase):
    """Real nodes: a founder whose accounts move, and one that imports its authority."""

    def setUp(self) -> None:
        self.url = server().new_url()
        self.world = World()
        self.addCleanup(self.world.close)

    def test_moved_and_shared(self) -> None:
        founder = self.world.founder()
        founder.add_users({"alice": "one", "bob": "two"})
        users = founder.json("user", "list")
        other = self.world.join(founder)
        founder.terminate()
        founder.start("--accounts", self.url)
        founder.wait_joined()
        self.assertEqual(founder.json("user", "list"), users)
        kept = founder.state / "authority" / "accounts.url"
        self.assertEqual((kept.read_text(), kept.stat().st_mode & 0o777), (f"{self.url}\n", 0o600))
        archive = self.world.directory / "archive"
        passphrase = self.world.directory / "passphrase"
        passphrase.write_text("open sesame")
        founder.p2psip("authority", "export", str(archive), "--passphrase-file", str(passphrase))
        other.p2psip("authority", "import", str(archive), "--passphrase-file", str(passphrase))
        other.p2psip("user", "add", "carol", "--number", "+49301234")
        self.assertEqual([u["name"] for u in founder.json("user", "list")], ["alice", "bob", "carol"])
        third = self.world.join(other)
        self.assertIn(third.name, founder.p2psip("authority", "log").stdout)
        # Without the option it stays where it is; and nobody has told the password.
        founder.terminate()
        founder.start()
        founder.wait_joined()
        self.assertEqual(len(founder.json("user", "list")), 3)
        for node in (founder, other):
            log = "\n".join(node.log)
            self.assertIn(f"p2psip:***@127.0.0.1:{server().port}", log)
            self.assertNotIn(PASSWORD, log)
            self.assertNotIn(URL_PASSWORD, log)

    def test_not_reached(self) -> None:
        """One line, and exit status 1; nothing is founded."""
        node = self.world.node()
        node.start("--accounts", self.url.replace(f":{server().port}/", ":1/"))
        node.wait_for("cannot be used now")
        assert node.process is not None
        self.assertEqual(node.process.wait(30), 1)
        self.assertNotIn("Traceback", "\n".join(node.log))
        self.assertFalse((node.state / "authority" / "ca.key").exists())
