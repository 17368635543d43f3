"""No byte changes under a map while memory is given back: with slowed system calls, and model-checked.

The engine's `fcntl` calls, by which it takes and gives back leases, are delayed (tests/apps/slow_calls.c), so that
programs open and map objects between any two of its steps. Run by the bar `bytes 3`. The control is an engine, built
from a copy of the sources, that drops the lease in the statement that takes it.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.checks import simulation
from tests.harness import compile as compiler
from tests.harness import folder, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems, scale
from tests.harness.run import Run, plain_env

MIB = 1 << 20
PREFIX = "team/held"
NAME, OTHER = "held.bin", "other.bin"
SIZES = {NAME: 5 * MIB + 17, OTHER: 10 * MIB}
# Of which a quarter is the engine's own: the two objects do not fit together.
MEMORY_LIMIT = 16 * MIB
# Wants the room of what no program needs, again and again.
PRESS = "import sys, time; end = time.monotonic() + float(sys.argv[2])\nwhile time.monotonic() < end: open(sys.argv[1], 'rb', buffering=0).read()"
RUNS = 200
SECS = 4
# Names of the engine's threads that take leases: the one that gives memory back, and those that fetch.
LEASES, FETCHES = "ossc-lease", "ossc-net-"
# Runs side by side: most of a run's time is waiting for a delayed call.
TOGETHER = 4
PROGRAM_SECS_MAX = 120
SCHEDULES = 1_000_000
# Of a plain `cargo test`, for the model of releases: three schedulers, the last with twice as many.
SCHEDULES_PLAIN = 1600
PLANT = ("cache/store/pages.rs", "lease.owned = true;",
         "lease.owned = true;\n                let _ = sys::fcntl(lease.fd, libc::F_SETLEASE, libc::F_UNLCK as usize);")
MODEL = "a_release_never_reaches_what_a_program_has_mapped"


@contextmanager
def bucket() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as scratch:
        folder.fill(Path(scratch) / "root" / paths.BUCKET / PREFIX, SIZES, seed=1)
        yield Path(scratch)


def one(scratch: Path, endpoint: Endpoint, seed: int, pages: str, ossc: Path | None) -> tuple[int, list[str]]:
    """Maps that were made, and what was wrong with them."""
    chance = random.Random(seed)
    # Nothing is kept longer than a program has it.
    config = {"materializeBytes": 0, "partBytes": MIB, "memoryLimit": MEMORY_LIMIT, "expireTimeSec": 0, "lingerSec": 3}
    with Run(endpoint, PREFIX, config=config, below=scratch) as run:
        changes = {"OSSC_PAGES": pages, **({"OSSC_BIN": str(ossc)} if ossc else {})}
        env, copy = run.env(**changes), scratch / "root" / paths.BUCKET / PREFIX / NAME
        python = str(paths.VENV_PYTHON)
        argvs = [
            [python, str(paths.APPS / "map_check.py"), NAME, str(copy), str(chance.random()), str(SECS)],
            [python, "-c", PRESS, OTHER, str(SECS)],
        ]
        programs = [run.start(argv, env, cwd=run.model_dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for argv in argvs]
        threads = threads_of(run, ossc)
        delay = chance.choice([50, 150, 300]) * 1000
        # The threads that fetch take leases, too, and answer no reader while they are delayed: these once in a while.
        names = (LEASES, FETCHES) if chance.random() < 0.2 else (LEASES,)
        slowed_threads = [thread for thread, name in threads.items() if name.startswith(names)]
        slow = [str(compiler.program("slow_calls.c")), str(delay)]
        tracers = [subprocess.Popen([*slow, str(thread)], stderr=subprocess.DEVNULL, env=plain_env()) for thread in slowed_threads]
        done = [finished(program, run) for program in programs]
        for tracer in tracers:
            tracer.kill()
            tracer.wait()
        problems = [f"seed {seed}, {pages}, {delay // 1000} ms: {err.decode().strip()}" for _, err in done if err.strip()]
        problems += [f"seed {seed}: status {p.returncode}" for p in programs if p.returncode != 0 and not problems]
        counts = [int(out) for out, _ in done if out.strip().isdigit()]
        if ossc:
            # `Run` looks for the product's engine only.
            run.wait_engines_gone(0)
            time.sleep(config["lingerSec"] + 1)
        return sum(counts), problems


def finished(program: subprocess.Popen[bytes], run: Run) -> tuple[bytes, bytes]:
    """What a program wrote to its outputs; one that does not end is a problem, told with the log."""
    try:
        return program.communicate(timeout=PROGRAM_SECS_MAX)
    except subprocess.TimeoutExpired:
        program.kill()
        out, err = program.communicate()
        return out, err + f"not done after {PROGRAM_SECS_MAX} s: {program.args!r}\n{run.log_tail(12)}".encode()


def threads_of(run: Run, ossc: Path | None) -> dict[int, str]:
    """The engine's threads, once that of leases is there; a helper that it starts may be seen before."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for engine in run.engines() if ossc is None else engines_of(ossc, run):
            try:
                threads = {int(task.name): (task / "comm").read_text().strip() for task in Path(f"/proc/{engine}/task").iterdir()}
            except OSError:
                continue
            if LEASES in threads.values():
                return threads
        time.sleep(0.02)
    raise AssertionError(f"no engine came\n{run.log_tail()}")


