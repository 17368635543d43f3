"""Kinds of places for "bytes 1": file systems, mounts in and over MODEL_DIR, and other names of the same files.

Each function is one kind with its neighbours, run by tests/checks/identity.py. Mounts only in namespaces of its own.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.checks.situations import FEW, LARGE, WAYS, Kind, Rig
from tests.harness.space import FILE_SYSTEMS, Space, mounted, why_not

OTHER = {"other.bin": (9, 150_001), "other.json": (10, 401)}
ORDERS = (["big.bin", "config.json", "sub/part.bin", "sub/x.json", "empty.bin"], ["sub/x.json", "sub/part.bin", "empty.bin", "config.json", "big.bin"])


def placed(rig: Rig, kind: str) -> tuple[str, Path]:
    """Shell lines that mount this kind, and a MODEL_DIR on it."""
    folder = rig.folder()
    at = folder / "at"
    return f"{mounted(kind, at, folder / 'layers')}; mkdir -p {at}/model; chmod 755 {at}", at / "model"


def file_systems(rig: Rig) -> None:
    """MODEL_DIR on each kind: the first program, others in another order, and those after an engine was killed."""
    for kind in FILE_SYSTEMS:
        if reason := why_not(kind):
            rig.missing.append(f"{kind}: {reason}")
            continue
        setup, model = placed(rig, kind)
        with rig.world(f"MODEL_DIR on {kind}", setup=setup, model=model) as world:
            # A file system that gives a file another number each time may be refused.
            must = kind != "fuse"
            world.look(ORDERS[0], must=must)
            world.end_engines()
            world.look(ORDERS[1], FEW, "leftovers of a killed engine", must)
            world.end_engines()
            world.look(["sub/part.bin"], ("map",), "straight into a sub-folder", must)
            world.put("big.bin", 2)
            world.end_engines()
            world.look(["big.bin"], FEW, "another version after a killed engine", must)


def other_names(rig: Rig) -> None:
    """A placeholder that is met first by another name: bind mounts, hard links, renames, links of all sorts."""
    for kind in ("ext4", "tmpfs", "overlay on two"):
        for warm in (True, False):
            setup, model = placed(rig, kind)
            beside = model.parent
            setup += f"; mkdir {beside}/bound {beside}/links; mount --bind {model} {beside}/bound"
            with rig.world(f"{'warm' if warm else 'cold'} {kind}", setup=setup, model=model) as world:
                if warm:
                    world.anchor()
                else:
                    # The files are there, and no engine.
                    world.look(list(LARGE), ("cat",))
                    world.end_engines()
                world.look({f"{beside}/bound/{name}": name for name in (*LARGE, "config.json")}, FEW, "bind mount of MODEL_DIR")
                world.native(f"ln {model}/big.bin {beside}/links/hard; ln {model}/big.bin {model}/hard; ln -s {model}/sub {beside}/links/folder; ln -s ../model/big.bin {beside}/links/soft")
                if not warm:
                    world.end_engines()
                # Without an attribute a later engine cannot know which version a link of before is of.
                world.look({f"{beside}/links/hard": "big.bin", f"{model}/hard": "big.bin"}, FEW, "hard link", must=warm or not rig.wrap)
                world.look({f"{beside}/links/soft": "big.bin", f"{beside}/links/folder/part.bin": "sub/part.bin"}, FEW, "symbolic link")
                world.look({f"/proc/self/cwd/{beside}/links/soft": "big.bin", f"{model}/../model/./sub/../big.bin": "big.bin"}, FEW, "detour", cwd=Path("/"))
                world.native(f"mv {model}/sub/part.bin {beside}/links/moved")
                # Until the folder is filled again for a program that starts later (docs/SEMANTICS.md 25 and 54).
                world.look({f"{beside}/links/moved": "sub/part.bin"}, FEW, "moved out of MODEL_DIR", must=False)
                world.native(f"mv {model}/big.bin {model}/renamed")
                world.look({f"{model}/renamed": "big.bin"}, FEW, "renamed in MODEL_DIR", must=False)
                world.look(list(LARGE), FEW, "made again")
    one_file_bound(rig)


def one_file_bound(rig: Rig) -> None:
    """A bind mount of one file, made while the engine lives and looked at before anything else by a new program."""
    setup, model = placed(rig, "ext4")
    with rig.world("bind mount of a file", setup=setup, model=model) as world:
        world.anchor()
        world.native(f"touch {model.parent}/one; mount --bind {model}/big.bin {model.parent}/one")
        world.look({f"{model.parent}/one": "big.bin"}, FEW)
        world.end_engines()
        world.look({f"{model.parent}/one": "big.bin"}, FEW, "after the engine's end", must=False)


def mounts_inside(rig: Rig) -> None:
    """A mount point inside MODEL_DIR: objects of that folder lie on another file system."""
    for kind in ("tmpfs", "ext4", "overlay on two", "xfs"):
        if why_not(kind):
            continue
        with rig.world(f"{kind} mounted in MODEL_DIR") as bare:
            inside = bare.model / "sub"
            bare.space = Space(mounted(kind, inside, rig.folder()))
            bare.look(ORDERS[0])
            bare.end_engines()
            bare.look(ORDERS[1], FEW, "again")
    with rig.world("a bound folder in MODEL_DIR") as world:
        elsewhere = rig.folder()
        (world.model / "sub").mkdir()
        world.space = Space(f"mount --bind {elsewhere} {world.model}/sub")
        world.look(ORDERS[1])


def cold_link(rig: Rig) -> None:
    """A symbolic link into a folder that no program has listed yet."""
    for target in ("sub/part.bin", "sub/x.json"):
        with rig.world("link into an unlisted folder") as world:
            link = rig.folder() / "link"
            link.symlink_to(world.model / target)
            (link.parent / "folder").symlink_to(world.model / "sub")
            world.look({str(link): target}, FEW)
            world.end_engines()
            world.look({f"{link.parent}/folder/{os.path.basename(target)}": target}, FEW)


def foreign_folder(rig: Rig) -> None:
    """A program of one MODEL_DIR reads another one's files, whose engine lives or is gone."""
    for alive in (True, False):
        with rig.world(f"another MODEL_DIR's files, its engine {'lives' if alive else 'is gone'}") as world:
            world.look(list(LARGE), ("cat",))
            if alive:
                world.anchor()
            else:
                world.end_engines()
            mine = world.run.dir / "mine"
            mine.mkdir()
            world.look([*LARGE, "config.json"], what="by a program of another MODEL_DIR", must=False, MODEL_DIR=str(mine))


