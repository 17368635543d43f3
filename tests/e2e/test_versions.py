"""How long objects stay in memory, and what becomes of versions that a newer one has replaced."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path
from typing import Any

from tests.e2e.base import EndToEnd, slow
from tests.harness.run import Run, plain_env

MIB = 1024 * 1024
EXPIRE_SECS = 10
POLL_SECS_MAX = 30.0
# Does what each line of its input says, and answers with one line.
PROGRAM = """
import hashlib, os, subprocess, sys
folder = os.environ["MODEL_DIR"]
for line in sys.stdin:
    what, name = line.split()
    path = os.path.join(folder, name)
    try:
        if what == "read":
            # By a process of its own, as a user would start another program.
            done = subprocess.run(["md5sum", path], capture_output=True, check=False)
            answer = f"{os.stat(path).st_ino} {done.stdout.split()[0].decode() if done.stdout else done.stderr}"
        elif what == "slurp":
            with open(path, "rb") as file:
                answer = str(len(file.read()))
        elif what == "sum":
            with open(path, "rb") as file:
                answer = hashlib.md5(file.read()).hexdigest()
        elif what == "open":
            kept = open(path, "rb")
            answer = str(os.fstat(kept.fileno()).st_ino)
        else:
            with open(path, "w") as file:
                file.write("mine")
            with open(path) as file:
                answer = f"{os.stat(path).st_ino} {file.read()}"
            open(path + ".empty", "w").close()
            with open(path + ".empty") as file:
                assert file.read() == ""
    except OSError as e:
        answer = f"errno {e.errno}"
    print(answer, flush=True)
