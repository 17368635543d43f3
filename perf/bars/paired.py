"""What certainty costs: cold prefetch, a whole load and reads of what is ready, of two builds in turns.

Part of the bar "bytes 4". Each round runs both builds, the first one changing from round to round, and compares
them with each other only, so that a slow minute falls on both. What is judged is the CPU of all processes but the
server, summed over the rounds, since the kernel counts an engine's in steps of 10 ms; wall times are told. Without
another build there is nothing to judge.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from perf.bars import calls
from perf.speed import loads
from perf.speed.table import spread
from tests.harness import compile as compiler
from tests.harness import folder, models, paths, warm
from tests.harness.endpoint import Endpoint
from tests.harness.measure import scale
from tests.harness.run import Run

SIZE_MIB = 512
ROUNDS = 11
FACTOR_MAX = 1.01
READS = 2000
MIB = 1 << 20
# What a run costs: CPU seconds and wall seconds.
Cost = tuple[float, float]


def prefetch(endpoint: Endpoint, model: str, products: Path) -> Cost:
    """The engine alone, until every file has come and is judged: a program maps them and touches nothing."""
    found = loads.download_alone(endpoint, model, products)
    return found.cpu_secs, found.secs


def load(endpoint: Endpoint, model: str, products: Path) -> Cost:
    """A new process to its last tensor, nothing cached."""
    found = loads.connector(endpoint, model, products=products)
    return found.cpu_secs, found.secs


def reads(endpoint: Endpoint, model: str, products: Path) -> Cost:
    """Reads of 1 MiB of a file that is ready, after one pass that touched all of it."""
    program = str(compiler.program("read_cost.c"))
    config = {"materializeBytes": folder.MATERIALIZE_BYTES, "lingerSec": 1}
    with Run(endpoint, model, config=config, products=products) as run, warm.held(2 * models.weights(model)):
        argv = [program, "at", str(READS), str(run.model_dir / calls.FILE), str(MIB)]
        done = run.call(argv)
        if done.returncode != 0:
            raise RuntimeError(f"{argv}: {done.stderr.decode()}")
        wall, cpu, _ = done.stdout.split()
    return float(cpu), float(wall)


KINDS: dict[str, Callable[[Endpoint, str, Path], Cost]] = {"cold prefetch": prefetch, "whole load": load, "warm reads": reads}


def cost(against: Path | None = None, ours: Path = paths.PRODUCTS) -> tuple[str, list[str]]:
    """The ratios of this build to the other, and what is over the limit."""
    against = against or scale.against
    if against is None:
        return "cost not compared: name another build with --against", []
    model = models.ensure("shards", scale.size_mib or SIZE_MIB)
    ratios: dict[str, list[Cost]] = {name: [] for name in KINDS}
    sums: dict[str, list[float]] = {name: [0.0, 0.0] for name in KINDS}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        endpoint = stack.enter_context(Endpoint(paths.BUCKETS, scratch))
        for number in range(ROUNDS):
            for name, kind in KINDS.items():
                pair = [ours, against] if number % 2 else [against, ours]
                found = {build: kind(endpoint, model, build) for build in pair}
                ratios[name].append((found[ours][0] / found[against][0], found[ours][1] / found[against][1]))
                sums[name] = [sums[name][0] + found[ours][0], sums[name][1] + found[against][0]]
            print(f"  round {number + 1} of {ROUNDS}: " + ", ".join(f"{name} CPU {values[-1][0]:.3f}, wall {values[-1][1]:.3f}" for name, values in ratios.items()), flush=True)
    said, problems = [], []
    for name, values in ratios.items():
        factor = sums[name][0] / sums[name][1]
        said.append(f"{name}: CPU {factor:.3f} ({spread([v[0] for v in values], 3)}), wall {spread([v[1] for v in values], 3)} times the other build's")
        if factor > FACTOR_MAX:
            problems.append(f"{name}: CPU {factor:.3f} times the other build's, at most {FACTOR_MAX}")
    return "; ".join(said), problems
