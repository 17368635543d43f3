"""Bars about sharing and giving back: one copy of each byte in the memory of a node, and none when no process needs it."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.harness import compile as compiler
from tests.harness import folder, models, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems, scale
from tests.harness.requestlog import bytes_served, once_problems
from tests.harness.run import Run, plain_env

MIB = 1024 * 1024
SIZE_MIB = 2048
RATE = 200_000_000
SPAWNED, FORKED = 4, 4
PSS_FACTOR_MAX = 1.02
WALL_FACTOR_MAX = 1.2
READ_SECS_MAX = 180.0
RELEASE_SIZE_MIB = 1024
EXPIRE_SECS = 2
BACK_SECS = 4.0
SAMPLE_SECS = 0.5
BACK_BYTES_MAX = 64 * MIB
# MemAvailable and Shmem are the node's: what others do meanwhile is seen, too.
TRIES = 3
# How the kernel names our memory files in smaps, on a detached tmpfs and as memfd.
MEMORY_FILE = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+\s+(?:/o\d+|/memfd:o\d+ \(deleted\)|/o\d+ \(deleted\))$")


class Readers:
    """Processes that map every file of a model, sum it and keep the maps until `end`."""

    def __init__(self, scratch: Path, names: list[str]) -> None:
        self.scratch, self.names = scratch, names
        self.processes: list[subprocess.Popen[bytes]] = []
        self.outs: list[Path] = []

    def start(self, run: Run, env: dict[str, str], forks: int = 0, way: str = "hold") -> subprocess.Popen[bytes]:
        out = self.scratch / f"reader{len(self.outs)}-{id(self)}.out"
        options = [word for _ in range(forks) for word in ("-f", way)]
        argv = [str(compiler.program("heal_reader.c")), "-w", *options, way, *self.names]
        with open(out, "wb") as stdout:
            process = run.start(argv, env, cwd=run.model_dir, stdout=stdout, stdin=subprocess.PIPE)
        self.processes.append(process)
        self.outs.append(out)
        return process

    def again(self) -> None:
        """Asks for one more round."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()

    def lines(self) -> list[list[str]]:
        return [line.split() for out in self.outs for line in out.read_text(errors="replace").splitlines()]

    def wait(self, count: int, rounds: int = 1) -> bool:
        """True when so many processes are through with so many rounds."""
        end = time.monotonic() + READ_SECS_MAX
        while sum(line[:1] == ["end"] for line in self.lines()) < count * rounds:
            if time.monotonic() > end or any(p.poll() for p in self.processes):
                return False
            time.sleep(0.005)
        return True

    def pids(self) -> list[int]:
        return sorted({int(line[1]) for line in self.lines() if line[0] == "end"})

    def problems(self, sums: dict[str, str], count: int, rounds: int = 1) -> list[str]:
        read = [line for line in self.lines() if line[0] in ("ok", "err")]
        found = [f"{line[4]}: {line[5]}, should be {sums[line[4]]}" for line in read if line[5] != sums[line[4]]]
        if len(read) != len(sums) * count * rounds:
            found.append(f"{len(read)} files were read, should be {len(sums) * count * rounds}")
        return found

    def end(self) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


def plain_sums(model: str) -> dict[str, str]:
    """Name -> sum of each large file as the reader computes it natively."""
    base = models.folder(model)
    names = sorted(str(p.relative_to(base)) for p in base.rglob("*.safetensors"))
    argv = [str(compiler.program("heal_reader.c")), "map", *names]
    done = subprocess.run(argv, cwd=base, env=plain_env(), capture_output=True, check=True)
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    return {line[4]: line[5] for line in lines if line[0] == "ok"}


def memory_file_pss(pid: int) -> int:
    """Proportional bytes of our memory files in one process."""
    total, ours = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", line):
            ours = bool(MEMORY_FILE.match(line))
        elif ours and line.startswith("Pss:"):
            total += int(line.split()[1]) * 1024
    return total


def sharers(runs: list[Run], scratch: Path, names: list[str]) -> Readers:
    """Four programs, one of which forks four readers; with a second run, two of them meet another engine."""
    readers = Readers(scratch, names)
    for n in range(SPAWNED):
        run = runs[-1] if n > 1 else runs[0]
        env = run.env(CONNECTOR_UDS_PATH=str(run.dir / "socket"))
        readers.start(run, env, forks=FORKED if n == 0 else 0)
    return readers


