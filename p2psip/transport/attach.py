"""Attach: from a route through the overlay to a link of one's own (RFC 6940 §6.5.1).

The requester is passive, the (D)TLS server, and controlling in ICE; the answerer is active.  Each end proves by its
certificate that it is the node that signed its half of the exchange.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import Forbidden, InProgress, InvalidMessage, LinkError
from ..ids import NodeId
from ..interfaces import Answer, ILink, ILinkProtocol, Request
from ..wire.codec import Struct
from ..wire.header import Destination, NodeDestination
from ..wire.methods import AttachReqAns, IceCandidate
from .connections import ConnectionTable
from .exchange import ACTIVE, LINK_PATIENCE, MAX_CONNECTING, PASSIVE, Exchange, choose

ATTACHES_PER_MINUTE = 60
"""How many Attach and AppAttach requests of one node are served in a minute."""


class AttachQuota:
    """Keeps a stranger from having this node connect to addresses of its choice as often as it likes."""

    def __init__(self, clock: IReactorTime, per_minute: int = ATTACHES_PER_MINUTE, remembered: int = 4096) -> None:
        self._clock = clock
        self._per_minute = per_minute
        self._remembered = remembered
        self._seen: OrderedDict[NodeId, tuple[float, int]] = OrderedDict()

    def charge(self, node_id: NodeId) -> None:
        """Count one request of `node_id`.

        :raises Forbidden: it has had its share of this minute.
        """
        now = self._clock.seconds()
        since, number = self._seen.pop(node_id, (now, 0))
        if now - since >= 60:
            since, number = now, 0
        self._seen[node_id] = (since, number + 1)
        if len(self._seen) > self._remembered:
            self._seen.popitem(last=False)
        if number >= self._per_minute:
            raise Forbidden("too many Attach requests")


class _Offer:
    """One Attach of ours, until its link is there."""

    def __init__(self, target: NodeId | None, send_update: bool) -> None:
        self.node_id = target
        self.send_update = send_update
        self.asking: Deferred[Answer] | None = None
        self.answered = False
        self.pending = True
        """Neither answered, nor given up because the other end's own Attach goes on instead."""
        self.update_promised = False


