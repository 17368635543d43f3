"""Bar about what this build costs beside another one, in turns: the engine by CPU time, the library by instructions.

CPU times of single runs differ by a fifth on a shared machine, so the bar states the median of the pairs with the
interval that holds it in 95 of 100 cases. A median over the limit fails; where the interval holds 1 more rounds (--runs)
may decide otherwise, and the bar says so.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from perf.bars import calls, paired
from perf.speed.table import CONFIDENCE, interval
from tests.harness import compile as compiler
from tests.harness import folder, models, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems, scale
from tests.harness.run import Run, plain_env

FACTOR_MAX = 1.02
ROUNDS = 25
ROUNDS_MIN = 7
READ_BYTES = 4096
# Reads of the shorter and of the longer run.
READS = (200, 1200)


def start_instructions(endpoint: Endpoint, model: str, products: Path, scratch: Path) -> tuple[int, int]:
    """Instructions of `python3 -c pass`: with the library inert, and as a program beside an engine that is up."""
    argv = [os.path.realpath(paths.VENV_PYTHON), "-c", "pass"]
    library = str(products / paths.PRELOAD.name)
    inert = calls.instructions(argv, {**plain_env(), "PYTHONHASHSEED": "0", "LD_PRELOAD": library}, scratch)
    config = {"materializeBytes": folder.MATERIALIZE_BYTES, "lingerSec": 1}
    with Run(endpoint, model, config=config, products=products) as run:
        holder = run.start(["sleep", "600"])
        try:
            run.call(["ls", str(run.model_dir)])
            active = calls.instructions(argv, run.env(2, PYTHONHASHSEED="0"), scratch)
        finally:
            holder.kill()
            holder.wait()
    return inert, active


def read_instructions(endpoint: Endpoint, model: str, products: Path, scratch: Path) -> float:
    """Instructions of one pread of 4 KiB of a file that is ready: what more reads cost, divided by their number."""
    program = str(compiler.program("read_cost.c"))
    with Run(endpoint, model, config={"materializeBytes": folder.MATERIALIZE_BYTES, "lingerSec": 1}, products=products) as run:
        path = str(run.model_dir / calls.FILE)
        holder = run.start(["tail", "-f", path], stdout=subprocess.DEVNULL)
        try:
            if run.call(["cmp", path, path]).returncode != 0:
                raise RuntimeError(f"{path} cannot be read")
            few, many = (calls.instructions([program, "at", str(reads), path, str(READ_BYTES)], run.env(2), scratch) for reads in READS)
        finally:
            holder.kill()
            holder.wait()
    return (many - few) / (READS[1] - READS[0])


def beside(config: dict[str, Any] | None = None, ours: Path = paths.PRODUCTS, against: Path | None = None) -> Measure:
    """What this build costs as a multiple of the other's; `config` is added to this build's configuration."""
    against = against or scale.against
    if against is None:
        return Measure("not compared: name another build with --against", False)
    said, spreads, problems = [], [], []
    for name, pairs in paired.rounds(max(scale.runs or ROUNDS, ROUNDS_MIN), ours, against, config).items():
        ratios = [a[0] / b[0] for a, b in pairs]
        median, (low, high) = statistics.median(ratios), interval(ratios)
        said.append(f"{name} {median:.3f} times the CPU")
        spreads.append(f"{name} {low:.3f} to {high:.3f} (all {min(ratios):.3f} to {max(ratios):.3f})")
        if median > FACTOR_MAX:
            undecided = "; two equal builds may show that, too: take more --runs" if low <= 1 else ""
            problems.append(f"{name}: {median:.3f} times the other build's CPU, {low:.3f} to {high:.3f}{undecided}")
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as name, Endpoint(paths.BUCKETS, Path(name)) as endpoint:
        model = models.ensure("shards", calls.SIZE_MIB)
        counts = [(*start_instructions(endpoint, model, build, Path(name)), read_instructions(endpoint, model, build, Path(name))) for build in (ours, against)]
    for what, own, other in zip(("python3 -c pass, inert", "the same as a program", "a read of 4 KiB"), *counts, strict=True):
        said.append(f"{what} {own / other:.4f} times the instructions")
        if own / other > FACTOR_MAX:
            problems.append(said[-1])
    return from_problems("; ".join(said), problems, f"median in {CONFIDENCE:.0%} of cases: " + "; ".join(spreads))


def beside_control() -> Measure:
    """This build beside itself, of which one has a single connection that asks for 64 KiB at a time."""
    config = {"prefetch": {"vcpus": 1, "workers": 1}, "partBytes": 64 << 10}
    return beside(config, against=paths.PRODUCTS)
