"""Small reads here and there in a large object: what is fetched for them, and that they are right whatever happens meanwhile."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.e2e.base import EnginesEnd
from tests.harness import blocks, faults, paths
from tests.harness.endpoint import Endpoint
from tests.harness.run import Run

MIB = 1 << 20
PREFIX = "index"
KEY = f"{PREFIX}/big.bin"
# Longer than what is fetched whole from its beginning on, and no multiple of anything.
SIZE = 100 * MIB + 12_345
PART = 8 * MIB
BLOCK = 64 << 10
PYTHON = str(paths.VENV_PYTHON)
SECS_MAX = 60
# Reads at random in every way that takes an offset or has one, by several threads; prints a hash of all that they got.
READS = """
import hashlib, os, random, sys, threading
path, seed, threads, count, most = sys.argv[1], *map(int, sys.argv[2:6])
sums = [None] * threads
def read(number):
    choose, found = random.Random(seed << 16 | number), hashlib.sha256()
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    for _ in range(count):
        at, length = choose.randrange(size), choose.randrange(1, most)
        way = choose.randrange(3)
        if way == 0:
            data = os.pread(fd, length, at)
        elif way == 1:
            rooms = [bytearray(length // 3), bytearray(length - length // 3)]
            data = b"".join(rooms)[:os.preadv(fd, rooms, at)]
            data = b"".join(rooms)[:len(data)]
        else:
            os.lseek(fd, at, os.SEEK_SET)
            data = os.read(fd, length)
        assert len(data) == min(length, size - at), (len(data), length, at)
        found.update(data)
    sums[number] = found.hexdigest()
    os.close(fd)
every = [threading.Thread(target=read, args=(number,)) for number in range(threads)]
[thread.start() for thread in every]
[thread.join() for thread in every]
print(sums)
"""
ATTEMPT = """
import errno, os, sys, mmap, random, hashlib
def attempt(call):
    try: return call()
    except OSError as e: return errno.errorcode[e.errno]
fd = os.open('big.bin', os.O_RDONLY)
size = os.fstat(fd).st_size
"""


class SmallReads(EnginesEnd):
    """Each test has an endpoint of its own, with its rules, in front of one file."""

    scratch: Path
    plain: Path
    content: bytes

    @classmethod
    def setUpClass(cls) -> None:
        paths.require_products()
        cls.scratch = Path(tempfile.mkdtemp(prefix="ossc-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.scratch, ignore_errors=True)
        cls.plain = cls.scratch / "root" / paths.BUCKET / PREFIX
        cls.plain.mkdir(parents=True)
        cls.content = random.Random(11).randbytes(SIZE)
        (cls.plain / "big.bin").write_bytes(cls.content)

    def start(self, rules: list[faults.Rule] | None = None, io: str | None = None, **config: Any) -> Run:
        scratch = Path(tempfile.mkdtemp(prefix="endpoint-", dir=self.scratch))
        endpoint = self.serving(Endpoint(self.scratch / "root", scratch, rules))
        return self.ending(Run(endpoint, PREFIX, config=config, io=io))

    def python(self, run: Run, code: str, *args: str, env: dict[str, str] | None = None, said: str = "") -> str:
        """What the program prints; `said`: the errno that the library names on stderr, and nothing else is there."""
        done = run.call([PYTHON, "-c", code, *args], env, cwd=run.model_dir, timeout=SECS_MAX)
        lines = done.stderr.decode().splitlines()
        self.assertEqual((done.returncode, bool(lines)), (0, bool(said)), f"{lines} {run.log_tail()}")
        self.assertTrue(all(line.startswith("oss connector: ") and f" {said}: " in line for line in lines), lines)
        return done.stdout.decode()

    def native(self, *args: str) -> str:
        return subprocess.run([PYTHON, "-c", READS, *args], cwd=self.plain, check=True, stdout=subprocess.PIPE, text=True).stdout

    def ranges(self, run: Run) -> list[tuple[int, int]]:
        """What was asked for of the object, in the order of the answers' ends."""
        return [(r.start or 0, r.end or 0) for r in run.endpoint.requests() if r.method == "GET" and r.key == KEY]

    def fetched(self, run: Run) -> int:
        return sum(end - start for start, end in self.ranges(run))

    def test_natively_and_preloaded_they_agree(self) -> None:
        args = ["big.bin", "1", "8", "60", "9000"]
        expected = self.native(*args)
        for io in ("uring", "epoll"):
            for pages in ("tmpfs", "memfd"):
                with self.subTest(io=io, pages=pages):
                    run = self.start(io=io)
                    self.assertEqual(self.python(run, READS, *args, env=run.env(OSSC_PAGES=pages)), expected, run.log_tail())
                    # The beginning is met as a header: two parts.
                    self.assertLess(self.fetched(run), 2 * PART + 8 * 60 * 2 * BLOCK + MIB)

    def test_with_little_memory_they_agree_and_fetch_little(self) -> None:
        limit = 24 * MIB
        args = ["big.bin", "2", "8", "200", "5000"]
        run = self.start(memoryLimit=limit)
        self.assertEqual(self.python(run, READS, *args), self.native(*args), run.log_tail())
        self.assertLess(self.fetched(run), 3 * PART + 8 * 200 * 2 * BLOCK)

    def test_one_read_fetches_one_block(self) -> None:
        run = self.start()
        got = self.python(run, ATTEMPT + "print(os.pread(fd, 10, 50 << 20 | 100).hex())")
        self.assertEqual(got.strip(), self.content[50 * MIB + 100:50 * MIB + 110].hex())
        self.assertEqual(self.ranges(run), [(50 * MIB, 50 * MIB + BLOCK)])

    def test_whoever_reads_on_gets_more_each_time_and_then_whole_parts(self) -> None:
        run = self.start()
        start, count = 3 * PART + 5 * BLOCK, 2 * PART
        code = ATTEMPT + f"at, end, found = {start}, {start + count}, hashlib.sha256()\nwhile at < end:\n    found.update(os.pread(fd, 16384, at)); at += 16384\nprint(found.hexdigest())"
        self.assertEqual(self.python(run, code).strip(), hashlib.sha256(self.content[start:start + count]).hexdigest())
        # The whole parts begin before and behind them.
        lengths = [end - begin for begin, end in sorted(self.ranges(run)) if end - begin < PART]
        self.assertEqual(lengths[:5], [BLOCK << n for n in range(5)])
        self.assertIn((3 * PART, 4 * PART), self.covered(run))

    def covered(self, run: Run) -> list[tuple[int, int]]:
        """Parts of which all was asked for by requests that begin where another ends."""
        asked = self.ranges(run)
        found = []
        for part in range(0, SIZE, PART):
            at = part
            while more := [end for start, end in asked if start == at and end > at]:
                at = max(more)
                if at >= part + PART:
                    found.append((part, part + PART))
                    break
        return found

    def test_a_footer_brings_what_is_before_it(self) -> None:
        run = self.start()
        self.python(run, ATTEMPT + "os.pread(fd, 22, size - 22); os.pread(fd, 5000, size - 400000)")
        self.assertEqual(len(self.ranges(run)), 1, self.ranges(run))

    def test_maps_and_transfers_after_small_reads_have_all_bytes(self) -> None:
        run = self.start()
        code = ATTEMPT + (
            "choose = random.Random(5)\n"
            "for _ in range(100): os.pread(fd, 100, choose.randrange(size))\n"
            "out = os.open('/dev/null', os.O_WRONLY); r, w = os.pipe()\n"
            "at = 41 << 20; os.pread(fd, 10, at); assert os.sendfile(w, fd, at, 60000) == 60000\n"
            "print(hashlib.sha256(os.read(r, 60000)).hexdigest())\n"
            "print(hashlib.sha256(mmap.mmap(fd, 0, access=mmap.ACCESS_READ)).hexdigest())\n"
        )
        piece = hashlib.sha256(self.content[41 * MIB:41 * MIB + 60000]).hexdigest()
        self.assertEqual(self.python(run, code).split(), [piece, hashlib.sha256(self.content).hexdigest()], run.log_tail())
        self.assertTrue(run.logged("loaded and verified", KEY), run.log_tail())

    def test_answers_that_fail_are_asked_for_again(self) -> None:
        args = ["big.bin", "3", "4", "50", "3000"]
        rules = [
            faults.cut(30_000, KEY, times=5), faults.refused(503, "ServiceUnavailable", KEY, times=5),
            faults.rule({"wrong_content_range": True}, KEY, times=3), faults.rule({"garbage": True}, KEY, times=3),
        ]
        run = self.start(rules)
        self.assertEqual(self.python(run, READS, *args), self.native(*args), run.log_tail())
        self.assertTrue(any(r.status == 503 for r in run.endpoint.requests()))

    def test_a_wrong_byte_that_a_reader_was_given_is_an_error_as_soon_as_it_is_known(self) -> None:
        """The block comes wrong, its part right: they are compared, and the whole is right in the end."""
        at = 50 * MIB + 100
        run = self.start([faults.flipped_at(KEY, at, times=1)], reviveSec=1)
        code = ATTEMPT + (
            f"print(os.getpid(), os.pread(fd, 1, {at})[0])\n"
            "other = os.open('big.bin', os.O_RDONLY)\n"
            "print(attempt(lambda: hashlib.sha256(mmap.mmap(other, 0, access=mmap.ACCESS_READ)).hexdigest()))\n"
            f"print(attempt(lambda: os.pread(fd, 1, {at})), attempt(lambda: os.pread(fd, 1, 0)))\n"
            "again = os.open('big.bin', os.O_RDONLY)\n"
            f"print(attempt(lambda: os.pread(again, 1, {at})[0]), attempt(lambda: os.pread(fd, 1, {at})))\n"
        )
        lines = self.python(run, code, said="EIO").splitlines()
        pid, first = lines[0].split()
        right = self.content[at]
        self.assertNotEqual(int(first), right)
        self.assertEqual(lines[1:], ["EIO", "EIO EIO", f"{right} EIO"], run.log_tail())
        (line,) = run.logged("ERROR", "parts were given to readers before")
        self.assertIn(f"{pid} python", line)
        self.assertIn("1 of 13 parts", line)
        self.assertTrue(run.logged("fetched again and verified; 1 processes had read other bytes and get EIO"), run.log_tail())

    def test_nobody_gets_all_of_an_object_that_is_wrong(self) -> None:
        at = 77 * MIB + 5
        run = self.start([faults.flipped_at(KEY, at)])
        code = ATTEMPT + (
            f"every = list(range(0, size, {BLOCK})); random.Random(8).shuffle(every)\n"
            f"got = [attempt(lambda: len(os.pread(fd, {BLOCK}, at))) for at in every]\n"
            "print(sum(isinstance(one, int) for one in got) < len(every), set(one for one in got if isinstance(one, str)))\n"
        )
        self.assertEqual(self.python(run, code, said="EIO").strip(), "True {'EIO'}", run.log_tail())

    def test_all_of_a_right_object_comes_block_by_block(self) -> None:
        run = self.start()
        code = ATTEMPT + (
            f"every = list(range(0, size, {BLOCK})); random.Random(9).shuffle(every)\n"
            f"got = {{at: os.pread(fd, {BLOCK}, at) for at in every}}\n"
            "print(hashlib.sha256(b''.join(got[at] for at in sorted(got))).hexdigest())\n"
        )
        self.assertEqual(self.python(run, code).strip(), hashlib.sha256(self.content).hexdigest(), run.log_tail())
        self.assertTrue(run.logged("loaded and verified", KEY), run.log_tail())

    def test_an_object_that_is_overwritten_meanwhile_is_never_mixed(self) -> None:
        root = self.scratch / "other-root"
        path = root / paths.BUCKET / PREFIX / "big.bin"
        blocks.put(root, path, blocks.content(1, 1, SIZE))
        endpoint = self.serving(Endpoint(root, self.scratch / "overwritten"))
        run = self.ending(Run(endpoint, PREFIX))
        code = ATTEMPT + (
            "choose, got = random.Random(1), []\n"
            "def some(count):\n"
            "    for _ in range(count):\n"
            "        at = choose.randrange(size // 4096) * 4096\n"
            "        data = attempt(lambda: os.pread(fd, 4096, at))\n"
            "        got.append(data if isinstance(data, str) else (int.from_bytes(data[:8], 'little') & 0xffffffff) * 8 == at and int.from_bytes(data[:8], 'little') >> 32)\n"
            "some(50); print('read', flush=True); sys.stdin.readline(); some(100)\n"
            "print(sorted(set(map(str, got))))\n"
        )
        program = run.start([PYTHON, "-c", code], cwd=run.model_dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert program.stdout is not None
        self.assertEqual(program.stdout.readline(), b"read\n", run.log_tail())
        blocks.put(root, path, blocks.content(1, 2, SIZE))
        found = program.communicate(b"\n", timeout=SECS_MAX)[0].decode().strip()
        version = str(1 << 24 | 1)
        self.assertIn(found, (f"['{version}', 'EIO']", f"['{version}', 'ESTALE']", f"['{version}', 'EIO', 'ESTALE']"), run.log_tail())

    def test_an_engine_that_is_killed_in_the_middle(self) -> None:
        """What it had of parts in blocks is not taken for more, and what was handed out is still compared."""
        args = ["big.bin", "4", "4", "400", "3000"]
        run = self.start([faults.rule({"delay_ms": 5}, KEY)], lingerSec=3)
        program = run.start([PYTHON, "-c", READS, *args], cwd=run.model_dir, stdout=subprocess.PIPE)
        for _ in range(3):
            count = len(self.ranges(run)) + 60
            while len(self.ranges(run)) < count and program.poll() is None:
                pass
            for engine in run.engines():
                os.kill(engine, signal.SIGKILL)
        out = program.communicate(timeout=SECS_MAX)[0].decode()
        self.assertEqual((program.returncode, out), (0, self.native(*args)), run.log_tail())
        self.assertGreater(run.engine_starts(), 1)

    def test_a_wrong_byte_of_an_engine_that_was_killed_is_noticed_by_the_next(self) -> None:
        at = 50 * MIB + 100
        run = self.start([faults.flipped_at(KEY, at, times=1)], lingerSec=3)
        code = ATTEMPT + (
            f"print(os.pread(fd, 1, {at})[0], flush=True); sys.stdin.readline()\n"
            "other = os.open('big.bin', os.O_RDONLY)\n"
            "print(attempt(lambda: hashlib.sha256(mmap.mmap(other, 0, access=mmap.ACCESS_READ)).hexdigest()))\n"
            f"print(attempt(lambda: os.pread(fd, 1, {at})))\n"
        )
        program = run.start([PYTHON, "-c", code], cwd=run.model_dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert program.stdout is not None
        self.assertNotEqual(int(program.stdout.readline()), self.content[at])
        (engine,) = run.engines()
        os.kill(engine, signal.SIGKILL)
        self.assertEqual(program.communicate(b"\n", timeout=SECS_MAX)[0].decode().split(), ["EIO", "EIO"], run.log_tail())

    def test_what_comes_again_is_compared_where_the_origin_gives_no_crc_too(self) -> None:
        at, without = 50 * MIB + 100, faults.rule({"drop_crc": True}, KEY)
        run = self.start([without], memoryLimit=24 * MIB)
        code = ATTEMPT + (
            "with open('big.bin', 'rb') as whole: print(hashlib.file_digest(whole, 'sha256').hexdigest(), flush=True)\n"
            f"sys.stdin.readline(); print(os.pread(fd, 1, {at})[0])\n"
        )
        program = run.start([PYTHON, "-c", code], cwd=run.model_dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert program.stdout is not None
        self.assertEqual(program.stdout.readline().decode().strip(), hashlib.sha256(self.content).hexdigest(), run.log_tail())
        run.endpoint.set_rules([without, faults.flipped_at(KEY, at, times=1)])
        before = len([start for start, end in self.ranges(run) if start <= at < end])
        found = program.communicate(b"\n", timeout=SECS_MAX)[0].decode().strip()
        self.assertEqual(found, str(self.content[at]), run.log_tail())
        self.assertEqual(len([start for start, end in self.ranges(run) if start <= at < end]) - before, 2, "come wrong, and come again")

    def test_the_audit_file_counts_blocks_as_they_were_fetched(self) -> None:
        run = self.start()
        self.python(run, ATTEMPT + "for n in range(20): os.pread(fd, 100, (n * 5 << 20) + 70000)")
        rows = [row for row in map(json.loads, run.audit_lines()) if row.get("bytes")]
        self.assertEqual(sum(int(row["bytes"]) for row in rows if row["object"].endswith(KEY)), self.fetched(run))
