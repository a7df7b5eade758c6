"""The factories a node is built from, as `twisted.plugin` finds them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from twisted.plugin import getPlugins

from .. import plugins
from ..interfaces import (
    IAccessPolicy,
    ILinkProtocolFactory,
    ITopologyFactory,
    IUsageFactory,
)


@dataclass(frozen=True)
class Plugins:
    """What a node is made of, beside itself."""

    links: Sequence[ILinkProtocolFactory]
    topologies: Sequence[ITopologyFactory]
    policies: Sequence[IAccessPolicy]
    usages: Sequence[IUsageFactory]


def installed(link_protocols: Collection[str] = ()) -> Plugins:
    """All plug-ins of this and other distributions; of the link protocols only those named, if there are names."""
    return Plugins(
        tuple(
            factory
            for factory in getPlugins(ILinkProtocolFactory, plugins)
            if not link_protocols or factory.name in link_protocols
        ),
        tuple(getPlugins(ITopologyFactory, plugins)),
        tuple(getPlugins(IAccessPolicy, plugins)),
        tuple(getPlugins(IUsageFactory, plugins)),
    )
