"""What a bucket may hold beside plain objects, and what the engine may see of it: links, archives, odd keys, denials."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import time
from typing import Any

from tests.e2e.base import PREFIX, EndToEnd
from tests.harness import faults, folder, paths
from tests.harness.endpoint import Endpoint
from tests.harness.run import Run

PYTHON = str(paths.VENV_PYTHON)
# For each argument: its size, and the hash of its content or the errno of open (o) or read (r).
LOOK = (
    "import errno, hashlib, os, sys\n"
    "for name in sys.argv[1:]:\n"
    "    step = 'o'\n"
    "    try:\n"
    "        size = os.stat(name).st_size\n"
    "        fd = os.open(name, os.O_RDONLY)\n"
    "        step = 'r'\n"
    "        with open(fd, 'rb') as file: print(size, hashlib.sha256(file.read()).hexdigest())\n"
    "    except OSError as e: print(size, step + ' ' + errno.errorcode[e.errno])\n"
)
LIMITS = {"materializeBytes": folder.MATERIALIZE_BYTES, "outageBudgetSec": 3, "listAttempts": 2}


class Listing(EndToEnd):
    """Each test has an endpoint of its own, with its catalog and rules."""

    def start(
        self,
        catalog: list[dict[str, Any]] | None = None,
        rules: list[faults.Rule] | None = None,
        prefix: str = PREFIX,
        **config: Any,
    ) -> Run:
        scratch = self.scratch / self.id().rsplit(".", 1)[-1]
        scratch.mkdir()
        options = []
        if catalog:
            file = scratch / "catalog.json"
            file.write_text(json.dumps([{"bucket": paths.BUCKET, **entry} for entry in catalog]))
            options = ["--catalog", str(file)]
        endpoint = self.serving(Endpoint(self.scratch / "root", scratch, rules, options))
        return self.ending(Run(endpoint, prefix, config={**LIMITS, **config}))

    def look(self, run: Run, *names: str) -> list[str]:
        done = run.call([PYTHON, "-c", LOOK, *names], cwd=run.model_dir, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr.decode() + run.log_tail())
        return done.stdout.decode().splitlines()

    def facts(self, name: str) -> str:
        content = (self.plain / name).read_bytes()
        return f"{len(content)} {hashlib.sha256(content).hexdigest()}"

    def assert_logged(self, run: Run, *words: str) -> None:
        """One log line names all of these."""
        self.assertTrue(run.logged(*words), f"{words} not in\n{run.log_tail(40)}")

    def asked(self, run: Run, name: str) -> int:
        """Requests for an object, when those that were under way have ended, too."""
        before = -1
        while (now := sum(r.key == f"{PREFIX}/{name}" for r in run.endpoint.requests())) != before:
            before = now
            time.sleep(0.5)
        return now

    def names(self, run: Run) -> set[str]:
        return {str(p.relative_to(run.model_dir)) for p in run.model_dir.rglob("*")}

    def test_a_listing_that_takes_long_is_spoken_of_and_made_once(self) -> None:
        """A program that has waited longer than listAgainSec gets the listing that it has waited for."""
        slow = {"match": {"kind": "list", "prefix": f"{PREFIX}/nested/"}, "do": {"delay_ms": 12_000}}
        run = self.start(rules=[slow], responseTimeoutMs=30_000, prefetch={"vcpus": 1, "workers": 1})
        begin = time.monotonic()
        done = run.call([PYTHON, "-c", "import os; print(sorted(os.listdir('nested')))"], cwd=run.model_dir, timeout=60)
        took = time.monotonic() - begin
        self.assertEqual(done.stdout, b"['deep', 'small.json']\n", done.stderr.decode() + run.log_tail())
        self.assertIn(b"still waiting for the listing of nested", done.stderr)
        self.assertEqual(sum("nested%2F&" in f"{r.query}&" for r in run.endpoint.requests()), 1, run.log_tail())
        self.assertLess(took, 20, run.log_tail())

    def test_what_a_program_writes_is_its_own_where_the_folder_cannot_be_listed(self) -> None:
        """By whatever call it is made, and at whatever number, standard input's and that of a stream among them."""
        denied = {"match": {"kind": "list", "prefix": f"{PREFIX}/nested/"}, "do": {"status": 403, "code": "AccessDenied"}}
        run = self.start(rules=[denied])
        code = (
            "import ctypes, os, tempfile\n"
            "open('nested/twice', 'wb').close()\n"
            "with open('nested/twice', 'wb') as file: file.write(b'twice')\n"
            "libc = ctypes.CDLL(None)\n"
            "for call in (libc.fopen, libc.fdopen): call.restype = ctypes.c_void_p\n"
            "made = libc.fopen(b'nested/made', b'w'); libc.fputs(b'made', ctypes.c_void_p(made)); libc.fclose(ctypes.c_void_p(made))\n"
            "temporary = tempfile.mkstemp(dir='nested')\n"
            "of = libc.fdopen(temporary[0], b'w'); libc.fputs(b'temporary', ctypes.c_void_p(of)); libc.fclose(ctypes.c_void_p(of))\n"
            "os.rename(temporary[1], 'nested/temporary')\n"
            "stream = libc.fopen(b'/dev/null', b'w')\n"
            "new = os.open('nested/stream', os.O_CREAT | os.O_EXCL | os.O_WRONLY)\n"
            "number = libc.fileno(ctypes.c_void_p(stream)); os.dup2(new, number); os.close(new)\n"
            "os.close(0); new = os.open('nested/new', os.O_CREAT | os.O_EXCL | os.O_WRONLY)\n"
            "print(new, os.write(0, b'mine'), os.write(number, b'stream'))"
        )
        done = run.call([PYTHON, "-c", code], cwd=run.model_dir, timeout=60)
        self.assertEqual(done.stdout, b"0 4 6\n", done.stderr.decode() + run.log_tail())
        for name, content in (("twice", b"twice"), ("made", b"made"), ("temporary", b"temporary"), ("new", b"mine"), ("stream", b"stream")):
            self.assertEqual((run.model_dir / "nested" / name).read_bytes(), content)

    def test_symbolic_links_are_their_targets(self) -> None:
        run = self.start([
            {"key": f"{PREFIX}/link.bin", "target": f"{PREFIX}/b.bin"},
            {"key": f"{PREFIX}/nested/link.json", "target": f"{PREFIX}/small.bin"},
            {"key": f"{PREFIX}/nowhere.bin", "target": f"{PREFIX}/gone"},
        ])
        self.assertEqual(
            self.look(run, "link.bin", "nested/link.json", "b.bin"),
            [self.facts("b.bin"), self.facts("small.bin"), self.facts("b.bin")], run.log_tail(),
        )
        self.assertNotIn("nowhere.bin", self.names(run))
        self.assert_logged(run, "nowhere.bin", "symbolic link", "SymlinkTargetNotExist")
        heads = [r.key for r in run.endpoint.requests() if r.method == "HEAD"]
        self.assertEqual(sorted(heads), sorted({f"{PREFIX}/link.bin", f"{PREFIX}/nested/link.json", f"{PREFIX}/nowhere.bin"}))

    def test_archived_objects_are_listed_and_refused_at_open(self) -> None:
        run = self.start([
            {"key": f"{PREFIX}/a.bin", "class": "ColdArchive"},
            {"key": f"{PREFIX}/small.bin", "class": "DeepColdArchive", "restore": 'ongoing-request="true"'},
            {"key": f"{PREFIX}/page.bin", "class": "ColdArchive", "restore": 'ongoing-request="false", expiry-date="x"'},
        ])
        got = self.look(run, "a.bin", "small.bin", "page.bin", "b.bin")
        sizes = [(self.plain / name).stat().st_size for name in ("a.bin", "small.bin")]
        self.assertEqual(got[:2], [f"{size} o EACCES" for size in sizes], run.log_tail())
        self.assertEqual(got[2:], [self.facts("page.bin"), self.facts("b.bin")])
        for name, storage_class in (("a.bin", "ColdArchive"), ("small.bin", "DeepColdArchive")):
            self.assert_logged(run, f"{PREFIX}/{name}", storage_class, "restore the object")
        asked = [r.key for r in run.endpoint.requests() if r.method == "GET" and r.key]
        self.assertFalse({f"{PREFIX}/a.bin", f"{PREFIX}/small.bin"} & set(asked), "an archived object was asked for")

    def test_class_archive_is_known_by_the_first_read_and_not_asked_for_again(self) -> None:
        # Only an engine that outlives `asked` knows at the second look what it was told at the first.
        run = self.start([{"key": f"{PREFIX}/b.bin", "class": "Archive"}], lingerSec=5)
        size = (self.plain / "b.bin").stat().st_size
        self.assertEqual(self.look(run, "b.bin")[0].split()[0::2], [str(size), "EACCES"], run.log_tail())
        asked = self.asked(run, "b.bin")
        self.assertEqual(self.look(run, "b.bin", "b.bin"), [f"{size} o EACCES"] * 2)
        self.assertEqual(self.asked(run, "b.bin"), asked)
        ranges = [(r.start, r.end) for r in run.endpoint.requests() if r.key == f"{PREFIX}/b.bin" and r.method == "GET"]
        self.assertEqual(len(ranges), len(set(ranges)), f"a range of an archived object was asked for again: {ranges}")
        self.assert_logged(run, "b.bin", "InvalidObjectState", "restore the object")

    def test_what_was_denied_is_had_after_the_grant(self) -> None:
        key = f"{PREFIX}/a.bin"
        # It has two parts, and a refusal is believed when one of them meets it twice.
        run = self.start(rules=[faults.refused(403, "AccessDenied", key, times=3)], listAgainSec=1, prefetch={"vcpus": 1, "workers": 1})
        holder = run.start(["sleep", "30"])
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        self.assertIn("EACCES", self.look(run, "a.bin")[0], run.log_tail())
        deadline = time.monotonic() + 15
        while (got := self.look(run, "a.bin")[0]) != self.facts("a.bin"):
            self.assertIn("EACCES", got)
            self.assertLess(time.monotonic(), deadline, run.log_tail())
            time.sleep(0.5)
        self.assert_logged(run, "a.bin", "AccessDenied", "grant oss:ListObjects and oss:GetObject")

    def test_a_folder_that_may_not_be_listed_breaks_nothing_else(self) -> None:
        more = self.plain / "zz" / "inner"
        more.mkdir(parents=True)
        (more / "deep.bin").write_bytes(b"deep")
        rule = faults.refused(403, "AccessDenied", kind="list")
        rule["match"]["prefix"] = f"{PREFIX}/nested/"
        run = self.start(rules=[rule])
        self.assertEqual(self.look(run, "b.bin", "zz/inner/deep.bin"), [self.facts("b.bin"), self.facts("zz/inner/deep.bin")])
        done = run.call(["ls", "nested"], cwd=run.model_dir)
        self.assertEqual((done.returncode, done.stdout), (2, b""), run.log_tail())
        self.assertIn(b"Input/output error", done.stderr)
        self.assert_logged(run, f"{PREFIX}/nested/", "AccessDenied", "grant oss:ListObjects")

    def walks(self, run: Run, *arguments: str) -> dict[str, Any]:
        done = run.call([PYTHON, str(paths.APPS / "walks.py"), *arguments], cwd=run.model_dir)
        self.assertEqual(done.returncode, 0, done.stderr.decode() + run.log_tail())
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def assert_walked(self, run: Run, name: str, entries: int) -> None:
        """All ways to read a folder give all of it."""
        found = self.walks(run, name)
        ways = ("listdir", "scandir", "glob", "glob told", "glob with GLOB_ERR", "nftw", "fts")
        every = [entries, [entries + 2, 0], [0, entries], [], [0, entries], [0, 0], True]
        self.assertEqual([found[way][:2] if way == "nftw" else found[way] for way in ways], every, run.log_tail())
        self.assertGreater(found["nftw"][2], entries)
        behind = found["behind a link"]
        self.assertEqual(behind["nftw of the link"], [0, 0, 1])
        for way, (first, unread) in {"nftw": (0, 2), "nftw with FTW_CHDIR": (0, 2), "fts": (1, 4)}.items():
            self.assertEqual((behind[way][0], behind[way].count(unread)), (first, 0), way)
            self.assertGreater(len(behind[way]), entries, way)

    def status(self, run: Run) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(paths.OSSC), "status"], env=run.env(LD_PRELOAD=None), capture_output=True, text=True, check=False)

    def kept(self, run: Run) -> Run:
        """With an engine that stays."""
        keeper = run.start(["sleep", "60"])
        self.addCleanup(keeper.wait)
        self.addCleanup(keeper.kill)
        return run

    def refused_in_nested(self) -> Run:
        """OSS does not list one folder."""
        rule = faults.refused(403, "AccessDenied", kind="list")
        rule["match"]["prefix"] = f"{PREFIX}/nested/"
        return self.kept(self.start(rules=[rule]))

    def test_a_folder_that_cannot_be_listed_is_no_empty_one(self) -> None:
        run = self.refused_in_nested()
        self.assertEqual(self.walks(run, "nested", "moved"), {
            "listdir": errno.EIO, "scandir": [-1, errno.EIO], "glob": [3, 0], "glob told": [["nested", errno.EIO]], "glob with GLOB_ERR": [2, 0],
            "nftw": [-1, errno.EIO, 0], "fts": False, "rmdir": errno.EIO, "rename": errno.EIO, "replace": errno.EIO, "glob beside it": [3, 0],
            # The walks are told of a folder that cannot be read (FTW_DNR, FTS_DNR); the link itself is like any other.
            "behind a link": {
                "nftw of the link": [0, 0, 1], "nftw": [0, 1, 2], "nftw with FTW_CHDIR": [0, 1, 2], "fts": [1, 4, 6],
                "rmdir": errno.ENOTDIR, "rename": None, "remove": [0, 0],
            },
        }, run.log_tail())
        status = self.status(run)
        self.assertEqual(status.returncode, 2)
        self.assertRegex(status.stdout, "not listed: nested/: failed to list objects: .*AccessDenied")
        run.endpoint.set_rules([])
        self.assert_walked(run, "nested", len(list((self.plain / "nested").iterdir())))
        self.assertEqual(self.status(run).returncode, 0, self.status(run).stdout)

    def test_a_stream_over_a_folder_that_cannot_be_listed_leaves_its_descriptor_open(self) -> None:
        """The caller of `fdopendir` closes it after an error. One that was opened past the library is not listed yet."""
        run = self.refused_in_nested()
        program = "import ctypes, os; c = ctypes.CDLL(None, use_errno=True); c.fdopendir.restype = ctypes.c_void_p; print(c.fdopendir(9), ctypes.get_errno()); os.close(9)"
        script = 'library=$LD_PRELOAD; unset LD_PRELOAD; exec sh -c \'exec 9< nested; LD_PRELOAD=$1 exec "$2" -c "$3"\' sh "$library" "$@"'
        done = run.call(["sh", "-c", script, "sh", PYTHON, program], cwd=run.model_dir)
        self.assertEqual((done.returncode, done.stdout.decode()), (0, f"None {errno.EIO}\n"), done.stderr.decode() + run.log_tail())

    def test_a_page_that_cannot_be_had_leaves_no_part_of_a_folder(self) -> None:
        """More names than a page has, and the second page fails as often as it is asked for."""
        many = self.plain / "many"
        many.mkdir()
        self.addCleanup(shutil.rmtree, many)
        for number in range(1100):
            (many / f"{number}.json").touch()
        match = {"kind": "list", "prefix": f"{PREFIX}/many/"}
        rules: list[faults.Rule] = [{"match": {**match, "nth": nth}, "do": {"status": 500, "code": "InternalError"}} for nth in (2, 3)]
        run = self.kept(self.start(rules=rules, prefetch={"vcpus": 1, "workers": 1}))
        ls = run.call(["ls", "many"], cwd=run.model_dir)
        self.assertEqual((ls.returncode, ls.stdout), (2, b""), run.log_tail())
        self.assertEqual(os.listdir(run.model_dir / "many"), [], "a part of it was made")
        self.assertIn("not listed: many/: ", self.status(run).stdout)
        self.assert_walked(run, "many", 1100)

    def test_only_the_target_folder_is_listed_and_no_sibling_is_taken(self) -> None:
        sibling = self.plain.parent / "tiny-2"
        sibling.mkdir()
        (sibling / "sibling.bin").write_bytes(b"x")
        for spelling in (PREFIX, PREFIX + "/"):
            with self.subTest(spelling=spelling):
                scratch = self.scratch / f"spelling-{len(spelling)}"
                endpoint = self.serving(Endpoint(self.scratch / "root", scratch))
                run = self.ending(Run(endpoint, PREFIX, config=LIMITS))
                env = run.env(OSS_PATH=f"oss://{paths.BUCKET}/{spelling}")
                done = run.call(["ls"], env, cwd=run.model_dir)
                self.assertEqual(set(done.stdout.decode().split("\n")) - {""}, {p.name for p in self.plain.iterdir()})
                lists = [r.query for r in endpoint.requests() if not r.key]
                self.assertTrue(lists)
                for query in lists:
                    self.assertIn(f"prefix={PREFIX.replace('/', '%2F')}%2F", query)
                    self.assertIn("delimiter=%2F", query)

    def test_keys_that_are_no_names_are_skipped_with_their_reason(self) -> None:
        content = self.scratch / "root" / ".content"
        content.mkdir()
        (content / "x").write_bytes(b"x")
        odd = {
            f"{PREFIX}/../escape": "it would leave the folder",
            f"{PREFIX}//double": "an empty name between slashes",
            f"{PREFIX}/./dot": "it would leave the folder",
            f"{PREFIX}/{'n' * 256}": "longer than 255 bytes",
            f"{PREFIX}/nul\0": "it holds a NUL byte",
            f"{PREFIX}/nested": "a folder has the same name",
        }
        good = [f"{PREFIX}/new\nline", f"{PREFIX}/\x1b[31mred", f"{PREFIX}/e\u0301", f"{PREFIX}/\u00e9"]
        entries = [{"key_hex": key.encode().hex(), "file": ".content/x"} for key in [*odd, *good]]
        entries += [{"key_hex": f"{PREFIX}/".encode().hex() + "ff", "file": ".content/x"}]
        run = self.start(entries)
        one = hashlib.sha256(b"x").hexdigest()
        self.assertEqual(self.look(run, *[key[len(PREFIX) + 1:] for key in good]), [f"1 {one}"] * len(good), run.log_tail())
        expected = {str(p.relative_to(self.plain)) for p in self.plain.iterdir()} | {k[len(PREFIX) + 1:] for k in good}
        self.assertEqual({p.name for p in run.model_dir.iterdir()}, expected)
        self.assertEqual({p.name for p in run.dir.iterdir()}, {"model", "connector.log", "audit.log", "config.json"})
        for why in [*odd.values(), "the key is not UTF-8"]:
            self.assert_logged(run, "not mirrored", why)
        self.assertTrue(all(line[:2] == "20" for line in run.log_lines()), run.log_tail(60))
