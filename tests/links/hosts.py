"""What a node lends its links, and an owner that writes down what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from p2psip.config.document import Configuration
from p2psip.ids import NodeId
from p2psip.interfaces import ILink, ILinkHost, ILinkOwner, IRelays, ISigner
from p2psip.security.identity import Identity
from p2psip.wire.security import Signature


@implementer(ILinkOwner)
class RecordingOwner:
    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.links: list[ILink] = []
        self.messages: list[bytes] = []
        self.rejected: list[str] = []
        self.reasons: list[Exception | None] = []
        self.undelivered: list[tuple[str, list[bytes]]] = []
        """What was given back, and what had been told of a link just before."""

    def link_opened(self, link: ILink) -> None:
        self.links.append(link)
        self.events.append(("opened", link.node_id))

    def message_received(self, link: ILink, message: bytes) -> None:
        self.messages.append(message)

    def link_failing(self, link: ILink) -> None:
        self.events.append(("failing", link.node_id))

    def link_recovered(self, link: ILink) -> None:
        self.events.append(("recovered", link.node_id))

    def link_closed(self, link: ILink, reason: Exception | None) -> None:
        self.reasons.append(reason)
        self.events.append(("closed", link.node_id))

    def messages_undelivered(self, link: ILink, messages: Sequence[bytes]) -> None:
        self.undelivered.append((self.events[-1][0], list(messages)))

    def link_rejected(self, cause: str, address: str) -> None:
        self.rejected.append(cause)


@implementer(ISigner)
@dataclass
class Signer:
    identity: Identity
    node_id: NodeId

    def sign(self, data: bytes) -> Signature:
        raise NotImplementedError("a link signs nothing")


def unproved(node_id: NodeId, *others: NodeId) -> Signer:
    """A signer with a certificate that nobody looks at."""
    identity = Identity(
        user_name="node@example.org",
        node_ids=(node_id, *others),
        certificate=bytes(node_id),
        fingerprint=bytes(node_id),
        not_before=0,
        not_after=1e12,
        role="peer",
        public_key=None,  # type: ignore[arg-type]
    )
    return Signer(identity, node_id)


@implementer(ILinkHost)
@dataclass
class Host:
    signer: Signer
    clock: IReactorTime
    private_key: Any = None
    trust: Any = None
    owner: RecordingOwner = field(default_factory=RecordingOwner)
    configuration: Configuration = field(
        default_factory=lambda: Configuration(instance_name="example.org", no_ice=True)
    )
    random: Random = field(default_factory=lambda: Random(7))
    relays: IRelays | None = None
