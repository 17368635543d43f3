"""Bar about credentials that live 5 s during a load of 30 s: no read fails while their source renews them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness import folder, paths
from tests.harness.certificate import Certificate
from tests.harness.endpoint import Endpoint
from tests.harness.issuer import ROLE, Issuer, KeyFile, Metadata, TokenService, pod_env
from tests.harness.measure import Measure, from_problems
from tests.harness.run import Run

LIFE_SECS = 5
LOAD_SECS = 30
MIB = 1 << 20
FILES = 3
FILE_BYTES = 10 * MIB
PREFIX = "lives"
# Two requests at a time, each a second's worth: keys are used all through the load.
SETTINGS = {"materializeBytes": 0, "partBytes": MIB, "prefetch": {"vcpus": 1, "workers": 2}}
RATE = ["--rate-bytes-per-sec", str(FILES * FILE_BYTES // LOAD_SECS)]
# Each key is used for two thirds of its life.
RENEWALS_MIN = LOAD_SECS // LIFE_SECS
# Of the control: when the source stops, and how long reads may then wait for their error.
STOP_AFTER_SECS = 8
GIVE_UP_SECS = 45

# Environment and settings of a run with this source; what it starts ends with the stack.
Setup = Callable[[ExitStack, Issuer, Path], tuple[dict[str, str], dict[str, object]]]


def by_file(stack: ExitStack, issuer: Issuer, scratch: Path) -> tuple[dict[str, str], dict[str, object]]:
    path = scratch / "key.json"
    stack.enter_context(KeyFile(issuer, path, LIFE_SECS / 2))
    return {"OSS_AUTHORIZATION_FILE_PATH": str(path)}, {}


def by_role(stack: ExitStack, issuer: Issuer, _: Path) -> tuple[dict[str, str], dict[str, object]]:
    service = stack.enter_context(Metadata(issuer))
    return {"ALIBABA_CLOUD_ECS_METADATA": ROLE, "OSSC_METADATA_URL": service.url}, {}


def by_pod(stack: ExitStack, issuer: Issuer, scratch: Path) -> tuple[dict[str, str], dict[str, object]]:
    token, certificate = scratch / "token", Certificate(scratch / "certificate")
    token.write_text("eyJhbGciOiJSUzI1NiJ9.cG9k.c2ln")
    service = stack.enter_context(TokenService(issuer, token, certificate))
    return pod_env(service, token), {"tls": {"caFile": str(certificate.ca)}}


SOURCES: dict[str, Setup] = {"file": by_file, "RAM role": by_role, "pod role": by_pod}


@dataclass
class Load:
    """What came of one load."""

    source: str
    secs: float = 0.0
    failed: int = 0
    renewals: int = 0
    keys_used: int = 0
    refused: int = 0
    problems: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


def make_model(root: Path) -> dict[str, str]:
    return folder.fill(root / paths.BUCKET / PREFIX, {f"{n}.bin": FILE_BYTES for n in range(FILES)}, seed=5)


def stop_later(issuer: Issuer) -> None:
    time.sleep(STOP_AFTER_SECS)
    issuer.stopped.set()


def load(name: str, root: Path, sums: dict[str, str], stops: bool) -> Load:
    """Reads every file once, in order, with plain reads."""
    found = Load(name)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
        issuer = Issuer(scratch / "keys.json", LIFE_SECS)
        env, settings = SOURCES[name](stack, issuer, scratch)
        endpoint = stack.enter_context(Endpoint(root, scratch, None, [*RATE, "--keys", str(issuer.keys)]))
        run = Run(endpoint, PREFIX, config={**SETTINGS, **settings})
        stack.callback(run.close)
        variables = run.env(OSS_ACCESS_KEY_ID=None, OSS_ACCESS_KEY_SECRET=None, **env)
        begin = time.monotonic()
        if stops:
            timer = ThreadPoolExecutor(1)
            stack.callback(timer.shutdown)
            timer.submit(stop_later, issuer)
        done = run.call(["sha256sum", *sums], variables, timeout=LOAD_SECS * 3, cwd=run.model_dir)
        found.secs = time.monotonic() - begin
        right = {f"{digest}  {file}" for file, digest in sums.items()}
        found.failed = len(right - set(done.stdout.decode().splitlines()))
        found.errors = done.stderr.decode().splitlines()
        found.log = run.log_lines()
        found.renewals = sum("credentials were renewed" in line for line in found.log)
        found.refused = sum(request.code == "SecurityTokenExpired" for request in endpoint.requests())
    return found


def loads(stops: bool) -> list[Load]:
    """All sources at the same time: each has an endpoint and an engine of its own, and most of it is waiting."""
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as root:
        sums = make_model(Path(root))
        with ThreadPoolExecutor(len(SOURCES)) as pool:
            return list(pool.map(lambda name: load(name, Path(root), sums, stops), SOURCES))


def judge(found: list[Load]) -> Measure:
    problems = []
    for one in found:
        if one.failed:
            problems += [f"{one.source}: {one.failed} of {FILES} files were not read", *one.errors[:3]]
            problems += [line for line in one.log if "readers get errno" in line][:1]
        if one.secs < LOAD_SECS * 0.9:
            problems.append(f"{one.source}: the load took {one.secs:.1f} s only")
        if one.renewals < RENEWALS_MIN:
            problems.append(f"{one.source}: {one.renewals} renewals only")
    failed = sum(one.failed for one in found)
    lines = [f"{one.source} {one.renewals} renewals, {one.refused} refusals, {one.secs:.1f} s" for one in found]
    return from_problems(f"{failed} failed reads; {'; '.join(lines)}", problems)


def renewed() -> Measure:
    return judge(loads(stops=False))


def not_renewed() -> Measure:
    """The sources stop renewing in mid-load: reads must fail, each with EACCES, in time, and with a line that names the cause."""
    found = loads(stops=True)
    measure = judge(found)
    for one in found:
        clear = any("SecurityTokenExpired" in line and "readers get errno 13" in line for line in one.log)
        denied = any("Permission denied" in line for line in one.errors)
        in_time = one.secs < STOP_AFTER_SECS + LIFE_SECS + GIVE_UP_SECS
        if not (clear and denied and in_time and one.failed):
            # A control that fails in another way than it should has shown nothing.
            text = f"{one.source}: no clear error in time: {one.secs:.1f} s, {one.failed} failed, {one.errors[:2]}"
            return Measure(text, True, notes=one.log[-5:])
    return measure
