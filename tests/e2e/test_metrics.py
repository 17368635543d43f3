"""What an engine tells Prometheus: true, in the format, over HTTP without a reader noticing, and named right by alerts and
dashboard."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, ClassVar

from tests.e2e.base import PREFIX, can_unshare
from tests.e2e.test_commands import Ossc
from tests.e2e.test_kubernetes import yaml_documents
from tests.harness import folder, paths
from tests.harness.endpoint import Endpoint
from tests.harness.issuer import Issuer, KeyFile
from tests.harness.run import Run

MONITORING = paths.ROOT / "dist" / "monitoring"
SECS = 30.0
MIB = 1 << 20
# The engine's own descriptors, and those of the connections that it takes at a time.
DESCRIPTORS_MAX = 200


def families(text: str) -> dict[str, Any]:
    """The page as Prometheus' own client reads it, by name; its parser refuses what is not in the format."""
    try:
        parser = importlib.import_module("prometheus_client.parser")
    except ImportError:
        raise unittest.SkipTest("needs prometheus-client: ci/setup installs it") from None
    return {family.name: family for family in parser.text_string_to_metric_families(text)}


def values(text: str) -> dict[str, float]:
    """Names with their labels but `model_dir`, and values."""
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {re.sub(r'model_dir="[^"]*",?', "", name).replace("{}", ""): float(value) for name, value in lines}


