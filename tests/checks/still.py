"""Bar about what was there before: the other bars that a change of identity could break, and what an open costs.

Runs each of them as `ci/bar` would, in a process of its own, in short forms where there are such (`--runs` and
`--size-mib` make them shorter still), and gives one verdict.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.harness import blocks, paths
from tests.harness import compile as compiler
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems, scale, selected
from tests.harness.run import Run, plain_env

# Set, number and the options of the short form.
OTHERS = [
    *(("hooks", number, ()) for number in range(1, 6)),
    *(("main", number, ()) for number in range(1, 9)),
    ("roles", 1, ("--size-mib", "512")), ("roles", 2, ("--runs", "100")), *(("roles", number, ()) for number in range(3, 7)),
    ("engine", 7, ()), ("engine", 8, ("--runs", "50000")),
]
OTHER_SECS_MAX = 3600
OPENS = 500
MORE_CALLS_MAX = 1
# System calls of an open and a close of an ordinary empty file in an active process, counted in 0.1.0.
CALLS_BEFORE = {"beside MODEL_DIR": 5.0, "in MODEL_DIR": 3.0}


def calls_of_open(products: Path, active: bool = True) -> dict[str, float]:
    """System calls for each open and close of an empty file that is no object."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as name:
        scratch = Path(name)
        base = scratch / "root" / paths.BUCKET / "c"
        blocks.put(scratch / "root", base / "big.bin", blocks.content(1, 1, 300_000))
        with Endpoint(scratch / "root", scratch / "endpoint") as endpoint, Run(endpoint, "c", config={"materializeBytes": 4096}, products=products) as run:
            for what, path in (("beside MODEL_DIR", run.dir / "empty"), ("in MODEL_DIR", run.model_dir / "empty")):
                path.touch()
                program = str(compiler.program("count_calls.c"))
                env = run.env() if active else plain_env()
                preload = [f"LD_PRELOAD={env.pop('LD_PRELOAD')}"] if active else []
                done = run.call([program, "env", *preload, program, "open", str(path), str(OPENS)], env)
                if done.returncode != 0:
                    raise RuntimeError(f"{what}: status {done.returncode} {done.stderr.decode()}")
                found[what] = int(done.stdout) / OPENS
    return found


def costs(limit: float = MORE_CALLS_MAX) -> tuple[str, list[str]]:
    """The count beside that of the build that --against names, else beside what 0.1.0 was counted to need."""
    before = calls_of_open(scale.against) if scale.against else CALLS_BEFORE
    now = calls_of_open(paths.PRODUCTS)
    text = "; ".join(f"an open {what} makes {now[what]:.2f} system calls, before {before[what]:.2f}" for what in now)
    return text, [f"{what}: {now[what] - before[what]:+.2f} system calls" for what in now if now[what] > before[what] + limit + 0.01]


def other(name: str, number: int, options: tuple[str, ...]) -> str:
    """Empty when the bar is met."""
    argv = [sys.executable, "-m", "tests.bars", name, str(number), *options]
    begin = time.monotonic()
    try:
        done = subprocess.run(argv, cwd=paths.ROOT, capture_output=True, text=True, errors="replace", check=False, timeout=OTHER_SECS_MAX)
        text, status = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as late:
        text, status = f"not done after {late.timeout:.0f} s", 1
    value = next((line.split(None, 1)[1] for line in text.splitlines() if line.startswith("  value")), text[-300:])
    print(f"  {name} {number} {' '.join(options)}: {'PASS' if status == 0 else 'FAIL'} {value[:160]} ({time.monotonic() - begin:.0f} s)", flush=True)
    return "" if status == 0 else f"{name} {number}: {value[:300]}; again: ci/bar {name} {number}"


def still() -> Measure:
    bars = selected(OTHERS, lambda one: f"{one[0]} {one[1]}", lambda word, name: word in (name, name.split()[0]))
    text, problems = costs()
    found = [other(*one) for one in bars]
    problems += [problem for problem in found if problem]
    return from_problems(f"{len([f for f in found if not f])} of {len(bars)} bars met; {text}", problems)


def dearer() -> Measure:
    """The active process stands beside one without the library: its look at each file must be noticed."""
    plain = calls_of_open(paths.PRODUCTS, active=False)
    now = calls_of_open(paths.PRODUCTS)
    problems = [f"{what}: {now[what] - plain[what]:+.2f} system calls" for what in now if now[what] > plain[what] + 0.5]
    return from_problems("; ".join(f"{what} {now[what]:.2f}, without the library {plain[what]:.2f}" for what in now), problems)
