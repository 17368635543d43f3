"""Bar about versions: objects are overwritten while engine, primary or a reader is killed, and no file is a mix of two.

A run is made of its seed alone: what is overwritten and how, who is killed, who reads how, and when. Every 8
bytes of an object say which version they are (harness/blocks.py), so that a reader sees a mix where it begins.
Some runs at a time, each with an endpoint and a tree of its own that the next run uses again.
"""

from __future__ import annotations

import collections
import os
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.checks import seeded
from tests.checks.seeded import Reader
from tests.harness import blocks, faults, paths
from tests.harness import compile as compiler
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, scale
from tests.harness.run import Run, strike

KIB, MIB = 1 << 10, 1 << 20
RUNS = 2000
CONTROL_RUNS = 50
TOGETHER = 3
# The first version of all objects takes 0.4 s, so that most kills fall into a load.
RATE = 16 * MIB
# Number of each object, and its size in the first version; the last one becomes a real file.
OBJECTS = {"a.bin": (1, 3 * MIB + 24), "b.bin": (2, 2 * MIB + 4099), "deep/c.bin": (3, MIB), "small.json": (4, 30_003)}
WAYS = ("read", "pread", "map", "hold", "window", "stdio", "sendfile", "copy")
CHANGES = ("same size", "other size", "deleted", "made again")
SETTINGS = {"materializeBytes": 256 * KIB, "partBytes": 128 * KIB, "listAgainSec": 1, "expireTimeSec": 120, "lingerSec": 1, "reviveSec": 2}
# Beyond every wait that is allowed: a renewal, the quiet time behind a change, a take-over.
PROCESS_SECS_MAX = 40.0
SERVED_AGAIN_SECS_MAX = 25.0
NEVER = faults.rule({"delay_ms": 0}, "none")
# The fifth byte of a word belongs to the version: as if the object had other bytes under the same ETag.
PLANTED = [faults.rule({"flip_byte": 20_004}, "*"), faults.rule({"drop_crc": True}, "*")]


@dataclass
class Plan:
    """Everything that a seed decides."""

    seed: int
    pages: str | None
    io: str
    victim: str
    kill_at: float
    # When, which object, and what becomes of it.
    changes: list[tuple[float, str, str]]
    # When each program starts, its way, the pause after a piece in microseconds, bytes of a piece, and its role.
    programs: list[tuple[float, str, int, int, int]]
    look_after: bool

    @staticmethod
    def of(seed: int) -> Plan:
        r = random.Random(seed)
        kill_at = r.uniform(0.08, 0.7)
        changes = []
        for _ in range(r.choice((1, 1, 2, 3))):
            # Half of the changes are close to the kill, and before it: the next engine finds them.
            at = max(0.02, kill_at - r.uniform(0, 0.12)) if r.random() < 0.5 else r.uniform(0.02, 0.8)
            changes.append((at, r.choice(("a.bin", "a.bin", *OBJECTS)), r.choice(CHANGES)))
        programs = []
        for n in range(4):
            # The primary, two readers, and one that opens in between or after all of it.
            at = (0.0, r.uniform(0, 0.1), r.uniform(0, 0.4), r.uniform(0.1, 0.9))[n]
            role = 1 if n in (0, 3) else r.choice((1, 1, 2))
            piece = r.choice((64, 100, 128, 256)) * KIB
            # One pass over the largest file lasts so long, beside what it waits for.
            pause_us = int(r.choice((0, 0.1, 0.3, 0.6)) * 1e6 * piece / OBJECTS["a.bin"][1])
            programs.append((at, r.choice(WAYS), pause_us, piece, role))
        return Plan(
            seed, r.choice(("memfd", None)), r.choice(("uring", "epoll")), r.choices(("engine", "primary", "reader"), (70, 15, 15))[0],
            kill_at, sorted(changes), programs, r.random() < 0.15,
        )

    def __str__(self) -> str:
        changed = ", ".join(f"{name} {how} at {at:.2f} s" for at, name, how in self.changes)
        return f"{self.pages or 'tmpfs'}, {self.io}, {self.victim} killed at {self.kill_at:.2f} s; {changed}; {'/'.join(p[1] for p in self.programs)}"


@dataclass
class Found:
    """What came of a run."""

    plan: Plan
    wrong: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    whole: int = 0
    refused: int = 0
    later: int = 0
    secs: float = 0.0
    log: str = ""

    def problems(self) -> list[str]:
        return self.wrong + self.waits


