"""The TURN Server Usage, in an overlay in memory."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hmac import digest
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.config.kinds import CERTIFICATE_BY_NODE, REGISTERED, TURN_SERVICE
from p2psip.errors import Forbidden
from p2psip.interfaces import IRelays, IUsage, IUsageFactory, Relay, Request, SignedBy
from p2psip.node import Node, installed
from p2psip.storage.policies import multiple_name
from p2psip.testing import EPOCH, World
from p2psip.usages.relays import AVOIDED, MARGIN, PROBES, REMEMBERED, ROUNDS, SEARCH_SECONDS
from p2psip.usages.turn import TurnUsage, TurnUsageFactory
from p2psip.usages.turn_server import CREDENTIALS_STEP, LIFETIME, LOOK, credentials, unfit
from p2psip.wire.codes import MessageExtensionType
from p2psip.wire.header import NodeDestination
from p2psip.wire.methods import IpAddressPort, PingReq
from p2psip.wire.storage import DataValue, FindReq, StoreReq
from p2psip.wire.turn import TurnCredentials, TurnServer

SECRET = b"north"
DENSITY = 10


class UnfitTests(SynchronousTestCase):
    """Which addresses a TURN server may have."""

    def why(self, host: str, *bootstrap: str) -> str:
        world = World(bootstrap_nodes=tuple((address, 6084) for address in bootstrap or ("192.0.2.1",)))
        return unfit(host, world.configuration)

    def test_public(self) -> None:
        """Also the networks for documentation, which laboratories use."""
        for host in ("192.0.2.1", "198.51.100.7", "8.8.8.8", "172.32.0.1", "2001:db8::1", "2a00::1", "::ffff:8.8.8.8"):
            self.assertEqual(self.why(host), "", host)

    def test_not_public(self) -> None:
        """[6940-9-2]"""
        for host, why in (
            ("10.0.0.1", "RFC 1918"),
            ("172.16.0.1", "RFC 1918"),
            ("172.31.255.255", "RFC 1918"),
            ("192.168.1.1", "RFC 1918"),
            ("::ffff:192.168.1.1", "RFC 1918"),
            ("fd00::1", "RFC 4193"),
            ("100.64.0.1", "RFC 6598"),
            ("169.254.0.1", "link-local"),
            ("fe80::1", "link-local"),
            ("0.0.0.0", "not that of a host"),
            ("::", "not that of a host"),
            ("224.0.0.1", "not that of a host"),
            ("255.255.255.255", "not that of a host"),
            ("ff02::1", "not that of a host"),
        ):
            self.assertIn(why, self.why(host), host)

    def test_loopback(self) -> None:
        """Only where the whole overlay is on one machine."""
        for host in "127.0.0.1", "127.0.3.9", "::1":
            self.assertEqual(self.why(host, "127.0.0.1", "::1"), "")
            self.assertIn("loopback", self.why(host, "127.0.0.1", "192.0.2.1"))
        self.assertIn("loopback", unfit("127.0.0.1", World(bootstrap_nodes=()).configuration))


class CredentialsTests(SynchronousTestCase):
    def test_as_coturn_makes_them(self) -> None:
        """The user name is the end and the Node-ID, the password its HMAC-SHA1 in base64."""
        node_id = World().credentials("a@example.org").node_id
        made = credentials(SECRET, node_id, 1_800_000_000.0)
        self.assertEqual(made.username, b"1800003600:" + node_id.hex().encode())
        self.assertEqual(made.password, b64encode(digest(SECRET, made.username, "sha1")))
        self.assertEqual(made.lifetime, 3600)

    def test_two_at_a_time(self) -> None:
        """However often they are asked for, they are the same for half an hour, and good for half an hour more."""
        node_id = World().credentials("a@example.org").node_id
        made = [credentials(SECRET, node_id, EPOCH + 60 * minute) for minute in range(60)]
        self.assertEqual(len({one.username for one in made}), 2)
        for minute, one in enumerate(made):
            self.assertEqual(EPOCH + 60 * minute + one.lifetime, int(one.username.split(b":")[0]))
            self.assertTrue(CREDENTIALS_STEP < one.lifetime <= 2 * CREDENTIALS_STEP)


class TurnTestCase(SynchronousTestCase):
    """Four nodes, the first of them with a TURN server, unless a test wants others."""

    server = "192.0.2.1"

    def setUp(self) -> None:
        self.build()

    def build(self, size: int = 4, **settings: Any) -> None:
        self.world = World(size, usages=[TurnUsageFactory()], **settings)
        self.first, self.second, self.third = self.world.nodes[:3]

    def usage(self, node: Node) -> TurnUsage:
        usage = node.usages["turn"]
        assert isinstance(usage, TurnUsage)
        return usage

    def serve(self, node: Node, host: str = "192.0.2.1") -> None:
        """Offer a TURN server at `host` by `node`, as if it had been so from the first."""
        usage = self.usage(node)
        usage.serve(host, 3478, SECRET)
        usage.start()

    def served(self, node: Node, host: str = "192.0.2.1") -> None:
        self.serve(node, host)
        self.world.until(lambda: self.status(node)["registered"])

    def status(self, node: Node) -> Any:
        return self.usage(node).status()

    def relay(self, node: Node) -> Relay | None:
        return self.world.result(self.usage(node).relay(), SEARCH_SECONDS)

    def found(self, node: Node) -> Relay:
        relay = self.relay(node)
        assert relay is not None
        return relay

    def places(self, node: Node) -> list[TurnServer]:
        """What stands at the places of `node`'s TURN server, seen by another."""
        other = next(one for one in self.world.nodes if one is not node)
        found = []
        for d in range(1, 21):
            name = multiple_name(node.node_id, d)
            for value in self.world.result(other.overlay.fetch(name, TURN_SERVICE)):
                assert isinstance(value.data.value, DataValue)
                found.append(TurnServer.decode(value.data.value.value))
        return found

    def store(self, node: Node, server: TurnServer, d: int = 1) -> None:
        """Register a TURN server by hand."""
        value = DataValue(value=server.encode())
        name = multiple_name(node.node_id, d)
        self.world.result(node.overlay.store(name, TURN_SERVICE, [value], 3600))

    def set_behind_nat(self, node: Node, behind_nat: bool | None) -> None:
        links: Any = node.link_protocols[0]
        links.behind_nat = behind_nat

    def spy(self, node: Node, body: type) -> list[Request]:
        """The requests of a method that `node` gets from now on."""
        seen: list[Request] = []
        answer = node.dispatch.answerers[body]

        def answerer(request: Request) -> Any:
            seen.append(request)
            return answer(request)

        node.dispatch.answerers[body] = answerer
        return seen


