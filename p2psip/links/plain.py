"""Attach and AppAttach without ICE: one end listens, the other connects (RFC 6940 §6.5.1.11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from ..errors import LinkError
from ..ids import NodeId
from ..interfaces import IApplicationConnection, ILink, INegotiation
from ..wire.methods import IceCandidate


class Listening(Protocol):
    """What links without ICE offer for their negotiations."""

    def candidates(self) -> Sequence[IceCandidate]:
        """Where others can reach this node."""

    def connect(self, candidates: Sequence[IceCandidate], expected: NodeId) -> Deferred[ILink]:
        """Open a link to whichever of `candidates` answers first; its certificate must name `expected`."""

    def offer_application(
        self, expected: NodeId, application: int
    ) -> tuple[Sequence[IceCandidate], Deferred[IApplicationConnection]]:
        """Take one application connection from `expected`: the candidates to send it, and the connection.

        The offer stands for 10 s; then the Deferred fails with LinkError.  Cancel it to withdraw the offer.

        :raises LinkError: too many offers stand already, or there is no port to be had.
        """

    def connect_application(
        self, candidates: Sequence[IceCandidate], expected: NodeId, application: int
    ) -> Deferred[IApplicationConnection]:
        """Open the application connection that `expected` offered with `candidates`."""


def negotiate(
    links: Listening, controlling: bool, expected: NodeId | None, application: int | None
) -> Deferred[INegotiation]:
    """`ILinkProtocol.negotiate` of links without ICE."""
    try:
        return succeed(PlainNegotiation(links, controlling, expected, application))
    except LinkError:
        return fail()


@implementer(INegotiation)
class PlainNegotiation:
    """One half of an exchange without ICE: the requester listens, the answerer connects."""

    ufrag = password = b""

    def __init__(
        self, links: Listening, controlling: bool, expected: NodeId | None, application: int | None
    ) -> None:
        self._links = links
        self._controlling = controlling
        self._application = application
        self._offered: Deferred[Any] | None = None
        if controlling and application is not None:
            if expected is None:
                raise LinkError("an application connection is offered to one node")
            self.candidates, self._offered = links.offer_application(expected, application)
        else:
            self.candidates = links.candidates()

    def conclude(
        self, ufrag: bytes, password: bytes, candidates: Sequence[IceCandidate], expected: NodeId
    ) -> Deferred[Any]:
        if self._offered is not None:
            offered, self._offered = self._offered, None
            return offered
        if self._controlling:
            return Deferred()
        if self._application is None:
            return self._links.connect(candidates, expected)
        return self._links.connect_application(candidates, expected, self._application)

    def abandon(self) -> None:
        if self._offered is not None:
            self._offered.addErrback(lambda failure: None).cancel()
            self._offered = None
