"""Bar about a long time: two MODEL_DIRs are read, overwritten, killed, stopped and expired at once, with faults.

What happens is made of a seed: programs of all ways to read start and end, some of them in a PID namespace of their
own as a sidecar is; objects are overwritten; the engine of the first folder is killed, programs of both are; engines
and programs are stopped for a while. One answer in a hundred is wrong. Every 8 bytes of an object say which version
they are (harness/blocks.py). Descriptors and memory are looked at twice when all programs but one for each folder have
ended and every object has expired: after the first minutes, and at the end.
"""

from __future__ import annotations

import collections
import random
import signal
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.checks import one_model, seeded, versions
from tests.checks.seeded import Reader
from tests.checks.versions import OBJECTS, WAYS, Bucket
from tests.harness import compile as compiler
from tests.harness import faults, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems, scale
from tests.harness.run import Run, end, strike

KIB, MIB = 1 << 10, 1 << 20
SECS = 1800
# When the first figures are taken, as a share of the whole: minute 3 of 30.
FIRST_SHARE = 0.1
GROWTH_MAX = 0.05
FAULTS_SHARE = 0.01
RATE = 24 * MIB
EXPIRE_SECS = 3
LINGER_SECS = 1
TOGETHER = 3
PROCESS_SECS_MAX = 60.0
STOP_SECS_MAX = 1.5
# What no program uses has expired by then, retries are over, and connections without a request are closed.
SETTLE_SECS = 75.0
# Mean seconds between two events of a kind, for each folder.
EVERY = {"start": 0.35, "change": 2.5, "kill engine": 9.0, "kill program": 5.0, "stop engine": 8.0, "stop program": 5.0}
SIDECARS = 0.15
SETTINGS = {**versions.SETTINGS, "expireTimeSec": EXPIRE_SECS, "lingerSec": LINGER_SECS}
# The fifth byte of a word belongs to the version.
FLIP_AT = 20_004
# It lies elsewhere in an answer that goes on with a part.
FLIPPED = {0xFF << 8 * byte for byte in range(8)}
# One in a hundred of all requests is answered in one of these ways.
FAULTS: list[faults.Rule] = [
    {"status": 500, "code": "InternalError"}, {"status": 503, "code": "SlowDown"}, {"status": 404, "code": "NoSuchKey"}, {"status": 412, "code": "PreconditionFailed"},
    {"cut_after": 40_000}, {"stall_after": 20_000, "ms": 3000}, {"delay_ms": 1500}, {"close": True}, {"garbage": True}, {"flip_byte": FLIP_AT}, {"total": 12345},
]
# As bytes 2 does: the endpoint gives other bytes under the same ETag, and no CRC that would tell.
PLANTED = [faults.rule({"flip_byte": FLIP_AT}, "*"), faults.rule({"drop_crc": True}, "*")]
KEEPER = "import sys, time; print(len(open(sys.argv[1], 'rb').read()), flush=True); time.sleep(1e6)"


def rules() -> list[faults.Rule]:
    """A share of the requests for each fault, by numbers of its own."""
    each = FAULTS_SHARE / len(FAULTS)
    return [{"match": {"kind": "get", "share": each, "seed": number + 1}, "do": effect} for number, effect in enumerate(FAULTS)] + [
        {"match": {"kind": "list", "share": FAULTS_SHARE, "seed": 99}, "do": {"status": 500, "code": "InternalError"}}
    ]


def is_refused_flip(line: list[str]) -> bool:
    """A byte that the endpoint flipped was given before the object was judged, and the pass ended with an error: no program
    is given all of such an object."""
    return line[0] == "mix" and int(line[6], 16) ^ int(line[7], 16) in FLIPPED and not line[8].isdigit() and line[8] != "SIGBUS"


@dataclass
class Tally:
    """What came of all programs."""

    wrong: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    whole: int = 0
    refused: int = 0
    programs: int = 0
    events: collections.Counter[str] = field(default_factory=collections.Counter)


@dataclass
class Figures:
    """Of all engines of a folder, and of what is between them and their hosts."""

    descriptors: int
    # Of memory files and the region, and what no other process has.
    cached: int
    private: int

    @property
    def memory(self) -> int:
        return self.cached + self.private

    def __str__(self) -> str:
        return f"{self.descriptors} descriptors, {self.cached / MIB:.1f} MiB of the cache, {self.private / MIB:.1f} MiB of its own"

    @staticmethod
    def of(run: Run) -> Figures:
        pids = run.engines()
        descriptors, cached = one_model.resident(pids)
        private = 0
        for pid in pids:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            private += sum(int(line.split()[1]) << 10 for line in rollup if line.startswith(("Private_Clean", "Private_Dirty", "Swap:")))
        return Figures(descriptors, cached, private)


