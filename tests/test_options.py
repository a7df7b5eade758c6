"""The command line of a node: what it says by itself, and what is refused before anything runs."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from p2psip.options import NodeOptions, state_root
from p2psip.sip.numbers import DialPlan


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

    def test_revocation_interval(self) -> None:
        self.assertEqual(parsed("--overlay", "a")["revocation-interval"], 60)
        self.assertEqual(parsed("--overlay", "a", "--revocation-interval", "4")["revocation-interval"], 4)
        for text in ("1", "3601", "0.5", "soon", "-60"):
            self.assertIn("no interval", self.refusal("--overlay", "a", "--revocation-interval", text))

    def test_rtpengine(self) -> None:
        """As many as one likes; only where there are phones."""
        options = parsed("--overlay", "a", "--rtpengine", "127.0.0.1:2223", "--rtpengine", "[::1]:2224")
        self.assertEqual(options["rtpengine"], [("127.0.0.1", 2223), ("::1", 2224)])
        self.assertEqual(parsed("--overlay", "a")["rtpengine"], [])
        for text in ("127.0.0.1", "127.0.0.1:0", "localhost:2223", "fe80::1%eth0:2223", ""):
            self.assertIn("--rtpengine '", self.refusal("--overlay", "a", "--rtpengine", text), text)
        self.assertIn("--no-sip", self.refusal("--overlay", "a", "--no-sip", "--rtpengine", "127.0.0.1:2223"))

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


class GatewayOptionsTests(SynchronousTestCase):
    """Numbers and trunks."""

    gateway = ("--overlay", "a.example", "--gateway", "sip:192.0.2.1")

    def refusal(self, *arguments: str) -> str:
        return str(self.assertRaises(UsageError, parsed, *arguments))

    def test_no_gateway(self) -> None:
        options = parsed("--overlay", "a.example")
        self.assertEqual(options["gateway"], [])
        self.assertEqual(options["dial-plan"], DialPlan(contexts=("a.example",)))
        for option in ("prefix", "user", "password-file", "number"):
            self.assertIn("needs --gateway", self.refusal("--overlay", "a", f"--gateway-{option}", "+49"))
        self.assertIn("needs --gateway", self.refusal("--overlay", "a", "--gateway-register"))

    def test_dial_plan(self) -> None:
        options = parsed(
            *("--overlay", "A", "--country-code", "1", "--area-code", "212", "--national-prefix", ""),
            *("--international-prefix", "011", "--emergency-number", "911", "--emergency-number", "933"),
        )
        plan = DialPlan("1", "212", "011", "", ("911", "933"), ("a",))
        self.assertEqual(options["dial-plan"], plan)
        self.assertIn("country code '+49'", self.refusal("--overlay", "a", "--country-code", "+49"))
        self.assertIn("emergency number 'sos'", self.refusal("--overlay", "a", "--emergency-number", "sos"))

    def test_trunks(self) -> None:
        options = parsed(*self.gateway, "--gateway", "sips:trunk.example:5063;transport=TCP")
        self.assertEqual(
            [str(uri) for uri in options["gateway"]], ["sip:192.0.2.1", "sips:trunk.example:5063;transport=TCP"]
        )
        self.assertEqual((options["gateway-prefix"], options["gateway-priority"]), (["+"], 10))
        for text in (
            *("trunk.example", "tel:+49", "sip:", "sip:me@trunk.example", "sip:trunk.example;lr", "sip:a?b=c"),
            *("sip:trunk.example:0", "sip:trunk.example;transport=sctp", "sip:trunk.example;transport"),
        ):
            self.assertIn(f"--gateway {text!r}", self.refusal("--overlay", "a", "--gateway", text), text)
        for other in ("--client", "--no-sip", "--self-signed"):
            self.assertIn(f"--gateway and {other}", self.refusal(*self.gateway, other))
        self.assertIn("needs --sip-mode proxy", self.refusal(*self.gateway, "--sip-mode", "redirect"))

    def test_prefixes(self) -> None:
        options = parsed(*self.gateway, *("--gateway-prefix", "+49", "--gateway-prefix", "112"))
        self.assertEqual(options["gateway-prefix"], ["+49", "112"])
        for text in ("49", "0049", "+x", "", "110", f"+{'1' * 16}"):
            self.assertIn(f"--gateway-prefix {text!r}", self.refusal(*self.gateway, "--gateway-prefix", text), text)
        many = (word for number in range(17) for word in ("--gateway-prefix", f"+{number}"))
        self.assertIn("more than 16", self.refusal(*self.gateway, *many))

    def test_account(self) -> None:
        account = ("--gateway-user", "us", "--gateway-password-file", "f")
        options = parsed(*self.gateway, *account, "--gateway-register", "--gateway-priority", "0")
        self.assertEqual((options["gateway-user"], options["gateway-register"]), ("us", 1))
        self.assertEqual(options["gateway-priority"], 0)
        for half in account[:2], account[2:]:
            self.assertIn("go together", self.refusal(*self.gateway, *half))
        self.assertIn("needs --gateway-user", self.refusal(*self.gateway, "--gateway-register"))
        for text in ("-1", "65536", "high"):
            self.assertIn(f"{text!r} is no priority", self.refusal(*self.gateway, "--gateway-priority", text))

    def test_number(self) -> None:
        number = (*self.gateway, "--country-code", "49", "--gateway-number")
        for text in ("+49-30-1234", "0301234"):
            self.assertEqual(parsed(*number, text)["gateway-number"], "+49301234")
        for text in ("1234", "112", "us"):
            self.assertIn(f"--gateway-number {text!r}", self.refusal(*number, text))


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
