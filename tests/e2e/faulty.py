"""What tests of a misbehaving origin share: an endpoint of their own, and ways to read that end in bytes or an errno."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

from tests.e2e.base import PREFIX, EndToEnd
from tests.harness import faults, folder, paths
from tests.harness.endpoint import Endpoint
from tests.harness.run import Run

LARGE = ["b.bin", "nested/deep/c.bin"]
SMALL = ["small.bin", "nested/small.json"]
KEY = f"{PREFIX}/b.bin"
# Short limits, so that a test sees them pass.
LIMITS = {"stallTimeoutMs": 1000, "responseTimeoutMs": 1500, "outageBudgetSec": 3}
ERROR_SECS_MAX = 20.0


class Faulty(EndToEnd):
    """Each test has an endpoint of its own, with its rules."""

    def start(self, rules: list[faults.Rule], options: list[str] | None = None, program: list[str] | None = None, **config: Any) -> Run:
        scratch = self.scratch / self.id().rsplit(".", 1)[-1]
        endpoint = Endpoint(self.scratch / "root", scratch, rules or None, options, program)
        endpoint.start()
        self.addCleanup(endpoint.stop)
        settings = {"materializeBytes": folder.MATERIALIZE_BYTES, **LIMITS, **config}
        run = Run(endpoint, PREFIX, config=settings)
        self.addCleanup(self.finish, run)
        return run

    def read(self, run: Run, way: str, files: list[str]) -> dict[str, str]:
        argv = [str(paths.VENV_PYTHON), str(paths.APPS / "read_all.py"), way, *files]
        done = run.call(argv, cwd=run.model_dir, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr.decode() + run.log_tail())
        found: dict[str, str] = json.loads(done.stdout)
        return found

    def original(self, name: str) -> str:
        return hashlib.sha256((self.plain / name).read_bytes()).hexdigest()

    def assert_equal(self, run: Run, files: list[str] | None = None) -> None:
        """All ways to read give the original."""
        names = files or LARGE + SMALL
        for way in ("read", "map", "stdio"):
            got = self.read(run, way, names)
            self.assertEqual(got, {n: self.original(n) for n in names}, f"{way}\n{run.log_tail()}")

    def assert_error(self, run: Run, ways: tuple[str, ...] = ("map", "stdio", "read"), code: str = "EIO") -> None:
        """b.bin gives an error in time, a healthy file beside it stays readable."""
        for way in ways:
            begin = time.monotonic()
            got = self.read(run, way, ["b.bin"])
            self.assertLess(time.monotonic() - begin, ERROR_SECS_MAX, run.log_tail())
            self.assertEqual(got, {"b.bin": code}, f"{way}\n{run.log_tail()}")
        self.assert_equal(run, ["nested/deep/c.bin"])

    def assert_logged(self, run: Run, *words: str) -> None:
        """One log line names all of these."""
        self.assertTrue(run.logged(*words), f"{words} not in\n{run.log_tail(40)}")
