"""Kinds of files for "bytes 1": users' own files, names and numbers that come again, catalogs that fill, odd settings.

Each function is one kind with its neighbours, run by tests/checks/identity.py.
"""

from __future__ import annotations

import os
import time
from typing import Any

from tests.checks.identity_places import placed
from tests.checks.situations import FEW, KIB, OBJECTS, PYTHON, Kind, Rig, World, with_faults
from tests.harness import blocks, faults, paths
from tests.harness import compile as compiler

# Maps the first page and opens what lies behind the map: bytes that have not come yet are none, or right.
BEHIND = """
import ctypes, mmap, os, sys
path, page = sys.argv[1], int(sys.argv[2])
c = ctypes.CDLL(None); c.mmap.restype = ctypes.c_void_p
fd = os.open(path, os.O_RDONLY)
at = c.mmap(None, ctypes.c_size_t(4096), 1, 1, fd, ctypes.c_long(0))
first = ctypes.string_at(at, 8)
for name in [f'/proc/self/map_files/{at:x}-{at + 4096:x}'] + [f'/proc/self/fd/{n}' for n in os.listdir('/proc/self/fd')]:
    try:
        if 'o' in os.path.basename(os.readlink(name))[:8] or name.startswith('/proc/self/map'):
            other = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
            got = os.pread(other, 64, page * 4096)
            print(got.hex() or 'none', flush=True)
    except OSError as e: print('none', e.errno, flush=True)
"""
OWN_FILES = """
import os, sys
bad = []
for n in range(60):
    name = f'{sys.argv[1]}/own{n}'
    try:
        if n % 3 == 0: os.close(os.open(name, os.O_CREAT | os.O_RDONLY, 0o644)); want = ''
        else:
            with open(name, 'w') as f: f.write('hello')
            want = 'hello'
        if open(name).read() != want: bad.append(name + ' reads otherwise')
        if n % 3 == 0:
            with open(name, 'a') as f: f.write('later')
            if open(name).read() != 'later': bad.append(name + ' was not written')
    except OSError as e: bad.append(f'{name} {e.strerror}')
print(bad or 'fine')
"""


def users_files(rig: Rig) -> None:
    """Edits of equal length, copies by cp -a and renames of ours: no start, sweep or new version touches them."""
    for kind in ("ext4", "tmpfs"):
        setup, model = placed(rig, kind)
        with rig.world(f"users' files on {kind}", setup=setup, model=model, objects={**OBJECTS, "sub/y.json": (6, 350)}) as world:
            world.look(ways=("cat",))
            mine = world.native(
                f"cd {model} && cp -a big.bin copy.bin && cp -a config.json copy.json && cp -a sub sub2 && mv sub/x.json sub/mine.json && "
                "printf MINE | dd of=sub/y.json conv=notrunc status=none && mkdir extra && ln -s ../big.bin extra/link && touch extra/empty && "
                "find copy.bin copy.json sub2 sub/mine.json sub/y.json extra \\( -type f -o -type l \\) -printf '%p %s %y %l\\n' | sort; "
                "cat copy.json sub2/x.json sub/mine.json sub/y.json | sha256sum"
            ).out
            again = (
                f"cd {model} && find copy.bin copy.json sub2 sub/mine.json sub/y.json extra \\( -type f -o -type l \\) -printf '%p %s %y %l\\n' | sort; "
                "cat copy.json sub2/x.json sub/mine.json sub/y.json | sha256sum"
            )
            steps = ("a program", "a new version", "a killed engine", "objects that are gone")
            for step in steps:
                if step == "a new version":
                    for name in ("big.bin", "config.json", "sub/part.bin", "sub/y.json"):
                        world.put(name, 2)
                    time.sleep(1.2)
                elif step == "a killed engine":
                    world.end_engines()
                elif step == "objects that are gone":
                    for name in ("sub/part.bin", "sub/x.json"):
                        world.remove(name)
                    time.sleep(1.2)
                for _ in range(2):
                    world.call(["sh", "-c", f"cat {model}/big.bin {model}/sub/part.bin; ls -R {model}"])
                    time.sleep(0.4)
                now = world.native(again).out
                if now != mine:
                    lost = set(mine.decode().splitlines()) ^ set(now.decode().splitlines())
                    rig.tally.silent.append(f"users' files on {kind}: changed or removed after {step}: {sorted(lost)[:6]}")
                    break
                rig.tally.right += 1


