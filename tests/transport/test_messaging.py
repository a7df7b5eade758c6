"""Requests and answers between nodes: dispatch, errors, repetitions, what is dropped."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.config.document import Configuration
from p2psip.errors import (
    ConfigTooOld,
    Forbidden,
    IncompatibleWithOverlay,
    InvalidMessage,
    MessageTooLarge,
    RequestTimeout,
    ResponseTooLarge,
    UnknownExtension,
    UnknownKind,
)
from p2psip.ids import NodeId, ResourceId, wildcard_node_id
from p2psip.interfaces import IMessaging, Reply, Request
from p2psip.transport.messages import compose, seal
from p2psip.wire.codec import Struct
from p2psip.wire.codes import MessageCode
from p2psip.wire.contents import ErrorResponse, UnknownKinds
from p2psip.wire.contents import UnknownExtension as Extension
from p2psip.wire.header import (
    Destination,
    ForwardingHeader,
    NodeDestination,
    ResourceDestination,
    UnknownForwardingOption,
    with_header,
)
from p2psip.wire.message import decode_message
from p2psip.wire.methods import JoinAns, JoinReq, PingAns, PingReq
from p2psip.wire.storage import FetchReq, SingleSpecifier, StoredDataSpecifier

from .fakes import FakeSigner, PairedLink, Peer, run

A, B, C, D = (NodeId(letter * 16) for letter in (b"a", b"b", b"c", b"d"))
RESOURCE = ResourceId(b"r" * 16)


def node(node_id: NodeId) -> list[Destination]:
    return [NodeDestination(node_id=node_id)]


class MessagingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.configuration = Configuration(instance_name="example.org", sequence=5)
        self.a, self.b, self.c = (Peer(self.clock, node_id, self.configuration) for node_id in (A, B, C))
        self.a_to_b, self.b_to_a = self.a.link(self.b)
        self.b.link(self.c)
        self.requests: list[Request] = []
        for peer in self.a, self.b, self.c:
            peer.dispatch.answerers[PingReq] = self.pong

    def pong(self, request: Request) -> PingAns:
        self.requests.append(request)
        return PingAns(response_id=len(self.requests), time=1)

    def ping(self, destinations: list[Destination], padding: bytes = b"") -> Deferred[Any]:
        asked = self.a.messaging.request(destinations, PingReq(padding=padding))
        run(self.clock)
        return asked

    def answered(self, asked: Deferred[Any]) -> Any:
        run(self.clock)
        return self.successResultOf(asked)

    def refused(self, asked: Deferred[Any], error: type[Exception]) -> Any:
        run(self.clock)
        return self.failureResultOf(asked, error).value

    def test_interface(self) -> None:
        verifyObject(IMessaging, self.a.messaging)

    def test_neighbor(self) -> None:
        """A request to a neighbor and its answer, each signed and verified. [6940-6.3.3.1-2]"""
        answer = self.answered(self.ping(node(B)))
        self.assertEqual(answer.body, PingAns(response_id=1, time=1))
        self.assertEqual(answer.signer.node_id, B)
        self.assertEqual(answer.hops, 0)
        self.assertEqual(self.requests[0].signer.node_id, A)
        self.assertEqual(self.requests[0].previous_hop, A)

    def test_answer_of_another_method(self) -> None:
        """An answer with the body of another method is none; whoever asked never sees it."""
        asked = self.a.messaging.request(node(B), PingReq())
        transaction_id = decode_message(self.a_to_b.sent[-1]).header.transaction_id
        wrong = seal(
            self.configuration.overlay_hash, transaction_id, MessageCode.JOIN_ANS, JoinAns().encode(), FakeSigner(B)
        )
        self.a.messaging.receive(B, compose(self.configuration, transaction_id, node(A), wrong))
        self.assertNoResult(asked)
        self.assertEqual(self.a.counted["answer of another method"], 1)
        self.assertEqual(self.answered(asked).body, PingAns(response_id=1, time=1))

    def test_two_hops_and_back(self) -> None:
        """Symmetric recursive routing: over B to C, and the answer the same way back. [6940-6.2-1]

        [6940-6.2.1-1, 6940-6.2.1-2]
        """
        self.a.hops[C] = B
        answer = self.answered(self.ping(node(C)))
        self.assertEqual(answer.signer.node_id, C)
        self.assertEqual(answer.hops, 1)
        self.assertEqual(self.requests[0].previous_hop, B)
        self.assertEqual(self.b.messaging.forwarded, 2)

    def test_initial_ttl(self) -> None:
        """Requests and answers begin with the overlay's initial-ttl, 100 unless it says otherwise. [6940-6.3.2-7]"""
        self.answered(self.ping(node(B)))
        self.a.configuration = self.b.configuration = replace(self.configuration, initial_ttl=9)
        self.answered(self.ping(node(B)))
        for sent in self.a_to_b.sent, self.b_to_a.sent:
            self.assertEqual([decode_message(message).header.ttl for message in sent], [100, 9])

    def test_join_answered_by_another(self) -> None:
        """What answers a Join is believed of the node alone that was asked to admit us. [6940-6.4.2.1-7]
        [6940-6.4.2.1-8]
        """
        self.b.dispatch.answerers[JoinReq] = lambda request: JoinAns()
        # The answer comes from where the request went, signed by C.
        self.b.dispatch._signer = FakeSigner(C)
        joining = self.a.messaging.request(node(B), JoinReq(joining_peer_id=A))
        run(self.clock)
        self.assertNoResult(joining)
        self.assertEqual(self.a.counted["answer by the wrong node"], 1)
        self.b.dispatch._signer = self.b.signer
        run(self.clock, 16)
        self.failureResultOf(joining, RequestTimeout)

    def test_source_route(self) -> None:
        """A Destination List of several entries leads where no Routing Table does. [6940-6.2.1-3]"""
        self.assertEqual(self.answered(self.ping(node(B) + node(C))).signer.node_id, C)

    def test_wildcard(self) -> None:
        """Whoever gets it may answer a request to the wildcard Node-ID. [6940-6.3.4-14]"""
        self.a.is_responsible = lambda target: False  # type: ignore[method-assign]
        answer = self.answered(self.ping(node(B) + node(wildcard_node_id())))
        self.assertEqual(answer.signer.node_id, B)

    def test_answer_from_too_far(self) -> None:
        """An answer from a node that is not the nearest we know is dropped, and that one doubted. [6940-6.3.4-15]"""
        self.a.hops[RESOURCE] = B
        self.b.responsible.add(RESOURCE)
        self.a.disbelieved.add(B)
        asked = self.ping([ResourceDestination(resource_id=RESOURCE)])
        self.assertNoResult(asked)
        self.assertEqual(self.a.doubted, [B])
        self.a.disbelieved.clear()
        run(self.clock, 3)
        self.assertEqual(self.successResultOf(asked).signer.node_id, B)

    def test_resource_ours(self) -> None:
        """A request for a resource of our own takes the same path of dispatch, without a link."""
        self.a.responsible.add(RESOURCE)
        answer = self.answered(self.ping([ResourceDestination(resource_id=RESOURCE)]))
        self.assertEqual(answer.signer.node_id, A)
        self.assertEqual(self.requests[0].previous_hop, A)
        self.assertEqual(self.a_to_b.sent, [])

    def test_ourselves_without_recursion(self) -> None:
        """The answerer of a request to ourselves runs after the one who asks, however deep they are nested."""
        self.a.responsible.add(RESOURCE)
        served = []

        def again(request: Request) -> PingAns:
            served.append(len(inspect.stack(0)))
            if len(served) < 500:
                self.ask_ourselves()
            return PingAns(response_id=1, time=1)

        self.a.dispatch.answerers[PingReq] = again
        self.ask_ourselves()
        for _ in range(600):
            self.clock.advance(0)
        self.assertEqual(len(served), 500)
        self.assertEqual(len(set(served)), 1)

    def ask_ourselves(self) -> Deferred[Any]:
        return self.a.messaging.request([ResourceDestination(resource_id=RESOURCE)], PingReq())

    def test_error(self) -> None:
        """A RELOADError of the answerer is an error answer, and raised as the same class. [6940-6.3.3.1-3]

        [6940-6.3.3.1-1, 6940-6.3.3.1-4]
        """

        def refuse(request: Request) -> PingAns:
            raise Forbidden("not you")

        self.b.dispatch.answerers[PingReq] = refuse
        error = self.refused(self.ping(node(B)), Forbidden)
        self.assertEqual((error.error_info, error.signer), (b"not you", B))
        answer = decode_message(self.b_to_a.sent[-1])
        self.assertEqual(answer.contents.message_code, 0xFFFF)
        self.assertEqual(answer.body(), ErrorResponse(error_code=Forbidden.code, error_info=b"not you"))

    def test_bug_is_not_answered(self) -> None:
        """Anything else is logged, and the request times out."""

        def fail(request: Request) -> PingAns:
            raise KeyError("a bug")

        self.b.dispatch.answerers[PingReq] = fail
        asked = self.ping(node(B))
        run(self.clock, 15.5)
        self.failureResultOf(asked, RequestTimeout)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 5)

    def test_repeated_request_gets_the_same_answer(self) -> None:
        """The answer is lost: the repetition is answered as the first was, and served once. [6940-6.2.1-12]"""
        self.b_to_a.lost = 1
        asked = self.ping(node(B))
        self.assertNoResult(asked)
        run(self.clock, 3)
        self.assertEqual(self.successResultOf(asked).body.response_id, 1)
        self.assertEqual(len(self.requests), 1)

    def test_repeated_request_while_it_is_answered(self) -> None:
        """A repetition of a request under way is not served a second time."""
        pending: list[Deferred[Struct]] = []

        def slow(request: Request) -> Deferred[Struct]:
            pending.append(Deferred())
            return pending[-1]

        self.b.dispatch.answerers[PingReq] = slow
        asked = self.ping(node(B))
        run(self.clock, 7)
        self.assertEqual(len(pending), 1)
        pending[0].callback(PingAns(response_id=9, time=9))
        self.assertEqual(self.answered(asked).body.response_id, 9)

    def test_certificates_travel(self) -> None:
        """Those of the signer and of the values within are in the bucket, each once. [6940-6.3.4-3]"""
        self.b.dispatch.answerers[PingReq] = lambda request: Reply(
            PingAns(response_id=len(request.certificates), time=0), (b"one", b"two", b"one")
        )
        asked = self.a.messaging.request(node(B), PingReq(), certificates=(b"x", b"x"))
        answer = self.answered(asked)
        self.assertEqual(answer.body.response_id, 2)
        self.assertEqual(answer.certificates, [b"certificate of " + B, b"one", b"two"])

    def test_other_signer(self) -> None:
        """A request may be signed by another identity of ours: a user's."""
        self.answered(self.a.messaging.request(node(B), PingReq(), FakeSigner(C)))
        self.assertEqual(self.requests[0].signer.node_id, C)

    def test_unknown_method(self) -> None:
        """A method that nobody serves is Invalid_Message."""
        del self.b.dispatch.answerers[PingReq]
        self.refused(self.ping(node(B)), InvalidMessage)

    def test_unknown_kind(self) -> None:
        """Unknown_Kind names the Kinds."""
        peer = Configuration(instance_name="example.org", sequence=5)
        specifier = StoredDataSpecifier(kind=0xF0000001, model_specifier=SingleSpecifier())
        asked = self.a.messaging.request(node(B), FetchReq(resource=RESOURCE, specifiers=(specifier,)))
        error = self.refused(asked, UnknownKind)
        self.assertEqual(UnknownKinds.decode(error.error_info, peer.context).unknown_kinds, (0xF0000001,))

    def test_too_large_to_send(self) -> None:
        """What exceeds max-message-size fails before it is sent."""
        self.refused(self.ping(node(B), bytes(5000)), MessageTooLarge)
        self.assertEqual(self.a_to_b.sent, [])

    def test_answer_too_large(self) -> None:
        """An answer that no link would carry is an error answer."""
        self.b.dispatch.answerers[PingReq] = lambda request: Reply(PingAns(response_id=1, time=1), [bytes(5000)])
        self.refused(self.ping(node(B)), ResponseTooLarge)

    def test_no_route(self) -> None:
        """A request that can go nowhere now is tried again by its timer."""
        asked = self.ping(node(C))
        self.assertNoResult(asked)
        self.a.hops[C] = B
        run(self.clock, 3)
        self.successResultOf(asked)

    def test_configuration_error_is_mended_and_tried_again(self) -> None:
        """After Config_Too_Old and the document that follows it, the request is made once more, not twice."""

        def check(arrived: object) -> None:
            if not self.a.mended:
                raise ConfigTooOld

        self.b.checks.append(check)
        self.answered(self.ping(node(B)))
        self.assertEqual([type(error) for error in self.a.mended], [ConfigTooOld])
        self.b.checks.append(lambda arrived: (_ for _ in ()).throw(ConfigTooOld()))
        self.refused(self.ping(node(B)), ConfigTooOld)
        self.assertEqual(len(self.a.mended), 2)

    # -- Messages that are made by hand -----------------------------------------------------------------

    def send(self, *, contents: dict[str, Any] | None = None, spoil: bool = False, **header: Any) -> Any:
        """Send a Ping to B that is made by hand; what B answers."""
        fields: dict[str, Any] = {"body": PingReq().encode(), "code": MessageCode.PING_REQ, **(contents or {})}
        sealed = seal(
            self.configuration.overlay_hash,
            7,
            fields["code"],
            fields["body"],
            self.a.signer,
            (),
            fields.get("extensions", ()),
        )
        if spoil:
            sealed = sealed[:-1] + bytes([sealed[-1] ^ 1])
        made = ForwardingHeader(
            **{
                "overlay": self.configuration.overlay_hash,
                "configuration_sequence": 5,
                "transaction_id": 7,
                "destination_list": (NodeDestination(node_id=B),),
                **header,
            }
        )
        self.b.arrived(self.b_to_a, with_header(made, sealed))
        run(self.clock)
        if not self.b_to_a.sent:
            return None
        message = decode_message(self.b_to_a.sent.pop())
        return message.header, message.body()

    def test_forged(self) -> None:
        """A wrong signature is dropped and counted; nobody sees the request. [6940-6.3.4-12]"""
        self.assertIsNone(self.send(spoil=True))
        self.assertEqual(self.b.counted["unverified: signature"], 1)
        self.assertEqual(self.requests, [])

    def test_undecodable_body(self) -> None:
        """A body that is not what its code says is dropped and counted."""
        self.assertIsNone(self.send(contents={"body": b"\x00\x05x"}))
        self.assertEqual(self.b.counted["undecodable PingReq"], 1)

    def test_unknown_message_code(self) -> None:
        """A request by a code nobody assigned is Invalid_Message."""
        _, body = self.send(contents={"code": 0x7001})
        self.assertEqual(body.error_code, InvalidMessage.code)

    def test_answers_are_never_answered(self) -> None:
        """Neither an answer nor an error to no request of ours gets one."""
        for code in MessageCode.PING_ANS, 0x7002, MessageCode.ERROR:
            self.assertIsNone(self.send(contents={"code": code}))
        self.assertEqual(self.b.counted["answer to no request"], 3)

    def test_critical_extension(self) -> None:
        """An unknown critical extension is refused, an unknown other one ignored. [6940-6.3.3-1]"""
        extension = Extension(type=0x7777, critical=True, extension_contents=b"")
        _, body = self.send(contents={"extensions": (extension,)})
        self.assertEqual(body.error_code, UnknownExtension.code)
        _, body = self.send(contents={"extensions": (extension.replace(critical=False),)})
        self.assertIsInstance(body, PingAns)

    def test_extensions(self) -> None:
        """Who understands an extension of a request, also a critical one, is asked once what the answer gets for it."""
        asked: list[Request] = []

        def extend(request: Request) -> Extension | None:
            asked.append(request)
            return request.extensions[0].replace(critical=False) if len(asked) <= 2 else None

        self.a.dispatch.extenders[0x7777] = self.b.dispatch.extenders[0x7777] = extend
        extensions = tuple(
            Extension(type=0x7777, critical=True, extension_contents=text) for text in (b"one", b"two")
        )
        for node_id in B, A:
            answer = self.answered(self.a.messaging.request(node(node_id), PingReq(), extensions=extensions))
            self.assertEqual(answer.extensions, (extensions[0].replace(critical=False),))
        answer = self.answered(self.a.messaging.request(node(B), PingReq(), extensions=extensions))
        self.assertEqual(answer.extensions, ())
        self.assertEqual([request.extensions for request in asked], 3 * [extensions])

    def test_max_response_length(self) -> None:
        """An answer longer than asked for is Incompatible_with_Overlay. [6940-6.3.2-12]"""
        _, body = self.send(max_response_length=60)
        self.assertEqual(body.error_code, IncompatibleWithOverlay.code)
        self.assertEqual(body.error_info, b"response too large")
        header, body = self.send(max_response_length=4000, transaction_id=7)
        self.assertEqual(header.max_response_length, 0)

    def test_other_overlay(self) -> None:
        """A request of another overlay is refused and not served."""
        _, body = self.send(overlay=1)
        self.assertEqual(body.error_code, IncompatibleWithOverlay.code)
        self.assertEqual(self.requests, [])

    def test_ttl(self) -> None:
        """A TTL above initial-ttl is TTL_Exceeded."""
        _, body = self.send(ttl=101)
        self.assertEqual(body.error_code, 0xA)

    def test_copied_option(self) -> None:
        """An option marked RESPONSE_COPY comes back with its flags cleared, others do not. [6940-6.3.2.3-1]
        [6940-6.3.2.3-4]
        """
        self.b.router.understood_options = frozenset((77,))
        other = UnknownForwardingOption(type=78, flags=0x00, option=b"y")
        for flags in 0x04, 0x05, 0x06, 0x07:
            option = UnknownForwardingOption(type=77, flags=flags, option=b"x")
            header, _ = self.send(options=(option, other))
            self.assertEqual(header.options, (option.replace(flags=0),))


