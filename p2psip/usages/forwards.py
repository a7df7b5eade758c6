"""Calls forwarded by the will of their user, as told to this node: kept over restarts, and alive in the overlay."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..errors import LinkError, RELOADError
from ..interfaces import IOverlay
from .registrations import NotServed, Registrations

REFRESH: Final = 3600.0
"""Seconds between two looks whether what is stored lives long enough."""
HOLD: Final = 7200
"""Seconds that a forwarding in the overlay outlives the look at least, and is stored for twice as long."""
MOST: Final = 10_000

_SCHEMA = "CREATE TABLE IF NOT EXISTS forwards (aor TEXT PRIMARY KEY, target TEXT NOT NULL) WITHOUT ROWID"


class TooMany(Exception):
    """This node keeps no more forwardings."""


class Forwards:
    """The forwardings of this node's users.

    :param database: where they are kept; the caller's to close.
    """

    log = Logger()

    def __init__(self, overlay: IOverlay, registrations: Registrations, database: sqlite3.Connection) -> None:
        self._overlay = overlay
        self._registrations = registrations
        self._database = database
        self._timer: IDelayedCall | None = None
        database.execute(_SCHEMA)
        registrations.forwards.update(database.execute("SELECT aor, target FROM forwards"))

    @property
    def targets(self) -> Mapping[str, str]:
        """Where each AOR's calls go: another AOR."""
        return self._registrations.forwards

    async def set(self, aor: str, target: str) -> None:
        """Let the calls of `aor` go to the AOR `target`.

        :raises NotServed: this node has no credentials of the user.
        :raises TooMany: there is no room for another.
        :raises p2psip.errors.RELOADError: the overlay does not take it now; then nothing has changed.
        """
        forwards = self._registrations.forwards
        before = forwards.get(aor)
        if before is None and len(forwards) >= MOST:
            raise TooMany
        forwards[aor] = target
        try:
            await self._registrations.register(aor, HOLD)
        except BaseException:
            if before is None:
                del forwards[aor]
            else:
                forwards[aor] = before
            raise
        self._database.execute("INSERT OR REPLACE INTO forwards VALUES (?, ?)", (aor, target))

    async def end(self, aor: str, expires: int, prefs: str) -> None:
        """Let them come here again, where phones of `aor` are registered for another `expires` seconds; 0: none is.

        Raises as `set`, but what was wanted holds from the next refresh on.
        """
        self._registrations.forwards.pop(aor, None)
        self._database.execute("DELETE FROM forwards WHERE aor = ?", (aor,))
        if expires:
            await self._registrations.register(aor, expires, prefs)
        else:
            await self._registrations.unregister(aor)

    def start(self) -> None:
        """Look after them from now on."""
        self.stop()
        self._look()

    def stop(self) -> None:
        """Look after them no more; in the overlay they stay until their lifetime ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = self._overlay.clock.callLater(REFRESH, self._look)
        Deferred.fromCoroutine(self._refresh()).addErrback(
            lambda failure: self.log.failure("forwardings are not refreshed", failure)
        )

    async def _refresh(self) -> None:
        for aor in list(self._registrations.forwards):
            try:
                await self._registrations.register(aor, HOLD)
            except NotServed:
                self.log.warn("calls for {aor} are not forwarded any more: its phones are not served here", aor=aor)
            except (RELOADError, LinkError) as error:
                self._overlay.count(f"forwarding not stored: {type(error).__name__}")
