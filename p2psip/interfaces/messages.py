"""What is handed from floor to floor, and the Message Transport (RFC 6940 §6.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from zope.interface import Interface

from ..security.identity import SignedBy
from ..security.interfaces import ISigner

if TYPE_CHECKING:
    from ..ids import NodeId
    from ..wire.codec import Struct
    from ..wire.contents import MessageExtension
    from ..wire.header import Destination


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

Extender = Callable[[Request], "MessageExtension | None"]
"""What the answer to a request gets for an extension of the request, if anything; it must not raise."""


class IMessaging(Interface):
    """The Message Transport: requests and their answers (RFC 6940 §6.2)."""

    def request(
        destination_list: Sequence[Destination],
        body: Struct,
        signer: ISigner | None = None,
        certificates: Sequence[bytes] = (),
        extensions: Sequence[MessageExtension] = (),
    ) -> Deferred[Answer]:
        """Send `body` as a signed request, retransmitting it as RFC 6940 §6.2.1 says.

        `signer` is the node's own unless given; `certificates` (DER) are those of the values within.
        Fails with the RELOADError that the answer carries, or with one of this node's: RequestTimeout where no answer
        came or the node stops, MessageTooLarge, TooManyRequests.
        """
