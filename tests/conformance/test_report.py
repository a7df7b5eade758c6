from __future__ import annotations

import textwrap
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.report import (
    Requirement,
    citations,
    coverage,
    read_citations,
    read_requirements,
    uncited_musts,
)

ROWS = {
    "6940-1-1": Requirement("6940-1-1", "MUST", "storage", "It MUST."),
    "6940-1-2": Requirement("6940-1-2", "MAY", "storage", "It MAY."),
    "7904-1-1": Requirement("7904-1-1", "SHOULD+MUST NOT", "usage-sip", "It SHOULD and MUST NOT."),
}


class CitationTests(SynchronousTestCase):
    def cited(self, source: str) -> list[str]:
        return sorted(citations(textwrap.dedent(source)))

    def test_docstrings_and_comments(self) -> None:
        source = '''
            """Of a module [6940-1-1]"""
            class Tests:
                """Of a class [6940-1-2, 7904-1-1]"""
                async def test(self):
                    """Of a method [6940-1-3]"""
                    pass  # of a line [6940-1-4]
        '''
        expected = ["6940-1-1", "6940-1-2", "6940-1-3", "6940-1-4", "7904-1-1"]
        self.assertEqual(self.cited(source), expected)

    def test_other_strings_and_brackets_cite_nothing(self) -> None:
        source = '''
            value = "[6940-1-1]"  # a range [1-2], an index [0], a year [2020-01]
        '''
        self.assertEqual(self.cited(source), [])

    def test_a_misspelt_id_is_not_overlooked(self) -> None:
        """It is read, so that the report can say that there is no such id."""
        self.assertEqual(self.cited("# [6940-6.1.1 - 2]"), ["6940-6.1.1 - 2"])

    def test_names_the_files(self) -> None:
        folder = Path(self.mktemp())
        (folder / "wire").mkdir(parents=True)
        (folder / "wire" / "test_a.py").write_text("# [6940-1-1]\n")
        (folder / "test_b.py").write_text("# [6940-1-1]\n")
        self.assertEqual(read_citations(folder), {"6940-1-1": {"wire/test_a.py", "test_b.py"}})


class RequirementTests(SynchronousTestCase):
    def test_the_tables(self) -> None:
        requirements = read_requirements()
        discard = requirements["6940-6.1-1"]
        self.assertEqual((discard.level, discard.area, discard.is_must), ("MUST", "forwarding", True))
        self.assertIn("MUST be discarded", discard.text)
        self.assertEqual(requirements["6940-14.4-1"].area, "registries")

    def test_every_citation_exists(self) -> None:
        """What a test claims to prove stands in the tables."""
        requirements = read_requirements()
        unknown = {name: files for name, files in read_citations().items() if name not in requirements}
        self.assertEqual(unknown, {})

    def test_one_id_one_row(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        row = "6940-1-1,MUST,1,Title,Text\n"
        (folder / "twice.csv").write_text("id,level,section,title,text\n" + row + row)
        error = self.assertRaises(ValueError, read_requirements, folder)
        self.assertIn("6940-1-1", str(error))

    def test_levels(self) -> None:
        self.assertEqual([row.is_must for row in ROWS.values()], [True, False, True])


class ReportTests(SynchronousTestCase):
    def test_coverage(self) -> None:
        rows = [line.split() for line in coverage(ROWS, ["6940-1-1"])][1:]
        expected = [["storage", "1/1", "1/2"], ["usage-sip", "0/1", "0/1"], ["all", "areas", "1/2", "1/3"]]
        self.assertEqual(rows, expected)

    def test_uncited(self) -> None:
        self.assertEqual(list(uncited_musts(ROWS, ["6940-1-1"])), ["usage-sip: 7904-1-1"])
