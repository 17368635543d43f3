"""Roles that heal: whoever ends, stops or is killed, in whatever process, the others read on; and hosts that are peculiar."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from tests.checks import heal
from tests.e2e.base import PREFIX, EndToEnd
from tests.harness import compile as compiler
from tests.harness import folder, paths
from tests.harness.endpoint import Endpoint
from tests.harness.requestlog import body_gets
from tests.harness.run import Run, plain_env

PYTHON = str(paths.VENV_PYTHON)
FILES = ["b.bin", "nested/deep/c.bin", "small.bin"]
# An own user, so that nobody else's processes count for its limit.
LONELY = 54321
SUBREAPER = "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); os.execve(sys.argv[1], sys.argv[1:], {**os.environ, 'LD_PRELOAD': os.environ['LATER']})"

# Reads the beginning of each file, kills the engine, and reads the whole file.
KILLER = """
import hashlib, os, signal, sys

def processes(wanted):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = open(f"/proc/{pid}/stat").read()
        except OSError:
            continue
        name, state = stat[stat.index("(") + 1:stat.rindex(")")], stat[stat.rindex(")") + 2]
        if wanted(name, state):
            yield int(pid)

killed = 0
for path in sys.argv[1:]:
    open(path, "rb").read(10)
    for pid in processes(lambda name, state: name == "ossc" and state != "Z"):
        os.kill(pid, signal.SIGKILL)
        killed += 1
    print(hashlib.sha256(open(path, "rb").read()).hexdigest())
print(killed, len(list(processes(lambda name, state: state == "Z"))))
"""

# Maps a part of a file, has another program's engine take over, and lets the map grow to the whole file.
GROWER = """
import ctypes, hashlib, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
size = os.path.getsize("b.bin")
fd = os.open("b.bin", os.O_RDONLY)
at = libc.mmap(None, ctypes.c_size_t(1 << 20), 1, 2, fd, ctypes.c_long(0))
print("mapped", flush=True)
sys.stdin.readline()
# A read finds the new engine first.
whole = os.pread(fd, 100, size - 100)
grown = libc.mremap(ctypes.c_void_p(at), ctypes.c_size_t(1 << 20), ctypes.c_size_t(size), 1)
if grown in (None, ctypes.c_void_p(-1).value):
    print(ctypes.get_errno())
else:
    print(hashlib.sha256(ctypes.string_at(grown, size)).hexdigest())
"""

# Maps a part of a file, moves the map to another address, and lets it grow there to the whole file.
MOVER = """
import ctypes, hashlib, os
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
length, size = ctypes.c_size_t(1 << 20), os.path.getsize("b.bin")
at = libc.mmap(None, length, 1, 2, os.open("b.bin", os.O_RDONLY), ctypes.c_long(0))
room = libc.mmap(None, length, 0, 0x22, -1, ctypes.c_long(0))
moved = libc.mremap(ctypes.c_void_p(at), length, length, 3, ctypes.c_void_p(room))
grown = libc.mremap(ctypes.c_void_p(moved), length, ctypes.c_size_t(size), 1)
print(hashlib.sha256(ctypes.string_at(grown, size)).hexdigest())
"""

# Copies a file inside the kernel, all in one call as far as the kernel goes.
COPIER = """
import os, sys
source, target = os.open("b.bin", os.O_RDONLY), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT, 0o644)
size, at = os.fstat(source).st_size, 0
while at < size:
    if sys.argv[1] == "sendfile":
        done = os.sendfile(target, source, at, size - at)
    else:
        done = os.copy_file_range(source, target, size - at, at)
    assert done > 0
    at += done