class Bucket:
    """The objects of one run on the endpoint's side, and every version that there ever was."""

    def __init__(self, root: Path, prefix: str, seed: int) -> None:
        self.root, self.base = root, root / paths.BUCKET / prefix
        self.random = random.Random(seed + 1)
        self.sizes: dict[str, dict[int, int]] = {name: {} for name in OBJECTS}
        self.gone: set[str] = set()
        for name in OBJECTS:
            self.put(name)

    def put(self, name: str, size: int | None = None) -> None:
        number, first = OBJECTS[name]
        version = len(self.sizes[name]) + 1
        # Known before it can be read.
        self.sizes[name][version] = size or first
        blocks.put(self.root, self.base / name, blocks.content(number, version, size or first))

    def change(self, name: str, how: str) -> None:
        latest = self.sizes[name][len(self.sizes[name])]
        if how in ("deleted", "made again"):
            (self.base / name).unlink(missing_ok=True)
        if how == "deleted":
            self.gone.add(name)
            return
        self.put(name, latest + self.random.choice((-8 * KIB - 5, 64 * KIB + 3)) if how == "other size" else latest)
        self.gone.discard(name)

    def latest(self, name: str) -> int:
        return len(self.sizes[name])

    def wrong(self, line: list[str], base: Path) -> str:
        """What is wrong with a line that the reader has said of a file; empty when nothing is."""
        name = os.path.relpath(line[4], base)
        said = " ".join([line[2], name, *line[5:]])
        if line[0] == "mix":
            return f"mix: {said}"
        number, version, count = int(line[5]), int(line[6]), int(line[7])
        if line[0] == "err":
            # What it had been given before the error was looked at word by word.
            right = count == 0 or (number == OBJECTS[name][0] and version in self.sizes[name])
            return "" if right and line[8] != "SIGBUS" else f"error: {said}"
        size = self.sizes[name].get(version) if number == OBJECTS[name][0] else None
        if size is None or count != size or int(line[8]) != size:
            return f"not one version whole: {said}, versions {self.sizes[name]}"
        return ""


class Slot:
    """An endpoint and its tree, which serve one run after the other."""

    def __init__(self, scratch: Path, rules: list[faults.Rule]) -> None:
        self.root = scratch / "root"
        (self.root / paths.BUCKET).mkdir(parents=True)
        self.endpoint = Endpoint(self.root, scratch, rules or [NEVER], ["--rate-bytes-per-sec", str(RATE)])


class Act:
    """One run, from the first start to the last byte."""

    def __init__(self, slot: Slot, plan: Plan, products: Path) -> None:
        self.plan, self.found = plan, Found(plan)
        self.prefix = f"v{plan.seed}"
        self.root = slot.root
        self.bucket = Bucket(slot.root, self.prefix, plan.seed)
        self.run = Run(slot.endpoint, self.prefix, config=SETTINGS, io=plan.io, products=products)
        self.readers: list[Reader] = []

    def start(self, name: str, way: str, pause_us: int, piece: int, role: int) -> Reader:
        files = [str(self.run.model_dir / file) for file in OBJECTS]
        argv = [str(compiler.program("version_reader.c")), "-b", str(piece), "-p", str(pause_us), "-r", "2", way, *files]
        env = self.run.env(role, OSSC_PAGES=self.plan.pages, CONNECTOR_UDS_PATH=str(self.run.dir / "s"))
        reader = Reader(self.run, name, argv, env)
        self.readers.append(reader)
        return reader

    def kill(self) -> None:
        if self.plan.victim == "engine":
            strike(self.run.engines())
            return
        victims = self.readers[:1] if self.plan.victim == "primary" else self.readers[1:2]
        for reader in victims:
            reader.kill()

    def steps(self) -> list[tuple[float, Callable[[], object]]]:
        plan = self.plan
        steps: list[tuple[float, Callable[[], object]]] = [(plan.kill_at, self.kill)]
        steps += [(at, partial(self.bucket.change, name, how)) for at, name, how in plan.changes]
        names = ("primary", "reader1", "reader2", "late")
        steps += [(at, partial(self.start, name, way, pause, piece, role)) for name, (at, way, pause, piece, role) in zip(names, plan.programs)]
        return sorted(steps, key=lambda step: step[0])

    def act(self) -> Found:
        begin = time.monotonic()
        try:
            for at, step in self.steps():
                time.sleep(max(0.0, begin + at - time.monotonic()))
                step()
            for reader in self.readers:
                self.found.waits += reader.wait(PROCESS_SECS_MAX)
            if self.plan.look_after and not self.found.problems():
                self.look_after()
            for reader in self.readers:
                self.judge(reader)
            self.found.log = self.run.log_tail(14)
        finally:
            seeded.clean(self.run, self.readers, self.bucket.base)
        self.found.secs = time.monotonic() - begin
        return self.found

    def look_after(self) -> None:
        """When all is over, a new program gets the last version of everything."""
        end = time.monotonic() + SERVED_AGAIN_SECS_MAX
        while True:
            reader = self.start(f"after{len(self.readers)}", "read", 0, MIB, 1)
            self.found.waits += reader.wait(PROCESS_SECS_MAX)
            versions = {os.path.relpath(line[4], self.run.model_dir): line for line in reader.passes()}
            missing = [
                " ".join(versions.get(name, ["nothing", "of", name])[2:]) for name in OBJECTS
                if name not in self.bucket.gone and versions.get(name, [""] * 9)[6:7] != [str(self.bucket.latest(name))]
            ]
            if not missing or self.found.waits:
                return
            if time.monotonic() > end:
                self.found.waits.append(f"the last versions were not served {SERVED_AGAIN_SECS_MAX:.0f} s later: {missing[0]}")
                return
            time.sleep(0.5)

    def judge(self, reader: Reader) -> None:
        for line in reader.passes():
            wrong = self.bucket.wrong(line, self.run.model_dir)
            if wrong:
                self.found.wrong.append(f"{reader.name} round {line[3]}: {wrong}")
            elif line[0] == "got":
                self.found.whole += 1
                self.found.later += int(line[6]) > 1
            else:
                self.found.refused += 1
        status = reader.process.returncode
        if not reader.killed and status != 0:
            said = reader.err.read_text(errors="replace").strip()
            if status < 0 or not said:
                self.found.wrong.append(f"{reader.name}: status {status} {said[-200:]!r}")
            else:
                self.found.refused += 1


