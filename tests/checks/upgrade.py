"""The package in place of the one that it replaces: what bar `operate 5` does.

In fresh roots of its own: a stand-in of the replaced package at the versions that are in use, an upgrade by each package
manager, a load with the variables that were set before, removal and purge. Nothing of the machine's own packages is touched.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dist.package import assemble, crates
from dist.package.roots import Root
from tests.checks import ship_roots
from tests.checks.ship_roots import CONFIG, LIBRARY, LOGS, MODEL_DIR, OUT, SUITE
from tests.harness import models, paths
from tests.harness.endpoint import Endpoint
from tests.harness.measure import Measure, from_problems
from tests.harness.run import plain_env

# What the page offers, and what its next version was called; 0.1.0 is lower than both.
REPLACED = ("1.1.0rc7", "1.2.0")
LOWER = "0.1.0"
REPOSITORY = "/opt/repository"
NO_QUESTIONS = {"DEBIAN_FRONTEND": "noninteractive"}
# dpkg asks a person which of two changed files to keep; without one this answers.
KEEP = ("--force-confold",)
# The page's own default configuration, and one that an administrator has changed.
DEFAULT = (paths.ROOT / "dist" / "config.json").read_text()
EDITED = DEFAULT.replace('"expireTimeSec": 120', '"expireTimeSec": 77')


@dataclass(frozen=True)
class Way:
    """One package manager: how it upgrades to a package that lies in the repository."""

    name: str
    kind: str
    upgrade: Callable[[Root, Path], subprocess.CompletedProcess[str]]


def dpkg(root: Root, package: Path) -> subprocess.CompletedProcess[str]:
    return root.call(["dpkg", *KEEP, "-i", f"{REPOSITORY}/{package.name}"], NO_QUESTIONS)


# Its own books lie in /opt, too: the root has those of Debian's repository.
APT_OPTIONS = ("Dir::Etc::sourcelist=/opt/only.list", "Dir::Etc::sourceparts=-", "Dir::State::lists=/opt/lists", f"Dpkg::Options::={KEEP[0]}")
APT = ["apt-get", "-y", *(word for option in APT_OPTIONS for word in ("-o", option))]


def apt(root: Root, package: Path) -> subprocess.CompletedProcess[str]:
    """By a repository, as an administrator who upgrades everything."""
    text = subprocess.run(["dpkg-deb", "-f", str(package)], check=True, capture_output=True, text=True).stdout
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    index = f"{text}Filename: ./{package.name}\nSize: {package.stat().st_size}\nSHA256: {digest}\n\n"
    (root.path(REPOSITORY) / "Packages").write_text(index)
    root.path("/opt/lists/partial").mkdir(parents=True, exist_ok=True)
    root.path("/opt/only.list").write_text(f"deb [trusted=yes] file:{REPOSITORY} ./\n")
    done = root.call([*APT, "update"], NO_QUESTIONS)
    return done if done.returncode else root.call([*APT, "upgrade"], NO_QUESTIONS)


def apt_file(root: Root, package: Path) -> subprocess.CompletedProcess[str]:
    """A file, as the page's reader has it."""
    return root.call([*APT, "install", f"{REPOSITORY}/{package.name}"], NO_QUESTIONS)


def rpm(root: Root, package: Path) -> subprocess.CompletedProcess[str]:
    return root.rpm("--upgrade", str(root.path(REPOSITORY) / package.name))


def dnf(root: Root, package: Path) -> subprocess.CompletedProcess[str]:
    """By a repository; dnf of this machine, with the books of the root alone."""
    repository, cache = root.path(REPOSITORY), root.folder.parent / "dnf"
    (cache / "log").mkdir(parents=True, exist_ok=True)
    subprocess.run(["createrepo_c", "--quiet", str(repository)], check=True, capture_output=True)
    options = {"cachedir": cache / "cache", "persistdir": cache / "persist", "logdir": cache / "log", "reposdir": "/nonexistent", "gpgcheck": 0}
    argv = [
        "dnf", "-y", f"--installroot={root.folder}", "--releasever=1", f"--repofrompath=ours,file://{repository}", "--repo=ours", "--refresh",
        *(f"--setopt={name}={value}" for name, value in options.items()), "upgrade", "--best", assemble.NAME,
    ]
    done = subprocess.run(argv, env=plain_env(), capture_output=True, text=True, check=False)
    # Some of its books it keeps below the root, by the same path.
    inside = root.path(str(cache))
    shutil.rmtree(inside, ignore_errors=True)
    for parent in inside.parents:
        if parent == root.folder or not parent.is_dir() or any(parent.iterdir()):
            break
        parent.rmdir()
    return done


