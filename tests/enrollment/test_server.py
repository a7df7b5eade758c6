"""The enrollment server over real HTTPS, with our client, with curl, and with nonsense."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from p2psip.config.accept import accept_first
from p2psip.enrollment import client as client_module
from p2psip.enrollment.accounts import NewUser
from p2psip.enrollment.client import EnrollmentError, Refused, Unavailable, Untrusted, fetch_document
from p2psip.enrollment.database import DatabaseUnavailable
from p2psip.enrollment.http import MAXIMUM_REQUEST, REQUEST_SECONDS, AsynchronousLeaf, BoundedSite
from p2psip.enrollment.limits import BoundedConnections, Busy, Slots
from p2psip.enrollment.server import EnrollmentServer
from p2psip.enrollment.tls import named_server, pinned_server
from p2psip.joining import enrollment_client
from p2psip.security.certificates import generate_key, make_request
from p2psip.sip.digest import DigestCredentials
from p2psip.throttle import Allowance

from . import world
from .served import ServedTestCase, reactor
from .world import OVERLAY


async def failure_of(awaitable: Any, kind: type[Exception]) -> Any:
    try:
        result = await awaitable
    except kind as e:
        return e
    raise AssertionError(f"answered {result!r}")


class CurlTests(ServedTestCase):
    """What RFC 6940 §11.3 lets everybody do with existing tools."""

    def setUp(self) -> None:
        super().setUp()
        self.authority.accounts.add(NewUser("alice", password="right", node_quota=2))
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        (self.directory / "ca.pem").write_text(ssl.DER_cert_to_PEM_cert(self.authority.root_certificate))

    async def curl(self, *arguments: str) -> tuple[int, bytes, str]:
        """Status, body and content type of the answer."""
        body = self.directory / "body"
        port = self.port.getHost().port
        out, status = await self.run_tool(
            "curl", "-sS", "--cacert", str(self.directory / "ca.pem"), "-o", str(body),
            "--connect-to", f"{OVERLAY}:{port}:127.0.0.1:{port}", "-w", "%{http_code} %{content_type}",
            *(a.replace("URL", f"https://{OVERLAY}:{port}") for a in arguments),
        )  # fmt: skip
        self.assertEqual(status, 0, out)
        code, _, content_type = out.decode().partition(" ")
        return int(code), body.read_bytes(), content_type

    async def enroll(self, csr: bytes, *fields: str) -> tuple[int, bytes, str]:
        path = self.directory / "csr"
        path.write_bytes(csr)
        forms = [part for field in fields for part in ("-F", field)]
        return await self.curl(
            "-H", "Accept: application/pkix-cert", *forms,
            "-F", f"csr=@{path};type=application/pkcs10", "URL/enroll",
        )  # fmt: skip

    async def test_enroll(self) -> None:
        """With a request made by openssl. [6940-11.3-5] [6940-11.3-13] [6940-11.3-24] [6940-11.3-6, 6940-11.3-10]"""
        key, path = self.directory / "key", self.directory / "request"
        out, status = await self.run_tool(
            "openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", str(key), "-subj", "/emailAddress=alice@example.org",
            "-outform", "DER", "-out", str(path),
        )  # fmt: skip
        self.assertEqual(status, 0, out)
        code, body, content_type = await self.enroll(path.read_bytes(), "username=alice", "password=right", "nodeids=2")
        self.assertEqual((code, content_type), (200, "application/pkix-cert"))
        identity = self.trust.identify(body)
        self.assertEqual((identity.user_name, len(identity.node_ids)), ("alice@example.org", 2))

    async def test_tokens(self) -> None:
        """Exactly these, as plain text, with status 403. [6940-11.3-25]"""
        key = generate_key()
        good = make_request(key, "alice@example.org")
        right = ("username=alice", "password=right")
        for token, csr, fields in (
            ("failed_authentication", good, ("username=alice", "password=wrong")),
            ("failed_authentication", good, ("username=nobody", "password=right")),
            ("failed_authentication", good, ("username=alice",)),
            ("failed_authentication", good, (*right, "password=right")),
            ("username_not_available", make_request(key, "bob@example.org"), right),
            ("Node-IDs_not_available", good, (*right, "nodeids=3")),
            ("Node-IDs_not_available", good, (*right, "nodeids=0")),
            ("Node-IDs_not_available", good, (*right, "nodeids=-1")),
            ("Node-IDs_not_available", good, (*right, "nodeids=many")),
            ("Node-IDs_not_available", good, (*right, f"nodeids={'9' * 5000}")),
            ("bad_CSR", b"no request", right),
            ("bad_CSR", good[:-5], right),
            ("bad_CSR", b"", right),
        ):
            code, body, content_type = await self.enroll(csr, *fields)
            self.assertEqual((code, body.decode(), content_type), (403, token, "text/plain"), fields)
        self.assertEqual(self.server.counters["bad_CSR"], 3)

    async def test_without_database(self) -> None:
        """The client is to ask elsewhere or later; it cost no guess, and the log has a line and no traceback."""

        def away(*_: object) -> bytes:
            raise DatabaseUnavailable("the accounts cannot be used now")

        self.patch(self.authority, "enroll", away)
        for _ in range(30):
            code, body, _ = await self.enroll(b"", "username=alice", "password=right")
            self.assertEqual((code, body), (503, b"the accounts database is not available"))
        self.assertEqual(self.server.counters["database unavailable"], 30)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_configuration(self) -> None:
        """[6940-11.2-7]"""
        code, body, content_type = await self.curl("URL/.well-known/reload-config")
        self.assertEqual((code, content_type), (200, "application/p2p-overlay+xml"))
        self.assertEqual(accept_first(body, OVERLAY, reactor.seconds()).instance_name, OVERLAY)

    async def test_elsewhere(self) -> None:
        for code, arguments in (
            (404, ("URL/",)),
            (404, ("URL/enroll/more",)),
            (405, ("URL/enroll",)),
            (405, ("-X", "POST", "-d", "", "URL/.well-known/reload-config")),
            (400, ("-F", "a=b", "URL/enroll?username=alice&password=right")),
            (413, ("-F", f"password={'x' * (MAXIMUM_REQUEST + 1)}", "URL/enroll")),
        ):
            self.assertEqual((await self.curl(*arguments))[0], code, arguments)

    async def test_slowed_down(self) -> None:
        """Guesses on one account, before any work is done for them."""
        csr = make_request(generate_key(), "alice@example.org")
        codes = [(await self.enroll(csr, "username=alice", f"password={n}"))[0] for n in range(11)]
        self.assertEqual(codes, [403] * 10 + [429])
        code, _, _ = await self.enroll(csr, "username=alice", "password=right")
        self.assertEqual(code, 429)
        self.assertEqual(self.server.counters["throttled"], 2)

    async def test_confidential_document(self) -> None:
        """Shown to members only. [RFC 6940 §14.16]"""
        self.configuration = replace(self.configuration, shared_secret="s3cret")
        code, _, _ = await self.curl("URL/.well-known/reload-config")
        self.assertEqual(code, 403)
        member = world.join(self.authority, "second")
        await self.client(member=member).configuration()


class ClientTests(ServedTestCase):
    async def test_join(self) -> None:
        """By token: configuration, certificate, and again by the same key."""
        token = self.authority.invite("second", "registrar", 60, [self.url])
        client = self.client(*token.urls, server=pinned_server(token.server_key, token.overlay))
        document = accept_first(await client.configuration(), OVERLAY, reactor.seconds())
        self.assertEqual(document.root_certificates, (self.authority.root_certificate,))
        csr = make_request(generate_key(), f"second@nodes.{OVERLAY}")
        one = self.trust.identify(await client.enroll(csr, token.account, token.password))
        two = self.trust.identify(await client.enroll(csr, token.account, token.password))
        self.assertEqual(one.node_ids, two.node_ids)
        self.assertEqual(one.role, "registrar")

    async def test_form(self) -> None:
        """The request as it is sent: a POST of a form, by the RFC's names and types, for a certificate.

        [6940-11.3-5, 6940-11.3-6, 6940-11.3-9, 6940-11.3-10, 6940-11.3-11]
        """
        seen: dict[str, Any] = {}

        class Recording(EnrollmentServer):
            async def _enroll(self, request: Any) -> Any:
                request.content.seek(0)
                seen.update(method=request.method, accept=request.getHeader("accept"), body=request.content.read())
                seen["type"] = request.getHeader("content-type")
                return await super()._enroll(request)

        self.server_class = Recording
        self.server, self.url = self.serve(self.authority)
        self.authority.accounts.add(NewUser("alice", password="påss", node_quota=3))
        csr = make_request(generate_key(), f"alice@{OVERLAY}")
        await self.client(self.url).enroll(csr, "alice", "påss", 3)
        self.assertEqual(seen["method"], b"POST")
        self.assertIn("application/pkix-cert", seen["accept"])
        kind, _, boundary = seen["type"].partition("; boundary=")
        self.assertEqual(kind, "multipart/form-data")
        parts = [part.partition(b"\r\n\r\n") for part in seen["body"].split(b"--" + boundary.encode())[1:-1]]
        form = {head.partition(b'name="')[2].partition(b'"')[0]: (head, body[:-2]) for head, _, body in parts}
        self.assertEqual(form[b"username"][1], b"alice")
        self.assertEqual(form[b"password"][1], "påss".encode())
        self.assertEqual(form[b"nodeids"][1], b"3")
        head, body = form[b"csr"]
        self.assertIn(b"\r\nContent-Type: application/pkcs10", head)
        self.assertEqual(body, csr)

    async def test_where_the_document_says(self) -> None:
        """The enrollment-server element is the URL itself, whatever its path. [6940-11.3-5]"""

        class Other(EnrollmentServer):
            def _resources(self) -> Resource:
                root = Resource()
                root.putChild(b"ca.cgi", AsynchronousLeaf(self._guarded(self._enroll), "POST"))
                return root

        self.server_class = Other
        _, url = self.serve(self.authority)
        self.authority.accounts.add(NewUser("alice", password="right", node_quota=1))
        configuration = replace(self.configuration, enrollment_servers=(url + "/ca.cgi",))
        client = enrollment_client(reactor, configuration)
        self.addCleanup(client.close)
        certificate = await client.enroll(make_request(generate_key(), f"alice@{OVERLAY}"), "alice", "right")
        self.assertEqual(self.trust.identify(certificate).user_name, f"alice@{OVERLAY}")

    async def test_never_in_the_clear(self) -> None:
        """Without TLS there is no answer. [6940-11.3-3]"""
        url = f"http://127.0.0.1:{self.port.getHost().port}"
        for path in "/enroll", "/.well-known/reload-config":
            out, status = await self.run_tool("curl", "-sS", url + path, "-F", "username=alice", "-F", "password=x")
            self.assertNotEqual(status, 0, out)

    async def test_several_node_ids(self) -> None:
        """[6940-11.3-9]"""
        self.authority.accounts.add(NewUser("alice", password="påss", node_quota=3))
        csr = make_request(generate_key(), f"alice@{OVERLAY}")
        certificate = await self.client().enroll(csr, "alice", "påss", 3)
        self.assertEqual(len(self.trust.identify(certificate).node_ids), 3)

    async def test_refused(self) -> None:
        """[6940-11.3-26]"""
        csr = make_request(generate_key(), f"alice@{OVERLAY}")
        refused = await failure_of(self.client().enroll(csr, "alice", "wrong"), Refused)
        self.assertEqual(refused.token, "failed_authentication")

    async def test_renew(self) -> None:
        member = world.join(self.authority, "second", "peer")
        request = make_request(member.key, f"second@nodes.{OVERLAY}")
        renewed = self.trust.identify(await self.client(member=member).renew(request))
        self.assertEqual(renewed.node_ids, member.identity.node_ids)
        self.assertEqual((await failure_of(self.client().renew(request), Refused)).token, "failed_authentication")
        self.authority.nodes.revoke(f"second@nodes.{OVERLAY}")
        self.assertEqual(
            (await failure_of(self.client(member=member).renew(request), Refused)).token,
            "failed_authentication",
        )

    async def test_renewals_are_few(self) -> None:
        """A node cannot fill the audit log with its renewals."""
        member = world.join(self.authority, "second", "peer")
        request = make_request(member.key, f"second@nodes.{OVERLAY}")
        client = self.client(member=member)
        for _ in range(10):
            await client.renew(request)
        await failure_of(client.renew(request), Unavailable)
        self.assertEqual(self.server.counters["throttled"], 1)

    async def test_stranger(self) -> None:
        """A certificate of another authority, with all the right names."""
        other = world.make(self.mktemp(), reactor.seconds())
        self.addCleanup(other.close)
        member = world.join(other, "second")
        request = make_request(member.key, f"second@nodes.{OVERLAY}")
        refused = await failure_of(self.client(member=member).renew(request), Refused)
        self.assertEqual(refused.token, "failed_authentication")
        self.assertEqual(self.server.counters["certificate untrusted"], 1)

    async def test_bad_node(self) -> None:
        """A node that the document names bad is nobody."""
        member = world.join(self.authority, "second")
        self.trust.update([self.authority.root_certificate], [member.node_id])
        refused = await failure_of(self.client(member=member).revocations(""), Refused)
        self.assertEqual(refused.token, "failed_authentication")

    async def test_wrong_pin(self) -> None:
        pinned = pinned_server(bytes(32), OVERLAY)
        untrusted = await failure_of(self.client(server=pinned).configuration(), Untrusted)
        self.assertIn("another key than the token names", str(untrusted))
        self.assertIn(self.url, str(untrusted))

    async def test_wrong_name_or_root(self) -> None:
        """[6940-11.3-4] [6940-11.2-6]"""
        root = self.authority.root_certificate
        other = world.make(self.mktemp(), reactor.seconds())
        self.addCleanup(other.close)
        for server in (
            named_server("example.com", [root]),
            named_server("127.0.0.2", [root]),
            named_server(OVERLAY),
            named_server(OVERLAY, [other.root_certificate]),
        ):
            await failure_of(self.client(server=server).configuration(), Untrusted)
        await self.client(server=named_server("127.0.0.1", [root])).configuration()

    async def test_node_is_no_server(self) -> None:
        """A member cannot pass for the server: its certificate has no such name."""
        member = world.join(self.authority, "second")
        server_key = self.authority._server_key
        self.authority._server_key = member.key
        self.addCleanup(setattr, self.authority, "_server_key", server_key)
        self.authority.server_credentials = lambda _: ([member.certificate], member.key)  # type: ignore[method-assign]
        _, url = self.serve(self.authority)
        await failure_of(self.client(url).configuration(), Untrusted)

    async def test_fail_over(self) -> None:
        """To the next URL, whether the first is down or not the right one."""
        dead = "https://127.0.0.1:1"
        other = world.make(self.mktemp(), reactor.seconds())
        self.addCleanup(other.close)
        _, strange = self.serve(other)
        for urls in ((dead, self.url), (strange, self.url), (self.url, dead)):
            self.assertTrue(await self.client(*urls).configuration())
        unavailable = await failure_of(self.client(strange, dead).configuration(), Unavailable)
        self.assertIn(dead, str(unavailable))

    async def test_down(self) -> None:
        await failure_of(self.client("https://127.0.0.1:1").configuration(), Unavailable)
        await failure_of(self.client("https://no-such-host.invalid:8443").configuration(), Unavailable)

    async def test_ipv6(self) -> None:
        _, url = self.serve(self.authority, "::1")
        self.assertIn("[::1]", url)
        await self.client(url).configuration()
        await self.client(url, server=named_server("::1", [self.authority.root_certificate])).configuration()

    async def test_answer_too_large(self) -> None:
        self.patch(client_module, "MAXIMUM_BODY", 100)
        await failure_of(self.client().configuration(), EnrollmentError)

    async def test_fetch_document(self) -> None:
        """From where the DNS says, under the overlay's name. [6940-11.2-5] [6940-11.2-6] [6940-11.2-4]"""
        port = self.port.getHost().port
        trusted = named_server(OVERLAY, [self.authority.root_certificate])
        url = f"https://{OVERLAY}/.well-known/reload-config"
        self.assertEqual(client_module.document_url(OVERLAY), url)
        body = await fetch_document(reactor, url, trusted, ("127.0.0.1", port))
        self.assertEqual(accept_first(body, OVERLAY, reactor.seconds()).instance_name, OVERLAY)
        await failure_of(fetch_document(reactor, url, None, ("127.0.0.1", port)), Untrusted)
        await failure_of(fetch_document(reactor, "http://example.org/"), EnrollmentError)

    async def test_renewal_time(self) -> None:
        identity = world.join(self.authority, "second").identity
        left = identity.not_after - client_module.renewal_time(identity)
        self.assertAlmostEqual(left, (identity.not_after - identity.not_before) / 3)


