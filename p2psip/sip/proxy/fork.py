"""A request on its ways, and what comes back: the response context (RFC 3261 §16.2, §16.6 to §16.10).

Sends nothing itself: what it wants sent it asks of an `ISender`, which also keeps the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zope.interface import Interface, implementer

from ..errors import SIPFailure, TransactionTimeout, TransportFailure
from ..interfaces import IResponseUser, ProxyTarget, Source
from ..machines import LET_GO, ClientTransaction
from ..message import Request, Response
from .answers import best_response
from .headers import pop_via
from .loops import incoming_breadth, shares
from .tokens import NOWHERE, End


@dataclass(slots=True)
class Passage:
    """What is the same for all branches of a request."""

    digest: str
    """Of what decides its way; see `loops`."""
    changes: dict[str, list[str]]
    """Header fields that it goes on with; of an empty list: without."""
    caller: End = NOWHERE
    """Where the caller's dialog leads back to."""
    record: Sequence[str] = ()
    """The URIs of our Record-Route towards the caller, "{}" in place of the token; none: the route stays unrecorded."""
    private: bool = False
    """Whether the caller's asserted identity must not leave the overlay (RFC 3325 §7)."""
    caller_source: Source | None = None
    """Where the phone is that the request comes from, if it is served here."""
    media: bool = False
    """Whether the media of the dialog pass through the relay of this node already."""


class ISender(Interface):
    """What sends a request towards a target."""

    def launch(branch: Branch) -> None:
        """Send the request of `branch` to its target; the outcome reaches it, also that it cannot be sent."""

    def cancel(branch: Branch) -> None:
        """Send a CANCEL for `branch`."""

    def heard(branch: Branch, ended: bool) -> None:
        """A response came: the first one, another provisional one, or (`ended`) the last."""


@implementer(IResponseUser)
class Branch:
    """One way of a forked request: a target, then its fallbacks one after the other."""

    __slots__ = (
        "_repeated", "_ways", "attempt", "breadth", "cancelled", "context", "ended", "identifier", "media",
        "proceeding", "sent", "succeeded", "target", "transaction", "tried_authorization",
    )  # fmt: skip

    def __init__(self, context: ResponseContext, target: ProxyTarget, breadth: int) -> None:
        self.context = context
        self.breadth = breadth
        self._ways: list[ProxyTarget] = [target, *target.fallback]
        self.target = self._ways.pop(0)
        self.attempt = 0
        """Counts how often it was sent or tried to be; what belongs to an earlier one means nothing any more."""
        self.identifier = ""
        """Our branch parameter, once it is sent."""
        self.sent: Request | None = None
        """The request as it went out."""
        self.transaction: ClientTransaction | None = None
        self.proceeding = False
        """Whether anything has been heard."""
        self.cancelled = False
        self.ended = False
        self.succeeded = False
        self.media = False
        """Whether the media of this branch go through the relay."""
        self.tried_authorization = False
        self._repeated = False

    @property
    def request(self) -> Request:
        """The request as it came in."""
        return self.context.request

    @property
    def has_other_ways(self) -> bool:
        """Whether there is something else to try for this branch."""
        return bool(self._ways)

    def expand(self, targets: Sequence[ProxyTarget]) -> None:
        """The target turned out to stand for several, to be tried in this order."""
        self._ways[:0] = targets[1:]
        self.target = targets[0]

    # -- what comes back ----------------------------------------------------------------------------------

    def response_received(self, response: Response) -> None:
        """See `IResponseUser`."""
        if not pop_via(response):
            return  # it was to us (RFC 3261 §16.7, step 3)
        if self.ended and not (200 <= response.status < 300 and self.context.invite):
            return
        first, self.proceeding = not self.proceeding, True
        if response.status < 200:
            self.context.sender.heard(self, False)
            if first and self.cancelled:
                # A CANCEL has to wait for a provisional response (RFC 3261 §9.1).
                self.context.sender.cancel(self)
            if response.status > 100:
                self.context.provisional(self, response)
        elif response.status < 300:
            self.succeeded = True
            self._end(response)
        elif self._may_go_on(response):
            self.context.sender.launch(self)
        else:
            self._end(response)

    def _may_go_on(self, response: Response) -> bool:
        """Whether there is something to be done about an unwelcome response."""
        if response.status in (408, 430, 503):
            return self._another_way()
        return response.status in (401, 407) and self._authorize(response)

    def request_failed(self, error: SIPFailure) -> None:
        """See `IResponseUser`."""
        if self.ended:
            return
        if isinstance(error, TransportFailure) and self.target.node is not None and not self._repeated:
            # The other node may have closed an idle flow just now: once more over a new one.
            self._repeated = True
            self.transaction = None
            self.context.sender.launch(self)
        elif self._another_way():
            self.context.sender.launch(self)
        else:
            self._end(self.request.response(error.status, error.reason))

    def give_up(self) -> None:
        """No response came in time: the transaction ends, and the next way is tried."""
        if self.transaction is not None:
            self.transaction.terminate()
        self.request_failed(TransactionTimeout())

    def cancel(self) -> None:
        """Have the request canceled, as soon as that is allowed."""
        if self.cancelled or self.ended:
            return
        self.cancelled = True
        self._ways.clear()
        if self.proceeding:
            self.context.sender.cancel(self)
        elif self.transaction is None:
            self._end(self.request.response(487))

    def _another_way(self) -> bool:
        if not self._ways or self.cancelled:
            return False
        self.context.sender.heard(self, True)
        self.target = self._ways.pop(0)
        self.proceeding = self.tried_authorization = self._repeated = False
        self.transaction = None
        return True

    def _authorize(self, response: Response) -> bool:
        """Whether the challenge is a trunk's, and can be answered."""
        trunk = self.target.trunk
        if trunk is None or self.tried_authorization or self.cancelled or self.sent is None:
            return False
        header = trunk.authorization(self.sent, response)
        if header is None:
            return False
        self.target = self.target._replace(headers=(*self.target.headers, header))
        self.tried_authorization = True
        self.transaction = None
        return True

    def _end(self, response: Response) -> None:
        first, self.ended = not self.ended, True
        if first:
            self.context.sender.heard(self, True)
            if not self.media:
                self.sent = None
        self.context.final(self, response)


