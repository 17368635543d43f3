"""A flipped byte, once or always, in the first, a middle or the last part, against every way to read.

A program that ends with success has the object's bytes; what others were given is named in log and audit. Run by the
bar `bytes 4` and, in a selection, by the end-to-end tests. The control runs the same cells with `verifyCrc` off, where
wrong bytes must be noticed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness import faults, folder, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems, scale
from tests.harness.run import Run

MIB = 1 << 20
PREFIX = "team/flip"
# In parts of 1 MiB: eleven, and one.
LARGE, ONE_PART, SMALL = "large.bin", "one.bin", "small.bin"
SIZES = {LARGE: 10 * MIB + 4097, ONE_PART: MIB - 5, SMALL: 300_000}
MATERIALIZE_BYTES = 500_000
SETTINGS = {"materializeBytes": MATERIALIZE_BYTES, "partBytes": MIB, "prefetch": {"vcpus": 2, "workers": 2}}
# Slow enough for readers to be given parts before the last one has come.
RATE = 60_000_000
WAYS = [
    "read 1 MiB", "read 64 KiB", "pread, 8 threads", "pread backwards", "footer first", "header, then map", "two opens", "readv",
    "sendfile", "sendfile to a file", "copy_file_range", "splice", "cp", "sha256sum", "sha256sum <", "cat", "shutil", "mmap",
    "mmap in parts", "FILE",
]
DRIVERS = ("uring", "epoll")
# As the engine's log says it.
GIVEN = "parts were given to readers before"


@dataclass(frozen=True)
class Cell:
    """One program beside one fault."""

    way: str
    name: str
    offset: int
    times: int | None
    io: str

    def __str__(self) -> str:
        often = "always" if self.times is None else f"{self.times} times"
        return f"{self.way} of {self.name}, byte {self.offset} flipped {often}, {self.io}"


@dataclass(frozen=True)
class Result:
    """How it ended: `sha` is None for an error."""

    sha: str | None
    error: str
    log: list[str]
    audit: list[dict[str, Any]]


def cells(drivers: tuple[str, ...] = DRIVERS, ways: list[str] | None = None) -> list[Cell]:
    found = []
    for io, way, times in itertools.product(drivers, ways or WAYS, (1, None)):
        for name, size in SIZES.items():
            places = [5, size // 2, size - 3] if name == LARGE else [size // 2]
            found += [Cell(way, name, place, times, io) for place in places]
    return found


@contextmanager
def bucket() -> Iterator[Path]:
    """Where the endpoint finds the objects: the folder with its bucket."""
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as scratch:
        folder.fill(Path(scratch) / "root" / paths.BUCKET / PREFIX, SIZES, seed=20_260_101)
        yield Path(scratch)


def run_cell(scratch: Path, cell: Cell, **config: Any) -> Result:
    """One program, in a managed folder and beside an endpoint of its own."""
    rule = faults.flipped_at(f"{PREFIX}/{cell.name}", cell.offset, cell.times)
    place = Path(tempfile.mkdtemp(dir=scratch))
    settings = {**SETTINGS, "reviveSec": 1, **config}
    with (
        Endpoint(scratch / "root", place, [rule], ["--rate-bytes-per-sec", str(RATE)]) as endpoint,
        Run(endpoint, PREFIX, config=settings, io=cell.io, below=place) as run,
    ):
        argv = [str(paths.VENV_PYTHON), str(paths.APPS / "verdict_ways.py"), cell.way, cell.name, str(place / "copy")]
        done = run.call(argv, cwd=run.model_dir, timeout=90)
        sha = done.stdout.decode().strip() if done.returncode == 0 else None
        # What the engine says of it may come a moment later.
        told = run.logged("ERROR", "CRC") if sha is None else []
        deadline = time.monotonic() + (2 if any(GIVEN in line for line in told) else 0)
        while time.monotonic() < deadline and not any('"misread"' in line for line in run.audit_lines()):
            time.sleep(0.02)
        audit = [json.loads(line) for line in run.audit_lines()]
        return Result(sha, done.stderr.decode().strip(), run.log_lines(), audit)


def problems_of(cell: Cell, result: Result, right: str) -> list[str]:
    """What is wrong with how it ended."""
    key = f"{PREFIX}/{cell.name}"
    about = [line for line in result.log if key in line]
    misread = [line for line in result.audit if line.get("act") == "misread"]
    verified = [line for line in result.audit if line.get("act") == "verify" and line["object"].endswith(key)]
    found = []
    if result.sha not in (None, right):
        found.append("success, and other bytes")
    if result.sha is not None and cell.times is None:
        found.append("success, although the bytes can only be wrong")
    if result.sha is None and not any("ERROR" in line and "do not match its CRC-64" in line for line in about):
        found.append("no line at ERROR for an object whose bytes were wrong")
    if any("loaded and verified" in line for line in about):
        found.append("said to be loaded and verified, and bytes were wrong")
    if any("try" not in line for line in verified):
        found.append("a verify row that does not say that it is the second try")
    handed = [line for line in about if GIVEN in line]
    if result.sha is None and cell.times == 1 and not handed:
        found.append(f"an error without a reader who was given bytes: {result.error}")
    if bool(handed) != bool(misread) or any("ERROR" not in line for line in handed):
        found.append(f"log and audit differ on who was given bytes: {handed} {misread}")
    return [f"{cell}: {text}; {result.error}" for text in found]


def run_cells(chosen: list[Cell], **config: Any) -> tuple[list[str], int, int]:
    """Problems, programs that ended with success, and those that ended with an error."""
    problems, good, bad = [], 0, 0
    with bucket() as scratch:
        rights = {
            name: hashlib.sha256((scratch / "root" / paths.BUCKET / PREFIX / name).read_bytes()).hexdigest() for name in SIZES
        }
        for cell in chosen:
            result = run_cell(scratch, cell, **config)
            problems += problems_of(cell, result, rights[cell.name])
            good, bad = good + (result.sha is not None), bad + (result.sha is None)
    return problems, good, bad


def chosen(count: int | None) -> list[Cell]:
    """All of them, or so many, drawn by the seed."""
    every = cells()
    return every if count is None else random.Random(scale.seed).sample(every, min(count, len(every)))


def verdicts() -> Measure:
    picked = chosen(scale.runs)
    problems, good, bad = run_cells(picked)
    return from_problems(f"{len(picked)} programs: {good} right, {bad} with an error", problems)


def verdicts_control() -> Measure:
    """Nothing is compared: good only if that goes unnoticed."""
    picked = [cell for cell in cells(("epoll",)) if cell.times is None and cell.name == LARGE]
    problems, _, _ = run_cells(picked, verifyCrc=False)
    wrong = [problem for problem in problems if "other bytes" in problem]
    return Measure(f"{len(wrong)} of {len(picked)} programs ended with success and other bytes", not wrong, "", wrong[:5])