class RegistrationTests(TurnTestCase):
    def test_interfaces(self) -> None:
        factory = TurnUsageFactory()
        verifyObject(IUsageFactory, factory)
        verifyObject(IPlugin, factory)
        for interface in IUsage, IRelays:
            verifyObject(interface, factory.build(self.first.overlay))
        self.assertIn("turn", [found.name for found in installed().usages])
        self.assertIs(self.first._link_host.relays, self.usage(self.first))

    def test_at_each_place(self) -> None:
        """The address is at H(Node-ID || d) for d from 1 to turn-density. [6940-9-3, 6940-9-4]"""
        self.served(self.first)
        address = IpAddressPort.of("192.0.2.1", 3478)
        expected = [TurnServer(iteration=d, server_address=address) for d in range(1, DENSITY + 1)]
        self.assertEqual(self.places(self.first), expected)
        self.assertEqual(
            self.status(self.first),
            {"server": "192.0.2.1:3478", "registered": DENSITY, "not_registered": "", "relay": ""},
        )

    def test_no_server(self) -> None:
        """A node without a TURN server has nothing on the clock and registers nothing."""
        status = {"server": "", "registered": 0, "not_registered": "", "relay": ""}
        self.assertEqual(self.status(self.second), status)
        self.assertEqual(self.places(self.second), [])

    def test_at_most_the_kinds_maximum(self) -> None:
        self.build(turn_density=200)
        self.served(self.first)
        self.assertEqual([server.iteration for server in self.places(self.first)], list(range(1, 21)))

    def test_renewed(self) -> None:
        """What is registered does not end while the node runs, and ends with it when it is killed."""
        self.served(self.first)
        self.world.run(3 * LIFETIME)
        self.assertEqual(len(self.places(self.first)), DENSITY)
        self.world.kill(self.first)
        self.world.run(LIFETIME)
        self.assertEqual(self.places(self.first), [])

    def test_withdrawn(self) -> None:
        """A node that leaves takes its TURN server with it."""
        self.served(self.first)
        self.world.leave(self.first)
        self.assertEqual(self.places(self.first), [])

    def test_stopped_at_once(self) -> None:
        """A node that ends before it has registered leaves nothing on the clock."""
        self.serve(self.first)
        self.world.kill(*self.world.nodes)
        self.world.run(60)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_behind_a_nat(self) -> None:
        """Not registered behind a NAT, withdrawn when one is seen, and registered when there is none. [6940-9-1]"""
        self.set_behind_nat(self.first, True)
        self.serve(self.first)
        self.world.run(60)
        self.assertEqual(self.places(self.first), [])
        self.assertEqual(self.status(self.first)["not_registered"], "this node is behind a NAT")
        self.set_behind_nat(self.first, False)
        self.world.run(2 * LOOK)
        self.assertEqual(len(self.places(self.first)), DENSITY)
        self.set_behind_nat(self.first, True)
        self.world.run(2 * LOOK)
        self.assertEqual(self.places(self.first), [])
        self.assertIsNone(self.relay(self.second))

    def test_private_address(self) -> None:
        """[6940-9-2]"""
        self.serve(self.first, "192.168.1.1")
        self.world.run(60)
        self.assertEqual(self.places(self.first), [])
        self.assertIn("RFC 1918", self.status(self.first)["not_registered"])

    def test_what_the_overlay_does_not_want(self) -> None:
        """A turn-density of 0, or no such Kind; when the document changes that it is registered."""
        for settings, why in (
            ({"turn_density": 0}, "turn-density is 0"),
            ({"kinds": [REGISTERED[CERTIFICATE_BY_NODE]]}, "Kind TURN-SERVICE"),
        ):
            self.build(**settings)
            self.serve(self.first)
            self.world.run(60)
            self.assertIn(why, self.status(self.first)["not_registered"])
            self.assertIsNone(self.successResultOf(self.usage(self.second).relay()))
        kinds = {TURN_SERVICE: REGISTERED[TURN_SERVICE]}
        self.first.updates.offer(self.world.document(kinds=kinds, turn_density=3))
        self.world.run(2 * LOOK)
        self.assertEqual(len(self.places(self.first)), 3)

    def test_not_stored(self) -> None:
        """What could not be stored is tried again, and told."""

        def refuse(request: Request) -> Any:
            raise Forbidden("not now")

        usual = {node: node.dispatch.answerers[StoreReq] for node in self.world.nodes}
        for node in usual:
            node.dispatch.answerers[StoreReq] = refuse
        self.serve(self.first)
        self.world.run(2 * LOOK)
        self.assertEqual(self.status(self.first)["not_registered"], "not stored: Forbidden: not now")
        self.assertIsNone(self.relay(self.second))
        for node, answerer in usual.items():
            node.dispatch.answerers[StoreReq] = answerer
        self.world.run(2 * LOOK)
        self.assertEqual(len(self.places(self.first)), DENSITY)

    def test_only_at_ones_own_places(self) -> None:
        """NODE-MULTIPLE: neither at another's places nor beyond the twentieth. [6940-7.3.4-1]"""
        value = DataValue(value=TurnServer(iteration=1, server_address=IpAddressPort.of("192.0.2.9", 1)).encode())
        for name in (multiple_name(self.first.node_id, 1), multiple_name(self.second.node_id, 21)):
            stored = self.second.overlay.store(name, TURN_SERVICE, [value], 60)
            self.assertRaises(Forbidden, self.world.result, stored)


