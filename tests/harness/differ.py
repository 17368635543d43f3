"""Random operation sequences on a plain folder and on a managed one: every result must be the same.

The program is tests/differ/differ.c. Used by its bar and by the end-to-end tests; by hand it
replays one seed: `python3 -m tests.harness.differ SEED`. Starts nothing but the program and
the engines of its own folders.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness import compile as compiler
from tests.harness import paths
from tests.harness.endpoint import Endpoint
from tests.harness.requestlog import body_gets
from tests.harness.run import Run, plain_env

SOURCES = paths.ROOT / "tests" / "differ"
PREFIX = "team/differ"
MTIME_SECS = 1_700_000_000
# Most files are placeholders.
SETTINGS = {"materializeBytes": 256 * 1024}
# A cold folder is still loading for a second and more while the operations run.
COLD_RATE = 60_000_000
PROGRAM_SECS_MAX = 120.0
VARIANTS = ("", "64")


def program(variant: str) -> Path:
    """The compiled program; "64" has the 64-bit and the fortified names of the calls."""
    target = compiler.OUT / f"differ{variant}"
    if target.exists() and target.stat().st_mtime < max(p.stat().st_mtime for p in SOURCES.iterdir()):
        target.unlink()
    return compiler.program(str(SOURCES / "differ.c"), variant)


def shows_pages_beyond_the_end() -> bool:
    """True if maps of this kernel's own huge tmpfs show pages beyond the end of the file: nothing to compare with."""
    script = 'mkdir "$1" && mount -t tmpfs -o huge=always none "$1" && "$0" "$1/file"'
    program = compiler.program(str(SOURCES / "beyond.c"))
    with tempfile.TemporaryDirectory(prefix="ossc-differ-") as scratch:
        done = subprocess.run(["unshare", "-m", "sh", "-c", script, str(program), f"{scratch}/m"], capture_output=True, check=False)
    return done.returncode == 1 and not done.stderr


def bypass(symbol: str, scratch: Path) -> Path:
    """A library that leads one symbol past the hooks, to be preloaded before them."""
    target = scratch / f"bypass-{symbol}.so"
    if not target.exists():
        argv = ["gcc", "-O1", "-shared", "-fPIC", f"-DSYMBOL={symbol}", "-o", str(target), str(SOURCES / "bypass.c")]
        subprocess.run(argv, check=True)
    return target


def make_folder(folder: Path) -> None:
    seeded = random.Random(20_261_122)
    table = subprocess.run([str(program("")), "--files"], capture_output=True, text=True, check=True).stdout
    for line in table.splitlines():
        name, size = line.split()
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(seeded.randbytes(int(size)))
        path.chmod(0o644)
        os.utime(path, (MTIME_SECS, MTIME_SECS))


def weights() -> tuple[dict[str, float], dict[str, float]]:
    """Share of each operation and of each class of operations in the mix."""
    table = subprocess.run([str(program("")), "--weights"], capture_output=True, text=True, check=True).stdout
    names: dict[str, float] = {}
    classes: dict[str, float] = {}
    for line in table.splitlines():
        name, rest = line.split(" ", 1)
        kind, share = rest.rsplit(" ", 1)
        names[name] = float(share)
        classes[kind] = classes.get(kind, 0.0) + float(share)
    return names, classes


@dataclass(frozen=True)
class Batch:
    """`seeds` sequences of `ops` operations from seed `first` on, one after the other in one process."""

    first: int
    seeds: int
    ops: int
    variant: str = ""
    cold: bool = False
    only: str = ""

    def replay(self, seed: int) -> str:
        parts = ["target/venv/bin/python3 -m tests.harness.differ", str(seed), f"--ops {self.ops}"]
        parts += [f"--first {self.first}"] if self.first != seed else []
        parts += ["--names64"] if self.variant else []
        parts += ["--cold"] if self.cold else []
        parts += [f"--only {self.only}"] if self.only else []
        return " ".join(parts)


@dataclass
class Tally:
    """What came of some batches."""

    ops: int = 0
    seeds: int = 0
    ops_cold: int = 0
    ops_loading: int = 0
    secs_native: float = 0.0
    secs_managed: float = 0.0
    problems: list[str] = field(default_factory=list)


