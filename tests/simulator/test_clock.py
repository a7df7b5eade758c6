"""Simulated time."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.simulator.clock import LEAST_GARBAGE, HeapCall, HeapClock


class ClockTestCase(SynchronousTestCase):
    """`self.happened` is what was called, and when."""

    def setUp(self) -> None:
        self.clock = HeapClock()
        self.happened: list[tuple[str, float]] = []

    def make(self, name: str, delay: float) -> HeapCall:
        return self.clock.callLater(delay, lambda: self.happened.append((name, self.clock.seconds())))


class ClockTests(ClockTestCase):
    def test_interfaces(self) -> None:
        verifyObject(IReactorTime, self.clock)
        verifyObject(IDelayedCall, self.make("a", 1))

    def test_run(self) -> None:
        """Each call finds its own time; then the rest of the time passes."""
        for name, delay in (("c", 3), ("a", 1), ("d", 4), ("b", 2.5)):
            self.make(name, delay)
        self.clock.run(3)
        self.assertEqual(self.happened, [("a", 1), ("b", 2.5), ("c", 3)])
        self.assertEqual(self.clock.seconds(), 3)
        self.clock.run(0.5)
        self.assertEqual((len(self.happened), self.clock.seconds()), (3, 3.5))
        self.clock.run(10)
        self.assertEqual((self.happened[3:], self.clock.seconds(), self.clock.ran), ([("d", 4)], 13.5, 4))

    def test_start(self) -> None:
        clock = HeapClock(1000.0)
        call = clock.callLater(5, self.happened.append)
        self.assertEqual((clock.seconds(), call.getTime()), (1000, 1005))

    def test_arguments(self) -> None:
        given: list[Any] = []
        self.clock.callLater(1, lambda *names, **others: given.append((names, others)), "a", "b", c="d")
        self.clock.run(1)
        self.assertEqual(given, [(("a", "b"), {"c": "d"})])

    def test_equal_times(self) -> None:
        """In the order in which they were made, also those that are made by one of them."""
        self.make("a", 1)
        self.clock.callLater(1, lambda: self.make("c", 0))
        self.make("b", 1)
        self.clock.run(1)
        self.assertEqual(self.happened, [("a", 1), ("b", 1), ("c", 1)])

    def test_step(self) -> None:
        """One call at a time; without one that is due time passes at once."""
        self.make("a", 1)
        self.make("b", 1)
        self.assertTrue(self.clock.step(2))
        self.assertEqual((self.happened, self.clock.seconds()), ([("a", 1)], 1))
        self.assertTrue(self.clock.step(2))
        self.assertFalse(self.clock.step(2))
        self.assertEqual(self.clock.seconds(), 2)
        self.assertFalse(self.clock.step(1))
        self.assertEqual(self.clock.seconds(), 2)

    def test_next_due(self) -> None:
        self.assertIsNone(self.clock.next_due())
        first = self.make("a", 1)
        self.make("b", 2)
        self.assertEqual(self.clock.next_due(), 1)
        first.cancel()
        self.assertEqual(self.clock.next_due(), 2)

    def test_the_past(self) -> None:
        self.assertRaises(ValueError, self.make, "a", -0.1)

    def test_failing_call(self) -> None:
        """What it raises comes out of `run`, which can go on after it."""
        self.clock.callLater(1, lambda: 1 // 0)
        self.make("a", 1)
        self.assertRaises(ZeroDivisionError, self.clock.run, 2)
        self.clock.run(2)
        self.assertEqual(self.happened, [("a", 1)])


class CallTests(ClockTestCase):
    def test_cancel(self) -> None:
        call = self.make("a", 1)
        self.assertTrue(call.active())
        call.cancel()
        self.assertFalse(call.active())
        self.clock.run(2)
        self.assertEqual((self.happened, self.clock.ran), ([], 0))
        self.assertRaises(AlreadyCancelled, call.cancel)
        self.assertRaises(AlreadyCancelled, call.reset, 1)
        self.assertRaises(AlreadyCancelled, call.delay, 1)

    def test_called(self) -> None:
        """It counts as called while it runs."""
        active = []
        call = self.clock.callLater(1, lambda: active.append(call.active()))
        self.clock.run(1)
        self.assertEqual(active, [False])
        self.assertRaises(AlreadyCalled, call.cancel)
        self.assertRaises(AlreadyCalled, call.reset, 1)
        self.assertRaises(AlreadyCalled, call.delay, 1)

    def test_reset_later(self) -> None:
        call = self.make("a", 1)
        self.make("b", 3)
        self.clock.run(0.5)
        call.reset(4)
        self.assertEqual(call.getTime(), 4.5)
        self.clock.run(10)
        self.assertEqual(self.happened, [("b", 3), ("a", 4.5)])

    def test_reset_earlier(self) -> None:
        call = self.make("a", 5)
        self.make("b", 3)
        call.reset(2)
        self.assertEqual(call.getTime(), 2)
        self.clock.run(10)
        self.assertEqual(self.happened, [("a", 2), ("b", 3)])

    def test_delay(self) -> None:
        call = self.make("a", 5)
        self.clock.run(2)
        call.delay(1)
        self.assertEqual(call.getTime(), 6)
        call.delay(-2)
        self.clock.run(10)
        self.assertEqual(self.happened, [("a", 4)])

    def test_reset_to_and_fro(self) -> None:
        """It is called once, at the time that it was set to last."""
        call = self.make("a", 5)
        for seconds in (1, 7, 1, 5, 2, 6, 3, 3, 8):
            call.reset(seconds)
        self.clock.run(7.5)
        self.assertEqual(self.happened, [])
        self.clock.run(10)
        self.assertEqual(self.happened, [("a", 8)])

    def test_delayed_calls(self) -> None:
        first, second, third = (self.make(name, 3) for name in "abc")
        first.reset(1)
        second.cancel()
        self.assertEqual(set(self.clock.getDelayedCalls()), {first, third})
        self.assertEqual(len(self.clock.getDelayedCalls()), 2)
        self.clock.run(2)
        self.assertEqual(self.clock.getDelayedCalls(), [third])


class GarbageTests(ClockTestCase):
    def test_cancelled(self) -> None:
        """Calls that are cancelled long before they are due, as those for timeouts are, do not pile up."""
        kept = [self.make("kept", 1000) for _ in range(10)]
        for _ in range(10 * LEAST_GARBAGE):
            self.make("never", 1000).cancel()
            self.assertLessEqual(self.clock.entries, len(kept) + LEAST_GARBAGE + 1)
        self.clock.run(1000)
        self.assertEqual((len(self.happened), self.clock.entries), (10, 0))

    def test_many_kept(self) -> None:
        """Where most calls are kept there may be as much garbage as there are of them."""
        kept = 3 * LEAST_GARBAGE
        for _ in range(kept):
            self.make("kept", 1000)
        for _ in range(5 * LEAST_GARBAGE):
            self.make("never", 1000).cancel()
        self.assertLessEqual(self.clock.entries, 2 * kept + 1)

    def test_earlier_and_earlier(self) -> None:
        call = self.make("a", 100)
        for number in range(3 * LEAST_GARBAGE):
            call.reset(100 - 0.001 * number)
            self.assertLessEqual(self.clock.entries, LEAST_GARBAGE + 2)
        self.clock.run(200)
        self.assertEqual((len(self.happened), self.clock.entries), (1, 0))

    def test_earlier_and_later(self) -> None:
        """Nor does one pile up that is set to and fro, each time before its entry is met."""
        call = self.make("a", 10)
        for _ in range(100):
            call.reset(1)
            call.reset(10)
            self.assertLessEqual(self.clock.entries, 2)
            self.clock.run(2)
        self.clock.run(10)
        self.assertEqual((len(self.happened), self.clock.entries), (1, 0))


class Model:
    """The same in the simplest way: names, and when each of them is due."""

    def __init__(self) -> None:
        self.now = 0
        self.due: dict[str, int] = {}
        self.bred: dict[str, int] = {}

    def run(self, seconds: int) -> list[tuple[str, int]]:
        until, happened = self.now + seconds, []
        while self.due and min(self.due.values()) <= until:
            name = min(self.due, key=lambda name: self.due[name])
            self.now = max(self.now, self.due.pop(name))
            happened.append((name, self.now))
            if name in self.bred:
                self.due[f"{name}'s"] = self.now + self.bred[name]
        self.now = until
        return happened


WHICH, SECONDS = st.integers(0, 20), st.integers(0, 5)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("make"), st.just(0), SECONDS),
        st.tuples(st.just("breed"), st.just(0), SECONDS),
        st.tuples(st.just("cancel"), WHICH, st.just(0)),
        st.tuples(st.just("reset"), WHICH, SECONDS),
        st.tuples(st.just("delay"), WHICH, st.integers(-2, 5)),
        st.tuples(st.just("run"), st.just(0), st.integers(0, 4)),
    ),
    max_size=60,
)


class ModelTests(SynchronousTestCase):
    @given(OPERATIONS)
    @settings(max_examples=300, deadline=None)
    def test_the_same_as_a_model(self, operations: list[tuple[str, int, int]]) -> None:
        clock, model = HeapClock(), Model()
        calls: dict[str, HeapCall] = {}
        still: list[str] = []
        happened: list[tuple[str, float]] = []

        def run(name: str) -> None:
            happened.append((name, clock.seconds()))
            if name in model.bred:
                calls[f"{name}'s"] = clock.callLater(model.bred[name], run, f"{name}'s")

        for what, which, seconds in operations:
            waiting = [name for name in calls if calls[name].active()]
            name = waiting[which % len(waiting)] if waiting else ""
            if what in ("make", "breed"):
                name = f"{len(calls)}"
                calls[name] = clock.callLater(seconds, run, name)
                model.due[name] = model.now + seconds
                still.append(name)
                if what == "breed":
                    model.bred[name] = seconds
            elif what == "run":
                clock.run(seconds)
                expected = model.run(seconds)
                self.assertEqual(sorted(happened), sorted(expected))
                self.assertEqual([when for _, when in happened], [when for _, when in expected])
                unmoved = [one for one in expected if one[0] in still]
                self.assertEqual([one for one in happened if one[0] in still], unmoved)
                happened.clear()
            elif name and what == "cancel":
                calls[name].cancel()
                del model.due[name]
            elif name:
                getattr(calls[name], what)(seconds)
                model.due[name] = seconds + (model.now if what == "reset" else model.due[name])
                if name in still:
                    still.remove(name)
            active = {name: call.getTime() for name, call in calls.items() if call.active()}
            self.assertEqual(active, model.due)
            self.assertEqual(len(clock.getDelayedCalls()), len(model.due))
            self.assertEqual(clock.next_due(), min(model.due.values(), default=None))
