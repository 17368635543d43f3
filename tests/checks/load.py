"""Bar about the load itself: each byte crosses the socket once, in parts of at most 8 MiB."""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.harness import folder, load, models, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems
from tests.harness.requestlog import bytes_served, once_problems, part_bytes_max
from tests.harness.run import PROGRAM_SECS_MAX, Run

PROCESSES = 4
DRIVERS = ("uring", "epoll")
SIZE_MIB = 1024
MIB = 1024 * 1024
# So that the shards of a smaller model are placeholders too.
SETTINGS = {"materializeBytes": folder.MATERIALIZE_BYTES}


def load_together(driver: str, size_mib: int, second_engine: bool) -> tuple[list[str], str, float]:
    """Four programs load one model at the same time; problems, a line of numbers, GB/s from start to end."""
    model = models.ensure("shards", size_mib)
    sizes = models.sizes(model)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        endpoint = stack.enter_context(Endpoint(paths.BUCKETS, scratch))
        run = Run(endpoint, model, config=SETTINGS, io=driver)
        stack.callback(run.close)
        runs = [run] * PROCESSES
        if second_engine:
            runs[-1] = Run(endpoint, model, config=SETTINGS, io=driver)
            stack.callback(runs[-1].close)
        begin = time.monotonic()
        programs = [r.start(load.loader_argv(r, scratch / f"{n}.json")) for n, r in enumerate(runs)]
        problems = [f"{driver}: program {n} ended with status {p.wait(PROGRAM_SECS_MAX)}" for n, p in enumerate(programs)]
        problems = [p for p in problems if not p.endswith("status 0")]
        secs = time.monotonic() - begin
        for n in range(PROCESSES):
            report = scratch / f"{n}.json"
            equal, text = load.verify(report, model) if report.exists() else (False, "no report")
            if not equal:
                problems.append(f"{driver}: program {n}: {text}")
        requests = endpoint.requests()
        problems += [f"{driver}: {p}" for p in once_problems(requests, sizes)]
        if run.engine_starts() != 1:
            problems.append(f"{driver}: {run.engine_starts()} engines said that they started")
        served, total = bytes_served(requests, f"{model}/"), sum(sizes.values())
        largest = part_bytes_max(requests, f"{model}/") / MIB
        line = f"{driver}: {served / total:.6f} bytes per byte, largest part {largest:.2f} MiB, {secs:.1f} s"
        log = run.log_tail()
    if run.leaks:
        problems.append(f"{driver}: an engine outlived its clients\n{log}")
    return problems, line, total / secs / 1e9


def once(size_mib: int = SIZE_MIB, second_engine: bool = False) -> Measure:
    problems: list[str] = []
    lines: list[str] = []
    speeds: list[float] = []
    for driver in DRIVERS:
        found, line, speed = load_together(driver, size_mib, second_engine)
        problems += found
        lines.append(line)
        speeds.append(speed)
    spread = f"{min(speeds):.2f} to {max(speeds):.2f} GB/s from first start to last end, mean {statistics.mean(speeds):.2f}"
    return from_problems("; ".join(lines), problems, spread)


def twice() -> Measure:
    """One of the four programs uses a folder, and so an engine, of its own."""
    return once(96, second_engine=True)
