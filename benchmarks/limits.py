"""What bounds the benchmarks of messages, measured in the same run: signatures, and Twisted alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol


def signature_rates(seconds: float = 0.5) -> dict[str, float]:
    """P-256 signatures, over 500 bytes, made and verified in a second of one core's time."""
    key = generate_private_key(SECP256R1())
    public, algorithm, data = key.public_key(), ECDSA(SHA256()), bytes(500)
    signature = key.sign(data, algorithm)
    return {
        "sign": _rate(lambda: key.sign(data, algorithm), seconds),
        "verify": _rate(lambda: public.verify(signature, data, algorithm), seconds),
    }


def handshakes_allowed(key: Any, seconds: float = 0.5) -> float:
    """(D)TLS handshakes in a second of one core's time, if each took nothing but what both ends must do.

    That is a signature and a verification with `key`, of P-256 or RSA, and a key exchange over X25519.
    """
    public, data, digest = key.public_key(), bytes(500), SHA256()
    of_rsa = (PSS(MGF1(digest), digest.digest_size), digest)
    scheme: tuple[Any, ...] = of_rsa if isinstance(key, RSAPrivateKey) else (ECDSA(digest),)
    other = X25519PrivateKey.generate().public_key()

    def of_one_end() -> None:
        public.verify(key.sign(data, *scheme), data, *scheme)
        X25519PrivateKey.generate().exchange(other)

    return _rate(of_one_end, seconds) / 2


def _rate(operation: Callable[[], object], seconds: float) -> float:
    # Time of the CPU, so that what else runs on the machine does not make the limit look lower than it is.
    count, began, end = 0, time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(100):
            operation()
        count += 100
    return round(count / (time.process_time() - began), 1)


class Echo(Protocol):
    """Answers each `size` bytes with as many."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._have = 0

    def dataReceived(self, data: bytes) -> None:
        self._have += len(data)
        while self._have >= self._size:
            self._have -= self._size
            assert self.transport is not None
            self.transport.write(bytes(self._size))


def echo_factory(size: int) -> Any:
    """A server of `Echo`s."""
    return Factory.forProtocol(lambda: Echo(size))


class EchoClient(Protocol):
    """Keeps `window` messages of `size` bytes under way until `count` have come back."""

    def __init__(self, size: int, window: int, count: int) -> None:
        self._size = size
        self._window = window
        self._left_to_send = self._left_to_come = count
        self._have = 0
        self._began = 0.0
        self._count = count
        self.done: Deferred[float] = Deferred()
        """Messages per second."""

    def begin(self) -> Deferred[float]:
        """Send the first ones."""
        self._began = time.perf_counter()
        for _ in range(min(self._window, self._left_to_send)):
            self._send()
        return self.done

    def _send(self) -> None:
        self._left_to_send -= 1
        assert self.transport is not None
        self.transport.write(bytes(self._size))

    def dataReceived(self, data: bytes) -> None:
        self._have += len(data)
        while self._have >= self._size:
            self._have -= self._size
            self._left_to_come -= 1
            if self._left_to_send:
                self._send()
            if not self._left_to_come:
                self.done.callback(self._count / (time.perf_counter() - self._began))


class DatagramEcho(DatagramProtocol):
    """Sends each datagram back."""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        assert self.transport is not None
        self.transport.write(datagram, addr)


def main() -> None:
    """With --udp-echo: be a server of `DatagramEcho` whose port is printed first."""
    if sys.argv[1:] != ["--udp-echo"]:
        sys.exit(__doc__)
    asyncioreactor.install()
    from twisted.internet import reactor

    port = reactor.listenUDP(0, DatagramEcho(), interface="127.0.0.1")  # type: ignore[attr-defined]
    print(port.getHost().port, flush=True)
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
