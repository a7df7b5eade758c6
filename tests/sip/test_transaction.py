"""The four transaction machines with their exact times, and what finds them (RFC 3261 §17, RFC 6026)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from p2psip.sip.machines import (
    AckReceived,
    ClientTransaction,
    Failed,
    Overloaded,
    RequestReceived,
    ResponseReceived,
    Send,
    ServerTransaction,
    State,
    TimedOut,
)
from p2psip.sip.message import Request, Response, parse
from p2psip.sip.transaction import TransactionLayer

START = 1000.0


class FakeFlow:
    def __init__(self, reliable: bool) -> None:
        self.reliable = reliable


UDP = FakeFlow(False)
TCP = FakeFlow(True)


def request(method: str = "INVITE", branch: str = ";branch=z9hG4bK1", cseq: int = 1, to_tag: str = "") -> Request:
    return Request(
        method,
        "sip:bob@example.org",
        [
            ("Via", f"SIP/2.0/UDP 192.0.2.1{branch}"),
            ("Via", "SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK0"),
            ("Max-Forwards", "70"),
            ("Route", "<sip:r1;lr>, <sip:r2;lr>"),
            ("From", "<sip:alice@example.org>;tag=a"),
            ("To", f"<sip:bob@example.org>{to_tag}"),
            ("Call-ID", "1"),
            ("CSeq", f"{cseq} {method}"),
        ],
    )


class MachineTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.layer = TransactionLayer()
        self.now = START

    def happened(self) -> list[str]:
        """What was done since last asked: start line or name of each action."""
        names = []
        while (action := self.layer.take()) is not None:
            if isinstance(action, Send):
                names.append(action.data.split(b" sip:")[0].split(b"\r\n")[0].decode())
            elif isinstance(action, ResponseReceived):
                names.append(f"got {action.response.status}")
            else:
                names.append(type(action).__name__)
        return names

    def until(self, end: float) -> list[tuple[float, str]]:
        """Let time pass until `end` seconds after the start; what happened when."""
        events = []
        while (when := self.layer.next_timeout()) is not None and when <= START + end:
            self.now = when
            self.layer.advance(when)
            events += [(round(when - START, 3), name) for name in self.happened()]
        self.now = START + end
        return events

    def serve(self, message: Request, flow: FakeFlow) -> ServerTransaction:
        self.layer.receive_request(message, flow, self.now)
        action = self.layer.take()
        assert isinstance(action, RequestReceived), action
        return action.transaction

    def respond(self, transaction: ServerTransaction, status: int, stateless: bool = False) -> list[str]:
        transaction.respond(request().response(status, to_tag="b"), self.now, stateless)
        return self.happened()

    def receive(self, message: Request, flow: FakeFlow = UDP) -> list[str]:
        self.layer.receive_request(message, flow, self.now)
        return self.happened()

    def send(self, method: str, flow: FakeFlow) -> ClientTransaction:
        transaction = self.layer.send_request(request(method), flow, self.now)
        self.assertEqual(self.happened(), [method])
        return transaction

    def answer(self, transaction: ClientTransaction, status: int) -> list[str]:
        response = transaction.request.response(status, to_tag="b")
        self.assertTrue(self.layer.receive_response(response, self.now))
        return self.happened()


class InviteServerTests(MachineTestCase):
    def test_trying_by_itself(self) -> None:
        transaction = self.serve(request(), UDP)
        self.assertEqual(self.until(10), [(0.2, "SIP/2.0 100 Trying")])
        self.assertEqual(self.receive(request()), ["SIP/2.0 100 Trying"])
        self.assertEqual(self.respond(transaction, 180), ["SIP/2.0 180 Ringing"])
        self.assertEqual(self.receive(request()), ["SIP/2.0 180 Ringing"])
        self.assertEqual(self.until(100), [])

    def test_no_trying_after_a_response(self) -> None:
        transaction = self.serve(request(), UDP)
        self.respond(transaction, 180)
        self.assertEqual(self.until(10), [])

    def test_error_over_udp(self) -> None:
        """Timer G doubles up to T2, Timer H gives up after 64 T1."""
        transaction = self.serve(request(), UDP)
        self.assertEqual(self.receive(request()), [])
        self.assertEqual(self.respond(transaction, 404), ["SIP/2.0 404 Not Found"])
        self.assertEqual(self.receive(request()), ["SIP/2.0 404 Not Found"])
        self.assertEqual(self.respond(transaction, 200), [])
        events = self.until(100)
        self.assertEqual(
            [when for when, name in events if name == "SIP/2.0 404 Not Found"],
            [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5],
        )
        self.assertEqual(events[-1], (32.0, "TimedOut"))
        self.assertEqual(self.layer.servers, {})

    def test_ack_ends_it(self) -> None:
        """Timer I absorbs further ACKs for T4; another branch or method of the dialog does not match."""
        transaction = self.serve(request(), UDP)
        self.respond(transaction, 404)
        self.assertEqual(self.receive(request("ACK", ";branch=z9hG4bK9")), ["AckReceived"])
        self.assertEqual(self.receive(request("ACK")), [])
        self.assertIs(transaction.state, State.CONFIRMED)
        self.assertEqual(self.receive(request("ACK")), [])
        self.assertEqual(self.receive(request()), [])
        self.assertEqual(self.layer.next_timeout(), START + 5)
        self.assertEqual(self.until(100), [])
        self.assertEqual(self.receive(request("ACK")), ["AckReceived"])

    def test_error_over_tcp(self) -> None:
        transaction = self.serve(request(), TCP)
        self.respond(transaction, 404)
        self.assertEqual(self.layer.next_timeout(), START + 32)
        self.receive(request("ACK"), TCP)
        self.assertEqual((self.layer.servers, self.layer.next_timeout()), ({}, None))

    def test_success(self) -> None:
        """Accepted: the repeated INVITE is absorbed, further 2xx go out, ACK goes up, Timer L ends it (RFC 6026)."""
        transaction = self.serve(request(), UDP)
        self.assertEqual(self.respond(transaction, 200), ["SIP/2.0 200 OK"])
        self.assertEqual(self.receive(request()), [])
        self.assertEqual(self.respond(transaction, 404), [])
        self.assertEqual(self.respond(transaction, 200), ["SIP/2.0 200 OK"])
        self.assertEqual(self.receive(request("ACK")), ["AckReceived"])
        self.assertIs(transaction.state, State.ACCEPTED)
        self.assertEqual(self.until(31.9), [])
        self.assertEqual(self.receive(request()), [])
        self.until(32)
        self.assertEqual(self.receive(request()), ["RequestReceived"])

    def test_cancel_finds_it(self) -> None:
        transaction = self.serve(request(), UDP)
        cancel = self.serve(request("CANCEL"), UDP)
        self.assertIs(cancel.cancels, transaction)
        self.assertIsNone(self.serve(request("CANCEL", ";branch=z9hG4bK9"), UDP).cancels)

    def test_stateless(self) -> None:
        transaction = self.serve(request(), UDP)
        self.assertEqual(self.respond(transaction, 401, True), ["SIP/2.0 401 Unauthorized"])
        self.assertEqual((self.layer.servers, self.until(100)), ({}, []))


class NonInviteServerTests(MachineTestCase):
    def test_udp(self) -> None:
        """Repeated requests get the last response, nothing before the first; Timer J is 64 T1."""
        transaction = self.serve(request("OPTIONS"), UDP)
        self.assertEqual(self.receive(request("OPTIONS")), [])
        self.assertEqual(self.respond(transaction, 100), ["SIP/2.0 100 Trying"])
        self.assertEqual(self.receive(request("OPTIONS")), ["SIP/2.0 100 Trying"])
        self.assertEqual(self.respond(transaction, 200), ["SIP/2.0 200 OK"])
        self.assertEqual(self.respond(transaction, 404), [])
        self.assertEqual(self.until(31.9), [])
        self.assertEqual(self.receive(request("OPTIONS")), ["SIP/2.0 200 OK"])
        self.until(32)
        self.assertEqual(self.receive(request("OPTIONS")), ["RequestReceived"])

    def test_the_request_is_let_go(self) -> None:
        """What only waits for repetitions does not keep the request."""
        for method, status in (("OPTIONS", 200), ("INVITE", 404), ("INVITE", 200)):
            transaction = self.serve(request(method, f";branch=z9hG4bK{method}{status}"), UDP)
            self.respond(transaction, status)
            self.assertEqual(transaction.request.headers, {})

    def test_tcp(self) -> None:
        transaction = self.serve(request("OPTIONS"), TCP)
        self.respond(transaction, 200)
        self.assertEqual((self.layer.servers, self.layer.next_timeout()), ({}, None))


class InviteClientTests(MachineTestCase):
    def test_nobody_answers_over_udp(self) -> None:
        """Timer A doubles without limit, Timer B ends it."""
        self.send("INVITE", UDP)
        self.assertEqual(
            self.until(100),
            [(when, "INVITE") for when in (0.5, 1.5, 3.5, 7.5, 15.5, 31.5)] + [(32.0, "TimedOut")],
        )
        self.assertEqual(self.layer.clients, {})

    def test_nobody_answers_over_tcp(self) -> None:
        self.send("INVITE", TCP)
        self.assertEqual(self.until(100), [(32.0, "TimedOut")])

    def test_error_over_udp(self) -> None:
        """The ACK, again for each repeated response, until Timer D."""
        transaction = self.send("INVITE", UDP)
        self.assertEqual(self.answer(transaction, 180), ["got 180"])
        self.assertEqual(self.until(50), [])
        self.assertEqual(self.answer(transaction, 404), ["ACK", "got 404"])
        self.assertEqual(self.answer(transaction, 404), ["ACK"])
        self.assertEqual(self.answer(transaction, 180), [])
        self.assertEqual(self.layer.next_timeout(), START + 82)
        self.until(82)
        self.assertEqual(self.layer.clients, {})

    def test_the_ack(self) -> None:
        """Header fields of the ACK (RFC 3261 §17.1.1.3)."""
        transaction = self.layer.send_request(request(), TCP, START)
        self.layer.take()
        self.layer.receive_response(transaction.request.response(486, to_tag="b"), START)
        action = self.layer.take()
        assert isinstance(action, Send)
        ack = parse(action.data)
        assert isinstance(ack, Request)
        self.assertEqual((ack.method, ack.uri_text), ("ACK", "sip:bob@example.org"))
        self.assertEqual(ack.values("Via"), ["SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1"])
        self.assertEqual((ack.from_.tag, ack.to.tag, ack.call_id, ack.cseq), ("a", "b", "1", (1, "ACK")))
        self.assertEqual(len(ack.routes), 2)
        self.assertEqual(self.layer.clients, {})

    def test_success(self) -> None:
        """Accepted: every 2xx goes up, nothing else does, Timer M ends it (RFC 6026)."""
        transaction = self.send("INVITE", UDP)
        self.assertEqual(self.answer(transaction, 200), ["got 200"])
        self.assertEqual(self.answer(transaction, 200), ["got 200"])
        self.assertEqual(self.answer(transaction, 404), [])
        self.assertEqual(self.layer.next_timeout(), START + 32)
        self.until(32)
        self.assertEqual(self.layer.clients, {})


class NonInviteClientTests(MachineTestCase):
    def test_nobody_answers(self) -> None:
        """Timer E doubles up to T2, Timer F ends it."""
        self.send("OPTIONS", UDP)
        times = [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
        self.assertEqual(self.until(100), [(when, "OPTIONS") for when in times] + [(32.0, "TimedOut")])

    def test_proceeding(self) -> None:
        """After a 1xx the request is repeated every T2, and Timer F still runs."""
        transaction = self.send("OPTIONS", UDP)
        self.assertEqual(self.answer(transaction, 100), ["got 100"])
        times = [0.5, 4.5, 8.5, 12.5, 16.5, 20.5, 24.5, 28.5]
        self.assertEqual(self.until(100), [(when, "OPTIONS") for when in times] + [(32.0, "TimedOut")])

    def test_final(self) -> None:
        """Timer K absorbs what is repeated."""
        transaction = self.send("OPTIONS", UDP)
        self.assertEqual(self.answer(transaction, 200), ["got 200"])
        self.assertEqual(self.answer(transaction, 200), [])
        self.assertEqual(self.layer.next_timeout(), START + 5)
        self.until(5)
        late = transaction.request.response(200)
        self.assertFalse(self.layer.receive_response(late, self.now))

    def test_tcp(self) -> None:
        transaction = self.send("OPTIONS", TCP)
        self.assertEqual(self.layer.next_timeout(), START + 32)
        self.assertEqual(self.answer(transaction, 200), ["got 200"])
        self.assertEqual((self.layer.clients, self.layer.next_timeout()), ({}, None))

    def test_transport_fails(self) -> None:
        transaction = self.send("OPTIONS", TCP)
        transaction.fail()
        self.assertEqual(self.happened(), ["Failed"])
        self.assertEqual(self.layer.clients, {})


class MatchingTests(MachineTestCase):
    def test_server(self) -> None:
        """Branch, sent-by and method tell transactions apart, the host's case does not (RFC 3261 §17.2.3)."""
        self.assertEqual(self.receive(request()), ["RequestReceived"])
        self.assertEqual(self.receive(request("OPTIONS")), ["RequestReceived"])
        other = request()
        other.headers["Via"][0] = "SIP/2.0/UDP 192.0.2.1:5061;branch=z9hG4bK1"
        self.assertEqual(self.receive(other), ["RequestReceived"])
        self.assertEqual(self.receive(request(cseq=7)), [])

    def test_rfc2543(self) -> None:
        """Without the magic cookie, or with nothing after it: Request-URI, tags, Call-ID, CSeq and Via."""
        for branch in ("", ";branch=1", ";branch=z9hG4bK"):
            transaction = self.serve(request(branch=branch), UDP)
            self.assertEqual(self.receive(request(branch=branch)), [])
            self.assertEqual(self.receive(request(branch=branch, cseq=2)), ["RequestReceived"])
            self.respond(transaction, 404)
            self.assertEqual(self.receive(request("ACK", branch, to_tag=";tag=b")), [])
            self.assertIs(transaction.state, State.CONFIRMED)
            self.layer.servers.clear()

    def test_client(self) -> None:
        """Branch and method of the CSeq (RFC 3261 §17.1.3)."""
        invite, options = self.send("INVITE", UDP), self.send("OPTIONS", UDP)
        self.assertEqual(self.answer(options, 200), ["got 200"])
        self.assertIs(invite.state, State.CALLING)
        self.assertRaises(ValueError, self.layer.send_request, request(), UDP, self.now)
        stray = Response(200, headers=[("Via", "SIP/2.0/UDP h;branch=x"), ("CSeq", "1 INVITE")])
        self.assertFalse(self.layer.receive_response(stray, self.now))
        self.assertEqual(self.layer.counters["response without transaction"], 1)


