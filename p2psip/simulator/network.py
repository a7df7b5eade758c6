"""The network between simulated nodes: how long messages take, how many are lost, and what is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from random import Random
from struct import Struct
from typing import TYPE_CHECKING

from ..links.memory import MemoryLink
from ..wire.codes import MessageCode, is_request
from .spans import seconds

if TYPE_CHECKING:
    from .clock import HeapClock

Latency = Callable[[str, str], float]
"""Seconds that a message takes from one address to another."""

FRAMING = 8 + 9
"""Bytes that framing adds to a message: the frame around it, and the ACK that comes back (RFC 6940 §6.6.2)."""

_LISTS = Struct("!HHH")
_CODE = Struct("!H")
_TIME = Struct("!d")


def latency(text: str, random: Random) -> Latency:
    """What `text` says: '50ms', 'uniform:10ms:90ms', 'normal:50ms:10ms' or 'lognormal:50ms:0.5'.

    Except for the first it is drawn anew for each message; of 'lognormal' the numbers are the median and the standard
    deviation of the logarithm, as measured round-trip times in the Internet have it.

    :raises ValueError: it says nothing.
    """
    name, *arguments = text.split(":")
    if not arguments:
        constant = seconds(name)
        return lambda here, there: constant
    if len(arguments) == 2 and name in ("uniform", "normal", "lognormal"):
        first, second = seconds(arguments[0]), seconds(arguments[1])
        if name == "uniform" and first <= second:
            return lambda here, there: random.uniform(first, second)
        if name == "normal":
            return lambda here, there: max(0.0, random.gauss(first, second))
        if name == "lognormal":
            return lambda here, there: first * random.lognormvariate(0.0, second)
    raise ValueError(f"{text!r} is none of 50ms, uniform:10ms:90ms, normal:50ms:10ms, lognormal:50ms:0.5")


def check_latency(text: str) -> None:
    """Refuse what `latency` cannot read, by its ValueError."""
    latency(text, Random(0))


class Traffic:
    """What goes over the links, counted and hashed as it is sent: `MemoryNetwork.observe`.

    What belongs to requests that were made within `workload` is counted apart: all the rest is maintenance.  Bytes are
    those of the messages and of the framing of their links, not of TLS and below.

    :ivar messages: by message code; an error counts as MessageCode.ERROR.
    :ivar per_node: bytes of maintenance that each address has sent.
    """

    def __init__(self, clock: HeapClock) -> None:
        self._clock = clock
        self._hash = blake2b(digest_size=16)
        self._ours: set[bytes] = set()
        self._within = False
        self.restart()

    def restart(self) -> None:
        """Begin to count anew; the hash goes on."""
        self.messages: Counter[int] = Counter()
        self.bytes: Counter[int] = Counter()
        self.per_node: Counter[str] = Counter()
        self.maintenance_messages = 0
        self.maintenance_bytes = 0
        self.workload_messages = 0
        self.workload_bytes = 0

    @contextmanager
    def workload(self) -> Iterator[None]:
        """What is sent for the first time within is not maintenance, nor are its repetitions and answers."""
        self._within = True
        try:
            yield
        finally:
            self._within = False

    def __call__(self, link: MemoryLink, message: bytes) -> None:
        self._hash.update(_TIME.pack(self._clock.seconds()) + link.address.encode() + message)
        transaction = message[20:28]
        size = len(message) + FRAMING
        if self._within:
            self._ours.add(transaction)
        if transaction in self._ours:
            self.workload_messages += 1
            self.workload_bytes += size
            return
        via, destinations, options = _LISTS.unpack_from(message, 32)
        code = _CODE.unpack_from(message, 38 + via + destinations + options)[0]
        self.messages[code] += 1
        self.bytes[code] += size
        self.per_node[link.here] += size
        self.maintenance_messages += 1
        self.maintenance_bytes += size

    def by_method(self) -> dict[str, dict[str, int]]:
        """Messages and bytes of maintenance by the name of the method, an answer's with its request's."""
        found: dict[str, dict[str, int]] = {}
        for code, messages in sorted(self.messages.items()):
            request = code if code == MessageCode.ERROR or is_request(code) else code - 1
            name = MessageCode(request).name.removesuffix("_REQ").lower()
            entry = found.setdefault(name, {"messages": 0, "bytes": 0})
            entry["messages"] += messages
            entry["bytes"] += self.bytes[code]
        return found

    @property
    def trace_hash(self) -> str:
        """A hash of every message so far, and of when it was sent: the same for the same run."""
        return self._hash.hexdigest()
