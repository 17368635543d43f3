"""An engine that is gone, and another one in its place that has nothing of it: a program of the first one must not take
what the second has at the same numbers for its own."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.e2e.base import EndToEnd
from tests.harness import compile
from tests.harness.run import Run, plain_env

MIB = 1024 * 1024
# fcntl(2): the lock of an open file.
F_OFD_SETLKW = 38
# Does what each line of its input says, and answers with one line.
PROGRAM = """
import hashlib, os, sys
folder = os.environ["MODEL_DIR"]
for line in sys.stdin:
    what, name = line.split()
    path = os.path.join(folder, name)
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            answer = hashlib.md5(b"".join(iter(lambda: os.read(fd, 1 << 16), b""))).hexdigest()
        finally:
            if what != "hold":
                os.close(fd)
    except OSError as e:
        answer = f"errno {e.errno}"
    print(answer, flush=True)
"""


def nanos_of_placeholder(ino: int, secs: int) -> int:
    """Nanoseconds of the time that marks an empty file where there are no attributes (`nanos` in cache/mark.rs)."""
    mixed = 0x6F73_7363_6D61_726B
    for word in (1, ino, 0, secs):
        mixed = (mixed ^ word) * 0x9E37_79B9_7F4A_7C15 % 2**64
        mixed ^= mixed >> 29
    return (mixed % 9_999_999 + 1) * 100


class Successor(EndToEnd):
    """Each test has objects of its own."""

    def put(self, name: str, size: int) -> str:
        """An object; its MD5."""
        content = hashlib.sha256(name.encode()).digest() * (size // 32)
        place = self.plain / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)
        self.addCleanup(place.unlink, missing_ok=True)
        return hashlib.md5(content).hexdigest()

    def program(self, run: Run, before: list[str] | None = None, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """With `before`, the program and its engine are under that one, which is not under the library."""
        env = env or run.env()
        argv = [sys.executable, "-c", PROGRAM]
        if before:
            plain = plain_env()
            argv = [*before, "env", *(f"{name}={value}" for name, value in env.items() if plain.get(name) != value), *argv]
            env = plain
        process = run.start(argv, env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def ask(self, process: subprocess.Popen[bytes], what: str, name: str) -> str:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{what} {name}\n".encode())
        process.stdin.flush()
        return process.stdout.readline().decode().strip()

    def test_an_engine_that_is_just_starting_is_not_taken_for_the_one_that_is_gone(self) -> None:
        """Without attributes a placeholder's number is believed while the engine lives that keeps it. One that has just taken
        the lock had left no word of itself yet, and its predecessor counted as alive: a file with the number of
        another one's placeholder was read as that one, with success."""
        names = [f"starts-{n:02}.bin" for n in range(16)]
        right = {name: self.put(name, MIB) for name in names}
        run = self.managed({"materializeBytes": 65536, "listAgainSec": 3600})
        socket = run.dir / "s"
        before = [str(compile.program("refuse.c")), "EOPNOTSUPP", "marks,looks"]
        process = self.program(run, before, run.env(CONNECTOR_UDS_PATH=str(socket)))
        for name in names:
            self.assertEqual(self.ask(process, "read", name), right[name])
        had = {os.stat(run.model_dir / name).st_ino: name for name in names}
        secs = int(os.stat(run.model_dir / names[0]).st_mtime)
        run.kill_engines()
        with open(f"{socket}.lock", "r+b") as lock:
            # As an engine that starts.
            fcntl.fcntl(lock, F_OFD_SETLKW, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            lock.truncate(0)
            given, file = self.given_again(run, names, had)
            os.utime(file, ns=(0, secs * 10**9 + nanos_of_placeholder(given, secs)))
            file.rename(run.model_dir / names[0])
            answer: list[str] = []
            asking = threading.Thread(target=lambda: answer.append(self.ask(process, "read", names[0])))
            asking.start()
            asking.join(2)
        asking.join()
        self.assertIn(answer[0], (right[names[0]], f"errno {errno.ESTALE}", f"errno {errno.EIO}"), f"bytes of {had[given]}")

    def test_the_time_of_a_placeholder_does_not_say_which_object_it_is_of(self) -> None:
        """Objects of one second: the next engine's placeholder of one has the number that the placeholder of another had.
        Number and time are those of a placeholder that the program knows, and it is another object's."""
        names = [f"second-{n:02}.bin" for n in range(16)]
        right = {name: self.put(name, MIB) for name in names}
        secs = int(time.time()) - 3600
        for name in names:
            os.utime(self.plain / name, (secs, secs))
        run = self.managed({"materializeBytes": 65536, "listAgainSec": 3600})
        process = self.program(run)
        for name in names:
            self.assertEqual(self.ask(process, "read", name), right[name])
        had = {os.stat(run.model_dir / name).st_ino: name for name in names}
        try:
            mark = os.getxattr(run.model_dir / names[0], "user.ossc.made").split(b"\n")
        except OSError:
            self.skipTest("no extended attributes here")
        run.kill_engines()
        given, file = self.given_again(run, names, had)
        mark[2] = str(given).encode()
        os.setxattr(file, "user.ossc.made", b"\n".join(mark))
        os.utime(file, ns=(0, secs * 10**9 + nanos_of_placeholder(given, secs)))
        file.rename(run.model_dir / names[0])
        got = self.ask(process, "read", names[0])
        self.assertIn(got, (right[names[0]], f"errno {errno.ESTALE}", f"errno {errno.EIO}"), f"bytes of {had[given]}")

    def given_again(self, run: Run, names: list[str], had: dict[int, str]) -> tuple[int, Path]:
        """Removes the placeholders, and makes files until one has the number of one that is not the first's."""
        for name in names:
            (run.model_dir / name).unlink()
        for number in range(4096):
            file = run.model_dir / f"made-{number}"
            file.touch()
            given = os.stat(file).st_ino
            if had.get(given, names[0]) != names[0]:
                return given, file
        self.skipTest("this file system gives no number out again")

    def test_a_program_that_outlives_many_engines(self) -> None:
        """A program numbers the engines that it meets. After 127 the numbers came again, and what it had kept of an object
        of the first was given for another's."""
        one, other, new = "many-one.bin", "many-other.bin", "many-new.bin"
        right = {name: self.put(name, MIB) for name in (one, other)}
        run = self.managed({"materializeBytes": 65536, "listAgainSec": 3600})
        process = self.program(run, env=run.env(OSSC_PAGES="memfd"))
        self.assertEqual(self.ask(process, "hold", one), right[one])
        lost = f"errno {errno.EIO}"
        for number in range(140):
            run.kill_engines()
            if number == 125:
                # What is listed behind it has other numbers with the engines that follow.
                right[new] = self.put(new, MIB)
            got = self.ask(process, "read", other)
            self.assertIn(got, (right[other], lost), f"engine {number}\n{run.log_tail()}")
            if number >= 125:
                for name in (new, one):
                    got = self.ask(process, "read", name)
                    self.assertIn(got, (right[name], lost, f"errno {errno.ENOENT}", f"errno {errno.ESTALE}"), f"engine {number}: {name}")
        self.assertEqual(self.ask(self.program(run), "read", new), right[new])
