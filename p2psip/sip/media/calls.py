"""What is remembered of calls whose media are relayed: it may all be lost, calls go on without it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from .relays import Relay

MOST_CALLS: Final = 20_000
"""Of those beyond, the ones longest not heard of are forgotten."""
FORGOTTEN: Final = 12 * 3600.0
"""Seconds after which a call that nothing is heard of is forgotten.  The relay ends media that have stopped itself."""
MOST_BRANCHES: Final = 64
"""Of one call, and as many callers."""


@dataclass
class Call:
    """What is remembered of a Call-ID."""

    heard: float
    """When there was a message of it."""
    relay: Relay | None = None
    """The one that it was given to."""
    callers: dict[str, str] = field(default_factory=dict)
    """By From tag, the way that the INVITE came."""
    branches: set[str] = field(default_factory=set)
    """Of the first INVITE, those that have not ended."""
    bypassing: set[str] = field(default_factory=set)
    """Branches whose offer did not go through the relay, so that their answers must not either."""
    under_way: set[str] = field(default_factory=set)
    """Branches that the relay is being asked about."""
    ended: set[str] = field(default_factory=set)
    """Those of them that are over meanwhile."""
    late: bool = False
    """Whether the last INVITE had no offer, so that ACK or PRACK bring an answer."""
    ignored: bool = False
    """Whether the offer in the last response did not go through the relay, so that its answer must not either."""

    def comes_by(self, from_tag: str, way: str) -> bool:
        """Whether the caller with this tag may be who it was before; false as well when there are too many."""
        if from_tag not in self.callers and len(self.callers) >= MOST_BRANCHES:
            return False
        return self.callers.setdefault(from_tag, way) == way

    def bypass(self, branch: str) -> None:
        """The offer of `branch` did not go through the relay."""
        if len(self.bypassing) < MOST_BRANCHES:
            self.bypassing.add(branch)


class Calls:
    """The calls by Call-ID, the one longest not heard of first."""

    def __init__(self) -> None:
        self._calls: OrderedDict[str, Call] = OrderedDict()

    def __len__(self) -> int:
        return len(self._calls)

    def get(self, call_id: str) -> Call | None:
        """The call if it is known."""
        return self._calls.get(call_id)

    def heard(self, call_id: str, now: float) -> Call:
        """The call, from now on known."""
        call = self._calls.get(call_id)
        if call is None:
            call = self._calls[call_id] = Call(now)
            while len(self._calls) > MOST_CALLS or next(iter(self._calls.values())).heard < now - FORGOTTEN:
                self._calls.popitem(last=False)
        else:
            call.heard = now
            self._calls.move_to_end(call_id)
        return call

    def forget(self, call_id: str) -> None:
        """It is over."""
        self._calls.pop(call_id, None)
