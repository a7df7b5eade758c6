from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.trial.unittest import SynchronousTestCase

import tests
from tests.unit import unit_test_names


class UnitTests(SynchronousTestCase):
    def test_every_test_module_is_found(self) -> None:
        """A folder without ``__init__.py`` would be passed over in silence."""
        root = Path(tests.__path__[0])
        folders = {path.parent for path in root.rglob("test_*.py")}
        bare = [folder for folder in folders if not (folder / "__init__.py").exists()]
        self.assertEqual(bare, [])

    def test_what_is_left_out(self) -> None:
        """What takes minutes, and no more."""
        names = list(unit_test_names())
        for name in ("tests.conformance", "tests.simulator", "tests.test_unit"):
            self.assertIn(name, names)
        for name in ("tests.integration", "tests.natlab", "tests.simulation", "tests.unit"):
            self.assertNotIn(name, names)

    def test_reactor(self) -> None:
        """The tests run on the reactor that nodes run on."""
        self.assertIsInstance(reactor, AsyncioSelectorReactor, "leave out trial's --reactor")
