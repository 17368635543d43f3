"""A folder that no program has used yet is met by another name first: each call waits for its listing all the same."""

from __future__ import annotations

import subprocess
import unittest
from pathlib import Path
from typing import Any, ClassVar

from tests.e2e.base import PREFIX, EndToEnd, can_unshare
from tests.harness import compile as compiler
from tests.harness import paths
from tests.harness.run import Run, plain_env
from tests.harness.space import Space

SIZE = 10_000
# More than are listed ahead of their use.
COLD = 60
CONFIG = {"materializeBytes": 4096}
# How a program meets an object, given by its path.
WAYS = {
    "open": 'cat "$1"',
    "stat": 'stat -c %s "$1"',
    "access": 'env test -r "$1"; echo $?',
    "readlink": 'LC_ALL=C readlink -v "$1" 2>&1 | sed "s/.*: //"',
    "opendir": 'ls "${1%/*}"',
    "exec": 'env "$1" 2>/dev/null; echo $?',
    "working folder": 'cd "${1%/*}" && cat a.bin',
}
# The name of folder F's object where $B is a bind mount of MODEL_DIR, $M is MODEL_DIR, $L a symbolic link to the bind mount.
NAMES = {
    "bind mount": "$B/F/a.bin",
    "bind mount of the folder": "$O/F/a.bin",
    "symbolic link": "$L/F/a.bin",
    "descriptor": "/proc/self/fd/9/F/a.bin",
    "working folder": "F/a.bin",
    "detour": "$B/F/../../bound/F/a.bin",
}
OPENAT = """
import os, sys
at = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY if sys.argv[3] == "read" else os.O_PATH)
print(len(os.read(os.open(sys.argv[2], os.O_RDONLY, dir_fd=at), 1 << 20)), os.stat(sys.argv[2], dir_fd=at).st_size)
"""
# A client goes to a root folder in which nothing has the name that it had.
CHROOT = """
import os, sys
os.close(os.open(sys.argv[1] + "/top.bin", os.O_RDONLY))
os.chroot(sys.argv[1] + sys.argv[3])
print(os.stat(sys.argv[2]).st_size, len(open(sys.argv[2], "rb").read()), os.listdir(os.path.dirname(sys.argv[2])))
"""


