"""What a simulation asks of a Topology Plug-in, beside what a node does."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import Interface

from ..ids import NodeId


class ISettled(Interface):
    """A topology that can begin in the middle: with the tables that it would have come to in time."""

    def places(everyone: Sequence[NodeId]) -> Sequence[NodeId]:
        """Which of the overlay's peers, sorted, this one would attach to itself, if it knew them all."""

    def settle(everyone: Sequence[NodeId]) -> None:
        """Be a peer among `everyone` from now on, telling nobody; there are links to the `places`, at least."""
