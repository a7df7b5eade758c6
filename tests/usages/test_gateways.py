"""Gateways in an overlay in memory: registered, found, and by nobody else."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.config.kinds import CERTIFICATE_BY_NODE, GATEWAY, GATEWAYS, REGISTERED, Kind, gateway_user_name
from p2psip.errors import Forbidden, RELOADError
from p2psip.interfaces import ISigner, IUsage, IUsageFactory, Request
from p2psip.node import Node, installed
from p2psip.testing import World
from p2psip.usages.gateways import FRESH, LIFETIME, LOOK, STALE, GatewayNode, GatewayUsage, GatewayUsageFactory
from p2psip.wire.gateways import Gateway
from p2psip.wire.storage import DataValue, DictionaryEntry, FetchReq, StoreReq

NAME = "gateways@services.example.org"


class GatewayTestCase(SynchronousTestCase):
    """Four nodes."""

    def setUp(self) -> None:
        self.build()

    def build(self, *kinds: Kind) -> None:
        self.world = World(4, usages=[GatewayUsageFactory()], kinds=kinds or (GATEWAYS,))
        self.first, self.second, self.third = self.world.nodes[:3]

    def usage(self, node: Node) -> GatewayUsage:
        usage = node.usages["gateways"]
        assert isinstance(usage, GatewayUsage)
        return usage

    def signer(self, node: Node) -> Deferred[ISigner]:
        """As the authority certifies a registrar at `node`."""
        return succeed(self.world.user(NAME, node))

    def serve(self, node: Node, *prefixes: str, priority: int = 10, signer: Any = None) -> None:
        """Make `node` a gateway, as if it had been one from the first."""
        self.usage(node).serve(prefixes or ("+",), priority, signer or (lambda: self.signer(node)))
        self.usage(node).start()

    def served(self, node: Node, *prefixes: str, priority: int = 10) -> None:
        self.serve(node, *prefixes, priority=priority)
        self.world.until(lambda: self.status(node)["registered"])

    def status(self, node: Node) -> Any:
        return self.usage(node).status()

    def found(self, node: Node) -> list[GatewayNode]:
        """What `node` finds without remembering."""
        self.usage(node)._found_at = float("-inf")
        return sorted(self.world.result(self.usage(node).find()), key=lambda one: one.priority)

    def store(self, node: Node, signer: ISigner, value: bytes = b"", key: bytes = b"") -> None:
        """Store by hand."""
        entry = DictionaryEntry(key=key or node.node_id, value=DataValue(value=value))
        self.world.result(node.overlay.store(NAME.encode(), GATEWAY, [entry], 600, signer=signer))

    def refuse(self, body: type, refusal: Exception) -> Any:
        """Have every node refuse such requests; answers what ends that."""
        usual = {node: node.dispatch.answerers[body] for node in self.world.nodes}

        def refuse(request: Request) -> Any:
            raise refusal

        for node in usual:
            node.dispatch.answerers[body] = refuse
        return lambda: [node.dispatch.answerers.__setitem__(body, answer) for node, answer in usual.items()]


class RegistrationTests(GatewayTestCase):
    def test_interfaces(self) -> None:
        factory = GatewayUsageFactory()
        verifyObject(IUsageFactory, factory)
        verifyObject(IPlugin, factory)
        verifyObject(IUsage, factory.build(self.first.overlay))
        self.assertIn("gateways", [found.name for found in installed().usages])
        self.assertEqual(gateway_user_name("example.org"), NAME)

    def test_found(self) -> None:
        self.served(self.first, "+49", "112", priority=7)
        self.served(self.second)
        expected = [
            GatewayNode(self.first.node_id, 7, ("+49", "112")),
            GatewayNode(self.second.node_id, 10, ("+",)),
        ]
        for node in self.world.nodes:
            self.assertEqual(self.found(node), expected)
        self.assertEqual(self.status(self.first), {"registered": True, "not_registered": "", "known": 2})
        self.assertEqual(self.status(self.third), {"registered": False, "not_registered": "", "known": 2})

    def test_renewed_and_ended(self) -> None:
        """It does not end while the node runs, and soon after the node was killed."""
        self.served(self.first)
        self.world.run(3 * LIFETIME)
        self.assertEqual(len(self.found(self.second)), 1)
        self.world.kill(self.first)
        self.world.run(LIFETIME + 60)
        self.assertEqual(self.found(self.second), [])

    def test_withdrawn(self) -> None:
        """A node that leaves is no gateway any more."""
        self.served(self.first)
        self.world.leave(self.first)
        self.assertEqual(self.found(self.second), [])

    def test_withdrawn_in_vain(self) -> None:
        """Nobody waits long for it."""
        self.served(self.first)
        self.refuse(StoreReq, Forbidden("not now"))
        self.world.result(self.usage(self.first).stop())
        self.assertFalse(self.status(self.first)["registered"])

    def test_stopped_meanwhile(self) -> None:
        """While it waits for its certificate."""
        self.serve(self.first, signer=Deferred)
        self.world.result(self.usage(self.first).stop())
        self.world.run(2 * LOOK)
        self.assertEqual(self.found(self.second), [])
        self.assertEqual(self.status(self.first)["not_registered"], "")

    def test_no_certificate_yet(self) -> None:
        """It is asked for again, and what is in the way is told."""
        answers = [fail(ValueError("the server is down")), self.signer(self.first)]
        self.serve(self.first, signer=lambda: answers.pop(0))
        self.assertEqual(self.status(self.first)["not_registered"], "not stored: the server is down")
        self.world.run(2 * LOOK)
        self.assertEqual(self.status(self.first)["not_registered"], "")
        self.assertEqual(len(self.found(self.second)), 1)

    def test_not_stored(self) -> None:
        accept = self.refuse(StoreReq, Forbidden("not now"))
        self.serve(self.first)
        self.world.run(10)
        self.assertIn("not now", self.status(self.first)["not_registered"])
        accept()
        self.world.run(2 * LOOK)
        self.assertTrue(self.status(self.first)["registered"])

    def test_overlay_without_the_kind(self) -> None:
        """One that was founded before there were gateways; then a new document brings the Kind."""
        self.build(REGISTERED[CERTIFICATE_BY_NODE])
        self.serve(self.first)
        self.assertIn("`p2psip authority publish`", self.status(self.first)["not_registered"])
        self.assertEqual(self.successResultOf(self.usage(self.second).find()), ())
        self.first.updates.offer(self.world.document(kinds={GATEWAY: GATEWAYS}))
        self.world.run(2 * LOOK)
        self.assertEqual(len(self.found(self.second)), 1)


class AccessTests(GatewayTestCase):
    """USER-NODE-MATCH, with a user name that only the authority gives. [6940-7.3.3-1, 6940-7.3.3-2]"""

    value = Gateway(priority=0, prefixes=(b"+",)).encode()

    def test_peers_and_users(self) -> None:
        """Neither a peer by its own certificate nor a user becomes a gateway, whatever its role."""
        registrar = self.world.credentials("registrar@nodes.example.org", role="registrar").signer
        for signer in (
            self.world.user("alice@example.org", self.first),
            self.world.user("gateways@nodes.example.org", self.first),
            registrar,
        ):
            with self.assertRaises(Forbidden):
                self.store(self.first, signer, self.value)
        with self.assertRaises(Forbidden):
            self.world.result(
                self.first.overlay.store(
                    NAME.encode(),
                    GATEWAY,
                    [DictionaryEntry(key=self.first.node_id, value=DataValue(value=self.value))],
                    600,
                )
            )

    def test_another_nodes_entry(self) -> None:
        """A gateway writes its own entry only."""
        signer = self.successResultOf(self.signer(self.first))
        with self.assertRaises(Forbidden):
            self.store(self.first, signer, self.value, self.second.node_id)
        self.store(self.first, signer, self.value)
        self.assertEqual([one.node_id for one in self.found(self.second)], [self.first.node_id])


class SearchTests(GatewayTestCase):
    def fetches(self) -> list[Request]:
        seen: list[Request] = []
        for node in self.world.nodes:
            self.spy(node, seen)
        return seen

    def spy(self, node: Node, seen: list[Request]) -> None:
        answer = node.dispatch.answerers[FetchReq]

        def answerer(request: Request) -> Any:
            seen.append(request)
            return answer(request)

        node.dispatch.answerers[FetchReq] = answerer

    def test_shared_and_remembered(self) -> None:
        self.served(self.first)
        seen, usage = self.fetches(), self.usage(self.second)
        waiting = [usage.find() for _ in range(3)]
        waiting[1].addErrback(lambda _: None)
        waiting[1].cancel()
        self.world.result(waiting[0])
        self.assertEqual(len(self.successResultOf(waiting[2])), 1)
        self.assertEqual(len(self.successResultOf(usage.find())), 1)
        self.assertEqual(len(seen), 1)
        self.world.run(FRESH)
        self.world.result(usage.find())
        self.assertEqual(len(seen), 2)

    def test_no_answer(self) -> None:
        """Who was found is used for a while; then the search fails."""
        self.served(self.first)
        usage = self.usage(self.second)
        found = self.world.result(usage.find())
        self.refuse(FetchReq, Forbidden("not now"))
        self.world.run(FRESH)
        self.assertEqual(self.world.result(usage.find()), found)
        self.world.run(STALE)
        self.assertRaises(RELOADError, self.world.result, usage.find())

    def test_values_of_no_use(self) -> None:
        """What cannot be decoded is left out, and prefixes that are none."""
        self.store(self.first, self.successResultOf(self.signer(self.first)), b"\0")
        odd = Gateway(priority=1, prefixes=(b"+49", b"", b"4", b"+4x", b"\xff", b"112", b"+" + b"1" * 16))
        self.store(self.second, self.successResultOf(self.signer(self.second)), odd.encode())
        self.assertEqual(self.found(self.third), [GatewayNode(self.second.node_id, 1, ("+49", "112"))])
        self.assertEqual(self.third.status()["rejected"]["undecodable Gateway"], 1)
