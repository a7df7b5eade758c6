"""Overlay links, and the connections of applications (RFC 6940 §6.5, §6.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.plugin import IPlugin
from zope.interface import Attribute, Interface

from ..security.interfaces import ISigner

if TYPE_CHECKING:
    from ..config.document import Configuration
    from ..ids import NodeId
    from ..security.certificates import PrivateKey
    from ..security.identity import Identity
    from ..security.trust import Trust
    from ..wire.header import Destination
    from ..wire.methods import IceCandidate


class ILink(Interface):
    """One secured connection to a neighbor, carrying whole RELOAD messages."""

    node_id: NodeId = Attribute("Who is at the other end, as its certificate proves.")
    identity: Identity = Attribute("The certificate that the other end showed.")
    protocol: str = Attribute("The link protocol's name, such as 'TLS-TCP-FH-NO-ICE'.")
    address: str = Attribute("The other end's address, for people: '127.0.0.2:6084' or '[::1]:6084'.")
    outgoing: bool = Attribute("Whether we opened it.")
    candidate_pair: str = Attribute("The addresses of both ends, for people; with ICE the candidate pair chosen.")
    listening: str = Attribute("Where the other end takes new links, as far as this end knows; else empty.")
    rtt: float | None = Attribute("Smoothed round-trip time, seconds (RFC 6298); None before the first ACK.")

    def send(message: bytes) -> bool:
        """Queue `message`.  The link frames it, numbers it and sees it acknowledged.

        Answers False when the bounded queue is full or the link is closing: the message is dropped and
        counted, and the originator's retransmission mends it.
        """

    def close(reason: Exception | None = None) -> None:
        """Close in good order.  Its owner hears `link_closed` exactly once."""


class IPathProbe(ILink):
    """A link over datagrams, for whoever finds out how large they may be on its path (RFC 8899)."""

    mtu: int = Attribute("Bytes of a message that go whole: in one datagram, as far as the path is known.")
    path_shrunk: Callable[[], object] = Attribute(
        "To be set; called when large messages did not arrive any more, and `mtu` is the least again."
    )

    def probe(message: bytes) -> Deferred[bool]:
        """Send `message` once, in one datagram that nobody on the way may fragment; `mtu` grows if its ACK comes.

        Answers whether it came in time.  Fails with LinkError where that could not tell anything of the path: the link
        is failing or closing, a probe is under way, or `message` is larger than any may be.
        """


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
    protocol: str = Attribute("What carries it, for people: 'TLS-TCP' or 'DTLS-UDP'.")
    candidate_pair: str = Attribute("The candidate pair that ICE chose, for people; empty without ICE.")
    is_open: bool = Attribute("Whether it has not ended.")
    record_size: int | None = Attribute(
        "Most bytes of one write: over datagrams each is a record, received whole by one dataReceived, or lost, or "
        "out of order; an empty one is not sent.  None: a stream."
    )

    def start(protocol: IProtocol) -> None:
        """Hand the connection to `protocol`; what came in meanwhile is delivered first."""

    def close() -> None:
        """Close in good order, also when no protocol was started."""


class INegotiation(Interface):
    """Our half of one Attach or AppAttach exchange (RFC 6940 §6.5.1.3)."""

    ufrag: bytes = Attribute("The username fragment to send; empty without ICE.")
    password: bytes = Attribute("The ICE password to send; empty without ICE.")
    candidates: Sequence[IceCandidate] = Attribute("The candidates to send.")

    def conclude(
        ufrag: bytes, password: bytes, candidates: Sequence[IceCandidate], expected: NodeId
    ) -> Deferred[Any]:
        """Make the connection from what the other end sent; its certificate must name `expected`.

        Answers the ILink, of which the owner hears `link_opened` before, or the IApplicationConnection.  Without ICE
        the end that sent the request only waits for the other: then of a link the owner hears, and nothing comes of
        this.  Fails with LinkError, which says why no candidate would do; the caller may set a shorter time limit,
        by cancelling.
        """

    def abandon() -> None:
        """Free what was made; for an exchange that comes to nothing.  Harmless after `conclude`."""


class ILinkProtocol(Interface):
    """One kind of overlay link at work in one node."""

    name: str = Attribute("As RFC 6940 names it: 'TLS-TCP-FH-NO-ICE'.")
    link_type: int = Attribute("Its OverlayLinkType.")
    addresses: Sequence[str] = Attribute("Where it listens, for people; empty before `listen`.")
    behind_nat: bool | None = Attribute("Whether others see this node at another address; None: that is not known.")

    def listen() -> Deferred[None]:
        """Take incoming links from now on.  Fails with p2psip.errors.LinkError naming address and port."""

    def stop() -> Deferred[None]:
        """Listen no more and close every link."""

    def connect_to_bootstrap(address: str, port: int) -> Deferred[ILink]:
        """Open a link to whatever valid node of the overlay is there (RFC 6940 §11.4).

        The owner hears `link_opened` before this fires.  Fails with LinkError; the caller sets the time limit, by
        cancelling.
        """

    def negotiate(
        controlling: bool, expected: NodeId | None = None, application: int | None = None
    ) -> Deferred[INegotiation]:
        """Begin our half of an Attach, or of an AppAttach for `application`; `controlling` at who sends the request.

        `expected` is who the exchange is with, as far as that is known yet: a Resource-ID does not tell.  It takes a
        second or two at most, for gathering candidates (RFC 6940 §6.5.1.5).  Fails with LinkError.
        """


@dataclass(frozen=True, slots=True)
class Relay:
    """A TURN server and what it takes to use it."""

    address: str
    port: int
    username: str
    password: str = field(repr=False)
    expires: float
    """Seconds since 1970."""


class IRelays(Interface):
    """What finds TURN servers for a node: a usage that provides this as well as `IUsage`."""

    def relay() -> Deferred[Relay | None]:
        """A TURN server of the overlay that may be used for at least a minute more; None where there is none.

        At once where that is known, else after a search of at most three seconds.  Never fails.
        """

    def relay_failed(relay: Relay) -> None:
        """`relay` gave no relayed address: `relay` answers another one, or None, for some minutes."""


class ILinkHost(Interface):
    """What a node lends a link protocol."""

    owner: ILinkOwner = Attribute("Who is told of links and messages.")
    signer: ISigner = Attribute("Our identity.")
    private_key: PrivateKey = Attribute("Our key, for the TLS handshake.")
    trust: Trust = Attribute("Judges the certificate of the other end: `trust.identify(der, intermediates)`.")
    configuration: Configuration = Attribute("The current configuration document.")
    clock: IReactorTime = Attribute("The time.")
    random: Random = Attribute("Chance.")
    relays: IRelays | None = Attribute("Finds TURN servers, where a usage does.")


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
