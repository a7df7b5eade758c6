"""What a registrar knows of the users whose phones it serves, and how it comes to know it.

The enrollment server is asked once for a user, with the phone's own Authorization; afterwards the registrar
verifies by itself, for as long as the user's certificate lasts, whether the server is there or not.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from ..interfaces import ISigner
from ..security.certificates import PrivateKey, make_request
from ..security.identity import CertificateError
from ..security.signing import Signer
from ..security.trust import Trust
from ..sip import errors as sip
from ..sip.digest import DigestCredentials, verify_response
from ..sip.interfaces import DeviceCredential, ICredentials
from .accounts import Revocation, is_name
from .client import EnrollmentClient, EnrollmentError, Refused, Unavailable, Untrusted, UserCredentials
from .lasting import LastingClient

MAXIMUM_CACHED: Final = 10_000
"""Users whose credentials are kept in memory; the database has them all."""
MAXIMUM_WAITING: Final = 2_000
"""Requests that wait for the enrollment server at once."""
PARALLEL: Final = 4
PATIENCE: Final = 10.0
"""Seconds before the server is asked again for a user whose digest did not match what is known."""
RETRY: Final = 300.0
"""Seconds before a renewal that failed is tried again."""
INTERVAL: Final = 60.0
"""Seconds between two looks at the revocation list, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class _User:
    """What is known of one user."""

    credentials: tuple[DeviceCredential, ...] = field(repr=False)
    signer: ISigner
    as_of: float
    """When the server read them, by its own clock."""
    renew_at: float
    asked_at: float


