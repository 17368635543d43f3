"""The main job over https: whom the engine trusts, what it says when it does not, and streams that are cut."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.e2e.base import PREFIX, EndToEnd
from tests.harness import faults, folder, load, models, names, paths
from tests.harness.certificate import Certificate
from tests.harness.endpoint import ACCESS_KEY_ID, ACCESS_KEY_SECRET, REGION, Endpoint
from tests.harness.requestlog import once_problems
from tests.harness.run import Run

FILES = ["a.bin", "b.bin", "nested/deep/c.bin", "page.bin", "small.bin"]
KEY = f"{PREFIX}/b.bin"
FAILED = "failed to launch oss connector: failed to list objects: "


class Https(EndToEnd):
    """The endpoint speaks https only, with a certificate of a CA that no system trusts."""

    certificate: Certificate

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.certificate = Certificate(cls.scratch / "certificate")

    def start(self, root: Path | None = None, rules: list[faults.Rule] | None = None) -> Endpoint:
        scratch = self.scratch / self.id().rsplit(".", 1)[-1]
        endpoint = self.serving(Endpoint(root or self.scratch / "root", scratch, rules, self.certificate.options))
        self.assertTrue(endpoint.url.startswith("https://"), endpoint.url)
        return endpoint

    def run_on(self, endpoint: Endpoint, prefix: str = PREFIX, trusted: bool = True, **config: Any) -> Run:
        settings: dict[str, Any] = {"materializeBytes": folder.MATERIALIZE_BYTES, **config}
        if trusted:
            settings["tls"] = {"caFile": str(self.certificate.ca)}
        return self.ending(Run(endpoint, prefix, config=settings))

    def originals(self) -> list[str]:
        return [f"{hashlib.sha256((self.plain / name).read_bytes()).hexdigest()}  {name}" for name in FILES]

    def assert_equal(self, run: Run, env: dict[str, str] | None = None, before: list[str] | None = None) -> None:
        done = run.call([*(before or []), "sha256sum", *FILES], env, cwd=run.model_dir)
        self.assertEqual(done.stdout.decode().splitlines(), self.originals(), done.stderr.decode() + run.log_tail())
        self.assertEqual(done.returncode, 0)

    def assert_refused(
        self, run: Run, words: str, env: dict[str, str] | None = None, before: list[str] | None = None
    ) -> None:
        done = run.call([*(before or []), "echo", "started"], env)
        lines = done.stderr.decode().splitlines()
        self.assertEqual((len(lines), done.stdout), (1, b""), lines)
        self.assertNotEqual(done.returncode, 0)
        self.assertTrue(lines[0].startswith(FAILED) and words in lines[0], lines[0])

    def test_a_model_on_both_drivers(self) -> None:
        endpoint, model = self.start(paths.BUCKETS), models.ensure("shards", 96)
        for io in ("uring", "epoll"):
            with self.subTest(io=io):
                endpoint.forget()
                run = self.run_on(endpoint, model)
                run.io = io
                report = run.dir / "report.json"
                done = run.call(load.loader_argv(run, report))
                self.assertEqual((done.returncode, done.stderr), (0, b""), run.log_tail())
                equal, text = load.verify(report, model)
                self.assertTrue(equal, text)
                self.assertEqual(once_problems(endpoint.requests(), models.sizes(model)), [], run.log_tail())

    def test_ssl_cert_file(self) -> None:
        run = self.run_on(self.start(), trusted=False)
        self.assert_equal(run, run.env(SSL_CERT_FILE=str(self.certificate.ca)))

    def test_ssl_cert_dir(self) -> None:
        run = self.run_on(self.start(), trusted=False)
        only = run.dir / "roots"
        only.mkdir()
        shutil.copy(self.certificate.ca, only / "ca.pem")
        self.assert_equal(run, run.env(SSL_CERT_DIR=str(only), SSL_CERT_FILE=str(run.dir / "absent.pem")))

    def test_no_scheme_means_https(self) -> None:
        endpoint = self.start()
        run = self.run_on(endpoint)
        self.assert_equal(run, run.env(OSS_ENDPOINT=endpoint.url.removeprefix("https://")))

    def test_a_name_is_checked_too(self) -> None:
        endpoint = self.start()
        run = self.run_on(endpoint)
        self.assert_equal(run, run.env(OSS_ENDPOINT=endpoint.url.replace("127.0.0.1", "localhost")))

    def with_hosts(self, run: Run, name: str) -> tuple[dict[str, str], list[str]]:
        """Environment and command prefix of a program for which the bucket's host below `name` is 127.0.0.1."""
        try:
            inside = names.prefix(run.dir / "hosts", [f"{paths.BUCKET}.{name}"])
        except RuntimeError as error:
            self.skipTest(str(error))
        env = run.env(OSS_ENDPOINT=run.endpoint.url.replace("127.0.0.1", name))
        # The library comes in after the mount.
        return env, [*inside, f"LD_PRELOAD={env.pop('LD_PRELOAD')}"]

    def test_bucket_in_the_host_name(self) -> None:
        run = self.run_on(self.start())
        env, inside = self.with_hosts(run, "localhost.test")
        self.assert_equal(run, env, inside)

    def test_an_endpoint_that_moves_is_found_again(self) -> None:
        name = "localhost.test"
        scratch = self.scratch / "moves"
        slow = self.serving(Endpoint(self.scratch / "root", scratch, None, [*self.certificate.options, "--rate-bytes-per-sec", "2000000"]))
        run = self.run_on(slow)
        env, inside = self.with_hosts(run, name)
        go = run.dir / "go"
        script = f'sha256sum small.bin; while [ ! -e "{go}" ]; do sleep 0.1; done; exec sha256sum b.bin'
        program = run.start([*inside, "sh", "-c", script], env, stdout=subprocess.PIPE, cwd=run.model_dir)
        self.assertIsNotNone(program.stdout)
        first = program.stdout.readline().decode() if program.stdout else ""
        self.assertIn("small.bin", first, run.log_tail())
        slow.stop()
        (run.dir / "hosts").write_text(f"127.0.0.2 {paths.BUCKET}.{name}\n")
        self.serve_elsewhere(slow, scratch)
        go.touch()
        rest, _ = program.communicate(timeout=60)
        self.assertEqual(rest.decode().splitlines(), [self.originals()[FILES.index("b.bin")]], run.log_tail())
        self.assertTrue(run.logged("has other addresses now"), run.log_tail())

    def serve_elsewhere(self, endpoint: Endpoint, scratch: Path) -> None:
        """The same bucket at the same port of 127.0.0.2."""
        ready = scratch / "moved.ready"
        argv = [
            str(paths.ENDPOINT), "--root", str(endpoint.root), "--exit-with-parent", "--hash-first",
            "--listen", f"127.0.0.2:{endpoint.url.rsplit(':', 1)[1]}", "--ready-file", str(ready),
            "--access-key-id", ACCESS_KEY_ID, "--access-key-secret", ACCESS_KEY_SECRET, "--region", REGION,
            *self.certificate.options,
        ]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        deadline = time.monotonic() + 20
        while not ready.exists():
            self.assertTrue(process.poll() is None and time.monotonic() < deadline, "the second endpoint does not start")
            time.sleep(0.02)

    def test_another_name_is_refused(self) -> None:
        run = self.run_on(self.start())
        env, inside = self.with_hosts(run, "other.test")
        words = f"TLS phase: the certificate of {paths.BUCKET}.other.test is refused: it is for another name"
        self.assert_refused(run, words, env, inside)

    def test_nobody_is_trusted_by_default(self) -> None:
        run = self.run_on(self.start(), trusted=False)
        self.assert_refused(run, "TLS phase: the certificate of 127.0.0.1 is refused: unknown issuer")

    def test_a_name_without_an_address_is_said_in_time(self) -> None:
        run = self.run_on(self.start(), connectTimeoutMs=1500)
        begin = time.monotonic()
        self.assert_refused(run, "DNS phase: ", run.env(OSS_ENDPOINT="https://absent.invalid"))
        self.assertLess(time.monotonic() - begin, 5)

    def test_http_behind_https_is_named(self) -> None:
        run = self.run_on(self.endpoint)
        env = run.env(OSS_ENDPOINT=self.endpoint.url.replace("http://", "https://"))
        self.assert_refused(run, "does not speak TLS at this port", env)

    def test_a_ca_file_that_is_none(self) -> None:
        run = self.run_on(self.start(), trusted=False, tls={"caFile": "/dev/null"})
        self.assert_refused(run, "TLS phase: tls.caFile /dev/null: no certificate in it")

    def test_a_strange_ssl_cert_file_does_not_hurt_http(self) -> None:
        run = self.managed()
        self.assert_equal(run, run.env(SSL_CERT_FILE="relative.pem"))

    def test_streams_that_are_cut_are_fetched_again(self) -> None:
        rules = [faults.cut(100_000, KEY, 1), faults.cut(1_000_000, KEY, 1), faults.flipped_byte(KEY, 5000, 1)]
        run = self.run_on(self.start(rules=rules))
        self.assert_equal(run)
        self.assertTrue(run.logged("close_notify"), run.log_tail())
