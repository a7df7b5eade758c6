"""Which account has which number: what a registrar remembers, with the server up and down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from p2psip.enrollment import numbers as module
from p2psip.enrollment.authority import OverlayAuthority
from p2psip.enrollment.client import Refused
from p2psip.enrollment.client import Unavailable as ServerUnavailable
from p2psip.enrollment.numbers import FRESH, PATIENCE, RESPITE, STALE, NumberDirectory
from p2psip.sip.errors import Unavailable
from p2psip.throttle import Allowance

from . import world
from .served import ServedTestCase
from .test_server import failure_of
from .world import HASHES, OVERLAY

NOW = 1_800_000_000.0


class LocalClient:
    """Asks an authority of the same process, as a registrar."""

    def __init__(self, authority: OverlayAuthority) -> None:
        self.authority = authority
        self.registrar = world.join(authority, "second").identity
        self.failure: Exception | None = None
        self.held: Deferred[None] | None = None
        self.asked: list[str] = []
        self.closed = 0

    def close(self) -> Deferred[None]:
        self.closed += 1
        return succeed(None)

    async def with_number(self, number: str) -> tuple[str, str] | None:
        await self.delay(number)
        return self.authority.with_number(self.registrar, number)

    async def number_of(self, name: str) -> tuple[str, str] | None:
        await self.delay(name)
        return self.authority.number_of(self.registrar, name)

    async def delay(self, key: str) -> None:
        self.asked.append(key)
        if self.held is not None:
            await self.held
        if self.failure is not None:
            raise self.failure


class NumberDirectoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.authority = OverlayAuthority.create(Path(self.mktemp()), OVERLAY, self.clock.seconds, hashes=HASHES)
        self.addCleanup(self.authority.close)
        self.accounts = self.authority.accounts
        world.add_user(self.authority)
        self.accounts.set_number("alice", "+49301234")
        world.add_user(self.authority, "bob")
        self.client: Any = LocalClient(self.authority)
        self.directory = NumberDirectory(lambda: self.client, self.clock)

    def user_of(self, number: str = "+49301234") -> str | None:
        return self.successResultOf(self.directory.user_of(number))

    def number_of(self, name: str) -> str | None:
        return self.successResultOf(self.directory.number_of(name))

    def test_both_ways(self) -> None:
        self.assertEqual(self.user_of(), "alice")
        self.assertIsNone(self.user_of("+4930"))
        self.assertEqual(self.number_of("alice"), "+49301234")
        self.assertIsNone(self.number_of("bob"))
        self.assertIsNone(self.number_of("carol"))

    def test_what_cannot_be(self) -> None:
        """Nobody is asked for it."""
        for number in ("112", "alice", "", "+49;ext=1", "+" + "1" * 16):
            self.assertIsNone(self.user_of(number))
        for name in ("", "a b", "+49301234", "é", "a@b"):
            self.assertIsNone(self.number_of(name))
        self.assertEqual(self.client.asked, [])

    def test_disabled(self) -> None:
        self.accounts.disable("alice")
        self.assertIsNone(self.user_of())
        self.assertIsNone(self.number_of("alice"))

    def test_remembered(self) -> None:
        """A while, whatever the answer was; then a change is seen."""
        for _ in range(3):
            self.assertEqual(self.user_of(), "alice")
            self.assertIsNone(self.user_of("+4930"))
        self.assertEqual(self.client.asked, ["+49301234", "+4930"])
        self.accounts.set_number("alice", "+4930")
        self.clock.advance(FRESH - 1)
        self.assertEqual(self.user_of(), "alice")
        self.clock.advance(1)
        self.assertIsNone(self.user_of())
        self.assertEqual(self.user_of("+4930"), "alice")

    def test_server_down(self) -> None:
        """Who is known is known for a day; the server is left alone for a moment."""
        self.user_of()
        self.clock.advance(FRESH)
        self.client.failure = ServerUnavailable("down")
        self.assertEqual(self.user_of(), "alice")
        self.failureResultOf(self.directory.user_of("+4930"), Unavailable)
        self.assertEqual(self.client.asked, ["+49301234"] * 2)
        self.clock.advance(RESPITE)
        self.failureResultOf(self.directory.number_of("bob"), Unavailable)
        self.assertEqual(self.client.asked[-1], "bob")
        self.clock.advance(STALE)
        self.failureResultOf(self.directory.user_of("+49301234"), Unavailable)
        self.clock.advance(RESPITE)
        self.client.failure = None
        self.assertEqual(self.user_of(), "alice")

    def test_server_of_another_mind(self) -> None:
        """One that is older than this node, say."""
        self.client.failure = Refused("HTTP status 404")
        self.failureResultOf(self.directory.user_of("+49301234"), Unavailable)

    def test_slow_server(self) -> None:
        self.client.held = Deferred()
        asking = self.directory.user_of("+49301234")
        self.assertNoResult(asking)
        self.clock.advance(PATIENCE)
        self.failureResultOf(asking, Unavailable)
        self.assertEqual(self.client.closed, 1)

    def test_bounded(self) -> None:
        self.patch(module, "MOST_CACHED", 2)
        for number in ("+491", "+492", "+493"):
            self.user_of(number)
        self.assertEqual(list(self.directory._known), ["+492", "+493"])
        self.client.held = Deferred()
        self.directory._slots._room = 1
        first = self.directory.user_of("+494")
        self.failureResultOf(self.directory.user_of("+495"), Unavailable)
        self.client.held.callback(None)
        self.assertIsNone(self.successResultOf(first))
        self.assertIsNone(self.user_of("+495"))

    def test_stopped(self) -> None:
        self.user_of()
        self.directory.stop()
        self.assertEqual(self.client.closed, 1)


class ServedNumberTests(ServedTestCase):
    """The same over HTTPS."""

    def setUp(self) -> None:
        super().setUp()
        world.add_user(self.authority)
        self.authority.accounts.set_number("alice", "+49301234")
        self.member = world.join(self.authority, "second")

    async def test_asked(self) -> None:
        client = self.client(member=self.member)
        self.assertEqual(await client.with_number("+49301234"), ("alice", "+49301234"))
        self.assertEqual(await client.number_of("alice"), ("alice", "+49301234"))
        for nobody in ("+4930", "", "x" * 100, "&account=alice"):
            self.assertIsNone(await client.with_number(nobody), nobody)
        self.assertIsNone(await client.number_of("bob"))

    async def test_registrars_only(self) -> None:
        """Peers and strangers learn nothing."""
        for stranger in world.join(self.authority, "peer", "peer"), None:
            client = self.client(member=stranger)
            refused = await failure_of(client.with_number("+49301234"), Refused)
            self.assertEqual(refused.token, "failed_authentication")
            refused = await failure_of(client.number_of("alice"), Refused)
            self.assertEqual(refused.token, "failed_authentication")

    async def test_slowed_down(self) -> None:
        client = self.client(member=self.member)
        self.server._numbers_by_registrar = Allowance(rate=0.01, burst=1.0)
        await client.with_number("+49301234")
        await failure_of(client.with_number("+49301234"), ServerUnavailable)
        self.assertEqual(self.server.counters["throttled"], 1)