class RedirectTests(SynchronousTestCase):
    """Another way for what a dead neighbor did not take (docs/decisions/0012); no time passes."""

    def setUp(self) -> None:
        self.clock = Clock()
        configuration = Configuration(instance_name="example.org", sequence=5)
        self.a, self.b, self.c, self.d = (Peer(self.clock, node_id, configuration) for node_id in (A, B, C, D))
        self.served: list[NodeId] = []
        for peer in self.a, self.b, self.c, self.d:
            peer.dispatch.answerers[PingReq] = lambda request, me=peer.node_id: self.pong(me)
        self.a_to_b, self.b_to_a = self.a.link(self.b)
        self.b_to_c, self.c_to_b = self.b.link(self.c)
        self.a.hops[RESOURCE], self.b.hops[RESOURCE] = B, C

    def pong(self, me: NodeId) -> PingAns:
        self.served.append(me)
        return PingAns(response_id=1, time=1)

    def ping(self, destination: Destination | None = None) -> Deferred[Any]:
        asked = self.a.messaging.request([destination or ResourceDestination(resource_id=RESOURCE)], PingReq())
        run(self.clock)
        return asked

    def lost(self, peer: Peer, link: PairedLink) -> None:
        """The other end of `link` is found to be dead, and what it was sent is given back."""
        peer.table.failing(link)
        peer.messaging.redirect(link.node_id, link.sent)
        run(self.clock)

    def answered_by(self, asked: Deferred[Any], node_id: NodeId) -> None:
        self.assertEqual(self.successResultOf(asked).signer.node_id, node_id)

    def test_request_of_another(self) -> None:
        """A relay sends it on to whoever is next by then. [6940-6.1.2-2]"""
        self.b_to_c.lost = 1
        self.b.link(self.d)
        self.d.responsible.add(RESOURCE)
        asked = self.ping()
        self.assertNoResult(asked)
        self.b.hops[RESOURCE] = D
        self.lost(self.b, self.b_to_c)
        self.answered_by(asked, D)
        self.assertEqual((self.b.messaging.redirected, self.b.messaging.forwarded), (1, 2))
        self.assertEqual(len(self.a_to_b.sent), 1)

    def test_request_of_ours(self) -> None:
        """Its originator does so as well, before it would send it again."""
        self.a_to_b.lost = 1
        self.a.link(self.d)
        self.d.responsible.add(RESOURCE)
        asked = self.ping()
        self.a.hops[RESOURCE] = D
        self.lost(self.a, self.a_to_b)
        self.answered_by(asked, D)
        self.assertEqual((self.a.messaging.redirected, self.a.messaging.forwarded), (1, 0))

    def test_answer(self) -> None:
        """An answer skips the node on its way back that is dead."""
        self.c.responsible.add(RESOURCE)
        self.a.link(self.c)
        self.c_to_b.lost = 1
        asked = self.ping()
        self.assertEqual(self.served, [C])
        self.assertNoResult(asked)
        self.lost(self.c, self.c_to_b)
        self.answered_by(asked, C)

    def test_ours_to_serve(self) -> None:
        """The request of another for what was the dead peer's, and is ours now."""
        self.b_to_c.lost = 1
        asked = self.ping()
        self.b.responsible.add(RESOURCE)
        self.lost(self.b, self.b_to_c)
        self.answered_by(asked, B)
        self.assertEqual((self.served, self.b.messaging.redirected), ([B], 0))
        # The answer goes straight to A, though it is B itself that the request came from.
        self.assertEqual(decode_message(self.b_to_a.sent[0]).header.destination_list, tuple(node(A)))

    def test_ours_to_ask_and_to_serve(self) -> None:
        """The same with a request of our own: it is served once, and not again when its timer would fire."""
        self.a_to_b.lost = 1
        asked = self.ping()
        self.a.responsible.add(RESOURCE)
        self.lost(self.a, self.a_to_b)
        self.answered_by(asked, A)
        run(self.clock, 20)
        self.assertEqual(self.served, [A])

    def test_arrived_after_all(self) -> None:
        """What comes twice is served once, and the second answer is nobody's. [6940-6.2.1-12]"""
        self.c.responsible.add(RESOURCE)
        self.b.link(self.d)
        self.d.link(self.c)
        self.d.hops[RESOURCE] = C
        asked = self.ping()
        self.answered_by(asked, C)
        self.b.hops[RESOURCE] = D
        self.lost(self.b, self.b_to_c)
        self.assertEqual(self.served, [C])
        self.assertEqual(self.a.counted["answer to no request"], 1)

    def test_for_the_dead_node_itself(self) -> None:
        """Nobody else can answer that: it is dropped and counted, and its sender's timer goes on."""
        self.a_to_b.lost = 1
        asked = self.ping(NodeDestination(node_id=B))
        self.lost(self.a, self.a_to_b)
        self.assertEqual((self.a.counted["undelivered"], self.a.messaging.redirected), (1, 0))
        self.assertNoResult(asked)
        self.a.link(self.b)
        run(self.clock, 3)
        self.answered_by(asked, B)

    def test_no_link(self) -> None:
        """A next hop that is not connected, or a link that takes nothing more, is counted as ever."""
        self.ping()
        self.b.hops[RESOURCE] = D
        self.lost(self.b, self.b_to_c)
        self.assertEqual(self.b.counted["next hop not connected"], 1)
        b_to_d, _ = self.b.link(self.d)
        b_to_d.closed = True
        self.lost(self.b, self.b_to_c)
        self.assertEqual((self.b.counted["link congested"], self.b.messaging.redirected), (1, 0))
