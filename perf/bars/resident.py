"""Bar about what an engine takes beside the bytes that it keeps: memory with many connections, threads, wake-ups.

The endpoint is shaped so that all connections are busy at once; the engine is looked at from outside, in /proc.
"""

from __future__ import annotations

import re
import select
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.harness import folder, models, paths, warm
from tests.harness.certificate import Certificate
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems
from tests.harness.run import Run

MIB = 1024 * 1024
CONNECTIONS = 256
SIZE_MIB = 1024
# Each connection is busy for almost a second with a part of this size, so that all are busy at once: 0.34 GB/s for all,
# which two cores carry by https, too.
PART_BYTES = MIB
BYTES_PER_SEC = 5 * MIB // 4
PLAIN_BYTES_MAX = 64 * MIB
HTTPS_BYTES_MAX = 128 * MIB
IDLE_SECS = 60
CONTROL_SECS = 20
WAKES_PER_SEC_MAX = 1.0
READ_SECS_MAX = 180.0
MEMORY_FILE = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+\s+(?:/o\d+|/memfd:o\d+)(?: \(deleted\))?$")
# Reads every large file, says so with the threads of its process, and stays until its input ends.
CLIENT = """
import os, pathlib, sys
for file in sorted(pathlib.Path(sys.argv[1]).rglob("*.safetensors")):
    with open(file, "rb") as opened:
        while opened.read(1 << 20):
            pass
print("threads", len(os.listdir("/proc/self/task")), flush=True)
sys.stdin.read()
"""


def resident_bytes(pid: int) -> int:
    """Resident memory of a process without the memory files of the cache."""
    total, cache = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", line):
            cache = bool(MEMORY_FILE.match(line))
        elif line.startswith("Rss:") and not cache:
            total += int(line.split()[1]) * 1024
    return total


def connections(pid: int) -> int:
    """Established connections of a process."""
    own = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            own.add(target[8:-1])
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return sum(fields[3] == "01" and fields[9] in own for fields in map(str.split, lines))


def wakes(pid: int) -> int:
    """How often the threads of a process have slept and woken so far."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text(), re.MULTILINE)
        total += int(found[1]) if found else 0
    return total


def listed_threads() -> set[str]:
    """Names in the table of ARCHITECTURE, as the kernel cuts them."""
    text = (paths.ROOT / "docs" / "ARCHITECTURE.md").read_text()
    return {name.removesuffix("-N")[:15] for name in re.findall(r"^\| `(ossc[\w-]*)`", text, re.MULTILINE)}


def threads(pid: int) -> set[str]:
    names = {(task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()}
    return {re.sub(r"-\d+$", "", name) for name in names}


class Loaded:
    """A client that reads the model over 256 connections, and what its engine took meanwhile."""

    def __init__(self, run: Run) -> None:
        self.run = run
        argv = [str(paths.VENV_PYTHON), "-c", CLIENT, str(run.model_dir)]
        self.client = run.start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.peak_bytes = self.connections = 0
        self.names: set[str] = set()
        end = time.monotonic() + READ_SECS_MAX
        while not self._is_through() and time.monotonic() < end and self.client.poll() is None:
            for pid in run.engines()[:1]:
                try:
                    self.peak_bytes = max(self.peak_bytes, resident_bytes(pid))
                    self.connections = max(self.connections, connections(pid))
                    self.names |= threads(pid)
                except OSError:
                    continue
            time.sleep(0.05)
        stdout = self.client.stdout
        assert stdout is not None
        word = stdout.readline().split() if self.client.poll() is None else []
        self.client_threads = int(word[1]) if word else 0

    def _is_through(self) -> bool:
        """True when the client has said its word."""
        assert self.client.stdout is not None
        return bool(select.select([self.client.stdout], [], [], 0)[0])

    def end(self) -> None:
        assert self.client.stdin is not None
        self.client.stdin.close()
        self.client.wait(30)


def config(certificate: Certificate | None) -> dict[str, object]:
    settings: dict[str, object] = {
        "materializeBytes": folder.MATERIALIZE_BYTES, "partBytes": PART_BYTES,
        "prefetch": {"vcpus": 16, "workers": CONNECTIONS // 16},
    }
    return settings if certificate is None else {**settings, "tls": {"caFile": str(certificate.ca)}}


def one_load(scheme: str, scratch: Path, idle_secs: int, part_bytes: int) -> tuple[str, list[str]]:
    """What was found, and problems."""
    model = models.ensure("shards", SIZE_MIB)
    problems: list[str] = []
    with ExitStack() as stack:
        certificate = Certificate(scratch / "certificate") if scheme == "https" else None
        shape = [{"match": {"kind": "get"}, "do": {"conn_bytes_per_sec": BYTES_PER_SEC}}]
        options = certificate.options if certificate else []
        endpoint = stack.enter_context(Endpoint(paths.BUCKETS, scratch / scheme, shape, options))
        run = stack.enter_context(Run(endpoint, model, config={**config(certificate), "partBytes": part_bytes}))
        # Memory that the host gives slowly looks like a full line, which more connections do not make faster.
        stack.enter_context(warm.held(SIZE_MIB * MIB))
        loaded = Loaded(run)
        engines = run.engines()
        limit = PLAIN_BYTES_MAX if certificate is None else HTTPS_BYTES_MAX
        said = f"{scheme} {loaded.peak_bytes / MIB:.1f} MiB with {loaded.connections} connections"
        if loaded.peak_bytes > limit:
            problems.append(f"{said}: more than {limit // MIB} MiB")
        if loaded.connections < CONNECTIONS:
            problems.append(f"{scheme}: {loaded.connections} connections were open at once, not {CONNECTIONS}")
        if loaded.client_threads != 1:
            problems.append(f"{scheme}: the client has {loaded.client_threads} threads, natively 1")
        if loaded.names - listed_threads() or len(engines) != 1:
            problems.append(f"{scheme}: {len(engines)} engines with threads that ARCHITECTURE does not list: {loaded.names - listed_threads()}")
        if idle_secs and engines:
            before = wakes(engines[0])
            time.sleep(idle_secs)
            rate = (wakes(engines[0]) - before) / idle_secs
            said += f"; idle {rate:.2f} wake-ups/s over {idle_secs} s"
            if rate > WAKES_PER_SEC_MAX:
                problems.append(f"{scheme}: {rate:.2f} wake-ups per second while idle")
        loaded.end()
    return said, problems


def resident(part_bytes: int = PART_BYTES) -> Measure:
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as name:
        plain, problems = one_load("http", Path(name), IDLE_SECS, part_bytes)
        secure, more = one_load("https", Path(name), 0, part_bytes)
    return from_problems(f"{plain}; {secure}", problems + more)


def resident_control() -> Measure:
    """A second client waits all the time for bytes that do not come."""
    model = models.ensure("shards", SIZE_MIB)
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as name:
        shape = [{"match": {"kind": "get"}, "do": {"status": 503, "code": "ServiceUnavailable"}}]
        with Endpoint(paths.BUCKETS, Path(name), shape) as endpoint, Run(endpoint, model, config=config(None)) as run:
            argv = [str(paths.VENV_PYTHON), "-c", CLIENT, str(run.model_dir)]
            client = run.start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            while not run.engines() and client.poll() is None:
                time.sleep(0.05)
            (engine,) = run.engines()
            time.sleep(2)
            before = wakes(engine)
            time.sleep(CONTROL_SECS)
            rate = (wakes(engine) - before) / CONTROL_SECS
            client.kill()
            client.wait()
    return Measure(f"{rate:.2f} wake-ups/s while a reader waits", rate <= WAKES_PER_SEC_MAX)
