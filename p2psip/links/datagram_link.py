"""One overlay link over DTLS: Simple Reliability, fragments, and the watch over its ACKs (RFC 6940 §6.6.3, §6.7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IDelayedCall

from ..forwarding.fragments import fragments
from ..framing import Condition
from ..ids import NodeId
from ..reliability import SimpleReliability
from .dtls import HANDSHAKE_MTU, MOST_RECORD, RECORD_OVERHEAD
from .handshake import CLOSING_TIME, Secured
from .link import OverlayLink

FRAME_OVERHEAD = 8
"""Bytes that a data frame adds to its message."""
LEAST_MESSAGE = HANDSHAKE_MTU - RECORD_OVERHEAD - FRAME_OVERHEAD
"""Bytes of a message that go in one datagram over every path."""


class DTLSLink(OverlayLink):
    """One overlay link over DTLS.  A message larger than the path takes is sent in fragments.

    `most` is the size in bytes of the largest message that goes whole: `LEAST_MESSAGE` until the path is known to
    take more.
    """

    def __init__(
        self, service: Secured, protocol: str, address: str, outgoing: bool, expected: NodeId | None
    ) -> None:
        super().__init__(service, address, outgoing, expected)
        self.protocol = protocol
        self.most = LEAST_MESSAGE
        configuration = service.host.configuration
        repeated = 0.8 * configuration.overlay_reliability_timer / 1000
        self._framing = SimpleReliability(configuration.max_message_size, repeat_window=repeated)
        self._due: IDelayedCall | None = None
        self._draining = False
        self._silent = False
        self._pair: Callable[[], str] | None = None

    def over_pair(self, pair: Callable[[], str], listening: str) -> None:
        """It runs over what ICE chose: `pair` tells that for people, `listening` where the other end listens."""
        self._pair = pair
        self.listening = listening

    @property
    def candidate_pair(self) -> str:
        return self._pair() if self._pair is not None else super().candidate_pair

    @property
    def rtt(self) -> float | None:
        return self._framing.round_trip.smoothed

    def seed(self, rtt: float) -> None:
        """Begin with the RTT of a STUN transaction, in seconds (RFC 6940 §6.6.3.1)."""
        self._framing.seed(rtt)

    def ended(self, reason: Exception | None) -> None:
        self._stop_waiting()
        super().ended(reason)

    def _take_undelivered(self) -> Sequence[bytes]:
        return self._framing.take_undelivered()

    # -- sending

    def send(self, message: bytes) -> bool:
        if self.closing or self._draining or len(message) > self._host.configuration.max_message_size:
            return False
        pieces = fragments(message, self.most)
        if max(map(len, pieces)) > MOST_RECORD - FRAME_OVERHEAD:
            return False
        if not self._framing.send(pieces, self._host.clock.seconds()):
            return False
        self._work()
        return True

    def _work(self) -> None:
        """Send what may leave now, and look at what the ACKs tell."""
        now = self._host.clock.seconds()
        for frame in self._framing.datagrams_to_send(now):
            self.tls.write(frame)
        condition = self._framing.condition
        if condition is Condition.DEAD:
            self._die("no ACK for the last transmission of a message")
            return
        self._judge_path()
        if self._draining and not self._framing.backlog:
            self.disconnect(self.reason)
            return
        due = self._framing.next_timeout(now)
        if due is not None and not self.closing:
            self._wait_until(due, now)

    def _wait_until(self, due: float, now: float) -> None:
        """Work again at `due`, or earlier: a timer that is set is left to run, since nearly every ACK moves `due`."""
        delay = max(0.0, due - now)
        if self._due is None:
            self._due = self._host.clock.callLater(delay, self._due_now)
        elif due < self._due.getTime():
            self._due.reset(delay)

    def _due_now(self) -> None:
        self._due = None
        if not self.closing:
            self._work()

    def _stop_waiting(self) -> None:
        if self._due is not None and self._due.active():
            self._due.cancel()
        self._due = None

    def path_silent(self, dead: bool) -> None:
        self._silent = True
        if dead:
            super().path_silent(dead)
        else:
            self._judge_path()

    def path_answers(self) -> None:
        self._silent = False
        self._judge_path()

    def _judge_path(self) -> None:
        if self.is_proved and not self.closing:
            self._set_failing(self._silent or self._framing.condition is not Condition.WORKING)

    def close(self, reason: Exception | None = None) -> None:
        """Close as soon as the other end has what was sent, or after `CLOSING_TIME`."""
        if self.closing or self._draining:
            return
        self._draining = True
        self.reason = self.reason or reason
        self._timer = self._host.clock.callLater(CLOSING_TIME, self.disconnect, reason)
        self._work()

    # -- receiving

    def dataReceived(self, data: bytes) -> None:
        if self.closing or not self.is_proved:
            return
        host, framing = self._host, self._framing
        framing.max_message_size = host.configuration.max_message_size
        message = framing.receive(data, host.clock.seconds())
        for ack in framing.take_acks():
            self.tls.write(ack)
        if message is not None:
            host.owner.message_received(self, message)
        if framing.fault is not None:
            host.owner.link_rejected("framing", self.address)
            self.disconnect(framing.fault)
        elif message is None and not self.closing:
            self._work()  # an ACK, most likely; a message changes nothing of what is to be sent
