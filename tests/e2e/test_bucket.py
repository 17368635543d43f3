"""A whole bucket as OSS_PATH: what is fetched when, whom a slow folder holds up, and how little the rest costs."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

from tests.e2e.base import EnginesEnd
from tests.harness import blocks, paths
from tests.harness.endpoint import Endpoint
from tests.harness.requestlog import Request
from tests.harness.run import Run

PYTHON = str(paths.VENV_PYTHON)
MIB = 1 << 20
SMALL = 300
LARGE = 3 * MIB
SETTINGS: dict[str, Any] = {"materializeBytes": 64 * 1024, "prefetch": {"vcpus": 1, "workers": 8}}
HANG_MS = 20_000


def numbers(requests: list[Request]) -> dict[str, int]:
    """Requests for objects, by folder."""
    found: dict[str, int] = {}
    for request in requests:
        if request.key and request.method == "GET":
            folder = request.key.rsplit("/", 1)[0] if "/" in request.key else ""
            found[folder] = found.get(folder, 0) + 1
    return found


class Bucket(EnginesEnd):
    """Each test has a bucket of its own."""

    def setUp(self) -> None:
        paths.require_products()
        self.scratch = Path(tempfile.mkdtemp(prefix="ossc-test-"))
        self.addCleanup(shutil.rmtree, self.scratch, ignore_errors=True)
        self.base = self.scratch / "root" / paths.BUCKET
        self.base.mkdir(parents=True)

    def put(self, key: str, data: bytes) -> None:
        blocks.put(self.scratch / "root", self.base / key, data)
        # A bucket that was there before.
        os.utime(self.base / key, (time.time() - 3600, time.time() - 3600))

    def models(self, count: int, small: int = 3) -> None:
        for n in range(count):
            self.put(f"m{n}/config.json", json.dumps({"model": n}).encode())
            self.put(f"m{n}/model-00001-of-00001.safetensors", blocks.content(n + 1, 1, LARGE))
            for extra in range(small):
                self.put(f"m{n}/extra{extra}.json", blocks.content(n + 1, 2, SMALL))

    def serve(self, faults: list[dict[str, Any]] | None = None) -> None:
        self.endpoint = self.serving(Endpoint(self.scratch / "root", self.scratch, faults))

    def managed(self, config: dict[str, Any] | None = None, below: Path | None = None) -> Run:
        run = Run(self.endpoint, "x", config={**SETTINGS, **(config or {})}, below=below)
        run.prefix = ""
        return self.ending(run)

    def said(self, run: Run, script: str, **options: Any) -> str:
        done = run.call(["sh", "-c", f"cd {run.model_dir} && {{ {script}; }}"], timeout=60, **options)
        self.assertEqual((done.returncode, done.stderr), (0, b""), run.log_tail())
        return done.stdout.decode()

    def until(self, is_so: Any, run: Run, secs: float = 10.0) -> None:
        end = time.monotonic() + secs
        while not is_so():
            self.assertLess(time.monotonic(), end, f"{numbers(self.endpoint.requests())}\n{run.log_tail()}")
            time.sleep(0.05)

    def test_small_objects_come_when_their_folder_is_used(self) -> None:
        self.models(6)
        self.put("top.txt", b"top")
        self.serve()
        run = self.managed()
        self.assertEqual(self.said(run, "cat top.txt; sleep 1"), "top")
        self.assertEqual(numbers(self.endpoint.requests()), {"": 1}, "what nobody uses was fetched")
        self.assertEqual(self.said(run, "cat m3/extra1.json | wc -c; stat -c %s m4/config.json"), f"{SMALL}\n12\n")
        self.until(lambda: numbers(self.endpoint.requests()) == {"": 1, "m3": 4, "m4": 4}, run)
        # A program that lists one folder finds its files in place; what is a file is one for others, too.
        self.said(run, "ls m5")
        self.assertEqual((run.model_dir / "m5" / "extra2.json").stat().st_size, SMALL)

    def test_a_file_is_copied_by_its_name_alone(self) -> None:
        """cp compares what it finds by the name with what it opens."""
        self.models(4)
        self.serve()
        run = self.managed()
        copies = run.dir / "copies"
        copies.mkdir()
        for number, copy in enumerate(("cp", "cp -a", "install -m 644")):
            self.said(run, f"{copy} m{number + 1}/extra1.json {copies}/{number}")
            self.assertEqual((copies / str(number)).stat().st_size, SMALL)

    def test_a_walk_fetches_nothing_and_a_copy_all(self) -> None:
        self.models(8)
        self.serve()
        run = self.managed()
        listed = self.said(run, "ls -lR; find . -type f | wc -l")
        self.assertEqual(listed.split()[-1], "40")
        self.assertLessEqual(len(numbers(self.endpoint.requests())), 2, "a walk used the folders that it passed")
        done = run.call(["tar", "-C", str(run.model_dir), "-cf", str(run.dir / "all.tar"), "m6", "m7"], timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, b""), "tar saw files change")
        self.assertEqual(subprocess.run(["tar", "-tf", str(run.dir / "all.tar")], capture_output=True, check=True).stdout.count(b"\n"), 12)

    def test_a_copy_of_folders_in_folders(self) -> None:
        """`cp` compares a file that it has opened with what it saw of its name before, and skips one that is another."""
        for n in range(12):
            for name in ("top.txt", "a/x.json", "a/y.json", "a/deep/z.json", "b/x.json"):
                self.put(f"m{n:02}/{name}", blocks.content(n + 1, len(name), SMALL))
        self.serve()
        for count in (1, 3):
            run = self.managed()
            places = [run.dir / f"copy{n}" for n in range(count)]
            copies = [run.start(["cp", "-r", str(run.model_dir), str(place)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for place in places]
            done = [(copy.communicate(timeout=60)[1], copy.returncode) for copy in copies]
            self.assertEqual(done, [(b"", 0)] * count, run.log_tail())
            for place in places:
                same = subprocess.run(["diff", "-r", str(self.base), str(place)], capture_output=True, check=False)
                self.assertEqual((same.returncode, same.stdout), (0, b""))

    def test_an_open_goes_before_what_others_use(self) -> None:
        for n in range(600):
            self.put(f"aaa/f{n:03}.json", blocks.content(1, 1, SMALL))
        self.models(1)
        self.serve([{"match": {"kind": "get"}, "do": {"delay_ms": 50}}])
        run = self.managed()
        self.said(run, "cat aaa/f000.json > /dev/null; cat m0/config.json")
        requests = sorted((r for r in self.endpoint.requests() if r.key), key=lambda r: r.time)
        before = [r.key for r in requests].index("m0/config.json")
        # Eight connections: those that were busy, and a few rounds of the time that a program takes to start.
        self.assertLess(before, 100, "a program waited behind what no program waits for")

    def test_an_announced_model_is_fetched_before_its_weights_are_opened(self) -> None:
        self.models(3)
        self.serve()
        run = self.managed()
        process = run.start([PYTHON, "-c", "import sys; open(sys.argv[1]).read(); sys.stdin.read()", str(run.model_dir / "m1" / "config.json")], stdin=subprocess.PIPE)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.until(lambda: any(r.key.startswith("m1/model-") for r in self.endpoint.requests()), run)
        self.assertEqual({r.key for r in self.endpoint.requests() if r.key.endswith(".safetensors")}, {"m1/model-00001-of-00001.safetensors"})
        # Another one is used: this one is given up.
        self.said(run, "cat m2/extra0.json > /dev/null")
        self.assertTrue(run.logged("fetched ahead no more", "m1"), run.log_tail())
        self.assertFalse(any(r.key.startswith("m2/model-") for r in self.endpoint.requests()))

    def test_looking_at_configurations_fetches_no_weights(self) -> None:
        self.models(12)
        self.serve()
        run = self.managed()
        code = (
            "import glob, json, sys, time\n"
            "for name in sorted(glob.glob(sys.argv[1] + '/*/config.json')): print(json.load(open(name))['model']); time.sleep(.05)\n"
            "time.sleep(4)\n"
        )
        done = run.call([PYTHON, "-c", code, str(run.model_dir)])
        self.assertEqual(done.stdout.split(), [str(n).encode() for n in sorted(range(12), key=str)], run.log_tail())
        gets = [r.key for r in self.endpoint.requests() if r.key and r.method == "GET"]
        self.assertEqual([key for key in gets if key.endswith(".safetensors")], [])
        self.assertEqual(len(gets), len(set(gets)), "fetched twice")

    def test_a_folder_that_hangs_or_loops_holds_up_no_other(self) -> None:
        self.models(4)
        self.serve([
            {"match": {"kind": "list", "prefix": "m0/"}, "do": {"delay_ms": HANG_MS}},
            {"match": {"kind": "list", "prefix": "m1/"}, "do": {"loop_list": True}},
        ])
        run = self.managed()
        hanging = run.start(["ls", str(run.model_dir / "m0")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(hanging.wait)
        self.addCleanup(hanging.kill)
        looping = run.call(["ls", str(run.model_dir / "m1")], timeout=30)
        self.assertNotEqual(looping.returncode, 0)
        self.assertTrue(run.logged("does not go on", "m1"), run.log_tail())
        self.assertLess(len([r for r in self.endpoint.requests() if "m1" in r.query]), 6)
        begin = time.monotonic()
        self.assertEqual(self.said(run, "cat m2/config.json; head -c 8 m3/*.safetensors | wc -c"), '{"model": 2}8\n')
        self.assertLess(time.monotonic() - begin, HANG_MS / 2000, "it waited for the folder that hangs")
        self.assertIsNone(hanging.poll(), "the folder that hangs was answered")

    def test_many_objects_with_few_descriptors(self) -> None:
        """More objects than the engine may have descriptors, all of them read."""
        for n in range(1500):
            self.put(f"many/o{n:04}.dat", blocks.content(1 + n % 200, 1, 70 * 1024))
        self.serve()
        run = self.managed({"expireTimeSec": 600})

        def few() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

        code = (
            "import os, sys\n"
            "names = sorted(os.listdir(sys.argv[1]))\n"
            "for name in names: data = open(os.path.join(sys.argv[1], name), 'rb').read(); assert len(data) == 70 * 1024 and data[7] == 1 + int(name[1:5]) % 200, name\n"
            "print(len(names))\n"
        )
        done = run.call([PYTHON, "-c", code, str(run.model_dir / "many")], preexec_fn=few, timeout=90)
        self.assertEqual((done.returncode, done.stdout), (0, b"1500\n"), done.stderr.decode() + run.log_tail())
        self.assertFalse([line for line in run.log_lines() if " ERROR " in line], run.log_tail())

    def test_a_second_start_lists_the_root_folder_alone(self) -> None:
        for n in range(60):
            self.put(f"d{n:02}/x.json", b"{}")
        self.put("config.json", b"{}")
        self.serve([{"match": {"kind": "list"}, "do": {"delay_ms": 100}}])
        run = self.managed({"startTimeoutSec": 5})
        self.said(run, "for d in d*; do cat $d/x.json > /dev/null; done")
        self.assertIsNotNone(run.wait_engines_gone(run.linger_secs + 3))
        # One of the leftovers is of an old version by now.
        self.put("d07/x.json", b'{"new": 1}')
        self.endpoint.forget()
        begin = time.monotonic()
        self.assertEqual(self.said(run, "cat config.json"), "{}")
        self.assertLess(time.monotonic() - begin, 3.0)
        self.assertEqual(self.said(run, "cat d07/x.json"), '{"new": 1}', "a leftover of an old version was read")

    def test_a_number_that_is_used_again_is_nobodys_object(self) -> None:
        """With attributes and on a tmpfs: a placeholder is removed, and files are made until one has its number."""
        for n in range(30):
            self.put(f"m/w{n:02}.bin", blocks.content(1 + n, 1, LARGE))
        self.serve()
        code = (
            "import os, sys\n"
            "os.chdir(sys.argv[1] + '/m'); bad = again = 0\n"
            "for name in sorted(os.listdir('.')):\n"
            "    number = os.stat(name).st_ino; os.remove(name)\n"
            "    for n in range(20):\n"
            "        path = f'own-{name}-{n}'\n"
            "        open(path, 'w').close(); again += os.stat(path).st_ino == number\n"
            "        bad += open(path, 'rb').read() != b'' or os.path.getsize(path) != 0\n"
            "        os.utime(path, (1, 1)); bad += open(path, 'rb').read() != b''\n"
            "        open(path, 'w').write(name); bad += open(path).read() != name\n"
            "print(bad, again > 0)\n"
        )
        places = [None, *(place for place in (Path("/dev/shm"),) if place.is_dir())]
        seen = []
        for place in places:
            run = self.managed(below=place)
            done = run.call([PYTHON, "-c", code, str(run.model_dir)])
            self.assertEqual(done.returncode, 0, done.stderr.decode() + run.log_tail())
            self.assertEqual(done.stdout.split()[0], b"0", f"{place}: {done.stdout!r}")
            seen.append(done.stdout.split()[1])
        self.assertIn(b"True", seen, "no number was used again: this test has shown nothing")


if __name__ == "__main__":
    unittest.main()
