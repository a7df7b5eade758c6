"""The scenarios of this distribution, one module each; others add theirs as plug-ins (`IScenario`)."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.plugin import getPlugins

from ... import plugins
from ..interfaces import IScenario


def installed() -> Sequence[IScenario]:
    """Every scenario of this and other distributions."""
    return tuple(getPlugins(IScenario, plugins))
