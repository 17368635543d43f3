"""docs/FRAMEWORKS.md is made of the committed results of ci/loaders, which know each loader of the table."""

import re
import unittest

from tests.checks import loaders_docs, loaders_page, loaders_real
from tests.checks.loaders_table import LOADERS, NOT_RUN


class Frameworks(unittest.TestCase):
    def test_document_is_made_of_the_results(self) -> None:
        self.assertEqual(
            loaders_docs.DOCUMENT.read_text(), loaders_docs.document(loaders_docs.stored()), "run ci/loaders --docs",
        )

    def test_each_row_has_a_result_of_a_program_that_there_is(self) -> None:
        names = loaders_docs.names_in_order()
        self.assertEqual(len(names), len(set(names)), "two rows of one name")
        self.assertEqual(sorted(set(loaders_docs.stored()) - set(names)), [], "results of rows that there are no more")
        self.assertEqual([name for name in names if name not in loaders_docs.stored()], [], "rows without a result: run ci/loaders --missing")

    def test_loaders_are_functions_of_the_programs(self) -> None:
        sources = "".join(path.read_text() for path in loaders_real.SOURCES.glob("*.py"))
        self.assertEqual([loader.load for loader in LOADERS if not re.search(rf"^(def {loader.load}\(folder|{loader.load} = )", sources, re.MULTILINE)], [])

    def test_what_was_not_run_says_why(self) -> None:
        for entry in [*NOT_RUN, *loaders_page.NOT_RUN]:
            self.assertTrue(entry.why.strip(), entry.name)


if __name__ == "__main__":
    unittest.main()
