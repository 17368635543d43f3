"""Bar about the memory budget: a model four times larger than the memory there is, read to the end and at random.

The engine and the readers run in a memory cgroup of their own (v1, or v2 where the system
has it), so that the kernel itself says how much they had at most and whether one was killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness import compile as compiler
from tests.harness import paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems, scale
from tests.harness.requestlog import bytes_served
from tests.harness.run import Run

MIB = 1024 * 1024
LIMIT = 1024 * MIB
# Four times the limit; one object does not fit for itself, and no size is a multiple of a part.
SHARES = (0.375, 0.25 + 0.0001, 0.1875, 0.1875)
PREFIX = "budget"
SEED = 40
READ_SECS_MAX = 240.0
RANDOM_CALLS = 150
# A reader that waits for room must look at the clock, not at the engine: share of one core.
IDLE_CPU_MAX = 0.05


class MemoryCgroup:
    """A memory cgroup below this process's own; `limit` None only counts. Needs root, says so otherwise."""

    def __init__(self, limit: int | None) -> None:
        self.v1, parent = self._parent()
        self.dir = parent / f"ossc-bar-{os.getpid()}-{time.monotonic_ns()}"
        self.limit = limit

    @staticmethod
    def _parent() -> tuple[bool, Path]:
        rows = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        for _, controllers, path in rows:
            root = Path("/sys/fs/cgroup/memory")
            if "memory" in controllers.split(",") and root.is_dir():
                own = root / path.strip("/")
                return True, own if own.is_dir() else root
        root = Path("/sys/fs/cgroup")
        if "memory" not in (root / "cgroup.controllers").read_text().split():
            raise RuntimeError("no memory cgroup here: neither v1 at /sys/fs/cgroup/memory nor v2 with the controller")
        # Only a cgroup without processes may hand the controller on, and only the root may have both.
        (root / "cgroup.subtree_control").write_text("+memory")
        return False, root

    def __enter__(self) -> MemoryCgroup:
        self.dir.mkdir()
        if self.limit is not None:
            (self.dir / ("memory.limit_in_bytes" if self.v1 else "memory.max")).write_text(str(self.limit))
            swap = self.dir / ("memory.swappiness" if self.v1 else "memory.swap.max")
            if swap.exists():
                swap.write_text("0")
        return self

    def __exit__(self, *_: object) -> None:
        for _attempt in range(100):
            try:
                self.dir.rmdir()
                return
            except OSError:
                time.sleep(0.05)

    def enter(self) -> None:
        """In the child, before its program: from here on it and its children count."""
        (self.dir / "cgroup.procs").write_text(str(os.getpid()))

    def _number(self, name: str) -> int:
        return int((self.dir / name).read_text())

    def peak(self) -> int:
        return self._number("memory.max_usage_in_bytes" if self.v1 else "memory.peak")

    def kills(self) -> int:
        text = (self.dir / ("memory.oom_control" if self.v1 else "memory.events")).read_text()
        rows = dict(line.split() for line in text.splitlines())
        return int(rows.get("oom_kill", 0))

    def shared_bytes(self) -> int:
        """Shared memory now: what the engine caches."""
        rows = dict(line.split() for line in (self.dir / "memory.stat").read_text().splitlines())
        return int(rows.get("shmem", 0))


@dataclass
class Peak:
    """Largest shared memory of a cgroup, sampled."""

    shared: int = 0


class Model:
    """Files whose bytes follow from their place; made for one run, removed after it."""

    def __init__(self, root: Path, sizes: list[int]) -> None:
        self.root = root
        self.sizes = {f"w{n}.bin": size for n, size in enumerate(sizes)}
        base = root / paths.BUCKET / PREFIX
        base.mkdir(parents=True)
        for n, (name, size) in enumerate(self.sizes.items()):
            argv = [str(compiler.program("budget_reader.c")), "make", str(size), str(SEED + n), str(base / name)]
            subprocess.run(argv, check=True)

    @property
    def names(self) -> list[str]:
        return list(self.sizes)

    def seed(self, name: str) -> int:
        return SEED + self.names.index(name)


