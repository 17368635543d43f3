"""The product's page over two nodes: Ray on two pods, and vLLM's API server whose ranks load one model, one rank a pod.

Called by loaders_page.py. A pod is a process and a mount namespace: its own MODEL_DIR at the path that both have, its own
/dev/shm, its own `ray stop`, its own endpoint, so that what crossed the socket is told for each. All run in a process and a
network namespace that has loopback alone. Never changes what is installed: vLLM is patched in a copy.

Run there as a program of its own: `python3 -m tests.checks.loaders_ray FORM`, one JSON line as answer. The control, by hand:
`target/venv/bin/python3 -m tests.checks.loaders_ray --control` says what is wrong without the library on one node.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.checks import loaders_real, roles_ray
from tests.checks.consumers import differences
from tests.checks.loaders_table import Loader
from tests.harness import paths
from tests.harness.endpoint import Endpoint
from tests.harness.requestlog import bytes_served
from tests.harness.run import Run, plain_env

MODEL = "hf"
FLAGS = ("--tensor-parallel-size", "2", "--gpu-memory-utilization", "0.98", "--distributed-executor-backend", "ray")
RANKS = 2
NATIVE, CONTROL = "native", "no library on the second node"
BIN = loaders_real.PYTHON.parent
ADDRESSES = ("127.0.0.2", "127.0.0.3")
HEAD_PORT = 26379
# Ray's own limits on its start are short: its autoscaler and its web page are left out.
SMALL_HEAD = ("--include-dashboard=false", "--no-monitor")
START_SECS_MAX = 120.0
SERVE_SECS_MAX = 1500.0
STOP_SECS_MAX = 180.0
GONE_SECS_MAX = 30.0
ALL_SECS_MAX = 2700.0
RAY_WAS_SLOW = "timed out during startup"
TRIES_MAX = 4
SERVER_FAILED = "the server: "
# A server on a busy machine reads a small file again after the 120 s of the default, and each byte is counted.
KEPT = {"expireTimeSec": 3600}
# Limits of Ray and of vLLM on what a busy machine of two cores does slowly.
PATIENCE = {
    "RAY_worker_register_timeout_seconds": "600", "RAY_agent_register_timeout_ms": "300000", "RAY_health_check_timeout_ms": "60000",
    "RAY_gcs_server_request_timeout_seconds": "300", "RAY_gcs_rpc_server_connect_timeout_s": "60",
    "VLLM_ENGINE_READY_TIMEOUT_S": "1500", "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "900",
}
# Python's shared memory, of which vLLM leaves a piece natively too.
VLLMS = "psm_"
# What the test's copy of vLLM has in the place of a line of its own, which must be there once.
PATCHES = (
    # Without it: "current platform cpu does not support ray."
    ("platforms/cpu.py", '    device_type: str = "cpu"\n', '    device_type: str = "cpu"\n    ray_device_key: str = "GPU"\n'),
    # Else ranks of two nodes look for each other in one /dev/shm: the name says nothing of the node.
    (
        "distributed/device_communicators/cpu_communicator.py", 'instance_identifier = os.environ["VLLM_DIST_IDENT"]\n',
        'instance_identifier = os.environ["VLLM_DIST_IDENT"] + os.environ["VLLM_HOST_IP"]\n',
    ),
)
PATCHED = (
    "vLLM patched in the test's own copy, in two lines: the CPU platform names a Ray device (it has none and refuses Ray), "
    "and ranks of two nodes do not share memory"
)
# The mounts of a pod, then its first process, which reaps.
POD = 'mount --bind "$1" "$2" && mount --bind "$3" "$4" && mount -t tmpfs tmpfs /dev/shm && echo ready && while :; do sleep 1000 & wait; done'


@dataclass
class Pod:
    """One node: its namespaces, its managed folder unless it is native, and the primary that `ray start --block` is."""

    scratch: Path
    number: int
    plain: Path
    run: Run | None = None
    preload: bool = True
    init: int = 0
    process: subprocess.Popen[bytes] | None = None
    outer: subprocess.Popen[bytes] | None = None
    logs: Path = field(default_factory=Path)

    @property
    def address(self) -> str:
        return ADDRESSES[self.number]

    @property
    def node_id(self) -> str:
        """Ray's name of the node, given so that it is known while it starts."""
        return f"{self.number + 1:056x}"

    @property
    def model_dir(self) -> Path:
        """The same path in each pod."""
        return self.scratch / "models"

    def enter(self) -> None:
        self.logs = self.scratch / f"ray{self.number}"
        for folder in (self.logs, self.model_dir, self.scratch / "ray"):
            folder.mkdir(exist_ok=True)
        source = self.plain if self.run is None else self.run.model_dir
        argv = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL", "bash", "-c", POD, "pod"]
        argv += [str(source), str(self.model_dir), str(self.logs), str(self.scratch / "ray")]
        self.outer = subprocess.Popen(argv, env=plain_env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self.outer.stdout is not None
        if self.outer.stdout.readline() != b"ready\n":
            raise RuntimeError(f"pod {self.number} has no mounts")
        self.init = children(self.outer.pid)[0]

    def env(self, role: int) -> dict[str, str]:
        ray = {
            **loaders_real.SETTLED, "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0",
            "RAY_ADDRESS": f"{ADDRESSES[0]}:{HEAD_PORT}", "PYTHONPATH": str(self.scratch / "copy"), "VLLM_HOST_IP": self.address,
            "GLOO_SOCKET_IFNAME": "lo", **PATIENCE, "VLLM_LOGGING_LEVEL": "INFO", "OMP_NUM_THREADS": "1",
        }
        if self.run is None:
            return {**plain_env(), **ray}
        return self.run.env(role, MODEL_DIR=str(self.model_dir), **ray)

    def argv(self, role: int, *program: str, own: bool = True) -> tuple[list[str], dict[str, str]]:
        """A program in the pod; the library is in it, and in nothing before it."""
        env = self.env(role)
        preload = env.pop("LD_PRELOAD", "")
        within = [f"LD_PRELOAD={preload}"] if preload and own else []
        return ["nsenter", f"--target={self.init}", "--mount", "--pid", "env", *within, *program], env

    def start(self) -> None:
        ports = 26400 + 100 * self.number
        where = ["--head", f"--port={HEAD_PORT}", *SMALL_HEAD] if self.number == 0 else [f"--address={ADDRESSES[0]}:{HEAD_PORT}"]
        argv, env = self.argv(
            1, str(BIN / "ray"), "start", *where, f"--node-ip-address={self.address}", "--disable-usage-stats", "--include-log-monitor=false",
            f"--temp-dir={self.scratch / 'ray'}", "--num-cpus=1", "--num-gpus=1", f"--object-store-memory={roles_ray.OBJECT_STORE_BYTES}", f"--node-manager-port={ports}",
            f"--object-manager-port={ports + 1}", f"--runtime-env-agent-port={ports + 3}", f"--dashboard-agent-listen-port={ports + 4}",
            f"--dashboard-agent-grpc-port={ports + 5}", f"--metrics-export-port={ports + 6}", f"--min-worker-port={ports + 10}",
            f"--max-worker-port={ports + 40}", "--block", own=self.preload,
        )
        env["RAY_OVERRIDE_NODE_ID_FOR_TESTING"] = self.node_id
        log = self.scratch / f"ray-start{self.number}.log"
        with open(log, "wb") as out:
            self.process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        end = time.monotonic() + START_SECS_MAX
        while "ray stop" not in log.read_text(errors="replace") and "--block" not in log.read_text(errors="replace"):
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError(f"ray start: status {self.process.poll()}: {log.read_text(errors='replace')[-1500:]}")
            self.tell_ports(ports + 3)
            time.sleep(0.1)

    def tell_ports(self, runtime_env_agent: int) -> None:
        """Writes what Ray's agents write when they have started: its raylet waits 15 s for that, and dies."""
        told = {"runtime_env_agent_port": runtime_env_agent, "dashboard_agent_listen_port": -1, "metrics_agent_port": -1, "metrics_export_port": -1}
        for folder in self.logs.glob("session_2*"):
            for name, port in told.items():
                path = folder / f"{name}_{self.node_id}"
                if not path.exists():
                    path.write_text(str(port))

    def call(self, *program: str, secs_max: float, own: bool = True) -> subprocess.CompletedProcess[bytes]:
        argv, env = self.argv(2, *program, own=own)
        log = self.scratch / f"{Path(program[0]).name}{self.number}.log"
        with open(log, "wb") as err:
            done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, timeout=secs_max, check=False)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout, log.read_bytes())

    def processes(self) -> list[str]:
        """What runs in the pod beside its first process and that one's sleep."""
        found = []
        space = os.readlink(f"/proc/{self.init}/ns/pid")
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                line = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if os.readlink(f"/proc/{entry}/ns/pid") == space and int(entry) != self.init and line and not line.startswith("sleep "):
                    found.append(f"{entry} {line[:80]}")
            except OSError:
                continue
        return found

    def ranks(self) -> set[int]:
        """The ranks by which vLLM's workers of this pod name themselves in Ray's logs of it."""
        logs = [path for path in self.logs.rglob("worker-*.*") if not path.is_symlink()]
        return {int(rank) for path in logs for rank in re.findall(r"\(Worker_TP(\d+) pid=", path.read_text(errors="replace"))}


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def copy_of_vllm(target: Path) -> None:
    """The installed package as links, but for the patched files."""
    found = sorted(paths.CACHE.glob("venv-loaders/lib/python3*/site-packages/vllm"))
    shutil.copytree(found[0].resolve(), target / "vllm", copy_function=os.symlink)
    for name, old, new in PATCHES:
        path = target / "vllm" / name
        text = path.read_text()
        if text.count(old) != 1:
            raise RuntimeError(f"vllm/{name} has changed: {old!r} is in it {text.count(old)} times")
        path.unlink()
        path.write_text(text.replace(old, new))


