"""A laboratory stands, is used, and leaves nothing behind."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from . import namespaces
from .case import WITHOUT, LaboratoryTestCase, importing_tests, mapping
from .coturn import start_coturn
from .description import INTERNET, NAT, Host, Line, NATKind
from .laboratory import FILES, Laboratory

ASK_SERVER = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
    asking.settimeout(10)
    asking.sendto(b"hello", (sys.argv[1], int(sys.argv[2])))
    print(asking.recv(1500).decode())
"""

STAND_AND_END = """
import os, signal, sys
from tests.natlab.description import Host, Line
from tests.natlab.laboratory import Laboratory
lab = Laboratory(Host("a", line=Line(delay=0.01)), Host("b"), name=sys.argv[1])
lab.up()
lab.popen("b", ["sleep", "600"])
exec(sys.argv[2])
"""

BUILD_MUCH = """
import sys
from tests.natlab.description import Host
from tests.natlab.laboratory import Laboratory
Laboratory(*(Host(f"h{number}") for number in range(60)), name=sys.argv[1]).up()
"""


def left_of(name: str) -> list[str]:
    """What a laboratory of this name has left on the machine."""
    return [*namespaces.names(f"natlab.{name}."), *(str(path) for path in FILES.glob(name))]


def python(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Another process that runs this program; its tracebacks are of no interest."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, env=importing_tests(), stderr=subprocess.DEVNULL)


class UseTests(LaboratoryTestCase):
    def test_a_program_at_a_host(self) -> None:
        """`run` and `popen` start it there: the server sees the NAT's address."""
        lab = self.laboratory(Host("p"), NAT("nat", NATKind.CONE), Host("a", "nat"))
        server = self.udp(lab, "p")
        asking = lab.popen(
            "a",
            [sys.executable, "-c", ASK_SERVER, *map(str, server.getsockname())],
            stdout=subprocess.PIPE,
            text=True,
        )
        packet, source = server.recvfrom(1500)
        self.assertEqual((packet, source[0]), (b"hello", lab.address("nat")))
        server.sendto(b"welcome", source)
        self.assertEqual(asking.communicate(timeout=30)[0], "welcome\n")
        self.assertIn(lab.address("a"), lab.run("a", ["ip", "address"]).stdout)

    def test_hosts_behind_one_nat_share_a_link(self) -> None:
        """Also for multicast; who is on a line of its own is reached by way of the router."""
        lab = self.laboratory(
            Host("p"),
            NAT("nat", NATKind.CONE),
            *(Host(name, "nat", line) for name, line in (("a", None), ("b", None), ("c", Line()))),
        )
        at_a, at_b, at_c = (self.udp(lab, name) for name in "abc")
        self.assertEqual(mapping(at_a, at_b), at_a.getsockname())
        self.assertEqual(mapping(at_a, at_c), at_a.getsockname())
        group = socket.inet_aton("224.0.0.251")
        hearing = lab.socket("b")
        self.addCleanup(hearing.close)
        hearing.settimeout(at_a.gettimeout())
        hearing.bind(("224.0.0.251", 5353))
        hearing.setsockopt(
            socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + socket.inet_aton(lab.address("b"))
        )
        at_a.sendto(b"anybody?", ("224.0.0.251", 5353))
        self.assertEqual(hearing.recvfrom(1500), (b"anybody?", at_a.getsockname()))

    def test_coturn_takes_credentials_that_have_not_expired(self) -> None:
        """A program behind a symmetric NAT gets an allocation with them, and sends through it."""
        lab = self.laboratory(Host("turn"), NAT("nat", NATKind.SYMMETRIC), Host("a", "nat"))
        server = start_coturn(lab, "turn", "a secret")
        now = int(time.time())
        for expires, works in ((now + 600, True), (now - 600, False)):
            name, password = server.credentials(expires, "alice")
            client = ["turnutils_uclient", "-y", "-c", "-n", "1", "-m", "1", "-u", name, "-w", password]
            result = lab.run("a", [*client, lab.address("turn")])
            self.assertEqual(result.returncode == 0, works, result.stdout)
            self.assertEqual("tot_recv_msgs=2" in result.stdout, works, result.stdout)

    def test_nothing_leads_out_of_it(self) -> None:
        """No device of it is outside, and its default routes end at a router that drops."""
        before = socket.if_nameindex()
        lab = self.laboratory(Host("p"), NAT("nat", NATKind.CONE), Host("a", "nat"))
        self.assertEqual(socket.if_nameindex(), before)
        for family in ("-4", "-6"):
            routes = lab.run(INTERNET, ["ip", family, "route", "show", "default"]).stdout
            self.assertEqual(routes.split()[:2], ["blackhole", "default"])


class EndTests(LaboratoryTestCase):
    def name_that_is_free(self) -> str:
        """For a laboratory of another process; what it leaves is removed after the test."""
        lab = self.laboratory()
        lab.down()
        return lab.name

    def test_two_at_once(self) -> None:
        """With the same addresses; the end of one does not touch the other."""
        one, two = (self.laboratory(Host("p"), Host("q")) for _ in range(2))
        self.assertEqual(one.address("p"), two.address("p"))
        ends = [(self.udp(lab, "p"), self.udp(lab, "q")) for lab in (one, two)]
        one.down()
        self.assertEqual(left_of(one.name), [])
        self.assertEqual(mapping(*ends[1]), ends[1][0].getsockname())

    def test_down_ends_what_runs_in_it(self) -> None:
        lab = self.laboratory(Host("p"))
        program = lab.popen("p", ["sleep", "600"])
        lab.down()
        self.assertEqual(program.wait(30), -signal.SIGKILL)
        self.assertEqual(left_of(lab.name), [])

    def test_an_exception_inside(self) -> None:
        lab = self.laboratory(Host("p"))
        with self.assertRaises(ZeroDivisionError), lab:
            1 / 0
        self.assertEqual(left_of(lab.name), [])

    def test_the_end_of_the_process(self) -> None:
        """Whatever ends it, but for SIGKILL: what that leaves, `down` finds."""
        name = self.name_that_is_free()
        ends = {
            "pass": 0,
            "sys.exit(3)": 3,
            "os.kill(os.getpid(), signal.SIGTERM)": -signal.SIGTERM,
            "os.kill(os.getpid(), signal.SIGHUP)": -signal.SIGHUP,
            "os.kill(os.getpid(), signal.SIGINT)": -signal.SIGINT,
        }
        for end, status in ends.items():
            self.assertEqual((python(STAND_AND_END, name, end).wait(60), left_of(name)), (status, []), end)
        python(STAND_AND_END, name, "os.kill(os.getpid(), signal.SIGKILL)").wait(60)
        self.assertEqual(len(left_of(name)), 4)
        Laboratory(name=name).down()
        self.assertEqual(left_of(name), [])

    def test_interrupted_while_it_is_built(self) -> None:
        """Nothing is left of the part that stood."""
        name = self.name_that_is_free()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            building = python(BUILD_MUCH, name)
            end = time.monotonic() + 60
            while not left_of(name) and time.monotonic() < end:
                time.sleep(0.01)
            building.send_signal(number)
            self.assertEqual((building.wait(60), left_of(name)), (-number, []))


class PermissionTests(LaboratoryTestCase):
    """As root who may not make namespaces."""

    def trial(self, **environment: str) -> subprocess.CompletedProcess[str]:
        case = "tests.natlab.test_laboratory.EndTests.test_down_ends_what_runs_in_it"
        temporary = Path(self.mktemp()).absolute()
        return subprocess.run(
            [
                "setpriv", "--inh-caps=-all", "--bounding-set=-sys_admin,-net_admin",
                sys.executable, "-m", "twisted.trial", f"--temp-directory={temporary}", case,
            ],
            env=importing_tests(**environment), capture_output=True, text=True, check=False,
        )  # fmt: skip

    def test_the_tests_fail_and_say_so(self) -> None:
        result = self.trial(**{WITHOUT: ""})
        self.assertEqual(result.returncode, 1)
        self.assertIn("CAP_SYS_ADMIN", result.stdout)
        self.assertIn(f"{WITHOUT}=1", result.stdout)

    def test_unless_they_are_left_out(self) -> None:
        result = self.trial(**{WITHOUT: "1"})
        self.assertEqual(result.returncode, 0)
        self.assertIn("skips=1", result.stdout)
        self.assertIn(f"{WITHOUT}=1", result.stdout)
