"""Bar about names: a bucket of many keys in nested folders, hostile ones among them, mirrored exactly or skipped with a reason."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections import Counter
from pathlib import Path

from tests.harness import keynames as names
from tests.harness import paths
from tests.harness.endpoint import Endpoint
from tests.harness.keynames import Names
from tests.harness.measure import Measure, from_problems
from tests.harness.run import Run

COUNTS = (3_000, 6_000, 12_000)
# CPU time per key may grow by this factor from the smallest bucket to the largest. Where it is quadratic it grows fourfold.
GROWTH_MAX = 1.5
# The folders lie in memory: ext4 gives no inode number out again for minutes, and looks at each of those that the loads
# before have left, so that the engine's time would grow with what was deleted before it.
MEMORY = Path("/dev/shm")
# Each size is loaded so often; the least CPU time counts, since others can only add to it.
RUNS = 2
PREFIX = "names"
LOAD_SECS_MAX = 400.0
SKIPPED = re.compile(r"not mirrored: (.*?) key=")
# Reads every file of MODEL_DIR once, folder by folder, and says how many there were.
WALK = (
    "import os\n"
    "count = 0\n"
    "for folder, _, files in os.walk('.'):\n"
    "    for name in files:\n"
    "        with open(os.path.join(folder, name), 'rb') as file: file.read()\n"
    "        count += 1\n"
    "print(count)\n"
)


def _content(number: int) -> bytes:
    return f"content {number}\n".encode() * (number + 1)


def _bucket(root: Path, keys: dict[bytes, int]) -> Path:
    """A bucket whose keys are all in the catalog; gives the catalog."""
    (root / paths.BUCKET).mkdir(parents=True)
    (root / ".content").mkdir()
    for number in range(names.CONTENTS):
        (root / ".content" / str(number)).write_bytes(_content(number))
    entries = [
        {"bucket": paths.BUCKET, "key_hex": (f"{PREFIX}/".encode() + key).hex(), "file": f".content/{content}"}
        for key, content in keys.items()
    ]
    catalog = root / "catalog.json"
    catalog.write_text(json.dumps(entries))
    return catalog


def _cpu_secs(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _found(model_dir: Path) -> tuple[dict[str, str], set[str]]:
    """Files with the hash of their content, and folders, as a program without the library sees them."""
    files, folders = {}, set()
    top = os.fsencode(model_dir)
    for folder, below, inside in os.walk(top):
        inner = os.fsdecode(os.path.relpath(folder, top))
        at = "" if inner == "." else inner + "/"
        folders |= {at + os.fsdecode(name) for name in below}
        for name in inside:
            content = Path(os.fsdecode(os.path.join(folder, name))).read_bytes()
            files[at + os.fsdecode(name)] = hashlib.sha256(content).hexdigest()
    return files, folders


def _differences(what: str, expected: set[str], found: set[str]) -> list[str]:
    shown = [f"{what} missing: {name!r}" for name in sorted(expected - found)]
    return shown + [f"{what} that should not be there: {name!r}" for name in sorted(found - expected)]


def problems_of(run: Run, expected: Names, escape: str) -> list[str]:
    """Everything that is not as it must be after a program has read the whole folder."""
    files, folders = _found(run.model_dir)
    problems = _differences("file", set(expected.files), set(files)) + _differences("folder", expected.folders, folders)
    hashes = [hashlib.sha256(_content(number)).hexdigest() for number in range(names.CONTENTS)]
    problems += [f"wrong content: {n!r}" for n, c in expected.files.items() if files.get(n, hashes[c]) != hashes[c]]
    logged = Counter(match[1] for line in run.log_lines() if (match := SKIPPED.search(line)))
    if logged != expected.reasons():
        problems.append(f"skipped with a reason in the log: {dict(logged)}, expected {dict(expected.reasons())}")
    outside = {entry.name for entry in run.dir.iterdir()} - {"model", "connector.log", "audit.log", "config.json"}
    problems += [f"outside MODEL_DIR: {name}" for name in sorted(outside)]
    for folder in (run.dir.parent, Path("/tmp"), Path("/"), Path.cwd()):
        problems += [f"outside MODEL_DIR: {entry}" for entry in folder.iterdir() if escape in entry.name]
    return problems


def _load(count: int, keep: slice = slice(None), let_out: bool = False) -> tuple[float, Names, list[str]]:
    """CPU seconds of the engine for one whole load, what was expected, and what was wrong."""
    escape = f"escape-{uuid.uuid4().hex[:12]}"
    expected = names.make(count, escape)
    scratch = Path(tempfile.mkdtemp(prefix="ossc-names-"))
    try:
        served = dict(sorted(expected.keys.items(), key=lambda item: item[0] in _good(expected))[keep])
        catalog = _bucket(scratch / "root", served)
        config = {"lingerSec": 5, "startTimeoutSec": 120}
        with (
            Endpoint(scratch / "root", scratch, options=["--catalog", str(catalog)]) as endpoint,
            Run(endpoint, PREFIX, config=config, below=MEMORY) as run,
        ):
            done = run.call([str(paths.VENV_PYTHON), "-c", WALK], cwd=run.model_dir, timeout=LOAD_SECS_MAX)
            engines = run.engines()
            cpu = _cpu_secs(engines[0]) if engines else 0.0
            if let_out:
                (run.dir / escape).touch()
            problems = problems_of(run, expected, escape)
            if done.returncode != 0 or len(engines) != 1:
                problems.append(f"status {done.returncode}, {len(engines)} engines: {done.stderr.decode()[-500:]}")
            return cpu, expected, problems
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _good(expected: Names) -> set[bytes]:
    return {name.encode() for name in expected.files}


def growth_problems(cpu: dict[int, float]) -> list[str]:
    """Why the time is not linear in the number of keys."""
    least, most = min(cpu), max(cpu)
    growth = (cpu[most] / most) / (cpu[least] / least)
    return [f"CPU time per key grows {growth:.2f} times from {least} to {most} keys"] if growth > GROWTH_MAX else []


def mirrored() -> Measure:
    cpu: dict[int, float] = {}
    problems: list[str] = []
    expected = Names()
    for count in COUNTS * RUNS:
        secs, expected, wrong = _load(count)
        cpu[count] = min(secs, cpu.get(count, secs))
        problems += [f"{count} keys: {line}" for line in wrong]
    problems += growth_problems(cpu)
    least, most = min(cpu), max(cpu)
    value = (
        f"{most} keys: {len(expected.files)} files in {len(expected.folders)} folders, {len(expected.skipped)} skipped with a reason; "
        f"CPU time per key {(cpu[most] / most) / (cpu[least] / least):.2f} times that of {least} keys"
    )
    each = ", ".join(f"{count} keys {secs:.2f} s ({secs / count * 1e6:.0f} us/key)" for count, secs in cpu.items())
    return from_problems(value, problems, f"engine CPU: {each}")


def one_missing() -> Measure:
    """One key is not served, and one file lies where a hostile name would have put it: both must be noticed."""
    _, _, problems = _load(COUNTS[0], keep=slice(None, -1), let_out=True)
    missing = sum(line.startswith("file missing") for line in problems)
    escaped = sum(line.startswith("outside MODEL_DIR") for line in problems)
    quadratic = growth_problems({3_000: 1.0, 12_000: 16.0})
    value = f"noticed: {missing} missing, {escaped} outside MODEL_DIR, {len(quadratic)} quadratic"
    if (missing, escaped, len(quadratic)) != (1, 1, 1) or len(problems) != 2:
        return Measure(value, True, "", problems)
    return from_problems(value, problems + quadratic)
