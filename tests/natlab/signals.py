"""Cleans up before a signal ends the process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

DEADLY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DeadlySignals:
    """Calls `clean_up` when SIGTERM or SIGHUP is about to end the process.

    SIGINT stays Python's KeyboardInterrupt, but is held back like the others where the code says so. Signals that
    somebody else handles are left to them, but for other objects of this class: each has its turn.
    """

    def __init__(self, clean_up: Callable[[], None]) -> None:
        self.waiting: int | None = None
        """The signal that is held back."""
        self._clean_up = clean_up
        self._holding = False
        self._before: dict[int, Any] = {}

    def catch(self) -> None:
        """Begin; nothing happens outside of the main thread."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        for number in DEADLY:
            before = signal.getsignal(number)
            owner = getattr(before, "__self__", None)
            if before in (signal.SIG_DFL, signal.default_int_handler) or isinstance(owner, DeadlySignals):
                self._before[number] = signal.signal(number, self._caught)

    def release(self) -> None:
        """As before `catch`, as far as nobody has changed it since."""
        for number, before in self._before.items():
            if signal.getsignal(number) == self._caught:
                signal.signal(number, before)
        self._before.clear()

    @contextmanager
    def held(self) -> Iterator[None]:
        """A signal that comes inside waits for the end of the block, so that nothing is left half done."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
            number, self.waiting = self.waiting, None
            if number is not None:
                signal.raise_signal(number)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self._holding:
            self.waiting = number
        elif number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        else:
            self._clean_up()
            self.release()
            signal.raise_signal(number)
