"""Short forms of the bars "bytes", with the same judgement (all of each: ci/bar bytes N)."""

from __future__ import annotations

import os
import unittest

from tests.checks import identity, one_model, still, uses, versions
from tests.e2e.base import slow
from tests.harness import paths
from tests.harness.measure import Measure


class Bytes(unittest.TestCase):
    """A few runs of each bar must be right, and its checker must see what is broken on purpose."""

    @classmethod
    def setUpClass(cls) -> None:
        paths.require_products()

    def assert_good(self, measure: Measure) -> None:
        self.assertTrue(measure.good, "\n".join([measure.value, *measure.notes[:20]]))

    def test_versions_while_processes_are_killed(self) -> None:
        self.assert_good(versions.whole_versions(runs=12, first=9000))

    @slow
    def test_a_mix_would_be_seen(self) -> None:
        self.assertFalse(versions.control().good, "bytes that change under one ETag were not noticed")

    @slow
    def test_a_model_that_is_replaced(self) -> None:
        self.assert_good(one_model.whole_models(runs=12, first=9000, take_overs=2))

    @slow
    def test_uses_in_real_time(self) -> None:
        self.assert_good(uses.counted(short=True))

    def test_what_an_open_costs(self) -> None:
        text, problems = still.costs()
        self.assertEqual(problems, [], text)

    @slow
    def test_peculiar_folders_and_names(self) -> None:
        if os.getuid() != 0:
            self.skipTest("mount namespaces need root here")
        self.assert_good(identity.known(["file systems", "other names", "mounts inside", "another MODEL_DIR", "MODEL_DIR reused", "names change"], passes=2))

    @slow
    def test_peculiar_programs(self) -> None:
        if os.getuid() != 0:
            self.skipTest("mount namespaces need root here")
        self.assert_good(identity.known(["no /proc", "relative", "what is loaded", "scopes", "other preloaded", "descriptor 2", "CONNECTOR_UDS_PATH", "users' files", "another endpoint"], passes=1))
