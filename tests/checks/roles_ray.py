"""Bar about Ray: `ray start --head` is the primary, tasks and actors in its workers read the model from MODEL_DIR.

Everything (Ray, its engines, the endpoint) runs in a process and a network namespace of its
own: `ray stop` ends every Ray process that it can see, and nothing but loopback is there.
Run there as a program of its own: `python3 -m tests.checks.roles_ray WHAT`, one JSON line as answer.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness import folder, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems
from tests.harness.requestlog import bytes_served, once_problems
from tests.harness.run import Run, plain_env

RAY = paths.CACHE / "venv-ray" / "bin"
READER = paths.APPS / "budget_ray.py"
# Weights by their names: the engine fetches them from the start of the primary on.
MODEL_SIZES = {"a.safetensors": 24 * 1024 * 1024 + 17, "b.safetensors": 40 * 1024 * 1024, "deep/c.bin": 9 * 1024 * 1024 + 4097}
PREFIXES = ("one", "two")
START_SECS_MAX = 90.0
READ_SECS_MAX = 120.0
STOP_SECS_MAX = 60.0
ALL_SECS_MAX = 400.0
# The default. Without --block the primary ends at once, and the model waits so long for the first worker.
LINGER_SECS = 10
GONE_EXTRA_SECS = 2.0
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
# Ray's own memory for objects; nothing of ours goes through it.
OBJECT_STORE_BYTES = 80_000_000


@dataclass
class Node:
    """One Ray node and its managed folder; the node's first process is the primary."""

    run: Run
    number: int
    block: bool
    process: subprocess.Popen[bytes] | None = None
    said: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{26379 + 100 * self.number}"

    @property
    def temp(self) -> Path:
        return self.run.dir / "ray"

    def env(self, role: int | None, **changes: str | None) -> dict[str, str]:
        names = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": None, "PATH": f"{RAY}:{os.environ['PATH']}"}
        return self.run.env(role, **{**names, "RAY_DISABLE_IMPORT_WARNING": "1", **changes})

    def start(self) -> None:
        ports = 26400 + 100 * self.number
        argv = [
            str(RAY / "ray"), "start", "--head", "--node-ip-address=127.0.0.1", f"--port={self.address.split(':')[1]}",
            "--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={self.temp}", "--num-cpus=2",
            f"--object-store-memory={OBJECT_STORE_BYTES}", f"--node-manager-port={ports}",
            f"--object-manager-port={ports + 1}",
            f"--runtime-env-agent-port={ports + 3}", f"--dashboard-agent-listen-port={ports + 4}",
            f"--dashboard-agent-grpc-port={ports + 5}", f"--metrics-export-port={ports + 6}",
            f"--min-worker-port={ports + 10}", f"--max-worker-port={ports + 40}",
        ]
        log = self.run.dir / "ray-start.log"
        with open(log, "wb") as out:
            self.process = self.run.start(
                [*argv, "--block"] if self.block else argv, self.env(1), stdout=out, stderr=out, start_new_session=True,
            )
        end = time.monotonic() + START_SECS_MAX
        while "ray stop" not in log.read_text(errors="replace"):
            if time.monotonic() > end or (self.process.poll() or 0) != 0:
                raise RuntimeError(f"ray start: status {self.process.poll()}: {log.read_text(errors='replace')[-1500:]}")
            time.sleep(0.1)
        if not self.block:
            self.process.wait(START_SECS_MAX)

    def read(self, role: int | None, **changes: str | None) -> dict[str, object]:
        """A driver that has a task and an actor in workers read every file by map and by read."""
        argv = [str(RAY / "python3"), str(READER), self.address, str(self.run.model_dir), *MODEL_SIZES]
        done = self.run.call(argv, self.env(role, **changes), timeout=READ_SECS_MAX, cwd=self.run.dir)
        for line in done.stdout.decode(errors="replace").splitlines():
            if line.startswith("{"):
                return dict(json.loads(line))
        raise RuntimeError(f"the driver ended with {done.returncode}: {done.stderr.decode(errors='replace')[-1500:]}")


def make_models(root: Path) -> dict[str, dict[str, str]]:
    """Two models with the same names and different bytes; sha256 of each file of each."""
    return {prefix: folder.fill(root / paths.BUCKET / prefix, MODEL_SIZES, 4_000 + number) for number, prefix in enumerate(PREFIXES)}


