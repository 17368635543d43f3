"""Children, secondaries, restarts and deaths: whoever reads gets the same bytes from the same engine."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import subprocess
import time

from tests.e2e.base import PREFIX, EndToEnd
from tests.harness import compile as compiler
from tests.harness import folder, paths
from tests.harness.requestlog import once_problems
from tests.harness.run import Run

PYTHON = str(paths.VENV_PYTHON)


# Becomes the program in its arguments with a seccomp filter that refuses close_range(2), as older sandboxes do.
WITHOUT_CLOSE_RANGE = """
import ctypes, os, struct, sys
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, 436), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(rules), ctypes.addressof(code)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program) == 0
os.execve(sys.argv[1], sys.argv[1:], {**os.environ, "LD_PRELOAD": os.environ["LATER"]})
"""


class Inherit(EndToEnd):
    """The first process is the primary; all others come from it or stand beside it."""

    def setUp(self) -> None:
        self.endpoint.forget()

    def sha(self, name: str) -> str:
        return hashlib.sha256((self.plain / name).read_bytes()).hexdigest()

    def assert_once(self, run: Run, names: list[str]) -> None:
        sizes = {k: s for k, s in folder.sizes(self.plain, PREFIX).items() if k[len(PREFIX) + 1:] in names}
        requests = [r for r in self.endpoint.requests() if r.key in sizes]
        self.assertEqual(once_problems(requests, sizes), [], run.log_tail())

    def hold(self, run: Run) -> subprocess.Popen[bytes]:
        """A primary that has everything mapped and stays."""
        process = run.start([PYTHON, str(paths.APPS / "hold.py"), str(run.model_dir)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertTrue(process.stdout.readline().startswith(b"ready"), run.log_tail())
        return process

    def test_grandchildren_share_one_download(self) -> None:
        run = self.managed()
        script = "sha256sum b.bin; sh -c 'sh -c \"sha256sum b.bin; sha256sum nested/deep/c.bin\"; sha256sum b.bin'"
        done = run.call(["bash", "-c", script], cwd=run.model_dir)
        digests = [line.split()[0] for line in done.stdout.decode().splitlines()]
        self.assertEqual(digests, [self.sha(n) for n in ("b.bin", "b.bin", "nested/deep/c.bin", "b.bin")], run.log_tail())
        self.assert_once(run, ["b.bin", "nested/deep/c.bin"])
        self.assertEqual(run.engine_starts(), 1)

    def test_child_without_the_library_sees_end_of_file(self) -> None:
        run = self.managed()
        script = "sha256sum < b.bin > /dev/null; env -u LD_PRELOAD wc -c b.bin a.bin small.bin; env -u LD_PRELOAD wc -c < b.bin"
        done = run.call(["bash", "-c", script], cwd=run.model_dir)
        counts = [line.split()[0] for line in done.stdout.decode().splitlines()]
        self.assertEqual(counts[:4], ["0", "0", "5000", "5000"], done.stderr.decode())
        # `env` has the library, so its standard input may already be the object itself.
        self.assertIn(counts[4], ("0", str((self.plain / "b.bin").stat().st_size)))

    def test_static_child_with_an_inherited_descriptor_sees_end_of_file(self) -> None:
        run = self.managed()
        reader = compiler.program("read_raw.c", "static")
        done = run.call(["bash", "-c", f'exec 7< b.bin; "{reader}" /proc/self/fd/7; wc -c <&7'], cwd=run.model_dir)
        self.assertEqual(done.stdout.split(), [b"0", b"0", str((self.plain / "b.bin").stat().st_size).encode()])

    def test_secondary_needs_only_the_folder(self) -> None:
        run = self.managed()
        self.hold(run)
        env = run.env(2, OSS_ACCESS_KEY_ID=None, OSS_ACCESS_KEY_SECRET=None, OSS_PATH=None, OSS_ENDPOINT=None)
        done = run.call(["sha256sum", "b.bin"], env, cwd=run.model_dir)
        self.assertEqual(done.stdout.decode().split()[:1], [self.sha("b.bin")], done.stderr.decode() + run.log_tail())
        self.assert_once(run, ["b.bin"])
        self.assertEqual(run.engine_starts(), 1)

    def test_child_outlives_the_primary(self) -> None:
        run = self.managed()
        out = run.dir / "late"
        script = f'(sleep {run.linger_secs + 1.5}; sha256sum b.bin > "{out}") > /dev/null 2>&1 & sha256sum a.bin'
        done = run.call(["bash", "-c", script], cwd=run.model_dir)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and not (out.exists() and out.read_text()):
            time.sleep(0.05)
        self.assertEqual(out.read_text().split()[:1], [self.sha("b.bin")], run.log_tail())

    def test_all_descriptors_closed(self) -> None:
        run = self.managed()
        code = (
            "import hashlib, os; open('a.bin', 'rb').read(10); os.closerange(3, 4096)\n"
            "print(hashlib.sha256(open('b.bin', 'rb').read()).hexdigest())"
        )
        done = run.call([PYTHON, "-c", code], cwd=run.model_dir)
        self.assertEqual(done.stdout.decode().strip(), self.sha("b.bin"), done.stderr.decode() + run.log_tail())

    def test_a_range_of_descriptors_below_what_is_kept_is_closed(self) -> None:
        """Standard input's offset is told to the next program that reads it, whatever else was closed."""
        run = self.managed({"lingerSec": 5})
        run.call(["cat", "a.bin"], cwd=run.model_dir)
        code = "import ctypes, os; os.read(0, 1000); print(ctypes.CDLL(None).close_range(3, 50, 0))"
        with open(run.model_dir / "a.bin", "rb") as shared:
            closed = run.call([PYTHON, "-c", code], stdin=shared)
            done = run.call(["sha256sum"], stdin=shared)
        self.assertEqual(closed.stdout, b"0\n", closed.stderr.decode())
        rest = hashlib.sha256((self.plain / "a.bin").read_bytes()[1000:]).hexdigest()
        self.assertEqual(done.stdout.decode().split()[:1], [rest], done.stderr.decode() + run.log_tail())

    def test_a_pipe_of_the_host_ends_with_the_host_where_close_range_is_refused(self) -> None:
        run = self.managed({"lingerSec": 5})
        end, begin = os.pipe()
        self.addCleanup(os.close, end)
        env = run.env(LD_PRELOAD=None, LATER=str(paths.PRELOAD))
        done = run.call([PYTHON, "-c", WITHOUT_CLOSE_RANGE, "/bin/cat", "a.bin"], env, cwd=run.model_dir, pass_fds=[begin])
        os.close(begin)
        self.assertEqual(hashlib.sha256(done.stdout).hexdigest(), self.sha("a.bin"), done.stderr.decode())
        self.assertEqual(len(run.engines()), 1, "the engine lingers")
        self.assertTrue(select.select([end], [], [], 2)[0], "the engine keeps the host's pipe open")
        self.assertEqual(os.read(end, 1), b"")

    def test_engine_killed_under_a_reader(self) -> None:
        """A reader that waits when the engine is killed gets the bytes from its successor, or EIO in time."""
        run = self.managed()
        holder = self.hold(run)
        engines = run.engines()
        self.assertEqual(len(engines), 1, run.log_tail())
        os.kill(engines[0], signal.SIGKILL)
        begin = time.monotonic()
        done = run.call(["sha256sum", "a.bin", "b.bin"], cwd=run.model_dir, timeout=60)
        self.assertLess(time.monotonic() - begin, 20)
        self.assertEqual(
            [line.split()[0] for line in done.stdout.decode().splitlines()],
            [self.sha("a.bin"), self.sha("b.bin")], done.stderr.decode() + run.log_tail(),
        )
        holder.kill()

    def test_host_sees_no_child_of_ours(self) -> None:
        """wait() and SIGCHLD of the host must not notice the engine."""
        run = self.managed()
        code = (
            "import os, signal\n"
            "seen = []; signal.signal(signal.SIGCHLD, lambda *_: seen.append(1))\n"
            "open('b.bin', 'rb').read(10)\n"
            "try:\n    os.waitpid(-1, os.WNOHANG); print('a child')\n"
            "except ChildProcessError: print('no child', seen)"
        )
        done = run.call([PYTHON, "-c", code], cwd=run.model_dir)
        self.assertEqual(done.stdout.decode().strip(), "no child []", done.stderr.decode())

    def test_no_thread_and_no_connection_in_the_host(self) -> None:
        run = self.managed()
        code = (
            "import os\nopen('b.bin', 'rb').read()\nprint(len(os.listdir('/proc/self/task')))\n"
            "links = [os.readlink(f'/proc/self/fd/{f}') for f in os.listdir('/proc/self/fd') if os.path.lexists(f'/proc/self/fd/{f}')]\n"
            "inodes = {l[8:-1] for l in links if l.startswith('socket:')}\n"
            "print([l for l in open('/proc/net/tcp') if l.split()[9] in inodes])"
        )
        done = run.call([PYTHON, "-c", code], cwd=run.model_dir)
        self.assertEqual(done.stdout.decode().split("\n")[:2], ["1", "[]"], done.stderr.decode())


