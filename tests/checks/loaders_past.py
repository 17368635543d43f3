"""Programs that ask a large object's size of the C library and read its bytes of the kernel: right bytes, an error, or an
end of file with a line on stderr; a silent end of file in the rows alone that docs/SEMANTICS.md names.

The bar `loaders 2`, the end-to-end tests and the table of docs/SEMANTICS.md are made from `ROWS`. The programs are in
tests/bypass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.checks import bypass, simulation
from tests.checks.host import PREFIX, tiny
from tests.harness import folder, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems
from tests.harness.run import Run, plain_env
from tests.harness.turn import alone

RIGHT, ERROR, END, SILENT = "right bytes", "an error", "end of file and a line", "end of file"
# How the file is opened, in the order of the table: opens for reading, with O_DIRECT, and with `openMode: whole`.
PLAIN, DIRECT, WHOLE = "plain", "direct", "whole"
HOWS = (PLAIN, DIRECT, WHOLE)
HEAD = ("How a program reads", "`open`", "with O_DIRECT", "`openMode: whole`")
LARGE, SMALL = "a.bin", "small.bin"
TMPFS = "1021994"
PLANTS = {
    "whole": ("src/preload/hook/whole.rs", "let Some(why) = past::why(seen, flags) else {", "let Some(why) = None::<Why>.filter(|_| past::why(seen, flags).is_some()) else {"),
    "statfs": ("src/preload/hook/fs.rs", "    if let Some(fs) = memory_fs() {", "    if let Some(fs) = memory_fs().filter(|_| false) {"),
}

Argv = Callable[[str, str, int], list[str]]


@dataclass(frozen=True)
class Row:
    """One way past the C library; `argv` of (how, file, its size), and what it gives for each of `HOWS`."""

    name: str
    argv: Argv
    expect: tuple[str, str, str]
    # Other names of the same row in the document: each is a program of its own here.
    document: str = ""

    @property
    def text(self) -> str:
        return self.document or self.name


def program(source: str, way: str, *flags: str, name: str = "") -> Argv:
    path = compiled(source, name or Path(source).stem, *flags)
    return lambda how, file, _: [path, way, "direct" if how == DIRECT else "plain", file]


def writable(source: str, way: str, *flags: str) -> Argv:
    path = compiled(source, Path(source).stem, *flags)
    return lambda _how, file, _size: [path, way, "rdwr", file]


@alone
def compiled(source: str, name: str, *flags: str) -> str:
    origin, target = bypass.SOURCES / source, bypass.OUT / name
    newest = max(p.stat().st_mtime for p in bypass.SOURCES.glob("*.[ch]"))
    if not target.exists() or target.stat().st_mtime < newest:
        bypass.OUT.mkdir(parents=True, exist_ok=True)
        argv = ["gcc", *bypass.CFLAGS, "-o", str(target), str(origin), *flags]
        done = subprocess.run(argv, env=plain_env(), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            for header, package in (("libaio.h", "libaio-dev"), ("liburing.h", "liburing-dev")):
                if f"{header}: No such file" in done.stderr:
                    raise bypass.Missing(package)
            raise RuntimeError(f"{source} does not compile:\n{done.stderr}")
    return str(target)


INHERIT = "import os, subprocess, sys; fd = os.open(sys.argv[1], os.O_RDONLY | int(sys.argv[2])); subprocess.run(['cat'], stdin=fd, env={}, check=True)"


def inherited(how: str, file: str, _: int) -> list[str]:
    return [str(paths.VENV_PYTHON), "-c", INHERIT, file, str(os.O_DIRECT if how == DIRECT else 0)]


def own_open(path: str, way: str) -> Argv:
    return lambda _, file, size: [path, way, file, str(size)]


def makers() -> list[tuple[str, Callable[[], Argv], tuple[str, str, str], str]]:
    number, ring = "past_number.c", "past_ring.c"
    static = ("-l:liburing.a",)
    linked = "liburing linked in, or a ring made from assembly"
    by_number = "io_uring by `syscall()` (the crates io-uring and tokio-uring)"
    own = "the file opened past the C library, too: static programs, Go, tokio-uring's own `open`"
    return [
        ("libaio", lambda: program("past_aio.c", "aio", "-laio"), (RIGHT, RIGHT, RIGHT), "libaio as a library"),
        ("aio by syscall(), first", lambda: program(number, "aio first"), (RIGHT, RIGHT, RIGHT), "aio by `syscall()`, its context made before the open"),
        ("aio by syscall()", lambda: program(number, "aio"), (END, RIGHT, RIGHT), "aio by `syscall()`, its context made after the open"),
        ("liburing", lambda: program(ring, "ring", "-luring"), (RIGHT, RIGHT, RIGHT), "liburing as a library"),
        ("io_uring by syscall(), first", lambda: program(number, "uring first"), (RIGHT, RIGHT, RIGHT), f"{by_number}, the ring made before the open"),
        ("io_uring by syscall()", lambda: program(number, "uring"), (END, RIGHT, RIGHT), f"{by_number}, the ring made after the open"),
        ("liburing linked in, first", lambda: program(ring, "ring first", *static, name="past_ring_static"), (RIGHT, RIGHT, RIGHT), f"{linked} before the open"),
        ("ring from assembly, first", lambda: program(number, "asm uring first"), (RIGHT, RIGHT, RIGHT), f"{linked} before the open"),
        ("liburing linked in", lambda: program(ring, "ring", *static, name="past_ring_static"), (SILENT, RIGHT, RIGHT), f"{linked} after the open"),
        ("ring from assembly", lambda: program(number, "asm uring"), (SILENT, RIGHT, RIGHT), f"{linked} after the open"),
        ("aio from assembly", lambda: program(number, "asm aio first"), (SILENT, RIGHT, RIGHT), "aio from assembly"),
        ("pread by syscall()", lambda: program(number, "pread"), (RIGHT, RIGHT, RIGHT), "`read` and `pread` by `syscall()`"),
        ("pread from assembly", lambda: program(number, "asm pread"), (SILENT, RIGHT, RIGHT), "`read` and `pread` from assembly"),
        ("map from assembly", lambda: program(number, "asm map"), (ERROR, RIGHT, RIGHT), "`mmap` from assembly"),
        ("child without the library", lambda: inherited, (SILENT, RIGHT, RIGHT), "a child without the library, by a descriptor that it inherits"),
        ("libaio, writable", lambda: writable("past_aio.c", "aio", "-laio"), (END, END, END), "any of these, of a file that is open for writing, too"),
        ("opened on the ring", lambda: own_open(bypass.compiled("reader_uring.c"), "open"), (SILENT, SILENT, SILENT), own),
        ("static program", lambda: own_open(bypass.compiled("reader_libc.c", "-static"), "pread"), (SILENT, SILENT, SILENT), own),
        ("Go", lambda: own_open(bypass.go_program(False), "read"), (SILENT, SILENT, SILENT), own),
    ]


def rows(missing: list[str]) -> list[Row]:
    """Those whose programs can be made here."""
    found = []
    for name, make, expect, document in makers():
        try:
            found.append(Row(name, make(), expect, document))
        except bypass.Missing as tool:
            missing.append(str(tool))
    return found


def table() -> str:
    """As docs/SEMANTICS.md has it."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + " --- |" * len(HEAD)]
    for _, _, expect, document in makers():
        line = f"| {document} | {' | '.join(expect)} |"
        lines += [line] if line not in lines else []
    return "\n".join(lines)


