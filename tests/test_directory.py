"""The directory at a node: what ``p2psip directory`` asks of it, and how it is read again and again."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from p2psip.directory import SHARE
from p2psip.directory_administration import DirectoryAdministrator
from p2psip.ids import NodeId
from p2psip.security.certificates import generate_key, make_request
from p2psip.security.identity import Identity

from .enrollment import directories
from .enrollment.directories import BASE, entry
from .test_administration import AdministratorTestCase


class DirectoryTestCase(AdministratorTestCase):
    """`in_thread` is at once, or never while `held`."""

    def setUp(self) -> None:
        super().setUp()
        assert self.service.authority is not None
        self.reading = self.service.authority.directory
        self.held: list[Deferred[Any]] | None = None
        self.patch(self.reading, "in_thread", self.in_thread)

    def in_thread(self, function: Any, *arguments: Any) -> Deferred[Any]:
        if self.held is None:
            return maybeDeferred(function, *arguments)
        self.held.append(Deferred())
        return self.held[-1]

    def command(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
        return self.service.ask(DirectoryAdministrator(self.service).routes(), method, path, body, **query)


class CommandTests(DirectoryTestCase):
    def test_set_and_off(self) -> None:
        """It is kept and tried at once; nobody is shown the password."""
        self.assertEqual(self.command("GET", "/directory")[0], 409)
        url = "ldap://127.0.0.1:1"
        body = {"urls": [url], "base": BASE, "bind_dn": f"cn=r,{BASE}", "bind_password": "hunter2"}
        status, answer = self.command("PUT", "/directory", body)
        self.assertEqual(status, 200)
        self.assertIn("cannot be used now", answer["servers"][url])
        status, shown = self.command("GET", "/directory")
        self.assertEqual((shown["base"], shown["bind_password"]), (BASE, True))
        self.assertNotIn("hunter2", str(shown))
        log = self.authority.database.audit_log(1)[0]
        self.assertEqual((log["event"], log["subject"]), ("directory", url))
        status, answer = self.command("PUT", "/directory", {**body, "base": "nonsense"})
        self.assertEqual((status, "no DN" in answer["error"]), (409, True))
        self.assertEqual(self.command("DELETE", "/directory")[0], 200)
        for method, path in (("GET", "/directory"), ("POST", "/directory/sync"), ("GET", "/directory/test")):
            self.assertIn("no directory", self.command(method, path)[1]["error"])

    def test_without_the_authority(self) -> None:
        self.service.authority = None
        self.assertIn("does not hold the authority", self.command("GET", "/directory")[1]["error"])

    def test_devices(self) -> None:
        """A phone for somebody who never signed in; an account that is there needs no directory."""
        self.assertIn("no account", self.refusal("POST", "/users/alice/devices", {})[1])
        directory = directories.use(self.authority, entry("alice"))
        self.assertEqual(self.ask("POST", "/users/Alice/devices", {})["aor"], "alice@example.org")
        directory.down = True
        self.assertEqual(self.ask("POST", "/users/alice/devices", {})["device"], "phone2")
        self.assertIn("down", self.refusal("POST", "/users/bob/devices", {})[1])

    def test_sync(self) -> None:
        """Nodes of who is gone are thrown out of the overlay."""
        directory = directories.use(self.authority, entry("alice"), entry("bob"))
        self.authority.sign_in("alice", "right")
        self.authority.accounts.set_node_quota("alice", 1)
        csr = make_request(generate_key(), "alice@example.org")
        certificate = self.authority.enroll("alice", "right", 1, csr)
        (node_id,) = Identity.from_certificate(certificate, "example.org").node_ids
        directory.remove("alice")
        status, changes = self.command("POST", "/directory/sync", {"force": False})
        self.assertEqual((status, changes["removed"], changes["entries"]), (200, ["alice"], 1))
        self.assertIn(NodeId(node_id), self.configuration.bad_nodes)
        self.assertEqual(self.command("GET", "/directory")[0], 200)

    def test_force(self) -> None:
        directory = directories.use(self.authority, entry("alice"))
        self.authority.sign_in("alice", "right")
        directory.entries.clear()
        self.assertIn("--force", self.command("POST", "/directory/sync", {"force": False})[1]["error"])
        self.assertEqual(self.command("POST", "/directory/sync", {"force": True})[1]["removed"], ["alice"])

    def test_test(self) -> None:
        directory: Any = directories.use(self.authority, entry("alice", number="+4930"))
        directory.check = lambda: {"ldaps://h": ""}
        answer = self.command("GET", "/directory/test")[1]
        self.assertEqual(answer, {"servers": {"ldaps://h": ""}, "user": None})
        found = self.command("GET", "/directory/test", user="alice")[1]["user"]
        self.assertEqual((found["number"], found["account"], found["why"]), ("+4930", False, ""))


class ReadingTests(DirectoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = directories.use(self.authority, entry("alice"))
        self.authority.sign_in("alice", "right")
        clock = self.reading._looping.clock
        assert isinstance(clock, Clock)
        self.clock = clock
        self.reading.start()
        self.addCleanup(self.reading._looping.stop)

    def barred(self) -> bool:
        account = self.authority.accounts.account("alice")
        assert account is not None
        return account.disabled

    def test_within_the_interval(self) -> None:
        """Half of it is the registrars', who ask for revocations."""
        self.directory.put(entry("alice", locked=True))
        self.assertFalse(self.barred())
        interval = SHARE * self.service.options["revocation-interval"]
        self.assertLessEqual(interval, self.service.options["revocation-interval"] / 2)
        self.clock.advance(interval)
        self.assertTrue(self.barred())

    def test_outage(self) -> None:
        """It goes on, and says that once."""
        self.directory.down = True
        for _ in range(3):
            self.clock.advance(60)
        self.assertIn("down", self.reading.trouble)
        self.directory.put(entry("alice", locked=True))
        self.assertFalse(self.barred())
        self.directory.down = False
        self.clock.advance(60)
        self.assertEqual((self.barred(), self.reading.trouble), (True, ""))

    def test_slow(self) -> None:
        """It is read once at a time, however long that takes."""
        self.held = []
        for _ in range(5):
            self.clock.advance(60)
        self.assertEqual(len(self.held), 1)
        held, self.held = self.held, None
        assert self.authority.directory_users is not None
        held[0].callback(self.authority.directory_users.synchronize())
        self.directory.put(entry("alice", locked=True))
        self.clock.advance(60)
        self.assertTrue(self.barred())
