"""Directories: their settings, what is believed of entries, and the accounts of their users."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from p2psip.enrollment.accounts import NewUser, UnknownAccount, is_name, is_number
from p2psip.enrollment.archive import export_authority, import_authority
from p2psip.enrollment.authority import AuthorityError, OverlayAuthority, Refusal
from p2psip.enrollment.database import AccountError
from p2psip.enrollment.directory import (
    FILE,
    DirectoryError,
    DirectorySettingsError,
    keep,
    load,
    settings_of,
)
from p2psip.enrollment.entries import EntryReader, dn_key
from p2psip.enrollment.ldap import DirectoryUnavailable
from p2psip.enrollment.limits import Busy
from p2psip.enrollment.members import FEW, TooManyGone
from p2psip.ids import NodeId
from p2psip.security.certificates import generate_key, make_request
from p2psip.security.identity import Identity
from p2psip.sip.numbers import DialPlan

from . import directories, world
from .directories import BASE, SETTINGS, dn_of, entry
from .served import ServedTestCase

HOSTILE = ("*", "*)(uid=*", "alice)(|(uid=*", "al\0ice", "a" * 10_000, "аlice", "ａlice", "alice\n", "", " alice")
"""The sixth begins with a Cyrillic letter, the seventh with one of full width."""


class SettingsTests(SynchronousTestCase):
    def test_what_cannot_be(self) -> None:
        good: dict[str, Any] = {"urls": ["ldaps://h"], "base": BASE}
        settings_of(good)
        for wrong, reason in (
            ({"urls": []}, "servers"),
            ({"urls": ["ldaps://h"] * 9}, "servers"),
            ({"urls": ["http://h"]}, "ldap://HOST"),
            ({"urls": ["ldap://h:port"]}, "ldap://HOST"),
            ({"urls": ["ldaps://u:p@h"]}, "no more than host and port"),
            ({"urls": ["ldaps://h/dc=org?x"]}, "no more than host and port"),
            ({"urls": "ldaps://h"}, "type"),
            ({"base": ""}, "base is missing"),
            ({"base": "no dn"}, "no DN"),
            ({"base": "dc=a\0"}, "no DN"),
            ({"filter": "uid=*"}, "no filter"),
            ({"filter": "(uid=*"}, "no filter"),
            ({"filter": "(uid=*)(x=y)"}, "no filter"),
            ({"group": "(&(a=b)"}, "no filter"),
            ({"group": "phones"}, "no DN"),
            ({"user_attribute": ""}, "no attribute"),
            ({"number_attribute": "a)(b"}, "no attribute"),
            ({"bind_dn": "cn=x"}, "go together"),
            ({"bind_password": "x"}, "go together"),
            ({"ca": "nothing"}, "CA file"),
            ({"page_size": 0}, "page_size 0"),
            ({"max_entries": True}, "type"),
            ({"answer_seconds": 61}, "answer_seconds 61"),
            ({"start_tls": "yes"}, "type"),
            ({"colour": "red"}, "no setting"),
        ):
            error = self.assertRaises(DirectorySettingsError, settings_of, {**good, **wrong})
            self.assertIn(reason, str(error))
            self.assertNotIn("\n", str(error))

    def test_passwords_are_protected(self) -> None:
        """StartTLS, TLS, the machine itself, or an operator who knows what they do."""
        self.assertTrue(settings_of({"urls": ["ldap://h"], "base": BASE}).start_tls)
        for url in ("ldap://127.0.0.1", "ldap://[::1]:1389", "ldap://localhost", "ldaps://h"):
            settings_of({"urls": [url], "base": BASE, "start_tls": False})
        plain = {"urls": ["ldaps://h", "ldap://h2"], "base": BASE, "start_tls": False}
        self.assertIn("--insecure", str(self.assertRaises(DirectorySettingsError, settings_of, plain)))
        settings_of({**plain, "insecure": True})

    def test_kept(self) -> None:
        """For us alone; nobody is shown the password."""
        path = Path(self.mktemp())
        self.assertIsNone(load(path))
        settings = settings_of(
            {"urls": ["ldaps://a", "ldaps://b:1636"], "base": BASE, "bind_dn": "cn=r", "bind_password": "hunter2"}
        )
        keep(path, settings)
        self.assertEqual(load(path), settings)
        self.assertEqual((path / FILE).stat().st_mode & 0o777, 0o600)
        self.assertNotIn("hunter2", repr(settings) + json.dumps(settings.for_people()))
        (path / FILE).write_text("{")
        self.assertIn("damaged", str(self.assertRaises(DirectorySettingsError, load, path)))
        keep(path, None)
        self.assertIsNone(load(path))

    def test_with_the_authority(self) -> None:
        """It is asked again after a restart, and goes along to another node."""
        authority = world.make(self.mktemp())
        self.addCleanup(authority.close)
        authority.use_directory(SETTINGS)
        archive = export_authority(authority, "open sesame")
        other = import_authority(archive, "open sesame", Path(self.mktemp()), world.OVERLAY, lambda: 0.0, world.HASHES)
        self.addCleanup(other.close)
        for found in (other, OverlayAuthority(authority.directory, world.OVERLAY, lambda: 0.0, world.HASHES)):
            assert found.directory_users is not None
            self.assertEqual(found.directory_users.directory.settings, SETTINGS)
            found.close()
        (authority.directory / FILE).write_text("[]")
        self.assertRaises(AuthorityError, OverlayAuthority, authority.directory, world.OVERLAY, lambda: 0.0)


class EntryTests(SynchronousTestCase):
    reader = EntryReader(SETTINGS, DialPlan("49", "30").dialled)

    def read(self, dn: str = dn_of("alice"), **values: Any) -> tuple[Any, Counter[str]]:
        attributes = {"uid": b"alice", **values}
        raw = {name: value if isinstance(value, list) else [value] for name, value in attributes.items()}
        counters: Counter[str] = Counter()
        return self.reader.entry({"dn": dn, "raw_attributes": raw}, counters), counters

    def test_user_names(self) -> None:
        """One, that can be the user part of an AOR; in lower case."""
        self.assertEqual(self.read(uid=b"Alice")[0].name, "alice")
        self.assertEqual(self.read(UID=b"alice", uid=[b"alice"])[0].name, "alice")
        for wrong in ([], [b"alice", b"bob"], b"\xff", b"x" * 2000, *(name.encode() for name in HOSTILE)):
            found, counters = self.read(uid=wrong)
            self.assertEqual((found, counters["no usable user name"]), (None, 1))
        self.assertIsNone(self.read(dn="uid=alice," + "ou=x," * 200 + BASE)[0])

    def test_numbers(self) -> None:
        """As people write them; what is none is left out."""
        for text, number in (
            ("+49 30 1234", "+49301234"),
            ("+49 (0)30/12-34", "+49301234"),
            ("030 12345", "+493012345"),
            ("112", None),
            ("ext. 4", None),
            ("+" + "1" * 500, None),
        ):
            found, counters = self.read(telephoneNumber=text.encode())
            self.assertEqual((found.number, counters["no usable number"]), (number, int(number is None)))
        self.assertEqual(self.read(telephoneNumber=[b"none", b"+1 212 555 0100"])[0].number, "+12125550100")
        self.assertEqual(self.read()[1], Counter())

    def test_display_names(self) -> None:
        """Without control characters, and not longer than there is room."""
        self.assertEqual(self.read(cn=b" Alice\t Adams ")[0].display_name, "Alice Adams")
        self.assertEqual(len(self.read(cn=b"x" * 900)[0].display_name), 128)
        for wrong in (b"Al\x00ice", b"\xff", "\u202eecila".encode(), b"  "):
            found, counters = self.read(cn=wrong)
            self.assertEqual((found.display_name, counters["no usable display name"]), (None, 1))

    def test_locked(self) -> None:
        """By hand, as three kinds of servers say it; not for wrong passwords, which anybody may have sent."""
        for name, value, locked in (
            ("pwdAccountLockedTime", b"000001010000Z", True),
            ("pwdAccountLockedTime", b"20300101000000Z", False),
            ("nsAccountLock", b"TRUE", True),
            ("nsaccountlock", b"false", False),
            ("userAccountControl", b"514", True),
            ("userAccountControl", b"512", False),
            ("userAccountControl", b"-1", False),
        ):
            self.assertEqual(self.read(**{name: value})[0].locked, locked)

    @given(st.dictionaries(st.sampled_from(["uid", "cn", "telephoneNumber", "x"]), st.lists(st.binary(max_size=40))))
    def test_anything(self, values: dict[str, list[bytes]]) -> None:
        """Whatever it says, what is believed can be an account."""
        found, _ = self.read(**values)
        if found is not None:
            self.assertTrue(is_name(found.name))
            self.assertTrue(found.number is None or is_number(found.number))
            self.assertTrue(found.display_name is None or found.display_name.isprintable())

    def test_spellings_of_a_dn(self) -> None:
        self.assertEqual(dn_key("UID=Alice, OU=People,dc=org"), dn_key("uid=alice,ou=people,dc=org"))
        self.assertNotEqual(dn_key("uid=a,ou=b"), dn_key("uid=a\\,ou=b"))


class DirectoryTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.authority = world.make(self.mktemp())
        self.addCleanup(self.authority.close)
        self.accounts = self.authority.accounts
        self.directory = directories.use(self.authority, entry("alice", number="+4930", display_name="Alice"))
        assert self.authority.directory_users is not None
        self.users = self.authority.directory_users


class SignInTests(DirectoryTestCase):
    def test_first(self) -> None:
        """It makes the account, without a phone; the password is nowhere."""
        account = self.authority.sign_in("alice", "right")
        assert account is not None
        self.assertEqual((account.number, account.display_name, account.directory), ("+4930", "Alice", dn_of("alice")))
        self.assertEqual(self.accounts.devices("alice"), [])
        self.assertIsNone(self.accounts.with_password("alice", "right"))
        self.assertRaises(AccountError, self.accounts.set_password, "alice", "mine")
        again = self.authority.sign_in("ALICE", "right")
        assert again is not None
        self.assertEqual(again.name, "alice")

    def test_refused(self) -> None:
        """Before anybody is asked where that suffices; an account is made for nobody."""
        self.directory.put(entry("bob", locked=True))
        self.directory.put(entry("carol"))
        self.directory.banned.add("carol")
        for name, password in (("alice", ""), ("bob", "right"), ("carol", "right"), ("dave", "right")):
            self.assertIsNone(self.authority.sign_in(name, password))
        self.assertEqual(self.directory.binds, [])
        self.assertIsNone(self.authority.sign_in("alice", "wrong"))
        self.assertEqual(self.accounts.page()[0], 0)

    def test_hostile_names(self) -> None:
        for name in HOSTILE:
            self.assertIsNone(self.authority.sign_in(name, "right"))
        self.assertEqual((self.directory.searches, self.accounts.page()[0]), ([], 0))

    def test_accounts_of_our_own(self) -> None:
        """The directory says nothing of them, and its user of that name gets none of it."""
        self.accounts.add(NewUser("alice", password="ours"))
        self.assertIsNone(self.authority.sign_in("alice", "right"))
        self.assertIsNone(self.authority.sign_in("Alice", "right"))
        account = self.authority.sign_in("alice", "ours")
        assert account is not None
        self.assertEqual((account.directory, self.directory.binds), (None, []))

    def test_disabled_here(self) -> None:
        """The operator's word holds, whatever the directory says."""
        self.authority.sign_in("alice", "right")
        self.accounts.disable("alice")
        self.assertIsNone(self.authority.sign_in("alice", "right"))
        self.users.synchronize()
        account = self.accounts.account("alice")
        assert account is not None
        self.assertTrue(account.disabled)

    def test_number_taken(self) -> None:
        """The account comes without it."""
        self.accounts.add(NewUser("bob", number="+4930"))
        account = self.authority.sign_in("alice", "right")
        assert account is not None
        self.assertIsNone(account.number)

    def test_down(self) -> None:
        self.directory.down = True
        self.assertRaises(DirectoryUnavailable, self.authority.sign_in, "alice", "right")

    def test_provide(self) -> None:
        """An account for a phone, before its user ever signed in; later without asking."""
        self.assertEqual(self.users.provide("Alice").name, "alice")
        self.directory.down = True
        self.assertEqual(self.users.provide("alice").name, "alice")
        self.assertRaises(DirectoryUnavailable, self.users.provide, "bob")
        self.directory.down = False
        self.assertRaises(UnknownAccount, self.users.provide, "bob")
        self.assertRaises(AccountError, self.users.provide, "*")
        self.directory.put(entry("bob", locked=True))
        self.assertRaises(DirectoryError, self.users.provide, "bob")


