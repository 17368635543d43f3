"""Bars about the clone as a whole: it builds and runs from nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness import paths
from tests.harness.measure import Measure, from_problems
from tests.harness.run import plain_env

TEST_SECS_MAX = 15 * 60
COMMANDS = ("ci/demo", "ci/test")


def readme_commands(root: Path) -> list[str]:
    """The commands of a checkout that the README names, in its order."""
    lines = (root / "README.md").read_text().splitlines()
    return [line.split("#")[0].strip() for line in lines if line.strip().startswith("ci/")]


def clone(target: Path) -> None:
    subprocess.run(["git", "clone", "-q", "--no-local", str(paths.ROOT), str(target)], check=True)


def fresh_env() -> dict[str, str]:
    env = plain_env()
    env.pop("CARGO_TARGET_DIR", None)
    return env


def fresh_clone() -> Measure:
    problems: list[str] = []
    times: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ossc-clone-") as scratch:
        root = Path(scratch) / "clone"
        clone(root)
        commands = readme_commands(root)
        if tuple(c.split()[0] for c in commands) != COMMANDS:
            problems.append(f"README.md names {commands}, not {COMMANDS}")
        for command in COMMANDS:
            begin = time.monotonic()
            done = subprocess.run(
                [command], cwd=root, env=fresh_env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
            )
            secs = time.monotonic() - begin
            times.append(f"{command} {secs:.0f} s")
            last = done.stdout.strip().splitlines()[-1:] or [""]
            print(f"  {command}: status {done.returncode}, {secs:.0f} s, last line: {last[0].strip()}", flush=True)
            if done.returncode != 0:
                problems += [f"{command} ended with status {done.returncode}", *done.stdout.splitlines()[-15:]]
            elif secs > TEST_SECS_MAX:
                problems.append(f"{command} took {secs:.0f} s")
    return from_problems(", ".join(times), problems)


def wrong_byte_demo() -> Measure:
    """The demo of this tree, with one byte flipped on the wire."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.harness.demo", "--flip-byte", "--size", "48"],
        cwd=paths.ROOT, env=plain_env(),
        capture_output=True, text=True, check=False,
    )
    last = done.stdout.strip().splitlines()[-1:] or [""]
    return Measure(f"status {done.returncode}: {last[0].strip()}", done.returncode == 0)


@contextmanager
def copy_of_tree() -> Iterator[Path]:
    """This tree as it lies here, without what was built, to be broken on purpose."""
    with tempfile.TemporaryDirectory(prefix="ossc-clone-") as scratch:
        yield Path(shutil.copytree(paths.ROOT, Path(scratch) / "copy", ignore=lambda folder, _: {"target", ".git"} if Path(folder) == paths.ROOT else set()))
