"""Bar about small reads: an index, a vector store or a database in the bucket, read at random while it is cold.

A program of 64 threads preads 4 KiB here and there in a file of 6 GB that was never read, over a line of 100 MB/s.
What it waits for is what lies around its bytes, not a part of 8 MiB; what crosses the line is counted by the endpoint;
what lies in memory by the kernel. Each word of the file says its own place, so that bytes of another place are seen.
With --against DIR a sequential read of a cold file is compared with that build's, in turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.harness import paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems, scale
from tests.harness.run import Run

MIB = 1 << 20
SIZE_MIB = 6 << 10
SEQUENTIAL_MIB = 256
RATE = 100_000_000
THREADS = 64
READS, READS_TIGHT, READS_CONTROL = 100, 400, 10
READ_BYTES = 4096
TIGHT_BYTES = 1 << 30
P50_SECS_MAX = 0.3
TIMES_MAX = 20.0
SEQUENTIAL_FACTOR_MAX = 1.01
ROUNDS = 7
PROGRAM_SECS_MAX = 500.0
DRIVERS = ("uring", "epoll")
# The root of an endpoint of its own: others need not hash 6 GB.
ROOT = paths.CACHE / "small-reads"
# Prints seconds of each read, the number of wrong ones, and waits for a line before it ends.
CLIENT = """
import json, os, random, sys, threading, time
from array import array
path, threads, reads, size, seed = sys.argv[1], *map(int, sys.argv[2:6])
fd = os.open(path, os.O_RDONLY)
pages = os.fstat(fd).st_size // size
found = []
def read(number):
    choose = random.Random(seed << 16 | number)
    for _ in range(reads):
        at = choose.randrange(pages) * size
        begin = time.monotonic()
        data = os.pread(fd, size, at)
        secs = time.monotonic() - begin
        found.append((secs, data == array("Q", range(at // 8, (at + size) // 8)).tobytes()))
every = [threading.Thread(target=read, args=(number,)) for number in range(threads)]
for thread in every:
    thread.start()
for thread in every:
    thread.join()
print(json.dumps({"secs": [secs for secs, _ in found], "wrong": sum(not right for _, right in found)}), flush=True)
sys.stdin.readline()
"""
# Reads a file from its beginning to its end in steps; prints the seconds, and those of the CPU that it took itself.
SEQUENTIAL = """
import os, sys, time
fd, step = os.open(sys.argv[1], os.O_RDONLY), int(sys.argv[2])
begin, buffer, got = time.monotonic(), bytearray(step), 0
while count := os.readv(fd, [buffer]):
    got += count
assert got == os.fstat(fd).st_size, got
print(time.monotonic() - begin)
"""


@dataclass
class Reads:
    """What random reads found."""

    p50: float
    p99: float
    wrong: int
    # Bytes that crossed the line for each byte read.
    times: float
    # Bytes of the memory files.
    memory: int


def ensure(name: str, size_mib: int) -> Path:
    """A file whose words say their own places, in a folder of its own."""
    file = ROOT / paths.BUCKET / f"{name}-{size_mib}" / (f"{name}.safetensors" if name == "weights" else f"{name}.bin")
    if not file.exists():
        making = ROOT / f".making-{os.getpid()}"
        making.parent.mkdir(parents=True, exist_ok=True)
        with open(making, "wb") as out:
            out.writelines(array("Q", range(start, start + MIB // 8)).tobytes() for start in range(0, size_mib * MIB // 8, MIB // 8))
        file.parent.mkdir(parents=True, exist_ok=True)
        making.rename(file)
    return file


@contextmanager
def endpoint(file: Path, rate: int | None) -> Iterator[Endpoint]:
    """Serves the folder of one file alone, so that no more is hashed."""
    with tempfile.TemporaryDirectory(prefix="ossc-bar-", dir=ROOT) as name:
        bucket = Path(name) / "root" / paths.BUCKET
        (bucket / file.parent.name).mkdir(parents=True)
        os.link(file, bucket / file.parent.name / file.name)
        with Endpoint(Path(name) / "root", Path(name), options=[] if rate is None else ["--rate-bytes-per-sec", str(rate)]) as served:
            yield served


def memory_bytes(run: Run) -> int:
    """What the memory files of the run's engine take, as the kernel counts it."""
    found: dict[tuple[int, int], int] = {}
    for pid in run.engines():
        for number in os.listdir(f"/proc/{pid}/fd"):
            try:
                target, status = os.readlink(f"/proc/{pid}/fd/{number}"), os.stat(f"/proc/{pid}/fd/{number}")
            except OSError:
                continue
            if Path(target.removesuffix(" (deleted)").removeprefix("/memfd:")).name.strip("o").isdigit() and status.st_size > MIB:
                found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def random_reads(file: Path, io: str, reads: int, limit: int | None = None, products: Path = paths.PRODUCTS) -> Reads:
    config = {} if limit is None else {"memoryLimit": limit}
    with endpoint(file, RATE) as served, Run(served, file.parent.name, config=config, io=io, products=products) as run:
        argv = [str(paths.VENV_PYTHON), "-c", CLIENT, str(run.model_dir / file.name), str(THREADS), str(reads), str(READ_BYTES), str(scale.seed)]
        program = run.start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert program.stdout is not None and program.stderr is not None
        line = program.stdout.readline()
        memory = memory_bytes(run)
        _, errors = program.communicate(b"\n", timeout=PROGRAM_SECS_MAX)
        if program.returncode != 0:
            raise AssertionError(f"the reader failed: {errors.decode()}\n{run.log_tail()}")
        found = json.loads(line)
        secs = sorted(found["secs"])
        sent = sum(r.bytes_sent for r in served.requests() if r.method == "GET" and r.key.endswith(file.name))
    return Reads(statistics.median(secs), secs[len(secs) * 99 // 100], found["wrong"], sent / (len(secs) * READ_BYTES), memory)


def problems_of(what: str, found: Reads, limit: int | None) -> list[str]:
    problems = []
    if found.p50 > P50_SECS_MAX:
        problems.append(f"{what}: half of the reads take more than {found.p50:.2f} s")
    if found.times > TIMES_MAX:
        problems.append(f"{what}: {found.times:.1f} bytes are fetched for each that is read")
    if found.wrong:
        problems.append(f"{what}: {found.wrong} reads got other bytes")
    if limit is not None and found.memory > limit:
        problems.append(f"{what}: {found.memory // MIB} MiB are in memory")
    return problems


def said_of(what: str, found: Reads) -> str:
    return f"{what}: p50 {found.p50:.3f} s, p99 {found.p99:.3f} s, {found.times:.1f} bytes fetched per byte, {found.memory // MIB} MiB in memory, {found.wrong} wrong"


def sequential_secs(file: Path, rate: int | None, step: int, products: Path) -> float:
    with endpoint(file, rate) as served, Run(served, file.parent.name, products=products) as run:
        done = run.call([str(paths.VENV_PYTHON), "-c", SEQUENTIAL, str(run.model_dir / file.name), str(step)])
        if done.returncode != 0:
            raise AssertionError(f"the reader failed: {done.stderr.decode()}\n{run.log_tail()}")
        return float(done.stdout)


def sequential(against: Path) -> tuple[list[str], list[str]]:
    """A cold file from its beginning to its end, by this build and another one in turns: the median of the ratios."""
    file = ensure("sequence", SEQUENTIAL_MIB)
    said, problems = [], []
    for rate, step in ((RATE, 32 << 10), (RATE, MIB), (None, MIB)):
        ratios = []
        for number in range(ROUNDS):
            pair = [paths.PRODUCTS, against] if number % 2 else [against, paths.PRODUCTS]
            secs = {build: sequential_secs(file, rate, step, build) for build in pair}
            ratios.append(secs[paths.PRODUCTS] / secs[against])
        what = f"sequential in steps of {step >> 10} KiB, {'unshaped' if rate is None else f'{rate // 1_000_000} MB/s'}"
        factor = statistics.median(ratios)
        said.append(f"{what}: {factor:.4f} ({min(ratios):.4f} to {max(ratios):.4f}) times the other build's seconds")
        print(f"  {said[-1]}", flush=True)
        # Without a limit of the line the machine's other work decides.
        if rate is not None and factor > SEQUENTIAL_FACTOR_MAX:
            problems.append(f"{what}: {factor:.4f} times the other build's seconds")
    return said, problems


def small() -> Measure:
    file = ensure("index", scale.size_mib or SIZE_MIB)
    problems: list[str] = []
    lines: list[str] = []
    for io in DRIVERS:
        for limit, reads in ((None, READS), (TIGHT_BYTES, READS_TIGHT)):
            what = io if limit is None else f"{io}, memoryLimit {limit // MIB} MiB"
            found = random_reads(file, io, scale.runs or reads, limit)
            lines.append(said_of(what, found))
            print(f"  {lines[-1]}", flush=True)
            problems += problems_of(what, found, limit)
    if scale.against is not None:
        said, found_problems = sequential(scale.against)
        lines += said
        problems += found_problems
    else:
        lines.append("sequential reads not compared: name another build with --against")
    return from_problems("; ".join(lines), problems)


def small_control() -> Measure:
    """With another build that one; else a file that is fetched ahead, of which readers wait for parts."""
    against = scale.against
    file = ensure("index" if against else "weights", scale.size_mib or SIZE_MIB)
    begin = time.monotonic()
    found = random_reads(file, DRIVERS[0], READS_CONTROL, products=against or paths.PRODUCTS)
    what = "the other build" if against else "a file that is fetched ahead"
    return from_problems(said_of(what, found) + f" in {time.monotonic() - begin:.0f} s", problems_of(what, found, None))
