"""Whether ports are free, asked before a node starts."""

from __future__ import annotations

import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2psip.ports import require_free_ports
from p2psip.startup import StartError


def taken(kind: socket.SocketKind) -> socket.socket:
    """A socket on some port of 127.0.0.1."""
    bound = socket.socket(socket.AF_INET, kind)
    bound.bind(("127.0.0.1", 0))
    if kind == socket.SOCK_STREAM:
        bound.listen()
    return bound


class RequireFreePorts(SynchronousTestCase):
    """One line that names the port and the option."""

    def setUp(self) -> None:
        free = [taken(socket.SOCK_STREAM) for _ in range(3)]
        ports = [bound.getsockname()[1] for bound in free]
        for bound in free:
            bound.close()
        self.options: dict[str, Any] = {
            "bind": ["127.0.0.1"], "no-sip": False, "reload-port": ports[0], "sip-port": ports[1],
            "enrollment-port": ports[2],
        }  # fmt: skip

    def refusal(self) -> str:
        return str(self.assertRaises(StartError, require_free_ports, self.options, enrollment=True))

    def test_free(self) -> None:
        """Nothing is said of free ports, and they stay free."""
        require_free_ports(self.options, enrollment=True)
        require_free_ports(self.options, enrollment=True)

    def test_in_use(self) -> None:
        """A taken port is named with its protocol, address and option."""
        for option, kind, protocol in (
            ("reload-port", socket.SOCK_STREAM, "TCP"),
            ("sip-port", socket.SOCK_STREAM, "TCP"),
            ("sip-port", socket.SOCK_DGRAM, "UDP"),
            ("enrollment-port", socket.SOCK_STREAM, "TCP"),
        ):
            before = self.options[option]
            with taken(kind) as bound:
                port = self.options[option] = bound.getsockname()[1]
                text = self.refusal()
            self.options[option] = before
            for part in (f"{protocol} port {port} on 127.0.0.1", f"--{option}", "--bind"):
                self.assertIn(part, text)

    def test_not_asked(self) -> None:
        """Ports that this node will not use do not matter."""
        with taken(socket.SOCK_STREAM) as sip, taken(socket.SOCK_STREAM) as enrollment:
            self.options["sip-port"] = sip.getsockname()[1]
            self.options["enrollment-port"] = enrollment.getsockname()[1]
            self.options["no-sip"] = True
            require_free_ports(self.options, enrollment=False)

    def test_no_such_address(self) -> None:
        """An address that the machine does not have."""
        self.options["bind"] = ["192.0.2.1"]
        self.assertIn("no address 192.0.2.1 (--bind)", self.refusal())
