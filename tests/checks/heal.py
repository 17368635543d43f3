"""Bar about healing: engine, primary or a reader is killed at every stage of a load, and the rest gets the right bytes.

A run is made of its seed alone: who reads how, who is killed, and at which moment. Two
runs at a time, each with an endpoint of its own that is used again by the next run.
"""

from __future__ import annotations

import collections
import random
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.checks import seeded
from tests.checks.seeded import Reader
from tests.harness import compile as compiler
from tests.harness import faults, folder, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, scale
from tests.harness.requestlog import body_gets
from tests.harness.run import Run, plain_env, strike

MIB = 1024 * 1024
PREFIX = "heal"
LARGE = {"a.bin": 20 * MIB + 17, "b.bin": 16 * MIB, "c.bin": 14 * MIB + 4097, "deep/d.bin": 12 * MIB + 1}
SMALL = {"small.json": 300_000}
RATE = 128 * MIB
WAYS = ("map", "window", "read", "pread", "stdio")
MOMENTS = ("listing", "first part", "middle", "verdict", "release", "any")
# What a kill moment turned out to be.
STAGES = ("listing", "first part", "middle", "verdict", "release", "after the load")
WAIT_MS_MAX = 10_000
ORPHAN_MS_MAX = 5_000
# Beyond the longest wait allowed: a load takes half a second, twice where nothing can be taken over.
PROCESS_SECS_MAX = 20.0
TOGETHER = 2
# How late a listing is answered, so that there is time to be killed in it.
LIST_MS = 60
NEVER = faults.rule({"delay_ms": 0}, "none")


@dataclass
class Plan:
    """Everything that a seed decides."""

    seed: int
    # restart: all may start an engine; named: readers have =2 and OSS_*; orphans: readers have =2 alone, and
    # both engine and primary are killed; fresh: another program starts right after the kill.
    mode: str = "restart"
    victim: str = "engine"
    moment: str = "any"
    ways: list[str] = field(default_factory=list)
    forks: str = ""
    pages: str | None = None
    io: str = "epoll"
    fraction: float = 0.5
    delay: float = 0.0
    started: list[float] = field(default_factory=list)
    bad_crc: bool = False
    look_after: bool = False

    @staticmethod
    def of(seed: int) -> Plan:
        r = random.Random(seed)
        plan = Plan(seed)
        plan.mode = r.choices(("restart", "named", "orphans", "fresh"), (45, 25, 12, 18))[0]
        plan.victim = r.choices(("engine", "primary", "reader"), (50, 25, 25))[0]
        plan.moment = r.choices(MOMENTS, (15, 15, 25, 20, 10, 15))[0]
        plan.ways = [r.choice(WAYS) for _ in range(3)]
        plan.forks = r.choice(WAYS) if r.random() < 0.2 else ""
        plan.pages = "memfd" if r.random() < 0.15 else None
        plan.io = r.choice(("uring", "epoll"))
        plan.fraction = r.uniform(0.05, 0.95)
        plan.delay = r.random()
        plan.started = [r.uniform(0, 0.03), r.uniform(0, 0.15)]
        plan.bad_crc = plan.moment == "verdict" and r.random() < 0.6
        plan.look_after = r.random() < 0.2
        if plan.moment in ("listing", "first part"):
            plan.started = [secs / 20 for secs in plan.started]
        if plan.moment == "release":
            # Both rounds are asked for by one line, which a child would take from its parent.
            plan.forks = ""
        if plan.mode in ("orphans", "fresh"):
            plan.victim = "engine"
        if plan.mode == "orphans" and plan.moment in ("listing", "release"):
            plan.moment = "middle"
        return plan

    def __str__(self) -> str:
        pages = f", {self.pages}" if self.pages else ""
        return f"{self.mode}, {self.victim} killed at {self.moment}, {'/'.join(self.ways)}{pages}, {self.io}"


@dataclass
class Found:
    """What came of a run."""

    plan: Plan
    stage: str = ""
    wrong: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    longest_ms: float = 0.0
    refused: int = 0
    misread: int = 0
    secs: float = 0.0
    log: str = ""

    def problems(self) -> list[str]:
        return self.wrong + self.waits + self.incomplete


