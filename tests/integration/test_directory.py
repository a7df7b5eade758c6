"""Users in OpenLDAP: what is asked of it, and nodes and phones of people whom it knows."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.trial.unittest import SynchronousTestCase

from p2psip.enrollment import ldap
from p2psip.enrollment.directory import DirectorySettings, settings_of
from p2psip.enrollment.entries import Member
from p2psip.enrollment.ldap import PAUSE, DirectoryError, DirectoryUnavailable, LDAPDirectory, OutcomeUnknown
from p2psip.security.certificates import generate_key, make_request
from p2psip.sip.numbers import DialPlan

from ..enrollment.test_directory import HOSTILE
from .nodes import NodeProcess, World, run, until
from .slapd import (
    LOCK_OUT,
    PEOPLE,
    PHONES,
    READER,
    READER_PASSWORD,
    REGISTRARS,
    SUFFIX,
    Slapd,
    dn_of,
    make_ca,
)

INTERVAL = 4
"""Seconds of --revocation-interval: not the minute of every day."""


class LDAPTestCase(SynchronousTestCase):
    later = 0.0

    def slapd(self, **options: Any) -> Slapd:
        made = Slapd(**options)
        self.addCleanup(made.close)
        return made

    def settings(self, *servers: Slapd, **changes: Any) -> DirectorySettings:
        values = {
            "urls": [server.url for server in servers],
            "base": PEOPLE,
            "ca": servers[0].ca_file.read_text(),
            "bind_dn": READER,
            "bind_password": READER_PASSWORD,
            "connect_seconds": 2,
            "answer_seconds": 2,
        }
        return settings_of({**values, **changes})

    def directory(self, *servers: Slapd, **changes: Any) -> LDAPDirectory:
        """One whose clock is ahead by `later` seconds."""
        now = lambda: time.monotonic() + self.later  # noqa: E731
        return LDAPDirectory(self.settings(*servers, **changes), now, DialPlan().dialled)

    def member(self, directory: LDAPDirectory, name: str) -> Member:
        found = directory.member(name)
        assert found is not None, name
        return found


class AskingTests(LDAPTestCase):
    def setUp(self) -> None:
        self.server = self.slapd()

    def test_a_user(self) -> None:
        directory = self.directory(self.server)
        entry = self.member(directory, "Alice").entry
        found = (entry.dn, entry.name, entry.display_name, entry.number, entry.locked)
        self.assertEqual(found, (dn_of("alice"), "alice", "Alice Example", "+49301001", False))
        self.assertTrue(directory.proves(entry.dn, "alice's password"))
        for wrong in ("bob's password", "", "x\0", "\x01", "a\u0627b", "\u00ad"):
            self.assertFalse(directory.proves(entry.dn, wrong))
        self.assertFalse(directory.proves("", "x"))
        self.assertEqual(self.server.binds("alice"), 2, "what cannot be a password is not sent")

    def test_names(self) -> None:
        """Hostile ones find nobody; those that are in the directory are not taken."""
        directory = self.directory(self.server)
        for name in HOSTILE:
            self.assertIsNone(directory.member(name))
        for name in ("*", "a)(uid=alice", "аlice", "zo\\e"):
            self.assertEqual(list(directory.candidates(name)), [])
        self.server.add_user("*)(uid=*", rdn="cn=star")
        self.server.add_user("аlice", rdn="cn=cyrillic")
        self.server.add_user("several", uid=["several", "dave"])
        self.assertEqual(directory.candidates("*)(uid=*"), [f"cn=star,{PEOPLE}"])
        self.assertIsNone(directory.member("dave"))
        contents = directory.read()
        self.assertEqual(sorted(contents.entries), ["alice", "bob", "carol"])
        self.assertEqual(contents.counters["no usable user name"], 3)

    def test_groups(self) -> None:
        """By members, by what entries say, and none."""
        self.server.exclude(PHONES, "carol")
        by_dn = self.directory(self.server, group=PHONES, registrar_group=REGISTRARS)
        by_filter = self.directory(self.server, group="(telephoneNumber=*)", registrar_group="(cn=Bob Example)")
        for directory in (by_dn, by_filter):
            contents = directory.read()
            for name, permitted, registrar in (("alice", 1, 0), ("bob", 1, 1), ("carol", 0, 0)):
                member, entry = self.member(directory, name), contents.entry(name, "")
                assert entry is not None
                found = (member.permitted, contents.permitted.has(entry))
                self.assertEqual(found, (bool(permitted), bool(permitted)))
                self.assertEqual((member.registrar, contents.registrars.has(entry)), (bool(registrar),) * 2)
        everybody = self.directory(self.server)
        self.assertTrue(self.member(everybody, "carol").permitted)
        self.assertFalse(self.member(everybody, "bob").registrar)
        missing = self.directory(self.server, group=f"cn=nobody,{SUFFIX}")
        self.assertFalse(self.member(missing, "alice").permitted)
        self.assertIn("no group", str(self.assertRaises(DirectoryError, missing.read)))

    def test_disabled(self) -> None:
        """By the operator; not by the directory's own lock-out, which anybody could bring about."""
        directory = self.directory(self.server)
        self.server.replace(dn_of("alice"), pwdAccountLockedTime="000001010000Z")
        self.assertTrue(self.member(directory, "alice").entry.locked)
        for _ in range(LOCK_OUT + 1):
            directory.proves(dn_of("bob"), "wrong")
        self.assertFalse(directory.proves(dn_of("bob"), "bob's password"))
        self.assertFalse(self.member(directory, "bob").entry.locked)

    def test_pages(self) -> None:
        """More than the server gives at once; and not more than there may be."""
        for number in range(120):
            self.server.add_user(f"u{number}")
        self.assertEqual(len(self.directory(self.server, page_size=50).read().entries), 123)
        error = self.assertRaises(DirectoryError, self.directory(self.server, page_size=50, max_entries=100).read)
        self.assertIn("more than 100 entries", str(error))

    def test_gone(self) -> None:
        """What is there by its DN, whatever the filter; and a base that is not there is an error."""
        directory = self.directory(self.server, filter="(cn=Alice Example)")
        self.assertEqual(directory.named([dn_of("bob"), dn_of("zoe")]), {dn_of("bob"): "bob"})
        lost = self.directory(self.server, base=f"ou=lost,{SUFFIX}")
        for ask in (lost.read, lambda: lost.member("alice")):
            self.assertRaises(DirectoryUnavailable, ask)
        self.assertIn("not there", lost.check()[self.server.url])

    def test_referrals(self) -> None:
        """Are not followed: they could take a password anywhere."""
        with socket.create_server(("127.0.0.1", 0)) as elsewhere:
            elsewhere.settimeout(0.0)
            url = f"ldap://127.0.0.1:{elsewhere.getsockname()[1]}/{dn_of('eve')}"
            self.server.add(
                f"ou=eve,{PEOPLE}", ["referral", "extensibleObject"], ou="eve", uid="eve", ref=url
            )
            directory = self.directory(self.server)
            self.assertIsNone(directory.member("eve"))
            self.assertFalse(self.refused_bind(directory, f"ou=eve,{PEOPLE}"))
            self.assertEqual(len(directory.read().entries), 3)
            self.assertRaises(BlockingIOError, elsewhere.accept)

    def refused_bind(self, directory: LDAPDirectory, dn: str) -> bool:
        try:
            return directory.proves(dn, "a password")
        except DirectoryUnavailable:
            return False


