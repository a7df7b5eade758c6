"""Figures out of many numbers: means, percentiles, intervals."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from statistics import fmean, stdev

_T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""Student's t for 95 %, two-sided, by degrees of freedom from 1."""


def percentile(ordered: Sequence[float], part: float) -> float:
    """The smallest number that `part` of them (0 to 1) do not exceed; `ordered` ascends and is not empty."""
    return ordered[max(0, ceil(round(part * len(ordered), 9)) - 1)]  # 0.55 * 100 is 55.00000000000001


def summary(numbers: Sequence[float]) -> dict[str, float]:
    """Mean, median, 99th percentile and greatest; zeros where there are none."""
    if not numbers:
        return {"mean": 0.0, "p50": 0.0, "p99": 0.0, "max": 0.0}
    ordered = sorted(numbers)
    return {
        "mean": fmean(ordered),
        "p50": percentile(ordered, 0.5),
        "p99": percentile(ordered, 0.99),
        "max": ordered[-1],
    }


def percentiles(numbers: Sequence[float]) -> list[float]:
    """The numbers that 0, 5, 10, ... 100 percent of them do not exceed; empty where there are none."""
    ordered = sorted(numbers)
    return [percentile(ordered, step / 20) for step in range(21)] if ordered else []


def interval(numbers: Sequence[float]) -> dict[str, float]:
    """The mean of a few repetitions, and how far the true one may lie from it with a confidence of 95 %."""
    mean = fmean(numbers)
    if len(numbers) < 2:
        return {"mean": mean, "plus_minus": 0.0}
    freedom = len(numbers) - 1
    # Beyond the table the first terms of Student's t by the inverse of the degrees of freedom are exact enough.
    t = _T_95[freedom - 1] if freedom <= len(_T_95) else 1.96 + 2.372 / freedom + 2.82 / freedom**2
    return {"mean": mean, "plus_minus": t * stdev(numbers) / sqrt(len(numbers))}