class Folder:
    """A MODEL_DIR, its objects and its programs."""

    def __init__(self, endpoint: Endpoint, root: Path, name: str, seed: int, kills_engine: bool, products: Path) -> None:
        self.name, self.kills_engine = name, kills_engine
        self.random = random.Random(seed)
        self.bucket = Bucket(root, name, seed)
        self.run = Run(endpoint, name, config=SETTINGS, products=products)
        self.sockets = self.run.dir / "run"
        self.sockets.mkdir()
        self.readers: list[Reader] = []
        self.tally = Tally()
        self.count = 0
        self.stopped: list[tuple[float, int]] = []
        self.next = {what: time.monotonic() + self.random.expovariate(1 / secs) for what, secs in EVERY.items()}
        self.keeper = self.keep()

    def env(self, role: int, pages: str | None = None) -> dict[str, str]:
        return self.run.env(role, OSSC_PAGES=pages, CONNECTOR_UDS_PATH=str(self.sockets / "s"))

    def keep(self) -> Reader:
        """A program that stays, so that there is an engine all the time."""
        self.count += 1
        return Reader(self.run, f"keeper{self.count}", [str(paths.VENV_PYTHON), "-c", KEEPER, str(self.run.model_dir / "small.json")], self.env(1))

    def start(self) -> None:
        if len(self.readers) >= TOGETHER:
            return
        self.count += 1
        r = self.random
        way, piece = r.choice(WAYS), r.choice((64, 100, 128, 256)) * KIB
        pause_us = int(r.choice((0, 0, 0.2, 0.6)) * 1e6 * piece / OBJECTS["a.bin"][1])
        names = r.sample(list(OBJECTS), r.choice((1, 2, len(OBJECTS))))
        argv = [str(compiler.program("version_reader.c")), "-b", str(piece), "-p", str(pause_us), "-r", str(r.choice((1, 2))), way, *[str(self.run.model_dir / file) for file in names]]
        env = self.env(r.choice((1, 1, 2)), r.choice(("memfd", None)))
        if r.random() < SIDECARS:
            self.tally.events["sidecar"] += 1
            argv = ["unshare", "-p", "-f", "--mount-proc", "env", f"LD_PRELOAD={env.pop('LD_PRELOAD')}", *argv]
        self.tally.programs += 1
        self.tally.events[way] += 1
        self.readers.append(Reader(self.run, f"{way}{self.count}", argv, env))

    def stop(self, pids: list[int]) -> None:
        for pid in strike(pids, signal.SIGSTOP):
            self.stopped.append((time.monotonic() + self.random.uniform(0.1, STOP_SECS_MAX), pid))

    def happen(self, what: str) -> None:
        self.tally.events[what] += 1
        r = self.random
        if what == "start":
            self.start()
        elif what == "change":
            self.bucket.change(r.choice(tuple(OBJECTS)), r.choice(versions.CHANGES))
        elif what == "kill engine" and self.kills_engine:
            strike(self.run.engines())
        elif what == "stop engine":
            self.stop(self.run.engines())
        elif what == "kill program" and self.readers:
            r.choice(self.readers).kill()
        elif what == "stop program" and self.readers:
            self.stop([r.choice(self.readers).process.pid])

    def step(self) -> None:
        """What is due, and programs that have ended."""
        now = time.monotonic()
        for what, at in self.next.items():
            if at <= now:
                self.happen(what)
                self.next[what] = now + self.random.expovariate(1 / EVERY[what])
        self.go_on(now)
        for reader in [reader for reader in self.readers if reader.process.poll() is not None]:
            self.ended(reader)
        for reader in [reader for reader in self.readers if now - reader.begun > PROCESS_SECS_MAX]:
            self.tally.hangs += [f"{self.name}: {text}\n{self.run.log_tail()}" for text in reader.wait(0)]
            self.ended(reader)

    def go_on(self, now: float) -> None:
        for until, pid in self.stopped:
            if until <= now:
                strike([pid], signal.SIGCONT)
        self.stopped = [(until, pid) for until, pid in self.stopped if until > now]

    def is_wrong(self, text: str) -> None:
        self.tally.wrong.append(f"{self.name}, {text}")
        print(f"  {self.tally.wrong[-1]}", flush=True)

    def ended(self, reader: Reader) -> None:
        self.readers.remove(reader)
        # What it has started in a namespace of its own.
        end(reader.process)
        for line in reader.passes():
            if is_refused_flip(line):
                self.tally.events["flip refused"] += 1
                continue
            wrong = self.bucket.wrong(line, self.run.model_dir)
            if wrong:
                self.is_wrong(f"{reader.name} round {line[3]}: {wrong}")
            self.tally.whole += line[0] == "got"
            self.tally.refused += line[0] == "err"
        status = reader.process.returncode
        said = reader.err.read_text(errors="replace").strip()
        if not reader.killed and status != 0 and (status < 0 or not said):
            self.is_wrong(f"{reader.name}: status {status} {said[-200:]!r}")
        for path in (reader.out, reader.err):
            path.unlink()

    def settle(self) -> None:
        """Nothing new starts, and all programs but the one that stays end. The engine may have been killed last of all: the
        next program has another one, which takes away what that has left."""
        self.go_on(float("inf"))
        while self.readers:
            self.tally.hangs += [f"{self.name}: {text}\n{self.run.log_tail()}" for text in self.readers[0].wait(PROCESS_SECS_MAX)]
            self.ended(self.readers[0])
        self.run.call(["cat", str(self.run.model_dir / "small.json")], self.env(1))

    def figures(self) -> Figures:
        if self.keeper.process.poll() is not None:
            self.tally.wrong.append(f"{self.name}: the program that stays ended with {self.keeper.process.returncode}: {self.keeper.err.read_text()[-300:]}")
            self.keeper = self.keep()
        return Figures.of(self.run)

    def finish(self) -> list[str]:
        """What is left when all programs have gone."""
        self.keeper.kill()
        self.keeper.process.wait()
        if self.run.wait_engines_gone(LINGER_SECS + 10) is None:
            return [f"{self.name}: an engine is left: {self.run.engines()}"]
        left = sorted(path.name for path in self.sockets.iterdir())
        left += sorted(str(path.relative_to(self.run.model_dir)) for path in self.run.model_dir.rglob(".*"))
        return [f"{self.name}: left behind: {left}"] if left else []

    def clean(self) -> None:
        self.go_on(float("inf"))
        seeded.clean(self.run, [*self.readers, self.keeper], self.bucket.base)


