from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import p2psip
from p2psip.administration import Administrator
from p2psip.routes import Operator

DOCS = Path(__file__).resolve().parent.parent / "docs"


def unknown_modules(text: str, root: Path) -> list[str]:
    """The modules that ``text`` names in double backquotes and that are not in the package at `root`."""
    names = sorted(set(re.findall(r"``p2psip\.([a-z_.]+)``", text)))
    paths = {name: root.joinpath(*name.split(".")) for name in names}
    return [name for name, path in paths.items() if not (path.is_dir() or path.with_suffix(".py").is_file())]


class DocumentationTests(SynchronousTestCase):
    def test_the_checker(self) -> None:
        root = Path(self.mktemp())
        (root / "wire").mkdir(parents=True)
        (root / "wire" / "codec.py").touch()
        text = "``p2psip.wire`` ``p2psip.wire.codec`` ``p2psip.wire.attic`` ``p2psip.attic`` ``p2psip.toml``"
        self.assertEqual(unknown_modules(text, root), ["attic", "toml", "wire.attic"])

    def test_modules_that_the_documentation_names_exist(self) -> None:
        root = Path(p2psip.__file__).parent
        pages = sorted(DOCS.rglob("*.rst"))
        self.assertIn(DOCS / "protocol-map.rst", pages)
        unknown = {page.name: unknown_modules(page.read_text(), root) for page in pages}
        self.assertEqual({page: names for page, names in unknown.items() if names}, {})

    def test_every_request_of_the_control_socket_is_told(self) -> None:
        text = (DOCS / "architecture" / "service.rst").read_text()
        service: Any = None
        requests = {**Operator(service).routes(), **Administrator(service).routes()}
        self.assertEqual([r for r in map(" ".join, requests) if f"``{r}" not in text], [])
