"""What the parts of a running node's service know of the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred

from .gateway import Numbers
from .node import Node
from .phones import Phones
from .sip.media.anchoring import Media
from .state import StateDirectory

T = TypeVar("T")


class Running(Protocol):
    """One node as a service: what it was started with, and what it has come to."""

    overlay: str
    state: StateDirectory
    reactor: Any
    phase: str
    """What it is at, for people: starting, founding, enrolling, joining, joined, leaving."""
    node: Node | None
    phones: Phones | None
    numbers: Numbers | None
    media: Media | None

    @property
    def options(self) -> Mapping[str, Any]:
        """The options of `twistd p2psip`."""

    @property
    def interfaces(self) -> Sequence[str]:
        """The addresses to bind sockets to."""

    @property
    def advertised(self) -> Sequence[str]:
        """The addresses that others reach this node at."""

    def in_thread(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Run a blocking function off the reactor's thread."""

    def listeners(self) -> list[str]:
        """Where this node listens, for people."""

    async def leave(self) -> None:
        """Leave the overlay in good order; the program ends soon after."""
