"""The matrix of faults: what each does to a reader, with both drivers. Its data is matrix.json, beside this file.

Bar `survive 1` asserts every row, and docs/FAULTS.md is made of the same rows. What goes wrong while a reader reads is in matrix_plays.py.
It never changes what a row expects.

A row is a fault and a kind of reader. A fault has the endpoint's rules (tests/endpoint/FAULTS.md), in which what is matched stands beside
`do` and `times`; without `folder` (of a listing) they are of the reader's own object. `play` names what else happens, `options` those of the
endpoint, `settings` keys of the configuration; with `defaults` there are no others. `result` is what the reader gets, one of several where
it is a list; `secs` the longest time that this takes. Each text of `log` is a line of the log or of standard error: its words, with " … "
between them, and "|" between words one of which is enough. No line has the words of `silent`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.checks import matrix_plays as plays
from tests.checks.matrix_plays import Case, Scene, Wrong
from tests.harness import paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems, scale, selected
from tests.harness.run import Run, plain_env

TABLE = Path(__file__).with_name("matrix.json")
DOCUMENT = paths.ROOT / "docs" / "FAULTS.md"
DRIVERS = {"uring": "io_uring", "epoll": "epoll"}
READERS = {"read": "read", "mmap": "map", "fopen": "stdio", "small": "read", "listing": "list", "random": "random", "start": ""}
SECS = 20
# Rows at a time that need a processor, and those that only wait for their deadlines.
AT_ONCE = 8
# A reader is ended this long after its row's time.
GRACE_SECS = 15.0
NAMED_SECS_MAX = 400.0


@dataclass(frozen=True)
class Row:
    """One fault and one kind of reader. `test` or `cargo` name the test that asserts it, where it takes one of its own."""

    group: str
    name: str
    reader: str
    results: tuple[str, ...]
    secs: float
    log: tuple[str, ...]
    silent: tuple[str, ...] = ()
    weakness: tuple[str, ...] = ()
    rules: tuple[dict[str, Any], ...] = ()
    options: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict, hash=False)
    play: dict[str, Any] = field(default_factory=dict, hash=False)
    test: str = ""
    cargo: str = ""

    @property
    def title(self) -> str:
        return f"{self.group}: {self.name}: {self.reader}"

    @property
    def is_alone(self) -> bool:
        """It needs an endpoint of its own."""
        return bool(self.options or self.play)


def listed(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def table() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(TABLE.read_text())
    return found


def rows() -> list[Row]:
    """All rows, in the order of the table; those with a test of their own are the last."""
    data, found = table(), []
    for fault in data["faults"]:
        settings = {} if fault.get("defaults") else data["settings"]
        settings = {**settings, "materializeBytes": plays.MATERIALIZE_BYTES, **fault.get("settings", {})}
        for reader in fault["readers"]:
            found.append(Row(
                fault["group"], fault["name"], reader, listed(fault["result"]), fault.get("secs", SECS), tuple(fault.get("log", ())),
                tuple(fault.get("silent", ())), tuple(fault.get("weakness", ())), tuple(fault.get("rules", ())), tuple(fault.get("options", ())),
                settings, fault.get("play", {}),
            ))
    for row in data["named"]:
        found.append(Row(
            "named", row["name"], row["reader"], (row["result"],), row["secs"], tuple(row["log"]), weakness=tuple(row["weakness"]),
            test=row.get("test", ""), cargo=row.get("cargo", ""),
        ))
    return found


def rules_of(row: Row, case: Case) -> list[dict[str, Any]]:
    """The endpoint's rules for this row."""
    made = []
    for rule in row.rules:
        match = {key: value for key, value in rule.items() if key not in ("do", "times", "folder")}
        if "folder" in rule:
            match.update(kind="list", prefix=case.prefix + rule["folder"])
        else:
            match = {"kind": "get", "key": case.prefix + plays.object_of(row.reader), **match}
        made.append({"match": match, "do": rule["do"], **({"times": rule["times"]} if "times" in rule else {})})
    return made


