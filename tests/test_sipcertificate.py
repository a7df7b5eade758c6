"""The SIP server's certificate over time: found, issued, renewed, replaced."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from p2psip.enrollment.authority import NODE_LIFETIME
from p2psip.enrollment.client import Refused, Unavailable
from p2psip.security.certificates import generate_key, load_private_key, private_key_pem, read_request
from p2psip.sip.errors import SIPListenError
from p2psip.sip.tls import ClientTLS, ServerTLS, shows
from p2psip.sipcertificate import (
    REFUSED,
    SECONDS,
    CertificateFile,
    IssuedCertificate,
    Loaded,
    NotYet,
    SIPCertificate,
    issued_certificate,
    own_certificate,
)
from p2psip.startup import StartError
from p2psip.state import StateDirectory

from .enrollment import world
from .enrollment.world import OVERLAY
from .sip.test_tls import DAY, World

NOW = 1_800_000_000.0
ADDRESSES = ("10.0.0.1", "fd00::1")


class FileTests(SynchronousTestCase):
    """A file of the operator's, as certbot and a hook leave it."""

    def setUp(self) -> None:
        self.world = World()
        self.path = Path(self.mktemp())

    def write(self, *parts: bytes) -> None:
        """Replace it as a whole."""
        new = self.path.with_suffix(".new")
        new.write_bytes(b"".join(parts))
        os.replace(new, self.path)

    def pem(self, *names: str) -> bytes:
        chain = (self.world.certificate(*names), self.world.root)
        return b"".join(each.public_bytes(Encoding.PEM) for each in chain)

    def test_order(self) -> None:
        """Chain and key, one after the other, whichever comes first."""
        key = private_key_pem(self.world.key)
        for parts in ((self.pem("example.org"), key), (key, self.pem("example.org")), (b"text\n", key, self.pem("a"))):
            self.write(*parts)
            loaded = CertificateFile(self.path).load()
            assert loaded is not None
            self.assertEqual((len(loaded.chain), loaded.roots), (2, ()))

    def test_changes(self) -> None:
        """It is read again when it has changed, and only then."""
        file = CertificateFile(self.path)
        self.write(self.pem("example.org"), private_key_pem(self.world.key))
        self.assertIsNotNone(file.load())
        self.assertIsNone(file.load())
        self.write(self.pem("example.net"), private_key_pem(self.world.key))
        loaded = file.load()
        assert loaded is not None
        self.assertTrue(shows(loaded.chain[0], "example.net"))

    def test_unusable(self) -> None:
        """Nothing in it, the halves alone, the key of another: said so, with its name."""
        key = private_key_pem(self.world.key)
        for content in (b"", b"nonsense", self.pem("a"), key, self.pem("a") + private_key_pem(generate_key())):
            self.write(content)
            error = self.assertRaises(NotYet, CertificateFile(self.path).load)
            self.assertIn(str(self.path), str(error))
            self.assertIn("--sip-certificate", str(self.assertRaises(StartError, own_certificate, self.path)))
        self.path.unlink()
        self.assertIn("No such file", str(self.assertRaises(NotYet, CertificateFile(self.path).load)))
        self.write(self.pem("a"), key)
        self.assertIsNotNone(own_certificate(self.path).load())


