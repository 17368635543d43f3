"""The memory budget in short: small limits, many readers, maps that do not fit, and the engine's time while readers wait."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

from tests.checks import roles_memory as budget
from tests.e2e.base import slow
from tests.harness import paths
from tests.harness.endpoint import Endpoint
from tests.harness.run import Run

MIB = 1024 * 1024
LIMIT = 64 * MIB
# Larger than the limit; twice a bit more than half of what is left of it for the cache; a small one.
SIZES = [120 * MIB + 17, 30 * MIB + 4097, 29 * MIB + 1, 8 * MIB]
WIDE = {"vcpus": 16, "workers": 16}
SECS_MAX = 40.0


class MemoryBudget(unittest.TestCase):
    """A limit of 64 MiB, and a model three times larger."""

    endpoint: Endpoint
    model: budget.Model

    @classmethod
    def setUpClass(cls) -> None:
        paths.require_products()
        scratch = Path(tempfile.mkdtemp(prefix="ossc-test-"))
        cls.addClassCleanup(shutil.rmtree, scratch, ignore_errors=True)
        cls.model = budget.Model(scratch / "root", SIZES)
        cls.endpoint = Endpoint(scratch / "root", scratch)
        cls.endpoint.start()
        cls.addClassCleanup(cls.endpoint.stop)

    def managed(self, **config: Any) -> Run:
        settings = {"materializeBytes": 0, "memoryLimit": LIMIT, "prefetch": WIDE, **config}
        run = Run(self.endpoint, budget.PREFIX, config=settings)
        self.addCleanup(run.close)
        return run

    def read(self, run: Run, way: str, names: list[str], count: int = 0, **changes: str) -> list[str]:
        """Lines of a reader that must find nothing wrong."""
        process = budget.reader(run, None, way, count, self.model.seed(names[0]), names, run.env(**changes))
        lines, problems = budget.outcome(process, way, SECS_MAX)
        self.assertEqual(problems, [], run.log_tail())
        return lines

    def hold(self, run: Run, names: list[str]) -> Any:
        """A process that has mapped these files and keeps them."""
        process = budget.reader(run, None, "hold", 0, self.model.seed(names[0]), names)
        assert process.stdout is not None
        found = [process.stdout.readline().split()[:1] for _ in range(len(names) + 1)]
        self.assertEqual(found, [[b"ok"]] * len(names) + [[b"held"]], run.log_tail())
        self.addCleanup(process.communicate)
        return process

    def refused(self, run: Run, name: str) -> float:
        """Milliseconds that the ENOMEM for a map took."""
        process = budget.reader(run, None, "map", 0, self.model.seed(name), [name])
        lines, _ = budget.outcome(process, "map", SECS_MAX)
        self.assertEqual([line.split()[:4] for line in lines], [["err", "map", name, "ENOMEM"]], run.log_tail())
        return float(lines[0].split()[4])

    def test_a_model_larger_than_the_limit_is_read_to_its_end(self) -> None:
        run = self.managed()
        with budget.MemoryCgroup(None) as group:
            peak = budget.Peak()
            readers = {"seq": budget.reader(run, group, "seq", 0, budget.SEED, self.model.names)}
            self.assertEqual(budget.wait_all(readers, group, peak), [], run.log_tail())
            self.assertLessEqual(peak.shared, LIMIT)
            self.assertLessEqual(group.peak(), LIMIT)

    @slow
    def test_many_readers_of_a_small_limit_all_come_to_their_end(self) -> None:
        for pages in ("tmpfs", "memfd"):
            with self.subTest(pages=pages):
                run = self.managed()
                before = len(self.endpoint.requests())
                lines = self.read(run, "parallel", self.model.names, 30, OSSC_PAGES=pages)
                self.assertEqual([line.split()[:3] for line in lines], [["ok", "random", "all"]] * 8)
                # Each of 8 * 30 calls may need two parts of 8 MiB, and each part may be read ahead of once more.
                self.assertLess(len(self.endpoint.requests()) - before, 4 * 8 * 30)

    def test_a_vector_larger_than_the_limit(self) -> None:
        run = self.managed()
        name = self.model.names[0]
        script = (
            "import hashlib, os\n"
            f"fd = os.open({name!r}, os.O_RDONLY)\n"
            "rooms = [bytearray(1 << 20) for _ in range(121)]\n"
            "got = os.preadv(fd, rooms, 0)\n"
            "print(got, hashlib.sha256(b''.join(rooms)[:got]).hexdigest())\n"
        )
        plain = self.endpoint.root / paths.BUCKET / budget.PREFIX
        argv = [str(paths.VENV_PYTHON), "-c", script]
        expected = run.call(argv, {"PATH": os.environ["PATH"]}, cwd=plain).stdout
        done = run.call(argv, cwd=run.model_dir, timeout=SECS_MAX)
        self.assertEqual((done.stdout, done.stderr), (expected, b""), run.log_tail())
        self.assertIn(str(SIZES[0]).encode(), expected)

    def test_a_map_that_can_never_fit_is_refused_at_once(self) -> None:
        run = self.managed()
        name = self.model.names[0]
        self.assertLess(self.refused(run, name), 1000)
        lines = run.logged("larger than the memory budget")
        self.assertEqual([line.rsplit("object=", 1)[1].split()[0] for line in lines], [f'"{name}"'])

    def test_a_map_that_others_leave_no_room_for(self) -> None:
        run = self.managed()
        first, second, small = self.model.names[1:]
        holder = self.hold(run, [first])
        self.assertLess(self.refused(run, second), 5000)
        self.assertTrue(run.logged("no memory for a reader"), run.log_tail())
        # What is read needs no room of its own for long, and there is some.
        self.read(run, "seq", [small])
        holder.communicate(b"\n")
        self.read(run, "map", [second])

    def test_one_after_the_other_the_unmapped_one_goes(self) -> None:
        run = self.managed()
        self.hold(run, [self.model.names[3]])
        for name in self.model.names[1:3] * 2:
            with self.subTest(name=name):
                self.read(run, "map", [name])
        self.assertEqual(run.engine_starts(), 1)

    def test_a_waiting_engine_sleeps(self) -> None:
        run = self.managed(lingerSec=2)
        # Room for a part or two is left, so the map waits for what the first one gives back.
        holder = self.hold(run, [self.model.names[1]])
        reading = budget.reader(run, None, "parallel", 100_000, self.model.seed(self.model.names[2]), [self.model.names[2]])
        time.sleep(1.0)
        for process in (holder, reading):
            os.kill(process.pid, 19)
        (engine,) = run.engines()
        time.sleep(0.5)
        before = budget.cpu_secs(engine)
        time.sleep(2.0)
        used = budget.cpu_secs(engine) - before
        for process in (reading, holder):
            process.kill()
        reading.communicate()
        self.assertLess(used / 2.0, budget.IDLE_CPU_MAX, run.log_tail())

    def test_two_engines_share_the_memory_of_one_cgroup(self) -> None:
        """Each alone would take three quarters of it: the kernel would kill one of them."""
        with budget.MemoryCgroup(288 * MIB) as group:
            runs = [self.managed(memoryLimit=0) for _ in range(2)]
            peak = budget.Peak()
            readers = {f"engine {n}": budget.reader(run, group, "seq", 0, budget.SEED, self.model.names) for n, run in enumerate(runs)}
            problems = budget.wait_all(readers, group, peak)
            self.assertEqual((problems, group.kills()), ([], 0), "".join(run.log_tail(40) for run in runs))
            self.assertEqual([run.engine_starts() for run in runs], [1, 1])
            # Together they had more than one of them has of a half.
            self.assertGreater(peak.shared, 100 * MIB)
            for run in runs:
                run.close()

    def test_an_engine_stays_for_a_process_that_has_not_read_yet(self) -> None:
        run = self.managed(lingerSec=2)
        # As `ray start` does: the primary leaves a process behind, which touches nothing for a while.
        done = run.call(["sh", "-c", "sleep 6 > /dev/null 2>&1 & exit 0"], cwd=run.model_dir)
        self.assertEqual(done.returncode, 0, done.stderr)
        (engine,) = run.engines()
        time.sleep(4.0)
        self.assertEqual(run.engines(), [engine], "it left although a process of its folder lives")
        self.assertIsNotNone(run.wait_engines_gone(2.0 + 2.0 + 2.0), "it stayed after the process had ended")

    def test_lingering_begins_with_the_end_of_the_last_client(self) -> None:
        run = self.managed(lingerSec=3)
        holder = self.hold(run, [self.model.names[3]])
        # Longer than lingerSec without a word to the engine.
        time.sleep(4.0)
        holder.communicate(b"\n")
        ended = time.monotonic()
        (engine,) = run.engines()
        time.sleep(1.5)
        self.assertEqual(run.engines(), [engine], "it left before lingerSec was over")
        self.assertIsNotNone(run.wait_engines_gone(3.5), "it stayed")
        self.assertGreater(time.monotonic() - ended, 2.5)
