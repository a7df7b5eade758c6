"""kamailio, for the tests: a foreign SIP server with phones of its own, and a trunk into a telephone network."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from typing import Final

CONFIGURATION: Final = Path(__file__).with_name("kamailio.cfg")
START_SECONDS: Final = 20.0


class Kamailio:
    """kamailio at an IPv4 address, over UDP and TCP; it serves when this is made.  `close` ends it.

    The password of each of its users is the name with ``-pw`` behind it.  Phones register and call each other, as
    ``sip:NAME@DOMAIN``.  Who proves to be a user may call telephone numbers and 112, which all ring the phone of the
    user ``pstn``.  A number that the phone ``pstn`` dials goes to `gateway`: an address and port, or the name of the
    user that a gateway has registered as.

    It runs in the foreground with one configuration file of its own; whatever the package's service does is no
    concern of it, which listens elsewhere.
    """

    def __init__(
        self, directory: Path, address: str, domain: str = "trunk.example", gateway: str = "", name_server: str = ""
    ) -> None:
        """With `name_server`, an address, it asks that one, at port 53; this takes root."""
        self.address = address
        self._directory = directory.resolve()
        self._directory.mkdir(parents=True, exist_ok=True)
        configuration = self._directory / "kamailio.cfg"
        text = CONFIGURATION.read_text()
        for name, value in (("ADDRESS", address), ("DOMAIN", domain), ("GATEWAY", gateway)):
            text = text.replace(f"@{name}@", value)
        configuration.write_text(text)
        self._log_path = self._directory / "log"
        self._log = self._log_path.open("wb")
        self._process = subprocess.Popen(
            [
                *(self._asking(name_server) if name_server else ()),
                *("kamailio", "-f", str(configuration), "-DD", "-E", "-m", "64", "-M", "8"),
                *("-w", str(self._directory), "-Y", str(self._directory), "-P", str(self._directory / "pid")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._wait()

    def _asking(self, name_server: str) -> list[str]:
        """What makes the command line see another /etc/resolv.conf, the only place where kamailio looks."""
        resolver = self._directory / "resolv.conf"
        resolver.write_text(f"nameserver {name_server}\n")
        return ["unshare", "-m", "sh", "-c", f'mount --bind {resolver} /etc/resolv.conf && exec "$@"', "sh"]

    def _wait(self) -> None:
        """Until it answers an OPTIONS."""
        end = time.monotonic() + START_SECONDS
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(0.2)
            asking.bind((self.address, 0))
            asking.connect((self.address, 5060))
            port = asking.getsockname()[1]
            options = (
                f"OPTIONS sip:{self.address} SIP/2.0\r\nVia: SIP/2.0/UDP {self.address}:{port};branch=z9hG4bKping\r\n"
                f"From: <sip:ping@{self.address}>;tag=p\r\nTo: <sip:{self.address}>\r\nCall-ID: ping\r\n"
                "CSeq: 1 OPTIONS\r\nMax-Forwards: 1\r\nContent-Length: 0\r\n\r\n"
            )
            while True:
                try:
                    asking.send(options.encode())
                    if asking.recv(2048).startswith(b"SIP/2.0 200"):
                        return
                except OSError:
                    # Refused at once, as long as nobody listens.
                    time.sleep(0.1)
                if time.monotonic() > end or self._process.poll() is not None:
                    self.close()
                    raise AssertionError(f"kamailio does not serve:\n{self.log()[-3000:]}")

    def log(self) -> str:
        """What it has logged: among other things a line for each request, ``METHOD URI from ADDRESS: NAMES``."""
        return self._log_path.read_text("utf-8", "replace")

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
