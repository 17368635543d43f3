"""A load on a terminal, as a person watches it: the progress bar and `ossc top` in tmux, and whether each figure that any
command shows is what the endpoint has counted itself. Run by the bar `operate 2`.

One load is undisturbed; in another one OSS throttles, cuts an answer, flips a byte and sends one part slowly. The captures
lie in target/operate-2 afterwards, as text.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness import faults, models, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems, scale
from tests.harness.requestlog import Request
from tests.harness.run import Run

SIZE_MIB = 4096
RATE = 300_000_000
CONNECTIONS = 64
# So much of a body may lie in each connection's socket before the engine receives it (LOWAT_BYTES of net/conn.rs).
IN_SOCKET_BYTES = 1 << 20
COLUMNS, ROWS = 160, 16
CAPTURE_SECS = 0.5
LOAD_SECS_MAX = 240.0
# Figures may differ by so much from what the endpoint has counted.
SHARE = 0.01
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
SUMMARY = re.compile(
    r"ossc run: loaded (?P<objects>\d+) objects, (?P<gb>\S+) GB in (?P<seconds>\S+) s, (?P<rate>\S+) GB/s; (?P<requests>\d+) requests, (?P<retries>\d+) retries, "
    r"(?P<throttled>\d+) throttled, (?P<hedges>\d+) hedges of (?P<hedged>\S+ \S+), (?P<refetched>\S+ \S+) fetched again, (?P<mismatches>\d+) mismatches; "
    r"verified (?P<verified>\d+) of (?P<large>\d+); most memory (?P<memory>\S+ \S+)"
)
BAR = re.compile(r"loading \[[=> ]{20}\] +(?P<percent>\d+) %  (?P<here>\S+ \S+) of (?P<bytes>\S+ \S+)  (?P<rate>\S+) GB/s")
TOP = re.compile(r"(?P<percent>\d+) %  (?P<here>\S+ \S+) of (?P<bytes>\S+ \S+?)  .*?memory (?P<memory>\S+ \S+) of .*?(?P<requests>\d+) of \d+ requests, (?P<retries>\d+) retries(?:  (?P<throttled>\d+) throttled)?")
# It reads as loaders do, then stays until its file is there, so that the engine can be asked.
PROGRAM = """
import mmap, os, sys, time
maps = []
for parent, _, names in os.walk(sys.argv[1]):
    for name in sorted(names):
        with open(os.path.join(parent, name), "rb") as file:
            if os.path.getsize(file.fileno()):
                maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
while not os.path.exists(sys.argv[2]):
    time.sleep(0.1)
