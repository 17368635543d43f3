"""The origin misbehaves in every way that it can: programs get the right bytes or an error, never other bytes."""

from __future__ import annotations

import hashlib
import threading
import time

from tests.e2e.base import PREFIX
from tests.e2e.faulty import ERROR_SECS_MAX, KEY, Faulty
from tests.harness import faults


class Fault(Faulty):
    """Whatever goes wrong, and whichever way is read."""

    def test_no_fault_at_all(self) -> None:
        self.assert_equal(self.start([]))

    def test_burst_of_503(self) -> None:
        run = self.start([faults.refused(503, "ServiceUnavailable", times=8)])
        self.assert_equal(run)
        self.assertTrue(any(r.status == 503 for r in run.endpoint.requests()))

    def test_burst_of_429(self) -> None:
        self.assert_equal(self.start([faults.refused(429, "TooManyRequests", times=3)]))

    def test_503_for_lists(self) -> None:
        self.assert_equal(self.start([faults.refused(503, "ServiceUnavailable", times=2, kind="list")]))

    def test_500_for_some(self) -> None:
        self.assert_equal(self.start([faults.refused(500, "InternalError", KEY, times=3)]))

    def test_connections_cut_in_the_body(self) -> None:
        run = self.start([faults.cut(1_000_000, KEY, times=5), faults.cut(100, f"{PREFIX}/small.bin", times=2)])
        self.assert_equal(run)

    def test_connections_closed_before_the_answer(self) -> None:
        self.assert_equal(self.start([faults.rule({"close": True}, times=6)]))

    def test_garbage_for_an_answer(self) -> None:
        self.assert_equal(self.start([faults.rule({"garbage": True}, times=4)]))

    def test_stalled_body(self) -> None:
        run = self.start([faults.stalled(300_000, 30_000, KEY, times=2)])
        begin = time.monotonic()
        self.assert_equal(run)
        self.assertLess(time.monotonic() - begin, 25, "the stalled connection was waited for")

    def test_stalled_head(self) -> None:
        run = self.start([faults.rule({"delay_ms": 30_000}, KEY, times=2)])
        begin = time.monotonic()
        self.assert_equal(run)
        self.assertLess(time.monotonic() - begin, 25, "the silent connection was waited for")

    def test_flipped_byte_once_is_fetched_again(self) -> None:
        run = self.start([faults.flipped_byte(KEY, 777_777, times=1)])
        for way in ("map", "stdio"):
            self.assertEqual(self.read(run, way, ["b.bin"]), {"b.bin": self.original("b.bin")}, run.log_tail())

    def test_flipped_byte_always_is_an_error(self) -> None:
        # read() may be served before the verdict on the whole object, so it is not asked here.
        run = self.start([faults.flipped_byte(KEY, 777_777)])
        self.assert_error(run, ("map", "stdio"))
        self.assert_logged(run, "b.bin")

    def test_flipped_byte_in_a_small_object(self) -> None:
        run = self.start([faults.flipped_byte(f"{PREFIX}/small.bin", 100)], startTimeoutSec=5)
        done = run.call(["sha256sum", "small.bin"], cwd=run.model_dir, timeout=60)
        self.assertNotEqual(done.returncode, 0, "a wrong small file was accepted")
        self.assertNotIn(b"  small.bin", done.stdout)

    def test_wrong_crc_header_is_an_error(self) -> None:
        self.assert_error(self.start([faults.rule({"bad_crc": True}, KEY)]), ("map", "stdio"))

    def test_missing_crc_header_is_no_error(self) -> None:
        self.assert_equal(self.start([faults.rule({"drop_crc": True})]))

    def test_wrong_content_range_sometimes(self) -> None:
        self.assert_equal(self.start([faults.rule({"wrong_content_range": True}, KEY, times=3)]))

    def test_wrong_content_range_always(self) -> None:
        self.assert_error(self.start([faults.rule({"wrong_content_range": True}, KEY)]))

    def test_whole_object_for_a_range_sometimes(self) -> None:
        self.assert_equal(self.start([faults.rule({"ignore_range": True}, KEY, times=3)]))

    def test_whole_object_for_a_range_always(self) -> None:
        # Every part but the first must refuse a 200; so the object cannot be had.
        self.assert_error(self.start([faults.rule({"ignore_range": True}, KEY)]), ("map", "stdio"))

    def test_another_etag(self) -> None:
        self.assert_error(self.start([faults.rule({"etag": '"00000000000000000000000000000000"'}, KEY)]), code="ESTALE")

    def test_object_changed(self) -> None:
        run = self.start([faults.refused(412, "PreconditionFailed", KEY)])
        self.assert_error(run, code="ESTALE")
        self.assert_logged(run, "b.bin", "412")

    def test_get_forbidden(self) -> None:
        run = self.start([faults.refused(403, "AccessDenied", KEY)])
        begin = time.monotonic()
        got = self.read(run, "map", ["b.bin"])["b.bin"]
        self.assertIn(got, ("EIO", "EACCES"), run.log_tail())
        self.assertLess(time.monotonic() - begin, ERROR_SECS_MAX)
        self.assert_logged(run, "b.bin", "AccessDenied")

    def test_object_gone(self) -> None:
        run = self.start([faults.refused(404, "NoSuchKey", KEY)])
        self.assertIn(self.read(run, "map", ["b.bin"])["b.bin"], ("EIO", "ENOENT"), run.log_tail())

    def test_a_listing_that_drips_ends_the_start_in_time(self) -> None:
        run = self.start([], ["--rate-bytes-per-sec", "100"], startTimeoutSec=2)
        begin = time.monotonic()
        done = run.call(["true"], timeout=30)
        self.assertEqual(done.returncode, 1, run.log_tail())
        self.assertIn(b"failed to launch oss connector: failed to list objects: ", done.stderr)
        self.assertIn(b"startTimeoutSec (2 s)", done.stderr)
        self.assertLess(time.monotonic() - begin, 4)

    def test_origin_down_for_ever_is_an_error_and_no_hang(self) -> None:
        self.assert_error(self.start([faults.refused(503, "ServiceUnavailable", KEY)]))

    def test_origin_dies_while_a_program_reads(self) -> None:
        run = self.start([], ["--rate-bytes-per-sec", "4000000"])
        timer = threading.Timer(1.5, run.endpoint.stop)
        timer.start()
        self.addCleanup(timer.cancel)
        begin = time.monotonic()
        got = self.read(run, "map", ["b.bin"])
        self.assertEqual(got, {"b.bin": "EIO"}, run.log_tail())
        self.assertLess(time.monotonic() - begin, ERROR_SECS_MAX)

    def test_object_replaced_while_it_is_read(self) -> None:
        """Old bytes, new bytes or an error, but never a mix."""
        target = self.plain / "replaced.bin"
        old, new = b"\x01" * 12_000_000, b"\x02" * 12_000_000
        target.write_bytes(old)
        self.addCleanup(target.unlink)
        run = self.start([], ["--rate-bytes-per-sec", "12000000"])

        def replace() -> None:
            scratch = target.with_name(".replacing")
            scratch.write_bytes(new)
            scratch.rename(target)

        timer = threading.Timer(1.0, replace)
        timer.start()
        self.addCleanup(timer.join)
        allowed = {hashlib.sha256(old).hexdigest(), hashlib.sha256(new).hexdigest(), "EIO", "ESTALE"}
        for way in ("map", "read"):
            self.assertIn(self.read(run, way, ["replaced.bin"])["replaced.bin"], allowed, run.log_tail())