def many(seeds: list[int], products: Path, rules: list[faults.Rule], enough: int | None = None) -> list[Found]:
    """Runs all seeds, or until so many had a problem."""
    compiler.program("version_reader.c")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        slots = [Slot(scratch / f"slot{n}", rules) for n in range(min(TOGETHER, len(seeds)))]
        for slot in slots:
            stack.enter_context(slot.endpoint)

        def is_enough(results: list[Found]) -> bool:
            return enough is not None and sum("mix" in text for f in results for text in f.wrong) >= enough

        return seeded.run_all(seeds, slots, lambda slot, seed: Act(slot, Plan.of(seed), products).act(), enough=is_enough)


def whole_versions(runs: int | None = None, first: int | None = None) -> Measure:
    count = runs or scale.runs or RUNS
    first = scale.seed if first is None else first
    results = many(list(range(first, first + count)), paths.PRODUCTS, [])
    bad = sorted((f for f in results if f.problems()), key=lambda f: f.plan.seed)
    notes = [f"seed {f.plan.seed}: {f.problems()[0]}; {f.plan}; again: ci/bar bytes 2 --runs 1 --seed {f.plan.seed}" for f in bad]
    kinds = collections.Counter((f.plan.pages or "tmpfs", f.plan.victim) for f in results)
    notes.append("; ".join(f"{pages}, {victim} killed: {n}" for (pages, victim), n in sorted(kinds.items())))
    notes.append("; ".join(f"{how}: {n}" for how, n in collections.Counter(c[2] for f in results for c in f.plan.changes).most_common()))
    whole, refused, later = (sum(getattr(f, name) for f in results) for name in ("whole", "refused", "later"))
    times = sorted(f.secs for f in results)
    wrong, waits = (sum(bool(getattr(f, name)) for f in results) for name in ("wrong", "waits"))
    value = f"{count} runs: {wrong} with a wrong byte, {waits} with a wait; {whole} files read whole, {later} of them a later version, {refused} errors"
    good = not bad
    if count >= 200 and not (later > count / 10 and refused > count / 100):
        notes.append("too few readers met a later version or an error: the runs prove little")
        good = False
    return Measure(value, good, f"a run took {times[len(times) // 2]:.1f} s in the median, {times[-1]:.1f} s at most", notes)


def control() -> Measure:
    """Another build that takes inodes over, or else bytes that change under one ETag: seen within 50 seeds."""
    against = scale.against
    first = scale.seed
    seeds = list(range(first, first + (scale.runs or CONTROL_RUNS)))
    results = many(seeds, against or paths.PRODUCTS, [] if against else PLANTED, enough=1)
    wrong = [f for f in results if any("mix" in text for text in f.wrong)]
    notes = [f"seed {f.plan.seed}: {next(text for text in f.wrong if 'mix' in text)}" for f in wrong[:5]]
    what = f"the build in {against}" if against else "bytes that change under one ETag"
    return Measure(f"{what}: {len(wrong)} of {len(results)} runs with a mix", not wrong, notes=notes)
