"""Programs in containers as Kubernetes runs them: what a read-only root folder leaves, and one engine for several of them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
import unittest

from tests.e2e.base import EndToEnd, can_unshare
from tests.harness import paths, pod
from tests.harness.pod import Volume
from tests.harness.run import Run, plain_env

CALL_SECS = 60.0
# Neither is there in a container whose image holds no package.
NOT_THERE = {"logPath": "/var/log/oss-connector/connector.log", "auditPath": "/var/log/oss-connector/audit.log"}
RUN_FOLDER = f".oss-connector-{pod.USER}"


class InPods(EndToEnd):
    """How the tests below give a run's folders to a container."""

    def volume(self, run: Run) -> Volume:
        """As an emptyDir is made: root's, and every user may write."""
        run.model_dir.chmod(0o777)
        return Volume(run.model_dir, "/models")

    def env(self, run: Run, role: int = 1, **changes: str) -> dict[str, str]:
        """The variables of a run that are not this process's own, for a container that has its folders as /models and /config."""
        plain = plain_env()
        own = {name: value for name, value in run.env(role).items() if plain.get(name) != value}
        return {**own, "MODEL_DIR": "/models", "OSSC_CONFIG": "/config/config.json", **changes}

    def configuration(self, run: Run) -> Volume:
        """A ConfigMap: read-only."""
        run.dir.chmod(0o755)
        folder = run.dir / "config"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_bytes(run.config_path.read_bytes())
        return Volume(folder, "/config", writable=False)

    def digests(self) -> dict[str, str]:
        files = [path for path in self.plain.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.plain)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def check_all(self, run: Run, done: subprocess.CompletedProcess[str]) -> None:
        found = {name: digest for digest, name in (line.split("  ", 1) for line in done.stdout.splitlines())}
        self.assertEqual((done.returncode, found), (0, self.digests()), done.stderr + run.log_tail())


@unittest.skipUnless(can_unshare() and os.geteuid() == 0, "needs root")
class Pods(InPods):
    def test_one_writable_folder_is_enough(self) -> None:
        """Lock, socket, log and audit lie in it, and one line says so; with the profile that runtimes confine containers by, too."""
        program = ["sh", "-c", f"cd /models; find . -name {RUN_FOLDER} -prune -o -type f -printf '%P\\0' | xargs -0 sha256sum"]
        for is_confined in (False, True):
            for pages in ("memfd", "tmpfs"):
                with self.subTest(pages, is_confined=is_confined):
                    run = self.managed(NOT_THERE)
                    volumes = [self.volume(run), self.configuration(run)]
                    done = pod.call(program, self.env(run, OSSC_PAGES=pages), volumes, CALL_SECS, is_confined=is_confined)
                    self.check_all(run, done)
                    (log,) = (path for path in (run.model_dir / RUN_FOLDER).glob("*.log") if not path.name.endswith(".audit.log"))
                    audit = log.with_suffix(".audit.log")
                    for path, where in (("connector.log", log), ("audit.log", audit)):
                        self.assertIn(f"/var/log/oss-connector/{path}: Read-only file system (os error 30): it goes to /models/{RUN_FOLDER}/{where.name}", done.stderr)
                    self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
                    text = log.read_text()
                    self.assertIn("engine started", text)
                    self.assertIn("engine ends", text)
                    verified = {json.loads(line)["object"] for line in audit.read_text().splitlines() if '"verify"' in line}
                    prefix = f"oss://{paths.BUCKET}/{run.prefix}"
                    missing = {prefix + name for name in self.digests() if (self.plain / name).stat().st_size > 0} - verified
                    self.assertEqual(missing, set())
                    kinds = {"memfd": "Memfd", "tmpfs": "Memfd" if is_confined else "HugeTmpfs"}
                    self.assertIn(f"pages={kinds[pages]}", text)

    def test_without_a_writable_folder_the_start_names_the_places(self) -> None:
        run = self.managed()
        volumes = [Volume(run.model_dir, "/models", writable=False), self.configuration(run)]
        done = pod.call(["cat", "/models/b.bin"], self.env(run), volumes, CALL_SECS)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(
            done.stderr, "failed to launch oss connector: failed to acquire uds lock: this user can write to none of "
            "/run/oss-connector, XDG_RUNTIME_DIR, /tmp, /dev/shm, MODEL_DIR and the folder it lies in\n",
        )

    def test_log_and_audit_lie_beside_a_socket_that_is_given(self) -> None:
        run = self.managed(NOT_THERE)
        volumes = [self.volume(run), self.configuration(run)]
        done = pod.call(["sha256sum", "/models/b.bin"], self.env(run, CONNECTOR_UDS_PATH="/models/.engine.sock"), volumes, CALL_SECS)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("engine started", (run.model_dir / ".engine.sock.log").read_text())
        self.assertTrue((run.model_dir / ".engine.sock.audit.log").exists())

    def test_a_link_is_not_followed_to_write_a_log(self) -> None:
        run = self.managed(NOT_THERE)
        volumes = [self.volume(run), self.configuration(run)]
        (run.model_dir / "precious").write_text("precious")
        (run.model_dir / "precious").chmod(0o666)
        (run.model_dir / ".engine.sock.log").symlink_to("precious")
        done = pod.call(["sha256sum", "/models/b.bin"], self.env(run, CONNECTOR_UDS_PATH="/models/.engine.sock"), volumes, CALL_SECS)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("going on without", done.stderr)
        self.assertEqual((run.model_dir / "precious").read_text(), "precious")


