"""Bar about the packages: one command makes them from nothing, and two builds are the same bytes."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dist.package import abi, crates
from tests.checks.build import clone, fresh_env
from tests.harness import paths
from tests.harness.measure import Measure, from_problems

COMMAND = "dist/build"
KINDS = (".rpm", ".deb", ".debug.tar.xz")
# What the control takes out of the command.
HIDES_FOLDER = "PWD=/proc/self/cwd "


def expected() -> list[str]:
    return [*(f"oss-connector-lib-{crates.version()}.x86_64{kind}" for kind in KINDS), "SHA256SUMS"]


def build(root: Path, env: dict[str, str] | None = None) -> list[str]:
    """Runs the one command in a checkout; what went wrong."""
    begin = time.monotonic()
    done = subprocess.run(
        [str(root / COMMAND)], cwd=root, env={**fresh_env(), **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )
    print(f"  {COMMAND} in {root}: status {done.returncode}, {time.monotonic() - begin:.0f} s", flush=True)
    return [] if done.returncode == 0 else [f"{COMMAND} ended with status {done.returncode}", *done.stdout.splitlines()[-15:]]


def differences(left: Path, right: Path) -> list[str]:
    """Packages of two builds that are not the same bytes, or not there."""
    found = []
    for name in expected():
        a, b = left / name, right / name
        if not a.exists() or not b.exists():
            found.append(f"{name} is missing")
        elif a.read_bytes() != b.read_bytes():
            found.append(f"{name} differs between the builds")
    return found


def place_problems(root: Path) -> list[str]:
    """Products and debug files in which there is a folder of this machine: the checkout's or the user's."""
    files = [file for folder in ("products", "debug") for file in sorted((root / "target" / "package" / folder).iterdir())]
    return [
        f"{file.name} has {place} in it"
        for file in files for place in (str(root), f"{Path.home()}/") if place.encode() in file.read_bytes()
    ]


def sizes(out: Path) -> str:
    files = [*(out / "products" / name for name in abi.promise()["files"]), *(out / name for name in expected()[:2])]
    return ", ".join(f"{f.name} {f.stat().st_size / 1e6:.2f} MB" for f in files)


def from_nothing() -> Measure:
    """Two clones, in folders of different name and depth, each with build caches of its own."""
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ossc-ship-") as scratch:
        roots = [Path(scratch) / "one", Path(scratch) / "a" / "deeper" / "folder"]
        for root in roots:
            clone(root)
        with ThreadPoolExecutor() as both:
            problems += [problem for found in both.map(build, roots) for problem in found]
        if problems:
            return from_problems("no packages", problems)
        outs = [root / "target" / "package" for root in roots]
        problems += differences(*outs)
        problems += abi.problems(outs[0] / "products", outs[0] / "debug")
        newest = max((abi.glibc_max(outs[0] / "products" / name) for name in abi.promise()["files"]), key=abi.version_key)
        for root in roots:
            problems += place_problems(root)
        same = "the same bytes" if not differences(*outs) else "different bytes"
        return from_problems(f"2 builds, {same}, at most GLIBC_{newest}; {sizes(outs[0])}", problems)


def build_where_folder_counts(root: Path) -> list[str]:
    """A clone without the word that hides its folder from zig, built."""
    clone(root)
    text = (root / COMMAND).read_text()
    if text.count(HIDES_FOLDER) != 1:
        return [f"{COMMAND} does not say {HIDES_FOLDER!r} once"]
    (root / COMMAND).write_text(text.replace(HIDES_FOLDER, ""))
    return build(root)


def from_nothing_control() -> Measure:
    """The same comparisons where they must see something: the folder or the wall clock in packages, and the wrong C library."""
    blind, notes = [], []
    out = paths.ROOT / "target" / "package"
    with tempfile.TemporaryDirectory(prefix="ossc-ship-") as scratch:
        left, elsewhere = Path(scratch) / "left", Path(scratch) / "elsewhere"
        problems = build(paths.ROOT) + build_where_folder_counts(elsewhere)
        if problems:
            return Measure("no packages to compare", True, "", problems)
        shutil.copytree(out, left)
        problems += build(paths.ROOT, {"SOURCE_DATE_EPOCH": str(int(time.time()))})
        found = {"folder": differences(left, elsewhere / "target" / "package") + place_problems(elsewhere), "time": differences(left, out)}
    for cause, seen in found.items():
        notes += [f"the {cause} of the build: {note}" for note in seen]
        blind += [f"the {cause} of the build in the {k} was not noticed" for k in KINDS[:2] if not any(f"{k} differs" in n for n in seen)]
    if not any("has" in note for note in found["folder"]):
        blind.append("the folder of the build in the debug files was not noticed")
    blind += problems
    promised = abi.promise()
    refused = abi.link_problems(paths.PRELOAD, promised["files"][abi.LIBRARY], promised["glibc"])
    if not any("above GLIBC" in text for text in refused):
        blind.append("a library for this machine's glibc was not refused")
    notes += [f"ci/build's library: {text[:160]}" for text in refused]
    return Measure(f"noticed {len(notes)} differences", bool(blind), "", blind + notes)
