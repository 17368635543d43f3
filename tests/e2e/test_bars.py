"""The bars of the main job that fit into a test run, each with its control (all of them: ci/bar --list)."""

from __future__ import annotations

import unittest

from tests.bars import catalog
from tests.checks import load, simulation
from tests.e2e.base import slow
from tests.harness import paths


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