"""


def can_mount() -> bool:
    """A file system of our own on a file, in a mount namespace."""
    script = "truncate -s 8M $0 && mkfs.ext4 -q $0 && mount -o loop $0 /mnt"
    image = f"/tmp/ossc-can-mount-{os.getpid()}"
    try:
        return subprocess.run(["unshare", "-m", "sh", "-c", script, image], capture_output=True, check=False).returncode == 0
    finally:
        if os.path.exists(image):
            os.unlink(image)


class Versions(EndToEnd):
    """Each test has an object of its own."""

    def put(self, name: str, size: int, seed: int) -> str:
        """A new version of an object, as OSS shows it: at once and whole. Its MD5."""
        content = hashlib.sha256(f"{name} {seed}".encode()).digest() * (size // 32)
        place = self.plain / name
        place.with_name(f"{name}.new").write_bytes(content)
        place.with_name(f"{name}.new").rename(place)
        self.addCleanup(place.unlink, missing_ok=True)
        return hashlib.md5(content).hexdigest()

    def program(self, run: Run, before: list[str] | None = None, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        argv = [*(before or []), sys.executable, "-c", PROGRAM]
        process = run.start(argv, env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def ask(self, process: subprocess.Popen[bytes], what: str, name: str) -> list[str]:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{what} {name}\n".encode())
        process.stdin.flush()
        return process.stdout.readline().decode().split()

    def read_until(self, run: Run, process: subprocess.Popen[bytes], name: str, md5: str) -> str:
        """Reads again and again until the version with this sum comes; its inode number."""
        until = time.monotonic() + POLL_SECS_MAX
        while (got := self.ask(process, "read", name))[-1:] != [md5]:
            self.assertLess(time.monotonic(), until, f"the new version does not come: {got}\n{run.log_tail()}")
            self.assertNotIn("allocate", " ".join(got), run.log_tail())
            time.sleep(0.3)
        return got[0]

    def origin_bytes(self, run: Run, name: str) -> int:
        rows: list[dict[str, Any]] = [json.loads(line) for line in run.audit_lines()]
        return sum(row["bytes"] for row in rows if row.get("source") == "origin" and row["object"].endswith(f"/{name}"))

    def test_a_number_that_went_to_another_file_is_not_taken_for_the_object(self) -> None:
        """An engine dies, the next one replaces the placeholders, and the file system gives their numbers out again, to
        other ones of them: a program of the first engine got another object's bytes, with success."""
        names = [f"number-{n:02}.bin" for n in range(16)]
        right = {name: self.put(name, MIB, 1) for name in names}
        run = self.managed({"materializeBytes": 65536, "expireTimeSec": 3600, "listAgainSec": 3600})
        process = self.program(run)
        for name in names:
            self.assertEqual(self.ask(process, "sum", name), [right[name]])
        before = {os.stat(run.model_dir / name).st_ino: name for name in names}
        first = run.model_dir / names[0]
        try:
            mark = os.getxattr(first, "user.ossc.made").split(b"\n")
        except OSError:
            self.skipTest("no extended attributes here")
        run.kill_engines()
        for name in names:
            (run.model_dir / name).unlink()
        made: list[Path] = []
        given = 0
        while given not in before or before[given] == names[0]:
            self.assertLess(len(made), 4096, "this file system gives no number out again")
            made.append(run.model_dir / f"made-{len(made)}")
            made[-1].touch()
            given = os.stat(made[-1]).st_ino
        # As the next engine does it, for the next version.
        mark[2], mark[9] = str(given).encode(), b'"another"'
        os.setxattr(made[-1], "user.ossc.made", b"\n".join(mark))
        made[-1].rename(first)
        got = self.ask(process, "sum", names[0])
        self.assertIn(got[-1], (right[names[0]], str(errno.ESTALE), str(errno.EIO)), f"bytes of {before[given]}: {got}")

    @slow
    def test_the_time_runs_from_the_last_use_however_short(self) -> None:
        """Opened at 0, 8 and 20 s with expireTimeSec 10: before, it was dropped after 10 s of looks that missed the
        short uses."""
        size = 4 * MIB
        md5 = self.put("used.bin", size, 1)
        run = self.managed({"expireTimeSec": EXPIRE_SECS, "listAgainSec": 3600})
        process = self.program(run)
        for pause in (0, 8, 8):
            time.sleep(pause)
            self.assertEqual(self.ask(process, "read", "used.bin")[-1:], [md5], run.log_tail())
        self.assertEqual(self.origin_bytes(run, "used.bin"), size)
        # And it goes when the time is over: within 2 s, and one more for a busy machine.
        time.sleep(EXPIRE_SECS - 1)
        self.assertEqual([line for line in run.log_lines() if "released" in line and "used.bin" in line], [])
        time.sleep(4)
        self.assertEqual(len([line for line in run.log_lines() if "released" in line and "used.bin" in line]), 1, run.log_tail())

    def test_what_was_fetched_ahead_waits_for_a_slow_program(self) -> None:
        size = 4 * MIB
        for name in ("config.json", "model.safetensors.index.json"):
            (self.plain / name).write_text("{}")
            self.addCleanup((self.plain / name).unlink)
        md5 = self.put("model.safetensors", size, 1)
        expire = 2
        run = self.managed({"expireTimeSec": expire, "listAgainSec": 3600})
        process = self.program(run)
        self.assertTrue(run.logged("loaded", "model.safetensors"), "it is not fetched ahead\n" + run.log_tail())
        time.sleep(3 * expire + 1)
        self.assertEqual(self.ask(process, "read", "model.safetensors")[-1:], [md5], run.log_tail())
        self.assertEqual(self.origin_bytes(run, "model.safetensors"), size)

    def test_old_versions_leave_memory_after_a_takeover(self) -> None:
        """A budget of two versions, nothing expires: each new version needs the room of one that nobody uses."""
        size = 20 * MIB
        config = {"memoryLimit": 64 * MIB, "listAgainSec": 1, "expireTimeSec": 600, "lingerSec": 5}
        md5 = self.put("leak.bin", size, 1)
        run = self.managed(config)
        process = self.program(run)
        self.read_until(run, process, "leak.bin", md5)
        for seed in range(2, 6):
            # Over listAgainSec: the next use has the folder listed again.
            time.sleep(1.2)
            md5 = self.put("leak.bin", size, seed)
            self.read_until(run, process, "leak.bin", md5)
            if seed % 2 == 0:
                self.kill_engine(run)
                self.read_until(run, process, "leak.bin", md5)
        self.assertEqual(run.engine_starts(), 3)
        self.assertEqual([line for line in run.log_lines() if "no memory for a reader" in line], [])

    def kill_engine(self, run: Run) -> None:
        for pid in run.engines():
            os.kill(pid, signal.SIGKILL)
        self.assertIsNotNone(run.wait_engines_gone(5))

    def test_a_version_that_is_open_stays_and_goes_when_it_is_closed(self) -> None:
        size = 2 * MIB
        md5 = self.put("open.bin", size, 1)
        run = self.managed({"listAgainSec": 1, "expireTimeSec": -1})
        keeper, reader = self.program(run), self.program(run)
        self.read_until(run, reader, "open.bin", md5)
        self.ask(keeper, "open", "open.bin")
        time.sleep(1.2)
        self.read_until(run, reader, "open.bin", self.put("open.bin", size, 2))
        time.sleep(3)
        dropped = ("dropped", "open.bin")
        self.assertEqual([line for line in run.log_lines() if all(word in line for word in dropped)], [])
        keeper.kill()
        keeper.wait()
        self.assertTrue(run.logged(*dropped), run.log_tail())

    @slow
    def test_the_next_version_comes_where_the_catalog_is_full_of_old_ones(self) -> None:
        """Parts of 4 KiB: four versions of 1 GiB (of which the first bytes are read) are all that the catalog holds."""
        run = self.managed({"listAgainSec": 1, "partBytes": 4096, "lingerSec": 5, "expireTimeSec": -1, "prefetch": {"vcpus": 1, "workers": 2}})
        place = self.plain / "many.bin"
        self.addCleanup(place.unlink)
        for version in range(6):
            with open(place.with_name("many.new"), "wb") as file:
                file.write(b"v%d" % version)
                file.truncate(1 << 30)
            place.with_name("many.new").rename(place)
            if version == 0:
                self.program(run)
            until = time.monotonic() + POLL_SECS_MAX
            while (got := run.call(["head", "-c", "2", "many.bin"], cwd=run.model_dir)).stdout != b"v%d" % version:
                self.assertLess(time.monotonic(), until, f"{got}\n{run.log_tail()}")
                time.sleep(0.5)
            self.assertEqual((run.model_dir / "many.bin").stat().st_size, 0)
            time.sleep(1)

    def test_an_object_that_is_gone_goes(self) -> None:
        run = self.managed({"listAgainSec": 1, "lingerSec": 5})
        md5 = self.put("gone.bin", 2 * MIB, 1)
        process = self.program(run)
        self.read_until(run, process, "gone.bin", md5)
        (self.plain / "gone.bin").unlink()
        until = time.monotonic() + POLL_SECS_MAX
        while self.ask(process, "read", "gone.bin") != ["errno", "2"]:
            self.assertLess(time.monotonic(), until, run.log_tail())
            time.sleep(0.5)
        self.assertFalse((run.model_dir / "gone.bin").exists())

    @unittest.skipUnless(can_mount(), "needs a file system on a file")
    def test_the_inode_of_an_old_version_is_an_ordinary_files(self) -> None:
        """A file system that uses inode numbers again at once. The engine dies, and with it what kept the number of the
        old placeholder; a file of the program's own has it then, and later a placeholder may."""
        for kills in (False, True):
            with self.subTest(kills=kills):
                self.inodes_come_back(kills)

    def inodes_come_back(self, kills: bool) -> None:
        name = f"inode-{kills}.bin"
        md5 = self.put(name, 2 * MIB, 1)
        run = self.managed({"listAgainSec": 1, "expireTimeSec": 600, "lingerSec": 5})
        image = run.dir / "image"
        script = 'truncate -s 64M "$0" && mkfs.ext4 -q -N 256 "$0" && mount -o loop "$0" "$MODEL_DIR" && rmdir "$MODEL_DIR/lost+found" && exec env LD_PRELOAD="$PRELOAD" "$@"'
        env = run.env()
        outer = {**plain_env(), **env, "PRELOAD": env["LD_PRELOAD"]}
        del outer["LD_PRELOAD"]
        process = self.program(run, ["unshare", "-m", "sh", "-c", script, str(image)], outer)
        first = self.read_until(run, process, name, md5)
        time.sleep(1.2)
        second = self.read_until(run, process, name, self.put(name, 2 * MIB, 2))
        self.assertNotEqual(first, second)
        # Without a death the number is free when the old version was dropped.
        if kills:
            self.kill_engine(run)
            # A part that nobody has: the program finds out that its engine is gone, and the next one takes over.
            self.assertEqual(self.ask(process, "slurp", "b.bin"), [str((self.plain / "b.bin").stat().st_size)])
            self.assertTrue(run.logged("took over"), run.log_tail())
        else:
            self.assertTrue(run.logged("dropped", name), run.log_tail())
        own = [self.ask(process, "write", f"own{n}") for n in range(8)]
        self.assertEqual([got[1:] for got in own], [["mine"]] * 8, run.log_tail())
        self.assertIn(first, [got[0] for got in own], "the old placeholder's number did not come back: nothing was shown")
        for seed in (3, 4):
            time.sleep(1.2)
            self.read_until(run, process, name, self.put(name, 2 * MIB, seed))
        process.kill()
        process.wait()

