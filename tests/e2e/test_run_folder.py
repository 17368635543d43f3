"""Where lock and socket lie: a folder that cannot be used is passed over by both sides, and at CONNECTOR_UDS_PATH
nothing is removed or emptied that is not an engine's."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import socket
import subprocess
import time
import unittest
from pathlib import Path

from tests.checks.hostile import LISTENER
from tests.e2e.base import EndToEnd, can_unshare
from tests.harness import paths
from tests.harness.run import Run

NOBODY = 65534
FAILED = "failed to launch oss connector: failed to acquire uds lock: "
NAMES = ("OSS", "ENABLE", "MODEL", "LD_PRE", "XDG", "CONNECTOR")


class RunFolder(EndToEnd):
    """In mount namespaces of their own, so that no folder of the machine's is touched."""

    def inside(self, run: Run, prepare: str, script: str, **changes: str | None) -> subprocess.CompletedProcess[bytes]:
        """Runs the script under the library after `prepare` without it."""
        env = {k: v for k, v in run.env(**changes).items() if k.startswith(NAMES)}
        words = " ".join(f"{name}={shlex.quote(value)}" for name, value in env.items())
        whole = f"set -e; {prepare}; env {words} bash -c {shlex.quote(script)}"
        return run.call(["unshare", "-m", "bash", "-c", whole], run.env(None, LD_PRELOAD=None), cwd=run.model_dir)

    def check(self, prepare: str, **changes: str | None) -> None:
        run = self.managed()
        (run.dir / "xdg").mkdir(mode=0o700)
        changes = {"XDG_RUNTIME_DIR": str(run.dir / "xdg"), **changes}
        # The second program finds the engine that the first has started.
        done = self.inside(run, prepare.replace("RUN", str(run.dir)), "sha256sum b.bin; sha256sum b.bin", **changes)
        digest = hashlib.sha256((self.plain / "b.bin").read_bytes()).hexdigest()
        self.assertEqual((done.stdout.split()[::2], done.stderr), ([digest.encode()] * 2, b""), run.log_tail())
        self.assertEqual(run.engine_starts(), 1, run.log_tail())

    @unittest.skipUnless(can_unshare(), "needs root")
    def test_a_folder_that_cannot_be_written_is_passed_over(self) -> None:
        self.check("mount -t tmpfs none /run; mkdir -m 700 /run/oss-connector; mount -o remount,ro /run")

    @unittest.skipUnless(can_unshare(), "needs root")
    def test_the_next_one_too(self) -> None:
        self.check(
            "mount -t tmpfs none /run; mkdir -m 700 /run/oss-connector; mount -o remount,ro /run; mount -t tmpfs none RUN/xdg; "
            "mkdir -m 700 RUN/xdg/oss-connector; mount -o remount,ro RUN/xdg"
        )

    @unittest.skipUnless(can_unshare() and os.getuid() == 0, "needs root")
    def test_a_name_that_another_user_took_is_passed_over(self) -> None:
        names = " ".join(f"/tmp/oss-connector-0{tail}" for tail in ("", ".1"))
        self.check(
            f"mount -t tmpfs none /run; mount -o remount,ro /run; mount --bind RUN /mnt; mount -t tmpfs -o mode=1777 none /tmp; "
            f"mkdir -p RUN; mount --bind /mnt RUN; mkdir -m 700 {names}; chown {NOBODY} {names}",
            XDG_RUNTIME_DIR=None, **self.outside_tmp(),
        )

    def outside_tmp(self) -> dict[str, str]:
        """The product where it can be found although /tmp is another one."""
        return {} if not str(paths.PRELOAD).startswith("/tmp/") else {"LD_PRELOAD": self.copied()}

    def copied(self) -> str:
        folder = Path("/var/tmp") / self.scratch.name
        folder.mkdir(exist_ok=True)
        self.addCleanup(subprocess.run, ["rm", "-rf", str(folder)], check=True)
        for product in (paths.PRELOAD, paths.OSSC):
            subprocess.run(["cp", str(product), str(folder)], check=True)
        return str(folder / paths.PRELOAD.name)

    @unittest.skipUnless(can_unshare(), "needs root")
    def test_an_engine_that_runs_is_found_where_it_is(self) -> None:
        """A better folder that appears later starts no second engine."""
        run = self.managed()
        script = "sha256sum b.bin > /dev/null; mkdir -m 700 /run/oss-connector; sha256sum b.bin; ls /run/oss-connector"
        (run.dir / "xdg").mkdir(mode=0o700)
        prepare = "mount -t tmpfs none /run; mkdir /run/oss-connector; chmod 777 /run/oss-connector"
        done = self.inside(run, prepare, script.replace("mkdir -m", "chmod"), XDG_RUNTIME_DIR=str(run.dir / "xdg"))
        self.assertEqual(done.stdout.split()[:1], [hashlib.sha256((self.plain / "b.bin").read_bytes()).hexdigest().encode()])
        self.assertEqual((len(done.stdout.split()), run.engine_starts()), (2, 1), done.stderr.decode() + run.log_tail())


