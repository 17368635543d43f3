"""Bar about https: what the engine's drivers cost beside the cheapest receiver that rustls' unbuffered interface allows.

Every ratio is of runs of the same round, on the same server, in turns (perf/speed), into memory that is used again and
again, and into new pages of 4 KiB. On huge pages, whose first touch in a virtual machine costs more than the cipher and
now and then, the same rows are in ci/perf. nginx serves TLS 1.3 with AES-128-GCM on a core of its own.
"""

from __future__ import annotations

import statistics

from perf.bars import receive
from perf.speed import rows, table
from perf.speed.measure import Run
from tests.harness.measure import Measure

CPU_FACTOR_MAX = 1.05
MEMORIES = ("scratch", "memfd")
PROTOTYPE = "floor-tls"
# Not judged, on the first memory: what https costs at least, whatever receives it, and the prototype that opens the
# records itself.
GOALS = ("floor and AES-GCM scratch", "floor-tls own records scratch")
ENGINES = ("engine uring no-crc {} https", "engine epoll no-crc {} https")
SMALL = ("floor-tls small {}",)


def judge(runs: list[Run], judged: tuple[str, ...], connections: int) -> tuple[list[str], list[str]]:
    """What was found, and problems."""
    said, problems = [], []
    for memory, name in ((memory, row.format(memory)) for memory in MEMORIES for row in judged):
        cpu = [run.cpu_per_gb for run in runs if run.row == name]
        over = table.ratios(runs, name, f"{PROTOTYPE} {memory}", lambda run: run.cpu_per_gb)
        if not over:
            problems.append(f"{connections} connections, {name}: no round has both")
            continue
        said.append(f"{connections} connections, {name}: CPU {table.spread(cpu, 3)} s/GB, {table.spread(over)} times the prototype's")
        if statistics.median(over) > CPU_FACTOR_MAX:
            problems.append(said[-1])
        for goal in (goal for goal in GOALS if goal.endswith(memory)):
            said[-1] += f", {table.spread(table.ratios(runs, name, goal, lambda run: run.cpu_per_gb))} times that of {goal}"
    return said, problems


def received(engines: tuple[str, ...] = ENGINES) -> Measure:
    said: list[str] = []
    problems: list[str] = []
    names = {row.format(memory) for memory in MEMORIES for row in (PROTOTYPE + " {}", *engines)} | set(GOALS)
    wanted = [row for row in rows.https_rows(MEMORIES) if row.name in names]
    for connections, runs, left_out in receive.measured(wanted):
        found, more = judge(runs, engines, connections)
        said += found
        problems += more + [f"left out {name}: {why}" for name, why in left_out.items()]
    return receive.judged(said, problems)


def received_control() -> Measure:
    """A receiver with a buffer that is too small."""
    return received(SMALL)
