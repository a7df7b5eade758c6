"""The reactor of the tests is that of the product, asyncio's, which ICE needs.

It is installed here because `trial -j` with `-r asyncio` ends with its first test that waits for something.
"""

from __future__ import annotations

import asyncio
import sys

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import ReactorBase
from twisted.internet.main import installReactor


class Reactor(AsyncioSelectorReactor):
    """Can be shut down while it does not run, and run again, as ``trial -j`` does around each test."""

    def crash(self) -> None:
        if self._asyncioEventloop.is_running():
            super().crash()
        else:
            # A loop that is told to stop before it runs stops as soon as it does.
            ReactorBase.crash(self)


def install() -> None:
    """Install it, unless there is one: that of the process which only hands out tests, or that of ``trial -r``."""
    if "twisted.internet.reactor" not in sys.modules:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        installReactor(Reactor(loop))
