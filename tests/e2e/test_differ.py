"""A short run of the bar of random operations, cold and warm, and hooks that are bypassed to see it fail."""

from __future__ import annotations

import unittest

from tests.checks import differ as bar
from tests.harness import differ, paths
from tests.harness.differ import Batch, Rig, Tally

OPS = 700
SEEDS = range(40_001, 40_005)
# One for each family; all of them: ci/bar hooks 3 --control.
BYPASSED = {"": ["pread", "mmap", "statx"], "64": ["lseek64"]}


class Differ(unittest.TestCase):
    """Each result of each operation is the same on the plain and on the managed folder."""

    rig: Rig

    @classmethod
    def setUpClass(cls) -> None:
        paths.require_products()
        cls.rig = Rig()
        cls.addClassCleanup(cls.rig.close)

    def test_operations_are_alike(self) -> None:
        tally = Tally()
        for batch in bar.FOUND:
            self.rig.compare(batch, tally)
        for seed in SEEDS:
            self.rig.compare(Batch(seed, 1, OPS, differ.VARIANTS[seed % 2], cold=seed % 4 < 2), tally)
        self.rig.settle(tally)
        self.assertEqual(tally.problems, [], "\n".join(tally.problems))
        self.assertGreaterEqual(tally.ops, len(SEEDS) * OPS)
        self.assertGreater(tally.ops_loading, 0, "no operation came before the last byte")

    def test_the_mix_holds_enough_of_each_class(self) -> None:
        _, classes = differ.weights()
        for name in bar.CLASSES:
            self.assertGreaterEqual(classes[name], bar.CLASS_SHARE_MIN, name)
        batches = bar.batches()
        seeds = [(seed, b.only) for b in batches for seed in range(b.first, b.first + b.seeds)]
        self.assertEqual(len(seeds), len(set(seeds)), "a seed is used twice")
        self.assertGreaterEqual(sum(b.seeds * b.ops for b in batches), bar.OPS_MIN)

    def test_bypassed_hooks_are_noticed(self) -> None:
        _, missed = bar.bypassed(self.rig, BYPASSED)
        self.assertEqual(missed, [])
