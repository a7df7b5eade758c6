"""All tests that take no minutes, as one name for trial: ``python -m twisted.trial -j 2 tests.unit``."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from unittest import TestSuite

from twisted.trial.runner import TestLoader

import tests

OTHERS = frozenset(("integration", "natlab", "simulation"))
"""Packages of ``tests`` with an environment of their own in ``tox.ini``."""


def unit_test_names() -> Iterator[str]:
    """The packages and test modules directly under ``tests``, but not `OTHERS`."""
    for module in pkgutil.iter_modules(tests.__path__, "tests."):
        name = module.name.removeprefix("tests.")
        if (module.ispkg and name not in OTHERS) or name.startswith("test_"):
            yield module.name


def testSuite() -> TestSuite:
    """What trial runs in place of this module."""
    suite: TestSuite = TestLoader().loadByNames(list(unit_test_names()), recurse=True)
    return suite
