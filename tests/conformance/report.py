"""Which requirements the tests cite: ``python -m tests.conformance.report``.

Exit status 1 when a test cites an id that does not exist. What nobody cites is listed, and is no error.
"""

from __future__ import annotations

import ast
import csv
import io
import re
import sys
import textwrap
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent.parent
REQUIREMENTS = Path(__file__).parent / "requirements"

CITATION = re.compile(r"\[((?:6940|7263|7264|7363|7374|7851|7890|7904|8076)-[^\]]*)\]")
"""One id in square brackets, or several with commas between."""


@dataclass(frozen=True)
class Requirement:
    """One row: a sentence of an RFC; `level` joins several key words by ``+``."""

    id: str
    level: str
    area: str
    text: str

    @property
    def is_must(self) -> bool:
        return bool({"MUST", "MUST NOT", "SHALL", "SHALL NOT", "REQUIRED"} & set(self.level.split("+")))


def read_requirements(folder: Path = REQUIREMENTS) -> dict[str, Requirement]:
    """All rows of all tables by id.

    Raises ValueError when two rows have one id.
    """
    found: dict[str, Requirement] = {}
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as table:
            for row in csv.DictReader(table):
                if row["id"] in found:
                    raise ValueError(f"{path.name}: {row['id']} occurs twice")
                # The sections that only fill IANA registries have no area of their own.
                area = row.get("area") or "registries"
                found[row["id"]] = Requirement(row["id"], row["level"], area, row["text"])
    return found


def citations(source: str) -> Iterator[str]:
    """The ids that a module cites in docstrings and comments; not those in other strings."""
    texts = [
        ast.get_docstring(node) or ""
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    texts += [token.string for token in tokens if token.type == tokenize.COMMENT]
    for text in texts:
        for ids in CITATION.findall(text):
            yield from (part.strip() for part in ids.split(","))


def read_citations(folder: Path = TESTS) -> dict[str, set[str]]:
    """The files, relative to `folder`, that cite each id."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(folder.rglob("*.py")):
        for cited in citations(path.read_text(encoding="utf-8")):
            found[cited].add(path.relative_to(folder).as_posix())
    return dict(found)


def coverage(requirements: Mapping[str, Requirement], cited: Iterable[str]) -> Iterator[str]:
    """A table: for each area how many of the MUSTs, and of all requirements, are cited."""
    known = set(cited)
    areas = sorted({requirement.area for requirement in requirements.values()})
    yield f"{'area':24}{'MUST':>12}{'all':>12}"
    for area in [*areas, "all areas"]:
        rows = [row for row in requirements.values() if area in (row.area, "all areas")]
        musts = [row for row in rows if row.is_must]
        figures = (f"{sum(row.id in known for row in part)}/{len(part)}" for part in (musts, rows))
        yield f"{area:24}" + "".join(f"{figure:>12}" for figure in figures)


def uncited_musts(requirements: Mapping[str, Requirement], cited: Iterable[str]) -> Iterator[str]:
    """For each area the ids of the MUSTs that no test cites."""
    known = set(cited)
    missing: dict[str, list[str]] = defaultdict(list)
    for row in requirements.values():
        if row.is_must and row.id not in known:
            missing[row.area].append(row.id)
    for area, ids in sorted(missing.items()):
        line = f"{area}: {' '.join(ids)}"
        yield from textwrap.wrap(line, 110, subsequent_indent="    ", break_on_hyphens=False)


def main() -> int:
    requirements = read_requirements()
    cited = read_citations()
    print("\n".join(coverage(requirements, cited)))
    print("\nMUSTs that no test cites:")
    print("\n".join(uncited_musts(requirements, cited)))
    unknown = {name: files for name, files in cited.items() if name not in requirements}
    for name, files in sorted(unknown.items()):
        print(f"no such requirement: [{name}] in {', '.join(sorted(files))}", file=sys.stderr)
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
