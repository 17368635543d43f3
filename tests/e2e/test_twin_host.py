"""Programs that bring their own allocator, sanitizer or constructors: the library must stand beside them.

Every case is compared with its run on a plain folder, as in test_twin.
"""

from __future__ import annotations

import ctypes.util
import subprocess
from pathlib import Path

from tests.checks import twin
from tests.e2e.base import EndToEnd, slow
from tests.harness import compile as compiler
from tests.harness import paths
from tests.harness.run import plain_env

# With threads, children, maps, streams and much allocation.
UNDER_ALLOCATORS = ("c threads on b.bin", "c forks on a.bin", "c streams on a.bin", "cpp whole on b.bin", "python mmap on a.bin", "shell sort")
UNDER_ASAN = {
    "io_read.c": "fread seek edges vector dup threads procfd syscall",
    "io_map.c": "private copy",
    "io_name.c": "stat openat list walk",
}

LINKED = """
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
static void look(const char *when) {
    static char room[1000];
    FILE *stream = fopen("a.bin", "r");
    int fd = open("a.bin", O_RDONLY);
    long size = lseek(fd, 0, SEEK_END), got = pread(fd, room, sizeof room, 5), streamed = fread(room, 1, 900, stream);
    printf("%s %ld %ld %ld\\n", when, size, got, streamed);
    fclose(stream);
    close(fd);
}
__attribute__((constructor)) static void before(void) { look("constructor of a linked library"); }
__attribute__((destructor)) static void after(void) { look("destructor of a linked library"); }
int linked(void) { return 4; }
"""
LINKING = "int linked(void); int main(void) { return linked(); }\n"
FIRST = """
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
static char room[1000];
static void first(int argc, char **argv, char **environment) {
    (void)argc, (void)environment, (void)argv;
    int fd = open("small.bin", O_RDONLY);
    long got = read(fd, room, sizeof room);
    write(1, got == 1000 ? "early\\n" : "empty\\n", 6);
    close(fd);
}
__attribute__((section(".preinit_array"), used)) static void (*entry)(int, char **, char **) = first;
int main(void) { first(0, 0, 0); return 3; }
"""
FAULTHANDLER = """
import ctypes, faulthandler, hashlib, mmap, signal, sys
faulthandler.enable()
with open("b.bin", "rb") as file:
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    print(hashlib.sha256(data).hexdigest(), hashlib.sha256(file.read()).hexdigest(), faulthandler.is_enabled())
signal.signal(signal.SIGBUS, lambda *_: None)
print(hashlib.sha256(open("a.bin", "rb").read()).hexdigest(), signal.getsignal(signal.SIGSEGV), flush=True)
ctypes.string_at(8)
"""


def compiled(source: str, target: Path, *flags: str) -> Path:
    """A program whose source stands in this file."""
    origin = target.with_suffix(".c")
    origin.write_text(source)
    subprocess.run(["gcc", "-O1", "-o", str(target), str(origin), *flags], check=True, env=plain_env(), timeout=60)
    return target


def library(name: str) -> str | None:
    """Path of an installed shared library."""
    soname = ctypes.util.find_library(name)
    found = [f"/usr/lib/x86_64-linux-gnu/{soname}", f"/usr/lib64/{soname}", f"/usr/lib/{soname}"] if soname else []
    return next((path for path in found if Path(path).exists()), None)


