"""Today's model loaders, unmodified, load from a managed folder what they load from the plain one.

Called by bar `loaders 1` and by ci/loaders. The table of loaders is loaders_table.py; the programs are in tests/loaders,
run with target/venv-loaders (ci/setup loaders) and know nothing of the connector. InstantTensor needs a CUDA runtime:
tests/loaders/cudart.c stands in for it with host memory, so what is shown is its reading, not a GPU's copying.
"""

from __future__ import annotations

import fnmatch
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.checks.consumers import differences
from tests.checks.loaders_table import LOADERS, Loader
from tests.harness import models, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems, scale, selected
from tests.harness.requestlog import Request, body_gets, once_problems
from tests.harness.run import Run, plain_env
from tests.harness.turn import alone

SOURCES = paths.ROOT / "tests" / "loaders"
PYTHON = paths.CACHE / "venv-loaders" / "bin" / "python3"
# Other versions than the environment's, one folder each.
VERSIONS = paths.CACHE / "loaders"
MODELS = "loaders"
TMPFS = Path("/dev/shm")
PAIRS = 5
FACTOR_MAX = 1.10
# The default of the configuration.
MATERIALIZE_BYTES = 16 << 20
SECS_MAX = 400.0
WARM = "defaults"
LOOK_BYTES = 4
PROBLEMS_MAX = 4
REFUSED = "refused in the words that it has for a tmpfs folder"
PASSES: dict[str, dict[str, Any]] = {"placeholders": {"materializeBytes": 0}, "defaults": {}}
SETTLED = {
    "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "0",
    "VLLM_NO_USAGE_STATS": "1", "JAX_PLATFORMS": "cpu", "VLLM_LOGGING_LEVEL": "ERROR",
}


@dataclass
class Found:
    """One row of the result: what came of one loader."""

    name: str
    package: str
    version: str
    reads: str
    settings: str
    problems: list[str] = field(default_factory=list)
    native_secs: float = 0.0
    cold_secs: float = 0.0
    factor: float | None = None
    # What the factor is over: "tmpfs", or the file system of MODEL_DIR, where small objects are real files.
    beside: str = "tmpfs"
    other_secs: float = 0.0
    right: str = "equal"

    @property
    def result(self) -> str:
        return "; ".join(self.problems) or self.right


@alone
def shared_object(source: str, name: str) -> Path:
    """A small library that the loaders' programs need, compiled when its source changed."""
    target = VERSIONS / name
    origin = SOURCES / source
    if not target.exists() or target.stat().st_mtime < origin.stat().st_mtime:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(".new")
        argv = ["gcc", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-fvisibility=hidden", f"-Wl,-soname,{name}", "-o", str(fresh), str(origin), "-ldl"]
        subprocess.run(argv, check=True)
        fresh.replace(target)
    return target


def version_of(loader: Loader) -> str:
    where = str(VERSIONS / loader.folder) if loader.folder else ""
    code = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    done = subprocess.run(
        [str(PYTHON), "-c", code, loader.package], env={**plain_env(), "PYTHONPATH": where}, capture_output=True, text=True, check=False,
    )
    return done.stdout.strip() or "not installed"


def env_of(loader: Loader) -> dict[str, str]:
    env = {**SETTLED, "OSSC_TEST_CUDART": str(shared_object("cudart.c", "libcudart.so.12")), **loader.env}
    if loader.folder:
        env["PYTHONPATH"] = str(VERSIONS / loader.folder)
    return env


def argv_of(loader: Loader, *more: object) -> list[str]:
    return [str(PYTHON), str(SOURCES / "load.py"), loader.load, *map(str, more)]


def said(done: subprocess.CompletedProcess[bytes]) -> tuple[Any, str]:
    """What a program printed in its last line, or why there is nothing."""
    if done.returncode != 0:
        tail = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        return None, f"status {done.returncode}: {' | '.join(tail[-2:])[-400:]}"
    try:
        return json.loads(done.stdout.splitlines()[-1]), ""
    except (ValueError, IndexError) as error:
        return None, f"{error}: {done.stdout[-200:]!r}"


def native(loader: Loader, folder: Path) -> tuple[Any, str]:
    return said(subprocess.run(
        argv_of(loader, folder), env={**plain_env(), **env_of(loader)}, stdin=subprocess.DEVNULL, capture_output=True,
        timeout=SECS_MAX, check=False,
    ))


def managed(run: Run, loader: Loader, *more: object, **changes: str) -> tuple[Any, str]:
    try:
        return said(run.call(argv_of(loader, run.model_dir, *more), run.env(**env_of(loader), **changes), timeout=SECS_MAX))
    except AssertionError as hangs:
        return None, str(hangs)[:300]


def is_look(request: Request) -> bool:
    """The engine asks once whether an object without a name of data is a program, by its first bytes."""
    return (request.start, request.end) == (0, LOOK_BYTES)


def sizes(loader: Loader, folder: Path) -> dict[str, int]:
    """Keys of the model's objects, and their sizes."""
    return {f"{MODELS}/{loader.model}/{path.relative_to(folder)}": path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def weights(loader: Loader, folder: Path) -> dict[str, int]:
    """Those that the loader reads as a whole."""
    every = sizes(loader, folder).items()
    return {key: size for key, size in every if size >= loader.whole_from and any(fnmatch.fnmatch(key, f"*/{glob}") for glob in loader.files)}


def socket_problems(endpoint: Endpoint, loader: Loader, folder: Path) -> list[str]:
    """Each byte that the loader reads crossed the socket once; nothing else did twice. Looks are told apart, one an object."""
    prefix = f"{MODELS}/{loader.model}/"
    wanted = weights(loader, folder)
    every = body_gets(endpoint.requests(), prefix)
    looks = [request.key for request in every if is_look(request)]
    requests = [request for request in every if not is_look(request)]
    problems = [f"{key}: looked at {looks.count(key)} times" for key in sorted(set(looks)) if looks.count(key) > 1]
    problems += once_problems([r for r in requests if r.key in wanted], wanted)
    for key, size in sizes(loader, folder).items():
        sent = sum(request.bytes_sent for request in requests if request.key == key)
        problems += [f"{key}: {sent} bytes on the socket, the object has {size}"] if sent > size and key not in wanted else []
    problems = problems[:PROBLEMS_MAX] + ([f"and {len(problems) - PROBLEMS_MAX} objects more"] if len(problems) > PROBLEMS_MAX else [])
    return problems if wanted else [f"no object of {prefix} is named {loader.files}"]


@contextmanager
def kept(run: Run) -> Iterator[None]:
    """A program that stays, so that the engine and what it has live on between programs."""
    keeper = run.start(["sleep", "3600"])
    try:
        yield
    finally:
        keeper.terminate()
        keeper.wait()


@contextmanager
def serving() -> Iterator[Endpoint]:
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as scratch, Endpoint(paths.BUCKETS, Path(scratch)) as endpoint:
        yield endpoint


@contextmanager
def copied(folder: Path, below: Path = TMPFS) -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="ossc-loaders-", dir=below))
    try:
        yield Path(shutil.copytree(folder, base / folder.name, copy_function=shutil.copyfile))
    finally:
        shutil.rmtree(base, ignore_errors=True)


