"""Ports that are taken are found before the node starts, and named with the option that chooses another."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from p2psip import ports
from p2psip.ports import require_free_ports
from p2psip.startup import StartError


class PortsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.taken = {kind: self.bound(kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)}
        self.tcp, self.udp = (taken.getsockname()[1] for taken in self.taken.values())
        with self.bound(socket.SOCK_STREAM) as free:
            self.free = free.getsockname()[1]

    def bound(self, kind: socket.SocketKind) -> socket.socket:
        found = socket.socket(socket.AF_INET, kind)
        self.addCleanup(found.close)
        found.bind(("127.61.84.1", 0))
        if kind == socket.SOCK_STREAM:
            found.listen()
        return found

    def options(self, **ports: int) -> dict[str, Any]:
        given = {f"{name}-port": port for name, port in ports.items()}
        every = dict.fromkeys(("reload-port", "sip-port", "sips-port", "enrollment-port"), self.free)
        return {"web-certificate": None, "bind": ["127.61.84.1"], "no-sip": 0, "self-signed": 0, **every, **given}

    def refusal(self, **ports: int) -> str:
        return str(self.assertRaises(StartError, require_free_ports, self.options(**ports), True))

    def test_free(self) -> None:
        """To ask takes nothing."""
        require_free_ports(self.options(), True)
        require_free_ports(self.options(), True)

    def test_taken(self) -> None:
        for option, port, protocol in (
            ("reload", self.tcp, "TCP"),
            ("reload", self.udp, "UDP"),
            ("sip", self.tcp, "TCP"),
            ("sip", self.udp, "UDP"),
            ("sips", self.tcp, "TCP"),
            ("enrollment", self.tcp, "TCP"),
        ):
            error = self.refusal(**{option: port})
            self.assertIn(f"{protocol} port {port} on 127.61.84.1 is in use", error)
            self.assertIn(f"--{option}-port", error)

    def test_only_what_the_node_will_use(self) -> None:
        require_free_ports(self.options(enrollment=self.tcp), False)
        require_free_ports({**self.options(sip=self.tcp), "no-sip": 1}, True)
        require_free_ports({**self.options(sip=self.tcp), "self-signed": 1}, True)

    def test_an_address_of_another_machine(self) -> None:
        options = {**self.options(), "bind": ["192.0.2.1"]}
        error = self.assertRaises(StartError, require_free_ports, options, True)
        self.assertEqual(str(error), "this machine has no address 192.0.2.1 (--bind)")

    def test_a_privileged_port(self) -> None:
        class Forbidding(socket.socket):
            def bind(self, address: Any) -> None:
                raise OSError(errno.EACCES, "Permission denied")

        self.patch(ports.socket, "socket", Forbidding)
        self.assertIn(f"port {self.free} may not be used by this user", self.refusal())

    def test_all_addresses(self) -> None:
        """Also on a machine without IPv6."""
        options = {**self.options(), "bind": []}
        require_free_ports(options, True)
        asked: list[str] = []

        class WithoutIPv6(socket.socket):
            def bind(self, address: Any) -> None:
                asked.append(address[0])
                if address[0] == "::":
                    raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
                super().bind(address)

        self.patch(ports.socket, "socket", WithoutIPv6)
        require_free_ports(options, False)
        self.assertEqual(set(asked), {"::", "0.0.0.0"})
