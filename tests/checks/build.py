"""Bars about the clone as a whole: it builds and runs from nothing, and signs like the vectors."""

from __future__ import annotations

import json
import re
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
FIRST_SCREEN_LINES = 45
COMMANDS = ("ci/demo", "ci/test")


def readme_commands(root: Path) -> list[str]:
    """The commands of the first screen of the README, in its order."""
    first_screen = (root / "README.md").read_text().splitlines()[:FIRST_SCREEN_LINES]
    return [line.split("#")[0].strip() for line in first_screen if line.strip().startswith("ci/")]


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
            problems.append(f"the first screen of README.md names {commands}, not {COMMANDS}")
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


def v4_cases(vectors: Path) -> int:
    """V4 cases in the files that the project carries."""
    files = [json.loads((vectors / name).read_text()) for name in ("open.json", "anchors.json")]
    return sum(case["sig"] == "v4" for cases in files for case in cases)


def run_vector_tests(root: Path, target: Path) -> tuple[int, int, str]:
    """(tests passed, status, output) of the crates that hold the signer and the independent verifier."""
    done = subprocess.run(
        ["cargo", "test", "--locked", "-p", "ossc-sign", "-p", "oss-endpoint"],
        cwd=root, env={**plain_env(), "CARGO_TARGET_DIR": str(target)}, capture_output=True, text=True, check=False,
    )
    passed = sum(int(n) for n in re.findall(r"test result: \w+\. (\d+) passed", done.stdout))
    return passed, done.returncode, done.stdout + done.stderr


def vectors() -> Measure:
    cases = v4_cases(paths.ROOT / "sign" / "vectors")
    passed, status, output = run_vector_tests(paths.ROOT, paths.TARGET)
    problems = [] if status == 0 else [line for line in output.splitlines() if "FAILED" in line or "panicked" in line or "error" in line]
    if status != 0 and not problems:
        problems = output.splitlines()[-10:]
    if cases == 0:
        problems.append("no V4 case found in sign/vectors")
    return from_problems(f"{cases} V4 cases, {passed} tests passed", problems)


@contextmanager
def copy_of_tree() -> Iterator[Path]:
    """This tree as it lies here, without what was built, to be broken on purpose."""
    with tempfile.TemporaryDirectory(prefix="ossc-clone-") as scratch:
        root = Path(scratch) / "copy"
        shutil.copytree(
            paths.ROOT, root, ignore=lambda folder, names: {"target", ".git"} if Path(folder) == paths.ROOT else set()
        )
        yield root


def wrong_vector() -> Measure:
    """The same tests on a copy in which one hex digit of one expected V4 signature is another."""
    with copy_of_tree() as root:
        file = root / "sign" / "vectors" / "open.json"
        text = file.read_text()
        found = re.search(r"OSS4-HMAC-SHA256 Credential=[^\"]*Signature=([0-9a-f]{64})", text)
        if found is None:
            return Measure("no V4 signature found to change", True)
        position = found.start(1)
        digit = "0" if text[position] != "0" else "1"
        file.write_text(text[:position] + digit + text[position + 1:])
        passed, status, _ = run_vector_tests(root, paths.CACHE / "control")
    return Measure(f"status {status}, {passed} tests passed", status == 0)
