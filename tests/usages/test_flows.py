"""SIP flows between nodes, in an overlay in memory: over streams as with TLS, and over records as with DTLS."""

from __future__ import annotations

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.trial.unittest import SynchronousTestCase

from p2psip.interfaces import IApplicationConnection
from p2psip.links.stream import MemoryStream
from p2psip.sip.errors import MessageTooLarge, SIPFailure
from p2psip.sip.message import Request, Response, parse
from p2psip.sip.query import binding_query, contacts_of
from p2psip.sip.transport import PING, PONG, SIPConnection
from p2psip.testing import World
from p2psip.usages import flows
from p2psip.usages.bindings import PATIENCE
from p2psip.usages.flows import IDLE, LOOK, QUIET, SILENT, SURPLUS_IDLE, Flows
from p2psip.usages.sip import SIPUsageFactory

from .sites import ALICE, Site

RECORD_SIZE = 16384
CONTACT = "sip:alice@192.0.2.7"


def flows_of(site: Site) -> Flows:
    """The flows of a node."""
    bindings = site.usage._bindings
    assert bindings is not None
    return bindings.flows


class FlowTestCase(SynchronousTestCase):
    """Two registrars, alice's phone at the second, and a third node."""

    record_size: int | None = RECORD_SIZE

    def setUp(self) -> None:
        self.world = World(3, usages=[SIPUsageFactory()])
        self.world.network.record_size = self.record_size
        self.here, self.there, self.third = (Site(self.world, node, ("alice",)) for node in self.world.nodes)
        for node in self.world.nodes:
            object.__setattr__(node.signer.identity, "role", "registrar")
        self.there.bind(ALICE, CONTACT, expires=7200)
        self.written: list[bytes] = []
        write = MemoryStream.write

        def writing(stream: MemoryStream, data: bytes) -> None:
            self.written.append(data)
            write(stream, data)

        self.patch(MemoryStream, "write", writing)

    def ask(self, asker: Site | None = None, asked: Site | None = None) -> list[str]:
        """The contacts of alice at one node, asked for by another."""
        asker, asked = asker or self.here, asked or self.there
        found = self.world.result(asker.usage.contacts_at(asked.node.node_id, ALICE))
        return [contact.uri for contact in found]

    def flow(self, site: Site | None = None, to: Site | None = None) -> SIPConnection | None:
        return flows_of(site or self.here).established((to or self.there).node.node_id)

    def shown(self, site: Site) -> list[tuple[str, int]]:
        """What status says of a node's application connections."""
        shown = site.node.status()["applications"]
        return [(each["node_id"], each["application"]) for each in shown]


