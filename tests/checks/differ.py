"""Bar about random operations: whatever a program does, a managed folder answers like a local one."""

from __future__ import annotations

from tests.harness import differ
from tests.harness.differ import VARIANTS, Batch, Rig, Tally
from tests.harness.measure import Measure, from_problems

OPS_MIN = 200_000
COLD_SHARE_MIN = 0.5
CLASS_SHARE_MIN = 0.05
CLASSES = ("mmap", "fork", "dup", "threads", "short reads")
FIRST_SEED = 1
OPS = 1600
COLD_BATCHES = 72
WARM_BATCHES = 16
WARM_SEEDS = 4
# What once found a difference: one operation alone, so that a change of the mix does not lose it.
FOUND = {
    Batch(1, 1, 200, only="end_race"): "threads that met the end of a file at once left the offset behind it",
    Batch(1, 1, 200, only="aio"): "POSIX AIO read through an O_PATH descriptor",
}
# Calls that are led past their hooks, one at a time: each must be noticed.
BYPASSED = {
    "": [
        "read", "pread", "pread64", "readv", "preadv", "preadv64", "preadv2", "lseek", "lseek64", "fstat", "stat", "lstat",
        "fstatat", "statx", "mmap", "mmap64", "fopen", "fopen64", "fdopen", "freopen", "sendfile", "copy_file_range", "splice",
        "ioctl", "syscall", "readlink", "readlinkat", "realpath", "aio_read", "lio_listio",
    ],
    "64": ["preadv64v2", "fstat64", "stat64", "fstatat64", "sendfile64", "freopen64"],
}


def batches() -> list[Batch]:
    """Cold and warm ones in turn, both programs, no seed twice."""
    found = list(FOUND)
    seed = FIRST_SEED + 1000
    for number in range(COLD_BATCHES):
        found.append(Batch(seed, 1, OPS, VARIANTS[number // 2 % 2], cold=True))
        seed += 1
        if number * WARM_BATCHES % COLD_BATCHES < WARM_BATCHES:
            found.append(Batch(seed, WARM_SEEDS, OPS, VARIANTS[len(found) % 2]))
            seed += WARM_SEEDS
    return found


def value_of(tally: Tally) -> str:
    cold, loading = tally.ops_cold / max(tally.ops, 1), tally.ops_loading / max(tally.ops, 1)
    return (
        f"{tally.ops} operations of {tally.seeds} seeds, {len(tally.problems)} differences; "
        f"{cold:.0%} on folders nobody had read, {loading:.0%} before their last byte was there; "
        f"{tally.ops / max(tally.secs_managed, 0.001):.0f} operations/s managed, {tally.ops / max(tally.secs_native, 0.001):.0f} native"
    )


def alike() -> Measure:
    tally = Tally()
    _, classes = differ.weights()
    with Rig() as rig:
        within = "; maps are looked at up to their file's end, since this kernel shows pages behind it" if rig.maps else ""
        for batch in batches():
            rig.compare(batch, tally)
        rig.settle(tally)
    problems = tally.problems
    problems += [f"{name}: only {classes[name]:.1%} of the mix" for name in CLASSES if classes[name] < CLASS_SHARE_MIN]
    if tally.ops < OPS_MIN or tally.ops_cold < tally.ops * COLD_SHARE_MIN:
        problems.append("fewer operations, or fewer on a cold cache, than the bar asks for")
    mix = ", ".join(f"{name} {share:.1%}" for name, share in sorted(classes.items(), key=lambda item: -item[1]))
    return from_problems(value_of(tally), problems, f"mix: {mix}{within}")


def bypassed(rig: Rig, symbols: dict[str, list[str]]) -> tuple[list[str], list[str]]:
    """Which of the symbols were noticed when they went past their hooks, and which were not."""
    noticed: list[str] = []
    missed: list[str] = []
    for variant, names in symbols.items():
        for symbol in names:
            tally = Tally()
            rig.compare(Batch(FIRST_SEED, 3, OPS, variant), tally, differ.bypass(symbol, rig.scratch))
            (noticed if tally.problems else missed).append(symbol)
    return noticed, missed


def alike_control() -> Measure:
    """Good, that is wrong for a control, as soon as one bypassed hook goes unnoticed."""
    with Rig() as rig:
        noticed, missed = bypassed(rig, BYPASSED)
    text = f"{len(noticed)} bypassed hooks noticed, {len(missed)} not"
    return Measure(text, bool(missed), notes=[f"not noticed: {name}" for name in missed])
