"""The proxy of one node, put together."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2s
from random import Random
from typing import Final, NamedTuple

from ..authentication import Authenticator
from ..domain import Domain
from ..edge import SIPEdge
from ..interfaces import IMedia, INumbers, IRegistrationStore, IServerLocator
from ..nodes import INodes
from ..registrar import Registrar
from .forwarding import Forwarding
from .identity import Callers
from .proxy import Proxy, Respond
from .targets import Targets
from .tokens import TokenMint

NODES: Final = "nodes"
"""The subdomain whose hosts are nodes, by the hexadecimal Node-ID, in Record-Route between them."""


class Beyond(NamedTuple):
    """What a proxy may know beside phones and nodes; what is None it does without."""

    servers: IServerLocator | None = None
    """Finds other domains."""
    numbers: INumbers | None = None
    media: IMedia | None = None


def build_proxy(
    domain: Domain,
    node_id: bytes,
    authenticator: Authenticator,
    registrar: Registrar,
    store: IRegistrationStore,
    nodes: INodes,
    edge: SIPEdge,
    respond: Respond,
    secret: bytes,
    clock: Callable[[], float],
    random: Random,
    beyond: Beyond,
) -> Proxy:
    """Make a proxy.

    :param secret: of this node, the same after a restart, so that dialogs go on.
    :param respond: `SIPServer.respond`.
    :param clock: the time in seconds since the epoch.
    """
    mint = TokenMint(_key(secret, b"route"))
    own_host = f"{node_id.hex()}.{NODES}.{domain.name}"
    return Proxy(
        domain,
        Callers(domain, authenticator),
        Targets(domain, registrar, store, node_id, beyond.numbers),
        Forwarding(edge, nodes, beyond.servers, beyond.media, mint, own_host, random),
        mint,
        edge,
        own_host,
        _key(secret, b"loop"),
        respond,
        clock,
        beyond.numbers,
        beyond.media,
    )


def _key(secret: bytes, purpose: bytes) -> bytes:
    return blake2s(blake2s(secret).digest(), digest_size=32, person=purpose).digest()