class ProtectionTests(LDAPTestCase):
    def test_another_ca(self) -> None:
        """Nothing is asked of who is not certified by ours: no name and no password is sent."""
        server = self.slapd()
        other = make_ca()[1].public_bytes(Encoding.PEM).decode()
        for changes in ({"ca": other}, {"ca": ""}):
            directory = self.directory(server, **changes)
            self.assertIn("certificate", str(self.assertRaises(DirectoryUnavailable, directory.member, "alice")))
            self.assertRaises(DirectoryUnavailable, directory.proves, dn_of("alice"), "alice's password")
            self.assertIn("certificate", directory.check()[server.url])
        self.assertNotIn("method=128", server.log())

    def test_another_name(self) -> None:
        """A certificate for another host is none."""
        server = self.slapd()
        directory = self.directory(server, urls=[f"ldap://localhost:{server.port}"])
        self.assertRaises(DirectoryUnavailable, directory.member, "alice")

    def test_without_tls(self) -> None:
        """Only where that was said; a server that wants it refuses."""
        self.assertTrue(self.member(self.directory(self.slapd(tls=False), start_tls=False), "alice").permitted)
        directory = self.directory(self.slapd(), start_tls=False)
        self.assertRaises(DirectoryUnavailable, directory.member, "alice")

    def test_password_to_search_with(self) -> None:
        """A wrong one is told, but not shown; it is tried once in a while, lest the directory lock who searches."""
        server = self.slapd()
        directory = self.directory(server, bind_password="another")
        for _ in range(3):
            error = str(self.assertRaises(DirectoryUnavailable, directory.member, "alice"))
            self.assertIn(READER, error)
            self.assertNotIn("another", error)
        self.assertEqual(self.tries(server), 1)
        self.assertIn(READER, str(directory.check()))
        self.assertEqual(self.tries(server), 2, "an operator who asks is answered")
        self.later += PAUSE
        self.assertRaises(DirectoryUnavailable, directory.read)
        self.assertEqual(self.tries(server), 3)

    @staticmethod
    def tries(server: Slapd) -> int:
        """How often somebody tried to be who searches."""
        return sum("BIND" in line and READER in line and "method" in line for line in server.log().splitlines())