class Metrics(Ossc):
    def sha(self, name: str) -> str:
        return hashlib.sha256((self.plain / name).read_bytes()).hexdigest()

    def reads(self, run: Run, name: str = "b.bin") -> None:
        done = run.call(["sha256sum", name], cwd=run.model_dir)
        self.assertEqual(done.stdout.decode().split()[:1], [self.sha(name)], done.stderr.decode() + run.log_tail())

    def listening(self, **config: Any) -> tuple[Run, str]:
        """A folder whose engine a program keeps, and the address where it answers."""
        run = self.managed({"metricsListen": "0", **config})
        self.holder(run)
        (line,) = run.logged("metrics are served")
        found = re.search(r"at=(\S+)", line)
        assert found is not None
        return run, found[1]

    def scraped(self, address: str, path: str = "/metrics", method: str = "GET") -> tuple[int, str, str]:
        request = urllib.request.Request(f"http://{address}{path}", method=method, data=b"x" if method == "POST" else None)
        try:
            with urllib.request.urlopen(request, timeout=SECS) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers["Content-Type"], error.read().decode()

    def test_a_scrape_is_what_the_command_prints(self) -> None:
        run, address = self.listening()
        self.assertTrue(address.startswith("127.0.0.1:"))
        self.assertEqual(self.ossc(run, "wait", "--ready", "--timeout", "20").returncode, 0)
        status, kind, text = self.scraped(address)
        self.assertEqual((status, kind), (200, "text/plain; version=0.0.4; charset=utf-8"))
        self.assertEqual(text, self.ossc(run, "metrics").stdout)
        for path, method, expected in (("/", "GET", 404), ("/metrics", "POST", 405), ("/metrics", "HEAD", 405)):
            self.assertEqual(self.scraped(address, path, method)[0], expected)

    def test_the_page_is_in_the_format(self) -> None:
        run, address = self.listening()
        _, _, text = self.scraped(address)
        found = families(text)
        for family in found.values():
            for sample in family.samples:
                self.assertEqual(sample.labels.get("model_dir"), str(run.model_dir))
        self.assertEqual(found["ossc_reader_wait_seconds"].type, "histogram")
        names = [line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE")]
        self.assertEqual(len(names), len(set(names)))
        if promtool := shutil.which("promtool"):
            done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_waits_and_hits_are_counted_once_each(self) -> None:
        run = self.managed({"lingerSec": 5})
        self.reads(run)
        before = values(self.ossc(run, "metrics").stdout)
        self.assertGreater(before["ossc_reader_wait_seconds_count"], 0)
        self.assertGreater(before["ossc_reader_wait_seconds_sum"], 0)
        self.assertEqual(before['ossc_reader_wait_seconds_bucket{le="+Inf"}'], before["ossc_reader_wait_seconds_count"])
        size = (self.plain / "b.bin").stat().st_size
        self.assertEqual((before["ossc_opens_total"], before["ossc_opened_bytes_total"]), (1, size))
        self.reads(run)
        after = values(self.ossc(run, "metrics").stdout)
        self.assertEqual(after["ossc_reader_wait_seconds_count"], before["ossc_reader_wait_seconds_count"], "what is here is no wait")
        self.assertEqual(after["ossc_opens_total"], 2)
        self.assertEqual(after["ossc_memory_hit_bytes_total"] - before["ossc_memory_hit_bytes_total"], size)
        self.assertEqual(after["ossc_origin_bytes_total"], before["ossc_origin_bytes_total"])

    def test_the_end_of_credentials_is_told(self) -> None:
        scratch = Path(tempfile.mkdtemp(dir=self.scratch))
        issuer = Issuer(scratch / "keys.json", 600)
        endpoint = self.serving(Endpoint(self.scratch / "root", scratch, None, ["--keys", str(issuer.keys)]))
        with KeyFile(issuer, scratch / "key.json", 3600) as file:
            run = self.ending(Run(endpoint, PREFIX, config={"materializeBytes": folder.MATERIALIZE_BYTES, "lingerSec": 3}))
            env = run.env(OSS_ACCESS_KEY_ID=None, OSS_ACCESS_KEY_SECRET=None, OSS_AUTHORIZATION_FILE_PATH=str(file.path))
            self.assertEqual(run.call(["cat", "b.bin"], env, cwd=run.model_dir).returncode, 0)
            (line,) = run.logged("credentials source=")
            end = re.search(r"ends_unix_secs=(?:Some\()?(\d+)", line)
            assert end is not None
            found = values(self.ossc(run, "metrics").stdout)
            self.assertEqual(found["ossc_credentials_expiry_timestamp_seconds"], float(end[1]))

    def test_a_replaced_object_counts_as_what_it_is_now(self) -> None:
        """Also where a program still has the version before."""
        model = self.plain.parent / "replaced"
        folder.fill(model, {"w.bin": 3 * MIB}, 1)
        run = self.ending(Run(self.endpoint, "team/replaced", config={"materializeBytes": folder.MATERIALIZE_BYTES, "listAgainSec": 1}))
        code = "import sys; file = open('w.bin', 'rb'); file.read(); print('read', flush=True); sys.stdin.read()"
        holder = run.start([sys.executable, "-c", code], cwd=run.model_dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(holder.communicate)
        assert holder.stdout is not None
        self.assertEqual(holder.stdout.readline(), b"read\n")
        folder.fill(model, {"w.bin": 2 * MIB}, 2)
        deadline = time.monotonic() + 30
        while len(run.call(["cat", "w.bin"], cwd=run.model_dir).stdout) != 2 * MIB:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.2)
        self.assertEqual(values(self.ossc(run, "metrics").stdout)['ossc_object_ready_bytes{object="w.bin"}'], 2 * MIB)
        rows = [line for line in self.ossc(run, "status").stdout.splitlines() if "w.bin" in line]
        self.assertEqual([("older version" in row, "3.0 MiB" in row) for row in rows], [(True, True), (False, False)])

    @unittest.skipUnless(can_unshare(), "needs a mount namespace")
    def test_a_full_disk_keeps_no_part_of_a_file(self) -> None:
        run = self.managed()
        disk = Path(tempfile.mkdtemp(dir=self.scratch))
        script = 'mount -t tmpfs -o size=8k none "$1" && head -c 8192 /dev/zero > "$1/full"; "$2" metrics --textfile "$1/ossc.prom"; echo $?; ls "$1"'
        argv = ["unshare", "-m", "sh", "-c", script, "sh", str(disk), str(paths.OSSC)]
        done = subprocess.run(argv, env=run.env(None, LD_PRELOAD=None), capture_output=True, text=True, check=False)
        self.assertEqual(done.stdout.split(), ["1", "full"], done.stderr)
        self.assertIn("ossc.prom: No space left on device", done.stderr)

    def test_without_the_key_no_engine_listens(self) -> None:
        run = self.managed()
        self.holder(run)
        (engine,) = run.engines()
        links = [os.readlink(f"/proc/{engine}/fd/{fd}") for fd in os.listdir(f"/proc/{engine}/fd") if os.path.lexists(f"/proc/{engine}/fd/{fd}")]
        sockets = {link[8:-1] for link in links if link.startswith("socket:")}
        rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
        # 0A: it listens.
        self.assertEqual([row for row in rows if row[3] == "0A" and row[9] in sockets], [])

    def test_a_port_in_use_is_said_and_nothing_else(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            run = self.managed({"metricsListen": f"127.0.0.1:{port}"})
            done = run.call(["sha256sum", "b.bin"], cwd=run.model_dir)
            said = self.ossc(run, "doctor", ENABLE_CONNECTOR="1", LD_PRELOAD=str(paths.PRELOAD)).stdout
        self.assertEqual(done.stdout.decode().split()[:1], [self.sha("b.bin")])
        self.assertRegex(said, rf"(?m)^note +metrics +metricsListen 127\.0\.0\.1:{port}: Address already in use")
        self.assertRegex(done.stderr.decode(), rf"^oss connector: metricsListen 127\.0\.0\.1:{port}: Address already in use.*: metrics are not served")

    def test_a_thousand_silent_connections_and_a_slow_reader_hold_up_nothing(self) -> None:
        run, address = self.listening()
        host, port = address.split(":")
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        slow.connect((host, int(port)))
        slow.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        self.addCleanup(slow.close)
        for _ in range(1000):
            one = socket.create_connection((host, int(port)), timeout=SECS)
            self.addCleanup(one.close)
        status, _, text = self.scraped(address)
        self.assertEqual((status, values(text)["ossc_up"]), (200, 1))
        (engine,) = run.engines()
        self.assertLess(len(os.listdir(f"/proc/{engine}/fd")), DESCRIPTORS_MAX)
        self.reads(run)


class Monitoring(Ossc):
    """dist/monitoring."""

    rules: ClassVar[list[dict[str, Any]]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        (document,) = yaml_documents((MONITORING / "alerts.yaml").read_text())
        cls.rules = [rule for group in document["groups"] for rule in group["rules"]]

    def written(self) -> set[str]:
        """Names of the samples that an engine writes, also of those that have no sample now."""
        run = self.managed()
        self.holder(run)
        text = self.ossc(run, "metrics").stdout
        kinds = dict(re.findall(r"(?m)^# TYPE (\S+) (\S+)$", text))
        histograms = {f"{name}_{end}" for name, kind in kinds.items() if kind == "histogram" for end in ("bucket", "sum", "count")}
        return {name for name, kind in kinds.items() if kind != "histogram"} | histograms

    def test_every_metric_that_they_name_is_written(self) -> None:
        dashboard = json.loads((MONITORING / "dashboard.json").read_text())
        shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        shown += [variable["query"]["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
        alarms = [rule["expr"] for rule in self.rules]
        self.assertTrue(len(shown) > 15 and len(alarms) > 5)
        written = self.written()
        for expression in (*shown, *alarms):
            named = set(re.findall(r"\bossc_\w+", expression))
            self.assertTrue(named, expression)
            self.assertLessEqual(named, written, expression)

    def test_labels_that_they_name_are_written(self) -> None:
        text = (MONITORING / "alerts.yaml").read_text() + (MONITORING / "dashboard.json").read_text().replace('\\"', '"')
        kinds = set(re.findall(r"(?m)^\| `?(\w+)`? \|", (paths.ROOT / "docs" / "ERRORS.md").read_text().split("Kinds of failures")[1]))
        for names in re.findall(r'kind!?[=~]+"([\w|]+)"', text):
            self.assertLessEqual(set(names.split("|")), kinds)

    def test_each_alert_says_what_to_do(self) -> None:
        section = (paths.ROOT / "docs" / "TROUBLESHOOTING.md").read_text().split("## An alert fires\n")[1].split("\n## ")[0]
        rows = re.findall(r"(?m)^\| `(\w+)` \| .+ \| .+ \|$", section)
        self.assertEqual(rows, [rule["alert"] for rule in self.rules])
        for rule in self.rules:
            self.assertEqual(set(rule) - {"for"}, {"alert", "expr", "labels", "annotations"})
            self.assertIn(rule["labels"]["severity"], ("critical", "warning", "info"))
            self.assertIn("$labels.model_dir", rule["annotations"]["summary"])
        if promtool := shutil.which("promtool"):
            done = subprocess.run([promtool, "check", "rules", str(MONITORING / "alerts.yaml")], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_panels_lie_beside_each_other(self) -> None:
        dashboard = json.loads((MONITORING / "dashboard.json").read_text())
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            self.assertFalse(cells & taken, panel["title"])
            self.assertLessEqual(at["x"] + at["w"], 24)
            taken |= cells
        self.assertEqual(len({panel["id"] for panel in dashboard["panels"]}), len(dashboard["panels"]))


if __name__ == "__main__":
    unittest.main()
