"""Set-ups, most of them broken, each of which `ossc doctor` and a program meet one after the other: they have to agree.

Run by the bar `operate 1`. The doctor looks first, by the program's own variables, and has to leave nothing behind. Then
a program maps and reads a whole model. The doctor's status is 0 exactly when the program had right bytes; where it was
not, the line that failed is the one that the table names, and says what to do. So it is once more behind a program that
has failed, whose engine may still be there: there the first screen of a terminal has to hold what to do. Each case has a folder, a configuration and,
where something goes wrong with OSS, an endpoint of its own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness import compile as compiler
from tests.harness import faults, folder, paths
from tests.harness.certificate import Certificate
from tests.harness.endpoint import ACCESS_KEY_SECRET, Endpoint
from tests.harness.measure import Measure, from_problems, selected
from tests.harness.run import Run, plain_env, strike, tree_state

MIB = 1 << 20
PREFIX = "team/model"
SHARD = f"{PREFIX}/model-00003-of-00004.safetensors"
SIZES = {
    "config.json": 600, "tokenizer.json": 5000, "model.safetensors.index.json": 900,
    **{f"model-{n:05}-of-00004.safetensors": 5 * MIB + n for n in range(1, 5)},
}
CONFIG: dict[str, Any] = {
    "materializeBytes": folder.MATERIALIZE_BYTES, "startTimeoutSec": 20, "startAttempts": 2, "retryBaseMs": 50, "lingerSec": 1, "listAgainSec": 1,
}
# For what never answers: all that is waited for in vain.
SOON = {"startTimeoutSec": 4, "responseTimeoutMs": 1500}
TOGETHER = 4
# A program waits a minute for an engine that never comes.
PROGRAM_SECS_MAX = 100
DOCTOR_SECS_MAX = 60
# A terminal's usual size.
LINES, COLUMNS = 24, 80
PROGRAM = """
import hashlib, json, mmap, sys
for name, expected in json.load(open(sys.argv[1])).items():
    with open(f"{sys.argv[2]}/{name}", "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if name.endswith(".safetensors") else file.read()
        if hashlib.sha256(data).hexdigest() != expected: sys.exit(f"{name}: other bytes")
print("loaded")
"""
# Goes on to the kernel past every library behind it.
HIDING = """
#include <stddef.h>
#include <sys/types.h>
ssize_t read(int fd, void *at, size_t len)
{
    long n = 0;
    __asm__ volatile("syscall" : "+a"(n) : "D"((long)fd), "S"(at), "d"(len) : "rcx", "r11", "memory");
    return n;
}
"""


class World:
    """What a case may prepare: its run, the bucket's tree, and what ends with it."""

    def __init__(self, run: Run, root: Path, ends: ExitStack) -> None:
        self.run, self.root, self.ends = run, root, ends

    def program(self, argv: list[str], **changes: str | None) -> None:
        """A program that runs to its end, and leaves its engine behind until the case is over."""
        self.keep_engine()
        done = self.run.call(argv, self.run.env(**changes))
        assert done.returncode == 0, done.stderr

    def keep_engine(self) -> None:
        config = json.loads(self.run.config_path.read_text())
        self.run.config_path.write_text(json.dumps({**config, "lingerSec": 100}))
        self.ends.callback(self.run.kill_engines)

    def library(self, text: str) -> str:
        """A library that does nothing but this."""
        target = self.run.dir / "other.so"
        subprocess.run(["gcc", "-w", "-shared", "-fPIC", "-x", "c", "-o", str(target), "-"], input=text.encode(), env=plain_env(), check=True)
        return str(target)

    def preload(self, *before: str) -> dict[str, str | None]:
        return {"LD_PRELOAD": ":".join([*before, str(paths.PRELOAD)])}


Env = Callable[[World], dict[str, "str | None"]]


@dataclass(frozen=True)
class Case:
    """One set-up. `check` is the doctor's line that fails, or that has a note where the program works; `remedy` is in it,
    `said` on the program's stderr."""

    name: str
    check: str = ""
    remedy: str = ""
    said: str = ""
    works: bool = False
    env: Env = lambda _: {}
    config: dict[str, Any] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    catalog: list[dict[str, str]] = field(default_factory=list)
    prepare: Callable[[World], None] = lambda _: None
    # What is put before the command, with its variables behind it.
    wrap: Callable[[World], list[str]] = lambda _: []
    # Where the model lies below MODEL_DIR.
    below: str = ""


def fixed(**changes: str | None) -> Env:
    return lambda _: changes


def write(name: str, text: str = "my own file") -> Callable[[World], None]:
    return lambda world: drop((world.run.model_dir / name).write_text(text))


def drop(_: object) -> None:
    """A value that no one needs."""


def refusing(error: str, calls: str) -> Callable[[World], list[str]]:
    return lambda _: [str(compiler.program("refuse.c")), error, calls]


def mounted(line: str) -> Callable[[World], list[str]]:
    """In a mount namespace of its own; {m} is MODEL_DIR."""
    return lambda world: ["unshare", "--mount", "sh", "-c", f'{line.format(m=world.run.model_dir)} && exec "$@"', "sh"]


def other_engine(**changes: str | None) -> Callable[[World], None]:
    return lambda world: world.program(["true"], **changes)


def stopped_engine(world: World) -> None:
    world.program(["true"])
    strike(world.run.engines(), signal.SIGSTOP)


def hidden_engine(world: World) -> None:
    """As another container has it."""
    world.program(["true"], CONNECTOR_UDS_PATH=str(world.run.dir / "elsewhere"))


def other_names(world: World) -> dict[str, str | None]:
    """A file of keys as other tools write it."""
    file = world.run.dir / "keys.json"
    file.write_text('{"accessKeyId": "id", "accessKeySecret": "secret"}')
    return {"OSS_ACCESS_KEY_ID": None, "OSS_ACCESS_KEY_SECRET": None, "OSS_AUTHORIZATION_FILE_PATH": str(file)}


def full_disk(world: World) -> None:
    (world.run.dir / "disk").mkdir()
    config = json.loads(world.run.config_path.read_text())
    world.run.config_path.write_text(json.dumps({**config, "logPath": str(world.run.dir / "disk/connector.log")}))


def with_full_disk(world: World) -> list[str]:
    disk = world.run.dir / "disk"
    return mounted(f"mount -t tmpfs -o size=4k none {disk} && head -c 4096 /dev/zero > {disk}/full && touch {disk}/connector.log")(world)


def leftovers(world: World) -> None:
    world.program(["true"])
    world.run.kill_engines()


def file_as_folder(world: World) -> None:
    world.run.model_dir.rmdir()
    world.run.model_dir.write_text("mine")


def another_endpoint(world: World) -> None:
    other = Endpoint(world.root, world.run.dir / "other")
    world.ends.enter_context(other)
    world.program(["true"], OSS_ENDPOINT=other.url)


def secure(world: World, scheme: str) -> dict[str, str | None]:
    endpoint = Endpoint(world.root, world.run.dir / "secure", options=Certificate(world.run.dir / "certificate").options)
    world.ends.enter_context(endpoint)
    return {"OSS_ENDPOINT": endpoint.url.replace("https://", scheme)}


def silent(world: World) -> dict[str, str | None]:
    """An address that takes connections and never answers."""
    listener = world.ends.enter_context(socket.create_server(("127.0.0.1", 0)))
    return {"OSS_ENDPOINT": f"http://127.0.0.1:{listener.getsockname()[1]}"}


def in_file_place(key: str) -> dict[str, Any]:
    """A place below a file, which no user can write."""
    return {key: "/etc/passwd/below.log"}


def bad_config(text: str) -> Callable[[World], None]:
    return lambda world: drop(world.run.config_path.write_text(text))


AT = f"oss://{paths.BUCKET}/{PREFIX}/"
WORKING = [
    Case("nothing is wrong", works=True),
    Case("MODEL_DIR is not there yet", "MODEL_DIR", "makes it", works=True, prepare=lambda world: world.run.model_dir.rmdir()),
    Case("OSS_PATH is the whole bucket", "model", "looked at the one in team/model/: a program that loads it is given /", works=True, env=fixed(OSS_PATH=f"oss://{paths.BUCKET}/"), below=PREFIX),
    Case("the clock is an hour off", "clock", "signs with the server's time", works=True, options=["--clock-ahead-sec", "3600"]),
    Case("the log cannot be written", "log", "set logPath", works=True, config=in_file_place("logPath")),
    Case("the audit file cannot be written", "audit", "set auditPath", works=True, config=in_file_place("auditPath")),
    Case("the log's disk is full", "log", "its disk is full", works=True, prepare=full_disk, wrap=with_full_disk),
    Case("a proxy is set", "proxy", "ignored", works=True, env=fixed(https_proxy="http://proxy.invalid:3128")),
    Case("no huge pages", "pages", "twice the CPU", works=True, env=fixed(OSSC_PAGES="memfd")),
    Case("verifyCrc is false", "CRC-64", "no object is compared", works=True, config={"verifyCrc": False}),
    Case("OSS reports no CRC-64", "CRC-64", "cannot be verified", works=True, faults=[faults.rule({"drop_crc": True})]),
    Case("an unknown key", "config", "has no effect", works=True, config={"memorylimit": 1}),
    Case("an engine runs", "engine", "serves it", works=True, prepare=other_engine()),
    Case(
        "an engine runs, and these keys are wrong", "list", "SignatureDoesNotMatch", works=True, prepare=other_engine(),
        env=fixed(OSS_ACCESS_KEY_SECRET="wrong"),
    ),
    Case(
        "a secondary with an engine", "engine", "serves it", works=True, prepare=other_engine(),
        env=fixed(ENABLE_CONNECTOR="2", OSS_PATH=None, OSS_ENDPOINT=None),
    ),
    Case("files of an engine before", works=True, prepare=leftovers),
    Case("the files together exceed the memory", "size", "one after the other", works=True, config={"memoryLimit": 24 * MIB}),
    Case("one flipped byte on the way", works=True, faults=[faults.flipped_at(SHARD, 3_000_000, times=1)]),
    Case("OSS is busy now and then", works=True, faults=[faults.refused(503, "ServiceUnavailable", times=2)]),
    Case("a secondary with all variables", works=True, env=fixed(ENABLE_CONNECTOR="2")),
]
BROKEN = [
    Case("no OSS_PATH", "environment", "set it to oss://", "OSS_PATH not set", env=fixed(OSS_PATH=None)),
    Case("no MODEL_DIR", "environment", "set it to", "MODEL_DIR not set", env=fixed(MODEL_DIR=None)),
    Case("no OSS_ENDPOINT", "environment", "OSS_ENDPOINT not set", "OSS_ENDPOINT not set", env=fixed(OSS_ENDPOINT=None)),
    Case("no secret", "environment", "or neither", "OSS_ACCESS_KEY_SECRET not set", env=fixed(OSS_ACCESS_KEY_SECRET=None)),
    Case("no region", "environment", "set OSS_REGION", "failed to infer region", env=fixed(OSS_REGION=None)),
    Case("OSS_PATH of another service", "environment", "expected oss://BUCKET/PATH/", "invalid uri", env=fixed(OSS_PATH="s3://bucket/x/")),
    Case("an endpoint of another scheme", "environment", "expected [http://|https://]HOST", "invalid endpoint", env=fixed(OSS_ENDPOINT="ftp://host")),
    Case("a role that does not exist", "role", "set it to 1 (primary) or 2", "ENABLE_CONNECTOR is neither", env=fixed(ENABLE_CONNECTOR="yes")),
    Case("ENABLE_CONNECTOR forgotten", "role", "set it to 1", "No such file", env=fixed(ENABLE_CONNECTOR=None)),
    Case("ENABLE_CONNECTOR=0", "role", "set it to 1", "No such file", env=fixed(ENABLE_CONNECTOR="0")),
    Case(
        "a secondary without an engine", "engine", "start a program with ENABLE_CONNECTOR=1", "waiting for an engine",
        env=fixed(ENABLE_CONNECTOR="2", OSS_PATH=None, OSS_ENDPOINT=None),
    ),
    Case(
        "a secondary without MODEL_DIR", "MODEL_DIR", "set it to the folder", "there is no MODEL_DIR",
        env=fixed(ENABLE_CONNECTOR="2", MODEL_DIR=None, OSS_PATH=None, OSS_ENDPOINT=None),
    ),
    Case("LD_PRELOAD forgotten", "LD_PRELOAD", "ossc run --", "No such file", env=fixed(LD_PRELOAD=None)),
    Case("LD_PRELOAD names no file", "LD_PRELOAD", "is not there", "cannot be preloaded", env=fixed(LD_PRELOAD="/absent/libossc_preload.so")),
    Case("LD_PRELOAD names another library", "LD_PRELOAD", "first in it", "No such file", env=lambda world: {"LD_PRELOAD": world.library("int x;")}),
    Case("a library that hides the hooks", "hooks", "put libossc_preload.so first", "hides the hooks", env=lambda world: world.preload(world.library(HIDING))),
    Case("OSSC_BIN is wrong", "OSSC_BIN", "unset OSSC_BIN", "failed to start the engine", env=fixed(OSSC_BIN="/absent/ossc")),
    Case("no configuration file", "config", "create it or unset OSSC_CONFIG", "failed to parse config file", env=fixed(OSSC_CONFIG="/absent/c.json")),
    Case("a configuration that is no JSON", "config", "not valid JSON", "failed to parse config file", prepare=bad_config('{"logLevel": 1,')),
    Case("a value out of range", "config", "allowed: 1 to 86400", "is out of range", config={"lingerSec": 0}),
    Case("no room for a part", "memory", "set memoryLimit to", "set memoryLimit to", config={"memoryLimit": MIB}),
    Case("a file over the memory", "size", "set memoryLimit to", "ENOMEM", config={"memoryLimit": 6 * MIB, "partBytes": MIB}),
    Case("a file of the user's in an object's place", "places", "empty the folder or choose another", "neither empty nor", prepare=write("config.json")),
    Case("the same in a weight's place", "places", "empty the folder or choose another", "neither empty nor", prepare=write(Path(SHARD).name)),
    Case("MODEL_DIR is a file", "MODEL_DIR", "is not a folder", "is not a folder", prepare=file_as_folder),
    Case("MODEL_DIR is a folder of the system", "MODEL_DIR", "a folder of its own", "a folder of its own", env=fixed(MODEL_DIR="/dev")),
    Case("MODEL_DIR cannot be written", "MODEL_DIR", "read and write permission", "Read-only", wrap=mounted("mount --bind {m} {m} && mount -o remount,bind,ro {m}")),
    Case("MODEL_DIR's disk is full", "disk", "make room there", "or not be written to MODEL_DIR", wrap=mounted("mount -t tmpfs -o size=8k none {m}")),
    Case("the socket's path is a file", "run folder", "remove it, or give", "is no socket", env=lambda world: {"CONNECTOR_UDS_PATH": str(world.run.config_path)}),
    Case("no folder for the socket", "run folder", "make that folder", "make that folder", env=fixed(CONNECTOR_UDS_PATH="/absent/socket")),
    Case("an engine of another OSS_PATH", "engine", f"serves oss://{paths.BUCKET}/team/other/", "another OSS_PATH", prepare=other_engine(OSS_PATH=f"oss://{paths.BUCKET}/team/other/")),
    Case("an engine of another OSS_ENDPOINT", "engine", "use another MODEL_DIR", "another OSS_ENDPOINT", prepare=another_endpoint),
    Case("an engine with another socket", "engine", "MODEL_DIR of its own", "its socket lies elsewhere", prepare=hidden_engine),
    Case("an engine that is stopped", "engine", "kill -CONT", "which is stopped", prepare=stopped_engine),
    Case("accept4 is refused", "run folder", "allow it", "accept4", wrap=refusing("EPERM", "accept4")),
    Case("io_uring is forced and refused", "network", "OSSC_IO", "io_uring", env=fixed(OSSC_IO="uring"), wrap=refusing("EPERM", "io_uring_setup")),
    Case("no endpoint listens", "connect", "check OSS_ENDPOINT", "failed to list objects", env=fixed(OSS_ENDPOINT="http://127.0.0.1:1")),
    Case("the endpoint's name is unknown", "DNS", "check OSS_ENDPOINT", "DNS phase", env=fixed(OSS_ENDPOINT="http://host.invalid")),
    Case("the endpoint does not answer", "list", "check the network", "no answer", env=silent, config=SOON),
    Case("OSS is away", "list", "", "failed to list objects", config=SOON, faults=[faults.refused(503, "ServiceUnavailable", kind="list")]),
    Case("a wrong secret", "list", "SignatureDoesNotMatch", "SignatureDoesNotMatch", env=fixed(OSS_ACCESS_KEY_SECRET="wrong")),
    Case("a wrong key", "list", "InvalidAccessKeyId", "InvalidAccessKeyId", env=fixed(OSS_ACCESS_KEY_ID="LTAI-wrong")),
    Case("no credential file", "keys", "OSS_AUTHORIZATION_FILE_PATH", "not accessible", env=fixed(OSS_ACCESS_KEY_ID=None, OSS_ACCESS_KEY_SECRET=None, OSS_AUTHORIZATION_FILE_PATH="/absent")),
    Case("a temporary key without its token", "list", "OSS_SESSION_TOKEN", "OSS_SESSION_TOKEN", env=fixed(OSS_ACCESS_KEY_ID="STS.key")),
    Case("a credential file with other names", "keys", "expected {", "AccessKeyId is missing", env=other_names),
    Case("no such bucket", "list", "NoSuchBucket", "NoSuchBucket", env=fixed(OSS_PATH="oss://no-such-bucket/x/")),
    Case("nothing is there", "list", "check OSS_PATH", "holds no objects", env=fixed(OSS_PATH=f"oss://{paths.BUCKET}/nobody/")),
    Case("a certificate of nobody trusted", "list", "tls.caFile", "unknown issuer", env=lambda world: secure(world, "https://")),
    Case("http where https is spoken", "list", "write https://", "write https://", env=lambda world: secure(world, "http://")),
    Case("https where http is spoken", "list", "write http://", "does not speak TLS", env=lambda world: {"OSS_ENDPOINT": world.run.endpoint.url.replace("http://", "https://")}),
    Case("objects may not be read", "read", "oss:GetObject", "EACCES", faults=[faults.refused(403, "AccessDenied")]),
    Case("one shard may not be read", "read", "oss:GetObject", "EACCES", faults=[faults.refused(403, "AccessDenied", SHARD)]),
    Case("bytes that are not the object's", "CRC-64", "upload it anew", "EIO", faults=[faults.flipped_at(SHARD, 3_000_000)]),
    Case("a shard is archived", "archived", "restore it", "EACCES", catalog=[{"bucket": paths.BUCKET, "key": SHARD, "class": "ColdArchive"}]),
    Case("a shard is archived, as its read says", "read", "restore the object", "EACCES", catalog=[{"bucket": paths.BUCKET, "key": SHARD, "class": "Archive"}]),
]


def make(root: Path) -> dict[str, str]:
    """The bucket, and the SHA-256 of each object of the model."""
    folder.fill(root / paths.BUCKET / "team/other", {"config.json": 10}, seed=2)
    return folder.fill(root / paths.BUCKET / PREFIX, SIZES, seed=1)


class Judged:
    """What doctor and program said of one case."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.status = -1
        self.lines: list[tuple[str, str, str]] = []
        self.problems: list[str] = []

    def wrong(self, text: str) -> None:
        self.problems.append(f"{self.case.name}: {text}")

    def failed(self) -> list[str]:
        return [check for mark, check, _ in self.lines if mark == "FAIL"]


def command(world: World, case: Case, argv: list[str], env: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    before = case.wrap(world)
    if not before:
        return argv, env
    plain = plain_env()
    return [*before, "env", *(f"{name}={value}" for name, value in env.items() if plain.get(name) != value), *argv], plain


def examine(world: World, case: Case, env: dict[str, str], ignored: list[str]) -> Judged:
    """The doctor's word."""
    judged, run = Judged(case), world.run
    before, engines = tree_state(run.model_dir) if run.model_dir.is_dir() else {}, run.engines()
    argv, env = command(world, case, [str(paths.OSSC), "doctor", "--json", *ignored], env)
    done = run.call(argv, env, timeout=DOCTOR_SECS_MAX)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        judged.wrong(f"the doctor said {done.stdout[-300:]!r} {done.stderr[-300:]!r}")
        return judged
    judged.status = done.returncode
    judged.lines = [(line["mark"], line["check"], line["found"]) for line in found["checks"]]
    # The dynamic linker speaks of a library that is not there, in any program.
    if done.stderr and not done.stderr.startswith(b"ERROR: ld.so: "):
        judged.wrong(f"the doctor wrote to stderr: {done.stderr!r}")
    if ACCESS_KEY_SECRET.encode() in done.stdout:
        judged.wrong("the secret is shown")
    if (found["works"], found["failed"] == []) != (done.returncode == 0,) * 2:
        judged.wrong(f"status {done.returncode}, and works is {found['works']} with {found['failed']}")
    if (tree_state(run.model_dir) if run.model_dir.is_dir() else {}, run.engines()) != (before, engines):
        judged.wrong("the doctor has changed MODEL_DIR, or started an engine")
    return judged


def first_screen(text: str) -> str:
    """What a terminal shows of it first, with its own line breaks taken out."""
    rows = [line[at : at + COLUMNS] for line in text.splitlines() for at in range(0, max(len(line), 1), COLUMNS)]
    return "".join(rows[:LINES])


def examine_again(world: World, judged: Judged, env: dict[str, str], ignored: list[str]) -> None:
    """The doctor's word to one whose program has just failed: the reason comes first."""
    case = judged.case
    argv, env = command(world, case, [str(paths.OSSC), "doctor", *ignored], env)
    done = world.run.call(argv, env, timeout=DOCTOR_SECS_MAX)
    screen = first_screen(done.stdout.decode(errors="replace"))
    if done.returncode == 0:
        judged.wrong(f"the doctor finds nothing once the program has failed: {screen}")
    if f"FAIL  {case.check:<12}" not in screen or case.remedy not in screen:
        judged.wrong(f"the first screen has no `FAIL {case.check}` with `{case.remedy}`: {screen}")


def one(case: Case, root: Path, sums: Path, shared: Endpoint, ignored: list[str]) -> Judged:
    with ExitStack() as ends:
        endpoint = shared
        if case.faults or case.options or case.catalog:
            scratch = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="ossc-bar-")))
            options = list(case.options)
            if case.catalog:
                (scratch / "catalog.json").write_text(json.dumps(case.catalog))
                options += ["--catalog", str(scratch / "catalog.json")]
            endpoint = ends.enter_context(Endpoint(root, scratch, case.faults or None, options))
        run = ends.enter_context(Run(endpoint, PREFIX, config={**CONFIG, **case.config}))
        world = World(run, root, ends)
        case.prepare(world)
        variables = run.env(**case.env(world))
        judged = examine(world, case, variables, ignored)
        if judged.status < 0:
            return judged
        argv, env = command(world, case, [str(paths.VENV_PYTHON), "-c", PROGRAM, str(sums), str(run.model_dir / case.below)], variables)
        done = run.call(argv, env, timeout=PROGRAM_SECS_MAX)
        loaded, said = done.returncode == 0 and done.stdout == b"loaded\n", done.stderr.decode(errors="replace")
        if not loaded:
            examine_again(world, judged, variables, ignored)
        run.kill_engines()
    if loaded != case.works:
        judged.wrong(f"the program {'loaded' if loaded else 'did not load'}: {said[-400:]}")
    if case.said not in said:
        judged.wrong(f"the program does not say `{case.said}`: {said[-400:]}")
    if (judged.status == 0) != loaded:
        judged.wrong(f"the program {'loaded' if loaded else 'did not load'}, and the doctor's status is {judged.status}, failed {judged.failed()}")
    mark = "FAIL" if not case.works else "note"
    told = [found for its, check, found in judged.lines if check == case.check and its in (mark, "ok" if case.works else mark)]
    if case.check and not any(case.remedy in found for found in told):
        judged.wrong(f"no line `{mark} {case.check}` with `{case.remedy}`: {told or judged.lines}")
    if case.works and case.check == "" and judged.failed():
        judged.wrong(f"failed: {judged.failed()}")
    return judged


