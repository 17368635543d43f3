"""MODEL_DIR as a relative path is the folder that it named at the start, for children in other working folders too."""

from __future__ import annotations

import json
import os
import unittest

from tests.e2e.base import EndToEnd
from tests.harness import paths
from tests.harness.run import Run

PYTHON = str(paths.VENV_PYTHON)
# Prints the sizes of what the program's child, which has another working folder, reads by an absolute path.
CHILD = "import json, os, sys; print(json.dumps([len(open(p, 'rb').read()) for p in sys.argv[1:]] + [os.environ['MODEL_DIR']]))"
WAYS = {
    "subprocess": "import subprocess; subprocess.run([sys.executable, '-c', child, *names], cwd=other, check=True)",
    "after chdir": "import subprocess; os.chdir(other); subprocess.run([sys.executable, '-c', child, *names], check=True)",
    "fork and exec": "pid = os.fork()\nif not pid: os.chdir(other); os.execv(sys.executable, [sys.executable, '-c', child, *names])\nos.waitpid(pid, 0)",
    "spawn": "import multiprocessing\nif __name__ == '__main__': os.chdir(other); c = multiprocessing.get_context('spawn'); p = c.Process(target=exec, args=(child.replace('sys.argv[1:]', repr(names)),)); p.start(); p.join()",
    "posix_spawn with an environment of its own": "os.chdir(other); os.waitpid(os.posix_spawn(sys.executable, [sys.executable, '-c', child, *names], {**os.environ, 'OWN': '1'}), 0)",
    "shell": "os.chdir(other); import shlex; os.system(shlex.join([sys.executable, '-c', child, *names]))",
}


class Relative(EndToEnd):
    def run_in(self, run: Run, given: str, code: str, role: int = 1) -> list[object]:
        other = run.dir / "elsewhere"
        other.mkdir(exist_ok=True)
        names = [str(run.model_dir / name) for name in ("b.bin", "nested/deep/c.bin", "small.bin")]
        program = f"import os, sys\nother, child, names = {str(other)!r}, {CHILD!r}, {names!r}\nopen(names[0], 'rb').read(1)\n{code}\n"
        done = run.call([PYTHON, "-c", program], run.env(role, MODEL_DIR=given), cwd=run.dir, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, b""), run.log_tail())
        self.assertEqual(os.listdir(other), [], "a second mirror")
        found: list[object] = json.loads(done.stdout)
        return found

    def test_children_in_another_folder_read_the_same_files(self) -> None:
        sizes = [(self.plain / name).stat().st_size for name in ("b.bin", "nested/deep/c.bin", "small.bin")]
        run = self.managed()
        for given in ("model", "./model/", "elsewhere/../model"):
            for name, code in WAYS.items() if given == "model" else list(WAYS.items())[:1]:
                with self.subTest(f"{given}, {name}"):
                    self.assertEqual(self.run_in(run, given, code), [*sizes, str(run.model_dir)])
        self.assertEqual(len(run.engines()), 1)

    def test_the_environment_stays_the_programs_to_change(self) -> None:
        run = self.managed()
        code = (
            "import ctypes; c = ctypes.CDLL(None); c.getenv.restype = ctypes.c_char_p; seen = []\n"
            "look = lambda: seen.append((c.getenv(b'MODEL_DIR') or b'').decode())\n"
            "look(); c.setenv(b'MODEL_DIR', b'/other', 1); look(); c.unsetenv(b'MODEL_DIR'); look()\n"
            "c.putenv(b'MODEL_DIR=again'); look(); c.clearenv(); look(); c.setenv(b'MODEL_DIR', b'last', 0); look()\n"
            "import json; print(json.dumps(seen))"
        )
        self.assertEqual(self.run_in(run, "model", code), [str(run.model_dir), "/other", "", "again", "", "last"])

    def test_an_absolute_one_is_left_as_it_is(self) -> None:
        run = self.managed()
        code = "import json; print(json.dumps([os.environ['MODEL_DIR']]))"
        given = f"{run.dir}/elsewhere/..//model/"
        self.assertEqual(self.run_in(run, given, code), [given])


if __name__ == "__main__":
    unittest.main()
