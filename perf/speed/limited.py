"""Loads over a network with limits: how much of what its connections can carry is used, though some answers crawl.

The endpoint shapes each connection by fault rules (tests/endpoint/FAULTS.md): a rate, a first byte that takes its
time, and a seeded share of answers that are ten times slower in both. No real network is involved.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from tests.harness import folder, models, paths, warm
from tests.harness.endpoint import Endpoint
from tests.harness.run import Run

MIB = 1024 * 1024
CONNECTIONS = 64
BYTES_PER_SEC = 8_000_000
FIRST_BYTE_MS = 20
SLOW_SHARE, SLOW_FACTOR = 0.01, 10
DEMAND_BYTES = 64 * MIB
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
        warm.held(models.weights(model)),
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
    return {**found, "twice": served / models.weights(model) - 1}


def rates(model: str, seeds: range, twice: int, io: str | None = None) -> tuple[list[float], list[float]]:
    """Share of the connections' joint rate, and share of bytes sent twice, for each seed."""
    found = [load(model, seed, twice, DRIVERS[seed % 2] if io is None else io) for seed in seeds]
    possible = CONNECTIONS * BYTES_PER_SEC
    return [models.weights(model) / one["loaded"] / possible for one in found], [one["twice"] for one in found]
