"""Whole loads: a new process to its last tensor, by the connector and by what people do without it; reads of a model
that is ready; https; a network with limits. Everything on loopback but `real_endpoint`.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from perf.speed import limited as network
from perf.speed.measure import bare_env
from perf.speed.rows import APPS, PEERS, runai_env
from perf.speed.server import Nginx
from perf.speed.table import spread
from tests.harness import folder, models, paths, warm
from tests.harness.certificate import Certificate
from tests.harness.endpoint import Endpoint
from tests.harness.run import Run, plain_env

SIZE_MIB = 1024
MIB = 1024 * 1024
# Its own default.
RUNAI_CONNECTIONS = 16
SETTINGS = {"materializeBytes": folder.MATERIALIZE_BYTES, "lingerSec": 1, "expireTimeSec": 300}


@dataclass
class Load:
    """Seconds from the start of the process to its last tensor; CPU seconds of all processes but the server."""

    secs: float
    cpu_secs: float
    bytes: int
    # The same seconds without the start of the process and what it imports.
    started_secs: float = 0.0


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_of_threads(pid: int, name: str = "") -> float:
    """CPU seconds of a process's threads, or of those of a name, to the nanosecond; without threads that have ended: those of
    an engine make listings."""
    tasks = [task for task in Path(f"/proc/{pid}/task").iterdir() if name in ("", (task / "comm").read_text().strip())]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _tensors(base: Path, begin: float, python: Path, framework: str, env: dict[str, str], run: Run | None = None) -> dict[str, Any]:
    argv = [str(python), str(APPS / "tensors.py"), str(base), str(begin), framework]
    done = run.call(argv, env, timeout=600) if run else subprocess.run(argv, env=env, capture_output=True, check=False, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(f"{argv}: {done.stderr.decode()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
    return found


def now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def connector(endpoint: Endpoint, model: str, config: dict[str, Any] | None = None, python: Path = paths.VENV_PYTHON, framework: str = "np", products: Path = paths.PRODUCTS, cpu: Callable[[int], float] = _cpu) -> Load:
    """The unmodified program under the library: an engine of its own, nothing cached."""
    # The cache, and the program's copy of it.
    with Run(endpoint, model, config={**SETTINGS, **(config or {})}, products=products) as run, warm.held(2 * models.weights(model)):
        found = _tensors(run.model_dir, now(), python, framework, run.env(), run)
        engine = sum(cpu(pid) for pid in run.engines())
    return Load(found["secs"], found["cpu_secs"] + engine, found["bytes"])


def from_tmpfs(model: str, python: Path = paths.VENV_PYTHON, framework: str = "np") -> Load:
    """The same program on a folder in tmpfs."""
    with tempfile.TemporaryDirectory(prefix="ossc-speed-", dir="/dev/shm") as shm:
        for path in models.folder(model).glob("*.safetensors"):
            shutil.copyfile(path, Path(shm) / path.name)
        with warm.held(models.weights(model)):
            found = _tensors(Path(shm), now(), python, framework, plain_env())
    return Load(found["secs"], found["cpu_secs"], found["bytes"])


def download_alone(endpoint: Endpoint, model: str, products: Path = paths.PRODUCTS, config: dict[str, Any] | None = None) -> Load:
    """Only the engine: a program that maps each file whole, and touches nothing."""
    with Run(endpoint, model, config={**SETTINGS, **(config or {})}, products=products) as run, warm.held(models.weights(model)):
        begin = now()
        argv = [str(paths.VENV_PYTHON), "-c", network.CLIENT, str(run.model_dir), str(begin), "none", "0"]
        done = run.call(argv, timeout=600)
        engine = sum(_cpu(pid) for pid in run.engines())
        secs = float(done.stdout.split()[1])
    return Load(secs, engine, models.weights(model))


@contextmanager
def nginx(model: str) -> Iterator[Nginx]:
    """nginx on any core, with the model's folder as a bucket: for clients that cannot talk to an OSS endpoint."""
    first = min(models.folder(model).glob("*.safetensors"))
    with tempfile.TemporaryDirectory(prefix="ossc-speed-") as scratch, Nginx(first, Path(scratch), None) as server:
        yield server


