"""One node: all floors wired; the only place that knows them all (``docs/architecture/node.rst``)."""

from __future__ import annotations

from .node import Node
from .plugins import Plugins, installed

__all__ = ["Node", "Plugins", "installed"]
