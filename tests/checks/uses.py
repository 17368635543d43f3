"""Bar about leases: what is in memory stays while it is used, goes when it is not, and old versions leave nothing.

Random schedules with a virtual clock and 100,000 versions are tests of the crates, run here and counted by what they
print; a few are done in real time by programs, on an endpoint that counts bytes.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.checks.one_model import resident
from tests.harness import blocks, paths
from tests.harness import compile as compiler
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems, scale
from tests.harness.requestlog import bytes_served
from tests.harness.run import Run, plain_env

KIB, MIB = 1 << 10, 1 << 20
SCHEDULES_MIN = 200
VERSIONS_MIN = 100_000
TEST_SECS_MAX = 1500
# Tests of the engine's crate, and what they print of themselves with --nocapture.
TESTS = ("leases::", "mirror::tests::many_versions", "records::tests")
COUNTED = {
    "schedules": (re.compile(r"(\d+) schedules of uses"), SCHEDULES_MIN),
    "versions": (re.compile(r"(\d+) versions: \d+ records"), VERSIONS_MIN),
}
REAL_SCHEDULES = 5
EXPIRE_SECS = 6
# Released at most so late after the last use; programs and the request log take their own time.
LATE_SECS_MAX = 2.0
SLACK_SECS = 0.7
SIZE = 3 * MIB
SETTINGS = {"materializeBytes": 64 * KIB, "partBytes": 256 * KIB, "expireTimeSec": EXPIRE_SECS, "listAgainSec": 60, "lingerSec": 4}
SLEEPER_EXPIRE_SECS = 2
VERSIONS_REAL = 150
WAYS = ("read", "map", "stdio", "sendfile")


def tests() -> tuple[list[str], list[str]]:
    """Counts of the crates' tests, and what is wrong with them."""
    argv = ["cargo", "test", "--locked", "--profile", "fast", "-p", "ossc", "--lib", "--no-fail-fast", "--", "--nocapture", *TESTS]
    env = {**plain_env(), "CARGO_TARGET_DIR": str(paths.TARGET), "OSSC_VERSIONS": str(VERSIONS_MIN)}
    done = subprocess.run(argv, cwd=paths.ROOT, env=env, capture_output=True, text=True, errors="replace", check=False, timeout=TEST_SECS_MAX)
    text = done.stdout + done.stderr
    said, problems = [], []
    if done.returncode != 0:
        problems.append(f"cargo test: {[line for line in text.splitlines() if 'FAILED' in line or line.startswith('error')][:3]}")
    for what, (pattern, least) in COUNTED.items():
        count = sum(int(number) for number in pattern.findall(text))
        said.append(f"{count} {what} by tests")
        if count < least:
            problems.append(f"{count} {what} by tests, not {least}")
    return said, problems


class Folder:
    """A served folder of self-describing objects, an engine that a sleeping program keeps, and reads of it."""

    def __init__(self, stack: ExitStack, scratch: Path, sizes: dict[str, int], config: dict[str, object]) -> None:
        self.base = scratch / "root" / paths.BUCKET / "u"
        self.sizes = sizes
        for number, (name, size) in enumerate(sizes.items(), 1):
            blocks.put(scratch / "root", self.base / name, blocks.content(number, 1, size))
        self.endpoint = stack.enter_context(Endpoint(scratch / "root", scratch / "endpoint"))
        self.run = stack.enter_context(Run(self.endpoint, "u", config={**SETTINGS, **config}))
        sleeper = self.run.start(["sleep", "600"])
        stack.callback(sleeper.wait)
        stack.callback(sleeper.kill)

    def read(self, name: str, way: str = "read", version: int = 1) -> str:
        """A short use; empty, or what was wrong with it."""
        done = self.run.call([str(compiler.program("version_reader.c")), way, str(self.run.model_dir / name)])
        lines = [line.split() for line in done.stdout.decode().splitlines() if line.startswith(("got", "err", "mix"))]
        if lines and lines[0][0] == "got" and lines[0][6:8] == [str(version), str(self.sizes[name])]:
            return ""
        return f"{way} {name}: {' '.join(lines[0][2:]) if lines else done.stderr.decode()[-200:]}"

    def held(self) -> int:
        """Bytes of memory beside the engine's region."""
        engines = self.run.engines()
        _, held = resident(engines)
        return held - sum(link.stat().st_blocks * 512 for pid in engines for link in Path(f"/proc/{pid}/fd").iterdir() if os.readlink(link) == "/region")

    def served(self, name: str = "") -> int:
        time.sleep(0.05)
        return bytes_served(self.endpoint.requests(), f"u/{name}")