class RegistrarTests(ServedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.member = world.join(self.authority, "second")
        world.add_user(self.authority)

    def authorization(self, user: str = "alice", password: str = "secret") -> DigestCredentials:
        return world.answer(self.member.challenge(reactor.seconds()), user, password)

    async def ask(self, user: str = "alice", password: str = "secret", **options: Any) -> Any:
        client = self.client(member=options.get("member", self.member))
        text = str(options.get("authorization", self.authorization(user, password)))
        return await client.user_credentials(self.member.request(user), "REGISTER", text)

    async def test_credentials(self) -> None:
        granted = await self.ask()
        self.assertEqual(list(granted.credentials), self.authority.accounts.device_credentials("alice"))
        self.assertEqual(self.trust.identify(granted.certificate).user_name, "alice@example.org")
        self.assertEqual(granted.max_age, 86400)
        self.assertLess(abs(granted.as_of - reactor.seconds()), 60)

    async def test_refused(self) -> None:
        for options in (
            {"password": "guess"},
            {"user": "bob"},
            {"authorization": "Basic YTpi"},
            {"authorization": "Digest nonsense"},
            {"member": world.join(self.authority, "third", "peer")},
        ):
            refused = await failure_of(self.ask(**options), Refused)
            self.assertEqual(refused.token, "failed_authentication", options)

    async def test_another_registrars_nonce(self) -> None:
        """Replayed by a registrar to which the phone never spoke."""
        third = world.join(self.authority, "third")
        client = self.client(member=third)
        request = third.request("alice")
        refused = await failure_of(client.user_credentials(request, "REGISTER", str(self.authorization())), Refused)
        self.assertEqual(refused.token, "bad_nonce")

    async def test_guessing_user_is_slowed_down(self) -> None:
        """One user's guesses at one registrar: neither other users nor other registrars suffer."""
        for _ in range(11):
            await failure_of(self.ask(password="guess"), Refused)
        await failure_of(self.ask(), Unavailable)
        world.add_user(self.authority, "bob")
        await self.ask("bob")
        self.member = world.join(self.authority, "third")
        await self.ask()

    async def test_strangers_cannot_lock_a_user_out(self) -> None:
        """By guesses at enrollment, whatever account name they make up."""
        csr = make_request(generate_key(), f"alice@{OVERLAY}")
        name = f"{self.member.node_id.hex()} alice"
        for _ in range(10):
            await failure_of(self.client().enroll(csr, name, "guess"), Refused)
        await self.ask()

    async def test_guessing_registrar_is_slowed_down(self) -> None:
        self.server._wrong_by_registrar = Allowance(0.001, 3)
        for name in ("a", "b", "c"):
            await failure_of(self.ask(name), Refused)
        await failure_of(self.ask(), Unavailable)

    async def test_revocations(self) -> None:
        client = self.client(member=self.member)
        cursor, entries = await client.revocations("")
        self.assertEqual(entries, [])
        self.authority.accounts.revoke_device("alice", "desk")
        self.authority.accounts.remove("alice")
        cursor, entries = await client.revocations(cursor)
        self.assertEqual([(e.account, e.device) for e in entries], [("alice", "desk"), ("alice", "")])
        self.assertEqual((await client.revocations(cursor)), (cursor, []))
        for stranger in (None, world.join(self.authority, "third", "peer")):
            await failure_of(self.client(member=stranger).revocations(""), Refused)


class ThreadTests(ServedTestCase):
    def in_thread(self, function: Any, *arguments: Any) -> Deferred[Any]:
        return deferToThread(function, *arguments)

    async def test_many_at_once(self) -> None:
        """Nodes that join together, each gets its own."""
        client = self.client()
        names = [f"node{n}" for n in range(12)]
        tokens = [self.authority.invite(name, "peer", 60, [self.url]) for name in names]
        asked = [
            Deferred.fromCoroutine(
                client.enroll(make_request(generate_key(), f"{t.account}@nodes.{OVERLAY}"), t.account, t.password)
            )
            for t in tokens
        ]
        identities = [self.trust.identify(await each) for each in asked]
        self.assertEqual([i.user_name for i in identities], [f"{name}@nodes.{OVERLAY}" for name in names])
        self.assertEqual(len({i.node_ids for i in identities}), 12)


class _Collect(Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.lost: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: object = None) -> None:
        self.lost.callback(self.data)


class ConnectionTests(ServedTestCase):
    async def raw(self, data: bytes) -> bytes:
        """What the server answers to some bytes before it closes the connection."""
        port = self.port.getHost().port
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", port)
        trusted = named_server(OVERLAY, [self.authority.root_certificate])
        protocol = await connectProtocol(wrapClientTLS(trusted, endpoint), _Collect())
        protocol.transport.write(data)
        return await protocol.lost

    async def test_nonsense(self) -> None:
        self.assertIn(b" 400 ", await self.raw(b"hello\r\n\r\n"))
        self.assertIn(b" 413 ", await self.raw(b"POST /enroll HTTP/1.1\r\nContent-Length: 99999999\r\n\r\nabc"))
        chunks = b"POST /enroll HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"4000\r\n%b\r\n" % bytes(0x4000) * 8
        self.assertIn(b" 413 ", await self.raw(chunks))


class FormTests(SynchronousTestCase):
    """Forms of every kind reach the resource or are refused; no traceback is logged, no more is kept."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.seen: list[Any] = []

        class Leaf(Resource):
            isLeaf = True

            def render_POST(leaf, request: Any) -> bytes:
                self.seen.append(request.args)
                return b"ok"

        self.site = BoundedSite(Leaf(), self.clock)

    def send(self, *parts: bytes) -> tuple[bytes, StringTransport]:
        channel: Any = self.site.buildProtocol(None)  # type: ignore[arg-type]
        transport = StringTransport()
        channel.makeConnection(transport)
        for part in parts:
            channel.dataReceived(part)
        self.channel = channel
        return transport.value(), transport

    def post(self, content_type: bytes, body: bytes) -> bytes:
        head = b"POST / HTTP/1.1\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (
            content_type,
            len(body),
        )
        return self.send(head, body)[0]

    def test_hostile(self) -> None:
        multipart = b"multipart/form-data; boundary=x"
        part = b"--x\r\nContent-Disposition: form-data; name%b\r\n\r\nv\r\n--x--\r\n"
        nested = b"Content-Type: message/rfc822\r\n\r\n" * 1500
        boundaries = b"".join(b"--x\r\nContent-Type: multipart/mixed; boundary=x%d\r\n\r\n" % n for n in range(900))
        for content_type, body in (
            (multipart, part % b"*=utf-8''n%C3"),
            (multipart, part % b"*0*=nope''n; name*1=x"),
            (multipart, part % b'="\xff\xfe"'),
            (multipart, b"--x\r\n" + nested),
            (multipart, boundaries),
            (
                multipart,
                b"--x\r\nContent-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64\r\n\r\n!",
            ),
            (multipart, b""),
            (b"multipart/form-data", b"abc"),
            (b"multipart/form-data; boundary*=zz''%ff", b"abc"),
            (b"application/x-www-form-urlencoded", b"&&&=%zz" * 100),
            (b"\xff/\xfe", b"abc"),
        ):
            answer = self.post(content_type, body)
            self.assertRegex(answer, rb"\AHTTP/1\.1 (200|400) ", body[:60])
        self.assertEqual(self.flushLoggedErrors(), [])

    @given(st.binary(max_size=300), st.sampled_from([b"", b"--x\r\nContent-Disposition: form-data; name="]))
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    def test_random(self, body: bytes, prefix: bytes) -> None:
        answer = self.post(b"multipart/form-data; boundary=x", prefix + body)
        self.assertRegex(answer, rb"\AHTTP/1\.1 (200|400) ")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_dribbling(self) -> None:
        """A request has its time as a whole, however steadily it comes (slow loris)."""
        _, transport = self.send(b"POST / HTTP/1.1\r\n")
        for _ in range(int(REQUEST_SECONDS)):
            self.assertFalse(transport.disconnecting)
            self.channel.dataReceived(b"A: b\r\n")
            self.clock.advance(1)
        self.assertTrue(transport.disconnecting)


class LimitsTests(SynchronousTestCase):
    def test_connections(self) -> None:
        clock = Clock()
        inner = BoundedSite(Resource(), clock)
        factory = BoundedConnections(inner, clock, total=4, per_address=2, lifetime=100)

        def connect(host: str) -> bool:
            from twisted.internet.address import IPv4Address

            protocol = factory.buildProtocol(IPv4Address("TCP", host, 1))
            if protocol is None:
                return False
            transport = StringTransport()
            transport.abortConnection = lambda: protocol.connectionLost(None)  # type: ignore[method-assign]
            protocol.makeConnection(transport)
            return True

        hosts = ["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]
        self.assertEqual([connect(host) for host in hosts], [True, True, False, True, True])
        self.assertEqual(factory.refused, 1)
        # There is room still, at the cost of whoever has most.
        self.assertTrue(connect("192.0.2.4"))
        self.assertEqual([p.source for p in factory.protocols], [f"192.0.2.{n}" for n in (1, 2, 3, 4)])
        self.assertEqual([connect(host) for host in ("192.0.2.1", "192.0.2.1", "192.0.2.1")], [True, True, False])
        clock.pump([1] * 100)
        self.assertEqual(factory.protocols, {})
        self.assertEqual([connect(host) for host in ("192.0.2.1", "192.0.2.1")], [True, True])

    def test_slots(self) -> None:
        slots = Slots(running=2, waiting=1)
        works: list[Deferred[int]] = []

        def work() -> Deferred[int]:
            works.append(Deferred())
            return works[-1]

        asked = [Deferred.fromCoroutine(slots.run(work)) for _ in range(4)]
        self.assertEqual(len(works), 2)
        self.failureResultOf(asked[3], Busy)
        works[0].errback(ValueError())
        self.failureResultOf(asked[0], ValueError)
        self.assertEqual(len(works), 3)
        works[2].callback(7)
        self.assertEqual(self.successResultOf(asked[2]), 7)

    def test_allowance(self) -> None:
        allowance = Allowance(rate=0.5, burst=3, size=2)
        for _ in range(3):
            self.assertEqual(allowance.delay("a", 10), 0)
            allowance.spend("a", 10)
        self.assertEqual(allowance.delay("a", 10), 2)
        self.assertEqual(allowance.delay("a", 11), 1)
        self.assertEqual(allowance.delay("a", 12), 0)
        self.assertEqual(allowance.delay("b", 10), 0)
        for key in ("b", "c"):
            allowance.spend(key, 12)
        self.assertEqual(len(allowance._left), 2)


class PatienceTests(SynchronousTestCase):
    def test_with_patience(self) -> None:
        clock = Clock()
        told: list[tuple[str, float]] = []
        tries = iter([Unavailable("down"), Unavailable("down"), Refused("bad_CSR")])

        async def attempt() -> bytes:
            raise next(tries)

        patient = Deferred.fromCoroutine(
            client_module.with_patience(attempt, clock, lambda why, pause: told.append((why, pause)))
        )
        clock.advance(1)
        clock.advance(2)
        self.assertEqual(told, [("down", 1.0), ("down", 2.0)])
        self.failureResultOf(patient, Refused)
