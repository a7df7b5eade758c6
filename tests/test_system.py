from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system import PACKAGE_LIST, find_program, missing_packages, read_packages

APT_GET = """#!/bin/sh
echo "$DEBIAN_FRONTEND $*" >> "$APT_LOG"
"""


class PackageListTests(SynchronousTestCase):
    def test_reads_program_and_package(self) -> None:
        """A program and its package stand on one line; comments and empty lines are not packages."""
        text = "# programs\n\nsipp sip-tester  # calls\ncurl   curl\n"
        self.assertEqual(read_packages(text), {"sipp": "sip-tester", "curl": "curl"})

    def test_a_line_without_a_package_is_refused(self) -> None:
        """A program whose package is not given could never be installed."""
        self.assertRaises(ValueError, read_packages, "sipp\n")

    def test_only_what_is_absent_is_missing(self) -> None:
        present = {"curl": "/usr/bin/curl"}
        packages = {"sipp": "sip-tester", "curl": "curl"}
        self.assertEqual(missing_packages(packages, present.get), {"sipp": "sip-tester"})

    def test_not_on_the_search_path(self) -> None:
        """The newest of several versions; none where the pattern fits nothing."""
        directory = Path(self.mktemp()).absolute()
        for version in ("15", "17"):
            (directory / version).mkdir(parents=True)
            (directory / version / "postgres").touch()
        self.assertEqual(find_program(f"{directory}/*/postgres"), f"{directory}/17/postgres")
        packages = {f"{directory}/*/{name}": name for name in ("postgres", "initdb")}
        self.assertEqual(missing_packages(packages), {f"{directory}/*/initdb": "initdb"})

    def test_the_list_is_readable(self) -> None:
        self.assertIn("tshark", read_packages(PACKAGE_LIST.read_text()))


class InstallationTests(SynchronousTestCase):
    """With a search path on which nothing stands but what the test puts there."""

    def setUp(self) -> None:
        self.programs = Path(self.mktemp()).absolute()
        self.programs.mkdir()
        self.log = self.programs / "log"

    def put(self, name: str, text: str = "#!/bin/sh\n") -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def run_python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": str(self.programs),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TMPDIR": str(self.programs),
            "APT_LOG": str(self.log),
        }
        return subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
        )

    def test_installs_only_what_is_missing_and_asks_nothing(self) -> None:
        self.put("apt-get", APT_GET)
        self.put("curl")
        call = 'from tests.system import install; install({"sipp": "sip-tester", "curl": "curl"})'
        self.assertEqual(self.run_python("-c", call).returncode, 0)
        update, installation = self.log.read_text().splitlines()
        self.assertTrue(update.startswith("noninteractive "))
        self.assertTrue(update.endswith(" update"))
        self.assertTrue(installation.startswith("noninteractive -q -y "))
        self.assertTrue(installation.endswith(" install --no-install-recommends sip-tester"))

    def test_nothing_to_do_calls_nobody(self) -> None:
        for program in read_packages(PACKAGE_LIST.read_text()):
            if not program.startswith("/"):
                self.put(program)
        self.put("apt-get", APT_GET)
        self.assertEqual(self.run_python("-m", "tests.system").returncode, 0)
        self.assertFalse(self.log.exists())

    def test_names_what_it_cannot_install(self) -> None:
        """No apt-get: one line, no traceback, and tox stops."""
        result = self.run_python("-m", "tests.system")
        self.assertEqual(result.returncode, 1)
        self.assertIn("sipp (Debian package sip-tester)", result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1)

    def test_says_when_the_installation_did_not_help(self) -> None:
        """An apt-get that installs nothing leaves the programs missing."""
        self.put("apt-get", APT_GET)
        result = self.run_python("-m", "tests.system")
        self.assertEqual(result.returncode, 1)
        self.assertIn("the tests need", result.stderr)