class Rig:
    """The plain folder, an endpoint that serves it at full speed, a slow one, and a folder that stays warm."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-differ-")))
        self.plain = self.scratch / "root" / paths.BUCKET / PREFIX
        make_folder(self.plain)
        root = self.scratch / "root"
        self.fast = self._stack.enter_context(Endpoint(root, self.scratch / "fast"))
        options = ["--rate-bytes-per-sec", str(COLD_RATE)]
        self.slow = self._stack.enter_context(Endpoint(root, self.scratch / "slow", options=options))
        self.warm = Run(self.fast, PREFIX, config={**SETTINGS, "lingerSec": 6})
        self._stack.callback(self.warm.close)
        # An engine stays for a second after its last program: that is not waited for one by one.
        self._closer = self._stack.enter_context(ThreadPoolExecutor(4))
        self._closing: list[tuple[int, Run, Future[None]]] = []
        self.maps = {"DIFFER_MAPS": "within"} if shows_pages_beyond_the_end() else {}

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    def compare(self, batch: Batch, tally: Tally, preload_first: Path | None = None) -> None:
        """Runs a batch natively and managed and adds what was found; at most one problem for each batch."""
        native = self.one(batch, self.plain, plain_env(), "native")
        if not batch.cold:
            run = self.warm
        else:
            # On two of three cold folders the operations begin while most of it is still to come.
            endpoint = self.slow if batch.first % 3 else self.fast
            run = Run(endpoint, PREFIX, config=SETTINGS)
        env = run.env()
        if preload_first is not None:
            env["LD_PRELOAD"] = f"{preload_first}:{paths.PRELOAD}"
        begin = time.time()
        managed = self.one(batch, run.model_dir, env, "managed")
        log = run.log_tail(6)
        if batch.cold:
            self._closing.append((batch.first, run, self._closer.submit(run.close)))
        tally.ops += batch.seeds * batch.ops
        tally.seeds += batch.seeds
        tally.secs_native += native.secs
        tally.secs_managed += managed.secs
        if batch.cold:
            tally.ops_cold += batch.seeds * batch.ops
            served = [r.time for r in body_gets(endpoint.requests(), PREFIX) if r.time >= begin]
            tally.ops_loading += max((n for at, n in managed.times if at <= max(served, default=0.0)), default=0)
        problem = difference(batch, native, managed)
        if problem:
            tally.problems.append(f"{problem}\n{log}")

    def settle(self, tally: Tally) -> None:
        """Waits until the cold folders' engines are gone; one that is not is a problem."""
        for seed, run, closing in self._closing:
            closing.result()
            if run.leaks:
                tally.problems.append(f"seed {seed}: the engine outlived its clients")
        self._closing = []

    def one(self, batch: Batch, folder: Path, env: dict[str, str], kind: str) -> Result:
        place = Path(tempfile.mkdtemp(prefix="ops-", dir=self.scratch))
        trace = self.scratch / f"trace-{kind}"
        argv = [str(program(batch.variant)), str(folder), str(place), str(trace), str(batch.first), str(batch.seeds), str(batch.ops)]
        argv += [batch.only] if batch.only else []
        env.update(self.maps, LC_ALL="C.UTF-8")
        begin = time.monotonic()
        try:
            done = subprocess.run(
                argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROGRAM_SECS_MAX, check=False
            )
            end, err = f"status {done.returncode}", done.stderr
        except subprocess.TimeoutExpired as late:
            end, err = f"killed after {PROGRAM_SECS_MAX:.0f} s", late.stderr or b""
        secs = time.monotonic() - begin
        lines = trace.read_bytes().rstrip(b"\0").decode(errors="backslashreplace").split("\n") if trace.exists() else []
        times, said = [], []
        for line in err.decode(errors="replace").splitlines():
            at, _, count = line.partition(" ")
            try:
                times.append((float(at), int(count)))
            except ValueError:
                said.append(line)
        return Result(end, lines, secs, times, said)


@dataclass(frozen=True)
class Result:
    """One run of the program: how it ended, its trace, and (time, operations done) now and then."""

    end: str
    lines: list[str]
    secs: float
    times: list[tuple[float, int]]
    said: list[str]


def difference(batch: Batch, native: Result, managed: Result) -> str:
    """Empty, or the first difference, with both results and how to see it again."""
    total = batch.seeds * batch.ops
    if native.end != "status 0" or len(native.lines) != total + 1:
        return f"seed {batch.first}: the native run ended with {native.end} after {len(native.lines) - 1} operations: {native.said}"
    if managed.end == "status 0" and native.lines == managed.lines:
        return ""
    for mine, other in zip(native.lines, managed.lines):
        if mine != other:
            break
    else:
        mine, other = native.lines[len(managed.lines) - 1], managed.lines[-1] if managed.lines else ""
    seed = int(mine.split(" ", 1)[0] or batch.first)
    number = mine.split(" ")[1] if " " in mine else "?"
    return "\n".join([
        f"seed {seed}, operation {number} (managed run: {managed.end} {' '.join(managed.said)[:300]})",
        f"    native:  {mine[:1500]}",
        f"    managed: {other[:1500]}",
        f"    again:   {batch.replay(seed)}",
    ])


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.harness.differ", description="Replays one seed on a plain and a managed folder.")
    parser.add_argument("seed", type=int)
    parser.add_argument("--ops", type=int, default=2000)
    parser.add_argument("--first", type=int, help="begin with this seed, in the same process")
    parser.add_argument("--names64", action="store_true", help="the program with the 64-bit, fortified names")
    parser.add_argument("--cold", action="store_true", help="on a folder that nobody has read")
    parser.add_argument("--only", default="", help="this operation alone")
    parser.add_argument("--config", type=json.loads, default={}, metavar="JSON", help="further settings of the managed folder")
    parser.add_argument("--times", type=int, default=1)
    options = parser.parse_args()
    paths.require_products()
    SETTINGS.update(options.config)
    first = options.seed if options.first is None else options.first
    batch = Batch(first, options.seed - first + 1, options.ops, "64" if options.names64 else "", options.cold, options.only)
    tally = Tally()
    with Rig() as rig:
        for _ in range(options.times):
            rig.compare(batch, tally)
        rig.settle(tally)
    print("\n".join(tally.problems) or f"no difference in {tally.ops} operations ({tally.ops_loading} while loading)")
    return 1 if tally.problems else 0


if __name__ == "__main__":
    sys.exit(main())
