"""What programs are given before the verdict on an object, and what becomes of them when it is that bytes were wrong."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tests.checks import verdicts
from tests.e2e.base import PREFIX, EndToEnd, slow
from tests.harness import compile as compiler
from tests.harness import faults, folder, paths
from tests.harness.endpoint import Endpoint
from tests.harness.run import Run

PYTHON = str(paths.VENV_PYTHON)
MIB = 1 << 20
KEY = f"{PREFIX}/b.bin"
SIZE = 20 * MIB + 4097
# One part after the other, and so slow that parts are read long before the last one has come.
SETTINGS = {"materializeBytes": folder.MATERIALIZE_BYTES, "partBytes": MIB, "reviveSec": 1, "prefetch": {"vcpus": 1, "workers": 1}}
SLOW = ["--rate-bytes-per-sec", "8000000"]
ATTEMPT = (
    "import errno, hashlib, mmap, os, sys, time\n"
    "def attempt(call):\n"
    "    try: print(call(), flush=True)\n"
    "    except OSError as e: print(errno.errorcode[e.errno], flush=True)\n"
    "def sha(data): return hashlib.sha256(data).hexdigest()\n"
    "def whole(fd):\n"
    "    pieces = []\n"
    "    while piece := os.read(fd, 1 << 20): pieces.append(piece)\n"
    "    return sha(b''.join(pieces))\n"
)


class Cells(EndToEnd):
    """A few of the cells of the bar `bytes 4`."""

    @slow
    def test_a_program_that_ends_with_success_has_right_bytes(self) -> None:
        picked = random.Random(4).sample(verdicts.cells(), 24)
        problems, good, bad = verdicts.run_cells(picked)
        self.assertEqual(problems, [])
        self.assertGreater(good, 0)
        self.assertGreater(bad, 0)

    def test_without_the_check_wrong_bytes_are_noticed(self) -> None:
        picked = [cell for cell in verdicts.cells(("epoll",), ["read 1 MiB", "mmap"]) if cell.times is None][:4]
        problems, _, _ = verdicts.run_cells(picked, verifyCrc=False)
        self.assertTrue(any("other bytes" in problem for problem in problems), problems)


class Verdict(EndToEnd):
    """Each test has an endpoint of its own, with its rules."""

    def start(self, rules: list[faults.Rule], options: list[str] | None = None, **config: Any) -> Run:
        scratch = self.scratch / self.id().rsplit(".", 1)[-1]
        endpoint = self.serving(Endpoint(self.scratch / "root", scratch, rules or None, options))
        return self.ending(Run(endpoint, PREFIX, config={**SETTINGS, **config}))

    def python(self, run: Run, code: str, env: dict[str, str] | None = None) -> list[str]:
        done = run.call([PYTHON, "-c", ATTEMPT + code], env, cwd=run.model_dir)
        self.assertEqual(done.returncode, 0, done.stderr.decode() + run.log_tail())
        return done.stdout.decode().splitlines()

    def sha(self, name: str) -> str:
        return hashlib.sha256((self.plain / name).read_bytes()).hexdigest()

    def audited(self, run: Run, act: str) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 5
        while True:
            found = [line for line in map(json.loads, run.audit_lines()) if line.get("act") == act and line["object"].endswith(KEY)]
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    def test_all_but_the_last_part_are_given_as_they_come(self) -> None:
        """The first answer is read long before the last one has come, a footer as well; nobody gets everything of wrong bytes."""
        run = self.start([faults.flipped_at(KEY, 5)], SLOW)
        got = self.python(run, (
            "fd = os.open('b.bin', os.O_RDONLY); size = os.fstat(fd).st_size; begin = time.monotonic()\n"
            "print(len(os.pread(fd, 100, size - 100)), len(os.read(fd, 4096)), time.monotonic() - begin < 1.5)\n"
            "total = 4096\n"
            "try:\n"
            "    while piece := os.read(fd, 1 << 16): total += len(piece)\n"
            "except OSError as e: print(errno.errorcode[e.errno])\n"
            "print(0 < total < size, os.lseek(fd, 0, os.SEEK_CUR) == total)\n"
        ))
        self.assertEqual(got, ["100 4096 True", "EIO", "True True"], run.log_tail())

    def test_who_was_given_wrong_bytes_gets_eio_and_is_named(self) -> None:
        run = self.start([faults.flipped_at(KEY, 5, times=1)], SLOW)
        code = (
            "fd = os.open('b.bin', os.O_RDONLY); other = os.dup(fd); print(os.getpid(), len(os.read(fd, 4096)), flush=True)\n"
            "second = os.open('b.bin', os.O_RDONLY)\n"
            "time.sleep(4)\n"
            "attempt(lambda: len(os.read(fd, 4096)))\n"
            "attempt(lambda: len(os.pread(other, 4096, 1 << 20)))\n"
            "attempt(lambda: len(os.pread(second, 4096, 0)))\n"
            "attempt(lambda: mmap.mmap(second, 0, access=mmap.ACCESS_READ))\n"
            # A child has its parent's bytes.
            "if os.fork() == 0: attempt(lambda: len(os.read(fd, 10))); os._exit(0)\n"
            "os.wait()\n"
            # From here on it begins anew, but not through the old descriptor.
            "new = os.open('b.bin', os.O_RDONLY); attempt(lambda: whole(new))\n"
            "attempt(lambda: len(os.read(fd, 4096)))\n"
            "attempt(lambda: len(os.pread(new, 10, 0)))\n"
        )
        got = self.python(run, code)
        pid, count = got[0].split()
        self.assertEqual((count, got[1:]), ("4096", ["EIO"] * 5 + [self.sha("b.bin"), "EIO", "10"]), run.log_tail())
        (line,) = run.logged("ERROR", "parts were given to readers before")
        self.assertIn(f"{pid} python", line)
        self.assertIn(KEY, line)
        self.assertTrue(run.logged("fetched again and verified; 1 processes had read other bytes and get EIO"), run.log_tail())
        self.assertFalse([line for line in run.log_lines() if "loaded and verified" in line and KEY in line])
        (row,) = self.audited(run, "misread")
        self.assertEqual((row["pid"], row["try"]), (int(pid), 1))
        self.assertTrue(row["command"].startswith("python"))
        self.assertEqual([line.get("try") for line in self.audited(run, "verify")], [2])

    def test_a_program_that_was_given_nothing_wrong_sees_nothing(self) -> None:
        """Another one than the first reader, and one that comes later."""
        run = self.start([faults.flipped_at(KEY, 5, times=1)], SLOW)
        first = run.start([PYTHON, "-c", ATTEMPT + "fd = os.open('b.bin', os.O_RDONLY); os.read(fd, 10); time.sleep(6); attempt(lambda: os.read(fd, 10))"], cwd=run.model_dir, stdout=subprocess.PIPE)
        time.sleep(0.5)
        self.assertEqual(self.python(run, "fd = os.open('b.bin', os.O_RDONLY); attempt(lambda: sha(mmap.mmap(fd, 0, access=mmap.ACCESS_READ)))\n"), [self.sha("b.bin")])
        self.assertEqual(self.python(run, "fd = os.open('b.bin', os.O_RDONLY); attempt(lambda: whole(fd))\n"), [self.sha("b.bin")])
        self.assertEqual(first.communicate()[0].strip(), b"EIO", run.log_tail())

    def test_a_descriptor_of_another_programs_with_an_offset(self) -> None:
        """Nobody can tell what was read through it: an error after a mismatch, and no mix."""
        run = self.start([faults.flipped_at(KEY, 5, times=1)], SLOW)
        code = (
            "fd = os.open('b.bin', os.O_RDONLY); os.set_inheritable(fd, True); os.read(fd, 4096); time.sleep(4)\n"
            "os.execv(sys.executable, [sys.executable, '-c', f'import os\\ntry: print(len(os.read({fd}, 10)))\\nexcept OSError as e: print(e.errno)'])\n"
        )
        self.assertEqual(self.python(run, code), ["5"], run.log_tail())

    def test_what_was_handed_on_while_it_turned_out_to_be_wrong_is_an_error(self) -> None:
        """The kernel copies to a socket that no program reads from until the mismatch."""
        run = self.start([faults.flipped_at(KEY, 5, times=1)], SLOW)
        code = (
            "import socket, threading\n"
            "ours, other = socket.socketpair(); fd = os.open('b.bin', os.O_RDONLY)\n"
            "def drain():\n"
            f"    while 'do not match' not in open({str(run.log_path)!r}).read(): time.sleep(0.05)\n"
            "    while other.recv(1 << 16): pass\n"
            "threading.Thread(target=drain, daemon=True).start()\n"
            "print('begun', flush=True); attempt(lambda: os.sendfile(ours.fileno(), fd, 0, 1 << 20))\n"
            "new = os.open('b.bin', os.O_RDONLY); attempt(lambda: whole(new))\n"
        )
        program = run.start([PYTHON, "-c", ATTEMPT + code], cwd=run.model_dir, stdout=subprocess.PIPE)
        assert program.stdout is not None
        self.assertEqual(program.stdout.readline(), b"begun\n", run.log_tail())
        # Its part has come by then, and another program brings the others and the mismatch.
        time.sleep(1)
        mapped = "with open('b.bin', 'rb') as file: attempt(lambda: sha(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))"
        self.assertEqual(self.python(run, mapped), [self.sha("b.bin")])
        self.assertEqual(program.communicate(timeout=60)[0].decode().split(), ["EIO", self.sha("b.bin")], run.log_tail())

    def test_reads_wait_for_the_verdict_where_the_key_says_so(self) -> None:
        run = self.start([faults.flipped_at(KEY, 5, times=1)], SLOW, readsWait="verdict")
        got = self.python(run, (
            "fd = os.open('b.bin', os.O_RDONLY); begin = time.monotonic()\n"
            "attempt(lambda: len(os.read(fd, 10))); print(time.monotonic() - begin > 1.5)\n"
            "os.lseek(fd, 0, os.SEEK_SET); attempt(lambda: whole(fd))\n"
        ))
        self.assertEqual(got, ["10", "True", self.sha("b.bin")], run.log_tail())
        self.assertEqual(self.audited(run, "verify")[0].get("try"), 2)

    def test_reads_wait_for_the_verdict_of_an_object_larger_than_the_memory(self) -> None:
        """All parts stream through, and once more to the reader: each of them is compared with what it was."""
        run = self.start([], readsWait="verdict", memoryLimit=24 * MIB)
        self.assertEqual(self.python(run, "fd = os.open('b.bin', os.O_RDONLY); attempt(lambda: whole(fd))\n"), [self.sha("b.bin")], run.log_tail())
        self.assertTrue(run.logged("loaded and verified", KEY), run.log_tail())
        run = self.start_again([faults.flipped_at(KEY, 5)], readsWait="verdict", memoryLimit=24 * MIB)
        self.assertEqual(self.python(run, "fd = os.open('b.bin', os.O_RDONLY); attempt(lambda: len(os.read(fd, 10)))\n"), ["EIO"], run.log_tail())

    def start_again(self, rules: list[faults.Rule], options: list[str] | None = None, **config: Any) -> Run:
        scratch = Path(tempfile.mkdtemp(dir=self.scratch))
        endpoint = self.serving(Endpoint(self.scratch / "root", scratch, rules, options))
        return self.ending(Run(endpoint, PREFIX, config={**SETTINGS, **config}))

    def test_an_object_larger_than_the_memory_has_a_verdict(self) -> None:
        run = self.start([], memoryLimit=24 * MIB)
        self.assertEqual(self.python(run, "fd = os.open('b.bin', os.O_RDONLY); attempt(lambda: whole(fd))\n"), [self.sha("b.bin")], run.log_tail())
        self.assertTrue(run.logged("loaded and verified", KEY), run.log_tail())

    def reread(self, times: int | None) -> tuple[Run, list[str]]:
        """The object is verified, given back, and read again; then one of its bytes comes wrong."""
        run = self.start([faults.rule({"delay_ms": 0}, "none")], expireTimeSec=0, lingerSec=6)
        self.assertEqual(self.python(run, "fd = os.open('b.bin', os.O_RDONLY); attempt(lambda: whole(fd))\n"), [self.sha("b.bin")])
        self.assertTrue(run.logged("released", KEY), run.log_tail())
        run.endpoint.set_rules([faults.flipped_at(KEY, 5, times)])
        return run, self.python(run, "fd = os.open('b.bin', os.O_RDONLY); attempt(lambda: whole(fd))\n")

    def test_a_part_that_comes_wrong_after_the_verdict_is_fetched_again(self) -> None:
        run, got = self.reread(1)
        self.assertEqual(got, [self.sha("b.bin")], run.log_tail())
        self.assertTrue(run.logged("WARN", "a part came with other bytes than before", KEY), run.log_tail())
        self.assertEqual(len(self.audited(run, "verify")), 1)

    def test_a_part_that_stays_wrong_after_the_verdict_is_an_error(self) -> None:
        run, got = self.reread(None)
        self.assertEqual(got, ["EIO"], run.log_tail())
        self.assertTrue(run.logged("ERROR", "a part came with other bytes than before", KEY), run.log_tail())

    def test_one_control_block_for_several_pieces(self) -> None:
        run, offsets = self.start([], SLOW), (0, 9 * MIB, 18 * MIB)
        done = run.call([str(compiler.program("aio_again.c")), "b.bin", *map(str, offsets)], cwd=run.model_dir, timeout=60)
        whole = (self.plain / "b.bin").read_bytes()
        self.assertEqual((done.returncode, done.stderr), (0, b""), run.log_tail())
        self.assertTrue(done.stdout == b"".join(whole[at:at + MIB] for at in offsets), "other bytes")

    def test_standard_input_that_failed_stays_an_error_after_exec_and_in_children(self) -> None:
        run = self.start([faults.flipped_at(KEY, 5)])
        self.assertEqual(run.call(["cat", "small.bin"], cwd=run.model_dir).returncode, 0, run.log_tail())
        for script in ("cat", "exec cat", "env cat", "(sleep 0.3; cat) <&0 & exit 7"):
            with self.subTest(script), open(run.model_dir / "b.bin", "rb") as file:
                done = run.call(["bash", "-c", script], stdin=file, cwd=run.model_dir, timeout=60)
                self.assertNotEqual(done.returncode, 0)
                self.assertEqual(done.stdout, b"")
                self.assertIn(b"standard input is an object whose bytes cannot be had", done.stderr)
                self.assertIn(b"Bad file descriptor", done.stderr)

    def killed(self, rules: list[faults.Rule]) -> tuple[Run, list[str]]:
        """A reader whose engine is killed, with its memory, in the middle."""
        run = self.start(rules, SLOW, lingerSec=3)
        code = (
            "fd = os.open('b.bin', os.O_RDONLY); head = os.read(fd, 1 << 20); print('read', flush=True)\n"
            "sys.stdin.readline()\n"
            "def rest():\n"
            "    pieces = [head]\n"
            "    while piece := os.read(fd, 1 << 20): pieces.append(piece)\n"
            "    return sha(b''.join(pieces))\n"
            "attempt(rest)\n"
        )
        program = run.start([PYTHON, "-c", ATTEMPT + code], run.env(OSSC_PAGES="memfd"), cwd=run.model_dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert program.stdout is not None
        self.assertEqual(program.stdout.readline(), b"read\n", run.log_tail())
        (engine,) = run.engines()
        os.kill(engine, signal.SIGKILL)
        return run, program.communicate(b"\n", timeout=60)[0].decode().splitlines()

    def test_bytes_of_an_engine_that_is_gone_are_compared_with_the_next_ones(self) -> None:
        run, got = self.killed([])
        self.assertEqual(got, [self.sha("b.bin")], run.log_tail())

    def test_wrong_bytes_of_an_engine_that_is_gone_are_an_error(self) -> None:
        run, got = self.killed([faults.flipped_at(KEY, 5, times=1)])
        self.assertEqual(got, ["EIO"], run.log_tail())

    def removed(self, rules: list[faults.Rule]) -> list[str]:
        """A reader that opens the object for each part, and takes all but the last; then the placeholder is removed, and
        another program's start has it made again, with a record of its own."""
        late = {"match": {"kind": "get", "key": KEY, "covers": SIZE - 1}, "do": {"delay_ms": 4000}, "times": 1}
        run = self.start([*rules, late], lingerSec=3)
        code = (
            "last = (os.stat('b.bin').st_size - 1) >> 20\n"
            "def part(index):\n"
            "    fd = os.open('b.bin', os.O_RDONLY)\n"
            "    try: return os.pread(fd, 1 << 20, index << 20)\n"
            "    finally: os.close(fd)\n"
            "pieces = [part(index) for index in range(last)]; print('read', flush=True)\n"
            "sys.stdin.readline()\n"
            "attempt(lambda: sha(b''.join([*pieces, part(last)])))\n"
        )
        program = run.start([PYTHON, "-c", ATTEMPT + code], cwd=run.model_dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert program.stdout is not None
        self.assertEqual(program.stdout.readline(), b"read\n", run.log_tail())
        (run.model_dir / "b.bin").unlink()
        again = run.call(["stat", "-c", "%s", "b.bin"], cwd=run.model_dir)
        self.assertEqual(again.stdout.split(), [str(SIZE).encode()], again.stderr)
        return program.communicate(b"\n", timeout=60)[0].decode().splitlines()

    def test_bytes_of_a_placeholder_that_was_made_again_are_compared(self) -> None:
        self.assertEqual(self.removed([]), [self.sha("b.bin")])

    def test_wrong_bytes_of_a_placeholder_that_was_made_again_are_an_error(self) -> None:
        """The program had all of the object, with success, and none of it was compared: each record's last part was left out."""
        self.assertEqual(self.removed([faults.flipped_at(KEY, 5, times=1)]), ["EIO"])

    def test_an_open_that_does_not_wait_is_made_again_where_it_meets_a_lease(self) -> None:
        """The lease is taken by this process, which is not under the library."""
        run = self.start([])
        self.assertEqual(self.python(run, "print(len(os.pread(os.open('b.bin', os.O_RDONLY), 10, 0)))\n"), ["10"])
        fd = os.open(run.model_dir / "b.bin", os.O_RDONLY)
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGIO, signal.SIG_DFL)
        self.addCleanup(os.close, fd)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        timer = threading.Timer(1.0, lambda: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK))
        timer.start()
        self.addCleanup(timer.join)
        code = "begin = time.monotonic(); fd = os.open('b.bin', os.O_RDONLY | os.O_NONBLOCK); print(len(os.read(fd, 10)))\n"
        self.assertEqual(self.python(run, code), ["10"], run.log_tail())
