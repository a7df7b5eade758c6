"""A board of notes for each topic: every node pins one note to it, and everybody reads them all.

The notes of a topic are a dictionary under the Resource Name ``notes:TOPIC``; the key is the writer's Node-ID.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from p2psip.config.kinds import Kind
from p2psip.errors import RELOADError
from p2psip.ids import NodeId, ResourceId
from p2psip.interfaces import (
    IAccessPolicy,
    IApplicationConnection,
    IOverlay,
    IUsage,
    IUsageFactory,
    SignedBy,
)
from p2psip.wire.codes import DataModel
from p2psip.wire.storage import DataValue, DictionaryEntry, StoredData

NOTE = 0xF0000001
"""A Kind-ID for private use (RFC 6940 §14.6: 0xf0000001 to 0xfffffffe)."""
LIFETIME = 3600
"""Seconds that a note is kept, unless it is pinned anew."""


@implementer(IPlugin, IAccessPolicy)
class OwnKey:
    """Everybody in the overlay may write everywhere, but in a dictionary and under the own Node-ID only."""

    name = "X-OWN-KEY"

    def permits(
        self,
        signer: SignedBy,
        resource: ResourceId,
        kind: Kind,
        value: StoredData,
        resource_id: Callable[[bytes], ResourceId],
    ) -> bool:
        entry = value.value
        return isinstance(entry, DictionaryEntry) and entry.key == signer.node_id


@implementer(IUsage)
class Notes:
    """The boards, as one node sees them."""

    log = Logger()

    def __init__(self, overlay: IOverlay) -> None:
        self._overlay = overlay
        self._pinned: dict[str, str] = {}
        self._again: IDelayedCall | None = None

    # -- for the node ------------------------------------------------------------------------------------

    def start(self) -> Deferred[None]:
        """The node has joined, perhaps not for the first time: see that our notes are there."""
        if self._again is None:
            self._again = self._overlay.clock.callLater(0, self._renew)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """The node ends. Notes outlive it, until their lifetime is over."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        return succeed(None)

    def application_connected(self, connection: IApplicationConnection) -> None:
        """Nodes do not speak to one another about notes; they only store and fetch."""
        connection.close()

    # -- for whoever uses it -----------------------------------------------------------------------------

    def pin(self, topic: str, text: str) -> Deferred[None]:
        """Pin `text` to the board of `topic`, in place of our note there; an empty one takes it away.

        Fails with RELOADError.
        """
        if text:
            self._pinned[topic] = text
        else:
            self._pinned.pop(topic, None)
        return Deferred.fromCoroutine(self._store(topic, text))

    def read(self, topic: str) -> Deferred[Mapping[NodeId, str]]:
        """The notes on the board of `topic`, by their writers' Node-IDs; fails with RELOADError."""
        return Deferred.fromCoroutine(self._read(topic))

    async def _store(self, topic: str, text: str) -> None:
        value = DataValue(exists=bool(text), value=text.encode())
        entry = DictionaryEntry(key=self._overlay.node_id, value=value)
        await self._overlay.store(_name(topic), NOTE, [entry], LIFETIME)

    async def _read(self, topic: str) -> Mapping[NodeId, str]:
        notes = {}
        for found in await self._overlay.fetch(_name(topic), NOTE):
            entry = found.data.value
            assert isinstance(entry, DictionaryEntry)  # as the Kind says
            try:
                notes[found.signer.node_id] = entry.value.value.decode()
            except UnicodeDecodeError:
                # Signed and permitted, yet no text: what others write is never trusted to make sense.
                self._overlay.count("notes: not a text")
        return notes

    def _renew(self) -> None:
        """Pin everything again before its lifetime ends, not at the same moment as all other nodes."""
        pause = LIFETIME / 2 * self._overlay.random.uniform(0.8, 1.2)
        self._again = self._overlay.clock.callLater(pause, self._renew)
        for topic, text in self._pinned.items():
            Deferred.fromCoroutine(self._store(topic, text)).addErrback(self._not_renewed, topic)

    def _not_renewed(self, failure: Failure, topic: str) -> None:
        failure.trap(RELOADError)
        self.log.info("note on {topic} not renewed: {error}", topic=topic, error=failure.value)


@implementer(IPlugin, IUsageFactory)
class NotesFactory:
    """Makes the Usage of each node; shared by all nodes of a process, so it has no state."""

    name = "notes"
    kinds = (
        Kind(
            kind_id=NOTE,
            name="",
            data_model=DataModel.DICTIONARY,
            access_control=OwnKey.name,
            max_count=100,
            max_size=500,
        ),
    )
    applications = ()

    def build(self, overlay: IOverlay) -> IUsage:
        return Notes(overlay)


def _name(topic: str) -> bytes:
    return b"notes:" + topic.encode()
