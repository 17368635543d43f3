"""One answer of many says that the object is gone, is another, or may not be had: it is a stray, and nothing fails."""

from __future__ import annotations

import collections
import hashlib
import json
import os
import subprocess
import time
from typing import Any

from tests.e2e.base import PREFIX, slow
from tests.e2e.faulty import KEY, Faulty
from tests.harness import faults, paths
from tests.harness.run import Run
from tests.harness.space import Space

MIB = 1 << 20
OTHER_ETAG = '"00000000000000000000000000000000"'
# One effect each, at a byte of another part.
STRAYS: list[faults.Rule] = [
    {"status": 400, "code": "InvalidArgument"},
    {"status": 404, "code": "NoSuchKey"},
    {"status": 412, "code": "PreconditionFailed"},
    {"status": 416, "code": "InvalidRange"},
    {"etag": OTHER_ETAG},
    {"status": 302, "code": "Found"},
]
REFUSALS: list[faults.Rule] = [{"status": 403, "code": "AccessDenied"}, {"status": 403, "code": "SignatureDoesNotMatch"}]


def stray(effect: faults.Rule, offset: int = 0, key: str = KEY, times: int = 1) -> faults.Rule:
    return {"match": {"kind": "get", "key": key, "covers": offset}, "times": times, "do": effect}


class Stray(Faulty):
    """Endpoints that answer once or twice as no other answer does."""

    def test_one_stray_answer_of_each_kind_fails_nothing(self) -> None:
        run = self.start([stray(effect, number * 3 * MIB) for number, effect in enumerate(STRAYS)], partBytes=2 * MIB)
        self.assert_equal(run, ["b.bin"])
        self.assert_logged(run, "asked once more", "PreconditionFailed")
        self.assertFalse(run.logged("readers get errno"), run.log_tail(40))

    def test_one_refusal_of_each_kind_fails_nothing(self) -> None:
        refusals = [stray(effect, number * 3 * MIB) for number, effect in enumerate(REFUSALS)]
        run = self.start([*refusals, stray(REFUSALS[0], key=f"{PREFIX}/small.bin")], partBytes=2 * MIB)
        self.assert_equal(run, ["b.bin", "small.bin"])
        self.assert_logged(run, "asked once more", "SignatureDoesNotMatch")
        self.assertFalse(run.logged("readers get errno"), run.log_tail(40))

    def test_a_refusal_that_comes_twice_is_one(self) -> None:
        run = self.start([faults.refused(403, "AccessDenied", KEY)], prefetch={"vcpus": 1, "workers": 1})
        self.assertEqual(self.read(run, "map", ["b.bin"]), {"b.bin": "EACCES"}, run.log_tail(40))
        # Of each part at most, and of the first that is refused again.
        asked = collections.Counter(request.start for request in run.endpoint.requests() if request.key == KEY)
        self.assertEqual(max(asked.values()), 2, run.log_tail(40))
        # Doctor may read another part of it, or another object: it says what the engine knows.
        said = run.call([str(paths.OSSC), "doctor"], run.env(None)).stdout.decode()
        self.assertRegex(said, r"(?m)^note +engine +failed: b\.bin: .*AccessDenied.*; its next use has it tried again$")

    def test_one_stray_answer_for_a_small_object(self) -> None:
        self.assert_equal(self.start([stray(STRAYS[1], key=f"{PREFIX}/small.bin"), stray(STRAYS[4], key=f"{PREFIX}/nested/small.json")]))

    def test_one_stray_answer_for_a_listing(self) -> None:
        lists = [{"match": {"kind": "list", "prefix": f"{PREFIX}/{folder}"}, "times": 1, "do": STRAYS[at]} for at, folder in enumerate(["", "nested/"])]
        self.assert_equal(self.start(lists))

    def test_the_listing_is_looked_at_before_an_object_is_given_up(self) -> None:
        run = self.start([stray(STRAYS[1], times=2)])
        self.assertEqual(self.read(run, "map", ["b.bin"]), {"b.bin": self.original("b.bin")}, run.log_tail(40))
        self.assert_logged(run, "the folder is listed before", "404")

    def test_what_was_given_up_is_tried_again_when_the_listing_shows_it(self) -> None:
        run = self.start([stray(STRAYS[1], times=12)], listAgainSec=1, reviveSec=3600)
        keeper = run.start(["sleep", "60"])
        self.addCleanup(keeper.wait)
        self.addCleanup(keeper.kill)
        self.assertEqual(self.read(run, "map", ["b.bin"]), {"b.bin": "ENOENT"}, run.log_tail(40))
        end = time.monotonic() + 30
        while self.read(run, "map", ["b.bin"]) != {"b.bin": self.original("b.bin")}:
            self.assertLess(time.monotonic(), end, run.log_tail(40))
            time.sleep(1.2)
        self.assertEqual(run.engine_starts(), 1, run.log_tail())

    def test_objects_that_fail_for_good_do_not_revive_each_other(self) -> None:
        """The listing that one of them is doubted behind is no news for the other."""
        names = ["gone.json", "lost.json"]
        for name in names:
            (self.plain / name).write_text("{}")
            self.addCleanup((self.plain / name).unlink)
        late = {"match": {"kind": "list"}, "do": {"delay_ms": 500}}
        run = self.start([*(faults.rule(STRAYS[1], f"{PREFIX}/{name}") for name in names), late])
        keeper = run.start(["sh", "-c", "cat gone.json & sleep 0.6; cat lost.json; exec sleep 60"], cwd=run.model_dir, stderr=subprocess.DEVNULL)
        self.addCleanup(keeper.wait)
        self.addCleanup(keeper.kill)
        time.sleep(15)
        asked = [r for r in run.endpoint.requests() if r.key.endswith(tuple(names))]
        self.assertGreater(len(asked), 4, run.log_tail(40))
        self.assertLess(len(asked), 40, f"{len(asked)} {run.log_tail(40)}")


