"""Bar about models: a folder of objects is replaced around the start of programs, and none of them reads a mixture.

A run is made of its seed alone: what the engine is doing, how and when the model is replaced, which programs start
when. Runs mostly sleep, so that many are under way at a time, all on one endpoint. Users' files lie in each folder
and must be what they were afterwards. `many_take_overs` is the part about memory and descriptors.
"""

from __future__ import annotations

import collections
import hashlib
import os
import random
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.checks import seeded
from tests.checks.seeded import Reader
from tests.harness import blocks, paths
from tests.harness import compile as compiler
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, scale
from tests.harness.run import Run, plain_env, strike

KIB, MIB = 1 << 10, 1 << 20
RUNS = 500
CONTROL_RUNS = 40
TOGETHER = 12
# Longer than the pauses between two objects of a replacement, also where times are whole seconds.
LIST_AGAIN_SECS = 3
REPLACE_SECS = 5.0
# Times of OSS are whole seconds.
QUIET_SECS_MAX = LIST_AGAIN_SECS - 1.0
TRIES = 4
# What programs read, in this order: number and size. The first two become real files.
MODEL = {"config.json": (1, 700), "index.json": (2, 5003), "shard-1.bin": (3, 900 * KIB), "shard-2.bin": (4, 700 * KIB + 1), "shard-3.bin": (5, 800 * KIB)}
# What users have done something to.
NOTES = {"notes/edited.json": (6, 400), "notes/moved.json": (7, 500), "notes/moved.bin": (8, 200 * KIB)}
SETTINGS = {"materializeBytes": 64 * KIB, "partBytes": 256 * KIB, "listAgainSec": LIST_AGAIN_SECS, "lingerSec": 4, "expireTimeSec": 120, "prefetch": {"vcpus": 1, "workers": 4}}
STATES = ("living", "idle", "killed", "none")
WAYS = ("read", "pread", "map", "hold", "stdio", "sendfile")
PROGRAM_SECS_MAX = 60.0
SPREAD = {"at once": 0.0, "one by one": REPLACE_SECS}
NEVER_AGAIN = 86_400

TAKE_OVERS = 100
# No model's names, so that only what is asked for is fetched; each take-over is by a read of one of the small ones.
TAKE_OVER_MODEL = {"config.json": (1, 700), "big.dat": (2, 16 * MIB)}
TAKE_OVER_POKE = 100 * KIB
# What the cache gives room by (cache/block.rs).
BLOCK_BYTES = 64 * KIB
STAYER = """
import sys
for line in sys.stdin:
    try: data = open(line.strip(), 'rb').read(); print('got', len(data), data[:8].hex(), flush=True)
    except OSError as e: print('err', e.strerror, flush=True)
"""
TAKE_OVER_SETTINGS = {**SETTINGS, "listAgainSec": 1, "memoryLimit": 72 * MIB, "expireTimeSec": 120, "reviveSec": 2, "lingerSec": 5}
MEMORY_FILE = re.compile(r"/(memfd:)?o\d+( \(deleted\))?$")


@dataclass
class Plan:
    """Everything that a seed decides. Times count from the moment that the engine's state is reached."""

    seed: int
    state: str
    how: str
    replaced_at: float
    killed_at: float
    # Start, way, pause between two files in milliseconds.
    programs: list[tuple[float, str, int]]
    at_socket: bool

    @staticmethod
    def of(seed: int) -> Plan:
        r = random.Random(seed)
        how = r.choice(tuple(SPREAD))
        replaced_at = r.uniform(0.0, 4.0)
        # Around the replacement: some before it, some in it, some after it.
        programs = [(max(0.0, replaced_at + r.uniform(-2.0, 2.0 + SPREAD[how])), r.choice(WAYS), r.choice((0, 100, 400, 900))) for _ in range(r.choice((1, 2, 3)))]
        return Plan(seed, r.choice(STATES), how, replaced_at, replaced_at + r.uniform(-1.0, 1.0 + SPREAD[how]), sorted(programs), r.random() < 0.04)

    def __str__(self) -> str:
        starts = ", ".join(f"{way} at {at:.1f} s ({pause} ms)" for at, way, pause in self.programs)
        return f"engine {self.state}, replaced {self.how} at {self.replaced_at:.1f} s; {starts}"


