"""Which account has which telephone number, as a registrar learns it from the enrollment server."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from ..sip.errors import Unavailable
from .accounts import is_name, is_number
from .client import EnrollmentClient, EnrollmentError
from .lasting import LastingClient
from .limits import Busy, Slots

FRESH: Final = 60.0
"""Seconds for which an answer is used again, also that there is no such account."""
STALE: Final = 86400.0
"""Seconds for which it is used where the server cannot be asked."""
MOST_CACHED: Final = 10_000
PARALLEL: Final = 4
WAITING: Final = 2_000
PATIENCE: Final = 3.0
"""Seconds that the server has for an answer: a caller waits."""
RESPITE: Final = 10.0
"""Seconds without a question to a server that did not answer the last one."""

Found = tuple[str, str] | None
"""Name and number of an account."""


class NumberDirectory:
    """Asks the enrollment server for numbers and accounts, and remembers what it said for a while.

    :param client: see `LastingClient`.
    """

    def __init__(self, client: Callable[[], EnrollmentClient], clock: IReactorTime) -> None:
        self._client = LastingClient(client, clock)
        self._clock = clock
        self._slots = Slots(PARALLEL, WAITING)
        self._known: OrderedDict[str, tuple[float, Found]] = OrderedDict()
        """When it was said, by number and by name: no name begins with +."""
        self._not_before = 0.0
        self.counters: Counter[str] = Counter()

    def stop(self) -> None:
        """Close the connections."""
        self._client.drop()

    def user_of(self, number: str) -> Deferred[str | None]:
        """The name of the account that has a global number in its normal form.

        Fails with Unavailable of `p2psip.sip.errors` where the server cannot be asked and has not been lately.
        """
        return Deferred.fromCoroutine(self._user_of(number))

    async def _user_of(self, number: str) -> str | None:
        if not is_number(number):
            return None
        found = await self._find(number, lambda client: client.with_number(number))
        return found[0] if found else None

    def number_of(self, name: str) -> Deferred[str | None]:
        """The number of the account `name`; fails as `user_of`."""
        return Deferred.fromCoroutine(self._number_of(name))

    async def _number_of(self, name: str) -> str | None:
        if not is_name(name):
            return None
        found = await self._find(name, lambda client: client.number_of(name))
        return (found[1] or None) if found else None

    async def _find(self, key: str, question: Callable[[EnrollmentClient], Awaitable[Found]]) -> Found:
        now = self._clock.seconds()
        said, found = self._known.get(key, (float("-inf"), None))
        if now < said + FRESH:
            return found
        try:
            if now < self._not_before:
                raise Busy(self._not_before - now)
            found = await self._slots.run(lambda: self._ask(question))
        except (EnrollmentError, DeferredTimeout, Busy) as error:
            self.counters["numbers unavailable"] += 1
            if not isinstance(error, Busy):
                self._not_before = self._clock.seconds() + RESPITE
                self._client.drop()
            if now < said + STALE:
                return found
            raise Unavailable("Enrollment Server Unavailable", retry_after=int(RESPITE)) from error
        self._keep(key, found)
        return found

    def _ask(self, question: Callable[[EnrollmentClient], Awaitable[Found]]) -> Deferred[Found]:
        async def asked() -> Found:
            return await question(self._client.current())

        return Deferred.fromCoroutine(asked()).addTimeout(PATIENCE, self._clock)

    def _keep(self, key: str, found: Found) -> None:
        self._known.pop(key, None)
        self._known[key] = self._clock.seconds(), found
        while len(self._known) > MOST_CACHED:
            self._known.popitem(last=False)
