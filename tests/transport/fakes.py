"""Fakes that the tests of this floor share."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from p2psip.ids import NodeId
from p2psip.interfaces import ILink


@implementer(ILink)
class FakeLink:
    """A link that records; `on_close` is told when it is closed."""

    protocol = "FAKE"
    rtt = None
    identity: Any = None

    def __init__(self, node_id: NodeId, outgoing: bool = False, address: str = "127.0.0.9:6084") -> None:
        self.node_id = node_id
        self.outgoing = outgoing
        self.address = address
        self.sent: list[bytes] = []
        self.closed = False
        self.on_close: Any = lambda link: None

    def send(self, message: bytes) -> bool:
        self.sent.append(message)
        return not self.closed

    def close(self, reason: Exception | None = None) -> None:
        if not self.closed:
            self.closed = True
            self.on_close(self)