@dataclass
class Found:
    """What came of a run."""

    plan: Plan
    mixtures: list[str] = field(default_factory=list)
    old: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    whole: collections.Counter[int] = field(default_factory=collections.Counter)
    refused: int = 0
    secs: float = 0.0
    log: str = ""
    # The machine stood still between two objects of the replacement for as long as a folder has to be quiet: what lies in the
    # bucket then is a model of its own, and the run says nothing.
    stood_still: bool = False

    def problems(self) -> list[str]:
        return self.mixtures + self.old + self.users


def seen_by_users(files: list[Path]) -> dict[str, str]:
    """What a program without the library sees of these files."""
    found = {}
    for path in files:
        if path.is_symlink():
            found[path.name] = f"link to {os.readlink(path)}"
        elif path.is_file():
            data = path.read_bytes()
            found[path.name] = f"{len(data)} bytes {hashlib.sha256(data).hexdigest()[:12]}"
        else:
            found[path.name] = "gone"
    return found


class Act:
    """One run."""

    def __init__(self, endpoint: Endpoint, plan: Plan, config: dict[str, object], products: Path) -> None:
        self.plan, self.found, self.endpoint = plan, Found(plan), endpoint
        self.prefix = f"m{plan.seed}"
        self.base = endpoint.root / paths.BUCKET / self.prefix
        self.sizes = {name: {1: size, 2: size + (0 if n % 2 else 8 * KIB + 16 * n)} for n, (name, (_, size)) in enumerate(MODEL.items())}
        for name, (number, size) in {**MODEL, **NOTES}.items():
            blocks.put(endpoint.root, self.base / name, blocks.content(number, 1, size))
            # A model that was there before: its times are no sign of a change that is under way.
            os.utime(self.base / name, (time.time() - 3600, time.time() - 3600))
        self.run = Run(endpoint, self.prefix, config=config, products=products)
        self.socket = self.run.dir / "s"
        self.readers: list[Reader] = []
        self.replaced = 0.0

    def start(self, name: str, way: str, pause_ms: int, *options: str) -> Reader:
        files = [str(self.run.model_dir / file) for file in MODEL]
        argv = [str(compiler.program("version_reader.c")), "-d", str(pause_ms), *options, way, *files]
        reader = Reader(self.run, name, argv, self.run.env(CONNECTOR_UDS_PATH=str(self.socket)))
        self.readers.append(reader)
        return reader

    def users_files(self) -> list[Path]:
        """Copies and renames of ours, an edit of equal length, and files beside the socket, by programs without the library."""
        model = self.run.model_dir
        script = (
            'cd "$1" && ls notes > /dev/null && cp -a config.json copy.json && cp -a shard-1.bin copy.bin && mv notes/moved.json notes/mine.json && '
            "mv notes/moved.bin notes/mine.bin && printf EDIT | dd of=notes/edited.json conv=notrunc status=none && ln -s ../config.json notes/link"
        )
        done = subprocess.run(["sh", "-c", script, "sh", str(model)], env=plain_env(), capture_output=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"users' files: {done.stderr.decode()}\n{self.run.log_tail()}")
        beside = [self.run.dir / "s.lock", self.run.dir / "s.txt"]
        if self.plan.at_socket:
            self.socket = self.run.dir / "t"
            beside += [self.socket, self.run.dir / "t.lock"]
        for path in beside[1:]:
            path.write_bytes(b"a user's")
        inside = ("copy.json", "copy.bin", "notes/mine.json", "notes/mine.bin", "notes/edited.json", "notes/link")
        return [model / name for name in inside] + beside[1:]

    def prepare(self) -> list[Path]:
        """The first version is loaded, and the engine is in the state that the seed says."""
        first = self.start("first", "read", 0, *(["-w"] if self.plan.state in ("living", "killed") else []))
        end = time.monotonic() + 20
        while time.monotonic() < end and not any(line[0] == "end" for line in first.lines()):
            time.sleep(0.01)
        # Folders are listed when a program uses them.
        subprocess.run(["sh", "-c", f"cat {self.run.model_dir}/notes/* > /dev/null"], env=self.run.env(CONNECTOR_UDS_PATH=str(self.socket)), check=False, capture_output=True)
        files = self.users_files()
        if self.plan.state == "none":
            self.run.kill_engines()
        return files

    def replace(self) -> None:
        before = time.monotonic()
        for n, (name, (number, _)) in enumerate(MODEL.items()):
            if n:
                time.sleep(SPREAD[self.plan.how] / (len(MODEL) - 1))
            self.found.stood_still |= time.monotonic() - before > QUIET_SECS_MAX
            before = time.monotonic()
            blocks.put(self.endpoint.root, self.base / name, blocks.content(number, 2, self.sizes[name][2]))
        self.replaced = time.monotonic()

    def replace_later(self) -> None:
        time.sleep(self.plan.replaced_at)
        self.replace()

    def act(self) -> Found:
        begun = time.monotonic()
        try:
            files = self.prepare()
            before = seen_by_users(files)
            begin = time.monotonic()
            replacing = threading.Thread(target=self.replace_later)
            replacing.start()
            steps: list[tuple[float, Callable[[], object]]] = [
                (at, partial(self.start, f"program{n}", way, pause)) for n, (at, way, pause) in enumerate(self.plan.programs)
            ]
            if self.plan.state == "killed":
                steps.append((max(0.0, self.plan.killed_at), lambda: strike(self.run.engines())))
            for at, step in sorted(steps, key=lambda step: step[0]):
                time.sleep(max(0.0, begin + at - time.monotonic()))
                step()
            replacing.join()
            time.sleep(max(0.0, self.replaced + LIST_AGAIN_SECS + 0.2 - time.monotonic()))
            last = self.start("last", "read", 0)
            for reader in self.readers[1:]:
                self.found.old += reader.wait(PROGRAM_SECS_MAX)
            for reader in self.readers:
                self.judge(reader)
            if not self.plan.at_socket:
                self.judge_last(last)
            after = seen_by_users(files)
            self.found.users += [f"a user's {name}: {text}, then {after[name]}" for name, text in before.items() if after[name] != text]
            self.found.log = self.run.log_tail(14)
        finally:
            seeded.clean(self.run, self.readers, self.base)
        self.found.secs = time.monotonic() - begun
        return self.found

    def judge(self, reader: Reader) -> None:
        versions: set[int] = set()
        wrong = False
        for line in reader.passes():
            name = os.path.relpath(line[4], self.run.model_dir)
            if line[0] == "mix":
                self.found.mixtures.append(f"{reader.name}: mix in {name}: {line[5:]}")
                wrong = True
            elif line[0] == "got":
                version = int(line[6])
                if int(line[5]) != MODEL[name][0] or int(line[7]) != self.sizes[name].get(version) or line[7] != line[8]:
                    self.found.mixtures.append(f"{reader.name}: {name}: {line[5:]}, sizes {self.sizes[name]}")
                    wrong = True
                versions.add(version)
        if len(versions) > 1:
            read = ", ".join(f"{os.path.basename(line[4])} {line[6] if line[0] == 'got' else line[8]}" for line in reader.passes())
            self.found.mixtures.append(f"{reader.name} read a mixture: {read}")
        elif not wrong and len([line for line in reader.passes() if line[0] == "got" and line[2] != "held"]) == len(MODEL):
            self.found.whole[versions.pop()] += 1
        elif not wrong:
            self.found.refused += 1

    def judge_last(self, last: Reader) -> None:
        """It has started more than listAgainSec after the last change."""
        if [line[6] for line in last.passes() if line[0] == "got"] != ["2"] * len(MODEL):
            said = [" ".join(line[4:])[-60:] for line in last.passes()] or last.err.read_text(errors="replace")[-200:]
            self.found.old.append(f"a program that started {LIST_AGAIN_SECS + 0.2:.1f} s after the last change did not read the new model: {said}")

