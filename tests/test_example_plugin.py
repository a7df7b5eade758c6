"""The example of the documentation for authors of plug-ins, run as they run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import p2psip

EXAMPLE = Path(__file__).resolve().parent.parent / "docs" / "examples" / "notes_usage"


class ExampleTests(SynchronousTestCase):
    def test_its_tests_pass(self) -> None:
        """Its files are on Python's search path, as pip puts them there, and p2psip finds the plug-ins."""
        copy = Path(self.mktemp()).absolute()
        shutil.copytree(EXAMPLE, copy)
        path = os.pathsep.join([str(copy), str(Path(p2psip.__file__).parent.parent)])
        run = subprocess.run(
            [sys.executable, "-m", "twisted.trial", "test_p2psip_notes"],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertIn("PASSED", run.stdout)
