"""What the end-to-end tests share: one endpoint and one small folder per test class."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path
from typing import Any, ClassVar

from tests.harness import folder, paths
from tests.harness.endpoint import Endpoint
from tests.harness.run import Run

PREFIX = "team/tiny"
# A shell or nohup may have started the tests with these ignored, which programs would inherit.
for _number, _handler in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGQUIT, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if threading.current_thread() is threading.main_thread() and signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)
# A test of twenty seconds or more, most of them waits, or the short form of a bar: run by `ci/test --all`, and where it is named.
slow = unittest.skipUnless(os.environ.get("OSSC_TESTS") == "all", "slow: ci/test --all runs it")


def can_unshare() -> bool:
    """Whether this user may have a mount namespace."""
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


class EnginesEnd(unittest.TestCase):
    """What starts managed folders of its own, each of which must lose its engine by itself."""

    def serving(self, endpoint: Endpoint) -> Endpoint:
        """It serves until the test ends."""
        endpoint.start()
        self.addCleanup(endpoint.stop)
        return endpoint

    def ending(self, run: Run) -> Run:
        """At the test's end the engine must be gone within lingerSec + 3 s."""
        self.addCleanup(self.finish, run)
        return run

    def finish(self, run: Run) -> None:
        log = run.log_tail()
        run.close()
        self.assertEqual(run.leaks, [], f"an engine outlived its clients\n{log}")


class EndToEnd(EnginesEnd):
    """Serves the small folder of harness/folder.py; each managed folder must lose its engine by itself."""

    maxDiff = 4000
    faults: ClassVar[list[dict[str, Any]] | None] = None
    endpoint_options: ClassVar[list[str]] = []
    endpoint: Endpoint
    scratch: Path
    plain: Path

    @classmethod
    def setUpClass(cls) -> None:
        paths.require_products()
        cls.scratch = Path(tempfile.mkdtemp(prefix="ossc-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.scratch, ignore_errors=True)
        cls.plain = cls.scratch / "root" / paths.BUCKET / PREFIX
        folder.make(cls.plain)
        cls.endpoint = Endpoint(cls.scratch / "root", cls.scratch, cls.faults, cls.endpoint_options)
        cls.endpoint.start()
        cls.addClassCleanup(cls.endpoint.stop)

    @classmethod
    def make_run(cls, config: dict[str, Any] | None = None, io: str | None = None) -> Run:
        """A managed folder whose larger files are placeholders; the caller closes it."""
        settings = {"materializeBytes": folder.MATERIALIZE_BYTES, **(config or {})}
        return Run(cls.endpoint, PREFIX, config=settings, io=io)

    def managed(self, config: dict[str, Any] | None = None, io: str | None = None) -> Run:
        """A managed folder for this test."""
        return self.ending(self.make_run(config, io))
