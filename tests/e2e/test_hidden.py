"""Another preloaded library that hides the library's hooks is noticed at the start; one that passes calls on is not."""

from __future__ import annotations

import subprocess
import unittest
from pathlib import Path

from tests.e2e.base import EndToEnd
from tests.harness import paths
from tests.harness.run import plain_env

HEAD = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/syscall.h>
long syscall(long, ...);
static long made(long n, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "+a"(n) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return n;
}
"""
# With up to six arguments of a register each, as all of these functions have.
WRAPPED = """
long %s(long a, long b, long c, long d, long e, long f) {
    static long (*next)(long, long, long, long, long, long);
    if (!next) next = (long (*)(long, long, long, long, long, long))dlsym(%s, "%s");
    return next(a, b, c, d, e, f);
}
"""
LIBC = 'dlopen("libc.so.6", RTLD_LAZY | RTLD_LOCAL)'
HIDDEN = (
    "open", "open64", "openat64", "read", "pread", "pread64", "lseek", "lseek64", "mmap", "mmap64", "fstat", "fstat64",
    "stat", "lstat64", "__fxstat64", "statx", "fopen64", "opendir",
)
# By the kernel's number, without the C library.
NUMBERS = {"read": 0, "pread64": 17, "mmap": 9, "fstat": 5}
BY_NUMBER = "long %s(long a, long b, long c, long d, long e, long f) { return made(%d, a, b, c, d, e, f); }\n"
# A function of the program's own that has such a name, and is none of the C library's.
OWN = """
#include <stdio.h>
#include <stdlib.h>
int openat64(void) { abort(); }
int fstat64(char *text) { return text[0]; }
int main(void) { printf("%d\\n", fstat64("A")); return 0; }
"""


class Hidden(EndToEnd):
    def compiled(self, name: str, text: str) -> Path:
        target = self.scratch / f"{name}.so"
        source = target.with_suffix(".c")
        source.write_text(HEAD + text)
        argv = ["gcc", "-O1", "-w", "-fno-builtin", "-shared", "-fPIC", "-o", str(target), str(source), "-ldl"]
        subprocess.run(argv, check=True, env=plain_env(), timeout=60)
        return target

    def started(self, library: Path, role: int = 1) -> tuple[int, bytes, str]:
        run = self.managed()
        done = run.call(["/bin/echo", "started"], run.env(role, LD_PRELOAD=f"{library}:{paths.PRELOAD}"), cwd=run.model_dir)
        return done.returncode, done.stdout, done.stderr.decode()

    def refused(self, library: Path, name: str, role: int = 1) -> None:
        status, out, err = self.started(library, role)
        self.assertEqual((status, out), (1, b""), err)
        words = f"{library} stands before libossc_preload.so and hides {name}() from it: put libossc_preload.so first in LD_PRELOAD\n"
        self.assertEqual(err, f"failed to launch oss connector: another library hides the hooks: {words}")

    def test_a_library_that_goes_to_libc_by_itself_is_refused(self) -> None:
        for name in HIDDEN:
            with self.subTest(name):
                self.refused(self.compiled(f"hides-{name}", WRAPPED % (name, LIBC, name)), name)

    def test_one_that_goes_to_the_kernel_by_itself_too(self) -> None:
        for name, number in NUMBERS.items():
            with self.subTest(name):
                self.refused(self.compiled(f"calls-{name}", BY_NUMBER % (name, number)), name)

    def test_a_secondary_is_refused_too(self) -> None:
        self.refused(self.compiled("secondary", WRAPPED % ("read", LIBC, "read")), "read", 2)

    def test_one_that_passes_its_calls_on_is_as_good_as_none(self) -> None:
        text = "".join(WRAPPED % (name, "RTLD_NEXT", name) for name in HIDDEN)
        status, out, err = self.started(self.compiled("passes", text))
        self.assertEqual((status, out, err), (0, b"started\n", ""))

    def test_one_that_passes_them_on_by_another_name_or_number_too(self) -> None:
        text = WRAPPED % ("fopen64", "RTLD_NEXT", "fopen") + WRAPPED % ("pread", "RTLD_NEXT", "pread64")
        text += "long read(int fd, void *b, long n) { return syscall(SYS_read, fd, b, n); }\n"
        status, out, err = self.started(self.compiled("renames", text))
        self.assertEqual((status, out, err), (0, b"started\n", ""))

    def test_what_hides_nothing_that_gives_bytes_is_none_of_our_business(self) -> None:
        status, out, err = self.started(self.compiled("closes", WRAPPED % ("close", LIBC, "close")))
        self.assertEqual((status, out, err), (0, b"started\n", ""))

    def test_a_function_of_the_programs_own_is_not_called(self) -> None:
        source = self.scratch / "own.c"
        source.write_text(OWN)
        program = source.with_suffix("")
        subprocess.run(["gcc", "-w", "-rdynamic", "-o", str(program), str(source)], check=True, timeout=60)
        run = self.managed()
        done = run.call([str(program)])
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"65\n", b""))

    def test_without_the_connector_nothing_is_said(self) -> None:
        library = self.compiled("inert", WRAPPED % ("read", LIBC, "read"))
        run = self.managed()
        done = run.call(["/bin/echo", "started"], run.env(None, LD_PRELOAD=f"{library}:{paths.PRELOAD}"))
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"started\n", b""))


if __name__ == "__main__":
    unittest.main()
