"""Loads a model with the ordinary program under the library and has it verified without.

Used by the demo, the bars and the tests. Judges nothing itself: the verdict is the
exit status of tests/apps/verify_tensors.py.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.harness import models, paths
from tests.harness.run import Run, plain_env

LOADER = paths.APPS / "load_model.py"
VERIFIER = paths.APPS / "verify_tensors.py"


def loader_argv(run: Run, out: Path, all_files: bool = True, python: str | None = None) -> list[str]:
    argv = [python or str(paths.VENV_PYTHON), str(LOADER), str(run.model_dir), "--out", str(out)]
    return argv + ["--all-files"] if all_files else argv


def verify(report: Path, model: str) -> tuple[bool, str]:
    """(equal to the original, what the verifier printed)."""
    argv = [str(paths.VENV_PYTHON), str(VERIFIER), str(report), str(models.folder(model))]
    done = subprocess.run(argv, env=plain_env(), capture_output=True, text=True, check=False)
    return done.returncode == 0, (done.stdout + done.stderr).strip()


def read_report(report: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(report.read_text())
    return found
