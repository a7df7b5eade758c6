"""Guessing gets slower, and whom it does not concern is not slowed down."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from p2psip.throttle import Throttle, source_key


class ThrottleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.throttle = Throttle(free=2, base=1.0, ceiling=5.0, forget=100.0, size=3)

    def test_growing_delays(self) -> None:
        now, delays = 50.0, []
        for _ in range(7):
            self.throttle.failed("a", now)
            delays.append(self.throttle.delay("a", now))
            now += delays[-1]
            self.assertEqual(self.throttle.delay("a", now), 0.0)
        self.assertEqual(delays, [0, 0, 1, 2, 4, 5, 5])
        self.assertEqual(self.throttle.delay("b", now), 0.0)

    def test_part_of_a_delay(self) -> None:
        for _ in range(5):
            self.throttle.failed("a", 10.0)
        self.assertEqual(self.throttle.delay("a", 11.5), 2.5)

    def test_forgiven(self) -> None:
        for _ in range(5):
            self.throttle.failed("a", 0.0)
        self.throttle.forgive("a")
        self.assertEqual(self.throttle.delay("a", 0.0), 2.0)
        self.throttle.succeeded("a")
        self.assertEqual((self.throttle.delay("a", 0.0), len(self.throttle)), (0.0, 0))
        self.throttle.failed("a", 0.0)
        self.throttle.forgive("a")
        self.throttle.forgive("a")
        self.assertEqual(len(self.throttle), 0)

    def test_forgotten(self) -> None:
        for _ in range(5):
            self.throttle.failed("a", 0.0)
        self.throttle.failed("a", 100.0)
        self.assertEqual(self.throttle.delay("a", 100.0), 0.0)
        self.throttle.delay("a", 200.0)
        self.assertEqual(len(self.throttle), 0)
        self.assertRaises(ValueError, Throttle, ceiling=2.0, forget=1.0)

    def test_bounded(self) -> None:
        """The key that failed longest ago gives way."""
        for key in "abcacd":
            for _ in range(4):
                self.throttle.failed(key, 0.0)
        self.assertEqual([self.throttle.delay(key, 0.0) > 0 for key in "abcd"], [True, False, True, True])
        self.assertEqual(len(self.throttle), 3)

    def test_source_key(self) -> None:
        for address, key in (
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("elsewhere", "elsewhere"),
        ):
            self.assertEqual(source_key(address), key)