WAYS = [Way("dpkg -i", "deb", dpkg), Way("apt-get upgrade", "deb", apt), Way("apt-get install FILE", "deb", apt_file), Way("rpm -U", "rpm", rpm), Way("dnf upgrade", "rpm", dnf)]


def stand_in(kind: str, version: str, folder: Path, is_conffile: bool) -> Path:
    """A package of the replaced one's name, places and version; what else is in that one is not known here."""
    folder.mkdir(parents=True)
    (folder / "library").write_text(f"the library of {version}\n")
    (folder / "config.json").write_text(DEFAULT)
    config = ", type: config" if is_conffile else ""
    (folder / "nfpm.yaml").write_text(
        f"name: {assemble.NAME}\narch: amd64\nplatform: linux\nversion: {version}\nversion_schema: none\n"
        "section: libs\npriority: optional\nmaintainer: none <none@example.com>\ndescription: stands in\nlicense: none\n"
        "rpm: { summary: stands in, group: none, buildhost: localhost }\n"
        "contents:\n"
        f"  - {{ src: library, dst: /{LIBRARY} }}\n"
        f"  - {{ src: config.json, dst: /{CONFIG}{config} }}\n"
        f"  - {{ dst: /{LOGS}, type: dir }}\n",
    )
    return assemble.package(folder, version, (kind,), folder / "nfpm.yaml")[0]


def installed_version(root: Root) -> str:
    """VERSION-RELEASE, empty where the package is not installed."""
    if root.kind == "rpm":
        done = root.rpm("--query", "--queryformat", "%{VERSION}-%{RELEASE}", assemble.NAME)
        return done.stdout if done.returncode == 0 else ""
    return root.call(["dpkg-query", "--show", "--showformat", "${Version}", assemble.NAME]).stdout


def upgrade_problems(root: Root, way: Way, package: Path, version: str) -> list[str]:
    """The upgrade itself: no refusal, no step down, the new files, the edited configuration."""
    shutil.rmtree(root.path(REPOSITORY), ignore_errors=True)
    root.path(REPOSITORY).mkdir()
    shutil.copyfile(package, root.path(REPOSITORY) / package.name)
    done = way.upgrade(root, package)
    said = done.stdout + done.stderr
    problems = [] if done.returncode == 0 else [f"refused with status {done.returncode}: {said.strip()[-400:]}"]
    # dpkg does what it is told, and says so.
    problems += [line for line in said.splitlines() if "downgrad" in line.lower()]
    if installed_version(root) != f"{version}-1":
        problems.append(f"{installed_version(root)!r} is installed, not {version}-1")
    if not root.path(CONFIG).exists() or root.path(CONFIG).read_text() != EDITED:
        problems.append(f"the edited {CONFIG} is not kept")
    return problems


def load_problems(root: Root, endpoint: Endpoint, model: str) -> list[str]:
    """What was upgraded serves the program that was set up before."""
    problems = ship_roots.verification_problems(root) + ship_roots.read_problems(root, endpoint, model)
    log = root.path(LOGS) / "connector.log"
    return problems + ([] if log.exists() and "engine started" in log.read_text() else [f"nothing was logged in /{LOGS}"])


