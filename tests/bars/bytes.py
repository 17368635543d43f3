"""The bars of the bytes: whatever the folder, the process or the moment, no byte is wrong without an error."""

from __future__ import annotations

from perf.bars import paired
from tests.bars.bar import Bar
from tests.checks import identity, one_model, releases, still, uses, verdicts, versions
from tests.harness.measure import Measure


def judged_bytes() -> Measure:
    """The matrix of flipped bytes, and what the verdicts cost beside another build."""
    measure = verdicts.verdicts()
    text, problems = paired.cost()
    return Measure(f"{measure.value}; {text}", measure.good and not problems, measure.spread, problems + measure.notes)


BARS = [
    Bar(
        1, "environments", f"{len(identity.KINDS)} kinds of peculiar folders, names, processes and limits, with and without extended attributes, {len(identity.WAYS)} ways to read (--only)",
        "right bytes, or an error with a word; never empty, zero or other bytes with status 0",
        identity.known, identity.unknown, "no mark at all: each silent read must be noticed; with --against also each kind that 0.1.0 got wrong",
    ),
    Bar(
        2, "overwrite-under-kill", f"an object is overwritten while engine, primary or a reader is killed, both page kinds, {len(versions.WAYS)} ways to read (--runs, --seed)",
        f"{versions.RUNS} seeded runs: each reader sees one version as a whole, or an error; none a mix",
        versions.whole_versions, versions.control,
        f"the build that --against names, or bytes that change under one ETag: seen within {versions.CONTROL_RUNS} seeds",
    ),
    Bar(
        3, "release-race", "memory is given back while programs open, map, dup, fork and exit: a checker of schedules, and runs with slowed system calls",
        "1,000,000 schedules and 200 runs: no byte changed under a map",
        releases.releases, releases.releases_control, "the lease is dropped in the statement that takes it",
    ),
    Bar(
        4, "bit-flip", "a flipped byte, once or always, in the first, a middle or the last part, beside every way to read; what it costs (--against)",
        f"success means right bytes, log and audit name the rest; CPU at most {paired.FACTOR_MAX} times the other build's",
        judged_bytes, verdicts.verdicts_control, "nothing is compared with the object's CRC-64",
    ),
    Bar(
        5, "model-replacement", f"a model of {len(one_model.MODEL)} objects is replaced around the start of programs beside engines in four states; {one_model.TAKE_OVERS} take-overs (--runs, --seed)",
        f"{one_model.RUNS} seeded runs: one version as a whole or an error, the new one {one_model.LIST_AGAIN_SECS} s later, no user's file touched; memory and descriptors as after the first take-over",
        one_model.whole_models, one_model.not_renewed, "listings are not renewed, or the build that --against names",
    ),
    Bar(
        6, "lease-expiry", "uses against expireTimeSec, by a virtual clock and in real time; a program that sleeps first; one object's versions (--runs, --seed)",
        f"{uses.SCHEDULES_MIN} and {uses.REAL_SCHEDULES} schedules: never released early, at most {uses.LATE_SECS_MAX:.0f} s late; 1.0 times the bytes; {uses.VERSIONS_MIN} versions bounded",
        uses.counted, uses.forgotten, "expireTimeSec -1",
    ),
    Bar(
        7, "short-forms", "hooks 1 to 5, main, roles 1 to 6, engine 7 and 8 in their short forms; system calls of an active open of an ordinary empty file (--only, --against)",
        f"all met; at most {still.MORE_CALLS_MAX} system call more than before",
        still.still, still.dearer, "the same open without the library stands for the one before",
    ),
]
