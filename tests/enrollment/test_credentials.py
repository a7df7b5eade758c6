"""What a registrar keeps of its users, with the server up, down, and of another mind."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.enrollment import credentials as module
from p2psip.enrollment.accounts import Revocation
from p2psip.enrollment.authority import DAY, OverlayAuthority, Refusal
from p2psip.enrollment.client import Refused, Unavailable, UserCredentials
from p2psip.enrollment.credentials import PATIENCE, RETRY, RegistrarCredentials
from p2psip.sip import errors as sip
from p2psip.sip.digest import DigestCredentials
from p2psip.sip.interfaces import ICredentials

from . import world
from .world import HASHES, OVERLAY, Member

NOW = 1_800_000_000.0


class LocalClient:
    """Asks an authority of the same process, as the registrar `member`."""

    def __init__(self, authority: OverlayAuthority, member: Member) -> None:
        self.authority = authority
        self.member = member
        self.down = False
        self.asked: list[str] = []
        self.held: Deferred[None] | None = None
        self.made = self.closed = 0

    def close(self) -> Deferred[None]:
        self.closed += 1
        return succeed(None)

    async def user_credentials(self, csr: bytes, method: str, authorization: str) -> UserCredentials:
        proof = DigestCredentials.parse(authorization)
        self.asked.append(proof.username)
        if self.held is not None:
            await self.held
        if self.down:
            raise Unavailable("down")
        try:
            granted = self.authority.user_credentials(self.member.identity, csr, method, proof)
        except Refusal as e:
            raise Refused(e.token) from e
        return UserCredentials(granted.certificate, granted.credentials, granted.as_of, granted.max_age)

    async def revocations(self, cursor: str) -> tuple[str, list[Revocation]]:
        if self.down:
            raise Unavailable("down")
        return self.authority.revocations(self.member.identity, cursor)


class CredentialsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.authority = OverlayAuthority.create(Path(self.mktemp()), OVERLAY, self.clock.seconds, hashes=HASHES)
        self.addCleanup(self.authority.close)
        self.member = world.join(self.authority, "second")
        self.client = LocalClient(self.authority, self.member)
        self.path = Path(self.mktemp())
        self.revoked: list[tuple[str, str]] = []
        world.add_user(self.authority)
        self.registrar = self.start()

    def start(self) -> RegistrarCredentials:
        def client() -> Any:
            self.client.made += 1
            return self.client

        registrar = RegistrarCredentials(
            client,
            world.trust(self.authority),
            self.member.key,
            OVERLAY,
            self.path,
            self.clock,
            lambda account, device: self.revoked.append((account, device)),
        )
        self.addCleanup(registrar.stop)
        return registrar

    def answer(self, user: str, password: str, algorithm: str = "SHA-256") -> DigestCredentials:
        return world.answer(self.member.challenge(self.clock.seconds(), algorithm), user, password)

    def ask(self, user: str = "alice", password: str = "secret", algorithm: str = "SHA-256") -> Deferred[Any]:
        return self.registrar.credentials(user, self.answer(user, password, algorithm), "REGISTER")

    def devices(self, *arguments: str) -> set[str]:
        return {c.device for c in self.successResultOf(self.ask(*arguments))}

    def test_interface(self) -> None:
        verifyObject(ICredentials, self.registrar)

    def test_asked_once(self) -> None:
        self.assertFalse(self.registrar.known("alice"))
        self.assertIsNone(self.registrar.signer("alice"))
        self.assertEqual(self.devices(), {"desk"})
        self.assertEqual(self.devices("alice", "secret", "MD5"), {"desk"})
        self.assertEqual(self.client.asked, ["alice"])
        self.assertTrue(self.registrar.known("alice"))
        signer = self.registrar.signer("alice")
        assert signer is not None
        self.assertEqual(signer.identity.user_name, "alice@example.org")
        self.assertEqual(signer.node_id, self.member.node_id)

    def test_unknown_or_wrong(self) -> None:
        for user, password in (("bob", "x"), ("alice", "guess")):
            self.failureResultOf(self.ask(user, password), sip.Refused)
            self.assertFalse(self.registrar.known(user))
        self.failureResultOf(self.ask("a b", "x"), sip.UnknownUser)
        self.assertEqual(self.client.asked, ["bob", "alice"])

    def test_server_down(self) -> None:
        """Who is known stays known; nobody new comes in."""
        self.devices()
        self.client.down = True
        world.add_user(self.authority, "bob")
        self.failureResultOf(self.ask("bob"), sip.Unavailable)
        self.assertEqual(self.devices(), {"desk"})
        self.clock.advance(2 * DAY)
        self.assertEqual(self.devices(), {"desk"})
        self.assertEqual(self.client.asked, ["alice", "bob", "alice"])
        self.clock.advance(RETRY - 1)
        self.devices()
        self.assertEqual(len(self.client.asked), 3)
        self.clock.advance(1)
        self.client.down = False
        self.devices()
        self.assertEqual(len(self.client.asked), 4)
        self.clock.advance(DAY - 1)
        self.devices()
        self.assertEqual(len(self.client.asked), 4)

    def test_ends_with_the_certificate(self) -> None:
        """A week without the server, and no longer."""
        self.devices()
        self.client.down = True
        self.clock.advance(7 * DAY - 1)
        self.assertTrue(self.registrar.known("alice"))
        self.clock.advance(1)
        self.assertFalse(self.registrar.known("alice"))
        self.assertIsNone(self.registrar.signer("alice"))
        self.failureResultOf(self.ask(), sip.Unavailable)

    def test_wrong_guesses(self) -> None:
        """They take nothing from a known user, and ask the server only now and then."""
        self.devices()
        for _ in range(5):
            self.assertEqual(self.devices("alice", "guess"), {"desk"})
        self.assertEqual(len(self.client.asked), 1)
        self.clock.advance(PATIENCE)
        for _ in range(5):
            self.assertEqual(self.devices("alice", "guess"), {"desk"})
        self.assertEqual(len(self.client.asked), 2)
        self.assertEqual(self.devices(), {"desk"})

    def test_second_device(self) -> None:
        """Added later, it is asked for as soon as its phone shows up."""
        self.devices()
        self.authority.accounts.add_device("alice", "mobile", "other")
        self.clock.advance(PATIENCE)
        self.assertEqual(self.devices("alice", "other"), {"desk", "mobile"})

    def test_both_phones_at_once(self) -> None:
        self.client.held = Deferred()
        one, other = self.ask(), self.ask(algorithm="MD5")
        self.client.held.callback(None)
        self.assertEqual(self.successResultOf(one), self.successResultOf(other))
        self.assertEqual(self.client.asked, ["alice"])
        self.assertEqual(self.registrar._locks, {})

    def test_waiting_behind_a_wrong_guess(self) -> None:
        self.client.held = Deferred()
        wrong, right = self.ask("alice", "guess"), self.ask()
        held, self.client.held = self.client.held, None
        held.callback(None)
        self.failureResultOf(wrong, sip.Refused)
        self.assertEqual(len(self.successResultOf(right)), 2)

    def test_too_many_waiting(self) -> None:
        self.patch(module, "MAXIMUM_WAITING", 3)
        self.client.held = Deferred()
        waiting = [self.ask(name) for name in ("a", "b", "b")]
        self.failureResultOf(self.ask("c"), sip.Unavailable)
        self.client.held.callback(None)
        for each in waiting:
            self.failureResultOf(each, sip.Refused)
        self.devices()

    def test_bounded_memory(self) -> None:
        self.patch(module, "MAXIMUM_CACHED", 2)
        for name in ("bob", "carol", "dave"):
            world.add_user(self.authority, name)
            self.devices(name)
        self.assertEqual(len(self.registrar._cached), 2)
        self.assertTrue(self.registrar.known("bob"))
        self.devices("bob")
        self.assertEqual(len(self.client.asked), 3)

    def test_client(self) -> None:
        """One for many users, so that its connections serve them all; another when there is no answer."""
        for name in ("bob", "carol"):
            world.add_user(self.authority, name)
            self.devices(name)
        self.assertEqual((self.client.made, self.client.closed), (1, 0))
        self.clock.advance(300)
        self.devices()
        self.assertEqual((self.client.made, self.client.closed), (2, 1))
        self.client.down = True
        self.failureResultOf(self.ask("dave"), sip.Unavailable)
        self.assertEqual((self.client.made, self.client.closed), (2, 2))
        self.registrar.start()
        self.assertEqual((self.client.made, self.client.closed), (3, 3))
        self.client.down = False
        self.clock.advance(60)
        self.registrar.stop()
        self.assertEqual((self.client.made, self.client.closed), (4, 4))

    # -- restart -----------------------------------------------------------------------------------

    def test_restarted(self) -> None:
        """With the server down, users go on; the file is for its owner alone."""
        self.devices()
        self.registrar.stop()
        self.client.down = True
        self.registrar = self.start()
        self.assertTrue(self.registrar.known("alice"))
        self.assertEqual(self.devices(), {"desk"})
        self.assertEqual(len(self.client.asked), 1)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_restarted_with_another_key(self) -> None:
        self.devices()
        self.registrar.stop()
        self.member = world.join(self.authority, "third")
        self.registrar = self.start()
        self.assertFalse(self.registrar.known("alice"))

    def test_restarted_too_late(self) -> None:
        self.devices()
        self.registrar.stop()
        self.clock.advance(8 * DAY)
        self.registrar = self.start()
        self.assertFalse(self.registrar.known("alice"))

    # -- revocation --------------------------------------------------------------------------------

    def test_revoked_device(self) -> None:
        self.authority.accounts.add_device("alice", "mobile", "other")
        self.devices()
        self.registrar.start()
        self.authority.accounts.revoke_device("alice", "desk")
        self.clock.advance(60)
        self.assertEqual(self.revoked, [("alice", "desk")])
        self.assertEqual(self.devices("alice", "other"), {"mobile"})
        self.assertEqual(self.devices("alice", "secret"), {"mobile"})

    def test_removed_account(self) -> None:
        self.devices()
        self.registrar.start()
        self.authority.accounts.remove("alice")
        known: list[bool] = []
        self.registrar._revoked = lambda account, _: known.append(self.registrar.signer(account) is not None)
        self.clock.advance(60)
        self.assertEqual(known, [True])
        self.assertFalse(self.registrar.known("alice"))
        self.failureResultOf(self.ask(), sip.Refused)

    def test_last_device(self) -> None:
        self.devices()
        self.registrar.start()
        self.authority.accounts.revoke_device("alice", "desk")
        self.clock.advance(60)
        self.assertFalse(self.registrar.known("alice"))

    def test_revoked_while_away(self) -> None:
        """Read from the server as soon as it answers again, also after a restart."""
        self.devices()
        self.registrar.start()
        self.client.down = True
        self.clock.advance(60)
        self.authority.accounts.remove("alice")
        self.registrar.stop()
        self.registrar = self.start()
        self.registrar.start()
        self.assertTrue(self.registrar.known("alice"))
        self.client.down = False
        self.clock.advance(60)
        self.assertFalse(self.registrar.known("alice"))
        self.assertEqual(self.revoked, [("alice", "")])
        self.clock.advance(600)
        self.assertEqual(self.revoked, [("alice", "")])

    def test_revoked_while_nothing_can_be_kept(self) -> None:
        """The list is looked at again, and read from where it was."""
        self.devices()
        self.registrar.start()
        database = sqlite3.connect(self.path)
        self.addCleanup(database.close)
        database.execute("ALTER TABLE revocations RENAME TO away")
        self.authority.accounts.remove("alice")
        self.clock.advance(60)
        database.execute("ALTER TABLE away RENAME TO revocations")
        self.revoked.clear()
        self.clock.advance(60)
        self.assertEqual(self.revoked, [("alice", "")])
        self.assertFalse(self.registrar.known("alice"))

    def test_old_revocations_again(self) -> None:
        """Told once more, by a copy of the authority, they do not hit what was made anew since."""
        self.authority.accounts.remove("alice")
        self.clock.advance(5)
        world.add_user(self.authority)
        self.devices()
        self.registrar.start()
        self.assertTrue(self.registrar.known("alice"))
        self.assertEqual(self.revoked, [])

    def test_refused_renewal(self) -> None:
        """Revoked, and the list was not read: the renewal tells."""
        self.authority.accounts.add_device("alice", "mobile", "other")
        self.devices()
        self.authority.accounts.revoke_device("alice", "desk")
        self.clock.advance(DAY)
        self.assertEqual(self.devices("alice", "secret"), {"mobile"})
        self.assertEqual(self.devices("alice", "other"), {"mobile"})

    def test_clock_of_the_server(self) -> None:
        """A nonce that the server takes for old takes no device away."""
        self.devices()
        self.clock.advance(DAY)
        old = world.answer(self.member.challenge(NOW), "alice", "secret")
        self.assertEqual(len(self.successResultOf(self.registrar.credentials("alice", old, "REGISTER"))), 2)
        self.assertEqual(self.devices(), {"desk"})

    def test_stopped(self) -> None:
        """An answer that comes after the end does no harm."""
        self.client.held = Deferred()
        asked = self.ask()
        self.registrar.stop()
        self.client.held.callback(None)
        self.successResultOf(asked)
        self.assertFalse(self.start().known("alice"))
