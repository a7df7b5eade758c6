"""Which calls are relayed, and what is asked of the relay for each message of a call."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from p2psip.sip.interfaces import Source
from p2psip.sip.media import calls
from p2psip.sip.media.client import DEADLINE
from p2psip.sip.message import Request, Response

from .descriptions import ICE, description
from .fakes import FakeReactor, FakeRtpengine, fake_media, relayed

PHONE = Source("203.0.113.7", 40000, "UDP")
"""Behind a NAT with the outer address 203.0.113.7; inside it is 192.168.1.2."""
BINDING = "UDP 203.0.113.8 5062"
BEHIND, OPEN = "sip:bob@192.168.1.3:5060", "sip:bob@203.0.113.8:5062"
OFFER = description("192.168.1.2", 5000)


def request(
    method: str = "INVITE",
    body: bytes = b"",
    from_tag: str = "a",
    to_tag: str = "",
    hop: str = "203.0.113.7",
    **more: str,
) -> Request:
    """One as it goes out, with a Via of ours on top."""
    headers = {
        "Via": "SIP/2.0/UDP 198.51.100.1;branch=z9hG4bKours",
        "From": f"<sip:alice@example.org>;tag={from_tag}" if from_tag else "<sip:alice@example.org>",
        "To": f"<sip:bob@example.org>;tag={to_tag}" if to_tag else "<sip:bob@example.org>",
        "Call-ID": "call", "CSeq": f"1 {method}", "Contact": "<sip:alice@192.168.1.2:5060>",
        "Content-Type": "application/sdp", **more,
    }  # fmt: skip
    made = Request(method, "sip:bob@192.168.1.3", headers.items(), body)
    made.add("Via", f"SIP/2.0/UDP 192.168.1.2;branch=z9hG4bKphone;received={hop}")
    return made


def response(to: Request, status: int, body: bytes = b"", to_tag: str = "b") -> Response:
    made = to.response(status, to_tag=to_tag)
    made.set("Content-Type", "application/sdp")
    made.body = body
    return made


class MediaTestCase(SynchronousTestCase):
    engines = 1

    def setUp(self) -> None:
        self.reactor: FakeReactor
        self.all_engines: list[FakeRtpengine]
        self.reactor, self.all_engines, self.media = fake_media(self.engines)
        self.engine = self.all_engines[0]

    def passes(self, message: Request, branch: str = "z1", sender: Source | None = None) -> bytes:
        """What the body of a request becomes."""
        return self.done(self.media.request_passes(message, branch, sender), message)

    def comes_back(
        self, message: Response, to: Request, branch: str = "z1", sender: Source | None = None
    ) -> bytes:
        """What the body of a response becomes."""
        return self.done(self.media.response_passes(message, to, branch, sender), message)

    def done(self, going: Deferred[None], message: Request | Response) -> bytes:
        self.reactor.advance(0)
        self.successResultOf(going)
        return message.body

    def told(self) -> list[tuple[bytes, ...]]:
        """What the relay was told since the last time: command, from-tag, to-tag, via-branch."""
        self.reactor.advance(0)
        said = [
            tuple(command.get(name, b"") for name in ("command", "from-tag", "to-tag", "via-branch"))
            for command in self.engine.named("offer", "answer", "delete")
        ]
        self.engine.commands.clear()
        return said


class WantedTests(MediaTestCase):
    def wanted(
        self, body: bytes = OFFER, caller: Source | None = PHONE, source: str = "", uri: str = OPEN, **headers: str
    ) -> bool:
        return self.media.wanted(request(body=body, **headers), caller, source, uri)

    def test_caller(self) -> None:
        """By the addresses of the offer; without one by the Contact."""
        self.assertTrue(self.wanted())
        self.assertFalse(self.wanted(caller=None))
        self.assertFalse(self.wanted(description("203.0.113.7", 5000)))
        self.assertFalse(self.wanted(description("0.0.0.0", 5000)))
        self.assertTrue(self.wanted(b""))
        self.assertFalse(self.wanted(b"", Contact="<sip:alice@203.0.113.7>"))
        self.assertTrue(self.wanted(description("phone.local", 5000)))

    def test_an_address_of_the_internet_is_believed(self) -> None:
        """A gateway's media may be elsewhere."""
        self.assertFalse(self.wanted(description("8.8.8.8", 5000), Source("9.9.9.9", 5060, "UDP")))
        self.assertFalse(self.wanted(description("2001:4860:4860::8888", 5000), PHONE))
        self.assertTrue(self.wanted(description("10.0.0.1", 5000), Source("2001:4860:4860::8888", 5060, "UDP")))

    def test_callee(self) -> None:
        """By the Contact, since it has said nothing else yet; whoever calls."""
        for caller in (None, Source("192.168.1.2", 5060, "UDP")):
            self.assertTrue(self.wanted(caller=caller, source=BINDING, uri=BEHIND))
            self.assertTrue(self.wanted(b"", caller=None, source=BINDING, uri=BEHIND))
            self.assertTrue(self.wanted(caller=caller, source=BINDING, uri="sip:bob@x.invalid;transport=ws"))
            self.assertFalse(self.wanted(caller=caller, source=BINDING, uri=OPEN))
        self.assertFalse(self.wanted(caller=None, source="", uri=BEHIND))

    def test_who_does_ice_is_left_alone(self) -> None:
        """Also where the callee is behind a NAT."""
        offer = description("192.168.1.2", 5000, *ICE)
        self.assertFalse(self.wanted(offer))
        self.assertFalse(self.wanted(offer, source=BINDING, uri=BEHIND))
        self.assertEqual(self.media.counters["left to ICE"], 2)

    def test_other_bodies(self) -> None:
        for headers in ({"Content-Type": "multipart/mixed;boundary=x"}, {"Content-Encoding": "gzip"}):
            self.assertFalse(self.wanted(source=BINDING, uri=BEHIND, **headers))
        self.assertFalse(self.wanted(b"rubbish"))
        self.assertTrue(self.wanted(**{"Content-Type": "Application/SDP ; charset=utf-8"}))
        self.assertEqual(self.media.counters, {"other body": 2, "malformed description": 1})


