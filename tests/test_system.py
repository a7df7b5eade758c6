from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.system import PACKAGE_LIST, missing_packages, read_packages


class SystemPackageTests(SynchronousTestCase):
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

    def test_the_list_is_readable(self) -> None:
        self.assertIn("tshark", read_packages(PACKAGE_LIST.read_text()))