class FailingTests(LDAPTestCase):
    def setUp(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listening.close)
        self.silent = f"ldap://127.0.0.1:{self.listening.getsockname()[1]}"

    def test_second_server(self) -> None:
        """It is asked when the first is gone, and at once for some time; then the first again."""
        ca = make_ca()
        first, second = self.slapd(ca=ca), self.slapd(ca=ca)
        now = 0.0
        directory = LDAPDirectory(self.settings(first, second), lambda: now, DialPlan().dialled)
        self.assertTrue(directory.proves(self.member(directory, "alice").entry.dn, "alice's password"))
        self.assertEqual((first.binds("alice"), second.binds("alice")), (1, 0))
        first.stop()
        self.assertTrue(directory.proves(self.member(directory, "alice").entry.dn, "alice's password"))
        self.assertEqual((directory.counters["server failed"], second.binds("alice")), (1, 1))
        first.start()
        now = ldap.AVOID_SECONDS
        self.assertTrue(directory.proves(dn_of("alice"), "alice's password"))
        self.assertEqual((first.binds("alice"), second.binds("alice")), (2, 1))
        for server in (first, second):
            server.stop()
        self.assertRaises(DirectoryUnavailable, directory.read)

    def test_silence(self) -> None:
        """A server that takes connections and says nothing is left for the next one."""
        second = self.slapd()
        directory = self.directory(second, urls=[self.silent, second.url], answer_seconds=1)
        self.assertTrue(self.member(directory, "alice").permitted)

    def talk(self, octets: bytes) -> None:
        """Say this to whoever comes, an octet at a time while they listen."""

        def serve() -> None:
            try:
                with self.listening.accept()[0] as connection:
                    connection.recv(1000)
                    for octet in octets:
                        connection.sendall(bytes([octet]))
                        self.pause.wait(0.2)
            except OSError:
                return

        self.pause = threading.Event()
        self.addCleanup(self.pause.set)
        thread = threading.Thread(target=serve)
        thread.start()
        self.addCleanup(thread.join)

    def plain(self) -> LDAPDirectory:
        settings = DirectorySettings((self.silent,), base=PEOPLE, start_tls=False, connect_seconds=1, answer_seconds=1)
        return LDAPDirectory(settings, time.monotonic, DialPlan().dialled)

    def test_dribble(self) -> None:
        """An octet now and then holds nobody for longer than the whole may take."""
        self.patch(ldap, "ASK_SECONDS", 1.0)
        self.talk(b"\x30\x84\x00\xff\xff\xff" + bytes(1000))
        self.assertRaises(DirectoryUnavailable, self.plain().member, "alice")

    def test_nonsense(self) -> None:
        for octets in (b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes.fromhex("3003020101"), b"\x30\x00"):
            self.talk(octets)
            self.pause.set()
            self.assertRaises(DirectoryUnavailable, self.plain().member, "alice")

    def test_password_without_an_answer(self) -> None:
        """It may have been counted: no other server is asked, and whoever counts guesses is told."""
        second = self.slapd(tls=False)
        directory = self.directory(second, urls=[self.silent, second.url], start_tls=False, answer_seconds=1)
        self.assertRaises(OutcomeUnknown, directory.proves, dn_of("alice"), "alice's password")
        self.assertEqual(second.binds("alice"), 0)


