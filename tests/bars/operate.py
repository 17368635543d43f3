"""The bars of operating it: what a person asks at 3 a.m. has an answer, and the answer is right."""

from __future__ import annotations

from perf.bars import logged
from tests.bars.bar import Bar
from tests.checks import operate_doctor, operate_load, operate_log, operate_starts, pods, upgrade
from tests.harness.measure import Measure, from_problems


def log_costs() -> Measure:
    """What the lines cost, and that nothing waits for them."""
    value, problems = logged.cost()
    unnoticed = operate_log.unnoticed()
    return from_problems(f"{value}; {unnoticed.value}", [*problems, *unnoticed.notes])


def log_costs_control() -> Measure:
    """Both halves must fail: one that passes is a problem that is not there."""
    value, problems = logged.cost(logged.MANY_LINES)
    held_up = operate_log.held_up()
    return from_problems(f"{value}; {held_up.value}", [*problems, *held_up.notes] if problems and held_up.notes else [])


BARS = [
    Bar(
        1, "doctor-agrees", "55 broken set-ups and 20 that work: what `ossc doctor` and a program of the same variables say (--only)",
        "the doctor's status is 0 exactly when the program loads; the line that fails says what to do; nothing is changed",
        operate_doctor.agree, operate_doctor.switched_off, "the check for users' files in objects' places does not count",
    ),
    Bar(
        2, "figures-agree", "a load of 4 GiB at 0.3 GB/s on a terminal, and one with retries, throttling, a flipped byte and a hedge (--size-mib)",
        "each figure of the bar, top, status, log, audit and metrics is what the endpoint has counted, within 1 %; the bar goes",
        operate_load.figures, operate_load.another_count, "the figures of one load against the count of another",
    ),
    Bar(
        3, "start-reasons", "200 starts that fail, of 24 kinds and 8 at a time, write to one log (--runs)",
        "each reason that a program printed is in the log as often, and no other",
        operate_starts.logged, operate_starts.lost, "the build that --against names, else that of 0.1.0, which is built for it",
    ),
    Bar(
        4, "read-only-pod", "a load by a user without a name or capabilities, in a root folder that is mounted read-only, with one writable folder",
        "both kinds of memory, with and without the default seccomp profile: all tensors equal, each byte once, log and audit whole",
        pods.in_a_pod, pods.in_a_pod_control, "no folder that can be written; folders in the places of log and audit file",
    ),
    Bar(
        5, "replaces-the-package", "upgrades from 1.1.0rc7 and 1.2.0 of the replaced package by dpkg, apt, rpm and dnf, in roots of their own",
        "installed, serving, the edited configuration kept; a purge leaves nothing, logs included",
        upgrade.replaces, upgrade.replaces_control, "the same packages as version 0.1.0: refused, or a step down that is said",
    ),
    Bar(
        6, "log-costs", f"whole loads of {logged.SIZE_MIB} MiB at logLevel 0 and 3 in turns (--runs); a full disk, full and closed pipes under log and audit",
        f"CPU at level 0 at most {logged.FACTOR_MAX} times that at level 3; readers, requests and engine as where the lines are written, and lost lines are counted",
        log_costs, log_costs_control, "parts of 64 KiB on the side that logs everything; a reader that writes to the full pipe itself",
    ),
]
