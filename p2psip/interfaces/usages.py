"""Usages and what a node lends them, and access control policies (RFC 6940 §5.2, §7.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.plugin import IPlugin
from zope.interface import Attribute, Interface

from ..security.identity import SignedBy
from ..security.interfaces import ISigner
from .links import IApplicationConnection
from .messages import Extender, IMessaging

if TYPE_CHECKING:
    from ..config.document import Configuration
    from ..config.kinds import Kind
    from ..ids import NodeId, ResourceId
    from ..wire.codec import Struct
    from ..wire.storage import StoredData


class IAccessPolicy(IPlugin):
    """Who may write what, where (RFC 6940 §7.3)."""

    name: str = Attribute("As a Kind names it: 'USER-NODE-MATCH'.")

    def permits(
        signer: SignedBy,
        resource: ResourceId,
        kind: Kind,
        value: StoredData,
        resource_id: Callable[[bytes], ResourceId],
    ) -> bool:
        """Whether `signer` may write `value` at `resource`; `resource_id` is the overlay's hash.

        Asked of the signer of each value and of the sender of a Store, where it is stored, copied and fetched: it
        may look at its arguments alone, and must not raise, whatever a stranger put into `value`.
        """


@dataclass(frozen=True, slots=True)
class FetchedValue:
    """One value of a Fetch, its signature and access verified."""

    data: StoredData
    signer: SignedBy


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a Store: the new generation counter and the peers that hold copies."""

    generation: int
    replicas: Sequence[NodeId] = field(default=())


class IOverlay(IMessaging):
    """All that a Usage sees of a node."""

    node_id: NodeId = Attribute("Our own.")
    configuration: Configuration = Attribute("The current configuration document.")
    signer: ISigner = Attribute("The node's own identity.")
    clock: IReactorTime = Attribute("The time.")
    random: Random = Attribute("Chance.")
    behind_nat: bool | None = Attribute("Whether others see this node at another address; None: that is not known.")

    def resource_id(name: bytes) -> ResourceId:
        """Hash a Resource Name into the overlay's space."""

    def store(
        name: bytes,
        kind_id: int,
        values: Sequence[Struct],
        lifetime: int,
        signer: ISigner | None = None,
        generation: int = 0,
    ) -> Deferred[Stored]:
        """Sign and store `values` (DataValue, ArrayEntry or DictionaryEntry, as the Kind wants) under `name`.

        `lifetime` is in seconds.  `signer` is the node's own unless given; it signs the values and the
        request.  With `generation` it is done only while the generation counter is that (RFC 6940 §7.4.1); 0 does
        not ask.  Fails as `request`.
        """

    def fetch(name: bytes, kind_id: int, keys: Sequence[bytes] = ()) -> Deferred[Sequence[FetchedValue]]:
        """Every existing, verified value of a Kind under `name`; for a dictionary only `keys`, if any are
        given.

        Values that are not believable are left out and counted.  Fails as `request`, and with UnknownKind where the
        overlay has no such Kind.
        """

    def fetch_at(
        resource: ResourceId, kind_id: int, keys: Sequence[bytes] = ()
    ) -> Deferred[Sequence[FetchedValue]]:
        """As `fetch`, at a Resource-ID whose Resource Name is not known: one that a Find has answered."""

    def extend_answers(extension_type: int, extend: Extender) -> None:
        """Ask `extend` of each request to this node that has a message extension of that type (RFC 6940 §6.3.3).

        What it makes goes into the answer, unless that is an error.
        """

    def app_attach(node_id: NodeId, application: int) -> Deferred[IApplicationConnection]:
        """Open a secured connection to `node_id` for an application's own protocol (RFC 6940 §6.5.2).

        Fails with RELOADError or LinkError.
        """

    def count(cause: str) -> None:
        """Count something refused, for `status --json` under `rejected`."""


class IUsage(Interface):
    """An application of the overlay, at work in one node (RFC 6940 §5.2)."""

    def start() -> Deferred[None]:
        """Begin: the node has joined.  Called again, with no `stop` between, after the node had to join anew.

        A failure is logged, and changes nothing else.
        """

    def stop() -> Deferred[None]:
        """Withdraw what was stored and end: the node leaves as soon as this fires.  Never fails.

        Not called where `start` never was.
        """

    def application_connected(connection: IApplicationConnection) -> None:
        """Another node opened a connection for this usage's application."""


class IUsageFactory(IPlugin):
    """What a usage package offers to `twisted.plugin`."""

    name: str = Attribute("Short and unique: 'sip', 'turn', 'certificate'.")
    kinds: Sequence[Kind] = Attribute(
        "The Kinds it defines: an overlay that is founded where it is installed has them from the first; "
        "`p2psip authority publish` brings them into one that is there."
    )
    applications: Sequence[int] = Attribute("Its Application-IDs for AppAttach, which no other usage may have.")

    def build(overlay: IOverlay) -> IUsage:
        """Make the usage of one node."""
