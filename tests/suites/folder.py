"""The data folder of the suites, made once natively: a bucket, and a second one with a wrong byte in each large file."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.harness import paths
from tests.harness.run import plain_env
from tests.suites import MATERIALIZE_BYTES, SYSTEM_PATH, database, fio, tools

PREFIX = "suites"
OUT = paths.CACHE / "suites"
# Changes when the data has to be made anew.
VERSION = "1"
SECONDS = 1_700_000_000
# Less than the smallest data suite must fetch from the endpoint.
PAYLOAD_BYTES_MIN = 4 * MATERIALIZE_BYTES


def settle(folder: Path) -> None:
    """Modes and times that an object can have: its Last-Modified counts whole seconds."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (SECONDS, SECONDS))


def make(root: Path) -> None:
    folder = root / paths.BUCKET / PREFIX
    folder.mkdir(parents=True)
    env = {**plain_env(), "PATH": SYSTEM_PATH}
    subprocess.run(fio.lay_out_argv(folder), env=env, check=True, stdout=subprocess.DEVNULL, cwd=root)
    database.make(folder)
    tools.make(folder)
    settle(folder)


def flip(path: Path) -> None:
    """One bit of the byte in the middle."""
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x40]))


def spoil(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_file() and path.stat().st_size > MATERIALIZE_BYTES:
            flip(path)
    settle(root / paths.BUCKET / PREFIX)


def ensure(spoiled: bool = False) -> tuple[Path, Path]:
    """The true data folder, and the root to serve, spoiled or not."""
    stamp = OUT / "version"
    if not stamp.exists() or stamp.read_text() != VERSION:
        shutil.rmtree(OUT, ignore_errors=True)
        make(OUT / "true")
        shutil.copytree(OUT / "true", OUT / "spoiled", copy_function=shutil.copy2)
        spoil(OUT / "spoiled")
        stamp.write_text(VERSION)
    return OUT / "true" / paths.BUCKET / PREFIX, OUT / ("spoiled" if spoiled else "true")
