"""Programs of other users: one that may not reach MODEL_DIR runs as without the library, one that owns it is served."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import subprocess
import time
import unittest
from pathlib import Path
from typing import Any

from tests.e2e.base import EndToEnd
from tests.harness import paths

NOBODY = 65534
READS = """
def whole(path): return hashlib.sha256(open(path, "rb").read()).hexdigest()
def mapped(path):
    with open(path, "rb") as file: return hashlib.sha256(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)).hexdigest()
def streamed(path):
    c = ctypes.CDLL(None); c.fopen.restype = ctypes.c_void_p; c.fread.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
    room = ctypes.create_string_buffer(30 << 20)
    got = c.fread(room, 1, len(room), c.fopen(path.encode(), b"r"))
    return hashlib.sha256(room.raw[:got]).hexdigest()
"""
CHANGES = {
    "setuid": "os.setgroups([]); os.setgid(u); os.setuid(u)",
    "fork and setresuid": "child(); os.setgroups([]); os.setresgid(u, u, u); os.setresuid(u, u, u)",
    "seteuid": "os.seteuid(u)",
    "by number": "assert ctypes.CDLL(None).syscall(117, u, u, u) == 0",
    "setuid and fork": "os.setuid(u); child()",
    # Without /proc, in a folder that is listed.
    "chroot": "os.stat(d + '/nested/deep/c.bin'); os.chroot('ROOT'); os.chdir('/')",
}
PRELUDES = {
    "after reading": "open(d + '/b.bin', 'rb').read(10)",
    "before": "",
}
# A process of another user tries what it can of a client and of the engine.
FOREIGN = """
import os, sys
try: print("read", len(open(sys.argv[1], "rb").read()))
except OSError as error: print("read", error.errno)
opened = 0
for pid in sys.argv[2:]:
    try: names = [f"/proc/{pid}/fd/{n}" for n in os.listdir(f"/proc/{pid}/fd")]
    except OSError: names = [f"/proc/{pid}/fd/{n}" for n in range(3, 800)]
    for name in names:
        try: os.open(name, os.O_RDONLY); opened += 1
        except OSError: pass