class Write(EndToEnd):
    """The model is read-only: writing to a placeholder is EROFS, removing it is the real call."""

    def call(self, code: str) -> list[str]:
        run = self.managed()
        program = (
            "import errno, os\n"
            "def attempt(f):\n"
            "    try: print('ok', f())\n"
            "    except OSError as e: print(errno.errorcode[e.errno])\n" + code
        )
        done = run.call([PYTHON, "-c", program], cwd=run.model_dir)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout.decode().splitlines()

    def test_writes_are_refused(self) -> None:
        got = self.call(
            "attempt(lambda: os.open('b.bin', os.O_WRONLY))\n"
            "attempt(lambda: os.open('b.bin', os.O_RDWR | os.O_TRUNC))\n"
            "attempt(lambda: os.open('b.bin', os.O_WRONLY | os.O_CREAT | os.O_TRUNC))\n"
            "attempt(lambda: os.open('b.bin', os.O_WRONLY | os.O_APPEND))\n"
            "attempt(lambda: os.truncate('b.bin', 5))\n"
            "attempt(lambda: open('b.bin', 'wb'))\n"
            "fd = os.open('b.bin', os.O_RDWR)\n"
            "attempt(lambda: os.write(fd, b'x'))\n"
            "attempt(lambda: os.pwrite(fd, b'x', 0))\n"
            "attempt(lambda: os.ftruncate(fd, 0))\n"
            "attempt(lambda: len(os.read(fd, 10)))\n"
        )
        self.assertEqual(got, ["EROFS"] * 9 + ["ok 10"])

    def test_writes_by_number_are_refused(self) -> None:
        got = self.call(
            "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"
            "class Entry(ctypes.Structure): _fields_ = ('at', ctypes.c_char_p), ('len', ctypes.c_size_t)\n"
            "def number(*given):\n"
            "    got = libc.syscall(*[ctypes.c_long(g) if isinstance(g, int) else g for g in given])\n"
            "    if got < 0: raise OSError(ctypes.get_errno(), '')\n"
            "    return got\n"
            "fd, one = os.open('b.bin', os.O_RDWR), ctypes.byref(Entry(b'x', 1)); size = os.fstat(fd).st_size\n"
            # write, pwrite64, writev, pwritev, pwritev2, ftruncate, fallocate
            "for given in (1, fd, b'x', 1), (18, fd, b'x', 1, 0), (20, fd, one, 1), (296, fd, one, 1, 0, 0), (328, fd, one, 1, 0, 0, 0), (77, fd, 0), (285, fd, 0, 0, 4096):\n"
            "    attempt(lambda: number(*given))\n"
            "attempt(lambda: len(os.read(fd, 10)))\nattempt(lambda: os.fstat(fd).st_size == size)\n"
        )
        self.assertEqual(got, ["EROFS"] * 7 + ["ok 10", "ok True"])

    def test_other_files_in_the_folder_are_ordinary(self) -> None:
        got = self.call(
            "open('mine', 'w').write('text')\nattempt(lambda: open('mine').read())\n"
            "attempt(lambda: os.rename('mine', 'nested/mine'))\nattempt(lambda: os.remove('nested/mine'))\n"
            "attempt(lambda: os.mkdir('own'))\nattempt(lambda: sorted(os.listdir('own')))\n"
        )
        self.assertEqual(got, ["ok text", "ok None", "ok None", "ok None", "ok []"])

    def test_unlink_and_rename_are_real(self) -> None:
        got = self.call(
            "size = os.path.getsize('b.bin')\n"
            "attempt(lambda: os.rename('b.bin', 'moved.bin'))\n"
            "attempt(lambda: os.path.getsize('moved.bin') == size)\n"
            "attempt(lambda: os.path.exists('b.bin'))\n"
            "attempt(lambda: len(open('moved.bin', 'rb').read()) == size)\n"
            "attempt(lambda: os.remove('moved.bin'))\nattempt(lambda: os.path.exists('moved.bin'))\n"
        )
        self.assertEqual(got, ["ok None", "ok True", "ok False", "ok True", "ok None", "ok False"])