class ExchangeTests(MediaTestCase):
    def test_offer_and_answer(self) -> None:
        """With an early answer, too, which the final one repeats."""
        invite = request(body=OFFER)
        self.assertEqual(self.passes(invite, sender=PHONE), relayed("offer", 30002))
        for status in (183, 200):
            answer = self.comes_back(response(invite, status, description("203.0.113.9", 6000)), invite)
            self.assertIn(b"x-answer", answer)
        self.assertEqual(
            self.told(),
            [(b"offer", b"a", b"", b"z1"), (b"answer", b"a", b"b", b"z1"), (b"answer", b"a", b"b", b"z1")],
        )

    def test_what_the_relay_is_told(self) -> None:
        """Of a phone behind a NAT, that media go to where its packets come from."""
        invite = request(body=OFFER)
        self.passes(invite, sender=PHONE)
        self.comes_back(response(invite, 200, description("203.0.113.9", 6000)), invite, sender=None)
        offer, answer = self.engine.named("offer", "answer")
        self.assertEqual(offer["call-id"], b"node-call")
        self.assertEqual(offer["sdp"], OFFER)
        self.assertEqual((offer["ICE"], offer["replace"]), (b"remove", [b"origin", b"session-connection"]))
        self.assertEqual(offer["received-from"], [b"IP4", b"203.0.113.7"])
        always = [b"passthrough", b"endpoint-learning-heuristic"]
        self.assertEqual(offer["flags"], [*always, b"SIP-source-address"])
        self.assertEqual((answer["flags"], "received-from" in answer), (always, False))

    def test_ice_within_a_relayed_call(self) -> None:
        """It is taken out: the way of the media is known."""
        self.passes(request(body=description("192.168.1.2", 5000, *ICE), to_tag="b"), sender=PHONE)
        self.assertEqual(self.engine.named("offer")[0]["sdp"], OFFER)

    def test_hold_of_old(self) -> None:
        """The address that means silence stays (RFC 3264 §8.4)."""
        self.passes(request(body=description("0.0.0.0", 5000)), sender=PHONE)
        self.assertNotIn("received-from", self.engine.named("offer")[0])

    def test_offer_in_the_response(self) -> None:
        """Answered by ACK; who offers is the callee."""
        invite = request()
        self.assertEqual(self.passes(invite, sender=PHONE), b"")
        self.comes_back(response(invite, 200, description("203.0.113.9", 6000)), invite)
        ack = request("ACK", OFFER, to_tag="b")
        self.assertIn(b"x-answer", self.passes(ack, "z2", PHONE))
        self.assertEqual(self.told(), [(b"offer", b"b", b"a", b"z1"), (b"answer", b"b", b"a", b"z2")])

    def test_prack(self) -> None:
        """It answers the offer of a provisional response, or brings another offer (RFC 3262 §5)."""
        for late, expected in ((True, (b"answer", b"b", b"a")), (False, (b"offer", b"a", b"b"))):
            invite = request(body=b"" if late else OFFER)
            self.passes(invite, sender=PHONE)
            self.comes_back(response(invite, 183, description("203.0.113.9", 6000)), invite)
            self.told()
            prack = request("PRACK", OFFER, to_tag="b")
            self.passes(prack, "z2", PHONE)
            self.assertEqual(self.told(), [(*expected, b"z2")])

    def test_in_both_directions(self) -> None:
        """A re-INVITE of the callee and an UPDATE of the caller, with their answers."""
        for method, sender, other in (("INVITE", "b", "a"), ("UPDATE", "a", "b")):
            again = request(method, OFFER, from_tag=sender, to_tag=other)
            self.passes(again, "z3")
            self.comes_back(response(again, 200, OFFER), again, "z3")
            here, there = sender.encode(), other.encode()
            self.assertEqual(self.told(), [(b"offer", here, there, b"z3"), (b"answer", here, there, b"z3")])

    def test_what_is_left_alone(self) -> None:
        """Bodies of other requests and responses, and such as are no session description."""
        invite = request(body=OFFER)
        self.passes(invite, sender=PHONE)
        self.told()
        self.assertEqual(self.comes_back(response(invite, 488, OFFER), invite), OFFER)
        for other in (request("MESSAGE", OFFER), request("INFO", OFFER, to_tag="b"), request(body=OFFER, from_tag="")):
            self.assertEqual(self.passes(other), OFFER)
        info = request("INFO", OFFER, to_tag="b")
        self.assertEqual(self.comes_back(response(info, 200, OFFER), info), OFFER)
        mixed = request(body=OFFER, to_tag="b", **{"Content-Type": "multipart/mixed;boundary=x"})
        self.assertEqual(self.passes(mixed), OFFER)
        self.assertEqual(self.told(), [])

    def test_a_late_offer_with_ice(self) -> None:
        """It is left alone, and so is its answer; what comes later is not."""
        invite = request()
        self.passes(invite, sender=PHONE)
        offer = description("192.168.1.3", 6000, *ICE)
        self.assertEqual(self.comes_back(response(invite, 200, offer), invite), offer)
        self.assertEqual(self.passes(request("ACK", OFFER, to_tag="b"), "z2", PHONE), OFFER)
        self.assertEqual(self.told(), [])
        self.assertNotEqual(self.passes(request(body=OFFER, to_tag="b"), "z3", PHONE), OFFER)

    def test_after_a_restart(self) -> None:
        """Another run of the program goes on with the call."""
        invite = request(body=OFFER)
        self.passes(invite, sender=PHONE)
        self.comes_back(response(invite, 200, OFFER), invite)
        engine = self.engine
        self.reactor, self.all_engines, self.media = fake_media()
        self.engine = self.reactor.engines[2223] = engine
        self.told()
        again = request(body=OFFER, from_tag="b", to_tag="a")
        self.assertNotEqual(self.passes(again, "z3"), OFFER)
        self.assertNotEqual(self.comes_back(response(again, 200, OFFER, "a"), again, "z3"), OFFER)
        self.assertEqual([said[:3] for said in self.told()], [(b"offer", b"b", b"a"), (b"answer", b"b", b"a")])
        self.reactor, _, self.media = fake_media()
        self.reactor.engines[2223] = engine
        self.media.ended("call", "b", "a", "")
        self.assertEqual(self.told(), [(b"delete", b"b", b"a", b"")])