class SearchTests(TurnTestCase):
    def test_found(self) -> None:
        """By Find at random Resource-IDs, with credentials for the node that asks. [6940-9-5]"""
        finds = [self.spy(node, FindReq) for node in self.world.nodes]
        self.served(self.first)
        relay = self.found(self.second)
        self.assertEqual((relay.address, relay.port), ("192.0.2.1", 3478))
        self.assertTrue(relay.username.endswith(f":{self.second.node_id.hex()}"))
        self.assertEqual(relay.password, b64encode(digest(SECRET, relay.username.encode(), "sha1")).decode())
        self.assertGreater(relay.expires, self.world.clock.seconds() + CREDENTIALS_STEP)
        self.assertEqual(self.status(self.second)["relay"], "192.0.2.1:3478")
        asked = [request.body for seen in finds for request in seen]
        self.assertEqual(len({body.resource for body in asked}), PROBES)

    def test_by_a_client_and_before_joining(self) -> None:
        """A node that only has a link finds one as well: it needs it to get others."""
        self.served(self.first)
        newcomer = self.world.add(client=True)
        self.world.until(lambda: newcomer.table.connected())
        self.found(newcomer)

    def test_kept(self) -> None:
        """A relay is used again until a minute before its credentials end."""
        self.served(self.first)
        relay = self.found(self.second)
        pings = self.spy(self.first, PingReq)
        self.world.run(relay.expires - MARGIN - self.world.clock.seconds() - 1)
        self.assertIs(self.successResultOf(self.usage(self.second).relay()), relay)
        self.world.run(2)
        self.assertEqual(self.status(self.second)["relay"], "")
        self.assertGreater(self.found(self.second).expires, relay.expires)
        self.assertEqual(len([request for request in pings if request.extensions]), 1)

    def test_shared(self) -> None:
        """Those who ask while a search goes on share it; one who does not wait any more does not end it."""
        self.served(self.first)
        finds = [self.spy(node, FindReq) for node in self.world.nodes]
        first, second, third = (self.usage(self.second).relay() for _ in range(3))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertIs(self.world.result(first), self.world.result(third))
        self.assertLessEqual(sum(map(len, finds)), PROBES)

    def test_none(self) -> None:
        """Where there is none that is known after a bounded search, and for a while without another."""
        finds = [self.spy(node, FindReq) for node in self.world.nodes]
        self.assertIsNone(self.relay(self.second))
        asked = sum(map(len, finds))
        self.assertEqual(asked, ROUNDS * PROBES)
        self.served(self.first)
        self.assertIsNone(self.successResultOf(self.usage(self.second).relay()))
        self.assertEqual(sum(map(len, finds)), asked)
        self.world.run(REMEMBERED)
        self.found(self.second)

    def test_look_again_when_joined(self) -> None:
        """What was not found before the node had joined is looked for again."""
        self.assertIsNone(self.relay(self.second))
        self.served(self.first)
        self.usage(self.second).start()
        self.found(self.second)

    def test_nobody_answers(self) -> None:
        """A search ends in time, whatever happens, and does not fail."""
        self.world.kill(self.first, self.third, self.world.nodes[3])
        began = self.world.clock.seconds()
        self.assertIsNone(self.relay(self.second))
        self.assertLessEqual(self.world.clock.seconds() - began, SEARCH_SECONDS)

    def test_not_its_own(self) -> None:
        self.served(self.first)
        self.assertIsNone(self.relay(self.first))

    def test_dead_turn_peer(self) -> None:
        """A registration that has outlived its peer is passed over."""
        self.build(8)
        self.served(self.first)
        self.world.kill(self.first)
        self.world.run(60)
        self.assertIsNone(self.relay(self.second))
        self.world.run(REMEMBERED)
        self.served(self.third, "192.0.2.3")
        self.assertEqual(self.found(self.second).address, "192.0.2.3")

    def test_one_of_several(self) -> None:
        """Which one is chance: none of three is used by all."""
        self.build(12)
        for number, node in enumerate(self.world.nodes[:3], 1):
            self.served(node, f"192.0.2.{number}")
        used = {self.found(node).address for node in self.world.nodes[3:]}
        self.assertGreater(len(used), 1)

    def test_one_that_failed(self) -> None:
        """One that gave no relayed address is used for some minutes only if there is no other."""
        self.served(self.first, "192.0.2.1")
        usage = self.usage(self.second)
        for _ in range(2):
            usage.relay_failed(self.found(self.second))
            self.assertEqual(self.found(self.second).address, "192.0.2.1")
        self.served(self.third, "192.0.2.3")
        usage.relay_failed(self.found(self.second))
        self.assertEqual(self.found(self.second).address, "192.0.2.3")
        self.world.run(AVOIDED)
        usage.relay_failed(self.found(self.second))
        self.assertEqual(self.found(self.second).address, "192.0.2.1")

    def test_stop(self) -> None:
        """A search that is under way ends with the node."""
        self.served(self.first)
        asked = self.usage(self.second).relay()
        self.world.result(self.second.stop())
        self.assertIsNone(self.successResultOf(asked))

    def refused(self, server: TurnServer | bytes, cause: str) -> None:
        """That `self.third` registers this, by hand, is counted under `cause` and helps nobody."""
        value = DataValue(value=server if isinstance(server, bytes) else server.encode())
        name = multiple_name(self.third.node_id, 1)
        self.world.result(self.third.overlay.store(name, TURN_SERVICE, [value], 3600))
        self.assertIsNone(self.relay(self.second))
        self.assertIn(cause, self.second.status()["rejected"])
        self.world.run(REMEMBERED)

    def test_addresses_that_others_must_not_send_us_to(self) -> None:
        for host, port in (("192.168.1.1", 53), ("127.0.0.1", 22), ("fe80::1", 3478), ("192.0.2.1", 0)):
            server = TurnServer(iteration=1, server_address=IpAddressPort.of(host, port))
            self.refused(server, "TURN server at an address that is not public")

    def test_garbage(self) -> None:
        self.refused(b"garbage", "undecodable TurnServer")

    def test_no_credentials(self) -> None:
        """A peer that has registered and gives none, or some that end at once, is passed over."""
        server = TurnServer(iteration=1, server_address=IpAddressPort.of("192.0.2.1", 3478))
        self.refused(server, "TURN peer without credentials")
        short = TurnCredentials(username=b"u", password=b"p", lifetime=int(MARGIN))
        self.third.overlay.extend_answers(MessageExtensionType.TURN_CREDENTIALS, lambda request: short)
        self.assertIsNone(self.relay(self.second))
        self.world.run(REMEMBERED)
        long = short.replace(lifetime=2**32 - 1, username=b"\xff")
        self.third.overlay.extend_answers(MessageExtensionType.TURN_CREDENTIALS, lambda request: long)
        self.assertEqual(self.found(self.second).expires, self.world.clock.seconds() + 86400)

    def test_find_answers_nonsense(self) -> None:
        """A Resource-ID that is none of this overlay's is not fetched."""
        for node in self.world.nodes:
            usual = node.dispatch.answerers[FindReq]

            def answerer(request: Request, usual: Any = usual) -> Any:
                reply = usual(request)
                closest = tuple(found.replace(closest=b"\x01" * 3) for found in reply.body.results)
                return reply.body.replace(results=closest)

            node.dispatch.answerers[FindReq] = answerer
        self.served(self.first)
        self.assertIsNone(self.relay(self.second))


