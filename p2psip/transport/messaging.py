"""The Message Transport: requests of ours out, everything that comes in to where it belongs (RFC 6940 §6.1, §6.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..config.document import Configuration, is_newer
from ..errors import (
    ConfigTooNew,
    ConfigTooOld,
    MessageTooLarge,
    RELOADError,
    UnknownKind,
    error_of,
)
from ..forwarding.fragments import Fragment, Reassembly
from ..forwarding.router import (
    Deliver,
    Dropped,
    Forward,
    Refused,
    Router,
    Unroutable,
    answer_destinations,
)
from ..ids import NodeId, wildcard_node_id
from ..interfaces import (
    Answer,
    ILink,
    IMessaging,
    ISigner,
    IVerifier,
    Reply,
    Request,
    SignedBy,
)
from ..security.signing import VerificationError
from ..wire.codec import Struct
from ..wire.codes import MessageCode, is_request
from ..wire.contents import ErrorResponse, MessageExtension
from ..wire.errors import DecodeError
from ..wire.header import (
    Destination,
    ForwardingHeader,
    NodeDestination,
    ResourceDestination,
)
from ..wire.message import decode_body
from ..wire.methods import ConfigUpdateReq
from .dispatch import Dispatch
from .messages import (
    ANY_SEQUENCE,
    Arrived,
    compose,
    copied_options,
    open_message,
    request_code,
    seal,
)
from .transactions import Transactions


@implementer(IMessaging)
class Messaging:
    """Sends requests and answers, forwards what is not for this node, and verifies what is.

    `link_to` is the Connection Table's, `answers_for` the Topology Plug-in's; `doubted` is told of each resource and
    signer for which that says no.  `mend` is asked, after an error of
    configuration_sequence or Kind, to bring the two nodes to one configuration; the request is then tried once more.
    """

    log = Logger()

    def __init__(
        self,
        node_id: NodeId,
        configuration: Callable[[], Configuration],
        signer: ISigner,
        verifier: IVerifier,
        router: Router,
        link_to: Callable[[NodeId], ILink | None],
        answers_for: Callable[[bytes, NodeId], bool],
        doubted: Callable[[bytes, NodeId], None],
        mend: Callable[[RELOADError], Deferred[None]],
        transactions: Transactions,
        clock: IReactorTime,
        count: Callable[[str], None],
    ) -> None:
        self.node_id = node_id
        self._configuration = configuration
        self._signer = signer
        self._verifier = verifier
        self._router = router
        self._link_to = link_to
        self._answers_for = answers_for
        self._doubted = doubted
        self._mend = mend
        self._transactions = transactions
        self._clock = clock
        self._count = count
        self._reassembly = Reassembly(count)
        self._expiry: IDelayedCall | None = None
        self.dispatch: Dispatch
        self.forwarded = 0
        self.redirected = 0
        self.delivered = 0

    # -- Requests of ours -----------------------------------------------------------------------------

    def request(
        self,
        destination_list: Sequence[Destination],
        body: Struct,
        signer: ISigner | None = None,
        certificates: Sequence[bytes] = (),
        extensions: Sequence[MessageExtension] = (),
    ) -> Deferred[Answer]:
        """See `IMessaging`."""
        return Deferred.fromCoroutine(
            self._request(tuple(destination_list), body, signer or self._signer, certificates, extensions)
        )

    async def _request(
        self,
        destination_list: tuple[Destination, ...],
        body: Struct,
        signer: ISigner,
        certificates: Sequence[bytes],
        extensions: Sequence[MessageExtension],
    ) -> Answer:
        sequence = self._configuration().sequence
        try:
            return await self._transact(destination_list, body, signer, certificates, extensions)
        except (ConfigTooOld, ConfigTooNew, UnknownKind) as error:
            if error.signer is None or isinstance(body, ConfigUpdateReq):
                raise
            # The newer document is sent before the error that tells of it, and mostly comes first.
            if not (isinstance(error, ConfigTooOld) and is_newer(self._configuration().sequence, sequence)):
                await self._mend(error)
        return await self._transact(destination_list, body, signer, certificates, extensions)

    def _transact(
        self,
        destination_list: tuple[Destination, ...],
        body: Struct,
        signer: ISigner,
        certificates: Sequence[bytes],
        extensions: Sequence[MessageExtension],
    ) -> Deferred[Answer]:
        sending = _Sending(self, destination_list, body, signer, certificates, extensions)
        return self._transactions.begin(
            sending.transmit,
            lambda signed_by: self._believed(destination_list[-1], signed_by),
            self._configuration().overlay_reliability_timer / 1000,
            request_code(body) + 1,
        )

    def _believed(self, target: Destination, signer: SignedBy) -> bool:
        """Whether an answer by `signer` may be one to a request for `target` (RFC 6940 §6.3.4)."""
        if isinstance(target, NodeDestination):
            # "unless the response has been sent to the wildcard Node-ID"
            return target.node_id in (signer.node_id, wildcard_node_id(len(self.node_id)))
        if isinstance(target, ResourceDestination):
            if self._answers_for(target.resource_id, signer.node_id):
                return True
            self._doubted(target.resource_id, signer.node_id)
            return False
        return True

    def _answer_ourselves(self, transaction_id: int, request: Request) -> None:
        """Serve a request of this node to itself; neither signed nor encoded, since nobody stands between."""
        ours = SignedBy(self._signer.identity, self.node_id)

        def replied(reply: Reply) -> None:
            answer = Answer(reply.body, ours, reply.certificates, reply.extensions)
            self._transactions.answered(transaction_id, answer)

        def failed(failure: Failure) -> None:
            failure.trap(RELOADError)
            error = failure.value
            assert isinstance(error, RELOADError)
            self._transactions.refused(transaction_id, error, ours)

        answered = self.dispatch.answer(request).addCallbacks(replied, failed)
        answered.addErrback(lambda failure: self.log.failure("no answer to ourselves", failure))

    # -- What comes in -----------------------------------------------------------------------------------

    def receive(self, previous_hop: NodeId, data: bytes) -> None:
        """A message, or a fragment of one, has come over the link to `previous_hop`."""
        verdict = self._router.receive(previous_hop, data)
        if isinstance(verdict, Forward):
            self.forwarded += self._pass_on(verdict)
        elif isinstance(verdict, Deliver):
            self._deliver(verdict)
        elif isinstance(verdict, Fragment):
            self._hold(verdict)
        elif isinstance(verdict, Refused):
            self.dispatch.refuse(verdict.header, verdict.previous_hop, verdict.error)
        elif isinstance(verdict, Dropped):
            self._count(verdict.cause)

    def _pass_on(self, forward: Forward) -> bool:
        link = self._link_to(forward.next_hop)
        if link is None:
            self._count("next hop not connected")
        elif link.send(forward.data):
            return True
        else:
            self._count("link congested")
        return False

    def redirect(self, lost: NodeId, messages: Iterable[bytes]) -> None:
        """Send messages another way that could not be delivered to `lost`.

        Whether they have arrived nobody knows; the destination knows a repeated request.  Without this everything
        that is under way to a peer that dies would wait for its sender's retransmission (RFC 6940 §6.2.1).
        """
        for data in messages:
            verdict = self._router.redirect(lost, data)
            if isinstance(verdict, Deliver):
                self._deliver(verdict)
            elif isinstance(verdict, Fragment):
                self._hold(verdict)
            elif isinstance(verdict, Dropped):
                self._count(verdict.cause)
            elif self._pass_on(verdict):
                self.redirected += 1

    def _hold(self, fragment: Fragment) -> None:
        """Keep a fragment for this node; when that makes a message whole, it is one that has come."""
        whole = self._reassembly.add(fragment, self._clock.seconds())
        if whole is not None:
            self.receive(whole.previous_hop, whole.data)
        self._expire_in_time()

    def _expire_in_time(self) -> None:
        deadline = self._reassembly.deadline
        if self._expiry is None and deadline is not None:
            self._expiry = self._clock.callLater(max(0.0, deadline - self._clock.seconds()), self._expire)

    def _expire(self) -> None:
        self._expiry = None
        self._reassembly.expire(self._clock.seconds())
        self._expire_in_time()

    def stop(self) -> None:
        """Wait for no more fragments; to be called when no more messages come."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _deliver(self, delivered: Deliver) -> None:
        self.delivered += 1
        try:
            arrived = open_message(delivered, self._configuration().context, self._verifier)
        except DecodeError as error:
            self._count(f"undecodable {error.structure}")
            return
        except VerificationError as error:
            self._count(f"unverified: {error.cause}")
            return
        if is_request(arrived.contents.message_code):
            self.dispatch.receive(arrived)
        elif arrived.header.transaction_id not in self._transactions:
            self._count("answer to no request")
        else:
            self._answered(arrived)

    def _answered(self, arrived: Arrived) -> None:
        contents, transaction_id = arrived.contents, arrived.header.transaction_id
        configuration = self._configuration()
        code = contents.message_code
        if code != MessageCode.ERROR and not self._transactions.answers_with(transaction_id, code):
            # Whoever asked relies on the body that the method's answer has.
            self._count("answer of another method")
            return
        try:
            body = decode_body(contents.message_code, contents.message_body, configuration.context)
        except DecodeError as error:
            self._count(f"undecodable {error.structure}")
            return
        if isinstance(body, ErrorResponse):
            refusal = error_of(body.error_code, body.error_info)
            refusal.signer = arrived.signer.node_id
            self._transactions.refused(transaction_id, refusal, arrived.signer)
            return
        hops = configuration.initial_ttl - arrived.header.ttl
        answer = Answer(body, arrived.signer, arrived.certificates, contents.extensions, hops)
        self._transactions.answered(transaction_id, answer)

    # -- Answers of ours -----------------------------------------------------------------------------------

    def send_answer(self, request: ForwardingHeader, previous_hop: NodeId, sealed: bytes) -> None:
        """Send an answer back the way that its request came (RFC 6940 §6.2.2)."""
        destinations = self._router.without_self(answer_destinations(request, previous_hop))
        data = compose(
            self._configuration(),
            request.transaction_id,
            destinations,
            sealed,
            options=copied_options(request),
        )
        self.send(destinations, data)

    def send(self, destination_list: Sequence[Destination], data: bytes) -> None:
        """Send a message of ours on its way; what cannot be sent now is counted, its repetition mends it."""
        try:
            hop = self._router.route(destination_list)
        except Unroutable as error:
            self._count(f"unroutable: {error}")
            return
        if hop is None:
            # The answer to a request of ours that has become ours to serve since it was sent (`redirect`).
            self._clock.callLater(0, self.receive, self.node_id, data)
            return
        link = self._link_to(hop)
        if link is None:
            self._count("next hop not connected")
        elif not link.send(data):
            self._count("link congested")


