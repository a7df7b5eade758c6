"""rtpengines in memory, and a reactor whose datagrams go to them."""

from __future__ import annotations

from random import Random
from typing import Any

import bencodepy
from twisted.internet.task import Clock

from p2psip.sip.media.anchoring import Media
from p2psip.sip.media.client import RelayClient
from p2psip.sip.media.ng import decode
from p2psip.sip.media.relays import Relays

from .descriptions import description


def relayed(command: str, port: int) -> bytes:
    """What `FakeRtpengine` makes of a session description."""
    return description("198.51.100.9", port, f"x-{command}")


class FakeRtpengine:
    """Answers commands at its port; `commands` are all that came, repetitions left out."""

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []
        self.datagrams: list[bytes] = []
        self.listening = True
        self.silent = False
        self.result: dict[str, Any] = {"result": "ok"}
        """Of all but ping."""
        self.delay = 0.0
        self.calls: dict[bytes, int] = {}
        """By Call-ID the number of the port that is answered next."""

    def receive(self, datagram: bytes) -> bytes | None:
        """The answer to a datagram; None: there is none."""
        repeated = datagram in self.datagrams
        self.datagrams.append(datagram)
        cookie, command = decode(datagram)
        if not repeated:
            self.commands.append(command)
        if self.silent:
            return None
        answer = bencodepy.encode(self._answer(command))
        return cookie + b" " + answer

    def _answer(self, command: dict[str, Any]) -> dict[str, Any]:
        name, call_id = command["command"], command.get("call-id", b"")
        if name == b"ping":
            return {"result": "pong"}
        if name == b"answer" and call_id not in self.calls:
            return {"result": "error", "error-reason": "Unknown call-id"}
        if name == b"delete":
            self.calls.pop(call_id, None)
        if name not in (b"offer", b"answer") or self.result["result"] != "ok":
            return self.result
        self.calls[call_id] = self.calls.get(call_id, 30000) + 2
        return {"result": "ok", "sdp": relayed(name.decode(), self.calls[call_id])}

    def named(self, *names: str) -> list[dict[str, Any]]:
        """The commands of these names."""
        return [command for command in self.commands if command["command"].decode() in names]


class FakeReactor(Clock):
    """Time, and UDP to `engines` by port."""

    def __init__(self) -> None:
        super().__init__()
        self.engines: dict[int, FakeRtpengine] = {}
        self.closed = 0

    def listenUDP(self, port: int, protocol: Any, interface: str, size: int) -> FakePort:
        opened = FakePort(self, protocol)
        protocol.makeConnection(opened)
        return opened


class FakePort:
    """A UDP socket that is connected to one rtpengine."""

    def __init__(self, reactor: FakeReactor, protocol: Any) -> None:
        self.reactor, self.protocol = reactor, protocol
        self.port = 0

    def connect(self, host: str, port: int) -> None:
        self.port = port

    def write(self, datagram: bytes, address: None) -> None:
        engine = self.reactor.engines.get(self.port)
        if engine is None or not engine.listening:
            self.protocol.connectionRefused()
            return
        answer = engine.receive(datagram)
        if answer is not None:
            self.reactor.callLater(engine.delay, self.protocol.datagramReceived, answer, ("127.0.0.1", self.port))

    async def stopListening(self) -> None:
        self.reactor.closed += 1


def fake_media(engines: int = 1) -> tuple[FakeReactor, list[FakeRtpengine], Media]:
    """Relays at ports 2223 and so on, and what uses them; it is started, and the first pings are answered."""
    reactor = FakeReactor()
    found = [FakeRtpengine() for _ in range(engines)]
    reactor.engines = dict(enumerate(found, 2223))
    clients = [RelayClient("127.0.0.1", port, reactor, Random(port)) for port in reactor.engines]
    media = Media(Relays(clients, reactor), "node", reactor.seconds)
    media.start()
    reactor.advance(0)
    for engine in found:
        engine.commands.clear()
    return reactor, found, media
