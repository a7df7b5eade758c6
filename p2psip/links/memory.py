"""Links within one process, for tests and for the simulator: a network of memory with latency, loss and
partitions.

Messages are handed over whole and unframed: framing tells of a stream what this network knows anyway.  It
does for a link what framing would: a link over which something was sent in vain is failing after an RTO, dead
30 s later, and recovers when the network heals.  Who is at the other end is taken from its signer,
unverified.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from ..errors import LinkError
from ..framing import RETENTION
from ..hostport import address_text
from ..ids import NodeId
from ..interfaces import (
    IApplicationConnection,
    ILink,
    ILinkHost,
    ILinkProtocol,
    ILinkProtocolFactory,
    INegotiation,
)
from ..security.identity import Identity
from ..wire.codes import OverlayLinkType
from ..wire.methods import IceCandidate
from .addresses import host_candidates, usable
from .application import ApplicationConnection
from .plain import negotiate
from .stream import MemoryStream

PORT = 6084
CONNECT_TIMEOUT = 10.0
OFFER_TIME = 10.0
MOST_UNDERWAY = 1024
"""Messages that may be on their way over one link; more are refused, as by the full queue of a real one."""

_LINK_TYPE = OverlayLinkType.TLS_TCP_FH_NO_ICE


class MemoryNetwork:
    """What the nodes of one process are connected by.

    `latency` gives the seconds one way between two addresses; `loss` is the part of messages that vanish.
    Both may be set anew at any time.  With the same clock, `random` and calls it does the same again.
    """

    def __init__(
        self,
        clock: IReactorTime,
        random: Random,
        latency: Callable[[str, str], float] = lambda here, there: 0.01,
        loss: float = 0.0,
    ) -> None:
        self.clock = clock
        self.random = random
        self.latency = latency
        self.loss = loss
        self.record_size: int | None = None
        """Of the application connections that are made from now on: these carry records, which `loss` takes as well;
        None: they are streams."""
        self.observe: Callable[[MemoryLink, bytes], None] | None = None
        """Told of each message that is sent, before anything becomes of it."""
        self.counters: Counter[str] = Counter()
        self._made = 0
        self._nodes: dict[tuple[str, int], MemoryLinks] = {}
        self._offers: dict[tuple[str, int], _Offer] = {}
        self._dead: set[str] = set()
        self._side: dict[str, int] = {}
        self._failing: dict[MemoryLink, None] = {}

    def new_address(self) -> str:
        """An address that no node has had."""
        self._made += 1
        return f"10.{self._made >> 16 & 255}.{self._made >> 8 & 255}.{self._made & 255}"

    def link(self, one: MemoryLinks, other: MemoryLinks) -> None:
        """Open a link between two nodes at once, as if they had done so before time began; they must be listening."""
        for end in MemoryLink.joined(one, other, 2 * self.latency(one.address, other.address)):
            end.open()

    def reachable(self, here: str, there: str) -> bool:
        """Whether what is sent from one address arrives at another."""
        if here in self._dead or there in self._dead:
            return False
        side = self._side
        return not side or side.get(here, 0) == side.get(there, 0)

    def partition(self, *groups: Collection[str]) -> None:
        """Let nothing pass between `groups` of addresses; those not named form a group as well."""
        self._side = {address: number for number, group in enumerate(groups, 1) for address in group}

    def heal(self) -> None:
        """End the partition."""
        self._side = {}
        for link in list(self._failing):
            link._heal()

    def kill(self, address: str) -> None:
        """Take a node off the network as a power failure would: it hears nothing, nor does anybody hear of
        it.
        """
        self._dead.add(address)
        for key, node in list(self._nodes.items()):
            if key[0] == address:
                node._vanish()
                del self._nodes[key]

    def revive(self, address: str) -> None:
        """Let a new node use the address of one that was killed."""
        self._dead.discard(address)


@implementer(ILinkProtocolFactory)
class MemoryLinkFactory:
    """Makes the links of nodes in one `MemoryNetwork`; `build` gives a node a new address unless it names
    one.
    """

    name = "memory"
    link_type = int(_LINK_TYPE)
    ice = False

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network

    def build(
        self,
        host: ILinkHost,
        reactor: object,
        addresses: Sequence[str],
        port: int,
        advertise: Sequence[str] = (),
    ) -> ILinkProtocol:
        return MemoryLinks(self.network, host, addresses[0] if addresses else "", port)


@implementer(ILink)
class MemoryLink:
    """One end of a link."""

    __slots__ = (
        "_arrival", "_in_vain", "_network", "_node", "_opened", "_other_end", "_there", "_underway", "_watch",
        "address", "identity", "is_open", "listening", "node_id", "outgoing", "rtt",
    )  # fmt: skip

    protocol = MemoryLinkFactory.name

    @property
    def candidate_pair(self) -> str:
        """The addresses of both ends."""
        return f"{address_text(self.here, self._node.port)} -> {self.address}"

    def __init__(self, node: MemoryLinks, there: MemoryLinks, outgoing: bool, rtt: float) -> None:
        self.node_id = there.host.signer.node_id
        self.identity = there.host.signer.identity
        self.address = address_text(there.address, there.port)
        self.outgoing = outgoing
        self.listening = self.address if outgoing else ""
        self.rtt: float | None = rtt
        self.is_open = True
        self._opened = False
        self._node = node
        self._there = there.address
        self._network = node.network
        self._other_end: MemoryLink | None = None
        self._arrival = 0.0
        self._underway = 0
        self._in_vain: Sequence[bytes] = ()
        self._watch: IDelayedCall | None = None

    @classmethod
    def joined(cls, here: MemoryLinks, there: MemoryLinks, rtt: float) -> tuple[MemoryLink, MemoryLink]:
        """Both ends of a new link that `here` opens, not yet told to their owners."""
        ours, theirs = cls(here, there, True, rtt), cls(there, here, False, rtt)
        ours._other_end, theirs._other_end = theirs, ours
        here._links[ours] = None
        there._links[theirs] = None
        return ours, theirs

    @property
    def here(self) -> str:
        """The address of this end."""
        return self._node.address

    def open(self) -> None:
        """Tell our owner of this link."""
        if self.is_open:
            self._opened = True
            self._node.host.owner.link_opened(self)

    def send(self, message: bytes) -> bool:
        network = self._network
        other = self._other_end
        if not self.is_open or other is None or self._underway >= MOST_UNDERWAY:
            network.counters["not sent"] += 1
            return False
        network.counters["sent"] += 1
        if network.observe is not None:
            network.observe(self, message)
        if not network.reachable(self._node.address, self._there):
            network.counters["cut off"] += 1
            self._sent_in_vain(message)
        elif not other.is_open:
            self._in_vain = (*self._in_vain, message)
            self._in_order(self._end, LinkError("connection reset"))
        elif network.loss and network.random.random() < network.loss:
            network.counters["lost"] += 1
        else:
            self._underway += 1
            self._in_order(self._arrive, message)
        return True

    def close(self, reason: Exception | None = None) -> None:
        if not self.is_open:
            return
        other = self._other_end
        if other is not None and self._network.reachable(self._node.address, self._there):
            self._in_order(other._end, None)
        self.is_open = False
        self._network.clock.callLater(0, self._forget, reason)

    def _in_order(self, call: Callable[..., None], *arguments: object) -> None:
        """Call at the other end, not before what was sent earlier: a stream keeps order."""
        clock = self._network.clock
        now = clock.seconds()
        self._arrival = max(self._arrival, now + self._network.latency(self._node.address, self._there))
        clock.callLater(self._arrival - now, call, *arguments)

    def _arrive(self, message: bytes) -> None:
        self._underway -= 1
        other = self._other_end
        if other is not None and other.is_open:
            other._node.host.owner.message_received(other, message)
        elif not self._network.reachable(self._node.address, self._there):
            self._sent_in_vain(message)  # it died meanwhile
        elif self.is_open:
            self._in_vain = (*self._in_vain, message)  # it has closed, as we shall hear

    def _end(self, reason: Exception | None) -> None:
        """The other end has closed, or the link is given up."""
        if self.is_open:
            self.is_open = False
            self._forget(reason)

    def _forget(self, reason: Exception | None) -> None:
        self._unwatch()
        if self._node._links.pop(self, self) is None:
            if self._opened:
                self._node.host.owner.link_closed(self, reason)
                self._give_back()
            self._node._closed()

    def _give_back(self) -> None:
        undelivered, self._in_vain = self._in_vain, ()
        if undelivered:
            self._node.host.owner.messages_undelivered(self, undelivered)

    # -- a failing link (RFC 6940 §6.6.5)

    def _sent_in_vain(self, message: bytes) -> None:
        if not self.is_open:
            return
        self._in_vain = (*self._in_vain[-MOST_UNDERWAY:], message)
        if self._watch is None:
            self._watch = self._network.clock.callLater(max(1.0, 2 * (self.rtt or 0)), self._overdue)

    def _overdue(self) -> None:
        self._watch = None
        if self._network.reachable(self._node.address, self._there):
            self._in_vain = ()  # lost here, where TCP would bring it late
            return
        self._network._failing[self] = None
        self._watch = self._network.clock.callLater(RETENTION, self._end, LinkError("no ACK for 30 s"))
        self._node.host.owner.link_failing(self)
        self._give_back()

    def _heal(self) -> None:
        if self._network.reachable(self._node.address, self._there):
            self._unwatch()
            other = self._other_end
            if other is not None and other.is_open:
                self._node.host.owner.link_recovered(self)
            else:
                self._end(LinkError("connection reset"))

    def _unwatch(self) -> None:
        self._network._failing.pop(self, None)
        if self._watch is not None and self._watch.active():
            self._watch.cancel()
        self._watch = None


class _Offer:
    """A node waits for an application connection."""

    def __init__(self, node: MemoryLinks, port: int, expected: NodeId, application: int) -> None:
        self.node = node
        self.port = port
        self.expected = expected
        self.application = application
        self.connection: Deferred[IApplicationConnection] = Deferred(lambda _: self.end())
        self._timeout = node.network.clock.callLater(OFFER_TIME, self._late)

    def _late(self) -> None:
        self.end()
        self.connection.errback(LinkError("nobody took the application connection"))

    def end(self) -> None:
        self.node.network._offers.pop((self.node.address, self.port), None)
        if self._timeout.active():
            self._timeout.cancel()


@implementer(ILinkProtocol)
class MemoryLinks:
    """The links of one node in a `MemoryNetwork`."""

    name = MemoryLinkFactory.name
    link_type = int(_LINK_TYPE)
    behind_nat = None

    def __init__(self, network: MemoryNetwork, host: ILinkHost, address: str = "", port: int = PORT) -> None:
        self.network = network
        self.host = host
        self.address = address or network.new_address()
        self.port = port
        self.addresses: Sequence[str] = ()
        self._links: dict[MemoryLink, None] = {}
        self._stopped: Deferred[None] | None = None
        self._next_port = 49152

    def listen(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._listen())

    async def _listen(self) -> None:
        if (self.address, self.port) in self.network._nodes:
            where = f"{self.address} port {self.port}"
            raise LinkError(f"cannot listen on {where}: in use; choose another with --reload-port")
        self.network._nodes[self.address, self.port] = self
        self.addresses = (address_text(self.address, self.port),)

    def stop(self) -> Deferred[None]:
        self.network._nodes.pop((self.address, self.port), None)
        self.addresses = ()
        for offer in [each for each in self.network._offers.values() if each.node is self]:
            offer.connection.cancel()
        stopped = self._stopped = Deferred()
        for link in list(self._links):
            link.close()
        self._closed()
        return stopped

    def _closed(self) -> None:
        if self._stopped is not None and not self._links and not self._stopped.called:
            self._stopped.callback(None)

    def _vanish(self) -> None:
        for link in list(self._links):
            link.is_open = False
            link._unwatch()
        self._links.clear()
        for offer in [each for each in self.network._offers.values() if each.node is self]:
            offer.end()

    def candidates(self) -> Sequence[IceCandidate]:
        return host_candidates([(self.address, self.port)], self.link_type)

    def negotiate(
        self, controlling: bool, expected: NodeId | None = None, application: int | None = None
    ) -> Deferred[INegotiation]:
        return negotiate(self, controlling, expected, application)

    def connect(self, candidates: Sequence[IceCandidate], expected: NodeId) -> Deferred[ILink]:
        return Deferred.fromCoroutine(self._connect_first(self._usable(candidates), expected))

    def connect_to_bootstrap(self, address: str, port: int) -> Deferred[ILink]:
        return Deferred.fromCoroutine(self._connect_first(iter([(address, port)]), None))

    def _usable(self, candidates: Sequence[IceCandidate]) -> Iterator[tuple[str, int]]:
        return usable(candidates, _LINK_TYPE, {(self.address, self.port)}, loopback=True)

    async def _connect_first(self, addresses: Iterator[tuple[str, int]], expected: NodeId | None) -> ILink:
        refused = LinkError("no candidates")
        for address, port in addresses:
            try:
                return await self._connect(address, port, expected)
            except LinkError as error:
                refused = error
        raise refused

    async def _handshake(self, address: str, port: int) -> float:
        """The time that TCP's and TLS's handshakes take, two round trips; answers one of them."""
        rtt = 2 * self.network.latency(self.address, address)
        if not self.network.reachable(self.address, address):
            await self._wait(CONNECT_TIMEOUT)
            raise LinkError(f"no answer from {address_text(address, port)}")
        await self._wait(2 * rtt)
        return rtt

    def _wait(self, seconds: float) -> Awaitable[None]:
        return deferLater(self.network.clock, seconds)

    async def _connect(self, address: str, port: int, expected: NodeId | None) -> ILink:
        rtt = await self._handshake(address, port)
        there = self.network._nodes.get((address, port))
        if there is None or not self.network.reachable(self.address, address):
            raise LinkError(f"connection to {address_text(address, port)} refused")
        self._judge(there.host.signer.identity, expected, address_text(address, port))
        ours, theirs = MemoryLink.joined(self, there, rtt)
        ours._in_order(theirs.open)
        ours.open()
        return ours

    def _judge(self, identity: Identity, expected: NodeId | None, address: str) -> None:
        if expected is not None and expected not in identity.node_ids:
            self.host.owner.link_rejected("other Node-ID", address)
            raise LinkError(f"{address} is another node than expected")
        if self.host.signer.node_id in identity.node_ids:
            self.host.owner.link_rejected("our own Node-ID", address)
            raise LinkError(f"{address} is this node itself")

    # -- application connections

    def offer_application(
        self, expected: NodeId, application: int
    ) -> tuple[Sequence[IceCandidate], Deferred[IApplicationConnection]]:
        port = self._next_port
        self._next_port += 1
        offer = _Offer(self, port, expected, application)
        self.network._offers[self.address, port] = offer
        return host_candidates([(self.address, port)], self.link_type), offer.connection

    def connect_application(
        self, candidates: Sequence[IceCandidate], expected: NodeId, application: int
    ) -> Deferred[IApplicationConnection]:
        return Deferred.fromCoroutine(self._connect_application(candidates, expected, application))

    async def _connect_application(
        self, candidates: Sequence[IceCandidate], expected: NodeId, application: int
    ) -> IApplicationConnection:
        address, port = next(self._usable(candidates))
        await self._handshake(address, port)
        offer = self.network._offers.get((address, port))
        text = address_text(address, port)
        if offer is None:
            raise LinkError(f"connection to {text} refused")
        self._judge(offer.node.host.signer.identity, expected, text)
        if offer.expected not in self.host.signer.identity.node_ids:
            offer.node.host.owner.link_rejected("other Node-ID", self.address)
            raise LinkError(f"connection to {text} closed")
        offer.end()
        record_size = self.network.record_size
        records = record_size is not None
        ours, theirs = MemoryStream.pair(
            self.network.clock,
            lambda: self.network.latency(self.address, address),
            (self.address, port),
            (address, port),
            lambda: self._arrives(address, records),
            records,
        )
        peer = offer.node.host.signer
        mine = ApplicationConnection(
            peer.identity, expected, application, text, self.name, record_size
        )
        accepted = ApplicationConnection(
            self.host.signer.identity, offer.expected, offer.application, address_text(self.address, port),
            self.name, record_size,
        )  # fmt: skip
        ours.serve(mine)
        theirs.serve(accepted)
        offer.connection.callback(accepted)
        return mine

    def _arrives(self, there: str, records: bool) -> bool:
        """Whether what an application sends to or from `there` now comes through."""
        network = self.network
        lost = records and network.loss and network.random.random() < network.loss
        return network.reachable(self.address, there) and not lost