def read_problems(node: Node, read: dict[str, object], sums: dict[str, str]) -> list[str]:
    """What is wrong with the answers of task and actor; both must have run in other processes than the driver."""
    problems: list[str] = []
    pids = set()
    for who in ("task", "actor"):
        answer = read.get(who)
        assert isinstance(answer, dict), read
        pids.add(answer["pid"])
        if answer["preload"] != str(paths.PRELOAD):
            problems.append(f"{who}: the library is not in its worker (LD_PRELOAD={answer['preload']})")
        for way in ("map", "read"):
            for name, expected in sums.items():
                if answer[way][name] != expected:
                    problems.append(f"node {node.number}: {who}: {way} of {name}: {answer[way][name]}")
    if len(pids) != 2 or read["driver"] in pids:
        problems.append(f"node {node.number}: driver, task and actor were not three processes")
    return problems


def ours() -> dict[str, set[str]]:
    """What there is of ours on the node: engines, sockets, shared memory. Zombies are gone for this purpose."""
    found: dict[str, set[str]] = {"process": set(), "socket": set(), "memory": set()}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{entry}/exe").removesuffix(" (deleted)") == str(paths.OSSC):
                found["process"].add(entry)
            maps = Path(f"/proc/{entry}/maps").read_text(errors="replace")
        except OSError:
            continue
        memory = re.findall(r"(?:/memfd:)?(?:/o\d+|/region|/memfd:(?:o\d+|region))(?: \(deleted\))?$", maps, re.MULTILINE)
        found["memory"] |= {f"{entry}: {name}" for name in memory}
    found["socket"] = {row.split()[-1] for row in Path("/proc/net/unix").read_text().splitlines() if "oss-connector" in row}
    found["memory"] |= {f"/dev/shm/{name}" for name in os.listdir("/dev/shm")}
    return found


def left_of(before: dict[str, set[str]]) -> list[str]:
    now = ours()
    return sorted(f"{kind}: {name}" for kind in now for name in now[kind] - before[kind])


def run_folder_sockets(runs: list[Run]) -> list[str]:
    """Socket files of these managed folders; the run folder may hold others' too."""
    folders = [Path("/run/oss-connector"), Path(f"/tmp/oss-connector-{os.getuid()}")]
    folders += [Path(os.environ["XDG_RUNTIME_DIR"]) / "oss-connector"] if "XDG_RUNTIME_DIR" in os.environ else []
    names = [f"{run.model_dir.stat().st_dev}-{run.model_dir.stat().st_ino}" for run in runs]
    return [
        str(path) for folder in folders if folder.is_dir() for path in folder.iterdir()
        if path.is_socket() and path.stem in names
    ]


def ray_processes() -> list[str]:
    rows = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if ("venv-ray" in line or line.startswith("ray::")) and state != "Z" and int(entry) != os.getpid():
            rows.append(f"{entry} {line[:80]}")
    return rows


