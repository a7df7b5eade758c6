"""The LDAP directory at a node that holds the authority: read again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from .enrollment.accounts import UnknownAccount
from .enrollment.authority import OverlayAuthority
from .enrollment.database import AccountError
from .enrollment.members import Changes
from .running import Running

T = TypeVar("T")

THREADS: Final = 5
"""Of the directory's own: more than the enrollment server asks with at once, so that it is read meanwhile."""
SHARE: Final = 0.4
"""Of the revocation interval between two readings; registrars ask every half of it."""


class DirectoryReading:
    """Keeps the accounts of the directory as that has them, and has the threads that may wait for it.

    :param expel: throws nodes out of the overlay, by their Node-IDs.
    """

    log = Logger()

    def __init__(
        self, service: Running, authority: OverlayAuthority, expel: Callable[[Sequence[bytes]], None]
    ) -> None:
        self._service = service
        self._authority = authority
        self._expel = expel
        self._pool: ThreadPool | None = None
        self._reading = DeferredLock()
        self._looping = LoopingCall(lambda: Deferred.fromCoroutine(self._read()))
        self._looping.clock = service.reactor
        self.trouble = ""
        """Why it could not be read, the last time; empty: it could."""
        self.last: Changes | None = None

    def start(self) -> None:
        """Read it from now on, where there is one."""
        interval = SHARE * self._service.options["revocation-interval"]
        self._looping.start(interval, now=True).addErrback(
            lambda failure: self.log.failure("the directory is not read any more", failure)
        )

    async def stop(self) -> None:
        """Wait for who still asks it, and read it no more."""
        if self._looping.running:
            self._looping.stop()
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await self._service.in_thread(pool.stop)

    def in_thread(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Run a function that may wait for the directory, where it keeps nothing else waiting."""
        if self._pool is None:
            self._pool = ThreadPool(0, THREADS, "directory")
            self._pool.start()
        done: Deferred[T] = deferToThreadPool(self._service.reactor, self._pool, function, *arguments)
        return done

    async def _read(self) -> None:
        """Read it once; what fails is told when it begins to fail, and disables nobody."""
        if self._authority.directory_users is None:
            return
        try:
            await self.synchronize(force=False)
        except AccountError as e:
            if str(e) != self.trouble:
                self.log.error("{error}; nobody's account is changed", error=str(e))
            self.trouble = str(e)

    async def synchronize(self, force: bool) -> Changes:
        """Read it now.

        :raises AccountError: it cannot be, or too many accounts would be lost.
        """
        users = self._authority.directory_users
        if users is None:
            raise AccountError("there is no directory: p2psip directory set names one")
        changes = await self._reading.run(self.in_thread, users.synchronize, force)
        if self.trouble:
            self.log.info("the directory can be read again")
        self.trouble, self.last = "", changes
        self._expel(changes.node_ids)
        return changes

    async def provide(self, name: str) -> str:
        """The name of an account that is there now, if the directory knows `name`.

        :raises AccountError: nobody has this name, or it cannot be asked.
        """
        users = self._authority.directory_users
        if users is None:
            raise UnknownAccount(f"there is no account {name[:64]!r}")
        return (await self.in_thread(users.provide, name)).name
