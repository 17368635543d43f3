"""The commands beside the engine: what they show is true, and they neither start nor keep an engine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import unicodedata
from typing import Any, ClassVar

from tests.e2e.base import PREFIX, EndToEnd
from tests.harness import faults, folder, paths
from tests.harness.endpoint import ACCESS_KEY_SECRET
from tests.harness.run import Run

HOLD = paths.ROOT / "tests" / "apps" / "hold.py"


class Ossc(EndToEnd):
    """Calls the command as a person does, without the library."""

    def ossc(self, run: Run, *words: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(paths.OSSC), *words], env=run.env(None, **{"LD_PRELOAD": None, **changes}), capture_output=True, text=True, timeout=30, check=False
        )

    def holder(self, run: Run) -> subprocess.Popen[bytes]:
        """A program that has everything mapped."""
        holder = run.start([sys.executable, str(HOLD), str(run.model_dir)], stdout=subprocess.PIPE)
        assert holder.stdout is not None
        self.addCleanup(holder.stdout.close)
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        self.assertTrue(holder.stdout.readline().startswith(b"ready "), run.log_tail())
        return holder


class OneModel(Ossc):
    """A model of its own, which each test loads anew."""

    files: ClassVar[dict[str, int]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        model = cls.plain.parent / "model"
        folder.fill(model, cls.files, 7)
        (model / "config.json").write_text("{}")

    def model(self, **config: Any) -> Run:
        run = self.ending(Run(self.endpoint, "team/model", config={"materializeBytes": folder.MATERIALIZE_BYTES, **config}))
        self.endpoint.forget()
        return run


class Commands(Ossc):
    """What is shown of a load is true."""

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
        label = f'{{model_dir="{run.model_dir}"}}'
        values = dict(line.rsplit(" ", 1) for line in metrics.stdout.splitlines() if not line.startswith("#"))
        self.assertEqual(values[f"ossc_up{label}"], "1")
        self.assertEqual(int(values[f"ossc_ready_bytes{label}"]), sum(self.large().values()))
        self.assertEqual(int(values[f'ossc_object_ready_bytes{{model_dir="{run.model_dir}",object="b.bin"}}']), self.large()["b.bin"])
        self.assertGreaterEqual(int(values[f"ossc_origin_bytes_total{label}"]), sum(self.large().values()))
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
        self.assertIn(f'ossc_up{{model_dir="{run.model_dir}"}} 0', done.stdout.splitlines())
        self.assertEqual(run.engines(), [])

    def test_what_cannot_be_printed_is_a_failure_and_a_reader_that_is_gone_is_none(self) -> None:
        run = self.managed()
        self.holder(run)
        for words in (["status"], ["status", "--json"], ["top"], ["metrics"], ["config"], ["errors"], ["doctor", "--offline"], ["--help"], ["--version"]):
            with self.subTest(words), open("/dev/full", "w") as full:
                env = run.env(None, LD_PRELOAD=None)
                done = subprocess.run([str(paths.OSSC), *words], env=env, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("cannot write to standard output: No space left on device", done.stderr)
                ours, theirs = os.pipe()
                os.close(ours)
                done = subprocess.run([str(paths.OSSC), *words], env=env, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
                os.close(theirs)
                self.assertNotIn("panicked", done.stderr)
                self.assertIn(done.returncode, (0, 1) if words[0] == "doctor" else (0,), done.stderr)

    def test_a_standard_error_that_takes_nothing_changes_no_status(self) -> None:
        run = self.managed()
        env = run.env(None, LD_PRELOAD=None)
        for words, status in (
            (["status"], 1), (["top"], 1), (["drop"], 1), (["metrics"], 0), (["wait", "--timeout", "0"], 3), (["plan", "no-such"], 2),
            (["config", "--check", "/no-such"], 1), (["warm", "--for", "0", "no-such"], 2), (["no-such-command"], 2),
        ):
            ours, theirs = os.pipe()
            os.close(ours)
            with self.subTest(words), open("/dev/full", "w") as full:
                for stream in (full.fileno(), theirs):
                    done = subprocess.run([str(paths.OSSC), *words], env=env, stdout=subprocess.DEVNULL, stderr=stream, timeout=30, check=False)
                    self.assertEqual(done.returncode, status)
            os.close(theirs)

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


class Doctor(Ossc):
    """Each way to be ill has its line; nothing is changed and no engine is started."""

    def doctor(self, *words: str, **changes: str | None) -> tuple[int, dict[str, list[str]]]:
        """Status, and the lines by `MARK WHAT`."""
        run = self.managed()
        done = self.ossc(run, "doctor", *words, **changes)
        self.assertEqual(done.stderr, "")
        self.assertNotIn(ACCESS_KEY_SECRET, done.stdout)
        self.assertEqual((run.engines(), list(run.model_dir.iterdir())), ([], []))
        lines: dict[str, list[str]] = {}
        for line in done.stdout.splitlines()[:-1]:
            lines.setdefault(f"{line[:5].strip()} {line[6:18].strip()}", []).append(line[19:])
        return done.returncode, lines

    def test_a_healthy_set_up(self) -> None:
        status, lines = self.doctor()
        self.assertEqual((status, [what for what in lines if what.startswith("FAIL")]), (0, []))
        for what in ("config", "environment", "library", "MODEL_DIR", "run folder", "memory", "DNS", "connect", "keys", "list", "clock", "read", "CRC-64"):
            self.assertIn(f"ok {what}", lines)
        self.assertIn("b.bin", lines["ok read"][0])

    def test_json_says_the_same(self) -> None:
        run = self.managed()
        done = self.ossc(run, "doctor", "--json")
        found = json.loads(done.stdout)
        self.assertEqual((done.returncode, found["works"], found["failed"]), (0, True, []))
        self.assertLessEqual({"MODEL_DIR", "list", "read", "speed", "time"}, {line["check"] for line in found["checks"] if line["mark"] == "ok"})
        measured = found["measured"]
        self.assertEqual(measured["weights_bytes"], sum(size for name, size in self.sizes().items() if name.endswith(".bin")))
        self.assertTrue(measured["one_bytes_per_sec"] > 0 and measured["load_secs"] > 0)
        done = self.ossc(run, "doctor", "--json", OSS_ACCESS_KEY_SECRET="wrong")
        self.assertEqual((done.returncode, json.loads(done.stdout)["failed"]), (1, ["list"]))

    def sizes(self) -> dict[str, int]:
        """Large objects of the root folder."""
        return {p.name: p.stat().st_size for p in self.plain.iterdir() if p.is_file() and p.stat().st_size > folder.MATERIALIZE_BYTES}

    def test_a_session_with_the_library_everywhere_is_looked_at_all_the_same(self) -> None:
        run = self.managed()
        done = subprocess.run([str(paths.OSSC), "doctor"], env=run.env(), capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stderr, run.engines()), (0, "", []), done.stdout)
        self.assertRegex(done.stdout, r"(?m)^ok    hooks +in force")

    def test_a_role_that_the_command_of_a_program_sets_is_asked_for(self) -> None:
        # As the pods of dist/kubernetes have it: LD_PRELOAD for all, the role for the container's command alone.
        status, lines = self.doctor(LD_PRELOAD=str(paths.PRELOAD))
        self.assertEqual(status, 1)
        (said,) = lines["FAIL role"]
        asked = "env ENABLE_CONNECTOR=1 ossc doctor"
        self.assertIn(asked, said)
        self.assertIn(f"kubectl exec POD -- {asked}", (paths.ROOT / "dist/kubernetes/README.md").read_text())
        status, lines = self.doctor(LD_PRELOAD=str(paths.PRELOAD), ENABLE_CONNECTOR="1")
        self.assertEqual(status, 0, lines)

    def test_offline_asks_nobody(self) -> None:
        status, lines = self.doctor("--offline", OSS_ENDPOINT="http://127.0.0.1:1")
        self.assertEqual(status, 0, lines)
        self.assertNotIn("ok DNS", lines)

    def test_what_is_wrong_is_named(self) -> None:
        nobody = "http://127.0.0.1:1"
        for what, word, changes in (
            ("environment", "OSS_PATH not set", {"OSS_PATH": None}),
            ("environment", "not set either: OSS_ENDPOINT", {"OSS_PATH": None, "OSS_ENDPOINT": None}),
            ("config", "no-such-file", {"OSSC_CONFIG": "/no-such-file"}),
            ("connect", "127.0.0.1:1", {"OSS_ENDPOINT": nobody}),
            ("list", "SignatureDoesNotMatch", {"OSS_ACCESS_KEY_SECRET": "wrong"}),
            ("list", "NoSuchBucket", {"OSS_PATH": "oss://no-such-bucket/x/"}),
            ("list", "holds no objects; check OSS_PATH", {"OSS_PATH": f"oss://{paths.BUCKET}/nobody/"}),
            ("list", "TLS", {"OSS_ENDPOINT": self.endpoint.url.replace("http://", "https://")}),
        ):
            with self.subTest(changes=changes):
                status, lines = self.doctor(**changes)
                self.assertEqual(status, 1)
                self.assertIn(word, " ".join(lines[f"FAIL {what}"]))


class OddNames(Ossc):
    """Names of objects are the bucket's: a terminal that shows them obeys none of them."""

    NAMES: ClassVar[tuple[str, ...]] = ("new\nline.bin", 'quo"te\\back.bin', "escape\x1b[31m.bin", "c1\x9b31m.bin", "delete\x7f.bin", "return\r.bin")
    DENIED: ClassVar[str] = "denied\n\x1b[31m\x9b.bin"
    faults: ClassVar[list[Any]] = [faults.refused(403, "AccessDenied", f"{PREFIX}/{DENIED}")]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        for name in (*cls.NAMES, cls.DENIED):
            (cls.plain / name).write_bytes(os.urandom(folder.MATERIALIZE_BYTES + 1))

    def assert_plain(self, text: str) -> None:
        found = sorted({hex(ord(letter)) for letter in text if unicodedata.category(letter) == "Cc" and letter != "\n"})
        self.assertEqual(found, [])

    def said(self, run: Run, *words: str) -> tuple[int, str, str]:
        done = subprocess.run([str(paths.OSSC), *words], env=run.env(None, LD_PRELOAD=None), capture_output=True, timeout=60, check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def test_no_line_of_a_command_a_log_or_an_audit_file_has_a_control_character(self) -> None:
        for form in ("text", "json"):
            run = self.managed({"logFormat": form, "logLevel": 0, "lingerSec": 3})
            # Each is read, and a write is refused, which the program itself logs.
            touch = (
                "import contextlib, os\nfor name in os.listdir('.'):\n for mode in ('rb', 'ab'):\n"
                "  with contextlib.suppress(OSError):\n   open(name, mode).read()\n"
            )
            # It stays, and keeps the engine until all commands have asked it.
            touch += "print('ready', flush=True)\ninput()\n"
            program = run.start([sys.executable, "-c", touch], cwd=run.model_dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            self.addCleanup(program.kill)
            assert program.stdout is not None
            self.assertEqual(program.stdout.readline(), b"ready\n")
            for words, status in ((["status"], 2), (["wait", "--ready", "--timeout", "0"], 2), (["top"], 2), (["ps"], 0), (["drop", self.DENIED], 0),
                                  (["drop", "no-such\x1b[31m"], 2), (["warm", "--for", "0", self.DENIED], 2), (["plan"], 0), (["verify"], 3), (["status", "--json"], 2),
                                  (["ps", "--json"], 0), (["plan", "--json"], 0), (["verify", "--json"], 3), (["warm", "--json", "--for", "0", self.DENIED], 2)):
                with self.subTest(words):
                    found, out, err = self.said(run, *words)
                    self.assertEqual(found, status, err)
                    self.assert_plain(out + err)
            status, out, _ = self.said(run, "status", "--json")
            names = {one["name"] for one in json.loads(out)["objects"]}
            self.assertLessEqual({*self.NAMES, self.DENIED}, names)
            program.communicate(b"\n", timeout=60)
            self.assertEqual(program.returncode, 0)
            self.assertIsNotNone(run.wait_engines_gone(20))
            log, audit = run.log_path.read_bytes().decode(), run.audit_path.read_bytes().decode()
            self.assert_plain(log + audit)
            lines = [json.loads(line) for line in audit.splitlines()]
            self.assertIn(f"oss://{paths.BUCKET}/{PREFIX}/{self.NAMES[3]}", {line["object"] for line in lines})
            if form == "json":
                self.assertTrue(all(json.loads(line)["message"] for line in log.splitlines()))
