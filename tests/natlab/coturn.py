"""coturn at a host of a laboratory: STUN and TURN, with credentials that expire (the TURN REST convention)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import struct
import subprocess
from dataclasses import dataclass
from typing import Any

from .laboratory import Laboratory
from .namespaces import CommandFailed

PORT = 3478
BINDING = struct.pack(">HHI", 0x0001, 0, 0x2112A442)
"""The type, length and magic cookie of a STUN Binding request (RFC 8489, section 5)."""

ATTEMPTS = 200
SECONDS_BETWEEN = 0.1


@dataclass(frozen=True)
class Coturn:
    """A server that runs: its host, the secret that it shares with those who give out credentials, its realm."""

    host: str
    secret: str
    realm: str
    process: subprocess.Popen[Any]

    def credentials(self, expires: int, user: str = "") -> tuple[str, str]:
        """User name and password that end at `expires`, in seconds since 1970."""
        name = f"{expires}:{user}" if user else str(expires)
        digest = hmac.digest(self.secret.encode(), name.encode(), hashlib.sha1)
        return name, base64.b64encode(digest).decode()


def start_coturn(lab: Laboratory, host: str, secret: str, realm: str = "example.org") -> Coturn:
    """Start coturn at the addresses of `host`, on port 3478 of UDP and TCP, and wait until it answers.

    It ends with the laboratory. Raises NotPermitted when there is no coturn, CommandFailed when it does not answer.
    """
    addresses = lab.addresses(host)
    argv = [
        "turnserver", "-n", f"--listening-port={PORT}", "--use-auth-secret", f"--static-auth-secret={secret}",
        f"--realm={realm}", "--min-port=49160", "--max-port=49400", "--relay-threads=1", "--fingerprint",
        "--no-cli", "--no-tls", "--no-dtls", "--log-file=stdout", "--simple-log",
        f"--userdb={lab.files}/turn-{host}.db", f"--pidfile={lab.files}/turn-{host}.pid",
        *(f"--listening-ip={address}" for address in addresses), *(f"--relay-ip={address}" for address in addresses),
    ]  # fmt: skip
    server = Coturn(host, secret, realm, lab.serve(host, argv, f"turn-{host}.log"))
    _wait_for_answer(lab, server)
    return server


def _wait_for_answer(lab: Laboratory, server: Coturn) -> None:
    with lab.socket(server.host) as asking:  # not connected, so that a closed port is silence as well
        asking.settimeout(SECONDS_BETWEEN)
        for _ in range(ATTEMPTS):
            asking.sendto(BINDING + os.urandom(12), (lab.address(server.host), PORT))
            try:
                asking.recv(1500)
                return
            except TimeoutError:
                if server.process.poll() is not None:
                    break
    log = (lab.files / f"turn-{server.host}.log").read_text()
    raise CommandFailed(f"coturn does not answer:\n{log[-2000:]}")
