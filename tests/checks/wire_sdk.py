"""Bar about the official Python SDKs: an endpoint that signs again with them takes all our requests, and
their clients take our endpoint's answers.

tests/peers/resign.py is that endpoint, tests/peers/clients.py those clients; both run under
target/venv-sdk, which the bar asks ci/setup for.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.harness import load, models, names, paths
from tests.harness.certificate import Certificate
from tests.harness.endpoint import ACCESS_KEY_ID, ACCESS_KEY_SECRET, REGION, Endpoint
from tests.harness.measure import Measure, from_problems
from tests.harness.requestlog import body_gets
from tests.harness.run import Run, plain_env

PYTHON = paths.CACHE / "venv-sdk" / "bin" / "python3"
PEERS = paths.ROOT / "tests" / "peers"
RESIGN = [str(PYTHON), str(PEERS / "resign.py")]
SIZE_MIB = 24
# Files of 3 MiB: several ranges of each.
PART_BYTES = 1 << 20
TOKEN = "STS.token+/=%20&x"
# Names that a signer may spell wrongly, and an empty object.
ODD = {"ü+1 %41~(x)*'!&=?#.bin": b"odd" * 1000, "模型/a b": b"b", "empty": b""}
CLIENT_SECS_MAX = 180
FAILED = "failed to launch oss connector: failed to list objects: "


@dataclass(frozen=True)
class Case:
    """One way to reach a bucket."""

    version: str
    sts: bool
    https: bool
    virtual: bool

    def __str__(self) -> str:
        words = [self.version, "STS" if self.sts else "static", "https" if self.https else "http"]
        return " ".join([*words, "virtual-hosted" if self.virtual else "path style"])


class Rig:
    """A bucket with the model, odd names among its files; endpoints of both kinds."""

    def __init__(self, stack: ExitStack) -> None:
        if not PYTHON.exists():
            subprocess.run([str(paths.ROOT / "ci" / "setup"), "sdk"], check=True)
        self.stack = stack
        self.scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossc-sdk-")))
        self.certificate = Certificate(self.scratch / "certificate")
        self.root = self.scratch / "root"
        self.model = models.ensure("shards", SIZE_MIB)
        self.folder = self.root / paths.BUCKET / self.model
        shutil.copytree(models.folder(self.model), self.folder, copy_function=os.link)
        self.small = self.root / paths.BUCKET / "small"
        for name, data in ODD.items():
            for folder in (self.folder / "odd", self.small):
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        for number in range(4):
            (self.small / f"part{number}.bin").write_bytes(os.urandom(100_000 + number))
        self.inside = names.prefix(self.scratch / "hosts", [names.NAME, f"{paths.BUCKET}.{names.NAME}"])

    def endpoint(self, case: Case, resigning: bool, region: str = REGION) -> Endpoint:
        options = ["--security-token", TOKEN] if case.sts else []
        if case.https:
            options += self.certificate.options
        if resigning:
            options += ["--signature", case.version]
        elif case.version == "v1":
            options += ["--allow-v1"]
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        return Endpoint(self.root, folder, options=options, program=RESIGN if resigning else None, region=region)

    def url(self, endpoint: Endpoint, case: Case) -> str:
        return endpoint.url.replace("127.0.0.1", names.NAME) if case.virtual else endpoint.url

    def load(self, endpoint: Endpoint, case: Case, **changes: str) -> list[str]:
        """What is wrong when an ordinary program loads the model through the library, byte by byte."""
        config = {"partBytes": PART_BYTES, "tls": {"caFile": str(self.certificate.ca)}}
        with Run(endpoint, self.model, config=config) as run:
            secrets = {"OSS_SESSION_TOKEN": TOKEN} if case.sts else {}
            version = {"OSSC_SIGNATURE": "v1"} if case.version == "v1" else {}
            env = run.env(OSS_ENDPOINT=self.url(endpoint, case), **{**secrets, **version, **changes})
            report = run.dir / "report.json"
            before = [*self.inside, f"LD_PRELOAD={env.pop('LD_PRELOAD')}"] if case.virtual else []
            done = run.call([*before, *load.loader_argv(run, report)], env)
            if done.returncode != 0:
                lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no error was printed"]
                return [f"the program ended with {done.returncode}: {lines[0][:300]}"]
            checked = subprocess.run(
                [str(paths.VENV_PYTHON), str(load.VERIFIER), str(report), str(self.folder)],
                env=plain_env(), capture_output=True, text=True, check=False,
            )
        problems = [] if checked.returncode == 0 else [(checked.stdout + checked.stderr).strip()[-300:]]
        return problems + [f"an engine outlived its program: {pid}" for pid in run.leaks]

    def clients(self, endpoint: Endpoint, case: Case, *more: str) -> tuple[int, list[str]]:
        """How many calls of the official clients were compared, and what differed."""
        argv = [*(self.inside if case.virtual else []), str(PYTHON), str(PEERS / "clients.py"), self.url(endpoint, case)]
        argv += [REGION, paths.BUCKET, str(self.small), "small/", *more, *(["--v1"] if case.version == "v1" else [])]
        env = {
            **plain_env(), "OSS_ACCESS_KEY_ID": ACCESS_KEY_ID, "OSS_ACCESS_KEY_SECRET": ACCESS_KEY_SECRET,
            "REQUESTS_CA_BUNDLE": str(self.certificate.ca), **({"OSS_SESSION_TOKEN": TOKEN} if case.sts else {}),
        }
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=CLIENT_SECS_MAX)
        if done.returncode != 0:
            return 0, [f"the clients ended with {done.returncode}: {done.stderr.strip()[-400:]}"]
        result = json.loads(done.stdout)
        return int(result["compared"]), list(result["problems"])


def refused(rig: Rig, endpoint: Endpoint, case: Case) -> list[str]:
    """The endpoint is a judge at all: what is signed otherwise does not get in."""
    wrong = {"another secret": {"OSS_ACCESS_KEY_SECRET": "another-secret"}}
    if case.version == "v4":
        wrong["another region"] = {"OSS_REGION": "cn-elsewhere"}
    if case.sts:
        wrong["another token"] = {"OSS_SESSION_TOKEN": "another-token"}
    problems = []
    for what, changes in wrong.items():
        found = rig.load(endpoint, case, **changes)
        if not found or FAILED not in found[0] or "status 403" not in found[0]:
            problems.append(f"{case}: {what} is not refused as it must be: {found}")
    return problems


def resigned(rig: Rig, versions: tuple[str, ...]) -> tuple[int, int, list[str]]:
    """Full loads in all ways: how many, how many requests were signed again, what was wrong."""
    loads, requests, problems = 0, 0, []
    for version, sts, https in itertools.product(versions, (False, True), (False, True)):
        cases = [Case(version, sts, https, virtual) for virtual in (False, True)]
        with rig.endpoint(cases[0], resigning=True) as endpoint:
            for case in cases:
                endpoint.forget()
                found = rig.load(endpoint, case)
                served = endpoint.requests()
                keys = {request.key for request in body_gets(served, "")}
                loads, requests = loads + 1, requests + len(served)
                problems += [f"{case}: {problem}" for problem in found]
                problems += [f"{case}: only {len(keys)} objects were asked for"] if len(keys) < len(models.sizes(rig.model)) else []
                problems += [f"{case}: status {r.status} for {r.key}" for r in served if r.status >= 400]
                print(f"  {case}: {len(served)} requests, {len(keys)} objects, {len(found)} problems", flush=True)
            if not https:
                problems += refused(rig, endpoint, cases[0])
                _, found = rig.clients(endpoint, cases[0], "--no-v1-list")
                problems += [f"official clients of the endpoint that signs again, {cases[0]}: {problem}" for problem in found]
    return loads, requests, problems


def accepted() -> Measure:
    compared = 0
    with ExitStack() as stack:
        rig = Rig(stack)
        loads, requests, problems = resigned(rig, ("v4", "v1"))
        for version, sts, https, virtual in itertools.product(("v4", "v1"), (False, True), (False, True), (False, True)):
            case = Case(version, sts, https, virtual)
            with rig.endpoint(case, resigning=False) as endpoint:
                count, found = rig.clients(endpoint, case)
            compared += count
            problems += [f"official clients, {case}: {problem}" for problem in found]
            print(f"  official clients, {case}: {count} calls compared, {len(found)} problems", flush=True)
    value = f"{loads} full loads ({requests} requests signed again), {compared} calls of official clients compared"
    return from_problems(value, problems)


def elsewhere() -> Measure:
    """Both sides against a signature for another region."""
    with ExitStack() as stack:
        rig = Rig(stack)
        case = Case("v4", sts=False, https=False, virtual=False)
        with rig.endpoint(case, resigning=True, region="cn-elsewhere") as endpoint:
            problems = rig.load(endpoint, case)
        with rig.endpoint(case, resigning=False, region="cn-elsewhere") as endpoint:
            count, found = rig.clients(endpoint, case)
    # One of the two going through would be a bar that cannot fail.
    both = bool(problems) and bool(found)
    return Measure(f"{len(problems)} problems of the load, {len(found)} of {count} calls", not both, notes=[*problems, *found])
