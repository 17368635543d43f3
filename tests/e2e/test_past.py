"""Programs that ask a large object's size of the C library and read its bytes of the kernel: each way gives what the table
of docs/SEMANTICS.md says; what an open of the whole object refuses, keeps, waits for and says."""

from __future__ import annotations

import os
import signal
import subprocess
import unittest
from typing import Any, ClassVar

from tests.checks import loaders_past
from tests.checks.loaders_past import DIRECT, END, LARGE, PLAIN, RIGHT, SILENT, WHOLE, compiled, outcome
from tests.e2e.base import PREFIX, EndToEnd
from tests.harness import faults, folder, paths
from tests.harness.run import Run

PYTHON = str(paths.VENV_PYTHON)
MIB = folder.MIB
# Opens, and prints the errno or what comes of it.
OPENS = """
import errno, os, sys
def attempt(what, act):
    try: print(what, act())
    except OSError as error: print(what, errno.errorcode[error.errno])
name, flags = sys.argv[1], os.O_RDONLY | os.O_DIRECT
"""


class Document(unittest.TestCase):
    def test_the_document_has_the_table(self) -> None:
        document = (paths.ROOT / "docs" / "SEMANTICS.md").read_text()
        self.assertTrue(loaders_past.table() in document, f"docs/SEMANTICS.md is to have this table:\n{loaders_past.table()}")


class Ways(EndToEnd):
    """All that can be made here; the bar `loaders 2` wants every one, and each on a cold object too."""

    def attempt(self, how: str) -> None:
        found = loaders_past.rows([])
        self.assertGreaterEqual(len(found), 10)
        run = self.managed({"openMode": "whole"} if how == WHOLE else {})
        with loaders_past.kept(run):
            tried, wrong = loaders_past.try_rows(run, self.plain, found, how, "one after the other")
        self.assertEqual([text for _, text in wrong], [])
        self.assertEqual(tried, len(found))

    def test_opens_for_reading(self) -> None:
        self.attempt(PLAIN)

    def test_opens_with_o_direct(self) -> None:
        self.attempt(DIRECT)

    def test_opens_where_the_key_says_whole(self) -> None:
        self.attempt(WHOLE)

    def one(self, way: str, how: str, run: Run, **changes: str | None) -> tuple[str, str]:
        """What a call by number gives, and what is said."""
        argv = [compiled("past_number.c", "past_number"), way, how, str(run.model_dir / LARGE)]
        done = run.call(argv, run.env(**changes))
        return outcome(done, (self.plain / LARGE).read_bytes()), done.stderr.decode()

    def test_parts_switches_what_is_seen_off_but_not_o_direct(self) -> None:
        run = self.managed({"openMode": "parts"})
        self.assertEqual(self.one("uring first", PLAIN, run), (SILENT, ""))
        self.assertEqual(self.one("uring first", DIRECT, run), (RIGHT, ""))
        self.assertEqual(self.one("uring", PLAIN, run), (SILENT, ""))

    def test_a_library_that_comes_later_is_seen_at_the_next_open(self) -> None:
        run = self.managed()
        program = (
            "import ctypes, os, sys; a = os.open(sys.argv[1], os.O_RDONLY); ctypes.CDLL(sys.argv[2]); b = os.open(sys.argv[1], os.O_RDONLY)\n"
            "import subprocess; print([len(subprocess.run(['cat'], stdin=fd, env={}, capture_output=True).stdout) for fd in (a, b)])"
        )
        library = self.scratch / "liburing.so.2"
        subprocess.run(["gcc", "-shared", "-o", str(library), "-x", "c", "/dev/null"], check=True)
        done = run.call([PYTHON, "-c", program, str(run.model_dir / LARGE), str(library)])
        self.assertEqual(done.stdout.decode().strip(), f"[0, {(self.plain / LARGE).stat().st_size}]", done.stderr)
        said = done.stderr.decode().splitlines()
        self.assertEqual(len(said), 1, said)
        for word in (str(run.model_dir / LARGE), "opened before", "liburing", "openMode: whole"):
            self.assertIn(word, said[0])
        self.assertTrue(run.logged("opened before", LARGE), run.log_tail())

    def test_the_ring_of_an_event_loop_is_none(self) -> None:
        """libuv makes one for its epoll sets: a server in uvloop opens parts as before."""
        place = self.scratch / "uvloop"
        place.mkdir()
        subprocess.run(["gcc", "-shared", "-o", str(place / "loop.fake.so"), "-x", "c", "/dev/null"], check=True)
        run = self.managed()
        both = f"{run.env()['LD_PRELOAD']}:{place / 'loop.fake.so'}"
        for way in ("uring first", "asm uring first"):
            self.assertEqual(self.one(way, PLAIN, run, LD_PRELOAD=both)[0], SILENT)
            self.assertEqual(self.one(way, PLAIN, run)[0], RIGHT)


