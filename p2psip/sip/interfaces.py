"""The seams of SIP: what it needs of the rest of a node, and what the edge offers to a transaction user."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from .digest import DigestCredentials
from .errors import SIPFailure
from .machines import Flow
from .message import Request, Response
from .uri import SIPURI, URI


class DeviceCredential(NamedTuple):
    """What one phone of an account proves itself with."""

    device: str
    algorithm: str
    """One of `p2psip.sip.digest.ALGORITHMS`."""
    ha1: str
    """H(A1) in lower-case hexadecimal (RFC 7616 §3.4.2)."""


class Source(NamedTuple):
    """Where a request came from."""

    host: str
    """An IP address, without brackets."""
    port: int
    transport: str
    """UDP, TCP, TLS or DTLS-UDP."""


class Target(NamedTuple):
    """Where a request is to go."""

    transport: str
    """UDP, TCP or TLS."""
    host: str
    """An IP address, without brackets."""
    port: int
    name: str = ""
    """What a TLS certificate of it has to show (RFC 5922)."""


class Contact(NamedTuple):
    """Where a user can be reached."""

    uri: str
    q: float | None = None
    expires: int = 0
    """Seconds for which this holds."""


class Resolution(NamedTuple):
    """What is known of an AOR elsewhere in the overlay."""

    contacts: tuple[Contact, ...]


class NodeRoute(NamedTuple):
    """A node of an AOR's registration record."""

    node_id: bytes
    """Empty: no node is known of, `aor` is of another domain, or a number."""
    aor: str
    """The AOR that this node serves: another than asked for where calls are forwarded."""
    prefs: str = ""
    """What its devices can do, an expression of RFC 2533; empty: that is not known."""


class ITrunk(Interface):
    """Who knows the secrets that a trunk asks for."""

    def authorization(request: Request, response: Response) -> tuple[str, str] | None:
        """Name and value of the header field that answers `response`, 401 or 407, to `request`; None: there is none."""


class ProxyTarget(NamedTuple):
    """Where a request is passed on to: a phone here, another node, or by RFC 3263 what `uri` names."""

    uri: str
    """The Request-URI that it goes with."""
    q: float | None = None
    node: bytes | None = None
    """A Node-ID: over the flow to that node."""
    source: str = ""
    """Over the flow by which a phone registered: "UDP 192.0.2.1 5060"."""
    trunk: ITrunk | None = None
    """Answers the challenges of this target."""
    headers: tuple[tuple[str, str], ...] = ()
    """Header fields to go along, in place of any of their names."""
    server: Target | None = None
    """The one server to send to, where that is known already."""
    fallback: tuple[ProxyTarget, ...] = ()
    """What to try in this order where the target does not answer."""


class BindingRow(NamedTuple):
    """A binding as it is kept on disk."""

    aor: str
    uri: str
    parameters: str
    """Those of the Contact other than q and expires, as on the wire."""
    q: float | None
    expires_at: float
    """Seconds since the epoch."""
    call_id: str
    cseq: int
    source: str
    """Where it was registered from: "UDP 192.0.2.1 5060"."""
    device: str
    """Whose password registered it."""


class ICredentials(Interface):
    """Who knows what phones prove themselves with."""

    def credentials(
        user: str, authorization: DigestCredentials, method: str
    ) -> Deferred[Sequence[DeviceCredential]]:
        """What `user`'s phones may prove themselves with.

        `authorization` and `method` are the phone's own, for one who hands out secrets only against proof.
        Fails with UnknownUser, Refused (the proof was wrong) or Unavailable of `p2psip.sip.errors`.
        """


class IServerLocator(Interface):
    """Finds the servers of a domain (RFC 3263)."""

    def locate(uri: SIPURI) -> Deferred[Sequence[Target]]:
        """The servers for `uri` in the order to be tried, at least one.  Fails with a SIPFailure."""


