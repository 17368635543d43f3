"""Bars about what the library does to programs that are not its own: nothing, or one clear line."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness import compile as compiler
from tests.harness import folder, paths
from tests.harness.certificate import Certificate
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems
from tests.harness.run import Run, plain_env, tree_state

PREFIX = "team/tiny"
START_SECS_MAX = 5.0
FAILED = "failed to launch oss connector: "
HELLO_C = '#include <stdio.h>\nint main(void) { puts("hello"); return 7; }\n'
STATE = "import os; print(len(os.listdir('/proc/self/task')), len(os.listdir('/proc/self/fd')))"
ORDINARY = {
    "bash": ["bash", "-lc", "echo $BASH_VERSION; type -t ls; ls -a; ulimit -n; echo $((6*7)) >&2; exit 3"],
    "python": ["python3", "-c", "import json, ssl, sys; print(json.dumps(sys.version)); sys.exit(4)"],
    "state": ["python3", "-c", STATE],
    "git": ["git", "status"],
    "gcc": ["gcc", "-O2", "-o", "hello", "hello.c"],
    "compiled": ["./hello"],
    "cargo": ["cargo", "--version"],
}
# Where the library or its engine could leave something behind.
TRACES = ["/run/oss-connector", "/var/log/oss-connector", f"/tmp/oss-connector-{os.getuid()}"]


@contextmanager
def tiny() -> Iterator[tuple[Endpoint, Path]]:
    """An endpoint that serves the small folder, and the folder itself."""
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as scratch:
        plain = Path(scratch) / "root" / paths.BUCKET / PREFIX
        folder.make(plain)
        with Endpoint(Path(scratch) / "root", Path(scratch)) as endpoint:
            yield endpoint, plain


def secure_endpoint(root: Path, scratch: Path) -> Endpoint:
    """It speaks https with a certificate that nothing on this machine trusts."""
    return Endpoint(root, scratch, options=Certificate(scratch).options)


def tiny_run(endpoint: Endpoint) -> Run:
    return Run(endpoint, PREFIX, config={"materializeBytes": folder.MATERIALIZE_BYTES})


def traces(folders: list[Path]) -> set[str]:
    """What lies in the places of TRACES. In the run folder, whose names are made of a folder's device and inode,
    only what belongs to these folders counts: engines of other programs come and go there."""
    stems = tuple(f"{entry.st_dev}-{entry.st_ino}." for entry in (os.stat(folder) for folder in folders))
    found = set()
    for place in TRACES:
        found |= {place} if os.path.exists(place) else set()
        inside = Path(place).rglob("*") if os.path.isdir(place) else ()
        found |= {str(p) for p in inside if p.suffix not in (".lock", ".sock") or p.name.startswith(stems)}
    return found


def ordinary_results(env: dict[str, str]) -> dict[str, object]:
    """What the ordinary commands print, return and leave behind, in a folder made anew."""
    place = Path(tempfile.gettempdir()) / f"ossc-ordinary-{os.getpid()}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        (place / "hello.c").write_text(HELLO_C)
        subprocess.run(["git", "init", "-q", "-b", "main", "."], cwd=place, env=plain_env(), check=True)
        results: dict[str, object] = {}
        for name, argv in ORDINARY.items():
            try:
                done = subprocess.run(argv, cwd=place, env=env, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
                results[name] = (done.returncode, done.stdout, done.stderr)
            except FileNotFoundError as error:
                results[name] = str(error)
        results["files"] = {
            str(p.relative_to(place)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(place.rglob("*")) if p.is_file()
        }
        return results
    finally:
        shutil.rmtree(place, ignore_errors=True)


def inert(role: int | None = None) -> Measure:
    problems = []
    with tiny() as (endpoint, _), tiny_run(endpoint) as run:
        env = run.env(role)
        if role is not None:
            env.pop("OSS_PATH")
        loaded = run.call(["grep", "-c", "libossc_preload", "/proc/self/maps"], env)
        if role is None and int(loaded.stdout or 0) == 0:
            problems.append("the library is not loaded at all")
        before = traces([run.model_dir])
        native, preloaded = ordinary_results(plain_env()), ordinary_results(env)
        for name, expected in native.items():
            if preloaded[name] != expected:
                problems.append(f"{name}: {expected!r} natively, {preloaded[name]!r} under the library"[:600])
        problems += [f"new: {path}" for path in sorted(traces([run.model_dir]) - before)]
        problems += [f"new in MODEL_DIR: {name}" for name in tree_state(run.model_dir)]
        problems += [f"an engine runs: {pid}" for pid in run.engines()]
        if endpoint.requests():
            problems.append(f"{len(endpoint.requests())} requests reached the endpoint")
        threads = str(preloaded["state"])
    return from_problems(f"{len(ORDINARY)} commands, threads and descriptors {threads}", problems)


def inert_control() -> Measure:
    return inert(role=1)


def start_cases(run: Run, secure: Endpoint) -> dict[str, tuple[dict[str, str | None], str]]:
    """Name -> (changes of the environment, words that the REASON must hold)."""
    bad = run.dir / "bad.json"
    bad.write_text('{"logLevel": 1,')
    port_closed = "http://127.0.0.1:1"
    https = run.endpoint.url.replace("http://", "https://")
    untrusted = "TLS phase: the certificate of 127.0.0.1 is refused: unknown issuer"
    return {
        "wrong secret": ({"OSS_ACCESS_KEY_SECRET": "wrong-secret"}, "failed to list objects"),
        "wrong key id": ({"OSS_ACCESS_KEY_ID": "wrong-id"}, "failed to list objects"),
        "wrong bucket": ({"OSS_PATH": f"oss://absent-bucket/{PREFIX}/"}, "failed to list objects"),
        "no OSS_PATH": ({"OSS_PATH": None}, "OSS_PATH not set"),
        "no MODEL_DIR": ({"MODEL_DIR": None}, "MODEL_DIR not set"),
        "no OSS_ENDPOINT": ({"OSS_ENDPOINT": None}, "OSS_ENDPOINT not set"),
        "no secret": ({"OSS_ACCESS_KEY_SECRET": None}, "OSS_ACCESS_KEY_SECRET not set"),
        "no region": ({"OSS_REGION": None}, "failed to infer region from endpoint"),
        "bad OSS_PATH": ({"OSS_PATH": "s3://bucket/x/"}, "invalid uri"),
        "config absent": ({"OSSC_CONFIG": str(run.dir / "absent.json")}, "failed to parse config file"),
        "config is a folder": ({"OSSC_CONFIG": str(run.dir)}, "failed to parse config file"),
        "config is not JSON": ({"OSSC_CONFIG": str(bad)}, "failed to parse config file"),
        "certificate of nobody trusted": ({"OSS_ENDPOINT": secure.url}, untrusted),
        "no scheme means https": ({"OSS_ENDPOINT": secure.url.removeprefix("https://")}, untrusted),
        "https where http is spoken": ({"OSS_ENDPOINT": https}, "TLS phase: 127.0.0.1 does not speak TLS"),
        "nobody listens": ({"OSS_ENDPOINT": port_closed}, "failed to list objects"),
    }


def judge_start(name: str, run: Run, env: dict[str, str], words: str) -> list[str]:
    """Why this start did not fail the way it must."""
    before = tree_state(run.model_dir)
    begin = time.monotonic()
    done = run.call(["sh", "-c", "echo started"], env, timeout=30)
    secs = time.monotonic() - begin
    problems = []
    lines = done.stderr.decode(errors="replace").splitlines()
    if done.returncode == 0 or done.stdout:
        problems.append(f"{name}: the program ran, status {done.returncode}")
    if len(lines) != 1 or not lines[0].startswith(FAILED) or words not in lines[0]:
        problems.append(f"{name}: stderr is {lines}, should be one line with `{FAILED}` and `{words}`")
    if any("wrong-secret" in line or env.get("OSS_ACCESS_KEY_SECRET", "\0") in line for line in lines):
        problems.append(f"{name}: the secret is shown")
    if secs > START_SECS_MAX:
        problems.append(f"{name}: took {secs:.1f} s")
    if tree_state(run.model_dir) != before:
        problems.append(f"{name}: MODEL_DIR was changed")
    return problems


def start_errors() -> Measure:
    problems = []
    begin = time.monotonic()
    with tiny() as (endpoint, _):
        with tiny_run(endpoint) as run, secure_endpoint(endpoint.root, run.dir / "secure") as secure:
            cases = start_cases(run, secure)
            for name, (changes, words) in cases.items():
                problems += judge_start(name, run, run.env(**changes), words)
        for name in ("a.bin", "small.bin"):
            with tiny_run(endpoint) as run:
                (run.model_dir / "mine.txt").write_text("another file of mine")
                (run.model_dir / name).write_text("my own file")
                problems += judge_start(f"a user's file at {name}", run, run.env(), name)
    secs = time.monotonic() - begin
    return from_problems(f"{len(cases) + 2} wrong starts", problems, f"{secs / (len(cases) + 2):.2f} s each")


def start_control() -> Measure:
    """Nothing is wrong with this start, so it must not count as a refused one."""
    with tiny() as (endpoint, _), tiny_run(endpoint) as run:
        return from_problems("1 right start", judge_start("right", run, run.env(), "OSS_PATH"))


def static_read(sparse: bool = False) -> Measure:
    """A static binary, started by a managed shell, reads placeholders."""
    reader = compiler.program("read_raw.c", "static")
    names = ["a.bin", "b.bin", "nested/deep/c.bin"]
    with tiny() as (endpoint, plain), tiny_run(endpoint) as run:
        script = f'ls -R > /dev/null; wc -c < b.bin; "{reader}" {" ".join(names)}'
        if sparse:
            script = f'truncate -s 3000000 "$SCRATCH"; "{reader}" "$SCRATCH" {names[1]} {names[2]}; wc -c < b.bin'
        done = run.call(["bash", "-c", script], {**run.env(), "SCRATCH": str(run.dir / "sparse")}, cwd=run.model_dir)
        lines = done.stdout.decode().split("\n")
        problems = [] if done.returncode == 0 else [f"status {done.returncode}: {done.stderr.decode()}"]
        size = (plain / "b.bin").stat().st_size
        if str(size) not in lines:
            problems.append(f"a hooked program does not see {size} bytes: {lines}")
        read = [line for line in lines if line.count(" ") == 1]
        problems += [f"{n}: {r} (bytes, of them not zero)" for n, r in zip(names, read) if r != "0 0"]
        if len(read) != len(names):
            problems.append(f"the static program said {read}")
    return from_problems(f"bytes read, of them not zero: {', '.join(read)}", problems)


def static_control() -> Measure:
    return static_read(sparse=True)