class Opens(EndToEnd):
    def opened(self, program: str, config: dict[str, Any] | None = None, name: str = LARGE) -> tuple[list[str], list[str], Run]:
        """Lines of standard output and of standard error."""
        run = self.managed(config)
        done = run.call([PYTHON, "-c", OPENS + program, str(run.model_dir / name)])
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.decode().splitlines(), done.stderr.decode().splitlines(), run

    def test_a_whole_open_is_never_one_for_writing(self) -> None:
        out, said, _ = self.opened(
            "fd = os.open(name, os.O_RDWR | os.O_DIRECT)\n"
            "attempt('write', lambda: os.write(fd, b'x')); attempt('pread', lambda: len(os.pread(fd, 5000, 0)))\n"
            "attempt('only', lambda: os.open(name, os.O_WRONLY | os.O_DIRECT)); attempt('cut', lambda: os.open(name, flags | os.O_TRUNC))\n"
            "whole = os.open(name, flags)\n"
            "attempt('again', lambda: os.open(f'/proc/self/fd/{whole}', os.O_RDWR)); attempt('set', lambda: os.write(whole, b'x'))\n"
        )
        self.assertEqual(out, ["write EROFS", "pread 5000", "only EROFS", "cut EROFS", "again EROFS", "set EBADF"])
        self.assertEqual(len(said), 1, said)
        self.assertIn("is open for writing too", said[0])

    def test_what_never_fits_is_enomem_with_a_remedy(self) -> None:
        limit = {"memoryLimit": 12 * MIB}
        read = "attempt('open', lambda: os.open(name, flags)); attempt('parts', lambda: len(os.pread(os.open(name, os.O_RDONLY), 999, 12345678)))\n"
        out, said, run = self.opened(read, limit, "b.bin")
        self.assertEqual(out, ["open ENOMEM", "parts 999"])
        self.assertEqual(len(said), 1, said)
        for word in (str(run.model_dir / "b.bin"), "ENOMEM", "memoryLimit", "O_DIRECT"):
            self.assertIn(word, said[0])
        self.assertTrue(run.logged("ENOMEM", "b.bin"), run.log_tail())
        out, said, _ = self.opened(read, {**limit, "openMode": "whole"}, "b.bin")
        self.assertEqual(out, ["open ENOMEM", "parts ENOMEM"])

    def test_who_may_read_past_the_c_library_gets_what_does_not_fit_by_parts(self) -> None:
        run = self.managed({"memoryLimit": 12 * MIB})
        argv = [compiled("past_number.c", "past_number"), "uring first", PLAIN, str(run.model_dir / "b.bin")]
        done = run.call(argv)
        self.assertEqual(outcome(done, (self.plain / "b.bin").read_bytes()), END, done.stderr)
        self.assertIn("raise memoryLimit", done.stderr.decode())

    def test_what_does_not_fit_beside_others_is_enomem_too_or_given_by_parts(self) -> None:
        limit = {"memoryLimit": 9 * MIB, "partBytes": MIB}
        both = "kept = os.open(name, flags); other = name.replace('deep/c.bin', '../a.bin')\n"
        out, said, _ = self.opened(both + "attempt('open', lambda: os.open(other, flags))\n", limit, "nested/deep/c.bin")
        self.assertEqual(out, ["open ENOMEM"])
        self.assertIn("raise memoryLimit", said[0])
        self.assertIn("a.bin", said[0])
        library = self.scratch / "libaio.so.1"
        subprocess.run(["gcc", "-shared", "-o", str(library), "-x", "c", "/dev/null"], check=True)
        by_parts = f"import ctypes; ctypes.CDLL({str(library)!r})\n{both}fd = os.open(other, os.O_RDONLY)\nos.close(kept)\nattempt('parts', lambda: len(os.pread(fd, 999, 1234567)))\n"
        out, said, _ = self.opened(by_parts, limit, "nested/deep/c.bin")
        self.assertEqual(out, ["parts 999"])
        self.assertIn("raise memoryLimit", said[0])

    def held(self, *words: str) -> tuple[Run, subprocess.Popen[bytes]]:
        run = self.managed({"memoryLimit": 9 * MIB, "expireTimeSec": 0, "partBytes": MIB, "lingerSec": 2})
        names = [str(run.model_dir / LARGE), str(run.model_dir / "nested/deep/c.bin"), str(self.plain / LARGE)]
        argv = [PYTHON, str(paths.APPS / "hold_direct.py"), *names, *words]
        return run, run.start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def test_memory_is_not_given_back_under_a_descriptor(self) -> None:
        run, program = self.held()
        out, err = program.communicate(timeout=60)
        self.assertEqual(out.decode().split("\n")[:2], ["same", "True True True"], err.decode() + run.log_tail())

    def test_a_descriptor_outlives_its_engine(self) -> None:
        run, program = self.held("kill")
        assert program.stdout is not None
        self.assertEqual(program.stdout.readline(), b"ready\n")
        for pid in run.engines():
            os.kill(pid, signal.SIGKILL)
        out, err = program.communicate(b"\n", timeout=60)
        self.assertEqual(out.decode().split("\n")[0], "same", err.decode() + run.log_tail())