class Mismatch(Faulty):
    """Answers whose bytes do not have the CRC-64 of their object."""

    # A large object, and a small one.
    NAMES = ("b.bin", "small.bin")

    def flipping(self, times: int, names: tuple[str, ...] = NAMES, **config: Any) -> Run:
        run = self.start([faults.flipped_at(f"{PREFIX}/{name}", 5, times) for name in names], reviveSec=3600, **config)
        keeper = run.start(["sleep", "60"])
        self.addCleanup(keeper.wait)
        self.addCleanup(keeper.kill)
        return run

    def originals(self) -> dict[str, str]:
        return {name: self.original(name) for name in self.NAMES}

    def test_two_mismatches_fail_nothing(self) -> None:
        run = self.flipping(2)
        self.assertEqual(self.read(run, "map", list(self.NAMES)), self.originals(), run.log_tail(40))
        for name in self.NAMES:
            self.assert_logged(run, name, "do not match its CRC-64, twice: its folder is listed")
        self.assertFalse(run.logged("readers get EIO"), run.log_tail(40))

    def test_what_was_given_up_is_had_by_the_next_open(self) -> None:
        run = self.flipping(3, ("b.bin",))
        self.assertEqual(self.read(run, "map", ["b.bin"]), {"b.bin": "EIO"}, run.log_tail(40))
        status = subprocess.run([str(paths.OSSC), "status"], env=run.env(LD_PRELOAD=None), capture_output=True, check=False)
        self.assertIn(b"failed: b.bin: ", status.stdout)
        self.assertIn(b"as often as it was fetched", status.stdout)
        self.assertEqual(self.read(run, "map", ["b.bin"]), {"b.bin": self.original("b.bin")}, run.log_tail(40))
        self.assertEqual(run.engine_starts(), 1, run.log_tail())

    def test_a_small_object_is_had_by_the_next_open(self) -> None:
        """It comes with the start, and is given up before a program reads it, and again by the listing that this causes."""
        run = self.flipping(4, ("small.bin",))
        self.assertEqual(self.read(run, "read", ["a.bin"]), {"a.bin": self.original("a.bin")})
        self.assert_logged(run, "small.bin", "as often as it was fetched")
        end = time.monotonic() + 20
        while self.read(run, "read", ["small.bin"]) != {"small.bin": self.original("small.bin")}:
            self.assertLess(time.monotonic(), end, run.log_tail(40))
            time.sleep(0.5)
        self.assertEqual(run.engine_starts(), 1, run.log_tail())

    def test_a_process_that_opens_it_again_has_it(self) -> None:
        run = self.flipping(3, ("b.bin",))
        code = (
            "import hashlib, json, mmap, sys\n"
            "def sha(name):\n"
            "    try:\n"
            "        with open(name, 'rb') as file: return hashlib.sha256(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)).hexdigest()\n"
            "    except OSError as error: return error.errno\n"
            "print(json.dumps([sha('b.bin'), sha('b.bin')]))\n"
        )
        done = run.call([str(paths.VENV_PYTHON), "-c", code], cwd=run.model_dir)
        self.assertEqual(json.loads(done.stdout), [5, self.original("b.bin")], run.log_tail(40))

    def test_what_is_wrong_for_good_is_fetched_a_few_times(self) -> None:
        run = self.flipping(10_000)
        for _ in range(6):
            self.assertEqual(self.read(run, "map", list(self.NAMES)), dict.fromkeys(self.NAMES, "EIO"), run.log_tail(40))
        for name in self.NAMES:
            asked = [request for request in run.endpoint.requests() if request.key.endswith(name) and request.start == 0]
            self.assertLessEqual(len(asked), 7, run.log_tail(40))

    def test_they_are_fetched_again_over_new_connections(self) -> None:
        run = self.flipping(1, prefetch={"vcpus": 1, "workers": 1})
        self.assertEqual(self.read(run, "map", ["b.bin"]), {"b.bin": self.original("b.bin")}, run.log_tail(40))
        first = [request for request in run.endpoint.requests() if request.key == KEY and request.start == 0]
        self.assertEqual(len({request.conn for request in first}), 2, first)


