"""Calls by path on a folder that nobody has listed yet answer as on a local folder: they wait for the listing."""

from __future__ import annotations

import shutil
import subprocess
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from tests.e2e.base import PREFIX, EndToEnd, can_unshare, slow
from tests.harness import compile as compiler
from tests.harness import folder, paths
from tests.harness.run import Run, plain_env

PYTHON = str(paths.VENV_PYTHON)
# `nested` is there and not listed, `nested/deep` is not there yet. `d` is the folder, `o` one outside of it.
BEGIN = """
import ctypes, errno, os, socket, subprocess, sys, tempfile
d, o = sys.argv[1], sys.argv[2]
cold, deep, c, j = d + "/nested", d + "/nested/deep", d + "/nested/deep/c.bin", d + "/nested/small.json"
libc = ctypes.CDLL(None, use_errno=True)
def checked(got):
    if got < 0: raise OSError(ctypes.get_errno(), "call")
    return "done"
def call(number, *args):
    return checked(libc.syscall(number, *[a.encode() if isinstance(a, str) else ctypes.c_long(a) for a in args]))
def made(path): os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)); return path
"""
# What each prints, or the errno, must be the same natively and on a cold folder.
CALLS = {
    "chdir": "os.chdir(deep); print(sorted(os.listdir('.')))",
    "chdir by number": "print(call(80, deep))",
    "cwd of a child": "print(subprocess.run(['ls'], cwd=deep, capture_output=True).stdout)",
    "posix_spawn of a program": "print(os.WEXITSTATUS(os.waitpid(os.posix_spawn(c, ['c'], os.environ), 0)[1]))",
    "file action": "print(os.waitpid(os.posix_spawn('/bin/cat', ['cat'], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 0, c, os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, '/dev/null', os.O_WRONLY, 0)]), 0)[1])",
    "file action in the folder of another": "a = ctypes.create_string_buffer(512); libc.posix_spawn_file_actions_init(a); libc.posix_spawn_file_actions_addchdir_np(a, cold.encode()); libc.posix_spawn_file_actions_addopen(a, 0, b'small.json', 0, 0); print(libc.posix_spawn(ctypes.byref(ctypes.c_int()), b'/bin/true', a, None, (ctypes.c_char_p * 2)(b'true', None), None))",
    "interpreter": "os.close(os.open(o + '/s', os.O_CREAT | os.O_WRONLY, 0o755)); f = open(o + '/s', 'w'); f.write('#! ' + c + ' -x'); f.close(); os.execv(o + '/s', ['s'])",
    "openat2 by number": "how = ctypes.create_string_buffer(24); print(call(437, -100, c, ctypes.addressof(how), 24))",
    "getdents64 by number of a folder's handle": "h = ctypes.create_string_buffer(bytes([128, 0, 0, 0]), 136); libc.name_to_handle_at(-100, cold.encode(), h, ctypes.byref(ctypes.c_int()), 0); b = ctypes.create_string_buffer(4096); print(call(217, checked(libc.open_by_handle_at(os.open(d, os.O_RDONLY), h, 0)), ctypes.addressof(b), 4096), b'small.json' in b.raw)",
    "execv": "os.execv(c, ['c'])",
    "execveat by number": "print(call(322, -100, c, 0, 0, 0))",
    "execlp on PATH": "os.environ['PATH'] = deep; libc.setenv(b'PATH', deep.encode(), 1); checked(libc.execlp(b'c.bin', b'c.bin', None))",
    "dlopen": "libc.dlopen.restype = ctypes.c_void_p; libc.dlerror.restype = ctypes.c_char_p; libc.dlopen(j.encode(), 2); print('No such file' in libc.dlerror().decode())",
    "statvfs": "print(os.statvfs(deep).f_namemax)",
    "statfs by number": "print(call(137, deep, ctypes.addressof(ctypes.create_string_buffer(256))))",
    "pathconf": "print(os.pathconf(deep, 'PC_NAME_MAX'))",
    "xattr": "print(os.getxattr(c, 'user.absent'))",
    "setxattr by number": "print(call(188, j, 'user.own', 'x', 1, 0))",
    "link out": "os.link(j, o + '/l'); print(os.path.getsize(o + '/l'))",
    "link onto an object": "os.link(made(o + '/f'), c)",
    "linkat by number": "print(call(265, -100, j, -100, o + '/l2', 0))",
    "mkdir": "os.mkdir(deep + '/__pycache__'); print(sorted(os.listdir(deep)))",
    "mkdir of a folder of the bucket": "os.mkdir(deep)",
    "mkdirat by number": "print(call(258, -100, deep + '/x', 0o700))",
    "makedirs": "os.makedirs(deep + '/a/b'); print(sorted(os.listdir(deep)))",
    "rename in": "os.rename(made(o + '/f'), deep + '/f'); print(sorted(os.listdir(deep)))",
    "rename out": "os.rename(j, o + '/j'); print(len(open(o + '/j', 'rb').read()), os.listdir(cold))",
    "rename of a folder": "os.rename(cold, d + '/moved'); print(os.listdir(d + '/moved/deep'), len(open(d + '/moved/deep/c.bin', 'rb').read()))",
    "glob from above": "room = ctypes.create_string_buffer(72); print(libc.glob((d + '/../mod*/nested/*/*.bin').encode(), 0, None, room), int.from_bytes(room.raw[:8], 'little'))",
    "rename of a folder onto one with objects": "os.mkdir(o + '/e'); os.rename(o + '/e', cold)",
    "exchange with a folder by number": "os.mkdir(o + '/e'); print(call(316, -100, o + '/e', -100, cold, 2), len(open(o + '/e/deep/c.bin', 'rb').read()), os.listdir(cold))",
    "renameat2 by number": "print(call(316, -100, made(o + '/f'), -100, c, 1))",
    "unlink": "os.unlink(c); print(os.listdir(deep))",
    "unlinkat by number": "print(call(263, -100, j, 0), os.listdir(cold))",
    "rmdir of a folder with objects": "os.rmdir(cold)",
    "rmdir by number": "print(call(84, cold))",
    "remove": "libc.remove.argtypes = [ctypes.c_char_p]; print(checked(libc.remove(j.encode())))",
    "chmod": "os.chmod(c, 0o600); print(oct(os.stat(c).st_mode))",
    "fchmodat2 by number": "print(call(452, -100, j, 0o640, 0))",
    "lchown": "os.lchown(c, os.getuid(), os.getgid()); print('done')",
    "utime": "os.utime(j); print('done')",
    "utimensat by number": "print(call(280, -100, j, 0, 0))",
    "symlink": "os.symlink('x', deep + '/s'); print(sorted(os.listdir(deep)))",
    "symlink at an object": "os.symlink('x', c)",
    "faccessat2 by number": "print(call(439, -100, deep, 4, 0))",
    "inotify": "print(checked(libc.inotify_add_watch(libc.inotify_init(), deep.encode(), 2)))",
    "bind": "os.chdir(d); socket.socket(socket.AF_UNIX).bind('nested/deep/k'); print(sorted(os.listdir(deep)))",
    "connect": "os.chdir(d); socket.socket(socket.AF_UNIX).connect('nested/deep/c.bin')",
    "mkfifo": "os.mkfifo(deep + '/f'); print(sorted(os.listdir(deep)))",
    "mknod at an object": "os.mknod(c)",
    "mkstemp": "fd, name = tempfile.mkstemp(dir=deep); print(os.path.dirname(name) == deep)",
    "mkdtemp of libc": "libc.mkdtemp.restype = ctypes.c_char_p; print(libc.mkdtemp(ctypes.create_string_buffer((deep + '/XXXXXX').encode())) is None)",
    "name_to_handle_at": "print(libc.name_to_handle_at(-100, deep.encode(), ctypes.create_string_buffer(bytes(8), 256), ctypes.byref(ctypes.c_int()), 0), ctypes.get_errno() == errno.ENOENT)",
    "ftok": "print(libc.ftok(c.encode(), 1) == -1)",
    "truncate": "os.truncate(d + '/nested/none', 0)",
    "exclusive": "os.open(c, os.O_CREAT | os.O_EXCL | os.O_WRONLY)",
    "exclusive in the first folder": "os.open(j, os.O_CREAT | os.O_EXCL | os.O_WRONLY)",
    "fopen for x": "open(j, 'x')",
    "a link to a file": "os.symlink(c, o + '/l'); print(len(open(o + '/l', 'rb').read()))",
    "a link to a folder": "os.symlink(deep, o + '/l'); print(os.stat(o + '/l/c.bin').st_size, os.listdir(o + '/l'))",
    "links one behind the other": "os.symlink(deep, o + '/a'); os.symlink('a', o + '/b'); os.symlink('b/c.bin', o + '/c'); print(os.stat(o + '/c').st_size)",
    "a link inside with ..": "os.symlink('nested/deep/../deep', d + '/l'); print(os.listdir(d + '/l'))",
    "chdir through a link": "os.symlink(deep, o + '/l'); os.chdir(o + '/l'); print(os.listdir('.'))",
    "chmod through a link": "os.symlink(j, o + '/l'); os.chmod(o + '/l', 0o600); print(oct(os.stat(j).st_mode))",
    "a loop of links": "os.symlink('b', o + '/a'); os.symlink('a', o + '/b'); os.stat(o + '/a/x')",
    "a link by the working folder": "os.chdir(d); os.symlink('/proc/self/cwd/nested/deep/c.bin', o + '/l'); print(os.stat(o + '/l').st_size)",
    "what is not there": "os.chmod(deep + '/none', 0o600)",
}

