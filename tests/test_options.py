"""The command line of a node: what it says by itself, and what is refused before anything runs."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from p2psip.options import NodeOptions, state_root


def parsed(*arguments: str) -> NodeOptions:
    options = NodeOptions()
    options.parseOptions(arguments)
    return options


class NodeOptionsTests(SynchronousTestCase):
    def refusal(self, *arguments: str) -> str:
        return str(self.assertRaises(UsageError, parsed, *arguments))

    def test_the_overlay_is_all_that_must_be_said(self) -> None:
        """[6940-11.2-2]"""
        options = parsed("--overlay", "Example.ORG.")
        self.assertEqual(options["overlay"], "example.org")
        self.assertEqual((options["bind"], options["advertise"]), ([], []))
        self.assertEqual([options[f"{name}-port"] for name in ("reload", "sip", "enrollment")], [6084, 5060, 8443])
        self.assertIn("--overlay is missing", self.refusal())

    def test_what_is_no_domain_name(self) -> None:
        for name in ("-a.org", "a..org", "a_b.org", "../etc", "a b", "ä.org", "x" * 64, f"{'x.' * 127}x", "."):
            self.assertIn("--overlay", self.refusal("--overlay", name), name)

    def test_addresses(self) -> None:
        """One spelling of each; nothing is looked up."""
        options = parsed(
            "--overlay", "a", "--bind", "[2001:DB8::0:1]", "--bind", "127.0.0.1", "--advertise", "192.0.2.1",
        )  # fmt: skip
        self.assertEqual(options["bind"], ["2001:db8::1", "127.0.0.1"])
        self.assertEqual(options["advertise"], ["192.0.2.1"])
        for option in ("--bind", "--advertise"):
            for text in ("localhost", "192.0.2", ""):
                self.assertIn(f"{option} {text!r}", self.refusal("--overlay", "a", option, text))

    def test_ports(self) -> None:
        self.assertEqual(parsed("--overlay", "a", "--sip-port", "65535")["sip-port"], 65535)
        for text in ("0", "65536", "-1", "sip"):
            refusal = self.refusal("--overlay", "a", "--sip-port", text)
            self.assertIn(f"{text!r} is not a port (1 to 65535)", refusal)

    def test_accounts(self) -> None:
        """What is no URL of a database is not repeated: it may hold a password."""
        for url in ("postgresql://u:pw@h/d", "postgresql+psycopg://h/d", "postgres:///d", "sqlite:////var/a.sqlite"):
            self.assertEqual(parsed("--overlay", "a", "--accounts", url)["accounts"], url)
        self.assertIsNone(parsed("--overlay", "a")["accounts"])
        for url in ("secret", "mysql://u:secret@h/d", "sqlite:///secret", "postgresql:secret"):
            self.assertNotIn("secret", self.refusal("--overlay", "a", "--accounts", url))
        self.assertIn("exclude", self.refusal("--overlay", "a", "--self-signed", "--accounts", "postgresql:///d"))

    def test_name_server(self) -> None:
        for text, place in (
            ("192.0.2.1", ("192.0.2.1", 53)),
            ("192.0.2.1:5353", ("192.0.2.1", 5353)),
            ("2001:DB8::1", ("2001:db8::1", 53)),
            ("[2001:db8::1]", ("2001:db8::1", 53)),
            ("[2001:db8::1]:54", ("2001:db8::1", 54)),
        ):
            self.assertEqual(parsed("--overlay", "a", "--name-server", text)["name-server"], place)
        self.assertIsNone(parsed("--overlay", "a")["name-server"])
        for text in ("ns.example.org", "192.0.2.1:0", "192.0.2.1:dns", ":53"):
            self.assertIn("--name-server", self.refusal("--overlay", "a", "--name-server", text))

    def test_turn_server(self) -> None:
        """An IP address and a port, and the secret's file; nothing that a client could offer."""
        for text, parsed_as in (("192.0.2.1:3478", ("192.0.2.1", 3478)), ("[2001:DB8::1]:443", ("2001:db8::1", 443))):
            options = parsed("--overlay", "a", "--turn-server", text, "--turn-secret-file", "f")
            self.assertEqual((options["turn-server"], options["turn-secret-file"]), (parsed_as, "f"))
        self.assertIsNone(parsed("--overlay", "a")["turn-server"])
        for text in ("192.0.2.1", "192.0.2.1:0", "192.0.2.1:65536", "turn.example.org:3478", "fe80::1%eth0:3478", ":1"):
            refusal = self.refusal("--overlay", "a", "--turn-server", text, "--turn-secret-file", "f")
            self.assertIn("--turn-server '", refusal, text)
        for half in (("--turn-server", "192.0.2.1:3478"), ("--turn-secret-file", "f")):
            self.assertIn("go together", self.refusal("--overlay", "a", *half))
        client = ("--client", "--turn-server", "192.0.2.1:3478", "--turn-secret-file", "f")
        self.assertIn("--client", self.refusal("--overlay", "a", *client))

    def test_one_way_to_join(self) -> None:
        both = self.refusal("--overlay", "a", "--join", "x", "--join-file", "y")
        self.assertIn("--join and --join-file exclude each other", both)
        self.assertIn("exclude each other", self.refusal("--overlay", "a", "--join", "x", "--config", "y"))
        account = ("--account", "alice", "--password-file", "p")
        self.assertEqual(parsed("--overlay", "a", "--config", "x", *account)["config"], "x")
        for half in (account[:2], account[2:]):
            self.assertIn("go together", self.refusal("--overlay", "a", *half))

    def test_self_signed(self) -> None:
        """It founds, and names itself if it likes; by a document it may, which then decides. [6940-11.3.1-2]"""
        options = parsed("--overlay", "a", "--self-signed")
        self.assertEqual((options["self-signed"], options["node-id-digest"]), (1, "sha256"))
        self.assertEqual(parsed("--overlay", "a", "--self-signed", "--account", "alice")["account"], "alice")
        self.assertIsNone(parsed("--overlay", "a", "--config", "x")["account"])
        self.assertEqual(parsed("--overlay", "a", "--config", "x", "--account", "alice")["account"], "alice")
        self.assertEqual(
            parsed("--overlay", "a", "--self-signed", "--node-id-digest", "sha1")["node-id-digest"], "sha1"
        )
        for other in (("--join", "x"), ("--join-file", "x"), ("--config", "x")):
            self.assertIn("exclude each other", self.refusal("--overlay", "a", "--self-signed", *other))
        account = ("--account", "alice", "--password-file", "p")
        self.assertIn("exclude each other", self.refusal("--overlay", "a", "--self-signed", *account))
        self.assertIn("go together", self.refusal("--overlay", "a", "--config", "x", *account[2:]))

    def test_choices(self) -> None:
        self.assertEqual(parsed("--overlay", "a", "--key-type", "rsa")["key-type"], "rsa")
        self.assertIn("choose ec or rsa", self.refusal("--overlay", "a", "--key-type", "dsa"))
        self.assertIn("choose sha256 or sha1", self.refusal("--overlay", "a", "--node-id-digest", "md5"))
        self.assertIn("--sip-mode 'b2bua'", self.refusal("--overlay", "a", "--sip-mode", "b2bua"))


class StateDirectoryTests(SynchronousTestCase):
    """Where the state lies unless told otherwise."""

    def setUp(self) -> None:
        self.variables = dict(os.environ)
        self.patch(os, "environ", self.variables)

    def test_given(self) -> None:
        self.assertEqual(parsed("--overlay", "a", "--state", "here")["state"], Path("here"))

    def test_by_the_environment(self) -> None:
        self.variables["XDG_STATE_HOME"] = "/somewhere"
        self.assertEqual(parsed("--overlay", "Example.org")["state"], Path("/somewhere/p2psip/example.org"))

    def test_by_the_user(self) -> None:
        self.variables.pop("XDG_STATE_HOME", None)
        self.variables["HOME"] = "/home/alice"
        self.patch(os, "geteuid", lambda: 1000)
        self.assertEqual(state_root(), Path("/home/alice/.local/state/p2psip"))
        self.patch(os, "geteuid", lambda: 0)
        self.assertEqual(state_root(), Path("/var/lib/p2psip"))