class BoundsTests(MachineTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.layer = TransactionLayer(most_servers=2, most_clients=1)

    def test_unanswered_ones_stay(self) -> None:
        for number in (1, 2):
            self.serve(request("OPTIONS", f";branch=z9hG4bK{number}"), UDP)
        self.assertEqual(self.receive(request("OPTIONS", ";branch=z9hG4bK3")), ["Overloaded"])

    def test_the_oldest_answered_one_goes(self) -> None:
        for number in (1, 2):
            transaction = self.serve(request("OPTIONS", f";branch=z9hG4bK{number}"), UDP)
            self.respond(transaction, 200)
            self.now += 1
        self.assertEqual(self.receive(request("OPTIONS", ";branch=z9hG4bK3")), ["RequestReceived"])
        self.assertEqual(self.receive(request("OPTIONS", ";branch=z9hG4bK2")), ["SIP/2.0 200 OK"])

    def test_long_refusals_go_at_once(self) -> None:
        """A refusal that repeats a request's thousands of bytes is not kept, a short one is."""
        for length, repeated in ((10, ["SIP/2.0 420 Bad Extension"]), (9000, ["RequestReceived"])):
            transaction = self.serve(request("OPTIONS", f";branch=z9hG4bK{'x' * length}"), UDP)
            transaction.respond(transaction.request.response(420), self.now)
            self.happened()
            self.assertEqual(self.receive(request("OPTIONS", f";branch=z9hG4bK{'x' * length}")), repeated)

    def test_clients(self) -> None:
        self.send("OPTIONS", UDP)
        self.assertRaises(OverflowError, self.layer.send_request, request("INVITE"), UDP, self.now)

    def test_dead_timers_go(self) -> None:
        for number in range(5000):
            transaction = self.serve(request("INVITE", f";branch=z9hG4bK{number}"), UDP)
            self.respond(transaction, 401, True)
        self.assertTrue(len(self.layer._timers) < 1100)


class ActionTests(MachineTestCase):
    """What the actions carry."""

    def test_actions(self) -> None:
        message, ack = request("OPTIONS"), request("ACK", ";branch=z9hG4bK9")
        transaction = self.serve(message, UDP)
        self.assertIs(transaction.request, message)
        self.assertIs(transaction.flow, UDP)
        self.layer.receive_request(ack, UDP, self.now)
        self.assertEqual(self.layer.take(), AckReceived(ack, UDP))
        client = self.layer.send_request(request("OPTIONS"), UDP, self.now, user="mine")
        self.assertEqual((self.layer.take(), client.user), (Send(client, client.request.encode()), "mine"))
        client.fail()
        self.assertEqual(self.layer.take(), Failed(client))
        other = self.layer.send_request(request("OPTIONS"), TCP, self.now)
        self.layer.take()
        self.layer.advance(self.now + 32)
        self.assertEqual(self.layer.take(), TimedOut(other))
        full = TransactionLayer(most_servers=0)
        full.receive_request(message, UDP, self.now)
        self.assertEqual(full.take(), Overloaded(message, UDP))