class EndTests(MediaTestCase):
    def test_bye(self) -> None:
        self.passes(request(body=OFFER), sender=PHONE)
        self.told()
        self.assertEqual(self.media.status()["calls"], 1)
        self.media.ended("call", "b", "a", "")
        self.assertEqual(self.told(), [(b"delete", b"b", b"a", b"")])
        self.assertEqual(self.engine.datagrams[-1].count(b"12:delete-delayi0e"), 1)
        self.assertEqual(self.media.status()["calls"], 0)

    def test_branches(self) -> None:
        """Each ends for itself; the last one takes the call along."""
        for branch in ("z1", "z2"):
            self.passes(request(body=OFFER), branch, PHONE)
        self.told()
        self.media.ended("call", "a", None, "z2")
        self.assertEqual((self.told(), self.media.status()["calls"]), ([(b"delete", b"a", b"", b"z2")], 1))
        self.media.ended("call", "a", None, "z1")
        self.assertEqual((self.told(), self.media.status()["calls"]), ([(b"delete", b"a", b"", b"z1")], 0))

    def test_before_the_relay_has_answered(self) -> None:
        """The end is told after the beginning, so that nothing stays at the relay."""
        self.engine.delay = 0.1
        going = self.media.request_passes(request(body=OFFER), "z1", PHONE)
        self.media.ended("call", "a", None, "z1")
        self.assertEqual([said[0] for said in self.told()], [b"offer"])
        self.reactor.advance(0.1)
        self.successResultOf(going)
        self.assertEqual(self.told(), [(b"delete", b"a", b"", b"z1")])
        self.assertEqual(self.media.status()["calls"], 0)

    def test_what_was_not_relayed(self) -> None:
        """Nothing is deleted for it."""
        self.engine.result = {"result": "error", "error-reason": "no"}
        self.passes(request(body=OFFER), sender=PHONE)
        self.told()
        self.media.ended("call", "a", None, "z1")
        self.assertEqual(self.told(), [])


