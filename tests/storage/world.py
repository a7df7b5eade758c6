"""What the tests of storage stand on: people with cheap signatures, a topology told what to say, Kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha1, sha256
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from p2psip.config.kinds import Kind
from p2psip.ids import NodeId, ResourceId
from p2psip.interfaces import (
    IAccessPolicy,
    ISigner,
    ITopologyPlugin,
    IVerifier,
    Request,
    SignedBy,
)
from p2psip.security.identity import Identity
from p2psip.security.signing import VerificationError, sign_value
from p2psip.storage.interfaces import Held
from p2psip.storage.policies import NodeMatch, NodeMultiple, UserMatch, UserNodeMatch
from p2psip.wire.codec import Struct
from p2psip.wire.codes import DataModel
from p2psip.wire.security import ECDSA_SHA256, CertHash, Signature
from p2psip.wire.storage import (
    ArrayEntry,
    DataValue,
    DictionaryEntry,
    StoredData,
    StoredDataValue,
)

NOW = 1_800_000_000.0
FOREVER = NOW + 10**9

SINGLE, ARRAY, DICTIONARY, NODES, TURN = 0xF0000001, 0xF0000002, 0xF0000003, 0xF0000004, 0x2

POLICIES: Mapping[str, IAccessPolicy] = {
    policy.name: policy for policy in (UserMatch(), NodeMatch(), UserNodeMatch(), NodeMultiple())
}


def make_kinds(max_count: int = 4, max_size: int = 100) -> dict[int, Kind]:
    """One Kind of each data model under USER-MATCH, and those of the other policies."""

    def kind(kind_id: int, model: DataModel, policy: str, multiple: int = 0) -> Kind:
        return Kind(
            kind_id=kind_id,
            name="",
            data_model=model,
            access_control=policy,
            max_count=max_count,
            max_size=max_size,
            max_node_multiple=multiple,
        )

    return {
        each.kind_id: each
        for each in (
            kind(SINGLE, DataModel.SINGLE, "USER-MATCH"),
            kind(ARRAY, DataModel.ARRAY, "USER-MATCH"),
            kind(DICTIONARY, DataModel.DICTIONARY, "USER-NODE-MATCH"),
            kind(NODES, DataModel.DICTIONARY, "USER-MATCH"),
            kind(TURN, DataModel.SINGLE, "NODE-MULTIPLE", 3),
        )
    }


def hash_of(name: bytes) -> ResourceId:
    return ResourceId(sha1(name).digest()[:16])


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(16))


def identity(user_name: str, *node_ids: NodeId, not_after: float = FOREVER) -> Identity:
    certificate = b"certificate of " + user_name.encode() + b"".join(node_ids)
    fingerprint = sha256(certificate).digest()
    key: Any = None
    return Identity(user_name, node_ids, certificate, fingerprint, NOW - 100, not_after, "", key)


def _seal(who: Identity, data: bytes) -> bytes:
    return sha256(who.certificate + data).digest()


@implementer(ISigner)
class FakeSigner:
    """Signs with a hash that anybody could make."""

    def __init__(self, user_name: str, node_id: NodeId, not_after: float = FOREVER) -> None:
        self.identity = identity(user_name, node_id, not_after=not_after)
        self.node_id = node_id

    @property
    def signed_by(self) -> SignedBy:
        return SignedBy(self.identity, self.node_id)

    def sign(self, data: bytes) -> Signature:
        named = CertHash(certificate_hash=self.identity.fingerprint)
        value = _seal(self.identity, data + named.encode())
        return Signature(algorithm=ECDSA_SHA256, identity=named, signature_value=value)


@implementer(IVerifier)
class FakeVerifier:
    """Believes the people it is told of, if their certificate comes along and has not expired."""

    def __init__(self, *people: FakeSigner) -> None:
        self.people = {person.identity.fingerprint: person for person in people}
        self.now = NOW
        self.asked = 0

    def verify(self, signature: Signature, data: bytes, certificates: Sequence[bytes]) -> SignedBy:
        self.asked += 1
        if not isinstance(signature.identity, CertHash):
            raise VerificationError("unsigned", "no identity")
        fingerprint = signature.identity.certificate_hash
        if fingerprint not in {sha256(der).digest() for der in certificates}:
            raise VerificationError("no-certificate", "its certificate is not there")
        person = self.people.get(fingerprint)
        if person is None:
            raise VerificationError("untrusted", "nobody we know")
        if self.now > person.identity.not_after:
            raise VerificationError("expired", "the certificate has expired")
        if signature.signature_value != _seal(person.identity, data + signature.identity.encode()):
            raise VerificationError("signature", "wrong")
        return person.signed_by


@implementer(ITopologyPlugin)
class FakeTopology:
    """Says what it was told to."""

    joined = True

    def __init__(self) -> None:
        self.responsible: Callable[[bytes], bool] = lambda target: True
        self.keeps: Callable[[ResourceId], bool] = lambda resource: True
        self.replicas: tuple[NodeId, ...] = ()
        self.bringers: set[NodeId] = set()
        self.hop: NodeId | None = None

    def resource_id(self, name: bytes) -> ResourceId:
        return hash_of(name)

    def is_responsible(self, target: bytes) -> bool:
        return self.responsible(target)

    def next_hop(self, target: bytes, previous_hop: NodeId | None = None) -> NodeId | None:
        return self.hop

    def replica_set(self, resource: ResourceId) -> Sequence[NodeId]:
        return self.replicas

    def replica_expected(self, resource: ResourceId, sender: NodeId) -> bool:
        return sender in self.bringers

    def still_keeps(self, resource: ResourceId) -> bool:
        return self.keeps(resource)

    def answers_for(self, resource: bytes, signer: NodeId) -> bool:
        return True

    def join(self) -> Deferred[None]:
        raise NotImplementedError

    def found(self) -> None:
        raise NotImplementedError

    def leave(self) -> Deferred[None]:
        raise NotImplementedError

    def answer_join(self, request: Request) -> Struct | Deferred[Struct]:
        raise NotImplementedError

    def answer_leave(self, request: Request) -> Struct | Deferred[Struct]:
        raise NotImplementedError

    def answer_update(self, request: Request) -> Struct | Deferred[Struct]:
        raise NotImplementedError

    def answer_route_query(self, request: Request) -> Struct | Deferred[Struct]:
        raise NotImplementedError

    def routes_over(self, node_id: NodeId) -> bool:
        return False

    def update_requested(self, node_id: NodeId) -> None: ...

    def responsible_ppb(self) -> int:
        return 0

    def link_opened(self, node_id: NodeId) -> None: ...

    def link_closed(self, node_id: NodeId) -> None: ...

    def link_recovered(self, node_id: NodeId) -> None: ...

    def status(self) -> Mapping[str, Any]:
        return {}

    def stop(self) -> None: ...


ALICE = FakeSigner("alice@example.org", node(0xA11CE))
BOB = FakeSigner("bob@example.org", node(0xB0B))
ALICES = hash_of(b"alice@example.org")


def single(value: bytes = b"v", exists: bool = True) -> DataValue:
    return DataValue(exists=exists, value=value)


def entry(index: int, value: bytes = b"v", exists: bool = True) -> ArrayEntry:
    return ArrayEntry(index=index, value=DataValue(exists=exists, value=value))


def item(key: bytes, value: bytes = b"v", exists: bool = True) -> DictionaryEntry:
    return DictionaryEntry(key=key, value=DataValue(exists=exists, value=value))


def signed(
    value: StoredDataValue,
    time: int = 1000,
    *,
    kind: int = SINGLE,
    resource: ResourceId = ALICES,
    signer: FakeSigner = ALICE,
    lifetime: int = 600,
) -> StoredData:
    """`value` as `signer` would store it."""
    return sign_value(signer, resource, kind, value, time, lifetime)


def kept(data: StoredData, signer: FakeSigner = ALICE, now: float = NOW) -> Held:
    """`data` as a storage holds it."""
    return Held.received(data, signer.identity, now)
