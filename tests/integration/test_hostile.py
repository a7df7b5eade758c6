"""What a stranger or a hostile member can do to a running node over real connections.

Each gets the error that the RFC names, or nothing, is counted, and the node goes on serving.
"""

from __future__ import annotations

import atexit
import random
import time
from dataclasses import replace
from typing import Any, ClassVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.accept import publish
from p2psip.config.kinds import SIP_REGISTRATION
from p2psip.config.write import write_document
from p2psip.errors import ErrorCode
from p2psip.ids import NodeId
from p2psip.security.certificates import generate_key, make_authority
from p2psip.security.signing import sign_value
from p2psip.topology.chord import chord_resource_id
from p2psip.wire.chord import Full
from p2psip.wire.codes import ForwardingFlags, MessageCode, is_request
from p2psip.wire.contents import UnknownExtension, UnknownKinds
from p2psip.wire.header import (
    NodeDestination,
    OpaqueDestination,
    ResourceDestination,
    UnknownForwardingOption,
)
from p2psip.wire.message import BODIES
from p2psip.wire.methods import (
    AppAttachReq,
    AttachReqAns,
    ConfigUpdate,
    IceCandidate,
    IpAddressPort,
    JoinReq,
    KindUpdate,
    LeaveReq,
    PingAns,
    PingReq,
    RouteQueryReq,
)
from p2psip.wire.storage import (
    DataValue,
    DictionaryEntry,
    StoreAns,
    StoreKindData,
    StoreReq,
)

from ..strategies import instances_of
from .hostile import (
    DAY,
    Intruder,
    Member,
    Overlay,
    descriptors,
    grown,
    resident,
    status,
)
from .nodes import TLS, NodeProcess, World, only, until

USER = "mallory@example.org"


class Hostile(SynchronousTestCase):
    """One founder for all tests of a class; after each of them it must serve as before."""

    protocol: ClassVar = TLS
    """The link protocol of its nodes."""
    world: ClassVar[World | None] = None
    node: ClassVar[NodeProcess]
    overlay: ClassVar[Overlay]
    honest: ClassVar[Member]

    @classmethod
    def found(cls) -> None:
        """Start what the tests of this class share; trial runs no class fixtures."""
        cls.world = World(options=only(cls.protocol))
        atexit.register(cls.world.close)
        cls.node = cls.world.founder()
        cls.overlay = Overlay(cls.node)
        cls.honest = cls.overlay.member("honest@example.org")

    def setUp(self) -> None:
        if self.world is None:
            self.found()
        self.before = status(self.node)["rejected"]
        self.logged = len(self.node.log)

    def tearDown(self) -> None:
        """Whatever it was: the node answers its operator and others, and has logged no fault."""
        self.assertTrue(self.node.alive, "\n".join(self.node.log[-40:]))
        self.assertTrue(self.node.status()["joined"])
        with Intruder(self.overlay, self.node, self.honest, self.protocol) as other:
            self.assertIsInstance(other.ask(PingReq()), PingAns)
        faults = [line for line in self.node.log[self.logged :] if "Traceback" in line or "#critical" in line]
        self.assertEqual([], faults, "\n".join(self.node.log[self.logged :][-60:]))

    def intruder(self, member: Member | None = None) -> Intruder:
        made = Intruder(self.overlay, self.node, member or self.overlay.member(), self.protocol)
        self.addCleanup(made.tls.close)
        return made

    def rejected(self) -> dict[str, int]:
        """What was counted since the test began."""
        return grown(self.before, status(self.node)["rejected"])

    def assert_counted(self, cause: str, least: int = 1, seconds: float = 5) -> None:
        """`cause` was counted, at least so often."""
        until(lambda: self.rejected().get(cause, 0) >= least, seconds, f"{cause!r} in {self.rejected()}")

    def assert_error(self, answer: Any, code: ErrorCode) -> None:
        self.assertEqual(code, getattr(answer, "error_code", answer))