def with_pages(run: Run, pages: str) -> None:
    """From here on, the run's variables name this kind of memory."""
    environ = run.env

    def env(role: int | None = 1, /, **changes: str | None) -> dict[str, str]:
        return environ(role, **{"OSSC_PAGES": pages, **changes})

    run.env = env  # type: ignore[method-assign]  # what calls the run asks it for its variables


class Statfs(EndToEnd):
    def test_large_objects_lie_on_tmpfs_and_nothing_else_does(self) -> None:
        for pages in ("tmpfs", "memfd"):
            with self.subTest(pages):
                run = self.managed()
                with_pages(run, pages)
                self.assertEqual(loaders_past.lies(run), [])

    def test_the_first_call_lists_and_attaches(self) -> None:
        for name in ("nested/deep/c.bin", "link/c.bin"):
            run = self.managed()
            (run.model_dir / "link").symlink_to("nested/deep")
            done = run.call([compiled("lies.c", "lies"), str(run.model_dir / name)])
            kinds = {line.rsplit(" ", 1)[1] for line in done.stdout.decode().splitlines()}
            self.assertEqual(kinds, {loaders_past.TMPFS}, done.stdout)

    def test_a_file_that_no_engine_serves_is_an_error(self) -> None:
        run = self.managed()
        run.call(["ls", str(run.model_dir)])
        self.assertIsNotNone(run.wait_engines_gone(run.linger_secs + 3))
        other = self.managed()
        program = "import ctypes, os, sys\ntry: print(os.statvfs(sys.argv[1]))\nexcept OSError as error: print(error.errno)"
        done = other.call([PYTHON, "-c", program, str(run.model_dir / LARGE)])
        self.assertIn(done.stdout.decode().strip(), ("5", "116"), done.stderr)


class Waits(EndToEnd):
    """The object comes wrong, always."""

    faults: ClassVar[list[dict[str, Any]] | None] = [faults.flipped_at(f"{PREFIX}/{LARGE}", 5)]

    def test_a_whole_open_fails_with_what_reads_would(self) -> None:
        run = self.managed()
        program = OPENS + "attempt('direct', lambda: os.open(name, flags))\nfd = os.open(name, os.O_RDONLY)\nprint('opened')"
        done = run.call([PYTHON, "-c", program, str(run.model_dir / LARGE)], timeout=60)
        self.assertEqual(done.stdout.decode().split("\n")[0], "direct EIO", done.stderr.decode() + run.log_tail())


