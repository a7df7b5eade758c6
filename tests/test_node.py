"""Whole nodes in memory: joining, storing, fetching, and what they are asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.testing import AccumulatingProtocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.config.kinds import SIP_REGISTRATION
from p2psip.errors import (
    Forbidden,
    GenerationCounterTooLow,
    LinkError,
    NotFound,
    RequestTimeout,
    UnknownKind,
)
from p2psip.ids import NodeId, ResourceId, offset
from p2psip.interfaces import (
    IApplicationConnection,
    IConnectionTable,
    ILinkHost,
    ILinkOwner,
    IOverlay,
    ISigner,
    ITopologyHost,
)
from p2psip.node import Node, installed
from p2psip.node.hosts import LinkHost, Links, RenewableSigner, TopologyHost
from p2psip.node.values import StorageTimes
from p2psip.testing import EPOCH, World
from p2psip.usages.certificate import CertificateUsageFactory
from p2psip.wire.header import NodeDestination, ResourceDestination
from p2psip.wire.methods import (
    AttachReqAns,
    JoinReq,
    NumResources,
    PingReq,
    ProbeReq,
    ResponsibleSet,
    Uptime,
)
from p2psip.wire.storage import DataValue, DictionaryEntry

ALICE = "alice@example.org"


def entry(node: Node, text: bytes) -> DictionaryEntry:
    return DictionaryEntry(key=node.node_id, value=DataValue(value=text))


def store(world: World, node: Node, text: bytes, name: str = ALICE) -> None:
    world.result(
        node.overlay.store(
            name.encode(), SIP_REGISTRATION, [entry(node, text)], 3600, signer=world.user(name, node)
        )
    )


def fetch(world: World, node: Node, name: str = ALICE) -> list[bytes]:
    values = world.result(node.overlay.fetch(name.encode(), SIP_REGISTRATION))
    return [value.data.value.value.value for value in values]  # type: ignore[union-attr]


class InterfaceTests(SynchronousTestCase):
    def test_interfaces(self) -> None:
        """What a node lends keeps to the interfaces."""
        (node,) = World(1).nodes
        topology_host = TopologyHost(node)
        for interface, thing in (
            (IOverlay, node.overlay),
            (ITopologyHost, topology_host),
            (IConnectionTable, topology_host.connections),
            (ILinkOwner, Links(node)),
            (ILinkHost, LinkHost(node, None, node.trust)),
            (ISigner, node.signer),
        ):
            verifyObject(interface, thing)

    def test_installed(self) -> None:
        """CHORD-RELOAD and the access control policies are found as plug-ins."""
        found = installed()
        self.assertIn("CHORD-RELOAD", [factory.name for factory in found.topologies])
        self.assertIn("USER-NODE-MATCH", [policy.name for policy in found.policies])


class OneNodeTests(SynchronousTestCase):
    def test_alone(self) -> None:
        """The first node is responsible for everything and serves itself."""
        world = World(1)
        (node,) = world.nodes
        store(world, node, b"hello")
        self.assertEqual(fetch(world, node), [b"hello"])
        self.assertEqual(node.status()["stored"]["values"], 1)

    def test_status(self) -> None:
        """All that ``status --json`` promises."""
        world = World(2)
        world.run(10)
        node, other = world.nodes
        status = node.status()
        self.assertEqual(status["node_id"], node.node_id.hex())
        self.assertEqual(status["overlay"], "example.org")
        self.assertEqual(status["role"], "peer")
        self.assertTrue(status["joined"])
        self.assertEqual(status["uptime"], 10)
        self.assertEqual(status["neighbors"]["successors"], [other.node_id.hex()])
        self.assertEqual(status["fingers"], [other.node_id.hex()])
        self.assertEqual([link["node_id"] for link in status["links"]], [other.node_id.hex()])
        self.assertEqual(set(status["links"][0]), {"node_id", "protocol", "address", "candidate_pair", "rtt_ms", "mtu"})
        self.assertEqual(set(status["stored"]), {"resources", "values", "bytes"})
        self.assertEqual(len(status["listeners"]), 1)
        self.assertIsInstance(status["rejected"], dict)

    def test_address_in_use(self) -> None:
        """A node that cannot listen says so and is stopped."""
        world = World(1)
        world.network.new_address = lambda: world.address(world.nodes[0])  # type: ignore[method-assign]
        with self.assertRaisesRegex(LinkError, "6084"):
            world.add()
        self.assertFalse(world.nodes[-1].joined)

    def test_stop(self) -> None:
        """A stopped node leaves no timer behind."""
        world = World(3, usages=[CertificateUsageFactory()])
        for node in list(world.nodes):
            world.result(node.stop())
        world.run(1)
        self.assertEqual([call.func for call in world.clock.getDelayedCalls()], [])


class JoiningTests(SynchronousTestCase):
    def test_by_a_bootstrap_node(self) -> None:
        """A link to a bootstrap node, an Attach over it to the Resource-ID after one's own, whose answer comes back
        that way, and a Join to whoever answered. [6940-6.1.2-10, 6940-11.4-1, 6940-11.4-3, 6940-11.4-4]
        """
        world = World(8)
        founder = world.nodes[0]
        newcomer = world.add(world.credentials("newcomer@nodes.example.org", NodeId(offset(founder.node_id, 1 << 64))))
        request, linked, asked = newcomer.messaging.request, list[object](), list[tuple[object, object]]()

        def recording(destination_list: Any, body: Any, *arguments: Any) -> Any:
            asked.append((tuple(destination_list), body))
            linked.append(newcomer.table.connected())
            return request(destination_list, body, *arguments)

        newcomer.messaging.request = recording  # type: ignore[method-assign]
        newcomer.attachments._request = recording
        world.until(lambda: newcomer.joined)
        ring = sorted(node.node_id for node in world.nodes)
        after = ring[(ring.index(newcomer.node_id) + 1) % len(ring)]
        self.assertNotEqual(after, founder.node_id)
        first = next(i for i, (_, body) in enumerate(asked) if isinstance(body, AttachReqAns))
        self.assertEqual(linked[: first + 1], [[founder.node_id]] * (first + 1))
        bootstrap = NodeDestination(node_id=founder.node_id)
        target = ResourceDestination(resource_id=ResourceId(offset(newcomer.node_id, 1)))
        self.assertEqual(asked[first][0], (bootstrap, target))
        self.assertEqual(
            [destinations for destinations, body in asked if isinstance(body, JoinReq)],
            [(NodeDestination(node_id=after),)],
        )


class ThreeNodesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(3)

    def test_store_and_fetch(self) -> None:
        """What one stores every other finds, signed, and two others hold copies. [6940-13.5.1-1]"""
        store(self.world, self.world.nodes[0], b"hello")
        self.world.run(1)
        self.assertEqual([fetch(self.world, node) for node in self.world.nodes], [[b"hello"]] * 3)
        self.assertEqual([node.storage.values for node in self.world.nodes], [1, 1, 1])
        (found,) = self.world.result(self.world.nodes[1].overlay.fetch(ALICE.encode(), SIP_REGISTRATION))
        self.assertEqual(found.signer.identity.user_name, ALICE)
        self.assertEqual(found.signer.node_id, self.world.nodes[0].node_id)

    def test_several_devices(self) -> None:
        """Each node writes its own key of the dictionary, and one key can be asked for."""
        for node in self.world.nodes:
            store(self.world, node, node.node_id[:4])
        node = self.world.nodes[1]
        self.assertEqual(len(fetch(self.world, node)), 3)
        one = self.world.result(node.overlay.fetch(ALICE.encode(), SIP_REGISTRATION, [node.node_id]))
        self.assertEqual([value.signer.node_id for value in one], [node.node_id])

    def test_tombstone(self) -> None:
        """A value that was removed is not fetched any more."""
        node = self.world.nodes[0]
        store(self.world, node, b"hello")
        gone = DictionaryEntry(key=node.node_id, value=DataValue(exists=False, value=b""))
        signer = self.world.user(ALICE, node)
        self.world.result(node.overlay.store(ALICE.encode(), SIP_REGISTRATION, [gone], 3600, signer=signer))
        self.assertEqual(fetch(self.world, self.world.nodes[2]), [])

    def test_wrong_user(self) -> None:
        """A Store under another user's name is Forbidden, whoever is responsible."""
        for node in self.world.nodes:
            stored = node.overlay.store(
                ALICE.encode(),
                SIP_REGISTRATION,
                [entry(node, b"evil")],
                3600,
                signer=self.world.user("mallory@example.org", node),
            )
            self.assertRaises(Forbidden, self.world.result, stored)
        self.assertEqual([node.storage.values for node in self.world.nodes], [0, 0, 0])

    def test_wrong_key(self) -> None:
        """A Store under another node's key is Forbidden."""
        node, other, _ = self.world.nodes
        signer = self.world.user(ALICE, node)
        stored = node.overlay.store(ALICE.encode(), SIP_REGISTRATION, [entry(other, b"x")], 60, signer=signer)
        self.assertRaises(Forbidden, self.world.result, stored)

    def test_unknown_kind(self) -> None:
        """A Kind that the overlay does not have is Unknown_Kind, before anything is sent."""
        self.assertRaises(
            UnknownKind, self.world.result, self.world.nodes[0].overlay.fetch(b"x", 0xF0000001)
        )

    def test_generation(self) -> None:
        """A Store made for another generation than the current one is told so."""
        node = self.world.nodes[0]
        store(self.world, node, b"one")
        store(self.world, node, b"two")
        signer = self.world.user(ALICE, node)
        stored = node.overlay.store(
            ALICE.encode(), SIP_REGISTRATION, [entry(node, b"three")], 60, signer=signer, generation=1
        )
        self.assertRaises(GenerationCounterTooLow, self.world.result, stored)

    def test_clock_put_back(self) -> None:
        """A value of ours that is ahead of our clock is followed, within reason."""
        node = self.world.nodes[0]
        node.values._times.follow(int((EPOCH + 3600) * 1000))
        store(self.world, node, b"from the future")
        node.values._times = StorageTimes(self.world.clock.seconds)
        store(self.world, node, b"now")
        self.assertEqual(fetch(self.world, self.world.nodes[1]), [b"now"])

    def test_ping(self) -> None:
        """Ping to a node, and to whoever is responsible for a resource."""
        first, second, _ = self.world.nodes
        answer = self.world.result(first.overlay.request([NodeDestination(node_id=second.node_id)], PingReq()))
        self.assertEqual(answer.body.time, int(self.world.clock.seconds() * 1000) - 10)  # type: ignore[attr-defined]
        resource = first.overlay.resource_id(b"x")
        answer = self.world.result(first.overlay.request([ResourceDestination(resource_id=resource)], PingReq()))
        (responsible,) = [node for node in self.world.nodes if node.topology.is_responsible(resource)]
        self.assertEqual(answer.signer.node_id, responsible.node_id)

    def test_ping_nobody(self) -> None:
        """A Node-ID that is no node's is no answer."""
        asked = self.world.nodes[0].overlay.request([NodeDestination(node_id=NodeId(b"?" * 16))], PingReq())
        self.assertRaises(RequestTimeout, self.world.result, asked)

    def test_probe(self) -> None:
        """What was asked for and is known, in that order. [6940-6.4.2.5.2-1] [6940-6.4.2.5.2-2]"""
        first, second, _ = self.world.nodes
        store(self.world, first, b"hello")
        self.world.run(5)
        body = ProbeReq(requested_info=(3, 77, 1, 2))
        answer = self.world.result(first.overlay.request([NodeDestination(node_id=second.node_id)], body))
        uptime, share, resources = answer.body.probe_info  # type: ignore[attr-defined]
        self.assertIsInstance(uptime, Uptime)
        self.assertIsInstance(share, ResponsibleSet)
        self.assertEqual(resources, NumResources(num_resources=1))
        shares = [node.topology.responsible_ppb() for node in self.world.nodes]
        self.assertEqual(share.responsible_ppb, shares[1])
        self.assertLess(abs(sum(shares) - 10**9), 5)

    def test_client(self) -> None:
        """A client is no peer, yet it stores, fetches and is reached by its Node-ID."""
        client = self.world.add(client=True)
        self.world.until(lambda: client.joined)
        self.assertEqual(client.status()["role"], "client")
        store(self.world, client, b"from a client")
        self.assertEqual(fetch(self.world, client), [b"from a client"])
        for node in self.world.nodes[:3]:
            self.assertEqual(fetch(self.world, node), [b"from a client"])
            asked = node.overlay.request([NodeDestination(node_id=client.node_id)], PingReq())
            self.assertEqual(self.world.result(asked).signer.node_id, client.node_id)
            self.assertNotIn(client.node_id.hex(), node.status()["neighbors"]["successors"])
        self.assertEqual(client.storage.values, 0)

    def test_bootstrap_host(self) -> None:
        """A client leads others into the overlay; without the overlay itself it sends them on. [6940-6.1.2-10]"""
        client = self.world.add(client=True)
        self.world.until(lambda: client.joined)
        document = self.world.configuration
        place = (self.world.address(client), 6084)
        self.world.configuration = replace(document, bootstrap_nodes=(place,))
        self.world.random.seed(5)
        joining = self.world.add()
        self.world.until(lambda: joining.joined, 20)
        self.assertNotIn(place, self.world.nodes[0].bootstrap_cache.places)
        peers = [node for node in self.world.nodes if node is not client]
        self.world.kill(*peers)
        self.world.configuration = replace(document, bootstrap_nodes=(place, *document.bootstrap_nodes))
        founder = self.world.restart(peers[0], found_after=5.0)
        late = self.world.add()
        self.world.until(lambda: founder.joined and late.joined and client.joined)
        self.assertIn("answered NotFound", client.status()["rejected"])

    def test_app_attach(self) -> None:
        """A connection for an application; Not_Found where it is not served. [6940-6.5.2.2-3]"""
        first, second, _ = self.world.nodes
        attached = first.overlay.app_attach(second.node_id, 5060)
        self.assertRaises(NotFound, self.world.result, attached)
        served: list[IApplicationConnection] = []
        second.app_attachments.applications[5060] = served.append
        connection = self.world.result(first.overlay.app_attach(second.node_id, 5060))
        self.assertEqual(connection.node_id, second.node_id)
        self.world.run(1)
        (accepted,) = served
        self.assertEqual(accepted.node_id, first.node_id)
        ours, theirs = AccumulatingProtocol(), AccumulatingProtocol()
        connection.start(ours)
        accepted.start(theirs)
        ours.transport.write(b"REGISTER")
        theirs.transport.write(b"200 OK")
        self.world.run(1)
        self.assertEqual((ours.data, theirs.data), (b"200 OK", b"REGISTER"))
        for node, other in ((first, second), (second, first)):
            (shown,) = node.status()["applications"]
            self.assertEqual((shown["node_id"], shown["application"]), (other.node_id.hex(), 5060))
        ours.transport.loseConnection()
        self.world.run(1)
        for node in (first, second):
            self.assertEqual(node.status()["applications"], [])

    def test_renewed_certificate(self) -> None:
        """A node goes on with a renewed certificate; one for another Node-ID is refused."""
        node, other, _ = self.world.nodes
        key = node._link_host.private_key
        renewed = self.world.credentials("node1@nodes.example.org", node.node_id, key=key)
        node.renew(renewed.signer)
        answer = self.world.result(other.overlay.request([NodeDestination(node_id=node.node_id)], PingReq()))
        self.assertEqual(answer.signer.identity.certificate, renewed.signer.identity.certificate)
        self.assertRaises(ValueError, node.renew, self.world.credentials("x@example.org").signer)


