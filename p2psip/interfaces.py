"""The seams of the house: what can be replaced, by another overlay algorithm, another link, or a fake in a test.

Where a method answers a Deferred the caller may await or cancel it; it fails, and does not raise, unless its text
says so.  Methods named for something that happened (`link_opened`, `message_received`) are told, not asked: they
answer nothing and must not raise.  What `twisted.plugin` finds are *factories*; each node builds its own instance
from them and lends it a host interface, never the node itself.  A host's attributes are to be read each time that
they are needed: the configuration, and the certificate behind a signer, change while a node runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.plugin import IPlugin
from zope.interface import Attribute, Interface

from .security.identity import SignedBy as SignedBy
from .security.interfaces import ISigner as ISigner
from .security.interfaces import IVerifier as IVerifier

if TYPE_CHECKING:
    from .config.document import Configuration
    from .config.kinds import Kind
    from .ids import NodeId, ResourceId
    from .security.certificates import PrivateKey
    from .security.identity import Identity
    from .security.trust import Trust
    from .wire.codec import Struct
    from .wire.contents import MessageExtension
    from .wire.header import Destination
    from .wire.methods import IceCandidate
    from .wire.storage import StoredData

# -- What is handed from floor to floor ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """A verified request that has reached the node it was for."""

    body: Struct
    signer: SignedBy
    previous_hop: NodeId
    """The neighbor whose link it came over; our own Node-ID for a request to ourselves."""
    transaction_id: int
    certificates: Sequence[bytes] = ()
    """The certificates of the SecurityBlock as received, DER: attacker's input, parse only what is needed."""
    extensions: Sequence[MessageExtension] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer's body with what must travel beside it."""

    body: Struct
    certificates: Sequence[bytes] = ()
    """DER certificates of those who signed values within the body (RFC 6940 §6.3.4)."""
    extensions: Sequence[MessageExtension] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """A verified answer to a request of ours."""

    body: Struct
    signer: SignedBy
    certificates: Sequence[bytes] = ()
    extensions: Sequence[MessageExtension] = ()
    hops: int = 0
    """initial-ttl less the answer's TTL on arrival."""


Answerer = Callable[[Request], "Struct | Reply | Deferred[Struct] | Deferred[Reply]"]
"""What answers one request method; it may raise (or fail with) a RELOADError."""


# -- Overlay Link Layer -------------------------------------------------------------------------------


class ILink(Interface):
    """One secured connection to a neighbor, carrying whole RELOAD messages."""

    node_id: NodeId = Attribute("Who is at the other end, as its certificate proves.")
    identity: Identity = Attribute("The certificate that the other end showed.")
    protocol: str = Attribute("The link protocol's name, such as 'TLS-TCP-FH-NO-ICE'.")
    address: str = Attribute("The other end's address, for people: '127.0.0.2:6084' or '[::1]:6084'.")
    outgoing: bool = Attribute("Whether we opened it.")
    rtt: float | None = Attribute("Smoothed round-trip time, seconds (RFC 6298); None before the first ACK.")

    def send(message: bytes) -> bool:
        """Queue `message`.  The link frames it, numbers it and sees it acknowledged.

        Answers False when the bounded queue is full or the link is closing: the message is dropped and
        counted, and the originator's retransmission mends it.
        """

    def close(reason: Exception | None = None) -> None:
        """Close in good order.  Its owner hears `link_closed` exactly once."""


class ILinkOwner(Interface):
    """The only door by which bytes come into a node."""

    def link_opened(link: ILink) -> None:
        """`link` is up and its Node-ID is proved."""

    def message_received(link: ILink, message: bytes) -> None:
        """A whole message, its framing taken off, came in on `link`.

        One larger than max-message-size comes cut off: its forwarding header and at least the message code,
        so that the error can be sent; `link` closes after this (RFC 6940 §6.6).
        """

    def link_failing(link: ILink) -> None:
        """ACKs are overdue: `link` must not be routed over for now (RFC 6940 §6.6.5)."""

    def link_recovered(link: ILink) -> None:
        """ACKs came again on a link that was failing."""

    def link_closed(link: ILink, reason: Exception | None) -> None:
        """`link` is gone; nothing more comes from it."""

    def messages_undelivered(link: ILink, messages: Sequence[bytes]) -> None:
        """No ACK came for `messages` until `link` was failing, or was closed; each is told at most once."""

    def link_rejected(cause: str, address: str) -> None:
        """A connection was refused before it became a link (handshake, certificate); for the counters."""