"""


def of_size(text: str) -> float:
    number, unit = text.split()
    return float(number) * UNITS[unit]


class Tmux:
    """A server of its own with one window for each command."""

    def __init__(self, scratch: Path, env: dict[str, str]) -> None:
        self.argv = ["tmux", "-S", str(scratch / "tmux"), "-f", "/dev/null"]
        self.env = env

    def __call__(self, *words: str) -> str:
        return subprocess.run([*self.argv, *words], env=self.env, capture_output=True, text=True, check=True, timeout=30).stdout

    def window(self, name: str, command: str) -> None:
        """What is left on its screen stays to be seen."""
        start = ["new-session", "-d", "-s", "bar", "-x", str(COLUMNS), "-y", str(ROWS)] if name == "load" else ["new-window", "-d", "-t", "bar"]
        self(*start, "-n", name, f"{command}; sleep 600")

    def screen(self, name: str) -> str:
        # -J joins what was wrapped; lines of `top` are as long as the terminal is wide.
        joined = ["-J"] if name == "load" else []
        return self("capture-pane", "-p", *joined, "-t", f"bar:{name}").rstrip("\n")


@contextmanager
def terminals(scratch: Path, env: dict[str, str]) -> Iterator[Tmux]:
    tmux = Tmux(scratch, env)
    try:
        yield tmux
    finally:
        subprocess.run([*tmux.argv, "kill-server"], env=env, capture_output=True, check=False)


@dataclass
class Watched:
    """What was shown of one load, and what the endpoint has counted."""

    sent: list[Request]
    bars: list[str]
    tops: list[str]
    line: str
    status: dict[str, Any]
    table: str
    metrics: dict[str, float]
    logged: dict[str, str]
    audited: int
    sizes: dict[str, int]
    problems: list[str] = field(default_factory=list)

    def bodies(self) -> int:
        return sum(request.bytes_sent for request in self.sent if request.status in (200, 206))


def disturbances(model: str) -> list[dict[str, Any]]:
    shard = f"{model}/model-0000{{}}-of-00008.safetensors"
    return [
        faults.rule({"status": 503, "code": "SlowDown"}, shard.format(3), times=3),
        # More than are wanted: a hedge may have brought what is cut.
        faults.cut(1 << 20, shard.format(2), times=3),
        faults.flipped_at(shard.format(4), 1_000_000, times=1),
        # Half a connection's share, so that it is slow and does not drip.
        faults.rule({"conn_bytes_per_sec": 400_000}, shard.format(8), times=1),
    ]


def watched(size_mib: int, is_disturbed: bool) -> Watched:
    model = models.ensure("shards", size_mib)
    rules = disturbances(model) if is_disturbed else None
    scratch = Path(tempfile.mkdtemp(prefix="ossc-bar-"))
    try:
        with (
            Endpoint(paths.BUCKETS, scratch, rules, options=["--rate-bytes-per-sec", str(RATE)]) as endpoint,
            Run(endpoint, model, config={"twicePercent": 2}) as run,
            terminals(scratch, run.env(None, LD_PRELOAD=None, TERM="xterm")) as tmux,
        ):
            return watch(endpoint, run, tmux, scratch, models.sizes(model))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def watch(endpoint: Endpoint, run: Run, tmux: Tmux, scratch: Path, sizes: dict[str, int]) -> Watched:
    (scratch / "program.py").write_text(PROGRAM)
    go_on = scratch / "go-on"
    tmux.window("load", f"{paths.OSSC} run --progress -- {sys.executable} {scratch}/program.py {run.model_dir} {go_on}")
    tmux.window("top", f"{paths.OSSC} top --wait")
    bars: list[str] = []
    tops: list[str] = []
    deadline = time.monotonic() + LOAD_SECS_MAX
    while not SUMMARY.search(bars[-1] if bars else ""):
        if time.monotonic() > deadline:
            raise AssertionError("\n".join([f"not loaded after {LOAD_SECS_MAX} s", *bars[-1:], *tops[-1:], run.log_tail(40)]))
        time.sleep(CAPTURE_SECS)
        bars.append(tmux.screen("load"))
        tops.append(tmux.screen("top"))
    time.sleep(2 * CAPTURE_SECS)
    tops.append(tmux.screen("top"))

    def ossc(*words: str) -> str:
        return subprocess.run([str(paths.OSSC), *words], env=run.env(None, LD_PRELOAD=None), capture_output=True, text=True, timeout=30, check=True).stdout

    values = (line.rsplit(" ", 1) for line in ossc("metrics").splitlines() if not line.startswith("#"))
    logged = run.logged("load finished")
    audit = [json.loads(line) for line in run.audit_lines()]
    found = Watched(
        sent=list(endpoint.requests()), bars=bars, tops=tops, line=bars[-1], status=json.loads(ossc("status", "--json"))["report"], table=ossc("status"),
        metrics={name.split("{")[0]: float(value) for name, value in values}, logged=dict(re.findall(r'(\w+)="?([^"\s]+(?: of \d+)?)"?', logged[-1] if logged else "")),
        audited=sum(line["bytes"] or 0 for line in audit if line["source"] == "origin"), sizes=sizes,
    )
    go_on.write_text("")
    return found


class Compared:
    """Collects what differs from a count."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.figures = 0
        self.worst = 0.0

    def same(self, what: str, shown: float, counted: float, share: float = SHARE) -> None:
        self.figures += 1
        off = abs(shown - counted) / counted if counted else float(shown != 0)
        self.worst = max(self.worst, off)
        if off > share:
            self.problems.append(f"{what}: {shown:g} is shown, and {counted:g} was counted ({off:.1%} off)")