def judge(cases: list[Case], ignored: list[str]) -> list[Judged]:
    with tempfile.TemporaryDirectory(prefix="ossc-bar-") as scratch:
        root, sums = Path(scratch) / "root", Path(scratch) / "sums.json"
        sums.write_text(json.dumps(make(root)))
        compiler.program("refuse.c")
        with Endpoint(root, Path(scratch)) as endpoint, ThreadPoolExecutor(TOGETHER) as threads:
            return list(threads.map(lambda case: one(case, root, sums, endpoint, ignored), cases))


def here(quick: bool = False) -> list[Case]:
    """The cases that this user can set up; `quick`: a third of the broken ones, none that waits a minute for an engine."""
    can_mount = os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
    needs_mount = {"MODEL_DIR cannot be written", "MODEL_DIR's disk is full", "the log's disk is full"}
    cases = [case for case in [*(BROKEN[::3] if quick else BROKEN), *WORKING] if can_mount or case.name not in needs_mount]
    cases = [case for case in cases if not quick or case.check != "engine" or case.works or not case.name.startswith(("a secondary", "an engine that"))]
    return selected(cases, lambda case: case.name)


def agree(quick: bool = False) -> Measure:
    judged = judge(here(quick), [])
    problems = [text for one in judged for text in one.problems]
    broken = sum(not one.case.works for one in judged)
    return from_problems(f"{broken} broken set-ups and {len(judged) - broken} that work, {len(problems)} disagreements", problems)


def switched_off() -> Measure:
    """One check does not count: good only if its case is not noticed."""
    off = [case for case in BROKEN if case.check == "places"]
    judged = judge(off, ["--ignore", "places"])
    problems = [text for one in judged for text in one.problems if "the doctor's status is 0" in text]
    return Measure(f"{len(problems)} of {len(off)} cases were noticed", len(problems) < len(off), notes=problems)
