"""The framing of one link: sequence numbers, ACKs, and what they tell of the link (RFC 6940 §6.6.2).

`RoundTrip` and `Acknowledger` serve every link; `StreamFraming` puts them together for links over a reliable
stream (RFC 6940 §6.6.5), `reliability` for links over datagrams, with `Repeats`.  Nothing here does I/O: `now` is an
argument, in seconds.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from enum import Enum
from math import ceil
from struct import Struct

from .errors import LinkError
from .wire.codes import FramedMessageType
from .wire.header import FIXED_SIZE

DATA = int(FramedMessageType.DATA)
ACK = int(FramedMessageType.ACK)
MOST_OUTSTANDING = 4096
"""How many unacknowledged messages have their time remembered; ACKs of later ones give no measurement."""
MOST_KEPT = 1 << 20
"""Bytes of messages that are kept until they are acknowledged; what is sent beyond is lost with the stream."""
MOST_REPEATS = 4096
"""How many messages are remembered, to tell those that come again."""
REPEAT_WINDOW = 2.4
"""Seconds that they are remembered: 0.8 of the default overlay-reliability-timer."""
RETENTION = 30.0
"""Seconds that a failing stream is kept: it may recover (RFC 6940 §6.6.5)."""

_FRONT = Struct("!BIBH")
"""Type, sequence and the 24-bit length of a data frame; the first eight bytes of an ACK as well."""
_ACK = Struct("!BII")
_HEADER_LENGTHS = Struct("!HHH")
MODULUS = 1 << 32
"""Sequence numbers are counted modulo this."""


def data_frame(sequence: int, message: bytes) -> bytes:
    """A FramedMessage of type data."""
    length = len(message)
    return _FRONT.pack(DATA, sequence, length >> 16, length & 0xFFFF) + message


def header_length(data: bytes, start: int) -> int | None:
    """Bytes of the forwarding header of the message that begins at `start`; None if too few are there to tell."""
    if len(data) - start < FIXED_SIZE:
        return None
    via, destinations, options = _HEADER_LENGTHS.unpack_from(data, start + 32)
    length: int = FIXED_SIZE + via + destinations + options
    return length


class RoundTrip:
    """RTT and RTO by RFC 6298 §2, in seconds.

    `minimum` is the least RTO: one second as RFC 6298 says, less on links that RFC 6940 §6.6.3.1 exempts.
    """

    __slots__ = ("minimum", "rto", "smoothed", "variation")

    maximum = 60.0
    granularity = 0.001

    def __init__(self, initial: float = 1.0, minimum: float = 1.0) -> None:
        self.smoothed: float | None = None
        self.variation = 0.0
        self.minimum = minimum
        self.rto = initial

    def measured(self, sample: float) -> None:
        """Take one measurement into the estimate."""
        smoothed = self.smoothed
        if smoothed is None:
            self.smoothed = smoothed = sample
            self.variation = sample / 2
        else:
            self.variation += (abs(smoothed - sample) - self.variation) / 4
            self.smoothed = smoothed = smoothed + (sample - smoothed) / 8
        rto = smoothed + max(self.granularity, 4 * self.variation)
        if rto < self.minimum:
            self.rto = self.minimum
        else:
            # RFC 6940 s6.6.3.1: "rounded up to the nearest millisecond".
            self.rto = min(ceil(rto * 1000) / 1000, self.maximum)


class Acknowledger:
    """The receiving half of a link: makes the ACK of each data frame and tells duplicates."""

    __slots__ = ("_count", "_recent")

    def __init__(self) -> None:
        self._count = 0
        # While all came in order, from 0, their number says which; only disorder needs the list.
        self._recent: deque[int] | None = None

    def received(self, sequence: int) -> tuple[bytes, bool]:
        """The ACK frame for `sequence`, and whether it is among the 32 received before it."""
        recent = self._recent
        if recent is None:
            count = self._count
            if sequence == count % MODULUS:
                self._count = count + 1
                # RFC 6940 s6.6.2: "the N-M bit of the received bitmask is set to one", for N-32 < M < N.
                return _ACK.pack(ACK, sequence, (2 << min(count, 31)) - 2), False
            recent = self._recent = deque((n % MODULUS for n in range(max(0, count - 32), count)), 32)
        mask = 0
        for earlier in recent:
            behind = (sequence - earlier) % MODULUS
            if 0 < behind < 32:
                mask |= 1 << behind
        repeated = sequence in recent
        recent.append(sequence)
        return _ACK.pack(ACK, sequence, mask), repeated


class Repeats:
    """Tells the messages that the other end of a link sent again, by their bytes: the sequence is a new one.

    `window` is in seconds, counted from the first copy.  It has to be shorter than the overlay-reliability-timer: after
    that the originator sends the very same bytes again, because its answer has not come, and those must get through.
    So a late retransmission of the link, which may come up to 15 RTO after the first, gets through as well.  It does no
    harm: of a request the destination knows the transaction_id and repeats its answer (`transport.answers`), an answer
    finds its transaction gone; in between it costs its way once more.  The same holds for what is forgotten because
    there is too much of it.
    """

    __slots__ = ("_seen", "window")

    def __init__(self, window: float) -> None:
        self.window = window
        self._seen: OrderedDict[int, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def is_repeated(self, message: bytes, now: float) -> bool:
        """Whether `message` was here within the window; it is remembered."""
        seen = self._seen
        while seen and next(iter(seen.values())) <= now - self.window:
            seen.popitem(last=False)
        # Python's own hash: 64 bits of SipHash, with a key of this process.
        key = hash(message)
        if key in seen:
            return True
        if len(seen) >= MOST_REPEATS:
            seen.popitem(last=False)
        seen[key] = now
        return False


class Condition(Enum):
    """What the ACKs say of a link."""

    WORKING = "working"
    FAILING = "failing"
    """ACKs are overdue: on a stream by a whole RTO.  It is not to be routed over."""
    DEAD = "dead"
    """It is not to be waited for: on a stream nothing was acknowledged for `RETENTION` seconds more."""


class StreamFraming:
    """The framing of a link over a reliable stream (RFC 6940 §6.6.5): nothing is retransmitted here.

    `max_message_size` may be changed at any time.  After each `receive`: `take_acks` for what to send,
    `condition` for the link's state, and `fault`, which once set means that the stream is lost and the link
    has to be closed.
    """

    __slots__ = (
        "_acknowledger", "_acks", "_chunks", "_have", "_kept", "_need", "_outstanding", "_quiet_since", "_sent",
        "_unacked", "condition", "duplicates", "fault", "max_message_size", "round_trip",
    )  # fmt: skip

    def __init__(self, max_message_size: int) -> None:
        self.max_message_size = max_message_size
        self.round_trip = RoundTrip()
        self.condition = Condition.WORKING
        self.fault: LinkError | None = None
        self.duplicates = 0
        self._acknowledger = Acknowledger()
        self._acks: list[bytes] = []
        self._sent = 0
        self._unacked = 0
        self._outstanding: deque[tuple[int, float, bytes]] = deque()
        self._kept = 0
        self._quiet_since = 0.0
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 0

    # -- sending

    def send(self, message: bytes, now: float) -> bytes:
        """The frame that carries `message`; it counts as sent at `now`."""
        number = self._sent
        self._sent = number + 1
        if number == self._unacked:
            self._quiet_since = now
        length = len(message)
        if len(self._outstanding) < MOST_OUTSTANDING:
            kept = message if self._kept + length <= MOST_KEPT else b""
            self._kept += len(kept)
            self._outstanding.append((number, now, kept))
        return _FRONT.pack(DATA, number % MODULUS, length >> 16, length & 0xFFFF) + message

    def _acknowledged(self, sequence: int, now: float) -> None:
        """Note an ACK.  The stream keeps order, so it stands for every message before it too."""
        number = self._unacked + (sequence - self._unacked) % MODULUS
        if number >= self._sent:
            return  # of a message acknowledged before, or never sent
        self._unacked = number + 1
        self._quiet_since = now
        outstanding = self._outstanding
        while outstanding and outstanding[0][0] <= number:
            sent_number, sent_at, kept = outstanding.popleft()
            self._kept -= len(kept)
            if sent_number == number:
                self.round_trip.measured(now - sent_at)
        self.condition = Condition.WORKING

    def next_timeout(self) -> float | None:
        """When to call `check` next; None while everything is acknowledged."""
        if self._unacked == self._sent or self.condition is Condition.DEAD:
            return None
        due = self._quiet_since + self.round_trip.rto
        return due if self.condition is Condition.WORKING else due + RETENTION

    def check(self, now: float) -> Condition:
        """Bring `condition` up to `now`."""
        due = self.next_timeout()
        while due is not None and now >= due:
            working = self.condition is Condition.WORKING
            self.condition = Condition.FAILING if working else Condition.DEAD
            due = self.next_timeout()
        return self.condition

    def take_unacknowledged(self) -> list[bytes]:
        """The messages that were not acknowledged so far; they are not kept any longer."""
        taken = [message for _, _, message in self._outstanding if message]
        self._outstanding = deque((number, sent_at, b"") for number, sent_at, _ in self._outstanding)
        self._kept = 0
        return taken

    # -- receiving

    def take_acks(self) -> bytes:
        """The ACK frames for what was received since the last call."""
        acks = self._acks
        if not acks:
            return b""
        taken = acks[0] if len(acks) == 1 else b"".join(acks)
        acks.clear()
        return taken

    def drop_old_acks(self) -> None:
        """Keep only the newest ACK, whose bitmask tells of those before: for a link that is blocked."""
        del self._acks[:-1]

    def receive(self, data: bytes, now: float) -> list[bytes]:
        """Take the next bytes of the stream; answers the messages that they complete.

        Of a message larger than `max_message_size` only the beginning is answered, as the last one: its whole
        forwarding header and at least the message code, so that the error can be sent (RFC 6940 §6.6).
        """
        if self.fault is not None:
            return []
        if self._chunks:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._chunks)
            self._chunks.clear()
        messages: list[bytes] = []
        acks = self._acks
        have = len(data)
        pos = 0
        need = 9
        while have - pos >= 8:
            kind, sequence, high, low = _FRONT.unpack_from(data, pos)
            if kind == DATA:
                start = pos + 8
                end = start + (high << 16) + low
                if end - start > self.max_message_size:
                    need = self._oversized(data, start, messages)
                    break
                if end > have:
                    need = end - pos
                    break
                pos = end
                ack, repeated = self._acknowledger.received(sequence)
                acks.append(ack)
                if repeated:
                    self.duplicates += 1
                else:
                    messages.append(data[start:end])
            elif kind == ACK:
                if have - pos < 9:
                    break
                pos += 9
                self._acknowledged(sequence, now)
            else:
                self.fault = LinkError(f"frame of unknown type {kind}")
                break
        if pos < have and self.fault is None:
            self._chunks.append(data[pos:] if pos else data)
            self._have = have - pos
            # A short front may turn out to be either type of frame: eight bytes tell.
            self._need = need if self._have >= 8 else 8
        return messages

    def _oversized(self, data: bytes, start: int, messages: list[bytes]) -> int:
        """How many bytes of a frame, whose message begins at `start` and is too large, must be there
        first.
        """
        header = header_length(data, start)
        if header is None:
            return 8 + FIXED_SIZE
        if header > self.max_message_size:
            self.fault = LinkError("forwarding header larger than max-message-size")
        elif len(data) - start < header + 2:
            return 8 + header + 2
        else:
            self.fault = LinkError("message larger than max-message-size")
            messages.append(data[start : start + self.max_message_size])
        return 0
