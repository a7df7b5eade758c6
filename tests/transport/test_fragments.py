"""Messages that links have cut: put together where they end, and then like any other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.document import Configuration
from p2psip.errors import ErrorCode
from p2psip.forwarding.fragments import fragments
from p2psip.interfaces import Request
from p2psip.transport.messages import seal
from p2psip.wire.codes import MessageCode
from p2psip.wire.contents import ErrorResponse
from p2psip.wire.header import Destination, ForwardingHeader, ResourceDestination, UnknownForwardingOption, with_header
from p2psip.wire.message import decode_message
from p2psip.wire.methods import PingAns, PingReq

from .fakes import FakeSigner, PairedLink, Peer, run
from .test_messaging import RESOURCE, A, B, C, D, node


class FragmentTests(SynchronousTestCase):
    """Three nodes in a line, whose links carry 500 bytes at once (RFC 6940 §6.7)."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.configuration = Configuration(instance_name="example.org", sequence=5)
        self.a, self.b, self.c = (Peer(self.clock, node_id, self.configuration) for node_id in (A, B, C))
        self.a_to_b, self.b_to_a = self.a.link(self.b)
        self.b.link(self.c)
        self.a.hops[C] = B
        self.requests: list[Request] = []
        for peer in self.a, self.b, self.c:
            peer.dispatch.answerers[PingReq] = self.pong
        self.lost = 0
        """Of the next pieces; they vanish."""
        send = PairedLink.send

        def cut(link: PairedLink, message: bytes) -> bool:
            pieces = fragments(message, 500)
            lost, self.lost = (self.lost, 0) if len(pieces) > 1 else (0, self.lost)
            return all(send(link, piece) for piece in reversed(pieces[lost:]))

        self.patch(PairedLink, "send", cut)

    def pong(self, request: Request) -> PingAns:
        self.requests.append(request)
        return PingAns(response_id=len(self.requests), time=1)

    def held(self, peer: Peer) -> int:
        return len(peer.messaging._reassembly)

    def large(self, *destinations: Destination, **fields: Any) -> bytes:
        """A Ping of A's with much padding, as it is sent."""
        body = PingReq(padding=bytes(fields.pop("size", 3000))).encode()
        sealed = seal(self.configuration.overlay_hash, 99, MessageCode.PING_REQ, body, FakeSigner(A))
        header = ForwardingHeader(
            overlay=self.configuration.overlay_hash,
            configuration_sequence=5,
            transaction_id=99,
            destination_list=destinations,
            **fields,
        )
        return with_header(header, sealed)

    def errors_to_a(self) -> list[int]:
        """The codes of the errors that B sent to A."""
        found = [decode_message(message).body() for message in self.b_to_a.sent]
        return [body.error_code for body in found if isinstance(body, ErrorResponse)]

    def test_large(self) -> None:
        """There and back over a relay, which passes on what it gets. [6940-6.3.4-11]"""
        asked = self.a.messaging.request(node(C), PingReq(padding=bytes(4000)))
        run(self.clock)
        answer = self.successResultOf(asked)
        self.assertEqual((answer.signer.node_id, answer.hops), (C, 1))
        self.assertEqual(self.requests[0].previous_hop, B)
        self.assertEqual(self.c.messaging.delivered, 1)
        self.assertGreater(self.b.messaging.forwarded, 10)
        self.assertEqual((self.held(self.b), self.held(self.c), self.c.counted), (0, 0, {}))

    def test_lost(self) -> None:
        """What never becomes whole goes after 15 s, and there is nothing left to wait for."""
        self.lost = 1
        self.a_to_b.send(self.large(*node(B)))
        run(self.clock, 14)
        self.assertEqual((self.held(self.b), self.b.counted), (1, {}))
        run(self.clock, 2)
        self.assertEqual((self.held(self.b), self.b.counted), (0, {"fragments timed out": 1}))
        self.assertFalse(self.clock.getDelayedCalls())

    def test_judged_when_whole(self) -> None:
        """By its forwarding options, as a message that came whole is."""
        option = UnknownForwardingOption(type=9, flags=2, option=b"x")
        self.a_to_b.send(self.large(*node(B), options=(option,)))
        run(self.clock)
        self.assertEqual(self.errors_to_a(), [ErrorCode.UNSUPPORTED_FORWARDING_OPTION])
        self.assertFalse(self.requests)

    def test_too_large_when_whole(self) -> None:
        """No fragment is too large; all of them are."""
        data = self.large(*node(B))
        for most, errors in ((len(data), []), (len(data) - 1, [ErrorCode.MESSAGE_TOO_LARGE])):
            self.b.router.configuration = replace(self.configuration, max_message_size=most)
            self.a_to_b.send(data)
            run(self.clock)
            self.assertEqual(self.errors_to_a(), errors)
        self.assertEqual(len(self.requests), 1)

    def test_forged_part(self) -> None:
        """What a stranger slips in costs this message; its repetition is whole again."""
        self.lost = 1
        data = self.large(*node(B))
        first = fragments(data, 500)[0]
        self.a_to_b.send(data)
        run(self.clock)
        self.b.messaging.receive(C, first[:-1] + b"x")
        self.assertEqual(self.b.counted, {"unverified: signature": 1})
        self.a_to_b.send(data)
        run(self.clock)
        self.assertEqual(len(self.requests), 1)

    def test_ours_now(self) -> None:
        """Fragments given back by a lost link, of a request that is ours to serve now."""
        self.b.responsible.add(RESOURCE)
        data = self.large(ResourceDestination(resource_id=RESOURCE), via_list=tuple(node(A)))
        self.b.messaging.redirect(D, fragments(data, 500))
        run(self.clock)
        self.assertEqual([request.previous_hop for request in self.requests], [B])
        self.assertEqual(decode_message(self.b_to_a.sent[-1]).contents.message_code, MessageCode.PING_ANS)

    def test_stop(self) -> None:
        self.lost = 1
        self.a_to_b.send(self.large(*node(B)))
        run(self.clock)
        self.b.messaging.stop()
        self.assertFalse(self.clock.getDelayedCalls())
        self.a.messaging.stop()