class IApplicationConnection(Interface):
    """A secured connection between two nodes for an application's own protocol (RFC 6940 §6.5.2)."""

    node_id: NodeId = Attribute("Who is at the other end, as its certificate proves.")
    identity: Identity = Attribute("The certificate that the other end showed.")
    application: int = Attribute("The Application-ID.")
    address: str = Attribute("The other end's address, for people.")

    def start(protocol: IProtocol) -> None:
        """Hand the connection to `protocol`; what came in meanwhile is delivered first."""

    def close() -> None:
        """Close in good order, also when no protocol was started."""


class ILinkProtocol(Interface):
    """One kind of overlay link at work in one node."""

    name: str = Attribute("As RFC 6940 names it: 'TLS-TCP-FH-NO-ICE'.")
    link_type: int = Attribute("Its OverlayLinkType.")
    addresses: Sequence[str] = Attribute("Where it listens, for people; empty before `listen`.")

    def listen() -> Deferred[None]:
        """Take incoming links from now on.  Fails with p2psip.errors.LinkError naming address and port."""

    def stop() -> Deferred[None]:
        """Listen no more and close every link."""

    def candidates() -> Sequence[IceCandidate]:
        """Where others can reach this node, for Attach requests and answers."""

    def connect(candidates: Sequence[IceCandidate], expected: NodeId) -> Deferred[ILink]:
        """Open a link to whichever of `candidates` answers first; its certificate must name `expected`.

        The owner hears `link_opened` before this fires.  Fails with LinkError; the caller sets the time limit, by
        cancelling.
        """

    def connect_to_bootstrap(address: str, port: int) -> Deferred[ILink]:
        """Open a link to whatever valid node of the overlay is there (RFC 6940 §11.4); otherwise as `connect`."""

    def offer_application(expected: NodeId, application: int) -> (
        tuple[Sequence[IceCandidate], Deferred[IApplicationConnection]]
    ):
        """Take one application connection from `expected`: the candidates to send it, and the connection.

        The offer stands for 10 s; then the Deferred fails with LinkError.  Cancel it to withdraw the offer.

        :raises p2psip.errors.LinkError: too many offers stand already, or there is no port to be had.
        """

    def connect_application(
        candidates: Sequence[IceCandidate], expected: NodeId, application: int
    ) -> Deferred[IApplicationConnection]:
        """Open the application connection that `expected` offered with `candidates`.  Fails with LinkError."""


class ILinkHost(Interface):
    """What a node lends a link protocol."""

    owner: ILinkOwner = Attribute("Who is told of links and messages.")
    signer: ISigner = Attribute("Our identity.")
    private_key: PrivateKey = Attribute("Our key, for the TLS handshake.")
    trust: Trust = Attribute("Judges the certificate of the other end: `trust.identify(der, intermediates)`.")
    configuration: Configuration = Attribute("The current configuration document.")
    clock: IReactorTime = Attribute("The time.")
    random: Random = Attribute("Chance.")


class ILinkProtocolFactory(IPlugin):
    """What a link package offers to `twisted.plugin`."""

    name: str = Attribute("The protocol's name.")
    link_type: int = Attribute("Its OverlayLinkType.")
    ice: bool = Attribute("Whether it is for overlays with ICE; a node takes those that fit the document's no-ice.")

    def build(
        host: ILinkHost, reactor: Any, addresses: Sequence[str], port: int, advertise: Sequence[str] = ()
    ) -> ILinkProtocol:
        """Make the link protocol of one node, to be bound to `addresses` (none: to all) and `port`.

        Candidates name the addresses in `advertise`, if there are any; else the bound ones.  `reactor` is what
        the node was given as its clock: in a service Twisted's reactor, with every interface for the network.
        """


# -- Forwarding and Link Management ---------------------------------------------------------------------


class IConnectionTable(Interface):
    """The Connection Table: which nodes there are direct links to, and how to get another."""

    def link_to(node_id: NodeId) -> ILink | None:
        """The open link to `node_id`, if there is one and it is not failing."""

    def connected() -> Sequence[NodeId]:
        """Every node with an open link that is not failing."""

    def attach(destination_list: Sequence[Destination], send_update: bool = False) -> Deferred[NodeId]:
        """Exchange Attach with the node at `destination_list` and wait for the link; answers who that is.

        At once where the list names a node that is connected already (and no Update is asked for).
        Fails with RELOADError or LinkError.
        """


class IMessaging(Interface):
    """The Message Transport: requests and their answers (RFC 6940 §6.2)."""

    def request(
        destination_list: Sequence[Destination],
        body: Struct,
        signer: ISigner | None = None,
        certificates: Sequence[bytes] = (),
    ) -> Deferred[Answer]:
        """Send `body` as a signed request, retransmitting it as RFC 6940 §6.2.1 says.

        `signer` is the node's own unless given; `certificates` (DER) are those of the values within.
        Fails with the RELOADError that the answer carries, or with one of this node's: RequestTimeout where no answer
        came or the node stops, MessageTooLarge, TooManyRequests.
        """


