"""What an engine says of itself: `ps`, `wait`, `status`, `metrics`, `config` and the line that ends a load agree with the
endpoint's own count."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any, ClassVar

from tests.e2e import test_commands
from tests.e2e.base import PREFIX
from tests.harness import faults, folder, paths
from tests.harness.faults import rule
from tests.harness.requestlog import Request
from tests.harness.run import Run

SUMMARY = re.compile(r"load finished (.*)")


class Reported(test_commands.Ossc):
    """Reads what an engine says of itself."""

    def loaded(self) -> tuple[Run, list[Request]]:
        """A folder whose files a program has mapped and that is at rest, and all requests for it."""
        self.endpoint.forget()
        run = self.managed()
        self.holder(run)
        self.assertEqual(self.ossc(run, "wait", "--ready", "--timeout", "20").returncode, 0)
        return run, self.endpoint.requests()

    def report(self, run: Run) -> dict[str, Any]:
        done = self.ossc(run, "status", "--json")
        found: dict[str, Any] = json.loads(done.stdout)["report"]
        return found

    def summary(self, run: Run) -> dict[str, str]:
        """Fields of the last line that ends a load; it is written within two looks at the leases."""
        for _ in range(100):
            if found := SUMMARY.findall(run.log_tail(200)):
                return dict(re.findall(r'(\w+)="?([^"\s]+(?: of \d+)?)"?', found[-1]))
            time.sleep(0.1)
        self.fail(run.log_tail(200))


class Verbs(Reported):
    """One engine, seen by each verb."""

    def test_figures_agree_with_the_endpoint(self) -> None:
        run, sent = self.loaded()
        bodies = sum(request.bytes_sent for request in sent)
        report = self.report(run)
        self.assertEqual((report["origin"]["requests"], report["origin"]["bytes"]), (len(sent), bodies))
        self.assertEqual(report["origin"]["failures"], {})
        self.assertEqual(report["oss_path"], run.env()["OSS_PATH"])
        self.assertIn(self.endpoint.url.removeprefix("http://"), report["endpoint"])
        self.assertEqual(report["pid"], run.engines()[0])
        self.assertEqual(len(report["clients"]), 1)
        values = self.metrics(run)
        label = f'{{model_dir="{run.model_dir}"}}'
        self.assertEqual((values[f"ossc_origin_requests_total{label}"], values[f"ossc_origin_bytes_total{label}"]), (len(sent), bodies))
        self.assertEqual((values[f"ossc_at_rest{label}"], values[f"ossc_clients{label}"]), (1, 1))
        found = self.summary(run)
        self.assertEqual((int(found["requests"]), int(found["bytes"]), found["retries"]), (len(sent), bodies, "0"))
        large = [p for p in self.plain.rglob("*") if p.is_file() and p.stat().st_size > folder.MATERIALIZE_BYTES]
        self.assertEqual(found["verified"], f"{len(large)} of {len(large)}")

    def metrics(self, run: Run) -> dict[str, float]:
        text = self.ossc(run, "metrics").stdout
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))}

    def test_ps_lists_each_engine(self) -> None:
        first, second = self.managed(), self.managed()
        self.holder(first)
        self.holder(second)
        found = {one["model_dir"]: one for one in json.loads(self.ossc(first, "ps", "--json").stdout) if "model_dir" in one}
        for run in (first, second):
            self.assertEqual(found[str(run.model_dir)]["pid"], run.engines()[0])
            self.assertEqual(len(found[str(run.model_dir)]["clients"]), 1)
        lines = self.ossc(first, "ps", MODEL_DIR=None).stdout.splitlines()
        self.assertTrue(lines[0].startswith("PID "), lines)
        self.assertEqual(len([line for line in lines if str(first.model_dir) in line and first.env()["OSS_PATH"] in line]), 1)

    def test_a_program_that_has_opened_nothing_yet_is_waited_for(self) -> None:
        run = self.managed()
        program = run.start(["sh", "-c", "read word; exec cat $MODEL_DIR/b.bin"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(program.communicate)
        self.addCleanup(program.kill)
        self.assertEqual(self.ossc(run, "wait", "--timeout", "20").returncode, 0)
        early = self.ossc(run, "wait", "--ready", "--timeout", "3")
        self.assertEqual(early.returncode, 3, early.stderr)
        self.assertIn("no program has opened a large object yet", early.stderr)
        assert program.stdin is not None
        program.stdin.write(b"\n")
        program.stdin.flush()
        self.assertEqual(self.ossc(run, "wait", "--ready", "--timeout", "20").returncode, 0)

    def test_wait_has_a_status_for_each_end(self) -> None:
        run = self.managed()
        late = self.ossc(run, "wait", "--timeout", "0")
        self.assertEqual(late.returncode, 3)
        self.assertIn("no engine runs for this folder", late.stderr)
        waiting = subprocess.Popen([str(paths.OSSC), "wait", "--timeout", "20"], env=run.env(None, LD_PRELOAD=None))
        self.addCleanup(waiting.kill)
        self.holder(run)
        self.assertEqual(waiting.wait(timeout=25), 0)
        self.assertEqual(self.ossc(run, "wait", "--ready", "--timeout", "20").returncode, 0)

    def test_metrics_replace_a_file_as_a_whole(self) -> None:
        run = self.managed()
        self.holder(run)
        target = Path(run.model_dir).parent / "ossc.prom"
        self.addCleanup(target.unlink, missing_ok=True)
        target.write_text("old")
        self.assertEqual(self.ossc(run, "metrics", "--textfile", str(target)).returncode, 0)
        self.assertIn("ossc_up{", target.read_text())
        self.assertEqual([p.name for p in target.parent.iterdir() if p.name.startswith("ossc.prom.")], [])
        refused = self.ossc(run, "metrics", "--textfile", "/nonexistent/ossc.prom")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("/nonexistent/ossc.prom", refused.stderr)

    def test_what_is_in_force_and_what_is_wrong_with_a_file(self) -> None:
        run = self.managed({"lingerSec": 3})
        found = json.loads(self.ossc(run, "config", "--effective", "--json").stdout)
        self.assertEqual(found["keys"]["lingerSec"], {"value": 3, "source": run.env()["OSSC_CONFIG"]})
        self.assertEqual(found["keys"]["listAttempts"], {"value": 8, "source": "default"})
        self.assertEqual(found["variables"]["OSS_ACCESS_KEY_SECRET"], "set")
        self.assertNotIn(run.env()["OSS_ACCESS_KEY_SECRET"], json.dumps(found))
        text = self.ossc(run, "config", "--effective").stdout
        self.assertRegex(text, r"(?m)^lingerSec +3 +/")
        self.assertEqual(self.ossc(run, "config", "--check", run.env()["OSSC_CONFIG"]).returncode, 0)
        wrong = Path(run.env()["OSSC_CONFIG"]).with_name("wrong.json")
        self.addCleanup(wrong.unlink)
        wrong.write_text('{"lingerSec": "soon"}')
        done = self.ossc(run, "config", "--check", str(wrong))
        self.assertEqual(done.returncode, 1)
        self.assertIn("lingerSec", done.stderr)


class Failed(test_commands.Ossc):
    """One object cannot be had: each verb says so, by its status too."""

    faults: ClassVar[list[Any]] = [faults.refused(403, "AccessDenied", f"{PREFIX}/b.bin")]

    def test_a_failed_object_has_its_reason(self) -> None:
        run = self.managed()
        self.assertNotEqual(run.call(["cat", str(run.model_dir / "b.bin")]).returncode, 0)
        for words, status in ((["status"], 2), (["wait", "--ready", "--timeout", "20"], 2), (["top"], 2)):
            with self.subTest(words):
                done = self.ossc(run, *words)
                self.assertEqual(done.returncode, status, done.stdout + done.stderr)
                self.assertIn("AccessDenied", done.stdout + done.stderr)
                self.assertIn("b.bin", done.stdout + done.stderr)


class Throttled(Reported):
    """The same with answers that OSS throttles: retries are counted, and told apart."""

    faults: ClassVar[list[Any]] = [rule({"status": 503, "code": "SlowDown"}, times=3)]

    def test_figures_agree_with_the_endpoint(self) -> None:
        run, sent = self.loaded()
        report = self.report(run)
        self.assertEqual((report["origin"]["requests"], report["origin"]["throttled"]), (len(sent), 3))
        self.assertEqual(report["origin"]["failures"], {"throttled": 3})
        found = self.summary(run)
        self.assertEqual((found["requests"], found["throttled"], found["retries"]), (str(len(sent)), "3", "3"))
