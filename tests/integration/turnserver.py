"""coturn, for the tests of relaying."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

CONFIGURATION = """\
listening-ip={address}
relay-ip={address}
listening-port={port}
min-port=50000
max-port=50100
realm=example.org
use-auth-secret
static-auth-secret={secret}
no-tls
no-dtls
no-cli
allow-loopback-peers
log-file={directory}/turnserver.log
simple-log
pidfile={directory}/turnserver.pid
userdb={directory}/turndb
"""
START_SECONDS = 20.0
BINDING_REQUEST = bytes.fromhex("00010000 2112a442") + b"transaction!"
"""RFC 5389 §6: the method Binding, no attributes."""


class Turnserver:
    """A TURN server with a secret, at an IPv4 address; it serves when this is made.  `close` ends it."""

    def __init__(self, directory: Path, address: str, secret: str, port: int = 3478) -> None:
        directory = directory.resolve()
        directory.mkdir(parents=True, exist_ok=True)
        configuration = directory / "turnserver.conf"
        configuration.write_text(
            CONFIGURATION.format(address=address, port=port, secret=secret, directory=directory)
        )
        self._log = directory / "turnserver.log"
        self._process = subprocess.Popen(
            ["turnserver", "-c", str(configuration)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait(address, port)

    def _wait(self, address: str, port: int) -> None:
        end = time.monotonic() + START_SECONDS
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(0.1)
            asking.connect((address, port))
            while True:
                try:
                    asking.send(BINDING_REQUEST)
                    asking.recv(2048)
                    return
                except OSError:
                    if time.monotonic() > end or self._process.poll() is not None:
                        self.close()
                        raise AssertionError(f"turnserver does not serve:\n{self.log()}") from None
                    # Refused at once, as long as nobody listens.
                    time.sleep(0.1)

    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text() if self._log.exists() else ""

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
