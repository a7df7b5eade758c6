"""Searching for fingers (RFC 6940 §10.5, §10.7.2, §10.7.4.2)."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IDelayedCall

from ..ids import NodeId, offset, within
from ..wire.methods import PingReq
from .membership import EXPECTED, Membership, resource, via

SOON = 1.0
"""Seconds after the loss of a finger until another one is sought."""


class FingerSearch:
    """Fills the invalid entries of the Finger Table, one search after the other.

    Entries whose interval the Neighbor Table covers are never sought for: a table larger than log2(N) costs
    nothing.
    """

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._clock = membership.host.clock
        self._periodic: IDelayedCall | None = None
        self._soon: IDelayedCall | None = None
        self._lost: dict[int, None] = {}
        self._searching = False

    def start(self) -> None:
        """Search once in each chord-ping-interval, at random offsets."""
        if self._periodic is None:
            self._rest()

    def _rest(self) -> None:
        host = self._membership.host
        interval = host.configuration.chord_ping_interval
        self._periodic = self._clock.callLater(interval * host.random.uniform(0.75, 1.25), self._refresh)

    def _refresh(self) -> None:
        """Each invalid entry is sought with probability 0.5, from i = 1 (RFC 6940 §10.7.4.2, alternative 1).
        """
        chance = self._membership.host.random
        chosen = [i for i in self._membership.table.missing_fingers() if chance.random() < 0.5]
        self._begin(chosen)
        self._rest()

    def lost(self, node_id: NodeId) -> None:
        """A member was lost: if it was the only one for its finger, another one is sought (RFC 6940 §10.7.2).
        """
        membership = self._membership
        i = membership.table.finger_index(node_id)
        reactive = membership.host.configuration.chord_reactive
        if membership.speaks and reactive and i <= membership.table.finger_count():
            self._lost[i] = None
            if self._soon is None:
                delay = SOON * membership.host.random.uniform(1, 2)
                self._soon = self._clock.callLater(delay, self._replace)

    def _replace(self) -> None:
        self._soon = None
        lost, self._lost = self._lost, {}
        self._begin(i for i in sorted(lost) if self._membership.table.missing(i))

    def _begin(self, entries: Iterable[int]) -> None:
        if not self._searching and self._membership.speaks:
            self._searching = True
            self._membership.start(self._search(list(entries)))

    async def _search(self, entries: list[int]) -> None:
        """Ping a random place within each entry's interval; whoever answers and lies in it becomes the
        finger.
        """
        membership = self._membership
        host, table = membership.host, membership.table
        try:
            for i in entries:
                if table.finger(i) is not None:
                    continue
                first, last = table.finger_interval(i)
                target = offset(first, host.random.randrange(1 << (8 * len(first) - i)))
                try:
                    found = (await host.request(resource(target), PingReq())).signer.node_id
                    valid = found != membership.me and within(found, offset(first, -1), last)
                    if valid and found not in table:
                        await host.connections.attach(via(found), send_update=True)
                except EXPECTED:
                    pass
        finally:
            self._searching = False

    async def fill(self, admitting: NodeId) -> None:
        """What a Joining Node does: Attach to n + 2^(128-i) for every i (RFC 6940 §10.5), as far as it makes
        sense.
        """
        membership = self._membership
        connections, table = membership.host.connections, membership.table
        i = 1
        while i <= table.finger_count() and not membership.stopped:
            if table.missing(i):
                try:
                    target = resource(table.finger_interval(i)[0], admitting)
                    await connections.attach(target, send_update=True)
                except EXPECTED:
                    pass
            i += 1

    def stop(self) -> None:
        """Search no more."""
        for call in (self._periodic, self._soon):
            if call is not None and call.active():
                call.cancel()
        self._periodic = self._soon = None
