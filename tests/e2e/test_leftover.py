"""What an engine finds in MODEL_DIR of an earlier one, and programs that name something else than it serves."""

from __future__ import annotations

import errno
import hashlib
import shutil
import subprocess
import sys
import time

from tests.e2e.base import PREFIX, EndToEnd
from tests.harness import compile, folder, paths
from tests.harness.run import Run, plain_env

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


# Opens each file for reading twice, and says what came of it.
TWICE = """
import sys
for path in sys.argv[1:] * 2:
    try:
        print(open(path, "rb").read())
    except OSError as error:
        print(error.errno)
"""


# Opens the first file, waits for a line, reads the second one, waits for another line.
BEFORE_AND_AFTER = """
import sys
try:
    print(open(sys.argv[1], "rb").read(), flush=True)
except OSError as error:
    print(error.errno, flush=True)
sys.stdin.readline()
print(len(open(sys.argv[2], "rb").read()), flush=True)
sys.stdin.readline()
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

    def test_a_users_file_in_a_sub_folder_is_an_error_with_a_line(self) -> None:
        run = self.managed({"lingerSec": LINGER_SECS, "listAgainSec": 1})
        self.replace("nested/other.json", b"other")
        small, large = run.model_dir / "nested/small.json", run.model_dir / "nested/deep/c.bin"
        large.parent.mkdir(parents=True)
        small.write_bytes(b"mine")
        large.write_bytes(b"mine as well")
        for _ in range(2):
            done = run.call([sys.executable, "-c", TWICE, str(small), str(large)])
            self.assertEqual(done.stdout.split(), [str(errno.ESTALE).encode()] * 4, done.stderr.decode() + run.log_tail())
            lines = done.stderr.decode().splitlines()
            self.assertEqual([line.split(": ")[1] for line in lines], [str(small), str(large)], "one line for each")
            self.assertTrue(all("lies in an object's place" in line for line in lines), lines)
            # A new engine finds the same.
            run.kill_engines()
        for argv in (["cat", str(small)], ["sh", "-c", f"cat < {small}"], ["cp", str(large), str(run.dir / "copy")]):
            done = run.call(argv)
            self.assertNotEqual(done.returncode, 0, argv)
            self.assertIn(f"oss connector: {small if argv[0] != 'cp' else large}: this file of yours".encode(), done.stderr)
        self.assertEqual(run.call(["cat", "nested/other.json"], cwd=run.model_dir).stdout, b"other", "what lies beside it")
        self.assertEqual((small.read_bytes(), large.read_bytes()), (b"mine", b"mine as well"))
        # It may be changed, and where it is gone the object is there.
        holder = run.start(["sleep", "60"])
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        self.assertEqual(run.call(["sh", "-c", f"echo more >> {small}"]).returncode, 0)
        self.assertEqual(small.read_bytes(), b"minemore\n")
        small.unlink()
        time.sleep(1.2)
        self.assertEqual(run.call(["cat", str(small)]).stdout, (self.plain / "nested/small.json").read_bytes(), run.log_tail())

    def test_an_engine_that_takes_over_knows_the_users_files(self) -> None:
        run = self.managed({"lingerSec": LINGER_SECS})
        small = run.model_dir / "nested/small.json"
        small.parent.mkdir()
        small.write_bytes(b"mine")
        holder = run.start(
            [sys.executable, "-c", BEFORE_AND_AFTER, str(small), str(run.model_dir / "b.bin")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )
        self.addCleanup(holder.kill)
        assert holder.stdin is not None and holder.stdout is not None
        refused = f"{errno.ESTALE}\n".encode()
        self.assertEqual(holder.stdout.readline(), refused, run.log_tail())
        run.kill_engines()
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        self.assertEqual(int(holder.stdout.readline()), (self.plain / "b.bin").stat().st_size, run.log_tail())
        self.assertTrue(run.logged("took over from an engine that is gone"), run.log_tail())
        self.assertEqual(run.call([sys.executable, "-c", TWICE, str(small)]).stdout, refused * 2, run.log_tail())
        holder.communicate(b"\n", timeout=30)

    def test_what_a_program_puts_in_an_objects_place_is_its_own_and_named(self) -> None:
        run = self.managed({"lingerSec": 3, "listAgainSec": 1})
        self.replace("nested/put.json", b"object")
        place = run.model_dir / "nested/put.json"
        self.assertEqual(run.call(["cat", str(place)]).stdout, b"object")
        self.assertEqual(run.call(["sh", "-c", f"echo mine > {place}.new && mv {place}.new {place}; cat {place}"]).stdout, b"mine\n")
        self.replace("nested/put.json", b"object 2")
        time.sleep(1.2)
        self.assertEqual(run.call(["ls", str(place.parent)]).returncode, 0)
        self.assertTrue(run.logged("put.json in MODEL_DIR is neither empty nor the object"), run.log_tail())
        done = run.call([sys.executable, "-c", TWICE, str(place)])
        self.assertEqual(done.stdout, b"b'mine\\n'\n" * 2, done.stderr.decode())
        self.assertEqual(done.stderr.decode().count("put this file in an object's place"), 1, done.stderr.decode())

    def test_a_file_at_the_place_of_a_folder_of_the_root_ends_the_start(self) -> None:
        run = self.managed()
        (run.model_dir / "nested").write_bytes(b"mine")
        done = run.call(["true"])
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"failed to download metadata: nested in MODEL_DIR is no folder", done.stderr)
        self.assertEqual((run.model_dir / "nested").read_bytes(), b"mine")

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
