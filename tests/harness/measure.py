"""What a bar finds, and how much of it was asked for. Used by tests/checks, perf/bars and tests/suites."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


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


class UnknownKind(Exception):
    """--only names what the bar does not have: measured would be nothing, and nothing is never wrong."""


def has_word(word: str, name: str) -> bool:
    """How --only names a kind, where a bar says nothing else."""
    return word in name


def selected(
    all_kinds: Iterable[T], name: Callable[[T], str], is_meant: Callable[[str, str], bool] = has_word, words: list[str] | None = None,
) -> list[T]:
    """The kinds that --only names, or `words` instead; all of them where there are none. UnknownKind for a text that names none."""
    kinds, texts = list(all_kinds), scale.only if words is None else words
    for text in texts:
        if not any(is_meant(text, name(kind)) for kind in kinds):
            raise UnknownKind(f"--only {text!r} names none of: {', '.join(name(kind) for kind in kinds)}")
    return [kind for kind in kinds if not texts or any(is_meant(text, name(kind)) for text in texts)]


def from_problems(value: str, problems: list[str], spread: str = "") -> Measure:
    """A measurement that is good when nothing was found wrong."""
    return Measure(value if not problems else f"{value}; {len(problems)} problems", not problems, spread, problems)