class MessageTests(Hostile):
    """Messages that a member sends."""

    def test_garbage(self) -> None:
        """Bytes in a frame that are no message are dropped and counted."""
        with self.intruder() as intruder:
            for size in (0, 1, 37, 38, 100, 5000):
                intruder.silence(random.Random(size).randbytes(size), 0.1)
            self.assert_counted("truncated header", 3)
            self.assert_counted("not RELOAD", 3)
            self.assertIsInstance(intruder.ask(PingReq()), PingAns)

    def test_mutated(self) -> None:
        """A message with any bits turned, and every part of one, does no harm."""
        chance = random.Random(3)
        with self.intruder() as intruder:
            store = intruder.message(self.store_req(intruder)[0], ResourceDestination(resource_id=self.resource()))
            for message in (intruder.message(PingReq(padding=b"abc")), store):
                for _ in range(400):
                    mutated = bytearray(message)
                    for _ in range(chance.choice((1, 1, 4))):
                        mutated[chance.randrange(len(mutated))] ^= 1 << chance.randrange(8)
                    intruder.write(intruder.frame(bytes(mutated)))
                for size in range(0, len(message), 11):
                    cut = bytearray(message[:size])
                    if size >= 20:
                        cut[16:20] = size.to_bytes(4)
                    intruder.write(intruder.frame(bytes(cut)))
            list(intruder.frames(1))
            self.assertIsInstance(intruder.ask(PingReq()), PingAns)
        self.assertGreater(sum(self.rejected().values()), 500)

    def test_well_formed_nonsense(self) -> None:
        """Requests of every method, rightly signed, with whatever a body can hold."""
        bodies = st.one_of([instances_of(cls) for code, cls in sorted(BODIES.items()) if is_request(code)])
        destinations = st.sampled_from((None, self.resource(), chord_resource_id(b"x")))

        @settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(bodies, destinations)
        def send(body: Any, resource: Any) -> None:
            to = None if resource is None else ResourceDestination(resource_id=resource)
            message = intruder.message(body, to)
            if len(message) <= most:
                intruder.write(intruder.frame(message))
                list(intruder.frames(0.001))

        most = self.overlay.configuration.max_message_size
        with self.intruder() as intruder:
            send()
            list(intruder.frames(1))
            self.assertIsInstance(intruder.ask(PingReq()), PingAns)

    def test_header(self) -> None:
        """Another overlay, version, TTL, list or option: the RFC's error for each, or silence."""
        with self.intruder() as intruder:
            there = intruder.there
            other = NodeDestination(node_id=NodeId(b"o" * 16))
            critical = UnknownForwardingOption(type=77, flags=ForwardingFlags.DESTINATION_CRITICAL, option=b"x")
            for header, code in (
                ({"overlay": 1}, ErrorCode.INCOMPATIBLE_WITH_OVERLAY),
                ({"ttl": 101}, ErrorCode.TTL_EXCEEDED),
                ({"destination_list": (there, other, other)}, ErrorCode.INVALID_MESSAGE),
                ({"options": (critical,)}, ErrorCode.UNSUPPORTED_FORWARDING_OPTION),
                ({"configuration_sequence": 0}, ErrorCode.CONFIG_TOO_OLD),
                ({"configuration_sequence": 1000}, ErrorCode.CONFIG_TOO_NEW),
                ({"max_response_length": 50}, ErrorCode.INCOMPATIBLE_WITH_OVERLAY),
            ):
                self.assert_error(intruder.ask(PingReq(), **header), code)
            for header, cause in (
                ({"version": 0x0B}, "other version"),
                ({"fragment": 0x40000000}, "fragment bit unset"),
                ({"fragment": 0x80FFFFFF}, "fragment beyond max-message-size"),
                ({"fragment": 0xC0FFFFFF}, "fragment beyond max-message-size"),
                ({"destination_list": ()}, "empty Destination List"),
                ({"destination_list": (OpaqueDestination(opaque_id=b"ab"),)}, "unknown opaque ID"),
                (
                    {"destination_list": (ResourceDestination(resource_id=b"r" * 16), there)},
                    "Resource-ID before the end",
                ),
                ({"via_list": (ResourceDestination(resource_id=b"r" * 16),)}, "malformed Via List"),
            ):
                intruder.silence(intruder.message(PingReq(), **header))
                self.assert_counted(cause)
            self.assertIsInstance(intruder.ask(PingReq(), ttl=0), PingAns)

    def test_ttl_spent_on_the_way(self) -> None:
        """TTL_Exceeded for what would have to go on with none left."""
        with self.intruder() as intruder, self.intruder(self.honest):
            there = NodeDestination(node_id=self.honest.node_id)
            self.assert_error(intruder.ask(PingReq(), there, ttl=0), ErrorCode.TTL_EXCEEDED)

    def test_config_update_follows_config_too_old(self) -> None:
        """Who asks with an old document gets the new one. [6940-6.3.2.1-4]"""
        with self.intruder() as intruder:
            request = intruder.message(PingReq(), configuration_sequence=0)
            intruder.write(intruder.frame(request))
            codes = [
                int.from_bytes(message[38 + sum(int.from_bytes(message[at : at + 2]) for at in (32, 34, 36)) :][:2])
                for message in intruder.frames(1)
            ]
            self.assertIn(MessageCode.CONFIG_UPDATE_REQ, codes)
            self.assertIn(MessageCode.ERROR, codes)

    def test_contents(self) -> None:
        """Extensions and codes that nobody knows."""
        with self.intruder() as intruder:
            extension = UnknownExtension(type=99, critical=True, extension_contents=b"?")
            answer = intruder.ask(PingReq(), extensions=(extension,))
            self.assert_error(answer, ErrorCode.UNKNOWN_EXTENSION)
            self.assert_error(intruder.ask(b"", code=0x5), ErrorCode.INVALID_MESSAGE)
            self.assert_error(intruder.ask(b"", code=0x27), ErrorCode.INVALID_MESSAGE)

    def test_forged_message(self) -> None:
        """A message whose signature is wrong, or a stranger's, is dropped. [6940-6.3.4-12]"""
        other = make_authority("example.org", generate_key(), time.time(), DAY)
        with self.intruder() as intruder:
            message = intruder.message(PingReq())
            intruder.silence(message[:-1] + bytes([message[-1] ^ 1]))
            intruder.silence(intruder.message(PingReq(), signer=self.overlay.member(authority=other).signer))
            intruder.silence(intruder.message(PingReq(), signer=self.overlay.member(ago=1800, lifetime=60).signer))
            stolen = intruder.message(PingReq(), transaction_id=5)
            intruder.silence(stolen[:20] + (6).to_bytes(8) + stolen[28:])
        self.assert_counted("unverified: signature", 2)
        self.assert_counted("unverified: untrusted")
        self.assert_counted("unverified: expired")

    def test_many_certificates(self) -> None:
        """A bucket of certificates beyond the bound is not even looked at; one within is bounded work."""
        certificates = tuple(number.to_bytes(2) for number in range(300))
        with self.intruder() as intruder:
            intruder.silence(intruder.message(PingReq(), certificates=certificates))
        self.assert_counted("unverified: too-many-certificates")

    def test_answers_to_nothing(self) -> None:
        """Answers and errors that nobody asked for are dropped."""
        with self.intruder() as intruder:
            intruder.silence(intruder.message(PingAns(response_id=1, time=1), code=MessageCode.PING_ANS))
            intruder.silence(intruder.message(b"\0\x02\0\0", code=MessageCode.ERROR))
        self.assert_counted("answer to no request", 2)

    def test_long_lists(self) -> None:
        """Lists longer than the overlay could have made them are refused."""
        lists = tuple(NodeDestination(node_id=NodeId(number.to_bytes(16))) for number in range(1, 200))
        with self.intruder() as intruder:
            intruder.silence(intruder.message(PingReq(), via_list=lists))
            intruder.silence(intruder.message(PingReq(), destination_list=(*lists, intruder.there)))
        self.assert_counted("list too long", 2)

    def test_flood_of_requests(self) -> None:
        """Answers to be repeated are kept within bounds, whatever the transaction IDs."""
        chance = random.Random(4)
        with self.intruder() as intruder:
            before = resident(self.node)
            end = time.monotonic() + 10
            sent = 0
            while time.monotonic() < end:
                for _ in range(50):
                    number = chance.getrandbits(64)
                    intruder.write(intruder.frame(intruder.message(PingReq(), transaction_id=number)))
                list(intruder.frames(0.01))
                sent += 50
            list(intruder.frames(2))
            self.assertGreater(sent, 2000)
            # What is kept for one answer is a signed message with its certificate.
            self.assertLess(resident(self.node) - before, 2 * sent + 10_000)

    # -- roles of others ------------------------------------------------------------------------------------

    def test_join_and_leave_of_others(self) -> None:
        """Nobody joins or leaves in another's name: Forbidden. [6940-6.4.2.1-2]"""
        with self.intruder() as intruder:
            other = NodeId(b"o" * 16)
            self.assert_error(intruder.ask(JoinReq(joining_peer_id=other)), ErrorCode.FORBIDDEN)
            self.assert_error(intruder.ask(LeaveReq(leaving_peer_id=other)), ErrorCode.FORBIDDEN)
            self.assert_error(intruder.ask(LeaveReq(leaving_peer_id=intruder.victim)), ErrorCode.FORBIDDEN)

    def test_lies_in_updates(self) -> None:
        """An Update that names hundreds of peers that are none costs a few Attaches, no more."""
        chance = random.Random(6)
        with self.intruder() as intruder:
            before = resident(self.node)
            for _ in range(40):
                names = tuple(NodeId(chance.randbytes(16)) for _ in range(250))
                intruder.ask(Full(uptime=1, predecessors=names[:100], successors=names[100:200], fingers=names[200:]))
            self.assertLess(resident(self.node) - before, 20_000)
            self.assertIsInstance(intruder.ask(PingReq()), PingAns)
        until(lambda: not status(self.node)["neighbors"]["successors"], 20, "the liar is forgotten")

    def test_configuration_of_a_nobody(self) -> None:
        """A document that is not signed, or not by a configuration-signer, is Forbidden and not used."""
        configuration = self.overlay.configuration
        with self.intruder() as intruder:
            mallory = intruder.member.signer
            forged = publish(replace(configuration, sequence=7, max_message_size=9000), mallory, mallory)
            document = write_document(forged)
            body = ConfigUpdate(config_data=document)
            if len(body.encode()) < 4000:
                self.assert_error(intruder.ask(body), ErrorCode.FORBIDDEN)
            for nonsense in (b"", b"<", b"<overlay/>", b"<!DOCTYPE x [<!ENTITY a 'b'>]><overlay>&a;</overlay>"):
                answer = intruder.ask(ConfigUpdate(config_data=nonsense))
                self.assert_error(answer, ErrorCode.INVALID_MESSAGE)
            answer = intruder.ask(KindUpdate(kinds=(b"<kind-block/>", b"<kind")))
            self.assert_error(answer, ErrorCode.INVALID_MESSAGE)
            self.assertEqual(configuration.sequence, status(self.node)["sequence"])

    def test_attach_flood(self) -> None:
        """After its share of Attach and AppAttach requests a node is Forbidden more."""
        candidates = tuple(
            IceCandidate(addr_port=IpAddressPort.of(f"127.9.9.{number}", 9), overlay_link=4) for number in range(1, 33)
        )
        before = descriptors(self.node)
        with self.intruder() as intruder:
            codes = []
            for number in range(200):
                body = (
                    AttachReqAns(role=b"passive", candidates=candidates)
                    if number % 2
                    else AppAttachReq(application=5060, role=b"passive", candidates=candidates)
                )
                codes.append(getattr(intruder.ask(body), "error_code", 0))
            self.assertEqual({0, ErrorCode.FORBIDDEN}, set(codes))
            self.assertLessEqual(codes.count(0), 60)
            self.assertLess(descriptors(self.node), before + 100)
            body = AppAttachReq(application=4711, role=b"passive", candidates=candidates[:1])
            self.assert_error(intruder.ask(body), ErrorCode.NOT_FOUND)
            body = AttachReqAns(role=b"active", candidates=candidates[:1])
            self.assert_error(intruder.ask(body), ErrorCode.INVALID_MESSAGE)

    def test_route_query_for_an_opaque_id(self) -> None:
        """What an opaque ID stands for is told to nobody. [6940-6.4.2.4.1-2]"""
        with self.intruder() as intruder:
            body = RouteQueryReq(destination=OpaqueDestination(opaque_id=b"ab"))
            self.assert_error(intruder.ask(body), ErrorCode.FORBIDDEN)

    # -- Store --------------------------------------------------------------------------------------------

    def resource(self, user: str = USER) -> Any:
        return chord_resource_id(user.encode())

    def store_req(
        self,
        intruder: Intruder,
        text: bytes = b"x",
        *,
        user: str = USER,
        storage_time: int | None = None,
        key: bytes | None = None,
        signer: Any = None,
        generation: int = 0,
        kind: int = SIP_REGISTRATION,
    ) -> tuple[StoreReq, ResourceDestination]:
        resource = self.resource(user)
        entry = DictionaryEntry(key=intruder.member.node_id if key is None else key, value=DataValue(value=text))
        when = int(time.time() * 1000) if storage_time is None else storage_time
        data = sign_value(signer or intruder.member.signer, resource, kind, entry, when, 600)
        kind_data = StoreKindData(kind=kind, generation_counter=generation, values=(data,))
        return StoreReq(resource=resource, kind_data=(kind_data,)), ResourceDestination(resource_id=resource)

    def test_store_by_the_wrong_one(self) -> None:
        """A Store for another user, or under another node's key, is Forbidden. [6940-7.3.3-1]"""
        with self.intruder() as intruder:
            stored = status(self.node)["stored"]["values"]
            for how in (
                {"user": "alice@example.org"},
                {"key": b"k" * 16},
                {"key": bytes(self.honest.node_id)},
                {"key": b""},
            ):
                self.assert_error(intruder.ask(*self.store_req(intruder, **how)), ErrorCode.FORBIDDEN)
            # A value that another member has rightly signed, carried by somebody who may not store it.
            alice = self.overlay.member("alice@example.org", (intruder.member.node_id,))
            body, destination = self.store_req(intruder, user="alice@example.org", signer=alice.signer)
            answer = intruder.ask(body, destination, certificates=(alice.certificate,))
            self.assert_error(answer, ErrorCode.FORBIDDEN)
            self.assertEqual(stored, status(self.node)["stored"]["values"])

    def test_forged_value(self) -> None:
        """A value whose signature is wrong is Forbidden, and counted."""
        with self.intruder() as intruder:
            body, destination = self.store_req(intruder)
            (kind_data,) = body.kind_data
            (data,) = kind_data.values
            forged = kind_data.replace(values=(data.replace(storage_time=data.storage_time + 1),))
            answer = intruder.ask(body.replace(kind_data=(forged,)), destination)
            self.assert_error(answer, ErrorCode.FORBIDDEN)
        self.assert_counted("value signature")

    def test_replayed_store(self) -> None:
        """The same Store in the same transaction has the same answer; in another one it is too old."""
        with self.intruder() as intruder:
            body, destination = self.store_req(intruder, b"replayed")
            first = intruder.ask(body, destination, transaction_id=4000)
            self.assertIsInstance(first, StoreAns)
            self.assertEqual(first, intruder.ask(body, destination, transaction_id=4000))
            self.assert_error(intruder.ask(body, destination), ErrorCode.DATA_TOO_OLD)

    def test_generation_counter(self) -> None:
        """A counter other than the current one is Generation_Counter_Too_Low. [6940-7.4.1.1-13]"""
        with self.intruder() as intruder:
            self.assertIsInstance(intruder.ask(*self.store_req(intruder, b"1")), StoreAns)
            answer = intruder.ask(*self.store_req(intruder, b"2", generation=999))
            self.assert_error(answer, ErrorCode.GENERATION_COUNTER_TOO_LOW)
            current = StoreAns.decode(answer.error_info, self.overlay.configuration.context)
            self.assertNotEqual(999, current.kind_responses[0].generation_counter)

    def test_too_large(self) -> None:
        """A value that is too long is Data_Too_Large."""
        most = self.overlay.configuration.kinds[SIP_REGISTRATION].max_size
        with self.intruder() as intruder:
            answer = intruder.ask(*self.store_req(intruder, bytes(most + 1)))
            self.assert_error(answer, ErrorCode.DATA_TOO_LARGE)

    def test_too_many(self) -> None:
        """So are more values than max-count, or than a signer's quota."""
        most = self.overlay.configuration.kinds[SIP_REGISTRATION].max_count
        user = "crowd@example.org"
        codes = set()
        for _ in range(most + 2):
            member = self.overlay.member(user)
            with self.intruder(member) as intruder:
                answer = intruder.ask(*self.store_req(intruder, b"x", user=user))
                codes.add(getattr(answer, "error_code", 0))
        self.assertEqual({0, ErrorCode.DATA_TOO_LARGE}, codes)

    def test_unknown_kind(self) -> None:
        """Unknown_Kind, with the list. [6940-7.4.1.2-6]"""
        with self.intruder() as intruder:
            kinds = (0xF0001234, 0xF0001235)
            body, destination = self.store_req(intruder)
            raw = body.encode()
            for kind in kinds:
                raw = raw.replace(SIP_REGISTRATION.to_bytes(4), kind.to_bytes(4), 1)
                answer = intruder.ask(raw, destination, code=MessageCode.STORE_REQ)
                self.assert_error(answer, ErrorCode.UNKNOWN_KIND)
                listed = UnknownKinds.decode(answer.error_info, self.overlay.configuration.context).unknown_kinds
                self.assertEqual((kind,), tuple(listed))
                raw = body.encode()


