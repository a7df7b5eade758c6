"""A small overlay in memory, for the tests of plug-ins and of p2psip itself.

Real nodes with real signatures, joined by a network in memory, in simulated time: nothing waits and nothing is left
to chance.  ::

    world = World(3)
    first, second, third = world.nodes
    world.result(first.overlay.store(b"alice@example.org", kind_id, [value], 3600, signer=alice))
    world.kill(first)
    world.result(second.overlay.fetch(b"alice@example.org", kind_id))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from types import MappingProxyType
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from .config.accept import publish
from .config.defaults import default_configuration
from .config.document import Configuration
from .config.kinds import Kind
from .config.write import write_document
from .ids import NodeId
from .interfaces import ISigner, IUsageFactory
from .links.memory import MemoryLinkFactory, MemoryNetwork
from .node import Node, installed
from .security.certificates import PrivateKey, generate_key, make_authority
from .security.identity import Identity
from .security.signing import Signer
from .storage.interfaces import IStorage
from .storage.store import MemoryStorage
from .transport.bootstrap import BootstrapCache

T = TypeVar("T")

EPOCH = 1_800_000_000.0
"""When simulated time begins, in seconds since 1970."""
YEAR = 365 * 86400.0


class TooLong(AssertionError):
    """What a test waits for has not come about in the simulated time that it was given."""


@dataclass(frozen=True)
class Credentials:
    """A key, and a signer for the one Node-ID of its certificate."""

    key: PrivateKey
    signer: Signer

    @property
    def node_id(self) -> NodeId:
        return self.signer.node_id


class World:
    """An overlay named `name` of `size` peers, all of them joined, that is the same for the same `seed`.

    `kinds` replace those of a new overlay; `usages` are the usage factories of every node, `settings` attributes of
    the `Configuration` other than the defaults.  `latency` and `loss` are those of the network.
    """

    def __init__(
        self,
        size: int = 0,
        *,
        seed: int = 0,
        name: str = "example.org",
        kinds: Sequence[Kind] | None = None,
        usages: Sequence[IUsageFactory] = (),
        latency: float = 0.01,
        loss: float = 0.0,
        **settings: Any,
    ) -> None:
        self.name = name
        self.clock = Clock()
        self.clock.advance(EPOCH)
        self.random = Random(seed)
        self.network = MemoryNetwork(self.clock, self.random, lambda here, there: latency, loss)
        self.plugins = replace(installed(), links=(MemoryLinkFactory(self.network),), usages=tuple(usages))
        self.authority = make_authority(name, generate_key(), EPOCH, 10 * YEAR)
        self.configuration_signer = self.credentials("configuration@" + name)
        self.configuration = self._first_configuration(kinds, settings)
        self.nodes: list[Node] = []
        self.saved: dict[NodeId, list[bytes]] = {}
        self._made: dict[NodeId, tuple[Credentials, IStorage, BootstrapCache, str]] = {}
        for number in range(size):
            self.add(found=number == 0)
        if size:
            self.until(lambda: all(self.settled(node) for node in self.nodes), 60 + 30 * size)

    def _first_configuration(self, kinds: Sequence[Kind] | None, settings: dict[str, Any]) -> Configuration:
        signer = self.configuration_signer.signer
        bootstrap = ((self.network.new_address(), 6084),)
        made = default_configuration(
            self.name,
            root_certificates=[self.authority.certificate],
            configuration_signer=signer.node_id,
            kind_signer=signer.node_id,
            now=EPOCH,
            bootstrap_nodes=bootstrap,
            no_ice=True,
        )
        if kinds is not None:
            made = replace(made, kinds=MappingProxyType({kind.kind_id: kind for kind in kinds}))
        return publish(replace(made, **settings), signer, signer)

    # -- Identities -----------------------------------------------------------------------------------------

    def credentials(
        self, user_name: str, node_id: NodeId | None = None, role: str = "peer", key: PrivateKey | None = None
    ) -> Credentials:
        """A certificate for `user_name`, with a random Node-ID unless one is given."""
        if node_id is None:
            node_id = NodeId(self.random.randbytes(16))
        key = key or generate_key()
        certificate = self.authority.issue(
            key.public_key(),
            overlay=self.name,
            user_name=user_name,
            node_ids=[node_id],
            role=role,
            now=self.clock.seconds(),
            lifetime=YEAR,
        )
        return Credentials(key, Signer(Identity.from_certificate(certificate, self.name), key))

    def user(self, user_name: str, node: Node) -> ISigner:
        """A signer for a user at `node`: a certificate with the user's name and the node's Node-ID and key."""
        key = self._made[node.node_id][0].key
        return self.credentials(user_name, node.node_id, "user", key).signer

    # -- Nodes ------------------------------------------------------------------------------------------------

    def add(self, credentials: Credentials | None = None, *, found: bool = False, client: bool = False) -> Node:
        """A node more, which begins to join; with `found` it is the first one."""
        number = len(self._made) + 1
        made = credentials or self.credentials(f"node{number}@nodes.{self.name}")
        address = self.configuration.bootstrap_nodes[0][0] if found else self.network.new_address()
        self._made[made.node_id] = (made, MemoryStorage(), BootstrapCache(), address)
        return self._start(made.node_id, found, client)

    def _start(self, node_id: NodeId, found: bool, client: bool, found_after: float | None = None) -> Node:
        credentials, storage, cache, address = self._made[node_id]
        saved = self.saved.setdefault(node_id, [])
        node = Node(
            self.configuration,
            credentials.signer,
            credentials.key,
            storage,
            self.plugins,
            clock=self.clock,
            now=self.clock.seconds,
            random=Random(self.random.getrandbits(64)),
            addresses=[address],
            bootstrap_cache=cache,
            save_configuration=saved.append,
            client=client,
            found_after=found_after,
        )
        self.nodes.append(node)
        self.result(node.start(found))
        return node

    def address(self, node: Node) -> str:
        """Where `node` is in the network."""
        return self._made[node.node_id][3]

    def kill(self, *nodes: Node) -> None:
        """End nodes as a power failure would."""
        for node in nodes:
            self.nodes.remove(node)
            self.network.kill(self.address(node))
            node.stop()

    def restart(self, node: Node, *, found_after: float | None = None) -> Node:
        """Start a node that was killed or has left: the same Node-ID, storage and bootstrap cache.

        With `found_after` it founds the overlay anew after so many seconds in which nobody is part of it.
        """
        if node in self.nodes:
            self.kill(node)
        self.network.revive(self.address(node))
        return self._start(node.node_id, False, False, found_after)

    def leave(self, node: Node) -> None:
        """Have a node leave in good order."""
        self.result(node.leave())
        self.nodes.remove(node)

    # -- Configuration ------------------------------------------------------------------------------------------

    def document(self, signer: Signer | None = None, **settings: Any) -> bytes:
        """A document that follows the current one, with `settings` changed, signed by the configuration-signer."""
        changed = replace(self.configuration, sequence=self.configuration.sequence + 1)
        new = publish(
            replace(changed, **settings), signer or self.configuration_signer.signer, self.configuration_signer.signer
        )
        return write_document(new)

    # -- Time -----------------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let simulated time pass."""
        end = self.clock.seconds() + seconds
        while self._step(end):
            pass

    def until(self, condition: Callable[[], object], seconds: float = 120) -> None:
        """Let simulated time pass until `condition` holds.

        :raises TooLong: it does not within `seconds`.
        """
        end = self.clock.seconds() + seconds
        while not condition():
            if not self._step(end):
                raise TooLong(f"not within {seconds} s of simulated time")

    def _step(self, end: float) -> bool:
        """Go to the next thing that happens; False if that is after `end`, where time stops then."""
        calls = self.clock.getDelayedCalls()
        due = min((call.getTime() for call in calls), default=end + 1)
        self.clock.advance(max(0.0, min(due, end) - self.clock.seconds()))
        return due <= end

    def result(self, deferred: Deferred[T], seconds: float = 120) -> T:
        """What `deferred` comes to; raises what it fails with.

        :raises TooLong: nothing within `seconds` of simulated time.
        """
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.until(lambda: results, seconds)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        found: T = results[0]
        return found

    def settled(self, node: Node) -> bool:
        """Whether `node` has joined and its neighbors are those that it should have."""
        ring = sorted(other.node_id for other in self.nodes if other.joined or other is node)
        place = ring.index(node.node_id)
        neighbors = node.status()["neighbors"]
        wanted = min(3, len(ring) - 1)
        after = [ring[(place + step) % len(ring)].hex() for step in range(1, wanted + 1)]
        before = [ring[(place - step) % len(ring)].hex() for step in range(1, wanted + 1)]
        return (
            node.joined
            and neighbors["successors"][:wanted] == after
            and neighbors["predecessors"][:wanted] == before
        )