def grown(name: str, first: Figures, last: Figures) -> list[str]:
    pairs = (("descriptors", first.descriptors, last.descriptors), ("bytes of memory", first.memory, last.memory))
    return [f"{name}: {was} {what} at first, {now} at the end" for what, was, now in pairs if now > was * (1 + GROWTH_MAX)]


def figures(folders: list[Folder], secs: float) -> list[Figures]:
    """Of each folder, when nothing has happened for so long."""
    for folder in folders:
        folder.settle()
    time.sleep(secs)
    return [folder.figures() for folder in folders]


def play(folders: list[Folder], until: float, said_every: float) -> None:
    say = time.monotonic() + said_every
    while (now := time.monotonic()) < until:
        for folder in folders:
            folder.step()
        if now >= say:
            say += said_every
            print("  " + "; ".join(f"{f.name}: {f.tally.programs} programs, {f.tally.whole} files whole, {f.tally.refused} errors, {len(f.tally.wrong)} wrong, {len(f.tally.hangs)} hangs" for f in folders), flush=True)
        time.sleep(0.02)


def soak(secs: float, fault_rules: list[faults.Rule], products: Path = paths.PRODUCTS, seed: int = 1) -> Measure:
    """Two folders for so long; the figures of the first share of it and of its end are compared."""
    compiler.program("version_reader.c")
    problems: list[str] = []
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        root = scratch / "root"
        (root / paths.BUCKET).mkdir(parents=True)
        endpoint = stack.enter_context(Endpoint(root, scratch, fault_rules, ["--rate-bytes-per-sec", str(RATE)]))
        folders = [Folder(endpoint, root, f"m{number}", seed + number, number == 0, products) for number in range(2)]
        for folder in folders:
            stack.callback(folder.clean)
        begin = time.monotonic()
        play(folders, begin + secs * FIRST_SHARE, 60)
        quiet = min(SETTLE_SECS, EXPIRE_SECS + secs / 20)
        first = figures(folders, quiet)
        play(folders, begin + secs, 60)
        last = figures(folders, quiet)
        logs = [folder.run.log_tail(12) for folder in folders]
        for folder, was, now in zip(folders, first, last, strict=True):
            problems += folder.tally.wrong + folder.tally.hangs + grown(folder.name, was, now) + folder.finish()
    tallies = [folder.tally for folder in folders]
    events = sum((t.events for t in tallies), collections.Counter[str]())
    whole, refused, programs = (sum(getattr(t, name) for t in tallies) for name in ("whole", "refused", "programs"))
    changes = "; ".join(f"{f.name} {a}, at the end {b}" for f, a, b in zip(folders, first, last, strict=True))
    value = f"{secs:.0f} s: {programs} programs, {whole} files whole, {refused} errors, {sum(len(t.wrong) for t in tallies)} wrong, {sum(len(t.hangs) for t in tallies)} hangs; {changes}"
    if whole < secs / 4:
        problems.append("too few files were read for that to prove something")
    measure = from_problems(value, problems, "; ".join(f"{name}: {count}" for name, count in events.most_common()))
    if problems:
        measure.notes += logs
    return measure


def long_time() -> Measure:
    return soak(scale.secs or SECS, rules(), seed=scale.seed)


def control() -> Measure:
    """Bytes change under one ETag, without a CRC that tells: a program has to see it."""
    return soak(scale.secs or 60, PLANTED, seed=scale.seed)