def leaving_problems(root: Root, before: set[str]) -> list[str]:
    """Removal keeps configuration and logs; a purge leaves nothing, and no other system folder goes with it."""
    shutil.rmtree(root.path(MODEL_DIR), ignore_errors=True)
    (root.path(LOGS) / "connector.log.1.gz").write_bytes(b"rotated")
    root.path("/tmp/oss-connector-1000").mkdir(exist_ok=True)
    root.path("/tmp/oss-connector-1000/1-2.log").write_text("of a user without /run\n")
    problems = root.remove(assemble.NAME)
    if not (root.path(LOGS) / "connector.log").exists():
        problems.append("the removal has taken the log along")
    kept = root.path(CONFIG) if root.kind == "deb" else root.path(f"{CONFIG}.rpmsave")
    if not kept.exists() or kept.read_text() != EDITED:
        problems.append(f"the removal has not kept the edited {CONFIG}")
    if root.kind == "deb":
        problems += root.remove(assemble.NAME, purge=True)
    else:
        # rpm knows no purge: what INSTALL.md says to remove.
        for left in (root.path(LOGS), root.path(CONFIG).parent):
            shutil.rmtree(left)
    after = root.tree()
    return problems + [f"left behind: {path}" for path in sorted(after - before)] + [f"taken along: {path}" for path in sorted(before - after)]


def one_upgrade(root: Root, way: Way, old: Path, endpoint: Endpoint, model: str) -> list[str]:
    before = root.tree()
    problems = root.install(old)
    root.path(CONFIG).write_text(EDITED)
    new = OUT / f"{assemble.NAME}-{crates.version()}.x86_64.{way.kind}"
    refused = upgrade_problems(root, way, new, crates.version())
    problems += refused or load_problems(root, endpoint, model)
    # The loader's files are the test's.
    root.path("/opt/read_all.py").unlink(missing_ok=True)
    return problems + leaving_problems(root, before)


def roots_of(kind: str, scratch: Path) -> tuple[Root, dict[str, Path]]:
    """A fresh root, and the stand-ins: with the configuration as an ordinary file, and as one that is kept."""
    root, wrong = ship_roots.fresh(kind, SUITE, scratch / "root")
    if wrong:
        raise RuntimeError(f"no root for {kind}: {wrong}")
    return root, {version: stand_in(kind, version, scratch / version, version == REPLACED[-1]) for version in REPLACED}


def replaces() -> Measure:
    subprocess.run([str(paths.ROOT / "dist" / "build")], check=True, env=plain_env(), stdout=subprocess.DEVNULL)
    return of_packages()


def of_packages() -> Measure:
    """With the packages that lie in target/package."""
    problems: list[str] = []
    model = models.ensure("gt-minilm")
    count = 0
    for kind in assemble.FORMATS:
        with ship_roots.scratch_folder(f"replaces-{kind}") as scratch, Endpoint(paths.BUCKETS, scratch) as endpoint:
            root, old = roots_of(kind, scratch)
            for way in (way for way in WAYS if way.kind == kind):
                for version, package in old.items():
                    wrong = one_upgrade(root, way, package, endpoint, model)
                    count += 1
                    print(f"  {way.name} from {version}: {'as promised' if not wrong else wrong}", flush=True)
                    problems += [f"{way.name} from {version}: {w}" for w in wrong]
    return from_problems(f"{count} upgrades from {' and '.join(REPLACED)} to {crates.version()}", problems)


def replaces_control() -> Measure:
    """The same files as version 0.1.0: each package manager refuses that, or says that it is a step down."""
    notes, blind = [], []
    for kind in assemble.FORMATS:
        with ship_roots.scratch_folder(f"lower-{kind}") as scratch:
            root, old = roots_of(kind, scratch)
            lower = ship_roots.make_package(kind, LOWER, scratch / "lower", False)
            problems = root.install(old[REPLACED[0]])
            root.path(CONFIG).write_text(EDITED)
            for way in (way for way in WAYS if way.kind == kind):
                found = upgrade_problems(root, way, lower, LOWER)
                notes += [f"{way.name}: {w[:200]}" for w in problems + found]
                if not found:
                    blind.append(f"{way.name} to {LOWER} was not noticed")
                if installed_version(root) == f"{LOWER}-1":
                    # dpkg goes down when it is told to: back for the next one.
                    root.remove(assemble.NAME)
                    root.install(old[REPLACED[0]])
                    root.path(CONFIG).write_text(EDITED)
    return Measure(f"noticed {len(notes)} faults", bool(blind), "", blind + notes)