def stop(pod: Pod) -> list[str]:
    """`ray stop` in the pod, then the end of `ray start --block`, which waits for a signal; what is left after that."""
    done = pod.call(str(BIN / "ray"), "stop", secs_max=STOP_SECS_MAX, own=False)
    problems = [f"ray stop ended with {done.returncode}: {done.stderr.decode(errors='replace')[-300:]}"] if done.returncode else []
    assert pod.process is not None
    if pod.process.poll() is None:
        for child in children(pod.process.pid):
            os.kill(child, signal.SIGTERM)
        pod.process.wait(STOP_SECS_MAX)
    return problems


def left_in(pods: list[Pod]) -> list[str]:
    """Waits for all to be gone; what is not."""
    end = time.monotonic() + GONE_SECS_MAX
    while True:
        left = [f"node {pod.number}: process {line}" for pod in pods for line in pod.processes()]
        left += [f"node {pod.number}: /dev/shm/{name}" for pod in pods for name in os.listdir(f"/proc/{pod.init}/root/dev/shm") if not name.startswith(VLLMS)]
        left += roles_ray.run_folder_sockets([pod.run for pod in pods if pod.run is not None])
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.05)


def session(scratch: Path, stack: ExitStack, form: str) -> dict[str, Any]:
    """Starts both pods, the server on the first, and stops all; what the server said, and what is wrong."""
    config = {**loaders_real.PASSES.get(form, {}), **KEPT}
    plain = paths.BUCKETS / paths.BUCKET / loaders_real.MODELS
    copy_of_vllm(scratch / "copy")
    pods, endpoints = [], []
    for number in range(RANKS):
        run = None
        if form != NATIVE:
            endpoints.append(stack.enter_context(Endpoint(paths.BUCKETS, scratch / f"endpoint{number}")))
            run = stack.enter_context(Run(endpoints[-1], loaders_real.MODELS, config=config, below=scratch))
        pods.append(Pod(scratch, number, plain, run, preload=form != CONTROL or number == 0))
        pods[-1].enter()
    problems: list[str] = []
    for pod in pods:
        pod.start()
    program = [str(loaders_real.PYTHON), str(loaders_real.SOURCES / "serve_vllm.py"), str(pods[0].model_dir / MODEL), *FLAGS]
    got, error = loaders_real.said(pods[0].call(*program, secs_max=SERVE_SECS_MAX))
    problems += [f"{SERVER_FAILED}{error}"] if error else []
    problems += [f"node {pod.number}: ranks {sorted(pod.ranks())}" for pod in pods if not error and pod.ranks() != {pod.number}]
    for pod in pods:
        if pod.run is not None:
            engines = (len(pod.run.engines()), pod.run.engine_starts())
            problems += [f"node {pod.number}: {engines[0]} engines, {engines[1]} were started"] if engines != (1, 1) else []
    before = sum(len(pod.processes()) for pod in pods)
    with ThreadPoolExecutor() as both:
        problems += [problem for found in both.map(stop, pods) for problem in found]
    problems += [f"left after `ray stop`: {thing}" for thing in left_in(pods)]
    problems += [] if before else ["no process was seen while Ray ran, so that there is none now says nothing"]
    reader = Loader("", "", "", MODEL, "")
    for pod, endpoint in zip(pods, endpoints, strict=False):
        problems += [f"node {pod.number}: {p}" for p in loaders_real.socket_problems(endpoint, reader, plain / MODEL)]
        problems += [pod.run.log_tail(4)] if problems and pod.run is not None else []
    total = sum(path.stat().st_size for path in (plain / MODEL).rglob("*") if path.is_file())
    served = [bytes_served(endpoint.requests(), "") / total for endpoint in endpoints]
    return {"got": got, "problems": problems, "served": served}


