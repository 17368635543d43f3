"""What rows of the matrix of faults need: a small model, readers and what they got, and what happens while they read.

Called by matrix.py for each row and driver. It judges nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.harness import paths
from tests.harness.endpoint import Endpoint
from tests.harness.run import Run, end, strike

if TYPE_CHECKING:
    from tests.checks.matrix import Row

MATERIALIZE_BYTES = 65536
LARGE, SMALL, BESIDE = "big.bin", "small.bin", "beside.bin"
SIZES = {LARGE: (1 << 20) + 17, SMALL: 5000, BESIDE: 200_001, "sub/inner.json": 700, "sub/inner.bin": 100_000}
NOTHING: dict[str, Any] = {"match": {"key": "no such object"}, "do": {"delay_ms": 1}}
WAIT_SECS = 10.0


@dataclass(frozen=True)
class Case:
    """A row with one driver, below a prefix of its own."""

    row: Row
    driver: str
    prefix: str
    # What its reader took.
    secs: list[float] = field(default_factory=list, compare=False)

    @property
    def title(self) -> str:
        return f"{self.row.title} ({self.driver})"


@dataclass
class Wrong:
    """What was found wrong, as texts."""

    texts: list[str] = field(default_factory=list)

    def add(self, title: str, problems: list[str]) -> None:
        if problems:
            self.texts.append(f"{title}: " + "\n      ".join(problems))


@dataclass
class Outcome:
    """What a reader got, in how many seconds, and what its program said."""

    result: str
    secs: float
    said: list[str]


def object_of(reader: str) -> str:
    return SMALL if reader == "small" else LARGE


class Model:
    """The same few files for all rows, which each have links to them."""

    def __init__(self, plain: Path) -> None:
        seeded = random.Random(20_261_130)
        self.plain = plain
        for name, size in SIZES.items():
            (plain / name).parent.mkdir(parents=True, exist_ok=True)
            (plain / name).write_bytes(seeded.randbytes(size))

    def put(self, root: Path, prefix: str, place: Callable[[Path, Path], object]) -> Path:
        """The files below a prefix. A link is another change of its file, which endpoints that serve it take for a new version."""
        base = root / paths.BUCKET / prefix
        for name in SIZES:
            (base / name).parent.mkdir(parents=True, exist_ok=True)
            place(self.plain / name, base / name)
        return base


def digest(way: str, file: Path) -> str:
    """As tests/apps/read_all.py gives it."""
    data = file.read_bytes()
    if way == "random":
        data = b"".join(data[at:at + 4096] for at in (number * 7 % 16 * len(data) // 16 for number in range(16)))
    return hashlib.sha256(data).hexdigest()


class Scene:
    """One row while it runs: its endpoint, its folder, and its play."""

    def __init__(self, case: Case, model: Model, play: dict[str, Any], place: Path, stack: ExitStack) -> None:
        self.case, self.model, self.play, self.place, self.stack = case, model, play, place, stack
        self.base = model.plain
        self.changed: bytes | None = None
        self.name = play.get("do", "")
        self.wrap: list[str] = []
        self.endpoint: Endpoint
        self.rules: list[dict[str, Any]] = []

    def serve(self, rules: list[dict[str, Any]], options: list[str]) -> None:
        """An endpoint of its own."""
        root = self.place / "root"
        self.base = self.model.put(root, self.case.prefix, shutil.copyfile)
        if self.name == "grow":
            self.rewrite(LARGE, random.Random(7).randbytes(self.play["bytes"]))
        if self.name == "ports":
            self.wrap = self.few_ports(self.play["limit"])
        program = [*self.wrap, str(paths.ENDPOINT)] if self.wrap else None
        # Its port stays its own when it is started again.
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.rules = rules
        self.endpoint = Endpoint(root, self.place / "endpoint", rules or [NOTHING], options, program=program, listen=f"127.0.0.1:{port}")
        self.endpoint.start()
        self.stack.callback(self.endpoint.stop)

    def rewrite(self, name: str, data: bytes) -> None:
        """Another version, in a file of its own."""
        scratch = self.base / f".{name}"
        scratch.write_bytes(data)
        scratch.rename(self.base / name)

    def few_ports(self, count: int) -> list[str]:
        """A network namespace in which so few ports are free; what stands before a program that is to run in it."""
        holder = subprocess.Popen(["unshare", "--net", "sh", "-c", f"ip link set lo up && echo '40000 {40000 + count - 1}' > /proc/sys/net/ipv4/ip_local_port_range && echo ready && exec sleep 600"], stdout=subprocess.PIPE)
        self.stack.callback(holder.wait)
        self.stack.callback(holder.kill)
        assert holder.stdout is not None
        if holder.stdout.readline() != b"ready\n":
            raise RuntimeError("a network namespace could not be made: this row needs root")
        return ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]

    def before(self, run: Run) -> None:
        """What goes wrong before the program starts."""
        if self.name == "fifo":
            fifo = self.place / "log.fifo"
            os.mkfifo(fifo)
            run.config_path.write_text(json.dumps({**json.loads(run.config_path.read_text()), "logPath": str(fifo)}))
        if self.name == "down" and self.play["after"] < 0:
            self.endpoint.stop()
        if self.name == "silent":
            # A queue that is full: no further packet is answered.
            server = self.stack.enter_context(socket.socket())
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            for _ in range(4):
                client = self.stack.enter_context(socket.socket())
                client.setblocking(False)
                with suppress(BlockingIOError):
                    client.connect(server.getsockname())
            self.endpoint.url = f"http://127.0.0.1:{server.getsockname()[1]}"

    def limits(self) -> None:
        """In the child, before its program."""
        if self.name == "limit":
            limit = self.play["limit"]
            resource.setrlimit(getattr(resource, f"RLIMIT_{self.play['name']}"), (limit, limit))

    def during(self, run: Run) -> None:
        """What happens while the program reads."""
        if self.name in ("away", "again"):
            time.sleep(self.play["secs"])
            self.endpoint.set_rules([NOTHING])
            return
        if self.name not in ("down", "stop", "kill", "overwrite") or self.play["after"] < 0:
            return
        engines = until_engine(run)
        time.sleep(self.play["after"])
        if self.name == "kill":
            strike(run.engines())
        elif self.name == "overwrite":
            self.changed = random.Random(8).randbytes(SIZES[LARGE])
            self.rewrite(LARGE, self.changed)
        elif self.name == "stop":
            strike(engines, signal.SIGSTOP)
            self.stack.callback(strike, engines, signal.SIGCONT)
            time.sleep(self.play["secs"])
            strike(engines, signal.SIGCONT)
        elif self.name == "down":
            self.endpoint.stop()
            if self.play["secs"] > 0:
                time.sleep(self.play["secs"])
                self.endpoint.start()


def until_engine(run: Run) -> list[int]:
    """The engine, as soon as there is one."""
    end_at = time.monotonic() + WAIT_SECS
    while not (found := run.engines()) and time.monotonic() < end_at:
        time.sleep(0.02)
    return found


def read(scene: Scene, run: Run, way: str, secs_max: float) -> Outcome:
    """Runs the reader of a row, with what happens meanwhile. That is done by the caller's thread: an endpoint ends with the thread that
    has started it."""
    scene.before(run)
    outcomes: list[Outcome] = []
    reader = threading.Thread(target=again, args=(scene, run, way, secs_max, outcomes), daemon=True)
    reader.start()
    scene.during(run)
    reader.join(secs_max + WAIT_SECS)
    strike(run.engines(), signal.SIGCONT)
    return outcomes[0] if outcomes else Outcome("a hang", secs_max, [])


def again(scene: Scene, run: Run, way: str, secs_max: float, outcomes: list[Outcome]) -> None:
    """One reader, or one after the other until OSS is back."""
    begin = time.monotonic()
    while True:
        outcome = once(scene, run, way, secs_max - (time.monotonic() - begin))
        if scene.name != "again" or outcome.result == "bytes" or time.monotonic() - begin > secs_max - 2:
            outcomes.append(Outcome(outcome.result, time.monotonic() - begin, outcome.said))
            return
        time.sleep(0.5)


def once(scene: Scene, run: Run, way: str, secs_max: float) -> Outcome:
    name = "." if way == "list" else object_of(scene.case.row.reader)
    argv = [str(paths.VENV_PYTHON), str(paths.APPS / "read_all.py"), way, name] if way else ["true"]
    begin = time.monotonic()
    # What stands before the program must not be one that starts an engine.
    env, wrap = run.env(), []
    if scene.wrap:
        wrap = [*scene.wrap, "env", f"LD_PRELOAD={env.pop('LD_PRELOAD')}"]
    process = run.start(
        [*wrap, *argv], env, cwd=run.model_dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=scene.limits,
    )
    try:
        out, err = process.communicate(timeout=max(secs_max, 1.0))
    except subprocess.TimeoutExpired:
        end(process)
        return Outcome("a hang", time.monotonic() - begin, [])
    said = err.decode(errors="replace").splitlines()
    return Outcome(result_of(scene, process.returncode, out, said, (way, name)), time.monotonic() - begin, said)


def result_of(scene: Scene, status: int, out: bytes, said: list[str], asked: tuple[str, str]) -> str:
    way, name = asked
    if status == 1 and any("failed to launch oss connector" in line for line in said):
        return "refused"
    if status != 0:
        return f"status {status}"
    if not way:
        return "bytes"
    found: str = json.loads(out)[name]
    if way == "list":
        names = "\n".join(sorted(SIZES))
        return "bytes" if found == hashlib.sha256(names.encode()).hexdigest() else found if found.startswith("E") else "other names"
    # What was there when the reader began; a version that came meanwhile is told from it.
    if scene.changed is not None and found == hashlib.sha256(scene.changed).hexdigest():
        return "new bytes"
    right = scene.model.plain if scene.changed is not None else scene.base
    return "bytes" if found == digest(way, right / name) else found if found.startswith("E") else "other bytes"


def beside(scene: Scene, run: Run) -> bool:
    """Whether another large object is read right."""
    if scene.name in ("down", "stop", "ports"):
        return True
    done = run.call([str(paths.VENV_PYTHON), str(paths.APPS / "read_all.py"), "read", BESIDE], cwd=run.model_dir, timeout=60, preexec_fn=scene.limits)
    return done.returncode == 0 and json.loads(done.stdout)[BESIDE] == digest("read", scene.model.plain / BESIDE)