class FailureTests(MediaTestCase):
    engines = 2

    def test_no_relay(self) -> None:
        """Within the deadline the message passes unchanged; then at once, until there is one again."""
        for engine in self.all_engines:
            engine.silent = True
        invite = request(body=OFFER)
        going = self.media.request_passes(invite, "z1", PHONE)
        for _ in range(30):
            self.reactor.advance(DEADLINE / 30 + 0.0001)
        self.successResultOf(going)
        self.assertEqual(invite.body, OFFER)
        self.assertEqual(self.passes(request(body=OFFER), "z2", PHONE), OFFER)
        self.assertEqual(self.media.counters["offer failed, silent"], 2)

    def test_an_answer_never_passes_alone(self) -> None:
        """Where the offer bypassed the relay the answer does, although that is back; of another branch it does not."""
        for engine in self.all_engines:
            engine.result = {"result": "error"}
        invite = request(body=OFFER)
        self.passes(invite, "z1", PHONE)
        for engine in self.all_engines:
            engine.result = {"result": "ok"}
        other = request(body=OFFER)
        self.passes(other, "z2", PHONE)
        self.assertEqual(self.comes_back(response(invite, 200, OFFER), invite, "z1"), OFFER)
        self.assertNotEqual(self.comes_back(response(other, 200, OFFER), other, "z2"), OFFER)

    def test_the_next_relay_takes_over(self) -> None:
        """A new call at once, one that was under way with its next offer."""
        self.passes(request(body=OFFER), sender=PHONE)
        first = next(engine for engine in self.all_engines if engine.named("offer"))
        (other,) = (engine for engine in self.all_engines if engine is not first)
        first.listening = False
        again = request(body=OFFER, to_tag="b")
        going = self.media.request_passes(again, "z2", PHONE)
        self.reactor.pump([0, 0])
        self.successResultOf(going)
        self.assertEqual(len(other.named("offer")), 1)
        self.assertNotEqual(self.comes_back(response(again, 200, OFFER), again, "z2"), OFFER)
        self.assertEqual(len(other.named("answer")), 1)

    def test_rubbish_of_the_relay(self) -> None:
        for engine in self.all_engines:
            engine.calls = {b"node-call": 1}
            engine._answer = lambda command: {"result": "ok", "sdp": 7}  # type: ignore[method-assign]
        self.assertEqual(self.passes(request(body=OFFER), sender=PHONE), OFFER)
        self.assertEqual(self.media.counters["offer failed, refused"], 1)

    def test_malformed_messages(self) -> None:
        """Nothing fails of them."""
        without: Any = request(body=OFFER)
        del without.headers["Call-ID"]
        self.assertEqual(self.passes(without), OFFER)
        self.assertEqual(self.media.counters["malformed message"], 1)


class StrangersTests(MediaTestCase):
    def test_the_call_of_another(self) -> None:
        """Who was called cannot use its Call-ID and tag to get at the call's media: he calls from elsewhere."""
        self.passes(request(body=OFFER), sender=PHONE)
        self.told()
        forged = request(body=OFFER, hop="203.0.113.66")
        self.assertEqual(self.passes(forged, "z9", Source("203.0.113.66", 5060, "UDP")), OFFER)
        self.assertEqual(self.comes_back(response(forged, 200, OFFER), forged, "z9"), OFFER)
        self.media.ended("call", "a", None, "z9")
        self.assertEqual((self.told(), self.media.counters["call of another"]), ([], 1))
        self.assertEqual(self.media.status()["calls"], 1)
        self.assertNotEqual(self.passes(request(body=OFFER), "z2", PHONE), OFFER)

    def test_bounds(self) -> None:
        """Callers and branches of a call, and calls."""
        for number in range(calls.MOST_BRANCHES):
            self.assertNotEqual(self.passes(request(body=OFFER, from_tag=f"t{number}"), f"z{number}"), OFFER)
        self.assertEqual(self.passes(request(body=OFFER, from_tag="more"), "more"), OFFER)
        self.patch(calls, "MOST_CALLS", 10)
        for number in range(20):
            self.passes(request(body=OFFER, **{"Call-ID": f"call{number}"}))
        self.assertEqual(self.media.status()["calls"], 10)
        self.reactor.advance(calls.FORGOTTEN + 1)
        self.passes(request(body=OFFER, **{"Call-ID": "late"}))
        self.assertEqual(self.media.status()["calls"], 1)
