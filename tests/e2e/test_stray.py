"""One answer of many says that the object is gone, is another, or may not be had: it is a stray, and nothing fails."""

from __future__ import annotations

import time

from harness import faults
from tests.e2e.base import PREFIX
from tests.e2e.faulty import KEY, Faulty

MIB = 1 << 20
OTHER_ETAG = '"00000000000000000000000000000000"'
# One effect each, at a byte of another part.
STRAYS = [
    {"status": 400, "code": "InvalidArgument"},
    {"status": 404, "code": "NoSuchKey"},
    {"status": 412, "code": "PreconditionFailed"},
    {"status": 416, "code": "InvalidRange"},
    {"etag": OTHER_ETAG},
    {"status": 302, "code": "Found"},
]


def stray(effect: dict[str, object], offset: int = 0, key: str = KEY, times: int = 1) -> faults.Rule:
    return {"match": {"kind": "get", "key": key, "covers": offset}, "times": times, "do": effect}


class Stray(Faulty):
    """Endpoints that answer once or twice as no other answer does."""

    def test_one_stray_answer_of_each_kind_fails_nothing(self) -> None:
        run = self.start([stray(effect, number * 3 * MIB) for number, effect in enumerate(STRAYS)], partBytes=2 * MIB)
        self.assert_equal(run, ["b.bin"])
        self.assert_logged(run, "asked once more", "PreconditionFailed")
        self.assertFalse(run.logged("readers get errno"), run.log_tail(40))

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


class Drip(Faulty):
    """Answers that come byte by byte."""

    def drips(self, times: int | None, **config: object) -> None:
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
