"""The bars of the main job that fit into a test run, each with its control (all of them: ci/bar --list)."""

from __future__ import annotations

import subprocess
import sys
import unittest

from tests.bars import catalog
from tests.checks import load, simulation
from tests.e2e.base import slow
from tests.harness import paths
from tests.harness.measure import UnknownKind, scale, selected


class Names(unittest.TestCase):
    """A bar is found by its name as by its set and number."""

    def test_each_name_is_one_bar_and_no_set(self) -> None:
        names = [bar.name for _, bar in catalog.every()]
        self.assertEqual(sorted(set(names)), sorted(names))
        self.assertFalse({"list", *catalog.SETS} & set(names))
        for name in names:
            self.assertRegex(name, r"^[a-z0-9]+(-[a-z0-9]+)*$")

    def test_name_and_number_lead_to_the_same_bar(self) -> None:
        self.assertEqual(catalog.find("cold-prefetch", None), catalog.find("engine", 3))
        for name, bar in catalog.every():
            self.assertEqual(catalog.find(bar.name, None), [(name, bar)])
            self.assertEqual(catalog.find(name, bar.number), [(name, bar)])
        self.assertEqual(catalog.find("engine", None) + catalog.find("cold-prefetch", 3) + catalog.find("none", None), [])


class Only(unittest.TestCase):
    """A bar that would measure nothing is not met: a text of --only that names no kind of it is an error that lists them."""

    def test_a_text_that_names_no_kind_is_an_error(self) -> None:
        paths.require_products()
        with_kinds = [(name, bar) for name, bar in catalog.every() if bar.has_kinds]
        self.assertGreater(len(with_kinds), 6)
        for name, bar in [*with_kinds, *catalog.find("main", 1)]:
            with self.subTest(name=bar.name):
                argv = [sys.executable, "-m", "tests.bars", name, str(bar.number), "--only", "no kind has this name"]
                done = subprocess.run(argv, cwd=paths.ROOT, capture_output=True, text=True, timeout=60, check=False)
                self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
                self.assertRegex(done.stderr, "names none of: .*, " if bar.has_kinds else "has no kinds")

    def test_what_is_named_is_chosen(self) -> None:
        scale.only = ["two", "th"]
        self.addCleanup(scale.only.clear)
        self.assertEqual(selected(["one", "two", "three"], str), ["two", "three"])
        self.assertEqual(selected(["one", "two", "three"], str, words=["one"]), ["one"])
        self.assertEqual(selected(["one", "two", "three"], str, words=[]), ["one", "two", "three"])
        with self.assertRaises(UnknownKind):
            selected(["one", "two"], str)


class Plants(unittest.TestCase):
    """The sources still have the places where the simulation's bars plant their bugs."""

    def test_each_text_stands_once_in_its_file(self) -> None:
        for plant in simulation.PLANTS + simulation.PLANTS_OF_SURVIVAL:
            for file, text, _ in plant.changes:
                with self.subTest(plant.what):
                    self.assertEqual((paths.ROOT / file).read_text().count(text), 1, f"{file}: {text}")


class MainBars(unittest.TestCase):
    """A bar must be met, and its control must not."""

    @classmethod
    def setUpClass(cls) -> None:
        paths.require_products()

    def check(self, number: int) -> None:
        (bar,) = [b for b in catalog.SETS["main"] if b.number == number]
        measure = bar.measure()
        self.assertTrue(measure.good, "\n".join([bar.what, measure.value, *measure.notes]))
        control = bar.control()
        self.assertFalse(control.good, f"the control passed: {bar.control_what}: {control.value}")

    def test_bar_3_at_a_smaller_size(self) -> None:
        measure = load.once(size_mib=96)
        self.assertTrue(measure.good, "\n".join([measure.value, *measure.notes]))
        self.assertFalse(load.twice().good, "a second engine was not noticed")

    def test_bar_4(self) -> None:
        self.check(4)

    def test_bar_5(self) -> None:
        self.check(5)

    def test_bar_6(self) -> None:
        self.check(6)

    @slow
    def test_bar_7(self) -> None:
        self.check(7)

    def test_bar_8(self) -> None:
        self.check(8)