class INumbers(Interface):
    """Telephone numbers: whose they are, and the gateways that take others out."""

    def number_of(uri: URI) -> str | None:
        """The number that `uri` stands for, in its normal form such as +493012345; None: it is none."""

    def is_emergency(number: str) -> bool:
        """Whether it is one that nobody may be kept from calling."""

    def called(request: Request) -> str | None:
        """The number that a request of a trunk is for, which may stand in another place than the Request-URI."""

    def user_of(number: str) -> Deferred[str | None]:
        """The AOR of the account that has this number.  Fails with Unavailable."""

    def gateways(number: str, caller: str = "") -> Deferred[Sequence[ProxyTarget]]:
        """Where calls to it go out, in the order to be tried: trunks of this node, and other nodes.

        `caller` is the AOR of the user who calls: its number is what a trunk is told.  Fails with Unavailable.
        """

    def from_trunk(source: Source) -> bool:
        """Whether `source` is a trunk of this node."""


class IMedia(Interface):
    """The media relay of this node, for phones behind NATs."""

    def wanted(request: Request, caller: Source | None, callee_source: str, callee_uri: str) -> bool:
        """Whether the media of a new branch have to go through the relay.

        `caller` is None where the caller's phone is not served here; `callee_source` is empty where the callee's is
        not, else as in `ProxyTarget.source`.
        """

    def request_passes(request: Request, branch: str, sender: Source | None) -> Deferred[None]:
        """`request` is about to go out; its body may be replaced.  Never fails.

        `sender` is the phone that it comes from; None: that is not served here.
        """

    def response_passes(
        response: Response, request: Request, branch: str, sender: Source | None
    ) -> Deferred[None]:
        """`response` to `request`, as that went out, is about to go back; its body may be replaced.  Never fails.

        `sender` is the phone that `response` comes from; None: that is not served here.
        """

    def ended(call_id: str, from_tag: str, to_tag: str | None, branch: str) -> None:
        """A call is over, or one branch of it."""


class IRegistrationStore(Interface):
    """Where the overlay learns which users are at this registrar, and this registrar where others are."""

    def register(aor: str, expires: int, prefs: str = "") -> Deferred[None]:
        """Phones of `aor` are here for the next `expires` seconds; called for each change and refresh.

        `prefs` is what they can do, see `p2psip.sip.features`; empty: that is not known.

        Fails with a SIPFailure, or anything else: the phone gets an error and the old bindings stay.
        """

    def unregister(aor: str) -> Deferred[None]:
        """The last phone of `aor` has gone from here; fails as `register`."""

    def resolve(aor: str) -> Deferred[Resolution]:
        """The contacts of `aor` at all other registrars.

        Fails with NotRegistered (the user exists), UnknownUser or Unavailable.
        """

    def forwarded(aor: str) -> bool:
        """Whether calls for `aor` go elsewhere by the will of its user, as told to this node."""

    def routes(aor: str) -> Deferred[Sequence[NodeRoute]]:
        """The nodes where `aor` is registered, this one included; where it is forwarded, those of the other AOR.

        Fails as `resolve`.
        """


class IBindingJournal(Interface):
    """Keeps bindings over a restart."""

    def save(aor: str, rows: Sequence[BindingRow]) -> None:
        """`rows` are all bindings of `aor` now."""

    def load() -> Iterable[BindingRow]:
        """All that was saved and not replaced since."""


class IServerRequest(Interface):
    """A request that came in, and the way back."""

    request: Request = Attribute("The request, its source noted in the topmost Via.")
    source: Source = Attribute("Where it came from.")
    answered: bool = Attribute("Whether a final response has been given.")
    cancels: IServerRequest | None = Attribute("For a CANCEL: the INVITE that it means, if it is known.")
    flow: Flow = Attribute("What it came over.")
    context: Any = Attribute("The transaction user's own, kept with the transaction; None at first.")

    def respond(response: Response, stateless: bool = False) -> None:
        """Send `response`; ignored after a final one.  `stateless`: forget the request with it (for challenges)."""


class IResponseUser(Interface):
    """Who sent a request: the user of a client transaction (RFC 3261 §17.1)."""

    def response_received(response: Response) -> None:
        """A response came, provisional or final; to an INVITE also each 2xx that comes later."""

    def request_failed(error: SIPFailure) -> None:
        """No final response comes any more: TransactionTimeout or TransportFailure."""


class ITransactionUser(Interface):
    """What serves requests: the core above the transaction layer (RFC 3261 §5)."""

    def request_received(incoming: IServerRequest) -> None:
        """A new request, to be answered now or later.  A SIPParseError that it raises is answered for it."""

    def ack_received(request: Request, flow: Flow) -> None:
        """An ACK that ends no transaction came over `flow`: for a 2xx, or a stray."""
