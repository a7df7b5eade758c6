"""The factories a node is built from, as `twisted.plugin` finds them."""

from __future__ import annotations

from collections.abc import Sequence
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


def installed() -> Plugins:
    """All plug-ins of this and other distributions."""
    return Plugins(
        tuple(getPlugins(ILinkProtocolFactory, plugins)),
        tuple(getPlugins(ITopologyFactory, plugins)),
        tuple(getPlugins(IAccessPolicy, plugins)),
        tuple(getPlugins(IUsageFactory, plugins)),
    )
