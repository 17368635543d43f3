"""What libossc_preload.so takes the place of: its exported names against the rows in its sources, and the calls of the C
library that take a path against both.

The rows are the only list: `next!` of src/preload/real.rs, `jumps!` of src/preload/hook/spawn.rs, and the two names of the
version in src/preload/lib.rs. Called by ci/exports, tests/e2e/test_exports.py and tests/checks/hits.py. Changes nothing.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.harness import paths

SOURCES = paths.ROOT / "src" / "preload"
# Where the C library declares what takes a path.
HEADERS = """
dirent.h dlfcn.h fcntl.h fstab.h fts.h ftw.h glob.h libintl.h mntent.h mqueue.h nl_types.h semaphore.h spawn.h stdio.h stdlib.h
sys/acct.h sys/fanotify.h sys/inotify.h sys/ipc.h sys/mman.h sys/mount.h sys/quota.h sys/socket.h sys/stat.h sys/statfs.h
sys/statvfs.h sys/swap.h sys/time.h sys/xattr.h unistd.h utime.h utmp.h utmpx.h wordexp.h
""".split()
# How its parameters are called that are paths. `__name` is also what other things are called.
PATH = re.compile(r"__(?:\w*path\w*|\w*file(?:name)?|dir(?:name)?|(?:cat_)?name|special|from|to|old|new|template|words)")
PROTOTYPE = re.compile(r"extern [^;{}()]*?\b(\w+) ?\(([^;{}]*?)\) ?(?:__attribute__|__asm__|;)")
STRING = re.compile(r"char ?\*(?: ?const ?\*)? ?(?:__restrict )?(__\w+)")

# Calls that are not hooked: why, and which. docs/SEMANTICS.md names those of the first two reasons.
ADMINISTERS = "administers the machine"
SYSTEM_TABLE = "reads or writes a table of the system inside the C library"
LEFT_OUT = {
    ADMINISTERS: "acct fanotify_mark fspick mount mount_setattr move_mount open_tree quotactl revoke swapoff swapon umount umount2",
    SYSTEM_TABLE: "catopen setmntent updwtmp updwtmpx utmpname utmpxname",
    "only makes up a name, which an exclusive open has to try": "mktemp tempnam",
    "its path is where messages of the program are translated": "bindtextdomain",
    "its name is none of a file in a folder": """
        dlsym dlvsym fgetxattr fremovexattr fsetxattr getdomainname getenv getfsfile getfsspec gethostname getlogin_r mq_open
        mq_unlink secure_getenv sem_open sem_unlink setdomainname setenv sethostname setlogin shm_open shm_unlink unsetenv
    """,
}


def _block(text: str, macro: str) -> str:
    """The rows of one call of a macro."""
    return text.split(f"\n{macro}! {{\n", 1)[1].split("\n}\n", 1)[0]


@cache
def functions() -> tuple[str, ...]:
    """The functions that the library exports, by the rows of its sources."""
    rows = _block((SOURCES / "real.rs").read_text(), "next") + "\n" + _block((SOURCES / "hook" / "spawn.rs").read_text(), "jumps")
    return tuple(sorted(re.findall(r"^    fn (\w+)\(", rows, re.MULTILINE)))


def expected() -> set[str]:
    """All names that the library exports: functions, and the version for `nm` and `strings`."""
    return {*functions(), *re.findall(r"^pub static (\w+):", (SOURCES / "lib.rs").read_text(), re.MULTILINE)}


def exported(library: Path) -> set[str]:
    """The names that it does export."""
    done = subprocess.run(["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True)
    return {line.split()[2] for line in done.stdout.splitlines()}


def problems(names: set[str]) -> list[str]:
    """A name too few is a call that escapes, a name too many takes a function of the program's over."""
    versioned = sorted(name for name in names if "@" in name)
    wrong = [f"{name}: a symbol with a version: programs that ask for another version would pass by" for name in versioned]
    wrong += [f"{name}: has a row, and is not exported" for name in sorted(expected() - names)]
    return wrong + [f"{name}: exported, and has no row" for name in sorted(names - expected() - set(versioned))]


@cache
def path_calls() -> frozenset[str]:
    """The functions of this machine's C library with a parameter that may be a path, as its headers declare them."""
    source = "".join(f"#include <{header}>\n" for header in HEADERS)
    done = subprocess.run(["gcc", "-E", "-P", "-D_GNU_SOURCE", "-x", "c", "-"], input=source, capture_output=True, text=True, check=True)
    text = re.sub(r"\s+", " ", done.stdout)
    return frozenset(name for name, takes in PROTOTYPE.findall(text) if any(PATH.fullmatch(given) for given in STRING.findall(takes)))


@cache
def numbered() -> frozenset[str]:
    """Hooked functions that the kernel knows by a number of the same name."""
    done = subprocess.run(["gcc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"], capture_output=True, text=True, check=True)
    return frozenset(functions()) & frozenset(re.findall(r"#define SYS_(\w+)", done.stdout))


def by_number() -> set[str]:
    """The numbers of `syscall()` that have an arm in a family of hooks."""
    return {name for source in (SOURCES / "hook").glob("*.rs") for name in re.findall(r"libc::SYS_(\w+)", source.read_text())}


def left_out() -> dict[str, str]:
    """Name -> why it is not hooked."""
    return {name: why for why, names in LEFT_OUT.items() for name in names.split()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="ci/exports", description="Checks that libossc_preload.so exports exactly what its sources have rows for, without symbol versions.")
    parser.add_argument("library", nargs="?", type=Path, default=paths.PRELOAD)
    library = parser.parse_args().library
    if not library.exists():
        print(f"ci/exports: no {library}: run ci/build first", file=sys.stderr)
        return 1
    wrong = problems(exported(library))
    for line in wrong:
        print(f"ci/exports: {line}", file=sys.stderr)
    if not wrong:
        print(f"exports: {len(expected())} names, each with a row")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
