"""A child that gave up privileges and may not reach MODEL_DIR runs as without the library."""

from __future__ import annotations

import os
from typing import Any

from tests.e2e.base import EndToEnd

NOBODY = 65534


class Privilege(EndToEnd):
    """CPython's tests start such children (subprocess with user=); found by its test_user."""

    def drop(self, folder: str) -> dict[str, Any]:
        """What makes a child lose its way to `folder`: another user, or, where we are no root, no search bit."""
        if os.getuid() == 0:
            return {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        mode = os.stat(folder).st_mode
        os.chmod(folder, 0)
        self.addCleanup(os.chmod, folder, mode)
        return {}

    def test_it_runs_and_is_told(self) -> None:
        run = self.managed()
        self.assertEqual(run.call(["cat", str(run.model_dir / "small.bin")]).returncode, 0)
        options = self.drop(str(run.dir))
        program = f"import os; print(os.getuid() >= 0); open({str(run.model_dir / 'a.bin')!r})"
        done = run.call(["/usr/bin/python3", "-c", program], cwd="/", **options)
        self.assertEqual(done.stdout, b"True\n", done.stderr)
        self.assertIn(b"oss connector: this user may not reach MODEL_DIR: going on without it\n", done.stderr)
        self.assertIn(b"PermissionError", done.stderr)
        self.assertEqual(done.returncode, 1)