def real_schedule(seed: int) -> list[str]:
    """Uses at random moments: before expireTimeSec has passed nothing is fetched again, after it the memory is free."""
    r = random.Random(seed)
    problems: list[str] = []
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        # No model's names, so that only uses bring the bytes.
        folder = Folder(stack, scratch, {"a.dat": SIZE, "config.json": 500}, {})
        problems += [text for text in [folder.read("a.dat", r.choice(WAYS))] if text]
        for _ in range(4):
            last = time.monotonic()
            gap = r.choice((r.uniform(0.3, EXPIRE_SECS - SLACK_SECS), EXPIRE_SECS - SLACK_SECS, EXPIRE_SECS + LATE_SECS_MAX + SLACK_SECS))
            before = folder.served()
            time.sleep(gap)
            if gap > EXPIRE_SECS:
                held = folder.held()
                if held >= SIZE:
                    problems.append(f"seed {seed}: {held >> 10} KiB in memory {time.monotonic() - last:.1f} s after the last use")
            problems += [text for text in [folder.read("a.dat", r.choice(WAYS))] if text]
            fetched = folder.served() - before
            expected = 0 if gap < EXPIRE_SECS else SIZE
            if fetched != expected:
                problems.append(f"seed {seed}: {fetched} bytes fetched for a use {gap:.1f} s after the last one, should be {expected}")
    return problems


def sleeper(expire: int = SLEEPER_EXPIRE_SECS) -> tuple[str, list[str]]:
    """A program that sleeps 3 x expireTimeSec before its first read: what was prefetched is there."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        sizes = {"config.json": 500, "model-00001-of-00002.safetensors": SIZE, "model-00002-of-00002.safetensors": SIZE}
        folder = Folder(stack, scratch, sizes, {"expireTimeSec": expire})
        files = " ".join(str(folder.run.model_dir / name) for name in sizes)
        script = f"cat {folder.run.model_dir}/config.json > /dev/null; sleep {3 * expire}; exec \"$0\" read {files}"
        done = folder.run.call(["sh", "-c", script, str(compiler.program("version_reader.c"))])
        lines = [line.split() for line in done.stdout.decode().splitlines() if line.startswith(("got", "err", "mix"))]
        good = [line[0] for line in lines] == ["got"] * len(sizes)
        times = folder.served() / sum(sizes.values())
        problems = [] if good else [f"a program that sleeps first: {done.stdout!r} {done.stderr[-200:]!r}"]
        if times > 1.0:
            problems.append(f"a program that sleeps {3 * expire} s first costs {times:.3f} times the bytes")
        return f"a sleep of {3 * expire} s first costs {times:.3f} times the bytes", problems


def versions(count: int) -> tuple[str, list[str]]:
    """One object is overwritten again and again: descriptors and memory stay as they are."""
    problems: list[str] = []
    figures: list[tuple[int, int]] = []
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        size = 300 * KIB
        folder = Folder(stack, scratch, {"a.dat": size, "config.json": 500}, {"listAgainSec": 1, "expireTimeSec": 1})
        for version in range(1, count + 1):
            blocks.put(folder.endpoint.root, folder.base / "a.dat", blocks.content(1, version, size))
            time.sleep(0.15)
            # Any version will do: it is their number that counts.
            done = folder.run.call([str(compiler.program("version_reader.c")), "read", str(folder.run.model_dir / "a.dat")])
            if b"mix " in done.stdout or b"ENOMEM" in done.stdout or b"ENOSPC" in done.stdout:
                problems.append(f"version {version}: {done.stdout!r}")
            if version % 10 == 0:
                figures.append(resident(folder.run.engines()))
        time.sleep(3)
        problems += [text for text in [folder.read("a.dat", version=count)] if text]
    first, last = figures[0], figures[-1]
    if last[0] > first[0] + 8 or last[1] > first[1] + 8 * size:
        problems.append(f"after {count} versions {last[0]} descriptors and {last[1] >> 10} KiB, after 10 {first[0]} and {first[1] >> 10} KiB")
    return f"{count} versions: {first[0]} to {last[0]} descriptors, {first[1] >> 10} to {last[1] >> 10} KiB", problems


def counted(short: bool = False) -> Measure:
    """`short` is the test run's form, without the crates' tests, which it runs by itself."""
    said, problems = ([], []) if short else tests()
    first = scale.seed
    schedules = 1 if short else REAL_SCHEDULES
    for seed in range(first, first + schedules):
        found = real_schedule(seed)
        problems += found
        print(f"  real time, seed {seed}: {found or 'right'}", flush=True)
    said.append(f"{schedules} schedules in real time")
    for text, found in (sleeper(), versions(40 if short else scale.runs or VERSIONS_REAL)):
        said.append(text)
        problems += found
    return from_problems("; ".join(said), problems)


def forgotten() -> Measure:
    """Memory is kept for ever: the release that never comes must be noticed."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        folder = Folder(stack, scratch, {"a.dat": SIZE, "config.json": 500}, {"expireTimeSec": -1})
        folder.read("a.dat")
        time.sleep(EXPIRE_SECS + LATE_SECS_MAX)
        held = folder.held()
    return Measure(f"{held >> 10} KiB in memory {EXPIRE_SECS + LATE_SECS_MAX:.0f} s after the last use", held < SIZE)