# -- Topology Plug-in -----------------------------------------------------------------------------------


class ITopologyHost(IMessaging):
    """What a node lends its topology plug-in; the plug-in knows nothing more of it."""

    node_id: NodeId = Attribute("Our own.")
    configuration: Configuration = Attribute("The current configuration document.")
    connections: IConnectionTable = Attribute("The Connection Table.")
    clock: IReactorTime = Attribute("The time.")
    random: Random = Attribute("Chance.")

    def hand_over(joining_peer: NodeId, low: bytes, high: bytes) -> Deferred[None]:
        """Store to `joining_peer` every resource in (low, high] (RFC 6940 §10.5, step 6).

        Also before a Leave, to who will be responsible.  What comes to be stored there meanwhile goes along.  Fails
        with the error with which that peer could not be reached.
        """

    def bootstrap_peers() -> Deferred[Sequence[NodeId]]:
        """Repeat the discovery of the first join (RFC 6940 §11.4, §10.7.4.4): who of the overlay is there?

        Answers bootstrap nodes, cached or configured, to which there is a link now; best those that may be on
        the other side of a partition, and none where there are none.  Never fails.
        """

    def responsibility_changed() -> None:
        """Neighbors or our span have changed: replicate, and forget what is no longer ours to keep (§10.7.3)."""

    def lost_overlay() -> None:
        """No successor is left: the node has to join again (RFC 6940 §10.7.1)."""


class ITopologyPlugin(Interface):
    """An overlay algorithm at work in one node (RFC 6940 §6.4).

    It is built before there are links, and asked from then on.  Its Update and its answer to RouteQuery have the
    structures of CHORD-RELOAD (`p2psip.wire.chord`): no others are read from the wire as yet.
    """

    joined: bool = Attribute("Whether this node is part of the overlay now.")

    def resource_id(name: bytes) -> ResourceId:
        """Hash a Resource Name into the overlay's space."""

    def is_responsible(target: bytes) -> bool:
        """Whether this node is the responsible peer of `target` (a Resource-ID or a Node-ID)."""

    def next_hop(target: bytes, previous_hop: NodeId | None = None) -> NodeId | None:
        """The neighbor to forward to for `target`, rather not back to `previous_hop`; None if ours, or nobody."""

    def routes_over(node_id: NodeId) -> bool:
        """Whether the link to `node_id` is needed to route messages: it is a neighbor or a finger."""

    def replica_set(resource: ResourceId) -> Sequence[NodeId]:
        """The other peers that should hold copies of `resource`, when this node is responsible for it."""

    def replica_expected(resource: ResourceId, sender: NodeId) -> bool:
        """Whether this node should hold a copy of `resource`, and `sender` may bring it (RFC 6940 §7.4.1.1)."""

    def still_keeps(resource: ResourceId) -> bool:
        """Whether this node is responsible for `resource` or within its replica set (RFC 6940 §10.7.3)."""

    def answers_for(resource: bytes, signer: NodeId) -> bool:
        """Whether an answer from `signer` for `resource` is believable: nobody nearer is known (§6.3.4)."""

    def join() -> Deferred[None]:
        """Become a peer: a bootstrap link is up.

        Fails with RELOADError or LinkError when that cannot be done now; it is called again, after a pause.
        """

    def found() -> None:
        """Become the first peer of the overlay, responsible for everything; also anew, when all others are lost."""

    def leave() -> Deferred[None]:
        """Cease to be a peer: hand the data on and tell the neighbors.  Never fails."""

    def answer_join(request: Request) -> Struct | Deferred[Struct]:
        """Answer a Join; this and the following raise (or fail with) the RELOADError to answer instead."""

    def answer_leave(request: Request) -> Struct | Deferred[Struct]:
        """Answer a Leave."""

    def answer_update(request: Request) -> Struct | Deferred[Struct]:
        """Answer an Update."""

    def answer_route_query(request: Request) -> Struct | Deferred[Struct]:
        """Answer a RouteQuery."""

    def update_requested(node_id: NodeId) -> None:
        """`node_id` attached with send_update: send it an Update of type full."""

    def responsible_ppb() -> int:
        """The part of the ring that this node is responsible for, in parts per billion (RFC 6940 §6.4.2.5)."""

    def link_opened(node_id: NodeId) -> None:
        """A node was connected."""

    def link_closed(node_id: NodeId) -> None:
        """The link to a node was lost or is failing; the node may be dead."""

    def status() -> Mapping[str, Any]:
        """For `status --json`: at least neighbors {predecessors, successors} and fingers, Node-IDs in hex."""

    def stop() -> None:
        """Stop every timer, telling nobody (after `leave`, or when the process ends at once), for good."""