def measure(endpoint: Endpoint, model: str, scratch: Path, alone: bool, second: bool) -> tuple[list[str], float, float]:
    """Problems, seconds from the first start to the last byte, Pss of the memory files as a share of the model."""
    sums = plain_sums(model)
    # The small files are written once for each engine, which is not what is measured here.
    sizes = {key: size for key, size in models.sizes(model).items() if key.endswith(".safetensors")}
    endpoint.forget()
    count = 1 if alone else SPAWNED + FORKED
    config = {"materializeBytes": folder.MATERIALIZE_BYTES}
    with ExitStack() as stack:
        runs = [stack.enter_context(Run(endpoint, model, config=config)) for _ in range(2 if second else 1)]
        run = runs[0]
        begin = time.monotonic()
        if alone:
            readers = Readers(scratch, list(sums))
            readers.start(run, run.env())
        else:
            readers = sharers(runs, scratch, list(sums))
        complete = readers.wait(count)
        secs = time.monotonic() - begin
        problems = readers.problems(sums, count)
        if not complete:
            problems.append(f"not all were ready after {READ_SECS_MAX:.0f} s\n{run.log_tail()}")
        pss = sum(memory_file_pss(pid) for pid in readers.pids() + [pid for r in runs for pid in r.engines()])
        if pss < 0.98 * sum(sizes.values()):
            problems.append(f"only {pss} bytes of memory files were found in the processes")
        readers.end()
        requests = [r for r in endpoint.requests() if r.key in sizes]
        problems += once_problems(requests, sizes)
        problems += [f"{bytes_served(requests, '') / sum(sizes.values()):.3f} bytes per byte"] if problems else []
    return problems, secs, pss / sum(sizes.values())


def together(second: bool = False) -> Measure:
    model = models.ensure("shards", scale.size_mib or SIZE_MIB)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        options = ["--rate-bytes-per-sec", str(RATE)]
        endpoint = stack.enter_context(Endpoint(paths.BUCKETS, scratch, options=options))
        problems, before_secs, _ = measure(endpoint, model, scratch, alone=True, second=False)
        found, secs, pss = measure(endpoint, model, scratch, alone=False, second=second)
        # Before and after: what else the machine does must not make the one process slow.
        more, after_secs, _ = measure(endpoint, model, scratch, alone=True, second=False)
        alone_secs = min(before_secs, after_secs)
        tries = 1
        # Nor the eight; bytes and memory must be right each time.
        while secs > WALL_FACTOR_MAX * alone_secs and not found and tries < TRIES:
            found, again_secs, pss = measure(endpoint, model, scratch, alone=False, second=second)
            secs, tries = min(secs, again_secs), tries + 1
    problems = [f"one process: {p}" for p in problems + more] + found
    if pss > PSS_FACTOR_MAX:
        problems.append(f"Pss is {pss:.3f} times the model")
    if secs > WALL_FACTOR_MAX * alone_secs:
        problems.append(f"{secs:.1f} s, one process needs {alone_secs:.1f} s")
    value = f"Pss {pss:.4f} of the model; {secs:.2f} s, {secs / alone_secs:.3f} times one process"
    return from_problems(value, problems, f"one process {before_secs:.2f} s before and {after_secs:.2f} s after; {tries} of at most {TRIES} tries")


def two_engines() -> Measure:
    return together(second=True)


def listed_free_bytes() -> int:
    """Free pages on the kernel's lists of each CPU: MemFree does not count them, and after a gigabyte was freed they
    can hold hundreds of MiB (high_max of /proc/zoneinfo) until a process needs them."""
    counts = re.findall(r"^\s+count:\s+(\d+)$", Path("/proc/zoneinfo").read_text(), re.MULTILINE)
    return sum(map(int, counts)) * os.sysconf("SC_PAGE_SIZE")


