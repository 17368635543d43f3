"""What a person asks of a node has an answer, and the answer is right: short forms of the bars "operate"."""

from __future__ import annotations

import unittest

from tests.checks import operate_doctor, operate_log, operate_starts
from tests.e2e.base import slow
from tests.harness import paths


class Doctor(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        paths.require_products()

    @slow
    def test_doctor_and_program_agree(self) -> None:
        measure = operate_doctor.agree(quick=True)
        self.assertTrue(measure.good, "\n".join([measure.value, *measure.notes]))

    def test_a_check_that_does_not_count_is_noticed(self) -> None:
        self.assertFalse(operate_doctor.switched_off().good)


class Log(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        paths.require_products()

    def test_lines_that_cannot_be_written_change_nothing_for_readers(self) -> None:
        measure = operate_log.unnoticed()
        self.assertTrue(measure.good, "\n".join([measure.value, *measure.notes]))
        self.assertFalse(operate_log.held_up().good, "a reader that was held up was not noticed")


class Starts(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        paths.require_products()

    def test_each_reason_of_a_failed_start_is_in_the_log(self) -> None:
        measure = operate_starts.logged(starts=24)
        self.assertTrue(measure.good, "\n".join([measure.value, *measure.notes]))
