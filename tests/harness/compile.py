"""Compiles the small programs of tests/apps with the system's compilers, when their sources changed."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

from tests.harness import paths

OUT = paths.CACHE / "apps"
# The programs do what these two warn of on purpose (bad buffers, long names).
FLAGS = ["-O1", "-g", "-Wall", "-Wextra", "-Wno-stringop-overflow", "-Wno-format-truncation", "-pthread"]


def program(source: str, variant: str = "") -> Path:
    """Path of the compiled program. Variants: "" (open, stat), "64" (open64, stat64, fortified), "static"."""
    origin = paths.APPS / source
    target = OUT / (origin.stem + variant)
    newest = max(p.stat().st_mtime for p in (origin, paths.APPS / "cases.h"))
    if target.exists() and target.stat().st_mtime >= newest:
        return target
    OUT.mkdir(parents=True, exist_ok=True)
    argv = ["g++", "-std=c++17"] if origin.suffix == ".cpp" else ["gcc"]
    argv += FLAGS
    if variant == "64":
        argv += ["-D_FILE_OFFSET_BITS=64", "-O2", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]
    if variant == "static":
        argv += ["-static"]
    # Two threads or runs of tests may need it at once.
    fresh = OUT / f"{target.name}.{os.getpid()}.{threading.get_ident()}"
    done = subprocess.run([*argv, "-o", str(fresh), str(origin)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{source} does not compile:\n{done.stderr}")
    fresh.replace(target)
    return target
