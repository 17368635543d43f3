"""What a hostile user of the machine tries: nothing is gained, and the engine lives. `ci/bar survive 6` tries more."""

from __future__ import annotations

import os
import unittest
from collections.abc import Callable

from tests.checks import hostile
from tests.e2e.base import slow


@unittest.skipUnless(os.geteuid() == 0, "needs root, for other users and namespaces")
class Hostile(unittest.TestCase):
    """Each attack by itself, so that a failure has its name."""

    def withstands(self, attack: Callable[[hostile.Stage], None]) -> None:
        with hostile.stage() as stage:
            attack(stage)
            self.assertEqual(stage.problems, [])
            self.assertGreater(stage.tried, 0)

    def test_another_user_reaches_nothing_of_an_engine(self) -> None:
        self.withstands(hostile.another_user)

    def test_a_listener_of_another_user_is_told_nothing(self) -> None:
        self.withstands(hostile.listener)

    @slow
    def test_run_folders_that_others_planted_are_passed_over(self) -> None:
        self.withstands(hostile.planted_folders)

    def test_garbage_on_the_attach_socket(self) -> None:
        self.withstands(hostile.packets)

    def test_garbage_on_the_board(self) -> None:
        self.withstands(hostile.garbage)

    @slow
    def test_garbage_on_the_board_where_memory_is_short(self) -> None:
        self.withstands(lambda stage: hostile.garbage(stage, seed=2, memoryLimit=64 << 20, partBytes=1 << 20))


if __name__ == "__main__":
    unittest.main()
