"""Both packages at home in fresh roots: what bar `ship 2` does.

Installs as the documents say, runs the main job from inside, has a real server served from the
installed library, upgrades over an edited configuration, removes, and looks at what is left.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dist.package import abi, assemble, crates
from dist.package.roots import Root
from tests.checks import consumers
from tests.harness import load, models, paths
from tests.harness.endpoint import ACCESS_KEY_ID, ACCESS_KEY_SECRET, REGION, Endpoint
from tests.harness.measure import Measure, from_problems
from tests.harness.requestlog import once_problems
from tests.harness.run import plain_env

OUT = paths.ROOT / "target" / "package"
SCRATCH = paths.CACHE / "ship"
# The release that the documents name, and the oldest one that Debian still serves: glibc 2.36 and 2.31.
SUITE, OLD_SUITE = "bookworm", "bullseye"
CONFIG = "etc/oss-connector/config.json"
LOGROTATE = "etc/logrotate.d/oss-connector-lib"
LOGS = "var/log/oss-connector"
LIBRARY = "usr/local/lib/libossc_preload.so"
NEXT_VERSION = "99.0.0"
MODEL_DIR = "/srv/model"
SITE = "/opt/packages"
PACKAGES = ("numpy", "numpy.libs", "safetensors", "tokenizers")
# What stands in for the system's own packages in a root that rpm finds empty.
SYSTEM = {"glibc": "2.17", "libgcc": "4.8.5"}


@dataclass
class Made:
    """A package, and one of the next version whose default configuration is another."""

    kind: str
    now: Path
    later: Path


def make_package(kind: str, version: str, folder: Path, config_changes: bool) -> Path:
    """The products of dist/build once more, under another version and with another default configuration."""
    shutil.copytree(OUT / "stage", folder / "stage")
    shutil.copytree(OUT / "products", folder / "products")
    if config_changes:
        config = json.loads((folder / "stage" / "config.json").read_text())
        (folder / "stage" / "config.json").write_text(json.dumps({**config, "expireTimeSec": 240}, indent=4))
    return next(p for p in assemble.package(folder, version, (kind,)))


def make(kind: str, scratch: Path) -> Made:
    later = make_package(kind, NEXT_VERSION, scratch / "later", True)
    return Made(kind, OUT / f"{assemble.NAME}-{crates.version()}.x86_64.{kind}", later)


def fresh(kind: str, suite: str, folder: Path) -> tuple[Root, list[str]]:
    """A root that has what the package asks for, and was refused it while it had not."""
    root = Root(suite, kind, folder)
    problems: list[str] = []
    if kind == "rpm":
        refused = root.install(OUT / f"{assemble.NAME}-{crates.version()}.x86_64.rpm")
        if not refused or "glibc" not in refused[0] or "libgcc" not in refused[0]:
            problems.append(f"rpm installs into a root without glibc and libgcc: {refused}")
        for name, version in SYSTEM.items():
            description = folder.parent / f"{name}.yaml"
            description.write_text(f"name: {name}\narch: amd64\nversion: {version}\nmaintainer: none\ndescription: stands in\n")
            target = folder.parent / f"{name}.rpm"
            subprocess.run(
                [assemble.nfpm(), "package", "-f", str(description), "-p", "rpm", "-t", str(target)],
                check=True, stdout=subprocess.DEVNULL,
            )
            problems += root.install(target)
    return root, problems


def verification_problems(root: Root) -> list[str]:
    """The documents' command, and what the installed command says of itself."""
    command = f"nm -D {root.path(LIBRARY)} | grep version"
    shown = subprocess.run(["sh", "-c", command], env=plain_env(), capture_output=True, text=True, check=False).stdout
    version = crates.version()
    problems = []
    if f"ossc_version_{version.replace('.', '_')}\n" not in shown:
        problems.append(f"`{command}` does not show {version}: {shown!r}")
    said = root.call(["ossc", "--version"])
    if said.stdout.strip() != f"ossc {version}":
        problems.append(f"ossc --version says {said.stdout!r} {said.stderr!r}")
    return problems


