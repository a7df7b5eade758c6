"""Fakes that the tests of this floor share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from random import Random
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from p2psip.config.document import Configuration
from p2psip.errors import RELOADError
from p2psip.forwarding.router import Router
from p2psip.ids import NodeId
from p2psip.interfaces import ILink, ISigner, IVerifier, SignedBy
from p2psip.security.identity import Identity
from p2psip.security.signing import VerificationError
from p2psip.transport.connections import ConnectionTable
from p2psip.transport.dispatch import Dispatch
from p2psip.transport.messages import Arrived
from p2psip.transport.messaging import Messaging
from p2psip.transport.transactions import Transactions
from p2psip.wire.security import ECDSA_SHA256, CertHash, Signature


@implementer(ILink)
class FakeLink:
    """A link that records; `on_close` is told when it is closed."""

    protocol = "FAKE"
    candidate_pair = ""
    rtt = None
    identity: Any = None

    def __init__(self, node_id: NodeId, outgoing: bool = False, address: str = "127.0.0.9:6084") -> None:
        self.node_id = node_id
        self.outgoing = outgoing
        self.address = address
        self.listening = address if outgoing else ""
        self.sent: list[bytes] = []
        self.closed = False
        self.on_close: Any = lambda link: None

    def send(self, message: bytes) -> bool:
        self.sent.append(message)
        return not self.closed

    def close(self, reason: Exception | None = None) -> None:
        if not self.closed:
            self.closed = True
            self.on_close(self)


def identity_of(node_id: NodeId) -> Identity:
    """The identity that a fake signature of `node_id` proves."""
    certificate = b"certificate of " + node_id
    return Identity("", (node_id,), certificate, sha256(certificate).digest(), 0, 2**40, "peer", cast(Any, None))


@implementer(ISigner)
class FakeSigner:
    """Signs with a hash of its Node-ID and the data."""

    def __init__(self, node_id: NodeId) -> None:
        self.node_id = node_id
        self.identity = identity_of(node_id)

    def sign(self, data: bytes) -> Signature:
        who = CertHash(certificate_hash=self.node_id)
        return Signature(
            algorithm=ECDSA_SHA256, identity=who, signature_value=sha256(self.node_id + data).digest()
        )


@implementer(IVerifier)
class FakeVerifier:
    """Believes every `FakeSigner`."""

    def verify(self, signature: Signature, data: bytes, certificates: Sequence[bytes]) -> SignedBy:
        assert isinstance(signature.identity, CertHash)
        node_id = NodeId(signature.identity.certificate_hash)
        if signature.signature_value != sha256(node_id + data).digest():
            raise VerificationError("signature", "the signature is wrong")
        return SignedBy(identity_of(node_id), node_id)


class PairedLink(FakeLink):
    """A link to another `Peer` in memory; `lost` of the next messages vanish."""

    def __init__(self, clock: Clock, peer: Peer, outgoing: bool) -> None:
        super().__init__(peer.node_id, outgoing)
        self._clock = clock
        self._peer = peer
        self.back: PairedLink
        self.lost = 0

    def send(self, message: bytes) -> bool:
        if not super().send(message):
            return False
        if self.lost:
            self.lost -= 1
        else:
            self._clock.callLater(0, self._peer.arrived, self.back, message)
        return True


class Peer:
    """All of the Message Transport of one node, with fake signatures and a fixed idea of the overlay."""

    def __init__(self, clock: Clock, node_id: NodeId, configuration: Configuration) -> None:
        self.clock = clock
        self.node_id = node_id
        self.configuration = configuration
        self.responsible: set[bytes] = set()
        self.hops: dict[bytes, NodeId] = {}
        self.counted: Counter[str] = Counter()
        self.signer = FakeSigner(node_id)
        self.mended: list[RELOADError] = []
        self.disbelieved: set[NodeId] = set()
        self.doubted: list[NodeId] = []
        random = Random(node_id)
        self.table = ConnectionTable(node_id, clock, lambda _: None, lambda _: None, lambda _: False)
        self.entrance: NodeId | None = None
        self.router = Router(node_id, configuration, self)
        self.transactions = Transactions(clock, random, self.count)
        self.messaging = Messaging(
            node_id,
            lambda: self.configuration,
            self.signer,
            FakeVerifier(),
            self.router,
            self.table.link_to,
            lambda resource, signer: signer not in self.disbelieved,
            lambda resource, signer: self.doubted.append(signer),
            self.mend,
            self.transactions,
            clock,
            self.count,
        )
        self.checks: list[Callable[[Arrived], None]] = []
        self.dispatch = self.messaging.dispatch = Dispatch(
            lambda: self.configuration, self.signer, clock, self.count, self.check, self.messaging.send_answer
        )

    def count(self, cause: str) -> None:
        self.counted[cause] += 1

    def check(self, arrived: Arrived) -> None:
        for check in self.checks:
            check(arrived)

    def mend(self, error: RELOADError) -> Deferred[None]:
        self.mended.append(error)
        return succeed(None)

    def arrived(self, link: PairedLink, message: bytes) -> None:
        self.table.heard(link)
        self.messaging.receive(link.node_id, message)

    # What the router asks.

    def is_responsible(self, target: bytes) -> bool:
        return target in self.responsible

    def next_hop(self, target: bytes, previous_hop: NodeId | None = None) -> NodeId | None:
        return self.hops.get(target)

    def connected(self, node_id: NodeId) -> bool:
        return self.table.link_to(node_id) is not None

    def way_in(self) -> NodeId | None:
        return self.entrance

    def link(self, other: Peer) -> tuple[PairedLink, PairedLink]:
        """Open a link to `other`; both ends of it."""
        ours, theirs = PairedLink(self.clock, other, True), PairedLink(self.clock, self, False)
        ours.back, theirs.back = theirs, ours

        def closed(_: FakeLink) -> None:
            self.table.closed(ours)
            other.table.closed(theirs)

        ours.on_close = theirs.on_close = closed
        self.table.opened(ours)
        other.table.opened(theirs)
        return ours, theirs


def run(clock: Clock, seconds: float = 0) -> None:
    """Let what is due happen, and what that makes due."""
    for _ in range(50):
        clock.advance(0)
    while seconds > 0:
        clock.advance(min(seconds, 0.5))
        seconds -= 0.5
        for _ in range(20):
            clock.advance(0)
