"""Suites of other projects, each run three ways, which must pass and fail in the same places.

Plain: without the library. Inert: preloaded, ENABLE_CONNECTOR unset. Active: preloaded
with a running engine, on the managed folder. Used by tests/bars/hooks.py and
tests/e2e/test_suites.py. An outcome is a word per named check; a check that does not
run at all is missing, and a missing one is a difference.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness import paths
from tests.harness.endpoint import Endpoint
from tests.harness.run import Run, plain_env

PLAIN, INERT, ACTIVE = WAYS = ("plain", "inert", "active")
PASS, FAIL, SKIP = "pass", "fail", "skip"
# Debian's own programs: a version manager in front of them would be measured instead.
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
MATERIALIZE_BYTES = 1024 * 1024
# A difference must show itself so often to count: tests that depend on time fail at random on a loaded machine.
ATTEMPTS = 3

Outcomes = dict[str, str]


@dataclass
class Way:
    """One way to run: `folder` holds the data, `work` is an empty folder to write to, `original` the true data."""

    name: str
    env: dict[str, str]
    folder: Path
    work: Path
    original: Path
    managed: Run | None = None

    def call(self, argv: list[str], timeout: float = 600.0) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end in `work`; one that hangs is killed and ends with status 124."""
        argv = ["timeout", "--kill-after=10", str(timeout), *argv]
        return subprocess.run(
            argv, env=self.env, cwd=self.work, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", check=False,
        )

    def explain(self, done: subprocess.CompletedProcess[str]) -> str:
        """A failed program's last words, on one line."""
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        return f"{FAIL} status {done.returncode}: {' | '.join(words)}"[:400]

    def verdict(self, done: subprocess.CompletedProcess[str]) -> str:
        return PASS if done.returncode == 0 else self.explain(done)


@dataclass(frozen=True)
class Suite:
    """`names` are the units that can run on their own; `run` gives the outcomes of one of them."""

    title: str
    names: list[str]
    run: Callable[[Way, str], Outcomes]
    # The units of the short selection.
    short: list[str]
    # Whether it writes files of its own and so works below the managed folder.
    writes: bool = False


@dataclass
class Tally:
    """What one suite gave: outcomes by way, and what differed."""

    title: str
    outcomes: dict[str, Outcomes] = field(default_factory=lambda: {way: {} for way in WAYS})
    problems: list[str] = field(default_factory=list)
    unsteady: list[str] = field(default_factory=list)

    def counts(self, way: str) -> dict[str, int]:
        words = [kind(word) for word in self.outcomes[way].values()]
        return {word: words.count(word) for word in (PASS, FAIL, SKIP)}

    def line(self) -> str:
        ways = [f"{way} {'/'.join(str(n) for n in self.counts(way).values())}" for way in WAYS]
        return f"{self.title}: passed/failed/skipped {', '.join(ways)}"


def kind(word: str) -> str:
    """The first word of an outcome; what follows says why."""
    return word.split(" ", 1)[0]


def differences(tally: Tally, native: Outcomes, other: Outcomes, way: str) -> list[str]:
    found = []
    for name in sorted(native.keys() | other.keys()):
        before, after = native.get(name, "missing"), other.get(name, "missing")
        if kind(before) != kind(after):
            found.append(f"{tally.title} {name}: plain {before}, {way} {after}")
    return found


@contextmanager
def managed_ways(original: Path, bucket_root: Path, preload_first: Path | None = None) -> Iterator[dict[str, Way]]:
    """The three ways over one data folder. `preload_first` is put before the library, to break the active way."""
    scratch = Path(tempfile.mkdtemp(prefix="ossc-suite-"))
    try:
        with (
            Endpoint(bucket_root, scratch) as endpoint,
            # Below /tmp like the scratch folder: the ways differ in nothing but the library.
            Run(endpoint, original.name, config={"materializeBytes": MATERIALIZE_BYTES}) as run,
        ):
            base = {**plain_env(), "PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8"}
            ways = {
                PLAIN: Way(PLAIN, base, original, scratch / "plain", original),
                INERT: Way(INERT, {**base, "LD_PRELOAD": str(paths.PRELOAD)}, original, scratch / "inert", original),
                ACTIVE: Way(
                    ACTIVE, {**run.env(1), "PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8"}, run.model_dir,
                    run.model_dir / "work", original, run,
                ),
            }
            if preload_first is not None:
                ways[ACTIVE].env["LD_PRELOAD"] = f"{preload_first}:{paths.PRELOAD}"
            # Keeps the engine from leaving between two programs.
            holder = run.start(["sleep", "7200"], run.env(1))
            try:
                for way in ways.values():
                    way.work.mkdir(parents=True, exist_ok=True)
                yield ways
            finally:
                holder.terminate()
                holder.wait()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def run_unit(suite: Suite, way: Way, name: str) -> Outcomes:
    """One unit in an empty work folder, which is emptied after it."""
    for old in way.work.iterdir():
        remove(old)
    outcomes = suite.run(way, name)
    if not outcomes:
        return {name: f"{FAIL} no result"}
    return outcomes


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def compare(suite: Suite, ways: dict[str, Way], names: list[str], tally: Tally) -> None:
    """Runs the units all three ways; where they differ, all ways again, until the difference is gone or stays."""
    for name in names:
        attempts: list[list[str]] = []
        for _ in range(ATTEMPTS):
            results = {way: run_unit(suite, ways[way], name) for way in WAYS}
            found = [d for way in (INERT, ACTIVE) for d in differences(tally, results[PLAIN], results[way], way)]
            attempts.append(found)
            if not found:
                break
        for way in WAYS:
            tally.outcomes[way].update(results[way])
        if attempts[-1]:
            tally.problems += attempts[-1]
        else:
            tally.unsteady += [f"differed once, not when run again: {d}" for found in attempts[:-1] for d in found]

def require(programs: list[str]) -> None:
    """Stops with a hint when a program of a suite is not installed: nothing is skipped silently."""
    missing = [name for name in programs if shutil.which(name, path=SYSTEM_PATH) is None]
    if missing:
        raise RuntimeError(f"{', '.join(missing)} not found in {SYSTEM_PATH}: run ci/setup suites first")


def nice() -> None:
    """Lets interactive work go first; everything started from here inherits it."""
    os.nice(max(0, 5 - os.nice(0)))
