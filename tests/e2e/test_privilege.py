"""Programs of other users: one that may not reach MODEL_DIR runs as without the library, one that owns it is served."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from harness import paths
from tests.e2e.base import EndToEnd

NOBODY = 65534
GONE_SECS_MAX = 10.0


class Privilege(EndToEnd):
    """As root the programs run as nobody; otherwise as the caller, who is no root either."""

    def reachable(self, name: str) -> Path:
        """Copies of library and engine that any user may load, wherever the sources lie."""
        folder = self.scratch / name
        folder.mkdir()
        for product in (paths.PRELOAD, paths.OSSC):
            shutil.copy2(product, folder / product.name)
        self.scratch.chmod(0o755)
        return folder

    def other(self) -> dict[str, Any]:
        return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}

    def test_a_child_that_gave_up_its_way_to_the_folder(self) -> None:
        run = self.managed()
        self.assertEqual(run.call(["cat", str(run.model_dir / "small.bin")]).returncode, 0)
        if os.getuid() != 0:
            mode = run.dir.stat().st_mode
            run.dir.chmod(0)
            self.addCleanup(run.dir.chmod, mode)
        program = f"import os; print(os.getuid() >= 0); open({str(run.model_dir / 'a.bin')!r})"
        env = run.env(1, LD_PRELOAD=str(self.reachable("child") / paths.PRELOAD.name))
        done = run.call(["/usr/bin/python3", "-c", program], env, cwd="/", **self.other())
        self.assertEqual(done.stdout, b"True\n", done.stderr)
        self.assertIn(b"oss connector: this user may not reach MODEL_DIR: going on without it\n", done.stderr)
        self.assertIn(b"PermissionError", done.stderr)
        self.assertEqual(done.returncode, 1)

    def test_a_user_without_privileges_has_an_engine(self) -> None:
        run = self.managed()
        if os.getuid() == 0:
            for path in (run.dir, run.model_dir, run.config_path):
                os.chown(path, NOBODY, NOBODY)
        folder = self.reachable("user")
        env = run.env(1, LD_PRELOAD=str(folder / paths.PRELOAD.name), XDG_RUNTIME_DIR=None)
        done = run.call(["cat", str(run.model_dir / "b.bin")], env, cwd="/", **self.other())
        self.assertEqual((done.returncode, done.stderr), (0, b""), run.log_tail())
        self.assertEqual(done.stdout, (self.plain / "b.bin").read_bytes())
        self.wait_gone(folder / paths.OSSC.name)

    def wait_gone(self, program: Path) -> None:
        deadline = time.monotonic() + GONE_SECS_MAX
        while time.monotonic() < deadline:
            if not any(self.runs(entry, program) for entry in os.listdir("/proc") if entry.isdigit()):
                return
            time.sleep(0.05)
        self.fail(f"an engine of {program} outlived its client")

    @staticmethod
    def runs(pid: str, program: Path) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/exe") == str(program)
        except OSError:
            return False
