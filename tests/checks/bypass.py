"""Programs that escape the hooks, on a managed folder: end-of-file or an error, never a byte that is not the object's.

Called by bar `hooks 4` and, in a short selection, by the end-to-end tests. The programs are in tests/bypass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.checks.host import tiny, tiny_run
from tests.harness import paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems
from tests.harness.run import Run, plain_env
from tests.harness.turn import alone

SOURCES = paths.ROOT / "tests" / "bypass"
OUT = paths.CACHE / "bypass"
LARGE = "a.bin"
SMALL = "small.bin"
# A program ends with this when the machine has no io_uring or aio for it.
UNAVAILABLE = 77
NOBODY = 65534
CFLAGS = ["-O1", "-g", "-Wall", "-Wextra"]


@dataclass(frozen=True)
class Bypasser:
    """One way past the hooks: `argv` of (file, size in bytes), and what it may give for a large object."""

    name: str
    argv: Callable[[str, int], list[str]]
    # What the program skips at the start of the file.
    skip: int = 0
    # The bytes come from a descriptor that a hooked call has given as a whole (a verified stream, or what is opened by a
    # program that is seen to read past the C library): all, or nothing.
    whole_allowed: bool = False
    # Runs as this user (setuid programs only).
    user: int | None = None
    # Part of the short selection of the end-to-end tests: quick, and needs nothing but gcc.
    short: bool = False


class Missing(Exception):
    """A tool that a bypasser is made with is not installed."""


@alone
def compiled(source: str, *flags: str) -> str:
    """Path of a C program of tests/bypass."""
    origin, target = SOURCES / source, OUT / Path(source).stem
    newest = max(p.stat().st_mtime for p in SOURCES.glob("*.[ch]"))
    if not target.exists() or target.stat().st_mtime < newest:
        OUT.mkdir(parents=True, exist_ok=True)
        argv = ["gcc", *CFLAGS, "-o", str(target), str(origin), *flags]
        done = subprocess.run(argv, env=plain_env(), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            if "libaio.h: No such file" in done.stderr:
                raise Missing("libaio-dev")
            raise RuntimeError(f"{source} does not compile:\n{done.stderr}")
    return str(target)


@alone
def go_program(cgo: bool) -> str:
    """Path of the Go reader, built as `go build` builds it, with cgo or without."""
    if shutil.which("go") is None:
        raise Missing("golang-go")
    target = OUT / ("reader_cgo" if cgo else "reader_go")
    newest = max(p.stat().st_mtime for p in (SOURCES / "go").glob("*.go"))
    if not target.exists() or target.stat().st_mtime < newest:
        OUT.mkdir(parents=True, exist_ok=True)
        env = {**plain_env(), "CGO_ENABLED": str(int(cgo)), "GO111MODULE": "off", "GOFLAGS": "", "GOCACHE": str(OUT / "gocache")}
        argv = ["go", "build", "-o", str(target), "."]
        done = subprocess.run(argv, cwd=SOURCES / "go", env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the Go reader does not compile:\n{done.stderr}")
    return str(target)


def ways(program: str, label: str, names: str, short: bool = False, whole_allowed: bool = False) -> list[Bypasser]:
    def one(way: str) -> Bypasser:
        return Bypasser(f"{label}, {way}", lambda file, size: [program, way, file, str(size)], whole_allowed=whole_allowed, short=short)

    return [one(way) for way in names.split()]


def shell(name: str, script: str, **options: Any) -> Bypasser:
    """A command of a preloaded shell; "$0" is the file."""
    return Bypasser(name, lambda file, _: ["bash", "-c", script, file], **options)


def programs() -> list[Bypasser]:
    found = ways(compiled("reader_libc.c", "-static"), "gcc -static", "read pread stdio sendfile mmap", short=True)
    found += ways(compiled("reader_asm.c"), "system calls from assembly", "read mixed mmap", short=True)
    found += ways(compiled("reader_uring.c"), "io_uring", "open", short=True)
    found += ways(compiled("reader_uring.c"), "io_uring", "mixed", short=True, whole_allowed=True)
    return found


def installed_programs() -> tuple[list[Bypasser], list[str]]:
    """What is made with tools that not every machine has, and what is missing."""
    found, missing = [], []
    makers: list[Callable[[], list[Bypasser]]] = [
        lambda: ways(compiled("reader_aio.c", "-laio"), "libaio", "pread preadv", whole_allowed=True),
        lambda: ways(go_program(False), "Go", "read readat mmap"),
        lambda: ways(go_program(True), "Go with cgo", "read readat mmap"),
    ]
    for make in makers:
        try:
            found += make()
        except Missing as tool:
            missing.append(str(tool))
    return found, missing


def children() -> list[Bypasser]:
    stream = compiled("reader_stream.c")
    cat = shutil.which("cat") or "/bin/cat"
    python = 'import sys; sys.stdout.buffer.write(open(sys.argv[1], "rb").read())'
    return [
        shell("env -i cat", f'env -i {cat} "$0"', short=True),
        shell("env -i python", f"env -i {paths.VENV_PYTHON} -c '{python}' \"$0\""),
        shell("env -i tail", 'env -i tail -c +1 "$0"'),
        shell("env -i cp", 'env -i cp "$0" /dev/stdout | cat'),
        shell("inherited descriptor", 'exec 3< "$0"; env -u LD_PRELOAD cat <&3', short=True),
        shell("inherited standard input", 'env -u LD_PRELOAD cat < "$0"'),
        shell("inherited, reopened by name", 'env -u LD_PRELOAD cat /dev/stdin < "$0"'),
        shell("inherited after hooked reads", 'exec 3< "$0"; head -c 1000 <&3 > /dev/null; env -u LD_PRELOAD cat <&3', skip=1000),
        Bypasser("inherited stream", lambda file, _: [stream, file, cat], whole_allowed=True),
    ]


@contextmanager
def setuid_program(missing: list[str]) -> Iterator[list[Bypasser]]:
    """A setuid copy of cat, run as user 65534: the loader drops the preload, and only root may read the folder."""
    with tempfile.TemporaryDirectory(prefix="ossc-setuid-") as scratch:
        os.chmod(scratch, 0o755)
        program = Path(scratch) / "cat"
        shutil.copyfile(shutil.which("cat") or "/bin/cat", program)
        program.chmod(0o4755)
        no_suid = os.statvfs(scratch).f_flag & os.ST_NOSUID
        if os.geteuid() != 0 or no_suid:
            missing.append("setuid programs (root, and a file system without nosuid)")
            yield []
        else:
            yield [Bypasser("setuid program", lambda file, _: [str(program), file], user=NOBODY)]


def call(run: Run, bypasser: Bypasser, file: Path, size: int) -> subprocess.CompletedProcess[bytes]:
    options: dict[str, Any] = {} if bypasser.user is None else {"user": bypasser.user, "group": bypasser.user, "extra_groups": [], "cwd": "/"}
    return run.call(bypasser.argv(str(file), size), timeout=60, **options)


def large_problem(bypasser: Bypasser, done: subprocess.CompletedProcess[bytes], original: bytes) -> str | None:
    """Why this is not end-of-file or an error."""
    got = done.stdout
    if not got or (bypasser.whole_allowed and got == original and done.returncode == 0):
        return None
    return f"{bypasser.name}: {len(got)} bytes of the large object, {got.count(0)} of them zero"


def small_problem(bypasser: Bypasser, done: subprocess.CompletedProcess[bytes], original: bytes) -> str | None:
    if done.returncode == 0 and done.stdout == original[bypasser.skip:]:
        return None
    error = done.stderr.decode(errors="replace")[-200:]
    return f"{bypasser.name}: {len(done.stdout)} bytes of the small file, status {done.returncode}: {error}"


def holding(run: Run, argv: list[str]) -> subprocess.Popen[bytes]:
    return run.start(argv, stdout=subprocess.PIPE)


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@dataclass
class Outcome:
    """What the bypassers got. `flagged`: names of those for which the large object was not empty."""

    ran: list[str]
    unavailable: list[str]
    flagged: set[str]
    problems: list[str]


def attempt(run: Run, plain: Path, bypassers: list[Bypasser], phase: str, outcome: Outcome) -> None:
    large, small = (plain / LARGE).read_bytes(), (plain / SMALL).read_bytes()
    for bypasser in bypassers:
        done = call(run, bypasser, run.model_dir / LARGE, len(large))
        if done.returncode == UNAVAILABLE:
            outcome.unavailable.append(bypasser.name)
            continue
        outcome.ran.append(bypasser.name)
        problem = large_problem(bypasser, done, large)
        if problem is not None:
            outcome.flagged.add(bypasser.name)
            outcome.problems.append(f"{phase}: {problem}")
        done = call(run, bypasser, run.model_dir / SMALL, len(small))
        problem = small_problem(bypasser, done, small)
        outcome.problems += [] if problem is None else [f"{phase}: {problem}"]


def try_all(endpoint: Endpoint, plain: Path, bypassers: list[Bypasser], sparse: bool) -> Outcome:
    """Every bypasser on a cold object, and on one that a hooked program has mapped whole.

    `sparse` puts a sparse file of the object's size in place of the placeholder: what a
    connector would leave there that made its files full-size.
    """
    outcome = Outcome([], [], set(), [])
    with tiny_run(endpoint) as run:
        # Any preloaded program keeps the engine alive; this one reads nothing.
        keeper = holding(run, ["sleep", "600"])
        try:
            # The first command waits until the folder is mirrored.
            listed = run.call(["ls", "-l", str(run.model_dir / LARGE)])
            size = (plain / LARGE).stat().st_size
            if str(size).encode() not in listed.stdout:
                outcome.problems.append(f"a hooked program does not see {size} bytes: {listed.stdout!r} {listed.stderr!r}")
            if (run.model_dir / LARGE).stat().st_size != 0:
                outcome.problems.append(f"{LARGE} is not a placeholder")
            if sparse:
                with open(run.dir / "sparse", "wb") as file:
                    file.truncate(size)
                os.rename(run.dir / "sparse", run.model_dir / LARGE)
            attempt(run, plain, bypassers, "cold", outcome)
            reader = holding(run, [str(paths.VENV_PYTHON), str(paths.APPS / "hold.py"), str(run.model_dir)])
            try:
                assert reader.stdout is not None
                line = reader.stdout.readline()
                if not line.startswith(b"ready"):
                    outcome.problems.append(f"the hooked reader said {line!r}\n{run.log_tail()}")
                attempt(run, plain, bypassers, "in memory", outcome)
            finally:
                end(reader)
        finally:
            end(keeper)
    outcome.problems += [f"an engine outlived its clients: pid {pid}" for pid in run.leaks]
    return outcome


def all_bypassers(missing: list[str]) -> list[Bypasser]:
    installed, absent = installed_programs()
    missing += absent
    return programs() + installed + children()


def describe(outcome: Outcome, missing: list[str]) -> str:
    text = f"{len(set(outcome.ran))} bypassers, each on a cold object and on one in memory"
    absent = sorted(set(outcome.unavailable)) + missing
    return text + (f"; not available here: {', '.join(absent)}" if absent else "")


def escape() -> Measure:
    missing: list[str] = []
    with setuid_program(missing) as special, tiny() as (endpoint, plain):
        outcome = try_all(endpoint, plain, all_bypassers(missing) + special, sparse=False)
    # A run without a tool proves less than the bar promises.
    problems = outcome.problems + [f"not installed: {tool} (ci/setup consumers)" for tool in missing if tool.endswith(("-dev", "-go"))]
    return from_problems(describe(outcome, missing), problems)


def escape_control() -> Measure:
    """Fails, as it must, only when every single bypasser was seen to deliver the zeros of the sparse file."""
    missing: list[str] = []
    with setuid_program(missing) as special, tiny() as (endpoint, plain):
        bypassers = all_bypassers(missing) + special
        outcome = try_all(endpoint, plain, bypassers, sparse=True)
    blind = sorted(set(outcome.ran) - outcome.flagged)
    notes = [f"{name}: its zeros were not noticed" for name in blind] + outcome.problems[:5]
    return Measure(f"zeros noticed for {len(outcome.flagged)} of {len(set(outcome.ran))} bypassers", bool(blind), "", notes)
