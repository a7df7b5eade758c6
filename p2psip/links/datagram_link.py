"""One overlay link over DTLS: Simple Reliability, fragments, and the watch over its ACKs (RFC 6940 §6.6.3, §6.7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

from ..errors import LinkError
from ..forwarding.fragments import fragments
from ..framing import Condition
from ..ids import NodeId
from ..interfaces import IPathProbe
from ..reliability import SimpleReliability
from .dtls import HANDSHAKE_MTU, MOST_RECORD, RECORD_OVERHEAD, DTLSTransport
from .handshake import CLOSING_TIME, Secured
from .link import OverlayLink

FRAME_OVERHEAD = 8
"""Bytes that a data frame adds to its message."""
LEAST_MESSAGE = HANDSHAKE_MTU - RECORD_OVERHEAD - FRAME_OVERHEAD
"""Bytes of a message that go in one datagram over every path."""
LEAST_PROBE_TIME = 1.0
"""Seconds that the ACK of a probe is waited for at least (RFC 8899 §5.1.1)."""


@implementer(IPathProbe)
class DTLSLink(OverlayLink):
    """One overlay link over DTLS.  A message larger than the path takes is sent in fragments.

    That is `LEAST_MESSAGE`, until a `probe` has shown that the path takes more.
    """

    def __init__(
        self, service: Secured, protocol: str, address: str, outgoing: bool, expected: NodeId | None
    ) -> None:
        super().__init__(service, address, outgoing, expected)
        self.protocol = protocol
        configuration = service.host.configuration
        repeated = 0.8 * configuration.overlay_reliability_timer / 1000
        self._framing = SimpleReliability(
            configuration.max_message_size, repeat_window=repeated, least=LEAST_MESSAGE, cut=fragments
        )
        self._due: IDelayedCall | None = None
        self._draining = False
        self._silent = False
        self._pair: Callable[[], str] | None = None
        self.path_shrunk: Callable[[], object] = lambda: None
        self._mtu = self.mtu
        """As it was when we looked last."""
        self._probe: Deferred[bool] | None = None
        self._probe_size = 0
        self._probe_timer: IDelayedCall | None = None

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

    @property
    def mtu(self) -> int:
        return self._framing.path.most

    def seed(self, rtt: float) -> None:
        """Begin with the RTT of a STUN transaction, in seconds (RFC 6940 §6.6.3.1)."""
        self._framing.seed(rtt)

    def ended(self, reason: Exception | None) -> None:
        self._stop_waiting()
        self._end_probe(None)
        super().ended(reason)

    def _take_undelivered(self) -> Sequence[bytes]:
        return self._framing.take_undelivered()

    # -- sending

    def send(self, message: bytes) -> bool:
        if self.closing or self._draining or len(message) > self._host.configuration.max_message_size:
            return False
        pieces = fragments(message, self.mtu)
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
        self._look_at_mtu()
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

    # -- how much the path takes

    def probe(self, message: bytes) -> Deferred[bool]:
        if self.closing or self._draining or self._failing or self._probe is not None:
            return fail(LinkError("the link is not to be probed now"))
        if len(message) > min(self._host.configuration.max_message_size, MOST_RECORD - FRAME_OVERHEAD):
            return fail(LinkError("a probe larger than any message may be"))
        clock = self._host.clock
        frame = self._framing.probe(message, clock.seconds())
        patience = max(LEAST_PROBE_TIME, 2 * self._framing.round_trip.rto)
        self._probe_timer = clock.callLater(patience, self._end_probe, False)
        self._probe = probe = Deferred[bool]()
        self._probe_size = len(message)
        cast(DTLSTransport, self.transport).write_unfragmented(frame)
        return probe

    def _look_at_mtu(self) -> None:
        """See what ACKs, and their absence, have told."""
        before, self._mtu = self._mtu, self.mtu
        if self._probe is not None and not self._framing.probing:
            self._end_probe(self.mtu >= self._probe_size)
        if self._mtu < before:
            self.path_shrunk()

    def _end_probe(self, passed: bool | None) -> None:
        """A probe is over; None: it told nothing."""
        probe, self._probe = self._probe, None
        if self._probe_timer is not None and self._probe_timer.active():
            self._probe_timer.cancel()
        self._probe_timer = None
        if probe is not None and passed is not None:
            probe.callback(passed)
        elif probe is not None:
            probe.errback(LinkError("the link has ended"))

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
        if framing.fault is not None and not self._draining:
            host.owner.link_rejected("framing", self.address)
            self.close(framing.fault)
        elif message is None and not self.closing:
            self._work()  # an ACK, most likely; a message changes nothing of what is to be sent
