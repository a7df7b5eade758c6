"""A thousand calls by way of the proxies of two nodes, at a steady rate (sipp)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from .nodes import World
from .phones import credentials

CALLS = 1000
RATE = 25
"""Calls a second: what two slow cores with everything on them take easily."""
USERS = 10


class ManyCalls(SynchronousTestCase):
    def calls(self, transport: str) -> None:
        world = World()
        self.addCleanup(world.close)
        first = world.founder()
        second = world.join(first)
        callees = {f"u{number}": f"secret-{number}" for number in range(USERS)}
        first.add_users({**callees, "caller": "caller-pw"})
        phones = world.sipp()
        port = 17401
        self.assertEqual(0, phones.register(second.address, list(callees.items()), port, transport=transport))
        answering = phones.callee(port, CALLS, transport, seconds=120)
        rows = [("caller", credentials("caller", "caller-pw"), f"u{number % USERS}") for number in range(CALLS)]
        calling = world.sipp()
        failures, _ = calling.run("proxied", first.address, rows, transport, rate=RATE, seconds=120)
        self.assertEqual(0, failures)
        self.assertEqual(0, answering.wait(20))
        for node in (first, second):
            refused = node.status()["rejected"]
            self.assertEqual([], [c for c in refused if "busy" in c or "overload" in c or "500" in c])

    def test_udp(self) -> None:
        """Over UDP: digest, ringing, answer, and the end, a thousand times without a failure."""
        self.calls("u1")