print(opened, "opened")
"""
GONE_SECS_MAX = 10.0


class Privilege(EndToEnd):
    """As root the programs run as nobody; otherwise as the caller, who is no root either."""

    def reachable(self, name: str) -> Path:
        """Copies of library and engine that any user may load, wherever the sources lie."""
        folder = self.scratch / name
        folder.mkdir()
        for product in (paths.PRELOAD, paths.OSSC):
            shutil.copy2(product, folder / product.name)
        self.scratch.chmod(0o755)
        return folder

    def other(self) -> dict[str, Any]:
        return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}

    def test_a_child_that_gave_up_its_way_to_the_folder(self) -> None:
        run = self.managed()
        self.assertEqual(run.call(["cat", str(run.model_dir / "small.bin")]).returncode, 0)
        if os.getuid() != 0:
            mode = run.dir.stat().st_mode
            run.dir.chmod(0)
            self.addCleanup(run.dir.chmod, mode)
        program = f"import os; print(os.getuid() >= 0); open({str(run.model_dir / 'a.bin')!r})"
        env = run.env(1, LD_PRELOAD=str(self.reachable("child") / paths.PRELOAD.name))
        done = run.call(["/usr/bin/python3", "-c", program], env, cwd="/", **self.other())
        self.assertEqual(done.stdout, b"True\n", done.stderr)
        self.assertIn(b"oss connector: this user may not reach MODEL_DIR: going on without it\n", done.stderr)
        self.assertIn(b"PermissionError", done.stderr)
        self.assertEqual(done.returncode, 1)

    def test_a_user_without_privileges_has_an_engine(self) -> None:
        run = self.managed()
        if os.getuid() == 0:
            for path in (run.dir, run.model_dir, run.config_path):
                os.chown(path, NOBODY, NOBODY)
        folder = self.reachable("user")
        env = run.env(1, LD_PRELOAD=str(folder / paths.PRELOAD.name), XDG_RUNTIME_DIR=None)
        done = run.call(["cat", str(run.model_dir / "b.bin")], env, cwd="/", **self.other())
        self.assertEqual((done.returncode, done.stderr), (0, b""), run.log_tail())
        self.assertEqual(done.stdout, (self.plain / "b.bin").read_bytes())
        self.wait_gone(folder / paths.OSSC.name)

    def after(self, prelude: str, change: str, read: str, root: str = "", **changes: str | None) -> list[str]:
        """What a program prints that changes itself and then reads: for each file what `read` makes of it."""
        run = self.managed()
        for path in (run.dir, run.model_dir):
            path.chmod(0o755)
        # A program in another root finds the folder at its own path.
        inside = str(run.model_dir).removeprefix(root and str(run.dir))
        program = (
            f"import ctypes, hashlib, mmap, os, sys\nd, u = {str(run.model_dir)!r}, {NOBODY}\n{READS}\n"
            f"def child():\n    if os.fork(): sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
            f"{prelude}\n{change.replace('ROOT', str(run.dir))}\nd = {inside!r}\n"
            f"for name in ('b.bin', 'a.bin', 'nested/deep/c.bin', 'small.bin'): print({read}(d + '/' + name))\n"
        )
        env = run.env(1, LD_PRELOAD=str(self.reachable(f"after-{run.dir.name}") / paths.PRELOAD.name), **changes)
        done = run.call(["/usr/bin/python3", "-c", program], env, cwd="/", timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr.decode() + run.log_tail())
        self.assertEqual(done.stderr, b"")
        return done.stdout.decode().split()

    @unittest.skipUnless(os.getuid() == 0, "only root can become another user")
    def test_a_process_that_changes_its_user_keeps_what_it_could_read(self) -> None:
        names = ("b.bin", "a.bin", "nested/deep/c.bin", "small.bin")
        expected = [hashlib.sha256((self.plain / name).read_bytes()).hexdigest() for name in names]
        for (how, change), (when, prelude) in itertools.product(CHANGES.items(), PRELUDES.items()):
            for read, pages in (("whole", None), ("mapped", "memfd"), ("streamed", None), ("whole", "memfd")):
                with self.subTest(f"{how}, {when}, {read}, {pages}"):
                    root = "/" if how == "chroot" else ""
                    self.assertEqual(self.after(prelude, change, read, root, OSSC_PAGES=pages), expected)

    @unittest.skipUnless(os.getuid() == 0, "only root can become another user")
    def test_another_users_process_gets_no_further_than_before(self) -> None:
        """The engine still refuses a process of another user that does not come from a client."""
        run = self.managed()
        for path in (run.dir, run.model_dir):
            path.chmod(0o755)
        socket = run.dir / "socket"
        copies = self.reachable("foreign")
        env = run.env(1, LD_PRELOAD=str(copies / paths.PRELOAD.name), CONNECTOR_UDS_PATH=str(socket))
        client = "import os, sys; open('b.bin', 'rb').read(1); print(os.getpid(), flush=True); sys.stdin.read()"
        argv = ["/usr/bin/python3", "-c", client]
        with run.start(argv, env, cwd=run.model_dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            pids = [holder.stdout.readline().decode().strip()]
            pids += [entry for entry in os.listdir("/proc") if entry.isdigit() and self.runs(entry, copies / paths.OSSC.name)]
            self.assertEqual(len(pids), 2)
            socket.chmod(0o777)
            # One that may start no engine of its own.
            env = {**{k: v for k, v in env.items() if not k.startswith("OSS_")}, "ENABLE_CONNECTOR": "2"}
            argv = ["/usr/bin/python3", "-c", FOREIGN, str(run.model_dir / "b.bin"), *pids]
            done = run.call(argv, env, cwd="/", **self.other())
            holder.communicate()
        self.assertEqual(done.stdout, b"read 5\n0 opened\n", done.stderr)
        self.assertIn(b"belongs to another user", done.stderr)

    def wait_gone(self, program: Path) -> None:
        deadline = time.monotonic() + GONE_SECS_MAX
        while time.monotonic() < deadline:
            if not any(self.runs(entry, program) for entry in os.listdir("/proc") if entry.isdigit()):
                return
            time.sleep(0.05)
        self.fail(f"an engine of {program} outlived its client")

    @staticmethod
    def runs(pid: str, program: Path) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/exe") == str(program)
        except OSError:
            return False
