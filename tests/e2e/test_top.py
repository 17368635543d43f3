"""What is said of a load that does not go its usual way: by `ossc top`, `wait --ready`, `ps` and the lines with its figures."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import Any, ClassVar

from tests.e2e.base import PREFIX
from tests.e2e.test_commands import OneModel, Ossc
from tests.e2e.test_metrics import values
from tests.harness import paths
from tests.harness.run import Run

MIB = 1 << 20
RATE = 6_000_000
MODEL = {"model-00001-of-00002.safetensors": 12 * MIB, "model-00002-of-00002.safetensors": 12 * MIB, "spare.bin": 9 * MIB}
# It loads what is fetched ahead, and more than one test of this takes longer than a second.
WAIT_SECS = 60.0


class Loads(OneModel):
    files = MODEL

    def top(self, run: Run, *words: str, **options: Any) -> subprocess.Popen[str]:
        top = subprocess.Popen(
            [str(paths.OSSC), "top", *words], env=run.env(None, LD_PRELOAD=None), text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )
        self.addCleanup(top.communicate)
        self.addCleanup(top.kill)
        return top

    def stays(self, run: Run) -> subprocess.Popen[bytes]:
        program = run.start(["sleep", "60"])
        self.addCleanup(program.wait)
        self.addCleanup(program.kill)
        self.assertEqual(self.ossc(run, "wait", "--timeout", "20").returncode, 0)
        return program

    def report(self, run: Run) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ossc(run, "status", "--json").stdout)["report"]
        return found


class Slow(Loads):
    """A model of 24 MiB that takes about four seconds."""

    endpoint_options: ClassVar[list[str]] = ["--rate-bytes-per-sec", str(RATE)]

    def test_an_engine_that_is_gone_has_loaded_nothing(self) -> None:
        run = self.model()
        program = self.stays(run)
        top = self.top(run)
        assert top.stdout is not None
        self.assertTrue(top.stdout.readline())
        run.kill_engines()
        out, err = top.communicate(timeout=WAIT_SECS)
        self.assertEqual(top.returncode, 1, out)
        self.assertRegex(err, r"^ossc top: the engine ended while \S+ \w+ of 24\.0 MiB were here\n$")
        program.kill()

    def test_numbers_begin_with_the_engine_that_takes_over(self) -> None:
        run = self.model(lingerSec=3)
        self.assertEqual(run.call(["cat", "spare.bin"], cwd=run.model_dir).returncode, 0)
        self.assertTrue(run.logged("load finished"))
        before = values(self.ossc(run, "metrics").stdout)
        # Given back, so that a reader waits for it.
        self.assertEqual(self.ossc(run, "drop").returncode, 0)
        reader = run.start(["cat", "model-00001-of-00002.safetensors"], cwd=run.model_dir, stdout=subprocess.DEVNULL)
        (old,) = run.engines()
        while not self.report(run)["origin"]["requests_under_way"]:
            self.assertIsNone(reader.poll())
        begun, count = self.endpoint_bytes(), len(run.log_lines())
        time.sleep(1.1)
        run.kill_engines()
        self.assertEqual(reader.wait(timeout=WAIT_SECS), 0)
        self.assertNotEqual(run.engines(), [old])
        (line,) = run.logged("load finished", after=count)
        told = int(line.split(" bytes=")[1].split()[0])
        after = values(self.ossc(run, "metrics").stdout)
        self.assertEqual(after["ossc_origin_bytes_total"], told)
        self.assertLess(told, self.endpoint_bytes() - begun + 2 * MIB, "bytes of the engine before are among them")
        self.assertGreater(after["ossc_start_time_seconds"], before["ossc_start_time_seconds"])

    def endpoint_bytes(self) -> int:
        return sum(request.bytes_sent for request in self.endpoint.requests())


class Quick(Loads):
    def test_what_no_program_wants_is_not_waited_for(self) -> None:
        run = self.model()
        self.holder_of_one(run)
        top = self.top(run)
        out, err = top.communicate(timeout=WAIT_SECS)
        self.assertEqual((top.returncode, err), (0, ""))
        self.assertRegex(out.splitlines()[-1], r"^100 %  24\.0 MiB of 24\.0 MiB  after ")

    def holder_of_one(self, run: Run) -> None:
        program = run.start(["sh", "-c", "cat model-00001-of-00002.safetensors >/dev/null; echo read; exec sleep 60"], cwd=run.model_dir, stdout=subprocess.PIPE)
        assert program.stdout is not None
        self.addCleanup(program.stdout.close)
        self.addCleanup(program.wait)
        self.addCleanup(program.kill)
        self.assertEqual(program.stdout.readline(), b"read\n")

    def test_a_reader_that_is_gone_ends_it(self) -> None:
        run = self.model()
        self.holder_of_one(run)
        ours, theirs = os.pipe()
        top = self.top(run, "--stay", stdout=theirs)
        os.close(theirs)
        self.assertTrue(os.read(ours, 100))
        os.close(ours)
        self.assertEqual(top.wait(timeout=WAIT_SECS), 0)

    def test_a_line_counts_the_objects_of_its_load(self) -> None:
        run = self.model(lingerSec=5)
        shards = [name for name in MODEL if name.startswith("model")]
        self.assertEqual(run.call(["cat", *shards], cwd=run.model_dir).returncode, 0)
        self.assertTrue(run.logged("load finished"))
        count = len(run.log_lines())
        self.assertEqual(run.call(["cat", "spare.bin"], cwd=run.model_dir).returncode, 0)
        (line,) = run.logged("load finished", after=count)
        self.assertIn(f" objects=1 bytes={MODEL['spare.bin']} ", line)
        self.assertIn(' verified="1 of 1" ', line)


class NotListed(Ossc):
    """A folder that OSS does not list is missing for its readers, whatever else is here."""

    faults: ClassVar[list[Any]] = [{"match": {"kind": "list", "prefix": f"{PREFIX}/nested/"}, "do": {"status": 403, "code": "AccessDenied"}}]

    def test_each_command_says_so(self) -> None:
        run = self.managed({"lingerSec": 5})
        done = run.call(["sh", "-c", "cat a.bin >/dev/null; ls nested"], cwd=run.model_dir)
        self.assertEqual(done.returncode, 2)
        reason = "not listed: nested/: "
        for words in (["wait", "--ready", "--timeout", "0"], ["wait", "--ready", "--timeout", "20"], ["top"]):
            said = self.ossc(run, *words)
            self.assertEqual(said.returncode, 2, words)
            self.assertTrue(said.stderr.startswith(f"ossc {words[0]}: {reason}"), said.stderr)
            self.assertIn("AccessDenied", said.stderr)
        self.assertEqual(self.ossc(run, "wait", "--timeout", "0").returncode, 0)
        (row,) = [line for line in self.ossc(run, "ps").stdout.splitlines() if str(run.model_dir) in line]
        self.assertTrue(row.endswith("  1 failed"), row)
        status = self.ossc(run, "status")
        self.assertEqual(status.returncode, 2)
        self.assertIn(f"\n{reason}", status.stdout)