def product() -> Path:
    return scale.against or paths.PRODUCTS


def judged(expected: Any, got: Any, error: str) -> list[str]:
    return [error] if error else differences(expected["tensors"], got["tensors"])[:4]


def refused(loader: Loader, folder: Path) -> str:
    """How the loader refuses a folder in memory without the library; empty if it takes it."""
    with copied(folder) as copy:
        return native(loader, copy)[1]


def cold_and_warm(endpoint: Endpoint, loader: Loader, title: str, expected: Any, found: Found, folder: Path, **changes: str) -> None:
    """One managed folder: nothing cached, then, with the defaults, all in memory and timed against a tmpfs folder."""
    endpoint.forget()
    with Run(endpoint, f"{MODELS}/{loader.model}", config=PASSES[title], products=product()) as run, kept(run):
        got, error = managed(run, loader, **changes)
        found.problems += [f"{title}, cold: {p}" for p in judged(expected, got, error)]
        if error:
            found.problems.append(run.log_tail(4))
            return
        found.cold_secs = got["secs"]
        found.problems += [f"{title}, cold: {p}" for p in socket_problems(endpoint, loader, folder)]
        if title == WARM:
            warm(run, loader, expected, found, folder, **changes)
            found.problems += [f"warm: {p}" for p in socket_problems(endpoint, loader, folder)]
    found.problems += [f"an engine outlived its clients: pid {pid}" for pid in run.leaks]


def warm(run: Run, loader: Loader, expected: Any, found: Found, folder: Path, **changes: str) -> None:
    pairs = (PAIRS if scale.runs is None else scale.runs) if loader.timed else 0
    # Objects below materializeBytes are files of MODEL_DIR's own file system, which natively takes 1.2 to 1.4 times as long
    # as tmpfs for them (ext4, all of it in its page cache): such rows are compared with a plain folder there.
    if max(weights(loader, folder).values(), default=0) <= MATERIALIZE_BYTES:
        found.beside = "a plain folder"
    if pairs == 0:
        got, error = managed(run, loader, **changes)
    else:
        with copied(folder, TMPFS if found.beside == "tmpfs" else run.dir) as copy:
            got, error = managed(run, loader, "--pairs", pairs, copy, **changes)
    found.problems += [f"warm: {p}" for p in judged(expected, got, error)]
    if error or pairs == 0:
        return
    found.other_secs = statistics.median(got["other"])
    found.factor = statistics.median(got["pairs"]) / found.other_secs
    if found.factor > FACTOR_MAX:
        found.problems.append(f"{found.factor:.2f} times the {found.other_secs:.3f} s of {found.beside}, at most {FACTOR_MAX}")


