"""Log and audit lines that cannot be written change nothing for readers: a full disk, pipes that are not read, pipes without a
reader.

Part of the bar "operate 6" and of tests/e2e. Programs read a whole folder while nothing takes the lines; what they get, which
requests are made and that the engine lives is compared with a run whose lines are written. The full disk is a small tmpfs in a
mount namespace of the program and its engine.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.checks import host
from tests.harness import folder, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems
from tests.harness.requestlog import once_problems
from tests.harness.run import Run

PREFIX = "team/tiny"
# A wait for the disk or a pipe never ends by itself.
SECS_MAX = 60.0
LINGER_SECS = 3
SMALL_DISK = 'mkdir -p "$1" && mount -t tmpfs -o size=16k none "$1" && head -c 16384 /dev/zero > "$1/full" 2>/dev/null; shift; exec "$@"'


@dataclass
class Trouble:
    """Where the lines go, what the program's standard error is, and what is put before its command."""

    config: dict[str, Any]
    stderr: int = subprocess.DEVNULL
    before: list[str] = field(default_factory=list)


def fill(begin: int) -> None:
    """A pipe takes no more; its other end is open."""
    fcntl.fcntl(begin, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(begin, False)
    try:
        while True:
            os.write(begin, b"x" * 512)
    except BlockingIOError:
        os.set_blocking(begin, True)


@contextmanager
def written(scratch: Path) -> Iterator[Trouble]:
    yield Trouble({"logPath": str(scratch / "log"), "auditPath": str(scratch / "audit")})


@contextmanager
def full_device(_: Path) -> Iterator[Trouble]:
    yield Trouble({"logPath": "/dev/full", "auditPath": "/dev/full"})


@contextmanager
def full_disk(scratch: Path) -> Iterator[Trouble]:
    disk = scratch / "disk"
    space = ["unshare", "--mount", "--propagation", "private", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    yield Trouble({"logPath": str(disk / "log"), "auditPath": str(disk / "audit")}, before=[*space, "sh", "-c", SMALL_DISK, "disk", str(disk)])


@contextmanager
def pipe_by_path(scratch: Path) -> Iterator[Trouble]:
    fifo = scratch / "fifo"
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    begin = os.open(fifo, os.O_WRONLY)
    try:
        fill(begin)
        yield Trouble({"logPath": str(fifo), "auditPath": str(fifo)})
    finally:
        os.close(end)
        os.close(begin)


@contextmanager
def pipe_of_the_program(_: Path, is_open: bool = True) -> Iterator[Trouble]:
    end, begin = os.pipe()
    try:
        fill(begin)
        if not is_open:
            os.close(end)
        yield Trouble({"logPath": "stderr", "auditPath": "stderr"}, stderr=begin)
    finally:
        os.close(begin)
        if is_open:
            os.close(end)


@contextmanager
def closed_pipe(scratch: Path) -> Iterator[Trouble]:
    with pipe_of_the_program(scratch, is_open=False) as trouble:
        yield trouble


KINDS: dict[str, Callable[[Path], Any]] = {
    "written": written, "full device": full_device, "full disk": full_disk, "pipe by its path": pipe_by_path,
    "pipe of the program": pipe_of_the_program, "closed pipe of the program": closed_pipe,
}
# Prints the CRC of each file; with an argument more it says so on its standard error first.
READER = """
import hashlib, pathlib, sys
if len(sys.argv) > 2:
    sys.stderr.write("reading\\n")
for path in sorted(p for p in pathlib.Path(sys.argv[1]).rglob("*") if p.is_file()):
    print(hashlib.sha256(path.read_bytes()).hexdigest(), path.relative_to(sys.argv[1]))
"""


def lines_lost(run: Run, until: float) -> int:
    """How many lines the engine says it has lost, waiting for the first; -1 where none answers."""
    env = run.env(None, LD_PRELOAD=None)
    while True:
        done = subprocess.run([str(paths.OSSC), "status", "--json"], env=env, capture_output=True, text=True, check=False)
        lost = int(json.loads(done.stdout)["report"]["lines_lost"]) if done.returncode in (0, 2) else -1
        if lost != 0 or time.monotonic() > until:
            return lost
        time.sleep(0.05)


def one(endpoint: Endpoint, name: str, plain: Path, *, says: bool = False) -> list[str]:
    """What a kind of trouble has changed."""
    endpoint.forget()
    problems = []
    expected = [f"{hashlib.sha256(p.read_bytes()).hexdigest()} {p.relative_to(plain)}" for p in sorted(q for q in plain.rglob("*") if q.is_file())]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-log-")))
        trouble = stack.enter_context(KINDS[name](scratch))
        settings = {"materializeBytes": folder.MATERIALIZE_BYTES, "logLevel": 0, "lingerSec": LINGER_SECS, **trouble.config}
        run = stack.enter_context(Run(endpoint, PREFIX, config=settings))
        env = run.env()
        preload = env.pop("LD_PRELOAD")
        argv = [*trouble.before, "env", f"LD_PRELOAD={preload}", str(paths.VENV_PYTHON), "-c", READER, str(run.model_dir), *(["says"] if says else [])]
        process = run.start(argv, env, stdout=subprocess.PIPE, stderr=trouble.stderr, start_new_session=True)
        try:
            out, _ = process.communicate(timeout=SECS_MAX if not says else LINGER_SECS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return [f"{name}: the reader is held up"]
        if out.decode().splitlines() != expected:
            problems.append(f"{name}: the reader got {out.decode()[:500]!r}, status {process.returncode}")
        lost = lines_lost(run, time.monotonic() + (0 if name == "written" else LINGER_SECS))
        if lost < 0 or (lost == 0) != (name == "written"):
            problems.append(f"{name}: {lost} lines are lost, says the engine")
        sizes = {key: size for key, size in folder.sizes(plain, PREFIX).items() if size > folder.MATERIALIZE_BYTES}
        problems += [f"{name}: {what}" for what in once_problems([r for r in endpoint.requests() if r.key in sizes], sizes)]
        if run.wait_engines_gone(LINGER_SECS + SECS_MAX) is None:
            problems.append(f"{name}: the engine does not end")
    return problems


def unnoticed() -> Measure:
    with host.tiny() as (endpoint, plain):
        problems = [problem for name in KINDS for problem in one(endpoint, name, plain)]
    return from_problems(f"{len(KINDS)} places for the lines: readers, requests and engine as ever", problems)


def held_up() -> Measure:
    """A reader that itself writes to the pipe that is not read."""
    with host.tiny() as (endpoint, plain):
        return from_problems("a reader writes to the full pipe", one(endpoint, "pipe of the program", plain, says=True))
