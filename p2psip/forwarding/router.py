"""Symmetric recursive routing: what becomes of each message that comes in (RFC 6940 §6.1, §6.2).

The router answers values and does no I/O.  It reads the forwarding header as bytes and rewrites it as bytes:
a relay parses neither contents nor signatures, and makes no objects of what it passes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..errors import (
    IncompatibleWithOverlay,
    InvalidMessage,
    MessageTooLarge,
    NotFound,
    RELOADError,
    TTLExceeded,
    UnsupportedForwardingOption,
)
from ..ids import NodeId, wildcard_node_id
from ..wire.codes import (
    RELO_TOKEN,
    VERSION,
    DestinationType,
    ForwardingFlags,
    is_request,
)
from ..wire.errors import DecodeError
from ..wire.header import (
    FIXED_SIZE,
    Destination,
    ForwardingHeader,
    NodeDestination,
    ResourceDestination,
    forward,
)
from .fragments import FRAGMENT_OFFSET, LAST_FRAGMENT, LEGAL_FRAGMENT, Fragment

if TYPE_CHECKING:
    from ..config.document import Configuration

NO_ROUTE = "no route"
# Of the fixed part only what decides: token, overlay, version, TTL, fragment, length and those of the lists.
_FIXED = Struct("!II2xBBII12xHHH")
_CODE = Struct("!H")
_OPTION = Struct("!BBH")
_NODE, _RESOURCE, _OPAQUE = map(int, DestinationType)
_FORWARD_CRITICAL = int(ForwardingFlags.FORWARD_CRITICAL)
_DESTINATION_CRITICAL = int(ForwardingFlags.DESTINATION_CRITICAL)


class Forward(NamedTuple):
    """Pass `data` on to `next_hop`."""

    next_hop: NodeId
    data: bytes


class Deliver(NamedTuple):
    """The message is for this node; its contents begin at `start` of `data`."""

    header: ForwardingHeader
    data: bytes
    start: int
    previous_hop: NodeId


class Dropped(NamedTuple):
    """The message ends here without an answer, for a `cause` to count."""

    cause: str


class Refused(NamedTuple):
    """The request is to be answered with `error`, along `answer_destinations(header, previous_hop)`."""

    error: RELOADError
    header: ForwardingHeader
    previous_hop: NodeId


Verdict = Forward | Deliver | Fragment | Dropped | Refused


class _Front(NamedTuple):
    """What decides of a message, and where its parts begin."""

    data: bytes
    previous_hop: NodeId
    overlay: int
    ttl: int
    fragment: int
    length: int
    lists: int
    """Where the Destination List begins, behind the Via List."""
    options: int
    start: int
    """Where the contents begin."""
    request: bool
    answer: bool
    """Neither: a fragment that does not tell."""


class Unroutable(Exception):
    """There is nobody to send a message of ours to, just now; the text is the cause."""


class Routes(Protocol):
    """What the router asks of the Connection Table and the Topology Plug-in."""

    def is_responsible(self, target: bytes, /) -> bool:
        """Whether this node is the responsible peer of `target` (a Resource-ID or a Node-ID)."""

    def next_hop(self, target: bytes, previous_hop: NodeId | None = None, /) -> NodeId | None:
        """The neighbor to forward to for `target`, rather not back to `previous_hop`; None if there is nobody."""

    def connected(self, node_id: NodeId, /) -> bool:
        """Whether there is an open link to `node_id` that is not failing; of whatever role."""

    def way_in(self) -> NodeId | None:
        """As long as this node is not part of the overlay: by whom it sends what it cannot route itself."""


def answer_destinations(header: ForwardingHeader, previous_hop: NodeId) -> tuple[Destination, ...]:
    """The Destination List of the answer to a request from `previous_hop` (RFC 6940 §6.1.2, §6.2.2)."""
    # s6.1.2: "equal to the concatenation of the Node-ID of the node from which the request was received with
    # the Via List in the original request"; that list is reversed, as the example there and s6.2.2 show.
    return (NodeDestination(node_id=previous_hop), *reversed(header.via_list))


class Router:
    """One node's routing decisions.

    `understood_options` are the types of forwarding options that this node knows.  Set `configuration` anew
    when the Configuration Document changes.
    """

    def __init__(
        self,
        node_id: NodeId,
        configuration: Configuration,
        routes: Routes,
        understood_options: frozenset[int] = frozenset(),
    ) -> None:
        self.node_id = node_id
        self.routes = routes
        self.understood_options = understood_options
        self.configuration = configuration

    @property
    def configuration(self) -> Configuration:
        """The current configuration document."""
        return self._configuration

    @configuration.setter
    def configuration(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._overlay = configuration.overlay_hash
        self._initial_ttl = configuration.initial_ttl
        self._max_message_size = configuration.max_message_size
        self._id_size = size = configuration.node_id_length
        self._wildcard = wildcard_node_id(size)
        self._node_front = bytes((_NODE, size))
        # A list of one Node-ID or one Resource-ID, by type and bytes: the common cases, which need no walk.
        self._single = ((_NODE, size + 2), (_RESOURCE, size + 3))
        # Each hop adds one entry to a Via List, and an answer's Destination List is that and one more; a list
        # with more than that cannot have come about in this overlay.
        self._most_list_bytes = (configuration.initial_ttl + 2) * (size + 3)

    # -- messages of our own

    def route(self, destination_list: Sequence[Destination]) -> NodeId | None:
        """Where to send a message of ours with `destination_list`; None when it is for ourselves.

        Entries for ourselves in front of others are looked through: leave them out (`without_self`).
        :raises Unroutable: nobody to send it to.
        """
        remaining = self.without_self(destination_list)
        if not remaining:
            raise Unroutable("empty Destination List")
        first = remaining[0]
        if isinstance(first, NodeDestination):
            if first.node_id in (self.node_id, self._wildcard):
                return None
            hop = self._hop_to_node(first.node_id, None)
        elif isinstance(first, ResourceDestination):
            if len(remaining) > 1:
                raise Unroutable("Resource-ID before the end of the Destination List")
            if self.routes.is_responsible(first.resource_id):
                return None
            hop = self._hop_to_resource(first.resource_id, None)
        else:
            raise Unroutable("Destination List begins with an opaque ID")
        if isinstance(hop, Dropped):
            raise Unroutable(hop.cause)
        return hop

    def without_self(self, destination_list: Sequence[Destination]) -> tuple[Destination, ...]:
        """`destination_list` without the entries for ourselves that stand in front of others."""
        remaining = tuple(destination_list)
        own = NodeDestination(node_id=self.node_id)
        while len(remaining) > 1 and remaining[0] == own:
            remaining = remaining[1:]
        return remaining

    # -- messages of others

    def receive(self, previous_hop: NodeId, data: bytes) -> Verdict:
        """What to do with a message that came in over the link to `previous_hop`."""
        front = _read_front(previous_hop, data)
        if isinstance(front, Dropped):
            return front
        fault = self._judge(front)
        if fault is not None:
            return fault
        first, hop = self._decide(front)
        if isinstance(hop, Dropped):
            # Who sends by way of us on purpose joins by us, and shall not wait for us in vain (s11.4).
            lost = hop.cause == NO_ROUTE and front.request and first > front.lists
            return self._refuse(NotFound("by way of a node that is not in the overlay"), front) if lost else hop
        if hop is None:
            return self._deliver(front)
        return self._forward(front, hop, first)

    def redirect(self, lost: NodeId, data: bytes) -> Forward | Deliver | Fragment | Dropped:
        """What to do with a message, as it was sent to `lost` in vain: there may be another way for it.

        It may even be ours, now that `lost` is gone; then it came from ourselves, as the answer is to begin here.
        """
        front = _read_front(self.node_id, data)
        if isinstance(front, Dropped):
            return front
        _, hop = self._decide(front)
        if hop != lost and data.startswith(self._node_front + lost, front.lists):
            # A request for that very node can go to nobody else; an answer only came that way.
            entry = len(self._node_front) + self._id_size
            if not front.answer or front.lists + entry == front.options:
                return Dropped("undelivered")
            data = forward(data, front.start, ttl=front.ttl, via=None, consumed=entry)
            front = front._replace(data=data, options=front.options - entry, start=front.start - entry)
            _, hop = self._decide(front)
        if isinstance(hop, Dropped):
            return hop
        if hop is not None:
            return Forward(hop, data)
        delivered = self._deliver(front)
        return delivered if isinstance(delivered, Deliver | Fragment) else Dropped("undelivered")

    def _judge(self, front: _Front) -> Refused | Dropped | None:
        """What is wrong with a message, whomever it is for."""
        data = front.data
        lists, options = front.lists, front.options
        if lists - FIXED_SIZE > self._most_list_bytes or options - lists > self._most_list_bytes:
            return Dropped("list too long")
        if front.overlay != self._overlay:
            return self._refuse(IncompatibleWithOverlay("other overlay"), front)
        if front.length > self._max_message_size:
            return self._refuse(MessageTooLarge(), front)
        if front.length != len(data):
            return Dropped("length mismatch")
        if front.ttl > self._initial_ttl:
            return self._refuse(TTLExceeded("TTL above initial-ttl"), front)
        if lists > FIXED_SIZE and not self._via_is_sound(data, FIXED_SIZE, lists):
            return Dropped("malformed Via List")
        if lists == options:
            return Dropped("empty Destination List")
        if (data[lists], options - lists) not in self._single:
            entries = self._entries(data, lists, options)
            if None in entries:
                return Dropped("malformed Destination List")
            if any(entry and entry[0] == _RESOURCE for entry in entries[:-1]):
                return Dropped("Resource-ID before the end")
            if front.request and len(set(entries)) < len(entries):
                return self._refuse(InvalidMessage("duplicate destination"), front)
        return None

    def _forward(self, front: _Front, hop: NodeId, first: int) -> Verdict:
        """Pass a message on to `hop`; `first` is where what remains of its Destination List begins."""
        flaw = self._judge_options(front, _FORWARD_CRITICAL)
        if flaw is not None:
            return flaw
        if front.ttl == 0:
            return self._refuse(TTLExceeded(), front)
        # A fragment of unknown kind gets the entry too: it does an answer no harm.
        via = None if front.answer else NodeDestination(node_id=front.previous_hop)
        passed = forward(front.data, front.start, ttl=front.ttl - 1, via=via, consumed=first - front.lists)
        if len(passed) > self._max_message_size:
            return self._refuse(MessageTooLarge("by its Via List"), front)
        return Forward(hop, passed)

    def _deliver(self, front: _Front) -> Verdict:
        if front.fragment & (LAST_FRAGMENT | FRAGMENT_OFFSET) != LAST_FRAGMENT:
            # What else is wrong is judged when the message is whole; this is known before.
            if (front.fragment & FRAGMENT_OFFSET) + len(front.data) - front.start > self._max_message_size:
                return Dropped("fragment beyond max-message-size")
            return Fragment(front.data, front.start, front.previous_hop)
        flaw = self._judge_options(front, _DESTINATION_CRITICAL)
        if flaw is not None:
            return flaw
        try:
            header, start = ForwardingHeader.decode_prefix(front.data, self._configuration.context)
        except DecodeError:
            return Dropped("malformed header")
        return Deliver(header, front.data, start, front.previous_hop)

    def _refuse(self, error: RELOADError, front: _Front) -> Refused | Dropped:
        """Refuse a request; anything else is only dropped."""
        if front.request:
            try:
                header, _ = ForwardingHeader.decode_prefix(front.data, self._configuration.context)
            except DecodeError:
                return Dropped("malformed header")
            return Refused(error, header, front.previous_hop)
        return Dropped(str(error))

    def _decide(self, front: _Front) -> tuple[int, NodeId | Dropped | None]:
        """Where the Destination List leads: to a node, to us (None) or nowhere (RFC 6940 §6.1).

        Before that: where what remains of the list begins, once our own entries are taken off.
        """
        data, pos, end = front.data, front.lists, front.options
        size = self._id_size
        node_front = self._node_front
        while pos < end:
            if data[pos : pos + 2] == node_front:
                after = pos + 2 + size
                if after > end:
                    break
                node_id = NodeId(data[pos + 2 : after])
                if node_id == self._wildcard:
                    return pos, None
                if node_id != self.node_id:
                    return pos, self._hop_to_node(node_id, front.previous_hop)
                if after == end:
                    return pos, None
                pos = after
                continue
            kind = data[pos]
            if kind >= 0x80 or kind == _OPAQUE:
                # We keep our state in Via Lists and so issue no opaque IDs: none can be ours.
                return pos, Dropped("unknown opaque ID")
            if kind != _RESOURCE:
                return pos, Dropped("unknown destination type")
            if pos + 3 > end or data[pos + 1] != data[pos + 2] + 1:
                break
            after = pos + 2 + data[pos + 1]
            if after < end:
                return pos, Dropped("Resource-ID before the end")
            if after > end:
                break
            resource = data[pos + 3 : after]
            if self.routes.is_responsible(resource):
                return pos, None
            return pos, self._hop_to_resource(resource, front.previous_hop)
        return pos, Dropped("malformed Destination List")

    def _hop_to_node(self, node_id: NodeId, previous_hop: NodeId | None) -> NodeId | Dropped:
        # RFC 6940 s6.1.2: "If the first entry on the Destination List is in the peer's Connection Table, the
        # peer MUST forward the message to that peer directly."
        if self.routes.connected(node_id):
            return node_id
        # s6.1.1: "the node MUST drop the message silently unless the Node-ID corresponds to a node which is
        # directly connected".
        if self.routes.is_responsible(node_id):
            return Dropped("no such node")
        return self.routes.next_hop(node_id, previous_hop) or Dropped(NO_ROUTE)

    def _hop_to_resource(self, resource: bytes, previous_hop: NodeId | None) -> NodeId | Dropped:
        if len(resource) == self._id_size and self.routes.connected(NodeId(resource)):
            return NodeId(resource)  # RFC 6940 s10.3
        return self.routes.next_hop(resource, previous_hop) or Dropped(NO_ROUTE)

    def _via_is_sound(self, data: bytes, pos: int, end: int) -> bool:
        """Whether a Via List holds nothing but Node-IDs and opaque IDs, as it must (RFC 6940 §6.3.2.2)."""
        step = self._id_size + 2
        entries, rest = divmod(end - pos, step)
        types, lengths = data[pos:end:step], data[pos + 1 : end : step]
        if not rest and types.count(_NODE) == entries == lengths.count(step - 2):
            return True
        return all(front is not None and front[0] != _RESOURCE for front in self._entries(data, pos, end))

    def _entries(self, data: bytes, pos: int, end: int) -> Sequence[bytes | None]:
        """Each entry of a list, as bytes; None for the first that is not sound."""
        entries: list[bytes | None] = []
        while pos < end:
            after = self._entry_end(data, pos, end)
            if not after:
                return [*entries, None]
            entries.append(data[pos:after])
            pos = after
        return entries

    def _entry_end(self, data: bytes, pos: int, end: int) -> int:
        """Where the entry at `pos` of a list ends; 0 if it is not sound."""
        kind = data[pos]
        if kind >= 0x80:
            after = pos + 2
        elif not kind or pos + 1 == end:
            return 0
        else:
            size = data[pos + 1]
            after = pos + 2 + size
            if after > end or (kind == _NODE and size != self._id_size):
                return 0
            # Resource-IDs and opaque IDs have a length of their own within.
            if kind in (_RESOURCE, _OPAQUE) and (not size or data[pos + 2] != size - 1):
                return 0
        return after if after <= end else 0

    def _judge_options(self, front: _Front, critical: int) -> Refused | Dropped | None:
        """What is wrong with the forwarding options for one whom the flag `critical` concerns."""
        pos, end = front.options, front.start
        unsupported = False
        while pos < end:
            if pos + _OPTION.size > end:
                return Dropped("malformed forwarding option")
            kind, flags, length = _OPTION.unpack_from(front.data, pos)
            if not kind:
                break
            pos += _OPTION.size + length
            unsupported = unsupported or bool(flags & critical and kind not in self.understood_options)
        if pos != end:
            return Dropped("malformed forwarding option")
        # RFC 6940 s6.3.2.3: the flags "MUST NOT be set in a response"; there they mean nothing.
        if unsupported and not front.answer:
            return self._refuse(UnsupportedForwardingOption("unsupported forwarding option"), front)
        return None


def _read_front(previous_hop: NodeId, data: bytes) -> _Front | Dropped:
    """Find the parts of a message, if it is one at all."""
    have = len(data)
    if have < FIXED_SIZE:
        return Dropped("truncated header")
    token, overlay, version, ttl, fragment, length, via, destinations, options = _FIXED.unpack_from(data)
    if token != RELO_TOKEN:
        return Dropped("not RELOAD")
    if version != VERSION:
        return Dropped("other version")
    if not fragment & LEGAL_FRAGMENT:
        return Dropped("fragment bit unset")
    lists = FIXED_SIZE + via
    start = lists + destinations + options
    if have < start:
        return Dropped("truncated header")
    request = answer = False
    # Only the fragment with offset 0 tells whether it is a request; errors answer requests alone.
    if not fragment & FRAGMENT_OFFSET:
        if have < start + 2:
            return Dropped("truncated contents")
        request = is_request(_CODE.unpack_from(data, start)[0])
        answer = not request
    at = lists + destinations
    return _Front(data, previous_hop, overlay, ttl, fragment, length, lists, at, start, request, answer)
