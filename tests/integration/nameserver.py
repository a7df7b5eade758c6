"""A name server for the tests: twisted.names, as a process, with the zones that a test writes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .nodes import BIN
from .phones import await_listener


def serve_zones(test: SynchronousTestCase, zones: Path, address: str, port: int) -> None:
    """Serve the zone files of a directory, each named as its zone, until the test is over."""
    command = [str(BIN / "twistd"), "-n", "--pidfile=", "dns", "-i", address, "-p", str(port)]
    for zone in zones.iterdir():
        command += ["--pyzone", str(zone)]
    with (zones.parent / "dns.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=zones.parent, stdout=log, stderr=subprocess.STDOUT)
    test.addCleanup(process.wait)
    test.addCleanup(process.kill)
    await_listener(address, port, tcp=False)
