"""Bar about a network with limits: how much of what its connections can carry is used, though some answers crawl.

The endpoint shapes each connection by fault rules (tests/endpoint/FAULTS.md): a rate, a first byte that takes its
time, and a seeded share of answers that are ten times slower in both. No real network is involved.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.harness import folder, models, paths, warm
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems, scale
from tests.harness.run import Run

MIB = 1024 * 1024
CONNECTIONS = 64
BYTES_PER_SEC = 8_000_000
FIRST_BYTE_MS = 20
SLOW_SHARE, SLOW_FACTOR = 0.01, 10
SIZE_MIB = 4096
SEEDS = 20
RATE_SHARE_MIN = 0.90
TWICE_SHARE_MAX = 0.03
DEMAND_BYTES = 64 * MIB
DEMAND_FACTOR_MAX = 2.0
# Seconds from the first request: the answers under way end together at first, and one after the other later.
DEMAND_MOMENTS = (1.0, 1.3, 1.6, 1.9, 2.2)
LOAD_SECS_MAX = 300.0
DRIVERS = ("uring", "epoll")
# Maps every weight file, which waits until all of it is there and verified; prints seconds since its beginning,
# and so many seconds later, meanwhile, or afterwards (`last`) the seconds that a read of a file takes which nothing has
# fetched.
CLIENT = """
import mmap, os, pathlib, sys, time
base, begin, what, count = pathlib.Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3], int(sys.argv[4])
def demand():
    fd = os.open(base / "extra" / "large.bin", os.O_RDONLY)
    at = time.clock_gettime(time.CLOCK_MONOTONIC)
    got = len(os.pread(fd, count, 0))
    assert got == count, got
    print("demand", time.clock_gettime(time.CLOCK_MONOTONIC) - at, flush=True)
if what not in ("none", "last"):
    time.sleep(float(what))
    demand()
for file in sorted(base.glob("*.safetensors")):
    with open(file, "rb") as opened:
        mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ).close()
print("loaded", time.clock_gettime(time.CLOCK_MONOTONIC) - begin, flush=True)
if what == "last":
    demand()
"""


def rules(seed: int) -> list[dict[str, Any]]:
    """The endpoint's fault rules; the earlier one wins."""
    slow = {"delay_ms": FIRST_BYTE_MS * SLOW_FACTOR, "conn_bytes_per_sec": BYTES_PER_SEC // SLOW_FACTOR}
    return [
        {"match": {"kind": "get", "share": SLOW_SHARE, "seed": seed}, "do": slow},
        {"match": {"kind": "get"}, "do": {"conn_bytes_per_sec": BYTES_PER_SEC}},
        {"do": {"delay_ms": FIRST_BYTE_MS}},
    ]


def weights(model: str) -> int:
    return sum(size for key, size in models.sizes(model).items() if key.endswith(".safetensors"))


def demand_bytes(model: str) -> int:
    """64 MiB, or all of it beside a model smaller than the bar's."""
    return min(DEMAND_BYTES, models.sizes(model)[f"{model}/extra/large.bin"])


def load(model: str, seed: int, twice: int, io: str | None, demand: str = "none") -> dict[str, float]:
    """One program that maps the model: seconds, share of bytes that crossed the socket twice, seconds of a demand."""
    config = {
        "materializeBytes": folder.MATERIALIZE_BYTES, "prefetch": {"vcpus": 16, "workers": CONNECTIONS // 16},
        "twicePercent": twice, "expireTimeSec": 300,
    }
    with (
        tempfile.TemporaryDirectory(prefix="ossc-bar-") as name,
        Endpoint(paths.BUCKETS, Path(name), rules(seed)) as endpoint,
        Run(endpoint, model, config=config, io=io) as run,
        warm.held(weights(model)),
    ):
        begin = time.clock_gettime(time.CLOCK_MONOTONIC)
        count = demand_bytes(model) if demand != "none" else 0
        argv = [str(paths.VENV_PYTHON), "-c", CLIENT, str(run.model_dir), str(begin), demand, str(count)]
        done = run.call(argv, timeout=LOAD_SECS_MAX)
        if done.returncode != 0:
            raise AssertionError(f"the client failed: {done.stderr.decode()}\n{run.log_tail()}")
        served = sum(
            r.bytes_sent for r in endpoint.requests()
            if r.method == "GET" and r.key.endswith(".safetensors") and r.status in (200, 206)
        )
        found = {key: float(value) for key, value in (line.split() for line in done.stdout.decode().splitlines())}
    return {**found, "twice": served / weights(model) - 1}


def rates(model: str, seeds: range, twice: int, io: str | None = None) -> tuple[list[float], list[float]]:
    """Share of the connections' joint rate, and share of bytes sent twice, for each seed."""
    found = [load(model, seed, twice, DRIVERS[seed % 2] if io is None else io) for seed in seeds]
    possible = CONNECTIONS * BYTES_PER_SEC
    return [weights(model) / one["loaded"] / possible for one in found], [one["twice"] for one in found]


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