class AskingTests(TurnTestCase):
    """What a TURN peer answers who asks for credentials."""

    def ask(self, node: Node, of: Node, body: Any = None) -> Sequence[Any]:
        to = [NodeDestination(node_id=of.node_id)]
        asked: Deferred[Any] = node.overlay.request(to, body or PingReq(), extensions=(TurnCredentials(),))
        extensions: Sequence[Any] = self.world.result(asked).extensions
        return extensions

    def test_once_registered(self) -> None:
        """Each member gets its own; whoever has no TURN server, or none that is registered, answers a plain Ping."""
        self.serve(self.first)
        self.set_behind_nat(self.third, True)
        self.serve(self.third)
        self.world.run(5)
        given = [extension for node in (self.second, self.third) for extension in self.ask(node, self.first)]
        self.assertEqual(len({extension.username for extension in given}), 2)
        self.assertNotIn(SECRET, b"".join(extension.encode() for extension in given))
        self.assertEqual(self.ask(self.first, self.third), ())
        self.assertEqual(self.ask(self.first, self.second), ())

    def test_by_whom_it_is_signed(self) -> None:
        """Credentials are those of the Node-ID that has signed: nobody has two at a time, however often it asks."""
        self.served(self.first)
        names = {self.ask(self.second, self.first)[0].username for _ in range(50)}
        self.assertEqual({name.partition(b":")[2] for name in names}, {self.second.node_id.hex().encode()})
        self.assertEqual(len(names), 1)

    def test_forged(self) -> None:
        """A request that no certificate of the overlay stands behind gets no answer. [6940-6.3.4-12]"""
        self.served(self.first)
        pings = self.spy(self.first, PingReq)
        stranger = World(seed=9).credentials("mallory@example.org").signer
        to = [NodeDestination(node_id=self.first.node_id)]
        asked = self.second.messaging.request(to, PingReq(), stranger, (), (TurnCredentials(),))
        self.world.run(2)
        self.assertNoResult(asked)
        self.assertEqual(pings, [])
        asked.addErrback(lambda failure: None)
        asked.cancel()

    def test_revoked(self) -> None:
        """A bad-node gets none."""
        self.served(self.first)
        bad = frozenset((self.second.node_id,))
        self.first.updates.offer(self.world.document(bad_nodes=bad))
        self.world.run(5)
        to = [NodeDestination(node_id=self.first.node_id)]
        asked = self.second.overlay.request(to, PingReq(), extensions=(TurnCredentials(),))
        asked.addErrback(lambda failure: None)
        pings = self.spy(self.first, PingReq)
        self.world.run(20)
        self.assertEqual([ping for ping in pings if ping.extensions], [])

    def test_only_in_a_ping(self) -> None:
        self.served(self.first)
        find = FindReq(resource=self.first.overlay.resource_id(b"x"), kinds=(TURN_SERVICE,))
        signed_by = SignedBy(self.second.signer.identity, self.second.node_id)
        request = Request(find, signed_by, self.second.node_id, 1, (), (TurnCredentials(),))
        self.assertEqual(self.world.result(self.first.dispatch.answer(request)).extensions, ())
