"""What a bar finds, and how much of it was asked for. Used by tests/checks, perf/bars and tests/suites."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Measure:
    """What one run of a bar found."""

    value: str
    good: bool
    spread: str = ""
    notes: list[str] = field(default_factory=list)


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


# Of this process: its command line writes it, everything else reads it.
scale = Scale()


def from_problems(value: str, problems: list[str], spread: str = "") -> Measure:
    """A measurement that is good when nothing was found wrong."""
    return Measure(value if not problems else f"{value}; {len(problems)} problems", not problems, spread, problems)