def judge_refused(endpoint: Endpoint, loader: Loader, folder: Path, found: Found) -> None:
    """What a loader refuses natively on a folder in memory, it refuses here in the same words."""
    expected = refused(loader, folder)
    if not expected:
        found.problems.append("is not refused on a tmpfs folder, so the table is out of date")
        return
    found.right = REFUSED
    with Run(endpoint, f"{MODELS}/{loader.model}", products=product()) as run:
        _, error = managed(run, loader)
    if error != expected:
        found.problems.append(f"says {error or 'nothing, and goes on'!r} and on tmpfs {expected!r}")


def judge(endpoint: Endpoint, loader: Loader) -> Found:
    found = Found(loader.name, loader.package, version_of(loader), loader.reads, loader.settings)
    folder = paths.BUCKETS / paths.BUCKET / MODELS / loader.model
    expected, error = native(loader, folder)
    if error:
        found.problems.append(f"fails natively: {error}")
        return found
    found.native_secs = expected["secs"]
    if loader.outcome == "refused":
        judge_refused(endpoint, loader, folder, found)
        return found
    for title in PASSES:
        cold_and_warm(endpoint, loader, title, expected, found, folder)
    return found


def require() -> None:
    if not PYTHON.exists():
        sys.exit(f"{PYTHON} is missing: run ci/setup loaders first")


@alone
def ensure_models(names: set[str]) -> None:
    """The model folders, each made once, and again when what makes them changed. Two runs at a time take turns."""
    base = paths.BUCKETS / paths.BUCKET / MODELS
    stamp = paths.CACHE / "loaders.stamp"
    source = (SOURCES / "make_models.py").read_text()
    if not stamp.exists() or stamp.read_text() != source:
        shutil.rmtree(base, ignore_errors=True)
        stamp.write_text(source)
    for name in sorted(name for name in names if not (base / name).exists()):
        make_model(name, base)


def make_model(name: str, base: Path) -> None:
    scratch = paths.CACHE / "making" / MODELS
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    argv = [str(PYTHON), str(SOURCES / "make_models.py"), str(scratch), name]
    done = subprocess.run(argv, env={**plain_env(), **SETTLED}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the model {name} cannot be made:\n{done.stderr[-2000:]}")
    base.mkdir(parents=True, exist_ok=True)
    (scratch / name).rename(base / name)


def chosen() -> list[Loader]:
    return selected(LOADERS, lambda loader: loader.name)


def line_of(found: Found) -> str:
    times = f"native {found.native_secs:6.2f} s  cold {found.cold_secs:6.2f} s"
    times += f"  warm {found.factor:5.2f} of {found.beside} {found.other_secs:6.3f} s" if found.factor else ""
    return f"  {found.name[:44]:<44} {found.version:<12} {times}  {'WRONG' if found.problems else found.right}"


def results(loaders: list[Loader]) -> Iterator[Found]:
    """Each row when it is there, said on standard output too."""
    require()
    ensure_models({loader.model for loader in loaders})
    with serving() as endpoint:
        for loader in loaders:
            found = judge(endpoint, loader)
            print(line_of(found), flush=True)
            for problem in found.problems:
                print(f"    {problem}", flush=True)
            yield found


def equal() -> Measure:
    found = list(results(chosen()))
    problems = [f"{row.name}: {problem}" for row in found for problem in row.problems]
    factors = [row.factor for row in found if row.factor]
    value = f"{len(found)} loaders"
    spread = f"warm against tmpfs or the plain folder {min(factors):.2f} to {max(factors):.2f}, median {statistics.median(factors):.2f}" if factors else ""
    return from_problems(value, problems, spread)


def equal_control() -> Measure:
    """Without the answers that loaders decide by, zeros come with status 0: it has to be noticed."""
    loaders = [loader for loader in LOADERS if loader.name in ("InstantTensor 0.1.8", "InstantTensor 0.1.9")]
    require()
    ensure_models({loader.model for loader in loaders})
    blind = shared_object("blind.c", "libblind.so")
    scale.runs = 0
    problems = []
    with serving() as endpoint:
        for loader in loaders:
            folder = models.folder(f"{MODELS}/{loader.model}")
            expected, _ = native(loader, folder)
            found = Found(loader.name, loader.package, "", loader.reads, loader.settings)
            cold_and_warm(endpoint, loader, "defaults", expected, found, folder, LD_PRELOAD=f"{blind}:{product() / paths.PRELOAD.name}")
            # A crash would say nothing of the comparison: it is other tensors that have to be noticed.
            noticed = [problem for problem in found.problems if "instead of" in problem]
            if not noticed:
                return Measure(f"{loader.name}: other tensors were not noticed", True, "", found.problems)
            problems += [f"{loader.name}: {problem}" for problem in noticed[:3]]
    return from_problems(f"{len(loaders)} loaders that see the disk's file system and open past the library", problems)