# pidfd_spawn of glibc 2.39 and openat2 of glibc 2.43. That one's addchdir is the addchdir_np of this one.
NEWER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/syscall.h>
int pidfd_spawn(int *fd, const char *path, void *a, void *t, char **v, char **e)
{ int (*f)(int *, const char *, void *, void *, char **, char **) = dlsym(RTLD_NEXT, "posix_spawn"); return f(fd, path, a, t, v, e); }
int pidfd_spawnp(int *fd, const char *path, void *a, void *t, char **v, char **e)
{ int (*f)(int *, const char *, void *, void *, char **, char **) = dlsym(RTLD_NEXT, "posix_spawnp"); return f(fd, path, a, t, v, e); }
int openat2(int dir, const char *path, void *how, long size)
{ long (*f)(long, ...) = dlsym(RTLD_NEXT, "syscall"); return f(SYS_openat2, dir, path, how, size); }
"""
NEWER_CALLS = {
    name: f"print(libc.{name}(ctypes.byref(ctypes.c_int()), c.encode(), None, None, (ctypes.c_char_p * 2)(b'c', None), None) == errno.EACCES)"
    for name in ("pidfd_spawn", "pidfd_spawnp")
} | {
    "addchdir": "a = ctypes.create_string_buffer(512); libc.posix_spawn_file_actions_init(a); libc.posix_spawn_file_actions_addchdir(a, cold.encode()); libc.posix_spawn_file_actions_addopen(a, 0, b'small.json', 0, 0); print(libc.posix_spawn(ctypes.byref(ctypes.c_int()), b'/bin/true', a, None, (ctypes.c_char_p * 2)(b'true', None), None) == 0)",
    "openat2": "print(libc.openat2(-100, c.encode(), ctypes.create_string_buffer(24), 24) > 0)",
}


class ColdNames(EndToEnd):
    """Each call has a MODEL_DIR and an engine of its own: a folder is cold once only."""

    faults: ClassVar[list[dict[str, Any]] | None] = [{"match": {"kind": "list", "prefix": f"{PREFIX}/nested/"}, "do": {"delay_ms": 400}}]

    def program(self, code: str) -> list[str]:
        return [PYTHON, "-c", f"{BEGIN}\ntry:\n    {code}\nexcept OSError as e: print(errno.errorcode[e.errno])"]

    def natively(self, name: str, code: str) -> str:
        own = self.scratch / "natively" / name
        (own / "out").mkdir(parents=True)
        shutil.copytree(self.plain / "nested", own / "model" / "nested")
        argv = [*self.program(code), str(own / "model"), str(own / "out")]
        return subprocess.run(argv, env=plain_env(), capture_output=True, text=True, cwd="/", timeout=60, check=False).stdout

    def cold(self, code: str) -> tuple[str, str]:
        with Run(self.endpoint, PREFIX, config={"materializeBytes": folder.MATERIALIZE_BYTES}) as run:
            out = run.dir / "out"
            out.mkdir()
            done = run.call([*self.program(code), str(run.model_dir), str(out)], cwd="/", timeout=60)
            return done.stdout.decode(), done.stderr.decode() + run.log_tail()

    @unittest.skipUnless(can_unshare(), "needs root")
    def test_a_program_that_has_lost_proc_finds_what_is_in_the_bucket(self) -> None:
        """The engine runs; the program has not met it yet, and has no /proc to ask a folder's descriptor by."""
        for look in ("ls nested", "ls nested/deep", "cd nested; ls deep", "wc -c < nested/deep/c.bin"):
            with self.subTest(look), Run(self.endpoint, PREFIX, config={"materializeBytes": folder.MATERIALIZE_BYTES}) as run:
                done = run.call(["unshare", "-m", "sh", "-c", f"umount -l /proc; {look}"], cwd=run.model_dir)
                local = subprocess.run(["sh", "-c", look], cwd=self.plain, capture_output=True, check=True).stdout
                self.assertEqual(done.stdout, local, done.stderr.decode() + run.log_tail())

    def test_openat2_waits_where_no_process_may_be_read(self) -> None:
        """Profiles of containers refuse process_vm_readv (310), by which the flags were read."""
        refused = [str(compiler.program("refuse.c")), "EPERM", "310"]
        with Run(self.endpoint, PREFIX, config={"materializeBytes": folder.MATERIALIZE_BYTES}) as run:
            done = run.call([*refused, *self.program(CALLS["openat2 by number"]), str(run.model_dir), str(run.dir)], cwd="/", timeout=60)
            self.assertEqual(done.stdout, b"done\n", done.stderr.decode() + run.log_tail())

    def test_calls_of_newer_c_libraries_wait(self) -> None:
        """A library behind ours has what this C library does not have yet: calls that lead on to it."""
        newer = self.scratch / "newer.so"
        source = newer.with_suffix(".c")
        source.write_text(NEWER)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(newer), str(source), "-ldl"], check=True, env=plain_env())
        for name, code in NEWER_CALLS.items():
            with self.subTest(name), Run(self.endpoint, PREFIX, config={"materializeBytes": folder.MATERIALIZE_BYTES}) as run:
                preload = f"{run.env()['LD_PRELOAD']}:{newer}"
                done = run.call([*self.program(code), str(run.model_dir), str(run.dir)], run.env(LD_PRELOAD=preload), cwd="/", timeout=60)
                # A file that may not be run; an open descriptor.
                self.assertEqual(done.stdout, b"True\n", done.stderr.decode() + run.log_tail())

    @slow
    def test_calls_wait_for_the_listing(self) -> None:
        with ThreadPoolExecutor(4) as pool:
            cold = dict(zip(CALLS, pool.map(self.cold, CALLS.values()), strict=True))
        for name, code in CALLS.items():
            with self.subTest(name):
                expected = self.natively(name, code)
                self.assertNotEqual(expected, "")
                self.assertEqual(cold[name][0], expected, cold[name][1])

    def test_without_a_descriptor_left_a_name_is_not_called_absent(self) -> None:
        """A program without a free number cannot look whether a folder is listed: the error says so, and goes with its cause."""
        run = self.managed()
        program = BEGIN + """
def size(path):
    try:
        return os.stat(path).st_size
    except OSError as e:
        return errno.errorcode[e.errno]
os.stat(d)
at = os.open(o, os.O_PATH)
os.chdir(d)
names = (c, "nested/deep/c.bin", o + "/absent", d + "/absent", "absent")
taken = []
try:
    while True: taken.append(os.dup(2))
except OSError: pass
print(*map(size, names), sep=",")
for fd in taken: os.close(fd)
print(*map(size, names), sep=",")
"""
        argv = ["bash", "-c", 'ulimit -n 64; exec "$@"', "bash", PYTHON, "-c", program, str(run.model_dir), str(run.dir)]
        done = run.call(argv, cwd="/", timeout=60)
        size = (self.plain / "nested/deep/c.bin").stat().st_size
        found = done.stdout.decode().split("\n")
        self.assertEqual(found[0], "EMFILE,EMFILE,ENOENT,EMFILE,EMFILE", done.stderr.decode() + run.log_tail())
        self.assertEqual(found[1], f"{size},{size},ENOENT,ENOENT,ENOENT", run.log_tail())

    def test_without_a_descriptor_left_a_folder_is_not_called_empty(self) -> None:
        """Removing and moving a folder takes no descriptor; to look what lies in it does."""
        run = self.managed()
        program = BEGIN + """
def attempt(call, *paths):
    try:
        return call(*paths)
    except OSError as e:
        return errno.errorcode[e.errno]
file, own, empty = made(d + "/file"), o + "/own", o + "/empty"
os.mkdir(own); os.mkdir(empty)
taken = []
try:
    while True: taken.append(os.dup(2))
except OSError: pass
print(attempt(os.rmdir, cold), attempt(os.rename, cold, d + "/moved"), attempt(os.rename, empty, cold))
print(attempt(os.rename, file, d + "/renamed"), attempt(os.rename, own, o + "/renamed"), attempt(os.rmdir, empty))
for fd in taken: os.close(fd)
print(attempt(os.rmdir, cold), attempt(os.rename, cold, d + "/moved"), os.listdir(d + "/moved/deep"))
"""
        argv = ["bash", "-c", 'ulimit -n 64; exec "$@"', "bash", PYTHON, "-c", program, str(run.model_dir), str(run.dir)]
        done = run.call(argv, cwd="/", timeout=60)
        expected = "EMFILE EMFILE EMFILE\nNone None None\nENOTEMPTY None ['c.bin']\n"
        self.assertEqual(done.stdout.decode(), expected, done.stderr.decode() + run.log_tail())

    def test_without_a_descriptor_left_an_unmarked_file_is_not_called_empty(self) -> None:
        """A file without a mark may be an object's in a folder that is still to be listed: the last free number opens it."""
        run = self.managed({"prefetch": {"vcpus": 1, "workers": 1}})
        (run.model_dir / "nested/deep").mkdir(parents=True)
        (run.model_dir / "nested/deep/c.bin").touch()
        program = BEGIN + """
def size(path):
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError as e:
        return errno.errorcode[e.errno]
    try:
        return sum(iter(lambda: len(os.read(fd, 1 << 20)), 0))
    finally:
        os.close(fd)
print(size(d + "/a.bin"))
taken = []
try:
    while True: taken.append(os.dup(2))
except OSError: pass
os.close(taken.pop())
print(size(c))
for fd in taken: os.close(fd)
print(size(c))
"""
        argv = ["bash", "-c", 'ulimit -n 64; exec "$@"', "bash", PYTHON, "-c", program, str(run.model_dir), str(run.dir)]
        done = run.call(argv, cwd="/", timeout=60)
        sizes = [(self.plain / name).stat().st_size for name in ("a.bin", "nested/deep/c.bin")]
        self.assertEqual(done.stdout.decode().split(), [str(sizes[0]), "EMFILE", str(sizes[1])], done.stderr.decode() + run.log_tail())

    def test_without_the_hooks_the_names_are_missing(self) -> None:
        """The control: the folder is cold indeed."""
        with Run(self.endpoint, PREFIX, config={"materializeBytes": folder.MATERIALIZE_BYTES}) as run:
            code = "import os, sys; print(os.path.exists(sys.argv[1] + '/nested'), os.path.exists(sys.argv[1] + '/nested/deep'))"
            script = f"true; env -u LD_PRELOAD {PYTHON} -c \"$1\" \"$2\""
            done = run.call(["bash", "-c", script, "bash", code, str(run.model_dir)], cwd="/")
            self.assertEqual(done.stdout.decode(), "True False\n", done.stderr.decode() + run.log_tail())


