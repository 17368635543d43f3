"""Bar about a whole load: a new process to its last tensor, beside what the download and the load take alone."""

from __future__ import annotations

import statistics

from perf.speed import loads
from perf.speed.table import spread
from tests.harness import models
from tests.harness.measure import Measure, from_problems, scale

SIZE_MIB = 2048
RATE = 500_000_000
ROUNDS = 5
SECS_FACTOR_MAX = 1.10
CPU_FACTOR_MAX = 1.10
UNSHAPED_FACTOR_MAX = 0.5
# What people do without it.
OTHERS = {"s5cmd, then load": loads.s5cmd_then_load, "Run:ai Model Streamer": loads.runai}


def whole(config: dict[str, object] | None = None) -> Measure:
    model = models.ensure("shards", scale.size_mib or SIZE_MIB)
    secs, cpu = [], []
    against: dict[str, list[float]] = {}
    started: dict[str, list[float]] = {}
    with loads.served(rate=RATE) as (endpoint, _):
        for _ in range(scale.runs or ROUNDS):
            alone, tmpfs, both = loads.download_alone(endpoint, model), loads.from_tmpfs(model), loads.connector(endpoint, model, config)
            secs.append(both.secs / max(alone.secs, tmpfs.secs))
            cpu.append(both.cpu_secs / (alone.cpu_secs + tmpfs.cpu_secs))
    with loads.served() as (endpoint, _), loads.nginx(model) as server:
        for _ in range(scale.runs or ROUNDS):
            own = loads.connector(endpoint, model, config).secs
            for name, other in OTHERS.items():
                its = other(server, model)
                against.setdefault(name, []).append(own / its.secs)
                if its.started_secs:
                    started.setdefault(name, []).append(own / its.started_secs)
    problems = []
    value = f"{spread(secs)} times the longer of download and load, CPU {spread(cpu)} times the sum; unshaped "
    value += ", ".join(f"{spread(ratios)} times {name}" for name, ratios in against.items())
    value += "".join(f"; not judged: {spread(ratios)} times {name} with its imports done" for name, ratios in started.items())
    if statistics.median(secs) > SECS_FACTOR_MAX:
        problems.append(f"seconds {statistics.median(secs):.3f}")
    if statistics.median(cpu) > CPU_FACTOR_MAX:
        problems.append(f"CPU {statistics.median(cpu):.3f}")
    for name, ratios in against.items():
        if statistics.median(ratios) > UNSHAPED_FACTOR_MAX:
            problems.append(f"unshaped {statistics.median(ratios):.3f} times {name}")
    return from_problems(value, problems)


def whole_control() -> Measure:
    """One connection asks for 256 KiB at a time."""
    return whole({"prefetch": {"vcpus": 1, "workers": 1}, "partBytes": 256 << 10})
