"""Bar about what the library costs where it has nothing to do, and what one small read of a ready object costs.

Instructions are counted by callgrind (Debian: valgrind), so they do not depend on the machine; times are taken
in pairs with the kernel's own read of a tmpfs file, so that a slow minute falls on both.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

from tests.harness import compile as compiler
from tests.harness import folder, models, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems
from tests.harness.run import Run, plain_env

INERT_SHARE_MAX = 0.01
UNMANAGED_INSTRUCTIONS_MAX = 20
PREAD_FACTOR_MAX = 1.2
BLOCK = 4096
# Between the two counts of one program lie so many reads. Its start takes some instructions more or less each time
# (the digits of a pid, say): a thousandth of one for each read.
FEW, MANY = 1_000, 101_000
DECIMALS = 2
PREADS = 200_000
PAIRS = 15
SIZE_MIB = 512
FILE = "model-00001-of-00008.safetensors"
KINDS = ("tmpfs", "memfd")
COLLECTED = re.compile(rb"Collected : (\d+)")


def instructions(argv: list[str], env: dict[str, str], scratch: Path) -> int:
    """Instructions of a program from its first, the dynamic linker's, to its last."""
    if shutil.which("valgrind") is None:
        raise RuntimeError("valgrind is missing: run ci/setup perf")
    tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={scratch}/callgrind.out"]
    done = subprocess.run([*tool, *argv], env=env, capture_output=True, stdin=subprocess.DEVNULL, check=True)
    found = COLLECTED.search(done.stderr)
    if found is None:
        raise RuntimeError(f"callgrind counted nothing: {done.stderr[-500:]!r}")
    return int(found[1])


def inert_share(scratch: Path, env: dict[str, str]) -> float:
    """What the library adds to `python3 -c pass`, as a share of its instructions."""
    argv = [os.path.realpath(paths.VENV_PYTHON), "-c", "pass"]
    plain = {**plain_env(), "PYTHONHASHSEED": "0"}
    native = instructions(argv, plain, scratch)
    return instructions(argv, {**plain, **env}, scratch) / native - 1


def unmanaged_instructions(scratch: Path, env: dict[str, str], how: str) -> float:
    """What the active library adds to one read of a file on MODEL_DIR's device that is none of its own."""
    file = scratch / "unmanaged"
    # A hole so large that its reader never has to go back to the beginning.
    file.touch()
    os.truncate(file, 2 * MANY * BLOCK)

    def each(env: dict[str, str]) -> float:
        few, many = (
            instructions([str(compiler.program("read_cost.c")), how, str(count), str(file), str(BLOCK)], env, scratch)
            for count in (FEW, MANY)
        )
        return (many - few) / (MANY - FEW)

    return round(each(env) - each(plain_env()), DECIMALS)


def cost_ns(argv: list[str], env: dict[str, str]) -> float:
    """CPU nanoseconds of one read."""
    done = subprocess.run(argv, env=env, capture_output=True, check=True, stdin=subprocess.DEVNULL)
    return float(done.stdout.split()[1])


def pread_factors(run: Run, kind: str, how: str) -> list[float]:
    """CPU of a 4 KiB read of a ready object over that of the same read of a tmpfs file, pair by pair."""
    program, ours = str(compiler.program("read_cost.c")), str(run.model_dir / FILE)
    with tempfile.TemporaryDirectory(prefix="ossc-bar-", dir="/dev/shm") as shm:
        copy = shutil.copyfile(models.folder(run.prefix.strip("/")) / FILE, Path(shm) / FILE)
        native = [program, "at", str(PREADS), str(copy), str(BLOCK)]
        managed = [program, how, str(PREADS), ours, str(BLOCK)]
        env = run.env(OSSC_PAGES=kind)
        cost_ns(managed, env)
        return [cost_ns(managed, env) / cost_ns(native, plain_env()) for _ in range(PAIRS)]


def cost(active: bool = False, how: str = "next", pread: str = "at") -> Measure:
    model = models.ensure("shards", SIZE_MIB)
    problems: list[str] = []
    parts: list[str] = []
    spreads: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as name, Endpoint(paths.BUCKETS, Path(name)) as endpoint:
        scratch = Path(name)
        with Run(endpoint, model, config={"materializeBytes": folder.MATERIALIZE_BYTES, "lingerSec": 5}) as run:
            env = run.env(2)
            inert = env if active else {"LD_PRELOAD": str(paths.PRELOAD)}
            share = inert_share(scratch, inert)
            parts.append(f"python3 -c pass {share:+.2%} instructions")
            if share > INERT_SHARE_MAX:
                problems.append(parts[-1])
            added = unmanaged_instructions(scratch, env, how)
            parts.append(f"unmanaged read {added:+.2f} instructions")
            if added > UNMANAGED_INSTRUCTIONS_MAX:
                problems.append(parts[-1])
        for kind in KINDS:
            with Run(endpoint, model, config={"materializeBytes": folder.MATERIALIZE_BYTES}) as run:
                factors = pread_factors(run, kind, pread)
            median = statistics.median(factors)
            parts.append(f"4 KiB pread from {kind} {median:.3f} times the kernel's")
            spreads.append(f"{kind} {min(factors):.3f} to {max(factors):.3f} over {PAIRS} pairs")
            if median > PREAD_FACTOR_MAX:
                problems.append(parts[-1])
    return from_problems("; ".join(parts), problems, "; ".join(spreads))


def cost_control() -> Measure:
    """The process is active, the unmanaged reads end at end-of-file, and read() stands in for pread()."""
    return cost(active=True, how="end", pread="next")
