"""The main job in a container as Kubernetes runs one: what bar `operate 4` does.

A user that no file names, without capabilities, in a root folder that is mounted read-only; one folder can be written. Runs
the demo's load on both kinds of memory, with and without the seccomp profile of container runtimes, and looks at what was
loaded, fetched, logged and audited.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.harness import load, models, paths, pod
from tests.harness.endpoint import ACCESS_KEY_ID, ACCESS_KEY_SECRET, REGION, Endpoint
from tests.harness.measure import Measure, from_problems
from tests.harness.pod import Volume
from tests.harness.requestlog import bytes_served, once_problems

MODEL = "gt-minilm"
LOAD_SECS_MAX = 300.0
# (OSSC_PAGES, under the default seccomp profile) -> what the log must name. The profile refuses every mount.
CASES = {("tmpfs", False): "HugeTmpfs", ("memfd", False): "Memfd", ("tmpfs", True): "Memfd", ("memfd", True): "Memfd"}
RUN_FOLDER = f".oss-connector-{pod.USER}"
BESIDE = f"it goes to /data/{RUN_FOLDER}/"


@dataclass
class Loaded:
    """One load in a container, and the folder that it could write to."""

    done: subprocess.CompletedProcess[str]
    data: Path

    def texts(self, pattern: str) -> str:
        return "".join(path.read_text() for path in sorted(self.data.glob(f"{RUN_FOLDER}/{pattern}")))


@contextmanager
def loaded(endpoint: Endpoint, pages: str, is_confined: bool, *, is_writable: bool = True, **changes: str) -> Iterator[Loaded]:
    """The demo's load, with the variables of the documents and no configuration file. Where log and audit file would go beside
    a socket in /data/taken, folders lie."""
    with tempfile.TemporaryDirectory(prefix="ossc-pod-") as scratch:
        data = Path(scratch) / "data"
        # As an emptyDir: root's, and every user may write.
        for folder in (data, data / "model", data / "taken"):
            folder.mkdir()
            folder.chmod(0o777)
        for name in ("log", "audit.log"):
            (data / "taken" / f"c.sock.{name}").mkdir()
        env = {
            "LD_PRELOAD": str(paths.PRELOAD), "ENABLE_CONNECTOR": "1", "OSS_ENDPOINT": endpoint.url, "OSS_REGION": REGION,
            "OSS_ACCESS_KEY_ID": ACCESS_KEY_ID, "OSS_ACCESS_KEY_SECRET": ACCESS_KEY_SECRET,
            "OSS_PATH": f"oss://{paths.BUCKET}/{MODEL}/", "MODEL_DIR": "/data/model", "OSSC_PAGES": pages, **changes,
        }
        program = [str(paths.VENV_PYTHON), str(load.LOADER), "/data/model", "--out", "/data/report.json", "--all-files"]
        endpoint.forget()
        yield Loaded(pod.call(program, env, [Volume(data, "/data", is_writable)], LOAD_SECS_MAX, is_confined=is_confined), data)


def load_problems(found: Loaded, endpoint: Endpoint) -> list[str]:
    """Every tensor is equal, and every byte has crossed once."""
    if found.done.returncode != 0:
        return [f"the program ended with status {found.done.returncode}: {found.done.stderr[-600:]}"]
    equal, text = load.verify(found.data / "report.json", MODEL)
    return ([] if equal else [text]) + once_problems(endpoint.requests(), models.sizes(MODEL))


def journal_problems(found: Loaded, endpoint: Endpoint, pages: str) -> list[str]:
    """One line on stderr says where log and audit are, and nothing is missing there."""
    problems = []
    said = found.done.stderr.splitlines()
    if len(said) != 1 or said[0].count(BESIDE) != 2:
        problems.append(f"stderr is not one line that names both places: {said}")
    log, audit = found.texts("*[0-9].log"), found.texts("*.audit.log")
    problems += [f"the log does not say {word!r}" for word in (f"pages={pages}", "engine started", "engine ends") if word not in log]
    lines = [json.loads(line) for line in audit.splitlines()]
    prefix = f"oss://{paths.BUCKET}/"
    verified = {line["object"].removeprefix(prefix) for line in lines if line.get("act") == "verify"}
    problems += [f"the audit file does not say that {key} was verified" for key, size in models.sizes(MODEL).items() if size and key not in verified]
    told = sum(line["bytes"] for line in lines if line["source"] == "origin" and line["range"])
    if told != bytes_served(endpoint.requests(), MODEL):
        problems.append(f"the audit file has {told} bytes, the endpoint served {bytes_served(endpoint.requests(), MODEL)}")
    return problems


def in_a_pod() -> Measure:
    models.ensure(MODEL)
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ossc-pod-endpoint-") as scratch, Endpoint(paths.BUCKETS, Path(scratch)) as endpoint:
        for (pages, is_confined), kind in CASES.items():
            name = f"OSSC_PAGES={pages}{', default seccomp profile' if is_confined else ''}"
            with loaded(endpoint, pages, is_confined) as found:
                wrong = load_problems(found, endpoint) or journal_problems(found, endpoint, kind)
            print(f"  {name}: {'as promised' if not wrong else wrong}", flush=True)
            problems += [f"{name}: {w}" for w in wrong]
    return from_problems(f"{len(CASES)} containers: {', '.join(sorted(set(CASES.values())))}", problems)


def in_a_pod_control() -> Measure:
    """Without the run folder in MODEL_DIR nothing may start, and a log that is nowhere has to be noticed."""
    models.ensure(MODEL)
    notes, blind = [], []
    with tempfile.TemporaryDirectory(prefix="ossc-pod-endpoint-") as scratch, Endpoint(paths.BUCKETS, Path(scratch)) as endpoint:
        with loaded(endpoint, "memfd", False, is_writable=False) as found:
            notes += (refused := load_problems(found, endpoint))
        if not any("can write to none of" in text for text in refused):
            blind.append(f"a container without a writable folder was not noticed: {refused}")
        with loaded(endpoint, "memfd", False, CONNECTOR_UDS_PATH="/data/taken/c.sock") as found:
            notes += (lost := load_problems(found, endpoint) or journal_problems(found, endpoint, "Memfd"))
        if not any("the log does not say" in text for text in lost) or not any("was verified" in text for text in lost):
            blind.append(f"log and audit that are nowhere were not noticed: {lost}")
    return Measure(f"noticed {len(notes)} faults", bool(blind), "", blind + notes)
