"""What docs/SEMANTICS.md says and no other test shows; and that each of its rows names tests that exist."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import time
import unittest
from pathlib import Path
from typing import Any

from tests.e2e.base import PREFIX, EndToEnd
from tests.harness import compile as compiler
from tests.harness import faults, folder, paths
from tests.harness.endpoint import Endpoint
from tests.harness.run import Run, plain_env

PYTHON = str(paths.VENV_PYTHON)
DOCUMENT = paths.ROOT / "docs" / "SEMANTICS.md"
# A row of its tables: number, promise or limit, tests. What begins with a number and has other cells is a mistake.
NUMBERED = re.compile(r"^\| *\d")
ROW = re.compile(r"\| (\d+) \| ([^|]+) \| ([^|]+) \|")
TEST = re.compile(r"`(test_\w+)\.(\w+)(?:\.(\w+))?`")
CARGO = re.compile(r"cargo `(\w+)`")
CRATES = ("src", "net", "cache", "sign")
ATTEMPT = (
    "import errno, hashlib, mmap, os, sys\n"
    "def attempt(f):\n"
    "    try: print(f())\n"
    "    except OSError as e: print(errno.errorcode[e.errno])\n"
)


class Document(unittest.TestCase):
    """Each row names at least one test, and each named test exists."""

    def rows(self) -> list[tuple[int, str, str]]:
        """Number, promise or limit, and tests of each row."""
        found = []
        for line in filter(NUMBERED.match, DOCUMENT.read_text().splitlines()):
            row = ROW.fullmatch(line)
            if row is None:
                self.fail(f"not a number, a promise and its tests: {line}")
            found.append((int(row[1]), row[2], row[3]))
        return found

    def test_each_row_names_a_test_that_exists(self) -> None:
        rows = self.rows()
        self.assertGreater(len(rows), 100)
        self.assertEqual([number for number, *_ in rows], list(range(1, len(rows) + 1)))
        for number, _, tests in rows:
            named = TEST.findall(tests)
            self.assertTrue(named, f"row {number} names no test: {tests}")
            self.assertNotIn("test_", TEST.sub("", tests), f"row {number} names a test in another form")
            for module, group, method in named:
                with self.subTest(row=number, test=f"{module}.{group}.{method}"):
                    loaded = __import__(f"tests.e2e.{module}", fromlist=[group])
                    self.assertTrue(issubclass(getattr(loaded, group), unittest.TestCase))
                    self.assertTrue(callable(getattr(getattr(loaded, group), method or "run")))

    def test_each_named_test_of_a_crate_exists(self) -> None:
        sources = "".join(file.read_text() for crate in CRATES for file in (paths.ROOT / crate).rglob("*.rs"))
        named = CARGO.findall(DOCUMENT.read_text())
        self.assertTrue(named)
        for name in named:
            self.assertIn(f"fn {name}()", sources, f"no crate has this test: {name}")

    def test_the_library_needs_what_the_document_says(self) -> None:
        done = subprocess.run(["readelf", "-d", str(paths.PRELOAD)], capture_output=True, text=True, check=True, env=plain_env())
        needed = set(re.findall(r"NEEDED.*\[(.*)\]", done.stdout))
        self.assertLessEqual(needed, {"libgcc_s.so.1", "libc.so.6", "ld-linux-x86-64.so.2", "libpthread.so.0", "libdl.so.2"})
        self.assertIn("libgcc_s", DOCUMENT.read_text())


class Semantics(EndToEnd):
    """Each test has an endpoint of its own, since some change the objects or the rules."""

    def start(self, rules: list[faults.Rule] | None = None, **config: Any) -> Run:
        scratch = self.scratch / self.id().rsplit(".", 1)[-1]
        endpoint = Endpoint(self.scratch / "root", scratch, rules)
        endpoint.start()
        self.addCleanup(endpoint.stop)
        run = Run(endpoint, PREFIX, config={"materializeBytes": folder.MATERIALIZE_BYTES, **config})
        self.addCleanup(self.finish, run)
        return run

    def python(self, run: Run, code: str, *given: str, **options: Any) -> list[str]:
        done = run.call([PYTHON, "-c", ATTEMPT + code, *given], cwd=run.model_dir, **options)
        self.assertEqual(done.returncode, 0, done.stderr.decode() + run.log_tail())
        return done.stdout.decode().splitlines()

    def sha(self, name: str) -> str:
        return hashlib.sha256((self.plain / name).read_bytes()).hexdigest()

    def test_parts_are_served_before_the_verdict_and_maps_after_it(self) -> None:
        """The object is wrong, and its last byte is refused, so no verdict falls, until the program has read the first part."""
        name = f"{PREFIX}/b.bin"
        wrong = faults.rule({"bad_crc": True}, name)
        end = {"match": {"kind": "get", "key": name, "covers": (self.plain / "b.bin").stat().st_size - 1}, "do": {"status": 503, "code": "ServiceUnavailable"}}
        run = self.start([wrong, end])
        rules = self.scratch / self.id().rsplit(".", 1)[-1] / "faults.json"
        fewer = rules.with_suffix(".fewer")
        fewer.write_text(json.dumps([wrong]))
        got = self.python(run, (
            "f = open('b.bin', 'rb', buffering=0)\n"
            "attempt(lambda: hashlib.sha256(os.pread(f.fileno(), 1 << 20, 0)).hexdigest())\n"
            "os.rename(sys.argv[1], sys.argv[2])\n"
            "attempt(lambda: hashlib.sha256(mmap.mmap(f.fileno(), 1 << 20, access=mmap.ACCESS_READ)).hexdigest())\n"
            "attempt(lambda: os.pread(f.fileno(), 1 << 20, 0))\n"
            "attempt(lambda: mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))\n"
            "import ctypes; libc = ctypes.CDLL(None, use_errno=True); libc.fopen.restype = ctypes.c_void_p\n"
            "print(libc.fopen(b'b.bin', b'r'), errno.errorcode[ctypes.get_errno()])\n"
        ), str(fewer), str(rules))
        first = hashlib.sha256((self.plain / "b.bin").read_bytes()[: 1 << 20]).hexdigest()
        # A map of a part waits for the verdict, and once it is known a part of a bad object is refused too.
        self.assertEqual(got, [first, "EIO", "EIO", "EIO", "None EIO"], run.log_tail())

    def test_small_object_on_its_way(self) -> None:
        """Without the library it is an empty file, with it the open waits; no temporary name stays."""
        run = self.start([faults.rule({"delay_ms": 2500}, f"{PREFIX}/nested/small.json")])
        waiting = run.start(["sha256sum", "nested/small.json"], cwd=run.model_dir, stdout=subprocess.PIPE)
        assert waiting.stdout is not None
        self.addCleanup(waiting.stdout.close)
        place = run.model_dir / "nested" / "small.json"
        sizes = []
        while waiting.poll() is None:
            sizes += [place.stat().st_size] if place.exists() else []
            time.sleep(0.02)
        self.assertEqual(waiting.stdout.read().split()[0].decode(), self.sha("nested/small.json"), run.log_tail())
        self.assertEqual((sizes[0], place.stat().st_size), (0, 700))
        self.assertLessEqual(set(sizes), {0, 700})
        names = {str(p.relative_to(run.model_dir)) for p in run.model_dir.rglob("*")}
        self.assertEqual(names, {str(p.relative_to(self.plain)) for p in self.plain.rglob("*")})

    def test_a_descriptor_of_a_small_object_on_its_way_is_no_empty_file(self) -> None:
        """A shell without the library opens the stand-in, and gives it to a program with it: no way to read says that it ends."""
        run = self.start([faults.rule({"delay_ms": 60_000}, f"{PREFIX}/nested/small.json")])
        place = run.model_dir / "nested" / "small.json"
        waiting = run.start(["sha256sum", str(place)], stdout=subprocess.DEVNULL)
        self.addCleanup(waiting.wait)
        self.addCleanup(waiting.kill)
        while not place.exists():
            time.sleep(0.01)
        program = str(compiler.program("early.c"))
        for way in ("read", "aio_read", "mmap", "lseek", "sendfile", "fdopen", "stdin"):
            with self.subTest(way=way):
                done = run.call(["bash", "-c", f'exec 9< {place} < {place}; LD_PRELOAD="$LIBRARY" exec {program} {way}'], run.env(LD_PRELOAD=None, LIBRARY=run.env()["LD_PRELOAD"]))
                self.assertEqual(done.stdout.decode(), f"{way} -1\n", run.log_tail())
                self.assertIn(f"{place}: ESTALE: read of an object that was opened before it was there", done.stderr.decode())

    def test_a_stream_that_is_led_to_an_object_without_a_descriptor_left_is_no_empty_file(self) -> None:
        """Standard output and error are only written, or they are not; either way no read may say end of file."""
        code = (
            "import ctypes, resource; libc = ctypes.CDLL(None, use_errno=True); libc.fopen.restype = ctypes.c_void_p\n"
            "stream = ctypes.c_void_p(libc.fopen(b'/proc/self/stat', b'r')); fd = os.open('b.bin', os.O_RDONLY)\n"
            "room = ctypes.create_string_buffer(100)\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); taken = []\n"
            "try:\n"
            "    while True: taken.append(os.dup(2))\n"
            "except OSError: pass\n"
            "os.dup2(fd, libc.fileno(stream)); ctypes.set_errno(0)\n"
            "got = libc.fread(room, 1, 100, stream); os.close(taken[0])\n"
            "print(got, libc.feof(stream) != 0, libc.ferror(stream) != 0)\n"
        )
        # A pipe's end is written only; a file that is opened for both could be read.
        with (self.scratch / "both").open("w+b") as both:
            run = self.start()
            self.assertEqual(self.python(run, code), ["0 False True"])
            done = run.start([PYTHON, "-c", ATTEMPT + code], cwd=run.model_dir, stdout=both, stderr=both)
            self.assertEqual(done.wait(60), 0, run.log_tail())
            both.seek(0)
            self.assertIn(b"0 False True\n", both.read())

    def test_a_program_without_a_descriptor_waits_for_the_listings_of_others(self) -> None:
        """It cannot ask the engine, which lists the folder of this leftover by itself."""
        name = "nested/deep/c.bin"
        run = self.start([faults.rule({"delay_ms": 0}, "none")])
        self.assertEqual(run.call(["stat", name], cwd=run.model_dir).returncode, 0, run.log_tail())
        self.assertIsNotNone(run.wait_engines_gone(run.linger_secs + 3))
        run.endpoint.set_rules([{"match": {"kind": "list", "prefix": f"{PREFIX}/nested/"}, "do": {"delay_ms": 1500}}])
        holder = run.start(["sleep", "60"])
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        end = time.monotonic() + 10
        while run.engine_starts() < 2 and time.monotonic() < end:
            time.sleep(0.02)
        limit = (12, 12)
        got = self.python(run, (
            "taken = []\n"
            "try:\n"
            "    while True: taken.append(os.dup(2))\n"
            "except OSError: pass\n"
            "attempt(lambda: os.stat(sys.argv[1]).st_size)\n"
        ), name, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit))
        self.assertEqual(got, [str((self.plain / name).stat().st_size)], run.log_tail())

    def test_stream_has_a_position_of_its_own(self) -> None:
        got = self.python(self.start(), (
            "import ctypes; libc = ctypes.CDLL(None); libc.fdopen.restype = ctypes.c_void_p\n"
            "fd = os.open('b.bin', os.O_RDONLY); other = os.dup(fd)\n"
            "os.lseek(fd, 1000, os.SEEK_SET); print(os.lseek(other, 0, os.SEEK_CUR))\n"
            "stream = ctypes.c_void_p(libc.fdopen(fd, b'r')); room = ctypes.create_string_buffer(100)\n"
            "libc.fread(room, 1, 100, stream); print(libc.ftell(stream), os.lseek(other, 0, os.SEEK_CUR))\n"
            "print(os.pread(other, 100, 1000) == room.raw)\n"
        ))
        self.assertEqual(got, ["1000", "1100 1000", "True"])

    def test_link_and_chmod_are_real_and_times_stay_the_objects(self) -> None:
        got = self.python(self.start(), (
            "size = os.path.getsize('b.bin')\n"
            "attempt(lambda: os.link('b.bin', 'second.bin'))\n"
            "attempt(lambda: os.path.getsize('second.bin') == size and os.path.samefile('b.bin', 'second.bin'))\n"
            "attempt(lambda: open('second.bin', 'rb').read() == open('b.bin', 'rb').read())\n"
            "attempt(lambda: os.chmod('b.bin', 0o600))\nattempt(lambda: oct(os.stat('b.bin').st_mode & 0o777))\n"
            "time = os.stat('b.bin').st_mtime\nattempt(lambda: os.utime('b.bin', (5, 1000000000)))\n"
            "attempt(lambda: os.stat('b.bin').st_mtime == time)\n"
            "attempt(lambda: os.path.getsize('b.bin') == size)\n"
        ))
        self.assertEqual(got, ["None", "True", "True", "None", "0o600", "None", "True", "True"])

    def test_recycled_inode_is_an_ordinary_file(self) -> None:
        got = self.python(self.start(), (
            "open('a.bin', 'rb').read(10); inode = os.stat('a.bin').st_ino; os.remove('a.bin')\n"
            "bad = 0\n"
            "for n in range(300):\n"
            "    open(f'own{n}', 'w').close()\n"
            "    bad += open(f'own{n}', 'rb').read() != b'' or os.path.getsize(f'own{n}') != 0\n"
            "    open(f'own{n}', 'w').write(str(n)); bad += open(f'own{n}').read() != str(n)\n"
            "print(bad)\n"
            "for n in range(300): os.remove(f'own{n}')\n"
        ))
        self.assertEqual(got, ["0"])

    def test_changed_object(self) -> None:
        """What was read before keeps its bytes, what was not is ESTALE, and a later open has the new ones."""
        target = self.plain / "versions.bin"
        target.write_bytes(b"\x01" * 3_000_000)
        self.addCleanup(target.unlink)
        run = self.start()
        replaced = self.plain / ".next"
        code = (
            "import time\n"
            "old = open('versions.bin', 'rb', buffering=0); print(len(old.read(3_000_000)))\n"
            "seen = open('versions.bin', 'rb')\n"
            "print('now', flush=True); sys.stdin.readline()\n"
            "print(old.seek(0), set(old.read(3_000_000)))\n"
            "print(set(seen.read()))\n"
        )
        process = run.start([PYTHON, "-c", ATTEMPT + code], cwd=run.model_dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        while process.stdout.readline() != b"now\n":
            self.assertIsNone(process.poll(), run.log_tail())
        replaced.write_bytes(b"\x02" * 3_000_000)
        replaced.rename(target)
        out, _ = process.communicate(b"\n", timeout=60)
        # The old version was in memory as a whole.
        self.assertEqual(out.decode().splitlines(), ["0 {1}", "{1}"], run.log_tail())
        self.assertIsNotNone(run.wait_engines_gone(run.linger_secs + 5))
        self.assertEqual(self.python(run, "print(set(open('versions.bin', 'rb').read()))"), ["{2}"], run.log_tail())

    def test_nobody_can_start_an_engine(self) -> None:
        """A secondary without the variables of a primary: EIO in time, when the engine has been killed."""
        run = self.start(lingerSec=20)
        self.assertEqual(self.python(run, "print(len(open('a.bin', 'rb').read(10)))"), ["10"])
        (engine,) = run.engines()
        secondary = run.env(2, **{name: None for name in run.env() if name.startswith("OSS_")})
        code = (
            "f = os.open('b.bin', os.O_RDONLY); print(os.fstat(f).st_size > 0, flush=True)\n"
            "sys.stdin.readline()\nattempt(lambda: len(os.pread(f, 1000, 15_000_000)))\n"
        )
        process = run.start([PYTHON, "-c", ATTEMPT + code], secondary, cwd=run.model_dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), b"True\n", run.log_tail())
        os.kill(engine, signal.SIGKILL)
        begin = time.monotonic()
        out, _ = process.communicate(b"\n", timeout=60)
        self.assertEqual(out, b"EIO\n", run.log_tail())
        self.assertLess(time.monotonic() - begin, 15)

    def test_file_of_the_users_is_never_overwritten(self) -> None:
        run = self.start()
        own = run.model_dir / "a.bin"
        own.write_bytes(b"mine")
        done = run.call(["true"], cwd=run.model_dir)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"failed to launch oss connector: ", done.stderr)
        self.assertIn(b"a.bin", done.stderr)
        self.assertEqual(own.read_bytes(), b"mine")
        self.assertEqual([p.name for p in Path(run.model_dir).iterdir()], ["a.bin"])


class Engine(EndToEnd):
    """What docs/ARCHITECTURE.md says of the engine's process."""

    def test_threads_are_the_listed_ones(self) -> None:
        text = (paths.ROOT / "docs" / "ARCHITECTURE.md").read_text()
        # The kernel keeps 15 characters of a name.
        listed = {name.removesuffix("-N")[:15] for name in re.findall(r"^\| `(ossc[\w-]*)`", text, re.MULTILINE)}
        self.assertGreater(len(listed), 6)
        run = self.managed()
        self.assertEqual(run.call(["sha256sum", "b.bin"], cwd=run.model_dir).returncode, 0)
        (engine,) = run.engines()
        running = {(task / "comm").read_text().strip() for task in Path(f"/proc/{engine}/task").iterdir()}
        self.assertLessEqual({re.sub(r"-\d+$", "", name) for name in running}, listed)
        self.assertIn("ossc-net-0", running)
