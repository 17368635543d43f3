"""A mount or network namespace of its own with whatever is set up in it, for programs that are started into it.

Used by the bars "bytes" and "survive". Mounts, loop devices and file system servers live as long as the namespace; nothing
that is mounted on the machine is touched, since the namespace is private. Needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.harness.run import plain_env

READY_SECS_MAX = 30.0

# Shell lines that mount a file system at $AT; $S is a folder for its image or layers.
_LOOP = "truncate -s {size} $S/image; {make} $S/image; mount -o loop $S/image $AT"
_LAYERS = "mkdir -p $S/low/model $S/up; {upper} mkdir $S/up/u $S/up/w; mount -t overlay o -o lowerdir=$S/low,upperdir=$S/up/u,workdir=$S/up/w{option} $AT"
FILE_SYSTEMS = {
    "ext4": _LOOP.format(size="64M", make="mkfs.ext4 -q -F"),
    "tmpfs": "mount -t tmpfs none $AT",
    "ramfs": "mount -t ramfs none $AT",
    "xfs": _LOOP.format(size="320M", make="mkfs.xfs -q -f"),
    "btrfs": _LOOP.format(size="128M", make="mkfs.btrfs -q -f"),
    "overlay on two": _LAYERS.format(upper="mount -t tmpfs none $S/up;", option=""),
    "overlay with xino": _LAYERS.format(upper="mount -t tmpfs none $S/up;", option=",xino=on"),
    "overlay on one": _LAYERS.format(upper="", option=""),
    "fuse": "mkdir $S/low; bindfs -f $S/low $AT & JOBS=$!; until mountpoint -q $AT; do sleep 0.02; done",
    "9p": "mkdir $S/low; false",
    "nfs": "mkdir $S/low; false",
}
# What a kind needs beside a kernel that knows it: a program, or a word of /proc/filesystems.
_NEEDS = {
    "ext4": "mkfs.ext4", "xfs": "mkfs.xfs", "btrfs": "mkfs.btrfs", "fuse": "bindfs", "9p": "9p", "nfs": "nfs4",
}


def why_not(kind: str) -> str:
    """Why a file system of this kind cannot be had here; empty when it can."""
    need = _NEEDS.get(kind, "")
    if kind in ("9p", "nfs"):
        known = Path("/proc/filesystems").read_text().split()
        return f"this kernel has no {need}" if need not in known else f"{kind}: no server is set up by this bar"
    if need and shutil.which(need) is None:
        return f"{need} is missing: run ci/setup bytes"
    return "mounting needs root" if os.geteuid() != 0 else ""


def mounted(kind: str, at: Path, scratch: Path) -> str:
    """Shell lines that mount a file system of this kind at `at`."""
    scratch.mkdir(parents=True, exist_ok=True)
    at.mkdir(parents=True, exist_ok=True)
    return f"S='{scratch}'; AT='{at}'; {FILE_SYSTEMS[kind]}"


class Space:
    """`with Space(shell lines) as space`: start programs with `[*space.prefix, ...]` in front."""

    def __init__(self, setup: str, outer: Space | None = None, kind: str = "mount") -> None:
        """`outer` is a namespace whose mounts are there too. `kind` is "mount" or "net"."""
        script = f"set -e; JOBS=; {{ {setup}; }} > /dev/null\necho ready; cat > /dev/null; [ -z $JOBS ] || kill $JOBS"
        argv = [*(outer.prefix if outer else []), "unshare", f"--{kind}", "sh", "-c", script]
        self.prefix: list[str] = []
        self._holder = subprocess.Popen(argv, env=plain_env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self._holder.stdout is not None and self._holder.stderr is not None
        if self._holder.stdout.readline() != b"ready\n":
            self._holder.kill()
            raise RuntimeError(f"{setup}: {self._holder.stderr.read().decode().strip()}")
        self.prefix = ["nsenter", f"--{kind}=/proc/{self._holder.pid}/ns/{'mnt' if kind == 'mount' else 'net'}", "--"]

    def __enter__(self) -> Space:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The namespace, and all mounts in it, end with the last process in it."""
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        try:
            self._holder.wait(READY_SECS_MAX)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            self._holder.wait()