def judged(found: Watched, sent: list[Request]) -> Compared:
    """Each figure against a count: the endpoint's of this load, or in a control of another one."""
    out = Compared()
    bodies = sum(request.bytes_sent for request in sent if request.status in (200, 206))
    throttled = sum(request.status == 503 for request in sent)
    cut = [r for r in sent if r.method == "GET" and r.status == 206 and r.start is not None and r.end is not None and r.bytes_sent < r.end - r.start]
    gets = [r for r in sent if r.method == "GET" and r.key and r.status in (200, 206)]
    # Bytes that came twice: of the object whose byte was flipped, and of what was slow.
    again = sum(r.bytes_sent for r in gets) - sum(found.sizes.values())
    large = [size for key, size in found.sizes.items() if size > 8 << 20]
    line = SUMMARY.search(found.line)
    if line is None:
        out.problems.append(f"no summary: {found.line}")
        return out
    origin, last = found.status["origin"], found.status["load"]["last"]
    counts: list[tuple[str, Callable[[], float], float]] = [
        ("bar's line: requests", lambda: int(line["requests"]), len(sent)),
        ("bar's line: GB", lambda: float(line["gb"]), bodies / 1e9),
        ("bar's line: throttled", lambda: int(line["throttled"]), throttled),
        ("bar's line: fetched again and hedges", lambda: of_size(line["refetched"]) + of_size(line["hedged"]), again),
        ("bar's line: GB/s", lambda: float(line["rate"]), bodies / 1e9 / float(line["seconds"])),
        ("bar's line: verified", lambda: int(line["verified"]), len(large)),
        ("bar's line: large", lambda: int(line["large"]), len(large)),
        ("bar's line: objects", lambda: int(line["objects"]), len(found.sizes)),
        ("log: requests", lambda: int(found.logged["requests"]), len(sent)),
        ("log: bytes", lambda: int(found.logged["bytes"]), bodies),
        ("log: throttled", lambda: int(found.logged["throttled"]), throttled),
        ("log: retries", lambda: int(found.logged["retries"]), int(line["retries"])),
        ("log: refetched and hedged", lambda: int(found.logged["refetched_bytes"]) + int(found.logged["hedged_bytes"]), again),
        ("log: seconds", lambda: float(found.logged["seconds"]), float(line["seconds"])),
        ("status: requests", lambda: origin["requests"], len(sent)),
        ("status: bytes", lambda: origin["bytes"], bodies),
        ("status: throttled", lambda: origin["throttled"], throttled),
        ("status: last load's bytes", lambda: last["bytes"], bodies),
        ("status: bytes here", lambda: found.status["load"]["here_bytes"], sum(found.sizes.values())),
        ("status: ready", lambda: found.status["memory"]["ready_bytes"], sum(large)),
        ("metrics: requests", lambda: found.metrics["ossc_origin_requests_total"], len(sent)),
        ("metrics: bytes", lambda: found.metrics["ossc_origin_bytes_total"], bodies),
        ("metrics: throttled", lambda: found.metrics["ossc_origin_throttled_total"], throttled),
        ("metrics: refetched and hedged", lambda: found.metrics["ossc_refetched_bytes_total"] + found.metrics["ossc_hedged_bytes_total"], again),
        ("metrics: ready", lambda: found.metrics["ossc_ready_bytes"], sum(large)),
        ("audit: bytes", lambda: found.audited, bodies),
    ]
    for what, shown, counted in counts:
        # What came twice is a share of what came: an answer that was given up had sent bytes that are in no sum.
        out.same(what, shown(), counted) if "hedge" not in what else out.same(what, bodies + shown(), bodies + counted)
    failed = throttled + sum(1 for r in cut if r.bytes_sent == 1 << 20)
    out.same("retries", int(line["retries"]), failed)
    for one, other in (("hedges", "hedges"), ("retries", "retries"), ("mismatches", "mismatches")):
        out.same(f"status and line: {one}", origin[one], int(line[other]))
    seconds_of(out, found, sent, float(line["seconds"]))
    tables(out, found, (bodies, len(sent), throttled))
    screens(out, found, bodies / float(line["seconds"]))
    return out


def seconds_of(out: Compared, found: Watched, sent: list[Request], secs: float) -> None:
    times = [request.time for request in sent]
    # The log has when a request came, and the line ends with the last answer's end.
    longest = max(request.bytes_sent for request in sent) / (RATE / 64)
    if not max(times) - min(times) - 0.01 * secs <= secs <= (max(times) - min(times)) * (1 + SHARE) + longest:
        out.problems.append(f"bar's line: {secs} s are shown, and the last answer came {max(times) - min(times):.3f} s after the first")


def tables(out: Compared, found: Watched, counted: tuple[int, int, int]) -> None:
    bodies, requests, throttled = counted
    text = re.search(r"from the origin: (\S+ \S+) in (\d+) requests, (\d+) retries, (\d+) throttled, (\d+) hedges", found.table)
    if text is None:
        out.problems.append(f"no line of the origin: {found.table}")
        return
    # One digit behind the point.
    out.same("status table: bytes", of_size(text[1]), bodies, SHARE + 0.05 * UNITS[text[1].split()[1]] / bodies)
    out.same("status table: requests", int(text[2]), requests)
    out.same("status table: throttled", int(text[4]), throttled)


