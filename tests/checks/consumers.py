"""Real model libraries, unmodified, load from a managed folder what they load from the plain one.

Called by bar `hooks 5`. The programs are in tests/consumers and run with target/venv-consumers
(ci/setup consumers); they know nothing of the connector.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness import faults, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems
from tests.harness.run import Run, plain_env

SOURCES = paths.ROOT / "tests" / "consumers"
PYTHON = paths.CACHE / "venv-consumers" / "bin" / "python3"
CONSUME = str(SOURCES / "consume.py")
# vLLM's server is asked too where it is installed: ci/setup vllm.
VLLM_PYTHON = paths.CACHE / "venv-vllm" / "bin" / "python3"
SERVER = "vllm"
MODEL = "consumers"
SECS_MAX = 400.0
# Above materializeBytes every file is a placeholder; its default makes the small ones real files.
DEFAULT_MATERIALIZE_BYTES = 16 * 1024 * 1024
PASSES: dict[str, dict[str, Any]] = {"all placeholders": {"materializeBytes": 0}, "defaults": {}}
# Nothing may depend on the number of idle CPUs or ask a hub.
SETTLED = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "0"}
WEIGHTS = "model-00001-of-00002.safetensors"
# Consumer -> the file whose served bytes the control changes, and where in each part: smaller
# objects are fetched in parts of 2 MiB, and nothing happens beyond the end of an answer.
CHANGED = {
    "safetensors_numpy": (WEIGHTS, 1_000_000),
    "safetensors_numpy_pread": (WEIGHTS, 1_000_000),
    "safetensors_load_file": (WEIGHTS, 1_000_000),
    "safetensors_pread": (WEIGHTS, 1_000_000),
    "safetensors_slices": (WEIGHTS, 1_000_000),
    "transformers": (WEIGHTS, 1_000_000),
    "tokenizers": ("tokenizer.json", 200_000),
    "sentencepiece": ("spm.model", 150_000),
    "onnxruntime_inline": ("inline.onnx", 1_000_000),
    "onnxruntime_external": ("external.onnx.data", 1_000_000),
    "gguf": ("model.gguf", 1_000_000),
    "numpy_load": ("array.npy", 1_000_000),
    "numpy_memmap": ("raw.f32", 1_000_000),
    "numpy_fromfile": ("raw.f32", 1_000_000),
    "torch_zip": ("pytorch_model.bin", 1_000_000),
    "torch_zip_mmap": ("pytorch_model.bin", 1_000_000),
    "torch_legacy": ("legacy.pt", 1_000_000),
    "chain": ("raw.f32", 1_000_000),
    # An odd offset is the byte with sign and exponent of a bfloat16: what comes out must be other numbers.
    SERVER: (WEIGHTS, 1_000_001),
}


def argv_of(name: str, folder: Path) -> list[str]:
    if name == SERVER:
        return [str(paths.VENV_PYTHON), str(SOURCES / "serve.py"), str(VLLM_PYTHON), str(folder)]
    argv = [str(PYTHON), CONSUME, name, str(folder)]
    # Three levels: a shell, Python, and the children that it spawns.
    return ["sh", "-c", '"$0" "$@"; exit $?', *argv] if name == "chain" else argv


@dataclass
class Answer:
    """What a consumer said: its JSON object, or None and why."""

    found: Any
    error: str
    secs: float


def answer_of(done: subprocess.CompletedProcess[bytes], begin: float) -> Answer:
    secs = time.monotonic() - begin
    if done.returncode != 0:
        return Answer(None, f"status {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}", secs)
    try:
        return Answer(json.loads(done.stdout), "", secs)
    except ValueError as error:
        return Answer(None, f"{error}: {done.stdout[:200]!r}", secs)


def native(name: str, folder: Path) -> Answer:
    begin = time.monotonic()
    done = subprocess.run(
        argv_of(name, folder), env={**plain_env(), **SETTLED}, stdin=subprocess.DEVNULL, capture_output=True,
        timeout=SECS_MAX, check=False,
    )
    return answer_of(done, begin)


def managed(run: Run, name: str) -> Answer:
    begin = time.monotonic()
    return answer_of(run.call(argv_of(name, run.model_dir), run.env(**SETTLED), timeout=SECS_MAX), begin)


def differences(expected: Any, got: Any, place: str = "") -> list[str]:
    """Where two JSON objects differ."""
    if isinstance(expected, dict) and isinstance(got, dict):
        found = []
        for key in sorted(set(expected) | set(got)):
            found += differences(expected.get(key), got.get(key), f"{place}/{key}")
        return found
    return [] if expected == got else [f"{place}: {str(got)[:80]} instead of {str(expected)[:80]}"]


def model_folder() -> Path:
    """The model in all formats, made once."""
    folder = paths.BUCKETS / paths.BUCKET / MODEL
    source = (SOURCES / "make_model.py").read_text()
    stamp = paths.CACHE / "consumers.stamp"
    if not folder.exists() or not stamp.exists() or stamp.read_text() != source:
        scratch = paths.CACHE / "making" / MODEL
        for old in (scratch, folder):
            shutil.rmtree(old, ignore_errors=True)
        scratch.parent.mkdir(parents=True, exist_ok=True)
        argv = [str(PYTHON), str(SOURCES / "make_model.py"), str(scratch)]
        done = subprocess.run(argv, env={**plain_env(), **SETTLED}, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the model cannot be made:\n{done.stderr[-2000:]}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch.rename(folder)
        stamp.write_text(source)
    return folder


def placeholder_problems(run: Run, folder: Path, limit: int) -> list[str]:
    """Files above the limit that are not 0 bytes on disk, as seen without the library."""
    return [
        f"{path.name} is a file of {(run.model_dir / path.name).stat().st_size} bytes, not a placeholder"
        for path in folder.iterdir()
        if path.stat().st_size > limit and (run.model_dir / path.name).stat().st_size != 0
    ]


def judge(endpoint: Endpoint, name: str, expected: Answer, config: dict[str, Any], folder: Path) -> tuple[list[str], Answer]:
    """What is wrong with one consumer on a cold managed folder."""
    with Run(endpoint, MODEL, config=config) as run:
        got = managed(run, name)
        problems = [got.error] if got.error else differences(expected.found, got.found)
        problems += placeholder_problems(run, folder, config.get("materializeBytes", DEFAULT_MATERIALIZE_BYTES))
        if run.engine_starts() != 1:
            problems.append(f"{run.engine_starts()} engines")
        if problems:
            problems.append(run.log_tail())
    problems += [f"an engine outlived its clients: pid {pid}" for pid in run.leaks]
    return problems, got


@contextmanager
def serving(rules: list[faults.Rule] | None = None) -> Iterator[Endpoint]:
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as scratch, Endpoint(paths.BUCKETS, Path(scratch), rules) as endpoint:
        yield endpoint


def require_consumers() -> None:
    if not PYTHON.exists():
        sys.exit(f"{PYTHON} is missing: run ci/setup consumers first")


def names() -> list[str]:
    require_consumers()
    done = subprocess.run([str(PYTHON), CONSUME, "--names"], env=plain_env(), capture_output=True, check=True)
    found: list[str] = json.loads(done.stdout)
    if {*found, SERVER} != set(CHANGED):
        raise RuntimeError(f"consume.py and the control name other consumers: {set(found) ^ set(CHANGED)}")
    return [*found, SERVER] if VLLM_PYTHON.exists() else found


def passes_of(name: str) -> dict[str, dict[str, Any]]:
    # A server takes a minute to start: once, the harder way, is enough.
    return dict(list(PASSES.items())[:1]) if name == SERVER else PASSES


def equal(only: list[str] | None = None) -> Measure:
    problems: list[str] = []
    chosen = only or names()
    folder = model_folder()
    with serving() as endpoint:
        for name in chosen:
            expected = native(name, folder)
            if expected.error:
                problems.append(f"{name} fails natively: {expected.error}")
                continue
            line = f"  {name:<24} native {expected.secs:5.1f} s"
            for title, config in passes_of(name).items():
                wrong, got = judge(endpoint, name, expected, config, folder)
                problems += [f"{name}, {title}: {w}" for w in wrong]
                line += f"   {title} {got.secs:5.1f} s {'DIFFERENT' if wrong else 'equal'}"
            print(line, flush=True)
    value = f"{len(chosen)} consumers, each cold, {' and with '.join(PASSES)}"
    if SERVER not in chosen:
        value += "; vLLM is not installed here (ci/setup vllm)"
    return from_problems(value, problems)


def equal_control(only: list[str] | None = None) -> Measure:
    """Fails, as it must, only when the changed byte was seen through every single consumer."""
    blind, notes = [], []
    chosen = only or names()
    folder = model_folder()
    for name in chosen:
        file, offset = CHANGED[name]
        key = f"{MODEL}/{file}"
        with serving([faults.flipped_byte(key, offset), faults.rule({"drop_crc": True}, key)]) as endpoint:
            config = {**PASSES["all placeholders"], "verifyCrc": False}
            expected = native(name, folder)
            with Run(endpoint, MODEL, config=config) as run:
                got = managed(run, name)
        wrong = [got.error.strip().splitlines()[-1]] if got.error else differences(expected.found, got.found)
        if wrong and not expected.error:
            notes.append(f"{name}: {wrong[0][:160]}")
        else:
            blind.append(name)
    notes = [f"{name}: the changed byte was not noticed" for name in blind] + notes
    return Measure(f"noticed by {len(chosen) - len(blind)} of {len(chosen)} comparisons", bool(blind), "", notes)
