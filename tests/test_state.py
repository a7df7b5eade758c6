"""The state directory: locked, private, and whole after any death."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from p2psip.state import StateDirectory, StateError, write_file


class StateDirectoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "deep" / "state"
        self.state = StateDirectory(self.path)
        self.addCleanup(self.state.release)

    def test_prepare_makes_it_for_its_owner_alone(self) -> None:
        self.state.prepare()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o700)

    def test_one_process_at_a_time(self) -> None:
        self.state.prepare()
        other = StateDirectory(self.path)
        error = self.assertRaises(StateError, other.prepare)
        self.assertIn("in use", str(error))
        self.state.release()
        other.prepare()
        other.release()

    def test_lock_ends_with_the_process(self) -> None:
        """A node that was killed does not keep its successor out."""
        script = (
            "import sys, os\n"
            "from p2psip.state import StateDirectory\n"
            "StateDirectory(sys.argv[1]).prepare()\n"
            "os.kill(os.getpid(), 9)\n"
        )
        root = str(Path(__file__).parent.parent)
        environment = {**os.environ, "PYTHONPATH": root}
        died = subprocess.run([sys.executable, "-c", script, str(self.path)], env=environment, check=False)
        self.assertEqual(died.returncode, -9)
        self.state.prepare()

    def test_unusable_place(self) -> None:
        place = Path(self.mktemp())
        place.write_text("a file")
        error = self.assertRaises(StateError, StateDirectory(place).prepare)
        self.assertIn(str(place), str(error))

    def test_has_credentials(self) -> None:
        """Only a whole enrollment counts: document, key and certificate."""
        for path in (self.state.document, self.state.key, self.state.certificate):
            self.assertFalse(self.state.has_credentials)
            write_file(path, b"x")
        self.assertTrue(self.state.has_credentials)

    def test_has_authority(self) -> None:
        self.assertFalse(self.state.has_authority)
        write_file(self.state.authority / "ca.key", b"x")
        self.assertTrue(self.state.has_authority)
        self.assertFalse(self.state.has_signer)
        write_file(self.state.signer_key, b"x")
        self.assertTrue(self.state.has_signer)


class WriteFileTests(SynchronousTestCase):
    def test_replaces_as_a_whole(self) -> None:
        path = Path(self.mktemp()) / "file"
        write_file(path, b"old")
        with path.open("rb") as reader:
            write_file(path, b"new")
            self.assertEqual(reader.read(), b"old")
        self.assertEqual(path.read_bytes(), b"new")
        self.assertEqual(os.listdir(path.parent), ["file"])

    def test_owner(self) -> None:
        """What root prepares for the user that it becomes is that user's, also below a directory of root's."""
        if os.geteuid() != 0:
            raise SkipTest("only root makes files for others")
        parent = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, parent)
        parent.chmod(0o755)
        state = StateDirectory(parent / "state")
        state.prepare((65534, 65534))
        self.addCleanup(state.release)
        for path in (state.path, state.path / "lock", state.data):
            self.assertEqual((path.stat().st_uid, path.stat().st_gid), (65534, 65534), path)
        self.assertEqual((os.geteuid(), os.getegid()), (0, 0))

    def test_modes(self) -> None:
        path = Path(self.mktemp()) / "file"
        write_file(path, b"public", 0o644)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o644)
        write_file(path, b"secret")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)

    def test_left_over_of_a_death(self) -> None:
        """What an interrupted write left behind neither counts nor hinders, nor lends its file mode."""
        path = Path(self.mktemp()) / "file"
        path.parent.mkdir(parents=True)
        temporary = path.with_name(".file.new")
        temporary.write_bytes(b"half of something longer")
        temporary.chmod(0o666)
        write_file(path, b"whole")
        self.assertEqual(path.read_bytes(), b"whole")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