"""

# Reads the begin of a file, and when it is told to all of it.
LATE = """
import hashlib, sys
file = open("b.bin", "rb")
file.read(10)
print("attached", flush=True)
sys.stdin.readline()
file.seek(0)
print(hashlib.sha256(file.read()).hexdigest())
"""


class Heal(EndToEnd):
    """All readers are heal_reader, whose sums are compared with those of a native run."""

    endpoint_options: ClassVar[list[str]] = ["--rate-bytes-per-sec", "60000000"]
    sums: dict[str, str]
    reader: str

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.reader = str(compiler.program("heal_reader.c"))
        done = subprocess.run([cls.reader, "read", *FILES], cwd=cls.plain, env=plain_env(), capture_output=True, check=True)
        cls.sums = cls.read_sums(done.stdout.decode())

    def setUp(self) -> None:
        self.endpoint.forget()

    def finish(self, run: Run) -> None:
        """That engines leave by themselves is tested elsewhere: here it would be half of the time."""
        for pid in run.engines():
            os.kill(pid, signal.SIGKILL)
        run.close()

    @staticmethod
    def read_sums(text: str) -> dict[str, str]:
        lines = [line.split() for line in text.splitlines()]
        return {line[4]: line[5] for line in lines if line[0] in ("ok", "err")}

    def argv(self, way: str = "map", *options: str) -> list[str]:
        return [self.reader, *options, way, *FILES]

    def assert_read(self, run: Run, text: bytes | str, readers: int = 1) -> None:
        text = text if isinstance(text, str) else text.decode()
        self.assertEqual(self.read_sums(text), self.sums, text + run.log_tail())
        self.assertEqual(text.count("ok "), readers * len(FILES), text)

    def assert_call(self, run: Run, argv: list[str], env: dict[str, str] | None = None, readers: int = 1, **options: Any) -> None:
        options.setdefault("cwd", run.model_dir)
        done = run.call(argv, env, timeout=30, **options)
        self.assertEqual((done.returncode, done.stderr), (0, b""), run.log_tail())
        self.assert_read(run, done.stdout, readers)

    def begin(self, run: Run, argv: list[str], out: Path, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        with open(out, "wb") as stdout:
            process = run.start(argv, env, cwd=run.model_dir, stdout=stdout, **options)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def until(self, condition: Callable[[], object], what: str, secs: float = 15) -> None:
        end = time.monotonic() + secs
        while not condition():
            self.assertLess(time.monotonic(), end, f"not in {secs} s: {what}")
            time.sleep(0.01)

    def served(self) -> int:
        return sum(request.bytes_sent for request in body_gets(self.endpoint.requests(), f"{PREFIX}/"))

    # The primary goes.

    def test_the_primary_exits_while_its_children_load(self) -> None:
        run = self.managed()
        out = run.dir / "out"
        self.assertEqual(run.call(["sh", "-c", f'"$0" -f read map {" ".join(FILES)} > "{out}" &', self.reader], cwd=run.model_dir).returncode, 0)
        self.until(lambda: out.read_text().count("end") == 2, "children of a primary that is gone have read")
        self.assert_read(run, out.read_text(), 2)
        self.assertEqual(run.engine_starts(), 1)

    def test_the_primary_becomes_another_program_while_its_children_load(self) -> None:
        run = self.managed()
        out = run.dir / "out"
        script = f'"$0" pread {" ".join(FILES)} > "{out}" & exec "$0" map {" ".join(FILES)}'
        self.assert_call(run, ["sh", "-c", script, self.reader])
        self.until(lambda: "end" in out.read_text(), "the child has read")
        self.assert_read(run, out.read_text())
        self.assertEqual(run.engine_starts(), 1)

    def test_the_primary_becomes_a_daemon(self) -> None:
        run = self.managed()
        out = run.dir / "out"
        names = ["a.bin", "b.bin"]
        argv = [PYTHON, str(paths.APPS / "heal_daemon.py"), str(out), *names]
        self.assertEqual(run.call(argv, cwd=run.model_dir).returncode, 0)
        self.until(out.exists, "the daemon has read")
        expected = [f"{n} {hashlib.sha256((self.plain / n).read_bytes()).hexdigest()}" for n in names]
        self.assertEqual(out.read_text().splitlines(), expected, run.log_tail())

    # The engine goes, or stops.

    def test_the_engine_is_stopped_for_a_while(self) -> None:
        run = self.managed()
        out = run.dir / "out"
        process = self.begin(run, self.argv("map", "-f", "read"), out)
        self.until(lambda: self.served() > 4_000_000, "a part of the load")
        (engine,) = run.engines()
        os.kill(engine, signal.SIGSTOP)
        time.sleep(1)
        self.assertIsNone(process.poll(), "the load cannot be complete")
        os.kill(engine, signal.SIGCONT)
        self.assertEqual(process.wait(20), 0)
        self.assert_read(run, out.read_text(), 2)
        self.assertEqual(run.engine_starts(), 1)

    def test_a_pause_of_the_engine_is_not_blamed_on_the_network(self) -> None:
        for io in ("uring", "epoll"):
            with self.subTest(io):
                run = self.managed({"stallTimeoutMs": 1500, "responseTimeoutMs": 1500, "twicePercent": 0}, io)
                out = run.dir / "out"
                self.endpoint.forget()
                process = self.begin(run, self.argv("read"), out)
                self.until(lambda: self.served() > 4_000_000, "a part of the load")
                (engine,) = run.engines()
                os.kill(engine, signal.SIGSTOP)
                time.sleep(4)
                os.kill(engine, signal.SIGCONT)
                self.assertEqual(process.wait(20), 0)
                self.assert_read(run, out.read_text())
                blamed = [line for line in run.log_lines() if "phase" in line or " ms after " in line or "no answer within" in line]
                self.assertEqual(blamed, [], run.log_tail())

    def killed(self, run: Run, changes: dict[str, str | None]) -> None:
        """Two readers are in the middle of a load when the engine is killed."""
        out = run.dir / "out"
        process = self.begin(run, self.argv("window", "-f", "pread"), out, run.env(**changes))
        self.until(lambda: self.served() > 8_000_000, "a part of the load")
        (engine,) = run.engines()
        os.kill(engine, signal.SIGKILL)
        self.assertEqual(process.wait(20), 0)
        self.assert_read(run, out.read_text(), 2)

    def after_the_kill(self, run: Run, primary: subprocess.Popen[bytes], argv: list[str], env: dict[str, str], word: str) -> str:
        """What a program prints that says a word, and goes on when engine and primary are killed."""
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = run.start(argv, env, cwd=run.model_dir, **pipes)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline().decode().strip(), word)
        (engine,) = run.engines()
        os.kill(engine, signal.SIGKILL)
        primary.kill()
        out, _ = process.communicate(b"\n", timeout=30)
        return out.decode().strip()

    def test_the_engine_is_killed_and_what_has_arrived_is_kept(self) -> None:
        run = self.managed()
        self.killed(run, {})
        whole = sum((self.plain / name).stat().st_size for name in FILES)
        self.assertTrue(run.logged("took over from an engine that is gone"), run.log_tail())
        self.assertLess(self.served(), 2 * whole - 8_000_000, "nothing was kept")

    def test_the_engine_is_killed_and_its_memory_with_it(self) -> None:
        run = self.managed()
        self.killed(run, {"OSSC_PAGES": "memfd"})
        self.assertEqual(run.engine_starts(), 2, run.log_tail())

    def held_up(self) -> Run:
        """Its parts of b.bin come one after the other, and the second so late that an engine is killed before, however
        busy the machine is. Its successor's come at once."""
        late = {"match": {"key": f"{PREFIX}/b.bin", "kind": "get", "nth": 2}, "do": {"delay_ms": 3000}}
        endpoint = self.serving(Endpoint(self.scratch / "root", Path(tempfile.mkdtemp(dir=self.scratch)), [late]))
        settings = {"materializeBytes": folder.MATERIALIZE_BYTES, "prefetch": {"vcpus": 1, "workers": 1}}
        return self.ending(Run(endpoint, PREFIX, config=settings))

    def test_a_successor_that_may_write_small_files_only_takes_over(self) -> None:
        run = self.held_up()
        first = self.begin(run, ["sleep", "60"], run.dir / "nothing")
        self.until(lambda: run.engine_starts() == 1, "the engine is there")
        limit = 1 << 20
        drop = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"] if os.geteuid() == 0 else []
        argv = ["prlimit", f"--fsize={limit}:{limit}", *drop, "env", f"LD_PRELOAD={paths.PRELOAD}", PYTHON, "-c", LATE]
        out = self.after_the_kill(run, first, argv, run.env(LD_PRELOAD=None), "attached")
        whole = hashlib.sha256((self.plain / "b.bin").read_bytes()).hexdigest()
        self.assertEqual(out, whole, run.log_tail())
        self.assertTrue(run.logged("took over from an engine that is gone"), run.log_tail())

    def test_the_engine_is_killed_while_the_kernel_copies(self) -> None:
        """What the old memory never got is taken from the new one, not from the holes of the old."""
        for way in ("sendfile", "copy_file_range"):
            with self.subTest(way):
                run = self.held_up()
                copy = run.dir / "copy"
                process = self.begin(run, [PYTHON, "-c", COPIER, way, str(copy)], run.dir / "out", run.env(OSSC_PAGES="memfd"))
                self.until(lambda copy=copy: copy.exists() and copy.stat().st_size > 0, "the copy has begun")  # type: ignore[misc]
                (engine,) = run.engines()
                os.kill(engine, signal.SIGKILL)
                self.assertEqual(process.wait(20), 0, run.log_tail())
                self.assertEqual(run.engine_starts(), 2, run.log_tail())
                self.assertTrue(copy.read_bytes() == (self.plain / "b.bin").read_bytes(), "other bytes than the object's")

    def test_a_program_that_starts_after_the_kill_has_nothing_to_take_over(self) -> None:
        """It cannot have the old memory; those who read from that move over to the new one."""
        run = self.managed()
        out = run.dir / "out"
        process = self.begin(run, self.argv("read", "-f", "map"), out)
        self.until(lambda: self.served() > 4_000_000, "a part of the load")
        (engine,) = run.engines()
        os.kill(process.pid, signal.SIGSTOP)
        os.kill(engine, signal.SIGKILL)
        self.assert_call(run, self.argv("stdio"))
        os.kill(process.pid, signal.SIGCONT)
        self.assertEqual(process.wait(20), 0)
        self.assert_read(run, out.read_text(), 2)

    def test_a_map_of_a_dead_engine_does_not_grow_over_bytes_that_never_came(self) -> None:
        run = self.managed()
        primary = self.begin(run, ["sleep", "60"], run.dir / "nothing", run.env(OSSC_PAGES="memfd"))
        self.until(lambda: run.engine_starts() == 1, "the engine is there")
        out = self.after_the_kill(run, primary, [PYTHON, "-c", GROWER], run.env(OSSC_PAGES="memfd"), "mapped")
        self.assertEqual(out, "12", "neither ENOMEM nor the object's bytes\n" + run.log_tail())

    def test_a_map_that_was_moved_does_not_grow_over_bytes_that_have_not_come(self) -> None:
        run = self.managed()
        done = run.call([PYTHON, "-c", MOVER], cwd=run.model_dir, timeout=30)
        whole = hashlib.sha256((self.plain / "b.bin").read_bytes()).hexdigest()
        self.assertEqual(done.stdout.decode().strip(), whole, f"{done.stderr.decode()}\n{run.log_tail()}")

    def test_a_program_within_linger_downloads_nothing_again(self) -> None:
        run = self.managed({"lingerSec": 6})
        self.assert_call(run, self.argv())
        # What nobody reads comes, too.
        before = 0
        while before != self.served():
            before = self.served()
            time.sleep(0.5)
        time.sleep(1.5)
        self.assert_call(run, self.argv("read"))
        self.assertEqual((self.served(), run.engine_starts()), (before, 1))

    def test_ten_small_commands_share_one_engine(self) -> None:
        run = self.managed()
        for _ in range(10):
            self.assertEqual(run.call(["cat", "small.bin"], cwd=run.model_dir).returncode, 0)
        self.assertEqual(run.engine_starts(), 1)

    def test_a_secondary_waits_for_its_primary(self) -> None:
        run = self.managed()
        out = run.dir / "out"
        bare = {name: value for name, value in run.env(2).items() if not name.startswith("OSS_")}
        process = self.begin(run, self.argv(), out, bare)
        time.sleep(0.5)
        self.assertEqual((process.poll(), run.engines()), (None, []))
        self.assert_call(run, self.argv("read"))
        self.assertEqual(process.wait(15), 0)
        self.assert_read(run, out.read_text())

    def test_without_anybody_who_may_start_an_engine_readers_get_an_error_in_time(self) -> None:
        run = self.managed()
        out = run.dir / "out"
        primary = self.begin(run, ["sleep", "30"], run.dir / "nothing")
        self.until(lambda: run.engine_starts() == 1, "the engine is there")
        bare = {name: value for name, value in run.env(2).items() if not name.startswith("OSS_")}
        process = self.begin(run, self.argv("map", "-t", "4"), out, bare)
        self.until(lambda: "open" in out.read_text(), "the reader has opened its first file")
        primary.kill()
        (engine,) = run.engines()
        os.kill(engine, signal.SIGKILL)
        begin = time.monotonic()
        self.assertEqual(process.wait(15), 0)
        self.assertLess(time.monotonic() - begin, 8, out.read_text())
        first = out.read_text().splitlines()[1].split()
        self.assertEqual((first[0], first[5]), ("err", "EIO"), out.read_text())
        self.assertLess(float(first[6]), 5000)
        self.assertTrue(run.logged(" client="), run.log_tail())

    # Peculiar hosts.

    def test_the_host_is_the_first_process_of_a_namespace(self) -> None:
        if os.getuid() != 0:
            self.skipTest("a pid namespace needs root here")
        run = self.managed()
        env = run.env()
        # The library is for the innermost program alone, which is process 1.
        preload = f"LD_PRELOAD={env.pop('LD_PRELOAD')}"
        argv = ["unshare", "--pid", "--fork", "--mount-proc", "env", preload, *self.argv("map", "-f", "read")]
        self.assert_call(run, argv, env, readers=2)

    def test_engines_are_killed_under_the_first_process_of_a_namespace(self) -> None:
        """What stays between it and its engine ends with the engine, and is not left a zombie for each."""
        if os.getuid() != 0:
            self.skipTest("a pid namespace needs root here")
        run = self.managed()
        env = run.env(OSSC_PAGES="memfd")
        preload = f"LD_PRELOAD={env.pop('LD_PRELOAD')}"
        argv = ["unshare", "--pid", "--fork", "--mount-proc", "env", preload, PYTHON, "-c", KILLER, *FILES]
        done = run.call(argv, env, cwd=run.model_dir, timeout=40)
        expected = [hashlib.sha256((self.plain / name).read_bytes()).hexdigest() for name in FILES]
        lines = done.stdout.decode().splitlines()
        self.assertEqual(lines[:-1], expected, done.stderr.decode() + run.log_tail())
        killed, zombies = lines[-1].split()
        self.assertEqual(killed, str(len(FILES)))
        self.assertLessEqual(int(zombies), 1)

    def test_the_host_is_a_subreaper_that_waits_for_all_its_children(self) -> None:
        run = self.managed()
        env = run.env()
        env["LATER"] = env.pop("LD_PRELOAD")
        self.assert_call(run, [PYTHON, "-c", SUBREAPER, *self.argv("map", "-f", "read")], env, readers=2)

    def test_sigchld_is_ignored_or_blocked(self) -> None:
        for change in (
            lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
            lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD}),
        ):
            self.assert_call(self.managed(), self.argv(), preexec_fn=change, restore_signals=False)

    def limited(self, limit: int, value: int, reason: str) -> None:
        """A soft limit of the host's is nothing to the engine; a hard one is a clear refusal, or was raised by
        one who may; a client can do with it."""
        hard = resource.getrlimit(limit)[1]
        self.assert_call(self.managed(), self.argv(), preexec_fn=lambda: resource.setrlimit(limit, (value, hard)))
        run = self.managed()
        done = run.call(self.argv(), cwd=run.model_dir, timeout=20, preexec_fn=lambda: resource.setrlimit(limit, (value, value)))
        if done.returncode == 0:
            self.assert_read(run, done.stdout)
        else:
            self.assertRegex(done.stderr.decode(), f"^failed to launch oss connector: [^\n]*{reason}[^\n]*\n$")
        self.begin(run, ["sleep", "30"], run.dir / "nothing")
        self.until(lambda: run.engine_starts() > 0, "the engine is there")
        for way in heal.WAYS:
            self.assert_call(run, self.argv(way), preexec_fn=lambda: resource.setrlimit(limit, (value, value)))

    def test_few_descriptors(self) -> None:
        self.limited(resource.RLIMIT_NOFILE, 8, "Too many open files")

    def test_a_host_without_huge_pages_on_one_core(self) -> None:
        """Huge pages are the engine's own affair; the cores are not: who binds a program binds its loading too."""
        run = self.managed()
        code = (
            "import ctypes, os, sys; PR_SET_THP_DISABLE = 41; "
            "assert ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0; "
            "os.sched_setaffinity(0, {0}); os.environ['ENABLE_CONNECTOR'] = '1'; os.execv(sys.argv[1], sys.argv[1:])"
        )
        # The role comes with the last step, so that it is that program which starts the engine.
        env = run.env()
        env.pop("ENABLE_CONNECTOR")
        self.assert_call(run, [PYTHON, "-c", code, *self.argv()], env)
        (engine,) = run.engines()
        status = Path(f"/proc/{engine}/status").read_text()
        self.assertIn("THP_enabled:\t1\n", status)
        self.assertIn("Cpus_allowed_list:\t0\n", status)

    def test_files_may_have_no_size(self) -> None:
        # What the host prints goes through a pipe, which has no size.
        self.limited(resource.RLIMIT_FSIZE, 0, "File too large")

    def test_no_further_process_is_allowed(self) -> None:
        """A primary says so and ends; a client needs none."""
        if os.getuid() != 0:
            self.skipTest("another user is needed")
        run = self.managed()
        for path in (run.dir, run.model_dir, run.config_path):
            os.chown(path, LONELY, LONELY)
        products = self.scratch / "products"
        products.mkdir()
        for product in (paths.PRELOAD, paths.OSSC, Path(self.reader)):
            shutil.copy2(product, products / product.name)
        self.scratch.chmod(0o755)
        env = run.env(LD_PRELOAD=str(products / paths.PRELOAD.name))
        reader = [str(products / "heal_reader"), *self.argv()[1:]]
        who: dict[str, Any] = {"user": LONELY, "group": LONELY, "extra_groups": []}
        limited = {**who, "preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))}
        done = run.call(reader, env, timeout=10, cwd=run.model_dir, **limited)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stdout, b"")
        self.assertRegex(done.stderr.decode(), r"^failed to launch oss connector: failed to start the engine: clone: errno 11\n$")
        holder = self.begin(run, ["sleep", "30"], run.dir / "nothing", env, **who)
        self.until(lambda: run.engine_starts() == 1, "the engine is there")
        self.assert_call(run, reader, env, **limited)
        holder.kill()
        # The engine's program is a copy here, which `finish` does not know.
        self.until(lambda: not self.processes_of(products), "the engine is gone", run.linger_secs + 5)

    @staticmethod
    def processes_of(folder: Path) -> list[str]:
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{entry}/exe").startswith(f"{folder}/"):
                    found.append(entry)
            except OSError:
                continue
        return found

    def test_standard_descriptors_are_closed(self) -> None:
        run = self.managed()
        out = run.dir / "out"
        env = run.env()
        preload = f"LD_PRELOAD={env.pop('LD_PRELOAD')}"
        script = 'exec 5> "$0"; exec env "$@" <&- >&- 2>&-'
        argv = ["sh", "-c", script, str(out), preload, self.reader, "-o", "5", "map", *FILES]
        self.assertEqual(run.call(argv, env, cwd=run.model_dir).returncode, 0)
        self.assertEqual(out.read_text().splitlines()[0], "fds 0", "the library has taken a standard descriptor")
        self.assert_read(run, out.read_text())