def reader(run: Run, group: MemoryCgroup | None, way: str, count: int, seed: int, names: list[str],
           env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A reader in the cgroup; its engine is started by it, and so is there too."""
    argv = [str(compiler.program("budget_reader.c")), way, str(count), str(seed), *names]
    return run.start(
        argv, env, cwd=run.model_dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=group.enter if group else None,
    )


def outcome(process: subprocess.Popen[bytes], what: str, secs_max: float) -> tuple[list[str], list[str]]:
    """Lines of a reader without the library's own on stderr, and what is wrong with them."""
    try:
        out, _ = process.communicate(timeout=secs_max)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
        return out.decode(errors="replace").splitlines(), [f"{what}: not through after {secs_max:.0f} s"]
    lines = [line for line in out.decode(errors="replace").splitlines() if not line.startswith("oss connector: ")]
    problems = [f"{what}: {line}" for line in lines if not line.startswith(("ok ", "held"))]
    if process.returncode < 0:
        problems.append(f"{what}: killed by {signal.Signals(-process.returncode).name}")
    elif process.returncode != 0 and not problems:
        problems.append(f"{what}: status {process.returncode}")
    return lines, problems


def wait_all(readers: dict[str, subprocess.Popen[bytes]], group: MemoryCgroup, peak: Peak) -> list[str]:
    """Waits for the readers, sampling what is cached meanwhile."""
    end = time.monotonic() + READ_SECS_MAX
    while any(p.poll() is None for p in readers.values()) and time.monotonic() < end:
        peak.shared = max(peak.shared, group.shared_bytes())
        time.sleep(0.02)
    problems: list[str] = []
    for what, process in readers.items():
        problems += outcome(process, what, max(1.0, end - time.monotonic()))[1]
    return problems


def form(endpoint: Endpoint, model: Model, limit: int, cgroup_limit: int | None, config: dict[str, Any],
         calls: int) -> tuple[str, list[str]]:
    """Sequential, random and parallel readers at once under one limit: what they took, and what was wrong."""
    names, peak = model.names, Peak()
    total = sum(model.sizes.values())
    endpoint.forget()
    with MemoryCgroup(cgroup_limit) as group, Run(endpoint, PREFIX, config=config) as run:
        begin = time.monotonic()
        readers = {
            "sequential": reader(run, group, "seq", 0, SEED, names),
            "random": reader(run, group, "random", calls, SEED, names),
        }
        problems = wait_all(readers, group, peak)
        secs = time.monotonic() - begin
        readers = {"parallel": reader(run, group, "parallel", calls // 4, SEED, names)}
        problems += wait_all(readers, group, peak)
        map_problems, map_said = too_large_to_map(run, group, model)
        problems += map_problems
        kills, most = group.kills(), group.peak()
        served = bytes_served(endpoint.requests(), PREFIX)
        if kills:
            problems.append(f"{kills} kills by the kernel")
        if most > limit:
            problems.append(f"{most / MIB:.0f} MiB at most, the limit is {limit / MIB:.0f} MiB")
        if run.engine_starts() != 1:
            problems.append(f"{run.engine_starts()} engines")
        if served < total:
            problems.append(f"only {served} bytes of {total} were served")
        if problems:
            problems.append(run.log_tail())
    value = (f"peak {most / MIB:.0f} of {limit / MIB:.0f} MiB (cached {peak.shared / MIB:.0f}), {kills} kills, "
             f"{total / MIB:.0f} MiB sequentially in {secs:.1f} s, {served / total:.2f} bytes per byte, {map_said}")
    return value, problems


def cpu_secs(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def too_large_to_map(run: Run, group: MemoryCgroup, model: Model) -> tuple[list[str], str]:
    """A map of the object that is larger than the budget: ENOMEM at once, with a line in the log."""
    name = max(model.sizes, key=lambda n: model.sizes[n])
    before = len(run.log_lines())
    lines, _ = outcome(reader(run, group, "map", 0, model.seed(name), [name]), "map", 30.0)
    fields = lines[0].split() if lines else []
    problems = []
    if fields[:4] != ["err", "map", name, "ENOMEM"]:
        problems.append(f"map of what cannot fit: {lines}")
    elif float(fields[4]) > 1000:
        problems.append(f"map of what cannot fit: ENOMEM after {fields[4]} ms")
    if not run.logged("larger than the memory budget", name, after=before):
        problems.append("map of what cannot fit: no line in the log")
    return problems, f"map refused after {fields[4] if len(fields) > 4 else '?'} ms"


FORMS: dict[str, tuple[int | None, dict[str, Any]]] = {
    # Placeholders for everything; the rest is the default.
    "cgroup": (LIMIT, {"materializeBytes": 0}),
    "memoryLimit": (None, {"materializeBytes": 0, "memoryLimit": LIMIT}),
    # More than the cgroup can hold: what counts is the cgroup.
    "both": (LIMIT, {"materializeBytes": 0, "memoryLimit": 4 * LIMIT}),
}


def measure(forms: dict[str, tuple[int | None, dict[str, Any]]], limit: int = LIMIT) -> Measure:
    values: list[str] = []
    problems: list[str] = []
    total = (scale.size_mib or 4 * LIMIT // MIB) * MIB
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-", dir=paths.CACHE)))
        model = Model(scratch / "root", [int(total * share) + 17 for share in SHARES])
        endpoint = stack.enter_context(Endpoint(scratch / "root", scratch))
        for name, (cgroup_limit, config) in forms.items():
            value, found = form(endpoint, model, limit, cgroup_limit, config, RANDOM_CALLS)
            values.append(f"{name}: {value}")
            problems += [f"{name}: {p}" for p in found]
    return from_problems("; ".join(values), problems)


def within() -> Measure:
    return measure(FORMS)


def beyond() -> Measure:
    """A memoryLimit of twice what is allowed, where no cgroup cuts it."""
    return measure({"memoryLimit": (None, {"materializeBytes": 0, "memoryLimit": 2 * LIMIT})})
