"""The Topology Plug-ins that can be simulated."""

from __future__ import annotations

from inspect import signature
from typing import Any, cast

from zope.interface import implementer

from ..interfaces import ITopologyFactory, ITopologyHost, ITopologyPlugin
from ..node import installed


@implementer(ITopologyFactory)
class Fixed:
    """A factory whose plug-ins have so many neighbors."""

    def __init__(self, factory: ITopologyFactory, neighbors: int) -> None:
        self.name = factory.name
        self._factory = cast(Any, factory)
        self._neighbors = neighbors

    def build(self, host: ITopologyHost) -> ITopologyPlugin:
        plugin: ITopologyPlugin = self._factory.build(host, neighbors=self._neighbors)
        return plugin

    def build_client(self, host: ITopologyHost) -> ITopologyPlugin:
        plugin: ITopologyPlugin = self._factory.build_client(host)
        return plugin


def topology_named(name: str, neighbors: int | None = None) -> ITopologyFactory:
    """The factory with that name, as `twisted.plugin` finds it; with a fixed number of neighbors, if one is given.

    :raises LookupError: there is none, or its number of neighbors cannot be set.
    """
    factories = {factory.name: factory for factory in installed().topologies}
    factory = factories.get(name)
    if factory is None:
        raise LookupError(f"no Topology Plug-in {name} is installed, only {', '.join(sorted(factories))}")
    if neighbors is None:
        return factory
    if "neighbors" not in signature(cast(Any, factory).build).parameters:
        raise LookupError(f"the number of neighbors of {name} cannot be set")
    return Fixed(factory, neighbors)
