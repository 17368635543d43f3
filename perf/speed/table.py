"""Medians with spread, ratios inside the rounds, the Markdown table and the picture."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from math import comb
from pathlib import Path

from perf.speed.measure import Run

MIB = 1024 * 1024
# Of what is said of a median by its interval.
CONFIDENCE = 0.95


def spread(values: list[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def interval(values: list[float]) -> tuple[float, float]:
    """Between these two of the values lies the median of what they are a sample of, in 95 of 100 cases: the signs of
    independent values around it are those of thrown coins."""
    ordered, count = sorted(values), len(values)
    outside, lowest = 0.0, 0
    while lowest < (count - 1) // 2 and (outside := outside + 2 * comb(count, lowest) / 2**count) <= 1 - CONFIDENCE:
        lowest += 1
    lowest = max(lowest - 1, 0)
    return ordered[lowest], ordered[count - 1 - lowest]


def by_row(runs: list[Run]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        found[run.row].append(run)
    return dict(found)


def ratios(runs: list[Run], one: str, other: str, figure: Callable[[Run], float]) -> list[float]:
    """`figure` of one row over that of the other, round by round, so that a slow minute falls on both."""
    rows = by_row(runs)
    others = {run.round: run for run in rows.get(other, [])}
    return [figure(run) / figure(others[run.round]) for run in rows.get(one, []) if run.round in others]


def markdown(runs: list[Run], left_out: dict[str, str], base: str = "floor") -> str:
    """`base` is the row that others are held against, on their kind of memory."""
    lines = [
        "| row | GB/s | client CPU-s/GB | CPU over floor | GB/s over floor | requests | peak RSS MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in by_row(runs).items():
        floor = f"{base} {found[0].memory or 'tmpfs-huge'}"
        cpu, speed = (ratios(runs, name, floor, f) for f in (lambda r: r.cpu_per_gb, lambda r: r.gb_per_sec))
        cells = [
            name, spread([r.gb_per_sec for r in found]), spread([r.cpu_per_gb for r in found], 3),
            spread(cpu) if cpu else "", spread(speed) if speed else "",
            f"{statistics.median(r.requests for r in found):.0f}", f"{max(r.rss_bytes for r in found) // MIB}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [f"\nLeft out: {name}: {why}" for name, why in left_out.items()]
    return "\n".join(lines) + "\n"


def plot(runs: list[Run], path: Path) -> None:
    """Bars of CPU-s/GB with the spread, coloured by group. The format is the file name's."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    rows = by_row(runs)
    names = sorted(rows, key=lambda name: -statistics.median(r.cpu_per_gb for r in rows[name]))
    values = [statistics.median(r.cpu_per_gb for r in rows[name]) for name in names]
    below = [value - min(r.cpu_per_gb for r in rows[name]) for name, value in zip(names, values)]
    above = [max(r.cpu_per_gb for r in rows[name]) - value for name, value in zip(names, values)]

    def colour(name: str) -> str:
        return "tab:gray" if "floor" in name else "tab:blue" if name.startswith("engine") else "tab:orange"

    figure, axes = pyplot.subplots(figsize=(9, 0.32 * len(names) + 1.2))
    axes.barh(names, values, xerr=[below, above], color=[colour(name) for name in names], ecolor="black", capsize=2)
    axes.set_xlabel("client CPU-seconds per GB (median, smallest to largest); less is better")
    axes.set_title("Gray: floor of this machine. Blue: this engine. Orange: others.")
    figure.tight_layout()
    figure.savefig(path)
