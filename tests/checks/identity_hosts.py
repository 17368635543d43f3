"""Kinds of hosts for "bytes 1": what is peculiar about the program, its user, its limits or what the kernel gives it.

Each function is one kind with its neighbours, run by tests/checks/identity.py. Compiles what it needs into the run's folder.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

from tests.checks.situations import FEW, LARGE, OBJECTS, PYTHON, Done, Kind, Rig, World, with_faults
from tests.harness import compile as compiler
from tests.harness import faults, paths
from tests.harness.space import Space

USER = "4242"
COLD = "hub/snapshots/abc"
# A call by path on a folder that no program has touched, {d}: what it says is compared with a plain folder's.
CALLS = {
    "open": "open('{d}/config.json').read(3)", "stat": "os.stat('{d}').st_mode", "chdir": "os.chdir('{d}')", "child": "subprocess.run(['true'], cwd='{d}').returncode",
    "statvfs": "os.statvfs('{d}').f_namemax", "pathconf": "os.pathconf('{d}', 'PC_NAME_MAX')", "listxattr": "[n for n in os.listxattr('{d}/config.json') if 'ossc' not in n]",
    "access": "os.access('{d}/config.json', os.R_OK)", "link": "os.link('{d}/config.json', '{d}/l')", "mkdir": "os.mkdir('{d}/__pycache__')",
    "rename into": "open('{o}/z', 'w').close() or os.rename('{o}/z', '{d}/z')", "rename": "os.rename('{d}/config.json', '{d}/c2')", "unlink": "os.unlink('{d}/config.json')",
    "rmdir": "os.rmdir('{d}')", "chmod": "os.chmod('{d}/config.json', 0o600)", "utime": "os.utime('{d}/config.json')", "symlink": "os.symlink('x', '{d}/s')",
    "readlink": "os.readlink('{d}/config.json')", "truncate": "open('{d}/new', 'w').write('x')", "mkfifo": "os.mkfifo('{d}/p')", "scandir": "sorted(os.listdir('{d}'))",
    "faccessat2": "c.syscall(439, -100, b'{d}', 4, 0)", "syscall stat": "c.syscall(4, b'{d}/config.json', ctypes.create_string_buffer(256))",
    "inotify": "c.inotify_add_watch(c.inotify_init(), b'{d}', 2) > 0", "bind": "socket.socket(socket.AF_UNIX).bind('{d}/k')",
}
CALLER = """
import ctypes, os, socket, subprocess, sys
c = ctypes.CDLL(None, use_errno=True)
try: print(eval(sys.argv[1]))
except OSError as e: print(type(e).__name__, e.errno)
"""
# Reads, gives up its user, and reads again; `fork` does the latter in a child.
SETUID = """
import os, sys
def read(): return len(open(sys.argv[1], 'rb').read())
print(read(), end=' ', flush=True)
if sys.argv[2] == 'fork' and os.fork(): sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
os.setgroups([]); os.setgid(4242); os.setuid(4242)
print(read())
"""
LOADER = "import ctypes, os, sys; print(ctypes.CDLL(sys.argv[1], mode=int(sys.argv[2])).loaded_answer())"
SUMMER = """
import ctypes, os, sys
path, file, how = sys.argv[1:]
if how == 'dlmopen':
    c = ctypes.CDLL(None); c.dlmopen.restype = c.dlsym.restype = ctypes.c_void_p
    call = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_char_p)(c.dlsym(ctypes.c_void_p(c.dlmopen(ctypes.c_long(-1), path.encode(), 2)), b'loaded_sum'))
else:
    call = ctypes.CDLL(path, mode=os.RTLD_NOW | (os.RTLD_DEEPBIND if how == 'deepbind' else 0)).loaded_sum
    call.restype = ctypes.c_long
got = call(file.encode())
print(got)
if got < 0: sys.exit('the read failed')
"""
# Descriptor 2 is a data file of the host's by the time that something is wrong.
DATA_FILE = """
import os, sys
for fd in (0, 1, 2): os.close(fd)
os.open('/dev/null', os.O_RDWR); os.open('/dev/null', os.O_RDWR)
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
os.write(fd, b'HEADER--')
for path in sys.argv[2:]:
    try: open(path, 'rb').read()
    except OSError: pass
