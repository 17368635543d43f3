"""Fresh systems in folders: a Debian made by debootstrap, into which a package is installed and in which programs run.

Called by the bars "ship". Works as root only. Everything that is mounted is mounted in a namespace of
the program that runs, so that nothing stays behind; processes end by themselves.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.harness import paths
from tests.harness.run import plain_env

MIRROR = "http://deb.debian.org/debian"
CACHE = paths.CACHE / "roots"
# What the main job needs beside the C library; the smallest variant has none of it.
INCLUDED = "python3,ca-certificates,logrotate"
SECS_MAX = 300.0
ENGINE_SECS_MAX = 20.0
# What package managers and their tools write for themselves.
OWN_BOOKS = ("var/lib/dpkg", "var/lib/rpm", "var/lib/apt", "var/log/apt", "etc/dnf", "var/log/dpkg.log", "var/log/alternatives.log", "var/cache", "var/lib/logrotate", "tmp", "opt", "root", "proc", "dev")


def base(suite: str) -> Path:
    """The root of a Debian release as debootstrap leaves it; made once, and then only copied."""
    if os.geteuid() != 0:
        sys.exit("fresh roots can be made by root only")
    made = CACHE / suite
    if not made.exists():
        making = CACHE / f"{suite}.making"
        shutil.rmtree(making, ignore_errors=True)
        making.parent.mkdir(parents=True, exist_ok=True)
        argv = ["debootstrap", "--variant=minbase", f"--include={INCLUDED}", suite, str(making), MIRROR]
        done = subprocess.run(argv, env=plain_env(), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        making.rename(made)
    return made


class Root:
    """A copy of such a root; `kind` names who keeps its packages: dpkg inside, or rpm from outside."""

    def __init__(self, suite: str, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", "--reflink=auto", str(base(suite)), str(folder)], check=True)
        if kind == "rpm":
            # A root that rpm finds empty: none of Debian's books.
            self.rpm("--initdb")

    def path(self, inside: str) -> Path:
        return self.folder / inside.lstrip("/")

    def rpm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # Debian's rpm refuses to work without this word, since its own packages are dpkg's.
        argv = ["rpm", "--force-debian", "--root", str(self.folder), *arguments]
        return subprocess.run(argv, env=plain_env(), capture_output=True, text=True, check=False)

    def start(self, argv: list[str], env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """A program in the root, in a mount namespace with /proc and /dev."""
        prepare = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"'
        inside = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "LC_ALL": "C.UTF-8"}
        # The library is for the program in the root, not for those that lead there.
        variables = [f"{name}={value}" for name, value in {**inside, **(env or {})}.items()]
        return subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", prepare, str(self.folder), "env", "-i", *variables, *argv],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )

    def call(self, argv: list[str], env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        process = self.start(argv, env)
        out, err = process.communicate(timeout=SECS_MAX)
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def install(self, package: Path, *options: str) -> list[str]:
        """Installs or upgrades as the documents say; what went wrong."""
        if self.kind == "rpm":
            done = self.rpm("--upgrade", *options, str(package))
        else:
            shutil.copyfile(package, self.path("tmp") / package.name)
            done = self.call(["dpkg", *options, "-i", f"/tmp/{package.name}"], {"DEBIAN_FRONTEND": "noninteractive"})
        return [] if done.returncode == 0 else [f"{package.name} is not installed: {(done.stdout + done.stderr).strip()[-600:]}"]

    def remove(self, name: str, purge: bool = False) -> list[str]:
        done = self.rpm("--erase", name) if self.kind == "rpm" else self.call(["dpkg", "-P" if purge else "-r", name])
        return [] if done.returncode == 0 else [f"{name} is not removed: {(done.stdout + done.stderr).strip()[-600:]}"]

    def tree(self) -> set[str]:
        """Every path in the root but the package managers' own books."""
        found = set()
        for folder, folders, files in os.walk(self.folder):
            inside = os.path.relpath(folder, self.folder)
            folders[:] = [name for name in folders if os.path.normpath(f"{inside}/{name}") not in OWN_BOOKS]
            found |= {os.path.normpath(f"{inside}/{name}") for name in (*folders, *files)}
        return {path for path in found if not path.startswith(OWN_BOOKS)}

    def engines(self) -> list[int]:
        """Processes of the engine that is installed in this root."""
        found = []
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and os.readlink(f"/proc/{entry}/exe").removesuffix(" (deleted)").endswith(f"{self.folder}/usr/local/bin/ossc"):
                    found.append(int(entry))
            except OSError:
                continue
        return found

    def wait_engines_gone(self) -> list[str]:
        deadline = time.monotonic() + ENGINE_SECS_MAX
        while (left := self.engines()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return [f"an engine outlived its clients: pid {pid}" for pid in left]