def make_model(root: Path) -> dict[str, str]:
    """Writes the objects; gives the sum of each as the reader computes it natively."""
    base = root / paths.BUCKET / PREFIX
    folder.fill(base, {**LARGE, **SMALL}, seed=4)
    argv = [str(compiler.program("heal_reader.c")), "read", *LARGE, *SMALL]
    done = subprocess.run(argv, cwd=base, env=plain_env(), capture_output=True, check=True)
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    return {line[4]: line[5] for line in lines if line[0] == "ok"}


class Client(Reader):
    """One reader process and what it has said."""

    def __init__(self, run: Run, name: str, way: str, env: dict[str, str], options: list[str]) -> None:
        argv = [str(compiler.program("heal_reader.c")), *options, way, *LARGE, *SMALL]
        super().__init__(run, name, argv, env, cwd=run.model_dir, stdin=subprocess.PIPE)

    def said(self, word: str) -> bool:
        return any(line[:1] == [word] for line in self.lines())

    def tell(self, text: bytes) -> None:
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(text)
            self.process.stdin.flush()
        except OSError:
            pass

    def close_input(self) -> None:
        try:
            assert self.process.stdin is not None
            self.process.stdin.close()
        except OSError:
            pass


class Slot:
    """An endpoint that serves one run after the other."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self.endpoint = Endpoint(root, scratch, [NEVER], ["--rate-bytes-per-sec", str(RATE)])

    def set_rules(self, rules: list[faults.Rule]) -> None:
        self.endpoint.set_rules(rules or [NEVER])
        self.endpoint.forget()


class Act:
    """One run, from the first start to the last byte."""

    def __init__(self, slot: Slot, plan: Plan, sums: dict[str, str], stop: bool = False) -> None:
        self.plan, self.sums, self.stop = plan, sums, stop
        self.found = Found(plan)
        self.endpoint = slot.endpoint
        config = {"materializeBytes": MIB, "expireTimeSec": 0 if plan.moment == "release" else 120, "lingerSec": 1}
        self.run = Run(slot.endpoint, PREFIX, config=config, io=plan.io)
        self.clients: list[Client] = []

    def env(self, role: int, bare: bool = False) -> dict[str, str]:
        env = self.run.env(role, OSSC_PAGES=self.plan.pages, CONNECTOR_UDS_PATH=str(self.run.dir / "s"))
        return {n: v for n, v in env.items() if not (bare and n.startswith("OSS_"))}

    def start(self, name: str, way: str, role: int = 1, bare: bool = False, forks: str = "") -> Client:
        options = ["-w"] + (["-f", forks] if forks else [])
        client = Client(self.run, name, way, self.env(role, bare), options)
        self.clients.append(client)
        return client

    def start_all(self) -> None:
        plan = self.plan
        role = 1 if plan.mode in ("restart", "fresh") else 2
        self.start("primary", plan.ways[0])
        for n, wait in enumerate(plan.started):
            time.sleep(wait)
            self.start(f"reader{n}", plan.ways[n + 1], role, plan.mode == "orphans", plan.forks if n else "")

    def until(self, condition: Any, secs: float) -> bool:
        end = time.monotonic() + secs
        while time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.001)
        return False

    def logged(self, words: str) -> int:
        return sum(words in line for line in self.run.log_lines())

    def logged_of(self, pid: str, words: str) -> bool:
        return any(words in line and f" client={pid} " in line for line in self.run.log_lines())

    def served(self) -> dict[str, int]:
        sums: dict[str, int] = collections.Counter()
        for request in body_gets(self.endpoint.requests(), f"{PREFIX}/"):
            sums[request.key[len(PREFIX) + 1:]] += request.bytes_sent
        return sums

    def served_large(self) -> int:
        return sum(served for name, served in self.served().items() if name in LARGE)

    def wait_for_moment(self) -> None:
        plan = self.plan
        if plan.mode == "orphans":
            self.until(lambda: all(c.said("open") for c in self.clients), 5)
        if plan.moment == "listing":
            self.until(self.run.engines, 2)
            time.sleep(plan.delay * LIST_MS / 1000)
        elif plan.moment == "first part":
            self.until(lambda: self.logged(" listed"), 2)
            time.sleep(plan.delay * 0.02)
        elif plan.moment == "middle":
            self.until(lambda: self.served_large() >= plan.fraction * sum(LARGE.values()), 4)
        elif plan.moment == "verdict" and plan.bad_crc:
            self.until(lambda: self.logged("fetching it again"), 4)
            time.sleep(plan.delay * 0.15)
        elif plan.moment == "verdict":
            self.until(lambda: any(self.served().get(n, 0) >= size for n, size in LARGE.items()), 4)
        elif plan.moment == "release":
            self.until(lambda: all(c.said("end") for c in self.clients), 8)
            self.until(lambda: self.logged("released"), plan.delay * 1.5)
        else:
            time.sleep(plan.delay * 0.9)

    def stage(self) -> str:
        """Where the load was, judged by what was logged until now."""
        if not self.logged(" listed"):
            return "listing"
        served = self.served()
        if not any(name in LARGE for name in served):
            return "first part"
        if self.plan.moment == "release" and all(c.said("end") or c.killed for c in self.clients):
            return "release"
        lines = self.run.log_lines()
        judged = [n for n in LARGE if any(f"{PREFIX}/{n}" in x and "and verified" in x for x in lines)]
        if len(judged) == len(LARGE):
            return "after the load"
        open_ones = [n for n in LARGE if n not in judged and served.get(n, 0) >= LARGE[n]]
        return "verdict" if open_ones else "middle"

    def strike(self) -> None:
        plan = self.plan
        engines = self.run.engines() if plan.victim == "engine" else []
        if plan.victim == "primary" or plan.mode == "orphans":
            self.clients[0].kill()
        if plan.victim == "reader":
            self.clients[1].kill()
        strike(engines, signal.SIGSTOP if self.stop else signal.SIGKILL)
        self.found.stage = self.stage()

    def is_done(self, client: Client, rounds: int) -> bool:
        # A forked child has an end of its own.
        ends = rounds * (2 if self.plan.forks and client.name == "reader1" else 1)
        return client.killed or client.process.poll() is not None or sum(l[:1] == ["end"] for l in client.lines()) >= ends

    def wait_for_end(self, rounds: int) -> None:
        if not self.until(lambda: all(self.is_done(c, rounds) for c in self.clients), PROCESS_SECS_MAX):
            for client in self.clients:
                if not self.is_done(client, rounds):
                    self.found.waits.append(f"{client.name} waits for more than {PROCESS_SECS_MAX:.0f} s")

    def judge(self, client: Client, rounds: int) -> None:
        found, orphans = self.found, self.plan.mode == "orphans"
        good: set[tuple[str, ...]] = set()
        misread = 0
        for line in client.lines():
            if line[0] not in ("ok", "err") or len(line) != 7:
                continue
            _, pid, way, number, name, what, longest = line
            found.longest_ms = max(found.longest_ms, float(longest))
            if float(longest) > WAIT_MS_MAX:
                found.waits.append(f"{client.name} {way} {name}: a call took {longest} ms")
            if line[0] == "ok" and what == self.sums[name]:
                good.add((pid, number, name))
            elif line[0] == "ok" or what == "ENODATA":
                found.wrong.append(f"{client.name} {way} {name} round {number}: {what}, should be {self.sums[name]}")
            elif orphans and what == "EIO":
                found.refused += 1
                if float(longest) > ORPHAN_MS_MAX:
                    found.waits.append(f"{client.name} {way} {name}: EIO after {longest} ms")
                if not self.logged(" client="):
                    found.incomplete.append(f"{client.name} {name}: EIO without a line in the log")
            elif self.plan.bad_crc and what == "EIO" and self.logged_of(pid, "a reader has bytes that do not match"):
                # It was given wrong bytes before the verdict, which the endpoint sends once in such a run.
                found.misread += 1
                misread += 1
            elif not client.killed:
                found.incomplete.append(f"{client.name} {way} {name} round {number}: {what}")
        processes = 2 if self.plan.forks and client.name == "reader1" else 1
        expected = len(self.sums) * processes * rounds - misread
        if not client.killed and not orphans and len(good) != expected and not found.problems():
            found.incomplete.append(f"{client.name}: {len(good)} of {expected} files, {client.err.read_text(errors='replace')[-300:]}")

    def act(self) -> Found:
        begin = time.monotonic()
        plan = self.plan
        rounds = 2 if plan.moment == "release" else 1
        try:
            self.start_all()
            self.wait_for_moment()
            self.strike()
            if plan.mode == "fresh":
                time.sleep(plan.delay * 0.02)
                self.start("fresh", plan.ways[0])
            if rounds == 2:
                self.wait_for_end(1)
                for client in self.clients:
                    client.tell(b"\n")
            self.wait_for_end(rounds)
            if plan.look_after and not self.stop and plan.mode != "orphans":
                after = self.start("after", "map")
                for _ in range(rounds - 1):
                    after.tell(b"\n")
                self.wait_for_end(rounds)
            for client in self.clients:
                self.judge(client, rounds)
            self.found.log = self.run.log_tail(12)
        finally:
            self.clean()
        self.found.secs = time.monotonic() - begin
        return self.found

    def clean(self) -> None:
        for client in self.clients:
            client.close_input()
        seeded.clean(self.run, self.clients)


def rules_of(plan: Plan) -> list[faults.Rule]:
    rules = [faults.rule({"delay_ms": LIST_MS}, kind="list")]
    if plan.bad_crc:
        # The check value is wrong in as many answers as the first pass has parts of 2 MiB.
        name = random.Random(plan.seed).choice(list(LARGE))
        times = -(-LARGE[name] // (2 * MIB))
        rules.append(faults.rule({"bad_crc": True}, f"{PREFIX}/{name}", times))
    return rules


def many(seeds: list[int]) -> list[Found]:
    compiler.program("heal_reader.c")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        sums = make_model(scratch / "root")
        slots = [Slot(scratch / "root", scratch / f"slot{n}") for n in range(min(TOGETHER, len(seeds)))]
        for slot in slots:
            stack.enter_context(slot.endpoint)

        def act(slot: Slot, seed: int) -> Found:
            plan = Plan.of(seed)
            slot.set_rules(rules_of(plan))
            return Act(slot, plan, sums).act()

        return seeded.run_all(seeds, slots, act)


def survive(runs: int | None = None, first: int | None = None) -> Measure:
    count = runs or scale.runs or 1000
    first = scale.seed if first is None else first
    results = many(list(range(first, first + count)))
    wrong = sum(bool(f.wrong) for f in results)
    waits = sum(bool(f.waits) for f in results)
    incomplete = sum(bool(f.incomplete) for f in results)
    stages = collections.Counter(f.stage for f in results)
    notes = [f"killed at {stage}: {stages[stage]:4d} {'#' * (60 * stages[stage] // len(results))}" for stage in STAGES]
    modes = collections.Counter((f.plan.mode, f.plan.victim) for f in results)
    notes.append("; ".join(f"{mode}, {victim} killed: {n}" for (mode, victim), n in sorted(modes.items())))
    notes.append(f"{sum(f.refused for f in results)} reads of orphans got EIO in time")
    notes.append(f"{sum(f.misread for f in results)} readers who were given wrong bytes before the verdict got EIO")
    bad = [f for f in results if f.problems()]
    notes += [f"{f.plan}: {f.problems()[0]}; again: ci/bar roles 2 --runs 1 --seed {f.plan.seed}" for f in bad]
    longest = max((f.longest_ms for f in results if not f.waits), default=0.0)
    value = f"{count} runs: {wrong} with wrong bytes, {waits} with a wait over the limit, {incomplete} not complete"
    times = sorted(f.secs for f in results)
    spread = f"longest call {longest:.0f} ms; a run took {times[len(times) // 2]:.1f} s in the median, {times[-1]:.1f} s at most"
    missing = [s for s in STAGES[:5] if not stages[s]] if count >= 200 else []
    notes += [f"no kill at: {s}" for s in missing]
    return Measure(value, not bad and not missing, spread, notes)


def control() -> Measure:
    """A changed byte without its check value must be seen as wrong, and a stopped engine as a wait."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        sums = make_model(scratch / "root")
        slot = Slot(scratch / "root", scratch / "slot")
        stack.enter_context(slot.endpoint)
        plan = Plan(1, victim="nobody", ways=["map", "read", "stdio"], started=[0, 0])
        key = f"{PREFIX}/b.bin"
        slot.set_rules([faults.flipped_byte(key, 1000), faults.rule({"drop_crc": True}, key)])
        changed = Act(slot, plan, sums).act()
        slot.set_rules([])
        stopped = Act(slot, Plan(2, moment="middle", ways=["map", "read", "stdio"], started=[0, 0]), sums, stop=True).act()
    notes = [f"changed byte: {changed.problems()[:2]}", f"stopped engine: {stopped.problems()[:2]}"]
    seen = bool(changed.wrong) and bool(stopped.waits)
    value = f"{len(changed.wrong)} reads of the changed object wrong, {len(stopped.waits)} waits over the limit"
    return Measure(value, not seen, notes=notes)
