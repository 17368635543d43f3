"""Bars about a whole bucket as OSS_PATH: it costs what the one model in use costs, and looking at many models fetches none.

Buckets of 100,000 objects are told to the endpoint by its catalog (tests/endpoint/CATALOG.md): all keys have one of a
few files as their content. `--against DIR` measures another build; the controls take it too, else they ask for what
the product does not do.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests.harness import paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems, scale
from tests.harness.requestlog import Request
from tests.harness.run import Run

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
FOLDERS, OBJECTS = 2000, 50
MODEL = "m1000"
SHARD_BYTES = 24 * MIB
SIBLING_BYTES = 700
DESCRIPTORS = 1024
DESCRIPTORS_MAX = 600
REQUESTS_MAX = 50
LATER_SECS_MAX = 1.0
PAIRS = 3
BIG_FOLDER = 70_000
BIG_SECS_MAX = 2.0
HANG_MS = 60_000
HANGS, LOOPS = "m0100", "m0200"
SCANNED = 100
WEIGHT_BYTES = GIB
# Longer than an announced fetch waits for quiet.
AFTER_SCAN_SECS = 4.0
SETTINGS: dict[str, Any] = {"lingerSec": 2, "memoryLimit": 512 * MIB, "prefetch": {"vcpus": 2, "workers": 8}}

# Uses a model as a loader does; says when it had the first byte of a weight, and whether all of them were right.
LOADER = """
import json, os, sys, time
begin, folder, size = float(sys.argv[1]), sys.argv[2], int(sys.argv[3])
config = json.load(open(folder + '/config.json'))
names = sorted(name for name in os.listdir(folder) if name.endswith('.safetensors'))
first = None
for name in names:
    with open(folder + '/' + name, 'rb') as f:
        one = f.read(8)
        first = first or time.time() - begin
        rest = f.read()
    assert len(one) + len(rest) == size and one + rest[:8] == (one * 2)[:16] and set((one + rest)[::4099]) <= set(one), name
assert config == {'model': 1} and len(names) == 2, (config, names)
print(json.dumps({'first': first, 'all': time.time() - begin}), flush=True)
time.sleep(float(sys.argv[4]))
"""


def entry(key: str, file: str) -> dict[str, str]:
    return {"bucket": paths.BUCKET, "key": key, "file": file}


def model_entries(folder: str) -> list[dict[str, str]]:
    shards = [entry(f"{folder}/model-0000{n}-of-00002.safetensors", ".content/shard") for n in (1, 2)]
    index = entry(f"{folder}/model.safetensors.index.json", ".content/index")
    return [entry(f"{folder}/config.json", ".content/config"), index, entry(f"{folder}/tokenizer.json", ".content/index"), *shards]


def bucket_entries(folders: int = FOLDERS) -> list[dict[str, str]]:
    """Models of 50 objects each: some small ones, and weights."""
    found = []
    for n in range(folders):
        name = f"m{n:04}"
        if name == MODEL:
            found += model_entries(name)
            continue
        found += [entry(f"{name}/config.json", ".content/config"), entry(f"{name}/model.safetensors.index.json", ".content/index")]
        found += [entry(f"{name}/part-{part:02}.json", ".content/sibling") for part in range(OBJECTS // 2)]
        found += [entry(f"{name}/model-{part:05}-of-00023.safetensors", ".content/weight") for part in range(OBJECTS - OBJECTS // 2 - 2)]
    return found


def write_contents(root: Path) -> None:
    content = root / ".content"
    content.mkdir(parents=True, exist_ok=True)
    (root / paths.BUCKET).mkdir(exist_ok=True)
    (content / "config").write_text('{"model": 1}')
    (content / "index").write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    (content / "sibling").write_bytes(b"s" * SIBLING_BYTES)
    (content / "weight").write_bytes(b"w" * (64 * KIB))
    (content / "shard").write_bytes(b"x" * SHARD_BYTES)


@contextmanager
def served(entries: list[dict[str, str]], faults: list[dict[str, Any]] | None = None, contents: Callable[[Path], None] = write_contents) -> Iterator[Endpoint]:
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as name:
        scratch = Path(name)
        contents(scratch / "root")
        catalog = scratch / "catalog.json"
        catalog.write_text(json.dumps(entries))
        with Endpoint(scratch / "root", scratch / "endpoint", faults, ["--catalog", str(catalog)]) as endpoint:
            yield endpoint


def products() -> Path:
    return scale.against or paths.PRODUCTS


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


def folder_of(request: Request) -> str:
    """The first folder of a key, or of the prefix that is listed."""
    name = request.key or parse_qs(request.query).get("prefix", [""])[0]
    return name.split("/")[0] if "/" in name else ""


class Watcher(threading.Thread):
    """The most descriptors that the engine of a run was seen with."""

    def __init__(self, run: Run) -> None:
        super().__init__(daemon=True)
        self.run_, self.most, self.over = run, 0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.05):
            for pid in self.run_.engines():
                try:
                    self.most = max(self.most, len(os.listdir(f"/proc/{pid}/fd")))
                except OSError:
                    pass

    def end(self) -> int:
        self.over.set()
        self.join()
        return self.most


@dataclass
class Use:
    """What one program's use of the model cost."""

    first: float = 0.0
    all: float = 0.0
    others: int = 0
    other_bytes: int = 0
    descriptors: int = 0
    problems: list[str] = field(default_factory=list)


