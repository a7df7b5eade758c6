"""Getting into the overlay and back into it: bootstrap, join, and again with back-off for ever (RFC 6940 §11.4)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.document import Configuration
from ..errors import LinkError, RELOADError
from ..interfaces import Answer, ITopologyPlugin
from ..transport.bootstrap import Bootstrap
from ..transport.connections import ConnectionTable
from ..wire.codes import ProbeInformationType
from ..wire.header import NodeDestination
from ..wire.methods import ProbeReq, ResponsibleSet

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
LOOK_AROUND = 5.0
"""Seconds between two looks for somebody who is part of the overlay."""


class Membership:
    """Keeps one node a member of its overlay.

    `joined` is called each time that the node has become one.  Where nobody who is part of the overlay has been met
    for `found_after` seconds this node founds it anew; None: it never does (only a node that holds the authority
    may).  Others that are only on their way in, too, do not count: after a power failure all of them are.
    """

    log = Logger()

    def __init__(
        self,
        topology: ITopologyPlugin,
        table: ConnectionTable,
        bootstrap: Bootstrap,
        configuration: Callable[[], Configuration],
        joined: Callable[[], None],
        request: Callable[..., Deferred[Answer]],
        clock: IReactorTime,
        random: Random,
        found_after: float | None,
    ) -> None:
        self._topology = topology
        self._table = table
        self._bootstrap = bootstrap
        self._configuration = configuration
        self._joined = joined
        self._request = request
        self._clock = clock
        self._random = random
        self._found_after = found_after
        self._entering: Deferred[None] | None = None
        self._looking: Deferred[None] | None = None
        self._under_way = False
        self._stopped = False

    @property
    def entering(self) -> bool:
        """Whether this node is on its way into the overlay."""
        return self._under_way

    def found(self) -> None:
        """Be the first node of the overlay."""
        self._topology.found()
        self._joined()

    def enter(self, wait: float = 0.0) -> None:
        """Join, however long it takes, and not before `wait` seconds."""
        if not self._under_way and not self._stopped:
            self._under_way = True
            self._entering = Deferred.fromCoroutine(self._enter(wait))
            self._entering.addErrback(self._failed)
            if self._under_way and self._found_after is not None:
                self._looking = Deferred.fromCoroutine(self._look_around(self._found_after))
                self._looking.addErrback(self._looked)

    def lost_overlay(self) -> None:
        """Nobody of the overlay is connected any more (RFC 6940 §10.7.1).

        The last one may just have said that it joins anew: it must have the time to be admitted here. Two nodes that
        both join at once would for ever tell each other that they are no peers yet.
        """
        self.enter(self._random.uniform(0.5, 1.5) * FIRST_PAUSE)

    def stop(self) -> None:
        """Try no longer, for good."""
        self._stopped = True
        for under_way in (self._looking, self._entering):
            if under_way is not None:
                under_way.cancel()

    def _failed(self, failure: Failure) -> None:
        self._under_way = False
        if failure.check(CancelledError) is None:
            self.log.failure("this node gave up joining", failure)

    def _looked(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self.log.failure("this node will not found the overlay anew", failure)

    async def _enter(self, wait: float) -> None:
        pause, attempt = FIRST_PAUSE, 0
        if wait:
            await deferLater(self._clock, wait)
        while True:
            try:
                links = [link for node in self._table.connected() if (link := self._table.link_to(node))]
                if attempt or not links:
                    await self._bootstrap.contact_another(self._configuration().bootstrap_nodes, links)
                await self._topology.join()
                break
            except (RELOADError, LinkError, DeferredTimeout) as error:
                if self._stopped or not self._under_way:
                    raise CancelledError from error
                wait = pause * self._random.uniform(0.5, 1.5)
                self.log.info("not joined: {error}; again in {wait:.0f} s", error=error, wait=wait)
            except Exception as error:
                if self._stopped or not self._under_way:
                    raise CancelledError from error
                wait = pause * self._random.uniform(0.5, 1.5)
                self.log.failure("not joined; again in {wait:.0f} s", wait=wait)
            attempt += 1
            pause = min(2 * pause, LONGEST_PAUSE)
            await deferLater(self._clock, wait)
        self._entered()

    def _entered(self) -> None:
        if self._under_way:
            self._under_way = False
            self._joined()

    async def _look_around(self, found_after: float) -> None:
        """Found the overlay anew when nobody has been part of it for long enough."""
        # Not all at once, where several nodes hold the authority: whoever comes later meets the first.
        patience = found_after * self._random.uniform(1.0, 1.5)
        alone_since = self._clock.seconds()
        while self._under_way:
            if await self._met_a_peer():
                alone_since = self._clock.seconds()
            elif self._under_way and self._clock.seconds() - alone_since >= patience:
                self.log.info("nobody is part of the overlay: this node founds it anew")
                self._topology.found()
                self._entered()
                if self._entering is not None:
                    self._entering.cancel()
                return
            await deferLater(self._clock, LOOK_AROUND if patience else FIRST_PAUSE)

    async def _met_a_peer(self) -> bool:
        """Whether a connected node is responsible for a part of the overlay (RFC 6940 §6.4.2.5)."""
        probe = ProbeReq(requested_info=(ProbeInformationType.RESPONSIBLE_SET,))
        connected = self._table.connected()
        outcomes: list[Any] = await DeferredList(
            [self._request([NodeDestination(node_id=node_id)], probe) for node_id in connected], consumeErrors=True
        )
        return any(
            isinstance(information, ResponsibleSet) and information.responsible_ppb
            for answered, answer in outcomes
            if answered
            for information in answer.body.probe_info
        )