class Host(EndToEnd):
    """One warm folder for all."""

    both: twin.Pair

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        twin.build()
        shared = cls.make_run(config={"lingerSec": twin.LINGER_SECS})
        cls.addClassCleanup(shared.close)
        cls.both = twin.Pair(cls.plain, shared)

    def alike(self, case: twin.Case, **changes: str | None) -> None:
        different = self.both.differences(case, None, **changes)
        self.assertEqual(different, "", f"- natively, + preloaded {changes}\n{self.both.run.log_tail(6)}")

    def program(self, *argv: str) -> twin.Case:
        return twin.Case(" ".join(argv), "bash", argv[0], argv)

    def allocator(self, name: str) -> None:
        found = library(name)
        if found is None:
            self.skipTest(f"{name} is not installed (ci/setup all)")
        known = {case.name: case for case in twin.cases()}
        for order in (f"{found}:{paths.PRELOAD}", f"{paths.PRELOAD}:{found}"):
            for case in UNDER_ALLOCATORS:
                with self.subTest(case=case, order=order):
                    self.alike(known[case], LD_PRELOAD=order)

    def test_jemalloc(self) -> None:
        self.allocator("jemalloc")

    def test_tcmalloc(self) -> None:
        self.allocator("tcmalloc_minimal")

    @slow
    def test_mimalloc(self) -> None:
        self.allocator("mimalloc")

    def test_a_library_ahead_that_makes_its_calls_by_number(self) -> None:
        """Our syscall() leads them to our hooks, which called that library again, without end."""
        ahead = self.scratch / "libnumber.so"
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", str(ahead), str(paths.APPS / "by_number.c")], check=True, env=plain_env(), timeout=60)
        known = {case.name: case for case in twin.cases()}
        for case in (*UNDER_ALLOCATORS, "c lies on a.bin"):
            with self.subTest(case=case):
                self.alike(known[case], LD_PRELOAD=f"{ahead}:{paths.PRELOAD}")

    def test_address_sanitizer_in_the_documented_order(self) -> None:
        runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
        if not Path(runtime).is_absolute():
            self.skipTest("gcc has no libasan")
        for source, names in UNDER_ASAN.items():
            target = self.scratch / f"{Path(source).stem}-asan"
            argv = ["gcc", *compiler.FLAGS, "-fsanitize=address", "-o", str(target), str(paths.APPS / source)]
            subprocess.run(argv, check=True, env=plain_env(), timeout=120)
            for name in names.split():
                with self.subTest(case=name):
                    leaks = "env", "ASAN_OPTIONS=detect_leaks=0", str(target), name, "a.bin", "$SCRATCH"
                    self.alike(self.program(*leaks), LD_PRELOAD=f"{runtime}:{paths.PRELOAD}")
                    order = "env", "ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0", *leaks[2:]
                    self.alike(self.program(*order))

    def test_constructor_of_a_linked_library(self) -> None:
        """It may run before ours, and then finds the placeholders empty; its destructor finds what main found."""
        so = compiled(LINKED, self.scratch / "liblinked.so", "-shared", "-fPIC")
        case = self.program(str(compiled(LINKING, self.scratch / "linking", str(so))))
        native, preloaded = self.both.native(case), self.both.preloaded(case)
        self.assertEqual((native.status, preloaded.status, preloaded.err), (4, 4, ""))
        before, after = native.out.splitlines()
        self.assertTrue(before.endswith("3145745 1000 900"), before)
        self.assertIn(preloaded.out.splitlines()[0], (before, "constructor of a linked library 0 0 0"))
        self.assertEqual(preloaded.out.splitlines()[1], after)

    def test_call_before_all_constructors(self) -> None:
        """Nothing of ours has run by then: small files are right, since they are real."""
        self.alike(self.program(str(compiled(FIRST, self.scratch / "first"))))

    def test_python_faulthandler(self) -> None:
        # The program dies by SIGSEGV at its end, with a traceback of its own.
        case = twin.Case("faulthandler", "Python", "faulthandler", (str(paths.VENV_PYTHON), "-c", FAULTHANDLER))
        native = self.both.native(case)
        self.assertEqual((native.status, "Segmentation fault" in native.err), (-11, True), native.err)
        preloaded = self.both.preloaded(case)
        self.assertEqual((preloaded.status, preloaded.out), (native.status, native.out), preloaded.err)
        self.assertIn("Segmentation fault", preloaded.err)