os.write(fd, b'--TRAILER')
"""


def built(rig: Rig, source: str, name: str, *flags: str) -> Path:
    target = rig.folder() / name
    subprocess.run(["gcc", "-O1", "-w", *flags, "-o", str(target), str(paths.APPS / source)], check=True)
    return target


def no_proc(rig: Rig) -> None:
    """No /proc, /proc of another pid namespace, and a root without it."""
    with rig.world("/proc is empty", setup="mount -t tmpfs none /proc") as world:
        world.look(must=False)
        world.end_engines()
        world.look(ways=FEW, what="again", must=False)
    with rig.world("/proc is empty for readers", setup="mount -t tmpfs none /proc") as world, Space("true") as full:
        world.anchor(space=full)
        world.look(ways=FEW, must=False)
    with rig.world("another pid namespace") as world:
        world.look(wrap=["unshare", "--pid", "--fork"])
    root = rig.folder() / "root"
    root.mkdir()
    with rig.world("a root without /proc", setup=f"mount --rbind / {root}; umount -l {root}/proc") as world:
        world.look(must=False, wrap=["chroot", str(root)])


def relative_folder(rig: Rig) -> None:
    """MODEL_DIR is a relative path, and children work elsewhere."""
    for value in ("model", "./model/", "../{run}/model", "model/."):
        with rig.world(f"MODEL_DIR={value}") as world:
            elsewhere = world.run.dir / "elsewhere"
            elsewhere.mkdir()
            named = value.format(run=world.run.dir.name)
            script = 'cat "$1" && cd "$2" && exec cat "$1"'
            for name in ("big.bin", "config.json"):
                done = world.call(["sh", "-c", script, "sh", str(world.model / name), str(elsewhere)], cwd=world.run.dir, MODEL_DIR=named)
                world.judge(f"parent and worker, cat {name}", done, done.out == 2 * world.content(name))
            made = [entry.name for entry in elsewhere.iterdir()]
            if made:
                rig.tally.silent.append(f"MODEL_DIR={value}: a second mirror in the worker's folder: {made}")
    with rig.world("MODEL_DIR is a symbolic link") as world:
        link = world.run.dir / "link"
        link.symlink_to(world.model)
        world.look({f"{link}/{name}": name for name in OBJECTS}, FEW, MODEL_DIR=str(link))
        world.look(ways=FEW, what="by its real name")


def cold_calls(rig: Rig) -> None:
    """Calls by path on a folder two levels down that is not listed yet answer as on a plain folder."""
    with with_faults(rig, [faults.rule({"delay_ms": 150}, kind="list")]) as far:
        for name, call in CALLS.items():
            objects = {"config.json": (2, 600), f"{COLD}/config.json": (3, 500)}
            with rig.world(f"cold call {name}", objects=objects, endpoint=far) as world:
                plain = rig.folder() / "plain"
                shutil.copytree(world.base, plain)
                other = world.run.dir / "o"
                other.mkdir()
                expected = subprocess.run([PYTHON, "-c", CALLER, call.format(d=plain / COLD, o=other)], capture_output=True, check=False, stdin=subprocess.DEVNULL).stdout
                done = world.call([PYTHON, "-c", CALLER, call.format(d=world.model / COLD, o=other)])
                world.judge(call, done, done.out == expected)


def loaders(rig: Rig) -> None:
    """What the dynamic linker and the kernel open themselves is a real file, whatever its size."""
    library, program = built(rig, "loaded.c", "l.so", "-shared", "-fPIC"), built(rig, "loaded.c", "l.exe", "-DPROGRAM")
    with rig.world("objects that are loaded", objects={"config.json": (2, 600)}) as world:
        for name, source in (("lib/model.so", library), ("run", program)):
            (world.base / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source, world.base / name)
        (world.base / "run.sh").write_text("#!/bin/sh\necho said\nexit 0\n" + "#" * 200_000)
        lib = world.model / "lib" / "model.so"
        for mode in (os.RTLD_NOW, os.RTLD_LAZY | os.RTLD_GLOBAL):
            done = world.call([PYTHON, "-c", LOADER, str(lib), str(mode)])
            world.judge(f"dlopen {mode}", done, done.out.strip() == b"42")
        for name in ("run", "run.sh"):
            done = world.call(["sh", "-c", f"chmod +x {world.model}/{name}; exec {world.model}/{name}"])
            world.judge(f"exec {name}", done, name == "run" or done.out == b"said\n")
        done = world.call(["sh", "-c", f"LD_PRELOAD=$LD_PRELOAD:{lib} true"])
        world.judge("LD_PRELOAD", done, not done.err)


def scopes(rig: Rig) -> None:
    """Libraries with a scope of symbols of their own: RTLD_DEEPBIND and dlmopen."""
    library = built(rig, "loaded.c", "own.so", "-shared", "-fPIC")
    with rig.world("a library with a scope of its own") as world:
        for how in ("plain", "deepbind", "dlmopen"):
            for name in (*LARGE, "config.json"):
                done = world.call([PYTHON, "-c", SUMMER, str(library), str(world.model / name), how])
                whole = done.out.strip() == str(len(world.content(name))).encode()
                # Such a library calls past the hooks: that its large objects are empty is said by its name.
                if not whole and how != "plain" and f"oss connector: {library}" in done.err:
                    rig.tally.loud += 1
                else:
                    world.judge(f"{how} {name}", done, whole, must=how == "plain")


def other_preloads(rig: Rig) -> None:
    """Another preloaded library before or behind ours, which calls libc itself or the next one."""
    for what, flags in (("libc by a handle", ()), ("the next library", ("-DNEXT",))):
        other = built(rig, "other_preload.c", "o.so", "-shared", "-fPIC", *flags)
        for first in (True, False):
            with rig.world(f"another library, {what}, {'before' if first else 'behind'} ours") as world:
                ours = world.run.env()["LD_PRELOAD"]
                both = f"{other}:{ours}" if first else f"{ours}:{other}"
                world.look(must=not (first and not flags), LD_PRELOAD=both)


def users(rig: Rig) -> None:
    """Programs of other users, and programs that change their user without exec."""
    with rig.world("another user") as world:
        folder = world.run.dir / "products"
        folder.mkdir()
        for product in (rig.products / paths.PRELOAD.name, rig.products / paths.OSSC.name, compiler.program("version_reader.c")):
            shutil.copy2(product, folder)
        preload = str(folder / paths.PRELOAD.name)
        world.look(list(LARGE), ("cat",), LD_PRELOAD=preload)
        for how in ("self", "fork"):
            for name in LARGE:
                done = world.call(["/usr/bin/python3", "-c", SETUID, str(world.model / name), how], LD_PRELOAD=preload)
                size = str(len(world.content(name))).encode()
                world.judge(f"setuid, {how}, {name}", done, done.out.split() == [size, size])
        world.model.chmod(0o755)
        as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        for alive in (True, False):
            if not alive:
                world.end_engines()
            world.look(["big.bin", "config.json"], ("cat", "sha256sum", "stat", "wc"), f"as another user, engine {'alive' if alive else 'gone'}", must=False, wrap=as_user, LD_PRELOAD=preload)


def run_folders(rig: Rig) -> None:
    """/run/oss-connector is there and cannot be written; other places can."""
    for what, before in (("none", "true"), ("one of the image's", "mkdir -m 700 /run/oss-connector")):
        with rig.world(f"read-only /run with {what}", setup=f"mount -t tmpfs none /run; {before}; mount -o remount,ro /run") as world:
            xdg = world.run.dir / "xdg"
            xdg.mkdir(mode=0o700)
            world.look(ways=FEW, XDG_RUNTIME_DIR=str(xdg))
            world.end_engines()
            world.look(ways=FEW, what="without XDG_RUNTIME_DIR", XDG_RUNTIME_DIR=None)


def few_descriptors(rig: Rig) -> None:
    """The engine runs out of descriptors, in the middle of a listing too: what it made is no empty file."""
    objects = {"config.json": (2, 600), **{f"sub/w{n:02}.bin": (10 + n, 70_000 + n) for n in range(60)}}
    for limit in (48, 64, 72, 80, 96, 128):
        with rig.world(f"{limit} descriptors", objects=objects) as world:
            names = " ".join(str(world.model / name) for name in objects)
            script = f"ulimit -n {limit}; exec \"$@\""
            for again in range(2):
                wrap = ["sh", "-c", script, "sh"]
                done = world.call([str(compiler.program("version_reader.c")), "read", *names.split()], wrap=wrap, secs_max=20)
                if done.status == -1 and not again:
                    # Errors that come one by one take their time; what was read until then is judged.
                    done = Done(1, done.out, done.err)
                lines = [line.split() for line in done.out.decode().splitlines() if line.startswith(("got", "err", "mix"))]
                bad = [line for line in lines if line[0] == "mix" or (line[0] == "got" and line[7] != str(objects[os.path.relpath(line[4], world.model)][1]))]
                if bad or (done.status == 0 and len(lines) != len(objects)) or (done.status != 0 and not done.err):
                    rig.tally.silent.append(f"{limit} descriptors, program {again + 1}: {len(bad)} of {len(lines)} files wrong with status {done.status}: {bad[:1]}")
                else:
                    rig.tally.right += sum(line[0] == "got" for line in lines)
                    rig.tally.loud += sum(line[0] == "err" for line in lines) + (done.status != 0)


def no_pidfds(rig: Rig) -> None:
    """pidfd_open, statx or io_uring are not there: an engine stays under a program that waits."""
    with with_faults(rig, [], ["--rate-bytes-per-sec", "350000"]) as slow:
        for call, error in (("pidfd_open", "ENOSYS"), ("pidfd_open,memfd_create", "EPERM")):
            with rig.world(f"{call} is {error}", endpoint=slow, wrap=[str(compiler.program("refuse.c")), error, call]) as world:
                world.look(["big.bin"], ("map", "cat"), secs_max=15)
    for call, error in (("statx", "ENOSYS"), ("io_uring_setup", "EPERM"), ("fsopen,openat2", "ENOSYS")):
        with rig.world(f"{call} is {error}", wrap=[str(compiler.program("refuse.c")), error, call]) as world:
            world.look(ways=FEW)


def data_file(rig: Rig) -> None:
    """Descriptor 2 is a data file of the program's: nothing of ours is written into it."""
    with rig.world("descriptor 2 is a data file") as world:
        (world.model / "left.bin").touch()
        data = world.run.dir / "data.db"
        for what, role, changes in (("nothing wrong", 1, {}), ("no engine, no endpoint", 2, {"OSS_ENDPOINT": None})):
            world.call([PYTHON, "-c", DATA_FILE, str(data), *(str(world.model / n) for n in ("left.bin", *LARGE))], role=role, secs_max=90, **changes)
            right = data.exists() and data.read_bytes() == b"HEADER----TRAILER"
            if not right:
                rig.tally.silent.append(f"descriptor 2 is a data file, {what}: {data.read_bytes()[:120]!r}")
            rig.tally.right += right


