"""The options of `twistd p2psip`."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from p2psip.options import NodeOptions, default_state_directory


def parsed(*arguments: str) -> NodeOptions:
    options = NodeOptions()
    options.parseOptions(list(arguments))  # type: ignore[no-untyped-call]
    return options


class Options(SynchronousTestCase):
    """What is read, and what is refused."""

    def refusal(self, *arguments: str) -> str:
        return str(self.assertRaises(UsageError, parsed, *arguments))

    def test_defaults(self) -> None:
        """Only the overlay has to be named."""
        options = parsed("--overlay", "Example.ORG.")
        self.assertEqual("example.org", options["overlay"])
        ports = [options[name] for name in ("reload-port", "sip-port", "enrollment-port")]
        self.assertEqual([6084, 5060, 8443], ports)
        self.assertEqual(([], []), (options["bind"], options["advertise"]))
        self.assertEqual(default_state_directory("example.org"), options["state"])

    def test_state_directory(self) -> None:
        """The state is where XDG_STATE_HOME says, else where root's or a user's belongs."""
        self.patch(os, "environ", {"XDG_STATE_HOME": "/somewhere", "HOME": "/home/alice"})
        self.assertEqual(Path("/somewhere/p2psip/example.org"), default_state_directory("example.org"))
        del os.environ["XDG_STATE_HOME"]
        self.patch(os, "geteuid", lambda: 0)
        self.assertEqual(Path("/var/lib/p2psip/example.org"), default_state_directory("example.org"))
        self.patch(os, "geteuid", lambda: 1000)
        self.assertEqual(
            Path("/home/alice/.local/state/p2psip/example.org"), default_state_directory("example.org")
        )

    def test_addresses(self) -> None:
        """Addresses of both families, several of each option; names are none."""
        options = parsed(
            "--overlay", "example.org", "--bind", "192.0.2.1", "--bind", "[2001:db8:0::1]", "--advertise", "::1"
        )
        self.assertEqual(["192.0.2.1", "2001:db8::1"], options["bind"])
        self.assertEqual(["::1"], options["advertise"])
        self.assertIn("--bind 'localhost'", self.refusal("--overlay", "example.org", "--bind", "localhost"))

    def test_overlay(self) -> None:
        """An overlay's name is a domain name."""
        self.assertIn("--overlay is missing", self.refusal())
        for name in ("", "a b", "-a.org", "a..b", "x" * 64 + ".org", "ex/../ample", "."):
            self.assertIn("--overlay", self.refusal("--overlay", name), name)

    def test_ports(self) -> None:
        """A port is between 1 and 65535."""
        for port in ("0", "65536", "sip", "-1"):
            self.assertIn("port", self.refusal("--overlay", "example.org", "--sip-port", port))

    def test_one_way_to_join(self) -> None:
        """The ways to join exclude each other; an account needs its password and goes with a document."""
        named = ("--overlay", "example.org")
        self.assertIn("exclude each other", self.refusal(*named, "--join", "t", "--join-file", "f"))
        self.assertIn("exclude each other", self.refusal(*named, "--join", "t", "--config", "f"))
        self.assertIn("--password-file", self.refusal(*named, "--config", "f", "--account", "bob"))
        options = parsed(*named, "--config", "f", "--account", "bob", "--password-file", "p")
        self.assertEqual("bob", options["account"])

    def test_choices(self) -> None:
        """What can be chosen is named where something else was."""
        self.assertIn("redirect", self.refusal("--overlay", "example.org", "--sip-mode", "b2bua"))
        self.assertIn("ec or rsa", self.refusal("--overlay", "example.org", "--key-type", "dsa"))