class StreamTests(FlowTestCase):
    """What is the same over TLS and over DTLS; here as over TLS."""

    record_size: int | None = None

    def test_one_flow_for_both_ends(self) -> None:
        """It is used again, by the node that accepted it as well; status shows it at both. [7904-5.1-5]"""
        self.here.bind(ALICE, "sip:alice@192.0.2.8")
        for _ in range(2):
            self.assertEqual(self.ask(), [CONTACT])
            self.assertEqual(self.ask(self.there, self.here), ["sip:alice@192.0.2.8"])
        self.assertEqual([len(flows_of(site)) for site in (self.here, self.there)], [1, 1])
        self.assertEqual(self.shown(self.here), [(self.there.node.node_id.hex(), 5060)])
        self.assertEqual(self.shown(self.there), [(self.here.node.node_id.hex(), 5060)])

    def test_one_message_in_each_write(self) -> None:
        """So that over DTLS each is a record of its own; Via says what carries it."""
        for _ in range(3):
            self.ask()
        messages = [parse(data) for data in self.written]
        self.assertEqual([isinstance(each, Request) for each in messages], 3 * [True, False])
        self.assertEqual({each.via.transport for each in messages}, {"TLS"})
        self.assertEqual([each.encode() for each in messages], self.written)

    def test_never_over_overlay_links(self) -> None:
        """Though the nodes are linked, no link carries a byte of SIP. [7904-5.1-4]"""
        self.assertIsNotNone(self.here.node.table.link_to(self.there.node.node_id))
        carried: list[bytes] = []
        self.world.network.observe = lambda link, message: carried.append(message)
        self.assertEqual(self.ask(), [CONTACT])
        self.assertTrue(carried)
        self.assertFalse([message for message in carried if b"SIP/2.0" in message])
        self.assertTrue(self.written)

    def test_kept_alive(self) -> None:
        """Without messages a flow asks for signs of life, in time for any NAT, and gets them. [7904-5.2-1]"""
        self.ask()
        flow = self.flow()
        assert flow is not None
        del self.written[:]
        for _ in range(int((IDLE - 2 * LOOK) / LOOK)):
            self.world.run(LOOK)
            silence = self.world.clock.seconds() - flow.last_active
            self.assertLessEqual(silence, QUIET + LOOK)
        self.assertEqual(set(self.written), {PING, PONG})
        self.assertEqual(self.ask(), [CONTACT])
        self.assertIs(self.flow(), flow)

    def test_ice_keeps_its_own_alive(self) -> None:
        """Where there is a candidate pair nothing is asked for."""
        for site in (self.here, self.there):
            accept = site.node.app_attachments._noted

            def paired(
                connection: IApplicationConnection, accept: object = accept
            ) -> IApplicationConnection:
                connection._pair = lambda: "host -> host"  # type: ignore[attr-defined]
                return accept(connection)  # type: ignore[operator,no-any-return]

            site.node.app_attachments._noted = paired  # type: ignore[method-assign]
        self.ask()
        del self.written[:]
        self.world.run(3 * SILENT)
        self.assertEqual(self.written, [])
        self.assertIsNotNone(self.flow())

    def test_idle(self) -> None:
        """Keep-alives are no use: without messages a flow is closed and forgotten, and made anew for the next."""
        self.ask()
        self.world.run(IDLE + 3 * LOOK)
        for site in (self.here, self.there):
            self.assertEqual((len(flows_of(site)), self.shown(site)), (0, []))
            self.assertEqual(len(site.edge.connections), 0)
        self.assertEqual(self.ask(), [CONTACT])

    def test_other_end_died(self) -> None:
        """A flow whose other end is silent is given up and forgotten."""
        self.ask()
        self.world.kill(self.there.node)
        self.world.run(SILENT + 3 * LOOK)
        self.assertEqual((len(flows_of(self.here)), self.shown(self.here)), (0, []))
        self.assertEqual(self.here.node.rejected()["SIP flow silent"], 1)

    def test_unanswered(self) -> None:
        """Nor is one used again that did not carry an answer: the question comes out within the patience."""
        self.ask()
        self.world.kill(self.there.node)
        before = self.world.clock.seconds()
        self.assertRaises(DeferredTimeout, self.ask)
        self.assertAlmostEqual(self.world.clock.seconds() - before, PATIENCE, 3)
        self.assertIsNone(self.flow())

    def test_closed_meanwhile(self) -> None:
        """A flow that the other end closes is replaced while it is asked over."""
        self.ask()
        flow = self.flow(self.there, self.here)
        assert flow is not None
        flow.close()
        self.assertEqual(self.ask(), [CONTACT])

    def test_new_one_of_a_node_that_forgot(self) -> None:
        """Where the other end opens another, that is used, and the old one closed."""
        self.ask()
        old = self.flow(self.there, self.here)
        flows_of(self.here)._pairs.clear()
        self.ask()
        new = self.flow(self.there, self.here)
        self.assertIsNot(new, old)
        self.world.run(SURPLUS_IDLE + 2 * LOOK)
        assert old is not None and new is not None
        self.assertEqual((old.open, new.open, len(flows_of(self.there))), (False, True, 1))

    def test_glare(self) -> None:
        """Two nodes that ask each other at once are both answered, and keep the same one of two flows."""
        self.here.bind(ALICE, "sip:alice@192.0.2.8")
        asked = [
            self.here.usage.contacts_at(self.there.node.node_id, ALICE),
            self.there.usage.contacts_at(self.here.node.node_id, ALICE),
        ]
        found = [contact.uri for each in asked for contact in self.world.result(each)]
        self.assertEqual(found, [CONTACT, "sip:alice@192.0.2.8"])
        self.assertEqual([len(flows_of(site)) for site in (self.here, self.there)], [2, 2])
        self.world.run(SURPLUS_IDLE + 3 * LOOK)
        kept = []
        for site in (self.here, self.there):
            ((flow,),) = flows_of(site)._pairs.values()
            self.assertTrue(flow.sip.open)
            kept.append(flow.ours)
        larger = self.here.node.node_id > self.there.node.node_id
        self.assertEqual(kept, [larger, not larger])
        self.assertEqual((self.ask(), len(flows_of(self.here))), ([CONTACT], 1))

    def test_many_of_one_node(self) -> None:
        """Of one node two flows are kept at most."""
        for _ in range(4):
            connection = self.world.result(self.here.node.overlay.app_attach(self.there.node.node_id, 5060))
            connection.start(self.here.edge.stream(self.here))
        self.world.run(1)
        self.assertEqual(len(flows_of(self.there)), 2)
        self.assertEqual(len(self.there.edge.connections), 2)

    def test_many_nodes(self) -> None:
        """Beyond the bound the flow that was used longest ago gives way."""
        self.patch(flows, "MOST_NODES", 1)
        self.ask()
        self.world.run(1)
        self.ask(self.here, self.third)
        self.world.run(1)
        self.assertIsNone(self.flow())
        self.assertIsNotNone(self.flow(self.here, self.third))
        self.assertEqual(len(flows_of(self.there)._pairs), 1)
        self.assertIsNone(self.flow(self.there, self.here))

    def test_sips(self) -> None:
        """A node may as well connect to 5061: it is the same, secured in any case. [7904-5.1-1] [7904-5.1-7]"""
        connection = self.world.result(self.here.node.overlay.app_attach(self.there.node.node_id, 5061))
        flow = flows_of(self.here)._start(connection, True)
        response = self.world.result(self.here.edge.request(binding_query(ALICE), flow))
        self.assertEqual([contact.uri for contact in contacts_of(response)], [CONTACT])

    def test_stopped(self) -> None:
        """A node that stops tells the other end, and takes no more flows."""
        self.ask()
        self.world.result(self.there.usage.stop())
        self.world.run(1)
        self.assertIsNone(self.flow())
        self.assertRaises((SIPFailure, DeferredTimeout), self.ask)
        self.assertEqual(len(flows_of(self.there)), 0)


