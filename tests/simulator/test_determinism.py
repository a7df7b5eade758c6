"""The same seed brings about the same run, in whatever process."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

from twisted.trial.unittest import SynchronousTestCase

from .overlays import played

SCRIPT = """
import sys
from tests.simulator.overlays import played
typed = {"session": "3m", "duration": "3m", "lookups_per_second": "2", "values": "10"}
made_with = {"seed": int(sys.argv[1]), "latency": "uniform:10ms:90ms", "loss": 0.01}
run = played("churn", 16, made_with, **typed)
print(run.overlay.traffic.trace_hash, run.overlay.left, run.overlay.clock.ran)
"""


@cache
def told_of(seed: int, hash_seed: str) -> str:
    """What a process of its own prints of a run."""
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if process.returncode:
        raise AssertionError(process.stderr)
    return process.stdout


class DeterminismTests(SynchronousTestCase):
    def test_whatever_the_hash_seed(self) -> None:
        """Nothing depends on the order of sets and dictionaries by hash."""
        trace_hash, deaths, calls = told_of(1, "0").split()
        self.assertEqual(told_of(1, "4242").split(), [trace_hash, deaths, calls])
        self.assertGreater(int(deaths), 3)

    def test_another_seed(self) -> None:
        self.assertNotEqual(told_of(1, "0").split()[0], told_of(2, "0").split()[0])

    def test_each_scenario_twice(self) -> None:
        """In one process, where nothing is left over from the run before."""
        for name, typed in (
            ("lookup", {"lookups": "40", "values": "4"}),
            ("growth", {"joins_per_second": "1", "settle": "20s"}),
            ("mass-failure", {"duration": "1m", "values": "5"}),
            ("partition", {"apart": "20s", "duration": "1m", "values": "5"}),
        ):
            hashes = [played(name, 8, {"seed": seed}, **typed).overlay.traffic.trace_hash for seed in (5, 5, 6)]
            self.assertEqual(hashes[0], hashes[1], name)
            self.assertNotEqual(hashes[0], hashes[2], name)

    def test_what_a_scenario_draws_is_its_own(self) -> None:
        """More lookups do not change who comes and when."""
        typed = {"session": "3m", "duration": "2m", "values": "0", "fetches_per_second": "0", "stores_per_second": "0"}
        few, many = (played("churn", 8, lookups_per_second=rate, **typed).overlay for rate in ("0", "5"))
        self.assertEqual(few.left, many.left)
        self.assertEqual(list(few.nodes), list(many.nodes))