def outcome(done: subprocess.CompletedProcess[bytes], original: bytes) -> str:
    if done.stdout == original and done.returncode == 0:
        return f"{RIGHT}, and a line" if b"oss connector: " in done.stderr else RIGHT
    if done.stdout != original[: len(done.stdout)]:
        return f"wrong bytes, {done.stdout.count(0)} of {len(done.stdout)} zero"
    if done.returncode != 0:
        return ERROR
    is_said = any(b"oss connector: " in line and b"end-of-file" in line for line in done.stderr.splitlines())
    return END if is_said else SILENT


def try_rows(run: Run, plain: Path, found: list[Row], how: str, phase: str) -> tuple[int, list[tuple[str, str]]]:
    """How many were tried, and what was not as the table says, by the row's name."""
    large, small = (plain / LARGE).read_bytes(), (plain / SMALL).read_bytes()
    tried, wrong = 0, []
    for row in found:
        done = run.call(row.argv(how, str(run.model_dir / LARGE), len(large)), timeout=60)
        if done.returncode == bypass.UNAVAILABLE:
            wrong.append((row.name, f"{row.name}: not available here"))
            continue
        tried += 1
        got, expected = outcome(done, large), row.expect[HOWS.index(how)]
        if got != expected:
            wrong.append((row.name, f"{row.name}, {how}, {phase}: {got}, not {expected}; {done.stderr.decode(errors='replace')[-200:]}"))
        # Real files are read by every program, but for blocks that a disk wants aligned.
        if how != DIRECT:
            done = run.call(row.argv(how, str(run.model_dir / SMALL), len(small)), timeout=60)
            wrong += [] if outcome(done, small) == RIGHT else [(row.name, f"{row.name}, {how}, {phase}: the small file is {outcome(done, small)}")]
    return tried, wrong


