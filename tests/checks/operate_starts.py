"""Starts that fail, many at a time and of every kind, share one log: each reason that a program prints is in it, once.

Run by the bar `operate 3`. The programs end as soon as they have the engine's word, and the log is read at once: a
reason that an engine still had to write is lost. The control is the build of 0.1.0, which lost one in ten.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.checks import host
from tests.harness import compile as compiler
from tests.harness import faults, folder, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems, scale
from tests.harness.run import Run, plain_env

STARTS = 200
TOGETHER = 8
START_SECS_MAX = 60
NOT_STARTED = "not started: "
# Behind it a line names engine and MODEL_DIR; that of 0.1.0 does not.
WHOSE = re.compile(r" engine=\d+( dir=\d+-\d+)?$")
# The commit of version 0.1.0.
BEFORE = "f582a98"
SLOW = "team/slow"


@dataclass(frozen=True)
class Start:
    """What is wrong with one start."""

    env: dict[str, str | None] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[Run], None] = lambda _: None
    refused: tuple[str, str] | None = None


def users_file(run: Run) -> None:
    (run.model_dir / "a.bin").write_text("my own file")


def users_folder_file(run: Run) -> None:
    (run.model_dir / "nested").write_text("my own file")


def socket_is_a_file(run: Run) -> None:
    (run.dir / "socket").write_text("mine")


def kinds(run: Run, number: int) -> dict[str, Start]:
    """Each ends in an engine that says why it does not start. `number` makes its reason its own where it can."""
    at = f"oss://{paths.BUCKET}/{host.PREFIX}"
    return {
        "wrong bucket": Start({"OSS_PATH": f"oss://absent-bucket-{number}/x/"}),
        "nothing there": Start({"OSS_PATH": f"oss://{paths.BUCKET}/nobody-{number}/"}),
        "wrong secret": Start({"OSS_ACCESS_KEY_SECRET": f"wrong-{number}"}),
        "wrong key id": Start({"OSS_ACCESS_KEY_ID": f"LTAI-wrong-{number}"}),
        "no scheme of ours": Start({"OSS_PATH": f"s3://bucket-{number}/x/"}),
        "bad endpoint": Start({"OSS_ENDPOINT": f"ftp://host-{number}"}),
        "no region": Start({"OSS_REGION": None, "OSS_ENDPOINT": f"http://127.0.0.1:{1024 + number}"}),
        "no OSS_PATH": Start({"OSS_PATH": None}),
        "no secret": Start({"OSS_ACCESS_KEY_SECRET": None}),
        "no credential file": Start({"OSS_ACCESS_KEY_ID": None, "OSS_ACCESS_KEY_SECRET": None, "OSS_AUTHORIZATION_FILE_PATH": f"/absent/{number}"}),
        "name unknown": Start({"OSS_ENDPOINT": f"http://host-{number}.invalid"}, {"resolveTimeoutMs": 3000}),
        "nobody listens": Start({"OSS_ENDPOINT": "http://127.0.0.1:1"}, {"startAttempts": 1}),
        "https where http is spoken": Start({"OSS_ENDPOINT": run.endpoint.url.replace("http://", "https://")}, {"startAttempts": 1}),
        "no answer in time": Start({"OSS_PATH": f"oss://{paths.BUCKET}/{SLOW}/"}, {"startTimeoutSec": 1}),
        "memoryLimit too small": Start({}, {"memoryLimit": 4096 + number}),
        "a value out of range": Start({}, {"lingerSec": -1 - number}),
        "a value of another type": Start({}, {"verifyCrc": str(number)}),
        "a user's file": Start({"OSS_PATH": f"{at}/"}, prepare=users_file),
        "a user's file at a folder's place": Start({"OSS_PATH": f"{at}/"}, prepare=users_folder_file),
        "a folder of the system": Start({"MODEL_DIR": "/dev"}),
        "the socket's path is a file": Start({"CONNECTOR_UDS_PATH": str(run.dir / "socket")}, prepare=socket_is_a_file),
        "no folder for the socket": Start({"CONNECTOR_UDS_PATH": f"/absent-{number}/socket"}),
        "accept4 refused": Start(refused=("EPERM", "accept4")),
        "no folder can be made": Start(refused=("ENOSPC", "mkdirat")),
    }


def one(endpoint: Endpoint, log: Path, number: int, products: Path) -> tuple[str, list[str]]:
    """The reason that this start printed, and what was wrong with the start itself."""
    with Run(endpoint, host.PREFIX, products=products) as run:
        names = list(kinds(run, number))
        name = names[number % len(names)]
        start = kinds(run, number)[name]
        config = {"materializeBytes": folder.MATERIALIZE_BYTES, "logPath": str(log), "auditPath": str(run.audit_path), "lingerSec": 1, **start.config}
        run.config_path.write_text(json.dumps(config))
        start.prepare(run)
        env, argv = run.env(**start.env), ["true"]
        if start.refused:
            plain = plain_env()
            changes = [f"{key}={value}" for key, value in env.items() if plain.get(key) != value]
            env, argv = plain, [str(compiler.program("refuse.c")), *start.refused, "env", *changes, "true"]
        done = run.call(argv, env, timeout=START_SECS_MAX)
        lines = done.stderr.decode(errors="replace").splitlines()
        if done.returncode != 1 or len(lines) != 1 or not lines[0].startswith(host.FAILED):
            return "", [f"{name}: status {done.returncode}, {lines}"]
        return lines[0].removeprefix(host.FAILED), []


def reasons_in(log: Path) -> Counter[str]:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return Counter(WHOSE.sub("", line.split(NOT_STARTED, 1)[1]) for line in lines if NOT_STARTED in line)


def logged(starts: int | None = None, products: Path = paths.PRODUCTS) -> Measure:
    count = starts or scale.runs or STARTS
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as scratch:
        root, log = Path(scratch) / "root", Path(scratch) / "connector.log"
        folder.make(root / paths.BUCKET / host.PREFIX)
        slow = [faults.rule({"delay_ms": 10_000}, kind="list")]
        slow[0]["match"]["prefix"] = f"{SLOW}/"
        with Endpoint(root, Path(scratch), slow) as endpoint, ThreadPoolExecutor(TOGETHER) as threads:
            compiler.program("refuse.c")
            came = list(threads.map(lambda number: one(endpoint, log, number, products), range(count)))
        found = reasons_in(log)
    said = Counter(reason for reason, wrong in came if not wrong)
    problems = [text for _, wrong in came for text in wrong]
    problems += [f"not in the log ({number} times): {reason}" for reason, number in (said - found).items()]
    problems += [f"in the log, and printed by no program: {reason}" for reason in found - said]
    return from_problems(f"{sum((said & found).values())} of {count} reasons in the log", problems)


def before() -> Path:
    """The build of 0.1.0, made once."""
    place = paths.CACHE / f"before-{BEFORE}"
    tree, products = place / "tree", place / "target" / "fast"
    if not (products / paths.OSSC.name).exists():
        shutil.rmtree(tree, ignore_errors=True)
        git = ["git", "-C", str(paths.ROOT), "worktree"]
        subprocess.run([*git, "prune"], check=True)
        subprocess.run([*git, "add", "--detach", str(tree), BEFORE], check=True, capture_output=True)
        try:
            argv = ["cargo", "build", "--locked", "-q", "--profile", "fast", "-p", "ossc", "-p", "ossc-preload"]
            subprocess.run(argv, cwd=tree, env={**plain_env(), "CARGO_TARGET_DIR": str(place / "target")}, check=True)
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
    return products


def lost() -> Measure:
    """Good only if no reason is missing from the log of the build that --against names, else of 0.1.0."""
    return logged(products=scale.against or before())
