"""Overlay links; over TLS: framing, back-pressure, and the watch over its ACKs (RFC 6940 §6.6.5)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from zope.interface import implementer

from ..errors import LinkError
from ..framing import Condition, StreamFraming
from ..hostport import address_text
from ..ids import NodeId
from ..interfaces import ILink
from ..security.identity import CertificateError, Identity
from .handshake import Secured, SecuredConnection

TLS_TCP_FH_NO_ICE = "TLS-TCP-FH-NO-ICE"

MOST_QUEUED = 1 << 20
"""Bytes of messages that wait for a link that is blocked; further ones are refused."""

AT_ONCE = 4
"""Messages that are taken up in one turn of the reactor.

What they cause is sent at the end of the turn: so the other end works on it while this one takes up the next,
instead of both waiting for each other's whole burst; and no link keeps the others waiting for long.
"""


@implementer(ILink)
class OverlayLink(SecuredConnection):
    """What the links of every kind have in common: who is at the other end, and what its owner is told."""

    protocol = ""
    node_id = NodeId(b"")
    identity: Identity
    _failing = False

    def __init__(self, service: Secured, address: str, outgoing: bool, expected: NodeId | None) -> None:
        super().__init__(service, address, outgoing, expected)
        self._host = service.host
        self.listening = address if outgoing else ""

    @property
    def candidate_pair(self) -> str:
        """The addresses of both ends, for people; with ICE the candidate pair that it chose."""
        here: Any = self.tls.getHost()
        return f"{address_text(here.host, here.port)} -> {self.address}"

    @property
    def rtt(self) -> float | None:
        """Smoothed round-trip time in seconds (RFC 6298)."""
        raise NotImplementedError

    def send(self, message: bytes) -> bool:
        raise NotImplementedError

    def close(self, reason: Exception | None = None) -> None:
        raise NotImplementedError

    def _judge(self, identity: Identity) -> NodeId:
        node_id = super()._judge(identity)
        if not self.outgoing and self.service.crowded(node_id):
            raise CertificateError("too many links of one node", "there are too many links of this node")
        return node_id

    def proved(self, identity: Identity, node_id: NodeId) -> None:
        self.identity = identity
        self.node_id = node_id
        self._host.owner.link_opened(self)

    def ended(self, reason: Exception | None) -> None:
        self._host.owner.link_closed(self, reason)
        self._give_back()

    def _set_failing(self, failing: bool) -> None:
        """Tell the owner that the link fails, or works again; what the other end may not have got is given back."""
        if failing and not self._failing:
            self._failing = True
            self._host.owner.link_failing(self)
            self._give_back()
        elif self._failing and not failing:
            self._failing = False
            self._host.owner.link_recovered(self)

    def _give_back(self) -> None:
        """Tell the owner what the other end may not have got: there may be another way for it."""
        undelivered = self._take_undelivered()
        if undelivered:
            self._host.owner.messages_undelivered(self, undelivered)

    def _take_undelivered(self) -> Sequence[bytes]:
        """What was not acknowledged, or not sent at all; it is not kept any longer."""
        raise NotImplementedError

    def _die(self, why: str) -> None:
        """End a link whose other end does not answer any more."""
        self.reason = LinkError(why)
        self.closing = True
        self.tls.abortConnection()


@implementer(IPushProducer)
class TLSLink(OverlayLink):
    """One overlay link over TLS.

    What TCP does not take at once waits here, in a queue bounded in bytes; while it waits only the newest ACK
    is kept, so that a peer that sends without reading costs nothing.
    """

    protocol = TLS_TCP_FH_NO_ICE

    def __init__(self, service: Secured, address: str, outgoing: bool, expected: NodeId | None) -> None:
        super().__init__(service, address, outgoing, expected)
        self._framing = StreamFraming(service.host.configuration.max_message_size)
        self._blocked = False
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._watch_set = False
        self._arrived: deque[bytes] = deque()
        self._taking: IDelayedCall | None = None

    @property
    def rtt(self) -> float | None:
        return self._framing.round_trip.smoothed

    def proved(self, identity: Identity, node_id: NodeId) -> None:
        self.tls.registerProducer(self, True)
        super().proved(identity, node_id)

    def ended(self, reason: Exception | None) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None
        # What the other end sent before it closed still counts.
        self._take_up(len(self._arrived))
        super().ended(reason)

    def _take_undelivered(self) -> Sequence[bytes]:
        undelivered = [*self._framing.take_unacknowledged(), *self._queue]
        self._queue.clear()
        self._queued = 0
        return undelivered

    # -- sending

    def send(self, message: bytes) -> bool:
        if self.closing or len(message) > self._host.configuration.max_message_size:
            return False
        if self._blocked:
            if self._queued + len(message) > MOST_QUEUED:
                return False
            self._queue.append(message)
            self._queued += len(message)
            return True
        self._write(message)
        return True

    def _write(self, message: bytes) -> None:
        now = self._host.clock.seconds()
        self.tls.write(self._framing.send(message, now))
        if not self._watch_set:
            self._watch_set = True
            self._timer = self._host.clock.callLater(self._framing.round_trip.rto, self._watch)

    def _watch(self) -> None:
        """See whether ACKs are overdue (RFC 6940 §6.6.5); one timer that is left to run, not one per
        message.
        """
        self._watch_set = False
        if self.closing:
            return
        now = self._host.clock.seconds()
        condition = self._framing.check(now)
        if condition is Condition.DEAD:
            self._die("no ACK for 30 s")
            return
        if condition is Condition.FAILING:
            self._set_failing(True)
        due = self._framing.next_timeout()
        if due is not None and not self.closing:
            self._watch_set = True
            # Not later than that: a link that recovers meanwhile may soon be failing again.
            delay = min(due - now, self._framing.round_trip.rto)
            self._timer = self._host.clock.callLater(max(0.0, delay), self._watch)

    def pauseProducing(self) -> None:
        self._blocked = True

    def resumeProducing(self) -> None:
        self._blocked = False
        self._write_acks()
        while self._queue and not self._blocked and not self.closing:
            message = self._queue.popleft()
            self._queued -= len(message)
            self._write(message)

    def stopProducing(self) -> None:
        self._blocked = True

    def _write_acks(self) -> None:
        if self._blocked:
            self._framing.drop_old_acks()
        elif acks := self._framing.take_acks():
            self.tls.write(acks)

    def close(self, reason: Exception | None = None) -> None:
        if self.closing:
            return
        while self._queue:
            self._write(self._queue.popleft())
        self.tls.unregisterProducer()
        self.disconnect(reason)

    # -- receiving

    def dataReceived(self, data: bytes) -> None:
        if self.closing:
            return
        framing = self._framing
        host = self._host
        framing.max_message_size = host.configuration.max_message_size
        messages = framing.receive(data, host.clock.seconds())
        self._write_acks()
        if framing.condition is Condition.WORKING:
            self._set_failing(False)
        self._arrived.extend(messages)
        if framing.fault is not None:
            self._take_up(len(self._arrived))
            host.owner.link_rejected("framing", self.address)
            self.close(framing.fault)
        elif self._taking is None:
            self._take_up(AT_ONCE)
            if self._arrived:
                self.tls.pauseProducing()
                self._taking = host.clock.callLater(0, self._take_up_more)

    def _take_up(self, most: int) -> None:
        """Hand on the messages that have arrived, at most so many; none once we are closing."""
        arrived, owner = self._arrived, self._host.owner
        for _ in range(min(most, len(arrived))):
            if self.closing:
                arrived.clear()
                return
            owner.message_received(self, arrived.popleft())

    def _take_up_more(self) -> None:
        """Go on with what arrived in an earlier turn; nothing more is read until that is done."""
        self._taking = None
        self._take_up(AT_ONCE)
        if self._arrived:
            self._taking = self._host.clock.callLater(0, self._take_up_more)
        else:
            # Also while we are closing: the other end's goodbye has to be read, or the connection is cut off.
            self.tls.resumeProducing()