def reused_folder(rig: Rig) -> None:
    """MODEL_DIR is used for another model: the first one's names lead to no empty file."""
    for way, objects in (("other names", OTHER), ("one name for both", {"big.bin": (9, 151_001), "sub": (10, 90_017)})):
        with rig.world("first model") as world:
            world.look()
            world.end_engines()
            with rig.world(f"MODEL_DIR reused, {way}", objects=objects, model=world.model) as other:
                for name in world.objects:
                    if name in objects or name == "empty.bin" or (name.startswith("sub/") and "sub" in objects):
                        continue
                    for reader in FEW:
                        # It may be gone, or its own bytes where they are a real file, but it is not empty.
                        done = other.call([reader, str(world.model / name)]) if reader == "cat" else other.call(["stat", "-c", "%s", str(world.model / name)])
                        kept = world.content(name) if reader == "cat" else str(len(world.content(name))).encode()
                        other.judge(f"the first model's {name}, {reader}", done, done.out.strip() == kept.strip() and name not in LARGE, must=False)
                other.look(must=way == "other names")


def two_engines(rig: Rig) -> None:
    """Two engines with a /run of their own on one MODEL_DIR, as containers with a shared volume have; objects change."""
    for kind in ("ext4", "tmpfs"):
        folder = rig.folder()
        # One mount for both.
        mounts = f"{mounted(kind, folder / 'at', folder / 'layers')}; mkdir {folder}/at/model"
        with Space(mounts) as shared, rig.world(f"two engines on {kind}", model=folder / "at" / "model") as world:
            spaces = [Space("mount -t tmpfs none /run", shared) for _ in range(2)]
            try:
                for space in spaces:
                    world.anchor(space=space)
                for version in (2, 3, 4):
                    for name in ("big.bin", "sub/part.bin", "config.json"):
                        world.put(name, version)
                    time.sleep(2.2)
                    for space in spaces[::-1] if version % 2 else spaces:
                        world.look(["big.bin", "sub/part.bin", "config.json"], FEW, f"version {version}", must=False, older=True, space=space)
            finally:
                for space in spaces:
                    space.close()


