"""Programs that escape the hooks meet end-of-file, not zeros: the quick ones of bar `hooks 4`, with its control."""

from __future__ import annotations

import unittest

from tests.checks import bypass
from tests.checks.host import tiny
from tests.harness import paths


class Bypass(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        paths.require_products()

    def attempt(self, sparse: bool) -> bypass.Outcome:
        chosen = [b for b in bypass.programs() + bypass.children() if b.short]
        self.assertGreaterEqual(len(chosen), 10)
        with tiny() as (endpoint, plain):
            return bypass.try_all(endpoint, plain, chosen, sparse)

    def test_large_is_empty_and_small_is_right(self) -> None:
        outcome = self.attempt(sparse=False)
        self.assertEqual(outcome.problems, [])
        self.assertGreaterEqual(len(set(outcome.ran)), 10, f"not available: {outcome.unavailable}")

    def test_control_zeros_of_a_sparse_file_are_noticed_by_each(self) -> None:
        outcome = self.attempt(sparse=True)
        self.assertEqual(set(outcome.ran) - outcome.flagged, set())


if __name__ == "__main__":
    unittest.main()