def session(scratch: Path, stack: ExitStack, block: bool, count: int, control: str) -> tuple[str, list[str]]:
    """Starts nodes, reads, stops them, and looks for what is left."""
    problems: list[str] = []
    sums = make_models(scratch / "root")
    endpoint = stack.enter_context(Endpoint(scratch / "root", scratch))
    before = ours()
    config = {"materializeBytes": 1024 * 1024, "lingerSec": LINGER_SECS}
    nodes = []
    for number in range(count):
        nodes.append(Node(stack.enter_context(Run(endpoint, PREFIXES[number], config=config)), number, block))
    for node in nodes:
        node.start()
    for node in nodes:
        changes: dict[str, str | None] = {}
        if control == "socket":
            changes = {"CONNECTOR_UDS_PATH": str(node.run.dir / "other")}
        problems += read_problems(node, node.read(2, **changes), sums[node.run.prefix.strip("/")])
        engines = node.run.engines()
        if len(engines) != 1:
            problems.append(f"node {node.number}: {len(engines)} engines")
        if node.run.engine_starts() != 1:
            problems.append(f"node {node.number}: {node.run.engine_starts()} engines were started")
    seen = sum(len(kind) for kind in ours().values()) + len(run_folder_sockets([node.run for node in nodes]))
    if len(run_folder_sockets([node.run for node in nodes])) != count:
        problems.append(f"{len(run_folder_sockets([node.run for node in nodes]))} socket files while it ran")
    for node in nodes:
        problems += once_problems(
            [r for r in endpoint.requests() if r.key.startswith(node.run.prefix)],
            {node.run.prefix + name: size for name, size in MODEL_SIZES.items()},
        )
    served = bytes_served(endpoint.requests(), "") / (count * sum(MODEL_SIZES.values()))
    begin = time.monotonic()
    stop = subprocess.run(
        [str(RAY / "ray"), "stop"], env={**plain_env(), "PATH": f"{RAY}:{os.environ['PATH']}"}, capture_output=True,
        timeout=STOP_SECS_MAX, check=False,
    )
    stopped = time.monotonic()
    for node in nodes:
        # `ray start --block` goes on after `ray stop`, "until terminated by a signal", as Ray says.
        if node.process is not None and node.process.poll() is None:
            node.process.terminate()
            node.process.wait(STOP_SECS_MAX)
    while ray_processes() and time.monotonic() - stopped < STOP_SECS_MAX:
        time.sleep(0.05)
    problems += [f"Ray itself is still there: {row}" for row in ray_processes()]
    gone = time.monotonic()
    while (left := left_of(before)) and time.monotonic() - gone < LINGER_SECS + GONE_EXTRA_SECS:
        time.sleep(0.02)
    took = time.monotonic() - gone
    problems += [f"left {took:.1f} s after `ray stop`: {thing}" for thing in left]
    problems += [f"left: {path}" for path in run_folder_sockets([node.run for node in nodes])]
    if stop.returncode != 0:
        problems.append(f"ray stop ended with {stop.returncode}: {stop.stderr.decode(errors='replace')[-300:]}")
    if seen == 0:
        problems.append("nothing of ours was seen while it ran, so its absence says nothing")
    if problems:
        problems += [node.run.log_tail(8) for node in nodes]
    value = (f"{served:.6f} bytes per byte, all gone {took:.1f} s after Ray (`ray stop` took {stopped - begin:.1f} s, "
             f"{seen} things of ours before)")
    return value, problems


FORMS = {
    "head": ("ray start --head", False, 1, ""),
    "block": ("ray start --head --block", True, 1, ""),
    # With --block, as the product says: without it an engine ends lingerSec after `ray start` unless a worker reads.
    "two": ("two nodes, two MODEL_DIRs", True, 2, ""),
    "control-socket": ("second CONNECTOR_UDS_PATH", False, 1, "socket"),
}


def loopback_up() -> None:
    """The one interface of the new network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", asked)[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def inside(what: str) -> int:
    """In the namespaces: one form; its value and problems as the last line."""
    loopback_up()
    _, block, count, control = FORMS[what]
    scratch = Path(tempfile.mkdtemp(prefix="ossc-ray-"))
    try:
        with ExitStack() as stack:
            value, problems = session(scratch, stack, block, count, control)
    except Exception as error:  # noqa: BLE001 - whatever went wrong is the result
        value, problems = "not measured", [f"{type(error).__name__}: {error}"]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(json.dumps({"value": value, "problems": problems}), flush=True)
    return 0


def in_namespaces(module: str, what: str, secs_max: float) -> dict[str, Any]:
    """Runs a module's `inside` in a process and a network namespace, and gives what it printed; the shell is its init and reaps."""
    argv = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL", "--net"]
    argv += [] if os.getuid() == 0 else ["--map-root-user"]
    argv += ["bash", "-c", '"$@"; exit $?', "init", sys.executable, "-m", module, what]
    process = subprocess.Popen(
        argv, cwd=paths.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(paths.ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        out, err = process.communicate(timeout=secs_max)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"problems": [f"not through after {secs_max:.0f} s"]}
    for line in reversed(out.decode(errors="replace").splitlines()):
        if line.startswith("{"):
            return dict(json.loads(line))
    return {"problems": [f"status {process.returncode}: {err.decode(errors='replace')[-1500:]}"]}


def measure(forms: list[str]) -> Measure:
    if not (RAY / "ray").exists():
        subprocess.run([str(paths.ROOT / "ci" / "setup"), "ray"], check=True)
    values: list[str] = []
    problems: list[str] = []
    for what in forms:
        answer = in_namespaces("tests.checks.roles_ray", what, ALL_SECS_MAX)
        values.append(f"{FORMS[what][0]}: {answer.get('value', 'not measured')}")
        problems += [f"{FORMS[what][0]}: {p}" for p in answer["problems"]]
    return from_problems("; ".join(values), problems)


def shared() -> Measure:
    return measure(["head", "block", "two"])


def twice() -> Measure:
    return measure(["control-socket"])


if __name__ == "__main__":
    sys.exit(inside(sys.argv[1]))
