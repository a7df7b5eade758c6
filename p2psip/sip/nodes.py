"""The seam between the proxy and the flows to other nodes."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import Interface

from .transport import SIPConnection


class INodes(Interface):
    """The way to other nodes."""

    def flow_to(node_id: bytes) -> Deferred[SIPConnection]:
        """The flow to a node, the one there is or a new one.  Fails with RELOADError or LinkError."""

    def established(node_id: bytes) -> SIPConnection | None:
        """The flow to a node, if there is one."""

    def unanswered(node_id: bytes, seconds: float) -> None:
        """A request got no answer for so long: give the flow up, unless something else was heard over it."""