class Matrix:
    """One run of many rows: one endpoint for all that need no other. `quiet`: nothing goes wrong, so that rows must fail."""

    def __init__(self, scratch: Path, chosen: list[Row], products: Path, quiet: bool = False) -> None:
        self.scratch, self.products, self.quiet = scratch, products, quiet
        self.model = plays.Model(scratch / "plain")
        self.cases = [Case(row, driver, f"m/{driver}/{number}/") for number, row in enumerate(chosen) for driver in DRIVERS]
        self.shared: Endpoint | None = None

    def run(self, say: Callable[[Case, list[str], float], None]) -> None:
        """Asserts all rows; those that mostly wait are not counted among the rows at a time."""
        slow = [case for case in self.cases if case.row.group == "clock"]
        others = [case for case in self.cases if case.row.group != "clock"]
        with ExitStack() as stack:
            shared = [case for case in self.cases if not case.row.is_alone]
            for case in shared:
                self.model.put(self.scratch / "root", case.prefix, os.link)
            (self.scratch / "root").mkdir(exist_ok=True)
            rules = [] if self.quiet else [rule for case in shared for rule in rules_of(case.row, case)]
            # A rule at least, so that it looks for them.
            self.shared = stack.enter_context(Endpoint(self.scratch / "root", self.scratch / "shared", rules or [plays.NOTHING]))
            with ThreadPoolExecutor(max(len(slow), 1)) as patient, ThreadPoolExecutor(AT_ONCE) as pool:
                ends = [patient.submit(self.one, case, say) for case in slow] + [pool.submit(self.one, case, say) for case in others]
                for end in ends:
                    end.result()

    def one(self, case: Case, say: Callable[[Case, list[str], float], None]) -> None:
        begin = time.monotonic()
        try:
            problems = self.asserted(case)
        except (OSError, RuntimeError, AssertionError, subprocess.SubprocessError) as error:
            problems = [f"{type(error).__name__}: {error}"]
        say(case, problems, time.monotonic() - begin)

    def asserted(self, case: Case) -> list[str]:
        """What is wrong with one row, with one driver."""
        row = case.row
        with ExitStack() as stack:
            rules = [] if self.quiet else rules_of(row, case)
            play = {} if self.quiet else row.play
            place = Path(tempfile.mkdtemp(dir=self.scratch))
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            scene = Scene(case, self.model, play, place, stack)
            if row.is_alone:
                scene.serve(rules, [] if self.quiet else list(row.options))
            else:
                assert self.shared is not None
                scene.endpoint = self.shared
            run = Run(scene.endpoint, case.prefix, config=row.settings, io=case.driver, below=place, products=self.products)
            stack.callback(run.close)
            outcome = plays.read(scene, run, READERS[row.reader], row.secs + GRACE_SECS)
            case.secs.append(outcome.secs)
            problems = judged(row, outcome.result, outcome.secs, lines_of(run, row, outcome.said, not self.quiet))
            if "E" in outcome.result[:1] and not self.quiet and not plays.beside(scene, run):
                problems.append("a healthy file beside it cannot be read")
            if problems:
                problems += outcome.said[-3:] + run.log_lines()[-12:]
            run.close()
            return problems + [f"an engine outlived its programs: {run.leaks}"] * bool(run.leaks)


def lines_of(run: Run, row: Row, said: list[str], waits: bool) -> list[str]:
    """What the reader's program and the log say, when what the row names had time to come."""
    for line in row.log:
        if waits and not has([*said, *run.log_lines()], line):
            # Waits for the engine's thread that writes.
            run.logged(line.split(" … ")[0].split("|")[0])
    return [*said, *run.log_lines()]


def has(lines: list[str], wanted: str) -> bool:
    groups = [words.split("|") for words in wanted.split(" … ")]
    return any(all(any(word in line for word in words) for words in groups) for line in lines)


def judged(row: Row, result: str, secs: float, lines: list[str]) -> list[str]:
    """What is not as the row says."""
    problems = [] if result in row.results else [f"the reader got {result}, not {' or '.join(row.results)}"]
    problems += [f"it took {secs:.1f} s, not {row.secs:g} s at most"] if secs > row.secs else []
    problems += [f"no line has: {line}" for line in row.log if not has(lines, line)]
    problems += [f"a line has: {line}" for line in row.silent if has(lines, line)]
    return problems + [f"the engine panicked: {line}" for line in lines if "panicked" in line]


