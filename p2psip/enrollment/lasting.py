"""One enrollment client for many questions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from .client import EnrollmentClient

CLIENT_AGE: Final = 300.0
"""Seconds for which one client is used, and its connections with it."""


class LastingClient:
    """Keeps a client for some minutes, while it gets answers.

    :param make: makes who asks the enrollment servers that the configuration names now, showing this node's
        certificate.
    """

    log = Logger()

    def __init__(self, make: Callable[[], EnrollmentClient], clock: IReactorTime) -> None:
        self._make = make
        self._clock = clock
        self._client: EnrollmentClient | None = None
        self._until = 0.0

    def current(self) -> EnrollmentClient:
        """The one to use now."""
        now = self._clock.seconds()
        if self._client is None or now >= self._until:
            self.drop()
            self._client = self._make()
            self._until = now + CLIENT_AGE
        return self._client

    def drop(self) -> None:
        """Close it; the next question has another."""
        client, self._client = self._client, None
        if client is not None:
            client.close().addErrback(lambda failure: self.log.failure("a client does not close", failure))