class Alone(EndToEnd):
    """Two programs with one MODEL_DIR whose engines would have their sockets in different places."""

    OTHER = FAILED + "another engine serves MODEL_DIR "

    def reader(self, run: Run, path: Path, *argv: str) -> subprocess.Popen[bytes]:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = run.start([*argv], run.env(CONNECTOR_UDS_PATH=str(path)), cwd=run.model_dir, **pipes)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def started(self, run: Run, path: Path) -> subprocess.Popen[bytes]:
        """A program that has started an engine and waits."""
        process = self.reader(run, path, "sh", "-c", "echo; read wait")
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), b"\n", run.log_tail())
        return process

    def test_a_second_engine_of_a_folder_does_not_start(self) -> None:
        run = self.managed()
        self.started(run, run.dir / "one")
        done = run.call(["cat", "b.bin"], run.env(CONNECTOR_UDS_PATH=str(run.dir / "two")), cwd=run.model_dir)
        self.assertEqual((done.returncode, done.stdout), (1, b""), run.log_tail())
        self.assertTrue(done.stderr.decode().startswith(f"{self.OTHER}{run.model_dir}, "), done.stderr)
        self.assertIn(b"give this program a MODEL_DIR of its own, or both the same CONNECTOR_UDS_PATH", done.stderr)
        self.assertTrue(run.logged("not started", "another engine serves"), run.log_tail())
        self.assertFalse((run.dir / "two").exists())
        again = run.call(["sha256sum", "b.bin"], run.env(CONNECTOR_UDS_PATH=str(run.dir / "one")), cwd=run.model_dir)
        self.assertEqual(again.stdout.split()[:1], [hashlib.sha256((self.plain / "b.bin").read_bytes()).hexdigest().encode()], run.log_tail())
        self.assertEqual(run.engine_starts(), 1, run.log_tail())

    def test_of_two_that_start_together_one_does(self) -> None:
        for _ in range(4):
            run = self.managed()
            both = [self.reader(run, run.dir / name, "sh", "-c", "exec sleep 4") for name in ("one", "two")]
            said = [process.communicate(timeout=60)[1].decode() for process in both]
            self.assertEqual(sorted(process.returncode for process in both), [0, 1], said)
            self.assertTrue("".join(said).startswith(self.OTHER), said)
            self.assertEqual(run.engine_starts(), 1, run.log_tail())
            run.close()

    def test_the_next_engine_starts_when_the_first_was_killed_or_ends(self) -> None:
        run = self.managed({"lingerSec": 1})
        programs = [self.started(run, run.dir / "one")]
        for pid in run.engines():
            os.kill(pid, signal.SIGKILL)
        programs.append(self.started(run, run.dir / "two"))
        for program in programs:
            program.kill()
        self.assertIsNotNone(run.wait_engines_gone(run.linger_secs + 3), run.log_tail())
        self.started(run, run.dir / "three")

    def test_a_lock_of_the_users_on_the_folder_keeps_no_engine_out(self) -> None:
        run = self.managed()
        with subprocess.Popen(["flock", "--no-fork", str(run.model_dir), "sleep", "60"]) as held:
            self.addCleanup(held.kill)
            self.started(run, run.dir / "one")
            held.kill()
        self.assertEqual(subprocess.run(["flock", "--nonblock", str(run.model_dir), "true"], check=False).returncode, 0)