class ResponseContext:
    """One request that is passed on: the branches under way, the targets that wait, and the best response so far.

    :param passage: what all its branches have in common; the sender's.
    :param respond: takes each response that goes back, its Vias those of the request.
    """

    def __init__(
        self, request: Request, passage: Passage, sender: ISender, respond: Callable[[Branch | None, Response], None]
    ) -> None:
        self.request = request
        self.invite = request.method == "INVITE"
        self.passage = passage
        self.sender = sender
        self._respond = respond
        self._groups: list[list[ProxyTarget]] = []
        self._breadth = 0
        self._under_way: set[Branch] = set()
        self._finals: list[tuple[Branch, Response]] = []
        self._started = self._answered = self._stopped = self._launching = False

    def start(self, groups: Sequence[Sequence[ProxyTarget]]) -> None:
        """Send the request to the targets: those of one group at once, one group after the other.

        :raises SIPFailure: 440: it may not be forked at all (RFC 5393 §5.3.3); or SIPParseError.
        """
        self._breadth = incoming_breadth(self.request)
        shares(self._breadth, 1)
        self._started = True
        if not self._stopped:
            self._groups = [list(group) for group in groups]
            self._go_on()

    def cancel(self) -> None:
        """A CANCEL came for it (RFC 3261 §16.10)."""
        self._stop()
        if not self._started and not self._answered:
            self._answered = True
            self._respond(None, self.request.response(487))

    def _stop(self) -> None:
        """Try no more targets, and cancel what is under way."""
        self._stopped = True
        self._groups.clear()
        if self.invite:
            for branch in list(self._under_way):
                branch.cancel()

    def _go_on(self) -> None:
        """The next targets; when there are none left and nothing is under way, the best response."""
        while self._groups and not self._under_way and not self._stopped:
            group = self._groups.pop(0)
            some = shares(self._breadth, len(group))
            if len(some) < len(group):
                # Too many at once: those beyond come after, which RFC 5393 §5.3.3 allows in place of 440.
                self._groups.insert(0, group[len(some) :])
            branches = [Branch(self, *pair) for pair in zip(group, some, strict=False)]
            self._under_way.update(branches)
            self._launching = True
            for branch in branches:
                self.sender.launch(branch)
            self._launching = False
        if not self._under_way and not self._answered:
            self._answer_with_best()

    def provisional(self, branch: Branch, response: Response) -> None:
        """A response from 101 to 199: it goes back at once (RFC 3261 §16.7, step 5)."""
        if not self._answered:
            self._respond(branch, response)

    def final(self, branch: Branch, response: Response) -> None:
        """The last response of a branch; to an INVITE each further 2xx too."""
        self._under_way.discard(branch)
        if 200 <= response.status < 300:
            if self.invite or not self._answered:
                self._answered = True
                self._respond(branch, response)
            self._stop()
            if not self._under_way:
                # Only further 2xx can come now, for half a minute; thousands of calls wait so.
                self.request = LET_GO
            return
        if self._answered:
            return
        self._finals.append((branch, response))
        if response.status >= 600:
            self._stop()
        if not self._launching:
            self._go_on()

    def _answer_with_best(self) -> None:
        self._answered = True
        if not self._finals:
            self._respond(None, self.request.response(480))
            return
        best = best_response([response for _, response in self._finals])
        branch = next(branch for branch, response in self._finals if response is best)
        self._respond(branch, best)
