"""Verbs for loads without a program: `warm`, `drop`, `plan` and `verify` do what they say, and say what they did."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

from tests.e2e import test_commands
from tests.e2e.base import PREFIX
from tests.harness import faults, folder, paths
from tests.harness.requestlog import body_gets
from tests.harness.run import Run

MIB = 1 << 20
SHARDS = {f"model-{n:05}-of-00003.safetensors": size for n, size in ((1, 40 * MIB + 3), (2, 5 * MIB), (3, 17 * MIB + 1))}
HELD_SECS = 60


class Loads(test_commands.Ossc):
    def large(self) -> dict[str, int]:
        sizes = {str(p.relative_to(self.plain)): p.stat().st_size for p in self.plain.rglob("*") if p.is_file()}
        return {name: size for name, size in sizes.items() if size > folder.MATERIALIZE_BYTES}

    def stays(self, run: Run) -> None:
        """A program that uses no file keeps the engine."""
        sleeper = run.start(["sleep", str(HELD_SECS)])
        self.addCleanup(sleeper.wait)
        self.addCleanup(sleeper.kill)
        self.assertEqual(self.ossc(run, "wait", "--timeout", "20").returncode, 0)

    def loaded(self, run: Run) -> dict[str, int]:
        """Large objects of which something is in memory, with how much."""
        status = json.loads(self.ossc(run, "status", "--json").stdout)
        return {o["name"]: o["ready_bytes"] for o in status["objects"] if o["bytes"] > folder.MATERIALIZE_BYTES and o["ready_bytes"]}

    def warming(self, run: Run, *words: str, **changes: str | None) -> subprocess.Popen[str]:
        env = run.env(None, **{"LD_PRELOAD": None, **changes})
        warm = subprocess.Popen([str(paths.OSSC), "warm", *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(warm.communicate)
        self.addCleanup(warm.kill)
        return warm


class Warm(Loads):
    def test_it_loads_everything_and_holds_it_until_a_signal(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            run = self.managed({"expireTimeSec": 1})
            warm = self.warming(run)
            assert warm.stdout is not None
            line = warm.stdout.readline()
            files = [p for p in self.plain.rglob("*") if p.is_file()]
            self.assertRegex(line, rf"^loaded and held: {len(files)} files of \S+ MiB in \d+\.\d s$", run.log_tail())
            self.assertEqual(self.loaded(run), self.large())
            time.sleep(2.5)
            self.assertEqual(self.loaded(run), self.large(), "what is held has expired")
            kept = json.loads(self.ossc(run, "drop", "--json").stdout)
            self.assertEqual((kept["bytes"], {one["name"]: one["bytes"] for one in kept["kept"]}), (0, self.large()))
            warm.send_signal(number)
            self.assertEqual((warm.wait(timeout=20), warm.communicate()), (0, ("", "")))

    def test_programs_read_what_it_holds(self) -> None:
        run = self.managed()
        warm = self.warming(run)
        assert warm.stdout is not None
        self.assertTrue(warm.stdout.readline())
        self.endpoint.forget()
        for name in self.large():
            done = run.call(["cat", str(run.model_dir / name)])
            self.assertEqual((done.returncode, done.stdout), (0, (self.plain / name).read_bytes()))
        self.assertEqual(body_gets(self.endpoint.requests(), PREFIX), [])

    def test_only_what_is_named_and_only_for_so_long(self) -> None:
        run = self.managed()
        self.endpoint.forget()
        done = self.ossc(run, "warm", "--for", "0", "--json", "nested", "a.bin")
        found = json.loads(done.stdout)
        self.assertEqual((done.returncode, found["loaded"], found["files"], found["failed"]), (0, True, 3, []), done.stderr)
        keys = {request.key.removeprefix(f"{PREFIX}/") for request in body_gets(self.endpoint.requests(), PREFIX)}
        self.assertEqual(keys & set(self.large()), {"nested/deep/c.bin", "a.bin"})
        began = time.monotonic()
        self.assertEqual(self.ossc(run, "warm", "--for", "1.5", "a.bin").returncode, 0)
        self.assertGreater(time.monotonic() - began, 1.5)

    def test_what_keeps_it_from_loading_has_a_status(self) -> None:
        run = self.managed()
        refused = self.ossc(run, "warm", OSS_PATH=None)
        self.assertEqual((refused.returncode, refused.stdout), (1, ""))
        self.assertIn("OSS_PATH not set", refused.stderr)
        missing = self.ossc(run, "warm", "--for", "0", "a.bin", "no-such.bin")
        self.assertEqual((missing.returncode, missing.stdout), (2, ""))
        self.assertIn(f"ossc warm: {run.model_dir}/no-such.bin: No such file", missing.stderr)
        outside = self.ossc(run, "warm", "--for", "0", "/etc/passwd")
        self.assertEqual(outside.returncode, 2)
        self.assertIn("/etc/passwd: it does not lie in MODEL_DIR", outside.stderr)
        above = self.ossc(run, "warm", "--for", "0", "../config.json")
        self.assertEqual((above.returncode, above.stdout), (2, ""))
        self.assertIn("../config.json: it does not lie in MODEL_DIR", above.stderr)
        little = self.managed({"memoryLimit": 30 * MIB})
        much = self.ossc(little, "warm", "--for", "0")
        self.assertEqual((much.returncode, much.stdout), (3, ""))
        self.assertIn("have no room", much.stderr)
        self.assertEqual(self.ossc(little, "warm", "--for", "0", "a.bin").returncode, 0)
        self.assertEqual(self.ossc(little, "warm", "--for", "soon").returncode, 2)


    def test_a_pause_of_the_process_ends_no_hold(self) -> None:
        """The key that stops a program, and `bg`: the time goes on."""
        run = self.managed()
        warm = self.warming(run, "--for", "600", "a.bin")
        assert warm.stdout is not None
        self.assertTrue(warm.stdout.readline())
        for _ in range(3):
            warm.send_signal(signal.SIGSTOP)
            os.waitpid(warm.pid, os.WUNTRACED)
            warm.send_signal(signal.SIGCONT)
            time.sleep(0.2)
            self.assertIsNone(warm.poll())
        warm.send_signal(signal.SIGTERM)
        self.assertEqual(warm.wait(timeout=20), 0)
        longest = self.warming(run, "--for", "1e19", "a.bin")
        assert longest.stdout is not None
        self.assertTrue(longest.stdout.readline())
        time.sleep(0.5)
        self.assertIsNone(longest.poll())

    def test_small_files_take_no_room_in_memory(self) -> None:
        many = self.plain.parent / "many"
        folder.fill(many, {**{f"{n}.json": folder.MATERIALIZE_BYTES for n in range(24)}, "w.bin": 3 * MIB}, 5)
        run = self.ending(Run(self.endpoint, "team/many", config={"materializeBytes": folder.MATERIALIZE_BYTES, "memoryLimit": 30 * MIB}))
        done = self.ossc(run, "warm", "--for", "0", "--json")
        self.assertEqual((done.returncode, json.loads(done.stdout or "{}").get("files")), (0, 25), done.stderr)


class WarmOfFaults(Loads):
    faults: ClassVar[list[Any]] = [faults.refused(403, "AccessDenied", f"{PREFIX}/b.bin"), faults.stalled(4096, 20_000, f"{PREFIX}/a.bin")]

    def test_what_oss_does_not_give(self) -> None:
        run = self.managed()
        done = self.ossc(run, "warm", "--for", "0", "--json", "b.bin", "page.bin")
        found = json.loads(done.stdout)
        self.assertEqual((done.returncode, found["loaded"], [one["file"] for one in found["failed"]]), (2, False, [f"{run.model_dir}/b.bin"]))
        self.assertIn("b.bin: EACCES: OSS does not give it to these credentials", done.stderr)

    def test_a_signal_before_it_is_loaded(self) -> None:
        run = self.managed()
        warm = self.warming(run, "a.bin")
        self.assertEqual(self.ossc(run, "wait", "--timeout", "20").returncode, 0)
        time.sleep(0.5)
        warm.send_signal(signal.SIGTERM)
        self.assertEqual(warm.wait(timeout=20), 128 + signal.SIGTERM)
        out, err = warm.communicate()
        self.assertEqual((out, err), ("", f"ossc warm: ended by signal {int(signal.SIGTERM)} before all was loaded\n"))


class Drop(Loads):
    def test_it_gives_back_what_no_program_uses(self) -> None:
        run = self.managed()
        self.stays(run)
        self.assertEqual(self.ossc(run, "warm", "--for", "0").returncode, 0)
        self.assertEqual(self.loaded(run), self.large())
        done = self.ossc(run, "drop", "--json", "b.bin", "nested")
        found = json.loads(done.stdout)
        named = {name: size for name, size in self.large().items() if name == "b.bin" or name.startswith("nested/")}
        self.assertEqual((done.returncode, found["objects"], found["bytes"], found["kept"]), (0, len(named), sum(named.values()), []))
        rest = {name: size for name, size in self.large().items() if name not in named}
        self.assertEqual(self.loaded(run), rest)
        self.assertRegex(self.ossc(run, "drop").stdout, rf"^given back: \S+ MiB of {len(rest)} objects\n$")
        report = json.loads(self.ossc(run, "status", "--json").stdout)["report"]
        self.assertEqual((report["memory"]["used_bytes"], report["memory"]["files"]), (0, 0))
        self.assertEqual(self.ossc(run, "drop").stdout, "given back: 0 B of 0 objects\n")
        # What was given back comes again.
        again = run.call(["cat", str(run.model_dir / "b.bin")])
        self.assertEqual(again.stdout, (self.plain / "b.bin").read_bytes())

    def test_readers_are_not_disturbed(self) -> None:
        """Programs read and map for as long as another drops; each byte is right."""
        run = self.managed()
        reads = (
            "import hashlib, mmap, os, sys, time\n"
            "path, want, until = sys.argv[1], sys.argv[2], time.monotonic() + 4\n"
            "while time.monotonic() < until:\n"
            "    with open(path, 'rb') as file:\n"
            "        seen = hashlib.sha256(file.read() if os.getpid() % 2 else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)).hexdigest()\n"
            "    assert seen == want, seen\n"
            "print('right')\n"
        )
        readers = []
        for name in ("b.bin", "a.bin", "b.bin", "nested/deep/c.bin"):
            want = hashlib.sha256((self.plain / name).read_bytes()).hexdigest()
            readers.append(run.start([sys.executable, "-c", reads, str(run.model_dir / name), want], stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        drops = 0
        while any(reader.poll() is None for reader in readers):
            drops += self.ossc(run, "drop").returncode == 0
        for reader in readers:
            out, err = reader.communicate(timeout=30)
            self.assertEqual((reader.returncode, out), (0, b"right\n"), err)
        self.assertGreater(drops, 3)

    def test_a_name_is_the_same_however_it_is_written(self) -> None:
        run = self.managed()
        self.stays(run)
        loaded = {name: size for name, size in self.large().items() if name.startswith("nested/")}
        for name in ("./nested", "nested//deep/", "nested/deep/../deep/c.bin", f"{run.model_dir}/./nested"):
            self.assertEqual(self.ossc(run, "warm", "--for", "0", name).returncode, 0, name)
            self.assertEqual(self.loaded(run), loaded)
            self.assertEqual(self.ossc(run, "verify", name).returncode, 0, name)
            self.assertEqual(self.ossc(run, "drop", name).returncode, 0, name)
            self.assertEqual(self.loaded(run), {}, name)
        self.assertEqual(self.ossc(run, "warm", "--for", "0", "nested").returncode, 0)
        for name in ("/", "..", "/etc", f"{run.model_dir}/.."):
            done = self.ossc(run, "drop", name)
            self.assertEqual((done.returncode, done.stdout), (2, ""), name)
            self.assertIn(f"ossc drop: {name}: it does not lie in MODEL_DIR", done.stderr)
            self.assertEqual(self.ossc(run, "verify", name).returncode, 1)
        self.assertEqual(self.loaded(run), loaded, "`drop /` is not all of MODEL_DIR")
        self.assertEqual(self.ossc(run, "drop", ".").returncode, 0)
        self.assertEqual(self.loaded(run), {})

    def test_what_there_is_not(self) -> None:
        run = self.managed()
        none = self.ossc(run, "drop")
        self.assertEqual((none.returncode, none.stdout), (1, ""))
        self.assertIn("no engine runs for this folder", none.stderr)
        self.stays(run)
        unknown = self.ossc(run, "drop", "no-such.bin")
        self.assertEqual(unknown.returncode, 2)
        self.assertIn("ossc drop: no-such.bin: ", unknown.stderr)


class Compared(Loads):
    def results(self, done: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for one in json.loads(done.stdout)["objects"]:
            found.setdefault(one["result"], []).append(one["name"])
        return found

    def names(self) -> list[str]:
        return sorted(str(p.relative_to(self.plain)) for p in self.plain.rglob("*") if p.is_file())


class Verify(Compared):
    def test_memory_and_files_of_a_load(self) -> None:
        run = self.managed()
        before = self.ossc(run, "verify", "--json")
        self.assertEqual((before.returncode, self.results(before)), (3, {"not loaded": self.names()}), before.stderr)
        self.holder(run)
        self.endpoint.forget()
        done = self.ossc(run, "verify", "--json")
        self.assertEqual((done.returncode, self.results(done)), (0, {"ok": self.names()}), done.stderr)
        self.assertEqual(body_gets(self.endpoint.requests(), PREFIX), [], "it asked for bytes")
        lines = self.ossc(run, "verify", "b.bin", "nested").stdout.splitlines()
        self.assertEqual([line.split()[-1] for line in lines[:-1]], ["b.bin", "nested/deep/c.bin", "nested/small.json"])
        self.assertEqual(lines[-1], "3 objects: 3 ok")

    def test_a_byte_that_is_wrong_in_memory(self) -> None:
        run = self.managed()
        self.holder(run)
        (engine,) = run.engines()
        size = (self.plain / "b.bin").stat().st_size
        flipped = 0
        for descriptor in Path(f"/proc/{engine}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.stat(descriptor).st_size == size:
                    with open(descriptor, "r+b", buffering=0) as memory:
                        memory.seek(12_345_678)
                        byte = memory.read(1)[0]
                        memory.seek(12_345_678)
                        memory.write(bytes([byte ^ 1]))
                    flipped += 1
        self.assertEqual(flipped, 1)
        done = self.ossc(run, "verify")
        self.assertEqual(done.returncode, 2)
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("differs")]
        self.assertRegex(line, r"b\.bin: the bytes here have CRC-64 \d+, and OSS reports \d+$")

    def test_a_folder_that_another_tool_has_filled(self) -> None:
        scratch = Path(tempfile.mkdtemp(prefix="ossc-test-"))
        self.addCleanup(shutil.rmtree, scratch)
        copy = scratch / "copy"
        shutil.copytree(self.plain, copy)
        run = self.managed()
        done = self.ossc(run, "verify", "--json", "--model-dir", str(copy))
        self.assertEqual((done.returncode, self.results(done)), (0, {"ok": self.names()}), done.stderr)
        data = bytearray((copy / "lines.txt").read_bytes())
        data[100] ^= 1
        (copy / "lines.txt").write_bytes(data)
        (copy / "a.bin").write_bytes((self.plain / "a.bin").read_bytes()[:-1])
        (copy / "page.bin").unlink()
        done = self.ossc(run, "verify", "--json", "--model-dir", str(copy))
        found = self.results(done)
        self.assertEqual((done.returncode, found["differs"], found["not loaded"]), (2, ["a.bin", "lines.txt"], ["page.bin"]))
        # Cut off by a full disk, for example: no engine has made it.
        (copy / "b.bin").write_bytes(b"")
        empty = self.ossc(run, "verify", "--model-dir", str(copy), "b.bin")
        self.assertEqual(empty.returncode, 2)
        self.assertIn("b.bin: the file has 0 bytes, and the object", empty.stdout)
        absent = self.ossc(run, "verify", "--model-dir", str(copy), "no-such.bin")
        self.assertEqual(absent.returncode, 2)
        self.assertIn("no-such.bin: OSS has no such object", absent.stdout)
        self.assertEqual(run.engines(), [])

    def test_the_folder_of_another_model_is_compared_with_that(self) -> None:
        other = self.plain.parent / "other"
        folder.fill(other, {"b.bin": 2 * MIB, "only-here.bin": 2 * MIB}, 3)
        run = self.managed()
        self.holder(run)
        location = f"oss://{paths.BUCKET}/team/other/"
        done = self.ossc(run, "verify", OSS_PATH=location)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn(f"a running engine which serves oss://{paths.BUCKET}/{PREFIX}/", done.stderr)
        self.assertIn(f"and not {location}", done.stderr)
        self.assertEqual(self.ossc(run, "verify").returncode, 0)
        self.assertEqual(self.ossc(run, "warm", "--for", "0", OSS_PATH=location).returncode, 1)
        self.assertIn(f"oss://{paths.BUCKET}/{PREFIX}/ of {self.endpoint.url}", self.ossc(run, "status").stdout.splitlines()[0])

    def test_who_cannot_be_asked(self) -> None:
        run = self.managed()
        done = self.ossc(run, "verify", OSS_ACCESS_KEY_SECRET="wrong")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("SignatureDoesNotMatch", done.stderr)


class VerifyWithoutCrc(Compared):
    faults: ClassVar[list[Any]] = [{"match": {"key": f"{PREFIX}/a.bin"}, "do": {"drop_crc": True}}]

    def test_an_object_without_one_is_named(self) -> None:
        run = self.managed()
        self.holder(run)
        done = self.ossc(run, "verify", "--json")
        self.assertEqual((done.returncode, self.results(done)["no CRC"]), (3, ["a.bin"]))


class Plan(Loads):
    """What is planned is what an engine then asks for."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        model = cls.plain.parent / "model"
        folder.fill(model, {**SHARDS, "pytorch_model.bin": 9 * MIB, "sub/more.bin": 3 * MIB, "tokenizer.json": 3000}, 11)
        (model / "config.json").write_text("{}")
        (model / "empty.txt").write_text("")
        cls.model = model

    model: ClassVar[Path]

    def model_run(self, **config: Any) -> Run:
        return self.ending(Run(self.endpoint, "team/model", config={"materializeBytes": folder.MATERIALIZE_BYTES, **config}))

    def plan(self, run: Run, *words: str, **changes: str | None) -> dict[str, Any]:
        done = self.ossc(run, "plan", "--json", *words, **changes)
        self.assertEqual((done.returncode, done.stderr, run.engines()), (0, "", []))
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def asked(self, run: Run) -> list[tuple[str, int, int]]:
        """Of an engine that no program reads from, in the order of its requests."""
        self.endpoint.forget()
        self.stays(run)
        self.assertEqual(self.ossc(run, "wait", "--ready", "--timeout", "20").returncode, 0)
        gets = sorted(body_gets(self.endpoint.requests(), "team/model/"), key=lambda request: request.time)
        return [(request.key.removeprefix("team/model/"), request.start or 0, request.end or 0) for request in gets]

    def test_an_engine_makes_these_requests_in_this_order(self) -> None:
        for limit in (None, 60 * MIB):
            with self.subTest(limit):
                config: dict[str, Any] = {"prefetch": {"vcpus": 1, "workers": 1}}
                if limit is not None:
                    config["memoryLimit"] = limit
                run = self.model_run(**config)
                found = self.plan(run)
                requests = [(one["name"], one["start"], one["end"]) for one in found["requests"]]
                asked = self.asked(run)
                # Small objects come first, in no order of their own.
                self.assertEqual(sorted(requests[:2]), sorted(asked[:2]))
                self.assertEqual(requests[2:], asked[2:])
                totals = found["totals"]
                self.assertEqual((totals["requests"], totals["bytes"]), (len(requests), sum(end - start for _, start, end in requests)))
                self.assertLessEqual(totals["memory_bytes"], totals["budget_bytes"])
                report = json.loads(self.ossc(run, "status", "--json").stdout)["report"]
                self.assertEqual(totals["memory_bytes"], report["memory"]["used_bytes"])
                left = {one["name"] for one in found["objects"] if one["ahead_bytes"] < one["bytes"]}
                self.assertEqual(left == {"pytorch_model.bin"}, limit is None, left)
                self.assertEqual(totals["left_bytes"], sum(p.stat().st_size for p in self.model.iterdir() if p.is_file()) - totals["bytes"])

    def test_a_table_and_a_rate(self) -> None:
        run = self.model_run()
        done = self.ossc(run, "plan", "--rate", "100MB/s", MODEL_DIR=None)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        weights = sum(SHARDS.values())
        self.assertRegex(done.stdout, r"(?m)^ *40\.0 MiB +\d+  into memory +model-00001-of-00003\.safetensors$")
        self.assertRegex(done.stdout, r"(?m)^ *9\.0 MiB +0  when a program reads it +pytorch_model\.bin$")
        self.assertRegex(done.stdout, r"(?m)^ *- +-  when a program uses it +sub/$")
        self.assertIn(f"at 0.100 GB/s: {(weights + 3002) / 1e8:.1f} s\n", done.stdout)
        for rate in ("fast", "0", "-1GB/s"):
            self.assertEqual(self.ossc(run, "plan", f"--rate={rate}").returncode, 2)

    def test_a_whole_bucket_and_what_is_not_there(self) -> None:
        run = self.model_run()
        bucket = f"oss://{paths.BUCKET}/"
        found = self.plan(run, "--oss-path", bucket)
        self.assertEqual((found["folder"], found["totals"]["requests"] > 0), ("team/model", True))
        self.assertIn("is no model's folder", self.ossc(run, "plan", "--oss-path", bucket).stdout)
        named = self.plan(run, "--oss-path", bucket, "./team//model/")
        self.assertEqual(named["requests"], found["requests"])
        none = self.ossc(run, "plan", "no/such")
        self.assertEqual((none.returncode, none.stdout), (2, ""))
        wrong = self.ossc(run, "plan", OSS_ACCESS_KEY_SECRET="wrong")
        self.assertEqual(wrong.returncode, 1)
        self.assertIn("SignatureDoesNotMatch", wrong.stderr)
