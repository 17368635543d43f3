"""The main job at a smaller size: both models, both drivers, several processes, each byte once."""

from __future__ import annotations

import json
import os
from typing import Any

from tests.e2e.base import EndToEnd
from tests.harness import folder, load, models, paths
from tests.harness.endpoint import ACCESS_KEY_SECRET, Endpoint
from tests.harness.requestlog import once_problems
from tests.harness.run import Run

SIZE_MIB = 96


class Load(EndToEnd):
    """Real models from the bucket that the demo uses."""

    models_endpoint: Endpoint
    # Names of their folders.
    minilm: str
    shards: str

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.minilm = models.ensure("gt-minilm")
        cls.shards = models.ensure("shards", SIZE_MIB)
        cls.models_endpoint = Endpoint(paths.BUCKETS, cls.scratch / "models")
        cls.models_endpoint.start()
        cls.addClassCleanup(cls.models_endpoint.stop)

    def setUp(self) -> None:
        self.models_endpoint.forget()

    def model_run(self, model: str, io: str | None = None, **config: Any) -> Run:
        # The shards of the small model are below the default limit: real files would need no hook.
        return self.ending(Run(self.models_endpoint, model, config={"materializeBytes": folder.MATERIALIZE_BYTES, **config}, io=io))

    def load(self, run: Run, model: str, name: str = "report") -> None:
        report = run.dir / f"{name}.json"
        done = run.call(load.loader_argv(run, report))
        self.assertEqual((done.returncode, done.stderr), (0, b""), run.log_tail())
        equal, text = load.verify(report, model)
        self.assertTrue(equal, text)

    def assert_once(self, model: str, run: Run) -> None:
        self.assertEqual(once_problems(self.models_endpoint.requests(), models.sizes(model)), [], run.log_tail())

    def test_models_on_both_drivers(self) -> None:
        for model in (self.minilm, self.shards):
            for io in ("uring", "epoll"):
                with self.subTest(model=model, io=io):
                    self.models_endpoint.forget()
                    run = self.model_run(model, io)
                    self.load(run, model)
                    self.assert_once(model, run)

    def test_second_load_within_linger_comes_from_memory(self) -> None:
        # A program of Python may take seconds to start on a machine that has much to do.
        run = self.model_run(self.shards, lingerSec=8)
        self.load(run, self.shards, "first")
        self.load(run, self.shards, "second")
        self.assert_once(self.shards, run)

    def test_folder_of_an_earlier_engine_is_adopted(self) -> None:
        run = self.model_run(self.minilm)
        self.load(run, self.minilm, "first")
        self.assertIsNotNone(run.wait_engines_gone(run.linger_secs + 2))
        names = sorted(os.listdir(run.model_dir))
        self.load(run, self.minilm, "second")
        self.assertEqual(sorted(os.listdir(run.model_dir)), names)

    def test_whole_bucket_as_oss_path(self) -> None:
        run = self.ending(Run(self.models_endpoint, "", config={"materializeBytes": folder.MATERIALIZE_BYTES}))
        report = run.dir / "report.json"
        env = run.env(OSS_PATH=f"oss://{paths.BUCKET}/")
        argv = [str(paths.VENV_PYTHON), str(load.LOADER), str(run.model_dir / self.shards), "--out", str(report)]
        done = run.call(argv, env)
        self.assertEqual(done.returncode, 0, done.stderr.decode() + run.log_tail())
        equal, text = load.verify(report, self.shards)
        self.assertTrue(equal, text)

    def test_sixteen_starts_at_once_make_one_engine(self) -> None:
        run = self.model_run(self.shards)
        argv = [str(paths.VENV_PYTHON), "-c", "import os, sys; sys.stdout.write(open(sys.argv[1]).read())"]
        programs = [run.start([*argv, str(run.model_dir / "config.json")], stdout=-1, stderr=-1) for _ in range(16)]
        results = {(p.communicate(timeout=60), p.returncode) for p in programs}
        original = (models.folder(self.shards) / "config.json").read_bytes()
        self.assertEqual(results, {((original, b""), 0)}, run.log_tail())
        self.assertEqual(run.engine_starts(), 1, run.log_tail())

    def test_audit_and_log(self) -> None:
        run = self.model_run(self.minilm)
        self.load(run, self.minilm)
        self.assertIsNotNone(run.wait_engines_gone(run.linger_secs + 2))
        lines = [json.loads(line) for line in run.audit_lines()]
        self.assertTrue(lines, "no audit line")
        origin = [line for line in lines if "model.safetensors" in json.dumps(line)]
        self.assertTrue(origin, lines[:3])
        known = {r.request_id for r in self.models_endpoint.requests()}
        self.assertTrue(any(known & set(map(str, line.values())) for line in origin), f"no request id of the origin: {origin[:3]}")
        text = "\n".join(run.log_lines() + run.audit_lines())
        self.assertNotIn(ACCESS_KEY_SECRET, text)

    def test_secret_is_on_no_command_line(self) -> None:
        run = self.model_run(self.minilm)
        script = 'cat "$MODEL_DIR/config.json" > /dev/null; for f in /proc/[0-9]*/cmdline; do tr "\\0" " " < $f 2>/dev/null; done; true'
        done = run.call(["sh", "-c", script])
        self.assertIn(b"engine", done.stdout)
        self.assertNotIn(ACCESS_KEY_SECRET.encode(), done.stdout.replace(b"--access-key-secret " + ACCESS_KEY_SECRET.encode(), b""))
