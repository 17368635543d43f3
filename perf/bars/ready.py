"""Bar about a model that is ready: reads in large steps cost less than the kernel's own of a file in tmpfs, and a map
of it costs the same as one of such a file.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from perf.bars import calls
from tests.harness import compile as compiler
from tests.harness import folder, models, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems, scale
from tests.harness.run import Run, plain_env

MIB = 1024 * 1024
SIZE_MIB = 512
READS = 1000
PAIRS = 15
READ_FACTOR_MAX = 0.6
# Where a plain memcpy of the same bytes takes so much of the kernel's CPU that with this over it no read can be in the
# limit (kernels and processors differ: 0.42 on AMD Milan, 0.67 on Intel Sapphire Rapids), this is the limit.
COPY_FACTOR_MAX = 1.15
MAP_FACTOR_MAX = 1.05
# Faults of a program that maps and touches; the library's own few are no share of them.
FAULT_FACTOR_MAX = 1.02
# Maps are compared on the same pages, the engine's own memory files, which are files in tmpfs: with huge pages they
# would win, and where other pages of 4 KiB lie makes a fifth of difference.
MAP_KIND = "memfd"


def copy_by_pages(source: Path, target: Path) -> None:
    """A copy on pages of 4 KiB: for larger writes newer kernels take larger ones."""
    with open(source, "rb") as read, open(target, "wb", buffering=0) as written:
        while page := read.read(4096):
            written.write(page)


def mapped(files: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Faults, and CPU seconds per GB, of a program that maps each file and looks at every byte."""
    argv = [str(paths.PERF), "load", "--json", "--pattern", "mmap", *files]
    figures = json.loads(subprocess.run(argv, env=env, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout)
    return figures["faults"], figures["cpu_secs_per_gb"]


def memory_files(run: Run, model: str) -> list[str]:
    """The weights' memory files, as the engine's descriptors."""
    sizes = {size for key, size in models.sizes(model).items() if key.endswith(".safetensors")}
    links = [link for pid in run.engines() for link in Path(f"/proc/{pid}/fd").iterdir()]
    files = []
    for link in links:
        # The engine closes descriptors meanwhile, of connections for example.
        with suppress(FileNotFoundError):
            if re.search(r"/(memfd:)?o\d+( \(deleted\))?$", os.readlink(link)) and link.stat().st_size in sizes:
                files.append(str(link))
    if len(files) != len([key for key in models.sizes(model) if key.endswith(".safetensors")]):
        raise AssertionError(f"{len(files)} memory files of weights in the engine")
    return files


def read_factors(run: Run, shm: Path, block: int, model: str) -> tuple[list[float], list[float]]:
    """CPU of reading a ready file in blocks over that of the kernel's reads of 1 MiB, and over that of a memcpy of the
    same bytes, round by round."""
    program = str(compiler.program("read_cost.c"))
    managed = [program, "at", str(READS * MIB // block), str(run.model_dir / calls.FILE), str(block)]
    native = [program, "at", str(READS), str(shm / calls.FILE), str(MIB)]
    env = run.env()
    calls.cost_ns(managed, env)
    copied = [program, "copy", str(READS), memory_files(run, model)[0], str(MIB)]
    kernel, copy = [], []
    for _ in range(PAIRS):
        ours = calls.cost_ns(managed, env) * (MIB / block)
        kernel.append(ours / calls.cost_ns(native, plain_env()))
        copy.append(ours / calls.cost_ns(copied, plain_env()))
    return kernel, copy


def ready(block: int = MIB) -> Measure:
    model = models.ensure("shards", scale.size_mib or SIZE_MIB)
    problems: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="ossc-bar-") as scratch,
        tempfile.TemporaryDirectory(prefix="ossc-bar-", dir="/dev/shm") as shm,
        Endpoint(paths.BUCKETS, Path(scratch)) as endpoint,
    ):
        for path in models.folder(model).glob("*.safetensors"):
            copy_by_pages(path, Path(shm) / path.name)
        config = {"materializeBytes": folder.MATERIALIZE_BYTES, "lingerSec": 5}
        with Run(endpoint, model, config=config) as run:
            reads, copies = read_factors(run, Path(shm), block, model)
        with Run(endpoint, model, config=config) as run:
            env = run.env(OSSC_PAGES=MAP_KIND)
            managed = sorted(str(run.model_dir / p.name) for p in models.folder(model).glob("*.safetensors"))
            mapped(managed, env)
            native = memory_files(run, model)
            maps = [(mapped(managed, env), mapped(native, plain_env())) for _ in range(PAIRS)]
    cpu = [one[1] / other[1] for one, other in maps]
    faults = [one[0] / other[0] for one, other in maps]
    copy_share = statistics.median(kernel / copy for kernel, copy in zip(reads, copies))
    value = (
        f"pread of 1 MiB with pages mapped {statistics.median(reads):.3f} times the kernel's CPU, "
        f"{statistics.median(copies):.3f} times that of a memcpy, which is {copy_share:.3f} times the kernel's; "
        f"map {statistics.median(cpu):.3f} times the CPU and {statistics.median(faults):.3f} times the faults of a tmpfs file"
    )
    reachable = copy_share * COPY_FACTOR_MAX <= READ_FACTOR_MAX
    if statistics.median(reads) > READ_FACTOR_MAX and (reachable or statistics.median(copies) > COPY_FACTOR_MAX):
        problems.append(f"pread {statistics.median(reads):.3f}, {statistics.median(copies):.3f} times a memcpy")
    if statistics.median(cpu) > MAP_FACTOR_MAX:
        problems.append(f"map: CPU {statistics.median(cpu):.3f}")
    if statistics.median(faults) > FAULT_FACTOR_MAX:
        problems.append(f"map: faults {statistics.median(faults):.3f}")
    spreads = f"pread {min(reads):.3f} to {max(reads):.3f}, over memcpy {min(copies):.3f} to {max(copies):.3f}, map CPU {min(cpu):.3f} to {max(cpu):.3f}, faults {min(faults):.3f} to {max(faults):.3f}, {PAIRS} pairs"
    return from_problems(value, problems, spreads)


def ready_control() -> Measure:
    """The program reads in steps of 512 bytes: each pays for a call."""
    return ready(block=512)