class Doctor(EndToEnd):
    """`ossc doctor -- PROGRAM`."""

    def doctor(self, argv: list[str]) -> tuple[int, str]:
        run = self.managed()
        done = run.call([str(paths.OSSC), "doctor", "--", *argv, str(run.model_dir / LARGE)], run.env(None, LD_PRELOAD=None))
        return done.returncode, done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")

    def number(self, *words: str) -> list[str]:
        return ["sh", "-c", '"$@" > /dev/null', "sh", compiled("past_number.c", "past_number"), *words]

    def test_what_is_served_as_a_whole_is_good(self) -> None:
        status, out = self.doctor(self.number("uring first", "plain"))
        self.assertEqual(status, 0, out)
        self.assertRegex(out, r"note  reads past   \S+/past_number reads past the C library: io_uring")
        self.assertRegex(out, r"ok    reads past   \S+/a\.bin was opened as a whole")

    def test_what_was_opened_before_fails_and_names_the_key(self) -> None:
        status, out = self.doctor(self.number("uring", "plain"))
        self.assertEqual(status, 1, out)
        self.assertRegex(out, r"FAIL  reads past   \S+/a\.bin was opened before .*openMode: whole")

    def test_nothing_read_past_is_said_and_the_status_is_the_programs(self) -> None:
        status, out = self.doctor(["sh", "-c", 'wc -c "$0"; exit 7'])
        self.assertEqual(status, 7, out)
        self.assertIn("nothing was read past the C library", out)

    def test_a_ring_that_the_library_did_not_see_fails(self) -> None:
        status, out = self.doctor(self.number("asm uring slow", "plain"))
        self.assertEqual(status, 1, out)
        self.assertRegex(out, r"FAIL  reads past   \S+/past_number has made an io_uring that the library did not see: .*openMode: whole")

    def test_a_static_program_is_named(self) -> None:
        static = compiled("past_number.c", "past_number_static", "-static")
        status, out = self.doctor(["sh", "-c", f'"{static}" "pread slow" plain "$0"'])
        self.assertEqual(status, 0, out)
        self.assertRegex(out, r"note  reads past   \S+/past_number_static ran without the library")

    def test_a_program_that_cannot_have_the_library_fails_however_short_it_runs(self) -> None:
        static = compiled("past_number.c", "past_number_static", "-static")
        status, out = self.doctor([static, "pread", "plain"])
        self.assertEqual(status, 1, out)
        self.assertRegex(out, r"(?m)^FAIL  program      \S+/past_number_static is static, .*linked dynamically")
        self.assertNotIn("nothing was read past", out)
        run = self.managed()
        done = run.call([str(paths.OSSC), "run", "--", static, "pread", "plain", str(run.model_dir / LARGE)], run.env(None, LD_PRELOAD=None))
        self.assertRegex(done.stderr.decode(), r"^ossc run: \S+/past_number_static is static, .*; it runs without the library")

    def test_a_program_whose_variables_were_cleared_fails(self) -> None:
        status, out = self.doctor(["env", "-i", PYTHON, "-c", "import time; time.sleep(1)"])
        self.assertEqual(status, 1, out)
        self.assertRegex(out, r"(?m)^FAIL  program      \S+ ran without the library, since it had no LD_PRELOAD .*env -i")
        status, out = self.doctor(["sh", "-c", f"env -u LD_PRELOAD {PYTHON} -c 'import time; time.sleep(1)'; true"])
        self.assertEqual(status, 0, out)
        self.assertRegex(out, r"(?m)^note  reads past   \S+ ran without the library, since it had no LD_PRELOAD")

    def test_a_program_that_has_the_library_is_not_said_to_be_without_it(self) -> None:
        # It is looked at while the dynamic linker is at work, too.
        status, out = self.doctor(["sh", "-c", f"for n in 1 2 3 4 5 6 7 8 9 10; do {PYTHON} -S -c ''; done"])
        self.assertEqual(status, 0, out)
        self.assertNotIn("without the library", out)

    def test_one_that_ends_badly_is_asked_where_it_reads(self) -> None:
        status, out = self.doctor(["sh", "-c", "exit 3"])
        self.assertEqual(status, 3, out)
        self.assertRegex(out, r"(?m)^note  program      sh: exit status: 3; .*MODEL_DIR \(/")
        self.assertNotIn("everything that was tried works", out)

    def test_what_cannot_be_run_fails(self) -> None:
        status, out = self.doctor(["/no/such/program"])
        self.assertEqual(status, 1, out)
        self.assertIn("FAIL  program", out)


if __name__ == "__main__":
    unittest.main()
