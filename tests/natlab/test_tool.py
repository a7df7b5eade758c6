"""``python -m tests.natlab``, as a person uses it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from .case import LaboratoryTestCase, importing_tests
from .laboratory import Laboratory
from .test_laboratory import left_of

TOOL = [sys.executable, "-m", "tests.natlab"]


class ToolTests(LaboratoryTestCase):
    def setUp(self) -> None:
        self.name = f"{os.getpid()}-tool"
        self.laboratory(name=self.name).down()
        self.addCleanup(Laboratory(name=self.name).down)

    def tool(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command, *others = arguments
        return subprocess.run(
            [*TOOL, command, "--name", self.name, *others],
            env=importing_tests(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def test_up_shell_down(self) -> None:
        """`up` prints what it built and leaves it standing; `shell` is in it; `down` leaves nothing."""
        built = self.tool("up", "--nat-b", "symmetric", "--carrier-b", "full-cone", "--ipv6", "--delay", "5", "--turn")
        self.assertEqual((built.returncode, built.stderr), (0, ""))
        for text in (
            *("isp-b", "full-cone NAT", "nat-b", "symmetric NAT", "100.64.", "2001:db8:", "5 to 5 ms"),
            *("coturn at 198.51.100.11:3478", f"ip netns exec natlab.{self.name}.a COMMAND"),
            f"python -m tests.natlab down --name {self.name}",
        ):
            self.assertIn(text, built.stdout)
        seen = self.tool("shell", "b", "ip", "-brief", "address", "show", "eth0")
        self.assertIn("192.168.3.10/25", seen.stdout)
        self.assertEqual((seen.returncode, seen.stderr), (0, ""))
        listening = self.tool("shell", "turn", "ss", "-Hlun", "sport", "=", "3478")
        self.assertIn("198.51.100.11:3478", listening.stdout)
        self.assertEqual(self.tool("shell", "nobody").returncode, 1)
        self.assertEqual(self.tool("down").returncode, 0)
        self.assertEqual(left_of(self.name), [])

    def test_a_shell_that_brings_its_laboratory(self) -> None:
        """It has the exit status of the command, and takes its laboratory with it."""
        result = self.tool("shell", "--nat-a", "none", "a", "sh", "-c", "ip -brief address; exit 7")
        self.assertEqual(result.returncode, 7)
        self.assertIn("198.51.100.11/25", result.stdout)
        self.assertIn("internet  198.51.100.0/24", result.stderr)
        self.assertEqual(left_of(self.name), [])

    def test_up_that_waits(self) -> None:
        """Until it is interrupted; then nothing is left."""
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)):
            with subprocess.Popen(
                [*TOOL, "up", "--name", self.name, "--wait", "--turn", "--jitter", "5"],
                env=importing_tests(),
                stdout=subprocess.PIPE,
                text=True,
            ) as waiting:
                assert waiting.stdout is not None
                while "Ctrl-C" not in (line := waiting.stdout.readline()):
                    self.assertTrue(line, "it ended")
                self.assertTrue(left_of(self.name))
                waiting.send_signal(number)
                self.assertEqual((waiting.wait(60), left_of(self.name)), (status, []))

    def test_what_cannot_be_built(self) -> None:
        """One line says why."""
        result = self.tool("up", "--loss", "101")
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertEqual(result.stderr, "natlab: a line cannot lose 101.0%\n")
        self.assertEqual(left_of(self.name), [])
