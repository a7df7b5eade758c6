"""The rtpengines of a node: which are there, and which one has a call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2s
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from . import ng
from .client import DEADLINE, RelayClient, RelayError, RelayFull, RelayRefused, RelaySilent

PING_SECONDS: Final = 5.0
MOST_TRIED: Final = 3
"""Relays that are asked one after the other for one message."""


class Relay:
    """One of them, and whether it answers."""

    def __init__(self, client: RelayClient) -> None:
        self.client = client
        self.up = True
        """Believed until the first ping says otherwise."""

    @property
    def address(self) -> str:
        return self.client.address


class Relays:
    """Spreads calls over relays, and passes by those that do not answer.

    Which one takes a call is a matter of the Call-ID alone as long as it answers, so that nothing need be remembered.
    """

    log = Logger()

    def __init__(self, clients: Sequence[RelayClient], reactor: Any) -> None:
        self._relays = [Relay(client) for client in clients]
        self._pinging = LoopingCall(self._ping_all)
        self._pinging.clock = reactor
        self._known: set[Relay] = set()
        self.counters: Counter[str] = Counter()

    def start(self) -> None:
        """Open the sockets, and see who is there.  Raises SIPListenError."""
        for relay in self._relays:
            relay.client.start()
        self._pinging.start(PING_SECONDS).addErrback(
            lambda failure: self.log.failure("nobody looks after the media relays any more", failure)
        )

    async def stop(self) -> None:
        """Close the sockets."""
        if self._pinging.running:
            self._pinging.stop()
        for relay in self._relays:
            await relay.client.stop()

    @property
    def any_up(self) -> bool:
        """Whether there is any use in asking."""
        return any(relay.up for relay in self._relays)

    def status(self) -> list[Mapping[str, Any]]:
        """For ``status --json``."""
        return [{"address": relay.address, "up": relay.up} for relay in self._relays]

    def for_call(self, call_id: str, first: Relay | None = None) -> list[Relay]:
        """The relays that answer, in the order to be tried for a call; `first` before all others."""
        ranked = sorted((relay for relay in self._relays if relay.up), key=lambda relay: _rank(relay, call_id))
        if first in ranked:
            ranked.remove(first)
            ranked.insert(0, first)
        return ranked[:MOST_TRIED]

    async def ask(
        self, call_id: str, command: str, arguments: Mapping[str, ng.Value], first: Relay | None = None
    ) -> tuple[Relay, Mapping[str, Any]]:
        """The first relay that does what it is asked, and its answer; all together take `DEADLINE` at most.

        Raises the RelayError of the last one.
        """
        relays = self.for_call(call_id, first)
        error: RelayError = RelaySilent("no media relay answers")
        for relay in relays:
            try:
                return relay, await self._ask(relay, command, arguments, DEADLINE / len(relays))
            except RelayError as failed:
                error = failed
        self.counters[f"{command} {error.cause}"] += 1
        raise error

    async def tell(self, relays: Sequence[Relay], command: str, arguments: Mapping[str, ng.Value]) -> None:
        """Give each of `relays` a command whose outcome changes nothing."""
        for relay in relays:
            try:
                await self._ask(relay, command, arguments, DEADLINE)
            except RelayError as error:
                self.counters[f"{command} {error.cause}"] += 1

    async def _ask(
        self, relay: Relay, command: str, arguments: Mapping[str, ng.Value], seconds: float
    ) -> Mapping[str, Any]:
        try:
            answer: Mapping[str, Any] = await relay.client.ask(command, arguments, seconds)
        except RelaySilent as error:
            self._heard(relay, False, str(error))
            raise
        result = answer.get("result")
        if result == b"load limit":
            raise RelayFull(ng.text(answer.get("message")) or "load limit")
        if result not in (b"ok", b"pong"):
            raise RelayRefused(ng.text(answer.get("error-reason")) or "no reason given")
        return answer

    # -- who is there -----------------------------------------------------------------------------------------

    def _ping_all(self) -> None:
        for relay in self._relays:
            Deferred.fromCoroutine(self._ping(relay)).addErrback(
                lambda failure: self.log.failure("a media relay could not be asked", failure)
            )

    async def _ping(self, relay: Relay) -> None:
        try:
            await self._ask(relay, "ping", {}, DEADLINE)
        except RelaySilent:
            return
        except RelayError as error:
            self._heard(relay, False, str(error))
            return
        self._heard(relay, True)

    def _heard(self, relay: Relay, up: bool, why: str = "") -> None:
        """One line in the log for each change."""
        if relay.up == up and relay in self._known:
            return
        self._known.add(relay)
        relay.up = up
        if up:
            self.log.info("the media relay {relay} answers", relay=relay.address)
        elif self._pinging.running:
            self.log.warn(
                "the media relay {relay} is not there: {why}; phones behind NATs may hear nothing",
                relay=relay.address, why=why,
            )  # fmt: skip


def _rank(relay: Relay, call_id: str) -> bytes:
    """Highest random weight, lowest here: each call has an order of relays of its own."""
    text = f"{relay.address} {call_id}"
    return blake2s(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