def own_files(rig: Rig) -> None:
    """A program's own files, with inode numbers that placeholders and real files of ours had before."""
    for kind in ("ext4", "tmpfs", "xfs"):
        setup, model = placed(rig, kind)
        with rig.world(f"own files on {kind}", setup=setup, model=model) as world:
            world.look(["big.bin", "config.json"], ("cat",))
            world.anchor("big.bin")
            for version in (2, 3):
                world.put("big.bin", version)
                world.put("config.json", version)
                time.sleep(1.4)
                for _ in range(2):
                    world.call(["head", "-c", "10", str(model / "big.bin")])
                    time.sleep(0.5)
            for killed in (False, True):
                if killed:
                    world.end_engines()
                done = world.call([PYTHON, "-c", OWN_FILES, str(model)])
                world.judge(f"own files, engine {'killed' if killed else 'alive'}", done, done.out.strip() == b"fine")
                world.native(f"rm -f {model}/own*")
            world.look(["big.bin", "config.json"], FEW, "the third version", must=False)


def behind_a_map(rig: Rig) -> None:
    """/proc/self/map_files and /proc/self/fd lead to a memory file whose bytes have not all come."""
    late = [{"match": {"kind": "get", "nth": nth}, "do": {"delay_ms": 4000}} for nth in range(2, 40)]
    with with_faults(rig, late) as slow:
        for pages in ("memfd", None):
            with rig.world(f"behind a map, {pages or 'tmpfs'}", endpoint=slow, objects={"big.bin": (1, 1000 * KIB), "config.json": (2, 600)}) as world:
                page = 200
                done = world.call([PYTHON, "-c", BEHIND, str(world.model / "big.bin"), str(page)], OSSC_PAGES=pages)
                expected = world.content("big.bin")[page * 4096:page * 4096 + 64].hex().encode()
                lines = done.out.splitlines()
                right = bool(lines) and all(line == expected or line.startswith(b"none") for line in lines)
                world.judge("reopened", done, right)


def other_endpoint(rig: Rig) -> None:
    """A program that names another endpoint does not get the bytes of the running engine's."""
    with with_faults(rig, []) as second, rig.world("another endpoint") as world:
        theirs = second.root / paths.BUCKET / world.prefix
        for name in ("big.bin", "config.json"):
            number, size = OBJECTS[name]
            blocks.put(second.root, theirs / name, blocks.content(number, 77, size))
        world.anchor()
        cases: dict[str, dict[str, Any]] = {
            "another endpoint": {"OSS_ENDPOINT": second.url},
            "another endpoint, wrong secret": {"OSS_ENDPOINT": second.url, "OSS_ACCESS_KEY_SECRET": "wrong"},
            "another path": {"OSS_PATH": f"oss://{paths.BUCKET}/{world.prefix}/sub/"},
        }
        for what, changes in cases.items():
            for name in ("big.bin", "config.json"):
                done = world.call(["cat", str(world.model / name)], **changes)
                world.judge(f"{what}, {name}", done, done.out == blocks.content(OBJECTS[name][0], 77, OBJECTS[name][1]) and "endpoint" in what, must=False)
        world.look(["big.bin", "config.json"], FEW, "the endpoint by another spelling", OSS_ENDPOINT=world.endpoint.url.replace("http://", "HTTP://") + "/")
        bare: dict[str, Any] = {name: None for name in ("OSS_ENDPOINT", "OSS_PATH", "OSS_REGION", "OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET")}
        world.look(["big.bin"], FEW, "none named", role=2, **bare)


