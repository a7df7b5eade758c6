"""How long an overlay takes to be right again."""

from __future__ import annotations

from collections.abc import Iterator

from ..run import Run

LOOK_EVERY = 5.0
"""Seconds of simulated time between two looks."""


def recovery(run: Run, invariant: str, seconds: float, bound: float) -> Iterator[float]:
    """Let `seconds` pass; `run.notes[invariant]` has after how many the ring was right, and stayed so; None: never.

    It is a violation of `invariant` when that takes more than `bound` seconds.
    """
    began = run.overlay.now
    right_since: float | None = None
    while run.overlay.now - began < seconds:
        yield LOOK_EVERY
        if not ring_is_right(run):
            right_since = None
        elif right_since is None:
            right_since = run.overlay.now
    took = run.notes[invariant] = None if right_since is None else right_since - began
    if took is None or took > bound:
        run.invariants.violated(invariant, f"not within {bound:.0f} s")


def ring_is_right(run: Run) -> bool:
    """Whether every peer has its three nearest successors, and none claims what is another's."""
    run.invariants.check(run.workload.holders())
    return run.invariants.consistent == 1 and not run.invariants.double_claims
