"""Accounts, devices, revocations, and the database below them."""

from __future__ import annotations

import time
from pathlib import Path

from cryptography.fernet import Fernet
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from p2psip.enrollment.accounts import MAXIMUM_DEVICES, Accounts, NewUser, UnknownAccount
from p2psip.enrollment.database import AccountError, Database
from p2psip.enrollment.passwords import PasswordHashes
from p2psip.sip.digest import ha1

KEY = Fernet.generate_key()


class AccountsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.url = self.new_url()
        self.accounts = self.open()

    def new_url(self) -> str:
        """The URL of a database that is empty."""
        return f"sqlite:///{self.mktemp()}"

    def open(self) -> Accounts:
        self.database = Database(self.url, self.clock.seconds)
        self.addCleanup(self.database.close)
        return Accounts(self.database, KEY, "example.org", PasswordHashes(cost=2))

    def test_add(self) -> None:
        password = self.accounts.add(NewUser("alice"))
        total, (alice,) = self.accounts.page()
        self.assertEqual((total, alice.name, alice.devices, alice.created), (1, "alice", ("phone",), 1000.0))
        secrets = {s.algorithm: s.ha1 for s in self.accounts.device_credentials("alice")}
        expected = {a: ha1(a, "alice", "example.org", password) for a in ("SHA-256", "MD5")}
        self.assertEqual(secrets, expected)

    def test_chosen_password(self) -> None:
        self.assertEqual(self.accounts.add(NewUser("alice", "desk", "chosen")), "chosen")
        self.assertIn(
            ("desk", "MD5", ha1("MD5", "alice", "example.org", "chosen")),
            self.accounts.device_credentials("alice"),
        )

    def test_without_device(self) -> None:
        self.accounts.add(NewUser("alice", device=""))
        self.assertEqual(self.accounts.devices("alice"), [])

    def test_taken(self) -> None:
        """Nothing of what is there changes, no device is added. [6940-13.3-1]"""
        self.accounts.add(NewUser("alice", "desk"))
        error = self.assertRaises(AccountError, self.accounts.add, NewUser("alice", "other"))
        self.assertIn("exists already", str(error))
        self.assertEqual([name for name, _ in self.accounts.devices("alice")], ["desk"])

    def test_names(self) -> None:
        for name in ("a", "Alice.B-c_d~1", "x" * 64, "7", "a+b"):
            self.accounts.add(NewUser(name))
            self.assertTrue(self.accounts.exists(name))
        for name in ("", "x" * 65, "a b", "a@b", ".a", "a.", "al\0ice", "älice", "a/b", "a%41", "a\n"):
            self.assertRaises(AccountError, self.accounts.add, NewUser(name))
            self.assertRaises(AccountError, self.accounts.add, NewUser("fine", device=name or "\n"))
            self.assertFalse(self.accounts.exists(name))
            self.assertIsNone(self.accounts.with_password(name, ""))
            self.assertEqual(self.accounts.device_credentials(name), [])
        self.assertFalse(self.accounts.exists("fine"))

    def test_account_password(self) -> None:
        self.accounts.add(NewUser("alice", password="one", node_quota=2))
        account = self.accounts.with_password("alice", "one")
        assert account is not None
        self.assertEqual(account.node_quota, 2)
        self.assertIsNone(self.accounts.with_password("alice", "two"))
        self.accounts.set_password("alice", "two")
        self.assertIsNone(self.accounts.with_password("alice", "one"))
        self.accounts.set_node_quota("alice", 5)
        account = self.accounts.with_password("alice", "two")
        assert account is not None
        self.assertEqual(account.node_quota, 5)
        self.assertIsNone(self.accounts.with_password("bob", "two"))

    def test_no_account_password(self) -> None:
        password = self.accounts.add(NewUser("alice"))
        for guess in ("", password, "None"):
            self.assertIsNone(self.accounts.with_password("alice", guess))
        self.assertRaises(AccountError, self.accounts.set_password, "alice", "")

    def test_unknown(self) -> None:
        for call in (
            lambda: self.accounts.remove("bob"),
            lambda: self.accounts.set_password("bob", "x"),
            lambda: self.accounts.set_node_quota("bob", 1),
            lambda: self.accounts.set_number("bob", "+4930"),
            lambda: self.accounts.set_display_name("bob", "Bob"),
            lambda: self.accounts.disable("bob"),
            lambda: self.accounts.enable("bob"),
            lambda: self.accounts.add_device("bob"),
            lambda: self.accounts.devices("bob"),
            lambda: self.accounts.revoke_device("bob", "phone"),
        ):
            self.assertRaises(UnknownAccount, call)

    def test_paged(self) -> None:
        self.accounts.add_many([NewUser(f"user{i:03}") for i in range(25)])
        total, page = self.accounts.page(20, 10)
        self.assertEqual(total, 25)
        self.assertEqual([a.name for a in page], [f"user{i:03}" for i in range(20, 25)])

    def test_many(self) -> None:
        self.accounts.add(NewUser("taken"))
        one, two, three, four = self.accounts.add_many(
            [NewUser("one", device_password="1"), NewUser("taken"), NewUser("no name"), NewUser("one")]
        )
        self.assertEqual(one, "1")
        self.assertIn("exists already", str(two))
        self.assertIn("cannot be a name", str(three))
        self.assertIn("twice", str(four))
        self.assertEqual([name for name, _ in self.accounts.devices("one")], ["phone"])
        self.assertEqual([name for name, _ in self.accounts.devices("taken")], ["phone"])

    def test_thousands(self) -> None:
        began = time.monotonic()
        results = self.accounts.add_many([NewUser(f"user{i}") for i in range(3000)])
        self.assertLess(time.monotonic() - began, 5)
        self.assertEqual(len({r for r in results if isinstance(r, str)}), 3000)
        self.assertEqual(self.accounts.page()[0], 3000)

    # -- numbers, names for people, disabled accounts --------------------------------------------------

    def test_numbers(self) -> None:
        self.accounts.add(NewUser("alice", number="+49301234", display_name="Alice Ä."))
        self.accounts.add(NewUser("bob"))
        alice = self.accounts.by_number("+49301234")
        assert alice is not None
        self.assertEqual((alice.name, alice.number, alice.display_name), ("alice", "+49301234", "Alice Ä."))
        error = self.assertRaises(AccountError, self.accounts.set_number, "bob", "+49301234")
        self.assertEqual(str(error), "the number +49301234 is another account's")
        self.accounts.set_number("alice", None)
        self.accounts.set_number("bob", "+49301234")
        bob = self.accounts.by_number("+49301234")
        assert bob is not None
        self.assertEqual(bob.name, "bob")
        self.assertEqual([a.number for a in self.accounts.page()[1]], [None, "+49301234"])

    def test_no_numbers(self) -> None:
        self.accounts.add(NewUser("alice"))
        wrong = ("", "+", "+1", "49301234", "+0301234", "+49 30", "+4930123456789012", "+49301234\n", "+４９30")
        for number in (*wrong, "tel:+49301"):
            self.assertRaises(AccountError, self.accounts.set_number, "alice", number)
            self.assertRaises(AccountError, self.accounts.add, NewUser("bob", number=number))
            self.assertIsNone(self.accounts.by_number(number))
        self.assertFalse(self.accounts.exists("bob"))

    def test_many_with_numbers(self) -> None:
        """Who has a number that is taken is left out; the others are made."""
        self.accounts.add(NewUser("taken", number="+4930"))
        one, two, three = self.accounts.add_many(
            [NewUser("one", number="+4931"), NewUser("two", number="+4930"), NewUser("three", number="+4931")]
        )
        self.assertIsInstance(one, str)
        self.assertIn("another account's", str(two))
        self.assertIn("twice", str(three))
        self.assertEqual([a.name for a in self.accounts.page()[1]], ["one", "taken"])

    def test_display_names(self) -> None:
        self.accounts.add(NewUser("alice"))
        for wrong in ("", " ", "x" * 129, "a\r\nb", "a\0"):
            self.assertRaises(AccountError, self.accounts.set_display_name, "alice", wrong)
        self.accounts.set_display_name("alice", "x" * 128)
        self.accounts.set_display_name("alice", None)
        alice = self.accounts.account("alice")
        assert alice is not None
        self.assertIsNone(alice.display_name)
        self.assertIsNone(self.accounts.account("bob"))

    def test_disabled(self) -> None:
        """Nobody signs in, no phone registers, the registrars are told; and all is as before when it is enabled."""
        self.accounts.add(NewUser("alice", "desk", "pw", password="own"))
        before = self.accounts.device_credentials("alice")
        self.accounts.disable("alice")
        self.accounts.disable("alice")
        self.assertEqual(self.accounts.device_credentials("alice"), [])
        self.assertIsNone(self.accounts.with_password("alice", "own"))
        alice = self.accounts.account("alice")
        assert alice is not None
        self.assertTrue(alice.disabled)
        self.assertEqual([(r.account, r.device) for r in self.accounts.revocations()[1]], [("alice", "")])
        self.accounts.enable("alice")
        self.assertEqual(self.accounts.device_credentials("alice"), before)
        self.assertIsNotNone(self.accounts.with_password("alice", "own"))
        self.assertEqual(len(self.accounts.revocations()[1]), 1)

    def test_all_or_nothing(self) -> None:
        self.accounts.add_many([NewUser("alice"), NewUser("bob", number="+4930")])
        self.assertRaises(AccountError, self.accounts.change, "alice", disabled=True, number="+4930")
        alice = self.accounts.account("alice")
        assert alice is not None
        self.assertFalse(alice.disabled)
        self.assertEqual(self.accounts.revocations()[1], [])

    # -- devices -----------------------------------------------------------------------------------

    def test_device_names(self) -> None:
        self.accounts.add(NewUser("alice"))
        self.assertEqual(self.accounts.add_device("alice")[0], "phone2")
        self.assertEqual(self.accounts.add_device("alice", "desk", "pw"), ("desk", "pw"))
        self.assertEqual(self.accounts.add_device("alice")[0], "phone3")
        self.assertRaises(AccountError, self.accounts.add_device, "alice", "desk")
        self.assertRaises(AccountError, self.accounts.add_device, "alice", "de sk")

    def test_most_devices(self) -> None:
        self.accounts.add(NewUser("alice", device=""))
        for _ in range(MAXIMUM_DEVICES):
            self.accounts.add_device("alice")
        error = self.assertRaises(AccountError, self.accounts.add_device, "alice")
        self.assertIn("10 devices", str(error))

    def test_secrets_are_sealed(self) -> None:
        """The database alone gives nobody's secrets away."""
        self.accounts.add(NewUser("alice", "desk", "hunter2"))
        digests = [s.ha1 for s in self.accounts.device_credentials("alice")]
        self.database.close()
        path = Path(self.url.removeprefix("sqlite:///"))
        content = b"".join(p.read_bytes() for p in path.parent.glob(f"{path.name}*"))
        for secret in ("hunter2", *digests):
            self.assertNotIn(secret.encode(), content)

    def test_reopened(self) -> None:
        self.accounts.add(NewUser("alice", "desk", "pw"))
        identity = self.database.id
        before = self.accounts.device_credentials("alice")
        self.database.close()
        again = self.open()
        self.assertEqual(again.device_credentials("alice"), before)
        self.assertEqual(self.database.id, identity)

    # -- revocations -------------------------------------------------------------------------------

    def test_revocations(self) -> None:
        self.accounts.add_many([NewUser("alice", "desk"), NewUser("bob")])
        start, entries = self.accounts.revocations()
        self.assertEqual(entries, [])
        self.accounts.revoke_device("alice", "desk")
        self.clock.advance(5)
        self.accounts.remove("bob")
        cursor, entries = self.accounts.revocations(start)
        self.assertEqual(
            [(e.account, e.device, e.time) for e in entries], [("alice", "desk", 1000.0), ("bob", "", 1005.0)]
        )
        self.assertEqual(self.accounts.revocations(cursor), (cursor, []))
        self.assertEqual(self.accounts.device_credentials("alice"), [])
        self.assertFalse(self.accounts.exists("bob"))

    def test_no_such_device(self) -> None:
        self.accounts.add(NewUser("alice", "desk"))
        self.assertRaises(UnknownAccount, self.accounts.revoke_device, "alice", "phone")
        self.assertEqual(self.accounts.revocations()[1], [])

    def test_strange_cursors(self) -> None:
        """From a copy of the database, or made up: all is told again rather than something missed."""
        self.accounts.add(NewUser("alice"))
        self.accounts.remove("alice")
        other = Database(self.new_url(), self.clock.seconds)
        self.addCleanup(other.close)
        cursor = f"{other.id}.1"
        for strange in (cursor, "", "x", "1", f"{self.database.id}.", f"{self.database.id}.{'9' * 40}"):
            self.assertEqual(len(self.accounts.revocations(strange)[1]), 1, strange)

    def test_many_revocations(self) -> None:
        names = [f"user{i}" for i in range(1005)]
        self.accounts.add_many([NewUser(name, device="") for name in names])
        with self.database.writing() as connection:
            for name in names:
                self.accounts._revoke(connection, name, "")
        cursor, first = self.accounts.revocations()
        _, second = self.accounts.revocations(cursor)
        self.assertEqual([r.account for r in first + second], names)

    # -- audit -------------------------------------------------------------------------------------

    def test_audit(self) -> None:
        self.database.record("event", "bad\r\nname\udc80", "192.0.2.1", "x" * 1000)
        self.database.record("later", "y")
        later, earlier = self.database.audit_log()
        self.assertEqual(later["event"], "later")
        self.assertEqual(
            earlier,
            {
                "time": 1000.0,
                "event": "event",
                "subject": "bad??name?",
                "source": "192.0.2.1",
                "detail": "x" * 255,
            },
        )

    def test_audit_is_bounded(self) -> None:
        database = Database(self.new_url(), self.clock.seconds, audit_lines=10)
        self.addCleanup(database.close)
        for number in range(25):
            database.record("event", str(number))
        self.assertEqual([k["subject"] for k in database.audit_log()], [str(n) for n in range(24, 14, -1)])


class ConcurrencyTests(TestCase):
    async def test_threads(self) -> None:
        """Ten threads that read and then write do not fail, and none exceeds the number of devices."""
        database = Database(f"sqlite:///{self.mktemp()}", lambda: 1.0)
        self.addCleanup(database.close)
        accounts = Accounts(database, KEY, "example.org", PasswordHashes(cost=2))
        accounts.add(NewUser("alice", device=""))
        failed = []
        waiting = [deferToThread(accounts.add_device, "alice") for _ in range(MAXIMUM_DEVICES + 5)]
        for each in waiting:
            try:
                await each
            except AccountError as e:
                failed.append(str(e))
        self.assertEqual(len(accounts.devices("alice")), MAXIMUM_DEVICES)
        self.assertEqual(len(failed), 5)
        self.assertIn("10 devices", failed[0])
