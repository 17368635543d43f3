"""Bar about the receive: what the engine's drivers cost beside the floor of the same memory, and beside other clients.

Every ratio is of runs of the same round, on the same server, in turns (ci/speed). nginx serves on a core of its own.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import bars
from bars import Measure, from_problems
from speed import rows, server, table
from speed.measure import Run, in_turns

SIZE_MIB = 1024
ROUNDS = 7
CONNECTIONS = (16, 64)
CPU_FACTOR_MAX = 1.15
SPEED_FACTOR_MIN = 0.95
MEMORIES = ("tmpfs-huge", "memfd")
# CPU of the engine on huge pages over that of the client.
PEERS = {"osstorchconnector": 0.55, "s5cmd": 0.35, "Run:ai Model Streamer": 0.2}
# Every peer: with 4 KiB pages the engine has to be cheaper at all.
CHEAPER = 1.0


def cores() -> tuple[int, int]:
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


def wanted_rows(crc: bool) -> list[rows.Row]:
    names = [f"engine {driver} {'crc' if crc else 'no-crc'} {memory}" for driver in ("uring", "epoll") for memory in MEMORIES]
    names += [f"floor {memory}" for memory in MEMORIES]
    return [row for row in rows.receive_rows(MEMORIES) if row.name in names]


def judge(runs: list[Run], crc: bool, connections: int) -> tuple[list[str], list[str]]:
    """What was found, and problems."""
    said, problems = [], []
    word = "crc" if crc else "no-crc"
    for memory in MEMORIES:
        for driver in ("uring", "epoll"):
            name = f"engine {driver} {word} {memory}"
            cpu = table.ratios(runs, name, f"floor {memory}", lambda run: run.cpu_per_gb)
            speed = table.ratios(runs, name, f"floor {memory}", lambda run: run.gb_per_sec)
            said.append(f"{connections} connections, {name}: CPU {table.spread(cpu)}, speed {table.spread(speed)} times the floor")
            if statistics.median(cpu) > CPU_FACTOR_MAX or statistics.median(speed) < SPEED_FACTOR_MIN:
                problems.append(said[-1])
        for peer in sorted({run.row for run in runs if run.group == "peer"}):
            limit = PEERS.get(peer, CHEAPER) if memory == "tmpfs-huge" else CHEAPER
            cpu = table.ratios(runs, f"engine uring {word} {memory}", peer, lambda run: run.cpu_per_gb)
            said.append(f"{connections} connections, {memory}: CPU {table.spread(cpu)} times {peer}'s (limit {limit})")
            if statistics.median(cpu) > limit:
                problems.append(said[-1])
    return said, problems


def measured(wanted: list[rows.Row]) -> Iterator[tuple[int, list[Run], dict[str, str]]]:
    """The runs of all rows for each number of connections, and why rows are missing."""
    at_server, at_client = cores()
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as scratch:
        for connections in CONNECTIONS:
            served = server.make_object(bars.scale.size_mib or SIZE_MIB)
            with server.Nginx(served, Path(scratch) / str(connections), at_server) as nginx:
                yield connections, *in_turns(wanted, nginx, connections, at_client, bars.scale.runs or ROUNDS)


def judged(said: list[str], problems: list[str]) -> Measure:
    measure = from_problems(f"{len(said)} ratios", problems)
    measure.notes = [f"PROBLEM {problem}" for problem in problems] + said
    return measure


def received(crc: bool = False, peers: bool = True) -> Measure:
    said: list[str] = []
    problems: list[str] = []
    for connections, runs, left_out in measured(wanted_rows(crc) + (rows.peer_rows() if peers else [])):
        found, more = judge(runs, crc, connections)
        said += found
        problems += more + [f"left out {name}: {why}" for name, why in left_out.items() if name in PEERS or name.startswith(("engine", "floor"))]
    # There is no splice path in the engine, so that half of the promise is open.
    problems.append("the engine has no splice path")
    return judged(said, problems)


def received_control() -> Measure:
    """The engine computes the CRC-64 of every byte, which is not in its limit."""
    return received(crc=True, peers=False)
