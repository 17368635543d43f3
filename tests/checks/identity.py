"""Bar about identity: whatever the folder, the name or the process, a program gets right bytes, or an error with a word.

All kinds of tests/checks/identity_*.py, once as they are and once with every extended attribute refused. The control
takes all marks away, so that nothing can know the empty files: every single read of them must be noticed.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.checks import identity_files, identity_hosts, identity_places
from tests.checks.situations import WAYS, Kind, Rig, Tally
from tests.harness import paths
from tests.harness.measure import Measure, scale, selected

__all__ = ["KINDS", "WAYS", "known", "unknown"]
KINDS: list[Kind] = [*identity_places.KINDS, *identity_hosts.KINDS, *identity_files.KINDS]
# Nothing refused; no attributes, as tmpfs before Linux 6.6 says it; the same as a container's profile says it.
PASSES: list[tuple[str, tuple[str, str] | None, list[Kind]]] = [
    ("", None, KINDS),
    ("attributes refused", ("EOPNOTSUPP", "marks"), KINDS),
    ("attributes forbidden", ("EPERM", "marks"), identity_places.KINDS),
]
TOGETHER = 2
# What 0.1.0 gave wrong bytes for without a word; `--control --against` its build must show each. "few descriptors" was one, not in
# every run: it depends on which call meets the end.
SILENT_BEFORE = {
    "file systems", "other names", "mounts inside", "another MODEL_DIR", "MODEL_DIR reused", "two engines", "no /proc", "relative MODEL_DIR",
    "calls by path on a cold folder", "scopes of symbols", "other preloaded libraries", "calls that are refused", "CONNECTOR_UDS_PATH",
    "users' files", "behind a map", "another endpoint", "odd settings",
}


def run_pass(name: str, refused: tuple[str, str] | None, kinds: list[Kind], products: Path) -> tuple[dict[str, list[str]], int, int, list[str]]:
    """Problems of each kind, reads that were right, errors with a word, and what cannot be had here."""
    prefix = f"{name}: " if name else ""

    def one(kind: Kind) -> tuple[str, Tally, list[str]]:
        what, act = kind
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(dir=scratch) as own, Rig(Path(own), refused, products) as rig:
            act(rig)
            tally = rig.tally
        print(
            f"  {prefix}{what}: {tally.right} right, {tally.loud} errors with a word, "
            f"{len(tally.silent)} silent, {len(tally.refused)} refused, {time.monotonic() - begin:.0f} s", flush=True,
        )
        return what, tally, rig.missing

    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as scratch:
        Path(scratch).chmod(0o755)
        with ThreadPoolExecutor(TOGETHER) as pool:
            came = list(pool.map(one, kinds))
    found = {what: tally.problems() for what, tally, _ in came}
    missing = {text for _, _, texts in came for text in texts}
    return found, sum(tally.right for _, tally, _ in came), sum(tally.loud for _, tally, _ in came), sorted(missing)


def known(only: list[str] | None = None, products: Path = paths.PRODUCTS, passes: int = len(PASSES)) -> Measure:
    """`only` and `passes` are for a short form."""
    wanted = {kind[0] for kind in selected(KINDS, lambda kind: kind[0], words=only)}
    problems: list[str] = []
    notes: list[str] = []
    right = loud = 0
    for name, refused, kinds in PASSES[:passes]:
        found, some, more, missing = run_pass(name, refused, [kind for kind in kinds if kind[0] in wanted], products)
        right, loud = right + some, loud + more
        for what, texts in found.items():
            problems += [f"{name + ': ' if name else ''}{what}: {len(texts)} problems, the first: {text}" for text in texts[:1]]
        notes += [f"not here: {text}" for text in missing if f"not here: {text}" not in notes]
    value = f"{right} reads right, {loud} errors with a word, {len(problems)} kinds with a problem"
    return Measure(value, not problems, notes=problems + notes)


def unknown() -> Measure:
    """No mark at all: each silent read of an empty file must be noticed; a build that is named, each silent kind."""
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as scratch, Rig(Path(scratch)) as rig:
        identity_places.unmarked(rig)
        blind = rig.missing
    value = "without marks every read was noticed" if not blind else f"{len(blind)} file systems with reads that were not noticed"
    if scale.against and not blind:
        found, _, _, _ = run_pass("", None, KINDS, scale.against)
        blind = [f"{kind}: nothing was noticed" for kind in sorted(SILENT_BEFORE) if not found[kind]]
        value += f"; {len(SILENT_BEFORE) - len(blind)} of {len(SILENT_BEFORE)} kinds were noticed in {scale.against}"
    return Measure(value, bool(blind), notes=blind)
