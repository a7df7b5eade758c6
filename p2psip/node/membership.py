"""Getting into the overlay and back into it: bootstrap, join, and again with back-off for ever (RFC 6940 §11.4)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.document import Configuration
from ..errors import LinkError, RELOADError
from ..interfaces import ITopologyPlugin
from ..transport.bootstrap import Bootstrap
from ..transport.connections import ConnectionTable

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0


class Membership:
    """Keeps one node a member of its overlay.

    `joined` is called each time that the node has become one.  After `found_after` seconds without an answer from
    any known node this one founds the overlay anew; None: it never does (only a node that holds the authority may).
    """

    log = Logger()

    def __init__(
        self,
        topology: ITopologyPlugin,
        table: ConnectionTable,
        bootstrap: Bootstrap,
        configuration: Callable[[], Configuration],
        joined: Callable[[], None],
        clock: IReactorTime,
        random: Random,
        found_after: float | None,
    ) -> None:
        self._topology = topology
        self._table = table
        self._bootstrap = bootstrap
        self._configuration = configuration
        self._joined = joined
        self._clock = clock
        self._random = random
        self._found_after = found_after
        self._entering: Deferred[None] | None = None
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

    def enter(self) -> None:
        """Join, however long it takes."""
        if not self._under_way and not self._stopped:
            self._under_way = True
            self._entering = Deferred.fromCoroutine(self._enter())
            self._entering.addErrback(self._failed)

    def lost_overlay(self) -> None:
        """Nobody of the overlay is connected any more (RFC 6940 §10.7.1)."""
        self.enter()

    def stop(self) -> None:
        """Try no longer, for good."""
        self._stopped = True
        if self._entering is not None:
            self._entering.cancel()

    def _failed(self, failure: Failure) -> None:
        self._under_way = False
        if failure.check(CancelledError) is None:
            self.log.failure("this node gave up joining", failure)

    async def _enter(self) -> None:
        pause, attempt, alone_since = FIRST_PAUSE, 0, self._clock.seconds()
        while True:
            try:
                if attempt or not self._table.connected():
                    await self._bootstrap.contact(self._configuration().bootstrap_nodes)
                alone_since = self._clock.seconds()
                await self._topology.join()
                break
            except (RELOADError, LinkError, TimeoutError) as error:
                if self._stopped:
                    raise CancelledError from error
                alone = self._clock.seconds() - alone_since
                if self._found_after is not None and alone >= self._found_after and not self._table.connected():
                    self.log.warn("nobody answers: founding the overlay anew")  # noqa: G010 - no alias in Twisted
                    self._topology.found()
                    break
                wait = pause * self._random.uniform(0.5, 1.5)
                self.log.info("not joined: {error}; again in {wait:.0f} s", error=error, wait=wait)
            attempt += 1
            pause = min(2 * pause, LONGEST_PAUSE)
            await deferLater(self._clock, wait)
        self._under_way = False
        self._joined()