class _Sending:
    """One request and its transmissions: signed once, routed anew each time."""

    def __init__(
        self,
        messaging: Messaging,
        destination_list: tuple[Destination, ...],
        body: Struct,
        signer: ISigner,
        certificates: Sequence[bytes],
        extensions: Sequence[MessageExtension],
    ) -> None:
        self._messaging = messaging
        self._destination_list = destination_list
        self._body = body
        self._code = request_code(body)
        self._signer = signer
        self._certificates = certificates
        self._extensions = extensions
        self._sealed = b""
        self._ours = False

    def transmit(self, transaction_id: int) -> None:
        """Send the request once.

        :raises MessageTooLarge: it exceeds the overlay's max-message-size.
        """
        messaging = self._messaging
        router = messaging._router
        destinations = router.without_self(self._destination_list)
        try:
            ours = router.route(destinations) is None
        except Unroutable as error:
            way_in = router.routes.way_in()
            if way_in is None:
                messaging._count(f"unroutable: {error}")
                return
            destinations, ours = (NodeDestination(node_id=way_in), *destinations), False
        if ours:
            self._transmit_to_ourselves(transaction_id)
            return
        configuration = messaging._configuration()
        if not self._sealed:
            self._sealed = seal(
                configuration.overlay_hash,
                transaction_id,
                self._code,
                self._body.encode(),
                self._signer,
                self._certificates,
                self._extensions,
            )
        sequence = ANY_SEQUENCE if self._code == MessageCode.CONFIG_UPDATE_REQ else None
        data = compose(configuration, transaction_id, destinations, self._sealed, sequence=sequence)
        if len(data) > configuration.max_message_size:
            raise MessageTooLarge(f"{len(data)} bytes exceed max-message-size")
        messaging.send(destinations, data)

    def _transmit_to_ourselves(self, transaction_id: int) -> None:
        """Once only, and not before the caller's turn is over: answers to ourselves must not pile up a stack."""
        if self._ours:
            return
        self._ours = True
        messaging = self._messaging
        request = Request(
            self._body,
            SignedBy(self._signer.identity, self._signer.node_id),
            messaging.node_id,
            transaction_id,
            (self._signer.identity.certificate, *self._certificates),
            self._extensions,
        )
        messaging._clock.callLater(0, messaging._answer_ourselves, transaction_id, request)
