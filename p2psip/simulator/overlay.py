"""An overlay of real nodes in simulated time: how it begins, who comes and goes, and how it truly is."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from types import MappingProxyType
from typing import Any, cast

from twisted.internet.defer import Deferred

from ..config.defaults import default_configuration
from ..config.document import Configuration
from ..config.kinds import Kind
from ..ids import NodeId
from ..interfaces import ITopologyFactory
from ..links.memory import MemoryLinkFactory, MemoryLinks, MemoryNetwork
from ..node import Node, installed
from ..security.certificates import PrivateKey
from ..storage.store import MemoryStorage
from ..topology.interfaces import ISettled
from ..transport.bootstrap import BootstrapCache
from ..wire.codes import DataModel
from .clock import HeapClock
from .identities import Identities, SimulatedSigner
from .network import Traffic, latency

EPOCH = 1_800_000_000.0
"""When simulated time begins, in seconds since 1970."""

OVERLAY = "simulation.invalid"

KIND = Kind(
    kind_id=0xF0000001, name="", data_model=DataModel.SINGLE, access_control="USER-MATCH", max_count=1, max_size=1000
)
"""What the simulated users store: one value each, in the range of private Kinds."""

BOOTSTRAP_NODES = 4
"""How many bootstrap nodes the configuration document lists."""

CACHED = 3
"""How many living nodes a node that joins knows from its bootstrap cache."""


class Unsettled(Exception):
    """The Topology Plug-in cannot begin in the middle: start with `growth`, or implement `ISettled`."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an overlay is made with; `latency` as `p2psip.simulator.network.latency` reads it."""

    nodes: int
    seed: int = 0
    latency: str = "50ms"
    loss: float = 0.0
    topology: ITopologyFactory
    neighbors: int | None = None
    """How many predecessors and successors each peer has, where `topology` lets that be set; None: as it likes."""
    configuration: dict[str, Any] = field(default_factory=dict)
    """Attributes of the `Configuration` other than a new overlay's."""