class RecordTests(StreamTests):
    """The same over records, and what is particular to them."""

    record_size = RECORD_SIZE

    def test_lost_request(self) -> None:
        """Nothing below repeats what is lost: SIP does (RFC 3261 §17.1.2.2, timer E)."""
        self.ask()
        del self.written[:]
        asking = self.here.usage.contacts_at(self.there.node.node_id, ALICE)
        self.assertEqual(len(self.written), 1)
        self.world.network.loss = 1.0
        again = self.here.usage.contacts_at(self.there.node.node_id, ALICE)
        self.world.network.loss = 0.0
        for each in (asking, again):
            self.assertEqual([contact.uri for contact in self.world.result(each)], [CONTACT])
        requests = [data for data in self.written if data.startswith(b"REGISTER")]
        self.assertEqual((len(requests), len(set(requests))), (3, 2))

    def test_lost_response(self) -> None:
        """A request that comes again is answered again, and not served again."""
        self.ask()
        flow = self.flow(self.there, self.here)
        assert flow is not None
        served: list[Response] = []
        bindings = self.there.usage._bindings
        assert bindings is not None
        answer = bindings.answer

        def answering(*arguments: object) -> Response:
            self.world.network.loss = 1.0
            self.world.clock.callLater(0.1, setattr, self.world.network, "loss", 0.0)
            served.append(answer(*arguments))  # type: ignore[arg-type]
            return served[-1]

        bindings.answer = answering  # type: ignore[method-assign]
        self.assertEqual(self.ask(), [CONTACT])
        self.assertEqual((len(served), self.there.edge.layer.counters["request repeated"]), (1, 1))

    def test_large_response(self) -> None:
        """Up to a whole record goes; beyond, the asker learns at once that it does not (decision 0021)."""
        padding = "x" * 1300
        for number in range(10):
            self.there.bind(ALICE, f"sip:{number}{padding}@192.0.2.7")
        self.assertEqual(len(self.ask()), 10)
        self.assertGreater(max(map(len, self.written)), 12000)
        self.there.location.commit(ALICE, [])
        padding = "x" * 1700
        for number in range(10):
            self.there.bind(ALICE, f"sip:{number}{padding}@192.0.2.7")
        before = self.world.clock.seconds()
        with self.assertRaises(SIPFailure) as refused:
            self.ask()
        self.assertEqual(refused.exception.status, 500)
        self.assertLess(self.world.clock.seconds() - before, 0.5)
        self.assertLessEqual(max(map(len, self.written)), RECORD_SIZE)
        self.assertEqual(self.there.edge.counters["response too large"], 1)

    def test_large_request(self) -> None:
        """One that no record holds fails at once, and is not sent."""
        asked = self.here.usage.contacts_at(self.there.node.node_id, "a" * RECORD_SIZE + "@example.org")
        self.assertRaises(MessageTooLarge, self.world.result, asked)
        self.assertEqual(self.written, [])
        self.assertEqual(self.ask(), [CONTACT])


