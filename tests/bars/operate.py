"""The bars of operating it: what a person asks at 3 a.m. has an answer, and the answer is right."""

from __future__ import annotations

from tests.bars.bar import Bar
from tests.checks import operate_doctor, operate_starts, pods, upgrade

BARS = [
    Bar(
        1, "doctor-agrees", "51 broken set-ups and 19 that work: what `ossc doctor` and a program of the same variables say (--only)",
        "the doctor's status is 0 exactly when the program loads; the line that fails says what to do; nothing is changed",
        operate_doctor.agree, operate_doctor.switched_off, "the check for users' files in objects' places does not count",
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
]
