"""The command line of ci/bar."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.bars import catalog
from tests.bars.bar import Bar
from tests.harness import paths
from tests.harness.measure import Measure, UnknownKind, scale

NOTES_MAX = 60


def show(bar: Bar, measure: Measure) -> None:
    print(f"  value    {measure.value}")
    print(f"  limit    {bar.limit}")
    if measure.spread:
        print(f"  spread   {measure.spread}")
    for note in measure.notes[:NOTES_MAX]:
        print(f"  - {note}")
    if len(measure.notes) > NOTES_MAX:
        print(f"  - and {len(measure.notes) - NOTES_MAX} more")


def measured(bar: Bar) -> int:
    measure = bar.measure()
    show(bar, measure)
    print(f"  verdict  {'PASS' if measure.good else 'FAIL'}")
    return 0 if measure.good else 1


def control(bar: Bar) -> int:
    print(f"  control: {bar.control_what}")
    measure = bar.control()
    show(bar, measure)
    print("  verdict  " + ("PASS, but the control must fail" if measure.good else "FAIL: control failed as it must"))
    return 1 if measure.good else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="ci/bar", description="Measures one bar; ends with 0 when it is met.")
    parser.add_argument("bar", nargs="?", metavar="NAME|SET", help="name of a bar, or set of bars; `list` lists all bars")
    parser.add_argument("number", nargs="?", type=int, metavar="NUMBER", help="number within the set")
    parser.add_argument("--control", action="store_true", help="break it on purpose; ends with 0 when the bar fails")
    parser.add_argument("--runs", type=int, help="how many runs, where a bar has many (roles 2, bytes 2 and 5), or pairs of loads (loaders 1; 0: none)")
    parser.add_argument("--seeds", type=int, dest="runs", help="the same for seeds of the simulation (engine 8, survive 5)")
    parser.add_argument("--seed", type=int, default=1, help="the first run's seed (roles 2, bytes 2 and 5)")
    parser.add_argument("--size-mib", type=int, help="size of the model (roles 1 and 3)")
    parser.add_argument("--secs", type=int, help="time for each target (wire 5)")
    parser.add_argument("--against", type=Path, metavar="DIR", help="another build's folder, with ossc and libossc_preload.so (bytes)")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="only kinds whose name has TEXT, or rows whose title begins with it, of the bars that --list shows with --only")
    parser.add_argument("--list", action="store_true", help="list all bars")
    options = parser.parse_args()
    scale.runs, scale.seed, scale.size_mib, scale.secs = options.runs, options.seed, options.size_mib, options.secs
    scale.against, scale.only = options.against and options.against.resolve(), options.only
    if options.list or (options.bar, options.number) == ("list", None):
        for name, bar in catalog.every():
            print(f"{name} {bar.number}  {bar.name}: {bar.what}\n        limit: {bar.limit}\n        control: {bar.control_what}")
        return 0
    if options.bar is None:
        parser.error("name a bar, or a set and a number; `ci/bar list` lists all")
    found = catalog.find(options.bar, options.number)
    if not found:
        parser.error(f"there is no bar {options.bar}{'' if options.number is None else f' {options.number}'}; `ci/bar list` lists all")
    paths.require_products()
    ((name, bar),) = found
    if options.only and not bar.has_kinds:
        parser.error(f"{name} {bar.number} has no kinds to choose among by --only")
    print(f"bar {name} {bar.number}, {bar.name}: {bar.what}")
    try:
        return control(bar) if options.control else measured(bar)
    except UnknownKind as unknown:
        parser.error(str(unknown))


if __name__ == "__main__":
    sys.exit(main())
