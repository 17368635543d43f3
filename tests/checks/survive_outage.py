"""Bar about answers that are wrong once and an origin that is away for a while: no read fails, and all goes on at once.

A stray answer is one of many thousands. An outage is told in three ways: OSS answers 500, nothing listens, or no
packet gets through, in a network namespace of its own. Needs root for that.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.checks.survive_link import inside
from tests.harness import faults, folder, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems, scale, selected
from tests.harness.run import Run
from tests.harness.space import Space

PREFIX = "away"
OTHER_ETAG = "0123456789ABCDEF0123456789ABCDEF"
# What one answer does, for the first request of an object that holds its middle.
STRAYS: dict[str, faults.Rule] = {
    "400": {"status": 400, "code": "InvalidArgument"},
    "404": {"status": 404, "code": "NoSuchKey"},
    "412": {"status": 412, "code": "PreconditionFailed"},
    "416": {"status": 416, "code": "InvalidRange"},
    "302": {"status": 302, "code": "Found"},
    "etag": {"etag": OTHER_ETAG},
    "total": {"total": 12345},
    "crc": {"flip_byte": 77},
}
REQUESTS = 10_000
STRAY_PART_BYTES = 4096
STRAY_BYTES = REQUESTS // len(STRAYS) * STRAY_PART_BYTES
DRIVERS: tuple[str, ...] = ("uring", "epoll")
WAYS = ("map", "read", "stdio")

OUTAGES = (4, 20, 60)
LATE_SECS_MAX = 3
LINES_MAX = 60
RATE = 1_500_000
SIZE = 20 * RATE
# Small, so that little is under way when OSS begins to refuse.
PART_BYTES = 64 << 10
# Into the load when the outage begins.
BEGINS_SECS = 6.0
NAME = "weights.bin"
# Every packet is longer than that.
SILENCE = ["tc", "qdisc", "replace", "dev", "lo", "root", "tbf", "rate", "8kbit", "burst", "40", "limit", "40"]
SOUND = ["tc", "qdisc", "del", "dev", "lo", "root"]
NEVER = faults.rule({"delay_ms": 1}, "none")


def products() -> Path:
    return scale.against or paths.PRODUCTS


def read_all(run: Run, names: list[str], way: str, secs_max: float = 300.0) -> dict[str, str]:
    """Name of each file and its SHA-256, or the errno."""
    argv = [str(paths.VENV_PYTHON), str(paths.APPS / "read_all.py"), way, *names]
    done = run.call(argv, cwd=run.model_dir, timeout=secs_max)
    if done.returncode != 0:
        return dict.fromkeys(names, f"status {done.returncode}: {done.stderr.decode()[-300:]}")
    found: dict[str, str] = json.loads(done.stdout)
    return found


def stray_reads(driver: str, times: int | None) -> tuple[int, list[str]]:
    """Reads of objects that have one stray answer each: requests made, and the reads that failed."""
    names = [f"{name}.bin" for name in STRAYS]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        sums = folder.fill(scratch / "root" / paths.BUCKET / PREFIX, dict.fromkeys(names, STRAY_BYTES), 2)
        rules: list[faults.Rule] = []
        for name, effect in STRAYS.items():
            made: faults.Rule = {"match": {"kind": "get", "key": f"{PREFIX}/{name}.bin", "covers": STRAY_BYTES // 2}, "do": effect}
            rules.append(made if times is None else {**made, "times": times})
        endpoint = stack.enter_context(Endpoint(scratch / "root", scratch / "endpoint", rules))
        # What a program is given before the verdict it cannot be spared: reads of wrong bytes are errors, not strays.
        config = {"materializeBytes": 0, "partBytes": STRAY_PART_BYTES, "readsWait": "verdict", "twicePercent": 0, "listAgainSec": 1}
        run = stack.enter_context(Run(endpoint, PREFIX, config=config, io=driver, products=products()))
        problems = []
        for way in WAYS:
            got = read_all(run, names, way)
            problems += [f"{driver}: {way} of {name} gives {got[name][:80]}" for name in names if got[name] != sums[name]]
        requests = len([request for request in endpoint.requests() if request.method == "GET" and request.key.endswith(".bin")])
        if problems:
            problems.append(run.log_tail(30))
    return requests, problems


def strays(drivers: tuple[str, ...], times: int | None = 1) -> Measure:
    found = [stray_reads(driver, times) for driver in drivers]
    problems = [problem for _, problems in found for problem in problems]
    failed = len([problem for problem in problems if " gives " in problem])
    requests = [requests for requests, _ in found]
    problems += [f"only {count} requests" for count in requests if count < REQUESTS and times == 1]
    return from_problems(f"{failed} of {len(drivers) * len(WAYS) * len(STRAYS)} reads failed beside strays, {requests} requests", problems)


@dataclass(frozen=True)
class Outage:
    """One time without OSS. `what`: 500, refused or silent; `moment`: start or load; 0 s for none."""

    what: str
    moment: str
    secs: int

    def name(self) -> str:
        return f"{self.what} for {self.secs} s in {self.moment}" if self.secs else f"undisturbed {self.what}"


# Where nothing listens a start ends soon on purpose: that is mostly a wrong address.
ALL = [
    Outage(what, moment, secs)
    for what in ("500", "refused", "silent") for moment in ("start", "load") for secs in OUTAGES if (what, moment) != ("refused", "start")
]


class Origin:
    """An endpoint that can be away."""

    def __init__(self, stack: ExitStack, outage: Outage, scratch: Path) -> None:
        self.outage = outage
        self.space = stack.enter_context(Space("ip link set lo up", kind="net")) if outage.what == "silent" else None
        program = [*(self.space.prefix if self.space else []), str(paths.ENDPOINT)]
        self.endpoint = stack.enter_context(Endpoint(scratch / "root", scratch / "endpoint", [NEVER], ["--rate-bytes-per-sec", str(RATE)], program))

    def _shape(self, argv: list[str]) -> None:
        assert self.space is not None
        subprocess.run([*self.space.prefix, *argv], check=True, capture_output=True)

    def leave(self) -> None:
        if self.outage.what == "500":
            self.endpoint.set_rules([{"do": {"status": 500, "code": "InternalError"}}])
        elif self.outage.what == "refused":
            self.endpoint.stop()
        else:
            self._shape(SILENCE)

    def come_back(self) -> None:
        if self.outage.what == "500":
            self.endpoint.set_rules([NEVER])
        elif self.outage.what == "refused":
            self.endpoint.start_again()
        else:
            self._shape(SOUND)

    def be_away(self, over: threading.Event) -> None:
        """The thread stays until all is over: an endpoint that it has started ends with it."""
        if self.outage.moment == "load":
            time.sleep(BEGINS_SECS)
            self.leave()
        time.sleep(self.outage.secs)
        self.come_back()
        over.wait()


def load_beside(outage: Outage, changes: dict[str, Any]) -> tuple[float, int, list[str]]:
    """Seconds from the program's start to its end, lines of the log, and what was wrong."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        sums = folder.fill(scratch / "root" / paths.BUCKET / PREFIX, {NAME: SIZE}, 3)
        origin = Origin(stack, outage, scratch)
        config = {"partBytes": PART_BYTES, "prefetch": {"vcpus": 2, "workers": 32}, "materializeBytes": folder.MATERIALIZE_BYTES, "startTimeoutSec": 90, **changes}
        run = stack.enter_context(Run(origin.endpoint, PREFIX, config=config, products=products()))
        env = run.env()
        argv = inside(origin.space, env, [str(paths.VENV_PYTHON), str(paths.APPS / "read_all.py"), "map", NAME])
        if outage.moment == "start" and outage.secs:
            origin.leave()
        over = threading.Event()
        away = threading.Thread(target=origin.be_away, args=(over,))
        begin = time.monotonic()
        process = run.start(argv, env, cwd=run.model_dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if outage.secs:
            away.start()
        try:
            out, err = process.communicate(timeout=SIZE / RATE + outage.secs + 60)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            err += b" ended by the bar"
            run.kill_engines()
        secs = time.monotonic() - begin
        if outage.secs:
            over.set()
            away.join()
        lines = len(run.log_lines())
        problems = []
        if process.returncode != 0 or json.loads(out) != sums:
            problems.append(f"{outage.name()}: status {process.returncode} {out.decode()[:200]} {err.decode()[-300:]}\n{run.log_tail()}")
        return secs, lines, problems


def outages(wanted: list[Outage], changes: dict[str, Any]) -> Measure:
    """All of them at once: each waits for its own origin. Beside them a load without an outage says what the link needs."""
    if not wanted:
        return Measure("no outage", True)
    calm = [Outage(what, "load", 0) for what in sorted({one.what for one in wanted})]
    with ThreadPoolExecutor(len(wanted) + len(calm)) as pool:
        found = list(pool.map(lambda one: load_beside(one, changes), calm + wanted))
    needs = {one.what: secs for one, (secs, _, _) in zip(calm, found, strict=False)}
    rows = [(one, secs - needs[one.what] - one.secs, lines) for one, (secs, lines, _) in zip(wanted, found[len(calm):], strict=True)]
    problems = [problem for _, _, problems in found for problem in problems]
    problems += [f"{one.name()}: {late:+.1f} s after what the link needs" for one, late, _ in rows if late > LATE_SECS_MAX]
    problems += [f"{one.name()}: {lines} lines in the log" for one, _, lines in rows if lines > LINES_MAX]
    value = f"last byte at most {max(late for _, late, _ in rows):+.1f} s after what the link needs, at most {max(lines for *_, lines in rows)} log lines"
    return from_problems(value, problems, ", ".join(f"{one.name()}: {late:+.1f} s, {lines} lines" for one, late, lines in rows))


def strays_and_outages() -> Measure:
    names = selected(["stray", *(one.name() for one in ALL)], str)
    found = [strays(DRIVERS if "stray" in names else ()), outages([one for one in ALL if one.name() in names], {})]
    return together(found, all(one.good for one in found))


def control() -> Measure:
    """Answers that stay wrong fail reads, and deadlines of a minute come late. Another build stands for both instead."""
    if scale.against:
        return strays_and_outages()
    slow = dict.fromkeys(("connectTimeoutMs", "responseTimeoutMs", "stallTimeoutMs"), 60_000)
    found = [strays(DRIVERS[:1], None), outages([Outage("silent", "load", 20)], slow)]
    return together(found, any(one.good for one in found))


def together(found: list[Measure], good: bool) -> Measure:
    notes = [note for one in found for note in one.notes]
    return Measure("; ".join(one.value for one in found), good, "; ".join(one.spread for one in found if one.spread), notes)