def s5cmd_then_load(server: Nginx, model: str) -> Load:
    """All weight files to tmpfs, then the same program."""
    with tempfile.TemporaryDirectory(prefix="ossc-speed-", dir="/dev/shm") as shm, warm.held(2 * models.weights(model)):
        begin = now()
        used = os.times()
        for name in sorted(p.name for p in models.folder(model).glob("*.safetensors")):
            argv = [str(PEERS / "s5cmd"), "--no-sign-request", "--endpoint-url", server.url, "cp", "--concurrency", "16", "--part-size", "8"]
            argv += [f"s3://{model}/{name}", f"{shm}/{name}"]
            subprocess.run(argv, env={**bare_env(), "AWS_REGION": "us-east-1"}, check=True, capture_output=True)
        cpu = os.times().children_user - used.children_user + os.times().children_system - used.children_system
        found = _tensors(Path(shm), begin, paths.VENV_PYTHON, "np", plain_env())
    return Load(found["secs"], cpu + found["cpu_secs"], found["bytes"])


def runai(server: Nginx, model: str) -> Load:
    """Every tensor by Run:ai Model Streamer."""
    keys = sorted(path.name for path in models.folder(model).glob("*.safetensors"))
    argv = [str(PEERS / "python3"), str(APPS / "runai_load.py"), model, *keys]
    with warm.held(2 * models.weights(model)):
        begin = now()
        done = subprocess.run(argv, env={**bare_env(), **runai_env(server.url, RUNAI_CONNECTIONS)}, check=True, capture_output=True)
        secs = now() - begin
    found = json.loads(done.stdout.splitlines()[-1])
    return Load(secs, found["cpu_secs"], found["bytes"], found["wall_secs"])