class Drip(Faulty):
    """Answers that come byte by byte."""

    def drips(self, times: int | None, **config: Any) -> None:
        drip = faults.rule({"conn_bytes_per_sec": 100}, KEY, times)
        run = self.start([drip], twicePercent=0, leastBytesPerSec=1000, **config)
        begin = time.monotonic()
        self.assert_equal(run, ["b.bin"])
        self.assertLess(time.monotonic() - begin, 25, run.log_tail(40))
        self.assert_logged(run, "less than leastBytesPerSec (1000)", "b.bin")

    def test_a_drip_on_one_connection_is_cut_and_asked_for_elsewhere(self) -> None:
        self.drips(1)

    def test_drips_on_all_connections(self) -> None:
        self.drips(8, partBytes=2 * MIB, prefetch={"vcpus": 1, "workers": 4})

    def test_small_objects_that_drip(self) -> None:
        run = self.start([faults.rule({"conn_bytes_per_sec": 100}, f"{PREFIX}/small.bin", 1)], leastBytesPerSec=1000)
        self.assert_equal(run, ["small.bin"])


class Away(Faulty):
    """OSS is away for a while: what waited for it goes on as soon as it is back."""

    def test_a_start_outlasts_an_origin_that_is_away(self) -> None:
        away = faults.refused(500, "InternalError", kind="list")
        run = self.start([away], startAttempts=2, startTimeoutSec=30)
        process = run.start(["cat", "small.bin"], cwd=run.model_dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.kill)
        time.sleep(6)
        self.assertIsNone(process.poll(), run.log_tail())
        run.endpoint.set_rules([])
        back = time.monotonic()
        out, said = process.communicate(timeout=20)
        self.assertEqual((process.returncode, out), (0, (self.plain / "small.bin").read_bytes()), said.decode() + run.log_tail())
        self.assertLess(time.monotonic() - back, 5, run.log_tail())

    def test_a_start_says_why_when_its_time_is_over(self) -> None:
        run = self.start([faults.refused(500, "InternalError", kind="list")], startTimeoutSec=4)
        begin = time.monotonic()
        done = run.call(["true"], timeout=30)
        self.assertEqual(done.returncode, 1, run.log_tail())
        self.assertIn(b"failed to launch oss connector: failed to list objects: ", done.stderr)
        self.assertIn(b"InternalError", done.stderr)
        self.assertLess(time.monotonic() - begin, 6)

    def test_the_first_success_ends_the_pauses_of_all(self) -> None:
        # Pauses of up to a minute.
        run = self.start([faults.rule({"delay_ms": 1}, "none")], partBytes=2 * MIB, retryBaseMs=60_000, retryCapMs=60_000, outageBudgetSec=300, listAgainSec=1)
        run.endpoint.set_rules([faults.refused(500, "InternalError", KEY)])
        process = run.start([str(paths.VENV_PYTHON), str(paths.APPS / "read_all.py"), "read", "b.bin"], cwd=run.model_dir, stdout=subprocess.PIPE)
        self.addCleanup(process.kill)
        time.sleep(4)
        self.assertIsNone(process.poll(), run.log_tail())
        run.endpoint.set_rules([])
        back = time.monotonic()
        # A success of whatever kind: the listing of a program that uses the folder.
        self.assertEqual(self.read(run, "read", ["a.bin"]), {"a.bin": self.original("a.bin")})
        out, _ = process.communicate(timeout=60)
        self.assertEqual(json.loads(out), {"b.bin": self.original("b.bin")}, run.log_tail(40))
        self.assertLess(time.monotonic() - back, 8, run.log_tail(40))

    def test_a_listing_that_is_cut_is_asked_for_again(self) -> None:
        cut = {"match": {"kind": "list"}, "times": 2, "do": {"cut_after": 40}}
        self.assert_equal(self.start([cut]), ["small.bin"])

    def test_an_outage_is_told_in_few_lines(self) -> None:
        run = self.start([faults.refused(500, "InternalError", KEY, times=400)], partBytes=64 << 10, outageBudgetSec=60, retryCapMs=300)
        self.assert_equal(run, ["b.bin"])
        lines = [line for line in run.log_lines() if " WARN " in line]
        self.assertLess(len(lines), 20, run.log_tail(40))
        self.assertGreaterEqual(len(lines), 4)


