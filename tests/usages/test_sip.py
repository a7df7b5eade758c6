"""The SIP usage: registrations in an overlay in memory, and bindings asked for over AppAttach."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.config.kinds import REGISTERED, SIP_REGISTRATION
from p2psip.errors import Forbidden, RequestTimeout
from p2psip.ids import NodeId
from p2psip.interfaces import Answerer, IApplicationConnection, IUsage, IUsageFactory, Request
from p2psip.node import Node, installed
from p2psip.sip.errors import NotRegistered, SIPFailure, Unavailable, UnknownUser
from p2psip.sip.interfaces import IRegistrationStore
from p2psip.sip.query import binding_query
from p2psip.testing import World
from p2psip.usages.bindings import BURST, CALLS_AT_ONCE
from p2psip.usages.certificate import CertificateUsageFactory
from p2psip.usages.registrations import MOST_FORWARDS, Located, NotServed
from p2psip.usages.sip import LAST_RESORT, LOOK_AT_MOST, SIPUsageFactory
from p2psip.wire.header import NodeDestination
from p2psip.wire.sip import RouteRegistration, SipRegistration, UriRegistration
from p2psip.wire.storage import DataValue, DictionaryEntry, DictionarySpecifier, FetchReq

from ..sip.fakes import make_request
from .sites import ALICE, Site

BOB = "bob@example.org"


class SIPUsageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(4, usages=[SIPUsageFactory(), CertificateUsageFactory()])
        self.here, self.there, *_ = [Site(self.world, node, ("alice",)) for node in self.world.nodes]
        for node in self.world.nodes:
            # In the world nodes are peers; bindings are for registrars.
            object.__setattr__(node.signer.identity, "role", "registrar")
        self.result = self.world.result

    def records(self, aor: str = ALICE) -> dict[NodeId, SipRegistration]:
        """What the overlay has under an AOR, by key."""
        node = self.world.nodes[3]
        found = {}
        for value in self.result(node.overlay.fetch(aor.encode(), SIP_REGISTRATION)):
            entry = value.data.value
            assert isinstance(entry, DictionaryEntry)
            found[NodeId(entry.key)] = SipRegistration.decode(entry.value.value)
        return found

    def generation(self) -> int:
        """How often the record of alice has changed."""
        holder = max(self.world.nodes, key=lambda n: n.storage.generation(self.resource(n), SIP_REGISTRATION))
        return holder.storage.generation(self.resource(holder), SIP_REGISTRATION)

    def resource(self, node: Node) -> object:
        return node.topology.resource_id(ALICE.encode())

    def put(self, aor: str, user: str, registration: SipRegistration) -> None:
        """Store a registration of our own making."""
        node = self.here.node
        entry = DictionaryEntry(key=node.node_id, value=DataValue(exists=True, value=registration.encode()))
        signer = self.world.user(user, node)
        self.result(node.overlay.store(aor.encode(), SIP_REGISTRATION, [entry], 3600, signer=signer))

    def test_interfaces(self) -> None:
        factory = SIPUsageFactory()
        verifyObject(IUsageFactory, factory)
        verifyObject(IPlugin, factory)
        verifyObject(IUsage, self.here.usage)
        verifyObject(IRegistrationStore, self.here.usage)
        self.assertIn("sip", [found.name for found in installed().usages])

    def test_registered_at_this_node(self) -> None:
        """A registration is a route to this node under its Node-ID."""
        self.result(self.here.usage.register(ALICE, 600))
        (key, registration), *others = self.records().items()
        self.assertEqual([], others)
        self.assertEqual(self.here.node.node_id, key)
        assert isinstance(registration, RouteRegistration)
        self.assertEqual((NodeDestination(node_id=key),), registration.destination_list)

    def test_several_nodes_in_one_record(self) -> None:
        """Each registrar has its own entry, and removes no other's."""
        self.result(self.here.usage.register(ALICE, 600))
        self.result(self.there.usage.register(ALICE, 600))
        self.assertEqual({self.here.node.node_id, self.there.node.node_id}, set(self.records()))
        self.result(self.here.usage.unregister(ALICE))
        self.assertEqual({self.there.node.node_id}, set(self.records()))

    def test_refresh_is_stored_when_it_has_to_be(self) -> None:
        """Stored for twice the expiry; a refresh stores nothing until that would run out before the new expiry."""
        self.result(self.here.usage.register(ALICE, 600))
        first = self.generation()
        for _ in range(3):
            self.world.run(150)
            self.result(self.here.usage.register(ALICE, 600))
        self.assertEqual(first, self.generation())
        self.world.run(200)
        self.result(self.here.usage.register(ALICE, 600))
        self.assertEqual(first + 1, self.generation())
        self.world.run(1190)
        self.assertTrue(self.records())
        self.world.run(20)
        self.assertFalse(self.records())

    def test_joined_anew_stores_anew(self) -> None:
        """After the node had to join again the next refresh is stored."""
        self.result(self.here.usage.register(ALICE, 600))
        first = self.generation()
        self.result(self.here.usage.start())
        self.result(self.here.usage.register(ALICE, 600))
        self.assertEqual(first + 1, self.generation())

    def test_two_phones_at_once(self) -> None:
        """Two registrations of one AOR at the same time make one Store."""
        both = [self.here.usage.register(ALICE, 600) for _ in range(2)]
        for each in both:
            self.result(each)
        self.assertEqual(1, self.generation())

    def test_not_beyond_the_certificate(self) -> None:
        """The stored lifetime ends with the user's certificate at the latest."""
        signer = self.here.signers["alice"]
        now = self.world.clock.seconds()
        object.__setattr__(signer.identity, "not_after", now + 700)
        self.result(self.here.usage.register(ALICE, 600))
        self.world.run(690)
        self.assertTrue(self.records())
        self.world.run(20)
        self.assertFalse(self.records())

    def test_without_credentials(self) -> None:
        """A user whose phone never spoke to us is not stored: 503 for the phone, and nothing changes."""
        self.failureResultOf(self.here.usage.register(BOB, 600), Unavailable)
        with self.assertRaises(NotServed):
            self.result(self.world_register(BOB))

    def world_register(self, aor: str) -> object:
        from twisted.internet.defer import Deferred

        return Deferred.fromCoroutine(self.here.usage.registrations.register(aor, 60))

    def test_only_ones_own(self) -> None:
        """Nobody writes another user's record, nor under another node's key. [7904-3.3-3]"""
        node = self.here.node
        route = RouteRegistration(destination_list=(NodeDestination(node_id=node.node_id),)).encode()
        value = DataValue(exists=True, value=route)
        for key, user in ((node.node_id, BOB), (self.there.node.node_id, ALICE)):
            entry = DictionaryEntry(key=key, value=value)
            signer = self.world.user(user, node)
            with self.assertRaises(Forbidden):
                self.result(node.overlay.store(ALICE.encode(), SIP_REGISTRATION, [entry], 60, signer=signer))

    def test_restricted_domains(self) -> None:
        """Where a Kind takes AORs of some domains only, others are Forbidden. [7904-3.3-2, 7904-3.3-3, 7904-3.4-5]"""
        kind = replace(REGISTERED[SIP_REGISTRATION], domains=(r"example\.com",))
        world = World(3, kinds=[kind])
        node = world.nodes[0]
        entry = DictionaryEntry(key=node.node_id, value=DataValue(exists=True, value=b"x"))
        for aor, taken in ((ALICE, False), ("alice@example.com", True)):
            signer = world.user(aor, node)
            stored = node.overlay.store(aor.encode(), SIP_REGISTRATION, [entry], 60, signer=signer)
            if taken:
                self.assertEqual(1, world.result(stored).generation)
            else:
                self.assertRaises(Forbidden, world.result, stored)

    def test_restricted_domains_are_not_asked(self) -> None:
        """The registrar asks for no AOR to be stored that the overlay would refuse. [7904-3.3-1]"""
        here = self.here
        kinds = dict(here.node.configuration.kinds)
        kinds[SIP_REGISTRATION] = replace(kinds[SIP_REGISTRATION], domains=())
        here.node.configuration = replace(here.node.configuration, kinds=MappingProxyType(kinds))
        self.failureResultOf(here.usage.register(ALICE, 600), Unavailable)

    # -- locating -------------------------------------------------------------------------------------------

    def test_forwarding_is_followed(self) -> None:
        """A registration of type uri leads on to the other AOR; a GRUU or what is no SIP URI does not."""
        self.result(self.there.usage.register(ALICE, 600))
        for uri, found in (
            (b"sip:alice@EXAMPLE.org", True),
            (b"SIPS:%61lice@example.org:5061;transport=tcp", True),
            (b"alice@example.org", True),
            (b"sip:alice@example.org;gr=x", False),
            (b"tel:+4930", False),
            (b"sip:", False),
            (b"\xff@", False),
        ):
            self.put("desk@example.org", "desk@example.org", UriRegistration(uri=uri))
            located = self.result(self.here.usage.locate("desk@example.org"))
            self.assertEqual((self.there.node.node_id,) if found else (), tuple(located.nodes), uri)

    def test_all_keys_are_fetched(self) -> None:
        """A search names no dictionary keys. [7904-4.2-2]"""
        asked = []
        for node in self.world.nodes:
            answer = node.dispatch.answerers[FetchReq]

            def recording(request: Request, answer: Answerer = answer) -> object:
                asked.append(request.body)
                return answer(request)

            node.dispatch.answerers[FetchReq] = recording  # type: ignore[assignment]
        self.result(self.here.usage.locate(ALICE))
        (specifier,) = asked[-1].specifiers
        self.assertEqual(DictionarySpecifier(keys=()), specifier.model_specifier)

    def test_loops_end(self) -> None:
        """AORs that lead to one another, or into a long chain, end in a bounded search."""
        for number in range(MOST_FORWARDS + 4):
            name, following = (f"u{n % (MOST_FORWARDS + 3)}@example.org" for n in (number, number + 1))
            self.put(name, name, UriRegistration(uri=b"sip:" + following.encode()))
        located = self.result(self.there.usage.locate("u0@example.org"))
        self.assertEqual(((), True), (tuple(located.nodes), located.known))

    def test_what_is_no_registration(self) -> None:
        """A value that nobody can read is left out and counted."""
        node = self.here.node
        entry = DictionaryEntry(key=node.node_id, value=DataValue(exists=True, value=b"\x02"))
        signer = self.world.user(ALICE, node)
        self.result(node.overlay.store(ALICE.encode(), SIP_REGISTRATION, [entry], 60, signer=signer))
        located = self.result(self.there.usage.locate(ALICE))
        self.assertEqual((), tuple(located.nodes))
        self.assertEqual(1, self.there.node.rejected()["undecodable SipRegistration"])

    # -- resolving ------------------------------------------------------------------------------------------

    def test_contacts_of_another_node(self) -> None:
        """The bindings of another registrar, asked for over one AppAttach connection for both directions."""
        self.result(self.there.usage.register(ALICE, 600))
        self.there.bind(ALICE, "sip:alice@192.0.2.7:5070")
        (contact,) = self.result(self.here.usage.resolve(ALICE)).contacts
        self.assertEqual(("sip:alice@192.0.2.7:5070", 0.5), (contact.uri, contact.q))
        self.assertTrue(590 <= contact.expires <= 600)
        self.here.bind(ALICE, "sip:alice@192.0.2.8")
        asked = self.result(self.there.usage.contacts_at(self.here.node.node_id, ALICE))
        self.assertEqual(["sip:alice@192.0.2.8"], [contact.uri for contact in asked])
        self.assertEqual((1, 1), (len(self.here.edge.connections), len(self.there.edge.connections)))

    def test_never_over_overlay_links(self) -> None:
        """SIP has a connection of its own, of application 5060, though the nodes are linked. [7904-5.1-1]
        [7904-5.1-4]
        """
        self.result(self.there.usage.register(ALICE, 600))
        self.there.bind(ALICE, "sip:alice@192.0.2.7")
        node = self.there.node
        self.assertIsNotNone(self.here.node.table.link_to(node.node_id))
        carried: list[bytes] = []
        made: list[int] = []
        receive, accept = node.messaging.receive, node.app_attachments.applications[5060]

        def receiving(previous_hop: NodeId, data: bytes) -> None:
            carried.append(data)
            receive(previous_hop, data)

        def accepting(connection: IApplicationConnection) -> None:
            made.append(connection.application)
            accept(connection)

        node.messaging.receive = receiving  # type: ignore[method-assign]
        node.app_attachments.applications[5060] = accepting
        self.assertTrue(self.result(self.here.usage.resolve(ALICE)).contacts)
        self.assertEqual([5060], made)
        self.assertTrue(carried)
        self.assertFalse([message for message in carried if b"SIP/2.0" in message])

    def test_known_nodes_while_the_overlay_is_slow(self) -> None:
        """Who was found before is called within a second though the responsible peer has just died."""
        usage = self.here.usage
        self.result(self.there.usage.register(ALICE, 600))
        known = self.result(usage.routes(ALICE))
        self.assertEqual([self.there.node.node_id], [route.node_id for route in known])
        self.world.run(5)
        searches: list[Deferred[Located]] = []

        async def slow(aor: str) -> Located:
            searches.append(Deferred())
            return await searches[-1]

        usage.registrations.locate = slow  # type: ignore[method-assign]
        asked = usage.routes(ALICE)
        self.world.run(LOOK_AT_MOST - 0.1)
        self.assertNoResult(asked)
        self.world.run(0.2)
        self.assertEqual(known, self.successResultOf(asked))
        searches[0].errback(RequestTimeout("late"))
        asked = usage.routes(ALICE)
        searches[1].errback(RequestTimeout("at once"))
        self.assertEqual(known, self.successResultOf(asked))
        asked = usage.routes(ALICE)
        searches[2].callback(Located((), True))
        self.failureResultOf(asked, NotRegistered)
        self.world.run(LAST_RESORT)
        asked = usage.routes(ALICE)
        self.world.run(2 * LOOK_AT_MOST)
        self.assertNoResult(asked)
        searches[-1].errback(RequestTimeout("late"))
        self.failureResultOf(asked, Unavailable)

    def test_remembered_for_a_moment(self) -> None:
        """A resolution is used again for seconds, not longer than its contacts live."""
        self.result(self.there.usage.register(ALICE, 600))
        self.there.bind(ALICE, "sip:alice@192.0.2.7", expires=3)
        self.assertTrue(self.result(self.here.usage.resolve(ALICE)).contacts)
        self.there.location.commit(ALICE, [])
        self.assertTrue(self.successResultOf(self.here.usage.resolve(ALICE)).contacts)
        self.world.run(4)
        with self.assertRaises(NotRegistered):
            self.result(self.here.usage.resolve(ALICE))

    def test_a_dead_registrar_does_not_hide_the_others(self) -> None:
        """One node of a record that does not answer costs seconds, and the contacts of the others come."""
        third = Site(self.world, self.world.nodes[2], ("alice",))
        for site in (self.there, third):
            self.result(site.usage.register(ALICE, 600))
        third.bind(ALICE, "sip:alice@192.0.2.9")
        self.world.kill(self.there.node)
        self.world.run(60)
        before = self.world.clock.seconds()
        (contact,) = self.result(self.here.usage.resolve(ALICE)).contacts
        self.assertEqual("sip:alice@192.0.2.9", contact.uri)
        self.assertLess(self.world.clock.seconds() - before, 20)
        self.assertEqual(1, self.here.node.rejected()["binding query unanswered"])

    def test_unknown_and_absent(self) -> None:
        """404 for whom nothing shows; 480 where credentials, a record or a certificate show that there is a user."""
        with self.assertRaises(UnknownUser):
            self.result(self.here.usage.resolve(BOB))
        self.here.known.add("bob")
        with self.assertRaises(NotRegistered):
            self.result(self.here.usage.resolve(BOB))
        self.result(self.there.usage.register(ALICE, 600))
        with self.assertRaises(NotRegistered):
            self.result(self.here.usage.resolve(ALICE))
        self.world.run(5)
        named = self.world.nodes[1].signer.identity.user_name
        with self.assertRaises(NotRegistered):
            self.result(self.here.usage.resolve(named))

    def test_only_registrars_may_ask(self) -> None:
        """A node that is no registrar learns no contacts; nor does anybody who asks for something else."""
        self.there.bind(ALICE, "sip:alice@192.0.2.7")
        object.__setattr__(self.here.node.signer.identity, "role", "peer")
        with self.assertRaises(SIPFailure) as refused:
            self.result(self.here.usage.contacts_at(self.there.node.node_id, ALICE))
        self.assertEqual(403, refused.exception.status)

    def test_revoked_registrar(self) -> None:
        """Nor does a registrar that was thrown out of the overlay, over a connection that it had. [6940-11.1-19]"""
        self.there.bind(ALICE, "sip:alice@192.0.2.7")
        asker = self.here.node
        self.assertTrue(self.result(self.here.usage.contacts_at(self.there.node.node_id, ALICE)))
        document = self.world.document(bad_nodes=frozenset([asker.node_id]))
        self.there.node.updates.offer(document)
        with self.assertRaises(SIPFailure) as refused:
            self.result(self.here.usage.contacts_at(self.there.node.node_id, ALICE))
        self.assertEqual(403, refused.exception.status)

    def test_too_many_questions(self) -> None:
        """One node's binding queries are limited."""
        bindings = self.there.usage._bindings
        assert bindings is not None
        asker = self.here.node.node_id
        request = binding_query(ALICE)
        for name, value in (("Via", "SIP/2.0/TLS x;branch=z9hG4bK1"), ("Call-ID", "1"), ("CSeq", "1 REGISTER")):
            request.add(name, value)
        for _ in range(int(BURST)):
            bindings.answer(asker, request)
        with self.assertRaises(SIPFailure) as refused:
            bindings.answer(asker, request)
        self.assertEqual(503, refused.exception.status)
        self.world.run(1)
        bindings.answer(asker, request)

    def test_too_many_calls(self) -> None:
        """So are the calls that it passes on; what belongs to one that stands is not counted."""
        bindings = self.there.usage._bindings
        assert bindings is not None
        caller = self.here.node.node_id
        call, within = make_request("INVITE"), make_request("INVITE", To="<sip:alice@example.org>;tag=x")
        for _ in range(int(CALLS_AT_ONCE)):
            bindings.require_allowed(caller, call)
        with self.assertRaises(SIPFailure) as refused:
            bindings.require_allowed(caller, call)
        self.assertEqual((503, (("Retry-After", "1"),)), (refused.exception.status, refused.exception.headers))
        bindings.require_allowed(caller, within)
        bindings.require_allowed(self.there.node.node_id, call)
        self.world.run(1)
        bindings.require_allowed(caller, call)

    def test_a_node_without_sip(self) -> None:
        """Where no SIP server runs, a SIP connection is closed at once and the asker told."""
        bare = self.world.add()
        self.world.until(lambda: self.world.settled(bare))
        with self.assertRaises((SIPFailure, TimeoutError)):
            self.result(self.here.usage.contacts_at(bare.node_id, ALICE))
        self.assertEqual((), self.successResultOf(bare.usages["sip"].contacts_at(bare.node_id, ALICE)))