# What is done to a small object on its way is done to the object, not to the empty file that stands in for it.
CHANGES = {
    "chmod": "os.chmod('nested/small.json', 0o600)", "chmod by number": "call(90, 'nested/small.json', 0o600)",
    "link": "os.link('nested/small.json', 'linked')", "rename": "os.rename('nested/small.json', 'moved')",
    "setxattr": "os.setxattr('nested/small.json', 'user.own', b'x')", "unlink": "os.unlink('nested/small.json')",
}
AFTER = """
import time; time.sleep(0.2)
for name in ("nested/small.json", "linked", "moved"):
    if os.path.exists(name): print(name, oct(os.stat(name).st_mode), len(open(name, "rb").read()), [n for n in os.listxattr(name) if n == "user.own"])
"""


class OnItsWay(EndToEnd):
    """The small object comes later than a listing waits for it."""

    faults: ClassVar[list[dict[str, Any]] | None] = [{"match": {"kind": "get", "key": f"{PREFIX}/nested/small.json"}, "do": {"delay_ms": 3500}}]

    def test_changes_wait_for_the_object(self) -> None:
        expected = {
            "chmod": "nested/small.json 0o100600 700 []\n", "chmod by number": "nested/small.json 0o100600 700 []\n",
            "link": "nested/small.json 0o100644 700 []\nlinked 0o100644 700 []\n", "rename": "moved 0o100644 700 []\n",
            "setxattr": "nested/small.json 0o100644 700 ['user.own']\n", "unlink": "",
        }

        def run(code: str) -> str:
            with Run(self.endpoint, PREFIX, config={"materializeBytes": folder.MATERIALIZE_BYTES}) as run:
                begin = f"import sys; sys.argv[1:] = ['.', '.']\n{BEGIN}\nos.listdir('nested')\n"
                return run.call([PYTHON, "-c", f"{begin}{code}\n{AFTER}"], cwd=run.model_dir, timeout=60).stdout.decode()

        with ThreadPoolExecutor(3) as pool:
            self.assertEqual(dict(zip(CHANGES, pool.map(run, CHANGES.values()), strict=True)), expected)


