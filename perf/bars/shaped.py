"""Bar about a network with limits (perf/speed/limited.py): the rate of the whole, and what a demand waits meanwhile."""

from __future__ import annotations

import statistics

from perf.speed.limited import load, rates
from tests.harness import models
from tests.harness.measure import Measure, from_problems, scale

SIZE_MIB = 4096
SEEDS = 20
RATE_SHARE_MIN = 0.90
TWICE_SHARE_MAX = 0.03
DEMAND_FACTOR_MAX = 2.0
# Seconds from the first request: the answers under way end together at first, and one after the other later.
DEMAND_MOMENTS = (1.0, 1.3, 1.6, 1.9, 2.2)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def shaped(twice: int = 2) -> Measure:
    model = models.ensure("shards", scale.size_mib or SIZE_MIB)
    seeds = range(scale.seed, scale.seed + (scale.runs or SEEDS))
    shares, doubled = rates(model, seeds, twice)
    problems = []
    if statistics.median(shares) < RATE_SHARE_MIN:
        problems.append(f"the median rate is {statistics.median(shares):.3f} of what the connections carry")
    if max(doubled) > TWICE_SHARE_MAX:
        problems.append(f"{max(doubled):.2%} of the bytes were sent twice")
    value = f"rate {spread(shares)} of the connections' over {len(seeds)} seeds; sent twice at most {max(doubled):.2%}"
    pairs = [
        (load(model, seed, twice, None, str(moment)), load(model, seed, twice, None, "last"))
        for seed, moment in enumerate(DEMAND_MOMENTS)
    ]
    factors = [busy["demand"] / idle["demand"] for busy, idle in pairs]
    value += f"; a demand of 64 MiB takes {spread(factors)} times that of an idle engine"
    if statistics.median(factors) > DEMAND_FACTOR_MAX:
        problems.append(f"a demand takes {statistics.median(factors):.2f} times its time on an idle engine")
    return from_problems(value, problems)


def shaped_control() -> Measure:
    """Nothing is asked for twice: the slow answers decide when the last byte comes."""
    model = models.ensure("shards", scale.size_mib or SIZE_MIB)
    seeds = range(scale.seed, scale.seed + min(scale.runs or SEEDS, 5))
    shares, doubled = rates(model, seeds, 0)
    median = statistics.median(shares)
    return Measure(
        f"rate {spread(shares)} of the connections' over {len(seeds)} seeds, nothing asked for twice",
        median >= RATE_SHARE_MIN and max(doubled) <= TWICE_SHARE_MAX,
    )
