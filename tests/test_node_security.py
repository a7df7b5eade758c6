"""What a hostile member, or a stranger, can send to a node: each gets what the RFC names, is counted, and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from p2psip.config.kinds import SIP_REGISTRATION
from p2psip.errors import ErrorCode
from p2psip.ids import NodeId
from p2psip.interfaces import ILink, ILinkHost, ILinkOwner, ISigner
from p2psip.links.memory import MemoryLinks
from p2psip.security.certificates import generate_key, make_authority
from p2psip.security.identity import Identity
from p2psip.security.signing import Signer, sign_value
from p2psip.testing import EPOCH, YEAR, Credentials, World
from p2psip.transport.messages import compose, request_code, seal
from p2psip.wire.codec import Struct
from p2psip.wire.codes import UNFRAGMENTED
from p2psip.wire.header import (
    Destination,
    ForwardingHeader,
    NodeDestination,
    ResourceDestination,
    with_header,
)
from p2psip.wire.message import decode_message
from p2psip.wire.methods import (
    AttachReqAns,
    IceCandidate,
    IpAddressPort,
    JoinReq,
    PingAns,
    PingReq,
)
from p2psip.wire.storage import (
    DataValue,
    DictionaryEntry,
    StoreAns,
    StoreKindData,
    StoreReq,
)

from .security.credentials import self_certified


@implementer(ILinkHost, ILinkOwner)
class Intruder:
    """Somebody with a certificate of the overlay who sends whatever it likes over a link to one node."""

    private_key: Any = None

    def __init__(self, world: World, credentials: Credentials) -> None:
        self.owner: ILinkOwner = self
        self.signer: ISigner = credentials.signer
        self.trust: Any = None
        self.configuration = world.configuration
        self.clock = world.clock
        self.random = Random(1)
        self.world = world
        self.answers: list[bytes] = []
        self.protocol = MemoryLinks(world.network, self)
        victim = world.nodes[0]
        self.link = world.result(self.protocol.connect_to_bootstrap(world.address(victim), 6084))
        world.run(1)
        self.answers.clear()

    def link_opened(self, link: ILink) -> None: ...
    def link_failing(self, link: ILink) -> None: ...
    def link_recovered(self, link: ILink) -> None: ...
    def link_closed(self, link: ILink, reason: Exception | None) -> None: ...
    def messages_undelivered(self, link: ILink, messages: Sequence[bytes]) -> None: ...
    def link_rejected(self, cause: str, address: str) -> None: ...

    def message_received(self, link: ILink, message: bytes) -> None:
        self.answers.append(message)

    def send(self, message: bytes) -> Struct | None:
        """Send bytes; the body of what comes back, if anything does."""
        self.answers.clear()
        self.link.send(message)
        self.world.run(0.5)
        answers = [decode_message(answer, self.configuration.context) for answer in self.answers]
        bodies = [answer.body(self.configuration.context) for answer in answers if answer.header.transaction_id < 1000]
        return bodies[0] if bodies else None

    def message(
        self,
        body: Struct,
        destination: Destination,
        transaction_id: int = 7,
        signer: ISigner | None = None,
        certificates: Sequence[bytes] = (),
        **header: Any,
    ) -> bytes:
        """A message, `header` fields of it changed."""
        overlay = header.get("overlay", self.configuration.overlay_hash)
        sealed = seal(
            overlay, transaction_id, request_code(body), body.encode(), signer or self.signer, certificates
        )
        if not header:
            return compose(self.configuration, transaction_id, [destination], sealed)
        fields: dict[str, Any] = {
            "overlay": overlay,
            "configuration_sequence": self.configuration.sequence,
            "ttl": 10,
            "transaction_id": transaction_id,
            "destination_list": (destination,),
            **header,
        }
        return with_header(ForwardingHeader(**fields), sealed)


class HostileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(3)
        self.victim = self.world.nodes[0]
        self.mallory = self.world.credentials("mallory@example.org")
        self.intruder = Intruder(self.world, self.mallory)
        self.there = NodeDestination(node_id=self.victim.node_id)
        self.before = Counter(self.victim.rejected())

    def rejected(self) -> dict[str, int]:
        return dict(Counter(self.victim.rejected()) - self.before)

    def tearDown(self) -> None:
        """Whatever it was: the node goes on serving."""
        answer = self.intruder.send(self.intruder.message(PingReq(), self.there, 999))
        self.assertIsInstance(answer, PingAns)

    def ping(self, **header: Any) -> Any:
        return self.intruder.send(self.intruder.message(PingReq(), self.there, **header))

    def test_garbage(self) -> None:
        """Bytes that are no message are dropped and counted."""
        random = Random(5)
        for size in (0, 1, 37, 38, 100, 5000):
            self.assertIsNone(self.intruder.send(random.randbytes(size)))
        self.assertEqual(sum(self.rejected().values()), 6)

    def test_truncated_and_mutated(self) -> None:
        """Nor does any part of a message, or one with a bit turned, do harm."""
        message = self.intruder.message(PingReq(padding=b"abc"), self.there)
        for size in range(0, len(message), 7):
            self.intruder.link.send(message[:size])
        random = Random(6)
        for _ in range(300):
            mutated = bytearray(message)
            mutated[random.randrange(len(mutated))] ^= 1 << random.randrange(8)
            self.intruder.link.send(bytes(mutated))
        self.world.run(1)
        self.assertGreater(sum(self.rejected().values()), 100)

    def test_forged_signature(self) -> None:
        """A message whose signature is wrong is dropped. [6940-6.3.4-12]"""
        message = self.intruder.message(PingReq(), self.there)
        self.assertIsNone(self.intruder.send(message[:-1] + bytes([message[-1] ^ 1])))
        self.assertEqual(self.rejected(), {"unverified: signature": 1})

    def test_signed_by_a_stranger(self) -> None:
        """One that another authority's certificate signs is, too."""
        key = generate_key()
        other = make_authority("example.org", generate_key(), EPOCH, YEAR)
        certificate = other.issue(
            key.public_key(),
            overlay="example.org",
            user_name="x@example.org",
            node_ids=[NodeId(b"x" * 16)],
            role="peer",
            now=EPOCH,
            lifetime=YEAR,
        )
        stranger = Signer(Identity.from_certificate(certificate, "example.org"), key)
        self.assertIsNone(self.intruder.send(self.intruder.message(PingReq(), self.there, signer=stranger)))
        self.assertEqual(self.rejected(), {"unverified: untrusted": 1})

    def test_forged_node_id(self) -> None:
        """Where nodes certify themselves, nobody signs a message or a value as a Node-ID that is not its key's.

        [6940-11.3.1-4]
        """
        for digest in ("sha256", "sha1"):
            self.world = World(3, self_signed_permitted=digest)
            self.victim = self.world.nodes[0]
            self.there = NodeDestination(node_id=self.victim.node_id)
            self.mallory = self.certified(digest)
            self.intruder = Intruder(self.world, self.mallory)
            self.assertIsInstance(self.ping(), PingAns)
            forged = self.certified(digest, self.world.nodes[1].node_id).signer
            self.assertIsNone(self.intruder.send(self.intruder.message(PingReq(), self.there, signer=forged)))
            self.assertEqual(self.rejected(), {"unverified: node-id": 1})
            certificates = (forged.identity.certificate,)
            for transaction, (signer, expected) in enumerate(
                [(forged, ErrorCode.FORBIDDEN), (self.mallory.signer, None)], 100
            ):
                body, destination = self.store_req(b"x", 1, signer=signer)
                message = self.intruder.message(body, destination, transaction, certificates=certificates)
                answer: Any = self.intruder.send(message)
                self.assertEqual(getattr(answer, "error_code", None), expected)

    def certified(self, digest: str, forged: NodeId | None = None) -> Credentials:
        """Somebody who certifies itself; for another's Node-ID where one is given."""
        key = generate_key()
        certificate = self_certified(key, digest, forged, overlay=self.world.name, now=EPOCH)
        return Credentials(key, Signer(Identity.from_certificate(certificate, self.world.name), key))

    def test_other_overlay(self) -> None:
        """Incompatible_with_Overlay."""
        self.assertEqual(self.ping(overlay=1).error_code, ErrorCode.INCOMPATIBLE_WITH_OVERLAY)

    def test_ttl(self) -> None:
        """TTL_Exceeded for more than initial-ttl, and for a message that has to go on with none left."""
        self.assertEqual(self.ping(ttl=200).error_code, ErrorCode.TTL_EXCEEDED)
        there = NodeDestination(node_id=self.world.nodes[1].node_id)
        answer: Any = self.intruder.send(self.intruder.message(PingReq(), there, ttl=0))
        self.assertEqual(answer.error_code, ErrorCode.TTL_EXCEEDED)

    def test_version_and_fragment(self) -> None:
        """Dropped: another version, a fragment that cannot be one."""
        self.assertIsNone(self.ping(version=0x0B))
        self.assertIsNone(self.ping(fragment=UNFRAGMENTED & 0x7FFFFFFF))

    def test_repeated_destination(self) -> None:
        """A Destination List that goes in circles is Invalid_Message."""
        other = NodeDestination(node_id=self.world.nodes[1].node_id)
        answer = self.ping(destination_list=(other, self.there, other))
        self.assertEqual(answer.error_code, ErrorCode.INVALID_MESSAGE)

    def test_old_configuration(self) -> None:
        """Config_Too_Old and Config_Too_New. [6940-6.3.2.1-4]"""
        self.assertEqual(self.ping(configuration_sequence=0).error_code, ErrorCode.CONFIG_TOO_OLD)
        self.assertEqual(self.ping(configuration_sequence=2).error_code, ErrorCode.CONFIG_TOO_NEW)

    def test_join_for_another(self) -> None:
        """Nobody joins in another's name: Forbidden. [6940-6.4.2.1-2]"""
        body = JoinReq(joining_peer_id=self.world.nodes[1].node_id)
        answer: Any = self.intruder.send(self.intruder.message(body, self.there))
        self.assertEqual(answer.error_code, ErrorCode.FORBIDDEN)

    def test_attach_flood(self) -> None:
        """After its share of Attach requests a node is Forbidden more; links being opened are bounded."""
        codes: Counter[int] = Counter()
        candidates = tuple(
            IceCandidate(addr_port=IpAddressPort.of(f"10.9.9.{number}", 6084), overlay_link=4) for number in range(1, 5)
        )
        for number in range(80):
            body = AttachReqAns(role=b"passive", candidates=candidates)
            answer: Any = self.intruder.send(self.intruder.message(body, self.there, 100 + number))
            codes[getattr(answer, "error_code", 0)] += 1
        self.assertEqual(set(codes), {0, ErrorCode.FORBIDDEN})
        self.assertLessEqual(codes[0], 61)

    # -- Store --------------------------------------------------------------------------------------------

    def store_req(
        self, text: bytes, storage_time: int, user: str = "mallory@example.org", signer: ISigner | None = None
    ) -> tuple[StoreReq, Destination]:
        resource = self.victim.overlay.resource_id(user.encode())
        signer = signer or self.intruder.signer
        entry = DictionaryEntry(key=signer.node_id, value=DataValue(value=text))
        data = sign_value(signer, resource, SIP_REGISTRATION, entry, storage_time, 600)
        kind_data = StoreKindData(kind=SIP_REGISTRATION, values=(data,))
        return StoreReq(resource=resource, kind_data=(kind_data,)), ResourceDestination(resource_id=resource)

    def test_store_for_another_user(self) -> None:
        """Forbidden, and nothing is stored."""
        body, destination = self.store_req(b"x", 1, "alice@example.org")
        answer: Any = self.intruder.send(self.intruder.message(body, destination))
        self.assertEqual(answer.error_code, ErrorCode.FORBIDDEN)
        self.assertEqual([node.storage.values for node in self.world.nodes], [0, 0, 0])

    def test_repeated_store(self) -> None:
        """The very same Store gets the same answer and changes nothing; in another transaction it is too old."""
        body, destination = self.store_req(b"x", 1)
        message = self.intruder.message(body, destination)
        first = self.intruder.send(message)
        self.assertIsInstance(first, StoreAns)
        self.assertEqual(self.intruder.send(message), first)
        self.world.run(20)
        replayed: Any = self.intruder.send(self.intruder.message(body, destination, 8))
        self.assertEqual(replayed.error_code, ErrorCode.DATA_TOO_OLD)

    def test_forged_value(self) -> None:
        """A value whose signature is wrong, in a request that is rightly signed: Forbidden."""
        body, destination = self.store_req(b"x", 1)
        (kind_data,) = body.kind_data
        (data,) = kind_data.values
        changed = kind_data.replace(values=(data.replace(storage_time=2),))
        answer: Any = self.intruder.send(self.intruder.message(body.replace(kind_data=(changed,)), destination))
        self.assertEqual(answer.error_code, ErrorCode.FORBIDDEN)
