"""Where keys come from: each source gives a load, is renewed, and says clearly when it cannot be used."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.base import PREFIX, EndToEnd, slow
from tests.harness import faults, folder
from tests.harness.certificate import Certificate
from tests.harness.endpoint import Endpoint
from tests.harness.issuer import ROLE, ROLES, Issuer, KeyFile, Metadata, TokenService, pod_env
from tests.harness.run import Run

FILES = ["a.bin", "b.bin", "nested/deep/c.bin", "small.bin"]
KEY = f"{PREFIX}/b.bin"
FAILED = "failed to launch oss connector: "
LIFE_SECS = 600


class Credentials(EndToEnd):
    """Each test has an endpoint that takes what its stand-in for a service issues."""

    def setUp(self) -> None:
        self.dir = self.scratch / self.id().rsplit(".", 1)[-1]
        self.dir.mkdir()
        self.issuer = Issuer(self.dir / "keys.json", LIFE_SECS)

    def start(self, options: list[str] | None = None, rules: list[faults.Rule] | None = None) -> Endpoint:
        given = ["--keys", str(self.issuer.keys), *(options or [])]
        endpoint = self.serving(Endpoint(self.scratch / "root", self.dir, rules, given))
        return endpoint

    def run_on(self, endpoint: Endpoint, **config: object) -> Run:
        return self.ending(Run(endpoint, PREFIX, config={"materializeBytes": folder.MATERIALIZE_BYTES, **config}))

    def env(self, run: Run, **variables: str) -> dict[str, str]:
        """Without the usual key."""
        return run.env(OSS_ACCESS_KEY_ID=None, OSS_ACCESS_KEY_SECRET=None, **variables)

    def originals(self, names: list[str]) -> list[str]:
        return [f"{hashlib.sha256((self.plain / name).read_bytes()).hexdigest()}  {name}" for name in names]

    def assert_equal(self, run: Run, env: dict[str, str], names: list[str] | None = None) -> None:
        names = names or FILES
        done = run.call(["sha256sum", *names], env, cwd=run.model_dir)
        self.assertEqual(done.stdout.decode().splitlines(), self.originals(names), done.stderr.decode() + run.log_tail())
        self.assertEqual(done.returncode, 0)

    def assert_refused(self, run: Run, env: dict[str, str], *words: str) -> None:
        done = run.call(["echo", "started"], env)
        lines = done.stderr.decode().splitlines()
        self.assertEqual((len(lines), done.stdout), (1, b""), lines)
        self.assertNotEqual(done.returncode, 0)
        self.assertTrue(lines[0].startswith(FAILED), lines[0])
        for word in words:
            self.assertIn(word, lines[0])

    def assert_no_secret(self, run: Run, *others: str) -> None:
        """Neither log nor audit holds a part of a key that is not public."""
        text = "\n".join(run.log_lines() + run.audit_lines())
        self.assertIn("engine started", text)
        for key in self.issuer.issued:
            self.assertNotIn(key["AccessKeySecret"], text)
            self.assertNotIn(key["SecurityToken"], text)
        for secret in others:
            self.assertNotIn(secret, text)

    def threads(self, run: Run) -> set[str]:
        (engine,) = run.engines()
        return {(task / "comm").read_text().strip() for task in Path(f"/proc/{engine}/task").iterdir()}

    def renewals(self, run: Run) -> int:
        return sum("credentials were renewed" in line for line in run.log_lines())

    # The environment.

    def test_keys_of_the_environment_need_no_thread(self) -> None:
        run = self.run_on(self.start())
        self.assert_equal(run, run.env())
        self.assertNotIn("ossc-keys", self.threads(run))

    def test_keys_are_neither_in_the_engines_environment_nor_on_its_command_line(self) -> None:
        run = self.run_on(self.start())
        self.assert_equal(run, run.env())
        (engine,) = run.engines()
        for name in ("environ", "cmdline"):
            shown = Path(f"/proc/{engine}/{name}").read_bytes()
            for variable in ("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET"):
                self.assertNotIn(run.env()[variable].encode(), shown, name)

    def test_the_names_of_other_tools(self) -> None:
        run = self.run_on(self.start())
        key = self.issuer.issue()
        env = self.env(
            run, ALIBABA_CLOUD_ACCESS_KEY_ID=key["AccessKeyId"], ALIBABA_CLOUD_ACCESS_KEY_SECRET=key["AccessKeySecret"],
            ALIBABA_CLOUD_SECURITY_TOKEN=key["SecurityToken"],
        )
        self.assert_equal(run, env)
        self.assert_no_secret(run)

    def test_a_token_that_has_ended_is_said(self) -> None:
        run = self.run_on(self.start())
        self.issuer.life_secs = -10
        key = self.issuer.issue()
        env = run.env(
            OSS_ACCESS_KEY_ID=key["AccessKeyId"], OSS_ACCESS_KEY_SECRET=key["AccessKeySecret"],
            OSS_SESSION_TOKEN=key["SecurityToken"],
        )
        self.assert_refused(run, env, "SecurityTokenExpired")

    def test_nothing_set_up_is_anonymous(self) -> None:
        run = self.run_on(self.start(["--anonymous"]))
        env = self.env(run)
        env.pop("OSS_REGION")
        self.assert_equal(run, env)
        refused = self.run_on(self.endpoint)
        self.assert_refused(refused, self.env(refused), "AccessDenied")

    # Signatures of version 1.

    def test_v1_without_a_region(self) -> None:
        run = self.run_on(self.start(["--allow-v1"]))
        env = run.env(OSSC_SIGNATURE="v1", OSS_REGION=None)
        self.assert_equal(run, env)

    def test_v1_with_a_token(self) -> None:
        run = self.run_on(self.start(["--allow-v1"]))
        key = self.issuer.issue()
        env = run.env(
            OSSC_SIGNATURE="v1", OSS_ACCESS_KEY_ID=key["AccessKeyId"], OSS_ACCESS_KEY_SECRET=key["AccessKeySecret"],
            OSS_SESSION_TOKEN=key["SecurityToken"],
        )
        self.assert_equal(run, env)
        self.assert_no_secret(run)

    def test_v1_where_it_is_switched_off(self) -> None:
        run = self.run_on(self.start())
        self.assert_refused(run, run.env(OSSC_SIGNATURE="v1"), "V1", "0002-00000080")

    # The file.

    def test_a_file(self) -> None:
        path = self.dir / "key.json"
        with KeyFile(self.issuer, path, LIFE_SECS):
            run = self.run_on(self.start())
            self.assert_equal(run, self.env(run, OSS_AUTHORIZATION_FILE_PATH=str(path)))
            self.assertIn("ossc-keys", self.threads(run))
            self.assert_no_secret(run)

    def test_a_key_that_is_withdrawn_in_mid_load_is_replaced_by_the_files_next(self) -> None:
        path = self.dir / "key.json"
        with KeyFile(self.issuer, path, LIFE_SECS) as file:
            endpoint = self.start(["--rate-bytes-per-sec", "4000000"])
            run = self.run_on(endpoint, prefetch={"vcpus": 1, "workers": 1}, partBytes=1 << 20)
            env = self.env(run, OSS_AUTHORIZATION_FILE_PATH=str(path))
            reader = run.start(["sha256sum", "b.bin"], env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=run.model_dir)
            self.wait_for(lambda: any(r.key == KEY and r.status == 206 for r in endpoint.requests()), run)
            # For a moment OSS knows neither the key in use nor another one.
            self.issuer.withdraw_all()
            time.sleep(0.7)
            file.put()
            out, err = reader.communicate(timeout=60)
            self.assertEqual(out.decode().splitlines(), self.originals(["b.bin"]), err.decode() + run.log_tail())
            self.assertTrue(any(r.code == "InvalidAccessKeyId" for r in endpoint.requests()), "nothing was refused")
            self.assertEqual(self.renewals(run), 1, run.log_tail())
            self.assert_no_secret(run)

    def wait_for(self, condition: Callable[[], bool], run: Run, secs: float = 20) -> None:
        deadline = time.monotonic() + secs
        while not condition():
            self.assertLess(time.monotonic(), deadline, run.log_tail())
            time.sleep(0.02)

    def test_files_that_cannot_be_used(self) -> None:
        start = "OSS_AUTHORIZATION_FILE_PATH not accessible: "
        broken = self.dir / "broken.json"
        broken.write_text('{"AccessKeyId": "id", "AccessKeySec')
        for path, words in (
            (self.dir / "absent.json", "No such file"),
            (Path("relative.json"), "is not an absolute path"),
            (self.dir, "not a regular file"),
            (broken, "not valid JSON (line 1"),
        ):
            with self.subTest(path=path):
                run = self.run_on(self.endpoint)
                self.assert_refused(run, self.env(run, OSS_AUTHORIZATION_FILE_PATH=str(path)), start, words)

    # The role of an ECS instance.

    def test_a_role_by_name(self) -> None:
        with Metadata(self.issuer, (2,)) as service:
            run = self.run_on(self.start())
            env = self.env(run, ALIBABA_CLOUD_ECS_METADATA=ROLE, OSSC_METADATA_URL=service.url)
            self.assert_equal(run, env)
            self.assertEqual(service.asked[:2], [("PUT", "/latest/api/token", False), ("GET", ROLES + ROLE, True)])
            self.assertEqual(len(self.issuer.issued), 1)
            self.assert_no_secret(run)

    def test_a_role_whose_name_is_asked_for_in_version_1(self) -> None:
        with Metadata(self.issuer, (1,)) as service:
            run = self.run_on(self.start())
            self.assert_equal(run, self.env(run, OSSC_CREDENTIALS="ecs", OSSC_METADATA_URL=service.url))
            self.assertEqual([path for _, path, _ in service.asked], ["/latest/api/token", ROLES, ROLES + ROLE])

    def test_version_1_can_be_forbidden(self) -> None:
        with Metadata(self.issuer, (1,)) as service:
            run = self.run_on(self.endpoint)
            env = self.env(
                run, ALIBABA_CLOUD_ECS_METADATA=ROLE, OSSC_METADATA_URL=service.url, ALIBABA_CLOUD_IMDSV1_DISABLED="true",
            )
            words = "PUT /latest/api/token: status 404; version 1 is forbidden by ALIBABA_CLOUD_IMDSV1_DISABLED"
            self.assert_refused(run, env, "RAM role of this instance: ", words)
            self.assertEqual({method for method, _, _ in service.asked}, {"PUT"})

    def test_a_role_that_is_none(self) -> None:
        with Metadata(self.issuer) as service:
            run = self.run_on(self.endpoint)
            env = self.env(run, ALIBABA_CLOUD_ECS_METADATA="other", OSSC_METADATA_URL=service.url)
            self.assert_refused(run, env, "security-credentials/other: status 404: this instance has no such RAM role")

    def test_no_metadata_service(self) -> None:
        run = self.run_on(self.endpoint)
        env = self.env(run, ALIBABA_CLOUD_ECS_METADATA=ROLE, OSSC_METADATA_URL="http://127.0.0.1:1")
        self.assert_refused(run, env, "RAM role of this instance: ", "connect to 127.0.0.1:1: ")

    # The role of a pod.

    def token_service(self) -> tuple[TokenService, Path, Certificate]:
        token, certificate = self.dir / "token", Certificate(self.dir / "certificate")
        token.write_text("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ+Iiw/fQ==.c2ln\n")
        return TokenService(self.issuer, token, certificate), token, certificate

    def test_the_role_of_a_pod(self) -> None:
        service, token, certificate = self.token_service()
        with service:
            run = self.run_on(self.start(), tls={"caFile": str(certificate.ca)})
            self.assert_equal(run, self.env(run, **pod_env(service, token)))
            self.assertEqual((len(self.issuer.issued), service.refusals), (1, []))
            self.assert_no_secret(run, token.read_text().strip())

    def test_a_pod_that_is_refused(self) -> None:
        service, token, certificate = self.token_service()
        with service:
            run = self.run_on(self.endpoint, tls={"caFile": str(certificate.ca)})
            env = self.env(run, **pod_env(service, token))
            stale = self.dir / "stale"
            stale.write_text("eyJhbGciOiJub25lIn0.stale-token.")
            env["ALIBABA_CLOUD_OIDC_TOKEN_FILE"] = str(stale)
            words = "AssumeRoleWithOIDC: status 400 (code AuthenticationFail.OIDCToken.Invalid, request id 0A1B2C3D)"
            self.assert_refused(run, env, "role of this pod (RRSA): ", words)
            env["ALIBABA_CLOUD_OIDC_TOKEN_FILE"] = str(self.dir / "absent")
            self.assert_refused(run, env, "ALIBABA_CLOUD_OIDC_TOKEN_FILE", "No such file")

    def test_a_token_service_that_nobody_vouches_for(self) -> None:
        service, token, _ = self.token_service()
        with service:
            run = self.run_on(self.endpoint)
            self.assert_refused(run, self.env(run, **pod_env(service, token)), "certificate of 127.0.0.1 is refused")
            self.assertEqual(self.issuer.issued, [])

    # Renewal.

    def test_a_role_is_renewed_before_its_end(self) -> None:
        self.issuer.life_secs = 3
        with Metadata(self.issuer) as service:
            run = self.run_on(self.start(["--rate-bytes-per-sec", "2000000"]), prefetch={"vcpus": 1, "workers": 1}, partBytes=1 << 20)
            env = self.env(run, ALIBABA_CLOUD_ECS_METADATA=ROLE, OSSC_METADATA_URL=service.url)
            self.assert_equal(run, env, ["b.bin"])
            self.assertGreaterEqual(self.renewals(run), 2, run.log_tail())

    @slow
    def test_a_source_that_dries_up_costs_readers_eacces(self) -> None:
        path = self.dir / "key.json"
        with KeyFile(self.issuer, path, LIFE_SECS):
            endpoint = self.start(["--rate-bytes-per-sec", "4000000"])
            run = self.run_on(endpoint, prefetch={"vcpus": 1, "workers": 1}, partBytes=1 << 20)
            env = self.env(run, OSS_AUTHORIZATION_FILE_PATH=str(path))
            reader = run.start(["sha256sum", "b.bin"], env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=run.model_dir)
            self.wait_for(lambda: any(r.key == KEY and r.status == 206 for r in endpoint.requests()), run)
            self.issuer.withdraw_all()
            path.unlink()
            begin = time.monotonic()
            out, err = reader.communicate(timeout=90)
            self.assertEqual((out, reader.returncode), (b"", 1))
            self.assertIn("Permission denied", err.decode())
            self.assertGreater(time.monotonic() - begin, 25, "it gave up too early")
            for words in ("InvalidAccessKeyId", "credentials were not renewed: OSS_AUTHORIZATION_FILE_PATH not accessible"):
                self.assertTrue(run.logged(words), run.log_tail())
            refusals = [request for request in endpoint.requests() if request.code == "InvalidAccessKeyId"]
            self.assertLess(len(refusals), 100, "a key that is refused is used in a loop")

    # The clock.

    def test_a_clock_that_is_an_hour_off(self) -> None:
        run = self.run_on(self.start(["--clock-ahead-sec", "3600"]))
        self.assert_equal(run, run.env())
        self.assertTrue(run.logged("clock is off", "seconds=3600"), run.log_tail())

    def test_a_clock_that_is_absurd(self) -> None:
        run = self.run_on(self.start(["--clock-ahead-sec", "100000"]))
        self.assert_refused(run, run.env(), "RequestTimeTooSkewed", "clock")

    def test_a_source_that_is_named_and_not_set_up(self) -> None:
        run = self.run_on(self.endpoint)
        self.assert_refused(run, run.env(OSSC_CREDENTIALS="file"), "OSSC_CREDENTIALS", "OSS_AUTHORIZATION_FILE_PATH")