class NodesTestCase(LDAPTestCase):
    """A founder that asks one or two servers."""

    def setUp(self) -> None:
        self.ca = make_ca()
        self.server = self.slapd(ca=self.ca)
        self.world = World(options=("--revocation-interval", str(INTERVAL)))
        self.addCleanup(self.world.close)
        self.founder = self.world.founder()
        self.phone = self.world.sipp()

    def set_directory(self, *options: str, servers: tuple[Slapd, ...] = ()) -> str:
        urls = [server.url for server in servers or (self.server,)]
        printed = self.founder.p2psip(
            "directory", "set", *urls, "--base", PEOPLE, "--ca-file", str(self.server.ca_file),
            "--bind-dn", READER, "--bind-password-stdin", "--group", PHONES, "--registrar-group", REGISTRARS,
            "--connect-seconds", "2", "--answer-seconds", "2", *options, stdin=f"{READER_PASSWORD}\n",
        )  # fmt: skip
        return printed.stdout

    def register(self, user: str, password: str, node: NodeProcess | None = None) -> bool:
        failed = self.phone.register((node or self.founder).address, [(user, password)], 5080)
        return failed == 0

    def registered(self, node: NodeProcess | None = None) -> int:
        total: int = (node or self.founder).status()["registrations"]["total"]
        return total

    def enroll(self, user: str, password: str) -> int:
        """The status that a request with a new key gets."""
        csr = self.world.directory / "csr"
        csr.write_bytes(make_request(generate_key(), "alice@example.org"))
        form = self.world.directory / "form"
        # By hand, since a command line holds no NUL.
        boundary = "--------0123456789"
        fields = {"username": user, "password": password, "nodeids": "1"}
        parts = b"".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n'.encode()
            for n, v in fields.items()
        )
        parts += f'--{boundary}\r\nContent-Disposition: form-data; name="csr"; filename="csr"\r\n\r\n'.encode()
        form.write_bytes(parts + csr.read_bytes() + f"\r\n--{boundary}--\r\n".encode())
        ended = run([
            "curl", "-sS", "--insecure", "-o", "/dev/null", "-w", "%{http_code}",
            "-H", f"Content-Type: multipart/form-data; boundary={boundary}", "--data-binary", f"@{form}",
            f"https://{self.founder.address}:8443/enroll",
        ])  # fmt: skip
        self.assertEqual(ended.returncode, 0, ended.stderr)
        return int(ended.stdout)

    def password_file(self, text: str) -> Path:
        file = self.world.directory / "password"
        file.write_text(f"{text}\n")
        return file

    def users(self) -> dict[str, Any]:
        return {user["name"]: user for user in self.founder.json("user", "list")}


