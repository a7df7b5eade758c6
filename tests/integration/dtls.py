"""DTLS over a UDP socket that one waits for, for who sends whatever it likes."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from pathlib import Path

from OpenSSL import SSL

MOST = 65535


class DTLSConnection:
    """The connecting end of an association from `source`, as much of an SSLSocket as is needed; it believes everybody.

    One `sendall` is one record, one `recv` at most what one datagram has. `credentials` is a file with certificate
    and key. With `silent` it says nothing more once the cookie is back at the node. Raises TimeoutError, SSL.Error.
    """

    def __init__(
        self,
        address: str,
        port: int,
        credentials: Path | None,
        seconds: float,
        source: str = "127.0.0.1",
        silent: bool = False,
    ) -> None:
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_options(SSL.OP_NO_QUERY_MTU)
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        if credentials is not None:
            context.use_certificate_file(str(credentials))
            context.use_privatekey_file(str(credentials))
        self._connection = SSL.Connection(context, None)
        self._connection.set_ciphertext_mtu(1200)
        self._connection.set_connect_state()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((source, 0))
        self._socket.connect((address, port))
        self.first = b""
        """The first datagram that it sent."""
        self.settimeout(seconds)
        try:
            self._shake_hands(silent)
        except BaseException:
            self._socket.close()
            raise

    def settimeout(self, seconds: float) -> None:
        """How long `recv` waits."""
        self._seconds = seconds

    def _shake_hands(self, silent: bool) -> None:
        # Loopback loses nothing as long as the other end keeps up: no retransmission but of a cookie's request.
        for sent in range(20):
            try:
                self._connection.do_handshake()
                return self._flush()
            except SSL.WantReadError:
                self._flush()
            if silent and sent == 1:
                return None
            self._receive(self._seconds)
        raise TimeoutError("no end of the handshake")

    def _flush(self) -> None:
        records = b""
        with suppress(SSL.WantReadError):
            records = self._connection.bio_read(1 << 20)
        while records:
            size = 13 + int.from_bytes(records[11:13])
            self._socket.send(records[:size])
            self.first = self.first or records[:size]
            records = records[size:]

    def _receive(self, seconds: float) -> None:
        self._socket.settimeout(max(seconds, 0.001))
        self._connection.bio_write(self._socket.recv(MOST))

    def sendall(self, data: bytes) -> None:
        """Send one record, unless it is empty. Raises OSError where the other end has closed."""
        try:
            self._connection.send(data)
        except SSL.Error as error:
            raise OSError("closed") from error
        self._flush()

    def recv(self, size: int) -> bytes:
        """What one record has; empty at the end. Raises TimeoutError."""
        end = time.monotonic() + self._seconds
        while True:
            try:
                return self._connection.recv(size)
            except SSL.WantReadError:
                self._receive(end - time.monotonic())
            except SSL.Error:
                return b""

    def close(self) -> None:
        """Say goodbye."""
        with suppress(SSL.Error, OSError):
            self._connection.shutdown()
            self._flush()
        self._socket.close()