class ITopologyFactory(IPlugin):
    """What a topology package offers to `twisted.plugin`."""

    name: str = Attribute("The ``topology-plugin`` element's text, such as 'CHORD-RELOAD'.")

    def build(host: ITopologyHost) -> ITopologyPlugin:
        """Make the plug-in of one node.

        :raises ValueError: it cannot support the configuration, such as the length of its Node-IDs.
        """

    def build_client(host: ITopologyHost) -> ITopologyPlugin:
        """Make the same for a client (RFC 6940 §4.2): it is responsible for nothing, and no hop of others."""


# -- Storage ----------------------------------------------------------------------------------------------


class IAccessPolicy(IPlugin):
    """Who may write what, where (RFC 6940 §7.3)."""

    name: str = Attribute("As a Kind names it: 'USER-NODE-MATCH'.")

    def permits(
        signer: SignedBy,
        resource: ResourceId,
        kind: Kind,
        value: StoredData,
        resource_id: Callable[[bytes], ResourceId],
    ) -> bool:
        """Whether `signer` may write `value` at `resource`; `resource_id` is the overlay's hash.

        Asked of the signer of each value and of the sender of a Store, where it is stored, copied and fetched: it
        may look at its arguments alone, and must not raise, whatever a stranger put into `value`.
        """


@dataclass(frozen=True, slots=True)
class FetchedValue:
    """One value of a Fetch, its signature and access verified."""

    data: StoredData
    signer: SignedBy


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a Store: the new generation counter and the peers that hold copies."""

    generation: int
    replicas: Sequence[NodeId] = field(default=())


# -- Messaging Service Boundary ---------------------------------------------------------------------------


class IOverlay(IMessaging):
    """All that a Usage sees of a node."""

    node_id: NodeId = Attribute("Our own.")
    configuration: Configuration = Attribute("The current configuration document.")
    signer: ISigner = Attribute("The node's own identity.")
    clock: IReactorTime = Attribute("The time.")
    random: Random = Attribute("Chance.")

    def resource_id(name: bytes) -> ResourceId:
        """Hash a Resource Name into the overlay's space."""

    def store(
        name: bytes,
        kind_id: int,
        values: Sequence[Struct],
        lifetime: int,
        signer: ISigner | None = None,
        generation: int = 0,
    ) -> Deferred[Stored]:
        """Sign and store `values` (DataValue, ArrayEntry or DictionaryEntry, as the Kind wants) under `name`.

        `lifetime` is in seconds.  `signer` is the node's own unless given; it signs the values and the
        request.  With `generation` it is done only while the generation counter is that (RFC 6940 §7.4.1); 0 does
        not ask.  Fails as `request`.
        """

    def fetch(name: bytes, kind_id: int, keys: Sequence[bytes] = ()) -> Deferred[Sequence[FetchedValue]]:
        """Every existing, verified value of a Kind under `name`; for a dictionary only `keys`, if any are
        given.

        Values that are not believable are left out and counted.  Fails as `request`, and with UnknownKind where the
        overlay has no such Kind.
        """

    def app_attach(node_id: NodeId, application: int) -> Deferred[IApplicationConnection]:
        """Open a secured connection to `node_id` for an application's own protocol (RFC 6940 §6.5.2).

        Fails with RELOADError or LinkError.
        """

    def count(cause: str) -> None:
        """Count something refused, for `status --json` under `rejected`."""


class IUsage(Interface):
    """An application of the overlay, at work in one node (RFC 6940 §5.2)."""

    def start() -> Deferred[None]:
        """Begin: the node has joined.  Called again, with no `stop` between, after the node had to join anew.

        A failure is logged, and changes nothing else.
        """

    def stop() -> Deferred[None]:
        """Withdraw what was stored and end: the node leaves as soon as this fires.  Never fails.

        Not called where `start` never was.
        """

    def application_connected(connection: IApplicationConnection) -> None:
        """Another node opened a connection for this usage's application."""


class IUsageFactory(IPlugin):
    """What a usage package offers to `twisted.plugin`."""

    name: str = Attribute("Short and unique: 'sip', 'turn', 'certificate'.")
    kinds: Sequence[Kind] = Attribute(
        "The Kinds it defines: an overlay that is founded where it is installed has them from the first; "
        "`p2psip authority publish` brings them into one that is there."
    )
    applications: Sequence[int] = Attribute("Its Application-IDs for AppAttach, which no other usage may have.")

    def build(overlay: IOverlay) -> IUsage:
        """Make the usage of one node."""
