"""The SIP server of one node, put together: datagrams of a phone, and an overlay in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.kinds import SIP_REGISTRATION
from p2psip.interfaces import ISigner
from p2psip.phones import Phones
from p2psip.sip.digest import DigestCredentials
from p2psip.sip.interfaces import DeviceCredential
from p2psip.sip.message import Request, Response, parse
from p2psip.sip.transport import DatagramPort
from p2psip.testing import World
from p2psip.usages.sip import SIPUsage, SIPUsageFactory

from .sip.fakes import FakeCredentials, authorize, make_request

ALICE = "alice@example.org"
PHONE = ("192.0.2.7", 5060)


class Credentials:
    """What `Phones` asks of `RegistrarCredentials`: it knows alice, and signs for her."""

    def __init__(self, signer: ISigner) -> None:
        self._fake = FakeCredentials(alice=["pw"])
        self._signer = signer
        self.running = False

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False

    def known(self, user: str) -> bool:
        return user in self._fake.known

    def signer(self, user: str) -> ISigner | None:
        return self._signer if self.known(user) else None

    def credentials(
        self, user: str, authorization: DigestCredentials, method: str
    ) -> Deferred[Sequence[DeviceCredential]]:
        return self._fake.credentials(user, authorization, method)


class Port:
    """A port of the reactor's; what is sent over it."""

    def __init__(self) -> None:
        self.sent: list[Response] = []

    def write(self, data: bytes, address: tuple[str, int]) -> None:
        response = parse(data)
        assert isinstance(response, Response)
        self.sent.append(response)

    def stopListening(self) -> None:
        pass


class Reactor:
    """The world's clock, and ports that nothing comes to but by `phone`."""

    def __init__(self, world: World) -> None:
        self.seconds = world.clock.seconds
        self.callLater = world.clock.callLater
        self.datagrams: DatagramPort | None = None
        self.port = Port()

    def adoptDatagramPort(self, fileno: int, family: int, protocol: DatagramPort, size: int) -> Port:
        self.datagrams = protocol
        protocol.transport = self.port  # type: ignore[assignment]
        return self.port

    def adoptStreamPort(self, fileno: int, family: int, factory: Any) -> Port:
        return Port()


class PhonesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(2, usages=[SIPUsageFactory()])
        self.node = self.world.nodes[0]
        # In the world nodes are peers; phones are for registrars.
        object.__setattr__(self.node.signer.identity, "role", "registrar")
        self.bindings = Path(self.mktemp())
        self.number = 0
        self.start()

    def start(self) -> None:
        usage = self.node.usages["sip"]
        assert isinstance(usage, SIPUsage)
        self.credentials: Any = Credentials(self.world.user(ALICE, self.node))
        self.reactor = Reactor(self.world)
        self.phones = Phones(
            "example.org", self.node.node_id, usage, self.credentials, self.bindings, self.reactor, Random(1),
            ["192.0.2.1"], False, "redirect", b"secret",
        )  # fmt: skip
        self.phones.start(["127.0.0.1"], 0)
        self.addCleanup(self.stop, self.phones)

    def stop(self, phones: Phones) -> None:
        self.world.result(Deferred.fromCoroutine(phones.stop()))

    def ask(self, request: Request) -> Response:
        """The response to what a phone sends."""
        assert self.reactor.datagrams is not None
        before = len(self.reactor.port.sent)
        self.reactor.datagrams.datagramReceived(request.encode(), PHONE)
        self.world.until(lambda: len(self.reactor.port.sent) > before)
        return self.reactor.port.sent[-1]

    def register(self, uri: str = "sip:example.org", expires: int = 600) -> Response:
        challenged = []
        for _ in range(2):
            self.number += 1
            request = make_request(
                uri=uri, cseq=self.number, Contact="<sip:alice@192.0.2.7>", Expires=str(expires)
            )
            challenged.append(self.ask(authorize(request, challenged[0]) if challenged else request))
        self.assertEqual(challenged[0].status, 401)
        return challenged[1]

    def in_overlay(self) -> int:
        """How many registrars of alice the overlay has."""
        there = self.world.nodes[1]
        return len(self.world.result(there.overlay.fetch(ALICE.encode(), SIP_REGISTRATION)))

    def page(self) -> Any:
        return self.phones.registrations(0, 10)

    def test_registration(self) -> None:
        """It is here, and the overlay says so."""
        self.assertEqual(self.page(), {"total": 0, "page": []})
        self.assertEqual(self.register().status, 200)
        contact = {"uri": "sip:alice@192.0.2.7", "q": 1.0, "expires": 600}
        self.assertEqual(self.page(), {"total": 1, "page": [{"aor": ALICE, "contacts": [contact]}]})
        self.assertEqual(self.in_overlay(), 1)
        self.assertEqual(self.phones.registrations(1, 10), {"total": 1, "page": []})

    def test_a_phone_that_was_given_an_address_for_the_domain(self) -> None:
        for host, status in (("127.0.0.1", 200), ("192.0.2.1", 200), ("192.0.2.2", 404)):
            response = self.ask(make_request(uri=f"sip:{host}", cseq=100 + self.number, call_id=host))
            self.assertEqual(response.status == 404, status == 404, host)

    def test_it_ends(self) -> None:
        """Without a refresh it is forgotten, here and in the overlay."""
        self.register(expires=60)
        self.world.run(62)
        self.assertEqual(self.page()["total"], 0)
        self.assertEqual(self.in_overlay(), 0)

    def test_restart(self) -> None:
        """Bindings outlive the process, in a file for its owner alone."""
        self.register()
        self.stop(self.phones)
        self.assertFalse(self.credentials.running)
        self.assertEqual(self.bindings.stat().st_mode & 0o777, 0o600)
        self.world.run(100)
        self.start()
        self.assertEqual(self.page()["page"][0]["contacts"][0]["expires"], 500)

    def test_user_is_removed(self) -> None:
        self.register()
        self.phones.forget("alice", "another device")
        self.world.run(1)
        self.assertEqual((self.page()["total"], self.in_overlay()), (1, 1))
        self.phones.forget("alice", "")
        self.world.run(1)
        self.assertEqual((self.page()["total"], self.in_overlay()), (0, 0))

    def test_listeners(self) -> None:
        port = self.phones.edge.listening[0].port
        self.assertEqual(self.phones.listeners[0], f"sip UDP 127.0.0.1:{port}")
        self.stop(self.phones)
        self.assertEqual(self.phones.listeners, [])

    def test_rejected(self) -> None:
        """What came in order is no refusal."""
        self.register()
        counted = self.phones.rejected()
        self.assertEqual([cause for cause in counted if "received" in cause], [])
        wrong = make_request(cseq=50, Contact="<sip:alice@192.0.2.7>")
        challenge = self.ask(wrong)
        self.ask(authorize(make_request(cseq=51, Contact="<sip:alice@192.0.2.7>"), challenge, "guess"))
        more = {cause for cause, count in self.phones.rejected().items() if count > counted.get(cause, 0)}
        self.assertIn("sip status: 401", more)
        self.assertGreater(len(more), 1, "the reason as well as the status")
