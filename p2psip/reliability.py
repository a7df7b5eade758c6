"""Simple Reliability: a link over datagrams that are lost, repeated and overtaken (RFC 6940 §6.6.3).

The receiver acknowledges.  All else is the sender's, and its algorithm is free as long as it meets RFC 5405, today RFC
8085: a congestion window (`congestion`), pacing, and the retransmissions of RFC 6940 §6.6.3.1.  Messages do not wait
for each other.  Nothing here does I/O: `now` is an argument, in seconds.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from struct import Struct

from .congestion import OVERHEAD, CongestionWindow, Pacer
from .errors import LinkError
from .framing import (
    ACK,
    DATA,
    MODULUS,
    MOST_KEPT,
    REPEAT_WINDOW,
    Acknowledger,
    Condition,
    Repeats,
    RoundTrip,
    data_frame,
    header_length,
)
from .pathmtu import PathMTU

INITIAL_RTO = 0.5
LEAST_RTO = 0.2
"""Seconds.  RFC 6298 has a second, from which RFC 6940 §6.6.3.1 exempts these links: their ACKs are never delayed on
purpose.  But the other end may be busy with signatures for some tens of milliseconds, and a timer that fires meanwhile
collapses the window.  Implementations of TCP have the same 200 ms."""
MOST_TRANSMISSIONS = 5
SUSPECT = 2
"""Transmissions of a large message that are lost, until the path is taken to carry none as large any more."""
FAILING_AFTER = 3
"""Retransmissions that go unanswered after a whole RTO of silence, until the link is failing."""
REORDERING = 3
"""Transmissions acknowledged out of turn, until an earlier one is taken for lost (RFC 5681 §3.2)."""
PAUSE = 0.01
"""Seconds between an ACK and the next message, of the stop-and-wait sender."""
MOST_REMEMBERED = 4096
"""Transmissions that are remembered for their ACKs."""
MOST_ACKS = 64
"""ACKs that wait to be taken; the newest ones tell of the others."""

_NEVER = float("inf")
_LARGEST = (1 << 24) - 1
_FRONT = Struct("!BI")
_ACK_FRAME = Struct("!BII")


class _Message:
    """One message on its way: `number` is that of its last transmission, `due` when the wait for its ACK is over."""

    __slots__ = (
        "content", "due", "first", "given_back", "lost", "number", "order", "size", "transmissions", "wait", "whole",
    )  # fmt: skip

    def __init__(self, content: bytes, order: int, whole: bytes | None = None) -> None:
        self.content = content
        self.whole = content if whole is None else whole
        """What it is, or was cut from."""
        self.order = order
        self.first = -1
        self.size = len(content) + OVERHEAD
        self.transmissions = 0
        self.number = -1
        self.wait = 0.0
        self.due: float | None = None
        self.lost = False
        self.given_back = False


class SimpleReliability:
    """The framing of one link over datagrams, each of which carries one FramedMessage.

    After `send`, `receive`, and at `next_timeout`: send what `datagrams_to_send` answers, and look at `condition`.

    A message leaves when the congestion window has room, five times at most: again when its RTO is over, each time
    after twice the wait; when three later transmissions were acknowledged; or a moment after a single one was (RFC
    8985).  The oldest goes first, so that, when nothing is acknowledged any more, it leaves 0, 1, 3, 7 and 15 RTO after
    its first transmission: at 7 RTO the link is `FAILING` (RFC 6940 §6.6.3.1: the third retransmission after an RTO of
    silence), at 31 RTO it is `DEAD`.  Any ACK makes a failing link `WORKING` again.  A message that fails while the
    link works says nothing of the link: it is dropped and counted in `given_up`.

    Only ack_sequence acknowledges.  The mask of an ACK is believed as far as it does no harm: what it tells of is not
    taken for lost, and is in flight no more.

    `stop_and_wait` makes the sender of RFC 6940 §6.6.3.1: one message at a time, 10 ms after the last ACK.

    Messages of `least` bytes pass every path.  `probe` finds out whether larger ones do; those that do no more are
    sent again in the pieces that `cut(message, most)` makes of them.

    :ivar path: how large messages may be, as far as is known.
    :ivar fault: why the link has to be closed, once it is set: the other end sent a message that is too large.
    :ivar duplicates: messages received that were repeated; `malformed`: datagrams that were no FramedMessage.  They are
        no fault: the next datagram begins anew.
    """

    def __init__(
        self,
        max_message_size: int,
        *,
        rto: float = INITIAL_RTO,
        repeat_window: float = REPEAT_WINDOW,
        stop_and_wait: bool = False,
        least: int = _LARGEST,
        cut: Callable[[bytes, int], Sequence[bytes]] = lambda message, most: (message,),
    ) -> None:
        self.max_message_size = max_message_size
        self.round_trip = RoundTrip(initial=rto, minimum=min(rto, LEAST_RTO))
        self.condition = Condition.WORKING
        self.fault: LinkError | None = None
        self.duplicates = 0
        self.malformed = 0
        self.given_up = 0
        self.retransmissions = 0
        self.window = CongestionWindow()
        self.repeats = Repeats(repeat_window)
        self.path = PathMTU(least)
        self._cut = cut
        self._stop_and_wait = stop_and_wait
        self._pacer = Pacer()
        self._acknowledger = Acknowledger()
        self._acks: deque[bytes] = deque(maxlen=MOST_ACKS)
        self._order = 0
        self._kept = 0
        self._queue: deque[_Message] = deque()
        self._unacked: dict[int, _Message] = {}
        # Of each transmission, by its number: the message and the time, for its ACK.
        self._sent: OrderedDict[int, tuple[_Message, float]] = OrderedDict()
        # Of those in flight, in their order: the message, and how many later ones were acknowledged.
        self._flight: dict[int, tuple[_Message, int]] = {}
        self._lost: list[tuple[int, _Message]] = []
        self._timers: list[tuple[float, int, _Message]] = []
        self._next = 0
        # Numbers that divide transmissions: sent before or after the last ACK, timeout, reduction of the window.
        self._heard = self._timed_out = self._reduced = 0
        self._silent = 0
        self._last_sent = 0.0
        self._paused_until = 0.0
        self._probe: _Message | None = None

    def seed(self, rtt: float) -> None:
        """Take the RTT of a STUN transaction, in seconds, for the first measurement (RFC 6940 §6.6.3.1)."""
        if self.round_trip.smoothed is None:
            self.round_trip.measured(rtt)

    # -- sending

    @property
    def backlog(self) -> int:
        """Bytes that are queued or not acknowledged, `OVERHEAD` for each message included."""
        return self._kept

    def send(self, messages: bytes | Sequence[bytes], now: float) -> bool:
        """Queue a message, or several of which all or none are to leave; False when there is no room for them.

        What is queued and what is not acknowledged may take `MOST_KEPT` bytes together, `OVERHEAD` for each included.
        """
        contents = [messages] if isinstance(messages, bytes) else messages
        size = sum(len(content) + OVERHEAD for content in contents)
        if self.condition is Condition.DEAD or self._kept + size > MOST_KEPT:
            return False
        self._kept += size
        for content in contents:
            self._queue.append(_Message(content, self._order))
            self._order += 1
        return True

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """The frames that may leave now, each in a datagram of its own: every ACK, then what the window admits."""
        datagrams = self.take_acks()
        if self.check(now) is Condition.DEAD:
            return datagrams
        while (message := self._candidate()) is not None and self._leaves_at(message) <= now:
            if not self._cut_up(message):
                datagrams.append(self._transmit(message, now))
        return datagrams

    def next_timeout(self, now: float) -> float | None:
        """When to call `datagrams_to_send` next, unless something happens before; None: not until then."""
        if self._acks:
            return now
        if self.condition is Condition.DEAD:
            return None
        timers = self._timers
        while timers and timers[0][2].due != timers[0][0]:
            heappop(timers)
        due = timers[0][0] if timers else None
        if (message := self._candidate()) is not None:
            leaves_at = max(now, self._leaves_at(message))
            due = leaves_at if due is None else min(due, leaves_at)
        return None if due == _NEVER else due

    def _candidate(self) -> _Message | None:
        """The message to send next: the oldest that was lost, else the first in the queue."""
        lost = self._lost
        while lost and not lost[0][1].lost:
            heappop(lost)
        if lost:
            return lost[0][1]
        return self._queue[0] if self._queue else None

    def _leaves_at(self, message: _Message) -> float:
        if self._stop_and_wait:
            if message.lost:
                return 0.0
            return _NEVER if self._unacked else self._paused_until
        if not self.window.in_flight:
            return 0.0  # one message alone is no burst
        return self._pacer.free_at if self.window.admits(message.size) else _NEVER

    def _transmit(self, message: _Message, now: float) -> bytes:
        if message.lost:
            heappop(self._lost)
            message.lost = False
            self.retransmissions += 1
        else:
            self._queue.popleft()
            self._unacked[message.order] = message
        round_trip, window = self.round_trip, self.window
        if now - self._last_sent > round_trip.rto:
            window.idle()
        self._last_sent = now
        number = message.number = self._numbered(message, now)
        if not message.transmissions:
            message.first = number
        message.transmissions += 1
        # RFC 6298 §5.5 backs off the whole connection, RFC 6940 §6.6.3.1 each message.
        message.wait = max(message.wait, round_trip.rto * 2 ** min(self._silent, MOST_TRANSMISSIONS - 1))
        message.due = now + message.wait
        self._set_timer(message.due, number, message)
        self._flight[number] = message, 0
        window.sent(message.size)
        self._pacer.sent(message.size, window, round_trip.smoothed, now)
        return data_frame(number % MODULUS, message.content)

    def _numbered(self, message: _Message, now: float) -> int:
        """The number of the next transmission, which is one of `message`."""
        number = self._next
        self._next = number + 1
        self._sent[number] = message, now
        if len(self._sent) > MOST_REMEMBERED:
            self._sent.popitem(last=False)
        return number

    def _set_timer(self, due: float, number: int, message: _Message) -> None:
        if len(self._timers) > 2 * len(self._unacked) + MOST_REMEMBERED:
            # Those of what was acknowledged long ago, while an older one waits in front of them.
            self._timers = [timer for timer in self._timers if timer[2].due == timer[0]]
            heapify(self._timers)
        heappush(self._timers, (due, number, message))

    # -- how large it may be

    @property
    def probing(self) -> bool:
        """Whether the last `probe` may still be acknowledged."""
        return self._probe is not None

    def probe(self, message: bytes, now: float) -> bytes:
        """The frame of a message that may be too large for the path, to be sent at `now`; its ACK makes `path` grow.

        It is sent once, whatever the window says, and it says nothing of the link if it is lost (RFC 8899 §3, §4.1).
        """
        self._probe = _Message(message, -1)
        return data_frame(self._numbered(self._probe, now) % MODULUS, message)

    def _cut_up(self, message: _Message) -> bool:
        """Put pieces in the place of a message to be sent next that the path does not take; whether there are any."""
        content, whole = message.content, message.whole
        pieces = self._cut(content, self.path.most) if len(content) > self.path.most else ()
        if len(pieces) < 2:
            return False
        if message.lost:
            self._forget(message)
        else:
            self._queue.popleft()
            self._kept -= message.size
        made = [_Message(piece, self._order + place, whole) for place, piece in enumerate(pieces)]
        for each in made:
            each.given_back = message.given_back
            self._kept += each.size
        self._order += len(made)
        self._queue.extendleft(reversed(made))
        return True

    # -- what becomes of it

    def check(self, now: float) -> Condition:
        """Bring `condition` up to `now`."""
        timers = self._timers
        while timers and timers[0][0] <= now and self.condition is not Condition.DEAD:
            due, _, message = heappop(timers)
            if message.due == due:
                self._expired(message)
        return self.condition

    def _expired(self, message: _Message) -> None:
        """The wait for the ACK of its last transmission is over."""
        message.due = None
        number = message.number
        _, later = self._flight.pop(number, (None, -1))
        if later >= 0:
            self.window.withdrawn(message.size)
        if later > 0:
            self._loss(number)
        else:
            message.wait *= 2
        if later == 0 and number >= self._timed_out:  # else the window has collapsed since
            self.window.collapse(again=self._silent > 0)
            self._timed_out = self._reduced = self._next
            if number >= self._heard:
                self._unanswered()
        if message.transmissions < MOST_TRANSMISSIONS:
            self._retransmit(message)
        elif self.condition is Condition.FAILING and len(self._unacked) == 1 and not self._queue:
            self.condition = Condition.DEAD  # nothing is left that could find out more
        elif self.condition is not Condition.DEAD:
            self._forget(message)
            self.given_up += 1

    def _unanswered(self) -> None:
        """Nothing was acknowledged while a transmission waited, for an RTO or more."""
        self._silent += 1
        if self._silent >= MOST_TRANSMISSIONS:
            self.condition = Condition.DEAD
        elif self._silent >= FAILING_AFTER:
            self.condition = Condition.FAILING

    def _loss(self, number: int) -> None:
        """Transmission `number` is lost: halve the window, once for all that was lost of one flight."""
        if number >= self._reduced:
            self.window.halve()
            self._reduced = self._next

    def _retransmit(self, message: _Message) -> None:
        message.due = None
        message.lost = True
        heappush(self._lost, (message.order, message))
        if message.transmissions >= SUSPECT and self.path.lost(message.size - OVERHEAD, message.first):
            self._probe = None  # what it told would be old

    def _forget(self, message: _Message) -> None:
        """It is not waited for any more."""
        if self._unacked.pop(message.order, None) is not None:
            self._kept -= message.size
            message.content = message.whole = b""  # its transmissions are remembered, and so is it
            message.due = None
            message.lost = False
            if self._flight.pop(message.number, None) is not None:
                self.window.withdrawn(message.size)

    def take_undelivered(self) -> list[bytes]:
        """The messages that were not acknowledged or not even sent, each once, for another way.

        They are not sent any more, but for one: only an ACK can tell that a failing link recovers.  It is the last
        that was sent, which has the most transmissions left.  One that had to be cut is answered whole.
        """
        unacked = list(self._unacked.values())
        messages = [*unacked, *self._queue]
        back = [message for message in messages if not message.given_back]
        taken = [message.content for message in back if message.whole is message.content]
        taken += dict.fromkeys(message.whole for message in back if message.whole is not message.content)
        probe = messages[max(0, len(unacked) - 1)] if messages else None
        for message in unacked:
            if message is not probe:
                self._forget(message)
        self._queue = deque(message for message in self._queue if message is probe)
        self._kept = 0
        if probe is not None:
            probe.given_back = True
            self._kept = probe.size
        return taken

    def _acknowledged(self, sequence: int, received: int, now: float) -> None:
        """Note an ACK: it stands for the message, whichever transmission of it arrived."""
        last = self._next - 1
        number = last - (last - sequence) % MODULUS
        message, sent_at = self._sent.pop(number, (None, 0.0))
        if message is None or self.condition is Condition.DEAD:
            return  # never sent, or acknowledged before
        self.round_trip.measured(now - sent_at)
        self.condition = Condition.WORKING
        self._heard = self._next
        self._silent = 0
        self._paused_until = now + PAUSE
        if message is self._probe:
            self._probe = None
            self.path.probed(len(message.content))
        else:
            self.path.arrived(message.size - OVERHEAD, number)
        if self._flight.pop(message.number, None) is not None:
            self.window.arrived(message.size)
        self._forget(message)
        self._overtaken(number, received, now)

    def _overtaken(self, number: int, received: int, now: float) -> None:
        """What `number`, which arrived, and the mask of its ACK tell of the transmissions before it."""
        earlier = []
        for each in self._flight:
            if each >= number:
                break
            earlier.append(each)
        for each in earlier:
            message, later = self._flight[each]
            if number - each < 32 and received >> (number - each) & 1:
                del self._flight[each]
                self.window.arrived(message.size)
                self.path.arrived(message.size - OVERHEAD, each)
            elif later + 1 < REORDERING:
                self._flight[each] = message, later + 1
                self._hurry(message, now)
            else:
                del self._flight[each]
                self.window.withdrawn(message.size)
                self._loss(each)
                if message.transmissions < MOST_TRANSMISSIONS:
                    self._retransmit(message)

    def _hurry(self, message: _Message, now: float) -> None:
        """Wait for it only as long as datagrams overtake each other: a quarter of the RTT, or as much as it varies."""
        trip = self.round_trip
        due = now + max((trip.smoothed or 0.0) / 4, trip.variation)
        if message.transmissions < MOST_TRANSMISSIONS and message.due is not None and due < message.due:
            message.due = due
            self._set_timer(due, message.number, message)

    # -- receiving

    def take_acks(self) -> list[bytes]:
        """The ACK frames for what was received since the last call, each for a datagram; the window is not asked."""
        acks = list(self._acks)
        self._acks.clear()
        return acks

    def receive(self, datagram: bytes, now: float) -> bytes | None:
        """Take one datagram; answers its message, if it carries one that is new.

        Of a message larger than `max_message_size` only the beginning is answered: its whole forwarding header and
        at least the message code, so that the error can be sent (RFC 6940 §6.6).
        """
        kind = datagram[0] if datagram else -1
        if kind == ACK and len(datagram) == _ACK_FRAME.size:
            _, sequence, received = _ACK_FRAME.unpack(datagram)
            self._acknowledged(sequence, received, now)
        elif kind == DATA and len(datagram) >= 8 and int.from_bytes(datagram[5:8]) == len(datagram) - 8:
            return self._received(datagram, now)
        else:
            self.malformed += 1
        return None

    def _received(self, frame: bytes, now: float) -> bytes | None:
        if self.fault is not None:
            return None
        message = frame[8:]
        if len(message) > self.max_message_size:
            return self._oversized(message)
        _, sequence = _FRONT.unpack_from(frame)
        ack, repeated = self._acknowledger.received(sequence)
        self._acks.append(ack)
        if repeated or self.repeats.is_repeated(message, now):
            self.duplicates += 1
            return None
        return message

    def _oversized(self, message: bytes) -> bytes | None:
        length = header_length(message, 0)
        if length is None or length + 2 > self.max_message_size:
            self.fault = LinkError("forwarding header larger than max-message-size")
            return None
        self.fault = LinkError("message larger than max-message-size")
        return message[: self.max_message_size]
