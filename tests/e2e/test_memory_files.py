"""The memory files behind maps and kept descriptors can be reached by their names below /proc: an open of one gives
all of the object, or fails; never the zeros of parts that have not come."""

from __future__ import annotations

import os
import unittest
from typing import Any, ClassVar

from tests.e2e.base import PREFIX, EndToEnd, slow
from tests.harness import faults, paths
from tests.harness.run import Run

PYTHON = str(paths.VENV_PYTHON)
# Reads and maps the last page of b.bin while the first parts are still on their way, then prints for each name below
# /proc of a memory file what `act` makes of it.
PART = """
import mmap, os, subprocess, sys
expected = open(sys.argv[1], "rb").read()
fd = os.open("b.bin", os.O_RDONLY)
at = (len(expected) - 1) // 4096 * 4096
assert os.pread(fd, 5000, at) == expected[at:]
part = mmap.mmap(fd, len(expected) - at, prot=mmap.PROT_READ, offset=at)
def names(pid="self"):
    where = f"/proc/{pid}/map_files/"
    found = [where + n for n in os.listdir(where)] + [f"/proc/{pid}/fd/{n}" for n in os.listdir(f"/proc/{pid}/fd")]
    for name in found:
        try: target = os.readlink(name) if pid == "self" else subprocess.run(["readlink", name], capture_output=True, text=True).stdout
        except OSError: continue
        try: st = os.stat(name)
        except OSError: continue
        # A memory file shows its placeholder's facts; its own name is none that could be opened.
        if st.st_size == len(expected): yield name
def same(name):
    try:
        with open(name, "rb", buffering=0) as file: return file.readall() == expected
    except OSError as error: return error.errno
"""
SELF = PART + "print([same(n) for n in names()])\n"
STREAM = PART + """
import ctypes
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p; libc.fread.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
room = ctypes.create_string_buffer(len(expected))
def same(name): return libc.fread(room, 1, len(expected), libc.fopen(name.encode(), b"r")) == len(expected) and room.raw == expected
print([same(n) for n in names()])
"""
# A child that is no client, and reads what the parent has mapped and open by the parent's names.
CHILD = PART + """
found = list(names())
wanted = [n.replace("self", str(os.getpid())) for n in found]
print([subprocess.run(["cat", n], capture_output=True).stdout == expected for n in wanted])
"""


class MemoryFiles(EndToEnd):
    """Each part of the file comes late, the asked ones first."""

    faults: ClassVar[list[dict[str, Any]] | None] = [faults.rule({"stall_after": 1000, "ms": 1500}, f"{PREFIX}/b.bin", times=60)]

    def results(self, run: Run, program: str, pages: str | None) -> list[str]:
        argv = [PYTHON, "-c", program, str(self.plain / "b.bin")]
        done = run.call(argv, run.env(OSSC_PAGES=pages), cwd=run.model_dir, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr.decode() + run.log_tail())
        return done.stdout.decode().strip("[]\n").split(", ")

    @slow
    @unittest.skipUnless(os.getuid() == 0, "map_files can be opened by root only")
    def test_an_open_by_a_name_below_proc_gives_all_of_it(self) -> None:
        for name, program in (("open", SELF), ("stream", STREAM), ("child", CHILD)):
            for pages in (None, "memfd"):
                with self.subTest(f"{name} {pages}"):
                    run = self.managed({"partBytes": 1 << 20, "prefetch": {"vcpus": 1, "workers": 8}})
                    results = self.results(run, program, pages)
                    self.assertGreaterEqual(len(results), 2, "the map and the kept descriptor")
                    self.assertEqual(set(results), {"True"}, run.log_tail())


if __name__ == "__main__":
    unittest.main()