class Unlisted(EndToEnd):
    """The engine is killed while a folder below MODEL_DIR is not listed yet: what lies in it is neither absent nor empty."""

    CODE = (
        "import errno, hashlib, os, sys\n"
        "open('b.bin', 'rb').read(10); print('ready', flush=True); sys.stdin.readline()\n"
        "try: print(hashlib.sha256(open('nested/deep/c.bin', 'rb').read()).hexdigest())\n"
        "except OSError as e: print(errno.errorcode[e.errno])\n"
    )

    def read_below(self, role: int, bare: bool) -> str:
        scratch = self.scratch / self.id().rsplit(".", 1)[-1]
        # The second listing is that of `nested`.
        rules = [{"match": {"kind": "list", "nth": 2}, "do": {"delay_ms": 20000}}]
        endpoint = self.serving(Endpoint(self.scratch / "root", scratch, rules))
        run = self.ending(Run(endpoint, PREFIX, config={"materializeBytes": folder.MATERIALIZE_BYTES}))
        primary = run.start(["sleep", "60"])
        self.addCleanup(primary.wait)
        self.addCleanup(primary.kill)
        env = run.env(role)
        if bare:
            env = {name: value for name, value in env.items() if not name.startswith("OSS_")}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = run.start([PYTHON, "-c", self.CODE], env, cwd=run.model_dir, **pipes)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), b"ready\n", run.log_tail())
        (engine,) = run.engines()
        primary.kill()
        os.kill(engine, signal.SIGKILL)
        begin = time.monotonic()
        out, _ = process.communicate(b"\n", timeout=30)
        self.assertLess(time.monotonic() - begin, 8, run.log_tail())
        return out.decode().strip()

    def test_a_client_that_may_start_an_engine_reads_on(self) -> None:
        digest = hashlib.sha256((self.plain / "nested/deep/c.bin").read_bytes()).hexdigest()
        self.assertEqual(self.read_below(1, bare=False), digest)

    def test_a_client_that_may_not_gets_an_error(self) -> None:
        self.assertEqual(self.read_below(2, bare=True), "EIO")


class Kills(unittest.TestCase):
    """A few runs of bar `roles 2`, with the same judgement."""

    def test_seeded_kills(self) -> None:
        paths.require_products()
        measure = heal.survive(runs=6, first=9000)
        self.assertTrue(measure.good, "\n".join([measure.value, *measure.notes]))
