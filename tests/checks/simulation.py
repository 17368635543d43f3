"""The simulation of engine and cache (tests/sim): many seeds, and bugs planted into a copy of the sources.

The product's own text has no switch for a bug: each is one change of a few words, made
in a copy that is built for it. A change that fits no longer is an error, so that none is
forgotten when the text around it changes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.harness import paths
from tests.harness.measure import Measure, scale
from tests.harness.run import plain_env

SEEDS = 1_000_000
SEEDS_PLANTED = 10_000
# Copy and build of the planted bugs; kept, so that a second run is quick.
PLACE = paths.CACHE / "planted"
SOURCES = ("Cargo.toml", "Cargo.lock", "cache", "dist", "net", "perf", "sign", "src", "tests")


@dataclass(frozen=True)
class Plant:
    """A bug: what it is, and the changes (file, text, other text) that make it."""

    what: str
    changes: tuple[tuple[str, str, str], ...]


PLANTS = [
    Plant("a part published before its last byte", (
        ("net/conn.rs", "if place.missing() == 0 {", "if place.missing() <= 1 {"),
    )),
    Plant("a lost wake", (
        (
            "net/vcpu.rs",
            "if free && (stop || self.shared.work_epoch.load(Ordering::SeqCst) != self.work_epoch) {",
            "if free && stop {",
        ),
    )),
    Plant("a double owner", (
        ("src/ossc/work/residency/reclaim.rs", "if part.state() != EMPTY {", "if part.is_ready() {"),
        ("cache/part.rs", "(word & STATE == EMPTY).then_some(word & !STATE | FILLING)",
         "(word & STATE != READY).then_some(word & !STATE | FILLING)"),
    )),
    Plant("an eviction under a receive", (
        ("cache/part.rs", "let taken = self.leave_ready(FILLING);", "let taken = self.state() != EMPTY;"),
    )),
    Plant("a copy under a receive", (
        ("src/ossc/work/transfers/flight.rs", "if matches!(piece.main, Main::Asked(..)) {", "if matches!(piece.main, Main::Waiting) {"),
    )),
    Plant("what a reader waits for gives way to another", (
        ("src/ossc/work/transfers/pieces.rs", "!region.part(object, index).is_pinned()", "region.part(object, index).crc64() == 0"),
    )),
    Plant("a mismatch that begins no round", (
        ("src/ossc/work/objects/verdict.rs", "judged.next().with(Judgement::Wrong) } else { judged.next() }",
         "judged.next().with(Judgement::Wrong) } else { judged }"),
    )),
    Plant("a check value that is forgotten with its memory", (
        ("src/ossc/work/objects/verdict.rs", "if !part.is_known(judged.round) {", "if !part.is_known(judged.round) || check.known < object.parts() {"),
    )),
    Plant("blocks that stay when their part is fetched", (
        ("src/ossc/work/shared/fill.rs", "if is_claimed {", "if is_claimed && check.known > object.parts() {"),
    )),
    Plant("blocks that are not compared with their part", (
        ("src/ossc/work/objects/blocks.rs", "if block.is_known(round) && block.crc64() != found {", "if block.is_known(round) && found == 0 {"),
    )),
    Plant("a part that another place brought in part", (
        ("src/ossc/work/transfers/supplies.rs", "crc64: self.is_whole().then_some(self.crc64),", "crc64: (self.put > 0).then_some(self.crc64),"),
    )),
    Plant("no question for the verdict of what another place brought", (
        ("src/ossc/work/objects/verdict.rs", "let is_unasked = self.is_due(object, &check) && !check.is_told;", "let is_unasked = false;"),
    )),
    Plant("a stale ETag", (
        ("net/answer.rs", "if asked.trim_matches('\"').eq_ignore_ascii_case(got.trim_matches('\"')) {",
         "if !asked.is_empty() || got.is_empty() {"),
    )),
]

# What network, origin and machine do to it, and orders of service.
PLANTS_OF_SURVIVAL = [
    Plant("a drip that is never cut", (
        ("net/conn/deadlines.rs", "let is_drip = came * 1000 < least * stall_ms || came * SHARE_MIN < each;", "let is_drip = came > each && each > least * stall_ms;"),
    )),
    Plant("a fair share of a thin link that is taken for a drip", (
        ("net/conn/deadlines.rs", "|| came * SHARE_MIN < each;", "|| came < each * SHARE_MIN;"),
    )),
    Plant("one stray answer that fails an object", (
        ("src/ossc/work/objects/failure.rs", "if !error.is_doubtful() || object.is_superseded() {", "if error.is_doubtful() || object.is_superseded() {"),
    )),
    Plant("one refusal that fails an object", (
        ("net/kind.rs", "        \"the access key may not do this\",\n        EACCES,\n        Again::Once,", "        \"the access key may not do this\",\n        EACCES,\n        Again::No,"),
    )),
    Plant("two mismatches that fail an object", (
        ("src/ossc/work/shared/wrong.rs", "const MISMATCHES_MAX: u32 = 3;", "const MISMATCHES_MAX: u32 = 2;"),
    )),
    Plant("an object whose bytes were wrong that is judged by what came before", (
        ("src/ossc/work/objects/verdict.rs", "object.verdict.set(judged.with(Judgement::Open), &self.region.traces(object).handed);",
         "object.verdict.set(judged.with(Judgement::Nothing), &self.region.traces(object).handed);"),
    )),
    Plant("the end of a small object that is put behind another beginning", (
        ("src/ossc/work/transfers/materialize.rs", "let range = range.start + had..range.end;", "let range = range.start + had / 2..range.end;"),
        ("src/ossc/work/transfers/materialize.rs", "(bytes.len() as u64 == len).then_some((bytes, sum))", "(bytes.len() as u64 >= len).then_some((bytes, sum))"),
    )),
    Plant("blocks that are said to be here, and have come in part", (
        ("src/ossc/work/transfers/blocks.rs", "let whole = (partial.bytes / object.block_bytes()).min", "let whole = (partial.bytes / object.block_bytes() + 1).min"),
    )),
    Plant("answers that are doubted for as long as a listing hangs", (
        ("src/ossc/work/objects/failure.rs", "n if n >= DOUBTS_MAX ||", "n if n == u32::MAX ||"),
    )),
    Plant("a machine that was suspended, and the network is blamed", (
        ("net/vcpu.rs", "self.slots.iter_mut().for_each(|(_, slot)| slot.conn.lay_still(still));", ""),
    )),
    Plant("what a reader waits for is received last", (
        ("net/vcpu.rs", "slot.rank = u64::from(!fetch.urgent) << 63", "slot.rank = u64::from(fetch.urgent) << 63"),
    )),
    Plant("what a reader waits for is asked for last", (
        ("cache/store/plan.rs", "for class in [Class::Demand, Class::Near, Class::Prefetch].into_iter().filter", "for class in [Class::Prefetch, Class::Near, Class::Demand].into_iter().filter"),
    )),
]


def build(root: Path, target: Path, profile: str = "fast") -> Path:
    """The simulation of the sources in `root`. A command of its own: features must not mix with the product's."""
    env = {**plain_env(), "CARGO_TARGET_DIR": str(target)}
    subprocess.run(["cargo", "build", "--locked", "-q", "--profile", profile, "-p", "ossc-sim"], cwd=root, env=env, check=True)
    return target / profile / "ossc-sim"


