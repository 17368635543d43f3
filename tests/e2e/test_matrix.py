"""The matrix of faults in short: its table is whole, the document is made of it, and a row of each kind of fault holds, or fails where
nothing goes wrong (all rows: ci/bar survive 1)."""

from __future__ import annotations

import threading
import unittest

from tests.checks import matrix
from tests.checks.matrix_plays import Case
from tests.e2e.base import EnginesEnd
from tests.harness import paths

ROWS_MIN = 120
# What 0.1.0 did wrong, by its numbers.
WEAKNESSES = {"F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8", "F9", "F11", *(f"N{n}" for n in range(1, 13)), *(f"E{n}" for n in range(1, 16))}
# One row or two of each group that ends soon.
SHORT = (
    "503 SlowDown, twice: start", "403 AccessDenied for ever: mmap", "one 404 NoSuchKey: small", "another ETag for ever: fopen",
    "a flipped byte for ever: read", "the body cut after 1000 bytes, 3 times: mmap", "100 bytes a second, on one connection: read",
    "a sub-folder's listing loops: listing", "a log-in page for a listing, twice: small", "every answer is 500 for 4 s of the start: read",
    "the engine is killed: fopen", "an object that never fits the memory: mmap",
)


class Table(unittest.TestCase):
    """The rows, without a run of them."""

    def test_the_document_is_made_of_the_table(self) -> None:
        self.assertEqual(matrix.DOCUMENT.read_text(), matrix.document(), "run python3 -m tests.checks.matrix")

    def test_the_table_is_whole(self) -> None:
        rows = matrix.rows()
        titles = [row.title for row in rows]
        self.assertEqual(sorted(set(titles)), sorted(titles), "two rows of one fault and reader")
        self.assertGreaterEqual(len([row for row in rows if row.group != "named"]), ROWS_MIN)
        self.assertLessEqual(WEAKNESSES, {weakness for row in rows for weakness in row.weakness})
        for row in rows:
            with self.subTest(row=row.title):
                self.assertIn(row.reader, matrix.READERS)
                self.assertIn(row.group, {group["name"] for group in matrix.table()["groups"]})
                self.assertTrue(row.results and row.secs > 0)
                self.assertTrue(row.rules or row.options or row.play or row.test or row.cargo, "nothing goes wrong")

    def test_named_tests_exist(self) -> None:
        sources = "".join(file.read_text() for crate in ("net", "src", "cache") for file in (paths.ROOT / crate).rglob("*.rs"))
        for row in matrix.rows():
            if row.test:
                module, group, method = row.test.split(".")
                self.assertTrue(callable(getattr(getattr(__import__(f"tests.e2e.{module}", fromlist=[group]), group), method)), row.test)
            if row.cargo:
                self.assertIn(f"fn {row.cargo}()", sources)


class Rows(EnginesEnd):
    """A few rows, with both drivers."""

    def outcomes(self, quiet: bool) -> dict[str, list[str]]:
        chosen = [row for row in matrix.rows() if row.title.split(": ", 1)[1] in SHORT]
        self.assertEqual(len(chosen), len(SHORT))
        found: dict[str, list[str]] = {}
        lock = threading.Lock()

        def say(case: Case, problems: list[str], secs: float) -> None:
            with lock:
                found[case.title] = problems

        matrix.run_rows(chosen, say, quiet)
        self.assertEqual(len(found), 2 * len(SHORT))
        return found

    def test_a_few_rows_hold(self) -> None:
        wrong = {title: problems for title, problems in self.outcomes(quiet=False).items() if problems}
        self.assertEqual(wrong, {})

    def test_they_fail_where_nothing_goes_wrong(self) -> None:
        failed = [title for title, problems in self.outcomes(quiet=True).items() if problems]
        # What goes on after a kill gets its bytes in any case.
        self.assertEqual(len(failed), 2 * (len(SHORT) - 1), failed)


if __name__ == "__main__":
    unittest.main()
