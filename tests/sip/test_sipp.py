"""A real SIP program: sipp registers 50 users and calls one of them, over UDP and over TCP."""

from __future__ import annotations

from pathlib import Path
from random import SystemRandom
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.procutils import which
from twisted.trial.unittest import TestCase

from p2psip.sip.authentication import Authenticator
from p2psip.sip.digest import NonceMint
from p2psip.sip.domain import Domain
from p2psip.sip.edge import SIPEdge
from p2psip.sip.location import Location
from p2psip.sip.redirect import Redirect
from p2psip.sip.registrar import Registrar
from p2psip.sip.server import SIPServer
from p2psip.throttle import Throttle
from tests.sip.fakes import DOMAIN, FakeCredentials, FakeStore

reactor: Any = installed_reactor
USERS = 50
HERE = Path(__file__).parent
CONTACT_PORT = 17101
"""Appears in Contacts; nothing listens there."""


class SippTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        found = which("sipp")
        self.assertTrue(found, "sipp is not installed (Debian: sip-tester)")
        self.sipp = found[0]
        domain = Domain(DOMAIN, ["127.0.0.1"])
        credentials = FakeCredentials(**{f"u{number}": [f"pw{number}"] for number in range(USERS)})
        self.authenticator = Authenticator(
            domain, credentials, NonceMint(b"\x01" * 16, b"k" * 16), Throttle(free=3), Throttle(free=10)
        )
        self.store = FakeStore()
        self.registrar = Registrar(domain, self.authenticator, Location(), self.store)
        redirect = Redirect(domain, self.authenticator, self.registrar, self.store)
        self.server = SIPServer(domain, self.registrar, reactor.seconds, SystemRandom())
        self.server.serve_calls(None, redirect)
        self.edge = SIPEdge(reactor, self.server, SystemRandom())
        self.edge.listen(["127.0.0.1"], 0)
        self.addCleanup(self.edge.stop)

    async def run_sipp(self, scenario: str, transport: str, rows: list[tuple[str, ...]]) -> int:
        """The exit status of sipp after one call for each row."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        table = folder / "users.csv"
        table.write_text("SEQUENTIAL\n" + "".join(";".join(row) + "\n" for row in rows))
        port = next(target.port for target in self.edge.listening if target.transport == transport)
        arguments = [
            f"127.0.0.1:{port}", "-sf", str(HERE / scenario), "-inf", str(table), "-i", "127.0.0.1",
            "-t", f"{transport[0].lower()}1", "-m", str(len(rows)), "-l", str(len(rows)), "-r", "200",
            "-nostdin", "-timeout", "20", "-timeout_error", "-trace_err", "-error_file", str(folder / "errors"),
        ]  # fmt: skip
        _, err, status = await getProcessOutputAndValue(self.sipp, arguments, path=str(folder), reactor=reactor)
        errors = folder / "errors"
        self.last_output = (
            f"{err.decode('utf-8', 'replace')[-800:]}{errors.read_text()[-2000:] if errors.exists() else ''}"
        )
        return status

    def row(self, number: int, third: str, password: str | None = None, uri: str = "") -> tuple[str, str, str]:
        password = f"pw{number}" if password is None else password
        return f"u{number}", f"[authentication username=u{number} password={password}{uri}]", third

    async def flow(self, transport: str, uri: str) -> None:
        rows = [self.row(number, str(CONTACT_PORT), uri=uri) for number in range(USERS)]
        self.assertEqual(await self.run_sipp("sipp_register.xml", transport, rows), 0, self.last_output)
        for number in range(USERS):
            (contact,) = self.registrar.query(f"u{number}@{DOMAIN}", reactor.seconds())
            self.assertEqual(contact.uri.partition(";")[0], f"sip:u{number}@127.0.0.1:{CONTACT_PORT}")
            self.assertIn(("register", f"u{number}@{DOMAIN}", "120"), self.store.calls)
        calls = [self.row(number, "u1", uri=uri) for number in range(10)]
        self.assertEqual(await self.run_sipp("sipp_invite.xml", transport, calls), 0, self.last_output)
        self.assertEqual(self.server.counters["302"], 10)
        self.assertEqual(self.edge.counters["malformed"], 0)

    async def test_udp(self) -> None:
        """With the digest uri as sipp makes it by itself: that of the server."""
        await self.flow("UDP", "")

    async def test_tcp(self) -> None:
        await self.flow("TCP", f" auth_uri=sip:{DOMAIN}")

    async def test_wrong_password(self) -> None:
        """Refused, counted, and from the fourth on slowed down."""
        rows = [self.row(number, str(CONTACT_PORT), password="wrong") for number in range(8)]
        self.assertNotEqual(await self.run_sipp("sipp_register.xml", "UDP", rows), 0)
        self.assertEqual(self.store.calls, [])
        counters = self.authenticator.counters
        self.assertEqual((counters["wrong credentials"], counters["source slowed down"]), (4, 4))
