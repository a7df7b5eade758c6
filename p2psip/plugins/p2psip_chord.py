"""CHORD-RELOAD, offered to `twisted.plugin`."""

from __future__ import annotations

from twisted.plugin import IPlugin
from zope.interface import implementer

from ..interfaces import ITopologyFactory, ITopologyHost, ITopologyPlugin
from ..topology.chord import Chord
from ..topology.client import ChordClient


@implementer(IPlugin, ITopologyFactory)
class ChordFactory:
    """Makes peers and clients of CHORD-RELOAD overlays."""

    name = "CHORD-RELOAD"

    def build(self, host: ITopologyHost, neighbors: int | None = None) -> ITopologyPlugin:
        """The plug-in of one peer; with so many predecessors and successors, if that is not to follow the overlay."""
        return Chord(host, neighbors)

    def build_client(self, host: ITopologyHost) -> ITopologyPlugin:
        """The plug-in of one client."""
        return ChordClient(host)


chord = ChordFactory()
