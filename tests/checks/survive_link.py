"""Bar about slow links: a load goes on as fast as the link allows, whatever way it is slow, and no read fails.

A drip and turns are the endpoint's (tests/endpoint/FAULTS.md). The thin link is a network namespace whose loopback
lets so many bytes through; nothing else of the machine is touched. Needs root for that.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness import faults, folder, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems, scale, selected
from tests.harness.run import Run
from tests.harness.space import Space

FACTOR_MAX = 1.3
# After so many times what the link allows a load is ended.
PATIENCE_FACTOR = 2.0
PREFIX, NAME = "slow", "weights.bin"
KIB, MIB = 1 << 10, 1 << 20
# What of a full packet on the thin link is the body's: 1448 of 1514 bytes.
PAYLOAD_SHARE = 1448 / 1514
# Half a second of data waits in front of the thin link.
THIN = "ip link set lo mtu 1500 up; tc qdisc add dev lo root tbf rate {rate}bps burst 6000 limit {queue}"


@dataclass(frozen=True)
class Kind:
    """One slow link and what is loaded over it."""

    name: str
    bytes_per_sec: int
    size: int
    connections: int
    part_bytes: int
    # Connections that drip, from the first on.
    drips: int = 0
    # The link is shaped for all bytes, in a namespace.
    thin: bool = False
    turn_bytes: int = 0

    def secs(self) -> float:
        """What the link allows."""
        return self.size / self.bytes_per_sec


KINDS = [
    *(Kind(f"drip on {drips}", 4_000_000, 240_000_000, 64, 2 * MIB, drips) for drips in (1, 8, 64)),
    Kind("thin for 26", 300_000, 26 * MIB, 26, MIB, thin=True),
    Kind("thin for 256", 300_000, 26 * MIB, 256, 104 * KIB, thin=True),
    Kind("turns for 16", 400_000, 36_000_000, 16, 2 * MIB, turn_bytes=256 * KIB),
]


def inside(space: Space | None, env: dict[str, str], argv: list[str]) -> list[str]:
    """The command line in a namespace, where the library is loaded into the program alone."""
    return [*space.prefix, "env", f"LD_PRELOAD={env.pop('LD_PRELOAD')}", *argv] if space else argv


def settings(kind: Kind, changes: dict[str, Any]) -> dict[str, Any]:
    return {
        "materializeBytes": folder.MATERIALIZE_BYTES, "partBytes": kind.part_bytes, "prefetch": {"vcpus": 2, "workers": kind.connections // 2},
        "expireTimeSec": 300, **changes,
    }


def load(kind: Kind, changes: dict[str, Any]) -> tuple[float, list[str]]:
    """One program maps one object: seconds as a multiple of what the link allows, and what was wrong."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        sums = folder.fill(scratch / "root" / paths.BUCKET / PREFIX, {NAME: kind.size}, 1)
        rate = int(kind.bytes_per_sec / PAYLOAD_SHARE)
        space = stack.enter_context(Space(THIN.format(rate=rate, queue=rate // 2), kind="net")) if kind.thin else None
        options = [] if kind.thin else ["--rate-bytes-per-sec", str(kind.bytes_per_sec)]
        options += ["--turn-bytes", str(kind.turn_bytes)] if kind.turn_bytes else []
        rules = [faults.rule({"conn_bytes_per_sec": 1}, times=kind.drips)] if kind.drips else []
        program = [*(space.prefix if space else []), str(paths.ENDPOINT)]
        endpoint = stack.enter_context(Endpoint(scratch / "root", scratch / "endpoint", rules, options, program))
        run = stack.enter_context(Run(endpoint, PREFIX, config=settings(kind, changes), products=scale.against or paths.PRODUCTS))
        env = run.env()
        argv = inside(space, env, [str(paths.VENV_PYTHON), str(paths.APPS / "read_all.py"), "map", NAME])
        begin = time.monotonic()
        process = run.start(argv, env, cwd=run.model_dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=PATIENCE_FACTOR * kind.secs())
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            run.kill_engines()
            return PATIENCE_FACTOR, [f"{kind.name}: not done after {PATIENCE_FACTOR} times {kind.secs():.0f} s\n{run.log_tail()}"]
        factor = (time.monotonic() - begin) / kind.secs()
        problems = [] if factor <= FACTOR_MAX else [f"{kind.name}: {factor:.2f} times {kind.secs():.0f} s\n{run.log_tail()}"]
        if process.returncode != 0 or json.loads(out) != sums:
            problems.append(f"{kind.name}: status {process.returncode}, {out.decode()[:200]} {err.decode()[-300:]}\n{run.log_tail()}")
        problems += [f"{kind.name}: {line}" for line in run.log_lines() if " ERROR " in line][:3]
        return factor, problems


def all_of(kinds: list[Kind], changes: dict[str, Any]) -> Measure:
    """All at once: what they wait for is their own link."""
    with ThreadPoolExecutor(len(kinds)) as pool:
        found = list(pool.map(lambda kind: load(kind, changes), kinds))
    factors = [factor for factor, _ in found]
    value = f"at most {max(factors):.2f} times what the link allows"
    spread = ", ".join(f"{kind.name}: {factor:.2f}" for kind, factor in zip(kinds, factors, strict=True))
    return from_problems(value, [problem for _, problems in found for problem in problems], spread)


def chosen() -> list[Kind]:
    return selected(KINDS, lambda kind: kind.name)


def slow_links() -> Measure:
    return all_of(chosen(), {})


def no_least_rate() -> Measure:
    """A drip holds its part for hours. Another build stands beside all links instead."""
    return all_of(chosen(), {}) if scale.against else all_of(KINDS[:1], {"leastBytesPerSec": 0})
