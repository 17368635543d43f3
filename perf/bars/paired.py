"""What certainty costs: cold prefetch, a whole load and reads of what is ready, of two builds in turns.

Part of the bars "bytes 4" and "engine 9". Each round runs both builds, the first one changing from round to round, and compares
them with each other only, so that a slow minute falls on both. What is judged is the CPU of all processes but the
server, summed over the rounds, since the kernel counts an engine's in steps of 10 ms; wall times are told. Without
another build there is nothing to judge.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

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
# This build's and the other's.
Pair = tuple[Cost, Cost]


def prefetch(endpoint: Endpoint, model: str, products: Path, config: dict[str, Any]) -> Cost:
    """The engine alone, until every file has come and is judged: a program maps them and touches nothing."""
    found = loads.download_alone(endpoint, model, products, config)
    return found.cpu_secs, found.secs


def load(endpoint: Endpoint, model: str, products: Path, config: dict[str, Any]) -> Cost:
    """A new process to its last tensor, nothing cached."""
    found = loads.connector(endpoint, model, config, products=products)
    return found.cpu_secs, found.secs


def reads(endpoint: Endpoint, model: str, products: Path, config: dict[str, Any]) -> Cost:
    """Reads of 1 MiB of a file that is ready, after one pass that touched all of it."""
    program = str(compiler.program("read_cost.c"))
    settings = {"materializeBytes": folder.MATERIALIZE_BYTES, "lingerSec": 1, **config}
    with Run(endpoint, model, config=settings, products=products) as run, warm.held(2 * models.weights(model)):
        argv = [program, "at", str(READS), str(run.model_dir / calls.FILE), str(MIB)]
        done = run.call(argv)
        if done.returncode != 0:
            raise RuntimeError(f"{argv}: {done.stderr.decode()}")
        wall, cpu, _ = done.stdout.split()
    return float(cpu), float(wall)


KINDS: dict[str, Callable[[Endpoint, str, Path, dict[str, Any]], Cost]] = {"cold prefetch": prefetch, "whole load": load, "warm reads": reads}


def rounds(count: int, ours: Path, against: Path, config: dict[str, Any] | None = None) -> dict[str, list[Pair]]:
    """The costs of both builds, this one's first, of so many rounds. `config` is added to this build's configuration."""
    model = models.ensure("shards", scale.size_mib or SIZE_MIB)
    found: dict[str, list[Pair]] = {name: [] for name in KINDS}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        endpoint = stack.enter_context(Endpoint(paths.BUCKETS, scratch))
        for number in range(count):
            for name, kind in KINDS.items():
                # By role, since a control compares a build with itself.
                each = {own: kind(endpoint, model, ours if own else against, (config or {}) if own else {}) for own in (number % 2 == 0, number % 2 == 1)}
                found[name].append((each[True], each[False]))
            print(f"  round {number + 1} of {count}: " + ", ".join(f"{name} CPU {a[0] / b[0]:.3f}, wall {a[1] / b[1]:.3f}" for name, pairs in found.items() for a, b in pairs[-1:]), flush=True)
    return found


def cost(against: Path | None = None, ours: Path = paths.PRODUCTS) -> tuple[str, list[str]]:
    """The ratios of this build to the other, and what is over the limit."""
    against = against or scale.against
    if against is None:
        return "cost not compared: name another build with --against", []
    said, problems = [], []
    for name, pairs in rounds(ROUNDS, ours, against).items():
        factor = sum(a[0] for a, _ in pairs) / sum(b[0] for _, b in pairs)
        said.append(f"{name}: CPU {factor:.3f} ({spread([a[0] / b[0] for a, b in pairs], 3)}), wall {spread([a[1] / b[1] for a, b in pairs], 3)} times the other build's")
        if factor > FACTOR_MAX:
            problems.append(f"{name}: CPU {factor:.3f} times the other build's, at most {FACTOR_MAX}")
    return "; ".join(said), problems
