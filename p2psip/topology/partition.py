"""Seeing that the overlay has fallen apart, and healing it (RFC 6940 §10.7.4.4)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..ids import NodeId, offset
from ..wire.methods import PingReq
from .membership import EXPECTED, Membership, resource, via

HURRY = 30.0
"""Seconds to the next check when as many neighbors as one side holds were lost within that time; then
doubled.
"""


class PartitionCheck:
    """Asks a bootstrap node, once in each chord-update-interval, who comes after us.

    That is whoever is responsible for the Resource-ID after our own; a Ping to our own Node-ID would only
    find ourselves.  When it is somebody else than our successor, we attach to him and tell him what we know;
    Updates among neighbors then close the two rings into one.

    When many neighbors are lost at once, or nobody was there to join, it may be the network that is broken:
    then the first checks follow sooner.

    :param met: called with a peer of the other ring, when there is a link to it.
    """

    log = Logger()

    def __init__(self, membership: Membership, met: Callable[[NodeId], None]) -> None:
        self._membership = membership
        self._met = met
        self._periodic: IDelayedCall | None = None
        self._losses: list[float] = []
        self._pause = 0.0

    def start(self) -> None:
        """Check at random offsets from now on."""
        if self._periodic is None:
            self._rest()

    def neighbor_lost(self) -> None:
        """A neighbor was lost."""
        if self._periodic is None or not self._periodic.active():
            return
        table = self._membership.table
        now = self._membership.host.clock.seconds()
        self._losses = [*(when for when in self._losses if now - when < HURRY), now]
        if len(self._losses) >= min(table.neighbors_wanted, len(table.neighbors())):
            self._losses.clear()
            self.hurry()

    def hurry(self) -> None:
        """There may be another ring: make the next checks sooner."""
        if self._periodic is not None and self._periodic.active():
            self._pause = HURRY
            self._periodic.cancel()
            self._rest()

    def _rest(self) -> None:
        host = self._membership.host
        interval: float = host.configuration.chord_update_interval
        if 0 < self._pause < interval:
            interval = self._pause
            self._pause *= 2
        self._periodic = host.clock.callLater(interval * host.random.uniform(0.75, 1.25), self._check)

    def _check(self) -> None:
        if self._membership.speaks:
            self._membership.start(self.check())
        self._rest()

    async def check(self) -> None:
        """Check once."""
        membership = self._membership
        host, me, table = membership.host, membership.me, membership.table
        try:
            bootstrap_peers = [node for node in await host.bootstrap_peers() if node != me]
            if not bootstrap_peers:
                return
            bootstrap = host.random.choice(bootstrap_peers)
            answer = await host.request(resource(offset(me, 1), bootstrap), PingReq())
            found = answer.signer.node_id
            if found == me or found in table.successors[:1]:
                return
            if not membership.connected(found):
                self.log.info("the overlay is partitioned: {node} comes after us, too", node=found.hex())
                await host.connections.attach(via(bootstrap, found), send_update=True)
            self._met(found)
        except EXPECTED:
            pass  # tried again after the interval

    def stop(self) -> None:
        """Check no more."""
        if self._periodic is not None and self._periodic.active():
            self._periodic.cancel()
        self._periodic = None
