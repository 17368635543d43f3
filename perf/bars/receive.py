"""Bar about the receive: what the engine's drivers cost beside the floor of the same memory, and beside other clients.

Every ratio is of runs of the same round, on the same server, in turns (perf/speed). nginx serves on a core of its own.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from perf.speed import rows, server, table
from perf.speed.measure import Run, in_turns
from tests.harness.measure import Measure, from_problems, scale

SIZE_MIB = 1024
ROUNDS = 7
CONNECTIONS = (16, 64)
CPU_FACTOR_MAX = 1.15
SPEED_FACTOR_MIN = 0.95
MEMORIES = ("tmpfs-huge", "memfd")
DRIVERS = ("uring", "epoll")
# How bodies come to memory, and what the floor of the same is called. Plain HTTP is spliced; what cannot be (TLS, a
# sandbox without it) is received through the mapping.
WAYS = {"": "floor", " splice": "splice floor"}
# CPU of the engine on huge pages over that of the client.
PEERS = {"osstorchconnector": 0.55, "s5cmd": 0.35, "Run:ai Model Streamer": 0.2}
# Every peer: with 4 KiB pages the engine has to be cheaper at all.
CHEAPER = 1.0


def cores() -> tuple[int, int]:
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


def wanted_rows() -> list[rows.Row]:
    names = [f"engine {driver} no-crc {memory}{way}" for driver in DRIVERS for memory in MEMORIES for way in WAYS]
    names += [f"{floor} {memory}" for memory in MEMORIES for floor in WAYS.values()]
    names += [f"engine {driver} crc {memory} splice" for driver in DRIVERS for memory in MEMORIES]
    return [row for row in rows.receive_rows(MEMORIES) if row.name in names]


def judge(runs: list[Run], connections: int, ways: dict[str, str]) -> tuple[list[str], list[str]]:
    """What was found, and problems."""
    said, problems = [], []

    def say(text: str, good: bool) -> None:
        said.append(f"{connections} connections, {text}")
        if not good:
            problems.append(said[-1])

    for memory in MEMORIES:
        for driver, (way, floor) in product(DRIVERS, ways.items()):
            name = f"engine {driver} no-crc {memory}{way}"
            cpu = table.ratios(runs, name, f"{floor} {memory}", lambda run: run.cpu_per_gb)
            speed = table.ratios(runs, name, f"{floor} {memory}", lambda run: run.gb_per_sec)
            good = statistics.median(cpu) <= CPU_FACTOR_MAX and statistics.median(speed) >= SPEED_FACTOR_MIN
            say(f"{name}: CPU {table.spread(cpu)}, speed {table.spread(speed)} times the {floor}", good)
        for driver in DRIVERS:
            name = f"engine {driver} crc {memory} splice"
            cpu = table.ratios(runs, name, name.replace("crc", "no-crc"), lambda run: run.cpu_per_gb)
            say(f"{name}: CPU {table.spread(cpu)} times that without", True)
        for peer in sorted({run.row for run in runs if run.group == "peer"}):
            limit = PEERS.get(peer, CHEAPER) if memory == "tmpfs-huge" else CHEAPER
            cpu = table.ratios(runs, f"engine uring no-crc {memory} splice", peer, lambda run: run.cpu_per_gb)
            say(f"{memory}: CPU {table.spread(cpu)} times {peer}'s (limit {limit})", statistics.median(cpu) <= limit)
    return said, problems


def measured(wanted: list[rows.Row]) -> Iterator[tuple[int, list[Run], dict[str, str]]]:
    """The runs of all rows for each number of connections, and why rows are missing."""
    at_server, at_client = cores()
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as scratch:
        for connections in CONNECTIONS:
            served = server.make_object(scale.size_mib or SIZE_MIB)
            with server.Nginx(served, Path(scratch) / str(connections), at_server) as nginx:
                yield connections, *in_turns(wanted, nginx, connections, at_client, scale.runs or ROUNDS)


def judged(said: list[str], problems: list[str]) -> Measure:
    measure = from_problems(f"{len(said)} ratios", problems)
    measure.notes = [f"PROBLEM {problem}" for problem in problems] + said
    return measure


def received(ways: dict[str, str] = WAYS, peers: bool = True) -> Measure:
    said: list[str] = []
    problems: list[str] = []
    for connections, runs, left_out in measured(wanted_rows() + (rows.peer_rows() if peers else [])):
        found, more = judge(runs, connections, ways)
        said += found
        own = ("engine", "floor", "splice")
        problems += more + [f"left out {name}: {why}" for name, why in left_out.items() if name in PEERS or name.startswith(own)]
    return judged(said, problems)


def received_control() -> Measure:
    """The engine receives through a mapping what it has to splice."""
    return received({"": WAYS[" splice"]}, peers=False)