def inside(form: str) -> int:
    """In the namespaces: one form; what came of it as the last line."""
    roles_ray.loopback_up()
    scratch = Path(tempfile.mkdtemp(prefix="ossc-ray-"))
    try:
        with ExitStack() as stack:
            answer = session(scratch, stack, form)
    except Exception as error:  # noqa: BLE001 - whatever went wrong is the result
        answer = {"problems": [f"{type(error).__name__}: {error}"]}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(json.dumps(answer), flush=True)
    return 0


def attempt(form: str) -> dict[str, Any]:
    """One form, all of it anew where Ray was too slow for its own limits, as on a busy machine."""
    for _ in range(TRIES_MAX):
        answer = roles_ray.in_namespaces("tests.checks.loaders_ray", form, ALL_SECS_MAX)
        if not any(RAY_WAS_SLOW in problem for problem in answer["problems"]):
            break
    return answer


def judge(forms: Iterable[str]) -> tuple[list[str], str]:
    """Problems, and what was measured."""
    expected = attempt(NATIVE)
    if expected["problems"]:
        return [f"fails natively: {problem}" for problem in expected["problems"]], ""
    problems, measured = [], []
    for form in forms:
        answer = attempt(form)
        found = list(answer["problems"])
        found += differences(expected["got"]["tensors"], answer["got"]["tensors"])[:4] if answer.get("got") else []
        problems += [f"{form}: {problem}" for problem in found]
        served = " and ".join(f"{times:.3f}" for times in answer.get("served", []))
        measured.append(f"{form}: {served} bytes a byte of the folder on the two nodes")
    return problems, "; ".join([*measured, PATCHED])


if __name__ == "__main__":
    if sys.argv[1] != "--control":
        sys.exit(inside(sys.argv[1]))
    noticed = attempt(CONTROL)["problems"]
    print("\n".join(noticed) or "nothing was noticed")
    sys.exit(0 if any(problem.startswith(SERVER_FAILED) for problem in noticed) else 1)
