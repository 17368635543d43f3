"""Programs that check data against a sum of their own, or against the original: coreutils, tar, rsync, unzip, git."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

from tests.suites import Outcomes, Suite, Way

REPOSITORY = "pack.git"
ARCHIVE = "archive.zip"
# Compared by tar and rsync with the original: type, size, times and bytes.
TREE = "tree"

# $F is the folder under test, $O the original, $W an empty folder.
SCRIPTS = {
    "sha256sum -c": '(cd "$O" && sha256sum tree/* tree/deep/*) > "$W/sums"; cd "$F" && sha256sum --quiet -c "$W/sums"',
    "md5sum < file": 'test "$(md5sum < "$F/tree/big.bin")" = "$(md5sum < "$O/tree/big.bin")"',
    "cmp": 'for f in tree/big.bin tree/odd.bin tree/deep/c.bin; do cmp "$F/$f" "$O/$f" || exit 1; done',
    "diff -r": 'diff -r "$O/tree" "$F/tree"',
    "tar -d": 'tar -cf "$W/tree.tar" -C "$O" tree && tar -df "$W/tree.tar" -C "$F"',
    "tar -d of its own": 'tar -cf "$W/tree.tar" -C "$F" tree && tar -df "$W/tree.tar" -C "$O"',
    "rsync -c": 'rsync -rtcn --out-format=%i:%n "$O/tree/" "$F/tree/" > "$W/list" && ! grep -v "^\\.d" "$W/list"',
    "rsync from it": 'rsync -rtc "$F/tree/" "$W/copy/" && diff -r "$W/copy" "$O/tree"',
    "rsync over a delta": 'mkdir "$W/copy" && head -c 3000000 "$O/tree/big.bin" > "$W/copy/big.bin" && '
                          'rsync --no-whole-file -c "$F/tree/big.bin" "$W/copy/" && cmp "$W/copy/big.bin" "$O/tree/big.bin"',
    "unzip -t": 'unzip -tq "$F/archive.zip"',
    "unzip": 'unzip -q "$F/archive.zip" -d "$W/out" && diff -r "$W/out/tree" "$O/tree"',
    "zip -T": 'zip -T "$F/archive.zip"',
    "git fsck": 'git --git-dir="$F/pack.git" fsck --full --strict --no-progress',
    "git verify-pack": 'git verify-pack "$F"/pack.git/objects/pack/*.pack',
    "git small windows": 'git --git-dir="$F/pack.git" -c core.packedGitWindowSize=64k -c core.packedGitLimit=1m fsck --full',
    "git clone": 'git clone -q --no-local "$F/pack.git" "$W/clone" && cmp "$W/clone/big.bin" "$O/tree/big.bin"',
    "git cat-file": 'git --git-dir="$F/pack.git" cat-file blob main:big.bin | cmp - "$O/tree/big.bin"',
}


def make(folder: Path) -> None:
    """Adds tree, archive and repository; its pack is far larger than what becomes a real file."""
    seeded = random.Random(5)
    tree = folder / TREE
    (tree / "deep").mkdir(parents=True)
    for name, size in {"big.bin": 9_000_001, "odd.bin": 1_100_003, "deep/c.bin": 2 << 20, "small.bin": 700}.items():
        (tree / name).write_bytes(seeded.randbytes(size))
    env = {
        "PATH": "/usr/bin:/bin", "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
           for what, value in (("NAME", "suite"), ("EMAIL", "suite@localhost"), ("DATE", "2024-01-01T00:00:00Z"))},
    }

    def call(*argv: str) -> None:
        subprocess.run(argv, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)

    call("zip", "-q", "-r", ARCHIVE, TREE)
    repository = ["git", f"--git-dir={REPOSITORY}", f"--work-tree={TREE}"]
    call("git", "init", "-q", "--bare", "--initial-branch=main", "--template=", REPOSITORY)
    call(*repository, "add", "-A")
    call(*repository, "commit", "-q", "-m", "Add the tree")
    call(*repository, "repack", "-q", "-a", "-d")
    (folder / REPOSITORY / "index").unlink()


def run(way: Way, name: str) -> Outcomes:
    way.env.update(F=str(way.folder), O=str(way.original), W=str(way.work), HOME=str(way.work), GIT_CONFIG_NOSYSTEM="1")
    done = way.call(["bash", "-c", SCRIPTS[name]], timeout=120)
    return {name: way.verdict(done)}


SUITE = Suite("tools", list(SCRIPTS), run, short=["sha256sum -c", "cmp", "tar -d", "rsync -c", "unzip -t", "git fsck"])
