"""Limits of OSS and of time: throttling, names that do not resolve or lead nowhere, and what is said of each in time."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import time
import unittest
from typing import Any

from tests.e2e.base import PREFIX, EndToEnd, can_unshare
from tests.harness import faults, folder, paths
from tests.harness.endpoint import ANY_PORT, Endpoint
from tests.harness.run import Run

FILES = ["a.bin", "b.bin", "nested/deep/c.bin", "page.bin", "lines.txt"]
FAILED = "failed to launch oss connector: failed to list objects: "
# Most requests that the endpoint takes at a time, and connections that the engine has.
BUSY_MAX = 8
CONNECTIONS = 64


class Limits(EndToEnd):
    """Each test has an endpoint of its own, with its rules."""

    def start(self, rules: list[faults.Rule] | None = None, listen: str = ANY_PORT, **config: Any) -> Run:
        scratch = self.scratch / self.id().rsplit(".", 1)[-1]
        endpoint = self.serving(Endpoint(self.scratch / "root", scratch, rules, listen=listen))
        return self.ending(Run(endpoint, PREFIX, config={"materializeBytes": folder.MATERIALIZE_BYTES, **config}))

    def assert_equal(self, run: Run, env: dict[str, str] | None = None, before: list[str] | None = None) -> None:
        done = run.call([*(before or []), "sha256sum", *FILES], env, cwd=run.model_dir)
        expected = [f"{hashlib.sha256((self.plain / name).read_bytes()).hexdigest()}  {name}" for name in FILES]
        self.assertEqual(done.stdout.decode().splitlines(), expected, done.stderr.decode() + run.log_tail())

    def refused_in(self, run: Run, env: dict[str, str], words: str, before: list[str] | None = None) -> float:
        """Seconds until the start failed with one line that has these words."""
        begin = time.monotonic()
        done = run.call([*(before or []), "echo", "started"], env, timeout=60)
        secs = time.monotonic() - begin
        lines = done.stderr.decode().splitlines()
        self.assertEqual((len(lines), done.stdout), (1, b""), lines)
        self.assertTrue(lines[0].startswith(FAILED) and words in lines[0], lines[0])
        return secs

    def test_throttling_lowers_the_requests_at_a_time(self) -> None:
        """Above 8 requests at a time the endpoint answers 503; the engine has 64 connections and small parts."""
        rule = faults.rule({"busy_above": BUSY_MAX, "delay_ms": 20})
        run = self.start([rule], partBytes=65536, prefetch={"vcpus": 4, "workers": CONNECTIONS // 4})
        self.assert_equal(run)
        gets = [r for r in run.endpoint.requests() if r.method == "GET" and r.key]
        refused = sum(r.status == 503 for r in gets)
        served = sum(r.status == 206 for r in gets)
        self.assertGreater(served, 400)
        self.assertGreater(refused, 0, "nothing was throttled: the test shows nothing")
        # Without a reaction 7 of 8 requests are refused for as long as the load lasts.
        self.assertLess(refused, served / 2, f"{refused} refused, {served} served")
        cuts = run.logged("OSS throttles: at most")
        self.assertTrue(cuts, run.log_tail())
        self.assertIn(f"of {CONNECTIONS} requests at a time", cuts[0])
        self.assertIn("ActiveRequestLimitExceeded", cuts[0])

    def test_after_throttling_all_connections_are_used_again(self) -> None:
        rule = faults.refused(503, "DownloadTrafficRateLimitExceeded", times=6)
        slow = faults.rule({"delay_ms": 30})
        run = self.start([rule, slow], partBytes=65536, throttleRecoverMs=20, prefetch={"vcpus": 2, "workers": 8})
        self.assert_equal(run)
        for words in ("OSS throttles: at most", "OSS throttles no more: 16 requests at a time again"):
            self.assertTrue(run.logged(words), run.log_tail())

    def test_verified_is_a_fact_of_each_object(self) -> None:
        run = self.start([faults.rule({"drop_crc": True}, f"{PREFIX}/b.bin"), {"match": {"kind": "head"}, "do": {"drop_crc": True}}])
        holder = run.start(["sleep", "30"])
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        self.assert_equal(run)
        # Small objects of a folder come when a program uses it.
        run.call(["cat", str(run.model_dir / "nested" / "small.json")])
        env = {**run.env(None), "LD_PRELOAD": ""}
        status = json.loads(subprocess.run([str(paths.OSSC), "status", "--json"], env=env, capture_output=True, check=True).stdout)
        facts = {entry["name"]: (entry["state"], entry["verified"]) for entry in status["objects"]}
        self.assertEqual(facts["b.bin"], ("unverified", False), run.log_tail())
        self.assertEqual(facts["a.bin"], ("verified", True))
        self.assertEqual(facts["nested/small.json"][1], True)
        self.assertTrue(run.logged("not verified", "b.bin"), run.log_tail())
        audit = [json.loads(line) for line in run.audit_lines()]
        verdicts = {line["object"].rsplit("/", 1)[-1]: line["verified"] for line in audit if line.get("act") == "verify"}
        self.assertEqual((verdicts["b.bin"], verdicts["a.bin"], verdicts["small.json"]), (False, True, True))

    def test_ipv6_literal(self) -> None:
        run = self.start(listen="[::1]:0")
        self.assertTrue(run.endpoint.url.startswith("http://[::1]:"), run.endpoint.url)
        self.assert_equal(run)

    def test_a_name_without_address_is_said_at_once(self) -> None:
        run = self.start()
        env = run.env(OSS_ENDPOINT="http://no-such-host.invalid:8080")
        self.assertLess(self.refused_in(run, env, "no-such-host.invalid"), 10)

    @unittest.skipUnless(can_unshare(), "needs a mount namespace")
    def test_a_silent_resolver_ends_at_resolve_timeout(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.77", 53))
            run = self.start(resolveTimeoutMs=1500)
            conf = run.dir / "resolv.conf"
            conf.write_text("nameserver 127.0.0.77\noptions timeout:10 attempts:3\n")
            before = ["unshare", "-m", "sh", "-c",
                      f'mount --bind {conf} /etc/resolv.conf && LD_PRELOAD={paths.PRELOAD} exec "$@"', "sh"]
            secs = self.refused_in(run, run.env(OSS_ENDPOINT="http://slow.example:80", LD_PRELOAD=None), "no answer for", before)
        self.assertTrue(1.4 < secs < 4, f"{secs:.1f} s")

    @unittest.skipUnless(can_unshare(), "needs a mount namespace")
    def test_addresses_of_a_name_are_spread_and_dead_ones_passed_over(self) -> None:
        """The name has a dead IPv6 address and two that work."""
        run = self.start()
        port = run.endpoint.url.rsplit(":", 1)[1]
        other = self.serving(Endpoint(self.scratch / "root", run.dir / "other", listen=f"127.0.0.5:{port}"))
        hosts = run.dir / "hosts"
        hosts.write_text("".join(f"{address} oss.test {paths.BUCKET}.oss.test\n" for address in ("::1", "127.0.0.1", "127.0.0.5")))
        before = ["unshare", "-m", "sh", "-c",
                  f'mount --bind {hosts} /etc/hosts && LD_PRELOAD={paths.PRELOAD} exec "$@"', "sh"]
        begin = time.monotonic()
        self.assert_equal(run, run.env(OSS_ENDPOINT=f"http://oss.test:{port}", LD_PRELOAD=None), before)
        # Refused at once: no connect timeout (5 s) is waited for.
        self.assertLess(time.monotonic() - begin, 5, run.log_tail())
        shares = [len([r for r in endpoint.requests() if r.key]) for endpoint in (run.endpoint, other)]
        self.assertGreater(min(shares), 0, shares)
