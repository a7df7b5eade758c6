"""rtpengine, for the tests of media: in user space, without its kernel module."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from p2psip.sip.media import ng

START_SECONDS: Final = 20.0


class Rtpengine:
    """An rtpengine whose control port and media are at an address; it serves when this is made.  `close` ends it.

    Whatever the package's service does is no concern of it, which listens elsewhere.

    :param media: the address of its media, where that is another.
    :param prefix: what the command line begins with, such as ``ip netns exec NAME``.
    :param open_socket: makes a UDP socket that reaches the control port.
    """

    def __init__(
        self,
        directory: Path,
        address: str,
        port: int = 2223,
        media: str = "",
        prefix: Sequence[str] = (),
        open_socket: Callable[[], socket.socket] = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    ) -> None:
        self.address, self.port = address, port
        self._directory = directory.resolve()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._open_socket = open_socket
        self._argv = [
            *prefix, "rtpengine", "--foreground", "--config-file=none", "--table=-1", "--log-stderr",
            f"--interface={media or address}", f"--listen-ng={address}:{port}", "--num-threads=2",
            f"--pidfile={self._directory}/pid", "--port-min=30000", "--port-max=32000",
        ]  # fmt: skip
        self._log = self._directory / "log"
        self._number = 0
        self.start()

    def start(self) -> None:
        """Start it, at first or again: it has forgotten all calls."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, cwd=self._directory
            )
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                self.ask("ping")
                return
            except OSError:
                # Refused at once, as long as nobody listens.
                if time.monotonic() > end or self._process.poll() is not None:
                    self.close()
                    raise AssertionError(f"rtpengine does not serve:\n{self.log()[-2000:]}") from None
                time.sleep(0.1)

    def ask(self, command: str, **arguments: ng.Value) -> Mapping[str, Any]:
        """What it answers to a command; "_" in names stands for "-"."""
        self._number += 1
        cookie = b"%d_%d" % (os.getpid(), self._number)
        given = {name.replace("_", "-"): value for name, value in arguments.items()}
        with self._open_socket() as asking:
            asking.settimeout(5)
            asking.connect((self.address, self.port))
            asking.send(ng.encode(cookie, command, given))
            return ng.decode(asking.recv(65535))[1]

    @property
    def calls(self) -> list[str]:
        """The Call-IDs of what it relays."""
        return [ng.text(call_id) for call_id in self.ask("list")["calls"]]

    def ports(self) -> int:
        """How many sockets for media it has open."""
        with Path("/proc", str(self._process.pid), "net/udp").open() as table:
            local = [line.split()[1].partition(":") for line in table.readlines()[1:]]
        wanted = "".join(f"{int(part):02X}" for part in reversed(self.address.split(".")))
        return sum(host == wanted and 30000 <= int(port, 16) <= 32000 for host, _, port in local)

    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    def close(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