class PhoneTests(NodesTestCase):
    def test_from_first_to_last(self) -> None:
        """A phone of a user whom only the directory knows, until she is disabled there; then again."""
        self.assertIn("answers", self.set_directory())
        password = self.founder.json("device", "add", "alice")["password"]
        alice = self.users()["alice"]
        self.assertEqual((alice["number"], alice["display_name"]), ("+49301001", "Alice Example"))
        other = self.world.join(self.founder)
        for node in (self.founder, other):
            self.assertTrue(self.register("alice", password, node))
        self.server.exclude(PHONES, "alice")
        for node in (self.founder, other):
            until(lambda node=node: not self.registered(node), 60, "the phone is forgotten", [node])
            self.assertFalse(self.register("alice", password, node))
        self.assertIn("may not use", self.founder.p2psip("directory", "test", "alice", check=False).stdout)
        self.assertEqual(self.founder.p2psip("device", "add", "alice", "--name", "x", check=False).returncode, 0)
        self.server.include(PHONES, "alice")
        until(lambda: not self.users()["alice"]["disabled"], 60, "alice is let in", [self.founder])
        self.assertTrue(self.register("alice", password))
        self.server.replace(dn_of("alice"), pwdAccountLockedTime="000001010000Z")
        until(lambda: not self.registered(), 60, "the phone is forgotten", [self.founder])
        self.server.delete(dn_of("alice"))
        until(lambda: "alice" not in self.users(), 60, "the account is removed", [self.founder])
        self.assertNotIn(READER_PASSWORD, "\n".join(self.founder.log))

    def test_renamed(self) -> None:
        """Another user name is another user."""
        self.set_directory()
        password = self.founder.json("device", "add", "carol")["password"]
        self.assertTrue(self.register("carol", password))
        self.server.rename(dn_of("carol"), "uid=caroline")
        until(lambda: not self.registered(), 60, "the phone is forgotten", [self.founder])
        self.assertEqual(list(self.users()), [])

    def test_outage(self) -> None:
        """Phones go on; nobody is disabled; a node's restart needs no directory; it is told once."""
        self.set_directory()
        password = self.founder.json("device", "add", "alice")["password"]
        self.assertTrue(self.register("alice", password))
        self.server.stop()
        self.founder.wait_for("nobody's account is changed")
        self.assertTrue(self.register("alice", password))
        other = self.world.join(self.founder)
        self.assertTrue(self.register("alice", password, other), "a node that has never seen the phone")
        self.assertEqual(self.enroll("bob", "bob's password"), 503)
        self.founder.p2psip("device", "add", "alice")
        refused = self.founder.p2psip("device", "add", "bob", check=False)
        self.assertIn("cannot be used now", refused.stderr)
        self.founder.terminate()
        self.founder.start()
        self.founder.wait_joined()
        self.assertTrue(self.register("alice", password))
        self.server.start()
        self.founder.wait_for("can be read again")
        self.assertFalse(self.users()["alice"]["disabled"])
        told = [line for line in self.founder.log if "nobody's account is changed" in line]
        self.assertLessEqual(len(told), 2, "once in each run")

    def test_second_server(self) -> None:
        second = self.slapd(ca=self.ca)
        self.set_directory(servers=(self.server, second))
        self.founder.p2psip("device", "add", "alice")
        self.server.stop()
        self.founder.p2psip("device", "add", "carol")
        second.replace(dn_of("alice"), cn="Alice Moved")
        until(lambda: self.users()["alice"]["display_name"] == "Alice Moved", 60, "it is read", [self.founder])
        test = self.founder.p2psip("directory", "test", "alice", check=False)
        self.assertEqual(test.returncode, 1)
        self.assertIn(f"{second.url}: answers", test.stdout)

    def test_mass_disappearance(self) -> None:
        """The base has another name, or the filter finds nobody: nobody is kept out, until that is confirmed."""
        self.set_directory()
        for user in ("alice", "bob", "carol"):
            self.founder.p2psip("device", "add", user)
        self.server.rename(PEOPLE, "ou=staff")
        self.founder.wait_for("noSuchObject")
        self.assertFalse(any(user["disabled"] for user in self.users().values()))
        self.server.rename(f"ou=staff,{SUFFIX}", "ou=people")
        self.set_directory("--filter", "(cn=nobody)")
        self.founder.wait_for("3 of 3 accounts would be lost")
        self.assertFalse(any(user["disabled"] for user in self.users().values()))
        refused = self.founder.p2psip("directory", "sync", check=False)
        self.assertIn("--force", refused.stderr)
        self.assertIn("barred: alice, bob, carol", self.founder.p2psip("directory", "sync", "--force").stdout)
        self.assertTrue(all(user["disabled"] for user in self.users().values()))

    def test_off(self) -> None:
        """Phones go on; passwords of the directory are none."""
        self.set_directory()
        password = self.founder.json("device", "add", "alice")["password"]
        self.founder.p2psip("directory", "off")
        self.assertIn("no directory", self.founder.p2psip("directory", "show", check=False).stderr)
        self.assertTrue(self.register("alice", password))
        self.assertEqual(self.enroll("alice", "alice's password"), 403)
        self.assertEqual(self.server.binds("alice"), 0)