def preload_env(endpoint: Endpoint, prefix: str) -> dict[str, str]:
    """The documents' variables, as for a program inside the root; the configuration is the installed one."""
    return {
        "LD_PRELOAD": f"/{LIBRARY}", "ENABLE_CONNECTOR": "1", "OSS_ENDPOINT": endpoint.url, "OSS_REGION": REGION,
        "OSS_ACCESS_KEY_ID": ACCESS_KEY_ID, "OSS_ACCESS_KEY_SECRET": ACCESS_KEY_SECRET,
        "OSS_PATH": f"oss://{paths.BUCKET}/{prefix}/", "MODEL_DIR": MODEL_DIR,
    }


def bring_packages(root: Root) -> None:
    """The model libraries of target/venv, which are for the same Python as Debian's in the root."""
    inside = root.call(["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).stdout.strip()
    site = paths.CACHE / "venv" / "lib" / f"python{inside}" / "site-packages"
    if not site.exists():
        raise RuntimeError(f"target/venv is not for Python {inside}, which {SUITE} has: build it with that one")
    for name in PACKAGES:
        if (site / name).exists():
            shutil.copytree(site / name, root.path(SITE) / name)


def job_problems(root: Root, endpoint: Endpoint, model: str) -> list[str]:
    """The demo's load inside the root; the verification outside, without the library."""
    bring_packages(root)
    shutil.copyfile(load.LOADER, root.path("/opt/load_model.py"))
    root.path(MODEL_DIR).mkdir(parents=True)
    endpoint.forget()
    env = {**preload_env(endpoint, model), "PYTHONPATH": SITE}
    done = root.call(["python3", "/opt/load_model.py", MODEL_DIR, "--out", "/opt/report.json", "--all-files"], env)
    problems = root.wait_engines_gone()
    if done.returncode != 0:
        return [*problems, f"the program ended with status {done.returncode}: {done.stderr[-600:]}"]
    equal, text = load.verify(root.path("/opt/report.json"), model)
    print(f"    {root.kind}: {text}", flush=True)
    problems += [] if equal else [text]
    problems += once_problems(endpoint.requests(), models.sizes(model))
    return problems + log_problems(root)


def log_problems(root: Root) -> list[str]:
    """The installed configuration was read, and logrotate can take what was written."""
    problems = []
    log, audit = root.path(LOGS) / "connector.log", root.path(LOGS) / "audit.log"
    if not log.exists() or "engine started" not in log.read_text() or not audit.exists():
        return [f"the engine has not written to /{LOGS}, where the installed configuration says"]
    done = root.call(["logrotate", "--force", f"/{LOGROTATE}"])
    if done.returncode != 0 or done.stderr.strip():
        problems.append(f"logrotate: status {done.returncode}: {done.stderr[-300:]}")
    if log.stat().st_size != 0 or not list(root.path(LOGS).glob("connector.log.1*")):
        problems.append("logrotate has not rotated the log")
    return problems


def read_problems(root: Root, endpoint: Endpoint, model: str) -> list[str]:
    """A smaller job for a root whose Python is too old for the model libraries: every file, read and mapped."""
    shutil.copyfile(paths.APPS / "read_all.py", root.path("/opt/read_all.py"))
    root.path(MODEL_DIR).mkdir(parents=True)
    names = sorted(str(p.relative_to(models.folder(model))) for p in models.folder(model).rglob("*") if p.is_file())
    problems = []
    for way in ("read", "map", "stdio"):
        got = root.call(["python3", "/opt/read_all.py", way, *(f"{MODEL_DIR}/{n}" for n in names)], preload_env(endpoint, model))
        argv = ["python3", str(paths.APPS / "read_all.py"), way, *(str(models.folder(model) / n) for n in names)]
        plain = subprocess.run(argv, env=plain_env(), capture_output=True, text=True, check=True)
        left = {Path(k).name: v for k, v in json.loads(plain.stdout).items()}
        right = {Path(k).name: v for k, v in json.loads(got.stdout or "{}").items()}
        if left != right:
            problems.append(f"{root.kind} {way}: {got.stderr[-300:]} {right}")
    return problems + root.wait_engines_gone()


def keeping_problems(root: Root, made: Made, before: set[str]) -> list[str]:
    """Upgrade over an edited configuration, then removal."""
    problems = []
    edited = root.path(CONFIG).read_text().replace('"expireTimeSec": 120', '"expireTimeSec": 77')
    root.path(CONFIG).write_text(edited)
    # dpkg asks a person which of two changed files to keep; without one the option answers.
    problems += root.install(made.later, *(["--force-confold"] if root.kind == "deb" else []))
    if "77" not in edited or not root.path(CONFIG).exists() or root.path(CONFIG).read_text() != edited:
        problems.append(f"the upgrade has not kept the edited {CONFIG}")
    problems += root.remove(assemble.NAME)
    # dpkg keeps every configuration file until it is told to purge; rpm only what was edited.
    configuration = (CONFIG, f"{CONFIG}.dpkg-dist", LOGROTATE) if root.kind == "deb" else (f"{CONFIG}.rpmsave", f"{CONFIG}.rpmnew")
    problems += left_problems(root, before, configuration)
    kept = root.path(CONFIG) if root.kind == "deb" else root.path(f"{CONFIG}.rpmsave")
    if not kept.exists() or kept.read_text() != edited:
        problems.append(f"the removal has not kept the edited {CONFIG}")
    if root.kind == "deb":
        problems += root.remove(assemble.NAME, purge=True)
        problems += left_problems(root, before, ())
    if root.path("etc/ld.so.preload").exists():
        problems.append("there is an /etc/ld.so.preload")
    return problems


def left_problems(root: Root, before: set[str], configuration: tuple[str, ...]) -> list[str]:
    """What was not there before and is neither log, model folder nor one of these; and what is there no more."""
    after = root.tree()
    mine = {path for path in after - before if not path.startswith((LOGS, MODEL_DIR.lstrip("/")))}
    mine -= {*configuration, *(str(Path(path).parent) for path in configuration)}
    return [f"left behind: {path}" for path in sorted(mine)] + [
        f"removed with the package: {path}" for path in sorted(before - after)
    ]


@contextmanager
def installed(root: Root) -> Iterator[None]:
    """Lets everything that starts programs under the library take the installed one."""
    built = paths.PRELOAD, paths.OSSC
    paths.PRELOAD, paths.OSSC = root.path(LIBRARY), root.path("usr/local/bin/ossc")
    try:
        yield
    finally:
        paths.PRELOAD, paths.OSSC = built


def native_server() -> consumers.Answer:
    """What vLLM completes from the plain folder."""
    if not consumers.VLLM_PYTHON.exists():
        sys.exit(f"{consumers.VLLM_PYTHON} is missing: run ci/setup vllm first")
    expected = consumers.native(consumers.SERVER, consumers.model_folder())
    if expected.error:
        sys.exit(f"vLLM does not serve the plain folder: {expected.error}")
    print(f"  vLLM from the plain folder: {expected.secs:.0f} s: {json.dumps(expected.found)[:200]}", flush=True)
    return expected


def server_problems(root: Root, expected: consumers.Answer) -> list[str]:
    """vLLM's completions from the installed library against those from the plain folder."""
    with installed(root), consumers.serving() as endpoint:
        wrong, got = consumers.judge(endpoint, consumers.SERVER, expected, {"materializeBytes": 0}, consumers.model_folder())
    print(f"    {root.kind}: vLLM {got.secs:.0f} s: {json.dumps(got.found)[:200]}", flush=True)
    return [f"vLLM: {w}" for w in wrong]


def lint_problems(kind: str, package: Path) -> list[str]:
    """What the distributions' own checkers find beyond what is explained beside dist/nfpm.yaml."""
    if kind == "deb":
        argv = ["lintian", "--allow-root", "--display-info", "--fail-on", "error,warning,info", str(package)]
    else:
        argv = ["rpmlint", "--config", str(paths.ROOT / "dist" / "rpmlint.toml"), str(package)]
    done = subprocess.run(argv, env=plain_env(), capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    found = [line for line in lines if ": E: " in line or ": W: " in line or line.startswith(("E: ", "W: ", "I: "))]
    if done.returncode != 0 and not found:
        found = lines[-5:]
    return [f"{argv[0]}: {line}" for line in found]


def one_kind(kind: str, scratch: Path, endpoint: Endpoint, model: str, expected: consumers.Answer) -> list[str]:
    made = make(kind, scratch)
    problems = lint_problems(kind, made.now)
    root, wrong = fresh(kind, SUITE, scratch / "root")
    before = root.tree()
    refused = root.install(made.now)
    problems += wrong + refused
    if refused:
        return problems
    problems += verification_problems(root)
    for product in abi.promise()["files"]:
        inside = LIBRARY if product == abi.LIBRARY else "usr/local/bin/ossc"
        if root.path(inside).read_bytes() != (OUT / "products" / product).read_bytes():
            problems.append(f"{inside} is not what was built")
    problems += job_problems(root, endpoint, model)
    problems += server_problems(root, expected)
    return problems + keeping_problems(root, made, before)


def at_home() -> Measure:
    expected = native_server()
    # Packages of this very commit.
    subprocess.run([str(paths.ROOT / "dist" / "build")], check=True, env=plain_env(), stdout=subprocess.DEVNULL)
    problems: list[str] = []
    model = models.ensure("gt-minilm")
    for kind in assemble.FORMATS:
        with scratch_folder(kind) as scratch, Endpoint(paths.BUCKETS, scratch) as endpoint:
            wrong = one_kind(kind, scratch, endpoint, model, expected)
            problems += [f"{kind}: {w}" for w in wrong]
            print(f"  {kind} in a fresh {SUITE}: {'as promised' if not wrong else wrong}", flush=True)
    with scratch_folder("old") as scratch, Endpoint(paths.BUCKETS, scratch) as endpoint:
        old, wrong = fresh("deb", OLD_SUITE, scratch / "root")
        wrong += old.install(OUT / f"{assemble.NAME}-{crates.version()}.x86_64.deb") or read_problems(old, endpoint, model)
        problems += [f"{OLD_SUITE}: {w}" for w in wrong]
        print(f"  deb in a fresh {OLD_SUITE}: {'as promised' if not wrong else wrong}", flush=True)
    return from_problems(f"deb and rpm in {SUITE} with vLLM, deb in {OLD_SUITE}", problems)


@contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=SCRATCH) as scratch:
        yield Path(scratch)


def at_home_control() -> Measure:
    """The checks of version, configuration and removal on packages that break all; fails when each was noticed in each kind."""
    blind, notes = [], []
    for kind in assemble.FORMATS:
        with scratch_folder(kind) as scratch:
            description = (paths.ROOT / "dist" / "nfpm.yaml").read_text()
            broken = scratch / "broken.yaml"
            description = description.replace("type: config|noreplace, ", "")
            broken.write_text(description.replace("scripts:\n", "scripts:\n  postinstall: stage/postinstall.sh\n"))
            make(kind, scratch)
            (scratch / "later" / "stage" / "postinstall.sh").write_text("#!/bin/sh\n: > /etc/ld.so.preload\n")
            library = scratch / "later" / "products" / abi.LIBRARY
            bad = library.read_bytes().replace(b"ossc_version_" + crates.version().replace(".", "_").encode(), b"ossc_version_9_9_9")
            library.write_bytes(bad)
            shutil.copytree(scratch / "later", scratch / "again")
            now = assemble.package(scratch / "later", crates.version(), (kind,), broken)[0]
            later = assemble.package(scratch / "again", NEXT_VERSION, (kind,), broken)[0]
            root, wrong = fresh(kind, SUITE, scratch / "root")
            before = root.tree()
            wrong += root.install(now)
            version = verification_problems(root)
            keeping = keeping_problems(root, Made(kind, now, later), before)
            notes += [f"{kind}: {w[:160]}" for w in wrong + version + keeping]
            if not any("does not show" in w for w in version):
                blind.append(f"{kind}: the other version was not noticed")
            if not any("has not kept" in w for w in keeping):
                blind.append(f"{kind}: the overwritten configuration was not noticed")
            if not any("ld.so.preload" in w for w in keeping) or not any("left behind" in w for w in keeping):
                blind.append(f"{kind}: an /etc/ld.so.preload was not noticed")
    return Measure(f"noticed {len(notes)} faults", bool(blind), "", blind + notes)