def screens(out: Compared, found: Watched, rate: float) -> None:
    """What the bar and `top` showed meanwhile, and at their end."""
    total = sum(found.sizes.values())
    bars = [match for match in map(BAR.search, found.bars) if match]
    if not bars:
        out.problems.append("no bar was seen")
        return
    here = [of_size(bar["here"]) for bar in bars]
    # After a mismatch an object begins anew. (A percentage falls where a program comes to want more.)
    if here != sorted(here) and not is_disturbed(found):
        out.problems.append(f"the bar goes back: {here}")
    if int(bars[-1]["percent"]) != 100:
        out.problems.append(f"the bar never says that all is here: {bars[-1][0]}")
    for bar in bars:
        # A whole number, and sizes with one digit behind the point.
        digits = sum(0.05 * UNITS[bar[size].split()[1]] for size in ("here", "bytes"))
        if abs(int(bar["percent"]) - of_size(bar["here"]) * 100 / of_size(bar["bytes"])) > 1 + 100 * digits / of_size(bar["bytes"]):
            out.problems.append(f"bar: {bar[0]}")
    rates_of(out, found, rate)
    tops = [match for match in map(TOP.search, found.tops) if match]
    if not tops or int(tops[-1]["percent"]) != 100:
        out.problems.append(f"top has not come to its end: {found.tops[-1]}")
        return
    last = tops[-1]
    out.same("top: bytes", of_size(last["bytes"]), total, SHARE + 0.05 * UNITS[last["bytes"].split()[1]] / total)
    out.same("top: here", of_size(last["here"]), total, SHARE + 0.05 * UNITS[last["here"].split()[1]] / total)
    out.same("top: retries", int(last["retries"]), found.status["origin"]["retries"])
    if int(last["requests"]) or "s left" in last[0]:
        out.problems.append(f"top: all has come, and it shows {last[0]}")
    out.same("top: throttled", int(last["throttled"] or 0), found.status["origin"]["throttled"])
    if found.bars[-1].count("loading ["):
        out.problems.append(f"the bar is still there: {found.bars[-1]}")


def rates_of(out: Compared, found: Watched, rate: float) -> None:
    """Each is of the last five seconds, and none of them alone says much: what lay in the sockets comes on top in one and
    is missing in another. Their mean is what comes, but for what lay there at the beginning and at the end."""
    bars = [match for match in map(BAR.search, found.bars) if match and int(match["percent"]) < 100]
    rates = [float(bar["rate"]) * 1e9 for bar in bars][int(6 / CAPTURE_SECS) :]
    if not rates:
        return
    mean, in_sockets = statistics.mean(rates), CONNECTIONS * IN_SOCKET_BYTES / (len(rates) * CAPTURE_SECS)
    # The endpoint lets no more through than that, and less where this machine is busy.
    if not rate * (1 - SHARE) - in_sockets <= mean <= RATE * (1 + SHARE) + in_sockets:
        out.problems.append(f"bar: {mean:g} bytes a second are shown in the mean, {rate:g} came, and {RATE:g} can come")


def is_disturbed(found: Watched) -> bool:
    return bool(found.status["origin"]["throttled"])


def kept(name: str, found: Watched) -> None:
    """The captures, for documents."""
    place = paths.CACHE / "operate-2"
    place.mkdir(parents=True, exist_ok=True)
    for what, screens_of in (("bar", found.bars), ("top", found.tops)):
        (place / f"{name}-{what}.txt").write_text("\n\n".join(f"--- {n * CAPTURE_SECS:.1f} s\n{screen}" for n, screen in enumerate(screens_of)))
    (place / f"{name}-status.txt").write_text(found.table)


def figures(size_mib: int | None = None) -> Measure:
    size = size_mib or scale.size_mib or SIZE_MIB
    problems, notes = [], []
    for name, is_off in (("plain", False), ("disturbed", True)):
        found = watched(size, is_off)
        kept(name, found)
        out = judged(found, found.sent)
        if is_off:
            out.problems += missing(found)
        problems += [f"{name}: {problem}" for problem in out.problems]
        notes.append(f"{name}: {out.figures} figures, at most {out.worst:.2%} off")
    return from_problems("; ".join(notes), problems)


def missing(found: Watched) -> list[str]:
    """Disturbances that did not come about would show nothing."""
    origin = found.status["origin"]
    wanted = {"throttled": 3, "retries": 4, "mismatches": 1}
    few = [f"{name}: {origin[name]}, {least} were to come" for name, least in wanted.items() if origin[name] < least]
    return few + ([] if origin["hedges"] else ["no hedge was made"])


def another_count(size_mib: int | None = None) -> Measure:
    """The figures of the disturbed load, compared with the requests of the undisturbed one."""
    size = size_mib or scale.size_mib or SIZE_MIB
    plain, disturbed = watched(size, False), watched(size, True)
    return from_problems("compared with another load's count", judged(disturbed, plain.sent).problems)
