"""A placeholder is known by its mark: by whatever name it is met, its bytes or an error come, never an empty file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.base import PREFIX, EndToEnd
from tests.harness import folder
from tests.harness.endpoint import Endpoint
from tests.harness.run import Run, plain_env

LINGER_SECS = 1
SIZE = folder.MATERIALIZE_BYTES + 77
MARK = "user.ossc.made"
# Every way to meet a file; each prints a size, or the name of an error.
READER = """
import errno, mmap, os, sys
def tried(what):
    try:
        return str(what())
    except OSError as error:
        return errno.errorcode[error.errno]
    except ValueError as error:
        return "ValueError"
path = sys.argv[1]
def mapped():
    with open(path, "rb") as file:
        return len(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
print(*[tried(what) for what in (
    lambda: os.stat(path).st_size,
    lambda: len(open(path, "rb").read()),
    lambda: os.lseek(os.open(path, os.O_RDONLY), 0, os.SEEK_END),
    mapped,
)])
"""
RIGHT = " ".join([str(SIZE)] * 4)


class Identity(EndToEnd):
    def setUp(self) -> None:
        super().setUp()
        (self.plain / "w.bin").write_bytes(b"v" * SIZE)
        self.mine = self.managed({"lingerSec": LINGER_SECS})

    def met(self, path: Path | str, run: Run | None = None) -> tuple[str, str]:
        """What a preloaded program gets of a file, and what it says on stderr."""
        done = (run or self.mine).call([sys.executable, "-c", READER, str(path)])
        return done.stdout.decode().strip(), done.stderr.decode()

    def assert_right(self, path: Path | str) -> None:
        self.assertEqual(self.met(path)[0], RIGHT, self.mine.log_tail())

    def assert_error(self, path: Path | str, run: Run | None = None) -> None:
        got, said = self.met(path, run)
        self.assertEqual(got.split(), ["ESTALE"] * 4, said)
        self.assertIn("stands for an object", said)

    def keep_alive(self, run: Run | None = None) -> None:
        """A program that keeps the engine, and has met the folder."""
        holder = (run or self.mine).start(["sh", "-c", "cat $MODEL_DIR/* >/dev/null; exec sleep 60"], stderr=subprocess.DEVNULL)
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        self.met((run or self.mine).model_dir / "w.bin", run)

    def test_other_names_of_a_placeholder(self) -> None:
        outside = self.mine.dir
        self.keep_alive()
        os.link(self.mine.model_dir / "w.bin", outside / "linked")
        os.symlink(self.mine.model_dir / "w.bin", outside / "symlinked")
        for name in ("linked", "symlinked"):
            self.assert_right(outside / name)
        os.rename(self.mine.model_dir / "w.bin", outside / "moved")
        self.assert_right(outside / "moved")

    def test_a_copy_without_its_bytes_is_an_error(self) -> None:
        self.keep_alive()
        copy = self.mine.dir / "copy.bin"
        subprocess.run(["cp", "-a", self.mine.model_dir / "w.bin", copy], check=True, env=plain_env())
        self.assertEqual(copy.stat().st_size, 0)
        self.assert_error(copy)
        # What is written anew is the user's, and so is what becomes of it.
        copy.write_bytes(b"mine")
        copy.write_bytes(b"")
        self.assertEqual(self.met(copy)[0], "0 0 0 ValueError")

    def test_a_file_of_a_folder_that_no_engine_has_listed_yet(self) -> None:
        (self.plain / "deep/er").mkdir(parents=True)
        (self.plain / "deep/er/w.bin").write_bytes(b"v" * SIZE)
        path = self.mine.model_dir / "deep/er/w.bin"
        self.assert_right(path)
        self.assertIsNotNone(self.mine.wait_engines_gone(LINGER_SECS + 3))
        os.link(path, self.mine.dir / "linked")
        self.assert_right(self.mine.dir / "linked")

    def test_an_unmarked_file_in_a_folder_that_no_program_has_used(self) -> None:
        """A backup without attributes (rsync, tar, cp) leaves empty files and old small ones at the objects' places: the
        first use of the folder lists it, whatever the use is."""
        for below in ("sub", "sub/deep"):
            (self.plain / below).mkdir()
            (self.plain / below / "w.bin").write_bytes(b"v" * SIZE)
            (self.plain / below / "config.json").write_bytes(b"{}")
        for name in ("sub/w.bin", "sub/deep/w.bin"):
            for argv in (["cat"], ["sha256sum"], ["wc", "-c"], [sys.executable, "-c", READER]):
                with self.subTest(name=name, argv=argv[0]):
                    run = self.managed({"lingerSec": LINGER_SECS})
                    (run.model_dir / "sub/deep").mkdir(parents=True)
                    (run.model_dir / name).touch()
                    (run.model_dir / name).with_name("config.json").touch()
                    expected = subprocess.run([*argv, str(self.plain / name)], capture_output=True, check=True).stdout.split()[:1]
                    done = run.call([*argv, str(run.model_dir / name)])
                    self.assertEqual(done.stdout.split()[:1], expected, done.stderr.decode() + run.log_tail())
                    done = run.call(["cat", str((run.model_dir / name).with_name("config.json"))])
                    self.assertEqual(done.stdout, b"{}", run.log_tail())

    def test_a_file_of_an_engine_that_is_gone_is_not_taken_over(self) -> None:
        self.keep_alive()
        os.link(self.mine.model_dir / "w.bin", self.mine.dir / "old version")
        # First the new version, since a successor starts at once.
        place = self.plain / "new"
        place.write_bytes(b"w" * SIZE)
        place.rename(self.plain / "w.bin")
        for holder in self.mine.engines():
            os.kill(holder, 9)
        self.assert_right(self.mine.model_dir / "w.bin")
        # The successor goes on with the catalog that it found, and readers do not wait for its listing.
        old = os.stat(self.mine.dir / "old version").st_ino
        until = time.monotonic() + 20
        while os.stat(self.mine.model_dir / "w.bin").st_ino == old:
            self.assertLess(time.monotonic(), until, "the new version has taken the inode over\n" + self.mine.log_tail())
            time.sleep(0.02)
        self.assert_error(self.mine.dir / "old version")

    def test_another_folders_placeholders(self) -> None:
        self.keep_alive()
        other = self.managed({"lingerSec": LINGER_SECS})
        self.assert_error(self.mine.model_dir / "w.bin", other)

    def test_another_folders_folder_that_is_not_listed_yet_is_not_empty(self) -> None:
        scratch = self.scratch / "slow"
        endpoint = Endpoint(self.scratch / "root", scratch, [{"match": {"kind": "list", "prefix": f"{PREFIX}/nested/"}, "do": {"delay_ms": 30_000}}])
        endpoint.start()
        self.addCleanup(endpoint.stop)
        slow = Run(endpoint, PREFIX, config={"materializeBytes": folder.MATERIALIZE_BYTES})
        self.addCleanup(self.finish, slow)
        holder = slow.start(["sleep", "60"])
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        self.assertEqual(slow.call(["ls", str(slow.model_dir)]).returncode, 0, slow.log_tail())
        self.keep_alive()
        for code in ("os.listdir(path)", "[e.name for e in os.scandir(path)]", "os.open(path, os.O_RDONLY)"):
            with self.subTest(code):
                script = f"import os, errno, sys\npath = sys.argv[1]\ntry: print({code})\nexcept OSError as e: print(errno.errorcode[e.errno])"
                done = self.mine.call([sys.executable, "-c", script, str(slow.model_dir / "nested")])
                self.assertEqual(done.stdout, b"EIO\n", done.stderr.decode() + self.mine.log_tail())
                self.assertIn(b"belongs to another MODEL_DIR", done.stderr)
        # What its engine has listed is seen as it lies there.
        done = self.mine.call(["ls", str(slow.model_dir)])
        self.assertEqual(sorted(done.stdout.decode().splitlines()), sorted(path.name for path in self.plain.iterdir()), done.stderr)

    def test_a_model_dir_is_used_for_another_model(self) -> None:
        (self.plain / "only/here").mkdir(parents=True)
        (self.plain / "only/here/w.bin").write_bytes(b"v" * SIZE)
        self.met(self.mine.model_dir / "only/here/w.bin")
        (self.mine.model_dir / "only/notes").write_text("mine")
        shutil.copy2(self.mine.model_dir / "small.bin", self.mine.model_dir / "kept.json")
        self.assertIsNotNone(self.mine.wait_engines_gone(LINGER_SECS + 3))
        path = str(self.mine.env()["OSS_PATH"]) + "nested/"
        (self.plain / "nested/w2.bin").write_bytes(b"v" * SIZE)
        env = self.mine.env(OSS_PATH=path)
        done = self.mine.call([sys.executable, "-c", READER, str(self.mine.model_dir / "w2.bin")], env)
        self.assertEqual(done.stdout.decode().strip(), RIGHT, done.stderr.decode() + self.mine.log_tail())
        left = sorted(str(file.relative_to(self.mine.model_dir)) for file in self.mine.model_dir.rglob("*") if file.is_file())
        self.assertIn("only/notes", left)
        self.assertIn("kept.json", left)
        for gone in ("w.bin", "small.bin", "only/here/w.bin"):
            self.assertNotIn(gone, left)

    def test_the_programs_own_empty_files(self) -> None:
        self.keep_alive()
        for path in (self.mine.model_dir / "mine", self.mine.dir / "mine"):
            path.touch()
            self.assertEqual(self.met(path), ("0 0 0 ValueError", ""))

    def test_a_mark_that_was_taken_away_leaves_the_catalog(self) -> None:
        self.keep_alive()
        os.removexattr(self.mine.model_dir / "w.bin", MARK)
        os.utime(self.mine.model_dir / "w.bin")
        self.assert_right(self.mine.model_dir / "w.bin")