def run(program: Path, seed: int, seeds: int, *more: str) -> tuple[int, list[str]]:
    argv = [str(program), "--seed", str(seed), "--seeds", str(seeds), *more]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout.splitlines()


# As `ossc-sim` prints them.
SUMMARY = re.compile(r"(\d+) seeds, (\d+) events \(at least (\d+) each\), ([\d.]+) ms per seed, \d+ s: no violation")
COUNT = re.compile(r" *(\d+)  (\S.*)")


def seeds() -> Measure:
    """The seeds are divided among the cores; the coverage of all of them is printed."""
    os.nice(max(0, 10 - os.nice(0)))
    count, first = scale.runs or SEEDS, scale.seed
    program = build(paths.ROOT, paths.TARGET)
    begin = time.monotonic()
    cores = min(len(os.sched_getaffinity(0)), count)
    starts = [first + count * core // cores for core in range(cores + 1)]
    with ThreadPoolExecutor(cores) as pool:
        outcomes = list(pool.map(lambda pair: run(program, pair[0], pair[1] - pair[0], "--partial"), pairwise(starts)))
    if bad := [lines for status, lines in outcomes if status != 0]:
        for line in (line for lines in bad for line in lines):
            print(f"  {line}", flush=True)
        said = [line for lines in bad for line in lines if line.startswith(("violation", "to see it"))]
        return Measure(f"{len(bad)} of {cores} failed", False, "", said)
    # Each says on its way how far it is; the last line counts.
    found = [[match for line in lines if (match := SUMMARY.fullmatch(line))][-1] for _, lines in outcomes]
    reached: Counter[str] = Counter()
    for line in (line for _, lines in outcomes for line in lines):
        if match := COUNT.fullmatch(line):
            reached[match[2]] += int(match[1])
    for what, times in reached.items():
        print(f"  {times:>12,}  {what}", flush=True)
    ran, events, least = sum(int(m[1]) for m in found), sum(int(m[2]) for m in found), min(int(m[3]) for m in found)
    missed = [what for what, times in reached.items() if times == 0]
    value = f"{ran:,} seeds, {events:,} events (at least {least} each), {max(float(m[4]) for m in found)} ms per seed: no violation; "
    value += f"{len(reached) - len(missed)} of {len(reached)} kinds of fault reached; {ran / (time.monotonic() - begin):.0f} seeds a second"
    note = [f"not reached: {what}" for what in missed] + ([] if count >= SEEDS else [f"{count:,} seeds of {SEEDS:,}: --runs asked for fewer"])
    return Measure(value, not missed and ran == count, "", note)


def planted() -> Measure:
    """Good if a planted bug stays unnoticed."""
    return caught(PLANTS)


def planted_in_survival() -> Measure:
    """The same for those of survival."""
    return caught(PLANTS_OF_SURVIVAL)


def caught(plants: list[Plant]) -> Measure:
    tree = PLACE / "tree"
    found: list[str] = []
    missed: list[str] = []
    for plant in plants:
        copy(tree)
        for name, text, other in plant.changes:
            change(tree / name, text, other)
        status, lines = run(build(tree, PLACE / "target"), 1, SEEDS_PLANTED, "--partial")
        hit = next((re.match(r"violation at seed (\d+).*?: (.*)", line) for line in lines if line.startswith("violation")), None)
        print(f"  {plant.what}: {lines[0] if hit else 'not noticed'}", flush=True)
        if status != 0 and hit:
            found.append(f"{plant.what}: seed {hit[1]}")
        else:
            missed.append(f"{plant.what}: not noticed in {SEEDS_PLANTED} seeds")
    return Measure(f"{len(found)} of {len(plants)} planted bugs caught", bool(missed), "", found + missed)


def copy(tree: Path) -> None:
    """The sources, with the times of those that are unchanged, so that cargo builds only what is not."""
    for name in SOURCES:
        source = paths.ROOT / name
        files = [source] if source.is_file() else [p for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
        for file in files:
            target = tree / file.relative_to(paths.ROOT)
            if not target.exists() or target.read_bytes() != file.read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)


def change(file: Path, text: str, other: str) -> None:
    before = file.read_text()
    if before.count(text) != 1:
        raise RuntimeError(f"{file}: the planted bug no longer fits: {text!r} occurs {before.count(text)} times")
    file.write_text(before.replace(text, other))
