"""The library takes the place of exactly the functions that its sources have rows for, and of all calls by a path."""

from __future__ import annotations

import unittest

from tests.checks import exports
from tests.harness import paths


class Exports(unittest.TestCase):
    """The built library."""

    def test_each_name_has_a_row_and_each_row_a_name(self) -> None:
        self.assertEqual(exports.problems(exports.exported(paths.PRELOAD)), [])

    def test_control_a_name_too_few_and_one_too_many_are_seen(self) -> None:
        names = exports.expected() - {"open"} | {"qsort", "read@@GLIBC_2.2.5"}
        seen = [problem.split(":")[0] for problem in exports.problems(names)]
        self.assertEqual(seen, ["read@@GLIBC_2.2.5", "open", "qsort"])


class Numbers(unittest.TestCase):
    """What programs call by `syscall()`."""

    def test_each_hooked_function_that_has_a_number_is_hooked_by_it(self) -> None:
        numbered, arms = exports.numbered(), exports.by_number()
        self.assertGreater(len(numbered & arms), 80, "the numbers are read")
        self.assertEqual(sorted(numbered - arms), [])


class Paths(unittest.TestCase):
    """What the headers of the C library declare."""

    def test_each_call_that_takes_a_path_is_hooked_or_left_out_for_a_reason(self) -> None:
        calls, hooked, left = exports.path_calls(), set(exports.functions()), set(exports.left_out())
        self.assertGreater(len(calls & hooked), 80, "the headers are read")
        self.assertEqual(sorted(calls - hooked - left), [], "hook them, or name them in LEFT_OUT of tests/checks/exports.py")
        self.assertEqual(sorted(left & hooked), [], "hooked, and named as left out")

    def test_what_the_document_leaves_out_is_what_is_left_out(self) -> None:
        row = next(line for line in (paths.ROOT / "docs" / "SEMANTICS.md").read_text().splitlines() if "Calls that administer the machine do not" in line)
        missing = [name for name, why in exports.left_out().items() if why in (exports.ADMINISTERS, exports.SYSTEM_TABLE) and f"`{name}`" not in row]
        self.assertEqual(missing, [])
