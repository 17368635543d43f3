"""Bars about how a program is started: through shells, scripts and shims, and down three levels of children."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import threading
from pathlib import Path

from tests.checks.host import tiny, tiny_run
from tests.harness import folder, load, models, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems
from tests.harness.requestlog import once_problems
from tests.harness.run import Run

SIZE_MIB = 96
# The shards of the small model are below the default limit: real files would need no hook.
SETTINGS = {"materializeBytes": folder.MATERIALIZE_BYTES}
PYTHON = str(paths.VENV_PYTHON)
SHIM = str(paths.APPS / "shims" / "python3")


def chains() -> dict[str, list[str]]:
    """Name -> command line in front of the script's arguments."""
    found = {
        "plain": [PYTHON],
        "env": ["env", "SOME=thing", PYTHON],
        "sh -c exec": ["sh", "-c", f'exec "{PYTHON}" "$@"', "sh"],
        "sh -c": ["sh", "-c", f'"{PYTHON}" "$@"; exit $?', "sh"],
        "script": [str(paths.APPS / "start.sh"), PYTHON],
        "shim": [SHIM],
        "nested": ["bash", "-c", 'env -- "$0" "$@" | cat; exit ${PIPESTATUS[0]}', SHIM],
    }
    real = shutil.which("python3")
    if real and Path(real).read_bytes()[:2] == b"#!":
        found["the version manager of this machine"] = [real]
    return found


def chain_env(run: Run) -> dict[str, str]:
    # The machine's own shim starts an interpreter that does not know of the environment's packages.
    packages = sysconfig.get_path("purelib", vars={"base": str(paths.VENV_PYTHON.parents[1])})
    return run.env(PYTHONPATH=packages, SHIM_PYTHON=PYTHON)


class Watch:
    """Notes which engines of a run exist while a program runs."""

    def __init__(self, run: Run) -> None:
        self.seen: set[int] = set()
        self._run = run
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            self.seen.update(self._run.engines())

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def judge_chain(name: str, argv: list[str], endpoint: Endpoint, model: str, drop: bool) -> list[str]:
    """What went wrong when the loader was started this way."""
    problems = []
    endpoint.forget()
    with Run(endpoint, model, config=SETTINGS) as run:
        env = chain_env(run)
        if drop:
            argv = ["env", "-u", "LD_PRELOAD", *argv]
        report = run.dir / "report.json"
        with Watch(run) as watch:
            done = run.call([*argv, *load.loader_argv(run, report)[1:]], env)
        gone = run.wait_engines_gone(run.linger_secs + 2)
        if gone is None:
            problems.append(f"{name}: the engine stayed for more than {run.linger_secs + 2:.0f} s after the last client")
        if done.returncode != 0:
            problems.append(f"{name}: status {done.returncode}: {done.stderr.decode(errors='replace')[-400:]}")
        if report.exists():
            equal, text = load.verify(report, model)
            problems += [] if equal else [f"{name}: {text[:400]}"]
        if run.engine_starts() != 1 or len(watch.seen) > 1:
            problems.append(f"{name}: {run.engine_starts()} engines in the log, process ids {sorted(watch.seen)}")
        problems += [f"{name}: {p}" for p in once_problems(endpoint.requests(), models.sizes(model))]
    return problems


def judge_kill(endpoint: Endpoint, model: str) -> list[str]:
    """The primary is killed while it holds everything mapped: its engine must leave."""
    with Run(endpoint, model, config=SETTINGS) as run:
        process = run.start([PYTHON, str(paths.APPS / "hold.py"), str(run.model_dir)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        line = process.stdout.readline()
        engines = run.engines()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        gone = run.wait_engines_gone(run.linger_secs + 2)
        problems = []
        if not line.startswith(b"ready") or len(engines) != 1:
            problems.append(f"killed primary: it said {line!r}, engines {engines}\n{run.log_tail()}")
        if gone is None:
            problems.append(f"killed primary: the engine stayed for more than {run.linger_secs + 2:.0f} s")
    return problems


def starts(drop: bool = False) -> Measure:
    model = models.ensure("shards", SIZE_MIB)
    problems = []
    ways = chains()
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as scratch, Endpoint(paths.BUCKETS, Path(scratch)) as endpoint:
        for name, argv in ways.items():
            problems += judge_chain(name, argv, endpoint, model, drop)
        if not drop:
            problems += judge_kill(endpoint, model)
    return from_problems(f"{len(ways)} ways to start ({', '.join(ways)}), and a killed primary", problems)


def starts_control() -> Measure:
    return starts(drop=True)


def three_levels(drop: bool = False) -> Measure:
    """Shell, Python, and children of multiprocessing spawn that map with numpy."""
    problems = []
    with tiny() as (endpoint, plain), tiny_run(endpoint) as run:
        options = "--drop-preload" if drop else ""
        script = f'"{PYTHON}" "{paths.APPS / "chain.py"}" "$MODEL_DIR" {options}'
        done = run.call(["bash", "-c", f"{script}; exit $?"])
        if done.returncode != 0:
            problems.append(f"status {done.returncode}: {done.stderr.decode(errors='replace')[-600:]}")
        got = json.loads(done.stdout or b"{}")
        expected = {
            os.path.relpath(p, plain): hashlib.sha256(p.read_bytes()).hexdigest() for p in plain.rglob("*") if p.is_file()
        }
        problems += [f"{n}: other bytes" for n, digest in expected.items() if got.get(n) != digest]
        problems += [f"{n}: not in the original" for n in set(got) - set(expected)]
        if run.engine_starts() != 1:
            problems.append(f"{run.engine_starts()} engines")
    return from_problems(f"{len(expected)} files mapped by grandchildren", problems)


def three_levels_control() -> Measure:
    return three_levels(drop=True)