def bucket_run(endpoint: Endpoint, config: dict[str, Any] | None = None) -> Run:
    run = Run(endpoint, "x", config={**SETTINGS, **(config or {})}, products=products())
    run.prefix = ""
    return run


def use(endpoint: Endpoint, stay: float, beside: list[str] | None = None, config: dict[str, Any] | None = None) -> Use:
    """A program uses one model of a bucket; `beside` are folders that other programs list meanwhile."""
    found = Use()
    endpoint.forget()
    with bucket_run(endpoint, config) as run:
        watcher = Watcher(run)
        # The primary lives from before the loader's start, so that those beside are there first.
        argv = [str(paths.VENV_PYTHON), "-c", LOADER]
        others = []
        if beside:
            others = [run.start(["sh", "-c", f"ls {run.model_dir} > /dev/null; exec ls {run.model_dir}/{name}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for name in beside]
            time.sleep(1.5)
        try:
            done = run.call([*argv, str(time.time()), str(run.model_dir / MODEL), str(SHARD_BYTES), str(stay)], preexec_fn=few_descriptors, timeout=90)
            if done.returncode == 0:
                said = json.loads(done.stdout)
                found.first, found.all = said["first"], said["all"]
            else:
                found.problems.append(f"the loader ended with {done.returncode}: {done.stderr.decode(errors='replace')[-300:]} {run.log_tail(4)}")
        except AssertionError as hangs:
            found.problems.append(f"the loader hangs: {str(hangs)[-400:]}")
        for process in others:
            process.kill()
            process.wait()
        found.descriptors = watcher.end()
        run.kill_engines()
        mine = [r for r in endpoint.requests() if folder_of(r) not in ("", MODEL) and folder_of(r) not in (beside or [])]
        found.others = len(mine)
        found.other_bytes = sum(r.bytes_sent for r in mine if r.key)
        if beside:
            loops = [r for r in endpoint.requests() if folder_of(r) == LOOPS]
            if len(loops) > REQUESTS_MAX:
                found.problems.append(f"{len(loops)} requests for the folder whose token loops")
            if LOOPS in beside and not any(LOOPS in line and (" ERROR " in line or " WARN " in line) for line in run.log_lines()):
                found.problems.append("nothing is said of the folder whose token loops")
    return found


def judge(kind: str, alone: Use, whole: Use) -> list[str]:
    problems = [f"{kind}: {text}" for text in alone.problems + whole.problems]
    if whole.first - alone.first > LATER_SECS_MAX:
        problems.append(f"{kind}: the first byte came {whole.first - alone.first:.2f} s later than with the model alone")
    if whole.others > REQUESTS_MAX:
        problems.append(f"{kind}: {whole.others} requests for other folders")
    if whole.other_bytes:
        problems.append(f"{kind}: {whole.other_bytes} bytes of other folders")
    if whole.descriptors >= DESCRIPTORS_MAX:
        problems.append(f"{kind}: {whole.descriptors} descriptors")
    return problems


def middle(uses: list[Use]) -> Use:
    """The one with the middle first byte, with all problems and the most of each count."""
    chosen = sorted(uses, key=lambda one: one.first)[len(uses) // 2]
    return Use(
        chosen.first, chosen.all, max(u.others for u in uses), max(u.other_bytes for u in uses), max(u.descriptors for u in uses),
        [text for one in uses for text in one.problems],
    )


def big_folder(problems: list[str]) -> str:
    """70,000 objects in one folder: the time beyond that of the listing's own pages."""
    entries = [entry(f"big/o{n:05}.bin", ".content/weight") for n in range(BIG_FOLDER)]
    with served(entries) as endpoint, bucket_run(endpoint, {"materializeBytes": 1024}) as run:
        watcher = Watcher(run)
        begin = time.monotonic()
        done = run.call(["sh", "-c", f"ls {run.model_dir}/big | wc -l; ls {run.model_dir} > /dev/null"], preexec_fn=few_descriptors, timeout=120)
        secs = time.monotonic() - begin
        listed = done.stdout.decode().split()
        pages = [r for r in endpoint.requests() if folder_of(r) == "big" and not r.key]
        # From the first page's request to the last one's: what the origin and the wire took.
        own = pages[-1].time - pages[0].time if pages else 0.0
        said = [line for line in run.log_lines() if " ERROR " in line and "big" in line]
        beyond = secs - own
        if listed[:1] != [str(BIG_FOLDER)] and not said:
            problems.append(f"one folder of {BIG_FOLDER}: {listed} listed, and nothing is said")
        # Each of its files is made: a program of its own needs half as long for that (create, attribute, time, name).
        if listed[:1] != [str(BIG_FOLDER)] and beyond > BIG_SECS_MAX:
            problems.append(f"one folder of {BIG_FOLDER}: an error {beyond:.1f} s beyond the {own:.1f} s that its pages took")
        # One of them is read.
        one = run.call(["sh", "-c", f"head -c 5 {run.model_dir}/big/o44444.bin"], preexec_fn=few_descriptors, timeout=60)
        if listed[:1] == [str(BIG_FOLDER)] and one.stdout != b"wwwww":
            problems.append(f"one folder of {BIG_FOLDER}: a read gives {one.stdout!r} {one.stderr!r}")
        most = watcher.end()
        if most >= DESCRIPTORS_MAX:
            problems.append(f"one folder of {BIG_FOLDER}: {most} descriptors")
        run.kill_engines()
        return f"{BIG_FOLDER} in one folder: {listed[:1]} listed in {secs:.1f} s, {own:.1f} s of it between the first page and the last ({len(pages)} pages), {most} descriptors"


def whole_bucket(config: dict[str, Any] | None = None) -> Measure:
    pairs = scale.runs or PAIRS
    hang = [
        {"match": {"kind": "list", "prefix": f"{HANGS}/"}, "do": {"delay_ms": HANG_MS}},
        {"match": {"kind": "list", "prefix": f"{LOOPS}/"}, "do": {"loop_list": True}},
    ]
    problems: list[str] = []
    with served(model_entries(MODEL)) as endpoint:
        alone = middle([use(endpoint, 0, config=config) for _ in range(pairs)])
    entries = bucket_entries()
    with served(entries) as endpoint:
        whole = middle([use(endpoint, 2.0, config=config) for _ in range(pairs)])
    problems += judge("2,000 folders", alone, whole)
    with served(entries, hang) as endpoint:
        beside = middle([use(endpoint, 1.0, [HANGS, LOOPS], config) for _ in range(pairs)])
    problems += judge("beside a hanging and a looping folder", alone, beside)
    big = big_folder(problems)
    value = (
        f"{len(entries)} objects in {FOLDERS} folders: first byte after {whole.first:.2f} s, with the model alone {alone.first:.2f}, beside a hanging and a looping folder {beside.first:.2f}; "
        f"requests for other folders {whole.others} and {beside.others}, bytes of theirs {whole.other_bytes + beside.other_bytes}; descriptors {whole.descriptors}; {big}"
    )
    return from_problems(value, problems)


def whole_bucket_control() -> Measure:
    """A build that lists and fetches ahead (`--against`), else a sibling that is the model's own folder."""
    if scale.against:
        return whole_bucket()
    # Without another build: the model's own listing hangs, which must be seen in its first byte.
    hang = [{"match": {"kind": "list", "prefix": f"{MODEL}/"}, "do": {"delay_ms": 3000}}]
    with served(model_entries(MODEL)) as endpoint:
        alone = use(endpoint, 0)
    with served(bucket_entries(40) + model_entries(MODEL), hang) as endpoint:
        late = use(endpoint, 0)
    return from_problems("a model whose own listing takes 3 s", judge("late", alone, late))


def sparse_contents(root: Path) -> None:
    write_contents(root)
    with open(root / ".content" / "big", "wb") as file:
        file.truncate(WEIGHT_BYTES)


def scan_problems(command: str, stay: float, config: dict[str, Any] | None = None) -> tuple[str, list[str]]:
    """Runs one command over 100 models; what was fetched."""
    entries: list[dict[str, str]] = []
    for n in range(SCANNED):
        name = f"scan{n:03}"
        entries += [entry(f"{name}/{small}", ".content/config" if small == "config.json" else ".content/index") for small in ("config.json", "generation_config.json", "model.safetensors.index.json", "tokenizer.json")]
        entries.append(entry(f"{name}/model-00001-of-00001.safetensors", ".content/big"))
    with served(entries, contents=sparse_contents) as endpoint, bucket_run(endpoint, config) as run:
        begin = time.monotonic()
        done = run.call(["sh", "-c", command.replace("DIR", str(run.model_dir)) + f"; sleep {stay}"], timeout=120)
        secs = time.monotonic() - begin - stay
        found = len(done.stdout.splitlines())
        run.kill_engines()
        gets = [r for r in endpoint.requests() if r.key and r.method == "GET"]
        weights = [r for r in gets if r.key.endswith(".safetensors")]
        twice = [key for key, count in Counter((r.key, r.start) for r in gets).items() if count > 1]
        problems = []
        if found != SCANNED:
            problems.append(f"{command}: found {found} of {SCANNED}: {done.stderr.decode(errors='replace')[-200:]}")
        if weights:
            problems.append(f"{command}: {len(weights)} requests for weights, {sum(r.bytes_sent for r in weights) / MIB:.1f} MiB of them")
        if twice:
            problems.append(f"{command}: fetched twice: {twice[:3]} and {len(twice) - 1} more")
        return f"{command}: {found} found in {secs:.1f} s, {len(gets)} objects fetched, {len(weights)} requests for weights", problems


SCANS = (
    'grep -r --include=config.json model DIR', 'for f in DIR/*/config.json; do cat $f && echo; done',
    f"{paths.VENV_PYTHON} -c \"import glob, json, time; [print(json.load(open(p))) or time.sleep(.02) for p in sorted(glob.glob('DIR/*/config.json'))]; time.sleep({AFTER_SCAN_SECS})\"",
)


def scans(config: dict[str, Any] | None = None) -> Measure:
    values, problems = [], []
    for command in SCANS:
        value, found = scan_problems(command, AFTER_SCAN_SECS, config)
        values.append(value.replace(str(paths.VENV_PYTHON), "python"))
        problems += found
    return from_problems("; ".join(values), problems)


def scans_control() -> Measure:
    """A build that fetches at the first touch (`--against`), else a program that opens the weights as well."""
    if scale.against:
        return scans()
    value, problems = scan_problems("for f in DIR/*/config.json; do cat $f && echo; head -c 1 $(dirname $f)/*.safetensors > /dev/null; done", 0)
    return from_problems(value, problems)