class EnrollingTests(NodesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.set_directory()

    def start(self, user: str, password: str) -> NodeProcess:
        node = self.world.node()
        document = self.founder.state / "overlay.xml"
        file = self.password_file(password)
        node.start("--config", str(document), "--account", user, "--password-file", str(file))
        return node

    def test_registrar(self) -> None:
        """Who is in the group runs a node that serves phones, until they are in it no more."""
        self.start("bob", "wrong").wait_for("does not accept")
        node = self.start("bob", "bob's password")
        node.wait_joined()
        password = self.founder.json("device", "add", "alice")["password"]
        self.assertTrue(self.register("alice", password, node))
        self.server.include(REGISTRARS, "alice")
        self.server.exclude(REGISTRARS, "bob")
        self.founder.wait_for("demoted")
        carol = self.founder.json("device", "add", "carol")["password"]
        self.assertFalse(self.register("carol", carol, node), "it is given no more users")

    def test_others_have_no_nodes(self) -> None:
        """403: the password is right, but there is no quota; by the log of slapd it was asked."""
        self.assertEqual(self.enroll("alice", "alice's password"), 403)
        self.assertEqual(self.server.binds("alice"), 1)
        line = self.founder.json("authority", "log", "--limit", "1")[0]
        self.assertEqual((line["subject"], line["detail"]), ("alice", "Node-IDs_not_available"))
        self.assertIn("alice", self.users())

    def test_strangers_lock_nobody(self) -> None:
        """Thirty wrong passwords: slapd sees three, and its entry is not locked."""
        answers = [self.enroll(("alice", "Alice", "ALICE")[n % 3], f"wrong{n}") for n in range(30)]
        self.assertEqual((answers.count(403), answers.count(429)), (3, 27))
        self.assertEqual(self.server.binds("alice"), 3)
        self.assertTrue(self.directory(self.server).proves(dn_of("alice"), "alice's password"))

    def test_hostile_names(self) -> None:
        """They change nothing, reach no filter, and are logged as what can be printed."""
        before = self.users()
        for name in HOSTILE:
            self.assertIn(self.enroll(name, "x"), (403, 429))
            if name and "\0" not in name:
                refused = self.founder.p2psip("device", "add", "--", name, check=False)
                self.assertNotEqual(refused.returncode, 0)
                self.assertNotIn("\n", refused.stderr.strip())
        self.assertEqual(self.users(), before)
        lines = self.founder.json("authority", "log")
        self.assertTrue(all(str(line["subject"]).isprintable() for line in lines))
        self.assertFalse([line for line in self.server.log().splitlines() if "SRCH" in line and "uid=*" in line])
        self.assertTrue(all(line.isprintable() for line in self.founder.log))
