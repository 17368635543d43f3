"""A short selection of other projects' suites, plain, preloaded inert and preloaded active (all of them: ci/bar hooks 2)."""

from __future__ import annotations

import unittest

from tests.e2e.base import slow
from tests.harness import paths
from tests.suites import FAIL, PASS, Tally, differences, fio, kind
from tests.suites import all as suites


class Suites(unittest.TestCase):
    """The same tests pass in all three ways, and what checks data notices one wrong bit."""

    @classmethod
    def setUpClass(cls) -> None:
        paths.require_products()

    def check(self, title: str) -> None:
        (suite,) = [s for s in suites.SUITES if s.title == title]
        measure = suites.run(short=True, only=lambda s: s is suite)
        self.assertTrue(measure.good, "\n".join([measure.value, *measure.notes]))

    def test_tools(self) -> None:
        self.check("tools")

    def test_sqlite(self) -> None:
        self.check("SQLite")

    def test_fio(self) -> None:
        self.check("fio crc32c")

    def test_stress(self) -> None:
        self.check("stress-ng --verify")

    @slow
    def test_cpython(self) -> None:
        self.check("CPython")

    def test_a_wrong_bit_is_noticed(self) -> None:
        units = {"tools": ["sha256sum -c", "git fsck"], "SQLite": ["integrity_check mmap immutable=1"], "fio crc32c": fio.SUITE.short}
        measure = suites.control(units)
        self.assertFalse(measure.good, "\n".join([measure.value, *measure.notes]))

    def test_a_lost_test_is_a_difference(self) -> None:
        tally = Tally("any")
        self.assertEqual(len(differences(tally, {"a": PASS, "b": PASS}, {"a": PASS}, "active")), 1)
        self.assertEqual(len(differences(tally, {"a": f"{FAIL} x"}, {"a": f"{FAIL} y"}, "active")), 0)
        self.assertEqual(kind(f"{FAIL} status 1"), FAIL)
