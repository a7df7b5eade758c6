"""The Certificate Store Usage: each node's certificate, found by its Node-ID and by its user name (RFC 6940 §8).

A value is the certificate in DER, appended to an array that may hold an older one of the same holder as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from ..config.kinds import CERTIFICATE_BY_NODE, CERTIFICATE_BY_USER, REGISTERED
from ..errors import RELOADError
from ..ids import NodeId
from ..interfaces import (
    FetchedValue,
    IApplicationConnection,
    IOverlay,
    IUsage,
    IUsageFactory,
)
from ..security.identity import CertificateError, Identity
from ..wire.codes import LAST_INDEX
from ..wire.storage import ArrayEntry, DataValue

CHECK_AGAIN = 6 * 3600.0
"""Seconds between two looks whether the certificates are there, and are those in use."""
FIRST_RETRY = 60.0


@implementer(IUsage)
class CertificateStore:
    """Keeps a node's certificate in the overlay until it expires, and renewed ones beside it.

    Nothing is withdrawn at `stop`: what the node has signed lives on and has to be verified still.

    Where no authority sees that user names are unique, `name_taken` is called when another node has this one's: it
    gives the node another certificate (RFC 6940 §11.3.1).
    """

    log = Logger()

    def __init__(self, overlay: IOverlay) -> None:
        self.name_taken: Callable[[], None] | None = None
        self._overlay = overlay
        self._next: IDelayedCall | None = None
        self._pause = FIRST_RETRY
        self._storing: Deferred[None] | None = None

    def start(self) -> Deferred[None]:
        """Store the certificate; done in the background, and again until it succeeds."""
        self._look()
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Look no more."""
        if self._next is not None and self._next.active():
            self._next.cancel()
        if self._storing is not None:
            self._storing.cancel()
        return succeed(None)

    def application_connected(self, connection: IApplicationConnection) -> None:
        """No application is served."""
        connection.close()

    def _look(self) -> None:
        if self._storing is not None:
            return
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._storing = Deferred.fromCoroutine(self._store_all())
        self._storing.addCallbacks(self._stored, self._not_stored)

    def _stored(self, _: None) -> None:
        self._storing = None
        self._pause = FIRST_RETRY
        self._look_after(CHECK_AGAIN)

    def _not_stored(self, failure: Failure) -> None:
        self._storing = None
        if failure.check(CancelledError):
            return
        if failure.check(RELOADError, DeferredTimeout):
            self.log.info("certificate not stored yet: {error}", error=failure.value)
        else:
            self.log.failure("certificate not stored", failure)
        self._look_after(self._pause)
        self._pause = min(2 * self._pause, CHECK_AGAIN)

    def _look_after(self, seconds: float) -> None:
        delay = seconds * self._overlay.random.uniform(0.75, 1.25)
        self._next = self._overlay.clock.callLater(delay, self._look)

    async def _store_all(self) -> None:
        if self.name_taken is not None and await self._is_name_taken():
            self.name_taken()
        kinds, signer = self._overlay.configuration.kinds, self._overlay.signer
        for kind_id, name in (
            (CERTIFICATE_BY_NODE, signer.node_id),
            (CERTIFICATE_BY_USER, signer.identity.user_name.encode()),
        ):
            if kind_id in kinds and name:
                await self._store(kind_id, name)

    async def _is_name_taken(self) -> bool:
        """Whether others have stored certificates for our user name, and we have not: who was first keeps it."""
        if CERTIFICATE_BY_USER not in self._overlay.configuration.kinds:
            return False
        found = await certificates_of_user(self._overlay, self._overlay.signer.identity.user_name)
        return bool(found) and not any(self._overlay.node_id in holder.node_ids for holder in found)

    async def _store(self, kind_id: int, name: bytes) -> None:
        certificate = self._overlay.signer.identity.certificate
        found = await self._overlay.fetch(name, kind_id)
        if any(_value(one) == certificate for one in found):
            return
        lifetime = int(self._overlay.signer.identity.not_after - self._overlay.clock.seconds())
        if lifetime > 0:
            entry = ArrayEntry(index=self._index(kind_id, found), value=DataValue(value=certificate))
            await self._overlay.store(name, kind_id, [entry], lifetime)

    def _index(self, kind_id: int, found: Sequence[FetchedValue]) -> int:
        """Where a certificate goes: behind those that are there; where there is no room, over our oldest."""
        own = [
            (one.data.storage_time, one.data.value.index)
            for one in found
            if one.signer.node_id == self._overlay.node_id and isinstance(one.data.value, ArrayEntry)
        ]
        full = len(found) >= self._overlay.configuration.kinds[kind_id].max_count
        return min(own)[1] if full and own else LAST_INDEX


def certificates_of_node(overlay: IOverlay, node_id: NodeId) -> Deferred[Sequence[Identity]]:
    """The certificates that the node has stored under its Node-ID.

    They are well formed and name it; whether to believe them is for `p2psip.security.trust.Trust` to say.
    Fails with RELOADError.
    """
    return overlay.fetch(node_id, CERTIFICATE_BY_NODE).addCallback(
        lambda values: [found for found in _identities(overlay, values) if node_id in found.node_ids]
    )


def certificates_of_user(overlay: IOverlay, user_name: str) -> Deferred[Sequence[Identity]]:
    """The certificates that holders of the user name have stored under it; as `certificates_of_node`."""
    return overlay.fetch(user_name.encode(), CERTIFICATE_BY_USER).addCallback(
        lambda values: [found for found in _identities(overlay, values) if found.user_name == user_name]
    )


def _identities(overlay: IOverlay, values: Sequence[FetchedValue]) -> list[Identity]:
    configuration = overlay.configuration
    found = []
    for value in values:
        try:
            found.append(
                Identity.from_certificate(
                    _value(value), configuration.instance_name, configuration.node_id_length
                )
            )
        except CertificateError as error:
            overlay.count(f"stored certificate {error.cause}")
    return found


def _value(fetched: FetchedValue) -> bytes:
    entry = fetched.data.value
    return entry.value.value if isinstance(entry, ArrayEntry) else b""


@implementer(IPlugin, IUsageFactory)
class CertificateUsageFactory:
    """Makes the Certificate Store Usage of each node."""

    name = "certificate"
    kinds = (REGISTERED[CERTIFICATE_BY_NODE], REGISTERED[CERTIFICATE_BY_USER])
    applications: Sequence[int] = ()

    def build(self, overlay: IOverlay) -> IUsage:
        """The usage of one node."""
        return CertificateStore(overlay)