def full_catalog(rig: Rig) -> None:
    """One object's versions come one after the other until the catalog's room for parts would be used up."""
    size = 1 << 30
    with rig.world("many parts", objects={"config.json": (2, 600), "latest.bin": (1, 4096)}, config={"partBytes": 4096, "lingerSec": 5, "listAgainSec": 1}) as world:
        for version in range(1, 8):
            fresh = rig.folder() / "new"
            with open(fresh, "wb") as file:
                file.write(blocks.content(1, version, 4096))
                file.truncate(size)
            os.rename(fresh, world.base / "latest.bin")
            if version == 1:
                world.anchor()
            time.sleep(1.3)
            # In 0.1.0 the first open made the engine list behind it, and the second found what came of that.
            world.call(["head", "-c", "8", str(world.model / "latest.bin")])
            time.sleep(0.8)
            done = world.call(["head", "-c", "4096", str(world.model / "latest.bin")])
            world.judge(f"version {version}, head", done, done.out == blocks.content(1, version, 4096))
            done = world.call(["stat", "-c", "%s", str(world.model / "latest.bin")])
            world.judge(f"version {version}, stat", done, done.out.strip() == str(size).encode())


def settings(rig: Rig) -> None:
    """A FIFO as log, names that are not UTF-8: right bytes or an error, in time."""
    with rig.world("a FIFO as logPath") as world:
        os.mkfifo(world.run.dir / "fifo")
        world.run.config_path.write_text(f'{{"logPath": "{world.run.dir}/fifo", "auditPath": "{world.run.dir}/audit", "materializeBytes": 65536, "lingerSec": 1}}')
        world.look(["big.bin", "config.json"], ("cat",), must=False, secs_max=20)
    odd = os.fsdecode(b"m\xff\xfe")
    with rig.world("MODEL_DIR is not UTF-8") as world:
        model = world.run.dir / odd
        model.mkdir()
        world.look({f"{model}/{name}": name for name in OBJECTS}, ("cat", "stat"), must=False, MODEL_DIR=str(model))
    with rig.world("a token that is not UTF-8") as world:
        world.look(["big.bin", "config.json"], ("cat",), must=False, OSS_SESSION_TOKEN=odd)


def many_versions(rig: Rig) -> None:
    """Small and large objects change again and again under a program that stays: the last version is served."""
    with rig.world("many versions", config={"lingerSec": 3}) as world:
        world.anchor()
        for version in range(2, 8):
            for name in ("big.bin", "config.json", "sub/x.json"):
                world.put(name, version)
            reader = [str(compiler.program("version_reader.c")), "read", str(world.model / "big.bin"), str(world.model / "config.json")]
            done = world.call(reader)
            if b"mix " in done.out:
                rig.tally.silent.append(f"many versions: {done.out!r}")
        time.sleep(2.5)
        world.call(["cat", str(world.model / "big.bin"), str(world.model / "sub/x.json")])
        time.sleep(1.5)
        world.look(["big.bin", "config.json", "sub/x.json"], FEW, "the last version")


def whole_bucket(rig: Rig) -> None:
    """OSS_PATH is a bucket in which a folder of many objects lies beside the model."""
    with with_faults(rig, [faults.rule({"delay_ms": 100}, kind="list")]) as far:
        objects = {f"data/{n:04}.txt": (1 + n % 200, 64) for n in range(1500)}
        objects |= {"zmodel/config.json": (2, 600), "zmodel/big.bin": (3, 300_000)}
        with World(rig, "a whole bucket", objects=objects, endpoint=far) as world:
            prefix = world.prefix
            names = {f"{world.model}/{prefix}/{name}": name for name in ("zmodel/config.json", "zmodel/big.bin", "data/0007.txt", "data/1499.txt")}
            world.look(names, FEW, OSS_PATH=f"oss://{paths.BUCKET}/")


KINDS: list[Kind] = [
    ("users' files", users_files), ("own files on used numbers", own_files), ("behind a map", behind_a_map), ("another endpoint", other_endpoint),
    ("a catalog that fills", full_catalog), ("odd settings", settings), ("many versions", many_versions), ("a whole bucket", whole_bucket),
]