class EightNodesTests(SynchronousTestCase):
    def test_everybody_finds_everything(self) -> None:
        """Twenty names stored from all nodes are found from all nodes."""
        world = World(8, seed=8)
        names = [f"user{number}@example.org" for number in range(20)]
        for number, name in enumerate(names):
            store(world, world.nodes[number % 8], name.encode(), name)
        for node in world.nodes:
            self.assertEqual([fetch(world, node, name) for name in names], [[name.encode()] for name in names])
        world.run(5)
        self.assertEqual(sum(node.storage.values for node in world.nodes), 60)

    def test_lossy_network(self) -> None:
        """With one message of twenty lost, requests are mended by their retransmission."""
        world = World(5, seed=6)
        world.network.loss = 0.05
        store(world, world.nodes[0], b"hello")
        for node in world.nodes:
            self.assertEqual(fetch(world, node), [b"hello"])


class StorageTimeTests(SynchronousTestCase):
    def test_increasing(self) -> None:
        """Two Stores within a millisecond differ; a clock put back does not go back here."""
        now = [EPOCH]
        times = StorageTimes(lambda: now[0])
        first = times.next()
        self.assertEqual(first, int(EPOCH * 1000))
        self.assertEqual(times.next(), first + 1)
        now[0] -= 100
        self.assertEqual(times.next(), first + 2)

    def test_not_too_far_ahead(self) -> None:
        """Nobody can lead our clock days into the future."""
        times = StorageTimes(lambda: EPOCH)
        self.assertFalse(times.follow(int((EPOCH + 2 * 86400) * 1000)))
        self.assertTrue(times.follow(int((EPOCH + 60) * 1000)))
        self.assertEqual(times.next(), int((EPOCH + 60) * 1000) + 1)


class RenewableSignerTests(SynchronousTestCase):
    def test_interface(self) -> None:
        verifyObject(ISigner, RenewableSigner(World().credentials("a@example.org").signer))