class IssuedTests(SynchronousTestCase):
    """A certificate of the overlay's authority."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.authority = world.make(self.mktemp(), NOW)
        self.addCleanup(self.authority.close)
        self.authority.sip._now = self.clock.seconds
        self.member = world.join(self.authority, "second")
        self.state = StateDirectory(self.mktemp())
        self.state.prepare()
        self.addCleanup(self.state.release)
        self.asked: list[bytes] = []
        self.failure: Exception | None = None
        self.origin = self.made()

    def made(self, addresses: Sequence[str] = ADDRESSES) -> IssuedCertificate:
        return IssuedCertificate(self.state, OVERLAY, addresses, "second@nodes.example.org", self.ask)

    async def ask(self, csr: bytes, addresses: Sequence[str]) -> Sequence[bytes]:
        self.asked.append(csr)
        if self.failure is not None:
            raise self.failure
        return self.authority.sip_certificate(self.member.identity, csr, addresses, [])

    def look(self, origin: IssuedCertificate | None = None) -> Loaded | None:
        looking = Deferred.fromCoroutine((origin or self.origin).look(self.clock.seconds()))
        found: Loaded | None = self.successResultOf(looking)
        return found

    def failed(self) -> str:
        looking = Deferred.fromCoroutine(self.origin.look(self.clock.seconds()))
        return str(self.failureResultOf(looking, NotYet).value)

    def test_first(self) -> None:
        """Asked for once; the key stays here, for its owner's eyes."""
        loaded = self.look()
        assert loaded is not None
        own = loaded.chain[0]
        self.assertTrue(all(shows(own, name) for name in (OVERLAY, *ADDRESSES)))
        self.assertEqual(stat.S_IMODE(self.state.sip_key.stat().st_mode), 0o600)
        key = load_private_key(self.state.sip_key.read_bytes())
        self.assertEqual(own.public_key(), key.public_key())
        self.assertEqual(read_request(self.asked[0]).public_key, key.public_key())
        root = x509.load_pem_x509_certificate(self.state.sip_root.read_bytes())
        self.assertEqual(list(loaded.roots), [root])
        self.assertEqual(root.public_bytes(Encoding.DER), self.authority.sip.root_certificate)
        self.assertIsNone(self.look())
        self.assertEqual(len(self.asked), 1)

    def test_restart(self) -> None:
        """What is there still serves, without a question."""
        first = self.look()
        again = self.look(self.made())
        assert first is not None and again is not None
        self.assertEqual((again.chain, len(self.asked)), (first.chain, 1))

    def test_renewed(self) -> None:
        """After two thirds of its life, with the same key; while that fails the old one is kept."""
        first = self.look()
        assert first is not None
        self.clock.advance(NODE_LIFETIME * 0.6)
        self.assertIsNone(self.look())
        self.clock.advance(NODE_LIFETIME * 0.1)
        self.failure = Unavailable("it is down")
        self.assertEqual(self.failed(), "it is down")
        self.failure = None
        second = self.look()
        assert second is not None
        self.assertNotEqual(second.chain, first.chain)
        self.assertEqual(second.chain[0].public_key(), first.chain[0].public_key())
        self.assertIsNone(self.look())

    def test_restart_while_it_is_down(self) -> None:
        """Also when it is time to renew; but what has ended is not shown."""
        first = self.look()
        assert first is not None
        self.failure = Unavailable("it is down")
        self.clock.advance(NODE_LIFETIME * 0.9)
        again = self.look(self.made())
        assert again is not None
        self.assertEqual(again.chain, first.chain)
        self.clock.advance(NODE_LIFETIME * 0.2)
        self.origin = self.made()
        self.assertEqual(self.failed(), "it is down")

    def test_renewed_after_such_a_restart(self) -> None:
        self.look()
        self.clock.advance(NODE_LIFETIME * 0.9)
        self.failure = Unavailable("it is down")
        self.origin = self.made()
        self.assertIsNotNone(self.look())
        self.failure = None
        self.assertIsNotNone(self.look())
        self.assertIsNone(self.look())

    def test_another_address(self) -> None:
        """A node that has moved asks for a certificate that names where it is now."""
        self.look()
        loaded = self.look(self.made(("10.0.0.2",)))
        assert loaded is not None
        self.assertTrue(shows(loaded.chain[0], "10.0.0.2"))
        self.assertFalse(shows(loaded.chain[0], "10.0.0.1"))

    def test_address_that_is_not_given(self) -> None:
        """The rest is taken, and it is not asked again and again."""
        origin = self.made(("10.0.0.1", "8.8.8.8"))
        loaded = self.look(origin)
        assert loaded is not None
        self.assertEqual([shows(loaded.chain[0], name) for name in ("10.0.0.1", "8.8.8.8")], [True, False])
        self.assertIsNone(self.look(origin))
        self.assertEqual(len(self.asked), 1)
        self.failure = Unavailable("it is down")
        again = self.look(self.made(("10.0.0.1", "8.8.8.8")))
        self.assertIsNotNone(again)

    def test_refused(self) -> None:
        """Who was refused does not ask each minute."""
        self.failure = Refused("failed_authentication")
        self.failed()
        self.clock.advance(REFUSED - 1)
        self.assertIsNone(self.look())
        self.assertEqual(len(self.asked), 1)
        self.failure = None
        self.clock.advance(1)
        self.assertIsNotNone(self.look())

    def test_nonsense(self) -> None:
        """A chain for another key or domain, and none at all, are not taken."""
        other = world.make(self.mktemp(), NOW)
        self.addCleanup(other.close)
        other.sip._overlay = "example.net"
        key = generate_key().public_key()

        def answering(answer: Callable[[Any], Sequence[bytes]]) -> IssuedCertificate:
            async def ask(csr: bytes, addresses: Sequence[str]) -> Sequence[bytes]:
                return answer(read_request(csr).public_key)

            return IssuedCertificate(self.state, OVERLAY, (), "second@nodes.example.org", ask)

        for answer in (
            lambda _: [],
            lambda _: [b"no certificate"],
            lambda _: self.authority.sip.issue(key, [], DAY),
            lambda own: other.sip.issue(own, [], DAY),
        ):
            self.origin = answering(answer)
            self.assertIn("authority's certificate", self.failed())
        self.assertFalse(self.state.sip_certificate.exists())


