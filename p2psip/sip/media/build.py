"""The media relays of one node, put together."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from .anchoring import Media
from .client import RelayClient
from .relays import Relays


def build_media(places: Sequence[tuple[str, int]], name: str, reactor: Any, random: Random) -> Media | None:
    """What uses the rtpengines at `places`, addresses and ports of their ng protocol; None where there are none.

    :param name: of this node, the same after a restart.
    :param reactor: IReactorTime and IReactorUDP.
    """
    if not places:
        return None
    clients = [RelayClient(host, port, reactor, random) for host, port in dict.fromkeys(places)]
    return Media(Relays(clients, reactor), name, reactor.seconds)