@unittest.skipUnless(can_unshare() and os.geteuid() == 0, "needs root")
class OneEngine(InPods):
    """Two containers with roots, names, processes and networks of their own share a folder, and so an engine."""

    def start(self, run: Run, program: str, role: int, has_network: bool) -> subprocess.Popen[str]:
        # The second one has the folder at another place, and may not write to it.
        place = "/models" if has_network else "/srv/shared"
        volumes = [Volume(run.model_dir, place, writable=has_network), self.configuration(run)]
        env = self.env(run, role, MODEL_DIR=place, CONNECTOR_UDS_PATH=f"{place}/.engine.sock")
        process = pod.start(["sh", "-c", f"cd {place}; {program}"], env, volumes, has_network=has_network)
        self.addCleanup(pod.end, process)
        return process

    def test_bytes_cross_the_network_once_for_both(self) -> None:
        run = self.managed({"lingerSec": 1})
        self.volume(run)
        self.endpoint.forget()
        first = self.start(run, "sha256sum b.bin; read word", 1, True)
        assert first.stdin is not None and first.stdout is not None
        digest = first.stdout.readline().split()[0]
        self.assertEqual(digest, self.digests()["b.bin"])
        second = self.start(run, "sha256sum b.bin nested/deep/c.bin", 2, False)
        out, err = second.communicate(timeout=CALL_SECS)
        self.assertEqual((second.returncode, out.split()[::2], err), (0, [digest, self.digests()["nested/deep/c.bin"]], ""))
        first.communicate("end\n", timeout=CALL_SECS)
        served = [r for r in self.endpoint.requests() if r.method == "GET" and r.key.endswith("/b.bin") and r.status in (200, 206)]
        self.assertEqual(sum(r.bytes_sent for r in served), (self.plain / "b.bin").stat().st_size)

    def test_the_engine_stays_for_a_container_that_its_starter_does_not_see(self) -> None:
        run = self.managed({"lingerSec": 1, "logPath": "/models/connector.log"})
        self.volume(run)
        first = self.start(run, "sha256sum b.bin; read word", 1, True)
        assert first.stdin is not None and first.stdout is not None
        first.stdout.readline()
        second = self.start(run, "exec 3<b.bin; dd bs=1 count=1 status=none <&3 | wc -c; read word; sha256sum b.bin", 2, False)
        assert second.stdin is not None and second.stdout is not None
        self.assertEqual(second.stdout.readline(), "1\n")
        # The first program ends, and only what keeps its container's engine alive is left of that container.
        first.stdin.write("end\n")
        first.stdin.flush()
        time.sleep(run.linger_secs + 2)
        out, err = second.communicate("go on\n", timeout=CALL_SECS)
        self.assertEqual((second.returncode, out.split()[:1], err), (0, [self.digests()["b.bin"]], ""))
        first.wait(timeout=CALL_SECS)
        log = (run.model_dir / "connector.log").read_text()
        self.assertEqual(log.count("engine started"), 1, log)


if __name__ == "__main__":
    unittest.main()
