"""SIP over TLS with foreign programs: openssl judges the certificate (baresip 1.0 does not), baresip calls.

Two overlays find each other by a name server (twistd dns), as any two domains do.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .nameserver import serve_zones
from .nodes import NodeProcess, World, run, until
from .phones import Softphone

OPTIONS = (
    "OPTIONS sips:example.org SIP/2.0\r\n"
    "Via: SIP/2.0/TLS 127.0.0.1;branch=z9hG4bK1;rport\r\n"
    "Max-Forwards: 70\r\nFrom: <sips:a@example.org>;tag=1\r\nTo: <sips:example.org>\r\n"
    "Call-ID: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
)
REGISTER = OPTIONS.replace("OPTIONS", "REGISTER").replace("z9hG4bK1", "z9hG4bK2")


class SecureSIPTestCase(SynchronousTestCase):
    def world(self, overlay: str = "example.org") -> World:
        world = World(overlay=overlay)
        self.addCleanup(world.close)
        return world

    def secured(self, node: NodeProcess) -> None:
        """Wait until the node serves TLS."""
        listening = f"sip TLS {node.address}:5061"
        until(lambda: listening in node.status()["listeners"], 20, "TLS is served", [node])

    def phone(self, world: World, node: NodeProcess, user: str, authority: Path, transport: str = "tls") -> Softphone:
        settings = world.nodes[0].json("user", "add", user)
        phone = Softphone(
            world.address(), user, settings["password"], node.address, transport, user != "alice", world.overlay,
            authority,
        )  # fmt: skip
        self.addCleanup(phone.close)
        return phone

    def openssl(self, node: NodeProcess, authority: Path, sent: str = "", *names: str) -> str:
        """What `openssl s_client` prints, which types `sent` to the node."""
        command = [
            "openssl", "s_client", "-connect", f"{node.address}:5061", "-CAfile", str(authority), "-no-CApath",
            "-no-CAstore", "-verify_return_error", "-crlf", "-ign_eof", *names,
        ]  # fmt: skip
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(sent.replace("\r\n", "\n"))
            process.stdin.flush()
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("SIP/2.0") and len([one for one in lines if one.startswith("SIP/")]) == 2:
                    process.kill()
            return "".join(lines)


class ServerTests(SecureSIPTestCase):
    """Two nodes, one of them with the authority."""

    def setUp(self) -> None:
        self.here = self.world()
        first = self.here.founder()
        self.nodes = [first, self.here.join(first)]
        for node in self.nodes:
            self.secured(node)
        self.authority = first.state / "sip-ca.crt"

    def test_openssl(self) -> None:
        """Each shows a certificate for the domain and its address, which nobody's but the SIP authority vouches for."""
        for node in self.nodes:
            for names in (("-verify_hostname", "example.org"), ("-verify_ip", node.address)):
                said = self.openssl(node, self.authority, OPTIONS + REGISTER, *names)
                self.assertIn("Verify return code: 0 (ok)", said)
                self.assertIn("SIP/2.0 200 OK", said)
                self.assertIn("SIP/2.0 401 Unauthorized", said)
            said = self.openssl(node, self.authority, "", "-verify_hostname", "example.net")
            self.assertIn("hostname mismatch", said)
            overlays = self.nodes[0].state / "authority" / "ca.crt"
            self.assertIn("Verification error", self.openssl(node, overlays))

    def test_restart(self) -> None:
        """The certificate is kept, so that an invited node serves TLS though the enrollment server is down."""
        first, second = self.nodes
        before = (second.state / "sip.crt").read_bytes()
        second.terminate()
        first.kill()
        second.start()
        second.wait_for(f"listening: sip TLS {second.address}:5061")
        self.assertEqual((second.state / "sip.crt").read_bytes(), before)
        self.assertIn("Verify return code: 0 (ok)", self.openssl(second, self.authority, OPTIONS + REGISTER))

    def test_phones(self) -> None:
        """Two softphones, one over TLS at one node and one over TCP at the other, call each other."""
        alice = self.phone(self.here, self.nodes[1], "alice", self.authority)
        bob = self.phone(self.here, self.nodes[0], "bob", self.authority, "tcp")
        for phone in (alice, bob):
            phone.wait_registered()
        self.assertEqual(
            self.nodes[1].status()["registrations"]["page"][0]["contacts"][0]["uri"].partition(";")[2], "transport=tls"
        )
        call(self, alice, bob, "sip:bob@example.org")


