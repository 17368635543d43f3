"""A container as Kubernetes makes one, as far as a program can see: a root folder that is mounted read-only, a user that no
file names, no capabilities, processes of its own, and the volumes that it is given.

Used by tests/checks and tests/e2e, as root only. Every mount is made in a namespace that ends with the program, on folders
of that namespace: no mount of the machine's is changed, and nothing stays behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness import compile, paths

USER = 12345
# Where the namespace has its root; empty outside of it.
ROOT = paths.CACHE / "pod"
# What Docker's and containerd's default profiles refuse to a container without capabilities, of what an engine may try.
DEFAULT_PROFILE = ("EPERM", "io_uring_setup,unshare,mount,fsopen,setns,userfaultfd,perf_event_open,bpf")
# Of /etc what programs need, so that a volume may be mounted there; no user is named.
SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "etc/alternatives", "etc/ssl", "etc/ld.so.cache", "etc/hosts", "etc/resolv.conf")

# Arguments: the root, the user, triples of volumes (from, to, ro or rw), `--`, the folders to show as they are, `--`, the
# program. Volumes come first: the project may lie below a place where a container has one, such as /tmp.
SCRIPT = r"""
set -e
root=$1 user=$2; shift 2
mount -t tmpfs -o mode=755 none "$root"
mkdir "$root/proc" "$root/dev" "$root/before"
mount -t proc proc "$root/proc"
show() { mkdir -p "$root$2"; mount --bind "$1" "$root$2"; [ "$3" = rw ] || mount -o remount,bind,ro "$root$2"; }
while [ "$1" != -- ]; do show "$1" "$2" "$3"; shift 3; done
shift
while [ "$1" != -- ]; do
  mkdir -p "$root${1%/*}"
  if [ -L "$1" ]; then cp -P "$1" "$root$1"; elif [ -d "$1" ]; then show "$1" "$1" ro; elif [ -e "$1" ]; then cp "$1" "$root$1"; fi
  shift
done
shift
for device in null zero full random urandom; do : > "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
mount -o remount,bind,ro "$root"
# No chroot: a process in one may make no user namespace, but one in a container may.
cd "$root"
pivot_root . before
umount -l /before
exec setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""

# The first process: runs the program, then waits for the engine, which would be killed with it.
FIRST = '"$@"; status=$?; while grep -qsx ossc /proc/[0-9]*/comm; do sleep 0.1; done; exit $status'


@dataclass(frozen=True)
class Volume:
    """A folder of the machine, and where the container has it."""

    outside: Path
    inside: str
    writable: bool = True


def shown() -> list[str]:
    """Folders of the machine that every container has, read-only: the system, the interpreter, the project."""
    found = [*(f"/{name}" for name in SYSTEM), sys.base_prefix, str(paths.ROOT)]
    return [*found, *([str(paths.TARGET)] if not paths.TARGET.is_relative_to(paths.ROOT) else [])]


def argv(
    program: Sequence[str], env: dict[str, str], volumes: Sequence[Volume], *, is_confined: bool = False, has_network: bool = True, user: int = USER,
) -> list[str]:
    """The command that runs a program in a container of its own. `is_confined`: under a runtime's default seccomp profile."""
    if os.geteuid() != 0:
        raise PermissionError("containers can be made by root only")
    ROOT.mkdir(parents=True, exist_ok=True)
    spaces = ["--mount", "--pid", "--fork", "--ipc", "--propagation", "private", *([] if has_network else ["--net"])]
    given = [word for volume in volumes for word in (str(volume.outside), volume.inside, "rw" if volume.writable else "ro")]
    # The library is for the program, not for those that lead there.
    settings = ["env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C.UTF-8", *(f"{name}={value}" for name, value in env.items())]
    confined = [str(compile.program("refuse.c")), *DEFAULT_PROFILE] if is_confined else []
    return [
        "unshare", *spaces, "sh", "-c", SCRIPT, "pod", str(ROOT), str(user), *given, "--", *shown(), "--",
        *confined, "sh", "-c", FIRST, "first", *settings, *program,
    ]


def start(program: Sequence[str], env: dict[str, str], volumes: Sequence[Volume], **how: Any) -> subprocess.Popen[str]:
    """Starts a program in a container; `end` ends all that is in it."""
    command = argv(program, env, volumes, **how)
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def end(process: subprocess.Popen[str]) -> None:
    """Kills the first process of a container, and with it the engine and every other one; its user changes, so that it does
    not end with the one that started it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def call(program: Sequence[str], env: dict[str, str], volumes: Sequence[Volume], secs_max: float, **how: Any) -> subprocess.CompletedProcess[str]:
    """Runs a program in a container to its end, and waits for its engine."""
    process = start(program, env, volumes, **how)
    try:
        out, err = process.communicate("", timeout=secs_max)
    except subprocess.TimeoutExpired:
        end(process)
        raise
    return subprocess.CompletedProcess(program, process.returncode, out, err)