class EnrollTests(DirectoryTestCase):
    def enroll(self, name: str, password: str = "right") -> Identity:
        csr = make_request(generate_key(), f"{name}@{world.OVERLAY}")
        return Identity.from_certificate(self.authority.enroll(name, password, 1, csr), world.OVERLAY)

    def test_quota(self) -> None:
        """A user of the directory enrolls nodes as others do: with a quota, and as peers."""
        refusal = self.assertRaises(Refusal, self.enroll, "alice")
        self.assertEqual(refusal.token, "Node-IDs_not_available")
        self.accounts.set_node_quota("alice", 1)
        self.assertEqual(self.enroll("alice").role, "peer")
        self.assertEqual(self.assertRaises(Refusal, self.enroll, "alice", "wrong").token, "failed_authentication")

    def test_registrars(self) -> None:
        """Who is in the group runs registrars; no longer, once they are not."""
        self.directory.registrars.add("alice")
        identity = self.enroll("alice")
        self.assertEqual(identity.role, "registrar")
        self.authority.revocations(identity, "")
        self.directory.registrars.clear()
        self.assertEqual(self.users.synchronize().demoted, [f"alice@{world.OVERLAY}"])
        self.assertRaises(Refusal, self.authority.revocations, identity, "")

    def test_barred_registrar(self) -> None:
        """Nothing is given out to the node of a user who may not come in."""
        self.directory.registrars.add("alice")
        identity = self.enroll("alice")
        self.accounts.disable("alice")
        self.assertRaises(Refusal, self.authority.revocations, identity, "")

    def test_invited_nodes_do_not_need_it(self) -> None:
        self.directory.down = True
        self.assertEqual(world.join(self.authority, "alice").identity.role, "registrar")
        self.assertEqual(self.directory.searches, [])


