"""Where log and audit lines go, in which form, and what is lost: never a read, and no line that is not counted."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.checks import operate_log
from tests.e2e.base import EndToEnd
from tests.harness import paths
from tests.harness.run import Run

PYTHON = str(paths.VENV_PYTHON)
CALL_SECS = 60.0
TIME = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
# Reads an object, says so on standard output, and stays until its standard input ends.
HOLD = "import sys; open(sys.argv[1], 'rb').read(); print('ready', flush=True); sys.stdin.read()"


def pipes_of(pid: int) -> set[str]:
    """The pipes that a process has open, as /proc names them."""
    folder = f"/proc/{pid}/fd"
    links = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder) if os.path.lexists(f"{folder}/{name}")]
    return {link for link in links if link.startswith("pipe:")}


class Outputs(EndToEnd):
    def sha(self, name: str) -> str:
        return hashlib.sha256((self.plain / name).read_bytes()).hexdigest()

    def report(self, run: Run) -> dict[str, Any]:
        env = run.env(None, LD_PRELOAD=None)
        done = subprocess.run([str(paths.OSSC), "status", "--json"], env=env, capture_output=True, text=True, check=False)
        found: dict[str, Any] = json.loads(done.stdout)["report"]
        return found

    def reads(self, run: Run, **options: Any) -> None:
        """A program reads an object and gets its bytes."""
        process = run.start(["sha256sum", "b.bin"], cwd=run.model_dir, stdout=subprocess.PIPE, **options)
        out, _ = process.communicate(timeout=CALL_SECS)
        self.assertEqual((process.returncode, out.split()[:1]), (0, [self.sha("b.bin").encode()]))

    def full_pipe(self) -> tuple[int, int]:
        end, begin = os.pipe()
        self.addCleanup(os.close, begin)
        operate_log.fill(begin)
        return end, begin

    def wait_lost(self, run: Run) -> int:
        deadline = time.monotonic() + CALL_SECS
        while (lost := self.report(run)["lines_lost"]) == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertIsInstance(lost, int)
        return int(lost)

    def test_lines_go_to_the_standard_output_of_the_program(self) -> None:
        run = self.managed({"logPath": "stdout", "auditPath": "stdout", "lingerSec": 5})
        done = run.call(["sha256sum", "b.bin"], cwd=run.model_dir)
        # The call above ends only when nothing has the pipe open any more.
        self.assertEqual(len(run.engines()), 1, "the engine lingers, and has given the pipe up")
        lines = done.stdout.decode().splitlines()
        log = [line for line in lines if re.match(TIME, line)]
        self.assertTrue(any("engine started" in line for line in log), lines)
        audit = [json.loads(line) for line in lines if line.startswith("{")]
        self.assertIn("origin", {line["source"] for line in audit})
        self.assertEqual([line for line in lines if line.endswith("b.bin") and line not in log], [f"{self.sha('b.bin')}  b.bin"])
        self.assertEqual(done.stderr, b"")

    def test_lines_go_to_its_standard_error(self) -> None:
        # Of its path, too: that of the engine itself would lead nowhere.
        for path in ("stderr", "/dev/stderr"):
            run = self.managed({"logPath": path})
            done = run.call(["sha256sum", "b.bin"], cwd=run.model_dir)
            self.assertIn(b"engine started", done.stderr)
            self.assertEqual(done.stdout.decode(), f"{self.sha('b.bin')}  b.bin\n")

    def test_an_engine_has_no_pipe_of_a_program_but_the_one_that_is_named(self) -> None:
        for config, stream in (({}, None), ({"logPath": "stderr"}, 2), ({"auditPath": "stdout"}, 1)):
            with self.subTest(config):
                run = self.managed(config)
                argv = [PYTHON, "-c", HOLD, str(run.model_dir / "b.bin")]
                process = run.start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                assert process.stdout is not None and process.stdin is not None and process.stderr is not None
                while b"ready" not in (line := process.stdout.readline()):
                    self.assertNotEqual(line, b"", run.log_tail())
                (engine,) = run.engines()
                expected = set() if stream is None else {os.readlink(f"/proc/{process.pid}/fd/{stream}")}
                # The engine has pipes of its own, for splicing.
                self.assertEqual(pipes_of(engine) & pipes_of(process.pid), expected)
                process.communicate(timeout=CALL_SECS)

    def test_a_pipe_that_is_not_read_holds_up_no_reader(self) -> None:
        run = self.managed({"logPath": "stderr", "auditPath": "stderr", "logLevel": 0, "lingerSec": 3})
        end, begin = self.full_pipe()
        self.addCleanup(os.close, end)
        self.reads(run, stderr=begin)
        self.assertGreater(self.wait_lost(run), 3)

    def test_a_pipe_without_a_reader_ends_neither_program_nor_engine(self) -> None:
        run = self.managed({"logPath": "stderr", "auditPath": "stderr", "logLevel": 0, "lingerSec": 3})
        end, begin = self.full_pipe()
        os.close(end)
        self.reads(run, stderr=begin)
        self.assertGreater(self.wait_lost(run), 3)

    def test_a_full_disk_and_a_pipe_by_its_path_lose_lines_alone(self) -> None:
        run = self.managed({"logPath": "/dev/full", "auditPath": "/dev/full", "logLevel": 0, "lingerSec": 3})
        self.reads(run)
        self.assertGreater(self.wait_lost(run), 3)
        shown = subprocess.run([str(paths.OSSC), "status"], env=run.env(None, LD_PRELOAD=None), capture_output=True, text=True, check=False).stdout
        self.assertRegex(shown, r"(?m)^\d+ lines of log and audit were lost: ")
        fifo = run.dir / "fifo"
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        other = self.managed({"logPath": str(fifo), "logLevel": 0, "lingerSec": 3})
        writer = os.open(fifo, os.O_WRONLY)
        self.addCleanup(os.close, writer)
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        os.write(writer, b"x" * 4096)
        self.reads(other)
        self.assertGreater(self.wait_lost(other), 3)

    def test_a_program_without_the_stream_has_its_lines_in_the_run_folder(self) -> None:
        code = "import os, sys; os.close(1); os.execve('/bin/cat', ['cat', sys.argv[1]], {**os.environ, 'LD_PRELOAD': sys.argv[2]})"
        other = self.managed({"logPath": "stdout"})
        env = other.env(LD_PRELOAD=None)
        done = other.call([PYTHON, "-c", code, str(other.model_dir / "b.bin"), str(paths.PRELOAD)], env)
        said = re.search(r"cannot write the log stdout: the program that started the engine has none: it goes to (\S+\.log)", done.stderr.decode())
        assert said is not None, done.stderr
        # Its thread writes a little behind what programs see.
        until = time.monotonic() + 10
        while "engine started" not in Path(said[1]).read_text():
            self.assertLess(time.monotonic(), until, Path(said[1]).read_text())
            time.sleep(0.02)

    def test_the_next_program_gives_its_stream(self) -> None:
        run = self.managed({"logPath": "stderr", "logLevel": 0, "lingerSec": 5})
        first = run.call(["cat", "a.bin"], cwd=run.model_dir)
        self.assertIn(b"engine started", first.stderr)
        second = run.call(["cat", "b.bin"], cwd=run.model_dir)
        self.assertEqual(len(run.engines()), 1)
        self.assertNotIn(b"engine started", second.stderr)
        self.assertIn(b"client attached", second.stderr)

    def test_what_a_program_itself_logs_goes_to_its_standard_error(self) -> None:
        run = self.managed({"logPath": "stdout"})
        done = run.call([PYTHON, "-c", "open('b.bin', 'r+b'); open('b.bin', 'ab')"], cwd=run.model_dir)
        self.assertRegex(done.stderr.decode(), rf'(?m)^{TIME}  WARN change refused .* object="b.bin" client=\d+ dir=\d+-\d+$')


class Form(EndToEnd):
    def test_each_line_is_a_json_object(self) -> None:
        run = self.managed({"logFormat": "json", "logLevel": 0})
        run.call([PYTHON, "-c", "open('b.bin', 'rb').read(); open('b.bin', 'ab')"], cwd=run.model_dir)
        self.assertIsNotNone(run.wait_engines_gone(CALL_SECS))
        lines = [json.loads(line) for line in run.log_lines()]
        for line in lines:
            self.assertLessEqual(set(line), {"time", "level", "message", "engine", "dir", "fields"})
            self.assertRegex(line["time"], f"^{TIME}$")
        (started,) = (line for line in lines if line["message"] == "engine started")
        status = run.model_dir.stat()
        self.assertEqual((started["level"], started["dir"]), ("INFO", f"{status.st_dev}-{status.st_ino}"))
        self.assertEqual(started["fields"]["model_dir"], str(run.model_dir))
        (refused,) = (line for line in lines if line["message"].startswith("change refused"))
        self.assertEqual((refused["dir"], refused["fields"]["object"]), (started["dir"], "b.bin"))
        self.assertIsInstance(refused["fields"]["client"], int)
        whole = [line["fields"]["bytes"] for line in lines if line["message"] == "loaded and verified"]
        self.assertIn((self.plain / "b.bin").stat().st_size, whole)

    def test_all_writers_have_one_clock_and_one_form(self) -> None:
        run = self.managed({"logLevel": 0})
        run.call([PYTHON, "-c", "open('b.bin', 'rb').read(); open('b.bin', 'ab')"], cwd=run.model_dir)
        self.assertIsNotNone(run.wait_engines_gone(CALL_SECS))
        for line in run.log_lines():
            self.assertRegex(line, rf"^{TIME} (DEBUG| INFO| WARN|ERROR) \S.* (engine|client)=\d+( dir=\d+-\d+)?$")
        self.assertTrue(run.audit_lines())
        for line in run.audit_lines():
            self.assertRegex(json.loads(line)["time"], f"^{TIME}$")

    def more(self, run: Run, file: Path) -> str:
        """What a file has after programs have made lines for it."""
        deadline = time.monotonic() + CALL_SECS
        while not (file.exists() and "client attached" in file.read_text()) and time.monotonic() < deadline:
            run.call(["cat", "a.bin"], cwd=run.model_dir)
        return file.read_text()

    def test_logrotate_by_renaming_and_by_copying(self) -> None:
        run = self.managed({"logLevel": 0, "lingerSec": 5})
        run.call(["cat", "a.bin"], cwd=run.model_dir)
        moved = run.log_path.with_suffix(".1")
        run.log_path.rename(moved)
        self.assertNotIn("engine started", self.more(run, run.log_path))
        self.assertIn("engine started", moved.read_text())
        before = moved.read_text()
        os.truncate(run.log_path, 0)
        text = self.more(run, run.log_path)
        self.assertRegex(text, f"^{TIME} ", "no hole of zeros before the first line")
        self.assertEqual(moved.read_text(), before)
        self.assertEqual(len(run.engines()), 1)