@unittest.skipUnless(can_unshare(), "needs root")
class OtherNames(EndToEnd):
    faults: ClassVar[list[dict[str, Any]] | None] = [{"match": {"kind": "list", "prefix": f"{PREFIX}/late/"}, "do": {"delay_ms": 1500}}]

    folders: ClassVar[list[str]] = [f"f{number:02d}" for number in range(COLD)]

    def setUp(self) -> None:
        super().setUp()
        for name in self.folders:
            (self.plain / name).mkdir(exist_ok=True)
            (self.plain / name / "a.bin").write_bytes(name.encode() * (SIZE // len(name)))
        (self.plain / "late/deep").mkdir(parents=True, exist_ok=True)
        (self.plain / "late/deep/a.bin").write_bytes(b"d" * SIZE)
        (self.plain / "top.bin").write_bytes(b"t" * SIZE)

    def living(self, wrap: list[str]) -> tuple[Run, Space]:
        """A managed folder whose engine lives, and a namespace in which it has other names."""
        run = self.managed(CONFIG)
        self.cold = iter(self.folders)
        holder = run.start([*wrap, "env", f"LD_PRELOAD={run.env()['LD_PRELOAD']}", "sh", "-c", "cat $MODEL_DIR/top.bin && exec sleep 60"], run.env(LD_PRELOAD=None), stdout=subprocess.PIPE)
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        assert holder.stdout is not None
        self.addCleanup(holder.stdout.close)
        self.assertEqual(len(holder.stdout.read(SIZE)), SIZE, run.log_tail())
        (run.dir / "bound").mkdir()
        (run.dir / "link").symlink_to("bound")
        space = Space(
            f"mount --bind {run.model_dir} {run.dir}/bound; for f in {run.model_dir}/f*; do f=${{f##*/}}; mkdir -p {run.dir}/one/$f; mount --bind {run.model_dir}/$f {run.dir}/one/$f; done"
        )
        self.addCleanup(space.close)
        return run, space

    def call(self, run: Run, space: Space, argv: list[str], cwd: Path | None = None) -> tuple[bytes, str]:
        enter = [] if cwd is None else [f"--chdir={cwd}"]
        done = run.call([*space.prefix, "env", *enter, f"LD_PRELOAD={run.env()['LD_PRELOAD']}", *argv], run.env(LD_PRELOAD=None))
        return done.stdout, done.stderr.decode() + run.log_tail(8)

    def test_each_call_by_each_name_waits_for_the_listing(self) -> None:
        """Also where the folder has no mark that says whose it is."""
        for marks, wrap in (("marked", []), ("no marks", [str(compiler.program("refuse.c")), "EPERM", "marks"])):
            run, space = self.living(wrap)
            roots = {"$B": run.dir / "bound", "$O": run.dir / "one", "$L": run.dir / "link"}
            for name, path in NAMES.items():
                for way, script in WAYS.items():
                    cold = next(self.cold)
                    met = path.replace("F", cold)
                    for word, root in roots.items():
                        met = met.replace(word, str(root))
                    with self.subTest(marks=marks, name=name, way=way):
                        whole = f'exec 9<{run.dir}/bound; {script}'
                        got, said = self.call(run, space, ["sh", "-c", whole, "sh", met], run.dir / "bound")
                        local = subprocess.run(["sh", "-c", script, "sh", str(self.plain / cold / "a.bin")], env=plain_env(), capture_output=True, check=False)
                        self.assertEqual(got, local.stdout, said)

    def test_a_name_below_a_descriptor_of_the_bound_folder(self) -> None:
        run, space = self.living([str(compiler.program("refuse.c")), "EPERM", "marks"])
        for how in ("read", "path"):
            for base, name in ((run.dir / "bound", "{}/a.bin"), (run.dir / "one", "{}/a.bin"), (run.dir, "bound/{}/../../link/{}/a.bin")):
                with self.subTest(how=how, name=name, base=base.name):
                    cold = next(self.cold)
                    got, said = self.call(run, space, [str(paths.VENV_PYTHON), "-c", OPENAT, str(base), name.format(cold, cold), how])
                    self.assertEqual(got.decode().split(), [str((self.plain / cold / "a.bin").stat().st_size)] * 2, said)

    def test_a_client_that_has_changed_its_root(self) -> None:
        run, space = self.living([str(compiler.program("refuse.c")), "EPERM", "marks"])
        for root, name in (("", "/{}/a.bin"), ("/{}", "/a.bin"), ("/..", "/bound/{}/a.bin")):
            with self.subTest(root=root):
                cold = next(self.cold)
                got, said = self.call(run, space, [str(paths.VENV_PYTHON), "-c", CHROOT, str(run.model_dir), name.format(cold), root.format(cold)])
                self.assertEqual(got.decode(), f"{(self.plain / cold / 'a.bin').stat().st_size} {(self.plain / cold / 'a.bin').stat().st_size} ['a.bin']\n", said)

    def test_a_folder_that_the_catalog_does_not_have_yet(self) -> None:
        """The folder above it is still to be listed, and the program is a client already; then an unmarked file in it."""
        for what in ("folder", "file"):
            run = self.managed(CONFIG)
            (run.model_dir / "late/deep").mkdir(parents=True)
            if what == "file":
                (run.model_dir / "late/deep/a.bin").touch()
            (run.dir / "bound").mkdir()
            for before in ("", "head -c 1 top.bin >/dev/null; "):
                with self.subTest(what=what, before=before), Space(f"mount --bind {run.model_dir} {run.dir}/bound") as space:
                    script = f"{before}cat late/deep/a.bin"
                    got, said = self.call(run, space, ["bash", "-c", script], run.dir / "bound")
                    self.assertEqual(got, b"d" * SIZE, said)
                run.kill_engines()
                for left in run.model_dir.glob("late/deep/*"):
                    left.unlink()
                if what == "file":
                    (run.model_dir / "late/deep/a.bin").touch()


if __name__ == "__main__":
    unittest.main()
