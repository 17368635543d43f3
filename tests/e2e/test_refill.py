"""Files that were removed while the engine lingers are there again for the next program."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import unittest

from tests.e2e.base import EndToEnd
from tests.harness import paths
from tests.harness.run import Run

PYTHON = str(paths.VENV_PYTHON)
FILES = ("b.bin", "small.bin", "nested/deep/c.bin", "nested/small.json", "empty.bin")
HOLDER = """
import hashlib, mmap, sys
file = open(sys.argv[1], "rb", buffering=0)
data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print(hashlib.sha256(data).hexdigest(), flush=True)
sys.stdin.readline()
print(hashlib.sha256(data).hexdigest(), hashlib.sha256(file.read()).hexdigest())
"""

# Opens one file until that succeeds, again for each line of its input.
AGAIN = """
import sys, time
while True:
    while True:
        try:
            print(len(open("b.bin", "rb").read()), flush=True)
            break
        except OSError: time.sleep(0.1)
    if not sys.stdin.readline(): break
"""


class Refill(EndToEnd):
    def check(self, run: Run) -> None:
        done = run.call(["sha256sum", *FILES], cwd=run.model_dir)
        expected = [f"{hashlib.sha256((self.plain / name).read_bytes()).hexdigest()}  {name}" for name in FILES]
        self.assertEqual(done.stdout.decode().splitlines(), expected, done.stderr.decode() + run.log_tail())

    def start(self) -> Run:
        run = self.managed({"lingerSec": 4})
        self.check(run)
        return run

    def test_an_emptied_folder_is_filled_again(self) -> None:
        run = self.start()
        for round_ in range(2):
            for entry in run.model_dir.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            self.check(run)
            done = run.call(["bash", "-c", 'rm -rf "$MODEL_DIR"/*'])
            self.assertEqual(done.returncode, 0, done.stderr.decode())
            self.check(run)
        self.assertEqual(run.engine_starts(), 1)

    def test_single_files_and_folders_too(self) -> None:
        run = self.start()
        for name in ("b.bin", "small.bin", "nested/small.json", "nested/deep"):
            with self.subTest(name):
                path = run.model_dir / name
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                self.check(run)
        shutil.rmtree(run.model_dir / "nested")
        (run.model_dir / "nested" / "deep").mkdir(parents=True)
        self.check(run)
        os.rename(run.model_dir / "nested", run.dir / "away")
        self.check(run)
        self.assertEqual(run.engine_starts(), 1)

    def test_who_has_a_removed_file_keeps_it(self) -> None:
        run = self.start()
        argv = [PYTHON, "-c", HOLDER, str(run.model_dir / "b.bin")]
        with run.start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            digest = holder.stdout.readline().strip()
            (run.model_dir / "b.bin").unlink()
            self.check(run)
            out, _ = holder.communicate(b"\n", timeout=30)
        self.assertEqual(out.split(), [digest, digest])

    def test_what_a_program_removes_stays_away_from_it(self) -> None:
        run = self.start()
        code = "import os; os.unlink('b.bin'); os.rename('a.bin', 'moved'); print(sorted(n for n in os.listdir('.') if n in ('a.bin', 'b.bin', 'moved')), os.path.getsize('moved'))"
        done = run.call([PYTHON, "-c", code], cwd=run.model_dir)
        self.assertEqual(done.stdout.decode(), f"['moved'] {(self.plain / 'a.bin').stat().st_size}\n", done.stderr.decode())

    def test_a_file_that_is_moved_back_over_the_one_that_was_made_again_is_read(self) -> None:
        """The next program finds it; so does one that was there before, with the folder's next listing."""
        run = self.managed({"lingerSec": 4, "listAgainSec": 1})
        self.check(run)
        size = (self.plain / "b.bin").stat().st_size
        with run.start([PYTHON, "-c", AGAIN], cwd=run.model_dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
            assert reader.stdin is not None and reader.stdout is not None
            self.assertEqual(reader.stdout.readline(), f"{size}\n".encode())
            for name in ("b.bin", "nested/deep/c.bin"):
                with self.subTest(name):
                    there, away = run.model_dir / name, run.model_dir / "x"
                    there.rename(away)
                    done = run.call(["cat", "x"], cwd=run.model_dir)
                    self.check(run)
                    self.assertIn(done.stdout, (b"", (self.plain / name).read_bytes()))
                    away.rename(there)
                    if name == "b.bin":
                        reader.stdin.write(b"\n")
                        reader.stdin.flush()
                        self.assertEqual(reader.stdout.readline(), f"{size}\n".encode(), run.log_tail())
                    self.check(run)
                    # It stays so.
                    self.check(run)
            reader.stdin.close()

    def test_an_objects_file_that_is_moved_over_another_ones_is_not_given_back(self) -> None:
        """A file that was renamed is the user's: the object whose name it took is not put in its place again."""
        run = self.start()
        (run.model_dir / "b.bin").rename(run.model_dir / "a.bin")
        ino = (run.model_dir / "a.bin").stat().st_ino
        self.check(run)
        self.assertEqual((run.model_dir / "a.bin").stat().st_ino, ino)

    def test_a_file_of_the_users_at_the_place_stays(self) -> None:
        run = self.start()
        for name in ("b.bin", "small.bin"):
            (run.model_dir / name).unlink()
            (run.model_dir / name).write_bytes(b"mine")
        done = run.call(["cat", "b.bin", "small.bin"], cwd=run.model_dir)
        self.assertEqual(done.stdout, b"minemine", done.stderr.decode() + run.log_tail())


if __name__ == "__main__":
    unittest.main()