def used_bytes(ours: list[int]) -> tuple[int, int]:
    """What the node has in use (MemTotal less MemAvailable and less the free pages it leaves out), without the
    anonymous memory of all processes but ours (builds and tests beside this one), and its shared memory."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    value = {name: int(text.split()[0]) * 1024 for name, text in lines.items()}
    own = 0
    for pid in ours:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        own += sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:"))
    available = value["MemAvailable"] + listed_free_bytes()
    return value["MemTotal"] - available - value["AnonPages"] + own, value["Shmem"]


def back_to(before: tuple[int, int], closed: float, ours: Callable[[], list[int]]) -> tuple[str, bool]:
    """The growth that is left 4 s after the close, the least of the samples of the half second before; good within
    the limit. Samples, since a guest's kernel takes free memory off its lists, up to 32 blocks of 2 MiB at a time,
    while it reports them to the host (page_reporting.c)."""
    time.sleep(max(0.0, BACK_SECS - SAMPLE_SECS - (time.monotonic() - closed)))
    left = [now - then for now, then in zip(used_bytes(ours()), before)]
    while time.monotonic() - closed < BACK_SECS:
        time.sleep(SAMPLE_SECS / 10)
        left = [min(least, now - then) for least, now, then in zip(left, used_bytes(ours()), before)]
    return f"{left[0] / MIB:+.0f} MiB in use, {left[1] / MIB:+.0f} MiB shared", max(left) <= BACK_BYTES_MAX


def release_once(endpoint: Endpoint, model: str, scratch: Path, expire: int) -> tuple[list[str], list[str]]:
    """Lines about what was left, and problems. One client stays all the time, so that the engine does."""
    sums = plain_sums(model)
    config = {"materializeBytes": folder.MATERIALIZE_BYTES, "expireTimeSec": expire, "lingerSec": 5}
    said: list[str] = []
    problems: list[str] = []
    with Run(endpoint, model, config=config) as run:
        first = str(next(iter(sums)))
        stayer = Readers(scratch, [first])
        readers = Readers(scratch, list(sums))

        def ours() -> list[int]:
            return run.engines() + stayer.pids()

        before = used_bytes(ours())

        def check(what: str, close: Callable[[], object]) -> None:
            loaded = used_bytes(ours())[1] - before[1]
            close()
            text, good = back_to(before, time.monotonic(), ours)
            said.append(f"{what}: {loaded / MIB:+.0f} MiB shared before, then {text}")
            if not good:
                problems.append(said[-1])

        stayer.start(run, run.env(), way="read")
        readers.start(run, run.env(), way="read")
        problems += [] if readers.wait(1) and stayer.wait(1) else ["not read in time"]
        problems += readers.problems(sums, 1)
        # Its files are closed already: the engine looks once a second, so the clock starts with its end.
        check("closed", lambda: None)
        holder = Readers(scratch, list(sums))
        process = holder.start(run, run.env(), way="hold")
        problems += [] if holder.wait(1) else ["not mapped in time after the release"]
        problems += holder.problems(sums, 1)

        def kill() -> None:
            process.kill()
            process.wait()

        check("reader killed", kill)
        again = Readers(scratch, list(sums))
        again.start(run, run.env(), way="map")
        problems += [] if again.wait(1) else ["not mapped in time after the second release"]
        problems += again.problems(sums, 1)
        again.end()
        time.sleep(BACK_SECS)
        stayer.again()
        problems += [] if stayer.wait(1, rounds=2) else ["not read in time by a program that had read it before"]
        problems += stayer.problems({first: sums[first]}, 1, rounds=2)
        check("read again by the same program", lambda: None)
        for each in (stayer, readers):
            each.end()
        if run.engine_starts() != 1:
            problems.append(f"{run.engine_starts()} engines")
    return said, problems


def released(expire: int = EXPIRE_SECS, tries: int = TRIES) -> Measure:
    model = models.ensure("shards", scale.size_mib or RELEASE_SIZE_MIB)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        endpoint = stack.enter_context(Endpoint(paths.BUCKETS, scratch))
        seen: list[str] = []
        for number in range(1, tries + 1):
            said, problems = release_once(endpoint, model, scratch, expire)
            if not problems:
                break
            seen += problems
    spread = "; ".join([f"{number} of at most {tries} tries", *(seen if not problems else [])])
    return from_problems("; ".join(said), problems, spread)


def never_released() -> Measure:
    return released(expire=-1, tries=1)
