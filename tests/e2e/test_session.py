"""A program gets one version of a model as a whole, from a listing that is new enough, or an error."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

from tests.e2e.base import PREFIX, EndToEnd, slow
from tests.harness import faults, folder, paths
from tests.harness.endpoint import ACCESS_KEY_ID, ACCESS_KEY_SECRET, Endpoint
from tests.harness.issuer import Issuer
from tests.harness.run import Run

AGAIN_SECS = 1
LARGE = folder.MATERIALIZE_BYTES + 4097
SMALL = ["config.json", "model.safetensors.index.json"]
SHARDS = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
MODEL = [*SMALL, *SHARDS]
OLD_SECS = 1000

# Loads files one after the other and shows the version of each, or the name of the error.
LOADER = """
import errno, mmap, os, sys
how, names = sys.argv[1], sys.argv[2:]
def load(name):
    if how == "stat":
        os.stat(name)
    if how == "list":
        os.listdir(".")
    with open(name, "rb") as file:
        if how == "mmap":
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)[:]
        else:
            data = file.read()
    assert len(set(data)) == 1, "a mixture in " + name
    return chr(data[0])
for name in names:
    try:
        print(load(name), end=" ")
    except OSError as error:
        print(errno.errorcode[error.errno], end=" ")
"""
# The same by commands on standard input: `NAME` loads, `hold NAME` maps it for good; one answer for each.
SERVER = """
import errno, mmap, sys
held = []
for line in sys.stdin:
    what, _, name = line.strip().rpartition(" ")
    try:
        with open(name, "rb") as file:
            if what == "hold":
                held.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                print(chr(held[-1][0]), flush=True)
            else:
                print(chr(file.read()[0]), flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"""


# Shows a program a monotonic clock that is 1000 s behind.
BEHIND = r"""
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    int got = (int)syscall(SYS_clock_gettime, clock, now);
    if (got == 0 && clock == CLOCK_MONOTONIC) now->tv_sec -= 1000;
    return got;
}
"""


def can_shift_clocks() -> bool:
    """True where a program may have a time namespace of its own."""
    done = subprocess.run(["unshare", "-T", "--fork", "--monotonic=-1", "true"], capture_output=True, check=False)
    return done.returncode == 0


class Server:
    """A program that loads what it is told."""

    def __init__(self, run: Run, cwd: Path) -> None:
        self.program = run.start(
            [sys.executable, "-c", SERVER], cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def ask(self, line: str) -> str:
        assert self.program.stdin is not None and self.program.stdout is not None
        self.program.stdin.write(line.encode() + b"\n")
        self.program.stdin.flush()
        return self.program.stdout.readline().decode().strip()

    def close(self) -> str:
        """What it said on stderr."""
        return self.program.communicate(timeout=30)[1].decode()


class Session(EndToEnd):
    def setUp(self) -> None:
        self.place = self.plain / self.id().rsplit(".", 1)[-1]
        self.place.mkdir()
        self.addCleanup(shutil.rmtree, self.place)
        self.prefix = f"{PREFIX}/{self.place.name}"
        self.write_all("1")

    def write(self, name: str, version: str, old: bool = True) -> None:
        """A version of an object, as OSS shows it: at once and whole."""
        size = 50 if name in SMALL or name.endswith(".json") else LARGE
        fresh = self.place.parent / f"{self.place.name}.new"
        fresh.write_bytes(version.encode() * (size + ord(version)))
        if old:
            os.utime(fresh, (time.time() - OLD_SECS + ord(version),) * 2)
        (self.place / name).parent.mkdir(exist_ok=True)
        fresh.rename(self.place / name)

    def write_all(self, version: str) -> None:
        for name in MODEL:
            self.write(name, version)

    def run_on(self, endpoint: Endpoint | None = None, **config: object) -> Run:
        settings = {"materializeBytes": folder.MATERIALIZE_BYTES, "listAgainSec": AGAIN_SECS, **config}
        return self.ending(Run(endpoint or self.endpoint, self.prefix, config=settings))

    def load(self, run: Run, how: str = "read", names: list[str] | None = None, below: str = "") -> str:
        """The versions of the files, one after the other."""
        done = run.call([sys.executable, "-c", LOADER, how, *(names or MODEL)], cwd=run.model_dir / below)
        self.assertEqual(done.returncode, 0, done.stderr.decode() + run.log_tail())
        return "".join(done.stdout.decode().split())

    def server(self, run: Run) -> Server:
        server = Server(run, run.model_dir)
        self.addCleanup(server.program.wait)
        self.addCleanup(server.program.kill)
        return server

    def keep_alive(self, run: Run) -> None:
        holder = run.start(["sh", "-c", "ls $MODEL_DIR >/dev/null; exec sleep 100"])
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)

    def grow_old(self) -> None:
        time.sleep(AGAIN_SECS + 0.3)

    def load_by(self, run: Run, before: list[str], **changes: str | None) -> str:
        """What a program loads that is started by these words, in variables of its own."""
        self.keep_alive(run)
        self.assertEqual(self.load(run), "1" * len(MODEL))
        self.write_all("2")
        self.grow_old()
        argv = [*before, sys.executable, "-c", LOADER, "read", *MODEL]
        done = run.call(argv, run.env(**changes), cwd=run.model_dir)
        self.assertEqual(done.returncode, 0, done.stderr.decode() + run.log_tail())
        return "".join(done.stdout.decode().split())

    def test_a_program_whose_clock_a_preloaded_library_shifts(self) -> None:
        run = self.run_on()
        source, library = run.dir / "behind.c", run.dir / "behind.so"
        source.write_text(BEHIND)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        preload = f"{library}:{run.env()['LD_PRELOAD']}"
        self.assertEqual(self.load_by(run, [], LD_PRELOAD=preload), "2" * len(MODEL))

    @unittest.skipUnless(can_shift_clocks(), "needs root and time namespaces")
    def test_a_program_in_another_time_namespace(self) -> None:
        before = ["unshare", "-T", "--fork", "--monotonic=-1000"]
        self.assertEqual(self.load_by(self.run_on(), before), "2" * len(MODEL))

    @slow
    def test_a_small_file_belongs_to_the_session_from_its_first_moment_on(self) -> None:
        """The engine is held up right after the name of a new version was given: who opens it now must not get it as a file
        that no engine knows."""
        run = self.run_on(lingerSec=8)
        server = self.server(run)
        self.assertEqual(server.ask(SMALL[0]), "1")
        (engine,) = run.engines()
        self.grow_old()
        renames = "linkat,renameat,renameat2"
        traced = subprocess.Popen(
            ["strace", "-qq", "-f", "-p", str(engine), "-o", "/dev/null", "-e", f"trace={renames}", "-e", f"inject={renames}:delay_exit=1500000"],
            stdin=subprocess.DEVNULL,
        )
        self.addCleanup(traced.wait)
        self.addCleanup(traced.kill)
        until = time.monotonic() + 20
        while "TracerPid:\t0" in Path(f"/proc/{engine}/status").read_text():
            self.assertLess(time.monotonic(), until, "strace did not come")
            time.sleep(0.02)
        self.write_all("2")
        size = (self.place / SMALL[1]).stat().st_size
        other = run.start(["cat", SMALL[1]], cwd=run.model_dir, stdout=subprocess.DEVNULL)
        self.addCleanup(other.wait)
        # A traced engine lists slowly on a busy machine.
        until = time.monotonic() + 60
        while (run.model_dir / SMALL[1]).stat().st_size != size:
            self.assertLess(time.monotonic(), until, "the new version did not come\n" + run.log_tail())
            time.sleep(0.01)
        self.assertEqual(server.ask(SMALL[1]), "ESTALE", run.log_tail())

    def listings(self, run: Run) -> int:
        prefix = f"prefix={self.prefix}".replace("/", "%2F")
        return sum(f"{prefix}%2F&" in f"{r.query}&" for r in run.endpoint.requests())

    # A model that was replaced.

    def test_beside_an_engine_that_lives(self) -> None:
        run = self.run_on(lingerSec=2)
        self.keep_alive(run)
        self.assertEqual(self.load(run), "11111")
        self.write_all("2")
        self.grow_old()
        self.assertEqual(self.load(run), "22222", run.log_tail())
        self.assertEqual(run.engine_starts(), 1)

    def test_beside_an_engine_that_is_idle(self) -> None:
        run = self.run_on(lingerSec=6)
        self.assertEqual(self.load(run), "11111")
        self.write_all("2")
        self.grow_old()
        self.assertEqual(self.load(run), "22222", run.log_tail())
        self.assertEqual(run.engine_starts(), 1)

    def test_after_an_engine_that_was_killed(self) -> None:
        run = self.run_on(lingerSec=2)
        self.keep_alive(run)
        self.assertEqual(self.load(run), "11111")
        for engine in run.engines():
            os.kill(engine, signal.SIGKILL)
        self.write_all("2")
        self.grow_old()
        self.assertEqual(self.load(run), "22222", run.log_tail())

    def test_whatever_the_first_use_is(self) -> None:
        run = self.run_on(lingerSec=8)
        for version, how in zip("23456", ("stat", "list", "mmap", "read", "stat"), strict=True):
            self.assertEqual(set(self.load(run)), {chr(ord(version) - 1)})
            self.write_all(version)
            self.grow_old()
            self.assertEqual(self.load(run, how), version * len(MODEL), how + run.log_tail())
        for tool in (["cat", SHARDS[2]], ["head", "-c", "1", "config.json"], ["sh", "-c", "ls >/dev/null; head -c 1 config.json"]):
            version = chr(ord(version) + 1)
            self.write_all(version)
            self.grow_old()
            self.assertEqual(run.call(tool, cwd=run.model_dir).stdout[:1].decode(), version, tool)
        self.assertEqual(run.engine_starts(), 1)

    def test_a_folder_of_small_files(self) -> None:
        adapters = ["lora/adapter_config.json", "lora/adapter_model.json"]
        for name in adapters:
            self.write(name, "1")
        run = self.run_on(lingerSec=6)
        self.keep_alive(run)
        self.assertEqual(self.load(run, names=adapters), "11")
        for name in adapters:
            self.write(name, "2")
        self.grow_old()
        self.assertEqual(self.load(run, names=[name.split("/")[1] for name in adapters], below="lora"), "22", run.log_tail())

    def test_names_that_come_and_go(self) -> None:
        run = self.run_on(lingerSec=6)
        self.keep_alive(run)
        self.assertEqual(self.load(run), "11111")
        (run.model_dir / SMALL[1]).write_text("mine")
        (self.place / SMALL[1]).unlink()
        (self.place / SHARDS[2]).unlink()
        self.write("new.json", "1")
        self.grow_old()
        # The first use is of a name that is not there yet.
        self.assertEqual(self.load(run, names=["new.json", SHARDS[2]]), "1ENOENT", run.log_tail())
        self.assertEqual((run.model_dir / SMALL[1]).read_text(), "mine")
        self.assertFalse((run.model_dir / SHARDS[2]).exists())

    def test_an_object_and_a_folder_change_places(self) -> None:
        for name in ("a/x.json", "a/y.bin"):
            self.write(name, "1")
        self.write("b", "1")
        run = self.run_on(lingerSec=8)
        self.keep_alive(run)
        self.assertEqual(self.load(run, names=["a/x.json", "a/y.bin", "b"]), "111")
        shutil.rmtree(self.place / "a")
        self.write("a", "2")
        (self.place / "b").unlink()
        self.write("b/x.json", "2")
        self.grow_old()
        self.assertEqual(self.load(run, names=["a", "b/x.json"]), "22", run.log_tail())
        (run.model_dir / "b/notes").write_text("mine")
        shutil.rmtree(self.place / "b")
        self.write("b", "3")
        self.grow_old()
        self.assertEqual(self.load(run, names=["a"]), "2")
        self.assertTrue(run.logged("b in MODEL_DIR is neither empty nor the object"), run.log_tail())
        self.assertEqual((run.model_dir / "b/notes").read_text(), "mine")

    # One load.

    def test_a_change_under_a_load_is_an_error(self) -> None:
        run = self.run_on()
        program = self.server(run)
        self.assertEqual([program.ask("config.json"), program.ask(f"hold {SHARDS[0]}")], ["1", "1"])
        self.write_all("2")
        self.grow_old()
        self.assertEqual(program.ask(SHARDS[1]), "ESTALE", run.log_tail())
        # Opened once more within the load, which has a part of the old version mapped.
        self.assertEqual([program.ask(SHARDS[0]), program.ask("config.json")], ["ESTALE", "ESTALE"])
        self.assertEqual(self.load(run), "22222", "another program loads the new one")
        said = program.close()
        self.assertIn("changed while this program was loading it: start the load again", said)
        self.assertLessEqual(said.count("\n"), 3, said)

    def test_what_did_not_change_goes_on(self) -> None:
        run = self.run_on()
        program = self.server(run)
        self.assertEqual([program.ask("config.json"), program.ask(SHARDS[0])], ["1", "1"])
        self.write(SHARDS[2], "2")
        self.grow_old()
        self.assertEqual([program.ask("config.json"), program.ask(SHARDS[1]), program.ask(SHARDS[2])], ["1", "1", "2"])

    def test_a_change_of_engines_does_not_hide_it(self) -> None:
        run = self.run_on()
        program = self.server(run)
        self.assertEqual([program.ask("config.json"), program.ask(SHARDS[0])], ["1", "1"])
        shutil.copytree(run.model_dir, run.dir / "copy")
        for engine in run.engines():
            os.kill(engine, signal.SIGKILL)
        self.write_all("2")
        self.grow_old()
        self.assertEqual(program.ask(SHARDS[1]), "ESTALE", run.log_tail())

    def test_who_looks_again_and_again_sees_the_new_version(self) -> None:
        run = self.run_on()
        program = self.server(run)
        self.assertEqual(program.ask("config.json"), "1")
        self.write_all("2")
        until = time.monotonic() + AGAIN_SECS + 2
        while program.ask("config.json") != "2":
            self.assertLess(time.monotonic(), until, run.log_tail())
            time.sleep(0.6)
        self.assertEqual(program.ask(SHARDS[0]), "2")
        # The next time it uses two files, and is told so first.
        self.write_all("3")
        until = time.monotonic() + 12 * AGAIN_SECS + 5
        answers = set()
        while (answer := program.ask("config.json")) != "3":
            answers.add(answer)
            self.assertLess(time.monotonic(), until, run.log_tail())
            time.sleep(0.6)
        self.assertEqual(program.ask(SHARDS[0]), "3")
        self.assertLessEqual(answers, {"2", "ESTALE"})

    def test_a_model_that_is_replaced_object_by_object(self) -> None:
        run = self.run_on(lingerSec=8, listAgainSec=2)
        self.keep_alive(run)
        self.assertEqual(self.load(run), "11111")
        time.sleep(2.3)

        def replace() -> None:
            for name in MODEL:
                self.write(name, "2", old=False)
                time.sleep(0.8)

        thread = threading.Thread(target=replace)
        thread.start()
        time.sleep(1)
        got = set()
        while thread.is_alive():
            got.add(self.load(run))
        self.assertEqual(self.load(run), "22222", run.log_tail())
        for versions in got:
            self.assertLessEqual(len(set(versions.replace("ESTALE", ""))), 1, f"a mixture: {versions}\n{run.log_tail(60)}")
        self.assertTrue(run.logged("waiting until the folder is quiet"), run.log_tail())

    @slow
    def test_a_folder_that_is_never_quiet_is_shown_at_last(self) -> None:
        run = self.run_on(lingerSec=8, listAgainSec=2)
        self.keep_alive(run)
        self.assertEqual(self.load(run), "11111")
        time.sleep(2.3)
        stop = threading.Event()

        def write() -> None:
            version = 0
            while not stop.wait(0.3):
                version += 1
                self.write("other.json", str(version % 9), old=False)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            time.sleep(0.8)
            begin = time.monotonic()
            self.load(run, names=["config.json"])
            self.assertLess(time.monotonic() - begin, 3 * 2 + 5 + 4)
            self.assertTrue(run.logged("WARN", "has not been quiet"), run.log_tail())
        finally:
            stop.set()
            thread.join()

    # Listings.

    def test_a_burst_of_programs_costs_one_listing(self) -> None:
        run = self.run_on(lingerSec=8, listAgainSec=4)
        self.keep_alive(run)
        self.assertEqual(self.load(run), "11111")
        time.sleep(4.3)
        before = self.listings(run)
        self.assertGreater(before, 0)
        programs = [
            run.start([sys.executable, "-c", LOADER, "read", *MODEL], cwd=run.model_dir, stdout=subprocess.PIPE) for _ in range(8)
        ]
        self.assertEqual([program.communicate(timeout=60)[0].split() for program in programs], [[b"1"] * 5] * 8)
        self.assertEqual(self.listings(run) - before, 1)
        self.assertEqual(self.load(run), "11111")
        self.assertEqual(self.listings(run) - before, 1, "it was new enough")

    def test_an_origin_that_is_away(self) -> None:
        away = self.scratch / "away"
        endpoint = self.serving(Endpoint(self.scratch / "root", away, [faults.rule({"delay_ms": 1}, "none")]))
        run = self.run_on(endpoint, lingerSec=20, listAttempts=2)
        self.keep_alive(run)
        self.assertEqual(self.load(run), "11111")
        endpoint.set_rules([faults.rule({"close": True}, kind="list")])
        self.write_all("2")
        self.grow_old()
        begin = time.monotonic()
        self.assertEqual(self.load(run), "11111", "what is in memory is served")
        self.assertLess(time.monotonic() - begin, 13)
        self.assertTrue(run.logged("WARN", "not listed again", "listed_secs_ago"), run.log_tail())
        endpoint.set_rules([])
        self.grow_old()
        self.assertEqual(self.load(run), "22222", run.log_tail())


class Identity(EndToEnd):
    def test_another_endpoint_while_the_engine_lives_is_refused(self) -> None:
        run = self.managed({"lingerSec": 3})
        self.assertEqual(run.call(["true"]).returncode, 0)
        other = self.serving(Endpoint(self.scratch / "root", self.scratch / "other"))
        wrong = {"OSS_ENDPOINT": other.url, "OSS_ACCESS_KEY_SECRET": "wrong"}
        done = run.call(["ls", str(run.model_dir)], run.env(**wrong))
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertIn(b"failed to launch oss connector: the engine of this MODEL_DIR serves another OSS_ENDPOINT", done.stderr)
        done = run.call(["cat", str(run.model_dir / "a.bin")], run.env(2, **wrong))
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertIn(b"serves another OSS_ENDPOINT", done.stderr)
        for role, same in ((1, self.endpoint.url.replace("http", "HTTP") + "/"), (2, None)):
            done = run.call(["head", "-c", "3", str(run.model_dir / "a.bin")], run.env(role, OSS_ENDPOINT=same))
            self.assertEqual((done.returncode, len(done.stdout)), (0, 3), done.stderr)

    def test_credentials_of_a_later_program_are_used_when_the_engines_are_refused(self) -> None:
        directory = self.scratch / "keys"
        directory.mkdir()
        issuer = Issuer(directory / "keys.json", 600)
        endpoint = self.serving(Endpoint(self.scratch / "root", directory, None, ["--keys", str(issuer.keys)]))
        run = self.ending(Run(endpoint, PREFIX, config={"materializeBytes": folder.MATERIALIZE_BYTES, "lingerSec": 2}))

        def env() -> dict[str, str]:
            key = issuer.issue()
            return run.env(
                OSS_ACCESS_KEY_ID=key["AccessKeyId"], OSS_ACCESS_KEY_SECRET=key["AccessKeySecret"], OSS_SESSION_TOKEN=key["SecurityToken"]
            )

        def first_byte(name: str, variables: dict[str, str]) -> bytes:
            done = run.call(["head", "-c", "1", name], variables, cwd=run.model_dir)
            self.assertEqual(done.returncode, 0, done.stderr.decode() + run.log_tail())
            return done.stdout

        first = env()
        holder = run.start(["sleep", "100"], first)
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        self.assertEqual(first_byte("a.bin", first), (self.plain / "a.bin").read_bytes()[:1])
        issuer.withdraw_all()
        for name in ("b.bin", "page.bin"):
            self.assertEqual(first_byte(name, env()), (self.plain / name).read_bytes()[:1])
            issuer.withdraw_all()
        self.assertEqual(run.engine_starts(), 1)
        self.assertTrue(run.logged("those of a later program are used now"), run.log_tail())
        text = "\n".join(run.log_lines() + run.audit_lines())
        for variables in (first,):
            self.assertNotIn(variables["OSS_ACCESS_KEY_SECRET"], text)
            self.assertNotIn(variables["OSS_SESSION_TOKEN"], text)

    def test_a_program_with_the_engines_own_credentials_changes_nothing(self) -> None:
        run = self.managed({"lingerSec": 2})
        for _ in range(3):
            self.assertEqual(run.call(["true"]).returncode, 0)
        self.assertEqual((ACCESS_KEY_ID in run.env().values(), ACCESS_KEY_SECRET in run.env().values()), (True, True))
        (engine,) = run.engines()
        threads = {(task / "comm").read_text().strip() for task in Path(f"/proc/{engine}/task").iterdir()}
        self.assertNotIn("ossc-keys", threads)
        self.assertEqual(paths.OSSC, Path(os.readlink(f"/proc/{engine}/exe")))