@contextmanager
def served(rate: int | None = None, https: bool = False) -> Iterator[tuple[Endpoint, dict[str, Any]]]:
    """The project's endpoint, and the configuration that trusts it."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-speed-")))
        options = ["--rate-bytes-per-sec", str(rate)] if rate else []
        config: dict[str, Any] = {}
        if https:
            certificate = Certificate(scratch / "certificate")
            options += certificate.options
            config = {"tls": {"caFile": str(certificate.ca)}}
        yield stack.enter_context(Endpoint(paths.BUCKETS, scratch, options=options)), config


def _rows(cases: dict[str, list[Load]]) -> str:
    lines = ["| load | seconds | CPU-s/GB, all but the server |", "|---|---|---|"]
    for name, found in cases.items():
        lines.append(f"| {name} | {spread([f.secs for f in found])} | {spread([f.cpu_secs / (f.bytes / 1e9) for f in found], 3)} |")
    return "\n".join(lines)


def whole_loads(rounds: int) -> str:
    model = models.ensure("shards", SIZE_MIB)
    cases: dict[str, list[Load]] = {}
    with served() as (plain, _), served(https=True) as (secure, trust), nginx(model) as other:
        for _ in range(rounds):
            cases.setdefault("connector, http", []).append(connector(plain, model))
            cases.setdefault("connector, https", []).append(connector(secure, model, trust))
            cases.setdefault("engine alone, http", []).append(download_alone(plain, model))
            cases.setdefault("from tmpfs", []).append(from_tmpfs(model))
            if (PEERS / "s5cmd").exists():
                cases.setdefault("s5cmd to tmpfs, then load", []).append(s5cmd_then_load(other, model))
            torch = PEERS / "python3"
            if torch.exists():
                cases.setdefault("connector, http, torch", []).append(connector(plain, model, None, torch, "pt"))
                cases.setdefault("Run:ai Model Streamer", []).append(streamer := runai(other, model))
                cases.setdefault("Run:ai Model Streamer, its imports done", []).append(replace(streamer, secs=streamer.started_secs))
    return _rows(cases)


def copy_out(rounds: int) -> str:
    """Reads of a ready model in 1 MiB steps and by maps, natively from tmpfs and under the library."""
    model = models.ensure("shards", SIZE_MIB)
    found: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="ossc-speed-", dir="/dev/shm") as shm,
        served() as (endpoint, _),
        Run(endpoint, model, config={**SETTINGS, "lingerSec": 20}) as run,
    ):
        for path in models.folder(model).glob("*.safetensors"):
            shutil.copyfile(path, Path(shm) / path.name)
        run.call([str(paths.PERF), "load", str(run.model_dir)], timeout=600)
        for _ in range(rounds):
            for pattern in ("pread", "mmap"):
                for name, base, env in (("tmpfs", Path(shm), plain_env()), ("connector", run.model_dir, run.env())):
                    files = sorted(str(p) for p in base.glob("*.safetensors"))
                    argv = [str(paths.PERF), "load", "--json", "--pattern", pattern, *files]
                    done = subprocess.run(argv, env=env, capture_output=True, check=True)
                    found.setdefault(f"{pattern}, {name}", []).append(json.loads(done.stdout)["cpu_secs_per_gb"])
    lines = ["| reads of a ready model, first touch included | CPU-s/GB |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {spread(values, 3)} |" for name, values in found.items()])


def limited(rounds: int) -> str:
    model = models.ensure("shards", SIZE_MIB)
    shares, twice = network.rates(model, range(1, rounds + 1), 2)
    without, _ = network.rates(model, range(1, rounds + 1), 0)
    lines = ["| 64 connections of 8 MB/s, 20 ms, 1 % ten times slower | share of the connections' rate | sent twice |", "|---|---|---|"]
    lines.append(f"| twicePercent 2 | {spread(shares, 3)} | at most {max(twice):.2%} |")
    lines.append(f"| twicePercent 0 | {spread(without, 3)} | 0 % |")
    return "\n".join(lines)


def sections(rounds: int) -> Iterator[tuple[str, str]]:
    """Title and text of each part of the report that is about whole loads."""
    yield f"Whole loads, {SIZE_MIB} MiB, new process to last tensor", whole_loads(rounds)
    yield "Copying out", copy_out(rounds)
    yield "A network with limits", limited(min(rounds, 3))


def real_endpoint(rounds: int) -> int:
    """The two tables of the product's page: download and whole load of the model that the variables name."""
    needed = ["OSS_ENDPOINT", "OSS_PATH", "OSS_REGION", "OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET"]
    missing = [name for name in needed if not os.environ.get(name)]
    if missing:
        print(f"speed: set {', '.join(missing)}")
        return 2
    found: dict[str, list[tuple[float, int]]] = {"download": [], "load": []}
    for _ in range(rounds):
        for what, runs in found.items():
            with tempfile.TemporaryDirectory(prefix="ossc-speed-") as scratch:
                base = Path(scratch) / "model"
                base.mkdir()
                config = Path(scratch) / "config.json"
                config.write_text(json.dumps({"logPath": f"{scratch}/log", "auditPath": f"{scratch}/audit", "lingerSec": 1}))
                env = {**os.environ, "MODEL_DIR": str(base), "OSSC_CONFIG": str(config), "ENABLE_CONNECTOR": "1", "LD_PRELOAD": str(paths.PRELOAD)}
                if what == "load":
                    one = _tensors(base, now(), paths.VENV_PYTHON, "np", env)
                    runs.append((one["secs"], one["bytes"]))
                else:
                    argv = [str(paths.VENV_PYTHON), "-c", network.CLIENT, str(base), str(now()), "none", "0"]
                    done = subprocess.run(argv, env=env, capture_output=True, check=True, timeout=3600)
                    runs.append((float(done.stdout.split()[1]), 0))
                time.sleep(3)
    size = max(count for _, count in found["load"])
    model = os.environ["OSS_PATH"].rstrip("/").rsplit("/", 1)[-1]
    for title, what in (("Download time", "download"), ("End-to-end loading time", "load")):
        seconds = [secs for secs, _ in found[what]]
        print(f"\n{title}\n\n| model | size (GB) | seconds | GB/s |\n|---|---|---|---|")
        print(f"| {model} | {size / 1e9:.2f} | {spread(seconds)} | {size / 1e9 / statistics.median(seconds):.2f} |")
    return 0
