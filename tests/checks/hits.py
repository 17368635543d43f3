"""Which of our exported functions a program calls, seen from outside: the library itself counts nothing.

A second library, generated here, stands before ours in LD_PRELOAD. It has one entry for each function that ours
exports (`exports.functions`): set a byte in a shared file, then jump on to the next library's function, with all
registers and the stack untouched, so that variadic calls and struct returns are what they were. It can also
leave one of our hooks out (that name goes to the C library), to see that this is noticed.
"""

from __future__ import annotations

import mmap
import os
import subprocess
from pathlib import Path

from tests.checks.exports import functions
from tests.harness import paths
from tests.harness.run import plain_env

ENV = "HITS_FILE"

HEAD = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#define HIDDEN __attribute__((visibility("hidden")))

static const char *const names[COUNT] = NAMES;
HIDDEN void *hits_next[COUNT];
static unsigned char before_start[COUNT];
HIDDEN unsigned char *hits_seen = before_start;

static long raw(long n, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "+a"(n) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return n;
}

HIDDEN void *hits_resolve(long index) {
    void *library = index == DROPPED ? dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD) : RTLD_NEXT;
    void *found = dlsym(library, names[index]);
    /* Some names have no default version: the oldest is meant. */
    if (!found) found = dlvsym(library, names[index], "GLIBC_2.2.5");
    if (!found) found = dlvsym(library, names[index], "GLIBC_2.4");
    if (!found) __builtin_trap();
    hits_next[index] = found;
    return found;
}

__attribute__((constructor)) static void start(void) {
    const char *path = getenv(FILE_VARIABLE);
    if (!path) return;
    long fd = raw(SYS_openat, AT_FDCWD, (long)path, O_RDWR | O_CLOEXEC, 0, 0, 0);
    if (fd < 0) return;
    unsigned char *at = (unsigned char *)raw(SYS_mmap, 0, COUNT, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    raw(SYS_close, fd, 0, 0, 0, 0, 0);
    if ((long)at < 0 && (long)at > -4096) return;
    for (int i = 0; i < COUNT; i++) if (before_start[i]) at[i] = 1;
    hits_seen = at;
}
"""

# The slow path saves whatever may hold an argument; the stack is aligned for the call.
SLOW = r"""
__asm__(".text\n.hidden hits_slow\n.globl hits_slow\nhits_slow:\n"
    "push %rbp\nmov %rsp,%rbp\npush %rax\npush %rdi\npush %rsi\npush %rdx\npush %rcx\npush %r8\npush %r9\npush %r10\n"
    "and $-16,%rsp\nsub $128,%rsp\n"
    "movups %xmm0,(%rsp)\nmovups %xmm1,16(%rsp)\nmovups %xmm2,32(%rsp)\nmovups %xmm3,48(%rsp)\n"
    "movups %xmm4,64(%rsp)\nmovups %xmm5,80(%rsp)\nmovups %xmm6,96(%rsp)\nmovups %xmm7,112(%rsp)\n"
    "mov %r11,%rdi\ncall hits_resolve\nmov %rax,%r11\n"
    "movups (%rsp),%xmm0\nmovups 16(%rsp),%xmm1\nmovups 32(%rsp),%xmm2\nmovups 48(%rsp),%xmm3\n"
    "movups 64(%rsp),%xmm4\nmovups 80(%rsp),%xmm5\nmovups 96(%rsp),%xmm6\nmovups 112(%rsp),%xmm7\n"
    "lea -64(%rbp),%rsp\npop %r10\npop %r9\npop %r8\npop %rcx\npop %rdx\npop %rsi\npop %rdi\npop %rax\npop %rbp\njmp *%r11\n");
"""

ENTRY = r"""
__asm__(".globl {name}\n.type {name},@function\n{name}:\n"
    "mov hits_seen(%rip),%r11\nmovb $1,{index}(%r11)\n"
    "mov hits_next+{offset}(%rip),%r11\ntest %r11,%r11\njz 1f\njmp *%r11\n1: mov ${index},%r11d\njmp hits_slow\n");
"""


def library(target: Path, dropped: str | None = None) -> Path:
    """Generates and compiles the library."""
    names = functions()
    if dropped is not None and dropped not in names:
        raise ValueError(f"{dropped} is not exported")
    source = target.with_suffix(".c")
    head = HEAD.replace("NAMES", "{" + ",".join(f'"{n}"' for n in names) + "}").replace("COUNT", str(len(names)))
    head = head.replace("DROPPED", str(names.index(dropped) if dropped else -1)).replace("FILE_VARIABLE", f'"{ENV}"')
    entries = "".join(ENTRY.format(name=n, index=i, offset=8 * i) for i, n in enumerate(names))
    source.write_text(head + SLOW + entries)
    argv = ["gcc", "-O1", "-shared", "-fPIC", "-fno-builtin", "-o", str(target), str(source), "-ldl"]
    done = subprocess.run(argv, env=plain_env(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the counting library does not compile:\n{done.stderr}")
    return target


class Counters:
    """The library, compiled in a folder, and the bytes that it sets."""

    def __init__(self, place: Path, dropped: str | None = None) -> None:
        self.shim = library(place / "hits.so", dropped)
        self.file = place / "hits.bin"
        self.file.write_bytes(bytes(len(functions())))
        with open(self.file, "r+b") as opened:
            self._seen = mmap.mmap(opened.fileno(), 0)

    def __enter__(self) -> Counters:
        os.environ[ENV] = str(self.file)
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop(ENV, None)
        self._seen.close()

    def preload(self) -> str:
        """LD_PRELOAD: the counting library first."""
        return f"{self.shim}:{paths.PRELOAD}"

    def clear(self) -> None:
        self._seen[:] = bytes(len(functions()))

    def hit(self) -> set[str]:
        return {name for name, seen in zip(functions(), self._seen, strict=True) if seen}