class SynchronizingTests(DirectoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        for number in range(8):
            self.directory.put(entry(f"u{number}"))
            self.users.provide(f"u{number}")
        self.users.provide("alice")
        self.accounts.add_device("alice", "desk", "secret")

    def disabled(self) -> list[str]:
        return [account.name for account in self.accounts.page()[1] if account.disabled]

    def revoked(self) -> list[str]:
        return [entry.account for entry in self.accounts.revocations()[1]]

    def test_nothing_changed(self) -> None:
        changes = self.users.synchronize()
        self.assertEqual((changes.entries, changes.accounts, changes.changed), (9, 9, []))
        self.assertEqual((self.disabled(), self.revoked()), ([], []))

    def test_barred_and_back(self) -> None:
        """Locked, out of the group, or not found by the filter: the account waits, with its phones."""
        for name, bar in (
            ("alice", lambda: self.directory.put(entry("alice", locked=True))),
            ("u1", lambda: self.directory.banned.add("u1")),
            ("u2", lambda: (self.directory.remove("u2"), self.directory.outside.update({dn_of("u2"): "u2"}))),
        ):
            bar()
            self.assertEqual(self.users.synchronize().barred, [name])
            self.assertEqual(self.users.synchronize().barred, [])
        self.assertEqual(self.disabled(), ["alice", "u1", "u2"])
        self.assertEqual(self.revoked(), ["alice", "u1", "u2"])
        self.assertEqual(self.accounts.device_credentials("alice"), [])
        self.directory.put(entry("alice", number="+4930", display_name="Alice"))
        self.assertEqual(self.users.synchronize().changed, ["alice"])
        self.assertEqual(len(self.accounts.device_credentials("alice")), 2)

    def test_barred_until_they_sign_in(self) -> None:
        """Who is let in again need not wait for the next reading."""
        self.directory.banned.add("u1")
        self.users.synchronize()
        self.directory.banned.clear()
        account = self.authority.sign_in("u1", "right")
        assert account is not None
        self.assertFalse(account.disabled)

    def test_removed(self) -> None:
        """An entry that is gone, or has another name; with it go its phones and its nodes."""
        self.accounts.set_node_quota("alice", 1)
        csr = make_request(generate_key(), f"alice@{world.OVERLAY}")
        certificate = self.authority.enroll("alice", "right", 1, csr)
        self.directory.remove("alice")
        self.directory.put(entry("eve", dn=dn_of("u1")))
        changes = self.users.synchronize()
        self.assertEqual(changes.removed, ["alice", "u1"])
        self.assertEqual(sorted(self.revoked()), ["alice", "u1"])
        (node_id,) = Identity.from_certificate(certificate, world.OVERLAY).node_ids
        self.assertEqual([NodeId(n) for n in changes.node_ids], [node_id])
        self.assertIsNone(self.accounts.account("alice"))
        # Whoever is called so later has nothing of theirs.
        self.directory.put(entry("alice"))
        self.assertEqual(self.accounts.devices(self.users.provide("alice").name), [])

    def test_moved_and_changed(self) -> None:
        self.directory.remove("alice")
        self.directory.put(entry("alice", dn=f"uid=alice,ou=berlin,{BASE}", display_name="Dr. Alice", number="+4931"))
        self.assertEqual(self.users.synchronize().changed, ["alice"])
        account = self.accounts.account("alice")
        assert account is not None
        self.assertEqual((account.display_name, account.number), ("Dr. Alice", "+4931"))
        self.assertEqual((account.directory, self.revoked()), (f"uid=alice,ou=berlin,{BASE}", []))

    def test_numbers(self) -> None:
        """They go from one to another; of one that two have the second is told, and others are served."""
        self.directory.put(entry("alice", number="+4931", display_name="Alice"))
        self.directory.put(entry("u1", number="+4930"))
        self.directory.put(entry("u2", number="+4930"))
        self.directory.put(entry("u3", number="+4933"))
        changes = self.users.synchronize()
        self.assertEqual(changes.changed, ["alice", "u1", "u3"])
        self.assertEqual(changes.problems, ["the number +4930 of u2 is u1's"])
        self.assertEqual([self.accounts.by_number(f"+493{n}").name for n in (0, 1, 3)], ["u1", "alice", "u3"])  # type: ignore[union-attr]
        self.assertEqual(self.users.synchronize().changed, [])

    def test_names_that_two_have(self) -> None:
        """Neither can sign in; whose the account is keeps it."""
        self.directory.put(entry("alice", dn=f"uid=alice,ou=sales,{BASE}"))
        changes = self.users.synchronize()
        self.assertEqual((changes.barred, changes.removed), ([], []))
        self.assertIn("2 entries have the user name alice", changes.problems[0])
        self.assertIsNone(self.authority.sign_in("alice", "right"))

    def test_outage(self) -> None:
        """It disables nobody."""
        self.directory.down = True
        self.assertRaises(DirectoryUnavailable, self.users.synchronize)
        self.assertEqual((self.disabled(), self.revoked()), ([], []))

    def test_most_are_gone(self) -> None:
        """That is believed only if somebody confirms it; so is an empty directory, however few were in it."""
        for number in range(FEW):
            self.directory.remove(f"u{number}")
        self.assertEqual(len(self.users.synchronize().removed), FEW)
        for name in ("u5", "u6"):
            self.directory.put(entry(name, locked=True))
        self.users.synchronize()
        for name in (*(f"v{number}" for number in range(FEW + 1)),):
            self.directory.put(entry(name))
            self.users.provide(name)
            self.directory.remove(name)
        self.assertIn("--force", str(self.assertRaises(TooManyGone, self.users.synchronize)))
        self.assertEqual((self.disabled(), self.accounts.page()[0]), (["u5", "u6"], 4 + FEW + 1))
        self.directory.entries.clear()
        self.assertRaises(TooManyGone, self.users.synchronize)
        self.assertEqual(len(self.users.synchronize(force=True).removed), 4 + FEW + 1)

    def test_empty(self) -> None:
        for name in ("alice", *(f"u{number}" for number in range(1, 8))):
            self.accounts.remove(name)
        self.directory.entries.clear()
        self.assertRaises(TooManyGone, self.users.synchronize)

    def test_explain(self) -> None:
        self.directory.put(entry("bob", locked=True))
        self.directory.outside[dn_of("carol")] = "carol"
        self.directory.put(entry("u1", dn=f"uid=u1,ou=x,{BASE}"))
        self.directory.banned.add("u2")
        self.accounts.add(NewUser("own"))
        self.directory.put(entry("own"))
        self.accounts.disable("u3")
        for name, why in (
            ("alice", ""),
            ("bob", "disabled"),
            ("carol", "does not match"),
            ("dave", "no entry below"),
            ("u1", "several entries"),
            ("u2", "not in the group"),
            ("u3", "disabled here"),
            ("own", "not the directory's"),
            ("*", "cannot be a user name"),
        ):
            found = self.users.explain(name)["why"]
            self.assertTrue(why in found if why else not found, (name, found))


class ThrottleTests(ServedTestCase):
    """Guessing at the server ends before the directory would lock an entry."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = directories.use(self.authority, entry("alice"), entry("bob"))

    async def guess(self, name: str, password: str, source: str = "192.0.2.1") -> str:
        try:
            found = await self.server.sign_in(source, name, password)
        except Busy:
            return "busy"
        except DirectoryUnavailable:
            return "unavailable"
        return "no" if found is None else found.name

    async def test_few_binds(self) -> None:
        """Three from wherever they come and however the name is written, for some time."""
        names = ["alice", "Alice", "ALICE"] * 10
        answers = [await self.guess(name, "wrong", f"198.51.100.{n}") for n, name in enumerate(names)]
        self.assertEqual((answers.count("no"), answers.count("busy")), (3, 27))
        self.assertEqual(self.directory.binds, [dn_of("alice")] * 3)
        self.assertEqual(await self.guess("bob", "right"), "bob")
        refused = [line["subject"] for line in self.authority.database.audit_log() if line["event"] == "refused"]
        self.assertEqual(len(refused), 3)

    async def test_right_ones_are_free(self) -> None:
        for _ in range(8):
            self.assertEqual(await self.guess("alice", "right"), "alice")

    async def test_outages_are_free(self) -> None:
        """Unless a password was sent, which may have been counted."""
        self.directory.down = True
        self.assertEqual([await self.guess("alice", "right") for _ in range(8)], ["unavailable"] * 8)
        self.directory.down, self.directory.silent = False, True
        answers = [await self.guess("alice", "right") for _ in range(8)]
        self.assertEqual(answers, ["unavailable"] * 3 + ["busy"] * 5)

    async def test_hostile_names(self) -> None:
        """They change nothing, and are written to the log as what can be printed."""
        for number, name in enumerate(HOSTILE):
            self.assertEqual(await self.guess(name, "right", f"198.51.100.{number}"), "no")
        self.assertEqual((self.directory.searches, self.authority.accounts.page()[0]), ([], 0))
        subjects = [str(line["subject"]) for line in self.authority.database.audit_log()]
        self.assertTrue(all(subject.isprintable() and len(subject) <= 255 for subject in subjects))
        self.assertIn("al?ice", subjects)


class SlowTests(ServedTestCase):
    """A directory that does not answer keeps nobody waiting who does not need it."""

    def in_thread(self, function: Any, *arguments: Any) -> Deferred[Any]:
        return deferToThread(function, *arguments)

    async def test_slow(self) -> None:
        directories.use(self.authority, *(entry(f"u{n}") for n in range(60)))
        stuck: list[Deferred[Any]] = []

        def held(function: Any, *arguments: Any) -> Deferred[Any]:
            stuck.append(Deferred())
            return stuck[-1]

        self.server._in_directory_thread = held
        asked = [
            Deferred.fromCoroutine(self.server.sign_in(f"198.51.100.{n}", f"u{n}", "right")) for n in range(60)
        ]
        # More than may wait are refused; then those that do not ask it go on as ever.
        for waiting in asked[33:]:
            error = await waiting.addErrback(lambda failure: failure.value)
            self.assertIsInstance(error, Busy)
        self.assertEqual(len(stuck), 3)
        token = self.authority.invite("second", "registrar", 3600, [self.url])
        csr = make_request(generate_key(), f"second@nodes.{world.OVERLAY}")
        self.assertTrue(await self.client().enroll(csr, token.account, token.password))
        for waiting in asked[:33]:
            waiting.addErrback(lambda failure: None)
            waiting.cancel()
