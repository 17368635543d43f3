"""What a program's user is told on its standard error: why a read fails, once, and what a start or a wait waits for."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from tests.e2e.base import PREFIX, EndToEnd, EnginesEnd, slow
from tests.harness import faults, folder, paths
from tests.harness.endpoint import Endpoint
from tests.harness.run import Run

SAID = "oss connector: "
PYTHON = str(paths.VENV_PYTHON)
# Reads each file three times, by read and by map, and prints the errnos.
READER = """
import mmap, sys
for path in sys.argv[1:]:
    for _ in range(3):
        for how in ("read", "map"):
            try:
                with open(path, "rb", buffering=0) as file:
                    file.read() if how == "read" else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except OSError as error: print(error.errno, end=" ")
    print()
"""
# Four threads read one file.
TOGETHER = """
import sys, threading
for _ in range(4): threading.Thread(target=lambda: open(sys.argv[1], "rb").read()).start()
"""
# Descriptor 2 is a data file of the program's own by the time that a read fails.
OWN = """
import os, sys
os.close(2)
assert os.open(sys.argv[2], os.O_RDWR | os.O_CREAT) == 2
os.write(2, b"HEADER--")
try: open(sys.argv[1], "rb").read()
except OSError as error: os.write(2, b"%d" % error.errno)
os.write(2, b"--TRAILER")
"""
EIO, EACCES, ENOMEM = 5, 13, 12


class FailedReads(EndToEnd):
    faults: ClassVar[list[dict[str, Any]] | None] = [
        faults.refused(403, "AccessDenied", f"{PREFIX}/a.bin"),
        faults.flipped_at(f"{PREFIX}/b.bin", 9_000_000),
        faults.refused(403, "AccessDenied", f"{PREFIX}/small.bin"),
    ]

    def said(self, run: Run, *names: str) -> tuple[list[list[int]], list[str]]:
        """The errnos of each file's reads, and the lines on stderr."""
        done = run.call([PYTHON, "-c", READER, *(str(run.model_dir / name) for name in names)])
        self.assertEqual(done.returncode, 0, done.stderr)
        return [[int(word) for word in line.split()] for line in done.stdout.decode().splitlines()], done.stderr.decode().splitlines()

    def test_each_object_and_cause_is_told_once(self) -> None:
        run = self.managed()
        names = ["a.bin", "b.bin", "small.bin", "page.bin"]
        errnos, lines = self.said(run, *names)
        self.assertEqual([sorted(set(found)) for found in errnos], [[EACCES], [EIO], [EACCES], []], run.log_tail())
        for name, errno, why in (("a.bin", "EACCES", "grant oss:GetObject"), ("b.bin", "EIO", "CRC-64"), ("small.bin", "EACCES", "grant oss:GetObject")):
            (line,) = [line for line in lines if f"{run.model_dir}/{name}: " in line]
            self.assertTrue(line.startswith(f"{SAID}{run.model_dir}/{name}: {errno}: "), line)
            self.assertIn(why, line)
            self.assertTrue(line.endswith(f"; the log says more: {run.log_path}"), line)
        self.assertEqual(len(lines), 3)

    def test_what_no_memory_holds_is_told_with_its_remedy(self) -> None:
        run = self.managed({"memoryLimit": 16 << 20})
        maps = READER.replace('("read", "map")', '("map",)')
        done = run.call([PYTHON, "-c", maps, str(run.model_dir / "page.bin"), str(run.model_dir / "b.bin")])
        self.assertEqual(done.stdout.split(), [b"12"] * 3, done.stderr)
        (line,) = done.stderr.decode().splitlines()
        self.assertIn(f"{run.model_dir}/b.bin: ENOMEM: it is larger than the memory budget", line)
        self.assertIn("raise memoryLimit", line)

    def test_a_data_file_in_place_of_stderr_gets_nothing(self) -> None:
        run = self.managed()
        data = run.dir / "data"
        self.assertEqual(run.call([PYTHON, "-c", OWN, str(run.model_dir / "a.bin"), str(data)]).returncode, 0)
        self.assertEqual(data.read_bytes(), b"HEADER--13--TRAILER")

    def test_a_folder_that_cannot_be_listed_is_told_once(self) -> None:
        rule = faults.refused(403, "AccessDenied", kind="list")
        rule["match"]["prefix"] = f"{PREFIX}/nested/"
        with tempfile.TemporaryDirectory(prefix="ossc-test-") as scratch, Endpoint(self.scratch / "root", Path(scratch), [rule]) as endpoint:
            run = self.ending(Run(endpoint, PREFIX, config={"materializeBytes": folder.MATERIALIZE_BYTES}))
            done = run.call([PYTHON, "-c", "import os, sys\nfor _ in range(3):\n try: print(os.listdir(sys.argv[1]))\n except OSError as e: print(e.errno)", str(run.model_dir / "nested")])
            self.assertEqual(done.stdout.split(), [b"5"] * 3, done.stderr)
            (line,) = done.stderr.decode().splitlines()
            self.assertIn(f"{run.model_dir}/nested: EIO: OSS did not list it", line)
            run.close()


