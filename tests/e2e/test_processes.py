"""Clients that an engine cannot see, the process between a host and its engine, and what an engine that ends leaves."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

from tests.e2e.base import EndToEnd, can_unshare
from tests.harness import compile as compiler
from tests.harness.run import Run

MIB = 1 << 20
HOST_MIB = 64
# What the process between may have of its own: code that it shares with the host, and page tables.
KEPT_MIB_MAX = 1
# Attaches, tells so, waits until it may go on, and reads what no program has asked for yet.
LATE = """
import hashlib, os, sys
open('a.bin', 'rb').read(10); print('attached', flush=True); sys.stdin.readline()
print(hashlib.sha256(open('b.bin', 'rb').read()).hexdigest(), flush=True)
"""
# A subreaper with memory of its own, which maps an object before its engine is killed: the next one is its child's.
HOST = f"""
import ctypes, mmap, os, signal, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
own = bytearray(b'h' * ({HOST_MIB} << 20))
fd = os.open('a.bin', os.O_RDONLY)
mapped = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
print('mapped', flush=True)
os.kill(int(sys.stdin.readline()), signal.SIGKILL)
print(len(open('b.bin', 'rb').read()), flush=True)
for at in range(0, len(own), 4096): own[at] = 1
print(os.getpid(), flush=True)
engine, between = map(int, sys.stdin.readline().split())
os.kill(engine, signal.SIGKILL)
print(os.waitpid(between, 0x40000000)[1], flush=True)
"""


class Processes(EndToEnd):
    """A reader has its engine, and nothing else has what is the program's."""

    def sha(self, name: str) -> str:
        return hashlib.sha256((self.plain / name).read_bytes()).hexdigest()

    def talk(self, run: Run, argv: list[str], env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        process = run.start(argv, env, cwd=run.model_dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    @staticmethod
    def hear(process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().decode().strip()

    @staticmethod
    def tell(process: subprocess.Popen[bytes], line: object = "") -> None:
        assert process.stdin is not None
        process.stdin.write(f"{line}\n".encode())
        process.stdin.flush()

    def outlasts_linger(self, run: Run, before: list[str]) -> None:
        """A reader that began behind `before`, and that no other program keeps company, has its engine still."""
        env = run.env(2, OSS_ACCESS_KEY_ID=None, OSS_ACCESS_KEY_SECRET=None, OSS_PATH=None, OSS_ENDPOINT=None)
        preload = env.pop("LD_PRELOAD")
        reader = self.talk(run, [*before, "env", f"LD_PRELOAD={preload}", sys.executable, "-c", LATE], env)
        self.assertEqual(self.hear(reader), "attached", run.log_tail())
        return self.goes_on(run, reader)

    def goes_on(self, run: Run, reader: subprocess.Popen[bytes]) -> None:
        time.sleep(run.linger_secs + 2)
        self.tell(reader)
        self.assertEqual(self.hear(reader), self.sha("b.bin"), run.log_tail())
        self.assertEqual(run.engine_starts(), 1, run.log_tail())

    @unittest.skipUnless(can_unshare() and os.getuid() == 0, "needs root")
    def test_a_client_of_another_pid_namespace_counts(self) -> None:
        """A sidecar: the engine's container has pids of its own, and cannot see the reader."""
        run = self.managed({"lingerSec": 1})
        env = run.env()
        preload = env.pop("LD_PRELOAD")
        inside = f"env LD_PRELOAD={preload} cat small.bin; read wait"
        container = self.talk(run, ["unshare", "-p", "-f", "--mount-proc", "sh", "-c", inside], env)
        assert container.stdout is not None
        self.assertEqual(len(container.stdout.read(5000)), 5000)
        self.outlasts_linger(run, [])
        # And when it is gone the engine goes.
        self.assertIsNotNone(run.wait_engines_gone(run.linger_secs + 3), run.log_tail())

    def test_a_client_counts_where_the_kernel_has_no_pidfds(self) -> None:
        run = self.managed({"lingerSec": 1})
        refuse = [str(compiler.program("refuse.c")), "ENOSYS", "pidfd_open"]
        env = run.env()
        preload = env.pop("LD_PRELOAD")
        reader = self.talk(run, [*refuse, "env", f"LD_PRELOAD={preload}", sys.executable, "-c", LATE], env)
        self.assertEqual(self.hear(reader), "attached", run.log_tail())
        self.goes_on(run, reader)

    def test_the_process_between_keeps_nothing_of_its_host(self) -> None:
        run = self.managed({"lingerSec": 1, "expireTimeSec": 1})
        host = self.talk(run, [sys.executable, "-c", HOST])
        self.assertEqual(self.hear(host), "mapped", run.log_tail())
        (engine,) = run.engines()
        self.tell(host, engine)
        self.assertEqual(self.hear(host), str((self.plain / "b.bin").stat().st_size), run.log_tail())
        pid = int(self.hear(host))
        self.assertEqual(len(run.engines()), 1)
        between = [child for child in self.children(pid) if child != engine]
        self.assertEqual(len(between), 1, between)
        rollup = Path(f"/proc/{between[0]}/smaps_rollup").read_text().splitlines()
        dirty = sum(int(line.split()[1]) for line in rollup if line.startswith(("Private_Dirty", "Swap:")))
        maps = Path(f"/proc/{between[0]}/maps").read_text()
        self.assertLess(dirty, KEPT_MIB_MAX * MIB // 1024, maps)
        # Beside its code the pages around the thread's own block, into which the kernel writes: none of an object, none
        # that the host has for itself.
        named = [line.split(None, 5)[5] for line in maps.splitlines() if len(line.split(None, 5)) == 6]
        self.assertFalse([name for name in named if any(word in name for word in ("memfd", "deleted", "/memory", "[heap]", "[stack]"))], maps)
        # It is the engine's reaper all the same: the host has no child that it has not made, and nothing stays.
        (engine,) = run.engines()
        self.tell(host, f"{engine} {between[0]}")
        self.assertEqual(self.hear(host), "0", "how it ended when it had reaped the engine")
        self.assertEqual(host.wait(10), 0)
        self.assertIsNotNone(run.wait_engines_gone(run.linger_secs + 3), run.log_tail())
        deadline = time.monotonic() + 5
        while Path(f"/proc/{between[0]}").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertFalse(Path(f"/proc/{between[0]}").exists(), "the process between outlives its engine")

    @staticmethod
    def children(parent: int) -> list[int]:
        found = []
        for entry in os.listdir("/proc"):
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split() if entry.isdigit() else []
            except OSError:
                continue
            if fields and int(fields[1]) == parent:
                found.append(int(entry))
        return found

    def test_an_engine_that_ends_leaves_neither_lock_nor_socket(self) -> None:
        run = self.managed({"lingerSec": 1})
        path = run.dir / "run" / "c.sock"
        path.parent.mkdir()
        env = run.env(CONNECTOR_UDS_PATH=str(path))
        self.assertEqual(run.call(["cat", "small.bin"], env, cwd=run.model_dir).returncode, 0)
        self.assertIsNotNone(run.wait_engines_gone(run.linger_secs + 3), run.log_tail())
        self.assertEqual(sorted(entry.name for entry in path.parent.iterdir()), [])

    def test_what_killed_engines_left_goes_with_the_next_one(self) -> None:
        """Those of other folders, too, whose engines no program starts again."""
        run, other = self.managed({"lingerSec": 1}), self.managed({"lingerSec": 1})
        home = run.dir / "xdg"
        home.mkdir(mode=0o700)
        inside = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /run && mount -o remount,ro /run && exec "$@"', "sh"]
        if not can_unshare():
            self.skipTest("needs a mount namespace")
        for of, name in ((other, "a.bin"), (run, "b.bin")):
            env = of.env(XDG_RUNTIME_DIR=str(home))
            preload = env.pop("LD_PRELOAD")
            done = of.call([*inside, "env", f"LD_PRELOAD={preload}", "sha256sum", name], env, cwd=of.model_dir)
            self.assertEqual(done.stdout.decode().split()[:1], [self.sha(name)], done.stderr.decode() + of.log_tail())
            if of is other:
                for pid in of.engines():
                    os.kill(pid, signal.SIGKILL)
                # Its lock goes when its memory has.
                self.assertIsNotNone(of.wait_engines_gone(10))
                left = sorted(entry.name.rsplit(".", 1)[1] for entry in (home / "oss-connector").iterdir())
                self.assertEqual(left, ["lock", "sock"])
        self.assertIsNotNone(run.wait_engines_gone(run.linger_secs + 3), run.log_tail())
        self.assertEqual(sorted(entry.name for entry in (home / "oss-connector").iterdir()), [])


if __name__ == "__main__":
    unittest.main()