class AskedTests(IssuedTests):
    """Whom a node asks: the authority that it holds, else an enrollment server."""

    def made(self, addresses: Sequence[str] = ADDRESSES) -> IssuedCertificate:
        return issued_certificate(self.state, OVERLAY, addresses, self, lambda: None, maybeDeferred)  # type: ignore[arg-type]

    @property
    def credentials(self) -> Any:
        """As of a `Renewal`."""
        return self.member

    def client(self) -> Any:
        """As of a `Renewal`; asks `ask`."""
        return self

    async def server_certificate(self, csr: bytes, addresses: Sequence[str]) -> Sequence[bytes]:
        return await self.ask(csr, addresses)

    async def close(self) -> None:
        """Nothing is open."""

    def test_own_authority(self) -> None:
        """It believes its own node what addresses it has."""
        origin = issued_certificate(
            self.state, OVERLAY, ("8.8.8.8",), self, lambda: self.authority, maybeDeferred  # type: ignore[arg-type]
        )  # fmt: skip
        loaded = self.look(origin)
        assert loaded is not None
        self.assertTrue(shows(loaded.chain[0], "8.8.8.8"))
        self.assertEqual(self.asked, [])


class Scripted:
    """An origin that answers as it is told."""

    def __init__(self) -> None:
        self.next: Loaded | Exception | None = None
        self.looks = 0

    async def look(self, now: float) -> Loaded | None:
        self.looks += 1
        answer, self.next = self.next, None
        if isinstance(answer, Exception):
            raise answer
        return answer


class LifeTests(SynchronousTestCase):
    """Serving begins with the first certificate, and goes on with the next ones."""

    def setUp(self) -> None:
        self.world = World()
        self.clock = Clock()
        self.origin = Scripted()
        self.servers: list[ServerTLS] = []
        self.trusted: list[Any] = []
        client = ClientTLS()
        client.trust = self.trusted.append  # type: ignore[method-assign]
        self.failure: Exception | None = None
        self.certificate = SIPCertificate(self.origin, self.listen, client, self.clock, self.clock.seconds)
        self.said: list[str] = []
        self.certificate._say = self.said.append  # type: ignore[method-assign]
        self.addCleanup(self.certificate.stop)

    def listen(self, server: ServerTLS) -> None:
        if self.failure is not None:
            raise self.failure
        self.servers.append(server)

    def loaded(self, name: str = "example.org") -> Loaded:
        return Loaded([self.world.certificate(name)], self.world.key, [self.world.root])

    def test_at_once(self) -> None:
        self.origin.next = self.loaded()
        self.certificate.start()
        self.assertEqual((len(self.servers), self.trusted), (1, [[self.world.root]]))

    def test_later(self) -> None:
        """While there is none the rest of the node goes on, and a minute later it is tried again."""
        self.origin.next = NotYet("it is down")
        self.certificate.start()
        self.assertEqual((self.servers, self.said), ([], ["it is down"]))
        self.origin.next = self.loaded()
        self.clock.advance(SECONDS)
        self.assertEqual(len(self.servers), 1)

    def test_replaced(self) -> None:
        self.origin.next = self.loaded()
        self.certificate.start()
        (server,) = self.servers
        before = server._context
        self.clock.advance(SECONDS)
        self.assertIs(server._context, before)
        self.origin.next = self.loaded("example.net")
        self.clock.advance(SECONDS)
        self.assertIsNot(server._context, before)
        self.assertEqual(len(self.servers), 1)

    def test_port_taken(self) -> None:
        """By another program, since the start: it is tried again with the same certificate."""
        self.failure = SIPListenError("TLS", "127.0.0.1", 5061, "in use")
        self.origin.next = self.loaded()
        self.certificate.start()
        self.assertIn("5061", self.said[0])
        self.failure = None
        self.clock.advance(SECONDS)
        self.assertEqual(len(self.servers), 1)

    def test_bug(self) -> None:
        """Whatever goes wrong in one look, there is a next one."""
        self.origin.next = RuntimeError("a bug")
        self.certificate.start()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.clock.advance(SECONDS)
        self.assertEqual(self.origin.looks, 2)

    def test_stop(self) -> None:
        """Also while the authority is asked: then nothing begins any more."""
        waiting: Deferred[Loaded] = Deferred()

        async def look(now: float) -> Loaded:
            return await waiting

        self.origin.look = look  # type: ignore[method-assign]
        self.certificate.start()
        self.certificate.stop()
        waiting.callback(self.loaded())
        self.assertEqual(self.servers, [])
        self.clock.advance(10 * SECONDS)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SayingTests(SynchronousTestCase):
    def test_once(self) -> None:
        """One line, until something else is wrong."""
        origin, clock = Scripted(), Clock()
        certificate = SIPCertificate(origin, lambda _: None, ClientTLS(), clock, clock.seconds)
        lines: list[str] = []

        class Log:
            def warn(self, text: str, why: str) -> None:
                lines.append(text.format(why=why))

        certificate.log = Log()  # type: ignore[assignment]
        for why in ("down", "down", "lost", "down"):
            origin.next = NotYet(why)
            self.successResultOf(Deferred.fromCoroutine(certificate.look()))
        self.assertEqual(
            lines, [f"no SIP over TLS yet: {why}; tried again each minute" for why in ("down", "lost", "down")]
        )
