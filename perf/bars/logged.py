"""What it costs to log everything: whole loads at logLevel 0 and at logLevel 3, in turns.

Part of the bar "operate 6". What is judged is the CPU of all processes but the server: the median of the rounds' ratios, told
with the interval that holds it. The thread that writes the lines is looked at by itself, too: its share of a load is the same
on a busy machine. Both sides write the audit file; the files are on the same disk.
"""

from __future__ import annotations

import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from perf.speed import loads
from perf.speed.table import CONFIDENCE, interval
from tests.harness import models, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import scale

SIZE_MIB = 512
ROUNDS = 31
FACTOR_MAX = 1.03
WRITER = "ossc-journal"
# 128 times as many requests, and as many lines, as the other side: for the control.
MANY_LINES: dict[str, Any] = {"partBytes": 64 << 10}


def cost(more: dict[str, Any] | None = None) -> tuple[str, list[str]]:
    """The ratio of a load that logs everything, with `more` in its configuration, to one that logs errors; what is over the
    limit."""
    model = models.ensure("shards", scale.size_mib or SIZE_MIB)
    configs: list[dict[str, Any]] = [{"logLevel": 0, **(more or {})}, {"logLevel": 3}]
    cpu: list[list[float]] = [[], []]
    written: list[float] = []
    shares: list[float] = []

    def counted(pid: int) -> float:
        written.append(loads.cpu_of_threads(pid, WRITER))
        return loads.cpu_of_threads(pid)

    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        endpoint = stack.enter_context(Endpoint(paths.BUCKETS, scratch))
        rounds = scale.runs or ROUNDS
        for number in range(rounds):
            for side in (0, 1) if number % 2 else (1, 0):
                cpu[side].append(loads.connector(endpoint, model, configs[side], cpu=counted).cpu_secs)
                if side == 0:
                    shares.append(written[-1] / cpu[0][-1])
            print(f"  round {number + 1} of {rounds}: CPU {cpu[0][-1]:.3f} s at level 0, {cpu[1][-1]:.3f} s at level 3", flush=True)
    ratios = [a / b for a, b in zip(*cpu, strict=True)]
    factor, (low, high) = statistics.median(ratios), interval(ratios)
    value = (
        f"CPU at logLevel 0 is {factor:.3f} times that at 3 (median of {rounds} rounds, in {CONFIDENCE:.0%} of cases {low:.3f} to {high:.3f}, "
        f"all {min(ratios):.3f} to {max(ratios):.3f}; {statistics.median(cpu[0]):.3f} s and {statistics.median(cpu[1]):.3f} s); "
        f"the thread that writes takes {statistics.median(shares):.2%} of it"
    )
    over = factor > FACTOR_MAX or statistics.median(shares) > FACTOR_MAX - 1
    return value, [f"{value}, at most {FACTOR_MAX}"] if over else []
