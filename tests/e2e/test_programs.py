"""Programs and libraries are real files whatever their size, so that the kernel and the loader can open them."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import unittest
from pathlib import Path

from tests.e2e.base import PREFIX, EndToEnd, can_unshare
from tests.harness import faults, folder, paths
from tests.harness.run import Run, plain_env

MIB = 1 << 20
# Above materializeBytes here, and above what is held in memory on its way to the disk.
LARGE, LONG = 2, 70
SOURCE = """
static const char pad[%d << 20] = {1};
int answer(void) { return 41 + pad[0]; }
int main(void) { return answer() != 42; }
"""
SCRIPT = "#!/bin/sh\necho script $1\nexit\n"
LOAD = "import ctypes, os, sys; print(ctypes.CDLL(os.path.abspath(sys.argv[1])).answer())"


class Programs(EndToEnd):
    made: Path

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.made = cls.plain / "programs"
        (cls.made / "lib").mkdir(parents=True)
        for name, size, options in (
            ("lib/model.so", LARGE, ("-shared", "-fPIC")), ("lib/libfirst.so.1", LARGE, ("-shared", "-fPIC")),
            ("server", LARGE, ()), ("run.llamafile", LONG, ()), ("program.bin", LARGE, ()),
        ):
            source = cls.scratch / "program.c"
            source.write_text(SOURCE % size)
            subprocess.run(["gcc", *options, "-o", str(cls.made / name), str(source)], check=True, env=plain_env())
        (cls.made / "tool").write_bytes(SCRIPT.encode() + b"x" * (LARGE * MIB))
        (cls.made / "data.so").write_bytes(b"data" * (LARGE * MIB // 4))
        (cls.made / "noext").write_bytes(b"data" * (LARGE * MIB // 4))

    def setUp(self) -> None:
        self.endpoint.forget()

    def start(self, **config: object) -> Run:
        return self.managed({"lingerSec": 3, **config})

    def out(self, run: Run, script: str, status: int = 0, **changes: str | None) -> str:
        done = run.call(["bash", "-c", script], run.env(**changes), cwd=run.model_dir)
        self.assertEqual(done.returncode, status, done.stderr.decode() + run.log_tail())
        return done.stdout.decode()

    def test_libraries_are_loaded(self) -> None:
        run = self.start()
        load = f"{paths.VENV_PYTHON} -c {shlex.quote(LOAD)}"
        self.assertEqual(self.out(run, f"{load} programs/lib/model.so; {load} programs/lib/libfirst.so.1"), "42\n42\n")
        # The loader opens these before any code of ours runs.
        preload = 'LD_PRELOAD="$LD_PRELOAD:$PWD/programs/lib/model.so" /bin/true 2>&1'
        self.assertEqual(self.out(run, preload), "")

    def test_programs_and_scripts_run(self) -> None:
        run = self.start()
        script = "cd programs && chmod +x server tool run.llamafile && ./server && ./tool one && exec ./run.llamafile"
        self.assertEqual(self.out(run, script), "script one\n")

    def test_they_are_real_files_and_data_is_not(self) -> None:
        run = self.start()
        self.out(run, "sha256sum programs/* programs/lib/* > /dev/null 2>&1; true")
        sizes = {p.name: p.stat().st_size for p in (run.model_dir / "programs").rglob("*") if p.is_file()}
        for path in (p for p in self.made.rglob("*") if p.is_file()):
            is_data = path.name in ("data.so", "noext", "program.bin")
            self.assertEqual(sizes[path.name], 0 if is_data else path.stat().st_size, path.name)
        for name in ("run.llamafile", "tool", "lib/model.so"):
            digests = [hashlib.sha256((place / name).read_bytes()).digest() for place in (self.made, run.model_dir / "programs")]
            self.assertEqual(digests[0], digests[1], name)
        self.assertEqual([p for p in os.listdir(run.model_dir / "programs") if p.startswith(".ossc")], [])

    def test_names_of_data_are_not_asked_for_and_others_once(self) -> None:
        run = self.start()
        self.out(run, "sha256sum programs/* programs/lib/* *.bin > /dev/null 2>&1; sleep 0.2; ls programs; cat programs/noext | wc -c")
        asked = sorted(r.key.rsplit("/", 1)[-1] for r in self.endpoint.requests() if (r.start, r.end) == (0, 4))
        self.assertEqual(asked, ["data.so", "libfirst.so.1", "model.so", "noext", "run.llamafile", "server", "tool"])

    def test_a_flipped_byte_of_a_long_one_is_fetched_again(self) -> None:
        endpoint_rules = [faults.flipped_byte(f"{PREFIX}/programs/run.llamafile", 100, times=1)]
        scratch = self.scratch / "flipped"
        endpoint = type(self.endpoint)(self.scratch / "root", scratch, endpoint_rules)
        with endpoint, Run(endpoint, PREFIX, config={"materializeBytes": folder.MATERIALIZE_BYTES}) as run:
            done = run.call(["sha256sum", "programs/run.llamafile"], cwd=run.model_dir)
            digest = hashlib.sha256((self.made / "run.llamafile").read_bytes()).hexdigest()
            self.assertEqual(done.stdout.decode().split()[:1], [digest], done.stderr.decode() + run.log_tail())

    @unittest.skipUnless(can_unshare(), "needs root")
    def test_without_room_on_the_disk_it_is_said_and_reads_are_right(self) -> None:
        run = self.start()
        env = {k: v for k, v in run.env().items() if k.startswith(("OSS", "ENABLE", "MODEL", "LD_PRE"))}
        words = " ".join(f"{name}={shlex.quote(value)}" for name, value in env.items())
        script = f"mount -t tmpfs -o size=300m none {run.model_dir}; env {words} sha256sum {run.model_dir}/programs/run.llamafile"
        done = run.call(["unshare", "-m", "bash", "-c", script], run.env(None, LD_PRELOAD=None))
        digest = hashlib.sha256((self.made / "run.llamafile").read_bytes()).hexdigest()
        self.assertEqual(done.stdout.decode().split()[:1], [digest], done.stderr.decode() + run.log_tail())
        self.assertTrue(run.logged("no room on MODEL_DIR's disk", "run.llamafile"))

    def test_a_new_version_takes_the_place(self) -> None:
        run = self.managed({"lingerSec": 1})
        place = Path(self.made / "changing")
        place.write_bytes(b"#!/bin/sh\necho one\nexit\n" + b"x" * (LARGE * MIB))
        self.addCleanup(place.unlink)
        self.assertEqual(self.out(run, "chmod +x programs/changing; programs/changing"), "one\n")
        self.assertIsNotNone(run.wait_engines_gone(5))
        place.with_name("new").write_bytes(b"#!/bin/sh\necho two\nexit\n" + b"y" * (LARGE * MIB))
        place.with_name("new").rename(place)
        self.assertEqual(self.out(run, "chmod +x programs/changing; programs/changing"), "two\n")


if __name__ == "__main__":
    unittest.main()
