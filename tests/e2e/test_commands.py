"""The commands beside the engine: what they show is true, and they neither start nor keep an engine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys

from harness import folder, paths
from tests.e2e.base import EndToEnd

HOLD = paths.ROOT / "tests" / "apps" / "hold.py"


class Commands(EndToEnd):
    def ossc(self, run, *words: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(paths.OSSC), *words], env=run.env(None, **{"LD_PRELOAD": None, **changes}), capture_output=True, text=True, timeout=30, check=False
        )

    def holder(self, run) -> subprocess.Popen[bytes]:
        """A program that has everything mapped."""
        holder = run.start([sys.executable, str(HOLD), str(run.model_dir)], stdout=subprocess.PIPE)
        self.addCleanup(holder.stdout.close)
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        self.assertTrue(holder.stdout.readline().startswith(b"ready "), run.log_tail())
        return holder

    def large(self) -> dict[str, int]:
        sizes = {str(p.relative_to(self.plain)): p.stat().st_size for p in self.plain.rglob("*") if p.is_file()}
        return {name: size for name, size in sizes.items() if size > folder.MATERIALIZE_BYTES}

    def test_status_top_and_metrics_of_a_load(self) -> None:
        run = self.managed()
        holder = self.holder(run)
        status = json.loads(self.ossc(run, "status", "--json").stdout)
        shown = {o["name"]: (o["bytes"], o["ready_bytes"], o["state"]) for o in status["objects"] if o["bytes"] > folder.MATERIALIZE_BYTES}
        self.assertEqual(shown, {name: (size, size, "verified") for name, size in self.large().items()})
        self.assertEqual(status["engine_pid"], run.engines()[0])
        self.assertIn("nested/deep/c.bin", self.ossc(run, "status").stdout)

        top = self.ossc(run, "top")
        self.assertEqual((top.returncode, top.stderr), (0, ""))
        self.assertRegex(top.stdout.splitlines()[-1], r"^100 %  \S+ MiB of \S+ MiB  after ")

        metrics = self.ossc(run, "metrics")
        self.assertEqual((metrics.returncode, metrics.stderr), (0, ""))
        values = dict(line.rsplit(" ", 1) for line in metrics.stdout.splitlines() if not line.startswith("#"))
        self.assertEqual(values["ossc_up"], "1")
        self.assertEqual(int(values["ossc_ready_bytes"]), sum(self.large().values()))
        self.assertEqual(int(values['ossc_object_ready_bytes{object="b.bin"}']), self.large()["b.bin"])
        self.assertGreaterEqual(int(values["ossc_origin_bytes_total"]), sum(self.large().values()))
        self.assertIsNone(holder.poll())

    def test_top_on_a_terminal_names_who_has_what_mapped(self) -> None:
        run = self.managed()
        holder = self.holder(run)
        ours, theirs = os.openpty()
        env = run.env(None, LD_PRELOAD=None, TERM="xterm", COLUMNS="200")
        top = subprocess.Popen([str(paths.OSSC), "top"], env=env, stdout=theirs, stderr=subprocess.PIPE)
        os.close(theirs)
        text = b""
        # The kernel answers EIO when the last writer has closed the terminal.
        with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as terminal:
            while piece := terminal.read(1 << 16):
                text += piece
        _, said = top.communicate(timeout=30)
        self.assertEqual((top.returncode, said), (0, b""))
        self.assertIn(b"b.bin", text)
        self.assertIn(f"mapped by {holder.pid} ".encode(), text)

    def test_without_an_engine_they_say_so_and_start_none(self) -> None:
        run = self.managed()
        for command in ("status", "top"):
            done = self.ossc(run, command)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn("no engine runs for this folder", done.stderr)
            self.assertIn(str(run.model_dir), done.stderr)
        done = self.ossc(run, "metrics")
        self.assertEqual(done.returncode, 0)
        self.assertIn("ossc_up 0", done.stdout.splitlines())
        self.assertEqual(run.engines(), [])

    def test_who_looks_does_not_keep_the_engine(self) -> None:
        run = self.managed()
        self.assertEqual(run.call(["true"]).returncode, 0)
        top = subprocess.Popen([str(paths.OSSC), "top", "--stay"], env=run.env(None, LD_PRELOAD=None), stdout=subprocess.DEVNULL)
        self.addCleanup(top.wait)
        self.addCleanup(top.kill)
        self.assertIsNotNone(run.wait_engines_gone(run.linger_secs + 3))
        self.assertEqual(top.wait(timeout=10), 0)

    def test_run_starts_a_program_under_the_library(self) -> None:
        run = self.managed()
        location = run.env()["OSS_PATH"]
        done = self.ossc(
            run, "run", "--model-dir", str(run.model_dir), "--oss-path", location, "--", "sha256sum", str(run.model_dir / "b.bin"),
            MODEL_DIR=None, OSS_PATH=None,
        )
        plain = subprocess.run(["sha256sum", str(self.plain / "b.bin")], capture_output=True, text=True, check=True)
        self.assertEqual((done.returncode, done.stdout.split()[0]), (0, plain.stdout.split()[0]), done.stderr)
        self.assertEqual(self.ossc(run, "run", "sh", "-c", "exit 7").returncode, 7)
        gone = self.ossc(run, "run", "--", "/no/such/program")
        self.assertEqual(gone.returncode, 127)
        self.assertIn("/no/such/program", gone.stderr)
        kept = self.ossc(run, "run", "--", "sh", "-c", "echo $LD_PRELOAD $ENABLE_CONNECTOR", LD_PRELOAD="/nowhere/liblast.so")
        self.assertTrue(re.match(r"\S+/libossc_preload\.so:/nowhere/liblast\.so 1$", kept.stdout.strip()), kept.stdout)
