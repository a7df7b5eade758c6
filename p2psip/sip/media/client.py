"""One rtpengine, as seen from here: commands over UDP, repeated until they are answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.protocol import DatagramProtocol

from ...hostport import address_text
from ..errors import SIPListenError
from . import ng

DEADLINE: Final = 3.0
"""Seconds for an answer."""
FIRST_WAIT: Final = 0.25
"""Seconds before a command is repeated; then twice as many, and so on."""
MOST_UNDER_WAY: Final = 1000


class RelayError(Exception):
    """The relay did not do what it was asked; `cause` is for counters, the text for people."""

    cause = "failed"


class RelaySilent(RelayError):
    """No answer in time, or nobody listens there."""

    cause = "silent"


class RelayRefused(RelayError):
    """It answered with an error, or with nothing that could be used."""

    cause = "refused"


class RelayFull(RelayError):
    """It takes no new calls now."""

    cause = "full"


class RelayBusy(RelayError):
    """Too many commands wait for its answers."""

    cause = "busy"


@dataclass(eq=False)
class _Command:
    datagram: bytes
    deadline: float
    wait: float = FIRST_WAIT
    answered: Deferred[dict[str, Any]] = field(default_factory=Deferred)
    timer: Any = None


class RelayClient(DatagramProtocol):
    """Asks the rtpengine at an address and port.

    :param reactor: IReactorTime and IReactorUDP.
    :param random: makes cookies that no other run of any node uses.
    """

    def __init__(self, host: str, port: int, reactor: Any, random: Random) -> None:
        self.address = address_text(host, port)
        self._host, self._port = host, port
        self._reactor = reactor
        self._prefix = b"%016x" % random.getrandbits(64)
        self._number = 0
        self._waiting: dict[bytes, _Command] = {}
        self._listening: Any = None
        self.rubbish = 0
        """Datagrams that were no answer."""

    def start(self) -> None:
        """Open a socket that takes datagrams of that address and port only.  Raises SIPListenError."""
        interface = "::" if ":" in self._host else ""
        try:
            self._listening = self._reactor.listenUDP(0, self, interface, ng.MOST_DATAGRAM)
        except CannotListenError as error:
            raise SIPListenError("UDP", interface, 0, str(error.socketError)) from None

    def startProtocol(self) -> None:
        """See `DatagramProtocol`."""
        assert self.transport is not None
        self.transport.connect(self._host, self._port)

    async def stop(self) -> None:
        """Close the socket; what was not answered fails."""
        self._give_up(RelaySilent("stopped"))
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.stopListening()

    def ask(self, command: str, arguments: Mapping[str, ng.Value], seconds: float = DEADLINE) -> Deferred[Any]:
        """Give a command; fires with the answer's dictionary, whatever its result.  Fails with a RelayError."""
        if self._listening is None:
            return fail(RelaySilent("not started"))
        if len(self._waiting) >= MOST_UNDER_WAY:
            return fail(RelayBusy(f"{MOST_UNDER_WAY} commands wait for {self.address}"))
        self._number += 1
        cookie = b"%s_%d" % (self._prefix, self._number)
        try:
            datagram = ng.encode(cookie, command, arguments)
        except ng.NgError as error:
            return fail(RelayRefused(str(error)))
        waiting = self._waiting[cookie] = _Command(datagram, self._reactor.seconds() + seconds)
        self._transmit(cookie, waiting)
        return waiting.answered

    def _transmit(self, cookie: bytes, command: _Command) -> None:
        left = command.deadline - self._reactor.seconds()
        if left <= 0:
            del self._waiting[cookie]
            command.answered.errback(RelaySilent(f"no answer from {self.address}"))
            return
        command.timer = self._reactor.callLater(min(command.wait, left), self._transmit, cookie, command)
        command.wait *= 2
        try:
            assert self.transport is not None
            self.transport.write(command.datagram, None)
        except MessageLengthError:
            self._end(cookie).errback(RelayRefused("too long for a datagram"))
        except OSError:
            pass  # such as no route: it may come back before the deadline

    def _end(self, cookie: bytes) -> Deferred[dict[str, Any]]:
        command = self._waiting.pop(cookie)
        command.timer.cancel()
        return command.answered

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """See `DatagramProtocol`."""
        try:
            cookie, answer = ng.decode(datagram)
        except ng.NgError:
            self.rubbish += 1
            return
        if cookie in self._waiting:
            self._end(cookie).callback(answer)

    def connectionRefused(self) -> None:
        """See `DatagramProtocol`: nobody listens there."""
        # Called out of a write too, so not at once: who asked has to get its Deferred first.
        self._reactor.callLater(0, self._give_up, RelaySilent(f"nobody listens at {self.address}"))

    def _give_up(self, error: RelayError) -> None:
        for cookie in list(self._waiting):
            if cookie in self._waiting:
                self._end(cookie).errback(error)
