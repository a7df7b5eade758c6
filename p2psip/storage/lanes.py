"""A queue of resources for one peer, of which a few are on their way at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from ..ids import ResourceId
from .maintenance import Wanted

IN_FLIGHT = 16
"""Resources on their way to one peer at the same time."""


@dataclass(slots=True)
class Job:
    """To bring one resource to a peer: the `wanted` values of it, or all with None."""

    resource: ResourceId
    wanted: Wanted | None
    replica_number: int

    def include(self, other: Job) -> None:
        """Bring what `other` would have brought as well."""
        if self.wanted is None or other.wanted is None:
            self.wanted = None
            return
        mine, others = self.wanted, other.wanted
        self.wanted = {kind: {*mine.get(kind, ()), *others.get(kind, ())} for kind in [*mine, *others]}


class Lane:
    """Runs jobs, `IN_FLIGHT` at a time, and never two of one resource, so that none overtakes another.

    A resource stands in the queue once, whatever happens to it: the queue cannot outgrow the storage.  `run`
    does one job; it must see to its own errors.
    """

    log = Logger()

    def __init__(self, run: Callable[[Job], Coroutine[Any, Any, None]]) -> None:
        self._run = run
        self._queue: OrderedDict[ResourceId, Job] = OrderedDict()
        self._under_way: set[ResourceId] = set()
        self._waiting: list[tuple[set[ResourceId], Deferred[None]]] = []
        self._advancing = False

    def __len__(self) -> int:
        """How many resources are queued or on their way."""
        return len(self._queue) + len(self._under_way)

    def add(self, job: Job) -> None:
        """Queue `job`, or let the one that is queued for its resource bring both."""
        queued = self._queue.get(job.resource)
        if queued is None:
            self._queue[job.resource] = job
        else:
            queued.include(job)
        self._advance()

    def wait_for(self, resources: Collection[ResourceId]) -> Deferred[None]:
        """Wait until the jobs of `resources` have ended, also those that are added right after this.

        Fails with the error given to `give_up`.
        """
        if not resources:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._waiting.append((set(resources), done))
        return done

    def give_up(self, error: Exception) -> None:
        """Forget what is queued: the peer cannot be reached."""
        self._queue.clear()
        waiting, self._waiting = self._waiting, []
        for _, done in waiting:
            done.errback(error)

    def _advance(self) -> None:
        if self._advancing:
            return  # a job has ended at once; the loop below goes on
        self._advancing = True
        while len(self._under_way) < IN_FLIGHT:
            resource = next((one for one in self._queue if one not in self._under_way), None)
            if resource is None:
                break
            self._under_way.add(resource)
            running = Deferred.fromCoroutine(self._run(self._queue.pop(resource)))
            running.addErrback(lambda failure: self.log.failure("bringing a resource to a peer", failure))
            running.addCallback(self._ended, resource)
        self._advancing = False

    def _ended(self, _: object, resource: ResourceId) -> None:
        self._under_way.discard(resource)
        if resource not in self._queue:
            for outstanding, done in self._waiting[:]:
                outstanding.discard(resource)
                if not outstanding:
                    self._waiting.remove((outstanding, done))
                    done.callback(None)
        self._advance()