def named(chosen: list[Row]) -> list[str]:
    """Problems of the rows that are tests of their own. Those of crates look at both drivers themselves, or at what knows none."""
    problems = []
    crates = [row.cargo for row in chosen if row.cargo]
    if crates:
        argv = ["cargo", "test", "--locked", "-q", "--profile", "fast", "-p", "ossc-net", "-p", "ossc", "--lib"]
        subprocess.run([*argv, "--no-run"], cwd=paths.ROOT, check=True, env=plain_env())
        done = subprocess.run([*argv, "--", *crates], cwd=paths.ROOT, check=False, env=plain_env(), capture_output=True, text=True, timeout=NAMED_SECS_MAX)
        passed = sum(int(line.split()[3]) for line in done.stdout.splitlines() if line.startswith("test result: "))
        if done.returncode != 0 or passed != len(crates):
            problems.append(f"{passed} of {len(crates)} tests of crates passed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    tests = [row.test for row in chosen if row.test]
    ids = ["tests/e2e/{}.py::{}::{}".format(*test.split(".")) for test in tests]
    for driver in DRIVERS if tests else ():
        argv = [str(paths.VENV_PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "4", *ids]
        done = subprocess.run(argv, cwd=paths.ROOT, check=False, env={**plain_env(), "TEST_IO": driver}, capture_output=True, text=True, timeout=NAMED_SECS_MAX)
        if done.returncode != 0 or f"{len(tests)} passed" not in done.stdout:
            problems.append(f"{driver}: {done.stdout[-3000:]}")
    return problems


def wanted() -> list[Row]:
    """The rows whose title begins with a text of --only, or has one with a blank in it."""
    return selected(rows(), lambda row: row.title, lambda text, title: title.startswith(text) or " " in text and text in title)


def all_hold(chosen: list[Row] | None = None) -> Measure:
    """Every row, or those of --only."""
    chosen = chosen or wanted()
    begin, wrong, done = time.monotonic(), Wrong(), Counter[str]()
    lock = threading.Lock()

    def say(case: Case, problems: list[str], secs: float) -> None:
        with lock:
            done[case.row.group] += 1
            wrong.add(case.title, problems)
            if problems:
                print(f"  wrong, after {secs:.1f} s: {case.title}: {problems[0]}", flush=True)

    run_rows([row for row in chosen if row.group != "named"], say)
    problems = wrong.texts + named([row for row in chosen if row.group == "named"])
    asserted = sum(done.values()) + len(DRIVERS) * sum(row.group == "named" for row in chosen)
    return from_problems(f"{len(chosen)} rows, {asserted} times with a driver, in {time.monotonic() - begin:.0f} s", problems)


def run_rows(chosen: list[Row], say: Callable[[Case, list[str], float], None], quiet: bool = False) -> None:
    with tempfile.TemporaryDirectory(prefix="ossc-bar-", dir=paths.CACHE) as scratch:
        Matrix(Path(scratch), chosen, scale.against or paths.PRODUCTS, quiet).run(say)


def unseen() -> Measure:
    """Good, and so a failed control, if a group has no row that fails when nothing goes wrong; with --against if no row fails there."""
    chosen = [row for row in wanted() if row.group != "named"]
    # The deadlines of the others are short; a row that waits for its time to be over tells nothing more.
    failed: Counter[str] = Counter({group: 0 for group in dict.fromkeys(row.group for row in chosen)})
    notes: list[str] = []
    lock = threading.Lock()

    def say(case: Case, problems: list[str], secs: float) -> None:
        with lock:
            failed[case.row.group] += bool(problems)
            notes.extend([f"{case.title}: {problems[0]}"] if problems and scale.against else [])

    run_rows(chosen, say, quiet=scale.against is None)
    per_group = [f"{group}: {count} fail" for group, count in failed.items()]
    noticed = any(failed.values()) if scale.against else failed and all(failed.values())
    return Measure(", ".join(per_group), not noticed, "", notes)


def cell(text: str) -> str:
    return text.replace("|", " or ").replace("\n", " ")


def document() -> str:
    """docs/FAULTS.md."""
    data, found = table(), rows()
    whats = {group["name"]: group["what"] for group in data["groups"]}
    lines = [HEAD]
    for group, what in whats.items():
        members = [row for row in found if row.group == group]
        lines += [f"## {what}", "", "| Fault | Reader | Result | At most | The log names | Weakness |", "| --- | --- | --- | --- | --- | --- |"]
        for row in members:
            log = "; ".join(f"`{cell(line)}`" for line in row.log)
            test = row.test or row.cargo
            name = cell(row.name) + (f" (`{test}`)" if test else "")
            lines.append(f"| {name} | {row.reader} | {' or '.join(row.results)} | {row.secs:g} s | {log} | {', '.join(row.weakness)} |")
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


HEAD = """# Faults: what each does to a reader

<!-- Made by `python3 -m tests.checks.matrix` from tests/checks/matrix.json. Do not edit. -->

Each row is asserted with both drivers, io_uring and epoll, by `ci/bar survive 1`; a row that names a test is asserted by that test.

- *Reader*: `read`, `mmap` and `fopen` read all of a large object; `random` reads 4 KiB here and there; `small` reads a small object;
  `listing` walks MODEL_DIR; `start` is a program that reads nothing.
- *Result*: the right bytes (of `listing` the right names, of `start` that the program runs), an errno, or a start that is refused.
  A healthy object beside it is read right in any case.
- *At most*: the longest time from the start of the program to its end, on a busy machine. Deadlines are short by configuration keys, but
  those of "Deadlines as they are by default".
- *The log names*: words of one line of the log, or of standard error where the start is refused.
- *Weakness*: what version 0.1.0 did otherwise, by its number: F in faults of network and origin, N in the network's code, E in the engine's.
"""


def main() -> int:
    argparse.ArgumentParser(prog="tests.checks.matrix", description="Writes docs/FAULTS.md from tests/checks/matrix.json.").parse_args()
    DOCUMENT.write_text(document())
    return 0


if __name__ == "__main__":
    sys.exit(main())