def listener(world: World, path: Path, user: int) -> subprocess.Popen[bytes]:
    """Another user's program that answers at the engine's socket."""
    code = (
        "import os, socket, sys, time; os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2])); s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); "
        "os.chmod(sys.argv[1], 0o777); s.listen(9); print(1, flush=True)\nwhile 1: c = s.accept()[0]; time.sleep(0.3); c.sendall(b'x' * 64); c.close()"
    )
    process = subprocess.Popen(["/usr/bin/python3", "-c", code, str(path), str(user)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.readline()
    world._anchors.append(process)
    return process


def sockets(rig: Rig) -> None:
    """What lies at CONNECTOR_UDS_PATH and is not the engine's socket: files, links, another user's socket."""
    for what in ("a file", "a link to a file", "a folder", "another user's socket", "a dead socket"):
        with rig.world(f"CONNECTOR_UDS_PATH is {what}") as world:
            shared = world.run.dir / "shared"
            shared.mkdir()
            shared.chmod(0o1777)
            path, precious = shared / "s", shared / "precious"
            precious.write_bytes(b"precious")
            locked = what != "a dead socket"
            if locked:
                (shared / "s.lock").write_bytes(b"mine")
            if what == "a file":
                path.write_bytes(b"precious")
            elif what == "a link to a file":
                path.symlink_to(precious)
            elif what == "a folder":
                path.mkdir()
            elif what == "another user's socket":
                listener(world, path, 65534)
            else:
                with socket.socket(socket.AF_UNIX) as dead:
                    dead.bind(str(path))
            world.look(["big.bin", "config.json"], ("cat",), must=not locked, CONNECTOR_UDS_PATH=str(path))
            kept = [precious.read_bytes() == b"precious", not locked or (shared / "s.lock").read_bytes() == b"mine"]
            kept.append(what != "a file" or (path.is_file() and path.read_bytes() == b"precious"))
            kept.append(what != "a link to a file" or path.is_symlink())
            if not all(kept):
                rig.tally.silent.append(f"CONNECTOR_UDS_PATH is {what}: a user's file was changed or removed: {[p.name for p in shared.iterdir()]} {kept}")


KINDS: list[Kind] = [
    ("no /proc", no_proc), ("relative MODEL_DIR", relative_folder), ("calls by path on a cold folder", cold_calls), ("what is loaded", loaders),
    ("scopes of symbols", scopes), ("other preloaded libraries", other_preloads), ("other users", users), ("run folders", run_folders),
    ("few descriptors", few_descriptors), ("calls that are refused", no_pidfds), ("descriptor 2 is a data file", data_file), ("CONNECTOR_UDS_PATH", sockets),
]