class RelayTests(Hostile):
    """A hostile member whose messages go through one node to another."""

    other: ClassVar[NodeProcess]
    other_id: ClassVar[NodeId]

    @classmethod
    def found(cls) -> None:
        super().found()
        assert cls.world is not None
        cls.other = cls.world.join(cls.node)
        cls.other_id = NodeId(bytes.fromhex(status(cls.other)["node_id"]))

    def setUp(self) -> None:
        super().setUp()
        self.before_there = status(self.other)["rejected"]
        self.there = NodeDestination(node_id=self.other_id)

    def tearDown(self) -> None:
        with Intruder(self.overlay, self.node, self.honest, self.protocol) as honest:
            self.assertIsInstance(honest.ask(PingReq(), self.there), PingAns)
        super().tearDown()
        self.assertEqual([], [line for line in self.other.log if "Traceback" in line])

    def assert_counted_there(self, cause: str, least: int = 1) -> None:
        until(
            lambda: grown(self.before_there, status(self.other)["rejected"]).get(cause, 0) >= least,
            5,
            f"{cause!r} at the other node",
        )

    def test_errors_of_the_other(self) -> None:
        """What the relay cannot see is refused by the node that it is for; what it can see, by the relay."""
        with self.intruder() as intruder:
            extension = UnknownExtension(type=99, critical=True, extension_contents=b"?")
            answer = intruder.ask(PingReq(), self.there, extensions=(extension,))
            self.assert_error(answer, ErrorCode.UNKNOWN_EXTENSION)
            forward = UnknownForwardingOption(type=77, flags=ForwardingFlags.FORWARD_CRITICAL, option=b"x")
            answer = intruder.ask(PingReq(), self.there, options=(forward,))
            self.assert_error(answer, ErrorCode.UNSUPPORTED_FORWARDING_OPTION)
            self.assert_error(intruder.ask(PingReq(), self.there, ttl=0), ErrorCode.TTL_EXCEEDED)
            back = NodeDestination(node_id=intruder.victim)
            for circle in ((self.there, back, self.there), (back, self.there, back, self.there)):
                answer = intruder.ask(PingReq(), destination_list=circle)
                self.assert_error(answer, ErrorCode.INVALID_MESSAGE)
            # There and back again without a circle: each of them once.
            self.assertIsInstance(intruder.ask(PingReq(), destination_list=(self.there, back)), PingAns)

    def test_forged_on_the_way(self) -> None:
        """A relay does not look at signatures; the node that it is for does."""
        with self.intruder() as intruder:
            message = intruder.message(PingReq(), self.there)
            intruder.silence(message[:-1] + bytes([message[-1] ^ 1]))
        self.assert_counted_there("unverified: signature")

    def test_grown_too_large(self) -> None:
        """A message that its Via List makes too large on the way is Message_Too_Large."""
        most = self.overlay.configuration.max_message_size
        with self.intruder() as intruder:
            empty = len(intruder.message(PingReq(), self.there))
            answer = intruder.ask(PingReq(padding=bytes(most - empty - 4)), self.there)
            self.assert_error(answer, ErrorCode.MESSAGE_TOO_LARGE)

    def test_false_via_list(self) -> None:
        """An answer goes along the Via List as it came, and is lost where that leads nowhere."""
        with self.intruder() as intruder:
            nobody = NodeDestination(node_id=NodeId(b"n" * 16))
            # It comes back this far: the next after us would be nobody.
            self.assertIsInstance(intruder.ask(PingReq(), self.there, via_list=(nobody,)), PingAns)
            own = NodeDestination(node_id=intruder.victim)
            via = tuple([own, self.there] * 40)
            intruder.silence(intruder.message(PingReq(), self.there, via_list=via))

    def test_repeated_for_another(self) -> None:
        """An Update or Leave of another, repeated, changes nothing at the node it is repeated to."""
        with self.intruder() as intruder:
            liar = self.honest.signer
            update = Full(uptime=1, predecessors=(), successors=(NodeId(b"l" * 16),), fingers=())
            before = status(self.other)["neighbors"]
            intruder.ask(update, self.there, signer=liar)
            leave = LeaveReq(leaving_peer_id=self.honest.node_id)
            self.assert_error(intruder.ask(leave, self.there, signer=liar), ErrorCode.FORBIDDEN)
            join = JoinReq(joining_peer_id=self.honest.node_id)
            self.assert_error(intruder.ask(join, self.there, signer=liar), ErrorCode.FORBIDDEN)
            self.assertEqual(before, status(self.other)["neighbors"])

    def test_revoked(self) -> None:
        """A node that the operator revokes loses its links everywhere, and gets no new ones."""
        token = self.node.p2psip("invite", "gone").stdout.strip()
        gone = self.world_of().node("gone")
        gone.start("--join", token)
        gone.wait_joined()
        node_id = status(gone)["node_id"]
        until(lambda: node_id in linked(self.other), 20, "the third is linked")
        self.node.p2psip("authority", "expel", "gone")
        until(
            lambda: node_id not in linked(self.other) and node_id not in linked(self.node), 20, "its links are closed"
        )
        type(self).overlay = Overlay(self.node)  # with the new document
        gone.kill()
        gone.start()
        until(
            lambda: (
                self.rejected().get("link: bad-node")
                or grown(self.before_there, status(self.other)["rejected"]).get("link: bad-node")
            ),
            10,
            "it is refused",
        )
        gone.kill()

    def world_of(self) -> World:
        assert self.world is not None
        return self.world


def linked(node: NodeProcess) -> set[str]:
    """The Node-IDs, in hex, of the nodes with links to `node`."""
    return {link["node_id"] for link in status(node)["links"]}