@implementer(ICredentials)
class RegistrarCredentials:
    """The users that this registrar serves: their phones' secrets, and a signer for each.

    :param client: see `LastingClient`.
    :param database: an SQLite file, mode 0600, in which it all outlives the process.
    :param clock: its time is in seconds since the epoch.
    :param revoked: told the name of each user whose bindings must go, and the device ('' for all of them).
    """

    log = Logger()

    def __init__(
        self,
        client: Callable[[], EnrollmentClient],
        trust: Trust,
        private_key: PrivateKey,
        overlay: str,
        database: Path,
        clock: IReactorTime,
        revoked: Callable[[str, str], None],
        interval: float = INTERVAL,
    ) -> None:
        self._client = LastingClient(client, clock)
        self._trust = trust
        self._key = private_key
        self._overlay = overlay
        self._clock = clock
        self._revoked = revoked
        self._interval = interval
        self._cached: OrderedDict[str, _User] = OrderedDict()
        self._locks: dict[str, DeferredLock] = {}
        self._waiting = 0
        self._slots = DeferredSemaphore(PARALLEL)
        self._database = _open(database)
        self._stopped = False
        self._polling = LoopingCall(lambda: Deferred.fromCoroutine(self._poll()))
        self._polling.clock = clock
        self.counters: Counter[str] = Counter()

    def start(self) -> None:
        """Look at the revocation list from now on."""
        self._polling.start(self._interval, now=True).addErrback(
            lambda failure: self.log.failure("the revocation list is not read any more", failure)
        )

    def stop(self) -> None:
        """Ask nobody any more and close the database."""
        self._stopped = True
        if self._polling.running:
            self._polling.stop()
        self._client.drop()
        self._database.close()

    # -- what the registrar and the SIP usage ask --------------------------------------------------------

    def credentials(
        self, user: str, authorization: DigestCredentials, method: str
    ) -> Deferred[Sequence[DeviceCredential]]:
        """What the user's phones prove themselves with, for the registrar to verify `authorization`.

        Fails with UnknownUser, Refused or Unavailable of `p2psip.sip.errors`.
        """
        return Deferred.fromCoroutine(self._credentials(user, authorization, method))

    def known(self, user: str) -> bool:
        """Whether this registrar was given the user's credentials, and they are still good."""
        return self._find(user) is not None

    def signer(self, user: str) -> ISigner | None:
        """Who signs the user's registrations here; None for a user whose phone never spoke to us."""
        found = self._find(user)
        return found.signer if found is not None else None

    async def _credentials(
        self, user: str, authorization: DigestCredentials, method: str
    ) -> Sequence[DeviceCredential]:
        found = self._find(user)
        if found is not None and self._suffices(found, authorization, method):
            return found.credentials
        if not is_name(user):
            raise sip.UnknownUser
        if self._waiting >= MAXIMUM_WAITING:
            self.counters["too many waiting"] += 1
            raise sip.Unavailable("Too Many Users At Once", 5)
        # Two phones of one user at once: the second waits, and then sees what the first was given.
        lock = self._locks.setdefault(user, DeferredLock())
        self._waiting += 1
        try:
            await lock.acquire()
            try:
                return await self._asked(user, authorization, method)
            finally:
                lock.release()
        finally:
            self._waiting -= 1
            if not lock.locked and not lock.waiting:
                self._locks.pop(user, None)

    def _suffices(self, found: _User, authorization: DigestCredentials, method: str) -> bool:
        """Whether the server need not be asked: for a new device's password, or since a day has passed."""
        now = self._clock.seconds()
        if _proved(found.credentials, authorization, method):
            return now < found.renew_at
        return now < found.asked_at + PATIENCE

    async def _asked(self, user: str, authorization: DigestCredentials, method: str) -> Sequence[DeviceCredential]:
        found = self._find(user)
        if found is not None and self._suffices(found, authorization, method):
            return found.credentials
        now = self._clock.seconds()
        try:
            granted = await self._slots.run(lambda: Deferred.fromCoroutine(self._ask(user, authorization, method)))
            return self._accept(user, granted).credentials
        except EnrollmentError as e:
            refused = isinstance(e, Refused) and e.token == "failed_authentication"
            self.counters["refused" if refused else "unavailable"] += 1
            found = self._find(user)
            if found is None and refused:
                raise sip.Refused from e
            if found is None:
                self.log.debug("no credentials for a user now: {error}", error=str(e))
                raise sip.Unavailable("Enrollment Server Unavailable") from e
            if refused:
                return self._doubted(user, found, authorization, method, now).credentials
            # A server that is down takes nothing from a user who is known here.
            kept = replace(found, asked_at=now, renew_at=max(found.renew_at, now + RETRY))
            self._keep(user, kept)
            return kept.credentials

    def _doubted(self, user: str, found: _User, authorization: DigestCredentials, method: str, now: float) -> _User:
        """What is left when the server refused: a wrong guess takes nothing from a user who is known here.

        But a device that has proved itself by what is known here, and was refused there, is gone.
        """
        gone = _proved(found.credentials, authorization, method)
        left = replace(found, asked_at=now)
        if gone:
            left = replace(left, credentials=tuple(c for c in found.credentials if c.device not in gone))
        self._keep(user, left)
        return left

    async def _ask(self, user: str, authorization: DigestCredentials, method: str) -> UserCredentials:
        csr = make_request(self._key, f"{user}@{self._overlay}")
        try:
            return await self._client.current().user_credentials(csr, method, str(authorization))
        except (Unavailable, Untrusted):
            self._client.drop()
            raise

    def _accept(self, user: str, granted: UserCredentials) -> _User:
        try:
            identity = self._trust.identify(granted.certificate)
            if identity.user_name != f"{user}@{self._overlay}":
                raise EnrollmentError("the enrollment server gave another user's certificate")
            signer = Signer(identity, self._key)
        except (CertificateError, ValueError) as e:
            raise EnrollmentError(f"the enrollment server gave a certificate that is no good: {e}") from e
        now = self._clock.seconds()
        renew_at = now + max(60.0, granted.max_age)
        accepted = _User(tuple(granted.credentials), signer, granted.as_of, renew_at, now)
        self._keep(user, accepted)
        return accepted

    # -- revocations ---------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        try:
            while not self._stopped:
                cursor, entries = await self._client.current().revocations(self._cursor())
                for entry in entries:
                    self._revoke(entry)
                self._write("REPLACE INTO revocations VALUES (0, ?)", cursor)
                if not entries:
                    self._write("DELETE FROM users WHERE not_after <= ?", self._clock.seconds())
                    return
        except EnrollmentError as e:
            self._client.drop()
            self.counters["revocations unread"] += 1
            self.log.debug("the revocation list cannot be read now: {error}", error=str(e))
        except sqlite3.Error as e:
            # A full disk, say: what was revoked is read again, from the same place, until it can be kept.
            self.log.error("what was revoked cannot be kept now: {error}", error=str(e))

    def _cursor(self) -> str:
        row = self._database.execute("SELECT cursor FROM revocations").fetchone()
        return str(row[0]) if row else ""

    def _revoke(self, entry: Revocation) -> None:
        found = self._find(entry.account)
        # A list that is read again, from another authority, has what was over before this was granted.
        if self._stopped or (found is not None and entry.time < found.as_of):
            return
        # First, because the removal of the user's registration has to be signed.
        self._revoked(entry.account, entry.device)
        found = self._find(entry.account)
        if found is None:
            return
        left = tuple(c for c in found.credentials if entry.device and c.device != entry.device)
        if left:
            self._keep(entry.account, replace(found, credentials=left))
        else:
            self._forget(entry.account)

    # -- memory and database ---------------------------------------------------------------------------------

    def _find(self, user: str) -> _User | None:
        found = self._cached.get(user)
        if found is None:
            found = self._load(user)
        if found is not None and found.signer.identity.not_after <= self._clock.seconds():
            self._forget(user)
            return None
        if found is not None:
            self._cached.move_to_end(user)
        return found

    def _load(self, user: str) -> _User | None:
        if self._stopped:
            return None
        query = "SELECT certificate, credentials, as_of, renew_at FROM users WHERE name = ?"
        row = self._database.execute(query, (user,)).fetchone()
        if row is None:
            return None
        certificate, credentials, as_of, renew_at = row
        try:
            signer = Signer(self._trust.identify(certificate), self._key)
        except (CertificateError, ValueError):
            self._forget(user)  # it has expired meanwhile, or this node has another key
            return None
        known = tuple(DeviceCredential(*credential) for credential in json.loads(credentials))
        found = _User(known, signer, as_of, renew_at, 0.0)
        self._cache(user, found)
        return found

    def _cache(self, user: str, found: _User) -> None:
        self._cached[user] = found
        self._cached.move_to_end(user)
        while len(self._cached) > MAXIMUM_CACHED:
            self._cached.popitem(last=False)

    def _keep(self, user: str, found: _User) -> None:
        self._cache(user, found)
        identity = found.signer.identity
        self._write(
            "REPLACE INTO users VALUES (?, ?, ?, ?, ?, ?)",
            user,
            identity.certificate,
            identity.not_after,
            json.dumps(found.credentials),
            found.as_of,
            found.renew_at,
        )

    def _forget(self, user: str) -> None:
        self._cached.pop(user, None)
        self._write("DELETE FROM users WHERE name = ?", user)

    def _write(self, statement: str, *values: object) -> None:
        if not self._stopped:
            with self._database:
                self._database.execute(statement, values)


def _proved(known: Sequence[DeviceCredential], authorization: DigestCredentials, method: str) -> frozenset[str]:
    """The devices whose secret `authorization` was made with."""
    return frozenset(
        c.device
        for c in known
        if c.algorithm == authorization.algorithm and verify_response(authorization, method, c.ha1)
    )


def _open(path: Path) -> sqlite3.Connection:
    path.touch(mode=0o600)
    database = sqlite3.connect(path)
    # What a crash of the machine may lose is asked for again.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        database.execute(f"PRAGMA {pragma}")
    database.execute(
        "CREATE TABLE IF NOT EXISTS users (name TEXT PRIMARY KEY, certificate BLOB NOT NULL,"
        " not_after REAL NOT NULL, credentials TEXT NOT NULL, as_of REAL NOT NULL, renew_at REAL NOT NULL)"
    )
    database.execute("CREATE TABLE IF NOT EXISTS revocations (id INTEGER PRIMARY KEY, cursor TEXT NOT NULL)")
    return database