def many(plans: list[Plan], config: dict[str, object], products: Path, quiet: bool = False) -> list[Found]:
    compiler.program("version_reader.c")
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as scratch:
        (Path(scratch) / "root" / paths.BUCKET).mkdir(parents=True)
        with Endpoint(Path(scratch) / "root", Path(scratch) / "endpoint") as endpoint:
            places = [endpoint] * min(TOGETHER, len(plans))

            def act(place: Endpoint, plan: Plan) -> Found:
                for _ in range(TRIES):
                    found = Act(place, plan, config, products).act()
                    if not found.stood_still:
                        return found
                raise RuntimeError(f"seed {plan.seed}: the machine stands still for {QUIET_SECS_MAX:.0f} s in each of {TRIES} runs")

            return seeded.run_all(plans, places, act, 50, quiet)


def whole_models(runs: int | None = None, first: int | None = None, take_overs: int | None = None) -> Measure:
    count = runs or scale.runs or RUNS
    first = scale.seed if first is None else first
    results = many([Plan.of(seed) for seed in range(first, first + count)], SETTINGS, paths.PRODUCTS)
    times = take_overs if take_overs is not None else TAKE_OVERS if count >= RUNS else max(3, count // 5)
    taken, memory = many_take_overs(times, paths.PRODUCTS) if times else ([], "no take-overs")
    bad = sorted((f for f in results if f.problems()), key=lambda f: f.plan.seed)
    notes = [f"seed {f.plan.seed}: {f.problems()[0]}; {f.plan}; again: ci/bar bytes 5 --runs 1 --seed {f.plan.seed}" for f in bad] + taken
    kinds = collections.Counter(f"{f.plan.state}, {f.plan.how}" for f in results)
    notes.append("; ".join(f"{kind}: {n}" for kind, n in sorted(kinds.items())))
    whole: collections.Counter[int] = sum((f.whole for f in results), collections.Counter())
    counts = [sum(bool(getattr(f, name)) for f in results) for name in ("mixtures", "old", "users")]
    value = (
        f"{count} runs: {counts[0]} with a mixture, {counts[1]} with an old model or none, {counts[2]} with a user's file touched; "
        f"programs: {whole[1]} read the old model, {whole[2]} the new one, {sum(f.refused for f in results)} got an error; {memory}"
    )
    secs = sorted(f.secs for f in results)
    return Measure(value, not bad and not taken, f"a run took {secs[len(secs) // 2]:.1f} s in the median, {secs[-1]:.1f} s at most", notes)


def not_renewed() -> Measure:
    """Listings are never renewed, or a build is named that renews them behind the first use."""
    against = scale.against
    first = scale.seed
    # An engine that starts anew lists anew.
    plans = [plan for plan in map(Plan.of, range(first, first + 10 * CONTROL_RUNS)) if plan.state in ("living", "idle") and not plan.at_socket]
    config = SETTINGS if against else {**SETTINGS, "listAgainSec": NEVER_AGAIN}
    results = many(plans[:scale.runs or CONTROL_RUNS], config, against or paths.PRODUCTS, quiet=True)
    mixed, old = (sum(bool(getattr(f, name)) for f in results) for name in ("mixtures", "old"))
    notes = [f"seed {f.plan.seed}: {(f.mixtures + f.old)[0]}" for f in results if f.mixtures or f.old][:8]
    # A program that goes on with the old listing may meet objects that are gone: an error, and no mixture.
    return Measure(f"{mixed} of {len(results)} runs with a mixture, {old} with an old model", not (mixed + old), notes=notes)


def resident(pids: list[int]) -> tuple[int, int]:
    """Descriptors of the engine, and bytes of all memory files that it has open or that lie on its detached tmpfs."""
    descriptors, files, mounts = 0, {}, {}
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                descriptors += 1
                if MEMORY_FILE.search(os.readlink(link)):
                    status = link.stat()
                    files[status.st_dev, status.st_ino] = status.st_blocks * 512
                elif link.is_dir() and os.readlink(link) == "/" and link.stat().st_dev != os.stat("/").st_dev:
                    used = os.statvfs(link)
                    mounts[link.stat().st_dev] = (used.f_blocks - used.f_bfree) * used.f_frsize
            except OSError:
                continue
    return descriptors, max(sum(files.values()), sum(mounts.values()))


def many_take_overs(times: int, products: Path) -> tuple[list[str], str]:
    """Problems and figures of an engine that is killed and taken over again and again while its objects change."""
    problems: list[str] = []
    figures: list[tuple[int, int]] = []
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        base = scratch / "root" / paths.BUCKET / "t"
        base.mkdir(parents=True)
        endpoint = stack.enter_context(Endpoint(scratch / "root", scratch / "endpoint"))

        def put(version: int) -> None:
            for name, (number, size) in TAKE_OVER_MODEL.items():
                if version == 1 or name == "big.dat":
                    blocks.put(endpoint.root, base / name, blocks.content(number, version, size))

        put(1)
        poke = blocks.content(3, 1, TAKE_OVER_POKE)
        for number in range(times + 1):
            blocks.put(endpoint.root, base / f"poke{number}.dat", poke)
        run = stack.enter_context(Run(endpoint, "t", config=TAKE_OVER_SETTINGS, products=products))
        reader = [str(compiler.program("version_reader.c")), "read"]
        stayer = run.start([str(paths.VENV_PYTHON), "-c", STAYER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stack.callback(stayer.wait)
        stack.callback(stayer.kill)
        assert stayer.stdin is not None and stayer.stdout is not None
        for number in range(1, times + 1):
            starts = run.engine_starts()
            put(number + 1)
            # Programs that begin while a change is fresh may wait for it to be over.
            time.sleep(1.1)
            problems += read_version(run, reader, number + 1)
            strike(run.engines())
            stayer.stdin.write(f"{run.model_dir}/poke{number}.dat\n".encode())
            stayer.stdin.flush()
            line = stayer.stdout.readline().decode().strip()
            if line != f"got {len(poke)} {poke[:8].hex()}":
                problems.append(f"take-over {number}: the program that stays: {line}")
            problems += read_version(run, reader, number + 1)
            # The log is a little behind.
            if run.engine_starts() == starts:
                problems.append(f"take-over {number}: no engine was started")
            figures.append(resident(run.engines()))
            if len(problems) > 5:
                break
        stayer.kill()
    if figures:
        # An old version may be on its way out, and what was read to take over is kept for expireTimeSec, in whole blocks.
        poke_bytes = -(-TAKE_OVER_POKE // BLOCK_BYTES) * BLOCK_BYTES
        slack = TAKE_OVER_MODEL["big.dat"][1] + len(figures) * poke_bytes
        first, last = figures[min(1, len(figures) - 1)], figures[-1]
        if last[0] > first[0] + 6 or last[1] > first[1] + slack:
            problems.append(f"after {len(figures)} take-overs {last[0]} descriptors and {last[1] >> 20} MiB, after the first ones {first[0]} and {first[1] >> 20} MiB")
        return problems, f"{len(figures)} take-overs: {first[0]} to {last[0]} descriptors, {first[1] >> 20} to {last[1] >> 20} MiB"
    return problems, "no take-over"


def read_version(run: Run, reader: list[str], version: int) -> list[str]:
    """A new program reads the whole object of this version."""
    for _ in range(4):
        done = run.call([*reader, str(run.model_dir / "big.dat")])
        lines = [line.split() for line in done.stdout.decode().splitlines() if not line.startswith(("open", "end"))]
        if lines and lines[0][0] == "got" and lines[0][6] == str(version):
            return []
        text = f"{' '.join(lines[0][2:]) if lines else ''} {done.stderr.decode()[-200:].strip()}"
        if "ENOMEM" in text or "ENOSPC" in text:
            break
        time.sleep(0.7)
    return [f"version {version}: {text}"]
