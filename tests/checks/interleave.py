"""The bar of the shared region's protocols: schedules, orders of memory accesses, and a death at every step.

The checks are tests of the crate `cache` (tests/model.rs, loom.rs, death.rs). A plain `ci/test` runs a short
selection of them; here they run with many more schedules, and what they print is added up.
"""

from __future__ import annotations

import re
import subprocess

from tests.harness import paths
from tests.harness.measure import Measure, from_problems
from tests.harness.run import plain_env

TESTS = ("model", "loom", "death")
# Times the schedules of a plain `cargo test`.
SCALE = 25
LIMIT_SECS = 1500
HELD = re.compile(r"(model|loom|death) ([^:\n]+): (\d+) (?:schedules|executions|steps)(?:[^,\n]*), ([^\n]+)")
DEATHS = re.compile(r"(\d+) deaths")
FOUND = re.compile(r"control ([^\n]+?): found([^\n]*)")
NOT_FOUND = re.compile(r"control ([^\n]+?): not found[^\n]*")
# What must be among the results: a check that silently went away is noticed.
MODELS = 13
ORDERS = 6
SEQUENCES = 5
PLANTED = 39


def run(scale: int) -> tuple[int, str]:
    argv = ["cargo", "test", "--locked", "--profile", "fast", "-p", "ossc-cache"]
    for test in TESTS:
        argv += ["--test", test]
    env = {**plain_env(), "CARGO_TARGET_DIR": str(paths.TARGET), "OSSC_MODEL_SCALE": str(scale), "RUST_BACKTRACE": "0"}
    done = subprocess.run(
        [*argv, "--no-fail-fast", "--", "--nocapture"], cwd=paths.ROOT, env=env,
        capture_output=True, text=True, check=False, timeout=LIMIT_SECS,
    )
    return done.returncode, done.stdout + done.stderr


def of_kind(output: str, kind: str) -> list[tuple[str, int, str]]:
    return [(name, int(count), rest) for found, name, count, rest in HELD.findall(output) if found == kind]


def checked() -> Measure:
    status, output = run(SCALE)
    models, orders, deaths = (of_kind(output, kind) for kind in ("model", "loom", "death"))
    planted = FOUND.findall(output)
    died = sum(int(count) for _, _, rest in deaths for count in DEATHS.findall(rest))
    for kind, results in (("schedules", models), ("executions", orders), ("steps", deaths)):
        for name, count, rest in sorted(results):
            print(f"  {name}: {count} {kind}, {rest}", flush=True)
    problems = [line for line in output.splitlines() if line.endswith("FAILED") or "not found" in line or line.startswith("error")]
    if status != 0 and not problems:
        problems = output.splitlines()[-10:]
    for what, number, least in (
        ("models", len(models), MODELS), ("models of orders", len(orders), ORDERS),
        ("sequences that die", len(deaths), SEQUENCES), ("planted bugs found", len(planted), PLANTED),
    ):
        if number < least:
            problems.append(f"{number} {what}, not {least}")
    value = (
        f"{len(models)} models, {sum(count for _, count, _ in models)} schedules; "
        f"{len(orders)} models of orders, {sum(count for _, count, _ in orders)} executions; "
        f"{sum(count for _, count, _ in deaths)} steps, {died} deaths; {len(planted)} planted bugs found"
    )
    return from_problems(value, problems)


def planted() -> Measure:
    """The twins of the same models with a bug in each: good only if one of the bugs goes unnoticed."""
    _, output = run(1)
    found, missed = FOUND.findall(output), NOT_FOUND.findall(output)
    for name, how in sorted(found):
        print(f"  {name}: violation found{how[:110]}", flush=True)
    unnoticed = bool(missed) or len(found) < PLANTED
    return Measure(f"{len(found)} of {len(found) + len(missed)} broken protocols violate their promise", unnoticed, notes=missed)
