"""Bars: what is promised, measured by one command each. Sets are modules with a list BARS.

Run by `ci/bar NAME` or `ci/bar SET NUMBER` and by the end-to-end tests. Each bar has a control: the same
measurement with something broken on purpose, which must fail, so that a bar that
cannot fail is noticed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SETS = {
    "bytes": "bars.bytes", "engine": "bars.engine", "hooks": "bars.hooks", "loaders": "bars.loaders", "main": "bars.main", "roles": "bars.roles", "ship": "bars.ship",
    "wire": "bars.wire",
}


@dataclass
class Measure:
    """What one run of a bar found."""

    value: str
    good: bool
    spread: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bar:
    """One promise: `what` in words, `limit` that the value must keep, and how to see it fail. `name` is unique in all sets."""

    number: int
    name: str
    what: str
    limit: str
    measure: Callable[[], Measure]
    control: Callable[[], Measure]
    control_what: str


@dataclass
class Scale:
    """How much is measured, where the command line says so; None is the bar's own."""

    runs: int | None = None
    seed: int = 1
    size_mib: int | None = None
    secs: int | None = None
    # Another build's folder: what is compared with, or what a control has to notice.
    against: Path | None = None
    # Words of the kinds that are run, where a bar has kinds.
    only: list[str] = field(default_factory=list)


scale = Scale()


def of_set(name: str) -> list[Bar]:
    found: list[Bar] = importlib.import_module(SETS[name]).BARS
    return found


def every() -> list[tuple[str, Bar]]:
    """All bars, each with the name of its set."""
    return [(name, bar) for name in sorted(SETS) for bar in of_set(name)]


def find(word: str, number: int | None) -> list[tuple[str, Bar]]:
    """The bar of this name, or of this set and number; none or one."""
    return [(s, bar) for s, bar in every() if (number is None and bar.name == word) or (s == word and bar.number == number)]


def from_problems(value: str, problems: list[str], spread: str = "") -> Measure:
    """A measurement that is good when nothing was found wrong."""
    return Measure(value if not problems else f"{value}; {len(problems)} problems", not problems, spread, problems)
