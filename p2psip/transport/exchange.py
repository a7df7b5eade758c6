"""One end's part of an Attach or AppAttach exchange, whatever link protocols it speaks (RFC 6940 §6.5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from ..errors import InvalidMessage
from ..ids import NodeId
from ..interfaces import ILinkProtocol, INegotiation
from ..wire.codes import OverlayLinkType
from ..wire.methods import AppAttachAns, AppAttachReq, AttachReqAns, IceCandidate

PASSIVE, ACTIVE = b"passive", b"active"
NO_ICE = frozenset((OverlayLinkType.DTLS_UDP_SR_NO_ICE, OverlayLinkType.TLS_TCP_FH_NO_ICE))

MAX_CANDIDATES = 32
MAX_CONNECTING = 64
"""Connections that are being opened for others at the same time."""
LINK_PATIENCE = 12.0
"""Seconds from the answer to the connection, at either end: ten for ICE or a handshake, two for gathering."""


Parameters = AttachReqAns | AppAttachReq | AppAttachAns
"""What says of its sender's half, in a request as in an answer."""


def choose(protocols: Sequence[ILinkProtocol], candidates: Sequence[IceCandidate]) -> ILinkProtocol:
    """The first of our link protocols that there are candidates for.

    :raises InvalidMessage: there are none, too many, or both such with and such without ICE (§6.5.1.1).
    """
    if len(candidates) > MAX_CANDIDATES:
        raise InvalidMessage("too many candidates")
    if len({candidate.overlay_link in NO_ICE for candidate in candidates}) > 1:
        raise InvalidMessage("candidates with and without ICE")
    for protocol in protocols:
        if _of(protocol, candidates):
            return protocol
    raise InvalidMessage("no candidate of a link protocol spoken here")


def _of(protocol: ILinkProtocol, candidates: Sequence[IceCandidate]) -> Sequence[IceCandidate]:
    return [candidate for candidate in candidates if candidate.overlay_link == protocol.link_type]


class Exchange:
    """Our halves of one exchange: one for each link protocol, until the other end has chosen."""

    def __init__(self, halves: Sequence[tuple[ILinkProtocol, INegotiation]]) -> None:
        self._halves = list(halves)

    @classmethod
    async def begin(
        cls,
        protocols: Sequence[ILinkProtocol],
        controlling: bool,
        expected: NodeId | None = None,
        application: int | None = None,
    ) -> Exchange:
        """See `ILinkProtocol.negotiate`; LinkError where one of `protocols` cannot."""
        exchange = cls([])
        try:
            for protocol in protocols:
                half = await protocol.negotiate(controlling, expected, application)
                exchange._halves.append((protocol, half))
        except BaseException:
            exchange.abandon()
            raise
        return exchange

    @property
    def parameters(self) -> dict[str, Any]:
        """What to send of them: the fields `ufrag`, `password` and `candidates`."""
        halves = [half for _, half in self._halves]
        candidates = [candidate for half in halves for candidate in half.candidates]
        return {
            "ufrag": next((half.ufrag for half in halves if half.ufrag), b""),
            "password": next((half.password for half in halves if half.password), b""),
            "candidates": tuple(candidates[:MAX_CANDIDATES]),
        }

    def conclude(self, theirs: Parameters, expected: NodeId) -> Deferred[Any]:
        """See `INegotiation.conclude`, of the protocol that the other end has chosen.

        :raises InvalidMessage: it has chosen none.
        """
        try:
            chosen = choose([protocol for protocol, _ in self._halves], theirs.candidates)
        except InvalidMessage:
            self.abandon()
            raise
        halves, self._halves = self._halves, []
        for protocol, half in halves:
            if protocol is not chosen:
                half.abandon()
        half = next(half for protocol, half in halves if protocol is chosen)
        return half.conclude(theirs.ufrag, theirs.password, _of(chosen, theirs.candidates), expected)

    def abandon(self) -> None:
        """Give it up."""
        while self._halves:
            self._halves.pop()[1].abandon()
