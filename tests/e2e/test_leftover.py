"""What an engine finds in MODEL_DIR of an earlier one, and programs that name something else than it serves."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time

from harness import compile, folder, paths
from harness.run import Run, plain_env
from tests.e2e.base import PREFIX, EndToEnd

LINGER_SECS = 1
# Maps the file and has it open, shows its first byte, and tells what it is by both ways when asked.
HOLDER = """
import hashlib, mmap, sys
file = open(sys.argv[1], "rb", buffering=0)
data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print(chr(data[0]), flush=True)
sys.stdin.readline()
whole = file.read()
assert whole == data[:], "read and map differ"
print(hashlib.sha256(data).hexdigest())
"""


class Leftover(EndToEnd):
    def again(self, run: Run, *argv: str) -> str:
        """The output of a command under an engine that was not there before."""
        self.assertIsNotNone(run.wait_engines_gone(LINGER_SECS + 3), "an engine stays")
        done = run.call(list(argv), cwd=run.model_dir)
        self.assertEqual((done.returncode, done.stderr), (0, b""), run.log_tail())
        return done.stdout.decode()

    def replace(self, name: str, content: bytes) -> None:
        """A new version of an object, as OSS shows it: at once and whole."""
        place = self.plain / name
        place.with_name("new").write_bytes(content)
        place.with_name("new").rename(place)

    def test_own_files_follow_their_objects(self) -> None:
        run = self.managed({"lingerSec": LINGER_SECS})
        self.replace("changes.json", b"old")
        self.replace("nested/changes.json", b"old below")
        self.replace("goes.json", b"old")
        self.replace("goes.bin", b"x" * (folder.MATERIALIZE_BYTES + 1))
        both = ("cat", "changes.json", "nested/changes.json")
        self.assertEqual(self.again(run, *both), "oldold below")
        self.assertTrue((run.model_dir / "goes.json").exists() and (run.model_dir / "goes.bin").exists())
        self.replace("changes.json", b"newer")
        self.replace("nested/changes.json", b"newer below")
        (self.plain / "goes.json").unlink()
        (self.plain / "goes.bin").unlink()
        self.assertEqual(self.again(run, *both), "newernewer below")
        names = self.again(run, "ls").split()
        self.assertNotIn("goes.json", names, "a file of an object that is gone")
        self.assertNotIn("goes.bin", names, "a placeholder of an object that is gone")

    def test_leftovers_without_attributes_are_looked_at_again(self) -> None:
        """The next engine cannot know the version of a file that only its time marks, and makes it anew when it lists the
        folder: that is while a program has just opened it by name. Every call by name looks again, and nothing is said."""
        run = self.managed({"lingerSec": LINGER_SECS})
        content = b"l" * (folder.MATERIALIZE_BYTES + 7)
        self.replace("nested/left.bin", content)
        refuse = [str(compile.program("refuse.c")), "EOPNOTSUPP", "marks"]
        env, plain = run.env(), plain_env()
        changes = [f"{name}={value}" for name, value in env.items() if plain.get(name) != value]
        digest = hashlib.sha256(content).hexdigest()
        for argv, expected in (
            (["cat"], content.decode()), (["sha256sum"], digest), (["md5sum"], hashlib.md5(content).hexdigest()), (["stat", "-c", "%s"], str(len(content))),
            (["wc", "-c"], str(len(content))), (["od", "-An", "-c", "-N1"], "   l\n"), (["head", "-c", "2"], "ll"), (["test", "-s"], ""),
        ):
            done = run.call([*refuse, "env", *changes, *argv, str(run.model_dir / "nested/left.bin")], plain)
            self.assertEqual((done.returncode, done.stderr), (0, b""), f"{argv} {run.log_tail()}")
            self.assertEqual(done.stdout.decode()[: len(expected)], expected, argv)
            run.kill_engines()

    def test_a_new_version_is_for_those_who_open_it_later(self) -> None:
        run = self.managed({"lingerSec": LINGER_SECS})
        old, new = (letter * (folder.MATERIALIZE_BYTES + 5) for letter in (b"a", b"b"))
        self.replace("version.bin", old)
        holder = run.start([sys.executable, "-c", HOLDER, "version.bin"], cwd=run.model_dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(holder.kill)
        assert holder.stdout is not None
        self.assertEqual(holder.stdout.readline(), b"a\n")
        self.replace("version.bin", new)
        until = time.monotonic() + 20
        while run.call(["head", "-c", "1", "version.bin"], cwd=run.model_dir).stdout != b"b":
            self.assertLess(time.monotonic(), until, "who opens it now still gets the old version\n" + run.log_tail())
            time.sleep(0.5)
        self.assertEqual(run.engine_starts(), 1)
        digest = run.call(["sha256sum", "version.bin"], cwd=run.model_dir).stdout.split()[0].decode()
        self.assertEqual(digest, hashlib.sha256(new).hexdigest())
        out, _ = holder.communicate(b"\n", timeout=30)
        self.assertEqual(out.decode().strip(), hashlib.sha256(old).hexdigest(), "who had it open does not keep the old version")

    def test_a_users_file_is_never_replaced_or_removed(self) -> None:
        run = self.managed({"lingerSec": LINGER_SECS})
        self.replace("edited.json", b"object")
        self.assertEqual(self.again(run, "cat", "edited.json"), "object")
        self.assertIsNotNone(run.wait_engines_gone(LINGER_SECS + 3))
        (run.model_dir / "edited.json").write_bytes(b"mine")
        (run.model_dir / "other").write_bytes(b"")
        self.replace("edited.json", b"object 2")
        done = run.call(["cat", "edited.json"], cwd=run.model_dir)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"failed to launch oss connector: failed to download metadata: edited.json", done.stderr)
        self.assertEqual((run.model_dir / "edited.json").read_bytes(), b"mine")
        (run.model_dir / "edited.json").unlink()
        self.assertEqual(self.again(run, "cat", "edited.json"), "object 2")
        self.assertTrue((run.model_dir / "other").exists())

    def test_another_path_while_the_engine_lives_is_refused(self) -> None:
        run = self.managed({"lingerSec": 2})
        other = self.plain.parent / "other"
        other.mkdir(exist_ok=True)
        self.addCleanup(shutil.rmtree, other)
        (other / "config.json").write_text("other")
        self.assertEqual(run.call(["true"]).returncode, 0)
        path = f"oss://{paths.BUCKET}/{PREFIX.rsplit('/', 1)[0]}/other/"
        done = run.call(["ls", str(run.model_dir)], run.env(OSS_PATH=path))
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertIn(b"serves another OSS_PATH", done.stderr)
        # A secondary cannot be ended at its start: it gets errors instead of the other model.
        done = run.call(["ls", str(run.model_dir)], run.env(2, OSS_PATH=path))
        self.assertEqual((done.returncode, done.stdout), (2, b""))
        self.assertIn(b"Input/output error", done.stderr)
        same = run.env(OSS_PATH=f"oss://{paths.BUCKET}/{PREFIX}")
        self.assertEqual(run.call(["ls", str(run.model_dir)], same).returncode, 0, "a slash more or less is the same")

    def test_a_role_that_does_not_exist_is_refused(self) -> None:
        run = self.managed()
        for value, status in (("true", 1), ("3", 1), ("0", 0), ("", 0)):
            done = run.call(["true"], run.env(ENABLE_CONNECTOR=value))
            self.assertEqual(done.returncode, status, (value, done.stderr))
            self.assertEqual(b"ENABLE_CONNECTOR is neither" in done.stderr, status == 1, value)
        self.assertEqual(run.engines(), [])