def changed_shape(rig: Rig) -> None:
    """An object whose name was a folder before, and a folder whose name was an object; with and without an engine."""
    for alive in (False, True):
        with rig.world(f"names change their kind, the engine {'lives' if alive else 'is gone'}", objects={"config.json": (2, 600), "sub/part.bin": (3, 200_000), "flat.bin": (7, 99_001)}) as world:
            world.look()
            if alive:
                world.anchor()
            else:
                world.end_engines()
            world.remove("sub/part.bin")
            world.remove("flat.bin")
            world.objects = {"config.json": (2, 600), "sub": (5, 120_008), "flat.bin/inner.bin": (6, 90_100)}
            world.put("sub", 1)
            world.put("flat.bin/inner.bin", 1)
            if alive:
                time.sleep(2.2)
                world.look(["config.json"], ("cat",))
                time.sleep(1.5)
            world.look(what="after the change")


def emptied_folder(rig: Rig) -> None:
    """The files are removed under an engine that lingers: the next program finds them again."""
    for how in ("rm", "preloaded rm", "rename"):
        with rig.world(f"emptied by {how}", config={"lingerSec": 10}) as world:
            world.look(["big.bin", "config.json", "sub/part.bin"], FEW)
            script = f"rm -rf {world.model}/*" if how != "rename" else f"mkdir {world.run.dir}/old; mv {world.model}/* {world.run.dir}/old"
            if how == "preloaded rm":
                world.call(["sh", "-c", script])
            else:
                world.native(script)
            time.sleep(1.2)
            world.look(["big.bin", "config.json", "sub/part.bin"], FEW, "after that")


def unmarked(rig: Rig) -> None:
    """The control: placeholders without any mark, which nothing can know; all of them must be noticed."""
    for kind in FILE_SYSTEMS:
        if why_not(kind):
            continue
        setup, model = placed(rig, kind)
        with rig.world(f"no mark on {kind}", setup=setup, model=model) as world:
            world.look(list(LARGE), ("cat",))
            world.end_engines()
            mine = world.run.dir / "mine"
            mine.mkdir()
            world.native(STRIP, str(model))
            rig.tally.silent.clear()
            world.look(list(LARGE), what="without a mark", must=False, MODEL_DIR=str(mine))
            seen = {text for text in rig.tally.silent if "status 0" in text}
            if len(seen) < len(LARGE) * len(WAYS):
                rig.missing.append(f"{kind}: {len(seen)} of {len(LARGE) * len(WAYS)} silent reads were noticed")


# Takes every extended attribute and the nanoseconds of the time from all empty files, by the kernel alone.
STRIP = """
python3 - "$1" <<'END'
import os, sys
for folder, _, names in os.walk(sys.argv[1]):
    for path in (os.path.join(folder, name) for name in names):
        if os.path.getsize(path):
            continue
        try:
            marks = os.listxattr(path)
        except OSError:
            marks = []
        for mark in marks:
            os.removexattr(path, mark)
        os.utime(path, (1_600_000_000, 1_600_000_000))
END
"""

KINDS: list[Kind] = [
    ("file systems", file_systems), ("other names", other_names), ("mounts inside", mounts_inside), ("link into an unlisted folder", cold_link),
    ("another MODEL_DIR", foreign_folder), ("MODEL_DIR reused", reused_folder), ("two engines", two_engines), ("names change their kind", changed_shape),
    ("emptied folder", emptied_folder),
]
