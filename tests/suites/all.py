"""All suites together, as one bar and its control. Called by tests/bars/hooks.py and tests/e2e/test_suites.py."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.harness.measure import Measure
from tests.harness.turn import alone
from tests.suites import ACTIVE, FAIL, PASS, PLAIN, WAYS, Suite, Tally, Way, compare, cpython, database, fio, folder, kind, managed_ways, require, run_unit, stress, tools

SUITES = [tools.SUITE, database.SUITE, fio.SUITE, stress.SUITE, cpython.SUITE]
PROGRAMS = "python3.11 fio stress-ng sqlite3 sha256sum cmp diff tar rsync zip unzip git bash timeout".split()
# What the control damages: one bit of each object, or, for suites that make their own files, a few calls.
CONTROL_UNITS = {
    "tools": tools.SUITE.names,
    "SQLite": database.SUITE.names,
    "fio crc32c": fio.SUITE.names,
    "stress-ng --verify": ["readahead", "msync"],
    "CPython": ["test_fileio", "test_mmap", "test_posix"],
}


def check_installed() -> None:
    require(PROGRAMS)
    tests = subprocess.run(["/usr/bin/python3.11", "-c", "import test.test_io"], capture_output=True, check=False)
    if tests.returncode != 0:
        raise RuntimeError("CPython's tests are not installed: run ci/setup suites first")


def groups(suite: Suite, short: bool) -> list[list[str]]:
    """The units that share one engine: each check of data starts cold, unless there is little time."""
    if short:
        return [suite.short]
    return [suite.names] if suite.writes else [[name] for name in suite.names]


def run(short: bool = False, only: Callable[[Suite], bool] = lambda _: True) -> Measure:
    """The pass set of each suite must be the same in all three ways."""
    check_installed()
    original, root = folder.ensure()
    tallies: list[Tally] = []
    for suite in filter(only, SUITES):
        tally = Tally(suite.title)
        tallies.append(tally)
        for names in groups(suite, short):
            with managed_ways(original, root) as ways:
                compare(suite, ways, names, tally)
                tally.problems += uncovered(suite, ways)
        if not tally.counts(PLAIN)[PASS]:
            tally.problems.append(f"{suite.title}: nothing passed, so nothing was compared")
        print(f"  {tally.line()}", flush=True)
    problems = [p for tally in tallies for p in tally.problems]
    lines = [tally.line() for tally in tallies]
    passed = {way: sum(tally.counts(way)[PASS] for tally in tallies) for way in WAYS}
    value = ", ".join(f"{count} passed {way}" for way, count in passed.items())
    value += f"; {len(problems)} differences"
    rest = [note for tally in tallies for note in tally.unsteady + failed_everywhere(tally)]
    return Measure(value, not problems, "", problems + lines + rest)


def failed_everywhere(tally: Tally) -> list[str]:
    """What fails without the library too: no difference, but worth a line."""
    return [f"{tally.title} {name}: also plain {word}" for name, word in tally.outcomes[PLAIN].items() if kind(word) == FAIL]


def uncovered(suite: Suite, ways: dict[str, Way]) -> list[str]:
    """The active way means something only if the engine served it."""
    managed = ways[ACTIVE].managed
    assert managed is not None
    if suite.writes:
        return [] if managed.engine_starts() else [f"{suite.title}: no engine ran in the active way"]
    sent = sum(r.bytes_sent for r in managed.endpoint.requests())
    return [] if sent > folder.PAYLOAD_BYTES_MIN else [f"{suite.title}: only {sent} bytes came from the endpoint"]


def control(units_by_title: dict[str, list[str]] = CONTROL_UNITS) -> Measure:
    """Every check of data must notice one wrong bit per object, every other suite a library with broken calls."""
    check_installed()
    blind: list[str] = []
    noticed = 0
    original, root = folder.ensure(spoiled=True)
    for suite in SUITES:
        names = units_by_title.get(suite.title, [])
        broken = None if not suite.writes else compile_broken()
        with managed_ways(original, root if broken is None else folder.ensure()[1], broken) as ways:
            for unit in names:
                native, active = run_unit(suite, ways[PLAIN], unit), run_unit(suite, ways[ACTIVE], unit)
                same = all(kind(native.get(n, "")) == kind(active.get(n, "")) for n in native | active)
                noticed += not same
                if same:
                    blind.append(f"{suite.title} {unit}: the damage was not noticed")
    # The control has to fail: only then is each of the checks able to.
    return Measure(f"{noticed} checks noticed the damage, {len(blind)} did not", bool(blind) or not noticed, "", blind)


@alone
def compile_broken() -> Path:
    library = folder.OUT / "broken.so"
    source = Path(__file__).with_name("broken.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-o", str(library), str(source), "-ldl"], check=True)
    return library
