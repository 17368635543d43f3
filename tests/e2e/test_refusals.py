"""What a machine refuses or cannot give: each ends in a REASON or an errno with a line, in bounded time, or works."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, ClassVar

from tests.e2e.base import EndToEnd, slow
from tests.harness import compile, faults
from tests.harness.run import Run, plain_env

MIB = 1 << 20
# More than any start or single read takes that is not waiting for something that never comes.
AT_ONCE_SECS = 25
# What a reader waits for an engine that does not answer, and what it takes until that is seen.
SILENCE_SECS = 60
SEEN_SECS = 30


class Refusing(EndToEnd):
    """Runs programs to which the kernel refuses some calls, and so to the engine that they start."""

    def refused(self, run: Run, error: str, calls: str, *argv: str) -> subprocess.CompletedProcess[bytes]:
        env, plain = run.env(), plain_env()
        changes = [f"{name}={value}" for name, value in env.items() if plain.get(name) != value]
        return run.call([str(compile.program("refuse.c")), error, calls, "env", *changes, *argv], plain, timeout=AT_ONCE_SECS)

    def reason(self, done: subprocess.CompletedProcess[bytes], *words: str) -> None:
        said = done.stderr.decode()
        self.assertEqual(done.returncode, 1, said)
        self.assertIn("failed to launch oss connector: ", said)
        for word in words:
            self.assertIn(word, said)


class Policies(Refusing):
    """Calls that a seccomp profile, a full disk or a read-only file system refuses."""

    def test_a_folder_that_cannot_be_made_is_an_error_and_not_absent(self) -> None:
        for error, words in (("EACCES", "Permission denied"), ("ENOSPC", "No space left"), ("EDQUOT", "quota"), ("EROFS", "Read-only")):
            with self.subTest(error):
                run = self.managed()
                (run.model_dir / "nested").mkdir()
                done = self.refused(run, error, "mkdirat", "cat", str(run.model_dir / "nested/deep/c.bin"))
                self.assertEqual((done.returncode, done.stdout), (1, b""), run.log_tail())
                self.assertIn(b"Input/output error", done.stderr)
                self.assertTrue(run.logged("cannot make the folder nested/deep in MODEL_DIR", words), run.log_tail())
                done = self.refused(run, error, "mkdirat", "ls", str(run.model_dir / "nested"))
                self.assertNotEqual(done.returncode, 0, "a folder is shown without what is in it")

    def test_a_folder_in_the_root_that_cannot_be_made_ends_the_start(self) -> None:
        run = self.managed()
        done = self.refused(run, "ENOSPC", "mkdirat", "true")
        self.reason(done, "failed to download metadata: cannot make the folder nested in MODEL_DIR", "No space left")

    def test_without_accept4_the_start_says_so(self) -> None:
        run = self.managed()
        self.reason(self.refused(run, "EPERM", "accept4", "cat", str(run.model_dir / "b.bin")), "accept4", "seccomp")

    def test_without_shutdown_programs_go_on(self) -> None:
        run = self.managed()
        done = self.refused(run, "EPERM", "shutdown", "sha256sum", str(run.model_dir / "b.bin"))
        self.assertEqual((done.returncode, done.stderr), (0, b""), run.log_tail())
        self.assertEqual(done.stdout.split()[0].decode(), hashlib.sha256((self.plain / "b.bin").read_bytes()).hexdigest())

    def test_a_small_stack(self) -> None:
        run = self.managed()
        digest = hashlib.sha256((self.plain / "b.bin").read_bytes()).hexdigest()
        for kib in (256, 128, 64):
            with self.subTest(kib):
                done = run.call(["sh", "-c", f"ulimit -s {kib}; exec sha256sum {run.model_dir}/b.bin"], timeout=AT_ONCE_SECS)
                self.assertEqual(done.returncode, 0, done.stderr.decode() + run.log_tail())
                self.assertEqual(done.stdout.split()[0].decode(), digest)
                run.kill_engines()


class Settings(Refusing):
    """Settings that cannot work."""

    def test_a_folder_of_the_system_is_no_model_dir(self) -> None:
        run = self.managed()
        for place in ("/", "/dev", "/proc", "/sys", "/proc/self/fdinfo", "/dev/pts"):
            if not Path(place).exists():
                continue
            before = sorted(os.listdir("/dev"))
            self.reason(run.call(["true"], run.env(MODEL_DIR=place), timeout=AT_ONCE_SECS), "failed to download metadata: MODEL_DIR ", "a folder of its own")
            self.assertEqual(sorted(os.listdir("/dev")), before, f"{place}: something was made")

    def test_the_smallest_memory_limit_works_and_less_is_refused(self) -> None:
        name, part = "b.bin", 2 * MIB
        digest = hashlib.sha256((self.plain / name).read_bytes()).hexdigest()
        for limit in (1, 4096, MIB):
            run = self.managed({"memoryLimit": limit, "partBytes": part})
            done = run.call(["sha256sum", name], cwd=run.model_dir, timeout=AT_ONCE_SECS)
            self.reason(done, "failed to initialize connector: ", f"memoryLimit {limit} ", "set memoryLimit to 2796202 or more")
        run = self.managed({"memoryLimit": 2796202, "partBytes": part})
        # By read() alone: a FILE or map wants the whole object in memory.
        for command in (f"cat {name}", f"dd if={name} bs=700001 2>/dev/null"):
            done = run.call(["sh", "-c", f"{command} | sha256sum"], cwd=run.model_dir, timeout=AT_ONCE_SECS)
            self.assertEqual((done.returncode, done.stdout.decode().split()[:1]), (0, [digest]), done.stderr.decode() + run.log_tail())

    def test_a_configuration_with_a_mistake_is_named(self) -> None:
        run = self.managed()
        good = run.config_path.read_text()
        run.config_path.write_text(good.replace('"logLevel": 1', '"logLevel": 1,\n "logLevel": 0'))
        self.reason(run.call(["true"]), "failed to parse config file: ", "line 3: key `logLevel` stands here a second time")
        run.config_path.write_bytes(good.encode("utf-16"))
        self.reason(run.call(["true"]), "it is UTF-16: save it as UTF-8")
        run.config_path.write_text("\ufeff" + good)
        self.assertEqual(run.call(["true"]).returncode, 0, "a byte order mark")


class Stopped(EndToEnd):
    """An engine that is a process and does not answer: SIGSTOP, a debugger, a frozen cgroup."""

    # A reader of this object waits.
    faults: ClassVar[list[dict[str, Any]] | None] = [faults.rule({"delay_ms": 300_000}, "team/tiny/nested/deep/c.bin")]

    def stop(self, run: Run) -> int:
        (engine,) = run.engines()
        os.kill(engine, signal.SIGSTOP)

        def go_on() -> None:
            for pid in run.engines():
                os.kill(pid, signal.SIGCONT)

        self.addCleanup(go_on)
        return engine

    def test_what_is_true_is_said_and_programs_go_on_with_it(self) -> None:
        run = self.managed({"lingerSec": 3})
        self.assertEqual(run.call(["true"]).returncode, 0)
        engine = self.stop(run)
        reader = run.start(["sha256sum", str(run.model_dir / "b.bin")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(reader.kill)
        assert reader.stderr is not None
        line = reader.stderr.readline().decode()
        self.assertIn(f"waiting for the engine (pid {engine}), which is stopped", line)
        os.kill(engine, signal.SIGCONT)
        out, _ = reader.communicate(timeout=AT_ONCE_SECS)
        self.assertEqual((reader.returncode, out.split()[0].decode()), (0, hashlib.sha256((self.plain / "b.bin").read_bytes()).hexdigest()))

    @slow
    def test_readers_that_attach_or_wait_get_an_error_in_time(self) -> None:
        run = self.managed({"lingerSec": 3})
        waits = run.start(["sha256sum", str(run.model_dir / "nested/deep/c.bin")], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(waits.kill)
        self.assertTrue(run.logged("listed", 'folder="nested/deep"'), run.log_tail())
        time.sleep(1)
        engine = self.stop(run)
        cold = run.start(["cat", str(run.model_dir / "b.bin")], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(cold.kill)
        begin = time.monotonic()
        for reader in (cold, waits):
            _, said = reader.communicate(timeout=SILENCE_SECS + SEEN_SECS)
            self.assertEqual(reader.returncode, 1, said.decode())
            self.assertIn(f"no answer of the engine (pid {engine}), which is stopped", said.decode())
            self.assertIn(b"Input/output error", said)
            self.assertNotIn(b"no engine", said)
            self.assertGreater(time.monotonic() - begin, SILENCE_SECS / 2, "it was not waited for")