class SocketPath(EndToEnd):
    def start(self, run: Run, path: Path) -> subprocess.CompletedProcess[bytes]:
        return run.call(["cat", "small.bin"], run.env(CONNECTOR_UDS_PATH=str(path)), cwd=run.model_dir)

    def refused(self, run: Run, path: Path, words: str) -> None:
        done = self.start(run, path)
        self.assertEqual((done.returncode, done.stdout), (1, b""), done.stderr)
        self.assertTrue(done.stderr.decode().startswith(FAILED) and words in done.stderr.decode(), done.stderr)

    def test_a_file_of_the_users_stays(self) -> None:
        run = self.managed()
        for name in ("data.db", "data.db.lock"):
            with self.subTest(name):
                (run.dir / name).write_bytes(b"precious" * 3)
                self.refused(run, run.dir / "data.db", name)
                self.assertEqual((run.dir / name).read_bytes(), b"precious" * 3)
                (run.dir / name).unlink()
                for left in ("data.db", "data.db.lock"):
                    (run.dir / left).unlink(missing_ok=True)

    def test_links_and_folders_stay(self) -> None:
        run = self.managed()
        (run.dir / "target").write_bytes(b"")
        (run.dir / "linked").symlink_to("target")
        (run.dir / "other.lock").symlink_to("target")
        (run.dir / "folder").mkdir()
        (run.dir / "pipe.lock").mkdir()
        os.rmdir(run.dir / "pipe.lock")
        os.mkfifo(run.dir / "pipe.lock")
        for name, words in (("linked", "is no socket"), ("other", "lock"), ("folder", "is no socket"), ("pipe", "lock")):
            with self.subTest(name):
                self.refused(run, run.dir / name, words)
        self.assertEqual((run.dir / "target").read_bytes(), b"")
        self.assertTrue((run.dir / "linked").is_symlink() and (run.dir / "other.lock").is_symlink())
        self.assertTrue((run.dir / "folder").is_dir())

    def test_a_socket_of_another_program_stays(self) -> None:
        run = self.managed()
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
            with self.subTest(kind.name), socket.socket(socket.AF_UNIX, kind) as other:
                path = run.dir / kind.name
                other.bind(str(path))
                if kind != socket.SOCK_DGRAM:
                    other.listen(1024)
                self.refused(run, path, "is the socket of another program")
                self.assertTrue(path.is_socket())

    @unittest.skipUnless(os.getuid() == 0, "needs root")
    def test_another_user_who_listens_there_is_told_nothing(self) -> None:
        run = self.managed()
        shared = run.dir / "shared"
        run.dir.chmod(0o755)
        shared.mkdir()
        shared.chmod(0o1777)
        path = shared / "s"
        other = subprocess.Popen(["/usr/bin/python3", "-c", LISTENER, str(path), str(NOBODY)], stdout=subprocess.PIPE)
        assert other.stdout is not None
        self.addCleanup(other.stdout.close)
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        self.assertEqual(other.stdout.readline(), b"ready\n")
        done = self.start(run, path)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stdout, b"")
        self.assertIn(b"oss connector", done.stderr)
        other.kill()
        self.assertEqual(other.stdout.read(), b"", "what the listener was told")

    def test_what_an_engine_left_is_used_again(self) -> None:
        run = self.managed()
        path = run.dir / "own.sock"
        self.assertEqual(self.start(run, path).returncode, 0)
        for pid in run.engines():
            os.kill(pid, signal.SIGKILL)
        self.assertTrue(path.is_socket())
        done = self.start(run, path)
        self.assertEqual((done.returncode, done.stderr), (0, b""), run.log_tail())
        self.assertIsNotNone(run.wait_engines_gone(run.linger_secs + 3))
        self.assertFalse(path.exists(), "an engine that ends takes its socket with it")

    def test_what_took_the_sockets_place_stays(self) -> None:
        run = self.managed()
        path = run.dir / "own.sock"
        self.assertEqual(self.start(run, path).returncode, 0)
        path.unlink()
        path.write_bytes(b"precious")
        self.assertIsNotNone(run.wait_engines_gone(run.linger_secs + 3))
        time.sleep(0.1)
        self.assertEqual(path.read_bytes(), b"precious")


if __name__ == "__main__":
    unittest.main()
