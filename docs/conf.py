"""Sphinx: ``tox -e docs``. Prose only, so that it needs no installed package."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

metadata = ConfigParser()
metadata.read(Path(__file__).parent.parent / "setup.cfg")

project = metadata["metadata"]["name"]
release = version = metadata["metadata"]["version"]
copyright = "the p2psip developers"
author = "the p2psip developers"

exclude_patterns = ["_build", "examples"]
html_theme = "furo"
html_title = f"{project} {release}"