class Libraries(EndToEnd):
    """`dlopen` is still its caller's."""

    faults: ClassVar[list[dict[str, Any]] | None] = [{"match": {"kind": "get", "key": f"{PREFIX}/lib/libneeded.so"}, "do": {"delay_ms": 1500}}]

    def test_what_a_library_needs_of_its_folder_is_waited_for(self) -> None:
        place = self.plain / "lib"
        place.mkdir()
        self.addCleanup(shutil.rmtree, place)
        for name, code, options in (("libneeded.so", "int seven(void) { return 7; }", ()), ("libfirst.so", "int seven(void); int seen(void) { return seven(); }", ("-L.", "-lneeded", "-Wl,-rpath,$ORIGIN"))):
            argv = ["gcc", "-shared", "-fPIC", "-xc", "-", "-o", name, "-xnone", f"-Wl,-soname,{name}", *options]
            subprocess.run(argv, cwd=place, check=True, input=code, text=True, env=plain_env())
        run = self.managed()
        code = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).seen())"
        done = run.call([PYTHON, "-c", code, str(run.model_dir / "lib" / "libfirst.so")], timeout=60)
        self.assertEqual(done.stdout, b"7\n", done.stderr.decode() + run.log_tail())

    def test_a_library_of_the_callers_own_search_path_is_found(self) -> None:
        place = self.scratch / "dl"
        (place / "beside").mkdir(parents=True)
        (place / "inner.c").write_text("int inner(void) { return 7; }\n")
        (place / "outer.c").write_text(
            "#define _GNU_SOURCE\n#include <dlfcn.h>\n"
            "int outer(void) { void *h = dlopen(\"libinner.so\", RTLD_NOW); int (*f)(void) = h ? dlsym(h, \"inner\") : 0; return f ? f() : -1; }\n"
        )
        (place / "main.c").write_text("int outer(void);\nint main(void) { return outer(); }\n")
        for argv in (
            ["gcc", "-shared", "-fPIC", "-o", "beside/libinner.so", "inner.c"],
            ["gcc", "-shared", "-fPIC", "-o", "libouter.so", "outer.c", "-ldl", "-Wl,--enable-new-dtags,-rpath,$ORIGIN/beside"],
            ["gcc", "-o", "main", "main.c", "-L.", "-louter", "-Wl,-rpath,$ORIGIN"],
        ):
            subprocess.run(argv, cwd=place, check=True)
        run = self.managed()
        self.assertEqual(run.call([str(place / "main")]).returncode, 7)
        self.assertEqual(run.call([str(Path(place / "main"))], run.env(None)).returncode, 7)


    def test_a_library_that_binds_past_the_hooks_is_named(self) -> None:
        place = self.scratch / "deep"
        place.mkdir()
        (place / "reader.c").write_text(
            "#include <fcntl.h>\n#include <unistd.h>\n"
            "long size(const char *p) { static char b[1 << 16]; long n = 0, k; int fd = open(p, O_RDONLY);"
            " while ((k = read(fd, b, sizeof b)) > 0) n += k; close(fd); return n; }\n"
        )
        (place / "main.c").write_text(
            "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <stdio.h>\n#include <stdlib.h>\n"
            "int main(int c, char **v) { for (int i = 0; i < 2; i++) {"
            " void *h = v[1][0] == 'm' ? dlmopen(atoi(v[1] + 1), v[2], RTLD_NOW) : dlopen(v[2], RTLD_NOW | (v[1][0] == 'd' ? RTLD_DEEPBIND : 0));"
            " long (*f)(const char *) = dlsym(h, \"size\"); printf(\"%ld\\n\", f(v[3])); } return 0; }\n"
        )
        for argv in (["gcc", "-shared", "-fPIC", "-o", "reader.so", "reader.c"], ["gcc", "-w", "-o", "main", "main.c", "-ldl"]):
            subprocess.run(argv, cwd=place, check=True)
        size, reader = (self.plain / "b.bin").stat().st_size, str(place / "reader.so")
        said = "oss connector: {} is loaded {}, so its own calls pass the library by: large objects of MODEL_DIR are empty for it\n"
        for way, seen, how in (("plain", size, None), ("m0", size, None), ("deep", 0, "with RTLD_DEEPBIND"), ("m-1", 0, "by dlmopen")):
            with self.subTest(way):
                run = self.managed()
                done = run.call([str(place / "main"), way, reader, "b.bin"], cwd=run.model_dir)
                self.assertEqual(done.stdout.decode(), f"{seen}\n" * 2)
                self.assertEqual(done.stderr.decode(), said.format(reader, how) if how else "")


if __name__ == "__main__":
    unittest.main()
