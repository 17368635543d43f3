"""Runs all checks and tests and counts them. Called by ci/test after setup and build.

Goes on after a failure, so that one run shows all of them; the last line is the sum.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Iterator

from harness import paths
from harness.run import plain_env

LINT = [
    ("format", ["cargo", "fmt", "--all", "--check"]),
    # The profile of the build, so that procedural macros are compiled once.
    ("clippy", ["cargo", "clippy", "--locked", "--profile", "fast", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    ("crates", ["ci/deny", "--offline"]),
    ("spelling", ["ci/check", "spelling"]),
]
# The hook crate is never linked into a test: its exports would replace libc there.
CARGO_TEST = [
    "cargo", "test", "--locked", "--profile", "fast", "--workspace", "--exclude", "ossc-preload", "--no-fail-fast",
]
RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed;", re.MULTILINE)
SLOW_SECS = 10.0
# Files of end-to-end tests that wait most of their time: they run beside the others, in a process of their own.
WAITING = {"test_bytes", "test_session", "test_versions", "test_verdict", "test_credentials", "test_heal"}
SUM = re.compile(r"^(\d+) passed, (\d+) failed$", re.MULTILINE)


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


def cargo_tests(count: Count) -> None:
    title(f"cargo tests: {' '.join(CARGO_TEST)}")
    process = subprocess.Popen(CARGO_TEST, cwd=paths.ROOT, env=plain_env(), stdout=subprocess.PIPE, text=True, errors="replace")
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        # One line for each test binary is enough, unless something failed.
        if not line.startswith(("test ", "running ")) or "FAILED" in line or line.startswith("test result"):
            if line.strip():
                print(line, end="", flush=True)
    status = process.wait()
    results = RESULT.findall("".join(lines))
    passed, failed = sum(int(p) for p, _ in results), sum(int(f) for _, f in results)
    if status != 0 and failed == 0:
        failed = 1
    count.add("cargo tests", passed, failed)


class Result(unittest.TextTestResult):
    """Prints a test that failed at once, and remembers slow ones."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.slow: list[str] = []
        self.passed = 0
        self._begin = 0.0

    def startTest(self, test: unittest.TestCase) -> None:
        self._begin = time.monotonic()
        super().startTest(test)

    def stopTest(self, test: unittest.TestCase) -> None:
        secs = time.monotonic() - self._begin
        if secs > SLOW_SECS:
            self.slow.append(f"{secs:.0f} s {test.id()}")
        super().stopTest(test)

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.passed += 1
        super().addSuccess(test)


def tests_of(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from tests_of(test)
        else:
            yield test


def beside(count: Count) -> None:
    """Runs the files that wait in a process of its own while the others run, then prints what it has said."""
    with tempfile.TemporaryFile("w+") as said:
        argv = [sys.executable, "-m", "harness.testrun", "--only", "e2e", "--lane", "waiting"]
        process = subprocess.Popen(argv, cwd=paths.ROOT, stdout=said, stderr=subprocess.STDOUT)
        end_to_end(count, [], "others")
        process.wait()
        said.seek(0)
        text = said.read()
    title("end to end: what waits most of its time")
    print(text, flush=True)
    sums = SUM.findall(text)
    passed, failed = (int(number) for number in sums[-1]) if sums else (0, 1)
    count.add("end to end, waiting", passed, max(failed, int(process.returncode != 0)))


def end_to_end(count: Count, patterns: list[str], lane: str = "") -> None:
    title("end to end: tests/e2e")
    paths.require_products()
    sys.path.insert(0, str(paths.ROOT))
    loader = unittest.TestLoader()
    if patterns:
        loader.testNamePatterns = [f"*{p}*" for p in patterns]
    suite = loader.discover(str(paths.ROOT / "tests" / "e2e"), top_level_dir=str(paths.ROOT))
    if lane:
        waits = {test: test.id().split(".")[2] in WAITING for test in tests_of(suite)}
        suite = unittest.TestSuite(test for test, it_waits in waits.items() if it_waits == (lane == "waiting"))
    runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=1, resultclass=Result)
    result = runner.run(suite)
    assert isinstance(result, Result)
    bad = {test.id() for test, _ in result.failures + result.errors}
    bad |= {test.id() for test in result.unexpectedSuccesses}
    for line in result.slow:
        print(f"slow: {line}")
    for name in sorted(bad):
        print(f"failed: {name}")
    count.add("end to end", result.passed, len(bad))
    if suite.countTestCases() == 0:
        count.add("end to end: no test found", 0, 1)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="ci/test",
        description="Installs and builds what is missing, then checks format and lints and runs all tests.",
    )
    parser.add_argument("--only", choices=["lint", "cargo", "e2e"], help="one part of it")
    parser.add_argument("-k", dest="patterns", action="append", default=[], metavar="TEXT", help="e2e tests whose name has TEXT")
    # For the process that runs beside.
    parser.add_argument("--lane", choices=["waiting", "others"], default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.chdir(paths.ROOT)
    begin = time.monotonic()
    count = Count()
    only = "e2e" if options.patterns else options.only
    if only in (None, "lint"):
        lint(count)
    if only in (None, "cargo"):
        cargo_tests(count)
    if only == "e2e" and (options.patterns or options.lane):
        end_to_end(count, options.patterns, options.lane)
    elif only in (None, "e2e"):
        beside(count)
    print(f"\n{time.monotonic() - begin:.0f} s" + "".join(f"; failed: {name}" for name in count.names))
    print(f"{count.passed} passed, {count.failed} failed", flush=True)
    return 1 if count.failed else 0


if __name__ == "__main__":
    sys.exit(main())
