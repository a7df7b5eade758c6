"""Fragments: messages cut for links that carry only so much, and put together where they end (RFC 6940 §6.7).

A fragment is a whole forwarding header and a part of what follows it; the header says where in it that part belongs.
Any node on the way may cut a message, or a fragment again; only the destination puts them together.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise, takewhile
from struct import Struct
from typing import NamedTuple

from ..ids import NodeId
from ..wire.codes import UNFRAGMENTED, is_request
from ..wire.header import FIXED_SIZE, join

LEGAL_FRAGMENT = 0x80000000
LAST_FRAGMENT = 0x40000000
FRAGMENT_OFFSET = 0x00FFFFFF

LEAST_BODY = 256
"""Bytes behind the header that every fragment has (RFC 6940 §6.7)."""
ROOM_TO_GROW = 32
"""Bytes that a fragment leaves free for the Via List of the next hops (RFC 6940 §6.7)."""

MOST_HELD = 16 * 2**20
MOST_HELD_OF_HOP = 2**20
MOST_PIECES = 1024
"""Of one message: enough for 256 KiB in the smallest fragments."""
MESSAGE_COST = 1024
PIECE_COST = 128
"""What keeping a message, and each piece of it, takes beside its bytes; this bounds their number, too."""
PATIENCE = 15.0
"""Seconds: the maximum request lifetime."""

_FRAGMENT = Struct("!12xI4xQ4xHHH")
_TRANSACTION_ID = Struct("!20xQ")


def fragments(data: bytes, most: int) -> Sequence[bytes]:
    """Cut a message of ours or of others, or a fragment, into what a link can carry.

    :param data: with a sound header; that it is what a `Router` passes on is enough.
    :param most: bytes that the link carries at once.
    :return: as few pieces as possible, equal but for a byte; only `data`, too long as it may be, where it fits as
        it is or cannot be cut by the rules.
    """
    if len(data) <= most:
        return (data,)
    field, _, vias, destinations, options = _FRAGMENT.unpack_from(data)
    start = FIXED_SIZE + vias + destinations + options
    body = len(data) - start
    offset = field & FRAGMENT_OFFSET
    # That each has 256 bytes is a MUST; that 32 are left free only a SHOULD, which gives way.
    count = min(-(-body // max(most - ROOM_TO_GROW - start, 1)), body // LEAST_BODY)
    if count < 2 or start + -(-body // count) > most or offset + body > FRAGMENT_OFFSET:
        return (data,)
    cuts = [body * number // count for number in range(count + 1)]
    return [
        _piece(data, start, offset, cut, end, field & LAST_FRAGMENT if end == body else 0)
        for cut, end in pairwise(cuts)
    ]


def _piece(data: bytes, start: int, offset: int, cut: int, end: int, last: int) -> bytes:
    field = LEGAL_FRAGMENT | last | offset + cut
    return join(data[:12] + field.to_bytes(4) + data[16:start], data[start + cut : start + end])


class Fragment(NamedTuple):
    """A fragment for this node, from `previous_hop`; what its header is followed by begins at `start` of `data`."""

    data: bytes
    start: int
    previous_hop: NodeId


class Assembled(NamedTuple):
    """A whole message, as if it had come like that from where its beginning came."""

    previous_hop: NodeId
    data: bytes


class _Message:
    """What there is of one message."""

    __slots__ = ("charged", "deadline", "head", "held", "pieces", "previous_hop", "request", "size")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.request: bool | None = None
        """Known from its beginning."""
        self.head = b""
        self.previous_hop: NodeId
        self.size: int | None = None
        """Known from its end."""
        self.pieces: list[tuple[int, bytes]] = []
        """In order, and none overlaps another."""
        self.held = 0
        self.charged: Counter[NodeId] = Counter()

    def missing(self, offset: int, part: bytes, last: bool) -> list[tuple[int, bytes]] | None:
        """What of a part is not there yet; None if it contradicts what is."""
        end = offset + len(part)
        pieces = self.pieces
        if self.size is not None and (end > self.size or (last and end < self.size)):
            return None
        if last and pieces and pieces[-1][0] + len(pieces[-1][1]) > end:
            return None
        new = []
        reached = offset
        place = max(0, bisect_right(pieces, offset, key=lambda piece: piece[0]) - 1)
        while place < len(pieces) and pieces[place][0] < end:
            at, piece = pieces[place]
            place += 1
            first, behind = max(at, offset), min(at + len(piece), end)
            if behind <= first:
                continue
            if piece[first - at : behind - at] != part[first - offset : behind - offset]:
                return None
            if reached < first:
                new.append((reached, part[reached - offset : first - offset]))
            reached = behind
        if reached < end:
            new.append((reached, part[reached - offset :]))
        return new

    def put(self, new: Sequence[tuple[int, bytes]]) -> None:
        """Keep parts that `missing` found."""
        for piece in new:
            insort(self.pieces, piece)
            self.held += len(piece[1])

    def assembled(self) -> Assembled | None:
        """The message, if all of it is there."""
        if self.held != self.size:
            return None
        head = self.head[:12] + UNFRAGMENTED.to_bytes(4) + self.head[16:]
        return Assembled(self.previous_hop, join(head, b"".join(piece for _, piece in self.pieces)))


class Reassembly:
    """Holds the fragments for one node until their messages are whole.

    `count` is told the cause of each drop.  All that is held is at most `most` bytes, what came from any one previous
    hop `most_of_hop`; for whose fragment there is no room, that message is dropped, and never another.  A message
    that is not whole `PATIENCE` seconds after its first fragment is dropped as well.
    """

    def __init__(
        self, count: Callable[[str], None], most: int = MOST_HELD, most_of_hop: int = MOST_HELD_OF_HOP
    ) -> None:
        self._count = count
        self._most = most
        self._most_of_hop = most_of_hop
        # Request and answer have the same transaction ID: a second message has its own place.  In order of time.
        self._messages: OrderedDict[tuple[int, int], _Message] = OrderedDict()
        self._used: dict[NodeId, int] = {}
        self.used = 0
        """Bytes held, with what keeping them costs."""

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def deadline(self) -> float | None:
        """When to call `expire` next."""
        return next((message.deadline for message in self._messages.values()), None)

    def expire(self, now: float) -> None:
        """Drop what is not whole in time."""
        late = takewhile(lambda held: held[1].deadline <= now, self._messages.items())
        for key in [key for key, _ in late]:
            self._free(key)
            self._count("fragments timed out")

    def add(self, fragment: Fragment, now: float) -> Assembled | None:
        """Take a fragment; the message, if it is whole now.

        Where two fragments overlap, the bytes that came first stay; a fragment with others is dropped.
        """
        self.expire(now)
        data, start, hop = fragment
        field, transaction_id, *_ = _FRAGMENT.unpack_from(data)
        offset, last, part = field & FRAGMENT_OFFSET, bool(field & LAST_FRAGMENT), data[start:]
        if not part:
            self._count("empty fragment")
            return None
        request = None if offset else is_request(int.from_bytes(part[:2]))
        key = self._place(transaction_id, request)
        message = self._messages.get(key) or _Message(now + PATIENCE)
        new = message.missing(offset, part, last)
        if new is None:
            self._count("conflicting fragment")
            return None
        self._messages[key] = message
        cost = sum(PIECE_COST + len(piece) for _, piece in new) + (0 if message.charged else MESSAGE_COST)
        if request is not None and message.request is None:
            message.request, message.head, message.previous_hop = request, data[:start], hop
            cost += start
        if last:
            message.size = offset + len(part)
        message.put(new)
        whole = message.assembled()
        if whole is not None:
            self._free(key)
        elif cost and not self._charge(message, hop, cost):
            self._free(key)
            self._count("no room for fragments")
        return whole

    def _place(self, transaction_id: int, request: bool | None) -> tuple[int, int]:
        """Which message a fragment belongs to, or is the first of."""
        free = None
        for key in ((transaction_id, 0), (transaction_id, 1)):
            message = self._messages.get(key)
            if message is None:
                free = free or key
            elif request is None or message.request in (None, request):
                return key
        assert free is not None  # two that are there differ in direction
        return free

    def _charge(self, message: _Message, hop: NodeId, cost: int) -> bool:
        """Whether there is room for what a message takes more."""
        message.charged[hop] += cost
        self._used[hop] = self._used.get(hop, 0) + cost
        self.used += cost
        return (
            self.used <= self._most
            and self._used[hop] <= self._most_of_hop
            and len(message.pieces) <= MOST_PIECES
        )

    def _free(self, key: tuple[int, int]) -> None:
        for hop, cost in self._messages.pop(key).charged.items():
            self.used -= cost
            self._used[hop] -= cost
            if not self._used[hop]:
                del self._used[hop]
