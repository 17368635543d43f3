"""Runs all checks and tests and counts them. Called by ci/test after setup and build.

Goes on after a failure, so that one run shows all of them; the last line is the sum.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.harness import paths
from tests.harness.run import plain_env

LINT = [
    ("format", ["cargo", "fmt", "--all", "--check"]),
    ("crates", ["ci/deny", "--offline"]),
    ("spelling", ["ci/check", "spelling"]),
    # How they look at what: pyproject.toml.
    ("python", ["target/venv-check/bin/ruff", "check", "--quiet", "tests", "dist", "perf"]),
    ("types", ["target/venv-check/bin/mypy"]),
]
# The profile of the build, so that procedural macros are compiled once.
CLIPPY = ["cargo", "clippy", "--locked", "--profile", "fast", "--workspace", "--all-targets", "--", "-D", "warnings"]
# The hook crate is never linked into a test: its exports would replace libc there.
CARGO_TEST = [
    "cargo", "test", "--locked", "--profile", "fast", "--workspace", "--exclude", "ossc-preload", "--no-fail-fast",
]
# The end-to-end tests wait most of their time; the compilers take what they leave of the processors.
LEFT_OVER = ["nice", "-n", "19"]
RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed;", re.MULTILINE)
# No test takes as long; one that hangs fails with the stacks of its threads.
TEST_SECS_MAX = 600
# More at once disturb each other on two cores.
PROCESSES = 3
SUM = re.compile(r"(\d+) (passed|failed|errors?|skipped)")


class Count:
    """Passed and failed so far, and what failed."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0
        self.names: list[str] = []

    def add(self, name: str, passed: int, failed: int) -> None:
        self.passed += passed
        self.failed += failed
        if failed:
            self.names.append(name)


def title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def lint(count: Count) -> None:
    for name, argv in LINT:
        title(f"{name}: {' '.join(argv)}")
        done = subprocess.run(argv, cwd=paths.ROOT, env=plain_env(), check=False)
        count.add(name, int(done.returncode == 0), int(done.returncode != 0))


def compile_all(tests: bool) -> subprocess.CompletedProcess[str]:
    """Clippy's verdict. With `tests` compiles the cargo tests, too, whose verdict comes when they run."""
    clippy = subprocess.run([*LEFT_OVER, *CLIPPY], cwd=paths.ROOT, env=plain_env(), capture_output=True, text=True, errors="replace", check=False)
    if tests:
        subprocess.run([*LEFT_OVER, *CARGO_TEST, "--no-run"], cwd=paths.ROOT, env=plain_env(), capture_output=True, check=False)
    return clippy


def show_clippy(count: Count, clippy: subprocess.CompletedProcess[str]) -> None:
    title(f"clippy: {' '.join(CLIPPY)}")
    if clippy.returncode != 0:
        print(clippy.stderr, flush=True)
    count.add("clippy", int(clippy.returncode == 0), int(clippy.returncode != 0))


def cargo_tests(count: Count) -> None:
    title(f"cargo tests: {' '.join(CARGO_TEST)}")
    process = subprocess.Popen(CARGO_TEST, cwd=paths.ROOT, env=plain_env(), stdout=subprocess.PIPE, text=True, errors="replace")
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        # One line for each test binary is enough, unless something failed.
        quiet = line.startswith(("test ", "running ")) and "FAILED" not in line and not line.startswith("test result")
        if line.strip() and not quiet:
            print(line, end="", flush=True)
    status = process.wait()
    results = RESULT.findall("".join(lines))
    passed, failed = sum(int(p) for p, _ in results), sum(int(f) for _, f in results)
    if status != 0 and failed == 0:
        failed = 1
    count.add("cargo tests", passed, failed)


def end_to_end(count: Count, patterns: list[str], is_whole: bool) -> None:
    """The tests of tests/e2e by pytest, in a few processes: they wait most of their time. Those that are marked as slow run
    where they are named or all are asked for: each is the short form of a bar."""
    paths.require_products()
    argv = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=15", "--durations-min=20", f"--timeout={TEST_SECS_MAX}",
        "-n", str(PROCESSES), "--dist", "worksteal", "tests/e2e",
    ]
    argv += ["-k", " or ".join(patterns)] if patterns else []
    title(f"end to end: {' '.join(argv[1:])}")
    env = {**plain_env(), "PYTHONPATH": str(paths.ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    if patterns or is_whole:
        env["OSSC_TESTS"] = "all"
    process = subprocess.Popen(argv, cwd=paths.ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        last = line if line.strip() else last
    status = process.wait()
    found = {word: int(number) for number, word in SUM.findall(last)}
    failed = found.get("failed", 0) + found.get("error", 0) + found.get("errors", 0)
    # No test found is a failure, too.
    count.add("end to end", found.get("passed", 0), failed or int(status != 0))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="ci/test",
        description="Installs and builds what is missing, then checks format and lints and runs all tests.",
    )
    parser.add_argument("--only", choices=["lint", "cargo", "e2e"], help="one part of it")
    parser.add_argument("--all", action="store_true", help="with the slow tests: short forms of bars, about 5 minutes more")
    parser.add_argument("-k", dest="patterns", action="append", default=[], metavar="TEXT", help="e2e tests whose name has TEXT")
    options = parser.parse_args()
    os.chdir(paths.ROOT)
    begin = time.monotonic()
    count = Count()
    only = "e2e" if options.patterns else options.only
    with ThreadPoolExecutor(1) as behind:
        clippy = behind.submit(compile_all, only is None) if only in (None, "lint") else None
        if only in (None, "lint"):
            lint(count)
        if only in (None, "e2e"):
            end_to_end(count, options.patterns, options.all)
        if clippy is not None:
            show_clippy(count, clippy.result())
    if only in (None, "cargo"):
        cargo_tests(count)
    print(f"\n{time.monotonic() - begin:.0f} s" + "".join(f"; failed: {name}" for name in count.names))
    print(f"{count.passed} passed, {count.failed} failed", flush=True)
    return 1 if count.failed else 0


if __name__ == "__main__":
    sys.exit(main())
