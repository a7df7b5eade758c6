"""The transaction layer of SIP: finds the machine that a message belongs to (RFC 3261 §17, RFC 6026).

No I/O: `now` (seconds) comes with every call, `next_timeout` says when `advance` is due, and what is to be done is
queued as actions for the owner to `take`.  A flow is whatever the owner sends over; here it only has to know
whether it is reliable.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from typing import Any

from .headers import MAGIC_COOKIE
from .machines import (
    AckReceived,
    Action,
    ClientTransaction,
    Flow,
    InviteClientTransaction,
    InviteServerTransaction,
    Key,
    NonInviteClientTransaction,
    NonInviteServerTransaction,
    Overloaded,
    RequestReceived,
    ServerTransaction,
    Timers,
    Transaction,
)
from .message import Request, Response


class TransactionLayer:
    """All transactions of one SIP element, bounded in number."""

    def __init__(
        self, timers: Timers | None = None, most_servers: int = 131072, most_clients: int = 65536
    ) -> None:
        self.timers = timers or Timers()
        self.actions: deque[Action] = deque()
        self.servers: dict[Key, ServerTransaction] = {}
        self.clients: dict[Key, ClientTransaction] = {}
        self.counters: Counter[str] = Counter()
        self._most_servers = most_servers
        self._most_clients = most_clients
        self._timers: list[tuple[float, int, Transaction, str, int]] = []
        self._scheduled = 0

    # -- in ---------------------------------------------------------------------------------------------

    def receive_request(self, request: Request, flow: Flow, now: float) -> None:
        """A request that passed `message.check` came in over `flow`, where its responses go."""
        key = server_key(request)
        transaction = self.servers.get(key)
        if request.method == "ACK":
            if transaction is None:
                self.actions.append(AckReceived(request, flow))
            else:
                transaction.acknowledged(request, now)
            return
        if transaction is not None:
            self.counters["request repeated"] += 1
            transaction.repeated()
            return
        if len(self.servers) >= self._most_servers and not self._make_room():
            self.counters["server transactions full"] += 1
            self.actions.append(Overloaded(request, flow))
            return
        make = InviteServerTransaction if request.method == "INVITE" else NonInviteServerTransaction
        transaction = self.servers[key] = make(self, key, request, flow, now)
        if request.method == "CANCEL":
            transaction.cancels = self.servers.get(server_key(request, "INVITE"))
        self.actions.append(RequestReceived(transaction))

    def receive_response(self, response: Response, now: float) -> bool:
        """A response came in; answers whether it belongs to a transaction (RFC 3261 §17.1.3)."""
        transaction = self.clients.get((response.via.branch, response.cseq.method))
        if transaction is None:
            self.counters["response without transaction"] += 1
            return False
        transaction.received(response, now)
        return True

    def send_request(self, request: Request, flow: Flow, now: float, user: Any = None) -> ClientTransaction:
        """Begin a client transaction.  The topmost Via has a branch of its own, and it is no ACK.

        :raises OverflowError: there is no room for another.
        """
        key = (request.via.branch, request.method)
        if key in self.clients:
            raise ValueError("the branch is in use")
        if len(self.clients) >= self._most_clients:
            self.counters["client transactions full"] += 1
            raise OverflowError("too many client transactions")
        make = InviteClientTransaction if request.method == "INVITE" else NonInviteClientTransaction
        transaction = self.clients[key] = make(self, key, request, flow)
        transaction.user = user
        transaction.begin(now)
        return transaction

    # -- out --------------------------------------------------------------------------------------------

    def take(self) -> Action | None:
        """The next thing to do, None when there is nothing."""
        return self.actions.popleft() if self.actions else None

    # -- time -------------------------------------------------------------------------------------------

    def schedule(self, transaction: Transaction, timer: str, when: float) -> None:
        self._scheduled += 1
        heapq.heappush(self._timers, (when, self._scheduled, transaction, timer, transaction.round))
        if len(self._timers) > 4 * (len(self.servers) + len(self.clients)) + 1024:
            self._timers[:] = [entry for entry in self._timers if entry[2].round == entry[4]]
            heapq.heapify(self._timers)

    def next_timeout(self) -> float | None:
        """When `advance` is due; None: not before something else happens."""
        timers = self._timers
        while timers:
            if timers[0][2].round == timers[0][4]:
                return timers[0][0]
            heapq.heappop(timers)
        return None

    def advance(self, now: float) -> None:
        """Fire what has run out by `now`."""
        timers = self._timers
        while timers and timers[0][0] <= now:
            _, _, transaction, timer, round_ = heapq.heappop(timers)
            if transaction.round == round_:
                transaction.fire(timer, now)

    def _make_room(self) -> bool:
        """Forget early the answered transaction that is nearest its end; answers whether there was one."""
        while (when := self.next_timeout()) is not None:
            _, _, transaction, timer, _ = self._timers[0]
            if timer not in ("I", "J", "L"):
                return False
            heapq.heappop(self._timers)
            transaction.fire(timer, when)
            if isinstance(transaction, ServerTransaction):
                self.counters["server transaction forgotten early"] += 1
                return True
        return False


def server_key(request: Request, method: str | None = None) -> Key:
    """What tells a request from others and is the same in its repetitions and its ACK (RFC 3261 §17.2.3)."""
    via = request.via
    branch = via.branch
    method = method or request.method
    if method == "ACK":
        method = "INVITE"
    if branch.startswith(MAGIC_COOKIE) and len(branch) > len(MAGIC_COOKIE):
        return branch, via.sent_by, method
    # RFC 2543: the To tag is left out, since an ACK has that of our response.
    return request.uri_text, request.from_.tag, request.call_id, request.cseq.number, str(via), method
