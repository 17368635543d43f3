"""Where sources, products and caches lie. Read by everything in ci/; changes nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "target"
APPS = ROOT / "tests" / "apps"
VENV_PYTHON = CACHE / "venv" / "bin" / "python3"

_target = Path(os.environ.get("CARGO_TARGET_DIR") or CACHE)
TARGET = _target if _target.is_absolute() else ROOT / _target
PRODUCTS = TARGET / "fast"
OSSC = PRODUCTS / "ossc"
PRELOAD = PRODUCTS / "libossc_preload.so"
ENDPOINT = PRODUCTS / "oss-endpoint"
PERF = PRODUCTS / "ossc-perf"

# The root that the endpoint serves: one folder per bucket.
BUCKETS = CACHE / "buckets"
BUCKET = "models"


def require_products() -> None:
    """Ends the program with a hint when something was not built or installed."""
    for path, how in (
        (VENV_PYTHON, "ci/setup all"),
        (OSSC, "ci/build"),
        (PRELOAD, "ci/build"),
        (ENDPOINT, "ci/build"),
    ):
        if not path.exists():
            sys.exit(f"{path} is missing: run {how} first")
