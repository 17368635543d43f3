"""One run of one row: its process on the client's core, its CPU, memory and time, and the requests it made."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from perf.speed.rows import Place, Row
from perf.speed.server import Nginx
from tests.harness import warm
from tests.harness.run import plain_env

RUN_SECS_MAX = 300.0


class Failed(Exception):
    """The row does not work here; the text says why."""


@dataclass
class Run:
    """1 GB is 10^9 bytes; CPU is user and system time of the client's process with its children."""

    row: str
    group: str
    memory: str
    connections: int
    round: int
    bytes: int
    wall_secs: float
    cpu_secs: float
    rss_bytes: int
    requests: int

    @property
    def cpu_per_gb(self) -> float:
        return self.cpu_secs / (self.bytes / 1e9)

    @property
    def gb_per_sec(self) -> float:
        return self.bytes / 1e9 / self.wall_secs

    def line(self) -> str:
        return json.dumps({"record": "run", **asdict(self)})


def once(row: Row, server: Nginx, connections: int, core: int, number: int) -> Run:
    """Measures one run. Raises Failed with what the program said."""
    size = server.object.stat().st_size
    out = Path(tempfile.mkdtemp(prefix="ossc-speed-", dir="/dev/shm"))
    try:
        place = Place(server.object_url, server.secure_object_url, server.ca, server.port, size, connections, out, server.run)
        argv, env = row.command(place)
        before = server.requests()
        # What keeps no bytes needs no memory.
        held = nullcontext() if row.memory == "scratch" else warm.held(size, row.memory or "memfd", core)
        with held:
            run = _process(["taskset", "-c", str(core), *argv], {**bare_env(), **env})
        if row.prints:
            figures = _figures(run[0])
            cpu = figures["cpu_secs"] if "cpu_secs" in figures else figures["user_secs"] + figures["sys_secs"]
            count, wall, rss = int(figures["bytes"]), figures["wall_secs"], int(figures["rss_bytes_max"])
        else:
            count, wall, cpu, rss = size, run[1], run[2], run[3]
        if row.writes:
            count = sum(p.stat().st_size for p in out.iterdir())
        # The format's head is no tensor.
        if not size - 65536 <= count <= size:
            raise Failed(f"{count} bytes came, the object has {size}")
        return Run(row.name, row.group, row.memory, connections, number, count, wall, cpu, rss, server.requests() - before)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def bare_env() -> dict[str, str]:
    """Without the caller's proxies, and without what S3 clients would take from it."""
    env = plain_env()
    return {name: value for name, value in env.items() if not name.startswith("AWS_") and not name.lower().endswith("_proxy")}


def _process(argv: list[str], env: dict[str, str]) -> tuple[str, float, float, int]:
    """Its output, and wall seconds, CPU seconds and peak memory of the whole process with its children."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        begin = time.monotonic()
        process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
        used, status = None, 0
        while used is None:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                used = usage
            elif time.monotonic() - begin > RUN_SECS_MAX:
                process.kill()
            else:
                time.sleep(0.002)
        wall = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout.seek(0)
        stderr.seek(0)
        text, said = stdout.read().decode(errors="replace"), stderr.read().decode(errors="replace")
    if process.returncode != 0:
        raise Failed(f"status {process.returncode}: {said.strip()[-400:]}")
    assert isinstance(used, resource.struct_rusage)
    return text, wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def _figures(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if line.startswith("{")]
    if not lines:
        raise Failed(f"it printed no figures: {text[-200:]!r}")
    found: dict[str, float] = json.loads(lines[-1])
    return found


def in_turns(rows: list[Row], server: Nginx, connections: int, core: int, rounds: int) -> tuple[list[Run], dict[str, str]]:
    """Rounds of all rows, each beginning with another one; the runs, and why rows are missing."""
    left_out = {row.name: row.why for row in rows if row.why}
    rows = [row for row in rows if not row.why]
    runs: list[Run] = []
    for number in range(rounds):
        for step in range(len(rows)):
            row = rows[(step + number) % len(rows)]
            if row.name in left_out:
                continue
            try:
                run = once(row, server, connections, core, number)
            except (Failed, subprocess.CalledProcessError) as why:
                left_out[row.name] = str(why)
                print(f"speed: left out {row.name}: {why}", file=sys.stderr, flush=True)
                continue
            runs.append(run)
            print(f"round {number + 1}/{rounds} {row.name}: {run.gb_per_sec:.2f} GB/s, {run.cpu_per_gb:.3f} CPU-s/GB", file=sys.stderr, flush=True)
    return [run for run in runs if run.row not in left_out], left_out