class Attachments:
    """The Attach exchanges of one node, both ways.

    `request` is the Message Transport's; `update_requested` is told of each node that asked for an Update with its
    Attach, once the link is there; `met` of the candidates of each node that connected on our Attach.
    """

    log = Logger()

    def __init__(
        self,
        node_id: NodeId,
        table: ConnectionTable,
        protocols: Sequence[ILinkProtocol],
        request: Callable[[Sequence[Destination], Struct], Deferred[Answer]],
        update_requested: Callable[[NodeId], None],
        clock: IReactorTime,
        count: Callable[[str], None],
        quota: AttachQuota,
        met: Callable[[Sequence[IceCandidate]], None] = lambda candidates: None,
    ) -> None:
        self._node_id = node_id
        self._table = table
        self._protocols = protocols
        self._request = request
        self._met = met
        self._update_requested = update_requested
        self._clock = clock
        self._count = count
        self._quota = quota
        self._offers: list[_Offer] = []
        self._sharing: dict[tuple[tuple[Destination, ...], bool], list[Deferred[NodeId]]] = {}
        self._connecting: set[NodeId] = set()

    # -- Requests of ours ---------------------------------------------------------------------------------

    def attach(self, destination_list: Sequence[Destination], send_update: bool = False) -> Deferred[NodeId]:
        """See `IConnectionTable.attach`; the same Attach asked for twice at a time is made once."""
        key = (tuple(destination_list), send_update)
        mine: Deferred[NodeId] = Deferred(lambda given_up: self._give_up(key, given_up))
        sharing = self._sharing.get(key)
        if sharing is not None:
            sharing.append(mine)
            return mine
        self._sharing[key] = [mine]
        Deferred.fromCoroutine(self._attach(key[0], send_update)).addBoth(self._share, key)
        return mine

    def _give_up(self, key: tuple[tuple[Destination, ...], bool], given_up: Deferred[NodeId]) -> None:
        # The exchange goes on: its link may be of use, and another may be waiting for it.
        waiting = self._sharing.get(key, [])
        if given_up in waiting:
            waiting.remove(given_up)

    def _share(self, result: NodeId | Failure, key: tuple[tuple[Destination, ...], bool]) -> None:
        for waiting in self._sharing.pop(key):
            if isinstance(result, Failure):
                waiting.errback(result)
            else:
                waiting.callback(result)

    async def _attach(
        self, destination_list: tuple[Destination, ...], send_update: bool, again: bool = True
    ) -> NodeId:
        last = destination_list[-1]
        target = NodeId(last.node_id) if isinstance(last, NodeDestination) else None
        if target is not None and not send_update and self._table.link_to(target) is not None:
            return target
        offer = _Offer(target, send_update)
        self._offers.append(offer)
        try:
            exchange = await Exchange.begin(self._protocols, True, target)
            try:
                node_id, theirs = await self._exchange(offer, destination_list, exchange)
            except BaseException:
                exchange.abandon()
                raise
            await self._link(node_id, exchange, theirs)
        finally:
            self._offers.remove(offer)
        if theirs is not None:
            self._met(theirs.candidates)
        if again and send_update and not offer.answered and not offer.update_promised:
            # The other end's own Attach made this link, and does not know that we want an Update.
            await self._attach((NodeDestination(node_id=node_id),), True, again=False)
        return node_id

    async def _exchange(
        self, offer: _Offer, destination_list: Sequence[Destination], exchange: Exchange
    ) -> tuple[NodeId, AttachReqAns | None]:
        """Send the Attach; the node that the link will be to, and its answer unless its own Attach goes on instead."""
        if offer.node_id == self._node_id:
            raise LinkError("an Attach to this node itself")
        if not offer.pending:
            assert offer.node_id is not None
            return offer.node_id, None
        body = AttachReqAns(role=PASSIVE, send_update=offer.send_update, **exchange.parameters)
        offer.asking = self._request(destination_list, body)
        try:
            answer = await offer.asking
        except InProgress as error:
            if error.signer is None:
                raise
            offer.node_id = error.signer
        except CancelledError:
            if offer.node_id is None:
                raise
        else:
            node_id = offer.node_id = answer.signer.node_id
            offer.answered = True
            theirs = self._check_answer(answer.body)
            if node_id == self._node_id:
                raise LinkError("the Attach came back to this node itself")
            if theirs.send_update:
                self._when_linked(node_id)
            return node_id, theirs
        finally:
            offer.asking = None
            offer.pending = False
        return offer.node_id, None

    def _check_answer(self, body: Struct) -> AttachReqAns:
        if not isinstance(body, AttachReqAns) or body.role != ACTIVE:
            raise LinkError("the answer to an Attach makes no sense")
        return body

    def _when_linked(self, node_id: NodeId) -> None:
        linked = self._table.wait_for(node_id).addTimeout(LINK_PATIENCE, self._clock)
        linked.addCallbacks(lambda link: self._update_requested(node_id), lambda failure: None)
        linked.addErrback(lambda failure: self.log.failure("no Update could be sent", failure))

    async def _link(self, node_id: NodeId, exchange: Exchange, theirs: AttachReqAns | None) -> None:
        """Wait until there is a link to `node_id`; the exchange goes on by itself if there was another before."""
        # It may raise, and nobody would wait then.
        concluded = None if theirs is None else exchange.conclude(theirs, node_id)
        waiting = self._table.wait_for(node_id).addTimeout(LINK_PATIENCE, self._clock)
        failures: list[Failure] = []

        def not_concluded(failure: Failure) -> None:
            failure.trap(LinkError, CancelledError, DeferredTimeout)
            failures.append(failure)
            waiting.cancel()

        if concluded is None:
            exchange.abandon()
        else:
            concluded.addErrback(not_concluded)
        try:
            await waiting
        except DeferredTimeout:
            self._count("attached node did not connect")
            raise LinkError(f"{node_id.hex()} answered the Attach but did not connect") from None
        except CancelledError:
            self._count("no link to an attached node")
            raise LinkError(f"no link to {node_id.hex()}: {failures[0].getErrorMessage()}") from None

    # -- Requests of others -------------------------------------------------------------------------------

    def answer_attach(self, request: Request) -> Deferred[Struct]:
        """Answer an Attach, and connect to its sender."""
        return Deferred.fromCoroutine(self._answer_attach(request))

    async def _answer_attach(self, request: Request) -> Struct:
        body, node_id = request.body, request.signer.node_id
        assert isinstance(body, AttachReqAns)
        if node_id == self._node_id:
            raise InvalidMessage("an Attach to this node itself")
        if body.role != PASSIVE:
            raise InvalidMessage("the role of an Attach request is 'passive'")
        self._quota.charge(node_id)
        protocol = choose(self._protocols, body.candidates)
        if node_id in self._connecting:
            raise InProgress("a link to you is being opened")
        if len(self._connecting) >= MAX_CONNECTING:
            self._count("too many links being opened")
            raise Forbidden("overloaded")
        wanted = self._judge_glare(node_id)
        self._connecting.add(node_id)
        try:
            exchange = await Exchange.begin([protocol], False, node_id)
        except BaseException as error:
            self._connecting.discard(node_id)
            if isinstance(error, LinkError):
                raise Forbidden(f"no candidates: {error}") from None
            raise
        # Not before the answer is under way: it tells the other end whom to expect.
        self._clock.callLater(0, self._open, exchange, body, node_id)
        return AttachReqAns(role=ACTIVE, send_update=wanted, **exchange.parameters)

    def _judge_glare(self, node_id: NodeId) -> bool:
        """Where we are attaching to `node_id` as well: who goes on (§6.5.1.2); whether we want an Update of it.

        :raises InProgress: our own Attach goes on.
        """
        wanted = False
        for offer in self._offers:
            if offer.node_id != node_id:
                continue
            # "generate an Error_In_Progress error ... and then proceed to wait for and complete the Attach"
            if offer.answered or (offer.pending and self._node_id > node_id):
                raise InProgress("an Attach to you is in progress")
        for offer in self._offers:
            if offer.node_id == node_id:
                wanted = wanted or offer.send_update
                offer.update_promised = True
                offer.pending = False
                if offer.asking is not None:
                    # "it MUST cancel retransmission of its own incomplete Attach request"
                    offer.asking.cancel()
        return wanted

    def _open(self, exchange: Exchange, theirs: AttachReqAns, node_id: NodeId) -> None:
        opened = exchange.conclude(theirs, node_id).addTimeout(LINK_PATIENCE, self._clock)
        opened.addBoth(self._opened, node_id)
        if theirs.send_update:
            opened.addCallback(lambda link: self._update_requested(node_id))
        opened.addErrback(self._not_opened, node_id)

    def _opened(self, result: ILink | Failure, node_id: NodeId) -> ILink | Failure:
        self._connecting.discard(node_id)
        return result

    def _not_opened(self, failure: Failure, node_id: NodeId) -> None:
        self._count("no link to a node that attached")
        if failure.check(LinkError, DeferredTimeout, CancelledError) is None:
            self.log.failure("no link to {node_id}", failure, node_id=node_id.hex())
