"""Relays that answer, that do not, and that come back: one client, and several together."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from p2psip.sip.media.client import DEADLINE, MOST_UNDER_WAY, RelayBusy, RelayClient, RelayRefused, RelaySilent
from p2psip.sip.media.relays import PING_SECONDS, Relays

from .fakes import FakeReactor, FakeRtpengine


class ClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.engine = self.reactor.engines[2223] = FakeRtpengine()
        self.client = RelayClient("127.0.0.1", 2223, self.reactor, Random(1))
        self.client.start()

    def test_answer(self) -> None:
        asked = self.client.ask("ping", {})
        self.assertNoResult(asked)
        self.reactor.advance(0)
        self.assertEqual(self.successResultOf(asked), {"result": b"pong"})
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_repeated_until_answered(self) -> None:
        """The same datagram again after 0.25 s, 0.75 s and 1.75 s; what comes after the answer is passed over."""
        self.engine.silent = True
        asked = self.client.ask("ping", {})
        for seconds, sent in ((0.24, 1), (0.01, 2), (0.49, 2), (0.01, 3), (0.99, 3)):
            self.reactor.advance(seconds)
            self.assertEqual(len(self.engine.datagrams), sent)
        self.engine.silent = False
        self.reactor.advance(0.01)
        self.assertEqual(len(set(self.engine.datagrams)), 1)
        self.reactor.advance(0)
        self.successResultOf(asked)
        self.client.datagramReceived(self.engine.receive(self.engine.datagrams[0]) or b"", None)
        self.assertEqual(self.client.rubbish, 0)

    def test_deadline(self) -> None:
        self.engine.silent = True
        asked = self.client.ask("ping", {})
        for _ in range(29):
            self.reactor.advance(DEADLINE / 30)
        self.assertNoResult(asked)
        self.reactor.advance(DEADLINE / 30 + 0.001)
        self.failureResultOf(asked, RelaySilent)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_nobody_listens(self) -> None:
        self.engine.listening = False
        asked = self.client.ask("ping", {})
        self.reactor.advance(0)
        self.failureResultOf(asked, RelaySilent)

    def test_bounds(self) -> None:
        """Commands that wait, and the size of one."""
        self.engine.silent = True
        waiting = [self.client.ask("ping", {}) for _ in range(MOST_UNDER_WAY)]
        self.failureResultOf(self.client.ask("ping", {}), RelayBusy)
        self.reactor.pump([DEADLINE / 4] * 5)
        for asked in waiting:
            self.failureResultOf(asked, RelaySilent)
        self.failureResultOf(self.client.ask("offer", {"sdp": bytes(70_000)}), RelayRefused)

    def test_rubbish(self) -> None:
        """It is counted, and nobody's answer."""
        self.engine.silent = True
        asked = self.client.ask("ping", {})
        for datagram in (b"", b"x", b"other d6:result2:oke", self.engine.datagrams[0].partition(b" ")[0] + b" li"):
            self.client.datagramReceived(datagram, None)
        self.assertEqual(self.client.rubbish, 3)
        self.assertNoResult(asked)
        self.reactor.pump([DEADLINE / 4] * 5)
        self.failureResultOf(asked, RelaySilent)

    def test_stop(self) -> None:
        """What waits fails, and so does what comes later."""
        self.engine.silent = True
        asked = self.client.ask("ping", {})
        self.successResultOf(Deferred.fromCoroutine(self.client.stop()))
        self.failureResultOf(asked, RelaySilent)
        self.failureResultOf(self.client.ask("ping", {}), RelaySilent)
        self.assertEqual((self.reactor.closed, self.reactor.getDelayedCalls()), (1, []))


class RelaysTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.engines = [FakeRtpengine() for _ in range(3)]
        self.reactor.engines = dict(enumerate(self.engines, 2223))
        self.relays = self.new_relays()
        self.said: list[str] = []
        globalLogPublisher.addObserver(self._observe)
        self.addCleanup(globalLogPublisher.removeObserver, self._observe)

    def new_relays(self) -> Relays:
        clients = [RelayClient("127.0.0.1", port, self.reactor, Random(port)) for port in self.reactor.engines]
        return Relays(clients, self.reactor)

    def _observe(self, event: Any) -> None:
        if "relay" in event:
            self.said.append(event["log_format"].partition("{relay}")[2][:11])

    def start(self) -> None:
        self.relays.start()
        self.reactor.advance(0)

    def ask(self, call_id: str) -> Deferred[Any]:
        asked = Deferred.fromCoroutine(self.relays.ask(call_id, "offer", {"call-id": call_id, "sdp": b"v=0"}))
        self.reactor.advance(0)
        return asked

    def order(self, call_id: str) -> list[str]:
        return [relay.address for relay in self.relays.for_call(call_id)]

    def test_calls_are_spread(self) -> None:
        """By the Call-ID alone: after a restart they are where they were."""
        self.start()
        firsts = {f"call{number}": self.order(f"call{number}")[0] for number in range(30)}
        self.assertEqual(len(set(firsts.values())), 3)
        self.relays = self.new_relays()
        self.assertEqual(firsts, {call_id: self.order(call_id)[0] for call_id in firsts})
        second = self.relays.for_call("call0")[1]
        self.assertEqual(self.relays.for_call("call0", second)[0], second)

    def test_a_dead_one_is_passed_by(self) -> None:
        """Also for calls that it has; the log says it once, and once that it is back."""
        self.start()
        self.assertEqual(self.said, [" answers"] * 3)
        first, second, _ = self.order("call")
        engine = self.engines[int(first[-1]) - 3]
        engine.listening = False
        asked = self.ask("call")
        self.reactor.advance(0)
        relay, answer = self.successResultOf(asked)
        self.assertEqual((relay.address, answer["result"]), (second, b"ok"))
        self.assertNotIn(first, self.order("call"))
        self.assertIn({"address": first, "up": False}, self.relays.status())
        for _ in range(3):
            self.reactor.advance(PING_SECONDS)
            self.reactor.advance(0)
        self.assertEqual(self.said[3:], [" is not the"])
        engine.listening = True
        self.reactor.advance(PING_SECONDS)
        self.reactor.advance(0)
        self.assertEqual(self.order("call")[0], first)
        self.assertEqual(self.said[4:], [" answers"])

    def test_all_silent(self) -> None:
        """All together take no longer than one; afterwards nobody is asked until one is back."""
        self.start()
        for engine in self.engines:
            engine.silent = True
        asked = self.ask("call")
        for _ in range(30):
            self.reactor.advance(DEADLINE / 30 + 0.001)
        self.failureResultOf(asked, RelaySilent)
        self.assertFalse(self.relays.any_up)
        self.failureResultOf(self.ask("call"), RelaySilent)
        self.assertEqual(self.relays.counters["offer silent"], 2)

    def test_full(self) -> None:
        """One that takes no more calls now is passed by; one that refuses is believed to be alive."""
        self.start()
        first, second, third = (self.engines[int(address[-1]) - 3] for address in self.order("call"))
        first.result = {"result": "load limit", "message": "Parallel session limit reached"}
        second.result = {"result": "error", "error-reason": "Failed to parse SDP"}
        _, answer = self.successResultOf(self.ask("call"))
        self.assertIn(b"x-offer", answer["sdp"])
        third.result = second.result
        self.failureResultOf(self.ask("call"), RelayRefused)
        self.assertEqual(len(self.order("call")), 3)

    def test_stop(self) -> None:
        self.start()
        self.successResultOf(Deferred.fromCoroutine(self.relays.stop()))
        self.assertEqual((self.reactor.closed, self.reactor.getDelayedCalls()), (3, []))
        self.assertEqual(self.said, [" answers"] * 3)