class LongReads(EndToEnd):
    """Readers that wait for longer than ten seconds: of one object no answer is usable, of the other one it is late."""

    faults: ClassVar[list[dict[str, Any]] | None] = [
        {"match": {"kind": "get", "key": f"{PREFIX}/a.bin"}, "do": {"wrong_content_range": True}},
        {"match": {"kind": "get", "key": f"{PREFIX}/small.bin"}, "do": {"status": 503, "code": "ServiceUnavailable"}},
        {"match": {"kind": "get", "key": f"{PREFIX}/page.bin"}, "do": {"delay_ms": 11_000}},
    ]

    @slow
    def test_what_fails_again_and_again_is_told_once_and_slowness_is_not(self) -> None:
        run = self.managed({"responseTimeoutMs": 60_000})
        failing = {"a.bin": "asked for bytes .* the answer has .*", "small.bin": r".*status 503, code ServiceUnavailable.*"}
        late = run.start(["cat", str(run.model_dir / "page.bin")], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(late.kill)
        readers = {name: run.start([PYTHON, "-c", TOGETHER, str(run.model_dir / name)], stderr=subprocess.PIPE) for name in failing}
        for reader in readers.values():
            self.addCleanup(reader.kill)
        self.assertEqual((late.communicate(timeout=60)[1], late.returncode), (b"", 0), run.log_tail())
        for name, reader in readers.items():
            with self.subTest(name):
                assert reader.stderr is not None
                lines = [reader.stderr.readline()]
                # Its other threads have waited for as long.
                with self.assertRaises(subprocess.TimeoutExpired):
                    reader.wait(1)
                reader.kill()
                lines += reader.communicate()[1].splitlines()
                self.assertEqual(len(lines), 1, lines)
                why = f"{run.model_dir}/{name}: a reader still waits for it, since {PREFIX}/{name}: .*{failing[name]}; the log says more: {run.log_path}$"
                self.assertRegex(lines[0].decode().rstrip(), f"^{SAID}{why}", run.log_tail())


class Waits(EnginesEnd):
    """A start that takes long, and a program that waits for an engine."""

    @classmethod
    def setUpClass(cls) -> None:
        paths.require_products()

    def silent(self) -> str:
        """An address that takes connections and never answers."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    def nowhere(self) -> Run:
        endpoint = Endpoint(Path("/nowhere"), Path("/nowhere"))
        endpoint.url = self.silent()
        config = {"startTimeoutSec": 20, "responseTimeoutMs": 1000}
        return self.ending(Run(endpoint, "x", config=config))

    def test_a_start_that_takes_long_says_what_it_waits_for_and_again(self) -> None:
        run = self.nowhere()
        done = run.call(["true"])
        lines = done.stderr.decode().splitlines()
        self.assertEqual(done.returncode, 1)
        self.assertTrue(lines[-1].startswith("failed to launch oss connector: failed to list objects: "), lines)
        waits = lines[:-1]
        self.assertGreaterEqual(len(waits), 2, lines)
        for line in waits:
            self.assertRegex(line, r"^oss connector: still starting after \d+ s, waiting for OSS, since list .* head phase: ")

    def test_a_secondary_without_an_engine_says_so_before_it_waits(self) -> None:
        run = self.nowhere()
        env = run.env(2, OSS_PATH=None, OSS_ENDPOINT=None)
        reader = run.start(["ls", str(run.model_dir)], env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(reader.wait)
        self.addCleanup(reader.kill)
        assert reader.stderr is not None
        with self.assertRaises(subprocess.TimeoutExpired):
            # What it says later than this it says after a while.
            reader.wait(4)
        reader.kill()
        self.assertEqual(reader.stderr.read().decode(), f"{SAID}waiting for an engine (a program with ENABLE_CONNECTOR=1 starts it)\n")
        reader.stderr.close()

    def test_a_secondary_that_is_told_nothing_of_a_model_says_so(self) -> None:
        run = self.nowhere()
        done = run.call(["echo", "ran"], run.env(2, MODEL_DIR=None))
        self.assertEqual((done.returncode, done.stdout), (0, b"ran\n"))
        self.assertEqual(done.stderr.decode(), f"{SAID}there is no MODEL_DIR: ENABLE_CONNECTOR=2 does nothing in this program\n")
