from __future__ import annotations

from pathlib import Path

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

    def test_integration_is_left_out(self) -> None:
        names = list(unit_test_names())
        self.assertIn("tests.conformance", names)
        self.assertIn("tests.test_unit", names)
        self.assertNotIn("tests.integration", names)
        self.assertNotIn("tests.unit", names)
