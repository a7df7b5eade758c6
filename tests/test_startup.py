"""How a node starts, by what it finds: every case of its life."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IResolver
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names.error import DNSNameError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from p2psip.enrollment.tokens import JoinToken
from p2psip.startup import (
    Discovered,
    Found,
    JoinByDocument,
    JoinByToken,
    Rejoin,
    StartError,
    configuration_server,
    decide,
    read_secret,
)
from p2psip.state import StateDirectory, write_file

TOKEN = JoinToken("example.org", ("https://192.0.2.1:8443",), bytes(32), "second", "pw")
ELSEWHERE = JoinToken("example.com", ("https://192.0.2.1:8443",), bytes(32), "second", "pw")
DNS = ("config.example.org", 8443)


@implementer(IResolver)
class FakeResolver:
    """Answers SRV queries with `records`, or fails with an exception, or never."""

    def __init__(self, records: Sequence[dns.Record_SRV] | Exception | None) -> None:
        self.records = records
        self.asked: list[str] = []

    def lookupService(self, name: str, timeout: Sequence[int] | None = None) -> Deferred[Any]:
        self.asked.append(name)
        if self.records is None:
            return Deferred()
        if isinstance(self.records, Exception):
            return fail(self.records)
        answers = [dns.RRHeader(name.encode(), dns.SRV, payload=record) for record in self.records]
        return succeed((answers, [], []))


class DiscoveryTests(SynchronousTestCase):
    def discovered(self, records: Sequence[dns.Record_SRV] | Exception | None, seconds: float = 0) -> Any:
        clock, resolver = Clock(), FakeResolver(records)
        found = Deferred.fromCoroutine(configuration_server("example.org", resolver, clock))
        clock.advance(seconds)
        self.assertEqual(resolver.asked, ["_reload-config._tcp.example.org"])
        return self.successResultOf(found)

    def test_best(self) -> None:
        """The record of the lowest priority, of those the one of the highest weight. [6940-11.2-4]"""
        records = [
            dns.Record_SRV(20, 9, 1, b"far.example.org"),
            dns.Record_SRV(10, 1, 2, b"light.example.org"),
            dns.Record_SRV(10, 5, 8443, b"near.example.org"),
        ]
        self.assertEqual(self.discovered(records), ("near.example.org", 8443))

    def test_none(self) -> None:
        """No record, one that says that there is no server, no such name, or no answer in time."""
        self.assertIsNone(self.discovered([]))
        self.assertIsNone(self.discovered([dns.Record_SRV(0, 0, 0, b".")]))
        self.assertIsNone(self.discovered(DNSNameError("no such name")))
        self.assertIsNone(self.discovered(None, 3))

    def test_cancelled(self) -> None:
        """Who is stopped meanwhile does not go on, and found an overlay."""
        found = Deferred.fromCoroutine(configuration_server("example.org", FakeResolver(None), Clock()))
        found.cancel()
        self.failureResultOf(found, CancelledError)


class DecideTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.state = StateDirectory(Path(self.mktemp()))
        self.asked: list[str] = []
        self.lan: Sequence[tuple[str, int]] | OSError = ()
        self.password = Path(self.mktemp())
        self.password.write_text("pw\n")

    def decide(self, dns: tuple[str, int] | None = None, **options: Any) -> Any:
        defaults = dict.fromkeys(("join", "join-file", "config", "account", "password-file"))
        flags = dict.fromkeys(("no-discovery", "no-create", "client", "self-signed", "lan"), 0)
        given = {name.replace("_", "-"): value for name, value in options.items()}

        async def discover(overlay: str) -> tuple[str, int] | None:
            self.asked.append(overlay)
            return dns

        async def search() -> Sequence[tuple[str, int]]:
            self.asked.append("LAN")
            if isinstance(self.lan, OSError):
                raise self.lan
            return self.lan

        values = {"overlay": "example.org", "node-id-digest": "sha256", **defaults, **flags, **given}
        return self.successResultOf(Deferred.fromCoroutine(self.caught(values, discover, search)))

    async def caught(self, values: Any, discover: Any, search: Any) -> Any:
        try:
            return await decide(values, self.state, discover, search)
        except StartError as e:
            return str(e)

    def lay(self, *names: str) -> None:
        for name in names:
            write_file(self.state.path / name, b"x")

    ENROLLED = ("node.key", "node.crt", "overlay.xml")

    def test_nothing_there(self) -> None:
        token = TOKEN.encode()
        password = str(self.password)
        account = {"account": "alice", "password_file": password}
        for expected, options in (
            (Found(), {}),
            (Found(), {"no_discovery": 1}),
            (Found(), {"no_discovery": 1, "dns": DNS}),
            (Discovered(*DNS), {"dns": DNS}),
            (Discovered(*DNS), {"dns": DNS, "no_create": 1}),
            (Discovered(*DNS), {"dns": DNS, "client": 1}),
            (JoinByToken(TOKEN), {"join": token}),
            (JoinByToken(TOKEN), {"join": token, "dns": DNS}),
            (JoinByToken(TOKEN), {"join": token, "no_create": 1, "client": 1}),
            (JoinByDocument("o.xml", "alice", "pw"), {"config": "o.xml", **account}),
            (JoinByDocument("o.xml", "alice", "pw"), {"config": "o.xml", "dns": DNS, **account}),
            (JoinByDocument("o.xml", None, None), {"config": "o.xml"}),
            (JoinByDocument("o.xml", "alice", None), {"config": "o.xml", "account": "alice"}),
            (Found("sha256"), {"self_signed": 1}),
            (Found("sha1"), {"self_signed": 1, "node_id_digest": "sha1"}),
            (Discovered(*DNS), {"self_signed": 1, "dns": DNS}),
        ):
            self.assertEqual(self.decide(**options), expected, options)

    def test_dns_is_asked_only_when_it_matters(self) -> None:
        self.decide(join=TOKEN.encode())
        self.decide(no_discovery=1)
        self.assertEqual(self.asked, [])
        self.decide()
        self.assertEqual(self.asked, ["example.org"])

    def test_on_the_lan(self) -> None:
        """Who finds its overlay there says how to join it, and does not found it; who cannot look neither."""
        self.assertEqual(self.decide(lan=1), Found())
        self.lan = [("192.0.2.1", 8443), ("2001:db8::1", 8443)]
        self.patch(sys, "argv", ["/opt/bin/twistd", "-n", "p2psip", "--overlay", "example.org", "--state", "a b"])
        said = self.decide(lan=1)
        self.assertIn("example.org is on this LAN, at 192.0.2.1:8443 and [2001:db8::1]:8443", said)
        self.assertIn("twistd -n p2psip --overlay example.org --state 'a b' --join TOKEN", said)
        self.assertEqual(len(said.splitlines()), 1)
        self.lan = OSError("Address already in use")
        self.assertIn("Address already in use", self.decide(lan=1))
        self.asked.clear()
        self.assertEqual(self.decide(), Found())
        self.assertEqual(self.decide(lan=1, join=TOKEN.encode()), JoinByToken(TOKEN))
        self.assertEqual(self.decide(lan=1, dns=DNS), Discovered(*DNS))
        self.assertNotIn("LAN", self.asked)
        self.lay(*self.ENROLLED)
        self.assertEqual(self.decide(lan=1), Rejoin())

    def test_forbidden_to_found(self) -> None:
        self.assertIn("--no-create", self.decide(no_create=1))
        self.assertIn("--client", self.decide(client=1))
        self.assertIn("--no-create", self.decide(no_create=1, no_discovery=1))

    def test_enrolled(self) -> None:
        """Credentials decide, whatever else is said or there: it never founds a second overlay."""
        self.lay(*self.ENROLLED)
        for options in (
            {},
            {"join": TOKEN.encode()},
            {"join": ELSEWHERE.encode()},
            {"join": "damaged"},
            {"config": "o.xml", "account": "a", "password_file": "/nonexistent"},
            {"dns": DNS},
            {"no_create": 1, "client": 1, "no_discovery": 1},
            {"self_signed": 1},
        ):
            self.assertEqual(self.decide(**options), Rejoin(), options)
        self.assertEqual(self.asked, [])
        self.lay("authority/ca.key")
        self.assertEqual(self.decide(), Rejoin())

    def test_half_enrolled(self) -> None:
        """It takes the same way again, and does not found."""
        self.lay("node.key", "overlay.xml")
        self.assertIn("not finished", self.decide())
        self.assertIn("not finished", self.decide(no_discovery=1))
        self.assertEqual(self.decide(dns=DNS), Discovered(*DNS))
        self.assertEqual(self.decide(join=TOKEN.encode()), JoinByToken(TOKEN))

    def test_half_founded(self) -> None:
        """The founding is finished, whatever the DNS says by now."""
        self.lay("authority/signer.key")
        self.assertEqual(self.decide(), Found())
        self.lay("authority/ca.key", "node.key")
        self.assertEqual(self.decide(dns=DNS), Found())
        self.assertEqual(self.asked, ["example.org"])
        self.assertIn("--no-create", self.decide(no_create=1))
        self.assertIn("--client", self.decide(client=1))

    def test_half_founded_self_signed(self) -> None:
        """It is finished as it was begun."""
        self.lay("signer.key", "node.key")
        self.assertEqual(self.decide(self_signed=1, dns=DNS), Found("sha256"))
        self.assertIn("with --self-signed", self.decide())
        self.assertIn("--no-create", self.decide(self_signed=1, no_create=1))
        (self.state.path / "signer.key").unlink()
        self.lay("authority/ca.key")
        self.assertIn("without --self-signed", self.decide(self_signed=1))

    def test_tokens(self) -> None:
        self.assertIn("example.com, not example.org", self.decide(join=ELSEWHERE.encode()))
        self.assertIn("damaged", self.decide(join=TOKEN.encode()[:-5]))
        path = Path(self.mktemp())
        path.write_text(f"{TOKEN.encode()[:50]}\n{TOKEN.encode()[50:]}\n")
        self.assertEqual(self.decide(join_file=str(path)), JoinByToken(TOKEN))
        self.assertIn("cannot read", self.decide(join_file="/nonexistent"))

    def test_secrets(self) -> None:
        self.assertEqual(read_secret(str(self.password)), "pw")
        self.patch(sys, "stdin", io.StringIO(" from stdin \n"))
        self.assertEqual(read_secret("-"), "from stdin")
        self.password.write_text("first line\nsecond\n")
        self.assertEqual(read_secret(str(self.password)), "first line")
        self.password.write_text("\n")
        self.assertRaises(StartError, read_secret, str(self.password))
        self.password.write_bytes(b"\xff\xfe")
        self.assertRaises(StartError, read_secret, str(self.password))
