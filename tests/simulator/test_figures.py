"""Figures, against numbers worked out by hand."""

from __future__ import annotations

from math import sqrt

from twisted.trial.unittest import SynchronousTestCase

from p2psip.simulator.figures import interval, percentile, percentiles, summary


class FigureTests(SynchronousTestCase):
    def test_percentile(self) -> None:
        """The smallest number that so many of them do not exceed: always one of them."""
        numbers = [1, 2, 3, 4, 5, 6, 7, 8, 9, 100]
        for part, found in ((0, 1), (0.1, 1), (0.11, 2), (0.5, 5), (0.51, 6), (0.9, 9), (0.99, 100), (1, 100)):
            self.assertEqual(percentile(numbers, part), found, part)
        self.assertEqual([percentile([7], part) for part in (0, 0.5, 1)], [7, 7, 7])

    def test_one_in_a_hundred(self) -> None:
        numbers = sorted([*([0] * 990), *([1] * 10)])
        self.assertEqual((percentile(numbers, 0.99), percentile(numbers, 0.991)), (0, 1))

    def test_summary(self) -> None:
        self.assertEqual(summary([3, 1, 2, 6]), {"mean": 3, "p50": 2, "p99": 6, "max": 6})
        self.assertEqual(summary([2.5]), {"mean": 2.5, "p50": 2.5, "p99": 2.5, "max": 2.5})

    def test_summary_of_nothing(self) -> None:
        self.assertEqual(summary([]), {"mean": 0, "p50": 0, "p99": 0, "max": 0})

    def test_percentiles(self) -> None:
        """In steps of five, from the least to the greatest."""
        found = percentiles([*range(100, 0, -1)])
        self.assertEqual(found, [1, *range(5, 101, 5)])
        self.assertEqual(percentiles([7]), [7] * 21)
        self.assertEqual(percentiles([]), [])

    def test_interval(self) -> None:
        """Of 1, 2, 3: the standard deviation is 1, Student's t with 2 degrees of freedom 4.303."""
        found = interval([3, 1, 2])
        self.assertEqual(found["mean"], 2)
        self.assertAlmostEqual(found["plus_minus"], 4.303 / sqrt(3), 9)

    def test_interval_of_one(self) -> None:
        self.assertEqual(interval([4]), {"mean": 4, "plus_minus": 0})
        self.assertEqual(interval([4, 4, 4]), {"mean": 4, "plus_minus": 0})

    def test_interval_of_many(self) -> None:
        """Of n times 0 and n times 2 the variance is 2 n / (2 n - 1); t as the tables have it."""
        for half, t in ((1, 12.706), (5, 2.262), (15, 2.045), (16, 2.0395), (50, 1.9842), (500, 1.9623)):
            found = interval([0.0, 2.0] * half)
            self.assertEqual(found["mean"], 1)
            wanted = t * sqrt(2 * half / (2 * half - 1)) / sqrt(2 * half)
            self.assertAlmostEqual(found["plus_minus"] / wanted, 1, 4, half)