class Kept(Faulty):
    """What has come of a part stays when its request fails."""

    def goes_on(self, times: int, **config: Any) -> None:
        run = self.start([faults.cut(600_077, KEY, times)], partBytes=2 * MIB, **config)
        self.assertEqual(self.read(run, "map", ["b.bin"]), {"b.bin": self.original("b.bin")}, run.log_tail(40))
        bodies = [request for request in run.endpoint.requests() if request.key == KEY]
        self.assertEqual(sum(request.bytes_sent for request in bodies), (self.plain / "b.bin").stat().st_size, run.log_tail(40))
        self.assertGreater(len([request for request in bodies if (request.start or 0) % (2 * MIB)]), times // 2)

    def test_a_part_that_breaks_off_goes_on_where_it_ended(self) -> None:
        self.goes_on(3)

    def test_parts_that_break_off_again_and_again(self) -> None:
        self.goes_on(20, prefetch={"vcpus": 1, "workers": 2})

    def test_parts_that_are_not_compared(self) -> None:
        self.goes_on(3, verifyCrc=False)

    def test_a_small_object_that_breaks_off_each_time_goes_on_where_it_ended(self) -> None:
        key = f"{PREFIX}/small.bin"
        size = (self.plain / "small.bin").stat().st_size
        run = self.start([faults.cut(size // 5 + 1, key)])
        self.assertEqual(self.read(run, "read", ["small.bin"]), {"small.bin": self.original("small.bin")}, run.log_tail(40))
        asked = [request for request in run.endpoint.requests() if request.key == key]
        self.assertEqual((sum(request.bytes_sent for request in asked), len(asked)), (size, 5), run.log_tail(40))

    def test_blocks_that_break_off_each_time_go_on_where_they_ended(self) -> None:
        run = self.start([faults.cut(100_000, KEY)])
        code = "import hashlib, os; fd = os.open('b.bin', os.O_RDONLY); print(hashlib.sha256(os.pread(fd, 200_000, 9_000_000)).hexdigest())"
        done = run.call([str(paths.VENV_PYTHON), "-c", code], cwd=run.model_dir)
        expected = hashlib.sha256((self.plain / "b.bin").read_bytes()[9_000_000:9_200_000]).hexdigest()
        self.assertEqual(done.stdout.decode().strip(), expected, done.stderr.decode() + run.log_tail(40))
        sent = [request.bytes_sent for request in run.endpoint.requests() if request.key == KEY]
        self.assertLess(sum(sent), 400_000, sent)

    @slow
    def test_bytes_that_come_keep_an_object_from_failing(self) -> None:
        """Each answer brings a little within an outage budget that is over long before the part is whole."""
        limits: dict[str, Any] = {"stallTimeoutMs": 400, "responseTimeoutMs": 5000, "outageBudgetSec": 3, "prefetch": {"vcpus": 1, "workers": 4}}
        run = self.start([faults.stalled(MIB // 2, 3_000, KEY)], partBytes=2 * MIB, **limits)
        begin = time.monotonic()
        self.assert_equal(run, ["b.bin"])
        self.assertGreater(time.monotonic() - begin, 3)


class Short(Faulty):
    """This machine has too little for one more connection."""

    def in_space(self, ports: str, config: dict[str, Any]) -> tuple[Run, list[str]]:
        """A run beside its endpoint, and what to write before a program, where connections have these ports alone."""
        if os.geteuid() != 0:
            self.skipTest("a network namespace needs root")
        space = Space("ip link set lo up", kind="net")
        self.addCleanup(space.close)
        slow = faults.rule({"conn_bytes_per_sec": 4_000_000})
        run = self.start([slow], program=[*space.prefix, str(paths.ENDPOINT)], **config)
        limit = f"echo {ports} > /proc/sys/net/ipv4/ip_local_port_range"
        subprocess.run([*space.prefix, "sh", "-c", limit], check=True)
        return run, [*space.prefix, "env", f"LD_PRELOAD={run.env()['LD_PRELOAD']}"]

    def call(self, run: Run, before: list[str], argv: list[str]) -> subprocess.CompletedProcess[bytes]:
        return run.call([*before, *argv], run.env(LD_PRELOAD=None), cwd=run.model_dir, timeout=60)

    def test_other_connections_go_on_where_no_port_is_free(self) -> None:
        run, before = self.in_space("40000 40002", {"partBytes": MIB, "prefetch": {"vcpus": 1, "workers": 8}})
        done = self.call(run, before, [str(paths.VENV_PYTHON), str(paths.APPS / "read_all.py"), "map", "b.bin"])
        self.assertEqual((done.returncode, json.loads(done.stdout)), (0, {"b.bin": self.original("b.bin")}), run.log_tail(40))
        self.assert_logged(run, " WARN ", "Cannot assign requested address", "ip_local_port_range")
        self.assertFalse(run.logged("readers get errno"))

    def test_a_start_without_any_port_says_so(self) -> None:
        run, before = self.in_space("40000 40000", {})
        holder = "import socket, subprocess, sys; s = socket.socket(); s.bind(('127.0.0.1', 40000)); sys.exit(subprocess.call(sys.argv[1:]))"
        done = self.call(run, [*before[:3], str(paths.VENV_PYTHON), "-c", holder, *before[3:]], ["true"])
        self.assertEqual(done.returncode, 1, run.log_tail())
        self.assertIn(b"ip_local_port_range", done.stderr)