def lies(run: Run) -> list[str]:
    """What statfs and its kin say: tmpfs of a large object, the folder's own file system of everything else."""
    probe = compiled("lies.c", "lies")
    done = run.call([probe, str(run.model_dir / LARGE), str(run.model_dir / SMALL), str(run.model_dir)])
    native = subprocess.run([probe, str(run.model_dir / SMALL), str(run.model_dir)], env=plain_env(), capture_output=True, text=True, check=True)
    own = native.stdout.splitlines()[0].split()[-1]
    lines = [line.rsplit(" ", 1) for line in done.stdout.decode().splitlines()]
    expected = {LARGE: TMPFS, SMALL: own, run.model_dir.name: own}
    wrong = [f"{name}: {kind}, not {expected[Path(name.split()[-1]).name]}" for name, kind in lines if kind != expected[Path(name.split()[-1]).name]]
    return wrong + ([] if len(lines) == 27 else [f"{len(lines)} answers: {done.stderr!r}"])


@dataclass
class Found:
    tried: int
    wrong: list[tuple[str, str]]
    statfs: list[str]
    missing: list[str]


def attempt(endpoint: Endpoint, plain: Path, products: Path = paths.PRODUCTS) -> Found:
    """Each row on a cold object (an engine of its own), and on one that is in memory."""
    missing: list[str] = []
    found = Found(0, [], [], missing)
    for row in rows(missing):
        for how in HOWS:
            with managed(endpoint, how, products) as run, kept(run):
                for phase in ("cold", "ready"):
                    tried, wrong = try_rows(run, plain, [row], how, phase)
                    found.tried, found.wrong = found.tried + tried, found.wrong + wrong
                    if phase == "cold":
                        run.call(["sha256sum", str(run.model_dir / LARGE)])
    with managed(endpoint, PLAIN, products) as run:
        found.statfs = lies(run)
    return found


@contextmanager
def kept(run: Run) -> Iterator[None]:
    """An engine that has listed the folder, of whose objects nothing has been read."""
    keeper = run.start(["sleep", "600"])
    try:
        run.call(["ls", str(run.model_dir)])
        yield
    finally:
        keeper.kill()
        keeper.wait()


def managed(endpoint: Endpoint, how: str, products: Path) -> Run:
    mode = {"openMode": "whole"} if how == WHOLE else {}
    return Run(endpoint, PREFIX, config={"materializeBytes": folder.MATERIALIZE_BYTES, **mode}, products=products)


def past() -> Measure:
    with tiny() as (endpoint, plain):
        found = attempt(endpoint, plain)
    document = (paths.ROOT / "docs" / "SEMANTICS.md").read_text()
    problems = [text for _, text in found.wrong] + [f"statfs: {text}" for text in found.statfs]
    problems += [f"not installed: {tool} (ci/setup consumers)" for tool in sorted(set(found.missing))]
    problems += [] if table() in document else ["docs/SEMANTICS.md has another table"]
    return from_problems(f"{found.tried} reads of a large object by {len(makers())} ways, cold and ready", problems)


def broken(tree: Path) -> Path:
    """A build in which no open is whole and statfs answers as the disk does."""
    simulation.copy(tree)
    for plant in PLANTS.values():
        simulation.change(tree / plant[0], plant[1], plant[2])
    target = simulation.PLACE / "target"
    env = {**plain_env(), "CARGO_TARGET_DIR": str(target)}
    subprocess.run(["cargo", "build", "--locked", "-q", "--profile", "fast", "-p", "ossc", "-p", "ossc-preload"], cwd=tree, env=env, check=True)
    out = simulation.PLACE / "past"
    out.mkdir(parents=True, exist_ok=True)
    for name in (paths.OSSC.name, paths.PRELOAD.name):
        shutil.copy(target / "fast" / name, out / name)
    return out


def past_control() -> Measure:
    """Good if a row that needs the whole open, or the answer of statfs, was not noticed to be wrong."""
    products = broken(simulation.PLACE / "tree")
    with tiny() as (endpoint, plain):
        found = attempt(endpoint, plain, products)
    # Hooked calls need no whole object.
    needs = {name for name, _, expect, _ in makers() if RIGHT in expect and name != "pread by syscall()"}
    noticed = {name for name, _ in found.wrong}
    blind = sorted(needs - noticed) + ([] if found.statfs else ["statfs"])
    notes = [f"not noticed: {name}" for name in blind] + [text for _, text in found.wrong[:3]] + found.statfs[:1]
    return Measure(f"{len(needs & noticed)} of {len(needs)} ways noticed, and {len(found.statfs)} answers of statfs", bool(blind), "", notes)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
