"""The seams of SIP: what it needs of the rest of a node, and what the edge offers to a transaction user."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from .digest import DigestCredentials
from .errors import SIPFailure
from .message import Request, Response


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


class Contact(NamedTuple):
    """Where a user can be reached."""

    uri: str
    q: float | None = None
    expires: int = 0
    """Seconds for which this holds."""


class Resolution(NamedTuple):
    """What is known of an AOR elsewhere in the overlay."""

    contacts: tuple[Contact, ...]


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


class IRegistrationStore(Interface):
    """Where the overlay learns which users are at this registrar, and this registrar where others are."""

    def register(aor: str, expires: int) -> Deferred[None]:
        """Phones of `aor` are here for the next `expires` seconds; called for each change and refresh.

        Fails with a SIPFailure, or anything else: the phone gets an error and the old bindings stay.
        """

    def unregister(aor: str) -> Deferred[None]:
        """The last phone of `aor` has gone from here; fails as `register`."""

    def resolve(aor: str) -> Deferred[Resolution]:
        """The contacts of `aor` at all other registrars.

        Fails with NotRegistered (the user exists), UnknownUser or Unavailable.
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

    def ack_received(request: Request, source: Source) -> None:
        """An ACK that ends no transaction: for a 2xx, or a stray."""