class Overlay:
    """The nodes of one simulated overlay, and the truth about them.

    Everything that is drawn comes from the seed, by streams of their own for the nodes, the network and what a
    scenario does: so a scenario that asks for more does not change how the network behaves.

    :ivar nodes: all that live, by Node-ID, in the order in which they came.
    :ivar ring: the Node-IDs of those that are peers, sorted: the truth that tables are compared with.
    :ivar random: chance for scenarios.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.random = self.stream("scenario")
        self.clock = HeapClock(EPOCH)
        network_chance = self.stream("network")
        self.network = MemoryNetwork(
            self.clock, network_chance, latency(setting.latency, network_chance), setting.loss
        )
        self.traffic = self.network.observe = Traffic(self.clock)
        self.identities = Identities(self.stream("identities"))
        self._chance = self.stream("nodes")
        self.nodes: dict[NodeId, Node] = {}
        self.ring: list[NodeId] = []
        self.left = self.joins = 0
        self.start = EPOCH
        """When the simulated time that is reported begins: after the overlay was set up."""
        self.changed: list[Callable[[NodeId, bool], None]] = []
        """Called with each Node-ID that has become a peer (True), or is none any more (False)."""
        self._addresses: dict[NodeId, str] = {}
        self._side: dict[NodeId, int] = {}
        self._rings: dict[int, list[NodeId]] = {}
        self._listed = [self.network.new_address() for _ in range(min(BOOTSTRAP_NODES, setting.nodes))]
        self._free = list(self._listed)
        self.configuration = self._configuration()
        self._plugins = replace(
            installed(), links=(MemoryLinkFactory(self.network),), topologies=(setting.topology,), usages=()
        )

    def stream(self, name: str) -> Random:
        """A source of chance of its own, the same for the same seed and name."""
        return Random(f"{self.setting.seed}/{name}")

    def _configuration(self) -> Configuration:
        nobody = NodeId(bytes(15) + b"\1")
        made = default_configuration(
            OVERLAY,
            root_certificates=(),
            configuration_signer=nobody,
            kind_signer=nobody,
            now=EPOCH,
            bootstrap_nodes=[(address, 6084) for address in self._listed],
            no_ice=True,
        )
        kinds = MappingProxyType({KIND.kind_id: KIND})
        changes = {"kinds": kinds, "topology_plugin": self.setting.topology.name, **self.setting.configuration}
        return replace(made, **changes)

    # -- Who is there --------------------------------------------------------------------------------

    def _make(self, places: Sequence[tuple[str, int]] = ()) -> Node:
        signer = self.identities.make(f"node{len(self._addresses) + 1}@{OVERLAY}")
        address = self._free.pop(0) if self._free else self.network.new_address()
        self.network.revive(address)
        self._addresses[signer.node_id] = address
        node = Node(
            self.configuration,
            signer,
            cast(PrivateKey, None),
            MemoryStorage(),
            self._plugins,
            clock=self.clock,
            now=self.clock.seconds,
            random=Random(self._chance.getrandbits(64)),
            addresses=[address],
            bootstrap_cache=BootstrapCache(places),
            joined=partial(self._joined, signer.node_id),
            verifier=self.identities,
        )
        self.nodes[node.node_id] = node
        return node

    def _joined(self, node_id: NodeId) -> None:
        place = bisect_left(self.ring, node_id)
        if node_id in self.nodes and self.ring[place : place + 1] != [node_id]:
            insort(self.ring, node_id)
            self.joins += 1
            self._tell(node_id, True)

    def _tell(self, node_id: NodeId, peer: bool) -> None:
        self._rings.clear()
        for told in self.changed:
            told(node_id, peer)

    def user(self, name: str, node: Node) -> SimulatedSigner:
        """Who signs for the user `name` at `node`."""
        return self.identities.make(f"{name}@{OVERLAY}", node.node_id, "user")

    def address(self, node: Node) -> str:
        """Where a node is, or was, in the network."""
        return self._addresses[node.node_id]

    def listed(self) -> list[Node]:
        """The nodes that the configuration document lists as bootstrap nodes and that live."""
        return [node for node in self.nodes.values() if self._addresses[node.node_id] in self._listed]

    def some_node(self) -> Node:
        """A peer, drawn at random."""
        return self.nodes[self.random.choice(self.ring)]

    # -- Beginning -----------------------------------------------------------------------------------

    def found(self) -> Node:
        """The first node, alone."""
        node = self._make()
        node.start(found=True)
        return node

    def converge(self) -> Iterator[int]:
        """Make all the nodes, with the tables that they would have come to; answers how many are done, now and then.

        :raises Unsettled: the Topology Plug-in cannot do that.
        """
        nodes = [self._make() for _ in range(self.setting.nodes)]
        everyone = sorted(node.node_id for node in nodes)
        for node in nodes:
            node.listen()
        for done, node in enumerate(nodes, 1):
            self._connect(node, everyone)
            if not done % 100:
                yield done
        for node in nodes:
            self._topology(node).settle(everyone)
        self.ring = everyone
        yield len(nodes)

    def _connect(self, node: Node, everyone: Sequence[NodeId]) -> None:
        for node_id in self._topology(node).places(everyone):
            other = self.nodes[node_id]
            if node.table.link_to(node_id) is None:
                self.network.link(
                    cast(MemoryLinks, node.link_protocols[0]), cast(MemoryLinks, other.link_protocols[0])
                )

    def _topology(self, node: Node) -> ISettled:
        if not ISettled.providedBy(node.topology):
            raise Unsettled(f"{self.setting.topology.name} does not implement ISettled: begin with growth")
        return cast(ISettled, node.topology)

    # -- Coming and going ----------------------------------------------------------------------------

    def add(self) -> Node:
        """A node more, which begins to join over a few peers that it knows."""
        known = self.random.sample(self.ring, min(CACHED, len(self.ring)))
        node = self._make([(self._addresses[node_id], 6084) for node_id in known])
        node.start()
        return node

    def kill(self, node: Node) -> None:
        """End a node as a power failure would: nobody is told."""
        address = self.address(node)
        del self.nodes[node.node_id]
        self.network.kill(address)
        node.stop()
        if address in self._listed:
            self._free.append(address)
        self.left += 1
        place = bisect_left(self.ring, node.node_id)
        if self.ring[place : place + 1] == [node.node_id]:
            del self.ring[place]
            self._tell(node.node_id, False)

    # -- The truth -----------------------------------------------------------------------------------

    def split(self, *sides: Sequence[NodeId]) -> None:
        """The truth has so many rings from now on, because the network is partitioned; with no `sides`, one again."""
        self._side = {node_id: number for number, side in enumerate(sides) for node_id in side}
        self._rings.clear()

    def ring_of(self, node_id: NodeId) -> list[NodeId]:
        """The ring that a node is, or would be, part of."""
        if not self._side:
            return self.ring
        side = self._side.get(node_id, 0)
        if side not in self._rings:
            self._rings[side] = [one for one in self.ring if self._side.get(one, 0) == side]
        return self._rings[side]

    def responsible(self, target: bytes, seen_from: NodeId) -> NodeId:
        """The peer that is responsible for `target`, as all the peers together have it (RFC 6940 §10.1)."""
        ring = self.ring_of(seen_from)
        return ring[bisect_left(ring, target) % len(ring)]

    def successors(self, node_id: NodeId, count: int) -> list[NodeId]:
        """Who comes after a Node-ID, the nearest first."""
        ring = self.ring_of(node_id)
        place = bisect_left(ring, node_id)
        after = place + 1 if ring[place : place + 1] == [node_id] else place
        return [ring[(after + step) % len(ring)] for step in range(min(count, len(ring) - 1))]

    # -- Time ----------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds of simulated time since `start`."""
        return self.clock.seconds() - self.start

    def result(self, deferred: Deferred[Any], within: float) -> list[Any]:
        """What `deferred` comes to within so many seconds: one result or Failure, or none."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        until = self.clock.seconds() + within
        while not results and self.clock.step(until):
            pass
        return results