class OwnCertificateTests(SecureSIPTestCase):
    """A certificate that the operator has from elsewhere."""

    def test_shown(self) -> None:
        """It is shown in place of one of the overlay; a file that cannot be used is said at once, in one line."""
        here = self.world()
        node = here.node()
        certificate, key = here.directory / "certificate.pem", here.directory / "key.pem"
        made = run((
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=sip.example.org", "-days", "2",
            "-addext", "subjectAltName=DNS:sip.example.org", "-out", str(certificate), "-keyout", str(key),
        ))  # fmt: skip
        self.assertEqual(made.returncode, 0, made.stderr)
        own = here.directory / "own.pem"
        node.start("--sip-certificate", str(own))
        node.wait_for(f"p2psip: --sip-certificate: cannot read {own}: No such file")
        node.process.wait(20)  # type: ignore[union-attr]
        own.write_bytes(certificate.read_bytes() + key.read_bytes())
        node.start("--sip-certificate", str(own))
        node.wait_joined()
        self.secured(node)
        said = self.openssl(node, certificate, OPTIONS + REGISTER, "-verify_hostname", "sip.example.org")
        self.assertIn("Verify return code: 0 (ok)", said)
        self.assertFalse((node.state / "sip.crt").exists())


class DomainTests(SecureSIPTestCase):
    """Two overlays that know of each other what the DNS says."""

    def setUp(self) -> None:
        self.org, self.net = self.world("example.org"), self.world("example.net")
        self.server = self.org.address()
        zones = self.org.directory / "zones"
        zones.mkdir()
        for world in (self.org, self.net):
            node = world.node()
            node.options = ("--name-server", f"{self.server}:5300")
            self.zone(zones / world.overlay, world.overlay, node.address)
        serve_zones(self, zones, self.server, 5300)

    def zone(self, path: Path, domain: str, address: str) -> None:
        path.write_text(
            f"zone = [\n"
            f"    SOA('{domain}', mname='ns.{domain}', rname='root.{domain}', serial=1, refresh=60, retry=60,"
            f" expire=60, minimum=60),\n"
            f"    NAPTR('{domain}', 10, 10, b's', b'SIPS+D2T', b'', '_sips._tcp.{domain}'),\n"
            f"    SRV('_sips._tcp.{domain}', 10, 10, 5061, 'node.{domain}'),\n"
            f"    A('node.{domain}', '{address}'),\n]\n"
        )

    def test_call(self) -> None:
        """Alice of the one calls bob of the other, over TLS between them, and back goes what bob's side sends."""
        org, net = self.org.nodes[0], self.net.nodes[0]
        org.start()
        org.wait_joined()
        self.secured(org)
        net.environment["SSL_CERT_FILE"] = str(org.state / "sip-ca.crt")
        net.start()
        net.wait_joined()
        self.secured(net)
        org.terminate()
        org.environment["SSL_CERT_FILE"] = str(net.state / "sip-ca.crt")
        org.start()
        org.wait_joined(60)
        self.secured(org)
        alice = self.phone(self.org, org, "alice", org.state / "sip-ca.crt")
        bob = self.phone(self.net, net, "bob", net.state / "sip-ca.crt")
        for phone in (alice, bob):
            phone.wait_registered()
        call(self, alice, bob, "sip:bob@example.net")
        self.assertIn("SIP/2.0/TLS " + org.address, bob.log())
        alice.command("dial", "sip:bob@example.net")
        for phone in (alice, bob):
            phone.wait_event("CALL_ESTABLISHED")
        bob.command("hangup")
        alice.wait_event("CALL_CLOSED")
        for node in (org, net):
            self.assertNotIn("sip: server not trusted", node.status()["rejected"])

    def test_no_trust(self) -> None:
        """A domain whose authority nobody vouches for is not called."""
        org, net = self.org.nodes[0], self.net.nodes[0]
        for node in (org, net):
            node.start()
            node.wait_joined()
            self.secured(node)
        alice = self.phone(self.org, org, "alice", org.state / "sip-ca.crt")
        alice.wait_registered()
        alice.command("dial", "sip:bob@example.net")
        alice.wait_event("CALL_CLOSED")
        self.assertIn("sip: server not trusted", org.status()["rejected"])
        alice.command("dial", "sip:bob@nowhere.example.net")
        self.assertIn("No Such Domain", alice.wait_event("CALL_CLOSED")["param"])


def call(test: SynchronousTestCase, caller: Softphone, callee: Softphone, uri: str) -> None:
    """A call that is answered, heard, and ended by the caller."""
    caller.command("dial", uri)
    for phone in (caller, callee):
        phone.wait_event("CALL_ESTABLISHED")
    until(lambda: list(callee.directory.glob("*dec.wav")), 10, "the callee hears the tone")
    caller.command("hangup")
    for phone in (caller, callee):
        phone.wait_event("CALL_CLOSED")