def engines_of(ossc: Path, run: Run) -> list[int]:
    """Engines of another build that belong to this run."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "exe").readlink() == ossc:
                opened = [str(fd.readlink()) for fd in (entry / "fd").iterdir()]
                found += [int(entry.name)] if any(name.startswith(f"{run.dir}/") for name in opened) else []
        except OSError:
            continue
    return found


def slowed(runs: int, kinds: tuple[str, ...], ossc: Path | None = None) -> tuple[int, list[str]]:
    with bucket() as scratch, Endpoint(scratch / "root", scratch) as endpoint, ThreadPoolExecutor(TOGETHER) as threads:
        seeds = range(scale.seed, scale.seed + runs)
        found = list(threads.map(lambda seed: one(scratch, endpoint, seed, kinds[seed % len(kinds)], ossc), seeds))
    return sum(maps for maps, _ in found), [text for _, wrong in found for text in wrong]


def modelled() -> tuple[int, list[str]]:
    """Schedules of the model of releases, and what it found."""
    factor = -(-SCHEDULES // SCHEDULES_PLAIN)
    argv = ["cargo", "test", "--locked", "--profile", "fast", "-p", "ossc-cache", "--test", "model", "--", "--nocapture", MODEL]
    env = {**plain_env(), "CARGO_TARGET_DIR": str(paths.TARGET), "OSSC_MODEL_SCALE": str(factor)}
    done = subprocess.run(argv, cwd=paths.ROOT, env=env, capture_output=True, text=True, check=False)
    found = re.search(r"model release and open: (\d+) schedules, no violation", done.stdout)
    count = int(found[1]) if found else 0
    return count, [] if count >= SCHEDULES else [f"{count} schedules without a violation: {done.stdout[-400:]}"]


def releases() -> Measure:
    runs = scale.runs or RUNS
    schedules, problems = modelled()
    maps, wrong = slowed(runs, ("memfd", "tmpfs"))
    return from_problems(f"{schedules} schedules; {runs} runs with slowed system calls, {maps} maps", problems + wrong)


def releases_control() -> Measure:
    """Good only if the dropped lease goes unnoticed."""
    tree = simulation.PLACE / "tree"
    simulation.copy(tree)
    simulation.change(tree / PLANT[0], PLANT[1], PLANT[2])
    target = simulation.PLACE / "target"
    env = {**plain_env(), "CARGO_TARGET_DIR": str(target)}
    subprocess.run(["cargo", "build", "--locked", "-q", "--profile", "fast", "-p", "ossc"], cwd=tree, env=env, check=True)
    ossc = shutil.copy(target / "fast" / "ossc", target / "fast" / "ossc-dropped")
    for run in range(10):
        scale.seed += run
        _, problems = slowed(1, ("memfd",), Path(ossc))
        if problems:
            return Measure(f"found in run {run + 1}", False, "", problems[:3])
    return Measure("10 runs, nothing noticed", True)
